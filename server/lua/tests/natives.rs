//! The natives of Luau and their worst cases. The interrupt is not polled inside most of them, so each must be quick by
//! itself: called with the largest arguments that the memory limit allows, again and again, it is stopped soon after
//! its deadline, and the watchdog is not needed.

mod common;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use common::{call, load, single, with_hooks};
use patchbay_lua::{API, HookError, Limits, Sandbox};
use serde_json::json;

/// What the scripts share: the largest texts and lists that fit into the memory limit beside one another.
const PRELUDE: &str = r#"
local function all() return true end
local function long(unit) local s = unit .. unit while #s < 3000000 do s = s .. s end return s end
local a = long "a"
local list = table.create(400000, 1)
local texts = table.create(400000, "")
local address = a .. "1"
"#;

/// A native, and a call of it at its worst.
const WORST: &[(&str, &str)] = &[
    ("assert", "assert(true, a)"),
    ("error", "pcall(error, a, 1)"),
    ("getmetatable", "getmetatable(a)"),
    ("ipairs", "for _ in ipairs(list) do end"),
    ("next", "next(list, #list)"),
    ("pairs", "for _ in pairs(list) do end"),
    ("pcall", "pcall(string.lower, a)"),
    ("rawequal", "rawequal(a, address)"),
    ("rawget", "rawget(list, a)"),
    ("rawlen", "rawlen(list)"),
    ("rawset", "rawset({}, a, a)"),
    ("select", "select('#', table.unpack(list, 1, 100000))"),
    ("setmetatable", "setmetatable({}, {})"),
    (
        "tonumber",
        "tonumber(string.rep('9', 3000000)) tonumber('0.' .. string.rep('0', 3000000) .. '1') tonumber(string.rep('1', 3000000), 2)",
    ),
    (
        "tostring",
        "tostring(setmetatable({}, { __tostring = function() return a end }))",
    ),
    ("type", "type(a)"),
    ("typeof", "typeof(a)"),
    ("xpcall", "xpcall(error, string.lower, a)"),
    ("bit32.arshift", "bit32.arshift(1, 31)"),
    ("bit32.band", "bit32.band(table.unpack(list, 1, 100000))"),
    ("bit32.bnot", "bit32.bnot(1)"),
    ("bit32.bor", "bit32.bor(table.unpack(list, 1, 100000))"),
    ("bit32.btest", "bit32.btest(table.unpack(list, 1, 100000))"),
    ("bit32.bxor", "bit32.bxor(table.unpack(list, 1, 100000))"),
    ("bit32.byteswap", "bit32.byteswap(1)"),
    ("bit32.countlz", "bit32.countlz(1)"),
    ("bit32.countrz", "bit32.countrz(1)"),
    ("bit32.extract", "bit32.extract(1, 0, 32)"),
    ("bit32.lrotate", "bit32.lrotate(1, 2^53)"),
    ("bit32.lshift", "bit32.lshift(1, 31)"),
    ("bit32.replace", "bit32.replace(1, 1, 0, 32)"),
    ("bit32.rrotate", "bit32.rrotate(1, 2^53)"),
    ("bit32.rshift", "bit32.rshift(1, 31)"),
    ("coroutine.close", "coroutine.close(coroutine.create(all))"),
    ("coroutine.create", "coroutine.create(all)"),
    ("coroutine.isyieldable", "coroutine.isyieldable()"),
    (
        "coroutine.resume",
        "coroutine.resume(coroutine.create(all), table.unpack(list, 1, 100000))",
    ),
    ("coroutine.running", "coroutine.running()"),
    (
        "coroutine.status",
        "coroutine.status(coroutine.create(all))",
    ),
    ("coroutine.wrap", "coroutine.wrap(string.lower)(a)"),
    (
        "coroutine.yield",
        "coroutine.yield(table.unpack(list, 1, 100000))",
    ),
    ("math.abs", "math.abs(-1)"),
    ("math.acos", "math.acos(1)"),
    ("math.asin", "math.asin(1)"),
    ("math.atan", "math.atan(1)"),
    ("math.atan2", "math.atan2(1, 1)"),
    ("math.ceil", "math.ceil(1.5)"),
    ("math.clamp", "math.clamp(1, 0, 2)"),
    ("math.cos", "math.cos(1e308)"),
    ("math.cosh", "math.cosh(1)"),
    ("math.deg", "math.deg(1)"),
    ("math.exp", "math.exp(1)"),
    ("math.floor", "math.floor(1.5)"),
    ("math.fmod", "math.fmod(1e308, 5e-324)"),
    ("math.frexp", "math.frexp(5e-324)"),
    ("math.ldexp", "math.ldexp(1, 2^30)"),
    ("math.lerp", "math.lerp(0, 1, 0.5)"),
    ("math.log", "math.log(5e-324, 2)"),
    ("math.log10", "math.log10(5e-324)"),
    ("math.map", "math.map(1, 0, 2, 0, 4)"),
    ("math.max", "math.max(table.unpack(list, 1, 100000))"),
    ("math.min", "math.min(table.unpack(list, 1, 100000))"),
    ("math.modf", "math.modf(1.5)"),
    ("math.pow", "math.pow(1.0000001, 1e300)"),
    ("math.rad", "math.rad(1)"),
    ("math.round", "math.round(1.5)"),
    ("math.sign", "math.sign(1)"),
    ("math.sin", "math.sin(1e308)"),
    ("math.sinh", "math.sinh(1)"),
    ("math.sqrt", "math.sqrt(2)"),
    ("math.tan", "math.tan(1e308)"),
    ("math.tanh", "math.tanh(1)"),
    ("string.byte", "string.byte(a, 1, 100000)"),
    ("string.char", "string.char(table.unpack(list, 1, 100000))"),
    (
        "string.find",
        "string.find(a, string.rep('a', 80) .. 'b', 1, true) string.find(a, '[bcd]*') string.find(a, 'a*b')",
    ),
    (
        "string.format",
        "string.format(string.rep('%99.99f', 9000), table.unpack(table.create(9000, 1e308))) string.format(string.rep('%.1e', 10000), table.unpack(table.create(10000, 5e-324))) string.format('%q', a)",
    ),
    ("string.gmatch", "for _ in string.gmatch(a, 'a*b') do end"),
    (
        "string.gsub",
        "string.gsub(a, 'a', 'aaa') string.gsub(a, '.', { a = a }) string.gsub(a, 'a*b', '')",
    ),
    ("string.len", "string.len(a)"),
    ("string.lower", "string.lower(a)"),
    (
        "string.match",
        "string.match(a, '(a*)%1b') string.match(a, '[^x-z]*b') string.match(string.rep('(', 3000000), '%b()')",
    ),
    (
        "string.rep",
        "string.rep('x', 8000000) string.rep('', 2^31 - 1)",
    ),
    ("string.reverse", "string.reverse(a)"),
    (
        "string.split",
        "string.split(a, string.rep('a', 80) .. 'b') string.split(string.rep('a', 500000), '')",
    ),
    ("string.sub", "string.sub(a, 2)"),
    ("string.upper", "string.upper(a)"),
    ("table.clear", "table.clear(table.clone(list))"),
    ("table.clone", "table.clone(list)"),
    ("table.concat", "table.concat(texts) table.concat(list)"),
    ("table.create", "table.create(1000000, 1)"),
    ("table.find", "table.find(list, 2)"),
    ("table.freeze", "table.freeze(table.clone(list))"),
    (
        "table.insert",
        "for _ = 1, 1000 do table.insert(list, 1, 1) table.remove(list) end",
    ),
    ("table.isfrozen", "table.isfrozen(list)"),
    (
        "table.move",
        "table.move(list, 1, #list, 2) table.move({}, 1, 999999, 5, {})",
    ),
    ("table.pack", "table.pack(table.unpack(list, 1, 100000))"),
    (
        "table.remove",
        "for _ = 1, 1000 do table.remove(list, 1) list[#list + 1] = 1 end",
    ),
    (
        "table.sort",
        "table.sort({ a .. '1', a .. '2', a .. '3', a .. '1', a .. '2' }) table.sort(table.create(100000, a), string.lower)",
    ),
    ("table.unpack", "table.unpack(list, 1, 900000)"),
    (
        "utf8.char",
        "utf8.char(table.unpack(table.create(100000, 0x10FFFF)))",
    ),
    ("utf8.codepoint", "utf8.codepoint(a, 1, 100000)"),
    ("utf8.codes", "for _ in utf8.codes(a) do end"),
    ("utf8.len", "utf8.len(a)"),
    ("utf8.offset", "utf8.offset(a, #a)"),
];

