//! How a client follows threads: Y3 to Y10, L8, R2.

use choir_core::client::replica::{Finding, Retain};
use choir_core::client::{Event, Reply, Request, SubscribeOptions, Update};
use choir_protocol::entry::Kind;
use choir_protocol::error::ErrorCode;
use choir_protocol::ids::{Cursor, Seq};
use choir_protocol::message::{
    ClientMessage, Mode, ServerMessage, SnapshotReason, SubscribeThread, Subscribed, Unsubscribed,
};
use choir_protocol::thread::{Role, Stream};

use crate::support::*;

fn log_of(posts: usize) -> Log {
    let mut log = Log::new(&[(2, Role::CoAuthor)]);
    for n in 0..posts {
        log.post(1, &n.to_string());
    }
    log
}

fn level(updates: &[Update]) -> bool {
    updates.iter().any(|update| matches!(update, Update::Level { .. }))
}

fn sent_acks(w: &mut World) -> Vec<(u64, bool)> {
    w.sent()
        .into_iter()
        .filter_map(|sent| match sent.message {
            ClientMessage::Ack(acks) => Some(acks.acks),
            _ => None,
        })
        .flatten()
        .map(|ack| (ack.seq.get(), ack.root.is_some()))
        .collect()
}

fn sent_unsubscribes(w: &mut World) -> usize {
    w.sent()
        .iter()
        .filter(|sent| matches!(sent.message, ClientMessage::Unsubscribe(_)))
        .count()
}

#[test]
fn y3_a_thread_is_asked_for_with_what_it_takes_to_verify_it() {
    let mut w = World::live();
    w.sent();
    w.subscribes(SubscribeOptions {
        history: Some(7),
        streams: Some(vec![Stream::Updates]),
        ..SubscribeOptions::default()
    });
    let sent = w.sent();
    let ClientMessage::Subscribe(subscribe) = &sent[0].message else {
        panic!("{sent:?}")
    };
    assert_eq!(
        subscribe.threads.as_deref(),
        Some(
            &[SubscribeThread {
                thread_id: thread(1),
                cursor: None,
                streams: Some(vec![Stream::Updates]),
                mode: None,
                history: Some(7),
                verify: Some(true),
                complete: None,
            }][..]
        )
    );
}

#[test]
fn y4_the_client_is_level_when_its_cursor_reaches_the_head() {
    let log = log_of(5);
    let mut w = World::live();
    w.follows(&log, 3);
    assert!(!level(&w.thread_updates()));
    w.updates(log.range(3, 5));
    assert!(!level(&w.thread_updates()));
    w.updates(log.range(5, 6));
    assert!(level(&w.thread_updates()));
    assert_eq!(w.cursor(), 6);
}

#[test]
fn y4_an_empty_update_makes_level_too() {
    let log = log_of(2);
    let mut w = World::live();
    w.follows(&log, 3);
    w.loses_and_redials();
    w.resumes();
    w.thread_updates();
    w.answers_subscribe(3, 3);
    assert!(level(&w.thread_updates()));
}

#[test]
fn y5_after_a_lost_connection_the_thread_goes_on_from_its_cursor() {
    let mut log = log_of(2);
    let mut w = World::live();
    w.follows(&log, 3);
    w.loses_and_redials();
    w.sent();
    w.resumes();
    assert_eq!(w.sent_subscribes(), [Some(log.cursor(3))]);
    log.post(1, "meanwhile");
    w.answers_subscribe(3, 4);
    w.updates(log.range(3, 4));
    assert_eq!(w.cursor(), 4);
    assert!(level(&w.thread_updates()));
}

#[test]
fn y6_a_gap_is_repaired_by_one_subscribe() {
    let log = log_of(9);
    let mut w = World::live();
    w.follows(&log, 4);
    w.sent();
    w.thread_updates();
    w.updates(log.range(6, 8));
    assert_eq!(w.sent_subscribes(), [Some(log.cursor(4))]);
    w.sent();
    // Until the answer, updates are of the earlier subscription.
    w.updates(log.range(8, 9));
    w.updates(log.range(4, 9));
    assert_eq!(w.cursor(), 4);
    assert!(w.sent_subscribes().is_empty());
    w.answers_subscribe(4, 10);
    w.updates(log.range(4, 10));
    assert_eq!(w.cursor(), 10);
    let updates = w.thread_updates();
    assert!(updates.contains(&Update::GapRepaired {
        cursor: Seq::saturating(4),
        from: Seq::saturating(6)
    }));
    assert!(level(&updates));
}

