//! Reading the log from a place on: what opening replays into the index, and how it tells a torn tail from corruption (the rule stands in `format.rs`).

use std::collections::HashSet;
use std::sync::Arc;

use choir_core::record::Record;
use choir_protocol::ids::{Seq, ThreadId};

use super::directory::{Paths, io_error};
use super::disk::{Access, Disk, DiskFile};
use super::format::{FRAME_HEADER, FRAME_MAGIC, Frame, FrameHeader, Item, Malformed, SEGMENT_HEADER, SegmentHeader};
use super::index::{Change, Committed, Location, Position};
use crate::OpenError;

/// Where the log ends, and what a crash left there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct End {
    /// The last frame; of batch 0 where there is none.
    pub(crate) last: Position,
    /// The segment that goes on; 0 where there is none yet.
    pub(crate) segment: u32,
    /// Where in it the next frame belongs.
    pub(crate) offset: u64,
    /// Whether the last segment must be cut there.
    pub(crate) torn: bool,
    /// A segment behind it whose beginning was torn, and which must be removed.
    pub(crate) remove: Option<u32>,
}

/// The place before the first frame.
pub(crate) const BEGINNING: Position = Position {
    batch: 0,
    crc: 0,
    segment: 1,
    start: 0,
    end: 0,
};

/// A segment, read from front to back in large pieces.
pub(crate) struct SegmentFile {
    file: Box<dyn DiskFile>,
    length: u64,
    buffer: Vec<u8>,
    /// Where in the file the buffer begins.
    buffer_at: u64,
}

impl SegmentFile {
    pub(crate) fn open(paths: &Paths, disk: &dyn Disk, number: u32) -> Result<Self, OpenError> {
        let path = paths.segment(number);
        let file = disk.open(&path, Access::Read).map_err(io_error(&path, "open"))?;
        let length = file.length().map_err(io_error(&path, "measure"))?;
        Ok(Self {
            file,
            length,
            buffer: Vec::new(),
            buffer_at: 0,
        })
    }

    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// `length` bytes from `offset` on; fewer where the file ends before.
    pub(crate) fn bytes(&mut self, offset: u64, length: u64) -> std::io::Result<&[u8]> {
        let end = self.length.min(offset.saturating_add(length));
        let length = usize::try_from(end.saturating_sub(offset)).map_err(std::io::Error::other)?;
        if offset < self.buffer_at || end > self.buffer_at + self.buffer.len() as u64 {
            let ahead =
                usize::try_from(self.length.saturating_sub(offset)).map_or(READ_AHEAD, |rest| rest.min(READ_AHEAD));
            self.buffer.resize(length.max(ahead), 0);
            self.buffer_at = offset;
            self.file.read_exact_at(&mut self.buffer, offset)?;
        }
        let at = usize::try_from(offset - self.buffer_at).map_err(std::io::Error::other)?;
        Ok(self.buffer.get(at..at + length).unwrap_or_default())
    }

    pub(crate) fn header(&mut self) -> std::io::Result<Result<SegmentHeader, Malformed>> {
        Ok(SegmentHeader::parse(self.bytes(0, SEGMENT_HEADER as u64)?))
    }

    /// The frame at `offset`, which must be good and follow on `previous`.
    pub(crate) fn frame(&mut self, offset: u64, previous: Position) -> std::io::Result<Result<Frame<'_>, Malformed>> {
        let header = match FrameHeader::parse(self.bytes(offset, FRAME_HEADER as u64)?) {
            Ok(header) => header,
            Err(malformed) => return Ok(Err(malformed)),
        };
        Ok(
            Frame::parse(self.bytes(offset, u64::from(header.length))?).and_then(|frame| {
                if frame.header.batch != previous.batch + 1 || frame.header.previous_crc != previous.crc {
                    return Err(Malformed("a frame does not follow on the one before it"));
                }
                Ok(frame)
            }),
        )
    }

    /// Where the next good frame begins whose batch is above `batch`, at any offset from `from` on.
    pub(crate) fn later_frame(&mut self, from: u64, batch: u64) -> std::io::Result<Option<u64>> {
        let rest = self.bytes(from, u64::MAX)?;
        let mut at = 0;
        while let Some(found) = rest
            .get(at..)
            .and_then(|rest| rest.windows(FRAME_MAGIC.len()).position(|window| window == FRAME_MAGIC))
        {
            at += found;
            if Frame::parse(rest.get(at..).unwrap_or_default()).is_ok_and(|frame| frame.header.batch > batch) {
                return Ok(Some(from + at as u64));
            }
            at += 1;
        }
        Ok(None)
    }
}

