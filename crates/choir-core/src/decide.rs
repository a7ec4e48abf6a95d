//! What an action does to a thread: the rules of section 5 and the pipeline of A1, as one pure function.
//!
//! [`decide`] takes the folded state, an action whose signature holds, who sent it, and what the log says of the ids that the action names ([`targets`]). It
//! returns what to append, the receipt of what was appended long ago, or a refusal. Nothing happens here: the caller appends, and answers when that is durable.
//!
//! A thread's actor uses [`Batch`](crate::batch::Batch), which decides several actions on top of one another and keeps the order that S8 demands.

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use choir_protocol::action::{
    Action, CreateThread, EditMessage, Join, NewMember, ProcessApproval, RemoveMember, ReviseSpec, SignedAction,
    SubmitMessage, UpdateThread,
};
use choir_protocol::canonical::Canonical;
use choir_protocol::entry::{Body, Kind, Proof};
use choir_protocol::error::ErrorCode;
use choir_protocol::hash::Hash;
use choir_protocol::ids::{Audience, Cursor, Id, Seq, ThreadId, Timestamp, UserId};
use choir_protocol::json::{Object, object};
use choir_protocol::key::PublicKey;
use choir_protocol::merkle::Peaks;
use choir_protocol::thread::{Outcome, Propose, Role, Stream};

use crate::apply::{ApplyError, Effects, fold};
use crate::evaluate::evaluate;
use crate::record::{Facts, Found, Record};
use crate::thread::{Spec, Thread};
use crate::view::view;

/// How far an action's clock may be from the server's (K3): 5 minutes.
pub const MAX_SKEW_MS: u64 = 5 * 60 * 1000;

/// The limits of section 12 that the core decides by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is a limit of section 12's table, named as there")]
pub struct ThreadLimits {
    pub members: usize,
    pub open_specs_per_author: usize,
    pub open_specs_per_thread: usize,
    pub max_content_bytes: usize,
    pub title_bytes: usize,
    pub reason_bytes: usize,
    pub content_type_bytes: usize,
}

impl Default for ThreadLimits {
    fn default() -> Self {
        Self {
            members: 1_000,
            open_specs_per_author: 3,
            open_specs_per_thread: 100,
            max_content_bytes: 64 * 1024,
            title_bytes: 256,
            reason_bytes: 1_024,
            content_type_bytes: 127,
        }
    }
}

/// Who sends an action, when, and to what server.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// The sender.
    pub author: &'a UserId,
    /// The key that the action's signature was checked with.
    pub key: &'a PublicKey,
    /// What the signature was made for: the connection's audience, over HTTP the envelope's (K1).
    pub audience: &'a Audience,
    /// The server's clock.
    pub now: Timestamp,
    /// Section 12.
    pub limits: &'a ThreadLimits,
    /// The server's own audiences (C4): a new thread's is one of them (S1).
    pub audiences: &'a [Audience],
    /// The issuers whose users are all agents (S4).
    pub agent_issuers: &'a [String],
}

impl Context<'_> {
    /// Whether the user comes from an issuer of agents (S4). A user id begins with its issuer's name (C2).
    fn is_agent_by_issuer(&self, user: &UserId) -> bool {
        user.as_str()
            .split_once(':')
            .is_some_and(|(issuer, _)| self.agent_issuers.iter().any(|agents| agents == issuer))
    }
}

/// What the log says of the ids and of the cursor that an action names. It must be read at the state's head: an entry that is missing here is one that the
/// decision doesn't know.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Lookups {
    /// For each id of [`targets`]: every entry that bears it or is about what bears it, in order.
    pub found: Vec<(Id, Vec<Found>)>,
    /// The log's root at the number of the action's `seen`; none above the head.
    pub seen_root: Option<Hash>,
}

impl Lookups {
    fn of(&self, id: Id) -> &[Found] {
        self.found
            .iter()
            .find(|(asked, _)| *asked == id)
            .map_or(&[], |(_, found)| found)
    }

    fn bearing(&self, id: Id, kind: &Kind) -> Option<&Found> {
        self.of(id).iter().find(|found| found.id == id && found.kind == *kind)
    }

