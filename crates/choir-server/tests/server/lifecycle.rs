//! Connections from hello to drain: C1 to C10.

use choir_protocol::error::{ErrorCode, close};
use choir_protocol::merkle::Peaks;
use choir_protocol::message::{ClientMessage, HeartbeatTimes, ServerMessage};

use crate::world::{World, auth, contents, secret, user};

#[tokio::test]
async fn c1_hello_says_who_answers_and_within_which_limits() {
    let world = World::start().await;
    let mut first = world.connect().await;
    let mut second = world.connect().await;
    let (one, two) = (first.hello().await, second.hello().await);
    assert_eq!((one.protocol.as_str(), one.server.name.as_str()), ("choir.v1", "choir"));
    assert_eq!(one.log_id, world.log.log_id());
    assert_eq!(one.server.key, two.server.key);
    assert_ne!(one.challenge, two.challenge);
    assert_ne!(one.connection_id, two.connection_id);
    assert_eq!(
        (one.limits.max_message_bytes, one.limits.max_in_flight),
        (256 * 1024, 64)
    );
    assert!(one.server.key.is_valid());
}

#[tokio::test]
async fn c2_before_auth_nothing_else_is_answered_and_none_in_time_closes_with_4401() {
    let world = World::with(|config| config.times.authentication_ms = 300).await;
    let mut raw = world.connect().await;
    raw.hello().await;
    let id = raw.say(ClientMessage::Heartbeat).await;
    let answer = raw.find(|message| message.reply_to == Some(id)).await;
    let ServerMessage::ConnectionError(error) = answer.message else {
        panic!("{answer:?}")
    };
    assert_eq!(
        (error.code, error.cause.as_deref()),
        (ErrorCode::AuthenticationFailed, Some("not_authenticated"))
    );
    assert_eq!(raw.closed().await, close::AUTHENTICATION);
}

#[tokio::test]
async fn c4_the_signature_must_be_for_an_audience_of_the_server_and_over_its_challenge() {
    let world = World::start().await;
    let alice = secret("alice");
    let port = world.address.port();
    for audience in [
        format!("http://localhost:{port}"),
        format!("http://[::1]:{port}"),
        format!("http://127.0.0.1:{port}"),
    ] {
        let mut raw = world.connect().await;
        let hello = raw.hello().await;
        raw.say(auth(&hello, &alice, &audience.parse().unwrap(), "tab", None))
            .await;
        assert!(
            matches!(raw.next().await.message, ServerMessage::Session(_)),
            "{audience}"
        );
    }
    let mut raw = world.connect().await;
    let mut hello = raw.hello().await;
    let elsewhere = "https://choir.example".parse().unwrap();
    raw.say(auth(&hello, &alice, &elsewhere, "tab", None)).await;
    let ServerMessage::ConnectionError(error) = raw.next().await.message else {
        panic!()
    };
    assert_eq!(error.code, ErrorCode::AuthenticationFailed);
    // A challenge of another connection's is no better.
    hello.challenge = "A".repeat(43);
    raw.say(auth(&hello, &alice, &world.audience, "tab", None)).await;
    assert!(matches!(raw.next().await.message, ServerMessage::ConnectionError(_)));
}

#[tokio::test]
async fn c5_a_session_is_resumed_by_its_token_and_by_nothing_else() {
    let world = World::start().await;
    let alice = world.client("alice").await;
    let first = alice.session.clone();
    assert_eq!((first.user_id.clone(), first.resumed), (user("alice"), false));
    let alice = alice.comes_again(&world).await;
    assert!(alice.session.resumed);
    assert_eq!(alice.session.session_id, first.session_id);

    // Without the token, with another client's, or another user's, it is a new one, and no error.
    let token = first.session_token.clone();
    let bob = world.client_as("bob", "alice", token.clone()).await;
    assert!(!bob.session.resumed);
    let other = world.client_as("alice", "another", token.clone()).await;
    assert!(!other.session.resumed);
    drop(alice);
    let new = world.client_as("alice", "alice", None).await;
    assert!(!new.session.resumed);
    assert_ne!(new.session.session_id, first.session_id);
    // And the same client's next session has ended the one before.
    drop(new);
    let late = world.client_as("alice", "alice", token).await;
    assert!(!late.session.resumed);
}

