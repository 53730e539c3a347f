//! The cluster itself: it does as it is told, and it ends with the process that started it.
#![allow(clippy::print_stdout, reason = "one process tells the other")]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use patchbay_test_cluster::{Cluster, Durability};

/// Says which cluster it has started, and waits to be killed.
const CHILD: &str = "PATCHBAY_TEST_CLUSTER_CHILD";

fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(work)
}

/// Waits until something holds, and fails when it does not within half a minute.
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < until, "never came true: {what}");
        std::thread::yield_now();
    }
}

#[test]
fn databases_are_fresh_and_the_server_stops_and_starts() {
    let cluster = Cluster::start(Durability::None);
    block_on(async {
        let (one, two) = (cluster.database().await, cluster.database().await);
        assert_ne!(one, two);
        let client = patchbay_test_cluster::connect(&one).await;
        client
            .batch_execute("SET synchronous_commit = on; CREATE TABLE t ()")
            .await
            .expect("a table");
        assert_eq!(cluster.kill_backends(&one).await, 1);
        // What it is asked next finds that out.
        client
            .batch_execute("SELECT 1")
            .await
            .expect_err("the connection is killed");
        cluster.restart();
        let client = patchbay_test_cluster::connect(&one).await;
        client
            .batch_execute("SELECT * FROM t")
            .await
            .expect("the table is still there");
    });
}

#[test]
fn a_cluster_ends_with_the_process_that_started_it() {
    if std::env::var_os(CHILD).is_some() {
        let cluster = Cluster::start(Durability::None);
        let data = cluster.file("mark", "");
        println!("cluster {} {}", cluster.port(), data.display());
        loop {
            std::thread::park();
        }
    }
    let mut child = Command::new(std::env::current_exe().expect("a path"))
        .args([
            "--exact",
            "a_cluster_ends_with_the_process_that_started_it",
            "--nocapture",
        ])
        .env(CHILD, "1")
        .stdout(Stdio::piped())
        .spawn()
        .expect("a process");
    let said = BufReader::new(child.stdout.take().expect("its output"));
    let line = said
        .lines()
        .map_while(Result::ok)
        .find_map(|line| line.split_once("cluster ").map(|(_, rest)| rest.to_owned()))
        .expect("a cluster");
    let (port, mark) = line.split_once(' ').expect("its port and folder");
    let answers = || std::net::TcpStream::connect(format!("127.0.0.1:{port}")).is_ok();
    let folder = Path::new(mark).parent().expect("a folder").to_owned();
    assert!(answers() && folder.exists());
    child.kill().expect("killed");
    child.wait().expect("ended");
    eventually("the server is gone", || !answers());
    eventually("its folder is gone", || !folder.exists());
}
