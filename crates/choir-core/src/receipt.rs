//! The receipt of a decision (K7): one JSON file that shows, without any server, how a spec was decided and by whom.
//!
//! The server finds out which entries belong into it ([`Needed`]), adds their inclusion paths and a checkpoint, and writes it ([`DecisionReceipt`]). Anybody checks
//! it offline ([`verify`]): the signatures, the paths, the checkpoint, and that S7 gives this outcome. It shows what is in the log, not that no membership entry
//! was left out.

use alloc::borrow::ToOwned;
use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use choir_protocol::action::{CreateThread, Join, NewMember, ProcessApproval, RemoveMember, ReviseSpec, UpdateThread};
use choir_protocol::checkpoint::{Checkpoint, CheckpointError, origin};
use choir_protocol::de::from_value;
use choir_protocol::entry::{Body, Entry, Kind, entry_leaf};
use choir_protocol::hash::Hash;
use choir_protocol::ids::{Audience, Id, Seq, ThreadId, Timestamp, UserId};
use choir_protocol::json;
use choir_protocol::key::PublicKey;
use choir_protocol::merkle::verify_inclusion;
use choir_protocol::thread::{Decision, Member, Outcome, Policy, Role, Visibility};
use serde::{Deserialize, Serialize};

use crate::apply::{ApplyError, Resolved, apply, read};
use crate::evaluate::{evaluate, is_deciding};
use crate::record::Record;
use crate::thread::Thread;

/// The value of `format`.
pub const FORMAT: &str = "choir.v1 receipt";

/// A receipt as it is written down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecisionReceipt {
    /// [`FORMAT`].
    pub format: String,
    /// The thread.
    pub thread_id: ThreadId,
    /// The thread's audience: signatures are made for it, and it is in the checkpoint's origin.
    pub audience: Audience,
    /// The spec that was decided.
    pub spec: Id,
    /// The key that signed the checkpoint.
    pub server_key: PublicKey,
    /// The signed note (K6).
    pub checkpoint: String,
    /// What the outcome follows from, in the log's order.
    pub entries: Vec<ProvedEntry>,
}

/// An entry with its proof, and its way to the checkpoint's root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProvedEntry {
    /// The entry, as with `verify: true`.
    pub entry: Entry,
    /// Its inclusion path (RFC 9162 §2.1.3) in the checkpoint's tree.
    pub path: Vec<Hash>,
}

impl ProvedEntry {
    /// From the log's record and its path.
    pub fn new(record: &Record, path: Vec<Hash>) -> Self {
        Self {
            entry: record.to_entry(true),
            path,
        }
    }
}

impl DecisionReceipt {
    /// Puts a receipt together: `entries` are those that [`Needed`] named, with their paths in the tree of the checkpoint's size.
    pub fn make(
        thread: &Thread,
        spec: Id,
        server_key: PublicKey,
        checkpoint: String,
        entries: Vec<ProvedEntry>,
    ) -> Self {
        let audience = thread.settings().audience.clone();
        Self {
            format: FORMAT.to_owned(),
            thread_id: thread.thread_id(),
            audience,
            spec,
            server_key,
            checkpoint,
            entries,
        }
    }

    /// The file's text.
    pub fn to_json(&self) -> String {
        // These types hold nothing that JSON can't: no maps, no non-finite numbers.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// A receipt from the text of a file.
    ///
    /// # Errors
    /// [`Failure::Format`], with what is wrong.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        let value = json::parse(text).map_err(|error| Failure::Format(error.to_string()))?;
        let receipt: Self = from_value(&value).map_err(|error| Failure::Format(error.to_string()))?;
        if receipt.format == FORMAT {
            Ok(receipt)
        } else {
            Err(Failure::Format("another format".to_owned()))
        }
    }
}

/// Finds out which entries a spec's receipt needs: it is shown the whole log, from entry 1 on.
#[derive(Debug)]
pub struct Needed {
    thread_id: ThreadId,
    spec: Id,
    state: Option<Thread>,
    seqs: Vec<Seq>,
    /// By which entry each member joined last (S3).
    joined_by: BTreeMap<UserId, Seq>,
    progress: Progress,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    BeforeResolution,
    BeforeMessage,
    Done,
}

impl Needed {
    /// Nothing is shown yet.
    pub fn new(thread_id: ThreadId, spec: Id) -> Self {
        let progress = Progress::BeforeResolution;
        Self {
            thread_id,
            spec,
            state: None,
            seqs: Vec::new(),
            joined_by: BTreeMap::new(),
            progress,
        }
    }

