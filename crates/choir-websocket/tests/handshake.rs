//! The opening handshake, on both ends.

use choir_websocket::handshake::{Offer, RequestError, ResponseError, accept_key, check_request, check_response, key};

/// RFC 6455 §1.3.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

const REQUEST: [(&str, &str); 5] = [
    ("Host", "choir.example"),
    ("Upgrade", "websocket"),
    ("Connection", "Upgrade"),
    ("Sec-WebSocket-Key", KEY),
    ("Sec-WebSocket-Version", "13"),
];

const RESPONSE: [(&str, &str); 3] = [
    ("Upgrade", "websocket"),
    ("Connection", "Upgrade"),
    ("Sec-WebSocket-Accept", ACCEPT),
];

const OFFER: Offer<'_> = Offer {
    key: KEY,
    protocols: &["choir.v1.json", "other"],
};

/// The headers with this one's value replaced.
fn with<'h>(headers: &[(&'h str, &'h str)], name: &'h str, value: &'h str) -> Vec<(&'h str, &'h str)> {
    let mut headers = without(headers, name);
    headers.push((name, value));
    headers
}

fn without<'h>(headers: &[(&'h str, &'h str)], name: &str) -> Vec<(&'h str, &'h str)> {
    headers.iter().copied().filter(|(other, _)| *other != name).collect()
}

/// The headers and one more, whether or not there is one of that name.
fn and<'h>(headers: &[(&'h str, &'h str)], name: &'h str, value: &'h str) -> Vec<(&'h str, &'h str)> {
    [headers, &[(name, value)]].concat()
}

fn bytes<'h>(headers: &[(&'h str, &'h str)]) -> Vec<(&'h str, &'h [u8])> {
    headers.iter().map(|(name, value)| (*name, value.as_bytes())).collect()
}

#[track_caller]
fn accepted(headers: &[(&str, &str)]) {
    assert_eq!(
        check_request("GET", bytes(headers)).map(|upgrade| upgrade.accept_key()),
        Ok(ACCEPT.to_owned())
    );
}

#[track_caller]
fn request_refused(headers: &[(&str, &str)], expected: RequestError, status: u16) {
    assert_eq!(check_request("GET", bytes(headers)), Err(expected));
    assert_eq!(expected.status(), status);
}

#[track_caller]
fn response_refused(headers: &[(&str, &str)], expected: ResponseError) {
    assert_eq!(check_response(OFFER, 101, bytes(headers)), Err(expected));
}

#[test]
fn the_rfcs_key_has_the_rfcs_answer() {
    assert_eq!(accept_key(KEY), ACCEPT);
    assert_eq!(key(*b"the sample nonce"), KEY);
}

mod request {
    use super::*;

    #[test]
    fn a_good_one_is_accepted() {
        accepted(&REQUEST);
    }

    #[test]
    fn names_and_tokens_are_read_in_any_case() {
        accepted(&REQUEST.map(|(name, value)| match name {
            "Upgrade" => ("UPGRADE", "WebSocket"),
            "Connection" => ("connection", "keep-alive,\tupgrade"),
            "Sec-WebSocket-Key" => ("sec-websocket-key", " dGhlIHNhbXBsZSBub25jZQ==\t"),
            _ => (name, value),
        }));
    }

    #[test]
    fn a_list_may_be_several_headers() {
        let headers = and(&with(&REQUEST, "Connection", "keep-alive"), "Connection", ", Upgrade");
        accepted(&and(&headers, "Upgrade", "h2c"));
    }

    #[test]
    fn other_methods_are_refused() {
        assert_eq!(check_request("POST", bytes(&REQUEST)), Err(RequestError::NotGet));
        assert_eq!(check_request("get", bytes(&REQUEST)), Err(RequestError::NotGet));
        assert_eq!(RequestError::NotGet.status(), 405);
    }

    #[test]
    fn an_ordinary_request_is_told_to_upgrade() {
        request_refused(&without(&REQUEST, "Upgrade"), RequestError::NoUpgrade, 426);
        request_refused(&with(&REQUEST, "Upgrade", "h2c"), RequestError::NoUpgrade, 426);
        request_refused(&with(&REQUEST, "Upgrade", "websocket2"), RequestError::NoUpgrade, 426);
    }

    #[test]
    fn connection_must_list_upgrade() {
        for headers in [
            without(&REQUEST, "Connection"),
            with(&REQUEST, "Connection", "keep-alive"),
        ] {
            request_refused(&headers, RequestError::NoConnectionUpgrade, 400);
        }
    }

    #[test]
    fn there_must_be_one_host() {
        request_refused(&without(&REQUEST, "Host"), RequestError::NoHost, 400);
        request_refused(&and(&REQUEST, "Host", "other.example"), RequestError::NoHost, 400);
    }

    #[test]
    fn other_versions_are_refused() {
        for version in ["8", "14", "", "013", "13, 8"] {
            let headers = with(&REQUEST, "Sec-WebSocket-Version", version);
            request_refused(&headers, RequestError::WrongVersion, 426);
        }
        let missing = without(&REQUEST, "Sec-WebSocket-Version");
        request_refused(&missing, RequestError::WrongVersion, 426);
        let twice = and(&REQUEST, "Sec-WebSocket-Version", "13");
        request_refused(&twice, RequestError::WrongVersion, 426);
    }

