//! Steps taken back, tables that somebody else has changed, and what is said of them.

use std::collections::BTreeMap;

use patchbay_plugin::migration::{
    Column, ColumnType, Migration, Operation, Origin, plan, way_back,
};
use patchbay_plugin::name::{MigrationId, TableName};
use patchbay_store::{Applying, StoreError};
use serde_json::{Value, json};

use crate::fixtures::{
    Fresh, definition, draft, install, map, migration, on_each_database, planned, product,
};

const TABLE: &str = "file_data_output_configurations";

fn table() -> TableName {
    TableName::parse(TABLE).expect("a name")
}

fn id(text: &str) -> MigrationId {
    MigrationId::parse(text).expect("an id")
}

fn column(name: &str, kind: ColumnType) -> Column {
    Column {
        name: name.to_owned(),
        kind,
        nullable: true,
        default: None,
        primary_key: false,
        references: None,
    }
}

fn create() -> Migration {
    migration(
        "0001_create",
        vec![Operation::CreateTable {
            table: table(),
            columns: vec![
                Column::id(),
                Column {
                    nullable: false,
                    ..column("path", ColumnType::Text)
                },
                column("days", ColumnType::Integer),
            ],
        }],
    )
}

fn grow() -> Migration {
    migration(
        "0002_grow",
        vec![
            Operation::RenameColumn {
                table: table(),
                from: "days".into(),
                to: "age".into(),
            },
            Operation::AddColumn {
                table: table(),
                column: Column {
                    default: Some(json!("eu")),
                    ..column("region", ColumnType::Text)
                },
            },
            Operation::AlterColumn {
                table: table(),
                column: column("path", ColumnType::Text),
            },
        ],
    )
}

fn narrow_fields() -> Value {
    json!([{"type": "string", "name": "path", "required": true}, {"type": "integer", "name": "days"}])
}

fn wide_fields() -> Value {
    json!([
        {"type": "string", "name": "path"}, {"type": "integer", "name": "age"},
        {"type": "string", "name": "region", "default": "eu"}
    ])
}

/// The rows of a database with both steps, one of which has a value that only the second step has a place for.
async fn grown(fresh: &Fresh) -> (uuid::Uuid, uuid::Uuid) {
    let store = &fresh.store;
    let wide = definition("FileDataOutput", wide_fields(), vec![create(), grow()]);
    let handle = install(store, &wide).await;
    let owner = product(store, "sales").await;
    let mut ids = Vec::new();
    for (name, values) in [
        ("a", json!({"path": "x", "age": 7, "region": "eu"})),
        ("b", json!({"path": "y", "age": null, "region": "us"})),
    ] {
        let made = store
            .create_configuration(&handle, draft(owner.id, name, values), "ann")
            .await;
        ids.push(made.expect("created").id);
    }
    (ids[0], ids[1])
}

#[test]
fn steps_are_taken_back_with_their_entries_and_the_definition() {
    on_each_database(async |fresh| {
        let store = &fresh.store;
        let (one, two) = grown(&fresh).await;
        let plugin = definition("FileDataOutput", wide_fields(), vec![]).name;
        let history = store.history(&plugin).await.expect("a history");
        let way = way_back(&history, Some(&id("0001_create"))).expect("a way");
        let before = fresh.shape().await;
        let refused = store.migrate_back(&plugin, &way, false, "ann").await;
        let Err(StoreError::Loses(losses)) = refused else {
            panic!("{refused:?}")
        };
        assert_eq!(losses.len(), 2, "{losses:?}");
        assert!(
            losses[0].contains("file_data_output_configurations.path"),
            "{losses:?}"
        );
        assert!(
            losses[1].contains("region (1 rows)"),
            "a default is no loss: {losses:?}"
        );
        assert_eq!(fresh.shape().await, before, "nothing has happened");
        assert!(store.held().await.expect("read").is_empty());

        let moves = store.changes();
        store
            .migrate_back(&plugin, &way, true, "ann")
            .await
            .expect("taken back");
        drop(moves);
        let history = store.history(&plugin).await.expect("a history");
        assert_eq!(history.len(), 1);
        let held = &store.held().await.expect("read")["FileDataOutput"];
        assert_eq!(
            (held.step.clone(), held.by.as_str()),
            (Some(id("0001_create")), "ann")
        );
        let mark = &store.applied_marks().await.expect("read")["FileDataOutput"];
        assert_eq!(mark.head, Some(id("0001_create")));
        assert_eq!(mark.code, None, "whatever serves next is tried on the rows");
        // The rows are read by what the table is now, also by who has read them before.
        for (id, values) in [
            (one, json!({"path": "x", "days": 7})),
            (two, json!({"path": "y", "days": null})),
        ] {
            let read = store.configuration(id).await.expect("read").expect("there");
            assert_eq!(read.values, map(values));
        }
        let applied = &store.applied_definitions().await.expect("read")["FileDataOutput"];
        assert_eq!(applied.head, Some(id("0001_create")));
        // The version that the table is for goes on with it, and nothing has drifted.
        let narrow = definition("FileDataOutput", narrow_fields(), vec![create()]);
        assert!(planned(store, &narrow).await.pending.is_empty());
        store
            .record_definition(&narrow, Applying::default())
            .await
            .expect("recorded");
        let histories = store.histories().await.expect("histories");
        assert_eq!(
            store.drifts(histories).await.expect("read"),
            BTreeMap::new()
        );
        // Up again: the rows are what they were, except for what came with the step.
        let wide = definition("FileDataOutput", wide_fields(), vec![create(), grow()]);
        install(store, &wide).await;
        let read = store
            .configuration(two)
            .await
            .expect("read")
            .expect("there");
        assert_eq!(
            read.values,
            map(json!({"path": "y", "age": null, "region": "eu"}))
        );
        assert!(store.release(&plugin).await.expect("released"));
        assert!(!store.release(&plugin).await.expect("read"));
    });
}

