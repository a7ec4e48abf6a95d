//! One connection's task: the loop that runs the core's session machine over a socket.
//!
//! ```text
//! loop: take the machine's outputs → begin work → hand in a message → serve a thread, as long as any of it goes on
//!       write
//!       wait for: the mailbox, the socket, work, time
//! ```
//!
//! It holds no entries: a subscription is a cursor, and a range is made when there is room for it (T6, Y12).

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use choir_core::session::connection::{Submission, SubscribeRequest};
use choir_core::session::{Connection as Machine, Input, Monotonic, Now, Output};
use choir_core::thread::Thread;
use choir_protocol::error::{ErrorCode, close};
use choir_protocol::hash::Hash;
use choir_protocol::ids::{Id, Seq, ThreadId};
use choir_protocol::key::{PreparedKey, PublicKey};
use choir_protocol::message::{ClientMessage, ErrorPayload, FromClient, Mode, ServerMessage};
use choir_websocket::{CloseCode, Config as DecoderConfig, Decoder, Event, Frame, ProtocolError, Role};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::coop::consume_budget;
use tokio::time::{Duration, Instant, sleep_until, timeout};

use super::outbox::Outbox;
use super::work::{All, Done, For, Running, Subscribe, Work};
use crate::encode::envelope;
use crate::mailbox::{Answered, Inbox, Mailbox};
use crate::rates::Ticket;
use crate::registry::{Seat, User};
use crate::requests::Reply;
use crate::server::{Entered, Shared};
use crate::threads::{Item, may_hear, not_delivered};

mod serving;

use serving::Follow;

/// How much is read at a time; held only while something is read.
const READ_BYTES: usize = 8 * 1024;
/// How long an end may take that the client has to take part in.
const HANG_UP: Duration = Duration::from_secs(2);

/// A connection that was upgraded.
pub(super) struct Connection {
    whom: For,
    machine: Machine,
    socket: TcpStream,
    peer: IpAddr,
    /// Given back with authentication.
    ticket: Option<Ticket>,
    decoder: Decoder,
    outbox: Outbox,
    follows: HashMap<ThreadId, Follow>,
    /// Threads that something may be due of, each once, served in turn (T6).
    ready: VecDeque<ThreadId>,
    work: VecDeque<Work>,
    running: Option<Running>,
    /// Whether a push waits for its thread.
    pushing: bool,
    seat: Option<Seat>,
    account: Option<Arc<User>>,
    /// The session's key, decompressed once.
    prepared: Option<(PublicKey, PreparedKey)>,
    /// How many threads an `all` has subscribed so far, and whether it came to the limit.
    all_count: u64,
    all_full: bool,
    superseded: bool,
    drain: Option<u64>,
    /// Until when the message that has begun must be complete.
    message_until: Option<Instant>,
    /// Since when nothing was taken of what waits.
    stalled_since: Option<Monotonic>,
    /// When a thread is to be looked at again without news of it.
    look_at: Option<Monotonic>,
    end: Option<End>,
    /// Last, so that the connection counts until all of it is gone.
    entered: Entered,
}

/// How a connection ends.
enum End {
    /// With this close frame.
    Close(Frame),
    /// The client is gone.
    Gone,
}

enum Woke {
    Mail,
    Readable,
    Writable,
    Done(Box<Done>),
    Time,
}

impl Connection {
    pub(super) fn new(
        shared: Arc<Shared>,
        number: u64,
        machine: Machine,
        socket: TcpStream,
        received: &[u8],
        peer: IpAddr,
        ticket: Ticket,
    ) -> Self {
        let mut decoder = Decoder::new(DecoderConfig {
            max_message_bytes: usize::try_from(shared.config.limits.max_message_bytes).unwrap_or(usize::MAX),
            max_fragments: shared.config.guard.max_fragments,
            ..DecoderConfig::new(Role::Server)
        });
        decoder.feed(received);
        let mailbox = Arc::new(Mailbox::default());
        let entered = Entered::new(shared.clone(), number, mailbox.clone());
        Self {
            whom: For {
                shared,
                user: None,
                connection: number,
                mailbox,
            },
            machine,
            socket,
            peer,
            ticket: Some(ticket),
            decoder,
            outbox: Outbox::default(),
            follows: HashMap::new(),
            ready: VecDeque::new(),
            work: VecDeque::new(),
            running: None,
            pushing: false,
            seat: None,
            account: None,
            prepared: None,
            all_count: 0,
            all_full: false,
            superseded: false,
            drain: None,
            message_until: None,
            stalled_since: None,
            look_at: None,
            end: None,
            entered,
        }
    }

