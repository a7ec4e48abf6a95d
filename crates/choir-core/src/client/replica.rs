//! A verified replica of one thread: what the viewer sees of it, the cursor up to which that holds, and the tree's peaks there.
//!
//! Nothing enters but by [`Replica::from_snapshot`], [`Replica::apply`] and [`Replica::prepend`], and nothing enters unchecked: the root of each range must
//! be the one that its leaves give (L7, L8), each entry must bear its author's signature (K1, K2), and what the server hides must be what it may hide. What
//! a check finds and the protocol survives comes back as [`Finding`]s, for the caller to tell people.
//!
//! ```text
//!   1 … floor            floor + 1 … cursor                      head
//!   brought by history   held: messages, edits, redactions       not here yet
//! ```
//!
//! Memory is bounded ([`Retain`]): where too much is held the floor rises. The cursor and its peaks are always there.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::fmt;

use choir_protocol::action::{CreateThread, NewMember, RedactMessage};
use choir_protocol::de::from_value;
use choir_protocol::entry::{Body, Entry, Kind};
use choir_protocol::hash::Hash;
use choir_protocol::ids::{Audience, Cursor, Id, Seq, ThreadId, UserId};
use choir_protocol::key::PublicKey;
use choir_protocol::merkle::Peaks;
use choir_protocol::message::Snapshot;
use choir_protocol::range::{Hidden, Range, RangeError};
use choir_protocol::thread::{Role, Stream};

use super::keys::KeyRing;
use super::view::View;
use crate::view::{Streams, ViewHistory};

/// How much of a thread a replica holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retain {
    /// Messages, and changes of older messages.
    pub messages: usize,
    /// Entries of any kind: each costs one hash, so that what others say that they have seen can be compared (K4).
    pub entries: usize,
}

impl Default for Retain {
    fn default() -> Self {
        Self {
            messages: 1_000,
            entries: 4_096,
        }
    }
}

/// For whom a replica is held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Viewer {
    /// The user.
    pub user_id: UserId,
    /// The client's own audience (C4), which signatures may be made for beside the thread's (L5).
    pub audience: Audience,
    /// The streams that are subscribed; none where all that one may see are.
    pub streams: Option<Vec<Stream>>,
    /// How much is held.
    pub retain: Retain,
}

/// Something that the caller should know about what was applied.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Finding {
    /// A user signs with a key that wasn't seen before (K5).
    NewKey {
        /// The entry that bears it.
        seq: Seq,
        /// Whose it is said to be.
        user_id: UserId,
        /// The key.
        key: PublicKey,
    },
    /// A signature was made for an audience that is neither the thread's nor the client's own (L5).
    ForeignAudience {
        /// The entry.
        seq: Seq,
        /// What its signature was made for.
        audience: Audience,
    },
    /// An entry isn't its author's: the server put it into the log without their signature. It has no effect on what is shown.
    Forged {
        /// The entry.
        seq: Seq,
        /// Who is said to be its author.
        author: UserId,
        /// What is wrong with it.
        why: &'static str,
    },
    /// An entry breaks a rule that its server should have kept. It has no effect on what is shown.
    Refused {
        /// The entry.
        seq: Seq,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A body is missing without a permitted redaction (L6).
    Erased {
        /// The entry without a body.
        seq: Seq,
        /// The number that is said to have erased it.
        by: Seq,
    },
    /// An entry is hidden that the viewer may see (L8).
    Hidden {
        /// The entry.
        seq: Seq,
        /// Its stream.
        stream: Stream,
    },
    /// Its author had seen another history under the same number: proof that the server showed two (K4).
    TwoHistories {
        /// The entry.
        seq: Seq,
        /// What its author had applied.
        seen: Cursor,
        /// The root that is held for that number.
        held: Hash,
    },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NewKey { seq, user_id, key } => {
                write!(f, "entry {seq}: {user_id} signs with a new key, {key}")
            }
            Self::ForeignAudience { seq, audience } => {
                write!(f, "entry {seq} was signed for another server, {audience}")
            }
            Self::Forged { seq, author, why } => {
                write!(f, "entry {seq} is said to be by {author}, but {why}")
            }
            Self::Refused { seq, why } => write!(f, "entry {seq} breaks a rule: {why}"),
            Self::Erased { seq, by } => write!(
                f,
                "entry {seq} came without its body, and entry {by} is no redaction that permits that"
            ),
            Self::Hidden { seq, stream } => write!(
                f,
                "entry {seq} of the stream {} is hidden, although it may be seen",
                stream.as_str()
            ),
            Self::TwoHistories { seq, seen, .. } => write!(
                f,
                "the author of entry {seq} had seen another history up to {}: the server showed two",
                seen.seq
            ),
        }
    }
}

