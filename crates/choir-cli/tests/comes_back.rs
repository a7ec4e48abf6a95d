//! A client that is killed comes back exactly where it was: a place in a log is a number, and everything from there on is sent (Y6).

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod support;

use support::{World, kinds_of_lines};

#[test]
fn a_follower_that_is_killed_comes_back_where_it_was() {
    let (world, _server) = World::with_server();
    world.ok("alice", &["key", "new"]);
    world.ok("alice", &["thread", "create", "Standup"]);
    for n in 1..=5 {
        world.ok("alice", &["post", &format!("message {n}")]);
    }
    let mut tail = world.start("alice", &["tail", "--json", "--from", "1"]);
    let last = tail.json_until(|line| line["entry"]["seq"] == 4)["entry"]["seq"]
        .as_u64()
        .unwrap();
    tail.kill();
    let mut seen = kinds_of_lines(tail.seen());
    seen.truncate(usize::try_from(last).unwrap());
    drop(tail);

    // While it is away, the thread goes on; so it does once it is back.
    world.ok("alice", &["post", "while away"]);
    let mut again = world.start("alice", &["tail", "--json", "--from", &(last + 1).to_string()]);
    again.json_until(|line| line["entry"]["seq"] == 7);
    world.ok("alice", &["post", "when back"]);
    again.json_until(|line| line["entry"]["seq"] == 8);
    seen.extend(kinds_of_lines(again.seen()));

    let numbers: Vec<u64> = seen.iter().map(|(seq, _)| *seq).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6, 7, 8]);
}