    /// Boxed, since a task holds whatever is moved through it more than once.
    pub(super) async fn run(mut self: Box<Self>) {
        loop {
            // Work that is done at once, and a socket that takes everything, must not keep the others of this core waiting.
            consume_budget().await;
            self.turn();
            if self.end.is_some() {
                break;
            }
            match self.wait().await {
                Woke::Mail => {
                    let inbox = self.whom.mailbox.take();
                    self.open_mail(inbox);
                }
                Woke::Readable => self.read(),
                Woke::Writable => {}
                Woke::Done(done) => self.done(*done),
                Woke::Time => self.tick(),
            }
        }
        Box::pin(self.finish()).await;
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.whom.shared
    }

    fn now(&self) -> Now {
        self.shared().clock.now()
    }

    /// Does everything that can be done without waiting.
    fn turn(&mut self) {
        loop {
            self.pump();
            if self.end.is_some() {
                return;
            }
            let progress = self.next_push() || self.begin_work() || self.take_event() || self.obey() || self.serve();
            if !progress {
                // What this makes room for is done at once: the socket may not be heard of again.
                if !self.write() {
                    break;
                }
            }
        }
        let held = self.holds_back();
        let now = self.now();
        self.machine.hold(now, held);
    }

    /// Acts on the machine's outputs.
    fn pump(&mut self) {
        while let Some(output) = self.machine.poll() {
            match output {
                Output::Send(message) => self.outbox.push(Frame::text(&message.to_text()).into_bytes()),
                Output::Ping => self.outbox.push(Frame::ping(b"").into_bytes()),
                Output::Close { code, reason } => {
                    let code = CloseCode::new(code).unwrap_or(CloseCode::NORMAL);
                    self.end.get_or_insert(End::Close(Frame::close(code, reason)));
                }
                Output::StartSession(request) => self.work.push_back(Work::Session(request)),
                Output::Submit(submission) => self.submit(*submission),
                Output::Subscribe(request) => self.subscribe(*request),
                Output::Unsubscribed(thread_id) => self.forget(thread_id),
                Output::Request(id, request) => self.work.push_back(Work::Request(id, request)),
                Output::Acknowledged { thread_id, seq, root } => {
                    if let Some(root) = root {
                        self.check_root(thread_id, seq, root);
                    }
                }
            }
        }
    }

    fn begin_work(&mut self) -> bool {
        if self.running.is_some() {
            return false;
        }
        let may = match self.work.front() {
            None => false,
            Some(work) if work.fills() => self.outbox.is_empty(),
            Some(_) => self.outbox.room() > 0,
        };
        if may && let Some(work) = self.work.pop_front() {
            self.running = Some(work.begin(self.whom.clone()));
        }
        may
    }

    /// Whether what the client sent waits: for answers that come in order, or for room to answer.
    fn holds_back(&self) -> bool {
        self.work_holds() || self.outbox.room() == 0
    }

    fn work_holds(&self) -> bool {
        self.running.as_ref().is_some_and(|running| running.holds) || self.work.iter().any(Work::holds)
    }

    fn reads(&self) -> bool {
        self.machine.reads() && !self.holds_back()
    }

    /// Hands in one thing that the client sent.
    fn take_event(&mut self) -> bool {
        if !self.reads() {
            return false;
        }
        match self.decoder.poll() {
            Ok(Some(event)) => {
                self.event(event);
                true
            }
            Ok(None) if self.decoder.in_message() => {
                let until = Duration::from_millis(self.shared().config.times.message_ms);
                self.message_until.get_or_insert_with(|| Instant::now() + until);
                false
            }
            Ok(None) => {
                self.message_until = None;
                false
            }
            Err(error) => {
                let (code, reason) = broken(error);
                self.machine.close(code, reason);
                true
            }
        }
    }

