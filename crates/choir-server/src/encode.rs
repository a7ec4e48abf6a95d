//! What is written by hand: envelopes and ranges (L8), straight from the log's records. A body's canonical text goes out as it was stored, never parsed.

use std::borrow::Borrow;
use std::fmt::Write;

use choir_core::record::Record;
use choir_protocol::canonical::write_string;
use choir_protocol::entry::{Body, Kind, Proof};
use choir_protocol::hash::Hash;
use choir_protocol::ids::{Id, Seq, ThreadId, Timestamp};
use choir_protocol::merkle::Peaks;

/// The longest message, unless one entry alone is longer (T6).
pub(crate) const MAX_FRAME_BYTES: usize = 64 * 1024;
/// What an envelope and a range need beside entries, so that the whole stays within T6.
pub(crate) const ENVELOPE_BYTES: usize = 512;
/// What the peaks of the longest log take: one for each bit of its number, in quotes, with a comma.
pub(crate) const MAX_PEAKS_BYTES: usize = 64 * 67;

/// The envelope of a server's message around a payload's text.
pub(crate) fn envelope(
    id: Id,
    type_name: &str,
    timestamp: Timestamp,
    thread_id: Option<ThreadId>,
    reply_to: Option<Id>,
    payload: &str,
) -> String {
    let mut text = String::with_capacity(payload.len() + 256);
    // Writing into a String can't fail.
    let _ = write!(
        text,
        "{{\"id\":\"{id}\",\"type\":\"{type_name}\",\"timestamp\":{timestamp}"
    );
    if let Some(thread_id) = thread_id {
        let _ = write!(text, ",\"thread_id\":\"{thread_id}\"");
    }
    if let Some(reply_to) = reply_to {
        let _ = write!(text, ",\"reply_to\":\"{reply_to}\"");
    }
    text.push_str(",\"payload\":");
    text.push_str(payload);
    text.push('}');
    text
}

/// A range in the making: entry after entry, as far as there is room.
#[derive(Debug)]
pub(crate) struct RangeWriter {
    from: Seq,
    to: Seq,
    root: Option<Hash>,
    entries: String,
    hidden: String,
    verify: bool,
    room: usize,
    shown: usize,
}

impl RangeWriter {
    /// A range from here on, with room for about so many bytes.
    pub(crate) fn new(from: Seq, verify: bool, room: usize) -> Self {
        Self {
            from,
            to: from,
            root: None,
            entries: String::new(),
            hidden: String::new(),
            verify,
            room,
            shown: 0,
        }
    }

    /// Takes the next record, shown or hidden. False where there is no room for it, and it isn't the first.
    pub(crate) fn push(&mut self, record: &Record, shown: bool) -> bool {
        let (entries, hidden) = (self.entries.len(), self.hidden.len());
        if shown {
            if entries > 0 {
                self.entries.push(',');
            }
            write_entry(record, self.verify, &mut self.entries);
        } else if self.verify {
            if hidden > 0 {
                self.hidden.push(',');
            }
            let _ = write!(
                self.hidden,
                "[{},\"{}\",\"{}\"]",
                record.seq,
                record.stream().as_str(),
                record.inner()
            );
        }
        if self.to > self.from && self.entries.len() + self.hidden.len() > self.room {
            self.entries.truncate(entries);
            self.hidden.truncate(hidden);
            return false;
        }
        self.to = record.seq;
        self.root = Some(record.root);
        self.shown += usize::from(shown);
        true
    }

    /// Takes as many as there is room for; false where some were left.
    pub(crate) fn extend<R: Borrow<Record>>(
        &mut self,
        records: impl IntoIterator<Item = R>,
        sees: impl Fn(&Record) -> bool,
    ) -> bool {
        records.into_iter().all(|record| {
            let record = record.borrow();
            self.push(record, sees(record))
        })
    }

    /// The number that the range reaches.
    pub(crate) const fn to(&self) -> Seq {
        self.to
    }

    /// How many entries it shows.
    pub(crate) const fn shown(&self) -> usize {
        self.shown
    }

    /// The payload. `root` is the log's at `from`, for a range that took nothing.
    pub(crate) fn finish(self, root: Hash, peaks: Option<&Peaks>) -> String {
        let Self {
            from,
            to,
            root: last,
            entries,
            hidden,
            verify,
            ..
        } = self;
        let mut text = String::with_capacity(entries.len() + hidden.len() + 256);
        let _ = write!(
            text,
            "{{\"from\":{from},\"to\":{to},\"root\":\"{}\",\"entries\":[{entries}]",
            last.unwrap_or(root)
        );
        if verify {
            let _ = write!(text, ",\"hidden\":[{hidden}]");
        }
        if let Some(peaks) = peaks.filter(|_| verify) {
            text.push_str(",\"peaks\":[");
            for (at, peak) in peaks.as_slice().iter().enumerate() {
                let comma = if at > 0 { "," } else { "" };
                let _ = write!(text, "{comma}\"{peak}\"");
            }
            text.push(']');
        }
        text.push('}');
        text
    }
}

/// An entry as a viewer gets it: with hash and proof for those who verify, else without, but for the hash on what decisions are bound to (L5).
pub(crate) fn write_entry(record: &Record, verify: bool, out: &mut String) {
    let _ = write!(out, "{{\"seq\":{},\"id\":\"{}\",\"kind\":", record.seq, record.id);
    write_string(record.kind.as_str(), out);
    out.push_str(",\"author\":");
    write_string(record.author.as_str(), out);
    let _ = write!(out, ",\"timestamp\":{}", record.timestamp);
    match &record.body {
        Body::Present(body) => {
            out.push_str(",\"body\":");
            out.push_str(body.as_str());
        }
        Body::Erased(by) => {
            let _ = write!(out, ",\"erased\":{by}");
        }
    }
    if verify || matches!(record.kind, Kind::SpecSubmitted | Kind::SpecRevised) {
        let _ = write!(out, ",\"content_hash\":\"{}\"", record.content_hash);
    }
    if let Some(proof) = record.proof.as_ref().filter(|_| verify) {
        write_proof(proof, out);
    }
    out.push('}');
}

