//! Canonical JSON (RFC 8785): texts and what they become, and doubles and how they are written.

use choir_protocol::canonical::{self, Canonical};
use choir_protocol::{json, object};

use super::{Case, hex};

/// A name, and a text.
pub(crate) const TEXTS: &[(&str, &str)] = &[
    (
        "RFC 8785 section 3.2.2, without the number that E1 refuses",
        r#"{"numbers":[333333333.33333329,4.50,2e-3,0.000000000000000000000000001],"string":"\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/","literals":[null,true,false]}"#,
    ),
    (
        "RFC 8785 section 3.2.3",
        r#"{"\u20ac":"Euro Sign","\r":"Carriage Return","\ufb33":"Hebrew Letter Dalet With Dagesh","1":"One","\ud83d\ude00":"Emoji: Grinning Face","\u0080":"Control","\u00f6":"Latin Small Letter O With Diaeresis"}"#,
    ),
    (
        "json-canonicalization: arrays",
        "[\n  56,\n  {\n    \"d\": true,\n    \"10\": null,\n    \"1\": [ ]\n  }\n]\n",
    ),
    (
        "json-canonicalization: french",
        r#"{"peach":"This sorting order","péché":"is wrong according to French","pêche":"but canonicalization MUST","sin":"ignore locale"}"#,
    ),
    (
        "json-canonicalization: structures",
        r#"{"1":{"f":{"f":"hi","F":5},"\n":56.0},"10":{},"":"empty","a":{},"111":[{"e":"yes","E":"no"}],"A":{}}"#,
    ),
    (
        "json-canonicalization: unicode",
        r#"{"Unnormalized Unicode":"A\u030a"}"#,
    ),
    (
        "json-canonicalization: weird",
        r#"{"\u20ac":"Euro Sign","\r":"Carriage Return","\u000a":"Newline","1":"One","\u0080":"Control\u007f","\ud83d\ude02":"Smiley","\u00f6":"Latin Small Letter O With Diaeresis","\ufb33":"Hebrew Letter Dalet With Dagesh","</script>":"Browser Challenge"}"#,
    ),
    (
        "every control character",
        r#""\u0000\u0001\u0002\u0003\u0004\u0005\u0006\u0007\u0008\u0009\u000a\u000b\u000c\u000d\u000e\u000f\u0010\u0011\u0012\u0013\u0014\u0015\u0016\u0017\u0018\u0019\u001a\u001b\u001c\u001d\u001e\u001f\u007f""#,
    ),
    (
        "a name before the names that it begins",
        r#"{"aa":1,"a":2,"":3,"ab":4}"#,
    ),
    (
        "names around the surrogates",
        r#"{"\uffff":1,"\ue000":2,"\ud7ff":3,"\ud800\udc00":4,"\udbff\udfff":5,"a\ue000":6,"a\ud800\udc00":7}"#,
    ),
    (
        "integers",
        "[0,-0,1,-1,10,100000000000000,9007199254740991,-9007199254740991]",
    ),
    (
        "around the exponents",
        "[1e-6,1e-7,0.000001234,1.5e-7,1e15,123456789012345.6]",
    ),
    (
        "a message's body",
        r#"{"salt":"XA7uNeprjRNMk0wMH-kZiA","content":{"tool":"deploy","args":{"to":"production","count":3}},"content_type":"application/json"}"#,
    ),
];

/// The doubles of RFC 8785's appendix B, as the bits of IEEE 754.
pub(crate) const DOUBLES: &[u64] = &[
    0x0000_0000_0000_0000,
    0x8000_0000_0000_0000,
    0x0000_0000_0000_0001,
    0x8000_0000_0000_0001,
    0x7fef_ffff_ffff_ffff,
    0xffef_ffff_ffff_ffff,
    0x4340_0000_0000_0000,
    0xc340_0000_0000_0000,
    0x4430_0000_0000_0000,
    0x44b5_2d02_c7e1_4af5,
    0x44b5_2d02_c7e1_4af6,
    0x44b5_2d02_c7e1_4af7,
    0x444b_1ae4_d6e2_ef4e,
    0x444b_1ae4_d6e2_ef4f,
    0x444b_1ae4_d6e2_ef50,
    0x3eb0_c6f7_a0b5_ed8c,
    0x3eb0_c6f7_a0b5_ed8d,
    0x41b3_de43_5555_5553,
    0x41b3_de43_5555_5554,
    0x41b3_de43_5555_5555,
    0x41b3_de43_5555_5556,
    0x41b3_de43_5555_5557,
    0xbecb_f647_612f_3696,
    0x4314_3ff3_c1cb_0959,
];

pub(crate) fn cases() -> Vec<Case> {
    let texts = TEXTS.iter().map(|(name, text)| {
        let out = match json::parse(text) {
            Ok(value) => {
                let canonical = Canonical::of(&value);
                object! { "canonical": canonical.as_str(), "sha256": canonical.hash().to_hex() }
            }
            Err(error) => object! { "refused": error.to_string() },
        };
        Case::new(*name, &["L2", "L7"], object! { "text": *text }, out)
    });
    let doubles = DOUBLES.iter().map(|bits| {
        let mut text = String::new();
        canonical::write_double(f64::from_bits(*bits), &mut text);
        Case::new(
            format!("RFC 8785 appendix B: {text}"),
            &["L2"],
            object! { "ieee754": hex(&bits.to_be_bytes()) },
            object! { "canonical": text },
        )
    });
    texts.chain(doubles).collect()
}
