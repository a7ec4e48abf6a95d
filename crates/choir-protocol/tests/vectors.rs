//! The committed vectors: that the program makes them, and that each holds by a second opinion that
//! shares no code with this crate.
#![allow(clippy::unwrap_used, reason = "what can't be unwrapped fails the test")]

use choir_protocol::canonical::Canonical;
use choir_protocol::checkpoint::{self, Checkpoint};
use choir_protocol::de::from_value;
use choir_protocol::encoding::{hex_decode, hex_decode_array};
use choir_protocol::entry::{Entry, Kind};
use choir_protocol::hash::Hash;
use choir_protocol::json::{self, Value};
use choir_protocol::key::{PublicKey, SecretKey};
use choir_protocol::merkle::{self, Peaks};

mod cases;
mod making;
mod naive;

use cases::{cases, hash, hashes, number, read, text};
use making::merkle::{Tree, leaves};

#[test]
fn the_committed_vectors_are_what_the_program_makes() {
    for (name, made) in making::files() {
        assert!(
            read(name) == made,
            "vectors/{name} differs from what is made: cargo run -p choir-protocol --example make_vectors"
        );
    }
}

#[test]
fn e1_texts_agree_with_a_lax_parser_but_for_the_rules_beyond_json() {
    for case in cases("json.json") {
        let Some(input) = case.input.get("text").and_then(Value::as_str) else {
            let bytes = hex_decode(text(&case.input, "hex")).unwrap();
            assert!(std::str::from_utf8(&bytes).is_err(), "{}", case.name);
            assert_eq!(text(&case.output, "refused"), "not UTF-8", "{}", case.name);
            continue;
        };
        let lax = serde_json::from_str::<serde_json::Value>(input);
        match case.output.get("refused").and_then(Value::as_str) {
            None => {
                let canonical = serde_json_canonicalizer::to_string(&lax.unwrap()).unwrap();
                assert_eq!(text(&case.output, "canonical"), canonical, "{}", case.name);
            }
            Some("not JSON") => assert!(lax.is_err(), "{}", case.name),
            Some("duplicate name") => assert!(lax.is_ok(), "{}", case.name),
            Some("number out of bounds") => {
                // Refused by the lax parser too where it is beyond every double.
                let beyond = |number: &serde_json::Value| number.as_f64().unwrap().abs() > 9_007_199_254_740_991.0;
                let number = lax.map(|value| value.pointer("/x/0/y").unwrap_or(&value).clone());
                assert!(
                    number.is_err() || number.is_ok_and(|number| beyond(&number)),
                    "{}",
                    case.name
                );
            }
            Some("too deep") => assert!(input.matches(['[', '{']).count() > 32, "{}", case.name),
            Some("byte order mark") => assert!(input.starts_with('\u{feff}'), "{}", case.name),
            other => panic!("{}: {other:?}", case.name),
        }
    }
}

#[test]
fn l2_canonical_texts_agree_with_another_library() {
    for case in cases("canonical.json") {
        let canonical = text(&case.output, "canonical");
        if let Some(bits) = case.input.get("ieee754").and_then(Value::as_str) {
            let double = f64::from_bits(u64::from_str_radix(bits, 16).unwrap());
            assert_eq!(
                canonical,
                serde_json_canonicalizer::to_string(&double).unwrap(),
                "{}",
                case.name
            );
            continue;
        }
        let value: serde_json::Value = serde_json::from_str(text(&case.input, "text")).unwrap();
        assert_eq!(
            canonical,
            serde_json_canonicalizer::to_string(&value).unwrap(),
            "{}",
            case.name
        );
        assert_eq!(text(&case.output, "sha256"), Hash::of(canonical.as_bytes()).to_string());
    }
}

/// What RFC 8785 prints, but for the number that E1 refuses.
const RFC_8785_SAMPLES: &[&str] = &[
    "{\"literals\":[null,true,false],\"numbers\":[333333333.3333333,4.5,0.002,1e-27],\"string\":\"€$\\u000f\\nA'B\\\"\\\\\\\\\\\"/\"}",
    "{\"\\r\":\"Carriage Return\",\"1\":\"One\",\"\u{80}\":\"Control\",\"ö\":\"Latin Small Letter O With Diaeresis\",\"€\":\"Euro Sign\",\"😀\":\"Emoji: Grinning Face\",\"\u{fb33}\":\"Hebrew Letter Dalet With Dagesh\"}",
];

