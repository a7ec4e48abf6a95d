//! Close codes and close frames (RFC 6455 §5.5.1, §7.4).

use core::fmt;

use crate::ProtocolError;
use crate::frame::MAX_CONTROL_BYTES;

/// A status code that may stand in a close frame (RFC 6455 §7.4 and the IANA registry that it
/// founds).
///
/// Those that only describe an end to the local caller (1005, 1006, 1015) and those that nobody has
/// defined can't be built.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct CloseCode(u16);

impl CloseCode {
    /// 1000: the purpose of the connection is fulfilled.
    pub const NORMAL: Self = Self(1000);
    /// 1001: a server goes down, or a browser leaves the page.
    pub const GOING_AWAY: Self = Self(1001);
    /// 1002: a frame broke the protocol.
    pub const PROTOCOL_ERROR: Self = Self(1002);
    /// 1003: a kind of data that the endpoint doesn't take, such as binary.
    pub const UNSUPPORTED_DATA: Self = Self(1003);
    /// 1007: data that isn't what its message's type says, such as text that isn't UTF-8.
    pub const INVALID_PAYLOAD: Self = Self(1007);
    /// 1008: a policy was broken, and no other code fits.
    pub const POLICY_VIOLATION: Self = Self(1008);
    /// 1009: a message is longer than the endpoint takes.
    pub const MESSAGE_TOO_BIG: Self = Self(1009);
    /// 1010: the client needs an extension that the server didn't agree to.
    pub const MANDATORY_EXTENSION: Self = Self(1010);
    /// 1011: the server met an unexpected condition.
    pub const INTERNAL_ERROR: Self = Self(1011);
    /// 1012: the service restarts.
    pub const SERVICE_RESTART: Self = Self(1012);
    /// 1013: try again later.
    pub const TRY_AGAIN_LATER: Self = Self(1013);
    /// 1014: a gateway got an invalid answer from the server behind it.
    pub const BAD_GATEWAY: Self = Self(1014);

    /// The code of this number, where it may be sent: 1000 to 1003, 1007 to 1014, 3000 to 4999.
    #[must_use]
    pub const fn new(code: u16) -> Option<Self> {
        match code {
            1000..=1003 | 1007..=1014 | 3000..=4999 => Some(Self(code)),
            _ => None,
        }
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a close frame says when its payload isn't empty (RFC 6455 §5.5.1).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CloseFrame {
    /// Why the connection ends.
    pub code: CloseCode,
    /// The same for people; often empty.
    pub reason: String,
}

impl CloseFrame {
    /// Reads the payload of a close frame; an empty one says nothing.
    pub(crate) fn parse(payload: &[u8]) -> Result<Option<Self>, ProtocolError> {
        let (code, reason) = match payload {
            [] => return Ok(None),
            [_] => return Err(ProtocolError::ClosePayloadTooShort),
            [high, low, reason @ ..] => (u16::from_be_bytes([*high, *low]), reason),
        };
        let code = CloseCode::new(code).ok_or(ProtocolError::CloseCodeNotAllowed { code })?;
        let reason = core::str::from_utf8(reason).map_err(|_| ProtocolError::CloseReasonNotUtf8)?;
        Ok(Some(Self {
            code,
            reason: reason.to_owned(),
        }))
    }
}

/// The payload of a close frame. A reason that doesn't fit is cut after a whole character: it is
/// for people, and the connection ends either way.
pub(crate) fn payload(code: CloseCode, reason: &str) -> Vec<u8> {
    let room = MAX_CONTROL_BYTES - size_of::<u16>();
    let reason = &reason[..reason.floor_char_boundary(room)];
    let mut payload = Vec::with_capacity(size_of::<u16>() + reason.len());
    payload.extend_from_slice(&code.get().to_be_bytes());
    payload.extend_from_slice(reason.as_bytes());
    payload
}
