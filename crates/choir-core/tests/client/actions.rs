//! How a client's actions reach the server and get their answers: A2 to A8, K3, K4, R1, R2.

use crate::support::*;
use choir_core::client::{Event, SubscribeOptions};
use choir_protocol::action::SignedAction;
use choir_protocol::error::{ErrorCode, close};
use choir_protocol::ids::{Id, Timestamp};
use choir_protocol::message::{ClientMessage, ServerMessage};

fn signed(world: &World, id: Id) -> SignedAction {
    world
        .sent
        .iter()
        .rev()
        .find_map(|sent| match &sent.message {
            ClientMessage::Action(_, action) if action.id == id => Some(action.clone()),
            _ => None,
        })
        .expect("it was sent")
}

#[test]
fn a2_actions_are_numbered_from_1_in_each_thread() {
    let mut w = World::live();
    let a = w.acts(thread(1), "a");
    let b = w.acts(thread(1), "b");
    let c = w.acts(thread(2), "c");
    assert_eq!(w.sent_actions(), [(1, a), (2, b), (1, c)]);
}

#[test]
fn a2_the_window_closes_at_max_in_flight_and_opens_with_each_answer() {
    let mut w = World::new();
    w.hello.limits.max_in_flight = 2;
    w.opens();
    let ids: Vec<_> = (0..4).map(|n| w.acts(thread(1), &n.to_string())).collect();
    assert_eq!(w.sent_actions(), [(1, ids[0]), (2, ids[1])]);
    w.receipt(thread(1), ids[0], 2);
    assert_eq!(w.sent_actions(), [(3, ids[2])]);
    assert_eq!(w.answers(), [(ids[0], "ok")]);
}

#[test]
fn the_queue_behind_the_window_is_bounded() {
    let mut w = World::with(|config| config.max_queued_actions = 3);
    for n in 0..3 {
        w.acts(thread(1), &n.to_string());
    }
    let refused = w
        .machine
        .act(w.now, thread(1), "action.submit_message", message("more"));
    assert_eq!(refused.unwrap_err().code.as_str(), "limit");

    let mut w = World::with(|config| config.max_queued_bytes = 1_000);
    w.acts(thread(1), &"x".repeat(900));
    let refused = w
        .machine
        .act(w.now, thread(1), "action.submit_message", message(&"x".repeat(200)));
    assert_eq!(refused.unwrap_err().code.as_str(), "limit");
}

#[test]
fn a_payload_that_is_none_of_its_type_is_never_sent() {
    let mut w = World::live();
    let error = w
        .machine
        .act(w.now, thread(1), "action.submit_message", object("{}"))
        .unwrap_err();
    assert_eq!(error.code.as_str(), "invalid_message");
    let error = w
        .machine
        .act(w.now, thread(1), "action.dance", object("{}"))
        .unwrap_err();
    assert_eq!(error.code.as_str(), "invalid_message");
}

#[test]
fn section_12_content_that_is_too_large_is_refused_here() {
    let mut w = World::live();
    let long = "x".repeat(64 * 1024 + 1);
    let error = w
        .machine
        .act(w.now, thread(1), "action.submit_message", message(&long))
        .unwrap_err();
    assert_eq!(error.code.as_str(), "content_too_large");

    // Before the limits are known it waits, and is answered once they are; what is behind it keeps its place.
    let mut w = World::new();
    let a = w.acts(thread(1), &long);
    let b = w.acts(thread(1), "b");
    w.opens();
    assert_eq!(w.sent_actions(), [(1, b)]);
    assert_eq!(w.answers(), [(a, "content_too_large")]);
}

#[test]
fn a3_a_retryable_refusal_is_sent_again_with_its_number_and_all_behind_it() {
    let mut w = World::live();
    let a = w.acts(thread(1), "a");
    let b = w.acts(thread(1), "b");
    let c = w.acts(thread(1), "c");
    let other = w.acts(thread(2), "other");
    assert_eq!(w.sent_actions().len(), 4);
    w.refuses(thread(1), b, error(ErrorCode::MessageDeliveryFailed));
    // At once the first time (R1); the other thread isn't concerned.
    assert_eq!(w.sent_actions(), [(2, b), (3, c)]);
    w.receipt(thread(1), a, 2);
    w.receipt(thread(1), b, 3);
    w.receipt(thread(1), c, 4);
    w.receipt(thread(2), other, 2);
    assert_eq!(w.answers(), [(a, "ok"), (b, "ok"), (c, "ok"), (other, "ok")]);
}

