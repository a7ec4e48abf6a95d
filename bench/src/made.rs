//! Threads of any length, made through the code that a server runs: decided by the core, appended to the embedded engine.

use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use choir_core::batch::{Batch, Step};
use choir_core::decide::{Context, Lookups, ThreadLimits};
use choir_core::thread::Thread;
use choir_log::Log;
use choir_log::embedded::{EmbeddedLog, Options};
use choir_protocol::action::{SignedAction, Unsigned};
use choir_protocol::ids::{Audience, Id, Salt, ThreadId, Timestamp, UserId};
use choir_protocol::json::Object;
use choir_protocol::key::SecretKey;
use choir_protocol::object;
use indicatif::ProgressBar;

use crate::server::Error;

/// As many actions as a busy actor decides at once.
const BATCH: u64 = 1_000;
/// How often a folded state is kept: as the server does.
const SAVE_EVERY: u64 = 4_096;

/// A public thread that was made.
pub(crate) struct Made {
    pub(crate) thread_id: ThreadId,
}

/// Makes a directory with one public thread of `entries` entries, each a message of some 100 bytes.
pub(crate) async fn thread(directory: &Path, entries: u64, progress: &ProgressBar) -> Result<Made, Error> {
    let log = EmbeddedLog::open(directory, Options::default())?;
    let secret = SecretKey::from_seed(&[42; 32]);
    let author = UserId::of_key(&secret.public());
    let audience: Audience = "http://127.0.0.1:7400".parse()?;
    let limits = ThreadLimits::default();
    let thread_id = ThreadId::v7(now()?.get(), [1; 10]);
    let mut state: Option<Thread> = None;
    let mut made = 0;
    while made < entries {
        let at = now()?;
        let context = Context {
            author: &author,
            key: &secret.public(),
            audience: &audience,
            now: at,
            limits: &limits,
            audiences: std::slice::from_ref(&audience),
            agent_issuers: &[],
        };
        let mut batch = Batch::on(thread_id, state.clone());
        for n in made..(made + BATCH).min(entries) {
            let (action_type, payload) = if n == 0 {
                ("action.create_thread", creation(&audience))
            } else {
                ("action.submit_message", message(n))
            };
            let unsigned = Unsigned {
                audience: &audience,
                user_id: &author,
                id: Id::v7(at.get(), id_bytes(n)),
                action_type,
                thread_id,
                timestamp: at,
                seen: None,
                payload: &payload,
            };
            let action = SignedAction::sign(unsigned, &secret)?;
            let step = batch.decide(&action, &context, Lookups::default());
            if !matches!(step, Step::Committed { .. }) {
                return Err(format!("entry {n} was answered {step:?}").into());
            }
            progress.inc(1);
        }
        made = (made + BATCH).min(entries);
        let append = batch.finish().ok_or("a batch of messages appends something")?;
        let next = append.next;
        log.append(thread_id, append.expected.seq, append.records, append.facts)
            .await?;
        if made / SAVE_EVERY > made.saturating_sub(BATCH) / SAVE_EVERY {
            log.save_state(thread_id, next.head().seq, next.encode());
        }
        state = Some(next);
    }
    let log: Arc<dyn Log> = Arc::new(log);
    log.close().await;
    Ok(Made { thread_id })
}

fn creation(audience: &Audience) -> Object {
    object! { "title": "A long conversation", "audience": audience.as_str(), "visibility": "public", "salt": salt(0) }
}

fn message(n: u64) -> Object {
    let content = format!(
        "message {n}: it is about as long as what people write to one another when they are in a hurry, but not quite"
    );
    object! { "content": content, "salt": salt(n) }
}

fn salt(n: u64) -> String {
    Salt::from_bytes((u128::from(n) << 64 | 7).to_be_bytes()).to_string()
}

fn id_bytes(n: u64) -> [u8; 10] {
    let mut bytes = [0; 10];
    bytes[2..].copy_from_slice(&n.to_be_bytes());
    bytes
}

fn now() -> Result<Timestamp, Error> {
    let ms = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis();
    Ok(Timestamp::saturating(u64::try_from(ms)?))
}
