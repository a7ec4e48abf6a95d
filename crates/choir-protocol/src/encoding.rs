//! Base64 and hex as the protocol writes them (E2): one text for one byte string, everything else
//! is refused.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

/// Why a text isn't an encoding of bytes. It never holds the text itself, which may be a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EncodingError {
    /// Not base64url without padding, or not the one canonical text of its bytes (E2).
    NotBase64Url,
    /// Not standard base64 with padding, or not the one canonical text of its bytes (K6).
    NotBase64,
    /// Not lower-case hex digits in pairs (E2).
    NotHex,
    /// The text stands for another number of bytes than is due.
    Length {
        /// How many bytes were due.
        expected: usize,
        /// How many bytes the text stands for.
        found: usize,
    },
}

impl fmt::Display for EncodingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EncodingError::NotBase64Url => f.write_str("not canonical base64url without padding"),
            EncodingError::NotBase64 => f.write_str("not canonical base64 with padding"),
            EncodingError::NotHex => f.write_str("not lower-case hex digits in pairs"),
            EncodingError::Length { expected, found } => {
                write!(f, "expected {expected} bytes, found {found}")
            }
        }
    }
}

impl core::error::Error for EncodingError {}

/// The bytes as base64url without padding (RFC 4648 §5; E2).
#[must_use]
pub fn base64url_encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The bytes of a base64url text (E2).
///
/// # Errors
/// Padding, a foreign character, white space, an impossible length, and trailing bits that aren't
/// zero: the text wouldn't encode back to itself.
pub fn base64url_decode(text: &str) -> Result<Vec<u8>, EncodingError> {
    URL_SAFE_NO_PAD.decode(text).map_err(|_| EncodingError::NotBase64Url)
}

/// As [`base64url_decode`], for a text of exactly `N` bytes.
///
/// # Errors
/// As [`base64url_decode`], and another length.
pub fn base64url_decode_array<const N: usize>(text: &str) -> Result<[u8; N], EncodingError> {
    exactly(&base64url_decode(text)?)
}

/// The bytes as standard base64 with padding (RFC 4648 §4), which only checkpoints use (K6).
#[must_use]
pub fn base64_encode(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// The bytes of a standard base64 text with padding (K6).
///
/// # Errors
/// Missing padding, a foreign character, white space, and trailing bits that aren't zero.
pub fn base64_decode(text: &str) -> Result<Vec<u8>, EncodingError> {
    STANDARD.decode(text).map_err(|_| EncodingError::NotBase64)
}

/// As [`base64_decode`], for a text of exactly `N` bytes.
///
/// # Errors
/// As [`base64_decode`], and another length.
pub fn base64_decode_array<const N: usize>(text: &str) -> Result<[u8; N], EncodingError> {
    exactly(&base64_decode(text)?)
}

/// The bytes as lower-case hex digits (E2).
#[must_use]
pub fn hex_encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(hex_digit(byte >> 4));
        text.push(hex_digit(byte & 0x0f));
    }
    text
}

/// The bytes of a text of lower-case hex digits (E2).
///
/// # Errors
/// An odd number of digits, an upper-case digit, and anything that is no digit.
pub fn hex_decode(text: &str) -> Result<Vec<u8>, EncodingError> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return Err(EncodingError::NotHex);
    }
    pairs
        .iter()
        .map(|[high, low]| Ok(hex_value(*high)? << 4 | hex_value(*low)?))
        .collect()
}

/// As [`hex_decode`], for a text of exactly `N` bytes.
///
/// # Errors
/// As [`hex_decode`], and another length.
pub fn hex_decode_array<const N: usize>(text: &str) -> Result<[u8; N], EncodingError> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return Err(EncodingError::NotHex);
    }
    let mut bytes = [0; N];
    if pairs.len() != N {
        return Err(EncodingError::Length {
            expected: N,
            found: pairs.len(),
        });
    }
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = hex_value(*high)? << 4 | hex_value(*low)?;
    }
    Ok(bytes)
}

fn exactly<const N: usize>(bytes: &[u8]) -> Result<[u8; N], EncodingError> {
    bytes.try_into().map_err(|_| EncodingError::Length {
        expected: N,
        found: bytes.len(),
    })
}

fn hex_digit(value: u8) -> char {
    char::from(if value < 10 { b'0' + value } else { b'a' + value - 10 })
}

fn hex_value(digit: u8) -> Result<u8, EncodingError> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        _ => Err(EncodingError::NotHex),
    }
}
