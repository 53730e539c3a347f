//! A Lua thread: an OS thread with a single-threaded runtime, on which VMs live and never leave.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};

use tokio::sync::mpsc;
use tokio::task::LocalSet;

use crate::owner::own;
use crate::queue::{Call, Shared, lock};
use crate::watchdog::Alarm;

/// The stack of a Lua thread, in bytes. Luau's compiler recurses as deep as the source nests, up to its own limit.
const STACK: usize = 8 * 1024 * 1024;
/// How many idle VMs one thread keeps. One is about 200 KiB, and is built again in less than a millisecond.
const KEPT_VMS: usize = 16;

/// What a Lua thread is told.
pub(crate) enum Order {
    /// Own this plugin, with this number of owner.
    Own(Arc<Shared>, u64),
    /// End.
    Stop,
}

/// The outside of a Lua thread.
pub(crate) struct LuaThread {
    orders: mpsc::UnboundedSender<Order>,
    pub(crate) pulse: Arc<Pulse>,
    plugins: Mutex<Vec<Weak<Shared>>>,
}

impl LuaThread {
    pub(crate) fn start(alarm: Arc<Alarm>) -> std::io::Result<LuaThread> {
        let (orders, inbox) = mpsc::unbounded_channel();
        let pulse = Arc::new(Pulse::new(alarm));
        let inner = pulse.clone();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()?;
        std::thread::Builder::new()
            .name("lua".to_owned())
            .stack_size(STACK)
            .spawn(move || work(&runtime, inbox, inner))?;
        Ok(LuaThread {
            orders,
            pulse,
            plugins: Mutex::default(),
        })
    }

    /// Makes this thread the home of a plugin.
    pub(crate) fn host(&self, shared: &Arc<Shared>, owner: u64) {
        {
            let mut plugins = lock(&self.plugins);
            plugins.retain(|plugin| plugin.strong_count() > 0);
            plugins.push(Arc::downgrade(shared));
        }
        // A thread that is gone answers nothing, and its calls end as closed.
        let _ = self.orders.send(Order::Own(shared.clone(), owner));
    }

    /// The plugins that live here, to be moved.
    pub(crate) fn take_plugins(&self) -> Vec<Arc<Shared>> {
        std::mem::take(&mut *lock(&self.plugins))
            .iter()
            .filter_map(Weak::upgrade)
            .collect()
    }

    /// Tells the thread to end, which it does as soon as it can.
    pub(crate) fn stop(&self) {
        let _ = self.orders.send(Order::Stop);
    }
}

fn work(
    runtime: &tokio::runtime::Runtime,
    mut inbox: mpsc::UnboundedReceiver<Order>,
    pulse: Arc<Pulse>,
) {
    let local = Rc::new(Local {
        pulse: pulse.clone(),
        vms: Cell::new(0),
        // On a single processor whoever would call could not.
        may_linger: std::thread::available_parallelism().is_ok_and(|count| count.get() > 1),
    });
    let tasks = LocalSet::new();
    tasks.block_on(runtime, async move {
        while let Some(Order::Own(shared, owner)) = inbox.recv().await {
            tokio::task::spawn_local(own(shared, owner, local.clone()));
        }
    });
    drop(tasks);
    pulse.ended();
}

/// What the tasks of one Lua thread share.
pub(crate) struct Local {
    pub(crate) pulse: Arc<Pulse>,
    vms: Cell<usize>,
    /// Whether an owner may look out for the next call instead of sleeping.
    pub(crate) may_linger: bool,
}

impl Local {
    pub(crate) fn vm_built(&self) {
        self.vms.set(self.vms.get() + 1);
    }

    pub(crate) fn vm_dropped(&self) {
        self.vms.set(self.vms.get().saturating_sub(1));
        self.pulse.alarm.vm_dropped();
    }

    pub(crate) fn has_too_many_vms(&self) -> bool {
        self.vms.get() > KEPT_VMS
    }
}

/// What the watchdog sees of a thread: how often it began and ended to poll a call, and which.
pub(crate) struct Pulse {
    /// Odd while a call is polled.
    beats: AtomicU64,
    who: Mutex<Option<(Arc<Shared>, Arc<Call>)>>,
    /// The plugin that held this thread up, to be let go when the thread comes back.
    culprit: Mutex<Option<Arc<Shared>>>,
    ended: AtomicBool,
    alarm: Arc<Alarm>,
}

impl Pulse {
    pub(crate) fn new(alarm: Arc<Alarm>) -> Pulse {
        Pulse {
            beats: AtomicU64::new(0),
            who: Mutex::new(None),
            culprit: Mutex::new(None),
            ended: AtomicBool::new(false),
            alarm,
        }
    }

    /// Does a piece of a call's work while the watchdog looks.
    pub(crate) fn watched<T>(
        &self,
        shared: &Arc<Shared>,
        call: &Arc<Call>,
        work: impl FnOnce() -> T,
    ) -> T {
        *lock(&self.who) = Some((shared.clone(), call.clone()));
        self.beats.fetch_add(1, Ordering::SeqCst);
        self.alarm.rouse();
        let done = work();
        self.beats.fetch_add(1, Ordering::SeqCst);
        *lock(&self.who) = None;
        done
    }

    pub(crate) fn beats(&self) -> u64 {
        self.beats.load(Ordering::SeqCst)
    }

    pub(crate) fn who(&self) -> Option<(Arc<Shared>, Arc<Call>)> {
        lock(&self.who).clone()
    }

    /// Remembers which plugin is to be let go when the thread ends.
    pub(crate) fn blame(&self, shared: Arc<Shared>) {
        *lock(&self.culprit) = Some(shared);
        if self.ended.load(Ordering::SeqCst) {
            self.ended();
        }
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }

    pub(crate) fn ended(&self) {
        self.ended.store(true, Ordering::SeqCst);
        if let Some(shared) = lock(&self.culprit).take() {
            shared.unstick();
        }
    }
}
