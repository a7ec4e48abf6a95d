//! Ranges (L8): that any way of cutting and hiding a log leads to the same cursor, and that nothing
//! can be changed in one without notice.
#![allow(clippy::unwrap_used, reason = "what can't be unwrapped fails the test")]

use choir_protocol::canonical::Canonical;
use choir_protocol::entry::{Body, Entry, Kind, Proof, entry_leaf};
use choir_protocol::hash::Hash;
use choir_protocol::ids::{Cursor, Id, Seq, ThreadId, Timestamp, UserId};
use choir_protocol::key::Signature;
use choir_protocol::merkle::Peaks;
use choir_protocol::object;
use choir_protocol::range::{Hidden, Range, RangeError};
use choir_protocol::thread::Stream;
use proptest::prelude::*;
use proptest::sample::Index;

mod naive;

fn thread_id() -> ThreadId {
    ThreadId::from_bytes([7; 16])
}

fn seq(n: usize) -> Seq {
    Seq::new(n as u64).unwrap()
}

/// A log of made entries, and which of them the viewer sees.
#[derive(Debug)]
struct Log {
    entries: Vec<Entry>,
    seen: Vec<bool>,
    leaves: Vec<Hash>,
}

/// What an entry is made of: its kind, its random part, whether it is derived, erased, seen by the viewer.
type Draft = (usize, u64, bool, bool, bool);

impl Log {
    fn new(drafts: Vec<Draft>) -> Log {
        let mut log = Log {
            entries: vec![],
            seen: vec![],
            leaves: vec![],
        };
        for (kind, random, is_derived, is_erased, is_seen) in drafts {
            let number = log.entries.len() + 1;
            let kind = match Kind::KNOWN.get(kind) {
                Some(kind) => kind.clone(),
                None => Kind::Other("of_a_later_version".into()),
            };
            let body = Canonical::of_object(&object! { "x": random.to_string() });
            let mut bytes = [0; 64];
            bytes[..8].copy_from_slice(&random.to_le_bytes());
            let proof = Proof {
                sent_at: Timestamp::saturating(random >> 12),
                seen: (random % 2 == 0).then_some(Cursor::START),
                key: None,
                sig: Signature::from_bytes(bytes),
                audience: None,
                id: None,
                action_type: None,
            };
            let entry = Entry {
                seq: seq(number),
                id: Id::from_bytes([number as u8; 16]),
                stream: kind.stream().unwrap_or(Stream::Approvals),
                kind,
                author: if is_derived {
                    UserId::choir()
                } else {
                    "people:anna".parse().unwrap()
                },
                timestamp: Timestamp::saturating(number as u64),
                content_hash: Some(body.hash()),
                body: if is_erased {
                    Body::Erased(seq(41))
                } else {
                    Body::Present(body)
                },
                proof: (!is_derived).then_some(proof),
            };
            let leaf = entry_leaf(thread_id(), entry.seq, entry.stream, &entry.inner().unwrap());
            log.leaves.push(leaf);
            log.entries.push(entry);
            log.seen.push(is_seen);
        }
        log
    }

    fn peaks(&self, at: usize) -> Peaks {
        let mut peaks = Peaks::new();
        for leaf in &self.leaves[..at] {
            peaks.push(*leaf);
        }
        peaks
    }

    fn range(&self, from: usize, to: usize) -> Range {
        let part = || self.entries[from..to].iter().zip(&self.seen[from..to]);
        let hidden = part().filter(|(_, seen)| !**seen).map(|(entry, _)| hide(entry));
        Range {
            from: seq(from),
            to: seq(to),
            root: naive::root(&self.leaves[..to]),
            entries: part()
                .filter(|(_, seen)| **seen)
                .map(|(entry, _)| entry.clone())
                .collect(),
            hidden: Some(hidden.collect()),
            peaks: Some(self.peaks(from).as_slice().to_vec()),
        }
    }
}

fn hide(entry: &Entry) -> Hidden {
    Hidden(entry.seq, entry.stream, entry.inner().unwrap())
}

