//! The server's machine of one connection: C1 to C10, E4, A2 and what it says to bad input.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::sync::Arc;

use choir_core::session::connection::{Config, Fresh, Grant, Opened, SessionRequest, Submission};
use choir_core::session::sequence::{Answer, Sequence};
use choir_core::session::subscription::{CursorCheck, Due, Options, Sight, Subscription};
use choir_core::session::{Connection, Input, Monotonic, Now, Output};
use choir_core::view::Streams;
use choir_protocol::action::{SignedAction, Unsigned};
use choir_protocol::entry::Kind;
use choir_protocol::error::ErrorCode;
use choir_protocol::hash::Hash;
use choir_protocol::ids::{
    ActionSeq, Audience, ConnectionId, Cursor, Id, LogId, Seq, SessionId, ThreadId, Timestamp, UserId,
};
use choir_protocol::json::Object;
use choir_protocol::key::SecretKey;
use choir_protocol::message::{
    Auth, AuthMethod, ClientMessage, ErrorPayload, FromClient, FromServer, HeartbeatTimes, Limits, Mode, Receipt,
    ReceiptStatus, ServerInfo, ServerMessage, SnapshotReason,
};
use choir_protocol::sign::auth_text;

const AUDIENCE: &str = "http://127.0.0.1:7400";

/// One connection in virtual time, with what came out of it.
struct World {
    machine: Connection,
    secret: SecretKey,
    ms: u64,
    sent: Vec<FromServer>,
    closed: Option<u16>,
    sessions: Vec<SessionRequest>,
    submitted: Vec<Submission>,
    pings: usize,
}

impl World {
    fn accepted() -> Self {
        let config = Config {
            server: ServerInfo {
                name: "choir".into(),
                version: "0.1.0".into(),
                key: SecretKey::from_seed(&[1; 32]).public(),
            },
            log_id: LogId::from_bytes([1; 16]),
            limits: Limits {
                max_in_flight: 3,
                max_subscriptions: 1,
                ..Limits::default()
            },
            heartbeat: HeartbeatTimes::default(),
            audiences: vec!["http://localhost:7400".parse().unwrap(), AUDIENCE.parse().unwrap()],
            authentication_ms: 10_000,
        };
        let fresh = Fresh {
            connection_id: ConnectionId::from_bytes([2; 16]),
            challenge: "rDL2UP41KBQ-HUXX9YTMuS-hROOYPGkfC1WlGW-gu1I".into(),
            seed: 1,
        };
        let mut world = Self {
            machine: Connection::new(Arc::new(config), fresh, now(0)),
            secret: SecretKey::from_seed(&[7; 32]),
            ms: 0,
            sent: Vec::new(),
            closed: None,
            sessions: Vec::new(),
            submitted: Vec::new(),
            pings: 0,
        };
        world.drain();
        world
    }

    fn live() -> Self {
        let mut world = Self::accepted();
        world.authenticates();
        world.gets_session(Sequence::new(64), false);
        world.sent.clear();
        world
    }

    fn drain(&mut self) {
        while let Some(output) = self.machine.poll() {
            match output {
                Output::Send(message) => self.sent.push(*message),
                Output::Close { code, .. } => self.closed = Some(code),
                Output::StartSession(request) => self.sessions.push(*request),
                Output::Submit(submission) => self.submitted.push(*submission),
                Output::Ping => self.pings += 1,
                Output::Subscribe(_) | Output::Unsubscribed(_) | Output::Request(..) | Output::Acknowledged { .. } => {}
            }
        }
    }

    fn hands_in(&mut self, input: Input) {
        self.machine.handle(now(self.ms), input);
        self.drain();
    }

    fn says(&mut self, message: ClientMessage) {
        let message = FromClient {
            id: Id::v7(self.ms, [3; 10]),
            timestamp: Timestamp::ZERO,
            message,
        };
        self.hands_in(Input::Message(Box::new(Ok(message))));
    }

    fn says_text(&mut self, text: &str) {
        self.hands_in(Input::Message(Box::new(FromClient::read(text))));
    }

