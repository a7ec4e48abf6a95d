//! Whether how specs ended follows from what was decided (S6 to S9): recomputed from the entries of a thread, from entry 1 on.
//!
//! Hashes, signatures and redactions are the replica's affair. Here an entry is taken as said, and asked whether it had to be said. What the viewer may not
//! see can't be recomputed; it is counted, not held against anybody.

use std::collections::BTreeMap;

use choir_core::evaluate::{evaluate, is_deciding};
use choir_protocol::action::{
    CreateThread, Join, NewMember, ProcessApproval, RedactMessage, RemoveMember, ReviseSpec, UpdateThread, WithdrawSpec,
};
use choir_protocol::entry::{Body, Entry, Kind};
use choir_protocol::hash::Hash;
use choir_protocol::ids::{Id, Seq, Timestamp, UserId};
use choir_protocol::thread::{Decision, Member, Outcome, Policy, Role, Stream, Visibility};

use crate::show::{Resolved, read};

/// Something that doesn't follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    /// The entry.
    pub(crate) seq: Seq,
    /// What is wrong with it.
    pub(crate) why: String,
}

/// What was counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Counts {
    /// Specs that ended, and had to.
    pub(crate) outcomes: u64,
    /// Messages that came of approved specs, as they were approved.
    pub(crate) published: u64,
    /// Messages that a co-author published.
    pub(crate) posted: u64,
    /// Decisions, each of a co-author on the revision that stood.
    pub(crate) decisions: u64,
    /// What can't be recomputed, since its grounds aren't visible.
    pub(crate) unseen: u64,
}

/// The recomputation.
#[derive(Debug, Default)]
pub(crate) struct Audit {
    visibility: Visibility,
    policy: Policy,
    members: Vec<Member>,
    /// Open, in the order of submission.
    specs: Vec<Spec>,
    /// The evaluation that the last action began: how many of the open specs it has passed. None where nothing is to be evaluated.
    pass: Option<Pass>,
    /// The spec whose message must come next.
    publishing: Option<Spec>,
    /// Whom S9 must admit next, and whether it may be left out: an issuer of agents is known to the server only.
    admitting: Option<(UserId, bool)>,
    /// What redactions erased, by their number.
    redactions: BTreeMap<Seq, Id>,
    /// Whether specs or decisions are hidden.
    blind: bool,
    counts: Counts,
    findings: Vec<Finding>,
}

#[derive(Debug, Clone)]
struct Spec {
    id: Id,
    author: UserId,
    expires_at: Timestamp,
    content_hash: Option<Hash>,
    decisions: BTreeMap<UserId, Decision>,
}

#[derive(Debug, Clone, Copy)]
struct Pass {
    caused_by: Seq,
    /// The open specs before this place have been evaluated.
    next: usize,
}

impl Audit {
    /// Recomputes a thread from all its visible entries, in order. `hidden` are the streams of those that aren't.
    pub(crate) fn run(entries: &[Entry], hidden: impl IntoIterator<Item = Stream>) -> Self {
        let mut audit = Self {
            blind: hidden.into_iter().any(|stream| stream != Stream::Updates),
            ..Self::default()
        };
        for entry in entries {
            if let (Kind::MessageRedacted, Some(RedactMessage { message })) = (&entry.kind, read(entry)) {
                audit.redactions.insert(entry.seq, message);
            }
        }
        for entry in entries {
            audit.entry(entry);
        }
        let end = entries.last().map_or(Seq::ZERO, |entry| entry.seq.next());
        audit.finish_append(end);
        audit
    }

    /// What was counted.
    pub(crate) const fn counts(&self) -> Counts {
        self.counts
    }

    /// What doesn't follow.
    pub(crate) fn findings(&self) -> &[Finding] {
        &self.findings
    }

    // ---------------------------------------------------------------------------------------------------------------------------------------- the walk

    fn entry(&mut self, entry: &Entry) {
        let derived = entry.author.is_choir() || self.publishes(entry);
        if derived {
            self.derived(entry);
            return;
        }
        self.finish_append(entry.seq);
        self.overdue(entry);
        let changed = self.action(entry);
        let joined = self.join_by_acting(entry);
        if changed || joined {
            self.pass = Some(Pass {
                caused_by: entry.seq,
                next: 0,
            });
        }
    }

    /// S9: a message that bears the id of the spec that was just approved. Its author is the spec's, although the server wrote it.
    fn publishes(&self, entry: &Entry) -> bool {
        entry.kind == Kind::MessagePosted && self.publishing.as_ref().is_some_and(|spec| spec.id == entry.id)
    }

