//! The definition of a plugin: what `plugin.lua` returned, checked and turned into plain data.

use std::fmt;

use semver::{Version, VersionReq};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Map;
use crate::field::{Field, first_repeated, parse_values};
use crate::migration::Migration;
use crate::name::{PluginName, TableName};
use crate::platform::PlatformMetadata;
use crate::secret::is_secret_key;
use crate::term::{Mistake, Mistakes, Path, TableReader, Term};
use crate::validation::LocStep;

/// The version of the plugin API that this server speaks.
pub const PLUGIN_API: i64 = 1;

/// The version of this Patchbay, which `requires` of a definition is about.
pub const PATCHBAY: &str = env!("CARGO_PKG_VERSION");

/// A checked plugin definition.
#[derive(Debug, Clone, PartialEq)]
pub struct Definition {
    /// Its name.
    pub name: PluginName,
    /// Its version, as written; `1.0` when left out.
    pub version: String,
    /// The version of the plugin API that it is written for; [`PLUGIN_API`] when left out.
    pub api: i64,
    /// Other names it answers to.
    pub aliases: Vec<PluginName>,
    /// The Patchbay versions it works with.
    pub requires: Option<VersionReq>,
    /// How it presents itself.
    pub platform: PlatformMetadata,
    /// What its configurations consist of.
    pub fields: Vec<Field>,
    /// What the operator sets for it.
    pub settings: Vec<Field>,
    /// Its table; none without fields.
    pub table: Option<TableName>,
    /// Configurations that are right, shown in docs and schema.
    pub examples: Vec<Map>,
    /// Which hooks it has.
    pub hooks: Hooks,
    /// How the entry of an environment that belongs to a configuration is found.
    pub environment_entry: EnvironmentEntry,
    /// Template placeholders that are no fields, because `render` fills them itself.
    pub placeholders: Vec<String>,
    /// Its written migrations, in the order of their ids.
    pub migrations: Vec<Migration>,
}

/// The functions of a definition that the server calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Hooks {
    /// Gives the form.
    pub ui_metadata: bool,
    /// Brings a configuration into the form in which it is stored.
    pub normalize: bool,
    /// Applies rules of the plugin's own.
    pub validate: bool,
    /// Finishes a filled template.
    pub render: bool,
    /// Gives a link.
    pub url: bool,
    /// Carries a configuration that an older version has written over to this one.
    pub upgrade: bool,
}

/// How the entry of an environment's service configuration that belongs to a configuration is found.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EnvironmentEntry {
    /// There is none.
    #[default]
    None,
    /// The first one.
    First,
    /// The one whose `identifier` equals the value of this field.
    Identifier(String),
}

impl EnvironmentEntry {
    /// The entry among `entries` that belongs to `values`.
    pub fn find<'a>(&self, entries: Option<&'a Value>, values: &Map) -> Option<&'a Value> {
        let entries = entries?.as_array()?;
        match self {
            EnvironmentEntry::None => None,
            EnvironmentEntry::First => entries.first(),
            EnvironmentEntry::Identifier(field) => {
                let wanted = values.get(field)?;
                entries
                    .iter()
                    .find(|entry| entry.get("identifier") == Some(wanted))
            }
        }
    }
}

/// Why a plugin does not fit this Patchbay, whatever else is right or wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incompatibility {
    /// The key of the definition that says so: `api` or `requires`.
    pub key: &'static str,
    /// What would fit.
    pub expected: String,
    /// What it says.
    pub found: String,
    /// The reason, in one sentence.
    pub message: String,
    /// What to install instead.
    pub help: String,
}

impl Incompatibility {
    /// Compares what a plugin says with what this Patchbay is. `api` comes first, because a plugin for another API may
    /// mean anything by everything else that it says.
    pub fn of(api: Option<i64>, requires: Option<&VersionReq>) -> Option<Incompatibility> {
        if let Some(api) = api.filter(|api| *api != PLUGIN_API) {
            return Some(Incompatibility {
                key: "api",
                expected: format!("a plugin for API {PLUGIN_API}"),
                found: format!("one for API {api}"),
                message: format!(
                    "the plugin is written for plugin API {api}, and this Patchbay speaks plugin API {PLUGIN_API}"
                ),
                help: format!(
                    "install a version of the plugin for API {PLUGIN_API}, or a Patchbay that speaks {api}"
                ),
            });
        }
        let requires = requires?;
        let own = Version::parse(PATCHBAY).ok()?;
        (!requires.matches(&own)).then(|| Incompatibility {
            key: "requires",
            expected: format!("a range of Patchbay versions that has {own}"),
            found: requires.to_string(),
            message: format!("the plugin requires Patchbay {requires}, and this is {own}"),
            help: format!(
                "install a version of the plugin that fits {own}, or a Patchbay that is {requires}"
            ),
        })
    }
}

