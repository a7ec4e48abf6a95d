//! The real binary as people and servers: each child is ended by its own id, and every wait ends.

#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long anything may take on a busy machine before it counts as never.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// A temporary machine: a configuration directory, data, and perhaps a server.
pub(crate) struct World {
    directory: tempfile::TempDir,
    pub(crate) url: String,
}

impl World {
    /// Without a server.
    pub(crate) fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            url: String::new(),
        }
    }

    /// With a server on a free port.
    pub(crate) fn with_server() -> (Self, Running) {
        let mut world = Self::new();
        let server = world.serve("127.0.0.1:0");
        (world, server)
    }

    /// Starts a server on the world's data, and waits until it is ready.
    pub(crate) fn serve(&mut self, listen: &str) -> Running {
        self.serve_with(listen, &[])
    }

    /// The same, told more.
    pub(crate) fn serve_with(&mut self, listen: &str, more: &[&str]) -> Running {
        let data = self.path("data");
        let mut arguments = vec!["serve", "--listen", listen, "--data", data.to_str().unwrap(), "--json"];
        arguments.extend(more);
        let mut server = self.start("nobody", &arguments);
        let ready = server.json_until(|line| line["ready"] == true);
        self.url = ready["url"].as_str().unwrap().to_owned();
        server
    }

    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.directory.path().join(below)
    }

    pub(crate) fn command(&self, profile: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_choir"));
        command
            .args(arguments)
            .env_clear()
            .env("HOME", self.directory.path())
            .env("XDG_CONFIG_HOME", self.path("config"))
            .env("XDG_DATA_HOME", self.path("share"))
            .env("CHOIR_PROFILE", profile)
            .current_dir(self.directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if !self.url.is_empty() {
            command.env("CHOIR_URL", &self.url);
        }
        command
    }

    /// Where the server listens.
    pub(crate) fn address(&self) -> String {
        self.url
            .trim_start_matches("ws://")
            .trim_end_matches("/v1/ws")
            .to_owned()
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, profile: &str, arguments: &[&str]) -> Done {
        self.run_with(profile, arguments, |_| {}, "")
    }

    /// Runs a command with something on stdin, or another environment.
    pub(crate) fn run_with(
        &self,
        profile: &str,
        arguments: &[&str],
        change: impl FnOnce(&mut Command),
        stdin: &str,
    ) -> Done {
        let mut command = self.command(profile, arguments);
        if !stdin.is_empty() {
            command.stdin(Stdio::piped());
        }
        change(&mut command);
        let mut running = Running::start(command, arguments);
        if !stdin.is_empty() {
            running.say(stdin);
            running.end_of_input();
        }
        running.finish()
    }

    /// Runs a command that must succeed, and returns what it printed.
    #[track_caller]
    pub(crate) fn ok(&self, profile: &str, arguments: &[&str]) -> String {
        let done = self.run(profile, arguments);
        assert_eq!(done.code, Some(0), "{done}");
        done.stdout
    }

    /// Runs a command that must succeed with `--json`, and returns the objects that it printed.
    #[track_caller]
    pub(crate) fn objects(&self, profile: &str, arguments: &[&str]) -> Vec<Value> {
        let mut with_json = arguments.to_vec();
        with_json.push("--json");
        let text = self.ok(profile, &with_json);
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("not JSON: {line}")))
            .collect()
    }

    /// As [`World::objects`], where there is one.
    #[track_caller]
    pub(crate) fn object(&self, profile: &str, arguments: &[&str]) -> Value {
        let mut objects = self.objects(profile, arguments);
        assert_eq!(objects.len(), 1, "{objects:?}");
        objects.remove(0)
    }

    /// Runs a command that must fail with this exit code, and returns what it said on stderr.
    #[track_caller]
    pub(crate) fn fails(&self, code: i32, profile: &str, arguments: &[&str]) -> String {
        let done = self.run(profile, arguments);
        assert_eq!(done.code, Some(code), "{done}");
        done.stderr
    }

    /// Starts a command that goes on.
    pub(crate) fn start(&self, profile: &str, arguments: &[&str]) -> Running {
        let mut command = self.command(profile, arguments);
        command.stdin(Stdio::piped());
        Running::start(command, arguments)
    }
}

/// A command that ended.
pub(crate) struct Done {
    pub(crate) arguments: Vec<String>,
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl std::fmt::Display for Done {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "choir {} ended with {:?}\n--- stdout\n{}--- stderr\n{}",
            self.arguments.join(" "),
            self.code,
            self.stdout,
            self.stderr
        )
    }
}

