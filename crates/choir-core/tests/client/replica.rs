//! What a replica believes: L5 to L8, K2, K4, K5, Y6, Y11; also on the vectors that an independent implementation made.

use choir_core::client::keys::KeyRing;
use choir_core::client::replica::{Applied, Finding, HistoryError, Replica, Retain, Viewer, Walk};
use choir_core::client::view::Content;
use choir_protocol::de::from_value;
use choir_protocol::entry::{Body, Entry, Kind};
use choir_protocol::hash::Hash;
use choir_protocol::ids::{Cursor, Id, Seq, ThreadId, UserId};
use choir_protocol::json::{self, Value};
use choir_protocol::key::Signature;
use choir_protocol::merkle::Peaks;
use choir_protocol::message::SnapshotReason;
use choir_protocol::range::{Hidden, Range, RangeError};
use choir_protocol::thread::{Role, Stream};

use crate::support::*;

fn viewer(user_id: UserId) -> Viewer {
    Viewer {
        user_id,
        audience: audience(),
        streams: None,
        retain: Retain::default(),
    }
}

fn fresh(n: u8) -> (Replica, KeyRing) {
    (Replica::new(thread(1), viewer(user(n))), KeyRing::default())
}

fn applied(applied: Applied) -> (Vec<Entry>, Vec<Finding>) {
    match applied {
        Applied::Entries { entries, findings } => (entries, findings),
        other => panic!("applied, not {other:?}"),
    }
}

fn findings(replica: &mut Replica, keys: &mut KeyRing, range: Range) -> Vec<Finding> {
    applied(replica.apply(range, keys)).1
}

fn texts(replica: &Replica) -> Vec<&str> {
    replica
        .view()
        .messages()
        .map(|message| message.text().unwrap_or("(none)"))
        .collect()
}

// --------------------------------------------------------------------------------------------------------------------------------------------- vectors

const VECTORS: &str = include_str!("../../../../vectors/independent/ranges.json");

fn field<'v>(value: &'v Value, path: &[&str]) -> Option<&'v Value> {
    path.iter().try_fold(value, |value, name| value.as_object()?.get(name))
}

fn read<T: serde::de::DeserializeOwned>(value: &Value, path: &[&str]) -> T {
    from_value(field(value, path).unwrap_or_else(|| panic!("{path:?} is there")))
        .unwrap_or_else(|error| panic!("{path:?}: {error}"))
}

#[test]
fn the_independent_vectors_of_ranges_hold() {
    let vectors = json::parse_to_depth(VECTORS, 40).unwrap();
    let mut checked = 0;
    for vector in vectors.as_array().unwrap() {
        let name: String = read(vector, &["name"]);
        let thread_id: ThreadId = read(vector, &["in", "thread_id"]);
        let range: Range = read(vector, &["in", "range"]);
        let size: Seq = read(vector, &["in", "cursor", "seq"]);
        let at = Peaks::from_parts(size.get(), read(vector, &["in", "cursor", "peaks"])).unwrap();

        // The range alone, from its cursor.
        let verified = range.verify(thread_id, &at);
        match field(vector, &["out", "error"]) {
            Some(error) => {
                assert_eq!(error.as_str(), Some("root"), "{name}");
                assert_eq!(verified.unwrap_err(), RangeError::Root, "{name}");
            }
            None => {
                let (end, leaves) = verified.unwrap_or_else(|error| panic!("{name}: {error}"));
                let cursor: Cursor = read(vector, &["out", "cursor"]);
                assert_eq!((end.size(), end.root()), (cursor.seq.get(), cursor.root));
                for (seq, leaf) in leaves {
                    if let Some(expected) = field(vector, &["out", "leaves", &seq.to_string()]) {
                        assert_eq!(Ok(leaf), from_value(expected), "{name}: leaf {seq}");
                    }
                }
            }
        }

        // A whole replica, where the range begins with the log.
        if size == Seq::ZERO && range.from == Seq::ZERO {
            let user_id = field(vector, &["in", "user_id"])
                .map(|user| from_value(user).unwrap())
                .unwrap_or_else(|| user(1));
            let mut keys = KeyRing::default();
            let mut replica = Replica::new(thread_id, viewer(user_id));
            let hidden = match replica.apply(range.clone(), &mut keys) {
                Applied::HiddenOutOfOrder(hidden) => {
                    let (_, findings) = applied(replica.apply_hidden(range, &mut keys));
                    assert_eq!(findings.len(), hidden.len(), "{name}: {findings:?}");
                    hidden.into_iter().map(|Hidden(seq, ..)| seq).collect()
                }
                Applied::Mismatch(error) => {
                    assert_eq!(error, RangeError::Root, "{name}");
                    Vec::new()
                }
                other => {
                    assert_eq!(applied(other).1, [], "{name}: nothing is to be told");
                    Vec::new()
                }
            };
            if let Some(expected) = field(vector, &["out", "hidden_not_in_order"]) {
                let expected: Vec<Seq> = from_value(expected).unwrap();
                assert_eq!(hidden, expected, "{name}");
                assert_eq!(replica.cursor(), read(vector, &["out", "cursor"]), "{name}");
            }
        }
        checked += 1;
    }
    assert!(checked >= 8);
}

