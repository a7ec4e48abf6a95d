//! What is due to be sent on a live connection: subscriptions first, then actions in their order, then questions, then acknowledgements.

use alloc::string::String;
use alloc::vec::Vec;

use choir_protocol::action::{SignedAction, Unsigned};
use choir_protocol::error::ErrorCode;
use choir_protocol::ids::{Cursor, Id, ThreadId, Timestamp};
use choir_protocol::message::{
    Acks, ClientMessage, FromClient, HistoryRequest, Mark, Mode, Subscribe, SubscribeThread,
};

use super::{Following, Machine, Phase, not_followed};
use crate::client::error::Error;
use crate::client::lanes::Queued;
use crate::client::types::{Event, Output, Request};

/// How often acknowledgements are sent at most (Y9).
const ACK_INTERVAL_MS: u64 = 5_000;
/// How many threads go into one `control.subscribe` (Y3).
const SUBSCRIBE_BATCH: usize = 1_000;
/// How many questions are under way at once: more would only meet the server's rate.
const REQUESTS_AT_ONCE: usize = 16;
/// On how many connections a question is asked in vain.
const MAX_REQUEST_STRIKES: u8 = 3;

impl Machine {
    pub(super) fn pump(&mut self) {
        self.pump_subscriptions();
        self.pump_actions();
        self.pump_requests();
        self.pump_acks();
    }

    /// When something that waits is due.
    pub(super) fn due_at(&self, live: &super::Live) -> Option<u64> {
        let now = self.ms();
        let wanted = |phase: &Following| match phase {
            Following::Wanted { not_before } if *not_before > now => Some(*not_before),
            _ => None,
        };
        let subscriptions = self
            .subscriptions
            .values()
            .filter_map(|subscription| wanted(&subscription.phase));
        let all = self.all.as_ref().and_then(|all| wanted(&all.phase));
        let requests = self
            .requests
            .values()
            .filter(|asked| !asked.sent && asked.not_before > now)
            .map(|asked| asked.not_before);
        let acks = live
            .last_ack
            .filter(|_| self.subscriptions.values().any(|s| s.ack_due()))
            .map(|last| last.saturating_add(ACK_INTERVAL_MS));
        let action = (!live.draining && self.lanes.wired() < self.window() && self.lanes.next_due(now).is_some())
            .then(|| self.action_pace.next_at());
        let request = self
            .requests
            .values()
            .any(|asked| !asked.sent && asked.not_before <= now)
            .then(|| self.request_pace.next_at())
            .filter(|_| self.requests_under_way() < REQUESTS_AT_ONCE);
        subscriptions
            .chain(all)
            .chain(requests)
            .chain(request)
            .chain(acks)
            .chain(self.lanes.wake_at(now))
            .chain(action)
            .min()
    }

    // ------------------------------------------------------------------------------------------------------------------------------------ subscriptions

    fn pump_subscriptions(&mut self) {
        let now = self.ms();
        let due = |phase: &Following| matches!(phase, Following::Wanted { not_before } if *not_before <= now);
        let mut threads: Vec<ThreadId> = self
            .subscriptions
            .iter()
            .filter(|(_, subscription)| due(&subscription.phase))
            .map(|(thread_id, _)| *thread_id)
            .collect();
        if self.all.as_ref().is_some_and(|all| due(&all.phase)) {
            // All that is followed is named with it: else what has a cursor would be sent a snapshot.
            let named: Vec<ThreadId> = self.subscriptions.keys().copied().take(SUBSCRIBE_BATCH).collect();
            threads.retain(|thread_id| !named.contains(thread_id));
            let lines = self.lines(&named);
            let message = match &self.all {
                Some(all) => {
                    let full = all.options.mode == Mode::Full;
                    Subscribe {
                        all: Some(true),
                        threads: (!lines.is_empty()).then_some(lines),
                        streams: all.options.streams.clone(),
                        mode: (!full).then_some(all.options.mode),
                        history: all.options.history,
                        verify: full.then_some(true),
                        complete: all.options.complete.then_some(true),
                    }
                }
                None => return,
            };
            let request = self.send(ClientMessage::Subscribe(message));
            self.asked(&named, request);
            if let Some(all) = &mut self.all {
                all.phase = Following::Asked { request };
            }
        }
        for batch in threads.chunks(SUBSCRIBE_BATCH) {
            let request = self.send(ClientMessage::Subscribe(Subscribe {
                threads: Some(self.lines(batch)),
                ..Subscribe::default()
            }));
            self.asked(batch, request);
        }
    }

