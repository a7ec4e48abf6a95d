//! A chat without terminal, socket or clock: what a person does and what happens go in, what is to be shown and done comes out.
//!
//! A decision is always on a revision that stood on the screen, and long enough to be read: what arrives in the moment of a key press is shown, not decided.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use choir_protocol::entry::Entry as LogEntry;
use choir_protocol::hash::Hash;
use choir_protocol::ids::{Id, UserId};
use choir_protocol::thread::{Decision, OpenSpec};

use crate::output::{BOLD, DIM, WAITING, content_text, preview, set_in, short};
use crate::show::{Names, Renderer, styled};

/// How long a revision must have been on the screen before a key decides on it.
const READ_MS: u64 = 800;

/// What `/help` says.
pub(crate) const HELP: &str = "\
Type to say something; what isn't yours to publish becomes a spec.
  /specs                 what is open, with its numbers
  /approve [N]           also Ctrl-Y: the spec that the prompt shows
  /deny [N] [REASON]     also Ctrl-N
  /changes N REASON      ask its author for changes
  /members               who is here
  /quit                  also Ctrl-D
Tab goes to the next spec that waits for you. A line that begins with // is said with one /.";

/// What a person did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Input {
    /// Entered a line.
    Line(String),
    /// Pressed the key for a decision on the spec that the prompt shows.
    Key(Decision),
    /// Pressed Tab.
    Next,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Show this.
    Show(String),
    /// Say this.
    Post(String),
    /// Decide.
    Decide {
        /// On this spec.
        spec: Id,
        /// In this revision, which was shown.
        content_hash: Hash,
        /// So.
        decision: Decision,
        /// Because.
        reason: Option<String>,
    },
    /// Show the members.
    Members,
    /// Keep that these revisions were shown.
    Shown(Vec<(Id, Hash)>),
    /// The end.
    Quit,
}

/// A chat.
#[derive(Debug)]
pub(crate) struct Model<'a, N> {
    names: &'a N,
    me: UserId,
    renderer: Renderer<'a, N>,
    /// The open specs in the order of submission.
    open: Vec<OpenSpec>,
    /// Those that wait for this person.
    waiting: Vec<Id>,
    /// Numbers that stay, so that none is typed for another spec than was read.
    numbers: BTreeMap<Id, u64>,
    /// Which revision of each spec was shown, and when.
    shown: BTreeMap<Id, (Hash, u64)>,
    selected: Option<Id>,
    /// When the prompt went on to another spec by itself; none where a person chose the one that it shows.
    moved: Option<u64>,
}

impl<'a, N: Names> Model<'a, N> {
    /// An empty one.
    pub(crate) const fn new(names: &'a N, me: UserId) -> Self {
        Self {
            names,
            me,
            renderer: Renderer::new(names, true),
            open: Vec::new(),
            waiting: Vec::new(),
            numbers: BTreeMap::new(),
            shown: BTreeMap::new(),
            selected: None,
            moved: None,
        }
    }

    /// Entries came.
    pub(crate) fn entries(&mut self, now_ms: u64, entries: &[LogEntry]) -> Vec<Effect> {
        let mut effects: Vec<Effect> = entries
            .iter()
            .filter_map(|entry| self.renderer.lines(entry))
            .map(Effect::Show)
            .collect();
        let shown = self.renderer.take_shown();
        if !shown.is_empty() {
            for (spec, hash) in &shown {
                self.shown.insert(*spec, (*hash, now_ms));
            }
            effects.push(Effect::Shown(shown));
        }
        effects
    }

