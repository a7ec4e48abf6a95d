//! Keys of other users: prepared once for many checks, and remembered so that a new one is noticed (K5).

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt::Debug;

use choir_protocol::hash::Hash;
use choir_protocol::ids::UserId;
use choir_protocol::key::{PreparedKey, PublicKey, Signature};

/// How many keys stay decompressed.
const MAX_PREPARED: usize = 1_024;
/// How many users are remembered.
const MAX_USERS: usize = 16_384;
/// How many keys of one user are remembered: people have a few devices.
const MAX_KEYS_OF_USER: usize = 16;

/// Which signatures are known to hold, for many clients of one process that follow the same threads: a check costs forty times what a hash does, and its answer is the
/// same for all of them.
pub trait KnownSignatures: Debug + Send + Sync {
    /// Whether this check was done before, and the signature held. `check` is the SHA-256 of key, signature and text.
    fn holds(&self, check: &Hash) -> bool;
    /// The signature of this check holds. May be forgotten at will.
    fn learn(&self, check: Hash);
}

/// The keys that a client has seen. It lives as long as the client; what it should know at its start is [`remember`](KeyRing::remember)ed.
#[derive(Debug, Clone, Default)]
pub struct KeyRing {
    seen: BTreeMap<UserId, Vec<PublicKey>>,
    prepared: BTreeMap<PublicKey, Option<PreparedKey>>,
    known: Option<Arc<dyn KnownSignatures>>,
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

    /// Shares with others what is known of signatures.
    pub fn share(&mut self, known: Arc<dyn KnownSignatures>) {
        self.known = Some(known);
    }

    /// Whether the signature holds (K2).
    pub(super) fn verify(&mut self, key: PublicKey, text: &[u8], sig: &Signature) -> bool {
        let Some(known) = self.known.clone() else {
            return self.check(key, text, sig);
        };
        let check = Hash::of_parts(&[key.as_bytes(), sig.as_bytes(), text]);
        if known.holds(&check) {
            return true;
        }
        let holds = self.check(key, text, sig);
        if holds {
            known.learn(check);
        }
        holds
    }

    fn check(&mut self, key: PublicKey, text: &[u8], sig: &Signature) -> bool {
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

#[cfg(test)]
mod tests {
    extern crate std;

    use std::sync::Mutex;

    use choir_protocol::key::SecretKey;

    use super::*;

    #[derive(Debug, Default)]
    struct Known(Mutex<Vec<Hash>>);

    impl KnownSignatures for Known {
        fn holds(&self, check: &Hash) -> bool {
            self.0.lock().unwrap().contains(check)
        }
        fn learn(&self, check: Hash) {
            self.0.lock().unwrap().push(check);
        }
    }

    #[test]
    fn k2_a_signature_that_another_client_checked_is_known_and_nothing_else_is() {
        let known = Arc::new(Known::default());
        let ring = || {
            let mut ring = KeyRing::default();
            ring.share(Arc::clone(&known) as _);
            ring
        };
        let secret = SecretKey::from_seed(&[1; 32]);
        let (key, sig) = (secret.public(), secret.sign(b"text"));
        assert!(ring().verify(key, b"text", &sig));
        assert!(ring().verify(key, b"text", &sig));
        assert_eq!(known.0.lock().unwrap().len(), 1);

        let other = SecretKey::from_seed(&[2; 32]);
        assert!(!ring().verify(key, b"texT", &sig));
        assert!(!ring().verify(other.public(), b"text", &sig));
        assert!(!ring().verify(key, b"text", &other.sign(b"text")));
        assert_eq!(known.0.lock().unwrap().len(), 1, "what doesn't hold isn't learned");
    }
}
