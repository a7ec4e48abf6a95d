//! What a person keeps on their machine: a key, the server they use, the thread they are in, and names for others.
//!
//! A profile is a folder `choir/profiles/<name>` in the user's configuration directory (`XDG_CONFIG_HOME`, else `~/.config`). One person needs one; several
//! let several people be played on one machine. In it:
//!
//! - `secret.key`: one line, `choir-secret-ed25519:` + base64url of the 32 secret bytes, readable by its owner only;
//! - `profile.toml`: everything else that is meant to last ([`Settings`]);
//! - `shown`: which revision of each spec its owner was shown last, a line `<spec> <content_hash>` each, newest last. It binds a decision to what was
//!   read; losing it means being asked once more.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use choir_protocol::encoding::{base64url_decode_array, base64url_encode};
use choir_protocol::hash::Hash;
use choir_protocol::ids::{Audience, Id, LogId, ThreadId, UserId};
use choir_protocol::key::{PublicKey, SecretKey};
use serde::{Deserialize, Serialize};

use crate::error::{Failure, Result};
use crate::output::Output;

/// Where a server is that nobody configured.
pub(crate) const DEFAULT_URL: &str = "ws://127.0.0.1:7400/v1/ws";
/// The profile of who names none.
pub(crate) const DEFAULT_PROFILE: &str = "default";

/// What a key file's line begins with, so that a secret is told from a public key, also by programs that look for leaked ones.
const SECRET_PREFIX: &str = "choir-secret-ed25519:";
/// How many specs' shown revisions are kept.
const MAX_SHOWN: usize = 500;

/// What `profile.toml` holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Settings {
    /// The server to dial.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) url: Option<String>,
    /// Who the key is, so that other profiles of this machine can name them without reading it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) user_id: Option<UserId>,
    /// The address book: nicknames and whom they are for.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) names: BTreeMap<String, UserId>,
    /// What is remembered of each server, by its audience.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) servers: BTreeMap<String, Server>,
}

/// What is remembered of a server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Server {
    /// The thread that is meant where none is named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) thread: Option<ThreadId>,
    /// The key of its checkpoints, pinned at first use (K6).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) key: Option<PublicKey>,
    /// The history that was seen last (G1r).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) log_id: Option<LogId>,
}

/// One person's folder.
#[derive(Debug)]
pub(crate) struct Profile {
    name: String,
    directory: PathBuf,
    settings: Settings,
    others: BTreeMap<UserId, String>,
}

impl Profile {
    /// Opens the profile with this name. It needn't exist: nothing is written before something is to be kept.
    pub(crate) fn open(name: &str) -> Result<Self> {
        let allowed = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_');
        if name.is_empty() || name.starts_with('.') || !name.chars().all(allowed) {
            return Err(Failure::usage(format!("{name:?} is no name for a profile"))
                .hint("letters, digits, dots, dashes and underscores are allowed, as in --profile bob"));
        }
        let profiles = config_directory()?.join("profiles");
        let directory = profiles.join(name);
        let settings = read_settings(&directory.join("profile.toml"))?;
        let others = neighbours(&profiles);
        Ok(Self {
            name: name.to_owned(),
            directory,
            settings,
            others,
        })
    }

    /// What it is called.
    pub(crate) fn called(&self) -> &str {
        &self.name
    }

    /// What is kept.
    pub(crate) const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Changes what is kept, and writes it. What another command changed meanwhile in other fields stays.
    pub(crate) fn update(&mut self, change: impl FnOnce(&mut Settings)) -> Result<()> {
        let path = self.directory.join("profile.toml");
        let mut settings = read_settings(&path)?;
        change(&mut settings);
        if settings != self.settings || !path.exists() {
            let text = toml::to_string_pretty(&settings)
                .map_err(|error| Failure::failed("internal", format!("could not write {}: {error}", path.display())))?;
            self.create_directory()?;
            replace(&path, text.as_bytes())?;
        }
        self.settings = settings;
        Ok(())
    }

    /// What is remembered of a server.
    pub(crate) fn server(&self, audience: &Audience) -> Server {
        self.settings
            .servers
            .get(audience.as_str())
            .cloned()
            .unwrap_or_default()
    }

    /// Changes what is remembered of a server.
    pub(crate) fn update_server(&mut self, audience: &Audience, change: impl FnOnce(&mut Server)) -> Result<()> {
        self.update(|settings| change(settings.servers.entry(audience.as_str().to_owned()).or_default()))
    }

    // ------------------------------------------------------------------------------------------------------------------------------------------ names

