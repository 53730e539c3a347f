//! The program as a process, and servers.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::ops::Deref;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{Database, Folder, Http};

/// How long a process may take to start or to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a server says when it serves, before its address.
const LISTENING: &str = "listening on http://";

/// How a process is started.
#[derive(Clone, Default)]
pub(crate) struct Options {
    env: BTreeMap<String, String>,
    args: Vec<String>,
    files: Vec<(String, Vec<u8>)>,
}

impl Options {
    /// A file of the working folder.
    pub(crate) fn file(&mut self, relative: &str, text: impl AsRef<[u8]>) -> &mut Options {
        self.files
            .push((relative.to_owned(), text.as_ref().to_vec()));
        self
    }

    /// A variable of the environment.
    pub(crate) fn env(&mut self, name: &str, value: &str) -> &mut Options {
        self.env.insert(name.to_owned(), value.to_owned());
        self
    }

    /// A word of the command line.
    pub(crate) fn arg(&mut self, word: &str) -> &mut Options {
        self.args.push(word.to_owned());
        self
    }

    /// Where things are stored.
    pub(crate) fn database(&mut self, database: Database) -> &mut Options {
        match database {
            Database::Sqlite => self,
            Database::Postgres(url) => self.env("PATCHBAY_DATABASE_URL", url),
        }
    }
}

/// What a process said and how it ended.
#[derive(Debug)]
pub(crate) struct Finished {
    /// The exit code; none when a signal ended it.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Finished {
    /// Asserts that all went well, and gives what it printed.
    pub(crate) fn well(self) -> String {
        assert_eq!(self.code, Some(0), "{self:#?}");
        self.stdout
    }

    /// Asserts that it ended with an error of its own making, said in one line, and gives all that it said.
    pub(crate) fn badly(self) -> String {
        assert!(self.code.is_some_and(|code| code != 0), "{self:#?}");
        let complaints: Vec<&str> = self
            .stderr
            .lines()
            .filter(|line| line.starts_with("patchbay: "))
            .collect();
        let usage = self.stderr.starts_with("error: ");
        assert!(
            complaints.len() == 1 || usage,
            "one line says it: {self:#?}"
        );
        assert!(!self.stderr.contains("panicked"), "{self:#?}");
        self.stderr
    }
}

/// Runs the program with these words until it ends.
pub(crate) fn run(folder: &Folder, words: &[&str]) -> Finished {
    run_with(folder, |options| {
        for word in words {
            options.arg(word);
        }
    })
}

/// Runs the program until it ends.
pub(crate) fn run_with(folder: &Folder, configure: impl FnOnce(&mut Options)) -> Finished {
    let mut options = Options::default();
    configure(&mut options);
    for (relative, text) in &options.files {
        folder.write(relative, text);
    }
    let mut process = Process::spawn(folder, &options);
    if let Some(address) = process.wait_for_line(LISTENING) {
        panic!("{} serves on {address}", process.what);
    }
    process.wait()
}

/// A started program.
struct Process {
    /// The words and settings it was started with.
    what: String,
    child: Child,
    lines: Receiver<String>,
    stdout: String,
    stderr: Arc<Mutex<String>>,
    stderr_reader: Option<JoinHandle<()>>,
}

impl Process {
    fn spawn(folder: &Folder, options: &Options) -> Process {
        let mut command = Command::new(env!("CARGO_BIN_EXE_patchbay"));
        let is_ours = |name: &str| name.starts_with("PATCHBAY_") || name.ends_with("ABLED_PLUGINS");
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(is_ours) {
                command.env_remove(name);
            }
        }
        let mut child = command
            .args(&options.args)
            .envs(&options.env)
            .current_dir(folder.path(""))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let (send, lines) = mpsc::channel();
        let stdout = child.stdout.take().expect("its standard output");
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                // The receiver is gone when the test is over.
                let _ = send.send(line);
            }
        });
        let stderr = Arc::new(Mutex::new(String::new()));
        let mut from = child.stderr.take().expect("its standard error");
        let into = stderr.clone();
        let stderr_reader = std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = from.read(&mut bytes) {
                lock(&into).push_str(&String::from_utf8_lossy(&bytes[..count]));
            }
        });
        Process {
            what: format!("patchbay {:?} {:?}", options.args, options.env),
            child,
            lines,
            stdout: String::new(),
            stderr,
            stderr_reader: Some(stderr_reader),
        }
    }

    /// Reads lines until one begins with `start`, and gives what follows; none when the process ends before.
    fn wait_for_line(&mut self, start: &str) -> Option<String> {
        let end = Instant::now() + PATIENCE;
        loop {
            match self
                .lines
                .recv_timeout(end.saturating_duration_since(Instant::now()))
            {
                Ok(line) => {
                    self.stdout.push_str(&line);
                    self.stdout.push('\n');
                    if let Some(rest) = line.strip_prefix(start) {
                        return Some(rest.to_owned());
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => {
                    // What it has said so far is all there is to say.
                    let _ = self.child.kill();
                    panic!(
                        "{} neither said {start:?} nor ended within {PATIENCE:?}; it said:\n{}\n{}",
                        self.what,
                        self.stdout,
                        lock(&self.stderr)
                    );
                }
            }
        }
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args([signal, &pid]).status();
        assert!(status.expect("a kill").success());
    }

    /// Waits until it has ended. Its standard output is closed by then, so no line can be missing.
    fn wait(&mut self) -> Finished {
        let nothing_begins_so = "\0";
        assert_eq!(self.wait_for_line(nothing_begins_so), None);
        let status = self.child.wait().expect("the program ends");
        if let Some(reader) = self.stderr_reader.take() {
            reader.join().expect("its standard error is read");
        }
        Finished {
            code: status.code(),
            stdout: self.stdout.clone(),
            stderr: lock(&self.stderr).clone(),
        }
    }
}

impl Drop for Process {
    #[expect(
        clippy::print_stderr,
        reason = "a failed test shows what the server said"
    )]
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("── the program said ──\n{}", lock(&self.stderr));
        }
    }
}

