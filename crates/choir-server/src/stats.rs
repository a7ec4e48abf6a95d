//! What a server counts, and what it says of itself at its end.

use std::sync::atomic::{AtomicU64, Ordering};

use choir_log::Stats;

/// Counters of a running server. They order nothing, so that relaxed access is enough.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) connections: Counter,
    pub(crate) connected: Counter,
    pub(crate) actions: Counter,
    pub(crate) receipts: Counter,
    pub(crate) refusals: Counter,
    pub(crate) checks_equal: Counter,
    pub(crate) checks_different: Counter,
    pub(crate) frames_built: Counter,
    pub(crate) frames_shared: Counter,
}

#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn subtract(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What a server did until it ended.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Report {
    /// WebSocket connections that were served.
    pub connections: u64,
    /// Signed actions that were taken up.
    pub actions: u64,
    /// Receipts that were sent, `duplicate` ones included.
    pub receipts: u64,
    /// Actions that were refused.
    pub refusals: u64,
    /// Acknowledged roots that were the log's (Y9).
    pub sync_checks_equal: u64,
    /// Acknowledged roots that weren't.
    pub sync_checks_different: u64,
    /// What the log did.
    pub log: Stats,
    /// Whether every connection and every thread ended by itself within the time for it.
    pub orderly: bool,
}

impl Report {
    /// How many fsyncs 1,000 appended entries took; none before the first entry.
    pub fn fsyncs_per_1000_entries(&self) -> Option<f64> {
        self.log.fsyncs_per_1000_entries()
    }
}

impl Counters {
    pub(crate) fn report(&self, log: Stats, orderly: bool) -> Report {
        Report {
            connections: self.connections.get(),
            actions: self.actions.get(),
            receipts: self.receipts.get(),
            refusals: self.refusals.get(),
            sync_checks_equal: self.checks_equal.get(),
            sync_checks_different: self.checks_different.get(),
            log,
            orderly,
        }
    }
}
