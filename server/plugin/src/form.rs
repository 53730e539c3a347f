//! Forms: the elements as they go over the wire, how a plugin's answer becomes them.
//!
//! The four element types are closed, because clients crash on a fifth. A richer widget is a `string` or `select` with
//! extra keys, which clients ignore and the console uses.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::Map;
use crate::field::{Field, FieldKind};
use crate::term::{Mistake, Mistakes, Path, TableReader, Term};
use crate::visibility::{Dependency, dependencies};

/// The most elements one form may have, and the most options of one element.
pub const MAX_ELEMENTS: usize = 500;
/// The most options one element may have.
pub const MAX_OPTIONS: usize = 10_000;

/// One element of a form. The keys stand in the order of the wire format, and all of them are always there.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct UiElement {
    /// What the user reads.
    pub label: String,
    /// Which of the four widgets it is.
    #[serde(rename = "type")]
    pub kind: ElementKind,
    /// Whether it must be filled in while it is shown.
    pub required: bool,
    /// The field it fills.
    pub name: String,
    /// A longer explanation.
    pub tooltip: Option<String>,
    /// Whether it is kept and submitted without being shown.
    pub hidden: Option<bool>,
    /// The settings of a checkbox; null for the other types.
    pub checkbox: Option<Checkbox>,
    /// The settings of a select; null for the other types.
    pub select: Option<Select>,
    /// The settings of a string; null for the other types.
    pub string: Option<StringInput>,
    /// The settings of a radio; null for the other types.
    pub radio: Option<Radio>,
    /// What other fields must be for this one to be shown; all must hold.
    pub depends_on: Option<Vec<Dependency>>,
    /// Whether it is shown but cannot be changed.
    pub disabled: Option<bool>,
    /// Whether it takes the data product's namespace while the technical mapping is `default`.
    pub use_namespace_when_not_source_aligned: Option<bool>,
    /// Hints for richer widgets (`widget`, `group`, `placeholder`, …).
    #[serde(flatten)]
    #[schema(ignore)]
    pub extra: Map,
}

/// The four types of elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ElementKind {
    /// A text input.
    String,
    /// A choice from a list.
    Select,
    /// A box to tick.
    Checkbox,
    /// A choice from buttons.
    Radio,
}

/// The settings of a checkbox.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Checkbox {
    /// Whether it is ticked at first.
    pub initial_value: Option<bool>,
}

/// The settings of a select.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Select {
    /// How many may be chosen; above 1 the value is a list.
    pub max_count: Option<u32>,
    /// What can be chosen.
    pub options: Option<Vec<Choice>>,
}

/// The settings of a text input.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct StringInput {
    /// The text at first.
    pub initial_value: Option<String>,
}

/// The settings of a radio.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Radio {
    /// How many may be chosen.
    pub max_count: Option<u32>,
    /// What is chosen at first.
    pub initial_value: Option<String>,
    /// What can be chosen.
    pub options: Option<Vec<Choice>>,
}

/// One option of a select or radio.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[schema(as = Option)]
pub struct Choice {
    /// What the user reads.
    pub label: String,
    /// What is submitted: a text or a boolean.
    pub value: Value,
}

