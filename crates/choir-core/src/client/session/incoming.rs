//! What the server says: read, and led to whom it concerns.

use choir_protocol::error::{ErrorCode, close};
use choir_protocol::ids::{Id, ThreadId};
use choir_protocol::message::{ErrorPayload, FromServer, Receipt, ServerMessage, Session};
use choir_protocol::range::Range;

use super::{Machine, Phase};
use crate::client::error::Error;
use crate::client::lanes::Refusal;
use crate::client::replica::Walk;
use crate::client::types::{Event, Notice, Reply, Request, Update};
use alloc::string::ToString;
use alloc::sync::Arc;

/// How often in a row the same may be refused where the server only asks for patience: it says when to come back, and nothing is wrong with what was sent.
const MAX_RATE_REFUSALS: u32 = 30;

impl Machine {
    pub(super) fn text(&mut self, text: &str) {
        let message = match FromServer::read(text) {
            Ok(message) => message,
            Err(error) => {
                return self.emit(Event::Notice(Notice::BadMessage { why: error.to_string() }));
            }
        };
        match core::mem::replace(&mut self.phase, Phase::Idle) {
            Phase::AwaitHello { deadline } => match message.message {
                ServerMessage::Hello(hello) => self.greeted(deadline, hello),
                other => {
                    self.phase = Phase::AwaitHello { deadline };
                    self.before_session(message.reply_to, other);
                }
            },
            Phase::AwaitSession { deadline, challenge } => match message.message {
                ServerMessage::Session(session) => self.authenticated(challenge, session),
                other => {
                    self.phase = Phase::AwaitSession { deadline, challenge };
                    self.before_session(message.reply_to, other);
                }
            },
            Phase::Live(live) => {
                self.phase = Phase::Live(live);
                self.live_message(message);
            }
            other => self.phase = other,
        }
    }

    /// Errors are all that a server has to say before there is a session.
    fn before_session(&mut self, reply_to: Option<Id>, message: ServerMessage) {
        let ServerMessage::ConnectionError(payload) = message else {
            return;
        };
        if payload.code == ErrorCode::AuthenticationFailed && reply_to.is_some() {
            // The same again would fail again, so the two more tries of C6 are left alone.
            self.outputs.push_back(crate::client::Output::Close(close::NORMAL));
            let error = Error::from(payload);
            if self.credentials.token.is_none() {
                return self.end(error);
            }
            return self.credentials_refused(error);
        }
        self.retry_after_ms = payload.retry_after_ms.or(self.retry_after_ms);
        self.last_error = Some(payload);
    }

    fn live_message(&mut self, message: FromServer) {
        let FromServer {
            thread_id,
            reply_to,
            message,
            ..
        } = message;
        match (message, thread_id) {
            (ServerMessage::Session(session), _) => self.reauthenticated(session),
            (ServerMessage::Subscribed(subscribed), _) => {
                self.subscribed(thread_id, reply_to, subscribed);
            }
            (ServerMessage::Unsubscribed(unsubscribed), Some(thread_id)) => {
                self.unsubscribed(thread_id, unsubscribed);
            }
            (ServerMessage::Receipt(receipt), _) => self.receipt(reply_to, receipt),
            (ServerMessage::Threads(threads), _) => self.reply(reply_to, Reply::Threads(threads)),
            (ServerMessage::Members(members), _) => self.reply(reply_to, Reply::Members(members)),
            (ServerMessage::Specs(specs), _) => self.reply(reply_to, Reply::Specs(specs)),
            (ServerMessage::Checkpoint(note), _) => self.reply(reply_to, Reply::Checkpoint(note)),
            (ServerMessage::History(range), _) => self.history(reply_to, range),
            (ServerMessage::Marked(marked), Some(thread_id)) => match reply_to {
                Some(_) => self.reply(reply_to, Reply::Marked(marked)),
                None => self.emit(Event::Marked { thread_id, marked }),
            },
            (ServerMessage::Drain(drain), _) => {
                self.retry_after_ms = Some(drain.retry_after_ms);
                if let Phase::Live(live) = &mut self.phase {
                    live.draining = true;
                }
                self.emit(Event::Notice(Notice::Drain {
                    retry_after_ms: drain.retry_after_ms,
                }));
            }
            (ServerMessage::Snapshot(snapshot), Some(thread_id)) => {
                self.snapshot(thread_id, &snapshot);
            }
            (ServerMessage::ThreadUpdate(range), Some(thread_id)) => {
                self.thread_update(thread_id, range);
            }
            (ServerMessage::ApprovalRequest(request), Some(thread_id)) => {
                self.emit(Event::ApprovalRequest { thread_id, request });
            }
            (ServerMessage::NewMessage(event), Some(thread_id)) => {
                self.emit(Event::NewMessage { thread_id, event });
            }
            (ServerMessage::NewApproval(event), Some(thread_id)) => {
                self.emit(Event::NewApproval { thread_id, event });
            }
            (ServerMessage::StateChange(event), Some(thread_id)) => {
                self.emit(Event::StateChange { thread_id, event });
            }
            (ServerMessage::UserAction(event), Some(thread_id)) => {
                self.thread_event(thread_id, Update::UserAction(event));
            }
            (ServerMessage::Stream(event), Some(thread_id)) => {
                let now = self.ms();
                if let Some(subscription) = self.subscriptions.get_mut(&thread_id) {
                    subscription.streams.take(&event, now);
                }
                self.thread_event(thread_id, Update::Stream(event));
            }
            (ServerMessage::ConnectionError(payload) | ServerMessage::StateError(payload), thread_id) => {
                self.refused(thread_id, reply_to, payload)
            }
            // A heartbeat did its work by coming. What lacks its thread, comes at the wrong time or has an unknown type has no meaning here (E3).
            (
                ServerMessage::Heartbeat(_)
                | ServerMessage::Hello(_)
                | ServerMessage::Unknown(_)
                | ServerMessage::Unsubscribed(_)
                | ServerMessage::Marked(_)
                | ServerMessage::Snapshot(_)
                | ServerMessage::ThreadUpdate(_)
                | ServerMessage::ApprovalRequest(_)
                | ServerMessage::NewMessage(_)
                | ServerMessage::NewApproval(_)
                | ServerMessage::StateChange(_)
                | ServerMessage::UserAction(_)
                | ServerMessage::Stream(_),
                _,
            ) => {}
        }
    }