    fn message(&self, id: Id) -> Option<&Found> {
        self.bearing(id, &Kind::MessagePosted)
    }
}

/// The ids that must be looked up in the log before the action can be decided: its own (A8), and those of the spec, message and parent that it names.
pub fn targets(action: &SignedAction) -> Vec<Id> {
    let (first, second) = match &action.action {
        Action::SubmitMessage(SubmitMessage { parent, .. }) => (*parent, None),
        Action::ReviseSpec(ReviseSpec { spec, parent, .. }) => (Some(*spec), *parent),
        Action::WithdrawSpec(withdraw) => (Some(withdraw.spec), None),
        Action::ProcessApproval(approval) => (Some(approval.spec), None),
        Action::EditMessage(edit) => (Some(edit.message), None),
        Action::RedactMessage(redact) => (Some(redact.message), None),
        Action::CreateThread(_)
        | Action::UpdateThread(_)
        | Action::AddMember(_)
        | Action::RemoveMember(_)
        | Action::Join(_) => (None, None),
    };
    let mut ids = alloc::vec![action.id];
    for id in [first, second].into_iter().flatten() {
        if !ids.contains(&id) {
            ids.push(id);
        }
    }
    ids
}

/// Why an action isn't applied: what goes into `error.state`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Section 11.
    pub code: ErrorCode,
    /// For people: no content, and no other user's data.
    pub message: Cow<'static, str>,
    /// The server's time, with `clock_skew` (K3).
    pub server_time: Option<Timestamp>,
}

impl Refusal {
    pub(crate) const fn new(code: ErrorCode, message: &'static str) -> Self {
        Self {
            code,
            message: Cow::Borrowed(message),
            server_time: None,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl core::error::Error for Refusal {}

impl From<ApplyError> for Refusal {
    /// A decision that its own state doesn't take is a bug of this crate, and the sender's action isn't applied.
    fn from(error: ApplyError) -> Self {
        Self {
            code: ErrorCode::Internal,
            message: alloc::format!("a decision went wrong: {error}").into(),
            server_time: None,
        }
    }
}

/// An action's own entry, which its receipt names (A9): of several with that id the one with the lowest number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Own {
    /// Its number.
    pub seq: Seq,
    /// What it is.
    pub kind: Kind,
}

/// What to append, all or nothing (S9).
#[derive(Debug, Clone, PartialEq)]
pub struct Append {
    /// The head that it was decided on; it goes nowhere else.
    pub expected: Cursor,
    /// The entries, in order.
    pub records: Vec<Record>,
    /// What the log's index learns.
    pub facts: Facts,
    /// The thread's state when that is appended.
    pub next: Thread,
}

/// How an action is answered that isn't refused.
#[derive(Debug, Clone, PartialEq)]
#[allow(
    clippy::large_enum_variant,
    reason = "made once for an action, and taken apart at once"
)]
pub enum Decided {
    /// It is applied by this append: its own entry is the first record.
    Committed(Append),
    /// It is in the log already (A8): the receipt names this entry, and the log's root there.
    Duplicate(Own),
}

/// Whether the action's id stands in the log already, and what that means (A8). None where it doesn't.
///
/// # Errors
/// With another author, type or payload it is another action's id.
pub fn duplicate(
    action: &SignedAction,
    author: &UserId,
    may_read: bool,
    found: &[Found],
) -> Option<Result<Own, Refusal>> {
    // Of several with the id the lowest is the action's own: the others follow from it (L3).
    let own = found
        .iter()
        .filter(|found| found.id == action.id)
        .min_by_key(|found| found.seq)?;
    if own.author != *author {
        return Some(Err(if may_read {
            refuse::id_taken()
        } else {
            refuse::thread_not_found()
        }));
    }
    let same = own.kind.action_type() == Some(action.action.type_name()) && own.content_hash == action.payload_hash;
    Some(if same {
        Ok(Own {
            seq: own.seq,
            kind: own.kind.clone(),
        })
    } else {
        Err(refuse::id_taken())
    })
}

