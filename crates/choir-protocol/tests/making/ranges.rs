//! Ranges that a verifying client applies, and ranges in which something was changed, moved or left
//! out (L7, L8, Y6).

use choir_protocol::entry::Body;
use choir_protocol::hash::Hash;
use choir_protocol::ids::{Seq, UserId};
use choir_protocol::json::{Number, Object, Value};
use choir_protocol::merkle::Peaks;
use choir_protocol::object;
use choir_protocol::range::{Hidden, Range, RangeError};
use choir_protocol::thread::Stream;

use super::Case;
use super::log::{Log, thread_id, written};

const ALL: &[Stream] = &[Stream::Updates, Stream::Specs, Stream::Approvals];
const UPDATES: &[Stream] = &[Stream::Updates];

pub(crate) fn cases() -> Vec<Case> {
    let log = Log::new();
    let seq = |n: u64| Seq::new(n).unwrap();
    let mut cases = vec![];
    let mut case = |name: &str, cursor: Option<usize>, range: Range| {
        cases.push(self::case(name, cursor.map(|at| &log.peaks[at]), &range));
    };

    case("all of it", Some(0), log.range(0, 15, ALL));
    case("only updates", Some(0), log.range(0, 15, UPDATES));
    case("nothing but decisions", Some(0), log.range(0, 15, &[Stream::Approvals]));
    case("a part", Some(4), log.range(4, 11, UPDATES));
    case("one entry", Some(6), log.range(6, 7, ALL));
    case("empty, at the beginning", Some(0), log.range(0, 0, ALL));
    case("empty, at the head", Some(15), log.range(15, 15, ALL));
    case("all hidden", Some(4), log.range(4, 8, UPDATES));
    case("an overlap: from the cursor on", Some(6), log.range(2, 11, UPDATES));
    case("an overlap up to the cursor", Some(11), log.range(2, 11, UPDATES));
    case("all of it is old", Some(12), log.range(2, 11, UPDATES));
    let page = |from, to| {
        let mut range = log.range(from, to, UPDATES);
        range.peaks = Some(log.peaks[from].as_slice().to_vec());
        range
    };
    case("a page with its peaks", None, page(7, 11));
    case("the first page: no peaks", None, page(0, 7));
    let changed = |from, change: &dyn Fn(&mut Range)| {
        let mut range = page(from, 11);
        change(&mut range);
        range
    };
    let without = |range: &mut Range, number: u64| {
        range.entries.retain(|entry| entry.seq.get() != number);
        let hidden = range.hidden.as_mut().unwrap();
        hidden.retain(|hidden| hidden.0.get() != number);
    };

    // What is said of entries at or below the cursor was checked before.
    case(
        "an old entry left out of an overlap",
        Some(6),
        changed(2, &|range| without(range, 3)),
    );

    case("bad: a gap", Some(1), changed(2, &|_| ()));
    case("bad: to before from", Some(2), changed(2, &|range| range.to = seq(1)));
    case(
        "bad: two entries in each other's place",
        Some(0),
        changed(0, &|range| {
            range.entries.swap(0, 1);
        }),
    );
    case(
        "bad: two entries with each other's number",
        Some(0),
        changed(0, &|range| {
            range.entries[0].seq = seq(2);
            range.entries[1].seq = seq(1);
            range.entries.swap(0, 1);
        }),
    );
    case(
        "bad: hidden ones in each other's place",
        Some(0),
        changed(0, &|range| {
            range.hidden.as_mut().unwrap().swap(0, 1);
        }),
    );
    case(
        "bad: a shown entry is left out",
        Some(0),
        changed(0, &|range| without(range, 2)),
    );
    case(
        "bad: a hidden entry is left out",
        Some(0),
        changed(0, &|range| without(range, 5)),
    );
    case(
        "bad: the last entry is left out",
        Some(0),
        changed(0, &|range| without(range, 11)),
    );
    case(
        "bad: no hidden at all",
        Some(0),
        changed(0, &|range| range.hidden = None),
    );
    case(
        "bad: an entry twice",
        Some(0),
        changed(0, &|range| {
            range.entries.insert(0, range.entries[0].clone());
        }),
    );
    case(
        "bad: both shown and hidden",
        Some(0),
        changed(0, &|range| {
            let entry = &range.entries[0];
            let hidden = Hidden(entry.seq, entry.stream, entry.inner().unwrap());
            range.hidden.as_mut().unwrap().insert(0, hidden);
        }),
    );
    case(
        "bad: an entry below the range",
        Some(2),
        changed(2, &|range| {
            range.entries.insert(0, log.entries[1].clone());
        }),
    );
    case(
        "bad: an entry above the range",
        Some(0),
        changed(0, &|range| {
            range.entries.push(log.entries[11].clone());
        }),
    );
    case(
        "bad: a body changed",
        Some(0),
        changed(0, &|range| {
            range.entries[0].body = log.entries[1].body.clone();
        }),
    );
    case(
        "bad: a body and its hash changed",
        Some(0),
        changed(0, &|range| {
            range.entries[0].body = log.entries[1].body.clone();
            range.entries[0].content_hash = log.entries[1].content_hash;
        }),
    );
    case(
        "a body left out as if erased: the hashes can't tell",
        Some(0),
        changed(0, &|range| {
            range.entries[0].body = Body::Erased(seq(12));
        }),
    );
    case(
        "bad: an author changed",
        Some(0),
        changed(0, &|range| {
            range.entries[0].author = "people:eve".parse::<UserId>().unwrap();
        }),
    );
    case(
        "bad: a signature of another entry",
        Some(0),
        changed(0, &|range| {
            let sig = range.entries[1].proof.as_ref().unwrap().sig;
            range.entries[0].proof.as_mut().unwrap().sig = sig;
        }),
    );
    case(
        "bad: no proof",
        Some(0),
        changed(0, &|range| range.entries[0].proof = None),
    );
    case(
        "bad: an erased entry without its hash",
        Some(0),
        changed(0, &|range| {
            range.entries[2].content_hash = None;
        }),
    );
    case(
        "bad: the stream of a hidden entry changed",
        Some(0),
        changed(0, &|range| {
            range.hidden.as_mut().unwrap()[0].1 = Stream::Approvals;
        }),
    );
    case(
        "bad: the hash of a hidden entry changed",
        Some(0),
        changed(0, &|range| {
            range.hidden.as_mut().unwrap()[0].2 = Hash::EMPTY;
        }),
    );
    case(
        "bad: another root",
        Some(0),
        changed(0, &|range| range.root = log.cursor_at(10).root),
    );
    case("bad: another root of an empty range", Some(4), {
        let mut range = log.range(4, 4, ALL);
        range.root = log.cursor_at(5).root;
        range
    });
    case(
        "bad: a page with peaks of another number",
        None,
        changed(7, &|range| {
            range.peaks = Some(log.peaks[8].as_slice().to_vec());
        }),
    );
    case(
        "bad: a page with a peak changed",
        None,
        changed(7, &|range| {
            range.peaks.as_mut().unwrap()[1] = Hash::EMPTY;
        }),
    );
    case(
        "bad: a page without peaks",
        None,
        changed(7, &|range| range.peaks = None),
    );
    cases
}

