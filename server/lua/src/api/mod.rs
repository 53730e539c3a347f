//! The Lua API: one list, from which the globals of a plugin are built.
//!
//! What is not on the list does not exist for a plugin. Deliberately absent: files and processes (`io`, `os`), loading
//! code (`load`, `loadstring`), looking into the machine (`debug`, `getfenv`, `setfenv`, `collectgarbage`,
//! `newproxy`), time and chance (`os.clock`, `math.random`), and natives that no hook needs (`buffer`, `vector`,
//! `string.pack`, …), so that nobody has to bound them.
//!
//! [`RECORDS`] are the tables that its functions take and give.

mod host;
mod records;

use mlua::{Lua, Table, Value};

pub(crate) use host::{HostApi, install, raised, unknown};
pub use records::{Part, RECORDS, Record, Shape};
pub(crate) use records::{names_of, part, table};

/// One name that a plugin can reach.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// The name, with dots: `patchbay.field.string`.
    pub path: &'static str,
    /// Its type, in Luau's notation.
    pub signature: &'static str,
    /// What it does, in one line; empty for what Luau itself documents.
    pub doc: &'static str,
    origin: Origin,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// Luau's own, as it is: its work does not grow with its arguments.
    Native,
    /// From `host.luau`.
    Luau,
    /// From Rust.
    Rust,
}

const fn native(path: &'static str, signature: &'static str) -> Entry {
    Entry {
        path,
        signature,
        doc: "",
        origin: Origin::Native,
    }
}

const fn polling(path: &'static str, signature: &'static str) -> Entry {
    Entry {
        path,
        signature,
        doc: "",
        origin: Origin::Luau,
    }
}

pub(crate) const fn luau(path: &'static str, signature: &'static str, doc: &'static str) -> Entry {
    Entry {
        path,
        signature,
        doc,
        origin: Origin::Luau,
    }
}

const fn rust(path: &'static str, signature: &'static str, doc: &'static str) -> Entry {
    Entry {
        path,
        signature,
        doc,
        origin: Origin::Rust,
    }
}

