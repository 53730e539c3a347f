//! The programs under measurement: started in a folder of their own, stopped, weighed.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

/// The server's program.
#[derive(Debug)]
pub(crate) struct Program {
    path: PathBuf,
}

impl Program {
    /// The one at a path, or else the one of this repository, built now.
    ///
    /// # Errors
    /// When it cannot be built.
    pub(crate) fn find(path: Option<PathBuf>) -> Result<Program> {
        if let Some(path) = path {
            let path = path
                .canonicalize()
                .with_context(|| path.display().to_string())?;
            return Ok(Program { path });
        }
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let status = Command::new(cargo)
            .args([
                "build",
                "--release",
                "--package",
                "patchbay",
                "--bin",
                "patchbay",
            ])
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
            .status()
            .context("cannot run cargo")?;
        ensure!(status.success(), "the program does not build");
        // Cargo puts it beside this one, when this one is a release build too.
        let beside = std::env::current_exe()?.with_file_name("patchbay");
        let path = if cfg!(debug_assertions) {
            beside.with_file_name("../release/patchbay")
        } else {
            beside
        };
        let path = path
            .canonicalize()
            .with_context(|| path.display().to_string())?;
        Ok(Program { path })
    }

    /// Runs a verb in a folder to its end, and gives whether it succeeded and what it printed.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(crate) fn run(
        &self,
        folder: &Path,
        words: &[&str],
        settings: &[(&str, &str)],
    ) -> Result<(bool, String)> {
        let output = self
            .command(folder, words, settings)
            .stdin(Stdio::null())
            .output()?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok((output.status.success(), said))
    }

    /// The program in a folder, with default settings but for those given.
    fn command(&self, folder: &Path, words: &[&str], settings: &[(&str, &str)]) -> Command {
        let mut command = Command::new(&self.path);
        for (name, _) in std::env::vars_os() {
            let name_text = name.to_string_lossy();
            if name_text.starts_with("PATCHBAY_") || name_text.ends_with("ABLED_PLUGINS") {
                command.env_remove(&name);
            }
        }
        command
            .args(words)
            .envs(settings.iter().copied())
            .current_dir(folder);
        command
    }

    /// Starts a server in a folder, with default settings but for those given, and waits until it listens.
    ///
    /// # Errors
    /// When it ends before it listens.
    pub(crate) fn serve(&self, folder: &Path, settings: &[(&str, &str)]) -> Result<Running> {
        let log = std::fs::File::create(folder.join("server.log"))?;
        let mut command = self.command(folder, &["serve"], settings);
        command.env("PATCHBAY_LISTEN", "127.0.0.1:0").stderr(log);
        Running::spawn(command).with_context(|| {
            let log = std::fs::read_to_string(folder.join("server.log")).unwrap_or_default();
            format!("the server does not start: {log}")
        })
    }
}

/// A process that listens. Dropped, it is killed.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// Kept open, so that the process may go on writing.
    _output: BufReader<ChildStdout>,
}

impl Running {
    /// Starts a process and waits for its line `listening on http://…`.
    ///
    /// # Errors
    /// When it ends without that line.
    pub(crate) fn spawn(mut command: Command) -> Result<Running> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = child.stdout.take().context("no standard output")?;
        let mut output = BufReader::new(stdout);
        let mut line = String::new();
        loop {
            line.clear();
            if output.read_line(&mut line)? == 0 {
                let status = child.wait()?;
                anyhow::bail!("it ended with {status} before it listened");
            }
            if let Some(address) = line.trim().strip_prefix("listening on http://") {
                let address = address.parse()?;
                return Ok(Running {
                    child,
                    address,
                    _output: output,
                });
            }
        }
    }

    /// Its resident memory, in MiB.
    ///
    /// # Errors
    /// When neither `/proc` nor `ps` tells.
    pub(crate) fn memory(&self) -> Result<f64> {
        let id = self.child.id();
        let kib = match std::fs::read_to_string(format!("/proc/{id}/status")) {
            Ok(status) => status
                .lines()
                .find_map(|line| line.strip_prefix("VmRSS:"))
                .map(|rest| rest.trim().trim_end_matches(" kB").to_owned())
                .context("no VmRSS")?,
            Err(_) => {
                let output = Command::new("ps")
                    .args(["-o", "rss=", "-p", &id.to_string()])
                    .output()?;
                String::from_utf8(output.stdout)?.trim().to_owned()
            }
        };
        Ok(kib.parse::<f64>()? / 1024.0)
    }

    /// The processor time it has used, in its own code and in the kernel; none where there is no `/proc`.
    pub(crate) fn processor_time(&self) -> Option<Duration> {
        /// How many ticks a second `/proc` counts in, on every Linux.
        const TICKS: f64 = 100.0;
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).ok()?;
        // The second field is the name, in parentheses, and may hold anything.
        let (_, rest) = stat.rsplit_once(") ")?;
        let mut fields = rest.split(' ').skip(11);
        let ticks = fields.next()?.parse::<f64>().ok()? + fields.next()?.parse::<f64>().ok()?;
        Some(Duration::from_secs_f64(ticks / TICKS))
    }

    /// Asks it to stop, and waits until it has.
    ///
    /// # Errors
    /// When it does not end well.
    pub(crate) fn stop(mut self) -> Result<()> {
        // The standard library can only kill.
        let told = Command::new("kill")
            .arg(self.child.id().to_string())
            .status()?;
        ensure!(told.success(), "it cannot be asked to stop");
        let status = self.child.wait()?;
        ensure!(status.success(), "it ended with {status}");
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
