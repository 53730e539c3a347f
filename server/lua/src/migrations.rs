//! Written migrations: the functions `up` and `down` record operations, which become plain data.

use std::cell::RefCell;
use std::rc::Rc;

use mlua::{
    Function, IntoLuaMulti, Lua, LuaString, MetaMethod, Table, UserData, UserDataMethods, Value,
};
use patchbay_plugin::migration::{Migration, Operation, read_operations};
use patchbay_plugin::name::{MigrationId, nearest};
use patchbay_plugin::term::{Mistake, Mistakes, Path, Term};

use crate::api::{names_of, raised, unknown};
use crate::error::{Report, Stage};
use crate::explain::explain;
use crate::load::Unplaced;
use crate::running::Running;
use crate::source::Source;
use crate::values::{AnswerReader, MAX_BYTES, Trail, kind};
use crate::vm::{Stop, Vm};

/// The folder of the migration files.
const FOLDER: &str = "migrations/";
/// How many operations one step may record.
const MAX_OPERATIONS: usize = 1000;

/// The written migrations that were found, or what is wrong with them.
pub(crate) struct Found {
    pub(crate) migrations: Vec<Migration>,
    /// The ids so far, also of migrations that are wrong.
    ids: Vec<MigrationId>,
    pub(crate) mistakes: Vec<Unplaced>,
}

/// Where one migration is written.
struct Origin<'a> {
    /// The file, as a key of [`Source::files`].
    file: &'a str,
    /// The path of the migration inside what the file returned.
    path: Path,
}

/// Runs the migration files, and the inline list of the definition, in the plugin's own VM.
pub(crate) async fn read_migrations(
    vm: &Vm,
    running: &Running,
    source: &Source,
    inline: Option<Value>,
) -> Result<Found, Stop> {
    let mut found = Found {
        migrations: Vec::new(),
        ids: Vec::new(),
        mistakes: Vec::new(),
    };
    for file in source.files.keys() {
        let Some(name) = file.strip_prefix(FOLDER) else {
            continue;
        };
        let Some(stem) = name.strip_suffix(".lua").filter(|_| !name.contains('/')) else {
            continue;
        };
        let id = match MigrationId::parse(stem) {
            Ok(id) => id,
            Err(error) => {
                found.mistakes.push(Unplaced::from(
                    Report::new(
                        Stage::Migration,
                        format!(
                            "the name of a migration file is its id: expected {}, found \"{stem}\"",
                            error.expected
                        ),
                    )
                    .in_file(source.shown(file)),
                ));
                continue;
            }
        };
        let returned = match open(vm, running, file).await {
            Ok(value) => value,
            Err(Stop::Raised(error)) => {
                found.mistakes.push(raised_in(&error, file, source));
                continue;
            }
            Err(stop) => return Err(stop),
        };
        let origin = Origin {
            file,
            path: Path::default(),
        };
        read_one(
            vm,
            running,
            source,
            &origin,
            id,
            Some(file),
            &returned,
            &mut found,
        )
        .await?;
    }
    if let Some(inline) = inline {
        read_inline(vm, running, source, &inline, &mut found).await?;
    }
    found.migrations.sort_by(|one, other| one.id.cmp(&other.id));
    Ok(found)
}

async fn open(vm: &Vm, running: &Running, file: &str) -> Result<Value, Stop> {
    let result = async {
        let function = vm.modules.own(&vm.lua, file)?;
        vm.run(running, &function, ().into_lua_multi(&vm.lua)?)
            .await
    }
    .await;
    match result {
        Ok((value, _)) => Ok(value),
        Err(error) => Err(Stop::of(error, running)),
    }
}

