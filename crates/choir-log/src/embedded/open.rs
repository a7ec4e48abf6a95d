//! Opening: take hold of the directory, bring the index up to the log, find the log's end, and make sure that it is durable.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Options;
use super::directory::{Directory, Paths, io_error};
use super::disk::{Access, Disk, DiskFile};
use super::format::{SEGMENT_HEADER, SegmentHeader};
use super::index::{Committed, Index, IndexError, Position};
use super::indexer::erase;
use super::reader::Segments;
use super::recovery::{BEGINNING, End, scan, stands};
use super::shared::Shared;
use super::states::States;
use super::writer::Tail;
use crate::OpenError;

/// Opens a log.
pub(crate) fn open(disk: Arc<dyn Disk>, path: &Path, options: Options) -> Result<(Shared, Tail), OpenError> {
    let directory = Directory::open_or_create(path, &*disk)?;
    let paths = directory.paths().clone();
    let last_segment = paths.last_segment()?;
    let opening = Opening {
        paths: &paths,
        disk: &disk,
        options: &options,
        last_segment,
    };
    let (index, end) = opening.index()?;
    let tail = opening.tail(end)?;
    let batch = end.last.batch;
    Ok((Shared::new(options, directory, disk, index, batch), tail))
}

struct Opening<'a> {
    paths: &'a Paths,
    disk: &'a Arc<dyn Disk>,
    options: &'a Options,
    last_segment: u32,
}

impl Opening<'_> {
    /// The index, brought up to the log; and where that ends.
    fn index(&self) -> Result<(Index, End), OpenError> {
        let marker = self.paths.index_rebuild();
        if marker.exists() {
            let known = fs::read_to_string(&marker).map_err(io_error(&marker, "read"))?;
            return self.rebuild(known.trim().parse().unwrap_or_default());
        }
        let (index, come) = match self.trusted_index() {
            Ok(Some((index, come))) if come.batch == 0 || stands(self.paths, &**self.disk, come)? => (index, come),
            Ok(Some((index, come))) => {
                tracing::warn!(
                    batch = come.batch,
                    "the index is ahead of the log, or of another one: it is rebuilt"
                );
                drop(index);
                return self.rebuild(come.batch);
            }
            Ok(None) => return self.rebuild(0),
            Err(IndexError(reason)) => {
                tracing::warn!(reason, "the index is damaged: it is rebuilt");
                return self.rebuild(0);
            }
        };
        match self.replay(&index, come, come.batch)? {
            Ok(end) => Ok((index, end)),
            Err(IndexError(reason)) => {
                tracing::warn!(reason, "the index is damaged: it is rebuilt");
                drop(index);
                self.rebuild(come.batch)
            }
        }
    }

    /// The index that is there, and how far it has come; none where there is none.
    fn trusted_index(&self) -> Result<Option<(Index, Position)>, IndexError> {
        if !self.paths.index().exists() {
            return Ok(None);
        }
        let index = Index::open(&self.paths.index(), self.options.index_cache_bytes)?;
        let come = index.position()?.unwrap_or(BEGINNING);
        Ok(Some((index, come)))
    }

    /// Makes an index anew. `known` is the last batch that the old one remembered.
    fn rebuild(&self, known: u64) -> Result<(Index, End), OpenError> {
        if known > 0 && self.last_segment == 0 {
            let what = format!("there is no segment, and the index remembers {known} batches");
            return Err(OpenError::Corrupt {
                file: self.paths.segment(1),
                offset: 0,
                what,
            });
        }
        let marker = self.paths.index_rebuild();
        // Where this is interrupted, it begins anew, and what the old index knew isn't forgotten.
        fs::write(&marker, known.to_string()).map_err(io_error(&marker, "write"))?;
        let path = self.paths.index();
        if path.exists() {
            fs::remove_dir_all(&path).map_err(io_error(&path, "remove"))?;
        }
        let failed = |IndexError(reason)| OpenError::Index { reason };
        let index = Index::open(&path, self.options.index_cache_bytes).map_err(failed)?;
        let end = self.replay(&index, BEGINNING, known)?.map_err(failed)?;
        if end.last.batch < known {
            tracing::warn!(
                known,
                found = end.last.batch,
                "the log is shorter than the index remembered: an older copy of it must have been put here"
            );
        }
        fs::remove_file(&marker).map_err(io_error(&marker, "remove"))?;
        Ok((index, end))
    }

    /// Lets the index take up what the log holds after a place.
    fn replay(&self, index: &Index, from: Position, known: u64) -> Result<Result<End, IndexError>, OpenError> {
        let mut replay = Replay {
            opening: self,
            index,
            segments: Segments::new(self.paths.clone(), Arc::clone(self.disk)),
            states: States::new(self.paths.states()),
            waiting: Vec::new(),
            waiting_bytes: 0,
            failure: None,
            catches_up: from.batch > 0,
            done: 0,
            total: self.bytes_after(from)?,
            said: Instant::now(),
        };
        let end = scan(
            self.paths,
            &**self.disk,
            from,
            self.last_segment,
            known,
            &mut |committed| {
                replay.add(committed);
                Ok(())
            },
        )?;
        replay.flush();
        Ok(replay.failure.map_or(Ok(end), Err))
    }

    fn bytes_after(&self, from: Position) -> Result<u64, OpenError> {
        let mut bytes = 0;
        for number in from.segment..=self.last_segment {
            let path = self.paths.segment(number);
            bytes += fs::metadata(&path).map_err(io_error(&path, "measure"))?.len();
        }
        Ok(bytes.saturating_sub(u64::from(from.end)))
    }

    /// Cuts what a crash left, and makes sure that what stays is durable.
    fn tail(&self, end: End) -> Result<Tail, OpenError> {
        if let Some(number) = end.remove {
            let path = self.paths.segment(number);
            tracing::warn!(file = %path.display(), "a segment whose beginning was torn is removed; nothing in it was acknowledged");
            self.disk.remove(&path).map_err(io_error(&path, "remove"))?;
        }
        if end.segment == 0 {
            return self.first_segment(end.last);
        }
        let path = self.paths.segment(end.segment);
        let file = self.disk.open(&path, Access::Write).map_err(io_error(&path, "open"))?;
        if end.torn {
            tracing::warn!(file = %path.display(), offset = end.offset, "the log is cut behind its last whole batch; nothing behind it was acknowledged");
            file.truncate(end.offset).map_err(io_error(&path, "cut"))?;
        }
        self.write_again(&*file, end).map_err(io_error(&path, "make durable"))?;
        let segments = self.paths.segments();
        self.disk
            .sync_directory(&segments)
            .map_err(io_error(&segments, "sync"))?;
        Ok(Tail {
            file,
            segment: end.segment,
            offset: end.offset,
            last: end.last,
        })
    }

    /// What was written last before a crash may never have reached the disk, and after a failed fsync the system may think that it has. Writing it once more
    /// makes it a change that the next fsync can't pass over. Nothing but the last frame can be in doubt, and the header of its segment.
    fn write_again(&self, file: &dyn DiskFile, end: End) -> std::io::Result<()> {
        let start = if end.last.segment == end.segment {
            u64::from(end.last.start)
        } else {
            end.offset
        };
        for (from, to) in [(0, SEGMENT_HEADER as u64), (start, end.offset)] {
            let mut bytes = vec![0; usize::try_from(to.saturating_sub(from)).map_err(std::io::Error::other)?];
            file.read_exact_at(&mut bytes, from)?;
            if !bytes.is_empty() {
                file.write_all_at(&bytes, from)?;
            }
        }
        file.sync()
    }

    fn first_segment(&self, last: Position) -> Result<Tail, OpenError> {
        let path = self.paths.segment(1);
        let begin = || {
            let file = self.disk.open(&path, Access::Create)?;
            let header = SegmentHeader {
                number: 1,
                first_batch: last.batch + 1,
                previous_crc: last.crc,
            };
            file.write_all_at(&header.to_bytes(), 0)?;
            file.sync()?;
            self.disk.sync_directory(&self.paths.segments())?;
            Ok(file)
        };
        let file = begin().map_err(io_error(&path, "begin"))?;
        Ok(Tail {
            file,
            segment: 1,
            offset: SEGMENT_HEADER as u64,
            last,
        })
    }
}

