//! Messages as they travel (sections 3, 4, 7, 9, 10, 11): the vectors, and properties of every type.
#![allow(clippy::unwrap_used, reason = "what can't be unwrapped fails the test")]

use choir_protocol::canonical::to_string;
use choir_protocol::error::ErrorCode;
use choir_protocol::json::{self, Number, Object, Value};
use choir_protocol::message::{BadMessage, FromClient, FromServer, PostedAction, ServerMessage};
use choir_protocol::object;
use proptest::prelude::*;

mod cases;
mod making;

use cases::{cases, text};
use making::messages::{Field, From, Type, change, every, types};

/// What came of a text.
#[derive(Debug, PartialEq)]
enum Read {
    /// Written again, in canonical form.
    Ok(String),
    Unknown(String),
    Bad(BadMessage),
}

fn canonical(text: &str) -> String {
    to_string(&json::parse_to_depth(text, 64).unwrap())
}

/// Reads a text, and what is written of it: both are the same message.
fn read(from: From, text: &str) -> Read {
    let again = match from {
        From::Client => FromClient::read(text).map(|message| {
            let written = message.to_text();
            assert_eq!(FromClient::read(&written), Ok(message), "{text}");
            written
        }),
        From::Server => FromServer::read(text).map(|message| {
            let written = message.to_text();
            assert_eq!(FromServer::read(&written), Ok(message), "{text}");
            written
        }),
        From::Http => PostedAction::read(text).map(|message| {
            let written = posted(&message);
            assert_eq!(PostedAction::read(&written), Ok(message), "{text}");
            written
        }),
    };
    match again {
        Ok(written) => match FromServer::read(text).map(|message| message.message) {
            Ok(ServerMessage::Unknown(name)) if from == From::Server => Read::Unknown(name),
            _ => Read::Ok(canonical(&written)),
        },
        Err(bad) => Read::Bad(bad),
    }
}

/// An action as a client posts it.
fn posted(message: &PostedAction) -> String {
    let action = &message.action;
    let seen = action.seen.map(|cursor| {
        Value::Array(vec![
            Number::saturating(cursor.seq.get()).into(),
            cursor.root.to_hex().into(),
        ])
    });
    to_string(
        &object! {
            "id": action.id.to_string(),
            "type": action.action.type_name(),
            "payload": action.payload.to_value().unwrap(),
            "timestamp": Number::saturating(action.timestamp.get()),
            "thread_id": action.thread_id.to_string(),
            "seen"?: seen,
            "key": message.key.to_string(),
            "audience": message.audience.to_string(),
            "sig": action.sig.to_string(),
        }
        .into(),
    )
}

fn sender(input: &Object) -> From {
    match text(input, "from") {
        "client" => From::Client,
        "server" => From::Server,
        "http" => From::Http,
        other => panic!("{other}"),
    }
}

#[test]
fn e4_every_message_is_taken_or_refused_as_it_must() {
    let (mut taken, mut refused) = (0, 0);
    for case in every() {
        let read = read(sender(&case.input), text(&case.input, "text"));
        let out = |name| case.output.get(name).and_then(Value::as_str);
        match read {
            Read::Ok(canonical) => {
                assert_eq!(out("ok"), Some(canonical.as_str()), "{}", case.name);
                taken += 1;
            }
            Read::Unknown(name) => assert_eq!(out("unknown"), Some(name.as_str())),
            Read::Bad(bad) => {
                assert_eq!(out("code"), Some(bad.code.as_str()), "{}: {bad}", case.name);
                let (id, thread) = (bad.id.map(|id| id.to_string()), bad.thread_id.map(|id| id.to_string()));
                assert_eq!(out("id"), id.as_deref(), "{}", case.name);
                assert_eq!(out("thread_id"), thread.as_deref(), "{}", case.name);
                let seq = case.output.get("seq").and_then(Value::as_unsigned);
                assert_eq!(seq, bad.seq.map(|seq| seq.get()), "{}", case.name);
                refused += 1;
            }
        }
    }
    assert!(taken > 140 && refused > 900, "{taken} and {refused}");
}

#[test]
fn e4_the_committed_messages_are_some_of_those() {
    let every: Vec<(String, Object, Object)> = every()
        .into_iter()
        .map(|case| (case.name, case.input, case.output))
        .collect();
    for case in cases("messages.json") {
        let case = (case.name, case.input, case.output);
        assert!(every.contains(&case), "{}", case.0);
    }
}

/// The names of section 3's table are compared with the document in another test.
#[test]
fn e4_the_vectors_hold_every_type_in_each_direction() {
    let of = |from| types().into_iter().filter(move |t| t.from == from);
    let mut client: Vec<&str> = of(From::Client).map(|t| t.name).collect();
    client.sort_unstable();
    client.dedup();
    assert_eq!(client.len(), 11 + 13);
    let mut server: Vec<&str> = of(From::Server).map(|t| t.name).collect();
    server.sort_unstable();
    server.dedup();
    assert_eq!(server.len(), 13 + 3 + 5 + 2);
    assert_eq!(of(From::Http).count(), 11);
}

