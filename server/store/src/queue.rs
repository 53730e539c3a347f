//! A bounded queue between async callers and the threads that own connections. Putting something in never waits; taking
//! something out does, on a thread that may.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::error::StoreError;

pub(crate) struct Queue<T> {
    state: Mutex<State<T>>,
    filled: Condvar,
    bound: usize,
}

struct State<T> {
    items: VecDeque<T>,
    closed: bool,
}

/// What came out of a queue.
pub(crate) enum Taken<T> {
    Item(T),
    /// Nothing came in time.
    Nothing,
    /// The queue is closed, and empty for good.
    Closed,
}

impl<T> Queue<T> {
    pub(crate) fn new(bound: usize) -> Queue<T> {
        Queue {
            state: Mutex::new(State {
                items: VecDeque::new(),
                closed: false,
            }),
            filled: Condvar::new(),
            bound,
        }
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        // Nothing in here can panic half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts an item at the end, or says that the queue is full or closed.
    pub(crate) fn put(&self, item: T) -> Result<(), StoreError> {
        let mut state = self.state();
        if state.closed {
            return Err(StoreError::Closed);
        }
        if state.items.len() >= self.bound {
            return Err(StoreError::Busy);
        }
        state.items.push_back(item);
        drop(state);
        self.filled.notify_one();
        Ok(())
    }

    /// Takes the first item, waiting at most `wait` for one; without a bound, until the queue is closed.
    pub(crate) fn take(&self, wait: Option<Duration>) -> Taken<T> {
        let until = wait.map(|wait| Instant::now() + wait);
        let mut state = self.state();
        loop {
            if let Some(item) = state.items.pop_front() {
                return Taken::Item(item);
            }
            if state.closed {
                return Taken::Closed;
            }
            state = match until {
                None => self
                    .filled
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner),
                Some(until) => {
                    let left = until.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Taken::Nothing;
                    }
                    self.filled
                        .wait_timeout(state, left)
                        .unwrap_or_else(PoisonError::into_inner)
                        .0
                }
            };
        }
    }

    /// Takes, without waiting, the items at the front that `fits`, at most `most`.
    pub(crate) fn take_while(&self, most: usize, fits: impl Fn(&T) -> bool, into: &mut Vec<T>) {
        let mut state = self.state();
        while into.len() < most && state.items.front().is_some_and(&fits) {
            into.extend(state.items.pop_front());
        }
    }

    /// Lets nothing more in. What is in it is still taken.
    pub(crate) fn close(&self) {
        self.state().closed = true;
        self.filled.notify_all();
    }
}