/// Reads what `ui_metadata` returned: a list of what the `ui` functions built. All mistakes come at once.
///
/// # Errors
/// Every mistake, with its path in what was returned.
pub fn read_form(term: Term, fields: &[Field]) -> Result<Vec<UiElement>, Vec<Mistake>> {
    let mut mistakes = Mistakes::default();
    let elements = match term {
        Term::List(items) if items.len() <= MAX_ELEMENTS => items,
        Term::List(items) => {
            mistakes.add(
                Path::default(),
                format!("at most {MAX_ELEMENTS} elements"),
                format!("{} elements", items.len()),
            );
            Vec::new()
        }
        other => {
            mistakes.add(
                Path::default(),
                "a list of elements, such as { ui.string \"name\" {…} }",
                other.found(),
            );
            Vec::new()
        }
    };
    let mut form: Vec<UiElement> = Vec::with_capacity(elements.len());
    for (place, term) in elements.into_iter().enumerate() {
        let path = Path::default().index(place + 1);
        let Some(element) = read_element(term, path.clone(), &mut mistakes) else {
            continue;
        };
        if form.iter().any(|other| other.name == element.name) {
            mistakes.add(
                path.key("name"),
                "each element's name once",
                format!("{:?} again", element.name),
            );
        }
        if !fields
            .iter()
            .any(|field| field.name.as_str() == element.name)
        {
            let near = crate::name::nearest(
                &element.name,
                fields.iter().map(|field| field.name.as_str()),
            );
            let found = format!("{:?}", element.name);
            match near {
                Some(near) => mistakes.add_with_help(
                    path.key("name"),
                    "the name of one of the plugin's fields",
                    found,
                    format!("did you mean `{near}`?"),
                ),
                None => mistakes.add(
                    path.key("name"),
                    "the name of one of the plugin's fields",
                    found,
                ),
            }
        }
        form.push(element);
    }
    mistakes.into_result(Some(form))
}

fn read_element(term: Term, path: Path, mistakes: &mut Mistakes) -> Option<UiElement> {
    const EXPECTED: &str = "an element, such as ui.string \"table\" { label = \"Table\" }";
    let mut table = TableReader::open(term, path, EXPECTED, mistakes)?;
    let kind = match table.take("type") {
        Some(Term::String(word)) => match word.as_str() {
            "string" => ElementKind::String,
            "select" => ElementKind::Select,
            "checkbox" => ElementKind::Checkbox,
            "radio" => ElementKind::Radio,
            other => {
                mistakes.add(
                    table.path_of("type"),
                    "one of the types string, select, checkbox, radio",
                    format!("{other:?}"),
                );
                return None;
            }
        },
        _ => {
            mistakes.add(
                table.path().clone(),
                EXPECTED,
                "a table that no `ui` function built",
            );
            return None;
        }
    };
    let name = table.required_string("name", mistakes);
    let label = table.string("label", mistakes);
    let required = table.boolean("required", mistakes).unwrap_or(false);
    let tooltip = table.string("tooltip", mistakes);
    let hidden = table.boolean("hidden", mistakes);
    let disabled = table.boolean("disabled", mistakes);
    let namespace = table.boolean("use_namespace_when_not_source_aligned", mistakes);
    let depends_on = match table.take("depends_on") {
        Some(term) => {
            let found = dependencies(term, table.path_of("depends_on"), mistakes);
            (!found.is_empty()).then_some(found)
        }
        None => None,
    };
    let (mut checkbox, mut select, mut string, mut radio) = (None, None, None, None);
    match kind {
        ElementKind::Checkbox => {
            checkbox = Some(Checkbox {
                initial_value: table.boolean("initial_value", mistakes),
            });
        }
        ElementKind::String => {
            string = Some(StringInput {
                initial_value: table.string("initial_value", mistakes),
            });
        }
        ElementKind::Select => {
            select = Some(Select {
                max_count: max_count(&mut table, mistakes),
                options: options(&mut table, mistakes),
            });
        }
        ElementKind::Radio => {
            radio = Some(Radio {
                max_count: max_count(&mut table, mistakes),
                initial_value: table.string("initial_value", mistakes),
                options: options(&mut table, mistakes),
            });
        }
    }
    let extra = read_extra(&mut table, mistakes);
    table.finish(mistakes);
    let name = name?;
    Some(UiElement {
        label: label.unwrap_or_else(|| title_of(&name)),
        kind,
        required,
        name,
        tooltip,
        hidden,
        checkbox,
        select,
        string,
        radio,
        depends_on,
        disabled,
        use_namespace_when_not_source_aligned: namespace,
        extra,
    })
}

fn max_count(table: &mut TableReader, mistakes: &mut Mistakes) -> Option<u32> {
    match table.integer("max_count", mistakes) {
        None => Some(1),
        Some(count) => match u32::try_from(count) {
            Ok(count) if count > 0 => Some(count),
            _ => {
                mistakes.add(
                    table.path_of("max_count"),
                    "an integer of 1 or more",
                    count.to_string(),
                );
                Some(1)
            }
        },
    }
}