    /// These specs are open now; `decides` where this person's decisions count. New ones get a number, and are shown where they weren't.
    pub(crate) fn open(&mut self, now_ms: u64, open: Vec<OpenSpec>, decides: bool) -> Vec<Effect> {
        let mut new = Vec::new();
        for spec in &open {
            let next = self.numbers.len() as u64 + 1;
            if let Entry::Vacant(free) = self.numbers.entry(spec.spec) {
                free.insert(next);
                new.push(spec.clone());
            }
        }
        let undecided = |spec: &&OpenSpec| spec.decisions.iter().all(|row| row.user_id != self.me);
        self.waiting = if decides {
            open.iter().filter(undecided).map(|spec| spec.spec).collect()
        } else {
            Vec::new()
        };
        self.open = open;
        if self.selected.is_none_or(|selected| !self.waiting.contains(&selected)) {
            self.selected = self.waiting.first().copied();
            self.moved = Some(now_ms);
        }
        new.iter().flat_map(|spec| self.announce(now_ms, spec)).collect()
    }

    fn announce(&mut self, now_ms: u64, spec: &OpenSpec) -> Vec<Effect> {
        let number = self.number(spec.spec);
        let mut effects = if self
            .shown
            .get(&spec.spec)
            .is_some_and(|(hash, _)| *hash == spec.content_hash)
        {
            Vec::new()
        } else {
            self.show(now_ms, spec)
        };
        if self.waiting.contains(&spec.spec) {
            effects.push(note(&format!(
                "[{number}] waits for you: /approve {number} or /deny {number}"
            )));
        }
        effects
    }

    /// What stands before what is typed, or, where there is little room, the least of it: which spec a key decides on is always to be seen.
    pub(crate) fn prompt(&self, brief: bool) -> String {
        let Some(spec) = self.selected.and_then(|id| self.spec(id)) else {
            return "> ".to_owned();
        };
        if brief {
            return format!("{WAITING}[{}]{WAITING:#} > ", self.number(spec.spec));
        }
        let more = match self.waiting.len() {
            0 | 1 => String::new(),
            n => format!(" | Tab: {} more", n - 1),
        };
        format!(
            "{WAITING}[{} {}{WAITING}: {} | ^Y ^N{more}]{WAITING:#} > ",
            self.number(spec.spec),
            styled(self.names, &spec.author),
            preview(&content_of(spec), 24),
        )
    }

    /// A person did something.
    pub(crate) fn input(&mut self, now_ms: u64, input: Input) -> Vec<Effect> {
        match input {
            Input::Line(line) => self.line(now_ms, &line),
            Input::Key(decision) => self.key(now_ms, decision),
            Input::Next => self.next(now_ms),
        }
    }

    /// Decides on what the prompt shows, unless that changed in the moment of the key press: then the key was meant for the spec before it.
    fn key(&mut self, now_ms: u64, decision: Decision) -> Vec<Effect> {
        let Some(spec) = self.selected else {
            return vec![note("nothing waits for you")];
        };
        if self.moved.is_some_and(|at| now_ms.saturating_sub(at) < READ_MS) {
            let mut effects = self
                .spec(spec)
                .cloned()
                .map_or_else(Vec::new, |spec| self.show(now_ms, &spec));
            effects.push(note("the prompt has just gone on to this one; decide again"));
            return effects;
        }
        self.decide(now_ms, spec, decision, None, READ_MS)
    }

    fn next(&mut self, now_ms: u64) -> Vec<Effect> {
        let place = self
            .selected
            .and_then(|selected| self.waiting.iter().position(|id| *id == selected));
        let next = place.map_or(0, |place| (place + 1) % self.waiting.len().max(1));
        self.selected = self.waiting.get(next).copied();
        self.moved = None;
        match self.selected.and_then(|id| self.spec(id)).cloned() {
            Some(spec) => self.show(now_ms, &spec),
            None => vec![note("nothing waits for you")],
        }
    }

