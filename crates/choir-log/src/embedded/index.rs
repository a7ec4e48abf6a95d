//! The index: what is found where in the log, and what lists say. Everything in it follows from the log, so that it may be lost, and is then rebuilt.
//!
//! One keyspace of fjall holds all of it, told apart by the first byte of the key. One, and not one for each kind of row, because that makes what survives a
//! power cut a prefix of what was written: the row that says how far the index has come can't survive without the rows before it.
//!
//! | key | value |
//! | --- | --- |
//! | `P` | how far it has come: [`Position`] |
//! | `e` thread, seq | where the entry stands, messages up to it, what erased it |
//! | `h` thread | head, last redaction, summary without `awaiting` |
//! | `w` thread | `awaiting` of the summary, where there is any |
//! | `i` thread, id | the first entry that bears the id or is about it, and whether there are more |
//! | `j` thread, id, seq | those after the first |
//! | `m` user, 0, thread | the membership |
//! | `p` −activity, thread | a public thread |
//! | `d` due, thread | a thread with a spec that expires |
//! | `a` user, 0, thread | how many specs await the user |
//! | `k` key | a record beside the threads |

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use choir_core::record::{MemberFact, Record, Summary};
use choir_protocol::entry::Kind;
use choir_protocol::ids::{Cursor, Id, Seq, ThreadId, Timestamp, UserId};
use choir_protocol::thread::Visibility;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode, Readable, Snapshot, UserValue};

use super::format::{
    Extent, Fields, StoredFacts, kind_code, kind_of_code, member_bytes, member_of_bytes, put_awaiting, put_summary,
};
use crate::listing::{Page, Place};
use crate::{Head, MAX_ROWS, ReadError, ThreadPage, ThreadRow};

/// A frame's end: how far the log, or the index, has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    /// Of the frame; 0 before the first.
    pub(crate) batch: u64,
    /// The frame's CRC.
    pub(crate) crc: u32,
    pub(crate) segment: u32,
    /// Where the frame begins.
    pub(crate) start: u32,
    /// The first byte after it.
    pub(crate) end: u32,
}

/// Where an entry's record stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Location {
    pub(crate) segment: u32,
    pub(crate) extent: Extent,
}

/// What the index says of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EntryRow {
    pub(crate) location: Location,
    pub(crate) messages: u64,
    /// The redaction that erased the body.
    pub(crate) erased_by: Option<Seq>,
}

/// A thread as whoever appends to it needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ThreadHead {
    pub(crate) head: Head,
    /// The last entry that erased others; 0 where none did.
    pub(crate) last_redaction: Seq,
    pub(crate) summary: Arc<Summary>,
}

/// An entry that bears an id, or is about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IdRow {
    pub(crate) seq: Seq,
    pub(crate) kind: Kind,
    pub(crate) bears: bool,
}

impl IdRow {
    /// The rows that an entry makes, each with the id that it is found by.
    pub(crate) fn of(record: &Record) -> impl Iterator<Item = (Id, Self)> {
        let row = |bears| Self {
            seq: record.seq,
            kind: record.kind.clone(),
            bears,
        };
        let about = record.about.filter(|about| *about != record.id);
        [Some((record.id, row(true))), about.map(|about| (about, row(false)))]
            .into_iter()
            .flatten()
    }
}

/// A frame's content, as the index takes it up.
#[derive(Debug)]
pub(crate) struct Committed {
    pub(crate) position: Position,
    pub(crate) changes: Vec<Change>,
    /// About how much memory it holds.
    pub(crate) bytes: usize,
}

/// One thing that was made durable.
#[derive(Debug)]
pub(crate) enum Change {
    Append {
        records: Vec<(Arc<Record>, Location)>,
        facts: StoredFacts,
    },
    Put {
        key: Vec<u8>,
        value: Vec<u8>,
    },
}

/// The index contradicts itself, or fjall failed.
#[derive(Debug, Clone)]
pub(crate) struct IndexError(pub(crate) String);

impl From<fjall::Error> for IndexError {
    fn from(error: fjall::Error) -> Self {
        Self(error.to_string())
    }
}

impl From<IndexError> for ReadError {
    fn from(IndexError(reason): IndexError) -> Self {
        Self::Index { reason }
    }
}

type Result<T> = std::result::Result<T, IndexError>;

