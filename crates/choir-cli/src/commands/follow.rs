//! Reading a thread: live, a page of it, and up to where it was read.

use std::collections::VecDeque;
use std::sync::Arc;

use choir_client::{
    ClientEvent, Events, Finding, Notice, State, SubscribeOptions, ThreadEvent, ThreadHandle, Update, Updates, Walk,
};
use choir_protocol::entry::Entry;
use choir_protocol::ids::{Cursor, Seq, ThreadId};
use choir_protocol::range::Range;

use crate::cli::{History, Mark, Tail};
use crate::context::{Context, PAGE, Session};
use crate::error::{Failure, Result};
use crate::output::{DIM, json_of, one_line};
use crate::show::{Names, Renderer};

/// How many entries `choir tail` begins with.
const BACKLOG: usize = 20;

/// A thread that is followed from some entry on: every entry once, in order, over lost connections and whatever the client library left out.
pub(crate) struct Feed {
    handle: ThreadHandle,
    updates: Updates,
    events: Events,
    thread: ThreadId,
    /// The last entry that was handed out, or that isn't wanted.
    last: Seq,
    /// What is to be told after what was handed out last.
    waiting: VecDeque<News>,
    /// Whether the replica may hold what wasn't handed out.
    behind: bool,
    /// Whether the connection is lost at the moment, so that its return is told.
    lost: bool,
    /// That the client ended is told once by its events; updates that were left over come first.
    ended: Option<Failure>,
}

/// What a feed brings.
#[derive(Debug)]
pub(crate) enum News {
    /// Entries above all that came before.
    Entries(Vec<Entry>),
    /// Something about the connection, or that should be known, for stderr.
    Remark(String),
    /// Nothing to show, but the thread's state may have changed.
    Changed,
}

impl Feed {
    /// Follows a thread.
    pub(crate) async fn open(session: &Session, thread: ThreadId) -> Result<Self> {
        let events = session.client.events();
        let handle = session.client.subscribe(thread, SubscribeOptions::default()).await?;
        let updates = handle.updates();
        let cursor = cursor(&handle)?;
        Ok(Self {
            handle,
            updates,
            events,
            thread,
            last: cursor.seq,
            waiting: VecDeque::new(),
            behind: false,
            lost: false,
            ended: None,
        })
    }

    /// The thread's replica and what can be done in it.
    pub(crate) const fn handle(&self) -> &ThreadHandle {
        &self.handle
    }

    /// The entries before where the feed began, from `from` on; without it, a few. Each page is checked against what is known of the later log.
    pub(crate) async fn backlog(&self, from: Option<Seq>) -> Result<Vec<Entry>> {
        let end = cursor(&self.handle)?;
        let wanted = from.map_or(Seq::ZERO, Seq::previous);
        let mut entries = self.back(end, wanted, from.is_none()).await?;
        entries.retain(|entry| entry.seq <= self.last);
        if from.is_none() {
            let cut = entries.len().saturating_sub(BACKLOG);
            entries.drain(..cut);
        }
        Ok(entries)
    }

    /// The entries above `after`, walked back to from `end`; one page of them where that is enough.
    async fn back(&self, end: Cursor, after: Seq, one_page: bool) -> Result<Vec<Entry>> {
        let mut walk = Walk::new(self.thread, end);
        let mut pages: Vec<Range> = Vec::new();
        while walk.at().seq > after {
            let limit = walk.at().seq.get().saturating_sub(after.get()).min(PAGE);
            let page = self
                .handle
                .client()
                .history(self.thread, walk.at().seq.next(), Some(limit))
                .await?;
            let before = walk.at().seq;
            walk.verify(&page)
                .map_err(|error| differs(self.thread, &error.to_string()))?;
            if walk.at().seq >= before {
                return Err(Failure::failed("internal", "the server sent an empty page of history")
                    .meaning("Nothing was changed."));
            }
            pages.push(page);
            if one_page {
                break;
            }
        }
        let oldest_first = pages.into_iter().rev().flat_map(|page| page.entries);
        let mut last = after;
        Ok(oldest_first
            .filter(|entry| {
                // Pages may overlap.
                let new = entry.seq > last && entry.seq <= end.seq;
                if new {
                    last = entry.seq;
                }
                new
            })
            .collect())
    }

