//! Names and numbers that travel, each with a type of its own, parsed at the edge: past it, none can be wrong.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use core::fmt;
use core::str::FromStr;

use uuid::Uuid;

use crate::encoding::{base64url_decode_array, base64url_encode};
use crate::hash::Hash;
use crate::key::PublicKey;

/// A text that isn't what its type demands. It says what was expected and never repeats the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdError {
    /// What the text should have been.
    pub expected: &'static str,
}

impl fmt::Display for IdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected {}", self.expected)
    }
}

impl core::error::Error for IdError {}

/// Implements serde's traits by `Display` and `FromStr`, so that a text is checked in one place only.
macro_rules! serde_by_text {
    ($($type:ty, $expecting:literal;)*) => {$(
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Visitor;
                impl serde::de::Visitor<'_> for Visitor {
                    type Value = $type;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($expecting)
                    }
                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$type, E> {
                        text.parse().map_err(|_| E::custom(concat!("expected ", $expecting)))
                    }
                }
                deserializer.deserialize_str(Visitor)
            }
        }
    )*};
}
pub(crate) use serde_by_text;

/// Parses a UUID as E2 demands: lower case, with hyphens, any version.
fn parse_uuid(text: &str) -> Result<Uuid, IdError> {
    const ERROR: IdError = IdError {
        expected: "a UUID in lower case with hyphens",
    };
    // The library takes four spellings; the protocol has one, so that equal ids are equal texts.
    if text.len() != 36 || text.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err(ERROR);
    }
    Uuid::try_parse(text).map_err(|_| ERROR)
}

macro_rules! uuid_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Uuid);

        impl $name {
            /// From the 16 bytes of a UUID.
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(Uuid::from_bytes(bytes))
            }

            /// The 16 bytes of the UUID.
            pub const fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }

            /// A UUID of version 7 (RFC 9562 §5.7) from a time in Unix milliseconds and ten random bytes.
            pub const fn v7(unix_ms: u64, random: [u8; 10]) -> Self {
                Self(uuid::Builder::from_unix_timestamp_millis(unix_ms, &random).into_uuid())
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                parse_uuid(text).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self.0.as_hyphenated(), f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

uuid_type! {
    /// The name of a thread (S1): chosen at random by its creator.
    ThreadId
}
uuid_type! {
    /// The name of an envelope, and so of an action and of the entries that it causes (L3). A message or a spec is named by it.
    Id
}
uuid_type! {
    /// The name of one WebSocket connection (C1).
    ConnectionId
}
uuid_type! {
    /// The name of one session (C5).
    SessionId
}
uuid_type! {
    /// The name of one history of a server's log (C1): a restored backup has another (G1r).
    LogId
}

serde_by_text! {
    ThreadId, "a UUID in lower case with hyphens";
    Id, "a UUID in lower case with hyphens";
    ConnectionId, "a UUID in lower case with hyphens";
    SessionId, "a UUID in lower case with hyphens";
    LogId, "a UUID in lower case with hyphens";
    Hash, "64 lower-case hex digits";
    PublicKey, "base64url of 32 bytes";
    crate::key::Signature, "base64url of 64 bytes";
    UserId, "a user id";
    ClientId, "a client id";
    Audience, "an origin like https://host or https://host:port";
    Salt, "base64url of 16 bytes";
}

/// The greatest integer of the wire (E1): 2^53 − 1.
pub const MAX_INTEGER: u64 = (1 << 53) - 1;

macro_rules! integer_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(u64);

        impl $name {
            /// The least value.
            pub const ZERO: Self = Self(0);

            /// The value, where it is one that the wire can hold (E1).
            pub const fn new(value: u64) -> Option<Self> {
                if value <= MAX_INTEGER { Some(Self(value)) } else { None }
            }

            /// The value, or the greatest that the wire can hold.
            pub const fn saturating(value: u64) -> Self {
                Self(if value <= MAX_INTEGER { value } else { MAX_INTEGER })
            }

            /// The number itself.
            pub const fn get(self) -> u64 {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_u64(self.0)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let value = u64::deserialize(deserializer)?;
                Self::new(value).ok_or_else(|| serde::de::Error::custom("expected an integer of at most 2^53 - 1"))
            }
        }
    };
}

integer_type! {
    /// The number of an entry in its thread's log (G1): 1, 2, 3 …; 0 is the place before the first.
    Seq
}
integer_type! {
    /// The number of an action in its session and thread (A2): 1, 2, 3 ….
    ActionSeq
}
integer_type! {
    /// A time in milliseconds since 1970-01-01T00:00Z.
    Timestamp
}

