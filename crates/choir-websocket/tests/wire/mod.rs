//! Frames written by hand, byte by byte as RFC 6455 §5.2 draws them, so that the codec isn't judged
//! by its own writer.

// Each test binary uses its part of these.
#![allow(dead_code)]

use choir_websocket::{Config, Decoder, Event, ProtocolError, Role};

pub(crate) const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

pub(crate) const CONTINUATION: u8 = 0x0;
pub(crate) const TEXT: u8 = 0x1;
pub(crate) const BINARY: u8 = 0x2;
pub(crate) const CLOSE: u8 = 0x8;
pub(crate) const PING: u8 = 0x9;
pub(crate) const PONG: u8 = 0xa;
pub(crate) const FIN: u8 = 0x80;

/// A client's frame: any first byte, the shortest length.
pub(crate) fn client_frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    put_length(&mut bytes, payload.len(), 0x80);
    bytes.extend(KEY);
    bytes.extend(payload.iter().zip(KEY.iter().cycle()).map(|(byte, key)| byte ^ key));
    bytes
}

/// A server's frame: any first byte, the shortest length.
pub(crate) fn server_frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    put_length(&mut bytes, payload.len(), 0);
    bytes.extend(payload);
    bytes
}

fn put_length(bytes: &mut Vec<u8>, length: usize, mask_bit: u8) {
    match length {
        0..=125 => bytes.push(mask_bit | length as u8),
        126..=65_535 => {
            bytes.push(mask_bit | 126);
            bytes.extend((length as u16).to_be_bytes());
        }
        _ => {
            bytes.push(mask_bit | 127);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
}

pub(crate) fn server() -> Decoder {
    Decoder::new(Config::new(Role::Server))
}

/// What came out of a decoder before it wanted more or failed, and with what it failed.
pub(crate) type Outcome = (Vec<Event>, Option<ProtocolError>);

/// Takes every event that is there.
pub(crate) fn drain(decoder: &mut Decoder) -> Outcome {
    let mut events = Vec::new();
    loop {
        match decoder.poll() {
            Ok(Some(event)) => events.push(event),
            Ok(None) => return (events, None),
            Err(error) => return (events, Some(error)),
        }
    }
}

/// What a decoder makes of bytes that arrive in these pieces.
pub(crate) fn decode<'a>(config: Config, pieces: impl IntoIterator<Item = &'a [u8]>) -> Outcome {
    let mut decoder = Decoder::new(config);
    let mut events = Vec::new();
    for piece in pieces {
        decoder.feed(piece);
        let (more, error) = drain(&mut decoder);
        events.extend(more);
        if error.is_some() {
            return (events, error);
        }
    }
    (events, None)
}

/// What a server makes of these frames of a client.
pub(crate) fn received(frames: &[Vec<u8>]) -> Outcome {
    decode(Config::new(Role::Server), [&*frames.concat()])
}

/// A server refuses these frames of a client, and each cut of them that ends in the last frame's
/// `at`th byte or later; before that it wants more.
#[track_caller]
pub(crate) fn refused(frames: &[Vec<u8>], at: usize, expected: ProtocolError) {
    let (last, before) = frames.split_last().expect("at least one frame");
    for len in 0..=last.len() {
        let (_, error) = received(&[before.concat(), last[..len].to_vec()]);
        assert_eq!(
            error,
            (len >= at).then_some(expected),
            "after {len} bytes of the last frame"
        );
    }
}
