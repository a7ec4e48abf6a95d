//! The one thread that writes: it takes what is queued, checks it against the heads, writes one frame, makes it durable, and only then answers.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use choir_core::record::{Facts, Record};
use choir_protocol::entry::Kind;
use choir_protocol::ids::{Cursor, Id, Seq, ThreadId};

use super::disk::{Access, DiskFile};
use super::format::{Extent, FrameBuilder, SEGMENT_HEADER, SegmentHeader, StoredFacts};
use super::index::{Change, Committed, Location, Position, ThreadHead};
use super::oneshot::Sender;
use super::shared::Shared;
use crate::rules::check_append;
use crate::{AppendError, Head, ReadError};

type Answer = Result<(), AppendError>;

/// What is to be made durable.
#[derive(Debug)]
pub(crate) enum Request {
    Append {
        thread: ThreadId,
        expected: Seq,
        records: Vec<Record>,
        facts: Facts,
    },
    Put {
        key: Vec<u8>,
        value: Vec<u8>,
    },
}

impl Request {
    /// About how many bytes it takes, in memory and in the log.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Append { records, facts, .. } => {
                let body =
                    |record: &Record| record.body.text().map_or(0, str::len) + 32 * record.nodes.len() + RECORD_BYTES;
                let lists =
                    facts.erase.len() * 16 + (facts.members.len() + facts.summary.awaiting.len()) * MEMBER_BYTES;
                records.iter().map(body).sum::<usize>() + lists + facts.summary.title.len() + RECORD_BYTES
            }
            Self::Put { key, value } => key.len() + value.len() + RECORD_BYTES,
        }
    }
}

/// What a record takes beside body and nodes, mostly.
const RECORD_BYTES: usize = 512;
/// What a member's row takes at most, nearly always.
const MEMBER_BYTES: usize = 288;

/// What waits to be written, bounded by number and size.
#[derive(Debug)]
pub(crate) struct Queue {
    state: Mutex<QueueState>,
    news: Condvar,
    max_requests: usize,
    max_bytes: usize,
}

#[derive(Debug, Default)]
struct QueueState {
    requests: VecDeque<(Request, usize, Sender<Answer>)>,
    bytes: usize,
    closing: bool,
}

impl Queue {
    pub(crate) fn new(max_requests: usize, max_bytes: usize) -> Self {
        Self {
            state: Mutex::default(),
            news: Condvar::new(),
            max_requests,
            max_bytes,
        }
    }

    fn state(&self) -> MutexGuard<'_, QueueState> {
        // Nothing in here panics while it is locked.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands a request over.
    pub(crate) fn push(&self, request: Request, answer: Sender<Answer>) -> Answer {
        let bytes = request.bytes();
        let mut state = self.state();
        if state.closing {
            return Err(AppendError::Broken { reason: CLOSED.into() });
        }
        if state.requests.len() >= self.max_requests || state.bytes.saturating_add(bytes) > self.max_bytes.max(bytes) {
            return Err(AppendError::Busy);
        }
        state.bytes += bytes;
        state.requests.push_back((request, bytes, answer));
        self.news.notify_one();
        Ok(())
    }

    /// Takes nothing more; what waits is still done.
    pub(crate) fn close(&self) {
        self.state().closing = true;
        self.news.notify_one();
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.state().closing
    }

