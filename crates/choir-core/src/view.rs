//! Who sees what (S1, S2, Y8): a user's view of a thread at one state, and how it changes.

use alloc::vec::Vec;

use choir_protocol::action::{CreateThread, NewMember, RemoveMember, UpdateThread};
use choir_protocol::entry::{Entry, Kind};
use choir_protocol::ids::{Seq, UserId};
use choir_protocol::thread::{Review, Role, Settings, Stream, Visibility};

use crate::apply::{ApplyError, apply, read};
use crate::record::Record;
use crate::thread::Thread;

/// How much of a stream somebody sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Sight {
    /// Nothing of it: it isn't subscribed.
    Nothing,
    /// What concerns their own specs (S1).
    Own,
    /// All of it.
    Whole,
}

/// A choice of streams (Y3): `updates` always, the others as wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Streams {
    /// Specs, their revisions and how they end.
    pub specs: bool,
    /// Decisions.
    pub approvals: bool,
}

impl Streams {
    /// All that one may see: the default.
    pub const ALL: Self = Self {
        specs: true,
        approvals: true,
    };
    /// What everyone who reads sees.
    pub const UPDATES: Self = Self {
        specs: false,
        approvals: false,
    };

    /// Whether the stream is among them.
    pub const fn contains(self, stream: Stream) -> bool {
        match stream {
            Stream::Updates => true,
            Stream::Specs => self.specs,
            Stream::Approvals => self.approvals,
        }
    }

    /// Those of a list; all where there is none.
    pub fn of(list: Option<&[Stream]>) -> Self {
        list.map_or(Self::ALL, |list| Self {
            specs: list.contains(&Stream::Specs),
            approvals: list.contains(&Stream::Approvals),
        })
    }

    /// Whether something is among them that `other` doesn't hold.
    pub const fn exceeds(self, other: Self) -> bool {
        (self.specs && !other.specs) || (self.approvals && !other.approvals)
    }
}

/// What one user sees of a thread, at the state that it was made from. Updates are seen whole by everyone who reads; who doesn't has no view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    user: UserId,
    specs: Sight,
    approvals: Sight,
}

/// All that a frame's content depends on, as long as nothing in it is some viewer's own: those of one class share frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Class {
    specs: bool,
    approvals: bool,
}

/// The user's view of the thread; none where they may not read it.
pub fn view(thread: &Thread, user: &UserId) -> Option<View> {
    if !thread.may_read(user) {
        return None;
    }
    let whole = thread.is_co_author(user) || thread.settings().review == Review::Readers;
    let sight = if whole { Sight::Whole } else { Sight::Own };
    Some(View {
        user: user.clone(),
        specs: sight,
        approvals: sight,
    })
}

impl View {
    /// The view through a subscription to these streams.
    #[must_use]
    pub fn only(mut self, streams: Streams) -> Self {
        if !streams.specs {
            self.specs = Sight::Nothing;
        }
        if !streams.approvals {
            self.approvals = Sight::Nothing;
        }
        self
    }

    /// How much of a stream is seen.
    pub const fn sight(&self, stream: Stream) -> Sight {
        match stream {
            Stream::Updates => Sight::Whole,
            Stream::Specs => self.specs,
            Stream::Approvals => self.approvals,
        }
    }

    /// Whether an entry of this stream is seen; `spec_author` is the author of the spec that it concerns ([`Record::spec_author`]).
    pub fn sees(&self, stream: Stream, spec_author: Option<&UserId>) -> bool {
        match self.sight(stream) {
            Sight::Whole => true,
            Sight::Own => spec_author == Some(&self.user),
            Sight::Nothing => false,
        }
    }

    /// Whether the record is seen.
    pub fn sees_record(&self, record: &Record) -> bool {
        self.sees(record.stream(), record.spec_author.as_ref())
    }

    /// The class whose frames this viewer gets wherever [`sees_own`](View::sees_own) holds for none of a frame's entries.
    pub fn class(&self) -> Class {
        Class {
            specs: self.specs == Sight::Whole,
            approvals: self.approvals == Sight::Whole,
        }
    }

    /// Whether the viewer sees this entry and their class doesn't: it concerns their own spec. A range with such an entry is framed for them alone.
    pub fn sees_own(&self, stream: Stream, spec_author: Option<&UserId>) -> bool {
        self.sight(stream) == Sight::Own && spec_author == Some(&self.user)
    }
}

impl Class {
    /// Whether everyone of the class sees the entries of this stream.
    pub const fn sees(self, stream: Stream) -> bool {
        match stream {
            Stream::Updates => true,
            Stream::Specs => self.specs,
            Stream::Approvals => self.approvals,
        }
    }
}

/// The last entry that widened the user's view of the thread (Y8): being added, a role, `review`, or the thread turning public. Narrowing doesn't count. A cursor
/// before it, other than 0, is answered by a snapshot.
pub fn widened_at(thread: &Thread, user: &UserId) -> Seq {
    thread.members.get(user).map_or(thread.widened, |row| row.widened)
}

/// Who lost the right to read between two states of a thread (Y8).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Lost {
    /// Whether all did who are no members, since the thread turned private.
    pub strangers: bool,
    /// Who was a member, is none now, and may not read.
    pub members: Vec<UserId>,
}

impl Lost {
    /// Whether nobody did.
    pub fn is_empty(&self) -> bool {
        !self.strangers && self.members.is_empty()
    }
}

