//! Settings: the embedded `config/patchbay.toml`, then a file named by `--config`, then the environment, then flags.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use figment::Figment;
use figment::error::{Actual, Kind};
use figment::providers::{Format, Serialized, Toml};
use figment::value::{Dict, Value};
use patchbay_lua::Limits;
use patchbay_plugin::Map;
use patchbay_plugin::name::nearest;
use patchbay_registry::enabling::{Selection, parse_names};
use patchbay_registry::settings::{RegistrySettings, WatchSettings};
use patchbay_store::{DatabaseUrl, StoreSettings, Synchronous};
use serde::{Deserialize, Serialize};

/// Every setting with its default and a comment; also the documentation of the settings.
pub(crate) const DEFAULTS: &str = include_str!("../config/patchbay.toml");

/// The prefix of settings in the environment.
const PREFIX: &str = "PATCHBAY_";

/// What the program is told.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    pub(crate) listen: SocketAddr,
    pub(crate) api_token: Option<Secret>,
    pub(crate) token_name: String,
    pub(crate) insecure: bool,
    pub(crate) cors_origins: Vec<String>,
    pub(crate) body_limit: usize,
    pub(crate) request_timeout_ms: u64,
    pub(crate) drain_ms: u64,
    pub(crate) database_url: String,
    pub(crate) synchronous: Durability,
    pub(crate) busy_timeout_ms: u64,
    pub(crate) readers: usize,
    pub(crate) pool: usize,
    pub(crate) connect_timeout_ms: u64,
    pub(crate) statement_timeout_ms: u64,
    pub(crate) start_timeout_ms: u64,
    pub(crate) server_name: Option<String>,
    pub(crate) catalogue: Option<PathBuf>,
    pub(crate) plugin_paths: Vec<PathBuf>,
    pub(crate) packages: PathBuf,
    #[serde(default)]
    enabled_plugins: Option<Vec<String>>,
    disabled_plugins: Vec<String>,
    pub(crate) auto_migrate: bool,
    pub(crate) strict_versions: bool,
    pub(crate) row_check_ms: u64,
    pub(crate) poll_ms: u64,
    pub(crate) settle_ms: u64,
    pub(crate) settle_max_ms: u64,
    pub(crate) log: String,
    pub(crate) log_format: LogFormat,
    pub(crate) log_file: Option<PathBuf>,
    pub(crate) lua: LuaSettings,
    #[serde(default)]
    plugins: BTreeMap<String, Map>,
}

/// A text that is shown nowhere.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub(crate) struct Secret(pub(crate) String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// What an acknowledged write survives.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Durability {
    /// The kill of the program.
    Normal,
    /// Loss of power too.
    Full,
}

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// Pretty on a terminal, text elsewhere.
    Auto,
    /// Several coloured lines an event.
    Pretty,
    /// One line an event.
    Text,
    /// One JSON object an event.
    Json,
}

/// The limits of the sandbox.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LuaSettings {
    threads: usize,
    deadline_ms: u64,
    wall_ms: u64,
    memory_mib: usize,
    waiting: usize,
    idle_ms: u64,
}

/// What flags set; what is left out is left to the other sources.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Flags {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) listen: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) database_url: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) plugin_paths: Vec<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) insecure: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) log: Option<String>,
}

impl Settings {
    /// Reads every source.
    ///
    /// # Errors
    /// A message that names the source, the key and what was expected.
    pub(crate) fn read(config: Option<&Path>, flags: &Flags) -> anyhow::Result<Settings> {
        let environment: Vec<(String, String)> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        Settings::from_sources(config, environment, flags)
    }