    /// The name that this user is shown by, where they have one: from the address book, else a profile of this machine.
    pub(crate) fn name_of(&self, user: &UserId) -> Option<&str> {
        let book = self
            .settings
            .names
            .iter()
            .find(|(_, named)| *named == user)
            .map(|(nick, _)| nick.as_str());
        book.or_else(|| self.others.get(user).map(String::as_str))
    }

    /// The user behind a nickname, a profile's name, a user id, or the beginning of a known one's key.
    pub(crate) fn user(&self, text: &str) -> Result<UserId> {
        if let Some(user) = self.settings.names.get(text) {
            return Ok(user.clone());
        }
        if let Some((user, _)) = self.others.iter().find(|(_, name)| *name == text) {
            return Ok(user.clone());
        }
        if text.contains(':')
            && let Ok(user) = text.parse::<UserId>()
            && (user.key().is_some() || !text.starts_with("ed25519:"))
        {
            return Ok(user);
        }
        let known = self.settings.names.values().chain(self.others.keys());
        let mut begins: Vec<&UserId> = known
            .filter(|user| text.len() >= 4 && key_text(user).starts_with(text))
            .collect();
        begins.sort_unstable();
        begins.dedup();
        if let [one] = begins.as_slice() {
            return Ok((*one).clone());
        }
        let names: Vec<&str> = self
            .settings
            .names
            .keys()
            .chain(self.others.values())
            .map(String::as_str)
            .collect();
        let known = if names.is_empty() {
            String::new()
        } else {
            format!("; known are {}", names.join(", "))
        };
        Err(Failure::usage(format!("nobody is known as {text:?}{known}"))
            .hint("ask them for the user id that `choir key show` prints, then: choir name <USER-ID> <NICK>"))
    }

    // -------------------------------------------------------------------------------------------------------------------------------------------- key

    /// Where the key is.
    pub(crate) fn key_path(&self) -> PathBuf {
        self.directory.join("secret.key")
    }

    /// The key.
    pub(crate) fn key(&self) -> Result<SecretKey> {
        let path = self.key_path();
        if path.exists() {
            return key_in(&path);
        }
        let profile = self.flag();
        Err(Failure::usage(format!("there is no key in {}", path.display()))
            .hint(format!("make one: choir{profile} key new")))
    }

    /// How this profile is chosen on a command line.
    pub(crate) fn flag(&self) -> String {
        if self.name == DEFAULT_PROFILE {
            String::new()
        } else {
            format!(" --profile {}", self.name)
        }
    }

    /// Makes a key and writes it. One that is there already is kept, or with `replaces` moved aside: a user is their key, and who loses it is nobody.
    pub(crate) fn new_key(&mut self, replaces: bool) -> Result<(UserId, Option<PathBuf>)> {
        let path = self.key_path();
        let mut aside = None;
        if path.exists() {
            if !replaces {
                return Err(Failure::failed("exists", format!("there is a key in {} already", path.display()))
                    .meaning("Nothing was changed.")
                    .hint("`choir key show` shows whose it is; with --force it is moved aside, and you become somebody else"));
            }
            let moved = free_name(&path);
            fs::rename(&path, &moved).map_err(|error| Failure::file("move aside", &path, &error))?;
            aside = Some(moved);
        }
        let mut seed = [0_u8; 32];
        getrandom::fill(&mut seed)
            .map_err(|error| Failure::failed("io", format!("the system gave no random bytes: {error}")))?;
        let user = UserId::of_key(&SecretKey::from_seed(&seed).public());
        self.create_directory()?;
        create_secret(&path, &format!("{SECRET_PREFIX}{}\n", base64url_encode(&seed)))?;
        self.update(|settings| settings.user_id = Some(user.clone()))?;
        Ok((user, aside))
    }

    fn create_directory(&self) -> Result<()> {
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder
            .create(&self.directory)
            .map_err(|error| Failure::file("create", &self.directory, &error))
    }

    // ------------------------------------------------------------------------------------------------------------------------------------------ shown

    /// The revision of a spec that was shown last.
    pub(crate) fn shown(&self, spec: Id) -> Option<Hash> {
        self.read_shown()
            .into_iter()
            .rev()
            .find(|(shown, _)| *shown == spec)
            .map(|(_, hash)| hash)
    }

    /// Keeps which revisions were shown. Where that can't be, it is said and nothing else: they are shown once more before they are decided on.
    pub(crate) fn remember_shown(&self, specs: &[(Id, Hash)], out: Output) {
        if let Err(failure) = self.keep_shown(specs) {
            out.note(format!("Warning: what you were shown can't be kept: {failure}"));
        }
    }

