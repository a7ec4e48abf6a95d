//! How fast the embedded engine appends, beside raw write + fdatasync of the same bytes in the same run; and how long opening and reading take.
//!
//! ```text
//! cargo run --release -p choir-log --example append_bench -- [directory] [entries]
//! ```
//!
//! The directory must be on the disk that is to be measured; it is made, and must not exist.

use std::error::Error;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use choir_core::record::{Facts, Record};
use choir_log::conformance::{Chain, wait};
use choir_log::embedded::{EmbeddedLog, Options};
use choir_log::{Log, ReadLimit};
use choir_protocol::entry::Kind;
use choir_protocol::ids::{Seq, ThreadId};

type Append = (Seq, Vec<Record>, Facts);

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments.next().map_or_else(
        || std::env::temp_dir().join(format!("choir-append-bench-{}", std::process::id())),
        PathBuf::from,
    );
    let entries: u64 = arguments.next().map_or(Ok(1_000_000), |text| text.parse())?;
    std::fs::create_dir(&directory)?;
    let result = bench(&directory, entries);
    std::fs::remove_dir_all(&directory)?;
    result
}

fn bench(directory: &Path, entries: u64) -> Result<(), Box<dyn Error>> {
    for appenders in [1, 16, 256] {
        single_entries(directory, appenders)?;
    }
    long_log(directory, entries)
}

/// Appenders that each append one entry after another to a thread of their own. Log and raw file take turns, so that what else the disk does meets both.
fn single_entries(directory: &Path, appenders: usize) -> Result<(), Box<dyn Error>> {
    const TURNS: usize = 8;
    let log = EmbeddedLog::open(&directory.join(format!("log-{appenders}")), Options::default())?;
    let file = File::create_new(directory.join(format!("raw-{appenders}")))?;
    let mut written = 0;
    // Making entries costs hashes; the server's core does that elsewhere, so that it is done before the clock starts.
    let rounds = if appenders == 1 { 2000 } else { 60_000 / appenders };
    let mut chains: Vec<_> = (0..appenders).map(|n| prepared(n as u64, rounds)).collect();
    let (mut latencies, mut ours, mut raw) = (Vec::new(), Duration::ZERO, Duration::ZERO);
    let before = log.stats();
    let mut counted = before;
    for _ in 0..TURNS {
        let start = Instant::now();
        let turn = thread::scope(|scope| {
            let threads: Vec<_> = chains
                .iter_mut()
                .map(|(thread, appends)| scope.spawn(|| appending(&log, *thread, appends, rounds / TURNS)))
                .collect();
            threads
                .into_iter()
                .flat_map(|thread| thread.join().unwrap_or_default())
                .collect::<Vec<_>>()
        });
        ours += start.elapsed();
        latencies.extend(turn);

        // As many writes of the same average size, each made durable.
        let stats = log.stats();
        let batches = stats.batches - counted.batches;
        let block = vec![b'x'; usize::try_from((stats.bytes - counted.bytes) / batches.max(1))?];
        counted = stats;
        let start = Instant::now();
        for _ in 0..batches {
            file.write_all_at(&block, written)?;
            file.sync_data()?;
            written += block.len() as u64;
        }
        raw += start.elapsed();
    }
    let batches = counted.batches - before.batches;
    wait(log.close());
    latencies.sort_unstable();
    let appends = latencies.len();
    let at = |share: f64| {
        latencies
            .get((appends as f64 * share) as usize)
            .copied()
            .unwrap_or_default()
    };
    println!(
        "{appenders:>4} appenders: {:>7.0} appends/s, p50 {:.2?}, p99 {:.2?}; batches of {:.1}, {:.1} fsyncs per 1000 entries; \
         {:.0} batches/s, raw write + fdatasync of the same bytes {:.0}/s: ratio {:.2}",
        appends as f64 / ours.as_secs_f64(),
        at(0.5),
        at(0.99),
        appends as f64 / batches as f64,
        (counted.fsyncs - before.fsyncs) as f64 * 1000.0 / appends as f64,
        batches as f64 / ours.as_secs_f64(),
        batches as f64 / raw.as_secs_f64(),
        raw.as_secs_f64() / ours.as_secs_f64(),
    );
    Ok(())
}

