//! The tables that are copied: their columns, the statements over them, and a hash of their rows that does not depend on
//! the database.

use patchbay_plugin::migration::{ColumnType, Table, Tables};
use sea_query::{Expr, ExprTrait, Func, Order, Query, Value};
use serde_json::Value as Json;
use sha2::{Digest, Sha256};

use crate::error::{Fault, StoreError};
use crate::session::{Row, Session, Statement, Values, place, text};

/// The most values of one statement; SQLite takes 32,766.
const MOST_VALUES: usize = 30_000;

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Uuid,
    Text,
    Integer,
    Number,
    Boolean,
    /// Its text is kept as it is.
    Json,
    Time,
}

impl Kind {
    fn of(kind: ColumnType) -> Kind {
        match kind {
            ColumnType::Text => Kind::Text,
            ColumnType::Integer => Kind::Integer,
            ColumnType::Number => Kind::Number,
            ColumnType::Boolean => Kind::Boolean,
            ColumnType::Json => Kind::Json,
            ColumnType::Uuid => Kind::Uuid,
        }
    }

    /// Reads a cell as the value that is written.
    fn cell(self, row: &Row, place: usize) -> Result<Value, Fault> {
        Ok(match self {
            Kind::Uuid => Value::Uuid(row.optional_uuid(place)?),
            Kind::Text => Value::String(row.optional_text(place)?.map(str::to_owned)),
            Kind::Json => Value::String(row.optional_json_text(place)?.map(str::to_owned)),
            Kind::Integer => Value::BigInt(row.optional_integer(place)?),
            Kind::Number => Value::Double(row.optional_number(place)?),
            Kind::Boolean => Value::Bool(row.optional_boolean(place)?),
            Kind::Time => Value::TimeDateTimeWithTimeZone(row.optional_time(place)?),
        })
    }

    /// A value of a key, as the marker keeps it.
    fn key(self, value: &Value) -> Json {
        match value {
            Value::Uuid(Some(id)) => Json::from(id.to_string()),
            Value::String(Some(text)) => Json::from(text.as_str()),
            Value::BigInt(Some(number)) => Json::from(*number),
            _ => Json::Null,
        }
    }

    fn read_key(self, key: &Json) -> Result<Value, StoreError> {
        let value = match (self, key) {
            (Kind::Uuid, Json::String(id)) => id.parse().ok().map(|id| Value::Uuid(Some(id))),
            (Kind::Text, Json::String(key)) => Some(text(key)),
            (Kind::Integer, Json::Number(number)) => {
                number.as_i64().map(|number| Value::BigInt(Some(number)))
            }
            _ => None,
        };
        value.ok_or_else(|| StoreError::Internal("the marker of a copy is unreadable".to_owned()))
    }
}

/// A table to be copied.
#[derive(Debug)]
pub(super) struct CopyTable {
    pub(super) name: String,
    /// The first ones are its key.
    columns: Vec<(String, Kind)>,
    keys: usize,
    /// What it is made from; none for one of the core schema.
    pub(super) shape: Option<Table>,
}

/// The tables of the core schema in an order in which references hold, those after which the plugins' come, and the
/// others. What servers tell of themselves is not copied.
fn core(name: &str, keys: usize, columns: &[(&str, Kind)]) -> CopyTable {
    CopyTable {
        name: name.to_owned(),
        columns: columns
            .iter()
            .map(|(name, kind)| ((*name).to_owned(), *kind))
            .collect(),
        keys,
        shape: None,
    }
}

pub(super) fn core_tables() -> Vec<CopyTable> {
    use Kind::{Boolean, Integer, Json, Text, Time, Uuid};
    vec![
        core("platforms", 1, &[("id", Uuid), ("name", Text)]),
        core(
            "platform_services",
            1,
            &[
                ("id", Uuid),
                ("platform_id", Uuid),
                ("name", Text),
                ("result_string_template", Text),
                ("technical_info_template", Text),
            ],
        ),
        core(
            "platform_service_configurations",
            1,
            &[
                ("id", Uuid),
                ("platform_id", Uuid),
                ("service_id", Uuid),
                ("config", Json),
            ],
        ),
        core(
            "environments",
            1,
            &[
                ("id", Uuid),
                ("name", Text),
                ("acronym", Text),
                ("context", Text),
                ("is_default", Boolean),
            ],
        ),
        core(
            "environment_configurations",
            1,
            &[
                ("id", Uuid),
                ("environment_id", Uuid),
                ("platform_id", Uuid),
                ("service_id", Uuid),
                ("config", Json),
            ],
        ),
        core(
            "data_products",
            1,
            &[
                ("id", Uuid),
                ("name", Text),
                ("namespace", Text),
                ("domain", Text),
            ],
        ),
        core(
            "applied_definitions",
            1,
            &[
                ("plugin", Text),
                ("revision", Integer),
                ("version", Text),
                ("table_name", Text),
                ("fields", Json),
                ("head", Text),
                ("applied_at", Time),
                ("applied_by", Text),
                ("code", Text),
                ("outline", Json),
                ("broken_promise", Text),
            ],
        ),
        core(
            "plugin_tables",
            1,
            &[("table_name", Text), ("plugin", Text)],
        ),
        core(
            "plugin_migrations",
            2,
            &[
                ("plugin", Text),
                ("position", Integer),
                ("id", Text),
                ("origin", Text),
                ("path", Text),
                ("up", Json),
                ("down", Json),
                ("checksum", Text),
                ("applied_at", Time),
                ("applied_by", Text),
            ],
        ),
        core(
            "plugin_targets",
            1,
            &[
                ("plugin", Text),
                ("step", Text),
                ("set_at", Time),
                ("set_by", Text),
            ],
        ),
        core(
            "data_output_configurations",
            1,
            &[
                ("id", Uuid),
                ("configuration_type", Text),
                ("plugin_version", Text),
                ("name", Text),
                ("folded_name", Text),
                ("description", Text),
                ("data_product_id", Uuid),
                ("technical_mapping", Text),
                ("platform_id", Uuid),
                ("service_id", Uuid),
                ("revision", Integer),
                ("created_at", Time),
                ("updated_at", Time),
            ],
        ),
        core(
            "configuration_revisions",
            2,
            &[
                ("configuration_id", Uuid),
                ("revision", Integer),
                ("action", Text),
                ("plugin", Text),
                ("plugin_version", Text),
                ("changed_by", Text),
                ("changed_at", Time),
                ("changes", Json),
            ],
        ),
    ]
}

