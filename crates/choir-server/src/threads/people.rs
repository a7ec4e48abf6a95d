//! What of an append concerns users in person, subscribed or not (V2), and who has joined (Y3's `all`).

use std::sync::Arc;

use choir_core::record::{Facts, Record};
use choir_core::thread::{Spec, Thread};
use choir_core::view::view;
use choir_protocol::action::{CreateThread, NewMember, ProcessApproval};
use choir_protocol::de::from_value;
use choir_protocol::entry::Kind;
use choir_protocol::ids::{Id, ThreadId, UserId};
use choir_protocol::json::{self, Value};
use choir_protocol::message::{ApprovalRequest, NewApproval, NewMessage, ServerMessage, StateChange};
use choir_protocol::thread::{Outcome, Stream};

use crate::Shared;
use crate::mailbox::Push;

/// Tells everyone whom the append concerns.
pub(crate) fn tell(shared: &Shared, before: Option<&Thread>, now: &Thread, records: &[Arc<Record>], facts: &Facts) {
    let thread_id = now.thread_id();
    for (user, fact) in &facts.members {
        let had_joined = before
            .and_then(|thread| thread.member(user))
            .is_some_and(|member| member.joined);
        if fact.is_some_and(|fact| fact.joined) && !had_joined {
            shared.registry.push(user, &Push::Joined(thread_id), None);
        }
    }
    for record in records {
        match record.kind {
            Kind::SpecSubmitted | Kind::SpecRevised => {
                // Where it is closed already there is nothing to decide.
                let spec = record.about.unwrap_or(record.id);
                if let Some(spec) = now.spec(spec).filter(|spec| spec.revision.seq == record.seq) {
                    let request = Push::Message(thread_id, Arc::new(approval_request(spec)));
                    for user in now.deciding() {
                        shared.registry.push(user, &request, None);
                    }
                }
            }
            Kind::SpecResolved | Kind::ApprovalGiven => tell_author(shared, now, record),
            Kind::ThreadCreated => {
                let members = body_of::<CreateThread>(record).and_then(|created| created.members);
                for member in members.iter().flatten() {
                    push_event(shared, &member.user_id, thread_id, record);
                }
            }
            Kind::MemberAdded => {
                if let Some(member) = body_of::<NewMember>(record).filter(|member| now.may_read(&member.user_id)) {
                    push_event(shared, &member.user_id, thread_id, record);
                }
            }
            _ => {}
        }
    }
}

/// A spec's author hears how it fares, while they may read the thread (S1, G7).
fn tell_author(shared: &Shared, now: &Thread, record: &Record) {
    if let Some(author) = record.spec_author.as_ref().filter(|author| now.may_read(author)) {
        push_event(shared, author, now.thread_id(), record);
    }
}

fn push_event(shared: &Shared, user: &UserId, thread_id: ThreadId, record: &Record) {
    if let Some(event) = event(record) {
        shared
            .registry
            .push(user, &Push::Message(thread_id, Arc::new(event)), None);
    }
}

/// Whether what was pushed to a user may still be sent to them (G7): it may have waited for the connection while rights changed.
pub(crate) fn may_hear(thread: &Thread, user: &UserId, message: &ServerMessage) -> bool {
    view(thread, user).is_some_and(|seen| match message {
        ServerMessage::ApprovalRequest(request) => seen.sees(Stream::Specs, Some(&request.author)),
        // Their own mark, how their own spec fares, that they were added.
        _ => true,
    })
}

/// `state.approval_request` for a spec (V2).
pub(crate) fn approval_request(spec: &Spec) -> ServerMessage {
    let body = spec.revision.body.text().and_then(|text| json::parse(text).ok());
    let content_type = body
        .as_ref()
        .and_then(Value::as_object)
        .and_then(|body| body.get("content_type"))
        .and_then(Value::as_str);
    ServerMessage::ApprovalRequest(ApprovalRequest {
        spec: spec.id,
        seq: spec.revision.seq,
        author: spec.author.clone(),
        content_hash: spec.revision.content_hash,
        content_type: content_type.map(ToOwned::to_owned),
        expires_at: spec.expires_at,
    })
}

/// The light event of an entry (V1). None where its body can't be read any more.
pub(crate) fn event(record: &Record) -> Option<ServerMessage> {
    let change = |spec: Option<Id>, outcome: Option<Outcome>| {
        ServerMessage::StateChange(StateChange {
            seq: record.seq,
            change_type: record.kind.clone(),
            spec,
            outcome,
        })
    };
    Some(match record.kind {
        Kind::MessagePosted => ServerMessage::NewMessage(NewMessage {
            seq: record.seq,
            message: record.id,
            content_hash: record.content_hash,
            author: record.author.clone(),
        }),
        Kind::ApprovalGiven => {
            let ProcessApproval {
                spec,
                content_hash,
                decision,
                ..
            } = body_of(record)?;
            ServerMessage::NewApproval(NewApproval {
                seq: record.seq,
                spec,
                content_hash,
                decision,
            })
        }
        Kind::SpecSubmitted => change(Some(record.id), None),
        Kind::SpecRevised | Kind::SpecWithdrawn => change(record.about, None),
        Kind::SpecResolved => change(Some(record.id), outcome(record)),
        _ => change(None, None),
    })
}

fn outcome(record: &Record) -> Option<Outcome> {
    let body = json::parse(record.body.text()?).ok()?;
    from_value(body.as_object()?.get("outcome")?).ok()
}

/// What a record's body says, in the shape that its kind has.
pub(crate) fn body_of<T: serde::de::DeserializeOwned>(record: &Record) -> Option<T> {
    from_value(&json::parse(record.body.text()?).ok()?).ok()
}
