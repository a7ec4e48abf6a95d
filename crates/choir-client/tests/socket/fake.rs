//! A server just large enough to talk to: threads in memory, everything visible, no rights. Its logs are real, with the clients' own signatures.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use choir_client::{Cursor, ErrorCode, ThreadHandle};
use choir_protocol::action::{Action, SignedAction};
use choir_protocol::canonical::Canonical;
use choir_protocol::entry::{Body, Entry, Kind, Proof, entry_leaf};
use choir_protocol::ids::{ConnectionId, Id, LogId, Seq, SessionId, ThreadId, Timestamp, UserId};
use choir_protocol::key::{PublicKey, SecretKey, Signature};
use choir_protocol::merkle::Peaks;
use choir_protocol::message::{
    AuthMethod, ClientMessage, ErrorPayload, FromClient, FromServer, HeartbeatTimes, Hello, Limits, Mode, More,
    Receipt, ReceiptStatus, ServerInfo, ServerMessage, Session, Snapshot, SnapshotReason, Subscribed, SubscribedThread,
    ThreadRow, Threads,
};
use choir_protocol::range::Range;
use choir_protocol::sign::auth_text;
use choir_protocol::thread::{Member, Policy, Propose, Role, Settings, Stream, Visibility};
use choir_websocket::{Config, Decoder, Event, Frame, Role as End, handshake};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

pub(crate) struct Fake {
    port: u16,
    state: Arc<State>,
}

struct State {
    threads: Mutex<BTreeMap<ThreadId, Log>>,
    script: Mutex<Script>,
    /// Counts what was appended, so that connections look.
    appended: watch::Sender<u64>,
    connections: watch::Sender<u32>,
}

#[derive(Default)]
struct Script {
    cut_before_answering: u32,
    refuse_next: Option<ErrorCode>,
    silent: bool,
}

struct Log {
    settings: Settings,
    entries: Vec<Entry>,
    peaks: Vec<Peaks>,
}

impl Fake {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(State {
            threads: Mutex::default(),
            script: Mutex::default(),
            appended: watch::channel(0).0,
            connections: watch::channel(0).0,
        });
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let shared = Arc::clone(&shared);
                tokio::spawn(async move {
                    shared.connections.send_modify(|n| *n += 1);
                    let _ = Connection::serve(stream, &shared, port).await;
                    shared.connections.send_modify(|n| *n -= 1);
                });
            }
        });
        Self { port, state }
    }

    pub(crate) fn url(&self) -> String {
        format!("ws://127.0.0.1:{}/v1/ws", self.port)
    }

    pub(crate) fn unknown_thread(&self) -> ThreadId {
        ThreadId::v7(1, [9; 10])
    }

    pub(crate) fn cursor(&self, thread_id: ThreadId) -> Cursor {
        self.state.threads.lock().unwrap()[&thread_id].cursor()
    }

    /// The connections of the next actions end after they were applied, before their answers.
    pub(crate) fn cut_before_answering(&self, times: u32) {
        self.state.script.lock().unwrap().cut_before_answering = times;
    }

    pub(crate) fn refuse_next(&self, code: ErrorCode) {
        self.state.script.lock().unwrap().refuse_next = Some(code);
    }

    /// Nothing is answered any longer.
    pub(crate) fn fall_silent(&self) {
        self.state.script.lock().unwrap().silent = true;
    }

    /// Puts a message into a thread that its author never signed.
    pub(crate) fn forge(&self, thread_id: ThreadId, author: PublicKey) {
        let mut threads = self.state.threads.lock().unwrap();
        let body = Canonical::of_object(&choir_client::Object::from_iter([("content", "forged")]));
        threads.get_mut(&thread_id).unwrap().push(
            thread_id,
            Id::v7(5, [5; 10]),
            Kind::MessagePosted,
            UserId::of_key(&author),
            body,
            Proof {
                sent_at: Timestamp::saturating(5),
                seen: None,
                key: None,
                sig: Signature::from_bytes([5; 64]),
                audience: None,
                id: None,
                action_type: None,
            },
        );
        drop(threads);
        self.state.appended.send_modify(|n| *n += 1);
    }

    /// Waits until a replica holds this entry.
    pub(crate) async fn level(&self, thread: &ThreadHandle, seq: u64) {
        let mut updates = thread.updates();
        tokio::time::timeout(Duration::from_secs(20), async {
            while thread.replica().is_none_or(|replica| replica.cursor().seq.get() < seq) {
                updates.next().await.expect("the thread is followed");
            }
        })
        .await
        .expect("the replica gets there");
    }

    pub(crate) async fn without_connections(&self) {
        let mut connections = self.state.connections.subscribe();
        tokio::time::timeout(Duration::from_secs(20), connections.wait_for(|n| *n == 0))
            .await
            .expect("they end")
            .unwrap();
    }
}

