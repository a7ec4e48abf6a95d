//! What the decoder takes and what it refuses, rule by rule.

mod wire;

use choir_websocket::{CloseCode, CloseFrame, Config, Decoder, Event, MessageKind, ProtocolError, Role};
use wire::*;

fn text(text: &str) -> Event {
    Event::Text(text.into())
}

fn binary(bytes: &'static [u8]) -> Event {
    Event::Binary(bytes.into())
}

fn ping(bytes: &'static [u8]) -> Event {
    Event::Ping(bytes.into())
}

mod messages {
    use super::*;

    /// RFC 6455 §5.7, the examples of a server.
    #[test]
    fn the_rfcs_unmasked_examples_decode() {
        let wire: &[&[u8]] = &[
            b"\x81\x05\x48\x65\x6c\x6c\x6f",
            b"\x01\x03\x48\x65\x6c\x80\x02\x6c\x6f",
            b"\x89\x05\x48\x65\x6c\x6c\x6f",
        ];
        let (events, error) = decode(Config::new(Role::Client), wire.iter().copied());
        assert_eq!(events, [text("Hello"), text("Hello"), ping(b"Hello")]);
        assert_eq!(error, None);
    }

    /// RFC 6455 §5.7, the examples of a client.
    #[test]
    fn the_rfcs_masked_examples_decode() {
        let wire: &[&[u8]] = &[
            b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58",
            b"\x8a\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58",
        ];
        let (events, error) = decode(Config::new(Role::Server), wire.iter().copied());
        assert_eq!(events, [text("Hello"), Event::Pong("Hello".into())]);
        assert_eq!(error, None);
    }

    #[test]
    fn every_form_of_length_is_read() {
        for length in [0, 1, 125, 126, 127, 128, 65_535, 65_536, 65_537, 256 * 1024] {
            let payload: Vec<u8> = (0..length).map(|at| at as u8).collect();
            let (events, error) = received(&[client_frame(FIN | BINARY, &payload)]);
            assert_eq!(events, [Event::Binary(payload.into())]);
            assert_eq!(error, None);
        }
    }

    #[test]
    fn control_frames_come_between_fragments() {
        let (events, error) = received(&[
            client_frame(TEXT, b"one, "),
            client_frame(FIN | PING, b"?"),
            client_frame(CONTINUATION, b"two, "),
            client_frame(FIN | PONG, b""),
            client_frame(FIN | CONTINUATION, b"three"),
            client_frame(FIN | BINARY, b"next"),
        ]);
        assert_eq!(
            events,
            [
                ping(b"?"),
                Event::Pong("".into()),
                text("one, two, three"),
                binary(b"next")
            ]
        );
        assert_eq!(error, None);
    }

    #[test]
    fn a_close_frame_inside_a_message_ends_both() {
        let (events, error) = received(&[
            client_frame(TEXT, b"never finished"),
            client_frame(FIN | CLOSE, &1001_u16.to_be_bytes()),
        ]);
        let close = CloseFrame {
            code: CloseCode::GOING_AWAY,
            reason: String::new(),
        };
        assert_eq!(events, [Event::Close(Some(close))]);
        assert_eq!(error, None);
    }

    #[test]
    fn empty_fragments_make_an_empty_message() {
        let (events, error) = received(&[
            client_frame(TEXT, b""),
            client_frame(CONTINUATION, b""),
            client_frame(FIN | CONTINUATION, b""),
        ]);
        assert_eq!(events, [text("")]);
        assert_eq!(error, None);
    }

    #[test]
    fn what_follows_a_close_frame_is_dropped() {
        let mut decoder = server();
        decoder.feed(&client_frame(FIN | CLOSE, b""));
        decoder.feed(&client_frame(FIN | TEXT, b"late"));
        assert_eq!(drain(&mut decoder), (vec![Event::Close(None)], None));
        decoder.feed(b"\xff\xff\xff");
        assert_eq!(drain(&mut decoder), (vec![], None));
        assert_eq!(decoder.buffered(), 0);
        assert!(!decoder.in_message());
    }

