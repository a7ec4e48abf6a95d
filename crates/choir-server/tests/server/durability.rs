//! Nothing is said that isn't durable, and nothing is lost or doubled when appends fail: G2, G3, A7, A10.

use std::sync::Arc;

use choir_log::Log;
use choir_protocol::error::ErrorCode;
use choir_protocol::ids::{Cursor, Seq};
use choir_protocol::message::{ReceiptStatus, ServerMessage};

use crate::faulty::{Fault, FaultyLog};
use crate::world::{World, contents, fresh_id, message};

async fn world(log: &Arc<FaultyLog>) -> World {
    let log: Arc<dyn Log> = log.clone();
    World::over(log, |config| {
        config.times.append_ms = 300;
        config.times.takeover_ms = 300;
    })
    .await
}

#[tokio::test]
async fn g2_no_answer_and_no_update_leaves_before_it_is_durable_and_what_waits_is_one_append() {
    let log = FaultyLog::new();
    let world = World::over(log.clone(), |_| {}).await;
    let mut alice = world.client("alice").await;
    let mut bob = world.client("bob").await;
    let thread = alice.creates(&[("bob", "co_author")]).await;
    bob.subscribes(thread).await;
    log.shut();
    let asked = *log.come.borrow();
    let first = alice.act(thread, "action.submit_message", message("0")).await;
    log.asked(asked + 1).await;
    let mut ids = vec![first];
    for n in 1..20 {
        ids.push(
            alice
                .act(thread, "action.submit_message", message(&n.to_string()))
                .await,
        );
    }
    // A refusal, decided on what isn't durable yet, waits like all else.
    let refused = alice
        .act(
            thread,
            "action.withdraw_spec",
            choir_protocol::json::object! { "spec": fresh_id().to_string() },
        )
        .await;
    alice.raw.settle().await;
    bob.raw.settle().await;
    assert_eq!(
        alice.raw.heard().count() + bob.raw.heard().count(),
        0,
        "something was said before it was durable"
    );
    log.open();
    for (n, id) in ids.into_iter().enumerate() {
        assert_eq!(alice.receipt(id).await.seq.get(), n as u64 + 2);
    }
    assert_eq!(alice.refused(refused).await, ErrorCode::NotFound);
    assert_eq!(*log.come.borrow(), asked + 2, "nineteen that waited became one append");
    assert_eq!(contents(&bob.updates_to(thread, 21).await).len(), 20);
}

#[tokio::test]
async fn a10_a_busy_log_is_asked_again() {
    let log = FaultyLog::new();
    let world = world(&log).await;
    let mut alice = world.client("alice").await;
    let thread = alice.creates(&[]).await;
    log.fail_next(&[Fault::Busy, Fault::Busy]);
    assert_eq!(alice.posts(thread, "patience").await.1.seq.get(), 2);
}

#[tokio::test]
async fn a10_an_append_of_unknown_outcome_is_settled_by_the_log_whichever_way_it_went() {
    for fault in [Fault::UnknownDone, Fault::UnknownLost] {
        let log = FaultyLog::new();
        let world = world(&log).await;
        let mut alice = world.client("alice").await;
        let thread = alice.creates(&[]).await;
        log.fail_next(&[fault]);
        let (_, receipt) = alice.posts(thread, "once").await;
        assert_eq!((receipt.status, receipt.seq.get()), (ReceiptStatus::Committed, 2));
        assert_eq!(alice.posts(thread, "more").await.1.seq.get(), 3);
        assert_eq!(log.stats().entries, 3, "{fault:?}");
    }
}

#[tokio::test]
async fn a10_while_the_outcome_is_open_clients_are_told_so_and_nothing_is_decided() {
    let log = FaultyLog::new();
    let world = world(&log).await;
    let mut alice = world.client("alice").await;
    let mut bob = world.client("bob").await;
    let thread = alice.creates(&[("bob", "co_author")]).await;
    bob.subscribes(thread).await;
    log.shut();
    let action = alice.sign(thread, "action.submit_message", &message("is it there?"));
    alice.send(&action).await;
    let refusal = alice.refusal(action.id).await;
    assert_eq!(
        (refusal.code, refusal.retryable),
        (ErrorCode::MessageDeliveryFailed, true)
    );
    // What comes while it is open is told the same, by whoever.
    let late = bob.act(thread, "action.submit_message", message("me too")).await;
    assert_eq!(bob.refused(late).await, ErrorCode::MessageDeliveryFailed);
    log.open();
    // It was applied after all: its author finds out by sending it again, everybody else by reading.
    assert_eq!(contents(&bob.updates_to(thread, 2).await), ["is it there?"]);
    alice.send_numbered(2, &action).await;
    let receipt = alice.receipt(action.id).await;
    assert_eq!((receipt.status, receipt.seq.get()), (ReceiptStatus::Duplicate, 2));
}

