//! What can be typed.

use std::net::SocketAddr;
use std::path::PathBuf;

use choir_protocol::hash::Hash;
use choir_protocol::thread::{Approval, MAX_EXPIRES_MS, MIN_EXPIRES_MS, Propose, Review, Role, Visibility};
use clap::{Args, Parser, Subcommand, ValueHint};

const ABOUT: &str =
    "Shared conversations of people and agents, where what isn't yours to publish waits for those whose it is.";

const AFTER_HELP: &str = "\
The first minute:
  choir serve                          # in a terminal of its own
  choir key new                        # who you are
  choir thread create \"Standup\"        # and use it from now on
  choir post \"Good morning\"
  choir tail                           # live

With somebody else on the same machine:
  choir --profile bob key new
  choir thread add bob:reader
  choir --profile bob use Standup
  choir --profile bob propose \"Move it to ten?\"
  choir specs
  choir approve last

A THREAD is named by its title, its id, or the beginning or end of that.
A USER by a nickname (choir name), a profile of this machine, or a user id.
A SPEC or MESSAGE by `last`, its entry's number, its id, or the beginning
or end of that; messages of one minute have ids that begin alike.

Exit codes:
  0  done
  1  failed or refused
  2  the command line, a configuration or an input is wrong
  3  no connection, or not let in

With --json, results are one JSON object, or one object a line, on stdout;
errors are {\"error\": {code, message, meaning, hint, exit_code}} on stderr.";

/// Everything that can be typed.
#[derive(Debug, Parser)]
#[command(name = "choir", version, long_version = LONG_VERSION, about = ABOUT, after_help = AFTER_HELP, max_term_width = 110)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command takes.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// The server, like ws://127.0.0.1:7400
    #[arg(
        long,
        global = true,
        env = "CHOIR_URL",
        hide_env_values = true,
        value_name = "URL",
        help_heading = "Global options"
    )]
    pub(crate) url: Option<String>,
    /// A key file in place of the profile's; the variable CHOIR_KEY takes a file, too, or the key itself
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = "Global options")]
    pub(crate) key: Option<PathBuf>,
    /// Whose key, server and names to use, where you are several on one machine
    #[arg(long, global = true, env = "CHOIR_PROFILE",
        hide_env_values = true, value_name = "NAME", default_value = crate::profile::DEFAULT_PROFILE, help_heading = "Global options")]
    pub(crate) profile: String,
    /// JSON on stdout: one object, or one a line
    #[arg(long, global = true, help_heading = "Global options")]
    pub(crate) json: bool,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a server
    #[command(after_help = SERVE_HELP)]
    Serve(Serve),
    /// Your key: who you are
    #[command(subcommand)]
    Key(KeyCommand),
    /// Give somebody a nickname, or list those that you gave
    #[command(after_help = "\
JSON: {\"names\": {\"bob\": \"ed25519:…\"}}

Examples:
  choir name ed25519:7fK…  bob
  choir name                    # the address book
  choir name --remove bob")]
    Name(Name),
    /// Choose the thread that is meant where none is named, or the server
    #[command(
        after_help = "JSON: {\"thread_id\": …, \"url\": …}\n\nExamples:\n  choir use Standup\n  choir use --server ws://127.0.0.1:7401"
    )]
    Use(Use),
    /// Make a thread, change it, and who is in it
    #[command(subcommand)]
    Thread(ThreadCommand),
    /// The threads that you are in, newest activity first
    #[command(
        after_help = "JSON: one object a line, as in control.threads (protocol Y1)\n\nExamples:\n  choir threads\n  choir threads --public"
    )]
    Threads(Threads),
    /// Who is in a thread
    #[command(after_help = "JSON: one object a line: {\"user_id\", \"name\", \"role\", \"agent\", \"joined\"}")]
    Members(InThread),
    /// Say something: published where you are a co-author, else a spec that awaits the co-authors
    #[command(
        visible_alias = "propose",
        after_help = "\
JSON: {\"thread_id\", \"id\", \"kind\": \"message_posted\" | \"spec_submitted\",
       \"status\", \"seq\", \"root\"}