    fn auth(&self, audience: &str) -> Auth {
        let client_id = "tab-1".parse().unwrap();
        let audience: Audience = audience.parse().unwrap();
        let text = auth_text(
            &audience,
            ConnectionId::from_bytes([2; 16]),
            "rDL2UP41KBQ-HUXX9YTMuS-hROOYPGkfC1WlGW-gu1I",
            &client_id,
            "key",
        );
        Auth {
            method: AuthMethod::Key,
            client_id,
            agent: "test".into(),
            public_key: self.secret.public(),
            signature: self.secret.sign(text.as_bytes()),
            token: None,
            session_token: None,
        }
    }

    fn authenticates(&mut self) {
        self.says(ClientMessage::Auth(self.auth(AUDIENCE)));
    }

    fn gets_session(&mut self, sequence: Sequence, resumed: bool) {
        self.hands_in(Input::SessionStarted(Box::new(Grant {
            session_id: SessionId::from_bytes([9; 16]),
            sequence,
            session_token: (!resumed).then(|| "secret".into()),
            resumed,
            expires_at: None,
            agent_issuer: false,
            jitter: 0,
        })));
    }

    fn action(&self, name: u8) -> SignedAction {
        let payload: Object = [("content", "hi"), ("salt", "AAAAAAAAAAAAAAAAAAAAAA")]
            .into_iter()
            .collect();
        SignedAction::sign(
            Unsigned {
                audience: &AUDIENCE.parse().unwrap(),
                user_id: &UserId::of_key(&self.secret.public()),
                id: Id::from_bytes([name; 16]),
                action_type: "action.submit_message",
                thread_id: thread(),
                timestamp: Timestamp::ZERO,
                seen: None,
                payload: &payload,
            },
            &self.secret,
        )
        .unwrap()
    }

    fn acts(&mut self, seq: u64, name: u8) {
        let action = self.action(name);
        self.says(ClientMessage::Action(ActionSeq::new(seq).unwrap(), action));
    }

    fn is_answered(&mut self, n: usize, answer: Answer) {
        let submission = self.submitted[n].clone();
        self.hands_in(Input::Answered {
            thread_id: submission.action.thread_id,
            id: submission.action.id,
            generation: submission.generation,
            answer,
        });
    }

    fn last_error(&self) -> &ErrorPayload {
        match &self.sent.last().expect("something was sent").message {
            ServerMessage::ConnectionError(error) | ServerMessage::StateError(error) => error,
            other => panic!("expected an error, got {other:?}"),
        }
    }
}

fn now(ms: u64) -> Now {
    Now {
        wall: Timestamp::new(1_764_000_000_000 + ms).unwrap(),
        monotonic: Monotonic::from_ms(ms),
    }
}

fn thread() -> ThreadId {
    ThreadId::from_bytes([5; 16])
}

fn receipt() -> Answer {
    Answer::Receipt(Receipt {
        status: ReceiptStatus::Committed,
        seq: Seq::new(1).unwrap(),
        kind: Kind::MessagePosted,
        root: Hash::EMPTY,
    })
}

fn opened(head: u64, check: CursorCheck) -> Opened {
    Opened {
        thread_id: thread(),
        options: Options {
            streams: Streams::ALL,
            mode: Mode::Full,
            history: 50,
            verify: false,
            complete: false,
        },
        by_all: false,
        check,
        sight: sight(head, 1),
        visible: Streams::ALL,
        role: None,
        messages: 0,
        marked: Seq::ZERO,
    }
}

fn sight(head: u64, widened_at: u64) -> Sight {
    Sight {
        head: Seq::new(head).unwrap(),
        may_read: true,
        widened_at: Seq::new(widened_at).unwrap(),
    }
}

fn cursor(seq: u64) -> CursorCheck {
    CursorCheck::Holds(Cursor {
        seq: Seq::new(seq).unwrap(),
        root: Hash::EMPTY,
    })
}

