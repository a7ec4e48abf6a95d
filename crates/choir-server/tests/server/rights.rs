//! Who sees what, and until when: G7, S1, Y8, Y10.

use choir_protocol::error::ErrorCode;
use choir_protocol::ids::Seq;
use choir_protocol::json::object;
use choir_protocol::message::{
    ClientMessage, FromServer, HistoryRequest, Mark, Mode, Scope, ServerMessage, SnapshotReason, Subscribe,
    SubscribeThread, Subscribed, ThreadsRequest, Unsubscribe,
};

use crate::faulty::FaultyLog;
use crate::world::{
    Client, Verifier, World, contents, decision, fresh_thread, kinds, member, message, must, salt, user,
};

async fn unsubscribed(client: &mut Client, thread: choir_protocol::ids::ThreadId) -> Option<String> {
    let is_end = |message: &FromServer| {
        message.thread_id == Some(thread) && matches!(message.message, ServerMessage::Unsubscribed(_))
    };
    match client.raw.find(is_end).await.message {
        ServerMessage::Unsubscribed(end) => end.cause,
        _ => unreachable!(),
    }
}

async fn refused_subscription(
    client: &mut Client,
    thread: choir_protocol::ids::ThreadId,
) -> (ErrorCode, Option<String>) {
    let one = SubscribeThread {
        thread_id: thread,
        cursor: None,
        streams: None,
        mode: None,
        history: None,
        verify: None,
        complete: None,
    };
    let answer = client
        .asks(ClientMessage::Subscribe(Subscribe {
            threads: Some(vec![one]),
            ..Subscribe::default()
        }))
        .await;
    match answer.message {
        ServerMessage::StateError(error) => (error.code, error.cause),
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test]
async fn g7_a_private_thread_is_not_found_for_strangers_as_one_that_is_not_there() {
    let world = World::start().await;
    let mut alice = world.client("alice").await;
    let mut eve = world.client("eve").await;
    let thread = alice.creates(&[]).await;
    let there = refused_subscription(&mut eve, thread).await;
    assert_eq!(there, (ErrorCode::SubscriptionError, Some("not_found".into())));
    assert_eq!(there, refused_subscription(&mut eve, fresh_thread()).await);
}

#[tokio::test]
async fn y8_a_removal_is_the_last_entry_that_the_removed_gets_and_stops_delivery_at_once() {
    let world = World::start().await;
    let mut alice = world.client("alice").await;
    let mut bob = world.client("bob").await;
    let thread = alice.creates(&[("bob", "reader")]).await;
    bob.subscribes(thread).await;
    alice.posts(thread, "with bob").await;
    let before = bob.update(thread).await;
    assert_eq!(contents(&[before]), ["with bob"]);
    alice
        .acts(
            thread,
            "action.remove_member",
            object! { "user_id": user("bob").as_str() },
        )
        .await;
    let last = bob.update(thread).await;
    assert_eq!(
        (last.from.get(), last.to.get(), kinds(std::slice::from_ref(&last))),
        (2, 3, vec!["member_removed".to_owned()])
    );
    assert_eq!(
        unsubscribed(&mut bob, thread).await.as_deref(),
        Some("permission_denied")
    );
    alice.posts(thread, "without bob").await;
    bob.raw.settle().await;
    assert_eq!(bob.raw.heard().count(), 0);
    assert_eq!(
        refused_subscription(&mut bob, thread).await.1.as_deref(),
        Some("not_found")
    );
}

#[tokio::test]
async fn y8_who_is_behind_at_the_removal_gets_no_entry_any_more() {
    let log = FaultyLog::new();
    let world = World::over(log.clone(), |_| {}).await;
    let mut alice = world.client("alice").await;
    let mut bob = world.client("bob").await;
    let thread = alice.creates(&[("bob", "reader")]).await;
    bob.subscribes(thread).await;
    // While the first append is on its way the others wait, and become one: when bob's connection looks, he may see none of them.
    log.shut();
    let asked = *log.come.borrow();
    let first = alice.act(thread, "action.submit_message", message("for bob")).await;
    log.asked(asked + 1).await;
    alice.act(thread, "action.submit_message", message("not for bob")).await;
    let removal = object! { "user_id": user("bob").as_str() };
    let removed = alice.act(thread, "action.remove_member", removal).await;
    alice.raw.settle().await;
    log.open();
    alice.receipt(first).await;
    alice.receipt(removed).await;
    assert_eq!(
        unsubscribed(&mut bob, thread).await.as_deref(),
        Some("permission_denied")
    );
    let updates = bob.raw.heard().filter_map(|heard| match &heard.message {
        ServerMessage::ThreadUpdate(range) => Some(range.clone()),
        _ => None,
    });
    let seen = contents(&updates.collect::<Vec<_>>());
    assert!(seen.is_empty() || seen == ["for bob"], "{seen:?}");
    bob.raw.settle().await;
    assert!(
        bob.raw
            .heard()
            .all(|heard| !matches!(&heard.message, ServerMessage::ThreadUpdate(range) if range.to.get() > 2))
    );
}

#[tokio::test]
async fn y8_mode_events_hears_of_the_removal_last() {
    let world = World::start().await;
    let mut alice = world.client("alice").await;
    let mut bob = world.client("bob").await;
    let thread = alice.creates(&[("bob", "reader")]).await;
    bob.subscribes_with(thread, |options| options.mode = Some(Mode::Events))
        .await;
    alice
        .acts(
            thread,
            "action.remove_member",
            object! { "user_id": user("bob").as_str() },
        )
        .await;
    let last = bob.raw.next().await;
    assert!(
        matches!(last.message, ServerMessage::StateChange(change) if change.change_type.as_str() == "member_removed")
    );
    assert_eq!(
        unsubscribed(&mut bob, thread).await.as_deref(),
        Some("permission_denied")
    );
    alice.posts(thread, "without bob").await;
    bob.raw.settle().await;
    assert_eq!(bob.raw.heard().count(), 0);
}

#[tokio::test]
async fn y8_a_thread_that_turns_private_ends_for_strangers_with_that_entry() {
    let world = World::start().await;
    let mut alice = world.client("alice").await;
    let mut reader = world.client("reader").await;
    let thread = alice.creates_with(&[], object! { "visibility": "public" }).await;
    let (subscribed, _) = reader.subscribes(thread).await;
    assert_eq!(subscribed.role, None);
    alice
        .acts(
            thread,
            "action.update_thread",
            object! { "visibility": "private", "salt": salt() },
        )
        .await;
    assert_eq!(kinds(&[reader.update(thread).await]), ["thread_updated"]);
    assert_eq!(
        unsubscribed(&mut reader, thread).await.as_deref(),
        Some("permission_denied")
    );
}

#[tokio::test]
async fn s1_specs_and_approvals_are_seen_by_co_authors_and_by_the_specs_author() {
    let world = World::start().await;
    let mut alice = world.client("alice").await;
    let mut author = world.client("author").await;
    let mut reader = world.client("reader").await;
    let thread = alice
        .creates(&[("author", "reader"), ("reader", "reader"), ("carol", "co_author")])
        .await;
    let mut carol = world.client("carol").await;
    carol.acts(thread, "action.join", object! {}).await;
    for client in [&mut alice, &mut author, &mut reader] {
        client.subscribes(thread).await;
    }
    let (_, snapshot) = reader
        .subscribes_with(thread, |options| options.verify = Some(true))
        .await;
    let mut verifier = Verifier::of_snapshot(thread, &snapshot.unwrap());
    let head = snapshot_head(&world, thread).await;
    let (spec, submitted) = author.acts(thread, "action.submit_message", message("may I?")).await;
    assert_eq!(
        (submitted.kind.as_str(), submitted.seq.get()),
        ("spec_submitted", head + 1)
    );
    let entry = alice.update(thread).await.entries.remove(0);
    let hash = entry.content_hash.unwrap();
    alice
        .acts(thread, "action.process_approval", decision(spec, hash, "approve"))
        .await;
    carol
        .acts(thread, "action.process_approval", decision(spec, hash, "approve"))
        .await;

    let all = ["approval_given", "approval_given", "spec_resolved", "message_posted"];
    assert_eq!(kinds(&alice.updates_to(thread, head + 5).await), all);
    let own = author.updates_to(thread, head + 5).await;
    assert_eq!(
        kinds(&own),
        [
            "spec_submitted",
            "approval_given",
            "approval_given",
            "spec_resolved",
            "message_posted"
        ]
    );
    // The reader sees the message alone, but can prove that nothing was left out of `updates`.
    let seen = reader.updates_to(thread, head + 5).await;
    assert_eq!(kinds(&seen), ["message_posted"]);
    for range in &seen {
        verifier.apply(thread, range);
    }
    assert_eq!(verifier.seq(), head + 5);
}

async fn snapshot_head(world: &World, thread: choir_protocol::ids::ThreadId) -> u64 {
    world.log.head(thread).await.unwrap().unwrap().cursor.seq.get()
}

#[tokio::test]
async fn y8_a_widening_is_followed_by_a_snapshot() {
    let world = World::start().await;
    let mut alice = world.client("alice").await;
    let mut bob = world.client("bob").await;
    let thread = alice.creates(&[("bob", "reader"), ("author", "reader")]).await;
    let mut author = world.client("author").await;
    let (spec, _) = author.acts(thread, "action.submit_message", message("a spec")).await;
    let (_, snapshot) = bob.subscribes(thread).await;
    assert!(snapshot.unwrap().open_specs.is_empty());
    alice
        .acts(thread, "action.add_member", member("bob", "co_author"))
        .await;
    let update = bob.update(thread).await;
    assert_eq!(update.to.get(), 3);
    assert_eq!(kinds(&[update]), ["member_added"]);
    let snapshot = bob.snapshot(thread).await;
    assert_eq!(snapshot.reason, SnapshotReason::ViewChanged);
    assert_eq!(snapshot.open_specs.len(), 1);
    assert_eq!(snapshot.open_specs[0].spec, spec);
    assert_eq!(snapshot.recent.to.get(), 3);
}

#[tokio::test]
async fn y8_complete_has_its_snapshot_at_the_widening_and_every_entry_after_it() {
    let world = World::start().await;
    let mut alice = world.client("alice").await;
    let mut bob = world.client("bob").await;
    let thread = alice.creates(&[("bob", "reader")]).await;
    let created = world
        .log
        .root_at(thread, choir_protocol::ids::Seq::saturating(1))
        .await
        .unwrap()
        .unwrap();
    alice.posts(thread, "two").await;
    alice
        .acts(thread, "action.add_member", member("bob", "co_author"))
        .await;
    let (four, _) = alice.posts(thread, "four").await;
    // A redaction after it takes nothing from a snapshot of before.
    alice
        .acts(thread, "action.redact_message", object! { "message": four.to_string() })
        .await;
    let cursor = choir_protocol::ids::Cursor {
        seq: choir_protocol::ids::Seq::saturating(1),
        root: created,
    };
    let (subscribed, _) = bob
        .subscribes_with(thread, |options| {
            options.cursor = Some(cursor);
            options.complete = Some(true);
            options.verify = Some(true);
        })
        .await;
    assert_eq!((subscribed.seq.get(), subscribed.head.get()), (1, 5));
    assert_eq!(
        kinds(&bob.updates_to(thread, 3).await),
        ["message_posted", "member_added"]
    );
    let snapshot = bob.snapshot(thread).await;
    assert_eq!(
        (snapshot.reason, snapshot.recent.to.get()),
        (SnapshotReason::ViewChanged, 3)
    );
    let mut verifier = Verifier::of_snapshot(thread, &snapshot);
    let rest = bob.update(thread).await;
    verifier.apply(thread, &rest);
    assert_eq!(kinds(&[rest]), ["message_posted", "message_redacted"]);
    assert_eq!(verifier.seq(), 5);
}

#[tokio::test]
async fn y8_a_cursor_before_a_widening_gets_a_snapshot_and_0_does_not() {
    let world = World::start().await;
    let mut alice = world.client("alice").await;
    let mut bob = world.client("bob").await;
    let thread = alice.creates(&[("bob", "reader")]).await;
    let at = |seq: u64| {
        let log = world.log.clone();
        async move {
            let seq = choir_protocol::ids::Seq::saturating(seq);
            choir_protocol::ids::Cursor {
                seq,
                root: log.root_at(thread, seq).await.unwrap().unwrap(),
            }
        }
    };
    alice
        .acts(thread, "action.add_member", member("bob", "co_author"))
        .await;
    alice.posts(thread, "three").await;
    let cursor = at(1).await;
    bob.subscribes_with(thread, |options| options.cursor = Some(cursor))
        .await;
    assert_eq!(bob.snapshot(thread).await.reason, SnapshotReason::ViewChanged);
    let cursor = at(0).await;
    bob.subscribes_with(thread, |options| options.cursor = Some(cursor))
        .await;
    assert_eq!(
        kinds(&bob.updates_to(thread, 3).await),
        ["thread_created", "member_added", "message_posted"]
    );
}

#[tokio::test]
async fn y3_all_brings_what_was_joined_what_is_joined_later_and_y10_its_end() {
    let world = World::start().await;
    let mut alice = world.client("alice").await;
    let mut bob = world.client("bob").await;
    let first = alice.creates(&[("bob", "reader")]).await;
    bob.acts(first, "action.join", object! {}).await;
    let invited = alice.creates(&[("bob", "reader")]).await;
    let public = alice.creates_with(&[], object! { "visibility": "public" }).await;
    let id = bob
        .raw
        .say(ClientMessage::Subscribe(Subscribe {
            all: Some(true),
            ..Subscribe::default()
        }))
        .await;
    let is_end = |message: &FromServer| message.reply_to == Some(id) && message.thread_id.is_none();
    let ServerMessage::Subscribed(Subscribed::All { threads, .. }) = bob.raw.find(is_end).await.message else {
        panic!()
    };
    assert_eq!(threads, 1);
    let snapshot = bob.snapshot(first).await;
    assert!(snapshot.recent.entries.is_empty(), "with `all` history is 0");
    // Joined later: by an action of one's own.
    bob.acts(invited, "action.join", object! {}).await;
    bob.snapshot(invited).await;
    bob.acts(public, "action.join", object! {}).await;
    bob.snapshot(public).await;
    alice.posts(public, "for bob").await;
    assert_eq!(contents(&bob.updates_to(public, 3).await), ["for bob"]);
    // Who leaves and may still read gets an end without cause.
    bob.acts(
        public,
        "action.remove_member",
        object! { "user_id": user("bob").as_str() },
    )
    .await;
    assert_eq!(unsubscribed(&mut bob, public).await, None);
    alice.posts(public, "without bob").await;
    bob.raw.settle().await;
    assert!(bob.raw.heard().all(|heard| !matches!(&heard.message, ServerMessage::ThreadUpdate(range) if contents(std::slice::from_ref(range)) == ["without bob"])));
}

#[tokio::test]
async fn y10_an_unsubscribed_thread_is_silent() {
    let world = World::start().await;
    let mut alice = world.client("alice").await;
    let thread = alice.creates(&[]).await;
    alice.subscribes(thread).await;
    let answer = alice
        .asks(ClientMessage::Unsubscribe(Unsubscribe { threads: vec![thread] }))
        .await;
    assert!(matches!(answer.message, ServerMessage::Unsubscribed(end) if end.cause.is_none()));
    alice.posts(thread, "unheard").await;
    alice.raw.settle().await;
    assert_eq!(alice.raw.heard().count(), 0);
}

#[tokio::test]
async fn l6_a_redacted_body_is_served_to_nobody_any_more() {
    let world = World::start().await;
    let mut alice = world.client("alice").await;
    let mut bob = world.client("bob").await;
    let thread = alice.creates(&[("bob", "co_author")]).await;
    let (id, _) = alice.posts(thread, "regretted").await;
    alice
        .acts(thread, "action.redact_message", object! { "message": id.to_string() })
        .await;
    let cursor = choir_protocol::ids::Cursor::START;
    bob.subscribes_with(thread, |options| {
        options.cursor = Some(cursor);
        options.verify = Some(true);
    })
    .await;
    let ranges = bob.updates_to(thread, 3).await;
    assert!(contents(&ranges).is_empty());
    let mut verifier = Verifier::default();
    ranges.iter().for_each(|range| verifier.apply(thread, range));
    assert_eq!(verifier.seq(), 3);
}

#[tokio::test]
async fn g7_a_page_of_history_is_not_sent_to_who_was_removed_while_it_was_read() {
    let log = FaultyLog::new();
    let world = World::over(log.clone(), |_| {}).await;
    let mut alice = world.client("alice").await;
    let mut bob = world.client("bob").await;
    let thread = alice.creates(&[("bob", "reader")]).await;
    log.shut_figures(true);
    let asked = *log.figures_come.borrow();
    let request = HistoryRequest {
        before: Seq::saturating(2),
        limit: None,
        streams: None,
        verify: Some(true),
    };
    let id = bob.raw.say(ClientMessage::History(thread, request)).await;
    let mut come = log.figures_come.subscribe();
    must(come.wait_for(|come| *come > asked)).await.unwrap();
    let removal = object! { "user_id": user("bob").as_str() };
    alice.acts(thread, "action.remove_member", removal).await;
    log.shut_figures(false);
    assert_eq!(bob.refused(id).await, ErrorCode::NotFound);
}

#[tokio::test]
async fn g7_a_push_that_waited_is_not_sent_to_who_lost_the_right_meanwhile() {
    let log = FaultyLog::new();
    let world = World::over(log.clone(), |_| {}).await;
    let mut alice = world.client("alice").await;
    let mut bob = world.client("bob").await;
    let mut carol = world.client("carol").await;
    let thread = alice.creates(&[("bob", "co_author"), ("carol", "reader")]).await;
    bob.acts(thread, "action.join", object! {}).await;
    bob.raw.settle().await;
    bob.raw.forget_heard();
    // The spec and bob's removal are two appends, one right after the other: together with what is between them they are more than fits into one.
    log.shut();
    let asked = *log.come.borrow();
    alice.act(thread, "action.submit_message", message("first")).await;
    log.asked(asked + 1).await;
    carol.act(thread, "action.submit_message", message("a spec")).await;
    carol.raw.settle().await;
    for _ in 0..20 {
        let long = message(&"x".repeat(60_000));
        alice.act(thread, "action.submit_message", long).await;
    }
    let removal = object! { "user_id": user("bob").as_str() };
    let removed = alice.act(thread, "action.remove_member", removal).await;
    alice.raw.settle().await;
    log.open();
    alice.receipt(removed).await;
    assert!(
        *log.come.borrow() > asked + 2,
        "the spec and the removal were one append"
    );
    bob.raw.settle().await;
    assert_eq!(bob.raw.heard().count(), 0);
}

#[tokio::test]
async fn g7_a_list_of_threads_leaves_out_one_that_may_not_be_read_any_more() {
    let log = FaultyLog::new();
    let world = World::over(log.clone(), |_| {}).await;
    let mut alice = world.client("alice").await;
    let mut bob = world.client("bob").await;
    let thread = alice.creates(&[("bob", "reader")]).await;
    let mark = Mark {
        seq: Seq::saturating(1),
    };
    bob.asks(ClientMessage::Mark(thread, mark)).await;
    log.shut_figures(true);
    let asked = *log.figures_come.borrow();
    let request = ThreadsRequest {
        scope: Scope::Mine,
        after: None,
        limit: None,
    };
    let id = bob.raw.say(ClientMessage::Threads(request)).await;
    let mut come = log.figures_come.subscribe();
    must(come.wait_for(|come| *come > asked)).await.unwrap();
    let removal = object! { "user_id": user("bob").as_str() };
    alice.acts(thread, "action.remove_member", removal).await;
    log.shut_figures(false);
    let answer = bob.raw.find(|message| message.reply_to == Some(id)).await.message;
    assert!(
        matches!(&answer, ServerMessage::Threads(page) if page.threads.is_empty()),
        "{answer:?}"
    );
}

#[tokio::test]
async fn y8_the_last_entry_comes_within_64_kib_however_much_is_hidden_before_it() {
    let log = FaultyLog::new();
    let world = World::over(log.clone(), |config| config.times.empty_update_ms = 3_600_000).await;
    let mut alice = world.client("alice").await;
    let mut bob = world.client("bob").await;
    let mut carol = world.client("carol").await;
    let thread = alice.creates(&[("bob", "reader"), ("carol", "reader")]).await;
    let (spec, _) = carol.acts(thread, "action.submit_message", message("a spec")).await;
    let hash = world.log.find(thread, spec).await.unwrap()[0].content_hash;
    let (_, snapshot) = bob.subscribes_with(thread, |options| options.verify = Some(true)).await;
    let mut verifier = Verifier::of_snapshot(thread, &snapshot.unwrap());
    let changes = || {
        let mut changes = decision(spec, hash, "request_changes");
        changes.insert("reason", "say please");
        changes
    };
    // Less than one message of what bob may not see, of which he isn't told yet; then more of it, with his removal.
    for _ in 0..740 {
        alice.acts(thread, "action.process_approval", changes()).await;
    }
    bob.raw.settle().await;
    log.shut();
    let asked = *log.come.borrow();
    alice.act(thread, "action.process_approval", changes()).await;
    log.asked(asked + 1).await;
    for _ in 0..60 {
        alice.act(thread, "action.process_approval", changes()).await;
    }
    let removal = object! { "user_id": user("bob").as_str() };
    let removed = alice.act(thread, "action.remove_member", removal).await;
    alice.raw.settle().await;
    log.open();
    let removed = alice.receipt(removed).await;
    let ranges = bob.updates_to(thread, removed.seq.get()).await;
    ranges.iter().for_each(|range| verifier.apply(thread, range));
    assert_eq!(kinds(&ranges), ["member_removed"]);
    assert_eq!(
        unsubscribed(&mut bob, thread).await.as_deref(),
        Some("permission_denied")
    );
}