impl Seq {
    /// The number after this one.
    pub const fn next(self) -> Self {
        Self::saturating(self.0 + 1)
    }

    /// The number before this one; that of 0 is 0.
    pub const fn previous(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

impl ActionSeq {
    /// The first of a session in a thread.
    pub const FIRST: Self = Self(1);

    /// The number after this one.
    pub const fn next(self) -> Self {
        Self::saturating(self.0 + 1)
    }
}

impl Timestamp {
    /// This time and `ms` milliseconds.
    pub const fn plus_ms(self, ms: u64) -> Self {
        Self::saturating(self.0.saturating_add(ms))
    }

    /// Milliseconds from `earlier` to this time; 0 where that is later.
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// A place in a log: a number and the root there (`root(seq)`), so that another history is noticed (G1r, Y7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct Cursor {
    /// The last entry before the place.
    pub seq: Seq,
    /// The Merkle tree's root over the first `seq` entries (L7).
    pub root: Hash,
}

impl Cursor {
    /// Before the first entry of any log.
    pub const START: Self = Self {
        seq: Seq::ZERO,
        root: Hash::EMPTY,
    };
}

/// `<seq> <root>`, as it stands in signed and hashed texts (K1, L7).
impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.seq, self.root)
    }
}

/// `[seq, root]`: how a cursor is written in `seen` (section 3).
pub mod cursor_pair {
    use super::{Cursor, Hash, Seq};

    /// Writes the pair.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: serde::Serializer>(cursor: &Option<Cursor>, serializer: S) -> Result<S::Ok, S::Error> {
        serde::Serialize::serialize(&cursor.map(|c| (c.seq, c.root)), serializer)
    }

    /// Reads the pair.
    ///
    /// # Errors
    /// Where it isn't a pair of a number and a hash.
    pub fn deserialize<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Cursor>, D::Error> {
        let (seq, root) = <(Seq, Hash) as serde::Deserialize>::deserialize(deserializer)?;
        Ok(Some(Cursor { seq, root }))
    }
}

macro_rules! text_type {
    ($(#[$doc:meta])* $name:ident, $expected:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                let check: fn(&str) -> bool = $check;
                if check(text) { Ok(Self(text.into())) } else { Err(IdError { expected: $expected }) }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    };
}

text_type! {
    /// Who somebody is (C2, C3): `ed25519:` + key, `<issuer>:<sub>`, or `choir`, the author of derived entries.
    UserId,
    "1 to 255 bytes without control characters",
    |text| (1..=255).contains(&text.len()) && !text.chars().any(|c| c.is_control())
}

impl UserId {
    /// The prefix of users who are their key.
    const KEY_PREFIX: &'static str = "ed25519:";

    /// The author of derived entries (C3).
    pub fn choir() -> Self {
        Self("choir".into())
    }

    /// Whether this is the author of derived entries.
    pub fn is_choir(&self) -> bool {
        &*self.0 == "choir"
    }

    /// The user that is this key (C2).
    pub fn of_key(key: &PublicKey) -> Self {
        Self(format!("{}{key}", Self::KEY_PREFIX).into())
    }

    /// Whether the user is a key (C2), and not somebody whom an issuer names.
    pub fn is_key(&self) -> bool {
        self.0.starts_with(Self::KEY_PREFIX)
    }

    /// The key that this user is, for users who are their key.
    pub fn key(&self) -> Option<PublicKey> {
        self.0.strip_prefix(Self::KEY_PREFIX)?.parse().ok()
    }
}

text_type! {
    /// The name of one running client of a user (C2): one process, one browser tab.
    ClientId,
    "1 to 64 of A–Z a–z 0–9 . _ -",
    |text| (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

text_type! {
    /// What a signature is made for (C4): the origin that the client dialled, `https://host` or `https://host:port`, lower case, without the default port.
    Audience,
    "an origin like https://host or https://host:port, in lower case, without the default port",
    |text| parse_origin(text).is_some()
}

/// The host and port part of a canonical origin.
fn parse_origin(text: &str) -> Option<&str> {
    let (host_port, default_port) = match text.strip_prefix("https://") {
        Some(rest) => (rest, ":443"),
        None => (text.strip_prefix("http://")?, ":80"),
    };
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_');
    let (host, port) = match host_port.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']')?;
            let ok = !address.is_empty()
                && address
                    .bytes()
                    .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f' | b':' | b'.'));
            (ok, port)
        }
        None => {
            let (host, port) = host_port.split_at(host_port.find(':').unwrap_or(host_port.len()));
            (!host.is_empty() && host.bytes().all(plain), port)
        }
    };
    let port_ok = port.is_empty()
        || port.strip_prefix(':').is_some_and(|digits| {
            !digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit()) && digits.parse::<u16>().is_ok()
        });
    (host && port_ok && port != default_port && text.len() <= 255).then_some(host_port)
}

