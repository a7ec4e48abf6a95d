//! A thread's actor: the only one who decides its actions and appends to its log.
//!
//! ```text
//! take what has arrived → decide it, each on top of the other → one append → publish → answer → take what has arrived …
//! ```
//!
//! While an append is on its way nothing is decided: what arrives becomes the next batch. No answer leaves before what it was decided on is durable (G2), and
//! where an append fails everything that was decided on it is thrown away (A10).

use std::collections::{HashMap, VecDeque};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use choir_core::apply::{ApplyError, apply};
use choir_core::batch::{Batch, Step};
use choir_core::decide::{Append, Context, Lookups, Own, Refusal, duplicate, targets};
use choir_core::record::Found;
use choir_core::session::sequence::{Answer, Generation};
use choir_core::thread::Thread;
use choir_log::{AppendError, Log, ReadError, ReadLimit};
use choir_protocol::action::{Action, SignedAction};
use choir_protocol::error::ErrorCode;
use choir_protocol::hash::Hash;
use choir_protocol::ids::{Seq, SessionId, ThreadId, Timestamp};
use choir_protocol::message::{ErrorPayload, Receipt, ReceiptStatus};
use tokio::sync::mpsc;
use tokio::time::{Duration, Instant, sleep, sleep_until};

use super::{Hub, Item, Loaded, Mail, Registration, Ring, head_of, not_delivered, people};
use crate::Shared;
use crate::rates::Use;

/// How many actions, and about how many bytes of them, become one append.
const MAX_BATCH: usize = 256;
const MAX_BATCH_BYTES: usize = 1024 * 1024;
/// After so many entries the state is kept, so that a restart reads no more than these of an active thread.
const SAVE_EVERY: u64 = 4_096;
/// How often a batch is decided anew because somebody else appended, before its clients are told to try again.
const MAX_ANEW: usize = 8;
/// How soon an actor without work leaves where memory is short.
const PRESSED_IDLE_MS: u64 = 100;
/// How long the first wait is where the log is busy or doesn't know an append's outcome; each further one is twice as long.
const FIRST_PAUSE_MS: u64 = 10;
const LONGEST_PAUSE_MS: u64 = 1_000;

/// A thread's actor, to be run as a task of its own.
pub(super) struct Actor {
    thread_id: ThreadId,
    shared: Arc<Shared>,
    hub: Arc<Hub>,
    /// In the order of arrival. Before the inbox, since what is dropped with the actor is refused, the first of a session first (A3).
    waiting: VecDeque<Item>,
    inbox: mpsc::Receiver<Mail>,
    /// Everything durable; none where there is no such thread.
    state: Option<Arc<Thread>>,
    /// Entries since the state was kept.
    unsaved: u64,
    stopping: bool,
    /// Whether specs may be due (S8).
    expire: bool,
    /// Last, so that it is given back when everything else is gone.
    #[allow(dead_code, reason = "it acts when it is dropped")]
    registration: Registration,
}

/// What was decided of an action; nobody knows before it is durable.
enum Outcome {
    Answer(Answer),
    /// A duplicate of an entry whose root the log knows.
    Look(Own),
    /// An action of its session was refused retryably before it in this batch (A3).
    Dropped,
}

struct Decided {
    item: Item,
    outcome: Outcome,
    reserved: Option<Use>,
}

/// How an append ended.
enum Appended {
    Durable,
    /// Somebody else appended: read on, and decide anew.
    Anew,
    Failed,
}

impl Actor {
    pub(super) fn new(shared: Arc<Shared>, hub: Arc<Hub>, inbox: mpsc::Receiver<Mail>, epoch: usize) -> Self {
        let registration = Registration {
            shared: shared.clone(),
            hub: hub.clone(),
            epoch,
        };
        Self {
            thread_id: hub.thread_id,
            shared,
            hub,
            inbox,
            waiting: VecDeque::new(),
            state: None,
            unsaved: 0,
            stopping: false,
            expire: false,
            registration,
        }
    }

