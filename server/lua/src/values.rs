//! Values across the border: JSON into Lua, and what Lua returned into terms and JSON.
//!
//! Nothing here runs Lua code: tables are read raw, metatables are ignored. Rust code does not stop for the deadline, so
//! everything that is read from Lua is bounded in depth, number and size.

use std::collections::HashMap;
use std::ffi::c_void;

use mlua::{Lua, Table, Value};
use patchbay_plugin::Map;
use patchbay_plugin::field::MAX_INTEGER;
use patchbay_plugin::term::{MAX_WORDS, Mistake, Path, Step, Term, shortened};
use serde_json::Value as Json;

/// How deep tables may be nested in an answer.
pub(crate) const MAX_DEPTH: usize = 32;
/// How many values an answer may consist of.
pub(crate) const MAX_NODES: usize = 100_000;
/// How many bytes of text an answer may hold.
pub(crate) const MAX_BYTES: usize = 4 * 1024 * 1024;

/// Where in an answer a value is. Lives on the stack, so that a path costs nothing until a mistake needs it.
#[derive(Clone, Copy)]
pub(crate) struct Trail<'a> {
    parent: Option<&'a Trail<'a>>,
    step: Option<Place<'a>>,
}

#[derive(Clone, Copy)]
enum Place<'a> {
    Key(&'a str),
    Index(usize),
}

impl<'a> Trail<'a> {
    /// The answer itself.
    pub(crate) const ROOT: Trail<'static> = Trail {
        parent: None,
        step: None,
    };

    pub(crate) fn key(&'a self, key: &'a str) -> Trail<'a> {
        Trail {
            parent: Some(self),
            step: Some(Place::Key(key)),
        }
    }

    pub(crate) fn index(&'a self, index: usize) -> Trail<'a> {
        Trail {
            parent: Some(self),
            step: Some(Place::Index(index)),
        }
    }

    pub(crate) fn path(&self) -> Path {
        let mut steps = Vec::new();
        let mut here = Some(self);
        while let Some(trail) = here {
            match trail.step {
                Some(Place::Key(key)) => steps.push(Step::key(key)),
                Some(Place::Index(index)) => steps.push(Step::Index(index)),
                None => {}
            }
            here = trail.parent;
        }
        steps.reverse();
        Path(steps)
    }
}

/// What coming to a table once more costs, in values. What a table takes to read is not its values alone: one with room for
/// a million and none of them is walked like a full one. The memory of a VM bounds all its tables together, so it is only
/// what is in an answer again and again that could take for ever.
const AGAIN: usize = 250;
/// How many tables an answer may have before it is worth to keep account of them: forms have fewer.
const FEW: usize = 200;

/// Reads one answer. The bounds count for all that is read with one reader.
#[derive(Default)]
pub(crate) struct AnswerReader {
    /// How many tables it came to, those that it came to again among them.
    tables: usize,
    /// How often it came to each, after the first [`FEW`].
    visits: HashMap<*const c_void, u32>,
    nodes: usize,
    bytes: usize,
    open: Vec<*const c_void>,
    mistakes: Vec<Mistake>,
    full: bool,
}

/// The entries of a table, told apart.
enum Shape {
    List(Vec<Value>),
    Table(Vec<(mlua::LuaString, Value)>),
}

impl AnswerReader {
    /// How many bytes of text were read.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// What was wrong; empty when the answer is plain data within the bounds.
    pub(crate) fn into_mistakes(self) -> Vec<Mistake> {
        self.mistakes
    }

    pub(crate) fn mistake(
        &mut self,
        trail: &Trail<'_>,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) {
        if self.full {
            return;
        }
        // A list of a thousand functions is one mistake made a thousand times.
        if self.mistakes.len() >= 50 {
            self.full = true;
            return;
        }
        self.mistakes.push(Mistake {
            path: trail.path(),
            expected: shortened(expected, MAX_WORDS),
            found: shortened(found, MAX_WORDS),
            help: None,
            at_key: false,
        });
    }