    fn derived(&mut self, entry: &Entry) {
        match &entry.kind {
            Kind::SpecResolved => self.resolved(entry),
            Kind::MessagePosted => self.published(entry),
            Kind::MemberAdded => self.admitted(entry),
            _ => self.wrong(entry.seq, "nothing of this kind is the server's to write"),
        }
    }

    /// What an action says. Whether that starts an evaluation (S7).
    fn action(&mut self, entry: &Entry) -> bool {
        match &entry.kind {
            Kind::ThreadCreated => self.created(entry),
            Kind::ThreadUpdated => return self.updated(entry),
            Kind::MemberAdded => self.member_added(entry),
            Kind::MemberJoined => self.member_joined(entry),
            Kind::MemberRemoved => self.member_removed(entry),
            Kind::SpecSubmitted => self.submitted(entry),
            Kind::SpecRevised => self.revised(entry),
            Kind::SpecWithdrawn => self.withdrawn(entry),
            Kind::ApprovalGiven => self.decided(entry),
            Kind::MessagePosted => {
                if self.is_co_author(&entry.author) {
                    self.counts.posted += 1;
                } else {
                    self.doubtful(
                        entry.seq,
                        "its author was no co-author, and no spec of theirs was approved",
                    );
                }
            }
            Kind::SpecResolved | Kind::MessageEdited | Kind::MessageRedacted | Kind::Other(_) => {}
        }
        matches!(
            entry.kind,
            Kind::MemberAdded | Kind::MemberJoined | Kind::MemberRemoved | Kind::ApprovalGiven
        )
    }

    // ------------------------------------------------------------------------------------------------------------------------------- threads, members

    fn created(&mut self, entry: &Entry) {
        let Some(body) = read::<CreateThread>(entry) else {
            return self.unreadable(entry);
        };
        self.visibility = body.visibility.unwrap_or_default();
        self.policy = body.policy.unwrap_or_default();
        self.members.push(Member {
            user_id: entry.author.clone(),
            role: Role::Owner,
            agent: body.agent.unwrap_or_default(),
            joined: true,
        });
        for member in body.members.unwrap_or_default() {
            self.members.push(Member {
                user_id: member.user_id,
                role: member.role,
                agent: member.agent.unwrap_or_default(),
                joined: false,
            });
        }
    }

    fn updated(&mut self, entry: &Entry) -> bool {
        let Some(body) = read::<UpdateThread>(entry) else {
            self.unreadable(entry);
            return false;
        };
        let before = (self.visibility, self.policy);
        self.visibility = body.visibility.unwrap_or(self.visibility);
        self.policy = body.policy.unwrap_or(self.policy);
        before != (self.visibility, self.policy)
    }

    fn member_added(&mut self, entry: &Entry) {
        let Some(NewMember { user_id, role, agent }) = read(entry) else {
            return self.unreadable(entry);
        };
        if !self.is_owner(&entry.author) {
            self.wrong(entry.seq, "its author was no owner");
        }
        match self.members.iter_mut().find(|member| member.user_id == user_id) {
            Some(member) => {
                member.role = role;
                member.agent = agent.unwrap_or(member.agent);
            }
            None => self.members.push(Member {
                user_id,
                role,
                agent: agent.unwrap_or_default(),
                joined: false,
            }),
        }
    }

    fn member_joined(&mut self, entry: &Entry) {
        let agent = read::<Join>(entry).and_then(|body| body.agent).unwrap_or_default();
        match self.members.iter_mut().find(|member| member.user_id == entry.author) {
            Some(member) => {
                member.joined = true;
                member.agent |= agent;
            }
            None => {
                if self.visibility == Visibility::Private {
                    self.wrong(entry.seq, "its author wasn't invited to the private thread");
                }
                self.members.push(Member {
                    user_id: entry.author.clone(),
                    role: Role::Reader,
                    agent,
                    joined: true,
                });
            }
        }
    }

    fn member_removed(&mut self, entry: &Entry) {
        let Some(RemoveMember { user_id }) = read(entry) else {
            return self.unreadable(entry);
        };
        if user_id != entry.author && !self.is_owner(&entry.author) {
            self.wrong(entry.seq, "its author was no owner");
        }
        self.members.retain(|member| member.user_id != user_id);
    }

