//! How a client connects, authenticates, notices that it is alone, and comes back: C1 to C11, G1r.

use choir_core::client::{Credentials, Event, Input, Lost, Notice, State, SubscribeOptions, Token};
use choir_protocol::error::{ErrorCode, close};
use choir_protocol::ids::LogId;
use choir_protocol::message::{AuthMethod, ClientMessage, Drain, ServerHeartbeat, ServerMessage};
use choir_protocol::sign::auth_text;

use crate::support::*;

fn wanted_credentials(w: &mut World) -> bool {
    w.events()
        .iter()
        .any(|event| matches!(event, Event::CredentialsWanted { .. }))
}

fn ended_with(w: &World) -> Option<&'static str> {
    w.events.iter().rev().find_map(|event| match event {
        Event::Error { error, .. } => Some(error.code.as_str()),
        _ => None,
    })
}

#[test]
fn section_4_the_states_are_walked_through_by_their_names() {
    let mut w = World::new();
    let mut names = vec![w.state().name()];
    w.opens();
    names.push(w.state().name());
    w.subscribes(SubscribeOptions::default());
    w.answers_subscribe(0, 0);
    names.push(w.state().name());
    w.loses(None);
    names.push(w.state().name());
    w.loses(Some(close::SUPERSEDED));
    w.machine.close(w.now);
    names.push(w.state().name());
    assert_eq!(
        names,
        [
            "connecting",
            "authenticated",
            "subscribed",
            "reconnecting",
            "disconnected"
        ]
    );
}

#[test]
fn c4_the_signature_is_over_the_dialled_audience_whatever_the_server_says() {
    let mut w = World::new();
    w.greets();
    let sent = w.sent();
    let [auth] = &sent[..] else {
        panic!("one message, got {sent:?}")
    };
    let ClientMessage::Auth(auth) = &auth.message else {
        panic!("control.auth, got {auth:?}")
    };
    let text = auth_text(
        &audience(),
        w.hello.connection_id,
        &w.hello.challenge,
        &"test".parse().unwrap(),
        "key",
    );
    assert!(choir_protocol::key::verify(
        &auth.public_key,
        text.as_bytes(),
        &auth.signature
    ));
    assert_eq!(auth.method, AuthMethod::Key);
    assert_eq!(auth.session_token, None);
}

#[test]
fn c4_another_users_session_is_not_taken() {
    let mut w = World::new();
    w.greets();
    w.says(ServerMessage::Session(choir_protocol::message::Session {
        user_id: user(2),
        client_id: "test".parse().unwrap(),
        session_id: choir_protocol::ids::SessionId::v7(1, [0; 10]),
        session_token: None,
        expires_at: None,
        resumed: false,
        server_time: w.now.wall,
    }));
    assert_eq!(w.state(), State::Disconnected);
    assert_eq!(ended_with(&w), Some("authentication_failed"));
}

#[test]
fn c5_a_session_is_resumed_by_its_token() {
    let mut w = World::live();
    w.loses_and_redials();
    w.greets();
    let sent = w.sent();
    assert!(
        matches!(&sent.last().unwrap().message, ClientMessage::Auth(auth) if auth.session_token.as_deref() == Some("token 1"))
    );
}

#[test]
fn c6_a_refused_key_ends_at_once() {
    let mut w = World::new();
    w.greets();
    let auth = w.sent().pop().unwrap().id;
    w.says_of(
        None,
        Some(auth),
        ServerMessage::ConnectionError(error(ErrorCode::AuthenticationFailed).with_cause("signature")),
    );
    assert_eq!(w.state(), State::Disconnected);
    assert_eq!(w.closes, [close::NORMAL]);
    assert_eq!(ended_with(&w), Some("authentication_failed"));
}