    #[test]
    fn a_failed_decoder_stays_failed() {
        let mut decoder = server();
        decoder.feed(&client_frame(FIN | 0x3, b""));
        let failed = Err(ProtocolError::ReservedOpcode { opcode: 3 });
        assert_eq!(decoder.poll(), failed);
        decoder.feed(&client_frame(FIN | TEXT, b"good again"));
        assert_eq!(decoder.poll(), failed);
        assert_eq!(decoder.poll(), failed);
        assert_eq!(decoder.buffered(), 0);
        assert!(!decoder.in_message());
    }

    #[test]
    fn messages_before_a_broken_frame_are_delivered() {
        let (events, error) = received(&[client_frame(FIN | TEXT, b"good"), client_frame(FIN | 0xf, b"")]);
        assert_eq!(events, [text("good")]);
        assert_eq!(error, Some(ProtocolError::ReservedOpcode { opcode: 0xf }));
    }
}

mod broken_frames {
    use super::*;

    #[test]
    fn an_unmasked_frame_of_a_client_is_refused() {
        refused(
            &[server_frame(FIN | TEXT, b"hello")],
            2,
            ProtocolError::UnmaskedByClient,
        );
        refused(&[server_frame(FIN | PING, b"")], 2, ProtocolError::UnmaskedByClient);
    }

    #[test]
    fn a_masked_frame_of_a_server_is_refused() {
        for frame in [client_frame(FIN | TEXT, b"hello"), client_frame(FIN | CLOSE, b"")] {
            let (events, error) = decode(Config::new(Role::Client), [&frame[..2]]);
            assert_eq!(events, []);
            assert_eq!(error, Some(ProtocolError::MaskedByServer));
        }
    }

    #[test]
    fn each_reserved_bit_is_refused_on_each_opcode() {
        for opcode in [CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG] {
            for bits in [0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70] {
                let frame = client_frame(FIN | bits | opcode, b"");
                refused(&[frame], 1, ProtocolError::ReservedBits { bits });
            }
        }
    }

    #[test]
    fn reserved_opcodes_are_refused() {
        for opcode in [0x3, 0x4, 0x5, 0x6, 0x7, 0xb, 0xc, 0xd, 0xe, 0xf] {
            for fin in [0, FIN] {
                let frame = client_frame(fin | opcode, b"");
                refused(&[frame], 1, ProtocolError::ReservedOpcode { opcode });
            }
        }
    }

    #[test]
    fn fragmented_control_frames_are_refused() {
        for opcode in [CLOSE, PING, PONG] {
            refused(&[client_frame(opcode, b"")], 1, ProtocolError::FragmentedControl);
        }
    }

    #[test]
    fn control_frames_over_125_bytes_are_refused() {
        for opcode in [CLOSE, PING, PONG] {
            refused(
                &[client_frame(FIN | opcode, &[0; 126])],
                2,
                ProtocolError::ControlTooLong,
            );
            let mut long = client_frame(FIN | opcode, &[0; 65_536]);
            long.truncate(32);
            refused(&[long], 2, ProtocolError::ControlTooLong);
        }
        let (events, error) = received(&[client_frame(FIN | PING, &[7; 125])]);
        assert_eq!(events, [ping(&[7; 125])]);
        assert_eq!(error, None);
    }

    #[test]
    fn a_continuation_without_a_start_is_refused() {
        for first in [CONTINUATION, FIN | CONTINUATION] {
            refused(&[client_frame(first, b"x")], 1, ProtocolError::UnexpectedContinuation);
        }
        let whole = client_frame(FIN | TEXT, b"whole");
        let continuation = client_frame(FIN | CONTINUATION, b"x");
        refused(&[whole, continuation], 1, ProtocolError::UnexpectedContinuation);
    }

    #[test]
    fn a_new_message_inside_an_unfinished_one_is_refused() {
        for first in [TEXT, BINARY, FIN | TEXT, FIN | BINARY] {
            let frames = [client_frame(TEXT, b"begun"), client_frame(first, b"x")];
            refused(&frames, 1, ProtocolError::ExpectedContinuation);
        }
    }

