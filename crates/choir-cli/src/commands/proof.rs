//! Proofs: a whole thread checked without trusting the server, and the server's signed word of it.

use std::collections::BTreeMap;

use choir_client::{Audience, Body, Finding, Kind, Replica, Retain, Walk};
use choir_core::client::keys::KeyRing;
use choir_core::client::replica::{Applied, Viewer};
use choir_protocol::action::CreateThread;
use choir_protocol::checkpoint::{self, Checkpoint};
use choir_protocol::entry::Entry;
use choir_protocol::ids::{Cursor, Seq, ThreadId};
use choir_protocol::range::Range;
use choir_protocol::thread::Stream;

use crate::audit::Audit;
use crate::cli::InThread;
use crate::context::{Context, PAGE, Session};
use crate::error::{Failure, Result};
use crate::output::{BAD, BOLD, DIM, GOOD, WAITING, date_time, one_line, table};
use crate::show::read;

/// `choir verify`.
pub(crate) async fn verify(context: Context, arguments: InThread) -> Result<()> {
    let session = context.connect().await?;
    let thread = session.thread(arguments.thread.as_deref()).await?;
    let report = match fetch(&session, thread).await {
        Ok(pages) => check(&session, thread, pages),
        Err(Stop::Other(failure)) => return Err(failure),
        Err(Stop::Broken(problem)) => Report::broken(problem),
    };
    print(&session, thread, &report)?;
    session.close().await;
    match report.problems.as_slice() {
        [] => Ok(()),
        [first, ..] => {
            let place = first
                .seq
                .map_or_else(|| "the log".to_owned(), |seq| format!("entry {seq}"));
            Err(Failure::failed("not_verified", format!("{} of {thread} doesn't hold: {}", place, first.why))
                .meaning("What the server shows of this thread isn't what its members signed, or isn't all of it.")
                .hint("keep this output and a checkpoint (choir checkpoint), and ask the server's operator"))
        }
    }
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

/// Something that doesn't hold.
#[derive(Debug)]
struct Problem {
    seq: Option<Seq>,
    why: String,
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

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Proved,
    /// As far as this user may see.
    Partly,
    Failed,
}

impl State {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Proved => "proved",
            Self::Partly => "partly",
            Self::Failed => "failed",
        }
    }
}

/// One line of the report.
#[derive(Debug)]
struct Check {
    what: &'static str,
    state: State,
    count: u64,
    remark: String,
}

/// What was proved, and what couldn't be.
#[derive(Debug, Default)]
struct Report {
    head: Option<Cursor>,
    checks: Vec<Check>,
    remarks: Vec<String>,
    problems: Vec<Problem>,
}

impl Report {
    fn broken(problem: Problem) -> Self {
        let check = Check {
            what: "hash tree",
            state: State::Failed,
            count: 0,
            remark: "the pages of the log contradict each other".to_owned(),
        };
        Self {
            checks: vec![check],
            problems: vec![problem],
            ..Self::default()
        }
    }
}

