//! Many rows judged in one call, each as if it were alone.

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{call, load, reader, short, single, with_hooks};
use patchbay_lua::{
    HookContext, HookError, Incoming, Plugin, RowCall, RowsCall, Sandbox, Unadmitted,
};
use patchbay_plugin::Map;
use patchbay_plugin::configuration::{DataProduct, TechnicalMapping};
use patchbay_plugin::validation::Loc;
use serde_json::json;
use uuid::Uuid;

type Answers = Vec<Option<Result<Option<Map>, Unadmitted>>>;

fn row(a: &str, namespace: &str, from: Option<&str>) -> RowCall {
    RowCall {
        values: Map::from_iter([("a".to_owned(), json!(a))]),
        from_version: from.map(Arc::from),
        data_product: Arc::new(DataProduct {
            id: Uuid::nil(),
            name: namespace.to_owned(),
            namespace: namespace.to_owned(),
            domain: "d".to_owned(),
        }),
        technical_mapping: match namespace {
            "custom" => TechnicalMapping::Custom,
            _ => TechnicalMapping::Default,
        },
    }
}

async fn judge(plugin: &Plugin, rows: Vec<RowCall>, time: Duration) -> Answers {
    let call = RowsCall {
        rows,
        reader: reader(),
        until: Instant::now() + time,
        room: usize::MAX,
    };
    plugin.judge_rows(call).await
}

const LONG: Duration = Duration::from_secs(60);

/// What became of each row, in a word.
fn words(answers: &Answers) -> Vec<String> {
    answers
        .iter()
        .map(|answer| match answer {
            None => "no time".to_owned(),
            Some(Ok(None)) => "fine".to_owned(),
            Some(Ok(Some(values))) => serde_json::to_string(values).expect("JSON"),
            Some(Err(Unadmitted::Invalid(errors))) => format!("invalid: {}", errors[0].msg),
            Some(Err(Unadmitted::Slip(errors))) => format!("slip: {}", errors[0].msg),
            Some(Err(Unadmitted::Rejected { errors, .. })) => {
                format!("rejected: {}", errors[0].message)
            }
            Some(Err(Unadmitted::Hook(HookError::Raised(report)))) => {
                format!("raised: {}: {}", report.hook.unwrap_or("?"), report.message)
            }
            Some(Err(Unadmitted::Hook(HookError::Deadline(_)))) => "late".to_owned(),
            Some(Err(Unadmitted::Hook(other))) => format!("failed: {other}"),
        })
        .collect()
}

#[tokio::test]
async fn rows_are_judged_as_when_they_are_written() {
    let sandbox = Sandbox::new(short());
    let hooks = r#"
      normalize = function(configuration)
        if configuration.a == "none" then return nil, "none" end
        if configuration.a == "slip" then configuration.a = 5 end
        if configuration.a == "raise" then error("no") end
        while configuration.a == "loop" do end
        if configuration.a == "A" then configuration.a = "a" end
        return configuration
      end,
      validate = function(configuration, context)
        if configuration.a ~= "a" and context.data_product.namespace ~= "fine" then
          return { { field = "a", message = configuration.a .. " in " .. context.data_product.namespace } }
        end
      end,"#;
    let plugin = load(&sandbox, single(&with_hooks(hooks)))
        .await
        .expect("a plugin");
    let mut invalid = row("x", "s", None);
    invalid.values.insert("a".to_owned(), json!(5));
    let rows = vec![
        row("a", "s", None),
        row("A", "s", None),
        row("b", "s", None),
        row("b", "fine", None),
        row("b", "custom", None),
        invalid,
        row("none", "s", None),
        row("slip", "s", None),
        row("raise", "s", None),
        row("loop", "s", None),
        row("c", "t", None),
    ];
    // What is sent goes another way to the same end.
    let mut written: Answers = Vec::new();
    for row in &rows {
        let context = HookContext {
            data_product: Some((*row.data_product).clone()),
            technical_mapping: row.technical_mapping,
            ..HookContext::default()
        };
        let incoming = Incoming {
            configuration: &row.values,
            context: &context,
            reader: &reader(),
            loc: &Loc::new(),
        };
        written.push(Some(plugin.admit(incoming).await.map(|_| None)));
    }
    let answers = judge(&plugin, rows, LONG).await;
    assert_eq!(words(&answers), words(&written));
    assert_eq!(
        words(&answers),
        [
            "fine",
            "fine",
            "rejected: b in s",
            "fine",
            "fine",
            "invalid: Input should be a valid string",
            "rejected: none",
            "slip: Input should be a valid string",
            "raised: normalize: no",
            "late",
            "rejected: c in t",
        ]
    );
}

