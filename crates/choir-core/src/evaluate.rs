//! How a spec is decided (S7): the rule, and nothing but the rule.

use choir_protocol::thread::{Approval, Decision, Member, Outcome, Policy};

/// Whether this member's decisions count: a co-author who has joined, and a person unless the policy lets agents decide (S3, S4).
pub fn is_deciding(member: &Member, policy: &Policy) -> bool {
    member.role.is_co_author() && member.joined && (policy.agents_decide || !member.agent)
}

/// How a spec ends by this evaluation; none where it stays open. `n` is the number of deciding co-authors, `decisions` the last one of each of them on the current
/// revision (S6). `author_left` is tested first (S7, S8).
pub fn evaluate(
    policy: &Policy,
    author_may_read: bool,
    n: usize,
    decisions: impl IntoIterator<Item = Decision>,
) -> Option<Outcome> {
    if !author_may_read {
        return Some(Outcome::AuthorLeft);
    }
    let (mut approvals, mut denials) = (0, 0);
    for decision in decisions {
        match decision {
            Decision::Approve => approvals += 1,
            Decision::Deny => denials += 1,
            // It counts as neither.
            Decision::RequestChanges => {}
        }
    }
    decided(policy.approval, n, approvals, denials)
}

/// What the policy makes of a approvals and d denials among n deciding co-authors.
fn decided(approval: Approval, n: usize, a: usize, d: usize) -> Option<Outcome> {
    // With n = 0 nothing is approved or denied.
    if n == 0 {
        return None;
    }
    let at_least = |k: usize| {
        let needed = k.min(n);
        (a >= needed, n.saturating_sub(d) < needed)
    };
    let (approved, denied) = match approval {
        Approval::AtLeast(k) => at_least(usize::try_from(k).unwrap_or(usize::MAX)),
        Approval::Unanimous => at_least(n),
        Approval::Any => at_least(1),
        Approval::Majority => (a.saturating_mul(2) > n, d.saturating_mul(2) >= n),
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
