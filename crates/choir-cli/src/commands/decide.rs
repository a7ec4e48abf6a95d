//! Specs, and decisions on what a person was shown of them.

use std::io::{IsTerminal, Write};

use choir_protocol::entry::Kind;
use choir_protocol::hash::Hash;
use choir_protocol::ids::{Id, Seq, ThreadId};
use choir_protocol::message::Receipt;
use choir_protocol::thread::{Decision, Member, OpenSpec, Outcome};

use super::receipt_with;
use crate::chat::content_of;
use crate::cli::{Decide, InThread};
use crate::context::{Context, PAGE, Session};
use crate::error::{Failure, Result};
use crate::output::{BOLD, DIM, GOOD, WAITING, json_of, now, set_in, short, span};
use crate::show::{Names, Resolved, outcome_text, read, styled};

/// `choir specs`.
pub(crate) async fn specs(context: Context, arguments: InThread) -> Result<()> {
    let session = context.connect().await?;
    let thread = session.thread(arguments.thread.as_deref()).await?;
    let specs = session.specs(thread).await?;
    let members = session.members(thread).await?;
    let decides = decides(&session, &members);
    if session.out().is_json() {
        // A program isn't a person who was shown something: it names what it means by --hash.
        for spec in &specs {
            let mut object = json_of(spec)?;
            if let Some(object) = object.as_object_mut() {
                object.insert("thread_id".into(), thread.to_string().into());
                object.insert("author_name".into(), session.names().name(&spec.author).into());
                object.insert("awaits_you".into(), awaits(&session, spec, decides).into());
            }
            session.out().object(&object)?;
        }
    } else if specs.is_empty() {
        session.out().line("No spec is open.")?;
    } else {
        for spec in &specs {
            session
                .out()
                .line(spec_text(session.names(), spec, awaits(&session, spec, decides)))?;
        }
        keep_shown(&session, &specs);
    }
    session.close().await;
    Ok(())
}

/// Whether this user's decisions can count. Whether agents' do is a rule of the thread's that a list of members doesn't say; the server knows.
fn decides(session: &Session, members: &[Member]) -> bool {
    members
        .iter()
        .any(|member| member.user_id == session.me && member.role.is_co_author())
}

fn awaits(session: &Session, spec: &OpenSpec, decides: bool) -> bool {
    decides && spec.decisions.iter().all(|row| row.user_id != session.me)
}

/// A spec, and what was decided on it, in full.
fn spec_text(names: &impl Names, spec: &OpenSpec, awaits: bool) -> String {
    let time = now();
    let mut text = format!(
        "{WAITING}?{WAITING:#} {BOLD}{}{BOLD:#} by {} {DIM}{} ago, expires in {}, entry {}{DIM:#}{}\n    {}",
        short(&spec.spec),
        styled(names, &spec.author),
        span(time.since(spec.submitted_at)),
        span(spec.expires_at.since(time)),
        spec.seq,
        if awaits {
            format!(" {WAITING}waits for you{WAITING:#}")
        } else {
            String::new()
        },
        set_in(&content_of(spec), "    "),
    );
    for row in &spec.decisions {
        let said = match row.decision {
            Decision::Approve => "approves",
            Decision::Deny => "denies",
            Decision::RequestChanges => "asks for changes",
        };
        let reason = row
            .reason
            .as_deref()
            .map(|reason| format!(" – {}", set_in(reason, "      ")))
            .unwrap_or_default();
        text.push_str(&format!("\n    {} {said}{reason}", styled(names, &row.user_id)));
    }
    text
}

fn keep_shown(session: &Session, specs: &[OpenSpec]) {
    let shown: Vec<(Id, Hash)> = specs.iter().map(|spec| (spec.spec, spec.content_hash)).collect();
    session.context.profile.remember_shown(&shown, session.out());
}

/// `choir approve`, `choir deny`, `choir request-changes`.
pub(crate) async fn decide(context: Context, arguments: Decide, decision: Decision) -> Result<()> {
    if decision == Decision::RequestChanges && arguments.reason.is_none() {
        return Err(Failure::usage("a request for changes says which")
            .meaning("Nothing was sent.")
            .hint(format!(
                "choir request-changes {} --reason \"what should change\"",
                arguments.spec
            )));
    }
    let session = context.connect().await?;
    let thread = session.thread(arguments.thread.thread.as_deref()).await?;
    let spec = session.spec(thread, &arguments.spec, false).await?;
    let content_hash = meant_revision(&session, &spec, arguments.hash, decision)?;
    let reason = arguments.reason.as_deref();
    let receipt = match decision {
        Decision::Approve => session.client.approve(thread, spec.spec, content_hash, reason).await,
        Decision::Deny => session.client.deny(thread, spec.spec, content_hash, reason).await,
        Decision::RequestChanges => {
            session
                .client
                .request_changes(thread, spec.spec, content_hash, reason.unwrap_or_default())
                .await
        }
    }?;
    let outcome = outcome_after(&session, thread, spec.spec, receipt.seq).await?;
    report(&session, thread, &spec, content_hash, decision, &receipt, outcome)?;
    session.close().await;
    Ok(())
}

