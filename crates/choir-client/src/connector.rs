use std::future::Future;
use std::io;
use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// A byte stream to a server, on which the client speaks WebSocket.
pub trait Transport: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Transport for T {}

/// What a [`Connector`] returns.
pub type Connecting<'a> = Pin<Box<dyn Future<Output = io::Result<Box<dyn Transport>>> + Send + 'a>>;

/// Opens byte streams to a server. The client upgrades them to WebSocket itself, so that tests and simulations can hand it pipes, and TLS a wrapped socket.
pub trait Connector: Send + Sync + 'static {
    /// Whether it could ever open one to this endpoint. Asked once, so that what can't work fails at once.
    ///
    /// # Errors
    /// Why not, and the way out.
    fn check(&self, endpoint: &Endpoint) -> io::Result<()> {
        let _ = endpoint;
        Ok(())
    }

    /// Opens one. Called again for each connection; the client bounds how long it may take.
    fn connect<'a>(&'a self, endpoint: &'a Endpoint) -> Connecting<'a>;
}

/// Where a URL leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Whether the stream must be encrypted (`wss`).
    pub secure: bool,
    /// The host: a name, or an address without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// Path and query.
    pub path: String,
    /// The value of HTTP's `Host`.
    pub authority: String,
}

impl Endpoint {
    /// Reads a `ws` or `wss` URL. A URL without a path leads to `/v1/ws` (T1).
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn of_url(url: &str) -> Result<Self, &'static str> {
        let (scheme, rest) = url
            .split_once("://")
            .ok_or("expected a URL like ws://host:port/v1/ws")?;
        let secure = match scheme.to_ascii_lowercase().as_str() {
            "ws" | "http" => false,
            "wss" | "https" => true,
            _ => return Err("the scheme is neither ws nor wss"),
        };
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        if authority.contains('@') {
            return Err("a user name doesn't belong in the URL");
        }
        // What goes into the request line and the Host header must not end them.
        if !url.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("a URL holds printable ASCII only");
        }
        let (host, port) = match authority.strip_prefix('[') {
            Some(bracketed) => bracketed.split_once(']').ok_or("the address's bracket isn't closed")?,
            None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
        };
        if host.is_empty() {
            return Err("the host is missing");
        }
        let port = match (port.strip_prefix(':'), secure) {
            (Some(digits), _) => digits.parse().map_err(|_| "the port is no port")?,
            (None, _) if !port.is_empty() => return Err("the port is no port"),
            (None, true) => 443,
            (None, false) => 80,
        };
        let path = path.split('#').next().unwrap_or_default();
        Ok(Self {
            secure,
            host: host.to_owned(),
            port,
            path: match path {
                "" | "/" => "/v1/ws".to_owned(),
                query if query.starts_with('?') => format!("/v1/ws{query}"),
                path => path.to_owned(),
            },
            authority: authority.to_owned(),
        })
    }
}

/// Plain TCP.
#[derive(Debug, Clone, Copy, Default)]
pub struct TcpConnector;

impl Connector for TcpConnector {
    fn check(&self, endpoint: &Endpoint) -> io::Result<()> {
        if endpoint.secure {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "this build has no TLS: use ws:// (on loopback or behind a tunnel), or bring a Connector that encrypts",
            ));
        }
        Ok(())
    }

    fn connect<'a>(&'a self, endpoint: &'a Endpoint) -> Connecting<'a> {
        Box::pin(async move {
            // Never in the clear what was to be encrypted.
            self.check(endpoint)?;
            let stream = TcpStream::connect((endpoint.host.as_str(), endpoint.port)).await?;
            // Messages are written whole: waiting for more to send would only delay them.
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as Box<dyn Transport>)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_leads_to_an_endpoint() {
        let endpoint = Endpoint::of_url("ws://127.0.0.1:7400/v1/ws").unwrap();
        assert_eq!((endpoint.host.as_str(), endpoint.port), ("127.0.0.1", 7400));
        assert_eq!(endpoint.path, "/v1/ws");
        assert!(!endpoint.secure);
        let endpoint = Endpoint::of_url("wss://[::1]?a=b#c").unwrap();
        assert_eq!((endpoint.host.as_str(), endpoint.port), ("::1", 443));
        assert_eq!(endpoint.path, "/v1/ws?a=b");
        assert_eq!(endpoint.authority, "[::1]");
        assert!(endpoint.secure);
        assert_eq!(Endpoint::of_url("ws://choir.example").unwrap().path, "/v1/ws");
    }

    #[test]
    fn a_url_that_leads_nowhere_says_why() {
        for wrong in [
            "choir.example",
            "ftp://x/",
            "ws://",
            "ws://me@x/",
            "ws://x:99999/",
            "ws://[::1/",
            "ws://[::1]7/",
            "ws://x/ HTTP/1.1\r\nEvil: yes",
        ] {
            assert!(Endpoint::of_url(wrong).is_err(), "{wrong}");
        }
    }
}
