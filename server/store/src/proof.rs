//! Whether a step is undone by its `down`: tried on a database in memory.
//!
//! A step may be called reversible only when this was seen, twice over:
//! - rows that are there before it are the same, and so is the table, after `up` and `down`; and after another `up` they
//!   are what they were after the first;
//! - rows that are written after it go down and come up again the same, except for what is only there since the step.
//!
//! The rows are the plugin's examples, and rows with values for each type of column that tell changes apart: texts that
//! look like numbers, numbers that are no integers, nulls, and whatever the step itself names. Rows that the step refuses
//! are left out, because it refuses them in the real table too, and then nothing is changed.

use std::collections::BTreeMap;

use patchbay_plugin::Map;
use patchbay_plugin::migration::{
    BASE_TABLE, ColumnType, Migration, Operation, Table, Tables, down_of,
};
use patchbay_plugin::name::TableName;
use rusqlite::Connection;
use serde_json::Value as Json;
use uuid::Uuid;

use crate::render::render;
use crate::session::Dialect;

/// What was seen of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// It is undone.
    Reversible,
    /// It is not, and nobody says that it would be: it has no `down`, or takes away what no `down` can bring back.
    Irreversible(String),
    /// Its `down` was written, and does not do what it is for.
    WrongDown(String),
}

impl Proof {
    /// Why it is not reversible; none when it is.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Proof::Reversible => None,
            Proof::Irreversible(reason) | Proof::WrongDown(reason) => Some(reason),
        }
    }
}

/// Tries the step at `place` of the steps that run, in order. `examples` are rows of the table `main`.
pub fn prove(
    steps: &[&Migration],
    place: usize,
    main: Option<&TableName>,
    examples: &[Map],
) -> Proof {
    let Some(step) = steps.get(place) else {
        return Proof::Irreversible("there is no such step".to_owned());
    };
    let mut before = Tables::default();
    let earlier = steps[..place].iter().flat_map(|step| &step.up);
    for operation in earlier.clone() {
        if let Err(reason) = before.apply(operation) {
            return Proof::Irreversible(format!("the steps before it cannot run: {reason}"));
        }
    }
    let down = match down_of(step, &before) {
        Ok(down) => down,
        Err(reason) => return Proof::Irreversible(reason),
    };
    let trial = Trial {
        earlier: earlier.collect(),
        up: &step.up,
        down: &down,
        before,
        main,
        examples,
    };
    match trial.run() {
        Ok(()) => Proof::Reversible,
        Err(Found { reason, wrong }) if wrong && step.down.is_some() => Proof::WrongDown(reason),
        Err(Found { reason, .. }) => Proof::Irreversible(reason),
    }
}

/// What was found against a step, and whether its `down` is to blame.
struct Found {
    reason: String,
    wrong: bool,
}

impl Found {
    fn wrong(reason: String) -> Found {
        Found {
            reason,
            wrong: true,
        }
    }

    fn lost(reason: String) -> Found {
        Found {
            reason,
            wrong: false,
        }
    }
}

struct Trial<'a> {
    earlier: Vec<&'a Operation>,
    up: &'a [Operation],
    down: &'a [Operation],
    before: Tables,
    main: Option<&'a TableName>,
    examples: &'a [Map],
}

/// What a database holds: the tables with their columns and indexes, and the cells of each row.
#[derive(Debug, Clone, PartialEq, Default)]
struct Contents {
    shape: BTreeMap<String, Vec<String>>,
    rows: BTreeMap<String, BTreeMap<String, BTreeMap<String, String>>>,
}

