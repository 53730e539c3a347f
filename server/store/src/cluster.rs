//! The servers on one database, and the numbers of the plugin sets that they serve: the generations of the cluster.
//!
//! Each server loads its own folders, so that what two servers serve may differ. A server reports a digest of its set;
//! the same digest is the same generation. A set that was never served gets the next number. So does an older one that
//! the cluster goes back to: when a server goes from a newer set to it, or when nobody has served the newest for
//! [`GONE_AFTER`]. Any other server with an older set is behind. Numbers only grow, and the highest is the newest.
//!
//! All times are the database's, so that the servers' clocks do not matter. Nothing here touches what others keep, so
//! that no server wakes for it. A file has one server, which needs none of this and does not write it.

use sea_query::{Expr, ExprTrait, Func, Order, Query, Value};
use serde_json::Value as Json;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::Store;
use crate::engine::{Frame, View};
use crate::error::{Fault, StoreError};
use crate::session::{Dialect, Lock, Row, Session, Statement, json, place, text};
use crate::shared::Touched;
use crate::statements::{delete, insert, select, update};
use crate::time_text;

/// How long after its last word a server is forgotten, and with it that it serves a set.
pub const GONE_AFTER: std::time::Duration = std::time::Duration::from_secs(60);

/// How many generations of the cluster are remembered.
const REMEMBERED: i64 = 100;

const SERVER: &[&str] = &[
    "id",
    "name",
    "address",
    "version",
    "started_at",
    "heartbeat_at",
    "generation",
    "plugin_set",
    "plugins",
    "last_error",
];
const SET: &[&str] = &["number", "digest", "plugins", "first_at", "left_at"];

pub(crate) struct Statements {
    servers: Statement,
    server: Statement,
    add_server: Statement,
    change_server: Statement,
    remove_server: Statement,
    heartbeat: Statement,
    forget_servers: Statement,
    serving: Statement,
    sets: Statement,
    newest_set: Statement,
    number_of: Statement,
    add_set: Statement,
    leave_set: Statement,
    forget_sets: Statement,
}

impl Statements {
    pub(crate) fn new(dialect: Dialect) -> Statements {
        let mut servers = Query::select();
        servers
            .columns(SERVER.iter().copied())
            .from("servers")
            .order_by("started_at", Order::Asc)
            .order_by("id", Order::Asc);
        let mut sets = Query::select();
        sets.columns(SET.iter().copied()).from("plugin_sets");
        let mut newest = sets.clone();
        newest.order_by("number", Order::Desc).limit(1);
        sets.order_by("number", Order::Asc);
        let mut number_of = Query::select();
        number_of
            .expr(Func::max(Expr::col("number")))
            .from("plugin_sets")
            .and_where(Expr::col("digest").eq(place()));
        let mut forget_servers = Query::delete();
        forget_servers
            .from_table("servers")
            .and_where(Expr::col("heartbeat_at").lt(place()));
        let mut in_use = Query::select();
        in_use.column("plugin_set").from("servers");
        let mut forget_sets = Query::delete();
        forget_sets
            .from_table("plugin_sets")
            .and_where(Expr::col("number").lte(place()))
            .and_where(Expr::col("digest").not_in_subquery(in_use));
        let mut serving = Query::select();
        serving
            .column("id")
            .from("servers")
            .and_where(Expr::col("plugin_set").eq(place()))
            .and_where(Expr::col("id").ne(place()))
            .limit(1);
        Statements {
            servers: Statement::new(dialect, &servers),
            server: select(dialect, "servers", &["plugin_set"], &["id"]),
            add_server: insert(dialect, "servers", SERVER),
            change_server: update(dialect, "servers", &SERVER[1..], &["id"]),
            remove_server: delete(dialect, "servers", &["id"]),
            heartbeat: update(dialect, "servers", &["heartbeat_at"], &["id", "plugin_set"]),
            forget_servers: Statement::new(dialect, &forget_servers),
            serving: Statement::new(dialect, &serving),
            sets: Statement::new(dialect, &sets),
            newest_set: Statement::new(dialect, &newest),
            number_of: Statement::new(dialect, &number_of),
            add_set: insert(dialect, "plugin_sets", SET),
            leave_set: update(dialect, "plugin_sets", &["left_at"], &["digest"]),
            forget_sets: Statement::new(dialect, &forget_sets),
        }
    }
}