Examples:
  choir post \"Good morning\"
  git diff | choir propose --content-type text/x-diff
  choir propose --json-content '{\"tool\": \"deploy\", \"to\": \"staging\"}'
  choir post --parent last \"I agree\""
    )]
    Post(Post),
    /// The specs that are open, and what has been decided on them
    #[command(
        after_help = "JSON: one object a line, as in control.specs (protocol Y5), with\n\"thread_id\", \"author_name\" and \"awaits_you\""
    )]
    Specs(InThread),
    /// Approve a spec, in the revision that you were shown
    #[command(after_help = DECIDE_HELP)]
    Approve(Decide),
    /// Deny a spec, in the revision that you were shown
    #[command(after_help = DECIDE_HELP)]
    Deny(Decide),
    /// Ask a spec's author for changes; counts neither for nor against it
    #[command(after_help = "Example:\n  choir request-changes last --reason \"name a date\"")]
    RequestChanges(Decide),
    /// Replace what your spec says; decisions on what it said before no longer count
    #[command(after_help = "Example:\n  choir revise last \"Move it to ten, from Monday?\"")]
    Revise(Revise),
    /// Take back your spec
    #[command(
        after_help = "JSON: {\"thread_id\", \"spec\", \"kind\", \"status\", \"seq\", \"root\"}\n\nExample:\n  choir withdraw last"
    )]
    Withdraw(Target),
    /// Change what your message says; everybody sees that it was changed
    #[command(after_help = "Example:\n  choir edit last \"Good morning, all\"")]
    Edit(Edit),
    /// Erase a message for good; that there was one stays visible
    #[command(after_help = "\
`last` is your own last message. An owner erases others', too, by their number
or id; `choir history` shows both.
JSON: {\"thread_id\", \"message\", \"kind\", \"status\", \"seq\", \"root\"}

Examples:
  choir redact last
  choir redact 4711")]
    Redact(Target),
    /// Follow a thread live, over lost connections
    #[command(after_help = "\
JSON: one object a line: {\"thread_id\", \"author_name\", \"entry\": …} for each
entry (protocol section 6), in their order

Examples:
  choir tail
  choir tail Standup --from 1 --json")]
    Tail(Tail),
    /// A page of what was said and done
    #[command(
        after_help = "JSON: one object a line, as `choir tail`\n\nExamples:\n  choir history --limit 100\n  choir history --before 4711"
    )]
    History(History),
    /// Read and write in one place; with Ctrl-Y and Ctrl-N for what waits for you
    #[command(after_help = "\
On a terminal: Tab goes through the specs that wait for you, Ctrl-Y approves
the one that is shown, Ctrl-N denies it. Lines that begin with / are commands:
/help, /specs, /approve [N], /deny [N] [REASON], /changes N REASON, /members,
/quit. Without a terminal, lines are read from stdin and what happens is
printed to stdout.")]
    Chat(InThread),
    /// Replay a conversation that was kept elsewhere, with a client for everybody in it
    #[command(subcommand)]
    Import(crate::import::Import),
    /// Check a whole thread, without trusting the server: every hash, signature, root, redaction and outcome
    #[command(after_help = "\
Exit code 1 where something doesn't hold, naming the entry and what is wrong.
With --receipt, a receipt of a decision is checked in its place, without any
server; it shows what is in the log, not that nothing was left out.
JSON: {\"thread_id\", \"entries\", \"root\", \"remarks\": […],
       \"failures\": [{\"seq\", \"why\"}], \"checks\": [{\"what\",
       \"state\": \"proved\" | \"partly\" | \"failed\", \"count\", \"remark\"}]}")]
    Verify(Verify),
    /// What the server has signed that a thread's log is, at this moment
    #[command(after_help = "\