impl Trial<'_> {
    fn run(&self) -> Result<(), Found> {
        let mut after = self.before.clone();
        for operation in self.up {
            after
                .apply(operation)
                .map_err(|reason| Found::lost(format!("it cannot run: {reason}")))?;
        }
        let mut back = after.clone();
        for operation in self.down {
            back.apply(operation)
                .map_err(|reason| Found::wrong(format!("its down cannot run: {reason}")))?;
        }
        if let Some(difference) = self.before.difference(&back) {
            return Err(Found::wrong(format!(
                "after `down` the table is not as it was: {difference}"
            )));
        }
        let mut scratch = Scratch::open()?;
        let nothing = Tables::default();
        scratch.operate(self.earlier.iter().copied(), &nothing)?;

        // Rows that are there before.
        let tried = self.fill(&mut scratch, &self.before, &[(self.up, &self.before)])?;
        let first = scratch.contents()?;
        scratch.operate(self.up, &self.before)?;
        let up = scratch.contents()?;
        scratch
            .operate(self.down, &after)
            .map_err(|found| Found::wrong(format!("its down fails: {}", found.reason)))?;
        let down = scratch.contents()?;
        if let Some((what, is_wrong)) = first.against(&down, &self.taken_by_up()) {
            let reason = format!("after `up` and `down`, {what}");
            return Err(match is_wrong {
                true => Found::wrong(reason),
                false => Found::lost(format!(
                    "{reason}; nothing brings back what `up` takes away or changes"
                )),
            });
        }
        scratch.operate(self.up, &self.before)?;
        let again = scratch.contents()?;
        if let Some((what, _)) = up.against(&again, &[]) {
            return Err(Found::wrong(format!(
                "after `up`, `down` and `up` again, {what}"
            )));
        }
        if tried == 0 && !self.before.0.is_empty() {
            return Err(Found::lost(
                "it accepts none of the rows that it was tried with".to_owned(),
            ));
        }

        // Rows that are written since.
        self.fill(&mut scratch, &after, &[])?;
        let up = scratch.contents()?;
        scratch.operate(self.down, &after).map_err(|found| {
            Found::lost(format!(
                "rows as they may be written after it do not all go back: {}",
                found.reason
            ))
        })?;
        scratch.operate(self.up, &self.before).map_err(|found| {
            Found::wrong(format!(
                "after `down` it cannot run again: {}",
                found.reason
            ))
        })?;
        let again = scratch.contents()?;
        match up.against(&again, &self.taken(self.down)) {
            Some((what, true)) => Err(Found::lost(format!(
                "for rows that are written after it, after `down` and `up` again, {what}"
            ))),
            // What came with the step goes with it.
            Some((_, false)) | None => Ok(()),
        }
    }

    /// The columns that operations drop, `*` for all of a table.
    fn taken(&self, operations: &[Operation]) -> Vec<(String, String)> {
        let mut taken = Vec::new();
        for operation in operations {
            let table = operation.table().as_str().to_owned();
            match operation {
                Operation::DropTable { .. } => taken.push((table, "*".to_owned())),
                Operation::DropColumn { column, .. } => taken.push((table, column.clone())),
                // What is dropped under its later name was there under the earlier one.
                Operation::RenameColumn { from, to, .. }
                    if operations.iter().any(
                        |other| matches!(other, Operation::DropColumn { column, .. } if column == to),
                    ) =>
                {
                    taken.push((table, from.clone()));
                }
                _ => {}
            }
        }
        taken
    }

    /// The columns of which `up` itself loses values: those that it drops, and those that it makes another type or
    /// narrower, where '012' becomes 12. No `down` is to blame for them.
    fn taken_by_up(&self) -> Vec<(String, String)> {
        let mut taken = self.taken(self.up);
        let mut tables = self.before.clone();
        // Columns by the names that they have had before.
        let mut names: BTreeMap<(String, String), String> = BTreeMap::new();
        for operation in self.up {
            let table = operation.table().as_str().to_owned();
            let before = |name: &String| {
                let known = names.get(&(table.clone(), name.clone()));
                known.unwrap_or(name).clone()
            };
            match operation {
                Operation::AlterColumn { column, .. } if !operation.expands(&tables) => {
                    taken.push((table.clone(), before(&column.name)));
                }
                Operation::RenameColumn { from, to, .. } => {
                    let first = before(from);
                    names.insert((table.clone(), to.clone()), first);
                }
                _ => {}
            }
            // It was applied before, so it applies.
            let _ = tables.apply(operation);
        }
        taken
    }

    /// Puts rows into the tables, those with which all of `must_run` goes well. Says how many.
    fn fill(
        &self,
        scratch: &mut Scratch,
        tables: &Tables,
        must_run: &[(&[Operation], &Tables)],
    ) -> Result<usize, Found> {
        let mut filled = 0;
        for (name, table) in &tables.0 {
            let mut rows = generated(name, table, self.up.iter().chain(self.down));
            if self.main == Some(name) {
                rows.extend(
                    self.examples
                        .iter()
                        .map(|example| from_example(table, example)),
                );
            }
            for row in rows {
                scratch.run("SAVEPOINT row")?;
                let fits = scratch.insert(name, &row).is_ok() && {
                    scratch.run("SAVEPOINT trial")?;
                    let went = must_run
                        .iter()
                        .all(|(operations, tables)| scratch.operate(*operations, tables).is_ok());
                    scratch.run("ROLLBACK TO trial; RELEASE trial")?;
                    went
                };
                match fits {
                    true => filled += 1,
                    false => scratch.run("ROLLBACK TO row")?,
                }
                scratch.run("RELEASE row")?;
            }
        }
        Ok(filled)
    }
}

