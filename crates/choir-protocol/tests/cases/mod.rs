//! The committed vectors, read.
#![allow(dead_code, reason = "each test that includes this uses another part of it")]

use std::fs;
use std::path::{Path, PathBuf};

use choir_protocol::de::from_value;
use choir_protocol::hash::Hash;
use choir_protocol::ids::Cursor;
use choir_protocol::json::{self, Object, Value};
use serde::de::DeserializeOwned;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../vectors")
}

pub(crate) fn read(name: &str) -> String {
    fs::read_to_string(folder().join(name)).unwrap_or_else(|error| panic!("vectors/{name}: {error}"))
}

/// One case of a file of vectors.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) input: Object,
    pub(crate) output: Object,
}

pub(crate) fn cases(file: &str) -> Vec<Case> {
    let Value::Array(cases) = json::parse(&read(file)).unwrap() else {
        panic!("{file} is no array")
    };
    assert!(!cases.is_empty());
    cases
        .into_iter()
        .map(|case| {
            let mut case = case.into_object().unwrap();
            Case {
                name: case.get("name").unwrap().as_str().unwrap().to_owned(),
                input: case.remove("in").unwrap().into_object().unwrap(),
                output: case.remove("out").unwrap().into_object().unwrap(),
            }
        })
        .collect()
}

pub(crate) fn text<'a>(object: &'a Object, name: &str) -> &'a str {
    object
        .get(name)
        .and_then(Value::as_str)
        .unwrap_or_else(|| panic!("no text {name}"))
}

pub(crate) fn number(object: &Object, name: &str) -> u64 {
    object
        .get(name)
        .and_then(Value::as_unsigned)
        .unwrap_or_else(|| panic!("no number {name}"))
}

pub(crate) fn hash(object: &Object, name: &str) -> Hash {
    text(object, name).parse().unwrap()
}

pub(crate) fn hashes(object: &Object, name: &str) -> Vec<Hash> {
    let elements = object.get(name).and_then(Value::as_array).unwrap();
    elements
        .iter()
        .map(|element| element.as_str().unwrap().parse().unwrap())
        .collect()
}

/// The value under this name, as a type of the protocol.
pub(crate) fn typed<T: DeserializeOwned>(object: &Object, name: &str) -> T {
    optional(object, name).unwrap_or_else(|| panic!("no {name}"))
}

/// The value under this name, where there is one, as a type of the protocol.
pub(crate) fn optional<T: DeserializeOwned>(object: &Object, name: &str) -> Option<T> {
    let value = object.get(name)?;
    Some(from_value(value).unwrap_or_else(|error| panic!("{name}: {error}")))
}

/// `[seq, root]`, or nothing.
pub(crate) fn seen(object: &Object) -> Option<Cursor> {
    let (seq, root) = optional(object, "seen")?;
    Some(Cursor { seq, root })
}