/// A command that goes on. Dropped, it is killed.
pub(crate) struct Running {
    child: Child,
    arguments: Vec<String>,
    lines: Receiver<String>,
    seen: Vec<String>,
    stderr: Arc<Mutex<String>>,
    stderr_reader: Option<JoinHandle<()>>,
}

impl Running {
    fn start(mut command: Command, arguments: &[&str]) -> Self {
        let mut child = command.spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines() {
                let Ok(line) = line else { return };
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let mut errors = child.stderr.take().unwrap();
        let stderr = Arc::new(Mutex::new(String::new()));
        let kept = Arc::clone(&stderr);
        let stderr_reader = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(n @ 1..) = errors.read(&mut buffer) {
                kept.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..n]));
            }
        });
        Self {
            child,
            arguments: arguments.iter().map(|argument| (*argument).to_owned()).collect(),
            lines,
            seen: Vec::new(),
            stderr,
            stderr_reader: Some(stderr_reader),
        }
    }

    /// The process's id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it said on stderr so far.
    pub(crate) fn stderr(&self) -> String {
        self.stderr.lock().unwrap().clone()
    }

    /// All that it printed so far, as far as somebody waited for it.
    pub(crate) fn seen(&self) -> &[String] {
        &self.seen
    }

    /// Waits for a line of stdout; the lines before it are in [`Running::seen`].
    #[track_caller]
    pub(crate) fn until(&mut self, wanted: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self
                .lines
                .recv_timeout(deadline.saturating_duration_since(Instant::now()))
            {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if wanted(&line) {
                        return line;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    panic!("the line never came\n{}", self.describe())
                }
                Err(RecvTimeoutError::Disconnected) => {
                    panic!("it ended before the line came\n{}", self.describe())
                }
            }
        }
    }

    /// Waits for a JSON line.
    #[track_caller]
    pub(crate) fn json_until(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        let line = self.until(|line| serde_json::from_str(line).is_ok_and(|value| wanted(&value)));
        serde_json::from_str(&line).unwrap()
    }

    /// Waits until stderr holds a text.
    #[track_caller]
    pub(crate) fn stderr_until(&self, wanted: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.stderr().contains(wanted) {
            assert!(
                Instant::now() < deadline,
                "stderr never said {wanted:?}\n{}",
                self.describe()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn describe(&self) -> String {
        format!(
            "choir {}\n--- stdout\n{}\n--- stderr\n{}",
            self.arguments.join(" "),
            self.seen.join("\n"),
            self.stderr()
        )
    }

    /// Types.
    pub(crate) fn say(&mut self, text: &str) {
        let stdin = self.child.stdin.as_mut().unwrap();
        stdin.write_all(text.as_bytes()).unwrap();
        stdin.flush().unwrap();
    }

    /// Ctrl-D.
    pub(crate) fn end_of_input(&mut self) {
        drop(self.child.stdin.take());
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .args([&format!("-{name}"), &self.id().to_string()])
            .status()
            .unwrap();
        assert!(status.success());
    }

    /// Kills it at once, as a power cut would, and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for its end.
    #[track_caller]
    pub(crate) fn finish(mut self) -> Done {
        let deadline = Instant::now() + PATIENCE;
        // stdout closes with the process.
        loop {
            match self
                .lines
                .recv_timeout(deadline.saturating_duration_since(Instant::now()))
            {
                Ok(line) => self.seen.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("it never ended\n{}", self.describe()),
            }
        }
        let status = self.wait(deadline);
        if let Some(reader) = self.stderr_reader.take() {
            reader.join().unwrap();
        }
        let mut stdout = self.seen.join("\n");
        if !stdout.is_empty() {
            stdout.push('\n');
        }
        Done {
            arguments: std::mem::take(&mut self.arguments),
            code: status.code(),
            stdout,
            stderr: self.stderr(),
        }
    }

    fn wait(&mut self, deadline: Instant) -> ExitStatus {
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(
                Instant::now() < deadline,
                "it closed its output and never ended\n{}",
                self.describe()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended; then there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The kinds of entries that `tail --json` or `history --json` printed, with their numbers.
pub(crate) fn kinds(objects: &[Value]) -> Vec<(u64, String)> {
    objects
        .iter()
        .map(|object| {
            let entry = &object["entry"];
            (
                entry["seq"].as_u64().unwrap(),
                entry["kind"].as_str().unwrap().to_owned(),
            )
        })
        .collect()
}

/// The same of lines.
pub(crate) fn kinds_of_lines(lines: &[String]) -> Vec<(u64, String)> {
    let objects: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    kinds(&objects)
}

/// All files below a directory, largest first.
pub(crate) fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found.sort_by_key(|path| std::cmp::Reverse(path.metadata().map_or(0, |data| data.len())));
    found
}
