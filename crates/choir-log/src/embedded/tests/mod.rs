//! What the embedded engine promises beyond the contract of every engine.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use choir_core::record::{Facts, MemberFact, Record};
use choir_protocol::entry::{Body, Kind};
use choir_protocol::ids::{Seq, ThreadId, Timestamp};
use choir_protocol::thread::{Role, Visibility};
use tempfile::TempDir;

use super::disk::SystemDisk;
use super::recovery::{BEGINNING, scan};
use super::{EmbeddedLog, Options, check, renew_log_id};
use crate::conformance::{self, Chain, Durability, Opener, sample_thread, sample_user, wait};
use crate::{AppendError, Health, Log, OpenError, ReadError, ReadLimit};

mod faulty;
use faulty::{Fault, FaultyDisk, GatedDisk};

fn small() -> Options {
    Options {
        segment_bytes: 4096,
        cached_heads: 4,
        ..Options::default()
    }
}

fn open(directory: &Path) -> EmbeddedLog {
    EmbeddedLog::open(directory, small()).unwrap()
}

/// A directory in memory where there is one: fsyncs that nobody looks at would be most of these tests' time.
fn place() -> TempDir {
    let shm = Path::new("/dev/shm");
    if shm.is_dir() {
        tempfile::tempdir_in(shm).unwrap()
    } else {
        tempfile::tempdir().unwrap()
    }
}

fn append(log: &dyn Log, thread: ThreadId, (expected, records, facts): (Seq, Vec<Record>, Facts)) {
    wait(log.append(thread, expected, records, facts)).unwrap();
}

/// Redacts entry `seq`.
fn redact(log: &dyn Log, thread: ThreadId, chain: &mut Chain, seq: u64) {
    let (expected, records, mut facts) = chain.append(&[Kind::MessageRedacted]);
    facts.erase = vec![(Seq::saturating(seq), records[0].seq)];
    append(log, thread, (expected, records, facts));
    chain.records[usize::try_from(seq - 1).unwrap()].body = Body::Erased(chain.seq());
}

fn read_all(log: &dyn Log, thread: ThreadId) -> Result<Vec<Record>, ReadError> {
    let mut all: Vec<Record> = Vec::new();
    loop {
        let run = wait(log.read(thread, Seq::saturating(all.len() as u64), ReadLimit::default()))?;
        if run.is_empty() {
            return Ok(all);
        }
        all.extend(run);
    }
}

/// Some of everything in three threads; the chains hold what reads must answer.
fn fill(log: &dyn Log) -> Vec<(ThreadId, Chain)> {
    let mut chains: Vec<_> = (1..=3)
        .map(|n| (sample_thread(n), Chain::new(sample_thread(n))))
        .collect();
    for (n, (thread, chain)) in chains.iter_mut().enumerate() {
        chain.summary.visibility = if n == 1 {
            Visibility::Public
        } else {
            Visibility::Private
        };
        chain.summary.due = Timestamp::new(500 + n as u64);
        chain.summary.awaiting = vec![(sample_user(1), 1 + u32::try_from(n).unwrap())];
        let (expected, records, mut facts) = chain.append(&[Kind::ThreadCreated]);
        facts.members = vec![
            (
                sample_user(1),
                Some(MemberFact {
                    role: Role::Owner,
                    joined: n != 2,
                }),
            ),
            (sample_user(2), None),
        ];
        append(log, *thread, (expected, records, facts));
    }
    for round in 0..4 {
        for (thread, chain) in &mut chains {
            append(log, *thread, chain.append(&[Kind::MessagePosted, Kind::SpecSubmitted]));
        }
        wait(log.put(b"mark", vec![round; 9])).unwrap();
    }
    let (thread, chain) = &mut chains[1];
    redact(log, *thread, chain, 2);
    chains
}

/// Everything that can be read of what [`fill`] wrote, as one text.
fn everything(log: &dyn Log, chains: &[(ThreadId, Chain)]) -> String {
    let mut all = Vec::new();
    for (thread, chain) in chains {
        all.push(format!("{:?}", read_all(log, *thread)));
        all.push(format!("{:?}", wait(log.head(*thread))));
        for record in &chain.records {
            all.push(format!("{:?}", wait(log.find(*thread, record.id))));
            all.push(format!(
                "{:?} {:?}",
                wait(log.root_at(*thread, record.seq)),
                wait(log.peaks_at(*thread, record.seq))
            ));
            all.push(format!(
                "{:?} {:?}",
                wait(log.messages_at(*thread, record.seq)),
                wait(log.message_seq(*thread, record.seq.get()))
            ));
        }
    }
    for user in [sample_user(1), sample_user(2)] {
        all.push(format!("{:?}", wait(log.threads_of(&user, None, 10))));
        all.push(format!(
            "{:?} {:?}",
            wait(log.joined_threads(&user, None, 10)),
            wait(log.awaiting(&user, 10))
        ));
    }
    all.push(format!("{:?}", wait(log.public_threads(None, 10))));
    all.push(format!("{:?}", wait(log.due(Timestamp::saturating(10_000), 10))));
    all.push(format!("{:?}", wait(log.get(b"mark"))));
    all.join("\n")
}

