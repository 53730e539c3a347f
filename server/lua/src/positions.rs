//! Where in the source a mistake is.
//!
//! Luau's tables carry no positions. When something is wrong, and only then, the source is parsed too, and the mistake's
//! path is followed through the table constructors: `fields[2].default` leads into the second field's options. Where a
//! value is computed, the way ends at the nearest expression around it.
//!
//! Parsing is slow and cannot be interrupted, so it runs on a thread of its own, away from Lua and from the callers.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use full_moon::ast::{
    Block, Call, Expression, Field, FunctionArgs, FunctionBody, FunctionCall, Index, LastStmt,
    Prefix, Stmt, Suffix, TableConstructor, Var,
};
use full_moon::node::Node;
use full_moon::tokenizer::{Position, TokenReference, TokenType};
use patchbay_plugin::term::{Mistake, Path, Step};
use tokio::sync::oneshot;

use crate::error::{Report, Stage};
use crate::load::Unplaced;
use crate::queue::lock;
use crate::source::Source;

/// A line and a column, both from 1.
type Place = (u32, u32);

/// The parser recurses as deep as the source nests; Luau has compiled it, so that is some hundred levels.
const STACK: usize = 64 * 1024 * 1024;

/// What is looked for in one file.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Wanted {
    file: String,
    /// The hook whose answer the path leads into; none for what the file returns.
    hook: Option<&'static str>,
    path: String,
    steps: Vec<WantedStep>,
    at_key: bool,
}

#[derive(Clone, PartialEq, Eq, Hash)]
enum WantedStep {
    Key(String),
    Index(usize),
}

impl Wanted {
    fn new(file: &str, hook: Option<&'static str>, path: &Path, at_key: bool) -> Wanted {
        let steps = path
            .0
            .iter()
            .map(|step| match step {
                Step::Key(key) => WantedStep::Key(key.clone()),
                Step::Index(index) => WantedStep::Index(*index),
            })
            .collect();
        Wanted {
            file: file.to_owned(),
            hook,
            path: path.to_string(),
            steps,
            at_key,
        }
    }
}

/// The places found so far in the answers of one plugin's hooks: a hook that is wrong is so at every call.
#[derive(Default)]
pub(crate) struct Places {
    found: Mutex<HashMap<Wanted, Option<Place>>>,
}

/// How many places are remembered.
const MAX_PLACES: usize = 500;

/// Gives each report its place.
pub(crate) async fn place_all(mistakes: Vec<Unplaced>, source: &Arc<Source>) -> Vec<Report> {
    let wanted: Vec<Wanted> = mistakes
        .iter()
        .filter_map(|mistake| mistake.place.as_ref())
        .map(|(file, path, at_key)| Wanted::new(file, None, path, *at_key))
        .collect();
    let mut found = find_all(source, wanted).await.into_iter();
    mistakes
        .into_iter()
        .map(|mistake| match mistake.place {
            Some(_) => at(mistake.report, found.next().flatten()),
            None => mistake.report,
        })
        .collect()
}

/// Gives each mistake in a hook's answer its place in the hook's code.
pub(crate) async fn place_answer(
    hook: &'static str,
    mistakes: Vec<Mistake>,
    source: &Arc<Source>,
    places: &Places,
) -> Vec<Report> {
    let wanted: Vec<Wanted> = mistakes
        .iter()
        .map(|mistake| Wanted::new(&source.entry, Some(hook), &mistake.path, mistake.at_key))
        .collect();
    let missing: Vec<Wanted> = {
        let found = lock(&places.found);
        let is_missing = |one: &&Wanted| !found.contains_key(*one);
        wanted.iter().filter(is_missing).cloned().collect()
    };
    if !missing.is_empty() {
        let new = find_all(source, missing.clone()).await;
        let mut found = lock(&places.found);
        if found.len() + new.len() > MAX_PLACES {
            found.clear();
        }
        found.extend(missing.into_iter().zip(new));
    }
    let found = lock(&places.found);
    mistakes
        .iter()
        .zip(&wanted)
        .map(|(mistake, wanted)| {
            let report = Report::of(Stage::Hook, mistake)
                .in_file(source.shown(&source.entry))
                .in_hook(Some(hook));
            at(report, found.get(wanted).copied().flatten())
        })
        .collect()
}

