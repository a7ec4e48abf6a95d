//! `choir import irc`: replays a conversation as it was lived, over real sockets.
//!
//! Every nick is a key and a client of its own. The first speakers are the thread's co-authors; what anybody else says becomes a spec, which the co-authors'
//! clients approve by the thread's policy. Messages are published in the log's order: a co-author's waits until what came before it is, and specs are approved in
//! order, by co-authors who take turns. Without a rhythm to keep, specs are submitted some lines ahead, so that submissions and approvals share the disk's time.
//! At the end all replicas are compared, and the thread is walked back to its first entry.

mod irc;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use choir_client::{
    Approval, Client, ClientEvent, Config, Cursor, Decision, Finding, Id, Kind, NewThread, Notice, Pending, Policy,
    Propose, Retain, Role, SecretKey, SharedSignatures, State, SubscribeOptions, ThreadEvent, ThreadHandle, ThreadId,
    Update, UserId, Visibility,
};
use choir_protocol::action::{Action, ProcessApproval, SubmitMessage};
use choir_protocol::ids::Salt;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use serde_json::json;
use tokio::task::JoinHandle;

use crate::cli::parse_approval;
use crate::context::{Context, reach};
use crate::error::{Failure, Kind as FailureKind, Result};
use crate::output::{GOOD, Output, counted};
use irc::{Annotation, Log, Said};

/// What is imported.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Import {
    /// A log of an IRC channel
    #[command(after_help = "\
Every nick gets a key and a client of its own, on its own WebSocket; the keys
are thrown away at the end. The first speakers are the co-authors of a new,
public thread; what others say becomes a spec, which the co-authors approve by
the policy. A server that goes away meanwhile is waited for, up to 5 minutes.
At the end all replicas are compared, and the log is walked back to its first
entry, every signature checked; exit code 1 where anything differs.

A server lets a user act 20 times a second, so policies that need many
approvals take longer.

JSON: {\"thread_id\", \"messages\", \"specs\", \"approvals\", \"answers\", \"entries\",
       \"clients\", \"reconnects\", \"head\", \"root\", \"replicas_equal\": true,
       \"problems\": [], \"replay_ms\", \"total_ms\"}

Examples:
  choir import irc ubuntu.raw.txt
  choir import irc ubuntu.raw.txt --policy majority --co-authors 3
  choir import irc ubuntu.raw.txt --thread \"#ubuntu\" --speed 60")]
    Irc(IrcArgs),
}

/// What `choir import irc` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct IrcArgs {
    /// The log: lines like `[09:59] <nick> text`, `[09:59]  * nick waves`, `=== nick has joined`
    file: PathBuf,
    /// The title of the thread that is made for it; the file's name where left out
    #[arg(long, value_name = "TITLE")]
    thread: Option<String>,
    /// Which line answers which: lines like `1002 1003 -`, counted from 0. Found by itself as FILE with `.annotation.txt` for `.raw.txt`
    #[arg(long, value_name = "FILE")]
    annotation: Option<PathBuf>,
    /// How many of the first speakers are co-authors
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=100))]
    co_authors: u16,
    /// By what rule the co-authors decide: unanimous, majority, any, or a number
    #[arg(long, value_name = "RULE", default_value = "any", value_parser = parse_approval)]
    policy: Approval,
    /// Replays the log's own rhythm, this many times as fast; as fast as the server takes it where left out
    #[arg(long, value_name = "TIMES")]
    speed: Option<f64>,
}

/// How much a participant's replica holds: its cursor and root are what counts here.
const RETAIN: Retain = Retain {
    messages: 64,
    entries: 512,
};
/// How long the import waits for one thing before it gives up, a restart of the server included.
const PATIENCE: Duration = Duration::from_secs(300);
/// How many lines ahead specs are submitted.
const AHEAD: usize = 16;
/// How many specs of one author may be open (section 12).
const OPEN_SPECS: usize = 3;
/// How many specs are decided before it is other co-authors' turn.
const TURN: usize = 16;
/// How long the longest title may be (section 12).
const TITLE_BYTES: usize = 256;

