//! The independent vectors of evaluation (S7), receipts (K7) and ranges (L8).

use std::collections::BTreeMap;

use crate::world::{self, World, body, object};
use choir_core::receipt::verify;
use choir_core::view::{Streams, ViewHistory};
use choir_protocol::de::from_value;
use choir_protocol::ids::{Audience, Id, Seq, ThreadId, UserId};
use choir_protocol::json::{self, Object, Value};
use choir_protocol::merkle::Peaks;
use choir_protocol::range::{Range, RangeError};
use choir_protocol::thread::Role;

fn cases(file: &str) -> Vec<Object> {
    let path = format!("{}/../../vectors/independent/{file}.json", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).expect("the vectors");
    let cases = json::parse(&text).expect("JSON");
    let cases = cases
        .as_array()
        .expect("an array")
        .iter()
        .map(|case| case.as_object().expect("an object").clone());
    cases.collect()
}

fn field<'a>(object: &'a Object, name: &str) -> &'a Value {
    object.get(name).unwrap_or_else(|| panic!("no {name}"))
}

fn text<'a>(object: &'a Object, name: &str) -> &'a str {
    field(object, name)
        .as_str()
        .unwrap_or_else(|| panic!("{name} is no text"))
}

fn objects<'a>(object: &'a Object, name: &str) -> impl Iterator<Item = &'a Object> {
    field(object, name)
        .as_array()
        .expect("an array")
        .iter()
        .map(|value| value.as_object().expect("an object"))
}

#[test]
fn evaluation() {
    for case in cases("evaluation") {
        let (name, given, expected) = (text(&case, "name"), field(&case, "in"), field(&case, "out"));
        evaluates(name, given.as_object().expect("in"), expected.as_object().expect("out"));
    }
}

fn evaluates(name: &str, given: &Object, expected: &Object) {
    let mut w = World::new();
    let owner = text(given, "owner");
    let role = |role: &str| match role {
        "owner" => Role::Owner,
        "co_author" => Role::CoAuthor,
        _ => Role::Reader,
    };
    let mut settings = object("{}");
    for setting in ["policy", "visibility"] {
        if let Some(value) = given.get(setting) {
            settings.insert(setting, value.clone());
        }
    }
    let members = objects(given, "members").map(|member| {
        let mut row = object("{}");
        row.insert("user_id", world::user(text(member, "user")).to_string());
        row.insert("role", text(member, "role"));
        row.insert("agent", field(member, "agent").clone());
        Value::Object(row)
    });
    settings.insert("members", Value::Array(members.collect()));
    let first = objects(given, "steps")
        .next()
        .and_then(|step| field(step, "at").as_unsigned())
        .expect("a time");
    w.now = first - 1000;
    w.creates_with(owner, &Value::Object(settings).to_string()).ok();

    let mut specs: BTreeMap<String, Id> = BTreeMap::new();
    let created = w.log.len();
    w.appends.clear();
    for step in objects(given, "steps") {
        w.now = field(step, "at").as_unsigned().expect("a time");
        let by = step.get("by").and_then(Value::as_str).unwrap_or_default();
        let spec = step.get("spec").and_then(Value::as_str).unwrap_or_default();
        let id = |specs: &BTreeMap<String, Id>| *specs.get(spec).expect("a spec");
        let answer = match text(step, "does") {
            "join" => w.joins(by),
            "spec" => {
                let answer = w.posts(by, "a proposal");
                specs.insert(spec.to_string(), answer.ok());
                answer
            }
            "approve" => w.approves(by, id(&specs)),
            "deny" => w.denies(by, id(&specs)),
            "request_changes" => w.requests_changes(by, id(&specs)),
            "revise" => w.revises(by, id(&specs), "a better proposal"),
            "remove" => w.removes(by, text(step, "member")),
            "role" => {
                let agent = field(step, "agent").as_bool();
                w.adds_flagged(by, text(step, "member"), role(text(step, "role")), agent)
            }
            "update" => w.updates(by, &field(step, "settings").to_string()),
            "wait" => {
                assert!(w.expires(), "{name}: something is due");
                continue;
            }
            other => panic!("{name}: {other} is no step"),
        };
        answer.ok();
    }

    let mut at = created;
    let appends = field(expected, "appends").as_array().expect("an array");
    assert_eq!(w.appends.len(), appends.len(), "{name}");
    for (count, append) in w.appends.iter().zip(appends) {
        let entries = append.as_array().expect("an array");
        let kinds: Vec<_> = w.log[at..at + count]
            .iter()
            .map(|record| record.kind.to_string())
            .collect();
        let expected_kinds: Vec<_> = entries
            .iter()
            .map(|entry| text(entry.as_object().expect("an object"), "kind"))
            .collect();
        assert_eq!(kinds, expected_kinds, "{name}");
        for (record, entry) in w.log[at..at + count].iter().zip(entries) {
            let entry = entry.as_object().expect("an object");
            let said = body(record).expect("a body");
            if let Some(spec) = entry.get("spec").and_then(Value::as_str) {
                assert_eq!(record.id, specs[spec], "{name}");
            }
            if let Some(outcome) = entry.get("outcome") {
                assert_eq!(said.get("outcome"), Some(outcome), "{name}");
            }
            if let Some(member) = entry.get("member").and_then(Value::as_str) {
                assert_eq!(
                    said.get("user_id").and_then(Value::as_str),
                    Some(world::user(member).as_str()),
                    "{name}"
                );
            }
        }
        at += count;
    }
    let open: Vec<_> = w.thread().open_specs().map(|spec| spec.id).collect();
    let expected_open = field(expected, "open").as_array().expect("an array").iter();
    assert_eq!(
        open,
        expected_open
            .map(|spec| specs[spec.as_str().expect("a name")])
            .collect::<Vec<_>>(),
        "{name}"
    );
}

