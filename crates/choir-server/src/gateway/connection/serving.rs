//! What a connection sends of the threads that it follows: ranges, snapshots, events (sections 9 and 10). What may be seen is decided here, when it is sent (G7,
//! Y8): under the hub's lock, by the state that is durable at that moment.

use std::sync::Arc;

use choir_core::record::Record;
use choir_core::session::Monotonic;
use choir_core::session::connection::Opened as MachineOpened;
use choir_core::session::subscription::{Due, Options, Sight};
use choir_core::thread::Thread;
use choir_core::view::{Streams, View, view, widened_at};
use choir_protocol::action::{RemoveMember, UpdateThread};
use choir_protocol::entry::Kind;
use choir_protocol::hash::Hash;
use choir_protocol::ids::{Seq, ThreadId, UserId};
use choir_protocol::message::{Mode, SnapshotReason};
use choir_protocol::thread::Visibility;
use choir_websocket::Frame;

use super::Connection;
use crate::Shared;
use crate::encode::{ENVELOPE_BYTES, MAX_FRAME_BYTES, RangeWriter, envelope};
use crate::gateway::work::{Opened, Subscribe, Work};
use crate::snapshot::Plan;
use crate::threads::{Hub, HubInner, SharedFrame, body_of, event};

/// With less room than this nothing is begun: frames would be cut small (T6).
const LEAST_ROOM: usize = 4 * 1024;
/// What is replayed to a client that is behind, before it gets a snapshot (Y5).
const MAX_REPLAY_BYTES: usize = 4 * 1024 * 1024;
/// How often in a row a thread is read that can't be, before its subscription is given up.
const MAX_READS: u8 = 5;

/// What a connection keeps of a thread that it follows, beside the machine's cursor.
pub(super) struct Follow {
    pub(super) hub: Arc<Hub>,
    interest: Interest,
    /// The view of the last time: what the client saw before it lost the right to read (Y8).
    view: View,
    /// The state that the first snapshot shows, since `control.subscribed` has announced its number (Y4).
    pinned: Option<Arc<Thread>>,
    /// Whether it is among the ready.
    queued: bool,
    /// Whether work is done for it, after which it is looked at again.
    busy: bool,
    /// When the last update without entries went out (Y12).
    emptied_at: Monotonic,
    look_at: Option<Monotonic>,
    /// Bytes that came from the log since the client was level.
    replayed: usize,
    /// In mode `events`: up to where they were sent.
    events_to: Seq,
    /// How often in a row it couldn't be read.
    unread: u8,
}

/// A connection's interest in a thread's news, given back however it ends.
struct Interest {
    shared: Arc<Shared>,
    thread_id: ThreadId,
    connection: u64,
}

impl Drop for Interest {
    fn drop(&mut self) {
        self.shared.threads.unsubscribe(self.thread_id, self.connection);
    }
}

/// What became of an attempt to send.
enum Put {
    Sent,
    /// There is no room: once more when there is.
    NoRoom,
    /// There is nothing to see in it, and it isn't time to say so.
    Owed,
}

impl Connection {
    /// Notes that something may be due of a thread.
    pub(super) fn enqueue(&mut self, thread_id: ThreadId) {
        if let Some(follow) = self.follows.get_mut(&thread_id)
            && !follow.queued
        {
            follow.queued = true;
            self.ready.push_back(thread_id);
        }
    }

    /// Ends what is held for a subscription.
    pub(super) fn forget(&mut self, thread_id: ThreadId) {
        self.follows.remove(&thread_id);
    }