    fn from_sources(
        config: Option<&Path>,
        environment: Vec<(String, String)>,
        flags: &Flags,
    ) -> anyhow::Result<Settings> {
        let mut figment = Figment::from(Toml::string(DEFAULTS));
        if let Some(path) = config {
            if !path.is_file() {
                bail!("the settings file {} is not there", path.display());
            }
            check_syntax(path)?;
            figment = figment.merge(Toml::file_exact(path));
        }
        figment = figment
            .merge(Serialized::globals(environment_settings(environment)?))
            .merge(Serialized::globals(flags));
        let settings: Settings = figment.extract().map_err(|error| {
            let source = error
                .metadata
                .as_ref()
                .map(|metadata| match &metadata.source {
                    Some(figment::Source::File(path)) => path.display().to_string(),
                    _ if metadata.name.contains("TOML") => "the built-in settings".to_owned(),
                    _ => "the environment or a flag".to_owned(),
                });
            let key = error.path.join(".");
            let at = if key.is_empty() {
                String::new()
            } else {
                format!("`{key}`: ")
            };
            anyhow::anyhow!(
                "{at}{} (in {})",
                told(&error),
                source.unwrap_or_else(|| "the settings".to_owned())
            )
        })?;
        settings.check()?;
        Ok(settings)
    }

    /// What is set otherwise than by default, with where that was said: the last of the file, the environment and the flags
    /// counts. What may be a secret is not shown.
    ///
    /// # Errors
    /// As [`Settings::read`].
    pub(crate) fn origins(config: Option<&Path>, flags: &Flags) -> anyhow::Result<Vec<Origin>> {
        let environment: Vec<(String, String)> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        let mut sources: Vec<(String, Figment)> = Vec::new();
        if let Some(path) = config {
            check_syntax(path)?;
            sources.push((
                path.display().to_string(),
                Figment::from(Toml::file_exact(path)),
            ));
        }
        let environment = Serialized::globals(environment_settings(environment)?);
        sources.push(("the environment".to_owned(), Figment::from(environment)));
        sources.push((
            "a flag".to_owned(),
            Figment::from(Serialized::globals(flags)),
        ));
        let mut found: BTreeMap<String, Origin> = BTreeMap::new();
        for (source, figment) in sources {
            let values: Dict = figment.extract().context("the settings")?;
            for (key, value) in flattened("", &values) {
                let value = shown(&key, &value);
                let source = source.clone();
                found.insert(key.clone(), Origin { key, value, source });
            }
        }
        Ok(found.into_values().collect())
    }

    fn check(&self) -> anyhow::Result<()> {
        const HOUR: u64 = 60 * 60 * 1000;
        const DAY: u64 = 24 * HOUR;
        let lua = &self.lua;
        // Past the upper bounds nothing would work any more: no such number of threads or connections can be had, and a
        // time that long has no end on the clock.
        let bounds = [
            ("body_limit", self.body_limit as u64, 1, 1 << 30),
            ("request_timeout_ms", self.request_timeout_ms, 1, DAY),
            ("drain_ms", self.drain_ms, 0, HOUR),
            ("busy_timeout_ms", self.busy_timeout_ms, 0, HOUR),
            ("readers", self.readers as u64, 1, 256),
            ("pool", self.pool as u64, 2, 1024),
            ("connect_timeout_ms", self.connect_timeout_ms, 1, HOUR),
            ("statement_timeout_ms", self.statement_timeout_ms, 1, DAY),
            ("start_timeout_ms", self.start_timeout_ms, 0, DAY),
            ("row_check_ms", self.row_check_ms, 0, HOUR),
            ("poll_ms", self.poll_ms, 0, DAY),
            ("settle_ms", self.settle_ms, 0, HOUR),
            ("settle_max_ms", self.settle_max_ms, 0, HOUR),
            ("lua.threads", lua.threads as u64, 1, 256),
            ("lua.deadline_ms", lua.deadline_ms, 1, HOUR),
            ("lua.wall_ms", lua.wall_ms, 1, HOUR),
            ("lua.memory_mib", lua.memory_mib as u64, 1, 64 * 1024),
            ("lua.waiting", lua.waiting as u64, 1, 1_000_000),
            ("lua.idle_ms", lua.idle_ms, 0, 30 * DAY),
        ];
        for (key, value, least, most) in bounds {
            if !(least..=most).contains(&value) {
                bail!("`{key}`: expected {least} to {most}, found {value}");
            }
        }
        if self
            .api_token
            .as_ref()
            .is_some_and(|token| token.0.trim().is_empty())
        {
            bail!("`api_token` is empty; set a token of your own, or leave it out");
        }
        Ok(())
    }