    #[test]
    fn lengths_in_more_bytes_than_needed_are_refused() {
        for length in [0_u16, 1, 125] {
            let [high, low] = length.to_be_bytes();
            let frame = vec![FIN | BINARY, 0x80 | 126, high, low, 0, 0, 0, 0];
            let bytes = length.into();
            refused(&[frame], 4, ProtocolError::LengthNotMinimal { bytes });
        }
        for bytes in [0_u64, 125, 126, 65_535] {
            let mut frame = vec![FIN | BINARY, 0x80 | 127];
            frame.extend(bytes.to_be_bytes());
            refused(&[frame], 10, ProtocolError::LengthNotMinimal { bytes });
        }
    }

    #[test]
    fn lengths_with_the_highest_bit_are_refused() {
        for bytes in [1 << 63, u64::MAX, (1 << 63) | 5] {
            let mut frame = vec![FIN | BINARY, 0x80 | 127];
            frame.extend(bytes.to_be_bytes());
            refused(&[frame], 10, ProtocolError::LengthOutOfRange { bytes });
        }
    }
}

mod closing {
    use super::*;

    fn close_payload(code: u16, reason: &[u8]) -> Vec<u8> {
        [&code.to_be_bytes(), reason].concat()
    }

    #[test]
    fn a_close_frame_says_code_and_reason() {
        let payload = close_payload(4401, "sign in anew – bitte".as_bytes());
        let (events, _) = received(&[client_frame(FIN | CLOSE, &payload)]);
        let [Event::Close(Some(close))] = &events[..] else {
            panic!("{events:?}");
        };
        assert_eq!(close.code.get(), 4401);
        assert_eq!(close.reason, "sign in anew – bitte");
    }

    #[test]
    fn a_close_frame_may_be_empty() {
        assert_eq!(
            received(&[client_frame(FIN | CLOSE, b"")]),
            (vec![Event::Close(None)], None)
        );
    }

    #[test]
    fn a_close_frame_of_one_byte_is_refused() {
        let frame = client_frame(FIN | CLOSE, b"\x03");
        let at = frame.len();
        refused(&[frame], at, ProtocolError::ClosePayloadTooShort);
    }

    #[test]
    fn close_codes_that_may_not_be_sent_are_refused() {
        let allowed = |code| matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
        for code in 0..=u16::MAX {
            let (events, error) = received(&[client_frame(FIN | CLOSE, &close_payload(code, b""))]);
            if allowed(code) {
                assert!(matches!(&events[..], [Event::Close(Some(close))] if close.code.get() == code));
            } else {
                assert_eq!(error, Some(ProtocolError::CloseCodeNotAllowed { code }));
            }
        }
    }

    #[test]
    fn a_close_reason_that_is_not_utf8_is_refused() {
        for reason in [&b"\xff"[..], b"cut \xe2\x82", b"\xed\xa0\x80"] {
            let (events, error) = received(&[client_frame(FIN | CLOSE, &close_payload(1000, reason))]);
            assert_eq!(events, []);
            assert_eq!(error, Some(ProtocolError::CloseReasonNotUtf8));
        }
    }
}

mod utf8 {
    use super::*;

    /// κόσμε, then the four bytes of what would be U+110000.
    const ABOVE_UNICODE: &[u8] = b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xf4\x90\x80\x80edited";
    /// The first byte at which it can only be wrong: no character begins F4 90.
    const WRONG_AT: usize = 13;

    #[test]
    fn a_bad_byte_fails_before_the_rest_of_its_frame() {
        const HEADER_BYTES: usize = 6;
        let frame = client_frame(FIN | TEXT, ABOVE_UNICODE);
        refused(&[frame], HEADER_BYTES + WRONG_AT, ProtocolError::TextNotUtf8);
    }

