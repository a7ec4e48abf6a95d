//! Snapshots (Y5), and the pages that go on from what they cut (Y1).

use std::collections::VecDeque;
use std::fmt::Write;
use std::sync::Arc;

use choir_core::record::Record;
use choir_core::session::subscription::Options;
use choir_core::thread::{Spec, Thread};
use choir_core::view::View;
use choir_log::{Log, ReadError, ReadLimit};
use choir_protocol::ids::{Seq, ThreadId};
use choir_protocol::message::{PageRequest, SnapshotReason};
use choir_protocol::thread::{Member, Stream};
use serde::Serialize;

use crate::encode::{ENVELOPE_BYTES, MAX_FRAME_BYTES, MAX_PEAKS_BYTES, RangeWriter, write_entry};

/// How many rows a page or a snapshot holds at most (Y1, Y5).
const MAX_MEMBERS: usize = 200;
const MAX_SPECS: usize = 100;
/// What members and specs may take of a snapshot, so that something is left for `recent`.
const MEMBERS_BYTES: usize = 16 * 1024;
const SPECS_BYTES: usize = 28 * 1024;
/// Over how many numbers `recent` reaches at most, whatever is between the messages.
const MAX_RECENT: u64 = 2_000;
/// How many entries are read first from the end backwards; each further time twice as many.
const FIRST_STEP: u64 = 16;

/// What a snapshot is made of.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// The state that it shows.
    pub(crate) thread: Arc<Thread>,
    /// What its viewer may see, now, through the subscription.
    pub(crate) view: View,
    pub(crate) options: Options,
    pub(crate) reason: SnapshotReason,
    /// The last redaction when the plan was made: the log is read after it (L6).
    pub(crate) redacted_at: Seq,
}

/// The payload of a `state.snapshot`.
pub(crate) async fn snapshot(log: &dyn Log, plan: &Plan) -> Result<String, ReadError> {
    let Plan {
        thread,
        view,
        options,
        reason,
        ..
    } = plan;
    let settings = to_json(thread.settings());
    let (members, next_member) = rows(thread.members(), 0, MAX_MEMBERS, MEMBERS_BYTES, |member| {
        (to_json(member), member.user_id.to_string())
    });
    let specs: Vec<&Spec> = visible_specs(thread, view).collect();
    let (open_specs, next_spec) = rows(specs.iter(), 0, MAX_SPECS, SPECS_BYTES, |spec| {
        (spec_row(spec, view), spec.id.to_string())
    });
    let peaks = if options.verify { MAX_PEAKS_BYTES } else { 0 };
    let fixed = settings.len() + members.len() + open_specs.len() + peaks + ENVELOPE_BYTES + 256;
    let (recent, cut) = recent(log, plan, options, MAX_FRAME_BYTES.saturating_sub(fixed)).await?;
    let mut more = Vec::new();
    if let Some(next) = next_member {
        more.push(format!("\"members\":{}", to_json(&next)));
    }
    if let Some(next) = next_spec {
        more.push(format!("\"open_specs\":{}", to_json(&next)));
    }
    if cut {
        more.push("\"recent\":true".into());
    }
    Ok(format!(
        "{{\"thread\":{settings},\"members\":[{members}],\"open_specs\":[{open_specs}],\"recent\":{recent},\"more\":{{{}}},\"reason\":{}}}",
        more.join(","),
        to_json(reason)
    ))
}

/// The newest entries up to the state's head, and whether messages that were asked for are missing.
async fn recent(log: &dyn Log, plan: &Plan, options: &Options, room: usize) -> Result<(String, bool), ReadError> {
    let thread = &plan.thread;
    let (thread_id, head) = (thread.thread_id(), thread.head());
    let wanted = options.history.min(thread.messages());
    // The entry before the first message that is wanted; from 0 where that is the thread's first, so that nothing before it is missing.
    let start = match (options.history, thread.messages().checked_sub(options.history)) {
        (0, _) => head.seq,
        (_, None | Some(0)) => Seq::ZERO,
        (_, Some(before)) => log
            .message_seq(thread_id, before + 1)
            .await?
            .map_or(head.seq, Seq::previous),
    };
    let earliest = Seq::saturating(head.seq.get().saturating_sub(MAX_RECENT));
    let range = (start.max(earliest), head.seq);
    let (from, records) = newest(log, thread_id, range, &plan.view, options.verify, room).await?;
    let shown = records
        .iter()
        .filter(|record| record.kind == choir_protocol::entry::Kind::MessagePosted)
        .count() as u64;
    let peaks = if options.verify {
        log.peaks_at(thread_id, from).await?
    } else {
        None
    };
    let mut writer = RangeWriter::new(from, options.verify, usize::MAX);
    writer.extend(&records, |record| plan.view.sees_record(record));
    Ok((writer.finish(head.root, peaks.as_ref()), shown < wanted))
}