#[tokio::test]
async fn a10_a_broken_log_is_said_at_once_and_the_same_action_may_come_again() {
    let log = FaultyLog::new();
    let world = world(&log).await;
    let mut alice = world.client("alice").await;
    let thread = alice.creates(&[]).await;
    log.fail_next(&[Fault::Broken]);
    let action = alice.sign(thread, "action.submit_message", &message("again"));
    alice.send_numbered(2, &action).await;
    assert_eq!(alice.refused(action.id).await, ErrorCode::MessageDeliveryFailed);
    alice.send_numbered(2, &action).await;
    assert_eq!(alice.receipt(action.id).await.status, ReceiptStatus::Committed);
}

#[tokio::test]
async fn a_panic_ends_one_threads_actor_and_not_the_server() {
    let log = FaultyLog::new();
    let world = world(&log).await;
    let mut alice = world.client("alice").await;
    let thread = alice.creates(&[]).await;
    let other = alice.creates(&[]).await;
    alice.subscribes(thread).await;
    log.fail_next(&[Fault::Panic]);
    let action = alice.sign(thread, "action.submit_message", &message("again"));
    alice.send_numbered(2, &action).await;
    assert_eq!(alice.refused(action.id).await, ErrorCode::MessageDeliveryFailed);
    alice.posts(other, "unharmed").await;
    alice.send_numbered(2, &action).await;
    assert_eq!(alice.receipt(action.id).await.seq.get(), 2);
    assert_eq!(contents(&[alice.update(thread).await]), ["again"]);
}

#[tokio::test]
async fn a10_who_loses_the_compare_and_set_reads_on_and_decides_anew() {
    let log = FaultyLog::new();
    let world = world(&log).await;
    let other = self::world(&log).await;
    let mut alice = world.client("alice").await;
    let thread = alice.creates(&[]).await;
    alice.subscribes(thread).await;
    // Another node with the same log, and the same audience in its clients' signatures.
    let mut elsewhere = other.client("alice").await;
    for n in 0..5 {
        elsewhere.audience = other.audience.clone();
        elsewhere.posts(thread, &format!("there {n}")).await;
        alice.posts(thread, &format!("here {n}")).await;
    }
    let seen = contents(&alice.updates_to(thread, 11).await);
    assert_eq!(seen.len(), 10);
    assert_eq!((seen[0].as_str(), seen[9].as_str()), ("there 0", "here 4"));
}

#[tokio::test]
async fn a7_the_older_connections_actions_are_decided_before_the_new_session_is_sent() {
    let log = FaultyLog::new();
    let world = World::over(log.clone(), |_| {}).await;
    let mut alice = world.client("alice").await;
    let thread = alice.creates(&[]).await;
    log.shut();
    let asked = *log.come.borrow();
    let action = alice.sign(thread, "action.submit_message", &message("in flight"));
    alice.send(&action).await;
    log.asked(asked + 1).await;
    let token = alice.session.session_token.clone();
    let comes = world.client_as("alice", "alice", token);
    tokio::pin!(comes);
    // The session isn't sent while the action is open.
    let early = tokio::time::timeout(std::time::Duration::from_millis(200), &mut comes).await;
    assert!(early.is_err());
    log.open();
    let mut again = comes.await;
    assert!(again.session.resumed);
    again.send_numbered(2, &action).await;
    assert_eq!(again.receipt(action.id).await.status, ReceiptStatus::Duplicate);
}

#[tokio::test]
async fn a7_where_that_takes_too_long_a_new_session_starts() {
    let log = FaultyLog::new();
    let world = World::over(log.clone(), |config| config.times.takeover_ms = 100).await;
    let mut alice = world.client("alice").await;
    let thread = alice.creates(&[]).await;
    log.shut();
    let asked = *log.come.borrow();
    let action = alice.sign(thread, "action.submit_message", &message("in flight"));
    alice.send(&action).await;
    log.asked(asked + 1).await;
    let mut again = world
        .client_as("alice", "alice", alice.session.session_token.clone())
        .await;
    assert!(!again.session.resumed);
    log.open();
    again.send_numbered(1, &action).await;
    assert_eq!(again.receipt(action.id).await.seq.get(), 2);
    assert_eq!(log.stats().entries, 2);
}