/// Appendix B of RFC 8785.
const RFC_8785_NUMBERS: &[(&str, &str)] = &[
    ("0000000000000000", "0"),
    ("8000000000000000", "0"),
    ("0000000000000001", "5e-324"),
    ("8000000000000001", "-5e-324"),
    ("7fefffffffffffff", "1.7976931348623157e+308"),
    ("ffefffffffffffff", "-1.7976931348623157e+308"),
    ("4340000000000000", "9007199254740992"),
    ("c340000000000000", "-9007199254740992"),
    ("4430000000000000", "295147905179352830000"),
    ("44b52d02c7e14af5", "9.999999999999997e+22"),
    ("44b52d02c7e14af6", "1e+23"),
    ("44b52d02c7e14af7", "1.0000000000000001e+23"),
    ("444b1ae4d6e2ef4e", "999999999999999700000"),
    ("444b1ae4d6e2ef4f", "999999999999999900000"),
    ("444b1ae4d6e2ef50", "1e+21"),
    ("3eb0c6f7a0b5ed8c", "9.999999999999997e-7"),
    ("3eb0c6f7a0b5ed8d", "0.000001"),
    ("41b3de4355555553", "333333333.3333332"),
    ("41b3de4355555554", "333333333.33333325"),
    ("41b3de4355555555", "333333333.3333333"),
    ("41b3de4355555556", "333333333.3333334"),
    ("41b3de4355555557", "333333333.33333343"),
    ("becbf647612f3696", "-0.0000033333333333333333"),
    ("43143ff3c1cb0959", "1424953923781206.2"),
];

#[test]
fn l2_canonical_texts_are_those_that_rfc_8785_prints() {
    let cases = cases("canonical.json");
    let texts = cases.iter().filter(|case| case.name.starts_with("RFC 8785 section"));
    let texts: Vec<&str> = texts.map(|case| text(&case.output, "canonical")).collect();
    assert_eq!(texts, RFC_8785_SAMPLES);
    let numbers = cases.iter().filter(|case| case.input.contains("ieee754"));
    let numbers: Vec<_> = numbers
        .map(|case| (text(&case.input, "ieee754"), text(&case.output, "canonical")))
        .collect();
    assert_eq!(numbers, RFC_8785_NUMBERS);
}

#[test]
fn k2_signatures_agree_with_plain_arithmetic_and_with_rfc_8032() {
    let rows = making::ed25519::CASES
        .lines()
        .filter(|line| !line.starts_with('#'))
        .skip(1);
    let rows: Vec<Vec<&str>> = rows.map(|row| row.split('\t').collect()).collect();
    let cases = cases("ed25519.json");
    assert_eq!(rows.len(), cases.len());
    for (row, case) in rows.iter().zip(&cases) {
        let &[name, expected, why, seed, key, _, signature] = row.as_slice() else {
            panic!("{row:?}")
        };
        assert_eq!(case.name, name);
        let valid = case.output.get("valid").and_then(Value::as_bool).unwrap();
        assert_eq!(valid, expected == "accept", "{name}: {why}");
        if let Some(signing) = case.output.get("signing").and_then(Value::as_object) {
            let signed = (text(signing, "seed"), text(signing, "key"), text(signing, "signature"));
            assert_eq!(signed, (seed, key, signature), "{name}");
        }
    }
    assert_eq!(rows.iter().filter(|row| !row[3].is_empty()).count(), 5);
}

/// Bits, six at a time.
fn naive_base64(bytes: &[u8], alphabet: &str, padded: bool) -> String {
    let bits: Vec<u8> = bytes
        .iter()
        .flat_map(|byte| (0..8).rev().map(move |at| byte >> at & 1))
        .collect();
    let alphabet: Vec<char> = alphabet.chars().collect();
    let digit = |six: &[u8]| alphabet[(0..6).fold(0, |n, at| n * 2 + usize::from(*six.get(at).unwrap_or(&0)))];
    let mut text: String = bits.chunks(6).map(digit).collect();
    while padded && !text.len().is_multiple_of(4) {
        text.push('=');
    }
    text
}