// ------------------------------------------------------------------------------------------------------------------------------------------- properties

fn any_text() -> BoxedStrategy<String> {
    prop_oneof!["[ -~]{0,12}", "\\PC{0,6}", Just("\u{0}\u{ffff}😀\"\\\n".to_owned())].boxed()
}

fn base64(bytes: usize) -> BoxedStrategy<Value> {
    prop::collection::vec(any::<u8>(), bytes)
        .prop_map(|bytes| choir_protocol::encoding::base64url_encode(&bytes).into())
        .boxed()
}

fn integer(from: u64, to: u64) -> BoxedStrategy<Value> {
    prop_oneof![Just(from), Just(to), from..=to]
        .prop_map(|n| Number::saturating(n).into())
        .boxed()
}

fn any_json() -> BoxedStrategy<Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i32>().prop_map(|n| Value::Number(n.into())),
        (-1e15..1e15).prop_map(|n| Value::Number(Number::try_from(n).unwrap())),
        any_text().prop_map(Value::String),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        let members = prop::collection::vec((any_text(), inner.clone()), 0..3);
        prop_oneof![
            prop::collection::vec(inner, 0..3).prop_map(Value::Array),
            members.prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
    .boxed()
}

const MAX: u64 = (1 << 53) - 1;

/// Any value of a field's sort; none for what the example keeps.
fn any_of(what: &'static str) -> Option<BoxedStrategy<Value>> {
    let one_of = |texts: Vec<&'static str>| prop::sample::select(texts).prop_map(Value::from).boxed();
    Some(match what {
        "int" => integer(0, MAX),
        "seq" => integer(1, MAX),
        "expires" => integer(60_000, 90 * 86_400_000),
        "bool" => any::<bool>().prop_map(Value::Bool).boxed(),
        "text" => any_text().prop_map(Value::String).boxed(),
        "json" => any_json(),
        "uuid" => any::<[u8; 16]>()
            .prop_map(|bytes| choir_protocol::ids::Id::from_bytes(bytes).to_string().into())
            .boxed(),
        "hash" => any::<[u8; 32]>()
            .prop_map(|bytes| choir_protocol::encoding::hex_encode(&bytes).into())
            .boxed(),
        "salt" => base64(16),
        "key" => base64(32),
        "sig" => base64(64),
        "client" => "[A-Za-z0-9._-]{1,64}".prop_map(Value::String).boxed(),
        "agent" => "[ -~]{0,128}".prop_map(Value::String).boxed(),
        "user" => "[a-z]{1,8}:\\PC{1,60}".prop_map(Value::String).boxed(),
        "origin" => one_of(vec!["https://a", "http://127.0.0.1:7400", "https://[::1]:1"]),
        "media" => one_of(vec!["text/plain", "application/vnd.x+json", "a/b; q=\"c\""]),
        "kind" => one_of(vec!["spec_revised", "approval_given", "member_joined"]),
        "approval" => prop_oneof![
            one_of(vec!["unanimous", "majority", "any"]),
            integer(1, MAX).prop_map(|k| object! { "at_least": k }.into()),
        ]
        .boxed(),
        "type" | "object" | "list" | "pair" | "triple" => return None,
        _ => {
            let words = what
                .strip_prefix("enum(")
                .or_else(|| what.strip_prefix("code("))
                .and_then(|what| what.strip_suffix(')'));
            one_of(words.unwrap().split('|').collect())
        }
    })
}

/// Any message of a type: the example with other values, and without some of what may be left out.
fn any_message(t: &Type) -> BoxedStrategy<Object> {
    let fields: Vec<(Field, Option<BoxedStrategy<Value>>)> = t
        .fields()
        .into_iter()
        .map(|field| {
            let values = any_of(field.what);
            (field, values)
        })
        .collect();
    let whole = Value::from(t.whole());
    let mut strategy = Just(whole).boxed();
    // The last first, so that a field goes after what is inside it.
    for (field, values) in fields.into_iter().rev() {
        let values = match values {
            Some(values) => prop::option::weighted(0.7, values).boxed(),
            None => Just(None).boxed(),
        };
        let goes = prop::bool::weighted(if field.may_go { 0.3 } else { 0.0 });
        strategy = (strategy, values, goes)
            .prop_map(move |(mut message, value, goes)| {
                if goes {
                    change(&mut message, &field.path, None);
                } else if value.is_some() {
                    change(&mut message, &field.path, value);
                }
                message
            })
            .boxed();
    }
    strategy.prop_map(|message| message.into_object().unwrap()).boxed()
}

