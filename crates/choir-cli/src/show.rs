//! Entries of a log as lines for people.

use std::collections::BTreeMap;

use choir_protocol::action::{
    CreateThread, EditMessage, Join, NewMember, ProcessApproval, RedactMessage, RemoveMember, ReviseSpec,
    SubmitMessage, UpdateThread, WithdrawSpec,
};
use choir_protocol::canonical::Canonical;
use choir_protocol::de::from_value;
use choir_protocol::entry::{Body, Entry, Kind};
use choir_protocol::hash::Hash;
use choir_protocol::ids::{Id, UserId};
use choir_protocol::json::Value;
use choir_protocol::thread::{Approval, Decision, OpenSpec, Outcome, Policy, Stream};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::output::{
    BAD, BOLD, DIM, GOOD, WAITING, clock, content_text, date_time, one_line, preview, set_in, short, short_user, span,
    style_of,
};
use crate::profile::Profile;

/// How much of a text stands in a line that only mentions it.
const PREVIEW: usize = 40;

/// What others are called.
pub(crate) trait Names {
    /// What this user is called.
    fn name(&self, user: &UserId) -> String;
}

impl Names for Profile {
    fn name(&self, user: &UserId) -> String {
        self.name_of(user).map_or_else(|| short_user(user), one_line)
    }
}

/// A user in their colour.
pub(crate) fn styled(names: &impl Names, user: &UserId) -> String {
    let style = style_of(user);
    format!("{style}{}{style:#}", names.name(user))
}

/// Turns entries into lines, one after the other. It remembers the day, so that dates stand where they change, and what specs said, so that decisions can be read.
#[derive(Debug)]
pub(crate) struct Renderer<'a, N> {
    names: &'a N,
    /// Whether specs and decisions are shown.
    specs: bool,
    day: Option<String>,
    said: BTreeMap<Id, String>,
    shown: Vec<(Id, Hash)>,
}

impl<'a, N: Names> Renderer<'a, N> {
    /// A renderer that knows others by these names.
    pub(crate) const fn new(names: &'a N, specs: bool) -> Self {
        Self {
            names,
            specs,
            day: None,
            said: BTreeMap::new(),
            shown: Vec::new(),
        }
    }

    /// The revisions that were shown in full since this was asked last.
    pub(crate) fn take_shown(&mut self) -> Vec<(Id, Hash)> {
        std::mem::take(&mut self.shown)
    }

    /// Whether an entry of this stream is shown.
    pub(crate) const fn shows(&self, stream: Stream) -> bool {
        self.specs || matches!(stream, Stream::Updates)
    }

    /// The lines of one entry; none where it isn't to be shown.
    pub(crate) fn lines(&mut self, entry: &Entry) -> Option<String> {
        if !self.shows(entry.stream) {
            return None;
        }
        let text = self.text(entry).unwrap_or_else(|| {
            format!(
                "{DIM}{} of {} can't be read{DIM:#}",
                one_line(entry.kind.as_str()),
                self.names.name(&entry.author)
            )
        });
        let line = format!("{DIM}{} {:>4}{DIM:#}  {text}", clock(entry.timestamp), entry.seq.get());
        let day = date_time(entry.timestamp)
            .split(' ')
            .next()
            .unwrap_or_default()
            .to_owned();
        if self.day.as_ref() == Some(&day) {
            return Some(line);
        }
        let head = format!("{DIM}{day} (UTC){DIM:#}\n{line}");
        self.day = Some(day);
        Some(head)
    }

