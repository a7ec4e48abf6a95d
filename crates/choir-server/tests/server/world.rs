//! A world for tests over real sockets: a server, its log, and raw clients that say exactly what they are told to.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use choir_log::Log;
use choir_log::memory::MemoryLog;
use choir_protocol::action::{SignedAction, Unsigned};
use choir_protocol::entry::Kind;
use choir_protocol::error::ErrorCode;
use choir_protocol::hash::Hash;
use choir_protocol::ids::{ActionSeq, Audience, Cursor, Id, LogId, Seq, ThreadId, Timestamp, UserId};
use choir_protocol::json::{Object, Value, object};
use choir_protocol::key::SecretKey;
use choir_protocol::merkle::Peaks;
use choir_protocol::message::{
    Auth, AuthMethod, ClientMessage, ErrorPayload, FromClient, FromServer, Hello, Receipt, ServerMessage, Session,
    Snapshot, Subscribe, SubscribeThread, Subscribed, SubscribedThread,
};
use choir_protocol::range::Range;
use choir_protocol::sign::auth_text;
use choir_server::{Config, Environment, NoRandomness, Report, Server, System};
use choir_websocket::{Config as DecoderConfig, Decoder, Event, Header, Opcode, Role, handshake, masked, write_frame};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Nothing in a test takes this long unless it never comes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Waits for what must come.
pub(crate) async fn must<T>(what: impl Future<Output = T>) -> T {
    timeout(PATIENCE, what).await.expect("it never came")
}

/// A wall clock that tests move, over the system's randomness.
#[derive(Default)]
pub(crate) struct MovedClock(AtomicU64);

impl MovedClock {
    pub(crate) fn forward(&self, ms: u64) {
        self.0.fetch_add(ms, Ordering::SeqCst);
    }
}

impl Environment for MovedClock {
    fn wall(&self) -> Timestamp {
        System.wall().plus_ms(self.0.load(Ordering::SeqCst))
    }

    fn fill(&self, bytes: &mut [u8]) -> Result<(), NoRandomness> {
        System.fill(bytes)
    }
}

/// A running server.
pub(crate) struct World {
    pub(crate) address: SocketAddr,
    pub(crate) audience: Audience,
    pub(crate) log: Arc<dyn Log>,
    pub(crate) clock: Arc<MovedClock>,
    stop: Option<oneshot::Sender<()>>,
    running: Option<JoinHandle<Report>>,
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(configure: impl FnOnce(&mut Config)) -> Self {
        let log = Arc::new(MemoryLog::new(LogId::v7(1, [7; 10])));
        Self::over(log, configure).await
    }

    pub(crate) async fn over(log: Arc<dyn Log>, configure: impl FnOnce(&mut Config)) -> Self {
        let clock = Arc::new(MovedClock::default());
        let mut config = Config::new(([127, 0, 0, 1], 0).into());
        config.environment = clock.clone();
        // Tests act faster than people.
        config.limits.max_actions_per_second = 1_000;
        config.limits.max_requests_per_second = 1_000;
        config.guard.unauthenticated_per_ip = 1_000;
        configure(&mut config);
        let server = Server::bind(config, log.clone()).await.unwrap();
        let address = server.local_addr();
        let audience = format!("http://{address}").parse().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let running = tokio::spawn(server.run(async {
            let _ = stopped.await;
        }));
        Self {
            address,
            audience,
            log,
            clock,
            stop: Some(stop),
            running: Some(running),
        }
    }

    /// Tells the server to end, and goes on.
    pub(crate) fn stop(&mut self) {
        self.stop.take();
    }

    /// Waits for its end.
    pub(crate) async fn ended(mut self) -> Report {
        self.stop.take();
        must(self.running.take().unwrap()).await.unwrap()
    }

    pub(crate) async fn connect(&self) -> Raw {
        Raw::connect(self.address, &["choir.v1.json"]).await
    }

    /// A client of this name, authenticated in a session of its own.
    pub(crate) async fn client(&self, name: &str) -> Client {
        self.client_as(name, name, None).await
    }

