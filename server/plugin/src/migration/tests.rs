//! The laws of plans and tables.

use time::OffsetDateTime;

use crate::definition::Definition;
use crate::name::{MigrationId, TableName};
use crate::term::Term;

use super::*;

fn definition(fields: &[(&str, bool)], migrations: Vec<Migration>) -> Definition {
    let fields = fields
        .iter()
        .map(|(name, required)| {
            Term::Table(vec![
                ("type".into(), Term::String("string".into())),
                ("name".into(), Term::String((*name).into())),
                ("required".into(), Term::Boolean(*required)),
            ])
        })
        .collect();
    Definition::read(
        Term::Table(vec![
            ("name".into(), Term::String("Example".into())),
            ("table".into(), Term::String("example_rows".into())),
            ("fields".into(), Term::List(fields)),
        ]),
        migrations,
    )
    .expect("a definition")
}

fn applied(plan: &Plan) -> Vec<AppliedMigration> {
    plan.pending
        .iter()
        .map(|step| AppliedMigration {
            checksum: step.migration.checksum(),
            migration: step.migration.clone(),
            origin: step.origin,
            applied_at: OffsetDateTime::UNIX_EPOCH,
            applied_by: "test".into(),
        })
        .collect()
}

fn ids(plan: &Plan) -> Vec<&str> {
    plan.pending
        .iter()
        .map(|step| step.migration.id.as_str())
        .collect()
}

fn drop_note() -> Migration {
    let table = TableName::parse("example_rows").expect("a name");
    Migration {
        id: MigrationId::parse("0002_drop_note").expect("an id"),
        path: None,
        up: vec![Operation::DropColumn {
            table,
            column: "note".into(),
        }],
        down: None,
    }
}

#[test]
fn a_table_and_later_a_column_are_derived_from_the_fields() {
    let first = plan(&definition(&[("a", true)], vec![]), &[]).expect("a plan");
    assert_eq!(ids(&first), ["0001_create_table"]);
    let history = applied(&first);
    let second = plan(&definition(&[("a", true), ("b", true)], vec![]), &history).expect("a plan");
    assert_eq!(ids(&second), ["0002_add_b"]);
    assert!(second.pending[0].expands);
    let nothing = plan(&definition(&[("a", true)], vec![]), &history).expect("a plan");
    assert!(nothing.pending.is_empty());
    assert_eq!(nothing.head.expect("a head").as_str(), "0001_create_table");
}

#[test]
fn a_removal_needs_a_written_step_which_does_not_run_by_itself() {
    let history =
        applied(&plan(&definition(&[("a", true), ("note", false)], vec![]), &[]).expect("a plan"));
    let error = plan(&definition(&[("a", true)], vec![]), &history).expect_err("a removal");
    assert!(
        error
            .to_string()
            .contains("m:drop_column(\"example_rows\", \"note\")"),
        "{error}"
    );
    let written = plan(&definition(&[("a", true)], vec![drop_note()]), &history).expect("a plan");
    assert_eq!(ids(&written), ["0002_drop_note"]);
    assert!(!written.pending[0].expands);
}

#[test]
fn on_a_new_database_older_steps_are_the_baseline() {
    let fresh = plan(&definition(&[("a", true)], vec![drop_note()]), &[]).expect("a plan");
    assert_eq!(ids(&fresh), ["0001_create_table", "0002_drop_note"]);
    assert_eq!(fresh.pending[1].origin, Origin::Baseline);
    assert!(
        plan(
            &definition(&[("a", true)], vec![drop_note()]),
            &applied(&fresh)
        )
        .expect("a plan")
        .pending
        .is_empty()
    );
}

#[test]
fn an_edited_or_lost_step_is_reported() {
    let history =
        applied(&plan(&definition(&[("a", true)], vec![drop_note()]), &[]).expect("a plan"));
    let mut edited = drop_note();
    edited.up.clear();
    assert!(matches!(
        plan(&definition(&[("a", true)], vec![edited]), &history),
        Err(PlanError::Edited { .. })
    ));
    assert!(matches!(
        plan(&definition(&[("a", true)], vec![]), &history),
        Err(PlanError::Gone { .. })
    ));
}

#[test]
fn an_optional_field_widens_its_column() {
    let history = applied(&plan(&definition(&[("a", true)], vec![]), &[]).expect("a plan"));
    let wider = plan(&definition(&[("a", false)], vec![]), &history).expect("a plan");
    assert_eq!(ids(&wider), ["0002_widen_a"]);
    assert!(wider.pending[0].expands);
}