    /// Starts it: a panic in it ends this thread's actor, and nothing else.
    pub(super) fn spawn(self) {
        tokio::spawn(self.run());
    }

    async fn run(mut self) {
        match load(&*self.shared.log, self.thread_id).await {
            Ok(state) => self.state = state.map(Arc::new),
            Err(error) => {
                tracing::error!(thread = %self.thread_id, %error, "a thread could not be read");
                self.hub.set_loaded(Loaded::Failed);
                return;
            }
        }
        self.hub.set_loaded(Loaded::Yes(self.state.clone()));
        let mut left_over = false;
        while self.has_work().await {
            self.drain_inbox();
            // Where several wait, more are about to: connections that are ready hand theirs over first, and share the fsync. A single action waits for nobody, nor
            // does what a full batch left over.
            if self.waiting.len() > 1 && !left_over {
                tokio::task::yield_now().await;
                self.drain_inbox();
            }
            if let Err(error) = self.round().await {
                tracing::error!(thread = %self.thread_id, %error, "a thread's log doesn't follow its rules");
                self.hub.set_loaded(Loaded::Failed);
                return;
            }
            left_over = !self.waiting.is_empty();
        }
    }

    fn drain_inbox(&mut self) {
        while self.waiting.len() < MAX_BATCH
            && let Ok(mail) = self.inbox.try_recv()
        {
            self.take(mail);
        }
    }

    fn take(&mut self, mail: Mail) {
        match mail {
            Mail::Item(item) => self.waiting.push_back(*item),
            Mail::Expire => self.expire = true,
            Mail::Stop => self.stopping = true,
        }
    }

    /// Waits until there is something to decide. False once the actor has left.
    async fn has_work(&mut self) -> bool {
        loop {
            if !self.waiting.is_empty() || self.expire {
                return true;
            }
            if self.stopping {
                return !self.leave();
            }
            let shared = self.shared.clone();
            let idle = if self.state.is_some() {
                shared.config.times.idle_thread_ms
            } else {
                PRESSED_IDLE_MS
            };
            let pressed = async {
                shared.threads.pressed.notified().await;
                sleep(Duration::from_millis(PRESSED_IDLE_MS)).await;
            };
            let mail = tokio::select! {
                mail = self.inbox.recv() => mail,
                () = sleep(Duration::from_millis(idle)) => None,
                () = pressed => None,
            };
            match mail {
                Some(mail) => self.take(mail),
                None if self.leave() => return false,
                None => {}
            }
        }
    }

    /// Leaves memory, unless something has arrived meanwhile.
    fn leave(&mut self) -> bool {
        let mut inner = self.hub.lock();
        // Under the lock, where everything is sent: what isn't here now goes to the next actor.
        if !self.inbox.is_empty() {
            return false;
        }
        inner.actor = None;
        inner.loaded = Loaded::No;
        inner.ring = Ring::default();
        drop(inner);
        self.save();
        true
    }

    fn save(&mut self) {
        if self.unsaved > 0
            && let Some(thread) = &self.state
        {
            self.shared
                .log
                .save_state(self.thread_id, thread.head().seq, thread.encode());
            self.unsaved = 0;
        }
    }

