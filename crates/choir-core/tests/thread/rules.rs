//! The protocol's rules as far as the core decides them, one test for each thing that a rule says.

use choir_core::apply::{ApplyError, apply};
use choir_core::batch::{Batch, Step};
use choir_core::decide::{Append, Lookups, expire};
use choir_core::receipt::{DecisionReceipt, Failure, Needed, ProvedEntry, verify};
use choir_core::record::Record;
use choir_core::thread::{LEFT_KEPT, SavedError, Thread};
use choir_core::view::{Sight, Streams, ViewHistory, losses, lost, may_hide, view, widened_at};
use choir_protocol::checkpoint::{Checkpoint, origin};
use choir_protocol::entry::{Body, Kind};
use choir_protocol::error::ErrorCode::{
    ClockSkew, Conflict, ContentTooLarge, InvalidMessage, Limit, NotFound, PermissionDenied, StateDesync,
};
use choir_protocol::hash::Hash;
use choir_protocol::ids::{Cursor, Id, Seq, Timestamp, UserId};
use choir_protocol::json::Object;
use choir_protocol::key::SecretKey;
use choir_protocol::merkle::{Nodes, inclusion_path};
use choir_protocol::thread::{Approval, Decision, Outcome, Propose, Review, Role, Stream, Visibility};

use crate::world::{ALICE, BOB, CAROL, DAY, DORA, EMIL, MINUTE, ROBOT, World, key_of, object, user};

const UNANIMOUS: &str = r#"{"approval": "unanimous"}"#;
const MAJORITY: &str = r#"{"approval": "majority"}"#;
const ANY: &str = r#"{"approval": "any"}"#;

fn seq(n: u64) -> Seq {
    Seq::saturating(n)
}

// --- S1: threads ---