fn appending(log: &EmbeddedLog, thread: ThreadId, appends: &mut Vec<Append>, count: usize) -> Vec<Duration> {
    let next = appends.drain(..count.min(appends.len()));
    let timed = next.map(|(expected, records, facts)| {
        let asked = Instant::now();
        if let Err(error) = wait(log.append(thread, expected, records, facts)) {
            eprintln!("{error}");
        }
        asked.elapsed()
    });
    timed.collect()
}

fn prepared(n: u64, rounds: usize) -> (ThreadId, Vec<Append>) {
    let thread = thread_id(n);
    let mut chain = Chain::new(thread);
    let appends = (0..rounds).map(|_| chain.append(&[Kind::MessagePosted])).collect();
    (thread, appends)
}

fn thread_id(n: u64) -> ThreadId {
    let [a, b, c, d, e, f, g, h] = n.to_be_bytes();
    ThreadId::v7(1_764_000_000_000, [0, 0, a, b, c, d, e, f, g, h])
}

/// A log of many entries in 1,000 threads: how long it takes to write, to open and to read the last 100 of a thread.
fn long_log(directory: &Path, entries: u64) -> Result<(), Box<dyn Error>> {
    const THREADS: u64 = 1000;
    const AT_ONCE: usize = 10;
    let path = directory.join("long");
    let log = EmbeddedLog::open(&path, Options::default())?;
    let mut chains: Vec<_> = (0..THREADS).map(|n| (thread_id(n), Chain::new(thread_id(n)))).collect();
    let start = Instant::now();
    for _ in 0..entries / THREADS / AT_ONCE as u64 {
        let mut answers = Vec::with_capacity(chains.len());
        for (thread, chain) in &mut chains {
            let (expected, records, facts) = chain.append(&vec![Kind::MessagePosted; AT_ONCE]);
            chain.records.clear();
            answers.push(log.append(*thread, expected, records, facts));
        }
        for answer in answers {
            wait(answer)?;
        }
    }
    let stats = log.stats();
    println!(
        "{} entries in {THREADS} threads, {AT_ONCE} an append: {:.0} entries/s, {:.0} MB, {:.2} fsyncs per 1000 entries",
        stats.entries,
        stats.entries as f64 / start.elapsed().as_secs_f64(),
        stats.bytes as f64 / 1e6,
        stats.fsyncs_per_1000_entries().unwrap_or_default(),
    );
    let start = Instant::now();
    wait(log.close());
    drop(log);
    println!("closed in {:.0?}", start.elapsed());

    let start = Instant::now();
    let log = EmbeddedLog::open(&path, Options::default())?;
    println!("opened with its index in {:.0?}", start.elapsed());
    let mut took = Vec::new();
    for (thread, chain) in chains.iter().step_by(7) {
        let start = Instant::now();
        let after = Seq::saturating(chain.seq().get().saturating_sub(100));
        let run = wait(log.read(*thread, after, ReadLimit::default()))?;
        took.push((start.elapsed(), run.len()));
    }
    took.sort_unstable();
    println!(
        "last 100 entries of a thread: p50 {:.2?}, worst {:.2?}",
        took[took.len() / 2].0,
        took[took.len() - 1].0
    );
    let start = Instant::now();
    let mut found = 0;
    for (thread, chain) in &mut chains {
        let id = chain.new_id();
        found += wait(log.find(*thread, id))?.len();
    }
    println!(
        "a look-up of an id that is not there: {:.1?} ({found} found)",
        start.elapsed() / u32::try_from(THREADS)?
    );
    // As after kill -9: nothing is closed.
    std::mem::forget(log);

    let start = Instant::now();
    let copied = directory.join("copied");
    std::fs::create_dir_all(copied.join("segments"))?;
    for entry in std::fs::read_dir(path.join("segments"))? {
        let entry = entry?;
        std::fs::hard_link(entry.path(), copied.join("segments").join(entry.file_name()))?;
    }
    std::fs::copy(path.join("format"), copied.join("format"))?;
    drop(EmbeddedLog::open(&copied, Options::default())?);
    println!("opened without its index (rebuilt) in {:.1?}", start.elapsed());
    Ok(())
}
