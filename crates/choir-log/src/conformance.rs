//! The contract of [`Log`] as a function that every engine runs, with the sample entries that it is written in.
//!
//! An engine's test gives [`run`] a function that makes an empty place and says how to open a log in it. It panics where the engine breaks the contract.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use choir_core::record::{Facts, MemberFact, Record, Summary};
use choir_protocol::canonical::Canonical;
use choir_protocol::entry::{Body, Kind, Proof};
use choir_protocol::hash::Hash;
use choir_protocol::ids::{Cursor, Id, Seq, ThreadId, Timestamp, UserId};
use choir_protocol::json;
use choir_protocol::key::{PublicKey, Signature};
use choir_protocol::merkle::{Peaks, verify_inclusion};
use choir_protocol::thread::{Role, Visibility};

use crate::{AppendError, Health, Log, MAX_KEY_BYTES, MAX_VALUE_BYTES, ReadError, ReadLimit};

/// Opens the log in one place, again each time; the one before is closed by then.
pub type Opener = Box<dyn Fn() -> Arc<dyn Log>>;

/// What an engine keeps when it is closed and opened again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Nothing.
    Forgets,
    /// Everything.
    Survives,
}

/// Runs the whole suite, each test in a new place.
///
/// # Panics
/// Where the engine breaks the contract.
pub fn run(place: impl Fn() -> Opener, durability: Durability) {
    for (name, test) in TESTS {
        tracing::debug!(name, "conformance");
        let opener = place();
        test(&World {
            opener: &opener,
            durability,
        });
    }
}

/// Waits for a future on this thread.
pub fn wait<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(answer) => return answer,
            Poll::Pending => thread::park(),
        }
    }
}

/// A thread's log as the core would have it: it makes records that follow on each other, with a real tree (L7) and made-up signatures.
#[derive(Debug, Clone)]
pub struct Chain {
    thread: ThreadId,
    peaks: Peaks,
    /// All that was made, in order, with their bodies.
    pub records: Vec<Record>,
    /// What the next append's facts say of lists.
    pub summary: Summary,
    salt: u64,
}

impl Chain {
    /// A thread without entries.
    pub fn new(thread: ThreadId) -> Self {
        let summary = Summary {
            title: "A sample".into(),
            visibility: Visibility::Private,
            messages: 0,
            last_activity: Timestamp::ZERO,
            due: None,
            awaiting: Vec::new(),
        };
        Self {
            thread,
            peaks: Peaks::new(),
            records: Vec::new(),
            summary,
            salt: 0,
        }
    }

    /// The number of the last entry that was made.
    pub fn seq(&self) -> Seq {
        Seq::saturating(self.peaks.size())
    }

    /// An id that no other entry of the chain bears.
    pub fn new_id(&mut self) -> Id {
        self.salt += 1;
        let [a, b, c, d, e, f, g, h] = self.salt.to_be_bytes();
        Id::v7(1_764_000_000_000, [0, 0, a, b, c, d, e, f, g, h])
    }

    /// Makes the next entry.
    pub fn entry(&mut self, kind: Kind, id: Id, about: Option<Id>, text: &str) -> Record {
        let seq = self.seq().next();
        let author: UserId = sample_user(u8::try_from(seq.get() % 5).unwrap_or_default());
        let timestamp = Timestamp::saturating(1_764_000_000_000 + seq.get());
        let body = sample_body(text, seq.get());
        let content_hash = body.hash();
        let derived = kind == Kind::SpecResolved;
        let proof = (!derived).then(|| Proof {
            sent_at: timestamp,
            seen: (seq.get() > 1).then(|| Cursor {
                seq: seq.previous(),
                root: self.peaks.root(),
            }),
            key: (seq.get().is_multiple_of(2)).then_some(PublicKey::from_bytes([8; 32])),
            sig: Signature::from_bytes([9; 64]),
            audience: (seq.get().is_multiple_of(3)).then(|| {
                "https://choir.example"
                    .parse()
                    .unwrap_or_else(|_| unreachable!("it is an origin"))
            }),
            id: about.filter(|_| seq.get().is_multiple_of(4)),
            action_type: (seq.get().is_multiple_of(4)).then(|| "action.revise_spec".into()),
        });
        let author = if derived { UserId::choir() } else { author };
        let is_message = kind == Kind::MessagePosted;
        let spec_author = matches!(kind, Kind::SpecSubmitted | Kind::ApprovalGiven).then(|| sample_user(3));
        let messages = self.summary.messages + u64::from(is_message);
        let mut record = Record {
            seq,
            id,
            kind,
            author,
            timestamp,
            content_hash,
            proof,
            body: Body::Present(body),
            root: Hash::EMPTY,
            nodes: Vec::new(),
            messages,
            about,
            spec_author,
        };
        record.nodes = self.peaks.push(record.leaf(self.thread));
        record.root = self.peaks.root();
        self.summary.messages = messages;
        self.summary.last_activity = timestamp;
        self.records.push(record.clone());
        record
    }

