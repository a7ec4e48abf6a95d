//! Requests: Y1, Y2, Y11, K6, R1.

use choir_protocol::checkpoint::{Checkpoint, origin};
use choir_protocol::error::ErrorCode;
use choir_protocol::ids::{Seq, ThreadId};
use choir_protocol::json::object;
use choir_protocol::merkle::Peaks;
use choir_protocol::message::{
    ClientMessage, FromServer, HistoryRequest, Mark, PageRequest, Scope, ServerMessage, Threads, ThreadsRequest,
};
use choir_protocol::range::Range;
use choir_protocol::thread::Role;

use crate::world::{Client, World, contents, fresh_thread, message, user};

async fn threads(client: &mut Client, scope: Scope, after: Option<String>, limit: Option<u64>) -> Threads {
    match client
        .asks(ClientMessage::Threads(ThreadsRequest { scope, after, limit }))
        .await
        .message
    {
        ServerMessage::Threads(threads) => threads,
        other => panic!("{other:?}"),
    }
}

async fn history(client: &mut Client, thread: ThreadId, before: u64, limit: Option<u64>, verify: bool) -> Range {
    let request = HistoryRequest {
        before: Seq::saturating(before),
        limit,
        streams: None,
        verify: Some(verify),
    };
    match client.asks(ClientMessage::History(thread, request)).await.message {
        ServerMessage::History(range) => range,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn y1_threads_come_newest_first_in_pages_with_what_is_unread() {
    let world = World::start().await;
    let mut alice = world.client("alice").await;
    let mut bob = world.client("bob").await;
    let mut ids = Vec::new();
    for n in 0..5 {
        world.clock.forward(1_000);
        ids.push(
            alice
                .creates_with(&[("bob", "reader")], object! { "title": format!("thread {n}") })
                .await,
        );
    }
    world.clock.forward(1_000);
    alice.posts(ids[0], "one").await;
    alice.posts(ids[0], "two").await;
    let first = threads(&mut bob, Scope::Mine, None, Some(3)).await;
    let rest = threads(&mut bob, Scope::Mine, first.next.clone(), Some(3)).await;
    let order: Vec<_> = first
        .threads
        .iter()
        .chain(&rest.threads)
        .map(|row| row.thread_id)
        .collect();
    assert_eq!(order, [ids[0], ids[4], ids[3], ids[2], ids[1]]);
    assert!(rest.next.is_none());
    let row = &first.threads[0];
    assert_eq!(
        (row.role, row.invited, row.messages, row.unread, row.head.get()),
        (Some(Role::Reader), Some(true), 2, 2, 3)
    );
    // Nothing that isn't a `next` is taken for one.
    let wrong = bob
        .asks(ClientMessage::Threads(ThreadsRequest {
            scope: Scope::Mine,
            after: Some("?".into()),
            limit: None,
        }))
        .await;
    assert!(matches!(wrong.message, ServerMessage::ConnectionError(error) if error.code == ErrorCode::InvalidMessage));
    assert!(threads(&mut bob, Scope::Public, None, None).await.threads.is_empty());
}

#[tokio::test]
async fn y1_pages_stay_within_64_kib() {
    let world = World::with(|config| config.guard.threads_per_day = 1_000).await;
    let mut alice = world.client("alice").await;
    for _ in 0..150 {
        alice
            .creates_with(&[], object! { "title": "\\".repeat(250), "visibility": "public" })
            .await;
    }
    for scope in [Scope::Mine, Scope::Public] {
        let (mut count, mut pages, mut after) = (0, 0, None);
        loop {
            let page = threads(&mut alice, scope, after, None).await;
            count += page.threads.len();
            pages += 1;
            assert!(page.threads.iter().all(|row| row.role == Some(Role::Owner)));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(count, 150);
        assert!(pages > 1);
    }
}

#[tokio::test]
async fn y1_members_and_specs_page_through_what_a_snapshot_cuts() {
    let world = World::with(|config| config.guard.members_per_day = 1_000).await;
    let mut alice = world.client("alice").await;
    let names: Vec<String> = (0..300).map(|n| format!("m{n}")).collect();
    let members: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "reader")).collect();
    let thread = alice.creates(&members).await;
    let (_, snapshot) = alice.subscribes(thread).await;
    let snapshot = snapshot.unwrap();
    let mut seen: Vec<_> = snapshot.members.iter().map(|member| member.user_id.clone()).collect();
    let mut after = snapshot.more.members.clone();
    assert!(after.is_some());
    while let Some(next) = after {
        let request = PageRequest {
            after: Some(next),
            limit: None,
        };
        let ServerMessage::Members(page) = alice.asks(ClientMessage::Members(thread, request)).await.message else {
            panic!()
        };
        seen.extend(page.members.into_iter().map(|member| member.user_id));
        after = page.next;
    }
    let expected: Vec<_> = std::iter::once(user("alice"))
        .chain(names.iter().map(|name| user(name)))
        .collect();
    assert_eq!(seen, expected);
    // Specs: each as long as half a message.
    let mut author = world.client("m0").await;
    for n in 0..3 {
        author
            .acts(
                thread,
                "action.submit_message",
                message(&format!("{n}{}", "x".repeat(30_000))),
            )
            .await;
    }
    let (mut count, mut after) = (0, None);
    loop {
        let ServerMessage::Specs(page) = alice
            .asks(ClientMessage::Specs(thread, PageRequest { after, limit: None }))
            .await
            .message
        else {
            panic!()
        };
        count += page.open_specs.len();
        assert!(page.open_specs.len() <= 2);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(count, 3);
    let mut eve = world.client("m1").await;
    let ServerMessage::Specs(none) = eve
        .asks(ClientMessage::Specs(thread, PageRequest::default()))
        .await
        .message
    else {
        panic!()
    };
    assert!(none.open_specs.is_empty(), "who may not see them gets none");
}

#[tokio::test]
async fn y2_marks_are_kept_and_told_to_the_users_other_clients() {
    let world = World::start().await;
    let mut alice = world.client("alice").await;
    let mut phone = world.client_as("bob", "phone", None).await;
    let mut tab = world.client_as("bob", "tab", None).await;
    let thread = alice.creates(&[("bob", "reader")]).await;
    for n in 0..4 {
        alice.posts(thread, &n.to_string()).await;
    }
    let mark = |seq| {
        ClientMessage::Mark(
            thread,
            Mark {
                seq: Seq::saturating(seq),
            },
        )
    };
    let marked = |message: FromServer| match message.message {
        ServerMessage::Marked(marked) => (marked.seq.get(), marked.unread),
        other => panic!("{other:?}"),
    };
    assert_eq!(marked(phone.asks(mark(3)).await), (3, 2));
    let is_marked = |message: &FromServer| matches!(message.message, ServerMessage::Marked(_));
    assert_eq!(marked(tab.raw.find(is_marked).await), (3, 2));
    assert_eq!(marked(tab.asks(mark(2)).await), (3, 2), "the greatest wins");
    assert_eq!(
        marked(tab.asks(mark(99)).await),
        (5, 0),
        "above the head it is the head"
    );
    let (subscribed, _) = phone.subscribes(thread).await;
    assert_eq!(subscribed.marked.get(), 5);
    let row = &threads(&mut phone, Scope::Mine, None, None).await.threads[0];
    assert_eq!((row.marked.get(), row.unread), (5, 0));
}

#[tokio::test]
async fn y11_history_is_walked_back_to_the_first_entry_and_every_page_verifies() {
    let world = World::start().await;
    let mut alice = world.client("alice").await;
    let thread = alice.creates(&[]).await;
    let long = "x".repeat(1_500);
    for n in 0..300 {
        alice.posts(thread, &format!("{n} {long}")).await;
    }
    let (mut before, mut pages) = (10_000, Vec::new());
    loop {
        let range = history(&mut alice, thread, before, None, true).await;
        assert!(range.to.get() - range.from.get() <= 200);
        let start = range.peaks_at_from().unwrap();
        range.verify(thread, &start).unwrap();
        before = range.from.get() + 1;
        let first = range.from.get() == 0;
        pages.push(range);
        if first {
            break;
        }
    }
    pages.reverse();
    assert!(pages.len() > 7, "64 KiB cut them: {}", pages.len());
    assert_eq!(contents(&pages).len(), 300);
    let mut peaks = Peaks::new();
    for page in &pages {
        assert_eq!(page.peaks_at_from().unwrap(), peaks);
        peaks = page.verify(thread, &peaks).unwrap().0;
    }
    let few = history(&mut alice, thread, 100, Some(7), false).await;
    assert_eq!((few.from.get(), few.to.get(), few.entries.len()), (92, 99, 7));
    let none = history(&mut alice, thread, 1, None, true).await;
    assert_eq!((none.from.get(), none.to.get(), none.entries.len()), (0, 0, 0));
}

#[tokio::test]
async fn k6_a_checkpoint_is_signed_by_the_key_that_hello_named_and_survives_a_restart() {
    let world = World::start().await;
    let mut alice = world.client("alice").await;
    let thread = alice.creates(&[]).await;
    let (_, receipt) = alice.posts(thread, "two").await;
    let ServerMessage::Checkpoint(note) = alice.asks(ClientMessage::Checkpoint(thread)).await.message else {
        panic!()
    };
    let origin = origin(world.audience.as_str(), &thread.to_string());
    let checkpoint = Checkpoint::verify(&note.note, &origin, &alice.hello.server.key).unwrap();
    assert_eq!((checkpoint.size, checkpoint.root), (2, receipt.root));
    let again = World::over(world.log.clone(), |_| {}).await;
    let key = again.connect().await.hello().await.server.key;
    assert_eq!(key, alice.hello.server.key);
}

#[tokio::test]
async fn r1_requests_for_threads_that_may_not_be_read_are_not_found() {
    let world = World::start().await;
    let mut alice = world.client("alice").await;
    let mut eve = world.client("eve").await;
    let thread = alice.creates(&[]).await;
    for thread in [thread, fresh_thread()] {
        let history = HistoryRequest {
            before: Seq::saturating(9),
            limit: None,
            streams: None,
            verify: None,
        };
        for request in [
            ClientMessage::History(thread, history),
            ClientMessage::Members(thread, PageRequest::default()),
            ClientMessage::Specs(thread, PageRequest::default()),
            ClientMessage::Mark(
                thread,
                Mark {
                    seq: Seq::saturating(1),
                },
            ),
            ClientMessage::Checkpoint(thread),
        ] {
            let answer = eve.asks(request).await;
            assert_eq!(answer.thread_id, Some(thread));
            assert!(matches!(answer.message, ServerMessage::StateError(error) if error.code == ErrorCode::NotFound));
        }
    }
}
