//! Lists of configurations: pages, filters, the export.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::harness::{Server, for_each_database};
use crate::world::snowflake;

const NOWHERE: &str = "00000000-0000-4000-8000-000000000000";

fn each<'a>(list: &'a Value, key: &str) -> Vec<&'a Value> {
    list.as_array()
        .expect("a list")
        .iter()
        .map(|item| &item[key])
        .collect()
}

#[tokio::test]
async fn lists_are_paged_newest_first_and_filtered() {
    for_each_database(async |database| {
        let server = Server::on(database);
        let sales = server.data_product("sales", "sales").await;
        let hr = server.data_product("hr", "hr").await;
        let mut created = Vec::new();
        for number in 0..7 {
            let (product, namespace) = if number % 2 == 0 {
                (&sales, "sales")
            } else {
                (&hr, "hr")
            };
            let plugin = if number < 4 {
                "SnowflakeDataOutput"
            } else {
                "GlueDataOutput"
            };
            let name = format!("Out_{number}%");
            created.push(
                server
                    .configured(plugin, product, &name, snowflake(namespace))
                    .await,
            );
        }
        created.reverse();
        let pages = async |query: &str, limit: usize| {
            let mut found: Vec<String> = Vec::new();
            let mut sizes = Vec::new();
            let mut cursor = String::new();
            loop {
                let page = server
                    .get(&format!("{query}limit={limit}{cursor}"))
                    .await
                    .is(200)
                    .json();
                let ids = each(&page["configurations"], "id");
                sizes.push(ids.len());
                found.extend(ids.iter().map(|id| id.as_str().expect("an id").to_owned()));
                match page["next_cursor"].as_str() {
                    Some(next) => cursor = format!("&cursor={next}"),
                    None => return (found, sizes),
                }
            }
        };
        let of = |places: &[usize]| {
            places
                .iter()
                .map(|place| created[*place].clone())
                .collect::<Vec<_>>()
        };
        assert_eq!(
            pages("configurations?", 50).await,
            (created.clone(), vec![7])
        );
        assert_eq!(
            pages("configurations?", 3).await,
            (created.clone(), vec![3, 3, 1])
        );
        assert_eq!(pages("configurations?", 1).await.0, created);
        assert_eq!(pages("configurations?", 7).await.0, created);
        for (query, places) in [
            (
                format!("configurations?data_product_id={sales}&"),
                &[0, 2, 4, 6][..],
            ),
            (
                "configurations?plugin=GlueDataOutput&".to_owned(),
                &[0, 1, 2],
            ),
            (
                "configurations?plugin=GlueTechnicalAssetConfiguration&".to_owned(),
                &[0, 1, 2],
            ),
            (
                "plugins/GlueDataOutput/configurations?".to_owned(),
                &[0, 1, 2],
            ),
            (
                "plugins/GlueTechnicalAssetConfiguration/configurations?".to_owned(),
                &[0, 1, 2],
            ),
            (
                format!("plugins/GlueDataOutput/configurations?data_product_id={hr}&"),
                &[1],
            ),
            ("configurations?q=out_3&".to_owned(), &[3]),
            // What means something in a pattern is text here.
            ("configurations?q=%25&".to_owned(), &[0, 1, 2, 3, 4, 5, 6]),
            ("configurations?q=t_&".to_owned(), &[0, 1, 2, 3, 4, 5, 6]),
            ("configurations?q=t__&".to_owned(), &[]),
            ("configurations?q=nothing&".to_owned(), &[]),
            (format!("configurations?data_product_id={NOWHERE}&"), &[]),
        ] {
            assert_eq!(pages(&query, 2).await.0, of(places), "{query}");
        }
        // A page goes on where the last one ended, whatever was written in between.
        let first = server.get("configurations?limit=3").await.is(200).json();
        server
            .configured("GlueDataOutput", &sales, "later", snowflake("sales"))
            .await;
        server
            .delete(&format!("configurations/{}", created[2]))
            .await
            .is(204);
        let cursor = first["next_cursor"].as_str().expect("a cursor");
        let next = server
            .get(&format!("configurations?limit=3&cursor={cursor}"))
            .await
            .is(200)
            .json();
        assert_eq!(
            each(&next["configurations"], "id"),
            of(&[3, 4, 5])
                .iter()
                .map(|id| json!(id))
                .collect::<Vec<_>>()
                .iter()
                .collect::<Vec<_>>()
        );
        for wrong in [
            "limit=0",
            "limit=-1",
            "limit=x",
            "limit=100000",
            "cursor=nonsense",
            "data_product_id=7",
        ] {
            let detail = server
                .get(&format!("configurations?{wrong}"))
                .await
                .error(422);
            assert_eq!(detail[0]["loc"][0], "query", "{wrong}: {detail}");
        }
        server.get("plugins/Nope/configurations").await.error(404);
    })
    .await;
}

#[tokio::test]
async fn an_export_holds_everything_a_line_each() {
    for_each_database(async |database| {
        let server = Server::on(database);
        let product = server.data_product("sales", "sales").await;
        assert_eq!(server.get("configurations/export").await.is(200).text(), "");
        let mut expected = BTreeSet::new();
        for number in 0..230 {
            let name = format!("n{number}");
            expected.insert(
                server
                    .configured("SnowflakeDataOutput", &product, &name, snowflake("sales"))
                    .await,
            );
        }
        let answer = server.get("configurations/export").await.is(200);
        assert_eq!(answer.header("content-type"), "application/x-ndjson");
        let text = answer.text();
        assert!(text.ends_with("}\n"));
        let lines: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).expect("a line of JSON"))
            .collect();
        let found: BTreeSet<String> = lines
            .iter()
            .map(|line| line["id"].as_str().expect("an id").to_owned())
            .collect();
        assert_eq!(found, expected);
        assert_eq!(lines.len(), 230);
        let read = server
            .get(&format!(
                "configurations/{}",
                lines[0]["id"].as_str().expect("an id")
            ))
            .await;
        assert_eq!(read.json(), lines[0]);
    })
    .await;
}
