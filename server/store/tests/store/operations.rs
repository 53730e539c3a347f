//! Every operation of a migration, run on both databases: they do the same to tables and to what is in them.

use std::collections::BTreeMap;

use patchbay_plugin::definition::Definition;
use patchbay_plugin::migration::{Column, ColumnType, Migration, Operation};
use patchbay_plugin::name::TableName;
use patchbay_store::{Store, StoreError};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::fixtures::{
    definition, draft, install, map, migration, on_each_database, planned, product,
};

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

/// The type of a field whose column is of this type.
fn field(kind: ColumnType) -> &'static str {
    match kind {
        ColumnType::Text | ColumnType::Uuid => "string",
        ColumnType::Integer => "integer",
        ColumnType::Number => "number",
        ColumnType::Boolean => "boolean",
        ColumnType::Json => "json",
    }
}

/// A value in a column of one type, when the column gets another: what it becomes, or none when the step fails.
async fn converted(
    store: &Store,
    owner: Uuid,
    number: usize,
    (from, value): (ColumnType, &Value),
    to: ColumnType,
) -> Option<Value> {
    let name = format!("Case{number}DataOutput");
    let fields = |kind| json!([{"type": field(kind), "name": "cell"}]);
    let table = definition(&name, fields(from), vec![]);
    let table = table.table.expect("a table");
    let create = migration(
        "0001_create",
        vec![Operation::CreateTable {
            table: table.clone(),
            columns: vec![Column::id(), column("cell", from)],
        }],
    );
    let first = definition(&name, fields(from), vec![create.clone()]);
    let handle = install(store, &first).await;
    let made = draft(owner, &name, json!({"cell": value}));
    let made = store.create_configuration(&handle, made, "ann").await;
    let made = made.expect("created");
    let alter = migration(
        "0002_alter",
        vec![Operation::AlterColumn {
            table,
            column: column("cell", to),
        }],
    );
    let second = definition(&name, fields(to), vec![create, alter]);
    let plan = planned(store, &second).await;
    match store.migrate(&second, &plan, "test").await {
        Ok(()) => {}
        Err(StoreError::Migration { id, reason }) => {
            assert_eq!(id.as_str(), "0002_alter");
            // Postgres would tell the value.
            assert!(!reason.contains("hush"), "{reason}");
            return None;
        }
        Err(error) => panic!("{error:?}"),
    }
    let read = store.configuration(made.id).await.expect("read");
    Some(read.expect("there").values["cell"].clone())
}

#[test]
fn columns_change_their_type_alike() {
    use ColumnType::{Boolean, Integer, Json, Number, Text};
    on_each_database(async |fresh| {
        let owner = product(&fresh.store, "sales").await;
        let cases = [
            (Text, json!("12"), Integer, Some(json!(12))),
            (Text, json!("12.5"), Integer, None),
            (Text, json!("hush"), Integer, None),
            (Text, json!("12.5"), Number, Some(json!(12.5))),
            (Text, json!("hush"), Number, None),
            (Text, json!("TRUE"), Boolean, Some(json!(true))),
            (Text, json!("hush"), Boolean, None),
            (Text, json!("[1]"), Json, Some(json!([1]))),
            (Text, json!("hush"), Json, None),
            (Integer, json!(12), Text, Some(json!("12"))),
            (Integer, json!(12), Number, Some(json!(12))),
            (Integer, json!(1), Boolean, Some(json!(true))),
            (Integer, json!(2), Boolean, None),
            (Integer, json!(12), Json, Some(json!(12))),
            (Number, json!(12.0), Integer, Some(json!(12))),
            (Number, json!(12.5), Integer, None),
            (Number, json!(12.0), Text, Some(json!("12"))),
            (Number, json!(12.5), Text, Some(json!("12.5"))),
            (Number, json!(12.0), Json, Some(json!(12))),
            (Number, json!(-0.5), Json, Some(json!(-0.5))),
            (Boolean, json!(true), Text, Some(json!("true"))),
            (Boolean, json!(false), Json, Some(json!(false))),
            (Boolean, json!(true), Integer, Some(json!(1))),
            (Boolean, json!(true), Number, Some(json!(1))),
            (Json, json!([1]), Text, Some(json!("[1]"))),
            (Json, json!([1]), Integer, None),
            (Json, json!(7), Integer, Some(json!(7))),
            (Json, json!(true), Boolean, Some(json!(true))),
            (Text, json!(null), Integer, Some(json!(null))),
            (Json, json!(null), Text, Some(json!(null))),
        ];
        for (number, (from, value, to, wanted)) in cases.into_iter().enumerate() {
            let found = converted(&fresh.store, owner.id, number, (from, &value), to).await;
            let on = if fresh.is_sqlite() {
                "SQLite"
            } else {
                "Postgres"
            };
            assert_eq!(found, wanted, "{value} from {from:?} to {to:?} on {on}");
        }
    });
}

const NAME: &str = "ThingDataOutput";

fn table() -> TableName {
    TableName::parse("thing_data_output_configurations").expect("a name")
}

fn matching(column: &str, value: Value) -> BTreeMap<String, Value> {
    [(column.to_owned(), value)].into()
}