    /// Begins a subscription (Y4), or refuses it.
    pub(super) fn begin(&mut self, subscribe: Subscribe, opened: Opened) {
        let now = self.now();
        let (Some(user), shared) = (self.whom.user.clone(), self.shared().clone()) else {
            return;
        };
        let thread_id = subscribe.thread_id;
        // First to be told, then to look, so that nothing is missed in between.
        let told = shared
            .threads
            .subscribe(&opened.hub, self.whom.connection, self.whom.mailbox.clone());
        // Where an earlier subscription goes on, the interest is that one's.
        let connection = self.whom.connection;
        let interest = (!self.follows.contains_key(&thread_id)).then(|| Interest {
            shared,
            thread_id,
            connection,
        });
        let thread = opened.hub.lock().thread().cloned();
        let (true, Some(thread)) = (told, thread) else {
            // It has left memory meanwhile.
            return self.work.push_front(Work::Subscribe(subscribe));
        };
        let Some(seen) = view(&thread, &user) else {
            return self
                .machine
                .refuse_subscription(now, subscribe.reply_to, thread_id, "not_found");
        };
        let Subscribe {
            reply_to,
            options,
            by_all,
            ..
        } = subscribe;
        let joined = thread.member(&user).is_some_and(|member| member.joined);
        let head = thread.head().seq;
        let sight = sight_of(&thread, &user, true);
        let due = self.machine.begin_subscription(
            now,
            reply_to,
            MachineOpened {
                thread_id,
                options,
                by_all: by_all && joined,
                check: opened.check,
                sight,
                visible: Streams::ALL,
                role: thread.role(&user),
                messages: thread.messages(),
                marked: opened.marked,
            },
        );
        let Some(due) = due else {
            self.all_full |= by_all;
            return;
        };
        self.all_count += u64::from(by_all);
        let before = self.follows.remove(&thread_id);
        let queued = before.as_ref().is_some_and(|before| before.queued);
        let Some(interest) = interest.or(before.map(|before| before.interest)) else {
            return;
        };
        let follow = Follow {
            hub: opened.hub,
            interest,
            view: seen.only(options.streams),
            pinned: matches!(due, Due::Snapshot(_)).then_some(thread),
            queued,
            busy: false,
            emptied_at: now.monotonic,
            look_at: None,
            replayed: 0,
            events_to: head,
            unread: 0,
        };
        self.follows.insert(thread_id, follow);
        self.enqueue(thread_id);
    }

    /// Serves the thread whose turn it is; false where nothing can be done now.
    pub(super) fn serve(&mut self) -> bool {
        if !self.outbox.is_empty() && self.outbox.room() < LEAST_ROOM {
            return false;
        }
        // What waits for all the room gets it: other threads don't take it away again and again.
        if self.running.is_none() && self.work.front().is_some_and(Work::fills) {
            return false;
        }
        let Some(thread_id) = self.ready.pop_front() else {
            return false;
        };
        if let Some(follow) = self.follows.get_mut(&thread_id) {
            follow.queued = false;
            if !follow.busy {
                return self.serve_thread(thread_id);
            }
        }
        true
    }

