//! The same server over the log that survives: a restart loses nothing that was acknowledged (G2), and clients go on where they were.

use std::sync::Arc;

use choir_log::Log;
use choir_log::embedded::{EmbeddedLog, Options};
use choir_protocol::message::ReceiptStatus;

use crate::world::{Verifier, World, contents};

fn open(directory: &std::path::Path) -> Arc<dyn Log> {
    Arc::new(EmbeddedLog::open(directory, Options::default()).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g2_what_was_acknowledged_is_there_after_a_restart_and_clients_go_on_with_their_cursors() {
    let directory = tempfile::tempdir().unwrap();
    let world = World::over(open(directory.path()), |_| {}).await;
    let mut alice = world.client("alice").await;
    let mut bob = world.client("bob").await;
    let thread = alice.creates(&[("bob", "co_author")]).await;
    let (_, snapshot) = bob.subscribes_with(thread, |options| options.verify = Some(true)).await;
    let mut verifier = Verifier::of_snapshot(thread, &snapshot.unwrap());
    for n in 0..20 {
        alice.posts(thread, &n.to_string()).await;
    }
    for range in bob.updates_to(thread, 21).await {
        verifier.apply(thread, &range);
    }
    let again = alice.sign(thread, "action.submit_message", &crate::world::message("sent again"));
    alice.send(&again).await;
    alice.receipt(again.id).await;
    let key = alice.hello.server.key;
    drop((alice, bob));
    let report = world.ended().await;
    assert_eq!(report.log.entries, 22);
    assert!(report.fsyncs_per_1000_entries().is_some_and(|figure| figure > 0.0));

    // The port is another, and so is what is signed for: the client dialled it anew.
    let world = World::over(open(directory.path()), |_| {}).await;
    let mut alice = world.client("alice").await;
    let mut bob = world.client("bob").await;
    assert_eq!(alice.hello.server.key, key);
    let cursor = verifier.cursor();
    let (subscribed, _) = bob
        .subscribes_with(thread, |options| {
            options.cursor = Some(cursor);
            options.verify = Some(true);
        })
        .await;
    assert_eq!((subscribed.seq.get(), subscribed.head.get()), (21, 22));
    let missed = bob.update(thread).await;
    verifier.apply(thread, &missed);
    assert_eq!(contents(&[missed]), ["sent again"]);
    let payload = again.payload.to_value().unwrap().into_object().unwrap();
    let resent = alice.sign_as(again.id, thread, "action.submit_message", &payload, None);
    alice.send(&resent).await;
    let receipt = alice.receipt(again.id).await;
    assert_eq!((receipt.status, receipt.seq.get()), (ReceiptStatus::Duplicate, 22));
    assert_eq!(alice.posts(thread, "and on").await.1.seq.get(), 23);
    verifier.apply(thread, &bob.update(thread).await);
    assert_eq!(verifier.seq(), 23);
    drop((alice, bob));
    world.ended().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c10_a_server_whose_directory_was_deleted_still_ends() {
    let directory = tempfile::tempdir().unwrap();
    let world = World::over(open(directory.path()), |_| {}).await;
    let mut alice = world.client("alice").await;
    let thread = alice.creates(&[]).await;
    alice.posts(thread, "before").await;
    directory.close().unwrap();
    world.ended().await;
    assert_eq!(alice.raw.closed().await, choir_protocol::error::close::RESTART);
}
