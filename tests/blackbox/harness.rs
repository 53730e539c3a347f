//! Processes, requests, and waiting for facts.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use reqwest::Method;
use reqwest::header::HeaderMap;
use serde_json::Value;
use tempfile::TempDir;

/// How long a fact may take to become true.
const DEADLINE: Duration = Duration::from_secs(10);
/// How long a process may take to start or to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a server says when it serves, before its address.
const LISTENING: &str = "listening on http://";

/// Where a server stores things. A test that touches the database runs on each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Database {
    /// The file that is the default.
    Sqlite,
}

/// Runs a test on every database that the program speaks.
pub(crate) async fn for_each_database(test: impl AsyncFn(Database)) {
    for database in [Database::Sqlite] {
        test(database).await;
    }
}

/// A working folder, removed when nobody holds it any more.
#[derive(Clone)]
pub(crate) struct Folder(Arc<TempDir>);

impl Folder {
    pub(crate) fn new() -> Folder {
        Folder(Arc::new(tempfile::tempdir().expect("a temporary folder")))
    }

    pub(crate) fn path(&self, relative: &str) -> PathBuf {
        self.0.path().join(relative)
    }

    /// Writes a file, in place, and the folders it needs.
    pub(crate) fn write(&self, relative: &str, text: impl AsRef<[u8]>) {
        let path = self.path(relative);
        self.make(relative);
        std::fs::write(&path, text)
            .unwrap_or_else(|error| panic!("{} is not written: {error}", path.display()));
    }

    /// Writes a file as careful editors do: a new one beside it, renamed over it.
    pub(crate) fn write_by_rename(&self, relative: &str, text: impl AsRef<[u8]>) {
        let beside = format!("{relative}.new~");
        self.write(&beside, text);
        self.rename(&beside, relative);
    }

    pub(crate) fn read(&self, relative: &str) -> String {
        let path = self.path(relative);
        std::fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("{} is not read: {error}", path.display()))
    }

    pub(crate) fn rename(&self, from: &str, to: &str) {
        std::fs::rename(self.path(from), self.path(to))
            .unwrap_or_else(|error| panic!("{from} is not renamed to {to}: {error}"));
    }

    /// Removes a file, a link, or a folder with all that is in it.
    pub(crate) fn remove(&self, relative: &str) {
        let path = self.path(relative);
        let is_folder =
            std::fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.file_type().is_dir());
        let removed = match is_folder {
            true => std::fs::remove_dir_all(&path),
            false => std::fs::remove_file(&path),
        };
        removed.unwrap_or_else(|error| panic!("{relative} is not removed: {error}"));
    }

    /// Makes a link at `relative` that leads to `target`.
    pub(crate) fn link(&self, target: &str, relative: &str) {
        self.make(relative);
        std::os::unix::fs::symlink(target, self.path(relative))
            .unwrap_or_else(|error| panic!("{relative} is not linked to {target}: {error}"));
    }

    fn make(&self, relative: &str) {
        let path = self.path(relative);
        let parent = path.parent().expect("a folder above");
        std::fs::create_dir_all(parent)
            .unwrap_or_else(|error| panic!("{} is not made: {error}", parent.display()));
    }
}

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
            // The default, in the working folder.
            Database::Sqlite => self,
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

    /// Asserts that it ended with an error of its own making, and gives what it complained about.
    pub(crate) fn badly(self) -> String {
        assert!(self.code.is_some_and(|code| code != 0), "{self:#?}");
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

fn lock(text: &Mutex<String>) -> std::sync::MutexGuard<'_, String> {
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
        let http = Http {
            client: reqwest::Client::new(),
            base: format!("http://{address}"),
            address,
            log: process.stderr.clone(),
        };
        Server {
            folder,
            options,
            process,
            http,
        }
    }

    /// A handle for requests that other tasks may hold.
    pub(crate) fn http(&self) -> Http {
        self.http.clone()
    }

    /// Kills the server as the kernel would, and starts it again in the same folder.
    pub(crate) fn kill_and_restart(mut self) -> Server {
        self.process.child.kill().expect("a kill");
        let finished = self.process.wait();
        assert_eq!(finished.code, None, "{finished:#?}");
        Server::launch(self.folder.clone(), self.options.clone())
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
        let pid = self.process.child.id().to_string();
        let status = Command::new("kill")
            .args(["-TERM", &pid])
            .status()
            .expect("a kill");
        assert!(status.success());
    }

    /// Sends SIGTERM and waits for the end.
    pub(crate) fn stop(self) -> Finished {
        self.terminate();
        self.wait()
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

/// A handle for requests to a server.
#[derive(Clone)]
pub(crate) struct Http {
    client: reqwest::Client,
    base: String,
    /// Host and port.
    pub(crate) address: String,
    log: Arc<Mutex<String>>,
}

impl Http {
    /// Sends a request. A path that does not begin with `/` stands below `/api/v2/`.
    pub(crate) async fn try_send(
        &self,
        method: Method,
        path: &str,
        refine: impl FnOnce(reqwest::RequestBuilder) -> reqwest::RequestBuilder,
    ) -> Result<Answer, reqwest::Error> {
        let what = format!("{method} {path}");
        let slash = if path.starts_with('/') {
            ""
        } else {
            "/api/v2/"
        };
        let request = self
            .client
            .request(method, format!("{}{slash}{path}", self.base));
        let response = refine(request).send().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = response.bytes().await?.to_vec();
        Ok(Answer {
            what,
            status,
            headers,
            body,
            log: self.log.clone(),
        })
    }

    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        refine: impl FnOnce(reqwest::RequestBuilder) -> reqwest::RequestBuilder,
    ) -> Answer {
        let what = format!("{method} {path}");
        match self.try_send(method, path, refine).await {
            Ok(answer) => answer,
            Err(error) => panic!("no answer to {what}: {error:?}\n{}", lock(&self.log)),
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, |request| request).await
    }

    pub(crate) async fn get_with(&self, path: &str, header: (&str, &str)) -> Answer {
        self.send(Method::GET, path, |request| {
            request.header(header.0, header.1)
        })
        .await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(Method::POST, path, |request| request.json(body))
            .await
    }

    pub(crate) async fn put(&self, path: &str, body: &Value) -> Answer {
        self.send(Method::PUT, path, |request| request.json(body))
            .await
    }

    pub(crate) async fn patch(&self, path: &str, body: &Value) -> Answer {
        self.send(Method::PATCH, path, |request| request.json(body))
            .await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.send(Method::DELETE, path, |request| request).await
    }

    /// Waits until the answer to a GET has this status and its body is so.
    pub(crate) async fn until(
        &self,
        path: &str,
        status: u16,
        is_so: impl Fn(&Value) -> bool,
    ) -> Value {
        eventually(&format!("GET {path}"), async || {
            let answer = self.get(path).await;
            let body = answer.value();
            match answer.status == status && is_so(&body) {
                true => Ok(body),
                false => Err(answer.summary()),
            }
        })
        .await
    }
}

