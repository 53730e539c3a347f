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
    assert_eq!(derive_down(&drop_note().up, &Tables::default()), None);
}