/// How long the index may take to be written out at the end. Without that the next opening goes through its journal.
const SETTLE_WITHIN: Duration = Duration::from_secs(5);
const SETTLE_PAUSE: Duration = Duration::from_millis(10);

/// An open index.
pub(crate) struct Index {
    database: Database,
    rows: Keyspace,
}

impl Index {
    /// Opens the index in a directory of its own, or makes an empty one there.
    pub(crate) fn open(path: &Path, cache_bytes: u64) -> Result<Self> {
        let database = Database::builder(path)
            .cache_size(cache_bytes)
            .worker_threads(2)
            .open()?;
        let options = || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES);
        let rows = database.keyspace("rows", options)?;
        Ok(Self { database, rows })
    }

    /// How far it has come; none where it is empty.
    pub(crate) fn position(&self) -> Result<Option<Position>> {
        let Some(value) = self.rows.get(POSITION)? else {
            return Ok(None);
        };
        let mut fields = Fields(&value);
        let position = (|| {
            let version = fields.u32()?;
            let position = Position {
                batch: fields.u64()?,
                crc: fields.u32()?,
                segment: fields.u32()?,
                start: fields.u32()?,
                end: fields.u32()?,
            };
            (version == INDEX_VERSION).then_some(position)
        })();
        position
            .map(Some)
            .ok_or_else(|| IndexError("it is of another version".into()))
    }

    /// Takes up what was made durable, all or nothing.
    pub(crate) fn take_up(&self, committed: &[Arc<Committed>]) -> Result<()> {
        let Some(last) = committed.last() else { return Ok(()) };
        let mut rows = Rows {
            index: self,
            changed: HashMap::new(),
        };
        for change in committed.iter().flat_map(|committed| &committed.changes) {
            match change {
                Change::Append { records, facts } => rows.append(records, facts)?,
                Change::Put { key, value } => rows.set(put_key(key), value.clone()),
            }
        }
        let Position {
            batch,
            crc,
            segment,
            start,
            end,
        } = last.position;
        let mut position = INDEX_VERSION.to_le_bytes().to_vec();
        position.extend_from_slice(&batch.to_le_bytes());
        for part in [crc, segment, start, end] {
            position.extend_from_slice(&part.to_le_bytes());
        }
        rows.set(POSITION.to_vec(), position);
        rows.commit()
    }

    /// Writes out what is only in its journal, so that the next opening needn't go through it.
    pub(crate) fn settle(&self) -> Result<()> {
        let until = Instant::now() + SETTLE_WITHIN;
        self.rows.rotate_memtable()?;
        // fjall's own waiting never ends once its threads have given up, as they do when their directory is gone. That they have is said by `persist`.
        while self.rows.sealed_memtable_count() > 0 {
            self.database.persist(PersistMode::Buffer)?;
            if Instant::now() >= until {
                tracing::warn!("the index is still being written out; the next start takes longer");
                break;
            }
            thread::sleep(SETTLE_PAUSE);
        }
        Ok(self.database.persist(PersistMode::Buffer)?)
    }

    pub(crate) fn entry(&self, thread: ThreadId, seq: Seq) -> Result<Option<EntryRow>> {
        self.rows
            .get(entry_key(thread, seq))?
            .map(|value| parse_entry(&value))
            .transpose()
    }

    /// The rows of a run that begins at `from`; fewer than asked for only where the thread has no more.
    pub(crate) fn run(&self, thread: ThreadId, from: Seq, limit: usize, max_bytes: usize) -> Result<Vec<EntryRow>> {
        let range = entry_key(thread, from)..=entry_key(thread, Seq::saturating(u64::MAX));
        let (mut run, mut bytes) = (Vec::new(), 0_usize);
        for (at, row) in self.rows.range(range).take(limit).enumerate() {
            let (key, value) = row.into_inner()?;
            let row = parse_entry(&value)?;
            let expected = Seq::saturating(from.get() + at as u64);
            if *key != *entry_key(thread, expected) {
                return Err(IndexError(format!("entry {expected} of thread {thread} is missing")));
            }
            bytes = bytes.saturating_add(row.location.extent.bytes());
            if at > 0 && bytes > max_bytes {
                break;
            }
            run.push(row);
        }
        Ok(run)
    }

    pub(crate) fn head(&self, thread: ThreadId) -> Result<Option<ThreadHead>> {
        head_in(&self.database.snapshot(), &self.rows, thread)
    }

    /// The entries that bear the id or are about it, in order.
    pub(crate) fn ids(&self, thread: ThreadId, id: Id) -> Result<Vec<IdRow>> {
        let Some(value) = self.rows.get(id_key(thread, id))? else {
            return Ok(Vec::new());
        };
        let (first, more) = parse_id(&value)?;
        let mut found = vec![first];
        if more {
            for row in self.rows.prefix(more_ids_key(thread, id)) {
                found.push(parse_id(&row.value()?)?.0);
            }
        }
        Ok(found)
    }

    pub(crate) fn put_value(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(self.rows.get(put_key(key))?.map(|value| value.to_vec()))
    }

    pub(crate) fn threads_of(&self, user: &UserId, after: Option<Place>, limit: usize) -> Result<ThreadPage> {
        let snapshot = self.database.snapshot();
        let mut page = Page::new(after, limit);
        let prefix = user_key(b'm', user);
        for row in snapshot.prefix(&self.rows, &prefix) {
            let thread = thread_behind(&row.key()?, prefix.len())?;
            let value = snapshot.get(&self.rows, thread_key(b'h', thread))?;
            let value = value.ok_or_else(|| IndexError(format!("thread {thread} has members and no head")))?;
            page.offer(Place::new(parse_head(&value)?.summary.last_activity, thread));
        }
        let (places, next) = page.finish();
        let rows = places.into_iter().map(|place| {
            let thread = place.thread();
            let member = snapshot
                .get(&self.rows, member_key(user, thread))?
                .map(|value| parse_member(&value))
                .transpose()?;
            self.row(&snapshot, thread, member)
        });
        Ok(ThreadPage {
            rows: rows.collect::<Result<_>>()?,
            next,
        })
    }

    pub(crate) fn public_threads(&self, after: Option<Place>, limit: usize) -> Result<ThreadPage> {
        let snapshot = self.database.snapshot();
        let limit = limit.clamp(1, MAX_ROWS);
        let mut from = after.map_or_else(|| vec![b'p'], |after| public_key(after.last_activity(), after.thread()));
        if after.is_some() {
            // The first key above the one of the place itself.
            from.push(0);
        }
        let mut places = Vec::new();
        for row in snapshot.range(&self.rows, from..vec![b'p' + 1]).take(limit + 1) {
            let key = row.key()?;
            let mut fields = Fields(key.get(1..).unwrap_or_default());
            let activity = fields
                .array()
                .map(|bytes| !u64::from_be_bytes(bytes))
                .and_then(Timestamp::new);
            let place = activity.zip(fields.array().map(ThreadId::from_bytes));
            places.push(
                place
                    .map(|(activity, thread)| Place::new(activity, thread))
                    .ok_or_else(|| malformed("a public thread"))?,
            );
        }
        let more = places.len() > limit;
        places.truncate(limit);
        let next = places.last().filter(|_| more).map(|last| last.to_next());
        let rows = places
            .into_iter()
            .map(|place| self.row(&snapshot, place.thread(), None));
        Ok(ThreadPage {
            rows: rows.collect::<Result<_>>()?,
            next,
        })
    }

    fn row(&self, snapshot: &Snapshot, thread: ThreadId, member: Option<MemberFact>) -> Result<ThreadRow> {
        let head = head_in(snapshot, &self.rows, thread)?
            .ok_or_else(|| IndexError(format!("thread {thread} is listed and has no head")))?;
        Ok(ThreadRow {
            thread,
            head: head.head.cursor.seq,
            summary: Arc::unwrap_or_clone(head.summary),
            member,
        })
    }

    pub(crate) fn joined_threads(&self, user: &UserId, after: Option<ThreadId>, limit: usize) -> Result<Vec<ThreadId>> {
        let prefix = user_key(b'm', user);
        let mut from = after.map_or_else(|| prefix.clone(), |after| member_key(user, after));
        if after.is_some() {
            from.push(0);
        }
        let mut joined = Vec::new();
        for row in self
            .rows
            .range(from..=member_key(user, ThreadId::from_bytes([0xff; 16])))
        {
            let (key, value) = row.into_inner()?;
            if parse_member(&value)?.joined {
                joined.push(thread_behind(&key, prefix.len())?);
                if joined.len() >= limit.clamp(1, MAX_ROWS) {
                    break;
                }
            }
        }
        Ok(joined)
    }

    pub(crate) fn due(&self, before: Timestamp, limit: usize) -> Result<Vec<ThreadId>> {
        let range = vec![b'd']..=due_key(before, ThreadId::from_bytes([0xff; 16]));
        self.rows
            .range(range)
            .take(limit.clamp(1, MAX_ROWS))
            .map(|row| thread_behind(&row.key()?, 9))
            .collect()
    }

    pub(crate) fn awaiting(&self, user: &UserId, limit: usize) -> Result<Vec<(ThreadId, u32)>> {
        let prefix = user_key(b'a', user);
        let rows = self.rows.prefix(&prefix).take(limit.clamp(1, MAX_ROWS)).map(|row| {
            let (key, value) = row.into_inner()?;
            Ok((
                thread_behind(&key, prefix.len())?,
                Fields(&value).u32().ok_or_else(|| malformed("a count"))?,
            ))
        });
        rows.collect()
    }
}