The note (C2SP tlog-checkpoint) is checked and printed; keep it: a server that
ever shows another history has signed the proof of it.
JSON: {\"thread_id\", \"size\", \"root\", \"time\", \"server_key\", \"note\"}")]
    Checkpoint(InThread),
    /// Say up to where you have read
    #[command(after_help = "JSON: {\"thread_id\", \"seq\", \"unread\"}\n\nExample:\n  choir mark        # everything")]
    Mark(Mark),
    /// A log on this machine's disk
    #[command(subcommand)]
    Log(LogCommand),
    /// A completion script for your shell
    #[command(after_help = "\
Examples:
  choir completions bash > ~/.local/share/bash-completion/completions/choir
  choir completions zsh > ~/.zfunc/_choir    # a directory of your fpath
  choir completions fish > ~/.config/fish/completions/choir.fish")]
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

/// What an operator needs to know of a version, beside its number.
const LONG_VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (protocol choir.v1)");

const SERVE_HELP: &str = "\
Once it takes connections, one line says where; with --json that is
  {\"ready\": true, \"url\", \"http\", \"data\", \"server_key\"}
Over HTTP, /healthz answers while it lives, and /readyz with 200 while it can
write. On stderr stand warnings; CHOIR_LOG=info tells more, =off nothing.
SIGTERM and Ctrl-C let it finish what it received and tell its clients to
come back; then a line says what it did, as JSON {\"stopped\": true, …}.
kill -9 loses nothing that was acknowledged: start it again.

The configuration file is TOML. All of it, with its defaults:
  origins = []      # of browsers' pages, beside loopback ones on loopback
  audiences = []    # what clients dial, like \"https://choir.example\"

  [limits]
  max_message_bytes = 262144
  max_content_bytes = 65536
  max_clients = 20                # connections of one user
  max_subscriptions = 1000        # of one connection
  max_in_flight = 64              # actions of one session without answer
  max_replay = 10000              # entries; who missed more gets a snapshot
  max_actions_per_second = 20     # of one user
  max_requests_per_second = 20    # of one user

  [heartbeat]
  interval_ms = 30000
  timeout_ms = 5000

Examples:
  choir serve
  choir serve --listen 127.0.0.1:0 --data /tmp/choir --json
  choir serve --config choir.toml --listen 0.0.0.0:7400 --insecure-plaintext
  choir log check             # after an accident, before the next start";

const DECIDE_HELP: &str = "\
A decision is bound to the revision that you were shown, by `choir specs`,
`choir tail` or `choir chat`. Where the spec was revised since, it is shown
again and nothing is decided. A script says what it means by --hash.
JSON: {\"thread_id\", \"spec\", \"content_hash\", \"decision\", \"seq\", \"outcome\"}

Examples:
  choir approve last
  choir deny 4f1c0a2b --reason \"not before Monday\"
  choir approve 4f1c0a2b --hash \"$HASH\"    # content_hash of choir specs --json";

/// `choir serve`.
#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// Where to listen; port 0 takes a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7400", value_parser = parse_listen)]
    pub(crate) listen: SocketAddr,
    /// Where the log is; made where there is none. Without it: choir/log in $XDG_DATA_HOME or ~/.local/share
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) data: Option<PathBuf>,
    /// A configuration file
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) config: Option<PathBuf>,
    /// Listen without TLS beyond this machine: behind a proxy that ends TLS, or in a network that you trust
    #[arg(long)]
    pub(crate) insecure_plaintext: bool,
}

/// `choir key`.
#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// Make a key, and so a user
    #[command(
        after_help = "JSON: {\"user_id\", \"profile\", \"key_file\"}\n\nExamples:\n  choir key new\n  choir --profile bob key new"
    )]
    New {
        /// Move a key that is there already aside, and become somebody else
        #[arg(long)]
        force: bool,
    },
    /// Who you are
    #[command(after_help = "JSON: {\"user_id\", \"profile\", \"key_file\"}")]
    Show,
}