    fn event(&mut self, event: Event) {
        let now = self.now();
        match event {
            Event::Text(text) => {
                self.message_until = None;
                self.message(now, text.as_str());
            }
            Event::Binary(_) | Event::Compressed { .. } => self.machine.handle(now, Input::Binary),
            Event::Ping(payload) => self.outbox.push(Frame::pong(&payload).into_bytes()),
            Event::Pong(_) => self.machine.handle(now, Input::Pong),
            Event::Close(close) => {
                self.end = Some(End::Close(Frame::answer_to_close(close.as_ref())));
                self.machine.close(close::NORMAL, "");
            }
        }
    }

    fn message(&mut self, now: Now, text: &str) {
        let read = FromClient::read(text);
        if let Ok(message) = &read {
            let refused = match &message.message {
                ClientMessage::Auth(_) if self.seat.is_none() => {
                    let refused = self.shared().addresses.refused_for(self.peer, now.monotonic);
                    if refused.is_some() {
                        self.machine
                            .close(close::RATE_LIMITED, "too many failed authentications");
                    }
                    refused
                }
                request if request.is_request() => self
                    .account
                    .as_ref()
                    .and_then(|account| account.requests(now.monotonic).err()),
                _ => None,
            };
            if let Some(retry_after_ms) = refused {
                let error =
                    ErrorPayload::new(ErrorCode::RateLimited, "too many in this time").with_retry_after(retry_after_ms);
                return self.send(None, Some(message.id), ServerMessage::ConnectionError(error));
            }
        }
        let failures = self.machine.auth_failures();
        self.machine.handle(now, Input::Message(Box::new(read)));
        if self.machine.auth_failures() > failures {
            self.shared().addresses.failed(self.peer, now.monotonic);
        }
    }

    /// Ends the connection where it was told to, once what came before is answered.
    fn obey(&mut self) -> bool {
        let now = self.now();
        if self.superseded && self.machine.user().is_some() {
            self.superseded = false;
            self.machine.handle(now, Input::Superseded);
            return true;
        }
        if let Some(retry_after_ms) = self.drain
            && !self.work_holds()
        {
            self.drain = None;
            self.machine.handle(now, Input::Drain { retry_after_ms });
            return true;
        }
        false
    }

    /// Checks an action's signature here, on the connection's own task, and hands it to its thread.
    fn submit(&mut self, submission: Submission) {
        self.shared().counters.actions.add();
        let now = self.now();
        if let Some(account) = &self.account
            && let Err(retry_after_ms) = account.acts(now.monotonic)
        {
            let error = ErrorPayload::new(ErrorCode::RateLimited, "too many actions in this time");
            return self.decline(&submission, error.with_retry_after(retry_after_ms));
        }
        let holds = self.signature_holds(&submission);
        let item = Item::new(submission, holds, self.whom.mailbox.clone());
        let shared = self.shared();
        if let Err(Some(item)) = shared.threads.submit(shared, item) {
            let submission = item.into_submission();
            self.decline(&submission, not_delivered());
        }
    }

    /// Refuses an action that goes to no thread, before the next one is taken up (A3).
    fn decline(&mut self, submission: &Submission, error: ErrorPayload) {
        self.shared().counters.refusals.add();
        let Submission { action, generation, .. } = submission;
        let declined = Input::Declined {
            thread_id: action.thread_id,
            id: action.id,
            generation: *generation,
            error,
        };
        self.machine.handle(self.whom.shared.clock.now(), declined);
    }

    fn signature_holds(&mut self, submission: &Submission) -> bool {
        if self.prepared.as_ref().is_none_or(|(key, _)| *key != submission.key) {
            self.prepared = PreparedKey::new(&submission.key).map(|prepared| (submission.key, prepared));
        }
        let text = submission.action.text(&submission.audience, &submission.author);
        self.prepared
            .as_ref()
            .is_some_and(|(_, key)| key.verify(text.as_bytes(), &submission.action.sig))
    }

    fn subscribe(&mut self, request: SubscribeRequest) {
        let SubscribeRequest { reply_to, threads, all } = request;
        let named: BTreeSet<ThreadId> = threads.iter().map(|(thread_id, ..)| *thread_id).collect();
        for (thread_id, cursor, options) in threads {
            let subscribe = Subscribe {
                reply_to: Some(reply_to),
                thread_id,
                cursor,
                options,
                by_all: all.is_some(),
            };
            self.work.push_back(Work::Subscribe(subscribe));
        }
        if let Some(options) = all {
            self.all_count = 0;
            self.all_full = false;
            self.work.push_back(Work::All(All {
                reply_to,
                options,
                named: Arc::new(named),
                after: None,
            }));
        }
    }