/// The plugin after these steps, with a field for each of these columns.
fn after(steps: &[Migration], columns: &[(&str, ColumnType)]) -> Definition {
    let fields = columns
        .iter()
        .map(|(name, kind)| json!({"type": field(*kind), "name": name}))
        .collect();
    definition(NAME, fields, steps.to_vec())
}

#[test]
fn every_operation_does_the_same_on_both() {
    use ColumnType::{Boolean, Integer, Json, Number, Text};
    on_each_database(async |fresh| {
        let store = &fresh.store;
        let owner = product(store, "sales").await;
        let mut steps = vec![migration(
            "0001_create",
            vec![
                Operation::CreateTable {
                    table: table(),
                    columns: vec![
                        Column::id(),
                        Column {
                            nullable: false,
                            default: Some(json!("it's \\ \"x\"")),
                            ..column("name", Text)
                        },
                        column("days", Integer),
                        column("share", Number),
                        column("open", Boolean),
                        column("tags", Json),
                    ],
                },
                Operation::CreateIndex {
                    table: table(),
                    name: "ix_thing_tags".to_owned(),
                    columns: vec!["tags".to_owned(), "days".to_owned()],
                    unique: true,
                },
            ],
        )];
        let all = [
            ("name", Text),
            ("days", Integer),
            ("share", Number),
            ("open", Boolean),
            ("tags", Json),
        ];
        let handle = install(store, &after(&steps, &all)).await;
        let values = |name: &str, days: i64, tags: Value| json!({"name": name, "days": days, "share": 0.5, "open": true, "tags": tags});
        let make = async |handle: &_, name: &str, values: Value| {
            let draft = draft(owner.id, name, values);
            store.create_configuration(handle, draft, "ann").await
        };
        let first = make(&handle, "a", values("a", 1, json!({"z": 1, "a": [2]})))
            .await
            .expect("created");
        let second = make(&handle, "b", values("b", 1, json!([])))
            .await
            .expect("created");
        assert_eq!(
            make(&handle, "c", values("c", 1, json!([]))).await,
            Err(StoreError::Conflict(
                "another configuration has the same tags, days already".to_owned()
            ))
        );

        // Values of every type are set, and rows found by them.
        let set = |column: &str, value: Value, by: BTreeMap<String, Value>| Operation::Update {
            table: table(),
            set: matching(column, value),
            matching: by,
        };
        steps.push(migration(
            "0002_change",
            vec![
                set("days", json!(2), matching("tags", json!([]))),
                set("share", json!(0.25), matching("share", json!(0.5))),
                set("open", json!(null), matching("open", json!(true))),
                set("open", json!(false), matching("open", json!(null))),
                set("name", json!("it's"), matching("name", json!("a"))),
                set("tags", json!({"b": "\\ '"}), matching("days", json!(2))),
                Operation::AddColumn {
                    table: table(),
                    column: Column {
                        nullable: false,
                        default: Some(json!(["x"])),
                        ..column("more", Json)
                    },
                },
                Operation::RenameColumn {
                    table: table(),
                    from: "name".to_owned(),
                    to: "title".to_owned(),
                },
                Operation::DropColumn {
                    table: table(),
                    column: "open".to_owned(),
                },
            ],
        ));
        let mut changed = vec![
            ("title", Text),
            ("days", Integer),
            ("share", Number),
            ("tags", Json),
            ("more", Json),
        ];
        install(store, &after(&steps, &changed)).await;
        let read = async |id: Uuid| store.configuration(id).await.expect("read").expect("there");
        assert_eq!(
            read(first.id).await.values,
            map(
                json!({"title": "it's", "days": 1, "share": 0.25, "tags": {"z": 1, "a": [2]}, "more": ["x"]})
            )
        );
        let tags = json!({"b": "\\ '"});
        assert_eq!(
            read(second.id).await.values,
            map(json!({"title": "b", "days": 2, "share": 0.25, "tags": tags, "more": ["x"]}))
        );

        // A column under an index changes to and from JSON, and the index stays what it is.
        for (id, kind) in [("0003_text", Text), ("0004_json", Json)] {
            steps.push(migration(
                id,
                vec![Operation::AlterColumn {
                    table: table(),
                    column: column("tags", kind),
                }],
            ));
            changed[3].1 = kind;
            let handle = install(store, &after(&steps, &changed)).await;
            let tags = match kind {
                Json => tags.clone(),
                _ => Value::String(tags.to_string()),
            };
            let again = json!({"title": "d", "days": 2, "share": 1, "tags": tags, "more": []});
            assert_eq!(
                make(&handle, "d", again).await,
                Err(StoreError::Conflict(
                    "another configuration has the same tags, days already".to_owned()
                ))
            );
        }
        steps.push(migration(
            "0005_tidy",
            vec![
                Operation::DropIndex {
                    table: table(),
                    name: "ix_thing_tags".to_owned(),
                },
                Operation::DropTable { table: table() },
                Operation::CreateTable {
                    table: table(),
                    columns: vec![Column::id(), column("title", Text)],
                },
            ],
        ));
        let handle = install(store, &after(&steps, &[("title", Text)])).await;
        assert!(read(first.id).await.values.is_empty(), "its row is gone");
        let anew = draft(owner.id, "a", json!({"title": "new"}));
        let anew = store.update_configuration(&handle, first.id, None, anew, "bob");
        assert_eq!(
            anew.await.expect("updated").values,
            map(json!({"title": "new"}))
        );
    });
}