    /// Makes an append of entries of these kinds, each with an id of its own: what [`Log::append`] takes behind the thread.
    pub fn append(&mut self, kinds: &[Kind]) -> (Seq, Vec<Record>, Facts) {
        let expected = self.seq();
        let make = |kind: &Kind| {
            let id = self.new_id();
            let text = format!("{kind} {id}");
            self.entry(kind.clone(), id, None, &text)
        };
        let records = kinds.iter().map(make).collect();
        (expected, records, self.facts())
    }

    /// Facts that change no members and erase nothing.
    pub fn facts(&self) -> Facts {
        Facts {
            erase: Vec::new(),
            members: Vec::new(),
            summary: self.summary.clone(),
        }
    }

    /// The number of its last entry and the root there.
    pub fn cursor(&self) -> Cursor {
        Cursor {
            seq: self.seq(),
            root: self.peaks.root(),
        }
    }
}

/// A user for samples.
///
/// # Panics
/// Never: every such text is a user id.
pub fn sample_user(n: u8) -> UserId {
    format!("corp:user-{n}")
        .parse()
        .unwrap_or_else(|_| unreachable!("it has no control characters"))
}

/// A thread id for samples.
pub fn sample_thread(n: u8) -> ThreadId {
    ThreadId::v7(1_764_000_000_000, [n; 10])
}

fn sample_body(text: &str, salt: u64) -> Canonical {
    let value = json::parse(&format!("{{\"content\":{text:?},\"salt\":\"{salt:022}\"}}"));
    Canonical::of(&value.unwrap_or_else(|error| unreachable!("sample texts are plain: {error:?}")))
}

struct World<'a> {
    opener: &'a Opener,
    durability: Durability,
}

impl World<'_> {
    fn open(&self) -> Arc<dyn Log> {
        (self.opener)()
    }

    /// Runs a check on the log as it is, and once more after it was closed and opened again.
    fn now_and_reopened(&self, log: Arc<dyn Log>, check: impl Fn(&dyn Log)) {
        check(&*log);
        if self.durability == Durability::Survives {
            wait(log.close());
            drop(log);
            check(&*self.open());
        }
    }
}

type Test = (&'static str, fn(&World<'_>));

const TESTS: &[Test] = &[
    (
        "g1 entries come back as they were appended",
        g1_entries_come_back_as_they_were_appended,
    ),
    (
        "g1 an append on another head is a conflict",
        g1_an_append_on_another_head_is_a_conflict,
    ),
    (
        "g1 an append that does not follow is refused",
        g1_an_append_that_does_not_follow_is_refused,
    ),
    (
        "g1 of many appends on one head one succeeds",
        g1_of_many_appends_on_one_head_one_succeeds,
    ),
    (
        "l3 an id and kind stand once in a thread",
        l3_an_id_and_kind_stand_once_in_a_thread,
    ),
    (
        "a8 entries are found by id and by what they are about",
        a8_entries_are_found_by_id_and_by_what_they_are_about,
    ),
    ("reads keep their limits", reads_keep_their_limits),
    ("l6 erased bodies are gone at once", l6_erased_bodies_are_gone_at_once),
    (
        "l6 a state from before a redaction is forgotten",
        l6_a_state_from_before_a_redaction_is_forgotten,
    ),
    (
        "l7 roots peaks and paths hold at every size",
        l7_roots_peaks_and_paths_hold_at_every_size,
    ),
    ("y1 messages are counted", y1_messages_are_counted),
    (
        "y1 threads are listed by newest activity",
        y1_threads_are_listed_by_newest_activity,
    ),
    ("y1 members come and go", y1_members_come_and_go),
    ("s8 due threads come soonest first", s8_due_threads_come_soonest_first),
    (
        "y1 specs that await a user are counted",
        y1_specs_that_await_a_user_are_counted,
    ),
    (
        "y2 small records are kept and replaced",
        y2_small_records_are_kept_and_replaced,
    ),
    ("a state is a cache", a_state_is_a_cache),
    (
        "what does not exist is answered empty",
        what_does_not_exist_is_answered_empty,
    ),
    ("a closed log takes nothing", a_closed_log_takes_nothing),
    ("many threads share the log", many_threads_share_the_log),
];

fn read_all(log: &dyn Log, thread: ThreadId) -> Vec<Record> {
    let mut all: Vec<Record> = Vec::new();
    loop {
        let after = all.last().map_or(Seq::ZERO, |record| record.seq);
        let run = wait(log.read(
            thread,
            after,
            ReadLimit {
                max_entries: 7,
                max_bytes: 1 << 20,
            },
        ))
        .expect("reads");
        if run.is_empty() {
            return all;
        }
        all.extend(run);
    }
}

fn append(log: &dyn Log, thread: ThreadId, (expected, records, facts): (Seq, Vec<Record>, Facts)) {
    wait(log.append(thread, expected, records, facts)).expect("appends");
}