#[test]
fn c1_hello_comes_at_once_with_challenge_and_limits() {
    let w = World::accepted();
    let ServerMessage::Hello(hello) = &w.sent[0].message else {
        panic!("expected control.hello")
    };
    assert_eq!(hello.protocol, "choir.v1");
    assert_eq!(hello.limits.max_in_flight, 3);
    assert_eq!(hello.challenge.len(), 43);
}

#[test]
fn c2_anything_before_auth_is_not_authenticated() {
    let mut w = World::accepted();
    for _ in 0..5 {
        w.says(ClientMessage::Heartbeat);
        assert_eq!(w.last_error().cause.as_deref(), Some("not_authenticated"));
    }
    assert_eq!(w.closed, None);
    w.authenticates();
    assert_eq!(w.sessions.len(), 1);
}

#[test]
fn c2_who_does_not_authenticate_within_10_s_is_closed_with_4401() {
    let mut w = World::accepted();
    assert_eq!(w.machine.wake_at(), Some(Monotonic::from_ms(10_000)));
    w.ms = 10_000;
    w.hands_in(Input::Tick);
    assert_eq!(w.closed, Some(4401));
}

#[test]
fn c4_the_audience_is_the_one_under_which_the_signature_holds() {
    for audience in [AUDIENCE, "http://localhost:7400"] {
        let mut w = World::accepted();
        w.says(ClientMessage::Auth(w.auth(audience)));
        w.gets_session(Sequence::new(64), false);
        w.acts(1, 1);
        assert_eq!(w.submitted[0].audience.as_str(), audience);
    }
}

#[test]
fn c4_a_signature_for_another_server_is_refused() {
    let mut w = World::accepted();
    w.says(ClientMessage::Auth(w.auth("https://elsewhere.example")));
    assert_eq!(w.last_error().code, ErrorCode::AuthenticationFailed);
    assert!(w.sessions.is_empty());
}

#[test]
fn c6_the_third_failure_is_answered_and_closes_with_4401() {
    let mut w = World::accepted();
    for n in 1..=3 {
        w.says(ClientMessage::Auth(w.auth("https://elsewhere.example")));
        assert_eq!(w.sent.len(), 1 + n);
    }
    assert_eq!(w.closed, Some(4401));
}

#[test]
fn c6_auth_on_an_authenticated_connection_goes_on_with_the_session() {
    let mut w = World::live();
    w.authenticates();
    let ServerMessage::Session(session) = &w.sent[0].message else {
        panic!("expected control.session")
    };
    assert!(session.resumed);
    assert_eq!(session.session_token, None);
}

#[test]
fn c6_another_key_on_an_authenticated_connection_changes_nothing() {
    let mut w = World::live();
    w.secret = SecretKey::from_seed(&[8; 32]);
    w.authenticates();
    assert_eq!(w.last_error().code, ErrorCode::AuthenticationFailed);
    assert_eq!(w.closed, None);
}

#[test]
fn c7_the_older_connection_is_told_and_closed_with_4409() {
    let mut w = World::live();
    w.hands_in(Input::Superseded);
    assert_eq!(w.last_error().code, ErrorCode::Superseded);
    assert_eq!(w.closed, Some(4409));
}

#[test]
fn a7_what_is_answered_after_the_end_is_in_the_session_for_the_next_connection() {
    let mut w = World::live();
    w.acts(1, 1);
    w.hands_in(Input::Superseded);
    assert_eq!(w.machine.in_flight(), 1);
    w.sent.clear();
    w.is_answered(0, receipt());
    assert!(w.sent.is_empty());
    let action = w.action(1);
    let (_, sequence) = w.machine.into_session().unwrap();

    let mut next = World::accepted();
    next.authenticates();
    next.gets_session(sequence, true);
    next.sent.clear();
    next.says(ClientMessage::Action(ActionSeq::FIRST, action));
    let ServerMessage::Receipt(receipt) = &next.sent[0].message else {
        panic!("expected a receipt")
    };
    assert_eq!(receipt.status, ReceiptStatus::Duplicate);
    assert!(next.submitted.is_empty());
}

