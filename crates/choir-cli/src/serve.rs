//! `choir serve`: a server over the log in one directory.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use choir_log::embedded::{EmbeddedLog, Options};
use choir_server::{BindError, Config, Report, Server};
use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::{Global, Serve};
use crate::commands::{log_to_stderr, open_failure};
use crate::config::File;
use crate::error::{Failure, Kind, Result};
use crate::output::{BOLD, DIM, Output, counted};
use crate::profile;

/// Runs a server until it is told to end.
pub(crate) fn run(global: &Global, arguments: &Serve) -> Result<()> {
    let out = Output::new(global.json);
    log_to_stderr("warn", global.json);
    let file = match &arguments.config {
        Some(path) => File::read(path)?,
        None => File::default(),
    };
    let directory = match &arguments.data {
        Some(directory) => directory.clone(),
        None => profile::default_data_directory()?,
    };
    let config = Config {
        audiences: file.audiences.clone(),
        origins: file.origins.clone(),
        in_the_clear: arguments.insecure_plaintext,
        limits: file.limits(),
        heartbeat: file.heartbeat(),
        ..Config::new(arguments.listen)
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| {
            Failure::failed("io", format!("could not start: {error}")).meaning("The server didn't start.")
        })?;
    // Before the log is opened: a signal that comes while it is read must not be lost.
    let signals = runtime.block_on(async { Signals::new() })?;
    let log = Arc::new(open(&directory)?);
    let report = runtime.block_on(async {
        let server = match Server::bind(config, log.clone()).await {
            Ok(server) => server,
            Err(error) => {
                choir_log::Log::close(&*log).await;
                return Err(bind_failure(&error));
            }
        };
        announce(out, &server, &directory)?;
        Ok(server.run(signals.end(out)).await)
    })?;
    tell(out, &report)
}

/// Opens the log, showing how far it has come where that takes a while.
fn open(directory: &Path) -> Result<EmbeddedLog> {
    std::fs::create_dir_all(directory).map_err(|error| {
        Failure::file("make the data directory", directory, &error)
            .meaning("The server didn't start.")
            .hint("name a directory that you may write to: choir serve --data <DIR>")
    })?;
    let bar = ProgressBar::no_length().with_message("bringing the index up to the log");
    if let Ok(style) = ProgressStyle::with_template("{msg} {wide_bar} {bytes}/{total_bytes}") {
        bar.set_style(style);
    }
    let shown = bar.clone();
    let progress = move |done: u64, all: u64| {
        shown.set_length(all);
        shown.set_position(done);
    };
    let options = Options {
        progress: Some(Arc::new(progress)),
        ..Options::default()
    };
    let log = EmbeddedLog::open(directory, options).map_err(open_failure);
    bar.finish_and_clear();
    log
}

/// The one line that says that clients may come.
fn announce(out: Output, server: &Server, directory: &Path) -> Result<()> {
    let address = server.local_addr();
    let (url, http) = (format!("ws://{address}/v1/ws"), format!("http://{address}"));
    let shown: PathBuf = std::path::absolute(directory).unwrap_or_else(|_| directory.to_owned());
    out.either(
        || serde_json::json!({ "ready": true, "url": url, "http": http, "data": shown, "server_key": server.key() }),
        || {
            format!(
                "{BOLD}choir{BOLD:#} listens on {BOLD}{url}{BOLD:#} {DIM}{http}, data in {}{DIM:#}",
                shown.display()
            )
        },
    )
}

fn bind_failure(error: &BindError) -> Failure {
    const NOT_STARTED: &str = "The server didn't start; the log is as it was.";
    let failure = |kind, code, message: String| {
        Failure {
            kind,
            ..Failure::failed(code, message)
        }
        .meaning(NOT_STARTED)
    };
    match error {
        BindError::InTheClear { address } => {
            failure(Kind::Usage, "in_the_clear", format!("{address} isn't this machine's loopback, and this server has no TLS of its own: what is said would travel in the clear"))
                .hint("put a proxy that ends TLS before it, then: choir serve --insecure-plaintext")
        }
        BindError::NoAudience { address } => failure(Kind::Usage, "no_audience", format!("{address} isn't this machine's loopback, and nothing says under which address clients dial it"))
            .hint("put it into the configuration: audiences = [\"https://choir.example\"]"),
        BindError::Listen { address, source } if source.kind() == std::io::ErrorKind::AddrInUse => {
            failure(Kind::Failed, "port_taken", format!("another program listens on {address} already"))
                .hint("stop that one, or take another port: choir serve --listen 127.0.0.1:0 takes a free one")
        }
        BindError::Listen { address, source } => {
            failure(Kind::Failed, "io", format!("could not listen on {address}: {source}")).hint("name an address of this machine: choir serve --listen 127.0.0.1:7400")
        }
        other => failure(Kind::Failed, "io", other.to_string()).hint("check the disk, and run `choir log check` on the data directory"),
    }
}

/// The signals to end.
struct Signals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    #[cfg(unix)]
    fn new() -> Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    #[cfg(not(unix))]
    fn new() -> Result<Self> {
        Ok(Self {})
    }

    async fn signal(&mut self) {
        #[cfg(unix)]
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
        #[cfg(not(unix))]
        let _ = tokio::signal::ctrl_c().await;
    }

    /// Waits for the first signal. A second one ends the process at once: what is acknowledged is durable either way (G2).
    async fn end(mut self, out: Output) {
        self.signal().await;
        out.note("Finishing what was received; once more ends at once.");
        tokio::spawn(async move {
            self.signal().await;
            std::process::exit(i32::from(Kind::Failed.exit_code()));
        });
    }
}

/// What the server did.
fn tell(out: Output, report: &Report) -> Result<()> {
    let per_1000 = report.fsyncs_per_1000_entries();
    out.either(
        || {
            serde_json::json!({
                "stopped": true,
                "orderly": report.orderly,
                "connections": report.connections,
                "actions": report.actions,
                "receipts": report.receipts,
                "refusals": report.refusals,
                "sync_checks": { "equal": report.sync_checks_equal, "different": report.sync_checks_different },
                "entries": report.log.entries,
                "appends": report.log.appends,
                "batches": report.log.batches,
                "fsyncs": report.log.fsyncs,
                "bytes": report.log.bytes,
                "fsyncs_per_1000_entries": per_1000,
            })
        },
        || {
            let fsyncs = per_1000
                .map(|per_1000| format!(" ({per_1000:.0} for 1,000 entries)"))
                .unwrap_or_default();
            format!(
                "Stopped{}: {}, {} ({} refused), {}, {}{fsyncs}, sync checks {} equal and {} different",
                if report.orderly {
                    ""
                } else {
                    ", with clients that didn't leave in time"
                },
                counted(report.connections, "connection", "connections"),
                counted(report.actions, "action", "actions"),
                report.refusals,
                counted(report.log.entries, "entry", "entries"),
                counted(report.log.fsyncs, "fsync", "fsyncs"),
                report.sync_checks_equal,
                report.sync_checks_different,
            )
        },
    )
}
