//! The types of this crate against vectors that an implementation without any code in common computed.
#![allow(clippy::unwrap_used, reason = "what can't be unwrapped fails the test")]

use choir_protocol::action::{SignedAction, Unsigned};
use choir_protocol::canonical::Canonical;
use choir_protocol::de::from_value;
use choir_protocol::encoding::hex_decode_array;
use choir_protocol::entry::{Kind, SignedParts, entry_leaf, inner_hash};
use choir_protocol::hash::Hash;
use choir_protocol::ids::{Audience, Cursor, Seq, ThreadId, Timestamp, UserId};
use choir_protocol::json::{self, Object};
use choir_protocol::key::{PublicKey, SecretKey, Signature};
use choir_protocol::merkle::Peaks;
use choir_protocol::range::{Hidden, Range, RangeError};
use choir_protocol::sign::auth_text;
use choir_protocol::thread::Stream;

mod cases;

use cases::{Case, cases, optional, seen, text, typed};

fn secret(input: &Object) -> SecretKey {
    SecretKey::from_seed(&hex_decode_array(text(input, "seed")).unwrap())
}

#[test]
fn c4_the_independent_proofs_of_a_key_are_ours() {
    for Case { name, input, output } in cases("independent/auth.json") {
        let signed = auth_text(
            &typed(&input, "audience"),
            typed(&input, "connection_id"),
            text(&input, "challenge"),
            &typed(&input, "client_id"),
            text(&input, "method"),
        );
        assert_eq!(signed, text(&output, "text"), "{name}");
        let hash = Hash::of(signed.as_bytes());
        assert_eq!(hash, typed(&output, "text_sha256"), "{name}");

        let secret = secret(&input);
        let key: PublicKey = typed(&output, "public_key");
        assert_eq!(secret.public(), key, "{name}");
        let user_id: UserId = typed(&output, "user_id");
        assert_eq!(UserId::of_key(&key), user_id, "{name}");
        assert_eq!(user_id.key(), Some(key), "{name}");
        let signature: Signature = typed(&output, "signature");
        assert_eq!(secret.sign(signed.as_bytes()), signature, "{name}");
    }
}

#[test]
fn k1_the_independent_actions_are_signed_as_ours() {
    for Case { name, input, output } in cases("independent/action.json") {
        let audience: Audience = typed(&input, "audience");
        let user_id: UserId = typed(&input, "user_id");
        let secret = secret(&input);
        let signed = SignedAction::sign(
            Unsigned {
                audience: &audience,
                user_id: &user_id,
                id: typed(&input, "id"),
                action_type: text(&input, "type"),
                thread_id: typed(&input, "thread_id"),
                timestamp: typed(&input, "timestamp"),
                seen: seen(&input),
                payload: input.get("payload").unwrap().as_object().unwrap(),
            },
            &secret,
        )
        .unwrap();
        assert_eq!(signed.payload.as_str(), text(&output, "payload_canonical"), "{name}");
        assert_eq!(signed.payload_hash, typed(&output, "payload_hash"), "{name}");
        let signed_text = signed.text(&audience, &user_id);
        assert_eq!(signed_text, text(&output, "text"), "{name}");
        let hash = Hash::of(signed_text.as_bytes());
        assert_eq!(hash, typed(&output, "text_sha256"), "{name}");
        assert_eq!(signed.sig, typed(&output, "sig"), "{name}");
        assert!(signed.verify(&audience, &user_id, &secret.public()), "{name}");
    }
}

#[test]
fn l7_the_independent_inner_hashes_and_leaves_are_ours() {
    for Case { name, input, output } in cases("independent/inner-leaf.json") {
        let sig: Option<Signature> = optional(&input, "sig");
        let inner = inner_hash(
            typed(&input, "id"),
            &typed::<Kind>(&input, "kind"),
            &typed(&input, "author"),
            typed::<Timestamp>(&input, "timestamp"),
            &typed(&input, "content_hash"),
            SignedParts {
                sent_at: optional(&input, "sent_at"),
                seen: seen(&input),
                sig: sig.as_ref(),
            },
        );
        assert_eq!(inner, typed(&output, "inner"), "{name}");
        let stream: Stream = typed(&input, "stream");
        let leaf = entry_leaf(typed(&input, "thread_id"), typed(&input, "seq"), stream, &inner);
        assert_eq!(leaf, typed(&output, "leaf"), "{name}");
    }
}

