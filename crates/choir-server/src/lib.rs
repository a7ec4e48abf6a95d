//! The Choir server as a library. It decides nothing: what an action does, who may see what, and what a session answers are pure functions and machines in
//! `choir-core`; how bytes become durable is `choir-log`'s affair. It ends no TLS, keeps no queue of messages for anybody, and holds nothing that isn't in the log,
//! but sessions.
//!
//! What is here are sockets, tasks and time:
//!
//! - [`Server`] is bound to an address, then [run](Server::run) until it is told to end, and gives a [`Report`].
//! - [`Config`] says where, for whom, and within which limits.
//! - [`Environment`] is where time and chance come in.
//!
//! A thread that is active has an actor: it decides what has arrived, appends it once, and shows it when it is durable. A connection is a task with cursors; what
//! is due for it is made when there is room for it.
//!
//! ```
//! use std::sync::Arc;
//!
//! use choir_log::memory::MemoryLog;
//! use choir_protocol::ids::LogId;
//! use choir_server::{Config, Server};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let log = Arc::new(MemoryLog::new(LogId::v7(1_764_000_000_000, [7; 10])));
//! let server = Server::bind(Config::new("127.0.0.1:0".parse()?), log).await?;
//! println!("ws://{}/v1/ws", server.local_addr());
//!
//! let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
//! let running = tokio::spawn(server.run(async {
//!     let _ = stopped.await;
//! }));
//! // … clients come and go …
//! drop(stop);
//! let report = running.await?;
//! assert!(report.orderly);
//! # Ok(())
//! # }
//! ```

mod config;
mod encode;
mod environment;
mod gateway;
mod mailbox;
mod rates;
mod registry;
mod requests;
mod server;
mod snapshot;
mod stats;
mod threads;

pub use config::{BindError, Config, Guard, Times};
pub use environment::{Environment, NoRandomness, System};
pub use server::Server;
pub use stats::Report;

pub(crate) use server::Shared;