fn agree(log: &dyn Log, chains: &[(ThreadId, Chain)]) {
    for (thread, chain) in chains {
        assert_eq!(read_all(log, *thread).unwrap(), chain.records, "{thread}");
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to.join(entry.file_name()));
        } else {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

fn segment(directory: &Path, number: u32) -> PathBuf {
    directory.join(format!("segments/{number:010}.log"))
}

fn last_segment(directory: &Path) -> PathBuf {
    let mut segments: Vec<_> = fs::read_dir(directory.join("segments"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    segments.sort();
    segments.pop().unwrap()
}

/// Where the frames of a segment begin, and where the last ends.
fn frames(segment: &Path) -> Vec<usize> {
    let bytes = fs::read(segment).unwrap();
    let mut at = 48;
    let mut begin = vec![at];
    while at < bytes.len() {
        at += u32::from_le_bytes(bytes[at + 4..at + 8].try_into().unwrap()) as usize;
        begin.push(at);
    }
    begin
}

#[test]
fn the_embedded_engine_keeps_the_contract() {
    let place = || -> Opener {
        let directory = place();
        Box::new(move || -> Arc<dyn Log> { Arc::new(open(directory.path())) })
    };
    conformance::run(place, Durability::Survives);
}

#[test]
fn the_contract_holds_with_the_tightest_limits() {
    let place = || -> Opener {
        let directory = place();
        let options = Options {
            max_unindexed_bytes: 0,
            max_batch_bytes: 1,
            cached_heads: 0,
            readers: 0,
            ..small()
        };
        Box::new(move || -> Arc<dyn Log> { Arc::new(EmbeddedLog::open(directory.path(), options.clone()).unwrap()) })
    };
    conformance::run(place, Durability::Survives);
}

#[test]
fn what_is_not_indexed_yet_is_read_the_same() {
    let place = place();
    let disk = GatedDisk::default();
    let log = EmbeddedLog::open_on(Arc::new(disk.clone()), place.path(), small()).unwrap();
    let mut chains = fill(&log);
    wait(log.due(Timestamp::ZERO, 1)).unwrap();
    disk.shut_for_the_index();
    redact(&log, chains[0].0, &mut chains[0].1, 2);
    disk.until_one_waits();
    // From here on nothing is indexed, and the redaction isn't either.
    for (thread, chain) in &mut chains {
        let about = chain.records[1].id;
        let (expected, id) = (chain.seq(), chain.new_id());
        let records = vec![
            chain.entry(Kind::MessageEdited, id, Some(about), "unindexed"),
            chain.entry(Kind::SpecResolved, about, None, "unindexed"),
        ];
        append(&log, *thread, (expected, records, chain.facts()));
        append(&log, *thread, chain.append(&[Kind::MessagePosted]));
    }
    redact(&log, chains[1].0, &mut chains[1].1, 4);
    wait(log.put(b"mark", b"unindexed".to_vec())).unwrap();

    let read = |log: &EmbeddedLog| {
        agree(log, &chains);
        let mut all = vec![format!("{:?}", wait(log.get(b"mark")))];
        for (thread, chain) in &chains {
            all.push(format!("{:?}", wait(log.head(*thread))));
            for record in &chain.records {
                all.push(format!("{:?}", wait(log.find(*thread, record.id))));
                all.push(format!(
                    "{:?} {:?}",
                    wait(log.root_at(*thread, record.seq)),
                    wait(log.peaks_at(*thread, record.seq))
                ));
                all.push(format!(
                    "{:?} {:?}",
                    wait(log.messages_at(*thread, record.seq)),
                    wait(log.message_seq(*thread, record.seq.get()))
                ));
            }
            let mut again = chain.clone();
            for taken in [&chain.records[1], &chain.records[chain.records.len() - 1]] {
                let record = again.entry(taken.kind.clone(), taken.id, None, "x");
                let answer = wait(log.append(*thread, chain.seq(), vec![record], again.facts()));
                assert_eq!(answer, Err(AppendError::Taken { seq: taken.seq }));
                again = chain.clone();
            }
        }
        all
    };
    let unindexed = read(&log);
    disk.open();
    wait(log.due(Timestamp::ZERO, 1)).unwrap();
    assert_eq!(read(&log), unindexed);
    drop(log);
    assert_eq!(read(&open(place.path())), unindexed);
}

#[test]
fn lists_that_wait_for_the_index_hold_up_no_other_reads() {
    let place = place();
    let disk = GatedDisk::default();
    let log = EmbeddedLog::open_on(Arc::new(disk.clone()), place.path(), small()).unwrap();
    let mut chains = fill(&log);
    wait(log.due(Timestamp::ZERO, 1)).unwrap();
    disk.shut_for_the_index();
    redact(&log, chains[0].0, &mut chains[0].1, 2);
    disk.until_one_waits();
    let lists: Vec<_> = (0..2 * small().readers).map(|_| log.public_threads(None, 9)).collect();
    let (thread, id) = (chains[1].0, chains[1].1.records[0].id);
    let (found, is_found) = mpsc::channel();
    thread::scope(|scope| {
        let log = &log;
        scope.spawn(move || found.send(wait(log.find(thread, id)).unwrap().len()));
        let found = is_found.recv_timeout(Duration::from_secs(20));
        disk.open();
        assert_eq!(found, Ok(1));
    });
    for list in lists {
        assert_eq!(wait(list).unwrap().rows.len(), 1);
    }
}

#[test]
fn a_log_whose_segments_are_gone_is_not_begun_anew() {
    let place = place();
    let log = open(place.path());
    fill(&log);
    drop(log);
    fs::remove_dir_all(place.path().join("segments")).unwrap();
    fs::create_dir(place.path().join("segments")).unwrap();
    let error = EmbeddedLog::open(place.path(), small()).unwrap_err();
    assert!(matches!(error, OpenError::Corrupt { .. }), "{error}");
}

#[test]
fn a_log_whose_directory_was_deleted_still_closes() {
    let place = place();
    let directory = place.path().join("log");
    let log = open(&directory);
    fill(&log);
    // Everything is in the index's memory, which can't be written out any more.
    wait(log.public_threads(None, 1)).unwrap();
    fs::remove_dir_all(&directory).unwrap();
    let (closed, is_closed) = mpsc::channel();
    thread::spawn(move || {
        wait(log.close());
        drop(log);
        closed.send(()).unwrap();
    });
    let patience = Duration::from_secs(20);
    assert!(is_closed.recv_timeout(patience).is_ok(), "it never closed");
}

#[test]
fn a_damaged_head_holds_up_its_own_thread_only() {
    let place = place();
    let log = open(place.path());
    let mut chains = fill(&log);
    drop(log);
    let log = open(place.path());
    let damaged = wait(log.read(chains[2].0, chains[2].1.seq().previous(), ReadLimit::default())).unwrap();
    let head = [
        &chains[2].0.as_bytes()[..],
        &damaged[0].seq.get().to_le_bytes(),
        damaged[0].id.as_bytes(),
    ]
    .concat();
    for number in 1.. {
        let Ok(bytes) = fs::read(segment(place.path(), number)) else {
            break;
        };
        for at in (0..bytes.len() - head.len()).filter(|at| bytes[*at..].starts_with(&head)) {
            write_byte(&segment(place.path(), number), at, bytes[at] ^ 1);
        }
    }
    let (thread, chain) = &mut chains[2];
    let (expected, records, facts) = chain.append(&[Kind::MessagePosted]);
    let answer = wait(log.append(*thread, expected, records, facts));
    assert!(
        matches!(&answer, Err(AppendError::Refused { why }) if why.contains("damaged")),
        "{answer:?}"
    );
    let (thread, chain) = &mut chains[0];
    append(&log, *thread, chain.append(&[Kind::MessagePosted]));
}

#[test]
fn a_run_ends_before_a_damaged_entry_and_whoever_reads_on_is_told() {
    let place = place();
    let log = open(place.path());
    let thread = sample_thread(1);
    let mut chain = Chain::new(thread);
    append(
        &log,
        thread,
        chain.append(&[
            Kind::ThreadCreated,
            Kind::MessagePosted,
            Kind::MessagePosted,
            Kind::MessagePosted,
        ]),
    );
    drop(log);
    let log = open(place.path());
    let records = wait(log.read(thread, Seq::ZERO, ReadLimit::default())).unwrap();
    let body = records[2].body.text().unwrap().as_bytes();
    let bytes = fs::read(segment(place.path(), 1)).unwrap();
    let at = bytes.windows(body.len()).position(|window| window == body).unwrap();
    write_byte(&segment(place.path(), 1), at, bytes[at] ^ 1);

    let run = wait(log.read(thread, Seq::ZERO, ReadLimit::default())).unwrap();
    assert_eq!(run, records[..2]);
    let answer = wait(log.read(thread, records[1].seq, ReadLimit::default()));
    assert!(
        matches!(&answer, Err(ReadError::Damaged { seq, .. }) if *seq == records[2].seq),
        "{answer:?}"
    );
    let run = wait(log.read(thread, records[2].seq, ReadLimit::default())).unwrap();
    assert_eq!(run, records[3..]);
}

#[test]
fn a_torn_tail_is_cut_at_every_length() {
    let place = place();
    let log = open(place.path());
    let mut chain = Chain::new(sample_thread(1));
    append(&log, sample_thread(1), chain.append(&[Kind::ThreadCreated]));
    append(&log, sample_thread(1), chain.append(&[Kind::MessagePosted]));
    let kept = chain.records.clone();
    wait(log.close());
    drop(log);
    // As it was when the index stopped: the index is older than what is torn.
    let before = self::place();
    copy(place.path(), before.path());
    let log = open(place.path());
    append(
        &log,
        sample_thread(1),
        chain.append(&[Kind::MessagePosted, Kind::MessageEdited]),
    );
    wait(log.close());
    drop(log);

    let whole = fs::read(segment(place.path(), 1)).unwrap();
    let begin = frames(&segment(place.path(), 1));
    // The last frame with content stands before the seal.
    let [.., start, end, _] = begin[..] else {
        panic!("{begin:?}")
    };
    for length in start..end {
        for zeros in [0, 600] {
            // The file's length may have become durable before its content; unless what is cut off is zero anyway.
            if zeros > 0 && whole[length..end].iter().all(|byte| *byte == 0) {
                continue;
            }
            let bytes = [&whole[..length], &vec![0; zeros]].concat();
            fs::write(segment(before.path(), 1), &bytes).unwrap();
            let directory = super::directory::Directory::open(before.path()).unwrap();
            let mut batches = 0;
            let found = scan(directory.paths(), &SystemDisk, BEGINNING, 1, 0, &mut |_| {
                batches += 1;
                Ok(())
            });
            let found = found.unwrap();
            drop(directory);
            let torn = length + zeros > start;
            assert_eq!(
                (found.offset, found.torn, batches, found.last.batch),
                (start as u64, torn, 3, 3),
                "{length} bytes"
            );
        }
        if (length - start) % 50 == 1 {
            let copied = self::place();
            copy(before.path(), copied.path());
            if length % 100 < 50 {
                fs::remove_dir_all(copied.path().join("index")).unwrap();
            }
            let log = open(copied.path());
            assert_eq!(read_all(&log, sample_thread(1)).unwrap(), kept);
            let mut chain = rewound(&kept);
            append(&log, sample_thread(1), chain.append(&[Kind::MessagePosted]));
            drop(log);
            agree(&open(copied.path()), &[(sample_thread(1), chain)]);
        }
    }
}

/// A chain that goes on behind these entries.
fn rewound(records: &[Record]) -> Chain {
    let mut rewound = Chain::new(sample_thread(1));
    for (n, record) in records.iter().enumerate() {
        let text = format!("{} {}", record.kind, record.id);
        let again = rewound.entry(record.kind.clone(), record.id, None, &text);
        assert_eq!(again, *record, "entry {n}");
    }
    // Ids that the torn append had may be used again.
    for _ in records {
        rewound.new_id();
    }
    rewound
}

#[test]
fn a_flipped_bit_is_never_served() {
    let place = place();
    let log = open(place.path());
    let chains = fill(&log);
    drop(log);
    // The index knows where everything stands, and nothing is in memory.
    let log = open(place.path());
    agree(&log, &chains);
    let mut noticed = 0;
    for number in 1.. {
        let file = segment(place.path(), number);
        let Ok(good) = fs::read(&file) else { break };
        for at in (0..good.len()).step_by(3) {
            // In place: the log has the file open.
            write_byte(&file, at, good[at] ^ (1 << (at % 8)));
            for (thread, chain) in &chains {
                for record in &chain.records {
                    match wait(log.read(
                        *thread,
                        record.seq.previous(),
                        ReadLimit {
                            max_entries: 1,
                            max_bytes: 0,
                        },
                    )) {
                        Ok(run) => assert_eq!(run, std::slice::from_ref(record), "byte {at} of segment {number}"),
                        Err(ReadError::Damaged {
                            file: named,
                            thread: of,
                            seq,
                            ..
                        }) => {
                            assert_eq!((named, of, seq), (file.clone(), *thread, record.seq));
                            noticed += 1;
                        }
                        Err(other) => panic!("{other:?}"),
                    }
                }
            }
            write_byte(&file, at, good[at]);
        }
    }
    assert!(noticed > 2000, "{noticed}");
    assert_eq!(log.health(), Health::Ready);
    agree(&log, &chains);
}

fn write_byte(file: &Path, at: usize, byte: u8) {
    use std::os::unix::fs::FileExt;
    fs::OpenOptions::new()
        .write(true)
        .open(file)
        .unwrap()
        .write_all_at(&[byte], at as u64)
        .unwrap();
}

#[test]
fn a_flipped_bit_is_named_by_a_check() {
    let place = place();
    let log = open(place.path());
    fill(&log);
    drop(log);
    let sound = check(place.path()).unwrap();
    assert!(sound.is_sound() && sound.torn.is_none(), "{sound:?}");
    assert_eq!((sound.threads, sound.entries, sound.erased), (3, 28, 1));
    let seal = frames(&last_segment(place.path()));
    let seal = seal[seal.len() - 2];
    for number in 1..=sound.segments {
        let file = segment(place.path(), number);
        let good = fs::read(&file).unwrap();
        for at in (0..good.len()).step_by(3) {
            write_byte(&file, at, good[at] ^ (1 << (at % 8)));
            let report = check(place.path()).unwrap();
            if number == sound.segments && at >= seal {
                // The seal holds nothing: it may be taken for a torn write.
                assert_eq!(report.torn, Some((file.clone(), seal as u64)), "byte {at}");
            } else if report.is_sound() {
                // A redacted body that isn't zero any more harms nobody, and yet is told.
                assert_eq!((report.unerased, report.erased), (1, 0), "byte {at}");
            } else {
                assert!(report.damage.iter().any(|damage| damage.file == file), "{report:?}");
            }
            write_byte(&file, at, good[at]);
        }
    }
    assert_eq!(check(place.path()).unwrap(), sound);
}

#[test]
fn a_log_with_a_flipped_bit_is_refused_or_right_without_its_index() {
    let place = place();
    let log = open(place.path());
    let chains = fill(&log);
    drop(log);
    let seal = frames(&last_segment(place.path()));
    let seal = seal[seal.len() - 2];
    let (mut refused, mut opened) = (0, 0);
    for number in 1.. {
        let Ok(good) = fs::read(segment(place.path(), number)) else {
            break;
        };
        let is_last = segment(place.path(), number) == last_segment(place.path());
        for at in (0..good.len()).step_by(97) {
            let copied = self::place();
            copy(&place.path().join("segments"), &copied.path().join("segments"));
            fs::copy(place.path().join("format"), copied.path().join("format")).unwrap();
            let file = segment(copied.path(), number);
            write_byte(&file, at, good[at] ^ (1 << (at % 8)));
            let spoilt = fs::read(&file).unwrap();
            match EmbeddedLog::open(copied.path(), small()) {
                Err(OpenError::Corrupt { file: named, .. }) => {
                    assert!(
                        named == file || named == segment(copied.path(), number + 1),
                        "{named:?}"
                    );
                    assert_eq!(fs::read(&file).unwrap(), spoilt, "nothing was touched");
                    assert!(!(is_last && at >= seal));
                    refused += 1;
                }
                Err(other) => panic!("{other}"),
                Ok(log) => {
                    for (thread, chain) in &chains {
                        for record in &chain.records {
                            let read = wait(log.read(
                                *thread,
                                record.seq.previous(),
                                ReadLimit {
                                    max_entries: 1,
                                    max_bytes: 0,
                                },
                            ));
                            assert!(
                                matches!(read, Err(ReadError::Damaged { .. })) || read == Ok(vec![record.clone()]),
                                "byte {at}: {read:?}"
                            );
                        }
                    }
                    opened += 1;
                }
            }
        }
    }
    assert!(refused > 50 && opened > 10, "{refused} refused, {opened} opened");
}

#[test]
fn the_index_remembers_that_the_last_frame_was_good() {
    let place = place();
    let log = open(place.path());
    let mut chain = Chain::new(sample_thread(1));
    append(&log, sample_thread(1), chain.append(&[Kind::ThreadCreated]));
    append(&log, sample_thread(1), chain.append(&[Kind::MessagePosted]));
    drop(log);
    // Without the seal, the last frame would pass for torn.
    let file = segment(place.path(), 1);
    let begin = frames(&file);
    let [.., last, seal, _] = begin[..] else {
        panic!("{begin:?}")
    };
    let bytes = fs::read(&file).unwrap();
    fs::write(&file, &bytes[..seal]).unwrap();
    write_byte(&file, last + 40, bytes[last + 40] ^ 1);
    // Also a second time: what the index knew isn't forgotten with it.
    for _ in 0..2 {
        let error = EmbeddedLog::open(place.path(), small()).unwrap_err();
        assert!(
            matches!(&error, OpenError::Corrupt { offset, .. } if *offset == last as u64),
            "{error}"
        );
        assert!(
            error.to_string().contains("the index remembers batches up to 3"),
            "{error}"
        );
    }
}

#[test]
fn an_older_copy_of_the_log_is_noticed_and_indexed_anew() {
    let place = place();
    let log = open(place.path());
    let mut chain = Chain::new(sample_thread(1));
    append(
        &log,
        sample_thread(1),
        chain.append(&[Kind::ThreadCreated, Kind::MessagePosted]),
    );
    drop(log);
    let older = fs::read(segment(place.path(), 1)).unwrap();
    let kept = chain.records.clone();
    let log = open(place.path());
    append(&log, sample_thread(1), chain.append(&[Kind::MessagePosted]));
    drop(log);
    fs::write(segment(place.path(), 1), older).unwrap();
    let log = open(place.path());
    assert_eq!(read_all(&log, sample_thread(1)).unwrap(), kept);
    assert_eq!(
        wait(log.head(sample_thread(1))).unwrap().unwrap().cursor.seq,
        Seq::saturating(2)
    );
}

#[test]
fn a_lost_index_is_rebuilt_the_same() {
    let place = place();
    let log = open(place.path());
    let chains = fill(&log);
    let before = everything(&log, &chains);
    agree(&log, &chains);
    drop(log);
    assert_eq!(everything(&open(place.path()), &chains), before, "reopened");

    fs::remove_dir_all(place.path().join("index")).unwrap();
    let done = Arc::new(AtomicU64::new(0));
    let told = Arc::clone(&done);
    let options = Options {
        progress: Some(Arc::new(move |done, total| {
            told.store(done * 100 / total, Ordering::SeqCst)
        })),
        ..small()
    };
    let log = EmbeddedLog::open(place.path(), options).unwrap();
    assert!(done.load(Ordering::SeqCst) > 80, "progress is told");
    assert_eq!(everything(&log, &chains), before, "rebuilt");
}

#[test]
fn a_damaged_index_is_rebuilt_the_same() {
    let place = place();
    let log = open(place.path());
    let chains = fill(&log);
    let before = everything(&log, &chains);
    drop(log);
    let mut files = Vec::new();
    let mut folders = vec![place.path().join("index")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path)
            } else {
                files.push(path)
            }
        }
    }
    for file in files {
        let copied = self::place();
        copy(place.path(), copied.path());
        let file = copied.path().join(file.strip_prefix(place.path()).unwrap());
        fs::write(&file, b"not what was here").unwrap();
        match EmbeddedLog::open(copied.path(), small()) {
            Ok(log) => {
                let after = everything(&log, &chains);
                if after != before {
                    // Noticed only when it was read: then the next start rebuilds it.
                    assert!(after.contains("Index"), "{}", file.display());
                    drop(log);
                    assert_eq!(everything(&open(copied.path()), &chains), before, "{}", file.display());
                }
            }
            Err(error) => panic!("{}: {error}", file.display()),
        }
    }
}

