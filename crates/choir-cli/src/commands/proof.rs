//! Proofs: a whole thread checked without trusting the server, and the server's signed word of it.

use std::path::Path;

use choir_client::{Audience, Outcome, Walk};
use choir_core::receipt::{self, DecisionReceipt};
use choir_protocol::action::CreateThread;
use choir_protocol::checkpoint::{self, Checkpoint};
use choir_protocol::ids::{Seq, ThreadId, Timestamp};
use choir_protocol::range::Range;

use crate::cli::{InThread, Verify};
use crate::context::{Context, PAGE, Session};
use crate::error::{Failure, Result};
use crate::output::{BAD, BOLD, DIM, GOOD, WAITING, date_time, one_line, prose_table};
use crate::show::read;
use crate::verify::{Problem, Report, check};

/// `choir verify`.
pub(crate) async fn verify(context: Context, arguments: Verify) -> Result<()> {
    if let Some(path) = &arguments.receipt {
        return verify_receipt(&context, path);
    }
    let session = context.connect().await?;
    let thread = session.thread(arguments.thread.as_deref()).await?;
    // Before the log, which can only have grown then.
    let (_, signed) = checkpoint_of(&session, thread).await?;
    let report = match fetch(&session, thread).await {
        Ok(pages) => check(thread, &session.me, session.audience(), pages, &signed),
        Err(Stop::Other(failure)) => return Err(failure),
        Err(Stop::Broken(problem)) => Report::broken(problem),
    };
    print(&session, thread, &report)?;
    session.close().await;
    match report.problems.as_slice() {
        [] => Ok(()),
        [first, ..] => Err(Failure::failed(
            "not_verified",
            format!("{} of {thread} doesn't hold: {}", first.place(), first.why),
        )
        .meaning("What the server shows of this thread isn't what its members signed, or isn't all of it.")
        .hint("keep this output and a checkpoint (choir checkpoint), and ask the server's operator")),
    }
}

/// `choir verify --receipt`: a receipt of a decision (K7), without any server. The key is the pinned one, where this profile knows the server.
fn verify_receipt(context: &Context, path: &Path) -> Result<()> {
    let text = std::fs::read_to_string(path).map_err(|error| Failure::file("read the receipt", path, &error))?;
    let audience = DecisionReceipt::parse(&text).ok().map(|receipt| receipt.audience);
    let pinned = audience
        .as_ref()
        .and_then(|audience| context.profile.server(audience).key);
    let verdict = receipt::verify(&text, pinned.as_ref());
    let fails: Vec<String> = verdict
        .fails
        .iter()
        .map(|failure| one_line(&failure.to_string()))
        .collect();
    let outcome = verdict.outcome.map_or("open", Outcome::as_str);
    context.out.either(
        || serde_json::json!({ "outcome": outcome, "fails": fails, "erased": verdict.erased, "key_is_pinned": pinned.is_some() }),
        || {
            let mut lines = vec![format!("{BOLD}{outcome}{BOLD:#}")];
            lines.extend(fails.iter().map(|failure| format!("{BAD}fails{BAD:#} {failure}")));
            lines.extend(verdict.erased.iter().map(|seq| format!("{DIM}the body of entry {seq} was erased, which is no failure{DIM:#}")));
            if pinned.is_none() {
                lines.push(format!("{WAITING}note{WAITING:#} the server's key is the receipt's own: this profile was never there"));
            }
            lines.join("\n")
        },
    )?;
    if verdict.is_valid() {
        return Ok(());
    }
    Err(Failure::failed(
        "not_verified",
        format!("the receipt in {} doesn't hold: {}", path.display(), fails.join("; ")),
    )
    .meaning("It doesn't show that the spec was decided so.")
    .hint("ask who gave it to you for another, or the server for the thread itself: choir verify <THREAD>"))
}

/// Why a walk ended before entry 1.
enum Stop {
    /// The pages contradict each other.
    Broken(Problem),
    /// Something else.
    Other(Failure),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Other(failure)
    }
}

/// All of a thread, newest page first, each page checked against the later ones: the tree holds together from entry 1 to the head.
async fn fetch(session: &Session, thread: ThreadId) -> std::result::Result<Vec<Range>, Stop> {
    let mut pages: Vec<Range> = Vec::new();
    let mut walk: Option<Walk> = None;
    let bar = indicatif::ProgressBar::no_length().with_message("reading back to entry 1");
    loop {
        let before = walk.map_or(Seq::saturating(u64::MAX), |walk: Walk| walk.at().seq.next());
        let page = session.history(thread, before, PAGE).await?;
        let current = walk.get_or_insert_with(|| {
            bar.set_length(page.to.get());
            Walk::new(thread, page.end())
        });
        let at = current.at().seq;
        if let Err(error) = current.verify(&page) {
            return Err(Stop::Broken(Problem {
                seq: Some(at),
                why: error.to_string(),
            }));
        }
        let reached = current.at().seq;
        bar.set_position(page.to.get().saturating_sub(reached.get()));
        pages.push(page);
        if reached == Seq::ZERO {
            bar.finish_and_clear();
            return Ok(pages);
        }
        if reached >= at {
            return Err(Stop::Broken(Problem {
                seq: Some(at),
                why: "the server sent an empty page for what stands before it".to_owned(),
            }));
        }
    }
}