#[test]
fn y6_a_thread_stays_subscribed_while_it_is_asked_for_again() {
    let log = log_of(9);
    let mut w = World::live();
    w.follows(&log, 4);
    w.events();
    w.updates(log.range(6, 8));
    w.answers_subscribe(4, 10);
    assert!(!w.events().iter().any(|event| matches!(event, Event::State(_))));
    w.loses(None);
    assert_eq!(w.state().name(), "reconnecting");
}

#[test]
fn y6_an_answer_to_an_earlier_subscribe_isnt_the_one_that_is_awaited() {
    let log = log_of(9);
    let mut w = World::live();
    w.follows(&log, 4);
    w.updates(log.range(6, 8));
    w.says_of(
        Some(thread(1)),
        Some(id(5)),
        ServerMessage::Subscribed(subscribed(4, 10)),
    );
    w.updates(log.range(4, 10));
    assert_eq!(w.cursor(), 4, "still awaited");
}

fn subscribed(seq: u64, head: u64) -> Subscribed {
    Subscribed::Thread(choir_protocol::message::SubscribedThread {
        seq: Seq::saturating(seq),
        head: Seq::saturating(head),
        role: None,
        streams: vec![Stream::Updates],
        mode: Mode::Full,
        messages: 0,
        marked: Seq::ZERO,
        present: None,
    })
}

#[test]
fn y6_ranges_may_overlap_and_repeat() {
    let log = log_of(9);
    let mut w = World::live();
    w.follows(&log, 4);
    w.updates(log.range(0, 6));
    w.updates(log.range(2, 5));
    w.updates(log.range(5, 10));
    assert_eq!(w.cursor(), 10);
}

#[test]
fn y6_a_root_that_doesnt_compute_sets_the_replica_aside_and_starts_anew() {
    let log = log_of(4);
    let mut w = World::live();
    w.follows(&log, 4);
    w.sent();
    w.thread_updates();
    let mut bad = log.range(4, 5);
    bad.root = log.root(3);
    w.updates(bad);
    assert_eq!(w.sent_subscribes(), [None], "without a cursor");
    assert!(matches!(
        &w.thread_updates()[..],
        [Update::Desync { error, ended: false }] if error.name.to_string() == "StateDesyncError"
    ));
    assert!(w.machine.replica(thread(1)).is_none());
    let aside = w.machine.set_aside(thread(1)).unwrap();
    assert_eq!(aside.cursor(), log.cursor(4));
    w.answers_subscribe(5, 5);
    w.says_of(
        Some(thread(1)),
        None,
        ServerMessage::Snapshot(log.snapshot(0, SnapshotReason::Initial)),
    );
    assert_eq!(w.cursor(), 5);
    assert!(level(&w.thread_updates()));
}

#[test]
fn r2_the_second_time_before_the_client_was_level_is_the_last() {
    let log = log_of(4);
    let mut w = World::live();
    w.follows(&log, 4);
    let mut bad = log.range(4, 5);
    bad.root = log.root(3);
    w.updates(bad);
    w.answers_subscribe(5, 5);
    let mut snapshot = log.snapshot(0, SnapshotReason::Initial);
    snapshot.recent.root = log.root(3);
    w.sent();
    w.thread_updates();
    w.says_of(Some(thread(1)), None, ServerMessage::Snapshot(snapshot));
    assert_eq!(sent_unsubscribes(&mut w), 1);
    assert!(matches!(&w.thread_updates()[..], [Update::Desync { ended: true, .. }]));
    assert_eq!(w.state().name(), "authenticated");
    assert!(w.machine.set_aside(thread(1)).is_some());
}

