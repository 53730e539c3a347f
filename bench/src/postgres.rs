//! Creating configurations on Postgres against pgbench that runs the same statements, and forms on Postgres against
//! forms on SQLite.

use anyhow::{Context, Result, ensure};
use patchbay_test_cluster::Cluster;
use tokio::runtime::Runtime;

use crate::Plan;
use crate::create::{CONNECTIONS, ROWS, creates, template};
use crate::lists::measure_get;
use crate::report::{Report, median, millis};
use crate::shared::{cluster, execute, serve, texts};

const TARGET: f64 = 0.6;
/// Kept answers come from memory, whatever the database; what is left is the noise of the machine.
const FORM_TARGET: f64 = 0.95;
const FORM: &str = "/api/v2/plugins/SnowflakeDataOutput/form";

pub(crate) fn run(plan: &Plan, runtime: &Runtime, report: &mut Report) -> Result<()> {
    eprintln!("postgres");
    let cluster = cluster();
    forms(plan, runtime, report, &cluster)?;
    creates_against_pgbench(plan, runtime, report, &cluster)
}

fn forms(plan: &Plan, runtime: &Runtime, report: &mut Report, cluster: &Cluster) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let url = runtime.block_on(cluster.database());
    let on_postgres = serve(plan, &folder.path().join("postgres"), &url)?;
    let file = folder.path().join("sqlite");
    std::fs::create_dir_all(&file)?;
    let on_file = plan.program.serve(&file, &[])?;
    let measure = |address| measure_get(plan, runtime, address, FORM);
    measure(on_postgres.address)?;
    measure(on_file.address)?;
    let (mut ratios, mut ours, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..plan.rounds {
        let (our, their) = if round % 2 == 0 {
            let our = measure(on_postgres.address)?;
            (our, measure(on_file.address)?)
        } else {
            let their = measure(on_file.address)?;
            (measure(on_postgres.address)?, their)
        };
        ratios.push(our.rate / their.rate);
        ours.push(our.rate);
        theirs.push(their.rate);
    }
    report.ratio(
        "GET /plugins/{plugin}/form on Postgres, against SQLite",
        median(ratios),
        FORM_TARGET,
    );
    report.note(
        "  on Postgres, on SQLite",
        format!("{:.0}/s, {:.0}/s", median(ours), median(theirs)),
    );
    on_postgres.stop()?;
    on_file.stop()
}

