//! The shapes that types have on the wire: one spelling each, and no way in but the strict door.
#![allow(clippy::unwrap_used, reason = "what can't be unwrapped fails the test")]

use choir_protocol::action::{Action, NewMember, PayloadError, SubmitMessage};
use choir_protocol::de::from_value;
use choir_protocol::entry::Entry;
use choir_protocol::error::ErrorCode;
use choir_protocol::ids::{ActionSeq, Cursor};
use choir_protocol::json::{self, Value};
use choir_protocol::message::{FromClient, FromServer, Hello, ServerMessage, Subscribed, SubscribedThread};
use choir_protocol::object;
use serde::de::DeserializeOwned;

fn read<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    from_value(&json::parse(text).unwrap()).map_err(|error| error.to_string())
}

#[test]
fn e1_content_comes_in_by_the_strict_door_alone() {
    let text = r#"{"content":{"a":[1,null,"x"]},"salt":"MmG0qPvlS0fAEJscxxqctQ"}"#;
    let by_the_door: SubmitMessage = read(text).unwrap();
    assert_eq!(by_the_door.content, json::parse(r#"{"a":[1,null,"x"]}"#).unwrap());
    assert!(serde_json::from_str::<SubmitMessage>(text).is_err());
    for text in ["null", "1", "\"x\"", "[]", "{}", "[[1]]"] {
        assert!(serde_json::from_str::<Value>(text).is_err(), "{text}");
        let value = json::parse(text).unwrap();
        assert_eq!(from_value::<Value>(&value), Ok(value));
    }
    let lax: serde_json::Value = serde_json::from_str("{\"a\":1}").unwrap();
    assert!(serde_json::from_value::<Value>(lax).is_err());
}

#[test]
fn e4_an_object_is_no_array_of_its_fields() {
    let root = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    assert_eq!(
        read::<Cursor>(&format!(r#"{{"seq":0,"root":"{root}"}}"#)),
        Ok(Cursor::START)
    );
    assert_eq!(
        read::<Cursor>(&format!(r#"[0,"{root}"]"#)),
        Err("expected an object".to_owned())
    );
    assert!(read::<NewMember>(r#"["people:anna","reader",true]"#).is_err());
    assert!(read::<Entry>("[]").is_err());
}

#[test]
fn e4_null_is_no_absent_field() {
    let row = |role: &str| {
        format!(r#"{{"seq":1,"head":2,{role}"streams":["updates"],"mode":"full","messages":1,"marked":0}}"#)
    };
    let thread: SubscribedThread = read(&row("")).unwrap();
    assert_eq!(read(&row("")), Ok(Subscribed::Thread(thread)));
    assert!(read::<Subscribed>(&row(r#""role":null,"#)).is_err());
    assert!(read::<NewMember>(r#"{"user_id":"a:b","role":"reader","agent":null}"#).is_err());
}

#[test]
fn y4_the_end_of_all_says_all() {
    let end = Subscribed::All { all: true, threads: 3 };
    assert_eq!(read(r#"{"all":true,"threads":3}"#), Ok(end));
    for wrong in [
        r#"{"all":false,"threads":3}"#,
        r#"{"all":true}"#,
        r#"{"all":true,"threads":[]}"#,
        r#"{"threads":3}"#,
        "{}",
    ] {
        assert!(read::<Subscribed>(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn c1_a_challenge_is_one_line_of_32_bytes() {
    let hello = |challenge: &str| {
        let challenge = choir_protocol::canonical::to_string(&challenge.into());
        read::<Hello>(&format!(
            r#"{{"protocol":"choir.v1","server":{{"name":"choir","version":"0.1.0","key":"IEi5-7jdORrezwE0GPZ0ofeQXkDs_sMjoVMArYZ7RiQ"}},
            "log_id":"01930000-0000-7000-8000-000000000001","connection_id":"01930000-0000-7000-8000-000000000002","challenge":{challenge},
            "auth":["key"],"heartbeat":{{"interval_ms":30000,"timeout_ms":5000}},"limits":{{"max_message_bytes":1,"max_content_bytes":1,
            "max_clients":1,"max_subscriptions":1,"max_in_flight":1,"max_replay":1,"max_actions_per_second":1,"max_requests_per_second":1}}}}"#
        ))
    };
    assert!(hello("rDL2UP41KBQ-HUXX9YTMuS-hROOYPGkfC1WlGW-gu1I").is_ok());
    for wrong in [
        "",
        "x",
        "rDL2UP41KBQ-HUXX9YTMuS-hROOYPGkfC1WlGW-gu1I\nother-client\nkey",
        "rDL2UP41KBQ-HUXX9YTMuS-hROOYPGkfC1WlGW-gu1J",
    ] {
        assert!(hello(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn l1_a_later_versions_action_may_carry_what_is_reserved() {
    let payload = object! { "attachments": Value::Array(vec![]) };
    assert_eq!(Action::read("action.react", &payload), Err(PayloadError::UnknownType));
    assert_eq!(
        Action::read("action.join", &payload),
        Err(PayloadError::Reserved("attachments"))
    );
}

/// An envelope with these fields at its end.
fn envelope(type_name: &str, rest: &str) -> String {
    format!(
        r#"{{"id":"01930000-0000-7000-8000-000000000001","type":"{type_name}","thread_id":"01930000-0000-7000-8000-000000000002"{rest}}}"#
    )
}

#[test]
fn a3_a_bad_action_names_its_number_where_that_could_be_read() {
    let number = |type_name: &str, rest: &str| {
        let bad = FromClient::read(&envelope(type_name, rest)).unwrap_err();
        assert!(bad.id.is_some() && bad.thread_id.is_some(), "{rest}");
        bad.seq.map(ActionSeq::get)
    };
    let join = |rest| number("action.join", rest);
    assert_eq!(join(r#","seq":7"#), Some(7));
    assert_eq!(join(r#","seq":7,"timestamp":1"#), Some(7));
    assert_eq!(join(r#","seq":7,"timestamp":1,"payload":[]"#), Some(7));
    assert_eq!(join(r#","seq":7,"timestamp":1,"payload":{},"seen":0"#), Some(7));
    assert_eq!(join(r#","seq":0,"timestamp":1,"payload":{}"#), None);
    assert_eq!(join(r#","seq":"7","timestamp":1,"payload":{}"#), None);
    assert_eq!(number("control.mark", r#","seq":7"#), None);
    // They are counted by nobody (A2).
    assert_eq!(number("action.user_action", r#","seq":7"#), None);
    assert_eq!(number("action.stream", r#","seq":7"#), None);
}

#[test]
fn e3_an_unknown_types_name_is_written_as_text() {
    let text = envelope(r#"event.\"new\\"#, r#","timestamp":1,"payload":{}"#);
    let message = FromServer::read(&text).unwrap();
    assert_eq!(message.message, ServerMessage::Unknown(r#"event."new\"#.to_owned()));
    assert_eq!(FromServer::read(&message.to_text()), Ok(message));
}

#[test]
fn e4_servers_types_are_unknown_from_a_client() {
    let bad = FromClient::read(&envelope("control.hello", r#","timestamp":1,"payload":{}"#));
    assert_eq!(bad.unwrap_err().code, ErrorCode::UnknownType);
}