    /// Counts one value; false once the bounds are passed.
    fn count(&mut self, trail: &Trail<'_>) -> bool {
        self.nodes += 1;
        if self.nodes <= MAX_NODES {
            return !self.full;
        }
        self.mistake(trail, format!("at most {MAX_NODES} values"), "more");
        self.full = true;
        false
    }

    /// Notes that a table is come to; false once the bounds are passed. Comparing it and then reading it are two visits.
    fn visit(&mut self, table: &Table) -> bool {
        self.tables += 1;
        if self.tables <= FEW {
            return true;
        }
        let visits = self.visits.entry(table.to_pointer()).or_default();
        *visits += 1;
        if *visits > 2 {
            self.nodes += AGAIN;
        }
        self.nodes <= MAX_NODES
    }

    /// Counts the bytes of one text; false once the bounds are passed.
    fn count_bytes(&mut self, bytes: usize, trail: &Trail<'_>) -> bool {
        self.bytes += bytes;
        if self.bytes <= MAX_BYTES {
            return true;
        }
        self.mistake(
            trail,
            format!("at most {MAX_BYTES} bytes of text in all"),
            "more",
        );
        self.full = true;
        false
    }

    /// The answer as a term. Functions stay behind as [`Term::Function`].
    pub(crate) fn term(&mut self, value: &Value, trail: &Trail<'_>) -> Term {
        if !self.count(trail) {
            return Term::Nil;
        }
        match value {
            Value::Nil => Term::Nil,
            Value::Boolean(value) => Term::Boolean(*value),
            Value::Integer(value) => self.number(*value as f64, trail),
            Value::Number(value) => self.number(*value, trail),
            Value::String(text) => self.text(text, trail).map_or(Term::Nil, Term::String),
            Value::Function(_) => Term::Function,
            Value::LightUserData(pointer) if pointer.0.is_null() => Term::Null,
            Value::Table(table) => {
                let Some(length) = self.open(table, trail) else {
                    return Term::Nil;
                };
                let before = self.mistakes.len();
                let read = if length == 0 {
                    self.entries(table, trail)
                } else {
                    self.items(table, length, trail)
                };
                let term = match read {
                    Some(term) => term,
                    // What was read so far counts although it is read again: at every level it could be so.
                    None => {
                        self.mistakes.truncate(before);
                        self.irregular(table, length, trail)
                    }
                };
                self.open.pop();
                term
            }
            other => {
                self.mistake(trail, "plain data", kind(other));
                Term::Nil
            }
        }
    }

    /// The answer as JSON. Where `original` is what the plugin was given there, whatever it left alone is kept exactly,
    /// with the nulls, numbers and empty lists that Lua cannot hold.
    pub(crate) fn json(
        &mut self,
        value: &Value,
        original: Option<&Json>,
        trail: &Trail<'_>,
    ) -> Json {
        if let Some(original) = original
            && self.is_same(value, original)
        {
            return original.clone();
        }
        if !self.count(trail) {
            return Json::Null;
        }
        match value {
            Value::Nil => Json::Null,
            Value::LightUserData(pointer) if pointer.0.is_null() => Json::Null,
            Value::Boolean(value) => Json::Bool(*value),
            Value::Integer(value) => self.number(*value as f64, trail).into_json(),
            Value::Number(value) => self.number(*value, trail).into_json(),
            Value::String(text) => self.text(text, trail).map_or(Json::Null, Json::String),
            Value::Table(table) => {
                let Some(shape) = self.enter(table, trail) else {
                    return Json::Null;
                };
                let json = match shape {
                    Shape::List(items) => {
                        let before = original.and_then(Json::as_array);
                        Json::Array(
                            items
                                .iter()
                                .enumerate()
                                .map(|(place, item)| {
                                    let before = before.and_then(|before| before.get(place));
                                    self.json(item, before, &trail.index(place + 1))
                                })
                                .collect(),
                        )
                    }
                    Shape::Table(entries) => {
                        let before = original.and_then(Json::as_object);
                        Json::Object(self.object(&entries, before, trail))
                    }
                };
                self.open.pop();
                json
            }
            other => {
                self.mistake(trail, "plain data", kind(other));
                Json::Null
            }
        }
    }

