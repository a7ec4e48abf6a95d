//! Threads, their settings and their members.

use choir_client::{NewThread, Scope, Settings, SubscribeOptions};
use choir_protocol::ids::ThreadId;
use choir_protocol::thread::{Member, Policy, Visibility};

use super::receipt_json;
use crate::cli::{Add, Create, InThread, Join, Remove, Rules, Set, Threads};
use crate::context::{Context, Session};
use crate::error::{Failure, Result};
use crate::output::{BOLD, DIM, date_time, json_of, now, one_line, short, span, table};
use crate::show::{Names, policy_text, styled, word};

/// `choir thread create`.
pub(crate) async fn create(context: Context, arguments: Create) -> Result<()> {
    let mut session = context.connect().await?;
    let rules = arguments.rules;
    let mut thread = NewThread::titled(&arguments.title);
    if arguments.public {
        thread = thread.visibility(Visibility::Public);
    }
    if let Some(review) = rules.review {
        thread = thread.review(review);
    }
    if let Some(propose) = rules.propose {
        thread = thread.propose(propose);
    }
    if let Some(policy) = policy(&rules, Policy::default()) {
        thread = thread.policy(policy);
    }
    for member in &arguments.members {
        let (user, role, agent) = session.member(member)?;
        thread = if agent {
            thread.agent_member(user, role)
        } else {
            thread.member(user, role)
        };
    }
    if arguments.agent {
        thread = thread.as_agent();
    }
    let id = session.client.create_thread(thread).await?;
    let audience = session.audience().clone();
    session
        .context
        .profile
        .update_server(&audience, |server| server.thread = Some(id))?;
    session.out().either(
        || serde_json::json!({ "thread_id": id, "title": arguments.title }),
        || {
            format!(
                "Made {BOLD}{}{BOLD:#} {DIM}{id}{DIM:#}\n{DIM}It is the thread that is meant from now on.{DIM:#}",
                one_line(&arguments.title)
            )
        },
    )?;
    session.close().await;
    Ok(())
}

/// `choir thread set`.
pub(crate) async fn set(context: Context, arguments: Set) -> Result<()> {
    let session = context.connect().await?;
    let thread = session.thread(arguments.thread.thread.as_deref()).await?;
    let rules = arguments.rules;
    let names_policy = policy(&rules, Policy::default()).is_some();
    let policy = if names_policy {
        policy(&rules, settings(&session, thread).await?.policy)
    } else {
        None
    };
    let changes = Settings {
        title: arguments.title,
        visibility: arguments.visibility,
        review: rules.review,
        propose: rules.propose,
        policy,
    };
    if changes == Settings::default() {
        return Err(Failure::usage("no setting is named")
            .meaning("Nothing was changed.")
            .hint("choir thread set --help lists them"));
    }
    let receipt = session.client.update_thread(thread, changes).await?;
    session.out().either(
        || receipt_json(thread, &receipt).into(),
        || format!("Changed {DIM}(entry {}){DIM:#}", receipt.seq),
    )?;
    session.close().await;
    Ok(())
}

/// The policy with what is named changed; none where nothing is.
fn policy(rules: &Rules, mut policy: Policy) -> Option<Policy> {
    let named = rules.policy.is_some()
        || rules.expires.is_some()
        || rules.admit_authors.is_some()
        || rules.agents_decide.is_some();
    policy.approval = rules.policy.unwrap_or(policy.approval);
    policy.expires_ms = rules.expires.unwrap_or(policy.expires_ms);
    policy.admit_authors = rules.admit_authors.unwrap_or(policy.admit_authors);
    policy.agents_decide = rules.agents_decide.unwrap_or(policy.agents_decide);
    named.then_some(policy)
}

/// A thread's settings, as a snapshot says them.
pub(super) async fn settings(session: &Session, thread: ThreadId) -> Result<choir_protocol::thread::Settings> {
    let options = SubscribeOptions {
        history: Some(0),
        ..SubscribeOptions::default()
    };
    let handle = session.client.subscribe(thread, options).await?;
    let replica = handle.replica();
    replica
        .and_then(|replica| replica.view().settings().cloned())
        .ok_or_else(|| Failure::failed("internal", "the server sent no settings of the thread"))
}

/// `choir thread show`.
pub(crate) async fn show(context: Context, arguments: InThread) -> Result<()> {
    let session = context.connect().await?;
    let thread = session.thread(arguments.thread.as_deref()).await?;
    let settings = settings(&session, thread).await?;
    if session.out().is_json() {
        let mut object = json_of(&settings)?;
        if let Some(object) = object.as_object_mut() {
            object.insert("thread_id".into(), thread.to_string().into());
        }
        session.out().object(&object)?;
    } else {
        let rows = [
            ["title", &one_line(&settings.title)],
            ["id", &thread.to_string()],
            ["visibility", &word(&settings.visibility)],
            ["policy", &policy_text(&settings.policy)],
            ["who may propose", &word(&settings.propose)],
            ["who sees specs", &word(&settings.review)],
            ["made", &format!("{} UTC", date_time(settings.created_at))],
            ["audience", settings.audience.as_str()],
        ];
        session
            .out()
            .line(table(["SETTING", "VALUE"], rows.map(|row| row.map(str::to_owned))))?;
    }
    session.close().await;
    Ok(())
}

