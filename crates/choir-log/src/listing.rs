//! Pages of threads by newest activity (Y1): their order, and the places between them.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use choir_protocol::ids::{ThreadId, Timestamp};

use crate::{MAX_ROWS, ReadError};

/// A place in a list: newest activity first, then by id. Smaller comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    activity: Reverse<Timestamp>,
    thread: ThreadId,
}

impl Place {
    pub(crate) const fn new(last_activity: Timestamp, thread: ThreadId) -> Self {
        Self {
            activity: Reverse(last_activity),
            thread,
        }
    }

    pub(crate) const fn thread(self) -> ThreadId {
        self.thread
    }

    pub(crate) const fn last_activity(self) -> Timestamp {
        self.activity.0
    }

    /// The `next` of a page that ends here.
    pub(crate) fn to_next(self) -> String {
        format!("{}.{}", self.activity.0, self.thread)
    }

    /// Reads what a client sends back.
    pub(crate) fn parse(after: Option<&str>) -> Result<Option<Self>, ReadError> {
        let Some(text) = after else { return Ok(None) };
        let place = text.split_once('.').and_then(|(activity, thread)| {
            let activity = activity.parse().ok().and_then(Timestamp::new)?;
            Some(Self::new(activity, thread.parse().ok()?))
        });
        place.map(Some).ok_or(ReadError::After)
    }
}

/// Picks a page out of places that come in any order, in memory for one page.
pub(crate) struct Page {
    after: Option<Place>,
    limit: usize,
    // The greatest on top, so that it is the one that gives way. One more than the limit, which tells whether there is a next page.
    best: BinaryHeap<Place>,
}

impl Page {
    pub(crate) fn new(after: Option<Place>, limit: usize) -> Self {
        Self {
            after,
            limit: limit.clamp(1, MAX_ROWS),
            best: BinaryHeap::new(),
        }
    }

    pub(crate) fn offer(&mut self, place: Place) {
        if self.after.is_some_and(|after| place <= after) {
            return;
        }
        self.best.push(place);
        if self.best.len() > self.limit + 1 {
            self.best.pop();
        }
    }

    /// The page's places in order, and the next page's `after`.
    pub(crate) fn finish(self) -> (Vec<Place>, Option<String>) {
        let mut places = self.best.into_sorted_vec();
        let more = places.len() > self.limit;
        places.truncate(self.limit);
        let next = places.last().filter(|_| more).map(|last| last.to_next());
        (places, next)
    }
}
