//! `choir chat`: reading, writing and deciding in one place. The rules are in [`model`], the line that is typed in [`line`]; here they meet a terminal, or
//! plain lines.

mod line;
mod model;
mod terminal;

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use choir_client::{Client, Error as ClientError};
use choir_protocol::ids::{Seq, ThreadId};
use choir_protocol::thread::Decision;
use tokio::sync::mpsc;

pub(crate) use model::content_of;
use model::{Effect, Input, Model};

use crate::cli::InThread;
use crate::commands::{Feed, News, entry_json, members_table};
use crate::context::{Context, Session};
use crate::error::{Failure, Result};
use crate::output::{BAD, BOLD, DIM, json_text, one_line};
use crate::profile::Profile;
use crate::show::is_what_it_says;

/// How long the end waits for what was said last to be answered, and to be shown.
const FINISH: Duration = Duration::from_secs(10);

/// `choir chat`.
pub(crate) async fn run(context: Context, arguments: InThread) -> Result<()> {
    let session = context.connect_for_good().await?;
    let thread = session.thread(arguments.thread.as_deref()).await?;
    let feed = Feed::open(&session, thread).await?;
    let on_terminal = !session.out().is_json() && std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let mut chat = Chat::begin(&session, feed, thread);
    let result = if on_terminal {
        terminal::run(&mut chat).await
    } else {
        plain(&mut chat).await
    };
    let finished = chat.finish().await;
    drop(chat);
    session.close().await;
    result.and(finished)
}

/// Where a chat is shown.
pub(crate) trait Screen {
    /// Shows lines.
    fn show(&mut self, text: &str) -> Result<()>;
}

/// A chat that is going on.
pub(crate) struct Chat<'a> {
    session: &'a Session,
    feed: Feed,
    thread: ThreadId,
    model: Model<'a, Profile>,
    began: Instant,
    orders: Option<mpsc::UnboundedSender<Order>>,
    answers: mpsc::UnboundedReceiver<Answer>,
    /// How many orders have no answer yet.
    unanswered: usize,
    /// The highest entry that an answer named.
    done: Seq,
    /// The last entry that was shown.
    seen: Seq,
}

/// What is to be sent, one after the other, so that it stands in the log as it was typed (G4).
#[derive(Debug)]
enum Order {
    Post(String),
    Decide {
        spec: choir_protocol::ids::Id,
        content_hash: choir_protocol::hash::Hash,
        decision: Decision,
        reason: Option<String>,
    },
}

type Answer = std::result::Result<Seq, ClientError>;

/// Something that happened while a chat waited.
pub(crate) enum Happening {
    /// In the thread, or to the connection.
    News(News),
    /// To something that was sent.
    Answer(Answer),
}