    /// New credentials were taken (C6).
    fn reauthenticated(&mut self, session: Session) {
        if let Phase::Live(live) = &mut self.phase {
            live.reauthenticating = None;
        }
        if session.session_token.is_some() {
            self.session_token = session.session_token;
        }
    }

    fn receipt(&mut self, reply_to: Option<Id>, receipt: Receipt) {
        if let Some(id) = reply_to
            && self.lanes.remove(id).is_some()
        {
            self.answer(id, Ok(receipt));
        }
    }

    // ------------------------------------------------------------------------------------------------------------------------------------------- replies

    fn reply(&mut self, reply_to: Option<Id>, reply: Reply) {
        if let Some(id) = reply_to
            && self.requests.remove(&id).is_some()
        {
            self.emit(Event::Replied { id, result: Ok(reply) });
        }
    }

    fn history(&mut self, reply_to: Option<Id>, range: Range) {
        let Some((id, asked)) = reply_to.and_then(|id| self.requests.remove(&id).map(|asked| (id, asked))) else {
            return;
        };
        let result = match asked.request {
            // Against itself only: whether it belongs to the log that is known is the caller's walk.
            Request::History { thread_id, .. } => Walk::new(thread_id, range.end())
                .verify(&range)
                .map(|_| Reply::History(range))
                .map_err(|error| Error::wire(ErrorCode::StateDesync, error.to_string())),
            Request::Earlier { thread_id, .. } => self.prepend(thread_id, range),
            _ => Err(Error::wire(ErrorCode::Internal, "the reply belongs to another request")),
        };
        self.emit(Event::Replied { id, result });
    }

    fn prepend(&mut self, thread_id: ThreadId, range: Range) -> Result<Reply, Error> {
        let Some(replica) = self
            .subscriptions
            .get_mut(&thread_id)
            .and_then(|subscription| subscription.replica.as_mut())
        else {
            return Err(super::not_followed());
        };
        let at_start = range.from == choir_protocol::ids::Seq::ZERO;
        let page = Arc::make_mut(replica)
            .prepend(range, &mut self.keys)
            .map_err(|error| Error::wire(ErrorCode::StateDesync, error.to_string()))?;
        if page.kept || !page.findings.is_empty() {
            self.emit(Event::Thread {
                thread_id,
                update: Update::History {
                    findings: page.findings,
                },
            });
        }
        Ok(Reply::Earlier {
            entries: page.entries,
            kept: page.kept,
            at_start,
        })
    }

    // -------------------------------------------------------------------------------------------------------------------------------------------- errors