    pub(crate) async fn client_as(&self, name: &str, client_id: &str, token: Option<String>) -> Client {
        let mut raw = self.connect().await;
        let hello = raw.hello().await;
        let secret = secret(name);
        raw.say(auth(&hello, &secret, &self.audience, client_id, token)).await;
        let session = match raw.next().await.message {
            ServerMessage::Session(session) => session,
            other => panic!("no session but {}", other.type_name()),
        };
        Client {
            raw,
            user_id: UserId::of_key(&secret.public()),
            secret,
            audience: self.audience.clone(),
            clock: self.clock.clone(),
            hello,
            session,
            seqs: HashMap::new(),
        }
    }

    /// An HTTP request, and the whole answer.
    pub(crate) async fn http(&self, request: &str) -> String {
        let mut socket = TcpStream::connect(self.address).await.unwrap();
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        must(async {
            let mut buffer = [0; 4096];
            loop {
                match socket.read(&mut buffer).await {
                    Ok(0) | Err(_) => break,
                    Ok(count) => answer.extend_from_slice(&buffer[..count]),
                }
                let text = String::from_utf8_lossy(&answer);
                if text.starts_with("HTTP/1.1 101") {
                    break;
                }
                if let Some((head, body)) = text.split_once("\r\n\r\n")
                    && let Some(length) = head
                        .to_lowercase()
                        .split("content-length: ")
                        .nth(1)
                        .and_then(|rest| rest.lines().next()?.trim().parse::<usize>().ok())
                    && body.len() >= length
                {
                    break;
                }
            }
        })
        .await;
        String::from_utf8_lossy(&answer).into_owned()
    }

    pub(crate) async fn get(&self, path: &str) -> String {
        self.http(&format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.address))
            .await
    }
}

pub(crate) fn secret(name: &str) -> SecretKey {
    SecretKey::from_seed(Hash::of(name.as_bytes()).as_bytes())
}

pub(crate) fn user(name: &str) -> UserId {
    UserId::of_key(&secret(name).public())
}

static IDS: AtomicU64 = AtomicU64::new(1);

