//! Records out of segments: found by the index, believed only where they prove to be what was appended.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use choir_core::record::Record;
use choir_protocol::canonical::Canonical;
use choir_protocol::entry::Body;
use choir_protocol::ids::{Seq, ThreadId};

use super::directory::Paths;
use super::disk::{Access, Disk, DiskFile};
use super::format::{ITEM_HEADER, Item, RawItem};
use super::index::{EntryRow, Location};
use crate::ReadError;

/// The segments, to be read.
#[derive(Debug)]
pub(crate) struct Segments {
    paths: Paths,
    disk: Arc<dyn Disk>,
    open: Mutex<HashMap<u32, Arc<dyn DiskFile>>>,
}

impl Segments {
    pub(crate) fn new(paths: Paths, disk: Arc<dyn Disk>) -> Self {
        Self {
            paths,
            disk,
            open: Mutex::default(),
        }
    }

    /// A run of entries from `first` on, one for each row, up to the first that can't be served: whoever reads on from there is told why.
    ///
    /// # Errors
    /// Where that is the first of them.
    pub(crate) fn run(&self, thread: ThreadId, first: Seq, rows: &[EntryRow]) -> Result<Vec<Record>, ReadError> {
        let mut records = Vec::with_capacity(rows.len());
        let mut rest = rows;
        while let Some((row, _)) = rest.split_first() {
            let (neighbours, span) = neighbours(rest);
            let bytes = self.bytes(row.location.segment, u64::from(row.location.extent.offset), span)?;
            for row in rest.iter().take(neighbours) {
                let at = (row.location.extent.offset - rest.first().map_or(0, |first| first.location.extent.offset))
                    as usize;
                let seq = Seq::saturating(first.get() + records.len() as u64);
                let wanted = Wanted {
                    segments: self,
                    thread,
                    seq,
                    location: row.location,
                };
                match wanted.with_body(bytes.get(at..).unwrap_or_default(), row.erased_by) {
                    Ok(record) => records.push(record),
                    Err(_) if !records.is_empty() => return Ok(records),
                    Err(error) => return Err(error),
                }
            }
            rest = rest.get(neighbours..).unwrap_or_default();
        }
        Ok(records)
    }

    /// An entry without its body: [`Body::Erased`] by 0 stands for it.
    pub(crate) fn head(&self, thread: ThreadId, seq: Seq, location: Location) -> Result<Record, ReadError> {
        let bytes = self.bytes(
            location.segment,
            u64::from(location.extent.offset),
            ITEM_HEADER + location.extent.head_bytes as usize,
        )?;
        let wanted = Wanted {
            segments: self,
            thread,
            seq,
            location,
        };
        let (item, _) = RawItem::parse_head(&bytes, 0).map_err(|malformed| wanted.damaged(malformed.0))?;
        wanted.record(&item)
    }

    /// Overwrites the body of an entry, unless it is zero already and this isn't to be done `once_more`. Whether it was overwritten.
    pub(crate) fn erase(
        &self,
        thread: ThreadId,
        seq: Seq,
        location: Location,
        once_more: bool,
    ) -> Result<bool, ReadError> {
        // A damaged length must not lead to other bytes than the body's, so that the head is checked first.
        self.head(thread, seq, location)?;
        let body = self.bytes(
            location.segment,
            location.extent.body_offset(),
            location.extent.body_bytes as usize,
        )?;
        if body.is_empty() || (!once_more && body.iter().all(|byte| *byte == 0)) {
            return Ok(false);
        }
        let path = self.paths.segment(location.segment);
        let write = || {
            self.disk
                .open(&path, Access::Write)?
                .write_all_at(&vec![0; body.len()], location.extent.body_offset())
        };
        write().map_err(|error| ReadError::Io {
            file: path.clone(),
            reason: error.to_string(),
        })?;
        Ok(true)
    }