/// Rows that are about to be written, in front of those that are.
struct Rows<'a> {
    index: &'a Index,
    /// None: to be removed.
    changed: HashMap<Vec<u8>, Option<Vec<u8>>>,
}

impl Rows<'_> {
    fn set(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.changed.insert(key, Some(value));
    }

    fn remove(&mut self, key: Vec<u8>) {
        self.changed.insert(key, None);
    }

    fn value(&self, key: &[u8]) -> Result<Option<UserValue>> {
        match self.changed.get(key) {
            Some(changed) => Ok(changed.as_deref().map(UserValue::from)),
            None => Ok(self.index.rows.get(key)?),
        }
    }

    fn append(&mut self, records: &[(Arc<Record>, Location)], facts: &StoredFacts) -> Result<()> {
        let thread = facts.thread;
        let before = self
            .value(&thread_key(b'h', thread))?
            .map(|value| parse_head(&value))
            .transpose()?;
        let awaited = match self.value(&thread_key(b'w', thread))? {
            Some(value) => Fields(&value).awaiting().ok_or_else(|| malformed("awaiting"))?,
            None => Vec::new(),
        };
        for (record, location) in records {
            let row = EntryRow {
                location: *location,
                messages: record.messages,
                erased_by: None,
            };
            self.set(entry_key(thread, record.seq), entry_value(row));
            for (id, row) in IdRow::of(record) {
                self.add_id(thread, id, &row)?;
            }
        }
        for (erased, by) in &facts.erase {
            let key = entry_key(thread, *erased);
            let value = self
                .value(&key)?
                .ok_or_else(|| IndexError(format!("entry {erased} of thread {thread} is erased and missing")))?;
            let mut row = parse_entry(&value)?;
            row.erased_by = row.erased_by.or(Some(*by));
            self.set(key, entry_value(row));
        }
        for (user, row) in &facts.members {
            let key = member_key(user, thread);
            match row {
                Some(_) => self.set(key, member_bytes(*row).to_vec()),
                None => self.remove(key),
            }
        }
        self.summarize(thread, records, facts, before.as_ref(), &awaited)
    }

    /// The thread's own rows, and those by which lists find it.
    fn summarize(
        &mut self,
        thread: ThreadId,
        records: &[(Arc<Record>, Location)],
        facts: &StoredFacts,
        before: Option<&ThreadHead>,
        awaited: &[(UserId, u32)],
    ) -> Result<()> {
        let (last, _) = records
            .last()
            .ok_or_else(|| IndexError("an append without entries".into()))?;
        let head = Head {
            cursor: Cursor {
                seq: last.seq,
                root: last.root,
            },
            messages: last.messages,
            timestamp: last.timestamp,
        };
        let redacted = facts.erase.iter().map(|(_, by)| *by).max().unwrap_or_default();
        let last_redaction = redacted.max(before.map_or(Seq::ZERO, |before| before.last_redaction));
        self.set(
            thread_key(b'h', thread),
            head_value(&head, last_redaction, &facts.summary),
        );

        let public = |summary: &Summary| {
            (summary.visibility == Visibility::Public).then(|| public_key(summary.last_activity, thread))
        };
        let due = |summary: &Summary| summary.due.map(|due| due_key(due, thread));
        for key_of in [&public as &dyn Fn(&Summary) -> Option<Vec<u8>>, &due] {
            let (old, new) = (
                before.and_then(|before| key_of(&before.summary)),
                key_of(&facts.summary),
            );
            if old != new {
                if let Some(old) = old {
                    self.remove(old);
                }
                if let Some(new) = new {
                    self.set(new, Vec::new());
                }
            }
        }
        if facts.awaiting_as_before || awaited == facts.summary.awaiting {
            return Ok(());
        }
        for (user, _) in awaited {
            self.remove(awaiting_key(user, thread));
        }
        let awaiting: Vec<_> = facts.summary.awaiting.iter().filter(|(_, n)| *n > 0).collect();
        for (user, n) in awaiting {
            self.set(awaiting_key(user, thread), n.to_le_bytes().to_vec());
        }
        if facts.summary.awaiting.is_empty() {
            self.remove(thread_key(b'w', thread));
        } else {
            let mut value = Vec::new();
            put_awaiting(&mut value, &facts.summary.awaiting);
            self.set(thread_key(b'w', thread), value);
        }
        Ok(())
    }

    /// The first row of an id is found through a filter in memory, which is what nearly every look-up for a new id ends at.
    fn add_id(&mut self, thread: ThreadId, id: Id, row: &IdRow) -> Result<()> {
        let key = id_key(thread, id);
        match self.value(&key)?.map(|value| parse_id(&value)).transpose()? {
            None => self.set(key, id_value(row, false)),
            Some((first, more)) => {
                let mut further = more_ids_key(thread, id);
                further.extend_from_slice(&row.seq.get().to_be_bytes());
                self.set(further, id_value(row, false));
                if !more {
                    self.set(key, id_value(&first, true));
                }
            }
        }
        Ok(())
    }

    fn commit(self) -> Result<()> {
        let mut batch = self.index.database.batch();
        // In order, each row's place in the tree is near that of the one before.
        let mut changed: Vec<_> = self.changed.into_iter().collect();
        changed.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        for (key, value) in changed {
            match value {
                Some(value) => batch.insert(&self.index.rows, key, value),
                None => batch.remove(&self.index.rows, key),
            }
        }
        Ok(batch.commit()?)
    }
}