/// Decides an action, in A1's order from the duplicate on. The signature must hold, and no spec be due (S8): [`Thread::is_due`], [`expire`].
///
/// # Errors
/// The refusal that the sender is answered.
pub fn decide(
    state: Option<&Thread>,
    action: &SignedAction,
    context: &Context<'_>,
    lookups: &Lookups,
) -> Result<Decided, Refusal> {
    let may_read = state.is_some_and(|thread| thread.may_read(context.author));
    if let Some(earlier) = duplicate(action, context.author, may_read, lookups.of(action.id)) {
        return earlier.map(Decided::Duplicate);
    }
    let creates = matches!(action.action, Action::CreateThread(_));
    if !may_read && !creates {
        return Err(refuse::thread_not_found());
    }
    check_timestamp(action, context.now)?;
    check_seen(action, state, lookups)?;
    let desk = Desk {
        action,
        context,
        lookups,
    };
    match (&action.action, state) {
        (Action::CreateThread(create), None) => desk.create(create),
        (Action::CreateThread(_), Some(_)) => Err(refuse::conflict("the thread id is taken")),
        (_, None) => Err(refuse::thread_not_found()),
        (_, Some(thread)) => desk.act(thread),
    }
    .map(Decided::Committed)
}

/// Resolves as expired all specs that are due, in the order of their submission, as one append of its own (S8). None where none is due.
///
/// # Errors
/// Never on a state that was folded from a log.
pub fn expire(state: &Thread, now: Timestamp) -> Result<Option<Append>, ApplyError> {
    if !state.is_due(now) {
        return Ok(None);
    }
    let mut draft = Draft::on(state, now);
    let now = state.time(now);
    for spec in state.specs.iter().filter(|spec| spec.expires_at <= now) {
        draft.resolve(spec, Outcome::Expired)?;
    }
    draft.finish().map(Some)
}

/// K3.
fn check_timestamp(action: &SignedAction, now: Timestamp) -> Result<(), Refusal> {
    if action.timestamp.get().abs_diff(now.get()) <= MAX_SKEW_MS {
        return Ok(());
    }
    let message = Cow::Borrowed("the action's timestamp is more than 5 minutes from the server's clock");
    Err(Refusal {
        code: ErrorCode::ClockSkew,
        message,
        server_time: Some(now),
    })
}

/// K4.
fn check_seen(action: &SignedAction, state: Option<&Thread>, lookups: &Lookups) -> Result<(), Refusal> {
    let Some(seen) = action.seen else {
        return Ok(());
    };
    let head = state.map_or(Cursor::START, Thread::head);
    let root = if seen.seq == head.seq {
        Some(head.root)
    } else if seen.seq == Seq::ZERO {
        Some(Hash::EMPTY)
    } else if seen.seq < head.seq {
        lookups.seen_root
    } else {
        None
    };
    if root == Some(seen.root) {
        Ok(())
    } else {
        Err(refuse::desync())
    }
}

/// The refusals, one wording each.
mod refuse {
    use super::{ErrorCode, Refusal};

    pub(super) const fn thread_not_found() -> Refusal {
        Refusal::new(ErrorCode::NotFound, "no such thread, or none that you may read")
    }

    pub(super) const fn spec_not_found() -> Refusal {
        Refusal::new(ErrorCode::NotFound, "no such spec, or none that you may see")
    }

    pub(super) const fn message_not_found() -> Refusal {
        Refusal::new(ErrorCode::NotFound, "no such message in this thread")
    }

    pub(super) const fn id_taken() -> Refusal {
        Refusal::new(ErrorCode::Conflict, "the id belongs to another action")
    }

    pub(super) const fn desync() -> Refusal {
        Refusal::new(
            ErrorCode::StateDesync,
            "what the action's author had seen isn't in this log",
        )
    }

    pub(super) const fn conflict(message: &'static str) -> Refusal {
        Refusal::new(ErrorCode::Conflict, message)
    }

    pub(super) const fn denied(message: &'static str) -> Refusal {
        Refusal::new(ErrorCode::PermissionDenied, message)
    }

    pub(super) const fn invalid(message: &'static str) -> Refusal {
        Refusal::new(ErrorCode::InvalidMessage, message)
    }

