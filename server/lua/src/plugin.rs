//! The handle on one loaded version of a plugin.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

use patchbay_plugin::Map;
use patchbay_plugin::definition::{Definition, Incompatibility};
use patchbay_plugin::field::parse_values;
use patchbay_plugin::form::{derived_form, unexplained_fields};
use patchbay_plugin::term::{Mistake, Path};
use patchbay_plugin::validation::Loc;

use crate::admission::Unadmitted;
use crate::call::{CatalogueReader, Form, HookCall, Reads, RenderCall, RowsCall};
use crate::error::{FieldError, HookError, NormalizeError, Report, Stage, UrlError};
use crate::hooks::Link;
use crate::load::Unplaced;
use crate::positions::{Places, place_all, place_answer};
use crate::queue::{Refused, Reply, Request, Shared};
use crate::rows::NotJudged;
use crate::sandbox::Threads;
use crate::vm::Facts;

/// One loaded version of a plugin. A cheap handle: when the last clone is dropped, its VM goes too.
///
/// A hook that a plugin does not have is answered here, without Lua.
#[derive(Clone)]
pub struct Plugin {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    libs: OnceLock<BTreeSet<String>>,
    places: Places,
    /// Kept running, too.
    threads: Arc<Threads>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl Plugin {
    pub(crate) fn new(shared: Arc<Shared>, threads: Arc<Threads>) -> Plugin {
        Plugin {
            inner: Arc::new(Inner {
                shared,
                libs: OnceLock::new(),
                places: Places::default(),
                threads,
            }),
        }
    }

    pub(crate) fn loaded(&self, facts: Facts, libs: BTreeSet<String>) {
        let _ = self.inner.shared.facts.set(facts);
        let _ = self.inner.libs.set(libs);
    }

    fn facts(&self) -> &Facts {
        match self.inner.shared.facts.get() {
            Some(facts) => facts,
            None => unreachable!("a plugin is handed out once it is loaded"),
        }
    }

    /// What the plugin is.
    pub fn definition(&self) -> &Arc<Definition> {
        &self.facts().definition
    }

    /// The shared modules it was made from, by their keys in [`crate::Source::libs`]: when one of them changes, the plugin
    /// is to be loaded again.
    pub fn required_libs(&self) -> &BTreeSet<String> {
        self.inner.libs.get_or_init(BTreeSet::new)
    }

    /// Lets go of the memory that its calls need, because none is expected soon. The next call builds it again.
    pub fn rest(&self) {
        self.inner.shared.rest();
    }

    /// Its form. Without the hook it is derived from the fields.
    ///
    /// # Errors
    /// The hook failed.
    pub async fn ui_metadata(&self, reader: Arc<dyn CatalogueReader>) -> Result<Form, HookError> {
        if !self.definition().hooks.ui_metadata {
            return Ok(Form {
                not_configured: false,
                elements: derived_form(&self.definition().fields),
                reads: Reads::default(),
            });
        }
        match self.ask(Request::Form(reader)).await {
            Reply::Form(form) => match form.read(&self.definition().fields) {
                Ok(form) => Ok(form),
                Err(mistakes) => Err(self.nonsense("ui_metadata", mistakes).await),
            },
            other => Err(self.refusal("ui_metadata", other).await),
        }
    }

    /// What its form lacks for whoever fills it in, such as labels and tooltips, each with its place. Nothing of it stops
    /// anything. A form that fails, or is not configured, lacks nothing that could be told.
    pub async fn unexplained(&self, reader: Arc<dyn CatalogueReader>) -> Vec<Report> {
        let (definition, source) = (self.definition(), &self.inner.shared.source);
        let mut reports = if definition.hooks.ui_metadata {
            match self.ask(Request::Form(reader)).await {
                Reply::Form(form) => {
                    let mistakes = form.unexplained(&definition.fields);
                    place_answer("ui_metadata", mistakes, source, &self.inner.places).await
                }
                _ => Vec::new(),
            }
        } else {
            let mistakes = unexplained_fields(&definition.fields).into_iter();
            let unplaced = mistakes.map(|mistake| {
                Unplaced::in_file(Stage::Definition, mistake, &source.entry, source)
            });
            place_all(unplaced.collect(), source).await
        };
        source.add_lines(&mut reports);
        reports
    }

    /// A report about its definition that is made elsewhere: something wrong, or odd, at the path of the mistake.
    pub async fn report(&self, stage: Stage, mistake: Mistake) -> Report {
        let source = &self.inner.shared.source;
        let unplaced = Unplaced::in_file(stage, mistake, &source.entry, source);
        self.placed(unplaced).await
    }

    /// The report that it does not fit this Patchbay, with its place.
    pub async fn misfit(&self, misfit: &Incompatibility) -> Report {
        let source = &self.inner.shared.source;
        let path = Path::default().key(misfit.key);
        let unplaced = Unplaced {
            report: Report::incompatible(misfit).in_file(source.shown(&source.entry)),
            place: Some((source.entry.clone(), path, false)),
        };
        self.placed(unplaced).await
    }

    async fn placed(&self, unplaced: Unplaced) -> Report {
        let source = &self.inner.shared.source;
        let otherwise = unplaced.report.clone();
        let mut reports = place_all(vec![unplaced], source).await;
        source.add_lines(&mut reports);
        reports.pop().unwrap_or(otherwise)
    }

    /// The values as they are to be stored. Without the hook they are as they were. What comes back is plain data, but
    /// not yet checked against the fields.
    ///
    /// # Errors
    /// The hook rejected the configuration, or failed.
    pub async fn normalize(&self, call: HookCall) -> Result<Map, NormalizeError> {
        if !self.definition().hooks.normalize {
            return Ok(call.values);
        }
        match self.ask(Request::Normalize(call)).await {
            Reply::Normalized(Ok(values)) => Ok(values),
            Reply::Normalized(Err(errors)) => Err(NormalizeError::Rejected(errors)),
            other => Err(self.refusal("normalize", other).await.into()),
        }
    }

    /// What is wrong with a configuration by the plugin's own rules; nothing without the hook.
    ///
    /// # Errors
    /// The hook failed.
    pub async fn validate(&self, call: HookCall) -> Result<Vec<FieldError>, HookError> {
        if !self.definition().hooks.validate {
            return Ok(Vec::new());
        }
        match self.ask(Request::Validate(call)).await {
            Reply::Validated(errors) => Ok(errors),
            other => Err(self.refusal("validate", other).await),
        }
    }

    /// Filled templates, finished. Each is a call of its own, with its own deadline, but all go in one hop. Without the
    /// hook each is `filled` as it was.
    pub async fn render(&self, calls: Vec<RenderCall>) -> Vec<Result<String, HookError>> {
        if !self.definition().hooks.render {
            return calls.into_iter().map(|call| Ok(call.filled)).collect();
        }
        let wanted = calls.len();
        if wanted == 0 {
            return Vec::new();
        }
        match self.ask(Request::Render(calls)).await {
            Reply::Rendered(rendered) => {
                let mut answers = Vec::with_capacity(rendered.len());
                for one in rendered {
                    answers.push(match one {
                        Ok(text) => Ok(text),
                        Err(refused) => Err(self.refused("render", refused).await),
                    });
                }
                answers
            }
            other => {
                let error = self.refusal("render", other).await;
                vec![Err(error); wanted]
            }
        }
    }

    /// Judges stored rows as if they were written anew: `upgrade` for those that are to be carried over, the fields,
    /// `normalize`, and `validate` for the mapping `default`. All go in one hop, but no row sees what another has left.
    ///
    /// There is an answer for each row, none where the time was up: the values as they are to be stored for a row that
    /// was carried over, nothing for another, or why it would be refused.
    pub async fn judge_rows(
        &self,
        mut call: RowsCall,
    ) -> Vec<Option<Result<Option<Map>, Unadmitted>>> {
        let definition = self.definition();
        let hooks = definition.hooks;
        let mut answers: Vec<Option<Result<Option<Map>, Unadmitted>>> =
            Vec::with_capacity(call.rows.len());
        // What the fields say is found out here, so that the Lua thread is free for what only it can do.
        let mut asked = Vec::with_capacity(call.rows.len());
        for (place, mut row) in std::mem::take(&mut call.rows).into_iter().enumerate() {
            answers.push(None);
            if hooks.upgrade && row.from_version.is_some() {
                asked.push(place);
                call.rows.push(row);
                continue;
            }
            row.from_version = None;
            match parse_values(&definition.fields, &row.values, &Loc::new()) {
                Err(errors) => answers[place] = Some(Err(Unadmitted::Invalid(errors))),
                Ok(_) if !hooks.normalize && !hooks.validate => answers[place] = Some(Ok(None)),
                Ok(values) => {
                    row.values = values;
                    asked.push(place);
                    call.rows.push(row);
                }
            }
        }
        if asked.is_empty() {
            return answers;
        }
        match self.ask(Request::Rows(call)).await {
            Reply::Judged(judged) => {
                for (place, judged) in asked.into_iter().zip(judged) {
                    answers[place] = Some(match judged {
                        Ok(values) => Ok(values),
                        Err(NotJudged::Refused(unadmitted)) => Err(unadmitted),
                        Err(NotJudged::Hook(hook, refused)) => {
                            Err(Unadmitted::Hook(self.refused(hook, refused).await))
                        }
                    });
                }
            }
            other => {
                let error = self.refusal("validate", other).await;
                answers[asked[0]] = Some(Err(Unadmitted::Hook(error)));
            }
        }
        answers
    }

    /// The link.
    ///
    /// # Errors
    /// The plugin has no such hook, the hook refused, or it failed.
    pub async fn url(&self, call: HookCall) -> Result<String, UrlError> {
        if !self.definition().hooks.url {
            return Err(UrlError::Missing);
        }
        match self.ask(Request::Url(call)).await {
            Reply::Link(Link::To(url)) => Ok(url),
            Reply::Link(Link::NotFound(message)) => Err(UrlError::NotFound(message)),
            Reply::Link(Link::BadRequest(message)) => Err(UrlError::BadRequest(message)),
            other => Err(self.refusal("url", other).await.into()),
        }
    }

    async fn ask(&self, request: Request) -> Reply {
        self.inner.threads.count_hook_calls(request.hook_calls());
        self.inner.shared.ask(request).await
    }

    async fn refusal(&self, hook: &'static str, reply: Reply) -> HookError {
        match reply {
            Reply::Refused(refused) => self.refused(hook, refused).await,
            _ => unreachable!("a call is answered as what it asked"),
        }
    }

    async fn refused(&self, hook: &'static str, refused: Refused) -> HookError {
        match refused {
            Refused::Error(mut error) => {
                self.inner.shared.source.add_lines(error.reports_mut());
                error
            }
            Refused::Nonsense(mistakes) => self.nonsense(hook, mistakes).await,
        }
    }

    async fn nonsense(&self, hook: &'static str, mistakes: Vec<Mistake>) -> HookError {
        let source = &self.inner.shared.source;
        let mut reports = place_answer(hook, mistakes, source, &self.inner.places).await;
        source.add_lines(&mut reports);
        HookError::Nonsense(reports)
    }
}

impl std::fmt::Debug for Plugin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plugin")
            .field("name", &self.definition().name)
            .field("version", &self.definition().version)
            .finish()
    }
}