fn any_message_of_any_type() -> BoxedStrategy<(From, &'static str, Object)> {
    let types = types().into_iter().map(|t| {
        let (from, name) = (t.from, t.name);
        any_message(&t).prop_map(move |message| (from, name, message)).boxed()
    });
    prop::strategy::Union::new(types).boxed()
}

const SECRET: &str = "a secret marker";

/// Puts the marker at one place of a value: instead of one, or as one more name.
fn marked(value: &Value, mut at: usize) -> Value {
    fn walk(value: &Value, at: &mut usize) -> Value {
        *at = at.wrapping_sub(1);
        if *at == usize::MAX {
            return SECRET.into();
        }
        match value {
            Value::Array(items) => Value::Array(items.iter().map(|item| walk(item, at)).collect()),
            Value::Object(object) => object
                .iter()
                .map(|(name, value)| {
                    let hit = *at == 0;
                    let value = walk(value, at);
                    (if hit { SECRET } else { name }, value)
                })
                .collect::<Object>()
                .into(),
            other => other.clone(),
        }
    }
    walk(value, &mut at)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_500))]

    #[test]
    fn e4_what_is_written_is_read_as_the_same_message((from, name, message) in any_message_of_any_type()) {
        let text = to_string(&message.into());
        prop_assert_eq!(read(from, &text), Read::Ok(text), "{}", name);
    }

    #[test]
    fn e4_errors_hold_none_of_the_payload((from, _, mut message) in any_message_of_any_type(), at in 0_usize..30) {
        let payload = message.remove("payload").unwrap();
        message.insert("payload", marked(&payload, at));
        let text = to_string(&message.into());
        if let Read::Bad(bad) = read(from, &text) {
            prop_assert!(!bad.to_string().contains("secret"), "{}", bad);
            prop_assert!(!format!("{bad:?}").contains("secret"), "{:?}", bad);
        }
    }

    #[test]
    fn e4_broken_texts_are_refused_without_showing_them(
        (from, _, mut message) in any_message_of_any_type(), cut in any::<prop::sample::Index>(), junk in any::<char>(),
    ) {
        message.insert("payload", object! { "content": SECRET });
        let mut text: Vec<char> = to_string(&message.into()).chars().collect();
        let at = cut.index(text.len());
        text[at] = junk;
        if let Read::Bad(bad) = read(from, &text.into_iter().collect::<String>()) {
            prop_assert!(!format!("{bad:?}").contains("secret"), "{:?}", bad);
        }
    }

    #[test]
    fn e3_unknown_fields_are_kept_in_signed_payloads_alone((from, _, message) in any_message_of_any_type(), value in any_json()) {
        let is_action = message.contains("sig");
        let plain = to_string(&message.clone().into());
        let mut more = message;
        let mut payload = more.remove("payload").and_then(Value::into_object).unwrap();
        payload.insert("\u{1F3B5} later", value.clone());
        more.insert("payload", payload);
        let expected = if is_action { to_string(&more.clone().into()) } else { plain };
        more.insert("later", value);
        prop_assert_eq!(read(from, &to_string(&more.into())), Read::Ok(expected));
    }

    #[test]
    fn e3_clients_take_types_that_they_do_not_know(name in "[a-z]{1,8}\\.x[a-z_]{1,20}", payload in any_json()) {
        let known = types().iter().any(|t| t.name == name);
        prop_assume!(!known);
        let envelope = object! {
            "id": making::messages::UUID, "type": name.as_str(), "timestamp": 0,
            "payload": object! { "x": payload },
        };
        let text = to_string(&envelope.into());
        prop_assert_eq!(read(From::Server, &text), Read::Unknown(name));
        let Read::Bad(bad) = read(From::Client, &text) else { panic!() };
        prop_assert_eq!(bad.code, ErrorCode::UnknownType);
    }
}

#[test]
fn y3_a_subscribe_names_at_most_1000_threads() {
    let subscribe = |count: usize| {
        let row = object! { "thread_id": making::messages::UUID };
        let threads = Value::Array(vec![row.into(); count]);
        let envelope = object! {
            "id": making::messages::UUID, "type": "control.subscribe", "timestamp": 0,
            "payload": object! { "threads": threads },
        };
        FromClient::read(&to_string(&envelope.into()))
    };
    assert!(subscribe(1_000).is_ok());
    assert_eq!(subscribe(1_001).unwrap_err().code, ErrorCode::InvalidMessage);
}

#[test]
fn k1_an_action_over_http_is_the_one_over_websocket() {
    for t in types().iter().filter(|t| t.from == From::Http) {
        let text = to_string(&t.whole().into());
        let posted = PostedAction::read(&text).unwrap();
        let mut message = t.whole();
        message.insert("seq", 7);
        let on_socket = FromClient::read(&to_string(&message.into())).unwrap();
        let choir_protocol::message::ClientMessage::Action(seq, action) = on_socket.message else {
            panic!("{}", t.name)
        };
        assert_eq!((seq.get(), action), (7, posted.action), "{}", t.name);
    }
}
