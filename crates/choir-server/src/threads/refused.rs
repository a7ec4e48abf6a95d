//! What a thread remembers of refusals that may be tried again (A3): nothing that its session had sent before it heard of one is applied any more.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use choir_core::session::connection::Submission;
use choir_core::session::sequence::Generation;
use choir_protocol::ids::SessionId;
use tokio::time::{Duration, Instant};

/// How long a note is kept. What was submitted before the refusal was heard of has come through the queue long before.
const KEPT: Duration = Duration::from_secs(60);

/// Of each session the newest generation that a retryable refusal has ended. It outlives actors, so that one that panics leaves no gap.
#[derive(Debug, Default)]
pub(crate) struct Refused {
    notes: Mutex<HashMap<SessionId, (Generation, Instant)>>,
}

impl Refused {
    fn notes(&self) -> MutexGuard<'_, HashMap<SessionId, (Generation, Instant)>> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether an action is neither applied nor answered any more. Look-ups have no number, and stand apart.
    pub(crate) fn covers(&self, submission: &Submission) -> bool {
        !submission.look_up_only
            && self
                .notes()
                .get(&submission.session_id)
                .is_some_and(|(ended, _)| submission.generation <= *ended)
    }

    /// An action was refused retryably.
    pub(crate) fn note(&self, submission: &Submission) {
        if !submission.look_up_only {
            let now = Instant::now();
            let mut notes = self.notes();
            let note = notes
                .entry(submission.session_id)
                .or_insert((submission.generation, now));
            *note = (note.0.max(submission.generation), now);
        }
    }

    /// Forgets what is old; whether nothing is left.
    pub(crate) fn sweep(&self) -> bool {
        let now = Instant::now();
        let mut notes = self.notes();
        notes.retain(|_, (_, at)| now.duration_since(*at) < KEPT);
        notes.is_empty()
    }

    /// Whether nothing is remembered.
    pub(crate) fn is_empty(&self) -> bool {
        self.notes().is_empty()
    }
}
