//! An entry as the log keeps it: everything that its hash is made of, its body, and what look-ups need.

use alloc::vec::Vec;

use choir_protocol::entry::{Body, Entry, Kind, Proof, entry_leaf, inner_hash};
use choir_protocol::hash::Hash;
use choir_protocol::ids::{Id, Seq, ThreadId, Timestamp, UserId};
use choir_protocol::thread::{Role, Stream, Visibility};

/// An entry as the log keeps it. Bodies are erased in place by redactions (L6); everything else never changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its number.
    pub seq: Seq,
    /// The causing action's id, or the spec's (L3).
    pub id: Id,
    /// What it is: one of L1's table.
    pub kind: Kind,
    /// Who caused it.
    pub author: UserId,
    /// The server's time, never before the previous entry's.
    pub timestamp: Timestamp,
    /// SHA-256 of the body's canonical text; stays when the body is erased.
    pub content_hash: Hash,
    /// How the author's signature is checked; none on derived entries.
    pub proof: Option<Proof>,
    /// What it says.
    pub body: Body,
    /// `root(seq)`: the Merkle tree's root with this entry as the last (L7).
    pub root: Hash,
    /// The tree's nodes that this entry completes: its leaf, then the perfect subtrees of height 1, 2, … that end here.
    pub nodes: Vec<Hash>,
    /// How many `message_posted` the thread holds up to here (Y1's `messages`).
    pub messages: u64,
    /// The message or spec that the entry is about, where that isn't the one that bears its id.
    pub about: Option<Id>,
    /// The author of the spec that the entry concerns, for the specs and approvals streams (S1).
    pub spec_author: Option<UserId>,
}

impl Record {
    /// The entry's stream. Records are of known kinds only, and every known kind has one.
    pub fn stream(&self) -> Stream {
        self.kind.stream().unwrap_or(Stream::Updates)
    }

    /// `inner` of L7.
    pub fn inner(&self) -> Hash {
        inner_hash(
            self.id,
            &self.kind,
            &self.author,
            self.timestamp,
            &self.content_hash,
            self.proof.as_ref().into(),
        )
    }

    /// The entry's leaf in its thread's tree (L7).
    pub fn leaf(&self, thread_id: ThreadId) -> Hash {
        entry_leaf(thread_id, self.seq, self.stream(), &self.inner())
    }

    /// The entry as a viewer gets it: with hash and proof for those who verify, else without, but for the hash on what decisions are bound to (L5).
    pub fn to_entry(&self, verify: bool) -> Entry {
        let hash_always = matches!(self.kind, Kind::SpecSubmitted | Kind::SpecRevised);
        Entry {
            seq: self.seq,
            id: self.id,
            kind: self.kind.clone(),
            stream: self.stream(),
            author: self.author.clone(),
            timestamp: self.timestamp,
            body: self.body.clone(),
            content_hash: (verify || hash_always).then_some(self.content_hash),
            proof: if verify { self.proof.clone() } else { None },
        }
    }
}

/// One entry that a look-up by id found: it bears the id, or is about what bears it. Enough for duplicates (A8), targets and redactions (L6) without reading bodies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its number.
    pub seq: Seq,
    /// Its id.
    pub id: Id,
    /// What it is.
    pub kind: Kind,
    /// Who caused it.
    pub author: UserId,
    /// SHA-256 of its payload.
    pub content_hash: Hash,
}

impl Found {
    /// What a look-up says of a record.
    pub fn of(record: &Record) -> Self {
        Self {
            seq: record.seq,
            id: record.id,
            kind: record.kind.clone(),
            author: record.author.clone(),
            content_hash: record.content_hash,
        }
    }
}

/// What the log's derived index learns from an append beside the records themselves; computed by the core, rebuildable from the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Bodies that a redaction in this append erases, and the number of the redaction (L6).
    pub erase: Vec<(Seq, Seq)>,
    /// Members whose row changed: the row, or none for who is a member no longer.
    pub members: Vec<(UserId, Option<MemberFact>)>,
    /// The thread's line in lists (Y1), as of this append.
    pub summary: Summary,
}

/// One user's membership, as lists of threads need it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemberFact {
    /// The role.
    pub role: Role,
    /// Whether they have joined (S3).
    pub joined: bool,
}

/// What lists of threads say of one (Y1), and when it is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// The title.
    pub title: alloc::string::String,
    /// Who reads.
    pub visibility: Visibility,
    /// How many messages it holds.
    pub messages: u64,
    /// The time of the last entry.
    pub last_activity: Timestamp,
    /// When the next spec expires (S8), if one is open.
    pub due: Option<Timestamp>,
    /// For each deciding co-author with specs that await their decision: how many (Y1).
    pub awaiting: Vec<(UserId, u32)>,
}