    /// Takes in the log's next record; whether that was the last one that matters.
    ///
    /// # Errors
    /// Where the record isn't the log's next.
    pub fn see(&mut self, record: &Record) -> Result<bool, ApplyError> {
        match self.progress {
            Progress::Done => return Ok(true),
            // S9: the message follows its resolution at once.
            Progress::BeforeMessage => {
                self.seqs.push(record.seq);
                self.progress = Progress::Done;
                return Ok(true);
            }
            Progress::BeforeResolution => {}
        }
        let of_the_spec = record.id == self.spec || record.about == Some(self.spec);
        match record.kind {
            Kind::ThreadCreated
            | Kind::ThreadUpdated
            | Kind::MemberAdded
            | Kind::MemberJoined
            | Kind::MemberRemoved => {
                self.seqs.push(record.seq);
            }
            Kind::SpecResolved if of_the_spec => {
                let deciding = self.state.iter().flat_map(Thread::deciding);
                self.seqs.extend(deciding.filter_map(|user| self.joined_by.get(user)));
                self.seqs.push(record.seq);
                let approved = read::<Resolved>(&record.body).is_some_and(|body| body.outcome == Outcome::Approved);
                self.progress = if approved {
                    Progress::BeforeMessage
                } else {
                    Progress::Done
                };
                return Ok(self.progress == Progress::Done);
            }
            _ if of_the_spec => self.seqs.push(record.seq),
            _ => {}
        }
        let joined = |state: &Option<Thread>| {
            state
                .as_ref()
                .and_then(|thread| thread.member(&record.author))
                .is_some_and(|member| member.joined)
        };
        let before = joined(&self.state);
        apply(self.thread_id, &mut self.state, record)?;
        if !before && joined(&self.state) {
            self.joined_by.insert(record.author.clone(), record.seq);
        }
        Ok(false)
    }

    /// The numbers of the entries that are needed, in order; none where no resolution of the spec was shown: it is open, was withdrawn, or never was.
    pub fn seqs(mut self) -> Option<Vec<Seq>> {
        self.seqs.sort_unstable();
        self.seqs.dedup();
        (self.progress == Progress::Done).then_some(self.seqs)
    }
}

/// What a check of a receipt found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Verdict {
    /// How the spec ended, by the receipt's word.
    pub outcome: Option<Outcome>,
    /// What fails; the receipt is valid where nothing does.
    pub fails: Vec<Failure>,
    /// Entries whose bodies were erased (L6), which is no failure.
    pub erased: Vec<Seq>,
}

impl Verdict {
    /// Whether the receipt shows what it says.
    pub fn is_valid(&self) -> bool {
        self.fails.is_empty()
    }
}

/// One thing that is wrong with a receipt.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Failure {
    /// It is no receipt of this format.
    Format(String),
    /// The server's key isn't the pinned one.
    ServerKey,
    /// The checkpoint doesn't hold.
    Checkpoint(CheckpointError),
    /// The entries aren't in the log's order.
    Order(Seq),
    /// The body isn't the one that was hashed.
    ContentHash(Seq),
    /// The author's signature doesn't hold, or there is none where one is due.
    Signature(Seq),
    /// The path doesn't lead to the checkpoint's root.
    Path(Seq),
    /// The body is missing or says nothing of its kind, and no redaction erases that one.
    Body(Seq),
    /// Its author had no right to it.
    Rights(Seq),
    /// An entry that must be there isn't.
    Missing(Kind),
    /// The message isn't the last revision, or isn't the spec's author's.
    Message(Seq),
    /// The thread was created for another audience than the receipt names.
    Audience,
    /// The entries don't lead to the outcome.
    Outcome {
        /// What S7 and S8 give; none: still open.
        given: Option<Outcome>,
        /// What `spec_resolved` says.
        says: Outcome,
    },
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Format(what) => write!(f, "not a receipt: {what}"),
            Self::ServerKey => f.write_str("server_key is not the one that is pinned"),
            Self::Checkpoint(error) => error.fmt(f),
            Self::Order(seq) => write!(f, "order of entry {seq}"),
            Self::ContentHash(seq) => write!(f, "content_hash of {seq}"),
            Self::Signature(seq) => write!(f, "signature of entry {seq}"),
            Self::Path(seq) => write!(f, "path of entry {seq}"),
            Self::Body(seq) => write!(f, "body of entry {seq}"),
            Self::Rights(seq) => write!(f, "entry {seq}: its author had no right to it"),
            Self::Missing(kind) => write!(f, "{kind} is missing"),
            Self::Message(seq) => write!(f, "message {seq} is not the last revision"),
            Self::Audience => f.write_str("audience is not the thread's"),
            Self::Outcome { given, says } => {
                let given = given.map_or("None", Outcome::as_str);
                write!(f, "S7 gives {given}, the receipt says {}", says.as_str())
            }
        }
    }
}