/// Everything that a plugin can reach without being handed it.
pub const API: &[Entry] = &[
    luau(
        "patchbay.plugin",
        "(definition: PluginDefinition) -> PluginDefinition",
        "Marks a table as a plugin. A plugin's file returns it.",
    ),
    luau(
        "patchbay.migration",
        "(id: string) -> (steps: MigrationSteps) -> Migration",
        "A migration in the list `migrations` of a single-file plugin: migration \"0001_x\" { up = function(m) … end }.",
    ),
    luau(
        "patchbay.field.string",
        "(name: string) -> Field & ((options: StringOptions) -> Field)",
        "A text field. Options: required, default, pattern, min, max, depends_on, label, description.",
    ),
    luau(
        "patchbay.field.integer",
        "(name: string) -> Field & ((options: IntegerOptions) -> Field)",
        "A field for an integer within ±(2^53−1). Options: required, default, min, max, depends_on, label, description.",
    ),
    luau(
        "patchbay.field.number",
        "(name: string) -> Field & ((options: NumberOptions) -> Field)",
        "A field for a finite number. Options: required, default, min, max, depends_on, label, description.",
    ),
    luau(
        "patchbay.field.boolean",
        "(name: string) -> Field & ((options: BooleanOptions) -> Field)",
        "A field for true or false. Options: required, default, depends_on, label, description.",
    ),
    luau(
        "patchbay.field.enum",
        "(name: string) -> (options: EnumOptions) -> Field",
        "A field for one of a list of texts. Options: values, required, default, depends_on, label, description.",
    ),
    luau(
        "patchbay.field.list",
        "(name: string) -> Field & ((options: ListOptions) -> Field)",
        "A field for a list. Options: of (\"string\", \"integer\", \"number\" or \"boolean\"), min, max, required, default, …",
    ),
    luau(
        "patchbay.field.json",
        "(name: string) -> Field & ((options: JsonOptions) -> Field)",
        "A field for any JSON. Options: required, default, depends_on, label, description.",
    ),
    luau(
        "patchbay.ui.string",
        "(name: string) -> Element & ((options: StringElementOptions) -> Element)",
        "A text input. Options: label, required, tooltip, hidden, disabled, initial_value, depends_on, …",
    ),
    luau(
        "patchbay.ui.select",
        "(name: string) -> Element & ((options: SelectElementOptions) -> Element)",
        "A choice from a list. Options: label, required, tooltip, options, max_count, depends_on, …",
    ),
    luau(
        "patchbay.ui.checkbox",
        "(name: string) -> Element & ((options: CheckboxElementOptions) -> Element)",
        "A box to tick. Options: label, required, tooltip, initial_value, depends_on, …",
    ),
    luau(
        "patchbay.ui.radio",
        "(name: string) -> Element & ((options: RadioElementOptions) -> Element)",
        "A choice from buttons. Options: label, required, tooltip, options, initial_value, depends_on, …",
    ),
    luau(
        "patchbay.column.id",
        "() -> Column",
        "The id column that every plugin table has: primary key, and foreign key to data_output_configurations with cascade.",
    ),
    luau(
        "patchbay.column.text",
        "(name: string) -> Column & ((options: ColumnOptions) -> Column)",
        "A column for text. Options: nullable, default.",
    ),
    luau(
        "patchbay.column.integer",
        "(name: string) -> Column & ((options: ColumnOptions) -> Column)",
        "A column for integers. Options: nullable, default.",
    ),
    luau(
        "patchbay.column.number",
        "(name: string) -> Column & ((options: ColumnOptions) -> Column)",
        "A column for numbers. Options: nullable, default.",
    ),
    luau(
        "patchbay.column.boolean",
        "(name: string) -> Column & ((options: ColumnOptions) -> Column)",
        "A column for booleans. Options: nullable, default.",
    ),
    luau(
        "patchbay.column.json",
        "(name: string) -> Column & ((options: ColumnOptions) -> Column)",
        "A column for JSON: what list and json fields are kept in. Options: nullable, default.",
    ),
    luau(
        "patchbay.column.uuid",
        "(name: string) -> Column & ((options: ColumnOptions) -> Column)",
        "A column for UUIDs. Options: nullable, default.",
    ),
    luau(
        "patchbay.not_found",
        "(message: string) -> Refusal",
        "What a url hook returns after nil when something is not there: return nil, patchbay.not_found \"…\".",
    ),
    luau(
        "patchbay.bad_request",
        "(message: string) -> Refusal",
        "What a url hook returns after nil when the request lacks something: return nil, patchbay.bad_request \"…\".",
    ),
    rust(
        "patchbay.fill",
        "(template: string, values: { [string]: any }, more: { [string]: any }?) -> string",
        "Fills the {names} of a template from values, then from more. Raises where a name has no value.",
    ),
    rust(
        "patchbay.url_encode",
        "(text: string) -> string",
        "The text as it may stand in a part of a URL: all but letters, digits and -._~ as %XX.",
    ),
    rust(
        "patchbay.null",
        "Null",
        "JSON null where nil will not do: inside a list, and to set a field to null.",
    ),
    rust("patchbay.version", "string", "The version of Patchbay."),
    luau(
        "patchbay.log.info",
        "(...any) -> ()",
        "Writes a line to the server's log with the plugin's name.",
    ),
    luau(
        "patchbay.log.warn",
        "(...any) -> ()",
        "Writes a warning to the server's log with the plugin's name.",
    ),
    luau(
        "patchbay.log.error",
        "(...any) -> ()",
        "Writes an error to the server's log with the plugin's name.",
    ),
    luau("print", "(...any) -> ()", "Is patchbay.log.info."),
    luau(
        "require",
        "(module: string) -> any",
        "Runs a module once and gives what it returned: \"./x\" of the plugin's own folder, \"@lib/x\" of the shared ones. Only at the top level of a file.",
    ),
    luau(
        "tostring",
        "(value: any) -> string",
        "A text for any value. A table without __tostring is \"table\", without its address.",
    ),
    rust(
        "_G",
        "{ [string]: any }",
        "The globals, which cannot be set.",
    ),
    native("assert", "<T>(value: T, message: any?) -> T"),
    native("error", "(message: any, level: number?) -> never"),
    native("getmetatable", "(value: any) -> any"),
    native("ipairs", "<T>(list: { T }) -> (…)"),
    native("next", "<K, V>(t: { [K]: V }, key: K?) -> (K?, V)"),
    native("pairs", "<K, V>(t: { [K]: V }) -> (…)"),
    native(
        "pcall",
        "(f: (...any) -> ...any, ...any) -> (boolean, ...any)",
    ),
    native("rawequal", "(a: any, b: any) -> boolean"),
    native("rawget", "<K, V>(t: { [K]: V }, key: K) -> V?"),
    native("rawlen", "(t: any) -> number"),
    native(
        "rawset",
        "<K, V>(t: { [K]: V }, key: K, value: V) -> { [K]: V }",
    ),
    native("select", "(place: number | string, ...any) -> ...any"),
    native("setmetatable", "<T>(t: T, meta: any) -> T"),
    native("tonumber", "(value: any, base: number?) -> number?"),
    native("type", "(value: any) -> string"),
    native("typeof", "(value: any) -> string"),
    native(
        "xpcall",
        "(f: (...any) -> ...any, handler: (any) -> any, ...any) -> (boolean, ...any)",
    ),
    native("bit32.arshift", "(n: number, by: number) -> number"),
    native("bit32.band", "(...number) -> number"),
    native("bit32.bnot", "(n: number) -> number"),
    native("bit32.bor", "(...number) -> number"),
    native("bit32.btest", "(...number) -> boolean"),
    native("bit32.bxor", "(...number) -> number"),
    native("bit32.byteswap", "(n: number) -> number"),
    native("bit32.countlz", "(n: number) -> number"),
    native("bit32.countrz", "(n: number) -> number"),
    native(
        "bit32.extract",
        "(n: number, field: number, width: number?) -> number",
    ),
    native("bit32.lrotate", "(n: number, by: number) -> number"),
    native("bit32.lshift", "(n: number, by: number) -> number"),
    native(
        "bit32.replace",
        "(n: number, r: number, field: number, width: number?) -> number",
    ),
    native("bit32.rrotate", "(n: number, by: number) -> number"),
    native("bit32.rshift", "(n: number, by: number) -> number"),
    native("coroutine.close", "(co: thread) -> (boolean, any)"),
    native("coroutine.create", "(f: (...any) -> ...any) -> thread"),
    native("coroutine.isyieldable", "() -> boolean"),
    native(
        "coroutine.resume",
        "(co: thread, ...any) -> (boolean, ...any)",
    ),
    native("coroutine.running", "() -> thread"),
    native("coroutine.status", "(co: thread) -> string"),
    native(
        "coroutine.wrap",
        "(f: (...any) -> ...any) -> (...any) -> ...any",
    ),
    native("coroutine.yield", "(...any) -> ...any"),
    native("math.abs", "(n: number) -> number"),
    native("math.acos", "(n: number) -> number"),
    native("math.asin", "(n: number) -> number"),
    native("math.atan", "(n: number) -> number"),
    native("math.atan2", "(y: number, x: number) -> number"),
    native("math.ceil", "(n: number) -> number"),
    native(
        "math.clamp",
        "(n: number, min: number, max: number) -> number",
    ),
    native("math.cos", "(n: number) -> number"),
    native("math.cosh", "(n: number) -> number"),
    native("math.deg", "(n: number) -> number"),
    native("math.exp", "(n: number) -> number"),
    native("math.floor", "(n: number) -> number"),
    native("math.fmod", "(a: number, b: number) -> number"),
    native("math.frexp", "(n: number) -> (number, number)"),
    native("math.huge", "number"),
    native("math.ldexp", "(s: number, e: number) -> number"),
    native("math.lerp", "(a: number, b: number, t: number) -> number"),
    native("math.log", "(n: number, base: number?) -> number"),
    native("math.log10", "(n: number) -> number"),
    native(
        "math.map",
        "(n: number, a: number, b: number, c: number, d: number) -> number",
    ),
    native("math.max", "(...number) -> number"),
    native("math.min", "(...number) -> number"),
    native("math.modf", "(n: number) -> (number, number)"),
    native("math.pi", "number"),
    native("math.pow", "(a: number, b: number) -> number"),
    native("math.rad", "(n: number) -> number"),
    native("math.round", "(n: number) -> number"),
    native("math.sign", "(n: number) -> number"),
    native("math.sin", "(n: number) -> number"),
    native("math.sinh", "(n: number) -> number"),
    native("math.sqrt", "(n: number) -> number"),
    native("math.tan", "(n: number) -> number"),
    native("math.tanh", "(n: number) -> number"),
    native(
        "string.byte",
        "(text: string, first: number?, last: number?) -> ...number",
    ),
    native("string.char", "(...number) -> string"),
    polling(
        "string.find",
        "(text: string, pattern: string, init: number?, plain: boolean?) -> (number?, number?, ...any)",
    ),
    polling("string.format", "(format: string, ...any) -> string"),
    polling(
        "string.gmatch",
        "(text: string, pattern: string) -> () -> ...string",
    ),
    polling(
        "string.gsub",
        "(text: string, pattern: string, replacement: any, count: number?) -> (string, number)",
    ),
    native("string.len", "(text: string) -> number"),
    polling("string.lower", "(text: string) -> string"),
    polling(
        "string.match",
        "(text: string, pattern: string, init: number?) -> ...any",
    ),
    polling("string.rep", "(text: string, times: number) -> string"),
    polling("string.reverse", "(text: string) -> string"),
    polling(
        "string.split",
        "(text: string, separator: string?) -> { string }",
    ),
    native(
        "string.sub",
        "(text: string, first: number, last: number?) -> string",
    ),
    polling("string.upper", "(text: string) -> string"),
    polling("table.clear", "(t: any) -> ()"),
    polling("table.clone", "<T>(t: T) -> T"),
    polling(
        "table.concat",
        "(list: { string }, separator: string?, first: number?, last: number?) -> string",
    ),
    polling("table.create", "<T>(count: number, value: T?) -> { T }"),
    polling(
        "table.find",
        "<T>(list: { T }, value: T, init: number?) -> number?",
    ),
    native("table.freeze", "<T>(t: T) -> T"),
    polling("table.insert", "<T>(list: { T }, value: T) -> ()"),
    native("table.isfrozen", "(t: any) -> boolean"),
    polling(
        "table.move",
        "<T>(from: { T }, first: number, last: number, to: number, into: { T }?) -> { T }",
    ),
    native("table.pack", "<T>(...T) -> { T }"),
    polling("table.remove", "<T>(list: { T }, place: number?) -> T?"),
    polling(
        "table.sort",
        "<T>(list: { T }, less: ((T, T) -> boolean)?) -> ()",
    ),
    polling(
        "table.unpack",
        "<T>(list: { T }, first: number?, last: number?) -> ...T",
    ),
    polling("utf8.char", "(...number) -> string"),
    native("utf8.charpattern", "string"),
    polling(
        "utf8.codepoint",
        "(text: string, first: number?, last: number?) -> ...number",
    ),
    polling("utf8.codes", "(text: string) -> (…)"),
    polling(
        "utf8.len",
        "(text: string, first: number?, last: number?) -> number?",
    ),
    polling(
        "utf8.offset",
        "(text: string, n: number, init: number?) -> number?",
    ),
];