#[test]
fn r2_once_level_the_count_starts_anew() {
    let log = log_of(8);
    let mut w = World::live();
    w.follows(&log, 4);
    for to in 5..9 {
        w.says_of(
            Some(thread(1)),
            None,
            ServerMessage::StateError(error(ErrorCode::StateDesync)),
        );
        w.answers_subscribe(to - 1, to);
        w.updates(log.range(to - 1, to));
        assert_eq!(w.cursor(), to);
    }
}

#[test]
fn y9_a_desync_that_the_server_found_is_answered_by_a_subscribe_with_the_cursor() {
    let log = log_of(4);
    let mut w = World::live();
    w.follows(&log, 5);
    w.sent();
    w.says_of(
        Some(thread(1)),
        None,
        ServerMessage::StateError(error(ErrorCode::StateDesync)),
    );
    assert_eq!(w.sent_subscribes(), [Some(log.cursor(5))]);
}

#[test]
fn y7_a_snapshot_of_another_log_keeps_the_old_replica_aside() {
    let log = log_of(4);
    let mut other = Log::new(&[]);
    other.post(1, "another history");
    let mut w = World::live();
    w.follows(&log, 5);
    w.loses_and_redials();
    w.resumes();
    w.thread_updates();
    w.answers_subscribe(2, 2);
    w.says_of(
        Some(thread(1)),
        None,
        ServerMessage::Snapshot(other.snapshot(0, SnapshotReason::StateDesync)),
    );
    let updates = w.thread_updates();
    assert!(
        updates
            .iter()
            .any(|update| matches!(update, Update::Desync { ended: false, .. }))
    );
    assert_eq!(w.cursor(), 2);
    assert_eq!(w.machine.set_aside(thread(1)).unwrap().cursor(), log.cursor(5));
}

#[test]
fn g8_a_snapshot_that_contradicts_what_was_held_is_told() {
    let log = log_of(4);
    let mut other = log_of(3);
    other.post(1, "not what was there");
    other.post(1, "more");
    let mut w = World::live();
    w.follows(&log, 5);
    w.loses_and_redials();
    w.resumes();
    w.answers_subscribe(6, 6);
    w.thread_updates();
    w.says_of(
        Some(thread(1)),
        None,
        ServerMessage::Snapshot(other.snapshot(0, SnapshotReason::TooFarBehind)),
    );
    assert!(
        w.thread_updates()
            .iter()
            .any(|update| matches!(update, Update::Desync { ended: false, .. }))
    );
}

#[test]
fn y8_losing_the_right_to_read_ends_the_subscription() {
    let log = log_of(2);
    let mut w = World::live();
    w.follows(&log, 3);
    w.thread_updates();
    w.says_of(
        Some(thread(1)),
        None,
        ServerMessage::Unsubscribed(Unsubscribed {
            cause: Some("permission_denied".to_owned()),
        }),
    );
    assert!(matches!(
        &w.thread_updates()[..],
        [Update::Unsubscribed { error: Some(error) }] if error.name.to_string() == "SubscriptionError" && error.code.as_str() == "permission_denied"
    ));
    assert_eq!(w.state().name(), "authenticated");
    assert!(w.machine.replica(thread(1)).is_none());
}

#[test]
fn y10_a_thread_that_the_server_cant_read_now_ends_as_an_error_that_may_be_tried_again() {
    let log = log_of(2);
    let mut w = World::live();
    w.follows(&log, 3);
    w.thread_updates();
    w.says_of(
        Some(thread(1)),
        None,
        ServerMessage::Unsubscribed(Unsubscribed {
            cause: Some("internal".to_owned()),
        }),
    );
    assert!(matches!(
        &w.thread_updates()[..],
        [Update::Unsubscribed { error: Some(error) }] if error.retryable && error.code.as_str() == "internal"
    ));
}

#[test]
fn y8_who_asks_for_more_than_the_replica_holds_sends_no_cursor() {
    let log = log_of(2);
    let mut w = World::live();
    w.subscribes(SubscribeOptions {
        streams: Some(vec![Stream::Updates]),
        ..SubscribeOptions::default()
    });
    w.answers_subscribe(3, 3);
    w.says_of(
        Some(thread(1)),
        None,
        ServerMessage::Snapshot(log.snapshot(0, SnapshotReason::Initial)),
    );
    w.sent();
    w.subscribes(SubscribeOptions::default());
    assert_eq!(w.sent_subscribes(), [None]);
}

