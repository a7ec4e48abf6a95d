//! The client over a real socket, against a small server that the tests script: what the machine decides is tested in choir-core, here it is the shell.
#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]

mod fake;

use std::sync::Arc;
use std::time::Duration;

use choir_client::{
    Client, Code, Config, ErrorCode, Finding, Kind, NewThread, ReceiptStatus, Retain, Scope, SecretKey, State,
    SubscribeOptions, ThreadEvent, Update,
};
use fake::Fake;
use tokio::time::timeout;

fn key(n: u8) -> SecretKey {
    SecretKey::from_seed(&[n; 32])
}

/// Nothing here takes long; what hangs should fail.
async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(20), future)
        .await
        .expect("it takes too long")
}

async fn connect(fake: &Fake, n: u8) -> Client {
    soon(Client::connect(Config::new(fake.url(), key(n))))
        .await
        .expect("it connects")
}

#[tokio::test]
async fn a_thread_is_made_followed_and_written_to() {
    let fake = Fake::start().await;
    let client = connect(&fake, 1).await;
    let thread_id = soon(client.create_thread(NewThread::titled("notes"))).await.unwrap();
    let thread = soon(client.subscribe(thread_id, SubscribeOptions::default()))
        .await
        .unwrap();
    let mut updates = thread.updates();
    let posted = soon(thread.post("hello")).await.unwrap();
    assert_eq!(posted.receipt.kind, Kind::MessagePosted);
    assert_eq!(posted.receipt.status, ReceiptStatus::Committed);
    let entry = soon(async {
        loop {
            if let Some(event) = updates.next().await
                && let ThreadEvent::Update(Update::Entries { entries, findings }) = &*event
            {
                assert_eq!(*findings, []);
                break entries[0].clone();
            }
        }
    })
    .await;
    assert_eq!(entry.id, posted.id);
    let replica = thread.replica().unwrap();
    let messages: Vec<_> = replica.view().messages().map(|m| m.text()).collect();
    assert_eq!(messages, [Some("hello")]);
    assert_eq!(replica.cursor(), fake.cursor(thread_id));
    assert!(matches!(&*client.state().borrow(), State::Subscribed(threads) if threads.contains(&thread_id)));
    let closed = soon(client.close()).await;
    assert_eq!(closed.unanswered, []);
    assert_eq!(*client.state().borrow(), State::Disconnected);
}

#[tokio::test]
async fn two_clients_see_the_same_thread() {
    let fake = Fake::start().await;
    let (alice, bob) = (connect(&fake, 1).await, connect(&fake, 2).await);
    let thread_id = soon(alice.create_thread(NewThread::titled("notes"))).await.unwrap();
    let there = soon(bob.subscribe(thread_id, SubscribeOptions::default()))
        .await
        .unwrap();
    for n in 0..20 {
        soon(alice.post(thread_id, format!("message {n}"))).await.unwrap();
    }
    fake.level(&there, 21).await;
    assert_eq!(there.replica().unwrap().view().messages().len(), 20);
}

#[tokio::test]
async fn an_action_survives_lost_connections_and_is_applied_once() {
    let fake = Fake::start().await;
    let client = connect(&fake, 1).await;
    let thread_id = soon(client.create_thread(NewThread::titled("notes"))).await.unwrap();
    let thread = soon(client.subscribe(thread_id, SubscribeOptions::default()))
        .await
        .unwrap();
    // The server applies it, and the connection ends before its answer.
    fake.cut_before_answering(1);
    let posted = soon(client.post(thread_id, "once")).await.unwrap();
    assert_eq!(posted.receipt.status, ReceiptStatus::Duplicate);
    soon(client.post(thread_id, "twice")).await.unwrap();
    fake.level(&thread, 3).await;
    let replica = thread.replica().unwrap();
    let texts: Vec<_> = replica
        .view()
        .messages()
        .map(|m| m.text().unwrap().to_owned())
        .collect();
    assert_eq!(texts, ["once", "twice"]);
}

