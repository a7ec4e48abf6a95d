//! The sequence of a session's actions: A2 to A6.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use choir_core::session::sequence::{Answer, Generation, Sequence, TakeUp};
use choir_protocol::action::{SignedAction, Unsigned};
use choir_protocol::entry::Kind;
use choir_protocol::error::ErrorCode;
use choir_protocol::hash::Hash;
use choir_protocol::ids::{ActionSeq, Audience, Id, Seq, ThreadId, Timestamp, UserId};
use choir_protocol::json::Object;
use choir_protocol::key::SecretKey;
use choir_protocol::message::{ErrorPayload, Receipt, ReceiptStatus};

/// A client's side of one session, said in few words.
struct World {
    sequence: Sequence,
    secret: SecretKey,
}

impl World {
    fn new() -> Self {
        Self {
            sequence: Sequence::new(64),
            secret: SecretKey::from_seed(&[7; 32]),
        }
    }

    /// An action `name` in thread `thread`: equal names are equal ids, equal texts equal payloads.
    fn action(&self, thread: u8, name: u8, text: &str) -> SignedAction {
        let payload: Object = [("content", text), ("salt", "AAAAAAAAAAAAAAAAAAAAAA")]
            .into_iter()
            .collect();
        SignedAction::sign(
            Unsigned {
                audience: &"http://127.0.0.1:7400".parse::<Audience>().unwrap(),
                user_id: &UserId::of_key(&self.secret.public()),
                id: id(name),
                action_type: "action.submit_message",
                thread_id: thread_id(thread),
                timestamp: Timestamp::ZERO,
                seen: None,
                payload: &payload,
            },
            &self.secret,
        )
        .unwrap()
    }

    fn sends(&mut self, seq: u64, thread: u8, name: u8) -> TakeUp {
        let action = self.action(thread, name, "text");
        self.sequence.take_up(ActionSeq::new(seq).unwrap(), &action)
    }

    /// Sends at the expected number.
    fn decides(&mut self, seq: u64, thread: u8, name: u8) -> Generation {
        match self.sends(seq, thread, name) {
            TakeUp::Decide(generation) => generation,
            other => panic!("expected to be decided, got {other:?}"),
        }
    }

    fn answers(&mut self, thread: u8, name: u8, generation: Generation, answer: &Answer) -> bool {
        self.sequence.answered(thread_id(thread), id(name), generation, answer)
    }
}

fn id(name: u8) -> Id {
    Id::from_bytes([name; 16])
}

fn thread_id(thread: u8) -> ThreadId {
    ThreadId::from_bytes([thread; 16])
}

fn committed() -> Answer {
    receipt(ReceiptStatus::Committed)
}

fn receipt(status: ReceiptStatus) -> Answer {
    Answer::Receipt(Receipt {
        status,
        seq: Seq::new(5).unwrap(),
        kind: Kind::MessagePosted,
        root: Hash::EMPTY,
    })
}

fn refused(code: ErrorCode) -> Answer {
    Answer::Refused(ErrorPayload::new(code, "no"))
}

fn gap(expected: u64) -> TakeUp {
    TakeUp::Gap {
        expected: ActionSeq::new(expected).unwrap(),
    }
}

#[test]
fn a2_each_thread_counts_from_one() {
    let mut w = World::new();
    w.decides(1, 1, 10);
    w.decides(2, 1, 11);
    w.decides(1, 2, 20);
    assert_eq!(w.sequence.in_flight(), 3);
}

#[test]
fn a4_only_the_first_action_above_the_expected_number_is_answered() {
    let mut w = World::new();
    w.decides(1, 1, 10);
    assert_eq!(w.sends(3, 1, 12), gap(2));
    assert_eq!(w.sends(4, 1, 13), TakeUp::Ignore);
    w.decides(2, 1, 11);
    assert_eq!(w.sends(4, 1, 13), gap(3));
}

#[test]
fn a4_a_new_connection_is_told_of_the_gap_again() {
    let mut w = World::new();
    assert_eq!(w.sends(3, 1, 12), gap(1));
    assert_eq!(w.sends(3, 1, 12), TakeUp::Ignore);
    w.sequence.resume();
    assert_eq!(w.sends(3, 1, 12), gap(1));
}

#[test]
fn a3_a_retryable_refusal_does_not_consume_the_number() {
    let mut w = World::new();
    let generation = w.decides(1, 1, 10);
    assert!(w.answers(1, 10, generation, &refused(ErrorCode::ClockSkew)));
    w.decides(1, 1, 10);
}

#[test]
fn a3_what_was_taken_up_above_a_retryable_refusal_is_neither_answered_nor_kept() {
    let mut w = World::new();
    let generation = w.decides(1, 1, 10);
    assert_eq!(w.decides(2, 1, 11), generation);
    assert!(w.answers(1, 10, generation, &refused(ErrorCode::StateDesync)));
    assert!(!w.answers(1, 11, generation, &committed()));
    assert_eq!(w.sends(3, 1, 12), gap(1));
    assert_ne!(w.decides(1, 1, 10), generation);
    w.decides(2, 1, 11);
}

#[test]
fn a3_a_refusal_for_good_consumes_the_number() {
    let mut w = World::new();
    let generation = w.decides(1, 1, 10);
    assert!(w.answers(1, 10, generation, &refused(ErrorCode::Conflict)));
    assert_eq!(w.sends(3, 1, 12), gap(2));
}

