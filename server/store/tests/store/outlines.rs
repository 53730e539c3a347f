//! What the next version of a plugin is compared with when its code is gone.

use patchbay_plugin::change::changes;
use patchbay_plugin::migration::{Column, ColumnType, Operation, plan, way_back};
use patchbay_plugin::name::TableName;
use patchbay_plugin::outline::Outline;
use patchbay_store::{Applying, Store};
use serde_json::json;

use crate::fixtures::{
    Fresh, definition, everything, install, migration, on_each_database, planned, simple,
};

async fn outline(store: &Store, plugin: &str) -> Option<Outline> {
    let mut all = store.applied_outlines().await.expect("outlines");
    all.remove(plugin)
}

async fn broken_promise(store: &Store, plugin: &str) -> Option<String> {
    let marks = store.applied_marks().await.expect("marks");
    marks[plugin].broken_promise.clone()
}

/// The database as the schema before left it, opened by a server of this one.
async fn reopened_from_before(fresh: &Fresh) -> Store {
    fresh.store.close().await;
    fresh
        .run(
            "ALTER TABLE applied_definitions DROP COLUMN outline; \
             ALTER TABLE applied_definitions DROP COLUMN broken_promise; \
             DELETE FROM refinery_schema_history WHERE version = 5",
        )
        .await;
    fresh.open_beside().await
}

#[test]
fn all_that_versions_are_compared_by_is_kept_also_by_another_process() {
    on_each_database(async |fresh| {
        let store = &fresh.store;
        let every = everything();
        install(store, &every).await;
        let promise = Some("too little".to_owned());
        let applying = Applying {
            by: "ann".to_owned(),
            broken_promise: promise.clone(),
            ..Applying::default()
        };
        store
            .record_definition(&every, applying.clone())
            .await
            .expect("recorded");
        let other = fresh.open_beside().await;
        let kept = outline(&other, every.name.as_str()).await;
        assert_eq!(kept, Some(Outline::of(&every)));
        assert_eq!(changes(&kept.expect("one"), &every), []);
        assert_eq!(broken_promise(&other, every.name.as_str()).await, promise);
        // What is the same is not written again.
        let counter = store.row_counter(every.name.as_str());
        store
            .record_definition(&every, applying)
            .await
            .expect("recorded");
        assert_eq!(store.row_counter(every.name.as_str()), counter);
        // An alias alone is a difference, and the number may keep its word again.
        let mut aliased = every.clone();
        aliased.aliases = vec!["Everything".to_owned().try_into().expect("a name")];
        store
            .record_definition(&aliased, Applying::default())
            .await
            .expect("recorded");
        let kept = outline(store, every.name.as_str()).await;
        assert_eq!(kept, Some(Outline::of(&aliased)));
        assert_eq!(broken_promise(store, every.name.as_str()).await, None);
    });
}

#[test]
fn what_an_earlier_patchbay_applied_is_compared_by_fields_and_table() {
    on_each_database(async |fresh| {
        let every = everything();
        install(&fresh.store, &every).await;
        let tile = definition("TileDataOutput", json!([]), vec![]);
        fresh
            .store
            .record_definition(&tile, Applying::default())
            .await
            .expect("recorded");
        let store = reopened_from_before(&fresh).await;
        let expected = Outline {
            face: None,
            ..Outline::of(&every)
        };
        assert_eq!(outline(&store, every.name.as_str()).await, Some(expected));
        assert_eq!(outline(&store, "TileDataOutput").await, None);
        // The first server that takes it writes down the rest.
        store
            .record_definition(&every, Applying::default())
            .await
            .expect("recorded");
        assert_eq!(
            outline(&store, every.name.as_str()).await,
            Some(Outline::of(&every))
        );
    });
}

#[test]
fn steps_on_the_way_and_steps_back_leave_what_is_compared_with() {
    on_each_database(async |fresh| {
        let store = &fresh.store;
        let first = simple("FileDataOutput");
        install(store, &first).await;
        let add = Operation::AddColumn {
            table: TableName::parse("file_data_output_configurations").expect("a name"),
            column: Column {
                name: "days".to_owned(),
                kind: ColumnType::Integer,
                nullable: true,
                default: None,
                primary_key: false,
                references: None,
            },
        };
        let fields = json!([{"type": "string", "name": "path", "required": true}, {"type": "integer", "name": "days"}]);
        let mut second = definition(
            "FileDataOutput",
            fields,
            vec![migration("0002_days", vec![add])],
        );
        second.version = "2.0.0".to_owned();
        let plan_to = planned(store, &second).await;
        let applying = Applying {
            by: "ann".to_owned(),
            partly: true,
            ..Applying::default()
        };
        store
            .migrate_with(&second, &plan_to, applying)
            .await
            .expect("applied");
        let kept = outline(store, "FileDataOutput").await;
        assert_eq!(kept, Some(Outline::of(&first)));
        let history = store.history(&first.name).await.expect("a history");
        let way = way_back(&history, Some(&history[0].migration.id)).expect("a way");
        store
            .migrate_back(&first.name, &way, true, "ann")
            .await
            .expect("taken back");
        let after = Outline {
            taken_back: vec![history[1].migration.id.clone()],
            ..Outline::of(&first)
        };
        assert_eq!(outline(store, "FileDataOutput").await, Some(after));
        // Dropped, it is as if it had never been there.
        store
            .drop_plugin_tables(&first.name, "ann")
            .await
            .expect("dropped");
        assert_eq!(outline(store, "FileDataOutput").await, None);
        assert!(plan(&first, &[]).is_ok());
    });
}