    pub(super) const fn too_large(message: &'static str) -> Refusal {
        Refusal::new(ErrorCode::ContentTooLarge, message)
    }

    pub(super) const fn limit(message: &'static str) -> Refusal {
        Refusal::new(ErrorCode::Limit, message)
    }
}

/// An action with all that it is decided by but the thread's state. Each method is one line of section 5's last paragraph: first what the sender may not see,
/// then what they may not do, then what can't be done.
struct Desk<'a> {
    action: &'a SignedAction,
    context: &'a Context<'a>,
    lookups: &'a Lookups,
}

impl Desk<'_> {
    fn create(&self, create: &CreateThread) -> Result<Append, Refusal> {
        self.check_sizes(Some(&create.title), None, None)?;
        if !self.context.audiences.contains(&create.audience) {
            return Err(refuse::invalid("the thread's audience isn't one of this server's"));
        }
        let author = self.context.author;
        let members = create.members.as_deref().unwrap_or_default();
        if members.iter().any(|member| member.user_id == *author) {
            return Err(refuse::invalid("members doesn't list the creator"));
        }
        if members.len() >= self.context.limits.members {
            return Err(refuse::limit("a thread has no room for so many members"));
        }
        self.check_agent(author, create.agent)?;
        for member in members {
            self.check_agent(&member.user_id, member.agent)?;
        }
        let draft = Draft::new(self.action.thread_id, self.context.now);
        self.append(draft, Kind::ThreadCreated, &create.audience, None, None)
    }

    fn act(&self, thread: &Thread) -> Result<Append, Refusal> {
        match &self.action.action {
            // Decided above: the thread exists.
            Action::CreateThread(_) => Err(refuse::conflict("the thread id is taken")),
            Action::SubmitMessage(submit) => self.submit(thread, submit),
            Action::ReviseSpec(revise) => self.revise(thread, revise),
            Action::WithdrawSpec(withdraw) => self.withdraw(thread, withdraw.spec),
            Action::ProcessApproval(approval) => self.approve(thread, approval),
            Action::EditMessage(edit) => self.edit(thread, edit),
            Action::RedactMessage(redact) => self.redact(thread, redact.message),
            Action::UpdateThread(update) => self.update(thread, update),
            Action::AddMember(member) => self.add_member(thread, member),
            Action::RemoveMember(member) => self.remove_member(thread, member),
            Action::Join(join) => self.join(thread, *join),
        }
    }

    /// Co-authors publish; who may propose submits a spec.
    fn submit(&self, thread: &Thread, submit: &SubmitMessage) -> Result<Append, Refusal> {
        let author = self.context.author;
        self.check_parent(submit.parent)?;
        if thread.is_co_author(author) {
            self.check_sizes(None, submit.content_type.as_deref(), None)?;
            return self.append_on(thread, Kind::MessagePosted, None, None);
        }
        let may_propose = match thread.settings().propose {
            Propose::Members => thread.member(author).is_some(),
            // Everyone who reads, and only they come this far.
            Propose::Everyone => true,
            Propose::Nobody => false,
        };
        if !may_propose {
            return Err(refuse::denied("you may not submit specs in this thread"));
        }
        self.check_sizes(None, submit.content_type.as_deref(), None)?;
        let limits = self.context.limits;
        if thread.open_specs().len() >= limits.open_specs_per_thread {
            return Err(refuse::limit("too many specs are open in this thread"));
        }
        if thread.open_specs().filter(|spec| spec.author == *author).count() >= limits.open_specs_per_author {
            return Err(refuse::limit("too many of your specs are open in this thread"));
        }
        self.append_on(thread, Kind::SpecSubmitted, None, Some(author))
    }

    fn revise(&self, thread: &Thread, revise: &ReviseSpec) -> Result<Append, Refusal> {
        let (spec_author, open) = self.visible_spec(thread, revise.spec)?;
        self.check_parent(revise.parent)?;
        if spec_author != self.context.author {
            return Err(refuse::denied("only a spec's author revises it"));
        }
        open.ok_or(refuse::conflict("the spec is closed"))?;
        self.check_sizes(None, revise.content_type.as_deref(), None)?;
        self.append_on(thread, Kind::SpecRevised, Some(revise.spec), Some(spec_author))
    }

    fn withdraw(&self, thread: &Thread, spec: Id) -> Result<Append, Refusal> {
        let (spec_author, open) = self.visible_spec(thread, spec)?;
        if spec_author != self.context.author {
            return Err(refuse::denied("only a spec's author withdraws it"));
        }
        open.ok_or(refuse::conflict("the spec is closed"))?;
        self.check_sizes(None, None, None)?;
        self.append_on(thread, Kind::SpecWithdrawn, Some(spec), Some(spec_author))
    }

    /// Co-authors, joined or not: deciding joins them (S3). Agents only where the policy lets them (S4).
    fn approve(&self, thread: &Thread, approval: &ProcessApproval) -> Result<Append, Refusal> {
        let (spec_author, open) = self.visible_spec(thread, approval.spec)?;
        match thread.member(self.context.author) {
            Some(member) if member.role.is_co_author() => {
                if member.agent && !thread.settings().policy.agents_decide {
                    return Err(refuse::denied("agents don't decide in this thread"));
                }
            }
            _ => return Err(refuse::denied("only co-authors decide")),
        }
        let open = open.ok_or(refuse::conflict("the spec is closed"))?;
        if open.revision.content_hash != approval.content_hash {
            return Err(refuse::conflict(
                "the decision is about another revision than the current one",
            ));
        }
        self.check_sizes(None, None, approval.reason.as_deref())?;
        self.append_on(thread, Kind::ApprovalGiven, Some(approval.spec), Some(spec_author))
    }

    fn edit(&self, thread: &Thread, edit: &EditMessage) -> Result<Append, Refusal> {
        let message = self.lookups.message(edit.message).ok_or(refuse::message_not_found())?;
        if message.author != *self.context.author || !thread.is_co_author(self.context.author) {
            return Err(refuse::denied("only its author edits a message, while a co-author"));
        }
        self.check_not_redacted(edit.message)?;
        self.check_sizes(None, edit.content_type.as_deref(), None)?;
        self.append_on(thread, Kind::MessageEdited, Some(edit.message), None)
    }

    fn redact(&self, thread: &Thread, message: Id) -> Result<Append, Refusal> {
        let author = &self.lookups.message(message).ok_or(refuse::message_not_found())?.author;
        if author != self.context.author && thread.role(self.context.author) != Some(Role::Owner) {
            return Err(refuse::denied("only its author or an owner redacts a message"));
        }
        self.check_not_redacted(message)?;
        self.check_sizes(None, None, None)?;
        let mut append = self.append_on(thread, Kind::MessageRedacted, Some(message), None)?;
        // L6: the message, what led to it, and its edits.
        let redaction = append.expected.seq.next();
        append.facts.erase = self
            .lookups
            .of(message)
            .iter()
            .filter(|found| {
                matches!(
                    found.kind,
                    Kind::MessagePosted | Kind::SpecSubmitted | Kind::SpecRevised | Kind::MessageEdited
                )
            })
            .map(|found| (found.seq, redaction))
            .collect();
        Ok(append)
    }

    fn update(&self, thread: &Thread, update: &UpdateThread) -> Result<Append, Refusal> {
        self.check_owner(thread)?;
        self.check_sizes(update.title.as_deref(), None, None)?;
        self.append_on(thread, Kind::ThreadUpdated, None, None)
    }

    fn add_member(&self, thread: &Thread, new: &NewMember) -> Result<Append, Refusal> {
        self.check_owner(thread)?;
        self.check_sizes(None, None, None)?;
        if let Some(member) = thread.member(&new.user_id) {
            let agent = new.agent.unwrap_or(member.agent);
            if member.role == new.role && member.agent == agent {
                return Err(refuse::conflict("nothing changes: the member has this role and flag"));
            }
            self.check_agent(&new.user_id, Some(agent))?;
        } else {
            self.check_agent(&new.user_id, new.agent)?;
            if thread.left_lately(&new.user_id, thread.time(self.context.now)) {
                return Err(refuse::conflict(
                    "who left by themselves can be added again after 30 days, or joins again themselves",
                ));
            }
            self.check_room(thread)?;
        }
        self.with_an_owner(self.append_on(thread, Kind::MemberAdded, None, None)?)
    }

    /// Owners, and everyone themselves.
    fn remove_member(&self, thread: &Thread, remove: &RemoveMember) -> Result<Append, Refusal> {
        if remove.user_id != *self.context.author {
            self.check_owner(thread)?;
        }
        self.check_sizes(None, None, None)?;
        if thread.member(&remove.user_id).is_none() {
            return Err(Refusal::new(ErrorCode::NotFound, "no such member"));
        }
        self.with_an_owner(self.append_on(thread, Kind::MemberRemoved, None, None)?)
    }

    /// An invited member, or anyone in a public thread. Nobody else can read it.
    fn join(&self, thread: &Thread, join: Join) -> Result<Append, Refusal> {
        let author = self.context.author;
        self.check_sizes(None, None, None)?;
        match thread.member(author) {
            Some(member) if member.joined => {
                return Err(refuse::conflict("you have joined already"));
            }
            Some(member) => self.check_agent(author, Some(member.agent || join.agent.unwrap_or_default()))?,
            None => {
                self.check_agent(author, join.agent)?;
                self.check_room(thread)?;
            }
        }
        self.append_on(thread, Kind::MemberJoined, None, None)
    }

    fn check_owner(&self, thread: &Thread) -> Result<(), Refusal> {
        match thread.role(self.context.author) {
            Some(Role::Owner) => Ok(()),
            _ => Err(refuse::denied("only owners change settings and members")),
        }
    }

    /// S4: users of an issuer of agents are members with the flag, or not at all.
    fn check_agent(&self, user: &UserId, agent: Option<bool>) -> Result<(), Refusal> {
        if agent != Some(true) && self.context.is_agent_by_issuer(user) {
            return Err(refuse::conflict(
                "users of this issuer are agents, and members only as such",
            ));
        }
        Ok(())
    }

    fn check_room(&self, thread: &Thread) -> Result<(), Refusal> {
        if thread.members().len() >= self.context.limits.members {
            return Err(refuse::limit("the thread has no room for another member"));
        }
        Ok(())
    }

    /// L2: a parent is a message of the thread.
    fn check_parent(&self, parent: Option<Id>) -> Result<(), Refusal> {
        match parent {
            Some(parent) if self.lookups.message(parent).is_none() => Err(refuse::message_not_found()),
            _ => Ok(()),
        }
    }

    fn check_not_redacted(&self, message: Id) -> Result<(), Refusal> {
        if self
            .lookups
            .of(message)
            .iter()
            .any(|found| found.kind == Kind::MessageRedacted)
        {
            return Err(refuse::conflict("the message is redacted"));
        }
        Ok(())
    }

    /// The spec's author, and the spec where it is open. What the sender may not see isn't there.
    fn visible_spec<'t>(&'t self, thread: &'t Thread, spec: Id) -> Result<(&'t UserId, Option<&'t Spec>), Refusal> {
        let open = thread.spec(spec);
        let author = match open {
            Some(open) => &open.author,
            None => {
                &self
                    .lookups
                    .bearing(spec, &Kind::SpecSubmitted)
                    .ok_or(refuse::spec_not_found())?
                    .author
            }
        };
        match view(thread, self.context.author) {
            Some(view) if view.sees(Stream::Specs, Some(author)) => Ok((author, open)),
            _ => Err(refuse::spec_not_found()),
        }
    }

    /// Section 12's sizes.
    fn check_sizes(
        &self,
        title: Option<&str>,
        content_type: Option<&str>,
        reason: Option<&str>,
    ) -> Result<(), Refusal> {
        let limits = self.context.limits;
        let over = |text: Option<&str>, most: usize| text.is_some_and(|text| text.len() > most);
        if self.action.payload.as_str().len() > limits.max_content_bytes {
            return Err(refuse::too_large("the payload is too large"));
        }
        if over(title, limits.title_bytes) {
            return Err(refuse::too_large("the title is too long"));
        }
        if over(content_type, limits.content_type_bytes) {
            return Err(refuse::too_large("the content_type is too long"));
        }
        if over(reason, limits.reason_bytes) {
            return Err(refuse::too_large("the reason is too long"));
        }
        Ok(())
    }

    /// S2, by what would be: an owner who joins by this very entry counts.
    fn with_an_owner(&self, append: Append) -> Result<Append, Refusal> {
        if append.next.joined_owners() == 0 {
            return Err(refuse::conflict("the last owner who has joined stays one"));
        }
        Ok(append)
    }

    fn append_on(
        &self,
        thread: &Thread,
        kind: Kind,
        about: Option<Id>,
        spec_author: Option<&UserId>,
    ) -> Result<Append, Refusal> {
        self.append(
            Draft::on(thread, self.context.now),
            kind,
            &thread.settings().audience,
            about,
            spec_author,
        )
    }

    /// The action's own entry and all that follows from it (S9).
    fn append(
        &self,
        mut draft: Draft,
        kind: Kind,
        thread_audience: &Audience,
        about: Option<Id>,
        spec_author: Option<&UserId>,
    ) -> Result<Append, Refusal> {
        let Context {
            author, key, audience, ..
        } = *self.context;
        let proof = Proof {
            sent_at: self.action.timestamp,
            seen: self.action.seen,
            // L5: what the reader knows anyway is left out.
            key: (author.key() != Some(*key)).then_some(*key),
            sig: self.action.sig,
            audience: (audience != thread_audience).then(|| audience.clone()),
            id: None,
            action_type: None,
        };
        let evaluates = draft.push(New {
            id: self.action.id,
            kind,
            author: author.clone(),
            content_hash: self.action.payload_hash,
            body: Body::Present(self.action.payload.clone()),
            proof: Some(proof),
            about,
            spec_author: spec_author.cloned(),
        })?;
        if evaluates {
            draft.evaluate(self.context)?;
        }
        Ok(draft.finish()?)
    }
}

