//! The server's configuration file.

use std::path::Path;

use choir_protocol::ids::Audience;
use choir_protocol::message::{HeartbeatTimes, Limits};
use serde::Deserialize;

use crate::error::{Failure, Result};

/// What the file may say. What it leaves out has the protocol's default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct File {
    /// Browsers' origins that are let in (T4).
    pub(crate) origins: Vec<String>,
    /// What clients dial (C4).
    pub(crate) audiences: Vec<Audience>,
    limits: LimitsTable,
    heartbeat: HeartbeatTable,
}

/// Section 12's limits marked ◦.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct LimitsTable {
    max_message_bytes: Option<u64>,
    max_content_bytes: Option<u64>,
    max_clients: Option<u64>,
    max_subscriptions: Option<u64>,
    max_in_flight: Option<u64>,
    max_replay: Option<u64>,
    max_actions_per_second: Option<u64>,
    max_requests_per_second: Option<u64>,
}

/// The heartbeat's times (C9).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct HeartbeatTable {
    interval_ms: Option<u64>,
    timeout_ms: Option<u64>,
}

/// Every key that there is, for suggestions.
pub(crate) const KEYS: [&str; 14] = [
    "origins",
    "audiences",
    "limits",
    "heartbeat",
    "max_message_bytes",
    "max_content_bytes",
    "max_clients",
    "max_subscriptions",
    "max_in_flight",
    "max_replay",
    "max_actions_per_second",
    "max_requests_per_second",
    "interval_ms",
    "timeout_ms",
];

impl File {
    /// Reads the file.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|error| Failure {
            kind: crate::error::Kind::Usage,
            ..Failure::file("read the configuration", path, &error)
        })?;
        Self::parse(&text).map_err(|failure| Failure {
            message: format!("{}: {}", path.display(), failure.message),
            ..failure
        })
    }

    /// Reads its text.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let file: Self = toml::from_str(text).map_err(|error| refused(&error))?;
        file.check()?;
        Ok(file)
    }

    /// What can't work is refused here, where the file can be named, and not at the first message.
    fn check(&self) -> Result<()> {
        let limits = self.limits();
        let named = [
            ("limits.max_message_bytes", limits.max_message_bytes),
            ("limits.max_content_bytes", limits.max_content_bytes),
            ("limits.max_clients", limits.max_clients),
            ("limits.max_subscriptions", limits.max_subscriptions),
            ("limits.max_in_flight", limits.max_in_flight),
            ("limits.max_replay", limits.max_replay),
            ("limits.max_actions_per_second", limits.max_actions_per_second),
            ("limits.max_requests_per_second", limits.max_requests_per_second),
            ("heartbeat.interval_ms", self.heartbeat().interval_ms),
            ("heartbeat.timeout_ms", self.heartbeat().timeout_ms),
        ];
        if let Some((name, _)) = named.iter().find(|(_, value)| *value == 0) {
            return Err(not_started(format!("{name} is 0, with which nothing would work")));
        }
        if limits.max_content_bytes > limits.max_message_bytes {
            return Err(not_started(format!(
                "limits.max_content_bytes ({}) is above limits.max_message_bytes ({}): such content could never be sent",
                limits.max_content_bytes, limits.max_message_bytes
            )));
        }
        if let Some(origin) = self.origins.iter().find(|origin| origin.parse::<Audience>().is_err()) {
            return Err(not_started(format!("{origin:?} is no origin"))
                .hint("write it as browsers do: https://host or https://host:port, without a path"));
        }
        Ok(())
    }

    /// The limits.
    pub(crate) fn limits(&self) -> Limits {
        let (own, default) = (self.limits, Limits::default());
        Limits {
            max_message_bytes: own.max_message_bytes.unwrap_or(default.max_message_bytes),
            max_content_bytes: own.max_content_bytes.unwrap_or(default.max_content_bytes),
            max_clients: own.max_clients.unwrap_or(default.max_clients),
            max_subscriptions: own.max_subscriptions.unwrap_or(default.max_subscriptions),
            max_in_flight: own.max_in_flight.unwrap_or(default.max_in_flight),
            max_replay: own.max_replay.unwrap_or(default.max_replay),
            max_actions_per_second: own.max_actions_per_second.unwrap_or(default.max_actions_per_second),
            max_requests_per_second: own.max_requests_per_second.unwrap_or(default.max_requests_per_second),
        }
    }

    /// The heartbeat's times.
    pub(crate) fn heartbeat(&self) -> HeartbeatTimes {
        let default = HeartbeatTimes::default();
        HeartbeatTimes {
            interval_ms: self.heartbeat.interval_ms.unwrap_or(default.interval_ms),
            timeout_ms: self.heartbeat.timeout_ms.unwrap_or(default.timeout_ms),
        }
    }
}