    /// Waits for requests, and takes as many as go into one batch; none once the queue is closed and empty.
    fn take(&self, max_bytes: usize) -> Option<Vec<(Request, Sender<Answer>)>> {
        let mut state = self.state();
        while state.requests.is_empty() {
            if state.closing {
                return None;
            }
            state = self.news.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let (mut taken, mut total) = (Vec::new(), 0);
        while let Some((_, bytes, _)) = state.requests.front() {
            total += *bytes;
            if total > max_bytes && !taken.is_empty() {
                break;
            }
            if let Some((request, bytes, answer)) = state.requests.pop_front() {
                state.bytes -= bytes;
                taken.push((request, answer));
            }
        }
        Some(taken)
    }

    /// Forgets what waits: whoever handed it over is told that its fate is unknown.
    fn abandon(&self) {
        let mut state = self.state();
        state.closing = true;
        let abandoned = std::mem::take(&mut state.requests);
        state.bytes = 0;
        drop(state);
        drop(abandoned);
    }
}

/// Why nothing more is taken after an orderly end.
pub(crate) const CLOSED: &str = "it was closed";

/// Runs until the queue is closed, then seals the log.
pub(crate) fn run(shared: &Arc<Shared>, tail: Tail) {
    let _end = WriterEnd(shared);
    let mut writer = Writer {
        shared,
        tail,
        buffer: Vec::new(),
    };
    while let Some(requests) = shared.queue.take(shared.options.max_batch_bytes) {
        shared.wait_for_index(shared.options.max_unindexed_bytes);
        writer.batch(requests);
    }
    writer.seal();
}

/// What must happen when the writer ends, also by a panic.
struct WriterEnd<'a>(&'a Arc<Shared>);

impl Drop for WriterEnd<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.latch("the writer failed by a bug: please report it");
        }
        self.0.queue.abandon();
        self.0.finish_index();
    }
}

/// Where the next frame goes.
#[derive(Debug)]
pub(crate) struct Tail {
    pub(crate) file: Box<dyn DiskFile>,
    pub(crate) segment: u32,
    pub(crate) offset: u64,
    pub(crate) last: Position,
}

struct Writer<'a> {
    shared: &'a Arc<Shared>,
    tail: Tail,
    buffer: Vec<u8>,
}

/// A batch as it is put together.
struct Batch {
    frame: FrameBuilder,
    /// With extents from the beginning of the frame; and who waits for each.
    accepted: Vec<(Accepted, Sender<Answer>)>,
    /// Decided, but perhaps on what this batch only makes durable.
    rejected: Vec<(AppendError, Sender<Answer>)>,
    heads: HashMap<ThreadId, ThreadHead>,
    ids: HashMap<(ThreadId, Id), Vec<(Kind, Seq)>>,
    extents: HashMap<(ThreadId, Seq), Extent>,
}

enum Accepted {
    Append {
        records: Vec<(Record, Extent)>,
        facts: StoredFacts,
    },
    Put {
        key: Vec<u8>,
        value: Vec<u8>,
    },
}

/// How a write ended that didn't succeed.
enum Failure {
    /// Nothing of it is in the log, nor ever will be.
    Clean(String),
    /// Nothing of it is in the log, but the log can't go on.
    Broken(String),
    /// Nobody knows.
    Unknown(String),
}