fn logs(least: usize) -> impl Strategy<Value = Log> {
    let draft = (
        0..=Kind::KNOWN.len(),
        any::<u64>(),
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
    );
    prop::collection::vec(draft, least..=40).prop_map(Log::new)
}

/// One thing changed in a range that begins at its cursor. None where there is nothing of the sort to change.
fn mutated(log: &Log, range: &Range, which: usize, at: Index) -> Option<Range> {
    let mut bad = range.clone();
    let hidden = bad.hidden.as_mut().unwrap();
    let flip = |hash: Hash| {
        let mut bytes = *hash.as_bytes();
        bytes[at.index(32)] ^= 1 << at.index(8);
        Hash::from_bytes(bytes)
    };
    let other = |stream: Stream| match stream {
        Stream::Updates => Stream::Specs,
        Stream::Specs => Stream::Approvals,
        Stream::Approvals => Stream::Updates,
    };
    let pick = |len: usize| (len > 0).then(|| at.index(len));
    match which {
        0 => bad.root = flip(bad.root),
        1 => drop(bad.entries.remove(pick(bad.entries.len())?)),
        2 => drop(hidden.remove(pick(hidden.len())?)),
        3 => {
            let first = pick(bad.entries.len().saturating_sub(1))?;
            bad.entries.swap(first, first + 1);
        }
        4 => {
            let first = pick(hidden.len().saturating_sub(1))?;
            hidden.swap(first, first + 1);
        }
        5 => {
            // In each other's place, and renumbered.
            let first = pick(hidden.len().saturating_sub(1))?;
            let (a, b) = (hidden[first], hidden[first + 1]);
            hidden[first] = Hidden(a.0, b.1, b.2);
            hidden[first + 1] = Hidden(b.0, a.1, a.2);
        }
        6 => {
            let entry = bad.entries.get(pick(bad.entries.len())?)?.clone();
            let place = hidden.partition_point(|hidden| hidden.0 < entry.seq);
            hidden.insert(place, hide(&entry));
        }
        7 => {
            let at = pick(bad.entries.len())?;
            bad.entries.insert(at, bad.entries[at].clone());
        }
        8 => {
            let at = pick(hidden.len())?;
            hidden[at].1 = other(hidden[at].1);
        }
        9 => {
            let at = pick(hidden.len())?;
            hidden[at].2 = flip(hidden[at].2);
        }
        10 => bad.hidden = (!hidden.is_empty()).then_some(None)?,
        11 => bad.from = bad.from.next(),
        12 => bad.to = bad.to.next(),
        13 => bad.to = (bad.to > bad.from).then(|| bad.to.previous())?,
        14 => {
            let at = pick(bad.peaks.as_ref()?.len())?;
            let peaks = bad.peaks.as_mut()?;
            peaks[at] = flip(peaks[at]);
        }
        15 => bad.peaks.as_mut()?.push(Hash::EMPTY),
        16 => {
            let next = log.entries.get(bad.to.get() as usize)?;
            bad.entries.push(next.clone());
        }
        _ => {
            let index = pick(bad.entries.len())?;
            let entry = bad.entries.get_mut(index)?;
            match which {
                17 => entry.seq = entry.seq.next(),
                18 => entry.id = Id::from_bytes([0xff; 16]),
                19 => entry.kind = Kind::Other("changed".into()),
                20 => entry.stream = other(entry.stream),
                21 => entry.author = "people:eve".parse().unwrap(),
                22 => entry.timestamp = entry.timestamp.plus_ms(1),
                23 => {
                    entry.body.text()?;
                    entry.body = Body::Present(Canonical::of_object(&object! { "x": "changed" }));
                }
                24 => entry.content_hash = entry.content_hash.map(flip),
                25 => entry.content_hash = None,
                26 => entry.proof = entry.proof.is_some().then_some(None)?,
                _ => {
                    let proof = entry.proof.as_mut()?;
                    match which {
                        27 => proof.sent_at = proof.sent_at.plus_ms(1),
                        28 => {
                            proof.seen = match proof.seen {
                                Some(_) => None,
                                None => Some(Cursor::START),
                            }
                        }
                        29 => proof.seen.as_mut()?.root = Hash::of(b"changed"),
                        _ => {
                            let mut bytes = *proof.sig.as_bytes();
                            bytes[at.index(64)] ^= 1;
                            proof.sig = Signature::from_bytes(bytes);
                        }
                    }
                }
            }
        }
    }
    Some(bad)
}

