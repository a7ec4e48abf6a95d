//! The opening handshake (RFC 6455 §4), as functions over headers that an HTTP library has parsed.
//!
//! Headers are pairs of a name, in any case, and a value. What is checked is what RFC 6455 adds to
//! HTTP; the caller has seen to HTTP itself (version 1.1, no body, well-formed headers), to the
//! path, and to `Origin`.

use core::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};

/// What is hashed together with the key, so that nobody but a WebSocket server gives the answer by
/// accident (RFC 6455 §1.3).
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

const CONNECTION: &str = "connection";
const HOST: &str = "host";
const UPGRADE: &str = "upgrade";
const SEC_WEBSOCKET_ACCEPT: &str = "sec-websocket-accept";
const SEC_WEBSOCKET_EXTENSIONS: &str = "sec-websocket-extensions";
const SEC_WEBSOCKET_KEY: &str = "sec-websocket-key";
const SEC_WEBSOCKET_PROTOCOL: &str = "sec-websocket-protocol";
const SEC_WEBSOCKET_VERSION: &str = "sec-websocket-version";

/// The version of the protocol, for `Sec-WebSocket-Version` (RFC 6455 §4.1).
pub const VERSION: &str = "13";

/// The `Sec-WebSocket-Accept` that belongs to a `Sec-WebSocket-Key` (RFC 6455 §4.2.2).
///
/// SHA-1 is no use of cryptography here: the answer shows that the server speaks WebSocket, not who
/// it is.
#[must_use]
pub fn accept_key(sec_websocket_key: &str) -> String {
    STANDARD.encode(
        Sha1::new()
            .chain_update(sec_websocket_key)
            .chain_update(GUID)
            .finalize(),
    )
}

/// The `Sec-WebSocket-Key` of a new connection, made of 16 random bytes (RFC 6455 §4.1).
#[must_use]
pub fn key(random: [u8; 16]) -> String {
    STANDARD.encode(random)
}

/// An upgrade request that keeps RFC 6455 §4.2.1.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Upgrade<'h> {
    key: &'h str,
    protocols: Vec<&'h str>,
    extensions: Vec<&'h str>,
}

impl<'h> Upgrade<'h> {
    /// The value of the answer's `Sec-WebSocket-Accept`.
    #[must_use]
    pub fn accept_key(&self) -> String {
        accept_key(self.key)
    }

    /// The subprotocols that the client speaks, the one that it likes best first (RFC 6455 §1.9).
    #[must_use]
    pub fn protocols(&self) -> &[&'h str] {
        &self.protocols
    }

    /// Whether the client speaks this subprotocol. Names differ by case (RFC 6455 §11.3.4 compares
    /// them as they are).
    #[must_use]
    pub fn offers(&self, protocol: &str) -> bool {
        self.protocols.contains(&protocol)
    }

    /// The values of `Sec-WebSocket-Extensions`, one for each header, not taken apart (RFC 6455
    /// §9.1). To accept none is to leave the header out of the answer.
    #[must_use]
    pub fn extensions(&self) -> &[&'h str] {
        &self.extensions
    }
}

/// Checks an upgrade request, on the server (RFC 6455 §4.2.1).
///
/// # Errors
///
/// The first thing that is wrong with it, and by [`RequestError::status`] how HTTP says so.
pub fn check_request<'h>(
    method: &str,
    headers: impl IntoIterator<Item = (&'h str, &'h [u8])>,
) -> Result<Upgrade<'h>, RequestError> {
    let headers = Headers::collect(headers).map_err(RequestError::NotText)?;
    if method != "GET" {
        return Err(RequestError::NotGet);
    }
    if !headers.has_token(UPGRADE, "websocket") {
        return Err(RequestError::NoUpgrade);
    }
    if !headers.has_token(CONNECTION, "upgrade") {
        return Err(RequestError::NoConnectionUpgrade);
    }
    headers.single(HOST).ok_or(RequestError::NoHost)?;
    if headers.single(SEC_WEBSOCKET_VERSION) != Some(VERSION) {
        return Err(RequestError::WrongVersion);
    }
    let key = headers
        .single(SEC_WEBSOCKET_KEY)
        .filter(|key| is_key(key))
        .ok_or(RequestError::BadKey)?;
    let protocols: Vec<_> = headers.list(SEC_WEBSOCKET_PROTOCOL).collect();
    let repeats = |at: usize| protocols[..at].contains(&protocols[at]);
    if (0..protocols.len()).any(|at| !is_token(protocols[at]) || repeats(at)) {
        return Err(RequestError::BadProtocols);
    }
    Ok(Upgrade {
        key,
        protocols,
        extensions: headers.all(SEC_WEBSOCKET_EXTENSIONS).collect(),
    })
}