    fn line(&mut self, now_ms: u64, line: &str) -> Vec<Effect> {
        let text = line.trim();
        if text.is_empty() {
            return Vec::new();
        }
        let Some(command) = text.strip_prefix('/') else {
            return vec![Effect::Post(line.trim_end().to_owned())];
        };
        if command.starts_with('/') {
            return vec![Effect::Post(command.to_owned())];
        }
        let (name, rest) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
        let rest = rest.trim();
        match name {
            "help" => vec![Effect::Show(HELP.to_owned())],
            "quit" | "exit" => vec![Effect::Quit],
            "members" => vec![Effect::Members],
            "specs" => self.list(now_ms),
            "approve" => self.decide_by_number(now_ms, Decision::Approve, rest),
            "deny" => self.decide_by_number(now_ms, Decision::Deny, rest),
            "changes" => self.decide_by_number(now_ms, Decision::RequestChanges, rest),
            _ => vec![note(&format!(
                "there is no /{}; /help lists what there is",
                preview(name, 20)
            ))],
        }
    }

    fn decide_by_number(&mut self, now_ms: u64, decision: Decision, rest: &str) -> Vec<Effect> {
        let (first, reason) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        let (spec, reason) = match first.parse::<u64>() {
            Ok(number) => match self.open.iter().find(|spec| self.number(spec.spec) == number) {
                Some(spec) => (spec.spec, reason.trim()),
                None => {
                    return vec![note(&format!(
                        "no open spec has the number {number}; /specs lists them"
                    ))];
                }
            },
            Err(_) => match self.selected {
                Some(spec) => (spec, rest),
                None => return vec![note("nothing waits for you")],
            },
        };
        let reason = (!reason.is_empty()).then(|| reason.to_owned());
        if decision == Decision::RequestChanges && reason.is_none() {
            return vec![note("say what should be changed: /changes N REASON")];
        }
        // A typed number was read before.
        self.decide(now_ms, spec, decision, reason, 0)
    }

    fn decide(
        &mut self,
        now_ms: u64,
        spec: Id,
        decision: Decision,
        reason: Option<String>,
        read_ms: u64,
    ) -> Vec<Effect> {
        let Some(open) = self.spec(spec).cloned() else {
            return vec![note("that spec is no longer open")];
        };
        let was_read = self
            .shown
            .get(&spec)
            .is_some_and(|(hash, at)| *hash == open.content_hash && now_ms.saturating_sub(*at) >= read_ms);
        if was_read {
            return vec![Effect::Decide {
                spec,
                content_hash: open.content_hash,
                decision,
                reason,
            }];
        }
        let mut effects = self.show(now_ms, &open);
        effects.push(note("this is what it says now; decide again"));
        effects
    }

    fn show(&mut self, now_ms: u64, spec: &OpenSpec) -> Vec<Effect> {
        // What is shown again was read since its first time.
        let at = match self.shown.get(&spec.spec) {
            Some((hash, at)) if *hash == spec.content_hash => *at,
            _ => now_ms,
        };
        self.shown.insert(spec.spec, (spec.content_hash, at));
        let text = format!(
            "{WAITING}?{WAITING:#} [{}] {} proposes {BOLD}{}{BOLD:#}: {}",
            self.number(spec.spec),
            styled(self.names, &spec.author),
            short(&spec.spec),
            set_in(&content_of(spec), "      "),
        );
        vec![Effect::Show(text), Effect::Shown(vec![(spec.spec, spec.content_hash)])]
    }

    fn list(&mut self, now_ms: u64) -> Vec<Effect> {
        if self.open.is_empty() {
            return vec![note("no spec is open")];
        }
        self.open
            .clone()
            .iter()
            .flat_map(|spec| self.show(now_ms, spec))
            .collect()
    }

    fn spec(&self, id: Id) -> Option<&OpenSpec> {
        self.open.iter().find(|spec| spec.spec == id)
    }

    fn number(&self, id: Id) -> u64 {
        self.numbers.get(&id).copied().unwrap_or_default()
    }
}

/// What an open spec says, as text.
pub(crate) fn content_of(spec: &OpenSpec) -> String {
    spec.body
        .as_object()
        .and_then(|body| body.get("content"))
        .map(content_text)
        .unwrap_or_default()
}