    #[test]
    fn the_key_must_be_sixteen_bytes_in_base64() {
        for bad in [
            "",
            "dGhlIHNhbXBsZSBub25jZQ",     // no padding
            "dGhlIHNhbXBsZSBub25jZR==",   // bits behind the last byte
            "dGhlIHNhbXBsZSBub25jZQ== x", // more
            "dGhlIHNhbXBsZSBub25j",       // 15 bytes
            "dGhlIHNhbXBsZSBub25jZSE=",   // 17 bytes
            "_-hlIHNhbXBsZSBub25jZQ==",   // the alphabet for URLs
        ] {
            request_refused(&with(&REQUEST, "Sec-WebSocket-Key", bad), RequestError::BadKey, 400);
        }
        request_refused(&without(&REQUEST, "Sec-WebSocket-Key"), RequestError::BadKey, 400);
        request_refused(&and(&REQUEST, "Sec-WebSocket-Key", KEY), RequestError::BadKey, 400);
    }

    #[test]
    fn offered_subprotocols_are_listed_in_order() {
        let headers = and(&REQUEST, "Sec-WebSocket-Protocol", "other, choir.v1.json");
        let headers = bytes(&and(&headers, "Sec-WebSocket-Protocol", "third"));
        let upgrade = check_request("GET", headers).unwrap();
        assert_eq!(upgrade.protocols(), ["other", "choir.v1.json", "third"]);
        assert!(upgrade.offers("choir.v1.json"));
        assert!(!upgrade.offers("Choir.v1.json"));
    }

    #[test]
    fn subprotocols_must_be_different_tokens() {
        for bad in ["a, a", "a b", "a/b", "\"a\""] {
            let headers = and(&REQUEST, "Sec-WebSocket-Protocol", bad);
            request_refused(&headers, RequestError::BadProtocols, 400);
        }
    }

    #[test]
    fn offered_extensions_are_passed_on() {
        let offer = "permessage-deflate; client_max_window_bits";
        let headers = bytes(&and(&REQUEST, "Sec-WebSocket-Extensions", offer));
        assert_eq!(check_request("GET", headers).unwrap().extensions(), [offer]);
    }

    #[test]
    fn bytes_beyond_ascii_are_refused_where_they_matter() {
        let mut headers = bytes(&REQUEST);
        headers.push(("Cookie", b"\xff"));
        assert!(check_request("GET", headers.clone()).is_ok());
        headers.push(("Sec-WebSocket-Protocol", b"\xff"));
        let error = check_request("GET", headers).unwrap_err();
        assert_eq!(error.to_string(), "sec-websocket-protocol isn't ASCII");
        assert_eq!(error.status(), 400);
    }
}

mod response {
    use super::*;

    #[test]
    fn a_good_one_names_the_chosen_subprotocol() {
        assert_eq!(check_response(OFFER, 101, bytes(&RESPONSE)), Ok(None));
        let headers = and(&RESPONSE, "Sec-WebSocket-Protocol", "choir.v1.json");
        assert_eq!(check_response(OFFER, 101, bytes(&headers)), Ok(Some("choir.v1.json")));
    }

    #[test]
    fn other_statuses_are_refused() {
        for status in [200, 301, 401, 426, 503] {
            let error = ResponseError::Status { status };
            assert_eq!(check_response(OFFER, status, bytes(&RESPONSE)), Err(error));
        }
    }

    #[test]
    fn it_must_say_what_is_switched_to() {
        response_refused(&without(&RESPONSE, "Upgrade"), ResponseError::NoUpgrade);
        response_refused(&with(&RESPONSE, "Upgrade", "h2c"), ResponseError::NoUpgrade);
        response_refused(&without(&RESPONSE, "Connection"), ResponseError::NoConnectionUpgrade);
        let closing = with(&RESPONSE, "Connection", "close");
        response_refused(&closing, ResponseError::NoConnectionUpgrade);
    }

    #[test]
    fn it_must_belong_to_the_key() {
        let missing = without(&RESPONSE, "Sec-WebSocket-Accept");
        response_refused(&missing, ResponseError::WrongAccept);
        for wrong in ["", KEY, "S3pPLMBiTxaQ9kYGzzhZRbK+xOo="] {
            let headers = with(&RESPONSE, "Sec-WebSocket-Accept", wrong);
            response_refused(&headers, ResponseError::WrongAccept);
        }
        let twice = and(&RESPONSE, "Sec-WebSocket-Accept", ACCEPT);
        response_refused(&twice, ResponseError::WrongAccept);
    }

    #[test]
    fn it_may_choose_only_what_was_offered() {
        for protocol in ["choir.v2.json", "Other", "", "choir.v1.json, other"] {
            let headers = and(&RESPONSE, "Sec-WebSocket-Protocol", protocol);
            response_refused(&headers, ResponseError::UnaskedProtocol);
        }
        let two = and(&RESPONSE, "Sec-WebSocket-Protocol", "choir.v1.json");
        let two = and(&two, "Sec-WebSocket-Protocol", "other");
        response_refused(&two, ResponseError::UnaskedProtocol);
        let extension = and(&RESPONSE, "Sec-WebSocket-Extensions", "permessage-deflate");
        response_refused(&extension, ResponseError::UnaskedExtension);
    }
}
