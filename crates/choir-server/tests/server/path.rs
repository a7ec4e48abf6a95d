//! The whole path: a signed message from one client, durably into the log, and live to another.

use crate::world::{World, contents, user};
use choir_protocol::message::{ReceiptStatus, SnapshotReason};

#[tokio::test]
async fn a_message_goes_durably_into_the_log_and_live_to_the_others() {
    let world = World::start().await;
    let mut alice = world.client("alice").await;
    let mut bob = world.client("bob").await;
    let thread = alice.creates(&[("bob", "co_author")]).await;

    let (subscribed, snapshot) = bob.subscribes(thread).await;
    let snapshot = snapshot.unwrap();
    assert_eq!(
        (subscribed.seq.get(), subscribed.head.get(), snapshot.recent.to.get()),
        (1, 1, 1)
    );
    assert_eq!(snapshot.reason, SnapshotReason::Initial);
    assert!(snapshot.members.iter().any(|member| member.user_id == user("bob")));

    let (_, receipt) = alice.posts(thread, "hello").await;
    assert_eq!(
        (receipt.status, receipt.seq.get(), receipt.kind.as_str()),
        (ReceiptStatus::Committed, 2, "message_posted")
    );
    let head = world.log.head(thread).await.unwrap().unwrap();
    assert_eq!((head.cursor.seq, head.cursor.root), (receipt.seq, receipt.root));

    let update = bob.update(thread).await;
    assert_eq!((update.from.get(), update.to.get(), update.root), (1, 2, receipt.root));
    assert_eq!(contents(&[update]), ["hello"]);

    // And the other way, since two make a conversation.
    alice.subscribes(thread).await;
    bob.posts(thread, "hello yourself").await;
    assert_eq!(contents(&[alice.update(thread).await]), ["hello yourself"]);

    let report = world.ended().await;
    assert_eq!((report.connections, report.actions, report.receipts), (2, 3, 3));
    assert!(report.orderly);
}
