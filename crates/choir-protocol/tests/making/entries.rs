//! Entries of every kind (L1): how they are hashed (L7), how they travel (L5, L6), whether their
//! authors' signatures hold (K1).

use choir_protocol::canonical::to_string;
use choir_protocol::de::from_value;
use choir_protocol::entry::{Entry, entry_leaf};
use choir_protocol::json::{Object, Value};
use choir_protocol::object;

use super::Case;
use super::log::{Log, home, thread_id, written};

pub(crate) fn cases() -> Vec<Case> {
    let log = Log::new();
    let mut cases: Vec<Case> = log
        .entries
        .iter()
        .map(|entry| {
            let name = match (entry.author.is_choir(), entry.body.text()) {
                (true, _) => format!("{}: {}, derived", entry.seq, entry.kind),
                (false, None) => format!("{}: {}, erased", entry.seq, entry.kind),
                (false, Some(_)) => format!("{}: {}", entry.seq, entry.kind),
            };
            case(name, wire(entry))
        })
        .collect();

    let first = || wire(&log.entries[0]);
    let changed = |name: &'static str, value: Value| {
        let mut entry = first();
        entry.insert(name, value);
        entry
    };
    let without = |mut entry: Object, names: &[&str]| {
        for name in names {
            entry.remove(name);
        }
        entry
    };
    let erased = wire(&log.entries[2]);
    let later = wire(&log.entries[14]);
    for (name, entry) in [
        (
            "without verify: the hash is that of the body",
            without(first(), &["content_hash", "proof"]),
        ),
        (
            "without verify, erased: the hash is unknown",
            without(erased.clone(), &["content_hash", "proof"]),
        ),
        (
            "a known kind's stream is its own, whatever it carries",
            changed("stream", "specs".into()),
        ),
        ("unknown fields are ignored", changed("of a later version", Value::Null)),
        ("bad: the body isn't what was signed", {
            changed("content_hash", "00".repeat(32).into())
        }),
        ("bad: signed at another time", {
            let mut entry = first();
            let mut proof = entry.remove("proof").and_then(Value::into_object).unwrap();
            proof.insert("sent_at", 1);
            entry.insert("proof", proof);
            entry
        }),
        (
            "bad: an unknown kind without its stream",
            without(later.clone(), &["stream"]),
        ),
        ("bad: an unknown kind with an unknown stream", {
            let mut entry = later;
            entry.insert("stream", "reactions");
            entry
        }),
        ("bad: neither body nor erased", without(erased.clone(), &["erased"])),
        ("bad: both body and erased", changed("erased", 12.into())),
        ("bad: a body that is no object", changed("body", "hello".into())),
        ("bad: a body of null beside erased", {
            let mut entry = erased;
            entry.insert("body", Value::Null);
            entry
        }),
        ("bad: a proof of null", changed("proof", Value::Null)),
        ("bad: no author", without(first(), &["author"])),
    ] {
        cases.push(case(name.to_owned(), entry));
    }
    cases
}

fn wire(entry: &Entry) -> Object {
    written(entry).into_object().unwrap()
}

fn case(name: String, entry: Object) -> Case {
    let read = from_value::<Entry>(&entry.clone().into());
    let input = object! {
        "thread_id": thread_id().to_string(),
        "audience": home().to_string(),
        "entry": to_string(&entry.into()),
    };
    let out = match read {
        Err(_) => object! { "refused": true },
        Ok(entry) => {
            let inner = entry.inner();
            let leaf = inner.map(|inner| entry_leaf(thread_id(), entry.seq, entry.stream, &inner));
            let hash = entry.content_hash.map(|hash| hash.to_hex());
            object! {
                "stream": entry.stream.as_str(),
                "content_hash"?: hash,
                "inner"?: inner.map(|hash| hash.to_hex()),
                "leaf"?: leaf.map(|hash| hash.to_hex()),
                "signed"?: entry.signed_text(thread_id(), &home()),
                "signature_holds": entry.signature_holds(thread_id(), &home()),
            }
        }
    };
    Case::new(name, &["E3", "K1", "L1", "L2", "L5", "L6", "L7"], input, out)
}