/// Replays a thread from entry 1 on: hashes, signatures, what is hidden, what is erased, and how specs ended.
fn check(session: &Session, thread: ThreadId, pages: Vec<Range>) -> Report {
    let viewer = Viewer {
        user_id: session.me.clone(),
        audience: session.audience().clone(),
        streams: None,
        // All roots, so that whatever an author says that they had seen can be compared (K4).
        retain: Retain {
            messages: usize::MAX,
            entries: usize::MAX,
        },
    };
    let mut replica = Replica::new(thread, viewer);
    let mut keys = KeyRing::default();
    let mut entries: Vec<Entry> = Vec::new();
    let mut hidden: BTreeMap<Seq, Stream> = BTreeMap::new();
    let mut findings: Vec<Finding> = Vec::new();
    let mut problems: Vec<Problem> = Vec::new();
    for page in pages.into_iter().rev() {
        hidden.extend(
            page.hidden
                .iter()
                .flatten()
                .map(|hidden| (hidden.0, hidden.1)),
        );
        match replica.apply_hidden(page, &mut keys) {
            Applied::Entries {
                entries: applied,
                findings: found,
            } => {
                entries.extend(applied);
                findings.extend(found);
            }
            Applied::Ignored => {}
            Applied::Gap { from } => problems.push(Problem {
                seq: Some(from),
                why: "something before it is missing".to_owned(),
            }),
            Applied::HiddenOutOfOrder(_) => problems.push(Problem {
                seq: None,
                why: "something is hidden that you may see".to_owned(),
            }),
            Applied::Mismatch(error) => problems.push(Problem {
                seq: None,
                why: error.to_string(),
            }),
        }
    }
    let tree_failed = !problems.is_empty();
    let audit = Audit::run(&entries, hidden.values().copied());
    let mut report = Report {
        head: Some(replica.cursor()),
        ..Report::default()
    };
    let counted = count(&findings);
    report.remarks = findings
        .iter()
        .filter(|finding| !is_problem(finding))
        .map(|finding| one_line(&finding.to_string()))
        .collect();
    problems.extend(
        findings
            .iter()
            .filter(|finding| is_problem(finding))
            .map(|finding| Problem {
                seq: Some(seq_of(finding)),
                why: one_line(&finding.to_string()),
            }),
    );
    problems.extend(audit.findings().iter().map(|finding| Problem {
        seq: Some(finding.seq),
        why: finding.why.clone(),
    }));
    problems.sort_by_key(|problem| problem.seq);

    let state = |failed: bool, partly: bool| {
        if failed {
            State::Failed
        } else if partly {
            State::Partly
        } else {
            State::Proved
        }
    };
    let signed = entries
        .iter()
        .filter(|entry| entry.proof.is_some() && entry.kind != Kind::SpecResolved)
        .count() as u64;
    let erased = entries
        .iter()
        .filter(|entry| matches!(entry.body, Body::Erased(_)))
        .count() as u64;
    let edits = entries
        .iter()
        .filter(|entry| matches!(entry.kind, Kind::MessageEdited | Kind::MessageRedacted))
        .count() as u64;
    let counts = audit.counts();
    let head = replica.cursor().seq.get();
    report.checks = vec![
        Check {
            what: "hash tree",
            state: state(tree_failed, false),
            count: head,
            remark: "every entry from 1 to the head is in it, in order".to_owned(),
        },
        Check {
            what: "signatures",
            state: state(counted.forged > 0, counted.foreign > 0),
            count: signed.saturating_sub(counted.forged),
            remark: if counted.foreign > 0 {
                format!("{} were made for another server's address", counted.foreign)
            } else {
                "each by its author's key".to_owned()
            },
        },
        Check {
            what: "one history",
            state: state(counted.two_histories > 0, false),
            count: entries
                .iter()
                .filter(|entry| {
                    entry
                        .proof
                        .as_ref()
                        .is_some_and(|proof| proof.seen.is_some())
                })
                .count() as u64,
            remark: "what authors say that they had seen is what stands here".to_owned(),
        },
        Check {
            what: "hidden entries",
            state: state(counted.hidden > 0, !hidden.is_empty()),
            count: hidden.len() as u64,
            remark: if hidden.is_empty() {
                "none".to_owned()
            } else {
                "specs and decisions that you may not see: they are there, and what they say can't be shown".to_owned()
            },
        },
        Check {
            what: "erased bodies",
            state: state(counted.erased > 0, false),
            count: erased,
            remark: "each by a redaction that was permitted".to_owned(),
        },
        Check {
            what: "edits, redactions",
            state: state(counted.refused > 0, false),
            count: edits,
            remark: "each by who may".to_owned(),
        },
        Check {
            what: "outcomes of specs",
            state: state(
                !audit.findings().is_empty(),
                counts.unseen > 0 || hidden.values().any(|stream| *stream != Stream::Updates),
            ),
            count: counts.outcomes,
            remark: if counts.unseen > 0 {
                format!("of {} the grounds can't be seen", counts.unseen)
            } else {
                format!(
                    "each follows from {} decisions, members and policy",
                    counts.decisions
                )
            },
        },
        Check {
            what: "messages",
            state: state(false, false),
            count: counts.posted + counts.published,
            remark: format!(
                "{} by co-authors, {} as approved",
                counts.posted, counts.published
            ),
        },
    ];
    report.problems = problems;
    report
}

