//! What is signed at authentication (C4) and with every action (K1), and signatures that hold for
//! these texts or don't.

use choir_protocol::canonical::Canonical;
use choir_protocol::hash::Hash;
use choir_protocol::ids::{Audience, ClientId, ConnectionId, Cursor, Seq, Timestamp, UserId};
use choir_protocol::json::{self, Object, Value};
use choir_protocol::key::verify;
use choir_protocol::object;
use choir_protocol::sign::{ActionText, action_text, auth_text};

use super::log::{SALT, home, id, secret, thread_id};
use super::{Case, hex};

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = auth();
    cases.extend(actions());
    cases
}

/// What `control.auth` signs.
#[derive(Clone)]
struct Auth {
    audience: Audience,
    connection_id: ConnectionId,
    challenge: &'static str,
    client_id: ClientId,
    method: &'static str,
}

fn auth() -> Vec<Case> {
    let one = Auth {
        audience: home(),
        connection_id: ConnectionId::from_bytes(*id(1).as_bytes()),
        challenge: "rDL2UP41KBQ-HUXX9YTMuS-hROOYPGkfC1WlGW-gu1I",
        client_id: "tab-1".parse().unwrap(),
        method: "key",
    };
    let another = |change: fn(&mut Auth)| {
        let mut auth = one.clone();
        change(&mut auth);
        auth
    };
    let mut cases = vec![];
    let mut case = |name: &str, auth: &Auth, made_for: &Auth, key: u8| {
        let signature = secret(1).sign(made_for.text().as_bytes());
        let (is_own, key) = (key == 1, secret(key).public());
        let input = object! {
            "audience": auth.audience.to_string(),
            "connection_id": auth.connection_id.to_string(),
            "challenge": auth.challenge,
            "client_id": auth.client_id.to_string(),
            "method": auth.method,
            "public_key": key.to_string(),
            "signature": signature.to_string(),
            "seed"?: (is_own && auth.text() == made_for.text()).then(|| hex(&[1; 32])),
        };
        let out = object! {
            "text": auth.text(),
            "valid": verify(&key, auth.text().as_bytes(), &signature),
        };
        cases.push(Case::new(format!("auth: {name}"), &["C4", "K2"], input, out));
    };
    case("by a key", &one, &one, 1);
    for (name, change) in [
        ("by a token", (|auth| auth.method = "token") as fn(&mut Auth)),
        ("a port in the audience", |auth| {
            auth.audience = "https://choir.example:8443".parse().unwrap()
        }),
        ("in the clear on loopback", |auth| {
            auth.audience = "http://127.0.0.1:8080".parse().unwrap()
        }),
        ("IPv6", |auth| auth.audience = "http://[::1]".parse().unwrap()),
        ("a client id of all characters that it may have", |auth| {
            auth.client_id = "Az09._-".parse().unwrap()
        }),
    ] {
        let changed = another(change);
        case(name, &changed, &changed, 1);
    }
    for (name, change) in [
        (
            "another audience",
            (|auth| auth.audience = "https://choir.example.evil".parse().unwrap()) as fn(&mut Auth),
        ),
        ("the same host in the clear", |auth| {
            auth.audience = "http://choir.example".parse().unwrap()
        }),
        ("another connection", |auth| {
            auth.connection_id = ConnectionId::from_bytes([0; 16])
        }),
        ("another challenge", |auth| {
            auth.challenge = "qSow4b_MzVxKvphv2j9wrKpqyy1kUN-xVG5rjYb9eUw"
        }),
        ("another client", |auth| auth.client_id = "tab-2".parse().unwrap()),
        ("another method", |auth| auth.method = "token"),
    ] {
        case(&format!("bad: made for {name}"), &one, &another(change), 1);
    }
    case("bad: another key", &one, &one, 2);
    cases
}

impl Auth {
    fn text(&self) -> String {
        auth_text(
            &self.audience,
            self.connection_id,
            self.challenge,
            &self.client_id,
            self.method,
        )
    }
}

/// What an action signs.
#[derive(Clone)]
struct Action {
    audience: Audience,
    user_id: UserId,
    digits: u8,
    action_type: &'static str,
    timestamp: u64,
    seen: Option<Cursor>,
    /// As text, so that its spelling can differ.
    payload: String,
}

impl Action {
    fn payload_hash(&self) -> Hash {
        Canonical::of(&json::parse(&self.payload).unwrap()).hash()
    }