// --------------------------------------------------------------------------------------------------------------------------------------------- Y6, Y11

#[test]
fn y6_the_cursor_rule_is_a_typed_result() {
    let mut log = Log::new(&[]);
    for n in 0..9 {
        log.post(1, &n.to_string());
    }
    let (mut replica, mut keys) = fresh(1);
    assert_eq!(
        replica.apply(log.range(2, 4), &mut keys),
        Applied::Gap {
            from: Seq::saturating(2)
        }
    );
    assert_eq!(applied(replica.apply(log.range(0, 5), &mut keys)).0.len(), 5);
    assert_eq!(replica.apply(log.range(1, 5), &mut keys), Applied::Ignored);
    let (entries, _) = applied(replica.apply(log.range(3, 7), &mut keys));
    assert_eq!(entries.iter().map(|entry| entry.seq.get()).collect::<Vec<_>>(), [6, 7]);
    let mut bad = log.range(7, 9);
    bad.root = log.root(8);
    assert_eq!(replica.apply(bad, &mut keys), Applied::Mismatch(RangeError::Root));
    let mut bad = log.range(7, 9);
    bad.entries.remove(0);
    assert_eq!(
        replica.apply(bad, &mut keys),
        Applied::Mismatch(RangeError::Missing(Seq::saturating(8)))
    );
    assert_eq!(replica.cursor(), log.cursor(7), "nothing of it was applied");
    applied(replica.apply(log.range(7, 10), &mut keys));
    assert_eq!(replica.cursor(), log.cursor(10));
}

#[test]
fn y6_edits_and_redactions_wait_for_the_messages_that_history_brings() {
    let mut log = Log::new(&[(2, Role::CoAuthor)]);
    let edited = log.post(1, "before");
    let redacted = log.post(1, "secret");
    let theirs = log.post(2, "mine");
    let middle = log.head().get();
    log.edit(1, edited, "between");
    log.edit(1, edited, "after");
    log.redact(1, redacted);
    // Not an edit: another's message.
    log.edit(1, theirs, "yours");
    log.post(1, "last");
    let mut keys = KeyRing::default();
    let (mut replica, found) = Replica::from_snapshot(
        thread(1),
        viewer(user(1)),
        &log.snapshot(middle, SnapshotReason::Initial),
        &mut keys,
    )
    .unwrap();
    assert_eq!(found, []);
    assert_eq!(texts(&replica), ["last"]);
    let page = replica.prepend(log.page(0, middle), &mut keys).unwrap();
    assert!(page.kept);
    assert_eq!(page.findings, []);
    assert_eq!(texts(&replica), ["after", "(none)", "mine", "last"]);
    assert!(matches!(
        replica.view().message(redacted).unwrap().content,
        Content::Redacted { at } if at.get() == 7
    ));
    assert_eq!(replica.floor(), Cursor::START);
}