fn write_proof(proof: &Proof, out: &mut String) {
    let Proof {
        sent_at,
        seen,
        key,
        sig,
        audience,
        id,
        action_type,
    } = proof;
    let _ = write!(out, ",\"proof\":{{\"sent_at\":{sent_at}");
    if let Some(seen) = seen {
        let _ = write!(out, ",\"seen\":[{},\"{}\"]", seen.seq, seen.root);
    }
    if let Some(key) = key {
        let _ = write!(out, ",\"key\":\"{key}\"");
    }
    let _ = write!(out, ",\"sig\":\"{sig}\"");
    if let Some(audience) = audience {
        // An origin holds nothing that JSON would escape.
        let _ = write!(out, ",\"audience\":\"{audience}\"");
    }
    if let Some(id) = id {
        let _ = write!(out, ",\"id\":\"{id}\"");
    }
    if let Some(action_type) = action_type {
        out.push_str(",\"type\":");
        write_string(action_type, out);
    }
    out.push('}');
}

#[cfg(test)]
mod tests {
    use choir_log::conformance::Chain;
    use choir_protocol::message::{FromServer, ServerMessage};
    use choir_protocol::range::{Hidden, Range};

    use super::*;

    fn sample() -> (ThreadId, Vec<Record>) {
        let thread = ThreadId::v7(1, [7; 10]);
        let mut chain = Chain::new(thread);
        let kinds: Vec<Kind> = Kind::KNOWN.iter().chain(&Kind::KNOWN[1..]).cloned().collect();
        chain.append(&kinds);
        let mut records = chain.records.clone();
        records[3].body = Body::Erased(Seq::saturating(9));
        records[5].author = "issuer:\"quoted\" \\ näme".parse().unwrap();
        (thread, records)
    }

    /// The same range as the typed form has it.
    fn typed(
        records: &[Record],
        from: Seq,
        sees: impl Fn(&Record) -> bool,
        verify: bool,
        peaks: Option<&Peaks>,
    ) -> Range {
        let last = records.last().unwrap();
        let (shown, hidden): (Vec<_>, Vec<_>) = records.iter().partition(|record| sees(record));
        Range {
            from,
            to: last.seq,
            root: last.root,
            entries: shown.into_iter().map(|record| record.to_entry(verify)).collect(),
            hidden: verify.then(|| {
                hidden
                    .into_iter()
                    .map(|record| Hidden(record.seq, record.stream(), record.inner()))
                    .collect()
            }),
            peaks: peaks.map(|peaks| peaks.as_slice().to_vec()),
        }
    }

    #[test]
    fn l8_a_range_written_by_hand_reads_as_the_typed_one() {
        let (thread, records) = sample();
        for verify in [false, true] {
            for from in 0..records.len() {
                let sees = |record: &Record| !matches!(record.kind, Kind::SpecRevised | Kind::ApprovalGiven);
                let mut peaks = Peaks::new();
                records[..from].iter().for_each(|record| {
                    peaks.push(record.leaf(thread));
                });
                let peaks = (verify && from % 2 == 0).then_some(&peaks);
                let from = Seq::saturating(from as u64);
                let rest = &records[from.get() as usize..];
                let mut writer = RangeWriter::new(from, verify, usize::MAX);
                assert!(writer.extend(rest, sees));
                let payload = writer.finish(Hash::EMPTY, peaks);
                let id = Id::v7(3, [1; 10]);
                let text = envelope(
                    id,
                    "state.thread_update",
                    Timestamp::saturating(5),
                    Some(thread),
                    None,
                    &payload,
                );
                let message = ServerMessage::ThreadUpdate(typed(rest, from, sees, verify, peaks));
                let expected = FromServer {
                    id,
                    timestamp: Timestamp::saturating(5),
                    thread_id: Some(thread),
                    reply_to: None,
                    message,
                };
                // Both texts are read by the same door: without hashes it computes those of bodies itself.
                assert_eq!(FromServer::read(&text), FromServer::read(&expected.to_text()));
            }
        }
    }

    #[test]
    fn t6_a_range_is_cut_where_the_room_ends_but_holds_at_least_one() {
        let (_, records) = sample();
        let mut writer = RangeWriter::new(Seq::ZERO, true, 1);
        assert!(!writer.extend(&records, |_| true));
        assert_eq!((writer.to().get(), writer.shown()), (1, 1));
        let mut writer = RangeWriter::new(Seq::ZERO, true, 4096);
        assert!(!writer.extend(&records, |record| record.seq.get() % 2 == 0));
        let to = writer.to();
        let text = writer.finish(Hash::EMPTY, None);
        assert!(text.len() < 4096 + 256 && to.get() > 2);
        assert!(text.contains(&format!(
            "\"to\":{to},\"root\":\"{}\"",
            records[to.get() as usize - 1].root
        )));
    }

    #[test]
    fn an_empty_range_bears_the_root_of_its_place() {
        let text = RangeWriter::new(Seq::saturating(4), false, 10).finish(Hash::EMPTY, None);
        assert_eq!(
            text,
            format!("{{\"from\":4,\"to\":4,\"root\":\"{}\",\"entries\":[]}}", Hash::EMPTY)
        );
    }
}