    #[test]
    fn a_bad_byte_fails_before_the_message_is_complete() {
        let (before, from) = ABOVE_UNICODE.split_at(WRONG_AT - 1);
        let frames = [client_frame(TEXT, before), client_frame(CONTINUATION, &from[..1])];
        let (_, error) = received(&frames);
        assert_eq!(error, Some(ProtocolError::TextNotUtf8));
    }

    #[test]
    fn a_character_may_be_cut_by_fragments() {
        let smile = "😀".as_bytes();
        for cut in 0..=smile.len() {
            let (events, error) = received(&[
                client_frame(TEXT, &smile[..cut]),
                client_frame(FIN | PING, b"between"),
                client_frame(FIN | CONTINUATION, &smile[cut..]),
            ]);
            assert_eq!(events, [ping(b"between"), text("😀")]);
            assert_eq!(error, None);
        }
    }

    #[test]
    fn text_that_ends_within_a_character_is_refused() {
        for frames in [
            vec![client_frame(FIN | TEXT, b"\xe2\x82")],
            vec![client_frame(TEXT, b"\xe2\x82"), client_frame(FIN | CONTINUATION, b"")],
        ] {
            assert_eq!(received(&frames), (vec![], Some(ProtocolError::TextNotUtf8)));
        }
    }

    #[test]
    fn binary_messages_may_hold_any_bytes() {
        let (events, error) = received(&[
            client_frame(BINARY, b"\xff\xfe"),
            client_frame(FIN | CONTINUATION, b"\xc0\x80"),
        ]);
        assert_eq!(events, [binary(b"\xff\xfe\xc0\x80")]);
        assert_eq!(error, None);
    }

    #[test]
    fn a_good_message_does_not_excuse_the_next() {
        let (events, error) = received(&[
            client_frame(FIN | TEXT, "gut – ja".as_bytes()),
            client_frame(FIN | TEXT, b"\x80"),
        ]);
        assert_eq!(events, [text("gut – ja")]);
        assert_eq!(error, Some(ProtocolError::TextNotUtf8));
    }
}

mod limits {
    use super::*;

    const LIMIT: usize = 1000;

    fn small() -> Config {
        Config {
            max_message_bytes: LIMIT,
            max_fragments: 3,
            ..Config::new(Role::Server)
        }
    }

    fn too_long(bytes: u64) -> ProtocolError {
        ProtocolError::MessageTooLong { bytes, limit: LIMIT }
    }

    #[test]
    fn a_message_over_the_limit_is_refused_at_its_header() {
        let frame = client_frame(FIN | BINARY, &[0; LIMIT + 1]);
        assert_eq!(decode(small(), [&frame[..3]]), (vec![], None));
        assert_eq!(decode(small(), [&frame[..4]]), (vec![], Some(too_long(1001))));
    }

    #[test]
    fn the_longest_length_is_refused_at_its_header() {
        let mut frame = vec![FIN | BINARY, 0x80 | 127];
        frame.extend((u64::MAX >> 1).to_be_bytes());
        assert_eq!(decode(small(), [&*frame]), (vec![], Some(too_long(u64::MAX >> 1))));

        let begun = client_frame(BINARY, b"begun");
        frame[0] = FIN | CONTINUATION;
        let sum = (u64::MAX >> 1) + 5;
        assert_eq!(decode(small(), [&*begun, &*frame]), (vec![], Some(too_long(sum))));
    }

    #[test]
    fn a_message_at_the_limit_passes() {
        let frame = client_frame(FIN | BINARY, &[0; LIMIT]);
        assert_eq!(
            decode(small(), [&*frame]),
            (vec![Event::Binary(vec![0; LIMIT].into())], None)
        );
    }

    #[test]
    fn fragments_count_together() {
        let first = client_frame(BINARY, &[0; 600]);
        let good = client_frame(FIN | CONTINUATION, &[0; 400]);
        let bad = client_frame(FIN | CONTINUATION, &[0; 401]);
        let whole = Event::Binary(vec![0; LIMIT].into());
        assert_eq!(decode(small(), [&*first, &good]), (vec![whole], None));
        assert_eq!(decode(small(), [&*first, &bad[..4]]), (vec![], Some(too_long(1001))));
    }

