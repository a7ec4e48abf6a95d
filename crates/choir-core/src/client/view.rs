//! What a viewer sees of a thread: settings, members, open specs and messages, folded from the entries that they get.
//!
//! The view knows nothing of ranges, roots and signatures: what comes here was checked by the [replica](super::replica), which owns it. It holds everything
//! above its *floor*: messages that were posted there, and edits and redactions that happened there, also of messages below the floor (Y6). What is older
//! comes by history, with its own edits and redactions, so that raising the floor loses nothing.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use choir_protocol::action::{
    CreateThread, EditMessage, Join, NewMember, ProcessApproval, RedactMessage, RemoveMember, ReviseSpec, UpdateThread,
    WithdrawSpec,
};
use choir_protocol::de::from_value;
use choir_protocol::entry::{Body, Entry, Kind};
use choir_protocol::ids::{Id, Seq, Timestamp, UserId};
use choir_protocol::json::Value;
use choir_protocol::message::{More, Snapshot};
use choir_protocol::thread::{DecisionRow, Member, OpenSpec, Propose, Role, Settings};

/// How many members are held: ten times what servers allow (section 12).
const MAX_MEMBERS: usize = 10_000;
/// How many open specs are held: ten times what servers allow (section 12).
const MAX_OPEN_SPECS: usize = 1_000;

/// A message of a thread.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// Its name.
    pub id: Id,
    /// The number of its `message_posted`.
    pub seq: Seq,
    /// Who wrote it.
    pub author: UserId,
    /// When it was posted.
    pub timestamp: Timestamp,
    /// What it says.
    pub content: Content,
    /// The last edit, where there was one.
    pub edited: Option<Edited>,
}

impl Message {
    /// Nothing is left that tells of its edits: who comes later doesn't see them either.
    fn redact(&mut self, at: Seq) {
        self.content = Content::Redacted { at };
        self.edited = None;
    }

    /// The text, where the content is one.
    pub fn text(&self) -> Option<&str> {
        match &self.content {
            Content::Present { content, .. } => content.as_str(),
            Content::Redacted { .. } => None,
        }
    }
}

/// What a message says.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    /// This.
    Present {
        /// A string or any JSON (L2).
        content: Value,
        /// A media type; `text/plain` where it is left out.
        content_type: Option<String>,
        /// The message that it answers.
        parent: Option<Id>,
    },
    /// Nothing any longer (L6).
    Redacted {
        /// The number of the redaction.
        at: Seq,
    },
}

/// An edit of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Edited {
    /// Its number.
    pub seq: Seq,
    /// When.
    pub timestamp: Timestamp,
}

/// What a caller sees of a thread.
#[derive(Debug, Clone)]
pub struct View {
    viewer: UserId,
    settings: Option<Settings>,
    members: BTreeMap<UserId, MemberRow>,
    specs: BTreeMap<Id, SpecRow>,
    messages: BTreeMap<Seq, Arc<Message>>,
    numbers: BTreeMap<Id, Seq>,
    late: BTreeMap<Id, Late>,
    /// Counts what was added, for lists in the order of being added.
    added: u64,
    /// The last spec that was resolved: what follows it isn't its author's doing (S3, S9).
    resolved: Option<Id>,
    more: More,
}

#[derive(Debug, Clone)]
struct MemberRow {
    order: u64,
    member: Member,
}

#[derive(Debug, Clone)]
struct SpecRow {
    order: u64,
    spec: OpenSpec,
}

/// What happened to a message that isn't held (Y6).
#[derive(Debug, Clone, Default)]
struct Late {
    edit: Option<LateEdit>,
    redaction: Option<LateRedaction>,
}

#[derive(Debug, Clone)]
struct LateEdit {
    edited: Edited,
    author: UserId,
    content: Value,
    content_type: Option<String>,
}

#[derive(Debug, Clone)]
struct LateRedaction {
    seq: Seq,
    author: UserId,
    by_owner: bool,
}

impl Late {
    /// The number of the older of both: the floor above which this is still needed.
    fn oldest(&self) -> Option<Seq> {
        let edit = self.edit.as_ref().map(|edit| edit.edited.seq);
        let redaction = self.redaction.as_ref().map(|redaction| redaction.seq);
        edit.into_iter().chain(redaction).min()
    }
}