/// Runs the command.
pub(crate) async fn irc(context: Context, args: IrcArgs) -> Result<()> {
    let out = context.out;
    let (log, annotation) = read(&args)?;
    if !log.unreadable.is_empty() {
        let lines: Vec<String> = log.unreadable.iter().take(10).map(ToString::to_string).collect();
        out.note(format!(
            "{} lines of the file are none of an IRC log and are left out (line {})",
            log.unreadable.len(),
            lines.join(", ")
        ));
    }
    let started = Instant::now();
    let progress = progress(out, log.said.len() as u64);
    let mut cast = Cast::assemble(context, &args, &log, progress.clone()).await?;
    let thread_id = cast.thread_id;
    cast.replay(&log, &annotation, &Pace::new(args.speed, &log)).await?;
    let replayed = started.elapsed();
    progress.set_message("comparing replicas");
    let summary = cast.compare(&log).await?;
    progress.finish_and_clear();
    report(out, thread_id, &summary, replayed, started.elapsed())?;
    if summary.problems.is_empty() {
        Ok(())
    } else {
        Err(failed(&summary.problems))
    }
}

fn read(args: &IrcArgs) -> Result<(Log, Annotation)> {
    let bytes = std::fs::read(&args.file).map_err(|error| unreadable(&args.file, &error))?;
    let text = String::from_utf8(bytes).map_err(|_| {
        Failure::usage(format!("{} isn't UTF-8", args.file.display()))
            .meaning("Nothing was sent.")
            .hint("convert it first: iconv -f latin1 -t utf-8")
    })?;
    let log = Log::read(&text);
    if log.said.is_empty() {
        return Err(
            Failure::usage(format!("nobody says anything in {}", args.file.display()))
                .meaning("Nothing was sent.")
                .hint("the import reads lines like `[09:59] <nick> text`"),
        );
    }
    if args.speed.is_some_and(|speed| !speed.is_finite() || speed <= 0.0) {
        return Err(Failure::usage("--speed takes a number above 0").meaning("Nothing was sent."));
    }
    let beside = beside(&args.file).filter(|path| path.exists());
    let annotation = match args.annotation.as_ref().or(beside.as_ref()) {
        None => Annotation::default(),
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(|error| unreadable(path, &error))?;
            Annotation::read(&text).map_err(|line| {
                Failure::usage(format!(
                    "{}:{line}: expected two line numbers, like `1002 1003 -`",
                    path.display()
                ))
                .meaning("Nothing was sent.")
            })?
        }
    };
    Ok((log, annotation))
}

/// An input that can't be read: what was typed is wrong, and nothing was done.
fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    Failure {
        kind: FailureKind::Usage,
        ..Failure::file("read", path, error)
    }
    .meaning("Nothing was sent.")
    .hint("name a file of UTF-8 text that you may read")
}

/// The annotation file that stands beside a log.
fn beside(log: &Path) -> Option<PathBuf> {
    let name = log.file_name()?.to_str()?.strip_suffix(".raw.txt")?;
    Some(log.with_file_name(format!("{name}.annotation.txt")))
}

fn progress(out: Output, lines: u64) -> ProgressBar {
    let target = if out.is_json() {
        ProgressDrawTarget::hidden()
    } else {
        ProgressDrawTarget::stderr()
    };
    // In one line also on a narrow terminal: the message is cut where it doesn't fit.
    let style = ProgressStyle::with_template("{bar:12} {pos}/{len} lines, {rate}/s, {eta} left  {wide_msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .with_key("rate", |state: &ProgressState, text: &mut dyn std::fmt::Write| {
            // A terminal that went away is noticed by who draws.
            let _ = write!(text, "{:.0}", state.per_sec());
        });
    ProgressBar::with_draw_target(Some(lines), target).with_style(style)
}

// --------------------------------------------------------------------------------------------------------------------------------------------- rhythm

/// When each line is due. A log knows minutes only: what was said in one minute is spread over it.
struct Pace {
    speed: Option<f64>,
    begun: Instant,
    due: HashMap<usize, f64>,
}

impl Pace {
    fn new(speed: Option<f64>, log: &Log) -> Self {
        let mut due = HashMap::new();
        let mut day = 0;
        let mut last = log.said.first().map_or(0, |said| said.minute);
        let first = last;
        for minute in log.said.chunk_by(|a, b| a.minute == b.minute) {
            let at = minute.first().map_or(last, |said| said.minute);
            if at < last {
                day += 24 * 60;
            }
            last = at;
            for (n, said) in minute.iter().enumerate() {
                let share = n as f64 / minute.len() as f64;
                due.insert(said.line, (f64::from(day + at) - f64::from(first) + share) * 60.0);
            }
        }
        Self {
            speed,
            begun: Instant::now(),
            due,
        }
    }

