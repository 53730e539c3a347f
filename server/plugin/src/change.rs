//! What changed between two versions of a plugin, what that means for those who use it, and what the version number
//! promises about it.
//!
//! The words are those of [Semantic Versioning](https://semver.org): a change that breaks somebody needs a new major
//! version (before 1.0.0, a new minor one), one that adds something a new minor one, any other a new patch version.

use std::cmp::Reverse;
use std::fmt;

use semver::Version;
use serde::Serialize;
use serde_json::Value;

use crate::definition::Definition;
use crate::field::{Field, FieldKind, ItemKind};
use crate::migration::{PendingMigration, Plan};
use crate::name::MigrationId;
use crate::outline::{Face, Outline};

/// How much a change matters to those who use a plugin. Ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// It shows, and asks nothing of anybody.
    Patch,
    /// Something is there that was not; what worked goes on working.
    Minor,
    /// What worked may not work any more.
    Major,
}

impl Level {
    fn word(self) -> &'static str {
        match self {
            Level::Patch => "a fix",
            Level::Minor => "an addition",
            Level::Major => "a breaking change",
        }
    }
}

/// One difference between two versions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// How much it matters.
    pub level: Level,
    /// Where in the definition, such as `fields.database`.
    pub path: String,
    /// What is different, as a phrase: "is removed".
    pub what: String,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.path, self.what)
    }
}

/// A few words on a list of changes, for the log; none when there is no change.
pub fn summary(changes: &[Change]) -> Option<String> {
    const SHOWN: usize = 3;
    let level = changes.iter().map(|change| change.level).max()?;
    let shown: Vec<String> = changes.iter().take(SHOWN).map(Change::to_string).collect();
    let more = match changes.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!(", and {more} more"),
    };
    Some(format!("{}: {}{more}", level.word(), shown.join(", ")))
}

/// The differences from `before` to `now`, the gravest first. Code is not compared: what a hook does is for its tests.
pub fn changes(before: &Outline, now: &Definition) -> Vec<Change> {
    let mut found = Changes(Vec::new());
    found.fields("fields", &before.fields, &now.fields);
    match (&before.table, &now.table) {
        (Some(old), Some(new)) if old != new => {
            found.add(
                Level::Major,
                "table",
                format!("was \"{old}\", is \"{new}\""),
            );
        }
        (Some(_), None) => found.add(Level::Major, "table", "is removed"),
        (None, Some(_)) => found.add(Level::Minor, "table", "is new"),
        _ => {}
    }
    if let Some(face) = &before.face {
        found.face(face, now);
    }
    found.in_order()
}

/// What the pending steps of a plan change: those that do more than add break whoever still runs the version before.
pub fn changes_of_plan(plan: &Plan) -> Vec<Change> {
    plan.pending.iter().filter_map(change_of_step).collect()
}

fn change_of_step(step: &PendingMigration) -> Option<Change> {
    (step.origin.runs() && !step.expands).then(|| Change {
        level: Level::Major,
        path: format!("migrations.{}", step.migration.id),
        what: "takes something away from the table, or changes it".to_owned(),
    })
}

/// The differences from what was applied to a version with steps to run, and why its number promises less than they make.
/// Steps of the very version that were taken back make no difference when they run again.
pub fn compared(before: &Outline, now: &Definition, plan: &Plan) -> (Vec<Change>, Option<String>) {
    let mut found = Vec::new();
    let again = |id: &MigrationId| before.version == now.version && before.taken_back.contains(id);
    for step in &plan.pending {
        if !again(&step.migration.id) {
            found.extend(change_of_step(step));
        }
    }
    found.extend(changes(before, now));
    let broken = broken_promise(&before.version, &now.version, &found);
    (found, broken)
}

/// What two version numbers promise about the change from one to the other; none when they promise that nothing changed.
/// A version that is no semantic one, such as `1.0`, is read as far as it goes.
pub fn promise(before: &str, now: &str) -> Option<Level> {
    let (before, now) = (lenient(before)?, lenient(now)?);
    if before.major != now.major {
        Some(Level::Major)
    } else if before.minor != now.minor {
        // Before 1.0.0 the minor version is where breaking changes show.
        Some(if now.major == 0 {
            Level::Major
        } else {
            Level::Minor
        })
    } else if before.patch != now.patch || before.pre != now.pre {
        Some(if now.major == 0 {
            Level::Minor
        } else {
            Level::Patch
        })
    } else {
        None
    }
}