/// What became of an update (Y6).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Applied {
    /// All of it was known: `to` is at or below the cursor.
    Ignored,
    /// The cursor is now the range's end.
    Entries {
        /// What was applied: the entries above the old cursor.
        entries: Vec<Entry>,
        /// What is to be told.
        findings: Vec<Finding>,
    },
    /// It begins above the cursor: subscribe again with the cursor, once. Nothing was applied.
    Gap {
        /// Where it begins.
        from: Seq,
    },
    /// It hides what may be seen: subscribe again with the cursor, once, then [`Replica::apply_hidden`] (L8). Nothing was applied.
    HiddenOutOfOrder(Vec<Hidden>),
    /// It isn't what it says. Keep this replica aside, subscribe again without a cursor, tell the caller. Nothing was applied.
    Mismatch(RangeError),
}

/// Why a page of history wasn't taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HistoryError {
    /// The page isn't what it says.
    Range(RangeError),
    /// The page ends before the place from which history is walked back, or begins after it.
    NotAdjacent {
        /// That place.
        at: Seq,
    },
    /// The page's root at that place isn't the one that is held: it belongs to another history.
    Root {
        /// That place.
        at: Seq,
    },
}

impl fmt::Display for HistoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Range(error) => error.fmt(f),
            Self::NotAdjacent { at } => write!(f, "the page of history doesn't reach entry {at}"),
            Self::Root { at } => write!(f, "the page of history belongs to a log that differs at entry {at}"),
        }
    }
}

impl core::error::Error for HistoryError {}

/// What a page of history brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The entries below the place from which history was walked back.
    pub entries: Vec<Entry>,
    /// Whether the replica holds them now; otherwise it was full.
    pub kept: bool,
    /// What is to be told.
    pub findings: Vec<Finding>,
}

/// A walk back through a thread's log, page by page, to entry 1 (Y11): each page must fit what is known of the later ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Walk {
    thread_id: ThreadId,
    at: Cursor,
}

impl Walk {
    /// A walk that begins at a place in the log that is known, such as a replica's [floor](Replica::floor).
    pub const fn new(thread_id: ThreadId, at: Cursor) -> Self {
        Self { thread_id, at }
    }

    /// The place that the next page must reach; number 0 at the end.
    pub const fn at(&self) -> Cursor {
        self.at
    }

    /// Checks a page: its leaves on top of its `peaks` must give the root that is known at the place where the walk is. The walk then is at the page's
    /// `from`. Returns the roots from `from` to where the walk was, without the last.
    ///
    /// # Errors
    /// Why it can't be that part of the log. The walk stays where it is.
    pub fn verify(&mut self, page: &Range) -> Result<Vec<Hash>, HistoryError> {
        let mut peaks = page.peaks_at_from().map_err(HistoryError::Range)?;
        let (_, leaves) = page.verify(self.thread_id, &peaks).map_err(HistoryError::Range)?;
        let at = self.at.seq;
        if at < page.from || at > page.to {
            return Err(HistoryError::NotAdjacent { at });
        }
        let begin = Cursor {
            seq: page.from,
            root: peaks.root(),
        };
        let mut roots = Vec::new();
        for (seq, leaf) in leaves.into_iter().take_while(|(seq, _)| *seq <= at) {
            debug_assert!(seq > page.from, "leaves lie in the range");
            roots.push(peaks.root());
            peaks.push(leaf);
        }
        if peaks.root() != self.at.root {
            return Err(HistoryError::Root { at });
        }
        self.at = begin;
        Ok(roots)
    }
}