/// The last entries of (first, to] that there is room for, at least one, and where they begin. They are read from the end backwards: what there is no room for is
/// neither kept in memory nor, but for a few, read.
pub(crate) async fn newest(
    log: &dyn Log,
    thread_id: ThreadId,
    (first, to): (Seq, Seq),
    view: &View,
    verify: bool,
    room: usize,
) -> Result<(Seq, Vec<Record>), ReadError> {
    let mut newest = VecDeque::new();
    let (mut from, mut bytes, mut step, mut scratch) = (to, 0, FIRST_STEP, String::new());
    'full: while from > first {
        let start = Seq::saturating(from.get().saturating_sub(step)).max(first);
        for record in read_between(log, thread_id, start, from).await?.into_iter().rev() {
            bytes += size_of_entry(&record, view.sees_record(&record), verify, &mut scratch);
            if bytes > room && !newest.is_empty() {
                break 'full;
            }
            from = record.seq.previous();
            newest.push_front(record);
        }
        step *= 2;
    }
    Ok((from, newest.into()))
}

/// The entries (after, to], all of them.
async fn read_between(log: &dyn Log, thread_id: ThreadId, after: Seq, to: Seq) -> Result<Vec<Record>, ReadError> {
    let mut records: Vec<Record> = Vec::new();
    loop {
        let read = records.last().map_or(after, |last| last.seq);
        let left = usize::try_from(to.get().saturating_sub(read.get())).unwrap_or(usize::MAX);
        if left == 0 {
            return Ok(records);
        }
        let limit = ReadLimit {
            max_entries: left,
            ..ReadLimit::default()
        };
        let page = log.read(thread_id, read, limit).await?;
        if page.is_empty() {
            return Err(ReadError::Index {
                reason: format!("the log of thread {thread_id} ends before entry {to}, which is durable"),
            });
        }
        records.extend(page);
    }
}

/// What an entry takes in a range, its comma included. `scratch` is room to write it in.
fn size_of_entry(record: &Record, shown: bool, verify: bool, scratch: &mut String) -> usize {
    match (shown, verify) {
        (true, _) => {
            scratch.clear();
            write_entry(record, verify, scratch);
            scratch.len() + 1
        }
        (false, true) => 112,
        (false, false) => 0,
    }
}

/// The open specs that the viewer sees (S1).
fn visible_specs<'a>(thread: &'a Thread, view: &'a View) -> impl Iterator<Item = &'a Spec> {
    thread
        .open_specs()
        .filter(|spec| view.sees(Stream::Specs, Some(&spec.author)))
}

/// A spec's row, written around the canonical text of its body.
fn spec_row(spec: &Spec, view: &View) -> String {
    let decisions = spec
        .to_open_spec(view.sees(Stream::Approvals, Some(&spec.author)))
        .decisions;
    format!(
        "{{\"spec\":\"{}\",\"author\":{},\"seq\":{},\"content_hash\":\"{}\",\"body\":{},\"submitted_at\":{},\"expires_at\":{},\"decisions\":{}}}",
        spec.id,
        to_json(&spec.author),
        spec.revision.seq,
        spec.revision.content_hash,
        spec.revision.body.text().unwrap_or("null"),
        spec.submitted_at,
        spec.expires_at,
        to_json(&decisions)
    )
}

/// A page of `control.members` (Y1): its payload.
pub(crate) fn members_page(thread: &Thread, request: &PageRequest) -> Option<String> {
    let members: Vec<&Member> = thread.members().collect();
    let start = start_of(request, |name| {
        members.iter().position(|member| member.user_id.as_str() == name)
    })?;
    let rest = members.get(start.min(members.len())..).unwrap_or_default();
    let (rows, next) = rows(
        rest.iter(),
        start,
        limit_of(request),
        MAX_FRAME_BYTES - ENVELOPE_BYTES,
        |member| (to_json(member), member.user_id.to_string()),
    );
    Some(page("members", &rows, next))
}