#[test]
fn y11_history_is_verified_page_by_page_down_to_entry_1() {
    let mut log = Log::new(&[]);
    for n in 0..99 {
        log.post(1, &n.to_string());
    }
    let mut keys = KeyRing::default();
    let (mut replica, _) = Replica::from_snapshot(
        thread(1),
        viewer(user(1)),
        &log.snapshot(87, SnapshotReason::Initial),
        &mut keys,
    )
    .unwrap();
    // A page that leaves something out, one that overlaps, one of another log.
    assert_eq!(
        replica.prepend(log.page(60, 80), &mut keys),
        Err(HistoryError::NotAdjacent {
            at: Seq::saturating(87)
        })
    );
    let mut lies = log.page(60, 87);
    lies.peaks = Some(log.peaks[28].as_slice().to_vec());
    assert!(matches!(replica.prepend(lies, &mut keys), Err(HistoryError::Range(_))));
    assert_eq!(replica.prepend(log.page(60, 95), &mut keys).unwrap().entries.len(), 27);
    assert_eq!(replica.floor(), log.cursor(60));
    for from in [41, 13, 0] {
        let to = replica.floor().seq.get();
        replica.prepend(log.page(from, to), &mut keys).unwrap();
        assert_eq!(replica.floor(), log.cursor(from));
    }
    assert_eq!(replica.view().messages().len(), 99);
    for seq in 0..=100 {
        assert_eq!(replica.root_at(Seq::saturating(seq)), Some(log.root(seq)));
    }
}

#[test]
fn y11_a_page_of_another_history_doesnt_fit() {
    let mut log = Log::new(&[]);
    let mut other = Log::new(&[]);
    for n in 0..20 {
        log.post(1, &n.to_string());
        other.post(1, &format!("other {n}"));
    }
    let mut walk = Walk::new(thread(1), log.cursor(15));
    assert_eq!(
        walk.verify(&other.page(10, 15)),
        Err(HistoryError::Root {
            at: Seq::saturating(15)
        })
    );
    walk.verify(&log.page(10, 15)).unwrap();
    assert_eq!(walk.at(), log.cursor(10));
    walk.verify(&log.page(0, 12)).unwrap();
    assert_eq!(walk.at(), Cursor::START);
}

#[test]
fn a_full_replica_takes_no_history_but_verifies_it() {
    let mut log = Log::new(&[]);
    for n in 0..50 {
        log.post(1, &n.to_string());
    }
    let mut keys = KeyRing::default();
    let narrow = Viewer {
        retain: Retain {
            messages: 10,
            entries: 100,
        },
        ..viewer(user(1))
    };
    let (mut replica, _) =
        Replica::from_snapshot(thread(1), narrow, &log.snapshot(41, SnapshotReason::Initial), &mut keys).unwrap();
    let page = replica.prepend(log.page(31, 41), &mut keys).unwrap();
    assert_eq!((page.kept, page.entries.len()), (false, 10));
    assert_eq!(replica.floor(), log.cursor(41));
}

#[test]
fn raising_the_floor_loses_no_edit() {
    let mut log = Log::new(&[]);
    let old = log.post(1, "old");
    for n in 0..5 {
        log.post(1, &n.to_string());
    }
    log.edit(1, old, "new");
    let narrow = Viewer {
        retain: Retain {
            messages: 5,
            entries: 100,
        },
        ..viewer(user(1))
    };
    let (mut replica, mut keys) = (Replica::new(thread(1), narrow), KeyRing::default());
    applied(replica.apply(log.range(0, 8), &mut keys));
    assert!(replica.view().message(old).is_none());
    let floor = replica.floor().seq.get();
    assert!(floor >= 2);
    // With room again, history brings the message, and its edit is there still.
    let wide = Viewer {
        retain: Retain::default(),
        ..viewer(user(1))
    };
    let mut roomy = Replica::new(thread(1), wide);
    applied(roomy.apply(log.range(0, 8), &mut keys));
    assert_eq!(roomy.view().message(old).unwrap().text(), Some("new"));
}

