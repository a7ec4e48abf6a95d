//! Which one is meant: ids by their number, their beginning, their end, or `last`.

use choir_protocol::ids::Seq;

use crate::error::{Failure, Result};
use crate::output::{preview, short};

/// The fewest characters of an id that are taken for one.
const MIN_PART: usize = 4;
/// More digits than this are a part of an id, not the number of an entry.
const MAX_NUMBER_DIGITS: usize = 7;

/// Something that can be meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Candidate<Id> {
    /// Its id.
    pub(crate) id: Id,
    /// The number of its entry, where it has one.
    pub(crate) seq: Option<Seq>,
    /// What it says, or is called: shown where several are meant.
    pub(crate) text: String,
}

/// The one of `candidates`, oldest first, that `text` means. `what` is what they are, as in "spec".
pub(crate) fn pick<Id: ToString + Copy>(what: &str, text: &str, candidates: &[Candidate<Id>]) -> Result<Id> {
    if text == "last" {
        return candidates
            .last()
            .map(|candidate| candidate.id)
            .ok_or_else(|| none(what, text));
    }
    if text.len() <= MAX_NUMBER_DIGITS
        && let Ok(number) = text.parse::<u64>()
        && let Some(numbered) = candidates
            .iter()
            .find(|candidate| candidate.seq.is_some_and(|seq| seq.get() == number))
    {
        return Ok(numbered.id);
    }
    let meant: Vec<&Candidate<Id>> = candidates
        .iter()
        .filter(|candidate| is_part(text, &candidate.id.to_string()))
        .collect();
    match meant.as_slice() {
        [one] => Ok(one.id),
        [] => Err(none(what, text)),
        several => Err(ambiguous(what, text, several)),
    }
}

/// Whether `text` is the beginning or the end of an id, or all of it.
pub(crate) fn is_part(text: &str, id: &str) -> bool {
    text.len() >= MIN_PART && (id.starts_with(text) || id.ends_with(text))
}

fn none(what: &str, text: &str) -> Failure {
    let message = if text == "last" {
        format!("there is no {what} that could be meant")
    } else {
        format!("no {what} that you can see here is called {text:?}")
    };
    let hint = match what {
        "spec" => "`choir specs` lists the open ones; one that was decided or withdrawn can't be acted on",
        "thread" => "`choir threads` and `choir threads --public` list those that you can read",
        _ => "`choir history` shows them with their numbers",
    };
    Failure::failed("not_found", message)
        .meaning("Nothing was changed.")
        .hint(hint)
}

/// Says which are meant, so that one can be named.
pub(crate) fn ambiguous<Id: ToString>(what: &str, text: &str, several: &[&Candidate<Id>]) -> Failure {
    let list: Vec<String> = several
        .iter()
        .take(5)
        .map(|candidate| {
            format!(
                "{} ({})",
                short(&candidate.id.to_string()),
                preview(&candidate.text, 30)
            )
        })
        .collect();
    Failure::usage(format!(
        "{text:?} may be any of {} {what}s: {}",
        several.len(),
        list.join(", ")
    ))
    .meaning("Nothing was changed.")
    .hint("name more of it; the ends of ids differ soonest")
}

#[cfg(test)]
mod tests {
    use choir_protocol::ids::Id;

    use super::*;

    fn candidates() -> Vec<Candidate<Id>> {
        let named = |id: &str, seq: u64| Candidate {
            id: id.parse().unwrap(),
            seq: Seq::new(seq),
            text: "text".into(),
        };
        vec![
            named("019ac7e5-0000-7000-8000-00000000aaaa", 2),
            named("019ac7e5-0000-7000-8000-00000001aaaa", 5),
            named("019ac7e6-0000-7000-8000-000012345678", 9),
        ]
    }

    #[test]
    fn ids_are_named_by_number_beginning_end_or_last() {
        let list = candidates();
        let pick = |text: &str| pick("spec", text, &list).map(|id| id.to_string().split_off(32));
        assert_eq!(pick("last").unwrap(), "5678");
        assert_eq!(pick("5").unwrap(), "aaaa");
        assert_eq!(pick("019ac7e6").unwrap(), "5678");
        assert_eq!(pick("12345678").unwrap(), "5678");
        assert_eq!(pick("1aaaa").unwrap(), "aaaa");
        assert_eq!(pick(&list[0].id.to_string()).unwrap(), "aaaa");
    }

    #[test]
    fn what_means_none_or_several_is_refused() {
        let list = candidates();
        assert_eq!(pick("spec", "aaaa", &list).unwrap_err().kind, crate::error::Kind::Usage);
        for wrong in ["", "8", "aaa", "ffff", "019ac7e9"] {
            assert_eq!(pick("spec", wrong, &list).unwrap_err().code, "not_found", "{wrong:?}");
        }
        assert_eq!(pick::<Id>("spec", "last", &[]).unwrap_err().code, "not_found");
    }
}