/// The least version after `before` that keeps its word about a change of this level.
pub fn next_version(before: &str, level: Level) -> Option<Version> {
    let before = lenient(before)?;
    Some(match (level, before.major) {
        (Level::Major, 0) => Version::new(0, before.minor + 1, 0),
        (Level::Major, major) => Version::new(major + 1, 0, 0),
        (Level::Minor, major) if major > 0 => Version::new(major, before.minor + 1, 0),
        (_, major) => Version::new(major, before.minor, before.patch + 1),
    })
}

/// Why a version number promises less than its changes make; none when it keeps its word, and when it goes back to an older
/// version, which promises nothing about what came later.
pub fn broken_promise(before: &str, now: &str, changes: &[Change]) -> Option<String> {
    if is_older(now, before) {
        return None;
    }
    let level = changes.iter().map(|change| change.level).max()?;
    let gravest = changes.iter().find(|change| change.level == level)?;
    let promised = promise(before, now);
    if promised.is_some_and(|promised| promised >= level) {
        return None;
    }
    let count = changes
        .iter()
        .filter(|change| change.level == level)
        .count();
    let more = match count {
        1 => String::new(),
        count => format!(" (and {} more)", count - 1),
    };
    let says = match promised {
        None => "nothing changed".to_owned(),
        Some(level) => format!("{} at most", level.word()),
    };
    let help = next_version(before, level)
        .map(|version| format!("; make it {version}"))
        .unwrap_or_default();
    Some(format!(
        "the version {now} after {before} says that there is {says}, but {gravest}{more}, which is {}{help}",
        level.word(),
    ))
}

/// Whether one version comes before another. Versions that cannot be compared do not.
pub fn is_older(version: &str, than: &str) -> bool {
    match (lenient(version), lenient(than)) {
        (Some(version), Some(than)) => version < than,
        _ => false,
    }
}

/// A version as written, with zeros for the parts that are left out.
fn lenient(text: &str) -> Option<Version> {
    let text = text.trim().trim_start_matches('v');
    Version::parse(text)
        .or_else(|_| Version::parse(&format!("{text}.0")))
        .or_else(|_| Version::parse(&format!("{text}.0.0")))
        .ok()
}

struct Changes(Vec<Change>);

impl Changes {
    fn add(&mut self, level: Level, path: impl Into<String>, what: impl Into<String>) {
        self.0.push(Change {
            level,
            path: path.into(),
            what: what.into(),
        });
    }

    fn in_order(mut self) -> Vec<Change> {
        self.0.sort_by_key(|change| Reverse(change.level));
        self.0
    }

    fn face(&mut self, before: &Face, now: &Definition) {
        for alias in &before.aliases {
            if !now.answers_to(alias.as_str()) {
                self.add(Level::Major, format!("aliases.{alias}"), "is removed");
            }
        }
        for alias in &now.aliases {
            if !before.aliases.contains(alias) {
                self.add(Level::Minor, format!("aliases.{alias}"), "is new");
            }
        }
        if before.requires != now.requires.as_ref().map(ToString::to_string) {
            self.add(Level::Minor, "requires", "is different");
        }
        let (old, new) = (&before.platform, &now.platform);
        if old.platform_key != new.platform_key {
            let what = format!("was \"{}\", is \"{}\"", old.platform_key, new.platform_key);
            self.add(Level::Major, "platform.platform_key", what);
        } else if old != new {
            self.add(Level::Patch, "platform", "looks different");
        }
        self.fields("settings", &before.settings, &now.settings);
        if before.environment_entry != now.environment_entry {
            self.add(Level::Minor, "environment_entry", "is different");
        }
        let (old, new) = (before.hooks, now.hooks);
        for (hook, had, has, lost) in [
            (
                "ui_metadata",
                old.ui_metadata,
                new.ui_metadata,
                Level::Minor,
            ),
            ("normalize", old.normalize, new.normalize, Level::Minor),
            ("validate", old.validate, new.validate, Level::Minor),
            ("render", old.render, new.render, Level::Major),
            ("url", old.url, new.url, Level::Major),
            ("upgrade", old.upgrade, new.upgrade, Level::Patch),
        ] {
            match (had, has) {
                (true, false) => self.add(lost, hook, "is removed"),
                // It is not for those who use the plugin, but for what an older version has left.
                (false, true) if hook == "upgrade" => self.add(Level::Patch, hook, "is new"),
                (false, true) => self.add(Level::Minor, hook, "is new"),
                _ => {}
            }
        }
        if before.examples != now.examples || before.placeholders != now.placeholders {
            self.add(Level::Patch, "examples and placeholders", "are different");
        }
    }