impl fmt::Display for Incompatibility {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.message, self.help)
    }
}

impl Definition {
    /// Why the plugin does not fit this Patchbay; none when it does.
    pub fn incompatibility(&self) -> Option<Incompatibility> {
        Incompatibility::of(Some(self.api), self.requires.as_ref())
    }

    /// Checks what `plugin.lua` returned. `migrations` are the written ones, already read.
    ///
    /// # Errors
    /// Every mistake in it, each with its path.
    pub fn read(term: Term, migrations: Vec<Migration>) -> Result<Definition, Vec<Mistake>> {
        let mut mistakes = Mistakes::default();
        let read = read(term, migrations, &mut mistakes);
        mistakes.into_result(read)
    }

    /// Whether `name` is the plugin's name or one of its aliases.
    pub fn answers_to(&self, name: &str) -> bool {
        self.name.as_str() == name || self.aliases.iter().any(|alias| alias.as_str() == name)
    }

    /// The file of the latest written migration, relative to the package.
    pub fn latest_migration_path(&self) -> Option<&str> {
        self.migrations
            .iter()
            .rev()
            .find_map(|migration| migration.path.as_deref())
    }
}

fn read(term: Term, migrations: Vec<Migration>, mistakes: &mut Mistakes) -> Option<Definition> {
    const EXPECTED: &str = "a plugin: return patchbay.plugin { name = …, fields = … }";
    let mut table = TableReader::open(term, Path::default(), EXPECTED, mistakes)?;
    let name = if table.has("name") {
        table.name("name", PluginName::parse, mistakes)
    } else {
        table.take("name");
        mistakes.add(
            table.path_of("name"),
            "the plugin's name, such as \"SnowflakeDataOutput\"",
            "nothing",
        );
        None
    };
    let api = table.integer("api", mistakes).unwrap_or(PLUGIN_API);
    if api < 1 {
        mistakes.add(
            table.path_of("api"),
            format!("the version of the plugin API, such as {PLUGIN_API}"),
            api.to_string(),
        );
    }
    let version = read_version(&mut table, mistakes);
    let aliases = read_aliases(&mut table, name.as_ref(), mistakes);
    let requires = read_requires(&mut table, mistakes);
    let declared = declared_names(table.peek("fields"));
    let fields = read_fields(&mut table, "fields", mistakes);
    let settings = read_fields(&mut table, "settings", mistakes);
    let written_table = table.name("table", TableName::parse, mistakes);
    let examples = read_examples(&mut table, &fields, &declared, mistakes);
    let hooks = Hooks {
        ui_metadata: table.function("ui_metadata", mistakes),
        normalize: table.function("normalize", mistakes),
        validate: table.function("validate", mistakes),
        render: table.function("render", mistakes),
        url: table.function("url", mistakes),
        upgrade: table.function("upgrade", mistakes),
    };
    let environment_entry = read_environment_entry(&mut table, &fields, mistakes);
    let placeholders = table.strings("placeholders", mistakes).unwrap_or_default();
    let platform_term = table.take("platform");
    // Inline migrations are functions: the sandbox has run them, and they come as `migrations`.
    table.take("migrations");
    table.finish(mistakes);

    let name = name?;
    let platform = PlatformMetadata::read(platform_term, &name, mistakes);
    let table = if fields.is_empty() {
        if written_table.is_some() {
            mistakes.add(
                Path::default().key("table"),
                "no table, because the plugin has no fields",
                "one",
            );
        }
        None
    } else {
        written_table.or_else(|| {
            let key = platform.platform_key.as_str().replace('-', "_");
            let derived = format!("{key}_data_output_configurations");
            TableName::parse(&derived)
                .map_err(|error| {
                    mistakes.add_with_help(
                        Path::default().key("table"),
                        error.expected,
                        format!("{derived:?}, derived from the platform key"),
                        "set `table` yourself",
                    );
                })
                .ok()
        })
    };
    Some(Definition {
        name,
        version,
        api,
        aliases,
        requires,
        platform,
        fields,
        settings,
        table,
        examples,
        hooks,
        environment_entry,
        placeholders,
        migrations,
    })
}

fn read_version(table: &mut TableReader, mistakes: &mut Mistakes) -> String {
    let Some(version) = table.string("version", mistakes) else {
        return "1.0".to_owned();
    };
    let (numbers, _) = version.split_at(version.find(['-', '+']).unwrap_or(version.len()));
    let parts: Vec<&str> = numbers.split('.').collect();
    let right = (1..=3).contains(&parts.len())
        && version.len() <= 64
        && parts.iter().all(|part| {
            !part.is_empty() && part.len() <= 9 && part.bytes().all(|b| b.is_ascii_digit())
        });
    if !right {
        mistakes.add(
            table.path_of("version"),
            "a version, such as \"1.0.0\"",
            format!("{version:?}"),
        );
    }
    version
}