/// What a server says of itself.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerReport {
    /// Made anew at each start.
    pub id: Uuid,
    /// What operators call it.
    pub name: String,
    /// Where it listens.
    pub address: Option<String>,
    /// The Patchbay that it runs.
    pub version: String,
    /// When it started, by its own clock.
    pub started_at: OffsetDateTime,
    /// The number of the generation that it serves; each server counts for itself.
    pub generation: u64,
    /// The digest of what it serves.
    pub plugin_set: String,
    /// What it serves, and what fails.
    pub plugins: Json,
    /// What went wrong last.
    pub last_error: Option<Json>,
}

/// A server that has reported.
#[derive(Debug, Clone, PartialEq)]
pub struct RunningServer {
    /// What it said last.
    pub report: ServerReport,
    /// When it was last heard of.
    pub heartbeat_at: OffsetDateTime,
}

/// A set of plugins that was served: a generation of the cluster.
#[derive(Debug, Clone, PartialEq)]
pub struct PluginSet {
    /// Its number.
    pub number: u64,
    /// Its digest.
    pub digest: String,
    /// What the server that came to it first said of its plugins.
    pub plugins: Json,
    /// When that was.
    pub first_at: OffsetDateTime,
    /// When a server that stopped in good order served it last.
    left_at: Option<OffsetDateTime>,
}

/// The cluster at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct ClusterState {
    /// The moment, by the database's clock.
    pub now: OffsetDateTime,
    /// The servers, oldest first.
    pub servers: Vec<RunningServer>,
    /// The generations that are remembered, oldest first. A digest that came back stands more than once.
    pub sets: Vec<PluginSet>,
}

fn read_server(row: &Row) -> Result<RunningServer, Fault> {
    Ok(RunningServer {
        report: ServerReport {
            id: row.uuid(0)?,
            name: row.string(1)?,
            address: row.optional_text(2)?.map(str::to_owned),
            version: row.string(3)?,
            started_at: row.time(4)?,
            generation: row.integer(6)?.cast_unsigned(),
            plugin_set: row.string(7)?,
            plugins: row.json(8)?,
            last_error: row.optional_json(9)?,
        },
        heartbeat_at: row.time(5)?,
    })
}

fn read_set(row: &Row) -> Result<PluginSet, Fault> {
    Ok(PluginSet {
        number: row.integer(0)?.cast_unsigned(),
        digest: row.string(1)?,
        plugins: row.json(2)?,
        first_at: row.time(3)?,
        left_at: row.optional_time(4)?,
    })
}

/// The time of the database, as precisely as it is kept. It stands still in a transaction.
async fn now(session: &mut Session) -> Result<OffsetDateTime, Fault> {
    match session.dialect() {
        // The database is in this process.
        Dialect::Sqlite => Ok(time_text::now()),
        Dialect::Postgres => {
            let mut query = Query::select();
            query.expr(Expr::current_timestamp());
            let statement = Statement::new(Dialect::Postgres, &query);
            match session.query_one(&statement, Vec::new()).await? {
                Some(row) => row.time(0),
                None => Err(StoreError::Internal("a database without time".to_owned()).into()),
            }
        }
    }
}

/// Forgets servers that have said nothing for long. Whoever speaks next does it.
async fn forget(session: &mut Session, own: &Statements, now: OffsetDateTime) -> Result<(), Fault> {
    let limit = now - GONE_AFTER;
    session
        .execute(&own.forget_servers, vec![limit.into()])
        .await?;
    Ok(())
}