/// A database in memory.
struct Scratch {
    connection: Connection,
    /// How many rows were made, so that each has an id of its own.
    rows: u128,
}

impl Scratch {
    fn open() -> Result<Scratch, Found> {
        let connection = Connection::open_in_memory().map_err(|error| broken(&error))?;
        let scratch = Scratch {
            connection,
            rows: 0,
        };
        // A table is rebuilt with foreign keys off, as it is in earnest.
        scratch.run(&format!(
            "PRAGMA foreign_keys = OFF; CREATE TABLE {BASE_TABLE} (id text NOT NULL PRIMARY KEY)"
        ))?;
        Ok(scratch)
    }

    fn run(&self, sql: &str) -> Result<(), Found> {
        self.connection
            .execute_batch(sql)
            .map_err(|error| broken(&error))
    }

    fn operate<'a>(
        &self,
        operations: impl IntoIterator<Item = &'a Operation>,
        tables: &Tables,
    ) -> Result<(), Found> {
        let mut tables = tables.clone();
        for operation in operations {
            for sql in render(operation, &tables, Dialect::Sqlite) {
                self.run(&sql)?;
            }
            tables.apply(operation).map_err(Found::lost)?;
        }
        Ok(())
    }

    /// Adds a row, and the configuration it belongs to.
    fn insert(
        &mut self,
        table: &TableName,
        row: &BTreeMap<String, rusqlite::types::Value>,
    ) -> Result<(), Found> {
        self.rows += 1;
        let id = Uuid::from_u128(self.rows).to_string();
        let names: Vec<String> = row.keys().map(|name| format!("\"{name}\"")).collect();
        let places = vec!["?"; row.len() + 1].join(", ");
        let columns = std::iter::once("\"id\"".to_owned())
            .chain(names)
            .collect::<Vec<_>>()
            .join(", ");
        let sql = format!("INSERT INTO \"{table}\" ({columns}) VALUES ({places})");
        let values =
            std::iter::once(rusqlite::types::Value::Text(id.clone())).chain(row.values().cloned());
        self.connection
            .execute(
                &format!("INSERT INTO {BASE_TABLE} (id) VALUES (?)"),
                [id.as_str()],
            )
            .and_then(|_| {
                self.connection
                    .execute(&sql, rusqlite::params_from_iter(values))
            })
            .map(|_| ())
            .map_err(|error| broken(&error))
    }

    fn contents(&self) -> Result<Contents, Found> {
        self.read().map_err(|error| broken(&error))
    }

    fn read(&self) -> Result<Contents, rusqlite::Error> {
        let texts = |sql: &str, table: &str| -> Result<Vec<String>, rusqlite::Error> {
            let mut statement = self.connection.prepare(sql)?;
            let rows = statement.query_map([table], |row| row.get(0))?;
            rows.collect()
        };
        let mut contents = Contents::default();
        let tables = texts(
            "SELECT name FROM sqlite_schema WHERE type = 'table' AND name <> ? ORDER BY name",
            BASE_TABLE,
        )?;
        for table in tables {
            let mut shape = texts(
                "SELECT name || ' ' || type || ' ' || \"notnull\" || ' ' || coalesce(dflt_value, '-') || ' ' || pk \
                 FROM pragma_table_info(?) ORDER BY name",
                &table,
            )?;
            shape.extend(texts(
                "SELECT sql FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL AND tbl_name = ? ORDER BY name",
                &table,
            )?);
            let columns = texts("SELECT name FROM pragma_table_info(?)", &table)?;
            let cells: Vec<String> = columns
                .iter()
                .map(|column| format!("quote(\"{column}\")"))
                .collect();
            let sql = format!("SELECT id, {} FROM \"{table}\"", cells.join(", "));
            let mut statement = self.connection.prepare(&sql)?;
            let mut found = statement.query([])?;
            let mut rows = BTreeMap::new();
            while let Some(row) = found.next()? {
                let mut cells = BTreeMap::new();
                for (place, column) in columns.iter().enumerate() {
                    cells.insert(column.clone(), row.get(place + 1)?);
                }
                rows.insert(row.get(0)?, cells);
            }
            contents.shape.insert(table.clone(), shape);
            contents.rows.insert(table, rows);
        }
        Ok(contents)
    }
}

