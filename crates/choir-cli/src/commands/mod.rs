//! What the commands do, but for `serve`: each file one subject.

mod decide;
mod disk;
mod follow;
mod people;
mod proof;
mod say;
mod threads;

pub(crate) use disk::open_failure;
pub(crate) use follow::{Feed, News, entry_json};
pub(crate) use threads::{member_json, members_table};

use std::future::Future;

use choir_protocol::ids::{Id, ThreadId};
use choir_protocol::message::Receipt;
use clap::CommandFactory;
use tracing_subscriber::EnvFilter;

use crate::cli::{Cli, Command, Global, KeyCommand, LogCommand, ThreadCommand};
use crate::context::Context;
use crate::error::{Failure, Result};
use crate::import::{self, Import};

/// Runs a command.
pub(crate) fn run(global: &Global, command: Command) -> Result<()> {
    match command {
        // Needs neither profile nor server, so that a broken one doesn't stand in its way.
        Command::Completions { shell } => return completions(shell),
        Command::Log(LogCommand::Check { directory }) => {
            let directory = directory.map_or_else(crate::profile::default_data_directory, Ok)?;
            return disk::check(crate::output::Output::new(global.json), &directory);
        }
        _ => {}
    }
    log_to_stderr("off", false);
    let context = Context::new(global)?;
    match command {
        Command::Key(KeyCommand::New { force }) => people::new_key(context, force),
        Command::Key(KeyCommand::Show) => people::show_key(&context),
        Command::Name(arguments) => people::name(context, arguments),
        Command::Use(arguments) => wait(people::use_thread(context, arguments)),
        Command::Thread(command) => wait(thread(context, command)),
        Command::Threads(arguments) => wait(threads::list(context, arguments)),
        Command::Members(arguments) => wait(threads::members(context, arguments)),
        Command::Post(arguments) => wait(say::post(context, arguments)),
        Command::Revise(arguments) => wait(say::revise(context, arguments)),
        Command::Withdraw(arguments) => wait(say::withdraw(context, arguments)),
        Command::Edit(arguments) => wait(say::edit(context, arguments)),
        Command::Redact(arguments) => wait(say::redact(context, arguments)),
        Command::Specs(arguments) => wait(decide::specs(context, arguments)),
        Command::Approve(arguments) => wait(decide::decide(
            context,
            arguments,
            choir_protocol::thread::Decision::Approve,
        )),
        Command::Deny(arguments) => wait(decide::decide(
            context,
            arguments,
            choir_protocol::thread::Decision::Deny,
        )),
        Command::RequestChanges(arguments) => wait(decide::decide(
            context,
            arguments,
            choir_protocol::thread::Decision::RequestChanges,
        )),
        Command::Tail(arguments) => wait(follow::tail(context, arguments)),
        Command::History(arguments) => wait(follow::history(context, arguments)),
        Command::Import(Import::Irc(arguments)) => wait_with_all_cores(import::irc(context, arguments)),
        Command::Mark(arguments) => wait(follow::mark(context, arguments)),
        Command::Chat(arguments) => wait(crate::chat::run(context, arguments)),
        Command::Verify(arguments) => wait(proof::verify(context, arguments)),
        Command::Checkpoint(arguments) => wait(proof::signed_note(context, arguments)),
        Command::Serve(_) | Command::Completions { .. } | Command::Log(_) => Ok(()),
    }
}

async fn thread(context: Context, command: ThreadCommand) -> Result<()> {
    match command {
        ThreadCommand::Create(arguments) => threads::create(context, arguments).await,
        ThreadCommand::Set(arguments) => threads::set(context, arguments).await,
        ThreadCommand::Show(arguments) => threads::show(context, arguments).await,
        ThreadCommand::Add(arguments) => threads::add(context, arguments).await,
        ThreadCommand::Remove(arguments) => threads::remove(context, arguments).await,
        ThreadCommand::Join(arguments) => threads::join(context, arguments).await,
    }
}

/// Runs what talks to a server. One thread is enough for one person.
fn wait(work: impl Future<Output = Result<()>>) -> Result<()> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed("io", format!("could not start: {error}")))?
        .block_on(work)
}

/// The same for a crowd.
fn wait_with_all_cores(work: impl Future<Output = Result<()>>) -> Result<()> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed("io", format!("could not start: {error}")))?
        .block_on(work)
}

/// Sends what the libraries log to stderr, as `CHOIR_LOG` filters it.
pub(crate) fn log_to_stderr(default: &str, json: bool) {
    let filter = EnvFilter::try_from_env("CHOIR_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    // That there is one already is the only failure; then that one logs.
    let _ = if json {
        subscriber.json().try_init()
    } else {
        subscriber.with_ansi(false).try_init()
    };
}

fn completions(shell: clap_complete::Shell) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "choir", &mut script);
    std::io::Write::write_all(&mut std::io::stdout().lock(), &script)?;
    Ok(())
}

/// What every action answers with `--json`: where its entry stands.
fn receipt_json(thread: ThreadId, receipt: &Receipt) -> serde_json::Map<String, serde_json::Value> {
    let mut object = serde_json::Map::new();
    object.insert("thread_id".into(), thread.to_string().into());
    object.insert("status".into(), crate::show::word(&receipt.status).into());
    object.insert("seq".into(), receipt.seq.get().into());
    object.insert("kind".into(), receipt.kind.as_str().into());
    object.insert("root".into(), receipt.root.to_string().into());
    object
}

/// The same, with the id of what the action was about.
fn receipt_with(thread: ThreadId, receipt: &Receipt, name: &str, id: Id) -> serde_json::Value {
    let mut object = receipt_json(thread, receipt);
    object.insert(name.into(), id.to_string().into());
    object.into()
}