    fn fields(&mut self, part: &str, before: &[Field], now: &[Field]) {
        let named = |fields: &[Field], name: &Field| {
            fields.iter().position(|field| field.name == name.name)
        };
        for old in before {
            if named(now, old).is_none() {
                self.add(Level::Major, format!("{part}.{}", old.name), "is removed");
            }
        }
        for new in now {
            let path = format!("{part}.{}", new.name);
            match named(before, new) {
                Some(place) => self.field(&path, &before[place], new),
                None if is_demanded(new) => {
                    self.add(Level::Major, path, "is new, required, and has no default");
                }
                None => self.add(Level::Minor, path, "is new"),
            }
        }
    }

    fn field(&mut self, path: &str, before: &Field, now: &Field) {
        match (is_demanded(before), is_demanded(now)) {
            (false, true) => self.add(Level::Major, path, "is required now"),
            (true, false) => self.add(Level::Minor, path, "is required no more"),
            (true, true) if before.depends_on != now.depends_on => {
                self.add(Level::Major, path, "is required under other conditions");
            }
            _ => {}
        }
        if before.default != now.default {
            let shown = |value: &Option<Value>| {
                value
                    .as_ref()
                    .map_or_else(|| "nothing".to_owned(), Value::to_string)
            };
            let what = format!(
                "had the default {}, has {}",
                shown(&before.default),
                shown(&now.default)
            );
            self.add(Level::Minor, path, what);
        }
        if before.label != now.label || before.description != now.description {
            self.add(Level::Patch, path, "is described differently");
        }
        self.kind(path, &before.kind, &now.kind);
    }

    fn kind(&mut self, path: &str, before: &FieldKind, now: &FieldKind) {
        use FieldKind as Kind;
        match (before, now) {
            (
                Kind::String { pattern, min, max },
                Kind::String {
                    pattern: new_pattern,
                    min: new_min,
                    max: new_max,
                },
            ) => {
                match (pattern, new_pattern) {
                    (old, new) if old == new => {}
                    (Some(_), None) => self.add(Level::Minor, path, "has no pattern any more"),
                    (_, Some(new)) => {
                        let what = format!("must match the pattern {} now", new.as_str());
                        self.add(Level::Major, path, what);
                    }
                    (None, None) => {}
                }
                self.bounds(path, (*min, *max), (*new_min, *new_max));
            }
            (
                Kind::Integer { min, max },
                Kind::Integer {
                    min: new_min,
                    max: new_max,
                },
            ) => self.bounds(path, (*min, *max), (*new_min, *new_max)),
            (
                Kind::Number { min, max },
                Kind::Number {
                    min: new_min,
                    max: new_max,
                },
            ) => self.bounds(path, (*min, *max), (*new_min, *new_max)),
            (
                Kind::Integer { min, max },
                Kind::Number {
                    min: new_min,
                    max: new_max,
                },
            ) => {
                self.add(Level::Minor, path, "was an integer, is a number");
                let wide = |bound: &Option<i64>| bound.map(|bound| bound as f64);
                self.bounds(path, (wide(min), wide(max)), (*new_min, *new_max));
            }
            (Kind::Enum { values }, Kind::Enum { values: new }) => {
                for gone in values.iter().filter(|value| !new.contains(value)) {
                    self.add(
                        Level::Major,
                        path,
                        format!("has no value \"{gone}\" any more"),
                    );
                }
                for added in new.iter().filter(|value| !values.contains(value)) {
                    self.add(Level::Minor, path, format!("has a new value \"{added}\""));
                }
            }
            (Kind::Enum { .. }, Kind::String { pattern, min, max }) => {
                let free = pattern.is_none() && min.is_none() && max.is_none();
                let level = if free { Level::Minor } else { Level::Major };
                self.add(level, path, "was one of a list, is any text");
            }
            (
                Kind::List { of, min, max },
                Kind::List {
                    of: new_of,
                    min: new_min,
                    max: new_max,
                },
            ) => {
                match (of, new_of) {
                    (old, new) if old == new => {}
                    (ItemKind::Integer, ItemKind::Number) => {
                        self.add(
                            Level::Minor,
                            path,
                            "was a list of integers, is one of numbers",
                        );
                    }
                    _ => self.add(Level::Major, path, "is a list of something else"),
                }
                self.bounds(path, (*min, *max), (*new_min, *new_max));
            }
            (Kind::Boolean, Kind::Boolean) | (Kind::Json, Kind::Json) => {}
            (old, new) => {
                let what = format!("was of the type {}, is of {}", old.word(), new.word());
                let level = match new {
                    // Whatever was right still is.
                    Kind::Json => Level::Minor,
                    _ => Level::Major,
                };
                self.add(level, path, what);
            }
        }
    }

