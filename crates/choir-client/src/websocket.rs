//! RFC 6455 over a byte stream, as a client: the opening handshake, and a link that reads and writes without losing anything when a future is dropped.

use std::io;

use bytes::{Buf, BytesMut};
use choir_core::client::Lost;
use choir_protocol::message::SUBPROTOCOL;
use choir_websocket::{CloseCode, Config, Decoder, Event, Opcode, Role, handshake, masked};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};

use crate::connector::{Endpoint, Transport};

/// The longest message that is taken from a server: it cuts at 64 KiB, but for an entry that is longer alone (T6).
const MAX_MESSAGE_BYTES: usize = 4 * 1024 * 1024;
/// The longest head of an answer to the upgrade.
const MAX_HEAD_BYTES: usize = 16 * 1024;
/// How much is read at once.
const READ_BYTES: usize = 16 * 1024;

/// Four unpredictable bytes for each frame (RFC 6455 §10.3), 16 for the handshake's key.
pub(crate) fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(bytes)
}

/// What came from the server.
#[derive(Debug)]
pub(crate) enum Received {
    /// A text message.
    Text(choir_websocket::Utf8),
    /// Anything else that shows life.
    Traffic,
    /// The end.
    Lost(Lost),
}

/// An upgraded connection.
pub(crate) struct Link {
    read: ReadHalf<Box<dyn Transport>>,
    write: WriteHalf<Box<dyn Transport>>,
    decoder: Decoder,
    /// Framed and not yet written.
    unsent: BytesMut,
}

impl Link {
    /// Asks the server to speak WebSocket (T1).
    pub(crate) async fn open(mut stream: Box<dyn Transport>, endpoint: &Endpoint) -> Result<Self, Lost> {
        let key = handshake::key(random().map_err(lost)?);
        let request = format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: {}\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Protocol: {SUBPROTOCOL}\r\n\r\n",
            endpoint.path,
            endpoint.authority,
            handshake::VERSION,
        );
        stream.write_all(request.as_bytes()).await.map_err(lost)?;
        stream.flush().await.map_err(lost)?;