#[test]
fn c9_a_heartbeat_is_answered_with_the_servers_time() {
    let mut w = World::live();
    w.ms = 1_234;
    w.says(ClientMessage::Heartbeat);
    assert!(matches!(
        &w.sent[0].message,
        ServerMessage::Heartbeat(beat) if beat.server_time.get() == 1_764_000_001_234
    ));
}

#[test]
fn c9_pings_begin_with_the_session_and_a_late_pong_closes_with_4408() {
    let mut w = World::live();
    w.ms = 27_000;
    w.hands_in(Input::Tick);
    assert_eq!(w.pings, 1);
    w.ms = 32_000;
    w.hands_in(Input::Tick);
    assert_eq!(w.last_error().code, ErrorCode::HeartbeatTimeout);
    assert_eq!(w.closed, Some(4408));
}

#[test]
fn c10_a_drain_answers_what_it_received_before_it_closes_with_1012() {
    let mut w = World::live();
    w.acts(1, 1);
    w.hands_in(Input::Drain { retry_after_ms: 100 });
    assert!(!w.machine.reads());
    assert_eq!(w.closed, None);
    w.is_answered(0, receipt());
    assert!(matches!(w.sent.last().unwrap().message, ServerMessage::Receipt(_)));
    assert_eq!(w.closed, Some(1012));
}

#[test]
fn e4_the_fifth_message_in_a_row_that_is_none_closes_with_4400() {
    let mut w = World::live();
    for text in ["", "{", "[]", r#"{"id":1}"#] {
        w.says_text(text);
        assert_eq!(w.last_error().code, ErrorCode::InvalidMessage);
    }
    assert_eq!(w.closed, None);
    w.says_text("null");
    assert_eq!(w.closed, Some(4400));
}

#[test]
fn e4_a_good_message_in_between_starts_the_count_anew() {
    let mut w = World::live();
    for _ in 0..3 {
        for _ in 0..4 {
            w.says_text("{");
        }
        w.says(ClientMessage::Heartbeat);
    }
    assert_eq!(w.closed, None);
}

#[test]
fn e4_an_unknown_type_is_none_of_the_five() {
    let mut w = World::live();
    for _ in 0..6 {
        w.says_text(
            r#"{"id":"01930000-0000-7000-8000-000000000014","type":"control.dance","payload":{},"timestamp":1}"#,
        );
        assert_eq!(w.last_error().code, ErrorCode::UnknownType);
    }
    assert_eq!(w.closed, None);
}

#[test]
fn t2_a_binary_message_closes_with_4400() {
    let mut w = World::live();
    w.hands_in(Input::Binary);
    assert_eq!(w.closed, Some(4400));
}

#[test]
fn a2_the_server_stops_reading_at_max_in_flight_until_it_has_answered() {
    let mut w = World::live();
    for n in 1..=3 {
        assert!(w.machine.reads());
        w.acts(u64::from(n), n);
    }
    assert!(!w.machine.reads());
    w.is_answered(0, receipt());
    assert!(w.machine.reads());
}

#[test]
fn a3_a_malformed_action_above_the_expected_number_is_a_gap_and_nothing_else() {
    let mut w = World::live();
    let malformed = |seq: u64| {
        format!(
            r#"{{"id":"01930000-0000-7000-8000-000000000014","type":"action.submit_message","payload":{{}},"timestamp":1,"thread_id":"{}","seq":{seq},"sig":"x"}}"#,
            thread()
        )
    };
    w.says_text(&malformed(2));
    assert_eq!(w.last_error().code, ErrorCode::SequenceGap);
    w.says_text(&malformed(1));
    assert_eq!(w.last_error().code, ErrorCode::InvalidMessage);
    w.acts(1, 1);
    assert_eq!(w.submitted.len(), 1, "invalid_message consumes no seq");
}

#[test]
fn y4_a_subscription_without_cursor_begins_with_a_snapshot_at_the_head() {
    let mut w = World::live();
    let due = w
        .machine
        .begin_subscription(now(0), None, opened(9, CursorCheck::Absent));
    w.drain();
    assert_eq!(due, Some(Due::Snapshot(SnapshotReason::Initial)));
    let ServerMessage::Subscribed(choir_protocol::message::Subscribed::Thread(subscribed)) = &w.sent[0].message else {
        panic!("expected control.subscribed")
    };
    assert_eq!((subscribed.seq.get(), subscribed.head.get()), (9, 9));
}