    /// Y9.
    fn check_root(&mut self, thread_id: ThreadId, seq: Seq, root: Hash) {
        let in_ring = self
            .follows
            .get(&thread_id)
            .and_then(|follow| follow.hub.lock().ring.root_at(seq));
        match in_ring {
            Some(found) => self.checked(thread_id, found == root),
            None => self.work.push_back(Work::CheckRoot(thread_id, seq, root)),
        }
    }

    fn checked(&mut self, thread_id: ThreadId, equal: bool) {
        let counters = &self.shared().counters;
        if equal {
            return counters.checks_equal.add();
        }
        counters.checks_different.add();
        let error = ErrorPayload::new(
            ErrorCode::StateDesync,
            "the acknowledged root isn't the log's at that number",
        );
        self.send(Some(thread_id), None, ServerMessage::StateError(error));
    }

    /// Sends a message that isn't the machine's own, after what the machine has said before.
    fn send(&mut self, thread_id: Option<ThreadId>, reply_to: Option<Id>, message: ServerMessage) {
        self.pump();
        self.put_message(thread_id, reply_to, message);
    }

    /// The same where the machine is known to have nothing to say, or may not be heard: under a hub's lock.
    fn put_message(&mut self, thread_id: Option<ThreadId>, reply_to: Option<Id>, message: ServerMessage) {
        let now = self.now();
        let message = self.machine.envelope(now, thread_id, reply_to, message);
        self.outbox.push(Frame::text(&message.to_text()).into_bytes());
    }

    /// Sends a payload that was written by hand.
    fn send_text(&mut self, type_name: &str, thread_id: Option<ThreadId>, reply_to: Option<Id>, payload: &str) {
        let now = self.now();
        self.pump();
        let text = envelope(
            self.machine.fresh_id(now),
            type_name,
            now.wall,
            thread_id,
            reply_to,
            payload,
        );
        self.outbox.push(Frame::text(&text).into_bytes());
    }

    fn open_mail(&mut self, inbox: Inbox) {
        let now = self.now();
        let Inbox {
            news,
            joined,
            answers,
            superseded,
            drain,
            ..
        } = inbox;
        for Answered {
            thread_id,
            id,
            generation,
            answer,
        } in answers
        {
            self.machine.handle(
                now,
                Input::Answered {
                    thread_id,
                    id,
                    generation,
                    answer,
                },
            );
        }
        for thread_id in news {
            self.enqueue(thread_id);
        }
        for thread_id in joined {
            self.joined(thread_id);
        }
        self.superseded |= superseded;
        self.drain = self.drain.or(drain);
    }

    /// Y3's `all`: the user joined a thread.
    fn joined(&mut self, thread_id: ThreadId) {
        let waits = |work: &Work| matches!(work, Work::Subscribe(subscribe) if subscribe.thread_id == thread_id);
        if let Some(options) = self.machine.all()
            && !self.follows.contains_key(&thread_id)
            && !self.work.iter().any(waits)
        {
            let subscribe = Subscribe {
                reply_to: None,
                thread_id,
                cursor: None,
                options,
                by_all: true,
            };
            self.work.push_back(Work::Subscribe(subscribe));
        }
    }

    /// Takes the next thing that concerns the user in person (V2), where there is room for it (T6) and somebody to hear it.
    fn next_push(&mut self) -> bool {
        if self.pushing || self.outbox.room() == 0 || self.machine.user().is_none() {
            return false;
        }
        let Some((thread_id, message)) = self.whom.mailbox.next_push() else {
            return false;
        };
        match self.shared().threads.in_memory(thread_id) {
            Some(thread) => self.pushed(&thread, &message),
            None => {
                self.pushing = true;
                self.work.push_back(Work::Push(thread_id, message));
            }
        }
        true
    }

    fn pushed(&mut self, thread: &Thread, message: &ServerMessage) {
        let thread_id = thread.thread_id();
        let is_event = message.type_name().starts_with("event.");
        let subscription = self.machine.subscription(thread_id);
        // In mode `events` the same event comes with the thread's others (V1), and is not repeated.
        if is_event && subscription.is_some_and(|subscription| subscription.options.mode == Mode::Events) {
            return;
        }
        if self.machine.user().is_some_and(|user| may_hear(thread, user, message)) {
            self.send(Some(thread_id), None, message.clone());
        }
    }

