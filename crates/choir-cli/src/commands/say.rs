//! Saying things, and changing what was said.

use choir_client::Draft;
use choir_protocol::entry::Kind;

use super::receipt_with;
use crate::cli::{Content, Edit, Post, Revise, Target};
use crate::context::{Context, read_content};
use crate::error::Result;
use crate::output::{DIM, GOOD, Output, WAITING, short};

fn draft(content: &Content, out: Output) -> Result<Draft> {
    let mut draft = Draft::from(read_content(content, out)?);
    if let Some(media_type) = &content.content_type {
        draft = draft.content_type(media_type);
    } else if content.json_content {
        draft = draft.content_type("application/json");
    }
    Ok(draft)
}

/// `choir post`, `choir propose`.
pub(crate) async fn post(context: Context, arguments: Post) -> Result<()> {
    // Read before connecting: a person may type for a while.
    let mut draft = draft(&arguments.content, context.out)?;
    let session = context.connect().await?;
    let thread = session.thread(arguments.thread.thread.as_deref()).await?;
    if let Some(parent) = &arguments.parent {
        draft = draft.reply_to(session.message(thread, parent, false).await?);
    }
    let posted = session.client.post(thread, draft).await?;
    session.out().either(
        || receipt_with(thread, &posted.receipt, "id", posted.id),
        || {
            let (seq, id) = (posted.receipt.seq, short(&posted.id));
            if posted.receipt.kind == Kind::SpecSubmitted {
                format!("{WAITING}Proposed{WAITING:#} {id} {DIM}(entry {seq}): it waits for the co-authors{DIM:#}")
            } else {
                format!("{GOOD}Published{GOOD:#} {id} {DIM}(entry {seq}){DIM:#}")
            }
        },
    )?;
    session.close().await;
    Ok(())
}

/// `choir revise`.
pub(crate) async fn revise(context: Context, arguments: Revise) -> Result<()> {
    let draft = draft(&arguments.content, context.out)?;
    let session = context.connect().await?;
    let thread = session.thread(arguments.thread.thread.as_deref()).await?;
    let spec = session.spec(thread, &arguments.spec, true).await?;
    let receipt = session.client.revise(thread, spec.spec, draft).await?;
    session.out().either(
        || receipt_with(thread, &receipt, "spec", spec.spec),
        || {
            format!(
                "Revised {} {DIM}(entry {}): decisions on what it said before no longer count{DIM:#}",
                short(&spec.spec),
                receipt.seq
            )
        },
    )?;
    session.close().await;
    Ok(())
}

/// `choir withdraw`.
pub(crate) async fn withdraw(context: Context, arguments: Target) -> Result<()> {
    let session = context.connect().await?;
    let thread = session.thread(arguments.thread.thread.as_deref()).await?;
    let spec = session.spec(thread, &arguments.target, true).await?.spec;
    let receipt = session.client.withdraw(thread, spec).await?;
    session.out().either(
        || receipt_with(thread, &receipt, "spec", spec),
        || format!("Withdrew {} {DIM}(entry {}){DIM:#}", short(&spec), receipt.seq),
    )?;
    session.close().await;
    Ok(())
}

/// `choir edit`.
pub(crate) async fn edit(context: Context, arguments: Edit) -> Result<()> {
    let draft = draft(&arguments.content, context.out)?;
    let session = context.connect().await?;
    let thread = session.thread(arguments.thread.thread.as_deref()).await?;
    let message = session.message(thread, &arguments.message, true).await?;
    let receipt = session.client.edit(thread, message, draft).await?;
    session.out().either(
        || receipt_with(thread, &receipt, "message", message),
        || format!("Edited {} {DIM}(entry {}){DIM:#}", short(&message), receipt.seq),
    )?;
    session.close().await;
    Ok(())
}

/// `choir redact`.
pub(crate) async fn redact(context: Context, arguments: Target) -> Result<()> {
    let session = context.connect().await?;
    let thread = session.thread(arguments.thread.thread.as_deref()).await?;
    // `last` is one's own: what others said isn't erased by a slip. An owner names it.
    let own = arguments.target == "last";
    let message = session.message(thread, &arguments.target, own).await?;
    let receipt = session.client.redact(thread, message).await?;
    session.out().either(
        || receipt_with(thread, &receipt, "message", message),
        || {
            format!(
                "Erased {} {DIM}(entry {}); what others copied before is theirs{DIM:#}",
                short(&message),
                receipt.seq
            )
        },
    )?;
    session.close().await;
    Ok(())
}