const STANDARD: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const URL: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Whether any bytes have this text: those that its digits spell, encoded again.
fn is_base64(text: &str, alphabet: &str, padded: bool) -> bool {
    let digits = text.chars().filter_map(|c| alphabet.find(c));
    let bits: Vec<usize> = digits
        .flat_map(|digit| (0..6).rev().map(move |at| digit >> at & 1))
        .collect();
    let (bytes, _) = bits.as_chunks::<8>();
    let bytes: Vec<u8> = bytes
        .iter()
        .map(|byte| byte.iter().fold(0, |n, bit| n * 2 + *bit as u8))
        .collect();
    naive_base64(&bytes, alphabet, padded) == text
}

#[test]
fn e2_encodings_agree_with_bits_taken_one_by_one() {
    for case in cases("encoding.json") {
        if let Some(bytes) = case.input.get("hex").and_then(Value::as_str) {
            let bytes = hex_decode(bytes).unwrap();
            assert_eq!(
                text(&case.output, "base64url"),
                naive_base64(&bytes, URL, false),
                "{}",
                case.name
            );
            assert_eq!(
                text(&case.output, "base64"),
                naive_base64(&bytes, STANDARD, true),
                "{}",
                case.name
            );
            continue;
        }
        assert_eq!(case.output.get("refused"), Some(&Value::Bool(true)), "{}", case.name);
        if let Some(text) = case.input.get("base64url").and_then(Value::as_str) {
            assert!(!is_base64(text, URL, false), "{}", case.name);
        } else if let Some(text) = case.input.get("base64").and_then(Value::as_str) {
            assert!(!is_base64(text, STANDARD, true), "{}", case.name);
        } else {
            let text = text(&case.input, "hash");
            let digits = text.chars().all(|c| "0123456789abcdef".contains(c));
            assert!(!(digits && text.len() == 64), "{}", case.name);
        }
    }
}

/// The roots of Certificate Transparency's reference trees of 1 to 8 leaves.
const REFERENCE_ROOTS: &[&str] = &[
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
];

#[test]
fn l7_trees_agree_with_rfc_9162_word_for_word() {
    let all = leaves();
    let (mut trees, mut good, mut bad) = (0, 0, 0);
    for case in cases("merkle.json") {
        if let Some(contents) = case.input.get("contents").and_then(Value::as_array) {
            let leaves = &all[..contents.len()];
            assert_eq!(hash(&case.output, "root"), naive::root(leaves), "{}", case.name);
            if let Some(root) = contents.len().checked_sub(1).and_then(|at| REFERENCE_ROOTS.get(at)) {
                assert_eq!(text(&case.output, "root"), *root, "{}", case.name);
            }
            trees += 1;
            continue;
        }
        let holds = case.output.get("holds").and_then(Value::as_bool).unwrap();
        let is_bad = case.name.contains(": bad: ");
        assert_eq!(holds, !is_bad, "{}", case.name);
        if is_bad {
            bad += 1;
            continue;
        }
        good += 1;
        if case.input.contains("leaf") {
            let (index, size) = (
                number(&case.input, "index") as usize,
                number(&case.input, "size") as usize,
            );
            let leaves = &all[..size];
            assert_eq!(hash(&case.input, "leaf"), leaves[index]);
            assert_eq!(hash(&case.input, "root"), naive::root(leaves));
            assert_eq!(
                hashes(&case.input, "path"),
                naive::inclusion(index, leaves),
                "{}",
                case.name
            );
        } else {
            let (m, n) = (number(&case.input, "m") as usize, number(&case.input, "n") as usize);
            assert_eq!(hash(&case.input, "root_m"), naive::root(&all[..m]));
            assert_eq!(hash(&case.input, "root_n"), naive::root(&all[..n]));
            let path = if m == 0 {
                vec![]
            } else {
                naive::consistency(m, &all[..n])
            };
            assert_eq!(hashes(&case.input, "path"), path, "{}", case.name);
        }
    }
    assert_eq!((trees, good, bad), (22, 113, 26));
}

#[test]
fn l7_the_independent_trees_are_ours() {
    for case in cases("independent/trees.json") {
        let leaves = hashes(&case.input, "leaves");
        let mut tree = Tree::of(leaves.clone());
        let size = leaves.len() as u64;
        assert_eq!(hash(&case.output, "root"), tree.peaks.root(), "{}", case.name);
        let Some(seq) = case.input.get("seq").and_then(Value::as_unsigned) else {
            let peaks = hashes(&case.output, "peaks");
            assert_eq!(peaks, tree.peaks.as_slice(), "{}", case.name);
            assert_eq!(Peaks::from_parts(size, peaks), Some(tree.peaks), "{}", case.name);
            continue;
        };
        let path = hashes(&case.output, "path");
        assert_eq!(number(&case.output, "index"), seq - 1, "{}", case.name);
        assert_eq!(
            merkle::inclusion_path(seq - 1, size, &mut tree),
            Ok(path.clone()),
            "{}",
            case.name
        );
        let leaf = &leaves[seq as usize - 1];
        assert!(
            merkle::verify_inclusion(leaf, seq - 1, size, &path, &tree.peaks.root()),
            "{}",
            case.name
        );
    }
}