/// Why an entry has no effect, although it stands in the log: its author's server should have refused it.
pub(super) type Refused = &'static str;

impl View {
    pub(super) fn new(viewer: UserId) -> Self {
        Self {
            viewer,
            settings: None,
            members: BTreeMap::new(),
            specs: BTreeMap::new(),
            messages: BTreeMap::new(),
            numbers: BTreeMap::new(),
            late: BTreeMap::new(),
            added: 0,
            resolved: None,
            more: More::default(),
        }
    }

    /// The state of a snapshot, without the entries of its `recent`.
    pub(super) fn from_snapshot(viewer: UserId, snapshot: &Snapshot) -> Self {
        let mut view = Self::new(viewer);
        view.settings = Some(snapshot.thread.clone());
        for member in &snapshot.members {
            view.put_member(member.clone());
        }
        for spec in &snapshot.open_specs {
            view.put_spec(spec.clone());
        }
        view.more = snapshot.more.clone();
        view
    }

    // ------------------------------------------------------------------------------------------------------------------------------------------ reading

    /// The settings; none before `thread_created`.
    pub const fn settings(&self) -> Option<&Settings> {
        self.settings.as_ref()
    }

    /// The members in the order of being added, as far as the snapshot held them ([`View::more`]).
    pub fn members(&self) -> Vec<&Member> {
        let mut rows: Vec<_> = self.members.values().collect();
        rows.sort_unstable_by_key(|row| row.order);
        rows.into_iter().map(|row| &row.member).collect()
    }

    /// One member.
    pub fn member(&self, user: &UserId) -> Option<&Member> {
        self.members.get(user).map(|row| &row.member)
    }

    /// The viewer's own role; none for who is no member.
    pub fn role(&self) -> Option<Role> {
        self.member(&self.viewer).map(|member| member.role)
    }

    /// The open specs that the viewer sees, in the order of submission.
    pub fn open_specs(&self) -> Vec<&OpenSpec> {
        let mut rows: Vec<_> = self.specs.values().collect();
        rows.sort_unstable_by_key(|row| row.order);
        rows.into_iter().map(|row| &row.spec).collect()
    }

    /// One open spec.
    pub fn spec(&self, spec: Id) -> Option<&OpenSpec> {
        self.specs.get(&spec).map(|row| &row.spec)
    }

    /// The messages that are held, oldest first.
    pub fn messages(&self) -> impl DoubleEndedIterator<Item = &Message> + ExactSizeIterator {
        self.messages.values().map(|message| &**message)
    }

    /// One message, where it is held.
    pub fn message(&self, id: Id) -> Option<&Message> {
        let seq = self.numbers.get(&id)?;
        self.messages.get(seq).map(|message| &**message)
    }

    /// What the snapshot cut (Y5): where `control.members` and `control.specs` go on.
    pub const fn more(&self) -> &More {
        &self.more
    }

    /// How much is held, for the bound.
    pub(super) fn held(&self) -> usize {
        self.messages.len().saturating_add(self.late.len())
    }

    /// The floor above which at most `most` things are held; none where that is so already.
    pub(super) fn floor_to_hold(&self, most: usize) -> Option<Seq> {
        let surplus = self.held().checked_sub(most).filter(|surplus| *surplus > 0)?;
        let mut numbers: Vec<Seq> = self.messages.keys().copied().collect();
        numbers.extend(self.late.values().filter_map(Late::oldest));
        numbers.sort_unstable();
        numbers.get(surplus - 1).copied()
    }

    // ------------------------------------------------------------------------------------------------------------------------------------------ folding