/// `choir name`.
#[derive(Debug, Args)]
pub(crate) struct Name {
    /// Whom
    #[arg(requires = "nick")]
    pub(crate) user: Option<String>,
    /// What you call them
    pub(crate) nick: Option<String>,
    /// Forget a nickname
    #[arg(long, value_name = "NICK", conflicts_with = "user")]
    pub(crate) remove: Option<String>,
}

/// `choir use`.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub(crate) struct Use {
    /// The thread
    pub(crate) thread: Option<String>,
    /// The server, from now on
    #[arg(long, value_name = "URL")]
    pub(crate) server: Option<String>,
}

/// `choir thread`.
#[derive(Debug, Subcommand)]
pub(crate) enum ThreadCommand {
    /// Make a thread, and use it from now on
    #[command(after_help = "\
JSON: {\"thread_id\", \"title\"}

Examples:
  choir thread create \"Standup\"
  choir thread create \"Notes\" --member bob --member carol:reader
  choir thread create \"Notes\" --policy majority --expires 2d
  choir thread create \"Ideas\" --public --policy any --admit-authors
  choir thread create \"Deploys\" --member deploy-bot:reader:agent")]
    Create(Create),
    /// Change a thread's settings
    #[command(after_help = "\
What you don't name stays; of the policy, too.
JSON: {\"thread_id\", \"seq\", \"root\"}

Example:
  choir thread set --policy majority --expires 2d")]
    Set(Set),
    /// A thread's settings
    Show(InThread),
    /// Invite somebody, or change their role
    #[command(after_help = "\
JSON: {\"thread_id\", \"user_id\", \"role\", \"seq\", \"root\"}

Examples:
  choir thread add bob
  choir thread add carol:reader
  choir thread add ed25519:7fK…:co_author:agent")]
    Add(Add),
    /// Take somebody out, or leave
    #[command(after_help = "Example:\n  choir thread remove bob")]
    Remove(Remove),
    /// Take up an invitation, or become a reader of a public thread
    #[command(after_help = "Example:\n  choir thread join Standup")]
    Join(Join),
}

/// `choir thread create`.
#[derive(Debug, Args)]
pub(crate) struct Create {
    /// What it is called
    pub(crate) title: String,
    /// Everybody whom the server knows may read it
    #[arg(long)]
    pub(crate) public: bool,
    /// Invite USER[:ROLE[:agent]]; roles are co_author (the default), reader and owner
    #[arg(long = "member", value_name = "USER[:ROLE[:agent]]")]
    pub(crate) members: Vec<String>,
    #[command(flatten)]
    pub(crate) rules: Rules,
    /// You are software
    #[arg(long)]
    pub(crate) agent: bool,
}

/// `choir thread set`.
#[derive(Debug, Args)]
pub(crate) struct Set {
    #[command(flatten)]
    pub(crate) thread: ThreadOption,
    /// What it is called
    #[arg(long)]
    pub(crate) title: Option<String>,
    /// Who reads
    #[arg(long, value_name = "private|public", value_parser = parse_word::<Visibility>)]
    pub(crate) visibility: Option<Visibility>,
    #[command(flatten)]
    pub(crate) rules: Rules,
}

/// By what rules a thread works.
#[derive(Debug, Args)]
pub(crate) struct Rules {
    /// How many co-authors a spec needs: unanimous, majority, any, or a number
    #[arg(long, value_name = "unanimous|majority|any|N", value_parser = parse_approval)]
    pub(crate) policy: Option<Approval>,
    /// Who sees specs and decisions: co_authors, or all readers
    #[arg(long, value_name = "co_authors|readers", value_parser = parse_word::<Review>)]
    pub(crate) review: Option<Review>,
    /// Who may propose
    #[arg(long, value_name = "members|everyone|nobody", value_parser = parse_word::<Propose>)]
    pub(crate) propose: Option<Propose>,
    /// How long a spec waits, like 30m, 12h or 7d
    #[arg(long, value_name = "SPAN", value_parser = parse_expiry)]
    pub(crate) expires: Option<u64>,
    /// Whoever's spec is approved becomes a co-author
    #[arg(long, value_name = "true|false", num_args = 0..=1, default_missing_value = "true")]
    pub(crate) admit_authors: Option<bool>,
    /// Agents' decisions count
    #[arg(long, value_name = "true|false", num_args = 0..=1, default_missing_value = "true")]
    pub(crate) agents_decide: Option<bool>,
}

/// `choir thread add`.
#[derive(Debug, Args)]
pub(crate) struct Add {
    /// Who, and as what; co_author where no role is named
    #[arg(value_name = "USER[:ROLE[:agent]]")]
    pub(crate) member: String,
    #[command(flatten)]
    pub(crate) thread: ThreadOption,
}

/// `choir thread remove`.
#[derive(Debug, Args)]
pub(crate) struct Remove {
    /// Who
    #[arg(value_name = "USER")]
    pub(crate) user: String,
    #[command(flatten)]
    pub(crate) thread: ThreadOption,
}

/// `choir thread join`.
#[derive(Debug, Args)]
pub(crate) struct Join {
    /// The thread; without it, the one in use
    #[arg(value_name = "THREAD")]
    pub(crate) thread: Option<String>,
    /// You are software
    #[arg(long)]
    pub(crate) agent: bool,
}

/// `choir threads`.
#[derive(Debug, Args)]
pub(crate) struct Threads {
    /// Public threads in place of yours
    #[arg(long)]
    pub(crate) public: bool,
}

/// A command about one thread.
#[derive(Debug, Args)]
pub(crate) struct InThread {
    /// The thread; without it, the one in use
    #[arg(value_name = "THREAD")]
    pub(crate) thread: Option<String>,
}

/// A thread beside other arguments.
#[derive(Debug, Args)]
pub(crate) struct ThreadOption {
    /// The thread; without it, the one in use
    #[arg(short, long, value_name = "THREAD")]
    pub(crate) thread: Option<String>,
}

/// `choir post`, `choir propose`.
#[derive(Debug, Args)]
pub(crate) struct Post {
    #[command(flatten)]
    pub(crate) content: Content,
    /// The message that it answers
    #[arg(long, value_name = "MESSAGE")]
    pub(crate) parent: Option<String>,
    #[command(flatten)]
    pub(crate) thread: ThreadOption,
}

/// What a message says.
#[derive(Debug, Args)]
pub(crate) struct Content {
    /// The text; without it, or with -, it is read from stdin
    #[arg(value_name = "TEXT")]
    pub(crate) text: Option<String>,
    /// TEXT is JSON, and is meant as such
    #[arg(long)]
    pub(crate) json_content: bool,
    /// What kind of text it is, like text/markdown
    #[arg(long, value_name = "MEDIA-TYPE")]
    pub(crate) content_type: Option<String>,
}

/// `choir approve`, `deny` and `request-changes`.
#[derive(Debug, Args)]
pub(crate) struct Decide {
    /// The spec
    #[arg(value_name = "SPEC")]
    pub(crate) spec: String,
    /// Why
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
    /// The content_hash of the revision that is meant, for scripts
    #[arg(long, value_name = "HASH")]
    pub(crate) hash: Option<Hash>,
    #[command(flatten)]
    pub(crate) thread: ThreadOption,
}

/// `choir revise`.
#[derive(Debug, Args)]
pub(crate) struct Revise {
    /// Your spec
    #[arg(value_name = "SPEC")]
    pub(crate) spec: String,
    #[command(flatten)]
    pub(crate) content: Content,
    #[command(flatten)]
    pub(crate) thread: ThreadOption,
}

/// `choir edit`.
#[derive(Debug, Args)]
pub(crate) struct Edit {
    /// Your message; `last` is your last one
    #[arg(value_name = "MESSAGE")]
    pub(crate) message: String,
    #[command(flatten)]
    pub(crate) content: Content,
    #[command(flatten)]
    pub(crate) thread: ThreadOption,
}

/// `choir withdraw`, `choir redact`.
#[derive(Debug, Args)]
pub(crate) struct Target {
    /// Its id, the beginning or the end of it, or `last`
    #[arg(value_name = "ID")]
    pub(crate) target: String,
    #[command(flatten)]
    pub(crate) thread: ThreadOption,
}

/// `choir tail`.
#[derive(Debug, Args)]
pub(crate) struct Tail {
    /// The thread; without it, the one in use
    #[arg(value_name = "THREAD")]
    pub(crate) thread: Option<String>,
    /// Begin with this entry: 1 for everything. Without it, with the last few messages
    #[arg(long, value_name = "SEQ")]
    pub(crate) from: Option<u64>,
    /// Messages and members only
    #[arg(long)]
    pub(crate) no_specs: bool,
}

/// `choir history`.
#[derive(Debug, Args)]
pub(crate) struct History {
    /// The thread; without it, the one in use
    #[arg(value_name = "THREAD")]
    pub(crate) thread: Option<String>,
    /// How many entries
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) limit: u64,
    /// Those before this entry; without it, the newest
    #[arg(long, value_name = "SEQ")]
    pub(crate) before: Option<u64>,
}

