//! The directory of a log: who holds it, what version wrote it, which history it is, which segments there are.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use choir_protocol::ids::LogId;

use super::disk::{Access, Disk};
use super::format::VERSION;
use crate::OpenError;

/// A log's directory, held exclusively as long as this lives.
#[derive(Debug)]
pub(crate) struct Directory {
    paths: Paths,
    log_id: LogId,
    // Dropping it ends the lock.
    _lock: File,
}

/// Where things stand in a log's directory.
#[derive(Debug, Clone)]
pub(crate) struct Paths(PathBuf);

impl Directory {
    /// Takes hold of the log in `path`, and begins one where the directory is empty or missing.
    pub(crate) fn open_or_create(path: &Path, disk: &dyn Disk) -> Result<Self, OpenError> {
        let made = !path.try_exists().map_err(io_error(path, "look for"))?;
        fs::create_dir_all(path).map_err(io_error(path, "create"))?;
        let format = path.join(FORMAT);
        let exists = format.try_exists().map_err(io_error(&format, "look for"))?;
        if !exists {
            refuse_foreign(path)?;
        }
        let lock = lock(path)?;
        // Another process may have begun the log meanwhile.
        if !format.try_exists().map_err(io_error(&format, "look for"))? {
            fs::create_dir_all(path.join(SEGMENTS)).map_err(io_error(path, "create segments in"))?;
            write_format(path, new_log_id(&format)?, disk)?;
            if made && let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                disk.sync_directory(parent).map_err(io_error(parent, "sync"))?;
            }
        }
        Self::held(path, lock)
    }

    /// Takes hold of a log that must exist.
    pub(crate) fn open(path: &Path) -> Result<Self, OpenError> {
        let format = path.join(FORMAT);
        if !format.is_file() {
            return Err(OpenError::NotALog {
                file: format,
                what: "does not exist".into(),
            });
        }
        Self::held(path, lock(path)?)
    }

    fn held(path: &Path, lock: File) -> Result<Self, OpenError> {
        Ok(Self {
            paths: Paths(path.into()),
            log_id: read_format(path)?,
            _lock: lock,
        })
    }

    /// Gives the history another name, as a restored backup must have (G1r).
    pub(crate) fn renew_log_id(&mut self, disk: &dyn Disk) -> Result<LogId, OpenError> {
        self.log_id = new_log_id(&self.paths.0)?;
        write_format(&self.paths.0, self.log_id, disk)?;
        Ok(self.log_id)
    }

    pub(crate) fn log_id(&self) -> LogId {
        self.log_id
    }

    pub(crate) fn paths(&self) -> &Paths {
        &self.paths
    }
}

impl Paths {
    pub(crate) fn index(&self) -> PathBuf {
        self.0.join("index")
    }

    /// A file whose existence says that the index must be rebuilt; it holds the last batch that the index remembers.
    pub(crate) fn index_rebuild(&self) -> PathBuf {
        self.0.join("index.rebuild")
    }

    pub(crate) fn states(&self) -> PathBuf {
        self.0.join("states")
    }

    pub(crate) fn segments(&self) -> PathBuf {
        self.0.join(SEGMENTS)
    }

    pub(crate) fn segment(&self, number: u32) -> PathBuf {
        self.segments().join(format!("{number:010}.log"))
    }

    /// The number of the last segment; 0 where there is none. They must be there from 1 on without a gap.
    pub(crate) fn last_segment(&self) -> Result<u32, OpenError> {
        let directory = self.segments();
        let mut numbers = Vec::new();
        for entry in fs::read_dir(&directory).map_err(io_error(&directory, "list"))? {
            let name = entry.map_err(io_error(&directory, "list"))?.file_name();
            let number = name
                .to_str()
                .and_then(|name| name.strip_suffix(".log"))
                .filter(|digits| digits.len() == 10);
            // What others have left here is none of the log's.
            if let Some(number) = number.and_then(|digits| digits.parse::<u32>().ok()) {
                numbers.push(number);
            }
        }
        numbers.sort_unstable();
        for (expected, number) in (1..).zip(&numbers) {
            if expected != *number {
                return Err(OpenError::Corrupt {
                    file: self.segment(expected),
                    offset: 0,
                    what: "this segment is missing, and later ones are there".into(),
                });
            }
        }
        Ok(numbers.last().copied().unwrap_or_default())
    }
}

