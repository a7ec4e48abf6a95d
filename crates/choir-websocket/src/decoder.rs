//! From received bytes to events (RFC 6455 §5, §6.2, §7, §8).

use core::fmt;

use bytes::{Buf, Bytes, BytesMut};

use crate::frame::{self, FIN, LENGTH_IN_2, LENGTH_IN_8, MASK, MAX_CONTROL_BYTES, Opcode, RESERVED_BITS, RSV1};
use crate::utf8::Utf8Check;
use crate::{CloseFrame, ProtocolError, Utf8};

/// Which end of the connection this is. A server takes masked frames only, a client unmasked ones
/// only (RFC 6455 §5.1).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Role {
    /// The end that opened the connection.
    Client,
    /// The end that accepted it.
    Server,
}

/// What a [`Decoder`] takes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Config {
    /// Which end this is.
    pub role: Role,
    /// The longest message, all fragments together. A longer one is refused at the header that
    /// announces it, before its payload is buffered.
    pub max_message_bytes: usize,
    /// The most frames of one message, empty ones included: an endless series of empty fragments
    /// would pass any limit of bytes.
    pub max_fragments: usize,
    /// Whether the handshake agreed on permessage-deflate, so that RSV1 marks a compressed message
    /// (RFC 7692 §6).
    pub allow_compressed: bool,
}

impl Config {
    /// 256 KiB a message, 1,024 fragments, no compression.
    #[must_use]
    pub const fn new(role: Role) -> Self {
        Self {
            role,
            max_message_bytes: 256 * 1024,
            max_fragments: 1024,
            allow_compressed: false,
        }
    }
}

/// What was received.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Event {
    /// A text message (RFC 6455 §5.6).
    Text(Utf8),
    /// A binary message (RFC 6455 §5.6).
    Binary(Bytes),
    /// A message that is still deflated (RFC 7692 §7.2.2); only with [`Config::allow_compressed`].
    /// Its length once inflated is for the caller to bound, and whether it is UTF-8 for the caller
    /// to check.
    Compressed {
        /// What it is once inflated.
        kind: MessageKind,
        /// As it was received.
        payload: Bytes,
    },
    /// A ping, to be answered soon by a pong with the same payload (RFC 6455 §5.5.2).
    Ping(Bytes),
    /// A pong, asked for or not (RFC 6455 §5.5.3).
    Pong(Bytes),
    /// The peer ends the connection and wants the close frame answered, where none was sent before
    /// (RFC 6455 §5.5.1). Nothing follows it.
    Close(Option<CloseFrame>),
}

/// The two kinds of messages (RFC 6455 §5.6).
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum MessageKind {
    /// UTF-8.
    Text,
    /// Any bytes.
    Binary,
}

/// Turns what one connection receives into [`Event`]s.
///
/// The contract: put received bytes in, by [`feed`](Self::feed) or straight into
/// [`buffer_mut`](Self::buffer_mut); then [`poll`](Self::poll) until it answers `None`; then
/// receive more. An error is final, and so is a close frame: what is received after it is dropped
/// (RFC 6455 §1.4).
///
/// Memory: at most what was put in since the last `None`, one unfinished message, and the slack of
/// a growing vector on both. Between messages nothing is held. So that this holds while a
/// connection is idle, wait until the socket is readable before making room in the buffer.
///
/// The payload of an unfragmented message is not copied: it is cut out of the buffer that it was
/// received into, and keeps that whole buffer alive. What is kept for long is better copied.
pub struct Decoder {
    config: Config,
    state: State,
    /// Received and not yet consumed.
    buffer: BytesMut,
    /// The fragments so far of the message that is unfinished.
    message: Option<Message>,
}

