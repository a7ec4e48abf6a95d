//! A thread's log with entries of every kind, which the vectors of entries and ranges are taken from.

use choir_protocol::action::{SignedAction, Unsigned};
use choir_protocol::canonical::Canonical;
use choir_protocol::entry::{Body, Entry, Kind, Proof, entry_leaf};
use choir_protocol::hash::Hash;
use choir_protocol::ids::{Audience, Cursor, Id, Seq, ThreadId, Timestamp, UserId};
use choir_protocol::json::{Object, Value};
use choir_protocol::key::SecretKey;
use choir_protocol::merkle::Peaks;
use choir_protocol::object;
use choir_protocol::range::{Hidden, Range};
use choir_protocol::thread::Stream;

pub(crate) const SALT: &str = "MmG0qPvlS0fAEJscxxqctQ";
const HOME: &str = "https://choir.example";
const ELSEWHERE: &str = "https://choir.example:8443";

/// The id that ends in these two digits.
pub(crate) fn id(digits: u8) -> Id {
    let mut bytes = *b"\x01\x93\0\0\0\0\x70\0\x80\0\0\0\0\0\0\0";
    bytes[15] = digits;
    Id::from_bytes(bytes)
}

pub(crate) fn thread_id() -> ThreadId {
    ThreadId::from_bytes(*id(0xaa).as_bytes())
}

pub(crate) fn home() -> Audience {
    HOME.parse().unwrap()
}

/// The key whose seed is this byte 32 times.
pub(crate) fn secret(seed: u8) -> SecretKey {
    SecretKey::from_seed(&[seed; 32])
}

/// Somebody who signs.
struct Author {
    user_id: UserId,
    secret: SecretKey,
}

impl Author {
    fn of_key(seed: u8) -> Author {
        let secret = secret(seed);
        let user_id = UserId::of_key(&secret.public());
        Author { user_id, secret }
    }

    fn of_issuer(user_id: &str, seed: u8) -> Author {
        let user_id = user_id.parse().unwrap();
        let secret = secret(seed);
        Author { user_id, secret }
    }
}

pub(crate) struct Log {
    /// As with `verify: true`, for who sees everything.
    pub(crate) entries: Vec<Entry>,
    pub(crate) leaves: Vec<Hash>,
    /// After each number of entries, from none on.
    pub(crate) peaks: Vec<Peaks>,
}

impl Log {
    /// All kinds, with every part that a proof may leave out left out somewhere and present elsewhere.
    pub(crate) fn new() -> Log {
        let mut log = Log {
            entries: vec![],
            leaves: vec![],
            peaks: vec![Peaks::new()],
        };
        let owner = Author::of_key(1);
        let anna = Author::of_issuer("people:anna", 2);
        let reader = Author::of_key(3);
        let (spec, revision) = (id(0x15), id(0x16));

        let created = object! {
            "title": "Tïtle 🎵", "audience": HOME, "visibility": "public", "salt": SALT,
            "policy": object! { "approval": "any", "agents_decide": true },
            "members": vec![Value::from(object! { "user_id": "people:anna", "role": "co_author", "agent": true })],
        };
        log.action(&owner, 0x11, Kind::ThreadCreated, created);
        log.action(&anna, 0x12, Kind::MemberJoined, object! { "agent": true });
        let posted = object! { "content": "hello", "salt": SALT, "of a later version": vec![1, 2, 3] };
        log.action(&anna, 0x13, Kind::MessagePosted, posted);
        let edited = object! {
            "message": id(0x13).to_string(), "content": object! { "tool": "sh", "args": vec!["ls"] },
            "content_type": "application/json", "salt": SALT,
        };
        log.action(&anna, 0x14, Kind::MessageEdited, edited);
        let submitted = object! { "content": "a proposal", "parent": id(0x13).to_string(), "salt": SALT };
        log.action(&reader, 0x15, Kind::SpecSubmitted, submitted);
        let revised = object! { "spec": spec.to_string(), "content": "a better one", "salt": SALT };
        log.action(&reader, 0x16, Kind::SpecRevised, revised.clone());
        let approved = object! {
            "spec": spec.to_string(), "content_hash": Canonical::of_object(&revised).hash().to_hex(),
            "decision": "approve", "reason": "yes", "salt": SALT,
        };
        log.action(&anna, 0x17, Kind::ApprovalGiven, approved);
        let resolved = object! { "spec": spec.to_string(), "outcome": "approved" };
        log.derived(spec, Kind::SpecResolved, resolved);
        // The published message bears the spec's id, and the proof of the revision.
        let proof = Proof {
            id: Some(revision),
            action_type: Some("action.revise_spec".to_owned()),
            ..log.entries[5].proof.clone().unwrap()
        };
        log.push(spec, Kind::MessagePosted, reader.user_id.clone(), revised, Some(proof));
        let admitted = object! { "user_id": reader.user_id.to_string(), "role": "co_author" };
        log.derived(spec, Kind::MemberAdded, admitted);
        let updated = object! { "title": "Title", "salt": SALT };
        log.action(&owner, 0x18, Kind::ThreadUpdated, updated);
        let redacted = object! { "message": id(0x13).to_string() };
        log.action(&owner, 0x19, Kind::MessageRedacted, redacted);
        let withdrawn = object! { "spec": id(0x1a).to_string() };
        log.action(&reader, 0x1b, Kind::SpecWithdrawn, withdrawn);
        let removed = object! { "user_id": "people:anna" };
        log.action(&owner, 0x1c, Kind::MemberRemoved, removed);
        log.of_a_later_version(&owner);

        // What number 12 redacts: the message and its edit.
        for at in [2, 3] {
            log.entries[at].body = Body::Erased(Seq::new(12).unwrap());
        }
        log
    }