/// A verified replica of one thread.
#[derive(Debug, Clone)]
pub struct Replica {
    thread_id: ThreadId,
    viewer: Viewer,
    view: View,
    /// How much the viewer saw when (L8).
    sight: ViewHistory,
    /// Those at the cursor.
    peaks: Peaks,
    /// `root(floor)` to `root(cursor)`. Invariant: one for each number, so never empty.
    roots: VecDeque<Hash>,
    floor: Seq,
    /// The redactions above the floor, and what they redact.
    redactions: BTreeMap<Seq, Id>,
    /// Bodies that are said to be erased by entries that aren't here yet, by the number of those (L6).
    expected_redactions: BTreeMap<Seq, Vec<ErasedEntry>>,
}

/// An entry without a body, as far as its redaction is checked.
#[derive(Debug, Clone, Copy)]
struct ErasedEntry {
    seq: Seq,
    /// What the redaction must name, where the entry tells.
    message: Option<Id>,
}

impl Replica {
    /// One at the very beginning of a thread's log: what follows is verified from entry 1 on.
    pub fn new(thread_id: ThreadId, viewer: Viewer) -> Self {
        Self {
            thread_id,
            view: View::new(viewer.user_id.clone()),
            sight: ViewHistory::from_start(viewer.user_id.clone()),
            viewer,
            peaks: Peaks::new(),
            roots: VecDeque::from([Hash::EMPTY]),
            floor: Seq::ZERO,
            redactions: BTreeMap::new(),
            expected_redactions: BTreeMap::new(),
        }
    }

    /// One that begins with a snapshot (Y5). The state in it is taken at the server's word until the history before it was walked through (G8); its entries
    /// are verified.
    ///
    /// # Errors
    /// Where its entries aren't what they say.
    pub fn from_snapshot(
        thread_id: ThreadId,
        viewer: Viewer,
        snapshot: &Snapshot,
        keys: &mut KeyRing,
    ) -> Result<(Self, Vec<Finding>), RangeError> {
        let recent = &snapshot.recent;
        let peaks = recent.peaks_at_from()?;
        let (end, leaves) = recent.verify(thread_id, &peaks)?;
        let view = View::from_snapshot(viewer.user_id.clone(), snapshot);
        let mut replica = Self {
            thread_id,
            sight: ViewHistory::from_snapshot(viewer.user_id.clone(), recent.to, &snapshot.thread, view.role()),
            view,
            viewer,
            roots: VecDeque::from([peaks.root()]),
            peaks,
            floor: recent.from,
            redactions: BTreeMap::new(),
            expected_redactions: BTreeMap::new(),
        };
        let mut findings = Vec::new();
        replica.take(&leaves, &recent.entries, keys, Fold::Past, &mut findings);
        debug_assert!(replica.peaks == end, "the same leaves give the same peaks");
        replica.trim();
        Ok((replica, findings))
    }

    /// The thread.
    pub const fn thread_id(&self) -> ThreadId {
        self.thread_id
    }

    /// Up to where the log was applied: number and root.
    pub fn cursor(&self) -> Cursor {
        Cursor {
            seq: Seq::saturating(self.peaks.size()),
            root: self.peaks.root(),
        }
    }

    /// The tree's peaks at the cursor.
    pub const fn peaks(&self) -> &Peaks {
        &self.peaks
    }

    /// The place above which everything is held; history is walked back from here.
    pub fn floor(&self) -> Cursor {
        Cursor {
            seq: self.floor,
            root: self.root_at(self.floor).unwrap_or(Hash::EMPTY),
        }
    }

    /// What is held of the thread.
    pub const fn view(&self) -> &View {
        &self.view
    }

    /// For whom it is held.
    pub const fn viewer(&self) -> &Viewer {
        &self.viewer
    }

    /// The root at a number between floor and cursor.
    pub fn root_at(&self, seq: Seq) -> Option<Hash> {
        let index = usize::try_from(seq.get().checked_sub(self.floor.get())?).ok()?;
        self.roots.get(index).copied()
    }

    /// Applies an update (Y6).
    pub fn apply(&mut self, range: Range, keys: &mut KeyRing) -> Applied {
        self.apply_from_cursor(range, keys, false)
    }

