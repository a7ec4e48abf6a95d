//! What waits to be sent on one connection: whole frames, many of them shared with other connections, written several at a time.

use std::collections::VecDeque;
use std::io::{self, IoSlice};

use bytes::{Buf, Bytes};
use tokio::net::TcpStream;

/// What may wait before nothing more is produced that can wait itself (T6).
pub(crate) const ROOM_BYTES: usize = 64 * 1024;
/// How many frames go into one system call.
const MAX_SLICES: usize = 64;

/// Frames on their way to a socket. Ranges are only put in while there is room; answers always, since what is answered is bounded.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    frames: VecDeque<Bytes>,
    bytes: usize,
}

impl Outbox {
    pub(crate) fn push(&mut self, frame: Bytes) {
        self.bytes += frame.len();
        self.frames.push_back(frame);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// How many bytes more may wait.
    pub(crate) fn room(&self) -> usize {
        ROOM_BYTES.saturating_sub(self.bytes)
    }

    /// Whether a frame of so many bytes fits; into an empty outbox every one does.
    pub(crate) fn fits(&self, bytes: usize) -> bool {
        self.is_empty() || bytes <= self.room()
    }

    /// Writes what the socket takes without waiting. True where it took something.
    pub(crate) fn write_to(&mut self, socket: &TcpStream) -> io::Result<bool> {
        let mut wrote = false;
        while !self.frames.is_empty() {
            let mut slices = [IoSlice::new(&[]); MAX_SLICES];
            let count = self.frames.len().min(MAX_SLICES);
            for (slice, frame) in slices.iter_mut().zip(&self.frames) {
                *slice = IoSlice::new(frame);
            }
            match socket.try_write_vectored(slices.get(..count).unwrap_or_default()) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(taken) => self.taken(taken),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(wrote),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            wrote = true;
        }
        // Between messages nothing is held.
        self.frames = VecDeque::new();
        Ok(wrote)
    }

    fn taken(&mut self, mut taken: usize) {
        self.bytes -= taken;
        while taken > 0 {
            let Some(first) = self.frames.front_mut() else {
                return;
            };
            if first.len() > taken {
                first.advance(taken);
                return;
            }
            taken -= first.len();
            self.frames.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_taken_is_cut_off_across_frames() {
        let mut outbox = Outbox::default();
        for frame in [&b"abc"[..], b"defg", b"h"] {
            outbox.push(Bytes::copy_from_slice(frame));
        }
        outbox.taken(5);
        assert_eq!(outbox.frames, [&b"fg"[..], b"h"]);
        outbox.taken(2);
        assert_eq!((outbox.frames.len(), outbox.bytes), (1, 1));
        assert_eq!(outbox.room(), ROOM_BYTES - 1);
        assert!(outbox.fits(ROOM_BYTES - 1) && !outbox.fits(ROOM_BYTES));
        outbox.taken(1);
        assert!(outbox.is_empty() && outbox.fits(ROOM_BYTES * 2));
    }
}
