//! Copying a database into another, of the same kind or the other one.
//!
//! | module | holds |
//! |---|---|
//! | `table` | the tables, their rows and a hash of them that does not depend on the database |
//! | `ends` | the source and the target, and the marker in the target |
//!
//! The source is read in one transaction, so that the copy is of one moment, though servers may go on writing. Rows are
//! moved a batch at a time, in the order of their keys, and each batch is committed with a marker that says how far the
//! copy is and what the rows so far hash to. While the marker is there no server opens the target. A copy that was
//! interrupted is started again and goes on: it reads what it has copied once more from the source, and when that is not
//! what it was, says so and stops. So what it has at the end is the source at the moment of the last start. Then all rows
//! of the target are read back and compared by counts and hashes, and only then the marker goes.
//!
//! Plugins' tables are made from the recorded history, so that neither the plugins nor Lua are needed, and those of
//! plugins that are gone come along. What servers tell of themselves stays behind.
//!
//! A copy has a thread and a runtime of its own, because a file blocks whoever reads it.

mod ends;
mod table;

use patchbay_plugin::migration::{Operation, Tables};
use sha2::{Digest, Sha256};
use tokio::sync::oneshot;

use self::ends::{Marker, Place, Target, is_served, open_source};
use self::table::{CopyTable, Tally, core_tables, plugin_tables};
use crate::error::{Fault, StoreError};
use crate::plugin::recorded_tables;
use crate::render::render;
use crate::session::Session;
use crate::settings::StoreSettings;

pub(crate) use self::ends::unfinished;

/// Why nothing, or not everything, was copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// It was not begun, or not gone on with. The message says why and what to do.
    #[error("{0}")]
    Refused(String),
    /// What is copied already is not in the source any more, or is something else there.
    #[error(
        "the source has changed since the copy began: {0}; take an empty target and copy again"
    )]
    Changed(String),
    /// The target does not hold what the source does.
    #[error(
        "the table {table} of the target is not that of the source: {found} rows instead of {wanted}, or other values; take an empty target and copy again"
    )]
    Differs {
        /// The table.
        table: String,
        /// How many rows it has.
        found: u64,
        /// How many it should have.
        wanted: u64,
    },
    /// A database could not be read or written.
    #[error("{}", .0.detail())]
    Store(StoreError),
}

impl From<StoreError> for CopyError {
    fn from(error: StoreError) -> Self {
        CopyError::Store(error)
    }
}

impl From<Fault> for CopyError {
    fn from(fault: Fault) -> Self {
        CopyError::Store(fault.into())
    }
}

/// What a copy tells while it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CopyEvent {
    /// Something to know.
    Note(String),
    /// It goes on to a table.
    Table {
        /// Its name.
        table: String,
        /// How many rows it has.
        rows: u64,
    },
    /// Rows were copied, or compared.
    Rows {
        /// Whether they were compared.
        checking: bool,
        /// How many so far, in all tables.
        done: u64,
        /// How many there are.
        total: u64,
    },
}

/// What was copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copied {
    /// Each table with its rows and their hash, in the order in which they were copied.
    pub tables: Vec<(String, u64, String)>,
}

/// Copies the database of `from` into that of `to`, which must be empty or hold an earlier try. At most `batch` rows are
/// committed at once; `tell` hears how far it is.
///
/// # Errors
/// Why it was refused, what differs, or what a database said.
pub async fn copy(
    from: StoreSettings,
    to: StoreSettings,
    batch: usize,
    tell: impl FnMut(CopyEvent) + Send + 'static,
) -> Result<Copied, CopyError> {
    let (reply, answer) = oneshot::channel();
    let work = move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let result = match runtime {
            Ok(runtime) => runtime.block_on(run(from, to, batch, tell)),
            Err(error) => Err(CopyError::Refused(format!("no thread for it: {error}"))),
        };
        // Who no longer waits needs no answer.
        let _gone = reply.send(result);
    };
    std::thread::Builder::new()
        .name("patchbay-copy".to_owned())
        .spawn(work)
        .map_err(|error| CopyError::Refused(format!("no thread for it: {error}")))?;
    answer
        .await
        .unwrap_or_else(|_| Err(StoreError::Internal("the copy panicked".to_owned()).into()))
}