    /// Applies an update although it hides what may be seen, which comes back as [`Finding::Hidden`]: for what is so still after a new subscribe (L8).
    pub fn apply_hidden(&mut self, range: Range, keys: &mut KeyRing) -> Applied {
        self.apply_from_cursor(range, keys, true)
    }

    fn apply_from_cursor(&mut self, range: Range, keys: &mut KeyRing, tolerate: bool) -> Applied {
        let cursor = self.cursor().seq;
        if let Err(error) = range.check_shape() {
            return Applied::Mismatch(error);
        }
        if range.to <= cursor {
            return Applied::Ignored;
        }
        let (end, leaves) = match range.verify(self.thread_id, &self.peaks) {
            Ok(verified) => verified,
            Err(RangeError::Gap { from, .. }) => return Applied::Gap { from },
            Err(error) => return Applied::Mismatch(error),
        };
        let mut sight = self.sight.clone();
        for entry in range.entries.iter().filter(|entry| entry.seq > cursor) {
            sight.take(entry);
        }
        let hidden: Vec<Hidden> = range
            .hidden
            .iter()
            .flatten()
            .filter(|Hidden(seq, stream, _)| *seq > cursor && !sight.in_order(*seq, *stream, self.streams()))
            .copied()
            .collect();
        if !tolerate && !hidden.is_empty() {
            return Applied::HiddenOutOfOrder(hidden);
        }
        let mut findings: Vec<Finding> = hidden
            .into_iter()
            .map(|Hidden(seq, stream, _)| Finding::Hidden { seq, stream })
            .collect();
        self.sight = sight;
        let mut entries = range.entries;
        entries.retain(|entry| entry.seq > cursor);
        self.take(&leaves, &entries, keys, Fold::Forward, &mut findings);
        debug_assert!(self.peaks == end, "the same leaves give the same peaks");
        self.trim();
        Applied::Entries { entries, findings }
    }

    /// Verifies a page of history against the floor, and holds it where there is room (Y6, Y11).
    ///
    /// # Errors
    /// Why it can't be the part of the log before the floor. Nothing is changed then.
    pub fn prepend(&mut self, page: Range, keys: &mut KeyRing) -> Result<Page, HistoryError> {
        let mut walk = Walk::new(self.thread_id, self.floor());
        let roots = walk.verify(&page)?;
        let mut entries = page.entries;
        entries.retain(|entry| entry.seq <= self.floor);
        let posted = entries.iter().filter(|entry| entry.kind == Kind::MessagePosted).count();
        let kept = self.view.held().saturating_add(posted) <= self.viewer.retain.messages
            && self.roots.len().saturating_add(roots.len()) <= self.viewer.retain.entries;
        let mut findings = Vec::new();
        if kept {
            self.floor = walk.at().seq;
            for root in roots.into_iter().rev() {
                self.roots.push_front(root);
            }
            self.note_redactions(&entries);
        }
        for entry in &entries {
            if let Err(finding) = self.check_entry(entry, keys, &mut findings) {
                findings.push(finding);
            } else if kept && let Err(why) = self.view.recall(entry) {
                findings.push(Finding::Refused { seq: entry.seq, why });
            }
        }
        Ok(Page {
            entries,
            kept,
            findings,
        })
    }

    /// Takes verified leaves and the visible entries among them, which follow the cursor.
    fn take(
        &mut self,
        leaves: &[(Seq, Hash)],
        entries: &[Entry],
        keys: &mut KeyRing,
        fold: Fold,
        findings: &mut Vec<Finding>,
    ) {
        self.note_redactions(entries);
        let mut entries = entries.iter().peekable();
        for (seq, leaf) in leaves {
            if let Some(entry) = entries.next_if(|entry| entry.seq == *seq) {
                // Checked before the cursor moves: what the author had seen lies below the entry.
                match self.check_entry(entry, keys, findings) {
                    Err(finding) => findings.push(finding),
                    Ok(()) => {
                        let done = match fold {
                            Fold::Forward => self.view.apply(entry),
                            Fold::Past => self.view.recall(entry),
                        };
                        if let Err(why) = done {
                            findings.push(Finding::Refused { seq: *seq, why });
                        }
                    }
                }
            }
            self.check_expected_redactions(*seq, findings);
            self.peaks.push(*leaf);
            self.roots.push_back(self.peaks.root());
        }
    }