/// Asks until the fact holds, and gives what it is. A fact that does not hold says what is so instead.
pub(crate) async fn eventually<T>(
    what: &str,
    mut holds: impl AsyncFnMut() -> Result<T, String>,
) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        match holds().await {
            Ok(fact) => return fact,
            Err(instead) if Instant::now() > end => {
                panic!("{what}: not so within {DEADLINE:?}; at last: {instead}")
            }
            Err(_) => tokio::task::yield_now().await,
        }
    }
}

/// The answer to a request.
pub(crate) struct Answer {
    what: String,
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
    log: Arc<Mutex<String>>,
}

impl Answer {
    /// Asserts the status.
    #[track_caller]
    pub(crate) fn is(self, status: u16) -> Answer {
        assert_eq!(
            self.status,
            status,
            "{}\nlog:\n{}",
            self.summary(),
            lock(&self.log)
        );
        self
    }

    /// The body as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        match serde_json::from_slice(&self.body) {
            Ok(value) => value,
            Err(error) => panic!("no JSON ({error}): {}", self.summary()),
        }
    }

    /// The body as JSON, or null when it is none.
    fn value(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A header that has to be there.
    #[track_caller]
    pub(crate) fn header(&self, name: &str) -> &str {
        match self.headers.get(name).map(|value| value.to_str()) {
            Some(Ok(value)) => value,
            _ => panic!("no header {name}: {} {:?}", self.summary(), self.headers),
        }
    }

    /// Asserts that this is an error in its envelope, and gives its detail.
    #[track_caller]
    pub(crate) fn error(self, status: u16) -> Value {
        let answer = self.is(status);
        let mut body = answer.json();
        let keys: Vec<&String> = body.as_object().expect("an object").keys().collect();
        assert_eq!(keys, ["correlation_id", "detail"], "{}", answer.summary());
        assert_eq!(
            body["correlation_id"],
            answer.header("x-request-id"),
            "{}",
            answer.summary()
        );
        assert_eq!(answer.header("content-type"), "application/json");
        body["detail"].take()
    }

    /// The request, the status and the body in a line.
    pub(crate) fn summary(&self) -> String {
        let mut text = format!("{}: {} ", self.what, self.status);
        let body = self.text();
        let short: String = body.chars().take(3000).collect();
        // Writing to a text cannot fail.
        let _ = write!(text, "{short}");
        text
    }
}

/// Opens the database file of a working folder as another process would.
pub(crate) fn open_database(folder: &Folder) -> rusqlite::Connection {
    open_file(&folder.path("data/patchbay.db"))
}

fn open_file(path: &Path) -> rusqlite::Connection {
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_WRITE;
    rusqlite::Connection::open_with_flags(path, flags)
        .unwrap_or_else(|error| panic!("{} does not open: {error}", path.display()))
}