#[test]
fn y9_acks_come_every_5_s_or_after_256_entries_with_a_root_every_16th_time() {
    let log = log_of(1_000);
    let mut w = World::live();
    w.follows(&log, 10);
    // The first goes at once: nothing was acknowledged for long.
    assert_eq!(sent_acks(&mut w), [(10, true)]);
    w.updates(log.range(10, 11));
    w.pass(4_999);
    assert_eq!(sent_acks(&mut w), []);
    w.pass(1);
    assert_eq!(sent_acks(&mut w), [(11, false)]);
    w.updates(log.range(11, 266));
    assert_eq!(sent_acks(&mut w), []);
    w.updates(log.range(266, 267));
    assert_eq!(sent_acks(&mut w), [(267, false)]);
    let mut roots = Vec::new();
    for to in 268..300 {
        w.updates(log.range(to - 1, to));
        w.pass(5_000);
        w.input(choir_core::client::Input::Traffic);
        roots.extend(sent_acks(&mut w).into_iter().map(|(_, root)| root));
    }
    assert_eq!(roots.iter().filter(|root| **root).count(), 2);
    assert!(roots[13] && roots[29], "{roots:?}");
    w.pass(5_000);
    assert_eq!(sent_acks(&mut w), [], "nothing new, nothing said");
}

#[test]
fn y10_unsubscribing_forgets_the_thread() {
    let log = log_of(2);
    let mut w = World::live();
    w.follows(&log, 3);
    w.sent();
    w.machine.unsubscribe(w.now, thread(1));
    w.collect();
    assert_eq!(sent_unsubscribes(&mut w), 1);
    assert_eq!(w.state().name(), "authenticated");
    w.updates(log.range(2, 3));
    w.loses_and_redials();
    w.resumes();
    assert_eq!(w.sent_subscribes(), []);
}

#[test]
fn y10_the_answer_to_an_unsubscribe_doesnt_end_the_subscription_that_followed_it() {
    let log = log_of(2);
    let mut w = World::live();
    w.follows(&log, 3);
    w.machine.unsubscribe(w.now, thread(1));
    w.subscribes(SubscribeOptions::default());
    w.says_of(
        Some(thread(1)),
        None,
        ServerMessage::Unsubscribed(Unsubscribed::default()),
    );
    w.answers_subscribe(3, 3);
    w.says_of(
        Some(thread(1)),
        None,
        ServerMessage::Snapshot(log.snapshot(0, SnapshotReason::Initial)),
    );
    assert_eq!(w.cursor(), 3);
}

#[test]
fn y4_what_cant_be_subscribed_is_an_error_of_that_thread() {
    let mut w = World::live();
    w.subscribes(SubscribeOptions::default());
    let asked = w.sent().pop().unwrap().id;
    w.thread_updates();
    w.says_of(
        Some(thread(1)),
        Some(asked),
        ServerMessage::StateError(error(ErrorCode::SubscriptionError).with_cause("not_found")),
    );
    assert!(matches!(
        &w.thread_updates()[..],
        [Update::Unsubscribed { error: Some(error) }] if error.cause.as_deref() == Some("not_found")
    ));
}

#[test]
fn r1_a_subscribe_above_the_rate_is_said_again() {
    let mut w = World::live();
    w.subscribes(SubscribeOptions::default());
    let asked = w.sent().pop().unwrap().id;
    w.says_of(
        None,
        Some(asked),
        ServerMessage::ConnectionError(error(ErrorCode::RateLimited).with_retry_after(250)),
    );
    w.pass(249);
    assert_eq!(w.sent_subscribes(), []);
    w.pass(1);
    assert_eq!(w.sent_subscribes(), [None]);
}

