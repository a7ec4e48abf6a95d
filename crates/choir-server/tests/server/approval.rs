//! The flow of a spec: V2's pushes, S7 to S9, S8's expiry.

use choir_protocol::error::ErrorCode;
use choir_protocol::ids::Id;
use choir_protocol::json::object;
use choir_protocol::message::{ApprovalRequest, FromServer, ServerMessage};
use choir_protocol::thread::{Decision, Outcome};

use crate::world::{Client, World, decision, kinds, message, user};

async fn request(client: &mut Client) -> ApprovalRequest {
    let is_request = |message: &FromServer| matches!(message.message, ServerMessage::ApprovalRequest(_));
    match client.raw.find(is_request).await.message {
        ServerMessage::ApprovalRequest(request) => request,
        _ => unreachable!(),
    }
}

async fn resolved(client: &mut Client, spec: Id) -> Outcome {
    let is_end = |message: &FromServer| matches!(&message.message, ServerMessage::StateChange(change) if change.spec == Some(spec) && change.outcome.is_some());
    match client.raw.find(is_end).await.message {
        ServerMessage::StateChange(change) => change.outcome.unwrap(),
        _ => unreachable!(),
    }
}

#[tokio::test]
async fn v2_each_deciding_co_author_is_asked_the_author_hears_and_both_see_one_message() {
    let world = World::start().await;
    let mut alice = world.client("alice").await;
    let mut bob = world.client("bob").await;
    let mut author = world.client("author").await;
    let thread = alice.creates(&[("bob", "co_author"), ("author", "reader")]).await;
    bob.acts(thread, "action.join", object! {}).await;
    alice.subscribes(thread).await;

    let mut payload = message("deploy it");
    payload.insert("content_type", "text/markdown");
    let (spec, submitted) = author.acts(thread, "action.submit_message", payload).await;
    for client in [&mut alice, &mut bob] {
        let asked = request(client).await;
        assert_eq!(
            (asked.spec, asked.seq, &asked.author, asked.content_type.as_deref()),
            (spec, submitted.seq, &user("author"), Some("text/markdown"))
        );
    }
    // One asks for changes, the author revises, and both are asked again.
    let first = world.log.find(thread, spec).await.unwrap()[0].content_hash;
    let mut changes = decision(spec, first, "request_changes");
    changes.insert("reason", "say please");
    alice.acts(thread, "action.process_approval", changes).await;
    let is_approval = |message: &FromServer| matches!(message.message, ServerMessage::NewApproval(_));
    let ServerMessage::NewApproval(heard) = author.raw.find(is_approval).await.message else {
        unreachable!()
    };
    assert_eq!((heard.spec, heard.decision), (spec, Decision::RequestChanges));
    let mut revision = message("deploy it, please");
    revision.insert("spec", spec.to_string());
    author.acts(thread, "action.revise_spec", revision).await;
    let second = request(&mut alice).await.content_hash;
    assert_eq!(request(&mut bob).await.content_hash, second);
    // A decision on what it said before is a conflict.
    let id = bob
        .act(thread, "action.process_approval", decision(spec, first, "approve"))
        .await;
    assert_eq!(bob.refused(id).await, ErrorCode::Conflict);

    alice
        .acts(thread, "action.process_approval", decision(spec, second, "approve"))
        .await;
    bob.acts(thread, "action.process_approval", decision(spec, second, "approve"))
        .await;
    assert_eq!(resolved(&mut author, spec).await, Outcome::Approved);
    let seen = kinds(&alice.updates_to(thread, 9).await);
    assert_eq!(
        seen,
        [
            "spec_submitted",
            "approval_given",
            "spec_revised",
            "approval_given",
            "approval_given",
            "spec_resolved",
            "message_posted"
        ]
    );
}

#[tokio::test]
async fn v2_open_specs_that_await_the_user_are_told_after_authentication() {
    let world = World::start().await;
    let mut alice = world.client("alice").await;
    let mut author = world.client("author").await;
    let thread = alice.creates(&[("author", "reader")]).await;
    let (spec, _) = author.acts(thread, "action.submit_message", message("later?")).await;
    let mut alice = alice.comes_again(&world).await;
    let asked = request(&mut alice).await;
    assert_eq!(asked.spec, spec);
    alice
        .acts(
            thread,
            "action.process_approval",
            decision(spec, asked.content_hash, "deny"),
        )
        .await;
    assert_eq!(resolved(&mut author, spec).await, Outcome::Denied);
    let mut alice = alice.comes_again(&world).await;
    alice.raw.settle().await;
    alice.raw.settle().await;
    assert_eq!(alice.raw.heard().count(), 0);
}

#[tokio::test]
async fn v2_who_is_added_hears_of_it_unsubscribed() {
    let world = World::start().await;
    let mut alice = world.client("alice").await;
    let mut bob = world.client("bob").await;
    let thread = alice.creates(&[]).await;
    alice
        .acts(thread, "action.add_member", crate::world::member("bob", "reader"))
        .await;
    let told = bob.raw.next().await;
    assert_eq!(told.thread_id, Some(thread));
    assert!(
        matches!(told.message, ServerMessage::StateChange(change) if change.change_type.as_str() == "member_added" && change.seq.get() == 2)
    );
}

#[tokio::test]
async fn v2_who_is_a_member_from_the_start_hears_of_it_unsubscribed() {
    let world = World::start().await;
    let mut alice = world.client("alice").await;
    let mut bob = world.client("bob").await;
    let thread = alice.creates(&[("bob", "reader")]).await;
    bob.raw.settle().await;
    let told: Vec<_> = bob.raw.creations.iter().map(|told| told.thread_id).collect();
    assert_eq!(told, [Some(thread)]);
    alice.raw.settle().await;
    assert!(alice.raw.creations.is_empty(), "who made it knows");
}

#[tokio::test]
async fn s8_a_spec_expires_by_itself() {
    let world = World::with(|config| config.times.expiry_ms = 20).await;
    let mut alice = world.client("alice").await;
    let mut author = world.client("author").await;
    let thread = alice
        .creates_with(
            &[("author", "reader")],
            object! { "policy": object! { "expires_ms": choir_protocol::json::Number::saturating(60_000) } },
        )
        .await;
    alice.subscribes(thread).await;
    let (spec, _) = author.acts(thread, "action.submit_message", message("in time?")).await;
    world.clock.forward(60_000);
    assert_eq!(resolved(&mut author, spec).await, Outcome::Expired);
    assert_eq!(
        kinds(&alice.updates_to(thread, 3).await),
        ["spec_submitted", "spec_resolved"]
    );
}

#[tokio::test]
async fn s8_what_is_due_expires_before_a_later_action_is_decided() {
    let world = World::with(|config| config.times.expiry_ms = 3_600_000).await;
    let mut alice = world.client("alice").await;
    let mut author = world.client("author").await;
    let thread = alice
        .creates_with(
            &[("author", "reader")],
            object! { "policy": object! { "expires_ms": choir_protocol::json::Number::saturating(60_000) } },
        )
        .await;
    let (spec, _) = author.acts(thread, "action.submit_message", message("in time?")).await;
    let hash = world.log.find(thread, spec).await.unwrap()[0].content_hash;
    world.clock.forward(60_000);
    let late = alice
        .act(thread, "action.process_approval", decision(spec, hash, "approve"))
        .await;
    assert_eq!(alice.refused(late).await, ErrorCode::Conflict);
    let (_, receipt) = alice.posts(thread, "after it").await;
    assert_eq!(receipt.seq.get(), 4);
    assert_eq!(resolved(&mut author, spec).await, Outcome::Expired);
}