/// What a client asked for in its upgrade request, to check the answer against.
#[derive(Clone, Copy, Debug)]
pub struct Offer<'a> {
    /// The `Sec-WebSocket-Key`.
    pub key: &'a str,
    /// The subprotocols.
    pub protocols: &'a [&'a str],
}

/// Checks the answer to an upgrade request, on the client (RFC 6455 §4.1), and says which of the
/// offered subprotocols the server chose, if any. No extension is ever offered, so none may be
/// accepted.
///
/// # Errors
///
/// The first thing that is wrong with it. The connection is to be dropped then.
pub fn check_response<'h>(
    offer: Offer<'_>,
    status: u16,
    headers: impl IntoIterator<Item = (&'h str, &'h [u8])>,
) -> Result<Option<&'h str>, ResponseError> {
    if status != 101 {
        return Err(ResponseError::Status { status });
    }
    let headers = Headers::collect(headers).map_err(ResponseError::NotText)?;
    if !headers
        .single(UPGRADE)
        .is_some_and(|value| value.eq_ignore_ascii_case("websocket"))
    {
        return Err(ResponseError::NoUpgrade);
    }
    if !headers.has_token(CONNECTION, "upgrade") {
        return Err(ResponseError::NoConnectionUpgrade);
    }
    if headers.single(SEC_WEBSOCKET_ACCEPT) != Some(&*accept_key(offer.key)) {
        return Err(ResponseError::WrongAccept);
    }
    if headers.list(SEC_WEBSOCKET_EXTENSIONS).next().is_some() {
        return Err(ResponseError::UnaskedExtension);
    }
    let mut chosen = headers.all(SEC_WEBSOCKET_PROTOCOL);
    match (chosen.next(), chosen.next()) {
        (None, _) => Ok(None),
        (Some(protocol), None) if offer.protocols.contains(&protocol) => Ok(Some(protocol)),
        _ => Err(ResponseError::UnaskedProtocol),
    }
}

/// Why a request doesn't become a WebSocket connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum RequestError {
    /// The method isn't `GET`.
    NotGet,
    /// `Upgrade` doesn't list `websocket`: an ordinary request, most likely.
    NoUpgrade,
    /// `Connection` doesn't list `Upgrade`.
    NoConnectionUpgrade,
    /// `Host` is missing or there are several.
    NoHost,
    /// `Sec-WebSocket-Version` isn't 13, or not there once.
    WrongVersion,
    /// `Sec-WebSocket-Key` isn't 16 bytes in base64, or not there once.
    BadKey,
    /// `Sec-WebSocket-Protocol` isn't a list of tokens, or one stands there twice.
    BadProtocols,
    /// This header's value holds bytes beyond ASCII.
    NotText(Header),
}

impl RequestError {
    /// The HTTP status to answer with (RFC 6455 §4.2.2, §4.4; RFC 9110 §15.5). With 426 belong
    /// `Upgrade: websocket` and `Sec-WebSocket-Version: 13`, with 405 `Allow: GET`.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::NotGet => 405,
            Self::NoUpgrade | Self::WrongVersion => 426,
            Self::NoConnectionUpgrade | Self::NoHost | Self::BadKey | Self::BadProtocols | Self::NotText(_) => 400,
        }
    }
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotGet => f.write_str("the method of an upgrade request must be GET"),
            Self::NoUpgrade => f.write_str("Upgrade doesn't list websocket"),
            Self::NoConnectionUpgrade => f.write_str("Connection doesn't list Upgrade"),
            Self::NoHost => f.write_str("there must be one Host"),
            Self::WrongVersion => write!(f, "Sec-WebSocket-Version must be {VERSION}"),
            Self::BadKey => f.write_str("Sec-WebSocket-Key must be 16 bytes in base64"),
            Self::BadProtocols => f.write_str("Sec-WebSocket-Protocol must list different tokens"),
            Self::NotText(header) => write!(f, "{header} isn't ASCII"),
        }
    }
}

