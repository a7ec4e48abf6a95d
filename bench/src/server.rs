//! A real `choir serve`, as a child that ends with its owner.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What goes wrong in a measurement.
pub(crate) type Error = Box<dyn std::error::Error>;

/// A server that is ready.
pub(crate) struct Server {
    child: Child,
    /// Where it listens: `ws://…/v1/ws`.
    pub(crate) url: String,
}

impl Server {
    /// Starts one over a data directory, on a free port of loopback.
    pub(crate) fn start(choir: &Path, data: &Path) -> Result<Self, Error> {
        Self::start_with(choir, data, None)
    }

    /// The same with a configuration file.
    pub(crate) fn start_with(choir: &Path, data: &Path, configuration: Option<&Path>) -> Result<Self, Error> {
        let mut command = Command::new(choir);
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--json", "--data"])
            .arg(data);
        if let Some(path) = configuration {
            command.arg("--config").arg(path);
        }
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .map_err(|error| {
                format!(
                    "{} can't be started: {error}; build it first: cargo build --release -p choir-cli",
                    choir.display()
                )
            })?;
        let stdout = child.stdout.take().ok_or("the server has no stdout")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let ready: serde_json::Value =
            serde_json::from_str(&line).map_err(|_| format!("the server said {line:?} instead of being ready"))?;
        let url = ready
            .get("url")
            .and_then(serde_json::Value::as_str)
            .ok_or("the server named no address")?
            .to_owned();
        Ok(Self { child, url })
    }

    /// How many fsyncs the server's log has made, by its own count.
    pub(crate) async fn fsyncs(&self) -> Result<u64, Error> {
        let address = self.url.trim_start_matches("ws://").trim_end_matches("/v1/ws");
        let mut socket = TcpStream::connect(address).await?;
        let request = format!("GET /debug/stats HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        socket.take(64 * 1024).read_to_string(&mut answer).await?;
        let (_, body) = answer.split_once("\r\n\r\n").ok_or("no HTTP answer")?;
        let stats: serde_json::Value = serde_json::from_str(body)?;
        let fsyncs = stats.get("log").and_then(|log| log.get("fsyncs")?.as_u64());
        Ok(fsyncs.ok_or("the server doesn't count its fsyncs")?)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Its own child, by its own handle; there is nobody to tell where it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The `choir` that was built beside this program.
pub(crate) fn choir_beside() -> Result<PathBuf, Error> {
    let own = std::env::current_exe()?;
    Ok(own.with_file_name("choir"))
}
