//! The one thread that takes up into the index what has become durable, off the way of receipts; and that overwrites what was erased.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use choir_protocol::ids::{Seq, ThreadId};

use super::index::{Change, Committed, Index, IndexError, Location};
use super::reader::Segments;
use super::shared::{Shared, Work};
use super::states::States;
use crate::ReadError;

/// Runs until nothing more will be published, then closes the log.
pub(crate) fn run(shared: &Arc<Shared>) {
    let _end = IndexerEnd(shared);
    loop {
        match shared.next_work() {
            Work::Nothing => break,
            Work::Save(thread, seq, state) => save(shared, thread, seq, &state),
            Work::Index(committed) => {
                if let Err(error) = take_up(shared, &committed) {
                    let reason = format!("the index could not take up what was appended: {error}");
                    shared.latch(&reason);
                    shared.stuck(&reason);
                    break;
                }
                shared.indexed(committed.len());
            }
        }
    }
    // Even where it got stuck, the log must not be closed under the writer.
    shared.wait_for_end();
    if let Err(ReadError::Index { reason }) = shared.with_index(|index| Ok(index.settle()?)) {
        tracing::warn!(
            reason,
            "the index could not be written out; the next start takes longer"
        );
    }
}

/// What must happen when the indexer ends, also by a panic.
struct IndexerEnd<'a>(&'a Arc<Shared>);

impl Drop for IndexerEnd<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let reason = "the indexer failed by a bug: please report it";
            self.0.latch(reason);
            self.0.stuck(reason);
        }
        self.0.finish();
    }
}

fn take_up(shared: &Shared, committed: &[Arc<Committed>]) -> Result<(), ReadError> {
    shared.with_index(|index| {
        let synced = erase(&shared.segments, &shared.states, index, committed, false)?;
        shared.counters.fsyncs.fetch_add(synced, Ordering::Relaxed);
        Ok(index.take_up(committed)?)
    })
}

/// Overwrites the bodies that these batches erase (L6), and makes that durable: once the index has taken them up, nobody would do it again. `once_more`: also
/// those that read as zero, since after a failed fsync that may be true of the system's memory only. Returns how many fsyncs that took.
pub(crate) fn erase(
    segments: &Segments,
    states: &States,
    index: &Index,
    committed: &[Arc<Committed>],
    once_more: bool,
) -> Result<u64, ReadError> {
    // Where entries stand that these batches bring themselves; only looked up where something is erased.
    let mut own: Option<HashMap<(ThreadId, Seq), Location>> = None;
    let mut touched = BTreeSet::new();
    for facts in appends(committed)
        .map(|(_, facts)| facts)
        .filter(|facts| !facts.erase.is_empty())
    {
        let own = own.get_or_insert_with(|| {
            appends(committed)
                .flat_map(|(records, facts)| {
                    records
                        .iter()
                        .map(|(record, location)| ((facts.thread, record.seq), *location))
                })
                .collect()
        });
        for (erased, _) in &facts.erase {
            let location = match own.get(&(facts.thread, *erased)) {
                Some(location) => *location,
                None => match index.entry(facts.thread, *erased)? {
                    Some(row) => row.location,
                    None => {
                        return Err(IndexError(format!(
                            "entry {erased} of thread {} is erased and missing",
                            facts.thread
                        ))
                        .into());
                    }
                },
            };
            match segments.erase(facts.thread, *erased, location, once_more) {
                Ok(true) => {
                    touched.insert(location.segment);
                }
                Ok(false) => {}
                // Its place can't be trusted, so that nothing is overwritten. Nobody is served it.
                Err(error @ ReadError::Damaged { .. }) => {
                    tracing::error!(%error, "a redacted body could not be overwritten")
                }
                Err(error) => return Err(error),
            }
        }
        // It may hold what was erased.
        states.remove(facts.thread)?;
    }
    for segment in &touched {
        segments.sync(*segment)?;
    }
    Ok(touched.len() as u64)
}

fn appends(
    committed: &[Arc<Committed>],
) -> impl Iterator<
    Item = (
        &Vec<(Arc<choir_core::record::Record>, Location)>,
        &super::format::StoredFacts,
    ),
> {
    committed
        .iter()
        .flat_map(|committed| &committed.changes)
        .filter_map(|change| match change {
            Change::Append { records, facts } => Some((records, facts)),
            Change::Put { .. } => None,
        })
}

/// Keeps a state, where it is one of an entry that stands, and not older than a redaction. Everything that was published before is indexed by now.
fn save(shared: &Shared, thread: ThreadId, seq: Seq, state: &[u8]) {
    let fresh = || -> Result<_, ReadError> {
        let Some(head) = shared.with_index(|index| Ok(index.head(thread)?))? else {
            return Ok(None);
        };
        if seq < head.last_redaction || seq > head.head.cursor.seq {
            return Ok(None);
        }
        if shared
            .states
            .load(thread)
            .is_some_and(|(kept, _, _)| kept > seq && kept <= head.head.cursor.seq)
        {
            return Ok(None);
        }
        Ok(shared.entry(thread, seq)?.map(|record| record.root))
    };
    match fresh() {
        Ok(Some(root)) => {
            if let Err(error) = shared.states.save(thread, seq, &root, state) {
                tracing::debug!(%error, "a state could not be kept");
            }
        }
        Ok(None) => {}
        Err(error) => tracing::debug!(%error, "a state could not be kept"),
    }
}