fn g1_entries_come_back_as_they_were_appended(world: &World<'_>) {
    let (log, thread) = (world.open(), sample_thread(1));
    let mut chain = Chain::new(thread);
    append(&*log, thread, chain.append(&Kind::KNOWN));
    for _ in 0..20 {
        append(&*log, thread, chain.append(&[Kind::MessagePosted]));
    }
    let id = chain.new_id();
    let record = chain.entry(Kind::Other("reaction_set".into()), id, Some(id), "of a later version");
    append(&*log, thread, (record.seq.previous(), vec![record], chain.facts()));
    world.now_and_reopened(log, |log| {
        assert_eq!(read_all(log, thread), chain.records);
        let head = wait(log.head(thread)).expect("reads").expect("stands");
        let last = chain.records.last().expect("was made");
        assert_eq!(
            (head.cursor, head.messages, head.timestamp),
            (chain.cursor(), last.messages, last.timestamp)
        );
    });
}

fn g1_an_append_on_another_head_is_a_conflict(world: &World<'_>) {
    let (log, thread) = (world.open(), sample_thread(1));
    let mut chain = Chain::new(thread);
    let first = chain.append(&[Kind::ThreadCreated]);
    let second = chain.append(&[Kind::MessagePosted]);
    let early = wait(log.append(thread, second.0, second.1.clone(), second.2.clone()));
    assert_eq!(
        early,
        Err(AppendError::Conflict { head: Cursor::START }),
        "the thread does not exist yet"
    );
    append(&*log, thread, first.clone());
    let again = wait(log.append(thread, first.0, first.1.clone(), first.2.clone()));
    let head = Cursor {
        seq: first.1[0].seq,
        root: first.1[0].root,
    };
    assert_eq!(again, Err(AppendError::Conflict { head }), "it exists");
    append(&*log, thread, second);
    world.now_and_reopened(log, |log| assert_eq!(read_all(log, thread), chain.records));
}

fn g1_an_append_that_does_not_follow_is_refused(world: &World<'_>) {
    let (log, thread) = (world.open(), sample_thread(1));
    let mut chain = Chain::new(thread);
    append(&*log, thread, chain.append(&[Kind::ThreadCreated, Kind::MessagePosted]));
    let (expected, records, facts) =
        chain
            .clone()
            .append(&[Kind::MessagePosted, Kind::MessagePosted, Kind::MessagePosted]);
    let spoil = |what: &str, change: &dyn Fn(&mut Vec<Record>, &mut Facts)| {
        let (mut records, mut facts) = (records.clone(), facts.clone());
        change(&mut records, &mut facts);
        let answer = wait(log.append(thread, expected, records, facts));
        assert!(matches!(answer, Err(AppendError::Refused { .. })), "{what}: {answer:?}");
    };
    spoil("no entries", &|records, _| records.clear());
    spoil("a gap", &|records, _| {
        records.remove(1);
    });
    spoil("it begins too high", &|records, _| {
        records.remove(0);
    });
    spoil("a missing node", &|records, _| records[1].nodes.clear());
    spoil("a wrong count of messages", &|records, _| records[2].messages += 1);
    spoil("time runs back", &|records, _| records[1].timestamp = Timestamp::ZERO);
    spoil("an erasure by an entry outside", &|_, facts| {
        facts.erase.push((Seq::saturating(1), expected))
    });
    spoil("an erasure of what is not there", &|_, facts| {
        facts.erase.push((Seq::saturating(99), expected.next()))
    });
    append(&*log, thread, chain.append(&[Kind::MessagePosted]));
    assert_eq!(
        read_all(&*log, thread),
        chain.records,
        "nothing of what was refused is there"
    );
}

fn g1_of_many_appends_on_one_head_one_succeeds(world: &World<'_>) {
    let (log, thread) = (world.open(), sample_thread(1));
    let mut chain = Chain::new(thread);
    append(&*log, thread, chain.append(&[Kind::ThreadCreated]));
    for _ in 0..10 {
        let offers: Vec<_> = (0..8_u64)
            .map(|n| {
                let mut chain = chain.clone();
                chain.salt += 1000 * (n + 1);
                let append = chain.append(&[Kind::MessagePosted, Kind::MessageEdited]);
                (chain, append)
            })
            .collect();
        // All are handed over before the first is answered, so that an engine may put them into one batch.
        let answers: Vec<_> = offers
            .iter()
            .map(|(_, (expected, records, facts))| log.append(thread, *expected, records.clone(), facts.clone()))
            .collect();
        let answers: Vec<_> = answers.into_iter().map(wait).collect();
        let winners: Vec<_> = (0..answers.len()).filter(|n| answers[*n].is_ok()).collect();
        assert_eq!(winners.len(), 1, "{answers:?}");
        assert!(
            answers
                .iter()
                .all(|answer| matches!(answer, Ok(()) | Err(AppendError::Conflict { .. }))),
            "{answers:?}"
        );
        chain = offers[winners[0]].0.clone();
    }
    world.now_and_reopened(log, |log| assert_eq!(read_all(log, thread), chain.records));
}

