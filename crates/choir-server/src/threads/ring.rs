//! The newest records of an active thread, and the frames that were built of them: each once for all viewers of a class, as shared bytes.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use choir_core::record::Record;
use choir_core::view::Class;
use choir_protocol::entry::Body;
use choir_protocol::hash::Hash;
use choir_protocol::ids::Seq;

/// How many records a ring keeps, and about how many bytes of them. Who is further behind reads the log.
const MAX_RECORDS: usize = 1_024;
const MAX_BYTES: usize = 1024 * 1024;
/// How many frames are kept: those of the last few ranges, in the classes in use.
const MAX_FRAMES: usize = 24;
/// Of how many erasures a ring knows: those of the time that it takes to read a page of the log and to send it.
const MAX_ERASED: usize = 1_024;

/// What of the content a frame depends on (idea 4 of the design): the viewer's class, and whether they verify.
pub(crate) type FrameClass = (Class, bool);

/// A range that was framed for a class of viewers.
#[derive(Debug, Clone)]
pub(crate) struct SharedFrame<C = FrameClass> {
    class: C,
    pub(crate) from: Seq,
    pub(crate) to: Seq,
    /// Whether the range would have gone on but for T6.
    pub(crate) cut: bool,
    pub(crate) bytes: Bytes,
}

impl<C> SharedFrame<C> {
    pub(crate) fn new(class: C, from: Seq, to: Seq, cut: bool, bytes: Bytes) -> Self {
        Self {
            class,
            from,
            to,
            cut,
            bytes,
        }
    }
}

/// Consecutive records up to the head.
#[derive(Debug)]
pub(crate) struct Ring<C = FrameClass> {
    records: VecDeque<Arc<Record>>,
    bytes: usize,
    frames: VecDeque<SharedFrame<C>>,
    /// What was erased lately, and by which redaction: for records that were read from the log just before (L6).
    erased: VecDeque<(Seq, Seq)>,
}

impl<C> Default for Ring<C> {
    fn default() -> Self {
        Self {
            records: VecDeque::new(),
            bytes: 0,
            frames: VecDeque::new(),
            erased: VecDeque::new(),
        }
    }
}

impl<C: Copy + PartialEq> Ring<C> {
    pub(crate) fn push(&mut self, record: Arc<Record>) {
        self.bytes += weight(&record);
        self.records.push_back(record);
        while self.records.len() > MAX_RECORDS || (self.bytes > MAX_BYTES && self.records.len() > 1) {
            if let Some(oldest) = self.records.pop_front() {
                self.bytes -= weight(&oldest);
            }
        }
    }

    /// Erases a body (L6), and with it every frame that may hold it.
    pub(crate) fn erase(&mut self, seq: Seq, by: Seq) {
        if self.erased.len() >= MAX_ERASED {
            self.erased.pop_front();
        }
        self.erased.push_back((seq, by));
        self.frames.retain(|frame| !(frame.from < seq && seq <= frame.to));
        if let Some(record) = self.index(seq).and_then(|at| self.records.get_mut(at))
            && matches!(record.body, Body::Present(_))
        {
            self.bytes -= weight(record);
            let mut erased = Record::clone(record);
            erased.body = Body::Erased(by);
            *record = Arc::new(erased);
            self.bytes += weight(record);
        }
    }

    /// Puts into records from the log what was erased since they may have been read.
    pub(crate) fn erase_in(&self, records: &mut [Record]) {
        for (seq, by) in &self.erased {
            let erased = records.iter_mut().find(|record| record.seq == *seq);
            if let Some(record) = erased.filter(|record| matches!(record.body, Body::Present(_))) {
                record.body = Body::Erased(*by);
            }
        }
    }

    /// The number of the last redaction that the ring knows of.
    pub(crate) fn redacted_at(&self) -> Seq {
        self.erased.back().map_or(Seq::ZERO, |(_, by)| *by)
    }

    /// The records above `after`; none where the ring doesn't reach back that far.
    pub(crate) fn after(&self, after: Seq) -> Option<impl Iterator<Item = &Arc<Record>>> {
        let start = self.index(after.next())?;
        Some(self.records.range(start..))
    }

    /// The log's root at a number, where the ring knows it.
    pub(crate) fn root_at(&self, seq: Seq) -> Option<Hash> {
        self.index(seq)
            .and_then(|at| self.records.get(at))
            .map(|record| record.root)
    }

    /// A frame from this cursor on, for this class.
    pub(crate) fn frame(&self, class: C, from: Seq) -> Option<&SharedFrame<C>> {
        self.frames
            .iter()
            .rev()
            .find(|frame| frame.class == class && frame.from == from)
    }

    /// Keeps a frame, in place of one that reached less far.
    pub(crate) fn keep(&mut self, frame: SharedFrame<C>) {
        self.frames
            .retain(|kept| kept.class != frame.class || kept.from != frame.from);
        if self.frames.len() >= MAX_FRAMES {
            self.frames.pop_front();
        }
        self.frames.push_back(frame);
    }

    fn index(&self, seq: Seq) -> Option<usize> {
        let first = self.records.front()?.seq;
        let at = usize::try_from(seq.get().checked_sub(first.get())?).ok()?;
        (at <= self.records.len()).then_some(at)
    }
}

fn weight(record: &Record) -> usize {
    record.body.text().map_or(0, str::len) + 512
}

#[cfg(test)]
mod tests {
    use choir_log::conformance::Chain;
    use choir_protocol::entry::Kind;
    use choir_protocol::ids::ThreadId;

    use super::*;

    fn ring(count: usize) -> Ring<u8> {
        let mut chain = Chain::new(ThreadId::v7(1, [1; 10]));
        let mut kinds = vec![Kind::ThreadCreated];
        kinds.resize(count, Kind::MessagePosted);
        chain.append(&kinds);
        let mut ring = Ring::default();
        chain
            .records
            .iter()
            .for_each(|record| ring.push(Arc::new(record.clone())));
        ring
    }

    fn seq(n: u64) -> Seq {
        Seq::saturating(n)
    }

    #[test]
    fn a_ring_reaches_back_as_far_as_it_says() {
        let ring = ring(MAX_RECORDS + 10);
        let head = MAX_RECORDS as u64 + 10;
        assert!(ring.after(seq(9)).is_none());
        assert_eq!(ring.after(seq(10)).unwrap().count(), MAX_RECORDS);
        assert_eq!(ring.after(seq(head - 1)).unwrap().next().unwrap().seq, seq(head));
        assert_eq!(ring.after(seq(head)).unwrap().count(), 0);
        assert!(ring.after(seq(head + 1)).is_none());
        assert!(Ring::<u8>::default().after(Seq::ZERO).is_none());
    }

    #[test]
    fn l6_an_erased_body_is_in_no_record_and_in_no_frame() {
        let mut ring = ring(5);
        let class = 7;
        ring.keep(SharedFrame::new(class, seq(0), seq(2), false, Bytes::new()));
        ring.keep(SharedFrame::new(class, seq(2), seq(4), false, Bytes::new()));
        ring.erase(seq(3), seq(6));
        assert!(matches!(ring.after(seq(2)).unwrap().next().unwrap().body, Body::Erased(by) if by == seq(6)));
        assert!(ring.frame(class, seq(0)).is_some() && ring.frame(class, seq(2)).is_none());
        assert_eq!(ring.redacted_at(), seq(6));
    }
}
