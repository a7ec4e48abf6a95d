//! Who runs a command, against which server, and what is meant by what they typed.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use choir_client::{Client, Config, Connecting, Connector, Endpoint, Scope, TcpConnector, Transport};
use choir_protocol::entry::{Entry, Kind};
use choir_protocol::ids::{Audience, Id, Seq, ThreadId, UserId};
use choir_protocol::json::{self, Value};
use choir_protocol::key::{PublicKey, SecretKey};
use choir_protocol::message::ThreadRow;
use choir_protocol::range::Range;
use choir_protocol::thread::{Member, OpenSpec, Role};
use tokio::net::TcpStream;
use tokio::sync::Notify;

use crate::cli::{Content, Global, parse_role};
use crate::error::{Failure, Result};
use crate::hello::{Heard, Overheard};
use crate::output::{Output, content_text, one_line};
use crate::pick::{Candidate, is_part, pick};
use crate::profile::{self, DEFAULT_URL, Profile};
use crate::show::is_what_it_says;

/// How long a command waits for a session.
const CONNECT: Duration = Duration::from_secs(20);
/// How long a command that asks one thing goes on trying once its connection is lost.
const GIVE_UP: Duration = Duration::from_secs(30);
/// How many entries are asked for at once.
pub(crate) const PAGE: u64 = 500;

/// Who runs a command.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) out: Output,
    pub(crate) profile: Profile,
    url: Option<String>,
    key: Option<std::path::PathBuf>,
}

impl Context {
    /// From what stands before and around a command.
    pub(crate) fn new(global: &Global) -> Result<Self> {
        Ok(Self {
            out: Output::new(global.json),
            profile: Profile::open(&global.profile)?,
            url: global.url.clone(),
            key: global.key.clone(),
        })
    }

    /// The server: named for this command, else the profile's, else the one on this machine.
    pub(crate) fn url(&self) -> String {
        self.url
            .clone()
            .or_else(|| self.profile.settings().url.clone())
            .unwrap_or_else(|| DEFAULT_URL.to_owned())
    }

    /// The origin that signatures are made for (C4).
    pub(crate) fn audience(&self) -> Result<Audience> {
        let url = self.url();
        Audience::of_url(&url).map_err(|error| bad_url(&url, &error.to_string()))
    }

    /// The key: a file named for this command, else `CHOIR_KEY`, else the profile's.
    pub(crate) fn key(&self) -> Result<SecretKey> {
        if let Some(path) = &self.key {
            if path.to_str().is_some_and(|text| profile::parse_key(text).is_some()) {
                return Err(Failure::usage("--key names a file, and got a key")
                    .meaning("Everybody on this machine can see what stands on a command line: count this key as known to them.")
                    .hint("write it to a file, or hand it over in the variable CHOIR_KEY"));
            }
            return profile::key_in(path);
        }
        match std::env::var("CHOIR_KEY") {
            Ok(text) if !text.is_empty() => {
                profile::parse_key(&text).map_or_else(|| profile::key_in(text.as_ref()), Ok)
            }
            _ => self.profile.key(),
        }
    }

    /// Connects, to ask one thing.
    pub(crate) async fn connect(self) -> Result<Session> {
        self.connect_with(Some(GIVE_UP)).await
    }

    /// Connects for as long as it takes.
    pub(crate) async fn connect_for_good(self) -> Result<Session> {
        self.connect_with(None).await
    }