fn l3_an_id_and_kind_stand_once_in_a_thread(world: &World<'_>) {
    let (log, thread) = (world.open(), sample_thread(1));
    let mut chain = Chain::new(thread);
    append(&*log, thread, chain.append(&[Kind::ThreadCreated, Kind::MessagePosted]));
    let taken = chain.records[1].id;
    let check = |log: &dyn Log| {
        let mut again = chain.clone();
        let fresh = again.new_id();
        let records = vec![
            again.entry(Kind::MessageEdited, fresh, Some(taken), "x"),
            again.entry(Kind::MessagePosted, taken, None, "x"),
        ];
        let answer = wait(log.append(thread, chain.seq(), records, again.facts()));
        assert_eq!(
            answer,
            Err(AppendError::Taken {
                seq: Seq::saturating(2)
            })
        );

        let mut twice = chain.clone();
        let records = vec![
            twice.entry(Kind::SpecSubmitted, fresh, None, "x"),
            twice.entry(Kind::SpecSubmitted, fresh, None, "x"),
        ];
        let answer = wait(log.append(thread, chain.seq(), records, twice.facts()));
        assert_eq!(
            answer,
            Err(AppendError::Taken {
                seq: Seq::saturating(3)
            }),
            "twice in one append"
        );
    };
    check(&*log);
    let elsewhere = sample_thread(2);
    let mut other = Chain::new(elsewhere);
    let records = vec![
        other.entry(Kind::ThreadCreated, taken, None, "x"),
        other.entry(Kind::MessagePosted, taken, None, "x"),
    ];
    append(&*log, elsewhere, (Seq::ZERO, records, other.facts()));
    world.now_and_reopened(log, |log| {
        check(log);
        assert_eq!(read_all(log, thread), chain.records);
        assert_eq!(
            read_all(log, elsewhere),
            other.records,
            "another thread has ids of its own, and one id may have several kinds"
        );
    });
}

fn a8_entries_are_found_by_id_and_by_what_they_are_about(world: &World<'_>) {
    let (log, thread) = (world.open(), sample_thread(1));
    let mut chain = Chain::new(thread);
    append(&*log, thread, chain.append(&[Kind::ThreadCreated]));
    let spec = chain.new_id();
    let mut made = Vec::new();
    for kind in [
        Kind::SpecSubmitted,
        Kind::SpecRevised,
        Kind::ApprovalGiven,
        Kind::MessageEdited,
        Kind::SpecResolved,
        Kind::MessagePosted,
    ] {
        let bears = matches!(kind, Kind::SpecSubmitted | Kind::SpecResolved | Kind::MessagePosted);
        let id = if bears { spec } else { chain.new_id() };
        let expected = chain.seq();
        let record = chain.entry(kind, id, (!bears).then_some(spec), "x");
        made.push(record.clone());
        append(&*log, thread, (expected, vec![record], chain.facts()));
        append(&*log, thread, chain.append(&[Kind::MessagePosted]));
    }
    world.now_and_reopened(log, |log| {
        let found = wait(log.find(thread, spec)).expect("reads");
        let expected: Vec<_> = made.iter().map(crate::Found::of).collect();
        assert_eq!(found, expected);
        let approval = wait(log.find(thread, made[2].id)).expect("reads");
        assert_eq!(approval, expected[2..=2]);
        assert_eq!(wait(log.find(sample_thread(2), spec)).expect("reads"), []);
        assert_eq!(wait(log.find(thread, Id::from_bytes([1; 16]))).expect("reads"), []);
    });
}

fn reads_keep_their_limits(world: &World<'_>) {
    let (log, thread) = (world.open(), sample_thread(1));
    let mut chain = Chain::new(thread);
    for _ in 0..6 {
        append(
            &*log,
            thread,
            chain.append(&[
                Kind::MessageEdited,
                Kind::MessagePosted,
                Kind::ApprovalGiven,
                Kind::MessagePosted,
                Kind::MessageEdited,
            ]),
        );
    }
    world.now_and_reopened(log, |log| {
        let run = |after: u64, max_entries: usize, max_bytes: usize| {
            let run =
                wait(log.read(thread, Seq::saturating(after), ReadLimit { max_entries, max_bytes })).expect("reads");
            run.iter().map(|record| record.seq.get()).collect::<Vec<_>>()
        };
        assert_eq!(run(0, 3, usize::MAX), [1, 2, 3]);
        assert_eq!(run(28, 100, usize::MAX), [29, 30]);
        assert_eq!(run(30, 100, usize::MAX), [0_u64; 0]);
        assert_eq!(run(99, 100, usize::MAX), [0_u64; 0]);
        assert_eq!(run(4, 0, 0), [5], "one at least");
        assert_eq!(run(4, 100, 1), [5], "one at least");
        let some = run(4, 100, 3000);
        assert!((1..=10).contains(&some.len()) && some[0] == 5, "{some:?}");
    });
}