fn fresh() -> [u8; 10] {
    let mut random = [0; 10];
    random[2..].copy_from_slice(&IDS.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    random
}

pub(crate) fn fresh_id() -> Id {
    Id::v7(System.wall().get(), fresh())
}

pub(crate) fn fresh_thread() -> ThreadId {
    ThreadId::v7(System.wall().get(), fresh())
}

pub(crate) fn auth(
    hello: &Hello,
    secret: &SecretKey,
    audience: &Audience,
    client_id: &str,
    session_token: Option<String>,
) -> ClientMessage {
    let client_id = client_id.parse().unwrap();
    let text = auth_text(audience, hello.connection_id, &hello.challenge, &client_id, "key");
    ClientMessage::Auth(Auth {
        method: AuthMethod::Key,
        client_id,
        agent: "test 0".into(),
        public_key: secret.public(),
        signature: secret.sign(text.as_bytes()),
        token: None,
        session_token,
    })
}

/// A WebSocket that says what it is told to and shows what it hears.
pub(crate) struct Raw {
    pub(crate) socket: TcpStream,
    decoder: Decoder,
    /// Heard and not yet asked for.
    heard: VecDeque<FromServer>,
    /// That threads were made with this user as a member (V2), apart: most tests begin with it and are about something else.
    pub(crate) creations: Vec<FromServer>,
    /// How many pings came; they are answered unless `mute`.
    pub(crate) pings: usize,
    pub(crate) mute: bool,
    closed: Option<u16>,
}

impl Raw {
    pub(crate) async fn connect(address: SocketAddr, protocols: &[&str]) -> Self {
        let mut socket = TcpStream::connect(address).await.unwrap();
        let key = handshake::key([9; 16]);
        let protocol = if protocols.is_empty() {
            String::new()
        } else {
            format!("Sec-WebSocket-Protocol: {}\r\n", protocols.join(", "))
        };
        let request = format!(
            "GET /v1/ws HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n{protocol}\r\n"
        );
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut received = BytesMut::new();
        let head = loop {
            must(socket.read_buf(&mut received)).await.unwrap();
            if let Some(at) = received.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break received.split_to(at + 4);
            }
        };
        let head = String::from_utf8(head.to_vec()).unwrap();
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        assert!(head.contains(&handshake::accept_key(&key)), "{head}");
        assert_eq!(
            head.to_lowercase().contains("sec-websocket-protocol: choir.v1.json"),
            !protocols.is_empty(),
            "{head}"
        );
        let mut decoder = Decoder::new(DecoderConfig {
            max_message_bytes: 16 * 1024 * 1024,
            ..DecoderConfig::new(Role::Client)
        });
        decoder.feed(&received);
        Self {
            socket,
            decoder,
            heard: VecDeque::new(),
            creations: Vec::new(),
            pings: 0,
            mute: false,
            closed: None,
        }
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        // A server that has closed already is noticed by what is read.
        let _ = self.socket.write_all(bytes).await;
    }

    pub(crate) async fn text(&mut self, text: &str) {
        let mut wire = BytesMut::new();
        masked(Opcode::Text, text.as_bytes(), [1, 2, 3, 4], &mut wire);
        self.write(&wire).await;
    }

    pub(crate) async fn frame(&mut self, header: Header, payload: &[u8]) {
        let mut wire = BytesMut::new();
        write_frame(header, payload, &mut wire);
        self.write(&wire).await;
    }

    /// Says a message, and gives its id.
    pub(crate) async fn say(&mut self, message: ClientMessage) -> Id {
        let id = fresh_id();
        self.say_as(id, message).await;
        id
    }

    pub(crate) async fn say_as(&mut self, id: Id, message: ClientMessage) {
        self.text(
            &FromClient {
                id,
                timestamp: System.wall(),
                message,
            }
            .to_text(),
        )
        .await;
    }

    pub(crate) async fn hello(&mut self) -> Hello {
        match self.next().await.message {
            ServerMessage::Hello(hello) => hello,
            other => panic!("no hello but {}", other.type_name()),
        }
    }

    /// Reads the socket once. False at its end.
    async fn receive(&mut self) -> bool {
        loop {
            match self.decoder.poll() {
                Ok(Some(Event::Text(text))) => {
                    // T6, for everything that any test hears: none posts an entry that is longer alone.
                    assert!(text.as_str().len() <= 64 * 1024, "{} bytes", text.as_str().len());
                    let message =
                        FromServer::read(text.as_str()).unwrap_or_else(|bad| panic!("{bad}: {}", text.as_str()));
                    match &message.message {
                        ServerMessage::StateChange(change) if change.change_type == Kind::ThreadCreated => {
                            self.creations.push(message);
                        }
                        _ => self.heard.push_back(message),
                    }
                    return true;
                }
                Ok(Some(Event::Ping(payload))) => {
                    self.pings += 1;
                    if !self.mute {
                        let mut wire = BytesMut::new();
                        masked(Opcode::Pong, &payload, [4, 3, 2, 1], &mut wire);
                        self.write(&wire).await;
                    }
                    return true;
                }
                Ok(Some(Event::Close(close))) => {
                    self.closed = Some(close.map_or(1005, |close| close.code.get()));
                    let _ = self.socket.shutdown().await;
                    return false;
                }
                Ok(Some(other)) => panic!("unexpected {other:?}"),
                Ok(None) => {}
                Err(error) => panic!("the server broke the protocol: {error}"),
            }
            let mut received = BytesMut::with_capacity(64 * 1024);
            match self.socket.read_buf(&mut received).await {
                Ok(0) | Err(_) => return false,
                Ok(_) => self.decoder.feed(&received),
            }
        }
    }

    /// The next message, whatever it is.
    pub(crate) async fn next(&mut self) -> FromServer {
        self.find(|_| true).await
    }

    /// The next message of which this is true. What came before it stays to be asked for.
    pub(crate) async fn find(&mut self, wanted: impl Fn(&FromServer) -> bool) -> FromServer {
        let mut looked_at = 0;
        must(async {
            loop {
                if let Some(at) = self.heard.iter().skip(looked_at).position(&wanted) {
                    return self.heard.remove(looked_at + at).unwrap();
                }
                looked_at = self.heard.len();
                if !self.receive().await {
                    let heard: Vec<_> = self
                        .heard
                        .iter()
                        .map(|message| format!("{:?}", message.message))
                        .collect();
                    panic!("closed with {:?}; heard {heard:#?}", self.closed);
                }
            }
        })
        .await
    }

    /// Reads until the server closes, and gives the code; 1006 where it only ends the connection.
    pub(crate) async fn closed(&mut self) -> u16 {
        must(async { while self.closed.is_none() && self.receive().await {} }).await;
        self.closed.unwrap_or(1006)
    }

    /// What was heard so far and not asked for.
    pub(crate) fn heard(&self) -> impl Iterator<Item = &FromServer> {
        self.heard.iter()
    }

    /// Everything that the server had said before it answered a heartbeat: nothing of it comes later.
    pub(crate) async fn settle(&mut self) {
        let id = self.say(ClientMessage::Heartbeat).await;
        self.find(|message| message.reply_to == Some(id)).await;
    }

    pub(crate) fn forget_heard(&mut self) {
        self.heard.clear();
    }
}

