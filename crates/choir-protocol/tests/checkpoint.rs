//! Checkpoints (K6) as C2SP signed notes.

use choir_protocol::checkpoint::{Checkpoint, CheckpointError, key_id, origin};
use choir_protocol::encoding::base64_encode;
use choir_protocol::hash::Hash;
use choir_protocol::key::{PublicKey, SecretKey};
use proptest::prelude::*;

const THREAD: &str = "01930000-0000-7000-8000-000000000050";

fn server() -> SecretKey {
    SecretKey::from_seed(&[5; 32])
}

fn sample() -> Checkpoint {
    Checkpoint {
        origin: origin("https://choir.example", THREAD),
        size: 20,
        root: Hash::of(b"root"),
        time_ms: 1_764_000_000_000,
    }
}

fn check(note: &str) -> Result<Checkpoint, CheckpointError> {
    Checkpoint::verify(note, &sample().origin, &server().public())
}

/// A note with this text that the server has signed.
fn signed(text: &str) -> String {
    format!("{text}\n{}", signature_line(&sample().origin, &server(), text))
}

fn signature_line(name: &str, key: &SecretKey, text: &str) -> String {
    let id = key_id(name, &key.public());
    format!(
        "— {name} {}\n",
        base64_encode(&[&id[..], key.sign(text.as_bytes()).as_bytes()].concat())
    )
}

fn text() -> String {
    let note = sample().sign(&server());
    note.split_inclusive('\n').take(4).collect()
}

#[test]
fn k6_a_note_has_four_lines_and_a_signature() {
    let note = sample().sign(&server());
    let lines: Vec<&str> = note.split('\n').collect();
    assert_eq!(lines.len(), 7);
    assert_eq!(lines[0], "choir.example/threads/01930000-0000-7000-8000-000000000050");
    assert_eq!(lines[1], "20");
    assert_eq!(lines[2], base64_encode(Hash::of(b"root").as_bytes()));
    assert_eq!(lines[3], "time 1764000000000");
    assert_eq!(lines[4], "");
    assert!(lines[5].starts_with("— choir.example/threads/01930000-0000-7000-8000-000000000050 "));
    assert_eq!(lines[6], "");
    assert_eq!(note, signed(&text()));
    assert_eq!(check(&note), Ok(sample()));
}

#[test]
fn k6_the_origin_is_the_audience_s_host_and_port() {
    for (audience, host) in [
        ("https://choir.example", "choir.example"),
        ("https://choir.example:8443", "choir.example:8443"),
        ("http://127.0.0.1:8080", "127.0.0.1:8080"),
        ("http://[::1]:8080", "[::1]:8080"),
    ] {
        assert_eq!(origin(audience, THREAD), format!("{host}/threads/{THREAD}"));
    }
}

#[test]
fn k6_signatures_by_other_keys_are_passed_over() {
    let (name, text) = (sample().origin, text());
    let ours = signature_line(&name, &server(), &text);
    let witness = signature_line("witness.example", &SecretKey::from_seed(&[6; 32]), &text);
    // Another name with our key's id, our name with another id, an unknown algorithm's length.
    let same_id = format!(
        "— other.example {}\n",
        base64_encode(&[&key_id(&name, &server().public())[..], &[0; 64]].concat())
    );
    let replaced = signature_line(&name, &SecretKey::from_seed(&[7; 32]), &text);
    let cosignature = format!("— witness.example {}\n", base64_encode(&[1; 76]));
    for lines in [
        [&ours, &witness].map(String::as_str).concat(),
        [&witness, &ours].map(String::as_str).concat(),
        [&same_id, &replaced, &cosignature, &ours].map(String::as_str).concat(),
        ours.repeat(2),
    ] {
        assert_eq!(check(&format!("{text}\n{lines}")), Ok(sample()), "{lines}");
    }
    for lines in [&witness, &same_id, &replaced, &cosignature] {
        assert_eq!(
            check(&format!("{text}\n{lines}")),
            Err(CheckpointError::NotSigned),
            "{lines}"
        );
    }
}

#[test]
fn k6_a_signature_of_ours_that_does_not_hold_spoils_the_note() {
    let (name, text) = (sample().origin, text());
    let good = signature_line(&name, &server(), &text);
    let bad = signature_line(&name, &server(), "another text\n");
    let short = format!(
        "— {name} {}\n",
        base64_encode(&[&key_id(&name, &server().public())[..], &[0; 63]].concat())
    );
    for lines in [bad.clone(), format!("{bad}{good}"), format!("{good}{bad}"), short] {
        assert_eq!(
            check(&format!("{text}\n{lines}")),
            Err(CheckpointError::Signature),
            "{lines}"
        );
    }
}

