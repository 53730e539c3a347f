//! What pending steps make of a row, before they run: so a plugin's rules can judge the row as it will be.

use serde_json::{Number, Value};

use super::{Column, ColumnType, Operation, Plan};
use crate::Map;
use crate::name::TableName;

impl Plan {
    /// Carries the values of one row of `table` through the pending steps, as the databases will.
    pub fn carry(&self, table: &TableName, values: &mut Map) {
        let steps = self.pending.iter().filter(|step| step.origin.runs());
        for operation in steps.flat_map(|step| &step.migration.up) {
            if operation.table() == table {
                operation.carry(values);
            }
        }
    }

    /// Whether the pending steps leave rows as they are.
    pub fn leaves_rows(&self) -> bool {
        self.pending
            .iter()
            .filter(|step| step.origin.runs())
            .flat_map(|step| &step.migration.up)
            .all(|operation| {
                matches!(
                    operation,
                    Operation::CreateIndex { .. } | Operation::DropIndex { .. }
                )
            })
    }
}

impl Operation {
    fn carry(&self, values: &mut Map) {
        match self {
            // The rows of a table that is new, or is dropped, have no values in it.
            Operation::CreateTable { .. } | Operation::DropTable { .. } => values.clear(),
            Operation::AddColumn { column, .. } => {
                let value = column.default.clone().unwrap_or(Value::Null);
                values.insert(column.name.clone(), value);
            }
            Operation::RenameColumn { from, to, .. } => {
                *values = std::mem::take(values)
                    .into_iter()
                    .map(|(key, value)| match key == *from {
                        true => (to.clone(), value),
                        false => (key, value),
                    })
                    .collect();
            }
            Operation::DropColumn { column, .. } => {
                values.shift_remove(column);
            }
            Operation::AlterColumn { column, .. } => {
                if let Some(value) = values.get_mut(&column.name) {
                    *value = altered(value.take(), column);
                }
            }
            Operation::CreateIndex { .. } | Operation::DropIndex { .. } => {}
            Operation::Update { set, matching, .. } => {
                let matches = matching
                    .iter()
                    .all(|(column, wanted)| values.get(column).unwrap_or(&Value::Null) == wanted);
                if matches {
                    for (column, value) in set {
                        values.insert(column.clone(), value.clone());
                    }
                }
            }
        }
    }
}

/// A value in a column that was changed. One that does not convert stays: the step itself is refused for its sake.
fn altered(value: Value, column: &Column) -> Value {
    if value.is_null() {
        return match (&column.default, column.nullable) {
            (Some(default), false) => default.clone(),
            _ => value,
        };
    }
    converted(&value, column.kind).unwrap_or(value)
}

fn converted(value: &Value, kind: ColumnType) -> Option<Value> {
    let text = match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let trimmed = text.trim();
    match kind {
        ColumnType::Text | ColumnType::Uuid => Some(Value::String(text)),
        ColumnType::Integer => match value {
            Value::Bool(value) => Some(Value::from(i64::from(*value))),
            Value::Number(number) if number.is_f64() => {
                let whole = number.as_f64().filter(|number| number.fract() == 0.0)?;
                Some(Value::from(whole as i64))
            }
            _ => trimmed.parse::<i64>().ok().map(Value::from),
        },
        ColumnType::Number => match value {
            Value::Number(_) => Some(value.clone()),
            Value::Bool(value) => Some(Value::from(i64::from(*value))),
            _ => Number::from_f64(trimmed.parse().ok()?).map(Value::Number),
        },
        ColumnType::Boolean => match trimmed.to_lowercase().as_str() {
            "true" | "t" | "1" => Some(Value::Bool(true)),
            "false" | "f" | "0" => Some(Value::Bool(false)),
            _ => None,
        },
        ColumnType::Json => match value {
            // A text that was JSON; one that only looks like a number is a text of JSON just as well.
            Value::String(text) if text.starts_with(['[', '{']) => serde_json::from_str(text).ok(),
            other => Some(other.clone()),
        },
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::migration::{Migration, Origin, PendingMigration};
    use crate::name::MigrationId;

    fn carried(operations: Value, row: Value) -> Value {
        let operations: Vec<Operation> =
            serde_json::from_value(operations).expect("operations as they are stored");
        let plan = Plan {
            pending: vec![PendingMigration {
                migration: Migration {
                    id: MigrationId::parse("0002_step").expect("an id"),
                    path: None,
                    up: operations,
                    down: None,
                },
                origin: Origin::Written,
                expands: false,
            }],
            ..Plan::default()
        };
        let Value::Object(mut values) = row else {
            panic!("a row is an object")
        };
        plan.carry(&TableName::parse("things").expect("a name"), &mut values);
        Value::Object(values)
    }

    #[test]
    fn a_row_is_carried_as_the_databases_carry_it() {
        let column = |name: &str, kind: &str, default: Value| json!({ "name": name, "type": kind, "nullable": default.is_null(), "default": default });
        let add = |column: Value| json!({ "add_column": { "table": "things", "column": column } });
        let alter =
            |column: Value| json!({ "alter_column": { "table": "things", "column": column } });
        let update = |set: Value, matching: Value| json!({ "update": { "table": "things", "set": set, "where": matching } });
        for (operations, row, wanted) in [
            (
                json!([
                    add(column("days", "integer", json!(7))),
                    add(column("note", "text", Value::Null))
                ]),
                json!({ "name": "a" }),
                json!({ "name": "a", "days": 7, "note": null }),
            ),
            (
                json!([
                    { "rename_column": { "table": "things", "from": "name", "to": "title" } },
                    { "drop_column": { "table": "things", "column": "days" } },
                    { "drop_column": { "table": "others", "column": "title" } },
                ]),
                json!({ "name": "a", "days": 7 }),
                json!({ "title": "a" }),
            ),
            (
                json!([
                    update(json!({ "name": "b" }), json!({ "name": "a" })),
                    update(json!({ "days": 1 }), json!({ "days": null }))
                ]),
                json!({ "name": "a", "days": null }),
                json!({ "name": "b", "days": 1 }),
            ),
            (
                json!([update(json!({ "name": "b" }), json!({ "name": "x" }))]),
                json!({ "name": "a" }),
                json!({ "name": "a" }),
            ),
            (
                json!([
                    alter(column("days", "integer", json!(0))),
                    alter(column("name", "text", json!("")))
                ]),
                json!({ "name": null, "days": "12" }),
                json!({ "name": "", "days": 12 }),
            ),
            // What does not convert makes the step itself fail, which says so better.
            (
                json!([alter(column("days", "integer", Value::Null))]),
                json!({ "days": "x" }),
                json!({ "days": "x" }),
            ),
        ] {
            assert_eq!(carried(operations.clone(), row), wanted, "{operations}");
        }
    }

    #[test]
    fn the_order_of_columns_is_kept() {
        let renamed = carried(
            json!([{ "rename_column": { "table": "things", "from": "a", "to": "z" } }]),
            json!({ "a": 1, "b": 2 }),
        );
        assert_eq!(renamed.to_string(), r#"{"z":1,"b":2}"#);
    }
}
