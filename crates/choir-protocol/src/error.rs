//! The error taxonomy of section 11: what a code means on the wire stands here and nowhere else.

use core::fmt;
use core::str::FromStr;

/// What `error.connection` and `error.state` name in `code`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "each is a code of section 11's table, explained there")]
pub enum ErrorCode {
    AuthenticationFailed,
    TokenExpiring,
    Superseded,
    SubscriptionError,
    PermissionDenied,
    NotFound,
    Conflict,
    SignatureInvalid,
    ClockSkew,
    SequenceGap,
    ContentTooLarge,
    Limit,
    RateLimited,
    MessageDeliveryFailed,
    StateDesync,
    InvalidMessage,
    UnknownType,
    HeartbeatTimeout,
    Internal,
    /// One of a later version: a client takes it by its `retryable`. No server of this version sends it.
    Unknown,
}

impl ErrorCode {
    /// Every code of section 11.
    pub const ALL: [Self; 19] = [
        Self::AuthenticationFailed,
        Self::TokenExpiring,
        Self::Superseded,
        Self::SubscriptionError,
        Self::PermissionDenied,
        Self::NotFound,
        Self::Conflict,
        Self::SignatureInvalid,
        Self::ClockSkew,
        Self::SequenceGap,
        Self::ContentTooLarge,
        Self::Limit,
        Self::RateLimited,
        Self::MessageDeliveryFailed,
        Self::StateDesync,
        Self::InvalidMessage,
        Self::UnknownType,
        Self::HeartbeatTimeout,
        Self::Internal,
    ];

    /// The code's text.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AuthenticationFailed => "authentication_failed",
            Self::TokenExpiring => "token_expiring",
            Self::Superseded => "superseded",
            Self::SubscriptionError => "subscription_error",
            Self::PermissionDenied => "permission_denied",
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::SignatureInvalid => "signature_invalid",
            Self::ClockSkew => "clock_skew",
            Self::SequenceGap => "sequence_gap",
            Self::ContentTooLarge => "content_too_large",
            Self::Limit => "limit",
            Self::RateLimited => "rate_limited",
            Self::MessageDeliveryFailed => "message_delivery_failed",
            Self::StateDesync => "state_desync",
            Self::InvalidMessage => "invalid_message",
            Self::UnknownType => "unknown_type",
            Self::HeartbeatTimeout => "heartbeat_timeout",
            Self::Internal => "internal",
            Self::Unknown => "unknown",
        }
    }

    /// Whether the same thing may be tried again (the r of section 11).
    pub const fn retryable(self) -> bool {
        match self {
            Self::TokenExpiring
            | Self::ClockSkew
            | Self::SequenceGap
            | Self::RateLimited
            | Self::MessageDeliveryFailed
            | Self::StateDesync
            | Self::HeartbeatTimeout
            | Self::Internal => true,
            Self::AuthenticationFailed
            | Self::Superseded
            | Self::SubscriptionError
            | Self::PermissionDenied
            | Self::NotFound
            | Self::Conflict
            | Self::SignatureInvalid
            | Self::ContentTooLarge
            | Self::Limit
            | Self::InvalidMessage
            | Self::UnknownType
            | Self::Unknown => false,
        }
    }

    /// The specification's name for errors of this code.
    pub const fn specification_name(self) -> SpecificationError {
        match self {
            Self::AuthenticationFailed | Self::TokenExpiring | Self::Superseded => {
                SpecificationError::AuthenticationFailed
            }
            Self::SubscriptionError => SpecificationError::SubscriptionError,
            Self::StateDesync => SpecificationError::StateDesyncError,
            Self::HeartbeatTimeout => SpecificationError::ConnectionLost,
            Self::PermissionDenied
            | Self::NotFound
            | Self::Conflict
            | Self::SignatureInvalid
            | Self::ClockSkew
            | Self::SequenceGap
            | Self::ContentTooLarge
            | Self::Limit
            | Self::RateLimited
            | Self::MessageDeliveryFailed
            | Self::InvalidMessage
            | Self::UnknownType
            | Self::Internal
            | Self::Unknown => SpecificationError::MessageDeliveryFailed,
        }
    }
}

/// The five errors of the specification, which client libraries' errors are named by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the specification's own names")]
pub enum SpecificationError {
    ConnectionLost,
    AuthenticationFailed,
    SubscriptionError,
    MessageDeliveryFailed,
    StateDesyncError,
}

impl fmt::Display for SpecificationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A code that this version doesn't know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnknownCode;

impl fmt::Display for UnknownCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("unknown error code")
    }
}

impl FromStr for ErrorCode {
    type Err = UnknownCode;
    fn from_str(text: &str) -> Result<Self, UnknownCode> {
        Self::ALL
            .into_iter()
            .find(|code| code.as_str() == text)
            .ok_or(UnknownCode)
    }
}

crate::ids::serde_by_text! {
    ErrorCode, "an error code of section 11";
}

/// Close codes that the protocol gives a meaning (section 11). Those of RFC 6455 keep theirs.
pub mod close {
    /// The normal end.
    pub const NORMAL: u16 = 1000;
    /// The peer broke WebSocket's framing.
    pub const PROTOCOL_ERROR: u16 = 1002;
    /// A text message wasn't UTF-8.
    pub const NOT_UTF8: u16 = 1007;
    /// A message was over `max_message_bytes`.
    pub const TOO_LARGE: u16 = 1009;
    /// The server restarts (C10).
    pub const RESTART: u16 = 1012;
    /// Five messages in a row that were no messages, or a binary one (E4, T2).
    pub const INVALID_MESSAGE: u16 = 4400;
    /// Authentication failed, was missing, or expired (C2, C6, C8).
    pub const AUTHENTICATION: u16 = 4401;
    /// The operator's deny list.
    pub const DENIED: u16 = 4403;
    /// The pong didn't come (C9).
    pub const HEARTBEAT: u16 = 4408;
    /// Another connection of the same client took over (C7).
    pub const SUPERSEDED: u16 = 4409;
    /// Reserved.
    pub const UPGRADE_REQUIRED: u16 = 4426;
    /// A limit or a rate.
    pub const RATE_LIMITED: u16 = 4429;
    /// The server's fault.
    pub const INTERNAL: u16 = 4500;
}