    fn text(&mut self, entry: &Entry) -> Option<String> {
        let who = styled(self.names, &entry.author);
        if let Body::Erased(by) = entry.body {
            return Some(match entry.kind {
                Kind::MessagePosted => format!("{who}: {DIM}(erased by entry {by}){DIM:#}"),
                _ => format!("{who}{DIM}: {} (erased by entry {by}){DIM:#}", erased_text(&entry.kind)),
            });
        }
        Some(match &entry.kind {
            Kind::ThreadCreated => {
                let CreateThread { title, members, .. } = read(entry)?;
                let invited: Vec<String> = members
                    .unwrap_or_default()
                    .iter()
                    .map(|member| styled(self.names, &member.user_id))
                    .collect();
                let with = if invited.is_empty() {
                    String::new()
                } else {
                    format!(" and invited {}", invited.join(", "))
                };
                format!("{who} made the thread {BOLD}{}{BOLD:#}{with}", one_line(&title))
            }
            Kind::MessagePosted => {
                let Posted { content, parent } = read(entry)?;
                let reply = parent
                    .map(|parent| format!("{DIM}(to {}){DIM:#} ", short(&parent)))
                    .unwrap_or_default();
                format!("{who}: {reply}{}", set_in(&content_text(&content), INDENT))
            }
            Kind::MessageEdited => {
                let EditMessage { message, content, .. } = read(entry)?;
                format!(
                    "{who} edited {}: {}",
                    short(&message),
                    set_in(&content_text(&content), INDENT)
                )
            }
            Kind::MessageRedacted => {
                let RedactMessage { message } = read(entry)?;
                format!("{who} erased {}", short(&message))
            }
            Kind::ThreadUpdated => format!("{who} {}", settings_text(&read(entry)?)),
            Kind::MemberAdded => {
                let NewMember { user_id, role, agent } = read(entry)?;
                let agent = if agent == Some(true) { ", an agent" } else { "" };
                let whom = styled(self.names, &user_id);
                if entry.author.is_choir() {
                    format!("{whom} is now a {}{agent}", role.as_str())
                } else {
                    format!("{who} invited {whom} as {}{agent}", role.as_str())
                }
            }
            Kind::MemberJoined => {
                let Join { agent } = read(entry)?;
                format!("{who} joined{}", if agent == Some(true) { " as an agent" } else { "" })
            }
            Kind::MemberRemoved => {
                let RemoveMember { user_id } = read(entry)?;
                if user_id == entry.author {
                    format!("{who} left")
                } else {
                    format!("{who} removed {}", styled(self.names, &user_id))
                }
            }
            Kind::SpecSubmitted => {
                let SubmitMessage { content, .. } = read(entry)?;
                self.proposal(entry, entry.id, "proposes", &who, &content)
            }
            Kind::SpecRevised => {
                let ReviseSpec { spec, content, .. } = read(entry)?;
                self.proposal(entry, spec, "revises", &who, &content)
            }
            Kind::SpecWithdrawn => {
                let WithdrawSpec { spec } = read(entry)?;
                format!("{DIM}-{DIM:#} {who} withdrew {}", self.spec(spec))
            }
            Kind::SpecResolved => {
                let Resolved { spec, outcome } = read(entry)?;
                format!("{} {}", outcome_text(outcome), self.spec(spec))
            }
            Kind::ApprovalGiven => {
                let ProcessApproval {
                    spec, decision, reason, ..
                } = read(entry)?;
                let why = reason
                    .map(|reason| format!(" – {}", set_in(&reason, INDENT)))
                    .unwrap_or_default();
                format!("{who} {} {}{why}", decision_text(decision), self.spec(spec))
            }
            Kind::Other(kind) => format!("{DIM}{who}{DIM}: {} (of a later version){DIM:#}", one_line(kind)),
        })
    }

    fn proposal(&mut self, entry: &Entry, spec: Id, verb: &str, who: &str, content: &Value) -> String {
        let text = content_text(content);
        self.said.insert(spec, preview(&text, PREVIEW));
        if let Some(hash) = entry.content_hash {
            self.shown.push((spec, hash));
        }
        format!(
            "{WAITING}?{WAITING:#} {who} {verb} {BOLD}{}{BOLD:#}: {}",
            short(&spec),
            set_in(&text, INDENT)
        )
    }

