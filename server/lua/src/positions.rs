//! Where in the source a mistake is.
//!
//! Luau's tables carry no positions. When something is wrong, and only then, the source is parsed too, and the mistake's
//! path is followed through the table constructors: `fields[2].default` leads into the second field's options. Where a
//! value is computed, the way ends at the nearest expression around it.
//!
//! Parsing is slow and cannot be interrupted, so it runs on a thread of its own, away from Lua and from the callers. Nobody
//! waits for it for long: a report without its place is better than none, and a file must never hold up the others.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use full_moon::ast::{
    Block, Call, Expression, Field, FunctionArgs, FunctionBody, FunctionCall, Index, LastStmt,
    Prefix, Stmt, Suffix, TableConstructor, Var,
};
use full_moon::node::Node;
use full_moon::tokenizer::{
    InterpolatedStringKind, Lexer, LexerResult, Position, Symbol, Token, TokenReference, TokenType,
};
use patchbay_plugin::definition::Incompatibility;
use patchbay_plugin::term::{Mistake, Path, Step};
use semver::VersionReq;
use tokio::sync::{Semaphore, oneshot};

use crate::error::{Report, Stage};
use crate::load::Unplaced;
use crate::queue::lock;
use crate::source::Source;

/// A line and a column, both from 1, where something begins, and where it has ended.
#[derive(Clone, Copy)]
struct Place {
    start: (u32, u32),
    end: (u32, u32),
}

impl Place {
    fn of((start, end): Range) -> Option<Place> {
        let pair = |at: Position| {
            let line = u32::try_from(at.line()).ok()?;
            Some((line, u32::try_from(at.character()).ok()?))
        };
        Some(Place {
            start: pair(start)?,
            end: pair(end)?,
        })
    }
}

/// From where to where something is.
type Range = (Position, Position);

/// The parser recurses as deep as the source nests; Luau has compiled it, so that is some hundred levels.
const STACK: usize = 64 * 1024 * 1024;

/// How long a report waits for its place. Unoptimised, the parser is many times slower.
const PATIENCE: Duration = match cfg!(debug_assertions) {
    true => Duration::from_secs(5),
    false => Duration::from_millis(500),
};

/// How many files are parsed at once; also how many threads can be left behind, when parsing does not end.
static PARSERS: Semaphore = Semaphore::const_new(4);

/// How deep interpolated strings may lie in one another: each level doubles the time that the parser takes.
const MAX_INTERPOLATIONS: usize = 4;

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
    if let Some(Place { start, end }) = place {
        report.line = Some(start.0);
        report.column = Some(start.1);
        report.span_mut().end = Some(end);
    }
    report
}

/// Finds places. Without a thread or the time for it, or where the parser fails, reports name the file alone.
async fn find_all(source: &Arc<Source>, wanted: Vec<Wanted>) -> Vec<Option<Place>> {
    let count = wanted.len();
    if count == 0 {
        return Vec::new();
    }
    let source = source.clone();
    let found = aside(move || find(&source, &wanted)).await;
    found.unwrap_or_else(|| vec![None; count])
}

async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    aside_within(PATIENCE, &PARSERS, work).await
}

/// Runs the parser on a thread of its own; none when there is no thread, when it takes too long, or when the parser fails.
/// A thread that is left behind keeps its permit until it ends.
async fn aside_within<T: Send + 'static>(
    patience: Duration,
    parsers: &'static Semaphore,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let parse = async {
        let permit = parsers.acquire().await.ok()?;
        let (sender, receiver) = oneshot::channel();
        std::thread::Builder::new()
            .name("lua-positions".to_owned())
            .stack_size(STACK)
            .spawn(move || {
                let _ = sender.send(work());
                drop(permit);
            })
            .ok()?;
        receiver.await.ok()
    };
    tokio::time::timeout(patience, parse).await.ok().flatten()
}

