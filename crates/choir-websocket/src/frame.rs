//! Frames on the wire (RFC 6455 §5.2).
//!
//! ```text
//! byte 0      FIN RSV1 RSV2 RSV3 | opcode (4 bits)
//! byte 1      MASK | length (7 bits)
//!             0 to 125   the payload's length
//!             126        it stands in the next 2 bytes, 126 to 65,535
//!             127        it stands in the next 8 bytes, 65,536 to 2^63 − 1
//! then        the mask key, 4 bytes, where MASK is set: all that a client sends, nothing that a server sends
//! then        the payload; masked, byte i is combined by exclusive or with byte i mod 4 of the key
//! ```
//!
//! Multi-byte numbers are big-endian. A length stands in the shortest form that holds it.

use bytes::{BufMut, Bytes, BytesMut};

use crate::close;
use crate::{CloseCode, CloseFrame, MessageKind};

/// The longest payload of a close, ping or pong frame (RFC 6455 §5.5).
pub const MAX_CONTROL_BYTES: usize = 125;

pub(crate) const FIN: u8 = 0x80;
pub(crate) const RSV1: u8 = 0x40;
pub(crate) const RESERVED_BITS: u8 = 0x70;
pub(crate) const MASK: u8 = 0x80;
/// The 7-bit length that says that the length is in the next 2 bytes.
pub(crate) const LENGTH_IN_2: u8 = 126;
/// The 7-bit length that says that the length is in the next 8 bytes.
pub(crate) const LENGTH_IN_8: u8 = 127;

/// The longest header: two bytes, a 64-bit length, a mask key.
const MAX_HEADER_BYTES: usize = 2 + 8 + 4;

/// What a frame is (RFC 6455 §5.2, §11.8).
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Opcode {
    /// A further fragment of the message that is unfinished.
    Continuation,
    /// A text message, or its first fragment.
    Text,
    /// A binary message, or its first fragment.
    Binary,
    /// The end of the connection.
    Close,
    /// Asks for a pong.
    Ping,
    /// Answers a ping, or says that one is alive.
    Pong,
}

impl Opcode {
    pub(crate) const fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            0x0 => Self::Continuation,
            0x1 => Self::Text,
            0x2 => Self::Binary,
            0x8 => Self::Close,
            0x9 => Self::Ping,
            0xa => Self::Pong,
            _ => return None,
        })
    }

    const fn bits(self) -> u8 {
        match self {
            Self::Continuation => 0x0,
            Self::Text => 0x1,
            Self::Binary => 0x2,
            Self::Close => 0x8,
            Self::Ping => 0x9,
            Self::Pong => 0xa,
        }
    }

    /// Close, ping and pong: never fragmented, short, and allowed between the fragments of a
    /// message (RFC 6455 §5.5).
    #[must_use]
    pub const fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}

impl From<MessageKind> for Opcode {
    fn from(kind: MessageKind) -> Self {
        match kind {
            MessageKind::Text => Self::Text,
            MessageKind::Binary => Self::Binary,
        }
    }
}

/// What stands before a payload, its length aside (RFC 6455 §5.2). For those who fragment;
/// [`Frame`] and [`masked`] write whole messages.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Header {
    /// Whether the message ends with this frame.
    pub fin: bool,
    /// RSV1: the message is deflated (RFC 7692 §6). Only on the first frame of a message, and only
    /// where the handshake agreed on it.
    pub compressed: bool,
    /// What the frame is.
    pub opcode: Opcode,
    /// The key that a client masks with, unpredictable for whoever chose the payload (RFC 6455
    /// §10.3); `None` for a server.
    pub mask: Option<[u8; 4]>,
}

impl Header {
    /// The header of a message in one unmasked frame.
    #[must_use]
    pub const fn whole(opcode: Opcode) -> Self {
        Self {
            fin: true,
            compressed: false,
            opcode,
            mask: None,
        }
    }

    fn put(&self, payload_len: usize, out: &mut impl BufMut) {
        if self.opcode.is_control() {
            assert!(
                payload_len <= MAX_CONTROL_BYTES,
                "a control frame of {payload_len} bytes"
            );
            assert!(
                self.fin && !self.compressed,
                "a control frame is neither fragmented nor compressed"
            );
        }
        let fin = if self.fin { FIN } else { 0 };
        let rsv1 = if self.compressed { RSV1 } else { 0 };
        out.put_u8(fin | rsv1 | self.opcode.bits());
        let masked = if self.mask.is_some() { MASK } else { 0 };
        match payload_len {
            0..=125 => out.put_u8(masked | payload_len as u8),
            126..=0xffff => {
                out.put_u8(masked | LENGTH_IN_2);
                out.put_u16(payload_len as u16);
            }
            _ => {
                out.put_u8(masked | LENGTH_IN_8);
                out.put_u64(payload_len as u64);
            }
        }
        if let Some(mask) = self.mask {
            out.put_slice(&mask);
        }
    }
}

/// A message of a server, or a control frame of one, as it stands on the wire: one unmasked frame
/// (RFC 6455 §5.1).
///
/// The bytes are immutable and shared: a frame is built once, and a clone for each of many
/// connections counts a reference.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Frame(Bytes);