#[test]
fn a3_another_thread_is_untouched_by_a_refusal() {
    let mut w = World::new();
    let first = w.decides(1, 1, 10);
    let second = w.decides(1, 2, 20);
    w.answers(1, 10, first, &refused(ErrorCode::RateLimited));
    assert!(w.answers(2, 20, second, &committed()));
    w.decides(2, 2, 21);
}

#[test]
fn a5_a_kept_receipt_is_given_again_as_duplicate() {
    let mut w = World::new();
    let generation = w.decides(1, 1, 10);
    w.answers(1, 10, generation, &committed());
    assert_eq!(w.sends(1, 1, 10), TakeUp::Answer(receipt(ReceiptStatus::Duplicate)));
}

#[test]
fn a5_a_kept_error_is_given_again_as_it_was() {
    let mut w = World::new();
    let generation = w.decides(1, 1, 10);
    w.answers(1, 10, generation, &refused(ErrorCode::PermissionDenied));
    assert_eq!(w.sends(1, 1, 10), TakeUp::Answer(refused(ErrorCode::PermissionDenied)));
}

#[test]
fn a5_a_kept_answer_at_the_expected_number_raises_it() {
    let mut w = World::new();
    let generation = w.decides(1, 1, 10);
    w.answers(1, 10, generation, &committed());
    assert_eq!(w.sends(2, 1, 10), TakeUp::Answer(receipt(ReceiptStatus::Duplicate)));
    w.decides(3, 1, 11);
}

#[test]
fn a5_what_is_under_decision_is_answered_once() {
    let mut w = World::new();
    let generation = w.decides(1, 1, 10);
    assert_eq!(w.sends(1, 1, 10), TakeUp::Ignore);
    assert!(w.answers(1, 10, generation, &committed()));
}

#[test]
fn a5_below_the_expected_number_what_is_not_kept_is_looked_up_and_nothing_else() {
    let mut w = World::new();
    let generation = w.decides(1, 1, 10);
    w.answers(1, 10, generation, &committed());
    assert!(matches!(w.sends(1, 1, 99), TakeUp::LookUp(_)));
}

#[test]
fn a5_a_look_up_that_fails_for_now_moves_no_number() {
    let mut w = World::new();
    let generation = w.decides(1, 1, 10);
    w.answers(1, 10, generation, &committed());
    let TakeUp::LookUp(generation) = w.sends(1, 1, 99) else {
        panic!("expected a look-up")
    };
    assert!(w.answers(1, 99, generation, &refused(ErrorCode::MessageDeliveryFailed)));
    w.decides(2, 1, 11);
}

#[test]
fn a5_the_same_id_with_another_payload_is_another_action() {
    let mut w = World::new();
    let generation = w.decides(1, 1, 10);
    w.answers(1, 10, generation, &committed());
    let other = w.action(1, 10, "another text");
    assert!(matches!(
        w.sequence.take_up(ActionSeq::new(2).unwrap(), &other),
        TakeUp::Decide(_)
    ));
}

#[test]
fn a5_the_last_64_answers_are_kept_and_memory_is_bounded() {
    let mut w = World::new();
    for n in 1..=200 {
        let generation = w.decides(n, 1, n as u8);
        w.answers(1, n as u8, generation, &committed());
    }
    for n in 137..=200 {
        assert!(matches!(w.sends(n, 1, n as u8), TakeUp::Answer(_)), "{n}");
    }
    assert!(matches!(w.sends(1, 1, 1), TakeUp::LookUp(_)));
}

#[test]
fn a6_after_a_resumed_session_unanswered_actions_go_on_with_their_old_numbers() {
    let mut w = World::new();
    let first = w.decides(1, 1, 10);
    w.answers(1, 10, first, &committed());
    let second = w.decides(2, 1, 11);
    w.answers(1, 11, second, &committed());
    w.sequence.resume();
    assert!(matches!(w.sends(2, 1, 11), TakeUp::Answer(_)));
    w.decides(3, 1, 12);
}

#[test]
fn a2_a_thousand_threads_are_remembered_and_the_least_used_is_forgotten_first() {
    let mut w = World::new();
    let name = |n: u64| ThreadId::v7(n, [0; 10]);
    let template = w.action(1, 1, "text");
    let mut take = |n: u64, seq: u64| {
        let action = SignedAction {
            thread_id: name(n),
            id: Id::v7(n * 10 + seq, [0; 10]),
            ..template.clone()
        };
        let taken = w.sequence.take_up(ActionSeq::new(seq).unwrap(), &action);
        if let TakeUp::Decide(generation) = taken {
            w.sequence
                .answered(action.thread_id, action.id, generation, &committed());
        }
        taken
    };
    for n in 0..1_500 {
        assert!(matches!(take(n, 1), TakeUp::Decide(_)));
    }
    assert!(matches!(take(500, 2), TakeUp::Decide(_)), "kept");
    assert_eq!(take(0, 2), gap(1), "forgotten: it counts from 1 again");
}

#[test]
fn a3_what_was_declined_before_it_was_handed_on_ends_no_generation() {
    let mut world = World::new();
    let first = world.decides(1, 1, b'a');
    let second = world.decides(2, 1, b'b');
    assert!(world.sequence.declined(thread_id(1), id(b'b'), second));
    assert!(!world.sequence.declined(thread_id(1), id(b'b'), second));
    // It comes again with its number, in the same generation: what is refused before it still drops it.
    let again = world.decides(2, 1, b'b');
    assert_eq!(again, first);
    assert!(world.answers(1, b'a', first, &refused(ErrorCode::StateDesync)));
    assert!(!world.answers(1, b'b', again, &committed()));
    assert!(world.decides(1, 1, b'a') > first);
}