#[test]
fn a3_the_server_names_the_wait() {
    let mut w = World::live();
    let a = w.acts(thread(1), "a");
    w.sent();
    w.refuses(thread(1), a, error(ErrorCode::RateLimited).with_retry_after(700));
    let b = w.acts(thread(1), "b");
    w.pass(699);
    assert_eq!(w.sent_actions(), []);
    w.pass(1);
    assert_eq!(w.sent_actions(), [(1, a), (2, b)]);
}

#[test]
fn a4_a_gap_is_news_and_everything_unanswered_is_numbered_anew() {
    let mut w = World::live();
    let a = w.acts(thread(1), "a");
    let b = w.acts(thread(1), "b");
    w.receipt(thread(1), a, 2);
    w.receipt(thread(1), b, 3);
    let c = w.acts(thread(1), "c");
    let d = w.acts(thread(1), "d");
    assert_eq!(w.sent_actions(), [(1, a), (2, b), (3, c), (4, d)]);
    // The server has forgotten the thread's number (A2).
    w.gap(thread(1), c, 1);
    assert_eq!(w.sent_actions(), [(1, c), (2, d)]);
    let e = w.acts(thread(1), "e");
    assert_eq!(w.sent_actions(), [(3, e)]);
}

#[test]
fn a4_a_gap_that_repeats_a_refusal_is_no_news() {
    let mut w = World::live();
    let a = w.acts(thread(1), "a");
    let b = w.acts(thread(1), "b");
    let c = w.acts(thread(1), "c");
    w.sent();
    w.refuses(thread(1), a, error(ErrorCode::RateLimited).with_retry_after(500));
    // The server had received b before the client heard of the refusal.
    w.gap(thread(1), b, 1);
    w.pass(500);
    assert_eq!(w.sent_actions(), [(1, a), (2, b), (3, c)]);
    // Even where it comes after the resend.
    w.gap(thread(1), b, 1);
    assert_eq!(w.sent_actions(), []);
    // One that names another number is news.
    w.gap(thread(1), b, 2);
    assert_eq!(w.sent_actions(), [(2, a), (3, b), (4, c)]);
}

#[test]
fn a4_once_a_later_sending_is_answered_the_same_gap_is_news() {
    let mut w = World::live();
    let a = w.acts(thread(1), "a");
    let b = w.acts(thread(1), "b");
    w.refuses(thread(1), a, error(ErrorCode::MessageDeliveryFailed));
    w.receipt(thread(1), a, 2);
    w.sent();
    // The server has forgotten the number, and expects 1 again (A2).
    w.gap(thread(1), b, 1);
    assert_eq!(w.sent_actions(), [(1, b)]);
}

#[test]
fn a4_a_message_that_was_none_leaves_its_number_to_the_next() {
    let mut w = World::live();
    let a = w.acts(thread(1), "a");
    let b = w.acts(thread(1), "b");
    w.sent();
    w.says_of(
        Some(thread(1)),
        Some(a),
        ServerMessage::ConnectionError(error(ErrorCode::InvalidMessage)),
    );
    w.gap(thread(1), b, 1);
    assert_eq!(w.answers(), [(a, "invalid_message")]);
    assert_eq!(w.sent_actions(), [(1, b)]);
}

#[test]
fn r2_an_action_is_given_up_after_3_refusals_and_the_next_gets_its_number() {
    let mut w = World::with(|config| config.max_refusals = 3);
    w.opens();
    let a = w.acts(thread(1), "a");
    let b = w.acts(thread(1), "b");
    w.sent();
    w.refuses(thread(1), a, error(ErrorCode::Internal));
    assert_eq!(w.sent_actions(), [(1, a), (2, b)], "at once the first time");
    w.refuses(thread(1), a, error(ErrorCode::Internal));
    w.pass(30_000);
    assert_eq!(w.sent_actions(), [(1, a), (2, b)], "after a wait the second");
    w.refuses(thread(1), a, error(ErrorCode::Internal));
    assert_eq!(w.answers(), [(a, "internal")]);
    w.pass(30_000);
    assert_eq!(w.sent_actions(), [(1, b)]);
}

#[test]
fn r1_patience_is_no_refusal() {
    let mut w = World::live();
    let a = w.acts(thread(1), "a");
    for _ in 0..10 {
        w.refuses(thread(1), a, error(ErrorCode::RateLimited).with_retry_after(100));
        w.pass(100);
    }
    w.receipt(thread(1), a, 2);
    assert_eq!(w.answers(), [(a, "ok")]);
}

