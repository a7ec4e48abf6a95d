//! Many clients on all cores, some of which come and go: everything is applied once, in order, and every replica proves what it holds (G1 to G6, G8).

use std::collections::BTreeSet;

use choir_protocol::ids::{Id, ThreadId};
use choir_protocol::json::object;
use choir_protocol::message::{FromServer, ServerMessage};

use crate::world::{Client, Verifier, World, message};

const CLIENTS: usize = 8;
const POSTS: usize = 40;

/// Posts, now and then loses its connection with answers on the way, and sends again what it has no answer to (A6).
async fn posts(world: &World, name: String, threads: Vec<ThreadId>) -> Vec<Id> {
    let mut client = world.client(&name).await;
    let mut sent = Vec::new();
    for round in 0..POSTS / 4 {
        let mut open = Vec::new();
        for n in 0..4 {
            let thread = threads[(round + n) % threads.len()];
            let action = client.sign(
                thread,
                "action.submit_message",
                &message(&format!("{name} {round} {n}")),
            );
            let seq = client.next_seq(thread);
            client.send_numbered(seq, &action).await;
            open.push((seq, action));
        }
        if round % 3 == 1 {
            client = client.comes_again(world).await;
            assert!(client.session.resumed);
            for (seq, action) in &open {
                client.send_numbered(*seq, action).await;
            }
        }
        for (_, action) in open {
            client.receipt(action.id).await;
            sent.push(action.id);
        }
    }
    sent
}

/// Follows a thread to its end, proving every range, and now and then going away and coming back with its cursor.
async fn follows(world: &World, name: String, thread: ThreadId, end: u64) -> Vec<Id> {
    let mut client = world.client(&name).await;
    let mut verifier = Verifier::default();
    let mut seen = Vec::new();
    let mut since = 0;
    subscribe(&mut client, thread, &verifier).await;
    while verifier.seq() < end {
        let wanted = |heard: &FromServer| {
            heard.thread_id == Some(thread) && matches!(heard.message, ServerMessage::ThreadUpdate(_))
        };
        let ServerMessage::ThreadUpdate(range) = client.raw.find(wanted).await.message else {
            unreachable!()
        };
        let before = verifier.seq();
        verifier.apply(thread, &range);
        seen.extend(
            range
                .entries
                .iter()
                .filter(|entry| entry.seq.get() > before)
                .map(|entry| entry.id),
        );
        since += 1;
        if since == 7 {
            since = 0;
            client = client.comes_again(world).await;
            subscribe(&mut client, thread, &verifier).await;
        }
    }
    seen
}

async fn subscribe(client: &mut Client, thread: ThreadId, verifier: &Verifier) {
    let cursor = verifier.cursor();
    client
        .subscribes_with(thread, |options| {
            options.cursor = Some(cursor);
            options.verify = Some(true);
            options.complete = Some(true);
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn g1_to_g6_hold_in_a_storm_of_clients_that_come_and_go() {
    let world: &'static World = Box::leak(Box::new(World::with(|config| config.times.idle_thread_ms = 1).await));
    let mut owner = world.client("owner").await;
    let mut threads = Vec::new();
    for _ in 0..3 {
        let thread = owner.creates_with(&[], object! { "visibility": "public" }).await;
        for n in 0..CLIENTS {
            owner
                .acts(
                    thread,
                    "action.add_member",
                    crate::world::member(&format!("poster-{n}"), "co_author"),
                )
                .await;
        }
        threads.push(thread);
    }
    let posters: Vec<_> = (0..CLIENTS)
        .map(|n| tokio::spawn(posts(world, format!("poster-{n}"), threads.clone())))
        .collect();
    // Followers begin in the middle of it.
    let begun = 1 + CLIENTS as u64;
    let per_thread = |at: usize| {
        (0..POSTS / 4)
            .flat_map(|round| (0..4).map(move |n| (round + n) % 3))
            .filter(|to| *to == at)
            .count()
            * CLIENTS
    };
    let followers: Vec<_> = (0..6)
        .map(|n| {
            tokio::spawn(follows(
                world,
                format!("follower-{n}"),
                threads[n % 3],
                begun + per_thread(n % 3) as u64,
            ))
        })
        .collect();
    let mut sent = BTreeSet::new();
    for poster in posters {
        sent.extend(poster.await.unwrap());
    }
    assert_eq!(sent.len(), CLIENTS * POSTS);
    let mut histories: Vec<Vec<Id>> = Vec::new();
    for follower in followers {
        histories.push(follower.await.unwrap());
    }
    // G1: who follows the same thread has seen the same in the same order; G3: and everything once.
    for n in 0..3 {
        assert_eq!(histories[n], histories[n + 3]);
        let unique: BTreeSet<_> = histories[n].iter().collect();
        assert_eq!(unique.len() as u64, histories[n].len() as u64);
    }
    let seen: BTreeSet<Id> = histories.into_iter().flatten().collect();
    assert!(sent.is_subset(&seen));
}