#[test]
fn y3_all_names_what_is_held_and_takes_up_what_comes() {
    let log = log_of(2);
    let mut w = World::live();
    w.machine.subscribe_all(w.now, SubscribeOptions::default()).unwrap();
    w.collect();
    let sent = w.sent();
    let asked = sent.last().unwrap();
    assert!(
        matches!(&asked.message, ClientMessage::Subscribe(subscribe) if subscribe.all == Some(true) && subscribe.threads.is_none())
    );
    w.says_of(
        Some(thread(1)),
        Some(asked.id),
        ServerMessage::Subscribed(subscribed(3, 3)),
    );
    w.says_of(
        Some(thread(1)),
        None,
        ServerMessage::Snapshot(log.snapshot(3, SnapshotReason::Initial)),
    );
    w.says_of(
        None,
        Some(asked.id),
        ServerMessage::Subscribed(Subscribed::All { all: true, threads: 1 }),
    );
    assert_eq!(w.cursor(), 3);
    w.loses_and_redials();
    w.resumes();
    let cursors = w.sent_subscribes();
    assert_eq!(cursors, [Some(log.cursor(3))]);
    let subscribes = w
        .sent()
        .into_iter()
        .filter(|sent| matches!(sent.message, ClientMessage::Subscribe(_)))
        .count();
    assert_eq!(subscribes, 1, "one message names both");
}

#[test]
fn complete_starts_at_entry_1_and_takes_nothing_at_the_servers_word() {
    let log = log_of(5);
    let mut w = World::live();
    w.subscribes(SubscribeOptions {
        complete: true,
        ..SubscribeOptions::default()
    });
    assert_eq!(w.sent_subscribes(), [Some(Cursor::START)]);
    w.answers_subscribe(0, 6);
    w.updates(log.range(0, 4));
    w.updates(log.range(4, 6));
    let replica = w.machine.replica(thread(1)).unwrap();
    assert_eq!(replica.floor(), Cursor::START);
    assert_eq!(replica.view().messages().len(), 5);
    assert_eq!(replica.view().members().len(), 2);
    assert_eq!(replica.view().settings().unwrap().title, "test");
}

#[test]
fn in_the_mode_events_there_is_no_replica_and_no_cursor() {
    let mut w = World::live();
    w.subscribes(SubscribeOptions {
        mode: Mode::Events,
        ..SubscribeOptions::default()
    });
    let sent = w.sent();
    let ClientMessage::Subscribe(subscribe) = &sent.last().unwrap().message else {
        panic!("{sent:?}")
    };
    let line = &subscribe.threads.as_ref().unwrap()[0];
    assert_eq!((line.mode, line.verify), (Some(Mode::Events), None));
    w.answers_subscribe(3, 3);
    assert_eq!(w.state().name(), "subscribed");
    assert!(w.machine.replica(thread(1)).is_none());
}

// ------------------------------------------------------------------------------------------------------------------------------------------------- L8

#[test]
fn l8_what_is_hidden_out_of_order_is_asked_for_once_and_then_told() {
    let mut log = log_of(1);
    log.propose(2, "a spec");
    let mut w = World::live();
    w.follows(&log, 2);
    w.sent();
    w.thread_updates();
    // An owner sees specs whole.
    let hiding = |from, to| log.range_hiding(from, to, |entry| entry.kind == Kind::SpecSubmitted);
    w.updates(hiding(2, 3));
    assert_eq!(w.sent_subscribes(), [Some(log.cursor(2))]);
    assert_eq!(w.cursor(), 2, "not applied yet");
    w.sent();
    w.answers_subscribe(2, 3);
    w.updates(hiding(2, 3));
    assert_eq!(w.sent_subscribes(), []);
    assert_eq!(w.cursor(), 3);
    let told: Vec<_> = w
        .thread_updates()
        .into_iter()
        .filter_map(|update| match update {
            Update::Level { findings, .. } => Some(findings),
            _ => None,
        })
        .flatten()
        .collect();
    assert_eq!(
        told,
        [Finding::Hidden {
            seq: Seq::saturating(3),
            stream: Stream::Specs
        }]
    );
}

