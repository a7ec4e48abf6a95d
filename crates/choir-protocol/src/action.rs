//! Actions (section 7): what their payloads say, and the signed form that goes from the edge to the log without being written anew.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::canonical::Canonical;
use crate::de::{ShapeError, from_value};
use crate::entry::Kind;
use crate::hash::Hash;
use crate::ids::{Audience, Cursor, Id, Salt, ThreadId, Timestamp, UserId};
use crate::json::{Object, Value};
use crate::key::{PublicKey, SecretKey, Signature};
use crate::sign::{ActionText, action_text};
use crate::thread::{Decision, Policy, Propose, Review, Role, Visibility};

/// Payload of `action.create_thread`, body of `thread_created`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateThread {
    /// The title: at most 256 bytes.
    pub title: String,
    /// The creator's audience, one of the server's own (S1).
    pub audience: Audience,
    /// Who reads.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub visibility: Option<Visibility>,
    /// Who sees specs and approvals.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub review: Option<Review>,
    /// Who may submit specs.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub propose: Option<Propose>,
    /// How specs are decided.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub policy: Option<Policy>,
    /// The first members, without the creator.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub members: Option<Vec<NewMember>>,
    /// Whether the creator is software (S4).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub agent: Option<bool>,
    /// L4.
    pub salt: Salt,
}

/// A member that a `create_thread` names, and payload of `action.add_member`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewMember {
    /// Who.
    pub user_id: UserId,
    /// As what.
    pub role: Role,
    /// Whether they are software (S4).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub agent: Option<bool>,
}

/// Payload of `action.submit_message`, body of `message_posted` and `spec_submitted`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SubmitMessage {
    /// A string or any JSON (L2).
    pub content: Value,
    /// A media type; `text/plain` where it is left out.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub content_type: Option<String>,
    /// The message that it answers.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub parent: Option<Id>,
    /// L4.
    pub salt: Salt,
}

/// Payload of `action.revise_spec`, body of `spec_revised` and of the `message_posted` of an approved revision.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReviseSpec {
    /// The spec.
    pub spec: Id,
    /// What it says now.
    pub content: Value,
    /// A media type.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub content_type: Option<String>,
    /// The message that it answers.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub parent: Option<Id>,
    /// L4.
    pub salt: Salt,
}

/// Payload of `action.withdraw_spec`, body of `spec_withdrawn`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WithdrawSpec {
    /// The spec.
    pub spec: Id,
}

/// Payload of `action.process_approval`, body of `approval_given`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessApproval {
    /// The spec.
    pub spec: Id,
    /// The revision that is decided on (S6).
    pub content_hash: Hash,
    /// What is decided.
    pub decision: Decision,
    /// Why: at most 1,024 bytes; required with `request_changes`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
    /// L4.
    pub salt: Salt,
}

/// Payload of `action.edit_message`, body of `message_edited`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EditMessage {
    /// The message.
    pub message: Id,
    /// What it says now.
    pub content: Value,
    /// A media type.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub content_type: Option<String>,
    /// L4.
    pub salt: Salt,
}

/// Payload of `action.redact_message`, body of `message_redacted`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RedactMessage {
    /// The message.
    pub message: Id,
}

/// Payload of `action.update_thread`, body of `thread_updated`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateThread {
    /// The new title.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub title: Option<String>,
    /// Who reads from now on.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub visibility: Option<Visibility>,
    /// Who sees specs and approvals from now on.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub review: Option<Review>,
    /// Who may submit specs from now on.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub propose: Option<Propose>,
    /// How specs are decided from now on, as a whole (S5).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub policy: Option<Policy>,
    /// L4.
    pub salt: Salt,
}

/// Payload of `action.remove_member`, body of `member_removed`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoveMember {
    /// Who.
    pub user_id: UserId,
}

/// Payload of `action.join`, body of `member_joined`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Join {
    /// Whether who joins is software (S4).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub agent: Option<bool>,
}

