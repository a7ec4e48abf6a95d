//! RFC 6455 (WebSocket) as a codec that does no I/O: no sockets, no tasks, no clock, no randomness.
//! It is handed bytes and yields events; it is handed messages and yields bytes. Who reads, writes,
//! waits and closes is the caller; the mask keys of a client are arguments.
//!
//! - [`Decoder`] turns received bytes into [`Event`]s, or into the one [`ProtocolError`] that ends
//!   the connection and names its close code.
//! - [`Frame`] is an outgoing message of a server: header and payload in one immutable byte string,
//!   built once and shared by many connections.
//! - [`masked`] and [`write_frame`] append a client's frames to a buffer.
//! - [`handshake`] checks the opening handshake, on both ends, over headers that somebody else has
//!   parsed.
//!
//! A server's side of a connection, without the connection:
//!
//! ```
//! use bytes::{BufMut, BytesMut};
//! use choir_websocket::{CloseCode, Config, Decoder, Event, Frame, Opcode, Role, handshake, masked};
//!
//! // The upgrade request, as an HTTP library has parsed it.
//! let headers: [(&str, &[u8]); 6] = [
//!     ("Host", b"choir.example"),
//!     ("Upgrade", b"websocket"),
//!     ("Connection", b"keep-alive, Upgrade"),
//!     ("Sec-WebSocket-Version", b"13"),
//!     ("Sec-WebSocket-Key", b"dGhlIHNhbXBsZSBub25jZQ=="),
//!     ("Sec-WebSocket-Protocol", b"choir.v1.json"),
//! ];
//! let upgrade = handshake::check_request("GET", headers).expect("a good request");
//! assert!(upgrade.offers("choir.v1.json"));
//! assert_eq!(upgrade.accept_key(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
//!
//! // What the client then sends: two messages and a close frame.
//! let mut wire = BytesMut::new();
//! masked(Opcode::Text, "hello".as_bytes(), [1, 2, 3, 4], &mut wire);
//! masked(Opcode::Ping, b"?", [5, 6, 7, 8], &mut wire);
//! masked(Opcode::Close, &CloseCode::NORMAL.get().to_be_bytes(), [9, 10, 11, 12], &mut wire);
//!
//! // A socket reads straight into the decoder's buffer; then every event that is complete is taken.
//! let mut decoder = Decoder::new(Config::new(Role::Server));
//! decoder.buffer_mut().put(wire);
//! let mut answers = Vec::new();
//! loop {
//!     match decoder.poll() {
//!         Ok(Some(Event::Text(text))) => answers.push(Frame::text(text.as_str())),
//!         Ok(Some(Event::Ping(payload))) => answers.push(Frame::pong(&payload)),
//!         Ok(Some(Event::Close(close))) => answers.push(Frame::answer_to_close(close.as_ref())),
//!         Ok(Some(_)) => {}
//!         Ok(None) => break, // more has to be received
//!         Err(error) => {
//!             answers.push(Frame::close(error.close_code(), &error.to_string()));
//!             break;
//!         }
//!     }
//! }
//! assert_eq!(answers[0].as_bytes(), b"\x81\x05hello");
//! assert_eq!(answers[1].as_bytes(), b"\x8a\x01?");
//! assert_eq!(answers[2].as_bytes(), b"\x88\x02\x03\xe8");
//! assert_eq!(decoder.buffered(), 0);
//! ```
//!
//! # Compression
//!
//! RFC 7692 (permessage-deflate) marks a compressed message by the bit RSV1 of its first frame. The
//! codec carries that mark and leaves the deflating to its caller, who knows what may be compressed
//! at all: with [`Config::allow_compressed`] such a message comes out as [`Event::Compressed`],
//! still deflated, and [`Frame::compressed`] sends one. Without it (the default, and right wherever
//! the handshake didn't agree on the extension) RSV1 breaks the protocol like RSV2 and RSV3.

mod close;
mod decoder;
mod error;
mod frame;
pub mod handshake;
mod utf8;

pub use close::{CloseCode, CloseFrame};
pub use decoder::{Config, Decoder, Event, MessageKind, Role};
pub use error::ProtocolError;
pub use frame::{Frame, Header, MAX_CONTROL_BYTES, Opcode, masked, write_frame};
pub use utf8::Utf8;