#[test]
fn k6_what_fails_is_named() {
    let lines: Vec<String> = text().lines().map(str::to_owned).collect();
    let with = |at: usize, line: &str| {
        let mut lines = lines.clone();
        lines[at] = line.to_owned();
        check(&signed(&(lines.join("\n") + "\n")))
    };
    assert_eq!(with(0, "other.example/threads/x"), Err(CheckpointError::Origin));
    for size in [
        "020",
        "+20",
        "-1",
        "",
        "2e1",
        " 20",
        "20 ",
        "9007199254740992",
        "99999999999999999999",
    ] {
        assert_eq!(with(1, size), Err(CheckpointError::Size), "{size}");
    }
    assert!(with(1, "0").is_ok() && with(1, "9007199254740991").is_ok());
    let root = Hash::of(b"root");
    let base64 = base64_encode(root.as_bytes());
    for root in [base64.trim_end_matches('='), &base64[4..], "", &root.to_hex()] {
        assert_eq!(with(2, root), Err(CheckpointError::Root), "{root}");
    }
    for time in [
        "time",
        "time ",
        "time 01",
        "Time 1",
        "time -1",
        "1764000000000",
        "time 1 ",
        "time  1",
    ] {
        assert_eq!(with(3, time), Err(CheckpointError::Time), "{time}");
    }
    let fifth = format!("{}extension\n", text());
    assert_eq!(
        check(&signed(&fifth)),
        Err(CheckpointError::Malformed("the text isn't four lines"))
    );
    let empty = format!("{}\n", text());
    assert_eq!(
        check(&signed(&empty)),
        Err(CheckpointError::Malformed("the text isn't four lines"))
    );
    let key = PublicKey::from_bytes([0; 32]);
    assert_eq!(
        Checkpoint::verify(&signed(&text()), &sample().origin, &key),
        Err(CheckpointError::Key)
    );
}

#[test]
fn k6_what_is_no_signed_note_is_malformed() {
    let (name, text) = (sample().origin, text());
    let good = signature_line(&name, &server(), &text);
    let broken = [
        String::new(),
        text.clone(),
        format!("{text}\n"),
        format!("{text}{good}"),
        format!("{text}\n{}", good.trim_end()),
        format!("{text}\n{good}\n"),
        format!("{text}\n{}", good.replace('—', "-")),
        format!("{text}\n{}", good.replace("— ", "—")),
        format!("{text}\n{good}not a signature\n"),
        format!("{text}\n{good}— name+plus AAAAAAAA\n"),
        format!("{text}\n{good}— no\u{a0}space AAAAAAAA\n"),
        format!("{text}\n{good}— name AAAA=\n"),
        format!("{text}\n{good}— name AAAAAA==\n"),
        format!("{text}\n{good}—  AAAAAAAA\n"),
        format!("{text}\n{}", good.replace('\n', "\r\n")),
        signed(&text.replace("20", "2\t0")),
        format!("{text}\n{good}{}", "— name AAAAAAAA\n".repeat(100)),
    ];
    for note in broken {
        assert!(
            matches!(check(&note), Err(CheckpointError::Malformed(_))),
            "{note:?}: {:?}",
            check(&note)
        );
    }
    // C2SP demands that 16 signatures are taken.
    assert!(check(&format!("{text}\n{good}{}", "— name AAAAAAAA\n".repeat(20))).is_ok());
}

proptest! {
    #[test]
    fn k6_notes_come_back(size in 0..(1u64 << 53), root: [u8; 32], time_ms in 0..(1u64 << 53)) {
        let checkpoint = Checkpoint { size, root: Hash::from_bytes(root), time_ms, ..sample() };
        prop_assert_eq!(check(&checkpoint.sign(&server())), Ok(checkpoint));
    }

    #[test]
    fn k6_no_altered_note_says_anything_else(at: prop::sample::Index, to: char) {
        let note = sample().sign(&server());
        let at = at.index(note.chars().count());
        let altered: String = note.chars().enumerate().map(|(n, c)| if n == at { to } else { c }).collect();
        if altered != note {
            prop_assert!(check(&altered).is_err());
        }
    }

    #[test]
    fn arbitrary_notes_never_panic(note in "([—a-z0-9+/= \n]|\n\n|— ){0,60}", any_text: String) {
        let _ = check(&note);
        let _ = check(&any_text);
    }
}