async fn read_inline(
    vm: &Vm,
    running: &Running,
    source: &Source,
    inline: &Value,
    found: &mut Found,
) -> Result<(), Stop> {
    const EXPECTED: &str =
        "a list of migrations, such as { patchbay.migration \"0001_create_table\" { up = … } }";
    let path = Path::default().key("migrations");
    let file = source.entry.as_str();
    let mut mistakes = Mistakes::default();
    let items: Vec<Value> = match inline {
        Value::Table(table) => table
            .sequence_values::<Value>()
            .filter_map(Result::ok)
            .collect(),
        other => {
            mistakes.add(path.clone(), EXPECTED, kind(other));
            Vec::new()
        }
    };
    if let Value::Table(table) = inline
        && table.pairs::<Value, Value>().count() != items.len()
    {
        mistakes.add(path.clone(), EXPECTED, "a table with other keys");
    }
    let mut read = Vec::new();
    for (place, item) in items.into_iter().enumerate() {
        let path = path.index(place + 1);
        let Value::Table(table) = &item else {
            mistakes.add(
                path,
                "a migration, such as patchbay.migration \"0001_create_table\" { up = … }",
                kind(&item),
            );
            continue;
        };
        let Ok(Value::String(id)) = table.raw_get::<Value>("id") else {
            mistakes.add(
                path,
                "a migration, such as patchbay.migration \"0001_create_table\" { up = … }",
                "a table that patchbay.migration did not build",
            );
            continue;
        };
        let id = id.to_string_lossy();
        match MigrationId::parse(&id) {
            Ok(id) => read.push((path, id, item)),
            Err(error) => mistakes.add(path.key("id"), error.expected, format!("{id:?}")),
        }
    }
    found
        .mistakes
        .extend(placed(mistakes, Stage::Migration, file, source));
    for (path, id, item) in read {
        let origin = Origin { file, path };
        read_one(vm, running, source, &origin, id, None, &item, found).await?;
    }
    Ok(())
}

/// Reads one migration: a table with `up` and, where it cannot be derived, `down`.
#[expect(
    clippy::too_many_arguments,
    reason = "all of them differ from call to call"
)]
async fn read_one(
    vm: &Vm,
    running: &Running,
    source: &Source,
    origin: &Origin<'_>,
    id: MigrationId,
    path: Option<&str>,
    returned: &Value,
    found: &mut Found,
) -> Result<(), Stop> {
    let mut mistakes = Mistakes::default();
    if found.ids.contains(&id) {
        mistakes.add_with_help(
            origin.path.clone(),
            "each migration's id once",
            format!("{id} again"),
            "number it after the others",
        );
    }
    found.ids.push(id.clone());
    let steps = steps_of(returned, origin, &mut mistakes);
    let wrong = !mistakes.is_empty();
    found
        .mistakes
        .extend(placed(mistakes, Stage::Migration, origin.file, source));
    let Some((up, down)) = steps else {
        return Ok(());
    };
    let up = record(vm, running, source, origin, "up", &up, found).await?;
    let down = match down {
        Some(down) => record(vm, running, source, origin, "down", &down, found)
            .await?
            .map(Some),
        None => Some(None),
    };
    if let (Some(up), Some(down), false) = (up, down, wrong) {
        found.migrations.push(Migration {
            id,
            path: path.map(str::to_owned),
            up,
            down,
        });
    }
    Ok(())
}

fn steps_of(
    returned: &Value,
    origin: &Origin<'_>,
    mistakes: &mut Mistakes,
) -> Option<(Function, Option<Function>)> {
    const EXPECTED: &str = "a migration: return { up = function(m) … end }";
    let Value::Table(table) = returned else {
        mistakes.add(origin.path.clone(), EXPECTED, kind(returned));
        return None;
    };
    for key in table
        .pairs::<Value, Value>()
        .filter_map(Result::ok)
        .map(|(key, _)| key)
    {
        let name = match &key {
            Value::String(name) => name.to_string_lossy(),
            other => kind(other).to_owned(),
        };
        if !matches!(name.as_str(), "up" | "down" | "id") {
            let path = origin.path.key(&name);
            let (expected, found) = ("one of the keys up, down", format!("`{name}`"));
            let near = nearest(&name, ["up", "down"]);
            let help = near.map(|near| format!("did you mean `{near}`?"));
            mistakes.add_at_key(path, expected, found, help);
        }
    }
    let mut function = |key: &str| match table.raw_get::<Value>(key) {
        Ok(Value::Function(function)) => Some(function),
        Ok(Value::Nil) | Err(_) => None,
        Ok(other) => {
            mistakes.add(origin.path.key(key), "a function", kind(&other));
            None
        }
    };
    let (up, down) = (function("up"), function("down"));
    if up.is_none() && matches!(table.raw_get::<Value>("up"), Ok(Value::Nil)) {
        mistakes.add(
            origin.path.key("up"),
            "a function: up = function(m) … end",
            "nothing",
        );
    }
    Some((up?, down))
}

