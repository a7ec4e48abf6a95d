//! First sync costs what its snapshot costs, whatever the thread's length, and a restart what is active.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use choir_client::{Client, Config, SecretKey, SubscribeOptions};
use indicatif::ProgressBar;
use serde_json::json;

use crate::made::{self, Made};
use crate::server::{Error, Server, choir_beside};

/// How much longer a long thread's first sync may take than a short one's.
const MOST_RATIO: f64 = 1.5;
/// How many messages a snapshot holds by default (Y3).
const MESSAGES: usize = 50;
/// How long after its start a server may answer the first subscribe.
const MOST_RESTART: Duration = Duration::from_secs(2);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Entries of the long thread.
    #[arg(long, default_value_t = 1_000_000)]
    long: u64,
    /// Entries of the short thread.
    #[arg(long, default_value_t = 1_000)]
    short: u64,
    /// How often each figure is taken; the median counts.
    #[arg(long, default_value_t = 21)]
    rounds: usize,
    /// The `choir` that is measured; the one beside this program where left out.
    #[arg(long)]
    choir: Option<PathBuf>,
    /// Where the threads are kept between runs; made anew, and thrown away, where left out.
    #[arg(long)]
    keep: Option<PathBuf>,
}

/// Measures, prints, and says whether the figures are within their bounds.
pub(crate) async fn run(args: &Args, as_json: bool) -> Result<bool, Error> {
    let choir = args.choir.clone().map_or_else(choir_beside, Ok)?;
    let scratch = tempfile::tempdir()?;
    let home = args.keep.as_deref().unwrap_or_else(|| scratch.path());
    let short = data(home, args.short).await?;
    let long = data(home, args.long).await?;

    let mut first = Medians::default();
    let mut restarts = Vec::new();
    {
        // Both at once and in turn, so that what else the machine does meets both alike.
        let servers = (Server::start(&choir, &short.0)?, Server::start(&choir, &long.0)?);
        for _ in 0..args.rounds {
            first.short.push(sync(&servers.0, &short.1).await?);
            first.long.push(sync(&servers.1, &long.1).await?);
        }
    }
    for _ in 0..5 {
        let begun = Instant::now();
        let server = Server::start(&choir, &long.0)?;
        sync(&server, &long.1).await?;
        restarts.push(begun.elapsed());
    }

    let (short_ms, long_ms) = (ms(median(&mut first.short)), ms(median(&mut first.long)));
    let restart = median(&mut restarts);
    let ratio = long_ms / short_ms;
    let holds = ratio <= MOST_RATIO && restart <= MOST_RESTART;
    if as_json {
        let value = json!({
            "short": { "entries": args.short, "first_sync_ms": short_ms },
            "long": { "entries": args.long, "first_sync_ms": long_ms },
            "ratio": ratio,
            "most_ratio": MOST_RATIO,
            "restart_to_first_subscribe_ms": ms(restart),
            "most_restart_ms": ms(MOST_RESTART),
            "holds": holds,
        });
        println!("{value}");
    } else {
        println!(
            "First sync: connect, authenticate, subscribe, snapshot of 50 messages, verified. Median of {}.",
            args.rounds
        );
        println!("{:>12} entries  {short_ms:8.2} ms", args.short);
        println!(
            "{:>12} entries  {long_ms:8.2} ms   ratio {ratio:.2} (at most {MOST_RATIO})",
            args.long
        );
        println!(
            "Restart over {} entries: first subscribe answered {:.0} ms after the process's start (at most {:.0})",
            args.long,
            ms(restart),
            ms(MOST_RESTART)
        );
    }
    Ok(holds)
}

async fn data(home: &Path, entries: u64) -> Result<(PathBuf, Made), Error> {
    let directory = home.join(format!("thread-of-{entries}"));
    let name = home.join(format!("thread-of-{entries}.id"));
    if let Ok(id) = std::fs::read_to_string(&name) {
        return Ok((directory, Made { thread_id: id.parse()? }));
    }
    let progress = ProgressBar::new(entries).with_message("entries");
    let made = made::thread(&directory, entries, &progress).await?;
    progress.finish_and_clear();
    std::fs::write(&name, made.thread_id.to_string())?;
    Ok((directory, made))
}

/// One first sync, by somebody new.
async fn sync(server: &Server, made: &Made) -> Result<Duration, Error> {
    let key = SecretKey::from_seed(&[9; 32]);
    let begun = Instant::now();
    let client = Client::connect(Config::new(server.url.clone(), key)).await?;
    let thread = client.subscribe(made.thread_id, SubscribeOptions::default()).await?;
    let taken = begun.elapsed();
    let held = thread.replica().map_or(0, |replica| replica.view().messages().len());
    if held != MESSAGES {
        return Err(format!("the snapshot held {held} messages, not {MESSAGES}").into());
    }
    client.close().await;
    Ok(taken)
}

#[derive(Default)]
struct Medians {
    short: Vec<Duration>,
    long: Vec<Duration>,
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}
