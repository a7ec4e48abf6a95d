//! Keys and signatures (K2). The cases at which implementations differ are in the vectors.
#![allow(clippy::unwrap_used, reason = "what can't be unwrapped fails the test")]

use choir_protocol::encoding::{EncodingError, hex_decode_array};
use choir_protocol::key::{PreparedKey, PublicKey, SecretKey, Signature, verify};
use proptest::prelude::*;

fn key(hex: &str) -> PublicKey {
    PublicKey::from_bytes(hex_decode_array(hex).unwrap())
}

#[test]
fn k2_a_signature_holds_for_its_key_and_message_only() {
    let (anna, ben) = (SecretKey::from_seed(&[1; 32]), SecretKey::from_seed(&[2; 32]));
    let signature = anna.sign(b"publish");
    assert!(verify(&anna.public(), b"publish", &signature));
    assert!(!verify(&anna.public(), b"Publish", &signature));
    assert!(!verify(&anna.public(), b"", &signature));
    assert!(!verify(&ben.public(), b"publish", &signature));
}

#[test]
fn k2_keys_of_small_order_and_in_a_second_spelling_are_invalid() {
    let points = [
        (
            "0100000000000000000000000000000000000000000000000000000000000000",
            "order 1",
        ),
        (
            "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "order 2",
        ),
        (
            "0000000000000000000000000000000000000000000000000000000000000000",
            "order 4",
        ),
        (
            "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
            "order 8",
        ),
        (
            "0100000000000000000000000000000000000000000000000000000000000080",
            "x = 0 with the sign set",
        ),
        (
            "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "y = p + 1",
        ),
        (
            "f6ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "y = p + 9",
        ),
        (
            "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
            "y = p + 18, with the sign set",
        ),
        (
            "0200000000000000000000000000000000000000000000000000000000000000",
            "no point",
        ),
    ];
    for (hex, why) in points {
        assert!(!key(hex).is_valid(), "{why}");
        assert!(PreparedKey::new(&key(hex)).is_none(), "{why}");
    }
    // The base point.
    assert!(key("5866666666666666666666666666666666666666666666666666666666666666").is_valid());
}

#[test]
fn k2_s_above_the_order_is_refused() {
    let secret = SecretKey::from_seed(&[3; 32]);
    let signature = *secret.sign(b"x").as_bytes();
    // S + L: the same scalar, written a second time.
    let order = hex_decode_array::<32>("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010").unwrap();
    let mut second = signature;
    let mut carry = 0;
    for (byte, of_order) in second[32..].iter_mut().zip(order) {
        let sum = u16::from(*byte) + u16::from(of_order) + carry;
        *byte = sum as u8;
        carry = sum >> 8;
    }
    assert!(verify(&secret.public(), b"x", &Signature::from_bytes(signature)));
    assert!(!verify(&secret.public(), b"x", &Signature::from_bytes(second)));
}

#[test]
fn e2_keys_and_signatures_are_base64url() {
    let secret = SecretKey::from_seed(&[7; 32]);
    let (public, signature) = (secret.public(), secret.sign(b"m"));
    assert_eq!(public.to_string().len(), 43);
    assert_eq!(signature.to_string().len(), 86);
    assert_eq!(public.to_string().parse(), Ok(public));
    assert_eq!(signature.to_string().parse(), Ok(signature));
    let length = EncodingError::Length {
        expected: 32,
        found: 64,
    };
    assert_eq!(signature.to_string().parse::<PublicKey>(), Err(length));
    assert!(format!("{public}=").parse::<PublicKey>().is_err());
    // Any 32 bytes are a key by their form: whether a signature can hold is another question.
    assert_eq!("A".repeat(43).parse(), Ok(PublicKey::from_bytes([0; 32])));
}

#[test]
fn a_secret_key_shows_nothing_of_its_seed() {
    let secret = SecretKey::from_seed(&[0xab; 32]);
    let shown = format!("{secret:?}");
    assert_eq!(shown, format!("SecretKey(of {})", secret.public()));
    assert!(!shown.contains("171") && !shown.contains("abab"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn k2_a_signature_with_any_bit_flipped_is_refused(seed: [u8; 32], message: Vec<u8>, bit in 0..512usize) {
        let secret = SecretKey::from_seed(&seed);
        let prepared = PreparedKey::new(&secret.public()).unwrap();
        prop_assert_eq!(prepared.public(), secret.public());
        let mut signature = *secret.sign(&message).as_bytes();
        prop_assert!(prepared.verify(&message, &Signature::from_bytes(signature)));
        signature[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(!prepared.verify(&message, &Signature::from_bytes(signature)));
    }

    #[test]
    fn k2_arbitrary_bytes_never_panic_or_hold(key: [u8; 32], message: Vec<u8>, signature in any::<[[u8; 32]; 2]>()) {
        let signature = Signature::from_bytes(signature.concat().try_into().unwrap());
        prop_assert!(!verify(&PublicKey::from_bytes(key), &message, &signature));
    }
}