#[test]
fn y4_a_cursor_in_the_log_is_served_by_what_it_missed() {
    let mut w = World::live();
    let due = w.machine.begin_subscription(now(0), None, opened(9, cursor(4)));
    let range = Due::Range {
        after: Seq::new(4).unwrap(),
        to: Seq::new(9).unwrap(),
    };
    assert_eq!(due, Some(range));
}

#[test]
fn y5_a_cursor_too_far_behind_gets_a_snapshot_unless_the_subscription_is_complete() {
    let mut w = World::live();
    let due = w.machine.begin_subscription(now(0), None, opened(10_002, cursor(1)));
    assert_eq!(due, Some(Due::Snapshot(SnapshotReason::TooFarBehind)));
    let mut complete = opened(10_002, cursor(1));
    complete.options.complete = true;
    let due = w.machine.begin_subscription(now(0), None, complete);
    assert!(matches!(due, Some(Due::Range { .. })));
}

#[test]
fn y7_a_foreign_cursor_is_answered_by_a_snapshot() {
    let mut w = World::live();
    let due = w
        .machine
        .begin_subscription(now(0), None, opened(9, CursorCheck::Foreign));
    assert_eq!(due, Some(Due::Snapshot(SnapshotReason::StateDesync)));
}

#[test]
fn y8_a_cursor_before_a_widening_entry_gets_a_snapshot_but_not_the_start() {
    let mut w = World::live();
    let mut before = opened(9, cursor(4));
    before.sight = sight(9, 6);
    let due = w.machine.begin_subscription(now(0), None, before);
    assert_eq!(due, Some(Due::Snapshot(SnapshotReason::ViewChanged)));
    let mut start = opened(9, cursor(0));
    start.sight = sight(9, 6);
    let due = w.machine.begin_subscription(now(0), None, start);
    assert!(matches!(due, Some(Due::Range { .. })));
}

#[test]
fn y8_live_a_widening_entry_is_sent_and_then_a_snapshot() {
    let mut w = World::live();
    w.machine.begin_subscription(now(0), None, opened(9, cursor(9)));
    let subscription = w.machine.subscription(thread()).unwrap();
    let widened = sight(12, 11);
    let up_to_it = Due::Range {
        after: Seq::new(9).unwrap(),
        to: Seq::new(11).unwrap(),
    };
    assert_eq!(subscription.due(widened, 10_000), up_to_it);
    subscription.sent_range(Seq::new(11).unwrap(), widened.head);
    assert_eq!(
        subscription.due(widened, 10_000),
        Due::Snapshot(SnapshotReason::ViewChanged)
    );
    subscription.sent_snapshot(Seq::new(12).unwrap(), Seq::new(12).unwrap());
    assert_eq!(subscription.due(widened, 10_000), Due::Nothing);
}

#[test]
fn y3_more_subscriptions_than_allowed_are_refused_by_limit() {
    let mut w = World::live();
    w.machine
        .begin_subscription(now(0), None, opened(9, CursorCheck::Absent));
    let mut other = opened(9, CursorCheck::Absent);
    other.thread_id = ThreadId::from_bytes([6; 16]);
    assert_eq!(w.machine.begin_subscription(now(0), None, other), None);
    w.drain();
    assert_eq!(w.last_error().code, ErrorCode::SubscriptionError);
    assert_eq!(w.last_error().cause.as_deref(), Some("limit"));
}

#[test]
fn y9_an_ack_beyond_what_was_sent_is_ignored() {
    let mut w = World::live();
    w.machine.begin_subscription(now(0), None, opened(9, cursor(4)));
    let subscription = w.machine.subscription(thread()).unwrap();
    assert_eq!(subscription.acknowledge(Seq::new(5).unwrap()), None);
    assert_eq!(subscription.acknowledge(Seq::new(4).unwrap()), Seq::new(4));
    assert_eq!(subscription.lag(), 0);
}