/// Small, so that little has to be gone through after a crash.
const MEMTABLE_BYTES: u64 = 16 * 1024 * 1024;
const INDEX_VERSION: u32 = 1;
const POSITION: &[u8] = b"P";

fn malformed(what: &str) -> IndexError {
    IndexError(format!("{what} can't be understood"))
}

fn thread_key(table: u8, thread: ThreadId) -> Vec<u8> {
    [&[table], &thread.as_bytes()[..]].concat()
}

fn entry_key(thread: ThreadId, seq: Seq) -> Vec<u8> {
    [b"e", &thread.as_bytes()[..], &seq.get().to_be_bytes()].concat()
}

fn id_key(thread: ThreadId, id: Id) -> Vec<u8> {
    [b"i", &thread.as_bytes()[..], id.as_bytes()].concat()
}

fn more_ids_key(thread: ThreadId, id: Id) -> Vec<u8> {
    [b"j", &thread.as_bytes()[..], id.as_bytes()].concat()
}

/// No user id holds a 0 (C3), so that none of these begins another user's.
fn user_key(table: u8, user: &UserId) -> Vec<u8> {
    [&[table], user.as_str().as_bytes(), &[0]].concat()
}

fn member_key(user: &UserId, thread: ThreadId) -> Vec<u8> {
    [&user_key(b'm', user), &thread.as_bytes()[..]].concat()
}