const READ_AHEAD: usize = 1024 * 1024;

/// Whether the frame at this position is still there.
pub(crate) fn stands(paths: &Paths, disk: &dyn Disk, position: Position) -> Result<bool, OpenError> {
    let path = paths.segment(position.segment);
    if !path.is_file() {
        return Ok(false);
    }
    let mut segment = SegmentFile::open(paths, disk, position.segment)?;
    if segment.length() < u64::from(position.end) {
        return Ok(false);
    }
    let bytes = segment
        .bytes(u64::from(position.start), FRAME_HEADER as u64)
        .map_err(io_error(&path, "read"))?;
    let header = FrameHeader::parse(bytes);
    Ok(header.is_ok_and(|header| {
        header.batch == position.batch
            && header.crc == position.crc
            && position.start.checked_add(header.length) == Some(position.end)
    }))
}

/// Reads all frames after `from`, in order, and says where the log ends. Writes nothing.
///
/// `known` is the last batch that the index remembers: a frame up to it was good once, so that it can't be torn.
pub(crate) fn scan(
    paths: &Paths,
    disk: &dyn Disk,
    from: Position,
    last_segment: u32,
    known: u64,
    each: &mut dyn FnMut(Committed) -> Result<(), OpenError>,
) -> Result<End, OpenError> {
    let mut scan = Scan {
        paths,
        disk,
        last: from,
        last_segment,
        known,
        held: None,
    };
    let mut end = End {
        last: from,
        segment: 0,
        offset: 0,
        torn: false,
        remove: None,
    };
    for number in from.segment..=last_segment {
        match scan.segment(
            number,
            if from.batch > 0 && number == from.segment {
                u64::from(from.end)
            } else {
                0
            },
            each,
        )? {
            SegmentEnd::At { offset, torn } => {
                end = End {
                    segment: number,
                    offset,
                    torn,
                    ..end
                }
            }
            SegmentEnd::NeverBegun => end.remove = Some(number),
        }
    }
    if let Some(held) = scan.held.take() {
        if held.whole {
            end.last = held.committed.position;
            each(held.committed)?;
        } else {
            // Nothing follows on it, and bodies of it are missing: it is torn as well.
            let Position {
                segment, start, batch, ..
            } = held.committed.position;
            scan.may_be_torn(segment, u64::from(start), batch, "bodies of the last frame do not hold")?;
            end = End {
                last: held.before,
                segment,
                offset: u64::from(start),
                torn: true,
                ..end
            };
        }
    } else {
        end.last = scan.last;
    }
    Ok(end)
}

enum SegmentEnd {
    At { offset: u64, torn: bool },
    NeverBegun,
}

struct Scan<'a> {
    paths: &'a Paths,
    disk: &'a dyn Disk,
    /// The last good frame.
    last: Position,
    last_segment: u32,
    known: u64,
    held: Option<Held>,
}

/// A good frame that isn't handed on before a next one shows that it isn't the last, or it proves whole.
struct Held {
    committed: Committed,
    whole: bool,
    before: Position,
}

