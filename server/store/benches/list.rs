//! What a page of configurations costs with 1,000 rows and with 1,000,000, on both databases: the medians, and their
//! ratio. The rows are loaded in bulk.
//!
//! `cargo bench -p patchbay-store --bench list`
#![allow(clippy::print_stdout, reason = "a benchmark says what it measured")]

use std::time::{Duration, Instant};

use patchbay_plugin::definition::Definition;
use patchbay_plugin::migration::plan;
use patchbay_plugin::term::Term;
use patchbay_store::{ConfigurationQuery, DatabaseUrl, Store, StoreSettings};
use patchbay_test_cluster::{Cluster, Durability, connect};
use serde_json::json;

/// Of rows for each data product.
const OF_A_PRODUCT: usize = 500;

/// How many rows of each plugin there are, of every ten.
const PLUGINS: [(&str, &str); 2] = [("FileDataOutput", "< 9"), ("RareDataOutput", "= 9")];

fn main() {
    // Run as a test, it only shows that it works.
    let measured = std::env::args().any(|argument| argument == "--bench");
    let (sizes, rounds) = match measured {
        true => ([1_000, 1_000_000], 301),
        false => ([1_000, 2_000], 3),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let cluster = Cluster::start(Durability::None);
    for sqlite in [true, false] {
        let mut measured = Vec::new();
        for rows in sizes {
            let folder = tempfile::tempdir().expect("a folder");
            let url = match sqlite {
                true => DatabaseUrl::Sqlite(folder.path().join("patchbay.db")),
                false => {
                    let url = runtime.block_on(cluster.database());
                    DatabaseUrl::parse(&url).expect("a URL")
                }
            };
            measured.push(runtime.block_on(pages(url, rows, rounds)));
        }
        let name = if sqlite { "SQLite" } else { "Postgres" };
        for (few, many) in measured[0].iter().zip(&measured[1]) {
            println!(
                "{name:8} {:24} {:>8.0} µs with {}, {:>8.0} µs with {}, ratio {:.2}",
                few.0,
                few.1.as_secs_f64() * 1e6,
                sizes[0],
                many.1.as_secs_f64() * 1e6,
                sizes[1],
                many.1.as_secs_f64() / few.1.as_secs_f64()
            );
        }
    }
}

async fn pages(url: DatabaseUrl, rows: usize, rounds: usize) -> Vec<(&'static str, Duration)> {
    let store = Store::open(StoreSettings::new(url.clone()))
        .await
        .expect("a store");
    for (plugin, _) in PLUGINS {
        let term = Term::from_json(json!({
            "name": plugin, "fields": [{"type": "string", "name": "path", "required": true}],
        }));
        let definition = Definition::read(term, Vec::new()).expect("a definition");
        let pending = plan(&definition, &[]).expect("a plan");
        store
            .migrate(&definition, &pending, "bench")
            .await
            .expect("a table");
    }
    load(&url, rows).await;
    let page = || ConfigurationQuery {
        limit: 50,
        ..ConfigurationQuery::default()
    };
    let first = store.configurations(page()).await.expect("a page");
    let product = first.items[0].data_product_id;
    // In the middle of the list, as far as its first pages lead.
    let mut cursor = first.next_cursor;
    for _ in 0..5 {
        let query = ConfigurationQuery { cursor, ..page() };
        let next = store.configurations(query).await.expect("a page");
        cursor = next.next_cursor;
    }
    let of = |plugin: &str| ConfigurationQuery {
        plugin: Some(plugin.to_owned()),
        ..page()
    };
    let queries = [
        ("the first", page()),
        ("a later one", ConfigurationQuery { cursor, ..page() }),
        ("of a common plugin", of("FileDataOutput")),
        ("of a rare plugin", of("RareDataOutput")),
        (
            "of a data product",
            ConfigurationQuery {
                data_product_id: Some(product),
                ..page()
            },
        ),
        (
            "of both",
            ConfigurationQuery {
                data_product_id: Some(product),
                ..of("RareDataOutput")
            },
        ),
        (
            "names with a 7",
            ConfigurationQuery {
                q: Some("7".to_owned()),
                ..page()
            },
        ),
    ];
    let mut medians = Vec::new();
    for (name, query) in queries {
        let mut times = Vec::with_capacity(rounds);
        for _ in 0..rounds {
            let start = Instant::now();
            let page = store.configurations(query.clone()).await.expect("a page");
            times.push(start.elapsed());
            assert!(!page.items.is_empty() && !page.items[0].values.is_empty());
        }
        times.sort();
        medians.push((name, times[rounds / 2]));
    }
    store.close().await;
    medians
}

/// Loads rows, ten a millisecond, in data products of [`OF_A_PRODUCT`] each.
async fn load(url: &DatabaseUrl, rows: usize) {
    let products = rows.div_ceil(OF_A_PRODUCT);
    let (series, id, time) = match url {
        DatabaseUrl::Sqlite(_) => (
            "(WITH RECURSIVE s(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM s LIMIT ROWS) SELECT n FROM s)",
            "printf('KIND0000-0000-7000-8000-%012d', VALUE)",
            "strftime('%Y-%m-%dT%H:%M:%f000Z', 1767225600 + n / 1000.0, 'unixepoch')",
        ),
        DatabaseUrl::Postgres(_) => (
            "(SELECT n FROM generate_series(0, ROWS - 1) s(n))",
            "('KIND0000-0000-7000-8000-' || lpad((VALUE)::text, 12, '0'))::uuid",
            "timestamptz 'epoch' + (1767225600 + n / 1000.0) * interval '1 second'",
        ),
    };
    let series = |rows: usize| series.replace("ROWS", &rows.to_string());
    let id = |kind: &str, value: &str| id.replace("KIND", kind).replace("VALUE", value);
    let mut sql = vec![
        format!(
            "INSERT INTO data_products SELECT {}, 'p', 'p' || n, 'd' FROM {} AS series",
            id("aaaa", "n"),
            series(products)
        ),
        format!(
            "INSERT INTO data_output_configurations SELECT {}, CASE WHEN n % 10 = 9 THEN 'RareDataOutput' ELSE 'FileDataOutput' END, \
             '1.0', 'name ' || n, 'name ' || n, NULL, {}, 'default', NULL, NULL, 1, {time}, {time} FROM {} AS series",
            id("bbbb", "n"),
            id("aaaa", &format!("n % {products}")),
            series(rows)
        ),
    ];
    for (table, of_ten) in PLUGINS.map(|(plugin, of_ten)| {
        let table = match plugin {
            "FileDataOutput" => "file_data_output_configurations",
            _ => "rare_data_output_configurations",
        };
        (table, of_ten)
    }) {
        sql.push(format!(
            "INSERT INTO {table} SELECT {}, 'path ' || n FROM {} AS series WHERE n % 10 {of_ten}",
            id("bbbb", "n"),
            series(rows)
        ));
    }
    match url {
        DatabaseUrl::Sqlite(path) => {
            let database = rusqlite::Connection::open(path).expect("a connection");
            for sql in sql {
                database.execute_batch(&sql).expect(&sql);
            }
        }
        DatabaseUrl::Postgres(url) => {
            let client = connect(url).await;
            for sql in sql {
                client.batch_execute(&sql).await.expect(&sql);
            }
            client
                .batch_execute("VACUUM ANALYZE")
                .await
                .expect("statistics");
        }
    }
}