    fn spec(&self, spec: Id) -> String {
        match self.said.get(&spec) {
            Some(said) => format!("{BOLD}{}{BOLD:#} {DIM}{said}{DIM:#}", short(&spec)),
            None => format!("{BOLD}{}{BOLD:#}", short(&spec)),
        }
    }
}

/// Where further lines of a text begin: below its first.
const INDENT: &str = "                 ";

/// What an entry was whose body is erased.
fn erased_text(kind: &Kind) -> &str {
    match kind {
        Kind::MessageEdited => "an edit",
        Kind::SpecSubmitted => "a proposal",
        Kind::SpecRevised => "a revision",
        other => other.as_str(),
    }
}

fn decision_text(decision: Decision) -> String {
    match decision {
        Decision::Approve => format!("{GOOD}approves{GOOD:#}"),
        Decision::Deny => format!("{BAD}denies{BAD:#}"),
        Decision::RequestChanges => format!("{WAITING}asks for changes to{WAITING:#}"),
    }
}

/// How a spec ended, as the beginning of a line.
pub(crate) fn outcome_text(outcome: Outcome) -> String {
    match outcome {
        Outcome::Approved => format!("{GOOD}= approved{GOOD:#}"),
        Outcome::Denied => format!("{BAD}= denied{BAD:#}"),
        Outcome::Expired => format!("{DIM}= expired{DIM:#}"),
        Outcome::AuthorLeft => format!("{DIM}= its author left{DIM:#}"),
    }
}

fn settings_text(update: &UpdateThread) -> String {
    let mut changes = Vec::new();
    if let Some(title) = &update.title {
        changes.push(format!("named the thread {BOLD}{}{BOLD:#}", one_line(title)));
    }
    if let Some(visibility) = update.visibility {
        changes.push(format!("made it {}", word(&visibility)));
    }
    if let Some(review) = update.review {
        changes.push(format!("shows specs and decisions to {}", word(&review)));
    }
    if let Some(propose) = update.propose {
        changes.push(format!("lets {} propose", word(&propose)));
    }
    if let Some(policy) = &update.policy {
        changes.push(format!("set the policy to {}", policy_text(policy)));
    }
    changes.join(", ")
}

/// A policy, in words.
pub(crate) fn policy_text(policy: &Policy) -> String {
    let approval = match policy.approval {
        Approval::Unanimous => "unanimous".to_owned(),
        Approval::Majority => "majority".to_owned(),
        Approval::Any => "any".to_owned(),
        Approval::AtLeast(k) => format!("at least {k}"),
    };
    let mut text = format!("{approval}, expires after {}", span(policy.expires_ms));
    if policy.admit_authors {
        text.push_str(", admits authors");
    }
    if policy.agents_decide {
        text.push_str(", agents decide");
    }
    text
}

/// One of the protocol's words.
pub(crate) fn word(value: &impl serde::Serialize) -> String {
    serde_json::to_value(value)
        .ok()
        .and_then(|value| value.as_str().map(str::to_owned))
        .unwrap_or_default()
}

/// Whether a spec's content is what decisions on it are bound to. Lists and snapshots are the server's word, which a decision must not rest on.
pub(crate) fn is_what_it_says(spec: &OpenSpec) -> bool {
    Canonical::of(&spec.body).hash() == spec.content_hash
}

/// What an entry says.
pub(crate) fn read<T: DeserializeOwned>(entry: &Entry) -> Option<T> {
    from_value(&entry.body_value()?).ok()
}

#[derive(Deserialize)]
struct Posted {
    content: Value,
    #[serde(default)]
    parent: Option<Id>,
}

/// Body of `spec_resolved` (L1).
#[derive(Deserialize)]
pub(crate) struct Resolved {
    /// Which spec.
    pub(crate) spec: Id,
    /// How it ended.
    pub(crate) outcome: Outcome,
}

#[cfg(test)]
mod tests {
    use choir_protocol::ids::{Seq, Timestamp};
    use choir_protocol::json;
    use choir_protocol::key::SecretKey;