fn awaiting_key(user: &UserId, thread: ThreadId) -> Vec<u8> {
    [&user_key(b'a', user), &thread.as_bytes()[..]].concat()
}

/// Newest first: the complement of the time sorts the other way round.
fn public_key(activity: Timestamp, thread: ThreadId) -> Vec<u8> {
    [b"p", &(!activity.get()).to_be_bytes()[..], thread.as_bytes()].concat()
}

fn due_key(due: Timestamp, thread: ThreadId) -> Vec<u8> {
    [b"d", &due.get().to_be_bytes()[..], thread.as_bytes()].concat()
}

fn put_key(key: &[u8]) -> Vec<u8> {
    [b"k", key].concat()
}

fn thread_behind(key: &[u8], prefix_bytes: usize) -> Result<ThreadId> {
    let thread = key
        .get(prefix_bytes..)
        .and_then(|rest| rest.try_into().ok())
        .map(ThreadId::from_bytes);
    thread.ok_or_else(|| malformed("a thread's id"))
}

fn entry_value(row: EntryRow) -> Vec<u8> {
    let Location {
        segment,
        extent: Extent {
            offset,
            head_bytes,
            body_bytes,
        },
    } = row.location;
    let mut value = Vec::with_capacity(32);
    for part in [segment, offset, head_bytes, body_bytes] {
        value.extend_from_slice(&part.to_le_bytes());
    }
    value.extend_from_slice(&row.messages.to_le_bytes());
    // No entry is erased by entry 0.
    value.extend_from_slice(&row.erased_by.unwrap_or_default().get().to_le_bytes());
    value
}