#[derive(Debug, Default)]
struct Counted {
    forged: u64,
    foreign: u64,
    two_histories: u64,
    hidden: u64,
    erased: u64,
    refused: u64,
}

fn count(findings: &[Finding]) -> Counted {
    let mut counted = Counted::default();
    for finding in findings {
        match finding {
            Finding::Forged { .. } => counted.forged += 1,
            Finding::ForeignAudience { .. } => counted.foreign += 1,
            Finding::TwoHistories { .. } => counted.two_histories += 1,
            Finding::Hidden { .. } => counted.hidden += 1,
            Finding::Erased { .. } => counted.erased += 1,
            Finding::Refused { .. } => counted.refused += 1,
            _ => {}
        }
    }
    counted
}

/// Whether it shows that something is wrong, and not only that something is worth knowing.
const fn is_problem(finding: &Finding) -> bool {
    !matches!(
        finding,
        Finding::NewKey { .. } | Finding::ForeignAudience { .. }
    )
}

const fn seq_of(finding: &Finding) -> Seq {
    match finding {
        Finding::NewKey { seq, .. }
        | Finding::ForeignAudience { seq, .. }
        | Finding::Forged { seq, .. }
        | Finding::Refused { seq, .. }
        | Finding::Erased { seq, .. }
        | Finding::Hidden { seq, .. }
        | Finding::TwoHistories { seq, .. } => *seq,
        _ => Seq::ZERO,
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
    session
        .out()
        .line(table(["", "CHECK", "COUNT", ""], rows))?;
    for remark in &report.remarks {
        session
            .out()
            .line(format!("{WAITING}note{WAITING:#} {remark}"))?;
    }
    for problem in &report.problems {
        let place = problem
            .seq
            .map_or_else(|| "the log".to_owned(), |seq| format!("entry {seq}"));
        session
            .out()
            .line(format!("{BAD}{place}{BAD:#}: {}", problem.why))?;
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
    let note = session.client.checkpoint(thread).await?.note;
    let key = session.server_key()?;
    let audience = thread_audience(&session, thread).await?;
    let origin = checkpoint::origin(audience.as_str(), &thread.to_string());
    let said = Checkpoint::verify(&note, &origin, &key).map_err(|error| {
        Failure::failed(
            "not_verified",
            format!("the server's note isn't what it should be: {error}"),
        )
        .meaning("It proves nothing.")
        .hint("ask the server's operator")
    })?;
    // The log that is shown must be the log that is signed.
    let page = session
        .history(thread, Seq::saturating(said.size).next(), 1)
        .await?;
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
            let at = date_time(choir_protocol::ids::Timestamp::saturating(said.time_ms));
            format!("{note}{DIM}Signed at {at} UTC: {BOLD}{}{BOLD:#}{DIM} entries. Keep it to hold the server to it.{DIM:#}", said.size)
        },
    )?;
    session.close().await;
    Ok(())
}

/// The audience of a thread: its creator's, which stands in entry 1.
async fn thread_audience(session: &Session, thread: ThreadId) -> Result<Audience> {
    let page = session.history(thread, Seq::ZERO.next().next(), 1).await?;
    let created = page.entries.first().and_then(read::<CreateThread>);
    created
        .map(|created| created.audience)
        .ok_or_else(|| Failure::failed("internal", "the server didn't send entry 1 of the thread"))
}