async fn run(
    from: StoreSettings,
    to: StoreSettings,
    batch: usize,
    mut tell: impl FnMut(CopyEvent),
) -> Result<Copied, CopyError> {
    let mut source = open_source(&from).await?;
    if is_served(&from, &mut source).await? {
        tell(CopyEvent::Note(format!(
            "{} is being served: what is written from now on is not copied, and no plugin's table changes until the copy is done",
            from.url
        )));
    }
    let tables = tables(&mut source).await?;
    let shapes = shapes(&tables);
    let mut target = Target::open(&to).await?;
    let mut marker = match target.marker().await? {
        Some(marker) if marker.shapes != shapes => {
            return Err(CopyError::Changed("a plugin was migrated".to_owned()));
        }
        Some(marker) => {
            tell(CopyEvent::Note(
                "going on with a copy that was interrupted".to_owned(),
            ));
            marker
        }
        None => {
            let marker = Marker::new(from.url.to_string(), shapes);
            let begun = marker.clone();
            target
                .transact(async |session| begun.begin(session).await)
                .await?;
            marker
        }
    };
    let mut counts = Vec::with_capacity(tables.len());
    for table in &tables {
        counts.push(table.count(&mut source).await?);
    }
    let total = counts.iter().sum();
    let mut progress = Progress {
        tell,
        checking: false,
        done: 0,
        total,
    };
    let mut tallies = Vec::with_capacity(tables.len());
    for (table, rows) in tables.iter().zip(&counts) {
        (progress.tell)(CopyEvent::Table {
            table: table.name.clone(),
            rows: *rows,
        });
        let tally = copy_table(
            table,
            &mut source,
            &mut target,
            &mut marker,
            batch,
            &mut progress,
        )
        .await?;
        tallies.push(tally);
    }
    // The source is let go before the target is read, which takes as long again.
    drop(source);
    progress.checking = true;
    progress.done = 0;
    for (table, wanted) in tables.iter().zip(&tallies) {
        check_table(table, wanted, &mut target, batch, &mut progress).await?;
    }
    let done = marker.clone();
    target
        .transact(async |session| done.remove(session).await)
        .await?;
    target.settle().await?;
    let named = tables.into_iter().zip(tallies);
    Ok(Copied {
        tables: named
            .map(|(table, tally)| (table.name, tally.rows, tally.hash()))
            .collect(),
    })
}

/// Tells how far it is.
struct Progress<F> {
    tell: F,
    checking: bool,
    done: u64,
    total: u64,
}

impl<F: FnMut(CopyEvent)> Progress<F> {
    fn advance(&mut self, rows: usize) {
        self.done += rows as u64;
        (self.tell)(CopyEvent::Rows {
            checking: self.checking,
            done: self.done,
            total: self.total,
        });
    }
}

/// Every table, in an order in which references hold: the plugins' before the history of configurations.
async fn tables(source: &mut Session) -> Result<Vec<CopyTable>, CopyError> {
    let own = recorded_tables(source).await?;
    let mut tables = core_tables();
    let last = tables.len() - 1;
    tables.splice(last..last, plugin_tables(&own));
    Ok(tables)
}

/// A digest of what the plugins' tables are made from.
fn shapes(tables: &[CopyTable]) -> String {
    let mut hash = Sha256::new();
    for table in tables {
        hash.update(format!("{}: {:?};", table.name, table.shape));
    }
    format!("{:x}", hash.finalize())
}