/// Options are texts, booleans, or tables with a label and a value.
fn options(table: &mut TableReader, mistakes: &mut Mistakes) -> Option<Vec<Choice>> {
    let items = table.list(
        "options",
        "a list of options, such as { \"a\", { label = \"B\", value = \"b\" } }",
        mistakes,
    )?;
    let path = table.path_of("options");
    if items.len() > MAX_OPTIONS {
        mistakes.add(
            path,
            format!("at most {MAX_OPTIONS} options"),
            format!("{} options", items.len()),
        );
        return None;
    }
    let mut choices = Vec::with_capacity(items.len());
    for (place, item) in items.into_iter().enumerate() {
        match item {
            Term::String(text) => choices.push(Choice {
                label: text.clone(),
                value: Value::String(text),
            }),
            Term::Boolean(value) => choices.push(Choice {
                label: value.to_string(),
                value: Value::Bool(value),
            }),
            other => {
                let path = path.index(place + 1);
                let Some(mut option) = TableReader::open(
                    other,
                    path.clone(),
                    "a text, or a table with `label` and `value`",
                    mistakes,
                ) else {
                    continue;
                };
                let label = option.string("label", mistakes);
                let value = match option.take("value") {
                    Some(Term::String(text)) => Some(Value::String(text)),
                    Some(Term::Boolean(value)) => Some(Value::Bool(value)),
                    Some(other) => {
                        mistakes.add(path.key("value"), "a text or a boolean", other.found());
                        None
                    }
                    None => {
                        mistakes.add(path.key("value"), "a text or a boolean", "nothing");
                        None
                    }
                };
                option.finish(mistakes);
                if let Some(value) = value {
                    let label = label
                        .or_else(|| crate::template::text_of(&value))
                        .unwrap_or_default();
                    choices.push(Choice { label, value });
                }
            }
        }
    }
    Some(choices)
}

/// The hints for richer widgets that a form may carry; anything else is a slip.
fn read_extra(table: &mut TableReader, mistakes: &mut Mistakes) -> Map {
    const TEXTS: &[&str] = &["widget", "group", "placeholder", "pattern", "help"];
    const NUMBERS: &[&str] = &["min", "max", "step", "rows"];
    let mut extra = Map::new();
    for key in TEXTS {
        if let Some(text) = table.string(key, mistakes) {
            extra.insert((*key).to_owned(), Value::String(text));
        }
    }
    for key in NUMBERS {
        if !table.has(key) {
            table.take(key);
            continue;
        }
        match table.take(key) {
            Some(term @ (Term::Integer(_) | Term::Number(_))) => {
                extra.insert((*key).to_owned(), term.into_json());
            }
            Some(other) => mistakes.add(table.path_of(key), "a number", other.found()),
            None => {}
        }
    }
    if let Some(secret) = table.boolean("secret", mistakes) {
        extra.insert("secret".to_owned(), Value::Bool(secret));
    }
    extra
}

/// What a form that was read lacks for whoever fills it in: labels of the author's own, and an explanation where something
/// is to be typed. What is chosen or ticked explains itself by its options; a field's `description` explains as a `tooltip`
/// does, because pages and schemas show it; what is hidden or cannot be changed needs neither.
pub fn unexplained(term: &Term, fields: &[Field]) -> Vec<Mistake> {
    let mut mistakes = Mistakes::default();
    let Term::List(elements) = term else {
        return Vec::new();
    };
    for (place, element) in elements.iter().enumerate() {
        let Term::Table(entries) = element else {
            continue;
        };
        let get = |key: &str| entries.iter().find(|(name, _)| name == key);
        let is = |key: &str| matches!(get(key), Some((_, Term::Boolean(true))));
        let Some((_, Term::String(name))) = get("name") else {
            continue;
        };
        if is("hidden") {
            continue;
        }
        let field = fields.iter().find(|field| field.name.as_str() == name);
        let path = Path::default().index(place + 1);
        if get("label").is_none() {
            mistakes.add_with_help(
                path.clone(),
                format!("a `label` for \"{name}\", which is what people read"),
                format!("none, so that they read \"{}\"", title_of(name)),
                "add `label = \"…\"`",
            );
        }
        let typed = matches!(get("type"), Some((_, Term::String(kind))) if kind == "string");
        let explained = ["tooltip", "help", "placeholder"]
            .iter()
            .any(|key| get(key).is_some())
            || field.is_some_and(|field| field.description.is_some());
        if typed && !explained && !is("disabled") {
            mistakes.add_with_help(
                path,
                format!("a `tooltip` for \"{name}\" that says what to type"),
                "none, and its field has no `description` either",
                "add `tooltip = \"…\"`, or a `description` to the field",
            );
        }
    }
    mistakes.into_list()
}

