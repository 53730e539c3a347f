//! Hostile plugins: each is stopped by its own limit, and its neighbour on the same sandbox, on the same thread, answers
//! as if nothing had happened.

mod common;

use std::time::{Duration, Instant};

use common::{call, load, reader, short, single, with_hooks};
use patchbay_lua::{HookError, LoadError, Plugin, Sandbox};
use serde_json::json;

/// What a hostile script comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// It ends by itself, within its deadline.
    Ends,
    /// It is stopped by its deadline.
    Deadline,
    /// It is stopped by its memory limit.
    Memory,
    /// It is refused with an error that a plugin could catch.
    Raised,
    /// Its answer is refused.
    Nonsense,
}

use Kind::{Deadline, Ends, Memory, Nonsense, Raised};

fn kind_of(result: &Result<impl Sized, HookError>) -> Option<Kind> {
    match result {
        Ok(_) => Some(Ends),
        Err(HookError::Deadline(_)) => Some(Deadline),
        Err(HookError::Memory(_)) => Some(Memory),
        Err(HookError::Raised(_)) => Some(Raised),
        Err(HookError::Nonsense(_)) => Some(Nonsense),
        Err(
            HookError::Stuck(_) | HookError::Unavailable(_) | HookError::Busy | HookError::Closed,
        ) => None,
    }
}

