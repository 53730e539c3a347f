//! A throw-away Postgres for tests and benches: a cluster of its own on a port of its own, which ends with the process
//! that started it, however that ends.
//!
//! | module | holds |
//! |---|---|
//! | [`Proxy`] | a wire to the database that can be cut, or fall silent |
//! | `programs` | where Postgres is installed, and how it gets there; the user it runs as |
//! | `watcher` | who ends a cluster whose process is gone |
//!
//! [`Cluster::shared`] is one cluster for all tests of a process; a test that stops, pauses or breaks it starts its own
//! with [`Cluster::start`]. Either gives fresh databases. A machine without Postgres fails the test, and never skips it.

mod programs;
mod proxy;
mod watcher;

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio_postgres::{Client, NoTls};

use programs::Programs;
pub use proxy::Proxy;
use watcher::Watcher;

/// How long the cluster may take to start, to stop, and to answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// The user that tests connect as, without a password.
const USER: &str = "patchbay";

/// The user that has to know its password, for tests of wrong ones.
pub const GUARDED_USER: &str = "guarded";
/// The password of [`GUARDED_USER`].
pub const GUARDED_PASSWORD: &str = "open sesame";

/// How careful a cluster is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// It survives nothing but the kill of its processes: right for tests.
    #[default]
    None,
    /// As Postgres comes: every commit is on the disk. Right for benches.
    Full,
}

/// A running cluster. It is stopped, and its folder removed, when this is dropped or its process ends.
pub struct Cluster {
    programs: Programs,
    durability: Durability,
    port: AtomicU16,
    /// None while it is stopped.
    server: Mutex<Option<Child>>,
    names: AtomicU32,
    watcher: Watcher,
    /// Removed last.
    folder: tempfile::TempDir,
}