fn at(mut report: Report, place: Option<Place>) -> Report {
    if let Some((line, column)) = place {
        report.line = Some(line);
        report.column = Some(column);
    }
    report
}

/// Finds places on a thread of its own. Without one, or where the parser fails, reports name the file alone.
async fn find_all(source: &Arc<Source>, wanted: Vec<Wanted>) -> Vec<Option<Place>> {
    let count = wanted.len();
    if count == 0 {
        return Vec::new();
    }
    let (sender, receiver) = oneshot::channel();
    let source = source.clone();
    let spawned = std::thread::Builder::new()
        .name("lua-positions".to_owned())
        .stack_size(STACK)
        .spawn(move || {
            let _ = sender.send(find(&source, &wanted));
        });
    match spawned {
        Ok(_) => receiver.await.unwrap_or_else(|_| vec![None; count]),
        Err(_) => vec![None; count],
    }
}

fn find(source: &Source, wanted: &[Wanted]) -> Vec<Option<Place>> {
    let mut parsed: HashMap<&str, Option<full_moon::ast::Ast>> = HashMap::new();
    for one in wanted {
        parsed.entry(one.file.as_str()).or_insert_with(|| {
            source
                .files
                .get(&one.file)
                .and_then(|text| full_moon::parse(text).ok())
        });
    }
    wanted
        .iter()
        .map(|one| {
            let ast = parsed.get(one.file.as_str())?.as_ref()?;
            let place = Search::new(ast.nodes()).place(one)?;
            Some((
                u32::try_from(place.line()).ok()?,
                u32::try_from(place.character()).ok()?,
            ))
        })
        .collect()
}

/// What a step of the path leads to.
#[derive(Clone, Copy)]
enum Spot<'a> {
    Value(&'a Expression),
    Body(&'a FunctionBody),
    Name,
}

/// A spot, and where it and its key begin.
#[derive(Clone, Copy)]
struct Found<'a> {
    spot: Spot<'a>,
    key: Option<Position>,
    start: Option<Position>,
}

impl<'a> Found<'a> {
    fn value(value: &'a Expression, key: Option<Position>) -> Found<'a> {
        Found {
            spot: Spot::Value(value),
            key,
            start: value.start_position(),
        }
    }
}

/// Follows a path through one file. `scopes` are the blocks in which names are looked up, the innermost last.
struct Search<'a> {
    scopes: Vec<&'a Block>,
    /// How many steps the search may still take, all together: names may lead to themselves.
    steps: Cell<usize>,
}

/// How many steps one search may take.
const MAX_STEPS: usize = 64;
/// How deep it may go: calls within calls, blocks within blocks.
const MAX_DEPTH: usize = 16;

/// How many names are followed one to the next: `local a = b`.
const MAX_NAMES: usize = 16;

