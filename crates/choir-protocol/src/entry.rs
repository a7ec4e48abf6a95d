//! Entries of a thread's log (section 6): what they are made of, how they are hashed, how they travel.

use alloc::string::String;
use alloc::sync::Arc;
use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::canonical::Canonical;
use crate::hash::Hash;
use crate::ids::{Audience, Cursor, Id, Seq, ThreadId, Timestamp, UserId, cursor_pair};
use crate::json::Value;
use crate::key::{PublicKey, Signature};
use crate::merkle::leaf_hash;
use crate::thread::Stream;

/// What an entry is (L1).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "each is a kind of L1's table, explained there")]
pub enum Kind {
    ThreadCreated,
    MessagePosted,
    MessageEdited,
    MessageRedacted,
    ThreadUpdated,
    MemberAdded,
    MemberJoined,
    MemberRemoved,
    SpecSubmitted,
    SpecRevised,
    SpecWithdrawn,
    SpecResolved,
    ApprovalGiven,
    /// One of a later version (E3): counts in ranges and hashes, has no meaning here.
    Other(Arc<str>),
}

impl Kind {
    /// Every kind of L1's table, in its order.
    pub const KNOWN: [Self; 13] = [
        Self::ThreadCreated,
        Self::MessagePosted,
        Self::MessageEdited,
        Self::MessageRedacted,
        Self::ThreadUpdated,
        Self::MemberAdded,
        Self::MemberJoined,
        Self::MemberRemoved,
        Self::SpecSubmitted,
        Self::SpecRevised,
        Self::SpecWithdrawn,
        Self::SpecResolved,
        Self::ApprovalGiven,
    ];

    /// The kind's text.
    pub fn as_str(&self) -> &str {
        match self {
            Self::ThreadCreated => "thread_created",
            Self::MessagePosted => "message_posted",
            Self::MessageEdited => "message_edited",
            Self::MessageRedacted => "message_redacted",
            Self::ThreadUpdated => "thread_updated",
            Self::MemberAdded => "member_added",
            Self::MemberJoined => "member_joined",
            Self::MemberRemoved => "member_removed",
            Self::SpecSubmitted => "spec_submitted",
            Self::SpecRevised => "spec_revised",
            Self::SpecWithdrawn => "spec_withdrawn",
            Self::SpecResolved => "spec_resolved",
            Self::ApprovalGiven => "approval_given",
            Self::Other(text) => text,
        }
    }

    /// The stream that the kind belongs to (L1); none for a kind that isn't in the table.
    pub fn stream(&self) -> Option<Stream> {
        match self {
            Self::ThreadCreated
            | Self::MessagePosted
            | Self::MessageEdited
            | Self::MessageRedacted
            | Self::ThreadUpdated
            | Self::MemberAdded
            | Self::MemberJoined
            | Self::MemberRemoved => Some(Stream::Updates),
            Self::SpecSubmitted | Self::SpecRevised | Self::SpecWithdrawn | Self::SpecResolved => Some(Stream::Specs),
            Self::ApprovalGiven => Some(Stream::Approvals),
            Self::Other(_) => None,
        }
    }

    /// The type of the actions that cause entries of this kind; none for what is always derived and for unknown kinds.
    pub fn action_type(&self) -> Option<&'static str> {
        match self {
            Self::ThreadCreated => Some("action.create_thread"),
            Self::MessagePosted | Self::SpecSubmitted => Some("action.submit_message"),
            Self::MessageEdited => Some("action.edit_message"),
            Self::MessageRedacted => Some("action.redact_message"),
            Self::ThreadUpdated => Some("action.update_thread"),
            Self::MemberAdded => Some("action.add_member"),
            Self::MemberJoined => Some("action.join"),
            Self::MemberRemoved => Some("action.remove_member"),
            Self::SpecRevised => Some("action.revise_spec"),
            Self::SpecWithdrawn => Some("action.withdraw_spec"),
            Self::ApprovalGiven => Some("action.process_approval"),
            Self::SpecResolved | Self::Other(_) => None,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Kind {
    type Err = core::convert::Infallible;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self::KNOWN
            .iter()
            .find(|kind| kind.as_str() == text)
            .cloned()
            .unwrap_or_else(|| Self::Other(text.into())))
    }
}

crate::ids::serde_by_text! {
    Kind, "an entry's kind";
}

/// What an entry says: its canonical text, or, once redacted, the number of the redaction (L6).
#[derive(Clone, PartialEq, Eq)]
pub enum Body {
    /// The causing action's payload as signed, in canonical form (L2).
    Present(Canonical),
    /// Erased by the `message_redacted` entry with this number.
    Erased(Seq),
}

impl Body {
    /// The canonical text, where it isn't erased.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Present(canonical) => Some(canonical.as_str()),
            Self::Erased(_) => None,
        }
    }
}

