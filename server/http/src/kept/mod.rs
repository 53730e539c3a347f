//! Answers that are kept encoded, by key, so that a warm read costs little more than sending the bytes.
//!
//! An answer is kept under the registry's stamp, taken *before* it is computed: a change in between gives the entry a
//! stamp that is no longer current, so it is never served after the change. A stampede computes once, because whoever
//! asks for the same key at the same stamp waits for the one who came first. Errors are shared by those who waited, and
//! kept for nobody.
//!
//! `key` says which answers are kept, `entry` holds one, encoded.
//!
//! Only keys that were answered are kept, so unknown names leave nothing behind, and their number is bounded.

mod entry;
mod key;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use tokio::sync::OnceCell;

use crate::error::ApiError;

pub(crate) use self::entry::Entry;
pub(crate) use self::key::{Key, Kind};

/// How many forms are kept at most, counting each name and alias under which one was asked for.
const MAX_FORMS: usize = 4096;

/// The kept answers. `S` is the stamp.
#[derive(Debug)]
pub(crate) struct Kept<S> {
    /// Those without a name, by the number of their kind.
    single: [ArcSwapOption<Entry<S>>; 3],
    forms: RwLock<HashMap<Box<str>, Arc<Entry<S>>>>,
    flights: Mutex<HashMap<Key<'static>, Arc<Flight<S>>>>,
}

/// One computation under way, and those who wait for it.
#[derive(Debug)]
struct Flight<S> {
    stamp: S,
    outcome: OnceCell<Result<Arc<Entry<S>>, ApiError>>,
}

/// A place among those who wait. The last to leave takes the flight off the board, however it leaves: its client may
/// have gone away.
struct Seat<'a, S> {
    kept: &'a Kept<S>,
    key: Key<'static>,
    flight: Arc<Flight<S>>,
}

impl<S> Drop for Seat<'_, S> {
    fn drop(&mut self) {
        let mut flights = self
            .kept
            .flights
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let is_mine = flights
            .get(&self.key)
            .is_some_and(|flight| Arc::ptr_eq(flight, &self.flight));
        // The board and this seat hold it, and nobody can take a seat while the board is locked.
        if is_mine && Arc::strong_count(&self.flight) == 2 {
            flights.remove(&self.key);
        }
    }
}

impl<S: Copy + Eq> Kept<S> {
    /// No answers yet.
    pub(crate) fn new() -> Self {
        Self {
            single: Default::default(),
            forms: RwLock::default(),
            flights: Mutex::default(),
        }
    }

    /// The answer of a key, if one is kept that is valid under a stamp.
    pub(crate) fn find(&self, key: &Key<'_>, stamp: S) -> Option<Arc<Entry<S>>> {
        let entry = match self.single.get(key.kind as usize) {
            Some(slot) => slot.load_full(),
            None => {
                let forms = self.forms.read().unwrap_or_else(PoisonError::into_inner);
                forms.get(&*key.name).cloned()
            }
        };
        entry.filter(|entry| entry.stamp == stamp)
    }

    /// The answer of a key: the kept one, else what `compute` gives, which is called by one of all who ask meanwhile.
    pub(crate) async fn answer(
        &self,
        key: &Key<'_>,
        stamp: S,
        compute: impl AsyncFnOnce() -> Result<Bytes, ApiError>,
    ) -> Result<Arc<Entry<S>>, ApiError> {
        if let Some(entry) = self.find(key, stamp) {
            return Ok(entry);
        }
        let seat = self.board(key, stamp);
        let land = || async {
            // The flight before this one may have landed between the look and the seat.
            if let Some(entry) = self.find(key, stamp) {
                return Ok(entry);
            }
            let entry = Arc::new(Entry::new(stamp, compute().await?));
            self.keep(key, &entry);
            Ok(entry)
        };
        seat.flight.outcome.get_or_init(land).await.clone()
    }