/// An authenticated client. It numbers its actions (A2) and signs them; everything else it leaves to the test.
pub(crate) struct Client {
    pub(crate) raw: Raw,
    pub(crate) user_id: UserId,
    pub(crate) secret: SecretKey,
    pub(crate) audience: Audience,
    pub(crate) clock: Arc<MovedClock>,
    pub(crate) hello: Hello,
    pub(crate) session: Session,
    pub(crate) seqs: HashMap<ThreadId, u64>,
}

impl Client {
    pub(crate) fn sign(&self, thread_id: ThreadId, action_type: &str, payload: &Object) -> SignedAction {
        self.sign_as(fresh_id(), thread_id, action_type, payload, None)
    }

    pub(crate) fn sign_as(
        &self,
        id: Id,
        thread_id: ThreadId,
        action_type: &str,
        payload: &Object,
        seen: Option<Cursor>,
    ) -> SignedAction {
        let unsigned = Unsigned {
            audience: &self.audience,
            user_id: &self.user_id,
            id,
            action_type,
            thread_id,
            timestamp: self.clock.wall(),
            seen,
            payload,
        };
        SignedAction::sign(unsigned, &self.secret).unwrap()
    }

    pub(crate) fn next_seq(&mut self, thread_id: ThreadId) -> u64 {
        let seq = self.seqs.entry(thread_id).or_default();
        *seq += 1;
        *seq
    }

    /// Sends an action with this number. The envelope's time is the one that was signed.
    pub(crate) async fn send_numbered(&mut self, seq: u64, action: &SignedAction) {
        let message = ClientMessage::Action(ActionSeq::new(seq).unwrap(), action.clone());
        let envelope = FromClient {
            id: action.id,
            timestamp: action.timestamp,
            message,
        };
        self.raw.text(&envelope.to_text()).await;
    }

    /// Sends an action with the next number.
    pub(crate) async fn send(&mut self, action: &SignedAction) {
        let seq = self.next_seq(action.thread_id);
        self.send_numbered(seq, action).await;
    }

    pub(crate) async fn act(&mut self, thread_id: ThreadId, action_type: &str, payload: Object) -> Id {
        let action = self.sign(thread_id, action_type, &payload);
        self.send(&action).await;
        action.id
    }

    /// Acts, and waits for the receipt.
    pub(crate) async fn acts(&mut self, thread_id: ThreadId, action_type: &str, payload: Object) -> (Id, Receipt) {
        let id = self.act(thread_id, action_type, payload).await;
        let receipt = self.receipt(id).await;
        (id, receipt)
    }

