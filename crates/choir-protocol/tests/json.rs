//! The strict door (E1): what it refuses, what it says, and what it costs.
#![allow(clippy::unwrap_used, reason = "what can't be unwrapped fails the test")]

use std::cmp::Ordering;
use std::time::{Duration, Instant};

use choir_protocol::canonical;
use choir_protocol::json::{
    JsonError, MAX_DEPTH, MAX_INTEGER, Number, NumberOutOfBounds, Object, Value, compare_names, object, parse,
    parse_bytes, parse_to_depth,
};
use proptest::prelude::*;

#[test]
fn e1_duplicate_names_are_refused_at_every_depth() {
    for text in [
        r#"{"a":1,"a":2}"#,
        r#"{"a":1,"\u0061":1}"#,
        r#"[[{"x":{"b":1,"a":2,"b":3}}]]"#,
        r#"{"😀":1,"\ud83d\ude00":2}"#,
        r#"{"":0,"":0}"#,
    ] {
        assert!(matches!(parse(text), Err(JsonError::DuplicateName(_))), "{text}");
    }
    assert!(parse(r#"{"a":{"a":1},"A":[{"a":2},{"a":3}]}"#).is_ok());
}

#[test]
fn e1_lone_surrogates_are_refused_in_values_and_names() {
    for text in [
        r#""\ud800""#,
        r#""\udfff""#,
        r#""\ud800x""#,
        r#""\udc00\ud800""#,
        r#"{"\ud800":1}"#,
    ] {
        assert!(matches!(parse(text), Err(JsonError::Syntax { .. })), "{text}");
    }
    assert_eq!(parse(r#""\ud83d\ude00""#).unwrap().as_str(), Some("😀"));
}

#[test]
fn e1_a_byte_order_mark_is_refused_at_the_start_only() {
    assert_eq!(parse("\u{feff}1"), Err(JsonError::ByteOrderMark));
    assert_eq!(parse_bytes(b"\xef\xbb\xbf1"), Err(JsonError::ByteOrderMark));
    assert_eq!(parse("\"\u{feff}\"").unwrap().as_str(), Some("\u{feff}"));
    assert!(parse(" \u{feff}1").is_err());
}

#[test]
fn e1_numbers_are_judged_by_the_double_nearest_to_them() {
    for text in [
        "9007199254740991",
        "-9007199254740991",
        "9007199254740991.4999",
        "90071992547409.91e2",
    ] {
        assert!(parse(text).is_ok(), "{text}");
    }
    for text in [
        "9007199254740992",
        "-9007199254740992",
        "9007199254740991.5",
        "1e16",
        "1e309",
        "-1e999999",
    ] {
        assert!(matches!(parse(text), Err(JsonError::NumberOutOfBounds(_))), "{text}");
    }
    let digits = "1".repeat(100_000);
    assert!(matches!(parse(&digits), Err(JsonError::NumberOutOfBounds(_))));
    assert_eq!(
        parse(&format!("0.{digits}")).unwrap().as_number().unwrap().as_f64(),
        1.0 / 9.0
    );
}

#[test]
fn e1_only_a_number_written_as_an_integer_is_one() {
    assert_eq!(parse("7").unwrap().as_integer(), Some(7));
    assert_eq!(parse("0").unwrap().as_integer(), Some(0));
    assert_eq!(parse("-7").unwrap().as_integer(), Some(-7));
    assert_eq!(parse("-7").unwrap().as_unsigned(), None);
    for text in ["7.0", "7e0", "70E-1", "-0", "-0.0", "0e0", "1e3"] {
        let value = parse(text).unwrap();
        assert_eq!(value.as_integer(), None, "{text}");
        assert!(value.as_number().is_some(), "{text}");
    }
}

#[test]
fn e1_nesting_ends_at_32() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert!(parse(&nested(MAX_DEPTH)).is_ok());
    assert!(matches!(parse(&nested(MAX_DEPTH + 1)), Err(JsonError::TooDeep(_))));
    assert!(matches!(parse(&"{\"a\":".repeat(100_000)), Err(JsonError::TooDeep(_))));
    assert!(parse(&format!("{}0{}", "{\"a\":".repeat(MAX_DEPTH), "}".repeat(MAX_DEPTH))).is_ok());
    // Side by side isn't inside one another.
    assert!(parse(&format!("[{}[]]", "[[]],".repeat(1_000))).is_ok());
}

#[test]
fn e1_what_carries_a_client_s_nesting_may_nest_deeper() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    for depth in [1, 2, MAX_DEPTH, MAX_DEPTH + 8] {
        assert!(parse_to_depth(&nested(depth), depth).is_ok(), "{depth}");
        assert!(
            matches!(parse_to_depth(&nested(depth + 1), depth), Err(JsonError::TooDeep(_))),
            "{depth}"
        );
    }
    assert!(parse_to_depth("0", 0).is_ok());
    assert!(matches!(parse_to_depth("{}", 0), Err(JsonError::TooDeep(_))));
}

#[test]
fn e1_noncharacters_are_let_in() {
    let text = "\"\u{fdd0}\u{ffff}\u{1fffe}\u{10ffff}\"";
    assert_eq!(canonical::to_string(&parse(text).unwrap()), text);
}

#[test]
fn e1_the_value_is_the_whole_text() {
    for text in ["", " ", "1 2", "{}x", "[]]", "null,", "1\0"] {
        assert!(matches!(parse(text), Err(JsonError::Syntax { .. })), "{text:?}");
    }
    assert!(parse(" \n\t\r{} \n\t\r").is_ok());
}

#[test]
fn e4_bytes_that_are_not_utf8_have_an_error_of_their_own() {
    for bytes in [&b"\"\xff\""[..], b"\xc0\x80", b"{\"a\":\"\xed\xa0\x80\"}", b"1\x80"] {
        assert_eq!(parse_bytes(bytes), Err(JsonError::NotUtf8));
    }
}

#[test]
fn errors_say_what_is_wrong_and_where() {
    let said = |text: &str| parse(text).unwrap_err().to_string();
    assert_eq!(
        said("{\n  \"a\": trux\n}"),
        "not JSON: expected ident at line 2 column 11"
    );
    assert_eq!(said("[1,"), "not JSON: EOF while parsing a value at line 1 column 3");
    assert_eq!(
        said(r#""\udc00""#),
        "not JSON: lone leading surrogate in hex escape at line 1 column 7"
    );
    assert_eq!(
        said(r#"{"a":1,"a":2}"#),
        "two members of one name in the object that ends at line 1 column 13"
    );
    assert_eq!(
        said("[1,1e16]"),
        "a number above 2^53 - 1 in magnitude at line 1 column 7"
    );
    assert_eq!(
        said("[1,1e400]"),
        "a number above 2^53 - 1 in magnitude at line 1 column 8"
    );
    assert_eq!(said(&"[".repeat(40)), "nested too deep at line 1 column 33");
    assert_eq!(said("\u{feff}"), "the text begins with a byte order mark (U+FEFF)");
    assert_eq!(parse_bytes(b"\xff").unwrap_err().to_string(), "not UTF-8");
}

#[test]
fn errors_hold_none_of_the_text() {
    let secret = "hunter2";
    for text in [
        format!("{{\"{secret}\":1,\"{secret}\":2}}"),
        format!("[\"{secret}\" x]"),
        format!("{{\"a\":{secret}}}"),
        format!("\"{secret}"),
        format!("\"{secret}\\q\""),
        format!("{{\"{secret}\" 1}}"),
    ] {
        let error = parse(&text).unwrap_err();
        assert!(!format!("{error} {error:?}").contains(secret), "{error}");
    }
}

#[test]
fn many_names_cost_no_more_than_their_sorting() {
    let object = |names: &mut dyn Iterator<Item = usize>| {
        let members: Vec<String> = names.map(|n| format!("\"{n:06}\":0")).collect();
        format!("{{{}}}", members.join(","))
    };
    // A quadratic door would take minutes for this.
    let many = 200_000;
    let start = Instant::now();
    for text in [object(&mut (0..many)), object(&mut (0..many).rev())] {
        assert_eq!(parse(&text).unwrap().as_object().unwrap().len(), many);
    }
    let twice = object(&mut (0..many).chain([0]));
    assert!(matches!(parse(&twice), Err(JsonError::DuplicateName(_))));
    let built: Object = (0..many).rev().map(|n| (n.to_string(), Value::Null)).collect();
    assert_eq!(built.len(), many);
    assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
}

#[test]
fn numbers_can_not_be_made_out_of_bounds() {
    assert_eq!(Number::try_from(MAX_INTEGER).unwrap().as_integer(), Some(MAX_INTEGER));
    assert_eq!(Number::try_from(-MAX_INTEGER).unwrap().as_integer(), Some(-MAX_INTEGER));
    assert_eq!(Number::try_from(MAX_INTEGER + 1), Err(NumberOutOfBounds));
    assert_eq!(Number::try_from(i64::MIN), Err(NumberOutOfBounds));
    assert_eq!(Number::try_from(u64::MAX), Err(NumberOutOfBounds));
    assert_eq!(Number::saturating(u64::MAX).as_integer(), Some(MAX_INTEGER));
    assert_eq!(Number::saturating(7).as_integer(), Some(7));
    for double in [
        f64::NAN,
        f64::INFINITY,
        f64::NEG_INFINITY,
        9_007_199_254_740_992.0,
        -1e300,
    ] {
        assert_eq!(Number::try_from(double), Err(NumberOutOfBounds));
    }
    assert_eq!(Number::try_from(0.5).unwrap().as_f64(), 0.5);
}

#[test]
fn numbers_are_equal_where_they_are_one_double() {
    let number = |text: &str| parse(text).unwrap().as_number().unwrap();
    assert_eq!(number("1"), number("10e-1"));
    assert_eq!(number("0"), number("-0"));
    assert_eq!(number("0.1"), number("0.10000000000000000555"));
    assert_ne!(number("1"), number("1.0000000000000002"));
}

#[test]
fn objects_keep_their_names_in_utf16_order() {
    let mut object = object! { "b": 1, "\u{ff61}": 2, "😀": 3, "a": 4 };
    assert_eq!(object.names().collect::<Vec<_>>(), ["a", "b", "😀", "\u{ff61}"]);
    assert_eq!(object.insert("b", true), Some(Value::from(1)));
    assert_eq!(object.insert("ab", "x"), None);
    assert_eq!(object.remove("a"), Some(Value::from(4)));
    assert_eq!(object.remove("a"), None);
    assert_eq!(object.names().collect::<Vec<_>>(), ["ab", "b", "😀", "\u{ff61}"]);
    assert_eq!(object.get("b"), Some(&Value::Bool(true)));
    assert_eq!(object.get(""), None);
    assert_eq!(object.len(), 4);
    let again: Object = object.clone().into_iter().collect();
    assert_eq!(again, object);
}

#[test]
fn of_equal_names_the_last_one_counts_when_an_object_is_collected() {
    let object: Object = [("a", 1), ("b", 2), ("a", 3), ("b", 4), ("a", 5)].into_iter().collect();
    assert_eq!(object, object! { "a": 5, "b": 4 });
}

#[test]
fn the_object_macro_leaves_out_what_is_none() {
    let (role, cause): (Option<&str>, Option<&str>) = (Some("owner"), None);
    let object = object! { "seq": 7, "role"?: role, "cause"?: cause, "acks": vec![1, 2], "inner": object! {} };
    assert_eq!(
        Value::from(object).to_string(),
        r#"{"acks":[1,2],"inner":{},"role":"owner","seq":7}"#
    );
    assert!(object! {}.is_empty());
}

/// Values as E1 allows them.
pub(crate) fn values() -> impl Strategy<Value = Value> {
    let double = any::<f64>().prop_map(|n| Number::try_from(n).unwrap_or(Number::from(0)));
    let small = (-1e6..1e6f64).prop_map(|n| Number::try_from(n).unwrap());
    let integer = (-MAX_INTEGER..=MAX_INTEGER).prop_map(|n| Number::try_from(n).unwrap());
    let text = prop_oneof![any::<String>(), "[\\x00-\\x7f\u{e000}\u{10000}é]{0,6}"];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        prop_oneof![double, small, integer].prop_map(Value::Number),
        text.clone().prop_map(Value::String),
    ];
    leaf.prop_recursive(6, 64, 8, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Value::Array),
            prop::collection::vec((text.clone(), inner), 0..8)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_written_comes_back(value in values()) {
        prop_assert_eq!(parse(&canonical::to_string(&value)), Ok(value));
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse_bytes(&bytes);
    }

    #[test]
    fn almost_json_never_panics(text in r#"([\[\]{}:,"\\ \n0-9eE.+-]|true|null|\\u[0-9a-f]{4}|"a"|😀){0,40}"#) {
        // Whatever is let in has a canonical form that is let in too.
        if let Ok(value) = parse(&text) {
            prop_assert_eq!(parse(&canonical::to_string(&value)), Ok(value));
        }
    }

    #[test]
    fn what_serde_json_refuses_is_refused(text in r#"[\[{]?("[a-c]":)?(-?[0-9]{1,3}([.][0-9]+)?(e[0-9])?|"(\\u[d0-9a-f]{4}|x)*"|null)[\]}]?"#) {
        if serde_json::from_str::<serde_json::Value>(&text).is_err() {
            prop_assert!(parse(&text).is_err());
        }
    }

    #[test]
    fn names_compare_as_their_utf16_units(a in "[a\u{7f}\u{80}\u{d7ff}\u{e000}\u{ffff}\u{10000}\u{10ffff}]{0,4}", b in any::<String>(), c in "[a\u{7f}\u{80}\u{d7ff}\u{e000}\u{ffff}\u{10000}\u{10ffff}]{0,4}") {
        for (x, y) in [(&a, &b), (&a, &c), (&b, &c), (&a, &a)] {
            let expected: Ordering = x.encode_utf16().cmp(y.encode_utf16());
            prop_assert_eq!(compare_names(x, y), expected);
        }
    }
}