    /// What comes next. Cancel safe.
    pub(crate) async fn next(&mut self) -> Result<News> {
        loop {
            if let Some(news) = self.waiting.pop_front() {
                return Ok(news);
            }
            if self.behind {
                let news = self.catch_up().await?;
                self.behind = false;
                return Ok(news);
            }
            let news = tokio::select! {
                // What was applied comes before that the connection ended.
                biased;
                update = self.updates.next() => match update {
                    Some(event) => self.thread_event(&event)?,
                    None => return Err(self.ended.take().unwrap_or_else(|| Failure::connection("the client ended"))),
                },
                event = self.events.next() => match event {
                    Some(event) => self.client_event(&event),
                    None => return Err(self.ended.take().unwrap_or_else(|| Failure::connection("the client ended"))),
                },
            };
            if let Some(news) = news {
                return Ok(news);
            }
        }
    }

    fn thread_event(&mut self, event: &Arc<ThreadEvent>) -> Result<Option<News>> {
        let update = match &**event {
            ThreadEvent::Update(update) => update,
            // Left out by the library, not by the log: the replica is whole, and the log is read up to it.
            ThreadEvent::Behind { .. } => {
                self.behind = true;
                return Ok(None);
            }
            _ => return Ok(None),
        };
        Ok(match update {
            Update::Entries { entries, findings } => {
                let new: Vec<Entry> = entries.iter().filter(|entry| entry.seq > self.last).cloned().collect();
                self.last = new.last().map_or(self.last, |newest| newest.seq);
                self.waiting.extend(remark_on(findings).map(News::Remark));
                (!new.is_empty()).then_some(News::Entries(new))
            }
            Update::Snapshot { findings, .. } => {
                self.waiting.extend(remark_on(findings).map(News::Remark));
                self.behind = true;
                None
            }
            Update::Desync { error, ended } if *ended => return Err(error.clone().into()),
            Update::Desync { error, .. } => Some(News::Remark(format!(
                "the thread is fetched anew: {}",
                one_line(&error.message)
            ))),
            Update::Unsubscribed { error } => {
                return Err(match error {
                    Some(error) => Failure::from(error.clone()),
                    None => Failure::failed("permission_denied", "you may no longer read this thread")
                        .hint("ask one of its owners to invite you"),
                });
            }
            Update::Subscribed(_) | Update::Level { .. } => Some(News::Changed),
            _ => None,
        })
    }

    /// Everything up to the replica's cursor that wasn't handed out yet.
    async fn catch_up(&mut self) -> Result<News> {
        let end = cursor(&self.handle)?;
        if end.seq <= self.last {
            return Ok(News::Changed);
        }
        let entries = self.back(end, self.last, false).await?;
        self.last = end.seq;
        Ok(News::Entries(entries))
    }

    fn client_event(&mut self, event: &Arc<ClientEvent>) -> Option<News> {
        match &**event {
            ClientEvent::State(State::Reconnecting { .. }) if !self.lost => {
                self.lost = true;
                Some(News::Remark(
                    "The connection is lost; trying again until it is back …".to_owned(),
                ))
            }
            ClientEvent::State(State::Subscribed(_)) if self.lost => {
                self.lost = false;
                Some(News::Remark("Connected again.".to_owned()))
            }
            ClientEvent::Error { error, .. } => {
                self.ended = Some(error.clone().into());
                None
            }
            ClientEvent::Notice(notice) => notice_text(notice).map(News::Remark),
            _ => None,
        }
    }
}

fn cursor(handle: &ThreadHandle) -> Result<Cursor> {
    handle
        .replica()
        .map(|replica| replica.cursor())
        .ok_or_else(|| Failure::failed("permission_denied", "the thread is no longer followed"))
}

fn differs(thread: ThreadId, why: &str) -> Failure {
    Failure::failed(
        "state_desync",
        format!("the server's history of {thread} contradicts itself: {why}"),
    )
    .meaning("Nothing of that page is shown.")
    .hint("run `choir verify`, and ask the server's operator")
}

/// What people should know about entries, in one line each.
pub(crate) fn remark_on(findings: &[Finding]) -> Option<String> {
    let lines: Vec<String> = findings
        .iter()
        .map(|finding| format!("Warning: {}", one_line(&finding.to_string())))
        .collect();
    (!lines.is_empty()).then(|| lines.join("\n"))
}

fn notice_text(notice: &Notice) -> Option<String> {
    Some(match notice {
        Notice::LogReplaced { .. } => {
            "Warning: the server's log was replaced, by a restored backup for example: what was said last may be gone."
                .to_owned()
        }
        Notice::ServerKeyChanged { .. } => "Warning: the server has another key than before.".to_owned(),
        Notice::Drain { .. } => "The server restarts.".to_owned(),
        Notice::BadMessage { why } => format!("A message of the server can't be read: {}", one_line(why)),
        Notice::OwnFault { close_code } => format!("The server found a frame of ours broken ({close_code})."),
        _ => return None,
    })
}

