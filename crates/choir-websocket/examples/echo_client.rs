//! The client's side for Autobahn's suite, whose fuzzing server sends each of its cases to it: every
//! message goes back, masked.
//!
//! ```text
//! wstest -m fuzzingserver        # in another terminal; listens at 127.0.0.1:9001
//! cargo run --release -p choir-websocket --example echo_client -- 127.0.0.1:9001
//! ```

use std::hash::{BuildHasher, RandomState};
use std::io;

use bytes::{Buf, BytesMut};
use choir_websocket::handshake::{self, Offer};
use choir_websocket::{Config, Decoder, Event, Opcode, Role, masked};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const AGENT: &str = "choir-websocket";
const MAX_HEAD_BYTES: usize = 8 * 1024;

/// Autobahn's suite sends messages of 16 MiB, and cuts one of 4 MiB into 65,536 fragments and an
/// empty one.
const CONFIG: Config = Config {
    max_message_bytes: 16 * 1024 * 1024,
    max_fragments: 65_537,
    ..Config::new(Role::Client)
};

#[tokio::main]
async fn main() -> io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9001".to_owned());
    let count = connect(&address, "/getCaseCount").await?.converse().await?;
    let count: u32 = count.as_deref().unwrap_or_default().parse().map_err(io::Error::other)?;
    for case in 1..=count {
        let target = format!("/runCase?case={case}&agent={AGENT}");
        // Some cases end the connection within a frame: that is what they are about.
        if let Err(error) = connect(&address, &target).await?.converse().await {
            eprintln!("case {case} of {count}: {error}");
        }
    }
    connect(&address, &format!("/updateReports?agent={AGENT}"))
        .await?
        .converse()
        .await?;
    println!("{count} cases ran");
    Ok(())
}

struct Connection {
    stream: TcpStream,
    decoder: Decoder,
}

async fn connect(address: &str, target: &str) -> io::Result<Connection> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let key = handshake::key(random().to_ne_bytes());
    let request = format!(
        "GET {target} HTTP/1.1\r\n\
         Host: {address}\r\n\
         Upgrade: websocket\r\n\
         Connection: Upgrade\r\n\
         Sec-WebSocket-Version: {version}\r\n\
         Sec-WebSocket-Key: {key}\r\n\r\n",
        version = handshake::VERSION,
    );
    stream.write_all(request.as_bytes()).await?;

    let mut received = BytesMut::new();
    let head_len = loop {
        if let Some(at) = received.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            break at + 4;
        }
        if received.len() >= MAX_HEAD_BYTES || stream.read_buf(&mut received).await? == 0 {
            return Err(io::Error::other("the server's answer has no end"));
        }
    };
    let head = str::from_utf8(&received[..head_len]).map_err(io::Error::other)?;
    let mut lines = head.trim_end().split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
    let headers = lines.filter_map(|line| line.split_once(':'));
    handshake::check_response(
        Offer {
            key: &key,
            protocols: &[],
        },
        status.unwrap_or_default(),
        headers.map(|(name, value)| (name, value.as_bytes())),
    )
    .map_err(io::Error::other)?;

    // The server may have sent frames right behind its answer.
    received.advance(head_len);
    let mut decoder = Decoder::new(CONFIG);
    decoder.feed(&received);
    Ok(Connection { stream, decoder })
}

impl Connection {
    /// Sends messages back until the connection ends; the last text is the result.
    async fn converse(mut self) -> io::Result<Option<String>> {
        let mut last = None;
        loop {
            match self.decoder.poll() {
                Ok(Some(Event::Text(text))) => {
                    self.send(Opcode::Text, text.as_bytes()).await?;
                    last = Some(text.into());
                }
                Ok(Some(Event::Binary(bytes))) => self.send(Opcode::Binary, &bytes).await?,
                Ok(Some(Event::Ping(payload))) => self.send(Opcode::Pong, &payload).await?,
                Ok(Some(Event::Pong(_))) => {}
                Ok(Some(Event::Compressed { .. })) => unreachable!("no extension was offered"),
                Ok(Some(Event::Close(close))) => {
                    let code = close.map(|close| close.code.get().to_be_bytes());
                    let payload = code.as_ref().map_or(&[][..], |code| code);
                    self.send(Opcode::Close, payload).await?;
                    self.hang_up().await;
                    return Ok(last);
                }
                Ok(None) => {
                    if self.stream.read_buf(self.decoder.buffer_mut()).await? == 0 {
                        return Ok(last);
                    }
                }
                Err(error) => {
                    let code = error.close_code().get().to_be_bytes();
                    self.send(Opcode::Close, &code).await?;
                    self.hang_up().await;
                    return Ok(last);
                }
            }
        }
    }

    async fn send(&mut self, opcode: Opcode, payload: &[u8]) -> io::Result<()> {
        let mut frame = BytesMut::new();
        let [a, b, c, d, ..] = random().to_ne_bytes();
        masked(opcode, payload, [a, b, c, d], &mut frame);
        self.stream.write_all(&frame).await
    }

    /// Waits for the server, which closes first (RFC 6455 §7.1.1). A hard end is as good: both sides
    /// have said all that they had to say.
    async fn hang_up(mut self) {
        let mut dropped = [0; 1024];
        while self.stream.read(&mut dropped).await.is_ok_and(|len| len > 0) {}
    }
}

/// Random enough for a test: each hasher of the standard library is keyed anew. A client that talks
/// to the world takes mask keys from its system.
fn random() -> u128 {
    let half = || u128::from(RandomState::new().hash_one(()));
    half() << 64 | half()
}
