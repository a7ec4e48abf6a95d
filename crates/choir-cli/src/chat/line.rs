//! The line that is being typed: text and a place in it, without a terminal.

/// The lines that were entered before, which the arrow keys bring back.
const MAX_HISTORY: usize = 200;

/// A line editor.
#[derive(Debug, Default)]
pub(crate) struct Line {
    text: Vec<char>,
    cursor: usize,
    history: Vec<String>,
    /// The place in the history, counted from its end; 0 is the line that is being typed.
    recalled: usize,
    draft: Vec<char>,
    /// What the last key cut, while it was the last.
    cut: Vec<char>,
}

/// What a key does to the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "each does what it is called")]
pub(crate) enum Edit {
    Insert(char),
    DeleteBefore,
    DeleteAfter,
    DeleteWord,
    DeleteToStart,
    Left,
    Right,
    Start,
    End,
    Older,
    Newer,
    PutBack,
}

impl Line {
    /// Whether nothing is typed.
    pub(crate) fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Whether an earlier line is shown, so that there is a newer one.
    pub(crate) const fn is_recalled(&self) -> bool {
        self.recalled > 0
    }

    /// Whether the last key cut something, which can be put back.
    pub(crate) const fn has_cut(&self) -> bool {
        !self.cut.is_empty()
    }

    /// Inserts a text, as when it is pasted.
    pub(crate) fn paste(&mut self, text: &str) {
        for c in text.replace("\r\n", "\n").replace('\r', "\n").chars() {
            self.edit(Edit::Insert(c));
        }
    }

    /// The line as entered; what follows begins empty.
    pub(crate) fn take(&mut self) -> String {
        let line: String = std::mem::take(&mut self.text).into_iter().collect();
        self.cursor = 0;
        self.recalled = 0;
        self.cut.clear();
        if !line.trim().is_empty() && self.history.last() != Some(&line) {
            self.history.push(line.clone());
            if self.history.len() > MAX_HISTORY {
                self.history.remove(0);
            }
        }
        line
    }

    /// A key.
    pub(crate) fn edit(&mut self, edit: Edit) {
        let cut = std::mem::take(&mut self.cut);
        match edit {
            Edit::Insert(c) => {
                self.text.insert(self.cursor, c);
                self.cursor += 1;
            }
            Edit::DeleteBefore => {
                if self.cursor > 0 {
                    self.cursor -= 1;
                    self.text.remove(self.cursor);
                }
            }
            Edit::DeleteAfter => {
                if self.cursor < self.text.len() {
                    self.text.remove(self.cursor);
                }
            }
            Edit::DeleteWord => {
                let before = self.text.get(..self.cursor).unwrap_or_default();
                let kept = before.iter().rposition(|c| !c.is_whitespace()).map_or(0, |last| {
                    before
                        .iter()
                        .take(last)
                        .rposition(|c| c.is_whitespace())
                        .map_or(0, |space| space + 1)
                });
                self.cut = self.text.drain(kept..self.cursor).collect();
                self.cursor = kept;
            }
            Edit::DeleteToStart => {
                self.cut = self.text.drain(..self.cursor).collect();
                self.cursor = 0;
            }
            Edit::Left => self.cursor = self.cursor.saturating_sub(1),
            Edit::Right => self.cursor = (self.cursor + 1).min(self.text.len()),
            Edit::Start => self.cursor = 0,
            Edit::End => self.cursor = self.text.len(),
            Edit::Older => self.recall(self.recalled + 1),
            Edit::Newer => self.recall(self.recalled.saturating_sub(1)),
            Edit::PutBack => {
                let end = self.cursor + cut.len();
                self.text.splice(self.cursor..self.cursor, cut);
                self.cursor = end;
            }
        }
    }

    fn recall(&mut self, place: usize) {
        if place > self.history.len() || place == self.recalled {
            return;
        }
        if self.recalled == 0 {
            self.draft = std::mem::take(&mut self.text);
        }
        self.recalled = place;
        self.text = match place {
            0 => std::mem::take(&mut self.draft),
            _ => self
                .history
                .get(self.history.len() - place)
                .map(|line| line.chars().collect())
                .unwrap_or_default(),
        };
        self.cursor = self.text.len();
    }

