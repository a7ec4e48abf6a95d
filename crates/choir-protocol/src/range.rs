//! Ranges (L8): contiguous parts of a thread's log as a viewer gets them, and the check that nothing was changed, reordered or left out.

use alloc::vec::Vec;
use core::fmt;

use serde::{Deserialize, Serialize};

use crate::entry::{Entry, entry_leaf};
use crate::hash::Hash;
use crate::ids::{Cursor, Seq, ThreadId};
use crate::merkle::Peaks;
use crate::thread::Stream;

/// An entry that the viewer may not see, or doesn't want: `[seq, stream, inner]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hidden(pub Seq, pub Stream, pub Hash);

/// The entries (from, to] as far as a viewer may see them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// The place before the first entry.
    pub from: Seq,
    /// The last entry's number.
    pub to: Seq,
    /// `root(to)`.
    pub root: Hash,
    /// What the viewer sees, in order.
    pub entries: Vec<Entry>,
    /// All others, with `verify`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub hidden: Option<Vec<Hidden>>,
    /// `peaks(from)`, with `verify`, on `recent`, `control.history` and `/entries`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub peaks: Option<Vec<Hash>>,
}

/// Why a range isn't what it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RangeError {
    /// `to` before `from`, an entry outside, twice or out of order.
    Malformed,
    /// It begins after the place that it is checked from: something is missing (Y6).
    Gap {
        /// The place that it is checked from.
        cursor: Seq,
        /// Where it begins.
        from: Seq,
    },
    /// Nothing says what stands at this number.
    Missing(Seq),
    /// The entry came without what its hash is made of.
    Unverifiable(Seq),
    /// The content hash isn't that of the body.
    ContentHash(Seq),
    /// The `peaks` aren't those of `from`.
    Peaks,
    /// The root that the entries give isn't the one that the range names.
    Root,
}

impl fmt::Display for RangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => f.write_str("the range's entries are outside it, doubled or out of order"),
            Self::Gap { cursor, from } => write!(
                f,
                "the range begins after {from}, but only what stands up to {cursor} is held"
            ),
            Self::Missing(seq) => write!(f, "the range doesn't say what stands at {seq}"),
            Self::Unverifiable(seq) => write!(f, "entry {seq} came without its proof or its hash"),
            Self::ContentHash(seq) => {
                write!(f, "the body of entry {seq} isn't the one that was hashed")
            }
            Self::Peaks => f.write_str("the range's peaks don't fit the number that they stand for"),
            Self::Root => f.write_str("the root that the entries give isn't the one that the range names"),
        }
    }
}

impl core::error::Error for RangeError {}

impl Range {
    /// The cursor after the range.
    pub const fn end(&self) -> Cursor {
        Cursor {
            seq: self.to,
            root: self.root,
        }
    }

    /// The peaks at `from`, where the range carries them and they have the right number.
    ///
    /// # Errors
    /// [`RangeError::Peaks`].
    pub fn peaks_at_from(&self) -> Result<Peaks, RangeError> {
        let peaks = self.peaks.clone().ok_or(RangeError::Peaks)?;
        Peaks::from_parts(self.from.get(), peaks).ok_or(RangeError::Peaks)
    }

    /// Whether the entries are inside the range, in order, each number at most once. Every client checks this, also without `verify`.
    ///
    /// # Errors
    /// [`RangeError::Malformed`].
    pub fn check_shape(&self) -> Result<(), RangeError> {
        let entries = self.in_order(self.entries.iter().map(|entry| entry.seq));
        let hidden = self.in_order(self.hidden.iter().flatten().map(|hidden| hidden.0));
        if self.from <= self.to && entries && hidden {
            Ok(())
        } else {
            Err(RangeError::Malformed)
        }
    }

    fn in_order(&self, mut numbers: impl Iterator<Item = Seq>) -> bool {
        let mut last = self.from;
        numbers.all(|seq| {
            let fits = seq > last && seq <= self.to;
            last = seq;
            fits
        })
    }

    /// Checks the range from a place in the log on and returns the place after it (L7, L8, Y6). `cursor` holds the peaks of a number in [from, to]: what stands
    /// at or below it was checked before. The leaves of the entries above it come with their numbers.
    ///
    /// Signatures are apart ([`Entry::signature_holds`]), and so is whether what is hidden may be.
    ///
    /// # Errors
    /// What is wrong with the range; `cursor` is untouched then.
    pub fn verify(&self, thread_id: ThreadId, cursor: &Peaks) -> Result<(Peaks, Vec<(Seq, Hash)>), RangeError> {
        self.check_shape()?;
        let start = Seq::saturating(cursor.size());
        if self.from > start {
            return Err(RangeError::Gap {
                cursor: start,
                from: self.from,
            });
        }
        let mut entries = self.entries.iter().filter(|entry| entry.seq > start).peekable();
        let mut hidden = self
            .hidden
            .iter()
            .flatten()
            .filter(|hidden| hidden.0 > start)
            .peekable();
        let mut peaks = cursor.clone();
        let mut leaves = Vec::new();
        let mut seq = start;
        while seq < self.to {
            seq = seq.next();
            let shown = entries.next_if(|entry| entry.seq == seq);
            let concealed = hidden.next_if(|hidden| hidden.0 == seq);
            let leaf = match (shown, concealed) {
                (Some(entry), None) => {
                    if let (Some(text), Some(hash)) = (entry.body.text(), entry.content_hash)
                        && Hash::of(text.as_bytes()) != hash
                    {
                        return Err(RangeError::ContentHash(seq));
                    }
                    entry_leaf(
                        thread_id,
                        seq,
                        entry.stream,
                        &entry.inner().ok_or(RangeError::Unverifiable(seq))?,
                    )
                }
                (None, Some(Hidden(_, stream, inner))) => entry_leaf(thread_id, seq, *stream, inner),
                (None, None) => return Err(RangeError::Missing(seq)),
                (Some(_), Some(_)) => return Err(RangeError::Malformed),
            };
            peaks.push(leaf);
            leaves.push((seq, leaf));
        }
        if self.to >= start && peaks.root() != self.root {
            return Err(RangeError::Root);
        }
        Ok((peaks, leaves))
    }
}
