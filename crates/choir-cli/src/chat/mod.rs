//! `choir chat`: reading, writing and deciding in one place. The rules are in [`model`], the line that is typed in [`mod@line`]; here they meet a terminal, or
//! plain lines.

mod line;
mod model;
mod terminal;

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use choir_client::Error as ClientError;
use choir_protocol::action::{Action, ProcessApproval, SubmitMessage};
use choir_protocol::ids::{Salt, Seq, ThreadId};
use choir_protocol::json::Value;
use tokio::sync::mpsc;

pub(crate) use model::content_of;
use model::{Effect, Input, Model};

use crate::cli::InThread;
use crate::commands::{Feed, News, entry_json, member_json, members_table};
use crate::context::{Context, Session};
use crate::error::{Failure, Result};
use crate::output::{BAD, BOLD, DIM, json_text, one_line};
use crate::profile::Profile;
use crate::show::is_what_it_says;

/// How long the end waits for the next answer to what was said last.
const FINISH: Duration = Duration::from_secs(10);
/// How much may be sent and not answered before more lines are read: what a pipe brings faster than the server takes it waits in the pipe.
const MAX_UNANSWERED: usize = 256;

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
    answered: mpsc::UnboundedSender<Answer>,
    answers: mpsc::UnboundedReceiver<Answer>,
    /// How much of what was sent has no answer yet.
    unanswered: usize,
    /// How much of it was refused.
    refused: usize,
    /// The highest entry that an answer named.
    done: Seq,
    /// The last entry that was shown.
    seen: Seq,
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
        let (answered, answers) = mpsc::unbounded_channel();
        Self {
            session,
            feed,
            thread,
            model: Model::new(session.names(), session.me.clone()),
            began: Instant::now(),
            answered,
            answers,
            unanswered: 0,
            refused: 0,
            done: Seq::ZERO,
            seen: Seq::ZERO,
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// What stands before what is typed, or the least of it.
    pub(crate) fn prompt(&self, brief: bool) -> String {
        self.model.prompt(brief)
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
                self.refused += 1;
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
    pub(crate) fn input(&mut self, screen: &mut impl Screen, input: Input) -> Result<bool> {
        let effects = self.model.input(self.now_ms(), input);
        if effects.contains(&Effect::Quit) {
            return Ok(false);
        }
        if effects.contains(&Effect::Members) {
            self.members(screen)?;
        }
        self.perform(screen, effects)?;
        Ok(true)
    }

    /// Who is here, as the replica has it: a chat never waits for the server, which may be away.
    fn members(&self, screen: &mut impl Screen) -> Result<()> {
        let Some(replica) = self.feed.handle().replica() else {
            return Ok(());
        };
        let view = replica.view();
        let members: Vec<_> = view.members().into_iter().cloned().collect();
        let names = self.session.names();
        if self.session.out().is_json() {
            let rows = members.iter().map(|member| member_json(names, member));
            let rows: Vec<serde_json::Value> = rows.collect::<Result<_>>()?;
            let object = serde_json::json!({ "thread_id": self.thread, "members": rows });
            return screen.show(&json_text(&object));
        }
        screen.show(&members_table(names, &members))?;
        if view.more().members.is_some() {
            screen.show(&format!("{DIM}`choir members` lists all of them{DIM:#}"))?;
        }
        Ok(())
    }

    fn perform(&mut self, screen: &mut impl Screen, effects: Vec<Effect>) -> Result<()> {
        let json = self.session.out().is_json();
        for effect in effects {
            match effect {
                Effect::Show(text) if !json => screen.show(&text)?,
                Effect::Shown(specs) => self.session.context.profile.remember_shown(&specs, self.session.out()),
                Effect::Post(text) => self.send(&Action::SubmitMessage(SubmitMessage {
                    content: Value::String(text),
                    content_type: None,
                    parent: None,
                    salt: salt()?,
                })),
                Effect::Decide {
                    spec,
                    content_hash,
                    decision,
                    reason,
                } => {
                    self.send(&Action::ProcessApproval(ProcessApproval {
                        spec,
                        content_hash,
                        decision,
                        reason,
                        salt: salt()?,
                    }));
                }
                Effect::Show(_) | Effect::Members | Effect::Quit => {}
            }
        }
        Ok(())
    }

    /// Hands an action over. Nothing waits for its answer, and yet it stands in the log as it was typed (G4).
    fn send(&mut self, action: &Action) {
        self.unanswered += 1;
        let answered = self.answered.clone();
        match self
            .session
            .client
            .hand_over(self.thread, action.type_name(), action.to_payload())
        {
            Ok(pending) => {
                tokio::spawn(async move {
                    // That the chat is over is the only failure; then nobody asks.
                    let _ = answered.send(pending.await.map(|receipt| receipt.seq));
                });
            }
            Err(error) => {
                let _ = answered.send(Err(error));
            }
        }
    }

    /// Whether more may be sent before something is answered.
    const fn has_room(&self) -> bool {
        self.unanswered < MAX_UNANSWERED
    }

    /// Whether everything that was sent is answered and shown.
    fn is_level(&self) -> bool {
        self.unanswered == 0 && self.seen >= self.done
    }

    /// Waits for the answers to what was sent last, as long as they come.
    async fn finish(&mut self) -> Result<()> {
        while self.unanswered > 0 {
            match tokio::time::timeout(FINISH, self.answers.recv()).await {
                Ok(Some(Ok(_))) => self.unanswered -= 1,
                Ok(Some(Err(error))) => {
                    self.unanswered -= 1;
                    self.session.out().failure(&Failure::from(error));
                    self.refused += 1;
                }
                Ok(None) | Err(_) => {
                    return Err(
                        Failure::connection(format!("{} of what you sent has no answer yet", self.unanswered))
                            .meaning("It isn't known whether it was stored.")
                            .hint("look with `choir history` before you send it again"),
                    );
                }
            }
        }
        Ok(())
    }
}

/// 16 random bytes for an action (L4).
fn salt() -> Result<Salt> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(|error| Failure::failed("io", format!("the system gave no random bytes: {error}")))?;
    Ok(Salt::from_bytes(bytes))
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
            line = lines.recv(), if chat.has_room() => line,
            _ = tokio::signal::ctrl_c() => return Ok(()),
        };
        let goes_on = match line {
            Some(line) => chat.input(&mut screen, Input::Line(line))?,
            None => false,
        };
        if !goes_on {
            break;
        }
    }
    // What was said last is shown, too: a script that pipes a line in sees it come out.
    while !chat.is_level() {
        match tokio::time::timeout(FINISH, chat.next()).await {
            Ok(happening) => chat.happened(&mut screen, happening?)?,
            Err(_) => break,
        }
    }
    if chat.refused > 0 {
        return Err(
            Failure::failed("not_done", format!("{} of what you sent was refused", chat.refused))
                .meaning("Everything else was done.")
                .hint("what stands above says why"),
        );
    }
    Ok(())
}

/// Lines from stdin. Reading it blocks, so a thread does, which ends with the process.
fn stdin_lines() -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel(MAX_UNANSWERED);
    std::thread::spawn(move || {
        for line in std::io::stdin().lines() {
            let Ok(line) = line else { return };
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    receiver
}
