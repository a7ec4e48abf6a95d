use std::sync::Arc;

use choir_core::client::replica::Replica;
use choir_core::client::{Code, Error, OpenStream, Reply, Request};
use choir_protocol::entry::Entry;
use choir_protocol::error::ErrorCode;
use choir_protocol::ids::ThreadId;

use crate::client::{Client, Posted};
use crate::draft::Draft;
use crate::events::Updates;

/// A thread that is followed: its replica, and what happens to it. Cheap to clone; dropping it doesn't end the subscription.
#[derive(Clone)]
pub struct ThreadHandle {
    client: Client,
    thread_id: ThreadId,
}

/// A page of history, from the place up to which the replica was held before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Earlier {
    /// Its entries, oldest first.
    pub entries: Vec<Entry>,
    /// Whether the replica holds them now; otherwise it is full ([`Config::retain`](crate::Config::retain)).
    pub kept: bool,
    /// Whether there is nothing before them.
    pub at_start: bool,
}

impl ThreadHandle {
    pub(crate) const fn new(client: Client, thread_id: ThreadId) -> Self {
        Self { client, thread_id }
    }

    /// The thread.
    pub const fn id(&self) -> ThreadId {
        self.thread_id
    }

    /// The client.
    pub const fn client(&self) -> &Client {
        &self.client
    }

    /// The replica as it is now: whole, verified, and unchanged while it is held. None in the mode `events`, before the first snapshot, and after the end.
    pub fn replica(&self) -> Option<Arc<Replica>> {
        self.client.replica(self.thread_id)
    }

    /// The replica that didn't agree with the server's log, if there was one (Y6).
    pub fn set_aside(&self) -> Option<Arc<Replica>> {
        let core = self.client.shared().lock();
        core.machine.set_aside(self.thread_id).map(Arc::clone)
    }

    /// What is being written just now (V4). Each [`Update::Stream`](crate::Update::Stream) says that it has changed.
    pub fn streams(&self) -> Vec<OpenStream> {
        let shared = self.client.shared();
        let now = shared.now();
        let core = shared.lock();
        core.machine.streams(now, self.thread_id).cloned().collect()
    }

    /// What happens from now on.
    pub fn updates(&self) -> Updates {
        let core = self.client.shared().lock();
        let updates = core
            .threads
            .get(&self.thread_id)
            // Nobody sends any longer: the stream ends at once.
            .map_or_else(
                || tokio::sync::broadcast::channel(1).1,
                |followed| followed.updates.subscribe(),
            );
        Updates::new(updates)
    }

    /// Fetches the page of history before what the replica holds, verifies that it belongs there, and puts it before (Y11).
    ///
    /// # Errors
    /// As [`Client::request`]; `StateDesyncError` where the page belongs to another log, `not_subscribed` where the thread isn't followed any longer.
    pub async fn earlier(&self, limit: Option<u64>) -> Result<Earlier, Error> {
        let request = Request::Earlier {
            thread_id: self.thread_id,
            limit,
        };
        match self.client.request(request).await? {
            Reply::Earlier {
                entries,
                kept,
                at_start,
            } => Ok(Earlier {
                entries,
                kept,
                at_start,
            }),
            _ => Err(Error::local(
                Code::Wire(ErrorCode::Internal),
                "the reply belongs to another request",
            )),
        }
    }

    /// Posts a message, or proposes it: as [`Client::post`].
    ///
    /// # Errors
    /// As [`Client::act`].
    pub async fn post(&self, draft: impl Into<Draft>) -> Result<Posted, Error> {
        self.client.post(self.thread_id, draft).await
    }

    /// Ends the subscription (Y10). The replica is forgotten; views of it that are held stay as they are.
    pub fn unsubscribe(&self) {
        let shared = self.client.shared();
        let now = shared.now();
        shared.lock().machine.unsubscribe(now, self.thread_id);
        shared.wake.notify_one();
    }
}