    /// What is to be shown in `width` columns: the text before the cursor and the text after it, cut so that the cursor is seen.
    pub(crate) fn view(&self, width: usize) -> (String, String) {
        let shown = |c: &char| match c {
            '\n' => '⏎',
            '\t' => ' ',
            c if c.is_control() => '�',
            c => *c,
        };
        // One column stays free for the cursor at the end.
        let room = width.saturating_sub(1);
        let mut used = 0;
        let fits = |c: &char, used: &mut usize| {
            *used += columns(*c);
            *used <= room
        };
        let before: Vec<char> = self.text.iter().take(self.cursor).map(shown).collect();
        let mut left: Vec<char> = before.into_iter().rev().take_while(|c| fits(c, &mut used)).collect();
        left.reverse();
        used = left.iter().map(|c| columns(*c)).sum();
        let right: String = self
            .text
            .iter()
            .skip(self.cursor)
            .map(shown)
            .take_while(|c| fits(c, &mut used))
            .collect();
        (left.into_iter().collect(), right)
    }
}

/// How many columns a character takes, near enough for a prompt: a wrong guess shifts nothing but where a long line is cut.
pub(crate) const fn columns(c: char) -> usize {
    match c {
        '\u{300}'..='\u{36f}' | '\u{200d}' | '\u{fe00}'..='\u{fe0f}' | '\u{1f3fb}'..='\u{1f3ff}' => 0,
        '\u{1100}'..='\u{115f}'
        | '\u{2e80}'..='\u{a4cf}'
        | '\u{ac00}'..='\u{d7a3}'
        | '\u{f900}'..='\u{faff}'
        | '\u{fe30}'..='\u{fe6f}'
        | '\u{ff00}'..='\u{ff60}'
        | '\u{ffe0}'..='\u{ffe6}'
        | '\u{1f300}'..='\u{1faff}'
        | '\u{20000}'..='\u{3fffd}' => 2,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(text: &str) -> Line {
        let mut line = Line::default();
        line.paste(text);
        line
    }

    #[test]
    fn editing_is_what_shells_do() {
        let mut line = typed("one two  ");
        line.edit(Edit::DeleteWord);
        assert_eq!(line.view(80).0, "one ");
        line.edit(Edit::Start);
        line.edit(Edit::Insert('x'));
        line.edit(Edit::DeleteAfter);
        assert_eq!(line.view(80), ("x".into(), "ne ".into()));
        line.edit(Edit::End);
        line.edit(Edit::DeleteBefore);
        line.edit(Edit::Left);
        line.edit(Edit::DeleteToStart);
        assert_eq!(line.take(), "e");
        assert!(line.is_empty());
    }

    #[test]
    fn what_was_cut_last_is_put_back() {
        let mut line = typed("one two");
        line.edit(Edit::DeleteWord);
        assert!(line.has_cut());
        line.edit(Edit::PutBack);
        assert_eq!(line.view(80).0, "one two");
        assert!(!line.has_cut());
        line.edit(Edit::DeleteToStart);
        line.edit(Edit::Insert('x'));
        assert!(!line.has_cut(), "only while cutting was the last");
    }

    #[test]
    fn earlier_lines_come_back_and_the_draft_is_kept() {
        let mut line = typed("first");
        line.take();
        line.paste("second");
        line.take();
        line.paste("draft");
        for _ in 0..5 {
            line.edit(Edit::Older);
        }
        assert_eq!(line.view(80).0, "first");
        line.edit(Edit::Newer);
        assert_eq!(line.view(80).0, "second");
        line.edit(Edit::Newer);
        line.edit(Edit::Newer);
        assert_eq!(line.take(), "draft");
    }

    #[test]
    fn a_long_line_keeps_the_cursor_in_sight() {
        let mut line = typed("abcdefghij");
        assert_eq!(line.view(5), ("ghij".into(), String::new()));
        line.edit(Edit::Start);
        assert_eq!(line.view(5), (String::new(), "abcd".into()));
        assert_eq!(
            typed("世界世界").view(6).0,
            "界世界".chars().skip(1).collect::<String>()
        );
    }

    #[test]
    fn pasted_lines_stay_one_line_to_look_at() {
        let mut line = typed("one\r\ntwo\u{1b}");
        assert_eq!(line.view(80).0, "one⏎two�");
        assert_eq!(line.take(), "one\ntwo\u{1b}");
    }
}
