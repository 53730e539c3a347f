//! What a call through the sandbox costs, next to a bare call of the same hook in mlua with its JSON.
//!
//! `cargo bench -p patchbay-lua --bench hooks` prints criterion's figures, then the ratios, measured in turn so that both
//! sides see the same machine. Under `cargo test` each side runs once.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::Criterion;
use futures_util::future::{BoxFuture, FutureExt, join_all};
use mlua::{Function, Lua, Table, Value};
use patchbay_lua::{CatalogueReader, ConfigurationFilter, Files, Limits, Plugin, Sandbox, Source};
use patchbay_plugin::Map;
use patchbay_plugin::catalogue::{Catalogue, Platform, PlatformService, ServiceConfiguration};
use patchbay_plugin::name::PluginName;
use uuid::Uuid;

/// How many calls are in flight where that is measured.
const IN_FLIGHT: usize = 16;

fn plugins() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../lua-plugins")
}

fn text(path: &str) -> String {
    fs::read_to_string(plugins().join(path)).expect("a shipped file")
}

/// The Snowflake plugin's form hook in a bare VM: no limits, no threads, nothing checked.
struct Bare {
    lua: Lua,
    hook: Function,
    db: Table,
}

impl Bare {
    fn new() -> Bare {
        let lua = Lua::new();
        lua.load(
            r#"
            local function start(kind)
                return function(name)
                    return function(options)
                        options.type, options.name = kind, name
                        return options
                    end
                end
            end
            local kinds = setmetatable({}, { __index = function(_, kind) return start(kind) end })
            patchbay = { field = kinds, ui = kinds, plugin = function(definition) return definition end }
            "#,
        )
        .exec()
        .expect("the stand-in for the API");
        let require = lua
            .create_function(|lua, name: String| {
                let name = name.trim_start_matches("@lib/").to_owned();
                lua.load(text(&format!("lib/{name}.lua"))).eval::<Value>()
            })
            .expect("a function");
        lua.globals().set("require", require).expect("a global");
        let definition: Table = lua
            .load(text("snowflake/plugin.lua"))
            .eval()
            .expect("the plugin");
        let options = lua
            .create_function(|lua, _: Value| {
                let list = lua.create_table()?;
                for option in ["analytics", "staging"] {
                    let entry = lua.create_table()?;
                    entry.set("label", option)?;
                    entry.set("value", option)?;
                    list.push(entry)?;
                }
                Ok(list)
            })
            .expect("a function");
        let db = lua.create_table().expect("a table");
        db.set("platform_options", options).expect("a method");
        Bare {
            hook: definition.get("ui_metadata").expect("the hook"),
            lua,
            db,
        }
    }

    fn call(&self) -> String {
        let form: Value = self.hook.call(&self.db).expect("a form");
        debug_assert!(self.lua.used_memory() > 0);
        serde_json::to_string(&json(&form)).expect("JSON")
    }
}

fn json(value: &Value) -> serde_json::Value {
    match value {
        Value::Boolean(value) => (*value).into(),
        Value::Integer(value) => (*value).into(),
        Value::Number(value) => (*value).into(),
        Value::String(text) => text.to_str().expect("UTF-8").to_owned().into(),
        Value::Table(table) if table.raw_len() > 0 => table
            .sequence_values::<Value>()
            .map(|value| json(&value.expect("a value")))
            .collect::<Vec<_>>()
            .into(),
        Value::Table(table) => table
            .pairs::<String, Value>()
            .map(|pair| {
                let (key, value) = pair.expect("an entry");
                (key, json(&value))
            })
            .collect::<Map>()
            .into(),
        _ => serde_json::Value::Null,
    }
}

struct Reader(Arc<Catalogue>);

impl CatalogueReader for Reader {
    fn catalogue(&self) -> Arc<Catalogue> {
        self.0.clone()
    }

    fn configurations(
        &self,
        _: PluginName,
        _: ConfigurationFilter,
    ) -> BoxFuture<'static, Result<Vec<Map>, String>> {
        async { Ok(Vec::new()) }.boxed()
    }
}

fn reader() -> Arc<dyn CatalogueReader> {
    let (platform, service) = (Uuid::from_u128(1), Uuid::from_u128(2));
    Arc::new(Reader(Arc::new(Catalogue {
        platforms: vec![Platform {
            id: platform,
            name: "Snowflake".to_owned(),
        }],
        services: vec![PlatformService {
            id: service,
            platform_id: platform,
            name: "Snowflake".to_owned(),
            result_string_template: String::new(),
            technical_info_template: String::new(),
        }],
        service_configurations: vec![ServiceConfiguration {
            id: Uuid::from_u128(3),
            platform_id: platform,
            service_id: service,
            config: vec!["analytics".to_owned(), "staging".to_owned()],
        }],
        ..Catalogue::default()
    })))
}

