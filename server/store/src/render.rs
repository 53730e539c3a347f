//! Operations as SQL: what a migration does to tables, as the statements that do it. No connection is needed, so that a
//! step can be shown for either database before it runs.
//!
//! SQLite cannot change a column, so there the table is rebuilt: a new one is made, the rows are copied into it, the old
//! one is dropped and the new one takes its name and indexes. That must run with foreign keys off (see
//! [`needs_rebuild`]), or dropping the old table would take along every row that refers to it.
//!
//! SQLite also lets any value into any column. Checks on the columns make it as strict as Postgres is, so that a value
//! that cannot be converted fails the step on both.

use patchbay_plugin::migration::{Column, ColumnType, Operation, Table as Shape, Tables};
use sea_query::{
    Asterisk, ColumnDef, Expr, ExprTrait, ForeignKey, ForeignKeyAction, Func, Index,
    PostgresQueryBuilder, Query, QueryStatementWriter, SchemaStatementBuilder, SqliteQueryBuilder,
    Table,
};
use serde_json::Value as Json;

use crate::session::{Dialect, Statement};

/// What a table is called while it is rebuilt. No plugin's table can have that name, because of the space.
const REBUILT: &str = "patchbay rebuild";

/// The SQL of one operation, statement by statement. `tables` is what the plugin's tables are before it runs; an
/// operation that does not apply to them gives what is left of it, which fails when it is run.
pub fn render(operation: &Operation, tables: &Tables, dialect: Dialect) -> Vec<String> {
    let renderer = Renderer { dialect };
    let shape = tables.0.get(operation.table());
    let name = || operation.table().as_str().to_owned();
    match operation {
        Operation::CreateTable { columns, .. } => vec![renderer.create(&name(), columns)],
        Operation::DropTable { .. } => {
            vec![renderer.schema(Table::drop().table(name()))]
        }
        Operation::AddColumn { column, .. } => {
            let mut definition = renderer.column(column);
            vec![renderer.schema(Table::alter().table(name()).add_column(&mut definition))]
        }
        Operation::RenameColumn { from, to, .. } => vec![
            renderer.schema(
                Table::alter()
                    .table(name())
                    .rename_column(from.clone(), to.clone()),
            ),
        ],
        Operation::DropColumn { column, .. } => {
            vec![renderer.schema(Table::alter().table(name()).drop_column(column.clone()))]
        }
        Operation::AlterColumn { column, .. } => {
            let Some(shape) = shape else {
                return Vec::new();
            };
            match dialect {
                Dialect::Sqlite => renderer.rebuild(&name(), shape, column),
                Dialect::Postgres => renderer.alter(&name(), shape, column),
            }
        }
        Operation::CreateIndex {
            name: index,
            columns,
            unique,
            ..
        } => vec![renderer.index(&name(), index, columns, *unique, shape, None)],
        Operation::DropIndex { name: index, .. } => {
            let mut drop = Index::drop();
            drop.name(index.clone());
            // Postgres finds an index by its name alone; so does SQLite.
            vec![renderer.schema(&drop)]
        }
        Operation::Update { set, matching, .. } => {
            let kind = |column: &str| {
                shape
                    .and_then(|shape| shape.columns.get(column))
                    .map_or(ColumnType::Text, |column| column.kind)
            };
            let mut query = Query::update();
            query.table(name());
            query.values(
                set.iter()
                    .map(|(column, value)| (column.clone(), literal(kind(column), value))),
            );
            for (column, value) in matching {
                let cell = Expr::col(column.clone());
                query.and_where(match value {
                    Json::Null => cell.is_null(),
                    value => renderer
                        .comparable(cell, kind(column))
                        .eq(literal(kind(column), value)),
                });
            }
            vec![renderer.query(&query)]
        }
    }
}

/// Whether the operation rebuilds a table, and so must run in a transaction that was begun with foreign keys off.
pub fn needs_rebuild(operation: &Operation, dialect: Dialect) -> bool {
    dialect == Dialect::Sqlite && matches!(operation, Operation::AlterColumn { .. })
}

/// What a column of a type is in the database.
pub(crate) fn type_word(kind: ColumnType, dialect: Dialect) -> &'static str {
    Renderer { dialect }.type_of(kind)
}

