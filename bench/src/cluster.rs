//! Three servers on one database: how long after a write is answered by one all of them answer with it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::Plan;
use crate::create::{PATH, named, template};
use crate::report::{Report, millis, percentile};
use crate::shared::{cluster, serve};
use crate::wire::{Connection, get, post, put};

const TARGET: f64 = 100.0;
const FORM: &str = "/api/v2/plugins/SnowflakeDataOutput/form";
/// How long the slowest may take before something is wrong.
const LOST: Duration = Duration::from_secs(10);

pub(crate) fn run(plan: &Plan, runtime: &Runtime, report: &mut Report) -> Result<()> {
    eprintln!("cluster");
    let cluster = cluster();
    let folder = tempfile::tempdir()?;
    let url = runtime.block_on(cluster.database());
    let servers =
        ["first", "second", "third"].map(|name| serve(plan, &folder.path().join(name), &url));
    let [first, second, third] = servers;
    let servers = [first?, second?, third?];
    let (body, _) = template(runtime, servers[0].address)?;
    let writes = 20 * plan.rounds;
    let (mut forms, missed) = runtime.block_on(async {
        let mut connections = Vec::new();
        for server in &servers {
            connections.push(Connection::open(server.address).await?);
        }
        let (writer, readers) = connections.split_first_mut().context("a server")?;
        let configs = writer
            .json(&get("/api/v2/configuration/platforms/configs"))
            .await?;
        let config = configs["platform_service_configurations"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|config| config["service"]["name"] == "Snowflake")
            .context("the catalogue lacks Snowflake")?
            .clone();
        let mut forms = Vec::with_capacity(writes);
        let mut missed = 0_u64;
        for number in 0..writes {
            forms.push(catalogue_write(writer, readers, &config, number).await?);
            // A configuration is read from the database, so that no server may miss it for any time.
            let name = format!("seen {number}");
            let created = writer.json(&post(PATH, &named(&body, &name))).await?;
            let path = format!(
                "/api/v2/configurations/{}",
                created["id"].as_str().context("no id")?
            );
            for reader in readers.iter_mut() {
                missed += u64::from(reader.exchange(&get(&path)).await?.status != 200);
            }
        }
        anyhow::Ok((forms, missed))
    })?;
    forms.sort_unstable();
    report.at_most(
        "a catalogue's write on one of three servers, in the forms of the others, p99",
        millis(percentile(&forms, 99.0)),
        TARGET,
        "ms",
    );
    report.note(
        format!("  {writes} writes"),
        format!(
            "p50 {:.2} ms, at most {:.2} ms",
            millis(percentile(&forms, 50.0)),
            millis(percentile(&forms, 100.0))
        ),
    );
    report.none("configurations that another server did not find", missed);
    for server in servers {
        server.stop()?;
    }
    Ok(())
}

/// Writes options, and gives how long after the answer the last of the others had them in its form.
async fn catalogue_write(
    writer: &mut Connection,
    readers: &mut [Connection],
    config: &Value,
    number: usize,
) -> Result<Duration> {
    let option = format!("option_{number}_end");
    let id = config["id"].as_str().context("no id")?;
    let body = json!({
        "platform_id": config["platform"]["id"],
        "service_id": config["service"]["id"],
        "config": [option],
    });
    let path = format!("/api/v2/configuration/platforms/configs/{id}");
    let answer = writer.exchange(&put(&path, &body.to_string())).await?;
    ensure!(answer.status == 200, "the write answered {}", answer.status);
    let written = Instant::now();
    for reader in readers {
        loop {
            let answer = reader.exchange(&get(FORM)).await?;
            ensure!(answer.status == 200, "the form answered {}", answer.status);
            if answer
                .body
                .windows(option.len())
                .any(|part| part == option.as_bytes())
            {
                break;
            }
            ensure!(written.elapsed() < LOST, "a write is not seen");
        }
    }
    Ok(written.elapsed())
}