/// Runs one step with a recorder and reads what it recorded; none when something is wrong.
async fn record(
    vm: &Vm,
    running: &Running,
    source: &Source,
    origin: &Origin<'_>,
    step: &'static str,
    function: &Function,
    found: &mut Found,
) -> Result<Option<Vec<Operation>>, Stop> {
    let recording = Rc::new(RefCell::new(Recording {
        step,
        operations: Vec::new(),
        lines: Vec::new(),
        mistakes: Vec::new(),
        bytes: 0,
        over: false,
    }));
    // A step is no top level: what it could require would differ from run to run.
    running.loading.set(false);
    let result = async {
        let recorder = vm.lua.create_userdata(Recorder(recording.clone()))?;
        vm.run(running, function, recorder.into_lua_multi(&vm.lua)?)
            .await
    }
    .await;
    running.loading.set(true);
    recording.borrow_mut().over = true;
    if let Err(error) = result {
        return match Stop::of(error, running) {
            Stop::Raised(error) => {
                found.mistakes.push(raised_in(&error, origin.file, source));
                Ok(None)
            }
            stop => Err(stop),
        };
    }
    let recording = std::mem::take(&mut *recording.borrow_mut());
    let lines = recording.lines;
    let mut mistakes = Mistakes::default();
    let root = Path::default().key(step);
    let operations = read_operations(Term::List(recording.operations), root, &mut mistakes);
    let mut all = recording.mistakes;
    if let Err(more) = mistakes.into_result(Some(())) {
        all.extend(more);
    }
    let right = all.is_empty();
    for mut mistake in all {
        let line = match mistake.path.0.get(1) {
            Some(patchbay_plugin::term::Step::Index(place)) => {
                lines.get(place - 1).copied().flatten()
            }
            _ => None,
        };
        let mut steps = origin.path.0.clone();
        steps.append(&mut mistake.path.0);
        mistake.path = Path(steps);
        found.mistakes.push(Unplaced::from(
            Report::of(Stage::Migration, &mistake)
                .in_file(source.shown(origin.file))
                .at_line(line),
        ));
    }
    Ok(right.then_some(operations))
}

fn raised_in(error: &mlua::Error, file: &str, source: &Source) -> Unplaced {
    let explained = explain(error, source);
    let stage = match error {
        mlua::Error::SyntaxError { .. } => Stage::Parse,
        _ => Stage::Migration,
    };
    Unplaced::from(
        Report::new(stage, explained.message)
            .in_file(explained.file.unwrap_or_else(|| source.shown(file)))
            .at_line(explained.line),
    )
}

/// Mistakes in what `file` returned, whose lines are still to be found.
pub(crate) fn placed(
    mistakes: Mistakes,
    stage: Stage,
    file: &str,
    source: &Source,
) -> Vec<Unplaced> {
    match mistakes.into_result(Some(())) {
        Ok(()) => Vec::new(),
        Err(mistakes) => mistakes
            .into_iter()
            .map(|mistake| Unplaced::in_file(stage, mistake, file, source))
            .collect(),
    }
}

/// What one step has recorded.
#[derive(Default)]
struct Recording {
    step: &'static str,
    operations: Vec<Term>,
    lines: Vec<Option<u32>>,
    mistakes: Vec<Mistake>,
    /// How many bytes of text the operations hold.
    bytes: usize,
    over: bool,
}

/// The `m` of a step.
struct Recorder(Rc<RefCell<Recording>>);

