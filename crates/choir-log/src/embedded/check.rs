//! Reading everything there is, and naming what doesn't hold (`choir log check`).

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use choir_core::record::Record;
use choir_protocol::hash::Hash;
use choir_protocol::ids::{Seq, ThreadId};
use choir_protocol::merkle::Peaks;

use super::directory::{Directory, Paths, io_error};
use super::disk::SystemDisk;
use super::format::{Frame, Item, SEGMENT_HEADER};
use super::index::{Change, Position};
use super::recovery::{BEGINNING, SegmentFile, content};
use crate::OpenError;

/// What a log holds, and what of it is damaged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// How many segments there are.
    pub segments: u32,
    /// How many bytes.
    pub bytes: u64,
    /// How many batches are good.
    pub batches: u64,
    /// How many threads.
    pub threads: u64,
    /// How many entries.
    pub entries: u64,
    /// How many of their bodies are erased (L6).
    pub erased: u64,
    /// How many redacted bodies still stand, wholly or in part: what a crash left before they were overwritten. The next opening does that.
    pub unerased: u64,
    /// Everything that doesn't hold, in the order of the log.
    pub damage: Vec<Damage>,
    /// Where the log is torn, which the next opening cuts: nothing behind it was acknowledged.
    pub torn: Option<(PathBuf, u64)>,
}

/// A place that doesn't hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The file.
    pub file: PathBuf,
    /// Where in it the frame or the entry begins.
    pub offset: u64,
    /// What doesn't hold.
    pub what: String,
}

impl Report {
    /// Whether everything holds that was acknowledged.
    pub fn is_sound(&self) -> bool {
        self.damage.is_empty()
    }
}

/// Reads the whole log in a directory, without its index, and checks every byte: frames, the chain of frames, heads, bodies and their hashes, the numbers of
/// each thread and its tree (G1, L6, L7). Changes nothing. Memory is proportional to the number of threads.
///
/// # Errors
/// Where there is no log, a process holds it, or the disk can't be read. What is damaged is no error, but in the report.
pub fn check(directory: &Path) -> Result<Report, OpenError> {
    let directory = Directory::open(directory)?;
    let paths = directory.paths();
    let last_segment = paths.last_segment()?;
    let mut check = Check {
        paths,
        report: Report {
            segments: last_segment,
            ..Report::default()
        },
        last: BEGINNING,
        threads: HashMap::new(),
        missing: HashMap::new(),
    };
    for number in 1..=last_segment {
        check.segment(number, number == last_segment)?;
    }
    Ok(check.finish())
}

struct Check<'a> {
    paths: &'a Paths,
    report: Report,
    last: Position,
    /// Each thread's tree; none once a frame was lost and it can't be followed any more.
    threads: HashMap<ThreadId, Option<Peaks>>,
    /// Bodies that don't hold, as long as nothing has erased them.
    missing: HashMap<(ThreadId, Seq), Missing>,
}

struct Missing {
    segment: u32,
    offset: u64,
    batch: u64,
    zero: bool,
}