    /// The returned configuration. A null that arrived as nil and was not replaced is still null.
    pub(crate) fn configuration(&mut self, value: &Value, original: &Map) -> Option<Map> {
        const EXPECTED: &str = "the configuration (a table), or nil and errors";
        let Value::Table(table) = value else {
            self.mistake(&Trail::ROOT, EXPECTED, kind(value));
            return None;
        };
        match self.enter(table, &Trail::ROOT)? {
            Shape::List(items) if items.is_empty() => {
                Some(self.object(&[], Some(original), &Trail::ROOT))
            }
            Shape::List(_) => {
                self.mistake(&Trail::ROOT, EXPECTED, "a list");
                None
            }
            Shape::Table(entries) => Some(self.object(&entries, Some(original), &Trail::ROOT)),
        }
    }

    fn object(
        &mut self,
        entries: &[(mlua::LuaString, Value)],
        before: Option<&Map>,
        trail: &Trail<'_>,
    ) -> Map {
        let mut read: HashMap<String, Json> = HashMap::with_capacity(entries.len());
        for (key, value) in entries {
            if let Some(key) = self.text(key, trail) {
                let before = before.and_then(|before| before.get(&key));
                let json = self.json(value, before, &trail.key(&key));
                read.insert(key, json);
            }
        }
        let mut map = Map::new();
        for (key, kept) in before.into_iter().flatten() {
            match read.remove_entry(key) {
                Some((key, json)) => {
                    map.insert(key, json);
                }
                None if kept.is_null() => {
                    map.insert(key.clone(), Json::Null);
                }
                None => {}
            }
        }
        // Lua has no order of keys, so that of new ones is made up, and always the same.
        let mut new: Vec<(String, Json)> = read.into_iter().collect();
        new.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        map.extend(new);
        map
    }

    fn number(&mut self, value: f64, trail: &Trail<'_>) -> Term {
        if !value.is_finite() {
            self.mistake(trail, "a finite number", value.to_string());
            return Term::Nil;
        }
        if value.fract() != 0.0 {
            return Term::Number(value);
        }
        if value.abs() > MAX_INTEGER as f64 {
            self.mistake(
                trail,
                format!("an integer within ±{MAX_INTEGER}"),
                value.to_string(),
            );
            return Term::Nil;
        }
        Term::Integer(value as i64)
    }

    /// A text, as UTF-8 without NUL.
    pub(crate) fn text(&mut self, text: &mlua::LuaString, trail: &Trail<'_>) -> Option<String> {
        let bytes = text.as_bytes();
        if !self.count_bytes(bytes.len(), trail) {
            return None;
        }
        match std::str::from_utf8(&bytes) {
            Ok(text) if !text.as_bytes().contains(&0) => Some(text.to_owned()),
            Ok(_) => {
                self.mistake(
                    trail,
                    "a text without the NUL character",
                    "one with a NUL character",
                );
                None
            }
            Err(_) => {
                self.mistake(
                    trail,
                    "a text in UTF-8",
                    format!("{} bytes that are no UTF-8", bytes.len()),
                );
                None
            }
        }
    }

