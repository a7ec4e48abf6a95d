//! The vectors that this crate makes, as the text of their files. Shared by the program that writes
//! them and the test that compares them, so that neither can drift.
#![allow(
    dead_code,
    reason = "each program and test that includes this uses another part of it"
)]
#![allow(clippy::unwrap_used, reason = "what can't be unwrapped would be no vector")]

mod canonical;
pub(crate) mod ed25519;
mod encoding;
mod entries;
mod json;
pub(crate) mod log;
pub(crate) mod merkle;
pub(crate) mod messages;
mod ranges;
mod signing;

use choir_protocol::canonical::to_string;
use choir_protocol::json::{Object, Value};

/// Each file's name in `vectors/`, and its text.
pub(crate) fn files() -> Vec<(&'static str, String)> {
    vec![
        ("canonical.json", file(canonical::cases())),
        ("ed25519.json", file(ed25519::cases())),
        ("encoding.json", file(encoding::cases())),
        ("entries.json", file(entries::cases())),
        ("json.json", file(json::cases())),
        ("merkle.json", file(merkle::cases())),
        ("messages.json", file(messages::cases())),
        ("ranges.json", file(ranges::cases())),
        ("signing.json", file(signing::cases())),
    ]
}

/// One case: what goes in, and what must come out.
pub(crate) struct Case {
    pub(crate) name: String,
    rules: &'static [&'static str],
    pub(crate) input: Object,
    pub(crate) output: Object,
}

impl Case {
    fn new(name: impl Into<String>, rules: &'static [&'static str], input: Object, output: Object) -> Case {
        Case {
            name: name.into(),
            rules,
            input,
            output,
        }
    }
}

/// One case to a line, so that a change of one shows as one.
fn file(cases: Vec<Case>) -> String {
    let lines: Vec<String> = cases
        .into_iter()
        .map(|case| {
            format!(
                r#"{{"name": {}, "rules": {}, "in": {}, "out": {}}}"#,
                to_string(&case.name.into()),
                to_string(&Value::from(case.rules.to_vec())),
                to_string(&case.input.into()),
                to_string(&case.output.into()),
            )
        })
        .collect();
    ascii(&format!("[\n{}\n]\n", lines.join(",\n")))
}

/// The same JSON with everything beyond ASCII escaped: editors drop or hide some of what the cases
/// are about.
fn ascii(json: &str) -> String {
    let mut text = String::new();
    for character in json.chars() {
        if character < '\u{7f}' {
            text.push(character);
        } else {
            let units = character.encode_utf16(&mut [0; 2]).to_vec();
            text.extend(units.iter().map(|unit| format!("\\u{unit:04x}")));
        }
    }
    text
}

fn hex(bytes: &[u8]) -> String {
    choir_protocol::encoding::hex_encode(bytes)
}