/// Who may read before and not after.
pub fn lost(before: &Thread, after: &Thread) -> Lost {
    let public = |thread: &Thread| thread.settings().visibility == Visibility::Public;
    if public(after) {
        return Lost::default();
    }
    let gone = before
        .members()
        .filter(|member| after.member(&member.user_id).is_none());
    Lost {
        strangers: public(before),
        members: gone.map(|member| member.user_id.clone()).collect(),
    }
}

/// Who lost the right to read by which of these records, in order, given the state before the first: each is the last entry that they get (Y8).
///
/// # Errors
/// Where the records aren't the thread's next.
pub fn losses(before: &Thread, records: &[Record]) -> Result<Vec<(Seq, Lost)>, ApplyError> {
    let thread_id = before.thread_id();
    let mut state = Some(before.clone());
    let mut losses = Vec::new();
    for record in records {
        // Nothing else takes a right away, so nothing else is compared.
        let may_take = matches!(record.kind, Kind::MemberRemoved | Kind::ThreadUpdated);
        let earlier = if may_take { state.clone() } else { None };
        apply(thread_id, &mut state, record)?;
        if let (Some(earlier), Some(later)) = (&earlier, &state) {
            let lost = lost(earlier, later);
            if !lost.is_empty() {
                losses.push((record.seq, lost));
            }
        }
    }
    Ok(losses)
}

/// Whether an entry may be hidden from a client (L8), by the client's own view at the entry and at every moment since. A view of `None` is that of who may not read.
///
/// `known` are the views from the entry on, the first being the one at it; empty where the client doesn't hold the entries that would tell. Updates are never
/// hidden from who reads at all, since that is from entry 1 on (S10).
pub fn may_hide<'a>(stream: Stream, subscribed: Streams, known: impl IntoIterator<Item = Option<&'a View>>) -> bool {
    if stream == Stream::Updates {
        return false;
    }
    let whole = |view: Option<&View>| view.is_some_and(|view| view.sight(stream) == Sight::Whole);
    let mut known = known.into_iter();
    !subscribed.contains(stream) || !known.next().is_some_and(whole) || !known.all(whole)
}

/// A verifying client's own view of a thread over time: folded from the entries that it holds, which are enough for that, since membership and settings are
/// never hidden from who reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ViewHistory {
    user: UserId,
    visibility: Visibility,
    review: Review,
    role: Option<Role>,
    /// From which entry on which view holds. What lies before the first isn't known.
    views: Vec<(Seq, Option<View>)>,
}

impl ViewHistory {
    /// Of who holds the log from entry 1 on.
    pub fn from_start(user: UserId) -> Self {
        Self {
            user,
            visibility: Visibility::Private,
            review: Review::CoAuthors,
            role: None,
            views: Vec::new(),
        }
    }

    /// Of who begins with a snapshot as of `seq` (Y5).
    pub fn from_snapshot(user: UserId, seq: Seq, settings: &Settings, role: Option<Role>) -> Self {
        let mut history = Self {
            user,
            visibility: settings.visibility,
            review: settings.review,
            role,
            views: Vec::new(),
        };
        history.note(seq);
        history
    }

    /// Takes in an entry above all earlier ones. Those that say nothing of the user's rights change nothing.
    pub fn take(&mut self, entry: &Entry) {
        let unchanged = match entry.kind {
            Kind::ThreadCreated => read(&entry.body).map(|body| self.create(&entry.author, &body)),
            Kind::ThreadUpdated => read(&entry.body).map(|UpdateThread { visibility, review, .. }| {
                self.visibility = visibility.unwrap_or(self.visibility);
                self.review = review.unwrap_or(self.review);
            }),
            Kind::MemberAdded => read(&entry.body).map(|NewMember { user_id, role, .. }| {
                if user_id == self.user {
                    self.role = Some(role);
                }
            }),
            Kind::MemberJoined if entry.author == self.user => {
                self.role = self.role.or(Some(Role::Reader));
                Some(())
            }
            Kind::MemberRemoved => read(&entry.body).map(|RemoveMember { user_id }| {
                if user_id == self.user {
                    self.role = None;
                }
            }),
            _ => None,
        }
        .is_none();
        if !unchanged {
            self.note(entry.seq);
        }
    }

    /// The view at the last entry that was taken in; none where the user may not read, or nothing is known.
    pub fn current(&self) -> Option<&View> {
        self.views.last().and_then(|(_, view)| view.as_ref())
    }

    /// Whether a hidden entry is in order (L8).
    pub fn in_order(&self, seq: Seq, stream: Stream, subscribed: Streams) -> bool {
        let later = self.views.partition_point(|(from, _)| *from <= seq);
        // With none at the entry, the client doesn't hold what would tell.
        let known = later
            .checked_sub(1)
            .and_then(|at| self.views.get(at..))
            .unwrap_or_default();
        may_hide(stream, subscribed, known.iter().map(|(_, view)| view.as_ref()))
    }

    fn create(&mut self, author: &UserId, body: &CreateThread) {
        self.visibility = body.visibility.unwrap_or_default();
        self.review = body.review.unwrap_or_default();
        let invited = body.members.iter().flatten().find(|member| member.user_id == self.user);
        self.role = if *author == self.user {
            Some(Role::Owner)
        } else {
            invited.map(|member| member.role)
        };
    }

    fn note(&mut self, seq: Seq) {
        let reads = self.visibility == Visibility::Public || self.role.is_some();
        let whole = self.review == Review::Readers || self.role.is_some_and(Role::is_co_author);
        let sight = if whole { Sight::Whole } else { Sight::Own };
        let view = reads.then(|| View {
            user: self.user.clone(),
            specs: sight,
            approvals: sight,
        });
        if self.views.last().is_none_or(|(_, last)| *last != view) {
            self.views.push((seq, view));
        }
    }
}