/// Bodies are content: logs never hold it.
impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Present(canonical) => write!(f, "Present({} bytes)", canonical.as_str().len()),
            Self::Erased(seq) => write!(f, "Erased({seq})"),
        }
    }
}

/// How the author's signature over an entry is checked (L5). What is left out has the value that the rule names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// The action's `timestamp`.
    pub sent_at: Timestamp,
    /// The cursor that the author had applied.
    #[serde(skip_serializing_if = "Option::is_none", default, with = "cursor_pair")]
    pub seen: Option<Cursor>,
    /// The key; left out where the author is `ed25519:` + that key.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub key: Option<PublicKey>,
    /// The signature (K1).
    pub sig: Signature,
    /// What it was made for; left out where that is the thread's audience.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub audience: Option<Audience>,
    /// The signed action's id; left out where it is the entry's.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub id: Option<Id>,
    /// The signed action's type; left out where it is the one behind the entry's kind.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none", default)]
    pub action_type: Option<String>,
}

/// An entry as a viewer gets it. The server's own, whole form is the core's `Record`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its number.
    pub seq: Seq,
    /// The causing action's id, or the spec's (L3).
    pub id: Id,
    /// What it is.
    pub kind: Kind,
    /// Its stream: the kind's own, or, for a kind that isn't in L1's table, the one that it carries.
    pub stream: Stream,
    /// Who caused it; `choir` for what the server derives.
    pub author: UserId,
    /// The server's time.
    pub timestamp: Timestamp,
    /// What it says.
    pub body: Body,
    /// SHA-256 of the body's canonical text. Left out on the wire without `verify`; then computed from the body, and unknown for an erased one.
    pub content_hash: Option<Hash>,
    /// Only with `verify`; never on derived entries.
    pub proof: Option<Proof>,
}

/// The parts of `inner` that an entry's proof gives (L7); all empty on a derived entry.
#[derive(Debug, Clone, Copy, Default)]
pub struct SignedParts<'a> {
    /// The action's `timestamp`.
    pub sent_at: Option<Timestamp>,
    /// The author's cursor.
    pub seen: Option<Cursor>,
    /// The signature.
    pub sig: Option<&'a Signature>,
}

impl<'a> From<Option<&'a Proof>> for SignedParts<'a> {
    fn from(proof: Option<&'a Proof>) -> Self {
        proof.map_or_else(Self::default, |p| Self {
            sent_at: Some(p.sent_at),
            seen: p.seen,
            sig: Some(&p.sig),
        })
    }
}

/// `inner` of L7: everything of an entry but its place.
pub fn inner_hash(
    id: Id,
    kind: &Kind,
    author: &UserId,
    timestamp: Timestamp,
    content_hash: &Hash,
    signed: SignedParts<'_>,
) -> Hash {
    use core::fmt::Write;
    let mut text = String::with_capacity(512);
    // Writing into a String can't fail.
    let _ = write!(
        text,
        "choir.v1 inner\n{id}\n{kind}\n{author}\n{timestamp}\n{content_hash}\n"
    );
    if let Some(sent_at) = signed.sent_at {
        let _ = write!(text, "{sent_at}");
    }
    text.push('\n');
    if let Some(seen) = signed.seen {
        let _ = write!(text, "{seen}");
    }
    text.push('\n');
    if let Some(sig) = signed.sig {
        let _ = write!(text, "{sig}");
    }
    Hash::of(text.as_bytes())
}

/// The leaf of L7: `inner` at its place in the thread's log.
pub fn entry_leaf(thread_id: ThreadId, seq: Seq, stream: Stream, inner: &Hash) -> Hash {
    leaf_hash(alloc::format!("choir.v1 entry\n{thread_id}\n{seq}\n{}\n{inner}", stream.as_str()).as_bytes())
}

impl Entry {
    /// `inner` of L7. None where the content hash is unknown or an entry that somebody caused came without its proof.
    pub fn inner(&self) -> Option<Hash> {
        if self.proof.is_none() && !self.author.is_choir() {
            return None;
        }
        let content_hash = self.content_hash.as_ref()?;
        Some(inner_hash(
            self.id,
            &self.kind,
            &self.author,
            self.timestamp,
            content_hash,
            self.proof.as_ref().into(),
        ))
    }

    /// The body as JSON, where it isn't erased.
    pub fn body_value(&self) -> Option<Value> {
        crate::json::parse(self.body.text()?).ok()
    }