/// Puts exactly the list into `globals`: what Luau brings besides is removed, what it lacks comes from `luau` and
/// `rust`. Every table is read-only afterwards; `finish` may still change them.
fn arrange(
    lua: &Lua,
    list: &[&[Entry]],
    luau: &Table,
    rust: &Table,
    finish: impl FnOnce(&Lua) -> mlua::Result<()>,
) -> mlua::Result<()> {
    let globals = lua.globals();
    let natives = lua.create_table()?;
    let mut names: Vec<Value> = Vec::new();
    globals.for_each(|name: Value, value: Value| {
        natives.raw_set(name.clone(), value)?;
        names.push(name);
        Ok(())
    })?;
    for name in names {
        globals.raw_set(name, Value::Nil)?;
    }
    let mut tables: Vec<Table> = Vec::new();
    for entry in list.iter().copied().flatten() {
        let mut parts: Vec<&str> = entry.path.split('.').collect();
        let Some(leaf) = parts.pop() else { continue };
        let value: Value = match entry.origin {
            Origin::Luau => luau.raw_get(entry.path)?,
            Origin::Rust => rust.raw_get(entry.path)?,
            Origin::Native => {
                let mut holder = natives.clone();
                for part in &parts {
                    holder = holder.raw_get(*part)?;
                }
                holder.raw_get(leaf)?
            }
        };
        if value.is_nil() {
            return Err(mlua::Error::RuntimeError(format!(
                "the API lists {}, which nothing provides",
                entry.path
            )));
        }
        let mut holder = globals.clone();
        for part in parts {
            holder = match holder.raw_get::<Value>(part)? {
                Value::Table(table) => table,
                _ => {
                    let table = lua.create_table()?;
                    holder.raw_set(part, &table)?;
                    tables.push(table.clone());
                    table
                }
            };
        }
        holder.raw_set(leaf, value)?;
    }
    finish(lua)?;
    for table in tables {
        table.set_readonly(true);
    }
    Ok(())
}