/// Parses a file; none for one that the parser refuses, or that would keep it busy for ever.
fn parse(text: &str) -> Option<full_moon::ast::Ast> {
    match is_quick_to_parse(text) {
        true => full_moon::parse(text).ok(),
        false => None,
    }
}

/// Whether no interpolated strings lie too deep in one another. A text that cannot be read to its end is not parsed either.
fn is_quick_to_parse(text: &str) -> bool {
    let mut lexer = Lexer::new(text, full_moon::LuaVersion::new());
    let mut depth = 0usize;
    loop {
        let token = match lexer.consume() {
            Some(LexerResult::Ok(token)) => token,
            Some(LexerResult::Recovered(..) | LexerResult::Fatal(_)) => return false,
            None => return true,
        };
        if let TokenType::InterpolatedString { kind, .. } = token.token().token_type() {
            match kind {
                InterpolatedStringKind::Begin => depth += 1,
                InterpolatedStringKind::End => depth = depth.saturating_sub(1),
                InterpolatedStringKind::Middle | InterpolatedStringKind::Simple => {}
            }
            if depth > MAX_INTERPOLATIONS {
                return false;
            }
        }
    }
}

/// Says that a plugin which does not load is for another Patchbay, when its file says so in plain words. A file for a
/// newer API may use names, keys and even a syntax that are not known here, and then whatever else is wrong with it is no
/// news. Where the file was `compiled` it is parsed; else only its words are read, because a file that the compiler refused
/// may nest deeper than the parser can go.
pub(crate) async fn find_incompatibility(source: &Arc<Source>, compiled: bool) -> Option<Report> {
    let file = source.clone();
    let found = aside(move || {
        let text = file.files.get(&file.entry)?;
        match compiled && is_quick_to_parse(text) {
            true => {
                let parsed = full_moon::parse(text).ok()?;
                let search = Search::new(parsed.nodes());
                let returned = search.returned(parsed.nodes(), 0)?;
                misfit(|key| {
                    let found = search.key(returned, key, 0)?;
                    literal(search.resolve(found.spot).0?, found.range?)
                })
            }
            false => {
                let tokens = tokens(text);
                misfit(|key| literal_in(&tokens, key))
            }
        }
    });
    let (reason, place) = found.await.flatten()?;
    let report = Report::incompatible(&reason).in_file(source.shown(&source.entry));
    Some(at(report, place))
}

/// A literal of the source, and where it is.
struct Literal {
    text: String,
    range: Range,
}

fn misfit(find: impl Fn(&str) -> Option<Literal>) -> Option<(Incompatibility, Option<Place>)> {
    let (api, requires) = (find("api"), find("requires"));
    let reason = Incompatibility::of(
        api.as_ref().and_then(|api| api.text.parse().ok()),
        requires
            .as_ref()
            .and_then(|range| VersionReq::parse(&range.text).ok())
            .as_ref(),
    )?;
    let said = match reason.key {
        "api" => api,
        _ => requires,
    };
    Some((reason, said.and_then(|literal| Place::of(literal.range))))
}

fn literal(value: &Expression, range: Range) -> Option<Literal> {
    let (Expression::Number(token) | Expression::String(token)) = value else {
        return None;
    };
    let text = literal_text(token.token())?;
    Some(Literal { text, range })
}

fn literal_text(token: &Token) -> Option<String> {
    match token.token_type() {
        TokenType::Number { text } => Some(text.to_string()),
        TokenType::StringLiteral { literal, .. } => Some(literal.to_string()),
        _ => None,
    }
}

/// The words of a source, without white space and comments; of one that cannot be read to its end, those before.
fn tokens(text: &str) -> Vec<Token> {
    let mut lexer = Lexer::new(text, full_moon::LuaVersion::new());
    let mut tokens = Vec::new();
    while let Some(LexerResult::Ok(token) | LexerResult::Recovered(token, _)) = lexer.consume() {
        tokens.push(token.token().clone());
    }
    tokens
}