/// What an action says, read from its payload.
#[derive(Debug, Clone, PartialEq)]
#[allow(
    missing_docs,
    reason = "each is an action of section 7's table, explained at its payload"
)]
pub enum Action {
    CreateThread(CreateThread),
    SubmitMessage(SubmitMessage),
    ReviseSpec(ReviseSpec),
    WithdrawSpec(WithdrawSpec),
    ProcessApproval(ProcessApproval),
    EditMessage(EditMessage),
    RedactMessage(RedactMessage),
    UpdateThread(UpdateThread),
    AddMember(NewMember),
    RemoveMember(RemoveMember),
    Join(Join),
}

impl Action {
    /// The types of all actions that are signed.
    pub const TYPES: [&'static str; 11] = [
        "action.create_thread",
        "action.submit_message",
        "action.revise_spec",
        "action.withdraw_spec",
        "action.process_approval",
        "action.edit_message",
        "action.redact_message",
        "action.update_thread",
        "action.add_member",
        "action.remove_member",
        "action.join",
    ];

    /// The action's type.
    pub const fn type_name(&self) -> &'static str {
        match self {
            Self::CreateThread(_) => "action.create_thread",
            Self::SubmitMessage(_) => "action.submit_message",
            Self::ReviseSpec(_) => "action.revise_spec",
            Self::WithdrawSpec(_) => "action.withdraw_spec",
            Self::ProcessApproval(_) => "action.process_approval",
            Self::EditMessage(_) => "action.edit_message",
            Self::RedactMessage(_) => "action.redact_message",
            Self::UpdateThread(_) => "action.update_thread",
            Self::AddMember(_) => "action.add_member",
            Self::RemoveMember(_) => "action.remove_member",
            Self::Join(_) => "action.join",
        }
    }

    /// Reads an action's payload by its type.
    ///
    /// # Errors
    /// What is `invalid_message`: another shape, a field that is reserved (L1), a value that no state of a thread could make valid.
    pub fn read(type_name: &str, payload: &Object) -> Result<Self, PayloadError> {
        // What a later version's actions may carry is that version's.
        if !Self::TYPES.contains(&type_name) {
            return Err(PayloadError::UnknownType);
        }
        for reserved in ["attachments", "mentions"] {
            if payload.get(reserved).is_some() {
                return Err(PayloadError::Reserved(reserved));
            }
        }
        let value = Value::Object(payload.clone());
        let action = match type_name {
            "action.create_thread" => Self::CreateThread(from_value(&value)?),
            "action.submit_message" => Self::SubmitMessage(from_value(&value)?),
            "action.revise_spec" => Self::ReviseSpec(from_value(&value)?),
            "action.withdraw_spec" => Self::WithdrawSpec(from_value(&value)?),
            "action.process_approval" => Self::ProcessApproval(from_value(&value)?),
            "action.edit_message" => Self::EditMessage(from_value(&value)?),
            "action.redact_message" => Self::RedactMessage(from_value(&value)?),
            "action.update_thread" => Self::UpdateThread(from_value(&value)?),
            "action.add_member" => Self::AddMember(from_value(&value)?),
            "action.remove_member" => Self::RemoveMember(from_value(&value)?),
            "action.join" => Self::Join(from_value(&value)?),
            _ => return Err(PayloadError::UnknownType),
        };
        action.check(payload)?;
        Ok(action)
    }

    fn check(&self, payload: &Object) -> Result<(), PayloadError> {
        let invalid = |why| Err(PayloadError::Invalid(why));
        match self {
            Self::SubmitMessage(_) if payload.get("spec").is_some() => {
                invalid("submit_message carries no spec: a revision is action.revise_spec")
            }
            Self::SubmitMessage(SubmitMessage { content_type, .. })
            | Self::ReviseSpec(ReviseSpec { content_type, .. })
            | Self::EditMessage(EditMessage { content_type, .. }) => match content_type {
                Some(text) if !is_media_type(text) => invalid("content_type is a media type like text/plain"),
                _ => Ok(()),
            },
            Self::ProcessApproval(approval)
                if approval.decision == Decision::RequestChanges && approval.reason.is_none() =>
            {
                invalid("request_changes needs a reason")
            }
            Self::UpdateThread(UpdateThread {
                title: None,
                visibility: None,
                review: None,
                propose: None,
                policy: None,
                ..
            }) => invalid("update_thread names no setting"),
            Self::AddMember(member) if member.user_id.is_choir() => invalid("choir is the server's own name"),
            Self::CreateThread(CreateThread {
                members: Some(members), ..
            }) => {
                let mut names: Vec<&UserId> = members.iter().map(|member| &member.user_id).collect();
                names.sort_unstable();
                if names.iter().any(|name| name.is_choir()) {
                    return invalid("choir is the server's own name");
                }
                if names.windows(2).any(|pair| matches!(pair, [a, b] if a == b)) {
                    return invalid("a member is named twice");
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// The kind of the entry that the action causes, where that doesn't depend on the thread's state (a message may become a spec).
    pub const fn kind(&self) -> Option<Kind> {
        Some(match self {
            Self::CreateThread(_) => Kind::ThreadCreated,
            Self::SubmitMessage(_) => return None,
            Self::ReviseSpec(_) => Kind::SpecRevised,
            Self::WithdrawSpec(_) => Kind::SpecWithdrawn,
            Self::ProcessApproval(_) => Kind::ApprovalGiven,
            Self::EditMessage(_) => Kind::MessageEdited,
            Self::RedactMessage(_) => Kind::MessageRedacted,
            Self::UpdateThread(_) => Kind::ThreadUpdated,
            Self::AddMember(_) => Kind::MemberAdded,
            Self::RemoveMember(_) => Kind::MemberRemoved,
            Self::Join(_) => Kind::MemberJoined,
        })
    }

    /// The payload as JSON, without fields that this version doesn't know.
    pub fn to_payload(&self) -> Object {
        let text = match self {
            Self::CreateThread(p) => serde_json::to_string(p),
            Self::SubmitMessage(p) => serde_json::to_string(p),
            Self::ReviseSpec(p) => serde_json::to_string(p),
            Self::WithdrawSpec(p) => serde_json::to_string(p),
            Self::ProcessApproval(p) => serde_json::to_string(p),
            Self::EditMessage(p) => serde_json::to_string(p),
            Self::RedactMessage(p) => serde_json::to_string(p),
            Self::UpdateThread(p) => serde_json::to_string(p),
            Self::AddMember(p) => serde_json::to_string(p),
            Self::RemoveMember(p) => serde_json::to_string(p),
            Self::Join(p) => serde_json::to_string(p),
        };
        // These types hold nothing that JSON can't: no maps with other keys, no non-finite numbers.
        text.ok()
            .and_then(|text| crate::json::parse(&text).ok())
            .and_then(Value::into_object)
            .unwrap_or_default()
    }
}

/// A media type by its look (RFC 2045 §5.1): type and subtype, and parameters that are printable.
fn is_media_type(text: &str) -> bool {
    let (essence, parameters) = text.split_once(';').unwrap_or((text, ""));
    let token = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|b| {
                b.is_ascii_graphic()
                    && !matches!(
                        b,
                        b'(' | b')'
                            | b'<'
                            | b'>'
                            | b'@'
                            | b','
                            | b';'
                            | b':'
                            | b'\\'
                            | b'"'
                            | b'/'
                            | b'['
                            | b']'
                            | b'?'
                            | b'='
                    )
            })
    };
    essence
        .trim_end()
        .split_once('/')
        .is_some_and(|(kind, sub)| token(kind) && token(sub))
        && parameters.bytes().all(|b| b == b' ' || b.is_ascii_graphic())
}

/// Why a payload is `invalid_message` (or `unknown_type`). Never holds content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PayloadError {
    /// Not an action that is signed.
    UnknownType,
    /// A field is reserved for later versions (L1).
    Reserved(&'static str),
    /// A field is missing or of another shape.
    Shape(ShapeError),
    /// A rule that no state of a thread could satisfy.
    Invalid(&'static str),
}

impl From<ShapeError> for PayloadError {
    fn from(error: ShapeError) -> Self {
        Self::Shape(error)
    }
}

impl core::fmt::Display for PayloadError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::UnknownType => f.write_str("unknown action type"),
            Self::Reserved(field) => write!(f, "the field {field} is reserved for a later version"),
            Self::Shape(error) => write!(f, "{error}"),
            Self::Invalid(why) => f.write_str(why),
        }
    }
}