#[test]
fn a_table_without_the_right_id_is_refused_with_the_remedy() {
    let table = TableName::parse("example_rows").expect("a name");
    for columns in [
        vec![],
        vec![Column {
            references: None,
            ..Column::id()
        }],
        vec![Column {
            primary_key: false,
            ..Column::id()
        }],
    ] {
        let error = Tables::default()
            .apply(&Operation::CreateTable {
                table: table.clone(),
                columns,
            })
            .expect_err("no id");
        assert!(error.contains("column.id()"), "{error}");
    }
}

#[test]
fn down_is_derived_where_nothing_is_lost() {
    let table = TableName::parse("example_rows").expect("a name");
    let create = Operation::CreateTable {
        table: table.clone(),
        columns: vec![Column::id()],
    };
    let down = derive_down(std::slice::from_ref(&create), &Tables::default()).expect("a down");
    let mut tables = Tables::default();
    tables.apply(&create).expect("up");
    for operation in &down {
        tables.apply(operation).expect("down");
    }
    assert_eq!(tables, Tables::default());
    let none = derive_down(&drop_note().up, &Tables::default()).expect_err("values are lost");
    assert!(
        none.contains("m:drop_column(\"example_rows\", \"note\")"),
        "{none}"
    );
}

fn id(text: &str) -> MigrationId {
    MigrationId::parse(text).expect("an id")
}

fn example_table() -> TableName {
    TableName::parse("example_rows").expect("a name")
}

#[test]
fn the_operation_that_was_edited_is_named() {
    let history =
        applied(&plan(&definition(&[("a", true)], vec![drop_note()]), &[]).expect("a plan"));
    let mut edited = drop_note();
    edited.up.push(Operation::AddColumn {
        table: example_table(),
        column: Column {
            primary_key: false,
            references: None,
            nullable: true,
            ..Column::id()
        },
    });
    edited.up[0] = Operation::DropColumn {
        table: example_table(),
        column: "other".into(),
    };
    let error = plan(&definition(&[("a", true)], vec![edited]), &history).expect_err("edited");
    assert_eq!(
        error.to_string(),
        "the migration 0002_drop_note was changed after it was applied: in `up`, operation 1 was \
         m:drop_column(\"example_rows\", \"note\"), is now m:drop_column(\"example_rows\", \"other\"); restore it and write \
         a new migration for the change"
    );
    let mut with_down = drop_note();
    with_down.down = Some(Vec::new());
    let error = plan(&definition(&[("a", true)], vec![with_down]), &history).expect_err("edited");
    assert!(error.to_string().contains("it has a `down` now"), "{error}");
}

#[test]
fn a_file_for_a_table_that_was_derived_before_counts_as_applied() {
    let fields = [("a", true), ("b", true)];
    let grown = plan(&definition(&fields[..1], vec![]), &[]).expect("a plan");
    let mut history = applied(&grown);
    history.extend(applied(
        &plan(&definition(&fields, vec![]), &history).expect("a plan"),
    ));
    // Under the id of a derived step, and under another one.
    for name in ["0001_create_table", "0003_create_table"] {
        let created = Migration {
            id: id(name),
            path: None,
            up: vec![Operation::CreateTable {
                table: example_table(),
                columns: vec![
                    Column::id(),
                    Column::of(&definition(&fields, vec![]).fields[0]),
                    Column::of(&definition(&fields, vec![]).fields[1]),
                ],
            }],
            down: None,
        };
        let taken_over =
            plan(&definition(&fields, vec![created.clone()]), &history).expect("a plan");
        assert!(
            taken_over.pending.iter().all(|step| !step.origin.runs()),
            "{taken_over:?}"
        );
        let mut then = history.clone();
        then.extend(applied(&taken_over));
        let settled = plan(&definition(&fields, vec![created.clone()]), &then).expect("a plan");
        assert!(settled.pending.is_empty(), "{settled:?}");
        // On an empty database it runs.
        let fresh = plan(&definition(&fields, vec![created.clone()]), &[]).expect("a plan");
        assert_eq!(fresh.pending[0].origin, Origin::Written);
        // One that makes another table is not taken for it.
        let mut other = created;
        other.up = vec![Operation::CreateTable {
            table: example_table(),
            columns: vec![Column::id()],
        }];
        plan(&definition(&fields, vec![other]), &history).expect_err("another table");
    }
}

#[test]
fn a_step_is_found_by_its_number_or_its_id() {
    let ids = [
        id("0000_base"),
        id("0001_one"),
        id("0002_two"),
        id("0002_too"),
    ];
    let ids: Vec<&MigrationId> = ids.iter().collect();
    assert_eq!(find_step("0", &ids), Ok(None));
    assert_eq!(find_step("1", &ids), Ok(Some(ids[1])));
    assert_eq!(find_step("0001", &ids), Ok(Some(ids[1])));
    assert_eq!(find_step("0000_base", &ids), Ok(Some(ids[0])));
    for (text, says) in [
        ("2", "0002_two, 0002_too; name one by its id"),
        ("9", "found \"9\""),
        ("0001_onw", "did you mean \"0001_one\"?"),
        ("", "there are 0000_base, 0001_one"),
        ("99999999999999999999", "and 0 for nothing applied"),
    ] {
        let error = find_step(text, &ids).expect_err(text).to_string();
        assert!(error.contains(says), "{error}");
    }
}