fn read_requires(table: &mut TableReader, mistakes: &mut Mistakes) -> Option<VersionReq> {
    let text = table.string("requires", mistakes)?;
    match VersionReq::parse(&text) {
        Ok(range) => Some(range),
        Err(error) => {
            mistakes.add_with_help(
                table.path_of("requires"),
                "a range of Patchbay versions, such as \">=0.1, <2\"",
                format!("{text:?}"),
                error.to_string(),
            );
            None
        }
    }
}

/// The most aliases a plugin may have.
const MAX_ALIASES: usize = 32;

fn read_aliases(
    table: &mut TableReader,
    name: Option<&PluginName>,
    mistakes: &mut Mistakes,
) -> Vec<PluginName> {
    let texts = table.strings("aliases", mistakes).unwrap_or_default();
    let path = table.path_of("aliases");
    if texts.len() > MAX_ALIASES {
        mistakes.add(
            path,
            format!("at most {MAX_ALIASES} aliases"),
            format!("{} aliases", texts.len()),
        );
        return Vec::new();
    }
    if let Some(twice) = first_repeated(&texts) {
        mistakes.add(path.clone(), "each alias once", format!("{twice:?} twice"));
    }
    let mut aliases = Vec::new();
    for (place, text) in texts.iter().enumerate() {
        match PluginName::parse(text) {
            Ok(alias) if Some(&alias) == name => {
                mistakes.add(
                    path.index(place + 1),
                    "an alias other than the plugin's name",
                    format!("{text:?}"),
                );
            }
            Ok(alias) => aliases.push(alias),
            Err(error) => mistakes.add(path.index(place + 1), error.expected, format!("{text:?}")),
        }
    }
    aliases
}

/// The most fields a plugin may have; Postgres holds 1,600 columns, SQLite 2,000.
const MAX_FIELDS: usize = 200;

fn read_fields(table: &mut TableReader, key: &'static str, mistakes: &mut Mistakes) -> Vec<Field> {
    let path = table.path_of(key);
    let items = table
        .list(
            key,
            "a list of fields, such as { field.string \"database\" { required = true } }",
            mistakes,
        )
        .unwrap_or_default();
    if items.len() > MAX_FIELDS {
        mistakes.add(
            path,
            format!("at most {MAX_FIELDS} fields"),
            format!("{} fields", items.len()),
        );
        return Vec::new();
    }
    let mut fields: Vec<Field> = Vec::with_capacity(items.len());
    for (place, item) in items.into_iter().enumerate() {
        let path = path.index(place + 1);
        if let Some(field) = Field::read(item, path.clone(), mistakes) {
            if is_secret_key(field.name.as_str()) {
                mistakes.add_with_help(
                    path.key("name"),
                    "something that may be shown, since answers, hooks and templates get it",
                    format!("\"{}\", which names a secret", field.name),
                    "keep secrets in an environment's configuration, and store here under which name they lie there",
                );
            }
            if fields.iter().any(|other| other.name == field.name) {
                mistakes.add(
                    path.key("name"),
                    "each field's name once",
                    format!("\"{}\" again", field.name),
                );
            }
            fields.push(field);
        }
    }
    for (place, field) in fields.iter().enumerate() {
        for dependency in &field.depends_on {
            if !fields.iter().any(|other| {
                other.name.as_str() == dependency.field_name && other.name != field.name
            }) {
                mistakes.add(
                    path.index(place + 1).key("depends_on"),
                    "the name of another field",
                    format!("{:?}", dependency.field_name),
                );
            }
        }
    }
    fields
}

/// The names of the fields as they are written, those that are wrong otherwise too.
fn declared_names(fields: Option<&Term>) -> Vec<String> {
    let Some(Term::List(items)) = fields else {
        return Vec::new();
    };
    let name = |item: &Term| match item {
        Term::Table(entries) => entries.iter().find_map(|(key, value)| match value {
            Term::String(name) if key == "name" => Some(name.clone()),
            _ => None,
        }),
        _ => None,
    };
    items.iter().filter_map(name).collect()
}

