//! What goes wrong, under the specification's names (section 11).

use alloc::string::{String, ToString};
use core::fmt;

pub use choir_protocol::error::SpecificationError;
use choir_protocol::error::{ErrorCode, close};
use choir_protocol::message::ErrorPayload;

/// What happened, more finely than the specification's five names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Code {
    /// `connection_lost`: no connection, and none is sought any longer.
    ConnectionLost,
    /// `closed`: the caller closed the client.
    Closed,
    /// `not_subscribed`: the call needs a thread that isn't followed.
    NotSubscribed,
    /// A code of the wire; some of them are also found by the client itself, before anything is sent.
    Wire(ErrorCode),
}

impl Code {
    /// The code's text.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ConnectionLost => "connection_lost",
            Self::Closed => "closed",
            Self::NotSubscribed => "not_subscribed",
            Self::Wire(code) => code.as_str(),
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An error of a client: one of the specification's five, with its code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// Which of the specification's five.
    pub name: SpecificationError,
    /// Which of section 11's codes.
    pub code: Code,
    /// What happened, for people.
    pub message: String,
    /// More about the cause, where the server named one (C6, Y4).
    pub cause: Option<String>,
    /// Whether the same thing may be tried again.
    pub retryable: bool,
    /// When, where the server named a time.
    pub retry_after_ms: Option<u64>,
}

impl Error {
    /// An error that the client itself finds.
    pub fn local(code: Code, message: impl Into<String>) -> Self {
        let (name, retryable) = match code {
            Code::ConnectionLost => (SpecificationError::ConnectionLost, true),
            Code::Closed => (SpecificationError::ConnectionLost, false),
            Code::NotSubscribed => (SpecificationError::SubscriptionError, false),
            Code::Wire(code) => (code.specification_name(), code.retryable()),
        };
        Self {
            name,
            code,
            message: message.into(),
            cause: None,
            retryable,
            retry_after_ms: None,
        }
    }

    /// The connection is gone for good.
    pub fn connection_lost(message: impl Into<String>) -> Self {
        Self::local(Code::ConnectionLost, message)
    }

    /// The caller closed the client.
    pub fn closed() -> Self {
        Self::local(Code::Closed, "the client was closed")
    }

    /// An error under a wire's code that the client itself finds.
    pub fn wire(code: ErrorCode, message: impl Into<String>) -> Self {
        Self::local(Code::Wire(code), message)
    }

    /// What a close code that ends in `disconnected` says (C11), where no error came before it.
    pub(super) fn of_close_code(code: u16) -> Self {
        let (wire, message) = match code {
            close::INVALID_MESSAGE => (
                ErrorCode::InvalidMessage,
                "the server closed: it got messages that were none",
            ),
            close::SUPERSEDED => (ErrorCode::Superseded, "another connection of this client took over"),
            close::DENIED => (
                ErrorCode::AuthenticationFailed,
                "the server's operator denies this user",
            ),
            close::AUTHENTICATION => (
                ErrorCode::AuthenticationFailed,
                "the server didn't accept the credentials",
            ),
            _ => return Self::connection_lost(alloc::format!("the server closed with {code}")),
        };
        Self::wire(wire, message)
    }
}

impl From<ErrorPayload> for Error {
    fn from(payload: ErrorPayload) -> Self {
        Self {
            name: payload.code.specification_name(),
            code: Code::Wire(payload.code),
            message: payload.message,
            cause: payload.cause,
            retryable: payload.retryable,
            retry_after_ms: payload.retry_after_ms,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): {}", self.name, self.code, self.message)?;
        match &self.cause {
            Some(cause) => write!(f, " [{cause}]"),
            None => Ok(()),
        }
    }
}

impl core::error::Error for Error {}

impl From<choir_protocol::action::PayloadError> for Error {
    fn from(error: choir_protocol::action::PayloadError) -> Self {
        Self::wire(ErrorCode::InvalidMessage, error.to_string())
    }
}
