//! skeleton
use alloc::sync::Arc;
use choir_protocol::ids::{Id, ThreadId, UserId};
use choir_protocol::json::Object;
use choir_protocol::message::{Limits, StreamPart, UserAction};
use super::error::Error;
use super::keys::KeyRing;
use super::replica::Replica;
use super::types::*;
use super::Entropy;

/// One client's connection.
#[derive(Debug)]
pub struct Machine { entropy: Entropy, keys: KeyRing, limits: Limits }
#[allow(missing_docs, unused_variables, clippy::missing_errors_doc)]
impl Machine {
    pub fn new(config: Config, credentials: Credentials, seed: [u8; 32]) -> Self { Self { entropy: Entropy::from_seed(seed), keys: KeyRing::default(), limits: Limits::default() } }
    pub fn start(&mut self, now: Now) {}
    pub fn handle(&mut self, now: Now, input: Input<'_>) {}
    pub fn poll(&mut self) -> Option<Output> { None }
    pub fn wake_at(&self) -> Option<u64> { None }
    pub fn act(&mut self, now: Now, thread_id: ThreadId, action_type: &str, payload: Object) -> Result<Id, Error> { Err(Error::closed()) }
    pub fn act_as(&mut self, now: Now, id: Id, thread_id: ThreadId, action_type: &str, payload: Object) -> Result<Id, Error> { Err(Error::closed()) }
    pub fn request(&mut self, now: Now, request: Request) -> Result<Id, Error> { Err(Error::closed()) }
    pub fn subscribe(&mut self, now: Now, thread_id: ThreadId, options: SubscribeOptions) -> Result<(), Error> { Err(Error::closed()) }
    pub fn subscribe_all(&mut self, now: Now, options: SubscribeOptions) -> Result<(), Error> { Err(Error::closed()) }
    pub fn unsubscribe(&mut self, now: Now, thread_id: ThreadId) {}
    pub fn user_action(&mut self, now: Now, thread_id: ThreadId, action: UserAction) -> bool { false }
    pub fn stream(&mut self, now: Now, thread_id: ThreadId, part: StreamPart) -> bool { false }
    pub fn credentials(&mut self, now: Now, credentials: Credentials) {}
    pub fn no_credentials(&mut self, now: Now) {}
    pub fn close(&mut self, now: Now) {}
    pub fn state(&self) -> State { State::Connecting }
    pub fn user_id(&self) -> Option<&UserId> { None }
    pub fn replica(&self, thread_id: ThreadId) -> Option<&Arc<Replica>> { None }
    pub fn set_aside(&self, thread_id: ThreadId) -> Option<&Arc<Replica>> { None }
    pub fn unanswered(&self) -> usize { 0 }
    pub fn latency_ms(&self) -> Option<u64> { None }
    pub fn limits(&self) -> &Limits { &self.limits }
    pub fn keys(&self) -> &KeyRing { &self.keys }
    pub fn keys_mut(&mut self) -> &mut KeyRing { &mut self.keys }
    pub fn entropy(&mut self) -> &mut Entropy { &mut self.entropy }
}
