//! Messages while they are being written (V4): their text so far, put together from what the server sends. Fleeting: nothing of it is signed or kept.

use alloc::collections::BTreeMap;
use alloc::string::String;

use choir_protocol::ids::{Id, UserId};
use choir_protocol::message::StreamEvent;

/// How many are held of a thread.
const MAX_OPEN: usize = 64;
/// How long the text of one grows (V4).
const MAX_TEXT_BYTES: usize = 64 * 1024;
/// How long after its last part one ends by itself (V4).
const SILENCE_MS: u64 = 60_000;

/// A message that is being written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenStream {
    /// The id that the message will have.
    pub message: Id,
    /// Who writes.
    pub author: UserId,
    /// What they have written so far.
    pub text: String,
    to: u64,
    heard_at: u64,
}

/// Those of one thread.
#[derive(Debug, Clone, Default)]
pub(super) struct Streams(BTreeMap<Id, OpenStream>);

impl Streams {
    /// Takes in parts: from 0 on they replace what is held, after what is held they are appended, else they are ignored.
    pub(super) fn take(&mut self, event: &StreamEvent, now: u64) {
        self.expire(now);
        let room = self.0.len() < MAX_OPEN;
        let known = self.0.get_mut(&event.message);
        let fits = |text: &str| event.text.len().saturating_add(text.len()) <= MAX_TEXT_BYTES;
        match known {
            Some(open) if open.author != event.author => return,
            Some(open) if event.from == 0 && fits("") => open.text.clone_from(&event.text),
            Some(open) if event.from == open.to && fits(&open.text) => {
                open.text.push_str(&event.text);
            }
            None if event.from == 0 && fits("") && room => {
                self.0.insert(
                    event.message,
                    OpenStream {
                        message: event.message,
                        author: event.author.clone(),
                        text: event.text.clone(),
                        to: event.to,
                        heard_at: now,
                    },
                );
            }
            _ => return,
        }
        if event.ended == Some(true) {
            self.end(event.message);
        } else if let Some(open) = self.0.get_mut(&event.message) {
            open.to = event.to;
            open.heard_at = now;
        }
    }

    /// The entry of this id has come, or the stream has ended.
    pub(super) fn end(&mut self, message: Id) {
        self.0.remove(&message);
    }

    fn expire(&mut self, now: u64) {
        self.0.retain(|_, open| !open.silent(now));
    }

    /// Those that are open.
    pub(super) fn open(&self, now: u64) -> impl Iterator<Item = &OpenStream> {
        self.0.values().filter(move |open| !open.silent(now))
    }
}

impl OpenStream {
    const fn silent(&self, now: u64) -> bool {
        now.saturating_sub(self.heard_at) >= SILENCE_MS
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use alloc::vec::Vec;

    fn event(from: u64, to: u64, text: &str) -> StreamEvent {
        StreamEvent {
            message: Id::from_bytes([1; 16]),
            author: UserId::choir(),
            from,
            to,
            text: text.to_string(),
            ended: None,
        }
    }

    fn texts(streams: &Streams, now: u64) -> Vec<&str> {
        streams.open(now).map(|open| open.text.as_str()).collect()
    }

    #[test]
    fn v4_parts_replace_follow_or_are_ignored() {
        let mut streams = Streams::default();
        streams.take(&event(3, 4, "late"), 0);
        assert!(texts(&streams, 0).is_empty(), "its beginning is missing");
        streams.take(&event(0, 2, "to be"), 0);
        streams.take(&event(2, 3, " or not"), 0);
        streams.take(&event(5, 6, "?"), 0);
        streams.take(&event(1, 3, "twice"), 0);
        assert_eq!(texts(&streams, 0), ["to be or not"]);
        streams.take(&event(0, 4, "anew"), 0);
        assert_eq!(texts(&streams, 0), ["anew"]);
        let mut end = event(4, 4, "");
        end.ended = Some(true);
        streams.take(&end, 0);
        assert!(texts(&streams, 0).is_empty());
    }

    #[test]
    fn v4_silence_ends_a_stream_and_memory_is_bounded() {
        let mut streams = Streams::default();
        streams.take(&event(0, 1, "hm"), 5);
        assert_eq!(texts(&streams, 60_004), ["hm"]);
        assert!(texts(&streams, 60_005).is_empty());
        let mut streams = Streams::default();
        streams.take(&event(0, 1, &"x".repeat(MAX_TEXT_BYTES)), 0);
        streams.take(&event(1, 2, "y"), 0);
        assert_eq!(texts(&streams, 0).first().map(|text| text.len()), Some(MAX_TEXT_BYTES));
        for n in 0..=255 {
            let mut other = event(0, 1, "z");
            other.message = Id::from_bytes([n; 16]);
            streams.take(&other, 0);
        }
        assert_eq!(streams.open(0).count(), MAX_OPEN);
    }
}