// ------------------------------------------------------------------------------------------------------------------------------------------- signatures

#[test]
fn k2_a_signature_that_doesnt_hold_is_told_and_its_entry_not_shown() {
    let mut log = Log::new(&[(2, Role::CoAuthor)]);
    let id = log.fresh_id();
    log.add_with(
        2,
        id,
        Kind::MessagePosted,
        r#"{"content":"put into their mouth","salt":"_StSGF33OofhjB2gg1589w"}"#,
        |entry| {
            if let Some(proof) = &mut entry.proof {
                proof.sig = Signature::from_bytes([1; 64]);
            }
        },
    );
    log.post(2, "theirs");
    let (mut replica, mut keys) = fresh(1);
    let found = findings(&mut replica, &mut keys, log.range(0, 3));
    assert!(
        matches!(&found[..], [Finding::Forged { seq, author, .. }] if seq.get() == 2 && *author == user(2)),
        "{found:?}"
    );
    assert_eq!(texts(&replica), ["theirs"]);
    assert_eq!(replica.cursor(), log.cursor(3), "the log is what it is");
}

#[test]
fn k2_a_user_who_is_their_key_has_no_other() {
    let mut log = Log::new(&[(2, Role::CoAuthor)]);
    // Signed by user 3, said to be by user 2, with the key that makes the signature hold.
    let id = log.fresh_id();
    let mut forged = Log::new(&[(2, Role::CoAuthor)]);
    let body = r#"{"content":"not mine","salt":"_StSGF33OofhjB2gg1589w"}"#;
    forged.add_with(3, id, Kind::MessagePosted, body, |_| {});
    let mut entry = forged.entries.pop().unwrap();
    let text = choir_protocol::sign::action_text(&choir_protocol::sign::ActionText {
        audience: &audience(),
        user_id: &user(2),
        id,
        action_type: "action.submit_message",
        thread_id: thread(1),
        timestamp: entry.proof.as_ref().unwrap().sent_at,
        seen: None,
        payload_hash: &entry.content_hash.unwrap(),
    });
    entry.author = user(2);
    if let Some(proof) = &mut entry.proof {
        proof.key = Some(key(3).public());
        proof.sig = key(3).sign(text.as_bytes());
    }
    log.push(entry);
    let (mut replica, mut keys) = fresh(1);
    let found = findings(&mut replica, &mut keys, log.range(0, 2));
    assert!(matches!(&found[..], [Finding::Forged { .. }]), "{found:?}");
}