fn subscribed_completely_before_a_widening() -> (Subscription, Sight) {
    let options = Options {
        streams: Streams::ALL,
        mode: Mode::Full,
        history: 0,
        verify: false,
        complete: true,
    };
    let sight = Sight {
        head: Seq::saturating(9),
        may_read: true,
        widened_at: Seq::saturating(5),
    };
    let cursor = Cursor {
        seq: Seq::saturating(3),
        root: Hash::EMPTY,
    };
    let check = CursorCheck::Holds(cursor);
    let subscription = Subscription::begin(ThreadId::from_bytes([5; 16]), options, false, check, sight, None, 100);
    (subscription, sight)
}

#[test]
fn y8_complete_gets_all_entries_up_to_a_widening_then_the_snapshot_there_then_the_rest() {
    let (mut subscription, sight) = subscribed_completely_before_a_widening();
    let seq = Seq::saturating;
    let range = |after, to| Due::Range {
        after: seq(after),
        to: seq(to),
    };
    assert_eq!(subscription.due(sight, 100), range(3, 5));
    subscription.sent_range(seq(5), sight.head);
    let reason = SnapshotReason::ViewChanged;
    assert_eq!(subscription.due(sight, 100), Due::Snapshot(reason));
    assert_eq!(subscription.snapshot_at(reason, sight.head), seq(5));
    subscription.sent_snapshot(seq(5), sight.head);
    assert_eq!(subscription.due(sight, 100), range(5, 9));
    assert!(!subscription.was_level());
    subscription.sent_range(seq(9), sight.head);
    assert_eq!(subscription.due(sight, 100), Due::Nothing);
    assert!(subscription.was_level());
}

#[test]
fn y5_who_fell_behind_gets_a_snapshot_unless_they_get_every_entry() {
    let (mut subscription, sight) = subscribed_completely_before_a_widening();
    subscription.fell_behind();
    assert!(matches!(subscription.due(sight, 100), Due::Range { .. }));
    subscription.options.complete = false;
    subscription.fell_behind();
    assert_eq!(
        subscription.due(sight, 100),
        Due::Snapshot(SnapshotReason::TooFarBehind)
    );
}

#[test]
fn a3_a_thread_that_could_never_be_made_is_invalid_and_consumes_no_seq() {
    let mut w = World::live();
    let own = UserId::of_key(&w.secret.public());
    let creates = |w: &World, audience: &str, member: Option<&UserId>| {
        let members = member.map(|user| format!(r#","members":[{{"user_id":"{user}","role":"reader"}}]"#));
        let payload = format!(
            r#"{{"title":"t","audience":"{audience}","salt":"AAAAAAAAAAAAAAAAAAAAAA"{}}}"#,
            members.unwrap_or_default()
        );
        let payload = choir_protocol::json::parse(&payload).unwrap().into_object().unwrap();
        SignedAction::sign(
            Unsigned {
                audience: &AUDIENCE.parse().unwrap(),
                user_id: &UserId::of_key(&w.secret.public()),
                id: Id::from_bytes([8; 16]),
                action_type: "action.create_thread",
                thread_id: thread(),
                timestamp: Timestamp::ZERO,
                seen: None,
                payload: &payload,
            },
            &w.secret,
        )
        .unwrap()
    };
    for (audience, member) in [("https://elsewhere.example", None), (AUDIENCE, Some(&own))] {
        let action = creates(&w, audience, member);
        w.says(ClientMessage::Action(ActionSeq::FIRST, action));
        assert!(matches!(
            w.sent.last().unwrap().message,
            ServerMessage::ConnectionError(_)
        ));
        assert_eq!(w.last_error().code, ErrorCode::InvalidMessage);
        assert!(w.submitted.is_empty());
    }
    let action = creates(&w, AUDIENCE, None);
    w.says(ClientMessage::Action(ActionSeq::FIRST, action));
    assert_eq!(w.submitted.len(), 1);
}
