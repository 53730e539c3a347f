//! Forms, computed once and kept until something that they were computed from changes.
//!
//! An answer is kept under the catalogue version and the row counter as they were *before* the call, so that a write in
//! between cannot leave a stale one. When a hook fails, the last good form is kept and served, with the reason beside.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use futures_util::future::BoxFuture;
use patchbay_lua::{CatalogueReader, ConfigurationFilter, Form, HookError, Stage};
use patchbay_plugin::Map;
use patchbay_plugin::catalogue::Catalogue;
use patchbay_plugin::name::PluginName;
use patchbay_store::{PluginTable, Store};
use time::OffsetDateTime;

use crate::wire::LastError;

/// The first pause before a form that failed for want of time or memory is tried again; it doubles each time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Keeps the form of one version of a plugin.
#[derive(Default)]
pub(crate) struct FormKeeper {
    kept: ArcSwapOption<KeptForm>,
    computing: tokio::sync::Mutex<()>,
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
    /// When a failure that may pass is tried again, and after what pause.
    retry: Option<Duration>,
}

impl KeptForm {
    fn is_current(&self, catalogue: u64, rows: u64) -> bool {
        (!self.reads_catalogue || self.catalogue == catalogue)
            && (!self.reads_rows || self.rows == rows)
    }

    /// After what pause the failure is worth another try.
    pub(crate) fn retry(&self) -> Option<Duration> {
        self.retry
    }
}

impl FormKeeper {
    /// A keeper that starts with a form computed earlier.
    pub(crate) fn holding(form: Arc<KeptForm>) -> FormKeeper {
        FormKeeper {
            kept: ArcSwapOption::from(Some(form)),
            computing: tokio::sync::Mutex::default(),
        }
    }

    /// What is kept, current or not.
    pub(crate) fn peek(&self) -> Option<Arc<KeptForm>> {
        self.kept.load_full()
    }

    /// Forgets that the last call failed, so that the next one tries again.
    pub(crate) fn retry_now(&self) {
        if let Some(kept) = self.kept.load_full()
            && kept.failure.is_some()
        {
            self.kept.store(Some(Arc::new(KeptForm {
                catalogue: u64::MAX,
                reads_catalogue: true,
                good: kept.good.clone(),
                failure: kept.failure.clone(),
                ..*kept
            })));
        }
    }

    /// The current form. Calls for one plugin that come at once compute it once.
    pub(crate) async fn current(
        &self,
        plugin: &patchbay_lua::Plugin,
        store: &Store,
        table: Option<&PluginTable>,
    ) -> (Arc<KeptForm>, bool) {
        let name = plugin.definition().name.as_str();
        let is_current =
            |kept: &KeptForm| kept.is_current(store.catalogue().version, store.row_counter(name));
        if let Some(kept) = self.kept.load_full().filter(|kept| is_current(kept)) {
            return (kept, false);
        }
        let _computing = self.computing.lock().await;
        if let Some(kept) = self.kept.load_full().filter(|kept| is_current(kept)) {
            return (kept, false);
        }
        let form = Arc::new(compute(plugin, store, table, self.kept.load_full().as_deref()).await);
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
            retry: None,
        },
        Err(error) => {
            let may_pass = !matches!(error, HookError::Raised(_) | HookError::Nonsense(_));
            let pause = match before.and_then(|kept| kept.retry) {
                Some(pause) => (pause * 2).min(LONGEST_PAUSE),
                None => FIRST_PAUSE,
            };
            KeptForm {
                catalogue,
                rows,
                reads_rows: true,
                reads_catalogue: true,
                good: before.and_then(|kept| kept.good.clone()),
                failure: Some(Arc::new(hook_failure(
                    &error,
                    Some(&plugin.definition().version),
                ))),
                retry: may_pass.then_some(pause),
            }
        }
    }
}

/// A failed hook as answers show it.
pub(crate) fn hook_failure(error: &HookError, version: Option<&str>) -> LastError {
    let reports: &[patchbay_lua::Report] = match error {
        HookError::Raised(report)
        | HookError::Deadline(report)
        | HookError::Memory(report)
        | HookError::Stuck(report) => std::slice::from_ref(report),
        HookError::Nonsense(reports) => reports,
        HookError::Busy | HookError::Closed => &[],
    };
    last_error(reports, "hook", &error.to_string(), version)
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
        stage: first
            .map_or(stage, |report| stage_word(report.stage))
            .to_owned(),
        hook: first.and_then(|report| report.hook).map(str::to_owned),
        message: first.map_or_else(|| otherwise.to_owned(), ToString::to_string),
        file: first.and_then(|report| report.file.clone()),
        line: first.and_then(|report| report.line),
        at: OffsetDateTime::now_utc(),
        version: version.map(str::to_owned),
        mistakes: reports.iter().map(ToString::to_string).collect(),
    }
}

/// The stages of the sandbox, in the words that answers use.
fn stage_word(stage: Stage) -> &'static str {
    match stage {
        Stage::Read => "read",
        Stage::Parse => "parse",
        Stage::Load => "load",
        Stage::Definition => "definition",
        Stage::Settings => "settings",
        Stage::Migration => "migration",
        Stage::Hook => "hook",
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
