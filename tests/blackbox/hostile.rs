//! Plugins that misbehave: each hurts itself, and nobody else.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Http, Server, for_each_database};
use crate::world::{DEFAULTS, entry, names, plugin};

/// Forms that never worked, with words of the reason.
const BAD_FORMS: [(&str, &str, &str); 9] = [
    ("Raises", "error('boom')", "boom"),
    (
        "RaisesTable",
        "error({ code = 1 })",
        "a value that is no text",
    ),
    ("Loops", "while true do end", "250 ms"),
    (
        "LoopsInPcall",
        "while true do pcall(function() while true do end end) end",
        "250 ms",
    ),
    (
        "Allocates",
        "local t = {} for i = 1, 9 do t[i] = string.rep('x', 8 * 1024 * 1024 - i) end",
        "32768 KiB",
    ),
    (
        "Recurses",
        "local function f() return 1 + f() end return f()",
        "stack overflow",
    ),
    ("Nothing", "return nil", "a list of elements"),
    (
        "Nonsense",
        "return { { type = 'string' }, 'x' }",
        "[1].name",
    ),
    ("Foreign", "return { ui.string 'nowhere' {} }", "nowhere"),
];

async fn defaults_are_fine(server: &Http) {
    let list = server.get("plugins").await.is(200).json();
    for name in DEFAULTS {
        let found = entry(&list, name);
        assert_eq!(
            (&found["state"], &found["not_configured"]),
            (&json!("active"), &json!(false)),
            "{name}"
        );
        server.get(&format!("plugins/{name}/form")).await.is(200);
    }
}

#[tokio::test]
async fn a_form_that_never_worked_is_a_500_and_nothing_else_changes() {
    let server = Server::start(|options| {
        for (name, body, _) in BAD_FORMS {
            let lines = format!("ui_metadata = function(db) {body} end,");
            options.file(&format!("lua-plugins/{name}.lua"), plugin(name, &lines));
        }
    });
    let list = server.get("plugins").await.is(200).json();
    assert_eq!(names(&list).len(), DEFAULTS.len() + BAD_FORMS.len());
    let product = server.data_product("sales", "sales").await;
    for (name, _, says) in BAD_FORMS {
        let found = entry(&list, name);
        assert_eq!(found["not_configured"], true, "{name}");
        assert_eq!(
            (&found["ui_metadata"], &found["state"]),
            (&json!([]), &json!("failed")),
            "{name}"
        );
        let answer = server.get(&format!("plugins/{name}/form")).await;
        let text = answer.text();
        assert_eq!(answer.error(500), "Something went wrong", "{name}");
        assert!(!text.contains(".lua"), "{text}");
        let details = server.get(&format!("plugins/{name}")).await.is(200).json();
        let error = &details["last_error"];
        assert_eq!(
            (&error["stage"], &error["hook"]),
            (&json!("hook"), &json!("ui_metadata")),
            "{name}: {details}"
        );
        assert!(
            error["message"]
                .as_str()
                .is_some_and(|text| text.contains(says)),
            "{name}: {error}"
        );
        assert!(
            error["file"]
                .as_str()
                .is_some_and(|file| file.ends_with(&format!("{name}.lua"))),
            "{name}: {error}"
        );
        let status = server.get("plugins/status").await.is(200).json();
        assert_eq!(entry(&status, name)["state"], "failed", "{name}");
        // Only its form is broken; what needs no form works.
        let id = server
            .configured(name, &product, name, json!({ "path": "p" }))
            .await;
        let stored = server.get(&format!("configurations/{id}")).await.is(200);
        assert_eq!(stored.json()["plugin_state"], "failed", "{name}");
    }
    defaults_are_fine(&server).await;
    // Everybody is told the same.
    let reload = server.post("plugins/reload", &json!({})).await.is(200);
    let mut failed = BAD_FORMS.map(|(name, ..)| name);
    failed.sort_unstable();
    assert_eq!(reload.json()["failed"], json!(failed));
    let figures = server.get("/metrics").await.is(200).text();
    for line in [
        format!("patchbay_plugins{{state=\"active\"}} {}", DEFAULTS.len()),
        format!("patchbay_plugins{{state=\"failed\"}} {}", BAD_FORMS.len()),
    ] {
        assert!(
            figures.lines().any(|found| found == line),
            "{line}: {figures}"
        );
    }
    let tiles = server.get("plugins/platform-tiles").await.is(200).json();
    assert_eq!(
        tiles["platform_tiles"].as_array().map(Vec::len),
        Some(3 + BAD_FORMS.len())
    );
    let log = server.logged();
    let boom = log
        .lines()
        .find(|line| line.contains("Plugin registry: Raises: "))
        .unwrap_or_else(|| panic!("{log}"));
    assert!(
        boom.contains("Raises.lua:") && boom.contains("boom"),
        "{boom}"
    );
    assert!(
        !log.contains("Raises 1.0 from lua-plugins/Raises.lua is active"),
        "{log}"
    );
    assert!(
        log.contains(&format!("{} failed", BAD_FORMS.len())),
        "{log}"
    );
}