    /// Sends the next thing that is due of a thread; false where there is no room for it.
    fn serve_thread(&mut self, thread_id: ThreadId) -> bool {
        // Before the hub's lock is taken: what the machine says may want it too.
        self.pump();
        let (Some(user), Some(follow)) = (self.whom.user.clone(), self.follows.get_mut(&thread_id)) else {
            return true;
        };
        let hub = follow.hub.clone();
        let mut inner = hub.lock();
        let Some(thread) = inner.thread().cloned() else {
            drop(inner);
            follow.busy = true;
            self.work.push_back(Work::Load(thread_id));
            return true;
        };
        let max_replay = self.whom.shared.config.limits.max_replay;
        let Some(subscription) = self.machine.subscription(thread_id) else {
            return true;
        };
        let options = subscription.options;
        let seen = view(&thread, &user).map(|seen| seen.only(options.streams));
        let sight = sight_of(&thread, &user, seen.is_some());
        let due = subscription.due(sight, max_replay);
        let by_all = subscription.by_all;
        let snapshot_at = |reason| subscription.snapshot_at(reason, sight.head);
        match (due, seen) {
            (Due::Lost { after }, _) => {
                self.lose(thread_id, &user, &inner, after);
                drop(inner);
                let now = self.now();
                self.machine.end_subscription(now, thread_id, Some("permission_denied"));
                true
            }
            (Due::Snapshot(reason), Some(seen)) => {
                let at = (options.complete && reason == SnapshotReason::ViewChanged).then(|| snapshot_at(reason));
                let redacted_at = inner.ring.redacted_at();
                drop(inner);
                follow.busy = true;
                // The state as announced, unless it may hold what was erased since.
                let pinned = follow.pinned.clone().filter(|pinned| pinned.head().seq >= redacted_at);
                let plan = Plan {
                    thread: pinned.unwrap_or(thread),
                    view: seen,
                    options,
                    reason,
                    redacted_at,
                };
                self.work.push_back(Work::Snapshot(thread_id, Box::new(plan), at));
                true
            }
            (Due::Range { after, to }, Some(seen)) => {
                match self.put_from_ring(thread_id, &mut inner, options, &seen, after, to, sight.head) {
                    Some(Put::Sent) => {
                        drop(inner);
                        self.enqueue(thread_id);
                        true
                    }
                    Some(Put::Owed) => true,
                    Some(Put::NoRoom) => {
                        drop(inner);
                        self.enqueue_first(thread_id);
                        false
                    }
                    None => {
                        drop(inner);
                        if let Some(follow) = self.follows.get_mut(&thread_id) {
                            follow.busy = true;
                        }
                        self.work.push_back(Work::Read(thread_id, after));
                        true
                    }
                }
            }
            (_, Some(seen)) => {
                let all_sent = options.mode != Mode::Events || self.put_events(thread_id, &inner, &seen);
                drop(inner);
                if !all_sent {
                    self.enqueue_first(thread_id);
                    return false;
                }
                if let Some(follow) = self.follows.get_mut(&thread_id) {
                    follow.replayed = 0;
                    follow.view = seen;
                }
                // Y10: who left a thread that `all` subscribed, and may still read it.
                if by_all && !thread.member(&user).is_some_and(|member| member.joined) {
                    let now = self.now();
                    self.machine.end_subscription(now, thread_id, None);
                }
                true
            }
            (_, None) => true,
        }
    }

    fn enqueue_first(&mut self, thread_id: ThreadId) {
        if let Some(follow) = self.follows.get_mut(&thread_id)
            && !follow.queued
        {
            follow.queued = true;
            self.ready.push_front(thread_id);
        }
    }

    /// Sends a range out of the ring: a frame of the viewer's class, where nothing in it is their own. None where the ring doesn't reach back to the cursor.
    #[allow(clippy::too_many_arguments, reason = "one moment's view of one subscription")]
    fn put_from_ring(
        &mut self,
        thread_id: ThreadId,
        inner: &mut HubInner,
        options: Options,
        seen: &View,
        after: Seq,
        to: Seq,
        head: Seq,
    ) -> Option<Put> {
        let class = (seen.class(), options.verify);
        let records = || {
            inner
                .ring
                .after(after)
                .map(|records| records.take_while(|record| record.seq <= to))
        };
        let private = records()?.any(|record| seen.sees_own(record.stream(), record.spec_author.as_ref()));
        if !private
            && let Some(frame) = inner.ring.frame(class, after)
            && (frame.to == to || (frame.cut && frame.to < to))
        {
            if !self.outbox.fits(frame.bytes.len()) {
                return Some(Put::NoRoom);
            }
            let (bytes, end) = (frame.bytes.clone(), frame.to);
            self.shared().counters.frames_shared.add();
            self.put_frame(thread_id, bytes, end, head, seen);
            return Some(Put::Sent);
        }
        let mut writer = RangeWriter::new(after, options.verify, MAX_FRAME_BYTES - ENVELOPE_BYTES);
        let whole = writer.extend(records()?.map(|record| &**record), |record| seen.sees_record(record));
        let (end, shown) = (writer.to(), writer.shown());
        if shown == 0 && whole && !self.may_be_empty(thread_id) {
            return Some(Put::Owed);
        }
        let bytes = self.frame(thread_id, writer.finish(Hash::EMPTY, None));
        if !private && shown > 0 {
            inner
                .ring
                .keep(SharedFrame::new(class, after, end, !whole, bytes.clone()));
        }
        if !self.outbox.fits(bytes.len()) {
            return Some(Put::NoRoom);
        }
        self.put_frame(thread_id, bytes, end, head, seen);
        Some(Put::Sent)
    }