    fn refused(&mut self, thread_id: Option<ThreadId>, reply_to: Option<Id>, payload: ErrorPayload) {
        if payload.code == ErrorCode::SequenceGap {
            let thread_id = thread_id.or_else(|| self.lanes.thread_of(reply_to?));
            if let (Some(thread_id), Some(expected)) = (thread_id, payload.expected) {
                self.lanes.gap(thread_id, reply_to, expected);
            }
            return;
        }
        if let Some(id) = reply_to {
            if self.lanes.contains(id) {
                return self.action_refused(id, payload);
            }
            if self.requests.contains_key(&id) {
                return self.request_refused(id, payload);
            }
            if self.subscribe_refused(id, thread_id, &payload) {
                return;
            }
            if let Phase::Live(live) = &mut self.phase
                && live.reauthenticating == Some(id)
            {
                live.reauthenticating = None;
            }
        }
        match (payload.code, thread_id) {
            (ErrorCode::StateDesync, Some(thread_id)) => {
                self.desynced(thread_id, Error::from(payload));
            }
            (ErrorCode::Superseded, _) => {
                self.outputs.push_back(crate::client::Output::Close(close::NORMAL));
                self.end(Error::from(payload));
            }
            (ErrorCode::TokenExpiring, _) => self.emit(Event::CredentialsWanted {
                waiting: false,
                error: Error::from(payload),
            }),
            _ => {
                self.retry_after_ms = payload.retry_after_ms.or(self.retry_after_ms);
                self.last_error = Some(payload.clone());
                self.emit(Event::Error {
                    thread_id,
                    error: Error::from(payload),
                });
            }
        }
    }

    /// An action was refused (A3, A4, R1, R2).
    fn action_refused(&mut self, id: Id, payload: ErrorPayload) {
        let consumes_no_number = matches!(payload.code, ErrorCode::InvalidMessage | ErrorCode::UnknownType);
        if !payload.retryable && !consumes_no_number {
            self.lanes.remove(id);
            return self.answer(id, Err(Error::from(payload)));
        }
        let (Some(thread_id), refusals) = (self.lanes.thread_of(id), self.lanes.refusals(id)) else {
            return;
        };
        let again = payload.retryable && refusals + 1 < self.most_refusals(&payload);
        let until = self.ms().saturating_add(self.patience(&payload, refusals));
        match self.lanes.refused(id, again, until) {
            Some(Refusal::GivenUp) => self.answer(id, Err(Error::from(payload.clone()))),
            Some(Refusal::Again) => {}
            // Not on the wire: of an earlier sending. What is final is so all the same.
            None if consumes_no_number => {
                self.lanes.remove(id);
                self.answer(id, Err(Error::from(payload.clone())));
            }
            None => return,
        }
        match payload.code {
            ErrorCode::RateLimited => {
                let now = self.ms();
                self.action_pace.empty(now);
            }
            ErrorCode::ClockSkew => {
                if let Some(server_time) = payload.server_time {
                    let wall = i64::try_from(self.now.wall.get()).unwrap_or(i64::MAX);
                    let server = i64::try_from(server_time.get()).unwrap_or(i64::MAX);
                    self.clock_ahead_ms = server.saturating_sub(wall);
                }
                self.lanes.sign_anew(thread_id, None);
            }
            // What it said to have seen isn't in the log (K4): without it until the thread is level again.
            ErrorCode::StateDesync => {
                self.lanes.sign_anew(thread_id, Some(None));
                self.resync_for_actions(thread_id, Error::from(payload));
            }
            _ => {}
        }
    }

    fn request_refused(&mut self, id: Id, payload: ErrorPayload) {
        let refusals = self.requests.get(&id).map_or(0, |asked| asked.refusals);
        if payload.retryable && refusals + 1 < self.most_refusals(&payload) {
            let now = self.ms();
            let not_before = now.saturating_add(self.patience(&payload, refusals));
            if payload.code == ErrorCode::RateLimited {
                self.request_pace.empty(now);
            }
            if let Some(asked) = self.requests.get_mut(&id) {
                asked.sent = false;
                asked.refusals += 1;
                asked.not_before = not_before;
            }
        } else if self.requests.remove(&id).is_some() {
            self.emit(Event::Replied {
                id,
                result: Err(Error::from(payload)),
            });
        }
    }

    /// How long to wait before the same thing is tried again: as long as the server asks, where it doesn't at once the first time, then as C11 waits (R1).
    pub(super) fn patience(&mut self, payload: &ErrorPayload, refusals: u32) -> u64 {
        match payload.retry_after_ms {
            Some(ms) => ms,
            None if refusals == 0 => 0,
            None => crate::client::backoff::Backoff::after(refusals).next_ms(&mut self.entropy, None),
        }
    }

    fn most_refusals(&self, payload: &ErrorPayload) -> u32 {
        match payload.code {
            ErrorCode::RateLimited => MAX_RATE_REFUSALS,
            _ => self.config.max_refusals,
        }
    }
}