    pub(crate) fn store(&self, server_lock: bool) -> anyhow::Result<StoreSettings> {
        let url = DatabaseUrl::parse(&self.database_url).context("`database_url`")?;
        Ok(StoreSettings {
            synchronous: match self.synchronous {
                Durability::Normal => Synchronous::Normal,
                Durability::Full => Synchronous::Full,
            },
            readers: self.readers,
            server_lock,
            busy_timeout: Duration::from_millis(self.busy_timeout_ms),
            pool: self.pool,
            connect_timeout: Duration::from_millis(self.connect_timeout_ms),
            statement_timeout: Duration::from_millis(self.statement_timeout_ms),
            start_timeout: Duration::from_millis(self.start_timeout_ms),
            server_name: self.server_name.clone(),
            ..StoreSettings::new(url)
        })
    }

    pub(crate) fn limits(&self) -> Limits {
        Limits {
            deadline: Duration::from_millis(self.lua.deadline_ms),
            wall: Duration::from_millis(self.lua.wall_ms),
            memory: self.lua.memory_mib * 1024 * 1024,
            waiting: self.lua.waiting,
            idle: Duration::from_millis(self.lua.idle_ms),
            threads: self.lua.threads,
            ..Limits::default()
        }
    }

    pub(crate) fn registry(&self) -> RegistrySettings {
        RegistrySettings {
            plugin_paths: self.plugin_paths.clone(),
            libraries: Vec::new(),
            packages: self.packages.clone(),
            selection: Selection {
                enabled: self.enabled_plugins.clone(),
                disabled: self.disabled_plugins.clone(),
            },
            auto_migrate: self.auto_migrate,
            strict_versions: self.strict_versions,
            row_check: Duration::from_millis(self.row_check_ms),
            watch: WatchSettings {
                settle: Duration::from_millis(self.settle_ms),
                settle_max: Duration::from_millis(self.settle_max_ms),
                poll: (self.poll_ms > 0).then(|| Duration::from_millis(self.poll_ms)),
            },
            server_name: self.server_name.clone(),
            plugin_settings: self
                .plugins
                .iter()
                .map(|(name, values)| (name.to_lowercase(), values.clone()))
                .collect(),
        }
    }
}

/// A setting that is not the default, and where it was said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) key: String,
    /// What it is; of what may be a secret only that it is set.
    pub(crate) value: String,
    pub(crate) source: String,
}

/// The values of nested tables by dotted keys.
fn flattened(before: &str, values: &Dict) -> Vec<(String, Value)> {
    let mut found = Vec::new();
    for (key, value) in values {
        let key = match before {
            "" => key.clone(),
            before => format!("{before}.{key}"),
        };
        match value {
            Value::Dict(_, inner) => found.extend(flattened(&key, inner)),
            value => found.push((key, value.clone())),
        }
    }
    found
}

/// A value as it may be shown.
fn shown(key: &str, value: &Value) -> String {
    if key == "api_token" || key.starts_with("plugins.") {
        return "(set)".to_owned();
    }
    match (key, value) {
        ("database_url", Value::String(_, url)) => match DatabaseUrl::parse(url) {
            Ok(url) => url.to_string(),
            Err(_) => "(no database)".to_owned(),
        },
        (_, value) => serde_json::to_string(value).unwrap_or_else(|_| "(set)".to_owned()),
    }
}

/// Checks that a file is TOML. What the parser shows beside its message is the line, which may hold a secret: one that is
/// not put in quotes is the likeliest slip.
fn check_syntax(path: &Path) -> anyhow::Result<()> {
    let file = path.display();
    let text =
        std::fs::read_to_string(path).with_context(|| format!("the settings file {file}"))?;
    let Err(error) = toml::from_str::<toml::Table>(&text) else {
        return Ok(());
    };
    let before = error.span().and_then(|span| text.get(..span.start));
    let line = before.unwrap_or_default().matches('\n').count() + 1;
    bail!("{file}:{line}: {}", error.message().trim_end());
}