#[tokio::test]
async fn no_row_sees_what_another_has_left() {
    for (before, leave) in [
        (
            "local seen = {}",
            "seen[1] = (seen[1] or 0) + 1 local count = seen[1]",
        ),
        ("local count = 0", "count += 1"),
        (
            "local thread = coroutine.wrap(function() local n = 0 while true do n += 1 coroutine.yield(n) end end)",
            "local count = thread()",
        ),
        (
            "",
            "context.seen = (context.seen or 0) + 1 local count = context.seen",
        ),
        (
            "",
            "context.data_product.seen = (context.data_product.seen or 0) + 1 local count = context.data_product.seen",
        ),
    ] {
        let sandbox = Sandbox::new(short());
        let hook = |name: &str, result: &str| {
            format!(
                "{name} = function(configuration, context) {leave} if count ~= 1 then error('seen ' .. count) end {result} end,"
            )
        };
        let hooks = format!(
            "{}\n{}",
            hook("normalize", "return configuration"),
            hook("validate", "")
        );
        let source = format!("{before}\n{}", with_hooks(&hooks));
        let plugin = load(&sandbox, single(&source)).await.expect("a plugin");
        // More than it takes for the plugin to be looked at.
        for _ in 0..3 {
            let rows = (0..80).map(|_| row("a", "s", None)).collect();
            let answers = judge(&plugin, rows, LONG).await;
            assert!(
                words(&answers).iter().all(|word| word == "fine"),
                "{source}: {:?}",
                words(&answers)
            );
        }
    }
}

#[tokio::test]
async fn older_rows_are_carried_over_first() {
    let sandbox = Sandbox::new(short());
    let hooks = r#"
      upgrade = function(configuration, from)
        if configuration.a == "refused" then return nil, { { field = "a", message = "not from " .. from } } end
        if configuration.a == "slip" then return { a = 1 } end
        if configuration.a == "nothing" then return nil end
        return { a = configuration.old .. " of " .. from, more = 1 }
      end,
      normalize = function(configuration) configuration.a = configuration.a:upper() return configuration end,
      validate = function(configuration) if configuration.a == "BAD OF 1" then return "bad" end end,"#;
    let plugin = load(&sandbox, single(&with_hooks(hooks)))
        .await
        .expect("a plugin");
    assert!(plugin.definition().hooks.upgrade);
    let old = |a: &str, old: &str| {
        let mut row = row(a, "s", Some("1"));
        row.values.insert("old".to_owned(), json!(old));
        row
    };
    let rows = vec![
        old("x", "y"),
        old("x", "bad"),
        old("refused", "y"),
        old("slip", "y"),
        old("nothing", "y"),
        row("bad of 1", "s", None),
        row("now", "s", None),
    ];
    let answers = words(&judge(&plugin, rows, LONG).await);
    assert_eq!(
        answers[..4],
        [
            r#"{"a":"Y OF 1"}"#,
            "rejected: bad",
            "rejected: not from 1",
            "slip: Input should be a valid string",
        ]
    );
    assert!(answers[4].contains("upgrade"), "{answers:?}");
    assert_eq!(answers[5..], ["rejected: bad", "fine"]);
}

#[tokio::test]
async fn a_call_ends_when_its_time_is_up_and_others_have_their_turn() {
    let sandbox = Sandbox::new(short());
    let hooks = r#"validate = function(configuration)
        if configuration.a == "quick" then return {} end
        local sum = 0
        for i = 1, 200000 do sum += i end
      end,"#;
    let plugin = load(&sandbox, single(&with_hooks(hooks)))
        .await
        .expect("a plugin");
    let rows = |count| (0..count).map(|_| row("slow", "s", None)).collect();
    let time = Duration::from_millis(150);
    let answers = judge(&plugin, rows(5000), time).await;
    let words = words(&answers);
    let judged = words.iter().filter(|word| *word == "fine").count();
    assert_eq!(words.len(), 5000);
    assert!((1..5000).contains(&judged), "{judged}");
    assert!(words[judged..].iter().all(|word| word == "no time"));
    // A call of the same plugin, in the same VM, is answered long before the rows are through.
    let long = tokio::spawn({
        let plugin = plugin.clone();
        let rows = rows(5000);
        async move { judge(&plugin, rows, Duration::from_secs(3)).await }
    });
    for _ in 0..20 {
        assert_eq!(
            plugin.validate(call(json!({ "a": "quick" }))).await,
            Ok(vec![])
        );
    }
    assert!(!long.is_finished(), "the rows are judged for seconds");
    long.abort();
}