    fn board(&self, key: &Key<'_>, stamp: S) -> Seat<'_, S> {
        let key = key.owned();
        let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        let flight = match flights.get(&key) {
            Some(flight) if flight.stamp == stamp => Arc::clone(flight),
            // What the other computes is not valid for this request any more.
            _ => {
                let flight = Arc::new(Flight {
                    stamp,
                    outcome: OnceCell::new(),
                });
                flights.insert(key.clone(), Arc::clone(&flight));
                flight
            }
        };
        Seat {
            kept: self,
            key,
            flight,
        }
    }

    fn keep(&self, key: &Key<'_>, entry: &Arc<Entry<S>>) {
        if let Some(slot) = self.single.get(key.kind as usize) {
            slot.store(Some(Arc::clone(entry)));
            return;
        }
        let mut forms = self.forms.write().unwrap_or_else(PoisonError::into_inner);
        if forms.len() >= MAX_FORMS && !forms.contains_key(&*key.name) {
            forms.retain(|_, other| other.stamp == entry.stamp);
            if forms.len() >= MAX_FORMS {
                return;
            }
        }
        forms.insert(key.name.as_ref().into(), Arc::clone(entry));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::FutureExt;
    use tokio::sync::Notify;

    use super::*;

    fn computed(text: &str) -> Bytes {
        Bytes::copy_from_slice(text.as_bytes())
    }

    #[tokio::test]
    async fn an_answer_is_valid_while_its_stamp_is() {
        let kept = Kept::new();
        let key = Key::form("A");
        kept.answer(&key, 1, || async { Ok(computed("one")) })
            .await
            .expect("kept");
        assert!(kept.find(&key, 1).is_some());
        assert!(kept.find(&key, 2).is_none());
        assert!(kept.find(&Key::form("a"), 1).is_none());
        let entry = kept
            .answer(&key, 2, || async { Ok(computed("two")) })
            .await
            .expect("kept");
        assert_eq!(entry.body, "two");
        let again = kept
            .answer(&key, 2, || async { Ok(computed("three")) })
            .await
            .expect("kept");
        assert_eq!(again.body, "two");
    }

    #[tokio::test]
    async fn an_error_is_not_kept() {
        let kept = Kept::new();
        let failing = Key::form("gone");
        let error = kept
            .answer(&failing, 1, || async { Err(ApiError::not_found("gone")) })
            .await;
        assert_eq!(error.expect_err("an error").status(), 404);
        assert!(kept.find(&failing, 1).is_none());
        assert!(kept.forms.read().expect("a map").is_empty());
        assert!(kept.flights.lock().expect("a board").is_empty());
    }

    #[tokio::test]
    async fn a_stampede_computes_once_and_a_leader_who_leaves_is_replaced() {
        let kept = Kept::new();
        let key = Key::form("A");
        let (calls, gate) = (AtomicUsize::new(0), Notify::new());
        let ask = || {
            kept.answer(&key, 1, || async {
                calls.fetch_add(1, Ordering::SeqCst);
                gate.notified().await;
                Ok(computed("x"))
            })
        };
        let mut leader = Box::pin(ask());
        assert!((&mut leader).now_or_never().is_none());
        let mut others: Vec<_> = (0..20).map(|_| Box::pin(ask())).collect();
        for other in &mut others {
            assert!(other.now_or_never().is_none());
        }
        assert_eq!(calls.load(Ordering::SeqCst), 1);
        drop(leader);
        gate.notify_one();
        for other in others {
            assert_eq!(other.await.expect("kept").body, "x");
        }
        assert_eq!(calls.load(Ordering::SeqCst), 2);
        assert!(kept.flights.lock().expect("a board").is_empty());
    }

    #[tokio::test]
    async fn the_number_of_forms_is_bounded() {
        let kept = Kept::new();
        for number in 0..MAX_FORMS + 10 {
            let key = Key::form(number.to_string());
            kept.answer(&key, 1, || async { Ok(computed("x")) })
                .await
                .expect("kept");
        }
        assert_eq!(kept.forms.read().expect("a map").len(), MAX_FORMS);
        let key = Key::form("newer");
        kept.answer(&key, 2, || async { Ok(computed("x")) })
            .await
            .expect("kept");
        assert_eq!(kept.forms.read().expect("a map").len(), 1);
    }
}