impl<'a> Search<'a> {
    fn new(block: &'a Block) -> Search<'a> {
        Search {
            scopes: vec![block],
            steps: Cell::new(MAX_STEPS),
        }
    }

    /// Takes a step; none once all are taken, or `depth` is too deep.
    fn step(&self, depth: usize) -> Option<()> {
        if depth >= MAX_DEPTH {
            return None;
        }
        self.steps.set(self.steps.get().checked_sub(1)?);
        Some(())
    }

    fn place(mut self, wanted: &Wanted) -> Option<Position> {
        let top = self.scopes.first().copied()?;
        let mut here = self.returned(top, 0)?;
        if let Some(hook) = wanted.hook {
            let Some(found) = self.key(here, hook, 0) else {
                return here.start;
            };
            let Some(body) = self.body(found) else {
                return found.start.or(found.key);
            };
            self.scopes.push(body.block());
            match self.returned(body.block(), 0) {
                Some(returned) => here = returned,
                None => return found.key.or(found.start),
            }
        }
        for (place, step) in wanted.steps.iter().enumerate() {
            let next = match step {
                WantedStep::Key(key) => self.key(here, key, 0),
                WantedStep::Index(index) => self.index(here, *index, 0),
            };
            let Some(next) = next else { return here.start };
            let last = place + 1 == wanted.steps.len();
            if last && wanted.at_key {
                return next.key.or(next.start);
            }
            here = next;
        }
        here.start
    }

    /// The first value that a block returns at its end, or else in the blocks inside it.
    fn returned(&self, block: &'a Block, depth: usize) -> Option<Found<'a>> {
        self.step(depth)?;
        if let Some(LastStmt::Return(returned)) = block.last_stmt() {
            let value = returned.returns().iter().next()?;
            return Some(Found::value(value, returned.token().start_position()));
        }
        block.stmts().find_map(|statement| match statement {
            Stmt::Do(inner) => self.returned(inner.block(), depth + 1),
            Stmt::If(branch) => self.returned(branch.block(), depth + 1).or_else(|| {
                let block = branch.else_block()?;
                self.returned(block, depth + 1)
            }),
            _ => None,
        })
    }

    /// The value behind names and parentheses, and the name by which it is known.
    fn resolve(&self, spot: Spot<'a>) -> (Option<&'a Expression>, Option<&'a str>) {
        let mut name = None;
        let mut value = match spot {
            Spot::Value(value) => value,
            Spot::Body(_) | Spot::Name => return (None, None),
        };
        for _ in 0..MAX_NAMES {
            match value {
                Expression::Parentheses { expression, .. }
                | Expression::TypeAssertion { expression, .. } => value = expression,
                Expression::Var(Var::Name(token)) => {
                    let Some(known) = word(token) else {
                        return (None, None);
                    };
                    name = Some(known);
                    match self.local(known) {
                        Some(next) => value = next,
                        None => return (None, name),
                    }
                }
                other => return (Some(other), name),
            }
        }
        (None, name)
    }

    /// What a local was first set to.
    fn local(&self, name: &str) -> Option<&'a Expression> {
        self.scopes.iter().rev().find_map(|block| {
            block.stmts().find_map(|statement| match statement {
                Stmt::LocalAssignment(local) => {
                    let place = local
                        .names()
                        .iter()
                        .position(|token| word(token) == Some(name))?;
                    local.expressions().iter().nth(place)
                }
                _ => None,
            })
        })
    }

    /// The function behind a spot.
    fn body(&self, found: Found<'a>) -> Option<&'a FunctionBody> {
        if let Spot::Body(body) = found.spot {
            return Some(body);
        }
        let (value, name) = self.resolve(found.spot);
        match value {
            Some(Expression::Function(function)) => Some(function.body()),
            Some(_) => None,
            None => self.scopes.iter().rev().find_map(|block| {
                block.stmts().find_map(|statement| match statement {
                    Stmt::LocalFunction(function) if word(function.name()) == name => {
                        Some(function.body())
                    }
                    _ => None,
                })
            }),
        }
    }

    /// The value at a key of a table, or of the options of a call.
    fn key(&self, found: Found<'a>, wanted: &str, depth: usize) -> Option<Found<'a>> {
        self.step(depth)?;
        let (value, name) = self.resolve(found.spot);
        let in_table = match value? {
            Expression::TableConstructor(table) => key_of(table, wanted),
            Expression::FunctionCall(call) => key_of_call(call, wanted).or_else(|| {
                // `patchbay.plugin(definition)`
                let argument = argument_of_call(call)?;
                self.key(Found::value(argument, None), wanted, depth + 1)
            }),
            _ => None,
        };
        in_table.or_else(|| self.set_later(name?, wanted))
    }

    /// What is set after the table was made: `plugin.validate = …`, `function plugin.validate(…)`.
    fn set_later(&self, table: &str, wanted: &str) -> Option<Found<'a>> {
        self.step(0)?;
        self.scopes.iter().rev().find_map(|block| {
            block.stmts().find_map(|statement| match statement {
                Stmt::Assignment(assignment) => assignment
                    .variables()
                    .iter()
                    .position(|variable| is_member(variable, table, wanted))
                    .and_then(|place| assignment.expressions().iter().nth(place))
                    .map(|value| Found::value(value, assignment.start_position())),
                Stmt::FunctionDeclaration(function) => {
                    let names: Vec<_> = function.name().names().iter().map(word).collect();
                    (names == [Some(table), Some(wanted)]).then(|| Found {
                        spot: Spot::Body(function.body()),
                        key: function.start_position(),
                        start: function.start_position(),
                    })
                }
                _ => None,
            })
        })
    }

    /// The value at a place of a list.
    fn index(&self, found: Found<'a>, wanted: usize, depth: usize) -> Option<Found<'a>> {
        self.step(depth)?;
        let (value, _) = self.resolve(found.spot);
        let table = match value? {
            Expression::TableConstructor(table) => table,
            Expression::FunctionCall(call) => match table_of_call(call) {
                Some(table) => table,
                None => {
                    let argument = argument_of_call(call)?;
                    return self.index(Found::value(argument, None), wanted, depth + 1);
                }
            },
            _ => return None,
        };
        let value = table
            .fields()
            .iter()
            .filter_map(|field| match field {
                Field::NoKey(value) => Some(value),
                _ => None,
            })
            .nth(wanted.checked_sub(1)?)?;
        Some(Found::value(value, None))
    }
}

fn key_of<'a>(table: &'a TableConstructor, wanted: &str) -> Option<Found<'a>> {
    table.fields().iter().find_map(|field| match field {
        Field::NameKey { key, value, .. } if word(key) == Some(wanted) => {
            Some(Found::value(value, key.start_position()))
        }
        Field::ExpressionKey {
            brackets,
            key,
            value,
            ..
        } if matches!(&**key, Expression::String(token) if text(token) == Some(wanted)) => {
            Some(Found::value(value, brackets.start_position()))
        }
        _ => None,
    })
}

/// `field.string "name" { … }`: the options have the keys; the text before them is the name.
fn key_of_call<'a>(call: &'a FunctionCall, wanted: &str) -> Option<Found<'a>> {
    if let Some(found) = table_of_call(call).and_then(|table| key_of(table, wanted)) {
        return Some(found);
    }
    if !matches!(wanted, "name" | "id") {
        return None;
    }
    calls(call).find_map(|arguments| match arguments {
        FunctionArgs::String(token) => Some(Found {
            spot: Spot::Name,
            key: token.start_position(),
            start: token.start_position(),
        }),
        FunctionArgs::Parentheses { arguments, .. } => match arguments.iter().next() {
            Some(value @ Expression::String(token)) => {
                Some(Found::value(value, token.start_position()))
            }
            _ => None,
        },
        _ => None,
    })
}