fn parse_entry(value: &[u8]) -> Result<EntryRow> {
    let mut fields = Fields(value);
    let row = (|| {
        let segment = fields.u32()?;
        let extent = Extent {
            offset: fields.u32()?,
            head_bytes: fields.u32()?,
            body_bytes: fields.u32()?,
        };
        let (messages, erased_by) = (fields.u64()?, fields.seq()?);
        Some(EntryRow {
            location: Location { segment, extent },
            messages,
            erased_by: (erased_by > Seq::ZERO).then_some(erased_by),
        })
    })();
    row.ok_or_else(|| malformed("an entry's row"))
}

fn head_value(head: &Head, last_redaction: Seq, summary: &Summary) -> Vec<u8> {
    let mut value = Vec::with_capacity(128);
    value.extend_from_slice(&head.cursor.seq.get().to_le_bytes());
    value.extend_from_slice(head.cursor.root.as_bytes());
    for part in [head.messages, head.timestamp.get(), last_redaction.get()] {
        value.extend_from_slice(&part.to_le_bytes());
    }
    put_summary(&mut value, summary);
    value
}

fn parse_head(value: &[u8]) -> Result<ThreadHead> {
    let mut fields = Fields(value);
    let head = (|| {
        let cursor = Cursor {
            seq: fields.seq()?,
            root: fields.hash()?,
        };
        let (messages, timestamp, last_redaction) = (fields.u64()?, fields.time()?, fields.seq()?);
        Some(ThreadHead {
            head: Head {
                cursor,
                messages,
                timestamp,
            },
            last_redaction,
            summary: Arc::new(fields.summary()?),
        })
    })();
    head.ok_or_else(|| malformed("a thread's head"))
}

fn head_in(snapshot: &Snapshot, rows: &Keyspace, thread: ThreadId) -> Result<Option<ThreadHead>> {
    let Some(value) = snapshot.get(rows, thread_key(b'h', thread))? else {
        return Ok(None);
    };
    let mut head = parse_head(&value)?;
    if let Some(value) = snapshot.get(rows, thread_key(b'w', thread))? {
        let awaiting = Fields(&value).awaiting().ok_or_else(|| malformed("awaiting"))?;
        Arc::make_mut(&mut head.summary).awaiting = awaiting;
    }
    Ok(Some(head))
}

fn id_value(row: &IdRow, more: bool) -> Vec<u8> {
    let mut value = row.seq.get().to_le_bytes().to_vec();
    value.push(u8::from(row.bears) | (u8::from(more) << 1));
    value.push(kind_code(&row.kind));
    if let Kind::Other(text) = &row.kind {
        value.extend_from_slice(text.as_bytes());
    }
    value
}

fn parse_id(value: &[u8]) -> Result<(IdRow, bool)> {
    let mut fields = Fields(value);
    let row = (|| {
        let (seq, bits, code) = (fields.seq()?, fields.u8()?, fields.u8()?);
        let kind =
            kind_of_code(code).or_else(|| std::str::from_utf8(fields.0).ok().map(|text| Kind::Other(text.into())))?;
        Some((
            IdRow {
                seq,
                kind,
                bears: bits & 1 != 0,
            },
            bits & 2 != 0,
        ))
    })();
    row.ok_or_else(|| malformed("an id's row"))
}

fn parse_member(value: &[u8]) -> Result<MemberFact> {
    let row = value.try_into().ok().and_then(member_of_bytes).flatten();
    row.ok_or_else(|| malformed("a membership"))
}