fn broken(error: &rusqlite::Error) -> Found {
    Found::lost(match error {
        rusqlite::Error::SqliteFailure(_, Some(words)) => words.clone(),
        // Its text would show the statement.
        rusqlite::Error::SqlInputError { msg, .. } => msg.clone(),
        other => other.to_string(),
    })
}

impl Contents {
    /// What is different in `now`, the gravest first, and whether it is anything but the values of what is `taken`.
    fn against(&self, now: &Contents, taken: &[(String, String)]) -> Option<(String, bool)> {
        if self.shape != now.shape {
            let told = |shape: &BTreeMap<String, Vec<String>>| {
                let tables: Vec<String> = shape
                    .iter()
                    .map(|(table, columns)| format!("{table} ({})", columns.join(", ")))
                    .collect();
                tables.join("; ")
            };
            return Some((
                format!(
                    "the tables were {}, and are {}",
                    told(&self.shape),
                    told(&now.shape)
                ),
                true,
            ));
        }
        let is_taken = |table: &str, column: &str| {
            taken
                .iter()
                .any(|(from, what)| from == table && (what == column || what == "*"))
        };
        let mut lost = None;
        for (table, rows) in &self.rows {
            let found = &now.rows[table];
            for (id, cells) in rows {
                let Some(other) = found.get(id) else {
                    if !is_taken(table, "*") {
                        return Some((format!("a row of {table} is gone"), true));
                    }
                    lost = lost.or_else(|| Some(format!("the rows of {table} are gone")));
                    continue;
                };
                for (column, cell) in cells {
                    let is = &other[column];
                    if is == cell {
                        continue;
                    }
                    let what = format!("{table}.{column} was {cell} in a row, and is {is}");
                    if !is_taken(table, column) {
                        return Some((what, true));
                    }
                    lost = lost.or(Some(what));
                }
            }
            if let Some(id) = found.keys().find(|id| !rows.contains_key(*id)) {
                return Some((format!("{table} has a row {id} that was not there"), true));
            }
        }
        lost.map(|what| (what, false))
    }
}

/// Rows with values that tell changes apart.
fn generated<'a>(
    name: &TableName,
    table: &Table,
    operations: impl Iterator<Item = &'a Operation>,
) -> Vec<BTreeMap<String, rusqlite::types::Value>> {
    use rusqlite::types::Value as Cell;
    let mut named: BTreeMap<&str, Vec<&Json>> = BTreeMap::new();
    let mut updates = Vec::new();
    for operation in operations.filter(|operation| operation.table() == name) {
        if let Operation::Update { set, matching, .. } = operation {
            updates.push(matching);
            for (column, value) in set.iter().chain(matching) {
                named.entry(column).or_default().push(value);
            }
        }
    }
    let cells: Vec<(&String, Vec<Cell>)> = table
        .columns
        .values()
        .filter(|column| column.name != "id")
        .map(|column| {
            let mut cells: Vec<Cell> = match column.kind {
                ColumnType::Text => ["", "x", "7", "012", "1.50", "TRUE", "false", "[1, 2]"]
                    .iter()
                    .map(|text| Cell::Text((*text).to_owned()))
                    .collect(),
                ColumnType::Integer => [0, 1, -7, 9_007_199_254_740_991].map(Cell::Integer).into(),
                ColumnType::Number => [0.0, 1.0, 1.5, -2.25, 1e300].map(Cell::Real).into(),
                ColumnType::Boolean => [0, 1].map(Cell::Integer).into(),
                ColumnType::Json => ["{\"a\":1}", "[1, 2]", "\"x\"", "7", "true"]
                    .iter()
                    .map(|text| Cell::Text((*text).to_owned()))
                    .collect(),
                ColumnType::Uuid => vec![Cell::Text(Uuid::from_u128(7).to_string())],
            };
            let literals = named.get(column.name.as_str()).into_iter().flatten();
            cells.extend(literals.map(|value| cell(column.kind, value)));
            cells.extend(
                column
                    .default
                    .as_ref()
                    .map(|value| cell(column.kind, value)),
            );
            if column.nullable {
                cells.push(Cell::Null);
            }
            (&column.name, cells)
        })
        .collect();
    let longest = cells
        .iter()
        .map(|(_, cells)| cells.len())
        .max()
        .unwrap_or(1);
    let row = |number: usize| -> BTreeMap<String, Cell> {
        cells
            .iter()
            .map(|(name, cells)| ((*name).clone(), cells[number % cells.len()].clone()))
            .collect()
    };
    // What an update matches is there in one row as well.
    let matched = updates.into_iter().map(|matching| {
        let mut matched = row(0);
        for (name, value) in matching {
            if let Some(column) = table.columns.get(name) {
                matched.insert(name.clone(), cell(column.kind, value));
            }
        }
        matched
    });
    (0..longest).map(row).chain(matched).collect()
}

