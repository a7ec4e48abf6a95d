//! Subscriptions and sync: Y3 to Y12, V1, L8, T6.

use choir_protocol::error::ErrorCode;
use choir_protocol::hash::Hash;
use choir_protocol::ids::{Cursor, Seq};
use choir_protocol::json::object;
use choir_protocol::message::{
    Ack, Acks, ClientMessage, FromServer, Mode, ServerMessage, SnapshotReason, Subscribe, SubscribeThread, Subscribed,
};
use choir_protocol::thread::Stream;

use crate::faulty::FaultyLog;
use crate::world::{Client, Verifier, World, contents, decision, kinds, message};

#[tokio::test]
async fn y5_a_snapshot_holds_the_newest_messages_and_verifies() {
    let world = World::start().await;
    let mut alice = world.client("alice").await;
    let thread = alice.creates(&[("bob", "reader")]).await;
    for n in 0..10 {
        alice.posts(thread, &n.to_string()).await;
    }
    for (history, from) in [(3, 8), (0, 11), (10, 0), (50, 0)] {
        let (subscribed, snapshot) = alice
            .subscribes_with(thread, |options| {
                options.history = Some(history);
                options.verify = Some(true);
            })
            .await;
        let snapshot = snapshot.unwrap();
        assert_eq!(
            (
                snapshot.recent.from.get(),
                snapshot.recent.to.get(),
                subscribed.seq.get()
            ),
            (from, 11, 11),
            "history {history}"
        );
        assert_eq!(
            contents(std::slice::from_ref(&snapshot.recent)).len() as u64,
            history.min(10)
        );
        assert_eq!(snapshot.more.recent, None);
        let verifier = Verifier::of_snapshot(thread, &snapshot);
        assert_eq!(verifier.cursor().root, snapshot.recent.root);
        assert_eq!((subscribed.messages, snapshot.members.len()), (10, 2));
    }
}

#[tokio::test]
async fn y6_a_reconnect_with_a_cursor_gets_exactly_what_was_missed() {
    let world = World::start().await;
    let mut alice = world.client("alice").await;
    let mut bob = world.client("bob").await;
    let thread = alice.creates(&[("bob", "co_author")]).await;
    let (_, snapshot) = bob.subscribes_with(thread, |options| options.verify = Some(true)).await;
    let mut verifier = Verifier::of_snapshot(thread, &snapshot.unwrap());
    alice.posts(thread, "before").await;
    verifier.apply(thread, &bob.update(thread).await);
    let mut bob = {
        let gone = bob;
        for n in 0..30 {
            alice.posts(thread, &format!("missed {n}")).await;
        }
        gone.comes_again(&world).await
    };
    let cursor = verifier.cursor();
    let (subscribed, _) = bob
        .subscribes_with(thread, |options| {
            options.cursor = Some(cursor);
            options.verify = Some(true);
        })
        .await;
    assert_eq!((subscribed.seq.get(), subscribed.head.get()), (2, 32));
    let ranges = bob.updates_to(thread, 32).await;
    assert_eq!(contents(&ranges).len(), 30);
    ranges.iter().for_each(|range| verifier.apply(thread, range));
    assert_eq!(verifier.seq(), 32);
}

#[tokio::test]
async fn y7_a_cursor_that_is_not_the_logs_is_answered_by_a_snapshot() {
    let world = World::start().await;
    let mut alice = world.client("alice").await;
    let thread = alice.creates(&[]).await;
    let foreign = Cursor {
        seq: Seq::saturating(1),
        root: Hash::EMPTY,
    };
    let above = Cursor {
        seq: Seq::saturating(9),
        root: Hash::EMPTY,
    };
    let zero = Cursor {
        seq: Seq::ZERO,
        root: Hash::of(b"?"),
    };
    for cursor in [foreign, above, zero] {
        let (subscribed, _) = alice
            .subscribes_with(thread, |options| options.cursor = Some(cursor))
            .await;
        assert_eq!(subscribed.seq.get(), 1);
        assert_eq!(alice.snapshot(thread).await.reason, SnapshotReason::StateDesync);
    }
}