#[test]
fn a_stale_index_catches_up_and_erases_again() {
    let place = place();
    let log = open(place.path());
    let mut chain = Chain::new(sample_thread(1));
    append(
        &log,
        sample_thread(1),
        chain.append(&[Kind::ThreadCreated, Kind::MessagePosted, Kind::MessagePosted]),
    );
    drop(log);
    let stale = self::place();
    copy(place.path(), stale.path());
    let unerased = fs::read(segment(place.path(), 1)).unwrap();

    let log = open(place.path());
    let mut chains = vec![(sample_thread(1), chain)];
    redact(&log, sample_thread(1), &mut chains[0].1, 2);
    append(&log, sample_thread(1), chains[0].1.append(&[Kind::MessagePosted]));
    let before = everything(&log, &chains);
    drop(log);

    // As if the machine had stopped before the body was overwritten, or in the middle of that.
    let later = fs::read(segment(place.path(), 1)).unwrap();
    for half in [false, true] {
        let copied = self::place();
        copy(stale.path(), copied.path());
        let mut bytes = later.clone();
        let mut changed: Vec<_> = (0..unerased.len()).filter(|at| bytes[*at] != unerased[*at]).collect();
        assert!(changed.len() > 20);
        if half {
            changed.truncate(10);
        }
        for at in changed {
            bytes[at] = unerased[at];
        }
        fs::write(segment(copied.path(), 1), &bytes).unwrap();
        let log = open(copied.path());
        assert_eq!(everything(&log, &chains), before);
        drop(log);
        let redone = fs::read(segment(copied.path(), 1)).unwrap();
        assert_eq!(redone[..later.len()], later[..]);
    }
}