/// What a call may take beyond its deadline: one native at its worst, on a machine that does other things too.
const SLACK: Duration = Duration::from_millis(700);

#[tokio::test]
async fn every_native_at_its_worst_is_stopped_without_the_watchdog() {
    let limits = Limits {
        threads: 1,
        deadline: Duration::from_millis(30),
        // So long that the watchdog has no part in it.
        load_deadline: Duration::from_secs(60),
        ..Limits::default()
    };
    let allowed = limits.deadline + SLACK;
    let sandbox = Sandbox::new(limits);
    let mut wrong = Vec::new();
    for (name, worst) in WORST {
        // The data is made at the top level, which has a deadline of its own.
        let body = with_hooks(&format!(
            "validate = function() while true do {worst} end end"
        ));
        let plugin = load(&sandbox, single(&format!("{PRELUDE}{body}")))
            .await
            .expect(name);
        // The first call starts from the VM of the load, with its garbage; measured is the second.
        let started = Instant::now();
        let result = plugin.validate(call(json!({}))).await;
        let took = started.elapsed();
        match result {
            Err(HookError::Deadline(_) | HookError::Memory(_) | HookError::Raised(_)) => {}
            other => wrong.push(format!("{name}: {other:?}")),
        }
        if took > allowed {
            wrong.push(format!("{name}: took {took:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_native_has_its_worst_case() {
    let natives: BTreeSet<&str> = API
        .iter()
        .filter(|entry| entry.doc.is_empty() && entry.signature.contains("->"))
        .map(|entry| entry.path)
        .collect();
    let tried: BTreeSet<&str> = WORST.iter().map(|(name, _)| *name).collect();
    let missing: Vec<_> = natives.difference(&tried).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
