//! Entries folded into a thread's state: the one place where an entry's effect is written down.
//!
//! [`apply`] is for entries that come out of a log, and checks each against the tree before it counts. Deciding folds the entries that it makes by the same code.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use choir_protocol::action::{CreateThread, Join, NewMember, ProcessApproval, RemoveMember, UpdateThread};
use choir_protocol::de::from_value;
use choir_protocol::entry::{Body, Kind};
use choir_protocol::ids::{Id, Seq, ThreadId, UserId};
use choir_protocol::json;
use choir_protocol::merkle::Peaks;
use choir_protocol::thread::{Member, Outcome, Propose, Review, Role, Settings, Visibility};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::record::Record;
use crate::thread::{Given, LEFT_KEPT, LEFT_MS, Members, Revision, Row, Spec, Thread};

/// A record that can't be the next of this thread: the log, or the state, isn't what it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ApplyError {
    /// Its number isn't the one after the head.
    Seq {
        /// The number that was due.
        expected: Seq,
        /// The record's.
        found: Seq,
    },
    /// Its hashes don't follow from the entries before it, or its body isn't the one that was hashed.
    Tree(Seq),
    /// It says what no decision could have said in this state.
    Impossible(Seq),
}

impl fmt::Display for ApplyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Seq { expected, found } => write!(f, "expected entry {expected}, found {found}"),
            Self::Tree(seq) => write!(f, "entry {seq} doesn't follow from the tree before it"),
            Self::Impossible(seq) => write!(f, "entry {seq} doesn't follow from the thread's state before it"),
        }
    }
}

impl core::error::Error for ApplyError {}

/// Folds a log's next record into the state; `None` is the state before the first. Where it fails the state is as it was.
///
/// # Errors
/// Where the record can't be the next one of this log.
pub fn apply(thread_id: ThreadId, state: &mut Option<Thread>, record: &Record) -> Result<(), ApplyError> {
    let (head, last_activity, messages) = state.as_ref().map_or((Seq::ZERO, record.timestamp, 0), |thread| {
        (thread.head().seq, thread.last_activity, thread.messages)
    });
    if record.seq != head.next() {
        return Err(ApplyError::Seq {
            expected: head.next(),
            found: record.seq,
        });
    }
    let mut peaks = state.as_ref().map_or_else(Peaks::new, |thread| thread.peaks.clone());
    let nodes = peaks.push(record.leaf(thread_id));
    let same_body = match &record.body {
        Body::Present(canonical) => canonical.hash() == record.content_hash,
        Body::Erased(_) => true,
    };
    if peaks.root() != record.root || nodes != record.nodes || !same_body {
        return Err(ApplyError::Tree(record.seq));
    }
    let messages = messages + u64::from(record.kind == Kind::MessagePosted);
    if record.timestamp < last_activity || record.messages != messages {
        return Err(ApplyError::Impossible(record.seq));
    }
    let (next, _) = fold(thread_id, state.as_ref(), record, peaks)?;
    *state = Some(next);
    Ok(())
}

/// What an entry changed beside the state itself.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Effects {
    /// Members whose row changed, was added or removed.
    pub(crate) members: Vec<UserId>,
    /// Whether the open specs are evaluated after it (S7).
    pub(crate) evaluates: bool,
}

/// The state after a record whose place in the tree is known to be right: `peaks` are those after it.
pub(crate) fn fold(
    thread_id: ThreadId,
    state: Option<&Thread>,
    record: &Record,
    peaks: Peaks,
) -> Result<(Thread, Effects), ApplyError> {
    let Some(before) = state else {
        let thread = created(thread_id, record, peaks).ok_or(ApplyError::Impossible(record.seq))?;
        let members = thread.members().map(|member| member.user_id.clone()).collect();
        return Ok((
            thread,
            Effects {
                members,
                evaluates: false,
            },
        ));
    };
    let mut thread = before.clone();
    thread.root = record.root;
    thread.peaks = peaks;
    thread.last_activity = record.timestamp;
    let mut effects = Effects::default();
    thread
        .take_up(record, &mut effects)
        .ok_or(ApplyError::Impossible(record.seq))?;
    Ok((thread, effects))
}

/// The state after `thread_created` (S1, S2).
fn created(thread_id: ThreadId, record: &Record, peaks: Peaks) -> Option<Thread> {
    if record.kind != Kind::ThreadCreated {
        return None;
    }
    let body: CreateThread = read(&record.body)?;
    let visibility = body.visibility.unwrap_or_default();
    let row = |user_id, role, agent: Option<bool>, joined| Row {
        member: Member {
            user_id,
            role,
            agent: agent.unwrap_or_default(),
            joined,
        },
        widened: record.seq,
    };
    let mut members = Members::default();
    members.add(row(record.author.clone(), Role::Owner, body.agent, true));
    for NewMember { user_id, role, agent } in body.members.unwrap_or_default() {
        members.add(row(user_id, role, agent, false));
    }
    Some(Thread {
        thread_id,
        settings: Arc::new(Settings {
            title: body.title,
            audience: body.audience,
            visibility,
            review: body.review.unwrap_or_default(),
            propose: body.propose.unwrap_or(Propose::default_of(visibility)),
            policy: body.policy.unwrap_or_default(),
            created_at: record.timestamp,
        }),
        members: Arc::new(members),
        left: Arc::default(),
        specs: Arc::default(),
        root: record.root,
        peaks,
        messages: 0,
        last_activity: record.timestamp,
        widened: record.seq,
        publishing: None,
    })
}

