//! What people do, by the real binary: nobody types an id where a name will do.

mod support;

use support::{World, kinds, kinds_of_lines};

#[test]
fn two_people_talk_and_a_third_is_approved() {
    let (world, server) = World::with_server();
    for name in ["alice", "bob", "carol"] {
        world.ok(name, &["key", "new"]);
    }
    let made = world.object(
        "alice",
        &[
            "thread",
            "create",
            "Standup",
            "--member",
            "bob",
            "--member",
            "carol:reader",
            "--policy",
            "majority",
        ],
    );
    let thread = made["thread_id"].as_str().unwrap().to_owned();

    let mut tail = world.start("alice", &["tail", "--json"]);
    tail.json_until(|line| line["entry"]["kind"] == "thread_created");
    tail.stderr_until("Following");

    let posted = world.object("alice", &["post", "Good morning"]);
    assert_eq!(
        (posted["kind"].as_str(), posted["seq"].as_u64()),
        (Some("message_posted"), Some(2))
    );
    world.ok("bob", &["use", "Standup"]);
    assert!(world.ok("bob", &["post", "Hello"]).contains("Published"));
    assert!(world.ok("carol", &["use", "standup"]).starts_with("Standup "));
    assert!(world.ok("carol", &["propose", "Move it to ten?"]).contains("Proposed"));

    let specs = world.ok("alice", &["specs"]);
    assert!(
        specs.contains("Move it to ten?") && specs.contains("waits for you"),
        "{specs}"
    );
    assert!(specs.contains("carol"), "{specs}");
    let approved = world.ok("alice", &["approve", "last"]);
    assert!(
        approved.starts_with("Approved carol's ")
            && approved.contains("Move it to ten?")
            && approved.contains("still open"),
        "{approved}"
    );
    world.ok("bob", &["specs"]);
    assert!(world.ok("bob", &["approve", "last"]).contains("= approved"));

    tail.json_until(|line| line["entry"]["kind"] == "message_posted" && line["author_name"] == "carol");
    let expected = [
        (1, "thread_created"),
        (2, "message_posted"),
        (3, "message_posted"),
        (4, "spec_submitted"),
        (5, "approval_given"),
        (6, "approval_given"),
        (7, "spec_resolved"),
        (8, "message_posted"),
    ]
    .map(|(seq, kind)| (seq, kind.to_owned()));
    assert_eq!(kinds_of_lines(tail.seen()), expected);
    assert_eq!(kinds(&world.objects("bob", &["history", &thread])), expected);

    let members = world.objects("bob", &["members"]);
    let rows: Vec<_> = members
        .iter()
        .map(|row| {
            (
                row["name"].as_str().unwrap(),
                row["role"].as_str().unwrap(),
                row["joined"].as_bool().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        rows,
        [
            ("alice", "owner", true),
            ("bob", "co_author", true),
            ("carol", "reader", true)
        ]
    );

    for name in ["alice", "bob", "carol"] {
        let verified = world.object(name, &["verify"]);
        assert_eq!(verified["entries"], 8);
        assert_eq!(verified["failures"].as_array().unwrap().len(), 0);
    }
    let note = world.object("alice", &["checkpoint"]);
    assert_eq!(note["size"], 8);
    assert_eq!(note["root"], world.object("bob", &["verify"])["root"]);

    tail.signal("INT");
    assert_eq!(tail.finish().code, Some(0));
    server.signal("TERM");
    let stopped = server.finish();
    assert_eq!(stopped.code, Some(0), "{stopped}");
    let report: serde_json::Value = serde_json::from_str(stopped.stdout.lines().last().unwrap()).unwrap();
    assert_eq!(report["stopped"], true);
    assert_eq!(report["entries"], 8);
    assert!(report["fsyncs_per_1000_entries"].as_f64().unwrap() > 0.0);
    assert_eq!(report["sync_checks"]["different"], 0);
}

#[test]
fn a_spec_is_discussed_revised_denied_and_withdrawn() {
    let (world, _server) = World::with_server();
    for name in ["alice", "carol"] {
        world.ok(name, &["key", "new"]);
    }
    world.ok("alice", &["thread", "create", "Plans", "--member", "carol:reader"]);
    world.ok("carol", &["use", "Plans"]);

    world.ok("carol", &["propose", "sometime"]);
    world.ok("alice", &["specs"]);
    assert!(
        world
            .fails(2, "alice", &["request-changes", "last"])
            .contains("--reason")
    );
    world.ok("alice", &["request-changes", "last", "--reason", "name a date"]);
    assert!(world.ok("carol", &["specs"]).contains("name a date"));
    world.ok("carol", &["revise", "last", "on Monday"]);

    // The revision wasn't shown to Alice: nothing is decided by mistake.
    let refused = world.run("alice", &["approve", "last"]);
    assert_eq!(refused.code, Some(1), "{refused}");
    assert!(refused.stdout.contains("on Monday") && refused.stderr.contains("revised since"));
    assert_eq!(
        world.objects("alice", &["specs"])[0]["decisions"]
            .as_array()
            .unwrap()
            .len(),
        0
    );
    // Now it was.
    assert!(
        world
            .ok("alice", &["deny", "last", "--reason", "Monday is full"])
            .contains("= denied")
    );

    world.ok("carol", &["propose", "on Tuesday"]);
    world.ok("carol", &["withdraw", "last"]);
    assert!(world.ok("alice", &["specs"]).contains("No spec is open"));
    assert!(
        world
            .fails(1, "alice", &["approve", "last"])
            .contains("there is no spec")
    );

    // A script says what it means.
    world.ok("carol", &["propose", "on Wednesday"]);
    let spec = world.objects("alice", &["specs"]).remove(0);
    let id = spec["spec"].as_str().unwrap();
    assert_eq!(spec["awaits_you"], true);
    let wrong = "0".repeat(64);
    assert!(
        world
            .fails(1, "alice", &["approve", id, "--hash", &wrong])
            .contains("--hash")
    );
    assert!(
        world
            .fails(1, "alice", &["approve", id, "--json"])
            .contains("not_shown")
    );
    let approved = world.object(
        "alice",
        &["approve", id, "--hash", spec["content_hash"].as_str().unwrap()],
    );
    assert_eq!(approved["outcome"], "approved");
    assert_eq!(
        world.object("alice", &["verify"])["failures"].as_array().unwrap().len(),
        0
    );
}

#[test]
fn messages_are_edited_erased_and_answered() {
    let (world, _server) = World::with_server();
    for name in ["alice", "bob"] {
        world.ok(name, &["key", "new"]);
    }
    world.ok("alice", &["thread", "create", "Notes", "--member", "bob:reader"]);
    world.ok("alice", &["post", "first"]);
    let piped = world.run_with("alice", &["post", "--json"], |_| {}, "from a pipe\n");
    assert_eq!(piped.code, Some(0), "{piped}");
    world.ok("alice", &["post", "--parent", "2", "an answer"]);
    world.ok("alice", &["post", "--json-content", "{\"tool\": \"deploy\", \"n\": 1}"]);
    world.ok("alice", &["edit", "2", "first, edited"]);
    world.ok("alice", &["redact", "3"]);

    let history = world.objects("alice", &["history"]);
    assert_eq!(history[3]["entry"]["body"]["parent"], history[1]["entry"]["id"]);
    assert_eq!(history[4]["entry"]["body"]["content"]["tool"], "deploy");
    assert_eq!(history[2]["entry"]["erased"], 7);
    let lines = world.ok("bob", &["history", "Notes"]);
    assert!(lines.contains("(erased by entry 7)"), "{lines}");
    assert!(!lines.contains("from a pipe"), "{lines}");
    assert!(lines.contains("first, edited"), "{lines}");

    // Others' messages aren't `last`, and are not for readers to erase.
    assert!(
        world
            .fails(1, "bob", &["redact", "2", "--thread", "Notes"])
            .contains("permission_denied")
    );
    let report = world.object("bob", &["verify", "Notes"]);
    assert_eq!(report["failures"].as_array().unwrap().len(), 0, "{report}");
}

#[test]
fn others_can_not_steer_the_terminal() {
    let (world, _server) = World::with_server();
    for name in ["alice", "mallory"] {
        world.ok(name, &["key", "new"]);
    }
    world.ok("alice", &["thread", "create", "T", "--member", "mallory"]);
    let evil = "\u{1b}[2J\u{1b}]0;owned\u{7}\r\u{9b}31m\u{202e}x\n12:00:00    9  alice: I agree";
    world.ok("mallory", &["post", "--thread", "T", evil]);
    for arguments in [&["history"][..], &["history", "--json"]] {
        let out = world.ok("alice", arguments);
        assert!(
            !out.contains(['\u{1b}', '\u{7}', '\r', '\u{9b}', '\u{202e}']),
            "{out:?}"
        );
    }
    let out = world.ok("alice", &["history"]);
    assert!(
        out.lines().all(|line| !line.starts_with("12:00:00")),
        "a message can't look like two: {out}"
    );
}

#[test]
fn a_public_thread_is_found_joined_and_left() {
    let (world, _server) = World::with_server();
    for name in ["alice", "dave"] {
        world.ok(name, &["key", "new"]);
    }
    world.ok(
        "alice",
        &[
            "thread",
            "create",
            "Ideas",
            "--public",
            "--policy",
            "any",
            "--admit-authors",
        ],
    );
    let public = world.objects("dave", &["threads", "--public"]);
    assert_eq!(public[0]["title"], "Ideas");
    assert_eq!(world.objects("dave", &["threads"]).len(), 0);
    world.ok("dave", &["thread", "join", "Ideas"]);
    assert_eq!(world.objects("dave", &["threads"])[0]["role"], "reader");
    world.ok("dave", &["propose", "let me in"]);
    world.ok("alice", &["specs"]);
    world.ok("alice", &["approve", "last"]);
    assert_eq!(world.objects("dave", &["threads"])[0]["role"], "co_author");

    world.ok("alice", &["thread", "set", "--title", "Good ideas", "--expires", "2d"]);
    let settings = world.object("dave", &["thread", "show"]);
    assert_eq!(settings["title"], "Good ideas");
    // What wasn't named stayed.
    assert_eq!(settings["policy"]["approval"], "any");
    assert_eq!(settings["policy"]["admit_authors"], true);
    assert_eq!(settings["policy"]["expires_ms"], 172_800_000);

    let unread = &world.objects("alice", &["threads"])[0];
    assert_eq!(
        (unread["messages"].as_u64(), unread["unread"].as_u64()),
        (Some(1), Some(1))
    );
    assert_eq!(world.object("alice", &["mark"])["unread"], 0);

    world.ok("dave", &["thread", "remove", "dave"]);
    let members = world.ok("alice", &["members"]);
    assert!(!members.contains("dave"), "{members}");
}

#[test]
fn a_chat_is_driven_by_lines() {
    let (world, _server) = World::with_server();
    for name in ["alice", "carol"] {
        world.ok(name, &["key", "new"]);
    }
    world.ok("alice", &["thread", "create", "Talk", "--member", "carol:reader"]);
    let mut alice = world.start("alice", &["chat"]);
    alice.until(|line| line.contains("made the thread"));
    let mut carol = world.start("carol", &["chat", "Talk"]);
    carol.until(|line| line.contains("made the thread"));

    alice.say("hello\n");
    carol.until(|line| line.contains("alice: hello"));
    carol.say("may I?\n");
    alice.until(|line| line.contains("carol proposes") && line.contains("may I?"));
    alice.until(|line| line.contains("[1] waits for you"));
    alice.say("/approve 1\n");
    carol.until(|line| line.contains("carol: may I?"));
    carol.say("and this?\n");
    alice.until(|line| line.contains("[2] waits for you"));
    alice.say("/deny 2 not yet\n/members\n/nonsense\n/help\n");
    alice.until(|line| line.contains("no /nonsense"));
    alice.until(|line| line.contains("/quit"));
    carol.until(|line| line.contains("= denied"));
    assert!(carol.seen().iter().any(|line| line.contains("not yet")));

    alice.say("/quit\n");
    assert_eq!(alice.finish().code, Some(0));
    // What a pipe says last comes out, too.
    carol.say("good night\n");
    carol.end_of_input();
    let done = carol.finish();
    assert_eq!(done.code, Some(0), "{done}");
    assert!(
        done.stdout.contains("carol proposes") && done.stdout.contains("good night"),
        "{done}"
    );
}

#[test]
fn names_profiles_and_keys_belong_to_this_machine() {
    let (world, _server) = World::with_server();
    let alice = world.object("alice", &["key", "new"]);
    let again = world.run("alice", &["key", "new"]);
    assert_eq!(again.code, Some(1), "{again}");
    assert!(again.stderr.contains("--force"), "{again}");
    assert_eq!(world.object("alice", &["key", "show"])["user_id"], alice["user_id"]);

    world.ok("bob", &["key", "new"]);
    let user = alice["user_id"].as_str().unwrap();
    world.ok("bob", &["name", user, "boss"]);
    world.ok("bob", &["thread", "create", "T", "--member", "boss"]);
    assert!(world.ok("bob", &["members"]).contains("boss"));
    assert!(world.ok("bob", &["name"]).contains("boss"));
    world.ok("bob", &["name", "--remove", "boss"]);
    assert!(
        world.ok("bob", &["members"]).contains("alice"),
        "the profile's name stays"
    );

    // A key by the environment, and by a file.
    let file = alice["key_file"].as_str().unwrap();
    let secret = std::fs::read_to_string(file).unwrap();
    for (name, value) in [("text", secret.trim()), ("file", file)] {
        let done = world.run_with(
            "nobody",
            &["key", "show"],
            |command| {
                command.env("CHOIR_KEY", value);
            },
            "",
        );
        assert_eq!(done.stdout.trim(), user, "{name}: {done}");
    }
    assert_eq!(world.ok("nobody", &["key", "show", "--key", file]).trim(), user);
    let leaked = world.fails(2, "nobody", &["key", "show", "--key", secret.trim()]);
    assert!(!leaked.contains(secret.trim()), "a secret isn't repeated");
}

#[test]
fn reading_goes_back_page_by_page() {
    let (world, _server) = World::with_server();
    world.ok("alice", &["key", "new"]);
    world.ok("alice", &["thread", "create", "Long"]);
    let mut chat = world.start("alice", &["chat"]);
    chat.until(|line| line.contains("made the thread"));
    for n in 0..40 {
        chat.say(&format!("message {n}\n"));
    }
    chat.end_of_input();
    assert_eq!(chat.finish().code, Some(0));

    let all = world.objects("alice", &["history", "--limit", "1000"]);
    assert_eq!(all.len(), 41);
    let texts: Vec<_> = all[1..]
        .iter()
        .map(|line| line["entry"]["body"]["content"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(
        texts,
        (0..40).map(|n| format!("message {n}")).collect::<Vec<_>>(),
        "in the order of typing"
    );
    let page = world.objects("alice", &["history", "--before", "11", "--limit", "5"]);
    assert_eq!(
        kinds(&page).iter().map(|(seq, _)| *seq).collect::<Vec<_>>(),
        [6, 7, 8, 9, 10]
    );

    let mut tail = world.start("alice", &["tail", "--from", "3", "--json"]);
    tail.json_until(|line| line["entry"]["seq"] == 41);
    assert_eq!(
        kinds_of_lines(tail.seen())
            .iter()
            .map(|(seq, _)| *seq)
            .collect::<Vec<_>>(),
        (3..=41).collect::<Vec<_>>()
    );
}

#[test]
fn a_profile_remembers_its_server_and_its_thread() {
    let (mut world, _server) = World::with_server();
    for name in ["alice", "carol"] {
        world.ok(name, &["key", "new"]);
    }
    // From here on nobody names the server.
    let url = std::mem::take(&mut world.url);
    for name in ["alice", "carol"] {
        world.ok(name, &["use", "--server", &url]);
    }
    world.ok("alice", &["thread", "create", "One", "--member", "carol:reader"]);
    world.ok("alice", &["thread", "create", "Two"]);
    world.ok("alice", &["post", "in two"]);
    world.ok("alice", &["use", "One"]);
    world.ok("alice", &["post", "in one"]);
    world.ok("carol", &["use", "One"]);
    world.ok("carol", &["propose", "a spec"]);
    world.ok("alice", &["post", "another"]);

    let mut tail = world.start("alice", &["tail", "--no-specs", "--json"]);
    tail.json_until(|line| line["entry"]["body"]["content"] == "another");
    let seen: Vec<String> = kinds_of_lines(tail.seen()).into_iter().map(|(_, kind)| kind).collect();
    assert_eq!(seen, ["thread_created", "message_posted", "message_posted"]);
}

#[test]
fn a_pipe_is_said_in_order_and_walked_back_over_many_pages() {
    let (world, _server) = World::with_server();
    world.ok("alice", &["key", "new"]);
    world.ok("alice", &["thread", "create", "Long"]);
    // A page holds 64 KiB: these take several.
    let filling = "x".repeat(20_000);
    let piped: String = (0..12).map(|n| format!("{n} {filling}\n")).collect();
    let done = world.run_with("alice", &["chat", "--json"], |_| {}, &piped);
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    for arguments in [&["history", "--limit", "100"][..], &["history"]] {
        let numbers: Vec<String> = world.objects("alice", arguments)[1..]
            .iter()
            .map(|line| {
                line["entry"]["body"]["content"]
                    .as_str()
                    .unwrap()
                    .split(' ')
                    .next()
                    .unwrap()
                    .to_owned()
            })
            .collect();
        assert_eq!(numbers, (0..12).map(|n| n.to_string()).collect::<Vec<_>>());
    }
    let mut tail = world.start("alice", &["tail", "--from", "1", "--json"]);
    tail.json_until(|line| line["entry"]["seq"] == 13);
    assert_eq!(tail.seen().len(), 13);
    assert_eq!(world.object("alice", &["verify"])["entries"], 13);

    // What a pipe says and is refused shows in the exit code.
    world.ok("carol", &["key", "new"]);
    world.ok(
        "alice",
        &[
            "thread",
            "create",
            "Closed",
            "--propose",
            "nobody",
            "--member",
            "carol:reader",
        ],
    );
    let done = world.run_with("carol", &["chat", "Closed"], |_| {}, "let me\n");
    assert_eq!(done.code, Some(1), "{done}");
    assert!(
        done.stdout.contains("permission_denied") && done.stderr.contains("1 of what you sent was refused"),
        "{done}"
    );
}

#[test]
fn help_and_completions_need_nothing() {
    let world = World::new();
    let help = world.ok("nobody", &["--help"]);
    for word in ["Exit codes", "choir serve", "choir approve last"] {
        assert!(help.contains(word), "{word}");
    }
    assert!(world.ok("nobody", &["completions", "bash"]).contains("request-changes"));
    assert!(world.ok("nobody", &["thread", "create", "--help"]).contains("Examples"));
    world.fails(2, "nobody", &["nonsense"]);
    let json: serde_json::Value = serde_json::from_str(&world.fails(2, "nobody", &["nonsense", "--json"])).unwrap();
    assert_eq!(json["error"]["code"], "usage");
    world.fails(2, "nobody", &["post", "--policy", "x"]);
}

#[test]
fn who_is_invited_and_who_changes_roles_are_told_apart() {
    let (world, _server) = World::with_server();
    for name in ["alice", "bob", "carol"] {
        world.ok(name, &["key", "new"]);
    }
    world.ok("alice", &["thread", "create", "T"]);
    let reader = world.ok("alice", &["thread", "add", "carol:reader"]);
    assert!(
        reader.starts_with("Invited carol as reader") && !reader.contains("votes"),
        "{reader}"
    );
    let invited = world.ok("alice", &["thread", "add", "bob"]);
    assert!(
        invited.starts_with("Invited bob as co_author") && invited.contains("votes"),
        "{invited}"
    );
    world.ok("bob", &["thread", "join", "T"]);
    let promoted = world.ok("alice", &["thread", "add", "bob:owner"]);
    assert!(
        promoted.starts_with("bob is owner now") && !promoted.contains("votes"),
        "{promoted}"
    );
}

#[test]
fn what_goes_on_is_named_with_its_thread_and_profile() {
    let (world, _server) = World::with_server();
    world.ok("alice", &["key", "new"]);
    let made = world.object("alice", &["thread", "create", "T"]);
    let thread = made["thread_id"].as_str().unwrap();
    world.ok("alice", &["post", "one"]);
    let page = world.run("alice", &["history", "--limit", "1"]);
    assert!(
        page.stderr.contains("choir --profile alice history --before 2"),
        "{page}"
    );
    let page = world.run("alice", &["history", "T", "--limit", "1"]);
    let next = format!("choir --profile alice history {thread} --before 2");
    assert!(page.stderr.contains(&next), "{page}");

    // Who ends a tail is told where it goes on.
    let mut tail = world.start("alice", &["tail", "T"]);
    tail.stderr_until("Following");
    world.ok("alice", &["post", "two"]);
    tail.until(|line| line.ends_with("two"));
    tail.signal("INT");
    let ended = tail.finish();
    assert_eq!(ended.code, Some(0), "{ended}");
    let next = format!("choir --profile alice tail {thread} --from 4");
    assert!(ended.stderr.contains(&next), "{ended}");
}
