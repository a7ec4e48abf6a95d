//! What a thread's actor decides on top of one another before one append.
//!
//! ```
//! use choir_core::batch::{Batch, Step};
//! use choir_core::decide::{Context, Lookups, ThreadLimits};
//! use choir_protocol::action::{SignedAction, Unsigned};
//! # use choir_protocol::ids::{Id, Salt, ThreadId, Timestamp, UserId};
//! # use choir_protocol::{key::SecretKey, object};
//! # let (secret, now) = (SecretKey::from_seed(&[7; 32]), Timestamp::saturating(1_764_000_000_000));
//! # let (key, alice, thread_id) = (secret.public(), UserId::of_key(&secret.public()), ThreadId::from_bytes([1; 16]));
//! # let audience = "https://choir.example".parse()?;
//! # let salt = Salt::from_bytes([3; 16]).to_string();
//! # let payload = object! { "title": "plans", "audience": "https://choir.example", "salt": salt };
//! # let unsigned = Unsigned { audience: &audience, user_id: &alice, id: Id::from_bytes([2; 16]), action_type: "action.create_thread",
//! #     thread_id, timestamp: now, seen: None, payload: &payload };
//! # let limits = ThreadLimits::default();
//! let mut waiting = vec![SignedAction::sign(unsigned, &secret)?];
//! let mut state = None;
//! while !waiting.is_empty() {
//!     let mut batch = Batch::on(thread_id, state.clone());
//!     let mut answers = Vec::new();
//!     while let Some(action) = waiting.first() {
//!         let context = Context { author: &alice, key: &key, audience: &audience, now, limits: &limits,
//!             audiences: std::slice::from_ref(&audience), agent_issuers: &[] };
//!         // From the log, at the batch's base: `targets(action)`, and the root at `seen`.
//!         let lookups = Lookups::default();
//!         match batch.decide(action, &context, lookups) {
//!             // Specs are due: this action and all after it wait for the next batch.
//!             Step::Later => break,
//!             answer => answers.push((waiting.remove(0), answer)),
//!         }
//!     }
//!     if let Some(append) = batch.finish() {
//!         // Append it here, durably. Where that fails, throw the answers away and decide anew (A10).
//!         state = Some(append.next);
//!     }
//!     // Now send the answers.
//!     assert!(matches!(answers[0].1, Step::Committed { .. }));
//! }
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```
//!
//! Answers, refusals and duplicates included, wait for the batch: they were decided on what it appends (G2). Of a batch that appends nothing they may go at once.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use choir_protocol::action::SignedAction;
use choir_protocol::entry::Body;
use choir_protocol::error::ErrorCode;
use choir_protocol::hash::Hash;
use choir_protocol::ids::{Cursor, Id, Seq, ThreadId, Timestamp};

use crate::apply::ApplyError;
use crate::decide::{Append, Context, Decided, Lookups, Own, Refusal, decide, expire};
use crate::record::{Facts, Found, Record};
use crate::thread::Thread;

/// Actions decided on top of one another, and the one append that they make.
#[derive(Debug, Clone)]
pub struct Batch {
    thread_id: ThreadId,
    /// The head of the log that the batch stands on.
    base: Cursor,
    /// The state with everything decided so far.
    working: Option<Thread>,
    records: Vec<Record>,
    facts: Option<Facts>,
    /// What a look-up of an id finds in the batch.
    overlay: BTreeMap<Id, Vec<Found>>,
    /// Nothing more is decided: specs are due, and their expiry is durable before any later answer (S8).
    closed: bool,
}

/// How an action fared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Applied, once the batch is durable (A9).
    Committed {
        /// Its own entry.
        own: Own,
        /// The root there.
        root: Hash,
    },
    /// It stands in the log, or earlier in this batch (A8).
    Duplicate {
        /// Its own entry.
        own: Own,
        /// The root there, where that is in this batch; else the log knows it.
        root: Option<Hash>,
    },
    /// Not applied.
    Refused(Refusal),
    /// Not decided: specs are due. Finish this batch, append it, and decide the action in the next one (S8).
    Later,
}

impl Batch {
    /// An empty batch on a thread's state; `None` where there is no such thread.
    pub fn on(thread_id: ThreadId, state: Option<Thread>) -> Self {
        Self {
            thread_id,
            base: state.as_ref().map_or(Cursor::START, Thread::head),
            working: state,
            records: Vec::new(),
            facts: None,
            overlay: BTreeMap::new(),
            closed: false,
        }
    }

    /// The state with everything decided so far.
    pub fn thread(&self) -> Option<&Thread> {
        self.working.as_ref()
    }

    /// The head of the log that the batch stands on: what look-ups must have been read at.
    pub fn base(&self) -> Cursor {
        self.base
    }

    /// The entries decided so far.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// Whether nothing more is decided in this batch.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// The server's own part of S8: expires what is due, where nothing else was decided in the batch, which is closed then. Whether anything is due.
    ///
    /// # Errors
    /// Never on a state that was folded from a log.
    pub fn expire(&mut self, now: Timestamp) -> Result<bool, ApplyError> {
        let Some(thread) = self.working.as_ref().filter(|thread| thread.is_due(now)) else {
            return Ok(false);
        };
        // With entries before it, the expiry is the next batch's: it is an append of its own.
        if self.records.is_empty()
            && let Some(append) = expire(thread, now)?
        {
            self.take(append);
        }
        self.closed = true;
        Ok(true)
    }

    /// Decides an action on top of what was decided so far. `lookups` are the log's, read at [`base`](Batch::base); what the batch itself holds is added here.
    pub fn decide(&mut self, action: &SignedAction, context: &Context<'_>, lookups: Lookups) -> Step {
        if self.closed {
            return Step::Later;
        }
        match self.expire(context.now) {
            Ok(false) => {}
            Ok(true) => return Step::Later,
            Err(error) => return Step::Refused(error.into()),
        }
        if action.thread_id != self.thread_id {
            return Step::Refused(Refusal::new(ErrorCode::Internal, "the action went to another thread"));
        }
        let lookups = self.with_overlay(action, lookups);
        match decide(self.working.as_ref(), action, context, &lookups) {
            Err(refusal) => Step::Refused(refusal),
            Ok(Decided::Duplicate(own)) => Step::Duplicate {
                root: self.root_at(own.seq),
                own,
            },
            Ok(Decided::Committed(append)) => match append.records.first() {
                Some(first) => {
                    let step = Step::Committed {
                        own: Own {
                            seq: first.seq,
                            kind: first.kind.clone(),
                        },
                        root: first.root,
                    };
                    self.take(append);
                    step
                }
                None => Step::Refused(ApplyError::Impossible(self.base.seq).into()),
            },
        }
    }

    /// The batch as one append; none where nothing was decided.
    pub fn finish(self) -> Option<Append> {
        let (Some(facts), Some(next)) = (self.facts, self.working) else {
            return None;
        };
        Some(Append {
            expected: self.base,
            records: self.records,
            facts,
            next,
        })
    }

    /// The root at the base or above it: what the batch knows without the log.
    fn root_at(&self, seq: Seq) -> Option<Hash> {
        if seq == self.base.seq {
            return Some(self.base.root);
        }
        self.records
            .iter()
            .find(|record| record.seq == seq)
            .map(|record| record.root)
    }

    fn with_overlay(&self, action: &SignedAction, mut lookups: Lookups) -> Lookups {
        for (id, found) in &mut lookups.found {
            found.extend(self.overlay.get(id).into_iter().flatten().cloned());
        }
        if let Some(seen) = action.seen
            && let Some(root) = self.root_at(seen.seq)
        {
            lookups.seen_root = Some(root);
        }
        lookups
    }

    fn take(&mut self, append: Append) {
        let Append {
            records, facts, next, ..
        } = append;
        for record in &records {
            for id in [Some(record.id), record.about].into_iter().flatten() {
                self.overlay.entry(id).or_default().push(Found::of(record));
            }
        }
        self.records.extend(records);
        self.working = Some(next);
        // L6: what was posted in this batch is erased before it is written at all.
        for (erased, redaction) in &facts.erase {
            if let Some(record) = self.records.iter_mut().find(|record| record.seq == *erased) {
                record.body = Body::Erased(*redaction);
            }
        }
        match &mut self.facts {
            None => self.facts = Some(facts),

            Some(merged) => {
                merged.erase.extend(facts.erase);
                merged.summary = facts.summary;
                for (user, fact) in facts.members {
                    match merged.members.iter_mut().find(|(known, _)| *known == user) {
                        Some((_, old)) => *old = fact,
                        None => merged.members.push((user, fact)),
                    }
                }
            }
        }
    }
}
