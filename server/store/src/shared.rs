//! What the store keeps in memory beside the database: the catalogue's snapshot, counters that say what has moved, and
//! what was read of applied definitions and data products.
//!
//! A counter moves after the commit and before the writer is answered. So whoever takes the counters first and reads
//! afterwards can keep what it read for as long as they stand still.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use arc_swap::ArcSwap;
use patchbay_plugin::catalogue::Catalogue;
use patchbay_plugin::configuration::DataProduct;
use tokio::sync::watch;
use uuid::Uuid;

/// How many data products are kept; beyond it they are forgotten and read again.
const KEPT_PRODUCTS: usize = 10_000;

pub(crate) struct Shared {
    pub(crate) catalogue: ArcSwap<Catalogue>,
    /// Part of every plugin's counter; moves with foreign writes.
    foreign_writes: AtomicU64,
    counters: RwLock<HashMap<String, u64>>,
    changes: watch::Sender<u64>,
    products: Mutex<Products>,
}

#[derive(Default)]
struct Products {
    /// Moves whenever something is forgotten, so that what was read before is not kept after.
    forgotten: u64,
    kept: HashMap<Uuid, Arc<DataProduct>>,
}

/// What a committed job has written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Touched {
    /// Nothing that anybody keeps.
    Nothing,
    /// Rows of a plugin.
    Rows(String),
    /// A plugin's table, or its definition.
    Definition(String),
    /// Data products.
    Products,
    /// The catalogue.
    Catalogue,
}

impl Shared {
    pub(crate) fn new(catalogue: Catalogue) -> Shared {
        Shared {
            catalogue: ArcSwap::from_pointee(catalogue),
            foreign_writes: AtomicU64::new(0),
            counters: RwLock::default(),
            changes: watch::Sender::new(0),
            products: Mutex::default(),
        }
    }

    pub(crate) fn row_counter(&self, plugin: &str) -> u64 {
        let own = self
            .counters
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(plugin)
            .copied()
            .unwrap_or(0);
        own + self.foreign_writes.load(Ordering::Acquire)
    }

    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    pub(crate) fn rows_moved(&self, plugin: &str) {
        let mut counters = self
            .counters
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        match counters.get_mut(plugin) {
            Some(counter) => *counter += 1,
            None => {
                counters.insert(plugin.to_owned(), 1);
            }
        }
        drop(counters);
    }

    pub(crate) fn products_moved(&self) {
        let mut products = self.products();
        products.forgotten += 1;
        products.kept.clear();
        drop(products);
    }

    /// Another process wrote, and nobody knows what.
    pub(crate) fn all_moved(&self) {
        self.foreign_writes.fetch_add(1, Ordering::AcqRel);
        self.products_moved();
        self.changed();
    }

    /// Another process wrote something on which the plugins are built.
    pub(crate) fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    fn products(&self) -> MutexGuard<'_, Products> {
        self.products.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A data product that is kept, or the ticket to keep what is read now.
    pub(crate) fn kept_product(&self, id: Uuid) -> Result<Arc<DataProduct>, u64> {
        let products = self.products();
        products.kept.get(&id).cloned().ok_or(products.forgotten)
    }

    /// Keeps what was read with a ticket, unless it may have changed since.
    pub(crate) fn keep_product(&self, ticket: u64, product: &DataProduct) {
        let mut products = self.products();
        if products.forgotten == ticket {
            if products.kept.len() >= KEPT_PRODUCTS {
                products.kept.clear();
            }
            products.kept.insert(product.id, Arc::new(product.clone()));
        }
    }
}