/// The tables of the plugins, each after those that it refers to.
pub(super) fn plugin_tables(tables: &Tables) -> Vec<CopyTable> {
    let mut left: Vec<(&str, &Table)> = tables
        .0
        .iter()
        .map(|(name, table)| (name.as_str(), table))
        .collect();
    let mut ordered = Vec::with_capacity(left.len());
    while !left.is_empty() {
        let names: Vec<&str> = left.iter().map(|(name, _)| *name).collect();
        let waits = |name: &str, table: &Table| {
            table.columns.values().any(|column| {
                column.references.as_ref().is_some_and(|reference| {
                    reference.table != name && names.contains(&reference.table.as_str())
                })
            })
        };
        // Tables that wait for each other cannot have been made; the first goes first all the same.
        let next = left
            .iter()
            .position(|(name, table)| !waits(name, table))
            .unwrap_or(0);
        let (name, table) = left.remove(next);
        // The id is the first column of every plugin's table.
        let (id, others): (Vec<_>, Vec<_>) = table
            .columns
            .values()
            .map(|column| (column.name.clone(), Kind::of(column.kind)))
            .partition(|(name, _)| name == "id");
        ordered.push(CopyTable {
            name: name.to_owned(),
            columns: id.into_iter().chain(others).collect(),
            keys: 1,
            shape: Some(table.clone()),
        });
    }
    ordered
}

/// A row that was read, ready to be written.
pub(super) type Cells = Values;

impl CopyTable {
    /// How many rows are moved at once.
    pub(super) fn batch(&self, wanted: usize) -> usize {
        wanted.clamp(1, (MOST_VALUES / self.columns.len()).max(1))
    }

    /// How many rows there are.
    pub(super) async fn count(&self, session: &mut Session) -> Result<u64, Fault> {
        let mut query = Query::select();
        query
            .expr(Func::count(Expr::col(sea_query::Asterisk)))
            .from(self.name.clone());
        let statement = Statement::new(session.dialect(), &query);
        let row = session.query_one(&statement, Vec::new()).await?;
        Ok(row.map_or(Ok(0), |row| row.integer(0))?.cast_unsigned())
    }

    /// The rows after a key, in the order of the keys, at most so many.
    pub(super) async fn rows(
        &self,
        session: &mut Session,
        after: Option<&[Json]>,
        limit: usize,
    ) -> Result<Vec<Cells>, Fault> {
        let keys = &self.columns[..self.keys];
        let mut query = Query::select();
        query
            .columns(self.columns.iter().map(|(name, _)| name.clone()))
            .from(self.name.clone());
        let mut values = Vec::new();
        if let Some(after) = after {
            let names = keys.iter().map(|(name, _)| Expr::col(name.clone()));
            let places = keys.iter().map(|_| place());
            query.and_where(Expr::tuple(names).gt(Expr::tuple(places)));
            for ((_, kind), key) in keys.iter().zip(after) {
                values.push(kind.read_key(key)?);
            }
        }
        for (name, _) in keys {
            query.order_by(name.clone(), Order::Asc);
        }
        query.limit(1);
        values.push((limit as i64).into());
        let statement = Statement::new(session.dialect(), &query);
        let rows = session.query(&statement, values).await?;
        let cells = |row: &Row| -> Result<Cells, Fault> {
            let kinds = self.columns.iter().enumerate();
            kinds
                .map(|(place, (_, kind))| kind.cell(row, place))
                .collect()
        };
        rows.iter().map(cells).collect()
    }