/// What stands in the body of `validate`; what else the script does is up to it.
const HOSTILE: &[(&str, &str, Kind)] = &[
    ("an endless loop", "while true do end", Deadline),
    ("an endless repeat", "repeat until false", Deadline),
    ("an endless for", "for i = 1, math.huge do end", Deadline),
    (
        "an endless loop in pcall",
        "while true do pcall(function() while true do end end) end",
        Deadline,
    ),
    (
        "an endless loop in xpcall and its handler",
        "xpcall(function() while true do end end, function() while true do end end)",
        Deadline,
    ),
    (
        "pcall of pcall of pcall",
        "local function f() pcall(f) while true do pcall(f) end end f()",
        Deadline,
    ),
    (
        "an endless loop in a coroutine",
        "coroutine.wrap(function() while true do end end)()",
        Deadline,
    ),
    (
        "coroutines in coroutines",
        "local function f() coroutine.wrap(f)() end while true do pcall(f) end",
        Deadline,
    ),
    (
        "a coroutine that is resumed for ever",
        "local co = coroutine.wrap(function() while true do coroutine.yield() end end) while true do co() end",
        Deadline,
    ),
    (
        "a hook that yields for ever",
        "while true do coroutine.yield() end",
        Deadline,
    ),
    (
        "an endless sort callback",
        "table.sort({3, 2, 1}, function() while true do end end)",
        Deadline,
    ),
    (
        "a sort callback that never makes up its mind",
        "local t = table.create(1000, 1) table.sort(t, function() return true end)",
        Raised,
    ),
    (
        "an endless gsub callback",
        "string.gsub('aaa', 'a', function() while true do end end)",
        Deadline,
    ),
    (
        "an endless metamethod",
        "local t = setmetatable({}, { __index = function() while true do end end }) return t.x",
        Deadline,
    ),
    (
        "an endless tostring",
        "tostring(setmetatable({}, { __tostring = function() while true do end end }))",
        Deadline,
    ),
    (
        "an endless iterator",
        "for _ in function() return 1 end do end",
        Deadline,
    ),
    (
        "an endless __iter",
        "for _ in setmetatable({}, { __iter = function() return function() return 1 end end }) do end",
        Deadline,
    ),
    (
        "an endless comparison",
        "local m = { __lt = function() while true do end end } return setmetatable({}, m) < setmetatable({}, m)",
        Deadline,
    ),
    (
        "pattern back-tracking",
        "string.find(string.rep('a', 40), string.rep('a?', 40) .. string.rep('a', 40) .. 'b')",
        Deadline,
    ),
    (
        "pattern back-tracking in pcall",
        "while true do pcall(string.match, string.rep('a', 5000), '.-.-.-.-.-.-.-b') end",
        Deadline,
    ),
    (
        "gmatch back-tracking",
        "for _ in string.gmatch(string.rep('a', 5000), '.-.-.-.-.-.-b') do end",
        Deadline,
    ),
    (
        "a plain search of a long needle",
        "local n = string.rep('a', 300000) string.find(n .. n, n .. 'b', 1, true)",
        Raised,
    ),
    (
        "a search without specials of a long needle",
        "local n = string.rep('a', 300000) string.find(n .. n, n .. 'b')",
        Raised,
    ),
    (
        "a split at a long separator",
        "local n = string.rep('a', 300000) string.split(n .. n, n .. 'b')",
        Raised,
    ),
    (
        "a move over a huge range",
        "table.move({}, 1, 2^31 - 2, 2)",
        Raised,
    ),
    (
        "a move over a range that is no number",
        "table.move({}, 0/0, -2, 1)",
        Raised,
    ),
    ("a huge text", "return string.rep('a', 2^40)", Raised),
    (
        "a huge table at once",
        "return table.create(2^30, 1)",
        Raised,
    ),
    (
        "a table that grows for ever",
        "local t = {} while true do t[#t + 1] = table.create(500, t) end",
        Memory,
    ),
    (
        "a text that grows for ever",
        "local s = 'x' while true do s = s .. s end",
        Memory,
    ),
    (
        "texts that are kept",
        "local t = {} for i = 1, 1e9 do t[i] = string.rep('x', 100000) .. i end",
        Memory,
    ),
    (
        "coroutines that are kept",
        "local t = {} while true do t[#t + 1] = coroutine.create(function() end) coroutine.resume(t[#t]) end",
        Memory,
    ),
    (
        "tables that are kept in a closure",
        "local kept = {} local keep = function(x) kept[#kept + 1] = x end while true do keep(table.create(1000, 1)) end",
        Memory,
    ),
    (
        "a memory limit that is caught",
        "local t = {} while true do pcall(function() while true do t[#t + 1] = string.rep('x', 1000) .. #t end end) end",
        Memory,
    ),
    (
        "garbage without end",
        "for i = 1, 60 do local s = string.rep('x', 1000000) end return nil",
        Ends,
    ),
    (
        "garbage of tables",
        "for i = 1, 20000 do local t = { i, { i } } end return nil",
        Ends,
    ),
    (
        "deep recursion",
        "local function f() return 1 + f() end return f()",
        Raised,
    ),
    (
        "deep recursion through pcall",
        "local function f() pcall(f) while true do end end f()",
        Deadline,
    ),
    (
        "recursion through metamethods",
        "local t = setmetatable({}, {}) getmetatable(t).__index = function(_, k) return t[k] end return t.x",
        Raised,
    ),
    (
        "an edit of a builtin",
        "string.rep = function() end",
        Raised,
    ),
    (
        "an edit of a builtin by rawset",
        "rawset(string, 'rep', nil)",
        Raised,
    ),
    (
        "an edit of the text metatable",
        "getmetatable('').__index = nil",
        Raised,
    ),
    ("a metatable for all texts", "setmetatable('', {})", Raised),
    ("an edit of the API", "patchbay.null = 1", Raised),
    (
        "an edit of the API's families",
        "patchbay.field.string = nil",
        Raised,
    ),
    (
        "an edit of a started field's metatable",
        "getmetatable(patchbay.field.string 'x').__call = nil",
        Raised,
    ),
    ("a new global", "leak = 1", Raised),
    ("a new global through _G", "_G.leak = 1", Raised),
    ("a new global by rawset", "rawset(_G, 'leak', 1)", Raised),
    ("another environment", "setfenv(1, {})", Raised),
    ("the environment", "getfenv(0)", Raised),
    (
        "a metatable for the globals",
        "setmetatable(_G, nil)",
        Raised,
    ),
    ("files", "return io.open('/etc/passwd')", Raised),
    ("processes", "return os.execute('true')", Raised),
    ("the clock", "return os.clock()", Raised),
    ("chance", "return math.random()", Raised),
    ("the collector", "return collectgarbage('count')", Raised),
    ("loading code", "return load('return 1')()", Raised),
    (
        "loading code by loadstring",
        "return loadstring('return 1')()",
        Raised,
    ),
    ("the debug library", "return debug.info(1, 's')", Raised),
    ("require in a hook", "return require '@lib/x'", Raised),
    (
        "an answer that contains itself",
        "local t = {} t[1] = t return t",
        Nonsense,
    ),
    (
        "an answer that is deep",
        "local t = {} for i = 1, 100 do t = { t } end return t",
        Nonsense,
    ),
    (
        "an answer that is huge",
        "return table.create(200000, 'x')",
        Nonsense,
    ),
    (
        "an answer that shares without end",
        "local t = { 'x' } for i = 1, 30 do t = { t, t } end return t",
        Nonsense,
    ),
    (
        "an answer that is long",
        "return table.create(50, string.rep('x', 100000))",
        Nonsense,
    ),
    (
        "an answer with a hole",
        "return { 'a', nil, 'c' }",
        Nonsense,
    ),
    (
        "an answer with a function",
        "return { function() end }",
        Nonsense,
    ),
    (
        "an answer that is a coroutine",
        "return coroutine.create(print)",
        Nonsense,
    ),
    (
        "an answer that is the db",
        "local _, _, db = ... return db",
        Nonsense,
    ),
    ("an answer with a NUL", "return '\\0'", Nonsense),
    ("an answer that is no text", "return '\\255'", Nonsense),
    ("an answer that is no number", "return 0/0", Nonsense),
    ("an error that is a table", "error({})", Raised),
    ("an error that is nothing", "error()", Raised),
    (
        "an error that is huge",
        "error(string.rep('x', 100000))",
        Raised,
    ),
    (
        "a flood of log lines",
        "for i = 1, 500 do print(i) end return nil",
        Ends,
    ),
];

