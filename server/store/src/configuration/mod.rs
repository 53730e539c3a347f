//! Stored configurations: the base rows, the rows of the plugins beside them, and the history.

mod own;
mod read;
mod write;

use patchbay_plugin::Map;
use patchbay_plugin::configuration::{Configuration, TechnicalMapping};
use sea_query::{BinOper, Expr, ExprTrait, LikeExpr, LockType, Order, Query};
use serde_json::Value as Json;

pub use own::{Carried, OwnRow, OwnRows};
pub(crate) use own::{OWN_BASE, OWN_PRODUCT};
pub use read::ConfigurationQuery;

use crate::error::{Fault, StoreError};
use crate::session::{Dialect, Row, Statement, place};
use crate::statements::{delete, insert, select, update};

const TABLE: &str = "data_output_configurations";

/// The columns that are read, in the order in which [`base`] reads them.
pub(crate) const BASE: &[&str] = &[
    "id",
    "configuration_type",
    "plugin_version",
    "name",
    "description",
    "data_product_id",
    "technical_mapping",
    "platform_id",
    "service_id",
    "revision",
    "created_at",
    "updated_at",
];

/// The columns that an update sets.
const UPDATED: &[&str] = &[
    "plugin_version",
    "name",
    "folded_name",
    "description",
    "data_product_id",
    "technical_mapping",
    "platform_id",
    "service_id",
    "revision",
    "updated_at",
];

const INSERTED: &[&str] = &[
    "id",
    "configuration_type",
    "plugin_version",
    "name",
    "folded_name",
    "description",
    "data_product_id",
    "technical_mapping",
    "platform_id",
    "service_id",
    "revision",
    "created_at",
    "updated_at",
];

const REVISION: &[&str] = &[
    "configuration_id",
    "revision",
    "action",
    "plugin",
    "plugin_version",
    "changed_by",
    "changed_at",
    "changes",
];

/// Which filters a page has, as the place of its statement.
#[derive(Clone, Copy)]
struct Filters {
    data_product: bool,
    plugin: bool,
    q: bool,
    cursor: bool,
}

impl Filters {
    fn place(self) -> usize {
        usize::from(self.data_product)
            | usize::from(self.plugin) << 1
            | usize::from(self.q) << 2
            | usize::from(self.cursor) << 3
    }

    fn of(place: usize) -> Filters {
        Filters {
            data_product: place & 1 != 0,
            plugin: place & 2 != 0,
            q: place & 4 != 0,
            cursor: place & 8 != 0,
        }
    }
}

pub(crate) struct Statements {
    insert: Statement,
    update: Statement,
    delete: Statement,
    by_id: Statement,
    /// The same, and nobody else changes the row until the transaction ends.
    by_id_for_change: Statement,
    /// One for each set of filters. The values come in the order of the fields of [`Filters`], then the limit.
    pages: Vec<Statement>,
    add_revision: Statement,
    revisions: Statement,
    /// Ids and revisions of a plugin's rows that another version has written.
    of_other_versions: Statement,
    one_of_other_versions: Statement,
    /// Sets the version, the revision and the time of a row that is at this revision.
    carry: Statement,
    product: Statement,
    platform: Statement,
    service: Statement,
}

impl Statements {
    pub(crate) fn new(dialect: Dialect) -> Statements {
        let mut by_id = with_definition();
        by_id.and_where(Expr::col((TABLE, "id")).eq(place()));
        let mut for_change = by_id.clone();
        for_change.lock_with_tables(LockType::Update, [TABLE]);
        let mut revisions = Query::select();
        revisions
            .columns(["revision", "action", "changed_by", "changed_at", "changes"])
            .from("configuration_revisions")
            .and_where(Expr::col("configuration_id").eq(place()))
            .order_by("revision", Order::Asc);
        let mut of_other_versions = Query::select();
        of_other_versions
            .columns(["id", "revision"])
            .from(TABLE)
            .and_where(Expr::col("configuration_type").eq(place()))
            .and_where(Expr::col("plugin_version").ne(place()));
        Statements {
            insert: insert(dialect, TABLE, INSERTED),
            update: update(dialect, TABLE, UPDATED, &["id"]),
            delete: delete(dialect, TABLE, &["id"]),
            by_id: Statement::new(dialect, &by_id),
            by_id_for_change: Statement::new(dialect, &for_change),
            pages: (0..16)
                .map(|filters| page(dialect, Filters::of(filters)))
                .collect(),
            add_revision: insert(dialect, "configuration_revisions", REVISION),
            revisions: Statement::new(dialect, &revisions),
            of_other_versions: Statement::new(dialect, &of_other_versions),
            one_of_other_versions: Statement::new(dialect, of_other_versions.limit(1)),
            carry: update(
                dialect,
                TABLE,
                &["plugin_version", "revision", "updated_at"],
                &["id", "revision"],
            ),
            product: select(dialect, "data_products", &["id"], &["id"]),
            platform: select(dialect, "platforms", &["id"], &["id"]),
            service: select(dialect, "platform_services", &["id"], &["id"]),
        }
    }
}