fn note(text: &str) -> Effect {
    Effect::Show(format!("{DIM}{text}{DIM:#}"))
}

#[cfg(test)]
mod tests {
    use choir_protocol::ids::{Seq, Timestamp};
    use choir_protocol::json;
    use choir_protocol::key::SecretKey;
    use choir_protocol::thread::DecisionRow;

    use super::*;

    struct Plain;

    impl Names for Plain {
        fn name(&self, user: &UserId) -> String {
            crate::output::short_user(user)
        }
    }

    fn user(seed: u8) -> UserId {
        UserId::of_key(&SecretKey::from_seed(&[seed; 32]).public())
    }

    fn spec(n: u8, text: &str) -> OpenSpec {
        OpenSpec {
            spec: Id::v7(1, [n; 10]),
            author: user(2),
            seq: Seq::saturating(u64::from(n)),
            content_hash: Hash::of(text.as_bytes()),
            body: json::parse(&format!("{{\"content\":\"{text}\"}}")).unwrap(),
            submitted_at: Timestamp::ZERO,
            expires_at: Timestamp::ZERO,
            decisions: Vec::new(),
        }
    }

    fn decided(effects: &[Effect]) -> Option<(Id, Hash, Decision)> {
        effects.iter().find_map(|effect| match effect {
            Effect::Decide {
                spec,
                content_hash,
                decision,
                ..
            } => Some((*spec, *content_hash, *decision)),
            _ => None,
        })
    }

    #[test]
    fn a_key_decides_only_what_stood_on_the_screen() {
        let mut chat = Model::new(&Plain, user(1));
        let first = chat.open(0, vec![spec(1, "ten?")], true);
        assert!(
            first
                .iter()
                .any(|effect| matches!(effect, Effect::Show(text) if text.contains("ten?")))
        );
        assert_eq!(
            decided(&chat.input(READ_MS - 1, Input::Key(Decision::Approve))),
            None,
            "nobody reads that fast"
        );
        let second = chat.input(READ_MS, Input::Key(Decision::Approve));
        assert_eq!(
            decided(&second),
            Some((spec(1, "").spec, Hash::of(b"ten?"), Decision::Approve))
        );
    }

    #[test]
    fn a_revision_that_arrives_with_the_key_press_is_not_decided() {
        let mut chat = Model::new(&Plain, user(1));
        chat.open(0, vec![spec(1, "ten?")], true);
        chat.open(10_000, vec![spec(1, "nine?")], true);
        let effects = chat.input(10_000, Input::Key(Decision::Approve));
        assert_eq!(decided(&effects), None);
        assert!(
            effects
                .iter()
                .any(|effect| matches!(effect, Effect::Show(text) if text.contains("nine?")))
        );
        assert_eq!(
            decided(&chat.input(20_000, Input::Key(Decision::Deny))).unwrap().1,
            Hash::of(b"nine?")
        );
    }

    #[test]
    fn a_key_that_was_meant_for_the_spec_before_does_not_decide_the_next() {
        let mut chat = Model::new(&Plain, user(1));
        chat.open(0, vec![spec(1, "one"), spec(2, "two")], true);
        assert!(chat.prompt(false).contains("one"));
        // Somebody else decides the first one, and the prompt goes on.
        chat.open(10_000, vec![spec(2, "two")], true);
        let effects = chat.input(10_001, Input::Key(Decision::Approve));
        assert_eq!(decided(&effects), None);
        assert!(
            effects
                .iter()
                .any(|effect| matches!(effect, Effect::Show(text) if text.contains("two")))
        );
        let later = chat.input(10_000 + READ_MS, Input::Key(Decision::Approve));
        assert_eq!(decided(&later).unwrap().0, spec(2, "").spec);
    }

