//! A few threads for reads that may wait for the disk, so that nobody's event loop does.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

type Job = Box<dyn FnOnce() + Send>;

/// What waits to be read.
pub(crate) struct Pool {
    state: Mutex<State>,
    news: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    closed: bool,
}

impl Pool {
    pub(crate) fn new() -> Self {
        Self {
            state: Mutex::default(),
            news: Condvar::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics while it is locked.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands a read over. Where very many wait already, the caller does it itself: that is what holds callers back.
    pub(crate) fn submit(&self, job: Job) {
        let mut state = self.state();
        if state.closed {
            return;
        }
        if state.jobs.len() >= MAX_JOBS {
            drop(state);
            job();
            return;
        }
        state.jobs.push_back(job);
        self.news.notify_one();
    }

    /// Does what is handed over, until the pool is closed.
    pub(crate) fn work(&self) {
        loop {
            let job = {
                let mut state = self.state();
                loop {
                    if state.closed {
                        return;
                    }
                    match state.jobs.pop_front() {
                        Some(job) => break job,
                        None => state = self.news.wait(state).unwrap_or_else(PoisonError::into_inner),
                    }
                }
            };
            // A bug in one read must not end the others. Whoever waits for it is told that there is no answer.
            if catch_unwind(AssertUnwindSafe(job)).is_err() {
                tracing::error!("a read of the log failed by a bug: please report it");
            }
        }
    }

    /// Ends the threads. Whoever still waits is told that the log is closed.
    pub(crate) fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        let jobs = std::mem::take(&mut state.jobs);
        drop(state);
        drop(jobs);
        self.news.notify_all();
    }
}

const MAX_JOBS: usize = 10_000;