/// The base rows, each with the revision of its plugin's applied definition after the base columns.
fn with_definition() -> sea_query::SelectStatement {
    let mut query = Query::select();
    query
        .columns(BASE.iter().map(|column| (TABLE, *column)))
        .column(("applied_definitions", "revision"))
        .from(TABLE)
        .left_join(
            "applied_definitions",
            Expr::col(("applied_definitions", "plugin")).equals((TABLE, "configuration_type")),
        );
    query
}

fn page(dialect: Dialect, filters: Filters) -> Statement {
    let mut query = with_definition();
    if filters.data_product {
        query.and_where(Expr::col((TABLE, "data_product_id")).eq(place()));
    }
    if filters.plugin {
        let plugin = Expr::col((TABLE, "configuration_type"));
        // A data product has fewer rows than a plugin, which SQLite cannot know: as an expression the plugin's name
        // does not tempt it to the other index.
        let plugin = match filters.data_product {
            true => plugin.binary(BinOper::Custom("||"), Expr::cust("''")),
            false => plugin,
        };
        query.and_where(plugin.eq(place()));
    }
    if filters.q {
        let pattern = LikeExpr::new("").escape(LIKE_ESCAPE);
        query.and_where(Expr::col((TABLE, "folded_name")).like(pattern));
    }
    if filters.cursor {
        // Rows are compared as pairs, which an index on the pair answers.
        let place_in_list =
            Expr::tuple([Expr::col((TABLE, "created_at")), Expr::col((TABLE, "id"))]);
        query.and_where(place_in_list.lt(Expr::tuple([place(), place()])));
    }
    query
        .order_by((TABLE, "created_at"), Order::Desc)
        .order_by((TABLE, "id"), Order::Desc)
        .limit(1);
    Statement::new(dialect, &query)
}

/// Marks a character of a pattern that stands for itself. Not a backslash, which the databases read differently.
const LIKE_ESCAPE: char = '!';

/// The pattern of what contains `text`.
fn containing(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len() + 2);
    pattern.push('%');
    for c in folded(text).chars() {
        if matches!(c, '%' | '_' | LIKE_ESCAPE) {
            pattern.push(LIKE_ESCAPE);
        }
        pattern.push(c);
    }
    pattern.push('%');
    pattern
}

/// A name as it is searched.
fn folded(name: &str) -> String {
    name.to_lowercase()
}

/// The configuration of a base row, without values.
pub(crate) fn base(row: &Row) -> Result<Configuration, Fault> {
    let mapping = TechnicalMapping::parse(row.text(6)?)
        .ok_or_else(|| StoreError::Internal("a technical mapping of no known kind".to_owned()))?;
    Ok(Configuration {
        id: row.uuid(0)?,
        plugin: row.string(1)?,
        plugin_version: row.string(2)?,
        name: row.string(3)?,
        description: row.optional_text(4)?.map(str::to_owned),
        data_product_id: row.uuid(5)?,
        technical_mapping: mapping,
        platform_id: row.optional_uuid(7)?,
        service_id: row.optional_uuid(8)?,
        revision: row.integer(9)?,
        created_at: row.time(10)?,
        updated_at: row.time(11)?,
        values: Map::new(),
    })
}