#[test]
fn k6_the_independent_checkpoints_are_ours() {
    for case in cases("independent/checkpoints.json") {
        let checkpoint = Checkpoint {
            origin: checkpoint::origin(text(&case.input, "audience"), text(&case.input, "thread_id")),
            size: number(&case.input, "size"),
            root: hash(&case.input, "root"),
            time_ms: number(&case.input, "time"),
        };
        let secret = SecretKey::from_seed(&hex_decode_array(text(&case.input, "seed")).unwrap());
        let server: PublicKey = text(&case.output, "server_key").parse().unwrap();
        assert_eq!(secret.public(), server, "{}", case.name);
        let note = text(&case.output, "note");
        assert_eq!(checkpoint.sign(&secret), note, "{}", case.name);
        assert_eq!(
            Checkpoint::verify(note, &checkpoint.origin, &server),
            Ok(checkpoint.clone()),
            "{}",
            case.name
        );
    }
}

#[test]
fn l7_the_independent_content_hashes_are_ours() {
    for case in cases("independent/content-hash.json") {
        let body = Canonical::of(case.input.get("body").unwrap());
        assert_eq!(body.as_str(), text(&case.output, "canonical"), "{}", case.name);
        assert_eq!(body.hash(), hash(&case.output, "content_hash"), "{}", case.name);
    }
}

/// The canonical text by another library.
fn canonical(text: &str) -> String {
    let value: serde_json::Value = serde_json::from_str(text).unwrap();
    serde_json_canonicalizer::to_string(&value).unwrap()
}

fn lines(lines: &[&str]) -> String {
    lines.join("\n")
}

/// `<seq> <root>`, or nothing.
fn seen_line(object: Option<&Value>) -> String {
    match object.and_then(Value::as_array) {
        Some([seq, root]) => format!("{} {}", seq.as_unsigned().unwrap(), root.as_str().unwrap()),
        _ => String::new(),
    }
}

#[test]
fn k1_signed_texts_are_the_lines_that_the_rules_name() {
    for case in cases("signing.json") {
        let at = |name| text(&case.input, name);
        let signed = if case.input.contains("challenge") {
            lines(&[
                "choir.v1 auth",
                at("audience"),
                at("connection_id"),
                at("challenge"),
                at("client_id"),
                at("method"),
            ])
        } else {
            let hash = Hash::of(canonical(at("payload")).as_bytes()).to_hex();
            assert_eq!(text(&case.output, "payload_hash"), hash, "{}", case.name);
            lines(&[
                "choir.v1 action",
                at("audience"),
                at("user_id"),
                at("id"),
                at("type"),
                at("thread_id"),
                &number(&case.input, "timestamp").to_string(),
                &seen_line(case.input.get("seen")),
                &hash,
            ])
        };
        assert_eq!(text(&case.output, "text"), signed, "{}", case.name);
        let valid = case.output.get("valid").and_then(Value::as_bool).unwrap();
        assert_eq!(valid, !case.name.contains("bad: "), "{}", case.name);
        assert_eq!(valid, case.input.contains("seed"), "{}", case.name);
        if valid {
            let seed = hex_decode_array(text(&case.input, "seed")).unwrap();
            let signature = SecretKey::from_seed(&seed).sign(signed.as_bytes());
            let name = if case.input.contains("sig") { "sig" } else { "signature" };
            assert_eq!(at(name), signature.to_string(), "{}", case.name);
        }
    }
}

