//! The `choir` command: a server, and everything that a person does with one in a terminal.

mod chat;
mod cli;
mod commands;
mod config;
mod context;
mod error;
mod hello;
mod import;
mod output;
mod pick;
mod profile;
mod serve;
mod show;
mod verify;

use std::process::ExitCode;

use clap::Parser;

use crate::error::{Failure, Result};
use crate::output::Output;

fn main() -> ExitCode {
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return told_by_clap(&error),
    };
    let out = Output::new(cli.global.json);
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if failure.kind != error::Kind::Quiet {
                out.failure(&failure);
            }
            ExitCode::from(failure.kind.exit_code())
        }
    }
}

/// Help and versions are results; what is wrong with a command line is a failure like any other, in the form that was asked for.
fn told_by_clap(error: &clap::Error) -> ExitCode {
    let wants_json = std::env::args_os().any(|argument| argument == "--json");
    if !error.use_stderr() || !wants_json {
        // That nobody reads it is no failure.
        let _ = error.print();
        return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(1));
    }
    let text = error.render().to_string();
    let failure = Failure::usage(text.trim_start_matches("error: ").trim_end()).hint("choir --help");
    Output::new(true).failure(&failure);
    ExitCode::from(failure.kind.exit_code())
}

fn run(cli: cli::Cli) -> Result<()> {
    let cli::Cli { global, command } = cli;
    match command {
        cli::Command::Serve(arguments) => serve::run(&global, &arguments),
        command => commands::run(&global, command),
    }
}