/// What is wrong with a setting. The value is shown, but not where it may be a secret, or hold one.
fn told(error: &figment::Error) -> String {
    let may_be_secret = error
        .path
        .first()
        .is_some_and(|key| ["api_token", "database_url", "plugins"].contains(&key.as_str()));
    match &error.kind {
        Kind::InvalidType(found, expected) | Kind::InvalidValue(found, expected)
            if may_be_secret =>
        {
            format!("found {}, expected {expected}", kind_of(found))
        }
        kind => kind.to_string(),
    }
}

/// What a value is, without the value.
fn kind_of(value: &Actual) -> &'static str {
    match value {
        Actual::Bool(_) => "a boolean",
        Actual::Unsigned(_) | Actual::Signed(_) | Actual::Float(_) => "a number",
        Actual::Char(_) | Actual::Str(_) => "a string",
        Actual::Seq => "a list",
        Actual::Map => "a table",
        _ => "something else",
    }
}

/// How a setting is written in the environment, where everything is text.
enum Written {
    /// As it is.
    Text,
    /// Separated by `:`.
    Paths,
    /// Separated by commas, or a JSON list.
    Names,
    /// A number or a boolean.
    Literal,
}

const KEYS: &[(&str, Written)] = &[
    ("listen", Written::Text),
    ("api_token", Written::Text),
    ("token_name", Written::Text),
    ("insecure", Written::Literal),
    ("cors_origins", Written::Names),
    ("body_limit", Written::Literal),
    ("request_timeout_ms", Written::Literal),
    ("drain_ms", Written::Literal),
    ("database_url", Written::Text),
    ("synchronous", Written::Text),
    ("busy_timeout_ms", Written::Literal),
    ("readers", Written::Literal),
    ("pool", Written::Literal),
    ("connect_timeout_ms", Written::Literal),
    ("statement_timeout_ms", Written::Literal),
    ("start_timeout_ms", Written::Literal),
    ("server_name", Written::Text),
    ("catalogue", Written::Text),
    ("plugin_paths", Written::Paths),
    ("packages", Written::Text),
    ("enabled_plugins", Written::Names),
    ("disabled_plugins", Written::Names),
    ("auto_migrate", Written::Literal),
    ("strict_versions", Written::Literal),
    ("row_check_ms", Written::Literal),
    ("poll_ms", Written::Literal),
    ("settle_ms", Written::Literal),
    ("settle_max_ms", Written::Literal),
    ("log", Written::Text),
    ("log_format", Written::Text),
    ("log_file", Written::Text),
    ("lua.threads", Written::Literal),
    ("lua.deadline_ms", Written::Literal),
    ("lua.wall_ms", Written::Literal),
    ("lua.memory_mib", Written::Literal),
    ("lua.waiting", Written::Literal),
    ("lua.idle_ms", Written::Literal),
];

/// The settings that the environment holds. A variable of ours that sets nothing is an error, because it is a slip.
fn environment_settings(environment: Vec<(String, String)>) -> anyhow::Result<Dict> {
    let mut settings = Dict::new();
    for (name, text) in environment {
        let key = match name.strip_prefix(PREFIX) {
            Some(rest) => rest.to_lowercase().replace("__", "."),
            None if name == "ENABLED_PLUGINS" || name == "DISABLED_PLUGINS" => name.to_lowercase(),
            None => continue,
        };
        // An empty variable is how scripts unset one, except where an empty list means something else than no list.
        if key == "config" || text.is_empty() {
            continue;
        }
        if let Some(setting) = key.strip_prefix("plugins.") {
            let Some((plugin, setting)) = setting.split_once('.') else {
                bail!("{name}: expected {PREFIX}PLUGINS__NAME__SETTING");
            };
            insert(
                &mut settings,
                &format!("plugins.{plugin}.{setting}"),
                Value::from(text),
            );
            continue;
        }
        let Some((_, written)) = KEYS.iter().find(|(known, _)| *known == key) else {
            let near = nearest(&key, KEYS.iter().map(|(known, _)| *known))
                .map(|near| {
                    format!(
                        " (did you mean {PREFIX}{}?)",
                        near.to_uppercase().replace('.', "__")
                    )
                })
                .unwrap_or_default();
            bail!("{name} in the environment is no setting{near}");
        };
        let value = match written {
            Written::Text => Value::from(text),
            Written::Paths => Value::from(
                text.split(':')
                    .filter(|path| !path.is_empty())
                    .collect::<Vec<_>>(),
            ),
            Written::Names => {
                match parse_names(&text).map_err(|error| anyhow::anyhow!("{name}: {error}"))? {
                    Some(names) => Value::from(names),
                    None => continue,
                }
            }
            Written::Literal => match text.as_str() {
                "true" => Value::from(true),
                "false" => Value::from(false),
                number => match number.parse::<u64>() {
                    Ok(number) => Value::from(number),
                    Err(_) => bail!("{name}: expected a number, or true or false, found {text:?}"),
                },
            },
        };
        if settings.contains_key(&key) {
            let other = key.to_uppercase();
            bail!("{other} and {PREFIX}{other} are both set, and mean the same; unset one");
        }
        insert(&mut settings, &key, value);
    }
    Ok(settings)
}

