//! Creating configurations, hooks and all, against a plain loop that inserts the same rows with the same durability.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rusqlite::types::Value as Cell;
use rusqlite::{Connection as Database, TransactionBehavior, params_from_iter};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::macros::format_description;
use tokio::runtime::Runtime;
use uuid::Uuid;

use crate::Plan;
use crate::load::{Outcome, Requests, Until, closed_loop};
use crate::report::{Report, median, millis};
use crate::wire::{Connection, get, post};

pub(crate) const CONNECTIONS: usize = 16;
const TARGET: f64 = 0.5;
pub(crate) const PATH: &str = "/api/v2/plugins/SnowflakeDataOutput/configurations";

/// The rows that creating one configuration writes, and the column by which they are found.
pub(crate) const ROWS: &[(&str, &str)] = &[
    ("data_output_configurations", "id"),
    ("snowflake_data_output_configurations", "id"),
    ("configuration_revisions", "configuration_id"),
];

pub(crate) fn run(plan: &Plan, runtime: &Runtime, report: &mut Report) -> Result<()> {
    eprintln!("create");
    let folder = tempfile::tempdir()?;
    let server = plan.program.serve(folder.path(), &[])?;
    let (body, id) = template(runtime, server.address)?;
    let baseline = folder.path().join("baseline.db");
    let mut plain = Plain::copy(&folder.path().join("data/patchbay.db"), &baseline, &id)?;

    let mut load = 0_u64;
    let mut measure = || {
        load += 1;
        creates(plan, runtime, server.address, &body, load)
    };
    // Not counted: the first writes grow files and fill caches.
    measure()?;
    plain.measure(plan.slice)?;
    let mut ratios = Vec::new();
    let mut ours = Vec::new();
    let mut theirs = Vec::new();
    for round in 0..plan.rounds {
        let (our, their) = if round % 2 == 0 {
            let our = measure()?;
            (our, plain.measure(plan.slice)?)
        } else {
            let their = plain.measure(plan.slice)?;
            (measure()?, their)
        };
        ratios.push(our.rate / their);
        ours.push(our);
        theirs.push(their);
    }
    report.ratio(
        format!("POST …/configurations, {CONNECTIONS} connections, against plain inserts"),
        median(ratios),
        TARGET,
    );
    let of = |what: fn(&Outcome) -> f64| median(ours.iter().map(what).collect());
    report.note(
        "  the server",
        format!(
            "{:.0}/s, p50 {:.2} ms, p99 {:.2} ms",
            of(|outcome| outcome.rate),
            of(|outcome| millis(outcome.p50)),
            of(|outcome| millis(outcome.p99))
        ),
    );
    report.note("  plain inserts", format!("{:.0}/s", median(theirs)));
    report.note(
        "  resident memory after it",
        format!("{:.1} MiB", server.memory()?),
    );
    server.stop()
}

/// Has a server make one configuration. Gives the body by which others are made, and its id.
pub(crate) fn template(runtime: &Runtime, address: SocketAddr) -> Result<(String, String)> {
    runtime.block_on(async {
        let mut connection = Connection::open(address).await?;
        let body = body(&mut connection).await?;
        let created = connection
            .json(&post(PATH, &named(&body, "template of the baseline")))
            .await?;
        let id = created["id"].as_str().context("no id")?.to_owned();
        anyhow::Ok((body, id))
    })
}

/// Loads a server with creates. `load` tells the names of one load from those of another.
pub(crate) fn creates(
    plan: &Plan,
    runtime: &Runtime,
    address: SocketAddr,
    body: &str,
    load: u64,
) -> Result<Outcome> {
    let outcome = runtime.block_on(closed_loop(
        address,
        CONNECTIONS,
        Until::Over(plan.slice),
        201,
        &mut |connection| -> Requests {
            let body = body.to_owned();
            let mut place = 0_u64;
            Box::new(move |buffer| {
                place += 1;
                let name = format!("configuration {load}-{connection}-{place}");
                buffer.extend_from_slice(&post(PATH, &named(&body, &name)));
            })
        },
    ))?;
    ensure!(
        outcome.failed == 0,
        "{} requests failed, the first with {}",
        outcome.failed,
        outcome.failure.unwrap_or_default()
    );
    Ok(outcome)
}