    /// Whether there is a rhythm to keep.
    const fn is_kept(&self) -> bool {
        self.speed.is_some()
    }

    async fn wait(&self, said: &Said) {
        let (Some(speed), Some(due)) = (self.speed, self.due.get(&said.line)) else {
            return;
        };
        let at = Duration::try_from_secs_f64(due / speed).unwrap_or(Duration::MAX);
        tokio::time::sleep(at.saturating_sub(self.begun.elapsed())).await;
    }
}

// ----------------------------------------------------------------------------------------------------------------------------------------------- cast

/// Somebody with a key and a client of their own, who follows the thread.
struct Actor {
    client: Client,
    thread: ThreadHandle,
    watch: JoinHandle<()>,
}

/// What went on meanwhile, counted by all.
#[derive(Default)]
struct Tally {
    reconnects: AtomicU64,
    findings: std::sync::Mutex<Vec<String>>,
}

impl Tally {
    fn find(&self, finding: String) {
        let mut findings = self.findings.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        // Enough to see what is wrong; one broken server may break every entry.
        if findings.len() < 100 {
            findings.push(finding);
        }
    }
}

/// A spec that waits for the answers to its approvals.
struct Undecided {
    line: usize,
    author: String,
    spec: Id,
    approvals: Vec<Pending>,
}

/// Everybody who speaks, and what they have said so far.
struct Cast {
    url: String,
    thread_id: ThreadId,
    actors: HashMap<String, Actor>,
    co_authors: Vec<String>,
    policy: Approval,
    /// Who approves until everything that was submitted is published: always the same within that time, so that what they approve keeps its order.
    approvers: Vec<String>,
    /// How often each co-author acted.
    acted: HashMap<String, u64>,
    /// Which message a line became.
    messages: HashMap<usize, Id>,
    /// Specs whose approvals have no answer yet, in their order.
    undecided: Vec<Undecided>,
    /// How many specs of an author may still be open.
    open: HashMap<String, usize>,
    counts: Counts,
    tally: Arc<Tally>,
    progress: ProgressBar,
    signatures: Arc<SharedSignatures>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Counts {
    published: u64,
    specs: u64,
    approvals: u64,
    answers: u64,
}

impl Cast {
    /// Makes the thread, by its first speaker, and brings in all co-authors.
    async fn assemble(context: Context, args: &IrcArgs, log: &Log, progress: ProgressBar) -> Result<Self> {
        let url = context.url();
        let speakers = log.speakers();
        let co_authors: Vec<String> = speakers
            .iter()
            .take(usize::from(args.co_authors))
            .map(ToString::to_string)
            .collect();
        let keys = co_authors
            .iter()
            .map(|_| secret().map(Arc::new))
            .collect::<Result<Vec<Arc<SecretKey>>>>()?;
        let title = args.thread.clone().unwrap_or_else(|| title_of(&args.file));
        if title.len() > TITLE_BYTES {
            return Err(Failure::usage(format!("a title has at most {TITLE_BYTES} bytes")).meaning("Nothing was sent."));
        }
        let mut new = NewThread::titled(title)
            .visibility(Visibility::Public)
            .propose(Propose::Everyone)
            .policy(Policy {
                approval: args.policy,
                ..Policy::default()
            });
        for key in keys.iter().skip(1) {
            new = new.member(UserId::of_key(&key.public()), Role::CoAuthor);
        }
        let tally = Arc::new(Tally::default());
        let (Some(founder), Some(first)) = (keys.first(), co_authors.first()) else {
            return Err(Failure::usage("nobody says anything in this log"));
        };
        let signatures = Arc::new(SharedSignatures::default());
        // Whether there is a server at all shows here; from then on one that goes away is waited for.
        let (client, _) = reach(&url, config(&url, Arc::clone(founder), &signatures)).await?;
        let thread_id = patient(client.create_thread(new)).await?;
        let mut cast = Self {
            url,
            thread_id,
            actors: HashMap::new(),
            co_authors: co_authors.clone(),
            policy: args.policy,
            approvers: Vec::new(),
            acted: HashMap::new(),
            messages: HashMap::new(),
            undecided: Vec::new(),
            open: HashMap::new(),
            counts: Counts::default(),
            tally,
            progress,
            signatures,
        };
        cast.approvers = cast.next_approvers();
        cast.follow(first, client).await?;
        for (nick, key) in co_authors.iter().zip(&keys).skip(1) {
            let client = Client::start(config(&cast.url, Arc::clone(key), &cast.signatures))?;
            patient(client.join(thread_id, false)).await?;
            cast.follow(nick, client).await?;
        }
        Ok(cast)
    }