#[tokio::test]
async fn a_hook_is_given_what_it_takes_however_it_says_so() {
    for (takes, sees) in [
        ("configuration", "1"),
        ("configuration, context", "2"),
        ("configuration, context, db", "3"),
        ("configuration, context, db, more", "3"),
        ("...", "3"),
        ("configuration, ...", "3"),
    ] {
        let sandbox = Sandbox::new(short());
        let arguments = match takes {
            "..." => "local list = { ... }",
            "configuration, ..." => "local list = { configuration, ... }",
            "configuration" => "local list = { configuration }",
            "configuration, context" => "local list = { configuration, context }",
            _ => "local list = { configuration, context, db }",
        };
        let hooks = format!("validate = function({takes}) {arguments} return tostring(#list) end,");
        let plugin = load(&sandbox, single(&with_hooks(&hooks)))
            .await
            .expect("a plugin");
        let rows = (0..100).map(|_| row("a", "s", None)).collect();
        let answers = judge(&plugin, rows, LONG).await;
        let wanted = format!("rejected: {sees}");
        assert!(
            words(&answers).iter().all(|word| *word == wanted),
            "{takes}: {:?}",
            words(&answers)
        );
    }
}

#[tokio::test]
async fn what_is_told_of_a_row_is_bounded() {
    let sandbox = Sandbox::new(short());
    let hooks = r#"
      validate = function(configuration)
        if configuration.a == "long" then return string.rep("é", 2000000) end
        if configuration.a == "field" then return { { field = string.rep("f", 2000000), message = "m" } } end
        if configuration.a == "raise" then error(string.rep("x", 2000000)) end
        local deep = {}
        for place = 1, 60 do deep["k" .. place] = 0 / 0 end
        return { [string.rep("k", 2000000)] = deep }
      end,"#;
    let plugin = load(&sandbox, single(&with_hooks(hooks)))
        .await
        .expect("a plugin");
    for a in ["long", "field", "raise", "key"] {
        let answers = judge(&plugin, vec![row(a, "s", None)], LONG).await;
        let told = match answers[0].as_ref().expect("an answer") {
            Err(Unadmitted::Rejected { errors, .. }) => errors[0].message.clone(),
            Err(Unadmitted::Hook(error)) => format!("{error:?}"),
            other => panic!("{a}: {other:?}"),
        };
        assert!(told.len() < 100_000, "{a}: {}", told.len());
        assert!(told.contains('…') || a == "raise", "{a}: {told:.300}");
    }
}

#[tokio::test]
async fn rows_that_take_too_long_or_too_much_are_not_gone_on_with() {
    let sandbox = Sandbox::new(short());
    let hooks = r#"
      upgrade = function(configuration)
        while configuration.a == "loop" do end
        return { a = string.rep("x", 1000000) }
      end,"#;
    let plugin = load(&sandbox, single(&with_hooks(hooks)))
        .await
        .expect("a plugin");
    let rows = |a: &str| (0..30).map(|_| row(a, "s", Some("0.1.0"))).collect();
    let answers = words(&judge(&plugin, rows("loop"), LONG).await);
    let late = answers.iter().filter(|word| *word == "late").count();
    assert_eq!(late, 5, "{answers:?}");
    assert!(answers[5..].iter().all(|word| word == "no time"));
    let call = RowsCall {
        rows: rows("wide"),
        reader: reader(),
        until: Instant::now() + LONG,
        room: 5_000_000,
    };
    let answers = plugin.judge_rows(call).await;
    let carried = answers.iter().filter(|answer| answer.is_some()).count();
    assert_eq!(carried, 5, "one more than there is room for");
}