#[tokio::test]
async fn dropping_the_future_of_an_action_cancels_nothing() {
    let fake = Fake::start().await;
    let client = connect(&fake, 1).await;
    let thread_id = soon(client.create_thread(NewThread::titled("notes"))).await.unwrap();
    let thread = soon(client.subscribe(thread_id, SubscribeOptions::default()))
        .await
        .unwrap();
    {
        let mut post = std::pin::pin!(client.post(thread_id, "dropped"));
        // Polled once: handed over.
        let waiting = std::future::poll_fn(|cx| std::task::Poll::Ready(post.as_mut().poll(cx).is_pending()));
        assert!(waiting.await);
    }
    fake.level(&thread, 2).await;
    assert_eq!(thread.replica().unwrap().view().messages().len(), 1);
}

#[tokio::test]
async fn closing_says_what_has_no_answer() {
    let fake = Fake::start().await;
    let config = Config::new(fake.url(), key(1)).close_timeout(Duration::from_millis(50));
    let client = soon(Client::connect(config)).await.unwrap();
    let thread_id = soon(client.create_thread(NewThread::titled("notes"))).await.unwrap();
    fake.fall_silent();
    let payload = choir_client::Object::from_iter([("content", "unheard"), ("salt", "_StSGF33OofhjB2gg1589w")]);
    let pending = client.hand_over(thread_id, "action.submit_message", payload).unwrap();
    let id = pending.id();
    let closed = soon(client.close()).await;
    assert_eq!(closed.unanswered, [(thread_id, id)]);
    assert_eq!(soon(pending).await.unwrap_err().code, Code::Closed);
    let late = soon(client.post(thread_id, "late")).await.unwrap_err();
    assert_eq!(late.code, Code::Closed);
}

#[tokio::test]
async fn a_refusal_comes_back_with_its_name_and_code() {
    let fake = Fake::start().await;
    let client = connect(&fake, 1).await;
    let thread_id = soon(client.create_thread(NewThread::titled("notes"))).await.unwrap();
    fake.refuse_next(ErrorCode::PermissionDenied);
    let error = soon(client.post(thread_id, "no")).await.unwrap_err();
    assert_eq!(error.code, Code::Wire(ErrorCode::PermissionDenied));
    assert_eq!(error.name.to_string(), "MessageDeliveryFailed");
    let elsewhere = fake.unknown_thread();
    let error = match soon(client.subscribe(elsewhere, SubscribeOptions::default())).await {
        Ok(_) => panic!("there is no such thread"),
        Err(error) => error,
    };
    assert_eq!(error.name.to_string(), "SubscriptionError");
}

#[tokio::test]
async fn history_is_walked_back_to_entry_1() {
    let fake = Fake::start().await;
    let config = Config::new(fake.url(), key(1)).retain(Retain {
        messages: 40,
        entries: 1_000,
    });
    let client = soon(Client::connect(config)).await.unwrap();
    let thread_id = soon(client.create_thread(NewThread::titled("notes"))).await.unwrap();
    for n in 0..30 {
        soon(client.post(thread_id, format!("{n}"))).await.unwrap();
    }
    let options = SubscribeOptions {
        history: Some(5),
        ..SubscribeOptions::default()
    };
    let thread = soon(client.subscribe(thread_id, options)).await.unwrap();
    assert_eq!(thread.replica().unwrap().view().messages().len(), 5);
    let mut pages = 0;
    loop {
        let page = soon(thread.earlier(Some(10))).await.unwrap();
        assert!(page.kept);
        pages += 1;
        if page.at_start {
            break;
        }
    }
    assert_eq!(pages, 3);
    let replica = thread.replica().unwrap();
    assert_eq!(replica.view().messages().len(), 30);
    assert_eq!(replica.floor().seq.get(), 0);
    let page = soon(client.history(thread_id, choir_client::Seq::saturating(4), None))
        .await
        .unwrap();
    assert_eq!(page.entries.len(), 3);
    let threads = soon(client.threads(Scope::Mine, None)).await.unwrap();
    assert_eq!(threads.threads.len(), 1);
}

