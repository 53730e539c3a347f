//! Errors of a client's input, in the shape that generated clients of the origin know: `{type, loc, msg, input, ctx?}`.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::secret::{is_secret_key, with_blank_secrets};

/// One step of a `loc`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum LocStep {
    /// A key.
    Key(String),
    /// A place in a list, counted from 0, or an offset in a body.
    Index(usize),
}

impl From<&str> for LocStep {
    fn from(key: &str) -> Self {
        LocStep::Key(key.to_owned())
    }
}

impl From<usize> for LocStep {
    fn from(index: usize) -> Self {
        LocStep::Index(index)
    }
}

/// Where in a request something is wrong, as in `["body", "configuration", "SnowflakeDataOutput", "database"]`.
pub type Loc = Vec<LocStep>;

/// The `loc` that is `loc` one step further.
pub fn at(loc: &[LocStep], step: impl Into<LocStep>) -> Loc {
    let mut longer = loc.to_vec();
    longer.push(step.into());
    longer
}

/// One thing that is wrong in a request.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct ValidationError {
    /// The kind of error: `missing`, `string_type`, `enum`, `value_error`, …
    #[serde(rename = "type")]
    pub kind: String,
    /// Where it is.
    #[schema(value_type = Vec<Value>)]
    pub loc: Loc,
    /// What is wrong, as a sentence.
    pub msg: String,
    /// What was sent there.
    pub input: Value,
    /// Details by kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ctx: Option<Value>,
}

impl ValidationError {
    /// An error of a kind that has no details.
    pub fn new(kind: &str, loc: Loc, msg: impl Into<String>, input: Value) -> Self {
        Self {
            kind: kind.to_owned(),
            loc,
            msg: msg.into(),
            input,
            ctx: None,
        }
    }

    /// A key that has to be there is not; `input` is the object that lacks it.
    pub fn missing(loc: Loc, input: Value) -> Self {
        Self::new("missing", loc, "Field required", input)
    }

    /// A value of another type; `wanted` is one of `string`, `integer`, `number`, `boolean`, `list`, `dictionary`.
    pub fn wrong_type(wanted: &str, loc: Loc, input: Value) -> Self {
        let kind = match wanted {
            "integer" => "int_type",
            "number" => "float_type",
            "boolean" => "bool_type",
            "list" => "list_type",
            "dictionary" => "dict_type",
            _ => "string_type",
        };
        Self::new(
            kind,
            loc,
            format!("Input should be a valid {wanted}"),
            input,
        )
    }

    /// A value that is none of a closed list.
    pub fn not_in_enum(values: &[String], loc: Loc, input: Value) -> Self {
        let expected = or_list(values);
        Self {
            ctx: Some(json!({ "expected": expected })),
            ..Self::new("enum", loc, format!("Input should be {expected}"), input)
        }
    }

    /// A value that breaks a rule; the message is the rule's.
    pub fn value(loc: Loc, msg: impl Into<String>, input: Value) -> Self {
        Self::new("value_error", loc, msg, input)
    }

    /// There are more errors than those that are told.
    pub fn more(loc: Loc, count: usize) -> Self {
        let msg = match count {
            1 => "1 more error is left out".to_owned(),
            count => format!("{count} more errors are left out"),
        };
        Self::value(loc, msg, Value::Null)
    }

    /// A text that holds a NUL, which neither database stores.
    pub fn has_nul(loc: Loc, input: Value) -> Self {
        Self::value(loc, "A text cannot contain the NUL character", input)
    }

    /// A text that is no UUID.
    pub fn no_uuid(loc: Loc, text: &str) -> Self {
        Self::value(loc, "Input should be a valid UUID", text.into())
    }

    /// A text of more characters than there may be.
    pub fn too_long(loc: Loc, max: usize, input: Value) -> Self {
        Self::value(loc, format!("Should have at most {max} characters"), input)
    }

    /// A discriminator that names none of the plugins that would do.
    pub fn tag_invalid(loc: Loc, tag: &str, expected: &[String], input: Value) -> Self {
        let tags = expected
            .iter()
            .map(|name| format!("'{name}'"))
            .collect::<Vec<_>>()
            .join(", ");
        Self {
            ctx: Some(json!({
                "discriminator": "'configuration_type'", "tag": tag, "expected_tags": tags,
            })),
            ..Self::new(
                "union_tag_invalid",
                loc,
                format!(
                    "Input tag '{tag}' found using 'configuration_type' does not match any of the expected tags: {tags}"
                ),
                input,
            )
        }
    }

    /// No discriminator at all.
    pub fn tag_not_found(loc: Loc, input: Value) -> Self {
        Self {
            ctx: Some(json!({ "discriminator": "'configuration_type'" })),
            ..Self::new(
                "union_tag_not_found",
                loc,
                "Unable to extract tag using discriminator 'configuration_type'",
                input,
            )
        }
    }
}

/// All that is wrong in a request.
#[derive(Debug, Clone, PartialEq)]
pub struct Invalid(pub Vec<ValidationError>);

/// How much of what was sent a list of errors repeats in all, in bytes of text.
const MAX_REPEATED: usize = 64 * 1024;

/// Errors as a client is told of them, in whatever answer: what was sent is repeated without its secrets, and only as far
/// as the answer stays of a size to read.
pub fn told(mut errors: Vec<ValidationError>) -> Vec<ValidationError> {
    let mut left = MAX_REPEATED;
    for error in &mut errors {
        let size = size_of(&error.input);
        if size > left {
            error.input = Value::Null;
            continue;
        }
        left -= size;
        let at_secret = matches!(error.loc.last(), Some(LocStep::Key(key)) if is_secret_key(key));
        error.input = match at_secret {
            true => Value::String(String::new()),
            false => with_blank_secrets(&error.input),
        };
    }
    errors
}

/// About how many bytes a value has as JSON.
fn size_of(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len() + 2,
        Value::Array(items) => items.iter().map(size_of).sum::<usize>() + 2,
        Value::Object(entries) => {
            entries
                .iter()
                .map(|(key, value)| key.len() + size_of(value) + 4)
                .sum::<usize>()
                + 2
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => 8,
    }
}

/// `'a'`, `'a' or 'b'`, `'a', 'b' or 'c'`.
pub fn or_list(values: &[String]) -> String {
    let quoted: Vec<String> = values.iter().map(|value| format!("'{value}'")).collect();
    match quoted.split_last() {
        None => String::new(),
        Some((only, [])) => only.clone(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_enum_error_reads_as_the_origin_s() {
        let error = ValidationError::not_in_enum(
            &["schema".into(), "table".into()],
            vec!["body".into(), "access_granularity".into()],
            json!("x"),
        );
        assert_eq!(
            serde_json::to_value(&error).expect("json"),
            json!({
                "type": "enum", "loc": ["body", "access_granularity"],
                "msg": "Input should be 'schema' or 'table'", "input": "x",
                "ctx": {"expected": "'schema' or 'table'"},
            })
        );
        assert_eq!(
            or_list(&["a".into(), "b".into(), "c".into()]),
            "'a', 'b' or 'c'"
        );
    }
}
