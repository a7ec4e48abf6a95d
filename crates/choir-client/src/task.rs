//! The one task of a client: it does what the machine says, and tells it what happened.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use choir_core::client::{Credentials, Input, Lost, State, Token};
use choir_protocol::error::close;
use tokio::time::{sleep_until, timeout};

use crate::config::Config;
use crate::connector::Endpoint;
use crate::shared::{Effect, Shared};
use crate::websocket::{Link, Received};

/// How long the other side has to see a close frame.
const CLOSE_TIME: Duration = Duration::from_secs(5);

type Dialling = Pin<Box<dyn Future<Output = Result<Link, Lost>> + Send>>;
type Refreshing = Pin<Box<dyn Future<Output = Option<String>> + Send>>;

/// Where the connection is.
enum Line {
    None,
    Dialling(Dialling),
    Open(Box<Link>),
}

/// Whatever ends the task, a panic or the runtime's end included: nobody is left waiting for an answer.
struct Ender(Arc<Shared>);

impl Drop for Ender {
    fn drop(&mut self) {
        let now = self.0.now();
        self.0.lock().machine.close(now);
        // Whom it may concern is told; nobody is left to send anything.
        self.0.effects();
        self.0.ended.send_replace(true);
    }
}

pub(crate) async fn run(shared: Arc<Shared>, config: Config, endpoint: Endpoint) {
    let _ender = Ender(Arc::clone(&shared));
    let mut line = Line::None;
    let mut refreshing: Option<Refreshing> = None;
    let mut closing = tokio::task::JoinSet::new();
    loop {
        for effect in shared.effects() {
            match effect {
                // What the old connection may still bring is dropped with it (C11).
                Effect::Connect => {
                    tracing::debug!(server = endpoint.authority, "dialling");
                    line = Line::Dialling(dial(&config, &endpoint));
                }
                Effect::Send(text) => {
                    if let Line::Open(link) = &mut line
                        && let Err(error) = link.queue(&text)
                    {
                        line = Line::None;
                        shared.handle(Input::ConnectionLost(Lost {
                            reason: error.to_string(),
                            ..Lost::default()
                        }));
                    }
                }
                Effect::Close(code) => {
                    if let Line::Open(link) = std::mem::replace(&mut line, Line::None) {
                        closing.spawn(timeout(CLOSE_TIME, link.close(code)));
                    }
                }
                Effect::Refresh { waiting, error } => match &config.refresh {
                    Some(refresh) => refreshing = Some(refresh(error)),
                    None if waiting => {
                        let now = shared.now();
                        shared.lock().machine.no_credentials(now);
                        shared.wake.notify_one();
                    }
                    None => {}
                },
            }
        }
        if matches!(*shared.state.borrow(), State::Disconnected) {
            break;
        }

        let wake_at = shared.wake_at();
        tokio::select! {
            () = shared.wake.notified() => {}
            () = async {
                match wake_at {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            } => shared.handle(Input::Time),
            token = async {
                match &mut refreshing {
                    Some(refreshing) => refreshing.await,
                    None => std::future::pending().await,
                }
            } => {
                refreshing = None;
                let now = shared.now();
                let machine = &mut shared.lock().machine;
                match token {
                    Some(token) => machine.credentials(now, Credentials {
                        key: Arc::clone(&config.credentials.key),
                        token: Some(Token(token)),
                    }),
                    None => machine.no_credentials(now),
                }
            }
            happened = progress(&mut line) => match happened {
                Happened::Opened(link) => {
                    line = Line::Open(link);
                    shared.handle(Input::Connected);
                }
                Happened::Received(Received::Text(text)) => shared.handle(Input::Text(text.as_str())),
                Happened::Received(Received::Traffic) => shared.handle(Input::Traffic),
                Happened::Received(Received::Lost(lost)) | Happened::NotOpened(lost) => {
                    tracing::debug!(reason = lost.reason, code = lost.close_code, "connection lost");
                    // Answers the server's close frame, if that was it.
                    if let Line::Open(link) = std::mem::replace(&mut line, Line::None) {
                        let code = lost.close_code.unwrap_or(close::NORMAL);
                        closing.spawn(timeout(CLOSE_TIME, link.close(code)));
                    }
                    shared.handle(Input::ConnectionLost(lost));
                }
                Happened::Written => {}
            },
            Some(_) = closing.join_next() => {}
        }
    }
    // Close frames get their time.
    while closing.join_next().await.is_some() {}
}

enum Happened {
    Opened(Box<Link>),
    NotOpened(Lost),
    Received(Received),
    Written,
}

async fn progress(line: &mut Line) -> Happened {
    match line {
        Line::None => std::future::pending().await,
        Line::Dialling(dialling) => match dialling.await {
            Ok(link) => Happened::Opened(Box::new(link)),
            Err(lost) => Happened::NotOpened(lost),
        },
        Line::Open(link) => match link.next().await {
            Some(received) => Happened::Received(received),
            None => Happened::Written,
        },
    }
}

fn dial(config: &Config, endpoint: &Endpoint) -> Dialling {
    let connector = Arc::clone(&config.connector);
    let endpoint = endpoint.clone();
    let limit = config.connect_timeout;
    Box::pin(async move {
        let opening = async {
            let stream = connector.connect(&endpoint).await.map_err(|error| Lost {
                reason: format!("{}: {error}", endpoint.authority),
                ..Lost::default()
            })?;
            Link::open(stream, &endpoint).await
        };
        timeout(limit, opening).await.unwrap_or_else(|_| {
            Err(Lost {
                reason: format!("{}: no answer in time", endpoint.authority),
                ..Lost::default()
            })
        })
    })
}
