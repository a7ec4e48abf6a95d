//! The threads that are followed: what the server sends of them, and what is done where it doesn't fit (Y4 to Y10, R2).

use alloc::sync::Arc;
use alloc::vec::Vec;

use choir_protocol::error::{ErrorCode, SpecificationError};
use choir_protocol::ids::{Id, ThreadId};
use choir_protocol::message::{
    ClientMessage, ErrorPayload, Mode, Snapshot, SnapshotReason, Subscribed, Unsubscribe, Unsubscribed,
};
use choir_protocol::range::{Range, RangeError};

use super::{Following, MAX_ASIDE, Machine, Phase};
use crate::client::error::Error;
use crate::client::replica::{Applied, Finding, Replica, Viewer};
use crate::client::subscription::Subscription;
use crate::client::types::{Event, Update};
use alloc::string::ToString;

impl Machine {
    /// Tells the caller of something in a thread that is followed.
    pub(super) fn thread_event(&mut self, thread_id: ThreadId, update: Update) {
        if self.subscriptions.contains_key(&thread_id) {
            self.emit(Event::Thread { thread_id, update });
        }
    }

    /// The server has taken a subscription up (Y4).
    pub(super) fn subscribed(&mut self, thread_id: Option<ThreadId>, reply_to: Option<Id>, subscribed: Subscribed) {
        let (thread_id, subscribed) = match (thread_id, subscribed) {
            (Some(thread_id), Subscribed::Thread(subscribed)) => (thread_id, subscribed),
            (_, Subscribed::All { threads, .. }) => {
                if let Some(all) = &mut self.all {
                    all.phase = Following::Following {
                        head: choir_protocol::ids::Seq::saturating(threads),
                        level: true,
                    };
                }
                return;
            }
            (None, Subscribed::Thread(_)) => return,
        };
        if !self.subscriptions.contains_key(&thread_id) {
            // A thread that the user has joined, or joins now (Y3).
            let Some(all) = &self.all else { return };
            if self.subscriptions.len() >= self.max_threads() {
                return;
            }
            let options = all.options.clone();
            self.subscriptions.insert(
                thread_id,
                Subscription::new(options, Following::Wanted { not_before: 0 }),
            );
        }
        let Some(subscription) = self.subscriptions.get_mut(&thread_id) else {
            return;
        };
        // The answer to an earlier message, where a later one is under way.
        if let Following::Asked { request } = subscription.phase
            && reply_to.is_some_and(|id| id != request)
        {
            return;
        }
        if subscription.options.complete
            && subscription.replica.is_none()
            && subscription.options.mode == Mode::Full
            && let Some(viewer) = viewer(&self.config, self.user_id.as_ref(), subscription)
        {
            subscription.replica = Some(Arc::new(Replica::new(thread_id, viewer)));
        }
        subscription.begun(subscribed.seq, subscribed.head);
        self.retell = true;
        let cursor = subscription.cursor();
        let level = cursor.is_some_and(|cursor| cursor.seq == subscribed.seq && cursor.seq >= subscribed.head);
        self.thread_event(thread_id, Update::Subscribed(subscribed));
        if level {
            self.check_level(thread_id);
        }
    }

    /// Snapshots replace the replica (Y5).
    pub(super) fn snapshot(&mut self, thread_id: ThreadId, snapshot: &Snapshot) {
        let Some(subscription) = self.subscriptions.get_mut(&thread_id) else {
            return;
        };
        if !matches!(subscription.phase, Following::Following { .. }) {
            return;
        }
        let Some(viewer) = viewer(&self.config, self.user_id.as_ref(), subscription) else {
            return;
        };
        let made = Replica::from_snapshot(thread_id, viewer, snapshot, &mut self.keys);
        let (replica, findings) = match made {
            Ok(made) => made,
            Err(error) => return self.mismatch(thread_id, error),
        };
        let old = subscription.replica.replace(Arc::new(replica));
        let differs = snapshot.reason == SnapshotReason::StateDesync
            || old.as_ref().is_some_and(|old| {
                let cursor = old.cursor();
                subscription
                    .replica
                    .as_ref()
                    .and_then(|new| new.root_at(cursor.seq))
                    .is_some_and(|root| root != cursor.root)
            });
        if differs && let Some(old) = old {
            let error = Error::wire(
                ErrorCode::StateDesync,
                alloc::format!(
                    "the server's log isn't the one that was held up to entry {}",
                    old.cursor().seq
                ),
            );
            subscription.aside = Some(old);
            self.thread_event(thread_id, Update::Desync { error, ended: false });
        }
        self.thread_event(
            thread_id,
            Update::Snapshot {
                reason: snapshot.reason,
                findings,
            },
        );
        self.check_level(thread_id);
    }