    fn bounds<T: PartialOrd + fmt::Display + Copy>(
        &mut self,
        path: &str,
        before: (Option<T>, Option<T>),
        now: (Option<T>, Option<T>),
    ) {
        let narrower_min = match (before.0, now.0) {
            (None, Some(_)) => Some(true),
            (Some(_), None) => Some(false),
            (Some(old), Some(new)) if old != new => Some(new > old),
            _ => None,
        };
        let narrower_max = match (before.1, now.1) {
            (None, Some(_)) => Some(true),
            (Some(_), None) => Some(false),
            (Some(old), Some(new)) if old != new => Some(new < old),
            _ => None,
        };
        for (which, narrower, bound) in [
            ("least", narrower_min, now.0),
            ("greatest", narrower_max, now.1),
        ] {
            match (narrower, bound) {
                (Some(true), Some(bound)) => {
                    self.add(Level::Major, path, format!("has the {which} {bound} now"));
                }
                (Some(_), _) => self.add(Level::Minor, path, format!("has a wider {which}")),
                (None, _) => {}
            }
        }
    }
}

/// Whether a configuration without the field is refused.
fn is_demanded(field: &Field) -> bool {
    field.required && field.default.is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::term::Term;

    fn text(text: &str) -> Term {
        Term::String(text.to_owned())
    }

    fn table<const N: usize>(entries: [(&str, Term); N]) -> Term {
        Term::Table(
            entries
                .into_iter()
                .map(|(key, value)| (key.to_owned(), value))
                .collect(),
        )
    }

    fn plugin(version: &str, fields: Vec<Term>) -> Definition {
        let term = table([
            ("name", text("Example")),
            ("version", text(version)),
            ("fields", Term::List(fields)),
        ]);
        Definition::read(term, Vec::new()).expect("a definition")
    }

    fn field<const N: usize>(kind: &str, options: [(&str, Term); N]) -> Term {
        let Term::Table(mut entries) = table(options) else {
            unreachable!("a table is built");
        };
        entries.push(("type".to_owned(), text(kind)));
        entries.push(("name".to_owned(), text("x")));
        Term::Table(entries)
    }

    fn gravest(before: Vec<Term>, now: Vec<Term>) -> Option<Level> {
        let found = changes(
            &Outline::of(&plugin("1.0.0", before)),
            &plugin("1.0.0", now),
        );
        found.first().map(|change| change.level)
    }

    #[test]
    fn a_field_that_accepts_less_breaks_and_one_that_accepts_more_adds() {
        let values = |names: &[&str]| {
            let list = names.iter().map(|name| text(name)).collect();
            field("enum", [("values", Term::List(list))])
        };
        let least = |min: i64| field("integer", [("min", Term::Integer(min))]);
        let plain = |kind: &str| field(kind, []);
        let required = || field("string", [("required", Term::Boolean(true))]);
        for (before, now, level) in [
            (vec![plain("string")], vec![], Level::Major),
            (vec![], vec![plain("string")], Level::Minor),
            (vec![], vec![required()], Level::Major),
            (vec![plain("string")], vec![required()], Level::Major),
            (vec![required()], vec![plain("string")], Level::Minor),
            (vec![plain("string")], vec![plain("integer")], Level::Major),
            (vec![plain("integer")], vec![plain("number")], Level::Minor),
            (vec![plain("number")], vec![plain("integer")], Level::Major),
            (vec![plain("string")], vec![plain("json")], Level::Minor),
            (
                vec![values(&["a", "b"])],
                vec![values(&["a"])],
                Level::Major,
            ),
            (
                vec![values(&["a"])],
                vec![values(&["a", "b"])],
                Level::Minor,
            ),
            (vec![plain("integer")], vec![least(1)], Level::Major),
            (vec![least(2)], vec![least(1)], Level::Minor),
            (vec![least(1)], vec![plain("integer")], Level::Minor),
            (
                vec![plain("string")],
                vec![field("string", [("pattern", text("^a"))])],
                Level::Major,
            ),
            (
                vec![plain("string")],
                vec![field("string", [("label", text("X"))])],
                Level::Patch,
            ),
        ] {
            assert_eq!(
                gravest(before.clone(), now.clone()),
                Some(level),
                "{before:?} {now:?}"
            );
        }
        assert_eq!(gravest(vec![plain("string")], vec![plain("string")]), None);
    }

    #[test]
    fn a_version_promises_what_semantic_versioning_says() {
        for (before, now, promised) in [
            ("1.0.0", "2.0.0", Some(Level::Major)),
            ("1.0.0", "1.1.0", Some(Level::Minor)),
            ("1.0.0", "1.0.1", Some(Level::Patch)),
            ("1.0.0", "1.0.0", None),
            ("1.0", "1.0.0", None),
            ("1.0", "1.1", Some(Level::Minor)),
            ("1", "2", Some(Level::Major)),
            ("0.1.0", "0.2.0", Some(Level::Major)),
            ("0.1.0", "0.1.1", Some(Level::Minor)),
            ("1.0.0", "1.0.0+build", None),
        ] {
            assert_eq!(promise(before, now), promised, "{before} {now}");
        }
        let next = |before, level| next_version(before, level).map(|version| version.to_string());
        assert_eq!(next("1.2.3", Level::Major).as_deref(), Some("2.0.0"));
        assert_eq!(next("1.2", Level::Minor).as_deref(), Some("1.3.0"));
        assert_eq!(next("0.2.3", Level::Major).as_deref(), Some("0.3.0"));
        assert_eq!(next("0.2.3", Level::Minor).as_deref(), Some("0.2.4"));
    }

    #[test]
    fn a_broken_promise_says_what_would_keep_it() {
        let before = plugin("1.0.0", vec![field("string", [])]);
        let now = plugin("1.0.1", Vec::new());
        let found = changes(&Outline::of(&before), &now);
        assert_eq!(
            broken_promise("1.0.0", "1.0.1", &found).as_deref(),
            Some(
                "the version 1.0.1 after 1.0.0 says that there is a fix at most, but fields.x is removed (and 1 more), \
                 which is a breaking change; make it 2.0.0"
            )
        );
        assert_eq!(broken_promise("1.0.0", "2.0.0", &found), None);
        assert_eq!(broken_promise("1.0.0", "1.0.0", &[]), None);
        // Who goes back takes back what came later.
        let back = changes(&Outline::of(&now), &before);
        assert!(!back.is_empty());
        assert_eq!(broken_promise("1.0.1", "1.0.0", &back), None);
    }

    #[test]
    fn what_was_written_down_compares_as_the_definition_does() {
        let term = |version: &str, alias: &str| {
            let values = Term::List(vec![text("a"), text("b")]);
            let setting = table([("type", text("string")), ("name", text("org"))]);
            table([
                ("name", text("Example")),
                ("version", text(version)),
                ("aliases", Term::List(vec![text(alias)])),
                ("requires", text(">=0.1, <2")),
                (
                    "fields",
                    Term::List(vec![field("enum", [("values", values)])]),
                ),
                ("settings", Term::List(vec![setting])),
                ("environment_entry", text("x")),
                ("examples", Term::List(vec![table([("x", text("a"))])])),
            ])
        };
        let read = |version, alias| Definition::read(term(version, alias), Vec::new());
        let before = read("1.0.0", "Older").expect("a definition");
        let kept = serde_json::to_string(&Outline::of(&before)).expect("plain data");
        let kept: Outline = serde_json::from_str(&kept).expect("read back");
        assert_eq!(kept, Outline::of(&before));
        assert_eq!(changes(&kept, &before), []);
        let now = read("1.0.1", "Newer").expect("a definition");
        let found = changes(&kept, &now);
        assert_eq!(found[0].to_string(), "aliases.Older is removed");
        // Where only the fields are known, only they are compared.
        let fields = Outline { face: None, ..kept };
        assert_eq!(changes(&fields, &now), []);
        let bare = serde_json::json!({ "version": "1.0.0", "table": null, "fields": [] });
        let bare: Outline = serde_json::from_value(bare).expect("read");
        assert_eq!(changes(&bare, &now).len(), 2, "a field and a table");
    }
}