/// An entry before it has its place.
struct New {
    id: Id,
    kind: Kind,
    author: UserId,
    content_hash: Hash,
    body: Body,
    proof: Option<Proof>,
    about: Option<Id>,
    spec_author: Option<UserId>,
}

/// An append in the making: the state runs along, so that each entry is decided on those before it.
struct Draft {
    thread_id: ThreadId,
    now: Timestamp,
    expected: Cursor,
    thread: Option<Thread>,
    records: Vec<Record>,
    touched: Vec<UserId>,
}

impl Draft {
    fn new(thread_id: ThreadId, now: Timestamp) -> Self {
        Self {
            thread_id,
            now,
            expected: Cursor::START,
            thread: None,
            records: Vec::new(),
            touched: Vec::new(),
        }
    }

    fn on(thread: &Thread, now: Timestamp) -> Self {
        Self {
            expected: thread.head(),
            thread: Some(thread.clone()),
            ..Self::new(thread.thread_id, now)
        }
    }

    /// Gives the entry its place, and folds it; whether the open specs are evaluated after it (S7).
    fn push(&mut self, new: New) -> Result<bool, ApplyError> {
        let (seq, timestamp, messages) = match &self.thread {
            Some(thread) => (thread.head().seq.next(), thread.time(self.now), thread.messages),
            None => (Seq::ZERO.next(), self.now, 0),
        };
        let mut record = Record {
            seq,
            id: new.id,
            messages: messages + u64::from(new.kind == Kind::MessagePosted),
            kind: new.kind,
            author: new.author,
            timestamp,
            content_hash: new.content_hash,
            proof: new.proof,
            body: new.body,
            root: Hash::EMPTY,
            nodes: Vec::new(),
            about: new.about,
            spec_author: new.spec_author,
        };
        let mut peaks = self
            .thread
            .as_ref()
            .map_or_else(Peaks::new, |thread| thread.peaks.clone());
        record.nodes = peaks.push(record.leaf(self.thread_id));
        record.root = peaks.root();
        let (next, Effects { members, evaluates }) = fold(self.thread_id, self.thread.as_ref(), &record, peaks)?;
        self.thread = Some(next);
        self.touched.extend(members);
        self.records.push(record);
        Ok(evaluates)
    }

