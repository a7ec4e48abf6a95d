//! Section 12: what guards the server.

use std::sync::atomic::Ordering;

use choir_protocol::error::{ErrorCode, close};
use choir_protocol::ids::Seq;
use choir_protocol::json::object;
use choir_protocol::message::{ClientMessage, HistoryRequest, ServerMessage, Subscribe, SubscribeThread};

use crate::faulty::FaultyLog;
use crate::world::{World, auth, fresh_thread, message, secret};

#[tokio::test]
async fn connections_that_are_not_authenticated_are_few_for_each_address() {
    let world = World::with(|config| config.guard.unauthenticated_per_ip = 3).await;
    let mut waiting = Vec::new();
    for _ in 0..3 {
        let mut raw = world.connect().await;
        raw.hello().await;
        waiting.push(raw);
    }
    let refused = world.get("/healthz").await;
    assert!(refused.starts_with("HTTP/1.1 429"), "{refused}");
    // An authenticated one doesn't count any more.
    let mut raw = waiting.pop().unwrap();
    let mut fresh = None;
    drop(waiting);
    while fresh.is_none() {
        let answer = world.get("/healthz").await;
        fresh = answer.starts_with("HTTP/1.1 200").then_some(());
    }
    raw.say(ClientMessage::Heartbeat).await;
    raw.next().await;
}

#[tokio::test]
async fn an_address_that_fails_to_authenticate_too_often_is_refused_with_4429() {
    let world = World::with(|config| config.guard.failed_authentications_per_minute = 4).await;
    let elsewhere = "https://choir.example".parse().unwrap();
    for failures in [3, 1] {
        let mut raw = world.connect().await;
        let hello = raw.hello().await;
        for _ in 0..failures {
            raw.say(auth(&hello, &secret("eve"), &elsewhere, "tab", None)).await;
            raw.next().await;
        }
    }
    let mut raw = world.connect().await;
    let hello = raw.hello().await;
    raw.say(auth(&hello, &secret("alice"), &world.audience, "tab", None))
        .await;
    let told = raw.next().await;
    assert!(
        matches!(told.message, ServerMessage::ConnectionError(error) if error.code == ErrorCode::RateLimited && error.retry_after_ms.is_some())
    );
    assert_eq!(raw.closed().await, close::RATE_LIMITED);
}

#[tokio::test]
async fn a_user_has_so_many_clients_and_the_next_is_told_to_wait() {
    let world = World::with(|config| config.limits.max_clients = 2).await;
    let one = world.client_as("alice", "one", None).await;
    let _two = world.client_as("alice", "two", None).await;
    let mut raw = world.connect().await;
    let hello = raw.hello().await;
    raw.say(auth(&hello, &secret("alice"), &world.audience, "three", None))
        .await;
    let told = raw.next().await;
    assert!(
        matches!(told.message, ServerMessage::ConnectionError(error) if error.code == ErrorCode::Limit && error.retry_after_ms.is_some())
    );
    assert_eq!(raw.closed().await, close::RATE_LIMITED);
    // One of the two may come again, and another user too.
    let _one = one.comes_again(&world).await;
    world.client("bob").await;
}

#[tokio::test]
async fn a_client_has_so_many_subscriptions() {
    let world = World::with(|config| config.limits.max_subscriptions = 2).await;
    let mut alice = world.client("alice").await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(alice.creates(&[]).await);
    }
    alice.subscribes(ids[0]).await;
    alice.subscribes(ids[1]).await;
    let one = SubscribeThread {
        thread_id: ids[2],
        cursor: None,
        streams: None,
        mode: None,
        history: None,
        verify: None,
        complete: None,
    };
    let answer = alice
        .asks(ClientMessage::Subscribe(Subscribe {
            threads: Some(vec![one]),
            ..Subscribe::default()
        }))
        .await;
    assert!(matches!(answer.message, ServerMessage::StateError(error) if error.cause.as_deref() == Some("limit")));
    // To replace one is no further one.
    alice.subscribes(ids[1]).await;
    // And `all` stops there.
    let id = alice
        .raw
        .say(ClientMessage::Subscribe(Subscribe {
            all: Some(true),
            ..Subscribe::default()
        }))
        .await;
    alice
        .raw
        .find(|message| message.reply_to == Some(id) && message.thread_id.is_none())
        .await;
}

