//! Canonical JSON (RFC 8785): the one text of a value, which is what gets hashed, signed and stored
//! (L2, L7, K1).

use alloc::string::String;
use alloc::sync::Arc;
use core::fmt::{self, Write};

use crate::hash::Hash;
use crate::json::{self, JsonError, Number, Value};

/// The canonical text of `value`.
#[must_use]
pub fn to_string(value: &Value) -> String {
    let mut text = String::new();
    write(value, &mut text);
    text
}

/// Appends the canonical text of `value`.
pub fn write(value: &Value, out: &mut String) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(true) => out.push_str("true"),
        Value::Bool(false) => out.push_str("false"),
        Value::Number(number) => write_number(*number, out),
        Value::String(text) => write_string(text, out),
        Value::Array(elements) => {
            out.push('[');
            for (at, element) in elements.iter().enumerate() {
                if at != 0 {
                    out.push(',');
                }
                write(element, out);
            }
            out.push(']');
        }
        Value::Object(object) => write_object(object, out),
    }
}

/// Appends the canonical text of an object. Its members are in order already.
pub fn write_object(object: &json::Object, out: &mut String) {
    out.push('{');
    for (at, (name, value)) in object.iter().enumerate() {
        if at != 0 {
            out.push(',');
        }
        write_string(name, out);
        out.push(':');
        write(value, out);
    }
    out.push('}');
}

/// Appends the canonical text of a number: as ECMAScript writes a double (RFC 8785 §3.2.2.3).
pub fn write_number(number: Number, out: &mut String) {
    match number.as_integer() {
        // ECMAScript writes no integer below 10^21 with an exponent, and these are below 2^53.
        // Writing to a string can't fail.
        Some(integer) => {
            let _ = write!(out, "{integer}");
        }
        None => write_double(number.as_f64(), out),
    }
}

/// As [`write_number`], for any double, also one beyond what E1 lets into a [`Number`]. What is no
/// number at all is `null`, as `JSON.stringify` has it.
pub fn write_double(double: f64, out: &mut String) {
    if double.is_finite() {
        out.push_str(ryu_js::Buffer::new().format_finite(double));
    } else {
        out.push_str("null");
    }
}

/// Appends a string in quotes, with the escapes of RFC 8785 §3.2.2.2 and no others.
pub fn write_string(text: &str, out: &mut String) {
    out.reserve(text.len() + 2);
    out.push('"');
    let mut rest = text;
    // All that is escaped is ASCII, so that every cut lies between two characters.
    while let Some(at) = rest
        .bytes()
        .position(|byte| byte < b' ' || byte == b'"' || byte == b'\\')
    {
        let (plain, tail) = rest.split_at(at);
        out.push_str(plain);
        let mut characters = tail.chars();
        match characters.next() {
            Some('"') => out.push_str("\\\""),
            Some('\\') => out.push_str("\\\\"),
            Some('\u{8}') => out.push_str("\\b"),
            Some('\t') => out.push_str("\\t"),
            Some('\n') => out.push_str("\\n"),
            Some('\u{c}') => out.push_str("\\f"),
            Some('\r') => out.push_str("\\r"),
            Some(control) => {
                let _ = write!(out, "\\u{:04x}", u32::from(control));
            }
            None => {}
        }
        rest = characters.as_str();
    }
    out.push_str(rest);
    out.push('"');
}

/// A text that is known to be canonical. Cheap to clone: it goes from the edge to the disk and to
/// every reader as it is, and is never written anew.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Canonical(Arc<str>);

impl Canonical {
    /// The canonical text of `value`.
    #[must_use]
    pub fn of(value: &Value) -> Canonical {
        Canonical(to_string(value).into())
    }

    /// The canonical text of an object.
    #[must_use]
    pub fn of_object(object: &json::Object) -> Canonical {
        let mut text = String::new();
        write_object(object, &mut text);
        Canonical(text.into())
    }

    /// A text that was canonical when it was stored, taken at its word. Only for what comes out of
    /// storage, where the caller compares [`hash`](Canonical::hash) with the one that was stored
    /// apart from it (L7). What comes from a peer is parsed, and written by [`Canonical::of`].
    #[must_use]
    pub fn from_trusted_storage(text: impl Into<Arc<str>>) -> Canonical {
        Canonical(text.into())
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its SHA-256: of a body, the `content_hash` (section 6).
    #[must_use]
    pub fn hash(&self) -> Hash {
        Hash::of(self.0.as_bytes())
    }

    /// The value that it is the text of.
    ///
    /// # Errors
    /// Only where storage broke its word.
    pub fn to_value(&self) -> Result<Value, JsonError> {
        json::parse(&self.0)
    }
}

impl fmt::Display for Canonical {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Canonical {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Canonical({})", self.0)
    }
}

impl AsRef<str> for Canonical {
    fn as_ref(&self) -> &str {
        &self.0
    }
}
