//! Folded states of threads (`Log::save_state`): one small file each. Caches, never fsynced, checked when they are read.
//!
//! They stand apart from the index since they may hold bodies: a file is gone when it is removed, as a redaction demands (L6), while rows of an LSM tree live on
//! in its journal and in older tables.
//!
//! A file is the CRC-32C (4 bytes, little-endian) over the rest: thread id (16), seq (8), the root there (32), the state.

use std::fs;
use std::io;
use std::path::PathBuf;

use choir_protocol::hash::Hash;
use choir_protocol::ids::{Seq, ThreadId};

use super::format::Fields;
use crate::ReadError;

/// The directory of the states.
#[derive(Debug)]
pub(crate) struct States(PathBuf);

impl States {
    pub(crate) const fn new(directory: PathBuf) -> Self {
        Self(directory)
    }

    /// Keeps a state in place of the one before.
    pub(crate) fn save(&self, thread: ThreadId, seq: Seq, root: &Hash, state: &[u8]) -> io::Result<()> {
        let rest = [&thread.as_bytes()[..], &seq.get().to_le_bytes(), root.as_bytes(), state].concat();
        let file = self.file(thread);
        if let Some(directory) = file.parent() {
            fs::create_dir_all(directory)?;
        }
        let new = file.with_extension("new");
        fs::write(&new, [&crc32c::crc32c(&rest).to_le_bytes()[..], &rest].concat())?;
        fs::rename(new, file)
    }

    /// The state that was kept, with its number and the root there; none where there is none that holds.
    pub(crate) fn load(&self, thread: ThreadId) -> Option<(Seq, Hash, Vec<u8>)> {
        let bytes = fs::read(self.file(thread)).ok()?;
        let mut fields = Fields(&bytes);
        let crc = fields.u32()?;
        let holds = crc == crc32c::crc32c(fields.0) && fields.array()? == *thread.as_bytes();
        let (seq, root) = (fields.seq()?, fields.hash()?);
        holds.then(|| (seq, root, fields.0.to_vec()))
    }

    /// Forgets the thread's state.
    pub(crate) fn remove(&self, thread: ThreadId) -> Result<(), ReadError> {
        for file in [self.file(thread), self.file(thread).with_extension("new")] {
            match fs::remove_file(&file) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(ReadError::Io {
                        file,
                        reason: error.to_string(),
                    });
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Spread over 256 directories by the id's last byte, the most random one.
    fn file(&self, thread: ThreadId) -> PathBuf {
        let [.., last] = thread.as_bytes();
        self.0.join(format!("{last:02x}")).join(thread.to_string())
    }
}