    /// S3: the first entry of an invited member makes them joined.
    fn join_by_acting(&mut self, entry: &Entry) -> bool {
        match self
            .members
            .iter_mut()
            .find(|member| member.user_id == entry.author && !member.joined)
        {
            Some(member) => {
                member.joined = true;
                true
            }
            None => false,
        }
    }

    // ------------------------------------------------------------------------------------------------------------------------------------------ specs

    fn submitted(&mut self, entry: &Entry) {
        self.specs.push(Spec {
            id: entry.id,
            author: entry.author.clone(),
            expires_at: entry.timestamp.plus_ms(self.policy.expires_ms),
            content_hash: entry.content_hash,
            decisions: BTreeMap::new(),
        });
    }

    fn revised(&mut self, entry: &Entry) {
        // An erased revision doesn't say what it revised; the redaction of the message that came of it does.
        let spec = match entry.body {
            Body::Present(_) => read::<ReviseSpec>(entry).map(|body| body.spec),
            Body::Erased(by) => self.redactions.get(&by).copied(),
        };
        match spec.and_then(|id| self.specs.iter_mut().find(|spec| spec.id == id)) {
            Some(spec) if spec.author == entry.author => {
                spec.content_hash = entry.content_hash;
                spec.decisions.clear();
            }
            Some(_) => self.wrong(entry.seq, "its author isn't the spec's"),
            None => self.doubtful(entry.seq, "the spec wasn't open"),
        }
    }

    fn withdrawn(&mut self, entry: &Entry) {
        let Some(WithdrawSpec { spec }) = read(entry) else {
            return self.unreadable(entry);
        };
        match self.specs.iter().position(|open| open.id == spec) {
            Some(place) => {
                if self.specs.remove(place).author != entry.author {
                    self.wrong(entry.seq, "its author isn't the spec's");
                }
            }
            None => self.doubtful(entry.seq, "the spec wasn't open"),
        }
    }

    fn decided(&mut self, entry: &Entry) {
        let Some(ProcessApproval {
            spec,
            content_hash,
            decision,
            ..
        }) = read(entry)
        else {
            return self.unreadable(entry);
        };
        if !self.is_co_author(&entry.author) {
            self.wrong(entry.seq, "who decided was no co-author");
        }
        match self.specs.iter_mut().find(|open| open.id == spec) {
            Some(open) if open.content_hash == Some(content_hash) => {
                open.decisions.insert(entry.author.clone(), decision);
                self.counts.decisions += 1;
            }
            Some(_) => self.wrong(entry.seq, "the decision is on another revision than the one that stood"),
            None => self.doubtful(entry.seq, "the spec wasn't open"),
        }
    }

    /// S8: nothing is decided while a spec is overdue.
    fn overdue(&mut self, entry: &Entry) {
        if let Some(place) = self.specs.iter().position(|spec| spec.expires_at <= entry.timestamp) {
            let spec = self.specs.remove(place);
            self.doubtful(
                entry.seq,
                format!(
                    "the spec {} had expired before it, which doesn't stand in the log",
                    spec.id
                ),
            );
        }
    }

    // ------------------------------------------------------------------------------------------------------------------------------ what must follow

    fn resolved(&mut self, entry: &Entry) {
        self.finish_message(entry.seq);
        let Some(Resolved { spec: id, outcome }) = read(entry) else {
            return self.unreadable(entry);
        };
        let Some(place) = self.specs.iter().position(|spec| spec.id == id) else {
            return self.doubtful(entry.seq, "the spec that it resolves wasn't open");
        };
        if outcome == Outcome::Expired {
            self.finish_append(entry.seq);
            let spec = self.specs.remove(place);
            if entry.timestamp < spec.expires_at {
                self.wrong(entry.seq, format!("the spec {id} hadn't expired yet"));
            } else {
                self.counts.outcomes += 1;
            }
            return;
        }
        let Some(Pass { caused_by, next }) = self.pass else {
            self.specs.remove(place);
            return self.doubtful(entry.seq, format!("nothing before it could end the spec {id}"));
        };
        // S7: in the order of submission, so that those before this one stay open.
        self.must_stay_open(next, place, entry.seq, caused_by);
        let due = self.specs.get(place).and_then(|spec| self.outcome(spec));
        if due == Some(outcome) {
            self.counts.outcomes += 1;
        } else {
            let due = due.map_or("open", Outcome::as_str);
            self.doubtful(
                entry.seq,
                format!(
                    "the spec {id} is said to be {}, but by the decisions and the policy it is {due}",
                    outcome.as_str()
                ),
            );
        }
        let spec = self.specs.remove(place);
        self.pass = Some(Pass { caused_by, next: place });
        if outcome == Outcome::Approved {
            self.publishing = Some(spec);
        }
    }