#[test]
fn c7_a_superseded_client_stays_away() {
    for by_close_code in [false, true] {
        let mut w = World::live();
        if by_close_code {
            w.loses(Some(close::SUPERSEDED));
        } else {
            w.says(ServerMessage::ConnectionError(error(ErrorCode::Superseded)));
        }
        assert_eq!(w.state(), State::Disconnected);
        assert_eq!(ended_with(&w), Some("superseded"));
        w.pass(600_000);
        assert_eq!(w.connects, 1);
        assert_eq!(w.machine.wake_at(), None);
    }
}

#[test]
fn c8_a_token_that_expires_is_renewed_on_the_same_connection() {
    let mut w = World::with_token();
    w.opens();
    w.sent();
    w.says(ServerMessage::ConnectionError(error(ErrorCode::TokenExpiring)));
    assert!(wanted_credentials(&mut w));
    let fresh = Credentials {
        key: key(1).into(),
        token: Some(Token("d.e.f".to_owned())),
    };
    w.machine.credentials(w.now, fresh);
    w.collect();
    let sent = w.sent();
    assert!(
        matches!(&sent[..], [auth] if matches!(&auth.message, ClientMessage::Auth(auth) if auth.token.as_deref() == Some("d.e.f")))
    );
    w.grants(true);
    assert!(w.state().is_authenticated());
    assert_eq!(w.connects, 1);
}

#[test]
fn c9_silence_is_answered_by_a_heartbeat_and_then_by_another_connection() {
    let mut w = World::live();
    w.sent();
    w.pass(29_999);
    assert!(w.sent().is_empty());
    w.pass(1);
    assert!(matches!(
        w.sent()[..],
        [choir_protocol::message::FromClient {
            message: ClientMessage::Heartbeat,
            ..
        }]
    ));
    w.pass(4_999);
    assert!(w.closes.is_empty());
    w.pass(1);
    assert_eq!(w.closes, [close::HEARTBEAT]);
    assert_eq!(w.state().name(), "reconnecting");
}

#[test]
fn c9_anything_received_counts_as_the_answer() {
    for by_ping in [false, true] {
        let mut w = World::live();
        w.pass(30_000);
        w.pass(40);
        if by_ping {
            w.input(Input::Traffic);
        } else {
            w.says(ServerMessage::Heartbeat(ServerHeartbeat {
                server_time: w.now.wall,
            }));
        }
        assert_eq!(w.machine.latency_ms(), Some(40));
        w.pass(29_999);
        assert!(w.state().is_authenticated());
    }
}

#[test]
fn c9_traffic_puts_the_heartbeat_off() {
    let mut w = World::live();
    w.sent();
    for _ in 0..10 {
        w.pass(20_000);
        w.input(Input::Traffic);
    }
    assert!(w.sent().is_empty());
}

#[test]
fn c10_after_a_drain_the_client_comes_back_when_it_was_asked_to() {
    let mut w = World::live();
    w.says(ServerMessage::Drain(Drain { retry_after_ms: 12_000 }));
    w.sent();
    // What is handed over now is for the next connection.
    let a = w.acts(thread(1), "a");
    assert!(w.sent().is_empty());
    w.loses(Some(close::RESTART));
    w.pass(11_999);
    assert_eq!(w.connects, 1);
    w.pass(1);
    assert_eq!(w.connects, 2);
    w.resumes();
    assert_eq!(w.sent_actions(), [(1, a)]);
}

#[test]
fn c11_every_wait_is_below_its_bound_and_the_count_goes_on() {
    let mut w = World::live();
    for attempt in 0..10_u32 {
        w.loses(None);
        let State::Reconnecting {
            attempt: counted,
            retry_in_ms: Some(wait),
        } = w.state()
        else {
            panic!("reconnecting, not {:?}", w.state());
        };
        assert_eq!(counted, attempt + 1);
        assert!(wait <= (500_u64 << attempt).min(30_000), "{attempt}: {wait}");
        w.redials();
    }
}

#[test]
fn a_state_is_told_once() {
    let mut w = World::live();
    w.loses(None);
    w.events();
    w.machine
        .act(w.now, thread(1), "action.submit_message", message("a"))
        .unwrap();
    w.input(Input::Time);
    let told = w.events();
    assert!(!told.iter().any(|event| matches!(event, Event::State(_))), "{told:?}");
}

