//! What a thread is made of (section 5), as it travels.

use alloc::vec::Vec;
use core::fmt;

use serde::{Deserialize, Serialize};

use crate::hash::Hash;
use crate::ids::{Audience, Id, Seq, Timestamp, UserId};

/// What a member may do (S2); each has all rights of those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Reads, and proposes where `propose` says so.
    Reader,
    /// Publishes, decides, edits their own.
    CoAuthor,
    /// Changes settings and members, redacts any message.
    Owner,
}

impl Role {
    /// Whether this is a co-author in the protocol's sense, which includes owners (S2).
    pub const fn is_co_author(self) -> bool {
        matches!(self, Self::CoAuthor | Self::Owner)
    }

    /// The role's text.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reader => "reader",
            Self::CoAuthor => "co_author",
            Self::Owner => "owner",
        }
    }
}

/// Who reads a thread (S1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Visibility {
    /// Members.
    #[default]
    Private,
    /// Every authenticated user.
    Public,
}

/// Who sees specs and approvals (S1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Review {
    /// Co-authors, and a spec's author as far as they concern that spec.
    #[default]
    CoAuthors,
    /// Everyone who reads.
    Readers,
}

/// Who may submit specs (S1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Propose {
    /// Members; the default of private threads.
    Members,
    /// Everyone who reads; the default of public threads.
    Everyone,
    /// Nobody.
    Nobody,
}

impl Propose {
    /// The default at creation (S1).
    pub const fn default_of(visibility: Visibility) -> Self {
        match visibility {
            Visibility::Private => Self::Members,
            Visibility::Public => Self::Everyone,
        }
    }
}

/// How many approvals a spec needs (S5, S7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Approval {
    /// All deciding co-authors.
    #[default]
    Unanimous,
    /// More than half of them.
    Majority,
    /// One of them.
    Any,
    /// k of them, capped at all; k ≥ 1.
    AtLeast(u64),
}

impl Serialize for Approval {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct AtLeast {
            at_least: u64,
        }
        match self {
            Self::Unanimous => serializer.serialize_str("unanimous"),
            Self::Majority => serializer.serialize_str("majority"),
            Self::Any => serializer.serialize_str("any"),
            Self::AtLeast(k) => AtLeast { at_least: *k }.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Approval {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Approval;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"unanimous\", \"majority\", \"any\" or {\"at_least\": k}")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Approval, E> {
                match text {
                    "unanimous" => Ok(Approval::Unanimous),
                    "majority" => Ok(Approval::Majority),
                    "any" => Ok(Approval::Any),
                    _ => Err(E::custom(
                        "expected \"unanimous\", \"majority\", \"any\" or {\"at_least\": k}",
                    )),
                }
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(self, map: A) -> Result<Approval, A::Error> {
                #[derive(Deserialize)]
                struct AtLeast {
                    at_least: u64,
                }
                let AtLeast { at_least } = AtLeast::deserialize(serde::de::value::MapAccessDeserializer::new(map))?;
                if at_least == 0 {
                    return Err(serde::de::Error::custom("at_least is 1 or more"));
                }
                Ok(Approval::AtLeast(at_least))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// By what rules specs are decided (S5). Fields that are left out take their defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Policy {
    /// How many approvals it takes.
    pub approval: Approval,
    /// How long a spec stays open: 1 minute to 90 days.
    #[serde(deserialize_with = "expires_ms")]
    pub expires_ms: u64,
    /// Whether the author of an approved spec becomes a co-author (S9).
    pub admit_authors: bool,
    /// Whether agents' decisions count (S4).
    pub agents_decide: bool,
}

/// The least `expires_ms` (S5).
pub const MIN_EXPIRES_MS: u64 = 60_000;
/// The greatest `expires_ms` (S5).
pub const MAX_EXPIRES_MS: u64 = 90 * 24 * 60 * 60 * 1000;

fn expires_ms<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let ms = u64::deserialize(deserializer)?;
    if (MIN_EXPIRES_MS..=MAX_EXPIRES_MS).contains(&ms) {
        Ok(ms)
    } else {
        Err(serde::de::Error::custom("expires_ms is between 1 minute and 90 days"))
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            approval: Approval::default(),
            expires_ms: 604_800_000,
            admit_authors: false,
            agents_decide: false,
        }
    }
}

/// What a co-author says of a spec's revision (S6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// Publish it.
    Approve,
    /// Don't.
    Deny,
    /// Not like this: a reason is required; counts as neither.
    RequestChanges,
}

impl Decision {
    /// The decision's text.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Approve => "approve",
            Self::Deny => "deny",
            Self::RequestChanges => "request_changes",
        }
    }
}

/// How a spec ended (S6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// By the co-authors: it is published.
    Approved,
    /// By the co-authors.
    Denied,
    /// Not decided in time (S8).
    Expired,
    /// Its author may no longer read (S8).
    AuthorLeft,
}

impl Outcome {
    /// The outcome's text.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Approved => "approved",
            Self::Denied => "denied",
            Self::Expired => "expired",
            Self::AuthorLeft => "author_left",
        }
    }
}

/// A member as in snapshots and `control.members` (S2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Who.
    pub user_id: UserId,
    /// What they may do.
    pub role: Role,
    /// Whether they are software (S4).
    pub agent: bool,
    /// Whether they have joined (S3).
    pub joined: bool,
}

/// A thread's settings as in a snapshot (Y5).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Its title.
    pub title: alloc::string::String,
    /// What its creator's signature was made for (S1).
    pub audience: Audience,
    /// Who reads.
    pub visibility: Visibility,
    /// Who sees specs and approvals.
    pub review: Review,
    /// Who may submit specs.
    pub propose: Propose,
    /// How specs are decided.
    pub policy: Policy,
    /// The time of `thread_created`.
    pub created_at: Timestamp,
}

/// One decision as in snapshots and `control.specs` (Y5).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecisionRow {
    /// Who decided.
    pub user_id: UserId,
    /// What.
    pub decision: Decision,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<alloc::string::String>,
    /// The number of its `approval_given`.
    pub seq: Seq,
}

/// An open spec as in snapshots and `control.specs` (Y5); `seq`, `content_hash`, `body` and `decisions` are the current revision's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OpenSpec {
    /// Its name.
    pub spec: Id,
    /// Who submitted it.
    pub author: UserId,
    /// The number of the current revision's entry.
    pub seq: Seq,
    /// What decisions are bound to (S6).
    pub content_hash: Hash,
    /// The current revision's payload.
    pub body: crate::json::Value,
    /// When it was submitted.
    pub submitted_at: Timestamp,
    /// When it ends undecided (S8).
    pub expires_at: Timestamp,
    /// The decisions that count, where the viewer sees them.
    pub decisions: Vec<DecisionRow>,
}

/// Which entries belong together for those who subscribe (L1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// What everyone who reads sees.
    Updates,
    /// Specs, their revisions and how they end.
    Specs,
    /// Decisions.
    Approvals,
}

impl Stream {
    /// The stream's text.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Updates => "updates",
            Self::Specs => "specs",
            Self::Approvals => "approvals",
        }
    }
}
