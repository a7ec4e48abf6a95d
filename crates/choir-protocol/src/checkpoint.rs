//! Checkpoints (K6): what the server has signed that a thread's log is, as a C2SP signed note
//! (signed-note, tlog-checkpoint).
//!
//! ```text
//! choir.example/threads/0193…        the origin, which is the name of the key too
//! 20                                 the size: how many entries
//! 3QYi4/ZEzbpVu4jtRVA+AVD…=          the root, as standard base64 with padding
//! time 1764000000000                 Unix time in milliseconds
//!
//! — choir.example/threads/0193… HsQ0QrGb2+pjfGJw…=
//! ```
//!
//! Each line ends with `\n`. Signed are the bytes of the first four. The base64 in the last is the
//! key's id (4 bytes) and the signature (64 bytes).

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use crate::encoding;
use crate::hash::Hash;
use crate::json::MAX_INTEGER;
use crate::key::{PreparedKey, PublicKey, SecretKey, Signature};

/// More signature lines than this make a note malformed. C2SP demands that 16 are taken.
const MAX_SIGNATURES: usize = 100;

/// The type of an Ed25519 signature in a key's id (C2SP signed-note).
const ED25519: u8 = 0x01;

/// What a thread's log was, at one moment, by the word of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Which thread of which server: [`origin`].
    pub origin: String,
    /// The number of entries: the head.
    pub size: u64,
    /// `root(size)` (L7).
    pub root: Hash,
    /// When it was signed: Unix time in milliseconds.
    pub time_ms: u64,
}

/// The origin of a thread's checkpoints: `<host[:port] of the thread's
/// audience>/threads/<thread_id>` (K6).
#[must_use]
pub fn origin(audience: &str, thread_id: &str) -> String {
    let host = audience.split_once("://").map_or(audience, |(_, host)| host);
    format!("{host}/threads/{thread_id}")
}

impl Checkpoint {
    /// The note: the text, and the server's signature of it.
    #[must_use]
    pub fn sign(&self, key: &SecretKey) -> String {
        let text = self.text();
        let name = &self.origin;
        let mut signature = Vec::with_capacity(4 + 64);
        signature.extend_from_slice(&key_id(name, &key.public()));
        signature.extend_from_slice(key.sign(text.as_bytes()).as_bytes());
        format!("{text}\n— {name} {}\n", encoding::base64_encode(&signature))
    }

    /// What a note says about the log of this origin, once it is sure that this key has signed it.
    ///
    /// Lines with signatures by other keys are passed over, as C2SP says: witnesses may add theirs,
    /// and a key may have been replaced. A line by this key whose signature doesn't hold spoils the
    /// note, also where another one holds.
    ///
    /// # Errors
    /// The first thing that fails, named.
    pub fn verify(note: &str, origin: &str, key: &PublicKey) -> Result<Checkpoint, CheckpointError> {
        if note.bytes().any(|byte| byte < b' ' && byte != b'\n') {
            return Err(CheckpointError::Malformed("a control character"));
        }
        // The text keeps its last newline, and the empty line belongs to neither part.
        let (text, signatures) = note
            .rsplit_once("\n\n")
            .ok_or(CheckpointError::Malformed("no empty line before the signatures"))?;
        let checkpoint = Checkpoint::parse_text(text)?;
        if checkpoint.origin != origin {
            return Err(CheckpointError::Origin);
        }
        let signed = note.get(..=text.len()).unwrap_or_default();
        verify_signatures(signed, signatures, origin, key)?;
        Ok(checkpoint)
    }

    fn text(&self) -> String {
        let Checkpoint {
            origin,
            size,
            root,
            time_ms,
        } = self;
        format!(
            "{origin}\n{size}\n{}\ntime {time_ms}\n",
            encoding::base64_encode(root.as_bytes())
        )
    }

    /// The four lines, without the last newline.
    fn parse_text(text: &str) -> Result<Checkpoint, CheckpointError> {
        let lines: Vec<&str> = text.split('\n').collect();
        let [origin, size, root, time] = lines.as_slice() else {
            return Err(CheckpointError::Malformed("the text isn't four lines"));
        };
        Ok(Checkpoint {
            origin: (*origin).to_string(),
            size: decimal(size).ok_or(CheckpointError::Size)?,
            root: encoding::base64_decode_array(root)
                .map(Hash::from_bytes)
                .map_err(|_| CheckpointError::Root)?,
            time_ms: time
                .strip_prefix("time ")
                .and_then(decimal)
                .ok_or(CheckpointError::Time)?,
        })
    }
}

