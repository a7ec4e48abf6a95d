//! What goes wrong says what happened, what it means for the data, and what to do next; and it ends with the exit code that scripts rely on.

mod support;

use std::net::TcpListener;

use support::{World, files, kinds_of_lines};

const FAILED: i32 = 1;
const USAGE: i32 = 2;
const CONNECTION: i32 = 3;

/// Everything that a refusal must hold.
#[track_caller]
fn says(stderr: &str, words: &[&str]) {
    for word in words.iter().chain(&["Error: ", "Hint: "]) {
        assert!(stderr.contains(word), "it should say {word:?}:\n{stderr}");
    }
}

#[test]
fn without_a_server_the_way_out_is_named_at_once() {
    let mut world = World::new();
    // A port that was free a moment ago.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    world.url = format!("ws://127.0.0.1:{port}");
    world.ok("alice", &["key", "new"]);
    for arguments in [
        &["threads"][..],
        &["post", "--thread", "x", "hi"],
        &["tail", "x"],
        &["chat", "x"],
    ] {
        let stderr = world.fails(CONNECTION, "alice", arguments);
        says(
            &stderr,
            &[
                "no connection to",
                "nobody listens there",
                "Nothing was sent.",
                "choir serve",
            ],
        );
    }
    let json = world.fails(CONNECTION, "alice", &["threads", "--json"]);
    let error: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(error["error"]["exit_code"], 3);
}

#[test]
fn without_a_key_nothing_is_dialled() {
    let mut world = World::new();
    world.url = "ws://127.0.0.1:9".to_owned();
    says(
        &world.fails(USAGE, "alice", &["threads"]),
        &["choir --profile alice key new"],
    );
    std::fs::write(world.path("key"), "not a key").unwrap();
    let key = world.path("key");
    says(
        &world.fails(USAGE, "alice", &["threads", "--key", key.to_str().unwrap()]),
        &["holds no key"],
    );
    says(
        &world.fails(USAGE, "alice", &["threads", "--key", "/nowhere"]),
        &["/nowhere"],
    );
    world.ok("bob", &["key", "new"]);
    for url in ["ftp://x", "choir.example", "ws://"] {
        says(
            &world.fails(USAGE, "bob", &["threads", "--url", url]),
            &["no server's URL"],
        );
    }
}

#[test]
fn who_is_not_let_in_learns_why() {
    let mut world = World::new();
    std::fs::write(world.path("choir.toml"), "audiences = [\"https://choir.example\"]\n").unwrap();
    let (config, data) = (world.path("choir.toml"), world.path("data"));
    let mut server = world.start(
        "nobody",
        &[
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--data",
            data.to_str().unwrap(),
            "--config",
            config.to_str().unwrap(),
            "--json",
        ],
    );
    let ready = server.json_until(|line| line["ready"] == true);
    world.url = ready["url"].as_str().unwrap().to_owned();
    world.ok("alice", &["key", "new"]);
    says(
        &world.fails(CONNECTION, "alice", &["threads"]),
        &["authentication_failed", "Nothing was changed", "audiences"],
    );
}

#[test]
fn what_is_not_there_or_not_yours_looks_the_same() {
    let (world, _server) = World::with_server();
    for name in ["alice", "eve"] {
        world.ok(name, &["key", "new"]);
    }
    let secret = world.object("alice", &["thread", "create", "Secret"]);
    world.ok("alice", &["post", "hidden"]);
    let id = secret["thread_id"].as_str().unwrap();
    let other = "01a2104d-af59-72ab-aadc-1f4a5440d550";
    for arguments in [
        &["history"][..],
        &["post", "x", "--thread"],
        &["members"],
        &["specs"],
        &["verify"],
        &["checkpoint"],
        &["tail"],
        &["thread", "join"],
        &["use"],
    ] {
        let outcome = |thread: &str| {
            let mut with_thread = arguments.to_vec();
            with_thread.push(thread);
            world.fails(FAILED, "eve", &with_thread).replace(thread, "THREAD")
        };
        assert_eq!(outcome(id), outcome(other), "{arguments:?}");
    }
    says(
        &world.fails(FAILED, "eve", &["history", "Secret"]),
        &["no thread of yours is called", "choir threads"],
    );
    says(
        &world.fails(USAGE, "eve", &["history"]),
        &["no thread is named", "choir --profile eve use"],
    );
    says(
        &world.fails(FAILED, "alice", &["approve", "last"]),
        &["there is no spec", "Nothing was changed"],
    );
    says(
        &world.fails(USAGE, "alice", &["thread", "add", "nobody-known"]),
        &["nobody is known as", "choir name"],
    );
    says(
        &world.fails(USAGE, "alice", &["post", "--json-content", "{a: 1}"]),
        &["isn't JSON", "Nothing was sent"],
    );
    says(&world.fails(USAGE, "alice", &["post", ""]), &["nothing to say"]);
    says(
        &world.fails(FAILED, "alice", &["thread", "remove", "alice"]),
        &["conflict", "Nothing was changed"],
    );
    let long = "x".repeat(70_000);
    says(&world.fails(FAILED, "alice", &["post", &long]), &["content_too_large"]);
}