    fn frame(&mut self, thread_id: ThreadId, payload: String) -> bytes::Bytes {
        self.shared().counters.frames_built.add();
        let now = self.now();
        let text = envelope(
            self.machine.fresh_id(now),
            "state.thread_update",
            now.wall,
            Some(thread_id),
            None,
            &payload,
        );
        Frame::text(&text).into_bytes()
    }

    fn put_frame(&mut self, thread_id: ThreadId, bytes: bytes::Bytes, to: Seq, head: Seq, seen: &View) {
        self.outbox.push(bytes);
        if let Some(subscription) = self.machine.subscription(thread_id) {
            subscription.sent_range(to, head);
        }
        if let Some(follow) = self.follows.get_mut(&thread_id) {
            follow.view = seen.clone();
            follow.look_at = None;
        }
    }

    /// Whether an update without entries may go out: once to bring the client to the head (Y4), then at most one in ten seconds (Y12).
    fn may_be_empty(&mut self, thread_id: ThreadId) -> bool {
        let now = self.now().monotonic;
        let every = self.shared().config.times.empty_update_ms;
        let was_level = self
            .machine
            .subscription(thread_id)
            .is_some_and(|subscription| subscription.was_level());
        let Some(follow) = self.follows.get_mut(&thread_id) else {
            return false;
        };
        let at = follow.emptied_at.plus_ms(every);
        if !was_level || now >= at {
            follow.emptied_at = now;
            return true;
        }
        follow.look_at = Some(at);
        self.look_at = Some(self.look_at.map_or(at, |earlier| earlier.min(at)));
        false
    }

    /// Looks at the threads whose time has come.
    pub(super) fn look_again(&mut self, now: Monotonic) {
        let come: Vec<ThreadId> = self
            .follows
            .iter()
            .filter(|(_, follow)| follow.look_at.is_some_and(|at| at <= now))
            .map(|(thread_id, _)| *thread_id)
            .collect();
        for thread_id in come {
            if let Some(follow) = self.follows.get_mut(&thread_id) {
                follow.look_at = None;
            }
            self.enqueue(thread_id);
        }
        self.look_at = self.follows.values().filter_map(|follow| follow.look_at).min();
    }

    /// Sends what was read from the log for a client behind the ring.
    pub(super) fn serve_read(&mut self, thread_id: ThreadId, mut records: Vec<Record>) {
        self.pump();
        let (Some(user), Some(follow)) = (self.whom.user.clone(), self.follows.get_mut(&thread_id)) else {
            return;
        };
        follow.busy = false;
        follow.unread = 0;
        let hub = follow.hub.clone();
        let inner = hub.lock();
        let max_replay = self.whom.shared.config.limits.max_replay;
        if let (Some(thread), Some(subscription)) = (inner.thread().cloned(), self.machine.subscription(thread_id)) {
            let options = subscription.options;
            // While the log was read the right to read may have gone, and bodies may have been erased.
            let seen = view(&thread, &user).map(|seen| seen.only(options.streams));
            let sight = sight_of(&thread, &user, seen.is_some());
            inner.ring.erase_in(&mut records);
            if let (Due::Range { after, to }, Some(seen)) = (subscription.due(sight, max_replay), seen)
                && records.first().is_some_and(|first| first.seq == after.next())
            {
                records.retain(|record| record.seq <= to);
                self.put_records(thread_id, options, &seen, after, sight.head, &records);
            }
        }
        drop(inner);
        // It is looked at again in any case: the next page, the live ones, or another end.
        self.enqueue(thread_id);
    }

