//! The one task that owns a plugin's VM and polls all its calls.
//!
//! Polling a VM from several tasks contends on its lock and stalls the workers; so all calls of a plugin are polled
//! here, side by side, and everyone else only sends them.

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::future::LocalBoxFuture;
use futures_util::stream::FuturesUnordered;

use crate::clock;
use crate::db::unavailable;
use crate::error::{HookError, Report, Stage};
use crate::explain::explain;
use crate::hooks::{Failure, Normalised, reader_of};
use crate::load::{self, over_memory, over_time};
use crate::log::PluginLog;
use crate::queue::{Call, Next, Refused, Reply, Request, Shared, doze, lock};
use crate::rows;
use crate::running::{Over, Running};
use crate::spec::SpecRun;
use crate::thread::Local;
use crate::vm::{Facts, Stop, Vm};

/// How many calls of one plugin run side by side; the rest wait.
const RUNNING: usize = 64;
/// How many calls an owner finishes before other plugins of its thread get a turn.
const TURN: usize = 32;

/// How many answers are sent together while more calls wait: waking whoever asked costs as much as a small hook.
const BATCH: usize = 4;
/// How long a VM is kept that has only loaded its plugin.
const AFTER_LOAD: Duration = Duration::from_millis(2);
/// How long an owner looks out for the next call before it sleeps.
const LINGER: Duration = Duration::from_micros(40);
/// How soon a call must follow the one before for the owner to look out for the next.
const CLOSE: Duration = Duration::from_micros(60);

/// What became of one call.
struct Ended {
    call: Arc<Call>,
    outcome: Outcome,
}

pub(crate) enum Outcome {
    /// Its answer.
    Answer(Reply),
    /// It ran into a limit, and the VM goes with it.
    Spoilt(Spoilt),
}

#[derive(Clone)]
pub(crate) struct Spoilt {
    error: HookError,
    /// Whether another call may be the one that is to blame.
    doubtful: bool,
    /// Whether it kept the thread to itself for many slices.
    held: bool,
}

/// Owns `shared` until the plugin is closed or given to another owner.
pub(crate) async fn own(shared: Arc<Shared>, owner: u64, local: Rc<Local>) {
    let mut state = Owner {
        log: PluginLog::new(shared.source.shown(&shared.source.entry)),
        shared,
        owner,
        local,
        vm: None,
        running: FuturesUnordered::new(),
        answers: Vec::with_capacity(BATCH),
        alone: false,
        used_vm: false,
        only_loaded: false,
        used: Instant::now(),
        idle_since: None,
        close_together: false,
        named: false,
        idle: None,
        gate: None,
        holds_up: false,
    };
    let guard = CloseOnPanic(state.shared.clone());
    poll_fn(|context| state.poll(context)).await;
    drop(guard);
    state.flush();
    state.drop_vm();
}

/// A fault of ours in a call must not leave the plugin's other callers waiting for ever.
struct CloseOnPanic(Arc<Shared>);

impl Drop for CloseOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.close();
        }
    }
}

struct Owner {
    shared: Arc<Shared>,
    owner: u64,
    local: Rc<Local>,
    log: Rc<PluginLog>,
    vm: Option<Rc<Vm>>,
    running: FuturesUnordered<LocalBoxFuture<'static, Ended>>,
    /// Answers that are ready to be sent.
    answers: Vec<(Arc<Call>, Reply)>,
    /// Whether the call that runs must have the VM for itself.
    alone: bool,
    /// Whether a call has ended on this VM.
    used_vm: bool,
    /// Whether the last of them loaded the plugin.
    only_loaded: bool,
    used: Instant,
    /// Since when nothing runs.
    idle_since: Option<Instant>,
    /// Whether the last call came soon after the one before.
    close_together: bool,
    /// Whether the log has the plugin's name.
    named: bool,
    idle: Option<LocalBoxFuture<'static, ()>>,
    gate: Option<Arc<Gate>>,
    /// Whether its last call held up the thread until its deadline: then calls run one at a time.
    holds_up: bool,
}

/// Wakes a task once all others of its thread had a turn. A task that wakes itself at once is served up to thirty times
/// before the thread looks at those that another thread has woken.
fn after_others(context: &mut Context<'_>) {
    let _ = pin!(tokio::task::yield_now()).poll(context);
}