impl core::error::Error for PayloadError {}

/// An action with everything that was signed, and the bytes that were hashed. Whether the signature holds is known once [`SignedAction::verify`] said so.
#[derive(Debug, Clone, PartialEq)]
pub struct SignedAction {
    /// The action's id.
    pub id: Id,
    /// The thread that it concerns.
    pub thread_id: ThreadId,
    /// The author's clock.
    pub timestamp: Timestamp,
    /// The cursor that the author had applied (K4).
    pub seen: Option<Cursor>,
    /// The signature (K1).
    pub sig: Signature,
    /// The payload as signed.
    pub payload: Canonical,
    /// Its SHA-256.
    pub payload_hash: Hash,
    /// What it says.
    pub action: Action,
}

impl SignedAction {
    /// Signs an action (K1). `payload` may carry fields of its own beside those of the action's type (E3).
    ///
    /// # Errors
    /// Where the payload isn't one of the type.
    pub fn sign(unsigned: Unsigned<'_>, secret: &SecretKey) -> Result<Self, PayloadError> {
        let action = Action::read(unsigned.action_type, unsigned.payload)?;
        let payload = Canonical::of_object(unsigned.payload);
        let payload_hash = payload.hash();
        let text = action_text(&ActionText {
            audience: unsigned.audience,
            user_id: unsigned.user_id,
            id: unsigned.id,
            action_type: unsigned.action_type,
            thread_id: unsigned.thread_id,
            timestamp: unsigned.timestamp,
            seen: unsigned.seen,
            payload_hash: &payload_hash,
        });
        Ok(Self {
            id: unsigned.id,
            thread_id: unsigned.thread_id,
            timestamp: unsigned.timestamp,
            seen: unsigned.seen,
            sig: secret.sign(text.as_bytes()),
            payload,
            payload_hash,
            action,
        })
    }

    /// The text that its signature is over, for this author and audience (K1).
    pub fn text(&self, audience: &Audience, user_id: &UserId) -> String {
        action_text(&ActionText {
            audience,
            user_id,
            id: self.id,
            action_type: self.action.type_name(),
            thread_id: self.thread_id,
            timestamp: self.timestamp,
            seen: self.seen,
            payload_hash: &self.payload_hash,
        })
    }

    /// Whether the signature holds (K2).
    pub fn verify(&self, audience: &Audience, user_id: &UserId, key: &PublicKey) -> bool {
        crate::key::verify(key, self.text(audience, user_id).as_bytes(), &self.sig)
    }
}

/// What [`SignedAction::sign`] signs.
#[derive(Debug, Clone, Copy)]
pub struct Unsigned<'a> {
    /// What the signature is for.
    pub audience: &'a Audience,
    /// The author.
    pub user_id: &'a UserId,
    /// The action's id.
    pub id: Id,
    /// The action's type.
    pub action_type: &'a str,
    /// The thread.
    pub thread_id: ThreadId,
    /// The author's clock.
    pub timestamp: Timestamp,
    /// The cursor that the author had applied.
    pub seen: Option<Cursor>,
    /// The payload.
    pub payload: &'a Object,
}