impl Decoder {
    /// A decoder for a connection whose opening handshake is done.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            config,
            state: State::ExpectHeader,
            buffer: BytesMut::new(),
            message: None,
        }
    }

    /// Puts received bytes in, by copying them.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The buffer for a socket to read into, behind what it holds; it has no room but what the
    /// caller reserves. What it holds is partly unmasked already and must be left as it is.
    pub const fn buffer_mut(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// How many bytes were put in and aren't consumed yet, the payload of an unfinished frame
    /// included.
    #[must_use]
    pub fn buffered(&self) -> usize {
        self.buffer.len()
    }

    /// Whether, once [`poll`](Self::poll) has answered `None`, a frame or a message has begun to
    /// arrive and isn't complete. The caller bounds how long that lasts for one message, so the
    /// time starts anew with each text, binary or compressed message that is complete.
    #[must_use]
    pub fn in_message(&self) -> bool {
        match self.state {
            State::ExpectHeader => self.message.is_some() || !self.buffer.is_empty(),
            State::ExpectPayload { .. } => true,
            State::Closed | State::Failed(_) => false,
        }
    }

    /// The next event, or `None` when more must be received first.
    ///
    /// # Errors
    ///
    /// What the peer did wrong, as soon as it can be known: reserved bits at a frame's first byte,
    /// a length at its header, bad UTF-8 at the byte that no continuation makes good. The decoder
    /// stays failed and answers the same from then on.
    pub fn poll(&mut self) -> Result<Option<Event>, ProtocolError> {
        let polled = self.advance();
        if let Err(error) = polled {
            self.end(State::Failed(error));
        }
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
        }
        polled
    }

    fn advance(&mut self) -> Result<Option<Event>, ProtocolError> {
        loop {
            match self.state {
                State::ExpectHeader => {
                    let Some((incoming, header_len)) = self.read_header()? else {
                        return Ok(None);
                    };
                    self.buffer.advance(header_len);
                    self.state = State::ExpectPayload { incoming, taken: 0 };
                }
                State::ExpectPayload { incoming, taken } => {
                    let event = match incoming.opcode {
                        Opcode::Close | Opcode::Ping | Opcode::Pong => self.take_control(incoming)?,
                        Opcode::Text | Opcode::Binary if incoming.fin => self.take_whole(incoming, taken)?,
                        Opcode::Text | Opcode::Binary | Opcode::Continuation => self.take_fragment(incoming, taken)?,
                    };
                    if let Some(Event::Close(_)) = event {
                        self.end(State::Closed);
                    }
                    let lacks_payload = matches!(self.state, State::ExpectPayload { .. });
                    if event.is_some() || lacks_payload {
                        return Ok(event);
                    }
                }
                State::Closed => {
                    self.buffer.clear();
                    return Ok(None);
                }
                State::Failed(error) => return Err(error),
            }
        }
    }

    /// The header at the front of the buffer and its length, `None` while it is incomplete. Refuses
    /// at the first byte that shows something wrong.
    fn read_header(&self) -> Result<Option<(Incoming, usize)>, ProtocolError> {
        let Some(&first) = self.buffer.first() else {
            return Ok(None);
        };
        let fin = first & FIN != 0;
        let opcode = Opcode::from_bits(first & 0x0f).ok_or(ProtocolError::ReservedOpcode { opcode: first & 0x0f })?;
        let compressed = self.check_reserved_bits(first & RESERVED_BITS, opcode)?;
        self.check_order(opcode, fin)?;

        let Some(&second) = self.buffer.get(1) else {
            return Ok(None);
        };
        let masked = second & MASK != 0;
        match (self.config.role, masked) {
            (Role::Server, false) => return Err(ProtocolError::UnmaskedByClient),
            (Role::Client, true) => return Err(ProtocolError::MaskedByServer),
            _ => {}
        }
        let short_length = second & !MASK;
        if opcode.is_control() && usize::from(short_length) > MAX_CONTROL_BYTES {
            return Err(ProtocolError::ControlTooLong);
        }

        let mut rest = &self.buffer[2..];
        let length = match short_length {
            LENGTH_IN_2 => rest.try_get_u16().map(u64::from),
            LENGTH_IN_8 => rest.try_get_u64(),
            short => Ok(u64::from(short)),
        };
        let Ok(length) = length else {
            return Ok(None);
        };
        let payload_len = self.check_length(short_length, length, opcode)?;

        let mut mask = None;
        if masked {
            let Some((key, after)) = rest.split_first_chunk::<4>() else {
                return Ok(None);
            };
            mask = Some(*key);
            rest = after;
        }
        let header_len = self.buffer.len() - rest.len();
        Ok(Some((
            Incoming {
                fin,
                compressed,
                opcode,
                mask,
                payload_len,
            },
            header_len,
        )))
    }

    /// Whether the message is compressed. RSV1 says so on the first frame of a message, where that
    /// was agreed on; no other bit has a meaning.
    fn check_reserved_bits(&self, bits: u8, opcode: Opcode) -> Result<bool, ProtocolError> {
        match (bits, opcode) {
            (0, _) => Ok(false),
            (RSV1, Opcode::Text | Opcode::Binary) if self.config.allow_compressed => Ok(true),
            _ => Err(ProtocolError::ReservedBits { bits }),
        }
    }

    /// Whether a frame of this kind may come now.
    fn check_order(&self, opcode: Opcode, fin: bool) -> Result<(), ProtocolError> {
        let limit = self.config.max_fragments;
        match (opcode, &self.message) {
            (Opcode::Close | Opcode::Ping | Opcode::Pong, _) if !fin => Err(ProtocolError::FragmentedControl),
            (Opcode::Text | Opcode::Binary, Some(_)) => Err(ProtocolError::ExpectedContinuation),
            (Opcode::Continuation, None) => Err(ProtocolError::UnexpectedContinuation),
            (Opcode::Continuation, Some(message)) if message.fragments >= limit => {
                Err(ProtocolError::TooManyFragments { limit })
            }
            _ => Ok(()),
        }
    }

    fn check_length(&self, short_length: u8, length: u64, opcode: Opcode) -> Result<usize, ProtocolError> {
        let least = match short_length {
            LENGTH_IN_2 => 126,
            LENGTH_IN_8 => 0x1_0000,
            _ => 0,
        };
        if length < least {
            return Err(ProtocolError::LengthNotMinimal { bytes: length });
        }
        if length > i64::MAX as u64 {
            return Err(ProtocolError::LengthOutOfRange { bytes: length });
        }
        if !opcode.is_control() {
            let before = self.message.as_ref().map_or(0, |message| message.payload.len());
            // No overflow: a length is below 2^63, and so is what is in memory.
            let bytes = before as u64 + length;
            let limit = self.config.max_message_bytes;
            if bytes > limit as u64 {
                return Err(ProtocolError::MessageTooLong { bytes, limit });
            }
        }
        // It fits: a control frame is at most 125 bytes, and a limit is a `usize`.
        Ok(length as usize)
    }

    /// A control frame, once it is complete: it is at most 125 bytes, so waiting for it costs
    /// nothing.
    fn take_control(&mut self, incoming: Incoming) -> Result<Option<Event>, ProtocolError> {
        if self.buffer.len() < incoming.payload_len {
            return Ok(None);
        }
        self.state = State::ExpectHeader;
        let mut payload = self.buffer.split_to(incoming.payload_len);
        incoming.unmask(&mut payload, 0);
        let payload = payload.freeze();
        Ok(Some(match incoming.opcode {
            Opcode::Ping => Event::Ping(payload),
            Opcode::Pong => Event::Pong(payload),
            _ => Event::Close(CloseFrame::parse(&payload)?),
        }))
    }

    /// A message in one frame: it stays where it was received, and is unmasked and checked there as
    /// it arrives.
    fn take_whole(&mut self, incoming: Incoming, taken: usize) -> Result<Option<Event>, ProtocolError> {
        let arrived = self.buffer.len().min(incoming.payload_len);
        let news = &mut self.buffer[taken..arrived];
        incoming.unmask(news, taken);
        let mut message = self.message.take().unwrap_or_else(|| Message::begin(incoming));
        message.check(news)?;
        if arrived < incoming.payload_len {
            self.state = State::ExpectPayload {
                incoming,
                taken: arrived,
            };
            self.message = Some(message);
            return Ok(None);
        }
        self.state = State::ExpectHeader;
        message.payload = self.buffer.split_to(arrived);
        message.finish().map(Some)
    }

    /// A fragment moves behind those before it as it arrives, so that the buffer never holds a
    /// message a second time.
    fn take_fragment(&mut self, incoming: Incoming, taken: usize) -> Result<Option<Event>, ProtocolError> {
        let arrived = self.buffer.len().min(incoming.payload_len - taken);
        let news = &mut self.buffer[..arrived];
        incoming.unmask(news, taken);
        let mut message = self.message.take().unwrap_or_else(|| Message::begin(incoming));
        message.check(news)?;
        message.payload.extend_from_slice(news);
        self.buffer.advance(arrived);
        let taken = taken + arrived;
        if taken < incoming.payload_len {
            self.state = State::ExpectPayload { incoming, taken };
            self.message = Some(message);
            return Ok(None);
        }
        self.state = State::ExpectHeader;
        message.fragments += 1;
        if incoming.fin {
            return message.finish().map(Some);
        }
        self.message = Some(message);
        Ok(None)
    }

    /// Nothing is read any more: all memory goes.
    fn end(&mut self, state: State) {
        self.state = state;
        self.buffer = BytesMut::new();
        self.message = None;
    }
}