const FORMAT: &str = "format";
const FORMAT_NEW: &str = "format.new";
const LOCK: &str = "lock";
const SEGMENTS: &str = "segments";

/// An error of the system with what was tried.
pub(crate) fn io_error(file: &Path, doing: &'static str) -> impl FnOnce(io::Error) -> OpenError {
    let file = file.to_path_buf();
    move |source| OpenError::Io { file, doing, source }
}

/// Refuses to begin a log where somebody keeps something else. What a crash leaves of a beginning is fine.
fn refuse_foreign(path: &Path) -> Result<(), OpenError> {
    for entry in fs::read_dir(path).map_err(io_error(path, "list"))? {
        let entry = entry.map_err(io_error(path, "list"))?;
        let ours = match entry.file_name().to_str() {
            Some(LOCK | FORMAT_NEW) => true,
            Some(SEGMENTS) => fs::read_dir(entry.path())
                .map_err(io_error(path, "list"))?
                .next()
                .is_none(),
            // What file systems put into their root.
            Some("lost+found") => true,
            _ => false,
        };
        if !ours {
            let what = "stands in a directory that holds no log (there is no file `format`)".into();
            return Err(OpenError::NotALog {
                file: entry.path(),
                what,
            });
        }
    }
    Ok(())
}

fn lock(path: &Path) -> Result<File, OpenError> {
    let file = path.join(LOCK);
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&file)
        .map_err(io_error(&file, "open"))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(OpenError::Locked { directory: path.into() }),
        Err(TryLockError::Error(source)) => Err(OpenError::Io {
            file,
            doing: "lock",
            source,
        }),
    }
}

fn new_log_id(file: &Path) -> Result<LogId, OpenError> {
    let mut random = [0; 10];
    getrandom::fill(&mut random).map_err(|error| OpenError::Io {
        file: file.into(),
        doing: "draw random bytes for",
        source: io::Error::other(error),
    })?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(LogId::v7(u64::try_from(now.as_millis()).unwrap_or_default(), random))
}

fn write_format(path: &Path, log_id: LogId, disk: &dyn Disk) -> Result<(), OpenError> {
    let (new, file) = (path.join(FORMAT_NEW), path.join(FORMAT));
    let text = format!("choir log\nformat {VERSION}\nlog_id {log_id}\n");
    let text = format!("{text}crc32c {:08x}\n", crc32c::crc32c(text.as_bytes()));
    let write = || {
        if new.try_exists()? {
            disk.remove(&new)?;
        }
        let out = disk.open(&new, Access::Create)?;
        out.write_all_at(text.as_bytes(), 0)?;
        out.sync()?;
        disk.rename(&new, &file)?;
        disk.sync_directory(path)
    };
    write().map_err(io_error(&file, "write"))
}

fn read_format(path: &Path) -> Result<LogId, OpenError> {
    let file = path.join(FORMAT);
    let text = fs::read_to_string(&file).map_err(io_error(&file, "read"))?;
    let mut lines = text.lines();
    let wrong = || OpenError::NotALog {
        file: file.clone(),
        what: "is not the description of a log".into(),
    };
    if lines.next() != Some("choir log") {
        return Err(wrong());
    }
    let version: u32 = lines
        .next()
        .and_then(|line| line.strip_prefix("format "))
        .and_then(|number| number.parse().ok())
        .ok_or_else(wrong)?;
    if version > VERSION {
        return Err(OpenError::Newer {
            directory: path.into(),
            found: version,
            known: VERSION,
        });
    }
    let log_id = lines
        .next()
        .and_then(|line| line.strip_prefix("log_id "))
        .and_then(|id| id.parse().ok());
    let crc = lines
        .next()
        .and_then(|line| line.strip_prefix("crc32c "))
        .and_then(|crc| u32::from_str_radix(crc, 16).ok());
    let described = text
        .rfind("crc32c ")
        .and_then(|end| text.get(..end))
        .map(|text| crc32c::crc32c(text.as_bytes()));
    match (log_id, lines.next()) {
        (Some(log_id), None) if version == VERSION && crc.is_some() && crc == described => Ok(log_id),
        _ => Err(wrong()),
    }
}