impl Recorder {
    /// Records one operation from the arguments of its method. `spread` tables lend their entries to it.
    fn record(
        &self,
        lua: &Lua,
        word: &'static str,
        arguments: &[(&'static str, Value)],
        spread: Option<Value>,
    ) -> mlua::Result<()> {
        let mut recording = self.0.borrow_mut();
        if recording.over {
            return Err(raised(format!("m:{word} was used after its step ended")));
        }
        if recording.operations.len() >= MAX_OPERATIONS {
            return Err(raised(format!(
                "a step records at most {MAX_OPERATIONS} operations"
            )));
        }
        let place = recording.operations.len() + 1;
        let mut reader = AnswerReader::default();
        let root = Trail::ROOT;
        let (step, mut entries) = (recording.step, Vec::new());
        let step = root.key(step);
        let here = step.index(place);
        entries.push(("op".to_owned(), Term::String(word.to_owned())));
        for (key, value) in arguments {
            if !value.is_nil() {
                entries.push(((*key).to_owned(), reader.term(value, &here.key(key))));
            }
        }
        match spread {
            None | Some(Value::Nil) => {}
            Some(table @ Value::Table(_)) => {
                if let Term::Table(more) = reader.term(&table, &here) {
                    entries.extend(more);
                }
            }
            Some(other) => reader.mistake(
                &here,
                format!("a table of options for m:{word}"),
                kind(&other),
            ),
        }
        recording.bytes += reader.bytes();
        if recording.bytes > MAX_BYTES {
            return Err(raised(format!(
                "the operations of a step hold at most {MAX_BYTES} bytes of text together"
            )));
        }
        recording.mistakes.extend(reader.into_mistakes());
        recording.operations.push(Term::Table(entries));
        let line = lua
            .inspect_stack(1, |debug| debug.current_line())
            .flatten()
            .and_then(|line| u32::try_from(line).ok());
        recording.lines.push(line);
        Ok(())
    }
}

impl UserData for Recorder {
    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_method(
            "create_table",
            |lua, m, (table, columns): (Value, Value)| {
                m.record(
                    lua,
                    "create_table",
                    &[("table", table), ("columns", columns)],
                    None,
                )
            },
        );
        methods.add_method("drop_table", |lua, m, table: Value| {
            m.record(lua, "drop_table", &[("table", table)], None)
        });
        methods.add_method("add_column", |lua, m, (table, column): (Value, Value)| {
            m.record(
                lua,
                "add_column",
                &[("table", table), ("column", column)],
                None,
            )
        });
        methods.add_method(
            "rename_column",
            |lua, m, (table, from, to): (Value, Value, Value)| {
                let arguments = [("table", table), ("from", from), ("to", to)];
                m.record(lua, "rename_column", &arguments, None)
            },
        );
        methods.add_method("drop_column", |lua, m, (table, column): (Value, Value)| {
            m.record(
                lua,
                "drop_column",
                &[("table", table), ("column", column)],
                None,
            )
        });
        methods.add_method("alter_column", |lua, m, (table, column): (Value, Value)| {
            m.record(
                lua,
                "alter_column",
                &[("table", table), ("column", column)],
                None,
            )
        });
        methods.add_method(
            "create_index",
            |lua, m, (table, columns, options): (Value, Value, Value)| {
                let arguments = [("table", table), ("columns", columns)];
                m.record(lua, "create_index", &arguments, Some(options))
            },
        );
        methods.add_method("drop_index", |lua, m, (table, name): (Value, Value)| {
            m.record(lua, "drop_index", &[("table", table), ("name", name)], None)
        });
        methods.add_meta_method(MetaMethod::Index, |_, _, name: LuaString| {
            Err::<Value, _>(unknown("m", &name.to_string_lossy(), &names_of("Recorder")))
        });
        methods.add_method("update", |lua, m, (table, change): (Value, Value)| {
            m.record(lua, "update", &[("table", table)], Some(change))
        });
    }
}

/// The inline migrations of a definition, which are no part of its plain data.
pub(crate) fn inline_of(definition: &Table) -> Option<Value> {
    definition
        .raw_get::<Value>("migrations")
        .ok()
        .filter(|value| !value.is_nil())
}
