use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use choir_core::client::error::Error;
use choir_core::client::replica::Retain;
use choir_core::client::{Credentials, Token};
use choir_protocol::error::ErrorCode;
use choir_protocol::ids::{Audience, ClientId, UserId};
use choir_protocol::key::{PublicKey, SecretKey};

use crate::connector::{Connector, Endpoint, TcpConnector};
use crate::signatures::SharedSignatures;

type Refresh = dyn Fn(Error) -> Pin<Box<dyn Future<Output = Option<String>> + Send>> + Send + Sync;

/// What a [`Client`](crate::Client) is made with: a server's URL, a key, and what differs from the defaults.
///
/// ```
/// use std::time::Duration;
/// use choir_client::{Config, SecretKey};
///
/// let key = SecretKey::from_seed(&[7; 32]); // 32 random bytes, in earnest
/// let config = Config::new("ws://127.0.0.1:7400/v1/ws", key)
///     .agent("notes/1.0")
///     .give_up_after(Duration::from_secs(600));
/// ```
#[derive(Clone)]
pub struct Config {
    pub(crate) url: String,
    pub(crate) credentials: Credentials,
    pub(crate) client_id: Option<ClientId>,
    pub(crate) agent: String,
    pub(crate) audience: Option<Audience>,
    pub(crate) connect_timeout: Duration,
    pub(crate) close_timeout: Duration,
    pub(crate) give_up_after: Option<Duration>,
    pub(crate) retain: Retain,
    pub(crate) known_keys: Vec<(UserId, PublicKey)>,
    pub(crate) signatures: Option<Arc<SharedSignatures>>,
    pub(crate) refresh: Option<Arc<Refresh>>,
    pub(crate) connector: Arc<dyn Connector>,
}

impl Config {
    /// A client at this URL (`ws://host:port/v1/ws`) that signs with this key. Without a token the user is the key (C2).
    pub fn new(url: impl Into<String>, key: impl Into<Arc<SecretKey>>) -> Self {
        Self {
            url: url.into(),
            credentials: Credentials {
                key: key.into(),
                token: None,
            },
            client_id: None,
            agent: concat!("choir-client/", env!("CARGO_PKG_VERSION")).to_owned(),
            audience: None,
            connect_timeout: Duration::from_secs(20),
            close_timeout: Duration::from_secs(10),
            give_up_after: None,
            retain: Retain::default(),
            known_keys: Vec::new(),
            signatures: None,
            refresh: None,
            connector: Arc::new(TcpConnector),
        }
    }

    /// Signs in by a JWT (C2): the user is whom it names, and the key signs their actions.
    #[must_use]
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.credentials.token = Some(Token(token.into()));
        self
    }

    /// Where new tokens come from: called when the server says that the old one expires or doesn't hold (C8, C11). `None` ends the client.
    #[must_use]
    pub fn refresh_token<F, Fut>(mut self, refresh: F) -> Self
    where
        F: Fn(Error) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Option<String>> + Send + 'static,
    {
        self.refresh = Some(Arc::new(move |error| Box::pin(refresh(error))));
        self
    }

    /// Which running client this is (C2): two at once with one name supersede each other (C7). Random where left out.
    #[must_use]
    pub fn client_id(mut self, client_id: ClientId) -> Self {
        self.client_id = Some(client_id);
        self
    }

    /// The software's name and version, of which the server sees the first 128 bytes.
    #[must_use]
    pub fn agent(mut self, agent: impl Into<String>) -> Self {
        let agent = agent.into();
        self.agent = agent[..agent.floor_char_boundary(128)].to_owned();
        self
    }

    /// What signatures are made for (C4), where that isn't the origin of the URL: behind a tunnel, for example.
    #[must_use]
    pub fn audience(mut self, audience: Audience) -> Self {
        self.audience = Some(audience);
        self
    }

    /// How long a connection may take from dialling to the session. 20 s.
    #[must_use]
    pub const fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How long [`Client::close`](crate::Client::close) waits for the answers to what was handed over. 10 s.
    #[must_use]
    pub const fn close_timeout(mut self, timeout: Duration) -> Self {
        self.close_timeout = timeout;
        self
    }

    /// After how long without a session the client stops reconnecting. Never where left out.
    #[must_use]
    pub const fn give_up_after(mut self, time: Duration) -> Self {
        self.give_up_after = Some(time);
        self
    }

    /// How much of each thread is held in memory.
    #[must_use]
    pub const fn retain(mut self, retain: Retain) -> Self {
        self.retain = retain;
        self
    }

    /// Shares what is known of signatures with other clients of this process that follow the same threads: each is then checked once, not once for each client.
    #[must_use]
    pub fn share_signatures(mut self, signatures: Arc<SharedSignatures>) -> Self {
        self.signatures = Some(signatures);
        self
    }

    /// A key that is known to be a user's, so that another one is noticed (K5).
    #[must_use]
    pub fn known_key(mut self, user_id: UserId, key: PublicKey) -> Self {
        self.known_keys.push((user_id, key));
        self
    }

    /// How byte streams to the server are opened. TCP where left out.
    #[must_use]
    pub fn connector(mut self, connector: impl Connector) -> Self {
        self.connector = Arc::new(connector);
        self
    }

    /// Where the URL leads, and the audience that signatures are made for.
    pub(crate) fn target(&self) -> Result<(Endpoint, Audience), Error> {
        let invalid = |why: String| Error::wire(ErrorCode::InvalidMessage, format!("{}: {why}", self.url));
        let endpoint = Endpoint::of_url(&self.url).map_err(|why| invalid(why.to_owned()))?;
        self.connector
            .check(&endpoint)
            .map_err(|error| invalid(error.to_string()))?;
        let audience = match &self.audience {
            Some(audience) => audience.clone(),
            None => Audience::of_url(&self.url).map_err(|error| invalid(error.to_string()))?,
        };
        Ok((endpoint, audience))
    }
}

/// Without key and token.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("url", &self.url)
            .field("client_id", &self.client_id)
            .field("agent", &self.agent)
            .finish_non_exhaustive()
    }
}