/// Keeps the wakes that come while calls are polled, so that a call that wants to go on at once waits for others first.
struct Gate {
    state: AtomicU8,
    owner: Waker,
}

/// Wakes go to the owner.
const OPEN: u8 = 0;
/// Calls are polled: wakes are kept.
const CLOSED: u8 = 1;
/// A wake was kept.
const KEPT: u8 = 2;

impl Gate {
    fn close(&self) {
        self.state.store(CLOSED, Ordering::SeqCst);
    }

    /// Gives whether a wake was kept.
    fn open(&self) -> bool {
        self.state.swap(OPEN, Ordering::SeqCst) == KEPT
    }
}

impl Wake for Gate {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let kept = self
            .state
            .compare_exchange(CLOSED, KEPT, Ordering::SeqCst, Ordering::SeqCst);
        if kept == Err(OPEN) {
            self.owner.wake_by_ref();
        }
    }
}

impl Owner {
    /// The gate in front of the owner's task.
    fn gate(&mut self, waker: &Waker) -> Arc<Gate> {
        match &self.gate {
            Some(gate) if gate.owner.will_wake(waker) => gate.clone(),
            _ => self
                .gate
                .insert(Arc::new(Gate {
                    state: AtomicU8::new(OPEN),
                    owner: waker.clone(),
                }))
                .clone(),
        }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let mut finished = 0;
        let began = clock::coarse();
        let gate = self.gate(context.waker());
        let inner = Waker::from(gate.clone());
        gate.close();
        loop {
            let side_by_side = if self.holds_up { 1 } else { RUNNING };
            while self.running.len() < side_by_side {
                match self
                    .shared
                    .next(self.owner, self.running.len(), self.alone, context.waker())
                {
                    Next::Call(call) => self.start(call),
                    Next::Nothing => break,
                    Next::Over => return Poll::Ready(()),
                }
            }
            match self
                .running
                .poll_next_unpin(&mut Context::from_waker(&inner))
            {
                Poll::Ready(Some(ended)) => self.end(ended),
                Poll::Ready(None) | Poll::Pending => break,
            }
            finished += 1;
            let late = clock::coarse().saturating_sub(began) > self.shared.limits.slice;
            if finished >= TURN || late {
                self.flush();
                gate.open();
                after_others(context);
                return Poll::Pending;
            }
        }
        self.flush();
        if gate.open() && !self.running.is_empty() {
            after_others(context);
            return Poll::Pending;
        }
        if self.running.is_empty() {
            self.prepare();
            if self.linger() {
                // A call came, and nobody wakes an owner that was not asleep.
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            if let Next::Over = self.shared.listen(self.owner, context.waker()) {
                return Poll::Ready(());
            }
            self.rest(context);
        }
        Poll::Pending
    }

    /// Uses the quiet after a call to run the plugin's files for the next one.
    fn prepare(&self) {
        let Some(vm) = &self.vm else {
            return;
        };
        if vm.wants_preparing() && !self.shared.has_waiting() {
            let call = Call::none();
            self.local
                .pulse
                .watched(&self.shared, &call, || vm.prepare());
        }
    }

    /// Where calls follow one another closely, looks out for the next one a moment before going to sleep: going to sleep
    /// and being woken costs about as much as a small hook. Gives whether a call came.
    fn linger(&mut self) -> bool {
        let start = Instant::now();
        self.idle_since = Some(start);
        if !self.close_together {
            return false;
        }
        self.shared.hush(self.owner);
        while start.elapsed() < LINGER {
            if self.shared.has_waiting() {
                return true;
            }
            doze();
        }
        self.close_together = false;
        false
    }

    /// Sends the answers that are ready. Until then their calls count as running, so that none is lost with its thread.
    fn flush(&mut self) {
        for (call, reply) in self.answers.drain(..) {
            self.shared.done(self.owner, &call);
            call.answer(reply);
        }
    }

    /// Drops the VM once it has been idle long enough, or at once when too many are kept. One that has only loaded its
    /// plugin goes soon: many are loaded at the start, and where one is called then, it is called right away.
    fn rest(&mut self, context: &mut Context<'_>) {
        loop {
            if self.vm.is_none() {
                self.idle = None;
                return;
            }
            let idle = match self.only_loaded {
                true => AFTER_LOAD.min(self.shared.limits.idle),
                false => self.shared.limits.idle,
            };
            let left = idle.saturating_sub(self.used.elapsed());
            if left.is_zero() || self.shared.was_put_to_rest() || self.local.has_too_many_vms() {
                self.drop_vm();
                continue;
            }
            let idle = self
                .idle
                .get_or_insert_with(|| Box::pin(tokio::time::sleep(left)));
            match idle.as_mut().poll(context) {
                Poll::Ready(()) => self.idle = None,
                Poll::Pending => return,
            }
        }
    }

    fn drop_vm(&mut self) {
        self.running.clear();
        self.used_vm = false;
        if self.vm.take().is_some() {
            self.local.vm_dropped();
        }
    }

    fn start(&mut self, call: Arc<Call>) {
        if let Some(since) = self.idle_since.take() {
            self.close_together = self.local.may_linger && since.elapsed() < CLOSE;
        }
        self.alone = call.alone.load(Ordering::Relaxed);
        if self.alone && self.used_vm {
            // Whatever it runs into then is its own.
            self.drop_vm();
        }
        let vm = match &self.vm {
            Some(vm) => vm.clone(),
            None => {
                // Compiling cannot be interrupted, so the watchdog looks at it too.
                let built = self.local.pulse.watched(&self.shared, &call, || {
                    let shared = &self.shared;
                    load::build(
                        &shared.source,
                        &shared.limits,
                        &self.log,
                        shared.spec.as_ref(),
                    )
                });
                match built {
                    Ok(vm) => {
                        self.local.vm_built();
                        self.vm = Some(vm.clone());
                        vm
                    }
                    Err(report) => {
                        let reply = match call.request {
                            Request::Load => Reply::Loaded(Err(vec![report.into()].into())),
                            _ => Reply::Refused(Refused::Error(HookError::Raised(report))),
                        };
                        self.shared.done(self.owner, &call);
                        call.answer(reply);
                        self.alone = false;
                        return;
                    }
                }
            }
        };
        if !self.named
            && let Some(facts) = self.shared.facts.get()
        {
            self.log.rename(facts.definition.name.as_str());
            self.named = true;
        }
        if let Some(facts) = self.shared.facts.get() {
            vm.habits.get_or_init(|| facts.files.clone());
        }
        let run = run(vm, self.shared.clone(), self.local.clone(), call);
        self.running.push(Box::pin(run));
    }

    fn end(&mut self, ended: Ended) {
        self.alone = false;
        self.used = Instant::now();
        let Ended { call, outcome } = ended;
        match outcome {
            Outcome::Answer(reply) => {
                self.used_vm = true;
                self.holds_up = false;
                self.only_loaded = matches!(call.request, Request::Load);
                self.answers.push((call, reply));
                if self.answers.len() >= BATCH {
                    self.flush();
                }
            }
            Outcome::Spoilt(spoilt) => {
                self.flush();
                self.holds_up = spoilt.held;
                let others = !self.running.is_empty() || self.used_vm;
                self.drop_vm();
                if spoilt.doubtful && others && !call.alone.load(Ordering::Relaxed) {
                    // Another call, or the garbage of one, may have taken the memory. It shows when each runs alone.
                    self.shared.retry_running(self.owner);
                    return;
                }
                self.shared.done(self.owner, &call);
                self.shared.retry_running(self.owner);
                self.refuse(&call, spoilt.error);
            }
        }
    }

    /// Answers a call whose VM is gone. One that asks for many goes on after the one that failed.
    fn refuse(&self, call: &Arc<Call>, error: HookError) {
        if let Request::Rows(rows) = &call.request {
            match rows::refused(rows, call, error) {
                Some(reply) => call.answer(reply),
                None => self.shared.again(self.owner, call),
            }
            return;
        }
        let Request::Render(items) = &call.request else {
            call.answer(Reply::Refused(Refused::Error(error)));
            return;
        };
        let mut rendered = lock(&call.rendered);
        rendered.push(Err(Refused::Error(error.clone())));
        let late = call.since.elapsed() > self.shared.limits.wall;
        if late || rendered.len() >= items.len() {
            while rendered.len() < items.len() {
                rendered.push(Err(Refused::Error(error.clone())));
            }
            call.answer(Reply::Rendered(std::mem::take(&mut *rendered)));
            return;
        }
        drop(rendered);
        self.shared.again(self.owner, call);
    }
}

/// Runs one call to its end.
async fn run(vm: Rc<Vm>, shared: Arc<Shared>, local: Rc<Local>, call: Arc<Call>) -> Ended {
    let outcome = match (&call.request, shared.facts.get()) {
        (Request::Load, _) => load_plugin(&vm, &shared, &local, &call).await,
        (Request::Spec(run), _) => run_spec(&vm, &shared, &local, &call, *run).await,
        (_, None) => Outcome::Answer(Reply::Refused(Refused::Error(HookError::Closed))),
        (Request::Render(_), Some(facts)) => render(&vm, &shared, &local, &call, facts).await,
        (Request::Rows(_), Some(facts)) => rows::judge(&vm, &shared, &local, &call, facts).await,
        (_, Some(facts)) => call_hook(&vm, &shared, &local, &call, facts).await,
    };
    Ended { call, outcome }
}

async fn load_plugin(
    vm: &Rc<Vm>,
    shared: &Arc<Shared>,
    local: &Rc<Local>,
    call: &Arc<Call>,
) -> Outcome {
    let running = vm.begin(None, None);
    let opened = timed(vm, shared, local, call, &running, async {
        load::open(vm, &running, &shared.source).await
    })
    .await;
    running.end();
    Outcome::Answer(match opened {
        Some(opened) => Reply::Loaded(opened),
        None => Reply::Loaded(Err(vec![
            Report::new(Stage::Load, over_time(Over::Wall, &shared.limits))
                .in_file(shared.source.shown(&shared.source.entry))
                .into(),
        ]
        .into())),
    })
}

/// Runs a spec's file, and one of its tests, within the limits of a hook.
async fn run_spec(
    vm: &Rc<Vm>,
    shared: &Arc<Shared>,
    local: &Rc<Local>,
    call: &Arc<Call>,
    run: SpecRun,
) -> Outcome {
    let running = vm.begin(None, None);
    let answered = timed(vm, shared, local, call, &running, async {
        vm.spec(&running, run).await
    })
    .await;
    running.end();
    match answered.unwrap_or(Err(Stop::Over(Over::Wall))) {
        Ok(reply) => Outcome::Answer(Reply::Spec(reply)),
        Err(stop) => match refusal(Failure::Stopped(stop), &running, shared) {
            Ok(refused) => Outcome::Answer(Reply::Refused(refused)),
            Err(spoilt) => Outcome::Spoilt(spoilt),
        },
    }
}

async fn call_hook(
    vm: &Rc<Vm>,
    shared: &Arc<Shared>,
    local: &Rc<Local>,
    call: &Arc<Call>,
    facts: &Facts,
) -> Outcome {
    let reader = match &call.request {
        Request::Form(reader) => Some(reader.clone()),
        Request::Normalize(hook) | Request::Validate(hook) | Request::Url(hook) => reader_of(hook),
        Request::Load | Request::Spec(_) | Request::Render(_) | Request::Rows(_) => None,
    };
    let running = vm.begin(call.request.hook(), reader);
    let answered = timed(vm, shared, local, call, &running, async {
        Ok(match &call.request {
            Request::Form(_) => Reply::Form(vm.form(&running, facts).await?),
            Request::Normalize(hook) => {
                let (values, context) = (&hook.values, &hook.context);
                let normalised = vm.normalize(&running, facts, values, context).await?;
                Reply::Normalized(normalised.map(|normalised| match normalised {
                    Normalised::Same => values.clone(),
                    Normalised::To(values) => values,
                }))
            }
            Request::Validate(hook) => {
                let (values, context) = (&hook.values, &hook.context);
                Reply::Validated(vm.validate(&running, facts, values, context).await?)
            }
            Request::Url(hook) => Reply::Link(vm.url(&running, facts, hook).await?),
            Request::Load | Request::Spec(_) | Request::Render(_) | Request::Rows(_) => {
                Reply::Refused(Refused::Error(HookError::Closed))
            }
        })
    })
    .await;
    running.end();
    match answered.unwrap_or(Err(Failure::Stopped(Stop::Over(Over::Wall)))) {
        Ok(reply) => Outcome::Answer(reply),
        Err(failure) => match refusal(failure, &running, shared) {
            Ok(refused) => Outcome::Answer(Reply::Refused(refused)),
            Err(spoilt) => Outcome::Spoilt(spoilt),
        },
    }
}

async fn render(
    vm: &Rc<Vm>,
    shared: &Arc<Shared>,
    local: &Rc<Local>,
    call: &Arc<Call>,
    facts: &Facts,
) -> Outcome {
    let Request::Render(items) = &call.request else {
        return Outcome::Answer(Reply::Rendered(Vec::new()));
    };
    let from = lock(&call.rendered).len();
    for item in items.iter().skip(from) {
        let running = vm.begin(Some("render"), None);
        let rendered = timed(vm, shared, local, call, &running, async {
            vm.render(&running, facts, item).await
        })
        .await;
        running.end();
        let rendered = match rendered.unwrap_or(Err(Failure::Stopped(Stop::Over(Over::Wall)))) {
            Ok(text) => Ok(text),
            Err(failure) => match refusal(failure, &running, shared) {
                Ok(refused) => Err(refused),
                Err(spoilt) => return Outcome::Spoilt(spoilt),
            },
        };
        lock(&call.rendered).push(rendered);
    }
    Outcome::Answer(Reply::Rendered(std::mem::take(&mut *lock(&call.rendered))))
}

/// What a failure means: an answer, or the end of the VM.
pub(crate) fn refusal(
    failure: Failure,
    running: &Running,
    shared: &Shared,
) -> Result<Refused, Spoilt> {
    let source = &shared.source;
    let limits = &shared.limits;
    let report = |message: String| {
        let (file, line) = running.place().unzip();
        Report::new(Stage::Hook, message)
            .in_file(file.unwrap_or_else(|| source.shown(&source.entry)))
            .at_line(line)
            .in_hook(running.hook)
    };
    match failure {
        Failure::Nonsense(mistakes) => Ok(Refused::Nonsense(mistakes)),
        Failure::Stopped(Stop::Raised(error)) => {
            if let Some(reason) = unavailable(&error) {
                return Ok(Refused::Error(HookError::Unavailable(reason)));
            }
            let explained = explain(&error, source);
            Ok(Refused::Error(HookError::Raised(
                Report::new(Stage::Hook, explained.message)
                    .in_file(
                        explained
                            .file
                            .unwrap_or_else(|| source.shown(&source.entry)),
                    )
                    .at_line(explained.line)
                    .in_hook(running.hook),
            )))
        }
        // A call that waited too long leaves the VM as it was.
        Failure::Stopped(Stop::Over(Over::Wall)) => Ok(Refused::Error(HookError::Deadline(
            report(over_time(Over::Wall, limits)),
        ))),
        Failure::Stopped(Stop::Over(over)) => Err(Spoilt {
            error: HookError::Deadline(report(over_time(over, limits))),
            doubtful: false,
            held: running.longest.get() > limits.slice * 8,
        }),
        Failure::Stopped(Stop::Memory) => Err(Spoilt {
            error: HookError::Memory(report(over_memory(limits))),
            doubtful: true,
            held: false,
        }),
    }
}

/// Polls a call under its deadline, its wall clock and the watchdog's eyes. None when the wall clock ran out.
pub(crate) async fn timed<T>(
    vm: &Rc<Vm>,
    shared: &Arc<Shared>,
    local: &Rc<Local>,
    call: &Arc<Call>,
    running: &Rc<Running>,
    future: impl Future<Output = T>,
) -> Option<T> {
    let mut future = pin!(future);
    let mut wall: Option<LocalBoxFuture<'static, ()>> = None;
    poll_fn(|context| {
        let polled = local.pulse.watched(shared, call, || {
            vm.slot.run(running, || future.as_mut().poll(context))
        });
        if let Poll::Ready(value) = polled {
            return Poll::Ready(Some(value));
        }
        // Most calls never wait, and pay for no timer.
        let wall = wall.get_or_insert_with(|| Box::pin(tokio::time::sleep(shared.limits.wall)));
        wall.as_mut().poll(context).map(|()| None)
    })
    .await
}
