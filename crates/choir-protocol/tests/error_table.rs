//! What this crate says of types, errors and limits, against the tables of `docs/protocol.md`.
#![allow(clippy::unwrap_used, reason = "what can't be unwrapped fails the test")]

use std::collections::BTreeMap;

use choir_protocol::action::Action;
use choir_protocol::entry::Kind;
use choir_protocol::error::{ErrorCode, close};
use choir_protocol::message::{HeartbeatTimes, Limits};

mod making;

use making::messages::{From, types};

const DOCUMENT: &str = include_str!("../../../docs/protocol.md");

/// The text between this heading and the next.
fn section(number: &str) -> &'static str {
    let start = DOCUMENT.find(&format!("\n## {number}. ")).unwrap() + 1;
    let text = &DOCUMENT[start..];
    &text[..text[1..].find("\n## ").map_or(text.len(), |end| end + 1)]
}

/// The cells of a table's rows: of the one whose heading begins with this.
fn table(text: &'static str, heading: &str) -> Vec<Vec<&'static str>> {
    text.lines()
        .skip_while(|line| !line.starts_with(heading))
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .map(|line| {
            let cells = line.strip_prefix('|').unwrap().strip_suffix('|').unwrap();
            cells.split('|').map(str::trim).collect()
        })
        .collect()
}

/// What stands in backticks, each with the text up to the next.
fn quoted(cell: &str) -> Vec<(&str, &str)> {
    let parts: Vec<&str> = cell.split('`').collect();
    parts
        .get(1..)
        .unwrap_or_default()
        .chunks(2)
        .map(|pair| (pair[0], pair.get(1).copied().unwrap_or_default()))
        .collect()
}

/// Each code of section 11, with the names of its rows, and whether it is retryable.
fn codes() -> BTreeMap<&'static str, (Vec<&'static str>, bool)> {
    let mut codes = BTreeMap::<_, (Vec<_>, bool)>::new();
    for row in table(section("11"), "| specification's name |") {
        let &[name, _, cell] = row.as_slice() else {
            panic!("{row:?}")
        };
        for (code, after) in quoted(cell) {
            let retryable = after.trim_start().starts_with('r');
            let known = codes.entry(code).or_insert((vec![], retryable));
            assert_eq!(known.1, retryable, "{code} is retryable in one row alone");
            known.0.push(name);
        }
    }
    codes
}

#[test]
fn section_11_names_the_codes_and_whether_they_are_retryable() {
    let mut table = codes();
    // What a client finds by itself is never sent.
    assert_eq!(table.remove("connection_lost"), Some((vec!["ConnectionLost"], true)));
    for code in ErrorCode::ALL {
        let (_, retryable) = table
            .remove(code.as_str())
            .unwrap_or_else(|| panic!("{code} isn't in the document"));
        assert_eq!(code.retryable(), retryable, "{code}");
        assert_eq!(code.as_str().parse(), Ok(code));
    }
    assert!(table.is_empty(), "not in ErrorCode: {table:?}");
}

#[test]
fn section_11_gives_each_code_the_specifications_name() {
    let table = codes();
    for code in ErrorCode::ALL {
        let (names, _) = &table[code.as_str()];
        let name = code.specification_name().to_string();
        match names.iter().find(|name| !name.is_empty()) {
            Some(named) => assert_eq!(&name, named, "{code}"),
            // The document names only those that the specification did.
            None if code == ErrorCode::HeartbeatTimeout => assert_eq!(name, "ConnectionLost"),
            None => assert_eq!(name, "MessageDeliveryFailed", "{code}"),
        }
    }
}

#[test]
fn section_11_lists_the_close_codes() {
    let line = section("11")
        .lines()
        .find_map(|line| line.strip_prefix("Close codes: "))
        .unwrap();
    let words = line.split(|c: char| !c.is_ascii_digit());
    let mut listed: Vec<u16> = words
        .filter(|word| word.len() == 4)
        .map(|word| word.parse().unwrap())
        .collect();
    listed.sort_unstable();
    listed.dedup();
    let ours = [
        close::NORMAL,
        close::PROTOCOL_ERROR,
        close::NOT_UTF8,
        close::TOO_LARGE,
        close::RESTART,
        close::INVALID_MESSAGE,
        close::AUTHENTICATION,
        close::DENIED,
        close::HEARTBEAT,
        close::SUPERSEDED,
        close::UPGRADE_REQUIRED,
        close::RATE_LIMITED,
        close::INTERNAL,
    ];
    assert_eq!(listed, ours);
}

#[test]
fn section_12_gives_the_defaults_of_the_limits_in_hello() {
    let mut documented = BTreeMap::new();
    for row in table(section("12"), "| limit |") {
        let names = quoted(row[0]);
        let marked = names.iter().filter(|(_, after)| {
            let own = after.split(',').next().unwrap_or_default();
            own.contains('◦') || names.len() > 1 && row[0].contains('◦')
        });
        for ((name, _), value) in marked.zip(row[1].split(", ")) {
            let digits: String = value.chars().filter(char::is_ascii_digit).collect();
            let unit = if value.contains("KiB") { 1024 } else { 1 };
            documented.insert((*name).to_owned(), digits.parse::<u64>().unwrap() * unit);
        }
    }
    let ours = serde_json::to_string(&Limits::default()).unwrap();
    let ours: BTreeMap<String, u64> = serde_json::from_str(&ours).unwrap();
    assert_eq!(ours, documented);
}

#[test]
fn c1_gives_the_defaults_of_the_heartbeat() {
    let HeartbeatTimes {
        interval_ms,
        timeout_ms,
    } = HeartbeatTimes::default();
    let text = format!("{{interval_ms: {interval_ms}, timeout_ms: {timeout_ms}}}");
    assert!(section("4").contains(&text));
}

fn sorted<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut names: Vec<&str> = names.collect();
    names.sort_unstable();
    names.dedup();
    names
}

#[test]
fn section_3_names_the_types_of_both_directions() {
    let rows = table(section("3"), "| category |");
    assert_eq!(rows.len(), 5);
    for (cell, from) in [(1, From::Client), (2, From::Server)] {
        let documented = sorted(rows.iter().flat_map(|row| quoted(row[cell])).map(|(name, _)| name));
        let types = types();
        let ours = types.iter().filter(|t| t.from == from).map(|t| t.name);
        assert_eq!(sorted(ours), documented);
    }
}

#[test]
fn section_7_names_the_actions_that_are_signed() {
    let rows = table(section("7"), "| action |");
    let documented = rows.iter().flat_map(|row| quoted(row[0])).map(|(name, _)| name);
    assert_eq!(sorted(Action::TYPES.into_iter()), sorted(documented));

    // And which kind's body each is, but for a message, which may become a spec.
    let row = rows.iter().find(|row| row[0].contains("revise_spec")).unwrap();
    for ((action, _), (kind, _)) in quoted(row[0]).into_iter().zip(quoted(row[1])) {
        let kind: Kind = kind.parse().unwrap();
        assert_eq!(kind.action_type(), Some(action));
    }
}

#[test]
fn l1_names_the_kinds_and_their_streams() {
    let rows = table(section("6"), "| kind |");
    assert_eq!(rows.len(), Kind::KNOWN.len());
    for (row, kind) in rows.iter().zip(Kind::KNOWN) {
        assert_eq!(row[0].trim_matches('`'), kind.as_str());
        assert_eq!(kind.stream().unwrap().as_str(), row[1], "{kind}");
        let derived = row[2].ends_with("derived");
        assert_eq!(kind.action_type().is_none(), derived, "{kind}");
    }
}
