//! Whether a whole thread is what its members signed: a pure function of the pages that a server sent, which believes none of them.

mod audit;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use choir_client::{Audience, Body, Finding, Kind, Replica, Retain, Review, Role, View};
use choir_core::client::keys::KeyRing;
use choir_core::client::replica::{Applied, Viewer};
use choir_protocol::checkpoint::Checkpoint;
use choir_protocol::entry::Entry;
use choir_protocol::ids::{Cursor, Seq, ThreadId, UserId};
use choir_protocol::range::Range;
use choir_protocol::thread::Stream;

use crate::output::one_line;
use audit::Audit;

/// What was proved, what couldn't be, and what doesn't hold.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// The end of the log that was checked.
    pub(crate) head: Option<Cursor>,
    /// What was asked, and the answers.
    pub(crate) checks: Vec<Check>,
    /// What is worth knowing, and shows nothing wrong.
    pub(crate) remarks: Vec<String>,
    /// What doesn't hold, in the order of the log.
    pub(crate) problems: Vec<Problem>,
}

/// One thing that was asked.
#[derive(Debug)]
pub(crate) struct Check {
    /// What.
    pub(crate) what: &'static str,
    /// How it ended.
    pub(crate) state: State,
    /// Of how many.
    pub(crate) count: u64,
    /// What the answer means.
    pub(crate) remark: String,
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// It holds.
    Proved,
    /// It holds as far as this user may see.
    Partly,
    /// It doesn't hold.
    Failed,
}

impl State {
    /// Its word.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Proved => "proved",
            Self::Partly => "partly",
            Self::Failed => "failed",
        }
    }

    const fn of(failed: bool, partly: bool) -> Self {
        match (failed, partly) {
            (true, _) => Self::Failed,
            (false, true) => Self::Partly,
            (false, false) => Self::Proved,
        }
    }
}

/// Something that doesn't hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    /// The entry; none where it is the log as a whole.
    pub(crate) seq: Option<Seq>,
    /// What is wrong with it.
    pub(crate) why: String,
}

impl Problem {
    /// Where it is.
    pub(crate) fn place(&self) -> String {
        self.seq
            .map_or_else(|| "the log".to_owned(), |seq| format!("entry {seq}"))
    }
}

impl Report {
    /// Of a log whose pages don't fit each other, so that there is nothing to replay.
    pub(crate) fn broken(problem: Problem) -> Self {
        let remark = "the pages of the log contradict each other".to_owned();
        let check = Check {
            what: "hash tree",
            state: State::Failed,
            count: 0,
            remark,
        };
        Self {
            checks: vec![check],
            problems: vec![problem],
            ..Self::default()
        }
    }
}