    async fn connect_with(self, give_up: Option<Duration>) -> Result<Session> {
        let url = self.url();
        let audience = self.audience()?;
        Endpoint::of_url(&url).map_err(|why| bad_url(&url, why))?;
        let key = self.key()?;
        let me = UserId::of_key(&key.public());
        let mut config = Config::new(url.clone(), key)
            .agent(concat!("choir-cli/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT);
        if let Some(time) = give_up {
            config = config.give_up_after(time);
        }
        let (client, heard) = reach(&url, config).await?;
        let mut session = Session {
            context: self,
            client,
            audience,
            me,
            heard,
        };
        if let Err(failure) = session.pin() {
            session
                .out()
                .note(format!("Warning: what is known of the server can't be kept: {failure}"));
        }
        Ok(session)
    }
}

/// A client with a session, and what its server said of itself. Whoever isn't there is told of at once, and in words for people.
pub(crate) async fn reach(url: &str, config: Config) -> Result<(Client, Heard)> {
    let dialled = Arc::new(Dialled::default());
    let heard = Heard::default();
    let config = config.connector(Watched {
        dialled: Arc::clone(&dialled),
        heard: heard.clone(),
    });
    // In this order: the client fails, too, and knows less of why.
    let client = tokio::select! {
        biased;
        error = dialled.failure() => return Err(unreachable(url, Failure::connection(error))),
        client = Client::connect(config) => client.map_err(|error| unreachable(url, Failure::from(error)))?,
    };
    Ok((client, heard))
}

/// The first dialling of a client, watched.
#[derive(Debug, Default)]
struct Dialled {
    failed: Notify,
    state: std::sync::Mutex<DialState>,
}

#[derive(Debug, Default)]
struct DialState {
    answered: bool,
    failure: Option<String>,
}

impl Dialled {
    fn lock(&self) -> std::sync::MutexGuard<'_, DialState> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Why the first dialling failed; never where it didn't.
    async fn failure(&self) -> String {
        loop {
            self.failed.notified().await;
            if let Some(failure) = self.lock().failure.take() {
                return failure;
            }
        }
    }
}

/// Opens plain streams, and keeps what is to be known of them.
struct Watched {
    dialled: Arc<Dialled>,
    heard: Heard,
}

impl Connector for Watched {
    fn connect<'a>(&'a self, endpoint: &'a Endpoint) -> Connecting<'a> {
        Box::pin(async move {
            let result = if endpoint.secure {
                // The library's own connector says what there is to say about TLS.
                TcpConnector.connect(endpoint).await
            } else {
                self.open(endpoint).await
            };
            let mut state = self.dialled.lock();
            match &result {
                Ok(_) => state.answered = true,
                Err(error) if !state.answered => {
                    state.failure = Some(dial_error(error));
                    self.dialled.failed.notify_one();
                }
                Err(_) => {}
            }
            drop(state);
            result
        })
    }
}

impl Watched {
    async fn open(&self, endpoint: &Endpoint) -> io::Result<Box<dyn Transport>> {
        let stream = TcpStream::connect((endpoint.host.as_str(), endpoint.port)).await?;
        stream.set_nodelay(true)?;
        Ok(Box::new(Overheard::new(stream, self.heard.clone())))
    }
}

fn dial_error(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "nobody listens there".to_owned(),
        _ => error.to_string(),
    }
}

fn unreachable(url: &str, failure: Failure) -> Failure {
    if failure.kind != crate::error::Kind::Connection || failure.code != "connection_lost" {
        return failure;
    }
    Failure {
        message: format!("no connection to {url}: {}", failure.message),
        ..failure
    }
    .meaning("Nothing was sent.")
    .hint("is the server running? `choir serve` starts one; --url, CHOIR_URL or `choir use --server` name another")
}

fn bad_url(url: &str, why: &str) -> Failure {
    Failure::usage(format!("{:?} is no server's URL: {why}", one_line(url)))
        .hint("write it like wss://choir.example or ws://127.0.0.1:7400")
}

/// A connection, and who holds it.
pub(crate) struct Session {
    pub(crate) context: Context,
    pub(crate) client: Client,
    audience: Audience,
    pub(crate) me: UserId,
    heard: Heard,
}

impl Session {
    /// Compares the server with the one that was here before, and remembers it (K6, G1r). Told once: from then on the new one is the one that is known.
    fn pin(&mut self) -> Result<()> {
        let Some(hello) = self.heard.hello() else {
            return Ok(());
        };
        let known = self.context.profile.server(&self.audience);
        let key_differs = known.key.is_some_and(|key| key != hello.server.key);
        let log_differs = known.log_id.is_some_and(|log| log != hello.log_id);
        if key_differs {
            self.context.out.note("Warning: the server has another key than when you were here before: it was set up anew, or it is another server.");
        } else if log_differs {
            self.context.out.note("Warning: the server's log is another than when you were here before: it was restored from a backup, and what was said last may be gone.");
        }
        if known.key == Some(hello.server.key) && known.log_id == Some(hello.log_id) {
            return Ok(());
        }
        let audience = self.audience.clone();
        self.context.profile.update_server(&audience, |server| {
            server.key = Some(hello.server.key);
            server.log_id = Some(hello.log_id);
        })
    }

