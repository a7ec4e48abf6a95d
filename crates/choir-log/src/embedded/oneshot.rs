//! An answer that one thread gives and one future awaits.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// Two ends of one answer.
pub(crate) fn oneshot<T>() -> (Sender<T>, Receiver<T>) {
    let slot = Arc::new(Slot(Mutex::new(State {
        answer: None,
        waker: None,
        over: false,
    })));
    (Sender(Arc::clone(&slot)), Receiver(slot))
}

#[derive(Debug)]
struct Slot<T>(Mutex<State<T>>);

#[derive(Debug)]
struct State<T> {
    answer: Option<T>,
    waker: Option<Waker>,
    /// Either end is gone.
    over: bool,
}

impl<T> Slot<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // Nothing in here panics while it is locked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Gives the answer. Dropped without one, it answers that there will be none.
#[derive(Debug)]
pub(crate) struct Sender<T>(Arc<Slot<T>>);

impl<T> Sender<T> {
    pub(crate) fn send(self, answer: T) {
        self.0.lock().answer = Some(answer);
        // Dropping it wakes the receiver.
    }

    /// Whether nobody waits any more.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.0.lock().over
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let waker = {
            let mut state = self.0.lock();
            state.over = true;
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// Resolves with the answer, or with none where the sender was dropped.
#[derive(Debug)]
pub(crate) struct Receiver<T>(Arc<Slot<T>>);

impl<T> Future for Receiver<T> {
    type Output = Option<T>;
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        let mut state = self.0.lock();
        if let Some(answer) = state.answer.take() {
            return Poll::Ready(Some(answer));
        }
        if state.over {
            return Poll::Ready(None);
        }
        state.waker = Some(context.waker().clone());
        Poll::Pending
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.0.lock().over = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::wait;

    #[test]
    fn an_answer_arrives_from_another_thread() {
        let (sender, receiver) = oneshot();
        std::thread::scope(|scope| {
            scope.spawn(move || sender.send(7));
            assert_eq!(wait(receiver), Some(7));
        });
    }

    #[test]
    fn a_dropped_sender_answers_none() {
        let (sender, receiver) = oneshot::<u8>();
        drop(sender);
        assert_eq!(wait(receiver), None);
    }

    #[test]
    fn a_dropped_receiver_is_noticed() {
        let (sender, receiver) = oneshot::<u8>();
        assert!(!sender.is_abandoned());
        drop(receiver);
        assert!(sender.is_abandoned());
    }
}
