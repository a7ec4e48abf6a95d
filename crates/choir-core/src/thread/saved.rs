//! A thread's state as the log saves it: a cache, whose loss costs time only.
//!
//! ```text
//! choir.v1 state 1\n          the format, and its version
//! <64 hex digits>\n           SHA-256 of what follows
//! {…}                         the state as JSON
//! ```
//!
//! Whatever isn't exactly that is an error, and its reader folds the log instead.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use choir_protocol::canonical::Canonical;
use choir_protocol::entry::{Body, Proof};
use choir_protocol::hash::Hash;
use choir_protocol::ids::{Id, Seq, ThreadId, Timestamp, UserId};
use choir_protocol::merkle::Peaks;
use choir_protocol::thread::{DecisionRow, Member, Settings};
use serde::{Deserialize, Serialize};

use super::{Given, Members, Revision, Row, Spec, Thread};

const FORMAT: &str = "choir.v1 state 1";

/// A saved state that can't be used. The log itself is unharmed by that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SavedError {
    /// Not a saved state, or one of another version.
    Format,
    /// The text isn't the one that was saved.
    Damaged,
    /// The text is intact but says what no thread can be.
    Impossible,
}

impl fmt::Display for SavedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Format => "not a saved state of this version",
            Self::Damaged => "the saved state is damaged",
            Self::Impossible => "the saved state is of no possible thread",
        })
    }
}

impl core::error::Error for SavedError {}

impl Thread {
    /// The state as bytes, for [`Thread::decode`].
    pub fn encode(&self) -> Vec<u8> {
        // These types hold nothing that JSON can't: no maps, no non-finite numbers. An empty text would be refused by `decode`.
        let state = serde_json::to_string(&Saved::of(self)).unwrap_or_default();
        alloc::format!("{FORMAT}\n{}\n{state}", Hash::of(state.as_bytes())).into_bytes()
    }

    /// The state that was encoded.
    ///
    /// # Errors
    /// Whatever isn't what [`Thread::encode`] of this version returned.
    pub fn decode(bytes: &[u8]) -> Result<Self, SavedError> {
        let text = core::str::from_utf8(bytes).map_err(|_| SavedError::Damaged)?;
        let (format, rest) = text.split_once('\n').ok_or(SavedError::Format)?;
        if format != FORMAT {
            return Err(SavedError::Format);
        }
        let (hash, state) = rest.split_once('\n').ok_or(SavedError::Damaged)?;
        if Hash::of(state.as_bytes()).to_hex() != hash {
            return Err(SavedError::Damaged);
        }
        serde_json::from_str::<Saved>(state)
            .map_err(|_| SavedError::Impossible)?
            .into_thread()
    }
}

#[derive(Serialize, Deserialize)]
struct Saved {
    thread_id: ThreadId,
    settings: Settings,
    members: Vec<SavedMember>,
    left: Vec<(UserId, Timestamp)>,
    specs: Vec<SavedSpec>,
    size: Seq,
    peaks: Vec<Hash>,
    messages: u64,
    last_activity: Timestamp,
    widened: Seq,
    publishing: Option<Id>,
}

#[derive(Serialize, Deserialize)]
struct SavedMember {
    #[serde(flatten)]
    member: Member,
    widened: Seq,
}

#[derive(Serialize, Deserialize)]
struct SavedSpec {
    id: Id,
    author: UserId,
    submitted_at: Timestamp,
    expires_at: Timestamp,
    seq: Seq,
    action: Id,
    content_hash: Hash,
    body: Option<String>,
    erased: Option<Seq>,
    proof: Option<Proof>,
    decisions: Vec<DecisionRow>,
}

impl Saved {
    fn of(thread: &Thread) -> Self {
        Self {
            thread_id: thread.thread_id,
            settings: (*thread.settings).clone(),
            members: thread
                .members
                .rows()
                .iter()
                .map(|row| SavedMember {
                    member: row.member.clone(),
                    widened: row.widened,
                })
                .collect(),
            left: (*thread.left).clone(),
            specs: thread.open_specs().map(SavedSpec::of).collect(),
            size: thread.head().seq,
            peaks: thread.peaks.as_slice().to_vec(),
            messages: thread.messages,
            last_activity: thread.last_activity,
            widened: thread.widened,
            publishing: thread.publishing,
        }
    }

    fn into_thread(self) -> Result<Thread, SavedError> {
        // What counts entries can't be above their number, and so never overflows.
        if self.messages > self.size.get() {
            return Err(SavedError::Impossible);
        }
        let peaks = Peaks::from_parts(self.size.get(), self.peaks).ok_or(SavedError::Impossible)?;
        let specs = self
            .specs
            .into_iter()
            .map(|spec| spec.into_spec().map(Arc::new))
            .collect::<Result<_, _>>()?;
        Ok(Thread {
            thread_id: self.thread_id,
            settings: Arc::new(self.settings),
            members: Arc::new(
                self.members
                    .into_iter()
                    .map(|SavedMember { member, widened }| Row { member, widened })
                    .collect::<Members>(),
            ),
            left: Arc::new(self.left),
            specs: Arc::new(specs),
            root: peaks.root(),
            peaks,
            messages: self.messages,
            last_activity: self.last_activity,
            widened: self.widened,
            publishing: self.publishing,
        })
    }
}

impl SavedSpec {
    fn of(spec: &Spec) -> Self {
        let Revision {
            seq,
            action,
            content_hash,
            body,
            proof,
        } = &spec.revision;
        let (body, erased) = match body {
            Body::Present(text) => (Some(text.as_str().into()), None),
            Body::Erased(seq) => (None, Some(*seq)),
        };
        Self {
            id: spec.id,
            author: spec.author.clone(),
            submitted_at: spec.submitted_at,
            expires_at: spec.expires_at,
            seq: *seq,
            action: *action,
            content_hash: *content_hash,
            body,
            erased,
            proof: proof.clone(),
            decisions: spec.decisions.iter().map(Given::to_row).collect(),
        }
    }

    fn into_spec(self) -> Result<Spec, SavedError> {
        let body = match (self.body, self.erased) {
            (Some(text), None) if Hash::of(text.as_bytes()) == self.content_hash => {
                Body::Present(Canonical::from_trusted_storage(text))
            }
            (None, Some(seq)) => Body::Erased(seq),
            _ => return Err(SavedError::Impossible),
        };
        Ok(Spec {
            id: self.id,
            author: self.author,
            submitted_at: self.submitted_at,
            expires_at: self.expires_at,
            revision: Revision {
                seq: self.seq,
                action: self.action,
                content_hash: self.content_hash,
                body,
                proof: self.proof,
            },
            decisions: self
                .decisions
                .into_iter()
                .map(
                    |DecisionRow {
                         user_id,
                         decision,
                         reason,
                         seq,
                     }| Given {
                        user_id,
                        decision,
                        reason,
                        seq,
                    },
                )
                .collect(),
        })
    }
}