#[test]
fn c11_the_count_starts_anew_after_10_s_authenticated() {
    let mut w = World::live();
    for _ in 0..6 {
        w.loses_and_redials();
    }
    w.opens();
    w.pass(9_999);
    w.loses_and_redials();
    assert!(matches!(w.state(), State::Reconnecting { attempt: 7, .. }));
    w.opens();
    w.pass(10_000);
    w.loses_and_redials();
    assert!(matches!(w.state(), State::Reconnecting { attempt: 1, .. }));
}

#[test]
fn c11_some_close_codes_end_and_all_others_reconnect() {
    for (code, error) in [
        (close::INVALID_MESSAGE, "invalid_message"),
        (close::DENIED, "authentication_failed"),
        (close::SUPERSEDED, "superseded"),
        (close::UPGRADE_REQUIRED, "connection_lost"),
    ] {
        let mut w = World::live();
        w.loses(Some(code));
        assert_eq!(w.state(), State::Disconnected, "{code}");
        assert_eq!(ended_with(&w), Some(error), "{code}");
    }
    for code in [
        close::NORMAL,
        close::PROTOCOL_ERROR,
        close::NOT_UTF8,
        close::TOO_LARGE,
        close::RESTART,
        close::HEARTBEAT,
        close::RATE_LIMITED,
        close::INTERNAL,
        4_999,
    ] {
        let mut w = World::live();
        w.loses(Some(code));
        assert_eq!(w.state().name(), "reconnecting", "{code}");
        let own_fault = w
            .events()
            .contains(&Event::Notice(Notice::OwnFault { close_code: code }));
        assert_eq!(own_fault, matches!(code, 1002 | 1007), "{code}");
    }
}

#[test]
fn c11_at_4401_new_credentials_are_asked_for_once() {
    let mut w = World::with_token();
    w.opens();
    w.loses(Some(close::AUTHENTICATION));
    assert!(wanted_credentials(&mut w));
    w.pass(3_600_000);
    assert_eq!(w.connects, 1, "it waits for them");
    let fresh = Credentials {
        key: key(1).into(),
        token: Some(Token("d.e.f".to_owned())),
    };
    w.machine.credentials(w.now, fresh);
    w.collect();
    assert_eq!(w.connects, 2);
    w.greets();
    w.loses(Some(close::AUTHENTICATION));
    assert_eq!(w.state(), State::Disconnected);
    assert!(!wanted_credentials(&mut w));
}

#[test]
fn c11_a_session_between_two_4401_makes_the_second_a_first() {
    let mut w = World::with_token();
    for n in 1..4 {
        w.opens();
        w.loses(Some(close::AUTHENTICATION));
        assert!(wanted_credentials(&mut w));
        let fresh = Credentials {
            key: key(1).into(),
            token: Some(Token(format!("{n}.e.f"))),
        };
        w.machine.credentials(w.now, fresh);
        w.collect();
    }
    w.opens();
    assert!(w.state().is_authenticated());
}

#[test]
fn c11_who_has_no_other_credentials_is_at_the_end() {
    let mut w = World::with_token();
    w.greets();
    w.loses(Some(close::AUTHENTICATION));
    w.machine.no_credentials(w.now);
    w.collect();
    assert_eq!(w.state(), State::Disconnected);

    // Who is their key tries once more by themselves: it may have been a slow network.
    let mut w = World::new();
    w.greets();
    w.loses(Some(close::AUTHENTICATION));
    w.redials();
    w.greets();
    w.loses(Some(close::AUTHENTICATION));
    assert_eq!(w.state(), State::Disconnected);
}

#[test]
fn section_12_the_client_waits_as_long_as_a_limit_says() {
    let mut w = World::new();
    w.greets();
    w.says(ServerMessage::ConnectionError(
        error(ErrorCode::Limit).with_retry_after(45_000),
    ));
    w.loses(Some(close::RATE_LIMITED));
    w.pass(44_999);
    assert_eq!(w.connects, 1);
    w.pass(1);
    assert_eq!(w.connects, 2);
}