impl core::error::Error for Failure {}

/// Checks a receipt's text offline (K7). `pinned` is the server's key where the caller has one; without it, the receipt's own is believed.
pub fn verify(text: &str, pinned: Option<&PublicKey>) -> Verdict {
    match DecisionReceipt::parse(text) {
        Ok(receipt) => receipt.verify(pinned),
        Err(failure) => Verdict {
            fails: alloc::vec![failure],
            ..Verdict::default()
        },
    }
}

impl DecisionReceipt {
    /// As [`verify`], of a receipt that is parsed.
    pub fn verify(&self, pinned: Option<&PublicKey>) -> Verdict {
        let mut fails = Vec::new();
        if pinned.is_some_and(|pinned| *pinned != self.server_key) {
            fails.push(Failure::ServerKey);
        }
        let origin = origin(self.audience.as_str(), &self.thread_id.to_string());
        let checkpoint = Checkpoint::verify(&self.checkpoint, &origin, &self.server_key);
        let checkpoint = checkpoint.map_err(|error| fails.push(Failure::Checkpoint(error))).ok();
        let mut last = Seq::ZERO;
        for ProvedEntry { entry, path } in &self.entries {
            if entry.seq <= last {
                fails.push(Failure::Order(entry.seq));
            }
            last = last.max(entry.seq);
            fails.extend(self.check_entry(entry, path, checkpoint.as_ref()));
        }
        let mut replay = Replay::new(self, &mut fails);
        for ProvedEntry { entry, .. } in &self.entries {
            replay.take(entry);
        }
        let outcome = replay.finish();
        let erased = self
            .entries
            .iter()
            .map(|proved| &proved.entry)
            .filter(|entry| matches!(entry.body, Body::Erased(_)));
        Verdict {
            outcome,
            erased: erased.map(|entry| entry.seq).collect(),
            fails,
        }
    }

    /// What can be said of an entry alone.
    fn check_entry(&self, entry: &Entry, path: &[Hash], checkpoint: Option<&Checkpoint>) -> Vec<Failure> {
        let seq = entry.seq;
        let mut fails = Vec::new();
        if let (Some(text), Some(hash)) = (entry.body.text(), entry.content_hash)
            && Hash::of(text.as_bytes()) != hash
        {
            fails.push(Failure::ContentHash(seq));
        }
        // Derived entries have no signature; nothing else goes without.
        let derived = entry.author.is_choir() && matches!(entry.kind, Kind::SpecResolved | Kind::MemberAdded);
        if !derived && !entry.signature_holds(self.thread_id, &self.audience) {
            fails.push(Failure::Signature(seq));
        }
        if let Some(checkpoint) = checkpoint {
            let leaf = entry
                .inner()
                .map(|inner| entry_leaf(self.thread_id, seq, entry.stream, &inner));
            let index = seq.get().checked_sub(1);
            let leads = leaf
                .zip(index)
                .is_some_and(|(leaf, index)| verify_inclusion(&leaf, index, checkpoint.size, path, &checkpoint.root));
            if !leads {
                fails.push(Failure::Path(seq));
            }
        }
        fails
    }
}

/// The thread as far as a receipt shows it: members, settings, and the one spec.
struct Replay<'a> {
    receipt: &'a DecisionReceipt,
    fails: &'a mut Vec<Failure>,
    created: bool,
    visibility: Visibility,
    policy: Policy,
    members: BTreeMap<UserId, Member>,
    spec: Option<Ballot>,
    resolved: Option<(Seq, Outcome)>,
    message: bool,
    /// The hashes that decisions on the spec, and its message, are bound to: by them an erased revision is known to be the spec's.
    named: Vec<Hash>,
}

struct Ballot {
    author: UserId,
    expires_at: Timestamp,
    content_hash: Option<Hash>,
    decisions: BTreeMap<UserId, Decision>,
}

