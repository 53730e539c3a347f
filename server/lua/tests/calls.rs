//! What holds from call to call: nothing is kept, nothing is shared, nothing is lost.

mod common;

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use common::{Reader, call, catalogue, folder, load, map, reader, short, single, with_hooks};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};
use patchbay_lua::{
    API, CatalogueReader, ConfigurationFilter, Form, HookCall, HookError, Limits, NormalizeError,
    RenderCall, Sandbox,
};
use patchbay_plugin::Map;
use patchbay_plugin::catalogue::Catalogue;
use patchbay_plugin::name::PluginName;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

fn render(filled: &str) -> RenderCall {
    RenderCall {
        values: Map::new(),
        filled: filled.to_owned(),
        context: Default::default(),
    }
}

async fn rendered(plugin: &patchbay_lua::Plugin, filled: &str) -> Result<String, HookError> {
    plugin
        .render(vec![render(filled)])
        .await
        .pop()
        .expect("one answer")
}

#[tokio::test]
async fn nothing_is_kept_between_calls() {
    let plugin = r#"
        local rules = require "./rules"
        local count, seen = 0, {}
        local numbers = coroutine.wrap(function() local n = 0 while true do n += 1 coroutine.yield(n) end end)
        local letters = string.gmatch("abc", ".")
        local function counter() local n = 0 return function() n += 1 return n end end
        local next_number = counter()
        return patchbay.plugin { name = "X", render = function(_, filled)
            count += 1
            table.insert(seen, filled)
            return table.concat({ count, #seen, numbers(), letters(), next_number(), rules.count() }, " ")
        end }
    "#;
    let rules =
        "local n = 0\nlocal rules = {}\nfunction rules.count() n += 1 return n end\nreturn rules";
    let sandbox = Sandbox::new(short());
    let source = folder(&[("plugin.lua", plugin), ("rules.lua", rules)]);
    let plugin = load(&sandbox, source).await.expect("a plugin");
    for _ in 0..3 {
        assert_eq!(rendered(&plugin, "x").await.as_deref(), Ok("1 1 1 a 1 1"));
    }
    let both = plugin.render(vec![render("x"), render("y")]).await;
    assert_eq!(
        both,
        [Ok("1 1 1 a 1 1".to_owned()), Ok("1 1 1 a 1 1".to_owned())]
    );
}

/// Each way to keep something alone, called often enough that a run of the files is shared where that is safe.
#[tokio::test]
async fn nothing_is_kept_however_often_a_plugin_is_called() {
    let sandbox = Sandbox::new(short());
    for (top, body) in [
        ("local n = 0", "n += 1 return tostring(n)"),
        (
            "local kept = {}",
            "kept[#kept + 1] = 1 return tostring(#kept)",
        ),
        (
            "local inner = { n = 0 } local kept = table.freeze { inner }",
            "kept[1].n += 1 return tostring(inner.n)",
        ),
        (
            "local next = coroutine.wrap(function() for n = 1, 999 do coroutine.yield(n) end end)",
            "return tostring(next())",
        ),
        (
            "local next = string.gmatch(string.rep('1', 999), '%d')",
            "local n = next() return if next() then n else 'done'",
        ),
        (
            "local known = table.freeze { 1 }",
            "return tostring(#known)",
        ),
        ("", "return '1'"),
    ] {
        let text = format!(
            "{top}\nreturn patchbay.plugin {{ name = 'X', render = function() {body} end }}"
        );
        let plugin = load(&sandbox, single(&text)).await.expect("a plugin");
        for _ in 0..150 {
            assert_eq!(
                rendered(&plugin, "").await.as_deref(),
                Ok("1"),
                "{top} {body}"
            );
        }
    }
}

#[tokio::test]
async fn what_files_return_cannot_be_changed_by_a_hook() {
    let rules = "return { names = { 'a' } }";
    let sandbox = Sandbox::new(short());
    for body in ["rules.names[2] = 'b'", "plugin.examples[1].a = 'b'"] {
        let text = format!(
            "local rules, plugin = require './rules', nil\nplugin = {{ name = 'X', fields = {{ patchbay.field.string 'a' }},\nexamples = {{ {{ a = 'a' }} }}, render = function() {body} end }}\nreturn patchbay.plugin(plugin)"
        );
        let source = folder(&[("plugin.lua", &text), ("rules.lua", rules)]);
        let plugin = load(&sandbox, source).await.expect("a plugin");
        for _ in 0..100 {
            let error = rendered(&plugin, "").await.expect_err("a change");
            assert!(
                error
                    .to_string()
                    .contains("attempt to modify a readonly table"),
                "{error}"
            );
        }
    }
}

#[tokio::test]
async fn a_module_is_run_once_and_cannot_be_changed_by_another_file() {
    let plugin = "local a, b = require './a', require './a'\nassert(a == b)\na.x = 2\nreturn patchbay.plugin { name = 'X' }";
    let sandbox = Sandbox::new(short());
    let source = folder(&[("plugin.lua", plugin), ("a.lua", "return { x = 1 }")]);
    let error = load(&sandbox, source).await.expect_err("a change");
    assert_eq!(
        error.to_string(),
        "lua-plugins/x/plugin.lua:3: attempt to modify a readonly table"
    );
}

#[tokio::test]
async fn exactly_the_listed_names_can_be_reached() {
    let text = r#"
        return patchbay.plugin { name = "X", render = function()
            local names, open = {}, {}
            local function walk(prefix, t)
                if open[t] then return end
                open[t] = true
                assert(table.isfrozen(t), prefix)
                for name, value in next, t do
                    local path = prefix .. name
                    if type(value) == "table" and value ~= _G then walk(path .. ".", value) else names[#names + 1] = path end
                end
            end
            walk("", _G)
            return table.concat(names, " ")
        end }
    "#;
    let sandbox = Sandbox::new(short());
    let plugin = load(&sandbox, single(text)).await.expect("a plugin");
    let found = rendered(&plugin, "").await.expect("the names");
    let found: BTreeSet<&str> = found.split(' ').collect();
    let listed: BTreeSet<&str> = API.iter().map(|entry| entry.path).collect();
    assert_eq!(found, listed);
    assert_eq!(listed.len(), API.len(), "a name is listed twice");
    for entry in API
        .iter()
        .filter(|entry| entry.path.starts_with("patchbay."))
    {
        assert!(
            !entry.doc.is_empty() && !entry.signature.is_empty(),
            "{entry:?}"
        );
    }
}

#[tokio::test]
async fn json_that_a_hook_leaves_alone_keeps_every_byte() {
    let text = r#"
        local field = patchbay.field
        return patchbay.plugin { name = "XDataOutput", fields = { field.json "j", field.string "a" },
          normalize = function(configuration)
            if configuration.a == "change" then
                configuration.j.deep.x = configuration.j.deep.x + 1
                configuration.j.list[2] = patchbay.null
                configuration.j.new = { b = 1, a = patchbay.null }
            elseif configuration.a == "drop" then
                configuration.j = patchbay.null
            elseif configuration.a == "nulls" then
                assert(configuration.j.null == nil)
                assert(configuration.j.list[2] == patchbay.null and #configuration.j.list == 3)
            end
            return configuration
          end }
    "#;
    let sandbox = Sandbox::new(short());
    let plugin = load(&sandbox, single(text)).await.expect("a plugin");
    let json_text = r#"{"z":1.10,"big":12345678901234567890,"huge":1e+400,"null":null,"list":[1.0,null,{}],"empty":[],"none":{},"deep":{"x":1,"y":null,"w":0.1000}}"#;
    let j: Value = serde_json::from_str(json_text).expect("JSON");
    let normalize = async |a: &str| {
        let values = json!({ "j": j.clone(), "a": a });
        plugin.normalize(call(values)).await.expect("values")
    };
    for a in ["leave", "nulls"] {
        assert_eq!(normalize(a).await["j"].to_string(), json_text);
    }
    assert_eq!(
        normalize("change").await["j"].to_string(),
        r#"{"z":1.10,"big":12345678901234567890,"huge":1e+400,"null":null,"list":[1.0,null,{}],"empty":[],"none":{},"deep":{"x":2,"y":null,"w":0.1000},"new":{"a":null,"b":1}}"#
    );
    assert_eq!(normalize("drop").await["j"], Value::Null);
}

#[tokio::test]
async fn a_form_without_its_options_is_not_configured() {
    let sandbox = Sandbox::new(short());
    let hook = |body: &str| with_hooks(&format!("ui_metadata = function(db) {body} end"));
    let form = |body: &str| {
        let (sandbox, source) = (sandbox.clone(), single(&hook(body)));
        async move {
            let plugin = load(&sandbox, source).await.expect("a plugin");
            plugin.ui_metadata(reader()).await
        }
    };
    let unset = form("return { patchbay.ui.select 'a' { options = db:platform_options() } }").await;
    assert!(
        matches!(unset, Ok(Form { not_configured: true, elements, reads }) if elements.is_empty() && reads.catalogue)
    );
    let unset = form("local ok, message = pcall(db.platform_options, db) error(message)").await;
    assert!(matches!(
        unset,
        Ok(Form {
            not_configured: true,
            ..
        })
    ));
    let swallowed = form("pcall(function() db:platform_options() end) return {}").await;
    assert!(matches!(
        swallowed,
        Ok(Form {
            not_configured: false,
            ..
        })
    ));
    let other =
        form("return { patchbay.ui.select 'a' { options = db:platform_options 'snowflake' } }")
            .await;
    assert_eq!(other.expect("a form").elements.len(), 1);
    let unknown = form("return db:platform_option()")
        .await
        .expect_err("a slip");
    assert!(
        unknown
            .to_string()
            .contains("db has no \"platform_option\" (did you mean \"platform_options\"?)")
    );
}

#[tokio::test]
async fn db_answers_only_in_its_call_and_only_in_the_hook_itself() {
    let sandbox = Sandbox::new(short());
    let text = with_hooks(
        r#"validate = function(configuration, context, db)
            if configuration.a == "coroutine" then
                return coroutine.wrap(function() return db:configurations() end)()
            end
            local rows = db:configurations { data_product_id = context.data_product.id, a = "x", limit = 7 }
            return { rows[1].plugin .. " " .. rows[1].limit .. " " .. #db:environments() }
        end"#,
    );
    let plugin = load(&sandbox, single(&text)).await.expect("a plugin");
    let rows: Arc<dyn CatalogueReader> = Arc::new(Reader {
        catalogue: Arc::new(catalogue()),
        rows: Ok(vec![Map::new()]),
    });
    let with_rows = |a: &str| HookCall {
        reader: rows.clone(),
        ..call(json!({ "a": a }))
    };
    let errors = plugin.validate(with_rows("x")).await.expect("rows");
    assert_eq!(errors[0].message, "XDataOutput 7 2");
    let error = plugin
        .validate(with_rows("coroutine"))
        .await
        .expect_err("a coroutine");
    assert!(
        error
            .to_string()
            .contains("a coroutine of the plugin's own cannot"),
        "{error}"
    );
    let failing = HookCall {
        reader: Arc::new(Reader {
            catalogue: Arc::new(catalogue()),
            rows: Err("the database is away".to_owned()),
        }),
        ..call(json!({ "a": "x" }))
    };
    let unavailable = plugin.validate(failing).await;
    assert_eq!(
        unavailable,
        Err(HookError::Unavailable("the database is away".to_owned()))
    );
}

/// A reader whose rows come when the test says so.
struct Held {
    asked: Arc<AtomicUsize>,
    gate: Arc<Semaphore>,
}

impl CatalogueReader for Held {
    fn catalogue(&self) -> Arc<Catalogue> {
        Arc::new(catalogue())
    }

    fn configurations(
        &self,
        _: PluginName,
        _: ConfigurationFilter,
    ) -> BoxFuture<'static, Result<Vec<Map>, String>> {
        let (asked, gate) = (self.asked.clone(), self.gate.clone());
        async move {
            asked.fetch_add(1, Ordering::SeqCst);
            let _ = gate.acquire().await;
            Ok(Vec::new())
        }
        .boxed()
    }
}

fn held() -> (Arc<dyn CatalogueReader>, Arc<AtomicUsize>, Arc<Semaphore>) {
    let (asked, gate) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
    let reader = Held {
        asked: asked.clone(),
        gate: gate.clone(),
    };
    (Arc::new(reader), asked, gate)
}

const WAITS: &str = r#"validate = function(configuration, context, db)
    if configuration.a == "loop" then while true do end end
    if configuration.a == "hog" then local t = {} while true do t[#t + 1] = table.create(1000, 1) end end
    db:configurations()
    return { configuration.a }
end"#;

#[tokio::test]
async fn calls_wait_side_by_side_and_too_many_are_refused() {
    let sandbox = Sandbox::new(Limits {
        waiting: 5,
        ..short()
    });
    let plugin = load(&sandbox, single(&with_hooks(WAITS)))
        .await
        .expect("a plugin");
    let (reader, asked, gate) = held();
    let waiting: Vec<_> = (0..100)
        .map(|place| {
            let (plugin, reader) = (plugin.clone(), reader.clone());
            tokio::spawn(async move {
                let call = HookCall {
                    reader,
                    ..call(json!({ "a": place.to_string() }))
                };
                (place, plugin.validate(call).await)
            })
        })
        .collect();
    // As many as run side by side have asked, the next five wait, and the rest has been refused.
    let mut refused = 0;
    let mut rest = Vec::new();
    for task in waiting {
        rest.push(task);
    }
    while asked.load(Ordering::SeqCst) < 64 && refused == 0 {
        refused = rest.iter().filter(|task| task.is_finished()).count();
        tokio::task::yield_now().await;
    }
    gate.add_permits(1000);
    let mut answered = 0;
    for (place, result) in join_all(rest)
        .await
        .into_iter()
        .map(|task| task.expect("a task"))
    {
        match result {
            Ok(errors) => {
                assert_eq!(errors[0].message, place.to_string());
                answered += 1;
            }
            Err(HookError::Busy) => {}
            Err(other) => panic!("{other}"),
        }
    }
    assert!((5..100).contains(&answered), "{answered}");
}

/// A call that runs over takes the VM with it; those that waited in it run once more, on a new one.
#[tokio::test]
async fn calls_that_shared_a_spoilt_vm_are_answered_all_the_same() {
    for (bad, is_expected) in [
        (
            "loop",
            (|error: &HookError| matches!(error, HookError::Deadline(_))) as fn(&HookError) -> bool,
        ),
        ("hog", |error| matches!(error, HookError::Memory(_))),
    ] {
        let sandbox = Sandbox::new(short());
        let plugin = load(&sandbox, single(&with_hooks(WAITS)))
            .await
            .expect("a plugin");
        let (reader, asked, gate) = held();
        let waiting: Vec<_> = (0..5)
            .map(|place| {
                let (plugin, reader) = (plugin.clone(), reader.clone());
                tokio::spawn(async move {
                    let call = HookCall {
                        reader,
                        ..call(json!({ "a": place.to_string() }))
                    };
                    plugin.validate(call).await
                })
            })
            .collect();
        while asked.load(Ordering::SeqCst) < 5 {
            tokio::task::yield_now().await;
        }
        let error = {
            // The others are alone with the VM in turn, and the first of them waits for its rows.
            let bad = plugin.validate(call(json!({ "a": bad })));
            gate.add_permits(1000);
            bad.await.expect_err("a limit")
        };
        assert!(is_expected(&error), "{bad}: {error:?}");
        for (place, task) in waiting.into_iter().enumerate() {
            let errors = task.await.expect("a task").expect("an answer");
            assert_eq!(errors[0].message, place.to_string());
        }
    }
}

/// Takes longer than a slice to begin reading rows, and has them one wake later.
struct Hesitant;

impl CatalogueReader for Hesitant {
    fn catalogue(&self) -> Arc<Catalogue> {
        Arc::default()
    }

    fn configurations(
        &self,
        _: PluginName,
        _: ConfigurationFilter,
    ) -> BoxFuture<'static, Result<Vec<Map>, String>> {
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(20) {
            std::hint::spin_loop();
        }
        let mut asked = false;
        poll_fn(move |context| {
            if asked {
                return Poll::Ready(Ok(vec![Map::new()]));
            }
            asked = true;
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .boxed()
    }
}

#[tokio::test]
async fn a_call_whose_slice_ends_while_it_waits_is_woken_all_the_same() {
    let hooks =
        "validate = function(_, _, db) return #db:configurations() == 1 and {} or \"no rows\" end";
    let limits = Limits {
        wall: Duration::from_secs(600),
        ..short()
    };
    let sandbox = Sandbox::new(limits);
    let plugin = load(&sandbox, single(&with_hooks(hooks)))
        .await
        .expect("a plugin");
    let call = HookCall {
        reader: Arc::new(Hesitant),
        ..call(json!({"a": "x"}))
    };
    let answer = tokio::time::timeout(Duration::from_secs(60), plugin.validate(call))
        .await
        .expect("an answer, long before the wall clock is up");
    assert_eq!(answer, Ok(Vec::new()));
}

#[tokio::test]
async fn a_call_that_waits_too_long_is_given_up() {
    let sandbox = Sandbox::new(Limits {
        wall: Duration::from_millis(50),
        ..short()
    });
    let plugin = load(&sandbox, single(&with_hooks(WAITS)))
        .await
        .expect("a plugin");
    let (reader, _, _gate) = held();
    let call = HookCall {
        reader,
        ..call(json!({ "a": "x" }))
    };
    let error = plugin.validate(call).await.expect_err("a wait");
    assert!(
        matches!(&error, HookError::Deadline(report) if report.message == "it waited longer than 50 ms"),
        "{error:?}"
    );
}

#[tokio::test]
async fn an_idle_vm_is_dropped_and_built_again_from_the_same_code() {
    let sandbox = Sandbox::new(Limits {
        idle: Duration::ZERO,
        ..short()
    });
    let plugin = load(
        &sandbox,
        single(&with_hooks(
            "render = function(_, filled) return filled .. '!' end",
        )),
    )
    .await
    .expect("a plugin");
    for _ in 0..3 {
        assert_eq!(rendered(&plugin, "x").await.as_deref(), Ok("x!"));
    }
}

#[tokio::test]
async fn one_of_many_renders_may_fail_alone() {
    let sandbox = Sandbox::new(short());
    let text = with_hooks(
        "render = function(_, filled) if filled == 'loop' then while true do end end if filled == 'raise' then error('no') end return filled end",
    );
    let plugin = load(&sandbox, single(&text)).await.expect("a plugin");
    let answers = plugin
        .render(["a", "loop", "b", "raise", "c"].map(render).into())
        .await;
    let shown: Vec<String> = answers
        .iter()
        .map(|answer| match answer {
            Ok(text) => text.clone(),
            Err(HookError::Deadline(_)) => "deadline".to_owned(),
            Err(HookError::Raised(report)) => report.message.clone(),
            Err(other) => format!("{other:?}"),
        })
        .collect();
    assert_eq!(shown, ["a", "deadline", "b", "no", "c"]);
}

/// Comparing long texts in a straight line: no loop, no call, so the interrupt is not polled, and no native to bound.
#[tokio::test]
async fn a_thread_that_is_stuck_is_replaced() {
    let sandbox = Sandbox::new(short());
    let text = with_hooks(&format!(
        "validate = function(configuration)\nif configuration.a == 'fine' then return nil end\nlocal a = string.rep('x', 1500000)\nlocal b, c, x = a .. '1', a .. '2', nil\n{}\nreturn nil end",
        "x=b<c ".repeat(30000)
    ));
    let culprit = load(&sandbox, single(&text)).await.expect("a plugin");
    let neighbour = load(&sandbox, single(&with_hooks(WAITS)))
        .await
        .expect("its neighbour");
    // The neighbour has a call in flight and asks again while the thread is stuck.
    let (reader, asked, gate) = held();
    let waiting = {
        let neighbour = neighbour.clone();
        tokio::spawn(async move {
            let call = HookCall {
                reader,
                ..call(json!({ "a": "first" }))
            };
            neighbour.validate(call).await
        })
    };
    while asked.load(Ordering::SeqCst) < 1 {
        tokio::task::yield_now().await;
    }
    gate.add_permits(1000);
    let (stuck, second) = tokio::join!(
        culprit.validate(call(json!({ "a": "x" }))),
        neighbour.validate(call(json!({ "a": "second" })))
    );
    assert!(matches!(stuck, Err(HookError::Stuck(_))), "{stuck:?}");
    assert_eq!(second.expect("an answer")[0].message, "second");
    let first = waiting.await.expect("a task").expect("an answer");
    assert_eq!(first[0].message, "first");
    // Until the thread comes back the plugin is not called again, so it can hold up one thread at most.
    let again = culprit.validate(call(json!({ "a": "fine" }))).await;
    assert!(
        matches!(again, Err(HookError::Stuck(_)) | Ok(_)),
        "{again:?}"
    );
    loop {
        match culprit.validate(call(json!({ "a": "fine" }))).await {
            Ok(errors) => break assert!(errors.is_empty()),
            Err(HookError::Stuck(_)) => tokio::task::yield_now().await,
            Err(other) => panic!("{other}"),
        }
    }
}

#[tokio::test]
async fn texts_and_templates_are_filled_and_encoded() {
    let sandbox = Sandbox::new(short());
    let text = with_hooks(
        r#"normalize = function(configuration, context)
            configuration.a = patchbay.fill("{a}/{b}/{{}}/{flag}", configuration, { b = "{a}", flag = true })
            assert(context.technical_mapping == "default" and context.settings.org == "acme")
            assert(not pcall(function() context.settings.org = "x" end))
            assert(patchbay.url_encode("a b/é~") == "a%20b%2F%C3%A9~")
            assert(tostring({}) == "table" and tostring(patchbay.null) == "null" and `{print}` == "function")
            assert(patchbay.version ~= "")
            local ok, message = pcall(patchbay.fill, "{missing}", {})
            assert(not ok)
            return configuration
        end,
        url = function(context)
            if context.environment == nil then return nil, patchbay.bad_request "Environment is required" end
            return nil, patchbay.not_found(context.environment.entry.identifier)
        end"#,
    );
    let settings = Arc::new(|_: &PluginName, _: &[_]| Ok(map(json!({ "org": "acme" }))));
    let plugin = sandbox
        .load(single(&text), settings)
        .await
        .expect("a plugin");
    let values = plugin
        .normalize(call(json!({ "a": "x" })))
        .await
        .expect("values");
    assert_eq!(values["a"], "x/{a}/{{}}/true");
    let mut with_environment = call(json!({}));
    let refused = plugin
        .url(call(json!({})))
        .await
        .expect_err("no environment");
    assert_eq!(refused.to_string(), "Environment is required");
    with_environment.context.environment = catalogue().environments.pop();
    with_environment.context.entry = Some(json!({ "identifier": "x" }));
    let refused = plugin
        .url(with_environment)
        .await
        .expect_err("nothing there");
    assert_eq!(refused.to_string(), "x");
}

#[tokio::test]
async fn errors_come_in_every_shape_and_name_fields() {
    let sandbox = Sandbox::new(short());
    for (returned, expected) in [
        ("nil", Ok(vec![])),
        ("{}", Ok(vec![])),
        ("'wrong'", Ok(vec![(None, "wrong")])),
        (
            "{ field = 'a', message = 'wrong' }",
            Ok(vec![(Some("a"), "wrong")]),
        ),
        (
            "{ 'one', { message = 'two' } }",
            Ok(vec![(None, "one"), (None, "two")]),
        ),
        ("true", Err(())),
        ("{ field = 'A', message = 'x' }", Err(())),
    ] {
        let text = with_hooks(&format!(
            "validate = function() return {returned} end, normalize = function() return nil, {returned} end"
        ));
        let plugin = load(&sandbox, single(&text)).await.expect("a plugin");
        let found = plugin.validate(call(json!({}))).await;
        let shown = found.as_ref().map(|errors| {
            let pair =
                |error: &patchbay_lua::FieldError| (error.field.clone(), error.message.clone());
            errors.iter().map(pair).collect::<Vec<_>>()
        });
        match &expected {
            Ok(errors) => {
                let wanted: Vec<_> = errors
                    .iter()
                    .map(|(field, message)| (field.map(str::to_owned), (*message).to_owned()))
                    .collect();
                assert_eq!(shown.expect(returned), wanted, "{returned}");
            }
            Err(()) => assert!(matches!(found, Err(HookError::Nonsense(_))), "{returned}"),
        }
        let rejected = plugin.normalize(call(json!({}))).await;
        match expected {
            Ok(errors) if !errors.is_empty() => {
                assert!(
                    matches!(rejected, Err(NormalizeError::Rejected(_))),
                    "{returned}"
                );
            }
            _ => assert!(
                matches!(rejected, Err(NormalizeError::Hook(HookError::Nonsense(_)))),
                "{returned}"
            ),
        }
    }
}

#[tokio::test]
async fn written_migrations_become_operations() {
    let source = folder(&[
        (
            "plugin.lua",
            "return patchbay.plugin { name = \"XDataOutput\", fields = { patchbay.field.string \"a\" } }",
        ),
        (
            "migrations/0002_more.lua",
            "return { up = function(m) m:add_column('x_data_output_configurations', patchbay.column.text 'b') end, down = function(m) m:drop_column('x_data_output_configurations', 'b') end }",
        ),
        (
            "migrations/0001_create_table.lua",
            "local column = patchbay.column return { up = function(m) m:create_table('x_data_output_configurations', { column.id(), column.text 'a' { nullable = true } }) end }",
        ),
        ("migrations/README.md", "not a migration"),
    ]);
    let sandbox = Sandbox::new(short());
    let plugin = load(&sandbox, source).await.expect("a plugin");
    let migrations = &plugin.definition().migrations;
    let ids: Vec<&str> = migrations
        .iter()
        .map(|migration| migration.id.as_str())
        .collect();
    assert_eq!(ids, ["0001_create_table", "0002_more"]);
    assert_eq!(
        migrations[0].path.as_deref(),
        Some("migrations/0001_create_table.lua")
    );
    assert!(migrations[0].down.is_none() && migrations[1].down.is_some());
    assert_eq!(
        serde_json::to_string(&migrations[0].up).expect("JSON"),
        r#"[{"create_table":{"table":"x_data_output_configurations","columns":[{"name":"id","type":"uuid","nullable":false,"primary_key":true,"references":{"table":"data_output_configurations","column":"id","cascade":true}},{"name":"a","type":"text","nullable":true}]}}]"#
    );
}

#[tokio::test]
async fn a_plugin_outlives_the_handle_of_its_sandbox() {
    let plugin = {
        let sandbox = Sandbox::new(short());
        load(
            &sandbox,
            single(&with_hooks(
                "render = function(_, filled) return filled end",
            )),
        )
        .await
        .expect("a plugin")
    };
    assert_eq!(rendered(&plugin, "x").await.as_deref(), Ok("x"));
}

#[tokio::test]
async fn many_keys_are_read_in_time() {
    let sandbox = Sandbox::new(patchbay_lua::Limits::default());
    let text = with_hooks(
        "normalize = function(configuration) configuration.new = 1 return configuration end",
    );
    let plugin = load(&sandbox, single(&text)).await.expect("a plugin");
    // In reverse, so that each is the last to be found.
    let values: Map = (0..20_000)
        .rev()
        .map(|place| (format!("key_{place}"), json!(place)))
        .collect();
    let started = std::time::Instant::now();
    let normalized = plugin
        .normalize(call(Value::Object(values)))
        .await
        .expect("a configuration");
    assert_eq!(normalized.len(), 20_001);
    assert!(started.elapsed() < Duration::from_secs(1));
}