fn not_started(message: String) -> Failure {
    Failure::usage(message)
        .meaning("The server didn't start.")
        .hint("choir serve --help shows the file with its defaults")
}

fn refused(error: &toml::de::Error) -> Failure {
    let failure = not_started(error.to_string().trim_end().to_owned());
    match unknown_key(error.message()).and_then(nearest) {
        Some(known) => failure.hint(format!("did you mean {known}?")),
        None => failure,
    }
}

/// The key in "unknown field `x`, expected …".
fn unknown_key(message: &str) -> Option<&str> {
    message.strip_prefix("unknown field `")?.split('`').next()
}

/// The known key that differs least, where it differs little.
fn nearest(unknown: &str) -> Option<&'static str> {
    let scored = KEYS.iter().map(|known| (distance(unknown, known), *known));
    scored
        .min()
        .filter(|(distance, known)| *distance <= known.len() / 3)
        .map(|(_, known)| known)
}

/// How many letters must be put in, taken out or replaced.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        if let Some(first) = row.first_mut() {
            *first = left;
        }
        for (cell, y) in row.iter_mut().skip(1).zip(b.bytes()) {
            let next = (*cell + 1).min(left + 1).min(diagonal + usize::from(x != y));
            diagonal = *cell;
            left = next;
            *cell = next;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_has_its_default() {
        let file = File::parse("audiences = [\"https://choir.example\"]\n[limits]\nmax_clients = 5\n").unwrap();
        assert_eq!(
            file.limits(),
            Limits {
                max_clients: 5,
                ..Limits::default()
            }
        );
        assert_eq!(file.heartbeat(), HeartbeatTimes::default());
        assert_eq!(file.audiences.len(), 1);
        assert_eq!(File::parse("").unwrap(), File::default());
    }

    #[test]
    fn an_unknown_key_is_refused_with_a_suggestion() {
        for (text, known) in [
            ("[limits]\nmax_client = 5", "max_clients"),
            ("[heartbeat]\ninterval = 5", "interval_ms"),
            ("origin = []", "origins"),
            ("[limit]\nmax_clients = 5", "limits"),
        ] {
            let failure = File::parse(text).unwrap_err();
            assert_eq!(
                failure.hint.as_deref(),
                Some(format!("did you mean {known}?").as_str()),
                "{text}: {failure}"
            );
            assert_eq!(failure.kind, crate::error::Kind::Usage);
        }
        let failure = File::parse("colour = 1").unwrap_err();
        assert!(failure.hint.unwrap().contains("--help"));
    }

    #[test]
    fn what_can_not_work_is_refused() {
        for text in [
            "[limits]\nmax_clients = 0",
            "[limits]\nmax_content_bytes = 300000",
            "audiences = [\"choir.example\"]",
            "origins = [\"https://choir.example/\"]",
            "[limits]\nmax_clients = -1",
            "[limits\n",
        ] {
            assert!(File::parse(text).is_err(), "{text}");
        }
    }
}
