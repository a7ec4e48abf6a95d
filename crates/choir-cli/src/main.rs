//! The `choir` command: a server, and everything that a person does with one in a terminal.

mod chat;
mod cli;
mod commands;
mod config;
mod context;
mod error;
mod hello;
mod output;
mod pick;
mod profile;
mod serve;
mod show;
mod verify;

use std::process::ExitCode;

use clap::Parser;

use crate::error::Result;
use crate::output::Output;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
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

fn run(cli: cli::Cli) -> Result<()> {
    let cli::Cli { global, command } = cli;
    match command {
        cli::Command::Serve(arguments) => serve::run(&global, &arguments),
        command => commands::run(&global, command),
    }
}