#[test]
fn a_data_directory_belongs_to_one_server() {
    let (world, _server) = World::with_server();
    let data = world.path("data");
    let stderr = world.fails(
        FAILED,
        "nobody",
        &["serve", "--listen", "127.0.0.1:0", "--data", data.to_str().unwrap()],
    );
    says(&stderr, &["open in another process", "Nothing was changed", "--data"]);
    let stderr = world.fails(FAILED, "nobody", &["log", "check", data.to_str().unwrap()]);
    says(&stderr, &["open in another process"]);
}

#[test]
fn a_taken_port_and_the_open_network_are_refused() {
    let world = World::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let data = world.path("data");
    let data = data.to_str().unwrap();
    says(
        &world.fails(FAILED, "nobody", &["serve", "--listen", &address, "--data", data]),
        &["listens on", "--listen 127.0.0.1:0", "didn't start"],
    );
    says(
        &world.fails(USAGE, "nobody", &["serve", "--listen", "0.0.0.0:0", "--data", data]),
        &["in the clear", "--insecure-plaintext"],
    );
    says(
        &world.fails(
            USAGE,
            "nobody",
            &["serve", "--listen", "0.0.0.0:0", "--data", data, "--insecure-plaintext"],
        ),
        &["audiences = ["],
    );
    std::fs::write(world.path("file"), "").unwrap();
    let file = world.path("file");
    says(
        &world.fails(
            FAILED,
            "nobody",
            &["serve", "--listen", "127.0.0.1:0", "--data", file.to_str().unwrap()],
        ),
        &["data directory"],
    );
}

#[test]
fn a_configuration_is_read_before_anything_starts() {
    let world = World::new();
    let config = world.path("choir.toml");
    let data = world.path("data");
    for (text, words) in [
        (
            "[limits]\nmax_client = 5\n",
            &["max_client", "did you mean max_clients?"][..],
        ),
        ("[limits\n", &["choir.toml"]),
        ("[heartbeat]\ninterval_ms = 0\n", &["interval_ms is 0"]),
        ("audiences = [\"choir.example\"]\n", &["origin like https://host"]),
    ] {
        std::fs::write(&config, text).unwrap();
        let stderr = world.fails(
            USAGE,
            "nobody",
            &[
                "serve",
                "--data",
                data.to_str().unwrap(),
                "--config",
                config.to_str().unwrap(),
            ],
        );
        says(&stderr, words);
        says(&stderr, &["didn't start", "choir.toml"]);
    }
    assert!(!data.exists(), "nothing was made");
    says(
        &world.fails(USAGE, "nobody", &["serve", "--config", "/nowhere"]),
        &["/nowhere"],
    );
}

/// A world whose server ran, took some entries, and ended.
fn ended_world() -> World {
    let (world, server) = World::with_server();
    world.ok("alice", &["key", "new"]);
    world.ok("alice", &["thread", "create", "T"]);
    for n in 0..5 {
        world.ok("alice", &["post", &format!("message {n}")]);
    }
    server.signal("TERM");
    assert_eq!(server.finish().code, Some(0));
    world
}

#[test]
fn a_newer_log_is_left_alone() {
    let world = ended_world();
    let data = world.path("data");
    let marker = data.join("format");
    let before = std::fs::read_to_string(&marker).unwrap();
    let lines = before
        .split_inclusive('\n')
        .take(3)
        .collect::<String>()
        .replace("format 1\n", "format 2\n");
    let newer = format!("{lines}crc32c {:08x}\n", crc32c(lines.as_bytes()));
    assert_ne!(newer, before);
    std::fs::write(&marker, &newer).unwrap();
    let stderr = world.fails(
        FAILED,
        "nobody",
        &["serve", "--listen", "127.0.0.1:0", "--data", data.to_str().unwrap()],
    );
    says(&stderr, &["knows formats up to", "Nothing was changed", "newer"]);
    assert_eq!(std::fs::read_to_string(&marker).unwrap(), newer);
    std::fs::write(&marker, &before).unwrap();
    world.ok("nobody", &["log", "check", data.to_str().unwrap()]);
}

/// CRC-32C, bit by bit: a later version would have written a right one, too.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0x82F6_3B78 & (crc & 1).wrapping_neg())
        })
    })
}

