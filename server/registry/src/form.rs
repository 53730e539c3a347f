//! Forms, computed once and kept until something that they were computed from changes.
//!
//! An answer is kept under the catalogue version and the row counter as they were *before* the call, so that a write in
//! between cannot leave a stale one. When a hook fails, the last good form is kept and served, with the reason beside.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use futures_util::future::BoxFuture;
use patchbay_lua::{CatalogueReader, ConfigurationFilter, Form, HookError};
use patchbay_plugin::Map;
use patchbay_plugin::catalogue::Catalogue;
use patchbay_plugin::name::PluginName;
use patchbay_store::{PluginTable, Store};
use time::OffsetDateTime;

use crate::pause::Pause;
use crate::wire::LastError;

/// Keeps the form of one version of a plugin.
#[derive(Default)]
pub(crate) struct FormKeeper {
    kept: ArcSwapOption<KeptForm>,
    computing: tokio::sync::Mutex<()>,
    /// When a form that failed is tried again.
    pub(crate) pause: Pause,
}

/// A form, with what it was computed from.
pub(crate) struct KeptForm {
    catalogue: u64,
    rows: u64,
    /// The last good answer, this one or an earlier one.
    pub(crate) good: Option<Arc<Form>>,
    /// Why there is no newer one.
    pub(crate) failure: Option<Arc<LastError>>,
    /// Whether it was computed from the plugin's rows.
    pub(crate) reads_rows: bool,
    reads_catalogue: bool,
    /// Whether the failure may pass by itself.
    passing: bool,
}

impl KeptForm {
    /// Whether nothing that it was computed from has changed.
    pub(crate) fn is_current(&self, catalogue: u64, rows: u64) -> bool {
        (!self.reads_catalogue || self.catalogue == catalogue)
            && (!self.reads_rows || self.rows == rows)
    }

    /// Whether it failed for a reason that may pass by itself, such as want of time.
    pub(crate) fn is_passing(&self) -> bool {
        self.passing
    }

    /// The same answer, now that the plugin's table is another: what was computed without it, or failed for want of it, is
    /// to be computed again when it is next asked for.
    pub(crate) fn on_another_table(&self) -> KeptForm {
        KeptForm {
            catalogue: self.catalogue,
            rows: u64::MAX,
            good: self.good.clone(),
            failure: self.failure.clone(),
            reads_rows: self.reads_rows,
            reads_catalogue: self.reads_catalogue,
            passing: self.passing,
        }
    }
}

impl FormKeeper {
    /// A keeper that starts with a form computed earlier.
    pub(crate) fn holding(form: Arc<KeptForm>) -> FormKeeper {
        FormKeeper {
            kept: ArcSwapOption::from(Some(form)),
            ..FormKeeper::default()
        }
    }

    /// What is kept, current or not.
    pub(crate) fn peek(&self) -> Option<Arc<KeptForm>> {
        self.kept.load_full()
    }

    /// What is kept, if nothing that it was computed from has changed.
    pub(crate) fn current(&self, plugin: &str, store: &Store) -> Option<Arc<KeptForm>> {
        let kept = self.kept.load_full()?;
        kept.is_current(store.catalogue_version(), store.row_counter(plugin))
            .then_some(kept)
    }

    /// Computes the form, unless somebody who came first just did. Says whether it was computed here.
    pub(crate) async fn compute(
        &self,
        plugin: &patchbay_lua::Plugin,
        store: &Store,
        table: Option<&PluginTable>,
        again: bool,
    ) -> (Arc<KeptForm>, bool) {
        let _computing = self.computing.lock().await;
        let name = plugin.definition().name.as_str();
        if let Some(kept) = self
            .current(name, store)
            .filter(|kept| !again || kept.failure.is_none())
        {
            return (kept, false);
        }
        let form = Arc::new(compute(plugin, store, table, self.kept.load_full().as_deref()).await);
        self.pause.note(form.failure.is_some());
        self.kept.store(Some(form.clone()));
        (form, true)
    }
}

/// Calls `ui_metadata`. `before` is what was kept until now.
pub(crate) async fn compute(
    plugin: &patchbay_lua::Plugin,
    store: &Store,
    table: Option<&PluginTable>,
    before: Option<&KeptForm>,
) -> KeptForm {
    let reader = Reader::new(store, table);
    let catalogue = reader.catalogue.version;
    let rows = store.row_counter(plugin.definition().name.as_str());
    match plugin.ui_metadata(Arc::new(reader)).await {
        Ok(form) => KeptForm {
            catalogue,
            rows,
            reads_rows: form.reads.configurations,
            reads_catalogue: form.reads.catalogue,
            good: Some(Arc::new(form)),
            failure: None,
            passing: false,
        },
        Err(error) => KeptForm {
            catalogue,
            rows,
            reads_rows: true,
            reads_catalogue: true,
            good: before.and_then(|kept| kept.good.clone()),
            failure: Some(Arc::new(hook_failure(
                &error,
                Some(&plugin.definition().version),
            ))),
            passing: !matches!(error, HookError::Raised(_) | HookError::Nonsense(_)),
        },
    }
}

/// A failed hook as answers show it.
pub(crate) fn hook_failure(error: &HookError, version: Option<&str>) -> LastError {
    last_error(error.reports(), "hook", &error.to_string(), version)
}

/// Reports of the sandbox as answers show them: the first in full, all as lines.
pub(crate) fn last_error(
    reports: &[patchbay_lua::Report],
    stage: &str,
    otherwise: &str,
    version: Option<&str>,
) -> LastError {
    let first = reports.first();
    LastError {
        stage: first.map_or(stage, |report| report.stage.word()).to_owned(),
        hook: first.and_then(|report| report.hook).map(str::to_owned),
        message: first.map_or_else(|| otherwise.to_owned(), ToString::to_string),
        file: first.and_then(|report| report.file.clone()),
        line: first.and_then(|report| report.line),
        at: OffsetDateTime::now_utc(),
        version: version.map(str::to_owned),
        mistakes: reports.iter().map(ToString::to_string).collect(),
        reports: reports.to_vec(),
        rows: None,
    }
}

/// What a hook reads the catalogue through: one snapshot, fixed for the call, and the plugin's own rows.
pub(crate) struct Reader {
    catalogue: Arc<Catalogue>,
    store: Store,
    table: Option<PluginTable>,
}

impl Reader {
    pub(crate) fn new(store: &Store, table: Option<&PluginTable>) -> Reader {
        Reader {
            catalogue: store.catalogue(),
            store: store.clone(),
            table: table.cloned(),
        }
    }
}

impl CatalogueReader for Reader {
    fn catalogue(&self) -> Arc<Catalogue> {
        self.catalogue.clone()
    }

    fn configurations(
        &self,
        _plugin: PluginName,
        filter: ConfigurationFilter,
    ) -> BoxFuture<'static, Result<Vec<Map>, String>> {
        let (store, table) = (self.store.clone(), self.table.clone());
        Box::pin(async move {
            let Some(table) = table else {
                return Ok(Vec::new());
            };
            store
                .plugin_rows(&table, filter.data_product_id, filter.values, filter.limit)
                .await
                .map_err(|error| error.to_string())
        })
    }
}
