//! A definition as it is at one of its steps, where some migrations have not run yet.

use super::{AppliedMigration, ColumnType, PendingMigration, Plan, Tables, WayError, plan, ran};
use crate::definition::Definition;
use crate::field::Field;
use crate::name::{MigrationId, TableName};
use crate::term::{Mistakes, Path, Term};

/// The definition as it would be at a pending step, and the plan to there: with the migrations up to it, and the fields
/// that have a column by then. `whole` is the plan, and `count` how many of its steps are to be taken.
///
/// # Errors
/// [`WayError::NoStop`] when one cannot stop there.
pub fn as_of(
    definition: &Definition,
    history: &[AppliedMigration],
    whole: &Plan,
    count: usize,
) -> Result<(Definition, Plan), WayError> {
    let part = &whole.pending[..count];
    let last = part.last().map(|step| step.migration.id.to_string());
    let last = last.unwrap_or_default();
    if let Some(step) = whole.pending[count..]
        .iter()
        .find(|step| !step.origin.runs())
    {
        return Err(WayError::NoStop(format!(
            "one cannot stop at {last}: the table is made from the newest fields, and {} is only recorded with it",
            step.migration.id
        )));
    }
    let part_ran = part.iter().filter(|step| step.origin.runs());
    let part_ran = part_ran.map(|step| &step.migration);
    let tables = Tables::after(ran(history).chain(part_ran)).map_err(WayError::NoStop)?;
    let is_there = |id: &MigrationId| {
        history.iter().any(|step| step.migration.id == *id)
            || part.iter().any(|step| step.migration.id == *id)
    };
    let table = definition
        .table
        .clone()
        .filter(|table| tables.0.contains_key(table));
    let fields = table
        .as_ref()
        .map(|table| fields_of(table, &tables, &definition.fields))
        .unwrap_or_default();
    let part_of = Definition {
        migrations: definition
            .migrations
            .iter()
            .filter(|migration| is_there(&migration.id))
            .cloned()
            .collect(),
        table,
        fields,
        ..definition.clone()
    };
    let plan = plan(&part_of, history).map_err(|error| WayError::NoStop(error.to_string()))?;
    let ids = |steps: &[PendingMigration]| -> Vec<MigrationId> {
        steps.iter().map(|step| step.migration.id.clone()).collect()
    };
    if ids(&plan.pending) != ids(part) {
        return Err(WayError::NoStop(format!(
            "one cannot stop at {last}: the steps to there are not the first ones of the way"
        )));
    }
    Ok((part_of, plan))
}

/// The fields by which the rows of a table can be read: those of `known` that have their column, and one for each other
/// column. A column that no field can be for, such as one of ids, is left out.
pub fn fields_of(table: &TableName, tables: &Tables, known: &[Field]) -> Vec<Field> {
    let Some(found) = tables.0.get(table) else {
        return Vec::new();
    };
    let fits = |field: &&Field| {
        found
            .columns
            .get(field.name.as_str())
            .is_some_and(|column| column.kind == ColumnType::of(&field.kind))
    };
    let mut fields: Vec<Field> = known.iter().filter(fits).cloned().collect();
    for column in found.columns.values() {
        let word = match column.kind {
            ColumnType::Text => "string",
            ColumnType::Integer => "integer",
            ColumnType::Number => "number",
            ColumnType::Boolean => "boolean",
            ColumnType::Json => "json",
            ColumnType::Uuid => continue,
        };
        if fields
            .iter()
            .any(|field| field.name.as_str() == column.name)
        {
            continue;
        }
        let mut entries = vec![
            ("type".to_owned(), Term::String(word.to_owned())),
            ("name".to_owned(), Term::String(column.name.clone())),
            ("required".to_owned(), Term::Boolean(!column.nullable)),
        ];
        if let Some(default) = &column.default {
            entries.push(("default".to_owned(), Term::from_json(default.clone())));
        }
        let mut mistakes = Mistakes::default();
        let field = Field::read(Term::Table(entries), Path::default(), &mut mistakes);
        if let Ok(field) = mistakes.into_result(field) {
            fields.push(field);
        }
    }
    fields
}