#[test]
fn everything_is_taken_back_and_made_again() {
    on_each_database(async |fresh| {
        let store = &fresh.store;
        let (one, _) = grown(&fresh).await;
        let wide = definition("FileDataOutput", wide_fields(), vec![create(), grow()]);
        let history = store.history(&wide.name).await.expect("a history");
        let way = way_back(&history, None).expect("a way");
        let refused = store.migrate_back(&wide.name, &way, false, "ann").await;
        assert!(
            matches!(&refused, Err(StoreError::Loses(losses)) if losses.iter().any(|loss| loss.contains("all of"))),
            "{refused:?}"
        );
        store
            .migrate_back(&wide.name, &way, true, "ann")
            .await
            .expect("taken back");
        assert_eq!(store.history(&wide.name).await.expect("read"), []);
        let read = store
            .configuration(one)
            .await
            .expect("read")
            .expect("there");
        assert_eq!(
            read.values,
            map(json!({})),
            "the configuration stays, its values are gone"
        );
        assert_eq!(
            store.held().await.expect("read")["FileDataOutput"].step,
            None
        );
        // Another plugin may have the table now; so may this one.
        let handle = install(store, &wide).await;
        let again = draft(
            read.data_product_id,
            "a",
            json!({"path": "z", "age": 1, "region": "eu"}),
        );
        let updated = store
            .update_configuration(&handle, one, None, again, "ann")
            .await
            .expect("written anew");
        assert_eq!(
            updated.values,
            map(json!({"path": "z", "age": 1, "region": "eu"}))
        );
    });
}

#[test]
fn a_step_that_cannot_be_taken_back_for_its_rows_leaves_everything() {
    on_each_database(async |fresh| {
        let store = &fresh.store;
        let wide = definition("FileDataOutput", wide_fields(), vec![create(), grow()]);
        let handle = install(store, &wide).await;
        let owner = product(store, "sales").await;
        let values = json!({"path": null, "age": 7, "region": "eu"});
        let made = store
            .create_configuration(&handle, draft(owner.id, "a", values.clone()), "ann")
            .await
            .expect("created");
        let history = store.history(&wide.name).await.expect("a history");
        let way = way_back(&history, Some(&id("0001_create"))).expect("a way");
        let before = fresh.shape().await;
        let failed = store.migrate_back(&wide.name, &way, true, "ann").await;
        assert!(
            matches!(&failed, Err(StoreError::Migration { id, .. }) if id.as_str() == "0002_grow"),
            "{failed:?}"
        );
        assert_eq!(fresh.shape().await, before);
        assert_eq!(store.history(&wide.name).await.expect("read"), history);
        let read = store
            .configuration(made.id)
            .await
            .expect("read")
            .expect("there");
        assert_eq!(read.values, map(values));
        // A way that was found on another history is not gone.
        store
            .migrate_back(
                &wide.name,
                &way_back(&history[..1], None).expect("a way"),
                true,
                "ann",
            )
            .await
            .expect_err("the history is longer");
    });
}

