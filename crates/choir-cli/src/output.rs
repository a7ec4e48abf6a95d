//! What is shown: results on stdout, everything else on stderr, and others' texts never as commands to the terminal.

use std::fmt::Write as _;
use std::io::{self, Write};

use choir_protocol::ids::{Timestamp, UserId};
use choir_protocol::json::Value;
use clap::builder::styling::{AnsiColor, Style};

use crate::error::{Failure, Result};

/// Where a command's results go.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    json: bool,
}

impl Output {
    /// Lines for people, or JSON.
    pub(crate) const fn new(json: bool) -> Self {
        Self { json }
    }

    /// Whether `--json` was asked for.
    pub(crate) const fn is_json(self) -> bool {
        self.json
    }

    /// A result for people. Styles are taken out where stdout is no terminal, or `NO_COLOR` is set.
    pub(crate) fn line(self, text: impl AsRef<str>) -> Result<()> {
        let mut out = anstream::stdout().lock();
        writeln!(out, "{}", text.as_ref())?;
        // A pipe is read line by line by who follows a thread.
        out.flush()?;
        Ok(())
    }

    /// One JSON object, on a line of its own.
    pub(crate) fn object(self, value: &serde_json::Value) -> Result<()> {
        let mut out = io::stdout().lock();
        writeln!(out, "{}", json_text(value))?;
        out.flush()?;
        Ok(())
    }

    /// The object with `--json`, else the line.
    pub(crate) fn either(self, value: impl FnOnce() -> serde_json::Value, text: impl FnOnce() -> String) -> Result<()> {
        if self.json {
            self.object(&value())
        } else {
            self.line(text())
        }
    }

    /// Progress and remarks, on stderr. That nobody reads them is no failure.
    pub(crate) fn note(self, text: impl AsRef<str>) {
        let mut err = anstream::stderr().lock();
        let _ = if self.json {
            writeln!(err, "{}", json_text(&serde_json::json!({ "note": text.as_ref() })))
        } else {
            writeln!(err, "{DIM}{}{DIM:#}", text.as_ref())
        };
    }

    /// A failure, on stderr.
    pub(crate) fn failure(self, failure: &Failure) {
        let mut err = anstream::stderr().lock();
        let _ = if self.json {
            writeln!(err, "{}", json_text(&failure.to_json()))
        } else {
            write!(err, "{}", failure_text(failure))
        };
    }
}

fn failure_text(failure: &Failure) -> String {
    let mut text = format!("{BAD}Error:{BAD:#} {}\n", failure.message);
    if let Some(meaning) = &failure.meaning {
        let _ = writeln!(text, "{meaning}");
    }
    if let Some(hint) = &failure.hint {
        let _ = writeln!(text, "{GOOD}Hint:{GOOD:#} {hint}");
    }
    text
}

// -------------------------------------------------------------------------------------------------------------------------------------------- style

/// What stands out.
pub(crate) const BOLD: Style = Style::new().bold();
/// What stands back.
pub(crate) const DIM: Style = Style::new().dimmed();
/// What went well.
pub(crate) const GOOD: Style = AnsiColor::Green.on_default();
/// What didn't.
pub(crate) const BAD: Style = AnsiColor::Red.on_default().bold();
/// What waits for somebody.
pub(crate) const WAITING: Style = AnsiColor::Yellow.on_default();

/// A user's colour: the same everywhere, so that voices are told apart.
pub(crate) fn style_of(user: &UserId) -> Style {
    const COLOURS: [AnsiColor; 6] = [
        AnsiColor::Cyan,
        AnsiColor::Magenta,
        AnsiColor::Blue,
        AnsiColor::Green,
        AnsiColor::BrightCyan,
        AnsiColor::BrightMagenta,
    ];
    let sum = user.as_str().bytes().fold(0_usize, |sum, byte| {
        sum.wrapping_mul(31).wrapping_add(usize::from(byte))
    });
    COLOURS
        .get(sum % COLOURS.len())
        .map_or(BOLD, |colour| colour.on_default().bold())
}

// ---------------------------------------------------------------------------------------------------------------------------------- others' texts

/// Others' text as it may be shown: whatever could steer a terminal, or make a text read otherwise than it stands, is written out. Line feeds and tabs stay.
pub(crate) fn visible(text: &str) -> String {
    escape(text, |c| c == '\n' || c == '\t')
}

/// As [`visible`], in one line.
pub(crate) fn one_line(text: &str) -> String {
    escape(text, |_| false)
}