impl Writer<'_> {
    fn batch(&mut self, requests: Vec<(Request, Sender<Answer>)>) {
        if let Some(reason) = self.shared.latched() {
            for (_, answer) in requests {
                answer.send(Err(AppendError::Broken { reason: reason.clone() }));
            }
            return;
        }
        let mut batch = Batch {
            frame: FrameBuilder::new(std::mem::take(&mut self.buffer)),
            accepted: Vec::new(),
            rejected: Vec::new(),
            heads: HashMap::new(),
            ids: HashMap::new(),
            extents: HashMap::new(),
        };
        for (request, answer) in requests {
            let mark = batch.frame.mark();
            match self.admit(&mut batch, request) {
                Ok(accepted) => batch.accepted.push((accepted, answer)),
                Err(error) => {
                    batch.frame.back_to(mark);
                    batch.rejected.push((error, answer));
                }
            }
        }
        self.commit(batch);
    }

    /// Checks a request against what is durable and what is before it in the batch, and adds it to the frame.
    fn admit(&self, batch: &mut Batch, request: Request) -> Result<Accepted, AppendError> {
        // Only where the limits of batches are set beyond what a frame can hold.
        let too_long = || AppendError::Refused {
            why: "it is too long for a frame of the log".into(),
        };
        let (thread, expected, records, facts) = match request {
            Request::Put { key, value } => {
                batch.frame.put(&key, &value).ok_or_else(too_long)?;
                return Ok(Accepted::Put { key, value });
            }
            Request::Append {
                thread,
                expected,
                records,
                facts,
            } => (thread, expected, records, facts),
        };
        let before = match batch.heads.get(&thread) {
            Some(head) => Some(head.clone()),
            None => self
                .shared
                .head_for_append(thread)
                .map_err(|error| self.unusable(&error))?,
        };
        check_append(before.as_ref().map(|before| &before.head), expected, &records, &facts)?;
        for record in &records {
            let in_batch = batch.ids.get(&(thread, record.id)).into_iter().flatten();
            if let Some((_, seq)) = in_batch.into_iter().find(|(kind, _)| *kind == record.kind) {
                return Err(AppendError::Taken { seq: *seq });
            }
            if expected > Seq::ZERO {
                let rows = self
                    .shared
                    .ids(thread, record.id)
                    .map_err(|error| self.unusable(&error))?;
                if let Some(row) = rows.iter().find(|row| row.bears && row.kind == record.kind) {
                    return Err(AppendError::Taken { seq: row.seq });
                }
            }
        }

        let last = records.last().ok_or_else(too_long)?;
        let head = Head {
            cursor: Cursor {
                seq: last.seq,
                root: last.root,
            },
            messages: last.messages,
            timestamp: last.timestamp,
        };
        let awaiting_as_before =
            before.as_ref().map_or(&[][..], |before| &before.summary.awaiting) == facts.summary.awaiting;
        let extents = records
            .iter()
            .map(|record| batch.frame.record(thread, record))
            .collect::<Option<Vec<_>>>()
            .ok_or_else(too_long)?;
        batch
            .frame
            .facts(thread, last.seq, &facts, awaiting_as_before)
            .ok_or_else(too_long)?;
        for (record, extent) in records.iter().zip(&extents) {
            batch.extents.insert((thread, record.seq), *extent);
            batch
                .ids
                .entry((thread, record.id))
                .or_default()
                .push((record.kind.clone(), record.seq));
        }
        for (erased, _) in &facts.erase {
            // Erased before it was ever written: then it is never written.
            if let Some(extent) = batch.extents.get(&(thread, *erased)) {
                batch.frame.erase(*extent);
            }
        }
        let redacted = facts.erase.iter().map(|(_, by)| *by).max().unwrap_or_default();
        let last_redaction = redacted.max(before.as_ref().map_or(Seq::ZERO, |before| before.last_redaction));
        let stored = StoredFacts {
            thread,
            last: last.seq,
            erase: facts.erase,
            members: facts.members,
            summary: facts.summary,
            awaiting_as_before,
        };
        batch.heads.insert(
            thread,
            ThreadHead {
                head,
                last_redaction,
                summary: Arc::new(stored.summary.clone()),
            },
        );
        Ok(Accepted::Append {
            records: records.into_iter().zip(extents).collect(),
            facts: stored,
        })
    }

    /// Nothing can be decided on a thread that can't be read. One damaged entry holds up its own thread only; a damaged index may be wrong about any, and is
    /// rebuilt by reopening.
    fn unusable(&self, error: &ReadError) -> AppendError {
        let reason = format!("the thread could not be read: {error}");
        if matches!(error, ReadError::Index { .. }) {
            self.shared.latch(&reason);
            return AppendError::Broken { reason };
        }
        AppendError::Refused { why: reason }
    }

    fn commit(&mut self, batch: Batch) {
        let Batch {
            frame,
            accepted,
            rejected,
            heads,
            ..
        } = batch;
        let done = if accepted.is_empty() {
            Ok(None)
        } else {
            self.write(frame).map(Some)
        };
        let answers = match done {
            Ok(None) => Ok(()),
            Ok(Some(position)) => {
                let (committed, answers) = self.committed(position, accepted);
                self.shared.publish(committed, heads);
                for answer in answers {
                    answer.send(Ok(()));
                }
                Ok(())
            }
            Err(failure) => {
                let error = match failure {
                    Failure::Clean(why) => AppendError::Refused { why },
                    Failure::Broken(reason) => {
                        self.shared.latch(&reason);
                        AppendError::Broken { reason }
                    }
                    Failure::Unknown(reason) => {
                        self.shared.latch(&reason);
                        AppendError::Unknown { reason }
                    }
                };
                for (_, answer) in accepted {
                    answer.send(Err(error.clone()));
                }
                Err(error)
            }
        };
        for (rejection, answer) in rejected {
            // What was decided on top of a batch that came to nothing says nothing.
            answer.send(Err(match &answers {
                Ok(()) => rejection,
                Err(AppendError::Refused { .. }) => AppendError::Busy,
                Err(AppendError::Unknown { reason } | AppendError::Broken { reason }) => {
                    AppendError::Broken { reason: reason.clone() }
                }
                Err(_) => AppendError::Busy,
            }));
        }
    }

    /// What the index learns of a batch that has become durable, and who is told.
    fn committed(
        &self,
        position: Position,
        accepted: Vec<(Accepted, Sender<Answer>)>,
    ) -> (Committed, Vec<Sender<Answer>>) {
        let counters = &self.shared.counters;
        let (mut changes, mut answers, mut bytes) = (
            Vec::with_capacity(accepted.len()),
            Vec::with_capacity(accepted.len()),
            0,
        );
        for (accepted, answer) in accepted {
            answers.push(answer);
            changes.push(match accepted {
                Accepted::Append { records, facts } => {
                    counters.appends.fetch_add(1, Ordering::Relaxed);
                    counters.entries.fetch_add(records.len() as u64, Ordering::Relaxed);
                    bytes += records.iter().map(|(_, extent)| extent.bytes()).sum::<usize>() + RECORD_BYTES;
                    let placed = records.into_iter().map(|(record, extent)| {
                        // It was written, so that its place is one that the fields can hold.
                        let extent = extent.from(position.start).unwrap_or(extent);
                        (
                            Arc::new(record),
                            Location {
                                segment: position.segment,
                                extent,
                            },
                        )
                    });
                    Change::Append {
                        records: placed.collect(),
                        facts,
                    }
                }
                Accepted::Put { key, value } => {
                    counters.puts.fetch_add(1, Ordering::Relaxed);
                    bytes += key.len() + value.len() + RECORD_BYTES;
                    Change::Put { key, value }
                }
            });
        }
        (
            Committed {
                position,
                changes,
                bytes,
            },
            answers,
        )
    }

    /// Writes a frame and makes it durable.
    fn write(&mut self, frame: FrameBuilder) -> Result<Position, Failure> {
        let batch = self.tail.last.batch + 1;
        let (bytes, crc) = frame.finish(batch, self.tail.last.crc);
        let written = self.write_bytes(&bytes, batch, crc);
        self.buffer = bytes;
        // One huge batch must not hold its memory for ever.
        self.buffer.shrink_to(self.shared.options.max_batch_bytes);
        written
    }

    fn write_bytes(&mut self, bytes: &[u8], batch: u64, crc: u32) -> Result<Position, Failure> {
        let segment_bytes = u64::from(self.shared.options.segment_bytes);
        if self.tail.offset > SEGMENT_HEADER as u64 && self.tail.offset + bytes.len() as u64 > segment_bytes {
            self.begin_segment()?;
        }
        let start = self.tail.offset;
        let end = start + bytes.len() as u64;
        let (Ok(short_start), Ok(short_end)) = (u32::try_from(start), u32::try_from(end)) else {
            return Err(Failure::Clean("it is too long for a segment of the log".into()));
        };
        let name = || self.shared.paths.segment(self.tail.segment).display().to_string();
        if let Err(error) = self.tail.file.write_all_at(bytes, start) {
            // Where the disk was full and all traces are gone again, it is certain that nothing was appended.
            if error.kind() == io::ErrorKind::StorageFull {
                let cut = self.tail.file.truncate(start).and_then(|()| self.sync());
                if cut.is_ok() {
                    return Err(self.full(&error.to_string()));
                }
            }
            return Err(Failure::Unknown(format!("writing to {} failed: {error}", name())));
        }
        if let Err(error) = self.sync() {
            return Err(Failure::Unknown(format!("fsync of {} failed: {error}", name())));
        }
        self.shared.note_room(None);
        self.shared.counters.batches.fetch_add(1, Ordering::Relaxed);
        self.shared
            .counters
            .bytes
            .fetch_add(bytes.len() as u64, Ordering::Relaxed);
        let position = Position {
            batch,
            crc,
            segment: self.tail.segment,
            start: short_start,
            end: short_end,
        };
        self.tail.offset = end;
        self.tail.last = position;
        Ok(position)
    }

    /// Nothing of it was written, and nothing will be until there is room.
    fn full(&self, what: &str) -> Failure {
        let reason = format!("the disk is full: {what}; free some space");
        self.shared.note_room(Some(&reason));
        Failure::Clean(reason)
    }

    fn sync(&self) -> io::Result<()> {
        self.shared.counters.fsyncs.fetch_add(1, Ordering::Relaxed);
        self.tail.file.sync()
    }

    /// Goes on in a new segment. The one before ends with a frame that is durable.
    fn begin_segment(&mut self) -> Result<(), Failure> {
        let (number, last) = (self.tail.segment + 1, self.tail.last);
        let path = self.shared.paths.segment(number);
        match create_segment(self.shared, number, last) {
            Ok(file) => {
                self.tail = Tail {
                    file,
                    segment: number,
                    offset: SEGMENT_HEADER as u64,
                    last,
                };
                Ok(())
            }
            Err(error) => {
                let what = format!("beginning {} failed: {error}", path.display());
                let gone = || {
                    self.shared.disk.remove(&path).or_else(|error| {
                        if error.kind() == io::ErrorKind::NotFound {
                            Ok(())
                        } else {
                            Err(error)
                        }
                    })
                };
                if error.kind() == io::ErrorKind::StorageFull && gone().is_ok() {
                    return Err(self.full(&what));
                }
                Err(Failure::Broken(what))
            }
        }
    }

    /// The mark of an orderly end, so that damage to the last frame with content isn't taken for a torn write.
    fn seal(&mut self) {
        if self.shared.latched().is_some() || self.tail.last.batch == 0 {
            return;
        }
        let mut frame = FrameBuilder::new(std::mem::take(&mut self.buffer));
        if frame.seal().is_none() {
            return;
        }
        match self.write(frame) {
            Ok(position) => self.shared.publish(
                Committed {
                    position,
                    changes: Vec::new(),
                    bytes: 0,
                },
                HashMap::new(),
            ),
            // Nothing hangs on it but how well damage is told from a crash.
            Err(Failure::Clean(reason) | Failure::Broken(reason) | Failure::Unknown(reason)) => {
                tracing::warn!(
                    reason,
                    "the log could not be sealed; everything that was acknowledged is durable"
                );
            }
        }
    }
}

/// A segment with its header and no frame. Its header becomes durable with the first frame.
pub(crate) fn create_segment(shared: &Shared, number: u32, last: Position) -> io::Result<Box<dyn DiskFile>> {
    let file = shared.disk.open(&shared.paths.segment(number), Access::Create)?;
    let header = SegmentHeader {
        number,
        first_batch: last.batch + 1,
        previous_crc: last.crc,
    };
    file.write_all_at(&header.to_bytes(), 0)?;
    // Else the file, durable frames and all, could be gone after a power cut.
    shared.counters.fsyncs.fetch_add(1, Ordering::Relaxed);
    shared.disk.sync_directory(&shared.paths.segments())?;
    Ok(file)
}