    fn lines(&self, threads: &[ThreadId]) -> Vec<SubscribeThread> {
        threads
            .iter()
            .filter_map(|thread_id| Some(self.subscriptions.get(thread_id)?.line(*thread_id)))
            .collect()
    }

    fn asked(&mut self, threads: &[ThreadId], request: Id) {
        for thread_id in threads {
            if let Some(subscription) = self.subscriptions.get_mut(thread_id) {
                subscription.phase = Following::Asked { request };
            }
        }
    }

    // ------------------------------------------------------------------------------------------------------------------------------------------- actions

    fn window(&self) -> usize {
        usize::try_from(self.limits.max_in_flight).unwrap_or(usize::MAX).max(1)
    }

    /// Sends actions in their order while the window is open (A2), no faster than the server takes them.
    fn pump_actions(&mut self) {
        let now = self.ms();
        while self.lanes.wired() < self.window()
            && matches!(&self.phase, Phase::Live(live) if !live.draining)
            && let Some((thread_id, id)) = self.lanes.next_due(now)
            && self.action_pace.take(now)
        {
            if let Err(error) = self.send_action(thread_id) {
                self.lanes.remove(id);
                self.answer(id, Err(error));
            }
        }
    }

    /// Signs the action that is due, unless it is signed, and sends it.
    fn send_action(&mut self, thread_id: ThreadId) -> Result<(), Error> {
        let timestamp = self.server_time();
        let user_id = self
            .user_id
            .clone()
            .ok_or_else(|| Error::wire(ErrorCode::Internal, "a session without a user: please report this"))?;
        let content_bytes = match self.lanes.waiting_mut(thread_id) {
            Some(action) => action.bytes,
            None => return Ok(()),
        };
        self.check_content(content_bytes)?;
        let Some(action) = self.lanes.waiting_mut(thread_id) else {
            return Ok(());
        };
        if action.signed.is_none() {
            action.signed = Some(SignedAction::sign(
                Unsigned {
                    audience: &self.config.audience,
                    user_id: &user_id,
                    id: action.id,
                    action_type: &action.action_type,
                    thread_id,
                    timestamp,
                    seen: action.seen,
                    payload: &action.payload,
                },
                &self.credentials.key,
            )?);
        }
        let max_message_bytes = self.limits.max_message_bytes;
        if let Some((
            seq,
            Queued {
                signed: Some(signed), ..
            },
        )) = self.lanes.wire(thread_id)
        {
            let text: String = FromClient {
                id: signed.id,
                timestamp: signed.timestamp,
                message: ClientMessage::Action(seq, signed.clone()),
            }
            .to_text();
            if text.len() as u64 > max_message_bytes {
                return Err(Error::wire(
                    ErrorCode::ContentTooLarge,
                    alloc::format!(
                        "the message has {} bytes, the server takes {max_message_bytes}",
                        text.len()
                    ),
                ));
            }
            self.outputs.push_back(Output::Send(text));
        }
        Ok(())
    }

    /// The cursor that an action in this thread goes with (K4).
    pub(super) fn seen(&self, thread_id: ThreadId) -> Option<Cursor> {
        self.subscriptions
            .get(&thread_id)?
            .cursor()
            .filter(|cursor| *cursor != Cursor::START)
    }

