//! Values as the types of their places, and cells as texts. The server says what type a place has, so an integer that
//! is counted with goes into a `bigint` as well as into a `double precision`.

use std::error::Error;

use bytes::BytesMut;
use sea_query::Value;
use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type};

/// The place is for something else: most likely its column was changed since the statement was prepared.
#[derive(Debug, thiserror::Error)]
#[error("the value is none for the type {0}")]
pub(super) struct Misfit(Type);

type Encoded = Result<IsNull, Box<dyn Error + Sync + Send>>;

/// A value, to be bound.
#[derive(Debug)]
pub(super) struct Cell<'a>(pub(super) &'a Value);

impl ToSql for Cell<'_> {
    fn to_sql(&self, kind: &Type, out: &mut BytesMut) -> Encoded {
        match self.0 {
            Value::Bool(Some(value)) if *kind == Type::BOOL => value.to_sql(kind, out),
            Value::Int(Some(number)) => integer(i64::from(*number), kind, out),
            Value::BigInt(Some(number)) => integer(*number, kind, out),
            Value::Double(Some(number)) if *kind == Type::FLOAT8 => number.to_sql(kind, out),
            Value::String(Some(text)) if *kind == Type::UUID => {
                uuid::Uuid::parse_str(text)?.to_sql(kind, out)
            }
            Value::String(Some(text)) if <&str as ToSql>::accepts(kind) => {
                text.as_str().to_sql(kind, out)
            }
            // It is JSON already.
            Value::String(Some(text)) if *kind == Type::JSON => {
                out.extend_from_slice(text.as_bytes());
                Ok(IsNull::No)
            }
            // Its text, which a column of the type `json` keeps byte by byte.
            Value::Json(Some(json)) if *kind == Type::JSON || *kind == Type::TEXT => {
                out.extend_from_slice(json.to_string().as_bytes());
                Ok(IsNull::No)
            }
            Value::Uuid(Some(id)) if *kind == Type::UUID => id.to_sql(kind, out),
            Value::TimeDateTimeWithTimeZone(Some(time)) if *kind == Type::TIMESTAMPTZ => {
                time.to_sql(kind, out)
            }
            Value::Bool(None)
            | Value::Int(None)
            | Value::BigInt(None)
            | Value::Double(None)
            | Value::String(None)
            | Value::Json(None)
            | Value::Uuid(None)
            | Value::TimeDateTimeWithTimeZone(None) => Ok(IsNull::Yes),
            _ => Err(Misfit(kind.clone()).into()),
        }
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn to_sql_checked(&self, kind: &Type, out: &mut BytesMut) -> Encoded {
        self.to_sql(kind, out)
    }
}

fn integer(number: i64, kind: &Type, out: &mut BytesMut) -> Encoded {
    match *kind {
        Type::INT8 => number.to_sql(kind, out),
        Type::INT4 => i32::try_from(number)?.to_sql(kind, out),
        Type::FLOAT8 => (number as f64).to_sql(kind, out),
        _ => Err(Misfit(kind.clone()).into()),
    }
}

/// A cell's text, none for null.
pub(crate) fn text(row: &Row, place: usize) -> Result<Option<&str>, ()> {
    row.try_get(place).map_err(|_| ())
}

/// The text of a cell of JSON, none for null.
pub(crate) fn json(row: &Row, place: usize) -> Result<Option<&str>, ()> {
    let cell: Option<JsonText<'_>> = row.try_get(place).map_err(|_| ())?;
    Ok(cell.map(|JsonText(text)| text))
}

/// As it was written.
struct JsonText<'a>(&'a str);

impl<'a> FromSql<'a> for JsonText<'a> {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(JsonText(std::str::from_utf8(raw)?))
    }

    fn accepts(kind: &Type) -> bool {
        *kind == Type::JSON || *kind == Type::TEXT
    }
}
