//! How a spec is decided (S7): the rule, and nothing but the rule.

use choir_protocol::thread::{Approval, Decision, Member, Outcome, Policy};

/// Whether this member's decisions count: a co-author who has joined, and a person unless the policy lets agents decide (S3, S4).
pub fn is_deciding(member: &Member, policy: &Policy) -> bool {
    member.role.is_co_author() && member.joined && (policy.agents_decide || !member.agent)
}

/// What S7 counts for one spec.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// n: the deciding co-authors.
    pub deciding: u64,
    /// a: how many of them approve.
    pub approvals: u64,
    /// d: how many of them deny.
    pub denials: u64,
}

impl Tally {
    /// Counts, among the deciding co-authors, the last decision of each on the current revision (S6). A `request_changes` counts as neither.
    pub fn of<'a>(
        members: impl IntoIterator<Item = &'a Member>,
        policy: &Policy,
        decision_of: impl Fn(&Member) -> Option<Decision>,
    ) -> Self {
        let mut tally = Self::default();
        for member in members
            .into_iter()
            .filter(|member| is_deciding(member, policy))
        {
            tally.deciding += 1;
            match decision_of(member) {
                Some(Decision::Approve) => tally.approvals += 1,
                Some(Decision::Deny) => tally.denials += 1,
                Some(Decision::RequestChanges) | None => {}
            }
        }
        tally
    }

    /// What the policy makes of the count; none while it is open.
    pub fn outcome(self, approval: Approval) -> Option<Outcome> {
        let Self {
            deciding: n,
            approvals: a,
            denials: d,
        } = self;
        // With n = 0 nothing is approved or denied.
        if n == 0 {
            return None;
        }
        let at_least = |k: u64| {
            let needed = k.min(n);
            (a >= needed, n.saturating_sub(d) < needed)
        };
        let (approved, denied) = match approval {
            Approval::AtLeast(k) => at_least(k),
            Approval::Unanimous => at_least(n),
            Approval::Any => at_least(1),
            Approval::Majority => (a * 2 > n, d * 2 >= n),
        };
        // Approval is tested first.
        if approved {
            Some(Outcome::Approved)
        } else if denied {
            Some(Outcome::Denied)
        } else {
            None
        }
    }
}

/// How a spec ends by this evaluation; none where it stays open. `author_left` is tested first (S7, S8).
pub fn evaluate<'a>(
    members: impl IntoIterator<Item = &'a Member>,
    policy: &Policy,
    author_may_read: bool,
    decision_of: impl Fn(&Member) -> Option<Decision>,
) -> Option<Outcome> {
    if !author_may_read {
        return Some(Outcome::AuthorLeft);
    }
    Tally::of(members, policy, decision_of).outcome(policy.approval)
}
