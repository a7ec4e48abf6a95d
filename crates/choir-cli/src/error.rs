//! What goes wrong in a command: what happened, what it means for the data, and what to do next.

use std::fmt;
use std::io;

use choir_core::client::error::{Code, Error as ClientError};
use choir_protocol::error::ErrorCode;

/// What a command answers.
pub(crate) type Result<T> = std::result::Result<T, Failure>;

/// Whose fault it is, and so the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It failed, or was refused.
    Failed,
    /// The command line, a configuration or an input says something that can't be done.
    Usage,
    /// There is no connection.
    Connection,
    /// Who reads the output went away: nothing to say, and nobody to say it to.
    Quiet,
}

impl Kind {
    /// The exit code, as `choir --help` documents it.
    pub(crate) const fn exit_code(self) -> u8 {
        match self {
            Self::Quiet => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Connection => 3,
        }
    }
}

/// A command that didn't do what was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// Whose fault.
    pub(crate) kind: Kind,
    /// The protocol's code, or one of this program's.
    pub(crate) code: String,
    /// What happened, with the values.
    pub(crate) message: String,
    /// What it means for the data.
    pub(crate) meaning: Option<String>,
    /// What to do next.
    pub(crate) hint: Option<String>,
}

impl Failure {
    fn new(kind: Kind, code: &str, message: impl Into<String>) -> Self {
        // Better ones are said where more is known.
        let hint = match code {
            "io" => Some("check that it exists, that you may use it, and that the disk isn't full"),
            "internal" => Some("this is a fault of choir's: please report it, with the command and its output"),
            "connection_lost" => Some("try again once the server can be reached"),
            _ => None,
        };
        Self {
            kind,
            code: code.to_owned(),
            message: message.into(),
            meaning: None,
            hint: hint.map(str::to_owned),
        }
    }

    /// Something failed, or was refused.
    pub(crate) fn failed(code: &str, message: impl Into<String>) -> Self {
        Self::new(Kind::Failed, code, message)
    }

    /// What was asked for can't be.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, "usage", message)
    }

    /// There is no connection.
    pub(crate) fn connection(message: impl Into<String>) -> Self {
        Self::new(Kind::Connection, "connection_lost", message)
    }

    /// A file that couldn't be read or written.
    pub(crate) fn file(doing: &str, path: &std::path::Path, error: &io::Error) -> Self {
        Self::failed("io", format!("could not {doing} {}: {error}", path.display()))
    }

    /// The same, with what it means for the data.
    #[must_use]
    pub(crate) fn meaning(mut self, meaning: impl Into<String>) -> Self {
        self.meaning = Some(meaning.into());
        self
    }

    /// The same, with the way out.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The object that `--json` prints on stderr.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        let mut error = serde_json::Map::new();
        error.insert("code".into(), self.code.clone().into());
        error.insert("message".into(), self.message.clone().into());
        if let Some(meaning) = &self.meaning {
            error.insert("meaning".into(), meaning.clone().into());
        }
        if let Some(hint) = &self.hint {
            error.insert("hint".into(), hint.clone().into());
        }
        error.insert("exit_code".into(), self.kind.exit_code().into());
        serde_json::json!({ "error": error })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// Writing to the terminal or a pipe. Who closed the pipe has seen enough.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::new(Kind::Quiet, "broken_pipe", "the output was closed");
        }
        Self::failed("io", format!("could not write the output: {error}"))
    }
}

/// What the client library says, with what a person can do about it.
impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let kind = match error.code {
            Code::ConnectionLost | Code::Closed => Kind::Connection,
            Code::Wire(ErrorCode::AuthenticationFailed | ErrorCode::Superseded | ErrorCode::HeartbeatTimeout) => {
                Kind::Connection
            }
            _ => Kind::Failed,
        };
        // A server's texts are a stranger's, too.
        let said = crate::output::one_line(&error.message);
        let message = match &error.cause {
            // A cause that is the code itself says nothing new.
            Some(cause) if cause != error.code.as_str() => {
                format!("{said} ({}: {})", error.code, crate::output::one_line(cause))
            }
            _ => format!("{said} ({})", error.code),
        };
        let mut failure = Self::new(kind, error.code.as_str(), message);
        let Code::Wire(code) = error.code else {
            failure.meaning = Some("What was sent last isn't known to be stored.".to_owned());
            failure.hint = Some("look with `choir history` or `choir specs` before you do it again".to_owned());
            return failure;
        };
        let (meaning, hint) = advice(code);
        failure.meaning = meaning.map(str::to_owned);
        failure.hint = match error.retry_after_ms {
            Some(ms) => Some(format!("try again in {} s", ms.div_ceil(1000))),
            None => known_refusal(&error.message).or(hint).map(str::to_owned),
        };
        failure
    }
}

/// The way out of what a server of this version refuses for a reason that its code doesn't tell.
fn known_refusal(message: &str) -> Option<&'static str> {
    match message {
        "the message is redacted" => Some("what is erased stays so; `choir history` shows what is left"),
        "you have joined already" => Some("there is nothing left to do; `choir members` lists who is in the thread"),
        "nothing changes: the member has this role and flag" => {
            Some("there is nothing left to do; `choir members` lists the roles")
        }
        "the last owner who has joined stays one" => {
            Some("make somebody else an owner, and once they have joined do it again: choir thread add <USER>:owner")
        }
        "the thread may no longer be read" => {
            Some("you were taken out of it, or it was made private; one of its owners can invite you again")
        }
        "the title is too long" => Some("shorten it"),
        _ => None,
    }
}