    /// An entry that its author caused; every third one by a proof with `seen` and another audience.
    fn action(&mut self, author: &Author, digits: u8, kind: Kind, body: Object) {
        let action_type = kind.action_type().unwrap();
        let apart = self.entries.len() % 3 == 1;
        let audience: Audience = if apart { ELSEWHERE } else { HOME }.parse().unwrap();
        let unsigned = Unsigned {
            audience: &audience,
            user_id: &author.user_id,
            id: id(digits),
            action_type,
            thread_id: thread_id(),
            timestamp: self.now(3),
            seen: apart.then(|| self.cursor()),
            payload: &body,
        };
        let signed = SignedAction::sign(unsigned, &author.secret).unwrap();
        let key = author.secret.public();
        let proof = Proof {
            sent_at: signed.timestamp,
            seen: signed.seen,
            key: author.user_id.key().is_none().then_some(key),
            sig: signed.sig,
            audience: apart.then_some(audience),
            id: None,
            action_type: None,
        };
        self.push(signed.id, kind, author.user_id.clone(), body, Some(proof));
    }

    /// One of a kind that isn't in L1's table, so it carries its stream, and its proof the type.
    fn of_a_later_version(&mut self, author: &Author) {
        let body = object! { "message": id(0x13).to_string(), "reaction": "👍" };
        let payload_hash = Canonical::of_object(&body).hash();
        let sent_at = self.now(3);
        let text = choir_protocol::sign::action_text(&choir_protocol::sign::ActionText {
            audience: &home(),
            user_id: &author.user_id,
            id: id(0x1d),
            action_type: "action.set_reaction",
            thread_id: thread_id(),
            timestamp: sent_at,
            seen: None,
            payload_hash: &payload_hash,
        });
        let proof = Proof {
            sent_at,
            seen: None,
            key: None,
            sig: author.secret.sign(text.as_bytes()),
            audience: None,
            id: None,
            action_type: Some("action.set_reaction".to_owned()),
        };
        let kind = Kind::Other("reaction_set".into());
        self.push(id(0x1d), kind, author.user_id.clone(), body, Some(proof));
    }

    fn derived(&mut self, id: Id, kind: Kind, body: Object) {
        self.push(id, kind, UserId::choir(), body, None);
    }

    fn push(&mut self, id: Id, kind: Kind, author: UserId, body: Object, proof: Option<Proof>) {
        let body = Canonical::of_object(&body);
        let entry = Entry {
            seq: Seq::new(self.entries.len() as u64 + 1).unwrap(),
            id,
            stream: kind.stream().unwrap_or(Stream::Specs),
            kind,
            author,
            timestamp: self.now(0),
            content_hash: Some(body.hash()),
            body: Body::Present(body),
            proof,
        };
        let leaf = entry_leaf(thread_id(), entry.seq, entry.stream, &entry.inner().unwrap());
        let mut peaks = self.peaks.last().unwrap().clone();
        peaks.push(leaf);
        self.entries.push(entry);
        self.leaves.push(leaf);
        self.peaks.push(peaks);
    }

    /// The server's clock at the next entry, less some milliseconds.
    fn now(&self, less: u64) -> Timestamp {
        Timestamp::new(1_764_000_000_000 + 1000 * self.entries.len() as u64 - less).unwrap()
    }

    fn cursor(&self) -> Cursor {
        self.cursor_at(self.entries.len())
    }

    pub(crate) fn cursor_at(&self, seq: usize) -> Cursor {
        Cursor {
            seq: Seq::new(seq as u64).unwrap(),
            root: self.peaks[seq].root(),
        }
    }

    /// The entries (from, to] for who sees these streams.
    pub(crate) fn range(&self, from: usize, to: usize, streams: &[Stream]) -> Range {
        let sees = |entry: &&Entry| streams.contains(&entry.stream);
        let part = &self.entries[from..to];
        let hidden = part.iter().filter(|entry| !sees(entry));
        let hidden = hidden.map(|entry| Hidden(entry.seq, entry.stream, entry.inner().unwrap()));
        Range {
            from: self.cursor_at(from).seq,
            to: self.cursor_at(to).seq,
            root: self.cursor_at(to).root,
            entries: part.iter().filter(sees).cloned().collect(),
            hidden: Some(hidden.collect()),
            peaks: None,
        }
    }
}

/// What serde writes, as a value.
pub(crate) fn written(value: &impl serde::Serialize) -> Value {
    let text = serde_json::to_string(value).unwrap();
    choir_protocol::json::parse(&text).unwrap()
}
