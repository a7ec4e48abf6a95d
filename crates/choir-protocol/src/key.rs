//! Ed25519 keys and signatures, checked as K2 says: RFC 8032 without cofactor, S < L, canonical A
//! and R, no small-order A or R, one at a time.
//!
//! Every implementation must give the same answer on every input, also on forged ones: a signature
//! that one node takes and another refuses would tear a log apart. That is why there is no batch
//! check here (batches disagree with single checks), and why the rule is stricter than the RFC's.

use alloc::string::String;
use core::fmt;
use core::str::FromStr;

use ed25519_dalek::{Signer, SigningKey, VerifyingKey};

use crate::encoding::{self, EncodingError};

/// A public key: 32 bytes, as text base64url (C1, C2).
///
/// A value of this type needn't be a point of the curve: that belongs to verification, which
/// answers `false` for one that isn't ([`PublicKey::is_valid`]).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// A key from its bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> PublicKey {
        PublicKey(bytes)
    }

    /// The 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Whether any signature can hold under this key: it is the canonical encoding of a point that
    /// isn't of small order (K2).
    #[must_use]
    pub fn is_valid(&self) -> bool {
        PreparedKey::new(self).is_some()
    }
}

/// A signature: 64 bytes, as text base64url (section 3).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Signature([u8; 64]);

impl Signature {
    /// A signature from its bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 64]) -> Signature {
        Signature(bytes)
    }

    /// The 64 bytes: R, then S.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 64] {
        &self.0
    }
}

/// A private key. It is wiped from memory when dropped, and shows itself nowhere.
pub struct SecretKey(SigningKey);

impl SecretKey {
    /// The key that grows from the 32 secret bytes of RFC 8032 §5.1.5. Where they come from (the
    /// system's random source, a file) is the caller's affair.
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> SecretKey {
        SecretKey(SigningKey::from_bytes(seed))
    }

    /// The public key that belongs to it.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key().to_bytes())
    }

    /// The signature of `message`. The same message gives the same signature (RFC 8032 §5.1.6).
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> Signature {
        Signature(self.0.sign(message).to_bytes())
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey(of {})", self.public())
    }
}

/// A public key that is ready for many checks: decompressed and judged once.
#[derive(Clone, Debug)]
pub struct PreparedKey(VerifyingKey);

impl PreparedKey {
    /// None where no signature can hold under this key (K2).
    #[must_use]
    pub fn new(key: &PublicKey) -> Option<PreparedKey> {
        // The library takes a y of p or more too, so that one point would be several users.
        if !has_canonical_y(&key.0) {
            return None;
        }
        let point = VerifyingKey::from_bytes(&key.0).ok()?;
        // The other way to write a point twice is x = 0 with the sign bit set: those two points are
        // of small order.
        (!point.is_weak()).then_some(PreparedKey(point))
    }

    /// The key that this was made from.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.to_bytes())
    }

    /// Whether `signature` is this key's of `message` (K2).
    #[must_use]
    pub fn verify(&self, message: &[u8], signature: &Signature) -> bool {
        // `verify_strict` refuses S ≥ L and an R of small order, and compares the bytes of R with
        // the canonical encoding of what R must be.
        self.0
            .verify_strict(message, &ed25519_dalek::Signature::from_bytes(&signature.0))
            .is_ok()
    }
}

/// Whether `signature` is `key`'s of `message` (K2). For many checks under one key, [`PreparedKey`]
/// saves the decompression.
#[must_use]
pub fn verify(key: &PublicKey, message: &[u8], signature: &Signature) -> bool {
    PreparedKey::new(key).is_some_and(|key| key.verify(message, signature))
}

/// Whether the 255 bits below the sign are a number below p = 2^255 − 19.
fn has_canonical_y(bytes: &[u8; 32]) -> bool {
    let [lowest, middle @ .., highest] = bytes;
    *highest & 0x7f != 0x7f || middle.iter().any(|byte| *byte != 0xff) || *lowest < 0xed
}

macro_rules! base64url_text {
    ($type:ident, $size:literal) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&encoding::base64url_encode(&self.0))
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($type))
            }
        }

        impl FromStr for $type {
            type Err = EncodingError;

            fn from_str(text: &str) -> Result<$type, EncodingError> {
                encoding::base64url_decode_array::<$size>(text).map($type)
            }
        }

        impl From<$type> for String {
            fn from(value: $type) -> String {
                encoding::base64url_encode(&value.0)
            }
        }
    };
}

base64url_text!(PublicKey, 32);
base64url_text!(Signature, 64);
