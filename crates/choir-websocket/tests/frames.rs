//! What the writers put on the wire.

mod wire;

use bytes::BytesMut;
use choir_websocket::{CloseCode, CloseFrame, Frame, Header, MessageKind, Opcode, masked, write_frame};
use wire::*;

#[test]
fn a_servers_frame_is_header_and_payload() {
    for length in [0, 1, 125, 126, 65_535, 65_536] {
        let payload = "x".repeat(length);
        let bytes = payload.as_bytes();
        assert_eq!(Frame::text(&payload).as_bytes(), server_frame(FIN | TEXT, bytes));
        assert_eq!(Frame::binary(bytes).as_bytes(), server_frame(FIN | BINARY, bytes));
    }
    assert_eq!(Frame::ping(b"?").as_bytes(), server_frame(FIN | PING, b"?"));
    assert_eq!(Frame::pong(&[7; 125]).as_bytes(), server_frame(FIN | PONG, &[7; 125]));
}

#[test]
fn clones_of_a_frame_share_its_bytes() {
    let frame = Frame::text("to many");
    assert_eq!(frame.as_bytes().as_ptr(), frame.clone().into_bytes().as_ptr());
}

#[test]
fn a_compressed_frame_bears_rsv1() {
    let frame = Frame::compressed(MessageKind::Text, b"\x00\x01");
    assert_eq!(frame.as_bytes(), server_frame(FIN | 0x40 | TEXT, b"\x00\x01"));
}

#[test]
fn a_clients_frame_is_masked() {
    for length in [0, 1, 7, 8, 9, 125, 126, 65_536] {
        let payload = vec![0xa5; length];
        let mut out = BytesMut::from("before");
        masked(Opcode::Binary, &payload, KEY, &mut out);
        assert_eq!(out, [b"before", &*client_frame(FIN | BINARY, &payload)].concat());
    }
}

#[test]
fn fragments_are_written_by_their_headers() {
    let mut out = BytesMut::new();
    let start = Header {
        fin: false,
        mask: Some(KEY),
        ..Header::whole(Opcode::Text)
    };
    let end = Header {
        opcode: Opcode::Continuation,
        fin: true,
        ..start
    };
    write_frame(start, b"hel", &mut out);
    write_frame(end, b"lo", &mut out);
    assert_eq!(
        out,
        [client_frame(TEXT, b"hel"), client_frame(FIN | CONTINUATION, b"lo")].concat()
    );
}

#[test]
fn a_close_frame_carries_code_and_reason() {
    let frame = Frame::close(CloseCode::NORMAL, "bye");
    assert_eq!(frame.as_bytes(), server_frame(FIN | CLOSE, b"\x03\xe8bye"));
}

#[test]
fn a_long_close_reason_is_cut_after_a_whole_character() {
    let frame = Frame::close(CloseCode::NORMAL, &"ä".repeat(100));
    let expected = ["\u{3}".as_bytes(), b"\xe8", "ä".repeat(61).as_bytes()].concat();
    assert_eq!(frame.as_bytes(), server_frame(FIN | CLOSE, &expected));
}

#[test]
fn a_close_frame_is_answered_in_kind() {
    assert_eq!(Frame::answer_to_close(None).as_bytes(), server_frame(FIN | CLOSE, b""));
    let close = CloseFrame {
        code: CloseCode::GOING_AWAY,
        reason: "leaving".to_owned(),
    };
    let answer = Frame::answer_to_close(Some(&close));
    assert_eq!(answer.as_bytes(), server_frame(FIN | CLOSE, b"\x03\xe9"));
}

#[test]
#[should_panic = "a control frame of 126 bytes"]
fn a_ping_of_126_bytes_is_the_callers_mistake() {
    let _ = Frame::ping(&[0; 126]);
}

#[test]
#[should_panic = "neither fragmented nor compressed"]
fn a_fragmented_ping_is_the_callers_mistake() {
    write_frame(
        Header {
            fin: false,
            ..Header::whole(Opcode::Ping)
        },
        b"",
        &mut BytesMut::new(),
    );
}
