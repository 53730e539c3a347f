//! Stored rows, judged many in one call: one hop to the plugin's thread, and there one hook after the other.
//!
//! The steps are those of [`Plugin::admit`](crate::Plugin::admit), which takes one hop for each; a test holds the two equal.
//!
//! Each hook of each row is a call of its own for everything that a plugin could notice: it has its own deadline, its own
//! `db`, its own tables, and finds the files as they were left, or run anew where the plugin is not
//! [steady](crate::steady). What rows share is only what is outside the VM. After a slice others of the thread get a turn.

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use patchbay_plugin::Map;
use patchbay_plugin::field::{parse_values, weight_of};
use patchbay_plugin::validation::Loc;

use crate::admission::{Unadmitted, has_rules};
use crate::call::{HookContext, RowCall, RowsCall};
use crate::clock;
use crate::error::HookError;
use crate::hooks::{Failure, Normalised};
use crate::owner::{Outcome, Spoilt, refusal, timed};
use crate::queue::{Call, Refused, Reply, Request, Shared, lock};
use crate::running::{Over, Running};
use crate::thread::Local;
use crate::vm::{Facts, Stop, Vm};

/// After how many rows that ran past their deadline no more are judged: the rest would be no better, and each takes as long
/// as a hook may.
const MAX_LATE: usize = 5;

/// What became of one row: for one that was carried over, its values.
pub(crate) type Judged = Result<Option<Map>, NotJudged>;

/// Why a row is not fine.
pub(crate) enum NotJudged {
    /// It would be refused.
    Refused(Unadmitted),
    /// A hook gave no answer.
    Hook(&'static str, Refused),
}

/// Where the hooks of one call run.
struct Judge<'a> {
    vm: &'a Rc<Vm>,
    shared: &'a Arc<Shared>,
    local: &'a Rc<Local>,
    call: &'a Arc<Call>,
    facts: &'a Facts,
    wanted: &'a RowsCall,
    /// What the row before was told, because rows of one data product are told the same.
    context: Option<HookContext>,
}

/// Judges the rows of a call that are not judged yet, as long as there is time.
pub(crate) async fn judge(
    vm: &Rc<Vm>,
    shared: &Arc<Shared>,
    local: &Rc<Local>,
    call: &Arc<Call>,
    facts: &Facts,
) -> Outcome {
    let Request::Rows(wanted) = &call.request else {
        return Outcome::Answer(Reply::Judged(Vec::new()));
    };
    let mut judge = Judge {
        vm,
        shared,
        local,
        call,
        facts,
        wanted,
        context: None,
    };
    let (from, mut taken) = {
        let judged = lock(&call.judged);
        (judged.len(), judged.iter().map(weight).sum::<usize>())
    };
    let mut began = clock::coarse();
    for row in wanted.rows.iter().skip(from) {
        if Instant::now() >= wanted.until || taken > wanted.room {
            break;
        }
        if clock::coarse().saturating_sub(began) > shared.limits.slice {
            give_way().await;
            began = clock::coarse();
        }
        match judge.row(row).await {
            Ok(judged) => {
                taken = taken.saturating_add(weight(&judged));
                lock(&call.judged).push(judged);
            }
            Err(spoilt) => return Outcome::Spoilt(spoilt),
        }
    }
    Outcome::Answer(Reply::Judged(std::mem::take(&mut *lock(&call.judged))))
}

/// Notes that the VM went with the row that was being judged. Gives the answer when there is no more to do.
pub(crate) fn refused(wanted: &RowsCall, call: &Call, error: HookError) -> Option<Reply> {
    let mut judged = lock(&call.judged);
    let hook = error
        .reports()
        .first()
        .and_then(|report| report.hook)
        .unwrap_or("validate");
    judged.push(Err(NotJudged::Hook(hook, Refused::Error(error))));
    let is_late = |judged: &&Judged| {
        matches!(
            judged,
            Err(NotJudged::Hook(_, Refused::Error(HookError::Deadline(_))))
        )
    };
    let done = judged.len() >= wanted.rows.len()
        || Instant::now() >= wanted.until
        || judged.iter().filter(is_late).count() >= MAX_LATE;
    done.then(|| Reply::Judged(std::mem::take(&mut *judged)))
}