#[tokio::test]
async fn y5_who_is_too_far_behind_gets_a_snapshot_but_complete_gets_every_entry() {
    let world = World::with(|config| config.limits.max_replay = 10).await;
    let mut alice = world.client("alice").await;
    let thread = alice.creates(&[]).await;
    for n in 0..20 {
        alice.posts(thread, &n.to_string()).await;
    }
    alice
        .subscribes_with(thread, |options| options.cursor = Some(Cursor::START))
        .await;
    assert_eq!(alice.snapshot(thread).await.reason, SnapshotReason::TooFarBehind);
    alice
        .subscribes_with(thread, |options| {
            options.cursor = Some(Cursor::START);
            options.complete = Some(true);
        })
        .await;
    assert_eq!(contents(&alice.updates_to(thread, 21).await).len(), 20);
}

#[tokio::test]
async fn t6_catching_up_from_the_log_comes_in_messages_of_64_kib_and_verifies() {
    let world = World::with(|config| config.times.idle_thread_ms = 1).await;
    let mut alice = world.client("alice").await;
    let thread = alice.creates(&[]).await;
    let long = "x".repeat(10_000);
    for _ in 0..40 {
        alice.posts(thread, &long).await;
    }
    alice.posts(thread, &"y".repeat(60_000)).await;
    alice
        .subscribes_with(thread, |options| {
            options.cursor = Some(Cursor::START);
            options.verify = Some(true);
        })
        .await;
    let ranges = alice.updates_to(thread, 42).await;
    assert!(ranges.len() >= 7, "{}", ranges.len());
    let mut verifier = Verifier::default();
    for range in &ranges {
        verifier.apply(thread, range);
        let bytes: usize = range
            .entries
            .iter()
            .filter_map(|entry| entry.body.text())
            .map(str::len)
            .sum();
        assert!(bytes <= 64 * 1024);
    }
    assert_eq!(verifier.seq(), 42);
    // A snapshot is cut to the same length, from its old end, and says so.
    let (_, snapshot) = alice
        .subscribes_with(thread, |options| {
            options.history = Some(500);
            options.verify = Some(true);
        })
        .await;
    let snapshot = snapshot.unwrap();
    assert_eq!(snapshot.more.recent, Some(true));
    assert_eq!(snapshot.recent.to.get(), 42);
    Verifier::of_snapshot(thread, &snapshot);
}

async fn of_streams(client: &mut Client, thread: choir_protocol::ids::ThreadId, streams: Vec<Stream>) {
    let one = SubscribeThread {
        thread_id: thread,
        cursor: Some(Cursor::START),
        streams: Some(streams),
        mode: None,
        history: None,
        verify: Some(true),
        complete: None,
    };
    client
        .raw
        .say(ClientMessage::Subscribe(Subscribe {
            threads: Some(vec![one]),
            ..Subscribe::default()
        }))
        .await;
}

#[tokio::test]
async fn y3_streams_are_chosen_and_what_is_not_chosen_is_hidden() {
    let world = World::start().await;
    let mut alice = world.client("alice").await;
    let mut bob = world.client("bob").await;
    let thread = alice.creates(&[("bob", "reader")]).await;
    let (spec, _) = bob.acts(thread, "action.submit_message", message("a spec")).await;
    let hash = world.log.find(thread, spec).await.unwrap()[0].content_hash;
    alice
        .acts(thread, "action.process_approval", decision(spec, hash, "approve"))
        .await;
    for (streams, expected) in [
        (vec![], vec!["thread_created", "message_posted"]),
        (
            vec![Stream::Specs],
            vec!["thread_created", "spec_submitted", "spec_resolved", "message_posted"],
        ),
        (
            vec![Stream::Approvals, Stream::Updates],
            vec!["thread_created", "approval_given", "message_posted"],
        ),
    ] {
        of_streams(&mut alice, thread, streams).await;
        let ranges = alice.updates_to(thread, 5).await;
        assert_eq!(kinds(&ranges), expected);
        let mut verifier = Verifier::default();
        ranges.iter().for_each(|range| verifier.apply(thread, range));
        assert_eq!(
            ranges.iter().flat_map(|range| range.hidden.iter().flatten()).count(),
            5 - expected.len()
        );
    }
}

