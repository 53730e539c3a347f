//! The clocks of the interrupt.
//!
//! It asks for the time at every loop iteration and call of Lua code, so it asks a coarse clock, which Linux keeps beside
//! the exact one: some milliseconds behind at most, and several times cheaper. What a long call has run is told by the
//! thread's own clock, which stands still while others have the processor: a busy machine is no fault of a plugin.

use std::time::Duration;

/// The time since some moment in the past; good to a few milliseconds.
#[cfg(target_os = "linux")]
pub(crate) fn coarse() -> Duration {
    read(rustix::time::ClockId::MonotonicCoarse)
}

/// How long this thread has run.
#[cfg(target_os = "linux")]
pub(crate) fn thread() -> Duration {
    read(rustix::time::ClockId::ThreadCPUTime)
}

#[cfg(target_os = "linux")]
fn read(clock: rustix::time::ClockId) -> Duration {
    let time = rustix::time::clock_gettime(clock);
    Duration::new(
        time.tv_sec.unsigned_abs(),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}

/// The time since some moment in the past.
#[cfg(not(target_os = "linux"))]
pub(crate) fn coarse() -> Duration {
    use std::sync::OnceLock;
    use std::time::Instant;
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed()
}

/// How long this thread has run; here, the time on the clock.
#[cfg(not(target_os = "linux"))]
pub(crate) fn thread() -> Duration {
    coarse()
}