/// What a key is set to, right in the table of a `plugin { … }` or `plugin({ … })`.
fn literal_in(tokens: &[Token], wanted: &str) -> Option<Literal> {
    let symbol = |place: usize| match tokens.get(place).map(Token::token_type) {
        Some(TokenType::Symbol { symbol }) => Some(*symbol),
        _ => None,
    };
    let named = |place: usize, name: &str| matches!(tokens.get(place).map(Token::token_type), Some(TokenType::Identifier { identifier }) if identifier.as_str() == name);
    // How deep a place is in brackets, and at which depth the table of a plugin is open.
    let (mut depth, mut open) = (0usize, None);
    for place in 0..tokens.len() {
        match symbol(place) {
            Some(Symbol::LeftBrace | Symbol::LeftParen | Symbol::LeftBracket) => {
                depth += 1;
                let before = match place.checked_sub(1).and_then(symbol) {
                    Some(Symbol::LeftParen) => place.checked_sub(2),
                    _ => place.checked_sub(1),
                };
                let begins = symbol(place) == Some(Symbol::LeftBrace)
                    && before.is_some_and(|before| named(before, "plugin"));
                if begins && open.is_none() {
                    open = Some(depth);
                }
            }
            Some(Symbol::RightBrace | Symbol::RightParen | Symbol::RightBracket) => {
                if open == Some(depth) {
                    open = None;
                }
                depth = depth.saturating_sub(1);
            }
            _ => {}
        }
        let begins_field = place.checked_sub(1).and_then(symbol).is_some_and(|before| {
            [Symbol::LeftBrace, Symbol::Comma, Symbol::Semicolon].contains(&before)
        });
        if open == Some(depth)
            && begins_field
            && named(place, wanted)
            && symbol(place + 1) == Some(Symbol::Equal)
        {
            let value = tokens.get(place + 2)?;
            let text = literal_text(value)?;
            let range = (value.start_position(), value.end_position());
            return Some(Literal { text, range });
        }
    }
    None
}