    /// Decides what waits, makes it durable, and answers.
    async fn round(&mut self) -> Result<(), ApplyError> {
        for attempt in 0..=MAX_ANEW {
            self.expire = false;
            let (batch, mut decided) = self.decide().await?;
            let before = self.state.clone();
            let Some(append) = batch.finish() else {
                // Decided on nothing but what is durable.
                self.answer(decided).await;
                return Ok(());
            };
            match self.append(&append, &mut decided).await {
                Appended::Durable => {
                    self.publish(append, before.as_deref());
                    self.answer(decided).await;
                    return Ok(());
                }
                Appended::Anew if attempt < MAX_ANEW => {
                    for entry in decided.into_iter().rev() {
                        if let Some(reserved) = entry.reserved {
                            self.shared.quotas.give_back(&entry.item.submission.author, reserved);
                        }
                        self.waiting.push_front(entry.item);
                    }
                    self.read_on().await?;
                }
                Appended::Anew | Appended::Failed => {
                    self.fail(&mut decided);
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Decides what waits, as far as it fits into one append.
    async fn decide(&mut self) -> Result<(Batch, Vec<Decided>), ApplyError> {
        let now = self.shared.clock.wall();
        let mut batch = Batch::on(self.thread_id, self.state.as_deref().cloned());
        let mut decided = Vec::new();
        // S8: an expiry is an append of its own, durable before what comes after it is decided.
        if batch.expire(now)? {
            self.expire = !self.waiting.is_empty();
            return Ok((batch, decided));
        }
        let lookups = self.look_up().await;
        let mut ended: HashMap<SessionId, Generation> = HashMap::new();
        let mut bytes = 0;
        for lookups in lookups {
            // It stays where it is until it is decided: whatever happens meanwhile, items end in the order of their arrival.
            let Some(item) = self.waiting.front() else {
                break;
            };
            let submission = &item.submission;
            bytes += submission.action.payload.as_str().len();
            if bytes > MAX_BATCH_BYTES && !decided.is_empty() {
                break;
            }
            let ended_here = ended
                .get(&submission.session_id)
                .is_some_and(|ended| submission.generation <= *ended);
            let (outcome, reserved) = match lookups {
                _ if item.is_dropped() || (ended_here && !submission.look_up_only) => (Outcome::Dropped, None),
                Ok(lookups) => match self.outcome(&mut batch, item, lookups, now) {
                    Some(outcome) => outcome,
                    None => {
                        self.expire = true;
                        break;
                    }
                },
                // What the log can't say nothing is decided on.
                Err(error) => {
                    tracing::error!(thread = %self.thread_id, %error, "the log could not be read");
                    (refuse(not_delivered()), None)
                }
            };
            let Some(item) = self.waiting.pop_front() else {
                break;
            };
            if let Outcome::Answer(answer) = &outcome
                && answer.is_retryable()
                && !item.submission.look_up_only
            {
                ended.insert(item.submission.session_id, item.submission.generation);
            }
            decided.push(Decided {
                item,
                outcome,
                reserved,
            });
        }
        Ok((batch, decided))
    }

    /// What the log says of what each waiting action names, up to a batch of them; all asked at once.
    async fn look_up(&self) -> Vec<Result<Lookups, ReadError>> {
        let log = &*self.shared.log;
        let head = head_of(self.state.as_deref());
        let one = |item: &Item| {
            let action = &item.submission.action;
            let targets = targets(action);
            let seen = action
                .seen
                .map(|seen| seen.seq)
                .filter(|seen| *seen < head.seq && *seen > Seq::ZERO);
            let in_ring = seen.and_then(|seen| self.hub.lock().ring.root_at(seen));
            let wanted = item.signature_holds;
            let thread_id = self.thread_id;
            async move {
                let mut lookups = Lookups {
                    seen_root: in_ring,
                    ..Lookups::default()
                };
                if !wanted {
                    return Ok(lookups);
                }
                for id in targets {
                    let found = log.find(thread_id, id).await?;
                    lookups.found.push((id, found));
                }
                if let (Some(seen), None) = (seen, in_ring) {
                    lookups.seen_root = log.root_at(thread_id, seen).await?;
                }
                Ok(lookups)
            }
        };
        join(self.waiting.iter().take(MAX_BATCH).map(one)).await
    }

    /// Decides one action. None where specs are due first (S8).
    fn outcome(
        &self,
        batch: &mut Batch,
        item: &Item,
        lookups: Lookups,
        now: Timestamp,
    ) -> Option<(Outcome, Option<Use>)> {
        let submission = &item.submission;
        if !item.signature_holds {
            let error = ErrorPayload::new(
                ErrorCode::SignatureInvalid,
                "the signature doesn't hold for this action, author, key and audience",
            );
            return Some((refuse(error), None));
        }
        if submission.look_up_only {
            return Some((look_up(batch, item, &lookups), None));
        }
        let action = &submission.action;
        let known = lookups.found.first().is_some_and(|(_, found)| !found.is_empty());
        let reserved = quota(action).filter(|_| !known);
        if let Some(more) = reserved
            && !self.shared.quotas.take(&submission.author, more, now)
        {
            let error = ErrorPayload::new(
                ErrorCode::Limit,
                "this user has created as many threads, or added as many members, as are allowed in a day",
            );
            return Some((refuse(error), None));
        }
        let context = Context {
            author: &submission.author,
            key: &submission.key,
            audience: &submission.audience,
            now,
            limits: &self.shared.config.thread_limits,
            audiences: &self.shared.machine.audiences,
            agent_issuers: &[],
        };
        let step = batch.decide(action, &context, lookups);
        let applied = matches!(step, Step::Committed { .. });
        if let Some(more) = reserved.filter(|_| !applied) {
            self.shared.quotas.give_back(&submission.author, more);
        }
        let outcome = match step {
            Step::Committed { own, root } => Outcome::Answer(receipt(ReceiptStatus::Committed, own, root)),
            Step::Duplicate { own, root: Some(root) } => Outcome::Answer(receipt(ReceiptStatus::Duplicate, own, root)),
            Step::Duplicate { own, root: None } => Outcome::Look(own),
            Step::Refused(refusal) => refuse(error_of(refusal)),
            Step::Later => return None,
        };
        Some((outcome, reserved.filter(|_| applied)))
    }

    /// Appends, until it is known how that ended. While it isn't, actions that wait over 5 s are told so (A10), and so are those that come then.
    async fn append(&mut self, append: &Append, decided: &mut Vec<Decided>) -> Appended {
        let late_at = Instant::now() + Duration::from_millis(self.shared.config.times.append_ms);
        let log = self.shared.log.clone();
        let Some(last) = append.records.last().map(|record| (record.seq, record.root)) else {
            return Appended::Failed;
        };
        let mut unknown = false;
        let mut pause = FIRST_PAUSE_MS;
        loop {
            let handed_over = log.append(
                self.thread_id,
                append.expected.seq,
                append.records.clone(),
                append.facts.clone(),
            );
            let Some(result) = self.patiently(handed_over, late_at, decided).await else {
                return Appended::Failed;
            };
            let error = match result {
                Ok(()) => return Appended::Durable,
                Err(error) => error,
            };
            tracing::warn!(thread = %self.thread_id, %error, "an append failed");
            unknown |= !error.is_definite();
            if unknown && is_in_log(&*log, self.thread_id, last).await {
                return Appended::Durable;
            }
            match error {
                // Where the outcome of an earlier try was open, this settles it: it isn't in the log, and can't come in any more.
                AppendError::Conflict { .. } | AppendError::Taken { .. } => return Appended::Anew,
                AppendError::Refused { .. } | AppendError::Broken { .. } if !unknown => {
                    return Appended::Failed;
                }
                AppendError::Busy if !unknown && Instant::now() >= late_at => {
                    return Appended::Failed;
                }
                AppendError::Refused { .. }
                | AppendError::Broken { .. }
                | AppendError::Busy
                | AppendError::Unknown { .. } => {}
            }
            if self
                .patiently(sleep(Duration::from_millis(pause)), late_at, decided)
                .await
                .is_none()
            {
                return Appended::Failed;
            }
            pause = (pause * 2).min(LONGEST_PAUSE_MS);
        }
    }

    /// Waits for something, but lets no client wait for longer than until `late_at`. None where the server ends meanwhile.
    async fn patiently<T>(
        &mut self,
        what: impl Future<Output = T>,
        late_at: Instant,
        decided: &mut Vec<Decided>,
    ) -> Option<T> {
        tokio::pin!(what);
        loop {
            let late = Instant::now() >= late_at;
            if late {
                self.fail(decided);
            }
            tokio::select! {
                done = &mut what => return Some(done),
                () = sleep_until(late_at), if !late => {}
                mail = self.inbox.recv(), if late => match mail {
                    Some(mail) => self.take(mail),
                    None => return None,
                },
            }
            if self.stopping && late {
                return None;
            }
        }
    }

    /// Tells everyone who waits that it isn't known whether their action was applied (A10).
    fn fail(&mut self, decided: &mut Vec<Decided>) {
        for Decided {
            item,
            outcome,
            reserved,
        } in decided.drain(..)
        {
            // What may be applied after all stays counted.
            let _ = reserved;
            match outcome {
                Outcome::Dropped => item.forget(),
                Outcome::Answer(_) | Outcome::Look(_) => self.refuse_retryably(item),
            }
        }
        for item in std::mem::take(&mut self.waiting) {
            self.refuse_retryably(item);
        }
    }

    fn refuse_retryably(&mut self, item: Item) {
        if item.is_dropped() {
            item.forget();
        } else {
            self.shared.counters.refusals.add();
            item.answer(Answer::Refused(not_delivered()));
        }
    }

    fn publish(&mut self, append: Append, before: Option<&Thread>) {
        let thread = Arc::new(append.next);
        let records: Vec<_> = append.records.into_iter().map(Arc::new).collect();
        self.state = Some(thread.clone());
        self.unsaved += records.len() as u64;
        self.hub.publish(thread.clone(), records.clone(), &append.facts.erase);
        people::tell(&self.shared, before, &thread, &records, &append.facts);
        if self.unsaved >= SAVE_EVERY {
            self.save();
        }
    }

    /// Answers what was decided, now that it is durable.
    async fn answer(&mut self, decided: Vec<Decided>) {
        for Decided { item, outcome, .. } in decided {
            let answer = match outcome {
                Outcome::Dropped => {
                    item.forget();
                    continue;
                }
                Outcome::Answer(answer) => answer,
                Outcome::Look(own) => match self.shared.log.root_at(self.thread_id, own.seq).await {
                    Ok(Some(root)) => receipt(ReceiptStatus::Duplicate, own, root),
                    Ok(None) | Err(_) => Answer::Refused(not_delivered()),
                },
            };
            match &answer {
                Answer::Receipt(_) => self.shared.counters.receipts.add(),
                Answer::Refused(_) => self.shared.counters.refusals.add(),
            }
            item.answer(answer);
        }
    }

    /// Reads on where somebody else has appended.
    async fn read_on(&mut self) -> Result<(), ApplyError> {
        let mut state = self.state.as_deref().cloned();
        loop {
            let after = head_of(state.as_ref()).seq;
            let records = match self.shared.log.read(self.thread_id, after, ReadLimit::default()).await {
                Ok(records) => records,
                Err(error) => {
                    tracing::error!(thread = %self.thread_id, %error, "the log could not be read");
                    sleep(Duration::from_millis(LONGEST_PAUSE_MS)).await;
                    return Ok(());
                }
            };
            if records.is_empty() {
                return Ok(());
            }
            for record in &records {
                apply(self.thread_id, &mut state, record)?;
            }
            let Some(thread) = state.clone().map(Arc::new) else {
                return Ok(());
            };
            self.state = Some(thread.clone());
            self.unsaved += records.len() as u64;
            self.hub
                .publish_foreign(thread, records.into_iter().map(Arc::new).collect());
        }
    }
}

/// A5: nothing is decided; the log knows the action, or it is a conflict.
fn look_up(batch: &Batch, item: &Item, lookups: &Lookups) -> Outcome {
    let submission = &item.submission;
    let action = &submission.action;
    let mut found = lookups
        .found
        .first()
        .map(|(_, found)| found.clone())
        .unwrap_or_default();
    found.extend(
        batch
            .records()
            .iter()
            .filter(|record| record.id == action.id)
            .map(Found::of),
    );
    let may_read = batch.thread().is_some_and(|thread| thread.may_read(&submission.author));
    match duplicate(action, &submission.author, may_read, &found) {
        Some(Ok(own)) => match batch.records().iter().find(|record| record.seq == own.seq) {
            Some(record) => Outcome::Answer(receipt(ReceiptStatus::Duplicate, own, record.root)),
            None => Outcome::Look(own),
        },
        Some(Err(refusal)) => refuse(error_of(refusal)),
        None => refuse(ErrorPayload::new(
            ErrorCode::Conflict,
            "the session's seq was taken up before, by another action",
        )),
    }
}

/// What counts against a day's quota (section 12).
fn quota(action: &SignedAction) -> Option<Use> {
    match &action.action {
        Action::CreateThread(create) => Some(Use {
            threads: 1,
            members: create.members.as_ref().map_or(0, Vec::len) as u64,
        }),
        Action::AddMember(_) => Some(Use { threads: 0, members: 1 }),
        _ => None,
    }
}

fn receipt(status: ReceiptStatus, own: Own, root: Hash) -> Answer {
    Answer::Receipt(Receipt {
        status,
        seq: own.seq,
        kind: own.kind,
        root,
    })
}

fn refuse(error: ErrorPayload) -> Outcome {
    Outcome::Answer(Answer::Refused(error))
}

fn error_of(refusal: Refusal) -> ErrorPayload {
    let mut error = ErrorPayload::new(refusal.code, refusal.message);
    error.server_time = refusal.server_time;
    error
}

async fn is_in_log(log: &dyn Log, thread_id: ThreadId, (seq, root): (Seq, Hash)) -> bool {
    // Nothing is seen by a read before it is durable.
    log.root_at(thread_id, seq).await.is_ok_and(|found| found == Some(root))
}

/// Reads a thread's state: the newest that was kept, and the log from there on.
pub(crate) async fn load(log: &dyn Log, thread_id: ThreadId) -> Result<Option<Thread>, LoadError> {
    let mut state = saved(log, thread_id, None).await?;
    fold(log, thread_id, &mut state, None).await?;
    Ok(state)
}

/// A thread's state as of an earlier entry (Y8's `complete`).
pub(crate) async fn load_at(log: &dyn Log, thread_id: ThreadId, at: Seq) -> Result<Option<Thread>, LoadError> {
    let mut state = saved(log, thread_id, Some(at)).await?;
    fold(log, thread_id, &mut state, Some(at)).await?;
    Ok(state.filter(|thread| thread.head().seq == at))
}

/// A kept state, where it is one of this log: it is only a cache.
async fn saved(log: &dyn Log, thread_id: ThreadId, at_most: Option<Seq>) -> Result<Option<Thread>, ReadError> {
    let Some((seq, bytes)) = log.load_state(thread_id).await? else {
        return Ok(None);
    };
    if at_most.is_some_and(|most| seq > most) {
        return Ok(None);
    }
    let Ok(thread) = Thread::decode(&bytes) else {
        return Ok(None);
    };
    let holds = thread.thread_id() == thread_id
        && thread.head().seq == seq
        && log.root_at(thread_id, seq).await? == Some(thread.head().root);
    Ok(holds.then_some(thread))
}

async fn fold(
    log: &dyn Log,
    thread_id: ThreadId,
    state: &mut Option<Thread>,
    to: Option<Seq>,
) -> Result<(), LoadError> {
    loop {
        let after = head_of(state.as_ref()).seq;
        let left = to.map_or(usize::MAX, |to| {
            usize::try_from(to.get().saturating_sub(after.get())).unwrap_or(usize::MAX)
        });
        if left == 0 {
            return Ok(());
        }
        let limit = ReadLimit::default();
        let limit = ReadLimit {
            max_entries: limit.max_entries.min(left),
            ..limit
        };
        let records = log.read(thread_id, after, limit).await?;
        if records.is_empty() {
            return Ok(());
        }
        for record in &records {
            apply(thread_id, state, record)?;
        }
    }
}

/// Why a thread couldn't be loaded.
#[derive(Debug)]
pub(crate) enum LoadError {
    Read(ReadError),
    Apply(ApplyError),
}

impl From<ReadError> for LoadError {
    fn from(error: ReadError) -> Self {
        Self::Read(error)
    }
}

impl From<ApplyError> for LoadError {
    fn from(error: ApplyError) -> Self {
        Self::Apply(error)
    }
}

impl std::fmt::Display for LoadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Read(error) => write!(f, "{error}"),
            Self::Apply(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for LoadError {}

/// All of some futures, at once.
async fn join<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut running: Vec<Joined<F>> = futures.map(|future| Joined::Running(Box::pin(future))).collect();
    poll_fn(|context| {
        let mut pending = false;
        for joined in &mut running {
            if let Joined::Running(future) = joined {
                match future.as_mut().poll(context) {
                    Poll::Ready(output) => *joined = Joined::Done(output),
                    Poll::Pending => pending = true,
                }
            }
        }
        if pending { Poll::Pending } else { Poll::Ready(()) }
    })
    .await;
    let done = |joined| match joined {
        Joined::Done(output) => Some(output),
        Joined::Running(_) => None,
    };
    running.into_iter().filter_map(done).collect()
}

enum Joined<F: Future> {
    Running(Pin<Box<F>>),
    Done(F::Output),
}

#[cfg(test)]
mod tests {
    use choir_core::session::connection::Submission;
    use choir_log::memory::MemoryLog;
    use choir_protocol::action::Unsigned;
    use choir_protocol::ids::{Id, LogId, UserId};
    use choir_protocol::json::object;
    use choir_protocol::key::SecretKey;

    use super::*;
    use crate::mailbox::Mailbox;
    use crate::{Config, Server};

    fn submission(n: u8, thread_id: ThreadId) -> Submission {
        let (secret, audience) = (SecretKey::from_seed(&[7; 32]), "http://127.0.0.1:1".parse().unwrap());
        let author = UserId::of_key(&secret.public());
        let unsigned = Unsigned {
            audience: &audience,
            user_id: &author,
            id: Id::v7(1, [n; 10]),
            action_type: "action.join",
            thread_id,
            timestamp: Timestamp::ZERO,
            seen: None,
            payload: &object! {},
        };
        Submission {
            action: SignedAction::sign(unsigned, &secret).unwrap(),
            author,
            key: secret.public(),
            audience,
            agent_issuer: false,
            session_id: SessionId::v7(1, [1; 10]),
            generation: Generation::default(),
            look_up_only: false,
        }
    }

    /// Else the first would never be answered: what comes before a refusal isn't sent again, and what comes after isn't answered.
    #[tokio::test]
    async fn a3_of_what_an_actor_leaves_behind_the_first_of_a_session_is_refused() {
        let log = Arc::new(MemoryLog::new(LogId::v7(1, [7; 10])));
        let server = Server::bind(Config::new(([127, 0, 0, 1], 0).into()), log)
            .await
            .unwrap();
        let (shared, thread_id) = (server.shared.clone(), ThreadId::v7(1, [1; 10]));
        let (hub, mailbox) = (shared.threads.hub(thread_id), Arc::new(Mailbox::default()));
        let (mail, inbox) = mpsc::channel(1);
        shared.threads.active.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let mut actor = Actor::new(shared, hub.clone(), inbox, 0);
        let item = |n| {
            let mut item = Item::new(submission(n, thread_id), true, mailbox.clone());
            item.refused = Some(hub.refused.clone());
            item
        };
        actor.waiting.push_back(item(1));
        assert!(mail.try_send(Mail::Item(Box::new(item(2)))).is_ok());
        drop(actor);
        let answered: Vec<_> = mailbox.take().answers.iter().map(|answered| answered.id).collect();
        assert_eq!(answered, [submission(1, thread_id).action.id]);
    }
}