fn escape(text: &str, keeps: impl Fn(char) -> bool) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            c if keeps(c) => shown.push(c),
            '\n' => shown.push_str("\\n"),
            '\t' => shown.push_str("\\t"),
            '\r' => shown.push_str("\\r"),
            c if is_deceptive(c) => {
                let _ = write!(shown, "\\u{{{:x}}}", u32::from(c));
            }
            c => shown.push(c),
        }
    }
    shown
}

/// Controls (also of C1, which some terminals obey), what turns the direction of writing, what breaks lines without being seen, and what isn't seen at all.
fn is_deceptive(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{061c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// A JSON value in one line. JSON lets controls of C1 and what turns the direction of writing stand as they are; a terminal may obey them, so they are written
/// as escapes, which mean the same.
pub(crate) fn json_text(value: &serde_json::Value) -> String {
    let text = value.to_string();
    if !text.chars().any(is_deceptive) {
        return text;
    }
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if is_deceptive(c) {
            // Deceptive ones stand in strings only, where an escape may stand.
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(safe, "\\u{unit:04x}");
            }
        } else {
            safe.push(c);
        }
    }
    safe
}

/// A number of things, in words.
pub(crate) fn counted(n: u64, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

/// A text whose further lines are set in, so that no message can look like two.
pub(crate) fn set_in(text: &str, indent: &str) -> String {
    visible(text).replace('\n', &format!("\n{indent}"))
}

/// The first `limit` characters of a text, in one line.
pub(crate) fn preview(text: &str, limit: usize) -> String {
    let line = one_line(text);
    if line.chars().count() <= limit {
        return line;
    }
    let mut cut: String = line.chars().take(limit.saturating_sub(1)).collect();
    cut.push('…');
    cut
}

/// What a message says, as text: a string itself, other JSON in canonical form.
pub(crate) fn content_text(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A value of the protocol's JSON as this program's.
pub(crate) fn json_of(value: &impl serde::Serialize) -> Result<serde_json::Value> {
    serde_json::to_value(value).map_err(|error| Failure::failed("internal", format!("could not write JSON: {error}")))
}

// --------------------------------------------------------------------------------------------------------------------------------------------- ids

/// The end of a UUID. Ids begin with the time, so that those of one minute begin alike; their ends are random.
pub(crate) fn short(id: &impl ToString) -> String {
    let text = id.to_string();
    let from = text.len().saturating_sub(8);
    text.get(from..).unwrap_or(&text).to_owned()
}

/// A user without a nickname.
pub(crate) fn short_user(user: &UserId) -> String {
    match user.as_str().strip_prefix("ed25519:") {
        Some(key) => format!("{}…", key.get(..8).unwrap_or(key)),
        None => one_line(user.as_str()),
    }
}

// -------------------------------------------------------------------------------------------------------------------------------------------- time

/// The time now, by this machine's clock.
pub(crate) fn now() -> Timestamp {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp::saturating(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// `2026-11-25 00:57`, in UTC.
pub(crate) fn date_time(at: Timestamp) -> String {
    let (year, month, day) = civil(at.get() / MS_A_DAY);
    let minutes = at.get() % MS_A_DAY / 60_000;
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}", minutes / 60, minutes % 60)
}

/// `00:57:03`, in UTC.
pub(crate) fn clock(at: Timestamp) -> String {
    let seconds = at.get() % MS_A_DAY / 1000;
    format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// `5 min`, `3 h`, `2 d`: a span, rounded.
pub(crate) fn span(ms: u64) -> String {
    let seconds = ms / 1000;
    let rounded = |unit: u64| (seconds + unit / 2) / unit;
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3570 => format!("{} min", rounded(60)),
        3570..171_000 => format!("{} h", rounded(3600)),
        _ => format!("{} d", rounded(86_400)),
    }
}

const MS_A_DAY: u64 = 86_400_000;

/// The date of a number of days since 1970-01-01, counted in years that begin in March, whose leap day is the last.
const fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let era = days / 146_097;
    let of_era = days % 146_097;
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    let year = year_of_era + era * 400 + if month <= 2 { 1 } else { 0 };
    (year, month, day)
}

// ------------------------------------------------------------------------------------------------------------------------------------------- tables

/// How narrow a terminal may be for the last column of a table to be wrapped: below, and where a terminal doesn't know (0), lines are left to it.
const MIN_WRAP_COLUMNS: u16 = 60;

/// A table without lines: a head that stands back, columns set apart. Cells must be safe to show. No cell is ever broken: an id that was can't be copied.
pub(crate) fn table<const N: usize>(head: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    laid_out(head, rows, None)
}

/// The same, of sentences, which are wrapped to the terminal.
pub(crate) fn prose_table<const N: usize>(head: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    laid_out(head, rows, comfy_table::Table::new().width())
}

fn laid_out<const N: usize>(
    head: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
    columns: Option<u16>,
) -> String {
    use comfy_table::{ContentArrangement, Table, presets};
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    match columns.filter(|columns| *columns >= MIN_WRAP_COLUMNS) {
        Some(columns) => {
            table.set_content_arrangement(ContentArrangement::Dynamic);
            table.set_width(columns);
        }
        None => {
            table.set_content_arrangement(ContentArrangement::Disabled);
        }
    }
    table.set_header(head);
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let text = table.trim_fmt();
    // Styled once it is trimmed: what pads the last column would wrap on a narrow terminal.
    let (first, rest) = text.split_once('\n').unwrap_or((&text, ""));
    format!("{DIM}{first}{DIM:#}\n{rest}").trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_texts_never_steer_the_terminal() {
        let text = "a\u{1b}[31mred\u{7}\u{9b}2J\r\u{202e}evil\u{2066}\u{200b}b\nnext\tcolumn";
        assert_eq!(
            visible(text),
            "a\\u{1b}[31mred\\u{7}\\u{9b}2J\\r\\u{202e}evil\\u{2066}\\u{200b}b\nnext\tcolumn"
        );
        assert_eq!(one_line("a\nb\tc"), "a\\nb\\tc");
        assert_eq!(visible("Grüße, 世界 👩‍👩‍👧"), "Grüße, 世界 👩‍👩‍👧");
    }

    #[test]
    fn one_is_one() {
        let entries = [0, 1, 2].map(|n| counted(n, "entry", "entries"));
        assert_eq!(entries, ["0 entries", "1 entry", "2 entries"]);
    }

    #[test]
    fn no_line_of_a_table_ends_in_spaces() {
        let text = table(["NAME", "USER"], [["bob".to_owned(), "ed25519:abc".to_owned()]]);
        let plain = anstream::adapter::strip_str(&text).to_string();
        assert_eq!(plain, "NAME  USER\nbob   ed25519:abc");
    }

    #[test]
    fn tables_break_sentences_to_a_terminal_and_nothing_else() {
        let rows = || [["bob".to_owned(), "a sentence that is somewhat long ".repeat(3)]];
        let lines = |columns| {
            let table = laid_out(["NAME", "WHAT"], rows(), columns);
            anstream::adapter::strip_str(&table).to_string().lines().count()
        };
        assert_eq!(lines(None), 2);
        assert!(lines(Some(60)) > 2);
        assert_eq!(lines(Some(0)), 2, "a terminal that doesn't know its width");
        assert_eq!(lines(Some(20)), 2, "one in which a sentence would become a pillar");
    }

    #[test]
    fn json_is_as_safe_and_says_the_same() {
        let value = serde_json::json!({ "text": "a\u{1b}\u{9b}\u{202e}\u{e0041}\n世" });
        let text = json_text(&value);
        assert!(!text.chars().any(is_deceptive), "{text}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
    }

    #[test]
    fn a_message_can_not_look_like_two() {
        assert_eq!(set_in("one\n12:00 mallory: two", "  "), "one\n  12:00 mallory: two");
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        let at = |seconds: u64| Timestamp::saturating(seconds * 1000);
        assert_eq!(date_time(at(0)), "1970-01-01 00:00");
        assert_eq!(date_time(at(951_782_399)), "2000-02-28 23:59");
        assert_eq!(date_time(at(951_782_400)), "2000-02-29 00:00");
        assert_eq!(date_time(at(951_868_800)), "2000-03-01 00:00");
        assert_eq!(date_time(at(1_764_000_000)), "2025-11-24 16:00");
        assert_eq!(date_time(at(4_107_542_400)), "2100-03-01 00:00");
        assert_eq!(clock(at(1_764_000_001)), "16:00:01");
    }

    #[test]
    fn spans_are_short() {
        assert_eq!(
            [0, 59_999, 60_000, 3_569_000, 3_599_000, 172_799_000, 604_799_000].map(span),
            ["0 s", "59 s", "1 min", "59 min", "1 h", "2 d", "7 d"]
        );
    }

    #[test]
    fn previews_are_one_line_and_bounded() {
        assert_eq!(preview("short", 10), "short");
        assert_eq!(preview("a longer text", 6), "a lon…");
        assert_eq!(preview("two\nlines", 20), "two\\nlines");
    }
}
