//! The rows that a plugin owns: read in chunks, carried over with a step, or not at all.

use std::collections::BTreeSet;
use std::sync::Arc;

use patchbay_plugin::configuration::Action;
use patchbay_plugin::definition::Definition;
use patchbay_store::{Applied, Applying, Carried, OwnRow, OwnRows, Store};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::fixtures::{
    checked, definition, draft, everything, install, map, on_each_database, planned, product,
};

async fn all(store: &Store, rows: &OwnRows) -> Vec<OwnRow> {
    store
        .own_row_chunk(rows, Uuid::nil(), Uuid::max(), 10_000)
        .await
        .expect("rows")
}

/// The plugin's next version, which has these fields.
fn next(version: &str, fields: Value) -> Definition {
    Definition {
        version: version.to_owned(),
        ..definition("FileDataOutput", fields, Vec::new())
    }
}

#[test]
fn rows_are_read_once_each_in_runs() {
    on_each_database(async |fresh| {
        let store = &fresh.store;
        let plugin = everything();
        assert!(store.own_rows(&plugin.name).await.expect("none").is_none());
        let handle = install(store, &plugin).await;
        let (one, two) = (product(store, "one").await, product(store, "two").await);
        let values = json!({"database": "d", "granularity": "table", "tags": ["a"], "extra": {"x": 1.50}, "share": 0.5});
        let values = checked(&plugin, values);
        let mut ids = BTreeSet::new();
        for number in 0..50 {
            let owner = if number % 2 == 0 { one.id } else { two.id };
            let draft = draft(owner, &format!("n{number}"), values.clone());
            let created = store
                .create_configuration(&handle, draft, "ann")
                .await
                .expect("created");
            ids.insert(created.id);
        }
        let rows = store
            .own_rows(&plugin.name)
            .await
            .expect("read")
            .expect("rows");
        assert_eq!((rows.total, rows.version()), (50, "1.0.0"));
        let marks = store.own_row_marks(&rows, 7).await.expect("marks");
        assert_eq!(marks.len(), 6);
        let mut seen = Vec::new();
        let ends = marks.iter().copied().chain([Uuid::max()]);
        for (after, until) in std::iter::once(Uuid::nil())
            .chain(marks.iter().copied())
            .zip(ends)
        {
            let mut after = after;
            let before = seen.len();
            loop {
                let chunk = store
                    .own_row_chunk(&rows, after, until, 3)
                    .await
                    .expect("a chunk");
                let Some(last) = chunk.last() else { break };
                after = last.id;
                seen.extend(chunk);
            }
            assert!(
                (6..=9).contains(&(seen.len() - before)),
                "runs are of about one length"
            );
        }
        assert_eq!(seen.len(), 50);
        assert_eq!(seen.iter().map(|row| row.id).collect::<BTreeSet<_>>(), ids);
        assert!(seen.windows(2).all(|pair| pair[0].id < pair[1].id));
        for row in &seen {
            let stored = store
                .configuration(row.id)
                .await
                .expect("read")
                .expect("a row");
            assert_eq!(
                (row.revision, &*row.plugin_version),
                (stored.revision, "1.0.0")
            );
            assert_eq!(row.values, stored.values);
            let owner = if stored.data_product_id == one.id {
                &one
            } else {
                &two
            };
            assert_eq!(*row.data_product, *owner);
        }
        let two_of_them: Vec<Uuid> = ids
            .iter()
            .copied()
            .take(2)
            .chain([Uuid::nil(), Uuid::max()])
            .collect();
        let read = store
            .own_rows_of(&rows, two_of_them.clone())
            .await
            .expect("rows");
        assert_eq!(
            read.iter().map(|row| row.id).collect::<Vec<_>>(),
            two_of_them[..2]
        );
    });
}

