//! The folded state of one thread's log: what is needed to decide the next action, and nothing that grows with the log.

mod members;
mod saved;

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use choir_protocol::entry::{Body, Proof};
use choir_protocol::hash::Hash;
use choir_protocol::ids::{Cursor, Id, Seq, ThreadId, Timestamp, UserId};
use choir_protocol::json::{self, Value};
use choir_protocol::merkle::Peaks;
use choir_protocol::thread::{Decision, DecisionRow, Member, OpenSpec, Role, Settings, Visibility};

use crate::evaluate::is_deciding;
use crate::record::{MemberFact, Summary};

pub(crate) use members::{Members, Row};
pub use saved::SavedError;

/// How long who left by themselves can't be added again (S3): 30 days.
pub const LEFT_MS: u64 = 30 * 24 * 60 * 60 * 1000;

/// Of how many who left by themselves a thread remembers when (S3). In a public thread anybody can join and leave, so there has to be a bound; the newest count.
pub const LEFT_KEPT: usize = 1_000;

/// A thread: the folded state of its log. Its size is bounded by members and open specs, never by entries. A clone shares everything and costs next to nothing;
/// what changes is copied then.
#[derive(Debug, Clone, PartialEq)]
pub struct Thread {
    pub(crate) thread_id: ThreadId,
    pub(crate) settings: Arc<Settings>,
    pub(crate) members: Arc<Members>,
    /// Who left by themselves, and when; oldest first, at most [`LEFT_KEPT`].
    pub(crate) left: Arc<Vec<(UserId, Timestamp)>>,
    /// In the order of submission.
    pub(crate) specs: Arc<Vec<Arc<Spec>>>,
    pub(crate) peaks: Peaks,
    /// The root of `peaks`.
    pub(crate) root: Hash,
    pub(crate) messages: u64,
    pub(crate) last_activity: Timestamp,
    /// The last entry that widened the view of those who aren't members (Y8).
    pub(crate) widened: Seq,
    /// The spec that the last entry resolved as approved: its message is the next entry, and no action of its author's (S3, S9).
    pub(crate) publishing: Option<Id>,
}

/// A spec that is open (S6).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// Its name.
    pub id: Id,
    /// Who submitted it.
    pub author: UserId,
    /// When.
    pub submitted_at: Timestamp,
    /// When it ends undecided: fixed at submission (S8).
    pub expires_at: Timestamp,
    /// What it says now.
    pub revision: Revision,
    /// The last decision of each who decided on this revision, in the order of the log. Those of who is no deciding co-author at the moment are kept: they count
    /// again when their giver is one again (S6).
    pub decisions: Vec<Given>,
}

/// What a spec says: its submission, or the last `spec_revised`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revision {
    /// The number of its entry.
    pub seq: Seq,
    /// The id of the action that brought it: the spec's own until it is revised.
    pub action: Id,
    /// What decisions are bound to (S6).
    pub content_hash: Hash,
    /// The payload. Erased only while a log is replayed in which the message that came of it was redacted (L6).
    pub body: Body,
    /// The author's signature, which goes on to the message (S9).
    pub proof: Option<Proof>,
}

/// One co-author's last decision on a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// Who decided.
    pub user_id: UserId,
    /// What.
    pub decision: Decision,
    /// Why.
    pub reason: Option<String>,
    /// The number of its `approval_given`.
    pub seq: Seq,
}

impl Thread {
    /// Its name.
    pub fn thread_id(&self) -> ThreadId {
        self.thread_id
    }

    /// The end of the log that this state is folded from.
    pub fn head(&self) -> Cursor {
        Cursor {
            seq: Seq::saturating(self.peaks.size()),
            root: self.root,
        }
    }

    /// `peaks` at the head (L8).
    pub fn peaks(&self) -> &Peaks {
        &self.peaks
    }

    /// Title, audience, who reads, reviews and proposes, and the policy.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The members in the order of being added (Y1).
    pub fn members(&self) -> impl ExactSizeIterator<Item = &Member> {
        self.members.rows().iter().map(|row| &row.member)
    }

    /// One member.
    pub fn member(&self, user: &UserId) -> Option<&Member> {
        self.members.get(user).map(|row| &row.member)
    }

    /// The role of a member.
    pub fn role(&self, user: &UserId) -> Option<Role> {
        self.member(user).map(|member| member.role)
    }

    /// Whether the user is a co-author, which includes owners (S2).
    pub fn is_co_author(&self, user: &UserId) -> bool {
        self.role(user).is_some_and(Role::is_co_author)
    }

    /// Whether the user may read the thread (S1, S3).
    pub fn may_read(&self, user: &UserId) -> bool {
        self.settings.visibility == Visibility::Public || self.members.get(user).is_some()
    }

    /// Whether the user's decisions count (S3, S4).
    pub fn is_deciding(&self, user: &UserId) -> bool {
        self.member(user)
            .is_some_and(|member| is_deciding(member, &self.settings.policy))
    }