    fn put_records(
        &mut self,
        thread_id: ThreadId,
        options: Options,
        seen: &View,
        after: Seq,
        head: Seq,
        records: &[Record],
    ) {
        let mut from = after;
        let mut rest = records;
        while !rest.is_empty() {
            let mut writer = RangeWriter::new(from, options.verify, MAX_FRAME_BYTES - ENVELOPE_BYTES);
            let whole = writer.extend(rest, |record| seen.sees_record(record));
            let (to, shown) = (writer.to(), writer.shown());
            // What shows nothing moves the cursor along here, in the server's memory only by being sent: it is sent where it ends at a page's end.
            if shown == 0 && whole && to == head && !self.may_be_empty(thread_id) {
                return;
            }
            let bytes = self.frame(thread_id, writer.finish(Hash::EMPTY, None));
            if !self.outbox.fits(bytes.len()) {
                return;
            }
            let sent = bytes.len();
            self.put_frame(thread_id, bytes, to, head, seen);
            if let Some(follow) = self.follows.get_mut(&thread_id) {
                follow.replayed += sent;
                if follow.replayed > MAX_REPLAY_BYTES
                    && to < head
                    && let Some(subscription) = self.machine.subscription(thread_id)
                {
                    follow.replayed = 0;
                    return subscription.fell_behind();
                }
            }
            from = to;
            rest = rest
                .get(rest.partition_point(|record| record.seq <= to)..)
                .unwrap_or_default();
        }
    }

    /// Sends a snapshot that was built, where it is still what its viewer may see.
    pub(super) fn serve_snapshot(&mut self, thread_id: ThreadId, plan: &Plan, text: Option<&str>) {
        let now = self.now();
        let (Some(user), Some(follow)) = (self.whom.user.clone(), self.follows.get_mut(&thread_id)) else {
            return;
        };
        follow.busy = false;
        let hub = follow.hub.clone();
        let inner = hub.lock();
        let max_replay = self.whom.shared.config.limits.max_replay;
        let at = plan.thread.head().seq;
        let sendable = match (inner.thread(), self.machine.subscription(thread_id)) {
            (Some(thread), Some(subscription)) => {
                let seen = view(thread, &user).map(|seen| seen.only(plan.options.streams));
                let sight = sight_of(thread, &user, seen.is_some());
                let wanted = subscription.due(sight, max_replay) == Due::Snapshot(plan.reason)
                    && subscription.options == plan.options;
                // L6: what was redacted meanwhile may stand in it.
                (wanted && seen.as_ref() == Some(&plan.view) && inner.ring.redacted_at() == plan.redacted_at)
                    .then_some(sight.head)
            }
            _ => None,
        };
        drop(inner);
        match (sendable, text) {
            (Some(head), Some(text)) => {
                self.send_text("state.snapshot", Some(thread_id), None, text);
                if let Some(subscription) = self.machine.subscription(thread_id) {
                    subscription.sent_snapshot(at, head);
                }
                if let Some(follow) = self.follows.get_mut(&thread_id) {
                    follow.pinned = None;
                    follow.view = plan.view.clone();
                    follow.events_to = follow.events_to.max(at);
                }
            }
            (Some(_), None) => {
                tracing::warn!(connection = self.whom.connection, %thread_id, "a subscription ends: its snapshot could not be built");
                return self.machine.fail_subscription(now, thread_id);
            }
            // It is planned anew.
            (None, _) => {}
        }
        self.enqueue(thread_id);
    }