/// The names of the servers on a database.
pub(crate) async fn running(session: &mut Session) -> Result<Vec<String>, Fault> {
    let now = now(session).await?;
    let mut query = Query::select();
    query
        .column("name")
        .from("servers")
        .and_where(Expr::col("heartbeat_at").gte(place()));
    let statement = Statement::new(session.dialect(), &query);
    let limit = now - GONE_AFTER;
    let rows = session.query(&statement, vec![limit.into()]).await?;
    rows.iter().map(|row| row.string(0)).collect()
}

async fn newest_set(session: &mut Session, own: &Statements) -> Result<Option<PluginSet>, Fault> {
    let row = session
        .query_one(&own.newest_set, vec![1_i64.into()])
        .await?;
    row.as_ref().map(read_set).transpose()
}

async fn number_of(
    session: &mut Session,
    own: &Statements,
    digest: &str,
) -> Result<Option<i64>, Fault> {
    let row = session
        .query_one(&own.number_of, vec![text(digest)])
        .await?;
    row.map_or(Ok(None), |row| row.optional_integer(0))
}

/// Whether a set becomes the cluster's next generation, now that a server reports it.
async fn is_next(
    session: &mut Session,
    own: &Statements,
    report: &ServerReport,
    newest: Option<&PluginSet>,
    now: OffsetDateTime,
) -> Result<bool, Fault> {
    let Some(newest) = newest else {
        return Ok(true);
    };
    if newest.digest == report.plugin_set {
        return Ok(false);
    }
    let Some(number) = number_of(session, own, &report.plugin_set).await? else {
        return Ok(true);
    };
    // It served something newer, and has gone back.
    if let Some(row) = session
        .query_one(&own.server, vec![report.id.into()])
        .await?
        && let before = row.string(0)?
        && number_of(session, own, &before).await? > Some(number)
    {
        return Ok(true);
    }
    // Or the cluster has, one server after the other.
    let others = vec![text(&newest.digest), report.id.into(), 1_i64.into()];
    let served = session.query_one(&own.serving, others).await?.is_some();
    let awaited = |left: OffsetDateTime| left + GONE_AFTER > now;
    Ok(!served && !newest.left_at.is_some_and(awaited))
}

async fn add_set(
    session: &mut Session,
    own: &Statements,
    report: &ServerReport,
    number: i64,
    now: OffsetDateTime,
) -> Result<(), Fault> {
    let values = vec![
        number.into(),
        text(&report.plugin_set),
        json(report.plugins.clone()),
        now.into(),
        Value::TimeDateTimeWithTimeZone(None),
    ];
    session.execute(&own.add_set, values).await?;
    session
        .execute(&own.forget_sets, vec![(number - REMEMBERED).into()])
        .await?;
    Ok(())
}

impl Store {
    /// Whether other servers may be on the same database.
    pub fn is_shared(&self) -> bool {
        self.statements().dialect == Dialect::Postgres
    }

    /// Writes what a server says of itself, and numbers its set.
    ///
    /// # Errors
    /// Those of an unavailable database.
    pub async fn report_server(&self, report: &ServerReport) -> Result<(), StoreError> {
        let (statements, report) = (self.statements(), report.clone());
        let work = self.write(
            Frame::Group,
            |()| Touched::Nothing,
            move |session| {
                Box::pin(async move {
                    let own = &statements.cluster;
                    session.lock(Lock::Cluster).await?;
                    let now = now(session).await?;
                    forget(session, own, now).await?;
                    let newest = newest_set(session, own).await?;
                    if is_next(session, own, &report, newest.as_ref(), now).await? {
                        let number = newest.map_or(0, |newest| newest.number.cast_signed()) + 1;
                        add_set(session, own, &report, number, now).await?;
                    }
                    let mut values = vec![
                        report.id.into(),
                        text(&report.name),
                        Value::String(report.address),
                        text(&report.version),
                        report.started_at.into(),
                        now.into(),
                        report.generation.cast_signed().into(),
                        text(&report.plugin_set),
                        json(report.plugins),
                        Value::Json(report.last_error.map(Box::new)),
                    ];
                    // The key comes last in the update.
                    values.rotate_left(1);
                    if session.execute(&own.change_server, values.clone()).await? == 0 {
                        values.rotate_right(1);
                        session.execute(&own.add_server, values).await?;
                    }
                    Ok(())
                })
            },
        );
        work.await
    }