#[test]
fn k1_one_action_cant_be_shown_as_another() {
    // The server shows an edit as a message of its own, with the signature that belongs to the edit.
    let mut log = Log::new(&[]);
    let message = log.post(1, "one");
    let body = format!(r#"{{"message":"{message}","content":"two","salt":"_StSGF33OofhjB2gg1589w"}}"#);
    let id = log.fresh_id();
    log.add_with(1, id, Kind::MessageEdited, &body, |entry| {
        entry.kind = Kind::MessagePosted;
        if let Some(proof) = &mut entry.proof {
            proof.action_type = Some("action.edit_message".to_owned());
        }
    });
    let (mut replica, mut keys) = fresh(1);
    let found = findings(&mut replica, &mut keys, log.range(0, 3));
    assert!(matches!(&found[..], [Finding::Forged { .. }]), "{found:?}");
    assert_eq!(texts(&replica), ["one"]);
}

#[test]
fn s9_the_server_derives_only_what_it_may() {
    for (kind, body) in [
        (Kind::MessagePosted, r#"{"content":"by nobody"}"#.to_owned()),
        (Kind::ThreadUpdated, r#"{"title":"mine now"}"#.to_owned()),
        (
            Kind::MemberAdded,
            format!(r#"{{"user_id":"{}","role":"owner"}}"#, user(3)),
        ),
        (Kind::MemberRemoved, format!(r#"{{"user_id":"{}"}}"#, user(1))),
    ] {
        let mut log = Log::new(&[]);
        log.derive(id(1), kind.clone(), &body);
        let (mut replica, mut keys) = fresh(1);
        let found = findings(&mut replica, &mut keys, log.range(0, 2));
        assert!(matches!(&found[..], [Finding::Forged { .. }]), "{kind}: {found:?}");
        assert_eq!(replica.view().members().len(), 1);
    }
}

#[test]
fn k5_a_users_second_key_is_told() {
    let mut keys = KeyRing::default();
    let ann: UserId = "corp:ann".parse().unwrap();
    assert!(!keys.remember(&ann, key(5).public()), "the first is no news");
    assert!(!keys.remember(&ann, key(5).public()));
    assert!(keys.remember(&ann, key(6).public()));
    assert!(!keys.remember(&ann, key(5).public()), "it was seen before");
    assert_eq!(keys.of(&ann), [key(5).public(), key(6).public()]);
    assert!(
        !keys.remember(&user(1), key(7).public()),
        "who is their key has no other"
    );
}

#[test]
fn k4_an_author_who_saw_another_history_is_proof_of_two() {
    let mut log = Log::new(&[(2, Role::CoAuthor)]);
    log.post(1, "one");
    let good = log.cursor(2);
    let seen = |seen: Cursor| {
        move |entry: &mut Entry| {
            let text = choir_protocol::sign::action_text(&choir_protocol::sign::ActionText {
                audience: &audience(),
                user_id: &user(2),
                id: entry.id,
                action_type: "action.submit_message",
                thread_id: thread(1),
                timestamp: entry.timestamp,
                seen: Some(seen),
                payload_hash: &entry.content_hash.unwrap(),
            });
            if let Some(proof) = &mut entry.proof {
                proof.seen = Some(seen);
                proof.sig = key(2).sign(text.as_bytes());
            }
        }
    };
    let body = r#"{"content":"hm","salt":"_StSGF33OofhjB2gg1589w"}"#;
    let (first, second) = (log.fresh_id(), log.fresh_id());
    log.add_with(2, first, Kind::MessagePosted, body, seen(good));
    let other = Cursor {
        seq: good.seq,
        root: Hash::of(b"another history"),
    };
    log.add_with(2, second, Kind::MessagePosted, body, seen(other));
    let (mut replica, mut keys) = fresh(1);
    let found = findings(&mut replica, &mut keys, log.range(0, 4));
    assert_eq!(
        found,
        [Finding::TwoHistories {
            seq: Seq::saturating(4),
            seen: other,
            held: good.root
        }]
    );
}

#[test]
fn l5_a_signature_for_a_foreign_audience_is_told() {
    let foreign: choir_protocol::ids::Audience = "https://elsewhere.example".parse().unwrap();
    let mut log = Log::new(&[]);
    let id = log.fresh_id();
    let signed_for = foreign.clone();
    log.add_with(
        1,
        id,
        Kind::MessagePosted,
        r#"{"content":"hm","salt":"_StSGF33OofhjB2gg1589w"}"#,
        |entry| {
            let text = choir_protocol::sign::action_text(&choir_protocol::sign::ActionText {
                audience: &signed_for,
                user_id: &user(1),
                id: entry.id,
                action_type: "action.submit_message",
                thread_id: thread(1),
                timestamp: entry.timestamp,
                seen: None,
                payload_hash: &entry.content_hash.unwrap(),
            });
            if let Some(proof) = &mut entry.proof {
                proof.audience = Some(signed_for.clone());
                proof.sig = key(1).sign(text.as_bytes());
            }
        },
    );
    let (mut replica, mut keys) = fresh(1);
    let found = findings(&mut replica, &mut keys, log.range(0, 2));
    assert_eq!(
        found,
        [Finding::ForeignAudience {
            seq: Seq::saturating(2),
            audience: foreign.clone()
        }]
    );
    assert_eq!(texts(&replica), ["hm"]);
    // One's own is none.
    let own = Viewer {
        audience: foreign,
        ..viewer(user(1))
    };
    let mut replica = Replica::new(thread(1), own);
    assert_eq!(findings(&mut replica, &mut keys, log.range(0, 2)), []);
}

// --------------------------------------------------------------------------------------------------------------------------------------------------- L6

#[test]
fn l6_a_body_may_be_missing_with_its_redaction_only() {
    let mut log = Log::new(&[(2, Role::CoAuthor)]);
    let gone = log.post(2, "gone");
    log.post(1, "stays");
    log.edit(2, gone, "gone too");
    log.redact(1, gone);
    let (mut replica, mut keys) = fresh(1);
    assert_eq!(findings(&mut replica, &mut keys, log.range(0, 5)), []);
    assert_eq!(texts(&replica), ["(none)", "stays"]);

    // Provisionally while the redaction isn't here; then it is judged.
    let (mut replica, mut keys) = fresh(1);
    assert_eq!(findings(&mut replica, &mut keys, log.range(0, 4)), []);
    assert_eq!(findings(&mut replica, &mut keys, log.range(4, 5)), []);

    // Entry 3 is none.
    let mut lies = log.clone();
    for entry in &mut lies.entries {
        if let Body::Erased(by) = &mut entry.body {
            *by = Seq::saturating(3);
        }
    }
    let (mut replica, mut keys) = fresh(1);
    let found = findings(&mut replica, &mut keys, lies.range(0, 3));
    assert_eq!(
        found,
        [Finding::Erased {
            seq: Seq::saturating(2),
            by: Seq::saturating(3)
        }]
    );

    // Entry 5 redacts another message.
    let mut lies = log.clone();
    lies.entries[2].body = Body::Erased(Seq::saturating(5));
    let (mut replica, mut keys) = fresh(1);
    let found = findings(&mut replica, &mut keys, lies.range(0, 4));
    assert_eq!(found, []);
    let found = findings(&mut replica, &mut keys, lies.range(4, 5));
    assert_eq!(
        found,
        [Finding::Erased {
            seq: Seq::saturating(3),
            by: Seq::saturating(5)
        }]
    );
}

#[test]
fn l6_a_redaction_drops_the_body_that_is_held() {
    let mut log = Log::new(&[(2, Role::CoAuthor)]);
    let message = log.post(2, "secret");
    let (mut replica, mut keys) = fresh(1);
    applied(replica.apply(log.range(0, 2), &mut keys));
    assert_eq!(texts(&replica), ["secret"]);
    log.redact(2, message);
    applied(replica.apply(log.range(2, 3), &mut keys));
    assert_eq!(texts(&replica), ["(none)"]);
}

#[test]
fn l6_who_is_neither_author_nor_owner_redacts_nothing() {
    let mut log = Log::new(&[(2, Role::CoAuthor)]);
    let message = log.post(1, "mine");
    log.add(2, Kind::MessageRedacted, &format!(r#"{{"message":"{message}"}}"#));
    let (mut replica, mut keys) = fresh(1);
    let found = findings(&mut replica, &mut keys, log.range(0, 3));
    assert!(matches!(&found[..], [Finding::Refused { .. }]), "{found:?}");
    assert_eq!(texts(&replica), ["mine"]);
}

// --------------------------------------------------------------------------------------------------------------------------------------------------- L8

fn hides_specs(log: &Log, from: u64, to: u64) -> Range {
    log.range_hiding(from, to, |entry| entry.stream != Stream::Updates)
}

#[test]
fn l8_from_a_reader_specs_may_be_hidden_and_messages_not() {
    let mut log = Log::new(&[(2, Role::Reader), (3, Role::Reader)]);
    log.propose(2, "a spec");
    log.post(1, "a message");
    let (mut replica, mut keys) = fresh(3);
    assert_eq!(findings(&mut replica, &mut keys, hides_specs(&log, 0, 3)), []);
    let (mut replica, mut keys) = fresh(3);
    let hidden = replica.apply(
        log.range_hiding(0, 3, |entry| entry.kind == Kind::MessagePosted),
        &mut keys,
    );
    assert!(matches!(&hidden, Applied::HiddenOutOfOrder(hidden) if hidden[0].0.get() == 3));
    assert_eq!(replica.cursor(), Cursor::START);
}

#[test]
fn l8_it_is_judged_by_the_role_at_the_entry_and_at_the_end() {
    let mut log = Log::new(&[(3, Role::Reader)]);
    log.propose(1, "before");
    log.add(
        1,
        Kind::MemberAdded,
        &format!(r#"{{"user_id":"{}","role":"co_author"}}"#, user(3)),
    );
    log.propose(1, "after");
    let (mut replica, mut keys) = fresh(3);
    let hidden = replica.apply(hides_specs(&log, 0, 4), &mut keys);
    assert!(
        matches!(&hidden, Applied::HiddenOutOfOrder(hidden) if hidden.len() == 1 && hidden[0].0.get() == 4),
        "{hidden:?}"
    );
    log.add(
        1,
        Kind::MemberAdded,
        &format!(r#"{{"user_id":"{}","role":"reader"}}"#, user(3)),
    );
    let (mut replica, mut keys) = fresh(3);
    assert_eq!(findings(&mut replica, &mut keys, hides_specs(&log, 0, 5)), []);
}

#[test]
fn l8_a_stream_that_isnt_subscribed_may_be_hidden() {
    let mut log = Log::new(&[]);
    log.propose(1, "a spec");
    let narrow = Viewer {
        streams: Some(vec![Stream::Updates]),
        ..viewer(user(1))
    };
    let (mut replica, mut keys) = (Replica::new(thread(1), narrow), KeyRing::default());
    assert_eq!(findings(&mut replica, &mut keys, hides_specs(&log, 0, 2)), []);
}

#[test]
fn l8_review_by_readers_lets_nothing_be_hidden() {
    let mut log = Log::with(&[(3, Role::Reader)], r#""review":"readers","#);
    log.propose(1, "a spec");
    let (mut replica, mut keys) = fresh(3);
    assert!(matches!(
        replica.apply(hides_specs(&log, 0, 2), &mut keys),
        Applied::HiddenOutOfOrder(_)
    ));
}

// ------------------------------------------------------------------------------------------------------------------------------------------------ state

#[test]
fn s6_specs_are_open_until_they_are_resolved() {
    let mut log = Log::new(&[(2, Role::Reader)]);
    let spec = log.propose(2, "first");
    let revision = |text: &str| format!(r#"{{"spec":"{spec}","content":"{text}","salt":"_StSGF33OofhjB2gg1589w"}}"#);
    let (mut replica, mut keys) = fresh(1);
    applied(replica.apply(log.range(0, 2), &mut keys));
    let first_hash = replica.view().spec(spec).unwrap().content_hash;
    let decide = |hash: Hash, decision: &str| {
        format!(
            r#"{{"spec":"{spec}","content_hash":"{hash}","decision":"{decision}","salt":"_StSGF33OofhjB2gg1589w"}}"#
        )
    };
    log.add(1, Kind::ApprovalGiven, &decide(first_hash, "deny"));
    applied(replica.apply(log.range(2, 3), &mut keys));
    assert_eq!(replica.view().spec(spec).unwrap().decisions.len(), 1);
    let revision_id = log.fresh_id();
    let body = revision("second");
    log.add_with(2, revision_id, Kind::SpecRevised, &body, |_| {});
    applied(replica.apply(log.range(3, 4), &mut keys));
    let second = replica.view().spec(spec).unwrap().clone();
    assert_ne!(second.content_hash, first_hash);
    assert!(second.decisions.is_empty(), "decisions are bound to a revision");
    log.add(1, Kind::ApprovalGiven, &decide(second.content_hash, "approve"));
    log.derive(
        spec,
        Kind::SpecResolved,
        &format!(r#"{{"spec":"{spec}","outcome":"approved"}}"#),
    );
    // The message bears the spec's id, and the revision's proof (L5).
    let mut message = log.entries[3].clone();
    message.seq = log.head().next();
    message.kind = Kind::MessagePosted;
    message.stream = Stream::Updates;
    message.id = spec;
    if let Some(proof) = &mut message.proof {
        proof.id = Some(revision_id);
        proof.action_type = Some("action.revise_spec".to_owned());
    }
    log.push(message);
    assert_eq!(findings(&mut replica, &mut keys, log.range(4, 7)), []);
    assert!(replica.view().open_specs().is_empty());
    assert_eq!(texts(&replica), ["second"]);
    assert_eq!(replica.view().message(spec).unwrap().author, user(2));
}

#[test]
fn s3_members_join_by_acting() {
    let mut log = Log::new(&[(2, Role::CoAuthor), (3, Role::CoAuthor)]);
    let joined = |replica: &Replica, n: u8| replica.view().member(&user(n)).map(|member| member.joined);
    let (mut replica, mut keys) = fresh(1);
    applied(replica.apply(log.range(0, 1), &mut keys));
    assert_eq!(
        (joined(&replica, 1), joined(&replica, 2), joined(&replica, 3)),
        (Some(true), Some(false), Some(false))
    );
    log.post(2, "here I am");
    log.add(3, Kind::MemberRemoved, &format!(r#"{{"user_id":"{}"}}"#, user(3)));
    applied(replica.apply(log.range(1, 3), &mut keys));
    assert_eq!((joined(&replica, 2), joined(&replica, 3)), (Some(true), None));
    let order: Vec<_> = replica
        .view()
        .members()
        .iter()
        .map(|member| member.user_id.clone())
        .collect();
    assert_eq!(order, [user(1), user(2)]);
}

#[test]
fn settings_follow_their_entries() {
    let mut log = Log::new(&[]);
    log.add(
        1,
        Kind::ThreadUpdated,
        r#"{"title":"new","review":"readers","salt":"_StSGF33OofhjB2gg1589w"}"#,
    );
    let (mut replica, mut keys) = fresh(1);
    applied(replica.apply(log.range(0, 2), &mut keys));
    let settings = replica.view().settings().unwrap();
    assert_eq!(settings.title, "new");
    assert_eq!(settings.review, choir_protocol::thread::Review::Readers);
    assert_eq!(settings.audience, audience());
}

#[test]
fn a_snapshot_that_isnt_what_it_says_is_refused() {
    let mut log = Log::new(&[]);
    log.post(1, "one");
    let mut keys = KeyRing::default();
    let mut snapshot = log.snapshot(0, SnapshotReason::Initial);
    snapshot.recent.peaks = None;
    assert_eq!(
        Replica::from_snapshot(thread(1), viewer(user(1)), &snapshot, &mut keys).unwrap_err(),
        RangeError::Peaks
    );
    let mut snapshot = log.snapshot(0, SnapshotReason::Initial);
    snapshot.recent.root = log.root(1);
    assert_eq!(
        Replica::from_snapshot(thread(1), viewer(user(1)), &snapshot, &mut keys).unwrap_err(),
        RangeError::Root
    );
}

#[test]
fn a_message_is_posted_once() {
    let mut log = Log::new(&[]);
    let first: Id = log.post(1, "one");
    let mut again = log.entries[1].clone();
    again.seq = log.head().next();
    log.push(again);
    let (mut replica, mut keys) = fresh(1);
    let found = findings(&mut replica, &mut keys, log.range(0, 3));
    assert!(matches!(&found[..], [Finding::Refused { .. }]), "{found:?}");
    assert_eq!(replica.view().messages().len(), 1);
    assert!(replica.view().message(first).is_some());
}