    fn done(&mut self, done: Done) {
        let now = self.now();
        self.running = None;
        match done {
            Done::Nothing => {}
            Done::Session(Ok(started)) => {
                self.seat = Some(started.seat);
                self.account = Some(started.user);
                self.machine.handle(now, Input::SessionStarted(Box::new(started.grant)));
                self.whom.user = self.machine.user().cloned();
                self.ticket = None;
                self.work.push_back(Work::Awaiting);
            }
            Done::Session(Err((error, code))) => self.machine.handle(now, Input::SessionRefused(error, code)),
            Done::Subscribe(subscribe, Ok(None)) => {
                self.machine
                    .refuse_subscription(now, subscribe.reply_to, subscribe.thread_id, "not_found");
            }
            Done::Subscribe(subscribe, Err(error)) => {
                self.send(
                    Some(subscribe.thread_id),
                    subscribe.reply_to,
                    ServerMessage::ConnectionError(error),
                );
            }
            Done::Subscribe(subscribe, Ok(Some(opened))) => self.begin(subscribe, opened),
            Done::All(all, Ok(threads)) => self.all_page(all, &threads),
            // Not the end that Y4 promises: what is missing would seem not to be there.
            Done::All(all, Err(error)) => self.send(None, Some(all.reply_to), ServerMessage::ConnectionError(error)),
            Done::Reply(id, thread_id, Reply::Text(type_name, payload)) => {
                self.send_text(type_name, thread_id, Some(id), &payload)
            }
            Done::Reply(id, thread_id, Reply::Message(message)) => self.send(thread_id, Some(id), *message),
            Done::Loaded(thread_id, there) => self.loaded(thread_id, there),
            Done::Records(thread_id, records) => self.serve_read(thread_id, records),
            Done::Snapshot(thread_id, plan, text) => self.serve_snapshot(thread_id, &plan, text.as_deref()),
            Done::Checked(thread_id, equal) => self.checked(thread_id, equal),
            Done::Push(thread_id, message) => {
                self.pushing = false;
                // It can't be said to whom it may be shown: where the thread couldn't be read, or has left memory again.
                if let Some(thread) = self.shared().threads.in_memory(thread_id) {
                    self.pushed(&thread, &message);
                }
            }
        }
    }

    fn all_page(&mut self, all: All, threads: &[ThreadId]) {
        if threads.is_empty() || self.all_full {
            let now = self.now();
            return self.machine.all_subscribed(now, all.reply_to, self.all_count);
        }
        let next = All {
            after: threads.last().copied(),
            named: all.named.clone(),
            ..all
        };
        let (reply_to, options) = (Some(next.reply_to), next.options);
        let named = next.named.clone();
        // Before anything that was asked for later.
        self.work.push_front(Work::All(next));
        for thread_id in threads.iter().rev().filter(|thread_id| !named.contains(thread_id)) {
            self.work.push_front(Work::Subscribe(Subscribe {
                reply_to,
                thread_id: *thread_id,
                cursor: None,
                options,
                by_all: true,
            }));
        }
    }