#[test]
fn rows_are_carried_over_with_the_step_or_not_at_all() {
    on_each_database(async |fresh| {
        let store = &fresh.store;
        let path = json!({"type": "string", "name": "path", "required": true});
        let first = next("1.0.0", json!([path]));
        let handle = install(store, &first).await;
        let owner = product(store, "sales").await;
        let mut ids = Vec::new();
        for name in ["a", "b", "c"] {
            let draft = draft(owner.id, name, json!({"path": name}));
            let created = store.create_configuration(&handle, draft, "ann").await;
            ids.push(created.expect("created").id);
        }
        let second = next("2.0.0", json!([path, {"type": "integer", "name": "days"}]));
        assert!(
            store
                .has_rows_of_other_versions(&second)
                .await
                .expect("read")
        );
        let rows = store
            .own_rows(&first.name)
            .await
            .expect("read")
            .expect("rows");
        let carry = |carried: &mut Carried, row: &OwnRow| {
            let values = json!({"path": format!("{}!", row.values["path"].as_str().expect("a text")), "days": 1});
            carried.carry(row, map(values), &second.version);
        };
        let mut carried = Carried::default();
        for row in all(store, &rows).await {
            // The last one stays.
            match row.id == ids[2] {
                true => carried.keep(&row),
                false => carry(&mut carried, &row),
            }
        }
        assert_eq!(carried.len(), 2);
        // One is written, one deleted, one new, in the meantime.
        let changed = draft(owner.id, "a", json!({"path": "new a"}));
        store
            .update_configuration(&handle, ids[0], None, changed, "ann")
            .await
            .expect("changed");
        store
            .delete_configuration(ids[1], None, "ann")
            .await
            .expect("deleted");
        let created = draft(owner.id, "d", json!({"path": "d"}));
        let new = store
            .create_configuration(&handle, created, "ann")
            .await
            .expect("created")
            .id;
        let before = fresh.shape().await;
        let plan = planned(store, &second).await;
        let applying = |carried: &Carried| Applying {
            by: "eve".to_owned(),
            code: Some("c0de".to_owned()),
            carried: Some(Arc::new(carried.clone())),
            ..Applying::default()
        };
        let applied = store
            .migrate_with(&second, &plan, applying(&carried))
            .await
            .expect("an answer");
        let Applied::Moved(moved) = applied else {
            panic!("{applied:?}")
        };
        assert_eq!(
            moved.iter().collect::<BTreeSet<_>>(),
            [ids[0], ids[1], new].iter().collect()
        );
        assert_eq!(fresh.shape().await, before, "nothing has happened");
        for id in &moved {
            carried.forget(*id);
        }
        for row in store.own_rows_of(&rows, moved).await.expect("rows") {
            carry(&mut carried, &row);
        }
        let applied = store.migrate_with(&second, &plan, applying(&carried)).await;
        assert_eq!(applied.expect("an answer"), Applied::Done);
        for (id, path, days, revision, version) in [
            (ids[0], "new a!", json!(1), 3, "2.0.0"),
            (new, "d!", json!(1), 2, "2.0.0"),
            (ids[2], "c", Value::Null, 1, "1.0.0"),
        ] {
            let row = store.configuration(id).await.expect("read").expect("a row");
            assert_eq!(
                Value::Object(row.values),
                json!({"path": path, "days": days})
            );
            assert_eq!(
                (row.revision, row.plugin_version.as_str()),
                (revision, version)
            );
        }
        let history = store.revisions(ids[0]).await.expect("a history");
        let last = history.last().expect("a revision");
        assert_eq!(
            (last.action, last.changed_by.as_str()),
            (Action::Upgrade, "eve")
        );
        assert_eq!(
            last.changes["configuration.path"],
            json!({"from": "new a", "to": "new a!"})
        );
        assert_eq!(
            last.changes["plugin_version"],
            json!({"from": "1.0.0", "to": "2.0.0"})
        );
        let marks = store.applied_marks().await.expect("marks");
        let mark = &marks[second.name.as_str()];
        assert_eq!(
            (mark.version.as_str(), mark.code.as_deref()),
            ("2.0.0", Some("c0de"))
        );
        // The code is kept until another one is recorded, or the table is migrated without one.
        store
            .record_definition(&second, Applying::default())
            .await
            .expect("recorded");
        store
            .record_definition(
                &second,
                Applying {
                    code: Some("other".to_owned()),
                    ..Applying::default()
                },
            )
            .await
            .expect("recorded");
        let marks = store.applied_marks().await.expect("marks");
        assert_eq!(marks[second.name.as_str()].code.as_deref(), Some("other"));
        // A handle for rows that are only shown writes nothing.
        let (shown, fields) = store
            .applied_table(&second.name)
            .await
            .expect("read")
            .expect("a table");
        assert_eq!(fields, second.fields);
        let refused = store
            .create_configuration(&shown, draft(owner.id, "e", json!({"path": "e"})), "ann")
            .await;
        assert_eq!(refused, Err(patchbay_store::StoreError::HeadMoved));
    });
}
