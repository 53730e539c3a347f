//! How long to wait before something that failed in passing is tried again.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

/// The first pause; each further one is twice as long.
const FIRST: Duration = Duration::from_secs(1);
/// The pause stops growing after this many failures: about a minute.
const GROWS: u32 = 6;

/// A pause that grows while something keeps failing. One wait is under way at a time.
#[derive(Debug, Default)]
pub(crate) struct Pause {
    failures: AtomicU32,
    waiting: AtomicBool,
}

impl Pause {
    /// Notes how the last try went.
    pub(crate) fn note(&self, failed: bool) {
        match failed {
            true => self.failures.fetch_add(1, Ordering::Relaxed),
            false => self.failures.swap(0, Ordering::Relaxed),
        };
    }

    /// How long to wait now; none when somebody waits already.
    pub(crate) fn begin(&self) -> Option<Duration> {
        if self.waiting.swap(true, Ordering::AcqRel) {
            return None;
        }
        let failures = self.failures.load(Ordering::Relaxed).saturating_sub(1);
        Some(FIRST * (1 << failures.min(GROWS)))
    }

    /// The wait is over.
    pub(crate) fn end(&self) {
        self.waiting.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_grows_while_it_fails_and_one_waits_at_a_time() {
        let pause = Pause::default();
        for seconds in [1, 2, 4, 8, 16, 32, 64, 64] {
            pause.note(true);
            assert_eq!(pause.begin(), Some(Duration::from_secs(seconds)));
            assert_eq!(pause.begin(), None);
            pause.end();
        }
        pause.note(false);
        pause.note(true);
        assert_eq!(pause.begin(), Some(Duration::from_secs(1)));
    }
}