    /// S7: the open specs in the order of their submission, each with the effects of those before, in one pass.
    fn evaluate(&mut self, context: &Context<'_>) -> Result<(), ApplyError> {
        let open = self
            .thread
            .as_ref()
            .map(|thread| thread.specs.clone())
            .unwrap_or_default();
        for spec in open.iter() {
            let Some(thread) = &self.thread else { continue };
            // Counted from the decisions, which are few, and not for each member anew.
            let counting = spec.decisions.iter().filter(|given| thread.is_deciding(&given.user_id));
            let outcome = evaluate(
                &thread.settings.policy,
                thread.may_read(&spec.author),
                thread.deciding().count(),
                counting.map(|given| given.decision),
            );
            if let Some(outcome) = outcome {
                self.resolve(spec, outcome)?;
                if outcome == Outcome::Approved {
                    self.publish(spec)?;
                    self.admit(spec, context)?;
                }
            }
        }
        Ok(())
    }

    fn resolve(&mut self, spec: &Spec, outcome: Outcome) -> Result<(), ApplyError> {
        let body = object! { "spec": alloc::format!("{}", spec.id), "outcome": outcome.as_str() };
        self.push(New {
            spec_author: Some(spec.author.clone()),
            ..New::derived(spec.id, Kind::SpecResolved, &body)
        })?;
        Ok(())
    }