    /// Applies an entry that follows all that were applied before.
    pub(super) fn apply(&mut self, entry: &Entry) -> Result<(), Refused> {
        let resolved = self.resolved.take();
        let follows_a_spec = resolved == Some(entry.id);
        self.join_by_acting(entry, follows_a_spec);
        match &entry.kind {
            Kind::ThreadCreated => self.created(entry),
            Kind::MessagePosted | Kind::MessageEdited | Kind::MessageRedacted => {
                if follows_a_spec {
                    self.resolved = resolved;
                }
                self.message_entry(entry, false)
            }
            Kind::ThreadUpdated => self.updated(entry),
            Kind::MemberAdded => self.member_added(entry),
            Kind::MemberJoined => self.member_joined(entry),
            Kind::MemberRemoved => {
                let body: RemoveMember = body(entry)?;
                self.members.remove(&body.user_id);
                Ok(())
            }
            Kind::SpecSubmitted => self.submitted(entry),
            Kind::SpecRevised => self.revised(entry),
            Kind::SpecWithdrawn => {
                let WithdrawSpec { spec } = body(entry)?;
                match self.specs.get(&spec) {
                    Some(row) if row.spec.author != entry.author => {
                        return Err("a spec is withdrawn by its author");
                    }
                    _ => self.specs.remove(&spec),
                };
                Ok(())
            }
            Kind::SpecResolved => {
                let Resolved { spec } = body(entry)?;
                self.specs.remove(&spec);
                self.resolved = Some(spec);
                Ok(())
            }
            Kind::ApprovalGiven => self.decided(entry),
            Kind::Other(_) => Ok(()),
        }
    }

    /// Applies what an entry of the past does to messages: history brings them from the newest page to the oldest (Y6), and who was an owner then isn't known.
    pub(super) fn recall(&mut self, entry: &Entry) -> Result<(), Refused> {
        self.message_entry(entry, true)
    }

    fn message_entry(&mut self, entry: &Entry, past: bool) -> Result<(), Refused> {
        match &entry.kind {
            Kind::MessagePosted => self.posted(entry),
            Kind::MessageEdited => self.edited(entry),
            Kind::MessageRedacted => self.redacted(entry, past),
            _ => Ok(()),
        }
    }

    fn created(&mut self, entry: &Entry) -> Result<(), Refused> {
        let body: CreateThread = body(entry)?;
        let visibility = body.visibility.unwrap_or_default();
        self.settings = Some(Settings {
            title: body.title,
            audience: body.audience,
            visibility,
            review: body.review.unwrap_or_default(),
            propose: body.propose.unwrap_or_else(|| Propose::default_of(visibility)),
            policy: body.policy.unwrap_or_default(),
            created_at: entry.timestamp,
        });
        self.put_member(Member {
            user_id: entry.author.clone(),
            role: Role::Owner,
            agent: body.agent.unwrap_or(false),
            joined: true,
        });
        for member in body.members.unwrap_or_default() {
            self.put_member(Member {
                user_id: member.user_id,
                role: member.role,
                agent: member.agent.unwrap_or(false),
                joined: false,
            });
        }
        Ok(())
    }

    fn updated(&mut self, entry: &Entry) -> Result<(), Refused> {
        let body: UpdateThread = body(entry)?;
        if let Some(settings) = &mut self.settings {
            if let Some(title) = body.title {
                settings.title = title;
            }
            if let Some(visibility) = body.visibility {
                settings.visibility = visibility;
            }
            if let Some(review) = body.review {
                settings.review = review;
            }
            if let Some(propose) = body.propose {
                settings.propose = propose;
            }
            if let Some(policy) = body.policy {
                settings.policy = policy;
            }
        }
        Ok(())
    }

    /// The first entry that an invited member causes makes them joined, whatever it is but their own leaving (S3).
    fn join_by_acting(&mut self, entry: &Entry, follows_a_spec: bool) {
        let leaves = entry.kind == Kind::MemberRemoved;
        if let Some(row) = self.members.get_mut(&entry.author)
            && !follows_a_spec
            && !leaves
        {
            row.member.joined = true;
        }
    }

    fn member_added(&mut self, entry: &Entry) -> Result<(), Refused> {
        let body: NewMember = body(entry)?;
        let agent = body.agent.unwrap_or(false);
        if let Some(row) = self.members.get_mut(&body.user_id) {
            row.member.role = body.role;
            row.member.agent = agent;
            row.member.joined |= entry.author.is_choir();
        } else {
            self.put_member(Member {
                joined: entry.author.is_choir(),
                user_id: body.user_id,
                role: body.role,
                agent,
            });
        }
        Ok(())
    }