/// An entry as `--json` prints it.
pub(crate) fn entry_json(thread: ThreadId, entry: &Entry, names: &impl Names) -> Result<serde_json::Value> {
    Ok(serde_json::json!({
        "thread_id": thread,
        "author_name": names.name(&entry.author),
        "entry": json_of(entry)?,
    }))
}

/// `choir tail`.
pub(crate) async fn tail(context: Context, arguments: Tail) -> Result<()> {
    let session = context.connect_for_good().await?;
    let thread = session.thread(arguments.thread.as_deref()).await?;
    let mut feed = Feed::open(&session, thread).await?;
    let mut renderer = Renderer::new(session.names(), !arguments.no_specs);
    let backlog = feed.backlog(arguments.from.map(Seq::saturating)).await?;
    show(&session, thread, &mut renderer, &backlog)?;
    let mut seen = backlog.last().map_or(Seq::ZERO, |entry| entry.seq);
    session.out().note("Following; Ctrl-C ends.");
    loop {
        let news = tokio::select! {
            news = feed.next() => news?,
            _ = tokio::signal::ctrl_c() => break,
        };
        match news {
            News::Entries(entries) => {
                seen = entries.last().map_or(seen, |entry| entry.seq);
                show(&session, thread, &mut renderer, &entries)?;
            }
            News::Remark(text) => session.out().note(text),
            News::Changed => {}
        }
    }
    if seen > Seq::ZERO {
        session.out().note(format!(
            "The last entry was {seen}; it goes on with: choir{} tail{} --from {}",
            session.context.profile.flag(),
            named(&arguments.thread, thread),
            seen.next()
        ));
    }
    session.close().await;
    Ok(())
}

fn show<N: Names>(
    session: &Session,
    thread: ThreadId,
    renderer: &mut Renderer<'_, N>,
    entries: &[Entry],
) -> Result<()> {
    let out = session.out();
    for entry in entries {
        if out.is_json() {
            if renderer.shows(entry.stream) {
                out.object(&entry_json(thread, entry, session.names())?)?;
            }
        } else if let Some(lines) = renderer.lines(entry) {
            out.line(lines)?;
        }
    }
    let shown = renderer.take_shown();
    if !out.is_json() && !shown.is_empty() {
        session.context.profile.remember_shown(&shown, out);
    }
    Ok(())
}

/// `choir history`.
pub(crate) async fn history(context: Context, arguments: History) -> Result<()> {
    let session = context.connect().await?;
    let thread = session.thread(arguments.thread.as_deref()).await?;
    let mut before = Seq::saturating(arguments.before.unwrap_or(u64::MAX));
    let mut left = arguments.limit;
    let mut walk: Option<Walk> = None;
    let mut pages: Vec<Vec<Entry>> = Vec::new();
    while left > 0 {
        let page = session.history(thread, before, left.min(PAGE)).await?;
        match &mut walk {
            // The pages must fit each other.
            Some(walk) => {
                walk.verify(&page)
                    .map_err(|error| differs(thread, &error.to_string()))?;
            }
            None => {
                let mut begun = Walk::new(thread, page.end());
                begun
                    .verify(&page)
                    .map_err(|error| differs(thread, &error.to_string()))?;
                walk = Some(begun);
            }
        }
        left = left.saturating_sub(page.to.get().saturating_sub(page.from.get()));
        before = page.from.next();
        let done = page.from == Seq::ZERO || page.from == page.to;
        pages.push(page.entries);
        if done {
            break;
        }
    }
    let mut renderer = Renderer::new(session.names(), true);
    for page in pages.iter().rev() {
        show(&session, thread, &mut renderer, page)?;
    }
    if before > Seq::ZERO.next() && !session.out().is_json() {
        let profile = session.context.profile.flag();
        let named = named(&arguments.thread, thread);
        session
            .out()
            .note(format!("Earlier ones: choir{profile} history{named} --before {before}"));
    }
    session.close().await;
    Ok(())
}

/// A thread as a command names it that goes on with this one: not at all, where this one didn't.
fn named(given: &Option<String>, thread: ThreadId) -> String {
    given.as_ref().map(|_| format!(" {thread}")).unwrap_or_default()
}

/// `choir mark`.
pub(crate) async fn mark(context: Context, arguments: Mark) -> Result<()> {
    let session = context.connect().await?;
    let thread = session.thread(arguments.thread.thread.as_deref()).await?;
    let marked = session
        .client
        .mark(thread, Seq::saturating(arguments.seq.unwrap_or(u64::MAX)))
        .await?;
    session.out().either(
        || serde_json::json!({ "thread_id": thread, "seq": marked.seq, "unread": marked.unread }),
        || format!("Read up to entry {} {DIM}({} unread){DIM:#}", marked.seq, marked.unread),
    )?;
    session.close().await;
    Ok(())
}