/// `choir thread add`.
pub(crate) async fn add(context: Context, arguments: Add) -> Result<()> {
    let session = context.connect().await?;
    let (user, role, agent) = session.member(&arguments.member)?;
    let thread = session.thread(arguments.thread.thread.as_deref()).await?;
    let members = session.members(thread).await?;
    let known = members.into_iter().find(|member| member.user_id == user);
    let receipt = session.client.add_member(thread, user.clone(), role, agent).await?;
    session.out().either(
        || {
            let mut object = receipt_json(thread, &receipt);
            object.insert("user_id".into(), user.to_string().into());
            object.insert("role".into(), role.as_str().into());
            object.into()
        },
        || {
            let who = styled(session.names(), &user);
            let (role_name, seq) = (role.as_str(), receipt.seq);
            let done = match &known {
                Some(_) => format!("{who} is {role_name} now {DIM}(entry {seq}){DIM:#}"),
                None => format!("Invited {who} as {role_name} {DIM}(entry {seq}){DIM:#}"),
            };
            let votes = role.is_co_author() && !known.is_some_and(|member| member.joined);
            if votes {
                format!(
                    "{done}\n{DIM}They count in votes once they do something, or: choir thread join {thread}{DIM:#}"
                )
            } else {
                done
            }
        },
    )?;
    session.close().await;
    Ok(())
}

/// `choir thread remove`.
pub(crate) async fn remove(context: Context, arguments: Remove) -> Result<()> {
    let session = context.connect().await?;
    let user = session.names().user(&arguments.user)?;
    let thread = session.thread(arguments.thread.thread.as_deref()).await?;
    let receipt = session.client.remove_member(thread, user.clone()).await?;
    session.out().either(
        || {
            let mut object = receipt_json(thread, &receipt);
            object.insert("user_id".into(), user.to_string().into());
            object.into()
        },
        || {
            format!(
                "{} is no member any longer {DIM}(entry {}){DIM:#}",
                styled(session.names(), &user),
                receipt.seq
            )
        },
    )?;
    session.close().await;
    Ok(())
}

/// `choir thread join`.
pub(crate) async fn join(context: Context, arguments: Join) -> Result<()> {
    let mut session = context.connect().await?;
    let thread = session.thread(arguments.thread.as_deref()).await?;
    let receipt = session.client.join(thread, arguments.agent).await?;
    let audience = session.audience().clone();
    session
        .context
        .profile
        .update_server(&audience, |server| server.thread = Some(thread))?;
    session.out().either(
        || receipt_json(thread, &receipt).into(),
        || {
            format!(
                "Joined {DIM}(entry {}); it is the thread that is meant from now on{DIM:#}",
                receipt.seq
            )
        },
    )?;
    session.close().await;
    Ok(())
}

/// `choir threads`.
pub(crate) async fn list(context: Context, arguments: Threads) -> Result<()> {
    let session = context.connect().await?;
    let scope = if arguments.public { Scope::Public } else { Scope::Mine };
    let rows = session.threads(scope).await?;
    if session.out().is_json() {
        for row in &rows {
            session.out().object(&json_of(row)?)?;
        }
    } else if rows.is_empty() {
        let hint = if arguments.public {
            "No public threads."
        } else {
            "You are in no thread yet: choir thread create \"A title\""
        };
        session.out().line(hint)?;
    } else {
        let current = session.context.profile.server(session.audience()).thread;
        let time = now();
        let lines = rows.iter().map(|row| {
            [
                if current == Some(row.thread_id) {
                    "*".to_owned()
                } else {
                    String::new()
                },
                crate::output::preview(&row.title, 40),
                short(&row.thread_id),
                match (row.role, row.invited) {
                    (Some(role), Some(true)) => format!("{}, invited", role.as_str()),
                    (Some(role), _) => role.as_str().to_owned(),
                    (None, _) => word(&row.visibility),
                },
                row.messages.to_string(),
                if row.unread > 0 {
                    row.unread.to_string()
                } else {
                    String::new()
                },
                if row.awaiting > 0 {
                    row.awaiting.to_string()
                } else {
                    String::new()
                },
                format!("{} ago", span(time.since(row.last_activity))),
            ]
        });
        session.out().line(table(
            ["", "TITLE", "ID", "ROLE", "MESSAGES", "UNREAD", "WAITING", "ACTIVE"],
            lines,
        ))?;
    }
    session.close().await;
    Ok(())
}

/// `choir members`.
pub(crate) async fn members(context: Context, arguments: InThread) -> Result<()> {
    let session = context.connect().await?;
    let thread = session.thread(arguments.thread.as_deref()).await?;
    let members = session.members(thread).await?;
    if session.out().is_json() {
        for member in &members {
            session.out().object(&member_json(session.names(), member)?)?;
        }
    } else {
        session.out().line(members_table(session.names(), &members))?;
    }
    session.close().await;
    Ok(())
}

/// A member as `--json` prints it.
pub(crate) fn member_json(names: &impl Names, member: &Member) -> Result<serde_json::Value> {
    let mut object = json_of(member)?;
    if let Some(object) = object.as_object_mut() {
        object.insert("name".into(), names.name(&member.user_id).into());
    }
    Ok(object)
}

/// The members as people read them.
pub(crate) fn members_table(names: &impl Names, members: &[Member]) -> String {
    let rows = members.iter().map(|member| {
        [
            names.name(&member.user_id),
            member.role.as_str().to_owned(),
            if member.joined { "joined" } else { "invited" }.to_owned(),
            if member.agent { "agent" } else { "" }.to_owned(),
            one_line(member.user_id.as_str()),
        ]
    });
    table(["NAME", "ROLE", "STATE", "", "USER"], rows)
}
