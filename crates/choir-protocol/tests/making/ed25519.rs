//! Ed25519 as K2 has it: RFC 8032's own vectors, and cases at which implementations differ.

use choir_protocol::encoding::{hex_decode, hex_decode_array};
use choir_protocol::key::{self, PublicKey, SecretKey, Signature};
use choir_protocol::object;

use super::{Case, hex};

/// Tab-separated: name, expected, why, seed, key, message, signature. What is expected was computed
/// apart from this crate, and isn't used here.
pub(crate) const CASES: &str = include_str!("ed25519.tsv");

pub(crate) fn cases() -> Vec<Case> {
    let rows = CASES.lines().filter(|line| !line.starts_with('#')).skip(1);
    rows.filter_map(|row| {
        let columns: Vec<&str> = row.split('\t').collect();
        let &[name, _, _, seed, key, message, signature] = columns.as_slice() else {
            return None;
        };
        Some(case(name, seed, key, message, signature))
    })
    .collect()
}

fn case(name: &str, seed: &str, key: &str, message: &str, signature: &str) -> Case {
    let bytes = hex_decode(message).unwrap_or_default();
    let valid = match (hex_decode_array(key), hex_decode_array(signature)) {
        (Ok(key), Ok(signature)) => key::verify(&PublicKey::from_bytes(key), &bytes, &Signature::from_bytes(signature)),
        _ => false,
    };
    let input = object! { "key": key, "message": message, "signature": signature };
    let signing = hex_decode_array(seed).ok().map(|seed| {
        let secret = SecretKey::from_seed(&seed);
        object! {
            "seed": hex(&seed),
            "key": hex(secret.public().as_bytes()),
            "signature": hex(secret.sign(&bytes).as_bytes()),
        }
    });
    Case::new(name, &["K2"], input, object! { "valid": valid, "signing"?: signing })
}
