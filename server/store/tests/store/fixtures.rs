//! Fresh databases, and the plugins and data products that tests write about.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use patchbay_plugin::Map;
use patchbay_plugin::configuration::{ConfigurationDraft, DataProduct, TechnicalMapping};
use patchbay_plugin::definition::Definition;
use patchbay_plugin::field::parse_values;
use patchbay_plugin::migration::{Migration, Operation, Plan, plan};
use patchbay_plugin::name::MigrationId;
use patchbay_plugin::term::Term;
use patchbay_store::{DataProductDraft, DatabaseUrl, PluginTable, Store, StoreSettings};
use patchbay_test_cluster::{Cluster, Durability};
use serde_json::{Value, json};
use uuid::Uuid;

/// A database of its own, and an open store on it.
pub(crate) struct Fresh {
    pub(crate) store: Store,
    pub(crate) settings: StoreSettings,
    folder: tempfile::TempDir,
}

impl Fresh {
    async fn sqlite() -> Fresh {
        let folder = tempfile::tempdir().expect("a folder");
        let url = DatabaseUrl::Sqlite(folder.path().join("data").join("patchbay.db"));
        let settings = StoreSettings {
            busy_timeout: Duration::from_millis(20),
            ..StoreSettings::new(url)
        };
        Fresh::open(settings, folder).await
    }

    /// On a cluster, with fewer connections than a server has, because many tests share it.
    pub(crate) async fn postgres(cluster: &Cluster) -> Fresh {
        let url = DatabaseUrl::parse(&cluster.database().await).expect("a URL");
        let settings = StoreSettings {
            pool: 8,
            start_timeout: Duration::from_secs(10),
            ..StoreSettings::new(url)
        };
        Fresh::open(settings, tempfile::tempdir().expect("a folder")).await
    }

    async fn open(settings: StoreSettings, folder: tempfile::TempDir) -> Fresh {
        Fresh {
            store: Store::open(settings.clone()).await.expect("a store"),
            settings,
            folder,
        }
    }

    /// The settings of another process on the same database, which takes no lock.
    pub(crate) fn beside(&self) -> StoreSettings {
        StoreSettings {
            server_lock: false,
            ..self.settings.clone()
        }
    }

    pub(crate) async fn open_beside(&self) -> Store {
        Store::open(self.beside()).await.expect("a second store")
    }

    pub(crate) fn is_sqlite(&self) -> bool {
        self.settings.url.path().is_some()
    }

    /// The database file.
    pub(crate) fn path(&self) -> PathBuf {
        self.settings.url.path().expect("SQLite").to_owned()
    }

    /// The URL of a Postgres, with its user.
    pub(crate) fn url(&self) -> String {
        match &self.settings.url {
            DatabaseUrl::Postgres(url) => url.clone(),
            DatabaseUrl::Sqlite(path) => panic!("{path:?} is no Postgres"),
        }
    }