#[test]
fn l8_what_is_hidden_since_the_right_was_lost_is_in_order_after_all() {
    let mut log = Log::new(&[(2, Role::Owner)]);
    log.post(1, "one");
    log.propose(2, "a spec");
    let demotion = format!(r#"{{"user_id":"{}","role":"reader"}}"#, user(1));
    log.add(2, Kind::MemberAdded, &demotion);
    let mut w = World::live();
    w.follows(&log, 2);
    w.thread_updates();
    let hiding = |from, to| log.range_hiding(from, to, |entry| entry.kind == Kind::SpecSubmitted);
    w.updates(hiding(2, 3));
    w.answers_subscribe(2, 4);
    w.updates(hiding(2, 3));
    w.updates(hiding(3, 4));
    assert_eq!(w.cursor(), 4);
    assert!(
        w.thread_updates()
            .iter()
            .any(|update| matches!(update, Update::Level { findings, .. } if findings.is_empty()))
    );
}

// -------------------------------------------------------------------------------------------------------------------------------------------- requests

#[test]
fn y11_earlier_pages_are_verified_against_the_floor() {
    let log = log_of(20);
    let mut w = World::live();
    w.subscribes(SubscribeOptions::default());
    w.answers_subscribe(21, 21);
    w.says_of(
        Some(thread(1)),
        None,
        ServerMessage::Snapshot(log.snapshot(15, SnapshotReason::Initial)),
    );
    w.sent();
    let ask = |w: &mut World| {
        let request = Request::Earlier {
            thread_id: thread(1),
            limit: Some(10),
        };
        let id = w.machine.request(w.now, request).unwrap();
        w.collect();
        id
    };
    let id = ask(&mut w);
    let sent = w.sent();
    assert!(
        matches!(&sent[..], [sent] if matches!(&sent.message, ClientMessage::History(_, request) if request.before.get() == 16 && request.verify == Some(true)))
    );
    w.says_of(Some(thread(1)), Some(id), ServerMessage::History(log.page(5, 15)));
    let replied = |w: &mut World| {
        w.events()
            .into_iter()
            .find_map(|event| match event {
                Event::Replied { result, .. } => Some(result),
                _ => None,
            })
            .expect("it was answered")
    };
    assert!(
        matches!(replied(&mut w), Ok(Reply::Earlier { entries, kept: true, at_start: false }) if entries.len() == 10)
    );
    // A page of another log doesn't get in.
    let other = log_of(3);
    let mut foreign = Log::with(&[], r#""visibility":"public","#);
    for n in 0..20 {
        foreign.post(1, &format!("other {n}"));
    }
    drop(other);
    let id = ask(&mut w);
    w.says_of(Some(thread(1)), Some(id), ServerMessage::History(foreign.page(0, 5)));
    assert!(matches!(replied(&mut w), Err(error) if error.name.to_string() == "StateDesyncError"));
    let id = ask(&mut w);
    w.says_of(Some(thread(1)), Some(id), ServerMessage::History(log.page(0, 5)));
    assert!(matches!(replied(&mut w), Ok(Reply::Earlier { at_start: true, .. })));
}

#[test]
fn r1_requests_are_asked_again_after_a_cut_but_not_for_ever() {
    let mut w = World::live();
    let id = w.machine.request(w.now, Request::Checkpoint(thread(1))).unwrap();
    w.collect();
    for _ in 0..2 {
        let asked = w.sent();
        assert!(asked.iter().any(|sent| sent.id == id));
        w.loses_and_redials();
        w.opens();
    }
    w.loses(None);
    let failed = w.events().into_iter().any(
        |event| matches!(event, Event::Replied { id: of, result: Err(error) } if of == id && error.code.as_str() == "connection_lost"),
    );
    assert!(failed);
}

#[test]
fn memory_is_bounded_and_the_cursor_stays() {
    let log = log_of(500);
    let mut w = World::with(|config| {
        config.retain = Retain {
            messages: 50,
            entries: 120,
        };
    });
    w.opens();
    w.follows(&log, 1);
    for to in 2..502 {
        w.updates(log.range(to - 1, to));
    }
    let replica = w.machine.replica(thread(1)).unwrap();
    assert_eq!(replica.cursor(), log.cursor(501));
    assert_eq!(replica.view().messages().len(), 50);
    assert_eq!(replica.floor(), log.cursor(451));
}