fn l6_erased_bodies_are_gone_at_once(world: &World<'_>) {
    let (log, thread) = (world.open(), sample_thread(1));
    let mut chain = Chain::new(thread);
    append(
        &*log,
        thread,
        chain.append(&[
            Kind::ThreadCreated,
            Kind::MessagePosted,
            Kind::MessageEdited,
            Kind::MessagePosted,
        ]),
    );
    let (expected, records, mut facts) = chain.append(&[Kind::MessageRedacted]);
    let by = records[0].seq;
    facts.erase = vec![(Seq::saturating(2), by), (Seq::saturating(3), by)];
    append(&*log, thread, (expected, records, facts));
    // Decided together with its message: the body is never served.
    let (expected, records, mut facts) = chain.append(&[Kind::MessagePosted, Kind::MessageRedacted]);
    facts.erase = vec![(records[0].seq, records[1].seq)];
    append(&*log, thread, (expected, records, facts));
    world.now_and_reopened(log, |log| {
        let mut expected = chain.records.clone();
        expected[1].body = Body::Erased(by);
        expected[2].body = Body::Erased(by);
        expected[5].body = Body::Erased(Seq::saturating(7));
        assert_eq!(read_all(log, thread), expected);
        let found = wait(log.find(thread, expected[1].id)).expect("reads");
        assert_eq!(found[0].content_hash, chain.records[1].content_hash, "the hash stays");
    });
}

fn l6_a_state_from_before_a_redaction_is_forgotten(world: &World<'_>) {
    let (log, thread) = (world.open(), sample_thread(1));
    let mut chain = Chain::new(thread);
    append(&*log, thread, chain.append(&[Kind::ThreadCreated, Kind::MessagePosted]));
    log.save_state(thread, Seq::saturating(2), b"holds what is erased next".to_vec());
    let (expected, records, mut facts) = chain.append(&[Kind::MessageRedacted]);
    facts.erase = vec![(Seq::saturating(2), Seq::saturating(3))];
    append(&*log, thread, (expected, records, facts));
    log.save_state(thread, Seq::saturating(2), b"holds what is erased next".to_vec());
    world.now_and_reopened(log, |log| {
        assert_eq!(wait(log.load_state(thread)).expect("reads"), None)
    });
}

fn l7_roots_peaks_and_paths_hold_at_every_size(world: &World<'_>) {
    let (log, thread) = (world.open(), sample_thread(1));
    let mut chain = Chain::new(thread);
    for _ in 0..7 {
        append(
            &*log,
            thread,
            chain.append(&[Kind::MessagePosted, Kind::MessageEdited, Kind::MessageRedacted]),
        );
    }
    world.now_and_reopened(log, |log| {
        let mut peaks = Peaks::new();
        assert_eq!(wait(log.root_at(thread, Seq::ZERO)), Ok(Some(Hash::EMPTY)));
        assert_eq!(wait(log.peaks_at(thread, Seq::ZERO)), Ok(Some(Peaks::new())));
        for size in chain.records.iter().map(|record| record.seq) {
            let at = usize::try_from(size.get()).expect("small");
            peaks.push(chain.records[at - 1].leaf(thread));
            assert_eq!(wait(log.root_at(thread, size)), Ok(Some(peaks.root())));
            assert_eq!(wait(log.peaks_at(thread, size)), Ok(Some(peaks.clone())));
            for record in &chain.records[..at] {
                let path = wait(log.inclusion_path(thread, record.seq, size))
                    .expect("reads")
                    .expect("is in it");
                assert!(
                    verify_inclusion(
                        &record.leaf(thread),
                        record.seq.get() - 1,
                        size.get(),
                        &path,
                        &peaks.root()
                    ),
                    "{} in {size}",
                    record.seq
                );
            }
            assert_eq!(wait(log.inclusion_path(thread, size.next(), size)), Ok(None));
            assert_eq!(wait(log.inclusion_path(thread, Seq::ZERO, size)), Ok(None));
        }
        let above = chain.seq().next();
        assert_eq!(wait(log.root_at(thread, above)), Ok(None));
        assert_eq!(wait(log.peaks_at(thread, above)), Ok(None));
        assert_eq!(wait(log.inclusion_path(thread, chain.seq(), above)), Ok(None));
    });
}

fn y1_messages_are_counted(world: &World<'_>) {
    let (log, thread) = (world.open(), sample_thread(1));
    let mut chain = Chain::new(thread);
    append(&*log, thread, chain.append(&[Kind::ThreadCreated]));
    for n in 0..20 {
        let kind = if n % 3 == 0 {
            Kind::MessageEdited
        } else {
            Kind::MessagePosted
        };
        append(&*log, thread, chain.append(&[kind]));
    }
    world.now_and_reopened(log, |log| {
        let mut n = 0;
        for record in &chain.records {
            assert_eq!(wait(log.messages_at(thread, record.seq)), Ok(record.messages));
            if record.kind == Kind::MessagePosted {
                n += 1;
                assert_eq!(wait(log.message_seq(thread, n)), Ok(Some(record.seq)));
            }
        }
        assert_eq!(wait(log.messages_at(thread, Seq::ZERO)), Ok(0));
        assert_eq!(wait(log.messages_at(thread, Seq::saturating(99))), Ok(n));
        assert_eq!(wait(log.message_seq(thread, 0)), Ok(None));
        assert_eq!(wait(log.message_seq(thread, n + 1)), Ok(None));
    });
}