    fn member_joined(&mut self, entry: &Entry) -> Result<(), Refused> {
        let body: Join = body(entry)?;
        let agent = body.agent.unwrap_or(false);
        match self.members.get_mut(&entry.author) {
            Some(row) => row.member.agent |= agent,
            None => self.put_member(Member {
                user_id: entry.author.clone(),
                role: Role::Reader,
                agent,
                joined: true,
            }),
        }
        Ok(())
    }

    fn submitted(&mut self, entry: &Entry) -> Result<(), Refused> {
        // Erased later: then it was approved, and is open no longer.
        let (Some(value), Some(content_hash)) = (entry.body_value(), entry.content_hash) else {
            return Ok(());
        };
        let expires_ms = self.settings.as_ref().map_or(0, |settings| settings.policy.expires_ms);
        self.put_spec(OpenSpec {
            spec: entry.id,
            author: entry.author.clone(),
            seq: entry.seq,
            content_hash,
            body: value,
            submitted_at: entry.timestamp,
            expires_at: entry.timestamp.plus_ms(expires_ms),
            decisions: Vec::new(),
        });
        Ok(())
    }

    fn revised(&mut self, entry: &Entry) -> Result<(), Refused> {
        let (Some(value), Some(content_hash)) = (entry.body_value(), entry.content_hash) else {
            return Ok(());
        };
        let revision: ReviseSpec = body(entry)?;
        if let Some(row) = self.specs.get_mut(&revision.spec) {
            if row.spec.author != entry.author {
                return Err("a spec is revised by its author");
            }
            row.spec.seq = entry.seq;
            row.spec.content_hash = content_hash;
            row.spec.body = value;
            row.spec.decisions.clear();
        }
        Ok(())
    }

    fn decided(&mut self, entry: &Entry) -> Result<(), Refused> {
        let approval: ProcessApproval = body(entry)?;
        if let Some(row) = self.specs.get_mut(&approval.spec) {
            if row.spec.content_hash != approval.content_hash {
                return Err("a decision is bound to the current revision");
            }
            let decisions = &mut row.spec.decisions;
            decisions.retain(|decision| decision.user_id != entry.author);
            decisions.push(DecisionRow {
                user_id: entry.author.clone(),
                decision: approval.decision,
                reason: approval.reason,
                seq: entry.seq,
            });
        }
        Ok(())
    }

    fn posted(&mut self, entry: &Entry) -> Result<(), Refused> {
        if self.numbers.contains_key(&entry.id) {
            return Err("a message with this id was posted before");
        }
        let content = match &entry.body {
            Body::Erased(at) => Content::Redacted { at: *at },
            Body::Present(_) => {
                let body: Posted = body(entry)?;
                Content::Present {
                    content: body.content,
                    content_type: body.content_type,
                    parent: body.parent,
                }
            }
        };
        let mut message = Message {
            id: entry.id,
            seq: entry.seq,
            author: entry.author.clone(),
            timestamp: entry.timestamp,
            content,
            edited: None,
        };
        if let Some(late) = self.late.remove(&entry.id) {
            if let Some(edit) = late.edit.filter(|edit| edit.author == message.author) {
                edit.apply(&mut message);
            }
            if let Some(redaction) = late
                .redaction
                .filter(|redaction| redaction.by_owner || redaction.author == message.author)
            {
                message.redact(redaction.seq);
            }
        }
        self.numbers.insert(message.id, message.seq);
        self.messages.insert(message.seq, Arc::new(message));
        Ok(())
    }

    fn edited(&mut self, entry: &Entry) -> Result<(), Refused> {
        // Its message was redacted since: it says nothing, and not even which message it edited.
        if let Body::Erased(_) = entry.body {
            return Ok(());
        }
        let EditMessage {
            message,
            content,
            content_type,
            ..
        } = body(entry)?;
        let edit = LateEdit {
            edited: Edited {
                seq: entry.seq,
                timestamp: entry.timestamp,
            },
            author: entry.author.clone(),
            content,
            content_type,
        };
        match self.message_mut(message) {
            Some(held) if held.author != edit.author => Err("a message is edited by its author"),
            Some(held) => {
                edit.apply(held);
                Ok(())
            }
            None => {
                let late = self.late.entry(message).or_default();
                if late.edit.as_ref().is_none_or(|known| known.edited.seq < entry.seq) {
                    late.edit = Some(edit);
                }
                Ok(())
            }
        }
    }

