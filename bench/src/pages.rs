//! A page of configurations among a million, against a page among a thousand, on both databases. The rows are loaded in
//! bulk, as copies of one that a server made.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use tokio::runtime::Runtime;

use crate::Plan;
use crate::create::template;
use crate::load::{Outcome, Until, closed_loop};
use crate::report::{Report, median, millis};
use crate::server::Running;
use crate::shared::{cluster, execute, serve};
use crate::wire::{Connection, get};

const FEW: u64 = 1_000;
const MANY: u64 = 1_000_000;
const TARGET: f64 = 1.5;
/// Every data product has as many, so that a page of one is full on both sides.
const IN_PRODUCT: u64 = 100;

pub(crate) fn run(plan: &Plan, runtime: &Runtime, report: &mut Report) -> Result<()> {
    eprintln!("pages");
    let folder = tempfile::tempdir()?;
    let on_file = |name: &str, rows: u64| -> Result<Running> {
        let folder = folder.path().join(name);
        std::fs::create_dir_all(&folder)?;
        let server = plan.program.serve(&folder, &[])?;
        let (_, id) = template(runtime, server.address)?;
        server.stop()?;
        let database = rusqlite::Connection::open(folder.join("data/patchbay.db"))?;
        let columns = database
            .prepare(&format!("SELECT * FROM {TABLE} LIMIT 0"))?
            .column_names()
            .into_iter()
            .map(str::to_owned)
            .collect::<Vec<_>>();
        database.execute_batch(&fill(&Sqlite, TABLE, &id, rows, &columns))?;
        drop(database);
        plan.program.serve(&folder, &[])
    };
    let (few, many) = (on_file("few", FEW)?, on_file("many", MANY)?);
    compare(plan, runtime, report, "SQLite", &few, &many)?;
    few.stop()?;
    many.stop()?;

    let cluster = cluster();
    let on_postgres = |name: &str, rows: u64| -> Result<Running> {
        let url = runtime.block_on(cluster.database());
        let server = serve(plan, &folder.path().join(name), &url)?;
        let (_, id) = template(runtime, server.address)?;
        let columns = crate::shared::texts(
            runtime,
            &url,
            &format!(
                "SELECT column_name::text FROM information_schema.columns WHERE table_name = '{TABLE}'"
            ),
        )?;
        execute(runtime, &url, &fill(&Postgres, TABLE, &id, rows, &columns))?;
        // Postgres does both by itself in time.
        execute(runtime, &url, "VACUUM ANALYZE")?;
        Ok(server)
    };
    let (few, many) = (on_postgres("p-few", FEW)?, on_postgres("p-many", MANY)?);
    compare(plan, runtime, report, "Postgres", &few, &many)?;
    few.stop()?;
    many.stop()
}

pub(crate) const TABLE: &str = "snowflake_data_output_configurations";

/// How the databases write what a bulk load needs.
pub(crate) trait Words {
    /// An id from an expression that is a number.
    fn id(&self, kind: char, number: &str) -> String;
    /// The numbers from 1, as rows of `n (i)`.
    fn numbers(&self, count: u64) -> String;
    /// A time from an expression in seconds.
    fn time(&self, seconds: &str) -> String;
}

pub(crate) struct Sqlite;
pub(crate) struct Postgres;

impl Words for Sqlite {
    fn id(&self, kind: char, number: &str) -> String {
        format!("printf('00000000-0000-{kind}000-8000-%012d', {number})")
    }

    fn numbers(&self, count: u64) -> String {
        format!(
            "(WITH RECURSIVE n (i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < {count}) SELECT i FROM n) AS n"
        )
    }

    fn time(&self, seconds: &str) -> String {
        format!("strftime('%Y-%m-%dT%H:%M:%S', {seconds}, 'unixepoch') || '.000000Z'")
    }
}

impl Words for Postgres {
    fn id(&self, kind: char, number: &str) -> String {
        format!("('00000000-0000-{kind}000-8000-' || lpad(({number})::text, 12, '0'))::uuid")
    }

    fn numbers(&self, count: u64) -> String {
        format!("generate_series(1, {count}) AS n (i)")
    }

    fn time(&self, seconds: &str) -> String {
        format!("to_timestamp({seconds})")
    }
}

