//! The sequence of a session's actions and their answers: A2 to A9, and what signatures are for.

use choir_protocol::error::ErrorCode;
use choir_protocol::hash::Hash;
use choir_protocol::ids::{ActionSeq, Cursor, Seq};
use choir_protocol::json::object;
use choir_protocol::message::{ClientMessage, ReceiptStatus};

use crate::world::{World, fresh_id, message, salt};

#[tokio::test]
async fn a2_actions_of_one_thread_are_applied_in_their_order() {
    let world = World::start().await;
    let mut alice = world.client("alice").await;
    let thread = alice.creates(&[]).await;
    let mut ids = Vec::new();
    for n in 0..60 {
        ids.push(
            alice
                .act(thread, "action.submit_message", message(&n.to_string()))
                .await,
        );
    }
    for (n, id) in ids.into_iter().enumerate() {
        assert_eq!(alice.receipt(id).await.seq.get(), n as u64 + 2);
    }
}

#[tokio::test]
async fn a4_above_the_expected_number_one_gap_is_answered_and_nothing_applied() {
    let world = World::start().await;
    let mut alice = world.client("alice").await;
    let thread = alice.creates(&[]).await;
    let actions: Vec<_> = (0..3)
        .map(|n| alice.sign(thread, "action.submit_message", &message(&n.to_string())))
        .collect();
    alice.send_numbered(4, &actions[2]).await;
    alice.send_numbered(3, &actions[1]).await;
    let gap = alice.refusal(actions[2].id).await;
    assert_eq!(
        (gap.code, gap.expected, gap.retryable),
        (ErrorCode::SequenceGap, ActionSeq::new(2), true)
    );
    for (seq, action) in (2..).zip(&actions) {
        alice.send_numbered(seq, action).await;
    }
    for action in &actions {
        assert_eq!(alice.receipt(action.id).await.status, ReceiptStatus::Committed);
    }
    alice.raw.settle().await;
    assert_eq!(alice.raw.heard().count(), 0, "the second gap isn't answered");
    assert_eq!(world.log.head(thread).await.unwrap().unwrap().cursor.seq.get(), 4);
}

#[tokio::test]
async fn a3_after_a_retryable_refusal_nothing_above_it_is_applied_or_answered() {
    let world = World::start().await;
    let mut alice = world.client("alice").await;
    let thread = alice.creates(&[]).await;
    let (_, receipt) = alice.posts(thread, "zero").await;
    // K4: a cursor that isn't in the log is `state_desync`, which is retryable.
    let unseen = Cursor {
        seq: receipt.seq,
        root: Hash::EMPTY,
    };
    let first = alice.sign(thread, "action.submit_message", &message("one"));
    let bad = alice.sign_as(
        fresh_id(),
        thread,
        "action.submit_message",
        &message("two"),
        Some(unseen),
    );
    let third = alice.sign(thread, "action.submit_message", &message("three"));
    for (seq, action) in [(3, &first), (4, &bad), (5, &third)] {
        alice.send_numbered(seq, action).await;
    }
    alice.receipt(first.id).await;
    assert_eq!(alice.refused(bad.id).await, ErrorCode::StateDesync);
    alice.raw.settle().await;
    // Where the third came after the refusal it is a gap; before it, it was dropped.
    assert!(alice.raw.heard().all(|heard| heard.reply_to != Some(third.id) || matches!(&heard.message, choir_protocol::message::ServerMessage::StateError(error) if error.code == ErrorCode::SequenceGap)));
    alice.raw.forget_heard();
    // The number isn't consumed: it is that of the next.
    alice.send_numbered(4, &third).await;
    assert_eq!(alice.receipt(third.id).await.seq.get(), 4);
}

#[tokio::test]
async fn a5_what_was_answered_is_answered_again_and_what_was_not_is_looked_up() {
    let world = World::start().await;
    let mut alice = world.client("alice").await;
    let thread = alice.creates(&[]).await;
    let action = alice.sign(thread, "action.submit_message", &message("once"));
    alice.send(&action).await;
    let receipt = alice.receipt(action.id).await;
    alice.send_numbered(2, &action).await;
    let again = alice.receipt(action.id).await;
    assert_eq!(
        (again.status, again.seq, again.root),
        (ReceiptStatus::Duplicate, receipt.seq, receipt.root)
    );
    // Another action with a number that was taken up.
    let other = alice.sign(thread, "action.submit_message", &message("twice"));
    alice.send_numbered(2, &other).await;
    assert_eq!(alice.refused(other.id).await, ErrorCode::Conflict);
    // A refusal is given again as it was.
    let bad = alice.sign(
        thread,
        "action.withdraw_spec",
        &object! { "spec": fresh_id().to_string() },
    );
    alice.send_numbered(3, &bad).await;
    let refusal = alice.refusal(bad.id).await;
    alice.send_numbered(3, &bad).await;
    assert_eq!(alice.refusal(bad.id).await, refusal);
}