    /// The text that the author signed (K1), by the proof and its defaults (L5). None without a proof, or for an unknown kind without `proof.type`.
    pub fn signed_text(&self, thread_id: ThreadId, thread_audience: &Audience) -> Option<String> {
        let proof = self.proof.as_ref()?;
        let action_type = match &proof.action_type {
            Some(named) => named.as_str(),
            None => self.kind.action_type()?,
        };
        Some(crate::sign::action_text(&crate::sign::ActionText {
            audience: proof.audience.as_ref().unwrap_or(thread_audience),
            user_id: &self.author,
            id: proof.id.unwrap_or(self.id),
            action_type,
            thread_id,
            timestamp: proof.sent_at,
            seen: proof.seen,
            payload_hash: self.content_hash.as_ref()?,
        }))
    }

    /// The key that the author signed with (L5): the one that the author is, and for others the proof's. None where a proof names another key than the one that
    /// its author is: whoever holds that key isn't the author.
    pub fn signing_key(&self) -> Option<PublicKey> {
        let named = self.proof.as_ref()?.key;
        if !self.author.is_key() {
            return named;
        }
        let own = self.author.key()?;
        named.is_none_or(|named| named == own).then_some(own)
    }

    /// Whether the author's signature holds (K1, K2). Derived entries have none, and are not asked.
    pub fn signature_holds(&self, thread_id: ThreadId, thread_audience: &Audience) -> bool {
        match (
            self.signed_text(thread_id, thread_audience),
            self.signing_key(),
            &self.proof,
        ) {
            (Some(text), Some(key), Some(proof)) => crate::key::verify(&key, text.as_bytes(), &proof.sig),
            _ => false,
        }
    }
}

#[derive(Serialize, Deserialize)]
struct WireEntry {
    seq: Seq,
    id: Id,
    kind: Kind,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    stream: Option<Stream>,
    author: UserId,
    timestamp: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    body: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    erased: Option<Seq>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    content_hash: Option<Hash>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    proof: Option<Proof>,
}

impl Serialize for Entry {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (body, erased) = match &self.body {
            Body::Present(_) => (self.body_value(), None),
            Body::Erased(seq) => (None, Some(*seq)),
        };
        WireEntry {
            seq: self.seq,
            id: self.id,
            stream: self.kind.stream().is_none().then_some(self.stream),
            kind: self.kind.clone(),
            author: self.author.clone(),
            timestamp: self.timestamp,
            body,
            erased,
            content_hash: self.content_hash,
            proof: self.proof.clone(),
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        let wire = WireEntry::deserialize(deserializer)?;
        let stream = match (wire.kind.stream(), wire.stream) {
            (Some(own), _) => own,
            (None, Some(carried)) => carried,
            (None, None) => {
                return Err(D::Error::custom("an entry of an unknown kind carries its stream"));
            }
        };
        let (body, content_hash) = match (wire.body, wire.erased) {
            (Some(value @ Value::Object(_)), None) => {
                let canonical = Canonical::of(&value);
                let hash = wire.content_hash.unwrap_or_else(|| canonical.hash());
                (Body::Present(canonical), Some(hash))
            }
            (None, Some(seq)) => (Body::Erased(seq), wire.content_hash),
            _ => {
                return Err(D::Error::custom(
                    "an entry has either a body, which is an object, or the number that erased it",
                ));
            }
        };
        Ok(Self {
            seq: wire.seq,
            id: wire.id,
            kind: wire.kind,
            stream,
            author: wire.author,
            timestamp: wire.timestamp,
            body,
            content_hash,
            proof: wire.proof,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::SecretKey;
    use crate::object;

    #[test]
    fn l5_a_proof_that_names_another_key_than_its_author_is_proves_nothing() {
        let (alice, mallory) = (SecretKey::from_seed(&[1; 32]), SecretKey::from_seed(&[2; 32]));
        let (thread_id, audience) = (ThreadId::from_bytes([3; 16]), "https://choir.example".parse().unwrap());
        let body = Canonical::of_object(&object! { "content": "hi" });
        let mut entry = Entry {
            seq: Seq::ZERO.next(),
            id: Id::from_bytes([4; 16]),
            kind: Kind::MessagePosted,
            stream: Stream::Updates,
            author: UserId::of_key(&alice.public()),
            timestamp: Timestamp::ZERO,
            content_hash: Some(body.hash()),
            body: Body::Present(body),
            proof: None,
        };
        let mut signed_by = |secret: &SecretKey, named: Option<PublicKey>| {
            let proof = |sig| Proof {
                sent_at: Timestamp::ZERO,
                seen: None,
                key: named,
                sig,
                audience: None,
                id: None,
                action_type: None,
            };
            entry.proof = Some(proof(secret.sign(b"")));
            let text = entry.signed_text(thread_id, &audience).unwrap();
            entry.proof = Some(proof(secret.sign(text.as_bytes())));
            entry.signature_holds(thread_id, &audience)
        };
        assert!(signed_by(&alice, None));
        assert!(signed_by(&alice, Some(alice.public())));
        assert!(!signed_by(&mallory, Some(mallory.public())));
        assert!(!signed_by(&mallory, None));
    }
}