/// The same of the form that is derived from the fields.
pub fn unexplained_fields(fields: &[Field]) -> Vec<Mistake> {
    let mut mistakes = Mistakes::default();
    for (place, field) in fields.iter().enumerate() {
        let path = Path::default().key("fields").index(place + 1);
        let name = field.name.as_str();
        if field.label.is_none() {
            mistakes.add_with_help(
                path.clone(),
                format!("a `label` for \"{name}\", which is what people read in its form"),
                format!("none, so that they read \"{}\"", title_of(name)),
                "add `label = \"…\"`",
            );
        }
        let chosen = matches!(field.kind, FieldKind::Boolean | FieldKind::Enum { .. });
        if !chosen && field.description.is_none() {
            mistakes.add_with_help(
                path,
                format!("a `description` of \"{name}\", which its form shows as a tooltip"),
                "none",
                "add `description = \"…\"`",
            );
        }
    }
    mistakes.into_list()
}

/// The form of a plugin that has no `ui_metadata`: one element a field.
pub fn derived_form(fields: &[Field]) -> Vec<UiElement> {
    fields.iter().map(derived_element).collect()
}

fn derived_element(field: &Field) -> UiElement {
    let name = field.name.as_str().to_owned();
    let text_default = field
        .default
        .as_ref()
        .and_then(Value::as_str)
        .map(str::to_owned);
    let (mut checkbox, mut select, mut string, mut radio) = (None, None, None, None);
    let mut extra = Map::new();
    let kind = match &field.kind {
        FieldKind::Boolean => {
            checkbox = Some(Checkbox {
                initial_value: field.default.as_ref().and_then(Value::as_bool),
            });
            ElementKind::Checkbox
        }
        FieldKind::Enum { values } => {
            let options = Some(
                values
                    .iter()
                    .map(|value| Choice {
                        label: title_of(value),
                        value: value.clone().into(),
                    })
                    .collect(),
            );
            if values.len() <= 3 {
                radio = Some(Radio {
                    max_count: Some(1),
                    initial_value: text_default,
                    options,
                });
                ElementKind::Radio
            } else {
                select = Some(Select {
                    max_count: Some(1),
                    options,
                });
                ElementKind::Select
            }
        }
        other => {
            let initial_value = match &field.default {
                None | Some(Value::Null) => None,
                Some(Value::String(text)) => Some(text.clone()),
                Some(value) => Some(value.to_string()),
            };
            string = Some(StringInput { initial_value });
            match other {
                FieldKind::String { .. } => {}
                kind => {
                    extra.insert("widget".to_owned(), kind.word().into());
                }
            }
            ElementKind::String
        }
    };
    UiElement {
        label: field.label.clone().unwrap_or_else(|| title_of(&name)),
        kind,
        required: field.required,
        name,
        tooltip: field.description.clone(),
        hidden: None,
        checkbox,
        select,
        string,
        radio,
        depends_on: (!field.depends_on.is_empty()).then(|| field.depends_on.clone()),
        disabled: None,
        use_namespace_when_not_source_aligned: None,
        extra,
    }
}

/// `access_granularity` as a label: "Access granularity".
pub fn title_of(name: &str) -> String {
    let words = name.replace('_', " ");
    let mut letters = words.chars();
    match letters.next() {
        Some(first) => first.to_uppercase().chain(letters).collect(),
        None => words,
    }
}