/// The statement that counts the rows of which an operation loses something, and what is lost, in words; none for an
/// operation that loses nothing. A column that is changed in place may lose what its values were, so all rows count.
pub(crate) fn lost(
    operation: &Operation,
    tables: &Tables,
    dialect: Dialect,
) -> Option<(Statement, String)> {
    let renderer = Renderer { dialect };
    let shape = tables.0.get(operation.table())?;
    let name = operation.table().as_str();
    let mut count = Query::select();
    count
        .expr(Func::count(Expr::col(Asterisk)))
        .from(name.to_owned());
    let what = match operation {
        Operation::DropTable { .. } => format!("all of {name}"),
        Operation::DropColumn { column, .. } => {
            let old = shape.columns.get(column)?;
            let cell = || Expr::col(column.clone());
            count.and_where(match &old.default {
                None => cell().is_not_null(),
                Some(default) => cell().is_null().or(renderer
                    .comparable(cell(), old.kind)
                    .ne(literal(old.kind, default))),
            });
            format!("the values of {name}.{column}")
        }
        Operation::AlterColumn { column, .. } if !operation.expands(tables) => format!(
            "what {name}.{} was before it becomes {}",
            column.name,
            column.kind.word()
        ),
        _ => return None,
    };
    let sql = renderer.query(&count);
    Some((Statement { sql: sql.into() }, what))
}

struct Renderer {
    dialect: Dialect,
}

impl Renderer {
    fn schema(&self, statement: &impl SchemaStatementBuilder) -> String {
        match self.dialect {
            Dialect::Sqlite => statement.build(SqliteQueryBuilder),
            Dialect::Postgres => statement.build(PostgresQueryBuilder),
        }
    }

    fn query(&self, statement: &impl QueryStatementWriter) -> String {
        match self.dialect {
            Dialect::Sqlite => statement.to_string(SqliteQueryBuilder),
            Dialect::Postgres => statement.to_string(PostgresQueryBuilder),
        }
    }