#[test]
fn s1_the_audience_is_one_of_the_servers() {
    let mut w = World::new();
    w.creates_with(ALICE, r#"{"audience": "https://elsewhere.example"}"#)
        .says(InvalidMessage);
    assert_eq!(w.creates(ALICE).own().kind, Kind::ThreadCreated);
}

#[test]
fn s1_defaults_are_those_of_the_visibility_at_creation() {
    let mut w = World::new();
    w.creates(ALICE).ok();
    let settings = w.thread().settings();
    assert_eq!(
        (settings.visibility, settings.review, settings.propose),
        (Visibility::Private, Review::CoAuthors, Propose::Members)
    );
    let mut w = World::new();
    w.creates_with(ALICE, r#"{"visibility": "public"}"#).ok();
    assert_eq!(w.thread().settings().propose, Propose::Everyone);
}

#[test]
fn s1_a_later_change_of_one_setting_changes_no_other() {
    let mut w = World::new();
    w.creates(ALICE).ok();
    w.updates(ALICE, r#"{"visibility": "public"}"#).ok();
    assert_eq!(w.thread().settings().propose, Propose::Members);
    assert_eq!(w.thread().settings().title, "a thread");
}

#[test]
fn s1_members_read_a_private_thread_and_everyone_a_public_one() {
    let mut w = World::with(UNANIMOUS, &[]);
    assert!(w.view(CAROL).is_some() && w.view(EMIL).is_none());
    w.updates(ALICE, r#"{"visibility": "public"}"#).ok();
    assert!(w.view(EMIL).is_some());
}

#[test]
fn s1_specs_and_approvals_are_seen_by_co_authors_and_by_the_specs_author() {
    let mut w = World::with(UNANIMOUS, &[BOB]);
    w.adds(ALICE, DORA, Role::Reader).ok();
    let spec = w.proposes(CAROL, "mine");
    let submitted = w.head().seq.get();
    w.approves(ALICE, spec).ok();
    let decided = w.head().seq.get();
    for who in [ALICE, BOB, CAROL] {
        assert!(w.sees(who, submitted) && w.sees(who, decided), "{who}");
    }
    assert!(!w.sees(DORA, submitted) && !w.sees(DORA, decided));
    w.updates(ALICE, r#"{"review": "readers"}"#).ok();
    assert!(w.sees(DORA, submitted) && w.sees(DORA, decided));
}

#[test]
fn s1_who_may_propose() {
    let mut w = World::new();
    w.creates_with(ALICE, r#"{"visibility": "public", "propose": "members"}"#)
        .ok();
    w.adds(ALICE, CAROL, Role::Reader).ok();
    w.posts(EMIL, "a stranger's").says(PermissionDenied);
    w.proposes(CAROL, "a member's");
    w.updates(ALICE, r#"{"propose": "everyone"}"#).ok();
    w.proposes(EMIL, "a stranger's");
    w.updates(ALICE, r#"{"propose": "nobody"}"#).ok();
    w.posts(CAROL, "a member's").says(PermissionDenied);
    w.posts(ALICE, "a co-author's").ok();
}

// --- S2, S3, S4: members ---

#[test]
fn s2_the_creator_is_the_first_owner_and_members_come_in_order() {
    let mut w = World::new();
    let bob = format!(r#"{{"members": [{{"user_id": "{}", "role": "reader"}}]}}"#, user(BOB));
    w.creates_with(ALICE, &bob).ok();
    w.adds(ALICE, CAROL, Role::Reader).ok();
    w.adds(ALICE, DORA, Role::CoAuthor).ok();
    w.removes(ALICE, CAROL).ok();
    w.adds(ALICE, CAROL, Role::Owner).ok();
    let order: Vec<UserId> = w.thread().members().map(|member| member.user_id.clone()).collect();
    assert_eq!(order, [ALICE, BOB, DORA, CAROL].map(user));
    assert_eq!(w.member(ALICE).role, Role::Owner);
    assert!(w.member(ALICE).joined && !w.member(BOB).joined);
}

#[test]
fn s2_members_of_a_new_thread_dont_list_its_creator() {
    let mut w = World::new();
    let alice = format!(r#"{{"members": [{{"user_id": "{}", "role": "reader"}}]}}"#, user(ALICE));
    w.creates_with(ALICE, &alice).says(InvalidMessage);
}

#[test]
fn s2_the_last_joined_owner_stays() {
    let mut w = World::new();
    w.creates(ALICE).ok();
    w.adds(ALICE, BOB, Role::Owner).ok();
    // Bob is invited: he doesn't count yet.
    w.leaves(ALICE).says(Conflict);
    w.adds(ALICE, ALICE, Role::CoAuthor).says(Conflict);
    w.joins(BOB).ok();
    w.adds(ALICE, ALICE, Role::CoAuthor).ok();
    w.leaves(BOB).says(Conflict);
    w.leaves(ALICE).ok();
}

#[test]
fn s2_an_invited_owner_joins_by_removing_the_last_one() {
    let mut w = World::new();
    w.creates(ALICE).ok();
    w.adds(ALICE, BOB, Role::Owner).ok();
    w.removes(BOB, ALICE).ok();
    assert!(w.member(BOB).joined);
    assert!(w.view(ALICE).is_none());
}

#[test]
fn s3_who_is_added_joins_by_the_first_entry_that_they_cause() {
    let mut w = World::with(ANY, &[]);
    w.adds(ALICE, BOB, Role::CoAuthor).ok();
    assert!(!w.member(BOB).joined);
    assert!(!w.thread().is_deciding(&user(BOB)));
    w.posts(BOB, "their rights they have at once").ok();
    assert!(w.member(BOB).joined);
    assert!(w.thread().is_deciding(&user(BOB)));
    w.joins(BOB).says(Conflict);
}

#[test]
fn s3_the_message_of_an_approved_spec_is_no_entry_of_its_authors() {
    let mut w = World::new();
    w.creates_with(ALICE, r#"{"visibility": "public"}"#).ok();
    let spec = w.proposes(EMIL, "as a stranger");
    w.adds(ALICE, EMIL, Role::Reader).ok();
    w.approves(ALICE, spec).ok();
    assert_eq!(w.last(), ["approval_given", "spec_resolved approved", "message_posted"]);
    assert!(!w.member(EMIL).joined, "Emil did nothing since he was added");
}

#[test]
fn s3_a_refusal_joins_nobody() {
    let mut w = World::with(ANY, &[]);
    w.adds(ALICE, BOB, Role::Reader).ok();
    w.updates(BOB, r#"{"title": "mine"}"#).says(PermissionDenied);
    assert!(!w.member(BOB).joined);
}

#[test]
fn s3_join_makes_a_reader_of_whom_a_public_thread_has_not_as_a_member() {
    let mut w = World::new();
    w.creates_with(ALICE, r#"{"visibility": "public"}"#).ok();
    w.joins(EMIL).ok();
    assert_eq!((w.member(EMIL).role, w.member(EMIL).joined), (Role::Reader, true));
    w.joins(EMIL).says(Conflict);
}

#[test]
fn s3_an_added_member_keeps_having_joined() {
    let mut w = World::with(ANY, &[BOB]);
    w.adds(ALICE, BOB, Role::Reader).ok();
    assert!(w.member(BOB).joined);
    w.removes(ALICE, BOB).ok();
    w.adds(ALICE, BOB, Role::CoAuthor).ok();
    assert!(!w.member(BOB).joined, "added anew, and invited again");
}

#[test]
fn s3_who_left_by_themselves_is_added_again_only_after_30_days() {
    let mut w = World::with(ANY, &[BOB]);
    w.leaves(BOB).ok();
    w.waits(30 * DAY - 1);
    w.adds(ALICE, BOB, Role::Reader).says(Conflict);
    w.waits(1);
    w.adds(ALICE, BOB, Role::Reader).ok();
}

#[test]
fn s3_who_was_removed_by_another_is_added_again_at_once() {
    let mut w = World::with(ANY, &[BOB]);
    w.removes(ALICE, BOB).ok();
    w.adds(ALICE, BOB, Role::Reader).ok();
}

#[test]
fn s3_who_left_a_public_thread_joins_again_themselves() {
    let mut w = World::new();
    w.creates_with(ALICE, r#"{"visibility": "public"}"#).ok();
    w.joins(EMIL).ok();
    w.leaves(EMIL).ok();
    w.adds(ALICE, EMIL, Role::CoAuthor).says(Conflict);
    w.joins(EMIL).ok();
    w.adds(ALICE, EMIL, Role::CoAuthor).ok();
    w.removes(ALICE, EMIL).ok();
    w.adds(ALICE, EMIL, Role::CoAuthor).ok();
}

#[test]
fn s3_only_so_many_who_left_are_remembered() {
    let mut w = World::new();
    w.creates_with(ALICE, r#"{"visibility": "public"}"#).ok();
    let names: Vec<String> = (0..=LEFT_KEPT).map(|n| format!("visitor {n}")).collect();
    let small = w.thread().encode().len();
    // One that the world's own checks would make slow; every state is one of a log nevertheless.
    let mut thread = w.state.take();
    for name in &names {
        for (kind, body) in [
            (Kind::MemberJoined, "{}".to_string()),
            (Kind::MemberRemoved, format!(r#"{{"user_id":"{}"}}"#, user(name))),
        ] {
            let record = next_record(thread.as_ref().expect("a thread"), kind, name, &body);
            apply(w.thread_id, &mut thread, &record).expect("the next");
        }
    }
    let thread = thread.expect("a thread");
    let bytes_each = (thread.encode().len() - small) / LEFT_KEPT;
    assert!(bytes_each < 100, "{bytes_each}");
    w.log.clear();
    w.state = Some(thread);
    let mut payload = Object::new();
    payload.insert("user_id", user(&names[LEFT_KEPT]).to_string());
    payload.insert("role", "reader");
    let again = w.signs(ALICE, "action.add_member", payload);
    let refused = w.decides_in(&mut Batch::on(w.thread_id, w.state.clone()), ALICE, &again);
    assert!(
        matches!(refused, Step::Refused(refusal) if refusal.code == Conflict),
        "the newest is remembered"
    );
}

/// The record that a log would hold next, made by hand.
fn next_record(thread: &Thread, kind: Kind, who: &str, body: &str) -> Record {
    let body = choir_protocol::canonical::Canonical::of_object(&object(body));
    let seq = thread.head().seq.next();
    let mut record = Record {
        seq,
        id: Id::v7(seq.get(), [7; 10]),
        messages: thread.messages() + u64::from(kind == Kind::MessagePosted),
        kind,
        author: user(who),
        timestamp: thread.last_activity(),
        content_hash: body.hash(),
        proof: None,
        body: Body::Present(body),
        root: Hash::EMPTY,
        nodes: Vec::new(),
        about: None,
        spec_author: None,
    };
    let mut peaks = thread.peaks().clone();
    record.nodes = peaks.push(record.leaf(thread.thread_id()));
    record.root = peaks.root();
    record
}

#[test]
fn s4_an_agent_neither_decides_nor_counts() {
    let mut w = World::with(UNANIMOUS, &[]);
    w.adds_flagged(ALICE, BOB, Role::CoAuthor, Some(true)).ok();
    w.joins(BOB).ok();
    let spec = w.proposes(CAROL, "an idea");
    w.approves(BOB, spec).says(PermissionDenied);
    w.approves(ALICE, spec).ok();
    assert_eq!(w.last()[1], "spec_resolved approved");
}

#[test]
fn s4_unless_the_policy_says_so() {
    let mut w = World::with(r#"{"agents_decide": true}"#, &[]);
    w.adds_flagged(ALICE, BOB, Role::CoAuthor, Some(true)).ok();
    w.joins(BOB).ok();
    let spec = w.proposes(CAROL, "an idea");
    w.approves(ALICE, spec).ok();
    assert_eq!(w.last(), ["approval_given"]);
    w.approves(BOB, spec).ok();
    assert_eq!(w.last()[1], "spec_resolved approved");
}

#[test]
fn s4_the_flag_is_set_by_either_and_cleared_by_an_owner_alone() {
    let mut w = World::with(UNANIMOUS, &[]);
    w.adds(ALICE, BOB, Role::Reader).ok();
    w.joins_as_agent(BOB).ok();
    assert!(w.member(BOB).agent);
    // A promotion that doesn't name the flag leaves it.
    w.adds(ALICE, BOB, Role::CoAuthor).ok();
    assert!(w.member(BOB).agent);
    w.adds_flagged(ALICE, BOB, Role::CoAuthor, Some(false)).ok();
    assert!(!w.member(BOB).agent);
    w.adds_flagged(ALICE, DORA, Role::Reader, Some(true)).ok();
    w.joins(DORA).ok();
    assert!(w.member(DORA).agent, "to join without the flag doesn't clear it");
}

#[test]
fn s4_users_of_an_issuer_of_agents_are_members_only_with_the_flag() {
    let mut w = World::new();
    w.creates(ROBOT).says(Conflict);
    w.creates_with(ALICE, r#"{"members": [{"user_id": "robots:r2", "role": "reader"}]}"#)
        .says(Conflict);
    w.creates_with(ALICE, r#"{"visibility": "public"}"#).ok();
    w.adds(ALICE, ROBOT, Role::Reader).says(Conflict);
    w.joins(ROBOT).says(Conflict);
    w.joins_as_agent(ROBOT).ok();
    w.adds_flagged(ALICE, ROBOT, Role::Reader, Some(false)).says(Conflict);
    w.adds(ALICE, ROBOT, Role::CoAuthor).ok();
}

// --- S5 to S9: specs ---

#[test]
fn s5_an_update_replaces_the_policy_as_a_whole() {
    let mut w = World::with(
        r#"{"approval": {"at_least": 2}, "expires_ms": 60000, "admit_authors": true}"#,
        &[],
    );
    assert_eq!(w.thread().settings().policy.approval, Approval::AtLeast(2));
    w.updates(ALICE, r#"{"policy": {"approval": "majority"}}"#).ok();
    let policy = w.thread().settings().policy;
    assert_eq!(
        (policy.approval, policy.expires_ms, policy.admit_authors),
        (Approval::Majority, 604_800_000, false)
    );
}

#[test]
fn s6_a_decision_on_another_revision_is_a_conflict() {
    let mut w = World::with(UNANIMOUS, &[BOB]);
    let spec = w.proposes(CAROL, "first");
    let first = w.hash_of(spec);
    w.approves(ALICE, spec).ok();
    w.revises(CAROL, spec, "second").ok();
    assert!(w.thread().spec(spec).expect("open").decisions.is_empty());
    w.decides_on(BOB, spec, first, "approve").says(Conflict);
    w.approves(BOB, spec).ok();
    w.approves(ALICE, spec).ok();
    assert_eq!(w.last(), ["approval_given", "spec_resolved approved", "message_posted"]);
}

#[test]
fn s6_the_last_decision_of_each_counts() {
    let mut w = World::with(UNANIMOUS, &[BOB, DORA]);
    let spec = w.proposes(CAROL, "an idea");
    w.approves(ALICE, spec).ok();
    w.requests_changes(ALICE, spec).ok();
    w.approves(BOB, spec).ok();
    w.approves(DORA, spec).ok();
    assert_eq!(w.last(), ["approval_given"], "Alice's approval is replaced");
    let decisions = &w.thread().spec(spec).expect("open").decisions;
    assert_eq!(
        decisions.iter().map(|given| given.decision).collect::<Vec<_>>(),
        [Decision::RequestChanges, Decision::Approve, Decision::Approve]
    );
    w.approves(ALICE, spec).ok();
    assert_eq!(w.last()[1], "spec_resolved approved");
}

#[test]
fn s6_any_action_on_a_closed_spec_is_a_conflict() {
    let mut w = World::with(ANY, &[]);
    let (withdrawn, denied) = (w.proposes(CAROL, "one"), w.proposes(CAROL, "two"));
    w.withdraws(CAROL, withdrawn).ok();
    w.denies(ALICE, denied).ok();
    for spec in [withdrawn, denied] {
        w.approves(ALICE, spec).says(Conflict);
        w.revises(CAROL, spec, "anew").says(Conflict);
        w.withdraws(CAROL, spec).says(Conflict);
    }
}

#[test]
fn s7_majority_of_four_two_denials_deny() {
    let mut w = World::with(MAJORITY, &[BOB, DORA, EMIL]);
    let spec = w.proposes(CAROL, "an idea");
    w.denies(ALICE, spec).ok();
    w.approves(BOB, spec).ok();
    assert_eq!(w.last(), ["approval_given"]);
    w.denies(DORA, spec).ok();
    assert_eq!(w.last(), ["approval_given", "spec_resolved denied"]);
}

#[test]
fn s7_any_is_denied_when_all_deny() {
    let mut w = World::with(ANY, &[BOB]);
    let spec = w.proposes(CAROL, "an idea");
    w.denies(ALICE, spec).ok();
    assert_eq!(w.last(), ["approval_given"]);
    w.denies(BOB, spec).ok();
    assert_eq!(w.last()[1], "spec_resolved denied");
}

#[test]
fn s7_unanimous_is_denied_by_one() {
    let mut w = World::with(UNANIMOUS, &[BOB, DORA]);
    let spec = w.proposes(CAROL, "an idea");
    w.denies(BOB, spec).ok();
    assert_eq!(w.last()[1], "spec_resolved denied");
}

#[test]
fn s7_the_specs_own_author_decides_too_once_a_co_author() {
    let mut w = World::with(UNANIMOUS, &[]);
    let spec = w.proposes(CAROL, "an idea");
    w.adds(ALICE, CAROL, Role::CoAuthor).ok();
    w.approves(ALICE, spec).ok();
    assert_eq!(w.last(), ["approval_given"]);
    w.approves(CAROL, spec).ok();
    assert_eq!(w.last()[1], "spec_resolved approved");
}

#[test]
fn s7_a_member_who_leaves_may_complete_a_decision() {
    let mut w = World::with(UNANIMOUS, &[BOB]);
    let spec = w.proposes(CAROL, "an idea");
    w.approves(ALICE, spec).ok();
    w.leaves(BOB).ok();
    assert_eq!(w.last(), ["member_removed", "spec_resolved approved", "message_posted"]);
}

#[test]
fn s7_who_joins_by_any_entry_starts_an_evaluation() {
    let mut w = World::with(r#"{"approval": {"at_least": 1}, "agents_decide": false}"#, &[BOB]);
    let spec = w.proposes(CAROL, "an idea");
    // Nobody counts while all are agents; Bob's denial waits.
    w.requests_changes(ALICE, spec).ok();
    w.adds(ALICE, DORA, Role::CoAuthor).ok();
    w.adds_flagged(ALICE, BOB, Role::CoAuthor, Some(true)).ok();
    assert!(w.thread().spec(spec).is_some());
    w.adds_flagged(ALICE, ALICE, Role::Owner, Some(true)).ok();
    w.posts(DORA, "here I am").ok();
    assert_eq!(w.last(), ["message_posted"], "one decides now, and hasn't");
    w.approves(DORA, spec).ok();
    assert_eq!(w.last()[1], "spec_resolved approved");
}

#[test]
fn s7_who_joins_again_brings_their_decision_back() {
    let mut w = World::with(r#"{"approval": {"at_least": 2}}"#, &[BOB, DORA]);
    let spec = w.proposes(CAROL, "an idea");
    w.approves(BOB, spec).ok();
    w.removes(ALICE, BOB).ok();
    w.adds(ALICE, BOB, Role::CoAuthor).ok();
    w.approves(ALICE, spec).ok();
    assert_eq!(w.last(), ["approval_given"], "Bob is invited, and counts in no vote");
    w.posts(BOB, "back again").ok();
    assert_eq!(w.last(), ["message_posted", "spec_resolved approved", "message_posted"]);
}

#[test]
fn s7_a_policy_that_changes_is_at_once_in_force() {
    let mut w = World::with(UNANIMOUS, &[BOB, DORA]);
    let spec = w.proposes(CAROL, "an idea");
    w.approves(ALICE, spec).ok();
    w.updates(ALICE, r#"{"title": "a title changes nothing"}"#).ok();
    assert_eq!(w.last(), ["thread_updated"]);
    w.updates(ALICE, r#"{"policy": {"approval": "any"}}"#).ok();
    assert_eq!(w.last(), ["thread_updated", "spec_resolved approved", "message_posted"]);
}

#[test]
fn s8_a_spec_expires_before_a_later_action_is_decided_in_an_append_of_its_own() {
    let mut w = World::with(r#"{"approval": "any", "expires_ms": 60000}"#, &[]);
    let spec = w.proposes(CAROL, "an idea");
    w.waits(MINUTE - 1);
    w.requests_changes(ALICE, spec).ok();
    w.waits(1);
    w.approves(ALICE, spec).says(Conflict);
    assert_eq!(w.last(), ["spec_resolved expired"]);
}

#[test]
fn s8_a_later_policy_moves_no_expiry() {
    let mut w = World::with(r#"{"expires_ms": 60000}"#, &[]);
    w.proposes(CAROL, "an idea");
    let due = w.thread().next_due();
    w.updates(ALICE, r#"{"policy": {}}"#).ok();
    assert_eq!(w.thread().next_due(), due);
    assert_eq!(due, Some(Timestamp::saturating(w.now + MINUTE)));
}

#[test]
fn s8_all_that_is_due_expires_together_in_the_order_of_submission() {
    let mut w = World::with(r#"{"expires_ms": 60000}"#, &[]);
    let first = w.proposes(CAROL, "one");
    w.waits(10);
    let second = w.proposes(CAROL, "two");
    w.waits(MINUTE);
    let third = w.proposes_after_expiry(CAROL, "three", 2);
    let expired: Vec<Id> = w
        .log
        .iter()
        .filter(|record| record.kind == Kind::SpecResolved)
        .map(|record| record.id)
        .collect();
    assert_eq!(expired, [first, second]);
    assert!(w.thread().spec(third).is_some());
    assert_eq!(expire(w.thread(), Timestamp::saturating(w.now)), Ok(None));
}

impl World {
    fn proposes_after_expiry(&mut self, who: &str, text: &str, expired: usize) -> Id {
        let spec = self.proposes(who, text);
        assert_eq!(self.appends[self.appends.len() - 2..], [expired, 1]);
        spec
    }
}

#[test]
fn s8_the_author_who_may_no_longer_read_ends_their_spec() {
    let mut w = World::with(ANY, &[]);
    w.proposes(CAROL, "an idea");
    w.removes(ALICE, CAROL).ok();
    assert_eq!(w.last(), ["member_removed", "spec_resolved author_left"]);
}

#[test]
fn s8_in_a_public_thread_who_leaves_reads_on() {
    let mut w = World::new();
    w.creates_with(ALICE, r#"{"visibility": "public"}"#).ok();
    w.joins(EMIL).ok();
    let spec = w.proposes(EMIL, "an idea");
    w.leaves(EMIL).ok();
    assert!(w.thread().spec(spec).is_some());
    w.updates(ALICE, r#"{"visibility": "private"}"#).ok();
    assert_eq!(w.last(), ["thread_updated", "spec_resolved author_left"]);
}

#[test]
fn s9_an_approved_authors_admission_follows_the_message() {
    let mut w = World::with(r#"{"approval": "any", "admit_authors": true}"#, &[]);
    let spec = w.proposes(CAROL, "an idea");
    w.approves(ALICE, spec).ok();
    assert_eq!(
        w.last(),
        [
            "approval_given",
            "spec_resolved approved",
            "message_posted",
            "member_added"
        ]
    );
    let [.., message, admission] = w.log.as_slice() else {
        panic!("entries")
    };
    assert_eq!((message.id, &message.author), (spec, &user(CAROL)));
    assert_eq!(
        (admission.id, admission.author.is_choir(), &admission.proof),
        (spec, true, &None)
    );
    assert_eq!((w.member(CAROL).role, w.member(CAROL).joined), (Role::CoAuthor, true));
    w.posts(CAROL, "published at once").ok();
}

#[test]
fn s9_who_is_admitted_has_joined_even_who_was_only_invited() {
    let mut w = World::new();
    let settings = r#"{"visibility": "public", "policy": {"approval": "any", "admit_authors": true}}"#;
    w.creates_with(ALICE, settings).ok();
    let spec = w.proposes(EMIL, "as a stranger");
    w.adds(ALICE, EMIL, Role::Reader).ok();
    assert!(!w.member(EMIL).joined);
    w.approves(ALICE, spec).ok();
    assert_eq!((w.member(EMIL).role, w.member(EMIL).joined), (Role::CoAuthor, true));
}

#[test]
fn s9_neither_agents_nor_co_authors_are_admitted() {
    let mut w = World::new();
    w.creates_with(
        ALICE,
        r#"{"visibility": "public", "policy": {"approval": "any", "admit_authors": true}}"#,
    )
    .ok();
    let by_issuer = w.proposes(ROBOT, "beep");
    w.approves(ALICE, by_issuer).ok();
    assert_eq!(w.last().last().map(String::as_str), Some("message_posted"));
    w.adds_flagged(ALICE, BOB, Role::Reader, Some(true)).ok();
    let by_flag = w.proposes(BOB, "boop");
    w.approves(ALICE, by_flag).ok();
    assert_eq!(w.last().last().map(String::as_str), Some("message_posted"));
    let co_author = w.proposes(CAROL, "an idea");
    w.adds(ALICE, CAROL, Role::CoAuthor).ok();
    w.approves(ALICE, co_author).ok();
    assert_eq!(w.last().last().map(String::as_str), Some("message_posted"));
}

#[test]
fn s9_a_full_thread_admits_nobody_new() {
    let mut w = World::new();
    w.creates_with(
        ALICE,
        r#"{"visibility": "public", "policy": {"approval": "any", "admit_authors": true}}"#,
    )
    .ok();
    w.joins(CAROL).ok();
    w.limits.members = 2;
    let stranger = w.proposes(EMIL, "an idea");
    w.approves(ALICE, stranger).ok();
    assert_eq!(w.last().last().map(String::as_str), Some("message_posted"));
    let member = w.proposes(CAROL, "an idea");
    w.approves(ALICE, member).ok();
    assert_eq!(w.last().last().map(String::as_str), Some("member_added"));
}

// --- Section 5, who may do what, and what they are told ---

#[test]
fn who_may_not_read_finds_nothing() {
    let mut w = World::with(ANY, &[]);
    let message = w.posts(ALICE, "hi").ok();
    let spec = w.proposes(CAROL, "an idea");
    w.posts(EMIL, "hi").says(NotFound);
    w.answers(EMIL, message, "hi").says(NotFound);
    w.revises(EMIL, spec, "mine").says(NotFound);
    w.withdraws(EMIL, spec).says(NotFound);
    w.approves(EMIL, spec).says(NotFound);
    w.edits(EMIL, message, "hi").says(NotFound);
    w.redacts(EMIL, message).says(NotFound);
    w.updates(EMIL, r#"{"title": "mine"}"#).says(NotFound);
    w.adds(EMIL, EMIL, Role::Owner).says(NotFound);
    w.removes(EMIL, ALICE).says(NotFound);
    w.leaves(EMIL).says(NotFound);
    w.joins(EMIL).says(NotFound);
}

#[test]
fn a_thread_that_doesnt_exist_is_not_found_in_the_same_words() {
    let mut w = World::new();
    let nowhere = w.posts(EMIL, "hi").says(NotFound);
    w.creates(ALICE).ok();
    assert_eq!(w.posts(EMIL, "hi").says(NotFound), nowhere);
}

#[test]
fn a_spec_that_the_sender_may_not_see_is_not_found_before_any_denial() {
    let mut w = World::with(ANY, &[]);
    w.adds(ALICE, DORA, Role::Reader).ok();
    let spec = w.proposes(CAROL, "an idea");
    let unseen = w.approves(DORA, spec).says(NotFound);
    w.revises(DORA, spec, "mine").says(NotFound);
    w.withdraws(DORA, spec).says(NotFound);
    let none: Id = "01930000-0000-7000-8000-00000000dead".parse().expect("an id");
    assert_eq!(w.approves(DORA, none).says(NotFound), unseen);
    // Closed, it is no more visible; and what is seen is denied.
    w.denies(ALICE, spec).ok();
    w.withdraws(DORA, spec).says(NotFound);
    w.updates(ALICE, r#"{"review": "readers"}"#).ok();
    w.withdraws(DORA, spec).says(PermissionDenied);
    w.approves(DORA, spec).says(PermissionDenied);
    let open = w.proposes(CAROL, "another");
    w.approves(DORA, open).says(PermissionDenied);
    w.revises(DORA, open, "mine").says(PermissionDenied);
}

#[test]
fn a_specs_author_sees_it_and_doesnt_decide_on_it() {
    let mut w = World::with(ANY, &[]);
    let spec = w.proposes(CAROL, "an idea");
    w.approves(CAROL, spec).says(PermissionDenied);
    w.revises(ALICE, spec, "better").says(PermissionDenied);
    w.withdraws(ALICE, spec).says(PermissionDenied);
}

#[test]
fn l2_a_parent_is_a_message_of_the_thread() {
    let mut w = World::with(ANY, &[]);
    let message = w.posts(ALICE, "hi").ok();
    w.answers(ALICE, message, "hi yourself").ok();
    let spec = w.proposes(CAROL, "an idea");
    w.answers(ALICE, spec, "no message yet").says(NotFound);
    w.approves(ALICE, spec).ok();
    w.answers(ALICE, spec, "now it is").ok();
    // What isn't there is not found before anything is denied.
    w.updates(ALICE, r#"{"propose": "nobody"}"#).ok();
    let none: Id = "01930000-0000-7000-8000-00000000dead".parse().expect("an id");
    w.answers(CAROL, none, "hm").says(NotFound);
    w.answers(CAROL, message, "hm").says(PermissionDenied);
}

#[test]
fn a_message_is_edited_by_its_author_while_a_co_author() {
    let mut w = World::with(ANY, &[BOB]);
    let message = w.posts(BOB, "hi").ok();
    w.edits(BOB, message, "hello").ok();
    w.edits(ALICE, message, "hello").says(PermissionDenied);
    w.adds(ALICE, BOB, Role::Reader).ok();
    w.edits(BOB, message, "hello?").says(PermissionDenied);
    let none: Id = "01930000-0000-7000-8000-00000000dead".parse().expect("an id");
    w.edits(BOB, none, "hm").says(NotFound);
    let spec = w.proposes(CAROL, "an idea");
    w.edits(CAROL, spec, "a spec is no message").says(NotFound);
}

#[test]
fn a_message_is_redacted_by_its_author_or_an_owner() {
    let mut w = World::with(ANY, &[BOB, DORA]);
    let (first, second) = (w.posts(BOB, "one").ok(), w.posts(BOB, "two").ok());
    w.redacts(DORA, first).says(PermissionDenied);
    w.adds(ALICE, BOB, Role::Reader).ok();
    w.redacts(BOB, first).ok();
    w.redacts(ALICE, second).ok();
}

#[test]
fn settings_and_members_are_the_owners() {
    let mut w = World::with(ANY, &[BOB]);
    w.updates(BOB, r#"{"title": "mine"}"#).says(PermissionDenied);
    w.adds(BOB, EMIL, Role::Reader).says(PermissionDenied);
    w.removes(BOB, CAROL).says(PermissionDenied);
    w.removes(BOB, EMIL).says(PermissionDenied);
    w.removes(ALICE, EMIL).says(NotFound);
    w.adds(ALICE, BOB, Role::CoAuthor).says(Conflict);
    w.adds_flagged(ALICE, BOB, Role::CoAuthor, Some(true)).ok();
    w.leaves(BOB).ok();
}

#[test]
fn a_taken_thread_id_is_a_conflict() {
    let mut w = World::new();
    w.creates(ALICE).ok();
    w.creates(ALICE).says(Conflict);
    w.creates(EMIL).says(Conflict);
}

// --- L: the log ---

#[test]
fn l1_each_kind_says_what_it_is_about() {
    let mut w = World::with(ANY, &[]);
    let message = w.posts(ALICE, "hi").ok();
    w.edits(ALICE, message, "hello").ok();
    let spec = w.proposes(CAROL, "an idea");
    w.revises(CAROL, spec, "a better one").ok();
    w.approves(ALICE, spec).ok();
    let about: Vec<_> = w
        .log
        .iter()
        .rev()
        .take(6)
        .rev()
        .map(|record| (record.kind.as_str(), record.about, record.spec_author.is_some()))
        .collect();
    assert_eq!(
        about,
        [
            ("message_edited", Some(message), false),
            ("spec_submitted", None, true),
            ("spec_revised", Some(spec), true),
            ("approval_given", Some(spec), true),
            ("spec_resolved", None, true),
            ("message_posted", None, false),
        ]
    );
}

#[test]
fn l2_the_body_is_the_payload_as_signed() {
    let mut w = World::new();
    w.creates(ALICE).ok();
    let mut payload =
        object(r#"{"content": {"tool": "search", "z": 1}, "x-unknown": [1, 2], "content_type": "application/json"}"#);
    payload.insert("a", "kept");
    let answer = w.acts(ALICE, "action.submit_message", payload);
    let record = w.entry(answer.own().seq);
    assert_eq!(record.body.text(), Some(answer.action.payload.as_str()));
    assert_eq!(record.content_hash, answer.action.payload_hash);
    let entry = record.to_entry(true);
    assert!(entry.signature_holds(w.thread_id, &w.thread().settings().audience));
}

#[test]
fn l3_l5_the_message_of_a_revised_spec_names_the_action_that_was_signed() {
    let mut w = World::with(ANY, &[]);
    let spec = w.proposes(CAROL, "an idea");
    let revision = w.revises(CAROL, spec, "a better one").ok();
    w.approves(ALICE, spec).ok();
    let message = w.log.last().expect("a message");
    assert_eq!((message.id, message.kind.clone()), (spec, Kind::MessagePosted));
    let proof = message.proof.clone().expect("a proof");
    assert_eq!(
        (proof.id, proof.action_type.as_deref()),
        (Some(revision), Some("action.revise_spec"))
    );
    assert!(
        message
            .to_entry(true)
            .signature_holds(w.thread_id, &w.thread().settings().audience)
    );
}

#[test]
fn l5_of_an_unrevised_spec_nothing_has_to_be_named() {
    let mut w = World::with(ANY, &[]);
    let spec = w.proposes(CAROL, "an idea");
    w.approves(ALICE, spec).ok();
    let message = w.log.last().expect("a message");
    let proof = message.proof.clone().expect("a proof");
    assert_eq!(
        (proof.id, proof.action_type, proof.key, proof.audience),
        (None, None, None, None)
    );
    assert!(
        message
            .to_entry(true)
            .signature_holds(w.thread_id, &w.thread().settings().audience)
    );
}

#[test]
fn l5_key_and_audience_are_carried_where_the_reader_cant_know_them() {
    let mut w = World::new();
    w.creates_with(ALICE, r#"{"visibility": "public"}"#).ok();
    w.joins_as_agent(ROBOT).ok();
    let robot = w.log.last().expect("an entry").proof.clone().expect("a proof");
    assert_eq!((robot.key, robot.audience), (Some(key_of(ROBOT).public()), None));
    w.audience = "http://localhost:7400".parse().expect("an audience");
    w.posts(ALICE, "over loopback").ok();
    let alice = w.log.last().expect("an entry");
    let proof = alice.proof.clone().expect("a proof");
    assert_eq!((proof.key, proof.audience), (None, Some(w.audience.clone())));
    assert!(
        alice
            .to_entry(true)
            .signature_holds(w.thread_id, &w.thread().settings().audience)
    );
}

#[test]
fn l6_a_redaction_erases_what_led_to_the_message_and_its_edits() {
    let mut w = World::with(r#"{"approval": "any", "admit_authors": true}"#, &[]);
    let spec = w.proposes(CAROL, "an idea");
    w.revises(CAROL, spec, "a better one").ok();
    w.approves(ALICE, spec).ok();
    w.edits(CAROL, spec, "the best").ok();
    w.posts(ALICE, "unrelated").ok();
    w.redacts(CAROL, spec).ok();
    let erased: Vec<_> = w
        .log
        .iter()
        .filter(|record| record.body == Body::Erased(w.head().seq))
        .map(|record| record.kind.as_str())
        .collect();
    assert_eq!(
        erased,
        ["spec_submitted", "spec_revised", "message_posted", "message_edited"]
    );
    w.redacts(ALICE, spec).says(Conflict);
    w.edits(CAROL, spec, "again").says(Conflict);
}

#[test]
fn l6_a_log_with_erased_bodies_folds_to_the_same_state() {
    let mut w = World::with(ANY, &[]);
    let spec = w.proposes(CAROL, "an idea");
    w.revises(CAROL, spec, "a better one").ok();
    w.approves(ALICE, spec).ok();
    w.redacts(ALICE, spec).ok();
    let mut folded = None;
    for record in &w.log {
        apply(w.thread_id, &mut folded, record).expect("the log's next");
    }
    assert_eq!(folded, w.state);
}

#[test]
fn an_entrys_time_is_never_before_the_previous_ones() {
    let mut w = World::new();
    w.creates(ALICE).ok();
    let created = w.thread().last_activity();
    w.now -= 1000;
    w.posts(ALICE, "the clock went back").ok();
    assert_eq!(w.thread().last_activity(), created);
}

// --- A8, A9, K3, K4 ---

#[test]
fn a8_the_same_action_is_a_duplicate_whatever_the_rights_by_now() {
    let mut w = World::with(ANY, &[BOB]);
    let posted = w.posts(BOB, "hi");
    w.removes(ALICE, BOB).ok();
    let again = w.hands_in(BOB, posted.action.clone());
    again.is_a_duplicate_of(&posted);
    // Signed anew, hours later, it is still the same action.
    w.waits(DAY);
    let anew = w.signs_as(
        BOB,
        posted.action.id,
        "action.submit_message",
        object(r#"{"content": "hi"}"#),
    );
    assert_ne!(anew.sig, posted.action.sig);
    w.hands_in(BOB, anew).is_a_duplicate_of(&posted);
}

#[test]
fn a8_another_type_or_payload_is_a_conflict() {
    let mut w = World::with(ANY, &[]);
    let posted = w.posts(ALICE, "hi").ok();
    let other = w.signs_as(ALICE, posted, "action.submit_message", object(r#"{"content": "ho"}"#));
    w.hands_in(ALICE, other).says(Conflict);
    let mut join = object("{}");
    join.insert("agent", true);
    let other = w.signs_as(ALICE, posted, "action.join", join);
    w.hands_in(ALICE, other).says(Conflict);
}

#[test]
fn a8_another_author_learns_of_it_only_where_they_read() {
    let mut w = World::with(ANY, &[]);
    let posted = w.posts(ALICE, "hi").ok();
    let same = object(r#"{"content": "hi"}"#);
    let by_carol = w.signs_as(CAROL, posted, "action.submit_message", same.clone());
    w.hands_in(CAROL, by_carol).says(Conflict);
    let by_emil = w.signs_as(EMIL, posted, "action.submit_message", same);
    w.hands_in(EMIL, by_emil).says(NotFound);
}

#[test]
fn a8_a_spec_that_was_resolved_has_its_submission_as_its_own_entry() {
    let mut w = World::with(r#"{"approval": "any", "admit_authors": true}"#, &[]);
    let submitted = w.posts(CAROL, "an idea");
    w.approves(ALICE, submitted.ok()).ok();
    w.redacts(ALICE, submitted.ok()).ok();
    let again = w.hands_in(CAROL, submitted.action.clone());
    again.is_a_duplicate_of(&submitted);
    assert_eq!(again.own().kind, Kind::SpecSubmitted);
}

#[test]
fn a8_creating_again_is_a_duplicate() {
    let mut w = World::new();
    let created = w.creates(ALICE);
    w.hands_in(ALICE, created.action.clone()).is_a_duplicate_of(&created);
}

#[test]
fn a9_a_receipt_names_the_root_at_its_entry() {
    let mut w = World::with(ANY, &[]);
    let spec = w.proposes(CAROL, "an idea");
    let answer = w.approves(ALICE, spec);
    let Step::Committed { own, root } = &answer.step else {
        panic!("{answer:?}")
    };
    assert_eq!((own.kind.as_str(), *root), ("approval_given", w.entry(own.seq).root));
    assert!(own.seq < w.head().seq);
}

#[test]
fn k3_a_timestamp_too_far_from_the_servers_clock() {
    let mut w = World::with(ANY, &[]);
    for (offset, fits) in [(5 * MINUTE, true), (5 * MINUTE + 1, false)] {
        for now in [w.now + offset, w.now - offset] {
            let action = w.signs(ALICE, "action.submit_message", object(r#"{"content": "hi"}"#));
            let signed_at = std::mem::replace(&mut w.now, now);
            let answer = w.hands_in(ALICE, action);
            if fits {
                answer.ok();
            } else {
                assert_eq!(answer.says(ClockSkew).server_time, Some(Timestamp::saturating(now)));
            }
            w.now = signed_at;
        }
    }
}

#[test]
fn k3_a_duplicate_is_exempt_and_the_right_to_read_comes_first() {
    let mut w = World::with(ANY, &[]);
    let posted = w.posts(ALICE, "hi");
    let outside = w.signs(EMIL, "action.submit_message", object(r#"{"content": "hi"}"#));
    w.waits(DAY);
    w.hands_in(ALICE, posted.action.clone()).is_a_duplicate_of(&posted);
    w.hands_in(EMIL, outside).says(NotFound);
}

#[test]
fn k4_what_was_seen_is_in_the_log() {
    let mut w = World::with(ANY, &[]);
    for seen in [Cursor::START, w.head()] {
        w.seen = Some(seen);
        w.posts(ALICE, "hi").ok();
    }
    let early = Cursor {
        seq: seq(1),
        root: w.entry(seq(1)).root,
    };
    w.seen = Some(early);
    let first = w.posts(ALICE, "hi");
    first.ok();
    assert_eq!(
        w.entry(first.own().seq).proof.clone().and_then(|proof| proof.seen),
        Some(early)
    );
    for wrong in [
        Cursor {
            seq: w.head().seq.next(),
            root: w.head().root,
        },
        Cursor {
            seq: seq(1),
            root: w.head().root,
        },
        Cursor {
            seq: seq(0),
            root: w.head().root,
        },
        Cursor {
            seq: w.head().seq,
            root: Hash::EMPTY,
        },
    ] {
        w.seen = Some(wrong);
        w.posts(ALICE, "hi").says(StateDesync);
    }
    // K4 comes before other permissions, and after the right to read.
    w.updates(CAROL, r#"{"title": "mine"}"#).says(StateDesync);
    w.posts(EMIL, "hi").says(NotFound);
}

// --- Section 12 ---

#[test]
fn limits_of_open_specs() {
    let mut w = World::with(ANY, &[]);
    for n in 0..3 {
        w.proposes(CAROL, &format!("idea {n}"));
    }
    w.posts(CAROL, "one more").says(Limit);
    w.limits.open_specs_per_author = 100;
    w.limits.open_specs_per_thread = 3;
    w.posts(CAROL, "one more").says(Limit);
    let oldest = w.thread().open_specs().next().expect("open").id;
    w.withdraws(CAROL, oldest).ok();
    w.proposes(CAROL, "one more");
}

#[test]
fn limits_of_members() {
    let mut w = World::new();
    w.limits.members = 2;
    let two = format!(
        r#"{{"members": [{{"user_id": "{}", "role": "reader"}}, {{"user_id": "{}", "role": "reader"}}]}}"#,
        user(BOB),
        user(CAROL)
    );
    w.creates_with(ALICE, &two).says(Limit);
    w.creates_with(ALICE, r#"{"visibility": "public"}"#).ok();
    w.adds(ALICE, BOB, Role::Reader).ok();
    w.adds(ALICE, CAROL, Role::Reader).says(Limit);
    w.joins(CAROL).says(Limit);
    w.adds(ALICE, BOB, Role::CoAuthor).ok();
}

#[test]
fn limits_of_sizes() {
    let mut w = World::new();
    let title = |n: usize| format!(r#"{{"title": "{}"}}"#, "t".repeat(n));
    w.creates_with(ALICE, &title(257)).says(ContentTooLarge);
    w.creates_with(ALICE, &title(256)).ok();
    w.updates(ALICE, &title(257)).says(ContentTooLarge);
    w.updates(ALICE, &title(256)).ok();
    let content_type = |n: usize| {
        object(&format!(
            r#"{{"content": 1, "content_type": "text/{}"}}"#,
            "x".repeat(n - 5)
        ))
    };
    w.acts(ALICE, "action.submit_message", content_type(128))
        .says(ContentTooLarge);
    w.acts(ALICE, "action.submit_message", content_type(127)).ok();
    // Fields that the server doesn't know count too (E3).
    let mut payload = object(r#"{"content": 1}"#);
    payload.insert("unknown", "u".repeat(64 * 1024));
    w.acts(ALICE, "action.submit_message", payload).says(ContentTooLarge);
    w.adds(ALICE, CAROL, Role::Reader).ok();
    let spec = w.proposes(CAROL, "an idea");
    let reason = |n: usize, hash: Hash| {
        object(&format!(
            r#"{{"spec": "{spec}", "content_hash": "{hash}", "decision": "request_changes", "reason": "{}"}}"#,
            "r".repeat(n)
        ))
    };
    let hash = w.hash_of(spec);
    w.acts(ALICE, "action.process_approval", reason(1025, hash))
        .says(ContentTooLarge);
    w.acts(ALICE, "action.process_approval", reason(1024, hash)).ok();
    // To a stranger, size says nothing.
    let mut payload = object(r#"{"content": 1}"#);
    payload.insert("unknown", "u".repeat(64 * 1024));
    w.acts(EMIL, "action.submit_message", payload).says(NotFound);
}

// --- Y1, V2: what awaits whom ---

#[test]
fn y1_specs_await_those_who_decide_and_havent() {
    let mut w = World::with(UNANIMOUS, &[BOB]);
    w.adds(ALICE, DORA, Role::CoAuthor).ok();
    let spec = w.proposes(CAROL, "one");
    w.proposes(CAROL, "two");
    w.requests_changes(ALICE, spec).ok();
    let summary = w.thread().summary();
    assert_eq!(
        summary.awaiting,
        [(user(ALICE), 1), (user(BOB), 2)],
        "Dora hasn't joined"
    );
    assert_eq!(w.thread().awaiting(&user(ALICE)).count(), 1);
    assert_eq!(w.thread().awaiting(&user(DORA)).count(), 0);
    assert_eq!(w.thread().awaiting(&user(CAROL)).count(), 0);
    w.revises(CAROL, spec, "one, better").ok();
    assert_eq!(w.thread().summary().awaiting, [(user(ALICE), 2), (user(BOB), 2)]);
    assert_eq!(w.thread().summary().due, w.thread().next_due());
}

#[test]
fn y1_messages_are_counted_as_they_are_posted() {
    let mut w = World::with(ANY, &[]);
    w.posts(ALICE, "one").ok();
    let spec = w.proposes(CAROL, "two");
    assert_eq!(w.thread().messages(), 1);
    w.approves(ALICE, spec).ok();
    let counts: Vec<u64> = w
        .log
        .iter()
        .filter(|record| record.kind == Kind::MessagePosted)
        .map(|record| record.messages)
        .collect();
    assert_eq!(counts, [1, 2]);
}

// --- Y8: views ---

#[test]
fn y8_a_view_widens_by_being_added_by_a_role_by_review_and_by_visibility() {
    let mut w = World::new();
    w.creates(ALICE).ok();
    let widened = |w: &World, who: &str| widened_at(w.thread(), &user(who)).get();
    w.adds(ALICE, CAROL, Role::Reader).ok();
    let added = w.head().seq.get();
    assert_eq!(widened(&w, CAROL), added);
    w.posts(ALICE, "hi").ok();
    w.adds(ALICE, CAROL, Role::CoAuthor).ok();
    let promoted = w.head().seq.get();
    assert_eq!(widened(&w, CAROL), promoted);
    w.adds(ALICE, CAROL, Role::Owner).ok();
    assert_eq!(widened(&w, CAROL), promoted, "an owner sees no more than a co-author");
    w.adds(ALICE, CAROL, Role::Reader).ok();
    assert_eq!(widened(&w, CAROL), promoted, "narrowing doesn't count");
    w.updates(ALICE, r#"{"review": "readers"}"#).ok();
    let reviewed = w.head().seq.get();
    assert_eq!(
        (widened(&w, CAROL), widened(&w, ALICE)),
        (reviewed, 1),
        "Alice saw all of it before"
    );
    w.updates(ALICE, r#"{"visibility": "public"}"#).ok();
    let public = w.head().seq.get();
    assert_eq!((widened(&w, CAROL), widened(&w, EMIL)), (reviewed, public));
    w.joins(EMIL).ok();
    assert_eq!(widened(&w, EMIL), public, "who reads already gains nothing by joining");
    w.adds(ALICE, CAROL, Role::CoAuthor).ok();
    assert_eq!(widened(&w, CAROL), reviewed, "nor by a role, where all readers review");
}

#[test]
fn y8_an_author_who_is_admitted_sees_more() {
    let mut w = World::with(r#"{"approval": "any", "admit_authors": true}"#, &[]);
    let spec = w.proposes(CAROL, "an idea");
    w.approves(ALICE, spec).ok();
    assert_eq!(widened_at(w.thread(), &user(CAROL)), w.head().seq);
}

#[test]
fn y8_who_loses_the_right_to_read_and_by_which_entry() {
    let mut w = World::new();
    w.creates_with(ALICE, r#"{"visibility": "public"}"#).ok();
    w.joins(BOB).ok();
    w.joins(CAROL).ok();
    let before = w.thread().clone();
    w.removes(ALICE, BOB).ok();
    assert!(lost(&before, w.thread()).is_empty(), "everyone reads it");
    w.updates(ALICE, r#"{"visibility": "private"}"#).ok();
    let private = w.head().seq;
    w.leaves(CAROL).ok();
    let losses = losses(&before, &w.log[before.head().seq.get() as usize..]).expect("the log's next");
    let told: Vec<_> = losses
        .iter()
        .map(|(seq, lost)| (*seq, lost.strangers, lost.members.clone()))
        .collect();
    assert_eq!(
        told,
        [(private, true, vec![]), (private.next(), false, vec![user(CAROL)])]
    );
}

#[test]
fn views_of_one_class_share_frames_and_an_own_spec_is_framed_alone() {
    let mut w = World::with(ANY, &[BOB]);
    w.adds(ALICE, DORA, Role::Reader).ok();
    w.proposes(CAROL, "an idea");
    let submitted = w.log.last().expect("a spec").clone();
    let of = |who: &str| view(w.thread(), &user(who)).expect("a reader");
    assert_eq!(of(ALICE).class(), of(BOB).class());
    assert_eq!(of(CAROL).class(), of(DORA).class());
    assert_ne!(of(ALICE).class(), of(DORA).class());
    assert_eq!(of(ALICE).only(Streams::UPDATES).class(), of(DORA).class());
    let (stream, author) = (submitted.stream(), submitted.spec_author.as_ref());
    assert!(of(CAROL).sees_own(stream, author) && of(CAROL).sees(stream, author));
    assert!(!of(DORA).sees_own(stream, author) && !of(DORA).sees(stream, author));
    assert!(!of(ALICE).sees_own(stream, author) && of(ALICE).class().sees(stream));
    assert!(!of(CAROL).only(Streams::UPDATES).sees_own(stream, author));
    assert_eq!(of(CAROL).sight(Stream::Approvals), Sight::Own);
}

// --- L8: what may be hidden ---

#[test]
fn l8_hidden_is_in_order_where_not_subscribed_not_seen_whole_or_lost_since() {
    let w = World::with(ANY, &[BOB]);
    let whole = view(w.thread(), &user(BOB));
    let own = view(w.thread(), &user(CAROL));
    let may = |stream, subscribed, known: &[Option<&choir_core::view::View>]| {
        may_hide(stream, subscribed, known.iter().copied())
    };
    let (whole, own) = (whole.as_ref(), own.as_ref());
    assert!(!may(Stream::Specs, Streams::ALL, &[whole]));
    assert!(may(Stream::Specs, Streams::UPDATES, &[whole]));
    assert!(
        may(Stream::Specs, Streams::ALL, &[own, whole]),
        "it wasn't seen whole at the entry"
    );
    assert!(
        may(Stream::Specs, Streams::ALL, &[whole, own, whole]),
        "it was lost since"
    );
    assert!(may(Stream::Specs, Streams::ALL, &[whole, None]));
    assert!(
        may(Stream::Approvals, Streams::ALL, &[]),
        "nothing that is held would tell"
    );
    assert!(
        !may(Stream::Updates, Streams::UPDATES, &[]),
        "who reads at all reads all updates"
    );
}

#[test]
fn l8_a_client_knows_its_own_view_over_time() {
    let mut w = World::new();
    w.creates(ALICE).ok();
    w.adds(ALICE, BOB, Role::Reader).ok();
    let added = w.head().seq;
    w.adds(ALICE, BOB, Role::CoAuthor).ok();
    let promoted = w.head().seq;
    let mut history = ViewHistory::from_start(user(BOB));
    let mut taken = 0;
    let mut catch_up = |history: &mut ViewHistory, w: &World| {
        for record in &w.log[taken..] {
            history.take(&record.to_entry(true));
        }
        taken = w.log.len();
    };
    catch_up(&mut history, &w);
    assert_eq!(history.current(), w.view(BOB).as_ref());
    assert!(history.in_order(added, Stream::Specs, Streams::ALL));
    assert!(!history.in_order(promoted, Stream::Specs, Streams::ALL));
    w.adds(ALICE, BOB, Role::Reader).ok();
    catch_up(&mut history, &w);
    assert!(
        history.in_order(promoted, Stream::Specs, Streams::ALL),
        "the right is lost since"
    );
    let snapshot = ViewHistory::from_snapshot(user(ALICE), w.head().seq, w.thread().settings(), Some(Role::Owner));
    assert!(
        snapshot.in_order(promoted, Stream::Specs, Streams::ALL),
        "before the snapshot nothing tells"
    );
    assert!(!snapshot.in_order(w.head().seq.next(), Stream::Specs, Streams::ALL));
}

// --- Batches ---

#[test]
fn s8_a_batch_is_closed_by_what_is_due() {
    let mut w = World::with(r#"{"expires_ms": 60000}"#, &[]);
    w.proposes(CAROL, "an idea");
    let early = w.signs(ALICE, "action.submit_message", object(r#"{"content": "early"}"#));
    let late = w.signs(ALICE, "action.submit_message", object(r#"{"content": "late"}"#));
    let mut batch = Batch::on(w.thread_id, w.state.clone());
    assert!(matches!(
        w.decides_in(&mut batch, ALICE, &early),
        Step::Committed { .. }
    ));
    w.waits(MINUTE);
    // The batch holds something already: the expiry isn't mixed into it.
    assert_eq!(w.decides_in(&mut batch, ALICE, &late), Step::Later);
    assert!(batch.is_closed());
    w.appends(batch.finish().expect("the early message"));
    assert_eq!(w.last(), ["message_posted"]);
    let mut batch = Batch::on(w.thread_id, w.state.clone());
    assert_eq!(w.decides_in(&mut batch, ALICE, &late), Step::Later);
    assert_eq!(
        w.decides_in(&mut batch, ALICE, &early),
        Step::Later,
        "nor a duplicate, whose answer could be told too early"
    );
    w.appends(batch.finish().expect("the expiry"));
    assert_eq!(w.last(), ["spec_resolved expired"]);
    let mut batch = Batch::on(w.thread_id, w.state.clone());
    assert!(matches!(w.decides_in(&mut batch, ALICE, &late), Step::Committed { .. }));
}

#[test]
fn a_batch_finds_what_it_decided_itself() {
    let mut w = World::new();
    w.creates(ALICE).ok();
    let base = w.head();
    let mut batch = Batch::on(w.thread_id, w.state.clone());
    let message = w.signs(ALICE, "action.submit_message", object(r#"{"content": "hi"}"#));
    let about = |field: &str, id: Id| object(&format!(r#"{{"{field}": "{id}", "content": "ho"}}"#));
    let answer = w.signs(ALICE, "action.submit_message", about("parent", message.id));
    let edit = w.signs(ALICE, "action.edit_message", about("message", message.id));
    let redact = w.signs(
        ALICE,
        "action.redact_message",
        object(&format!(r#"{{"message": "{}"}}"#, message.id)),
    );
    for action in [&message, &answer, &edit, &redact] {
        assert!(matches!(
            w.decides_in(&mut batch, ALICE, action),
            Step::Committed { .. }
        ));
    }
    let first = batch.records()[0].clone();
    match w.decides_in(&mut batch, ALICE, &message) {
        Step::Duplicate { own, root } => assert_eq!((own.seq, root), (first.seq, Some(first.root))),
        other => panic!("{other:?}"),
    }
    let again = w.signs(
        ALICE,
        "action.redact_message",
        object(&format!(r#"{{"message": "{}"}}"#, message.id)),
    );
    assert!(matches!(w.decides_in(&mut batch, ALICE, &again), Step::Refused(refusal) if refusal.code == Conflict));
    let append = batch.finish().expect("four entries");
    assert_eq!((append.expected, append.records.len()), (base, 4));
    let redaction = append.next.head().seq;
    let erased: Vec<Seq> = append
        .facts
        .erase
        .iter()
        .map(|(erased, by)| {
            assert_eq!(*by, redaction);
            *erased
        })
        .collect();
    assert_eq!(erased, [first.seq, first.seq.next().next()]);
    assert_eq!(
        append.records[0].body,
        Body::Erased(redaction),
        "it is never written at all"
    );
    assert!(append.records[1].body.text().is_some());
    w.appends(append);
}

#[test]
fn a_batch_begins_a_thread_and_goes_on() {
    let mut w = World::new();
    let mut batch = Batch::on(w.thread_id, None);
    let early = w.signs(ALICE, "action.submit_message", object(r#"{"content": "hi"}"#));
    assert!(matches!(w.decides_in(&mut batch, ALICE, &early), Step::Refused(refusal) if refusal.code == NotFound));
    let create = w.signs(
        ALICE,
        "action.create_thread",
        object(r#"{"title": "t", "audience": "https://choir.example"}"#),
    );
    assert!(matches!(
        w.decides_in(&mut batch, ALICE, &create),
        Step::Committed { .. }
    ));
    assert!(matches!(
        w.decides_in(&mut batch, ALICE, &early),
        Step::Committed { .. }
    ));
    let append = batch.finish().expect("two entries");
    assert_eq!(append.expected, Cursor::START);
    w.appends(append);
    assert!(
        Batch::on(w.thread_id, w.state.clone()).finish().is_none(),
        "nothing decided, nothing appended"
    );
}

#[test]
fn k4_what_was_seen_may_have_been_decided_in_the_batch() {
    let mut w = World::new();
    w.creates(ALICE).ok();
    let mut batch = Batch::on(w.thread_id, w.state.clone());
    let base = w.head();
    let first = w.signs(ALICE, "action.submit_message", object(r#"{"content": "one"}"#));
    let _ = w.decides_in(&mut batch, ALICE, &first);
    w.seen = Some(base);
    let second = w.signs(ALICE, "action.submit_message", object(r#"{"content": "two"}"#));
    assert!(matches!(
        w.decides_in(&mut batch, ALICE, &second),
        Step::Committed { .. }
    ));
}

#[test]
fn k4_the_batch_knows_the_root_at_its_base_without_the_log() {
    let mut w = World::new();
    w.creates(ALICE).ok();
    let mut batch = Batch::on(w.thread_id, w.state.clone());
    w.seen = Some(w.head());
    for content in ["one", "two"] {
        let text = format!(r#"{{"content": "{content}"}}"#);
        let action = w.signs(ALICE, "action.submit_message", object(&text));
        let lookups = Lookups {
            seen_root: None,
            ..w.looks_up(&action)
        };
        assert!(matches!(
            w.decides_with(&mut batch, ALICE, &action, lookups),
            Step::Committed { .. }
        ));
    }
}

// --- Replay and saved states ---

#[test]
fn apply_takes_nothing_but_the_logs_next() {
    let mut w = World::with(ANY, &[]);
    w.posts(ALICE, "hi").ok();
    let last = w.log.pop().expect("an entry");
    let mut before = None;
    for record in &w.log {
        apply(w.thread_id, &mut before, record).expect("the log's next");
    }
    let refuses = |record: Record| {
        let mut state = before.clone();
        let error = apply(w.thread_id, &mut state, &record).expect_err("it isn't the next");
        assert_eq!(state, before, "and nothing changes");
        error
    };
    assert_eq!(
        refuses(Record {
            seq: last.seq.next(),
            ..last.clone()
        }),
        ApplyError::Seq {
            expected: last.seq,
            found: last.seq.next()
        }
    );
    assert_eq!(
        refuses(Record {
            root: Hash::EMPTY,
            ..last.clone()
        }),
        ApplyError::Tree(last.seq)
    );
    assert_eq!(
        refuses(Record {
            nodes: vec![],
            ..last.clone()
        }),
        ApplyError::Tree(last.seq)
    );
    assert_eq!(
        refuses(Record {
            author: user(BOB),
            ..last.clone()
        }),
        ApplyError::Tree(last.seq)
    );
    assert_eq!(
        refuses(Record {
            body: w.log[0].body.clone(),
            ..last.clone()
        }),
        ApplyError::Tree(last.seq)
    );
    assert_eq!(
        refuses(Record {
            messages: 7,
            ..last.clone()
        }),
        ApplyError::Impossible(last.seq)
    );
    let thread = before.clone().expect("a thread");
    let spec = w.thread_id;
    for (kind, body) in [
        (Kind::ThreadCreated, "{}".to_string()),
        (
            Kind::SpecResolved,
            format!(r#"{{"spec": "{spec}", "outcome": "denied"}}"#),
        ),
        (Kind::MemberRemoved, format!(r#"{{"user_id": "{}"}}"#, user(EMIL))),
        (Kind::ThreadUpdated, r#"{"title": 7}"#.to_string()),
        (Kind::SpecRevised, "{}".to_string()),
        (Kind::Other("spec_claimed".into()), "{}".to_string()),
    ] {
        assert_eq!(
            refuses(next_record(&thread, kind, ALICE, &body)),
            ApplyError::Impossible(last.seq)
        );
    }
    let mut nothing = None;
    assert_eq!(
        apply(
            w.thread_id,
            &mut nothing,
            &next_record(&thread, Kind::MessagePosted, ALICE, "{}")
        ),
        Err(ApplyError::Seq {
            expected: seq(1),
            found: last.seq
        })
    );
}

#[test]
fn s9_after_an_approval_only_its_message_can_follow() {
    let mut w = World::with(ANY, &[]);
    let spec = w.proposes(CAROL, "an idea");
    w.approves(ALICE, spec).ok();
    let mut state = None;
    for record in &w.log[..w.log.len() - 1] {
        apply(w.thread_id, &mut state, record).expect("the log's next");
    }
    let between = state.clone().expect("a thread");
    assert_eq!(Thread::decode(&between.encode()).as_ref(), Ok(&between));
    let other = next_record(&between, Kind::MessagePosted, ALICE, r#"{"content": "hi"}"#);
    assert_eq!(
        apply(w.thread_id, &mut state, &other),
        Err(ApplyError::Impossible(other.seq))
    );
}

#[test]
fn a_damaged_saved_state_is_an_error() {
    let mut w = World::with(ANY, &[BOB]);
    let spec = w.proposes(CAROL, "an idea");
    w.requests_changes(ALICE, spec).ok();
    w.leaves(BOB).ok();
    let saved = w.thread().encode();
    assert_eq!(Thread::decode(&saved).as_ref(), Ok(w.thread()));
    for at in 0..saved.len() {
        let mut damaged = saved.clone();
        damaged[at] ^= 0x10;
        assert!(Thread::decode(&damaged).is_err(), "byte {at}");
        assert!(Thread::decode(&saved[..at]).is_err(), "cut at {at}");
    }
    assert_eq!(Thread::decode(b"choir.v1 state 2\n\n{}"), Err(SavedError::Format));
    let resealed = |text: &str| format!("choir.v1 state 1\n{}\n{text}", Hash::of(text.as_bytes()).to_hex());
    assert_eq!(Thread::decode(resealed("{}").as_bytes()), Err(SavedError::Impossible));
    let text = String::from_utf8(saved).expect("text");
    let body = text.splitn(3, '\n').nth(2).expect("three lines");
    assert!(Thread::decode(resealed(body).as_bytes()).is_ok());
    assert_eq!(
        Thread::decode(resealed(&body.replace("an idea", "a forgery")).as_bytes()),
        Err(SavedError::Impossible)
    );
}

// --- K7 ---

/// The log's nodes, the way that an engine keeps them.
struct Stored<'a>(&'a [Record]);

impl Nodes for Stored<'_> {
    type Error = ();

    fn node(&mut self, completed_by: u64, height: u32) -> Result<Hash, ()> {
        self.0[completed_by as usize - 1]
            .nodes
            .get(height as usize)
            .copied()
            .ok_or(())
    }
}

fn server_key() -> SecretKey {
    SecretKey::from_seed(&[42; 32])
}

fn receipt_of(w: &World, spec: Id) -> DecisionReceipt {
    let mut needed = Needed::new(w.thread_id, spec);
    for record in &w.log {
        if needed.see(record).expect("the log's next") {
            break;
        }
    }
    let entries = needed.seqs().expect("resolved").into_iter().map(|seq| {
        let path = inclusion_path(seq.get() - 1, w.head().seq.get(), &mut Stored(&w.log)).expect("a path");
        ProvedEntry::new(w.entry(seq), path)
    });
    let origin = origin(w.thread().settings().audience.as_str(), &w.thread_id.to_string());
    let checkpoint = Checkpoint {
        origin,
        size: w.head().seq.get(),
        root: w.head().root,
        time_ms: w.now,
    }
    .sign(&server_key());
    DecisionReceipt::make(w.thread(), spec, server_key().public(), checkpoint, entries.collect())
}

#[test]
fn k7_a_receipt_shows_how_a_spec_was_decided() {
    let mut w = World::new();
    w.creates_with(ALICE, r#"{"policy": {"approval": "majority", "admit_authors": true}}"#)
        .ok();
    for co_author in [BOB, DORA] {
        w.adds(ALICE, co_author, Role::CoAuthor).ok();
    }
    w.adds(ALICE, CAROL, Role::Reader).ok();
    w.posts(BOB, "by this Bob has joined").ok();
    let joined = w.head().seq;
    w.posts(BOB, "this tells nothing").ok();
    let chatter = w.head().seq;
    let spec = w.proposes(CAROL, "an idea");
    w.revises(CAROL, spec, "a better one").ok();
    w.requests_changes(ALICE, spec).ok();
    w.approves(BOB, spec).ok();
    w.approves(ALICE, spec).ok();
    w.posts(ALICE, "after it all").ok();
    let receipt = receipt_of(&w, spec);
    let seqs: Vec<Seq> = receipt.entries.iter().map(|proved| proved.entry.seq).collect();
    assert!(seqs.contains(&joined) && !seqs.contains(&chatter));
    let verdict = verify(&receipt.to_json(), Some(&server_key().public()));
    assert_eq!(
        (verdict.outcome, verdict.fails, verdict.erased),
        (Some(Outcome::Approved), vec![], vec![])
    );
    // Later it is redacted; the receipt still holds, and names what is gone.
    w.redacts(ALICE, spec).ok();
    let verdict = receipt_of(&w, spec).verify(None);
    assert!(verdict.is_valid(), "{:?}", verdict.fails);
    assert_eq!(verdict.erased.len(), 3);
}

#[test]
fn k7_every_outcome_has_its_receipt() {
    let mut w = World::with(r#"{"approval": {"at_least": 2}, "expires_ms": 60000}"#, &[BOB, EMIL]);
    w.adds(ALICE, DORA, Role::Reader).ok();
    let left = w.proposes(DORA, "leaves");
    let denied = w.proposes(CAROL, "denied");
    let expired = w.proposes(CAROL, "expires");
    w.denies(ALICE, denied).ok();
    w.leaves(DORA).ok();
    w.denies(BOB, denied).ok();
    w.waits(MINUTE);
    assert!(w.expires());
    let withdrawn = w.proposes(CAROL, "withdrawn");
    w.withdraws(CAROL, withdrawn).ok();
    for (spec, outcome) in [
        (left, Outcome::AuthorLeft),
        (denied, Outcome::Denied),
        (expired, Outcome::Expired),
    ] {
        let verdict = receipt_of(&w, spec).verify(None);
        assert_eq!((verdict.outcome, verdict.fails), (Some(outcome), vec![]));
    }
    let mut needed = Needed::new(w.thread_id, withdrawn);
    for record in &w.log {
        assert!(!needed.see(record).expect("the log's next"));
    }
    assert_eq!(needed.seqs(), None, "a spec that was withdrawn was not decided");
}

#[test]
fn k7_who_left_and_came_back_counts_by_their_second_joining() {
    let mut w = World::with(UNANIMOUS, &[BOB]);
    w.removes(ALICE, BOB).ok();
    w.adds(ALICE, BOB, Role::CoAuthor).ok();
    let spec = w.proposes(CAROL, "an idea");
    w.approves(BOB, spec).ok();
    w.approves(ALICE, spec).ok();
    assert_eq!(receipt_of(&w, spec).verify(None).fails, vec![]);
}

#[test]
fn k7_decisions_on_an_earlier_revision_dont_count() {
    let mut w = World::with(r#"{"approval": {"at_least": 2}}"#, &[BOB, DORA]);
    let spec = w.proposes(CAROL, "an idea");
    w.approves(BOB, spec).ok();
    w.revises(CAROL, spec, "a better one").ok();
    w.approves(DORA, spec).ok();
    w.approves(ALICE, spec).ok();
    let mut receipt = receipt_of(&w, spec);
    assert_eq!(receipt.verify(None).fails, vec![]);
    let last = receipt
        .entries
        .iter()
        .rposition(|proved| proved.entry.kind == Kind::ApprovalGiven);
    receipt.entries.remove(last.expect("Alice's"));
    let (given, says) = (None, Outcome::Approved);
    assert_eq!(receipt.verify(None).fails, vec![Failure::Outcome { given, says }]);
}

#[test]
fn k7_what_is_wrong_is_named() {
    let mut w = World::with(UNANIMOUS, &[BOB]);
    let spec = w.proposes(CAROL, "an idea");
    w.approves(BOB, spec).ok();
    w.approves(ALICE, spec).ok();
    let good = receipt_of(&w, spec);
    let fails = |change: &dyn Fn(&mut DecisionReceipt)| {
        let mut receipt = good.clone();
        change(&mut receipt);
        receipt.verify(None).fails
    };
    assert_eq!(fails(&|_| {}), vec![]);
    let at = |kind: Kind| {
        good.entries
            .iter()
            .position(|proved| proved.entry.kind == kind)
            .expect("there")
    };
    let seq_of = |kind: Kind| good.entries[at(kind)].entry.seq;
    for kind in [
        Kind::ThreadCreated,
        Kind::SpecSubmitted,
        Kind::SpecResolved,
        Kind::MessagePosted,
    ] {
        let fails = fails(&|receipt| drop(receipt.entries.remove(at(kind.clone()))));
        assert!(fails.contains(&Failure::Missing(kind.clone())), "{kind}: {fails:?}");
    }
    let decision = at(Kind::ApprovalGiven);
    assert_eq!(
        fails(&|receipt| drop(receipt.entries.remove(decision))),
        vec![Failure::Outcome {
            given: None,
            says: Outcome::Approved
        }]
    );
    assert!(
        fails(&|receipt| receipt.entries.swap(0, 1))
            .iter()
            .any(|failure| matches!(failure, Failure::Order(_)))
    );
    assert_eq!(
        fails(&|receipt| receipt.entries[decision].path.clear()),
        vec![Failure::Path(seq_of(Kind::ApprovalGiven))]
    );
    let unsigned = fails(&|receipt| receipt.entries[decision].entry.proof = None);
    assert!(
        unsigned.contains(&Failure::Signature(seq_of(Kind::ApprovalGiven))),
        "{unsigned:?}"
    );
    let erased = fails(&|receipt| receipt.entries[decision].entry.body = Body::Erased(seq(99)));
    assert!(
        erased.contains(&Failure::Body(seq_of(Kind::ApprovalGiven))),
        "{erased:?}"
    );
    assert!(matches!(
        fails(&|receipt| receipt.checkpoint = receipt.checkpoint.replace("time ", "time 1"))[..],
        [Failure::Checkpoint(_)]
    ));
    let elsewhere = fails(&|receipt| receipt.audience = "https://elsewhere.example".parse().expect("an audience"));
    assert!(elsewhere.contains(&Failure::Audience), "{elsewhere:?}");
    assert!(matches!(verify("{}", None).fails[..], [Failure::Format(_)]));
    assert!(matches!(verify("not JSON", None).fails[..], [Failure::Format(_)]));
    assert_eq!(
        good.verify(Some(&key_of(EMIL).public())).fails,
        vec![Failure::ServerKey]
    );
}

/// Only what the types promise: an append is worth nothing on another head.
#[test]
fn an_append_names_the_head_that_it_was_decided_on() {
    let mut w = World::with(r#"{"expires_ms": 60000}"#, &[]);
    w.proposes(CAROL, "an idea");
    let Append { expected, records, .. } = expire(w.thread(), Timestamp::saturating(w.now + MINUTE))
        .expect("folded")
        .expect("due");
    assert_eq!(expected, w.head());
    assert_eq!(records[0].seq, w.head().seq.next());
}