#[tokio::test]
async fn a_forged_entry_is_told_and_not_shown() {
    let fake = Fake::start().await;
    let client = connect(&fake, 1).await;
    let thread_id = soon(client.create_thread(NewThread::titled("notes"))).await.unwrap();
    let thread = soon(client.subscribe(thread_id, SubscribeOptions::default()))
        .await
        .unwrap();
    let mut updates = thread.updates();
    fake.forge(thread_id, key(1).public());
    fake.level(&thread, 2).await;
    let findings = soon(async {
        loop {
            let event = updates.next().await.unwrap();
            if let ThreadEvent::Update(Update::Entries { findings, .. }) = &*event {
                break findings.clone();
            }
        }
    })
    .await;
    assert!(matches!(&findings[..], [Finding::Forged { .. }]), "{findings:?}");
    assert_eq!(thread.replica().unwrap().view().messages().len(), 0);
}

#[tokio::test]
async fn a_server_that_isnt_there_is_an_error_in_time() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    drop(listener);
    let config = Config::new(url, key(1)).connect_timeout(Duration::from_millis(300));
    let error = match soon(Client::connect(config)).await {
        Ok(_) => panic!("there is no server"),
        Err(error) => error,
    };
    assert_eq!(error.code, Code::ConnectionLost);
}

#[tokio::test]
async fn wss_is_refused_with_the_way_out() {
    let config = Config::new("wss://127.0.0.1:1/v1/ws", key(1));
    let error = match soon(Client::connect(config)).await {
        Ok(_) => panic!("there is no TLS"),
        Err(error) => error,
    };
    assert!(error.message.contains("TLS"), "{error}");
}

#[tokio::test]
async fn a_slow_listener_is_told_that_it_is_behind() {
    let fake = Fake::start().await;
    let client = connect(&fake, 1).await;
    let thread_id = soon(client.create_thread(NewThread::titled("notes"))).await.unwrap();
    let thread = soon(client.subscribe(thread_id, SubscribeOptions::default()))
        .await
        .unwrap();
    let mut updates = thread.updates();
    for n in 0..100 {
        soon(client.post(thread_id, format!("{n}"))).await.unwrap();
    }
    fake.level(&thread, 101).await;
    let first = soon(updates.next()).await.unwrap();
    assert!(matches!(*first, ThreadEvent::Behind { .. }), "{first:?}");
    assert_eq!(thread.replica().unwrap().view().messages().len(), 100);
}

#[tokio::test]
async fn the_last_handle_ends_the_connection() {
    let fake = Fake::start().await;
    let client = connect(&fake, 1).await;
    let clone = client.clone();
    drop(client);
    assert!(clone.state().borrow().is_authenticated());
    let mut state = clone.state();
    drop(clone);
    let ended = soon(state.wait_for(|state| *state == State::Disconnected)).await;
    assert!(ended.is_ok());
    fake.without_connections().await;
}

#[tokio::test]
async fn many_callers_share_one_client() {
    let fake = Fake::start().await;
    let client = Arc::new(connect(&fake, 1).await);
    let thread_id = soon(client.create_thread(NewThread::titled("notes"))).await.unwrap();
    let thread = soon(client.subscribe(thread_id, SubscribeOptions::default()))
        .await
        .unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for caller in 0..8 {
        let client = Arc::clone(&client);
        tasks.spawn(async move {
            for n in 0..25 {
                client.post(thread_id, format!("{caller}/{n}")).await.unwrap();
            }
        });
    }
    soon(tasks.join_all()).await;
    fake.level(&thread, 201).await;
    assert_eq!(thread.replica().unwrap().view().messages().len(), 200);
}