/// What was read and waits for the index.
struct Replay<'a> {
    opening: &'a Opening<'a>,
    index: &'a Index,
    segments: Segments,
    states: States,
    waiting: Vec<Arc<Committed>>,
    waiting_bytes: usize,
    failure: Option<IndexError>,
    catches_up: bool,
    done: u64,
    total: u64,
    said: Instant,
}

impl Replay<'_> {
    fn add(&mut self, committed: Committed) {
        self.waiting_bytes += committed.bytes;
        self.waiting.push(Arc::new(committed));
        if self.waiting_bytes >= TAKE_UP_BYTES {
            self.flush();
        }
    }

    fn flush(&mut self) {
        self.done += self.waiting_bytes as u64;
        let waiting = std::mem::take(&mut self.waiting);
        self.waiting_bytes = 0;
        if self.failure.is_some() || waiting.is_empty() {
            return;
        }
        // What an intact index lacks may have been overwritten in the system's memory only.
        let taken = erase(&self.segments, &self.states, self.index, &waiting, self.catches_up)
            .map_err(|error| IndexError(error.to_string()))
            .and_then(|_| self.index.take_up(&waiting));
        self.failure = taken.err();
        if let Some(progress) = &self.opening.options.progress {
            progress(self.done.min(self.total), self.total);
        }
        if self.said.elapsed() >= SAY_EVERY {
            self.said = Instant::now();
            tracing::info!(
                done_bytes = self.done,
                total_bytes = self.total,
                "the index is brought up to the log"
            );
        }
    }
}

const TAKE_UP_BYTES: usize = 4 * 1024 * 1024;
const SAY_EVERY: Duration = Duration::from_secs(2);