/// How many ways [`mutated`] knows.
const WAYS: usize = 31;

fn verify_page(range: &Range) -> Result<(Peaks, Vec<(Seq, Hash)>), RangeError> {
    range.verify(thread_id(), &range.peaks_at_from()?)
}

proptest! {
    #[test]
    fn y6_any_cut_into_overlapping_ranges_ends_at_the_same_cursor(
        log in logs(0), cuts in prop::collection::vec((any::<Index>(), any::<Index>()), 0..6),
    ) {
        let head = log.entries.len();
        let mut cursor = Peaks::new();
        let mut leaves = vec![];
        for (from, to) in cuts {
            // Anywhere at or before the cursor, and to anywhere: also to what is old.
            let from = from.index(cursor.size() as usize + 1);
            let range = log.range(from, from + to.index(head - from + 1));
            let (next, more) = range.verify(thread_id(), &cursor).unwrap();
            prop_assert_eq!(next.size(), cursor.size().max(range.to.get()));
            cursor = next;
            leaves.extend(more);
        }
        let last = log.range(cursor.size() as usize, head);
        let (cursor, more) = last.verify(thread_id(), &cursor).unwrap();
        leaves.extend(more);
        prop_assert_eq!(cursor.size(), head as u64);
        prop_assert_eq!(cursor.root(), naive::root(&log.leaves));
        prop_assert_eq!(&cursor, &log.peaks(head));
        let expected: Vec<(Seq, Hash)> = (1..).map(seq).zip(log.leaves).collect();
        prop_assert_eq!(leaves, expected);
    }

    #[test]
    fn y6_a_range_above_the_cursor_is_a_gap(log in logs(1), cursor in any::<Index>(), from in any::<Index>()) {
        let head = log.entries.len();
        let cursor = cursor.index(head);
        let from = cursor + 1 + from.index(head - cursor);
        prop_assert_eq!(
            log.range(from, head).verify(thread_id(), &log.peaks(cursor)),
            Err(RangeError::Gap { cursor: seq(cursor), from: seq(from) })
        );
    }

    #[test]
    fn l8_nothing_in_a_range_changes_without_notice(
        log in logs(1), from in any::<Index>(), to in any::<Index>(), which in 0..WAYS, at in any::<Index>(),
    ) {
        let from = from.index(log.entries.len());
        let to = from + 1 + to.index(log.entries.len() - from);
        let range = log.range(from, to);
        prop_assert!(verify_page(&range).is_ok());
        if let Some(bad) = mutated(&log, &range, which, at) {
            prop_assert!(verify_page(&bad).is_err(), "{}: {:?}", which, bad);
        }
    }

    #[test]
    fn l8_what_a_viewer_sees_does_not_change_the_root(log in logs(0), seen in prop::collection::vec(any::<bool>(), 40)) {
        let head = log.entries.len();
        let one = log.range(0, head).verify(thread_id(), &Peaks::new());
        let other = Log { seen, ..log };
        prop_assert_eq!(one, other.range(0, head).verify(thread_id(), &Peaks::new()));
    }
}

#[test]
fn l8_each_way_of_changing_a_range_can_happen() {
    let drafts = (0..14).map(|at| (at, at as u64 / 2, at % 3 == 0, at % 5 == 0, at % 2 == 1));
    let log = Log::new(drafts.collect());
    let range = log.range(3, 12);
    for which in 0..WAYS {
        let happened = (0..64).any(|seed| mutated(&log, &range, which, index(seed)).is_some_and(|bad| bad != range));
        assert!(happened, "{which}");
    }
}

/// One of many indices.
fn index(seed: u8) -> Index {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[seed; 32]);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    any::<Index>().new_tree(&mut runner).unwrap().current()
}
