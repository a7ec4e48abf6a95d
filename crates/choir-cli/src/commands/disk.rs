//! A log on this machine's disk.

use std::path::Path;

use choir_log::OpenError;
use choir_log::embedded;

use crate::error::{Failure, Kind, Result};
use crate::output::{GOOD, Output, WAITING, counted};

/// `choir log check`.
pub(crate) fn check(out: Output, directory: &Path) -> Result<()> {
    if !directory.is_dir() {
        return Err(Failure::usage(format!("{} is no directory", directory.display()))
            .hint("name the directory that `choir serve --data` got"));
    }
    let report = with_spinner("reading the log", || embedded::check(directory)).map_err(open_failure)?;
    if out.is_json() {
        let damage: Vec<serde_json::Value> = report
            .damage
            .iter()
            .map(|place| serde_json::json!({ "file": place.file, "offset": place.offset, "what": place.what }))
            .collect();
        out.object(&serde_json::json!({
            "directory": directory,
            "segments": report.segments,
            "bytes": report.bytes,
            "batches": report.batches,
            "threads": report.threads,
            "entries": report.entries,
            "erased": report.erased,
            "torn": report.torn.as_ref().map(|(file, offset)| serde_json::json!({ "file": file, "offset": offset })),
            "damage": damage,
        }))?;
    } else {
        out.line(format!(
            "{} of {} in {}, {} in {}; {} erased",
            counted(report.entries, "entry", "entries"),
            counted(report.threads, "thread", "threads"),
            counted(report.batches, "batch", "batches"),
            counted(report.bytes, "byte", "bytes"),
            counted(u64::from(report.segments), "segment", "segments"),
            counted(report.erased, "body", "bodies"),
        ))?;
        if let Some((file, offset)) = &report.torn {
            out.line(format!(
                "{WAITING}Torn{WAITING:#} at {offset} of {}: the last write was cut off. Nothing behind it was acknowledged; the next start cuts it.",
                file.display()
            ))?;
        }
        for place in &report.damage {
            out.line(format!(
                "damaged at {} of {}: {}",
                place.offset,
                place.file.display(),
                place.what
            ))?;
        }
    }
    if report.is_sound() {
        if !out.is_json() {
            out.line(format!(
                "{GOOD}Everything that was acknowledged is as it was written.{GOOD:#}"
            ))?;
        }
        return Ok(());
    }
    Err(Failure::failed(
        "damaged",
        format!(
            "the log in {} is damaged in {}",
            directory.display(),
            counted(report.damage.len() as u64, "place", "places")
        ),
    )
    .meaning("What is damaged is never served; everything else is as it was written. Nothing was changed.")
    .hint("restore the named files from a backup"))
}

/// Shows on a terminal that something is going on.
fn with_spinner<T>(what: &'static str, work: impl FnOnce() -> T) -> T {
    let spinner = indicatif::ProgressBar::new_spinner().with_message(what);
    spinner.enable_steady_tick(std::time::Duration::from_millis(120));
    let result = work();
    spinner.finish_and_clear();
    result
}

/// Why a log can't be opened, with the way out on a line of its own.
pub(crate) fn open_failure(error: OpenError) -> Failure {
    const UNCHANGED: &str = "Nothing was changed.";
    match &error {
        OpenError::Locked { directory } => Failure::failed(
            "locked",
            format!("the log in {} is open in another process", directory.display()),
        )
        .meaning(UNCHANGED)
        .hint("a server runs on it already: stop that one, or choose another directory with --data"),
        OpenError::Newer {
            directory,
            found,
            known,
        } => Failure::failed(
            "newer",
            format!(
                "the log in {} has format {found}, and this version of choir knows formats up to {known}",
                directory.display()
            ),
        )
        .meaning(UNCHANGED)
        .hint("use the version of choir that wrote it, or a newer one"),
        OpenError::NotALog { file, what } => Failure {
            kind: Kind::Usage,
            ..Failure::failed("not_a_log", format!("{} {what}", file.display()))
        }
        .meaning(UNCHANGED)
        .hint("name a directory that holds a log, or an empty one to begin a log in"),
        OpenError::Corrupt { file, offset, what } => Failure::failed(
            "damaged",
            format!("the log is damaged at offset {offset} of {}: {what}", file.display()),
        )
        .meaning("Nothing was changed. A crash can't have done this; what was acknowledged may be lost.")
        .hint("copy the directory, run `choir log check` on it, and restore the file from a backup"),
        OpenError::Io { .. } => Failure::failed("io", error.to_string())
            .meaning("Nothing was changed.")
            .hint("check the directory's permissions, and that the disk has room and works"),
        OpenError::Index { reason } => Failure::failed(
            "index",
            format!("the index could not be brought up to the log: {reason}"),
        )
        .meaning("The log itself is not affected; the index is rebuilt from it.")
        .hint("check the disk, then start again"),
    }
}