    /// Brings in whoever speaks for the first time.
    async fn ensure(&mut self, nick: &str) -> Result<()> {
        if !self.actors.contains_key(nick) {
            let client = Client::start(config(&self.url, Arc::new(secret()?), &self.signatures))?;
            self.follow(nick, client).await?;
        }
        Ok(())
    }

    async fn follow(&mut self, nick: &str, client: Client) -> Result<()> {
        let options = SubscribeOptions {
            history: Some(1),
            ..SubscribeOptions::default()
        };
        let thread = patient(client.subscribe(self.thread_id, options)).await?;
        let watch = tokio::spawn(watch(
            nick.to_owned(),
            client.clone(),
            thread.clone(),
            Arc::clone(&self.tally),
            self.progress.clone(),
        ));
        self.actors.insert(nick.to_owned(), Actor { client, thread, watch });
        Ok(())
    }

    fn actor(&self, nick: &str) -> Result<&Actor> {
        self.actors
            .get(nick)
            .ok_or_else(|| Failure::failed("internal", "somebody speaks who was never brought in"))
    }

    /// Says all lines, published in their order.
    async fn replay(&mut self, log: &Log, annotation: &Annotation, pace: &Pace) -> Result<()> {
        let mut submitted: HashMap<usize, Pending> = HashMap::new();
        for (index, said) in log.said.iter().enumerate() {
            pace.wait(said).await;
            if !pace.is_kept() {
                self.submit_ahead(log, annotation, index, &mut submitted).await?;
            }
            let parent = annotation.parent(said.line);
            if self.must_settle(said, parent, submitted.contains_key(&said.line)) {
                self.settle().await?;
            }
            let pending = match submitted.remove(&said.line) {
                Some(pending) => pending,
                None => self.submit(said, parent).await?,
            };
            let id = pending.id();
            let receipt = patient(pending).await?;
            if receipt.kind == Kind::SpecSubmitted {
                self.counts.specs += 1;
                self.decide(said, id).await?;
            } else {
                self.published(said.line, id);
            }
        }
        self.settle().await
    }

    /// Whether a line has to wait until all before it are published: a co-author's, an answer to one of them, and one whose author has as many specs open as they
    /// may (section 12).
    fn must_settle(&self, said: &Said, parent: Option<usize>, submitted: bool) -> bool {
        self.is_co_author(&said.nick)
            || !submitted && parent.is_some_and(|line| self.undecided.iter().any(|spec| spec.line == line))
            || !submitted && self.has_no_room(&said.nick)
    }

    fn has_no_room(&self, nick: &str) -> bool {
        self.open.get(nick).is_some_and(|open| *open >= OPEN_SPECS)
    }

    /// Submits what the next lines propose, as far as it depends on nothing that isn't published yet. An author's own lines keep their order: the first that has
    /// to wait keeps back those after it.
    async fn submit_ahead(
        &mut self,
        log: &Log,
        annotation: &Annotation,
        index: usize,
        submitted: &mut HashMap<usize, Pending>,
    ) -> Result<()> {
        let mut kept_back: HashSet<&str> = HashSet::new();
        for said in log.said.iter().skip(index).take(AHEAD) {
            if submitted.contains_key(&said.line)
                || self.is_co_author(&said.nick)
                || kept_back.contains(said.nick.as_str())
            {
                continue;
            }
            let parent = annotation.parent(said.line);
            let is_published = |line: usize| {
                self.messages.contains_key(&line) || log.said.binary_search_by_key(&line, |other| other.line).is_err()
            };
            if parent.is_some_and(|line| !is_published(line)) || self.has_no_room(&said.nick) {
                kept_back.insert(&said.nick);
                continue;
            }
            let pending = self.submit(said, parent).await?;
            submitted.insert(said.line, pending);
        }
        Ok(())
    }

    fn is_co_author(&self, nick: &str) -> bool {
        self.co_authors.iter().any(|name| name == nick)
    }