#[test]
fn l6_a_redacted_body_is_gone_from_the_disk() {
    let place = place();
    let log = open(place.path());
    let thread = sample_thread(1);
    let mut chain = Chain::new(thread);
    append(&log, thread, chain.append(&[Kind::ThreadCreated]));
    let ids = [chain.new_id(), chain.new_id()];
    let secret = "an unmistakable secret";
    let expected = chain.seq();
    let records = vec![
        chain.entry(Kind::MessagePosted, ids[0], None, secret),
        chain.entry(Kind::MessageEdited, ids[1], Some(ids[0]), secret),
    ];
    append(&log, thread, (expected, records, chain.facts()));
    log.save_state(thread, chain.seq(), format!("folded: {secret}").into_bytes());
    while wait(log.load_state(thread)).unwrap().is_none() {
        // It is a cache: it may take a moment, and while it is not there, it is asked for again.
        log.save_state(thread, chain.seq(), format!("folded: {secret}").into_bytes());
        thread::yield_now();
    }
    assert!(!holding(place.path(), secret).is_empty());

    let (expected, records, mut facts) = chain.append(&[Kind::MessageRedacted]);
    let by = records[0].seq;
    facts.erase = vec![(Seq::saturating(2), by), (Seq::saturating(3), by)];
    append(&log, thread, (expected, records, facts));
    let read = read_all(&log, thread).unwrap();
    assert!(
        read[1].body == Body::Erased(by) && read[2].body == Body::Erased(by),
        "at once"
    );
    // Decided together: never written at all.
    let id = chain.new_id();
    let expected = chain.seq();
    let records = vec![
        chain.entry(Kind::MessagePosted, id, None, secret),
        chain.entry(Kind::MessageRedacted, ids[0], None, "x"),
    ];
    let mut facts = chain.facts();
    facts.erase = vec![(records[0].seq, records[1].seq)];
    append(&log, thread, (expected, records, facts));
    wait(log.due(Timestamp::ZERO, 1)).unwrap();
    assert!(holding(place.path(), secret).is_empty(), "once the index has caught up");
    drop(log);
    assert!(holding(place.path(), secret).is_empty());
    let report = check(place.path()).unwrap();
    assert!(report.is_sound() && report.erased == 3, "{report:?}");
}