#[test]
fn a_damaged_log_is_named_and_never_served() {
    let world = ended_world();
    let data = world.path("data");
    let data_text = data.to_str().unwrap().to_owned();
    let sound = world.object("nobody", &["log", "check", &data_text]);
    assert_eq!(sound["entries"], 6);
    assert_eq!(sound["damage"].as_array().unwrap().len(), 0);

    let segment = files(&data)
        .into_iter()
        .find(|file| std::fs::read(file).is_ok_and(|bytes| contains(&bytes, b"message 1")))
        .expect("the log holds what was said");
    let mut bytes = std::fs::read(&segment).unwrap();
    let at = bytes.windows(9).position(|window| window == b"message 1").unwrap();
    bytes[at] ^= 1;
    std::fs::write(&segment, &bytes).unwrap();

    let done = world.run("nobody", &["log", "check", &data_text]);
    assert_eq!(done.code, Some(FAILED), "{done}");
    assert!(done.stdout.contains("damaged at"), "{done}");
    says(&done.stderr, &["restore", "never served"]);
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[test]
fn a_follower_misses_nothing_when_the_server_is_killed() {
    let (mut world, mut server) = World::with_server();
    world.ok("alice", &["key", "new"]);
    world.ok("alice", &["thread", "create", "T"]);
    let mut tail = world.start("alice", &["tail", "--from", "1", "--json"]);
    tail.json_until(|line| line["entry"]["seq"] == 1);
    let address = world
        .url
        .trim_start_matches("ws://")
        .trim_end_matches("/v1/ws")
        .to_owned();
    let mut last = 1;
    for round in 0..3 {
        for n in 0..4 {
            last = world.object("alice", &["post", &format!("round {round}, message {n}")])["seq"]
                .as_u64()
                .unwrap();
        }
        // What is acknowledged is durable, whether or not the follower has it yet.
        server.kill();
        drop(server);
        server = world.serve(&address);
        let posted = world.object("alice", &["post", "while it comes back"]);
        assert_eq!(posted["seq"], last + 1, "nothing acknowledged is lost");
        last += 1;
    }
    tail.json_until(|line| line["entry"]["seq"] == last);
    let seen: Vec<u64> = kinds_of_lines(tail.seen()).into_iter().map(|(seq, _)| seq).collect();
    assert_eq!(seen, (1..=last).collect::<Vec<_>>(), "each once, in order");
    let stderr = tail.stderr();
    assert!(
        stderr.contains("connection is lost") && stderr.contains("Connected again"),
        "{stderr}"
    );
    assert_eq!(
        world.object("alice", &["verify"])["failures"].as_array().unwrap().len(),
        0
    );
}

#[test]
fn a_server_that_was_set_up_anew_is_told() {
    let (mut world, server) = World::with_server();
    world.ok("alice", &["key", "new"]);
    world.ok("alice", &["thread", "create", "T"]);
    let address = world
        .url
        .trim_start_matches("ws://")
        .trim_end_matches("/v1/ws")
        .to_owned();
    server.signal("TERM");
    server.finish();
    std::fs::rename(world.path("data"), world.path("old")).unwrap();
    let _server = world.serve(&address);
    let done = world.run("alice", &["threads"]);
    assert!(done.stderr.contains("another key"), "{done}");
    let done = world.run("alice", &["threads"]);
    assert_eq!(done.stderr, "", "told once");
    says(&world.fails(FAILED, "alice", &["post", "hi"]), &["not_found"]);
}

#[test]
fn what_is_no_receipt_proves_nothing() {
    let world = World::new();
    let file = world.path("receipt.json");
    std::fs::write(&file, "{}").unwrap();
    let stderr = world.fails(FAILED, "alice", &["verify", "--receipt", file.to_str().unwrap()]);
    says(&stderr, &["not a receipt", "doesn't show"]);
    world.fails(USAGE, "alice", &["verify", "T", "--receipt", file.to_str().unwrap()]);
}

#[test]
fn a_role_that_does_not_exist_invites_nobody() {
    let (world, _server) = World::with_server();
    world.ok("bob", &["key", "new"]);
    world.ok("alice", &["key", "new"]);
    world.ok("alice", &["thread", "create", "T"]);
    for member in ["bob:boss", "bob:Reader", "bob:boss:agent"] {
        let stderr = world.fails(USAGE, "alice", &["thread", "add", member]);
        says(
            &stderr,
            &["is no role", "Nothing was sent.", "reader, co_author and owner"],
        );
        world.fails(USAGE, "alice", &["thread", "create", "U", "--member", member]);
    }
    assert_eq!(world.objects("alice", &["members"]).len(), 1);
    assert_eq!(world.objects("alice", &["threads"]).len(), 1);
}

#[test]
fn a_subject_may_hold_colons_where_a_key_may_not() {
    let (world, _server) = World::with_server();
    world.ok("alice", &["key", "new"]);
    world.ok("alice", &["thread", "create", "T"]);
    let key = world.object("bob", &["key", "new"])["user_id"]
        .as_str()
        .unwrap()
        .to_owned();
    let wrong = format!("{key}:boss");
    says(
        &world.fails(USAGE, "alice", &["thread", "add", &wrong]),
        &["is no role"],
    );
    let added = world.object("alice", &["thread", "add", "okta:urn:people:42"]);
    assert_eq!(added["user_id"], "okta:urn:people:42");
    assert_eq!(added["role"], "co_author");
}

#[test]
fn without_a_command_the_help_stands_on_stderr() {
    let world = World::new();
    let usage = world.fails(USAGE, "alice", &[]);
    assert!(
        usage.contains("The first minute:") && usage.contains("Commands:"),
        "{usage}"
    );
    let usage = world.fails(USAGE, "alice", &["thread"]);
    assert!(usage.contains("Invite somebody"), "{usage}");
    let json = world.fails(USAGE, "alice", &["--json"]);
    let error: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(error["error"]["message"], "no command is named");
}

#[test]
fn with_json_a_wrong_command_line_is_one_sentence() {
    let world = World::new();
    for (arguments, message) in [
        (&["frobnicate", "--json"][..], "unrecognized subcommand 'frobnicate'"),
        (
            &["approve", "--json"],
            "the following required arguments were not provided: <SPEC>",
        ),
    ] {
        let json = world.fails(USAGE, "alice", arguments);
        let error: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(error["error"]["message"], message);
    }
}

#[test]
fn what_is_done_already_is_not_to_be_decided_anew() {
    let (world, _server) = World::with_server();
    world.ok("bob", &["key", "new"]);
    world.ok("alice", &["key", "new"]);
    world.ok("alice", &["thread", "create", "T", "--member", "bob"]);
    for arguments in [&["thread", "join"][..], &["thread", "add", "bob"]] {
        says(&world.fails(FAILED, "alice", arguments), &["nothing left to do"]);
    }
    says(
        &world.fails(FAILED, "alice", &["thread", "remove", "alice"]),
        &["thread add <USER>:owner"],
    );
}

#[test]
fn one_name_never_means_two_people() {
    let world = World::new();
    for name in ["alice", "bob", "carol"] {
        world.ok(name, &["key", "new"]);
    }
    // A profile's name, that of somebody else.
    says(
        &world.fails(USAGE, "alice", &["name", "bob", "carol"]),
        &["carol is", "already"],
    );
    world.ok("alice", &["name", "bob", "robert"]);
    let stderr = world.fails(USAGE, "alice", &["name", "carol", "robert"]);
    says(&stderr, &["robert is", "choir --profile alice name --remove robert"]);
    // The same again changes nothing, and another name for the same person does.
    world.ok("alice", &["name", "robert", "robert"]);
    world.ok("alice", &["name", "robert", "bobby"]);
    let names = world.object("alice", &["name"]);
    assert_eq!(
        names["names"].as_object().unwrap().keys().collect::<Vec<_>>(),
        ["bobby"]
    );
}

#[test]
fn a_chat_lists_its_members_while_the_server_is_away() {
    let (world, mut server) = World::with_server();
    world.ok("alice", &["key", "new"]);
    world.ok("alice", &["thread", "create", "T"]);
    let mut json = world.start("alice", &["chat", "T", "--json"]);
    json.json_until(|line| line["entry"]["kind"] == "thread_created");
    let mut chat = world.start("alice", &["chat", "T"]);
    chat.until(|line| line.contains("made the thread"));
    server.kill();
    chat.until(|line| line.contains("The connection is lost"));
    chat.say("/members\n");
    chat.until(|line| line.contains("owner") && line.contains("joined"));
    chat.say("/quit\n");
    assert_eq!(chat.finish().code, Some(0));
    json.say("/members\n");
    let members = json.json_until(|line| line["members"].is_array());
    assert_eq!(members["members"][0]["name"], "alice");
}

#[test]
fn a_closed_pipe_is_no_failure() {
    let (world, _server) = World::with_server();
    world.ok("alice", &["key", "new"]);
    world.ok("alice", &["thread", "create", "T"]);
    for n in 0..3 {
        world.ok("alice", &["post", &format!("message {n}")]);
    }
    // As in `choir history | head -1`, where head is faster than choir.
    let mut child = world.command("alice", &["history"]).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}