    fn create<'a>(&self, table: &str, columns: impl IntoIterator<Item = &'a Column>) -> String {
        let mut create = Table::create();
        create.table(table.to_owned());
        for column in columns {
            create.col(self.column(column));
            if let Some(reference) = &column.references {
                let mut key = ForeignKey::create();
                key.from(table.to_owned(), column.name.clone())
                    .to(reference.table.clone(), reference.column.clone());
                if reference.cascade {
                    key.on_delete(ForeignKeyAction::Cascade);
                }
                create.foreign_key(&mut key);
            }
        }
        self.schema(&create)
    }

    /// `shape` is the table; `changed`, when there is one, takes the place of the column of its name.
    fn index(
        &self,
        table: &str,
        name: &str,
        columns: &[String],
        unique: bool,
        shape: Option<&Shape>,
        changed: Option<&Column>,
    ) -> String {
        let mut create = Index::create();
        create.name(name.to_owned()).table(table.to_owned());
        for column in columns {
            let kind = changed
                .filter(|changed| changed.name == *column)
                .or_else(|| shape?.columns.get(column))
                .map_or(ColumnType::Text, |column| column.kind);
            match (self.dialect, kind) {
                (Dialect::Postgres, ColumnType::Json) => {
                    create.col(self.comparable(Expr::col(column.clone()), kind));
                }
                _ => {
                    create.col(column.clone());
                }
            }
        }
        if unique {
            create.unique();
        }
        self.schema(&create)
    }

    /// A cell as something that can be compared and ordered: Postgres does neither with JSON, only with its text.
    fn comparable(&self, cell: Expr, kind: ColumnType) -> Expr {
        match (self.dialect, kind) {
            (Dialect::Postgres, ColumnType::Json) => cell.cast_as("text"),
            _ => cell,
        }
    }

    fn column(&self, column: &Column) -> ColumnDef {
        let mut definition = ColumnDef::new(column.name.clone());
        definition.custom(self.type_of(column.kind));
        if !column.nullable {
            definition.not_null();
        }
        if column.primary_key {
            definition.primary_key();
        }
        if let Some(default) = &column.default {
            definition.default(literal(column.kind, default));
        }
        if self.dialect == Dialect::Sqlite
            && let Some(check) = strict(column)
        {
            definition.check(check);
        }
        definition
    }

    fn type_of(&self, kind: ColumnType) -> &'static str {
        match (self.dialect, kind) {
            (_, ColumnType::Text) => "text",
            (Dialect::Sqlite, ColumnType::Json | ColumnType::Uuid) => "text",
            (_, ColumnType::Boolean) => "boolean",
            (Dialect::Sqlite, ColumnType::Integer) => "integer",
            (Dialect::Sqlite, ColumnType::Number) => "real",
            (Dialect::Postgres, ColumnType::Integer) => "bigint",
            (Dialect::Postgres, ColumnType::Number) => "double precision",
            // Not `jsonb`: the bytes of a value are kept.
            (Dialect::Postgres, ColumnType::Json) => "json",
            (Dialect::Postgres, ColumnType::Uuid) => "uuid",
        }
    }

    /// Changes a column on SQLite.
    fn rebuild(&self, table: &str, shape: &Shape, changed: &Column) -> Vec<String> {
        let columns: Vec<&Column> = shape
            .columns
            .values()
            .map(|column| match column.name == changed.name {
                true => changed,
                false => column,
            })
            .collect();
        let mut copied = Query::select();
        copied.from(table.to_owned());
        for column in shape.columns.values() {
            copied.expr(match column.name == changed.name {
                true => sqlite_converted(column, changed),
                false => Expr::col(column.name.clone()),
            });
        }
        let mut copy = Query::insert();
        copy.into_table(REBUILT)
            .columns(shape.columns.keys().cloned());
        // It cannot fail: both lists are the columns of the shape.
        if copy.select_from(copied).is_err() {
            return Vec::new();
        }
        let mut statements = vec![
            self.create(REBUILT, columns),
            self.query(&copy),
            self.schema(Table::drop().table(table.to_owned())),
            self.schema(Table::rename().table(REBUILT, table.to_owned())),
        ];
        for (name, (columns, unique)) in &shape.indexes {
            statements.push(self.index(table, name, columns, *unique, Some(shape), None));
        }
        statements
    }

    /// Changes a column on Postgres.
    fn alter(&self, table: &str, shape: &Shape, changed: &Column) -> Vec<String> {
        let Some(old) = shape.columns.get(&changed.name) else {
            return Vec::new();
        };
        let alter = |definition: &mut ColumnDef| {
            self.schema(
                Table::alter()
                    .table(table.to_owned())
                    .modify_column(definition),
            )
        };
        let definition = || ColumnDef::new(changed.name.clone());
        let mut statements = Vec::new();
        if old.default.is_some() && (changed.default != old.default || changed.kind != old.kind) {
            // The old default may not convert by itself, and sea-query has no statement for it.
            statements.push(format!(
                "ALTER TABLE \"{table}\" ALTER COLUMN \"{}\" DROP DEFAULT",
                changed.name
            ));
        }
        // An index over JSON is one over its text, so it does not follow the column into the other type.
        let remade: Vec<_> = shape
            .indexes
            .iter()
            .filter(|(_, (columns, _))| columns.contains(&changed.name))
            .filter(|_| (old.kind == ColumnType::Json) != (changed.kind == ColumnType::Json))
            .collect();
        for (name, _) in &remade {
            statements.push(self.schema(Index::drop().name((*name).clone())));
        }
        if changed.kind != old.kind {
            statements.push(alter(
                definition()
                    .custom(self.type_of(changed.kind))
                    .using(postgres_converted(old, changed, self.type_of(changed.kind))),
            ));
        }
        if let Some(default) = &changed.default
            && (changed.default != old.default || changed.kind != old.kind)
        {
            statements.push(alter(definition().default(literal(changed.kind, default))));
        }
        match (old.nullable, changed.nullable) {
            (true, false) => {
                if let Some(default) = &changed.default {
                    let mut fill = Query::update();
                    fill.table(table.to_owned())
                        .value(changed.name.clone(), literal(changed.kind, default))
                        .and_where(Expr::col(changed.name.clone()).is_null());
                    statements.push(self.query(&fill));
                }
                statements.push(alter(definition().not_null()));
            }
            (false, true) => statements.push(alter(definition().null())),
            _ => {}
        }
        for (name, (columns, unique)) in remade {
            let (shape, changed) = (Some(shape), Some(changed));
            statements.push(self.index(table, name, columns, *unique, shape, changed));
        }
        statements
    }
}

/// What SQLite must check so that a column holds only values of its type. Text needs none: the column's affinity makes
/// text of any number.
fn strict(column: &Column) -> Option<Expr> {
    let cell = || Expr::col(column.name.clone());
    let type_of = || Expr::from(Func::cust("typeof").arg(cell()));
    match column.kind {
        ColumnType::Integer => Some(type_of().is_in(["integer", "null"])),
        ColumnType::Number => Some(type_of().is_in(["real", "null"])),
        ColumnType::Boolean => Some(cell().is_in([0, 1])),
        ColumnType::Json => Some(Func::cust("json_valid").arg(cell()).into()),
        ColumnType::Text | ColumnType::Uuid => None,
    }
}