#[cfg(test)]
mod tests {

    use super::*;

    fn table(entries: Vec<(&str, Term)>) -> Term {
        Term::Table(
            entries
                .into_iter()
                .map(|(key, term)| (key.to_owned(), term))
                .collect(),
        )
    }

    fn text(value: &str) -> Term {
        Term::String(value.to_owned())
    }

    fn fields(names: &[&str]) -> Vec<Field> {
        names
            .iter()
            .map(|name| Field {
                name: crate::name::FieldName::parse(name).expect("a name"),
                kind: FieldKind::String {
                    pattern: None,
                    min: None,
                    max: None,
                },
                required: false,
                default: None,
                depends_on: Vec::new(),
                label: None,
                description: None,
            })
            .collect()
    }

    #[test]
    fn an_element_has_every_key_in_the_order_of_the_wire() {
        let form = read_form(
            Term::List(vec![table(vec![
                ("type", text("select")),
                ("name", text("database")),
                ("label", text("Database")),
                ("options", Term::List(vec![text("a")])),
                ("depends_on", table(vec![("x", text("y"))])),
            ])]),
            &fields(&["database"]),
        )
        .expect("a form");
        assert_eq!(
            serde_json::to_string(&form[0]).expect("json"),
            r#"{"label":"Database","type":"select","required":false,"name":"database","tooltip":null,"hidden":null,"checkbox":null,"select":{"max_count":1,"options":[{"label":"a","value":"a"}]},"string":null,"radio":null,"depends_on":[{"field_name":"x","value":"y"}],"disabled":null,"use_namespace_when_not_source_aligned":null}"#
        );
    }

    #[test]
    fn what_nobody_explains_is_told() {
        let mut known = fields(&["a", "b", "c", "d", "e"]);
        known[1].description = Some("What b is".to_owned());
        let element = |kind: &str, name: &str, more: Vec<(&str, Term)>| {
            let mut entries = vec![("type", text(kind)), ("name", text(name))];
            entries.extend(more);
            table(entries)
        };
        let form = Term::List(vec![
            element("string", "a", vec![]),
            element("string", "b", vec![("label", text("B"))]),
            element("select", "c", vec![("label", text("C"))]),
            element("string", "d", vec![("hidden", Term::Boolean(true))]),
            element(
                "string",
                "e",
                vec![("label", text("E")), ("tooltip", text("T"))],
            ),
        ]);
        let told = |mistakes: Vec<Mistake>| -> Vec<String> {
            mistakes.iter().map(ToString::to_string).collect()
        };
        let written = told(unexplained(&form, &known));
        assert_eq!(written.len(), 2, "{written:#?}");
        assert!(written[0].starts_with("[1]: expected a `label` for \"a\""));
        assert!(written[1].starts_with("[1]: expected a `tooltip` for \"a\""));
        let derived = told(unexplained_fields(&known[..2]));
        assert_eq!(derived.len(), 3, "{derived:#?}");
        assert!(derived[2].starts_with("fields[2]: expected a `label` for \"b\""));
    }

    #[test]
    fn nonsense_is_reported_by_path() {
        let mistakes = read_form(
            Term::List(vec![
                table(vec![("type", text("slider")), ("name", text("a"))]),
                table(vec![
                    ("type", text("string")),
                    ("name", text("databse")),
                    ("lable", text("x")),
                ]),
                Term::Integer(5),
            ]),
            &fields(&["database"]),
        )
        .expect_err("mistakes");
        let messages: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
        assert!(
            messages[0].starts_with("[1].type: expected one of the types"),
            "{messages:#?}"
        );
        assert!(
            messages
                .iter()
                .any(|text| text.contains("did you mean `label`?")),
            "{messages:#?}"
        );
        assert!(
            messages
                .iter()
                .any(|text| text.contains("did you mean `database`?")),
            "{messages:#?}"
        );
        assert!(
            messages
                .iter()
                .any(|text| text.starts_with("[3]: expected an element")),
            "{messages:#?}"
        );
    }
}