    /// Goes into a table and gives the length of its list; none when that is not possible. The caller pops `open` when it
    /// is done with it.
    fn open(&mut self, table: &Table, trail: &Trail<'_>) -> Option<usize> {
        let pointer = table.to_pointer();
        if self.open.contains(&pointer) {
            self.mistake(trail, "plain data", "a table that contains itself");
            return None;
        }
        if self.open.len() >= MAX_DEPTH {
            self.mistake(
                trail,
                format!("tables nested at most {MAX_DEPTH} deep"),
                "deeper ones",
            );
            return None;
        }
        let length = table.raw_len();
        if length > MAX_NODES.saturating_sub(self.nodes) {
            self.nodes = MAX_NODES;
            self.count(trail);
            return None;
        }
        if !self.visit(table) {
            self.count(trail);
            return None;
        }
        self.open.push(pointer);
        Some(length)
    }

    /// A table that looks like one with text keys; none when it is not.
    fn entries(&mut self, table: &Table, trail: &Trail<'_>) -> Option<Term> {
        let mut entries: Vec<(String, Term)> = Vec::with_capacity(8);
        let walked = table.for_each(|key: String, value: Value| {
            // Counted for every table that has it: many may share one long key.
            if !self.count_bytes(key.len(), trail) {
                return Err(mlua::Error::StackError);
            }
            // A number would come as its digits.
            if key.as_bytes().contains(&0) || is_number_in_disguise(table, &key)? {
                return Err(mlua::Error::StackError);
            }
            let term = self.term(&value, &trail.key(&key));
            entries.push((key, term));
            if self.full {
                return Err(mlua::Error::StackError);
            }
            Ok(())
        });
        if walked.is_err() && !self.full {
            return None;
        }
        entries.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        Some(if entries.is_empty() {
            Term::List(Vec::new())
        } else {
            Term::Table(entries)
        })
    }

    /// A table that looks like a list whose items lie in order; none when it is not.
    fn items(&mut self, table: &Table, length: usize, trail: &Trail<'_>) -> Option<Term> {
        let mut items: Vec<Term> = Vec::with_capacity(length);
        let walked = table.for_each(|key: Value, value: Value| {
            let place = items.len() + 1;
            let next = match key {
                Value::Integer(key) => key == place as i64,
                Value::Number(key) => key == place as f64,
                _ => false,
            };
            if !next || self.full {
                return Err(mlua::Error::StackError);
            }
            items.push(self.term(&value, &trail.index(place)));
            Ok(())
        });
        (walked.is_ok() || self.full).then_some(Term::List(items))
    }

    /// A table that is neither at first sight.
    fn irregular(&mut self, table: &Table, length: usize, trail: &Trail<'_>) -> Term {
        match self.shape(table, length, trail) {
            None => Term::Nil,
            Some(Shape::List(items)) => Term::List(
                items
                    .iter()
                    .enumerate()
                    .map(|(place, item)| self.term(item, &trail.index(place + 1)))
                    .collect(),
            ),
            Some(Shape::Table(entries)) => {
                let mut read = Vec::with_capacity(entries.len());
                for (key, value) in &entries {
                    if let Some(key) = self.text(key, trail) {
                        let term = self.term(value, &trail.key(&key));
                        read.push((key, term));
                    }
                }
                read.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
                Term::Table(read)
            }
        }
    }

    /// Opens a table and tells list from table. The caller pops `open` when it is done with it.
    fn enter(&mut self, table: &Table, trail: &Trail<'_>) -> Option<Shape> {
        let length = self.open(table, trail)?;
        let shape = self.shape(table, length, trail);
        if shape.is_none() {
            self.open.pop();
        }
        shape
    }

