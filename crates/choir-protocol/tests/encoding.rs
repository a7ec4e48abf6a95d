//! Base64, hex and hashes (E2, K6).

use choir_protocol::encoding::{
    EncodingError, base64_decode, base64_decode_array, base64_encode, base64url_decode, base64url_decode_array,
    base64url_encode, hex_decode, hex_decode_array, hex_encode,
};
use choir_protocol::hash::Hash;
use proptest::prelude::*;

#[test]
fn e2_a_base64url_text_that_does_not_encode_back_to_itself_is_refused() {
    for text in [
        "Zg==", "Zh", "Zm9", "+/+/", "Zm9vY", "Z", "Zm9v\n", " Zm9v", "Zm9v=", "é",
    ] {
        assert_eq!(base64url_decode(text), Err(EncodingError::NotBase64Url), "{text:?}");
    }
    assert_eq!(base64url_decode("-_8"), Ok(vec![0xfb, 0xff]));
    assert_eq!(base64url_decode(""), Ok(vec![]));
}

#[test]
fn k6_base64_has_padding_and_one_spelling() {
    for text in ["Zg", "Zg=", "Zh==", "-_-_", "Zg==\n", "Zg==Zg=="] {
        assert_eq!(base64_decode(text), Err(EncodingError::NotBase64), "{text:?}");
    }
    assert_eq!(base64_decode("+/8="), Ok(vec![0xfb, 0xff]));
}

#[test]
fn e2_hex_is_lower_case() {
    assert_eq!(hex_decode("00ff1a"), Ok(vec![0x00, 0xff, 0x1a]));
    for text in ["0", "0G", "fF", " 0", "0x", "é", "٠٠"] {
        assert_eq!(hex_decode(text), Err(EncodingError::NotHex), "{text:?}");
    }
}

#[test]
fn a_text_of_another_length_says_which_is_due() {
    let short = EncodingError::Length { expected: 4, found: 3 };
    assert_eq!(base64url_decode_array::<4>("Zm9v"), Err(short));
    assert_eq!(base64_decode_array::<4>("Zm9v"), Err(short));
    assert_eq!(hex_decode_array::<4>("666f6f"), Err(short));
    assert_eq!(short.to_string(), "expected 4 bytes, found 3");
    assert_eq!(base64url_decode_array::<3>("Zm9v"), Ok(*b"foo"));
    assert_eq!(hex_decode_array::<3>("666f6f"), Ok(*b"foo"));
}

#[test]
fn e2_a_hash_is_64_lower_case_digits() {
    let text = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let hash: Hash = text.parse().unwrap();
    assert_eq!(hash, Hash::EMPTY);
    assert_eq!(hash.to_string(), text);
    assert_eq!(format!("{hash:?}"), "Hash(e3b0c442…)");
    assert!(text.to_uppercase().parse::<Hash>().is_err());
    assert!(text[1..].parse::<Hash>().is_err());
    assert!(format!("{text}0").parse::<Hash>().is_err());
}

#[test]
fn a_hash_of_parts_is_that_of_the_whole() {
    assert_eq!(Hash::of(b""), Hash::EMPTY);
    assert_eq!(Hash::of_parts(&[]), Hash::EMPTY);
    assert_eq!(Hash::of_parts(&[b"a", b"", b"bc"]), Hash::of(b"abc"));
    // FIPS 180-4's example.
    let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(Hash::of(b"abc").to_string(), abc);
}

proptest! {
    #[test]
    fn e2_bytes_come_back(bytes: Vec<u8>) {
        prop_assert_eq!(&base64url_decode(&base64url_encode(&bytes)).unwrap(), &bytes);
        prop_assert_eq!(&base64_decode(&base64_encode(&bytes)).unwrap(), &bytes);
        prop_assert_eq!(&hex_decode(&hex_encode(&bytes)).unwrap(), &bytes);
    }

    #[test]
    fn e2_whatever_decodes_encodes_back_to_itself(text in "[A-Za-z0-9+/=_-]{0,12}|[0-9a-fA-F]{0,8}") {
        if let Ok(bytes) = base64url_decode(&text) {
            prop_assert_eq!(&base64url_encode(&bytes), &text);
        }
        if let Ok(bytes) = base64_decode(&text) {
            prop_assert_eq!(&base64_encode(&bytes), &text);
        }
        if let Ok(bytes) = hex_decode(&text) {
            prop_assert_eq!(&hex_encode(&bytes), &text);
        }
    }
}