#[test]
fn the_way_back_takes_steps_back_from_the_last() {
    let wide = definition(&[("a", true), ("note", false)], vec![]);
    let mut history = applied(&plan(&definition(&[("a", true)], vec![]), &[]).expect("a plan"));
    history.extend(applied(&plan(&wide, &history).expect("a plan")));
    let way = way_back(&history, Some(&id("0001_create_table"))).expect("a way");
    assert_eq!(way.kept, 1);
    assert_eq!(way.head, Some(id("0001_create_table")));
    assert_eq!(
        way.steps[0].operations,
        [Operation::DropColumn {
            table: example_table(),
            column: "note".into()
        }]
    );
    let all = way_back(&history, None).expect("a way");
    assert_eq!(all.tables, Tables::default());
    let ids: Vec<&str> = all
        .steps
        .iter()
        .map(|step| step.migration.id.as_str())
        .collect();
    assert_eq!(ids, ["0002_add_note", "0001_create_table"]);
    way_back(&history, Some(&id("0009_nothing"))).expect_err("no such step");

    // What is taken away has no way back, unless its author wrote one, which has to restore the table.
    let dropped = |down: Option<Vec<Operation>>| {
        let mut history = history.clone();
        let migration = Migration {
            id: id("0003_drop_note"),
            down,
            ..drop_note()
        };
        history.push(AppliedMigration {
            checksum: migration.checksum(),
            migration,
            origin: Origin::Written,
            applied_at: OffsetDateTime::UNIX_EPOCH,
            applied_by: "test".into(),
        });
        way_back(&history, Some(&id("0002_add_note"))).map_err(|error| error.to_string())
    };
    let error = dropped(None).expect_err("nothing brings it back");
    assert!(
        error.contains("0003_drop_note") && error.contains("no `down`"),
        "{error}"
    );
    let add = |nullable: bool| Operation::AddColumn {
        table: example_table(),
        column: Column {
            nullable,
            default: (!nullable).then(|| serde_json::json!("")),
            ..Column::of(&wide.fields[1])
        },
    };
    dropped(Some(vec![add(true)])).expect("a way");
    let error = dropped(Some(vec![add(false)])).expect_err("another column");
    assert!(
        error.contains("does not restore the table: expected column.text \"note\" in example_rows"),
        "{error}"
    );
}

#[test]
fn there_is_no_stopping_beside_a_baseline() {
    let history =
        applied(&plan(&definition(&[("a", true)], vec![drop_note()]), &[]).expect("a plan"));
    let error = way_back(&history, Some(&id("0001_create_table"))).expect_err("a baseline");
    assert!(error.to_string().contains("0, 0002_drop_note"), "{error}");
    let all = way_back(&history, None).expect("a way");
    assert_eq!(all.steps[0].operations, []);
}

#[test]
fn a_change_of_a_column_may_be_undone_by_the_change_back() {
    let history = applied(&plan(&definition(&[("a", true)], vec![]), &[]).expect("a plan"));
    let wider = plan(&definition(&[("a", false)], vec![]), &history).expect("a plan");
    let mut before = Tables::default();
    before.apply(&history[0].migration.up[0]).expect("a table");
    let down = derive_down(&wider.pending[0].migration.up, &before).expect("a down");
    assert_eq!(
        down,
        [Operation::AlterColumn {
            table: example_table(),
            column: before.0[&example_table()].columns["a"].clone(),
        }]
    );
}

#[test]
fn on_an_empty_database_nothing_waits_to_be_told() {
    let create = Migration {
        id: id("0001_create"),
        path: None,
        up: vec![Operation::CreateTable {
            table: example_table(),
            columns: vec![
                Column::id(),
                Column::of(&definition(&[("a", true)], vec![]).fields[0]),
                Column::of(&definition(&[("note", false)], vec![]).fields[0]),
            ],
        }],
        down: None,
    };
    let definition = definition(&[("a", true)], vec![create.clone(), drop_note()]);
    let fresh = plan(&definition, &[]).expect("a plan");
    assert!(fresh.pending.iter().all(|step| step.expands), "{fresh:?}");
    let later = plan(&definition, &applied(&fresh)[..1]).expect("a plan");
    assert!(!later.pending[0].expands, "rows may be there by then");
}
