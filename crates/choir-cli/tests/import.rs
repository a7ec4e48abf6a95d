//! A real conversation, replayed over real sockets: in order, whole, and also where the server dies in the middle.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod support;

use std::net::{Shutdown, TcpListener, TcpStream};

use support::World;

const SAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/irc-sample.raw.txt");
/// What the sample holds, counted by hand: lines that are messages, and those that answer one before them that is a message too.
const MESSAGES: u64 = 57;

#[test]
fn a_conversation_is_replayed_in_its_order_and_all_replicas_agree() {
    let (world, _server) = World::with_server();
    let done = world.object(
        "nobody",
        &["import", "irc", SAMPLE, "--thread", "support", "--co-authors", "3"],
    );
    assert_eq!(done["messages"], MESSAGES);
    assert_eq!(done["replicas_equal"], true);
    assert_eq!(done["clients"], 11);
    let specs = done["specs"].as_u64().unwrap();
    assert!(specs > 10 && specs < MESSAGES, "{done}");
    assert_eq!(done["approvals"].as_u64(), Some(specs), "any: one approval each");
    // A spec is four entries; a message one; the thread one, and two co-authors join.
    assert_eq!(done["entries"].as_u64(), Some(specs * 4 + (MESSAGES - specs) + 3));

    // Whoever reads the thread later sees the same.
    world.ok("reader", &["key", "new"]);
    let verified = world.object("reader", &["verify", "support"]);
    assert_eq!(verified["root"], done["root"]);
    assert_eq!(verified["failures"].as_array().unwrap().len(), 0);
}

#[test]
fn more_approvals_are_given_where_the_policy_asks_for_more() {
    let (world, _server) = World::with_server();
    for (policy, each) in [("majority", 2), ("unanimous", 3), ("2", 2)] {
        let done = world.object(
            "nobody",
            &["import", "irc", SAMPLE, "--policy", policy, "--co-authors", "3"],
        );
        assert_eq!(done["messages"], MESSAGES, "{policy}");
        assert_eq!(done["replicas_equal"], true, "{policy}");
        assert_eq!(
            done["approvals"].as_u64(),
            done["specs"].as_u64().map(|specs| specs * each),
            "{policy}"
        );
    }
}

#[test]
fn a_server_that_is_killed_in_the_middle_and_started_again_loses_and_doubles_nothing() {
    let (mut world, mut server) = World::with_server();
    let address = world.address();
    world.ok("witness", &["key", "new"]);
    let import = world.start(
        "nobody",
        &[
            "import",
            "irc",
            SAMPLE,
            "--thread",
            "support",
            "--policy",
            "majority",
            "--co-authors",
            "4",
            "--json",
        ],
    );
    // The thread is there once its first messages are; then somebody who looks on sees the middle come.
    while world.objects("witness", &["threads", "--public"]).is_empty() {}
    let mut tail = world.start("witness", &["tail", "support", "--json"]);
    let mut published = 0;
    tail.json_until(|line| line["entry"]["kind"] == "message_posted" && line["entry"]["seq"].as_u64() > Some(60));
    for line in tail.seen() {
        published += u64::from(line.contains("\"message_posted\""));
    }
    assert!(published < MESSAGES, "the import was still under way");
    server.kill();
    let _server = world.serve(&address);

    let done = import.finish();
    assert_eq!(done.code, Some(0), "{done}");
    let done: serde_json::Value = serde_json::from_str(done.stdout.lines().last().unwrap()).unwrap();
    assert_eq!(done["messages"], MESSAGES);
    assert_eq!(done["replicas_equal"], true, "{done}");
    assert!(done["reconnects"].as_u64().unwrap() > 0, "{done}");
}

/// Stands between clients and a server, and hangs up on some connections before anything is said, counted from 0.
fn hang_up_on(unlucky: &'static [usize], listener: TcpListener, server: String) {
    std::thread::spawn(move || {
        for (number, client) in listener.incoming().enumerate() {
            let Ok(client) = client else { return };
            if unlucky.contains(&number) {
                continue;
            }
            let server = TcpStream::connect(&server).unwrap();
            for (mut from, mut to) in [
                (client.try_clone().unwrap(), server.try_clone().unwrap()),
                (server, client),
            ] {
                std::thread::spawn(move || {
                    let _ = std::io::copy(&mut from, &mut to);
                    let _ = to.shutdown(Shutdown::Write);
                });
            }
        }
    });
}

#[test]
fn a_server_that_is_away_when_somebody_comes_in_is_waited_for() {
    let between = TcpListener::bind("127.0.0.1:0").unwrap();
    let dialled = between.local_addr().unwrap();
    let mut world = World::new();
    let config = world.path("choir.toml");
    std::fs::write(&config, format!("audiences = [\"http://{dialled}\"]")).unwrap();
    let _server = world.serve_with("127.0.0.1:0", &["--config", config.to_str().unwrap()]);
    // A co-author's first connection, and that of somebody who speaks later.
    hang_up_on(&[1, 6], between, world.address());
    world.url = format!("ws://{dialled}");
    let done = world.object("nobody", &["import", "irc", SAMPLE, "--co-authors", "3"]);
    assert_eq!(done["messages"], MESSAGES);
    assert_eq!(done["replicas_equal"], true, "{done}");
}

#[test]
fn without_a_server_an_import_ends_at_once() {
    let mut world = World::new();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    world.url = format!("ws://127.0.0.1:{port}");
    let stderr = world.fails(3, "nobody", &["import", "irc", SAMPLE]);
    assert!(
        stderr.contains("nobody listens there") && stderr.contains("choir serve"),
        "{stderr}"
    );
}

#[test]
fn what_can_not_be_imported_is_said_before_anything_is_sent() {
    let (world, _server) = World::with_server();
    let file = |name: &str, bytes: &[u8]| {
        let path = world.path(name);
        std::fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let empty = file("empty.txt", b"=== somebody has joined #ubuntu\n");
    let latin = file("latin.txt", b"[09:59] <a> caf\xe9\n");
    let log = file("log.txt", b"[09:59] <a> hello\n");
    let links = file("links.txt", b"1 2 -\nx y -\n");
    let nowhere = world.path("nowhere").to_str().unwrap().to_owned();
    for (arguments, says) in [
        (vec!["import", "irc", &nowhere], "nowhere"),
        (vec!["import", "irc", &empty], "nobody says anything"),
        (vec!["import", "irc", &latin], "isn't UTF-8"),
        (vec!["import", "irc", &log, "--annotation", &links], "links.txt:2"),
        (vec!["import", "irc", &log, "--speed", "0"], "--speed"),
    ] {
        let done = world.run("nobody", &arguments);
        assert_eq!(done.code, Some(2), "{done}");
        assert!(done.stderr.contains(says), "{done}");
        assert!(done.stderr.contains("Nothing was sent."), "{done}");
    }
    assert!(world.run("nobody", &["import", "irc", &log]).code == Some(0));
}