/// The id of a key under a name: the first 4 bytes of SHA-256(name ‖ 0x0A ‖ 0x01 ‖ key) (K6).
#[must_use]
pub fn key_id(name: &str, key: &PublicKey) -> [u8; 4] {
    let [a, b, c, d, ..] = *Hash::of_parts(&[name.as_bytes(), &[b'\n', ED25519], key.as_bytes()]).as_bytes();
    [a, b, c, d]
}

fn verify_signatures(text: &str, lines: &str, name: &str, key: &PublicKey) -> Result<(), CheckpointError> {
    let lines = lines
        .strip_suffix('\n')
        .ok_or(CheckpointError::Malformed("the last line has no end"))?;
    if lines.split('\n').count() > MAX_SIGNATURES {
        return Err(CheckpointError::Malformed("too many signatures"));
    }
    let id = key_id(name, key);
    let prepared = PreparedKey::new(key).ok_or(CheckpointError::Key)?;
    let mut signed = false;
    for line in lines.split('\n') {
        let (line_name, line_id, signature) =
            signature_line(line).ok_or(CheckpointError::Malformed("a line that is no signature"))?;
        if line_name != name || line_id != id {
            continue;
        }
        let signature = Signature::from_bytes(
            signature
                .as_slice()
                .try_into()
                .map_err(|_| CheckpointError::Signature)?,
        );
        if !prepared.verify(text.as_bytes(), &signature) {
            return Err(CheckpointError::Signature);
        }
        signed = true;
    }
    if signed {
        Ok(())
    } else {
        Err(CheckpointError::NotSigned)
    }
}

/// The key's name and id, and the signature, of a line `— <name> <base64>`.
fn signature_line(line: &str) -> Option<(&str, [u8; 4], Vec<u8>)> {
    let (name, base64) = line.strip_prefix("— ")?.split_once(' ')?;
    if name.is_empty() || name.contains(|c: char| c.is_whitespace() || c == '+') {
        return None;
    }
    let bytes = encoding::base64_decode(base64).ok()?;
    let (id, signature) = bytes.split_first_chunk::<4>()?;
    (!signature.is_empty()).then(|| (name, *id, signature.to_vec()))
}

/// An integer of at most 2^53 − 1 (E1), as `Display` writes it: no sign, no leading zero.
fn decimal(text: &str) -> Option<u64> {
    let number: u64 = text.parse().ok()?;
    (number <= MAX_INTEGER.unsigned_abs() && number.to_string() == text).then_some(number)
}

/// What is wrong with a note.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CheckpointError {
    /// It isn't a signed note of four lines.
    Malformed(&'static str),
    /// It is about another thread, or another server's.
    Origin,
    /// The second line isn't a size.
    Size,
    /// The third line isn't a root.
    Root,
    /// The fourth line isn't a time.
    Time,
    /// The key is one under which no signature can hold (K2).
    Key,
    /// None of the signatures is by this key.
    NotSigned,
    /// A signature by this key doesn't hold.
    Signature,
}

impl fmt::Display for CheckpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CheckpointError::Malformed(what) => {
                write!(f, "the checkpoint isn't a signed note: {what}")
            }
            CheckpointError::Origin => f.write_str("the checkpoint's origin is another thread or server"),
            CheckpointError::Size => f.write_str("the checkpoint's second line isn't a size"),
            CheckpointError::Root => f.write_str("the checkpoint's third line isn't a root"),
            CheckpointError::Time => f.write_str("the checkpoint's fourth line isn't a time"),
            CheckpointError::Key => f.write_str("the server's key is no valid Ed25519 key"),
            CheckpointError::NotSigned => f.write_str("the checkpoint isn't signed by the server's key"),
            CheckpointError::Signature => f.write_str("the checkpoint's signature by the server's key doesn't hold"),
        }
    }
}

impl core::error::Error for CheckpointError {}