/// Puts a value at a dotted key, making the tables on the way.
fn insert(settings: &mut Dict, key: &str, value: Value) {
    match key.split_once('.') {
        None => {
            settings.insert(key.to_owned(), value);
        }
        Some((table, rest)) => {
            let inner = settings
                .entry(table.to_owned())
                .or_insert_with(|| Value::from(Dict::new()));
            if let Value::Dict(_, inner) = inner {
                insert(inner, rest, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(environment: &[(&str, &str)]) -> anyhow::Result<Settings> {
        let environment = environment
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        Settings::from_sources(None, environment, &Flags::default())
    }

    #[test]
    fn the_embedded_file_is_every_default() {
        let settings = read(&[]).expect("the defaults");
        assert_eq!(settings.listen.to_string(), "127.0.0.1:8080");
        // Whole structs, as they are shown: a field that one of them gains is compared as well.
        let same = |found: &dyn fmt::Debug, expected: &dyn fmt::Debug| {
            assert_eq!(format!("{found:#?}"), format!("{expected:#?}"));
        };
        same(&settings.limits(), &Limits::default());
        let url = DatabaseUrl::Sqlite(PathBuf::from("data/patchbay.db"));
        let store = settings.store(true).expect("settings of the store");
        same(&store, &StoreSettings::new(url));
        let http = crate::cli::http_settings(&settings).expect("settings of HTTP");
        same(&http, &patchbay_http::HttpSettings::default());
        same(
            &settings.registry(),
            &RegistrySettings {
                plugin_paths: vec![PathBuf::from("lua-plugins")],
                libraries: Vec::new(),
                packages: PathBuf::from("data/packages"),
                selection: Selection::default(),
                auto_migrate: true,
                strict_versions: false,
                row_check: Duration::from_secs(2),
                watch: WatchSettings::default(),
                server_name: None,
                plugin_settings: BTreeMap::new(),
            },
        );
    }

    #[test]
    fn a_file_that_is_no_toml_is_told_without_its_text() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("settings.toml");
        for (text, line) in [
            (
                "readers = 2\ndatabase_url = postgres://me:hush@host/db\n",
                2,
            ),
            ("api_token = hush hush\n", 1),
            ("api_token = \"hush\n", 1),
        ] {
            std::fs::write(&file, text).expect("a file");
            let read = Settings::from_sources(Some(&file), Vec::new(), &Flags::default());
            let error = read.err().expect("an error");
            let told = format!("{error:#}");
            assert!(told.contains(&format!("settings.toml:{line}: ")), "{told}");
            assert!(!told.contains("hush"), "{told}");
        }
    }

    #[test]
    fn every_key_of_the_file_can_be_set_in_the_environment() {
        let file: Dict = Figment::from(Toml::string(DEFAULTS))
            .extract()
            .expect("the file");
        for (key, value) in file {
            let keys: Vec<String> = match value {
                Value::Dict(_, inner) => inner
                    .into_keys()
                    .map(|inner| format!("{key}.{inner}"))
                    .collect(),
                _ => vec![key],
            };
            for key in keys {
                assert!(KEYS.iter().any(|(known, _)| *known == key), "{key}");
            }
        }
    }

    #[test]
    fn the_environment_wins_and_is_read_by_kind() {
        let settings = read(&[
            ("PATCHBAY_API_TOKEN", "12345"),
            ("PATCHBAY_PLUGIN_PATHS", "a:b"),
            ("PATCHBAY_LUA__DEADLINE_MS", "99"),
            ("PATCHBAY_PLUGINS__GITHUBPLUGIN__GITHUB_ORG", "007"),
            ("ENABLED_PLUGINS", "[]"),
            ("DISABLED_PLUGINS", "A, B"),
            ("PATCHBAY_LOG_FILE", ""),
        ])
        .expect("settings");
        assert_eq!(
            settings.api_token.as_ref().map(|token| token.0.as_str()),
            Some("12345")
        );
        assert_eq!(format!("{:?}", settings.api_token), "Some((secret))");
        assert_eq!(
            settings.plugin_paths,
            [PathBuf::from("a"), PathBuf::from("b")]
        );
        assert_eq!(settings.limits().deadline, Duration::from_millis(99));
        let registry = settings.registry();
        assert_eq!(registry.selection.enabled, Some(vec![]));
        assert_eq!(registry.selection.disabled, ["A", "B"]);
        assert_eq!(
            registry.plugin_settings["githubplugin"]["github_org"],
            "007"
        );
    }

    #[test]
    fn a_slip_is_an_error_that_says_what_was_meant() {
        let error =
            |environment: &[(&str, &str)]| read(environment).err().expect("an error").to_string();
        assert_eq!(
            error(&[("PATCHBAY_LISTN", "x")]),
            "PATCHBAY_LISTN in the environment is no setting (did you mean PATCHBAY_LISTEN?)"
        );
        assert!(error(&[("PATCHBAY_READERS", "many")]).contains("expected a number"));
        assert!(error(&[("PATCHBAY_LISTEN", "nowhere")]).contains("`listen`"));
        assert!(error(&[("PATCHBAY_LUA__THREADS", "0")]).contains("lua.threads"));
    }

    #[test]
    fn durability_is_handed_to_the_store() {
        for (word, wanted) in [("normal", Synchronous::Normal), ("full", Synchronous::Full)] {
            let settings = read(&[("PATCHBAY_SYNCHRONOUS", word)]).expect("settings");
            let store = settings.store(true).expect("settings of the store");
            assert_eq!(store.synchronous, wanted);
        }
    }

    #[test]
    fn a_number_that_cannot_be_meant_is_refused() {
        for (name, number, told) in [
            (
                "PATCHBAY_LUA__MEMORY_MIB",
                "17592186044416",
                "`lua.memory_mib`: expected 1 to 65536",
            ),
            (
                "PATCHBAY_BUSY_TIMEOUT_MS",
                "18446744073709551615",
                "`busy_timeout_ms`: expected 0 to 3600000",
            ),
            (
                "PATCHBAY_LUA__THREADS",
                "100000",
                "`lua.threads`: expected 1 to 256, found 100000",
            ),
            (
                "PATCHBAY_READERS",
                "1000000",
                "`readers`: expected 1 to 256",
            ),
            ("PATCHBAY_POOL", "1", "`pool`: expected 2 to 1024, found 1"),
        ] {
            let error = read(&[(name, number)]).err().expect("an error").to_string();
            assert!(error.starts_with(told), "{error}");
        }
        // Every number of the settings has its bounds.
        let literals = KEYS.iter().filter(|(key, written)| {
            matches!(written, Written::Literal)
                && !["insecure", "auto_migrate", "strict_versions"].contains(key)
        });
        for (key, _) in literals {
            let name = format!("{PREFIX}{}", key.to_uppercase().replace('.', "__"));
            let error = read(&[(&name, "9007199254740991")])
                .err()
                .expect("an error");
            assert!(
                error.to_string().contains(&format!("`{key}`: expected")),
                "{error}"
            );
        }
    }
}
