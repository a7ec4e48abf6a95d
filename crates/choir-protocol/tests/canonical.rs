//! Canonical JSON (RFC 8785), and the type that stands for a text of it.
#![allow(clippy::unwrap_used, reason = "what can't be unwrapped fails the test")]

use choir_protocol::canonical::{self, Canonical};
use choir_protocol::hash::Hash;
use choir_protocol::json::{self, Number, Value, object};
use proptest::prelude::*;

fn canonical(text: &str) -> String {
    canonical::to_string(&json::parse(text).unwrap())
}

#[test]
fn l2_every_spelling_of_a_value_has_one_canonical_text() {
    let spellings = [
        r#"{"n":[1,0.5],"s":"é/\n"}"#,
        "{ \"s\" : \"\\u00e9\\/\\u000A\",\r\n\t\"n\" : [ 10e-1 , 5E-1 ] }",
        r#"{"n":[1.0,0.50],"\u0073":"\u00E9/\n"}"#,
    ];
    for text in spellings {
        assert_eq!(canonical(text), r#"{"n":[1,0.5],"s":"é/\n"}"#);
    }
}

#[test]
fn l2_strings_are_escaped_no_more_than_needed() {
    let all: String = (0..=0x7f)
        .map(char::from)
        .chain("\u{80}é\u{2028}\u{feff}😀".chars())
        .collect();
    let mut written = String::new();
    canonical::write_string(&all, &mut written);
    let expected = concat!(
        r#""\u0000\u0001\u0002\u0003\u0004\u0005\u0006\u0007\b\t\n\u000b\f\r\u000e\u000f"#,
        r#"\u0010\u0011\u0012\u0013\u0014\u0015\u0016\u0017\u0018\u0019\u001a\u001b\u001c\u001d\u001e\u001f"#,
        r##" !\"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`"##,
        "abcdefghijklmnopqrstuvwxyz{|}~\u{7f}\u{80}é\u{2028}\u{feff}😀\"",
    );
    assert_eq!(written, expected);
}

#[test]
fn l2_minus_zero_is_zero() {
    assert_eq!(canonical("[-0,-0.0,-0e5,-1e-999]"), "[0,0,0,0]");
}

#[test]
fn l2_a_double_that_is_no_number_is_null() {
    for double in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let mut text = String::new();
        canonical::write_double(double, &mut text);
        assert_eq!(text, "null");
    }
}

#[test]
fn l7_the_hash_is_that_of_the_text() {
    let body = Canonical::of(&json::parse(r#"{"salt":"", "message": "x"}"#).unwrap());
    assert_eq!(body.as_str(), r#"{"message":"x","salt":""}"#);
    assert_eq!(body.hash(), Hash::of(br#"{"message":"x","salt":""}"#));
    assert_eq!(Canonical::of_object(&object! { "salt": "", "message": "x" }), body);
    let stored = Canonical::from_trusted_storage(body.as_str());
    assert_eq!(stored.hash(), body.hash());
    assert_eq!(Canonical::of(&stored.to_value().unwrap()), body);
}

proptest! {
    #[test]
    fn l2_canonical_is_idempotent_and_agrees_with_another_library(text in r#"([\[\]{}:,"\\ 0-9eE.-]|"[a-z]":|true|null|\\u[0-9a-f]{4}|"é😀"){0,24}"#) {
        if let Ok(value) = json::parse(&text) {
            let once = canonical::to_string(&value);
            prop_assert_eq!(&canonical(&once), &once);
            let foreign: serde_json::Value = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(once, serde_json_canonicalizer::to_string(&foreign).unwrap());
        }
    }

    #[test]
    fn l2_doubles_agree_with_another_library(double in any::<f64>()) {
        let mut text = String::new();
        canonical::write_double(double, &mut text);
        if double.is_finite() {
            prop_assert_eq!(&text, &serde_json_canonicalizer::to_string(&double).unwrap());
            prop_assert_eq!(text.parse::<f64>().unwrap(), double);
        }
    }

    #[test]
    fn l2_integers_are_written_as_doubles_are(integer in -json::MAX_INTEGER..=json::MAX_INTEGER) {
        let as_integer = Number::try_from(integer).unwrap();
        let as_double = Number::try_from(integer as f64).unwrap();
        prop_assert_eq!(as_integer.to_string(), as_double.to_string());
        prop_assert_eq!(Value::from(as_integer), Value::from(as_double));
    }

    #[test]
    fn l2_strings_agree_with_another_library(text: String) {
        let mut written = String::new();
        canonical::write_string(&text, &mut written);
        prop_assert_eq!(written, serde_json_canonicalizer::to_string(&text).unwrap());
    }
}
