//! Runs public test corpora against this crate, and fails on a difference.
//!
//! ```text
//! cargo run -p choir-protocol --example corpora -- FOLDER
//! ```
//!
//! The folder holds, each in a folder of its own, the expectations of the protocol and the files
//! that they are about:
//!
//! - `json/expected.tsv` with JSONTestSuite and our own cases (E1): what the server answers to each
//!   as a whole message, and as a field of a payload;
//! - `jcs/`: the samples and the numbers of RFC 8785's author;
//! - `ed25519/expected_strict.tsv` (K2): Wycheproof, speccheck and CCTV;
//! - `utf8/`: Markus Kuhn's stress test and utf8tests.

use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

use choir_protocol::json::{self, JsonError, Number};
use choir_protocol::key::{self, PublicKey, Signature};
use choir_protocol::{canonical, encoding};

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let Some(folder) = std::env::args_os().nth(1) else {
        eprintln!("usage: cargo run -p choir-protocol --example corpora -- FOLDER");
        return Ok(ExitCode::FAILURE);
    };
    let folder = Path::new(&folder);
    let mut tally = Tally::default();
    json_texts(&folder.join("json"), &mut tally)?;
    canonical_texts(&folder.join("jcs"), &mut tally)?;
    numbers(&folder.join("jcs/es6numbers_10000.csv"), &mut tally)?;
    signatures(&folder.join("ed25519/expected_strict.tsv"), &mut tally)?;
    utf8(&folder.join("utf8"), &mut tally)?;
    println!("{} differences", tally.differences);
    Ok(if tally.differences == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

#[derive(Default)]
struct Tally {
    differences: usize,
}

impl Tally {
    fn check(&mut self, case: &str, holds: bool) {
        if !holds {
            println!("DIFFERENCE: {case}");
            self.differences += 1;
        }
    }
}

fn json_texts(folder: &Path, tally: &mut Tally) -> Result<(), Box<dyn Error>> {
    let (mut good, mut bad, mut not_utf8) = (0, 0, 0);
    for line in fs::read_to_string(folder.join("expected.tsv"))?.lines() {
        let columns: Vec<&str> = line.split('\t').collect();
        let &[file, _, why_a, answer, why_b] = columns.as_slice() else {
            continue;
        };
        if file == "file" {
            continue;
        }
        let case = fs::read(folder.join(file))?;
        let spliced = [b"{\"payload\":{\"x\":", case.as_slice(), b"}}"].concat();
        // Whether the text is JSON as E1 has it is the same question for both columns: what column
        // A refuses beyond that isn't an envelope, which is no concern of the parser's.
        let whole = json::parse_bytes(&case);
        let inside = json::parse_bytes(&spliced);
        let as_due = match answer {
            "reply" => {
                good += 1;
                whole.is_ok() && inside.is_ok()
            }
            "close1007" => {
                not_utf8 += 1;
                whole == Err(JsonError::NotUtf8) && inside == Err(JsonError::NotUtf8)
            }
            _ => {
                bad += 1;
                whole.is_err_and(|error| fits(&error, if why_a == "not an envelope" { why_b } else { why_a }))
                    && inside.is_err_and(|error| fits(&error, why_b))
            }
        };
        tally.check(file, as_due);
    }
    println!("json: {good} good, {bad} refused, {not_utf8} not UTF-8, each alone and inside a payload");
    Ok(())
}

/// Whether the error is the one that the corpus's words stand for.
fn fits(error: &JsonError, why: &str) -> bool {
    match error {
        JsonError::DuplicateName(_) => why == "duplicate key",
        JsonError::TooDeep(_) => why == "deeper than 32",
        JsonError::NumberOutOfBounds(_) => why.contains("beyond 2^53-1") || why == "number beyond double",
        JsonError::ByteOrderMark => why.starts_with("byte order mark"),
        JsonError::Syntax { .. } => why.starts_with("not JSON") || why == "lone surrogate",
        _ => false,
    }
}

fn canonical_texts(folder: &Path, tally: &mut Tally) -> Result<(), Box<dyn Error>> {
    let (mut written, mut out_of_bounds) = (0, 0);
    for file in fs::read_dir(folder.join("input"))? {
        let name = file?.file_name();
        let input = fs::read_to_string(folder.join("input").join(&name))?;
        let output = fs::read_to_string(folder.join("output").join(&name))?;
        let name = name.to_string_lossy();
        match json::parse(&input) {
            Ok(value) => {
                written += 1;
                tally.check(&name, canonical::to_string(&value) == output.trim_end_matches('\n'));
            }
            // One sample has a 1E30, which E1 refuses. The number is among those below.
            Err(JsonError::NumberOutOfBounds(_)) => {
                out_of_bounds += 1;
                tally.check(&name, input.contains("1E30"));
            }
            Err(error) => tally.check(&format!("{name}: {error}"), false),
        }
    }
    println!("jcs: {written} samples, {out_of_bounds} refused for a number above 2^53 - 1");
    Ok(())
}

fn numbers(file: &Path, tally: &mut Tally) -> Result<(), Box<dyn Error>> {
    let (mut inside, mut outside) = (0, 0);
    for line in fs::read_to_string(file)?.lines() {
        let (bits, text) = line.split_once(',').ok_or("a line without comma")?;
        let double = f64::from_bits(u64::from_str_radix(bits, 16)?);
        let mut written = String::new();
        canonical::write_double(double, &mut written);
        tally.check(line, written == text);
        match Number::try_from(double) {
            Ok(number) => {
                inside += 1;
                tally.check(line, number.to_string() == text);
                // And back through the door: the tokenizer rounds to the same double.
                tally.check(
                    line,
                    json::parse(text).is_ok_and(|value| value.as_number() == Some(number)),
                );
            }
            Err(_) => {
                outside += 1;
                tally.check(line, json::parse(text).is_err());
            }
        }
    }
    println!("numbers: {inside} in bounds, {outside} beyond 2^53 - 1");
    Ok(())
}

fn signatures(file: &Path, tally: &mut Tally) -> Result<(), Box<dyn Error>> {
    let (mut accepted, mut refused) = (0, 0);
    for line in fs::read_to_string(file)?.lines() {
        let columns: Vec<&str> = line.split('\t').collect();
        let &[source, id, expected, _, _, key, message, signature] = columns.as_slice() else {
            continue;
        };
        if source == "source" {
            continue;
        }
        // A key or signature of another length gets no further than its type.
        let key = encoding::hex_decode_array(key).map(PublicKey::from_bytes);
        let signature = encoding::hex_decode_array(signature).map(Signature::from_bytes);
        let holds = match (key, signature) {
            (Ok(key), Ok(signature)) => key::verify(&key, &encoding::hex_decode(message)?, &signature),
            _ => false,
        };
        if holds {
            accepted += 1;
        } else {
            refused += 1;
        }
        tally.check(&format!("{source} {id}"), holds == (expected == "accept"));
    }
    println!("ed25519: {accepted} accepted, {refused} refused");
    Ok(())
}

fn utf8(folder: &Path, tally: &mut Tally) -> Result<(), Box<dyn Error>> {
    let (mut good, mut bad) = (0, 0);
    for file in ["UTF-8-test.txt", "utf8tests.bin"] {
        for line in fs::read(folder.join(file))?.split(|byte| *byte == b'\n') {
            let found = json::parse_bytes(line) != Err(JsonError::NotUtf8);
            if found {
                good += 1;
            } else {
                bad += 1;
            }
            tally.check(
                &format!("{file}: {}", line.escape_ascii()),
                found == std::str::from_utf8(line).is_ok(),
            );
        }
    }
    println!("utf8: {good} lines are UTF-8, {bad} are not");
    Ok(())
}