#[tokio::test]
async fn a_form_that_breaks_with_the_catalogue_keeps_its_last_good_answer() {
    for_each_database(async |database| {
        let lines = r#"
    platform = { platform_key = "redshift" },
    table = "fragile",
    ui_metadata = function(db)
        local options = db:platform_options()
        if #options > 0 then
            error("too many options: " .. #options)
        end
        return { ui.select "path" { label = "Path", options = options } }
    end,
"#;
        let server = Server::start(|options| {
            options.database(database).file(
                "lua-plugins/fragile.lua",
                plugin("FragileDataOutput", lines),
            );
        });
        let form = "plugins/FragileDataOutput/form";
        let good = server.get(form).await.is(200).json();
        assert_eq!(
            (&good["state"], &good["not_configured"]),
            (&json!("active"), &json!(false))
        );
        let (platform, service) = server.service("AWS", "Redshift").await;
        let path = format!("configuration/platforms/{platform}/services/{service}");
        let id = server.get(&path).await.is(200).json()["id"]
            .as_str()
            .expect("an id")
            .to_owned();
        let path = format!("configuration/platforms/configs/{id}");
        server
            .put(&path, &json!({ "config": ["a", "b"] }))
            .await
            .is(200);
        let degraded = server.get(form).await.is(200).json();
        assert_eq!(
            (&degraded["state"], &degraded["not_configured"]),
            (&json!("degraded"), &json!(false))
        );
        assert_eq!(degraded["ui_metadata"], good["ui_metadata"]);
        let details = server.get("plugins/FragileDataOutput").await.is(200).json();
        assert!(
            details["last_error"]["message"]
                .as_str()
                .is_some_and(|text| text.contains("too many options: 2"))
        );
        assert_eq!(details["last_error"]["line"], 14, "{details}");
        defaults_are_fine(&server).await;
        server.put(&path, &json!({ "config": [] })).await.is(200);
        // A form that is in trouble is computed aside, so that nobody waits for it.
        server
            .until(form, 200, |form| form["state"] == "active")
            .await;
    })
    .await;
}

#[tokio::test]
async fn an_endless_hook_is_a_504_and_others_go_on_meanwhile() {
    let endless = |hook: &str| format!("{hook} = function() while true do end end,");
    let server = Server::start(|options| {
        options.env("PATCHBAY_LUA__DEADLINE_MS", "600");
        options.file(
            "lua-plugins/n.lua",
            plugin("EndlessNormalize", &endless("normalize")),
        );
        options.file(
            "lua-plugins/v.lua",
            plugin("EndlessValidate", &endless("validate")),
        );
        options.file("lua-plugins/u.lua", plugin("EndlessUrl", &endless("url")));
        options.file(
            "lua-plugins/r.lua",
            plugin("EndlessRender", &endless("render")),
        );
    });
    let product = server.data_product("sales", "sales").await;
    let body = json!({ "data_product_id": product, "name": "n", "configuration": { "path": "p" } });
    let slow = {
        let (server, body) = (server.http(), body.clone());
        tokio::spawn(async move {
            let create = server
                .post("plugins/EndlessNormalize/configurations", &body)
                .await;
            assert_eq!(create.error(504), "Took too long");
        })
    };
    // Calls of other plugins, through the sandbox too, are answered while that one runs.
    let dry = json!({ "configuration": { "database": "d", "access_granularity": "schema" }, "technical_mapping": "custom" });
    let mut meanwhile = 0;
    while !slow.is_finished() {
        server.get("plugins/SnowflakeDataOutput/form").await.is(200);
        server
            .post("plugins/SnowflakeDataOutput/validate", &dry)
            .await
            .is(200);
        meanwhile += 1;
    }
    slow.await.expect("a 504");
    assert!(
        meanwhile >= 5,
        "{meanwhile} answers while a hook ran for 600 ms"
    );
    server
        .post("plugins/EndlessValidate/configurations", &body)
        .await
        .error(504);
    server
        .get(&format!("plugins/EndlessUrl/url?id={product}"))
        .await
        .error(504);
    let all = server.get("configurations").await.is(200).json();
    assert_eq!(all["configurations"], json!([]));
    // A path that cannot be rendered is null, and the configuration is stored.
    let stored = server
        .post("plugins/EndlessRender/configurations", &body)
        .await
        .is(201)
        .json();
    assert_eq!(stored["access_path"], Value::Null);
    let details = server.get("plugins/EndlessNormalize").await.is(200).json();
    assert_eq!(details["last_error"]["hook"], "normalize", "{details}");
    defaults_are_fine(&server).await;
}

#[tokio::test]
async fn many_calls_of_a_slow_plugin_are_turned_away_and_others_are_not() {
    let server = Server::start(|options| {
        options
            .env("PATCHBAY_LUA__DEADLINE_MS", "200")
            .env("PATCHBAY_LUA__WAITING", "4");
        let slow = "normalize = function() while true do end end,";
        options.file("lua-plugins/slow.lua", plugin("SlowDataOutput", slow));
    });
    let calls: Vec<_> = (0..40)
        .map(|_| {
            let server = server.http();
            tokio::spawn(async move {
                let body = json!({ "configuration": { "path": "p" } });
                let answer = server.post("plugins/SlowDataOutput/validate", &body).await;
                if answer.status == 503 {
                    assert!(answer.header("retry-after").parse::<u32>().is_ok());
                }
                answer.status
            })
        })
        .collect();
    let dry = json!({ "configuration": { "database": "d", "access_granularity": "schema" } });
    for _ in 0..10 {
        server
            .post("plugins/GlueDataOutput/validate", &dry)
            .await
            .is(200);
    }
    let mut statuses = Vec::new();
    for call in calls {
        statuses.push(call.await.expect("a status"));
    }
    assert!(
        statuses.iter().all(|status| [503, 504].contains(status)),
        "{statuses:?}"
    );
    assert!(
        statuses.contains(&503) && statuses.contains(&504),
        "{statuses:?}"
    );
    defaults_are_fine(&server).await;
}

#[tokio::test]
async fn what_a_hook_raises_or_returns_stays_inside() {
    for_each_database(async |database| {
        let server = Server::start(|options| {
            options.database(database);
            // Enough for the memory to run out first.
            options.env("PATCHBAY_LUA__DEADLINE_MS", "4000");
            for (name, hook) in [
                (
                    "RaisingNormalize",
                    "normalize = function() error('secret detail') end,",
                ),
                (
                    "NonsenseNormalize",
                    "normalize = function() return { path = 5 } end,",
                ),
                ("NothingNormalize", "normalize = function() end,"),
                (
                    "RaisingValidate",
                    "validate = function() error('secret detail') end,",
                ),
                ("NonsenseValidate", "validate = function() return 5 end,"),
                ("RaisingUrl", "url = function() error('secret detail') end,"),
                ("NonsenseUrl", "url = function() return {} end,"),
                (
                    "Allocating",
                    "validate = function() local t = {} while true do t[#t + 1] = {} end end,",
                ),
            ] {
                options.file(&format!("lua-plugins/{name}.lua"), plugin(name, hook));
            }
        });
        let product = server.data_product("sales", "sales").await;
        let body =
            json!({ "data_product_id": product, "name": "n", "configuration": { "path": "p" } });
        for name in [
            "RaisingNormalize",
            "NonsenseNormalize",
            "NothingNormalize",
            "RaisingValidate",
            "NonsenseValidate",
            "Allocating",
        ] {
            let detail = server
                .post(&format!("plugins/{name}/configurations"), &body)
                .await
                .error(500);
            assert_eq!(detail, "Something went wrong", "{name}");
        }
        for name in ["RaisingUrl", "NonsenseUrl"] {
            let detail = server
                .get(&format!("plugins/{name}/url?id={product}"))
                .await
                .error(500);
            assert_eq!(detail, "Something went wrong", "{name}");
        }
        let all = server.get("configurations").await.is(200).json();
        assert_eq!(all["configurations"], json!([]));
        let details = server.get("plugins/RaisingNormalize").await.is(200).json();
        assert!(
            details["last_error"]["message"]
                .as_str()
                .is_some_and(|text| text.contains("secret detail"))
        );
        let details = server.get("plugins/Allocating").await.is(200).json();
        assert!(
            details["last_error"]["message"]
                .as_str()
                .is_some_and(|text| text.contains("memory")),
            "{details}"
        );
        defaults_are_fine(&server).await;
        let log = server.logged();
        assert!(
            log.contains("secret detail"),
            "the log has what the answer has not"
        );
    })
    .await;
}

#[tokio::test]
async fn what_a_plugin_rejects_is_a_422() {
    for_each_database(async |database| {
        let lines = r#"
    normalize = function(configuration)
        if configuration.path == "no" then
            return nil, { { field = "path", message = "Not this path" } }
        end
        configuration.path = configuration.path .. "!"
        return configuration
    end,
    validate = function(configuration)
        if configuration.path == "whole!" then
            return { { message = "Not as a whole" } }
        end
    end,
"#;
        let server = Server::start(|options| {
            options.database(database);
            options.file("lua-plugins/rules.lua", plugin("RulesDataOutput", lines));
        });
        let product = server.data_product("sales", "sales").await;
        let create = async |path: &str| {
            server
                .configure("RulesDataOutput", &product, path, json!({ "path": path }))
                .await
        };
        let detail = create("no").await.error(422);
        let loc = json!(["body", "configuration", "RulesDataOutput", "path"]);
        assert_eq!(
            detail,
            json!([{ "type": "value_error", "loc": loc, "msg": "Not this path", "input": "no" }])
        );
        let detail = create("whole").await.error(422);
        assert_eq!(
            (&detail[0]["msg"], &detail[0]["type"]),
            (&json!("Not as a whole"), &json!("value_error"))
        );
        assert_eq!(
            create("yes").await.is(201).json()["configuration"]["path"],
            "yes!"
        );
    })
    .await;
}

#[tokio::test]
async fn a_stopping_server_does_not_wait_for_endless_plugins() {
    let server = Server::start(|options| {
        options
            .env("PATCHBAY_LUA__DEADLINE_MS", "20000")
            .env("PATCHBAY_LUA__WALL_MS", "1000");
        options.file(
            "lua-plugins/endless.lua",
            plugin(
                "EndlessDataOutput",
                "normalize = function() while true do end end,",
            ),
        );
    });
    let body = json!({ "configuration": { "path": "p" } });
    let began = std::time::Instant::now();
    server
        .post("plugins/EndlessDataOutput/validate", &body)
        .await
        .error(504);
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "the cap on the wall clock holds"
    );
    let finished = server.stop();
    assert_eq!(finished.code, Some(0), "{finished:#?}");
}