#[tokio::test]
async fn actions_over_the_rate_are_refused_retryably_and_lose_nothing() {
    let world = World::with(|config| config.limits.max_actions_per_second = 10).await;
    let mut alice = world.client("alice").await;
    let thread = alice.creates(&[]).await;
    let actions: Vec<_> = (0..40)
        .map(|n| alice.sign(thread, "action.submit_message", &message(&n.to_string())))
        .collect();
    let mut next = 0;
    while next < actions.len() {
        for (at, action) in actions.iter().enumerate().skip(next) {
            alice.send_numbered(at as u64 + 2, action).await;
        }
        for action in &actions[next..] {
            match alice.answer(action.id).await {
                Ok(_) => next += 1,
                Err(error) => {
                    assert_eq!((error.code, error.retryable), (ErrorCode::RateLimited, true));
                    let wait = error.retry_after_ms.unwrap();
                    assert!(wait <= 100);
                    // What came behind it is a gap, answered once; that is no news (A4).
                    alice.raw.settle().await;
                    alice.raw.forget_heard();
                    tokio::time::sleep(std::time::Duration::from_millis(wait)).await;
                    break;
                }
            }
        }
    }
    assert_eq!(world.log.head(thread).await.unwrap().unwrap().cursor.seq.get(), 41);
}

#[tokio::test]
async fn requests_over_the_rate_are_refused_with_their_id() {
    let world = World::with(|config| config.limits.max_requests_per_second = 2).await;
    let mut alice = world.client("alice").await;
    let thread = alice.creates(&[]).await;
    let mut refused = 0;
    for _ in 0..10 {
        let answer = alice.asks(ClientMessage::Checkpoint(thread)).await;
        if let ServerMessage::ConnectionError(error) = answer.message {
            assert_eq!((error.code, error.retryable), (ErrorCode::RateLimited, true));
            refused += 1;
        }
    }
    assert!((3..=4).contains(&refused), "{refused}");
}

#[tokio::test]
async fn a_user_creates_so_many_threads_and_adds_so_many_members_in_a_day() {
    let world = World::with(|config| {
        config.guard.threads_per_day = 2;
        config.guard.members_per_day = 3;
    })
    .await;
    let mut alice = world.client("alice").await;
    let thread = alice.creates(&[("a", "reader"), ("b", "reader")]).await;
    // What is refused, and what is sent again, doesn't count.
    let id = alice
        .act(thread, "action.add_member", crate::world::member("a", "reader"))
        .await;
    assert_eq!(alice.refused(id).await, ErrorCode::Conflict);
    alice
        .acts(thread, "action.add_member", crate::world::member("c", "reader"))
        .await;
    let id = alice
        .act(thread, "action.add_member", crate::world::member("d", "reader"))
        .await;
    assert_eq!(alice.refused(id).await, ErrorCode::Limit);
    alice.creates(&[]).await;
    let payload = object! { "title": "a third", "audience": world.audience.as_str(), "salt": crate::world::salt() };
    let third = fresh_thread();
    let id = alice.act(third, "action.create_thread", payload.clone()).await;
    assert_eq!(alice.refused(id).await, ErrorCode::Limit);
    world.clock.forward(24 * 60 * 60 * 1000);
    alice.acts(third, "action.create_thread", payload).await;
}

#[tokio::test]
async fn content_over_its_limit_is_refused_for_good() {
    let world = World::start().await;
    let mut alice = world.client("alice").await;
    let thread = alice.creates(&[]).await;
    let id = alice
        .act(thread, "action.submit_message", message(&"x".repeat(64 * 1024)))
        .await;
    let refusal = alice.refusal(id).await;
    assert_eq!((refusal.code, refusal.retryable), (ErrorCode::ContentTooLarge, false));
    assert_eq!(alice.posts(thread, "short").await.1.seq.get(), 2);
}

#[tokio::test]
async fn a_client_that_takes_nothing_for_too_long_is_given_up() {
    let world = World::with(|config| config.times.stalled_ms = 300).await;
    let mut alice = world.client("alice").await;
    let mut stalled = world.client("stalled").await;
    let thread = alice.creates_with(&[], object! { "visibility": "public" }).await;
    stalled.subscribes(thread).await;
    let long = "x".repeat(60_000);
    // More than its socket holds.
    for _ in 0..200 {
        alice.posts(thread, &long).await;
    }
    loop {
        if world.get("/debug/stats").await.contains("\"connections\":1,") {
            break;
        }
    }
    alice.raw.settle().await;
}

#[tokio::test]
async fn t6_what_there_is_no_room_for_is_not_read() {
    let log = FaultyLog::new();
    let world = World::over(log.clone(), |_| {}).await;
    let mut alice = world.client("alice").await;
    let thread = alice.creates(&[]).await;
    for _ in 0..60 {
        alice.posts(thread, &"x".repeat(30_000)).await;
    }
    let before = log.entries_read.load(Ordering::Relaxed);
    let (_, snapshot) = alice.subscribes(thread).await;
    assert_eq!(snapshot.unwrap().recent.entries.len(), 2);
    let request = HistoryRequest {
        before: Seq::saturating(50),
        limit: Some(1_000),
        streams: None,
        verify: None,
    };
    let answer = alice.asks(ClientMessage::History(thread, request)).await.message;
    assert!(
        matches!(&answer, ServerMessage::History(range) if (range.from.get(), range.to.get()) == (47, 49)),
        "{answer:?}"
    );
    assert!(log.entries_read.load(Ordering::Relaxed) - before <= 40);
}