impl fmt::Debug for Decoder {
    /// Without what was received: it is the users' and doesn't belong into logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decoder")
            .field("config", &self.config)
            .field("buffered", &self.buffered())
            .finish_non_exhaustive()
    }
}

#[derive(Clone, Copy)]
enum State {
    ExpectHeader,
    /// A header was consumed. Of its payload `taken` bytes are unmasked and checked; they are at
    /// the front of the buffer still where the frame is a whole message, else gone from it.
    ExpectPayload {
        incoming: Incoming,
        taken: usize,
    },
    /// The peer's close frame was received.
    Closed,
    Failed(ProtocolError),
}

/// A header that was received and keeps the rules.
#[derive(Clone, Copy)]
struct Incoming {
    fin: bool,
    compressed: bool,
    opcode: Opcode,
    mask: Option<[u8; 4]>,
    payload_len: usize,
}

impl Incoming {
    fn unmask(&self, piece: &mut [u8], offset: usize) {
        if let Some(mask) = self.mask {
            frame::apply_mask(piece, mask, offset);
        }
    }
}

/// A message of which something has arrived.
struct Message {
    kind: MessageKind,
    compressed: bool,
    utf8: Utf8Check,
    payload: BytesMut,
    /// How many of its frames are complete.
    fragments: usize,
}

impl Message {
    fn begin(incoming: Incoming) -> Self {
        let kind = if incoming.opcode == Opcode::Text {
            MessageKind::Text
        } else {
            MessageKind::Binary
        };
        Self {
            kind,
            compressed: incoming.compressed,
            utf8: Utf8Check::default(),
            payload: BytesMut::new(),
            fragments: 0,
        }
    }

    /// Looks at the next bytes of the payload. Deflated text can be judged only when it is
    /// inflated.
    fn check(&mut self, news: &[u8]) -> Result<(), ProtocolError> {
        match (self.kind, self.compressed) {
            (MessageKind::Text, false) => self.utf8.push(news).map_err(|_| ProtocolError::TextNotUtf8),
            _ => Ok(()),
        }
    }

    fn finish(self) -> Result<Event, ProtocolError> {
        let payload = self.payload.freeze();
        Ok(match (self.kind, self.compressed) {
            (kind, true) => Event::Compressed { kind, payload },
            (MessageKind::Binary, false) => Event::Binary(payload),
            (MessageKind::Text, false) => {
                self.utf8.finish().map_err(|_| ProtocolError::TextNotUtf8)?;
                Event::Text(Utf8::from_checked(payload))
            }
        })
    }
}
