//! Texts that the strict door lets in or refuses (E1). Where the text isn't UTF-8 it is given in hex.

use choir_protocol::json::{self, JsonError};
use choir_protocol::{canonical, object};

use super::{Case, hex};

/// A name, and the text.
const TEXTS: &[(&str, &str)] = &[
    ("null", "null"),
    ("false and true", "[false,true]"),
    ("a string alone", "\"choir\""),
    ("an empty object", "{}"),
    ("white space of all four kinds", " \t\r\n[ \t\r\n1 \t\r\n] \t\r\n"),
    (
        "names come out in UTF-16 order",
        r#"{"\ufb33":1,"\ud83d\ude00":2,"b":3,"a":4,"":5}"#,
    ),
    (
        "a name that a prototype has",
        r#"{"__proto__":{"x":1},"constructor":2}"#,
    ),
    (
        "names that differ in normalisation only",
        "{\"\u{e9}\":1,\"e\u{301}\":2}",
    ),
    ("names that differ in case only", r#"{"a":1,"A":2}"#),
    ("one name at two depths", r#"{"a":{"a":[{"a":1}]}}"#),
    ("every short escape", r#""\"\\\/\b\f\n\r\t""#),
    ("escapes of what needs none", r#""\u0061\u00e9\u20AC""#),
    ("a surrogate pair", r#""\ud834\udd1e\uD83D\uDE00""#),
    ("U+0000 by escape", r#"{"\u0000":"\u0000"}"#),
    ("noncharacters by escape", r#""\ufdd0\uffff\ud83f\udfff""#),
    ("noncharacters as they are", "\"\u{fdd0}\u{fffe}\u{10ffff}\""),
    ("U+2028, U+2029 and U+007F as they are", "\"\u{2028}\u{2029}\u{7f}\""),
    ("U+FEFF inside a string", "\"\u{feff}\""),
    ("2^53 - 1", "9007199254740991"),
    ("-(2^53 - 1)", "-9007199254740991"),
    ("2^53 - 1 with an exponent", "9007199254740991e0"),
    ("2^53 - 1 with a fraction", "9007199254740991.0"),
    ("nearest to 2^53 - 1", "9007199254740991.4"),
    (
        "nearest to 2^53 - 1, by many digits",
        "0.90071992547409910000000000000000000000000000000001e16",
    ),
    ("zero, minus zero and minus zero with a fraction", "[0,-0,-0.0]"),
    ("one in four ways", "[1,1.0,1e0,10E-1]"),
    ("the smallest double", "5e-324"),
    ("underflow to zero", "1e-999"),
    (
        "rounding to even",
        "[0.1,1.00000000000000011102230246251565404,123456789012345.67]",
    ),
    (
        "32 arrays deep",
        "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]",
    ),
    (
        "32 deep, objects and arrays in turn",
        r#"{"a":[{"a":[{"a":[{"a":[{"a":[{"a":[{"a":[{"a":[{"a":[{"a":[{"a":[{"a":[{"a":[{"a":[{"a":[{"a":[0]}]}]}]}]}]}]}]}]}]}]}]}]}]}]}]}"#,
    ),
    (
        "33 arrays deep",
        "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]",
    ),
    (
        "33 deep, the innermost an object",
        "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[{}]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]",
    ),
    (
        "40 arrays deep and never closed",
        "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
    ),
    ("one name twice", r#"{"a":1,"a":2}"#),
    ("one name twice, with one value", r#"{"a":1,"a":1}"#),
    ("one name twice, once by escape", r#"{"a":1,"\u0061":2}"#),
    ("an empty name twice", r#"{"":1,"":1}"#),
    ("one name twice, with others between", r#"{"b":1,"a":1,"c":1,"b":2}"#),
    (
        "one name twice, beyond the BMP, once by escape",
        r#"{"😀":1,"\ud83d\ude00":2}"#,
    ),
    ("one name twice, deep inside", r#"{"x":[0,{"y":{"a":1,"a":2}}]}"#),
    ("a lone high surrogate", r#""\ud800""#),
    ("a lone low surrogate", r#""\udc00""#),
    ("a lone surrogate in a name", r#"{"\udead":1}"#),
    ("a high surrogate before another escape", r#""\ud800\n""#),
    ("surrogates the wrong way round", r#""\udd1e\ud834""#),
    ("two high surrogates", r#""\ud834\ud834""#),
    ("a leading U+FEFF", "\u{feff}{}"),
    ("a leading U+FEFF and nothing else", "\u{feff}"),
    ("2^53", "9007199254740992"),
    ("-2^53", "-9007199254740992"),
    ("2^53 with an exponent", "9007199254740.992e3"),
    ("nearest to 2^53, by a tie to even", "9007199254740991.5"),
    ("2^64", "18446744073709551616"),
    ("above bounds by its exponent", "1e16"),
    ("above bounds deep inside", r#"{"x":[{"y":-1e300}]}"#),
    ("beyond every double", "1e400"),
    ("beyond every double, negative", "-1e400"),
    ("NaN", "NaN"),
    ("Infinity", "Infinity"),
    ("a leading plus", "+1"),
    ("a leading zero", "01"),
    ("a hexadecimal number", "0x1F"),
    ("no digit before the point", ".5"),
    ("no digit after the point", "1."),
    ("no digit in the exponent", "1e"),
    ("a minus alone", "-"),
    ("a control character in a string", "\"\t\""),
    ("U+0000 in a string", "\"\0\""),
    ("an escape that JSON hasn't", r#""\x41""#),
    ("an escape cut short", r#""\u00""#),
    ("a string in single quotes", "'a'"),
    ("a string without end", "\"a"),
    ("a name without quotes", "{a:1}"),
    ("a name that is a number", "{1:1}"),
    ("a comma at the end of an array", "[1,]"),
    ("a comma at the end of an object", r#"{"a":1,}"#),
    ("no comma", "[1 2]"),
    ("no colon", r#"{"a" 1}"#),
    ("a comment", "[1]//"),
    ("a second value", "{}{}"),
    ("text behind the value", "1 x"),
    ("nothing", ""),
    ("white space alone", " \n"),
    ("white space that JSON hasn't", "[\u{a0}1]"),
    ("a form feed", "[\u{c}1]"),
    ("a capital letter in a literal", "True"),
    ("brackets that don't match", "[1}"),
];

/// A name, and the bytes. Every one breaks UTF-8.
const BYTES: &[(&str, &[u8])] = &[
    ("a byte that is never UTF-8", b"\"\xff\""),
    ("a continuation byte alone", b"\"\x80\""),
    ("a sequence cut short", b"\"\xe2\x82\""),
    ("an overlong slash", b"\"\xc0\xaf\""),
    ("a surrogate in UTF-8", b"\"\xed\xa0\x80\""),
    ("beyond U+10FFFF", b"\"\xf4\x90\x80\x80\""),
    ("UTF-16 with a byte order mark", b"\xff\xfe[\0]\0"),
    ("bad bytes behind the value", b"{}\xfe"),
];

pub(crate) fn cases() -> Vec<Case> {
    let texts = TEXTS.iter().map(|(name, text)| {
        let out = match json::parse(text) {
            Ok(value) => object! { "canonical": canonical::to_string(&value) },
            Err(error) => object! { "refused": word(&error) },
        };
        Case::new(*name, &["E1"], object! { "text": *text }, out)
    });
    let bytes = BYTES.iter().map(|(name, bytes)| {
        let refused = json::parse_bytes(bytes).map_or_else(|error| word(&error), |_| "no");
        Case::new(
            *name,
            &["E4"],
            object! { "hex": hex(bytes) },
            object! { "refused": refused },
        )
    });
    texts.chain(bytes).collect()
}

/// A word of the vectors for each error.
fn word(error: &JsonError) -> &'static str {
    match error {
        JsonError::NotUtf8 => "not UTF-8",
        JsonError::ByteOrderMark => "byte order mark",
        JsonError::Syntax { .. } => "not JSON",
        JsonError::DuplicateName(_) => "duplicate name",
        JsonError::NumberOutOfBounds(_) => "number out of bounds",
        JsonError::TooDeep(_) => "too deep",
        _ => "unknown",
    }
}
