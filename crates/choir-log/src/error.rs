//! What can go wrong, sorted by what it means for the data. Texts are for operators: what happened, what it means, what to do next.

use std::fmt;
use std::path::PathBuf;

use choir_protocol::ids::{Cursor, Seq, ThreadId};

/// Why an append (or a put) isn't known to be done. The first question is whether it is known that nothing was appended: [`is_definite`](Self::is_definite).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AppendError {
    /// Definitely not appended: the thread's head is another than was expected.
    Conflict {
        /// Where the thread stands; [`Cursor::START`] where it doesn't exist.
        head: Cursor,
    },
    /// Definitely not appended: an entry with the same (id, kind) stands in the thread (L3), or twice in the append.
    Taken {
        /// Its number.
        seq: Seq,
    },
    /// Definitely not appended, and would not be if it were said again as things are.
    Refused {
        /// What is wrong with it, with the entries that it follows on, or with the disk.
        why: String,
    },
    /// Definitely not appended: too much is waiting already. Later it may succeed.
    Busy,
    /// It may be in the log, or not: nobody may be told either (A10). The log takes no more appends until it is reopened, and reading it then tells.
    Unknown {
        /// What happened.
        reason: String,
    },
    /// Definitely not appended: the log takes no appends until it is reopened.
    Broken {
        /// What happened, to an earlier append or to this log.
        reason: String,
    },
}

impl AppendError {
    /// Whether it is certain that nothing was appended, now or later.
    pub fn is_definite(&self) -> bool {
        !matches!(self, Self::Unknown { .. })
    }
}

impl fmt::Display for AppendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Conflict { head } => {
                write!(
                    f,
                    "nothing was appended: the thread's head is {}, not the expected one; read on from it and decide anew",
                    head.seq
                )
            }
            Self::Taken { seq } => write!(
                f,
                "nothing was appended: entry {seq} bears the same id and kind; answer with that entry"
            ),
            Self::Refused { why } => write!(f, "nothing was appended: {why}"),
            Self::Busy => f.write_str("nothing was appended: the queue of appends is full; try again a little later"),
            Self::Unknown { reason } => {
                write!(
                    f,
                    "it is not known whether the entries were appended: {reason}; answer nobody, reopen the log and read it to find out"
                )
            }
            Self::Broken { reason } => {
                write!(
                    f,
                    "nothing was appended: the log takes no appends since {reason}; what is durable can still be read; reopen the log"
                )
            }
        }
    }
}

impl std::error::Error for AppendError {}

/// Why something couldn't be read. Nothing wrong was served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadError {
    /// What stands on the disk isn't what was written.
    Damaged {
        /// The file.
        file: PathBuf,
        /// Where in it.
        offset: u64,
        /// The entry's thread.
        thread: ThreadId,
        /// The entry's number.
        seq: Seq,
        /// What doesn't hold.
        what: &'static str,
    },
    /// The disk couldn't be read.
    Io {
        /// The file.
        file: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// The index contradicts the log or itself. It is rebuilt from the log when that is reopened.
    Index {
        /// What was noticed.
        reason: String,
    },
    /// What a list was to go on after isn't the `next` of a page.
    After,
    /// The log was closed.
    Closed,
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Damaged {
                file,
                offset,
                thread,
                seq,
                what,
            } => write!(
                f,
                "entry {seq} of thread {thread} is damaged: {what}, at offset {offset} of {}; it is not served; \
                 restore the file from a backup, and run `choir log check` to find what else is damaged",
                file.display()
            ),
            Self::Io { file, reason } => write!(
                f,
                "{} could not be read: {reason}; nothing was changed; check the disk",
                file.display()
            ),
            Self::Index { reason } => {
                write!(
                    f,
                    "the index is damaged: {reason}; the log itself is not affected; restart, and the index is rebuilt from the log"
                )
            }
            Self::After => f.write_str("`after` is not the `next` of a page of this list"),
            Self::Closed => f.write_str("the log was closed"),
        }
    }
}

impl std::error::Error for ReadError {}

/// Why a log couldn't be opened. Nothing in its directory was changed.
#[derive(Debug)]
pub enum OpenError {
    /// Another process holds it.
    Locked {
        /// The directory.
        directory: PathBuf,
    },
    /// It was written by a later version.
    Newer {
        /// The directory.
        directory: PathBuf,
        /// The version of its format.
        found: u32,
        /// The newest that is known here.
        known: u32,
    },
    /// The directory holds something, but not a log.
    NotALog {
        /// The file that should be there, or should not be as it is.
        file: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The log is damaged in a place where a crash can't have done it.
    Corrupt {
        /// The file.
        file: PathBuf,
        /// Where in it.
        offset: u64,
        /// What doesn't hold.
        what: String,
    },
    /// The system refused something.
    Io {
        /// The file or directory.
        file: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// The index couldn't be opened, dropped or rebuilt.
    Index {
        /// What happened.
        reason: String,
    },
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Locked { directory } => {
                write!(
                    f,
                    "the log in {} is open in another process; nothing was changed; stop that process, or choose another directory",
                    directory.display()
                )
            }
            Self::Newer {
                directory,
                found,
                known,
            } => write!(
                f,
                "the log in {} has format {found}, and this version knows formats up to {known}; nothing was changed; use a newer version of choir",
                directory.display()
            ),
            Self::NotALog { file, what } => {
                write!(
                    f,
                    "{} {what}; nothing was changed; name a directory that holds a log, or an empty one to begin a log in",
                    file.display()
                )
            }
            Self::Corrupt { file, offset, what } => write!(
                f,
                "the log is damaged at offset {offset} of {}: {what}; nothing was changed, and what was acknowledged may be lost; \
                 copy the directory, run `choir log check` on it, and restore the file from a backup",
                file.display()
            ),
            Self::Io { file, doing, source } => write!(f, "could not {doing} {}: {source}", file.display()),
            Self::Index { reason } => {
                write!(
                    f,
                    "the index could not be brought up to the log: {reason}; the log itself is not affected; check the disk, then start again"
                )
            }
        }
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}