impl Scan<'_> {
    /// Reads one segment from an offset on; 0 is its beginning.
    fn segment(
        &mut self,
        number: u32,
        offset: u64,
        each: &mut dyn FnMut(Committed) -> Result<(), OpenError>,
    ) -> Result<SegmentEnd, OpenError> {
        let path = self.paths.segment(number);
        let mut segment = SegmentFile::open(self.paths, self.disk, number)?;
        let follows = |header: SegmentHeader| {
            header.number == number && header.first_batch == self.last.batch + 1 && header.previous_crc == self.last.crc
        };
        match segment.header().map_err(io_error(&path, "read"))? {
            Ok(header) if offset > 0 || follows(header) => {}
            Ok(_) => return Err(self.corrupt(number, 0, "the segment does not follow on the one before it")),
            Err(malformed) => {
                let later = segment.later_frame(0, 0).map_err(io_error(&path, "read"))?;
                if offset > 0 || later.is_some() || number < self.last_segment {
                    return Err(self.corrupt(number, 0, malformed.0));
                }
                self.may_be_torn(number, 0, self.last.batch + 1, malformed.0)?;
                return Ok(SegmentEnd::NeverBegun);
            }
        }
        let mut at = offset.max(SEGMENT_HEADER as u64);
        while at < segment.length() {
            match segment.frame(at, self.last).map_err(io_error(&path, "read"))? {
                Ok(frame) => {
                    let length = u64::from(frame.header.length);
                    let held = self
                        .hold(number, at, &frame)
                        .map_err(|malformed| self.corrupt(number, at, malformed.0))?;
                    self.last = held.committed.position;
                    if let Some(Held { committed, .. }) = self.held.replace(held) {
                        each(committed)?;
                    }
                    at += length;
                }
                Err(malformed) => {
                    let later = segment
                        .later_frame(at + 1, self.last.batch)
                        .map_err(io_error(&path, "read"))?;
                    if later.is_some() || number < self.last_segment {
                        return Err(self.corrupt(number, at, malformed.0));
                    }
                    self.may_be_torn(number, at, self.last.batch + 1, malformed.0)?;
                    return Ok(SegmentEnd::At { offset: at, torn: true });
                }
            }
        }
        Ok(SegmentEnd::At {
            offset: at,
            torn: false,
        })
    }

    fn hold(&self, segment: u32, at: u64, frame: &Frame<'_>) -> Result<Held, Malformed> {
        let start = u32::try_from(at).map_err(|_| Malformed("a frame lies too far"))?;
        let end = start
            .checked_add(frame.header.length)
            .ok_or(Malformed("a frame lies too far"))?;
        let position = Position {
            batch: frame.header.batch,
            crc: frame.header.crc,
            segment,
            start,
            end,
        };
        let (committed, whole) = content(frame, position)?;
        Ok(Held {
            committed,
            whole,
            before: self.last,
        })
    }

    /// An error where the index knows that the frame of this batch was good.
    fn may_be_torn(&self, segment: u32, offset: u64, batch: u64, what: &'static str) -> Result<(), OpenError> {
        if batch > self.known {
            return Ok(());
        }
        let what = format!(
            "{what}; batch {batch} was complete once, and the index remembers batches up to {}",
            self.known
        );
        Err(OpenError::Corrupt {
            file: self.paths.segment(segment),
            offset,
            what,
        })
    }

    fn corrupt(&self, segment: u32, offset: u64, what: &str) -> OpenError {
        let what = format!("{what} (behind batch {})", self.last.batch);
        OpenError::Corrupt {
            file: self.paths.segment(segment),
            offset,
            what,
        }
    }
}

/// What a good frame says, without bodies; and whether its bodies hold, apart from those that it erases itself.
pub(crate) fn content(frame: &Frame<'_>, position: Position) -> Result<(Committed, bool), Malformed> {
    let mut changes = Vec::new();
    let mut bytes = 0;
    let mut records: Vec<(Arc<Record>, Location)> = Vec::new();
    let mut thread_of_records = None;
    let mut missing: HashSet<(ThreadId, Seq)> = HashSet::new();
    for raw in &frame.items {
        bytes += raw.extent.bytes();
        match raw.decode()? {
            Item::Record(thread, record) => {
                if *thread_of_records.get_or_insert(thread) != thread {
                    return Err(Malformed("an append holds entries of two threads"));
                }
                if !raw.body_holds() {
                    missing.insert((thread, record.seq));
                }
                let extent = raw
                    .extent
                    .from(position.start)
                    .ok_or(Malformed("a frame lies too far"))?;
                records.push((
                    Arc::new(*record),
                    Location {
                        segment: position.segment,
                        extent,
                    },
                ));
            }
            Item::Facts(facts) => {
                let last = records.last().map(|(record, _)| record.seq);
                if thread_of_records.take() != Some(facts.thread) || last != Some(facts.last) {
                    return Err(Malformed("facts do not belong to the entries before them"));
                }
                for (erased, _) in &facts.erase {
                    missing.remove(&(facts.thread, *erased));
                }
                changes.push(Change::Append {
                    records: std::mem::take(&mut records),
                    facts: *facts,
                });
            }
            Item::Put(key, value) => changes.push(Change::Put {
                key: key.to_vec(),
                value: value.to_vec(),
            }),
            Item::Seal => {}
        }
    }
    if !records.is_empty() {
        return Err(Malformed("entries without facts"));
    }
    Ok((
        Committed {
            position,
            changes,
            bytes,
        },
        missing.is_empty(),
    ))
}
