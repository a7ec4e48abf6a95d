//! Keys of other users: prepared once for many checks, and remembered so that a new one is noticed (K5).

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use choir_protocol::ids::UserId;
use choir_protocol::key::{PreparedKey, PublicKey, Signature};

/// How many keys stay decompressed.
const MAX_PREPARED: usize = 1_024;
/// How many users are remembered.
const MAX_USERS: usize = 16_384;
/// How many keys of one user are remembered: people have a few devices.
const MAX_KEYS_OF_USER: usize = 16;

/// The keys that a client has seen. It lives as long as the client; what it should know at its start is [`remember`](KeyRing::remember)ed.
#[derive(Debug, Clone, Default)]
pub struct KeyRing {
    seen: BTreeMap<UserId, Vec<PublicKey>>,
    prepared: BTreeMap<PublicKey, Option<PreparedKey>>,
}

impl KeyRing {
    /// Whether this is a key that hasn't been seen for the user, who had another before (K5). Remembers it. Users who are their key have no other.
    pub fn remember(&mut self, user: &UserId, key: PublicKey) -> bool {
        if user.key().is_some() {
            return false;
        }
        if !self.seen.contains_key(user) && self.seen.len() >= MAX_USERS {
            self.seen.pop_first();
        }
        let keys = self.seen.entry(user.clone()).or_default();
        if keys.contains(&key) {
            return false;
        }
        let had_another = !keys.is_empty();
        if keys.len() >= MAX_KEYS_OF_USER {
            keys.remove(0);
        }
        keys.push(key);
        had_another
    }

    /// What is remembered of a user, oldest first.
    pub fn of(&self, user: &UserId) -> &[PublicKey] {
        self.seen.get(user).map_or(&[], Vec::as_slice)
    }

    /// All that is remembered, to be kept over a restart.
    pub fn iter(&self) -> impl Iterator<Item = (&UserId, &[PublicKey])> {
        self.seen.iter().map(|(user, keys)| (user, keys.as_slice()))
    }

    /// Whether the signature holds (K2).
    pub(super) fn verify(&mut self, key: PublicKey, text: &[u8], sig: &Signature) -> bool {
        if !self.prepared.contains_key(&key) && self.prepared.len() >= MAX_PREPARED {
            self.prepared.pop_first();
        }
        self.prepared
            .entry(key)
            .or_insert_with(|| PreparedKey::new(&key))
            .as_ref()
            .is_some_and(|prepared| prepared.verify(text, sig))
    }
}