    fn keep_shown(&self, specs: &[(Id, Hash)]) -> Result<()> {
        let mut shown = self.read_shown();
        if specs.iter().all(|spec| shown.contains(spec)) {
            return Ok(());
        }
        shown.retain(|(spec, _)| specs.iter().all(|(new, _)| new != spec));
        shown.extend_from_slice(specs);
        let from = shown.len().saturating_sub(MAX_SHOWN);
        let lines: String = shown
            .iter()
            .skip(from)
            .map(|(spec, hash)| format!("{spec} {hash}\n"))
            .collect();
        self.create_directory()?;
        replace(&self.directory.join("shown"), lines.as_bytes())
    }

    /// A file that can't be read, or a line that isn't one, counts as not shown: the spec is shown again.
    fn read_shown(&self) -> Vec<(Id, Hash)> {
        let text = fs::read_to_string(self.directory.join("shown")).unwrap_or_default();
        let line = |line: &str| {
            let (spec, hash) = line.split_once(' ')?;
            Some((spec.parse().ok()?, hash.parse().ok()?))
        };
        text.lines().filter_map(line).collect()
    }
}

/// A key in a file.
pub(crate) fn key_in(path: &Path) -> Result<SecretKey> {
    let text = fs::read_to_string(path).map_err(|error| {
        Failure {
            kind: crate::error::Kind::Usage,
            ..Failure::file("read the key in", path, &error)
        }
        .hint("--key and CHOIR_KEY name a key file; `choir key new` makes one")
    })?;
    parse_key(&text).ok_or_else(|| {
        Failure::usage(format!("{} holds no key", path.display())).hint(format!(
            "a key file is one line: {SECRET_PREFIX} and 43 characters; restore yours from a backup"
        ))
    })
}

/// A key as it is written: with its prefix, or the 43 characters alone.
pub(crate) fn parse_key(text: &str) -> Option<SecretKey> {
    let text = text.trim();
    let seed = text.strip_prefix(SECRET_PREFIX).unwrap_or(text);
    base64url_decode_array::<32>(seed)
        .ok()
        .map(|seed| SecretKey::from_seed(&seed))
}

/// The data directory of who names none.
pub(crate) fn default_data_directory() -> Result<PathBuf> {
    base_directory("XDG_DATA_HOME", ".local/share").map(|base| base.join("choir").join("log"))
}

fn config_directory() -> Result<PathBuf> {
    base_directory("XDG_CONFIG_HOME", ".config").map(|base| base.join("choir"))
}

/// A directory of the XDG base directory specification, which says that a relative path is to be ignored.
fn base_directory(variable: &str, below_home: &str) -> Result<PathBuf> {
    let absolute = |name: &str| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    absolute(variable)
        .or_else(|| absolute("HOME").map(|home| home.join(below_home)))
        .ok_or_else(|| {
            Failure::usage(format!("neither {variable} nor HOME names a directory"))
                .hint(format!("set {variable} to a directory of yours"))
        })
}

fn read_settings(path: &Path) -> Result<Settings> {
    match fs::read_to_string(path) {
        Ok(text) => toml::from_str(&text).map_err(|error| {
            Failure::usage(format!(
                "{} can't be read: {}",
                path.display(),
                error.to_string().trim_end()
            ))
            .meaning("Nothing was changed.")
            .hint("correct the file, or move it away to begin anew; your key is in a file of its own")
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Settings::default()),
        Err(error) => Err(Failure::file("read", path, &error)),
    }
}

/// Who the other profiles of this machine are. One that can't be read is passed over: it isn't the one that was asked for.
fn neighbours(profiles: &Path) -> BTreeMap<UserId, String> {
    let mut users = BTreeMap::new();
    for entry in fs::read_dir(profiles).into_iter().flatten().flatten() {
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        let Ok(Settings {
            user_id: Some(user), ..
        }) = read_settings(&entry.path().join("profile.toml"))
        else {
            continue;
        };
        // `default` says nothing of who it is; the login name does.
        let name = match std::env::var("USER") {
            Ok(login) if name == DEFAULT_PROFILE && !login.is_empty() => crate::output::one_line(&login),
            _ => name,
        };
        users.insert(user, name);
    }
    users
}

fn key_text(user: &UserId) -> &str {
    user.as_str().strip_prefix("ed25519:").unwrap_or(user.as_str())
}

/// A name beside `path` that nothing has.
fn free_name(path: &Path) -> PathBuf {
    let named = |n: u32| path.with_extension(format!("key.old-{n}"));
    (1..u32::MAX)
        .map(named)
        .find(|path| !path.exists())
        .unwrap_or_else(|| named(0))
}

/// Writes a secret that can be read by its owner only, from its first moment on, and that survives a power cut.
fn create_secret(path: &Path, text: &str) -> Result<()> {
    let failure = |error: std::io::Error| Failure::file("write the key to", path, &error);
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path).map_err(failure)?;
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(failure)?;
    match path.parent() {
        Some(parent) => fs::File::open(parent)
            .and_then(|directory| directory.sync_all())
            .map_err(failure),
        None => Ok(()),
    }
}

