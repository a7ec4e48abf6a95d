//! What holds for all messages, fragments, cuts and bytes.

mod wire;

use choir_websocket::{Config, Decoder, Event, Header, Opcode, Role, write_frame};
use proptest::prelude::*;
use wire::*;

/// A message and where it is cut into fragments, with the pings before each of them.
#[derive(Clone, Debug)]
struct Sent {
    event: Event,
    cuts: Vec<usize>,
    pings: Vec<Vec<u8>>,
}

fn sent() -> impl Strategy<Value = Sent> {
    let text = "\\PC{0,80}".prop_map(|text| Event::Text(text.into()));
    let binary = prop::collection::vec(any::<u8>(), 0..400).prop_map(|bytes| Event::Binary(bytes.into()));
    let cuts = prop::collection::vec(0..400_usize, 0..5);
    let pings = prop::collection::vec(prop::collection::vec(any::<u8>(), 0..=125), 0..3);
    (prop_oneof![text, binary], cuts, pings).prop_map(|(event, cuts, pings)| Sent { event, cuts, pings })
}

impl Sent {
    /// As it goes over the wire, and what is to come out of the decoder.
    fn encode(&self, mask: Option<[u8; 4]>) -> (Vec<u8>, Vec<Event>) {
        let (opcode, payload) = match &self.event {
            Event::Text(text) => (Opcode::Text, text.as_bytes()),
            Event::Binary(bytes) => (Opcode::Binary, &bytes[..]),
            other => panic!("{other:?} is no message"),
        };
        let mut ends: Vec<usize> = self.cuts.iter().map(|cut| cut % (payload.len() + 1)).collect();
        ends.push(payload.len());
        ends.sort_unstable();

        let mut out = bytes::BytesMut::new();
        let mut expected = Vec::new();
        let mut start = 0;
        for (at, end) in ends.iter().copied().enumerate() {
            if let Some(ping) = self.pings.get(at) {
                write_frame(
                    Header {
                        mask,
                        ..Header::whole(Opcode::Ping)
                    },
                    ping,
                    &mut out,
                );
                expected.push(Event::Ping(ping.clone().into()));
            }
            let header = Header {
                fin: at + 1 == ends.len(),
                compressed: false,
                opcode: if at == 0 { opcode } else { Opcode::Continuation },
                mask,
            };
            write_frame(header, &payload[start..end], &mut out);
            start = end;
        }
        expected.push(self.event.clone());
        (out.to_vec(), expected)
    }
}

/// The bytes in pieces, cut at these places.
fn pieces<'b>(bytes: &'b [u8], cuts: &[prop::sample::Index]) -> Vec<&'b [u8]> {
    let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    ends.push(bytes.len());
    ends.sort_unstable();
    let starts = std::iter::once(0).chain(ends.iter().copied());
    starts.zip(&ends).map(|(start, end)| &bytes[start..*end]).collect()
}

fn small(role: Role) -> Config {
    Config {
        max_message_bytes: 300,
        max_fragments: 5,
        ..Config::new(role)
    }
}

proptest! {
    // A failure prints its input, to become a test with a name.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn messages_come_out_as_they_were_sent(
        messages in prop::collection::vec(sent(), 1..5),
        mask: Option<[u8; 4]>,
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
    ) {
        let role = if mask.is_some() { Role::Server } else { Role::Client };
        let encoded = messages.iter().map(|sent| sent.encode(mask));
        let (wire, expected): (Vec<_>, Vec<_>) = encoded.unzip();
        let (wire, expected) = (wire.concat(), expected.concat());

        let outcome = (expected, None);
        prop_assert_eq!(decode(Config::new(role), pieces(&wire, &cuts)), outcome.clone());
        prop_assert_eq!(decode(Config::new(role), wire.chunks(1)), outcome);
    }

    #[test]
    fn arbitrary_bytes_never_panic_nor_pile_up(
        bytes in prop::collection::vec(
            prop_oneof![any::<u8>(), Just(0x82), Just(0x80), Just(0x02), Just(0x00)],
            0..2000,
        ),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
        role in prop_oneof![Just(Role::Client), Just(Role::Server)],
        allow_compressed: bool,
    ) {
        const MAX_HEADER_BYTES: usize = 14;
        let config = Config { allow_compressed, ..small(role) };
        let mut decoder = Decoder::new(config);
        for piece in pieces(&bytes, &cuts) {
            decoder.feed(piece);
            let (events, error) = drain(&mut decoder);
            for event in events {
                let (len, limit) = match &event {
                    Event::Text(text) => (text.len(), config.max_message_bytes),
                    Event::Binary(bytes) => (bytes.len(), config.max_message_bytes),
                    Event::Compressed { payload, .. } => (payload.len(), config.max_message_bytes),
                    Event::Ping(payload) | Event::Pong(payload) => (payload.len(), 125),
                    Event::Close(_) => (0, 0),
                };
                prop_assert!(len <= limit);
            }
            let limit = match error {
                Some(_) => 0,
                None => config.max_message_bytes + MAX_HEADER_BYTES,
            };
            prop_assert!(decoder.buffered() <= limit);
            prop_assert!(decoder.in_message() || decoder.buffer_mut().capacity() == 0);
        }
    }

    #[test]
    fn text_comes_out_exactly_if_it_is_utf8(
        payload in prop::collection::vec(
            prop_oneof![any::<u8>(), Just(b'a'), 0x80..0xc0_u8, 0xc2..0xf5_u8],
            0..8,
        ),
        cut: prop::sample::Index,
    ) {
        let (head, tail) = payload.split_at(cut.index(payload.len() + 1));
        let frames = [client_frame(TEXT, head), client_frame(FIN | CONTINUATION, tail)];
        let (events, error) = received(&frames);
        match str::from_utf8(&payload) {
            Ok(text) => prop_assert_eq!(events, [Event::Text(text.into())]),
            Err(_) => prop_assert_eq!(error.map(|error| error.close_code().get()), Some(1007)),
        }
    }
}