#[test]
fn a_table_that_somebody_changed_is_described_exactly() {
    on_each_database(async |fresh| {
        let store = &fresh.store;
        let wide = definition("FileDataOutput", wide_fields(), vec![create(), grow()]);
        install(store, &wide).await;
        let other = definition("OtherDataOutput", narrow_fields(), vec![]);
        install(store, &other).await;
        let sqlite = fresh.is_sqlite();
        let histories = async || store.histories().await.expect("histories");
        assert_eq!(
            store.drifts(histories().await).await.expect("read"),
            BTreeMap::new()
        );
        let renamed = |sql: &str| format!("ALTER TABLE {TABLE} {sql}");
        let integer = if sqlite { "integer" } else { "bigint" };
        let recreate =
            |columns: &str| format!("DROP TABLE {TABLE}; CREATE TABLE {TABLE} ({columns})");
        let id_type = if sqlite { "text" } else { "uuid" };
        let key = format!(
            "id {id_type} NOT NULL PRIMARY KEY REFERENCES data_output_configurations (id) ON DELETE CASCADE"
        );
        let rest = format!("path text, age {integer}, region text DEFAULT 'eu'");
        for (sql, expected) in [
            (
                renamed("ADD COLUMN extra text"),
                vec![format!(
                    "{TABLE} has a column extra (text) that no step made"
                )],
            ),
            (
                recreate(&format!("{key}, path text, age {integer}")),
                vec![format!(
                    "{TABLE} lacks the column region (0002_grow made it with m:add_column)"
                )],
            ),
            (
                recreate(&format!("{key}, path text NOT NULL, age text, region text")),
                vec![
                    format!("{TABLE}.path is expected to be nullable, found not null"),
                    format!("{TABLE}.age is expected to be {integer}, found text"),
                ],
            ),
            (
                recreate(&format!("id {id_type} NOT NULL, {rest}")),
                vec![
                    format!("{TABLE}.id is expected to be the primary key, and is not"),
                    format!(
                        "{TABLE}.id lacks its foreign key to data_output_configurations(id) on delete cascade"
                    ),
                ],
            ),
            (
                recreate(&format!(
                    "id {id_type} NOT NULL PRIMARY KEY REFERENCES data_output_configurations (id), {rest}"
                )),
                vec![format!(
                    "{TABLE}.id lacks its foreign key to data_output_configurations(id) on delete cascade"
                )],
            ),
            (
                format!("DROP TABLE {TABLE}"),
                vec![format!(
                    "the table {TABLE} is missing (0001_create made it with m:create_table)"
                )],
            ),
        ] {
            fresh.run(&sql).await;
            let mut drifts = store.drifts(histories().await).await.expect("read");
            let mut found = drifts.remove("FileDataOutput").expect("it has drifted");
            found.sort();
            let mut expected = expected;
            expected.sort();
            assert_eq!(found, expected, "{sql}");
            assert_eq!(drifts, BTreeMap::new(), "nobody else has");
            // No step runs on such a table, up or down.
            let more = migration(
                "0003_more",
                vec![Operation::AddColumn {
                    table: table(),
                    column: column("more", ColumnType::Text),
                }],
            );
            let mut fields = wide_fields();
            fields
                .as_array_mut()
                .expect("a list")
                .push(json!({"type": "string", "name": "more"}));
            let next = definition("FileDataOutput", fields, vec![create(), grow(), more]);
            let plan = planned(store, &next).await;
            let refused = store.migrate(&next, &plan, "ann").await;
            assert!(matches!(refused, Err(StoreError::Drift(_))), "{refused:?}");
            let history = store.history(&next.name).await.expect("a history");
            let way = way_back(&history, Some(&id("0001_create"))).expect("a way");
            let refused = store.migrate_back(&next.name, &way, true, "ann").await;
            assert!(matches!(refused, Err(StoreError::Drift(_))), "{refused:?}");
            fresh
                .run(&format!(
                    "DROP TABLE IF EXISTS {TABLE}; CREATE TABLE {TABLE} ({key}, {rest})"
                ))
                .await;
            assert_eq!(
                store.drifts(histories().await).await.expect("read"),
                BTreeMap::new()
            );
        }
    });
}

