//! Many writers share the disk's time: how many fsyncs a thousand receipts take, and how many receipts there are in a second.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use choir_client::{
    Client, Config, NewThread, Retain, Role, SecretKey, SharedSignatures, SubscribeOptions, ThreadId, UserId,
};
use serde_json::json;

use crate::server::{Error, Server, choir_beside};

/// How many fsyncs a thousand receipts of 256 writers may take.
const MOST_FSYNCS: f64 = 50.0;

/// How many members a thread is made with.
const AT_CREATION: usize = 150;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How many clients write at once, each one message at a time.
    #[arg(long, default_value_t = 256)]
    clients: u32,
    /// How many messages each writes.
    #[arg(long, default_value_t = 40)]
    messages: u32,
    /// Over how many threads they are spread.
    #[arg(long, default_value_t = 1)]
    threads: u32,
    /// The `choir` that is measured; the one beside this program where left out.
    #[arg(long)]
    choir: Option<PathBuf>,
}

/// Measures, prints, and says whether the figure is within its bound.
pub(crate) async fn run(args: &Args, as_json: bool) -> Result<bool, Error> {
    let choir = args.choir.clone().map_or_else(choir_beside, Ok)?;
    let scratch = tempfile::tempdir()?;
    let configuration = scratch.path().join("choir.toml");
    std::fs::write(&configuration, "[limits]\nmax_actions_per_second = 1000000\n")?;
    let server = Server::start_with(&choir, &scratch.path().join("data"), Some(&configuration))?;
    let (clients, threads) = cast(&server.url, args).await?;

    let before = server.fsyncs().await?;
    let begun = Instant::now();
    let mut writers = Vec::new();
    for (n, client) in clients.iter().enumerate() {
        let (client, messages) = (client.clone(), args.messages);
        let thread_id = *threads.get(n % threads.len()).ok_or("no thread")?;
        writers.push(tokio::spawn(async move {
            let mut times = Vec::new();
            for message in 0..messages {
                let begun = Instant::now();
                client.post(thread_id, format!("message {message}")).await?;
                times.push(begun.elapsed());
            }
            Ok::<_, choir_client::Error>(times)
        }));
    }
    let mut times: Vec<Duration> = Vec::new();
    for writer in writers {
        times.extend(writer.await??);
    }
    let taken = begun.elapsed();
    let after = server.fsyncs().await?;
    for client in &clients {
        client.close().await;
    }

    let receipts = times.len() as f64;
    let fsyncs = after - before;
    let for_1000 = fsyncs as f64 * 1_000.0 / receipts;
    times.sort_unstable();
    let (p50, p99) = (percentile(&times, 50), percentile(&times, 99));
    let holds = for_1000 < MOST_FSYNCS;
    if as_json {
        let value = json!({
            "clients": args.clients, "threads": args.threads, "receipts": receipts, "fsyncs": fsyncs, "fsyncs_per_1000_receipts": for_1000,
            "receipts_per_second": receipts / taken.as_secs_f64(), "p50_ms": p50, "p99_ms": p99, "holds": holds,
        });
        println!("{value}");
    } else {
        println!(
            "{} writers, {} thread(s): {receipts} receipts in {:.2} s ({:.0}/s), p50 {p50:.1} ms, p99 {p99:.1} ms; {fsyncs} fsyncs, {for_1000:.1} for 1,000 receipts (under {MOST_FSYNCS})",
            args.clients,
            args.threads,
            taken.as_secs_f64(),
            receipts / taken.as_secs_f64()
        );
    }
    Ok(holds)
}

fn percentile(sorted: &[Duration], percent: usize) -> f64 {
    let at = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted.get(at).map_or(0.0, |time| time.as_secs_f64() * 1_000.0)
}

/// The writers, connected, and the threads in which they are co-authors.
async fn cast(url: &str, args: &Args) -> Result<(Vec<Client>, Vec<ThreadId>), Error> {
    let signatures = Arc::new(SharedSignatures::default());
    let mut clients = Vec::new();
    for n in 0..args.clients {
        let mut seed = [3; 32];
        seed[..4].copy_from_slice(&n.to_be_bytes());
        let config = Config::new(url, SecretKey::from_seed(&seed))
            .share_signatures(Arc::clone(&signatures))
            .retain(Retain {
                messages: 16,
                entries: 64,
            });
        clients.push(Client::connect(config).await?);
    }
    let count = args.threads.max(1) as usize;
    let mut threads = Vec::new();
    for n in 0..count {
        let writers: Vec<&Client> = clients.iter().skip(n).step_by(count).collect();
        let Some((first, others)) = writers.split_first() else {
            continue;
        };
        let users: Vec<UserId> = others.iter().filter_map(|client| client.user_id()).collect();
        // One user may add 200 members a day (section 12): the second writer is an owner too, and adds the rest.
        let (with_it, later) = users.split_at(users.len().min(AT_CREATION));
        let mut new = NewThread::titled("writers");
        for (n, user) in with_it.iter().enumerate() {
            new = new.member(user.clone(), if n == 0 { Role::Owner } else { Role::CoAuthor });
        }
        let thread_id = first.create_thread(new).await?;
        for user in later {
            let second = others.first().ok_or("later members come after a second one")?;
            second
                .add_member(thread_id, user.clone(), Role::CoAuthor, false)
                .await?;
        }
        // One of them follows the thread, so that what is delivered is delivered to somebody.
        first.subscribe(thread_id, SubscribeOptions::default()).await?;
        threads.push(thread_id);
    }
    Ok((clients, threads))
}