    /// Updates move the replica on (Y6).
    pub(super) fn thread_update(&mut self, thread_id: ThreadId, range: Range) {
        let Some(subscription) = self.subscriptions.get_mut(&thread_id) else {
            return;
        };
        // Until the server has answered, what comes is of an earlier subscription (Y6).
        if !matches!(subscription.phase, Following::Following { .. }) {
            return;
        }
        let Some(replica) = &mut subscription.replica else {
            return self.gap(thread_id, range.from);
        };
        let tolerate = subscription.suspects.is_some();
        let replica = Arc::make_mut(replica);
        let applied = if tolerate {
            replica.apply_hidden(range, &mut self.keys)
        } else {
            replica.apply(range, &mut self.keys)
        };
        match applied {
            Applied::Ignored => self.check_level(thread_id),
            Applied::Entries { entries, mut findings } => {
                for entry in &entries {
                    subscription.streams.end(entry.id);
                }
                if let Some(suspects) = &mut subscription.suspects {
                    // Judged when the head is reached (L8).
                    findings.retain(|finding| match finding {
                        Finding::Hidden { seq, stream } => {
                            suspects.push(choir_protocol::range::Hidden(
                                *seq,
                                *stream,
                                choir_protocol::hash::Hash::EMPTY,
                            ));
                            false
                        }
                        _ => true,
                    });
                }
                if !entries.is_empty() || !findings.is_empty() {
                    self.thread_event(thread_id, Update::Entries { entries, findings });
                }
                self.check_level(thread_id);
            }
            Applied::Gap { from } => self.gap(thread_id, from),
            Applied::HiddenOutOfOrder(_) => {
                subscription.suspects = Some(Vec::new());
                subscription.phase = Following::Wanted { not_before: 0 };
            }
            Applied::Mismatch(error) => self.mismatch(thread_id, error),
        }
    }

    fn check_level(&mut self, thread_id: ThreadId) {
        let Some((cursor, findings)) = self
            .subscriptions
            .get_mut(&thread_id)
            .and_then(Subscription::reached_head)
        else {
            return;
        };
        let seen = self.seen(thread_id);
        self.lanes.release_after_sync(thread_id, seen);
        self.thread_event(thread_id, Update::Level { cursor, findings });
    }

    // ------------------------------------------------------------------------------------------------------------------------------------ what went wrong

    /// Something is missing: subscribe again with the cursor, once (Y6).
    fn gap(&mut self, thread_id: ThreadId, from: choir_protocol::ids::Seq) {
        let Some(subscription) = self.subscriptions.get_mut(&thread_id) else {
            return;
        };
        let cursor = subscription
            .cursor()
            .map_or(choir_protocol::ids::Seq::ZERO, |cursor| cursor.seq);
        if subscription.desynced() {
            let error = Error::wire(
                ErrorCode::StateDesync,
                alloc::format!("the server left out what follows entry {cursor}, twice"),
            );
            return self.end_desynced(thread_id, error);
        }
        subscription.phase = Following::Wanted { not_before: 0 };
        self.thread_event(thread_id, Update::GapRepaired { cursor, from });
    }

    /// The server's word doesn't verify: keep the replica aside, subscribe without a cursor, tell the caller (Y6).
    fn mismatch(&mut self, thread_id: ThreadId, error: RangeError) {
        let error = Error::wire(ErrorCode::StateDesync, error.to_string());
        let Some(subscription) = self.subscriptions.get_mut(&thread_id) else {
            return;
        };
        if let Some(replica) = subscription.replica.take() {
            subscription.aside = Some(replica);
        }
        self.desynced(thread_id, error);
    }

    /// The server's log and the replica differ: subscribe again; the second time before the client was level is the last (R2).
    pub(super) fn desynced(&mut self, thread_id: ThreadId, error: Error) {
        let Some(subscription) = self.subscriptions.get_mut(&thread_id) else {
            return;
        };
        if subscription.desynced() {
            return self.end_desynced(thread_id, error);
        }
        subscription.phase = Following::Wanted { not_before: 0 };
        self.thread_event(thread_id, Update::Desync { error, ended: false });
    }

    fn end_desynced(&mut self, thread_id: ThreadId, error: Error) {
        if let Some(mut subscription) = self.subscriptions.remove(&thread_id) {
            self.retell = true;
            let aside = subscription.aside.take().or(subscription.replica.take());
            if let Some(replica) = aside {
                if self.aside.len() >= MAX_ASIDE {
                    self.aside.pop_first();
                }
                self.aside.insert(thread_id, replica);
            }
            self.lanes.release_after_sync(thread_id, None);
            self.emit(Event::Thread {
                thread_id,
                update: Update::Desync { error, ended: true },
            });
            self.say_unsubscribe(thread_id);
        }
    }