/// The revision that a decision is on: the one that is named, or that was shown. Never one that nobody read.
fn meant_revision(session: &Session, spec: &OpenSpec, named: Option<Hash>, decision: Decision) -> Result<Hash> {
    let current = spec.content_hash;
    if let Some(named) = named {
        if named == current {
            return Ok(named);
        }
        return Err(Failure::failed(
            "conflict",
            format!(
                "the spec {} no longer says what --hash names: its content_hash is {current}",
                short(&spec.spec)
            ),
        )
        .meaning("Nothing was decided.")
        .hint("read it again with `choir specs`, then decide anew"));
    }
    let out = session.out();
    let shown = session.context.profile.shown(spec.spec);
    if shown == Some(current) {
        return Ok(current);
    }
    // Also to a person who asks for JSON: on stderr, where it isn't mistaken for the result.
    let text = spec_text(session.names(), spec, false);
    if out.is_json() {
        return Err(not_shown(spec, shown.is_some()).hint(format!("a script says what it means: --hash {current}")));
    }
    out.line(text)?;
    keep_shown(session, std::slice::from_ref(spec));
    if shown.is_none() && std::io::stdin().is_terminal() && std::io::stdout().is_terminal() {
        return if confirmed(decision)? {
            Ok(current)
        } else {
            Err(Failure::failed("cancelled", "nothing was decided"))
        };
    }
    Err(not_shown(spec, shown.is_some()).hint("read what stands above, and run the command again"))
}

fn not_shown(spec: &OpenSpec, revised: bool) -> Failure {
    let id = short(&spec.spec);
    let message = if revised {
        format!("the spec {id} was revised since you were shown it")
    } else {
        format!("you weren't shown yet what the spec {id} says")
    };
    Failure::failed("not_shown", message).meaning("Nothing was decided.")
}

fn confirmed(decision: Decision) -> Result<bool> {
    let verb = match decision {
        Decision::Approve => "Approve",
        Decision::Deny => "Deny",
        Decision::RequestChanges => "Ask for changes to",
    };
    let mut err = anstream::stderr();
    write!(err, "{verb} this? [y/N] ")?;
    err.flush()?;
    let mut answer = String::new();
    std::io::stdin()
        .read_line(&mut answer)
        .map_err(|error| Failure::failed("io", format!("no answer could be read: {error}")))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// How the spec ended by this decision; none where it is still open. Its resolution stands in the same append, above the decision.
async fn outcome_after(session: &Session, thread: ThreadId, spec: Id, decided: Seq) -> Result<Option<Outcome>> {
    if session.specs(thread).await?.iter().any(|open| open.spec == spec) {
        return Ok(None);
    }
    let page = session.history(thread, Seq::saturating(u64::MAX), PAGE).await?;
    let resolutions = page
        .entries
        .iter()
        .filter(|entry| entry.kind == Kind::SpecResolved && entry.seq > decided);
    Ok(resolutions
        .filter_map(read::<Resolved>)
        .find(|resolved| resolved.spec == spec)
        .map(|resolved| resolved.outcome))
}

fn report(
    session: &Session,
    thread: ThreadId,
    spec: &OpenSpec,
    content_hash: Hash,
    decision: Decision,
    receipt: &Receipt,
    outcome: Option<Outcome>,
) -> Result<()> {
    session.out().either(
        || {
            let mut object = receipt_with(thread, receipt, "spec", spec.spec);
            if let Some(object) = object.as_object_mut() {
                object.insert("content_hash".into(), content_hash.to_string().into());
                object.insert("decision".into(), decision.as_str().into());
                object.insert(
                    "outcome".into(),
                    outcome.map_or(serde_json::Value::Null, |outcome| outcome.as_str().into()),
                );
            }
            object
        },
        || {
            let verb = match decision {
                Decision::Approve => format!("{GOOD}Approved{GOOD:#}"),
                Decision::Deny => "Denied".to_owned(),
                Decision::RequestChanges => "Asked for changes to".to_owned(),
            };
            let what = format!(
                "{verb} {}'s {} {DIM}(entry {}){DIM:#}\n    {}",
                styled(session.names(), &spec.author),
                short(&spec.spec),
                receipt.seq,
                set_in(&content_of(spec), "    ")
            );
            match outcome {
                Some(outcome) => format!("{what}\n{}", outcome_text(outcome)),
                None => format!("{what}\n{DIM}It is still open: others decide, too.{DIM:#}"),
            }
        },
    )
}