async fn neighbour(sandbox: &Sandbox) -> Plugin {
    let text = with_hooks("ui_metadata = function(db) return { patchbay.ui.string 'a' } end");
    load(sandbox, single(&text)).await.expect("the neighbour")
}

async fn answers(neighbour: &Plugin) {
    let form = neighbour.ui_metadata(reader()).await.expect("a form");
    assert_eq!(form.elements.len(), 1);
}

fn hostile(body: &str) -> String {
    with_hooks(&format!("validate = function(...) {body} end"))
}

#[tokio::test]
async fn every_hostile_script_is_stopped_and_hurts_no_neighbour() {
    assert!(HOSTILE.len() >= 35);
    let sandbox = Sandbox::new(short());
    let neighbour = neighbour(&sandbox).await;
    let mut wrong = Vec::new();
    for (name, body, expected) in HOSTILE {
        let plugin = load(&sandbox, single(&hostile(body))).await.expect(name);
        let started = Instant::now();
        let result = plugin.validate(call(json!({ "a": "x" }))).await;
        let took = started.elapsed();
        if kind_of(&result) != Some(*expected) {
            wrong.push(format!("{name}: expected {expected:?}, got {result:?}"));
        }
        // Twice the deadline is for what runs between two looks at the clock, the rest for a busy machine.
        if took > Duration::from_secs(1) {
            wrong.push(format!("{name}: took {took:?}"));
        }
        if let Err(error) = &result {
            for report in error.reports() {
                assert!(
                    !report.message.contains("stack traceback"),
                    "{name}: {report}"
                );
                assert!(report.message.len() <= 4100, "{name}: {report}");
            }
        }
        answers(&neighbour).await;
        if *expected == Deadline {
            continue;
        }
        // The plugin itself goes on: the next call finds it as it was.
        let again = plugin.validate(call(json!({ "a": "x" }))).await;
        if kind_of(&again) != Some(*expected) {
            wrong.push(format!(
                "{name}, again: expected {expected:?}, got {again:?}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The same at the top level of a file, where loading is what fails.
#[tokio::test]
async fn a_hostile_top_level_fails_the_load_alone() {
    let sandbox = Sandbox::new(short());
    let neighbour = neighbour(&sandbox).await;
    for (name, text, expected) in [
        (
            "an endless loop",
            "while true do end",
            "ran longer than 200 ms",
        ),
        (
            "a memory hog",
            "local t = {} while true do t[#t + 1] = table.create(500, t) end",
            "needed more than 8192 KiB of memory",
        ),
        ("nothing", "", "expected a plugin: return patchbay.plugin"),
        (
            "a table that is no plugin",
            "return {}",
            "found a table that patchbay.plugin did not mark",
        ),
        ("bytecode", "\u{9}\u{1}\u{2}\u{3}", ""),
        (
            "a huge nest",
            &format!("return {}1{}", "(".repeat(20000), ")".repeat(20000)),
            "",
        ),
        (
            "a global",
            "leak = 1",
            "globals cannot be set: write \"local leak = …\"",
        ),
    ] {
        let error: LoadError = load(&sandbox, single(text)).await.expect_err(name);
        assert!(error.to_string().contains(expected), "{name}: {error}");
        answers(&neighbour).await;
    }
}

/// The files run ahead of a call as they ran when the plugin was loaded: nothing tells them apart, and nothing is held up.
#[tokio::test]
async fn files_that_look_for_another_thread_hold_nobody_up() {
    let sandbox = Sandbox::new(short());
    let neighbour = neighbour(&sandbox).await;
    let text = format!(
        "if not coroutine.isyieldable() then while true do end end\n{}",
        hostile("return { { message = tostring(coroutine.isyieldable()) } }")
    );
    let evil = load(&sandbox, single(&text)).await.expect("a plugin");
    let started = Instant::now();
    for _ in 0..20 {
        let errors = evil.validate(call(json!({}))).await.expect("an answer");
        assert_eq!(errors[0].message, "true");
        answers(&neighbour).await;
    }
    assert!(started.elapsed() < Duration::from_secs(1));
}

/// Files that yield, which running them ahead cannot wait for.
#[tokio::test]
async fn files_that_yield_are_run_in_the_call_alone() {
    let sandbox = Sandbox::new(short());
    let neighbour = neighbour(&sandbox).await;
    let text = format!("coroutine.yield()\n{}", hostile("return 'no'"));
    let plugin = load(&sandbox, single(&text)).await.expect("a plugin");
    for _ in 0..5 {
        let errors = plugin.validate(call(json!({}))).await.expect("an answer");
        assert_eq!(errors[0].message, "no");
        answers(&neighbour).await;
    }
}

/// How long the neighbour takes for an answer, half the time, while `evil` is called by forty at once: in calls of `evil` that
/// run alone, measured just before, because a busy machine makes both take longer.
async fn beside(sandbox: &Sandbox, body: &str) -> f64 {
    let neighbour = neighbour(sandbox).await;
    let evil = load(sandbox, single(&hostile(body))).await.expect("evil");
    let mut alone = Vec::new();
    for _ in 0..5 {
        let started = Instant::now();
        evil.validate(call(json!({})))
            .await
            .expect_err("a deadline");
        alone.push(started.elapsed());
    }
    let callers: Vec<_> = (0..40)
        .map(|_| {
            let evil = evil.clone();
            tokio::spawn(async move { while evil.validate(call(json!({}))).await.is_err() {} })
        })
        .collect();
    answers(&neighbour).await;
    let mut took = Vec::new();
    for _ in 0..15 {
        let started = Instant::now();
        answers(&neighbour).await;
        took.push(started.elapsed());
    }
    for caller in callers {
        caller.abort();
    }
    let median = |mut times: Vec<Duration>| {
        times.sort_unstable();
        times[times.len() / 2].as_secs_f64()
    };
    median(took) / median(alone)
}

#[tokio::test]
async fn a_hook_that_hands_over_costs_its_neighbour_a_few_slices() {
    let calls = beside(&Sandbox::new(short()), "while true do end").await;
    // A slice is two milliseconds, told by a clock that is good to four, and a call is stopped after eighty.
    assert!(calls < 0.5, "{calls} calls");
}

#[tokio::test]
async fn a_hook_that_hands_nothing_over_costs_its_neighbour_one_call() {
    let body = "coroutine.wrap(function() while true do end end)()";
    let calls = beside(&Sandbox::new(short()), body).await;
    assert!(calls < 3.0, "{calls} calls");
}