impl Cluster {
    /// The cluster of this process for tests that leave it running.
    pub fn shared() -> &'static Cluster {
        static SHARED: OnceLock<Cluster> = OnceLock::new();
        SHARED.get_or_init(|| Cluster::start(Durability::None))
    }

    /// Makes and starts a cluster.
    ///
    /// # Panics
    /// When there is no Postgres and none can be installed, or it does not start; with the reason and what to do.
    pub fn start(durability: Durability) -> Cluster {
        let programs = Programs::find();
        let folder = tempfile::Builder::new()
            .prefix("patchbay-cluster-")
            .tempdir()
            .expect("a folder for the cluster");
        if let Some((user, group)) = programs.user {
            chown(folder.path(), Some(user), Some(group)).expect("the folder given away");
        }
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700))
            .expect("the folder closed");
        let cluster = Cluster {
            watcher: Watcher::start(folder.path()),
            port: AtomicU16::new(free_port()),
            programs,
            durability,
            server: Mutex::new(None),
            names: AtomicU32::new(0),
            folder,
        };
        cluster.make();
        // Somebody else may take a port between the moment it was found free and the start.
        let mut tries = 1;
        while let Err(said) = cluster.try_run() {
            assert!(
                tries < 5 && said.contains("could not bind"),
                "postgres does not start: {said}"
            );
            cluster.port.store(free_port(), Ordering::Relaxed);
            tries += 1;
        }
        cluster
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// A file in the cluster's folder, which its server can read.
    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, text).expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("a closed file");
        if let Some((user, group)) = self.programs.user {
            chown(&path, Some(user), Some(group)).expect("a file given away");
        }
        path
    }

    /// One of the programs of Postgres, such as `pgbench` or `pg_dump`, to be run as the cluster's user.
    pub fn program(&self, name: &str) -> Command {
        self.programs.command(name)
    }

    fn make(&self) {
        let mut command = self.programs.command("initdb");
        command
            .args(["--encoding=UTF8", "--locale=C.UTF-8", "--auth=trust"])
            .args(["--no-sync", "--username", USER, "--pgdata"])
            .arg(self.data());
        let output = command.output().expect("initdb runs");
        assert!(
            output.status.success(),
            "initdb failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        // The guarded user has a password, everybody else is let in.
        let hba = format!(
            "host all {GUARDED_USER} 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 trust\nlocal all all trust\n"
        );
        fs::write(self.data().join("pg_hba.conf"), hba).expect("who is let in");
        let common = "listen_addresses = '127.0.0.1'\nmax_connections = 300\nlogging_collector = off\n\
             log_min_messages = fatal\nautovacuum_naptime = 5s\n";
        let careless = match self.durability {
            Durability::Full => "shared_buffers = 128MB\n",
            Durability::None => {
                "fsync = off\nfull_page_writes = off\nsynchronous_commit = off\nshared_buffers = 32MB\n\
                 dynamic_shared_memory_type = mmap\n"
            }
        };
        let folder = self.folder.path().display();
        let own = format!("unix_socket_directories = '{folder}'\n{common}{careless}");
        self.configure(&own);
    }

    /// Adds lines to the cluster's settings; they hold from its next start or [`reload`](Cluster::reload) on.
    pub fn configure(&self, lines: &str) {
        let path = self.data().join("postgresql.conf");
        let mut text = fs::read_to_string(&path).expect("the settings");
        text.push('\n');
        text.push_str(lines);
        text.push('\n');
        fs::write(&path, text).expect("the settings");
    }

    /// Has the server read its settings again.
    pub fn reload(&self) {
        self.signal(Signal::HUP);
    }

    /// Starts the server, when it is not running, and waits until it answers.
    ///
    /// # Panics
    /// When it does not, with what it said.
    pub fn run(&self) {
        if let Err(said) = self.try_run() {
            panic!("postgres does not start: {said}");
        }
    }

    /// The same, or what it said.
    fn try_run(&self) -> Result<(), String> {
        let mut server = self.server.lock().unwrap_or_else(PoisonError::into_inner);
        if server.is_some() {
            return Ok(());
        }
        let log = fs::File::create(self.folder.path().join("log")).expect("a log");
        let mut command = self.programs.command("postgres");
        command
            .arg("-D")
            .arg(self.data())
            .args(["-p", &self.port().to_string()])
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log);
        let mut child = command.spawn().expect("postgres runs");
        let until = Instant::now() + PATIENCE;
        while !self.answers() {
            let ended = child.try_wait().expect("the state of postgres").is_some();
            if ended || Instant::now() > until {
                // One that hangs is ended with the cluster.
                *server = (!ended).then_some(child);
                let said = fs::read_to_string(self.folder.path().join("log"));
                return Err(said.unwrap_or_default());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        *server = Some(child);
        Ok(())
    }

    fn answers(&self) -> bool {
        let port = self.port().to_string();
        let mut command = self.programs.command("pg_isready");
        command.args(["--quiet", "--host=127.0.0.1", "--port", &port]);
        command.status().is_ok_and(|status| status.success())
    }

    /// Stops the server at once, as if its machine had failed, and waits until it is gone.
    pub fn stop(&self) {
        self.end(Signal::QUIT);
    }

    /// Stops the server as an operator would who does not wait for clients.
    pub fn stop_politely(&self) {
        self.end(Signal::INT);
    }

    fn end(&self, signal: Signal) {
        let mut server = self.server.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mut child) = server.take() {
            kill_process(Pid::from_child(&child), signal).expect("a signal");
            child.wait().expect("postgres ends");
        }
    }

    /// Stops the server at once, and starts it again.
    pub fn restart(&self) {
        self.stop();
        self.run();
    }

    /// Holds all processes of the server: connections stay, and nothing answers.
    pub fn pause(&self) {
        // The parent first, so that it makes no more children.
        for process in self.processes() {
            // One that has just ended needs no holding.
            let _gone = kill_process(process, Signal::STOP);
        }
    }

    /// Lets the processes of the server go on.
    pub fn resume(&self) {
        for process in self.processes() {
            let _gone = kill_process(process, Signal::CONT);
        }
    }

    fn signal(&self, signal: Signal) {
        let server = self.server.lock().unwrap_or_else(PoisonError::into_inner);
        let child = server.as_ref().expect("a running server");
        kill_process(Pid::from_child(child), signal).expect("a signal");
    }

    /// The server, and the processes that it has made.
    fn processes(&self) -> Vec<Pid> {
        let server = self.server.lock().unwrap_or_else(PoisonError::into_inner);
        let parent = Pid::from_child(server.as_ref().expect("a running server"));
        let mut found = vec![parent];
        for entry in fs::read_dir("/proc").expect("the processes").flatten() {
            let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
            // `pid (name) state parent …`, and a name may hold anything.
            let Some((_, rest)) = stat.rsplit_once(") ") else {
                continue;
            };
            let of = rest.split(' ').nth(1).and_then(|text| text.parse().ok());
            let own = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok());
            if of == Some(parent.as_raw_nonzero().get())
                && let Some(pid) = own.and_then(Pid::from_raw)
            {
                found.push(pid);
            }
        }
        found
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port.load(Ordering::Relaxed)
    }

    /// The URL of a database of the cluster.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://{USER}@127.0.0.1:{}/{database}", self.port())
    }

    /// A connection to a database of the cluster, for looking and breaking.
    pub async fn connect(&self, database: &str) -> Client {
        connect(&self.url(database)).await
    }

    /// Makes a fresh database, and gives its URL.
    pub async fn database(&self) -> String {
        let number = self.names.fetch_add(1, Ordering::Relaxed);
        let name = format!("test_{}_{number}", std::process::id());
        let client = self.connect("postgres").await;
        let create = format!("CREATE DATABASE {name} STRATEGY file_copy");
        let fallback = format!("CREATE DATABASE {name}");
        // The strategy is the fast one without fsync; before Postgres 15 it is the only one, and has no name.
        let version: String = client
            .query_one("SHOW server_version_num", &[])
            .await
            .expect("a version")
            .get(0);
        let modern = version
            .parse::<u32>()
            .is_ok_and(|version| version >= 150_000);
        client
            .batch_execute(if modern { &create } else { &fallback })
            .await
            .expect("a database");
        self.url(&name)
    }

    /// Makes the user that needs its password, who may use the database of this URL, and gives the URL for it.
    pub async fn guarded(&self, url: &str, password: &str) -> String {
        let client = connect(url).await;
        let make = format!(
            "DO $$ BEGIN CREATE ROLE {GUARDED_USER} LOGIN PASSWORD '{GUARDED_PASSWORD}'; \
             EXCEPTION WHEN duplicate_object THEN NULL; END $$; GRANT ALL ON SCHEMA public TO {GUARDED_USER}"
        );
        client.batch_execute(&make).await.expect("a user");
        let encoded = password.replace(' ', "%20");
        url.replace(
            &format!("//{USER}@"),
            &format!("//{GUARDED_USER}:{encoded}@"),
        )
    }

    /// Ends all connections to the database of this URL, as an administrator would. Gives how many.
    pub async fn kill_backends(&self, url: &str) -> i64 {
        let name = url.rsplit('/').next().unwrap_or_default();
        let name = name.split('?').next().unwrap_or_default();
        let client = self.connect("postgres").await;
        client
            .query_one(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                 WHERE datname = $1 AND pid <> pg_backend_pid()",
                &[&name],
            )
            .await
            .expect("the backends")
            .get(0)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.end(Signal::QUIT);
        self.watcher.dismiss();
    }
}

/// A connection to a database, for looking and breaking.
///
/// # Panics
/// When there is none.
pub async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls)
        .await
        .unwrap_or_else(|error| panic!("no connection to {url}: {error:?}"));
    // How it ends is seen by those who use it.
    tokio::spawn(async move { connection.await.is_ok() });
    client
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its address").port()
}

fn exists(path: &Path) -> bool {
    path.is_file()
}
