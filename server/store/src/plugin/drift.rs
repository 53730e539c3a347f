//! Whether plugins' tables are what their histories have made: what the database says of them, compared with the steps.
//!
//! One statement describes the columns of any number of tables, and one their indexes, so that a start with a thousand
//! plugins asks twice. Defaults and the checks by which SQLite keeps types are not compared.

use std::collections::BTreeMap;

use patchbay_plugin::migration::{
    AppliedMigration, Column, Migration, Operation, Reference, Tables, lua, ran,
};
use patchbay_plugin::name::TableName;

use super::history;
use super::migrate::tables_of;
use crate::Store;
use crate::engine::View;
use crate::error::{Fault, StoreError};
use crate::render::type_word;
use crate::session::{Dialect, Session, Statement, text};

/// Table, column, type, whether it is not null, whether it is the primary key, and what it refers to: table, column,
/// what happens on delete. It takes the names of the tables as a list in JSON.
const SQLITE: &str = r#"SELECT t.name, c.name, lower(c.type), c."notnull", c.pk > 0, f."table", f."to", f.on_delete
    FROM sqlite_schema t
    JOIN pragma_table_info(t.name) c
    LEFT JOIN pragma_foreign_key_list(t.name) f ON f."from" = c.name
    WHERE t.type = 'table' AND t.name IN (SELECT value FROM json_each(?))"#;
const POSTGRES: &str = "SELECT t.relname::text, a.attname::text, format_type(a.atttypid, a.atttypmod), a.attnotnull, \
    EXISTS (SELECT 1 FROM pg_constraint p WHERE p.conrelid = t.oid AND p.contype = 'p' AND p.conkey = ARRAY[a.attnum]), \
    r.relname::text, ra.attname::text, CASE k.confdeltype WHEN 'c' THEN 'CASCADE' ELSE 'OTHER' END \
    FROM pg_class t \
    JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped \
    LEFT JOIN pg_constraint k ON k.conrelid = t.oid AND k.contype = 'f' AND k.conkey = ARRAY[a.attnum] \
    LEFT JOIN pg_class r ON r.oid = k.confrelid \
    LEFT JOIN pg_attribute ra ON ra.attrelid = k.confrelid AND ra.attnum = k.confkey[1] \
    WHERE t.relkind IN ('r', 'p') AND pg_table_is_visible(t.oid) \
    AND t.relname = ANY (ARRAY(SELECT json_array_elements_text(CAST($1 AS text)::json)))";

/// Table, index, and whether it is unique, of the indexes that steps make. What is there for a key is none of them.
const SQLITE_INDEXES: &str = r#"SELECT tbl_name, name, sql LIKE 'CREATE UNIQUE %' FROM sqlite_schema
    WHERE type = 'index' AND sql IS NOT NULL AND tbl_name IN (SELECT value FROM json_each(?))"#;
const POSTGRES_INDEXES: &str = "SELECT t.relname::text, i.relname::text, x.indisunique \
    FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_class t ON t.oid = x.indrelid \
    WHERE NOT x.indisprimary AND x.indisvalid AND pg_table_is_visible(t.oid) \
    AND t.relname = ANY (ARRAY(SELECT json_array_elements_text(CAST($1 AS text)::json)))";

/// A column as the database describes it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct FoundColumn {
    pub(crate) name: String,
    /// In the words of the database.
    pub(crate) kind: String,
    pub(crate) nullable: bool,
    pub(crate) primary_key: bool,
    pub(crate) references: Vec<Reference>,
}