impl Log {
    fn cursor(&self) -> Cursor {
        Cursor {
            seq: Seq::saturating(self.entries.len() as u64),
            root: self.peaks.last().unwrap().root(),
        }
    }

    fn push(&mut self, thread_id: ThreadId, id: Id, kind: Kind, author: UserId, body: Canonical, proof: Proof) {
        let entry = Entry {
            seq: self.cursor().seq.next(),
            id,
            stream: kind.stream().unwrap(),
            kind,
            author,
            timestamp: Timestamp::saturating(1_764_000_000_000),
            content_hash: Some(body.hash()),
            body: Body::Present(body),
            proof: Some(proof),
        };
        let mut peaks = self.peaks.last().unwrap().clone();
        peaks.push(entry_leaf(thread_id, entry.seq, entry.stream, &entry.inner().unwrap()));
        self.peaks.push(peaks);
        self.entries.push(entry);
    }

    fn range(&self, from: usize, to: usize, with_peaks: bool) -> Range {
        Range {
            from: Seq::saturating(from as u64),
            to: Seq::saturating(to as u64),
            root: self.peaks[to].root(),
            entries: self.entries[from..to].to_vec(),
            hidden: Some(Vec::new()),
            peaks: with_peaks.then(|| self.peaks[from].as_slice().to_vec()),
        }
    }

    fn snapshot(&self, history: usize) -> Snapshot {
        let to = self.entries.len();
        Snapshot {
            thread: self.settings.clone(),
            members: vec![Member {
                user_id: self.entries[0].author.clone(),
                role: Role::Owner,
                agent: false,
                joined: true,
            }],
            open_specs: Vec::new(),
            recent: self.range(to.saturating_sub(history), to, true),
            more: More::default(),
            reason: SnapshotReason::Initial,
        }
    }
}

struct Connection<'a> {
    state: &'a State,
    stream: TcpStream,
    user: Option<(UserId, PublicKey)>,
    /// Up to where a thread was sent.
    subscribed: BTreeMap<ThreadId, usize>,
    port: u16,
}

/// The connection is to end.
struct Cut;

