//! Callers that write until they are stopped, and whether everything that they were told is true.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::harness::{Answer, Database, Folder, Http, eventually};
use crate::world::unavailable;

/// Callers that create, change and delete configurations.
pub(crate) struct Writers {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicUsize>,
    tasks: Vec<JoinHandle<Vec<Written>>>,
}

/// What is known of one configuration.
#[derive(Debug)]
pub(crate) struct Written {
    id: String,
    /// The last revision that was acknowledged.
    revision: i64,
    /// Whether that was its end.
    deleted: bool,
    /// Whether one more write was sent that was not acknowledged. It may have happened.
    in_doubt: bool,
}

/// What callers write about.
#[derive(Clone)]
pub(crate) struct Subject {
    pub(crate) plugin: &'static str,
    pub(crate) product: String,
    pub(crate) values: Value,
}

impl Writers {
    /// Starts two callers of each server. Names begin with `prefix`, because they are unique in a data product.
    pub(crate) fn start(servers: &[&Http], subject: &Subject, prefix: &str) -> Writers {
        let (stop, acknowledged) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let mut tasks = Vec::new();
        for (server, http) in servers.iter().enumerate() {
            for caller in 0..2 {
                let mut caller = Caller {
                    http: (*http).clone(),
                    subject: subject.clone(),
                    prefix: format!("{prefix} {server}.{caller}"),
                    stop: Arc::clone(&stop),
                    acknowledged: Arc::clone(&acknowledged),
                    kept: Vec::new(),
                };
                tasks.push(tokio::spawn(async move {
                    caller.write().await;
                    caller.kept
                }));
            }
        }
        Writers {
            stop,
            acknowledged,
            tasks,
        }
    }

    /// Waits until so many more writes were acknowledged.
    pub(crate) async fn go_on(&self, count: usize) {
        let until = self.acknowledged.load(Ordering::Relaxed) + count;
        eventually("writes are acknowledged", async || {
            let now = self.acknowledged.load(Ordering::Relaxed);
            (now >= until).then_some(()).ok_or(format!("{now}"))
        })
        .await;
    }

    /// Ends them, and gives what they know.
    pub(crate) async fn stop(self) -> Vec<Written> {
        self.stop.store(true, Ordering::Relaxed);
        let mut kept = Vec::new();
        for task in self.tasks {
            kept.extend(task.await.expect("a caller was told nothing wrong"));
        }
        kept
    }
}

struct Caller {
    http: Http,
    subject: Subject,
    prefix: String,
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicUsize>,
    kept: Vec<Written>,
}

impl Caller {
    /// Writes until it is told to stop, or its server is gone.
    async fn write(&mut self) {
        let create = format!("plugins/{}/configurations", self.subject.plugin);
        for number in 0.. {
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            let body = json!({
                "data_product_id": self.subject.product, "name": format!("{} {number}", self.prefix),
                "configuration": self.subject.values,
            });
            let Some(answer) = self.send(Method::POST, &create, &body).await else {
                return;
            };
            if answer.status == 503 {
                unavailable(answer);
                continue;
            }
            let created = answer.is(201).json();
            self.acknowledged.fetch_add(1, Ordering::Relaxed);
            let id = created["id"].as_str().expect("an id").to_owned();
            let path = format!("configurations/{id}");
            self.kept.push(Written {
                id,
                revision: 1,
                deleted: false,
                in_doubt: false,
            });
            // Some are changed, and some of those deleted.
            for method in [Method::PATCH, Method::DELETE].into_iter().take(number % 3) {
                let body = json!({ "description": number.to_string() });
                let answer = self.send(method.clone(), &path, &body).await;
                let written = self.kept.last_mut().expect("the one that was created");
                match answer {
                    None => {
                        written.in_doubt = true;
                        return;
                    }
                    Some(answer) if answer.status == 503 => {
                        unavailable(answer);
                        written.in_doubt = true;
                        break;
                    }
                    Some(answer) => {
                        written.deleted = method == Method::DELETE;
                        answer.is(if written.deleted { 204 } else { 200 });
                        written.revision += 1;
                        self.acknowledged.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
        }
    }

    /// The answer; none when the server is gone.
    async fn send(&self, method: Method, path: &str, body: &Value) -> Option<Answer> {
        let sent = self
            .http
            .try_send(method, path, |request| request.json(body));
        sent.await.ok()
    }
}

/// Asserts that every acknowledged write is there with its history, and nothing by halves: of the rows of this table,
/// none lacks its base row or its revisions, and none is left of what was deleted.
pub(crate) async fn nothing_is_lost(
    database: Database,
    folder: &Folder,
    table: &str,
    kept: &[Written],
) {
    // Of each configuration its last revision, how many there are, that of its row, and whether the plugin's row is there.
    let sql = format!(
        "SELECT CAST(r.configuration_id AS text) || ' ' || max(r.revision) || ' ' || count(*) || ' ' || \
         coalesce(max(b.revision), 0) || ' ' || max(CASE WHEN o.id IS NULL THEN 0 ELSE 1 END) || ' ' || \
         max(CASE WHEN r.action = 'delete' THEN 1 ELSE 0 END) \
         FROM configuration_revisions r LEFT JOIN data_output_configurations b ON b.id = r.configuration_id \
         LEFT JOIN {table} o ON o.id = r.configuration_id GROUP BY r.configuration_id"
    );
    let mut last = HashMap::new();
    for line in database.texts(folder, &sql).await {
        let (id, numbers) = line.split_once(' ').expect("an id and numbers");
        let numbers: Vec<i64> = numbers
            .split(' ')
            .map(|number| number.parse().expect("a number"))
            .collect();
        let [revision, count, base, own, deleted] = numbers[..] else {
            panic!("{line}")
        };
        assert_eq!(revision, count, "a history has no holes: {line}");
        let (row, has_own) = if deleted == 1 { (0, 0) } else { (revision, 1) };
        assert_eq!((base, own), (row, has_own), "a write is whole: {line}");
        last.insert(id.to_owned(), (revision, deleted == 1));
    }
    for (what, from, column, with) in [
        ("base row", table, "id", "data_output_configurations"),
        (
            "revision",
            "data_output_configurations",
            "configuration_id",
            "configuration_revisions",
        ),
    ] {
        let sql =
            format!("SELECT count(*) FROM {from} WHERE id NOT IN (SELECT {column} FROM {with})");
        let without = database.number(folder, &sql).await;
        assert_eq!(without, 0, "rows without a {what}");
    }
    for written in kept {
        let Some((revision, deleted)) = last.get(&written.id) else {
            panic!("lost: {written:?}")
        };
        let most = written.revision + i64::from(written.in_doubt);
        assert!(
            (written.revision..=most).contains(revision),
            "at revision {revision}: {written:?}"
        );
        if *revision == written.revision {
            assert_eq!(*deleted, written.deleted, "{written:?}");
        }
    }
}