    fn published(&mut self, entry: &Entry) {
        let Some(spec) = self.publishing.take().filter(|spec| spec.id == entry.id) else {
            return self.doubtful(entry.seq, "no spec was approved that it could be the message of");
        };
        if entry.author != spec.author {
            self.wrong(entry.seq, "its author isn't the approved spec's");
        } else if spec.content_hash.is_some() && entry.content_hash != spec.content_hash {
            self.wrong(entry.seq, "it isn't what was approved");
        } else {
            self.counts.published += 1;
        }
        let member = self.members.iter().find(|member| member.user_id == spec.author);
        let excluded = member.is_some_and(|member| member.role.is_co_author() || member.agent);
        if self.policy.admit_authors && !excluded {
            let may_be_left_out = spec.author.key().is_none();
            self.admitting = Some((spec.author, may_be_left_out));
        }
    }

    fn admitted(&mut self, entry: &Entry) {
        let Some(NewMember { user_id, role, .. }) = read(entry) else {
            return self.unreadable(entry);
        };
        match self.admitting.take() {
            Some((due, _)) if due == user_id && role == Role::CoAuthor => {}
            _ => self.doubtful(entry.seq, "no policy admits this member"),
        }
        match self.members.iter_mut().find(|member| member.user_id == user_id) {
            Some(member) => {
                member.role = role;
                member.joined = true;
            }
            None => self.members.push(Member {
                user_id,
                role,
                agent: false,
                joined: true,
            }),
        }
    }

    /// Another entry comes where the message of an approved spec, or its author's admission, had to.
    fn finish_message(&mut self, seq: Seq) {
        if let Some(spec) = self.publishing.take() {
            self.wrong(
                seq,
                format!("the message of the approved spec {} had to stand here", spec.id),
            );
        }
        if let Some((user, false)) = self.admitting.take() {
            self.wrong(seq, format!("the admission of {user} had to stand here"));
        }
    }

    /// The append before `seq` is over: what is still open had to stay so.
    fn finish_append(&mut self, seq: Seq) {
        self.finish_message(seq);
        if let Some(Pass { caused_by, next }) = self.pass.take() {
            self.must_stay_open(next, self.specs.len(), seq, caused_by);
        }
    }

    fn must_stay_open(&mut self, from: usize, to: usize, seq: Seq, caused_by: Seq) {
        let open = self.specs.get(from..to).unwrap_or_default();
        let due: Vec<(Id, Outcome)> = open
            .iter()
            .filter_map(|spec| Some((spec.id, self.outcome(spec)?)))
            .collect();
        for (id, outcome) in due {
            self.doubtful(
                seq,
                format!(
                    "after entry {caused_by} the spec {id} was {}, which had to stand before this",
                    outcome.as_str()
                ),
            );
        }
    }

    fn outcome(&self, spec: &Spec) -> Option<Outcome> {
        let may_read =
            self.visibility == Visibility::Public || self.members.iter().any(|member| member.user_id == spec.author);
        let deciding: Vec<&Member> = self
            .members
            .iter()
            .filter(|member| is_deciding(member, &self.policy))
            .collect();
        let decisions = deciding
            .iter()
            .filter_map(|member| spec.decisions.get(&member.user_id).copied());
        evaluate(&self.policy, may_read, deciding.len(), decisions)
    }

    // ---------------------------------------------------------------------------------------------------------------------------------------- helpers

    fn is_co_author(&self, user: &UserId) -> bool {
        self.members
            .iter()
            .any(|member| member.user_id == *user && member.role.is_co_author())
    }

    fn is_owner(&self, user: &UserId) -> bool {
        self.members
            .iter()
            .any(|member| member.user_id == *user && member.role == Role::Owner)
    }

    fn wrong(&mut self, seq: Seq, why: impl Into<String>) {
        self.findings.push(Finding { seq, why: why.into() });
    }

    /// Something that would be wrong if everything were visible.
    fn doubtful(&mut self, seq: Seq, why: impl Into<String>) {
        if self.blind {
            self.counts.unseen += 1;
        } else {
            self.wrong(seq, why);
        }
    }

    fn unreadable(&mut self, entry: &Entry) {
        // What a redaction may erase says nothing that is read here; anything else has to be one of its kind.
        if matches!(entry.body, Body::Present(_)) {
            self.wrong(entry.seq, format!("its body isn't one of {}", entry.kind));
        }
    }
}