/// The peaks to verify from: the cursor's, or, for a page of history, those that come with it.
fn peaks_before(input: &Object, range: &Range) -> Peaks {
    match input.get("cursor") {
        Some(cursor) => {
            let fields = cursor.as_object().unwrap();
            let cursor: Cursor = from_value(cursor).unwrap();
            let peaks = Peaks::from_parts(cursor.seq.get(), typed(fields, "peaks")).unwrap();
            assert_eq!(peaks.root(), cursor.root);
            peaks
        }
        None => range.peaks_at_from().unwrap(),
    }
}

fn leaves_of(thread_id: ThreadId, range: &Range) -> Vec<(Seq, Hash)> {
    let shown = range.entries.iter();
    let shown = shown.map(|entry| (entry.seq, entry.stream, entry.inner().unwrap()));
    let hidden = range.hidden.iter().flatten();
    let hidden = hidden.map(|Hidden(seq, stream, inner)| (*seq, *stream, *inner));
    let mut leaves: Vec<(Seq, Hash)> = shown
        .chain(hidden)
        .map(|(seq, stream, inner)| (seq, entry_leaf(thread_id, seq, stream, &inner)))
        .collect();
    leaves.sort_unstable();
    leaves
}

#[test]
fn l8_the_independent_ranges_verify_as_they_should() {
    let (mut good, mut bad) = (0, 0);
    for Case { name, input, output } in cases("independent/ranges.json") {
        let range: Range = typed(&input, "range");
        let thread_id: ThreadId = typed(&input, "thread_id");
        let verified = range.verify(thread_id, &peaks_before(&input, &range));
        if output.contains("error") {
            assert_eq!(text(&output, "error"), "root", "{name}");
            assert_eq!(verified, Err(RangeError::Root), "{name}");
            bad += 1;
            continue;
        }
        let start = peaks_before(&input, &range).size();
        let (peaks, leaves) = verified.unwrap_or_else(|error| panic!("{name}: {error}"));
        let expected = output.get("cursor").unwrap();
        let cursor: Cursor = from_value(expected).unwrap();
        assert_eq!(range.end(), cursor, "{name}");
        assert_eq!(Seq::new(peaks.size()), Some(cursor.seq), "{name}");
        assert_eq!(peaks.root(), cursor.root, "{name}");
        let expected: Vec<Hash> = typed(expected.as_object().unwrap(), "peaks");
        assert_eq!(peaks.as_slice(), expected, "{name}");
        if let Some(expected) = output.get("leaves") {
            // Theirs are those of the whole range, ours those above the cursor.
            let expected = expected.as_object().unwrap();
            let mut expected: Vec<(Seq, Hash)> = expected
                .iter()
                .map(|(seq, leaf)| {
                    let seq = seq.parse().ok().and_then(Seq::new);
                    (seq.unwrap(), from_value(leaf).unwrap())
                })
                .collect();
            expected.sort_unstable();
            let all = leaves_of(thread_id, &range);
            assert_eq!(all, expected, "{name}");
            expected.retain(|(seq, _)| seq.get() > start);
            assert_eq!(leaves, expected, "{name}");
        }
        good += 1;
    }
    assert_eq!((good, bad), (7, 1));
}

#[test]
fn l5_the_independent_ranges_are_written_as_they_were_read() {
    for Case { name, input, .. } in cases("independent/ranges.json") {
        let given = input.get("range").unwrap();
        let range: Range = from_value(given).unwrap();
        let written = json::parse(&serde_json::to_string(&range).unwrap()).unwrap();
        assert_eq!(
            Canonical::of(&written).as_str(),
            Canonical::of(given).as_str(),
            "{name}"
        );
    }
}

#[test]
fn k1_every_signature_in_the_independent_ranges_holds() {
    let mut held = 0;
    for Case { name, input, .. } in cases("independent/ranges.json") {
        let thread_id: ThreadId = typed(&input, "thread_id");
        // The audience of the thread's creation, which the first case shows.
        let audience: Audience = "https://choir.example:8443".parse().unwrap();
        for entry in typed::<Range>(&input, "range").entries {
            let holds = entry.signature_holds(thread_id, &audience);
            assert_eq!(holds, !entry.author.is_choir(), "{name}: {}", entry.seq);
            held += usize::from(holds);

            let elsewhere: Audience = "https://other.example".parse().unwrap();
            assert!(!entry.signature_holds(thread_id, &elsewhere), "{name}");
        }
    }
    assert!(held > 20);
}