#[test]
fn l7_entries_are_hashed_as_the_rule_says() {
    let (mut derived, mut erased, mut refused) = (0, 0, 0);
    for case in cases("entries.json") {
        let is_bad = case.name.starts_with("bad: ");
        if case.output.contains("refused") {
            assert!(is_bad, "{}", case.name);
            refused += 1;
            continue;
        }
        let entry = json::parse(text(&case.input, "entry")).unwrap();
        let entry = entry.into_object().unwrap();
        let proof = entry.get("proof").and_then(Value::as_object);
        let at = |name| text(&entry, name);
        let holds = case.output.get("signature_holds").and_then(Value::as_bool);
        let is_signed = proof.is_some() && !is_bad;
        assert_eq!(holds, Some(is_signed), "{}", case.name);

        let hash = match entry.get("body") {
            Some(body) if !is_bad => {
                let body = choir_protocol::canonical::to_string(body);
                Some(Hash::of(canonical(&body).as_bytes()).to_hex())
            }
            _ => {
                erased += 1;
                entry.get("content_hash").map(|_| at("content_hash").to_owned())
            }
        };
        let given = case.output.get("content_hash").and_then(Value::as_str);
        assert_eq!(given, hash.as_deref(), "{}", case.name);

        let Some(inner) = case.output.get("inner").and_then(Value::as_str) else {
            assert!(proof.is_none() && at("author") != "choir", "{}", case.name);
            continue;
        };
        derived += usize::from(proof.is_none());
        let sent_at = proof.map_or(String::new(), |proof| number(proof, "sent_at").to_string());
        let expected = Hash::of(
            lines(&[
                "choir.v1 inner",
                at("id"),
                at("kind"),
                at("author"),
                &number(&entry, "timestamp").to_string(),
                &hash.unwrap(),
                &sent_at,
                &seen_line(proof.and_then(|proof| proof.get("seen"))),
                proof.map_or("", |proof| text(proof, "sig")),
            ])
            .as_bytes(),
        );
        assert_eq!(inner, expected.to_hex(), "{}", case.name);
        let leaf = lines(&[
            "\0choir.v1 entry",
            text(&case.input, "thread_id"),
            &number(&entry, "seq").to_string(),
            text(&case.output, "stream"),
            inner,
        ]);
        assert_eq!(hash_of(&leaf), text(&case.output, "leaf"), "{}", case.name);
    }
    assert_eq!((derived, erased, refused), (2, 5, 8));
}

fn hash_of(text: &str) -> String {
    Hash::of(text.as_bytes()).to_hex()
}

#[test]
fn l1_there_is_an_entry_of_every_kind() {
    let mut kinds: Vec<String> = cases("entries.json")
        .iter()
        .filter_map(|case| json::parse(text(&case.input, "entry")).ok())
        .map(|entry| text(entry.as_object().unwrap(), "kind").to_owned())
        .collect();
    kinds.sort_unstable();
    for kind in Kind::KNOWN {
        assert!(kinds.iter().any(|other| other == kind.as_str()), "{kind}");
    }
}

#[test]
fn l5_entries_are_written_as_they_were_read() {
    for case in cases("entries.json") {
        let given = text(&case.input, "entry");
        let read = from_value::<Entry>(&json::parse(given).unwrap());
        assert_eq!(read.is_err(), case.output.contains("refused"), "{}", case.name);
        let is_verbatim = !["without verify: ", "a known kind's", "unknown fields"]
            .iter()
            .any(|prefix| case.name.starts_with(prefix));
        if let Ok(entry) = read
            && is_verbatim
        {
            let written = canonical(&serde_json::to_string(&entry).unwrap());
            assert_eq!(written, canonical(given), "{}", case.name);
        }
    }
}

#[test]
fn l8_ranges_end_at_the_root_of_the_whole_log() {
    let all = cases("ranges.json");
    let whole = all[0].output.get("leaves").and_then(Value::as_object).unwrap();
    let whole: Vec<Hash> = (1..=whole.len()).map(|seq| hash(whole, &seq.to_string())).collect();
    for case in &all {
        let is_bad = case.name.starts_with("bad: ");
        assert_eq!(case.output.contains("error"), is_bad, "{}", case.name);
        let Some(cursor) = case.output.get("cursor").and_then(Value::as_object) else {
            continue;
        };
        let seq = number(cursor, "seq") as usize;
        assert_eq!(hash(cursor, "root"), naive::root(&whole[..seq]), "{}", case.name);
        let leaves = case.output.get("leaves").and_then(Value::as_object).unwrap();
        for (seq, leaf) in leaves.iter() {
            let at = seq.parse::<usize>().unwrap() - 1;
            assert_eq!(leaf.as_str(), Some(whole[at].to_hex().as_str()), "{}", case.name);
        }
    }
}