/// What a code means for the data, and what to do next. Each code stands here, so that a new one has to be thought of.
const fn advice(code: ErrorCode) -> (Option<&'static str>, Option<&'static str>) {
    const UNCHANGED: Option<&str> = Some("Nothing was changed.");
    match code {
        ErrorCode::AuthenticationFailed => (
            UNCHANGED,
            Some(
                "check --url and --key (or the profile): the server has to know the address that you dial as one of its audiences",
            ),
        ),
        ErrorCode::TokenExpiring => (None, Some("fetch a new token and run the command again")),
        ErrorCode::Superseded => (
            None,
            Some("another process runs under the same client id; stop one of them"),
        ),
        ErrorCode::SubscriptionError | ErrorCode::NotFound => (
            UNCHANGED,
            Some("it doesn't exist, or you may not see it; `choir threads` and `choir specs` list what you can see"),
        ),
        ErrorCode::PermissionDenied => (
            UNCHANGED,
            Some("`choir members` shows who may do this, and `choir thread show` the thread's rules"),
        ),
        ErrorCode::Conflict => (
            UNCHANGED,
            Some("the thread has moved on: look again with `choir specs` or `choir history`, then decide anew"),
        ),
        ErrorCode::SignatureInvalid => (UNCHANGED, Some("the key doesn't fit the user; check --key")),
        ErrorCode::ClockSkew => (
            UNCHANGED,
            Some("set this machine's clock: it differs from the server's by more than 5 minutes"),
        ),
        ErrorCode::SequenceGap | ErrorCode::MessageDeliveryFailed => (
            Some("It isn't known whether it was stored."),
            Some("look with `choir history` or `choir specs` before you do it again"),
        ),
        ErrorCode::ContentTooLarge => (UNCHANGED, Some("shorten it, or split it into several messages")),
        ErrorCode::Limit => (
            UNCHANGED,
            Some("a limit of the server is reached; finish or withdraw something first, or ask its operator"),
        ),
        ErrorCode::RateLimited => (UNCHANGED, Some("wait a moment and try again")),
        ErrorCode::StateDesync => (
            Some(
                "The server's history differs from the one that was seen before: it was restored from a backup, or it shows two histories.",
            ),
            Some("run `choir verify` on the thread, and ask the server's operator"),
        ),
        ErrorCode::InvalidMessage | ErrorCode::UnknownType => (
            UNCHANGED,
            Some(
                "the server doesn't take what this version of choir sends; check both versions with `choir --version`",
            ),
        ),
        ErrorCode::Unknown => (
            Some("It isn't known whether it was stored."),
            Some("the server is of a later version; `choir --version` tells this one's"),
        ),
        ErrorCode::HeartbeatTimeout => (None, Some("the connection is too slow or broken; try again")),
        ErrorCode::Internal => (
            Some("It isn't known whether it was stored."),
            Some("the fault is the server's; its log says more"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_tells_what_to_do_next() {
        for code in ErrorCode::ALL {
            let failure = Failure::from(ClientError::wire(code, "no"));
            assert!(failure.hint.is_some(), "{code} has no hint");
            assert!(failure.message.contains(code.as_str()));
        }
    }

    #[test]
    fn exit_codes_are_those_that_help_documents() {
        assert_eq!(Failure::from(ClientError::connection_lost("gone")).kind.exit_code(), 3);
        assert_eq!(
            Failure::from(ClientError::wire(ErrorCode::Conflict, "no"))
                .kind
                .exit_code(),
            1
        );
        assert_eq!(Failure::usage("no").kind.exit_code(), 2);
        assert_eq!(
            Failure::from(io::Error::from(io::ErrorKind::BrokenPipe))
                .kind
                .exit_code(),
            0
        );
    }

    #[test]
    fn who_is_taken_out_is_told_so_once() {
        let error = ClientError {
            cause: Some("permission_denied".into()),
            ..ClientError::wire(ErrorCode::PermissionDenied, "the thread may no longer be read")
        };
        let failure = Failure::from(error);
        assert_eq!(failure.message, "the thread may no longer be read (permission_denied)");
        assert!(failure.hint.unwrap().contains("invite you again"));
    }

    #[test]
    fn what_has_happened_already_is_not_to_be_decided_anew() {
        let hint = |message| {
            Failure::from(ClientError::wire(ErrorCode::Conflict, message))
                .hint
                .unwrap()
        };
        assert!(hint("you have joined already").contains("nothing left to do"));
        assert!(hint("the spec is closed").contains("decide anew"));
    }

    #[test]
    fn a_servers_words_can_not_steer_the_terminal() {
        let failure = Failure::from(ClientError::wire(ErrorCode::Conflict, "no\u{1b}[2J\nHint: pay"));
        assert!(!failure.message.contains('\u{1b}') && !failure.message.contains('\n'));
    }
}