    /// A thread that had left memory is there again, or can't be had.
    pub(super) fn loaded(&mut self, thread_id: ThreadId, there: bool) {
        let (now, reread_ms) = (self.now(), self.shared().config.times.reread_ms);
        let Some(follow) = self.follows.get_mut(&thread_id) else {
            return;
        };
        follow.busy = false;
        if there {
            return self.enqueue(thread_id);
        }
        follow.unread = follow.unread.saturating_add(1);
        if follow.unread >= MAX_READS {
            tracing::warn!(connection = self.whom.connection, %thread_id, "a subscription ends: its thread can't be read");
            return self.machine.fail_subscription(now, thread_id);
        }
        let at = now.monotonic.plus_ms(reread_ms);
        follow.look_at = Some(at);
        self.look_at = Some(self.look_at.map_or(at, |earlier| earlier.min(at)));
    }

    /// Mode `events` (V1): what came since the last time, to who may see the entry behind it; false where there is no room for all of it (T6). Who is behind the
    /// ring has missed it, as `head` told them.
    fn put_events(&mut self, thread_id: ThreadId, inner: &HubInner, seen: &View) -> bool {
        let Some(from) = self.follows.get(&thread_id).map(|follow| follow.events_to) else {
            return true;
        };
        let head = inner.thread().map_or(Seq::ZERO, |thread| thread.head().seq);
        let mut to = head;
        let news = inner.ring.after(from).into_iter().flatten();
        for record in news.filter(|record| seen.sees_record(record)) {
            if self.outbox.room() == 0 {
                to = record.seq.previous();
                break;
            }
            if let Some(event) = event(record) {
                self.put_message(Some(thread_id), None, event);
            }
        }
        if let Some(follow) = self.follows.get_mut(&thread_id) {
            follow.events_to = to;
        }
        to == head
    }

    /// Y8: the entry that took the right to read is the last that the user gets, and only where they had everything before it that they may see.
    fn lose(&mut self, thread_id: ThreadId, user: &UserId, inner: &HubInner, after: Seq) {
        let Some(follow) = self.follows.get(&thread_id) else {
            return;
        };
        let Some(subscription) = self.machine.subscription(thread_id) else {
            return;
        };
        let options = subscription.options;
        let after = if options.mode == Mode::Events {
            follow.events_to
        } else {
            after
        };
        let Some(records) = inner.ring.after(after) else {
            return;
        };
        let seen = follow.view.clone();
        let mut before = Vec::new();
        for record in records {
            if takes_right(record, user) {
                if options.mode == Mode::Events {
                    if let Some(event) = event(record) {
                        self.put_message(Some(thread_id), None, event);
                    }
                    return;
                }
                let last = record.seq;
                let begin = |from| RangeWriter::new(from, options.verify, MAX_FRAME_BYTES - ENVELOPE_BYTES);
                let mut writer = begin(after);
                before.push(record);
                for record in before {
                    // What is hidden may be more than fits into one message (T6).
                    if !writer.push(record, record.seq == last) {
                        let next = begin(writer.to());
                        let full = std::mem::replace(&mut writer, next);
                        let bytes = self.frame(thread_id, full.finish(Hash::EMPTY, None));
                        self.outbox.push(bytes);
                        writer.push(record, record.seq == last);
                    }
                }
                let bytes = self.frame(thread_id, writer.finish(Hash::EMPTY, None));
                return self.outbox.push(bytes);
            }
            if seen.sees_record(record) && options.mode == Mode::Full {
                return;
            }
            before.push(record);
        }
    }
}

fn sight_of(thread: &Thread, user: &UserId, may_read: bool) -> Sight {
    Sight {
        head: thread.head().seq,
        may_read,
        widened_at: widened_at(thread, user),
    }
}

/// Whether the entry took this user's right to read, given that they have none now.
fn takes_right(record: &Record, user: &UserId) -> bool {
    match record.kind {
        Kind::MemberRemoved => body_of::<RemoveMember>(record).is_some_and(|body| body.user_id == *user),
        Kind::ThreadUpdated => {
            body_of::<UpdateThread>(record).is_some_and(|body| body.visibility == Some(Visibility::Private))
        }
        _ => false,
    }
}