    /// Says that a server still runs and serves the same set. When this is false it has to report again: it was
    /// forgotten, or its set is not the newest, which may have become what the cluster goes back to.
    ///
    /// # Errors
    /// Those of an unavailable database.
    pub async fn heartbeat(&self, id: Uuid, plugin_set: &str) -> Result<bool, StoreError> {
        let (statements, plugin_set) = (self.statements(), plugin_set.to_owned());
        let work = self.write(
            Frame::Group,
            |_| Touched::Nothing,
            move |session| {
                Box::pin(async move {
                    let own = &statements.cluster;
                    let now = now(session).await?;
                    let values = vec![now.into(), id.into(), text(&plugin_set)];
                    let known = session.execute(&own.heartbeat, values).await? > 0;
                    forget(session, own, now).await?;
                    let newest = newest_set(session, own).await?;
                    Ok(known && newest.is_some_and(|newest| newest.digest == plugin_set))
                })
            },
        );
        work.await
    }

    /// Takes a server that stops off the list.
    ///
    /// # Errors
    /// Those of an unavailable database.
    pub async fn remove_server(&self, id: Uuid, plugin_set: &str) -> Result<(), StoreError> {
        let (statements, plugin_set) = (self.statements(), plugin_set.to_owned());
        let work = self.write(
            Frame::Group,
            |()| Touched::Nothing,
            move |session| {
                Box::pin(async move {
                    let own = &statements.cluster;
                    let now = now(session).await?;
                    session.execute(&own.remove_server, vec![id.into()]).await?;
                    let values = vec![now.into(), text(&plugin_set)];
                    session.execute(&own.leave_set, values).await?;
                    Ok(())
                })
            },
        );
        work.await
    }