/// Creates a data product, and gives the body of a configuration for it, with a place for its name.
async fn body(connection: &mut Connection) -> Result<String> {
    let product = json!({"name": "Sales", "namespace": "sales", "domain": "commerce"});
    let product = connection
        .json(&post("/api/v2/data_products", &product.to_string()))
        .await?;
    let platforms = connection
        .json(&get("/api/v2/configuration/platforms"))
        .await?;
    let platform = id_of(&platforms["platforms"], "Snowflake")?;
    let path = format!("/api/v2/configuration/platforms/{platform}/services");
    let services = connection.json(&get(&path)).await?;
    let service = id_of(&services["platform_services"], "Snowflake")?;
    let body = json!({
        "data_product_id": product["id"],
        "name": "NAME",
        "description": "Orders of the last day",
        "platform_id": platform,
        "service_id": service,
        "configuration": {
            "database": "sales_dwh",
            "schema": "orders",
            "table": "order_lines",
            "access_granularity": "table",
        },
    });
    Ok(body.to_string())
}

pub(crate) fn named(body: &str, name: &str) -> String {
    body.replace("NAME", name)
}

fn id_of<'a>(list: &'a Value, name: &str) -> Result<&'a str> {
    list.as_array()
        .into_iter()
        .flatten()
        .find(|item| item["name"] == name)
        .and_then(|item| item["id"].as_str())
        .with_context(|| format!("the catalogue lacks {name}"))
}

/// The baseline: the rows that the server wrote for one configuration, inserted again and again under new ids and names,
/// into a copy of its database (so with its tables and indexes), one transaction each.
struct Plain {
    database: Database,
    inserts: Vec<Insert>,
    id: String,
    name: String,
    created_at: String,
    number: u64,
}

struct Insert {
    sql: String,
    row: Vec<Cell>,
}

impl Plain {
    fn copy(served: &Path, file: &Path, id: &str) -> Result<Plain> {
        let source = Database::open(served)?;
        source.execute("VACUUM INTO ?1", [file.to_string_lossy()])?;
        drop(source);
        let database = Database::open(file)?;
        database.pragma_update(None, "journal_mode", "WAL")?;
        database.pragma_update(None, "synchronous", "NORMAL")?;
        database.pragma_update(None, "foreign_keys", "ON")?;
        let inserts = ROWS
            .iter()
            .map(|(table, key)| Insert::of(&database, table, key, id))
            .collect::<Result<_>>()?;
        let (name, created_at) = database.query_row(
            "SELECT name, created_at FROM data_output_configurations WHERE id = ?1",
            [id],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?;
        Ok(Plain {
            database,
            inserts,
            id: id.to_owned(),
            name,
            created_at,
            number: 0,
        })
    }

    /// Inserts for a time. Gives the transactions a second.
    fn measure(&mut self, time: Duration) -> Result<f64> {
        let began = Instant::now();
        let before = self.number;
        while began.elapsed() < time {
            self.insert()?;
        }
        Ok((self.number - before) as f64 / began.elapsed().as_secs_f64())
    }

    fn insert(&mut self) -> Result<()> {
        self.number += 1;
        let id = match Uuid::try_parse(&self.id)?.get_version_num() {
            7 => Uuid::now_v7(),
            _ => Uuid::new_v4(),
        }
        .to_string();
        let name = format!("configuration {}", self.number);
        let now = OffsetDateTime::now_utc().format(format_description!(
            "[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z"
        ))?;
        let transaction = self
            .database
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        for insert in &self.inserts {
            let row = insert.row.iter().map(|cell| match cell {
                Cell::Text(text) => Cell::Text(
                    text.replace(&self.id, &id)
                        .replace(&self.name, &name)
                        .replace(&self.created_at, &now),
                ),
                other => other.clone(),
            });
            transaction
                .prepare_cached(&insert.sql)?
                .execute(params_from_iter(row))?;
        }
        transaction.commit()?;
        Ok(())
    }
}

impl Insert {
    fn of(database: &Database, table: &str, key: &str, id: &str) -> Result<Insert> {
        let mut select = database.prepare(&format!("SELECT * FROM {table} WHERE {key} = ?1"))?;
        let columns: Vec<String> = select
            .column_names()
            .iter()
            .map(|name| format!("\"{name}\""))
            .collect();
        let row = select
            .query_row([id], |row| {
                (0..columns.len())
                    .map(|place| row.get(place))
                    .collect::<rusqlite::Result<Vec<Cell>>>()
            })
            .with_context(|| format!("{table} has no row of the configuration"))?;
        let places = vec!["?"; columns.len()].join(", ");
        Ok(Insert {
            sql: format!(
                "INSERT INTO {table} ({}) VALUES ({places})",
                columns.join(", ")
            ),
            row,
        })
    }
}