#[test]
fn an_index_that_is_gone_is_noticed_and_one_more_is_not() {
    on_each_database(async |fresh| {
        let store = &fresh.store;
        let index = migration(
            "0002_unique",
            vec![Operation::CreateIndex {
                table: table(),
                name: "ix_file_path".into(),
                columns: vec!["path".into()],
                unique: true,
            }],
        );
        let narrow = definition("FileDataOutput", narrow_fields(), vec![create(), index]);
        install(store, &narrow).await;
        let drifts = async || {
            let histories = store.histories().await.expect("histories");
            store
                .drifts(histories)
                .await
                .expect("read")
                .remove("FileDataOutput")
        };
        assert_eq!(drifts().await, None);
        let more = format!("CREATE INDEX ix_more ON {TABLE} (days)");
        fresh.run(&more).await;
        assert_eq!(drifts().await, None, "it makes nothing wrong");
        fresh.run("DROP INDEX ix_file_path").await;
        assert_eq!(
            drifts().await,
            Some(vec![format!("{TABLE} lacks the index ix_file_path")])
        );
        let other = format!("CREATE INDEX ix_file_path ON {TABLE} (path)");
        fresh.run(&other).await;
        assert_eq!(
            drifts().await,
            Some(vec![format!(
                "the index ix_file_path of {TABLE} is expected to be unique, found not unique"
            )])
        );
    });
}

#[test]
fn what_an_older_table_holds_is_read_where_columns_are_missing() {
    on_each_database(async |fresh| {
        let store = &fresh.store;
        let (one, two) = grown(&fresh).await;
        fresh
            .run(&format!("ALTER TABLE {TABLE} DROP COLUMN region"))
            .await;
        for (id, values) in [
            (one, json!({"path": "x", "age": 7})),
            (two, json!({"path": "y", "age": null})),
        ] {
            let read = store.configuration(id).await.expect("read").expect("there");
            assert_eq!(read.values, map(values), "what can be read is read");
        }
    });
}

#[test]
fn every_step_of_a_derived_history_goes_down_and_up() {
    on_each_database(async |fresh| {
        let store = &fresh.store;
        let first = definition(
            "FileDataOutput",
            json!([{"type": "string", "name": "path"}]),
            vec![],
        );
        install(store, &first).await;
        let second = definition(
            "FileDataOutput",
            json!([{"type": "string", "name": "path"}, {"type": "boolean", "name": "open", "default": true}]),
            vec![],
        );
        install(store, &second).await;
        let top = fresh.shape().await;
        let history = store.history(&first.name).await.expect("a history");
        assert!(history.iter().all(|step| step.origin == Origin::Derived));
        for target in [Some(&history[0].migration.id), None] {
            let now = store.history(&first.name).await.expect("a history");
            let way = way_back(&now, target).expect("a way");
            store
                .migrate_back(&first.name, &way, false, "ann")
                .await
                .expect("no rows, no loss");
        }
        let plan = plan(&second, &[]).expect("a plan");
        store
            .migrate(&second, &plan, "ann")
            .await
            .expect("up again");
        assert_eq!(fresh.shape().await, top);
    });
}

/// A thousand tables are looked at in well under the time that a start has.
#[test]
fn a_thousand_tables_are_described_at_once() {
    on_each_database(async |fresh| {
        let store = &fresh.store;
        let fields = json!([
            {"type": "string", "name": "a"}, {"type": "integer", "name": "b"}, {"type": "json", "name": "c"},
            {"type": "boolean", "name": "d"}, {"type": "number", "name": "e"}
        ]);
        let first = definition("P0DataOutput", fields, vec![]);
        install(store, &first).await;
        let applied = store.history(&first.name).await.expect("a history");
        let Operation::CreateTable { columns, .. } = &applied[0].migration.up[0] else {
            panic!("{applied:?}")
        };
        let mut histories = BTreeMap::new();
        let mut sql = String::new();
        let dialect = match fresh.is_sqlite() {
            true => patchbay_store::Dialect::Sqlite,
            false => patchbay_store::Dialect::Postgres,
        };
        for number in 1..1000 {
            let create = Operation::CreateTable {
                table: TableName::parse(&format!("p{number}_data_output_configurations"))
                    .expect("a name"),
                columns: columns.clone(),
            };
            let tables = patchbay_plugin::migration::Tables::default();
            for statement in patchbay_store::render::render(&create, &tables, dialect) {
                sql.push_str(&statement);
                sql.push(';');
            }
            let mut step = applied[0].clone();
            step.migration.up = vec![create];
            histories.insert(format!("P{number}DataOutput"), vec![step]);
        }
        fresh.run(&format!("BEGIN; {sql} COMMIT")).await;
        let begun = std::time::Instant::now();
        let drifts = store.drifts(histories).await.expect("read");
        let took = begun.elapsed();
        assert_eq!(drifts, BTreeMap::new());
        // A bound for a build without optimisations on a machine that does much else.
        assert!(took < std::time::Duration::from_secs(1), "{took:?}");
    });
}
