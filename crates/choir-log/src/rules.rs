//! What every engine demands of an append, whatever it stores it in: the core's own promises, checked once more before they become durable.

use std::collections::BTreeMap;

use choir_core::record::{Facts, Record};
use choir_protocol::entry::{Body, Kind};
use choir_protocol::ids::{Cursor, Seq};

use crate::{AppendError, Head, MAX_KEY_BYTES, MAX_VALUE_BYTES};

/// Whether the append follows on `head` and is whole in itself (G1, L3, L6, L7). What only a look into the log can tell is left to the engine: whether an
/// (id, kind) stands in it already.
pub(crate) fn check_append(
    head: Option<&Head>,
    expected: Seq,
    records: &[Record],
    facts: &Facts,
) -> Result<(), AppendError> {
    let at = head.map_or(Cursor::START, |head| head.cursor);
    if at.seq != expected {
        return Err(AppendError::Conflict { head: at });
    }
    let refused = |why: String| Err(AppendError::Refused { why });
    let Some(last) = records.last().map(|record| record.seq) else {
        return refused("an append without entries".into());
    };
    let mut seen = BTreeMap::new();
    let mut previous = (
        expected,
        head.map_or(0, |head| head.messages),
        head.map(|head| head.timestamp).unwrap_or_default(),
    );
    for record in records {
        let (seq, messages, timestamp) = previous;
        if record.seq != seq.next() || record.seq == seq {
            return refused(format!("entry {} does not follow on entry {seq}", record.seq));
        }
        if record.nodes.len() != record.seq.get().trailing_zeros() as usize + 1 {
            return refused(format!(
                "entry {} has {} nodes of the tree, which its number does not fit",
                record.seq,
                record.nodes.len()
            ));
        }
        if record.messages != messages + u64::from(record.kind == Kind::MessagePosted) {
            return refused(format!(
                "entry {} counts {} messages after {messages}",
                record.seq, record.messages
            ));
        }
        if record.timestamp < timestamp {
            return refused(format!(
                "the time of entry {} is before that of the one before it",
                record.seq
            ));
        }
        if matches!(record.body, Body::Erased(_)) && !facts.erase.iter().any(|(erased, _)| *erased == record.seq) {
            return refused(format!("entry {} comes without its body", record.seq));
        }
        if let Some(earlier) = seen.insert((record.id, &record.kind), record.seq) {
            return Err(AppendError::Taken { seq: earlier });
        }
        previous = (record.seq, record.messages, record.timestamp);
    }
    for (erased, by) in &facts.erase {
        if *by <= expected || *by > last || erased.get() == 0 || *erased > last {
            return refused(format!(
                "the erasure of entry {erased} by entry {by} is not one of this append"
            ));
        }
    }
    Ok(())
}

/// Whether a record beside the threads is of a size that is kept.
pub(crate) fn check_put(key: &[u8], value: &[u8]) -> Result<(), AppendError> {
    let refused = |what: &str, bytes: usize, most: usize| {
        Err(AppendError::Refused {
            why: format!("a {what} of {bytes} bytes is above {most}"),
        })
    };
    if key.len() > MAX_KEY_BYTES {
        return refused("key", key.len(), MAX_KEY_BYTES);
    }
    if value.len() > MAX_VALUE_BYTES {
        return refused("value", value.len(), MAX_VALUE_BYTES);
    }
    Ok(())
}