/// Replaces a file as a whole: a crash leaves the old one or the new one.
fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let temporary = path.with_extension(format!("new-{}", std::process::id()));
    fs::write(&temporary, bytes)
        .and_then(|()| fs::rename(&temporary, path))
        .map_err(|error| Failure::file("write", path, &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_with_and_without_its_prefix() {
        let text = base64url_encode(&[7; 32]);
        let user = SecretKey::from_seed(&[7; 32]).public();
        assert_eq!(parse_key(&text).unwrap().public(), user);
        assert_eq!(parse_key(&format!("{SECRET_PREFIX}{text}\n")).unwrap().public(), user);
        for wrong in [
            "",
            "choir-secret-ed25519:",
            "ed25519:abc",
            "hello",
            &text[1..],
            &user.to_string()[..42],
        ] {
            assert!(parse_key(wrong).is_none(), "{wrong:?}");
        }
    }

    #[test]
    fn names_of_profiles_stay_inside_their_folder() {
        for wrong in ["", "..", ".hidden", "a/b", "a\\b", "bo b"] {
            assert_eq!(
                Profile::open(wrong).unwrap_err().kind,
                crate::error::Kind::Usage,
                "{wrong:?}"
            );
        }
    }

    fn profile(directory: &Path) -> Profile {
        Profile {
            name: "bob".into(),
            directory: directory.to_owned(),
            settings: Settings::default(),
            others: BTreeMap::new(),
        }
    }

    #[test]
    fn a_key_is_never_overwritten() {
        let temporary = tempfile::tempdir().unwrap();
        let mut bob = profile(temporary.path());
        let (first, _) = bob.new_key(false).unwrap();
        assert_eq!(bob.new_key(false).unwrap_err().code, "exists");
        assert_eq!(UserId::of_key(&bob.key().unwrap().public()), first);
        let (second, aside) = bob.new_key(true).unwrap();
        assert_ne!(first, second);
        assert_eq!(UserId::of_key(&key_in(&aside.unwrap()).unwrap().public()), first);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(
                fs::metadata(bob.key_path()).unwrap().permissions().mode() & 0o777,
                0o600
            );
        }
    }

    #[test]
    fn nicknames_go_both_ways() {
        let temporary = tempfile::tempdir().unwrap();
        let mut bob = profile(temporary.path());
        let alice = UserId::of_key(&SecretKey::from_seed(&[1; 32]).public());
        bob.update(|settings| {
            settings.names.insert("alice".into(), alice.clone());
        })
        .unwrap();
        assert_eq!(bob.name_of(&alice), Some("alice"));
        assert_eq!(bob.user("alice").unwrap(), alice);
        assert_eq!(bob.user(alice.as_str()).unwrap(), alice);
        assert_eq!(bob.user(&key_text(&alice)[..6]).unwrap(), alice);
        assert_eq!(bob.user("okta:carol").unwrap().as_str(), "okta:carol");
        assert!(bob.user("carol").unwrap_err().message.contains("alice"));
        assert!(bob.user("ed25519:short").is_err());
    }

    #[test]
    fn what_was_shown_is_the_newest_revision() {
        let temporary = tempfile::tempdir().unwrap();
        let bob = profile(temporary.path());
        let spec = Id::v7(1, [1; 10]);
        assert_eq!(bob.shown(spec), None);
        bob.keep_shown(&[(spec, Hash::of(b"one"))]).unwrap();
        bob.keep_shown(&[(spec, Hash::of(b"two"))]).unwrap();
        assert_eq!(bob.shown(spec), Some(Hash::of(b"two")));
        for n in 0..MAX_SHOWN as u64 {
            bob.keep_shown(&[(Id::v7(n + 2, [2; 10]), Hash::of(b"x"))]).unwrap();
        }
        assert_eq!(bob.shown(spec), None, "the list is bounded");
    }

    #[test]
    fn an_unknown_setting_is_refused_with_its_place() {
        let temporary = tempfile::tempdir().unwrap();
        fs::write(temporary.path().join("profile.toml"), "ulr = \"ws://x\"\n").unwrap();
        let failure = read_settings(&temporary.path().join("profile.toml")).unwrap_err();
        assert!(
            failure.message.contains("ulr") && failure.message.contains("profile.toml"),
            "{failure}"
        );
    }
}
