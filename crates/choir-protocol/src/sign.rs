//! The texts that signatures are made over (C4, K1). Lines joined by `\n`, without a final newline.

use alloc::format;
use alloc::string::String;

use crate::hash::Hash;
use crate::ids::{Audience, ClientId, ConnectionId, Cursor, Id, ThreadId, Timestamp, UserId};

/// What `control.auth` signs (C4).
pub fn auth_text(
    audience: &Audience,
    connection_id: ConnectionId,
    challenge: &str,
    client_id: &ClientId,
    method: &str,
) -> String {
    format!("choir.v1 auth\n{audience}\n{connection_id}\n{challenge}\n{client_id}\n{method}")
}

/// What an action signs (K1).
#[derive(Debug, Clone, Copy)]
pub struct ActionText<'a> {
    /// What the signature is for: that of the connection, over HTTP the envelope's.
    pub audience: &'a Audience,
    /// The author.
    pub user_id: &'a UserId,
    /// The action's id.
    pub id: Id,
    /// The action's type, `action.…`.
    pub action_type: &'a str,
    /// The thread.
    pub thread_id: ThreadId,
    /// The author's clock.
    pub timestamp: Timestamp,
    /// The cursor that the author had applied.
    pub seen: Option<Cursor>,
    /// SHA-256 of the payload's canonical text.
    pub payload_hash: &'a Hash,
}

/// The text of an action (K1).
pub fn action_text(a: &ActionText<'_>) -> String {
    let seen = a.seen.map(|cursor| format!("{cursor}")).unwrap_or_default();
    format!(
        "choir.v1 action\n{}\n{}\n{}\n{}\n{}\n{}\n{seen}\n{}",
        a.audience, a.user_id, a.id, a.action_type, a.thread_id, a.timestamp, a.payload_hash
    )
}