    /// An action said to have seen what isn't in the log (K4): it waits until its thread is level again.
    pub(super) fn resync_for_actions(&mut self, thread_id: ThreadId, error: Error) {
        let followed = self
            .subscriptions
            .get(&thread_id)
            .is_some_and(|subscription| subscription.replica.is_some());
        if followed {
            self.lanes.hold_for_sync(thread_id);
            self.desynced(thread_id, error);
        }
    }

    // ------------------------------------------------------------------------------------------------------------------------------------------- endings

    /// Whether an error answers a `control.subscribe`.
    pub(super) fn subscribe_refused(&mut self, id: Id, thread_id: Option<ThreadId>, payload: &ErrorPayload) -> bool {
        let answers = |phase: &Following| matches!(phase, Following::Asked { request } if *request == id);
        let mut threads: Vec<ThreadId> = self
            .subscriptions
            .iter()
            .filter(|(_, subscription)| answers(&subscription.phase))
            .map(|(thread_id, _)| *thread_id)
            .collect();
        if let Some(thread_id) = thread_id {
            threads.retain(|asked| *asked == thread_id);
        }
        let all = self.all.as_ref().is_some_and(|all| answers(&all.phase)) && thread_id.is_none();
        if threads.is_empty() && !all {
            return false;
        }
        if payload.retryable {
            let wait = self.patience(payload, 1);
            let not_before = self.ms().saturating_add(wait);
            for thread_id in threads {
                if let Some(subscription) = self.subscriptions.get_mut(&thread_id) {
                    subscription.phase = Following::Wanted { not_before };
                }
            }
            if all && let Some(all) = &mut self.all {
                all.phase = Following::Wanted { not_before };
            }
        } else {
            for thread_id in threads {
                let error = Error {
                    name: SpecificationError::SubscriptionError,
                    ..Error::from(payload.clone())
                };
                self.end_subscription(thread_id, Some(error), false);
            }
            if all {
                self.all = None;
                self.emit(Event::Error {
                    thread_id: None,
                    error: Error::from(payload.clone()),
                });
            }
        }
        true
    }

    /// The server has ended a subscription (Y8, Y10).
    pub(super) fn unsubscribed(&mut self, thread_id: ThreadId, unsubscribed: Unsubscribed) {
        let following = self
            .subscriptions
            .get(&thread_id)
            .is_some_and(|subscription| matches!(subscription.phase, Following::Following { .. }));
        // Otherwise it is of an earlier subscription, and the one that is under way will be answered by itself.
        if following {
            let error = unsubscribed.cause.map(|cause| {
                let (code, why) = match cause.as_str() {
                    // Y10: damage, say. What is held stands, and the caller may try again.
                    "internal" => (ErrorCode::Internal, "the server can't read the thread at the moment"),
                    _ => (ErrorCode::PermissionDenied, "the thread may no longer be read"),
                };
                Error {
                    name: SpecificationError::SubscriptionError,
                    cause: Some(cause),
                    ..Error::wire(code, why)
                }
            });
            self.end_subscription(thread_id, error, false);
        }
    }

    /// Forgets a thread that was followed, and tells the caller; with `say`, also the server.
    pub(super) fn end_subscription(&mut self, thread_id: ThreadId, error: Option<Error>, say: bool) {
        let Some(subscription) = self.subscriptions.remove(&thread_id) else {
            return;
        };
        self.retell = true;
        self.lanes.release_after_sync(thread_id, None);
        self.emit(Event::Thread {
            thread_id,
            update: Update::Unsubscribed { error },
        });
        if say && !matches!(subscription.phase, Following::Wanted { .. }) {
            self.say_unsubscribe(thread_id);
        }
    }

    fn say_unsubscribe(&mut self, thread_id: ThreadId) {
        if matches!(self.phase, Phase::Live(_)) {
            self.send(ClientMessage::Unsubscribe(Unsubscribe {
                threads: [thread_id].into(),
            }));
        }
    }
}

fn viewer(
    config: &crate::client::Config,
    user_id: Option<&choir_protocol::ids::UserId>,
    subscription: &Subscription,
) -> Option<Viewer> {
    Some(Viewer {
        user_id: user_id?.clone(),
        audience: config.audience.clone(),
        streams: subscription.options.streams.clone(),
        retain: config.retain,
    })
}