/// The files under a directory that hold a text.
fn holding(directory: &Path, text: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(holding(&path, text));
        } else if fs::read(&path)
            .unwrap_or_default()
            .windows(text.len())
            .any(|window| window == text.as_bytes())
        {
            found.push(path);
        }
    }
    found
}

#[test]
fn l6_reads_are_right_while_bodies_are_overwritten() {
    let place = place();
    let log = Arc::new(open(place.path()));
    let thread = sample_thread(1);
    let mut chain = Chain::new(thread);
    append(&*log, thread, chain.append(&[Kind::ThreadCreated]));
    append(&*log, thread, chain.append(&vec![Kind::MessagePosted; 60]));
    let original = chain.records.clone();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !over.load(Ordering::SeqCst) {
                    for record in read_all(&*log, thread).unwrap().iter().take(original.len()) {
                        let first = &original[usize::try_from(record.seq.get() - 1).unwrap()];
                        assert!(record.body == first.body || matches!(record.body, Body::Erased(_)));
                    }
                }
            });
        }
        for seq in 2..=60 {
            redact(&*log, thread, &mut chain, seq);
            let body = &wait(log.read(
                thread,
                Seq::saturating(seq - 1),
                ReadLimit {
                    max_entries: 1,
                    max_bytes: 0,
                },
            ))
            .unwrap()[0]
                .body;
            assert_eq!(*body, Body::Erased(chain.seq()), "at once");
        }
        over.store(true, Ordering::SeqCst);
    });
    agree(&*log, &[(thread, chain)]);
}