fn from_example(table: &Table, example: &Map) -> BTreeMap<String, rusqlite::types::Value> {
    table
        .columns
        .values()
        .filter_map(|column| {
            let value = example.get(&column.name)?;
            Some((column.name.clone(), cell(column.kind, value)))
        })
        .collect()
}

/// A value of JSON as a cell of a column.
fn cell(kind: ColumnType, value: &Json) -> rusqlite::types::Value {
    use rusqlite::types::Value as Cell;
    match (kind, value) {
        (_, Json::Null) => Cell::Null,
        (ColumnType::Json, value) => Cell::Text(value.to_string()),
        (_, Json::Bool(value)) => Cell::Integer(i64::from(*value)),
        (ColumnType::Number, Json::Number(number)) => {
            number.as_f64().map_or(Cell::Null, Cell::Real)
        }
        (_, Json::Number(number)) => number.as_i64().map_or(Cell::Null, Cell::Integer),
        (_, Json::String(text)) => Cell::Text(text.clone()),
        (_, other) => Cell::Text(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use patchbay_plugin::migration::Column;
    use patchbay_plugin::name::MigrationId;
    use serde_json::json;

    use super::*;

    fn table() -> TableName {
        TableName::parse("lakes").expect("a name")
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

    fn step(up: Vec<Operation>, down: Option<Vec<Operation>>) -> Migration {
        Migration {
            id: MigrationId::parse("0002_step").expect("an id"),
            path: None,
            up,
            down,
        }
    }

    fn alter(column: Column) -> Operation {
        Operation::AlterColumn {
            table: table(),
            column,
        }
    }

    fn add(column: Column) -> Operation {
        Operation::AddColumn {
            table: table(),
            column,
        }
    }

    fn drop(column: &str) -> Operation {
        Operation::DropColumn {
            table: table(),
            column: column.to_owned(),
        }
    }

    fn update(column: &str, from: &str, to: &str) -> Operation {
        Operation::Update {
            table: table(),
            set: [(column.to_owned(), json!(to))].into(),
            matching: [(column.to_owned(), json!(from))].into(),
        }
    }

    /// Proves a step on a table with a text that may not be null, a text, and an integer.
    fn proved(up: Vec<Operation>, down: Option<Vec<Operation>>) -> Proof {
        let create = step(
            vec![Operation::CreateTable {
                table: table(),
                columns: vec![
                    Column::id(),
                    Column {
                        nullable: false,
                        ..column("name", ColumnType::Text)
                    },
                    column("note", ColumnType::Text),
                    column("days", ColumnType::Integer),
                ],
            }],
            None,
        );
        let step = step(up, down);
        prove(&[&create, &step], 1, Some(&table()), &[])
    }

    #[test]
    fn what_only_adds_or_renames_is_reversible() {
        for up in [
            vec![add(column("more", ColumnType::Json))],
            vec![add(Column {
                nullable: false,
                default: Some(json!("x")),
                ..column("more", ColumnType::Text)
            })],
            vec![Operation::RenameColumn {
                table: table(),
                from: "note".into(),
                to: "remark".into(),
            }],
            vec![Operation::CreateIndex {
                table: table(),
                name: "ix".into(),
                columns: vec!["name".into()],
                unique: true,
            }],
            vec![alter(Column {
                default: Some(json!("x")),
                ..column("note", ColumnType::Text)
            })],
        ] {
            assert_eq!(proved(up.clone(), None), Proof::Reversible, "{up:?}");
        }
        let create = step(
            vec![Operation::CreateTable {
                table: table(),
                columns: vec![Column::id()],
            }],
            None,
        );
        assert_eq!(prove(&[&create], 0, None, &[]), Proof::Reversible);
    }

    #[test]
    fn what_loses_something_is_not() {
        for (up, says) in [
            (vec![drop("note")], "no `down`"),
            (vec![update("note", "a", "b")], "no `down`"),
            // A text that looks like a number is another text afterwards.
            (
                vec![alter(column("note", ColumnType::Integer))],
                "lakes.note was '012' in a row, and is '12'",
            ),
            // A null becomes the default.
            (
                vec![alter(Column {
                    nullable: false,
                    default: Some(json!("x")),
                    ..column("note", ColumnType::Text)
                })],
                "lakes.note was NULL in a row, and is 'x'",
            ),
            // What may be written since does not go back.
            (
                vec![alter(column("name", ColumnType::Text))],
                "NOT NULL constraint failed",
            ),
            (
                vec![alter(column("days", ColumnType::Number))],
                "do not all go back",
            ),
        ] {
            let proof = proved(up.clone(), None);
            assert!(
                matches!(&proof, Proof::Irreversible(reason) if reason.contains(says)),
                "{up:?}: {proof:?}"
            );
        }
    }

    #[test]
    fn a_written_down_that_does_not_restore_is_named() {
        for (up, down, says) in [
            (
                vec![add(column("more", ColumnType::Text))],
                vec![],
                "lakes has a column more and should not",
            ),
            (
                vec![drop("note")],
                vec![add(column("note", ColumnType::Json))],
                "expected column.text \"note\"",
            ),
            (
                vec![update("note", "a", "b")],
                vec![update("note", "b", "a")],
                "lakes.note was 'b' in a row, and is 'a'",
            ),
            (
                vec![add(column("more", ColumnType::Text))],
                vec![drop("more"), drop("more")],
                "its down cannot run",
            ),
            (
                vec![Operation::RenameColumn {
                    table: table(),
                    from: "note".into(),
                    to: "remark".into(),
                }],
                vec![
                    Operation::RenameColumn {
                        table: table(),
                        from: "remark".into(),
                        to: "note".into(),
                    },
                    update("note", "x", "y"),
                ],
                "lakes.note was 'x' in a row, and is 'y'",
            ),
        ] {
            let proof = proved(up.clone(), Some(down));
            assert!(
                matches!(&proof, Proof::WrongDown(reason) if reason.contains(says)),
                "{up:?}: {proof:?}"
            );
        }
        // The table is as it was, and nobody can do more for what was dropped, or became another type.
        let to_number = alter(column("note", ColumnType::Integer));
        let proof = proved(
            vec![to_number],
            Some(vec![alter(column("note", ColumnType::Text))]),
        );
        assert!(
            matches!(&proof, Proof::Irreversible(reason) if reason.contains("was '012'")),
            "{proof:?}"
        );
        let proof = proved(
            vec![drop("note")],
            Some(vec![add(column("note", ColumnType::Text))]),
        );
        assert!(
            matches!(&proof, Proof::Irreversible(reason) if reason.contains("nothing brings back")),
            "{proof:?}"
        );
    }

    #[test]
    fn examples_and_what_an_update_matches_are_tried_too() {
        let mut tables = Tables::default();
        let create = Operation::CreateTable {
            table: table(),
            columns: vec![
                Column::id(),
                column("name", ColumnType::Text),
                column("days", ColumnType::Integer),
            ],
        };
        tables.apply(&create).expect("a table");
        let example = json!({"name": "an example", "unknown": 1});
        let matching = json!({"name": "p", "days": 3});
        let update = Operation::Update {
            table: table(),
            set: [("days".to_owned(), json!(4))].into(),
            matching: matching
                .as_object()
                .expect("an object")
                .clone()
                .into_iter()
                .collect(),
        };
        let mut scratch = Scratch::open().ok().expect("a scratch database");
        let trial = Trial {
            earlier: vec![&create],
            up: &[update],
            down: &[],
            before: tables.clone(),
            main: Some(&table()),
            examples: &[example.as_object().expect("an object").clone()],
        };
        scratch
            .operate([&create], &Tables::default())
            .ok()
            .expect("a table");
        trial.fill(&mut scratch, &tables, &[]).ok().expect("rows");
        let contents = scratch.contents().ok().expect("contents");
        let has = |name: &str, days: &str| {
            contents.rows["lakes"]
                .values()
                .any(|row| row["name"] == name && row["days"] == days)
        };
        assert!(has("'an example'", "NULL"), "{contents:?}");
        assert!(has("'p'", "3"), "{contents:?}");
        assert!(contents.rows["lakes"].len() > 8, "{contents:?}");
    }
}
