//! The calls of one plugin: those that wait and those that run.
//!
//! All of them are held here, outside any Lua thread, so that a thread that is stuck can be left behind: its successor
//! finds every call where it was.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Waker;
use std::time::{Duration, Instant};

use patchbay_plugin::Map;
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;

use crate::call::{CatalogueReader, HookCall, RenderCall, RowsCall};
use crate::error::{FieldError, HookError, Report};
use crate::hooks::{Link, RawForm};
use crate::limits::Limits;
use crate::load::{Failed, Loaded};
use crate::rows::Judged;
use crate::source::Source;
use crate::spec::{SpecHost, SpecReply, SpecRun};
use crate::vm::Facts;
use patchbay_plugin::term::Mistake;

/// What is asked of a plugin.
pub(crate) enum Request {
    Load,
    Form(Arc<dyn CatalogueReader>),
    Normalize(HookCall),
    Validate(HookCall),
    Render(Vec<RenderCall>),
    Url(HookCall),
    Rows(RowsCall),
    Spec(SpecRun),
}

impl Request {
    /// The hook that answers it.
    pub(crate) fn hook(&self) -> Option<&'static str> {
        match self {
            Request::Load | Request::Spec(_) | Request::Rows(_) => None,
            Request::Form(_) => Some("ui_metadata"),
            Request::Normalize(_) => Some("normalize"),
            Request::Validate(_) => Some("validate"),
            Request::Render(_) => Some("render"),
            Request::Url(_) => Some("url"),
        }
    }

    /// How many hooks it calls, as far as that is known before.
    pub(crate) fn hook_calls(&self) -> usize {
        match self {
            Request::Load | Request::Spec(_) => 0,
            Request::Render(calls) => calls.len(),
            Request::Rows(call) => call.rows.len(),
            Request::Form(_) | Request::Normalize(_) | Request::Validate(_) | Request::Url(_) => 1,
        }
    }
}

/// Why a call has no answer. Mistakes still lack their lines.
pub(crate) enum Refused {
    Error(HookError),
    Nonsense(Vec<Mistake>),
}

/// What a call came to.
pub(crate) enum Reply {
    Loaded(Result<Loaded, Failed>),
    Form(RawForm),
    Normalized(Result<Map, Vec<FieldError>>),
    Validated(Vec<FieldError>),
    Rendered(Vec<Result<String, Refused>>),
    Link(Link),
    /// As many as there was time for.
    Judged(Vec<Judged>),
    Spec(SpecReply),
    Refused(Refused),
}

/// One call.
pub(crate) struct Call {
    pub(crate) request: Request,
    pub(crate) since: Instant,
    /// Whether it runs with no other beside it, because the VM it shared was spoilt.
    pub(crate) alone: AtomicBool,
    /// Whether it lost its thread once already.
    pub(crate) moved: AtomicBool,
    /// The answers so far, of a call that asks for many.
    pub(crate) rendered: Mutex<Vec<Result<String, Refused>>>,
    /// The same, of a call that asks for many rows to be judged.
    pub(crate) judged: Mutex<Vec<Judged>>,
    reply: Mutex<Option<oneshot::Sender<Reply>>>,
}

impl Call {
    fn new(request: Request) -> (Arc<Call>, oneshot::Receiver<Reply>) {
        let (sender, receiver) = oneshot::channel();
        let call = Arc::new(Call {
            request,
            since: Instant::now(),
            alone: AtomicBool::new(false),
            moved: AtomicBool::new(false),
            rendered: Mutex::default(),
            judged: Mutex::default(),
            reply: Mutex::new(Some(sender)),
        });
        (call, receiver)
    }

    /// A call that nobody makes, for work that is done ahead of one.
    pub(crate) fn none() -> Arc<Call> {
        Call::new(Request::Load).0
    }

    /// Answers it; whoever comes first does.
    pub(crate) fn answer(&self, reply: Reply) {
        if let Some(sender) = lock(&self.reply).take() {
            // Whoever asked may have gone away; then nobody misses the answer.
            let _ = sender.send(reply);
        }
    }

    /// Whether nobody waits for the answer any more.
    pub(crate) fn is_answered_or_left(&self) -> bool {
        lock(&self.reply)
            .as_ref()
            .is_none_or(oneshot::Sender::is_closed)
    }
}

/// What the plugin's handle, its owner on a Lua thread and the watchdog share.
pub(crate) struct Shared {
    pub(crate) source: Arc<Source>,
    pub(crate) limits: Limits,
    /// Set once the plugin is loaded.
    pub(crate) facts: OnceLock<Facts>,
    /// What the functions of a spec work with, when this is one.
    pub(crate) spec: Option<Arc<SpecHost>>,
    calls: Mutex<Calls>,
    /// Whether `calls` has, or had a moment ago, one that waits.
    arrived: AtomicBool,
    /// Whether no call is expected soon.
    at_rest: AtomicBool,
    /// Whether the last call was answered so soon that waiting for the next one awake costs less than sleeping.
    quick: AtomicBool,
}