#[test]
fn a_second_opener_is_refused_and_told_the_directory() {
    let place = place();
    let log = open(place.path());
    let error = EmbeddedLog::open(place.path(), small()).unwrap_err();
    assert!(
        matches!(error, OpenError::Locked { .. }) && error.to_string().contains(&place.path().display().to_string()),
        "{error}"
    );
    assert!(matches!(check(place.path()), Err(OpenError::Locked { .. })));
    assert!(matches!(renew_log_id(place.path()), Err(OpenError::Locked { .. })));
    wait(log.close());
    open(place.path());
    drop(log);
}

#[test]
fn a_newer_format_is_refused() {
    let place = place();
    drop(open(place.path()));
    let file = place.path().join("format");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("format 1", "format 2")).unwrap();
    let error = EmbeddedLog::open(place.path(), small()).unwrap_err();
    assert!(matches!(error, OpenError::Newer { found: 2, known: 1, .. }), "{error}");
    for at in 0..text.len() {
        let mut bytes = text.clone().into_bytes();
        bytes[at] ^= 1;
        fs::write(&file, bytes).unwrap();
        assert!(EmbeddedLog::open(place.path(), small()).is_err(), "byte {at}");
    }
}

#[test]
fn a_directory_of_something_else_is_refused() {
    let place = place();
    fs::write(place.path().join("thesis.txt"), "two years of work").unwrap();
    let error = EmbeddedLog::open(place.path(), small()).unwrap_err();
    assert!(matches!(error, OpenError::NotALog { .. }), "{error}");
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1, "nothing was made there");
    assert!(matches!(check(place.path()), Err(OpenError::NotALog { .. })));
    // What a crash in the middle of the beginning leaves is no obstacle.
    let begun = self::place();
    fs::write(begun.path().join("lock"), []).unwrap();
    fs::write(begun.path().join("format.new"), "choir").unwrap();
    fs::create_dir(begun.path().join("segments")).unwrap();
    open(begun.path());
}

#[test]
fn g1r_a_restored_backup_gets_another_name() {
    let place = place();
    let log = open(place.path());
    let (old, chains) = (log.log_id(), fill(&log));
    drop(log);
    let backup = self::place();
    fs::create_dir(backup.path().join("segments")).unwrap();
    copy(&place.path().join("segments"), &backup.path().join("segments"));
    fs::copy(place.path().join("format"), backup.path().join("format")).unwrap();
    let new = renew_log_id(backup.path()).unwrap();
    assert_ne!(new, old);
    let log = open(backup.path());
    assert_eq!(log.log_id(), new);
    agree(&log, &chains);
}

#[test]
fn a_missing_segment_is_named() {
    let place = place();
    let log = open(place.path());
    fill(&log);
    drop(log);
    assert!(segment(place.path(), 3).exists(), "small segments");
    fs::remove_file(segment(place.path(), 2)).unwrap();
    let error = EmbeddedLog::open(place.path(), small()).unwrap_err();
    assert!(
        matches!(&error, OpenError::Corrupt { file, .. } if *file == segment(place.path(), 2)),
        "{error}"
    );
}

#[test]
fn a_segment_whose_beginning_was_torn_is_removed() {
    let place = place();
    let log = open(place.path());
    let chains = fill(&log);
    drop(log);
    let last: u32 = last_segment(place.path())
        .file_stem()
        .unwrap()
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    for bytes in [0, 20, 47] {
        fs::write(segment(place.path(), last + 1), vec![0xff; bytes]).unwrap();
        let log = open(place.path());
        agree(&log, &chains);
        drop(log);
        assert!(!segment(place.path(), last + 1).exists());
    }
}