/// The statements that copy a configuration so often, with its plugin's row, among as many data products as they need.
pub(crate) fn fill(
    words: &dyn Words,
    table: &str,
    id: &str,
    rows: u64,
    columns: &[String],
) -> String {
    let products = rows / IN_PRODUCT;
    let numbers = words.numbers(rows);
    let (own, product) = (
        words.id('7', "n.i"),
        words.id('4', &format!("1 + n.i % {products}")),
    );
    let time = words.time("1700000000 + n.i");
    let others: Vec<String> = columns
        .iter()
        .filter(|column| *column != "id")
        .map(|column| format!("\"{column}\""))
        .collect();
    let others = others.join(", ");
    format!(
        "BEGIN; \
         INSERT INTO data_products (id, name, namespace, domain) SELECT {}, 'product ' || n.i, 'p' || n.i, 'd' FROM {}; \
         INSERT INTO data_output_configurations (id, configuration_type, plugin_version, name, folded_name, description, \
         data_product_id, technical_mapping, platform_id, service_id, revision, created_at, updated_at) \
         SELECT {own}, t.configuration_type, t.plugin_version, 'row ' || n.i, 'row ' || n.i, t.description, {product}, \
         t.technical_mapping, t.platform_id, t.service_id, 1, {time}, {time} \
         FROM {numbers} CROSS JOIN (SELECT * FROM data_output_configurations WHERE id = '{id}') AS t; \
         INSERT INTO {table} (id, {others}) SELECT {own}, {others} \
         FROM {numbers} CROSS JOIN (SELECT * FROM {table} WHERE id = '{id}') AS t; COMMIT;",
        words.id('4', "n.i"),
        words.numbers(products),
    )
}

fn compare(
    plan: &Plan,
    runtime: &Runtime,
    report: &mut Report,
    database: &str,
    few: &Running,
    many: &Running,
) -> Result<()> {
    for what in ["newest", "next page", "of a plugin", "of a data product"] {
        let few_path = path(runtime, few.address, what)?;
        let many_path = path(runtime, many.address, what)?;
        let measure = |address, path: &str| measure(plan, runtime, address, path);
        measure(few.address, &few_path)?;
        measure(many.address, &many_path)?;
        let (mut ratios, mut small, mut large) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..plan.rounds {
            let (a, b) = if round % 2 == 0 {
                let a = measure(few.address, &few_path)?;
                (a, measure(many.address, &many_path)?)
            } else {
                let b = measure(many.address, &many_path)?;
                (measure(few.address, &few_path)?, b)
            };
            ratios.push(a.rate / b.rate);
            small.push(millis(a.p50));
            large.push(millis(b.p50));
        }
        report.times(
            format!("a page of configurations ({what}) among {MANY} on {database}, against {FEW}"),
            median(ratios),
            TARGET,
        );
        report.note(
            "  p50 among them",
            format!("{:.2} ms, {:.2} ms", median(large), median(small)),
        );
    }
    Ok(())
}

/// The path of a page, 50 configurations long.
fn path(runtime: &Runtime, address: SocketAddr, what: &str) -> Result<String> {
    let list = "/api/v2/configurations?limit=50";
    let product = format!("{list}&data_product_id=00000000-0000-4000-8000-000000000007");
    runtime.block_on(async {
        let mut connection = Connection::open(address).await?;
        let path = match what {
            "of a plugin" => format!("{list}&plugin=SnowflakeDataOutput"),
            "of a data product" => product,
            "next page" => {
                let page = connection.json(&get(list)).await?;
                let cursor = page["next_cursor"].as_str().context("no cursor")?;
                format!("{list}&cursor={cursor}")
            }
            _ => list.to_owned(),
        };
        let page = connection.json(&get(&path)).await?;
        let found = page["configurations"].as_array().map_or(0, Vec::len);
        ensure!(found == 50, "{path} has {found} configurations");
        Ok(path)
    })
}

fn measure(plan: &Plan, runtime: &Runtime, address: SocketAddr, path: &str) -> Result<Outcome> {
    let request = get(path);
    let outcome = runtime.block_on(closed_loop(
        address,
        4,
        Until::Over(plan.slice),
        200,
        &mut |_| {
            let request = request.clone();
            Box::new(move |buffer| buffer.extend_from_slice(&request))
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