impl core::error::Error for RequestError {}

/// Why an answer doesn't open a WebSocket connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum ResponseError {
    /// The status isn't 101.
    Status {
        /// What it is.
        status: u16,
    },
    /// `Upgrade` isn't `websocket`.
    NoUpgrade,
    /// `Connection` doesn't list `Upgrade`.
    NoConnectionUpgrade,
    /// `Sec-WebSocket-Accept` isn't what belongs to the key: the answer isn't a WebSocket server's,
    /// or not to this request.
    WrongAccept,
    /// An extension that wasn't offered.
    UnaskedExtension,
    /// A subprotocol that wasn't offered, or several.
    UnaskedProtocol,
    /// This header's value holds bytes beyond ASCII.
    NotText(Header),
}

impl fmt::Display for ResponseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status { status } => {
                write!(f, "the server answered the upgrade with status {status}")
            }
            Self::NoUpgrade => f.write_str("the server's Upgrade isn't websocket"),
            Self::NoConnectionUpgrade => f.write_str("the server's Connection doesn't list Upgrade"),
            Self::WrongAccept => f.write_str("the server's Sec-WebSocket-Accept doesn't belong to the key"),
            Self::UnaskedExtension => f.write_str("the server chose an extension that wasn't offered"),
            Self::UnaskedProtocol => f.write_str("the server chose a subprotocol that wasn't offered"),
            Self::NotText(header) => write!(f, "the server's {header} isn't ASCII"),
        }
    }
}

impl core::error::Error for ResponseError {}

/// The name of a header that the handshake looks at.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Header(&'static str);

impl fmt::Display for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// The headers that the handshake looks at, in the order in which they came.
struct Headers<'h>(Vec<(&'static str, &'h str)>);

impl<'h> Headers<'h> {
    const NAMES: [&'static str; 8] = [
        CONNECTION,
        HOST,
        UPGRADE,
        SEC_WEBSOCKET_ACCEPT,
        SEC_WEBSOCKET_EXTENSIONS,
        SEC_WEBSOCKET_KEY,
        SEC_WEBSOCKET_PROTOCOL,
        SEC_WEBSOCKET_VERSION,
    ];

    /// Picks them out of all; `Err` names one that holds bytes beyond ASCII.
    fn collect(headers: impl IntoIterator<Item = (&'h str, &'h [u8])>) -> Result<Self, Header> {
        let mut picked = Vec::new();
        for (name, value) in headers {
            let Some(name) = Self::NAMES.into_iter().find(|known| known.eq_ignore_ascii_case(name)) else {
                continue;
            };
            let value = str::from_utf8(value)
                .ok()
                .filter(|value| value.is_ascii())
                .ok_or(Header(name))?;
            picked.push((name, value.trim_matches(WHITESPACE)));
        }
        Ok(Self(picked))
    }

    fn all(&self, name: &'static str) -> impl Iterator<Item = &'h str> {
        self.0
            .iter()
            .filter(move |(known, _)| *known == name)
            .map(|(_, value)| *value)
    }

    /// The value of a header that stands there exactly once.
    fn single(&self, name: &'static str) -> Option<&'h str> {
        let mut all = self.all(name);
        all.next().filter(|_| all.next().is_none())
    }

    /// The elements of a list, which several headers of one name make up together; empty elements
    /// don't count (RFC 9110 §5.6.1).
    fn list(&self, name: &'static str) -> impl Iterator<Item = &'h str> {
        self.all(name)
            .flat_map(|value| value.split(','))
            .map(|element| element.trim_matches(WHITESPACE))
            .filter(|element| !element.is_empty())
    }

    fn has_token(&self, name: &'static str, token: &str) -> bool {
        self.list(name).any(|element| element.eq_ignore_ascii_case(token))
    }
}

/// What HTTP allows around values (RFC 9110 §5.6.3).
const WHITESPACE: [char; 2] = [' ', '\t'];

fn is_key(value: &str) -> bool {
    STANDARD.decode(value).is_ok_and(|bytes| bytes.len() == 16)
}

/// RFC 9110 §5.6.2.
fn is_token(value: &str) -> bool {
    !value.is_empty()
        && value
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}
