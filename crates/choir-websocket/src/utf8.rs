//! Text that is proven to be UTF-8, and the proof while it arrives in pieces.

use core::fmt;

use bytes::Bytes;

/// The payload of a text message: bytes that are valid UTF-8 (RFC 6455 §5.6, §8.1).
///
/// It shares the memory that it was received in, so taking it as [`Bytes`] costs nothing. Looking
/// at it as `str` checks the bytes once more (by SIMD, several bytes a cycle): that is the price of
/// a crate without `unsafe`, and less than a copy.
#[derive(Clone, Default, Eq, Hash, PartialEq)]
pub struct Utf8(Bytes);

impl Utf8 {
    /// Wraps what a [`Utf8Check`] has seen in full.
    pub(crate) fn from_checked(bytes: Bytes) -> Self {
        debug_assert!(
            simdutf8::basic::from_utf8(&bytes).is_ok(),
            "text was checked before it was wrapped"
        );
        Self(bytes)
    }

    /// The text, after a check of all its bytes. There is no `Deref` to `str`, so that this shows.
    #[must_use]
    pub fn as_str(&self) -> &str {
        simdutf8::basic::from_utf8(&self.0).expect("text was checked before it was wrapped")
    }

    /// How many bytes it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The text's bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The text's bytes, without a copy.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        self.0
    }
}

impl From<Utf8> for Bytes {
    fn from(text: Utf8) -> Self {
        text.into_bytes()
    }
}

impl From<Utf8> for String {
    fn from(text: Utf8) -> Self {
        text.as_str().to_owned()
    }
}

impl From<String> for Utf8 {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl From<&str> for Utf8 {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl PartialEq<str> for Utf8 {
    fn eq(&self, other: &str) -> bool {
        self.0 == other.as_bytes()
    }
}

impl PartialEq<&str> for Utf8 {
    fn eq(&self, other: &&str) -> bool {
        self == *other
    }
}

impl fmt::Debug for Utf8 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

impl fmt::Display for Utf8 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

/// The bytes so far can't be the beginning of any UTF-8.
#[derive(Debug)]
pub(crate) struct NotUtf8;

/// Checks text that arrives in pieces, cut anywhere, and says so at the first byte that no
/// continuation could make good.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Utf8Check {
    /// A character of which only the beginning has arrived.
    begun: [u8; 4],
    begun_len: usize,
}

impl Utf8Check {
    /// Takes the next piece.
    pub(crate) fn push(&mut self, mut piece: &[u8]) -> Result<(), NotUtf8> {
        while self.begun_len > 0 {
            let Some((&byte, rest)) = piece.split_first() else {
                return Ok(());
            };
            piece = rest;
            self.begun[self.begun_len] = byte;
            self.begun_len += 1;
            match core::str::from_utf8(&self.begun[..self.begun_len]) {
                Ok(_) => self.begun_len = 0,
                // Without a length of the error the bytes are the beginning of a character: at most
                // three, so there is room for the next.
                Err(error) if error.error_len().is_none() => {}
                Err(_) => return Err(NotUtf8),
            }
        }
        match simdutf8::compat::from_utf8(piece) {
            Ok(_) => Ok(()),
            Err(error) if error.error_len().is_none() => {
                let begun = &piece[error.valid_up_to()..];
                self.begun[..begun.len()].copy_from_slice(begun);
                self.begun_len = begun.len();
                Ok(())
            }
            Err(_) => Err(NotUtf8),
        }
    }

    /// Whether the text may end here: not within a character.
    pub(crate) fn finish(self) -> Result<(), NotUtf8> {
        if self.begun_len == 0 { Ok(()) } else { Err(NotUtf8) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The number of bytes after which the check refuses, fed one byte at a time; `None` where it
    /// refuses none.
    fn refused_after(bytes: &[u8]) -> Option<usize> {
        let mut check = Utf8Check::default();
        bytes
            .iter()
            .position(|byte| check.push(&[*byte]).is_err())
            .map(|at| at + 1)
    }

    #[test]
    fn a_bad_byte_is_refused_as_it_arrives() {
        for (bytes, after) in [
            (&b"\x80"[..], 1),            // a continuation byte alone
            (b"a\xc0", 2),                // never valid
            (b"\xc1", 1),                 // would be overlong
            (b"\xc3a", 2),                // the second byte isn't a continuation
            (b"\xe0\x9f", 2),             // overlong in three bytes
            (b"\xed\xa0", 2),             // a surrogate
            (b"\xf0\x8f", 2),             // overlong in four bytes
            (b"\xf4\x90", 2),             // above U+10FFFF
            (b"\xf5", 1),                 // far above it
            (b"\xff", 1),                 // never valid
            (b"\xe2\x82\xe2", 3),         // the third byte isn't a continuation
            (b"\xf0\x9f\x98\xc2\xa0", 4), // the fourth byte isn't a continuation
        ] {
            assert_eq!(refused_after(bytes), Some(after), "{bytes:x?}");
        }
    }

    #[test]
    fn the_edges_of_unicode_pass() {
        for text in [
            "\0",
            "\u{7f}",
            "\u{80}",
            "\u{7ff}",
            "\u{800}",
            "\u{d7ff}",
            "\u{e000}",
            "\u{fffe}\u{ffff}",
            "\u{10000}",
            "\u{10ffff}",
        ] {
            assert_eq!(refused_after(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn text_cut_within_a_character_is_unfinished() {
        let mut check = Utf8Check::default();
        check.push(b"price: \xe2\x82").unwrap();
        assert!(check.finish().is_err());
        check.push(b"\xac").unwrap();
        assert!(check.finish().is_ok());
    }

    #[test]
    fn the_cut_makes_no_difference() {
        let texts: [&[u8]; 6] = [
            "κόσμε – 日本語 – 😀😀".as_bytes(),
            b"plain ascii that is longer than one SIMD register of sixty-four bytes, so that both paths run",
            b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited",
            b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xf4\x90\x80\x80edited",
            b"\xe2\x82",
            b"",
        ];
        for text in texts {
            let whole = core::str::from_utf8(text).is_ok();
            for first in 0..=text.len() {
                for second in first..=text.len() {
                    let mut check = Utf8Check::default();
                    let pieces = [&text[..first], &text[first..second], &text[second..]];
                    let passed = pieces.iter().all(|piece| check.push(piece).is_ok()) && check.finish().is_ok();
                    assert_eq!(passed, whole, "{text:x?} cut at {first} and {second}");
                }
            }
        }
    }
}
