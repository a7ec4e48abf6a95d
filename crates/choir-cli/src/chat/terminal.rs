//! A chat on a terminal: what happens scrolls by above, what is typed stays below.

use std::io::{IsTerminal, Write};

use choir_protocol::thread::Decision;
use crossterm::event::{
    DisableBracketedPaste, EnableBracketedPaste, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers,
};
use crossterm::terminal::{Clear, ClearType, disable_raw_mode, enable_raw_mode};
use crossterm::{cursor, execute, queue};
use tokio::sync::mpsc;

use super::line::{Edit, Line, columns};
use super::model::Input;
use super::{Chat, Screen};
use crate::error::{Failure, Result};

/// Columns of a terminal that doesn't say.
const COLUMNS: u16 = 80;
/// How many columns a prompt leaves to type in.
const ROOM: usize = 20;

/// Runs a chat until its person has enough.
pub(super) async fn run(chat: &mut Chat<'_>) -> Result<()> {
    let mut terminal = Terminal::enter()?;
    let mut events = events();
    chat.start(&mut terminal).await?;
    let mut terminated = terminated()?;
    loop {
        terminal.prompt = chat.prompt(false);
        terminal.brief = chat.prompt(true);
        terminal.draw()?;
        tokio::select! {
            happening = chat.next() => chat.happened(&mut terminal, happening?)?,
            event = events.recv() => {
                let Some(event) = event else { return Ok(()) };
                match act(&mut terminal.line, &event) {
                    Act::Nothing => {}
                    Act::Quit => return Ok(()),
                    Act::Input(input) => {
                        terminal.clear()?;
                        if !chat.input(&mut terminal, input)? {
                            return Ok(());
                        }
                    }
                }
            }
            () = terminated.wait() => return Ok(()),
        }
    }
}

/// What a key does.
#[derive(Debug, PartialEq, Eq)]
enum Act {
    Nothing,
    Quit,
    Input(Input),
}

fn act(line: &mut Line, event: &Event) -> Act {
    match event {
        Event::Paste(text) => line.paste(text),
        Event::Key(key) if key.kind != KeyEventKind::Release => return key_act(line, *key),
        _ => {}
    }
    Act::Nothing
}

fn key_act(line: &mut Line, key: KeyEvent) -> Act {
    let edit = match (key.code, key.modifiers.contains(KeyModifiers::CONTROL)) {
        (KeyCode::Enter, _) => return Act::Input(Input::Line(line.take())),
        (KeyCode::Tab, _) => return Act::Input(Input::Next),
        // Where fingers that know other line editors mean the line, nothing is decided.
        (KeyCode::Char('y'), true) if line.has_cut() => Edit::PutBack,
        (KeyCode::Char('n'), true) if line.is_recalled() => Edit::Newer,
        (KeyCode::Char('y'), true) => return Act::Input(Input::Key(Decision::Approve)),
        (KeyCode::Char('n'), true) => return Act::Input(Input::Key(Decision::Deny)),
        (KeyCode::Char('d'), true) if line.is_empty() => return Act::Quit,
        (KeyCode::Char('c'), true) => {
            if line.is_empty() {
                return Act::Quit;
            }
            line.take();
            return Act::Nothing;
        }
        (KeyCode::Char('d'), true) | (KeyCode::Delete, _) => Edit::DeleteAfter,
        (KeyCode::Backspace, _) | (KeyCode::Char('h'), true) => Edit::DeleteBefore,
        (KeyCode::Char('w'), true) => Edit::DeleteWord,
        (KeyCode::Char('u'), true) => Edit::DeleteToStart,
        (KeyCode::Char('a'), true) | (KeyCode::Home, _) => Edit::Start,
        (KeyCode::Char('e'), true) | (KeyCode::End, _) => Edit::End,
        (KeyCode::Char('b'), true) | (KeyCode::Left, _) => Edit::Left,
        (KeyCode::Char('f'), true) | (KeyCode::Right, _) => Edit::Right,
        (KeyCode::Char('p'), true) | (KeyCode::Up, _) => Edit::Older,
        (KeyCode::Down, _) => Edit::Newer,
        (KeyCode::Char(c), false) => Edit::Insert(c),
        _ => return Act::Nothing,
    };
    line.edit(edit);
    Act::Nothing
}

/// A terminal in raw mode, which is left in order however the chat ends.
struct Terminal {
    line: Line,
    prompt: String,
    /// What the prompt is where it leaves no room to type.
    brief: String,
    colours: bool,
}

impl Terminal {
    fn enter() -> Result<Self> {
        enable_raw_mode()
            .map_err(|error| Failure::failed("io", format!("the terminal can't be used for a chat: {error}")))?;
        let terminal = Self {
            line: Line::default(),
            prompt: String::new(),
            brief: String::new(),
            colours: anstream::AutoStream::choice(&std::io::stdout()) != anstream::ColorChoice::Never,
        };
        execute!(std::io::stdout(), EnableBracketedPaste)?;
        Ok(terminal)
    }

    fn painted(&self, text: &str) -> String {
        if self.colours {
            text.to_owned()
        } else {
            anstream::adapter::strip_str(text).to_string()
        }
    }

    fn clear(&self) -> Result<()> {
        execute!(
            std::io::stdout(),
            cursor::MoveToColumn(0),
            Clear(ClearType::FromCursorDown)
        )?;
        Ok(())
    }