fn case(name: &str, cursor: Option<&Peaks>, range: &Range) -> Case {
    let input = object! {
        "thread_id": thread_id().to_string(),
        "cursor"?: cursor.map(place),
        "range": written(range),
    };
    let verified = match cursor {
        Some(peaks) => range.verify(thread_id(), peaks),
        None => range
            .peaks_at_from()
            .and_then(|peaks| range.verify(thread_id(), &peaks)),
    };
    let out = match verified {
        Ok((peaks, leaves)) => {
            let leaves = leaves.iter().map(|(seq, leaf)| (seq.to_string(), leaf.to_hex()));
            object! { "cursor": place(&peaks), "leaves": leaves.collect::<Object>() }
        }
        Err(error) => object! { "error": word(error) },
    };
    Case::new(name, &["L5", "L6", "L7", "L8", "Y6"], input, out)
}

fn place(peaks: &Peaks) -> Object {
    object! {
        "seq": Number::saturating(peaks.size()),
        "root": peaks.root().to_hex(),
        "peaks": peaks.as_slice().iter().map(Hash::to_hex).collect::<Value>(),
    }
}

const fn word(error: RangeError) -> &'static str {
    match error {
        RangeError::Malformed => "malformed",
        RangeError::Gap { .. } => "gap",
        RangeError::Missing(_) => "missing",
        RangeError::Unverifiable(_) => "unverifiable",
        RangeError::ContentHash(_) => "content_hash",
        RangeError::Peaks => "peaks",
        RangeError::Root => "root",
    }
}