    /// Hands a line over to its speaker's client.
    async fn submit(&mut self, said: &Said, parent: Option<usize>) -> Result<Pending> {
        self.ensure(&said.nick).await?;
        let parent = parent.and_then(|line| self.messages.get(&line)).copied();
        self.counts.answers += u64::from(parent.is_some());
        let message = Action::SubmitMessage(SubmitMessage {
            content: said.text.as_str().into(),
            content_type: None,
            parent,
            salt: salt()?,
        });
        if self.is_co_author(&said.nick) {
            *self.acted.entry(said.nick.clone()).or_default() += 1;
        } else {
            *self.open.entry(said.nick.clone()).or_default() += 1;
        }
        hand_over(&self.actor(&said.nick)?.client, self.thread_id, &message)
    }

    /// Hands the approvals of a spec over: each co-author's are applied in the order in which they are handed over (G4), so specs are published in theirs.
    async fn decide(&mut self, said: &Said, spec: Id) -> Result<()> {
        if self.undecided.len() >= TURN {
            self.settle().await?;
        }
        let mut approvals = Vec::new();
        for nick in self.approvers.clone() {
            *self.acted.entry(nick.clone()).or_default() += 1;
            let actor = self.actor(&nick)?;
            let content_hash = patient(shown(&actor.thread, spec)).await?;
            let approval = Action::ProcessApproval(ProcessApproval {
                spec,
                content_hash,
                decision: Decision::Approve,
                reason: None,
                salt: salt()?,
            });
            approvals.push(hand_over(&actor.client, self.thread_id, &approval)?);
        }
        self.undecided.push(Undecided {
            line: said.line,
            author: said.nick.clone(),
            spec,
            approvals,
        });
        Ok(())
    }

    /// Whose turn it is to approve: as many as the policy asks for, of those who have done least so far.
    fn next_approvers(&self) -> Vec<String> {
        let n = self.co_authors.len();
        let needed = match self.policy {
            Approval::Any => 1,
            Approval::Unanimous => n,
            Approval::Majority => n / 2 + 1,
            Approval::AtLeast(k) => usize::try_from(k).unwrap_or(n).min(n),
        };
        let mut by_work = self.co_authors.clone();
        by_work.sort_by_key(|nick| self.acted.get(nick).copied().unwrap_or_default());
        by_work.truncate(needed);
        by_work
    }

    /// Waits until everything that was submitted is published; then it is the next co-authors' turn.
    async fn settle(&mut self) -> Result<()> {
        for Undecided {
            line,
            author,
            spec,
            approvals,
        } in std::mem::take(&mut self.undecided)
        {
            for approval in approvals {
                patient(approval).await?;
                self.counts.approvals += 1;
            }
            if let Some(open) = self.open.get_mut(&author) {
                *open = open.saturating_sub(1);
            }
            self.published(line, spec);
        }
        self.approvers = self.next_approvers();
        Ok(())
    }

    fn published(&mut self, line: usize, id: Id) {
        self.counts.published += 1;
        self.progress.inc(1);
        self.messages.insert(line, id);
    }

    /// Brings everybody level, compares all replicas, and walks one back to entry 1.
    async fn compare(self, log: &Log) -> Result<Summary> {
        let founder = self.co_authors.first().cloned().unwrap_or_default();
        let witness = self.actor(&founder)?;
        let head = patient(head(&witness.client, self.thread_id)).await?;
        let mut problems = Vec::new();
        for (nick, actor) in &self.actors {
            let cursor = patient(level(&actor.thread, head)).await?;
            if cursor != head {
                problems.push(format!(
                    "{nick}'s replica ends at {} with root {}, the log at {} with {}",
                    cursor.seq, cursor.root, head.seq, head.root
                ));
            }
        }
        let mut entries = 0_u64;
        let mut texts = Vec::new();
        let walk = patient(walk_back(&witness.client, self.thread_id, head)).await?;
        let thread_audience = walk.audience;
        for entry in walk.entries {
            entries += 1;
            if !entry.author.is_choir()
                && !thread_audience
                    .as_ref()
                    .is_some_and(|audience| entry.signature_holds(self.thread_id, audience))
            {
                problems.push(format!("entry {} doesn't bear its author's signature", entry.seq));
            }
            if entry.kind == Kind::MessagePosted {
                let body = entry.body_value();
                let content = body
                    .as_ref()
                    .and_then(|body| body.as_object()?.get("content")?.as_str().map(str::to_owned));
                texts.push(content.unwrap_or_default());
            }
        }
        let expected: Vec<&str> = log.said.iter().map(|said| said.text.as_str()).collect();
        if texts != expected {
            problems.push(format!(
                "the thread holds {} messages that aren't the log's {} in their order",
                texts.len(),
                expected.len()
            ));
        }
        problems.extend(
            self.tally
                .findings
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .iter()
                .cloned(),
        );
        let summary = Summary {
            head,
            entries,
            clients: self.actors.len(),
            counts: self.counts,
            reconnects: self.tally.reconnects.load(Ordering::Relaxed),
            problems,
        };
        for (_, actor) in self.actors {
            actor.watch.abort();
            actor.client.close().await;
        }
        Ok(summary)
    }
}

fn secret() -> Result<SecretKey> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed)
        .map_err(|error| Failure::failed("io", format!("the system gives no random bytes: {error}")))?;
    Ok(SecretKey::from_seed(&seed))
}