#[tokio::test]
async fn a2_with_too_many_actions_in_flight_the_connection_is_not_read_and_then_goes_on() {
    let log = FaultyLog::new();
    let world = World::over(log.clone(), |config| config.limits.max_in_flight = 4).await;
    let mut alice = world.client("alice").await;
    let thread = alice.creates(&[]).await;
    log.shut();
    let asked = *log.come.borrow();
    let mut ids = Vec::new();
    for n in 0..10 {
        ids.push(
            alice
                .act(thread, "action.submit_message", message(&n.to_string()))
                .await,
        );
    }
    log.asked(asked + 1).await;
    let beat = alice.raw.say(choir_protocol::message::ClientMessage::Heartbeat).await;
    let answered = alice.raw.find(|heard| heard.reply_to == Some(beat));
    let early = tokio::time::timeout(std::time::Duration::from_millis(200), answered).await;
    assert!(early.is_err(), "it was read in spite of four actions without an answer");
    log.open();
    for (n, id) in ids.into_iter().enumerate() {
        assert_eq!(alice.receipt(id).await.seq.get(), n as u64 + 2);
    }
    alice.raw.find(|heard| heard.reply_to == Some(beat)).await;
}

#[tokio::test]
async fn a3_a_full_thread_refuses_without_letting_what_follows_pass() {
    let log = FaultyLog::new();
    let world = World::over(log.clone(), |config| config.guard.max_active_threads = 1).await;
    let mut alice = world.client("alice").await;
    let thread = alice.creates(&[]).await;
    log.shut();
    let asked = *log.come.borrow();
    let held = alice.act(thread, "action.submit_message", message("held")).await;
    log.asked(asked + 1).await;
    // The only place in memory is taken: another thread's actions are refused, and those behind them are gaps.
    let other = crate::world::fresh_thread();
    let payload = choir_protocol::json::object! { "title": "no room", "audience": world.audience.as_str(), "salt": crate::world::salt() };
    let create = alice.sign(other, "action.create_thread", &payload);
    alice.send_numbered(1, &create).await;
    let behind = alice.sign(other, "action.submit_message", &message("behind"));
    alice.send_numbered(2, &behind).await;
    assert_eq!(alice.refused(create.id).await, ErrorCode::MessageDeliveryFailed);
    assert_eq!(alice.refused(behind.id).await, ErrorCode::SequenceGap);
    log.open();
    alice.receipt(held).await;
}

#[tokio::test]
async fn y10_a_thread_that_can_not_be_read_on_is_said_to_be_and_given_up() {
    let log = FaultyLog::new();
    let world = World::over(log.clone(), |config| config.times.reread_ms = 5).await;
    let mut alice = world.client("alice").await;
    let thread = alice.creates(&[]).await;
    // More than is held in memory, so that who comes from the start reads the log.
    let long = "x".repeat(60_000);
    for _ in 0..40 {
        alice.acts(thread, "action.submit_message", message(&long)).await;
    }
    *log.damaged.lock().unwrap() = Seq::new(6);
    let mut bob = alice.comes_again(&world).await;
    bob.subscribes_with(thread, |options| options.cursor = Some(Cursor::START))
        .await;
    let served = contents(&bob.updates_to(thread, 5).await);
    assert_eq!(served.len(), 4, "what stands before the damage is served");
    let said = bob.raw.next().await;
    assert_eq!(said.thread_id, Some(thread));
    assert!(
        matches!(&said.message, ServerMessage::ConnectionError(error) if error.code == ErrorCode::Internal && error.retryable),
        "{said:?}"
    );
    let ended = bob.raw.next().await.message;
    assert!(matches!(ended, ServerMessage::Unsubscribed(ended) if ended.cause.as_deref() == Some("internal")));

    // Nothing else is held up, and once it can be read it goes on.
    *log.damaged.lock().unwrap() = None;
    bob.subscribes_with(thread, |options| options.cursor = Some(Cursor::START))
        .await;
    assert_eq!(contents(&bob.updates_to(thread, 41).await).len(), 40);
}
