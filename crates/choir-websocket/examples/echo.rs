//! A WebSocket server that sends every message back: the codec as a whole connection, for foreign
//! test suites to judge.
//!
//! ```text
//! cargo run --release -p choir-websocket --example echo -- 127.0.0.1:9001
//! ```
//!
//! It speaks just enough HTTP/1.1 to be upgraded, and is for tests only: it takes long messages and
//! any number of connections.

use std::io;
use std::time::Duration;

use choir_websocket::{Config, Decoder, Event, Frame, Role, handshake};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout, timeout_at};

const UPGRADE_TIME: Duration = Duration::from_secs(10);
const MESSAGE_TIME: Duration = Duration::from_secs(30);
const CLOSE_TIME: Duration = Duration::from_secs(5);
const MAX_HEAD_BYTES: usize = 8 * 1024;
const READ_BYTES: usize = 16 * 1024;

/// Autobahn's suite sends messages of 16 MiB, and cuts one of 4 MiB into 65,536 fragments and an
/// empty one.
const CONFIG: Config = Config {
    max_message_bytes: 16 * 1024 * 1024,
    max_fragments: 65_537,
    ..Config::new(Role::Server)
};

#[tokio::main]
async fn main() -> io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9001".to_owned());
    let listener = TcpListener::bind(address).await?;
    println!("echoing at ws://{}/", listener.local_addr()?);
    loop {
        let (stream, peer) = listener.accept().await?;
        tokio::spawn(async move {
            if let Err(error) = serve(stream).await {
                eprintln!("{peer}: {error}");
            }
        });
    }
}

/// What this server is about.
fn echo(event: Event) -> Option<Frame> {
    match event {
        Event::Text(text) => Some(Frame::text(text.as_str())),
        Event::Binary(bytes) => Some(Frame::binary(&bytes)),
        Event::Ping(payload) => Some(Frame::pong(&payload)),
        Event::Close(close) => Some(Frame::answer_to_close(close.as_ref())),
        Event::Pong(_) => None,
        Event::Compressed { .. } => unreachable!("the handshake accepts no extension"),
    }
}

async fn serve(mut stream: TcpStream) -> io::Result<()> {
    // Answers are written whole: waiting for more to send would only delay them.
    stream.set_nodelay(true)?;
    let mut decoder = Decoder::new(CONFIG);
    let upgraded = timeout(UPGRADE_TIME, upgrade(&mut stream, &mut decoder)).await??;
    if upgraded {
        converse(&mut stream, &mut decoder).await?;
    }
    hang_up(stream).await
}

/// Answers events until either side closes the connection, or the peer is gone.
async fn converse(stream: &mut TcpStream, decoder: &mut Decoder) -> io::Result<()> {
    let mut message_deadline = None;
    loop {
        loop {
            match decoder.poll() {
                Ok(Some(event)) => {
                    let is_message = matches!(event, Event::Text(_) | Event::Binary(_));
                    let is_close = matches!(event, Event::Close(_));
                    if is_message {
                        message_deadline = None;
                    }
                    if let Some(answer) = echo(event) {
                        stream.write_all(answer.as_bytes()).await?;
                    }
                    if is_close {
                        return Ok(());
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    let close = Frame::close(error.close_code(), &error.to_string());
                    return stream.write_all(close.as_bytes()).await;
                }
            }
        }
        // Only what is unfinished has a deadline; room to read into is made only when there is
        // something to read.
        if decoder.in_message() {
            let deadline = *message_deadline.get_or_insert_with(|| Instant::now() + MESSAGE_TIME);
            timeout_at(deadline, stream.readable()).await??;
        } else {
            message_deadline = None;
            stream.readable().await?;
        }
        decoder.buffer_mut().reserve(READ_BYTES);
        match stream.try_read_buf(decoder.buffer_mut()) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

/// Reads an upgrade request and answers it; `false` if that was a refusal. What the client sent
/// right behind the request is left in the decoder.
async fn upgrade(stream: &mut TcpStream, decoder: &mut Decoder) -> io::Result<bool> {
    let mut received = Vec::new();
    let head_len = loop {
        if let Some(at) = received.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            break at + 4;
        }
        if received.len() >= MAX_HEAD_BYTES {
            stream.write_all(&refusal(431)).await?;
            return Ok(false);
        }
        if stream.read_buf(&mut received).await? == 0 {
            return Ok(false);
        }
    };
    let (head, behind) = received.split_at(head_len);
    let (accepted, answer) = match parse_head(head) {
        Some((method, headers)) => match handshake::check_request(method, headers) {
            Ok(upgrade) => (true, switch(&upgrade.accept_key()).into_bytes()),
            Err(error) => (false, refusal(error.status())),
        },
        None => (false, refusal(400)),
    };
    stream.write_all(&answer).await?;
    decoder.feed(behind);
    Ok(accepted)
}

type Head<'h> = (&'h str, Vec<(&'h str, &'h [u8])>);

/// The method and the headers of a request.
fn parse_head(head: &[u8]) -> Option<Head<'_>> {
    let mut lines = str::from_utf8(head).ok()?.trim_end().split("\r\n");
    let mut request_line = lines.next()?.split(' ');
    let (method, _target) = (request_line.next()?, request_line.next()?);
    if request_line.next()? != "HTTP/1.1" || request_line.next().is_some() {
        return None;
    }
    let is_name = |name: &str| !name.is_empty() && !name.contains([' ', '\t']);
    let headers = lines
        .map(|line| line.split_once(':').filter(|(name, _)| is_name(name)))
        .map(|header| header.map(|(name, value)| (name, value.as_bytes())))
        .collect::<Option<_>>()?;
    Some((method, headers))
}

fn switch(accept_key: &str) -> String {
    format!(
        "HTTP/1.1 101 Switching Protocols\r\n\
         Upgrade: websocket\r\n\
         Connection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept_key}\r\n\r\n"
    )
}

fn refusal(status: u16) -> Vec<u8> {
    let more = match status {
        405 => "Allow: GET\r\n",
        426 => "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
        _ => "",
    };
    format!("HTTP/1.1 {status} Refused\r\n{more}Connection: close\r\nContent-Length: 0\r\n\r\n").into_bytes()
}

/// Ends the connection so that what was written last arrives: closing a socket that still holds
/// unread bytes would reset the connection, and the peer might lose our close frame (RFC 6455
/// §7.1.1).
async fn hang_up(mut stream: TcpStream) -> io::Result<()> {
    stream.shutdown().await?;
    let mut dropped = vec![0; READ_BYTES];
    let drain = async {
        while stream.read(&mut dropped).await? > 0 {}
        io::Result::Ok(())
    };
    timeout(CLOSE_TIME, drain).await.unwrap_or(Ok(()))
}
