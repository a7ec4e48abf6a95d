//! G2, G3, G4 and G8 where the server is killed at random moments, also while it starts: what was acknowledged is found, once, in order.
//!
//! `make crash` runs twenty rounds and prints the figures; `CHOIR_CRASH_ROUNDS` and `CHOIR_CRASH_SEED` say otherwise.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod support;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use choir_client::{
    Client, Config, Id, Kind, NewThread, Role, SecretKey, Seq, SharedSignatures, ThreadId, UserId, Walk,
};
use choir_protocol::action::{Action, SubmitMessage};
use choir_protocol::ids::Salt;
use support::World;

const CLIENTS: usize = 16;
/// How many actions of a client are under way at once.
const IN_FLIGHT: usize = 8;
const CONFIGURATION: &str = "[limits]\nmax_actions_per_second = 1000000\nmax_requests_per_second = 1000000\n";

/// SplitMix64: the kills of a seed are the same every time, as far as the machine lets them.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % bound
    }
}

/// What one client handed over, in order, and where each was acknowledged.
#[derive(Default)]
struct Written {
    ids: Vec<Id>,
    receipts: Vec<(Id, Seq)>,
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}

#[test]
fn g2_g3_g4_nothing_acknowledged_is_lost_doubled_or_reordered_by_sigkill() {
    let rounds = setting("CHOIR_CRASH_ROUNDS", 4);
    let seed = setting("CHOIR_CRASH_SEED", u64::from(std::process::id()));
    eprintln!("seed {seed}, {rounds} rounds");
    let mut world = World::new();
    let configuration = world.path("choir.toml");
    std::fs::write(&configuration, CONFIGURATION).unwrap();
    let (configuration, data) = (
        configuration.to_str().unwrap().to_owned(),
        world.path("data").to_str().unwrap().to_owned(),
    );
    let serve = |world: &World, listen: &str| {
        world.start(
            "nobody",
            &[
                "serve",
                "--listen",
                listen,
                "--data",
                &data,
                "--config",
                &configuration,
                "--json",
            ],
        )
    };
    let mut server = serve(&world, "127.0.0.1:0");
    world.url = server.json_until(|line| line["ready"] == true)["url"]
        .as_str()
        .unwrap()
        .to_owned();
    let address = world
        .url
        .trim_start_matches("ws://")
        .trim_end_matches("/v1/ws")
        .to_owned();

    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let (clients, thread_id) = runtime.block_on(cast(&world.url));
    let stop = Arc::new(AtomicBool::new(false));
    let acknowledged = Arc::new(AtomicU64::new(0));
    let writers: Vec<_> = clients
        .iter()
        .map(|client| {
            runtime.spawn(write(
                client.clone(),
                thread_id,
                Arc::clone(&stop),
                Arc::clone(&acknowledged),
            ))
        })
        .collect();

    let mut random = Random(seed);
    let mut kills_at_start = 0;
    for _ in 0..rounds {
        // The moment of a kill is what is random here; nothing waits by the clock to be right.
        let before = acknowledged.load(Ordering::Relaxed);
        let deadline = Instant::now() + support::PATIENCE;
        while acknowledged.load(Ordering::Relaxed) == before {
            assert!(
                Instant::now() < deadline,
                "nothing is acknowledged any more\n{}",
                server.stderr()
            );
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_micros(random.below(400_000)));
        server.kill();
        // A third of the servers that follow are killed again while they start or recover.
        while random.below(3) == 0 {
            kills_at_start += 1;
            let mut starting = serve(&world, &address);
            std::thread::sleep(Duration::from_micros(random.below(60_000)));
            starting.kill();
        }
        server = serve(&world, &address);
        server.json_until(|line| line["ready"] == true);
    }

    stop.store(true, Ordering::Relaxed);
    let written: Vec<Written> = runtime.block_on(async {
        let mut all = Vec::new();
        for writer in writers {
            all.push(
                tokio::time::timeout(support::PATIENCE, writer)
                    .await
                    .expect("every action is answered")
                    .unwrap(),
            );
        }
        all
    });
    let log = runtime.block_on(read(&clients[0], thread_id));
    runtime.block_on(async {
        for client in &clients {
            client.close().await;
        }
    });
    drop(server);

    let figures = judge(&written, &log);
    println!(
        "{} rounds of SIGKILL under {CLIENTS} writing clients, {kills_at_start} more while starting: {} handed over, {} acknowledged, {} found; {} lost, {} twice, {} out of order",
        rounds,
        figures.handed_over,
        figures.acknowledged,
        figures.found,
        figures.lost,
        figures.twice,
        figures.out_of_order
    );
    assert_eq!((figures.lost, figures.twice, figures.out_of_order), (0, 0, 0));
    assert_eq!(
        figures.acknowledged, figures.handed_over,
        "every action ended with a receipt"
    );
    assert_eq!(figures.found, figures.acknowledged);
    assert!(
        figures.acknowledged > rounds * CLIENTS as u64,
        "the run proved something"
    );
}