    /// The key of a row.
    pub(super) fn key(&self, row: &Cells) -> Vec<Json> {
        let keys = self.columns[..self.keys].iter().zip(row);
        keys.map(|((_, kind), value)| kind.key(value)).collect()
    }

    /// Writes rows, at most [`batch`](CopyTable::batch).
    pub(super) async fn write(&self, session: &mut Session, rows: Vec<Cells>) -> Result<(), Fault> {
        let mut query = Query::insert();
        query
            .into_table(self.name.clone())
            .columns(self.columns.iter().map(|(name, _)| name.clone()));
        for _ in &rows {
            query.values_panic(self.columns.iter().map(|_| place()));
        }
        let statement = Statement::new(session.dialect(), &query);
        let values = rows.into_iter().flatten().collect();
        session.execute(&statement, values).await?;
        Ok(())
    }
}

/// How many rows there are, and a hash of them: the sum of the hashes of each, so that the order in which a database
/// gives them does not matter.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Tally {
    pub(super) rows: u64,
    sum: [u64; 4],
}

impl Tally {
    pub(super) fn add(&mut self, row: &Cells) {
        let mut hash = Sha256::new();
        for value in row {
            let mut part = |tag: u8, bytes: &[u8]| {
                hash.update([tag]);
                hash.update((bytes.len() as u64).to_be_bytes());
                hash.update(bytes);
            };
            match value {
                Value::Uuid(Some(id)) => part(1, id.as_bytes()),
                Value::String(Some(text)) => part(2, text.as_bytes()),
                Value::BigInt(Some(number)) => part(3, &number.to_be_bytes()),
                // SQLite has no negative zero.
                Value::Double(Some(number)) => part(4, &(number + 0.0).to_bits().to_be_bytes()),
                Value::Bool(Some(value)) => part(5, &[u8::from(*value)]),
                Value::TimeDateTimeWithTimeZone(Some(time)) => {
                    part(6, &time.unix_timestamp_nanos().to_be_bytes());
                }
                _ => part(0, &[]),
            }
        }
        let hash = hash.finalize();
        for (sum, lane) in self.sum.iter_mut().zip(hash.chunks_exact(8)) {
            let lane = lane.try_into().map_or(0, u64::from_be_bytes);
            *sum = sum.wrapping_add(lane);
        }
        self.rows += 1;
    }

    /// The hash as text.
    pub(super) fn hash(&self) -> String {
        let [a, b, c, d] = self.sum;
        format!("{a:016x}{b:016x}{c:016x}{d:016x}")
    }

    pub(super) fn read(rows: u64, hash: &str) -> Option<Tally> {
        let mut sum = [0; 4];
        for (place, lane) in sum.iter_mut().enumerate() {
            *lane = u64::from_str_radix(hash.get(place * 16..place * 16 + 16)?, 16).ok()?;
        }
        Some(Tally { rows, sum })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tally_is_of_the_rows_in_whatever_order() {
        let row = |number: i64, word: &str| vec![Value::BigInt(Some(number)), text(word)];
        let tally = |rows: &[Cells]| {
            let mut tally = Tally::default();
            rows.iter().for_each(|row| tally.add(row));
            tally
        };
        let one = tally(&[row(1, "a"), row(2, "b")]);
        assert_eq!(one, tally(&[row(2, "b"), row(1, "a")]));
        assert_eq!(Tally::read(one.rows, &one.hash()), Some(one.clone()));
        for other in [
            tally(&[row(1, "b"), row(2, "a")]),
            tally(&[row(1, "a")]),
            tally(&[
                row(1, "a"),
                vec![Value::BigInt(Some(2)), Value::String(None)],
            ]),
            tally(&[row(1, "a"), row(2, "")]),
        ] {
            assert_ne!(one.hash(), other.hash());
        }
        let number = |number: f64| tally(&[vec![Value::Double(Some(number))]]);
        assert_eq!(number(-0.0), number(0.0));
        assert_ne!(number(1e308), number(1e308_f64.next_down()));
    }

    /// What a later version of the core schema adds must be copied too.
    #[test]
    fn every_column_of_the_core_schema_is_copied() {
        let mut database = rusqlite::Connection::open_in_memory().expect("a database");
        crate::schema::bring_up_to_date(&mut database, std::path::Path::new("x"))
            .expect("a schema");
        let mut statement = database
            .prepare(
                "SELECT t.name || '.' || c.name FROM pragma_table_list t, pragma_table_info(t.name) c \
                 WHERE t.schema = 'main' AND t.name NOT LIKE 'sqlite%' AND t.name NOT IN \
                 ('refinery_schema_history', 'servers', 'plugin_sets', 'copies_under_way') ORDER BY 1",
            )
            .expect("a statement");
        let found: Vec<String> = statement
            .query_map([], |row| row.get(0))
            .expect("columns")
            .collect::<Result<_, _>>()
            .expect("columns");
        let mut copied: Vec<String> = core_tables()
            .iter()
            .flat_map(|table| {
                let columns = table.columns.iter();
                columns.map(|(column, _)| format!("{}.{column}", table.name))
            })
            .collect();
        copied.sort();
        assert_eq!(copied, found);
    }
}
