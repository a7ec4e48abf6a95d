//! An IRC log as people keep it: `[hh:mm] <nick> text`, `[hh:mm]  * nick text`, and `=== …` for joins, parts and changes of name. Beside it, an annotation
//! file may say which line answers which.

use std::collections::BTreeMap;

/// What somebody said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Said {
    /// The line of the file, counted from 0 as annotations do.
    pub(super) line: usize,
    /// Minutes since midnight, as the log has it.
    pub(super) minute: u32,
    /// Who.
    pub(super) nick: String,
    /// What: an action (`* nick waves`) as `/me waves`.
    pub(super) text: String,
}

/// A log, read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Log {
    /// What was said, in order.
    pub(super) said: Vec<Said>,
    /// How many lines say something else: joins, parts, changes of name.
    pub(super) passed_over: usize,
    /// Lines that are none of these, counted from 1 as editors do.
    pub(super) unreadable: Vec<usize>,
}

impl Log {
    /// Reads a log. What can't be read is listed, not guessed at.
    pub(super) fn read(text: &str) -> Self {
        let mut log = Self::default();
        for (line, content) in text.lines().enumerate() {
            if content.starts_with("===") || content.trim().is_empty() {
                log.passed_over += 1;
                continue;
            }
            match said(line, content) {
                Some(said) => log.said.push(said),
                None => log.unreadable.push(line + 1),
            }
        }
        log
    }

    /// Everybody who says something, in the order of their first words.
    pub(super) fn speakers(&self) -> Vec<&str> {
        let mut known = BTreeMap::new();
        for said in &self.said {
            let next = known.len();
            known.entry(said.nick.as_str()).or_insert(next);
        }
        let mut speakers: Vec<(usize, &str)> = known.into_iter().map(|(nick, first)| (first, nick)).collect();
        speakers.sort_unstable();
        speakers.into_iter().map(|(_, nick)| nick).collect()
    }
}

fn said(line: usize, content: &str) -> Option<Said> {
    let rest = content.strip_prefix('[')?;
    let (time, rest) = rest.split_once(']')?;
    let (hours, minutes) = time.split_once(':')?;
    let minute = hours.parse::<u32>().ok()? * 60 + minutes.parse::<u32>().ok()?;
    let rest = rest.strip_prefix(' ')?;
    let (nick, text) = match (rest.strip_prefix('<'), rest.trim_start().strip_prefix("* ")) {
        (Some(rest), _) => {
            let (nick, text) = rest.split_once('>')?;
            (nick, text.strip_prefix(' ').unwrap_or(text).to_owned())
        }
        (None, Some(rest)) => {
            let (nick, text) = rest.split_once(' ').unwrap_or((rest, ""));
            (nick, format!("/me {text}"))
        }
        (None, None) => return None,
    };
    (!nick.is_empty()).then(|| Said {
        line,
        minute,
        nick: nick.to_owned(),
        text,
    })
}

/// Which line answers which (`1002 1003 -`: line 1003 answers line 1002), counted from 0.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Annotation {
    parents: BTreeMap<usize, usize>,
}

impl Annotation {
    /// Reads an annotation file. A line that answers several is taken to answer the nearest.
    ///
    /// # Errors
    /// The number of a line (counted from 1) that isn't two numbers.
    pub(super) fn read(text: &str) -> Result<Self, usize> {
        let mut parents = BTreeMap::new();
        for (number, line) in text.lines().enumerate() {
            if line.trim().is_empty() {
                continue;
            }
            let mut fields = line.split_whitespace().map(str::parse::<usize>);
            let (Some(Ok(parent)), Some(Ok(child))) = (fields.next(), fields.next()) else {
                return Err(number + 1);
            };
            // A line that is linked to itself starts a conversation.
            if parent < child {
                let nearest = parents.entry(child).or_insert(parent);
                *nearest = parent.max(*nearest);
            }
        }
        Ok(Self { parents })
    }

    /// The line that this one answers.
    pub(super) fn parent(&self, line: usize) -> Option<usize> {
        self.parents.get(&line).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_actions_and_notices_are_told_apart() {
        let log = Log::read(
            "[09:59] <quibbler> Futurama140: look for  Section \"Module\"\n=== mrak_ is now known as mrak\n[10:00]  * ActionParsnip gives quibbler a spoon\nnonsense\n[10:01] <|trey|> \n",
        );
        let said: Vec<_> = log
            .said
            .iter()
            .map(|said| (said.line, said.minute, said.nick.as_str(), said.text.as_str()))
            .collect();
        assert_eq!(
            said,
            [
                (0, 599, "quibbler", "Futurama140: look for  Section \"Module\""),
                (2, 600, "ActionParsnip", "/me gives quibbler a spoon"),
                (4, 601, "|trey|", ""),
            ]
        );
        assert_eq!((log.passed_over, log.unreadable), (1, vec![4]));
    }

    #[test]
    fn speakers_come_in_the_order_of_their_first_words() {
        let log = Log::read("[09:59] <b> 1\n[09:59] <a> 2\n[09:59] <b> 3\n");
        assert_eq!(log.speakers(), ["b", "a"]);
    }

    #[test]
    fn a_line_answers_the_nearest_of_those_that_it_is_linked_to() {
        let annotation = Annotation::read("1022 1027 -\n1026 1027 -\n1002 1002 -\n").unwrap();
        assert_eq!(annotation.parent(1027), Some(1026));
        assert_eq!(annotation.parent(1002), None);
        assert_eq!(Annotation::read("1 2 -\nx 2 -\n"), Err(2));
    }

    #[test]
    fn the_sample_reads_whole() {
        let log = Log::read(include_str!("../../tests/data/irc-sample.raw.txt"));
        assert_eq!(log.unreadable, Vec::<usize>::new());
        assert_eq!(log.said.len() + log.passed_over, 60);
        let annotation = Annotation::read(include_str!("../../tests/data/irc-sample.annotation.txt")).unwrap();
        assert!(
            log.said
                .iter()
                .filter(|said| annotation.parent(said.line).is_some())
                .count()
                > 40
        );
    }
}