/// How often a caller looks for its answer before other tasks of its thread have a turn.
const LOOKS: u32 = 8;

/// Waits for some hundred nanoseconds, and leaves the core to the other thread that may share it.
pub(crate) fn doze() {
    for _ in 0..8 {
        std::hint::spin_loop();
    }
}

/// How soon a call must be answered for whoever makes the next one to wait for it awake, and for how long that is.
const QUICK: Duration = Duration::from_micros(100);

#[derive(Default)]
struct Calls {
    waiting: VecDeque<Arc<Call>>,
    running: Vec<Arc<Call>>,
    /// Counts the owners: one that is not the latest does nothing any more.
    owner: u64,
    /// Wakes the owner. Taken when it is used, so that a busy owner is not woken again and again.
    wake: Option<Waker>,
    /// Why no call is taken: a thread that this plugin holds up has not come back.
    stuck: Option<Report>,
    closed: bool,
}

/// What an owner finds when it asks for work.
pub(crate) enum Next {
    Call(Arc<Call>),
    /// Nothing for now.
    Nothing,
    /// It is no longer the owner, or the plugin is closed.
    Over,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing here leaves its data half-changed when it panics.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(crate) fn new(source: Arc<Source>, limits: Limits) -> Arc<Shared> {
        Shared::of(source, limits, None)
    }

    /// A spec in the place of a plugin.
    pub(crate) fn for_spec(
        source: Arc<Source>,
        limits: Limits,
        spec: Arc<SpecHost>,
    ) -> Arc<Shared> {
        Shared::of(source, limits, Some(spec))
    }

    fn of(source: Arc<Source>, limits: Limits, spec: Option<Arc<SpecHost>>) -> Arc<Shared> {
        Arc::new(Shared {
            source,
            limits,
            facts: OnceLock::new(),
            spec,
            calls: Mutex::default(),
            arrived: AtomicBool::new(false),
            at_rest: AtomicBool::new(false),
            quick: AtomicBool::new(false),
        })
    }

    /// Hands a call to the plugin and waits for its answer.
    pub(crate) async fn ask(&self, request: Request) -> Reply {
        let (call, mut receiver) = Call::new(request);
        let asked = call.since;
        let (wake, is_only) = {
            let mut calls = lock(&self.calls);
            if calls.closed {
                return Reply::Refused(Refused::Error(HookError::Closed));
            }
            if let Some(report) = &calls.stuck {
                let report = report.clone().in_hook(call.request.hook());
                return Reply::Refused(Refused::Error(HookError::Stuck(report)));
            }
            if calls.waiting.len() >= self.limits.waiting {
                return Reply::Refused(Refused::Error(HookError::Busy));
            }
            let is_only = calls.waiting.is_empty() && calls.running.is_empty();
            calls.waiting.push_back(call);
            self.arrived.store(true, Ordering::Release);
            (calls.wake.take(), is_only)
        };
        if let Some(wake) = wake {
            wake.wake();
        }
        // A processor that sleeps takes longer to wake than a small hook to run. So where calls follow one another one
        // by one and are answered soon, their caller stays awake for a moment, and lets other tasks run meanwhile; its
        // owner does the same on its side.
        let mut looks = 0_u32;
        while is_only && self.quick.load(Ordering::Relaxed) && asked.elapsed() < QUICK {
            match receiver.try_recv() {
                Ok(reply) => return reply,
                Err(TryRecvError::Empty) => doze(),
                Err(TryRecvError::Closed) => break,
            }
            looks += 1;
            if looks.is_multiple_of(LOOKS) {
                tokio::task::yield_now().await;
            }
        }
        let reply = receiver.await;
        self.quick.store(asked.elapsed() < QUICK, Ordering::Relaxed);
        reply.unwrap_or(Reply::Refused(Refused::Error(HookError::Closed)))
    }

    /// The next call that `owner` may start. `running` is how many it runs, `alone` whether one of them must have the
    /// VM for itself.
    pub(crate) fn next(&self, owner: u64, running: usize, alone: bool, waker: &Waker) -> Next {
        let mut calls = lock(&self.calls);
        if calls.owner != owner || calls.closed {
            return Next::Over;
        }
        if !calls
            .wake
            .as_ref()
            .is_some_and(|wake| wake.will_wake(waker))
        {
            calls.wake = Some(waker.clone());
        }
        while calls
            .waiting
            .front()
            .is_some_and(|call| call.is_answered_or_left())
        {
            calls.waiting.pop_front();
        }
        let Some(first) = calls.waiting.front() else {
            self.arrived.store(false, Ordering::Release);
            return Next::Nothing;
        };
        if alone || (running > 0 && first.alone.load(Ordering::Relaxed)) {
            return Next::Nothing;
        }
        let Some(call) = calls.waiting.pop_front() else {
            return Next::Nothing;
        };
        calls.running.push(call.clone());
        Next::Call(call)
    }