impl<'a> Chat<'a> {
    fn begin(session: &'a Session, feed: Feed, thread: ThreadId) -> Self {
        let (orders, taken) = mpsc::unbounded_channel();
        let (answered, answers) = mpsc::unbounded_channel();
        tokio::spawn(send(session.client.clone(), thread, taken, answered));
        Self {
            session,
            feed,
            thread,
            model: Model::new(session.names(), session.me.clone()),
            began: Instant::now(),
            orders: Some(orders),
            answers,
            unanswered: 0,
            done: Seq::ZERO,
            seen: Seq::ZERO,
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// The line before what is typed.
    pub(crate) fn prompt(&self) -> String {
        self.model.prompt()
    }

    /// What there is to begin with.
    pub(crate) async fn start(&mut self, screen: &mut impl Screen) -> Result<()> {
        let title = self
            .feed
            .handle()
            .replica()
            .and_then(|replica| replica.view().settings().map(|settings| one_line(&settings.title)));
        if !self.session.out().is_json() {
            screen.show(&format!(
                "{BOLD}{}{BOLD:#} {DIM}/help lists what can be done{DIM:#}",
                title.unwrap_or_default()
            ))?;
        }
        let backlog = self.feed.backlog(None).await?;
        self.happened(screen, Happening::News(News::Entries(backlog)))
    }

    /// What happens next. Cancel safe.
    pub(crate) async fn next(&mut self) -> Result<Happening> {
        tokio::select! {
            news = self.feed.next() => news.map(Happening::News),
            Some(answer) = self.answers.recv() => Ok(Happening::Answer(answer)),
        }
    }

    /// Shows what happened.
    pub(crate) fn happened(&mut self, screen: &mut impl Screen, happening: Happening) -> Result<()> {
        match happening {
            Happening::News(News::Entries(entries)) => {
                self.seen = entries.last().map_or(self.seen, |entry| entry.seq);
                if self.session.out().is_json() {
                    for entry in &entries {
                        screen.show(&json_text(&entry_json(self.thread, entry, self.session.names())?))?;
                    }
                }
                let effects = self.model.entries(self.now_ms(), &entries);
                self.perform(screen, effects)?;
                self.look(screen)
            }
            Happening::News(News::Changed) => self.look(screen),
            Happening::News(News::Remark(text)) => {
                if self.session.out().is_json() {
                    self.session.out().note(text);
                    return Ok(());
                }
                screen.show(&format!("{DIM}{text}{DIM:#}"))
            }
            Happening::Answer(Ok(seq)) => {
                self.unanswered = self.unanswered.saturating_sub(1);
                self.done = self.done.max(seq);
                Ok(())
            }
            Happening::Answer(Err(error)) => {
                self.unanswered = self.unanswered.saturating_sub(1);
                let failure = Failure::from(error);
                if self.session.out().is_json() {
                    self.session.out().failure(&failure);
                    return Ok(());
                }
                let hint = failure
                    .hint
                    .as_deref()
                    .map(|hint| format!("\n{DIM}Hint: {hint}{DIM:#}"))
                    .unwrap_or_default();
                screen.show(&format!("{BAD}Not done:{BAD:#} {failure}{hint}"))
            }
        }
    }

    /// Tells the model which specs are open, as the replica holds them.
    fn look(&mut self, screen: &mut impl Screen) -> Result<()> {
        let Some(replica) = self.feed.handle().replica() else {
            return Ok(());
        };
        let view = replica.view();
        let agents_decide = view.settings().is_some_and(|settings| settings.policy.agents_decide);
        let decides = view
            .member(&self.session.me)
            .is_some_and(|member| member.role.is_co_author() && (agents_decide || !member.agent));
        // A spec in a snapshot is the server's word: one whose content isn't what decisions would be bound to is none.
        let open = view
            .open_specs()
            .into_iter()
            .filter(|spec| is_what_it_says(spec))
            .cloned()
            .collect();
        let effects = self.model.open(self.now_ms(), open, decides);
        self.perform(screen, effects)
    }

    /// A person did something. Whether the chat goes on.
    pub(crate) async fn input(&mut self, screen: &mut impl Screen, input: Input) -> Result<bool> {
        let effects = self.model.input(self.now_ms(), input);
        if effects.contains(&Effect::Quit) {
            return Ok(false);
        }
        if effects.contains(&Effect::Members) {
            let members = self.session.members(self.thread).await?;
            screen.show(&members_table(self.session.names(), &members))?;
        }
        self.perform(screen, effects)?;
        Ok(true)
    }

    fn perform(&mut self, screen: &mut impl Screen, effects: Vec<Effect>) -> Result<()> {
        let json = self.session.out().is_json();
        for effect in effects {
            match effect {
                Effect::Show(text) if !json => screen.show(&text)?,
                Effect::Shown(specs) => self.session.context.profile.remember_shown(&specs, self.session.out()),
                Effect::Post(text) => self.order(Order::Post(text)),
                Effect::Decide {
                    spec,
                    content_hash,
                    decision,
                    reason,
                } => self.order(Order::Decide {
                    spec,
                    content_hash,
                    decision,
                    reason,
                }),
                Effect::Show(_) | Effect::Members | Effect::Quit => {}
            }
        }
        Ok(())
    }

    fn order(&mut self, order: Order) {
        if let Some(orders) = &self.orders
            && orders.send(order).is_ok()
        {
            self.unanswered += 1;
        }
    }

    /// Whether everything that was sent is answered and shown.
    fn is_level(&self) -> bool {
        self.unanswered == 0 && self.seen >= self.done
    }

    /// Waits for what was sent last.
    async fn finish(&mut self) -> Result<()> {
        self.orders = None;
        let answered = async {
            while self.unanswered > 0 {
                match self.answers.recv().await {
                    Some(Ok(_)) => self.unanswered -= 1,
                    Some(Err(error)) => return Err(Failure::from(error)),
                    None => break,
                }
            }
            Ok(())
        };
        let result = tokio::time::timeout(FINISH, answered).await;
        match result {
            Ok(result) => result,
            Err(_) => Err(
                Failure::connection(format!("{} of what you sent has no answer yet", self.unanswered))
                    .meaning("It isn't known whether it was stored.")
                    .hint("look with `choir history` before you send it again"),
            ),
        }
    }
}

/// Sends orders, one at a time.
async fn send(
    client: Client,
    thread: ThreadId,
    mut orders: mpsc::UnboundedReceiver<Order>,
    answers: mpsc::UnboundedSender<Answer>,
) {
    while let Some(order) = orders.recv().await {
        let answer = match order {
            Order::Post(text) => client.post(thread, text).await.map(|posted| posted.receipt.seq),
            Order::Decide {
                spec,
                content_hash,
                decision,
                reason,
            } => {
                let reason = reason.as_deref();
                let receipt = match decision {
                    Decision::Approve => client.approve(thread, spec, content_hash, reason).await,
                    Decision::Deny => client.deny(thread, spec, content_hash, reason).await,
                    Decision::RequestChanges => {
                        client
                            .request_changes(thread, spec, content_hash, reason.unwrap_or_default())
                            .await
                    }
                };
                receipt.map(|receipt| receipt.seq)
            }
        };
        if answers.send(answer).is_err() {
            return;
        }
    }
}

// ------------------------------------------------------------------------------------------------------------------------------------ without a terminal

struct Lines(crate::output::Output);

impl Screen for Lines {
    fn show(&mut self, text: &str) -> Result<()> {
        self.0.line(text)
    }
}

/// Lines in, lines out.
async fn plain(chat: &mut Chat<'_>) -> Result<()> {
    let mut screen = Lines(chat.session.out());
    let mut lines = stdin_lines();
    chat.start(&mut screen).await?;
    loop {
        let line = tokio::select! {
            happening = chat.next() => {
                chat.happened(&mut screen, happening?)?;
                continue;
            }
            line = lines.recv() => line,
            _ = tokio::signal::ctrl_c() => return Ok(()),
        };
        let goes_on = match line {
            Some(line) => chat.input(&mut screen, Input::Line(line)).await?,
            None => false,
        };
        if !goes_on {
            break;
        }
    }
    // What was said last is shown, too: a script that pipes a line in sees it come out.
    let shown = async {
        while !chat.is_level() {
            let happening = chat.next().await?;
            chat.happened(&mut screen, happening)?;
        }
        Ok(())
    };
    tokio::time::timeout(FINISH, shown).await.unwrap_or(Ok(()))
}

/// Lines from stdin. Reading it blocks, so a thread does, which ends with the process.
fn stdin_lines() -> mpsc::UnboundedReceiver<String> {
    let (sender, receiver) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lines() {
            let Ok(line) = line else { return };
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}