#[test]
fn a6_unanswered_actions_are_resent_in_order_with_old_numbers_on_resume() {
    let mut w = World::live();
    let a = w.acts(thread(1), "a");
    let b = w.acts(thread(1), "b");
    let c = w.acts(thread(1), "c");
    let d = w.acts(thread(2), "d");
    w.receipt(thread(1), b, 2);
    let first = signed(&w, a);
    w.sent();
    w.loses_and_redials();
    let e = w.acts(thread(1), "e");
    w.resumes();
    let again = signed(&w, a);
    assert_eq!(w.sent_actions(), [(1, a), (3, c), (1, d), (4, e)]);
    assert_eq!(first, again, "signed once (A8)");
}

#[test]
fn a6_unanswered_actions_are_numbered_from_1_in_a_new_session() {
    let mut w = World::live();
    let a = w.acts(thread(1), "a");
    let b = w.acts(thread(1), "b");
    let c = w.acts(thread(1), "c");
    w.receipt(thread(1), a, 2);
    w.sent();
    w.loses_and_redials();
    w.opens();
    assert_eq!(w.sent_actions(), [(1, b), (2, c)]);
    let d = w.acts(thread(1), "d");
    assert_eq!(w.sent_actions(), [(3, d)]);
}

#[test]
fn a6_what_was_refused_before_the_cut_keeps_the_number_that_it_gave_back() {
    let mut w = World::live();
    let a = w.acts(thread(1), "a");
    let b = w.acts(thread(1), "b");
    w.receipt(thread(1), a, 2);
    let c = w.acts(thread(1), "c");
    w.refuses(thread(1), b, error(ErrorCode::RateLimited).with_retry_after(3_000));
    w.sent();
    w.loses_and_redials();
    w.resumes();
    w.pass(3_000);
    assert_eq!(w.sent_actions(), [(2, b), (3, c)]);
}

#[test]
fn actions_wait_for_the_first_session() {
    let mut w = World::new();
    let a = w.acts(thread(1), "a");
    assert_eq!(w.sent_actions(), []);
    w.opens();
    assert_eq!(w.sent_actions(), [(1, a)]);
}

#[test]
fn k1_what_is_sent_is_signed_for_the_dialled_audience() {
    let mut w = World::live();
    let a = w.acts(thread(1), "a");
    assert!(signed(&w, a).verify(&audience(), &user(1), &key(1).public()));
}

#[test]
fn k3_clock_skew_is_signed_anew_with_the_servers_time_and_the_same_id() {
    let mut w = World::live();
    let a = w.acts(thread(1), "a");
    let first = signed(&w, a);
    let b = w.acts(thread(1), "b");
    w.sent();
    let mut skew = error(ErrorCode::ClockSkew);
    skew.server_time = Some(Timestamp::saturating(START + 3_600_000));
    w.refuses(thread(1), a, skew);
    let (again, other) = (signed(&w, a), signed(&w, b));
    assert_eq!(w.sent_actions(), [(1, a), (2, b)]);
    assert_ne!(first.sig, again.sig);
    assert_eq!(again.timestamp.get(), START + 3_600_000);
    assert_eq!(other.timestamp, again.timestamp);
    assert!(again.verify(&audience(), &user(1), &key(1).public()));
    // From then on the client knows.
    let c = w.acts(thread(2), "c");
    assert_eq!(signed(&w, c).timestamp, again.timestamp);
}

#[test]
fn k4_actions_bear_the_cursor_that_was_applied_when_they_were_handed_over() {
    let mut log = Log::new(&[]);
    log.post(1, "one");
    let mut w = World::live();
    let before = w.acts(thread(1), "before");
    w.follows(&log, 2);
    let after = w.acts(thread(1), "after");
    let elsewhere = w.acts(thread(2), "elsewhere");
    assert_eq!(signed(&w, before).seen, None);
    assert_eq!(signed(&w, after).seen, Some(log.cursor(2)));
    assert_eq!(signed(&w, elsewhere).seen, None);
}

#[test]
fn k4_a_cursor_that_isnt_in_the_log_is_resynced_and_signed_anew() {
    let mut log = Log::new(&[]);
    log.post(1, "one");
    let mut w = World::live();
    w.follows(&log, 2);
    let a = w.acts(thread(1), "a");
    let first = signed(&w, a);
    w.sent();
    w.refuses(thread(1), a, error(ErrorCode::StateDesync));
    // The thread is subscribed again with its cursor, and the action waits for it.
    assert_eq!(w.sent_subscribes(), [Some(log.cursor(2))]);
    assert_eq!(w.sent_actions(), []);
    log.post(1, "two");
    w.answers_subscribe(2, 3);
    assert_eq!(w.sent_actions(), []);
    w.updates(log.range(2, 3));
    let again = signed(&w, a);
    assert_eq!(w.sent_actions(), [(1, a)]);
    assert_eq!(again.seen, Some(log.cursor(3)));
    assert_eq!(again.id, first.id);
}