fn salt() -> Result<Salt> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(no_random_bytes)?;
    Ok(Salt::from_bytes(bytes))
}

fn no_random_bytes(error: getrandom::Error) -> Failure {
    Failure::failed("io", format!("the system gives no random bytes: {error}"))
}

fn hand_over(client: &Client, thread_id: ThreadId, action: &Action) -> Result<Pending> {
    Ok(client.hand_over(thread_id, action.type_name(), action.to_payload())?)
}

fn config(url: &str, key: Arc<SecretKey>, signatures: &Arc<SharedSignatures>) -> Config {
    Config::new(url, key)
        .agent("choir-import/irc")
        .retain(RETAIN)
        .share_signatures(Arc::clone(signatures))
}

fn title_of(file: &Path) -> String {
    let name = file
        .file_name()
        .map_or_else(|| "IRC".into(), |name| name.to_string_lossy());
    name.strip_suffix(".raw.txt").unwrap_or(&name).to_owned()
}

/// Counts what a participant goes through: lost connections, and whatever their replica finds wrong.
async fn watch(nick: String, client: Client, thread: ThreadHandle, tally: Arc<Tally>, progress: ProgressBar) {
    let mut updates = thread.updates();
    let mut events = client.events();
    loop {
        tokio::select! {
            event = events.next() => match event.as_deref() {
                Some(ClientEvent::State(State::Reconnecting { attempt: 1, retry_in_ms: Some(_) })) => {
                    tally.reconnects.fetch_add(1, Ordering::Relaxed);
                    progress.set_message("waiting for the server");
                }
                Some(ClientEvent::Session { .. }) => progress.set_message(""),
                Some(ClientEvent::Notice(Notice::LogReplaced { .. })) => tally.find(format!("{nick}: the server's log was replaced by another")),
                Some(_) => {}
                None => return,
            },
            event = updates.next() => match event.as_deref() {
                Some(ThreadEvent::Update(Update::Snapshot { findings, .. } | Update::Entries { findings, .. } | Update::Level { findings, .. })) => {
                    for finding in findings.iter().filter(|finding| !matches!(finding, Finding::NewKey { .. })) {
                        tally.find(format!("{nick}: {finding}"));
                    }
                }
                Some(ThreadEvent::Update(Update::Desync { error, .. })) => tally.find(format!("{nick}: {error}")),
                Some(_) => {}
                None => return,
            },
        }
    }
}

/// Waits for something that a restart of the server may delay, but not for ever.
async fn patient<T, E: Into<Failure>>(work: impl Future<Output = std::result::Result<T, E>>) -> Result<T> {
    match tokio::time::timeout(PATIENCE, work).await {
        Ok(result) => result.map_err(Into::into),
        Err(_) => Err(
            Failure::connection(format!("the server didn't answer for {} s", PATIENCE.as_secs()))
                .meaning("What was acknowledged is in the thread; the import stopped before its end.")
                .hint("look at the server's log, then import into a new thread"),
        ),
    }
}

/// The hash that a co-author is shown for a spec, once their replica holds it.
async fn shown(thread: &ThreadHandle, spec: Id) -> Result<choir_client::Hash> {
    let mut updates = thread.updates();
    loop {
        if let Some(open) = thread
            .replica()
            .and_then(|replica| replica.view().spec(spec).map(|open| open.content_hash))
        {
            return Ok(open);
        }
        if updates.next().await.is_none() {
            return Err(ended());
        }
    }
}