#[test]
fn an_http_answer_may_name_the_wait_too() {
    let mut w = World::new();
    w.input(Input::ConnectionLost(Lost {
        close_code: None,
        retry_after_ms: Some(5_000),
        reason: "429".to_owned(),
    }));
    w.pass(4_999);
    assert_eq!(w.connects, 1);
    w.pass(1);
    assert_eq!(w.connects, 2);
}

#[test]
fn a_connection_that_doesnt_begin_in_time_is_dropped() {
    let mut w = World::new();
    w.pass(19_999);
    assert!(w.closes.is_empty());
    w.pass(1);
    assert_eq!(w.closes, [close::NORMAL]);
    w.redials();
    w.greets();
    w.pass(20_000);
    assert_eq!(w.closes.len(), 2);
}

#[test]
fn a_client_may_give_up_after_a_time() {
    let mut w = World::with(|config| config.give_up_after_ms = Some(60_000));
    w.opens();
    let a = w.acts(thread(1), "a");
    w.loses(None);
    w.pass(59_999);
    assert_ne!(w.state(), State::Disconnected);
    w.pass(1);
    assert_eq!(w.state(), State::Disconnected);
    assert_eq!(w.answers(), [(a, "connection_lost")]);
}

#[test]
fn g1r_another_log_id_ends_the_session_and_subscribes_with_cursors() {
    let log = Log::new(&[]);
    let mut w = World::live();
    w.follows(&log, 1);
    let a = w.acts(thread(1), "a");
    w.receipt(thread(1), a, 2);
    let b = w.acts(thread(1), "b");
    w.loses_and_redials();
    w.hello.log_id = LogId::v7(START, [8; 10]);
    w.sent();
    w.greets();
    assert!(matches!(&w.sent.last().unwrap().message, ClientMessage::Auth(auth) if auth.session_token.is_none()));
    // Even a server that says that it resumes has forgotten the numbers.
    w.grants(true);
    assert_eq!(w.sent_subscribes(), [Some(log.cursor(1))]);
    assert_eq!(w.sent_actions(), [(1, b)]);
    assert!(
        w.events()
            .iter()
            .any(|event| matches!(event, Event::Notice(Notice::LogReplaced { .. })))
    );
}

#[test]
fn k6_another_server_key_is_told() {
    let mut w = World::live();
    w.loses_and_redials();
    w.hello.server.key = key(201).public();
    w.opens();
    assert!(
        w.events()
            .iter()
            .any(|event| matches!(event, Event::Notice(Notice::ServerKeyChanged { .. })))
    );
}

#[test]
fn e3_what_a_later_version_says_is_ignored_and_what_is_no_message_is_told() {
    let mut w = World::live();
    w.events();
    w.says(ServerMessage::Unknown("control.dance".to_owned()));
    assert_eq!(w.events(), []);
    w.input(Input::Text("{}"));
    w.input(Input::Text("nonsense"));
    assert_eq!(
        w.events()
            .iter()
            .filter(|event| matches!(event, Event::Notice(Notice::BadMessage { .. })))
            .count(),
        2
    );
    assert!(w.state().is_authenticated());
}

#[test]
fn a_server_of_another_protocol_is_left() {
    let mut w = World::new();
    w.hello.protocol = "choir.v9".to_owned();
    w.greets();
    assert_eq!(w.state(), State::Disconnected);
    let mut w = World::new();
    w.hello.auth = vec![AuthMethod::Token];
    w.greets();
    assert_eq!(ended_with(&w), Some("authentication_failed"));
}

#[test]
fn what_comes_of_an_old_connection_is_dropped() {
    let mut w = World::live();
    w.loses(None);
    w.events();
    w.says(ServerMessage::ConnectionError(error(ErrorCode::Superseded)));
    w.loses(Some(close::SUPERSEDED));
    assert_eq!(w.state().name(), "reconnecting");
}
