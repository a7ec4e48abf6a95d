//! `choir-bench`: what measures Choir. Each figure is printed beside what it is compared with, from the same run, since an absolute time says little.

mod first_sync;
mod made;
mod server;
mod writers;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(about = "Measures Choir, each figure beside what it is compared with")]
struct Args {
    /// Prints one JSON object instead of a table.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// First sync of a long thread beside a short one, and the first answer after a restart over the long one.
    FirstSync(first_sync::Args),
    /// Many writers at once: fsyncs for a thousand receipts.
    Writers(writers::Args),
}

fn main() -> std::process::ExitCode {
    let args = Args::parse();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("no runtime to be had: {error}");
            return std::process::ExitCode::FAILURE;
        }
    };
    let result = match args.what {
        What::FirstSync(what) => runtime.block_on(first_sync::run(&what, args.json)),
        What::Writers(what) => runtime.block_on(writers::run(&what, args.json)),
    };
    match result {
        Ok(true) => std::process::ExitCode::SUCCESS,
        Ok(false) => std::process::ExitCode::FAILURE,
        Err(error) => {
            eprintln!("Error: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}
