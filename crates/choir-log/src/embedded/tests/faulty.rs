//! A disk on which one call fails, or whose fsyncs wait.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use crate::embedded::disk::{Access, Disk, DiskFile, SystemDisk};

/// How a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// It does nothing. A failed fsync also loses what was written since the last one, as the page cache may.
    Error,
    /// A write does half of its work.
    Half,
    /// Everything is done, and yet an error comes back.
    Late,
    /// As `Half`, since the disk is full.
    Full,
}

/// Places in a file and what stood there, oldest first.
type Ranges = Vec<(u64, Vec<u8>)>;

/// Fails the n-th call that changes anything, and no other.
#[derive(Debug, Clone)]
pub(super) struct FaultyDisk {
    calls: Arc<AtomicU64>,
    fails_at: u64,
    fault: Fault,
    /// What the disk held, of the ranges that were written and not yet made durable, for each file.
    unsynced: Arc<Mutex<BTreeMap<PathBuf, Ranges>>>,
}

impl FaultyDisk {
    pub(super) fn new(fails_at: u64, fault: Fault) -> Self {
        Self {
            calls: Arc::default(),
            fails_at,
            fault,
            unsynced: Arc::default(),
        }
    }

    /// Whether the call that fails has been made.
    pub(super) fn has_failed(&self) -> bool {
        self.calls.load(Ordering::SeqCst) >= self.fails_at
    }

    fn counted(&self) -> Option<Fault> {
        (self.calls.fetch_add(1, Ordering::SeqCst) + 1 == self.fails_at).then_some(self.fault)
    }

    fn call(&self, work: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        match self.counted() {
            None => work(),
            Some(Fault::Late) => work().and(Err(error(Fault::Late))),
            Some(fault) => Err(error(fault)),
        }
    }
}

fn error(fault: Fault) -> io::Error {
    if fault == Fault::Full {
        io::ErrorKind::StorageFull.into()
    } else {
        io::Error::other("injected")
    }
}

impl Disk for FaultyDisk {
    fn open(&self, path: &Path, access: Access) -> io::Result<Box<dyn DiskFile>> {
        if access == Access::Create {
            match self.counted() {
                Some(Fault::Late) => {
                    SystemDisk.open(path, access)?;
                    return Err(error(Fault::Late));
                }
                Some(fault) => return Err(error(fault)),
                None => {}
            }
        }
        Ok(Box::new(FaultyFile {
            file: SystemDisk.open(path, access)?,
            path: path.into(),
            disk: self.clone(),
        }))
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        self.call(|| SystemDisk.sync_directory(path))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.call(|| SystemDisk.rename(from, to))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.call(|| SystemDisk.remove(path))
    }
}

#[derive(Debug)]
struct FaultyFile {
    file: Box<dyn DiskFile>,
    path: PathBuf,
    disk: FaultyDisk,
}

impl FaultyFile {
    fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let end = self.file.length()?;
        let mut before = vec![0; bytes.len()];
        let there = usize::try_from(end.saturating_sub(offset)).unwrap().min(bytes.len());
        self.file.read_exact_at(&mut before[..there], offset)?;
        self.disk
            .unsynced
            .lock()
            .unwrap()
            .entry(self.path.clone())
            .or_default()
            .push((offset, before));
        self.file.write_all_at(bytes, offset)
    }
}

impl DiskFile for FaultyFile {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        match self.disk.counted() {
            None => self.write(bytes, offset),
            Some(Fault::Error) => Err(error(Fault::Error)),
            Some(Fault::Late) => self.write(bytes, offset).and(Err(error(Fault::Late))),
            Some(fault) => self.write(&bytes[..bytes.len() / 2], offset).and(Err(error(fault))),
        }
    }

    fn sync(&self) -> io::Result<()> {
        let unsynced = |disk: &FaultyDisk| disk.unsynced.lock().unwrap().remove(&self.path).unwrap_or_default();
        match self.disk.counted() {
            None => {
                unsynced(&self.disk);
                self.file.sync()
            }
            Some(fault @ (Fault::Late | Fault::Full)) => self.file.sync().and(Err(error(fault))),
            Some(fault) => {
                for (offset, before) in unsynced(&self.disk).into_iter().rev() {
                    self.file.write_all_at(&before, offset)?;
                }
                Err(error(fault))
            }
        }
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        self.disk.call(|| self.file.truncate(length))
    }

    fn length(&self) -> io::Result<u64> {
        self.file.length()
    }
}

/// A disk whose fsyncs wait while its gate is shut, and fail where it is broken.
#[derive(Debug, Clone, Default)]
pub(super) struct GatedDisk(Arc<(Mutex<Gate>, Condvar)>);

#[derive(Debug, Default)]
struct Gate {
    shut: bool,
    only_index: bool,
    broken: bool,
    waiting: u64,
}

impl GatedDisk {
    pub(super) fn shut(&self) {
        self.0.0.lock().unwrap().shut = true;
    }

    /// Shuts the gate for the indexer's fsyncs only, which it makes durable with what was erased: until it is open again, nothing is indexed.
    pub(super) fn shut_for_the_index(&self) {
        let mut gate = self.0.0.lock().unwrap();
        (gate.shut, gate.only_index) = (true, true);
    }

    pub(super) fn open(&self) {
        self.0.0.lock().unwrap().shut = false;
        self.0.1.notify_all();
    }

    /// Lets all fsyncs fail, those that wait too.
    pub(super) fn break_down(&self) {
        self.0.0.lock().unwrap().broken = true;
        self.open();
    }

    /// Waits until an fsync waits.
    pub(super) fn until_one_waits(&self) {
        let mut gate = self.0.0.lock().unwrap();
        while gate.waiting == 0 {
            gate = self.0.1.wait(gate).unwrap();
        }
    }

    fn pass(&self) -> io::Result<()> {
        let mut gate = self.0.0.lock().unwrap();
        if gate.only_index && std::thread::current().name() != Some("log-index") {
            return Ok(());
        }
        gate.waiting += 1;
        self.0.1.notify_all();
        while gate.shut {
            gate = self.0.1.wait(gate).unwrap();
        }
        gate.waiting -= 1;
        if gate.broken {
            Err(io::Error::other("injected"))
        } else {
            Ok(())
        }
    }
}

impl Disk for GatedDisk {
    fn open(&self, path: &Path, access: Access) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(GatedFile {
            file: SystemDisk.open(path, access)?,
            disk: self.clone(),
        }))
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        SystemDisk.sync_directory(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        SystemDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        SystemDisk.remove(path)
    }
}

#[derive(Debug)]
struct GatedFile {
    file: Box<dyn DiskFile>,
    disk: GatedDisk,
}

impl DiskFile for GatedFile {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.pass()?;
        self.file.sync()
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        self.file.truncate(length)
    }

    fn length(&self) -> io::Result<u64> {
        self.file.length()
    }
}