    #[test]
    fn control_frames_do_not_count_as_message() {
        let config = Config {
            max_message_bytes: 10,
            ..small()
        };
        let frames = [
            client_frame(BINARY, &[0; 10]),
            client_frame(FIN | PING, &[1; 125]),
            client_frame(FIN | CONTINUATION, b""),
        ];
        let (events, error) = decode(config, [&*frames.concat()]);
        assert_eq!(events, [ping(&[1; 125]), binary(&[0; 10])]);
        assert_eq!(error, None);
    }

    #[test]
    fn empty_fragments_count_as_fragments() {
        let first = client_frame(TEXT, b"");
        let next = client_frame(CONTINUATION, b"");
        let last = client_frame(FIN | CONTINUATION, b"");
        let three = [&*first, &next, &last];
        assert_eq!(decode(small(), three), (vec![text("")], None));
        let error = Some(ProtocolError::TooManyFragments { limit: 3 });
        assert_eq!(decode(small(), [&*first, &next, &next, &next[..1]]), (vec![], error));
        assert_eq!(decode(small(), [&*first, &next, &next, &last[..1]]), (vec![], error));
    }

    #[test]
    fn each_message_has_its_own_fragments() {
        let message = [client_frame(TEXT, b"a"), client_frame(FIN | CONTINUATION, b"b")].concat();
        let (events, error) = decode(small(), [&*message.repeat(5)]);
        assert_eq!(events, vec![text("ab"); 5]);
        assert_eq!(error, None);
    }
}

mod memory {
    use super::*;

    fn holds_nothing(decoder: &mut Decoder) -> bool {
        decoder.buffered() == 0 && decoder.buffer_mut().capacity() == 0
    }

    #[test]
    fn a_decoder_between_messages_holds_no_buffer() {
        let mut decoder = server();
        assert!(holds_nothing(&mut decoder));
        for frames in [
            vec![client_frame(FIN | TEXT, b"hello")],
            vec![client_frame(TEXT, b"hel"), client_frame(FIN | CONTINUATION, b"lo")],
            vec![client_frame(FIN | PING, b"?")],
            vec![client_frame(FIN | BINARY, b"")],
            vec![client_frame(FIN | BINARY, &[0; 100_000])],
        ] {
            decoder.buffer_mut().reserve(16 * 1024);
            decoder.feed(&frames.concat());
            drain(&mut decoder);
            assert!(holds_nothing(&mut decoder));
            assert!(!decoder.in_message());
        }
    }

    #[test]
    fn a_read_that_found_nothing_leaves_no_buffer() {
        let mut decoder = server();
        decoder.buffer_mut().reserve(16 * 1024);
        assert_eq!(decoder.poll(), Ok(None));
        assert!(holds_nothing(&mut decoder));
    }

    #[test]
    fn fragments_do_not_stay_in_the_receive_buffer() {
        let mut decoder = server();
        let frame = client_frame(BINARY, &[0; 50_000]);
        for piece in frame.chunks(1000) {
            decoder.feed(piece);
            drain(&mut decoder);
            assert!(holds_nothing(&mut decoder));
        }
        assert!(decoder.in_message());
    }

    #[test]
    fn a_failure_frees_everything() {
        let mut decoder = server();
        decoder.feed(&client_frame(BINARY, &[0; 50_000]));
        decoder.feed(&client_frame(FIN | BINARY, &[0; 50_000]));
        assert_eq!(drain(&mut decoder), (vec![], Some(ProtocolError::ExpectedContinuation)));
        assert!(holds_nothing(&mut decoder));
    }

    #[test]
    fn a_whole_message_is_not_copied() {
        let mut decoder = server();
        decoder.feed(&client_frame(FIN | BINARY, &[0; 1000]));
        let received_at = decoder.buffer_mut().as_ptr_range();
        let Ok(Some(Event::Binary(payload))) = decoder.poll() else {
            panic!("a message is there");
        };
        assert!(received_at.contains(&payload.as_ptr()));
    }
}

