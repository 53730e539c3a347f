//! What goes into a hook and what comes out, as plain data.

use std::sync::Arc;
use std::time::Instant;

use futures_util::future::BoxFuture;
use patchbay_plugin::Map;
use patchbay_plugin::catalogue::{Catalogue, Environment};
use patchbay_plugin::configuration::{DataProduct, TechnicalMapping};
use patchbay_plugin::form::UiElement;
use patchbay_plugin::name::PluginName;
use serde_json::Value;
use uuid::Uuid;

/// How a hook reads the catalogue and its plugin's rows.
pub trait CatalogueReader: Send + Sync {
    /// The snapshot, secrets already taken out. It is asked for at most once a call, so a call sees one catalogue.
    fn catalogue(&self) -> Arc<Catalogue>;

    /// The rows of `plugin` that match, or why they cannot be read. The sandbox only ever asks for the rows of the
    /// plugin that is called.
    fn configurations(
        &self,
        plugin: PluginName,
        filter: ConfigurationFilter,
    ) -> BoxFuture<'static, Result<Vec<Map>, String>>;
}

/// Which rows `db:configurations{…}` asks for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConfigurationFilter {
    /// Only those of this data product.
    pub data_product_id: Option<Uuid>,
    /// Only those with these values.
    pub values: Map,
    /// At most this many; 100 where the hook does not say, 1,000 at most.
    pub limit: usize,
}

/// A form, and what it was made from.
#[derive(Clone, Debug, PartialEq)]
pub struct Form {
    /// Whether the catalogue lacks what the form needs; then there are no elements.
    pub not_configured: bool,
    /// The elements, in order.
    pub elements: Vec<UiElement>,
    /// What the hook read, which says when the answer is stale.
    pub reads: Reads,
}

/// What a hook read besides its arguments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reads {
    /// The catalogue.
    pub catalogue: bool,
    /// The plugin's own rows.
    pub configurations: bool,
}

/// A call of `normalize`, `validate` or `url`.
pub struct HookCall {
    /// The configuration's values.
    pub values: Map,
    /// What is known around it.
    pub context: HookContext,
    /// Through which `db` reads.
    pub reader: Arc<dyn CatalogueReader>,
}

/// A call of `render`.
pub struct RenderCall {
    /// The configuration's values.
    pub values: Map,
    /// The template with its fields filled in.
    pub filled: String,
    /// What is known around it.
    pub context: HookContext,
}

/// Stored rows that are to be judged as if they were written anew, many in one call.
pub struct RowsCall {
    /// The rows.
    pub rows: Vec<RowCall>,
    /// Through which `db` reads.
    pub reader: Arc<dyn CatalogueReader>,
    /// When to stop, however many are left.
    pub until: Instant,
    /// How many bytes the answers may take in memory, about, before it stops.
    pub room: usize,
}

/// One of them.
pub struct RowCall {
    /// The values: checked against the fields, unless they are to be carried over first.
    pub values: Map,
    /// The version that wrote it, when `upgrade` shall carry it over.
    pub from_version: Option<Arc<str>>,
    /// The data product.
    pub data_product: Arc<DataProduct>,
    /// The technical mapping; `validate` is asked for `default` only.
    pub technical_mapping: TechnicalMapping,
}

/// What a hook is told besides the configuration. The plugin's settings are added by the sandbox.
#[derive(Clone, Default)]
pub struct HookContext {
    /// The data product.
    pub data_product: Option<DataProduct>,
    /// The technical mapping.
    pub technical_mapping: TechnicalMapping,
    /// The environment.
    pub environment: Option<Environment>,
    /// The entry of the environment's service configuration that belongs to the configuration.
    pub entry: Option<Value>,
    /// The template that is filled.
    pub template: Option<String>,
}
