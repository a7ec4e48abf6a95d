//! A fuzz test that is the same in every run: valid streams of frames, damaged by a seeded
//! generator, decoded whole and in pieces, and compared with a second decoder that knows nothing of
//! pieces.

mod wire;

use std::collections::BTreeMap;
use std::time::Instant;

use choir_websocket::{CloseCode, CloseFrame, Config, Event, MessageKind, Role};
use wire::*;

const INPUTS: u64 = 100_000;

const CONFIG: Config = Config {
    role: Role::Server,
    max_message_bytes: 300,
    max_fragments: 4,
    allow_compressed: true,
};

#[test]
fn damaged_streams_decode_as_the_reference_says() {
    let started = Instant::now();
    let mut outcomes: BTreeMap<String, u64> = BTreeMap::new();
    for seed in 0..INPUTS {
        let mut random = Random(seed);
        let mut wire = random.stream();
        for _ in 0..random.below(4) {
            random.damage(&mut wire);
        }

        let whole = decode(CONFIG, [&*wire]);
        let pieces = decode(CONFIG, random.pieces(&wire));
        assert_eq!(pieces, whole, "seed {seed}: the cuts make a difference: {wire:x?}");

        let (events, error) = whole;
        let (expected, end) = reference(&wire);
        assert_eq!(events, expected, "seed {seed}: {wire:x?}");
        let code = error.map(|error| error.close_code().get());
        match end {
            End::Failed(expected) => assert_eq!(code, Some(expected), "seed {seed}: {wire:x?}"),
            End::Complete => assert_eq!(code, None, "seed {seed}: {wire:x?}"),
            // The reference waits for the frame's last byte; what is wrong with it may show earlier.
            End::Unfinished => {}
        }
        let outcome = match error {
            Some(error) => format!("{error:?}").split(' ').next().unwrap_or_default().to_owned(),
            None => format!("{end:?}"),
        };
        *outcomes.entry(outcome).or_default() += 1;
    }
    // A run that doesn't meet every outcome proves less than it says.
    for outcome in [
        "CloseCodeNotAllowed",
        "ClosePayloadTooShort",
        "CloseReasonNotUtf8",
        "Complete",
        "ControlTooLong",
        "ExpectedContinuation",
        "FragmentedControl",
        "LengthNotMinimal",
        "LengthOutOfRange",
        "MessageTooLong",
        "ReservedBits",
        "ReservedOpcode",
        "TextNotUtf8",
        "TooManyFragments",
        "UnexpectedContinuation",
        "Unfinished",
        "UnmaskedByClient",
    ] {
        assert!(outcomes.contains_key(outcome), "{outcome} never happened: {outcomes:?}");
    }
    println!("{INPUTS} inputs in {:?}: {outcomes:#?}", started.elapsed());
}

/// SplitMix64: small, and any seed is a good one.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    fn text(&mut self) -> String {
        let len = self.below(60);
        (0..len)
            .map(|_| self.one_of(&['a', ' ', 'ß', '–', '語', '😀', '\u{10ffff}']))
            .collect()
    }

    fn bytes(&mut self) -> Vec<u8> {
        let len = self.one_of(&[0, 1, 3, 8, 125, 126, 200]);
        (0..len).map(|_| self.next() as u8).collect()
    }

    /// One to five valid messages or control frames.
    fn stream(&mut self) -> Vec<u8> {
        let mut wire = Vec::new();
        for _ in 0..=self.below(5) {
            match self.below(6) {
                0 => wire.extend(client_frame(FIN | PING, &[7; 125][..self.below(126)])),
                1 if self.below(4) == 0 => {
                    let code = self.one_of(&[1000_u16, 1001, 1012, 3000, 4409]);
                    let reason = self.text();
                    let reason = &reason[..reason.floor_char_boundary(123)];
                    let payload = [&code.to_be_bytes(), reason.as_bytes()].concat();
                    wire.extend(client_frame(FIN | CLOSE, &payload));
                }
                2 => {
                    let payload = self.bytes();
                    self.message(BINARY, &payload, &mut wire);
                }
                3 => {
                    let payload = self.bytes();
                    self.message(BINARY | 0x40, &payload, &mut wire);
                }
                _ => {
                    let payload = self.text();
                    self.message(TEXT, payload.as_bytes(), &mut wire);
                }
            }
        }
        wire
    }

    fn message(&mut self, opcode: u8, mut payload: &[u8], wire: &mut Vec<u8>) {
        let mut first = opcode;
        for _ in 0..self.below(4) {
            let (fragment, rest) = payload.split_at(self.below(payload.len() + 1));
            wire.extend(client_frame(first, fragment));
            if self.below(3) == 0 {
                wire.extend(client_frame(FIN | PONG, b"!"));
            }
            first = CONTINUATION;
            payload = rest;
        }
        wire.extend(client_frame(FIN | first, payload));
    }

    fn damage(&mut self, wire: &mut Vec<u8>) {
        let at = self.below(wire.len() + 1);
        let until = (at + self.below(9)).min(wire.len());
        match self.below(6) {
            0 if at < wire.len() => wire[at] ^= 1 << self.below(8),
            1 => wire.truncate(at),
            2 => drop(wire.drain(at..until)),
            3 => wire.extend_from_within(at..until),
            4 => {
                // A header of any kind, with a length in any form.
                let first = self.next() as u8 & self.one_of(&[0x8f, 0xff]);
                let mut header = vec![first, self.next() as u8 | self.one_of(&[0x80, 0xfe, 0xff])];
                let length = self.next() >> self.one_of(&[0, 1, 48, 56]);
                header.extend(&length.to_be_bytes()[self.one_of(&[0, 6])..]);
                wire.splice(at..at, header);
            }
            _ => {
                let frame = match self.below(4) {
                    0 => client_frame(FIN | CLOSE, &[3]),
                    1 => client_frame(FIN | CLOSE, b"\x03\xe8\xc3\xc3"),
                    2 => client_frame(CONTINUATION, b""),
                    _ => client_frame(FIN | TEXT, b"\xf0\x9f\x98"),
                };
                wire.splice(at..at, frame);
            }
        }
    }

    fn pieces<'w>(&mut self, mut wire: &'w [u8]) -> Vec<&'w [u8]> {
        let longest = self.one_of(&[1, 3, 20, 400]);
        let mut pieces = Vec::new();
        while !wire.is_empty() {
            let (piece, rest) = wire.split_at((1 + self.below(longest)).min(wire.len()));
            pieces.push(piece);
            wire = rest;
        }
        pieces
    }
}