    /// The co-authors whose decisions count, in the order of being added (S7).
    pub fn deciding(&self) -> impl Iterator<Item = &UserId> {
        self.members()
            .filter(|member| is_deciding(member, &self.settings.policy))
            .map(|member| &member.user_id)
    }

    /// The open specs in the order of submission.
    pub fn open_specs(&self) -> impl ExactSizeIterator<Item = &Spec> {
        self.specs.iter().map(|spec| &**spec)
    }

    /// One open spec.
    pub fn spec(&self, spec: Id) -> Option<&Spec> {
        self.open_specs().find(|open| open.id == spec)
    }

    /// The specs that await this user's decision (Y1, V2): none where it wouldn't count.
    pub fn awaiting<'a>(&'a self, user: &'a UserId) -> impl Iterator<Item = &'a Spec> {
        let deciding = self.is_deciding(user);
        self.open_specs()
            .filter(move |spec| deciding && spec.decision_of(user).is_none())
    }

    /// How many messages the thread holds (Y1).
    pub fn messages(&self) -> u64 {
        self.messages
    }

    /// The time of the last entry.
    pub fn last_activity(&self) -> Timestamp {
        self.last_activity
    }

    /// When the next spec expires (S8).
    pub fn next_due(&self) -> Option<Timestamp> {
        self.open_specs().map(|spec| spec.expires_at).min()
    }

    /// Whether a spec has to be expired before anything else is decided (S8).
    pub fn is_due(&self, now: Timestamp) -> bool {
        let now = self.time(now);
        self.next_due().is_some_and(|due| due <= now)
    }

    /// The time that an entry appended now bears: never before the previous entry's (section 6).
    pub(crate) fn time(&self, now: Timestamp) -> Timestamp {
        now.max(self.last_activity)
    }

    /// The thread's line in lists (Y1).
    pub fn summary(&self) -> Summary {
        Summary {
            title: self.settings.title.clone(),
            visibility: self.settings.visibility,
            messages: self.messages,
            last_activity: self.last_activity,
            due: self.next_due(),
            awaiting: self.awaiting_counts(),
        }
    }

    fn awaiting_counts(&self) -> Vec<(UserId, u32)> {
        if self.specs.is_empty() {
            return Vec::new();
        }
        // Counted the other way round, so that it costs members plus decisions, not members times specs.
        let mut decided: BTreeMap<&UserId, usize> = BTreeMap::new();
        for given in self.open_specs().flat_map(|spec| &spec.decisions) {
            *decided.entry(&given.user_id).or_default() += 1;
        }
        self.deciding()
            .filter_map(|user| {
                let open = self
                    .specs
                    .len()
                    .saturating_sub(decided.get(user).copied().unwrap_or_default());
                (open > 0).then(|| (user.clone(), u32::try_from(open).unwrap_or(u32::MAX)))
            })
            .collect()
    }

    /// A user's membership as lists of threads need it; none for who is no member.
    pub fn member_fact(&self, user: &UserId) -> Option<MemberFact> {
        self.member(user).map(|member| MemberFact {
            role: member.role,
            joined: member.joined,
        })
    }

    /// How many owners have joined: never none (S2).
    pub(crate) fn joined_owners(&self) -> usize {
        self.members()
            .filter(|member| member.role == Role::Owner && member.joined)
            .count()
    }

    /// Whether this user left by themselves less than 30 days before `now` (S3).
    pub(crate) fn left_lately(&self, user: &UserId, now: Timestamp) -> bool {
        self.left
            .iter()
            .any(|(gone, at)| gone == user && now.since(*at) < LEFT_MS)
    }
}

impl Spec {
    /// This user's decision on the current revision, whether or not it counts at the moment.
    pub fn decision_of(&self, user: &UserId) -> Option<Decision> {
        self.decisions
            .iter()
            .find(|given| given.user_id == *user)
            .map(|given| given.decision)
    }

    /// The spec's row in snapshots and `control.specs` (Y5), with the decisions for who sees them. A body that was erased is `null`, which no open spec's is.
    pub fn to_open_spec(&self, with_decisions: bool) -> OpenSpec {
        let decisions = if with_decisions { self.decisions.as_slice() } else { &[] };
        OpenSpec {
            spec: self.id,
            author: self.author.clone(),
            seq: self.revision.seq,
            content_hash: self.revision.content_hash,
            body: self
                .revision
                .body
                .text()
                .and_then(|text| json::parse(text).ok())
                .unwrap_or(Value::Null),
            submitted_at: self.submitted_at,
            expires_at: self.expires_at,
            decisions: decisions.iter().map(Given::to_row).collect(),
        }
    }
}

impl Given {
    fn to_row(&self) -> DecisionRow {
        DecisionRow {
            user_id: self.user_id.clone(),
            decision: self.decision,
            reason: self.reason.clone(),
            seq: self.seq,
        }
    }
}