/// A page of `control.specs` (Y1): its payload.
pub(crate) fn specs_page(thread: &Thread, view: &View, request: &PageRequest) -> Option<String> {
    let specs: Vec<&Spec> = visible_specs(thread, view).collect();
    let start = start_of(request, |name| {
        specs.iter().position(|spec| spec.id.to_string() == name)
    })?;
    let rest = specs.get(start.min(specs.len())..).unwrap_or_default();
    let (rows, next) = rows(
        rest.iter(),
        start,
        limit_of(request),
        MAX_FRAME_BYTES - ENVELOPE_BYTES,
        |spec| (spec_row(spec, view), spec.id.to_string()),
    );
    Some(page("open_specs", &rows, next))
}

fn page(name: &str, rows: &str, next: Option<String>) -> String {
    match next {
        Some(next) => format!("{{\"{name}\":[{rows}],\"next\":{}}}", to_json(&next)),
        None => format!("{{\"{name}\":[{rows}]}}"),
    }
}

fn limit_of(request: &PageRequest) -> usize {
    request
        .limit
        .map_or(MAX_MEMBERS, |limit| usize::try_from(limit).unwrap_or(MAX_MEMBERS))
        .clamp(1, MAX_MEMBERS)
}

/// Where a page begins: behind the row that `after` names, or, where that is gone meanwhile, where it stood. None where `after` is no `next`.
fn start_of(request: &PageRequest, place: impl Fn(&str) -> Option<usize>) -> Option<usize> {
    let Some(after) = &request.after else {
        return Some(0);
    };
    let (index, name) = after.split_once('.')?;
    let index: usize = index.parse().ok()?;
    Some(place(name).map_or(index, |found| found + 1))
}

/// Rows as JSON, as many as `most` and `room` allow but at least one, and the `next` where some were left: `<place>.<name of the last>`.
fn rows<T>(
    items: impl ExactSizeIterator<Item = T>,
    start: usize,
    most: usize,
    room: usize,
    row: impl Fn(T) -> (String, String),
) -> (String, Option<String>) {
    let count = items.len();
    let mut text = String::new();
    let mut last = None;
    for (at, item) in items.enumerate() {
        let (json, name) = row(item);
        if at >= most || (at > 0 && text.len() + json.len() + 1 > room) {
            break;
        }
        if at > 0 {
            text.push(',');
        }
        text.push_str(&json);
        last = Some((at + 1, name));
    }
    let next = last.filter(|(taken, _)| *taken < count).map(|(taken, name)| {
        let mut next = String::new();
        // Writing into a String can't fail.
        let _ = write!(next, "{}.{name}", start + taken);
        next
    });
    (text, next)
}

/// The payload types hold nothing that JSON can't: no maps with other keys, no non-finite numbers.
pub(crate) fn to_json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_else(|_| "null".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|n| format!("n{n}")).collect()
    }

    fn cut(names: &[String], start: usize, most: usize, room: usize) -> (String, Option<String>) {
        rows(names.iter(), start, most, room, |name| {
            (format!("\"{name}\""), name.clone())
        })
    }

    #[test]
    fn y1_a_page_ends_at_its_limit_or_at_64_kib_and_says_where_the_next_begins() {
        let names = names(5);
        assert_eq!(
            cut(&names, 0, 9, 999),
            ("\"n0\",\"n1\",\"n2\",\"n3\",\"n4\"".into(), None)
        );
        assert_eq!(cut(&names, 0, 2, 999), ("\"n0\",\"n1\"".into(), Some("2.n1".into())));
        assert_eq!(cut(&names, 7, 9, 5), ("\"n0\"".into(), Some("8.n0".into())));
        assert_eq!(
            cut(&names, 0, 9, 1).1,
            Some("1.n0".into()),
            "a row that is too long goes alone"
        );
    }

    #[test]
    fn y1_a_page_goes_on_where_its_last_row_stood_when_that_is_gone() {
        let request = |after: &str| PageRequest {
            after: Some(after.into()),
            limit: None,
        };
        let place = |name: &str| (name == "here").then_some(7);
        assert_eq!(start_of(&request("3.here"), place), Some(8));
        assert_eq!(start_of(&request("3.gone"), place), Some(3));
        assert_eq!(start_of(&request("nonsense"), place), None);
        assert_eq!(start_of(&PageRequest::default(), place), Some(0));
    }
}
