//! How many rows a second are checked before another version of their plugin takes the place of the one that serves, from
//! saving the plugin to the end of the reload: reading the file, reading the rows from the database, the hooks, the swap.
//! For the plugins that ship, on both databases.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::Plan;
use crate::pages::{Postgres, Sqlite, Words, fill};
use crate::report::{Report, median};
use crate::server::Running;
use crate::shared::{cluster, execute, texts};
use crate::wire::{Connection, get, post};

const TARGET: f64 = 50_000.0;
/// A check of so many takes two seconds at the target. Without optimization only that it works is of interest.
const ROWS: u64 = if cfg!(debug_assertions) {
    2_000
} else {
    100_000
};
/// How often one plugin is measured at most: there are several.
const ROUNDS: usize = 3;

/// A plugin that ships and has hooks that rows go through.
struct Shipped {
    name: &'static str,
    folder: &'static str,
    /// The field whose value has to begin with the namespace of the data product.
    named: Option<&'static str>,
}

const fn shipped(name: &'static str, folder: &'static str, named: Option<&'static str>) -> Shipped {
    Shipped {
        name,
        folder,
        named,
    }
}

const PLUGINS: &[Shipped] = &[
    shipped("SnowflakeDataOutput", "snowflake", Some("database")),
    shipped("DatabricksDataOutput", "databricks", Some("catalog")),
    shipped("GlueDataOutput", "glue", Some("database")),
    shipped("RedshiftDataOutput", "redshift", Some("database")),
    shipped("PostgreSQLDataOutput", "postgresql", Some("database")),
    shipped("AzureBlobDataOutput", "azureblob", None),
    shipped("ParameterStoreDataOutput", "parameterstore", None),
    shipped("GoogleBigQueryDataOutput", "bigquery", Some("dataset")),
    shipped("KafkaTopicDataOutput", "kafka", Some("topic")),
    shipped("IcebergTableDataOutput", "iceberg", Some("namespace")),
];

pub(crate) fn run(plan: &Plan, runtime: &Runtime, report: &mut Report) -> Result<()> {
    eprintln!("rows");
    let folder = tempfile::tempdir()?;
    for plugin in PLUGINS {
        let (name, own) = (plugin.name, plugin.folder);
        let folder = folder.path().join(own);
        std::fs::create_dir_all(&folder)?;
        let file = copy_plugin(own, &folder)?;
        let server = plan.program.serve(&folder, &settings(name))?;
        let (id, table) = first_row(runtime, server.address, plugin)?;
        server.stop()?;
        let database = rusqlite::Connection::open(folder.join("data/patchbay.db"))?;
        let columns = database
            .prepare(&format!("SELECT * FROM {table} LIMIT 0"))?
            .column_names()
            .into_iter()
            .map(str::to_owned)
            .collect::<Vec<_>>();
        database.execute_batch(&many(&Sqlite, plugin, &table, &id, &columns))?;
        drop(database);
        let server = plan.program.serve(&folder, &settings(name))?;
        measure(
            plan, runtime, report, &server, &folder, &file, name, "SQLite",
        )?;
        server.stop()?;
    }
    let cluster = cluster();
    for plugin in PLUGINS {
        let (name, own) = (plugin.name, plugin.folder);
        let url = runtime.block_on(cluster.database());
        let folder = folder.path().join(format!("p-{own}"));
        std::fs::create_dir_all(&folder)?;
        let file = copy_plugin(own, &folder)?;
        let mut all = settings(name).to_vec();
        all.push(("PATCHBAY_DATABASE_URL", url.as_str()));
        let server = plan.program.serve(&folder, &all)?;
        let (id, table) = first_row(runtime, server.address, plugin)?;
        server.stop()?;
        let columns = texts(
            runtime,
            &url,
            &format!(
                "SELECT column_name::text FROM information_schema.columns WHERE table_name = '{table}'"
            ),
        )?;
        execute(
            runtime,
            &url,
            &many(&Postgres, plugin, &table, &id, &columns),
        )?;
        execute(runtime, &url, "VACUUM ANALYZE")?;
        let server = plan.program.serve(&folder, &all)?;
        measure(
            plan, runtime, report, &server, &folder, &file, name, "Postgres",
        )?;
        server.stop()?;
    }
    Ok(())
}

/// All rows are to be checked, however long it takes.
fn settings(plugin: &'static str) -> [(&'static str, &'static str); 2] {
    [
        ("PATCHBAY_ROW_CHECK_MS", "600000"),
        ("ENABLED_PLUGINS", plugin),
    ]
}

