//! How fast configurations are created: the store with 16 callers at once, against a plain loop that makes the same
//! inserts into the same tables, each in a transaction of its own, with the same durability (WAL, synchronous NORMAL).
//! Both run in turn, several times; the medians and their ratio are printed.
//!
//! `cargo bench -p patchbay-store --bench create`
#![allow(clippy::print_stdout, reason = "a benchmark says what it measured")]

use std::path::Path;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use patchbay_plugin::configuration::{ConfigurationDraft, TechnicalMapping};
use patchbay_plugin::definition::Definition;
use patchbay_plugin::migration::plan;
use patchbay_plugin::term::Term;
use patchbay_store::{DataProductDraft, DatabaseUrl, PluginTable, Store, StoreSettings};
use rusqlite::Connection;
use serde_json::{Map, Value, json};
use uuid::Uuid;

const CALLERS: usize = 16;

fn main() {
    // Run as a test, it only shows that it works.
    let measured = std::env::args().any(|argument| argument == "--bench");
    let (rows, rounds) = if measured { (8_000, 5) } else { (160, 1) };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let (mut ours, mut plain) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        ours.push(runtime.block_on(store_creates(rows)));
        plain.push(plain_creates(&runtime, rows));
    }
    let (ours, plain) = (median(ours), median(plain));
    let per_second = |took: Duration| rows as f64 / took.as_secs_f64();
    println!(
        "store, {CALLERS} callers: {:>8.0} creates/s",
        per_second(ours)
    );
    println!("plain loop:        {:>8.0} creates/s", per_second(plain));
    println!(
        "ratio:             {:>8.2}",
        per_second(ours) / per_second(plain)
    );
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn definition() -> Definition {
    let term = Term::from_json(json!({
        "name": "SnowflakeDataOutput",
        "fields": [
            {"type": "string", "name": "database", "required": true},
            {"type": "string", "name": "schema", "default": ""},
            {"type": "string", "name": "table", "default": "*"},
            {"type": "string", "name": "bucket_identifier", "default": ""},
            {"type": "string", "name": "database_path", "default": ""},
            {"type": "string", "name": "table_path", "default": ""},
            {"type": "enum", "name": "access_granularity", "values": ["schema", "table"], "required": true},
        ],
    }));
    Definition::read(term, Vec::new()).expect("a definition")
}

fn values() -> Map<String, Value> {
    let values = json!({
        "database": "sales_dwh", "schema": "sales", "table": "*", "bucket_identifier": "",
        "database_path": "sales_dwh", "table_path": "*", "access_granularity": "schema",
    });
    values.as_object().expect("an object").clone()
}

/// A new database with the plugin's table and one data product.
async fn prepared(folder: &Path) -> (Store, PluginTable, Uuid) {
    let url = DatabaseUrl::Sqlite(folder.join("patchbay.db"));
    let store = Store::open(StoreSettings::new(url)).await.expect("a store");
    let definition = definition();
    let pending = plan(&definition, &[]).expect("a plan");
    store
        .migrate(&definition, &pending, "bench")
        .await
        .expect("a table");
    let product = DataProductDraft {
        name: "Sales".to_owned(),
        namespace: "sales".to_owned(),
        domain: "sales".to_owned(),
    };
    let product = store
        .create_data_product(None, product)
        .await
        .expect("a data product");
    let table = store.table(&definition, &pending);
    (store, table, product.id)
}

async fn store_creates(rows: usize) -> Duration {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, table, product) = prepared(folder.path()).await;
    let start = Instant::now();
    let callers = (0..CALLERS).map(|caller| {
        let (store, table) = (store.clone(), table.clone());
        tokio::spawn(async move {
            for row in (caller..rows).step_by(CALLERS) {
                let draft = ConfigurationDraft {
                    name: format!("configuration {row}"),
                    description: None,
                    data_product_id: product,
                    technical_mapping: TechnicalMapping::Default,
                    platform_id: None,
                    service_id: None,
                    values: values(),
                };
                let created = store.create_configuration(&table, draft, "bench").await;
                created.expect("created");
            }
        })
    });
    for ended in join_all(callers).await {
        ended.expect("a caller");
    }
    let took = start.elapsed();
    store.close().await;
    took
}

fn plain_creates(runtime: &tokio::runtime::Runtime, rows: usize) -> Duration {
    let folder = tempfile::tempdir().expect("a folder");
    let product = runtime.block_on(async {
        let (store, _, product) = prepared(folder.path()).await;
        store.close().await;
        product.to_string()
    });
    let database = Connection::open(folder.path().join("patchbay.db")).expect("a connection");
    database
        .execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = ON",
        )
        .expect("settings");
    // What the history of a new row holds.
    let changes: Map<String, Value> = values()
        .into_iter()
        .map(|(field, value)| {
            (
                format!("configuration.{field}"),
                json!({"from": null, "to": value}),
            )
        })
        .chain(
            [
                "name",
                "description",
                "data_product_id",
                "technical_mapping",
                "platform_id",
                "service_id",
            ]
            .map(|key| (key.to_owned(), json!({"from": null, "to": product}))),
        )
        .collect();
    let changes = Value::Object(changes).to_string();
    let at = "2026-01-01T00:00:00.000000Z";
    let start = Instant::now();
    for row in 0..rows {
        let (id, name) = (Uuid::now_v7().to_string(), format!("configuration {row}"));
        let execute = |sql: &str, values: &[&dyn rusqlite::ToSql]| {
            let mut statement = database.prepare_cached(sql).expect("a statement");
            statement.execute(values).expect("a row");
        };
        execute("BEGIN IMMEDIATE", &[]);
        execute(
            "INSERT INTO data_output_configurations (id, configuration_type, plugin_version, name, folded_name, \
             data_product_id, technical_mapping, revision, created_at, updated_at) \
             VALUES (?1, 'SnowflakeDataOutput', '1.0', ?2, ?2, ?3, 'default', 1, ?4, ?4)",
            &[&id, &name, &product, &at],
        );
        execute(
            "INSERT INTO snowflake_data_output_configurations VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            &[
                &id,
                &"sales_dwh",
                &"sales",
                &"*",
                &"",
                &"sales_dwh",
                &"*",
                &"schema",
            ],
        );
        execute(
            "INSERT INTO configuration_revisions VALUES (?, 1, 'create', 'SnowflakeDataOutput', '1.0', 'bench', ?, ?)",
            &[&id, &at, &changes],
        );
        execute("COMMIT", &[]);
    }
    start.elapsed()
}