/// The columns of those of these tables that are there, by table.
pub(crate) async fn describe<'a>(
    session: &mut Session,
    tables: impl Iterator<Item = &'a str>,
) -> Result<BTreeMap<String, Vec<FoundColumn>>, Fault> {
    let names: Vec<&str> = tables.collect();
    let mut found: BTreeMap<String, Vec<FoundColumn>> = BTreeMap::new();
    if names.is_empty() {
        return Ok(found);
    }
    let statement = Statement {
        sql: match session.dialect() {
            Dialect::Sqlite => SQLITE,
            Dialect::Postgres => POSTGRES,
        }
        .into(),
    };
    let names = serde_json::json!(names).to_string();
    for row in session.query(&statement, vec![text(names)]).await? {
        let columns = found.entry(row.string(0)?).or_default();
        let name = row.text(1)?;
        let reference = match (row.optional_text(5)?, row.optional_text(6)?) {
            (Some(table), Some(column)) => Some(Reference {
                table: table.to_owned(),
                column: column.to_owned(),
                cascade: row.optional_text(7)? == Some("CASCADE"),
            }),
            _ => None,
        };
        // A column with two references is described twice.
        if let Some(column) = columns.iter_mut().find(|column| column.name == name) {
            column.references.extend(reference);
            continue;
        }
        columns.push(FoundColumn {
            name: name.to_owned(),
            kind: row.string(2)?,
            nullable: !row.boolean(3)?,
            primary_key: row.boolean(4)?,
            references: reference.into_iter().collect(),
        });
    }
    Ok(found)
}

/// The indexes of these tables, by table and name, and whether they are unique.
async fn indexes(
    session: &mut Session,
    tables: impl Iterator<Item = &TableName>,
) -> Result<BTreeMap<(String, String), bool>, Fault> {
    let names: Vec<&str> = tables.map(TableName::as_str).collect();
    let mut found = BTreeMap::new();
    if names.is_empty() {
        return Ok(found);
    }
    let statement = Statement {
        sql: match session.dialect() {
            Dialect::Sqlite => SQLITE_INDEXES,
            Dialect::Postgres => POSTGRES_INDEXES,
        }
        .into(),
    };
    let names = serde_json::json!(names).to_string();
    for row in session.query(&statement, vec![text(names)]).await? {
        found.insert((row.string(0)?, row.string(1)?), row.boolean(2)?);
    }
    Ok(found)
}

/// Everything of the tables that is compared.
struct Described {
    columns: BTreeMap<String, Vec<FoundColumn>>,
    indexes: BTreeMap<(String, String), bool>,
}

impl Described {
    async fn of(session: &mut Session, expected: &[&Tables]) -> Result<Described, Fault> {
        let names = || expected.iter().flat_map(|tables| tables.0.keys());
        // Few plugins have indexes of their own.
        let indexed = expected
            .iter()
            .flat_map(|tables| &tables.0)
            .filter(|(_, table)| !table.indexes.is_empty())
            .map(|(name, _)| name);
        Ok(Described {
            columns: describe(session, names().map(TableName::as_str)).await?,
            indexes: indexes(session, indexed).await?,
        })
    }
}

/// What is different between the tables that a history made and those that are there, in words.
fn differences(
    expected: &Tables,
    described: &Described,
    applied: &[AppliedMigration],
    dialect: Dialect,
) -> Vec<String> {
    let mut differences = Vec::new();
    for (name, table) in &expected.0 {
        let Some(columns) = described.columns.get(name.as_str()) else {
            let made = made_by(applied, name, None);
            differences.push(format!("the table {name} is missing{made}"));
            continue;
        };
        for column in table.columns.values() {
            match columns.iter().find(|found| found.name == column.name) {
                None => {
                    let made = made_by(applied, name, Some(&column.name));
                    differences.push(format!("{name} lacks the column {}{made}", column.name));
                }
                Some(found) => compare(name, column, found, dialect, &mut differences),
            }
        }
        for extra in columns
            .iter()
            .filter(|found| !table.columns.contains_key(&found.name))
        {
            differences.push(format!(
                "{name} has a column {} ({}) that no step made",
                extra.name, extra.kind
            ));
        }
        // An index that somebody has added makes nothing wrong.
        for (index, (_, unique)) in &table.indexes {
            let key = (name.to_string(), index.clone());
            match described.indexes.get(&key) {
                None => differences.push(format!("{name} lacks the index {index}")),
                Some(found) if found != unique => {
                    let said = |unique: bool| if unique { "unique" } else { "not unique" };
                    differences.push(format!(
                        "the index {index} of {name} is expected to be {}, found {}",
                        said(*unique),
                        said(*found)
                    ));
                }
                Some(_) => {}
            }
        }
    }
    differences
}