impl Audience {
    /// The audience of a URL that a client dials (C4): `wss` counts as `https`, `ws` as `http`; the path is left out.
    ///
    /// # Errors
    /// Where the URL has another scheme, user information, or no host.
    pub fn of_url(url: &str) -> Result<Self, IdError> {
        const ERROR: IdError = IdError {
            expected: "a URL like wss://host:port/v1/ws",
        };
        let (scheme, rest) = url.split_once("://").ok_or(ERROR)?;
        let (scheme, default_port) = match scheme.to_ascii_lowercase().as_str() {
            "wss" | "https" => ("https", ":443"),
            "ws" | "http" => ("http", ":80"),
            _ => return Err(ERROR),
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let host_port = rest.get(..end).unwrap_or(rest).to_ascii_lowercase();
        let host_port = host_port.strip_suffix(default_port).unwrap_or(&host_port);
        format!("{scheme}://{host_port}").parse().map_err(|_| ERROR)
    }

    /// `host` or `host:port`, as in a checkpoint's origin (K6).
    pub fn host_port(&self) -> &str {
        self.0.split_once("://").map_or(&*self.0, |(_, rest)| rest)
    }
}

/// 16 random bytes that keep the hash of an erased body from being guessed (L4).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Salt([u8; 16]);

impl Salt {
    /// From random bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }
}

impl FromStr for Salt {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        base64url_decode_array(text).map(Self).map_err(|_| IdError {
            expected: "base64url of 16 bytes",
        })
    }
}

impl fmt::Display for Salt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&base64url_encode(&self.0))
    }
}

/// A salt is as secret as the body that it belongs to.
impl fmt::Debug for Salt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Salt(…)")
    }
}

/// A text of at most `MAX` bytes of UTF-8 (section 12).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bounded<const MAX: usize>(String);

impl<const MAX: usize> Bounded<MAX> {
    /// The text, where it is short enough.
    pub fn new(text: impl ToString) -> Option<Self> {
        let text = text.to_string();
        (text.len() <= MAX).then_some(Self(text))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn e2_a_uuid_has_one_spelling() {
        assert!("01930000-0000-7000-8000-000000000014".parse::<Id>().is_ok());
        for wrong in [
            "01930000-0000-7000-8000-00000000001F",
            "01930000000070008000000000000014",
            "{01930000-0000-7000-8000-000000000014}",
            "urn:uuid:01930000-0000-7000-8000-000000000014",
            "",
        ] {
            assert!(wrong.parse::<Id>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn c3_a_user_id_holds_no_control_characters() {
        assert!("corp:jöran smith:x".parse::<UserId>().is_ok());
        for wrong in ["", "a\u{0}b", "a\u{7f}", "a\u{85}b", "a\nb"] {
            assert!(wrong.parse::<UserId>().is_err(), "{wrong:?}");
        }
        assert!("x".repeat(255).parse::<UserId>().is_ok());
        assert!("x".repeat(256).parse::<UserId>().is_err());
    }

    #[test]
    fn c4_an_audience_is_the_origin_that_was_dialled() {
        for (url, audience) in [
            ("wss://Choir.Example/v1/ws", "https://choir.example"),
            ("wss://choir.example:443/v1/ws", "https://choir.example"),
            ("wss://choir.example:8443", "https://choir.example:8443"),
            ("ws://127.0.0.1:7400/v1/ws?x", "http://127.0.0.1:7400"),
            ("ws://[::1]:80/v1/ws", "http://[::1]"),
        ] {
            assert_eq!(Audience::of_url(url).unwrap().as_str(), audience);
        }
        for wrong in ["ftp://x/", "wss://user@host/", "choir.example", "wss:///v1"] {
            assert!(Audience::of_url(wrong).is_err(), "{wrong}");
        }
        for wrong in [
            "https://choir.example:443",
            "https://Choir.example",
            "https://choir.example/",
            "http://x:080",
            "http://",
        ] {
            assert!(wrong.parse::<Audience>().is_err(), "{wrong}");
        }
    }
}
