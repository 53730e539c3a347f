//! What an error of Postgres means, and whether the work that met it can be run again.
//!
//! What a client may see of it holds no values: Postgres puts those into its messages where a text does not convert.

use std::error::Error as _;

use tokio_postgres::Error;
use tokio_postgres::error::{DbError, SqlState};

use super::cells::Misfit;
use crate::error::{Fault, StoreError};

/// Why work that failed may succeed when it is run again from the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    /// Postgres gave it up for the sake of another's.
    Conflict,
    /// A table was changed under a statement that was prepared before.
    Outdated,
    /// The connection was lost, and what was not committed with it.
    Lost,
}

/// Whether it may be run again, and why.
pub(super) fn again(error: &Error) -> Option<Again> {
    match error.as_db_error().map(DbError::code) {
        None if is_misfit(error) => Some(Again::Outdated),
        None => is_lost(error).then_some(Again::Lost),
        Some(code) => match code.code() {
            "40001" | "40P01" => Some(Again::Conflict),
            // "cached plan must not change result type", and what comes of places that were typed for another column.
            "0A000" | "42804" | "42883" | "26000" => Some(Again::Outdated),
            code if is_farewell(code) => Some(Again::Lost),
            _ => None,
        },
    }
}

/// Whether the server ends the connection with this code.
fn is_farewell(code: &str) -> bool {
    code.starts_with("57P") || code.starts_with("08") || code == "25P03" || code == "25P04"
}

/// Whether a value does not fit its place.
fn is_misfit(error: &Error) -> bool {
    error.source().is_some_and(|source| source.is::<Misfit>())
}

/// Whether nothing more can be said on the connection.
fn is_lost(error: &Error) -> bool {
    error.is_closed()
        || error
            .source()
            .is_some_and(|source| source.is::<std::io::Error>())
}

/// What an error of a statement means.
pub(super) fn fault(error: &Error) -> Fault {
    let Some(db) = error.as_db_error() else {
        return match is_lost(error) {
            true => StoreError::Away(words(error)),
            // A value that does not encode, or a cell that does not decode.
            false => StoreError::Internal(words(error)),
        }
        .into();
    };
    let code = db.code().code();
    match code {
        "23505" => Fault::Unique(columns_of(db)),
        "23503" | "23001" => Fault::Reference,
        "22P02" | "22P03" | "22003" | "22018" | "22021" | "22001" | "22P05" => {
            Fault::Check(without_values(db.message()))
        }
        // A row of an index is at most a third of a page.
        "54000" => StoreError::Invalid("a text is too long for the index it is in".to_owned()).into(),
        "40001" | "40P01" | "55P03" | "55006" => StoreError::Locked.into(),
        "53100" => StoreError::Full.into(),
        "25006" | "42501" => StoreError::ReadOnly.into(),
        "57014" => StoreError::Away(format!(
            "a statement was cancelled ({}); see the statement timeout, and what else the database does",
            db.message()
        ))
        .into(),
        _ if code.starts_with("23") => Fault::Check(db.message().to_owned()),
        _ if code.starts_with("42") => Fault::Statement(db.message().to_owned()),
        _ if is_farewell(code) || ["53", "58", "XX"].iter().any(|class| code.starts_with(class)) => {
            StoreError::Away(format!("{} ({code})", db.message())).into()
        }
        _ => StoreError::Internal(format!("{} ({code})", db.message())).into(),
    }
}

/// The columns in "Key (a, b)=(…) already exists."
fn columns_of(error: &DbError) -> String {
    let of_detail = error.detail().and_then(|detail| {
        let list = detail.split_once('(')?.1.split_once(")=(")?.0;
        // An index over JSON is one over its text: "(tags::text)".
        let column = |text: &str| {
            let name = text.trim_start_matches('(').trim_end_matches(')');
            name.trim_end_matches("::text").to_owned()
        };
        Some(list.split(", ").map(column).collect::<Vec<_>>().join(", "))
    });
    of_detail
        .or_else(|| error.constraint().map(str::to_owned))
        .unwrap_or_else(|| "values".to_owned())
}

/// A message without the value that it quotes, as in `invalid input syntax for type bigint: "…"`.
fn without_values(message: &str) -> String {
    match message.split_once('"') {
        None => message.to_owned(),
        Some((before, _)) => match before.strip_suffix(": ") {
            Some(before) => before.to_owned(),
            None => "a value does not fit the type of its column".to_owned(),
        },
    }
}

/// An error with all its causes, for the operator.
pub(super) fn words(error: &Error) -> String {
    if let Some(db) = error.as_db_error() {
        return format!("{} ({})", db.message(), db.code().code());
    }
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        words = format!("{words}: {error}");
        cause = error.source();
    }
    words
}

/// Whether the server has no connection left for us.
pub(super) fn is_crowded(error: &Error) -> bool {
    error.code() == Some(&SqlState::TOO_MANY_CONNECTIONS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_loses_the_value_that_it_quotes() {
        for (message, wanted) in [
            (
                "invalid input syntax for type bigint: \"hush\"",
                "invalid input syntax for type bigint",
            ),
            (
                "value \"99999\" is out of range for type integer",
                "a value does not fit the type of its column",
            ),
            ("bigint out of range", "bigint out of range"),
        ] {
            assert_eq!(without_values(message), wanted);
        }
    }
}