pub(super) fn lock(text: &Mutex<String>) -> std::sync::MutexGuard<'_, String> {
    text.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A running server. It is killed when it is dropped.
pub(crate) struct Server {
    /// Its working folder.
    pub(crate) folder: Folder,
    options: Options,
    process: Process,
    http: Http,
}

impl Deref for Server {
    type Target = Http;

    fn deref(&self) -> &Http {
        &self.http
    }
}

impl Server {
    /// Starts a server in a new folder.
    pub(crate) fn start(configure: impl FnOnce(&mut Options)) -> Server {
        Server::start_in(Folder::new(), configure)
    }

    /// Starts a server in a new folder, on a database.
    pub(crate) fn on(database: Database) -> Server {
        Server::start(|options| {
            options.database(database);
        })
    }

    /// Starts a server in a folder that is there.
    pub(crate) fn start_in(folder: Folder, configure: impl FnOnce(&mut Options)) -> Server {
        let mut options = Options::default();
        options.env("PATCHBAY_LISTEN", "127.0.0.1:0");
        configure(&mut options);
        for (relative, text) in &options.files {
            folder.write(relative, text);
        }
        // A server that is started again finds the files as they were left.
        options.files.clear();
        Server::launch(folder, options)
    }

    fn launch(folder: Folder, options: Options) -> Server {
        let mut process = Process::spawn(&folder, &options);
        let Some(address) = process.wait_for_line(LISTENING) else {
            panic!("the server does not start: {:#?}", process.wait());
        };
        // A server that listens everywhere is reached by loopback.
        let address = address.trim().replace("0.0.0.0", "127.0.0.1");
        let http = Http::new(address, process.stderr.clone());
        Server {
            folder,
            options,
            process,
            http,
        }
    }

    /// Waits until it prints a line that begins so, and gives the rest of it. Each line is given once.
    #[track_caller]
    pub(crate) fn says(&mut self, start: &str) -> String {
        match self.process.wait_for_line(start) {
            Some(rest) => rest,
            None => panic!(
                "it ended without saying {start:?}: {:#?}",
                self.process.wait()
            ),
        }
    }

    /// A handle for requests that other tasks may hold.
    pub(crate) fn http(&self) -> Http {
        self.http.clone()
    }

    /// Kills the server as the kernel would.
    pub(crate) fn kill(mut self) -> Killed {
        self.process.child.kill().expect("a kill");
        let finished = self.process.wait();
        assert_eq!(finished.code, None, "{finished:#?}");
        Killed {
            folder: self.folder.clone(),
            options: self.options.clone(),
        }
    }

    /// Kills the server as the kernel would, and starts it again in the same folder.
    pub(crate) fn kill_and_restart(self) -> Server {
        self.kill().start()
    }

    /// Stops the server in good order, and starts it again in the same folder.
    pub(crate) fn restart(self, configure: impl FnOnce(&mut Options)) -> Server {
        let (folder, mut options) = (self.folder.clone(), self.options.clone());
        self.stop().well();
        configure(&mut options);
        Server::launch(folder, options)
    }

    /// Sends SIGTERM.
    pub(crate) fn terminate(&self) {
        self.process.signal("-TERM");
    }

    /// Sends SIGTERM and waits for the end.
    pub(crate) fn stop(self) -> Finished {
        self.terminate();
        self.wait()
    }

    /// What it has logged so far, as far as that has come through.
    pub(crate) fn logged_so_far(&self) -> String {
        lock(&self.process.stderr).clone()
    }

    /// Waits for the end.
    pub(crate) fn wait(mut self) -> Finished {
        self.process.wait()
    }

    /// Stops the server in good order and gives all that it has logged. Before, the end of it may not be written yet.
    pub(crate) fn logged(self) -> String {
        let finished = self.stop();
        assert_eq!(finished.code, Some(0), "{finished:#?}");
        finished.stderr
    }

    /// Runs another verb of the program on the same folder, with the same settings.
    pub(crate) fn run(&self, words: &[&str]) -> Finished {
        let mut options = self.options.clone();
        options.args = words.iter().map(|word| (*word).to_owned()).collect();
        Process::spawn(&self.folder, &options).wait()
    }
}

/// A server that was killed.
pub(crate) struct Killed {
    folder: Folder,
    options: Options,
}

impl Killed {
    /// Starts it again, in the same folder.
    pub(crate) fn start(self) -> Server {
        Server::launch(self.folder, self.options)
    }
}

/// Starts a server, waits until it has logged this, tells it to stop, and waits until it has.
pub(crate) fn stopped_at(
    folder: &Folder,
    logged: &str,
    configure: impl FnOnce(&mut Options),
) -> Finished {
    let mut options = Options::default();
    options.env("PATCHBAY_LISTEN", "127.0.0.1:0");
    configure(&mut options);
    let mut process = Process::spawn(folder, &options);
    let end = Instant::now() + PATIENCE;
    while !lock(&process.stderr).contains(logged) {
        assert!(
            Instant::now() < end,
            "{} never said {logged:?}",
            process.what
        );
        std::thread::yield_now();
    }
    process.signal("-TERM");
    process.wait()
}