impl Connection<'_> {
    async fn serve(mut stream: TcpStream, state: &State, port: u16) -> std::io::Result<()> {
        let mut decoder = Decoder::new(Config::new(End::Server));
        upgrade(&mut stream).await?;
        let mut connection = Connection {
            state,
            stream,
            user: None,
            subscribed: BTreeMap::new(),
            port,
        };
        connection.say(None, None, ServerMessage::Hello(hello())).await?;
        let mut appended = state.appended.subscribe();
        loop {
            while let Some(event) = decoder.poll().map_err(std::io::Error::other)? {
                match event {
                    Event::Text(text) => {
                        let message = FromClient::read(text.as_str()).map_err(std::io::Error::other)?;
                        if connection.message(message).await?.is_err() {
                            return Ok(());
                        }
                    }
                    Event::Close(close) => {
                        let answer = Frame::answer_to_close(close.as_ref());
                        return connection.stream.write_all(answer.as_bytes()).await;
                    }
                    _ => {}
                }
            }
            tokio::select! {
                read = connection.stream.read_buf(decoder.buffer_mut()) => if read? == 0 { return Ok(()) },
                _ = appended.changed() => connection.update().await?,
            }
            decoder.buffer_mut().reserve(4096);
        }
    }

    async fn say(
        &mut self,
        thread_id: Option<ThreadId>,
        reply_to: Option<Id>,
        message: ServerMessage,
    ) -> std::io::Result<()> {
        if self.state.script.lock().unwrap().silent {
            return Ok(());
        }
        let text = FromServer {
            id: Id::v7(1, [1; 10]),
            timestamp: Timestamp::saturating(1_764_000_000_000),
            thread_id,
            reply_to,
            message,
        }
        .to_text();
        self.stream.write_all(Frame::text(&text).as_bytes()).await
    }

    /// Sends what was appended to the threads that are subscribed.
    async fn update(&mut self) -> std::io::Result<()> {
        let due: Vec<_> = {
            let threads = self.state.threads.lock().unwrap();
            self.subscribed
                .iter_mut()
                .filter_map(|(thread_id, sent)| {
                    let log = &threads[thread_id];
                    let head = log.entries.len();
                    let range = (*sent < head).then(|| log.range(*sent, head, false));
                    *sent = head;
                    range.map(|range| (*thread_id, range))
                })
                .collect()
        };
        for (thread_id, range) in due {
            self.say(Some(thread_id), None, ServerMessage::ThreadUpdate(range))
                .await?;
        }
        Ok(())
    }

    async fn message(&mut self, message: FromClient) -> std::io::Result<Result<(), Cut>> {
        let id = message.id;
        match message.message {
            ClientMessage::Auth(auth) => {
                let text = auth_text(
                    &format!("http://127.0.0.1:{}", self.port).parse().unwrap(),
                    hello().connection_id,
                    &hello().challenge,
                    &auth.client_id,
                    auth.method.as_str(),
                );
                assert!(choir_protocol::key::verify(
                    &auth.public_key,
                    text.as_bytes(),
                    &auth.signature
                ));
                let user_id = UserId::of_key(&auth.public_key);
                self.user = Some((user_id.clone(), auth.public_key));
                let session = Session {
                    user_id,
                    client_id: auth.client_id,
                    session_id: SessionId::v7(1, [2; 10]),
                    session_token: Some("token".to_owned()),
                    expires_at: None,
                    resumed: false,
                    server_time: Timestamp::saturating(1_764_000_000_000),
                };
                self.say(None, Some(id), ServerMessage::Session(session)).await?;
            }
            ClientMessage::Subscribe(subscribe) => {
                for line in subscribe.threads.unwrap_or_default() {
                    self.subscribe(id, line).await?;
                }
            }
            ClientMessage::Unsubscribe(unsubscribe) => {
                for thread_id in unsubscribe.threads {
                    self.subscribed.remove(&thread_id);
                    self.say(
                        Some(thread_id),
                        Some(id),
                        ServerMessage::Unsubscribed(Default::default()),
                    )
                    .await?;
                }
            }
            ClientMessage::Action(_, action) => return self.action(action).await,
            ClientMessage::History(thread_id, request) => {
                let page = {
                    let threads = self.state.threads.lock().unwrap();
                    let log = &threads[&thread_id];
                    let to = (request.before.get() as usize - 1).min(log.entries.len());
                    let from = to.saturating_sub(request.limit.unwrap_or(200) as usize);
                    log.range(from, to, true)
                };
                self.say(Some(thread_id), Some(id), ServerMessage::History(page))
                    .await?;
            }
            ClientMessage::Threads(_) => {
                let rows = {
                    let threads = self.state.threads.lock().unwrap();
                    threads
                        .iter()
                        .map(|(thread_id, log)| ThreadRow {
                            thread_id: *thread_id,
                            title: log.settings.title.clone(),
                            visibility: Visibility::Private,
                            role: Some(Role::Owner),
                            invited: None,
                            head: log.cursor().seq,
                            messages: 0,
                            marked: Seq::ZERO,
                            unread: 0,
                            awaiting: 0,
                            last_activity: Timestamp::ZERO,
                        })
                        .collect()
                };
                let threads = Threads {
                    threads: rows,
                    next: None,
                };
                self.say(None, Some(id), ServerMessage::Threads(threads)).await?;
            }
            _ => {}
        }
        Ok(Ok(()))
    }

    async fn subscribe(&mut self, reply_to: Id, line: choir_protocol::message::SubscribeThread) -> std::io::Result<()> {
        let thread_id = line.thread_id;
        let due = {
            let threads = self.state.threads.lock().unwrap();
            threads.get(&thread_id).map(|log| {
                let head = log.entries.len();
                let snapshot = line
                    .cursor
                    .is_none()
                    .then(|| log.snapshot(line.history.unwrap_or(50) as usize));
                let from = line.cursor.map_or(head, |cursor| cursor.seq.get() as usize);
                (head, from, snapshot)
            })
        };
        let Some((head, from, snapshot)) = due else {
            let error = ErrorPayload::new(ErrorCode::SubscriptionError, "no such thread").with_cause("not_found");
            return self
                .say(Some(thread_id), Some(reply_to), ServerMessage::StateError(error))
                .await;
        };
        let subscribed = Subscribed::Thread(SubscribedThread {
            seq: Seq::saturating(from as u64),
            head: Seq::saturating(head as u64),
            role: None,
            streams: vec![Stream::Updates],
            mode: Mode::Full,
            messages: 0,
            marked: Seq::ZERO,
            present: None,
        });
        self.say(Some(thread_id), Some(reply_to), ServerMessage::Subscribed(subscribed))
            .await?;
        if let Some(snapshot) = snapshot {
            self.say(Some(thread_id), None, ServerMessage::Snapshot(snapshot))
                .await?;
        }
        self.subscribed.insert(thread_id, from);
        self.update().await
    }

    async fn action(&mut self, action: SignedAction) -> std::io::Result<Result<(), Cut>> {
        let (thread_id, id) = (action.thread_id, action.id);
        let refusal = self.state.script.lock().unwrap().refuse_next.take();
        if let Some(code) = refusal {
            let error = ErrorPayload::new(code, "as the test wishes");
            self.say(Some(thread_id), Some(id), ServerMessage::StateError(error))
                .await?;
            return Ok(Ok(()));
        }
        let receipt = self.apply(action);
        self.state.appended.send_modify(|n| *n += 1);
        {
            let mut script = self.state.script.lock().unwrap();
            if script.cut_before_answering > 0 {
                script.cut_before_answering -= 1;
                return Ok(Err(Cut));
            }
        }
        self.say(Some(thread_id), Some(id), ServerMessage::Receipt(receipt))
            .await?;
        Ok(Ok(()))
    }

    fn apply(&self, action: SignedAction) -> Receipt {
        let (user_id, key) = self.user.clone().expect("it authenticated");
        let audience = format!("http://127.0.0.1:{}", self.port).parse().unwrap();
        assert!(action.verify(&audience, &user_id, &key), "signatures hold");
        let mut threads = self.state.threads.lock().unwrap();
        if let Action::CreateThread(created) = &action.action {
            threads.entry(action.thread_id).or_insert_with(|| Log {
                settings: Settings {
                    title: created.title.clone(),
                    audience: created.audience.clone(),
                    visibility: Visibility::Private,
                    review: Default::default(),
                    propose: Propose::Members,
                    policy: Policy::default(),
                    created_at: Timestamp::saturating(1_764_000_000_000),
                },
                entries: Vec::new(),
                peaks: vec![Peaks::new()],
            });
        }
        let log = threads.get_mut(&action.thread_id).expect("it was made");
        let known = log.entries.iter().find(|entry| entry.id == action.id);
        if let Some(entry) = known {
            return Receipt {
                status: ReceiptStatus::Duplicate,
                seq: entry.seq,
                kind: entry.kind.clone(),
                root: log.peaks[entry.seq.get() as usize].root(),
            };
        }
        let kind = action.action.kind().unwrap_or(Kind::MessagePosted);
        log.push(
            action.thread_id,
            action.id,
            kind.clone(),
            user_id,
            action.payload,
            Proof {
                sent_at: action.timestamp,
                seen: action.seen,
                key: None,
                sig: action.sig,
                audience: None,
                id: None,
                action_type: None,
            },
        );
        let cursor = log.cursor();
        Receipt {
            status: ReceiptStatus::Committed,
            seq: cursor.seq,
            kind,
            root: cursor.root,
        }
    }
}