/// The cell of a changed column on SQLite. What cannot be converted stays as it is, and the new column refuses it.
fn sqlite_converted(old: &Column, new: &Column) -> Expr {
    use ColumnType::{Boolean, Json, Number, Text};
    let cell = || Expr::col(old.name.clone());
    let whole = || cell().cast_as("integer");
    let converted = match (old.kind, new.kind) {
        (old, new) if old == new => cell(),
        (Boolean, Text | Json) => Expr::case(cell().eq(1), "true")
            .case(cell().eq(0), "false")
            .into(),
        (_, Boolean) => {
            let lower = || Expr::from(Func::lower(cell()));
            Expr::case(lower().eq("true"), 1)
                .case(lower().eq("false"), 0)
                .finally(cell())
                .into()
        }
        // Without the fraction that a whole number does not have, as on Postgres.
        (Number, Text | Json) => Expr::case(cell().eq(whole()), whole().cast_as("text"))
            .finally(cell().cast_as("text"))
            .into(),
        (_, Text | Json) => cell().cast_as("text"),
        _ => cell(),
    };
    match (&new.default, old.nullable && !new.nullable) {
        (Some(default), true) => {
            Func::coalesce([converted, Expr::val(literal_value(new.kind, default))]).into()
        }
        _ => converted,
    }
}

/// The cell of a changed column on Postgres; what cannot be converted fails the statement.
fn postgres_converted(old: &Column, new: &Column, wanted: &'static str) -> Expr {
    use ColumnType::{Boolean, Integer, Json, Number, Text};
    let cell = || Expr::col(old.name.clone());
    match (old.kind, new.kind) {
        (Boolean, Integer | Number) => cell().cast_as("integer").cast_as(wanted),
        (Boolean | Integer | Number, Json) => Func::cust("to_json").arg(cell()).into(),
        (_, Text) => cell().cast_as("text"),
        (Text, _) => cell().cast_as(wanted),
        // By way of its text, because a direct cast rounds a float, and takes any number for a boolean.
        _ => cell().cast_as("text").cast_as(wanted),
    }
}

fn literal(kind: ColumnType, value: &Json) -> Expr {
    Expr::val(literal_value(kind, value))
}