fn creates_against_pgbench(
    plan: &Plan,
    runtime: &Runtime,
    report: &mut Report,
    cluster: &Cluster,
) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let url = runtime.block_on(cluster.database());
    let server = serve(plan, &folder.path().join("server"), &url)?;
    let (body, id) = template(runtime, server.address)?;
    // The baseline has a database of its own with the same tables and the same row.
    let plain = runtime.block_on(cluster.database());
    let other = serve(plan, &folder.path().join("plain"), &plain)?;
    let (_, plain_id) = template(runtime, other.address)?;
    other.stop()?;
    ensure!(id != plain_id, "two servers made one id");
    let told = script(runtime, &plain, &plain_id, true)?;
    let silent = script(runtime, &plain, &plain_id, false)?;
    execute(runtime, &plain, "CREATE SEQUENCE made CACHE 1000")?;
    let told = cluster.file("create.sql", &told);
    let silent = cluster.file("silent.sql", &silent);
    let pgbench = |script: &std::path::Path| -> Result<f64> {
        let output = cluster
            .program("pgbench")
            .args(["--client", &CONNECTIONS.to_string(), "--jobs", "1"])
            .args(["--no-vacuum", "--protocol", "prepared", "--time"])
            .arg(plan.slice.as_secs().to_string())
            .arg("--file")
            .arg(script)
            .arg(&plain)
            .output()
            .context("pgbench")?;
        let said = String::from_utf8_lossy(&output.stdout);
        let rate = said.lines().find_map(|line| line.strip_prefix("tps = "));
        let rate = rate.and_then(|rate| rate.split(' ').next()?.parse().ok());
        let why = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "pgbench says {said} {why}");
        rate.with_context(|| format!("pgbench says {said} {why}"))
    };
    let mut load = 0;
    let mut measure = || {
        load += 1;
        creates(plan, runtime, server.address, &body, load)
    };
    // Not counted: the first writes grow files and fill caches.
    measure()?;
    pgbench(&told)?;
    let (mut ratios, mut quiet, mut ours, mut theirs) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for round in 0..plan.rounds {
        let (our, their) = if round % 2 == 0 {
            let our = measure()?;
            (our, pgbench(&told)?)
        } else {
            let their = pgbench(&told)?;
            (measure()?, their)
        };
        ratios.push(our.rate / their);
        quiet.push(our.rate / pgbench(&silent)?);
        ours.push(our);
        theirs.push(their);
    }
    report.ratio(
        format!("POST …/configurations on Postgres, {CONNECTIONS} connections, against pgbench"),
        median(ratios),
        TARGET,
    );
    report.note(
        "  the server",
        format!(
            "{:.0}/s, p50 {:.2} ms, p99 {:.2} ms",
            median(ours.iter().map(|outcome| outcome.rate).collect()),
            median(ours.iter().map(|outcome| millis(outcome.p50)).collect()),
            median(ours.iter().map(|outcome| millis(outcome.p99)).collect())
        ),
    );
    report.note("  pgbench", format!("{:.0}/s", median(theirs)));
    report.note(
        "  against pgbench that tells no other server",
        format!("{:.2}", median(quiet)),
    );
    server.stop()
}

/// The transaction that made a configuration, for pgbench: the check of the plugin's head, the rows that the server wrote,
/// under new ids and names, and the notice to other servers.
fn script(runtime: &Runtime, url: &str, id: &str, tells: bool) -> Result<String> {
    let mut script = "BEGIN;\nSELECT head FROM applied_definitions WHERE plugin = 'SnowflakeDataOutput' FOR SHARE;\n".to_owned();
    for (place, (table, key)) in ROWS.iter().enumerate() {
        let columns = texts(
            runtime,
            url,
            &format!(
                "SELECT quote_ident(column_name) FROM information_schema.columns WHERE table_name = '{table}' \
                 AND column_name NOT IN ('{key}', 'name', 'folded_name') ORDER BY ordinal_position"
            ),
        )?;
        // What is a time is that of the transaction, as the server's is its own.
        let values = texts(
            runtime,
            url,
            &format!(
                "SELECT CASE WHEN value ~ '^20..-..-.. ..:' THEN 'now()' ELSE quote_nullable(value) END FROM (SELECT \
                 unnest(ARRAY[{}]) AS value FROM {table} WHERE {key} = '{id}') AS row",
                columns
                    .iter()
                    .map(|column| format!("{column}::text"))
                    .collect::<Vec<_>>()
                    .join(", ")
            ),
        )?;
        ensure!(values.len() == columns.len(), "{table} has no row");
        let (columns, values) = (columns.join(", "), values.join(", "));
        // A colon before a letter would be a variable of pgbench.
        let values = values.replace("\":", "\": ");
        script += &match place {
            0 => format!(
                "INSERT INTO {table} (name, folded_name, {key}, {columns}) SELECT 'configuration ' || id, 'configuration ' || id, \
                 id, {values} FROM (SELECT ('01a20000-0000-7000-8000-' || lpad(nextval('made')::text, 12, '0'))::uuid) AS new (id) \
                 RETURNING id \\gset\n"
            ),
            _ => format!("INSERT INTO {table} ({key}, {columns}) VALUES (:id, {values});\n"),
        };
    }
    if tells {
        script += "SELECT pg_notify('patchbay', '00000000-0000-4000-8000-000000000000 1 rows SnowflakeDataOutput');\n";
    }
    script += "COMMIT;\n";
    Ok(script)
}