mod progress {
    use super::*;

    #[test]
    fn a_message_is_in_progress_until_its_last_byte() {
        let frames = [client_frame(TEXT, b"hel"), client_frame(FIN | CONTINUATION, b"lo")].concat();
        let mut decoder = server();
        assert!(!decoder.in_message());
        let (last, before) = frames.split_last().unwrap();
        for byte in before {
            decoder.feed(&[*byte]);
            assert_eq!(decoder.poll(), Ok(None));
            assert!(decoder.in_message());
        }
        decoder.feed(&[*last]);
        assert_eq!(decoder.poll(), Ok(Some(text("hello"))));
        assert!(!decoder.in_message());
    }

    #[test]
    fn a_ping_does_not_finish_a_message() {
        let mut decoder = server();
        decoder.feed(&client_frame(TEXT, b"begun"));
        decoder.feed(&client_frame(FIN | PING, b""));
        assert_eq!(drain(&mut decoder), (vec![ping(b"")], None));
        assert!(decoder.in_message());
    }
}

mod compression {
    use super::*;

    const RSV1: u8 = 0x40;

    fn agreed() -> Config {
        Config {
            allow_compressed: true,
            ..Config::new(Role::Server)
        }
    }

    #[test]
    fn compressed_messages_come_out_as_they_are() {
        let frames = [
            client_frame(FIN | RSV1 | TEXT, b"\xff deflated"),
            client_frame(RSV1 | BINARY, b"in "),
            client_frame(FIN | CONTINUATION, b"two"),
            client_frame(FIN | TEXT, b"plain"),
        ];
        let (events, error) = decode(agreed(), [&*frames.concat()]);
        let compressed = |kind, payload: &'static [u8]| Event::Compressed {
            kind,
            payload: payload.into(),
        };
        assert_eq!(
            events,
            [
                compressed(MessageKind::Text, b"\xff deflated"),
                compressed(MessageKind::Binary, b"in two"),
                text("plain"),
            ]
        );
        assert_eq!(error, None);
    }

    /// RFC 7692 §6.1.
    #[test]
    fn only_the_first_frame_of_a_message_says_that_it_is_compressed() {
        let begun = client_frame(RSV1 | TEXT, b"x");
        for first in [RSV1 | CONTINUATION, FIN | RSV1 | PING, FIN | RSV1 | CLOSE] {
            let (_, error) = decode(agreed(), [&*begun, &client_frame(first, b"")]);
            assert_eq!(error, Some(ProtocolError::ReservedBits { bits: RSV1 }));
        }
    }

    #[test]
    fn the_other_bits_stay_reserved() {
        for bits in [0x10, 0x20, 0x50, 0x60, 0x70] {
            let (_, error) = decode(agreed(), [&*client_frame(FIN | bits | TEXT, b"")]);
            assert_eq!(error, Some(ProtocolError::ReservedBits { bits }));
        }
    }
}

/// The codes of the protocol's own table (protocol §3 E4, §11).
#[test]
fn each_error_names_its_close_code() {
    for (frames, code) in [
        (vec![client_frame(FIN | 0x3, b"")], 1002),
        (vec![server_frame(FIN | TEXT, b"")], 1002),
        (vec![client_frame(FIN | CLOSE, b"\x03\xed")], 1002),
        (vec![client_frame(FIN | TEXT, b"\xff")], 1007),
        (vec![client_frame(FIN | CLOSE, b"\x03\xe8\xff")], 1007),
        (vec![client_frame(FIN | BINARY, &[0; 256 * 1024 + 1])], 1009),
        (
            [
                vec![client_frame(TEXT, b"")],
                vec![client_frame(CONTINUATION, b""); 1024],
            ]
            .concat(),
            1009,
        ),
    ] {
        let (_, error) = received(&frames);
        assert_eq!(error.map(|error| error.close_code().get()), Some(code), "{error:?}");
    }
}