    /// The key of the server's checkpoints.
    pub(crate) fn server_key(&self) -> Result<PublicKey> {
        let hello = self
            .heard
            .hello()
            .ok_or_else(|| Failure::failed("internal", "the server didn't say which key is its own"))?;
        Ok(hello.server.key)
    }

    /// Where results go.
    pub(crate) const fn out(&self) -> Output {
        self.context.out
    }

    /// Who is called what.
    pub(crate) const fn names(&self) -> &Profile {
        &self.context.profile
    }

    /// The origin that signatures are made for.
    pub(crate) const fn audience(&self) -> &Audience {
        &self.audience
    }

    /// Ends the connection in order.
    pub(crate) async fn close(self) {
        self.client.close().await;
    }

    // ---------------------------------------------------------------------------------------------------------------------------------------- threads

    /// Which thread is meant; without a name the one in use.
    pub(crate) async fn thread(&self, named: Option<&str>) -> Result<ThreadId> {
        let Some(text) = named else {
            return self.context.profile.server(&self.audience).thread.ok_or_else(|| {
                let profile = self.context.profile.flag();
                Failure::usage("no thread is named, and none is in use")
                    .hint(format!("name one, or say which is meant from now on: choir{profile} use <THREAD>; `choir threads` lists yours"))
            });
        };
        if let Ok(id) = text.parse::<ThreadId>() {
            return Ok(id);
        }
        let mine = self.threads(Scope::Mine).await?;
        match meant(text, &mine) {
            Err(failure) if failure.code == "not_found" => meant(text, &self.threads(Scope::Public).await?)
                .map_err(|other| if other.code == "not_found" { failure } else { other }),
            found => found,
        }
    }

    /// All threads of a list.
    pub(crate) async fn threads(&self, scope: Scope) -> Result<Vec<ThreadRow>> {
        let mut rows = Vec::new();
        let mut after = None;
        loop {
            let page = self.client.threads(scope, after).await?;
            rows.extend(page.threads);
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok(rows),
            }
        }
    }