/// How many bytes an answer takes, about.
fn weight(judged: &Judged) -> usize {
    match judged {
        Ok(None) => 0,
        Ok(Some(values)) => weight_of(values),
        Err(NotJudged::Refused(Unadmitted::Rejected { errors, values })) => {
            let told = errors.iter().map(|error| error.message.len());
            weight_of(values) + told.sum::<usize>()
        }
        Err(_) => 1024,
    }
}

/// Lets others of the thread have a turn.
async fn give_way() {
    let mut gave = false;
    poll_fn(|context| {
        if std::mem::replace(&mut gave, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

impl Judge<'_> {
    /// Judges one row, or says that the VM goes with it.
    async fn row(&mut self, row: &RowCall) -> Result<Judged, Spoilt> {
        match self.try_row(row).await {
            Ok(values) => Ok(Ok(values)),
            Err(Halt::Not(reason)) => Ok(Err(reason)),
            Err(Halt::Spoilt(spoilt)) => Err(spoilt),
        }
    }

    async fn try_row(&mut self, row: &RowCall) -> Result<Option<Map>, Halt> {
        let definition = &self.facts.definition;
        let (fields, hooks) = (&definition.fields, definition.hooks);
        let slip = |errors| Halt::Not(NotJudged::Refused(Unadmitted::Slip(errors)));
        let rejected = |errors, values: &Map| {
            let values = values.clone();
            Halt::Not(NotJudged::Refused(Unadmitted::Rejected { errors, values }))
        };
        let mut changed: Option<Map> = None;
        if let Some(version) = &row.from_version {
            let running = self.vm.begin(Some("upgrade"), None);
            let upgrade = self.vm.upgrade(&running, self.facts, &row.values, version);
            let upgraded = self.hook(&running, upgrade).await?;
            let upgraded = upgraded.map_err(|errors| rejected(errors, &row.values))?;
            changed = Some(parse_values(fields, &upgraded, &Loc::new()).map_err(slip)?);
        }
        if !hooks.normalize && !hooks.validate {
            return Ok(changed);
        }
        let context = self.context_of(row);
        if hooks.normalize {
            let values = changed.as_ref().unwrap_or(&row.values);
            let running = self
                .vm
                .begin(Some("normalize"), Some(self.wanted.reader.clone()));
            let normalize = self.vm.normalize(&running, self.facts, values, &context);
            match self.hook(&running, normalize).await? {
                Err(errors) => return Err(rejected(errors, values)),
                Ok(Normalised::Same) => {}
                Ok(Normalised::To(values)) => {
                    changed = Some(parse_values(fields, &values, &Loc::new()).map_err(slip)?);
                }
            }
        }
        if has_rules(definition, &context) {
            let values = changed.as_ref().unwrap_or(&row.values);
            let running = self
                .vm
                .begin(Some("validate"), Some(self.wanted.reader.clone()));
            let validate = self.vm.validate(&running, self.facts, values, &context);
            let errors = self.hook(&running, validate).await?;
            if !errors.is_empty() {
                return Err(rejected(errors, values));
            }
        }
        self.context = Some(context);
        Ok(changed.filter(|_| row.from_version.is_some()))
    }

    /// What hooks are told of a row.
    fn context_of(&mut self, row: &RowCall) -> HookContext {
        let same = self.context.take().filter(|context| {
            context.technical_mapping == row.technical_mapping
                && context.data_product.as_ref() == Some(&*row.data_product)
        });
        same.unwrap_or_else(|| HookContext {
            data_product: Some((*row.data_product).clone()),
            technical_mapping: row.technical_mapping,
            ..HookContext::default()
        })
    }

    /// Runs one hook to its end.
    async fn hook<T>(
        &self,
        running: &Rc<Running>,
        hook: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Halt> {
        let answered = timed(self.vm, self.shared, self.local, self.call, running, hook).await;
        running.end();
        let name = running.hook.unwrap_or("validate");
        match answered.unwrap_or(Err(Failure::Stopped(Stop::Over(Over::Wall)))) {
            Ok(answer) => Ok(answer),
            Err(failure) => Err(match refusal(failure, running, self.shared) {
                Ok(refused) => Halt::Not(NotJudged::Hook(name, refused)),
                Err(spoilt) => Halt::Spoilt(spoilt),
            }),
        }
    }
}

/// Why the judgement of a row ended early.
enum Halt {
    /// It is not fine.
    Not(NotJudged),
    /// The VM goes with it.
    Spoilt(Spoilt),
}