fn y1_threads_are_listed_by_newest_activity(world: &World<'_>) {
    let log = world.open();
    let user = sample_user(1);
    let mut chains: Vec<_> = (0..10)
        .map(|n| (sample_thread(n), Chain::new(sample_thread(n))))
        .collect();
    for (n, (thread, chain)) in chains.iter_mut().enumerate() {
        let (expected, records, mut facts) = chain.append(&[Kind::ThreadCreated]);
        facts.summary.visibility = if n % 2 == 0 {
            Visibility::Public
        } else {
            Visibility::Private
        };
        chain.summary.visibility = facts.summary.visibility;
        facts.members = vec![(
            user.clone(),
            Some(MemberFact {
                role: Role::Owner,
                joined: true,
            }),
        )];
        append(&*log, *thread, (expected, records, facts));
    }
    for (n, (thread, chain)) in chains.iter_mut().enumerate() {
        // Number 7 becomes the newest; the others follow in the order of their numbers, two at a time with the same time.
        let count = if n == 7 { 9 } else { 1 + n / 2 };
        append(&*log, *thread, chain.append(&vec![Kind::MessagePosted; count]));
    }
    let mut order: Vec<_> = chains
        .iter()
        .map(|(thread, chain)| (std::cmp::Reverse(chain.summary.last_activity), *thread))
        .collect();
    order.sort();
    let order: Vec<_> = order.into_iter().map(|(_, thread)| thread).collect();
    world.now_and_reopened(log, |log| {
        let pages = |list: &dyn Fn(Option<&str>) -> crate::ThreadPage| {
            let (mut rows, mut after): (Vec<_>, Option<String>) = (Vec::new(), None);
            loop {
                let page = list(after.as_deref());
                assert!(page.rows.len() <= 3);
                rows.extend(page.rows);
                after = page.next;
                if after.is_none() {
                    return rows;
                }
            }
        };
        let mine = pages(&|after| wait(log.threads_of(&user, after, 3)).expect("reads"));
        assert_eq!(mine.iter().map(|row| row.thread).collect::<Vec<_>>(), order);
        for row in &mine {
            let (_, chain) = chains
                .iter()
                .find(|(thread, _)| *thread == row.thread)
                .expect("was made");
            assert_eq!((row.head, &row.summary), (chain.seq(), &chain.summary));
            assert_eq!(
                row.member,
                Some(MemberFact {
                    role: Role::Owner,
                    joined: true
                })
            );
        }
        let public = pages(&|after| wait(log.public_threads(after, 3)).expect("reads"));
        let public_order: Vec<_> = order
            .iter()
            .copied()
            .filter(|thread| chains.iter().step_by(2).any(|(even, _)| even == thread))
            .collect();
        assert_eq!(public.iter().map(|row| row.thread).collect::<Vec<_>>(), public_order);
        assert!(public.iter().all(|row| row.member.is_none()));
        for wrong in ["", "x", "1764000000001", "1764000000001.x"] {
            assert_eq!(wait(log.threads_of(&user, Some(wrong), 3)), Err(ReadError::After));
            assert_eq!(wait(log.public_threads(Some(wrong), 3)), Err(ReadError::After));
        }
    });
}

fn y1_members_come_and_go(world: &World<'_>) {
    let log = world.open();
    let (alice, bob) = (sample_user(1), sample_user(11));
    for n in 0..6 {
        let thread = sample_thread(n);
        let mut chain = Chain::new(thread);
        let (expected, records, mut facts) = chain.append(&[Kind::ThreadCreated]);
        facts.members = vec![
            (
                alice.clone(),
                Some(MemberFact {
                    role: Role::Owner,
                    joined: true,
                }),
            ),
            (
                bob.clone(),
                Some(MemberFact {
                    role: Role::Reader,
                    joined: false,
                }),
            ),
        ];
        append(&*log, thread, (expected, records, facts));
        let (expected, records, mut facts) = chain.append(&[Kind::MemberJoined]);
        facts.members = match n {
            0 | 3 => vec![(
                bob.clone(),
                Some(MemberFact {
                    role: Role::CoAuthor,
                    joined: true,
                }),
            )],
            1 => vec![(alice.clone(), None), (bob.clone(), None)],
            _ => Vec::new(),
        };
        if n == 3 {
            facts.summary.visibility = Visibility::Public;
        }
        append(&*log, thread, (expected, records, facts));
    }
    world.now_and_reopened(log, |log| {
        let joined = |user: &UserId, after: Option<u8>, limit: usize| {
            wait(log.joined_threads(user, after.map(sample_thread), limit)).expect("reads")
        };
        assert_eq!(joined(&alice, None, 100), [0, 2, 3, 4, 5].map(sample_thread));
        assert_eq!(joined(&alice, None, 2), [0, 2].map(sample_thread));
        assert_eq!(joined(&alice, Some(2), 2), [3, 4].map(sample_thread));
        assert_eq!(joined(&alice, Some(5), 2), []);
        assert_eq!(joined(&bob, None, 100), [0, 3].map(sample_thread));
        let roles = wait(log.threads_of(&bob, None, 100)).expect("reads");
        assert_eq!(roles.rows.len(), 5, "invited ones too");
        assert_eq!(
            roles
                .rows
                .iter()
                .filter(|row| row.member
                    == Some(MemberFact {
                        role: Role::CoAuthor,
                        joined: true
                    }))
                .count(),
            2
        );
        // One user's id is the beginning of the other's.
        assert_eq!(
            wait(log.threads_of(&sample_user(1), None, 100))
                .expect("reads")
                .rows
                .len(),
            5
        );
        let public = wait(log.public_threads(None, 100)).expect("reads");
        assert_eq!(
            public.rows.iter().map(|row| row.thread).collect::<Vec<_>>(),
            [sample_thread(3)]
        );
    });
}