    use super::*;

    struct Short;

    impl Names for Short {
        fn name(&self, user: &UserId) -> String {
            short_user(user)
        }
    }

    fn entry(kind: Kind, body: &str) -> Entry {
        let body = Canonical::of(&json::parse(body).unwrap());
        Entry {
            seq: Seq::saturating(7),
            id: Id::v7(1, [7; 10]),
            stream: kind.stream().unwrap(),
            kind,
            author: UserId::of_key(&SecretKey::from_seed(&[1; 32]).public()),
            timestamp: Timestamp::saturating(1_764_000_000_000),
            content_hash: Some(body.hash()),
            body: Body::Present(body),
            proof: None,
        }
    }

    fn plain(lines: Option<String>) -> String {
        anstream::adapter::strip_str(&lines.unwrap_or_default()).to_string()
    }

    #[test]
    fn entries_are_lines_and_days_stand_once() {
        let mut renderer = Renderer::new(&Short, true);
        let salt = "AAAAAAAAAAAAAAAAAAAAAA";
        let message = entry(
            Kind::MessagePosted,
            &format!(r#"{{"content":"one\ntwo","salt":"{salt}"}}"#),
        );
        let first = plain(renderer.lines(&message));
        assert!(first.starts_with("2025-11-24 (UTC)\n16:00:00    7  "), "{first}");
        assert!(first.ends_with(": one\n                 two"), "{first}");
        assert!(!plain(renderer.lines(&message)).contains("(UTC)"));
        let spec = entry(
            Kind::SpecSubmitted,
            &format!(r#"{{"content":{{"tool":"deploy"}},"salt":"{salt}"}}"#),
        );
        assert!(plain(renderer.lines(&spec)).contains(r#"proposes 07070707: {"tool":"deploy"}"#));
        assert_eq!(renderer.take_shown(), [(spec.id, spec.content_hash.unwrap())]);
        let denied = entry(
            Kind::SpecResolved,
            &format!(r#"{{"spec":"{}","outcome":"denied"}}"#, spec.id),
        );
        assert!(plain(renderer.lines(&denied)).contains("= denied 07070707 {\"tool\":\"deploy\"}"));
        let odd = entry(Kind::ApprovalGiven, r#"{"decision":"maybe"}"#);
        assert!(
            plain(renderer.lines(&odd)).contains("approval_given of"),
            "what can't be read is shown as such"
        );
    }

    #[test]
    fn what_is_erased_is_said_in_words() {
        let mut erased = entry(Kind::MessageEdited, "{}");
        erased.body = Body::Erased(Seq::saturating(9));
        let mut renderer = Renderer::new(&Short, true);
        let lines = plain(renderer.lines(&erased));
        assert!(lines.ends_with(": an edit (erased by entry 9)"), "{lines}");
    }

    #[test]
    fn specs_are_left_out_where_nobody_wants_them() {
        let mut renderer = Renderer::new(&Short, false);
        assert_eq!(renderer.lines(&entry(Kind::SpecSubmitted, "{}")), None);
        assert!(renderer.lines(&entry(Kind::MemberJoined, "{}")).is_some());
    }

    #[test]
    fn a_spec_must_be_what_its_hash_says() {
        let body = json::parse(r#"{"content":"pay Bob 10"}"#).unwrap();
        let mut spec = OpenSpec {
            spec: Id::v7(1, [1; 10]),
            author: UserId::of_key(&SecretKey::from_seed(&[1; 32]).public()),
            seq: Seq::ZERO,
            content_hash: Canonical::of(&body).hash(),
            body,
            submitted_at: Timestamp::ZERO,
            expires_at: Timestamp::ZERO,
            decisions: Vec::new(),
        };
        assert!(is_what_it_says(&spec));
        spec.body = json::parse(r#"{"content":"pay Mallory 10"}"#).unwrap();
        assert!(!is_what_it_says(&spec));
    }
}