    #[test]
    fn whom_tab_chose_is_decided_at_once() {
        let mut chat = Model::new(&Plain, user(1));
        chat.open(0, vec![spec(1, "one"), spec(2, "two")], true);
        chat.input(5_000, Input::Next);
        let effects = chat.input(5_001, Input::Key(Decision::Deny));
        assert_eq!(decided(&effects).unwrap().0, spec(2, "").spec);
    }

    #[test]
    fn a_brief_prompt_still_says_which_spec_a_key_decides_on() {
        let mut chat = Model::new(&Plain, user(1));
        assert_eq!(chat.prompt(true), "> ");
        chat.open(0, vec![spec(1, "one"), spec(2, "two")], true);
        chat.input(0, Input::Next);
        let prompt = anstream::adapter::strip_str(&chat.prompt(true)).to_string();
        assert_eq!(prompt, "[2] > ");
    }

    #[test]
    fn numbers_stay_with_their_specs() {
        let mut chat = Model::new(&Plain, user(1));
        chat.open(0, vec![spec(1, "one"), spec(2, "two")], true);
        chat.input(0, Input::Line("/specs".into()));
        chat.open(0, vec![spec(2, "two"), spec(3, "three")], true);
        assert_eq!(
            decided(&chat.input(1, Input::Line("/approve 2".into()))).unwrap().0,
            spec(2, "").spec
        );
        assert_eq!(
            decided(&chat.input(1, Input::Line("/approve 1".into()))),
            None,
            "it is gone"
        );
    }

    #[test]
    fn tab_goes_through_what_waits() {
        let mut chat = Model::new(&Plain, user(1));
        let mut mine = spec(2, "decided already");
        mine.decisions.push(DecisionRow {
            user_id: user(1),
            decision: Decision::Approve,
            reason: None,
            seq: Seq::ZERO,
        });
        chat.open(0, vec![spec(1, "one"), mine, spec(3, "three")], true);
        assert!(chat.prompt(false).contains("one"));
        chat.input(0, Input::Next);
        assert!(chat.prompt(false).contains("three"));
        chat.input(0, Input::Next);
        assert!(chat.prompt(false).contains("one"));
        chat.open(0, vec![spec(3, "three")], true);
        assert!(chat.prompt(false).contains("three"));
        chat.open(0, vec![spec(3, "three")], false);
        assert_eq!(chat.prompt(false), "> ");
        assert!(!chat.input(0, Input::Next).is_empty());
    }

    #[test]
    fn lines_are_said_or_obeyed() {
        let mut chat = Model::new(&Plain, user(1));
        chat.open(0, vec![spec(1, "one")], true);
        chat.input(0, Input::Line("/specs".into()));
        let mut line = |text: &str| chat.input(5_000, Input::Line(text.into()));
        assert_eq!(line("hello  "), [Effect::Post("hello".into())]);
        assert_eq!(line("//quit"), [Effect::Post("/quit".into())]);
        assert_eq!(line("/quit"), [Effect::Quit]);
        assert_eq!(line("/members"), [Effect::Members]);
        assert_eq!(line("   "), []);
        assert!(matches!(line("/nonsense").as_slice(), [Effect::Show(_)]));
        assert!(
            matches!(line("/changes 1").as_slice(), [Effect::Show(_)]),
            "a reason is required"
        );
        let [Effect::Decide { decision, reason, .. }] = &line("/deny 1 not before Monday")[..] else {
            panic!()
        };
        assert_eq!(
            (*decision, reason.as_deref()),
            (Decision::Deny, Some("not before Monday"))
        );
        let [Effect::Decide { reason, .. }] = &line("/deny too early")[..] else {
            panic!()
        };
        assert_eq!(reason.as_deref(), Some("too early"));
    }

    #[test]
    fn others_texts_are_escaped_in_the_prompt() {
        let mut chat = Model::new(&Plain, user(1));
        chat.open(0, vec![spec(1, "\\u001b[2J")], true);
        assert!(chat.prompt(false).contains("\\u{1b}[2J"));
    }
}