fn s8_due_threads_come_soonest_first(world: &World<'_>) {
    let log = world.open();
    for (n, due) in [(1, 500), (2, 300), (3, 400), (4, 900)] {
        let (thread, at) = (sample_thread(n), Timestamp::new(due));
        let mut chain = Chain::new(thread);
        chain.summary.due = at;
        append(&*log, thread, chain.append(&[Kind::ThreadCreated]));
        if n == 3 {
            chain.summary.due = None;
            append(&*log, thread, chain.append(&[Kind::SpecResolved]));
        }
        if n == 4 {
            chain.summary.due = Timestamp::new(100);
            append(&*log, thread, chain.append(&[Kind::SpecSubmitted]));
        }
    }
    world.now_and_reopened(log, |log| {
        let due = |before: u64, limit: usize| wait(log.due(Timestamp::saturating(before), limit)).expect("reads");
        assert_eq!(due(99, 10), []);
        assert_eq!(due(100, 10), [sample_thread(4)]);
        assert_eq!(due(499, 10), [sample_thread(4), sample_thread(2)]);
        assert_eq!(due(10_000, 10), [4, 2, 1].map(sample_thread));
        assert_eq!(due(10_000, 2), [4, 2].map(sample_thread));
    });
}

fn y1_specs_that_await_a_user_are_counted(world: &World<'_>) {
    let log = world.open();
    let (alice, bob) = (sample_user(1), sample_user(2));
    for n in 0..3 {
        let thread = sample_thread(n);
        let mut chain = Chain::new(thread);
        chain.summary.awaiting = vec![(alice.clone(), 2), (bob.clone(), 1)];
        append(&*log, thread, chain.append(&[Kind::ThreadCreated]));
        append(&*log, thread, chain.append(&[Kind::MessagePosted]));
        match n {
            1 => chain.summary.awaiting = vec![(alice.clone(), 1)],
            2 => chain.summary.awaiting = Vec::new(),
            _ => {}
        }
        append(&*log, thread, chain.append(&[Kind::ApprovalGiven]));
    }
    world.now_and_reopened(log, |log| {
        assert_eq!(
            wait(log.awaiting(&alice, 10)),
            Ok(vec![(sample_thread(0), 2), (sample_thread(1), 1)])
        );
        assert_eq!(wait(log.awaiting(&alice, 1)), Ok(vec![(sample_thread(0), 2)]));
        assert_eq!(wait(log.awaiting(&bob, 10)), Ok(vec![(sample_thread(0), 1)]));
        assert_eq!(wait(log.awaiting(&sample_user(3), 10)), Ok(vec![]));
    });
}

fn y2_small_records_are_kept_and_replaced(world: &World<'_>) {
    let log = world.open();
    let key = vec![0xff; MAX_KEY_BYTES];
    let puts: [(&[u8], Vec<u8>); 5] = [
        (b"mark/1", b"1".to_vec()),
        (b"mark/12", b"2".to_vec()),
        (b"mark/1", b"3".to_vec()),
        (&key, vec![7; MAX_VALUE_BYTES]),
        (b"", Vec::new()),
    ];
    let answers: Vec<_> = puts.iter().map(|(key, value)| log.put(key, value.clone())).collect();
    for answer in answers {
        assert_eq!(wait(answer), Ok(()));
    }
    assert!(matches!(
        wait(log.put(&[0; MAX_KEY_BYTES + 1], Vec::new())),
        Err(AppendError::Refused { .. })
    ));
    assert!(matches!(
        wait(log.put(b"x", vec![0; MAX_VALUE_BYTES + 1])),
        Err(AppendError::Refused { .. })
    ));
    world.now_and_reopened(log, |log| {
        let get = |key: &[u8]| wait(log.get(key)).expect("reads");
        assert_eq!(
            get(b"mark/1"),
            Some(b"3".to_vec()),
            "the later of two that were handed over in order"
        );
        assert_eq!(get(b"mark/12"), Some(b"2".to_vec()));
        assert_eq!(get(&key), Some(vec![7; MAX_VALUE_BYTES]));
        assert_eq!(get(b""), Some(Vec::new()));
        assert_eq!(get(b"x"), None);
    });
}

