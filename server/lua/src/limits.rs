//! What a plugin may use.

use std::time::Duration;

/// The limits of a sandbox. They hold for each plugin alone; one plugin's use never counts against another.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The running time of one call: what it spends in Lua and in conversions, not what it waits.
    pub deadline: Duration,
    /// The time from a call's first step to its last, waiting included.
    pub wall: Duration,
    /// What one plugin's VM may hold, in bytes.
    pub memory: usize,
    /// How long a call runs before others of its thread get a turn.
    pub slice: Duration,
    /// How many calls of one plugin may wait for their turn; one more is refused as busy.
    pub waiting: usize,
    /// The running time of a plugin's files at their top level, when it is loaded and again before each call.
    pub load_deadline: Duration,
    /// How long a VM is kept after its last call.
    pub idle: Duration,
    /// How many threads run Lua. At least one is started.
    pub threads: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            deadline: Duration::from_millis(250),
            wall: Duration::from_secs(5),
            memory: 32 * 1024 * 1024,
            slice: Duration::from_millis(2),
            waiting: 64,
            load_deadline: Duration::from_secs(1),
            idle: Duration::from_secs(30),
            threads: 2,
        }
    }
}