impl Thread {
    /// The record's effect; none where it can't have one in this state.
    fn take_up(&mut self, record: &Record, effects: &mut Effects) -> Option<()> {
        // S9: the message of an approved spec follows its resolution at once, and is no action of its author's.
        if let Some(spec) = self.publishing.take() {
            if record.kind != Kind::MessagePosted || record.id != spec {
                return None;
            }
            self.messages += 1;
            return Some(());
        }
        match record.kind {
            Kind::ThreadCreated | Kind::Other(_) => return None,
            Kind::MessagePosted => self.messages += 1,
            Kind::MessageEdited | Kind::MessageRedacted => {}
            Kind::ThreadUpdated => self.update(record, effects)?,
            Kind::MemberAdded => self.add_member(record, effects)?,
            Kind::MemberJoined => self.join(record, effects)?,
            Kind::MemberRemoved => self.remove_member(record, effects)?,
            Kind::SpecSubmitted => self.submit(record)?,
            Kind::SpecRevised => self.revise(record)?,
            Kind::SpecWithdrawn => self.withdraw(record)?,
            Kind::SpecResolved => {
                let body: Resolved = read(&record.body)?;
                self.close(body.spec)?;
                self.publishing = (body.outcome == Outcome::Approved).then_some(body.spec);
            }
            Kind::ApprovalGiven => self.decide(record, effects)?,
        }
        self.join_by_first_entry(record, effects);
        Some(())
    }

    /// S3: whatever a member's action appends after they were added makes them join, but their own leaving, which leaves no member to join.
    fn join_by_first_entry(&mut self, record: &Record, effects: &mut Effects) {
        if self.member(&record.author).is_some_and(|member| !member.joined)
            && let Some(row) = Arc::make_mut(&mut self.members).get_mut(&record.author)
        {
            row.member.joined = true;
            effects.members.push(record.author.clone());
            effects.evaluates = true;
        }
    }

    fn update(&mut self, record: &Record, effects: &mut Effects) -> Option<()> {
        let UpdateThread {
            title,
            visibility,
            review,
            propose,
            policy,
            ..
        } = read(&record.body)?;
        let before = self.settings.clone();
        let settings = Arc::make_mut(&mut self.settings);
        settings.title = title.unwrap_or_else(|| before.title.clone());
        settings.visibility = visibility.unwrap_or(before.visibility);
        settings.review = review.unwrap_or(before.review);
        settings.propose = propose.unwrap_or(before.propose);
        settings.policy = policy.unwrap_or(before.policy);
        // S7: only what changes is evaluated; to name a setting's old value is no change.
        effects.evaluates = settings.policy != before.policy || settings.visibility != before.visibility;
        // Y8: who isn't a member gains the thread where it turns public, and all readers gain the review.
        let public = settings.visibility == Visibility::Public && before.visibility == Visibility::Private;
        let reviewed = settings.review == Review::Readers && before.review == Review::CoAuthors;
        if public || reviewed {
            self.widened = record.seq;
        }
        if reviewed {
            for row in Arc::make_mut(&mut self.members)
                .rows_mut()
                .filter(|row| !row.member.role.is_co_author())
            {
                row.widened = record.seq;
            }
        }
        Some(())
    }

    fn add_member(&mut self, record: &Record, effects: &mut Effects) -> Option<()> {
        let NewMember { user_id, role, agent } = read(&record.body)?;
        let co_authors_review = self.settings.review == Review::CoAuthors;
        let was_public = self.settings.visibility == Visibility::Public;
        // S9: who is admitted has joined; who an owner adds is invited.
        let admitted = record.author.is_choir();
        let others_widened = self.widened;
        let members = Arc::make_mut(&mut self.members);
        if let Some(row) = members.get_mut(&user_id) {
            if co_authors_review && role.is_co_author() && !row.member.role.is_co_author() {
                row.widened = record.seq;
            }
            row.member.role = role;
            // An agent's flag that isn't named stays: a promotion doesn't make a person of software (S4).
            row.member.agent = agent.unwrap_or(row.member.agent);
            row.member.joined |= admitted;
        } else {
            let widens = !was_public || (co_authors_review && role.is_co_author());
            let widened = if widens { record.seq } else { others_widened };
            let member = Member {
                user_id: user_id.clone(),
                role,
                agent: agent.unwrap_or_default(),
                joined: admitted,
            };
            members.add(Row { member, widened });
            self.forget_leaving(&user_id);
        }
        effects.members.push(user_id);
        effects.evaluates = true;
        Some(())
    }