    /// All members of a thread.
    pub(crate) async fn members(&self, thread: ThreadId) -> Result<Vec<Member>> {
        let mut rows = Vec::new();
        let mut after = None;
        loop {
            let page = self.client.members(thread, after).await?;
            rows.extend(page.members);
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok(rows),
            }
        }
    }

    /// All open specs of a thread, oldest first.
    pub(crate) async fn specs(&self, thread: ThreadId) -> Result<Vec<OpenSpec>> {
        let mut rows = Vec::new();
        let mut after = None;
        loop {
            let page = self.client.specs(thread, after).await?;
            if let Some(spec) = page.open_specs.iter().find(|spec| !is_what_it_says(spec)) {
                return Err(Failure::failed(
                    "not_verified",
                    format!(
                        "the server shows another content of the spec {} than decisions would be bound to",
                        spec.spec
                    ),
                )
                .meaning("Nothing was decided.")
                .hint("run `choir verify`, and ask the server's operator"));
            }
            rows.extend(page.open_specs);
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok(rows),
            }
        }
    }

    /// Which open spec is meant, among all or among this user's own.
    pub(crate) async fn spec(&self, thread: ThreadId, text: &str, own: bool) -> Result<OpenSpec> {
        let mut specs = self.specs(thread).await?;
        if own {
            specs.retain(|spec| spec.author == self.me);
        }
        let candidates: Vec<Candidate<Id>> = specs
            .iter()
            .map(|spec| Candidate {
                id: spec.spec,
                seq: Some(spec.seq),
                text: crate::chat::content_of(spec),
            })
            .collect();
        let id = pick("spec", text, &candidates)?;
        specs
            .into_iter()
            .find(|spec| spec.spec == id)
            .ok_or_else(|| Failure::failed("not_found", "the spec is gone"))
    }

    /// Which message is meant: among all, or this user's own. Looks back page by page until one fits.
    pub(crate) async fn message(&self, thread: ThreadId, text: &str, own: bool) -> Result<Id> {
        if let Ok(id) = text.parse::<Id>() {
            return Ok(id);
        }
        let mut before = Seq::saturating(u64::MAX);
        let mut candidates: Vec<Candidate<Id>> = Vec::new();
        loop {
            let page = self.history(thread, before, PAGE).await?;
            let posted = page
                .entries
                .iter()
                .filter(|entry| entry.kind == Kind::MessagePosted && (!own || entry.author == self.me));
            let mut earlier: Vec<Candidate<Id>> = posted
                .map(|entry| Candidate {
                    id: entry.id,
                    seq: Some(entry.seq),
                    text: entry_text(entry),
                })
                .collect();
            earlier.append(&mut candidates);
            candidates = earlier;
            let found = pick("message", text, &candidates);
            match found {
                // An id's part may fit an older one, too; the newest that fits is what people mean.
                Err(failure) if failure.code == "not_found" && page.from > Seq::ZERO => before = page.from.next(),
                found => return found,
            }
        }
    }

    /// A page of a thread's history that ends before a number.
    pub(crate) async fn history(&self, thread: ThreadId, before: Seq, limit: u64) -> Result<Range> {
        Ok(self.client.history(thread, before, Some(limit)).await?)
    }

    // -------------------------------------------------------------------------------------------------------------------------------------------- text

    /// `USER[:ROLE[:agent]]`, as members are named.
    pub(crate) fn member(&self, text: &str) -> Result<(UserId, Role, bool)> {
        parse_member(&self.context.profile, text)
    }
}

/// `USER[:ROLE[:agent]]`. User ids hold colons themselves, so it is read from its end.
pub(crate) fn parse_member(names: &Profile, text: &str) -> Result<(UserId, Role, bool)> {
    let (rest, agent) = match text.strip_suffix(":agent") {
        Some(rest) => (rest, true),
        None => (text, false),
    };
    if let Some((user, role)) = rest.rsplit_once(':')
        && let Ok(role) = parse_role(role)
    {
        return Ok((names.user(user)?, role, agent));
    }
    // What follows the name of somebody who is known, or a key, was meant as a role. In `issuer:subject` either part may be anything, so that stays an id.
    if let Some((user, role)) = rest.rsplit_once(':')
        && names
            .user(user)
            .is_ok_and(|known| !user.contains(':') || known.key().is_some())
    {
        return Err(Failure::usage(format!("{role:?} is no role"))
            .meaning("Nothing was sent.")
            .hint(format!(
                "roles are reader, co_author and owner; `agent` may follow: {user}:reader:agent"
            )));
    }
    Ok((names.user(rest)?, Role::CoAuthor, agent))
}

