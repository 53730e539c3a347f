//! Names, parsed once at the edge. Inside, a name of these types needs no second check.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The longest identifier that becomes a table or column, in bytes. Postgres cuts at 63; the rest is left for the
/// prefixes and suffixes of index names.
pub const MAX_IDENTIFIER: usize = 48;

/// The words of `/plugins/{word}` routes. A plugin or alias of such a name could never be reached.
pub const ROUTE_WORDS: &[&str] = &[
    "status",
    "migrations",
    "reload",
    "platform-tiles",
    "render_technical_asset_access_path",
    "form",
    "schema",
    "icon",
    "validate",
    "configurations",
    "url",
];

/// The tables of the core schema, which no plugin may claim.
pub const CORE_TABLES: &[&str] = &[
    "platforms",
    "platform_services",
    "platform_service_configurations",
    "environments",
    "environment_configurations",
    "data_products",
    "data_output_configurations",
    "configuration_revisions",
    "applied_definitions",
    "plugin_tables",
    "plugin_migrations",
    "counters",
    "servers",
    "refinery_schema_history",
];

/// Why a text is not a name of the wanted kind. The message says what is expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{expected}")]
pub struct NameError {
    /// What would have been right, as a noun phrase: "a plugin name: …".
    pub expected: String,
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $check:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Parses the name, or says what was expected.
            ///
            /// # Errors
            /// What was expected of it.
            pub fn parse(text: &str) -> Result<Self, NameError> {
                match $check(text) {
                    Ok(()) => Ok(Self(text.into())),
                    Err(expected) => Err(NameError { expected }),
                }
            }

            /// The name as written.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                Self::parse(&text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0.as_ref().to_owned()
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}

name_type!(
    /// The name of a plugin or one of its aliases, as in `SnowflakeDataOutput`. Case-sensitive.
    PluginName,
    check_plugin_name
);
name_type!(
    /// The name of a field, which is also its column's.
    FieldName,
    check_field_name
);
name_type!(
    /// The name of a table that a plugin may own.
    TableName,
    check_table_name
);
name_type!(
    /// The key of a platform, as in `snowflake`. Platform services belong to it by name.
    PlatformKey,
    check_platform_key
);
name_type!(
    /// The id of a migration: four digits, an underscore and words, as in `0001_create_table`. Ids order by their text.
    MigrationId,
    check_migration_id
);

impl MigrationId {
    /// The number it begins with.
    pub fn number(&self) -> u32 {
        self.as_str()[..4].parse().unwrap_or(0)
    }
}

fn check_plugin_name(text: &str) -> Result<(), String> {
    let shape = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.len() <= 64
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if !shape {
        return Err("a plugin name: a letter, then letters, digits and `_`, at most 64, as in \"SnowflakeDataOutput\""
            .to_owned());
    }
    if ROUTE_WORDS.contains(&text) {
        return Err(format!(
            "a plugin name that is not a word of the REST routes (\"{text}\" is one)"
        ));
    }
    Ok(())
}

fn is_identifier(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.len() <= MAX_IDENTIFIER
        && text
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

/// The columns that every table of Postgres has, so that none of its own may be called like them.
pub(crate) const SYSTEM_COLUMNS: &[&str] = &["tableoid", "xmin", "cmin", "xmax", "cmax", "ctid"];

fn check_field_name(text: &str) -> Result<(), String> {
    if !is_identifier(text) {
        return Err(format!(
            "a field name: a lower-case letter, then lower-case letters, digits and `_`, at most {MAX_IDENTIFIER} bytes"
        ));
    }
    if SYSTEM_COLUMNS.contains(&text) {
        return Err(format!(
            "a field name other than \"{text}\", which Postgres has in every table"
        ));
    }
    if text == "id" || text == "configuration_type" {
        return Err(format!(
            "a field name other than \"{text}\", which every configuration already has"
        ));
    }
    Ok(())
}

fn check_table_name(text: &str) -> Result<(), String> {
    if !is_identifier(text) {
        return Err(format!(
            "a table name: a lower-case letter, then lower-case letters, digits and `_`, at most {MAX_IDENTIFIER} bytes"
        ));
    }
    if CORE_TABLES.contains(&text) || text.starts_with("sqlite_") || text.starts_with("pg_") {
        return Err(format!(
            "a table of the plugin's own (\"{text}\" belongs to the server)"
        ));
    }
    Ok(())
}

fn check_platform_key(text: &str) -> Result<(), String> {
    let shape = text.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        && text.len() <= 64
        && text
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-');
    if shape {
        Ok(())
    } else {
        Err("a platform key: lower-case letters, digits, `_` and `-`, at most 64, as in \"snowflake\"".to_owned())
    }
}

fn check_migration_id(text: &str) -> Result<(), String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let rest = &text[digits..];
    let shape = digits == 4
        && text.len() <= 100
        && rest.len() > 1
        && rest.starts_with('_')
        && rest
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if shape {
        Ok(())
    } else {
        Err(
            "a migration id: four digits, `_` and lower-case words, as in \"0001_create_table\""
                .to_owned(),
        )
    }
}

/// The one of `candidates` that is most like `wrong`, when one is near enough to be what was meant.
///
/// Near enough is a Damerau-Levenshtein distance of a third of the length, so that `requred` finds `required` and
/// `x` finds nothing. Case is ignored; a candidate that differs only in case is always near.
pub fn nearest<'a>(wrong: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wanted = wrong.to_lowercase();
    let allowed = (wrong.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| {
            (
                strsim::damerau_levenshtein(&wanted, &candidate.to_lowercase()),
                candidate,
            )
        })
        .filter(|(distance, candidate)| {
            *distance <= allowed && *distance < candidate.chars().count().max(1)
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_parsed_at_the_edge() {
        assert!(PluginName::parse("SnowflakeDataOutput").is_ok());
        for bad in ["", "1x", "a-b", "status", "é", &"x".repeat(65)] {
            assert!(PluginName::parse(bad).is_err(), "{bad}");
        }
        assert!(FieldName::parse("access_granularity").is_ok());
        for bad in [
            "id",
            "configuration_type",
            "ctid",
            "xmin",
            "Upper",
            "a b",
            "",
            &"x".repeat(49),
        ] {
            assert!(FieldName::parse(bad).is_err(), "{bad}");
        }
        for bad in [
            "platforms",
            "sqlite_master",
            "data_output_configurations",
            "x\"; drop",
        ] {
            assert!(TableName::parse(bad).is_err(), "{bad}");
        }
        assert!(MigrationId::parse("0001_create_table").is_ok());
        for bad in ["1_x", "0001", "0001_", "00011_x", "0001-x", "0001_X"] {
            assert!(MigrationId::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_nearest_name_is_offered_only_when_near() {
        let keys = ["required", "default", "pattern"];
        assert_eq!(nearest("requred", keys), Some("required"));
        assert_eq!(nearest("DEFAULT", keys), Some("default"));
        assert_eq!(nearest("zzz", keys), None);
    }
}
