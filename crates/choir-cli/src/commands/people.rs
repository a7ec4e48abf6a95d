//! Who one is, what others are called, and what is meant where nothing is named.

use choir_protocol::ids::{Audience, UserId};

use crate::cli::{Name, Use};
use crate::context::Context;
use crate::error::{Failure, Result};
use crate::output::{BOLD, DIM, one_line, table};

/// `choir key new`.
pub(crate) fn new_key(mut context: Context, force: bool) -> Result<()> {
    let (user, aside) = context.profile.new_key(force)?;
    if let Some(path) = aside {
        context.out.note(format!("The old key is in {} now.", path.display()));
    }
    context.out.either(
        || key_json(&context, &user),
        || {
            let flag = context.profile.flag();
            format!(
                "You are {BOLD}{user}{BOLD:#}\n{DIM}The key is in {}: keep a copy, nobody can make it anew.\nOthers invite you by that id: choir thread add <USER-ID>; you begin with: choir{flag} thread create \"A title\"{DIM:#}",
                context.profile.key_path().display()
            )
        },
    )
}

/// `choir key show`.
pub(crate) fn show_key(context: &Context) -> Result<()> {
    let user = UserId::of_key(&context.key()?.public());
    context.out.either(|| key_json(context, &user), || user.to_string())
}

fn key_json(context: &Context, user: &UserId) -> serde_json::Value {
    serde_json::json!({
        "user_id": user,
        "profile": context.profile.called(),
        "key_file": context.profile.key_path(),
    })
}

/// `choir name`.
pub(crate) fn name(mut context: Context, arguments: Name) -> Result<()> {
    if let Some(nick) = arguments.remove {
        if !context.profile.settings().names.contains_key(&nick) {
            return Err(Failure::usage(format!("nobody has the nickname {nick:?}"))
                .hint("`choir name` lists those that you gave"));
        }
        context.profile.update(|settings| {
            settings.names.remove(&nick);
        })?;
        return context
            .out
            .either(|| names_json(&context), || format!("{} is forgotten.", one_line(&nick)));
    }
    let (Some(user), Some(nick)) = (arguments.user, arguments.nick) else {
        return list_names(&context);
    };
    check_nick(&nick)?;
    let user = context.profile.user(&user)?;
    if let Ok(other) = context.profile.user(&nick)
        && other != user
    {
        let given = context.profile.settings().names.contains_key(&nick);
        return Err(Failure::usage(format!("{nick} is {other} already"))
            .meaning("Nothing was changed.")
            .hint(if given {
                format!(
                    "take another name, or first: choir{} name --remove {nick}",
                    context.profile.flag()
                )
            } else {
                "take another name: this one is a profile of this machine, or begins a key".to_owned()
            }));
    }
    context.profile.update(|settings| {
        // One name each: a second one would leave open which is shown.
        settings.names.retain(|_, named| *named != user);
        settings.names.insert(nick.clone(), user.clone());
    })?;
    context
        .out
        .either(|| names_json(&context), || format!("{user} is {nick} from now on."))
}

/// What a nickname may be: nothing that could be read as something else where users are named.
fn check_nick(nick: &str) -> Result<()> {
    let allowed = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_');
    if nick.is_empty() || nick.chars().count() > 32 || !nick.chars().all(allowed) {
        return Err(Failure::usage(format!("{nick:?} is no nickname"))
            .hint("up to 32 letters, digits, dots, dashes and underscores"));
    }
    Ok(())
}

fn list_names(context: &Context) -> Result<()> {
    let names = &context.profile.settings().names;
    if context.out.is_json() {
        return context.out.object(&names_json(context));
    }
    if names.is_empty() {
        return context.out.line("You gave no nicknames yet.");
    }
    context.out.line(table(
        ["NAME", "USER"],
        names
            .iter()
            .map(|(nick, user)| [one_line(nick), one_line(user.as_str())]),
    ))
}

fn names_json(context: &Context) -> serde_json::Value {
    serde_json::json!({ "names": context.profile.settings().names })
}

/// `choir use`.
pub(crate) async fn use_thread(mut context: Context, arguments: Use) -> Result<()> {
    if let Some(url) = arguments.server {
        Audience::of_url(&url)
            .map_err(|error| Failure::usage(format!("{:?} is no server's URL: {error}", one_line(&url))))?;
        context.profile.update(|settings| settings.url = Some(url.clone()))?;
        if arguments.thread.is_none() {
            return context.out.either(
                || serde_json::json!({ "url": url }),
                || format!("{url} is the server from now on."),
            );
        }
    }
    let mut session = context.connect().await?;
    let thread = session.thread(arguments.thread.as_deref()).await?;
    // Who may not read it learns that now, not at the first post.
    session.members(thread).await?;
    let title = super::threads::settings(&session, thread).await?.title;
    let audience = session.audience().clone();
    session
        .context
        .profile
        .update_server(&audience, |server| server.thread = Some(thread))?;
    let url = session.context.url();
    session.out().either(
        || serde_json::json!({ "thread_id": thread, "url": url }),
        || {
            format!(
                "{BOLD}{}{BOLD:#} {DIM}{thread}{DIM:#} is the thread that is meant from now on.",
                one_line(&title)
            )
        },
    )?;
    session.close().await;
    Ok(())
}