impl<'a> Replay<'a> {
    fn new(receipt: &'a DecisionReceipt, fails: &'a mut Vec<Failure>) -> Self {
        let entries = receipt.entries.iter().map(|proved| &proved.entry);
        let named = entries.filter_map(|entry| match entry.kind {
            Kind::ApprovalGiven => read::<ProcessApproval>(&entry.body).map(|approval| approval.content_hash),
            Kind::MessagePosted if entry.id == receipt.spec => entry.content_hash,
            _ => None,
        });
        Self {
            named: named.collect(),
            receipt,
            fails,
            created: false,
            visibility: Visibility::Private,
            policy: Policy::default(),
            members: BTreeMap::new(),
            spec: None,
            resolved: None,
            message: false,
        }
    }

    fn take(&mut self, entry: &Entry) {
        if let Some((resolved, outcome)) = self.resolved {
            // S9: right behind the resolution stands the message. Nothing after that matters.
            if entry.kind == Kind::MessagePosted && entry.id == self.receipt.spec {
                let last_revision = self.spec.as_ref().is_some_and(|spec| {
                    spec.author == entry.author
                        && spec.content_hash.is_some()
                        && spec.content_hash == entry.content_hash
                });
                if outcome != Outcome::Approved || entry.seq != resolved.next() || !last_revision {
                    self.fails.push(Failure::Message(entry.seq));
                }
                self.message = true;
            }
            return;
        }
        if let Err(failure) = self.fold(entry) {
            self.fails.push(failure);
        }
        // S3: by the first entry that an action of theirs causes, a member joins.
        if let Some(member) = self.members.get_mut(&entry.author) {
            member.joined = true;
        }
    }

    fn fold(&mut self, entry: &Entry) -> Result<(), Failure> {
        let body = Failure::Body(entry.seq);
        match entry.kind {
            Kind::ThreadCreated => self.create(entry, read(&entry.body).ok_or(body)?),
            Kind::ThreadUpdated => {
                let UpdateThread { visibility, policy, .. } = read(&entry.body).ok_or(body)?;
                self.check_owner(entry)?;
                self.visibility = visibility.unwrap_or(self.visibility);
                self.policy = policy.unwrap_or(self.policy);
                Ok(())
            }
            Kind::MemberAdded => self.add(entry, read(&entry.body).ok_or(body)?),
            Kind::MemberJoined => {
                let Join { agent } = read(&entry.body).ok_or(body)?;
                if !self.may_read(&entry.author) {
                    return Err(Failure::Rights(entry.seq));
                }
                let stranger = || Member {
                    user_id: entry.author.clone(),
                    role: Role::Reader,
                    agent: false,
                    joined: true,
                };
                self.members.entry(entry.author.clone()).or_insert_with(stranger).agent |= agent.unwrap_or_default();
                Ok(())
            }
            Kind::MemberRemoved => {
                let RemoveMember { user_id } = read(&entry.body).ok_or(body)?;
                if user_id != entry.author {
                    self.check_owner(entry)?;
                }
                self.members.remove(&user_id);
                Ok(())
            }
            Kind::SpecSubmitted if entry.id == self.receipt.spec => {
                self.spec = Some(Ballot {
                    author: entry.author.clone(),
                    expires_at: entry.timestamp.plus_ms(self.policy.expires_ms),
                    content_hash: entry.content_hash,
                    decisions: BTreeMap::new(),
                });
                Ok(())
            }
            Kind::SpecRevised => self.revise(entry),
            Kind::ApprovalGiven => self.decide(entry, read(&entry.body).ok_or(body)?),
            Kind::SpecResolved if entry.id == self.receipt.spec => self.resolve(entry, &read(&entry.body).ok_or(body)?),
            // Entries that are here since somebody joined by them.
            _ => Ok(()),
        }
    }

    fn create(&mut self, entry: &Entry, create: CreateThread) -> Result<(), Failure> {
        self.created = entry.seq == Seq::ZERO.next();
        self.visibility = create.visibility.unwrap_or_default();
        self.policy = create.policy.unwrap_or_default();
        let mut add = |user_id: UserId, role, agent: Option<bool>| {
            let member = Member {
                user_id: user_id.clone(),
                role,
                agent: agent.unwrap_or_default(),
                joined: false,
            };
            self.members.insert(user_id, member);
        };
        add(entry.author.clone(), Role::Owner, create.agent);
        for NewMember { user_id, role, agent } in create.members.unwrap_or_default() {
            add(user_id, role, agent);
        }
        if create.audience == self.receipt.audience {
            Ok(())
        } else {
            Err(Failure::Audience)
        }
    }