    /// The time of day as far as the server's clock is known (K3).
    pub(super) fn server_time(&self) -> Timestamp {
        let wall = self.now.wall.get();
        Timestamp::saturating(wall.saturating_add_signed(self.clock_ahead_ms))
    }

    // ------------------------------------------------------------------------------------------------------------------------------------------ requests

    fn pump_requests(&mut self) {
        let now = self.ms();
        let due: Vec<Id> = self
            .requests
            .iter()
            .filter(|(_, asked)| !asked.sent && asked.not_before <= now)
            .map(|(id, _)| *id)
            .take(REQUESTS_AT_ONCE.saturating_sub(self.requests_under_way()))
            .collect();
        for id in due {
            if !self.request_pace.take(now) {
                return;
            }
            match self.message_of(id) {
                Some(message) => {
                    if let Some(asked) = self.requests.get_mut(&id) {
                        asked.sent = true;
                    }
                    self.send_as(id, message);
                }
                None => {
                    self.requests.remove(&id);
                    self.emit(Event::Replied {
                        id,
                        result: Err(not_followed()),
                    });
                }
            }
        }
    }

    fn requests_under_way(&self) -> usize {
        self.requests.values().filter(|asked| asked.sent).count()
    }

    fn message_of(&self, id: Id) -> Option<ClientMessage> {
        Some(match &self.requests.get(&id)?.request {
            Request::Threads(request) => ClientMessage::Threads(request.clone()),
            Request::Members(thread_id, request) => ClientMessage::Members(*thread_id, request.clone()),
            Request::Specs(thread_id, request) => ClientMessage::Specs(*thread_id, request.clone()),
            Request::History {
                thread_id,
                before,
                limit,
            } => ClientMessage::History(
                *thread_id,
                HistoryRequest {
                    before: *before,
                    limit: *limit,
                    streams: None,
                    verify: Some(true),
                },
            ),
            Request::Earlier { thread_id, limit } => {
                let replica = self.replica(*thread_id)?;
                ClientMessage::History(
                    *thread_id,
                    HistoryRequest {
                        before: replica.floor().seq.next(),
                        limit: *limit,
                        streams: replica.viewer().streams.clone(),
                        verify: Some(true),
                    },
                )
            }
            Request::Mark(thread_id, seq) => ClientMessage::Mark(*thread_id, Mark { seq: *seq }),
            Request::Checkpoint(thread_id) => ClientMessage::Checkpoint(*thread_id),
        })
    }

    /// The connection is gone: what was asked is asked again on the next one, within bounds.
    pub(super) fn requests_lost(&mut self, reason: &str) {
        let mut given_up = Vec::new();
        for (id, asked) in &mut self.requests {
            if asked.sent {
                asked.sent = false;
                asked.strikes += 1;
                if asked.strikes >= MAX_REQUEST_STRIKES {
                    given_up.push(*id);
                }
            }
        }
        for id in given_up {
            self.requests.remove(&id);
            self.emit(Event::Replied {
                id,
                result: Err(Error::connection_lost(reason)),
            });
        }
    }

    // ---------------------------------------------------------------------------------------------------------------------------------------------- acks

    /// Says what was applied: at most every 5 s, or after 256 entries (Y9).
    fn pump_acks(&mut self) {
        let now = self.ms();
        let Phase::Live(live) = &mut self.phase else {
            return;
        };
        let interval_over = live
            .last_ack
            .is_none_or(|last| now >= last.saturating_add(ACK_INTERVAL_MS));
        let acks: Vec<_> = self
            .subscriptions
            .iter_mut()
            .filter(|(_, subscription)| subscription.ack_urgent() || interval_over && subscription.ack_due())
            .filter_map(|(thread_id, subscription)| subscription.ack(*thread_id))
            .collect();
        if !acks.is_empty() {
            live.last_ack = Some(now);
            self.send(ClientMessage::Ack(Acks { acks }));
        }
    }
}