/// How a stream ends.
#[derive(Debug)]
enum End {
    /// Between messages, or with a close frame.
    Complete,
    /// Within a frame or a message.
    Unfinished,
    /// With a fault and its close code.
    Failed(u16),
}

/// RFC 6455 §5 read off the page, over a stream that is there in full: frame by frame, each looked
/// at when its last byte is there (a header's faults, when its length is).
fn reference(mut wire: &[u8]) -> (Vec<Event>, End) {
    let mut events = Vec::new();
    let mut open: Option<(u8, bool, Vec<u8>, usize)> = None;
    loop {
        if wire.is_empty() {
            let end = if open.is_none() { End::Complete } else { End::Unfinished };
            return (events, end);
        }
        let [first, second, rest @ ..] = wire else {
            return (events, End::Unfinished);
        };
        let (fin, rsv, opcode) = (first & 0x80 != 0, first & 0x70, first & 0x0f);
        let control = opcode >= 8;
        let starts = opcode == TEXT || opcode == BINARY;
        let known = matches!(opcode, CONTINUATION | TEXT | BINARY | CLOSE | PING | PONG);
        let rsv_allowed = rsv == 0 || (rsv == 0x40 && starts);
        let in_order = control || starts == open.is_none();
        if !known || !rsv_allowed || !in_order || (control && !fin) {
            return (events, End::Failed(1002));
        }
        if opcode == CONTINUATION && open.as_ref().is_some_and(|open| open.3 == CONFIG.max_fragments) {
            return (events, End::Failed(1009));
        }
        if second & 0x80 == 0 || (control && second & 0x7f > 125) {
            return (events, End::Failed(1002));
        }
        let extended = match second & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        if rest.len() < extended {
            return (events, End::Unfinished);
        }
        let (extended, rest) = rest.split_at(extended);
        let length = match extended {
            [] => u64::from(second & 0x7f),
            bytes => bytes.iter().fold(0, |sum, byte| (sum << 8) | u64::from(*byte)),
        };
        let shortest = match length {
            0..=125 => 0,
            126..=65_535 => 2,
            _ => 8,
        };
        if extended.len() != shortest || length >> 63 == 1 {
            return (events, End::Failed(1002));
        }
        let so_far = open.as_ref().map_or(0, |open| open.2.len()) as u64;
        if !control && so_far + length > CONFIG.max_message_bytes as u64 {
            return (events, End::Failed(1009));
        }
        let length = length as usize;
        if rest.len() < 4 + length {
            return (events, End::Unfinished);
        }
        let (key, rest) = rest.split_at(4);
        let (masked, rest) = rest.split_at(length);
        wire = rest;
        let payload: Vec<u8> = masked.iter().enumerate().map(|(at, byte)| byte ^ key[at % 4]).collect();

        match opcode {
            PING => events.push(Event::Ping(payload.into())),
            PONG => events.push(Event::Pong(payload.into())),
            CLOSE => {
                if payload.is_empty() {
                    events.push(Event::Close(None));
                    return (events, End::Complete);
                }
                if payload.len() == 1 {
                    return (events, End::Failed(1002));
                }
                let Some(code) = CloseCode::new(u16::from_be_bytes([payload[0], payload[1]])) else {
                    return (events, End::Failed(1002));
                };
                let Ok(reason) = String::from_utf8(payload[2..].to_vec()) else {
                    return (events, End::Failed(1007));
                };
                events.push(Event::Close(Some(CloseFrame { code, reason })));
                return (events, End::Complete);
            }
            _ => {
                let (kind, compressed, mut message, fragments) =
                    open.take().unwrap_or((opcode, rsv != 0, Vec::new(), 0));
                message.extend(payload);
                // Text that only lacks the end of its last character may go on.
                let bad = match str::from_utf8(&message) {
                    Ok(_) => false,
                    Err(error) => fin || error.error_len().is_some(),
                };
                if kind == TEXT && !compressed && bad {
                    return (events, End::Failed(1007));
                }
                if !fin {
                    open = Some((kind, compressed, message, fragments + 1));
                    continue;
                }
                events.push(match (kind, compressed) {
                    (TEXT, false) => Event::Text(str::from_utf8(&message).expect("checked above").into()),
                    (_, false) => Event::Binary(message.into()),
                    (TEXT, true) => Event::Compressed {
                        kind: MessageKind::Text,
                        payload: message.into(),
                    },
                    (_, true) => Event::Compressed {
                        kind: MessageKind::Binary,
                        payload: message.into(),
                    },
                });
            }
        }
    }
}
