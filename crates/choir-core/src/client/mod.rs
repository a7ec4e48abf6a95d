//! The client's side of the protocol, without sockets, clock or tasks.
//!
//! - [`session::Machine`] is one client's connection over its whole life: dialling, authentication, subscriptions, actions and their resending, heartbeats,
//!   reconnecting. It is handed what happened and the time, and says what is to be done.
//! - [`replica::Replica`] is a verified copy of one thread; the machine keeps one for each thread that it follows.
//! - [`error::Error`] bears the specification's names.
//!
//! # The contract
//!
//! One input or command with the time; then [`Machine::poll`](session::Machine::poll) until it says `None`; then wait for the next input, at most until
//! [`Machine::wake_at`](session::Machine::wake_at). Commands are the methods that take a [`Now`] and return what they are called. They never fail for want
//! of a connection: what they hand over waits for one.
//!
//! ```
//! use choir_core::client::{Config, Credentials, Input, Monotonic, Now, Output, session::Machine};
//! use choir_protocol::ids::Timestamp;
//! use choir_protocol::key::SecretKey;
//!
//! let config = Config::new(
//!     "http://127.0.0.1:7400".parse().unwrap(),
//!     "example".parse().unwrap(),
//! );
//! let credentials = Credentials { key: SecretKey::from_seed(&[1; 32]).into(), token: None };
//! let mut machine = Machine::new(config, credentials, [2; 32]);
//!
//! let now = Now { monotonic: Monotonic::from_ms(0), wall: Timestamp::saturating(1_764_000_000_000) };
//! machine.start(now);
//! let mut dial = false;
//! while let Some(output) = machine.poll() {
//!     match output {
//!         Output::Connect => dial = true,         // open a socket …
//!         Output::Send(text) => println!("{text}"),
//!         Output::Close(code) => println!("close with {code}"),
//!         Output::Event(event) => println!("{event:?}"),
//!     }
//! }
//! assert!(dial);
//! assert!(machine.wake_at().is_some());
//! // … and once it is open:
//! machine.handle(now, Input::Connected);
//! ```

mod backoff;
mod entropy;
pub mod error;
pub mod keys;
mod lanes;
mod pace;
pub mod replica;
pub mod session;
mod streams;
mod subscription;
mod types;
pub mod view;

pub use crate::session::{Monotonic, Now};
pub use entropy::Entropy;
pub use error::{Code, Error};
pub use streams::OpenStream;
pub use types::{
    Config, Credentials, Event, Input, Lost, Notice, Output, Reply, Request, State, SubscribeOptions, Token, Update,
};