    /// A path in the folder that goes away with the test.
    pub(crate) fn aside(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A connection of somebody else to the file, for looking and breaking.
    pub(crate) fn raw(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(self.path()).expect("a connection")
    }

    /// A connection of somebody else to Postgres, for looking and breaking.
    pub(crate) async fn client(&self) -> tokio_postgres::Client {
        patchbay_test_cluster::connect(&self.url()).await
    }

    /// Has somebody else run statements, with foreign keys off on SQLite.
    pub(crate) async fn run(&self, sql: &str) {
        if self.is_sqlite() {
            let sql = format!("PRAGMA foreign_keys = OFF; {sql}");
            self.raw().execute_batch(&sql).expect(&sql);
        } else {
            self.client().await.batch_execute(sql).await.expect(sql);
        }
    }

    /// The number that a statement answers with.
    pub(crate) async fn number(&self, sql: &str) -> i64 {
        if self.is_sqlite() {
            return self.raw().query_row(sql, [], |row| row.get(0)).expect(sql);
        }
        let row = self.client().await.query_one(sql, &[]).await;
        row.expect(sql).get(0)
    }

    /// The text that a statement answers with.
    pub(crate) async fn text(&self, sql: &str) -> String {
        if self.is_sqlite() {
            return self.raw().query_row(sql, [], |row| row.get(0)).expect(sql);
        }
        let row = self.client().await.query_one(sql, &[]).await;
        row.expect(sql).get(0)
    }

    /// All tables, columns and indexes, as a text to compare.
    pub(crate) async fn shape(&self) -> String {
        self.text(match self.is_sqlite() {
            true => "SELECT group_concat(sql, ';') FROM (SELECT sql FROM sqlite_schema ORDER BY name)",
            false => {
                "SELECT string_agg(line, ';' ORDER BY line) FROM ( \
                 SELECT concat_ws(' ', table_name, column_name, data_type, is_nullable, column_default) AS line \
                 FROM information_schema.columns WHERE table_schema = 'public' \
                 UNION ALL SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' \
                 UNION ALL SELECT conrelid::regclass || pg_get_constraintdef(oid) FROM pg_constraint \
                 WHERE connamespace = 'public'::regnamespace) lines"
            }
        })
        .await
    }
}

fn block_on(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(test);
}

/// Runs a test on a fresh database of each kind.
pub(crate) fn on_each_database<F: Future<Output = ()>>(test: impl Fn(Fresh) -> F) {
    on_sqlite(&test);
    on_postgres(&test);
}

/// Runs a test of what only a file can do.
pub(crate) fn on_sqlite<F: Future<Output = ()>>(test: impl Fn(Fresh) -> F) {
    block_on(async { test(Fresh::sqlite().await).await });
}

/// Runs a test of what only Postgres can do.
pub(crate) fn on_postgres<F: Future<Output = ()>>(test: impl Fn(Fresh) -> F) {
    let cluster = Cluster::shared();
    block_on(async { test(Fresh::postgres(cluster).await).await });
}

/// Runs a test that stops, holds or breaks a Postgres, on a cluster of its own.
pub(crate) fn on_own_cluster<F: Future<Output = ()>>(test: impl Fn(Fresh, Arc<Cluster>) -> F) {
    let cluster = Arc::new(Cluster::start(Durability::None));
    block_on(async { test(Fresh::postgres(&cluster).await, Arc::clone(&cluster)).await });
}

/// Waits until something holds, and fails when it does not within half a minute.
pub(crate) async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(30);
    while !holds().await {
        assert!(Instant::now() < until, "never came true: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn term(value: Value) -> Term {
    Term::from_json(value)
}

/// The definition of a plugin with these fields.
pub(crate) fn definition(name: &str, fields: Value, migrations: Vec<Migration>) -> Definition {
    Definition::read(
        term(json!({"name": name, "version": "1.0.0", "fields": fields})),
        migrations,
    )
    .expect("a definition")
}

/// A plugin with a field of every kind.
pub(crate) fn everything() -> Definition {
    let fields = json!([
        {"type": "string", "name": "database", "required": true},
        {"type": "string", "name": "schema", "default": ""},
        {"type": "integer", "name": "days"},
        {"type": "number", "name": "share"},
        {"type": "boolean", "name": "open", "default": false},
        {"type": "enum", "name": "granularity", "values": ["schema", "table"], "required": true},
        {"type": "list", "name": "tags", "of": "string"},
        {"type": "json", "name": "extra"},
    ]);
    definition("EverythingDataOutput", fields, Vec::new())
}

/// A plugin with one text field, and a table of its own.
pub(crate) fn simple(name: &str) -> Definition {
    let fields = json!([{"type": "string", "name": "path", "required": true}]);
    definition(name, fields, Vec::new())
}

pub(crate) fn migration(id: &str, up: Vec<Operation>) -> Migration {
    Migration {
        id: MigrationId::parse(id).expect("an id"),
        path: None,
        up,
        down: None,
    }
}

/// What leads from what is applied to this definition.
pub(crate) async fn planned(store: &Store, definition: &Definition) -> Plan {
    let history = store.history(&definition.name).await.expect("a history");
    plan(definition, &history).expect("a plan")
}

/// Brings the plugin's table up to date, and gives the handle for its rows.
pub(crate) async fn install(store: &Store, definition: &Definition) -> PluginTable {
    let plan = planned(store, definition).await;
    store
        .migrate(definition, &plan, "test")
        .await
        .expect("a migration");
    store.table(definition, &planned(store, definition).await)
}

pub(crate) async fn product(store: &Store, namespace: &str) -> DataProduct {
    let draft = DataProductDraft {
        name: format!("The {namespace}"),
        namespace: namespace.to_owned(),
        domain: "sales".to_owned(),
    };
    store
        .create_data_product(None, draft)
        .await
        .expect("a data product")
}

/// The values as the registry gives them to the store: every field, defaults filled in.
pub(crate) fn checked(definition: &Definition, values: Value) -> Value {
    let checked = parse_values(&definition.fields, &map(values), &Vec::new());
    Value::Object(checked.expect("right values"))
}

pub(crate) fn map(value: Value) -> Map {
    match value {
        Value::Object(entries) => entries,
        other => panic!("an object, not {other}"),
    }
}

pub(crate) fn draft(product: Uuid, name: &str, values: Value) -> ConfigurationDraft {
    ConfigurationDraft {
        name: name.to_owned(),
        description: None,
        data_product_id: product,
        technical_mapping: TechnicalMapping::Default,
        platform_id: None,
        service_id: None,
        values: map(values),
    }
}