    fn read(&mut self) {
        // Room is made only when there is something to read, so that an idle connection holds none.
        self.decoder.buffer_mut().reserve(READ_BYTES);
        match self.socket.try_read_buf(self.decoder.buffer_mut()) {
            Ok(0) => self.gone(),
            Ok(_) => {
                let now = self.now();
                self.machine.handle(now, Input::Heard);
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(_) => self.gone(),
        }
    }

    /// Writes what the socket takes; whether it took anything.
    fn write(&mut self) -> bool {
        if self.outbox.is_empty() {
            self.stalled_since = None;
            return false;
        }
        let now = self.now();
        match self.outbox.write_to(&self.socket) {
            Ok(wrote) => {
                if wrote {
                    // What the kernel took is as near as safe code comes to what the client took: a socket buffer that takes more has been emptied by as much.
                    self.machine.handle(now, Input::QueueShrank);
                }
                if self.outbox.is_empty() {
                    self.stalled_since = None;
                } else if wrote || self.stalled_since.is_none() {
                    self.stalled_since = Some(now.monotonic);
                }
                wrote
            }
            Err(_) => {
                self.gone();
                false
            }
        }
    }

    fn gone(&mut self) {
        self.end = Some(End::Gone);
        self.machine.close(close::NORMAL, "");
    }

    fn tick(&mut self) {
        let now = self.now();
        self.machine.handle(now, Input::Tick);
        if self.message_until.is_some_and(|until| Instant::now() >= until) {
            self.machine
                .close(close::INVALID_MESSAGE, "a message took too long to arrive");
        }
        if self.stalled_until().is_some_and(|until| now.monotonic >= until) {
            // It takes nothing: a close frame wouldn't reach it either.
            self.gone();
        }
        if self.look_at.is_some_and(|at| now.monotonic >= at) {
            self.look_again(now.monotonic);
        }
    }

    fn stalled_until(&self) -> Option<Monotonic> {
        self.stalled_since
            .map(|since| since.plus_ms(self.shared().config.times.stalled_ms))
    }

    async fn wait(&mut self) -> Woke {
        let reads = self.reads();
        if !reads {
            // Time in which the rest isn't read is not the client's.
            self.message_until = None;
        }
        let clock = &self.whom.shared.clock;
        let due = [self.machine.wake_at(), self.stalled_until(), self.look_at]
            .into_iter()
            .flatten()
            .min();
        let due = [due.map(|at| clock.instant(at)), self.message_until]
            .into_iter()
            .flatten()
            .min();
        let writes = !self.outbox.is_empty();
        let (socket, running) = (&self.socket, &mut self.running);
        let timer = async {
            match due {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let work = async {
            match running {
                Some(running) => Box::new(running.done().await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.whom.mailbox.rung() => Woke::Mail,
            done = work => Woke::Done(done),
            _ = socket.writable(), if writes => Woke::Writable,
            // An error shows itself to whoever reads.
            _ = socket.readable(), if reads => Woke::Readable,
            () = timer => Woke::Time,
        }
    }

    /// Says good-bye, and waits for the answers to what was taken up: they stay with the session (A7).
    async fn finish(self) {
        let Self {
            whom: For { shared, mailbox, .. },
            mut machine,
            socket,
            mut outbox,
            follows,
            seat,
            ticket,
            end,
            running,
            entered,
            ..
        } = self;
        drop(running);
        drop(follows);
        let hang_up = async {
            match end {
                Some(End::Close(frame)) => {
                    outbox.push(frame.into_bytes());
                    let _ = timeout(HANG_UP, hang_up(socket, outbox)).await;
                }
                Some(End::Gone) | None => drop(socket),
            }
            drop(ticket);
        };
        let settle = async {
            while machine.in_flight() > 0 {
                mailbox.rung().await;
                for Answered {
                    thread_id,
                    id,
                    generation,
                    answer,
                } in mailbox.take().answers
                {
                    machine.handle(
                        shared.clock.now(),
                        Input::Answered {
                            thread_id,
                            id,
                            generation,
                            answer,
                        },
                    );
                }
            }
            if let Some(seat) = seat {
                seat.leave(machine.into_session());
            }
        };
        tokio::join!(hang_up, settle);
        drop(entered);
    }
}

/// The close code for a broken frame, and what is said of it: 1002, 1007 and 1009 as RFC 6455 has them (E4), 4400 for too many fragments (section 12).
fn broken(error: ProtocolError) -> (u16, &'static str) {
    match error {
        ProtocolError::TooManyFragments { .. } => (close::INVALID_MESSAGE, "a message of too many fragments"),
        ProtocolError::MessageTooLong { .. } => (close::TOO_LARGE, "a message over max_message_bytes"),
        ProtocolError::TextNotUtf8 | ProtocolError::CloseReasonNotUtf8 => (close::NOT_UTF8, "text that isn't UTF-8"),
        _ => (close::PROTOCOL_ERROR, "a broken frame"),
    }
}

/// Ends a connection so that what was written last arrives: closing a socket that still holds unread bytes would reset the connection, and the client might lose
/// the close frame (RFC 6455 §7.1.1).
async fn hang_up(mut socket: TcpStream, mut outbox: Outbox) -> io::Result<()> {
    while !outbox.is_empty() {
        socket.writable().await?;
        outbox.write_to(&socket)?;
    }
    socket.shutdown().await?;
    let mut dropped = vec![0; READ_BYTES];
    while socket.read(&mut dropped).await? > 0 {}
    Ok(())
}
