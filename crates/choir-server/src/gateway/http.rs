//! What HTTP there is: health, figures for who sits at the machine, and the upgrade to WebSocket (T1, T4, section 13).

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use choir_log::Health;
use choir_protocol::json::{Number, Value, object};
use choir_protocol::message::SUBPROTOCOL;
use choir_websocket::handshake::{RequestError, check_request};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;

use crate::Shared;

/// Headers are at most this long (section 12).
const MAX_HEADER_BYTES: usize = 8 * 1024;

type Answer = Response<Full<Bytes>>;

/// Speaks HTTP on a new connection until it ends, or is upgraded: then its socket, and what was read from it already.
pub(crate) async fn serve(shared: Arc<Shared>, socket: TcpStream, peer: SocketAddr) -> Option<(TcpStream, Bytes)> {
    let upgrade: Arc<Mutex<Option<OnUpgrade>>> = Arc::default();
    let service = {
        let (shared, upgrade) = (shared.clone(), upgrade.clone());
        service_fn(move |request| {
            let answer = answer(&shared, peer, request, &upgrade);
            async move { Ok::<_, Infallible>(answer) }
        })
    };
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(shared.config.times.upgrade_ms))
        .max_buf_size(MAX_HEADER_BYTES)
        .max_header_size(MAX_HEADER_BYTES)
        .serve_connection(TokioIo::new(socket), service)
        .with_upgrades();
    if let Err(error) = connection.await {
        tracing::debug!(%error, "HTTP ended early");
        return None;
    }
    let upgrade = upgrade.lock().unwrap_or_else(PoisonError::into_inner).take()?;
    let parts = upgrade.await.ok()?.downcast::<TokioIo<TcpStream>>().ok()?;
    Some((parts.io.into_inner(), parts.read_buf))
}

fn answer(shared: &Shared, peer: SocketAddr, request: Request<Incoming>, upgrade: &Mutex<Option<OnUpgrade>>) -> Answer {
    match request.uri().path() {
        "/v1/ws" => upgraded(shared, request, upgrade),
        "/healthz" | "/readyz" | "/debug/stats" if request.method() != Method::GET => {
            let mut refusal = problem(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered here");
            refusal
                .headers_mut()
                .insert(header::ALLOW, HeaderValue::from_static("GET"));
            refusal
        }
        "/healthz" => text(StatusCode::OK, "alive\n"),
        "/readyz" => readiness(shared),
        // Figures are for who runs the server: elsewhere the route doesn't exist.
        "/debug/stats" if peer.ip().is_loopback() => json(StatusCode::OK, "application/json", &stats(shared)),
        _ => problem(StatusCode::NOT_FOUND, "there is nothing here"),
    }
}

/// The upgrade (RFC 6455 §4.2), as T1 and T4 have it.
fn upgraded(shared: &Shared, mut request: Request<Incoming>, upgrade: &Mutex<Option<OnUpgrade>>) -> Answer {
    if let Some(origin) = request.headers().get(header::ORIGIN)
        && !origin
            .to_str()
            .is_ok_and(|origin| shared.config.allows_origin(origin, shared.address))
    {
        return problem(StatusCode::FORBIDDEN, "pages of this origin may not connect");
    }
    let headers = request
        .headers()
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_bytes()));
    let checked = match check_request(request.method().as_str(), headers) {
        Ok(checked) => checked,
        Err(error) => return refused_upgrade(error),
    };
    let speaks = checked.offers(SUBPROTOCOL);
    if !speaks && !checked.protocols().is_empty() {
        return problem(
            StatusCode::BAD_REQUEST,
            "of the subprotocols only choir.v1.json is spoken here",
        );
    }
    let Ok(accept) = HeaderValue::from_str(&checked.accept_key()) else {
        return problem(StatusCode::BAD_REQUEST, "the key isn't one");
    };
    let mut switch = Response::new(Full::default());
    *switch.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = switch.headers_mut();
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    if speaks {
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    }
    *upgrade.lock().unwrap_or_else(PoisonError::into_inner) = Some(hyper::upgrade::on(&mut request));
    switch
}

fn refused_upgrade(error: RequestError) -> Answer {
    let status = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::BAD_REQUEST);
    let mut refusal = problem(status, &error.to_string());
    let headers = refusal.headers_mut();
    match status {
        StatusCode::UPGRADE_REQUIRED => {
            headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
            headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        }
        StatusCode::METHOD_NOT_ALLOWED => {
            headers.insert(header::ALLOW, HeaderValue::from_static("GET"));
        }
        _ => {}
    }
    refusal
}

/// Whether the log takes writes, the clock is sane, and how the server is spoken to (T3).
fn readiness(shared: &Shared) -> Answer {
    let (log_ready, log) = match shared.log.health() {
        Health::Ready => (true, "ready".to_owned()),
        Health::Full { reason } | Health::Latched { reason } => (false, reason),
    };
    let clock_sane = shared.clock.is_sane();
    let transport = match (shared.address.ip().is_loopback(), shared.config.in_the_clear) {
        (true, _) => "loopback",
        (false, _) => "in the clear, by configuration",
    };
    let ready = log_ready && clock_sane && !shared.is_draining();
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let value = object! {
        "ready": ready,
        "log": log.as_str(),
        "clock": if clock_sane { "sane" } else { "not believable: signed actions would be refused" },
        "draining": shared.is_draining(),
        "transport": transport,
    };
    json(status, "application/json", &value.into())
}

fn stats(shared: &Shared) -> Value {
    let log = shared.log.stats();
    let counters = &shared.counters;
    let number = Number::saturating;
    let per_1000 = log
        .fsyncs_per_1000_entries()
        .and_then(|figure| Number::try_from(figure).ok());
    object! {
        "connections": number(counters.connected.get()),
        "connections_served": number(counters.connections.get()),
        "active_threads": number(shared.threads.active() as u64),
        "actions": number(counters.actions.get()),
        "receipts": number(counters.receipts.get()),
        "refusals": number(counters.refusals.get()),
        "sync_checks_equal": number(counters.checks_equal.get()),
        "sync_checks_different": number(counters.checks_different.get()),
        "frames_built": number(counters.frames_built.get()),
        "frames_shared": number(counters.frames_shared.get()),
        "fsyncs_per_1000_entries"?: per_1000,
        "log": object! {
            "appends": number(log.appends),
            "entries": number(log.entries),
            "puts": number(log.puts),
            "batches": number(log.batches),
            "fsyncs": number(log.fsyncs),
            "bytes": number(log.bytes),
        },
    }
    .into()
}

/// RFC 9457.
fn problem(status: StatusCode, detail: &str) -> Answer {
    let value = object! {
        "type": "about:blank",
        "title": status.canonical_reason().unwrap_or("refused"),
        "status": Number::saturating(u64::from(status.as_u16())),
        "detail": detail,
    };
    json(status, "application/problem+json", &value.into())
}

fn json(status: StatusCode, content_type: &'static str, value: &Value) -> Answer {
    with_body(status, content_type, choir_protocol::canonical::to_string(value))
}

fn text(status: StatusCode, body: &'static str) -> Answer {
    with_body(status, "text/plain; charset=utf-8", body.to_owned())
}

fn with_body(status: StatusCode, content_type: &'static str, body: String) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    let headers: [(HeaderName, &'static str); 2] = [
        (header::CONTENT_TYPE, content_type),
        (header::CACHE_CONTROL, "no-store"),
    ];
    for (name, value) in headers {
        answer.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    answer
}