fn meant(text: &str, rows: &[ThreadRow]) -> Result<ThreadId> {
    let titled: Vec<&ThreadRow> = rows.iter().filter(|row| row.title == text).collect();
    let fits: Vec<&ThreadRow> = match titled.as_slice() {
        // Titles are what people type; ids are looked at where no title fits, then titles in another case.
        [] => {
            let parts: Vec<&ThreadRow> = rows
                .iter()
                .filter(|row| is_part(text, &row.thread_id.to_string()))
                .collect();
            if parts.is_empty() {
                rows.iter()
                    .filter(|row| row.title.to_lowercase() == text.to_lowercase())
                    .collect()
            } else {
                parts
            }
        }
        _ => titled,
    };
    let candidates: Vec<Candidate<ThreadId>> = fits
        .iter()
        .map(|row| Candidate {
            id: row.thread_id,
            seq: None,
            text: row.title.clone(),
        })
        .collect();
    match candidates.as_slice() {
        [one] => Ok(one.id),
        [] => Err(Failure::failed("not_found", format!("no thread of yours is called {text:?}, and no public one"))
            .meaning("Nothing was changed.")
            .hint("`choir threads` and `choir threads --public` list those that you can read; a private one shows once you are invited")),
        several => Err(crate::pick::ambiguous("thread", text, &several.iter().collect::<Vec<_>>())),
    }
}

/// What an entry says, in short.
fn entry_text(entry: &Entry) -> String {
    let body = entry.body_value();
    body.as_ref()
        .and_then(Value::as_object)
        .and_then(|body| body.get("content"))
        .map(content_text)
        .unwrap_or_default()
}

/// What is to be said: typed, or read from stdin.
pub(crate) fn read_content(content: &Content, out: Output) -> Result<Value> {
    let text = match content.text.as_deref() {
        Some(text) if text != "-" => text.to_owned(),
        _ => read_stdin(out)?,
    };
    if content.json_content {
        return json::parse(&text).map_err(|error| {
            Failure::usage(format!("the content isn't JSON that the protocol takes: {error}"))
                .meaning("Nothing was sent.")
                .hint("quote it for the shell: --json-content '{\"a\": 1}'; numbers go up to 2^53 - 1, names must not repeat")
        });
    }
    if text.trim().is_empty() {
        return Err(Failure::usage("there is nothing to say")
            .meaning("Nothing was sent.")
            .hint("choir post \"some text\", or text on stdin"));
    }
    Ok(Value::String(text))
}

fn read_stdin(out: Output) -> Result<String> {
    use std::io::{IsTerminal, Read};
    let mut stdin = io::stdin().lock();
    if stdin.is_terminal() {
        out.note("Type the text; Ctrl-D on a line of its own ends it.");
    }
    let mut bytes = Vec::new();
    stdin
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::failed("io", format!("stdin could not be read: {error}")))?;
    let text =
        String::from_utf8(bytes).map_err(|_| Failure::usage("stdin isn't UTF-8").meaning("Nothing was sent."))?;
    // The line feed that ends a file or a piped line isn't part of what is said.
    Ok(text
        .strip_suffix('\n')
        .map(|text| text.strip_suffix('\r').unwrap_or(text))
        .unwrap_or(&text)
        .to_owned())
}

#[cfg(test)]
mod tests {
    use choir_protocol::thread::Visibility;

    use super::*;

    fn row(n: u8, title: &str) -> ThreadRow {
        ThreadRow {
            thread_id: ThreadId::v7(1, [n; 10]),
            title: title.into(),
            visibility: Visibility::Private,
            role: None,
            invited: None,
            head: Seq::ZERO,
            messages: 0,
            marked: Seq::ZERO,
            unread: 0,
            awaiting: 0,
            last_activity: choir_protocol::ids::Timestamp::ZERO,
        }
    }

    #[test]
    fn threads_are_named_by_title_or_part_of_their_id() {
        let rows = [row(1, "Standup"), row(2, "Ideas"), row(3, "Ideas")];
        assert_eq!(meant("Standup", &rows), Ok(rows[0].thread_id));
        assert_eq!(meant("standup", &rows), Ok(rows[0].thread_id));
        assert_eq!(meant("03030303", &rows), Ok(rows[2].thread_id));
        assert_eq!(meant("Ideas", &rows).unwrap_err().kind, crate::error::Kind::Usage);
        assert_eq!(meant("Other", &rows).unwrap_err().code, "not_found");
    }
}