/// `declared` are the names of all fields, so that one which is wrong itself is not told a second time by the examples.
fn read_examples(
    table: &mut TableReader,
    fields: &[Field],
    declared: &[String],
    mistakes: &mut Mistakes,
) -> Vec<Map> {
    let path = table.path_of("examples");
    let items = table
        .list("examples", "a list of configurations", mistakes)
        .unwrap_or_default();
    let mut examples = Vec::new();
    for (place, item) in items.into_iter().enumerate() {
        let path = path.index(place + 1);
        let found = item.found();
        let value = match item {
            Term::List(items) if items.is_empty() => Value::Object(Map::new()),
            other => other.into_json(),
        };
        let Value::Object(example) = value else {
            mistakes.add(
                path,
                "a configuration: a table with values for the fields",
                found,
            );
            continue;
        };
        for key in example.keys() {
            if !declared.contains(key) {
                let near =
                    crate::name::nearest(key, fields.iter().map(|field| field.name.as_str()));
                let help = near.map_or_else(
                    || "it has no such field".to_owned(),
                    |near| format!("did you mean `{near}`?"),
                );
                mistakes.add_at_key(
                    path.key(key),
                    "a field of this plugin",
                    format!("`{key}`"),
                    Some(help),
                );
            }
        }
        match parse_values(fields, &example, &Vec::new()) {
            Ok(_) => examples.push(example),
            Err(errors) => {
                for error in errors {
                    let field_path = error
                        .loc
                        .iter()
                        .fold(path.clone(), |path, step| match step {
                            LocStep::Key(key) => path.key(key),
                            LocStep::Index(index) => path.index(index + 1),
                        });
                    let found = if error.kind == "missing" {
                        "nothing".to_owned()
                    } else {
                        error.input.to_string()
                    };
                    mistakes.add_with_help(
                        field_path,
                        "a value that the field accepts",
                        found,
                        error.msg,
                    );
                }
            }
        }
    }
    examples
}

fn read_environment_entry(
    table: &mut TableReader,
    fields: &[Field],
    mistakes: &mut Mistakes,
) -> EnvironmentEntry {
    const EXPECTED: &str =
        "the name of the field that an entry's `identifier` equals, or \"first\"";
    let path = table.path_of("environment_entry");
    match table.string("environment_entry", mistakes) {
        None => EnvironmentEntry::None,
        Some(field) if fields.iter().any(|known| known.name.as_str() == field) => {
            EnvironmentEntry::Identifier(field)
        }
        Some(first) if first == "first" => EnvironmentEntry::First,
        Some(other) => {
            mistakes.add(path, EXPECTED, format!("{other:?}"));
            EnvironmentEntry::None
        }
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

    #[test]
    fn a_name_and_fields_are_enough() {
        let definition = Definition::read(
            table(vec![
                ("name", text("BigQueryDataOutput")),
                (
                    "fields",
                    Term::List(vec![table(vec![
                        ("type", text("string")),
                        ("name", text("dataset")),
                    ])]),
                ),
            ]),
            Vec::new(),
        )
        .expect("a definition");
        assert_eq!(definition.version, "1.0");
        assert_eq!(definition.platform.platform_key.as_str(), "bigquery");
        assert_eq!(
            definition.table.expect("a table").as_str(),
            "bigquery_data_output_configurations"
        );
    }

    #[test]
    fn a_field_for_a_secret_is_refused() {
        for key in ["fields", "settings"] {
            let field = |name: &str| table(vec![("type", text("string")), ("name", text(name))]);
            let read = |name: &str| {
                let fields = Term::List(vec![field(name)]);
                let entries = vec![("name", text("LakeDataOutput")), (key, fields)];
                Definition::read(table(entries), Vec::new())
            };
            let mistakes = read("db_password").expect_err("a mistake");
            assert_eq!(mistakes[0].path.to_string(), format!("{key}[1].name"));
            assert!(mistakes[0].found.contains("db_password"), "{mistakes:?}");
            read("password_length").expect("no secret");
        }
    }

    #[test]
    fn every_mistake_of_a_definition_is_reported() {
        let mistakes = Definition::read(
            table(vec![
                ("name", text("status")),
                ("vesion", text("1")),
                ("requires", text("newest")),
                ("aliases", Term::List(vec![text("A"), text("A")])),
                (
                    "fields",
                    Term::List(vec![table(vec![
                        ("type", text("string")),
                        ("name", text("id")),
                    ])]),
                ),
                (
                    "examples",
                    Term::List(vec![table(vec![("nope", text("x"))])]),
                ),
                ("render", text("no function")),
            ]),
            Vec::new(),
        )
        .expect_err("mistakes");
        let paths: Vec<String> = mistakes
            .iter()
            .map(|mistake| mistake.path.to_string())
            .collect();
        for path in [
            "name",
            "vesion",
            "requires",
            "aliases",
            "fields[1].name",
            "examples[1].nope",
            "render",
        ] {
            assert!(
                paths.iter().any(|found| found == path),
                "{path} in {paths:?}"
            );
        }
    }
}