    pub(crate) async fn posts(&mut self, thread_id: ThreadId, content: &str) -> (Id, Receipt) {
        self.acts(thread_id, "action.submit_message", message(content)).await
    }

    /// A private thread with these members.
    pub(crate) async fn creates(&mut self, members: &[(&str, &str)]) -> ThreadId {
        self.creates_with(members, Object::new()).await
    }

    pub(crate) async fn creates_with(&mut self, members: &[(&str, &str)], more: Object) -> ThreadId {
        let thread_id = fresh_thread();
        let rows: Vec<Value> = members.iter().map(|(name, role)| member(name, role).into()).collect();
        let mut payload = object! { "title": "a thread", "audience": self.audience.as_str(), "members": Value::Array(rows), "salt": salt() };
        for (name, value) in more.iter() {
            payload.insert(name, value.clone());
        }
        let (_, receipt) = self.acts(thread_id, "action.create_thread", payload).await;
        assert_eq!(receipt.seq.get(), 1);
        thread_id
    }

    pub(crate) async fn receipt(&mut self, id: Id) -> Receipt {
        match self.answer(id).await {
            Ok(receipt) => receipt,
            Err(error) => panic!("no receipt but {error:?}"),
        }
    }

    pub(crate) async fn refusal(&mut self, id: Id) -> ErrorPayload {
        match self.answer(id).await {
            Ok(receipt) => panic!("no refusal but {receipt:?}"),
            Err(error) => error,
        }
    }

    pub(crate) async fn refused(&mut self, id: Id) -> ErrorCode {
        self.refusal(id).await.code
    }

    pub(crate) async fn answer(&mut self, id: Id) -> Result<Receipt, ErrorPayload> {
        match self.raw.find(|message| message.reply_to == Some(id)).await.message {
            ServerMessage::Receipt(receipt) => Ok(receipt),
            ServerMessage::StateError(error) | ServerMessage::ConnectionError(error) => Err(error),
            other => panic!("answered by {}", other.type_name()),
        }
    }

    /// The answer to a request, whatever it is.
    pub(crate) async fn asks(&mut self, message: ClientMessage) -> FromServer {
        let id = self.raw.say(message).await;
        self.raw.find(|message| message.reply_to == Some(id)).await
    }

    pub(crate) async fn subscribes(&mut self, thread_id: ThreadId) -> (SubscribedThread, Option<Snapshot>) {
        self.subscribes_with(thread_id, |_| {}).await
    }

    /// Subscribes, and waits for the snapshot where one is due at once.
    pub(crate) async fn subscribes_with(
        &mut self,
        thread_id: ThreadId,
        options: impl FnOnce(&mut SubscribeThread),
    ) -> (SubscribedThread, Option<Snapshot>) {
        let mut thread = SubscribeThread {
            thread_id,
            cursor: None,
            streams: None,
            mode: None,
            history: None,
            verify: None,
            complete: None,
        };
        options(&mut thread);
        let fresh = thread.cursor.is_none() && thread.mode.is_none();
        let subscribe = Subscribe {
            threads: Some(vec![thread]),
            ..Subscribe::default()
        };
        let id = self.raw.say(ClientMessage::Subscribe(subscribe)).await;
        let subscribed = match self.raw.find(|message| message.reply_to == Some(id)).await.message {
            ServerMessage::Subscribed(Subscribed::Thread(subscribed)) => subscribed,
            other => panic!("not subscribed: {other:?}"),
        };
        let snapshot = if fresh {
            Some(self.snapshot(thread_id).await)
        } else {
            None
        };
        (subscribed, snapshot)
    }

    pub(crate) async fn snapshot(&mut self, thread_id: ThreadId) -> Snapshot {
        let is_snapshot = |message: &FromServer| {
            message.thread_id == Some(thread_id) && matches!(message.message, ServerMessage::Snapshot(_))
        };
        match self.raw.find(is_snapshot).await.message {
            ServerMessage::Snapshot(snapshot) => snapshot,
            _ => unreachable!(),
        }
    }