    /// Makes erasures durable.
    pub(crate) fn sync(&self, segment: u32) -> Result<(), ReadError> {
        let path = self.paths.segment(segment);
        let sync = || self.disk.open(&path, Access::Write)?.sync();
        sync().map_err(|error| ReadError::Io {
            file: path.clone(),
            reason: error.to_string(),
        })
    }

    /// Forgets the open files.
    pub(crate) fn close(&self) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn bytes(&self, segment: u32, offset: u64, length: usize) -> Result<Vec<u8>, ReadError> {
        let io = |error: std::io::Error| ReadError::Io {
            file: self.paths.segment(segment),
            reason: error.to_string(),
        };
        let file = self.file(segment).map_err(io)?;
        let mut bytes = vec![0; length];
        file.read_exact_at(&mut bytes, offset).map_err(io)?;
        Ok(bytes)
    }

    fn file(&self, segment: u32) -> std::io::Result<Arc<dyn DiskFile>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = open.get(&segment) {
            return Ok(Arc::clone(file));
        }
        let file: Arc<dyn DiskFile> = Arc::from(self.disk.open(&self.paths.segment(segment), Access::Read)?);
        if open.len() >= MAX_OPEN_FILES {
            open.clear();
        }
        open.insert(segment, Arc::clone(&file));
        Ok(file)
    }
}

/// Many fewer than processes may open by default.
const MAX_OPEN_FILES: usize = 128;
/// Bytes of others between two records that are cheaper to read along than to begin anew.
const GAP_BYTES: u64 = 16 * 1024;
/// The most that is read at once, unless one record is larger.
const SPAN_BYTES: u64 = 1024 * 1024;

/// How many rows from the first on are read at once, and how many bytes that is.
fn neighbours(rows: &[EntryRow]) -> (usize, usize) {
    let Some((first, rest)) = rows.split_first() else {
        return (0, 0);
    };
    let begin = u64::from(first.location.extent.offset);
    let (mut count, mut end) = (1, first.location.extent.end());
    for row in rest {
        let extent = row.location.extent;
        let offset = u64::from(extent.offset);
        let near = row.location.segment == first.location.segment && offset >= end && offset - end <= GAP_BYTES;
        if !near || extent.end() - begin > SPAN_BYTES {
            break;
        }
        (count, end) = (count + 1, extent.end());
    }
    (count, usize::try_from(end - begin).unwrap_or(usize::MAX))
}

/// An entry that the index has promised.
struct Wanted<'a> {
    segments: &'a Segments,
    thread: ThreadId,
    seq: Seq,
    location: Location,
}

impl Wanted<'_> {
    fn with_body(&self, bytes: &[u8], erased_by: Option<Seq>) -> Result<Record, ReadError> {
        let item = RawItem::parse(bytes, 0).map_err(|malformed| self.damaged(malformed.0))?;
        let mut record = self.record(&item)?;
        record.body = match erased_by {
            Some(by) => Body::Erased(by),
            None => {
                let text = std::str::from_utf8(item.body).ok().filter(|_| item.body_holds());
                let body = text
                    .map(Canonical::from_trusted_storage)
                    .filter(|body| body.hash() == record.content_hash);
                Body::Present(body.ok_or_else(|| self.damaged("the body is not the one that was appended"))?)
            }
        };
        Ok(record)
    }

    fn record(&self, item: &RawItem<'_>) -> Result<Record, ReadError> {
        let extent = self.location.extent;
        match item.decode() {
            Ok(Item::Record(thread, record))
                if thread == self.thread
                    && record.seq == self.seq
                    && (item.extent.head_bytes, item.extent.body_bytes) == (extent.head_bytes, extent.body_bytes) =>
            {
                Ok(*record)
            }
            Ok(_) => Err(self.damaged("another entry stands where the index has this one")),
            Err(malformed) => Err(self.damaged(malformed.0)),
        }
    }

    fn damaged(&self, what: &'static str) -> ReadError {
        let file: PathBuf = self.segments.paths.segment(self.location.segment);
        ReadError::Damaged {
            file,
            offset: u64::from(self.location.extent.offset),
            thread: self.thread,
            seq: self.seq,
            what,
        }
    }
}
