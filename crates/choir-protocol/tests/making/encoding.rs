//! Base64url, hashes and K6's base64 (E2): each byte string has one text.

use choir_protocol::encoding::{self, EncodingError};
use choir_protocol::hash::Hash;
use choir_protocol::object;

use super::{Case, hex};

const BYTES: &[(&str, &[u8])] = &[
    ("nothing", b""),
    ("one byte", b"f"),
    ("two bytes", b"fo"),
    ("three bytes", b"foo"),
    ("four bytes", b"foob"),
    ("five bytes", b"fooba"),
    ("six bytes", b"foobar"),
    ("the two characters in which the alphabets differ", b"\xfb\xff\xbf"),
    ("all bits set", b"\xff\xff\xff\xff"),
    ("zeros", b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"),
];

const NOT_BASE64URL: &[(&str, &str)] = &[
    ("padding", "Zg=="),
    ("the standard alphabet", "+/+/"),
    ("a trailing bit that is set, of one byte", "Zh"),
    ("a trailing bit that is set, of two bytes", "Zm9"),
    ("a length that no bytes have", "Zm9vY"),
    ("one character", "Z"),
    ("white space at the end", "Zm9v\n"),
    ("white space inside", "Zm 9v"),
    ("a character beyond ASCII", "Zm9é"),
    ("U+0000", "Zm9\0"),
];

const NOT_BASE64: &[(&str, &str)] = &[
    ("no padding", "Zg"),
    ("half the padding", "Zg="),
    ("too much padding", "Zm9v===="),
    ("the URL alphabet", "-_-_"),
    ("a trailing bit that is set", "Zh=="),
    ("padding inside", "Zg==Zg=="),
    ("white space at the end", "Zm9v\n"),
];

const NOT_HASHES: &[(&str, &str)] = &[
    (
        "upper case",
        "E3B0C44298FC1C149AFBF4C8996FB92427AE41E4649B934CA495991B7852B855",
    ),
    (
        "one upper-case digit",
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b85F",
    ),
    (
        "62 digits",
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b8",
    ),
    (
        "63 digits",
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b85",
    ),
    (
        "66 digits",
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b85500",
    ),
    (
        "a letter that is no digit",
        "g3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    ),
    (
        "a prefix",
        "0xe3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b8",
    ),
    (
        "white space",
        " e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b85",
    ),
    ("nothing", ""),
];

pub(crate) fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for (name, bytes) in BYTES {
        let out = object! {
            "base64url": encoding::base64url_encode(bytes),
            "base64": encoding::base64_encode(bytes),
            "sha256": Hash::of(bytes).to_hex(),
        };
        cases.push(Case::new(*name, &["E2", "K6"], object! { "hex": hex(bytes) }, out));
    }
    for (name, text) in NOT_BASE64URL {
        let out = verdict(encoding::base64url_decode(text));
        cases.push(Case::new(
            format!("not base64url: {name}"),
            &["E2"],
            object! { "base64url": *text },
            out,
        ));
    }
    for (name, text) in NOT_BASE64 {
        let out = verdict(encoding::base64_decode(text));
        cases.push(Case::new(
            format!("not base64: {name}"),
            &["K6"],
            object! { "base64": *text },
            out,
        ));
    }
    for (name, text) in NOT_HASHES {
        let out = verdict(text.parse::<Hash>().map(|hash| hash.as_bytes().to_vec()));
        cases.push(Case::new(
            format!("no hash: {name}"),
            &["E2"],
            object! { "hash": *text },
            out,
        ));
    }
    cases
}

fn verdict(decoded: Result<Vec<u8>, EncodingError>) -> choir_protocol::json::Object {
    match decoded {
        Ok(bytes) => object! { "hex": hex(&bytes) },
        Err(_) => object! { "refused": true },
    }
}