fn hello() -> Hello {
    Hello {
        protocol: "choir.v1".to_owned(),
        server: ServerInfo {
            name: "fake".to_owned(),
            version: "0".to_owned(),
            key: SecretKey::from_seed(&[200; 32]).public(),
        },
        log_id: LogId::v7(1, [1; 10]),
        connection_id: ConnectionId::v7(1, [2; 10]),
        challenge: "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA".to_owned(),
        auth: vec![AuthMethod::Key],
        heartbeat: HeartbeatTimes::default(),
        limits: Limits {
            max_actions_per_second: 100_000,
            max_requests_per_second: 100_000,
            ..Limits::default()
        },
    }
}

async fn upgrade(stream: &mut TcpStream) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read_buf(&mut head).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    let text = String::from_utf8(head).map_err(std::io::Error::other)?;
    let headers: Vec<(&str, &[u8])> = text
        .lines()
        .skip(1)
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name, value.trim().as_bytes()))
        .collect();
    let upgrade = handshake::check_request("GET", headers).map_err(std::io::Error::other)?;
    assert!(upgrade.offers("choir.v1.json"));
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {}\r\nSec-WebSocket-Protocol: choir.v1.json\r\n\r\n",
        upgrade.accept_key()
    );
    stream.write_all(answer.as_bytes()).await
}
