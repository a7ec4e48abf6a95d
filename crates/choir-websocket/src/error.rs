//! What a peer can do wrong, and the close code that tells it so.

use core::fmt;

use crate::CloseCode;

/// How the peer broke the protocol. The connection can't go on after it: frame boundaries are no
/// longer to be trusted.
///
/// The text is fit to be sent as the reason of the close frame: it holds nothing but numbers from
/// the frame's header.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum ProtocolError {
    /// A reserved bit is set that no extension was agreed on for (RFC 6455 §5.2). The bits stand as
    /// in the frame's first byte.
    ReservedBits {
        /// 0x40 is RSV1, 0x20 RSV2, 0x10 RSV3.
        bits: u8,
    },
    /// An opcode that isn't defined: 3 to 7, 11 to 15 (RFC 6455 §5.2).
    ReservedOpcode {
        /// The four bits.
        opcode: u8,
    },
    /// A server sent a masked frame (RFC 6455 §5.1).
    MaskedByServer,
    /// A client sent an unmasked frame (RFC 6455 §5.1).
    UnmaskedByClient,
    /// A length in more bytes than it needs (RFC 6455 §5.2).
    LengthNotMinimal {
        /// The length.
        bytes: u64,
    },
    /// A 64-bit length whose highest bit is set (RFC 6455 §5.2).
    LengthOutOfRange {
        /// The length.
        bytes: u64,
    },
    /// A close, ping or pong frame that isn't final (RFC 6455 §5.5).
    FragmentedControl,
    /// A close, ping or pong frame of more than 125 bytes (RFC 6455 §5.5).
    ControlTooLong,
    /// A continuation frame while no message is unfinished (RFC 6455 §5.4).
    UnexpectedContinuation,
    /// A text or binary frame while a message is unfinished (RFC 6455 §5.4).
    ExpectedContinuation,
    /// A close frame with half a code (RFC 6455 §5.5.1).
    ClosePayloadTooShort,
    /// A close frame with a code that may not be sent (RFC 6455 §7.4).
    CloseCodeNotAllowed {
        /// The code.
        code: u16,
    },
    /// A close frame whose reason isn't UTF-8 (RFC 6455 §5.5.1).
    CloseReasonNotUtf8,
    /// A text message that isn't UTF-8 (RFC 6455 §8.1).
    TextNotUtf8,
    /// A message over [`max_message_bytes`](crate::Config::max_message_bytes) (RFC 6455 §10.4).
    MessageTooLong {
        /// How long it would be with the frame that was announced.
        bytes: u64,
        /// What is taken.
        limit: usize,
    },
    /// A message of more than [`max_fragments`](crate::Config::max_fragments) frames (RFC 6455
    /// §10.4).
    TooManyFragments {
        /// What is taken.
        limit: usize,
    },
}

impl ProtocolError {
    /// The code to close the connection with (RFC 6455 §7.4.1): 1002 for a broken frame, 1007 for
    /// what isn't UTF-8, 1009 for what is too large.
    #[must_use]
    pub fn close_code(&self) -> CloseCode {
        match self {
            Self::ReservedBits { .. }
            | Self::ReservedOpcode { .. }
            | Self::MaskedByServer
            | Self::UnmaskedByClient
            | Self::LengthNotMinimal { .. }
            | Self::LengthOutOfRange { .. }
            | Self::FragmentedControl
            | Self::ControlTooLong
            | Self::UnexpectedContinuation
            | Self::ExpectedContinuation
            | Self::ClosePayloadTooShort
            | Self::CloseCodeNotAllowed { .. } => CloseCode::PROTOCOL_ERROR,
            Self::CloseReasonNotUtf8 | Self::TextNotUtf8 => CloseCode::INVALID_PAYLOAD,
            Self::MessageTooLong { .. } | Self::TooManyFragments { .. } => CloseCode::MESSAGE_TOO_BIG,
        }
    }
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ReservedBits { bits } => write!(f, "reserved bits {bits:#04x} are set"),
            Self::ReservedOpcode { opcode } => write!(f, "opcode {opcode} is reserved"),
            Self::MaskedByServer => f.write_str("a server's frame is masked"),
            Self::UnmaskedByClient => f.write_str("a client's frame isn't masked"),
            Self::LengthNotMinimal { bytes } => {
                write!(f, "length {bytes} is written in more bytes than it needs")
            }
            Self::LengthOutOfRange { bytes } => {
                write!(f, "length {bytes:#x} has its highest bit set")
            }
            Self::FragmentedControl => f.write_str("a control frame is fragmented"),
            Self::ControlTooLong => f.write_str("a control frame is longer than 125 bytes"),
            Self::UnexpectedContinuation => f.write_str("a continuation without a message to continue"),
            Self::ExpectedContinuation => f.write_str("a new message inside an unfinished one"),
            Self::ClosePayloadTooShort => f.write_str("a close frame of one byte"),
            Self::CloseCodeNotAllowed { code } => write!(f, "close code {code} may not be sent"),
            Self::CloseReasonNotUtf8 => f.write_str("a close reason isn't UTF-8"),
            Self::TextNotUtf8 => f.write_str("a text message isn't UTF-8"),
            Self::MessageTooLong { bytes, limit } => {
                write!(f, "a message of {bytes} bytes, at most {limit} are taken")
            }
            Self::TooManyFragments { limit } => {
                write!(f, "a message of more than {limit} fragments")
            }
        }
    }
}

impl core::error::Error for ProtocolError {}
