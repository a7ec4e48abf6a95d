//! The Choir client for Rust: connects, authenticates, follows threads, acts in them. It shows nothing, stores nothing on disk, makes no keys, and believes
//! no server: what it holds of a thread is checked entry by entry, signature by signature. It has no TLS of its own yet, and refuses `wss://` URLs unless a
//! [`Connector`] is brought that encrypts.
//!
//! - [`Client`] is one user's connection, over all its reconnects; [`Config`] is what it is made with.
//! - [`ThreadHandle`] is a thread that is followed: a verified [`Replica`] and a stream of [`Updates`].
//! - [`Error`] bears the specification's names and section 11's codes.
//!
//! The rules are those of `choir_core::client`, a machine without sockets and clock; this crate is the socket, the clock and one task.
//!
//! ```no_run
//! use choir_client::{Client, Config, NewThread, SecretKey, SubscribeOptions, ThreadEvent, Update};
//!
//! # async fn example(seed: [u8; 32]) -> Result<(), choir_client::Error> {
//! let config = Config::new("ws://127.0.0.1:7400/v1/ws", SecretKey::from_seed(&seed));
//! let client = Client::connect(config).await?;
//!
//! let thread_id = client.create_thread(NewThread::titled("Release notes")).await?;
//! let thread = client.subscribe(thread_id, SubscribeOptions::default()).await?;
//! let mut updates = thread.updates();
//! thread.post("Hello, everybody").await?;
//!
//! while let Some(event) = updates.next().await {
//!     if let ThreadEvent::Update(Update::Entries { entries, .. }) = &*event {
//!         println!("{} new entries", entries.len());
//!         if let Some(replica) = thread.replica() {
//!             for message in replica.view().messages() {
//!                 println!("{}: {}", message.author, message.text().unwrap_or("(no text)"));
//!             }
//!         }
//!         break;
//!     }
//! }
//! client.close().await;
//! # Ok(())
//! # }
//! ```

mod client;
mod config;
mod connector;
mod draft;
mod events;
mod shared;
mod signatures;
mod task;
mod thread;
mod websocket;

pub use client::{Client, Closed, Pending, Posted};
pub use config::Config;
pub use connector::{Connecting, Connector, Endpoint, TcpConnector, Transport};
pub use draft::{Draft, NewThread, Settings};
pub use events::{ClientEvent, Events, ThreadEvent, Updates};
pub use signatures::SharedSignatures;
pub use thread::{Earlier, ThreadHandle};

pub use choir_core::client::error::{Code, Error, SpecificationError};
pub use choir_core::client::replica::{Finding, Replica, Retain, Walk};
pub use choir_core::client::view::{Content, Edited, Message, View};
pub use choir_core::client::{Notice, OpenStream, Reply, Request, State, SubscribeOptions, Update};
pub use choir_protocol::entry::{Body, Entry, Kind};
pub use choir_protocol::error::ErrorCode;
pub use choir_protocol::hash::Hash;
pub use choir_protocol::ids::{Audience, ClientId, Cursor, Id, Seq, ThreadId, Timestamp, UserId};
pub use choir_protocol::json::{Object, Value};
pub use choir_protocol::key::{PublicKey, SecretKey};
pub use choir_protocol::message::{Mode, Receipt, ReceiptStatus, Scope};
pub use choir_protocol::thread::{
    Approval, Decision, Member, OpenSpec, Outcome, Policy, Propose, Review, Role, Stream, Visibility,
};