fn print(session: &Session, thread: ThreadId, report: &Report) -> Result<()> {
    if session.out().is_json() {
        let checks: Vec<serde_json::Value> = report
            .checks
            .iter()
            .map(|check| serde_json::json!({ "what": check.what, "state": check.state.as_str(), "count": check.count, "remark": check.remark }))
            .collect();
        let failures: Vec<serde_json::Value> = report
            .problems
            .iter()
            .map(|problem| serde_json::json!({ "seq": problem.seq, "why": problem.why }))
            .collect();
        return session.out().object(&serde_json::json!({
            "thread_id": thread,
            "entries": report.head.map(|head| head.seq),
            "root": report.head.map(|head| head.root),
            "checks": checks,
            "remarks": report.remarks,
            "failures": failures,
        }));
    }
    let rows = report.checks.iter().map(|check| {
        [
            check.state.as_str().to_owned(),
            check.what.to_owned(),
            check.count.to_string(),
            check.remark.clone(),
        ]
    });
    session.out().line(prose_table(["", "CHECK", "COUNT", ""], rows))?;
    for remark in &report.remarks {
        session.out().line(format!("{WAITING}note{WAITING:#} {remark}"))?;
    }
    for problem in &report.problems {
        session
            .out()
            .line(format!("{BAD}{}{BAD:#}: {}", problem.place(), problem.why))?;
    }
    if let (true, Some(head)) = (report.problems.is_empty(), report.head) {
        session.out().line(format!(
            "{GOOD}All of it holds{GOOD:#}: {} entries, root {DIM}{}{DIM:#}",
            head.seq, head.root
        ))?;
    }
    Ok(())
}

/// `choir checkpoint`.
pub(crate) async fn signed_note(context: Context, arguments: InThread) -> Result<()> {
    let session = context.connect().await?;
    let thread = session.thread(arguments.thread.as_deref()).await?;
    let key = session.server_key()?;
    let (note, said) = checkpoint_of(&session, thread).await?;
    // The log that is shown must be the log that is signed.
    let page = session.history(thread, Seq::saturating(said.size).next(), 1).await?;
    if page.to.get() == said.size && page.root != said.root {
        return Err(Failure::failed(
            "not_verified",
            format!(
                "the note names another root at entry {} than the log that the server shows",
                said.size
            ),
        )
        .meaning("The server has signed one history and shows another.")
        .hint("keep the note and the output of `choir verify`, and ask the server's operator"));
    }
    session.out().either(
        || serde_json::json!({ "thread_id": thread, "size": said.size, "root": said.root, "time": said.time_ms, "server_key": key, "note": note }),
        || {
            let at = date_time(Timestamp::saturating(said.time_ms));
            format!("{note}{DIM}Signed at {at} UTC: {BOLD}{}{BOLD:#}{DIM} entries. Keep it to hold the server to it.{DIM:#}", said.size)
        },
    )?;
    session.close().await;
    Ok(())
}

/// The server's word of a thread, once it is sure that it is the server's.
async fn checkpoint_of(session: &Session, thread: ThreadId) -> Result<(String, Checkpoint)> {
    let note = session.client.checkpoint(thread).await?.note;
    let audience = thread_audience(session, thread).await?;
    let origin = checkpoint::origin(audience.as_str(), &thread.to_string());
    let said = Checkpoint::verify(&note, &origin, &session.server_key()?).map_err(|error| {
        Failure::failed(
            "not_verified",
            format!("the server's checkpoint isn't what it should be: {error}"),
        )
        .meaning("It proves nothing.")
        .hint("ask the server's operator")
    })?;
    Ok((note, said))
}

/// The audience of a thread: its creator's, which stands in entry 1.
async fn thread_audience(session: &Session, thread: ThreadId) -> Result<Audience> {
    let page = session.history(thread, Seq::ZERO.next().next(), 1).await?;
    let created = page.entries.first().and_then(read::<CreateThread>);
    created
        .map(|created| created.audience)
        .ok_or_else(|| Failure::failed("internal", "the server didn't send entry 1 of the thread"))
}