    fn redacted(&mut self, entry: &Entry, past: bool) -> Result<(), Refused> {
        let RedactMessage { message } = body(entry)?;
        // Who isn't among the members that are known may be an owner among those that the snapshot cut.
        let by_owner = past
            || match self.member(&entry.author) {
                Some(member) => member.role == Role::Owner,
                None => self.more.members.is_some(),
            };
        match self.message_mut(message) {
            Some(held) if held.author != entry.author && !by_owner => {
                Err("a message is redacted by its author or an owner")
            }
            Some(held) => {
                held.redact(entry.seq);
                Ok(())
            }
            None => {
                self.late.entry(message).or_default().redaction = Some(LateRedaction {
                    seq: entry.seq,
                    author: entry.author.clone(),
                    by_owner,
                });
                Ok(())
            }
        }
    }

    /// Forgets what stands at or below the floor. Edits and redactions above it stay known for when history brings their messages.
    pub(super) fn forget(&mut self, floor: Seq) {
        while let Some(oldest) = self.messages.first_entry()
            && *oldest.key() <= floor
        {
            let message = oldest.remove();
            self.numbers.remove(&message.id);
            self.keep_changes_of(&message, floor);
        }
        self.late.retain(|_, late| {
            late.edit.take_if(|edit| edit.edited.seq <= floor);
            late.redaction.take_if(|redaction| redaction.seq <= floor);
            late.oldest().is_some()
        });
    }

    fn keep_changes_of(&mut self, message: &Message, floor: Seq) {
        match (&message.content, message.edited) {
            (Content::Redacted { at }, _) if *at > floor => {
                self.late.entry(message.id).or_default().redaction = Some(LateRedaction {
                    seq: *at,
                    author: message.author.clone(),
                    by_owner: true,
                });
            }
            (
                Content::Present {
                    content, content_type, ..
                },
                Some(edited),
            ) if edited.seq > floor => {
                self.late.entry(message.id).or_default().edit = Some(LateEdit {
                    edited,
                    author: message.author.clone(),
                    content: content.clone(),
                    content_type: content_type.clone(),
                });
            }
            _ => {}
        }
    }

    fn message_mut(&mut self, id: Id) -> Option<&mut Message> {
        let seq = self.numbers.get(&id)?;
        self.messages.get_mut(seq).map(Arc::make_mut)
    }

    fn put_member(&mut self, member: Member) {
        // Above what any server allows: a forged thread can't fill the memory.
        if self.members.len() >= MAX_MEMBERS && !self.members.contains_key(&member.user_id) {
            return;
        }
        self.added += 1;
        let order = self.added;
        self.members.insert(member.user_id.clone(), MemberRow { order, member });
    }

    fn put_spec(&mut self, spec: OpenSpec) {
        if self.specs.len() >= MAX_OPEN_SPECS && !self.specs.contains_key(&spec.spec) {
            return;
        }
        self.added += 1;
        let order = self.added;
        self.specs.insert(spec.spec, SpecRow { order, spec });
    }
}

impl LateEdit {
    /// The newest edit counts, whichever comes first; what is redacted stays so.
    fn apply(self, message: &mut Message) {
        if message.edited.is_some_and(|known| known.seq > self.edited.seq) {
            return;
        }
        if let Content::Present {
            content, content_type, ..
        } = &mut message.content
        {
            *content = self.content;
            *content_type = self.content_type;
            message.edited = Some(self.edited);
        }
    }
}

#[derive(serde::Deserialize)]
struct Posted {
    content: Value,
    #[serde(default)]
    content_type: Option<String>,
    #[serde(default)]
    parent: Option<Id>,
}

#[derive(serde::Deserialize)]
struct Resolved {
    spec: Id,
}

/// The body of an entry as its kind's.
fn body<T: serde::de::DeserializeOwned>(entry: &Entry) -> Result<T, Refused> {
    let value = entry.body_value().ok_or("the body is missing")?;
    from_value(&value).map_err(|_| "the body isn't one of its kind")
}