/// The statements that make a plugin's table as its history has left it.
fn making(table: &CopyTable, dialect: crate::Dialect) -> Result<Vec<String>, CopyError> {
    let Some(shape) = &table.shape else {
        return Ok(Vec::new());
    };
    let name = patchbay_plugin::name::TableName::parse(&table.name)
        .map_err(|_| StoreError::Internal("a table with a name that is none".to_owned()))?;
    let create = Operation::CreateTable {
        table: name.clone(),
        columns: shape.columns.values().cloned().collect(),
    };
    let indexes = shape
        .indexes
        .iter()
        .map(|(index, (columns, unique))| Operation::CreateIndex {
            table: name.clone(),
            name: index.clone(),
            columns: columns.clone(),
            unique: *unique,
        });
    let mut made = Tables::default();
    let mut statements = Vec::new();
    for operation in std::iter::once(create).chain(indexes) {
        statements.extend(render(&operation, &made, dialect));
        made.apply(&operation).map_err(StoreError::Internal)?;
    }
    Ok(statements)
}

async fn copy_table<F: FnMut(CopyEvent)>(
    table: &CopyTable,
    source: &mut Session,
    target: &mut Target,
    marker: &mut Marker,
    batch: usize,
    progress: &mut Progress<F>,
) -> Result<Tally, CopyError> {
    let batch = table.batch(batch);
    let begun = marker.place(table);
    let mut place = match &begun {
        Some(wanted) => again(table, wanted, source, batch, progress).await?,
        None => {
            let statements = making(table, target.session.dialect())?;
            marker.set(table, &Place::default());
            let noted = marker.clone();
            target
                .transact(async |session| {
                    for sql in &statements {
                        session.define(sql).await?;
                    }
                    noted.write(session).await
                })
                .await?;
            Place::default()
        }
    };
    loop {
        let rows = table.rows(source, place.after.as_deref(), batch).await?;
        let Some(last) = rows.last() else { break };
        place.after = Some(table.key(last));
        rows.iter().for_each(|row| place.tally.add(row));
        marker.set(table, &place);
        let (count, noted) = (rows.len(), marker.clone());
        target
            .transact(async |session| {
                table.write(session, rows).await?;
                noted.write(session).await
            })
            .await?;
        progress.advance(count);
    }
    Ok(place.tally)
}

/// Reads what was copied already once more from the source, and checks that it is still the same.
async fn again<F: FnMut(CopyEvent)>(
    table: &CopyTable,
    wanted: &Place,
    source: &mut Session,
    batch: usize,
    progress: &mut Progress<F>,
) -> Result<Place, CopyError> {
    let mut place = Place::default();
    while place.tally.rows < wanted.tally.rows {
        let left = wanted.tally.rows - place.tally.rows;
        let limit = batch.min(usize::try_from(left).unwrap_or(batch));
        let rows = table.rows(source, place.after.as_deref(), limit).await?;
        let Some(last) = rows.last() else { break };
        place.after = Some(table.key(last));
        rows.iter().for_each(|row| place.tally.add(row));
        progress.advance(rows.len());
    }
    match place == *wanted {
        true => Ok(place),
        false => Err(CopyError::Changed(format!(
            "other rows are in {}",
            table.name
        ))),
    }
}

/// Checks that the target holds what was read from the source, and that its references hold.
async fn check_table<F: FnMut(CopyEvent)>(
    table: &CopyTable,
    wanted: &Tally,
    target: &mut Target,
    batch: usize,
    progress: &mut Progress<F>,
) -> Result<(), CopyError> {
    let batch = table.batch(batch);
    let session = &mut target.session;
    let (mut found, mut after) = (Tally::default(), None);
    loop {
        let rows = table.rows(session, after.as_deref(), batch).await?;
        let Some(last) = rows.last() else { break };
        after = Some(table.key(last));
        rows.iter().for_each(|row| found.add(row));
        progress.advance(rows.len());
    }
    if found != *wanted {
        return Err(CopyError::Differs {
            table: table.name.clone(),
            found: found.rows,
            wanted: wanted.rows,
        });
    }
    match session.references_hold(&table.name).await? {
        true => Ok(()),
        false => Err(CopyError::Refused(format!(
            "rows of {} refer to others that are not there, in the source too",
            table.name
        ))),
    }
}