#[tokio::test]
async fn c5_a_session_ends_some_time_after_its_last_connection() {
    let world = World::with(|config| {
        config.times.session_ms = 1;
        config.times.expiry_ms = 10;
    })
    .await;
    let alice = world.client("alice").await;
    let token = alice.session.session_token.clone();
    drop(alice);
    // The sweep is waited for by what it does.
    loop {
        let again = world.client_as("alice", "alice", token.clone()).await;
        if !again.session.resumed {
            break;
        }
        drop(again);
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn c6_the_third_failure_is_answered_and_closes_with_4401() {
    let world = World::start().await;
    let mut raw = world.connect().await;
    let hello = raw.hello().await;
    let wrong = auth(
        &hello,
        &secret("alice"),
        &"https://choir.example".parse().unwrap(),
        "tab",
        None,
    );
    for _ in 0..3 {
        let id = raw.say(wrong.clone()).await;
        let answer = raw.find(|message| message.reply_to == Some(id)).await;
        assert!(
            matches!(answer.message, ServerMessage::ConnectionError(error) if error.code == ErrorCode::AuthenticationFailed)
        );
    }
    assert_eq!(raw.closed().await, close::AUTHENTICATION);
}

#[tokio::test]
async fn c6_an_authenticated_connection_may_prove_itself_again_but_not_as_somebody_else() {
    let world = World::start().await;
    let mut alice = world.client("alice").await;
    let bob = auth(&alice.hello, &secret("bob"), &world.audience, "alice", None);
    assert!(
        matches!(alice.asks(bob).await.message, ServerMessage::ConnectionError(error) if error.code == ErrorCode::AuthenticationFailed)
    );
    let again = auth(&alice.hello, &secret("alice"), &world.audience, "alice", None);
    let ServerMessage::Session(session) = alice.asks(again).await.message else {
        panic!()
    };
    assert!(session.resumed && session.session_id == alice.session.session_id);
}

#[tokio::test]
async fn c7_a_newer_connection_of_the_same_client_takes_over() {
    let world = World::start().await;
    let mut older = world.client("alice").await;
    let mut newer = world
        .client_as("alice", "alice", older.session.session_token.clone())
        .await;
    assert!(newer.session.resumed);
    let told = older.raw.next().await;
    assert!(matches!(told.message, ServerMessage::ConnectionError(error) if error.code == ErrorCode::Superseded));
    assert_eq!(older.raw.closed().await, close::SUPERSEDED);
    newer.raw.settle().await;
    // Another tab of the same user is another client.
    let mut tab = world.client_as("alice", "tab-2", None).await;
    tab.raw.settle().await;
    newer.raw.settle().await;
}

#[tokio::test]
async fn c9_pings_come_and_are_waited_for() {
    let world = World::with(|config| {
        config.heartbeat = HeartbeatTimes {
            interval_ms: 50,
            timeout_ms: 400,
        }
    })
    .await;
    let mut alive = world.client("alive").await;
    while alive.raw.pings < 5 {
        alive.raw.settle().await;
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let mut silent = world.client("silent").await;
    silent.raw.mute = true;
    let error = silent.raw.next().await;
    assert!(
        matches!(error.message, ServerMessage::ConnectionError(error) if error.code == ErrorCode::HeartbeatTimeout)
    );
    assert_eq!(silent.raw.closed().await, close::HEARTBEAT);
    assert!(silent.raw.pings >= 1);
}

#[tokio::test]
async fn c9_a_heartbeat_is_answered_with_the_servers_time() {
    let world = World::start().await;
    let mut alice = world.client("alice").await;
    world.clock.forward(3_600_000);
    let ServerMessage::Heartbeat(beat) = alice.asks(ClientMessage::Heartbeat).await.message else {
        panic!()
    };
    assert!(beat.server_time.since(alice.session.server_time) >= 3_600_000);
}

#[tokio::test]
async fn c10_a_drain_says_when_to_come_back_answers_what_was_received_and_closes_with_1012() {
    let mut world = World::start().await;
    let mut alice = world.client("alice").await;
    let mut waiting = world.connect().await;
    waiting.hello().await;
    let thread = alice.creates(&[]).await;
    let id = alice
        .act(thread, "action.submit_message", crate::world::message("last words"))
        .await;
    // It is on its way, and the server is told to end before it is answered, or after: both are answered.
    alice.raw.settle().await;
    world.stop();
    let drain = alice
        .raw
        .find(|message| matches!(message.message, ServerMessage::Drain(_)))
        .await;
    let ServerMessage::Drain(drain) = drain.message else {
        unreachable!()
    };
    assert!(drain.retry_after_ms < 5_000);
    alice.receipt(id).await;
    assert_eq!(alice.raw.closed().await, close::RESTART);
    assert_eq!(waiting.closed().await, close::RESTART);
    let log = world.log.clone();
    let report = world.ended().await;
    assert!(report.orderly);
    assert_eq!((report.actions, report.receipts, report.log.entries), (2, 2, 2));
    // What is saved is the thread's state at its end.
    let head = log.head(thread).await.unwrap().unwrap();
    assert_eq!(
        log.load_state(thread).await.unwrap().map(|(seq, _)| seq),
        Some(head.cursor.seq)
    );
}

#[tokio::test]
async fn a_thread_goes_on_after_its_actor_left_memory() {
    let world = World::with(|config| config.times.idle_thread_ms = 1).await;
    let mut alice = world.client("alice").await;
    let thread = alice.creates(&[]).await;
    alice.subscribes(thread).await;
    for content in ["one", "two", "three"] {
        loop {
            let stats = world.get("/debug/stats").await;
            if stats.contains("\"active_threads\":0") {
                break;
            }
        }
        alice.posts(thread, content).await;
        assert_eq!(contents(&[alice.update(thread).await]), [content]);
    }
    let (_, snapshot) = alice
        .subscribes_with(thread, |options| options.verify = Some(true))
        .await;
    let snapshot = snapshot.unwrap();
    assert_eq!(
        contents(std::slice::from_ref(&snapshot.recent)),
        ["one", "two", "three"]
    );
    snapshot.recent.verify(thread, &Peaks::new()).unwrap();
}