    fn shape(&mut self, table: &Table, length: usize, trail: &Trail<'_>) -> Option<Shape> {
        let mut items: Vec<Value> = Vec::with_capacity(length);
        let mut entries: Vec<(mlua::LuaString, Value)> = Vec::new();
        let mut strange = None;
        let mut room = MAX_NODES - self.nodes.min(MAX_NODES);
        let walked = table.for_each(|key: Value, value: Value| {
            if room == 0 {
                return Err(mlua::Error::StackError);
            }
            room -= 1;
            match key {
                Value::String(key) => entries.push((key, value)),
                // The array part comes in order; what lies in the hash part is sorted out below.
                Value::Integer(key) if key == items.len() as i64 + 1 => items.push(value),
                Value::Number(key) if key == (items.len() + 1) as f64 => items.push(value),
                other => {
                    strange.get_or_insert(other);
                }
            }
            Ok(())
        });
        if walked.is_err() {
            self.nodes = MAX_NODES;
            self.count(trail);
            return None;
        }
        if let Some(key) = strange {
            match self.sparse(table, &key, length, entries.is_empty()) {
                Some(all) => items = all,
                None => {
                    self.mistake(
                        trail,
                        "a list without holes, or a table with text keys",
                        format!("a table with the key {}", shown_key(&key)),
                    );
                    return None;
                }
            }
        }
        if !items.is_empty() && !entries.is_empty() {
            self.mistake(
                trail,
                "a list, or a table with text keys",
                "a table with both numbers and texts as keys",
            );
            return None;
        }
        Some(if entries.is_empty() {
            Shape::List(items)
        } else {
            Shape::Table(entries)
        })
    }

    /// A list whose items do not lie in order, as after `t[2] = x; t[1] = y`; none when it has holes.
    fn sparse(
        &self,
        table: &Table,
        key: &Value,
        length: usize,
        only_numbers: bool,
    ) -> Option<Vec<Value>> {
        if !only_numbers || !matches!(key, Value::Integer(_) | Value::Number(_)) {
            return None;
        }
        let mut keys = 0;
        table
            .for_each(|key: Value, _: Value| {
                let whole = match key {
                    Value::Integer(key) => key >= 1 && key <= length as i64,
                    Value::Number(key) => key.fract() == 0.0 && key >= 1.0 && key <= length as f64,
                    _ => false,
                };
                keys += 1;
                if whole {
                    Ok(())
                } else {
                    Err(mlua::Error::StackError)
                }
            })
            .ok()?;
        if keys != length {
            return None;
        }
        (1..=length)
            .map(|place| table.raw_get(place).ok())
            .collect()
    }
}

/// Whether a key that came as text is a number in the table.
fn is_number_in_disguise(table: &Table, key: &str) -> mlua::Result<bool> {
    // Numbers begin with a digit or a sign, or are `inf` and `nan`.
    let first = key.as_bytes().first().copied().unwrap_or(b'x');
    if first.is_ascii_lowercase() && !matches!(first, b'i' | b'n') {
        return Ok(false);
    }
    Ok(key.parse::<f64>().is_ok() && table.raw_get::<Value>(key)?.is_nil())
}

fn shown_key(key: &Value) -> String {
    match key {
        Value::Integer(key) => key.to_string(),
        Value::Number(key) => key.to_string(),
        other => kind(other).to_owned(),
    }
}

/// What an author would call a value.
pub(crate) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Nil => "nothing",
        Value::Boolean(_) => "a boolean",
        Value::Integer(_) | Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Table(_) => "a table",
        Value::Function(_) => "a function",
        Value::Thread(_) => "a coroutine",
        Value::LightUserData(pointer) if pointer.0.is_null() => "patchbay.null",
        Value::UserData(_) | Value::LightUserData(_) => "an object of the server",
        Value::Error(_) => "an error",
        _ => "a value that is no plain data",
    }
}

/// Whether a table is what these entries become in Lua.
pub(crate) fn same_entries(table: &Table, entries: &Map) -> bool {
    AnswerReader::default().has_same_entries(table, entries)
}