impl Frame {
    /// A text message (RFC 6455 §5.6).
    #[must_use]
    pub fn text(payload: &str) -> Self {
        Self::build(Header::whole(Opcode::Text), payload.as_bytes())
    }

    /// A binary message (RFC 6455 §5.6).
    #[must_use]
    pub fn binary(payload: &[u8]) -> Self {
        Self::build(Header::whole(Opcode::Binary), payload)
    }

    /// A message that the caller has deflated as RFC 7692 §7.2.1 says. Only for peers whose
    /// handshake agreed on it.
    #[must_use]
    pub fn compressed(kind: MessageKind, deflated: &[u8]) -> Self {
        Self::build(
            Header {
                compressed: true,
                ..Header::whole(kind.into())
            },
            deflated,
        )
    }

    /// A ping (RFC 6455 §5.5.2).
    ///
    /// # Panics
    ///
    /// If the payload is over [`MAX_CONTROL_BYTES`].
    #[must_use]
    pub fn ping(payload: &[u8]) -> Self {
        Self::build(Header::whole(Opcode::Ping), payload)
    }

    /// A pong, to be sent with the payload of the ping that it answers (RFC 6455 §5.5.3).
    ///
    /// # Panics
    ///
    /// If the payload is over [`MAX_CONTROL_BYTES`], which that of a received ping never is.
    #[must_use]
    pub fn pong(payload: &[u8]) -> Self {
        Self::build(Header::whole(Opcode::Pong), payload)
    }

    /// A close frame with a code and a reason for people (RFC 6455 §5.5.1). A reason over 123 bytes
    /// is cut after a whole character.
    #[must_use]
    pub fn close(code: CloseCode, reason: &str) -> Self {
        Self::build(Header::whole(Opcode::Close), &close::payload(code, reason))
    }

    /// What answers a received close frame: the same code, or none where it had none (RFC 6455
    /// §5.5.1).
    #[must_use]
    pub fn answer_to_close(close: Option<&CloseFrame>) -> Self {
        match close {
            Some(close) => Self::close(close.code, ""),
            None => Self::build(Header::whole(Opcode::Close), &[]),
        }
    }

    /// Header and payload.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Header and payload, without a copy.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        self.0
    }

    fn build(header: Header, payload: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(MAX_HEADER_BYTES + payload.len());
        header.put(payload.len(), &mut bytes);
        bytes.extend_from_slice(payload);
        Self(bytes.into())
    }
}

impl AsRef<[u8]> for Frame {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl From<Frame> for Bytes {
    fn from(frame: Frame) -> Self {
        frame.into_bytes()
    }
}

/// Appends a whole message, or a control frame, as a client sends it: masked with this key (RFC
/// 6455 §5.3).
///
/// A key must be new for each frame and unpredictable (RFC 6455 §10.3): it comes from the caller's
/// source of randomness.
///
/// # Panics
///
/// If a control frame's payload is over [`MAX_CONTROL_BYTES`].
pub fn masked(opcode: Opcode, payload: &[u8], mask: [u8; 4], out: &mut BytesMut) {
    write_frame(
        Header {
            mask: Some(mask),
            ..Header::whole(opcode)
        },
        payload,
        out,
    );
}

/// Appends one frame, of either role, with any header: the fragments of a message, a compressed
/// one.
///
/// # Panics
///
/// If a control frame is fragmented, compressed, or over [`MAX_CONTROL_BYTES`].
pub fn write_frame(header: Header, payload: &[u8], out: &mut BytesMut) {
    out.reserve(MAX_HEADER_BYTES + payload.len());
    header.put(payload.len(), out);
    let start = out.len();
    out.extend_from_slice(payload);
    if let Some(mask) = header.mask {
        apply_mask(&mut out[start..], mask, 0);
    }
}

/// Masks or unmasks, which is the same (RFC 6455 §5.3), a piece of a payload that begins `offset`
/// bytes into it.
pub(crate) fn apply_mask(piece: &mut [u8], mut mask: [u8; 4], offset: usize) {
    mask.rotate_left(offset % 4);
    let [a, b, c, d] = mask;
    // Eight bytes at a time, in the order of memory, so that the compiler may take as many words at
    // once as the processor has.
    let word = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, rest) = piece.as_chunks_mut::<8>();
    for chunk in words {
        *chunk = (u64::from_ne_bytes(*chunk) ^ word).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masking_in_pieces_is_masking_as_a_whole() {
        let key = [0x37, 0xfa, 0x21, 0x3d];
        let payload: Vec<u8> = (0..100).collect();
        let expected: Vec<u8> = payload
            .iter()
            .enumerate()
            .map(|(at, byte)| byte ^ key[at % 4])
            .collect();
        for cut in 0..=payload.len() {
            let mut pieces = payload.clone();
            let (first, second) = pieces.split_at_mut(cut);
            apply_mask(first, key, 0);
            apply_mask(second, key, cut);
            assert_eq!(pieces, expected, "cut at {cut}");
        }
    }

    #[test]
    fn every_opcode_reads_back() {
        for bits in 0..16 {
            if let Some(opcode) = Opcode::from_bits(bits) {
                assert_eq!(opcode.bits(), bits);
            }
        }
    }
}
