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

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

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
    let names_no_command = matches!(
        error.kind(),
        ErrorKind::MissingSubcommand | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    );
    if error.use_stderr() && wants_json {
        let message = if names_no_command {
            "no command is named".to_owned()
        } else {
            in_one_line(&error.render().to_string())
        };
        let failure = Failure::usage(message).hint("choir --help");
        Output::new(true).failure(&failure);
        return ExitCode::from(failure.kind.exit_code());
    }
    // That nobody reads it is no failure.
    if names_no_command
        && let Err(help) = cli::Cli::try_parse_from(std::env::args_os().chain([OsString::from("--help")]))
    {
        let _ = write!(anstream::stderr(), "{}", help.render().ansi());
    } else {
        let _ = error.print();
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(1))
}

/// What clap says is wrong, without the usage and the advice that follow.
fn in_one_line(text: &str) -> String {
    let first = text
        .trim_start_matches("error: ")
        .split("\n\n")
        .next()
        .unwrap_or_default();
    first.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn run(cli: cli::Cli) -> Result<()> {
    let cli::Cli { global, command } = cli;
    match command {
        cli::Command::Serve(arguments) => serve::run(&global, &arguments),
        command => commands::run(&global, command),
    }
}