fn compare(
    table: &TableName,
    expected: &Column,
    found: &FoundColumn,
    dialect: Dialect,
    differences: &mut Vec<String>,
) {
    let place = format!("{table}.{}", expected.name);
    let word = type_word(expected.kind, dialect);
    if found.kind != word {
        differences.push(format!(
            "{place} is expected to be {word}, found {}",
            found.kind
        ));
    }
    if found.nullable != expected.nullable {
        let said = |nullable: bool| if nullable { "nullable" } else { "not null" };
        differences.push(format!(
            "{place} is expected to be {}, found {}",
            said(expected.nullable),
            said(found.nullable)
        ));
    }
    if found.primary_key != expected.primary_key {
        differences.push(match expected.primary_key {
            true => format!("{place} is expected to be the primary key, and is not"),
            false => format!("{place} is part of the primary key, and should not be"),
        });
    }
    match &expected.references {
        Some(reference) if !found.references.contains(reference) => {
            let cascade = match reference.cascade {
                true => " on delete cascade",
                false => "",
            };
            differences.push(format!(
                "{place} lacks its foreign key to {}({}){cascade}",
                reference.table, reference.column
            ));
        }
        _ => {}
    }
}

/// The step that made a table or a column, in brackets.
fn made_by(applied: &[AppliedMigration], table: &TableName, column: Option<&str>) -> String {
    let makes = |operation: &Operation| {
        operation.table() == table
            && match (operation, column) {
                (Operation::CreateTable { .. }, None) => true,
                (Operation::CreateTable { columns, .. }, Some(name)) => {
                    columns.iter().any(|column| column.name == name)
                }
                (Operation::AddColumn { column, .. }, Some(name)) => column.name == name,
                (Operation::RenameColumn { to, .. }, Some(name)) => to == name,
                _ => false,
            }
    };
    let ran: Vec<&Migration> = ran(applied).collect();
    ran.into_iter()
        .rev()
        .find_map(|migration| {
            let operation = migration.up.iter().find(|operation| makes(operation))?;
            let call = lua::operation(operation);
            let call = call.split_once('(').map_or(call.as_str(), |(call, _)| call);
            Some(format!(" ({} made it with {call})", migration.id))
        })
        .unwrap_or_default()
}

/// Refuses to go on when the tables are not what the history made.
pub(super) async fn check(
    session: &mut Session,
    expected: &Tables,
    applied: &[AppliedMigration],
) -> Result<(), StoreError> {
    let described = Described::of(session, &[expected]).await?;
    let differences = differences(expected, &described, applied, session.dialect());
    match differences.is_empty() {
        true => Ok(()),
        false => Err(StoreError::Drift(differences)),
    }
}

/// What differs, by plugin.
async fn drifts(
    session: &mut Session,
    histories: &BTreeMap<String, Vec<AppliedMigration>>,
) -> Result<BTreeMap<String, Vec<String>>, Fault> {
    let expected: BTreeMap<&String, Tables> = histories
        .iter()
        .map(|(plugin, applied)| (plugin, tables_of(applied)))
        .collect();
    let tables: Vec<&Tables> = expected.values().collect();
    let described = Described::of(session, &tables).await?;
    let mut drifts = BTreeMap::new();
    for (plugin, tables) in &expected {
        let differences = differences(tables, &described, &histories[*plugin], session.dialect());
        if !differences.is_empty() {
            drifts.insert((*plugin).clone(), differences);
        }
    }
    Ok(drifts)
}

impl Store {
    /// Which of these plugins' tables are not what their histories made, and how they differ; asked for all at once.
    ///
    /// # Errors
    /// Those of an unavailable database.
    pub async fn drifts(
        &self,
        histories: BTreeMap<String, Vec<AppliedMigration>>,
    ) -> Result<BTreeMap<String, Vec<String>>, StoreError> {
        let statements = self.statements();
        let suspected = self
            .read(View::Statement, move |session| {
                Box::pin(async move { Ok(drifts(session, &histories).await?) })
            })
            .await?;
        if suspected.is_empty() {
            return Ok(suspected);
        }
        // Another server may have migrated since the histories were read, so both are read again as they are at one moment.
        self.read(View::State, move |session| {
            Box::pin(async move {
                let mut histories = BTreeMap::new();
                for plugin in suspected.keys() {
                    let applied = history(session, &statements.plugins, plugin).await?;
                    histories.insert(plugin.clone(), applied);
                }
                Ok(drifts(session, &histories).await?)
            })
        })
        .await
    }
}