    /// Whether an entry may be hidden from the viewer, by the entries up to the cursor (L8).
    pub fn may_hide(&self, seq: Seq, stream: Stream) -> bool {
        self.sight.in_order(seq, stream, self.streams())
    }

    fn streams(&self) -> Streams {
        Streams::of(self.viewer.streams.as_deref())
    }

    // ------------------------------------------------------------------------------------------------------------------------------------------ entries

    /// Whether the entry is its author's (K1, K2, L5), and whether its body is missing with reason (L6). `Err` where it isn't, and so has no effect.
    fn check_entry(&mut self, entry: &Entry, keys: &mut KeyRing, findings: &mut Vec<Finding>) -> Result<(), Finding> {
        let forged = |why| Finding::Forged {
            seq: entry.seq,
            author: entry.author.clone(),
            why,
        };
        if entry.author.is_choir() {
            return check_derived(entry).map_err(forged);
        }
        let proof = entry
            .proof
            .as_ref()
            .ok_or_else(|| forged("it came without a signature"))?;
        check_proof_names(entry).map_err(forged)?;
        let thread_audience = self
            .thread_audience(entry)
            .ok_or_else(|| forged("the thread's audience isn't known"))?;
        let text = entry
            .signed_text(self.thread_id, &thread_audience)
            .ok_or_else(|| forged("what was signed isn't known"))?;
        // Who is their key has no other, whatever the proof says.
        let key = match (entry.author.key(), proof.key) {
            (Some(own), None) => own,
            (Some(own), Some(named)) if own == named => own,
            (None, Some(named)) => named,
            (Some(_), Some(_)) => return Err(forged("it names another key than its author is")),
            (None, None) => return Err(forged("it names no key")),
        };
        if !keys.verify(key, text.as_bytes(), &proof.sig) {
            return Err(forged("the signature doesn't hold"));
        }
        if keys.remember(&entry.author, key) {
            findings.push(Finding::NewKey {
                seq: entry.seq,
                user_id: entry.author.clone(),
                key,
            });
        }
        if let Some(audience) = &proof.audience
            && *audience != thread_audience
            && *audience != self.viewer.audience
        {
            findings.push(Finding::ForeignAudience {
                seq: entry.seq,
                audience: audience.clone(),
            });
        }
        if let Some(seen) = proof.seen
            && seen.seq < entry.seq
            && let Some(held) = self.root_at(seen.seq)
            && held != seen.root
        {
            findings.push(Finding::TwoHistories {
                seq: entry.seq,
                seen,
                held,
            });
        }
        if let Body::Erased(by) = entry.body {
            self.check_erased(entry, by, findings);
        }
        Ok(())
    }

    /// The audience of the thread's `thread_created`, also while that is the entry in question (S1).
    fn thread_audience(&self, entry: &Entry) -> Option<Audience> {
        match self.view.settings() {
            Some(settings) => Some(settings.audience.clone()),
            None if entry.kind == Kind::ThreadCreated => {
                let created: CreateThread = from_value(&entry.body_value()?).ok()?;
                Some(created.audience)
            }
            None => None,
        }
    }

    /// A body may be missing where a redaction of its message says so (L6); provisionally, while that isn't held.
    fn check_erased(&mut self, entry: &Entry, by: Seq, findings: &mut Vec<Finding>) {
        let finding = Finding::Erased { seq: entry.seq, by };
        let message = match entry.kind {
            Kind::MessagePosted | Kind::SpecSubmitted => Some(entry.id),
            // Which message these belong to stood in the body.
            Kind::MessageEdited | Kind::SpecRevised => None,
            _ => {
                findings.push(finding);
                return;
            }
        };
        let erased = ErasedEntry {
            seq: entry.seq,
            message,
        };
        if by <= entry.seq {
            findings.push(finding);
        } else if let Some(redacted) = self.redactions.get(&by) {
            if message.is_some_and(|message| message != *redacted) {
                findings.push(finding);
            }
        } else if by > self.cursor().seq {
            self.expected_redactions.entry(by).or_default().push(erased);
        } else if by > self.floor {
            findings.push(finding);
        }
    }