async fn load(sandbox: &Sandbox) -> Plugin {
    let libs: Files = fs::read_dir(plugins().join("lib"))
        .expect("the shared modules")
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .into_string()
                .expect("a name")
        })
        .map(|name| {
            let text = Arc::from(text(&format!("lib/{name}")));
            (name, text)
        })
        .collect();
    let source = Source {
        label: "lua-plugins/snowflake".to_owned(),
        entry: "plugin.lua".to_owned(),
        files: Arc::new(BTreeMap::from([(
            "plugin.lua".to_owned(),
            Arc::from(text("snowflake/plugin.lua")),
        )])),
        refused: Arc::default(),
        single_file: false,
        libs: Arc::new(libs),
    };
    sandbox
        .load(source, Arc::new(|_, _| Ok(Map::new())))
        .await
        .expect("the plugin")
}

struct Sides {
    bare: Bare,
    runtime: tokio::runtime::Runtime,
    plugin: Plugin,
    reader: Arc<dyn CatalogueReader>,
}

impl Sides {
    fn new() -> Sides {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let sandbox = Sandbox::new(Limits::default());
        let plugin = runtime.block_on(load(&sandbox));
        Sides {
            bare: Bare::new(),
            runtime,
            plugin,
            reader: reader(),
        }
    }

    fn bare(&self, calls: u64) -> Duration {
        let start = Instant::now();
        for _ in 0..calls {
            std::hint::black_box(self.bare.call());
        }
        start.elapsed()
    }

    /// One call after the other, from a task of the runtime as a request would.
    fn one_by_one(&self, calls: u64) -> Duration {
        let (plugin, reader) = (self.plugin.clone(), self.reader.clone());
        self.on_the_runtime(async move {
            let start = Instant::now();
            for _ in 0..calls {
                let form = plugin.ui_metadata(reader.clone()).await.expect("a form");
                std::hint::black_box(form);
            }
            start.elapsed()
        })
    }

    /// The same number of calls, sixteen in flight.
    fn in_flight(&self, calls: u64) -> Duration {
        let (plugin, reader) = (self.plugin.clone(), self.reader.clone());
        self.on_the_runtime(async move {
            let start = Instant::now();
            let lanes = (0..IN_FLIGHT as u64).map(|lane| {
                let (plugin, reader) = (plugin.clone(), reader.clone());
                let share = calls / IN_FLIGHT as u64 + u64::from(lane < calls % IN_FLIGHT as u64);
                tokio::spawn(async move {
                    for _ in 0..share {
                        let form = plugin.ui_metadata(reader.clone()).await.expect("a form");
                        std::hint::black_box(form);
                    }
                })
            });
            join_all(lanes).await;
            start.elapsed()
        })
    }

    fn on_the_runtime(&self, work: impl Future<Output = Duration> + Send + 'static) -> Duration {
        self.runtime
            .block_on(self.runtime.spawn(work))
            .expect("the measured work")
    }
}

/// Measures every side in turn and prints what each call costs, as the median of the rounds.
#[expect(clippy::print_stdout, reason = "the figures are what it is for")]
fn ratios(sides: &Sides) {
    const ROUNDS: usize = 31;
    const CALLS: u64 = 1000;
    let mut costs: [Vec<f64>; 3] = Default::default();
    for _ in 0..ROUNDS {
        for (place, spent) in [
            sides.bare(CALLS),
            sides.one_by_one(CALLS),
            sides.in_flight(CALLS),
        ]
        .into_iter()
        .enumerate()
        {
            costs[place].push(spent.as_secs_f64() * 1e6 / CALLS as f64);
        }
    }
    let [bare, one, many] = costs.map(|mut costs| {
        costs.sort_by(f64::total_cmp);
        costs[costs.len() / 2]
    });
    println!("bare mlua call with its JSON      {bare:6.1} µs");
    println!(
        "ui_metadata, one by one           {one:6.1} µs, {:.2} times the bare call",
        one / bare
    );
    println!(
        "ui_metadata, {IN_FLIGHT} in flight         {many:6.1} µs, {:.2} times the bare call",
        many / bare
    );
}

fn main() {
    let sides = Sides::new();
    let measured = std::env::args().any(|argument| argument == "--bench");
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("hooks");
    group.bench_function("bare", |bencher| {
        bencher.iter_custom(|calls| sides.bare(calls))
    });
    group.bench_function("one by one", |bencher| {
        bencher.iter_custom(|calls| sides.one_by_one(calls));
    });
    group.bench_function("in flight", |bencher| {
        bencher.iter_custom(|calls| sides.in_flight(calls));
    });
    group.finish();
    if measured {
        ratios(&sides);
    }
}