    /// Draws the prompt and what is typed, in one line.
    fn draw(&self) -> Result<()> {
        // Some pseudo terminals say 0.
        let width = crossterm::terminal::size()
            .ok()
            .map(|(columns, _)| columns)
            .filter(|columns| *columns > 0);
        let width = usize::from(width.unwrap_or(COLUMNS));
        let prompt = fitting(&self.prompt, &self.brief, width);
        let (prompt, used) = (self.painted(prompt), width_of(prompt));
        let (before, after) = self.line.view(width.saturating_sub(used));
        let mut out = std::io::stdout().lock();
        queue!(out, cursor::MoveToColumn(0), Clear(ClearType::FromCursorDown))?;
        write!(out, "{prompt}{before}")?;
        queue!(out, cursor::SavePosition)?;
        write!(out, "{after}")?;
        queue!(out, cursor::RestorePosition)?;
        out.flush()?;
        Ok(())
    }
}

/// The prompt that leaves room to type.
fn fitting<'a>(prompt: &'a str, brief: &'a str, width: usize) -> &'a str {
    if width_of(prompt) + ROOM > width { brief } else { prompt }
}

/// How many columns a styled text takes.
fn width_of(text: &str) -> usize {
    anstream::adapter::strip_str(text)
        .to_string()
        .chars()
        .map(columns)
        .sum()
}

impl Screen for Terminal {
    fn show(&mut self, text: &str) -> Result<()> {
        let text = self.painted(text).replace('\n', "\r\n");
        let mut out = std::io::stdout().lock();
        queue!(out, cursor::MoveToColumn(0), Clear(ClearType::FromCursorDown))?;
        write!(out, "{text}\r\n")?;
        out.flush()?;
        Ok(())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = execute!(
            std::io::stdout(),
            cursor::MoveToColumn(0),
            Clear(ClearType::FromCursorDown),
            DisableBracketedPaste
        );
        let _ = disable_raw_mode();
    }
}

/// What is typed. Reading it blocks, so a thread does, which ends with the process.
fn events() -> mpsc::UnboundedReceiver<Event> {
    let (sender, receiver) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        while std::io::stdin().is_terminal() {
            let Ok(event) = crossterm::event::read() else {
                return;
            };
            if sender.send(event).is_err() {
                return;
            }
        }
    });
    receiver
}

/// The signal to end, which must not leave the terminal in raw mode.
struct Terminated {
    #[cfg(unix)]
    signal: tokio::signal::unix::Signal,
}

#[cfg(unix)]
fn terminated() -> Result<Terminated> {
    let signal = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    Ok(Terminated { signal })
}

#[cfg(not(unix))]
fn terminated() -> Result<Terminated> {
    Ok(Terminated {})
}

impl Terminated {
    #[cfg(unix)]
    async fn wait(&mut self) {
        self.signal.recv().await;
    }

    #[cfg(not(unix))]
    async fn wait(&mut self) {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn press(line: &mut Line, code: KeyCode, modifiers: KeyModifiers) -> Act {
        act(line, &Event::Key(KeyEvent::new(code, modifiers)))
    }

    #[test]
    fn keys_type_decide_and_end() {
        let mut line = Line::default();
        assert_eq!(
            press(&mut line, KeyCode::Char('y'), KeyModifiers::CONTROL),
            Act::Input(Input::Key(Decision::Approve))
        );
        assert_eq!(
            press(&mut line, KeyCode::Char('n'), KeyModifiers::CONTROL),
            Act::Input(Input::Key(Decision::Deny))
        );
        assert_eq!(
            press(&mut line, KeyCode::Tab, KeyModifiers::NONE),
            Act::Input(Input::Next)
        );
        assert_eq!(press(&mut line, KeyCode::Char('y'), KeyModifiers::NONE), Act::Nothing);
        assert_eq!(
            press(&mut line, KeyCode::Char('d'), KeyModifiers::CONTROL),
            Act::Nothing,
            "there is something typed"
        );
        assert_eq!(
            press(&mut line, KeyCode::Enter, KeyModifiers::NONE),
            Act::Input(Input::Line("y".into()))
        );
        assert_eq!(press(&mut line, KeyCode::Char('d'), KeyModifiers::CONTROL), Act::Quit);
    }

    #[test]
    fn keys_that_edit_elsewhere_decide_nothing_in_the_middle_of_that() {
        let mut line = Line::default();
        let control = |line: &mut Line, c| press(line, KeyCode::Char(c), KeyModifiers::CONTROL);
        line.paste("hello");
        press(&mut line, KeyCode::Enter, KeyModifiers::NONE);
        assert_eq!(control(&mut line, 'p'), Act::Nothing);
        assert_eq!(control(&mut line, 'n'), Act::Nothing, "back to the newest line");
        assert_eq!(control(&mut line, 'n'), Act::Input(Input::Key(Decision::Deny)));
        line.paste("half a line");
        assert_eq!(control(&mut line, 'u'), Act::Nothing);
        assert_eq!(control(&mut line, 'y'), Act::Nothing, "put back");
        assert_eq!(line.view(80).0, "half a line");
        assert_eq!(control(&mut line, 'y'), Act::Input(Input::Key(Decision::Approve)));
    }

    #[test]
    fn a_narrow_terminal_gets_the_brief_prompt() {
        let prompt = "[1 bob: 日本語 | ^Y ^N] > ";
        assert_eq!(fitting(prompt, "[1] > ", 80), prompt);
        assert_eq!(fitting(prompt, "[1] > ", 40), "[1] > ");
    }

    #[test]
    fn a_pasted_line_feed_sends_nothing() {
        let mut line = Line::default();
        assert_eq!(act(&mut line, &Event::Paste("one\ntwo".into())), Act::Nothing);
        assert_eq!(
            press(&mut line, KeyCode::Enter, KeyModifiers::NONE),
            Act::Input(Input::Line("one\ntwo".into()))
        );
    }
}
