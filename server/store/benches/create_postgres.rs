//! How fast configurations are created on Postgres: the store with 16 callers at once, against pgbench with 16
//! connections that run the same statements, on one cluster as Postgres comes (every commit on the disk). Both run in
//! turn, several times; the medians and their ratio are printed.
//!
//! `cargo bench -p patchbay-store --bench create_postgres`
#![allow(clippy::print_stdout, reason = "a benchmark says what it measured")]

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use patchbay_plugin::configuration::{ConfigurationDraft, TechnicalMapping};
use patchbay_plugin::definition::Definition;
use patchbay_plugin::migration::plan;
use patchbay_plugin::term::Term;
use patchbay_store::{DataProductDraft, DatabaseUrl, PluginTable, Store, StoreSettings};
use patchbay_test_cluster::{Cluster, Durability};
use serde_json::{Map, Value, json};
use uuid::Uuid;

const CALLERS: usize = 16;

fn main() {
    // Run as a test, it only shows that it works.
    let measured = std::env::args().any(|argument| argument == "--bench");
    let (seconds, rounds) = if measured { (5, 5) } else { (1, 1) };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let cluster = Cluster::start(Durability::Full);
    let (mut ours, mut notified, mut plain) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        ours.push(runtime.block_on(store_creates(&cluster, seconds)));
        notified.push(pgbench(&cluster, &runtime, seconds, true));
        plain.push(pgbench(&cluster, &runtime, seconds, false));
    }
    let (ours, notified, plain) = (median(ours), median(notified), median(plain));
    println!("store, {CALLERS} callers:           {ours:>8.0} creates/s");
    println!(
        "pgbench:                     {notified:>8.0} creates/s, ratio {:.2}",
        ours / notified
    );
    println!(
        "pgbench that tells nobody:   {plain:>8.0} creates/s, ratio {:.2}",
        ours / plain
    );
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
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

/// A new database with the plugin's table and one data product, and its URL.
async fn prepared(cluster: &Cluster) -> (Store, PluginTable, Uuid, String) {
    let url = cluster.database().await;
    let settings = StoreSettings {
        pool: CALLERS + 2,
        ..StoreSettings::new(DatabaseUrl::parse(&url).expect("a URL"))
    };
    let store = Store::open(settings).await.expect("a store");
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
    (store, table, product.id, url)
}

/// Creates a second.
async fn store_creates(cluster: &Cluster, seconds: u64) -> f64 {
    let (store, table, product, _) = prepared(cluster).await;
    let start = Instant::now();
    let until = start + Duration::from_secs(seconds);
    let callers = (0..CALLERS).map(|caller| {
        let (store, table) = (store.clone(), table.clone());
        tokio::spawn(async move {
            let mut made = 0_usize;
            while Instant::now() < until {
                let draft = ConfigurationDraft {
                    name: format!("configuration {caller} {made}"),
                    description: None,
                    data_product_id: product,
                    technical_mapping: TechnicalMapping::Default,
                    platform_id: None,
                    service_id: None,
                    values: values(),
                };
                let created = store.create_configuration(&table, draft, "bench").await;
                created.expect("created");
                made += 1;
            }
            made
        })
    });
    let made = join_all(callers).await.into_iter();
    let made: usize = made.map(|made| made.expect("a caller")).sum();
    let rate = made as f64 / start.elapsed().as_secs_f64();
    store.close().await;
    rate
}

/// What pgbench makes of the same statements, each prepared once a connection.
fn pgbench(
    cluster: &Cluster,
    runtime: &tokio::runtime::Runtime,
    seconds: u64,
    notify: bool,
) -> f64 {
    let (url, product) = runtime.block_on(async {
        let (store, _, product, url) = prepared(cluster).await;
        store.close().await;
        let client = patchbay_test_cluster::connect(&url).await;
        client
            .batch_execute("CREATE SEQUENCE made CACHE 1000")
            .await
            .expect("numbers");
        (url, product)
    });
    // What the history of a new row holds.
    let changes: Map<String, Value> = values()
        .into_iter()
        .map(|(field, value)| {
            let change = json!({"from": null, "to": value});
            (format!("configuration.{field}"), change)
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
    // A colon before a letter would be a variable of pgbench.
    let changes = Value::Object(changes).to_string().replace("\":", "\": ");
    let notify = match notify {
        true => format!("SELECT pg_notify('patchbay', '{product} 1 rows SnowflakeDataOutput');\n"),
        false => String::new(),
    };
    let script = format!(
        "BEGIN;\n\
         SELECT head FROM applied_definitions WHERE plugin = 'SnowflakeDataOutput' FOR SHARE;\n\
         INSERT INTO data_output_configurations (id, configuration_type, plugin_version, name, folded_name, data_product_id, \
         technical_mapping, revision, created_at, updated_at) \
         SELECT id, 'SnowflakeDataOutput', '1.0', 'configuration ' || id, 'configuration ' || id, '{product}', 'default', 1, now(), now() \
         FROM (SELECT ('01a20000-0000-7000-8000-' || lpad(nextval('made')::text, 12, '0'))::uuid) AS new (id) RETURNING id \\gset\n\
         INSERT INTO snowflake_data_output_configurations VALUES (:id, 'sales_dwh', 'sales', '*', '', 'sales_dwh', '*', 'schema');\n\
         INSERT INTO configuration_revisions VALUES (:id, 1, 'create', 'SnowflakeDataOutput', '1.0', 'bench', now(), '{changes}');\n\
         {notify}COMMIT;\n"
    );
    let script = cluster.file("create.sql", &script);
    let clients = CALLERS.to_string();
    let seconds = seconds.to_string();
    let output = cluster
        .program("pgbench")
        .args(["--client", &clients, "--jobs", "2", "--no-vacuum"])
        .args(["--protocol", "prepared", "--time", &seconds, "--file"])
        .arg(script)
        .arg(url)
        .output()
        .expect("pgbench runs");
    let said = String::from_utf8_lossy(&output.stdout);
    let rate = said.lines().find_map(|line| line.strip_prefix("tps = "));
    let rate = rate.and_then(|rate| rate.split(' ').next()?.parse().ok());
    rate.unwrap_or_else(|| {
        let why = String::from_utf8_lossy(&output.stderr);
        panic!("pgbench says {said} {why}")
    })
}