fn find(source: &Source, wanted: &[Wanted]) -> Vec<Option<Place>> {
    let mut parsed: HashMap<&str, Option<full_moon::ast::Ast>> = HashMap::new();
    for one in wanted {
        parsed
            .entry(one.file.as_str())
            .or_insert_with(|| source.files.get(&one.file).and_then(|text| parse(text)));
    }
    wanted
        .iter()
        .map(|one| {
            let ast = parsed.get(one.file.as_str())?.as_ref()?;
            Place::of(Search::new(ast.nodes()).place(one)?)
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

/// A spot, and where it and its key are.
#[derive(Clone, Copy)]
struct Found<'a> {
    spot: Spot<'a>,
    key: Option<Range>,
    range: Option<Range>,
}

impl<'a> Found<'a> {
    fn value(value: &'a Expression, key: Option<Range>) -> Found<'a> {
        Found {
            spot: Spot::Value(value),
            key,
            range: value.range(),
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

    fn place(mut self, wanted: &Wanted) -> Option<Range> {
        let top = self.scopes.first().copied()?;
        let mut here = self.returned(top, 0)?;
        if let Some(hook) = wanted.hook {
            let Some(found) = self.key(here, hook, 0) else {
                return here.range;
            };
            let Some(body) = self.body(found) else {
                return found.range.or(found.key);
            };
            self.scopes.push(body.block());
            match self.returned(body.block(), 0) {
                Some(returned) => here = returned,
                None => return found.key.or(found.range),
            }
        }
        for (place, step) in wanted.steps.iter().enumerate() {
            let next = match step {
                WantedStep::Key(key) => self.key(here, key, 0),
                WantedStep::Index(index) => self.index(here, *index, 0),
            };
            let Some(next) = next else { return here.range };
            let last = place + 1 == wanted.steps.len();
            if last && wanted.at_key {
                return next.key.or(next.range);
            }
            here = next;
        }
        here.range
    }

    /// The first value that a block returns at its end, or else in the blocks inside it.
    fn returned(&self, block: &'a Block, depth: usize) -> Option<Found<'a>> {
        self.step(depth)?;
        if let Some(LastStmt::Return(returned)) = block.last_stmt() {
            let value = returned.returns().iter().next()?;
            return Some(Found::value(value, returned.token().range()));
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
                    .map(|value| Found::value(value, assignment.variables().range())),
                Stmt::FunctionDeclaration(function) => {
                    let names: Vec<_> = function.name().names().iter().map(word).collect();
                    (names == [Some(table), Some(wanted)]).then(|| Found {
                        spot: Spot::Body(function.body()),
                        key: function.name().range(),
                        range: function.name().range(),
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
            Some(Found::value(value, key.range()))
        }
        Field::ExpressionKey {
            brackets,
            key,
            value,
            ..
        } if matches!(&**key, Expression::String(token) if text_of(token) == Some(wanted)) => {
            Some(Found::value(value, brackets.range()))
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
            key: token.range(),
            range: token.range(),
        }),
        FunctionArgs::Parentheses { arguments, .. } => match arguments.iter().next() {
            Some(value @ Expression::String(token)) => Some(Found::value(value, token.range())),
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

fn text_of(token: &TokenReference) -> Option<&str> {
    match token.token().token_type() {
        TokenType::StringLiteral { literal, .. } => Some(literal.as_str()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn api_in(text: &str) -> Option<String> {
        literal_in(&tokens(text), "api").map(|literal| literal.text)
    }

    #[test]
    fn interpolated_strings_deep_in_one_another_are_not_parsed() {
        let nested =
            |levels: usize| format!("return {}x{}", "`{".repeat(levels), "}`".repeat(levels));
        assert!(is_quick_to_parse("return `a {b} c {`d {e}`}` .. `{f}`"));
        assert!(is_quick_to_parse(&nested(MAX_INTERPOLATIONS)));
        assert!(!is_quick_to_parse(&nested(MAX_INTERPOLATIONS + 1)));
        assert!(!is_quick_to_parse("return \"no end"));
        assert!(is_quick_to_parse(&"-- `{`{`{`{`{`{\n".repeat(10)));
    }

    #[tokio::test]
    async fn parsing_that_does_not_end_holds_nobody_up_and_leaves_few_threads_behind() {
        static PARSERS: Semaphore = Semaphore::const_new(2);
        let patience = Duration::from_millis(20);
        let (ends, end) = std::sync::mpsc::channel::<()>();
        let end = Arc::new(Mutex::new(end));
        let started = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        for _ in 0..5 {
            let (end, started) = (end.clone(), started.clone());
            let found = aside_within(patience, &PARSERS, move || {
                started.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                let _ = lock(&end).recv();
            });
            assert_eq!(found.await, None);
        }
        drop(ends);
        // Both ends of the threads are told, so their permits come back.
        let _both = PARSERS.acquire_many(2).await.expect("the permits");
        assert_eq!(started.load(std::sync::atomic::Ordering::SeqCst), 2);
    }

    #[test]
    fn the_words_of_a_file_that_does_not_compile_tell_its_api() {
        let two = Some("2".to_owned());
        assert_eq!(
            api_in("return patchbay.plugin { name = 'A', api = 2, x = = }"),
            two
        );
        assert_eq!(
            api_in("return patchbay.plugin({\n  f(1), { api = 3 };\n  api = 2 --[[ the next ]] , "),
            two
        );
        for text in [
            "",
            "local t = { api = 2 } return patchbay.plugin { name = 'A' ",
            "return patchbay.plugin { url = function() local api = 2 end, name = = }",
            "return patchbay.plugin { x = { api = 2 }, = }",
            "return patchbay.plugin { } , { api = 2 }",
            "-- plugin { api = 2 }",
            "return patchbay.plugin { api = two, = }",
        ] {
            assert_eq!(api_in(text), None, "{text}");
        }
        // No depth is too deep.
        let deep = format!(
            "return patchbay.plugin {{ api = 2, x = {}",
            "{".repeat(200_000)
        );
        assert_eq!(api_in(&deep), two);
    }
}