        let mut received = BytesMut::with_capacity(1024);
        let head_len = loop {
            if let Some(at) = received.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break at + 4;
            }
            if received.len() >= MAX_HEAD_BYTES {
                return Err(broken("the answer to the upgrade is too long"));
            }
            if stream.read_buf(&mut received).await.map_err(lost)? == 0 {
                return Err(broken("the server closed before it answered the upgrade"));
            }
        };
        let head = received.split_to(head_len);
        let (status, headers) = parse_head(&head).ok_or_else(|| broken("the answer to the upgrade isn't HTTP/1.1"))?;
        let offer = handshake::Offer {
            key: &key,
            protocols: &[SUBPROTOCOL],
        };
        handshake::check_response(offer, status, headers.iter().copied()).map_err(|error| Lost {
            close_code: None,
            retry_after_ms: retry_after_ms(&headers),
            reason: error.to_string(),
        })?;
        let mut decoder = Decoder::new(Config {
            max_message_bytes: MAX_MESSAGE_BYTES,
            ..Config::new(Role::Client)
        });
        decoder.feed(&received);
        let (read, write) = tokio::io::split(stream);
        Ok(Self {
            read,
            write,
            decoder,
            unsent: BytesMut::new(),
        })
    }

    /// Frames a text message; [`Link::write`] sends it.
    pub(crate) fn queue(&mut self, text: &str) -> io::Result<()> {
        masked(Opcode::Text, text.as_bytes(), random()?, &mut self.unsent);
        Ok(())
    }

    /// Whether something waits to be written.
    pub(crate) fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// What happens next: something came, or all that was queued is written (`None`). Cancel safe.
    pub(crate) async fn next(&mut self) -> Option<Received> {
        loop {
            match self.decoded() {
                Ok(Some(received)) => return Some(received),
                Ok(None) => {}
                Err(lost) => return Some(Received::Lost(lost)),
            }
            let writing = self.has_unsent();
            self.decoder.buffer_mut().reserve(READ_BYTES);
            tokio::select! {
                read = self.read.read_buf(self.decoder.buffer_mut()) => match read {
                    Ok(0) => return Some(Received::Lost(broken("the server closed the connection"))),
                    Ok(_) => {}
                    Err(error) => return Some(Received::Lost(lost(error))),
                },
                written = self.write.write_buf(&mut self.unsent), if writing => {
                    if let Err(error) = written {
                        return Some(Received::Lost(lost(error)));
                    }
                    if !self.has_unsent() {
                        // Frees what a burst took.
                        self.unsent = BytesMut::new();
                        if let Err(error) = self.write.flush().await {
                            return Some(Received::Lost(lost(error)));
                        }
                        return None;
                    }
                }
            }
        }
    }

    fn decoded(&mut self) -> Result<Option<Received>, Lost> {
        match self.decoder.poll() {
            Ok(Some(Event::Text(text))) => Ok(Some(Received::Text(text))),
            Ok(Some(Event::Ping(payload))) => {
                masked(Opcode::Pong, &payload, random().map_err(lost)?, &mut self.unsent);
                Ok(Some(Received::Traffic))
            }
            Ok(Some(Event::Pong(_) | Event::Binary(_) | Event::Compressed { .. })) => Ok(Some(Received::Traffic)),
            Ok(Some(Event::Close(frame))) => Ok(Some(Received::Lost(Lost {
                close_code: frame.as_ref().map(|frame| frame.code.get()),
                retry_after_ms: None,
                reason: frame.map_or_else(
                    || "the server closed the connection".to_owned(),
                    |frame| format!("the server closed with {}: {}", frame.code, frame.reason),
                ),
            }))),
            Ok(None) => Ok(None),
            Err(error) => Err(broken(&format!("the server broke WebSocket: {error}"))),
        }
    }

    /// Writes what is queued and a close frame, and ends the stream.
    pub(crate) async fn close(mut self, code: u16) -> io::Result<()> {
        let code = CloseCode::new(code).unwrap_or(CloseCode::NORMAL);
        masked(Opcode::Close, &code.get().to_be_bytes(), random()?, &mut self.unsent);
        while self.unsent.has_remaining() {
            self.write.write_buf(&mut self.unsent).await?;
        }
        self.write.flush().await?;
        self.write.shutdown().await?;
        // Until the server has seen it: a socket that is closed with unread bytes would be reset, and the close frame lost (RFC 6455 §7.1.1).
        let mut dropped = BytesMut::new();
        while self.read.read_buf(&mut dropped).await? > 0 {
            dropped.clear();
        }
        Ok(())
    }
}

fn lost(error: io::Error) -> Lost {
    broken(&error.to_string())
}

fn broken(reason: &str) -> Lost {
    Lost {
        close_code: None,
        retry_after_ms: None,
        reason: reason.to_owned(),
    }
}

type Head<'h> = (u16, Vec<(&'h str, &'h [u8])>);

/// Status and headers of an answer.
fn parse_head(head: &[u8]) -> Option<Head<'_>> {
    let mut lines = std::str::from_utf8(head).ok()?.trim_end().split("\r\n");
    let status = lines.next()?.strip_prefix("HTTP/1.1 ")?.get(..3)?;
    let headers = lines
        .map(|line| line.split_once(':'))
        .map(|header| header.map(|(name, value)| (name, value.trim().as_bytes())))
        .collect::<Option<_>>()?;
    Some((status.parse().ok()?, headers))
}

/// `Retry-After` in seconds (RFC 9110 §10.2.3).
fn retry_after_ms(headers: &[(&str, &[u8])]) -> Option<u64> {
    let (_, value) = headers
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case("retry-after"))?;
    let seconds: u64 = std::str::from_utf8(value).ok()?.parse().ok()?;
    Some(seconds.saturating_mul(1_000))
}
