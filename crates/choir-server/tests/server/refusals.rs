//! What isn't let in: HTTP (T1, T4, section 13), broken frames and messages that are none (T2, E1, E4).

use choir_protocol::error::{ErrorCode, close};
use choir_protocol::message::ServerMessage;
use choir_server::{BindError, Config, Server};
use choir_websocket::{Header, Opcode};

use crate::world::{Raw, World, fresh_id};

const UPGRADE: &str = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: CQkJCQkJCQkJCQkJCQkJCQ==\r\n";

async fn upgrade(world: &World, more: &str) -> String {
    let address = world.address;
    let answer = world
        .http(&format!(
            "GET /v1/ws HTTP/1.1\r\nHost: {address}\r\n{UPGRADE}{more}\r\n"
        ))
        .await;
    answer.lines().next().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn t1_a_client_without_subprotocols_is_spoken_to_without_the_header() {
    let world = World::start().await;
    let mut raw = Raw::connect(world.address, &[]).await;
    raw.hello().await;
    let mut raw = Raw::connect(world.address, &["other", "choir.v1.json"]).await;
    raw.hello().await;
}

#[tokio::test]
async fn t1_other_subprotocols_alone_get_400_and_other_versions_426() {
    let world = World::start().await;
    let cases = [
        (
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: choir.v2.json\r\n",
            "400",
        ),
        ("Sec-WebSocket-Version: 8\r\n", "426"),
    ];
    for (headers, status) in cases {
        let answer = upgrade(&world, headers).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{headers} {answer}");
    }
    let plain = world.get("/v1/ws").await;
    assert!(
        plain.starts_with("HTTP/1.1 426") && plain.to_lowercase().contains("sec-websocket-version: 13"),
        "{plain}"
    );
    assert!(plain.contains("application/problem+json"), "{plain}");
}

#[tokio::test]
async fn t4_pages_of_other_origins_get_403_and_host_is_no_excuse() {
    let world = World::with(|config| config.origins = vec!["https://choir.example".into()]).await;
    for (origin, status) in [
        ("http://evil.example", "403"),
        ("null", "403"),
        ("http://127.0.0.1.evil.example", "403"),
        ("https://choir.example", "101"),
        ("http://localhost:5173", "101"),
    ] {
        let answer = upgrade(&world, &format!("Sec-WebSocket-Version: 13\r\nOrigin: {origin}\r\n")).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{origin} {answer}");
    }
}

#[tokio::test]
async fn t3_off_loopback_nothing_is_spoken_in_the_clear_unless_that_is_said() {
    let log = || {
        std::sync::Arc::new(choir_log::memory::MemoryLog::new(choir_protocol::ids::LogId::v7(
            1, [7; 10],
        )))
    };
    let mut config = Config::new(([0, 0, 0, 0], 0).into());
    assert!(matches!(
        Server::bind(config.clone(), log()).await,
        Err(BindError::InTheClear { .. })
    ));
    config.in_the_clear = true;
    assert!(matches!(
        Server::bind(config.clone(), log()).await,
        Err(BindError::NoAudience { .. })
    ));
    config.audiences = vec!["https://choir.example".parse().unwrap()];
    assert!(Server::bind(config, log()).await.is_ok());
}

#[tokio::test]
async fn health_readiness_and_figures_are_answered_and_nothing_else() {
    let world = World::start().await;
    assert!(world.get("/healthz").await.starts_with("HTTP/1.1 200"));
    let ready = world.get("/readyz").await;
    assert!(
        ready.starts_with("HTTP/1.1 200") && ready.contains("\"transport\":\"loopback\""),
        "{ready}"
    );
    let stats = world.get("/debug/stats").await;
    assert!(
        stats.contains("\"connections\":0") && stats.contains("\"fsyncs\":"),
        "{stats}"
    );
    assert!(world.get("/").await.starts_with("HTTP/1.1 404"));
    let posted = world
        .http(&format!(
            "POST /healthz HTTP/1.1\r\nHost: {}\r\nContent-Length: 0\r\n\r\n",
            world.address
        ))
        .await;
    assert!(posted.starts_with("HTTP/1.1 405"), "{posted}");
    world.clock.forward(3_600_000);
    let ready = world.get("/readyz").await;
    assert!(
        ready.starts_with("HTTP/1.1 503") && ready.contains("not believable"),
        "{ready}"
    );
    world.log.close().await;
    assert!(world.get("/readyz").await.contains("it was closed"));
}

#[tokio::test]
async fn headers_over_8_kib_and_slow_ones_are_refused() {
    let world = World::with(|config| config.times.upgrade_ms = 200).await;
    let long = format!(
        "GET /v1/ws HTTP/1.1\r\nHost: x\r\nX-Long: {}\r\n\r\n",
        "a".repeat(9_000)
    );
    assert!(world.http(&long).await.starts_with("HTTP/1.1 431"));
    let slow = world.http("GET /v1/ws HTTP/1.1\r\nHost: x\r\n").await;
    assert!(slow.is_empty() || slow.starts_with("HTTP/1.1 408"), "{slow}");
}

#[tokio::test]
async fn t2_a_binary_message_closes_with_4400() {
    let world = World::start().await;
    let mut alice = world.client("alice").await;
    let header = Header {
        fin: true,
        compressed: false,
        opcode: Opcode::Binary,
        mask: Some([1; 4]),
    };
    alice.raw.frame(header, b"?").await;
    assert_eq!(alice.raw.closed().await, close::INVALID_MESSAGE);
}

#[tokio::test]
async fn e4_broken_frames_close_with_1002_what_is_not_utf8_with_1007_what_is_too_long_with_1009() {
    let world = World::start().await;
    let text = Header {
        fin: true,
        compressed: false,
        opcode: Opcode::Text,
        mask: Some([1; 4]),
    };
    for (frame, payload, code) in [
        (Header { mask: None, ..text }, &b"{}"[..], close::PROTOCOL_ERROR),
        (
            Header {
                compressed: true,
                ..text
            },
            b"{}",
            close::PROTOCOL_ERROR,
        ),
        (text, b"\xff", close::NOT_UTF8),
        (text, &[b' '; 256 * 1024 + 1], close::TOO_LARGE),
    ] {
        let mut alice = world.client("alice").await;
        alice.raw.frame(frame, payload).await;
        assert_eq!(alice.raw.closed().await, code);
    }
}

#[tokio::test]
async fn a_message_of_too_many_fragments_or_too_slow_a_one_closes_with_4400() {
    let world = World::with(|config| config.times.message_ms = 300).await;
    let first = Header {
        fin: false,
        compressed: false,
        opcode: Opcode::Text,
        mask: Some([1; 4]),
    };
    let mut alice = world.client("alice").await;
    alice.raw.frame(first, b"").await;
    for _ in 0..1_100 {
        alice
            .raw
            .frame(
                Header {
                    opcode: Opcode::Continuation,
                    ..first
                },
                b"",
            )
            .await;
    }
    assert_eq!(alice.raw.closed().await, close::INVALID_MESSAGE);
    let mut bob = world.client("bob").await;
    bob.raw.frame(first, b"{").await;
    assert_eq!(bob.raw.closed().await, close::INVALID_MESSAGE);
}

#[tokio::test]
async fn e4_the_fifth_message_in_a_row_that_is_none_closes_with_4400() {
    let world = World::start().await;
    let mut alice = world.client("alice").await;
    for _ in 0..4 {
        alice.raw.text("{\"id\":1}").await;
        let told = alice.raw.next().await;
        assert!(
            matches!(told.message, ServerMessage::ConnectionError(error) if error.code == ErrorCode::InvalidMessage)
        );
    }
    alice.raw.settle().await;
    // An unknown type is none of the five.
    for _ in 0..4 {
        alice.raw.text("[]").await;
        alice
            .raw
            .text(&format!(
                "{{\"id\":\"{}\",\"type\":\"control.dance\",\"payload\":{{}},\"timestamp\":1}}",
                fresh_id()
            ))
            .await;
    }
    for _ in 0..8 {
        alice.raw.next().await;
    }
    alice.raw.text("{\"a\":1,\"a\":2}").await;
    alice.raw.next().await;
    assert_eq!(alice.raw.closed().await, close::INVALID_MESSAGE);
}

#[tokio::test]
async fn a_connection_that_dies_in_the_middle_of_an_upgrade_or_a_frame_leaves_nothing() {
    use tokio::io::AsyncWriteExt;
    let world = World::with(|config| config.guard.unauthenticated_per_ip = 3).await;
    for _ in 0..20 {
        let mut socket = tokio::net::TcpStream::connect(world.address).await.unwrap();
        socket.write_all(b"GET /v1/ws HTTP/1.1\r\nHo").await.unwrap();
        drop(socket);
        loop {
            // The place is given back; until it is, the server says 429.
            let answer = world.get("/healthz").await;
            if answer.starts_with("HTTP/1.1 200") {
                break;
            }
        }
    }
    let mut alice = world.client("alice").await;
    let header = Header {
        fin: false,
        compressed: false,
        opcode: Opcode::Text,
        mask: Some([1; 4]),
    };
    alice.raw.frame(header, b"{\"id\":").await;
    drop(alice);
    loop {
        if world.get("/debug/stats").await.contains("\"connections\":0") {
            break;
        }
    }
}