/// A value of JSON as a cell of that type. What does not fit goes in as it is, and the column refuses it.
fn literal_value(kind: ColumnType, value: &Json) -> sea_query::Value {
    use sea_query::Value;
    match (kind, value) {
        (ColumnType::Json, value) => Value::String(Some(value.to_string())),
        (_, Json::Null) => Value::String(None),
        (_, Json::Bool(value)) => Value::Bool(Some(*value)),
        (ColumnType::Integer, Json::Number(number)) if number.is_i64() => {
            Value::BigInt(number.as_i64())
        }
        (_, Json::Number(number)) => Value::Double(number.as_f64()),
        (_, Json::String(text)) => Value::String(Some(text.clone())),
        (_, other) => Value::String(Some(other.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use patchbay_plugin::name::TableName;
    use serde_json::json;

    use super::*;

    fn table() -> TableName {
        TableName::parse("things").expect("a name")
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

    fn create() -> Operation {
        Operation::CreateTable {
            table: table(),
            columns: vec![
                Column::id(),
                Column {
                    nullable: false,
                    default: Some(json!("it's \\ \"x\"")),
                    ..column("name", ColumnType::Text)
                },
                column("days", ColumnType::Integer),
                column("share", ColumnType::Number),
                Column {
                    default: Some(json!(true)),
                    ..column("open", ColumnType::Boolean)
                },
                Column {
                    default: Some(json!(["a"])),
                    ..column("tags", ColumnType::Json)
                },
            ],
        }
    }

    fn made() -> Tables {
        let mut tables = Tables::default();
        tables.apply(&create()).expect("a table");
        let index = Operation::CreateIndex {
            table: table(),
            name: "ix_things_name".to_owned(),
            columns: vec!["name".to_owned()],
            unique: true,
        };
        tables.apply(&index).expect("an index");
        tables
    }

    /// The SQL on SQLite and on Postgres.
    fn both(operation: &Operation, tables: &Tables) -> (Vec<String>, Vec<String>) {
        (
            render(operation, tables, Dialect::Sqlite),
            render(operation, tables, Dialect::Postgres),
        )
    }

    #[test]
    fn a_table_is_created() {
        let (sqlite, postgres) = both(&create(), &Tables::default());
        assert_eq!(
            sqlite,
            [concat!(
                r#"CREATE TABLE "things" ( "id" text NOT NULL PRIMARY KEY, "#,
                r#""name" text NOT NULL DEFAULT 'it''s \ "x"', "#,
                r#""days" integer CHECK (typeof("days") IN ('integer', 'null')), "#,
                r#""share" real CHECK (typeof("share") IN ('real', 'null')), "#,
                r#""open" boolean DEFAULT TRUE CHECK ("open" IN (0, 1)), "#,
                r#""tags" text DEFAULT '["a"]' CHECK (json_valid("tags")), "#,
                r#"FOREIGN KEY ("id") REFERENCES "data_output_configurations" ("id") ON DELETE CASCADE )"#,
            )]
        );
        assert_eq!(
            postgres,
            [concat!(
                r#"CREATE TABLE "things" ( "id" uuid NOT NULL PRIMARY KEY, "#,
                r#""name" text NOT NULL DEFAULT E'it\'s \\ "x"', "#,
                r#""days" bigint, "share" double precision, "open" boolean DEFAULT TRUE, "tags" json DEFAULT '["a"]', "#,
                r#"FOREIGN KEY ("id") REFERENCES "data_output_configurations" ("id") ON DELETE CASCADE )"#,
            )]
        );
    }

    #[test]
    fn simple_changes_are_the_same_on_both() {
        let tables = made();
        for (operation, sql) in [
            (
                Operation::DropTable { table: table() },
                r#"DROP TABLE "things""#,
            ),
            (
                Operation::AddColumn {
                    table: table(),
                    column: Column {
                        nullable: false,
                        default: Some(json!("x")),
                        ..column("more", ColumnType::Text)
                    },
                },
                r#"ALTER TABLE "things" ADD COLUMN "more" text NOT NULL DEFAULT 'x'"#,
            ),
            (
                Operation::RenameColumn {
                    table: table(),
                    from: "name".to_owned(),
                    to: "title".to_owned(),
                },
                r#"ALTER TABLE "things" RENAME COLUMN "name" TO "title""#,
            ),
            (
                Operation::DropColumn {
                    table: table(),
                    column: "days".to_owned(),
                },
                r#"ALTER TABLE "things" DROP COLUMN "days""#,
            ),
            (
                Operation::CreateIndex {
                    table: table(),
                    name: "ix".to_owned(),
                    columns: vec!["name".to_owned(), "days".to_owned()],
                    unique: true,
                },
                r#"CREATE UNIQUE INDEX "ix" ON "things" ("name", "days")"#,
            ),
            (
                Operation::DropIndex {
                    table: table(),
                    name: "ix_things_name".to_owned(),
                },
                r#"DROP INDEX "ix_things_name""#,
            ),
            (
                Operation::Update {
                    table: table(),
                    set: [
                        ("days".to_owned(), json!(null)),
                        ("tags".to_owned(), json!({"a": 1})),
                    ]
                    .into(),
                    matching: [
                        ("name".to_owned(), json!("x")),
                        ("share".to_owned(), json!(null)),
                    ]
                    .into(),
                },
                r#"UPDATE "things" SET "days" = NULL, "tags" = '{"a":1}' WHERE "name" = 'x' AND "share" IS NULL"#,
            ),
        ] {
            let wanted = || vec![sql.to_owned()];
            assert_eq!(both(&operation, &tables), (wanted(), wanted()));
            assert!(!needs_rebuild(&operation, Dialect::Sqlite));
        }
    }

    #[test]
    fn a_column_is_changed_in_place_on_postgres_and_by_a_rebuild_on_sqlite() {
        let alter = Operation::AlterColumn {
            table: table(),
            column: Column {
                nullable: false,
                default: Some(json!(0)),
                ..column("open", ColumnType::Integer)
            },
        };
        assert!(
            needs_rebuild(&alter, Dialect::Sqlite) && !needs_rebuild(&alter, Dialect::Postgres)
        );
        let (sqlite, postgres) = both(&alter, &made());
        assert!(
            sqlite[0].starts_with(r#"CREATE TABLE "patchbay rebuild" ("#)
                && sqlite[0].contains(
                    r#""open" integer NOT NULL DEFAULT 0 CHECK (typeof("open") IN ('integer', 'null'))"#
                ),
            "{}",
            sqlite[0]
        );
        assert_eq!(
            sqlite[1..],
            [
                concat!(
                    r#"INSERT INTO "patchbay rebuild" ("id", "name", "days", "share", "open", "tags") "#,
                    r#"SELECT "id", "name", "days", "share", COALESCE("open", 0), "tags" FROM "things""#
                ),
                r#"DROP TABLE "things""#,
                r#"ALTER TABLE "patchbay rebuild" RENAME TO "things""#,
                r#"CREATE UNIQUE INDEX "ix_things_name" ON "things" ("name")"#,
            ]
        );
        assert_eq!(
            postgres,
            [
                r#"ALTER TABLE "things" ALTER COLUMN "open" DROP DEFAULT"#,
                r#"ALTER TABLE "things" ALTER COLUMN "open" TYPE bigint USING CAST(CAST("open" AS integer) AS bigint)"#,
                r#"ALTER TABLE "things" ALTER COLUMN "open" SET DEFAULT 0"#,
                r#"UPDATE "things" SET "open" = 0 WHERE "open" IS NULL"#,
                r#"ALTER TABLE "things" ALTER COLUMN "open" SET NOT NULL"#,
            ]
        );
        let widen = Operation::AlterColumn {
            table: table(),
            column: Column {
                default: None,
                ..column("name", ColumnType::Text)
            },
        };
        assert_eq!(
            render(&widen, &made(), Dialect::Postgres),
            [
                r#"ALTER TABLE "things" ALTER COLUMN "name" DROP DEFAULT"#,
                r#"ALTER TABLE "things" ALTER COLUMN "name" DROP NOT NULL"#,
            ]
        );
    }

    /// Every value that a column of one type can hold, turned into another type: it converts as told, or is refused.
    #[test]
    fn values_are_converted_or_refused() {
        use ColumnType::{Boolean, Integer, Json, Number, Text};
        let refused: Option<&str> = None;
        for (from, value, to, wanted) in [
            (Text, "'12'", Integer, Some("12")),
            (Text, "'12.5'", Integer, refused),
            (Text, "'x'", Integer, refused),
            (Text, "'12.5'", Number, Some("12.5")),
            (Text, "'x'", Number, refused),
            (Text, "'TRUE'", Boolean, Some("1")),
            (Text, "'maybe'", Boolean, refused),
            (Text, "'[1]'", Json, Some("'[1]'")),
            (Text, "'x'", Json, refused),
            (Integer, "12", Text, Some("'12'")),
            (Integer, "12", Number, Some("12.0")),
            (Integer, "1", Boolean, Some("1")),
            (Integer, "2", Boolean, refused),
            (Integer, "12", Json, Some("'12'")),
            (Number, "12.0", Integer, Some("12")),
            (Number, "12.5", Integer, refused),
            (Boolean, "1", Text, Some("'true'")),
            (Boolean, "0", Json, Some("'false'")),
            (Boolean, "1", Integer, Some("1")),
            (Json, "'[1]'", Text, Some("'[1]'")),
            (Json, "'[1]'", Integer, refused),
            (Text, "NULL", Integer, Some("NULL")),
        ] {
            let create = Operation::CreateTable {
                table: table(),
                columns: vec![Column::id(), column("cell", from)],
            };
            let alter = Operation::AlterColumn {
                table: table(),
                column: column("cell", to),
            };
            let mut tables = Tables::default();
            let database = rusqlite::Connection::open_in_memory().expect("a database");
            for sql in render(&create, &tables, Dialect::Sqlite) {
                database.execute_batch(&sql).expect("created");
            }
            tables.apply(&create).expect("a table");
            let insert = format!("INSERT INTO things (id, cell) VALUES ('x', {value})");
            database
                .execute_batch(&format!("PRAGMA foreign_keys = OFF; {insert}"))
                .expect("a row");
            let ran = render(&alter, &tables, Dialect::Sqlite)
                .iter()
                .try_for_each(|sql| database.execute_batch(sql));
            let found = ran.ok().map(|()| {
                database
                    .query_row("SELECT quote(cell) FROM things", [], |row| {
                        row.get::<_, String>(0)
                    })
                    .expect("the row")
            });
            assert_eq!(found.as_deref(), wanted, "{value} from {from:?} to {to:?}");
        }
    }
}