/// Replays a thread from entry 1 on: hashes, signatures, what is hidden, what is erased, and how specs ended. `pages` are all of it, newest first; `signed` is
/// what the server has signed of it.
pub(crate) fn check(
    thread: ThreadId,
    me: &UserId,
    audience: &Audience,
    pages: Vec<Range>,
    signed: &Checkpoint,
) -> Report {
    let replay = Replay::of(thread, me, audience, pages);
    let audit = Audit::run(&replay.entries, replay.hidden.values().copied());
    let signed_root = Seq::new(signed.size).and_then(|size| replay.replica.root_at(size));

    let mut problems = replay.problems.clone();
    problems.extend(
        replay
            .findings
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
    let ahead = ahead(&replay.entries);
    problems.extend(ahead.iter().map(|(seq, seen)| Problem {
        seq: Some(*seq),
        why: format!("its author had seen {seen} entries, more than stand before it: the server showed two histories, or took entries out"),
    }));
    if replay.problems.is_empty() && signed_root != Some(signed.root) {
        let why = "the server has signed another root for it than its entries give".to_owned();
        problems.push(Problem {
            seq: Seq::new(signed.size),
            why,
        });
    }
    problems.sort_by_key(|problem| problem.seq);

    Report {
        head: Some(replay.replica.cursor()),
        checks: checks(&replay, &audit, signed, signed_root == Some(signed.root)),
        remarks: replay
            .findings
            .iter()
            .filter(|finding| !is_problem(finding))
            .map(|finding| one_line(&finding.to_string()))
            .collect(),
        problems,
    }
}

/// Entries whose authors had seen more than stands before them (K4), and how much: what was decided on can't lie above the decision.
fn ahead(entries: &[Entry]) -> Vec<(Seq, Seq)> {
    let seen = |entry: &Entry| {
        entry
            .proof
            .as_ref()
            .and_then(|proof| proof.seen)
            .map(|cursor| (entry.seq, cursor.seq))
    };
    entries
        .iter()
        .filter_map(seen)
        .filter(|(seq, seen)| seen >= seq)
        .collect()
}

/// A thread, replayed.
struct Replay {
    replica: Replica,
    entries: Vec<Entry>,
    hidden: BTreeMap<Seq, Stream>,
    findings: Vec<Finding>,
    problems: Vec<Problem>,
}

impl Replay {
    fn of(thread: ThreadId, me: &UserId, audience: &Audience, pages: Vec<Range>) -> Self {
        let viewer = Viewer {
            user_id: me.clone(),
            audience: audience.clone(),
            streams: None,
            // All roots, so that whatever an author says that they had seen can be compared (K4).
            retain: Retain {
                messages: usize::MAX,
                entries: usize::MAX,
            },
        };
        let mut replay = Self {
            replica: Replica::new(thread, viewer),
            entries: Vec::new(),
            hidden: BTreeMap::new(),
            findings: Vec::new(),
            problems: Vec::new(),
        };
        let mut keys = KeyRing::default();
        for page in pages.into_iter().rev() {
            replay.take(page, &mut keys);
        }
        // L8: what was hidden before a right was lost is in order. The replica judges by the end of each page, and here the end of the log counts.
        let view = replay.replica.view();
        replay.findings.retain(|finding| match finding {
            Finding::Hidden { stream, .. } => sees_whole(view, *stream),
            _ => true,
        });
        replay
    }

    fn take(&mut self, page: Range, keys: &mut KeyRing) {
        let hidden: Vec<(Seq, Stream)> = page
            .hidden
            .iter()
            .flatten()
            .map(|hidden| (hidden.0, hidden.1))
            .collect();
        let end = page.to;
        let problem = |seq, why: &str| Problem {
            seq,
            why: why.to_owned(),
        };
        match self.replica.apply_hidden(page, keys) {
            Applied::Entries { entries, findings } => {
                self.hidden.extend(hidden);
                self.entries.extend(entries);
                self.findings.extend(findings);
            }
            Applied::Ignored => {}
            Applied::Gap { from } => self
                .problems
                .push(problem(Some(from), "what stands before it is missing")),
            Applied::HiddenOutOfOrder(hidden) => {
                self.problems.push(problem(
                    hidden.first().map(|hidden| hidden.0),
                    "it is hidden, although you may see it",
                ));
            }
            Applied::Mismatch(error) => self
                .problems
                .push(problem(Some(end), &format!("of the entries up to it: {error}"))),
        }
    }

    fn count(&self, which: impl Fn(&Entry) -> bool) -> u64 {
        self.entries.iter().filter(|entry| which(entry)).count() as u64
    }

    fn found(&self, which: impl Fn(&Finding) -> bool) -> u64 {
        self.findings.iter().filter(|finding| which(finding)).count() as u64
    }
}

fn checks(replay: &Replay, audit: &Audit, signed: &Checkpoint, is_signed: bool) -> Vec<Check> {
    let forged = replay.found(|finding| matches!(finding, Finding::Forged { .. }));
    let foreign = replay.found(|finding| matches!(finding, Finding::ForeignAudience { .. }));
    let histories = replay.found(|finding| matches!(finding, Finding::TwoHistories { .. }));
    let concealed = replay.found(|finding| matches!(finding, Finding::Hidden { .. }));
    let unpermitted = replay.found(|finding| matches!(finding, Finding::Erased { .. }));
    let refused = replay.found(|finding| matches!(finding, Finding::Refused { .. }));
    let hides = |stream: &Stream| *stream != Stream::Updates;
    let blind = replay.hidden.values().any(hides);
    let counts = audit.counts();
    let check = |what, state, count, remark: String| Check {
        what,
        state,
        count,
        remark,
    };
    vec![
        check(
            "hash tree",
            State::of(!replay.problems.is_empty(), false),
            replay.replica.cursor().seq.get(),
            "entries from 1 to the head, none left out or moved".to_owned(),
        ),
        check(
            "checkpoint",
            State::of(!is_signed, false),
            signed.size,
            "entries are what the server has signed".to_owned(),
        ),
        check(
            "signatures",
            State::of(forged > 0, foreign > 0),
            replay.count(|entry| entry.proof.is_some()).saturating_sub(forged),
            if foreign > 0 {
                format!("{foreign} of them made for another server's address")
            } else {
                "each by its author's key".to_owned()
            },
        ),
        check(
            "seen by authors",
            State::of(histories > 0 || !ahead(&replay.entries).is_empty(), false),
            replay.count(|entry| entry.proof.as_ref().is_some_and(|proof| proof.seen.is_some())),
            "of these the author says what they had seen, and that stands here".to_owned(),
        ),
        check(
            "hidden entries",
            State::of(concealed > 0, !replay.hidden.is_empty()),
            replay.hidden.len() as u64,
            if replay.hidden.is_empty() {
                String::new()
            } else {
                "which you may not see: they are there, and what they say isn't shown".to_owned()
            },
        ),
        check(
            "edits, redactions",
            State::of(refused > 0, false),
            replay.count(|entry| matches!(entry.kind, Kind::MessageEdited | Kind::MessageRedacted)),
            "each by who may".to_owned(),
        ),
        check(
            "erased bodies",
            State::of(unpermitted > 0, false),
            replay.count(|entry| matches!(entry.body, Body::Erased(_))),
            "each by a redaction that permits it".to_owned(),
        ),
        check(
            "outcomes of specs",
            State::of(!audit.findings().is_empty(), blind || counts.unseen > 0),
            counts.outcomes,
            if counts.unseen > 0 {
                format!("and of {} the grounds are hidden", counts.unseen)
            } else {
                format!(
                    "each follows from the decisions ({}), the members and the policy",
                    counts.decisions
                )
            },
        ),
        check(
            "messages",
            State::of(!audit.findings().is_empty(), blind),
            counts.posted + counts.published,
            format!(
                "{} by co-authors, {} as they were approved",
                counts.posted, counts.published
            ),
        ),
    ]
}

/// Whether a stream is seen whole (S1), by the state at the end of the log.
fn sees_whole(view: &View, stream: Stream) -> bool {
    let readers_review = view
        .settings()
        .is_some_and(|settings| settings.review == Review::Readers);
    stream == Stream::Updates || readers_review || view.role().is_some_and(Role::is_co_author)
}

/// Whether it shows that something is wrong, and not only that something is worth knowing.
const fn is_problem(finding: &Finding) -> bool {
    !matches!(finding, Finding::NewKey { .. } | Finding::ForeignAudience { .. })
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
