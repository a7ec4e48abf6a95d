//! What the server says of itself, overheard on the way to the client library, which keeps it to itself: its key for checkpoints (K6), and which history its
//! log is (G1r). Both are pinned in the profile.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use choir_protocol::de::from_value;
use choir_protocol::json::{self, Value};
use choir_protocol::message::Hello;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// More bytes than this hold no `control.hello`.
const MAX_BYTES: usize = 128 * 1024;

/// What was overheard last.
#[derive(Debug, Clone, Default)]
pub(crate) struct Heard(Arc<Mutex<Option<Hello>>>);

impl Heard {
    /// The server's `control.hello`, once it came.
    pub(crate) fn hello(&self) -> Option<Hello> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Hello>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A stream whose first message is overheard.
#[derive(Debug)]
pub(crate) struct Overheard {
    stream: TcpStream,
    heard: Heard,
    /// What came so far; none once there is nothing more to hear.
    bytes: Option<Vec<u8>>,
}

impl Overheard {
    /// Listens to the first message of a stream.
    pub(crate) const fn new(stream: TcpStream, heard: Heard) -> Self {
        Self {
            stream,
            heard,
            bytes: Some(Vec::new()),
        }
    }

    fn listen(&mut self, new: &[u8]) {
        let Some(bytes) = &mut self.bytes else { return };
        bytes.extend_from_slice(new);
        match first_text(bytes) {
            Part::More if bytes.len() < MAX_BYTES => return,
            Part::Whole(text) => {
                if let Some(hello) = hello(text) {
                    *self.heard.lock() = Some(hello);
                }
            }
            Part::More | Part::Other => {}
        }
        self.bytes = None;
    }
}

enum Part<'a> {
    More,
    Whole(&'a [u8]),
    Other,
}

/// The text of the first frame behind an HTTP answer. A server's frames aren't masked, and `control.*` isn't compressed (T5).
fn first_text(bytes: &[u8]) -> Part<'_> {
    const FINAL_TEXT: u8 = 0x81;
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Part::More;
    };
    let frame = bytes.get(end + 4..).unwrap_or_default();
    let (length, start) = match frame {
        [FINAL_TEXT, length @ 0..126, ..] => (u64::from(*length), 2),
        [FINAL_TEXT, 126, a, b, ..] => (u64::from(u16::from_be_bytes([*a, *b])), 4),
        [FINAL_TEXT, 127, a, b, c, d, e, f, g, h, ..] => (u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]), 10),
        [] | [FINAL_TEXT] | [FINAL_TEXT, 126 | 127, ..] => return Part::More,
        _ => return Part::Other,
    };
    let Some(end) = usize::try_from(length)
        .ok()
        .and_then(|length| length.checked_add(start))
    else {
        return Part::Other;
    };
    frame.get(start..end).map_or(Part::More, Part::Whole)
}

fn hello(text: &[u8]) -> Option<Hello> {
    let envelope = json::parse(std::str::from_utf8(text).ok()?).ok()?;
    let envelope = envelope.as_object()?;
    if envelope.get("type").and_then(Value::as_str) != Some("control.hello") {
        return None;
    }
    from_value(envelope.get("payload")?).ok()
}

impl AsyncRead for Overheard {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        if self.bytes.is_some() {
            let new = buf.filled().get(before..).unwrap_or_default().to_vec();
            self.listen(&new);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Overheard {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_text_is_found_however_it_arrives() {
        for length in [5_usize, 125, 126, 300, 70_000] {
            let text = vec![b'x'; length];
            let mut bytes = b"HTTP/1.1 101 Switching Protocols\r\n\r\n\x81".to_vec();
            match length {
                0..126 => bytes.push(length as u8),
                126..65_536 => bytes.extend([&[126], &(length as u16).to_be_bytes()[..]].concat()),
                _ => bytes.extend([&[127], &(length as u64).to_be_bytes()[..]].concat()),
            }
            bytes.extend(&text);
            for cut in [0, 10, 36, 37, 38, 40, bytes.len() - 1] {
                assert!(matches!(first_text(&bytes[..cut]), Part::More), "{length} {cut}");
            }
            bytes.extend(b"\x81\x02hi");
            assert!(
                matches!(first_text(&bytes), Part::Whole(found) if found == text),
                "{length}"
            );
        }
        assert!(matches!(first_text(b"HTTP/1.1 400 No\r\n\r\nno"), Part::Other));
    }
}