#[tokio::test]
async fn y4_the_client_is_brought_to_the_head_by_an_empty_update_but_not_told_of_more_that_it_may_not_see() {
    let world = World::with(|config| config.times.empty_update_ms = 700).await;
    let mut alice = world.client("alice").await;
    let mut bob = world.client("bob").await;
    let mut author = world.client("author").await;
    let thread = alice.creates(&[("bob", "reader"), ("author", "reader")]).await;
    let created = Cursor {
        seq: Seq::saturating(1),
        root: world.log.root_at(thread, Seq::saturating(1)).await.unwrap().unwrap(),
    };
    author.acts(thread, "action.submit_message", message("a spec")).await;
    bob.subscribes_with(thread, |options| options.cursor = Some(created))
        .await;
    let update = bob.update(thread).await;
    assert_eq!((update.from.get(), update.to.get(), update.entries.len()), (1, 2, 0));
    author
        .acts(thread, "action.submit_message", message("another spec"))
        .await;
    bob.raw.settle().await;
    assert_eq!(bob.raw.heard().count(), 0);
    // After some time the cursor is moved along, once.
    let update = bob.update(thread).await;
    assert_eq!((update.from.get(), update.to.get(), update.entries.len()), (2, 3, 0));
    // What it may see comes at once, over all that it may not.
    author
        .acts(thread, "action.submit_message", message("a third spec"))
        .await;
    alice.posts(thread, "seen").await;
    let update = bob.update(thread).await;
    assert_eq!(
        (
            update.from.get(),
            update.to.get(),
            contents(std::slice::from_ref(&update))
        ),
        (3, 5, vec!["seen".to_owned()])
    );
}

#[tokio::test]
async fn y9_acknowledged_roots_are_compared_and_a_difference_is_told() {
    let world = World::start().await;
    let mut alice = world.client("alice").await;
    let thread = alice.creates(&[]).await;
    alice.subscribes(thread).await;
    let (_, receipt) = alice.posts(thread, "two").await;
    alice.update(thread).await;
    let ack = |seq, root| {
        ClientMessage::Ack(Acks {
            acks: vec![Ack {
                thread_id: thread,
                seq,
                root,
            }],
        })
    };
    alice.raw.say(ack(receipt.seq, Some(receipt.root))).await;
    alice.raw.say(ack(Seq::saturating(1), None)).await;
    // Beyond what was sent: ignored.
    alice.raw.say(ack(Seq::saturating(9), Some(Hash::EMPTY))).await;
    alice.raw.settle().await;
    assert_eq!(alice.raw.heard().count(), 0);
    alice.raw.say(ack(receipt.seq, Some(Hash::EMPTY))).await;
    let told = alice.raw.next().await;
    assert_eq!(told.thread_id, Some(thread));
    assert!(matches!(told.message, ServerMessage::StateError(error) if error.code == ErrorCode::StateDesync));
    let report = world.ended().await;
    assert_eq!((report.sync_checks_equal, report.sync_checks_different), (1, 1));
}

#[tokio::test]
async fn v1_mode_events_gets_the_light_events_of_what_it_may_see_and_nothing_else() {
    let world = World::start().await;
    let mut alice = world.client("alice").await;
    let mut bob = world.client("bob").await;
    let thread = alice.creates(&[("bob", "reader")]).await;
    let (subscribed, _) = alice
        .subscribes_with(thread, |options| options.mode = Some(Mode::Events))
        .await;
    assert_eq!((subscribed.seq.get(), subscribed.mode), (1, Mode::Events));
    let mut reader = world.client("reader").await;
    alice
        .acts(thread, "action.add_member", crate::world::member("reader", "reader"))
        .await;
    reader.raw.next().await;
    reader
        .subscribes_with(thread, |options| options.mode = Some(Mode::Events))
        .await;
    let (spec, _) = bob.acts(thread, "action.submit_message", message("a spec")).await;
    let hash = world.log.find(thread, spec).await.unwrap()[0].content_hash;
    alice
        .acts(thread, "action.process_approval", decision(spec, hash, "approve"))
        .await;
    let is_event = |message: &FromServer| message.message.type_name().starts_with("event.");
    let mut events = Vec::new();
    for _ in 0..5 {
        events.push(alice.raw.find(is_event).await.message);
    }
    let names: Vec<_> = events.iter().map(ServerMessage::type_name).collect();
    assert_eq!(
        names,
        [
            "event.state_change",
            "event.state_change",
            "event.new_approval",
            "event.state_change",
            "event.new_message"
        ]
    );
    let ServerMessage::NewMessage(seen) = reader.raw.find(is_event).await.message else {
        panic!()
    };
    assert_eq!((seen.message, seen.seq.get(), seen.content_hash), (spec, 6, hash));
    alice.raw.settle().await;
    reader.raw.settle().await;
    assert_eq!(alice.raw.heard().filter(|message| is_event(message)).count(), 0);
    assert_eq!(reader.raw.heard().count(), 0);
}