    fn add(&mut self, entry: &Entry, new: NewMember) -> Result<(), Failure> {
        // S9: who is admitted by the server is a co-author at once, and has joined.
        let admitted = entry.author.is_choir();
        if !admitted {
            self.check_owner(entry)?;
        } else if new.role != Role::CoAuthor {
            return Err(Failure::Rights(entry.seq));
        }
        let NewMember { user_id, role, agent } = new;
        let stranger = Member {
            user_id: user_id.clone(),
            role,
            agent: false,
            joined: false,
        };
        let member = self.members.entry(user_id).or_insert(stranger);
        member.role = role;
        member.agent = agent.unwrap_or(member.agent);
        member.joined |= admitted;
        Ok(())
    }

    fn revise(&mut self, entry: &Entry) -> Result<(), Failure> {
        let ours = match &entry.body {
            Body::Present(_) => {
                let ReviseSpec { spec, .. } = read(&entry.body).ok_or(Failure::Body(entry.seq))?;
                spec == self.receipt.spec
            }
            // Of an erased one that nothing is bound to it makes no difference.
            Body::Erased(_) => entry.content_hash.is_some_and(|hash| self.named.contains(&hash)),
        };
        let Some(spec) = self.spec.as_mut().filter(|_| ours) else {
            return Ok(());
        };
        if spec.author != entry.author {
            return Err(Failure::Rights(entry.seq));
        }
        spec.content_hash = entry.content_hash;
        spec.decisions.clear();
        Ok(())
    }

    fn decide(&mut self, entry: &Entry, approval: ProcessApproval) -> Result<(), Failure> {
        if approval.spec != self.receipt.spec {
            return Ok(());
        }
        let co_author = self
            .members
            .get(&entry.author)
            .is_some_and(|member| member.role.is_co_author());
        match self
            .spec
            .as_mut()
            .filter(|spec| co_author && spec.content_hash == Some(approval.content_hash))
        {
            Some(spec) => {
                spec.decisions.insert(entry.author.clone(), approval.decision);
                Ok(())
            }
            None => Err(Failure::Rights(entry.seq)),
        }
    }

    /// The resolution, and what S7 and S8 give at it.
    fn resolve(&mut self, entry: &Entry, body: &Resolved) -> Result<(), Failure> {
        let says = body.outcome;
        self.resolved = Some((entry.seq, says));
        if !entry.author.is_choir() {
            return Err(Failure::Rights(entry.seq));
        }
        let Some(spec) = &self.spec else {
            // Named when all is read.
            return Ok(());
        };
        let given = if entry.timestamp >= spec.expires_at {
            Some(Outcome::Expired)
        } else {
            let counts = |user: &UserId| {
                self.members
                    .get(user)
                    .is_some_and(|member| is_deciding(member, &self.policy))
            };
            let n = self.members.keys().filter(|user| counts(user)).count();
            let decisions = spec.decisions.iter().filter(|(user, _)| counts(user));
            let decisions = decisions.map(|(_, decision)| *decision);
            evaluate(&self.policy, self.may_read(&spec.author), n, decisions)
        };
        if given == Some(says) {
            Ok(())
        } else {
            Err(Failure::Outcome { given, says })
        }
    }

    fn finish(self) -> Option<Outcome> {
        let approved = self.resolved.is_some_and(|(_, outcome)| outcome == Outcome::Approved);
        let missing = [
            (self.created, Kind::ThreadCreated),
            (self.spec.is_some(), Kind::SpecSubmitted),
            (self.resolved.is_some(), Kind::SpecResolved),
            (self.message || !approved, Kind::MessagePosted),
        ];
        self.fails.extend(
            missing
                .into_iter()
                .filter(|(there, _)| !there)
                .map(|(_, kind)| Failure::Missing(kind)),
        );
        self.resolved.map(|(_, outcome)| outcome)
    }

    fn may_read(&self, user: &UserId) -> bool {
        self.visibility == Visibility::Public || self.members.contains_key(user)
    }

    fn check_owner(&self, entry: &Entry) -> Result<(), Failure> {
        match self.members.get(&entry.author) {
            Some(member) if member.role == Role::Owner => Ok(()),
            _ => Err(Failure::Rights(entry.seq)),
        }
    }
}