    fn text(&self) -> String {
        action_text(&ActionText {
            audience: &self.audience,
            user_id: &self.user_id,
            id: id(self.digits),
            action_type: self.action_type,
            thread_id: thread_id(),
            timestamp: Timestamp::new(self.timestamp).unwrap(),
            seen: self.seen,
            payload_hash: &self.payload_hash(),
        })
    }

    fn input(&self) -> Object {
        let seen = self.seen.map(|Cursor { seq, root }| {
            Value::Array(vec![json::Number::saturating(seq.get()).into(), root.to_hex().into()])
        });
        object! {
            "audience": self.audience.to_string(),
            "user_id": self.user_id.to_string(),
            "id": id(self.digits).to_string(),
            "type": self.action_type,
            "thread_id": thread_id().to_string(),
            "timestamp": json::Number::saturating(self.timestamp),
            "seen"?: seen,
            "payload": self.payload.as_str(),
        }
    }
}

fn actions() -> Vec<Case> {
    let one = Action {
        audience: home(),
        user_id: UserId::of_key(&secret(1).public()),
        digits: 0x21,
        action_type: "action.submit_message",
        timestamp: 1_764_000_000_000,
        seen: Some(Cursor {
            seq: Seq::new(41).unwrap(),
            root: Hash::of(b"41"),
        }),
        payload: format!(r#"{{"content":"hello","salt":"{SALT}"}}"#),
    };
    let another = |change: fn(&mut Action)| {
        let mut action = one.clone();
        change(&mut action);
        action
    };
    let mut cases = vec![];
    let mut case = |name: &str, action: &Action, made_for: &Action, key: u8| {
        let signature = secret(1).sign(made_for.text().as_bytes());
        let (is_own, key) = (key == 1, secret(key).public());
        let mut input = action.input();
        input.insert("public_key", key.to_string());
        input.insert("sig", signature.to_string());
        if is_own && action.text() == made_for.text() {
            input.insert("seed", hex(&[1; 32]));
        }
        let out = object! {
            "payload_hash": action.payload_hash().to_hex(),
            "text": action.text(),
            "valid": verify(&key, action.text().as_bytes(), &signature),
        };
        cases.push(Case::new(
            format!("action: {name}"),
            &["E3", "K1", "K2", "K4"],
            input,
            out,
        ));
    };
    case("with seen", &one, &one, 1);
    for (name, change) in [
        (
            "without seen: its line is empty",
            (|action| action.seen = None) as fn(&mut Action),
        ),
        ("seen of 0", |action| action.seen = Some(Cursor::START)),
        ("a user of an issuer", |action| {
            action.user_id = "people:anna b:ç".parse().unwrap()
        }),
        ("an empty payload", |action| {
            action.action_type = "action.join";
            action.payload = "{}".to_owned();
        }),
        ("unknown fields are signed, null ones too", |action| {
            action.payload = format!(r#"{{"z":null,"salt":"{SALT}","content":[1e3,0.1,{{"b":1,"a":-0}}],"€":true}}"#);
        }),
        ("at time 0", |action| action.timestamp = 0),
        ("at the last time", |action| action.timestamp = 9_007_199_254_740_991),
    ] {
        let changed = another(change);
        case(name, &changed, &changed, 1);
    }
    let spelt = another(|action| {
        action.payload = format!("{{ \"salt\": \"{SALT}\",\n \"content\": \"h\\u0065llo\" }}");
    });
    case("the payload in another spelling", &spelt, &one, 1);
    for (name, change) in [
        (
            "another audience",
            (|action| action.audience = "https://other.example".parse().unwrap()) as fn(&mut Action),
        ),
        ("another user", |action| action.user_id = "people:anna".parse().unwrap()),
        ("another id", |action| action.digits = 0x22),
        ("another type", |action| action.action_type = "action.edit_message"),
        ("another time", |action| action.timestamp += 1),
        ("another seen", |action| action.seen = Some(Cursor::START)),
        ("no seen", |action| action.seen = None),
        ("one byte of the payload changed", |action| {
            action.payload = action.payload.replace("hello", "hallo")
        }),
        ("a field of the payload left out", |action| {
            action.payload = format!(r#"{{"content":"hello","salt":"{SALT}","x":1}}"#);
        }),
    ] {
        case(&format!("bad: made for {name}"), &one, &another(change), 1);
    }
    case("bad: another key", &one, &one, 2);
    cases
}
