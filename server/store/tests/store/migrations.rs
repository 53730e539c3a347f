//! Plugins' tables: made, changed, rebuilt, and left as they were when a step fails.

use patchbay_plugin::migration::{Column, ColumnType, Operation, Origin, Reference};
use patchbay_plugin::name::{PluginName, TableName};
use patchbay_store::{Applying, ConfigurationQuery, StoreError};
use serde_json::{Value, json};

use crate::fixtures::{
    definition, draft, everything, install, map, migration, on_each_database, planned, product,
    simple,
};

const TABLE: &str = "file_data_output_configurations";

fn table() -> TableName {
    TableName::parse(TABLE).expect("a name")
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

fn fields(fields: &[(&str, &str)]) -> Value {
    fields
        .iter()
        .map(|(kind, name)| json!({"type": kind, "name": name}))
        .collect()
}

#[test]
fn a_derived_table_gets_a_column_for_a_new_field() {
    on_each_database(async |fresh| {
        let store = &fresh.store;
        let first = definition("FileDataOutput", fields(&[("string", "path")]), vec![]);
        let handle = install(store, &first).await;
        let owner = product(store, "sales").await;
        let values = json!({"path": "x"});
        let old = store
            .create_configuration(&handle, draft(owner.id, "old", values.clone()), "ann")
            .await
            .expect("created");

        let second = definition(
            "FileDataOutput",
            json!([{"type": "string", "name": "path"}, {"type": "integer", "name": "days", "default": 7}]),
            vec![],
        );
        let next = install(store, &second).await;
        let history = store.history(&second.name).await.expect("a history");
        let told: Vec<_> = history
            .iter()
            .map(|step| {
                (
                    step.migration.id.as_str(),
                    step.origin,
                    step.applied_by.as_str(),
                )
            })
            .collect();
        assert_eq!(
            told,
            [
                ("0001_create_table", Origin::Derived, "test"),
                ("0002_add_days", Origin::Derived, "test")
            ]
        );
        let histories = store.histories().await.expect("histories");
        assert_eq!(histories["FileDataOutput"], history);

        let read = store
            .configuration(old.id)
            .await
            .expect("read")
            .expect("there");
        assert_eq!(read.values, map(json!({"path": "x", "days": 7})));
        // The handle of the version before is told to come back with the current one.
        let late = draft(owner.id, "late", values);
        assert_eq!(
            store
                .create_configuration(&handle, late.clone(), "ann")
                .await,
            Err(StoreError::HeadMoved)
        );
        assert_eq!(
            store
                .update_configuration(&handle, old.id, None, late, "ann")
                .await,
            Err(StoreError::HeadMoved)
        );
        let values = json!({"path": "y", "days": 3});
        store
            .create_configuration(&next, draft(owner.id, "new", values), "ann")
            .await
            .expect("created");
    });
}

#[test]
fn a_rebuilt_table_keeps_rows_indexes_and_what_refers_to_it() {
    on_each_database(async |fresh| {
        let store = &fresh.store;
        let notes = TableName::parse("file_notes").expect("a name");
        let create = migration(
            "0001_create",
            vec![
                Operation::CreateTable {
                    table: table(),
                    columns: vec![
                        Column::id(),
                        column("path", ColumnType::Text),
                        column("days", ColumnType::Text),
                    ],
                },
                Operation::CreateIndex {
                    table: table(),
                    name: "ix_file_path".to_owned(),
                    columns: vec!["path".to_owned()],
                    unique: true,
                },
                Operation::CreateTable {
                    table: notes.clone(),
                    columns: vec![
                        Column::id(),
                        Column {
                            references: Some(Reference {
                                table: TABLE.to_owned(),
                                column: "id".to_owned(),
                                cascade: true,
                            }),
                            ..column("file_id", ColumnType::Uuid)
                        },
                    ],
                },
            ],
        );
        let first = definition(
            "FileDataOutput",
            fields(&[("string", "path"), ("string", "days")]),
            vec![create.clone()],
        );
        let handle = install(store, &first).await;
        let owner = product(store, "sales").await;
        let made = store
            .create_configuration(
                &handle,
                draft(owner.id, "a", json!({"path": "x", "days": "12"})),
                "ann",
            )
            .await
            .expect("created");
        let id = made.id.to_string();
        fresh
            .run(&format!(
                "INSERT INTO file_notes (id, file_id) VALUES ('{id}', '{id}')"
            ))
            .await;

        let alter = migration(
            "0002_days_are_a_number",
            vec![Operation::AlterColumn {
                table: table(),
                column: Column {
                    nullable: false,
                    default: Some(json!(1)),
                    ..column("days", ColumnType::Integer)
                },
            }],
        );
        let second = definition(
            "FileDataOutput",
            json!([{"type": "string", "name": "path"}, {"type": "integer", "name": "days", "default": 1}]),
            vec![create, alter],
        );
        let handle = install(store, &second).await;
        let read = store
            .configuration(made.id)
            .await
            .expect("read")
            .expect("there");
        assert_eq!(read.values, map(json!({"path": "x", "days": 12})));
        let notes = fresh.number("SELECT count(*) FROM file_notes").await;
        assert_eq!(notes, 1, "what refers to the table stays");
        let again = draft(owner.id, "b", json!({"path": "x", "days": 1}));
        assert_eq!(
            store.create_configuration(&handle, again, "ann").await,
            Err(StoreError::Conflict(
                "another configuration has the same path already".to_owned()
            )),
            "the unique index is there again"
        );
        store
            .delete_configuration(made.id, None, "ann")
            .await
            .expect("deleted");
        for rows in [TABLE, "file_notes"] {
            let rows = fresh.number(&format!("SELECT count(*) FROM {rows}")).await;
            assert_eq!(rows, 0, "foreign keys cascade again");
        }
    });
}

#[test]
fn a_step_that_fails_half_way_leaves_everything_as_it_was() {
    on_each_database(async |fresh| {
        let store = &fresh.store;
        let first = definition("FileDataOutput", fields(&[("string", "path")]), vec![]);
        let handle = install(store, &first).await;
        let owner = product(store, "sales").await;
        for name in ["a", "b"] {
            store
                .create_configuration(
                    &handle,
                    draft(owner.id, name, json!({"path": "same"})),
                    "ann",
                )
                .await
                .expect("created");
        }
        let before = fresh.shape().await;
        let add = Operation::AddColumn {
            table: table(),
            column: column("extra", ColumnType::Text),
        };
        let unique = Operation::CreateIndex {
            table: table(),
            name: "ix_path".to_owned(),
            columns: vec!["path".to_owned()],
            unique: true,
        };
        let convert = Operation::AlterColumn {
            table: table(),
            column: column("path", ColumnType::Integer),
        };
        let wanted = |kind| fields(&[(kind, "path"), ("string", "extra")]);
        let within =
            |failing: &Operation| vec![migration("0002_more", vec![add.clone(), failing.clone()])];
        // The first of two steps is taken back with the second.
        let after = |failing: &Operation| {
            vec![
                migration("0002_add", vec![add.clone()]),
                migration("0003_more", vec![failing.clone()]),
            ]
        };
        for (kind, steps, says) in [
            (
                "string",
                within(&unique),
                "rows agree in path, which shall be unique",
            ),
            ("integer", within(&convert), ""),
            (
                "string",
                after(&unique),
                "rows agree in path, which shall be unique",
            ),
            ("integer", after(&convert), ""),
        ] {
            let last = steps.last().map(|step| step.id.clone());
            let next = definition("FileDataOutput", wanted(kind), steps);
            let plan = planned(store, &next).await;
            let error = store
                .migrate(&next, &plan, "test")
                .await
                .expect_err("it fails");
            let StoreError::Migration { id, reason } = &error else {
                panic!("{error:?}")
            };
            assert_eq!(Some(id), last.as_ref());
            assert!(reason.contains(says), "{reason}");
            assert!(!reason.contains("INSERT") && !reason.is_empty(), "{reason}");
            assert_eq!(fresh.shape().await, before);
            assert_eq!(store.history(&next.name).await.expect("a history").len(), 1);
        }
        // Not even the enforcement of references was left off.
        let nowhere = draft(uuid::Uuid::nil(), "c", json!({"path": "x"}));
        assert!(matches!(
            store.create_configuration(&handle, nowhere, "ann").await,
            Err(StoreError::NotFound(_))
        ));
        store
            .create_configuration(&handle, draft(owner.id, "c", json!({"path": "x"})), "ann")
            .await
            .expect("the handle is still right");
    });
}

#[test]
fn a_table_of_another_plugin_is_refused_and_so_is_a_reference_to_one() {
    on_each_database(async |fresh| {
        let store = &fresh.store;
        install(store, &simple("FileDataOutput")).await;
        let thief = definition(
            "FileTwoDataOutput",
            fields(&[("string", "path")]),
            vec![migration(
                "0001_create",
                vec![Operation::CreateTable {
                    table: table(),
                    columns: vec![Column::id()],
                }],
            )],
        );
        let plan = planned(store, &thief).await;
        assert_eq!(
            store.migrate(&thief, &plan, "test").await,
            Err(StoreError::TableTaken {
                table: TABLE.to_owned(),
                plugin: "FileDataOutput".to_owned()
            })
        );
        let leech = definition(
            "LeechDataOutput",
            fields(&[("string", "path")]),
            vec![migration(
                "0001_create",
                vec![Operation::CreateTable {
                    table: TableName::parse("leech_data_output_configurations").expect("a name"),
                    columns: vec![
                        Column::id(),
                        Column {
                            references: Some(Reference {
                                table: TABLE.to_owned(),
                                column: "id".to_owned(),
                                cascade: false,
                            }),
                            ..column("path", ColumnType::Text)
                        },
                    ],
                }],
            )],
        );
        let plan = planned(store, &leech).await;
        let error = store.migrate(&leech, &plan, "test").await;
        assert!(
            matches!(error, Err(StoreError::Migration { .. })),
            "{error:?}"
        );
    });
}

#[test]
fn a_plan_on_an_older_history_is_refused() {
    on_each_database(async |fresh| {
        let store = &fresh.store;
        let definition = simple("FileDataOutput");
        let plan = planned(store, &definition).await;
        store
            .migrate(&definition, &plan, "test")
            .await
            .expect("migrated");
        assert_eq!(
            store.migrate(&definition, &plan, "test").await,
            Err(StoreError::HeadMoved)
        );
        let unknown = simple("OtherDataOutput");
        assert_eq!(
            store.record_definition(&unknown, Applying::default()).await,
            Err(StoreError::HeadMoved)
        );
    });
}

#[test]
fn rows_of_a_plugin_that_is_gone_or_broken_are_still_read() {
    on_each_database(async |fresh| {
        let store = &fresh.store;
        let gone = install(store, &everything()).await;
        let broken = install(store, &simple("BrokenDataOutput")).await;
        let owner = product(store, "sales").await;
        let values = json!({"database": "x", "schema": "s", "days": 1, "share": null, "open": true,
            "granularity": "table", "tags": ["a"], "extra": null});
        store
            .create_configuration(&gone, draft(owner.id, "gone", values.clone()), "ann")
            .await
            .expect("created");
        let lost = store
            .create_configuration(
                &broken,
                draft(owner.id, "broken", json!({"path": "x"})),
                "ann",
            )
            .await
            .expect("created");
        fresh
            .run("DROP TABLE broken_data_output_configurations")
            .await;
        // A new store knows no plugin but by what is applied.
        store.close().await;
        let store = fresh.open_beside().await;
        let page = store
            .configurations(ConfigurationQuery {
                limit: 10,
                ..ConfigurationQuery::default()
            })
            .await
            .expect("a page");
        let read: Vec<_> = page
            .items
            .iter()
            .map(|row| (row.name.as_str(), Value::Object(row.values.clone())))
            .collect();
        assert_eq!(read, [("broken", json!({})), ("gone", values)]);
        store
            .delete_configuration(lost.id, None, "ann")
            .await
            .expect("deleted");

        let applied = store.applied_definitions().await.expect("definitions");
        let kept = &applied["EverythingDataOutput"];
        assert_eq!(kept.fields, everything().fields);
        assert_eq!((kept.version.as_str(), kept.revision), ("1.0.0", 1));
    });
}

#[test]
fn a_definition_is_recorded_once_for_each_change() {
    on_each_database(async |fresh| {
        let store = &fresh.store;
        let mut definition = simple("FileDataOutput");
        install(store, &definition).await;
        let counter = store.row_counter("FileDataOutput");
        store
            .record_definition(&definition, Applying::default())
            .await
            .expect("recorded");
        assert_eq!(
            store.row_counter("FileDataOutput"),
            counter,
            "nothing was written"
        );
        definition.version = "1.1".to_owned();
        store
            .record_definition(&definition, Applying::default())
            .await
            .expect("recorded");
        assert!(store.row_counter("FileDataOutput") > counter);
        let applied = store.applied_definitions().await.expect("definitions");
        let recorded = &applied["FileDataOutput"];
        assert_eq!((recorded.version.as_str(), recorded.revision), ("1.1", 2));
        assert_eq!(
            recorded.head.as_ref().map(|id| id.as_str()),
            Some("0001_create_table")
        );

        // A plugin without fields has a definition, and neither table nor history.
        let tile = crate::fixtures::definition("TileDataOutput", json!([]), vec![]);
        store
            .record_definition(&tile, Applying::default())
            .await
            .expect("recorded");
        let plan = planned(store, &tile).await;
        let error = store
            .create_configuration(
                &store.table(&tile, &plan),
                draft(uuid::Uuid::nil(), "x", json!({})),
                "ann",
            )
            .await;
        assert!(matches!(error, Err(StoreError::Conflict(_))), "{error:?}");
        let nobody = PluginName::parse("Nobody").expect("a name");
        assert_eq!(store.history(&nobody).await, Ok(Vec::new()));
    });
}

#[test]
fn steps_rename_drop_and_update() {
    on_each_database(async |fresh| {
        let store = &fresh.store;
        let first = definition(
            "FileDataOutput",
            fields(&[("string", "path"), ("string", "note"), ("boolean", "open")]),
            vec![],
        );
        let handle = install(store, &first).await;
        let owner = product(store, "sales").await;
        for (name, open) in [("a", json!(true)), ("b", json!(null))] {
            let values = json!({"path": name, "note": "n", "open": open});
            store
                .create_configuration(&handle, draft(owner.id, name, values), "ann")
                .await
                .expect("created");
        }
        let steps = vec![
            Operation::Update {
                table: table(),
                set: [("open".to_owned(), json!(false))].into(),
                matching: [("open".to_owned(), json!(null))].into(),
            },
            Operation::RenameColumn {
                table: table(),
                from: "path".to_owned(),
                to: "location".to_owned(),
            },
            Operation::DropColumn {
                table: table(),
                column: "note".to_owned(),
            },
        ];
        let second = definition(
            "FileDataOutput",
            fields(&[("string", "location"), ("boolean", "open")]),
            vec![migration("0002_tidy", steps)],
        );
        install(store, &second).await;
        let page = store
            .configurations(ConfigurationQuery {
                limit: 10,
                ..ConfigurationQuery::default()
            })
            .await
            .expect("a page");
        let values: Vec<_> = page
            .items
            .into_iter()
            .map(|row| Value::Object(row.values))
            .collect();
        assert_eq!(
            values,
            [
                json!({"location": "b", "open": false}),
                json!({"location": "a", "open": true})
            ]
        );
    });
}