#[test]
fn an_append_larger_than_a_segment_has_one_of_its_own() {
    let place = place();
    let log = open(place.path());
    let thread = sample_thread(1);
    let mut chain = Chain::new(thread);
    append(&log, thread, chain.append(&[Kind::ThreadCreated]));
    let (expected, id) = (chain.seq(), chain.new_id());
    let record = chain.entry(Kind::MessagePosted, id, None, &"x".repeat(30_000));
    append(&log, thread, (expected, vec![record], chain.facts()));
    append(&log, thread, chain.append(&[Kind::MessagePosted]));
    drop(log);
    assert!(fs::metadata(segment(place.path(), 2)).unwrap().len() > 30_000);
    agree(&open(place.path()), &[(thread, chain)]);
    assert!(check(place.path()).unwrap().is_sound());
}

#[test]
fn an_append_above_the_limit_is_refused() {
    let place = place();
    let log = EmbeddedLog::open(
        place.path(),
        Options {
            max_append_bytes: 20_000,
            ..small()
        },
    )
    .unwrap();
    let mut chain = Chain::new(sample_thread(1));
    let (expected, id) = (chain.seq(), chain.new_id());
    let record = chain.entry(Kind::ThreadCreated, id, None, &"x".repeat(20_000));
    let answer = wait(log.append(sample_thread(1), expected, vec![record], chain.facts()));
    assert!(matches!(answer, Err(AppendError::Refused { .. })), "{answer:?}");
    assert_eq!(log.health(), Health::Ready);
}

#[test]
fn g2_a_failed_fsync_latches_and_nothing_of_it_is_seen() {
    let place = place();
    let disk = GatedDisk::default();
    let log = EmbeddedLog::open_on(Arc::new(disk.clone()), place.path(), small()).unwrap();
    let thread = sample_thread(1);
    let mut chain = Chain::new(thread);
    append(&log, thread, chain.append(&[Kind::ThreadCreated, Kind::MessagePosted]));
    let acknowledged = chain.records.clone();

    disk.shut();
    let mut rival = chain.clone();
    rival.new_id();
    let (expected, records, facts) = chain.append(&[Kind::MessagePosted]);
    let first = log.append(thread, expected, records, facts);
    disk.until_one_waits();
    assert_eq!(
        read_all(&log, thread).unwrap(),
        acknowledged,
        "written, and not durable"
    );
    let (expected, records, facts) = rival.append(&[Kind::MessagePosted]);
    let second = log.append(thread, expected, records, facts);
    disk.break_down();
    let first = wait(first);
    assert!(
        matches!(&first, Err(AppendError::Unknown { reason }) if reason.contains("fsync")),
        "{first:?}"
    );
    let second = wait(second);
    assert!(
        matches!(second, Err(AppendError::Broken { .. })),
        "not a conflict with what nobody knows: {second:?}"
    );
    let third = wait(log.put(b"x", Vec::new()));
    assert!(matches!(third, Err(AppendError::Broken { .. })), "{third:?}");
    assert!(matches!(log.health(), Health::Latched { .. }));
    assert_eq!(
        read_all(&log, thread).unwrap(),
        acknowledged,
        "what is durable is still read"
    );
    drop(log);

    // Reading the log back tells (A10): here the bytes are all there.
    let log = open(place.path());
    agree(&log, &[(thread, chain)]);
}

#[test]
fn g2_refusals_wait_for_what_they_were_decided_on() {
    let place = place();
    let disk = GatedDisk::default();
    let log = EmbeddedLog::open_on(Arc::new(disk.clone()), place.path(), small()).unwrap();
    let thread = sample_thread(1);
    let mut chain = Chain::new(thread);
    append(&log, thread, chain.append(&[Kind::ThreadCreated]));
    disk.shut();
    // One batch waits for the disk; the next is put together behind it, with two appends on one head.
    let holding_up = log.put(b"x", Vec::new());
    disk.until_one_waits();
    let mut rival = chain.clone();
    rival.new_id();
    let ours = chain.append(&[Kind::MessagePosted]);
    let theirs = rival.append(&[Kind::MessagePosted]);
    let ours = log.append(thread, ours.0, ours.1, ours.2);
    let theirs = log.append(thread, theirs.0, theirs.1, theirs.2);
    disk.break_down();
    assert!(matches!(wait(holding_up), Err(AppendError::Unknown { .. })));
    let answers = (wait(ours), wait(theirs));
    assert!(
        matches!(
            answers,
            (Err(AppendError::Broken { .. }), Err(AppendError::Broken { .. }))
        ),
        "{answers:?}"
    );
}

#[test]
fn many_appenders_share_fsyncs() {
    const APPENDERS: u8 = 250;
    let place = place();
    let disk = GatedDisk::default();
    let log = EmbeddedLog::open_on(Arc::new(disk.clone()), place.path(), Options::default()).unwrap();
    let mut chains: Vec<_> = (0..APPENDERS)
        .map(|n| (sample_thread(n), Chain::new(sample_thread(n))))
        .collect();
    let before = log.stats();
    for _ in 0..4 {
        disk.shut();
        let answers: Vec<_> = chains
            .iter_mut()
            .map(|(thread, chain)| {
                let (expected, records, facts) = chain.append(&[Kind::MessagePosted]);
                log.append(*thread, expected, records, facts)
            })
            .collect();
        disk.open();
        for answer in answers {
            wait(answer).unwrap();
        }
    }
    let after = log.stats();
    let (fsyncs, entries) = (after.fsyncs - before.fsyncs, after.entries - before.entries);
    assert_eq!(entries, 1000);
    // Each round is one batch, or two where the writer took the first append alone.
    assert!(fsyncs <= 8, "{fsyncs} fsyncs for {entries} entries");
    drop(log);
    agree(&EmbeddedLog::open(place.path(), Options::default()).unwrap(), &chains);
}

