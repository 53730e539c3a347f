//! How long after its answer a write of one server is known to two others on the same Postgres: a configuration, and a
//! change of the catalogue. The median, the 99th percentile and the longest are printed.
//!
//! `cargo bench -p patchbay-store --bench heard`
#![allow(clippy::print_stdout, reason = "a benchmark says what it measured")]

use std::time::{Duration, Instant};

use patchbay_plugin::configuration::{ConfigurationDraft, TechnicalMapping};
use patchbay_plugin::definition::Definition;
use patchbay_plugin::migration::plan;
use patchbay_plugin::term::Term;
use patchbay_store::{DataProductDraft, DatabaseUrl, Store, StoreSettings};
use patchbay_test_cluster::{Cluster, Durability};
use serde_json::json;

const PLUGIN: &str = "FileDataOutput";

fn main() {
    // Run as a test, it only shows that it works.
    let measured = std::env::args().any(|argument| argument == "--bench");
    let writes = if measured { 1_000 } else { 10 };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let cluster = Cluster::start(Durability::Full);
    runtime.block_on(async {
        let url = DatabaseUrl::parse(&cluster.database().await).expect("a URL");
        let mut servers = Vec::new();
        for _ in 0..3 {
            let settings = StoreSettings::new(url.clone());
            servers.push(Store::open(settings).await.expect("a store"));
        }
        let (rows, catalogue) = writes_heard(&servers, writes).await;
        show("a configuration", rows);
        show("the catalogue", catalogue);
    });
}

fn show(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let at =
        |part: usize| times[(times.len() * part / 100).min(times.len() - 1)].as_secs_f64() * 1e3;
    println!(
        "{what:16} median {:.2} ms, p99 {:.2} ms, longest {:.2} ms",
        at(50),
        at(99),
        at(100)
    );
}

async fn writes_heard(servers: &[Store], writes: usize) -> (Vec<Duration>, Vec<Duration>) {
    let writer = &servers[0];
    let term = Term::from_json(json!({
        "name": PLUGIN, "fields": [{"type": "string", "name": "path", "required": true}],
    }));
    let definition = Definition::read(term, Vec::new()).expect("a definition");
    let pending = plan(&definition, &[]).expect("a plan");
    writer
        .migrate(&definition, &pending, "bench")
        .await
        .expect("a table");
    let table = writer.table(&definition, &pending);
    let product = DataProductDraft {
        name: "Sales".to_owned(),
        namespace: "sales".to_owned(),
        domain: "sales".to_owned(),
    };
    let product = writer
        .create_data_product(None, product)
        .await
        .expect("a data product");
    let (mut rows, mut catalogue) = (Vec::new(), Vec::new());
    for number in 0..writes {
        let counters: Vec<u64> = servers.iter().map(|one| one.row_counter(PLUGIN)).collect();
        let values = json!({"path": "x"});
        let draft = ConfigurationDraft {
            name: format!("configuration {number}"),
            description: None,
            data_product_id: product.id,
            technical_mapping: TechnicalMapping::Default,
            platform_id: None,
            service_id: None,
            values: values.as_object().expect("an object").clone(),
        };
        let made = writer.create_configuration(&table, draft, "bench").await;
        made.expect("created");
        let answered = Instant::now();
        for (server, before) in servers.iter().zip(counters) {
            while server.row_counter(PLUGIN) == before {
                tokio::task::yield_now().await;
            }
        }
        rows.push(answered.elapsed());

        let versions: Vec<u64> = servers.iter().map(Store::catalogue_version).collect();
        let made = writer.create_platform(format!("platform {number}")).await;
        made.expect("created");
        let answered = Instant::now();
        for (server, before) in servers.iter().zip(versions) {
            while server.catalogue_version() == before {
                tokio::task::yield_now().await;
            }
        }
        catalogue.push(answered.elapsed());
    }
    (rows, catalogue)
}