    /// The next update of a thread.
    pub(crate) async fn update(&mut self, thread_id: ThreadId) -> Range {
        let is_update = |message: &FromServer| {
            message.thread_id == Some(thread_id) && matches!(message.message, ServerMessage::ThreadUpdate(_))
        };
        match self.raw.find(is_update).await.message {
            ServerMessage::ThreadUpdate(range) => range,
            _ => unreachable!(),
        }
    }

    /// Updates until the client has this number; their entries.
    pub(crate) async fn updates_to(&mut self, thread_id: ThreadId, to: u64) -> Vec<Range> {
        let mut ranges = Vec::new();
        loop {
            let range = self.update(thread_id).await;
            let end = range.to.get();
            ranges.push(range);
            if end >= to {
                return ranges;
            }
        }
    }

    /// Comes again: the same user and client on a new connection, with the session's token.
    pub(crate) async fn comes_again(self, world: &World) -> Self {
        let (token, client_id, secret, seqs) = (
            self.session.session_token,
            self.session.client_id,
            self.secret,
            self.seqs,
        );
        drop(self.raw);
        let mut raw = world.connect().await;
        let hello = raw.hello().await;
        raw.say(auth(
            &hello,
            &secret,
            &world.audience,
            client_id.as_str(),
            token.clone(),
        ))
        .await;
        let mut session = match raw.next().await.message {
            ServerMessage::Session(session) => session,
            other => panic!("no session but {}", other.type_name()),
        };
        session.session_token = session.session_token.or(token);
        Self {
            raw,
            user_id: UserId::of_key(&secret.public()),
            secret,
            audience: world.audience.clone(),
            clock: world.clock.clone(),
            hello,
            session,
            seqs,
        }
    }
}

pub(crate) fn salt() -> Value {
    Value::from(choir_protocol::encoding::base64url_encode(
        &Hash::of(&fresh()).as_bytes()[..16],
    ))
}

pub(crate) fn message(content: &str) -> Object {
    object! { "content": content, "salt": salt() }
}

pub(crate) fn member(name: &str, role: &str) -> Object {
    object! { "user_id": user(name).as_str(), "role": role }
}

pub(crate) fn decision(spec: Id, hash: Hash, decision: &str) -> Object {
    object! { "spec": spec.to_string(), "content_hash": hash.to_string(), "decision": decision, "salt": salt() }
}

/// The kinds of some ranges' entries, in order.
pub(crate) fn kinds(ranges: &[Range]) -> Vec<String> {
    ranges
        .iter()
        .flat_map(|range| &range.entries)
        .map(|entry| entry.kind.to_string())
        .collect()
}

/// The contents of the messages in some ranges, in order.
pub(crate) fn contents(ranges: &[Range]) -> Vec<String> {
    let text = |entry: &choir_protocol::entry::Entry| {
        entry
            .body_value()?
            .as_object()?
            .get("content")?
            .as_str()
            .map(ToOwned::to_owned)
    };
    ranges
        .iter()
        .flat_map(|range| &range.entries)
        .filter_map(text)
        .collect()
}

/// A replica that checks everything: it holds the peaks of its cursor, as a verifying client does (L8).
#[derive(Clone, Default)]
pub(crate) struct Verifier {
    pub(crate) peaks: Peaks,
}

impl Verifier {
    pub(crate) fn of_snapshot(thread_id: ThreadId, snapshot: &Snapshot) -> Self {
        let start = snapshot
            .recent
            .peaks_at_from()
            .expect("recent carries peaks with verify");
        let (peaks, _) = snapshot.recent.verify(thread_id, &start).unwrap();
        Self { peaks }
    }

    pub(crate) fn apply(&mut self, thread_id: ThreadId, range: &Range) {
        self.peaks = range.verify(thread_id, &self.peaks).unwrap().0;
    }

    pub(crate) fn seq(&self) -> u64 {
        self.peaks.size()
    }

    pub(crate) fn cursor(&self) -> Cursor {
        Cursor {
            seq: Seq::saturating(self.peaks.size()),
            root: self.peaks.root(),
        }
    }
}