    /// Whether a call waits. Cheap enough to be asked in a loop.
    pub(crate) fn has_waiting(&self) -> bool {
        self.arrived.load(Ordering::Acquire)
    }

    /// Tells the owner that no call is expected soon, so that it need not keep the VM.
    pub(crate) fn rest(&self) {
        self.at_rest.store(true, Ordering::Release);
        if let Some(wake) = lock(&self.calls).wake.take() {
            wake.wake();
        }
    }

    /// Whether [`Shared::rest`] was called since the last time this was asked.
    pub(crate) fn was_put_to_rest(&self) -> bool {
        self.at_rest.swap(false, Ordering::AcqRel)
    }

    /// The owner is awake and will look by itself: nobody needs to wake it.
    pub(crate) fn hush(&self, owner: u64) {
        let mut calls = lock(&self.calls);
        if calls.owner == owner {
            calls.wake = None;
        }
    }

    /// The owner goes to sleep, to be woken by the next call; at once, if one came in between.
    pub(crate) fn listen(&self, owner: u64, waker: &Waker) -> Next {
        let mut calls = lock(&self.calls);
        if calls.owner != owner || calls.closed {
            return Next::Over;
        }
        if calls.waiting.is_empty() {
            calls.wake = Some(waker.clone());
        } else {
            waker.wake_by_ref();
        }
        Next::Nothing
    }

    /// A call is no longer running.
    pub(crate) fn done(&self, owner: u64, call: &Arc<Call>) {
        let mut calls = lock(&self.calls);
        if calls.owner == owner {
            calls.running.retain(|other| !Arc::ptr_eq(other, call));
        }
    }

    /// Puts every running call of `owner` back in front, each to run alone: the VM they shared is gone.
    pub(crate) fn retry_running(&self, owner: u64) {
        let mut calls = lock(&self.calls);
        if calls.owner != owner {
            return;
        }
        let running = std::mem::take(&mut calls.running);
        for call in running.into_iter().rev() {
            call.alone.store(true, Ordering::Relaxed);
            calls.waiting.push_front(call);
        }
    }

    /// Puts a call that is not done yet back in front.
    pub(crate) fn again(&self, owner: u64, call: &Arc<Call>) {
        let mut calls = lock(&self.calls);
        if calls.owner == owner {
            calls.waiting.push_front(call.clone());
        }
    }

    /// Makes the next owner the only one, and gives its number.
    pub(crate) fn new_owner(&self) -> u64 {
        let mut calls = lock(&self.calls);
        calls.owner += 1;
        calls.owner
    }

    /// Takes the plugin from a thread that is stuck. Gives the number of its next owner.
    ///
    /// `culprit` is the call that holds the thread up, when it is this plugin's. It fails, and so does every further
    /// call until [`Shared::unstick`]. All other calls run again, once.
    pub(crate) fn leave(&self, culprit: Option<(&Arc<Call>, &Report)>) -> u64 {
        let mut calls = lock(&self.calls);
        calls.owner += 1;
        let owner = calls.owner;
        let running = std::mem::take(&mut calls.running);
        if let Some((call, report)) = culprit {
            calls.stuck = Some(report.clone());
            call.answer(stuck(report, call));
            let waiting = std::mem::take(&mut calls.waiting);
            for call in running.iter().chain(&waiting) {
                call.answer(stuck(report, call));
            }
            return owner;
        }
        for call in running.into_iter().rev() {
            if call.moved.swap(true, Ordering::Relaxed) {
                let report = Report::new(
                    crate::error::Stage::Hook,
                    "its thread was held up by another plugin, twice",
                );
                call.answer(stuck(&report, &call));
            } else {
                calls.waiting.push_front(call);
            }
        }
        owner
    }

    /// The thread that this plugin held up has come back.
    pub(crate) fn unstick(&self) {
        lock(&self.calls).stuck = None;
    }

    /// Ends the plugin: nothing is called any more, and its owner goes.
    pub(crate) fn close(&self) {
        let (left, wake) = {
            let mut calls = lock(&self.calls);
            calls.closed = true;
            let waiting = std::mem::take(&mut calls.waiting);
            let running = std::mem::take(&mut calls.running);
            (waiting.into_iter().chain(running), calls.wake.take())
        };
        for call in left {
            call.answer(Reply::Refused(Refused::Error(HookError::Closed)));
        }
        if let Some(wake) = wake {
            wake.wake();
        }
    }
}

fn stuck(report: &Report, call: &Call) -> Reply {
    let report = report.clone().in_hook(call.request.hook());
    Reply::Refused(Refused::Error(HookError::Stuck(report)))
}