    fn join(&mut self, record: &Record, effects: &mut Effects) -> Option<()> {
        let Join { agent } = read(&record.body)?;
        let agent = agent.unwrap_or_default();
        let others_widened = self.widened;
        let members = Arc::make_mut(&mut self.members);
        match members.get_mut(&record.author) {
            Some(row) => {
                row.member.joined = true;
                // S4: once set, only an owner clears it.
                row.member.agent |= agent;
            }
            // S3: nobody but a public thread's readers joins uninvited.
            None if self.settings.visibility == Visibility::Private => return None,
            None => {
                let member = Member {
                    user_id: record.author.clone(),
                    role: Role::Reader,
                    agent,
                    joined: true,
                };
                members.add(Row {
                    member,
                    widened: others_widened,
                });
                self.forget_leaving(&record.author);
            }
        }
        effects.members.push(record.author.clone());
        effects.evaluates = true;
        Some(())
    }

    fn remove_member(&mut self, record: &Record, effects: &mut Effects) -> Option<()> {
        let RemoveMember { user_id } = read(&record.body)?;
        if !Arc::make_mut(&mut self.members).remove(&user_id) {
            return None;
        }
        if user_id == record.author {
            let left = Arc::make_mut(&mut self.left);
            left.retain(|(_, at)| record.timestamp.since(*at) < LEFT_MS);
            if left.len() >= LEFT_KEPT {
                left.remove(0);
            }
            left.push((user_id.clone(), record.timestamp));
        }
        effects.members.push(user_id);
        effects.evaluates = true;
        Some(())
    }

    fn forget_leaving(&mut self, user: &UserId) {
        if self.left.iter().any(|(gone, _)| gone == user) {
            Arc::make_mut(&mut self.left).retain(|(gone, _)| gone != user);
        }
    }

    fn submit(&mut self, record: &Record) -> Option<()> {
        if self.spec(record.id).is_some() {
            return None;
        }
        let spec = Spec {
            id: record.id,
            author: record.author.clone(),
            submitted_at: record.timestamp,
            // S8: fixed here; a later policy doesn't move it.
            expires_at: record.timestamp.plus_ms(self.settings.policy.expires_ms),
            revision: Revision::of(record),
            decisions: Vec::new(),
        };
        Arc::make_mut(&mut self.specs).push(Arc::new(spec));
        Some(())
    }

    fn revise(&mut self, record: &Record) -> Option<()> {
        let spec = self.spec_mut(record.about?)?;
        if spec.author != record.author {
            return None;
        }
        spec.revision = Revision::of(record);
        // S6: decisions are bound to a content hash.
        spec.decisions.clear();
        Some(())
    }

    fn withdraw(&mut self, record: &Record) -> Option<()> {
        let spec = record.about?;
        if self.spec(spec)?.author != record.author {
            return None;
        }
        self.close(spec)
    }

    fn decide(&mut self, record: &Record, effects: &mut Effects) -> Option<()> {
        let ProcessApproval {
            spec,
            content_hash,
            decision,
            reason,
            ..
        } = read(&record.body)?;
        if !self.is_co_author(&record.author) {
            return None;
        }
        let spec = self.spec_mut(spec)?;
        if content_hash != spec.revision.content_hash {
            return None;
        }
        // S6: the last decision of each counts.
        spec.decisions.retain(|given| given.user_id != record.author);
        spec.decisions.push(Given {
            user_id: record.author.clone(),
            decision,
            reason,
            seq: record.seq,
        });
        effects.evaluates = true;
        Some(())
    }

    fn close(&mut self, spec: Id) -> Option<()> {
        let place = self.specs.iter().position(|open| open.id == spec)?;
        Arc::make_mut(&mut self.specs).remove(place);
        Some(())
    }

    fn spec_mut(&mut self, spec: Id) -> Option<&mut Spec> {
        let place = self.specs.iter().position(|open| open.id == spec)?;
        Arc::make_mut(&mut self.specs).get_mut(place).map(Arc::make_mut)
    }
}

impl Revision {
    fn of(record: &Record) -> Self {
        Self {
            seq: record.seq,
            action: record.id,
            content_hash: record.content_hash,
            body: record.body.clone(),
            proof: record.proof.clone(),
        }
    }
}

/// Body of `spec_resolved` (L1).
#[derive(Deserialize)]
pub(crate) struct Resolved {
    pub(crate) spec: Id,
    pub(crate) outcome: Outcome,
}

/// What a body says. None for one that is erased, which those that are read here never are (L6), or that hasn't the shape.
pub(crate) fn read<T: DeserializeOwned>(body: &Body) -> Option<T> {
    from_value(&json::parse(body.text()?).ok()?).ok()
}