impl AnswerReader {
    /// Whether `value` is what `original` becomes in Lua: the plugin left it alone. What is not told to be the same is read,
    /// which takes note of the bounds.
    fn is_same(&mut self, value: &Value, original: &Json) -> bool {
        match (value, original) {
            (Value::Nil, Json::Null) => true,
            (Value::LightUserData(pointer), Json::Null) => pointer.0.is_null(),
            (Value::Boolean(value), Json::Bool(original)) => value == original,
            (Value::Integer(value), Json::Number(_)) => number_of(original) == Some(*value as f64),
            (Value::Number(value), Json::Number(_)) => number_of(original) == Some(*value),
            (Value::String(value), Json::String(original)) => {
                *value.as_bytes() == *original.as_bytes()
            }
            (Value::Table(table), Json::Array(items)) => {
                table.raw_len() == items.len()
                    && self.visit(table)
                    && count(table, items.len())
                    && items.iter().enumerate().all(|(place, item)| {
                        table
                            .raw_get::<Value>(place + 1)
                            .is_ok_and(|value| self.is_same(&value, item))
                    })
            }
            (Value::Table(table), Json::Object(entries)) => {
                self.visit(table) && self.has_same_entries(table, entries)
            }
            _ => false,
        }
    }

    fn has_same_entries(&mut self, table: &Table, entries: &Map) -> bool {
        let mut left = entries.values().filter(|value| !value.is_null()).count();
        let walked = table.for_each(|key: Value, value: Value| {
            let original = match &key {
                Value::String(key) => std::str::from_utf8(&key.as_bytes())
                    .ok()
                    .and_then(|key| entries.get(key)),
                _ => None,
            };
            match original {
                Some(original) if left > 0 && self.is_same(&value, original) => left -= 1,
                _ => return Err(mlua::Error::StackError),
            }
            Ok(())
        });
        walked.is_ok() && left == 0
    }
}

/// Whether a table has exactly this many entries.
fn count(table: &Table, wanted: usize) -> bool {
    let mut found = 0;
    let walked = table.for_each(|_: Value, _: Value| {
        found += 1;
        if found > wanted {
            Err(mlua::Error::StackError)
        } else {
            Ok(())
        }
    });
    walked.is_ok() && found == wanted
}

/// The number that a JSON number is in Lua. One that is beyond all floats is infinite, as Lua reads it too.
fn number_of(value: &Json) -> Option<f64> {
    let Json::Number(number) = value else {
        return None;
    };
    number.as_f64().or_else(|| number.to_string().parse().ok())
}

/// JSON as Lua holds it. Null is nil, except inside a list, where it is `patchbay.null`, so that the places stay.
pub(crate) fn into_lua(lua: &Lua, value: &Json) -> mlua::Result<Value> {
    Ok(match value {
        Json::Null => Value::Nil,
        Json::Bool(value) => Value::Boolean(*value),
        Json::Number(_) => number_of(value).map_or(Value::Nil, Value::Number),
        Json::String(text) => Value::String(lua.create_string(text)?),
        Json::Array(items) => {
            let table = lua.create_table_with_capacity(items.len(), 0)?;
            for (place, item) in items.iter().enumerate() {
                let value = match item {
                    Json::Null => Value::NULL,
                    item => into_lua(lua, item)?,
                };
                table.raw_set(place + 1, value)?;
            }
            Value::Table(table)
        }
        Json::Object(entries) => Value::Table(map_into_lua(lua, entries)?),
    })
}

/// A JSON object as Lua holds it.
pub(crate) fn map_into_lua(lua: &Lua, entries: &Map) -> mlua::Result<Table> {
    let table = lua.create_table_with_capacity(0, entries.len())?;
    for (key, value) in entries {
        match value {
            Json::Null => {}
            Json::String(text) => table.raw_set(key.as_str(), text.as_str())?,
            Json::Bool(value) => table.raw_set(key.as_str(), *value)?,
            value => table.raw_set(key.as_str(), into_lua(lua, value)?)?,
        }
    }
    Ok(table)
}

/// Makes a table and all tables in it read-only. Only for what `into_lua` built, which is a tree.
pub(crate) fn freeze(value: &Value) {
    if let Value::Table(table) = value {
        let _ = table.for_each(|_: Value, value: Value| {
            freeze(&value);
            Ok(())
        });
        table.set_readonly(true);
    }
}