/// What the history compares: the values of the base, and those of the fields as `configuration.<field>`, because a
/// field may have the name of one of the base's.
fn described(configuration: &Configuration) -> Map {
    let id = |id: Option<uuid::Uuid>| id.map_or(Json::Null, |id| Json::String(id.to_string()));
    let text = |text: &str| Json::String(text.to_owned());
    let mut map = Map::new();
    let mut put = |key: &str, value: Json| map.insert(key.to_owned(), value);
    put("name", text(&configuration.name));
    put(
        "description",
        configuration
            .description
            .clone()
            .map_or(Json::Null, Json::String),
    );
    put("data_product_id", id(Some(configuration.data_product_id)));
    put(
        "technical_mapping",
        text(configuration.technical_mapping.as_str()),
    );
    put("platform_id", id(configuration.platform_id));
    put("service_id", id(configuration.service_id));
    for (field, value) in &configuration.values {
        map.insert(format!("configuration.{field}"), value.clone());
    }
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_text_stands_for_itself() {
        assert_eq!(containing("50%_of!É"), "%50!%!_of!!é%");
    }

    #[test]
    fn a_page_is_found_by_its_index_on_both_databases() {
        let all = Filters::of(15);
        assert_eq!(all.place(), 15);
        let sqlite = page(Dialect::Sqlite, all).sql;
        assert!(
            sqlite.ends_with(
                r#"WHERE "data_output_configurations"."data_product_id" = ? AND ("data_output_configurations"."configuration_type" || ('')) = ? AND "data_output_configurations"."folded_name" LIKE ? ESCAPE '!' AND ("data_output_configurations"."created_at", "data_output_configurations"."id") < (?, ?) ORDER BY "data_output_configurations"."created_at" DESC, "data_output_configurations"."id" DESC LIMIT ?"#
            ),
            "{sqlite}"
        );
        let postgres = page(Dialect::Postgres, all).sql;
        assert!(
            postgres.contains("< ($4, $5)") && postgres.ends_with("LIMIT $6"),
            "{postgres}"
        );
    }

    /// However many rows there are, a page is read from an index that has its order: nothing is sorted.
    #[test]
    fn no_page_is_sorted() {
        let mut database = rusqlite::Connection::open_in_memory().expect("a database");
        crate::schema::bring_up_to_date(&mut database, std::path::Path::new("x"))
            .expect("a schema");
        for filters in 0..16 {
            let sql = page(Dialect::Sqlite, Filters::of(filters)).sql;
            let mut plan = database
                .prepare(&format!("EXPLAIN QUERY PLAN {sql}"))
                .expect("a plan");
            let steps: Vec<String> = plan
                .raw_query()
                .mapped(|row| row.get("detail"))
                .collect::<Result<_, _>>()
                .expect("steps");
            let index = match Filters::of(filters) {
                Filters {
                    data_product: true, ..
                } => "configurations_by_product",
                Filters { plugin: true, .. } => "configurations_by_plugin",
                _ => "configurations_newest",
            };
            assert!(
                steps[0].contains(&format!("USING INDEX {index}")),
                "{filters}: {steps:?}"
            );
            assert!(
                !steps.iter().any(|step| step.contains("TEMP B-TREE")),
                "{filters}: {steps:?}"
            );
        }
    }

    #[test]
    fn no_page_is_sorted_on_postgres() {
        let cluster = patchbay_test_cluster::Cluster::shared();
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(async {
            let url = cluster.database().await;
            let settings = crate::StoreSettings::new(crate::DatabaseUrl::Postgres(url.clone()));
            let store = crate::Store::open(settings).await.expect("a store");
            let client = patchbay_test_cluster::connect(&url).await;
            // Enough that reading them all is more than reading an index.
            let fill = "INSERT INTO data_products SELECT gen_random_uuid(), 'p', 'p' || n, 'd' FROM generate_series(1, 40) n; \
                 INSERT INTO data_output_configurations SELECT gen_random_uuid(), 'P' || n % 5, '1.0', 'n' || n, 'n' || n, NULL, \
                 (SELECT id FROM data_products WHERE namespace = 'p' || 1 + n % 40), 'default', NULL, NULL, 1, \
                 now() + n * interval '1 second', now() FROM generate_series(1, 20000) n; ANALYZE";
            client.batch_execute(fill).await.expect("rows");
            for filters in 0..16 {
                let filters = Filters::of(filters);
                let mut sql = page(Dialect::Postgres, filters).sql.into_string();
                let mut values = vec!["51"];
                if filters.cursor {
                    values.extend(["'ffffffff-0000-7000-8000-000000000000'", "now() + interval '1 hour'"]);
                }
                values.extend(filters.q.then_some("'%7%'"));
                values.extend(filters.plugin.then_some("'P1'"));
                values.extend(filters.data_product.then_some("(SELECT id FROM data_products LIMIT 1)"));
                for (place, value) in values.iter().rev().enumerate().rev() {
                    sql = sql.replace(&format!("${}", place + 1), value);
                }
                let plan = client.query(&format!("EXPLAIN {sql}"), &[]).await.expect(&sql);
                let plan: Vec<String> = plan.iter().map(|row| row.get(0)).collect();
                let plan = plan.join("\n");
                assert!(plan.contains("Index"), "{plan}");
                let mut wasteful = vec!["Aggregate", "Seq Scan on data_output_configurations"];
                // The rows of one data product may be sorted: they are few.
                wasteful.extend((!filters.data_product).then_some("Sort"));
                assert!(!wasteful.iter().any(|step| plan.contains(step)), "{sql}\n{plan}");
            }
            store.close().await;
        });
    }
}