/// Puts the plugin that ships, and its modules, into the server's plugin path. Gives its file.
fn copy_plugin(own: &str, folder: &Path) -> Result<PathBuf> {
    let shipped = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../lua-plugins"));
    for part in [own, "lib"] {
        let to = folder.join("lua-plugins").join(part);
        copy_folder(&shipped.join(part), &to)?;
    }
    Ok(folder.join("lua-plugins").join(own).join("plugin.lua"))
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from).with_context(|| from.display().to_string())? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        match entry.file_type()?.is_dir() {
            true => copy_folder(&entry.path(), &target)?,
            false => std::fs::copy(entry.path(), target).map(|_| ())?,
        }
    }
    Ok(())
}

/// Stores the plugin's first example. Gives its id and the plugin's table.
fn first_row(
    runtime: &Runtime,
    address: SocketAddr,
    shipped: &Shipped,
) -> Result<(String, String)> {
    let plugin = shipped.name;
    runtime.block_on(async {
        let mut connection = Connection::open(address).await?;
        let product = json!({"name": "Sales", "namespace": "sales", "domain": "commerce"});
        let product = connection
            .json(&post("/api/v2/data_products", &product.to_string()))
            .await?;
        let details = connection
            .json(&get(&format!("/api/v2/plugins/{plugin}")))
            .await?;
        let schema = connection
            .json(&get(&format!("/api/v2/plugins/{plugin}/schema")))
            .await?;
        let mut example = schema["examples"][0].clone();
        ensure!(example.is_object(), "{plugin} has no example");
        if let Some(field) = shipped.named {
            example[field] = json!("sales_dwh");
        }
        let body =
            json!({"data_product_id": product["id"], "name": "first", "configuration": example});
        let path = format!("/api/v2/plugins/{plugin}/configurations");
        let created = connection.json(&post(&path, &body.to_string())).await?;
        let text = |value: &Value, what: &str| {
            value
                .as_str()
                .map(str::to_owned)
                .with_context(|| format!("no {what} of {plugin} in {value}"))
        };
        Ok((
            text(&created["id"], "id")?,
            text(&details["table"], "table")?,
        ))
    })
}

/// The statements that copy the row, for many data products, so that the plugin's rules accept every copy.
fn many(words: &dyn Words, plugin: &Shipped, table: &str, id: &str, columns: &[String]) -> String {
    let fill = fill(words, table, id, ROWS, columns);
    let named = plugin.named.map(|field| {
        format!(
            "UPDATE {table} SET \"{field}\" = (SELECT p.namespace || '_dwh' FROM data_products p \
             JOIN data_output_configurations b ON b.data_product_id = p.id WHERE b.id = {table}.id);"
        )
    });
    format!("{fill} {}", named.unwrap_or_default())
}

#[expect(clippy::too_many_arguments, reason = "it is one step of a list")]
fn measure(
    plan: &Plan,
    runtime: &Runtime,
    report: &mut Report,
    server: &Running,
    folder: &Path,
    file: &Path,
    plugin: &str,
    database: &str,
) -> Result<()> {
    let source = std::fs::read_to_string(file)?;
    let mut rates = Vec::new();
    // The first one is not counted: it fills caches.
    for round in 0..=plan.rounds.min(ROUNDS) {
        let began = Instant::now();
        std::fs::write(file, format!("{source}\n-- {round}\n"))?;
        let done = runtime.block_on(reload(server.address, plugin))?;
        ensure!(done, "{plugin} does not serve; see {}", folder.display());
        if round > 0 {
            rates.push((ROWS + 1) as f64 / began.elapsed().as_secs_f64());
        }
        has_checked(folder, round + 1)?;
    }
    report.at_least(
        format!("rows of {plugin} checked a second, on {database}"),
        median(rates),
        TARGET,
        "rows/s",
    );
    Ok(())
}

/// Sees in the log that so many checks were made, each of all rows. It is written by a thread of its own, a moment later.
fn has_checked(folder: &Path, wanted: usize) -> Result<()> {
    let began = Instant::now();
    loop {
        let log = std::fs::read_to_string(folder.join("server.log"))?;
        let checks = log.matches("checked all ").count();
        if checks == wanted {
            return Ok(());
        }
        ensure!(
            checks < wanted && began.elapsed() < Duration::from_secs(10),
            "the log tells of {checks} checks instead of {wanted}"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Reloads, and says whether the plugin is in good order. The watcher may have begun before; then this waits for it.
async fn reload(address: SocketAddr, plugin: &str) -> Result<bool> {
    let mut connection = Connection::open(address).await?;
    let _ = tokio::time::timeout(
        Duration::from_secs(120),
        connection.json(&post("/api/v2/plugins/reload", "{}")),
    )
    .await
    .context("the reload takes too long")??;
    let details = connection
        .json(&get(&format!("/api/v2/plugins/{plugin}")))
        .await?;
    Ok(details["state"] == "active" && details["last_error"].is_null())
}