/// The table that a call ends with.
fn table_of_call(call: &FunctionCall) -> Option<&TableConstructor> {
    match calls(call).last()? {
        FunctionArgs::TableConstructor(table) => Some(table),
        FunctionArgs::Parentheses { arguments, .. } => match arguments.iter().next() {
            Some(Expression::TableConstructor(table)) => Some(table),
            _ => None,
        },
        _ => None,
    }
}

/// The name of a table that a call ends with.
fn argument_of_call(call: &FunctionCall) -> Option<&Expression> {
    match calls(call).last()? {
        FunctionArgs::Parentheses { arguments, .. } => match arguments.iter().next() {
            Some(value @ Expression::Var(Var::Name(_))) => Some(value),
            _ => None,
        },
        _ => None,
    }
}

fn calls(call: &FunctionCall) -> impl Iterator<Item = &FunctionArgs> {
    call.suffixes().filter_map(|suffix| match suffix {
        Suffix::Call(Call::AnonymousCall(arguments)) => Some(&**arguments),
        _ => None,
    })
}

/// Whether a variable is `table.wanted`.
fn is_member(variable: &Var, table: &str, wanted: &str) -> bool {
    let Var::Expression(expression) = variable else {
        return false;
    };
    let Prefix::Name(name) = expression.prefix() else {
        return false;
    };
    let mut suffixes = expression.suffixes();
    let (Some(Suffix::Index(Index::Dot { name: key, .. })), None) =
        (suffixes.next(), suffixes.next())
    else {
        return false;
    };
    word(name) == Some(table) && word(key) == Some(wanted)
}

fn word(token: &TokenReference) -> Option<&str> {
    match token.token().token_type() {
        TokenType::Identifier { identifier } => Some(identifier.as_str()),
        _ => None,
    }
}

fn text(token: &TokenReference) -> Option<&str> {
    match token.token().token_type() {
        TokenType::StringLiteral { literal, .. } => Some(literal.as_str()),
        _ => None,
    }
}