/// `choir mark`.
#[derive(Debug, Args)]
pub(crate) struct Mark {
    /// Up to this entry; without it, everything
    #[arg(value_name = "SEQ")]
    pub(crate) seq: Option<u64>,
    #[command(flatten)]
    pub(crate) thread: ThreadOption,
}

/// `choir verify`.
#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// The thread; without it, the one in use
    #[arg(value_name = "THREAD", conflicts_with = "receipt")]
    pub(crate) thread: Option<String>,
    /// A receipt of a decision, a file, in place of a thread
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) receipt: Option<PathBuf>,
}

/// `choir log`.
#[derive(Debug, Subcommand)]
pub(crate) enum LogCommand {
    /// Read a log from end to end, and name everything that isn't as it was written. Changes nothing
    #[command(after_help = "\
A write that a crash cut off is no damage: nothing of it was acknowledged, and
the next start cuts it. Exit code 1 where something else isn't as it was
written; it is named by file and offset.
JSON: {\"directory\", \"segments\", \"bytes\", \"batches\", \"threads\", \"entries\",
       \"erased\", \"torn\": null | {\"file\", \"offset\"},
       \"damage\": [{\"file\", \"offset\", \"what\"}]}

Examples:
  choir log check                     # the log of a plain `choir serve`
  choir log check /srv/choir --json")]
    Check {
        /// The data directory; no server may run on it. Without it, that of a plain `choir serve`
        #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
        directory: Option<PathBuf>,
    },
}

// ------------------------------------------------------------------------------------------------------------------------------------------ values

/// One of the protocol's words, as its own type reads it.
fn parse_word<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, String> {
    let value = serde_json::Value::String(text.replace('-', "_"));
    serde_json::from_value(value).map_err(|error| {
        // serde names the words that there are after the one that it got.
        let text = error.to_string();
        text.split_once(", ")
            .map_or(text.clone(), |(_, expected)| expected.to_owned())
    })
}

/// Where a server listens. Not a name: which of its addresses it means should never be open.
fn parse_listen(text: &str) -> Result<SocketAddr, String> {
    text.parse()
        .map_err(|_| "expected an address and a port, like 127.0.0.1:7400, 127.0.0.1:0 or [::1]:7400".to_owned())
}

/// A role, as members are invited with.
pub(crate) fn parse_role(text: &str) -> Result<Role, String> {
    parse_word(text)
}

pub(crate) fn parse_approval(text: &str) -> Result<Approval, String> {
    match text {
        "unanimous" => Ok(Approval::Unanimous),
        "majority" => Ok(Approval::Majority),
        "any" => Ok(Approval::Any),
        number => match number.parse() {
            Ok(k) if k >= 1 => Ok(Approval::AtLeast(k)),
            _ => Err("expected unanimous, majority, any, or a number of at least 1".to_owned()),
        },
    }
}

fn parse_expiry(text: &str) -> Result<u64, String> {
    const EXPECTED: &str = "expected a span between 1m and 90d, like 30m, 12h or 7d";
    let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let unit_ms: u64 = match unit {
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(EXPECTED.to_owned()),
    };
    let ms = digits.parse::<u64>().ok().and_then(|n| n.checked_mul(unit_ms));
    ms.filter(|ms| (MIN_EXPIRES_MS..=MAX_EXPIRES_MS).contains(ms))
        .ok_or_else(|| EXPECTED.to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    /// Every text that stands below a command's help, with the command's name.
    fn texts_below_help(command: &clap::Command) -> Vec<(String, String)> {
        let mut texts: Vec<(String, String)> = command
            .get_after_help()
            .map(|text| (command.get_name().to_owned(), text.to_string()))
            .into_iter()
            .collect();
        texts.extend(command.get_subcommands().flat_map(texts_below_help));
        texts
    }

    #[test]
    fn help_fits_a_terminal_of_80_columns() {
        for (command, text) in texts_below_help(&Cli::command()) {
            for line in text.lines() {
                assert!(line.chars().count() <= 80, "{command}: {line}");
            }
        }
    }

    #[test]
    fn the_configuration_that_help_shows_is_the_default_one() {
        let lines = SERVE_HELP.lines().skip_while(|line| !line.contains("origins ="));
        let toml: Vec<&str> = lines.take_while(|line| *line != "Examples:").map(str::trim).collect();
        let file = crate::config::File::parse(&toml.join("\n")).unwrap();
        assert_eq!(file.limits(), choir_protocol::message::Limits::default());
        assert_eq!(file.heartbeat(), choir_protocol::message::HeartbeatTimes::default());
        for key in crate::config::KEYS {
            assert!(
                toml.iter()
                    .any(|line| line.starts_with(key) || *line == format!("[{key}]")),
                "{key}"
            );
        }
    }

    #[test]
    fn where_to_listen_is_an_address_and_a_port() {
        assert_eq!(parse_listen("[::1]:7400").unwrap().port(), 7400);
        for wrong in ["localhost:7400", "7400", "127.0.0.1", "127.0.0.1:80000", ""] {
            assert!(parse_listen(wrong).unwrap_err().contains("127.0.0.1:7400"), "{wrong}");
        }
    }

    #[test]
    fn help_documents_the_exit_codes() {
        let help = Cli::command().render_long_help().to_string();
        for line in ["0  done", "1  failed", "2  the command line", "3  no connection"] {
            assert!(help.contains(line), "{line}");
        }
    }

    #[test]
    fn spans_and_policies_are_read_at_the_edge() {
        assert_eq!(parse_expiry("7d"), Ok(604_800_000));
        assert_eq!(parse_expiry("1m"), Ok(60_000));
        for wrong in ["", "7", "0m", "91d", "1y", "-1h", "99999999999999999999d"] {
            assert!(parse_expiry(wrong).is_err(), "{wrong}");
        }
        assert_eq!(parse_approval("2"), Ok(Approval::AtLeast(2)));
        assert!(parse_approval("0").is_err());
        assert_eq!(parse_word::<Review>("co-authors"), Ok(Review::CoAuthors));
        assert_eq!(
            parse_word::<Review>("all").unwrap_err(),
            "expected `co_authors` or `readers`"
        );
    }

    #[test]
    fn the_walk_through_parses() {
        for line in [
            "choir serve --listen 127.0.0.1:0 --data /tmp/x --json",
            "choir key new",
            "choir --profile bob key new",
            "choir thread create Standup --member bob --member carol:reader --policy 2 --admit-authors",
            "choir post hello",
            "choir propose -",
            "choir approve last",
            "choir deny last --reason no --json",
            "choir tail --from 1 --no-specs",
            "choir thread set --agents-decide false",
            "choir use Standup",
        ] {
            Cli::try_parse_from(line.split(' ')).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
        for line in [
            "choir",
            "choir use",
            "choir name bob",
            "choir approve",
            "choir serve --listen here",
            "choir thread create x --policy 0",
        ] {
            assert!(Cli::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }
}