    /// Notes what these entries redact before any of them is looked at: an erased entry stands before its redaction.
    fn note_redactions(&mut self, entries: &[Entry]) {
        for entry in entries {
            if entry.kind == Kind::MessageRedacted
                && let Some(value) = entry.body_value()
                && let Ok(RedactMessage { message }) = from_value(&value)
            {
                self.redactions.insert(entry.seq, message);
            }
        }
    }

    /// Settles what was taken provisionally on the word that this number would redact it.
    fn check_expected_redactions(&mut self, seq: Seq, findings: &mut Vec<Finding>) {
        let Some(erased) = self.expected_redactions.remove(&seq) else {
            return;
        };
        let redacted = self.redactions.get(&seq);
        for entry in erased {
            let permitted = match (redacted, entry.message) {
                (None, _) => false,
                (Some(redacted), Some(message)) => *redacted == message,
                (Some(_), None) => true,
            };
            if !permitted {
                findings.push(Finding::Erased {
                    seq: entry.seq,
                    by: seq,
                });
            }
        }
    }

    // ------------------------------------------------------------------------------------------------------------------------------------------- memory

    /// Raises the floor until no more is held than may be.
    fn trim(&mut self) {
        let most = self.viewer.retain.entries.max(1);
        if self.roots.len() > most {
            let surplus = (self.roots.len() - most) as u64;
            self.raise_floor(Seq::saturating(self.floor.get() + surplus));
        }
        while let Some(floor) = self.view.floor_to_hold(self.viewer.retain.messages) {
            self.raise_floor(floor);
        }
    }

    fn raise_floor(&mut self, floor: Seq) {
        while self.floor < floor && self.roots.len() > 1 {
            self.roots.pop_front();
            self.floor = self.floor.next();
        }
        self.view.forget(self.floor);
        self.redactions = self.redactions.split_off(&self.floor.next());
        for erased in self.expected_redactions.values_mut() {
            erased.retain(|entry| entry.seq > floor);
        }
        self.expected_redactions.retain(|_, erased| !erased.is_empty());
    }
}

/// How the entries of a range change a view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fold {
    /// They follow what the view holds.
    Forward,
    /// The view is later than they are: only their messages count.
    Past,
}

/// What the server derives, and so nobody signs: how specs end, and who is admitted with one (S9).
fn check_derived(entry: &Entry) -> Result<(), &'static str> {
    if entry.proof.is_some() {
        return Err("a derived entry bears no signature");
    }
    match &entry.kind {
        Kind::SpecResolved | Kind::Other(_) => Ok(()),
        Kind::MemberAdded => {
            let admitted = entry
                .body_value()
                .and_then(|value| from_value::<NewMember>(&value).ok())
                .is_some_and(|member| member.role == Role::CoAuthor);
            if admitted {
                Ok(())
            } else {
                Err("the server admits authors as co-authors only")
            }
        }
        _ => Err("the server derives no entries of this kind"),
    }
}

/// The proof may name another action than the entry's own only on the message that an approved revision became (L5): else an action could be shown as what
/// its author never did.
fn check_proof_names(entry: &Entry) -> Result<(), &'static str> {
    let Some(proof) = &entry.proof else {
        return Ok(());
    };
    match (&entry.kind, proof.action_type.as_deref()) {
        (Kind::SpecResolved, _) => Err("the server alone resolves specs"),
        (Kind::Other(_), _) => Ok(()),
        (Kind::MessagePosted, Some("action.revise_spec")) => {
            let spec = entry.body_value().map(|value| {
                value
                    .as_object()
                    .and_then(|body| body.get("spec"))
                    .and_then(|spec| from_value::<Id>(spec).ok())
            });
            match spec {
                Some(spec) if spec != Some(entry.id) => Err("the revision that was signed belongs to another spec"),
                _ => Ok(()),
            }
        }
        (kind, named) => {
            let own_type = named.is_none() || named == kind.action_type();
            let own_id = proof.id.is_none_or(|id| id == entry.id);
            if own_type && own_id {
                Ok(())
            } else {
                Err("the signature is of another action")
            }
        }
    }
}