impl Check<'_> {
    fn segment(&mut self, number: u32, is_last: bool) -> Result<(), OpenError> {
        let path = self.paths.segment(number);
        let mut segment = SegmentFile::open(self.paths, &SystemDisk, number)?;
        let reading = || io_error(&path, "read");
        self.report.bytes += segment.length();
        match segment.header().map_err(reading())? {
            Ok(header) => {
                if header.number != number
                    || header.first_batch != self.last.batch + 1
                    || header.previous_crc != self.last.crc
                {
                    self.damage(number, 0, "the segment does not follow on the one before it");
                }
            }
            Err(malformed) => {
                if is_last && segment.later_frame(0, 0).map_err(reading())?.is_none() {
                    self.report.torn = Some((path, 0));
                    return Ok(());
                }
                self.damage(number, 0, malformed.0);
            }
        }
        let mut at = SEGMENT_HEADER as u64;
        while at < segment.length() {
            let previous = self.last;
            match segment.frame(at, previous).map_err(reading())? {
                Ok(frame) => at = self.frame(number, at, &frame),
                Err(malformed) => {
                    let Some(next) = segment.later_frame(at, previous.batch).map_err(reading())? else {
                        if is_last {
                            self.report.torn = Some((path, at));
                        } else {
                            self.damage(number, at, malformed.0);
                        }
                        return Ok(());
                    };
                    self.damage(number, at, malformed.0);
                    // What is behind can still be read, but not be followed: anything may have been in between.
                    self.threads.values_mut().for_each(|peaks| *peaks = None);
                    let Ok(bytes) = segment.bytes(next, u64::MAX) else {
                        return Ok(());
                    };
                    if let Ok(frame) = Frame::parse(bytes) {
                        at = self.frame(number, next, &frame);
                    }
                }
            }
        }
        Ok(())
    }

    /// Checks a good frame, and says where the next begins.
    fn frame(&mut self, number: u32, at: u64, frame: &Frame<'_>) -> u64 {
        let end = at + u64::from(frame.header.length);
        let short = |place: u64| u32::try_from(place).unwrap_or(u32::MAX);
        let position = Position {
            batch: frame.header.batch,
            crc: frame.header.crc,
            segment: number,
            start: short(at),
            end: short(end),
        };
        self.last = position;
        self.report.batches += 1;
        for raw in &frame.items {
            if let Ok(Item::Record(thread, record)) = raw.decode() {
                let offset = at + u64::from(raw.extent.offset);
                if raw.body_holds() {
                    if Hash::of(raw.body) != record.content_hash {
                        self.damage(
                            number,
                            offset,
                            &format!(
                                "the body of entry {} of thread {thread} does not have its hash",
                                record.seq
                            ),
                        );
                    }
                } else {
                    self.missing.insert(
                        (thread, record.seq),
                        Missing {
                            segment: number,
                            offset,
                            batch: position.batch,
                            zero: raw.body_is_zero(),
                        },
                    );
                }
            }
        }
        match content(frame, position) {
            Ok((committed, _)) => {
                for change in &committed.changes {
                    if let Change::Append { records, facts } = change {
                        for (record, location) in records {
                            self.record(facts.thread, record, number, u64::from(location.extent.offset));
                        }
                        for (erased, _) in &facts.erase {
                            match self.missing.remove(&(facts.thread, *erased)) {
                                Some(Missing { zero: true, .. }) => self.report.erased += 1,
                                Some(_) => self.report.unerased += 1,
                                // A body that isn't missing is there, unless its frame was lost.
                                None => {
                                    self.report.unerased +=
                                        u64::from(matches!(self.threads.get(&facts.thread), Some(Some(_))))
                                }
                            }
                        }
                    }
                }
            }
            Err(malformed) => self.damage(number, at, malformed.0),
        }
        end
    }

    fn record(&mut self, thread: ThreadId, record: &Arc<Record>, segment: u32, offset: u64) {
        self.report.entries += 1;
        let whole = self.report.damage.is_empty();
        let tree = self.threads.entry(thread).or_insert_with(|| whole.then(Peaks::new));
        let Some(peaks) = tree else { return };
        let follows = peaks.size() + 1 == record.seq.get();
        if follows && peaks.push(record.leaf(thread)) == record.nodes && peaks.root() == record.root {
            return;
        }
        *tree = None;
        let what = if follows {
            "is not in its tree as it says"
        } else {
            "does not follow on the one before it"
        };
        self.damage(
            segment,
            offset,
            &format!("entry {} of thread {thread} {what}", record.seq),
        );
    }

    fn damage(&mut self, segment: u32, offset: u64, what: &str) {
        self.report.damage.push(Damage {
            file: self.paths.segment(segment),
            offset,
            what: what.into(),
        });
    }

    fn finish(mut self) -> Report {
        let missing = std::mem::take(&mut self.missing);
        for (
            (thread, seq),
            Missing {
                segment, offset, batch, ..
            },
        ) in missing
        {
            if batch == self.last.batch && self.report.torn.is_none() {
                let start = u64::from(self.last.start);
                self.report.torn = Some((self.paths.segment(segment), start));
            } else {
                self.damage(segment, offset, &format!("the body of entry {seq} of thread {thread} is not the one that was appended, and nothing erased it"));
            }
        }
        self.report
            .damage
            .sort_by(|a, b| (&a.file, a.offset).cmp(&(&b.file, b.offset)));
        self.report.threads = self.threads.len() as u64;
        self.report
    }
}