#[tokio::test]
async fn y12_frames_of_one_class_are_built_once_for_all() {
    let world = World::start().await;
    let mut alice = world.client("alice").await;
    let thread = alice.creates_with(&[], object! { "visibility": "public" }).await;
    let mut readers = Vec::new();
    for n in 0..10 {
        let mut reader = world.client(&format!("reader {n}").replace(' ', "-")).await;
        reader.subscribes(thread).await;
        readers.push(reader);
    }
    for n in 0..20 {
        alice.posts(thread, &n.to_string()).await;
    }
    for reader in &mut readers {
        assert_eq!(contents(&reader.updates_to(thread, 21).await).len(), 20);
    }
    let stats = world.get("/debug/stats").await;
    let figure = |name: &str| -> u64 {
        stats
            .split(&format!("\"{name}\":"))
            .nth(1)
            .unwrap()
            .split([',', '}'])
            .next()
            .unwrap()
            .parse()
            .unwrap()
    };
    assert!(figure("frames_built") <= 60, "{stats}");
    assert!(figure("frames_shared") >= 60, "{stats}");
}

#[tokio::test]
async fn t6_a_slow_reader_costs_no_queue_holds_up_nobody_and_catches_up() {
    let world = World::start().await;
    let mut alice = world.client("alice").await;
    let mut slow = world.client("slow").await;
    let mut quick = world.client("quick").await;
    let thread = alice.creates_with(&[], object! { "visibility": "public" }).await;
    slow.subscribes(thread).await;
    quick.subscribes(thread).await;
    let long = "x".repeat(30_000);
    for n in 0..400 {
        alice.posts(thread, &format!("{n} {long}")).await;
        // The quick one has each before the next is posted; the slow one reads nothing at all.
        assert_eq!(quick.update(thread).await.to.get(), n + 2);
    }
    // 12 MB were posted: more than its socket holds, so that it is behind, and the ring has gone on.
    let mut end = 1;
    loop {
        let wanted = |message: &FromServer| message.thread_id == Some(thread);
        match slow.raw.find(wanted).await.message {
            ServerMessage::ThreadUpdate(range) => {
                assert_eq!(range.from.get(), end, "no gap");
                end = range.to.get();
            }
            ServerMessage::Snapshot(snapshot) => {
                assert_eq!(snapshot.reason, SnapshotReason::TooFarBehind);
                end = snapshot.recent.to.get();
            }
            other => panic!("{other:?}"),
        }
        if end == 401 {
            break;
        }
    }
}

#[tokio::test]
async fn y4_all_does_not_end_as_if_complete_where_its_threads_could_not_be_read() {
    let log = FaultyLog::new();
    let world = World::over(log.clone(), |_| {}).await;
    let mut alice = world.client("alice").await;
    alice.creates(&[]).await;
    let all = || {
        ClientMessage::Subscribe(Subscribe {
            all: Some(true),
            ..Subscribe::default()
        })
    };
    *log.blind.lock().unwrap() = true;
    let id = alice.raw.say(all()).await;
    let refusal = alice.refusal(id).await;
    assert_eq!((refusal.code, refusal.retryable), (ErrorCode::Internal, true));
    *log.blind.lock().unwrap() = false;
    let id = alice.raw.say(all()).await;
    let is_end = |message: &FromServer| message.reply_to == Some(id) && message.thread_id.is_none();
    let end = alice.raw.find(is_end).await.message;
    assert!(
        matches!(end, ServerMessage::Subscribed(Subscribed::All { threads: 1, .. })),
        "{end:?}"
    );
}