async fn cast(url: &str) -> (Vec<Client>, ThreadId) {
    let signatures = Arc::new(SharedSignatures::default());
    let mut clients = Vec::new();
    for n in 0..CLIENTS {
        let key = SecretKey::from_seed(&[u8::try_from(n).unwrap() + 1; 32]);
        let config = Config::new(url, key).share_signatures(Arc::clone(&signatures));
        clients.push(Client::connect(config).await.unwrap());
    }
    let members = clients.iter().skip(1).map(|client| client.user_id().unwrap());
    let thread = members.fold(NewThread::titled("crash"), |thread, user: UserId| {
        thread.member(user, Role::CoAuthor)
    });
    let thread_id = clients[0].create_thread(thread).await.unwrap();
    (clients, thread_id)
}

/// Writes until told to stop, then waits for every answer.
async fn write(client: Client, thread_id: ThreadId, stop: Arc<AtomicBool>, acknowledged: Arc<AtomicU64>) -> Written {
    let mut written = Written::default();
    let mut under_way = std::collections::VecDeque::new();
    let mut n = 0_u64;
    loop {
        while under_way.len() < IN_FLIGHT && !stop.load(Ordering::Relaxed) {
            n += 1;
            let message = Action::SubmitMessage(SubmitMessage {
                content: format!("message {n}").into(),
                content_type: None,
                parent: None,
                salt: Salt::from_bytes(u128::from(n).to_be_bytes()),
            });
            let pending = client
                .hand_over(thread_id, message.type_name(), message.to_payload())
                .unwrap();
            written.ids.push(pending.id());
            under_way.push_back(pending);
        }
        let Some(pending) = under_way.pop_front() else {
            return written;
        };
        let id = pending.id();
        let receipt = pending.await.expect("no action is refused");
        written.receipts.push((id, receipt.seq));
        acknowledged.fetch_add(1, Ordering::Relaxed);
    }
}

/// The whole log, each page verified against the root that is known.
async fn read(client: &Client, thread_id: ThreadId) -> Vec<(Seq, Id, UserId)> {
    let newest = client
        .history(thread_id, Seq::saturating(u64::MAX), Some(1))
        .await
        .unwrap();
    let mut walk = Walk::new(thread_id, newest.end());
    let mut log = Vec::new();
    while walk.at().seq > Seq::ZERO {
        let below = walk.at().seq;
        let page = client.history(thread_id, below.next(), Some(1_000)).await.unwrap();
        walk.verify(&page).expect("the log verifies");
        let posted = page
            .entries
            .iter()
            .filter(|entry| entry.kind == Kind::MessagePosted && entry.seq <= below);
        log.extend(posted.map(|entry| (entry.seq, entry.id, entry.author.clone())));
    }
    log.sort_unstable_by_key(|(seq, ..)| *seq);
    log
}

#[derive(Default)]
struct Figures {
    handed_over: u64,
    acknowledged: u64,
    found: u64,
    lost: u64,
    twice: u64,
    out_of_order: u64,
}

fn judge(written: &[Written], log: &[(Seq, Id, UserId)]) -> Figures {
    let mut places: HashMap<Id, Vec<Seq>> = HashMap::new();
    for (seq, id, _) in log {
        places.entry(*id).or_default().push(*seq);
    }
    let mut figures = Figures {
        twice: places.values().filter(|places| places.len() > 1).count() as u64,
        ..Figures::default()
    };
    for client in written {
        figures.handed_over += client.ids.len() as u64;
        figures.acknowledged += client.receipts.len() as u64;
        for (id, seq) in &client.receipts {
            if places.get(id).is_some_and(|places| places.contains(seq)) {
                figures.found += 1;
            } else {
                figures.lost += 1;
            }
        }
        let order: Vec<Seq> = client
            .ids
            .iter()
            .filter_map(|id| places.get(id)?.first().copied())
            .collect();
        figures.out_of_order += order.windows(2).filter(|pair| pair[0] >= pair[1]).count() as u64;
    }
    figures
}