#[test]
fn a_full_queue_is_busy_and_nothing_is_handed_over() {
    let place = place();
    let disk = GatedDisk::default();
    let log = EmbeddedLog::open_on(
        Arc::new(disk.clone()),
        place.path(),
        Options {
            max_queued_appends: 3,
            ..small()
        },
    )
    .unwrap();
    disk.shut();
    let first = log.put(b"0", Vec::new());
    disk.until_one_waits();
    let queued: Vec<_> = [b"1", b"2", b"3"]
        .into_iter()
        .map(|key| log.put(key, Vec::new()))
        .collect();
    assert_eq!(wait(log.put(b"4", Vec::new())), Err(AppendError::Busy));
    disk.open();
    wait(first).unwrap();
    for answer in queued {
        wait(answer).unwrap();
    }
    wait(log.put(b"5", Vec::new())).unwrap();
    assert_eq!(wait(log.get(b"4")), Ok(None));
    assert_eq!(wait(log.get(b"3")), Ok(Some(Vec::new())));
}

/// What one run against a failing disk was told.
#[derive(Default)]
struct Told {
    /// What reads must answer, in order; and behind it what they may.
    threads: BTreeMap<ThreadId, (Vec<Record>, Vec<Record>)>,
    /// What must be there, or one of several.
    mark: Vec<Option<Vec<u8>>>,
}

/// Does some of everything on a failing disk, and keeps book of what was answered.
fn work(disk: &FaultyDisk, directory: &Path) -> Told {
    let mut told = Told {
        mark: vec![None],
        ..Told::default()
    };
    // Where even the opening failed, nothing was acknowledged.
    let Ok(log) = EmbeddedLog::open_on(Arc::new(disk.clone()), directory, small()) else {
        return told;
    };
    let mut chains: Vec<_> = (1..=2)
        .map(|n| (sample_thread(n), Chain::new(sample_thread(n))))
        .collect();
    for round in 0..9_u8 {
        for (thread, chain) in &mut chains {
            let (acknowledged, possible) = told.threads.entry(*thread).or_default();
            if !possible.is_empty() {
                continue;
            }
            let before = chain.clone();
            let (expected, records, mut facts) = chain.append(if round == 4 {
                &[Kind::MessageRedacted]
            } else {
                &[Kind::MessagePosted, Kind::MessageEdited]
            });
            if round == 4 {
                facts.erase = vec![(Seq::saturating(1), records[0].seq)];
                chain.records[0].body = Body::Erased(records[0].seq);
            }
            match wait(log.append(*thread, expected, records, facts)) {
                Ok(()) => acknowledged.clone_from(&chain.records),
                // What was definitely not appended is made again.
                Err(error) if error.is_definite() => *chain = before,
                Err(_) => possible.clone_from(&chain.records),
            }
            let seen = read_all(&log, *thread);
            if let Ok(seen) = seen {
                assert_eq!(seen, *acknowledged, "what is seen is what was acknowledged");
            }
        }
        let value = vec![round; 4];
        match wait(log.put(b"mark", value.clone())) {
            Ok(()) => told.mark = vec![Some(value)],
            Err(error) if error.is_definite() => {}
            Err(_) => told.mark.push(Some(value)),
        }
    }
    told
}

/// No acknowledged entry is lost, no refused one appears, and the log goes on.
fn verify(directory: &Path, told: &Told, what: &str) {
    let log = EmbeddedLog::open(directory, small()).unwrap_or_else(|error| panic!("{what}: {error}"));
    for (thread, (acknowledged, possible)) in &told.threads {
        let found = read_all(&log, *thread).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(
            found == *acknowledged || (!possible.is_empty() && found == *possible),
            "{what}: {} entries, {} acknowledged",
            found.len(),
            acknowledged.len()
        );
    }
    let mark = wait(log.get(b"mark")).unwrap();
    assert!(told.mark.contains(&mark), "{what}: {mark:?}, {:?}", told.mark);
    let thread = sample_thread(9);
    let mut chain = Chain::new(thread);
    append(&log, thread, chain.append(&[Kind::ThreadCreated]));
    drop(log);
    let report = check(directory).unwrap();
    assert!(report.is_sound() && report.torn.is_none(), "{what}: {report:?}");
    agree(&open(directory), &[(thread, chain)]);
}

fn fail_every_call(fault: Fault) {
    for n in 1.. {
        let place = place();
        let disk = FaultyDisk::new(n, fault);
        let told = work(&disk, place.path());
        verify(place.path(), &told, &format!("{fault:?} at call {n}"));
        if !disk.has_failed() {
            assert!(n > 40, "only {n} calls");
            return;
        }
    }
}

#[test]
fn g2_any_one_call_may_fail() {
    fail_every_call(Fault::Error);
}

#[test]
fn g2_any_one_write_may_be_done_by_half() {
    fail_every_call(Fault::Half);
}

#[test]
fn g2_any_one_call_may_fail_after_it_was_done() {
    fail_every_call(Fault::Late);
}

#[test]
fn g2_the_disk_may_be_full_at_any_call() {
    fail_every_call(Fault::Full);
}

#[test]
fn a_full_disk_is_a_definite_no_and_space_mends_it() {
    let place = place();
    let log = open(place.path());
    let mut chain = Chain::new(sample_thread(1));
    append(&log, sample_thread(1), chain.append(&[Kind::ThreadCreated]));
    drop(log);
    // Calls at opening: two writes of what was there, one fsync, one of the directory. Then the append's write.
    let disk = FaultyDisk::new(5, Fault::Full);
    let log = EmbeddedLog::open_on(Arc::new(disk.clone()), place.path(), small()).unwrap();
    let before = chain.clone();
    let (expected, records, facts) = chain.append(&[Kind::MessagePosted]);
    let answer = wait(log.append(sample_thread(1), expected, records, facts));
    assert!(
        matches!(&answer, Err(AppendError::Refused { why }) if why.contains("full")),
        "{answer:?}"
    );
    assert!(matches!(log.health(), Health::Full { reason } if reason.contains("free some space")));
    chain = before;
    append(&log, sample_thread(1), chain.append(&[Kind::MessagePosted]));
    assert_eq!(log.health(), Health::Ready);
    drop(log);
    agree(&open(place.path()), &[(sample_thread(1), chain)]);
}
