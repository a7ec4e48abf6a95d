//! The members of a thread, in the order in which they were added.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use choir_protocol::ids::{Seq, UserId};
use choir_protocol::thread::Member;

/// A member, and since when they see what they see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) member: Member,
    /// The last entry that widened this member's view (Y8).
    pub(crate) widened: Seq,
}

/// All members. A thread has at most some thousand (section 12), so that a removal may touch them all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Members {
    rows: Vec<Row>,
    /// Invariant: exactly one for each row, with its place.
    places: BTreeMap<UserId, usize>,
}

impl Members {
    pub(crate) fn rows(&self) -> &[Row] {
        &self.rows
    }

    pub(crate) fn rows_mut(&mut self) -> impl Iterator<Item = &mut Row> {
        self.rows.iter_mut()
    }

    pub(crate) fn get(&self, user: &UserId) -> Option<&Row> {
        self.places.get(user).and_then(|place| self.rows.get(*place))
    }

    pub(crate) fn get_mut(&mut self, user: &UserId) -> Option<&mut Row> {
        self.places.get(user).and_then(|place| self.rows.get_mut(*place))
    }

    /// Adds a member as the last one. Who is one already keeps their place and gets the new row.
    pub(crate) fn add(&mut self, row: Row) {
        match self.get_mut(&row.member.user_id) {
            Some(old) => *old = row,
            None => {
                self.places.insert(row.member.user_id.clone(), self.rows.len());
                self.rows.push(row);
            }
        }
    }

    /// Removes a member; whether there was one.
    pub(crate) fn remove(&mut self, user: &UserId) -> bool {
        let Some(place) = self.places.remove(user) else {
            return false;
        };
        self.rows.remove(place);
        for later in self.places.values_mut().filter(|other| **other > place) {
            *later -= 1;
        }
        true
    }
}

impl FromIterator<Row> for Members {
    fn from_iter<I: IntoIterator<Item = Row>>(rows: I) -> Self {
        let mut members = Self::default();
        for row in rows {
            members.add(row);
        }
        members
    }
}