/// Waits until a replica has reached the head.
async fn level(thread: &ThreadHandle, head: Cursor) -> Result<Cursor> {
    let mut updates = thread.updates();
    loop {
        if let Some(cursor) = thread
            .replica()
            .map(|replica| replica.cursor())
            .filter(|cursor| cursor.seq >= head.seq)
        {
            return Ok(cursor);
        }
        if updates.next().await.is_none() {
            return Err(ended());
        }
    }
}

fn ended() -> Failure {
    Failure::failed(
        "subscription_error",
        "a participant's subscription ended before the import did",
    )
    .meaning("What was acknowledged is in the thread; the import stopped before its end.")
    .hint("look at the server's log, then import into a new thread")
}

async fn head(client: &Client, thread_id: ThreadId) -> Result<Cursor> {
    let page = client
        .history(thread_id, choir_client::Seq::saturating(u64::MAX), Some(1))
        .await?;
    Ok(page.end())
}

/// The whole log, verified page by page against the root that is known.
struct Walked {
    audience: Option<choir_client::Audience>,
    entries: Vec<choir_client::Entry>,
}

async fn walk_back(client: &Client, thread_id: ThreadId, head: Cursor) -> Result<Walked> {
    let mut walk = choir_client::Walk::new(thread_id, head);
    let mut pages = Vec::new();
    while walk.at().seq > choir_client::Seq::ZERO {
        let page = client.history(thread_id, walk.at().seq.next(), Some(1_000)).await?;
        walk.verify(&page)
            .map_err(|error| Failure::failed("state_desync", format!("the log doesn't verify: {error}")))?;
        pages.push(page);
    }
    let mut entries: Vec<choir_client::Entry> = Vec::new();
    for page in pages.into_iter().rev() {
        entries.extend(
            page.entries
                .into_iter()
                .filter(|entry| entries.last().is_none_or(|last| entry.seq > last.seq))
                .collect::<Vec<_>>(),
        );
    }
    let audience = entries
        .first()
        .and_then(|first| first.body_value()?.as_object()?.get("audience")?.as_str()?.parse().ok());
    Ok(Walked { audience, entries })
}

// ------------------------------------------------------------------------------------------------------------------------------------------- the end

struct Summary {
    head: Cursor,
    entries: u64,
    clients: usize,
    counts: Counts,
    reconnects: u64,
    problems: Vec<String>,
}

fn report(out: Output, thread_id: ThreadId, summary: &Summary, replayed: Duration, whole: Duration) -> Result<()> {
    let Summary {
        head,
        entries,
        clients,
        counts,
        reconnects,
        problems,
    } = summary;
    out.either(
        || {
            json!({
                "thread_id": thread_id.to_string(),
                "messages": counts.published,
                "specs": counts.specs,
                "approvals": counts.approvals,
                "answers": counts.answers,
                "entries": entries,
                "clients": clients,
                "reconnects": reconnects,
                "head": head.seq.get(),
                "root": head.root.to_string(),
                "replicas_equal": problems.is_empty(),
                "problems": problems,
                "replay_ms": u64::try_from(replayed.as_millis()).unwrap_or(u64::MAX),
                "total_ms": u64::try_from(whole.as_millis()).unwrap_or(u64::MAX),
            })
        },
        || {
            let verdict = if problems.is_empty() { format!("{GOOD}all equal, everything verified{GOOD:#}") } else { "NOT equal".to_owned() };
            format!(
                "{} in {:.1} s: {} posted at once, {} as specs with {}; {} answer another\n{}, {} made good\n{}, root {}\n{}: {verdict}\nThread {thread_id}",
                counted(counts.published, "message", "messages"),
                replayed.as_secs_f64(),
                counts.published.saturating_sub(counts.specs),
                counts.specs,
                counted(counts.approvals, "approval", "approvals"),
                counts.answers,
                counted(*clients as u64, "client", "clients"),
                counted(*reconnects, "lost connection", "lost connections"),
                counted(*entries, "entry", "entries"),
                head.root,
                counted(*clients as u64, "replica", "replicas"),
            )
        },
    )
}

fn failed(problems: &[String]) -> Failure {
    Failure::failed(
        "state_desync",
        problems
            .iter()
            .take(10)
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join("\n"),
    )
    .meaning("What the clients hold isn't what the log says, or isn't what was imported.")
    .hint("keep the server's data directory and report this")
}