#[test]
fn k4_without_a_replica_it_is_signed_without_a_cursor() {
    let mut w = World::live();
    let a = w.acts(thread(1), "a");
    w.sent();
    w.refuses(thread(1), a, error(ErrorCode::StateDesync));
    assert_eq!(signed(&w, a).seen, None);
}

#[test]
fn r2_at_1009_the_longest_action_in_flight_is_answered_here() {
    let mut w = World::live();
    let a = w.acts(thread(1), "a");
    let long = w.acts(thread(1), &"x".repeat(1_000));
    let b = w.acts(thread(2), "b");
    w.loses(Some(close::TOO_LARGE));
    assert_eq!(w.answers(), [(long, "content_too_large")]);
    w.redials();
    w.sent();
    w.resumes();
    assert_eq!(w.sent_actions(), [(1, a), (1, b)]);
}

#[test]
fn r2_the_first_action_goes_back_after_3_connections_that_ended_before_its_answer() {
    let mut w = World::live();
    let a = w.acts(thread(1), "poison");
    let b = w.acts(thread(1), "b");
    for _ in 0..2 {
        w.loses_and_redials();
        assert_eq!(w.answers(), []);
        w.opens();
    }
    w.loses_and_redials();
    assert_eq!(w.answers(), [(a, "message_delivery_failed")]);
    w.sent();
    w.opens();
    assert_eq!(w.sent_actions(), [(1, b)]);
}

#[test]
fn r2_a_connection_that_never_carried_the_action_is_no_strike() {
    let mut w = World::new();
    let a = w.acts(thread(1), "a");
    for _ in 0..5 {
        w.loses_and_redials();
    }
    w.opens();
    w.receipt(thread(1), a, 2);
    assert_eq!(w.answers(), [(a, "ok")]);
}

#[test]
fn refusals_for_good_go_to_the_caller_with_their_code() {
    let mut w = World::live();
    let a = w.acts(thread(1), "a");
    let b = w.acts(thread(1), "b");
    w.refuses(thread(1), a, error(ErrorCode::PermissionDenied));
    w.receipt(thread(1), b, 2);
    let c = w.acts(thread(1), "c");
    assert_eq!(w.answers(), [(a, "permission_denied"), (b, "ok")]);
    assert_eq!(w.sent_actions(), [(1, a), (2, b), (3, c)]);
}

#[test]
fn closing_answers_what_has_no_answer() {
    let mut w = World::live();
    let a = w.acts(thread(1), "a");
    w.subscribes(SubscribeOptions::default());
    w.machine.close(w.now);
    w.collect();
    assert_eq!(w.closes, [close::NORMAL]);
    let events = w.events();
    assert!(events.iter().any(|event| matches!(event, Event::Answered { id, result: Err(error) } if *id == a && error.code.as_str() == "closed")));
    assert_eq!(w.state().name(), "disconnected");
    let refused = w
        .machine
        .act(w.now, thread(1), "action.submit_message", message("late"));
    assert_eq!(refused.unwrap_err().code.as_str(), "closed");
}

#[test]
fn a_second_answer_means_nothing() {
    let mut w = World::live();
    let a = w.acts(thread(1), "a");
    w.receipt(thread(1), a, 2);
    w.receipt(thread(1), a, 2);
    w.refuses(thread(1), a, error(ErrorCode::Conflict));
    assert_eq!(w.answers(), [(a, "ok")]);
}

#[test]
fn section_12_actions_go_no_faster_than_the_server_takes_them() {
    let mut w = World::new();
    w.hello.limits.max_in_flight = 1_000;
    w.opens();
    for n in 0..200 {
        w.acts(thread(n % 7), &n.to_string());
    }
    assert_eq!(w.sent_actions().len(), 60, "a burst of three seconds");
    w.pass(1_000);
    assert_eq!(w.sent_actions().len(), 20);
    w.pass(10_000);
    assert_eq!(w.sent_actions().len(), 120);
}

#[test]
fn section_12_after_a_refusal_nothing_bursts() {
    let mut w = World::live();
    let ids: Vec<_> = (0..30).map(|n| w.acts(thread(1), &n.to_string())).collect();
    assert_eq!(w.sent_actions().len(), 30);
    w.refuses(thread(1), ids[0], error(ErrorCode::RateLimited).with_retry_after(50));
    w.pass(500);
    assert_eq!(w.sent_actions().len(), 10);
}