    /// S9: id and author are the spec's, body and proof the last revision's.
    fn publish(&mut self, spec: &Spec) -> Result<(), ApplyError> {
        let revision = &spec.revision;
        let revised = revision.action != spec.id;
        let proof = revision.proof.clone().map(|proof| Proof {
            id: revised.then_some(revision.action),
            action_type: revised.then(|| String::from("action.revise_spec")),
            ..proof
        });
        self.push(New {
            id: spec.id,
            kind: Kind::MessagePosted,
            author: spec.author.clone(),
            content_hash: revision.content_hash,
            body: revision.body.clone(),
            proof,
            about: None,
            spec_author: None,
        })?;
        Ok(())
    }

    /// S9: where `admit_authors`, the author becomes a co-author, unless they are one or software. A thread that is full admits nobody new.
    fn admit(&mut self, spec: &Spec, context: &Context<'_>) -> Result<(), ApplyError> {
        let Some(thread) = &self.thread else {
            return Ok(());
        };
        let member = thread.member(&spec.author);
        let agent = member.is_some_and(|member| member.agent) || context.is_agent_by_issuer(&spec.author);
        let has_room = member.is_some() || thread.members().len() < context.limits.members;
        if thread.settings.policy.admit_authors && !thread.is_co_author(&spec.author) && !agent && has_room {
            let body = object! { "user_id": spec.author.as_str(), "role": Role::CoAuthor.as_str() };
            self.push(New::derived(spec.id, Kind::MemberAdded, &body))?;
        }
        Ok(())
    }

    fn finish(self) -> Result<Append, ApplyError> {
        // Without a record there is no thread, and nobody finishes a draft without a record.
        let next = self.thread.ok_or(ApplyError::Impossible(Seq::ZERO))?;
        let mut touched = self.touched;
        touched.sort_unstable();
        touched.dedup();
        let members = touched
            .into_iter()
            .map(|user| {
                let fact = next.member_fact(&user);
                (user, fact)
            })
            .collect();
        let facts = Facts {
            erase: Vec::new(),
            members,
            summary: next.summary(),
        };
        Ok(Append {
            expected: self.expected,
            records: self.records,
            facts,
            next,
        })
    }
}

impl New {
    /// An entry that the server derives: by `choir`, without a proof.
    fn derived(id: Id, kind: Kind, body: &Object) -> Self {
        let body = Canonical::of_object(body);
        Self {
            id,
            kind,
            author: UserId::choir(),
            content_hash: body.hash(),
            body: Body::Present(body),
            proof: None,
            about: None,
            spec_author: None,
        }
    }
}
