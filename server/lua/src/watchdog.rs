//! The watchdog: it replaces a thread on which one poll does not end.
//!
//! The interrupt stops Lua code, and natives are bounded; what is left is what neither reaches. It cannot be stopped,
//! only left behind. The watchdog sleeps while nothing runs.
//!
//! Before it falls asleep it gives the memory of VMs that were dropped back to the system: it is the one who knows that
//! nothing runs.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::thread::Thread;
use std::time::Duration;

use crate::limits::Limits;
use crate::sandbox::Threads;

/// How the Lua threads wake the watchdog when the first call begins after a quiet time.
#[derive(Default)]
pub(crate) struct Alarm {
    asleep: AtomicBool,
    closed: AtomicBool,
    /// Whether a VM was dropped whose memory is still with the process.
    dropped: AtomicBool,
    watchdog: OnceLock<Thread>,
}

impl Alarm {
    /// Called after a beat was written. Costs one load while the watchdog is awake.
    pub(crate) fn rouse(&self) {
        if self.asleep.load(Ordering::SeqCst) && self.asleep.swap(false, Ordering::SeqCst) {
            self.wake();
        }
    }

    /// A VM was dropped.
    pub(crate) fn vm_dropped(&self) {
        self.dropped.store(true, Ordering::SeqCst);
        self.rouse();
    }

    /// Ends the watchdog.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.wake();
    }

    fn wake(&self) {
        if let Some(watchdog) = self.watchdog.get() {
            watchdog.unpark();
        }
    }
}

/// How long a poll may take before its thread counts as stuck: as long as a call may run, and as long again for natives
/// that are slow and machines that are busy.
fn patience(limits: &Limits) -> Duration {
    let longest = limits.deadline.max(limits.load_deadline);
    longest * 2 + Duration::from_millis(250)
}

/// How many looks make up the patience. Looks are counted, not time: while the whole process is held, none are made.
const LOOKS: u32 = 20;

/// What the watchdog last saw of one thread.
#[derive(Clone, Copy, Default)]
pub(crate) struct Seen {
    beats: u64,
    looks: u32,
}

impl Seen {
    /// Looks once more. Gives whether anything ran since, and whether the thread counts as stuck.
    pub(crate) fn look(&mut self, beats: u64) -> (bool, bool) {
        let running = beats % 2 == 1;
        let changed = beats != self.beats;
        if running && !changed {
            self.looks += 1;
        } else {
            self.looks = 0;
        }
        self.beats = beats;
        (running || changed, self.looks > LOOKS)
    }
}

/// Starts the watchdog of a sandbox; it ends with it.
pub(crate) fn start(threads: &Arc<Threads>) -> std::io::Result<()> {
    let alarm = threads.alarm.clone();
    let pause = (patience(&threads.limits) / LOOKS).max(Duration::from_millis(1));
    let threads = Arc::downgrade(threads);
    std::thread::Builder::new()
        .name("lua-watchdog".to_owned())
        .stack_size(512 * 1024)
        .spawn(move || watch(&threads, &alarm, pause))?;
    Ok(())
}

fn watch(threads: &Weak<Threads>, alarm: &Alarm, pause: Duration) {
    let _ = alarm.watchdog.set(std::thread::current());
    let mut seen: Vec<Seen> = Vec::new();
    let mut look = || threads.upgrade().map(|threads| threads.look(&mut seen));
    loop {
        let Some(busy) = look() else { return };
        if !busy {
            if alarm.dropped.swap(false, Ordering::SeqCst) {
                patchbay_heap::give_back();
            }
            alarm.asleep.store(true, Ordering::SeqCst);
            // A call that began before it could see this is seen here.
            match look() {
                None => return,
                Some(true) => alarm.asleep.store(false, Ordering::SeqCst),
                // So is a VM that was dropped before that.
                Some(false) if alarm.dropped.load(Ordering::SeqCst) => {
                    alarm.asleep.store(false, Ordering::SeqCst);
                }
                Some(false) => {
                    while alarm.asleep.load(Ordering::SeqCst) {
                        if alarm.closed.load(Ordering::SeqCst) {
                            return;
                        }
                        std::thread::park();
                    }
                }
            }
        }
        if alarm.closed.load(Ordering::SeqCst) {
            return;
        }
        std::thread::park_timeout(pause);
    }
}