#[test]
fn receipts() {
    for case in cases("receipts") {
        let name = text(&case, "name");
        let (given, expected) = (
            field(&case, "in").as_object().expect("in"),
            field(&case, "out").as_object().expect("out"),
        );
        let pinned = text(given, "pinned_server_key").parse().expect("a key");
        let verdict = verify(&field(given, "receipt").to_string(), Some(&pinned));
        assert_eq!(
            Some(verdict.is_valid()),
            field(expected, "valid").as_bool(),
            "{name}: {:?}",
            verdict.fails
        );
        assert_eq!(
            verdict.outcome.map(|outcome| outcome.as_str()),
            field(expected, "outcome").as_str(),
            "{name}"
        );
        let fails: Vec<_> = verdict.fails.iter().map(ToString::to_string).collect();
        let expected_fails: Vec<_> = field(expected, "fails")
            .as_array()
            .expect("an array")
            .iter()
            .map(Value::as_str)
            .collect();
        assert_eq!(
            fails.iter().map(|fail| Some(fail.as_str())).collect::<Vec<_>>(),
            expected_fails,
            "{name}"
        );
        let erased: Vec<_> = field(expected, "erased")
            .as_array()
            .expect("an array")
            .iter()
            .map(Value::as_unsigned)
            .collect();
        assert_eq!(
            verdict.erased.iter().map(|seq| Some(seq.get())).collect::<Vec<_>>(),
            erased,
            "{name}"
        );
    }
}

#[test]
fn ranges() {
    for case in cases("ranges") {
        let name = text(&case, "name");
        let (given, expected) = (
            field(&case, "in").as_object().expect("in"),
            field(&case, "out").as_object().expect("out"),
        );
        let thread_id: ThreadId = text(given, "thread_id").parse().expect("an id");
        let cursor = field(given, "cursor").as_object().expect("a cursor");
        let from = field(cursor, "seq").as_unsigned().expect("a number");
        let peaks = from_value(field(cursor, "peaks"))
            .ok()
            .and_then(|peaks| Peaks::from_parts(from, peaks))
            .expect("peaks");
        assert_eq!(peaks.root().to_hex(), text(cursor, "root"), "{name}");
        let range: Range = from_value(field(given, "range")).expect("a range");

        let verified = range.verify(thread_id, &peaks);
        if expected.get("error").is_some() {
            assert_eq!(verified, Err(RangeError::Root), "{name}");
            continue;
        }
        let (after, leaves) = verified.unwrap_or_else(|error| panic!("{name}: {error}"));
        let cursor = field(expected, "cursor").as_object().expect("a cursor");
        assert_eq!(Some(after.size()), field(cursor, "seq").as_unsigned(), "{name}");
        assert_eq!(after.root().to_hex(), text(cursor, "root"), "{name}");
        assert_eq!(
            Ok(after.as_slice().to_vec()),
            from_value(field(cursor, "peaks")),
            "{name}"
        );
        if let Some(expected) = expected.get("leaves").and_then(Value::as_object) {
            for (seq, leaf) in leaves {
                assert_eq!(
                    Some(leaf.to_hex().as_str()),
                    expected.get(&seq.to_string()).and_then(Value::as_str),
                    "{name}"
                );
            }
        }
        let audience: Audience = "https://choir.example:8443".parse().expect("an audience");
        for entry in range.entries.iter().filter(|entry| !entry.author.is_choir()) {
            assert!(
                entry.signature_holds(thread_id, &audience),
                "{name}: signature of {}",
                entry.seq
            );
        }
        if let Some(not_in_order) = expected.get("hidden_not_in_order") {
            let viewer: UserId = text(given, "user_id").parse().expect("a user");
            assert_eq!(
                out_of_order(viewer, &range),
                from_value::<Vec<Seq>>(not_in_order).expect("numbers"),
                "{name}"
            );
        }
    }
}

fn out_of_order(viewer: UserId, range: &Range) -> Vec<Seq> {
    let mut history = ViewHistory::from_start(viewer);
    for entry in &range.entries {
        history.take(entry);
    }
    let hidden = range.hidden.iter().flatten();
    hidden
        .filter(|hidden| !history.in_order(hidden.0, hidden.1, Streams::ALL))
        .map(|hidden| hidden.0)
        .collect()
}