    /// The servers and the generations of the cluster.
    ///
    /// # Errors
    /// Those of an unavailable database.
    pub async fn cluster(&self) -> Result<ClusterState, StoreError> {
        let statements = self.statements();
        self.read(View::State, move |session| {
            Box::pin(async move {
                let own = &statements.cluster;
                let now = now(session).await?;
                let servers = session.query(&own.servers, Vec::new()).await?;
                let sets = session.query(&own.sets, Vec::new()).await?;
                Ok(ClusterState {
                    now,
                    servers: servers.iter().map(read_server).collect::<Result<_, _>>()?,
                    sets: sets.iter().map(read_set).collect::<Result<_, _>>()?,
                })
            })
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{DatabaseUrl, StoreSettings};

    /// Runs on both databases, though only servers on Postgres have others to tell.
    fn on_both(test: impl AsyncFn(Store)) {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(async {
            let folder = tempfile::tempdir().expect("a folder");
            let url = patchbay_test_cluster::Cluster::shared().database().await;
            for url in [
                DatabaseUrl::Sqlite(folder.path().join("patchbay.db")),
                DatabaseUrl::Postgres(url),
            ] {
                let store = Store::open(StoreSettings::new(url)).await.expect("a store");
                test(store.clone()).await;
                store.close().await;
            }
        });
    }

    fn report(id: Uuid, plugin_set: &str) -> ServerReport {
        ServerReport {
            id,
            name: "a server".to_owned(),
            address: None,
            version: "0.1.0".to_owned(),
            started_at: time_text::now(),
            generation: 3,
            plugin_set: plugin_set.to_owned(),
            plugins: json!([{"plugin": plugin_set}]),
            last_error: None,
        }
    }

    /// The numbers of the sets that have come, each with its digest.
    async fn sets(store: &Store) -> Vec<(u64, String)> {
        let state = store.cluster().await.expect("the cluster");
        state
            .sets
            .into_iter()
            .map(|set| (set.number, set.digest))
            .collect()
    }

    fn numbered(sets: &[&str]) -> Vec<(u64, String)> {
        let one = |(place, digest): (usize, &&str)| (place as u64 + 1, (*digest).to_owned());
        sets.iter().enumerate().map(one).collect()
    }

    #[test]
    fn a_report_is_read_back_and_wakes_nobody() {
        on_both(async |store| {
            let changes = store.changes();
            let (moved, before) = (store.row_counter("x"), store.catalogue_version());
            let told = ServerReport {
                address: Some("127.0.0.1:1".to_owned()),
                last_error: Some(json!({"message": "m"})),
                ..report(Uuid::new_v4(), "a")
            };
            store.report_server(&told).await.expect("a report");
            store.report_server(&told).await.expect("the same again");
            assert!(store.heartbeat(told.id, "a").await.expect("a beat"));
            let state = store.cluster().await.expect("the cluster");
            assert_eq!(state.servers.len(), 1);
            assert_eq!(state.servers[0].report, told);
            assert!(state.now >= state.servers[0].heartbeat_at);
            assert_eq!(state.sets[0].plugins, told.plugins);
            store.remove_server(told.id, "a").await.expect("an end");
            let state = store.cluster().await.expect("the cluster");
            assert_eq!(state.servers, []);
            assert!(!changes.has_changed().expect("a store"));
            assert_eq!(
                (store.row_counter("x"), store.catalogue_version()),
                (moved, before)
            );
        });
    }

    #[test]
    fn a_set_has_one_number_until_the_cluster_goes_back_to_it() {
        on_both(async |store| {
            let (one, two) = (Uuid::new_v4(), Uuid::new_v4());
            for (id, digest) in [(one, "a"), (two, "a"), (one, "b"), (two, "b")] {
                store
                    .report_server(&report(id, digest))
                    .await
                    .expect("a report");
            }
            assert_eq!(sets(&store).await, numbered(&["a", "b"]));
            // Who starts with an older set is behind, as long as the newest is served.
            let three = Uuid::new_v4();
            store
                .report_server(&report(three, "a"))
                .await
                .expect("a report");
            assert!(!store.heartbeat(three, "a").await.expect("a beat"));
            assert_eq!(sets(&store).await, numbered(&["a", "b"]));
            // Who leaves a newer set for an older one has gone back.
            store
                .report_server(&report(one, "a"))
                .await
                .expect("a report");
            assert_eq!(sets(&store).await, numbered(&["a", "b", "a"]));
            assert!(store.heartbeat(three, "a").await.expect("a beat"));
            store
                .report_server(&report(two, "a"))
                .await
                .expect("a report");
            assert_eq!(sets(&store).await, numbered(&["a", "b", "a"]));
        });
    }

    #[test]
    fn many_servers_at_once_give_one_set_one_number() {
        on_both(async |store| {
            let reports = (0..16).map(|number| {
                let store = store.clone();
                let report = report(Uuid::new_v4(), ["a", "b"][number % 2]);
                tokio::spawn(async move { store.report_server(&report).await })
            });
            for done in futures_util::future::join_all(reports).await {
                done.expect("a task").expect("a report");
            }
            assert_eq!(sets(&store).await.len(), 2);
        });
    }

    #[test]
    fn sets_that_nobody_serves_are_forgotten_in_the_end() {
        on_both(async |store| {
            let (stays, moves) = (Uuid::new_v4(), Uuid::new_v4());
            store
                .report_server(&report(stays, "first"))
                .await
                .expect("a report");
            for number in 0..REMEMBERED + 5 {
                let report = report(moves, &number.to_string());
                store.report_server(&report).await.expect("a report");
            }
            let sets = sets(&store).await;
            assert_eq!(sets.len() as i64, REMEMBERED + 1, "{sets:?}");
            assert_eq!(sets[0], (1, "first".to_owned()), "somebody serves it");
        });
    }
}