#[tokio::test]
async fn a6_after_a_reconnect_what_is_resent_is_applied_once_in_the_same_session_or_a_new_one() {
    let world = World::start().await;
    let mut alice = world.client("alice").await;
    let thread = alice.creates(&[]).await;
    let actions: Vec<_> = (0..5)
        .map(|n| alice.sign(thread, "action.submit_message", &message(&n.to_string())))
        .collect();
    for (seq, action) in (2..).zip(&actions) {
        alice.send_numbered(seq, action).await;
    }
    // The answers are lost with the connection.
    alice.raw.settle().await;
    let mut alice = alice.comes_again(&world).await;
    assert!(alice.session.resumed);
    for (seq, action) in (2..).zip(&actions) {
        alice.send_numbered(seq, action).await;
    }
    for action in &actions {
        alice.receipt(action.id).await;
    }
    alice.session.session_token = None;
    let mut alice = alice.comes_again(&world).await;
    assert!(!alice.session.resumed);
    for (seq, action) in (1..).zip(&actions) {
        alice.send_numbered(seq, action).await;
    }
    for (n, action) in actions.iter().enumerate() {
        let receipt = alice.receipt(action.id).await;
        assert_eq!(
            (receipt.status, receipt.seq.get()),
            (ReceiptStatus::Duplicate, n as u64 + 2)
        );
    }
    assert_eq!(world.log.head(thread).await.unwrap().unwrap().cursor.seq.get(), 6);
}

#[tokio::test]
async fn a8_an_id_belongs_to_one_author_type_and_payload() {
    let world = World::start().await;
    let mut alice = world.client("alice").await;
    let mut bob = world.client("bob").await;
    let mut eve = world.client("eve").await;
    let thread = alice.creates(&[("bob", "co_author")]).await;
    let (id, _) = alice.posts(thread, "mine").await;
    let other = alice.sign_as(id, thread, "action.submit_message", &message("not mine"), None);
    alice.send(&other).await;
    assert_eq!(alice.refused(id).await, ErrorCode::Conflict);
    let taken = bob.sign_as(id, thread, "action.submit_message", &message("taken"), None);
    bob.send(&taken).await;
    assert_eq!(bob.refused(id).await, ErrorCode::Conflict);
    let guessed = eve.sign_as(id, thread, "action.submit_message", &message("guessed"), None);
    eve.send(&guessed).await;
    assert_eq!(eve.refused(id).await, ErrorCode::NotFound);
}

#[tokio::test]
async fn k2_a_signature_that_does_not_hold_is_final_and_answered_in_its_turn() {
    let world = World::start().await;
    let mut alice = world.client("alice").await;
    let thread = alice.creates(&[]).await;
    let mut forged = alice.sign(thread, "action.submit_message", &message("forged"));
    forged.sig = alice.sign(thread, "action.submit_message", &message("other")).sig;
    alice.send(&forged).await;
    let id = alice.act(thread, "action.submit_message", message("real")).await;
    assert_eq!(alice.refused(forged.id).await, ErrorCode::SignatureInvalid);
    assert_eq!(alice.receipt(id).await.seq.get(), 2);
}

#[tokio::test]
async fn k3_a_clock_that_is_off_is_told_the_servers_time_and_may_sign_anew() {
    let world = World::start().await;
    let mut alice = world.client("alice").await;
    let thread = alice.creates(&[]).await;
    let early = alice.sign(thread, "action.submit_message", &message("early"));
    world.clock.forward(3_600_000);
    alice.send(&early).await;
    let refusal = alice.refusal(early.id).await;
    assert_eq!((refusal.code, refusal.retryable), (ErrorCode::ClockSkew, true));
    assert!(refusal.server_time.unwrap().since(early.timestamp) >= 3_600_000);
    let anew = alice.sign_as(early.id, thread, "action.submit_message", &message("early"), None);
    alice.send_numbered(2, &anew).await;
    assert_eq!(alice.receipt(anew.id).await.status, ReceiptStatus::Committed);
}

#[tokio::test]
async fn k4_seen_is_checked_against_the_log_and_against_what_is_decided_with_it() {
    let world = World::start().await;
    let mut alice = world.client("alice").await;
    let thread = alice.creates(&[]).await;
    let mut roots = vec![Cursor::START];
    for n in 0..5 {
        let (_, receipt) = alice.posts(thread, &n.to_string()).await;
        roots.push(Cursor {
            seq: receipt.seq,
            root: receipt.root,
        });
    }
    for seen in roots {
        let action = alice.sign_as(
            fresh_id(),
            thread,
            "action.submit_message",
            &message("seen"),
            Some(seen),
        );
        alice.send(&action).await;
        alice.receipt(action.id).await;
    }
    let above = Cursor {
        seq: Seq::saturating(1_000),
        root: Hash::EMPTY,
    };
    let action = alice.sign_as(
        fresh_id(),
        thread,
        "action.submit_message",
        &message("unseen"),
        Some(above),
    );
    alice.send(&action).await;
    assert_eq!(alice.refused(action.id).await, ErrorCode::StateDesync);
}

#[tokio::test]
async fn g7_a_private_thread_is_not_found_for_strangers_whatever_they_do() {
    let world = World::start().await;
    let mut alice = world.client("alice").await;
    let mut eve = world.client("eve").await;
    let thread = alice.creates(&[]).await;
    for (action_type, payload) in [
        ("action.submit_message", message("hi")),
        ("action.join", object! {}),
        ("action.update_thread", object! { "title": "mine", "salt": salt() }),
        ("action.redact_message", object! { "message": fresh_id().to_string() }),
    ] {
        let there = eve.act(thread, action_type, payload.clone()).await;
        let there = eve.refusal(there).await;
        let nowhere = eve.act(crate::world::fresh_thread(), action_type, payload).await;
        assert_eq!((there.code, &there), (ErrorCode::NotFound, &eve.refusal(nowhere).await));
    }
    let id = eve.raw.say(ClientMessage::Checkpoint(thread)).await;
    assert_eq!(eve.refused(id).await, ErrorCode::NotFound);
}