fn a_state_is_a_cache(world: &World<'_>) {
    let (log, thread) = (world.open(), sample_thread(1));
    let mut chain = Chain::new(thread);
    append(&*log, thread, chain.append(&[Kind::ThreadCreated, Kind::MessagePosted]));
    assert_eq!(wait(log.load_state(thread)), Ok(None));
    log.save_state(thread, Seq::saturating(2), b"state".to_vec());
    log.save_state(sample_thread(2), Seq::saturating(2), b"of no thread".to_vec());
    world.now_and_reopened(log, |log| {
        // It may have been forgotten, but it is never another's.
        let state = wait(log.load_state(thread)).expect("reads");
        assert!(
            state.is_none() || state == Some((Seq::saturating(2), b"state".to_vec())),
            "{state:?}"
        );
        assert_eq!(wait(log.load_state(sample_thread(2))), Ok(None));
    });
}

fn what_does_not_exist_is_answered_empty(world: &World<'_>) {
    let (log, thread, user) = (world.open(), sample_thread(1), sample_user(1));
    world.now_and_reopened(log, |log| {
        assert_eq!(wait(log.head(thread)), Ok(None));
        assert_eq!(wait(log.read(thread, Seq::ZERO, ReadLimit::default())), Ok(vec![]));
        assert_eq!(wait(log.root_at(thread, Seq::ZERO)), Ok(None));
        assert_eq!(wait(log.peaks_at(thread, Seq::ZERO)), Ok(None));
        assert_eq!(
            wait(log.inclusion_path(thread, Seq::saturating(1), Seq::saturating(1))),
            Ok(None)
        );
        assert_eq!(wait(log.messages_at(thread, Seq::saturating(1))), Ok(0));
        assert_eq!(wait(log.message_seq(thread, 1)), Ok(None));
        assert_eq!(wait(log.load_state(thread)), Ok(None));
        assert_eq!(wait(log.threads_of(&user, None, 10)), Ok(crate::ThreadPage::default()));
        assert_eq!(wait(log.public_threads(None, 10)), Ok(crate::ThreadPage::default()));
        assert_eq!(wait(log.joined_threads(&user, None, 10)), Ok(vec![]));
        assert_eq!(wait(log.due(Timestamp::saturating(u64::MAX), 10)), Ok(vec![]));
        assert_eq!(wait(log.awaiting(&user, 10)), Ok(vec![]));
        assert_eq!(log.health(), Health::Ready);
    });
}

fn a_closed_log_takes_nothing(world: &World<'_>) {
    let (log, thread) = (world.open(), sample_thread(1));
    let log_id = log.log_id();
    let mut chain = Chain::new(thread);
    let (expected, records, facts) = chain.append(&[Kind::ThreadCreated]);
    let handed_over = log.append(thread, expected, records, facts);
    wait(log.close());
    assert_eq!(wait(handed_over), Ok(()), "what was handed over is finished");
    let (expected, records, facts) = chain.clone().append(&[Kind::MessagePosted]);
    assert!(matches!(
        wait(log.append(thread, expected, records, facts)),
        Err(AppendError::Broken { .. })
    ));
    assert!(matches!(
        wait(log.put(b"x", Vec::new())),
        Err(AppendError::Broken { .. })
    ));
    assert_ne!(log.health(), Health::Ready);
    wait(log.close());
    if world.durability == Durability::Survives {
        drop(log);
        let log = world.open();
        assert_eq!(log.log_id(), log_id, "the same history");
        assert_eq!(read_all(&*log, thread), chain.records);
        append(&*log, thread, chain.append(&[Kind::MessagePosted]));
    }
}

fn many_threads_share_the_log(world: &World<'_>) {
    let log = world.open();
    let chains: Vec<_> = thread::scope(|scope| {
        let writers: Vec<_> = (0..8_u8)
            .map(|n| {
                let log = &log;
                scope.spawn(move || {
                    let thread = sample_thread(n);
                    let mut chain = Chain::new(thread);
                    for round in 0..40 {
                        append(&**log, thread, chain.append(&vec![Kind::MessagePosted; 1 + round % 3]));
                        let head = wait(log.head(thread)).expect("reads").expect("stands");
                        assert_eq!(head.cursor, chain.cursor(), "what is acknowledged is visible");
                        let from = Seq::saturating(head.cursor.seq.get().saturating_sub(5));
                        let run = wait(log.read(thread, from, ReadLimit::default())).expect("reads");
                        assert_eq!(run, chain.records[usize::try_from(from.get()).expect("small")..]);
                    }
                    (thread, chain)
                })
            })
            .collect();
        writers
            .into_iter()
            .map(|writer| writer.join().expect("wrote"))
            .collect()
    });
    let entries: usize = chains.iter().map(|(_, chain)| chain.records.len()).sum();
    let stats = log.stats();
    assert_eq!((stats.appends, stats.entries), (320, entries as u64));
    world.now_and_reopened(log, |log| {
        for (thread, chain) in &chains {
            assert_eq!(read_all(log, *thread), chain.records);
        }
    });
}
