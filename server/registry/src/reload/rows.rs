//! The rows that a plugin owns, judged by its next version before that takes its place; and carried over by its `upgrade`.
//!
//! Rows are read in chunks, while the ones before are judged. The runs into which their ids are parted take turns, so
//! that what was looked at when the time is up is spread over all of them.

use std::collections::{HashMap, VecDeque};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{Stream, TryStreamExt, stream};
use patchbay_lua::{FieldError, HookError, Plugin, RowCall, RowsCall, Unadmitted};
use patchbay_plugin::Map;
use patchbay_plugin::change::is_older;
use patchbay_plugin::definition::Definition;
use patchbay_plugin::field::{parse_values, weight_of};
use patchbay_plugin::migration::Plan;
use patchbay_plugin::validation::{Loc, LocStep, ValidationError};
use patchbay_store::{Carried, OwnRow, OwnRows, Store, StoreError};
use uuid::Uuid;

use crate::form::Reader;
use crate::wire::{RefusedRow, RowCheck};

/// How many rows of a run are read and judged at once, in its first turns and in all that follow: few at first, so that
/// even of slow rules every run has a turn.
const CHUNKS: [usize; 3] = [8, 64, 512];
/// How many runs the rows are parted into at most.
const PARTS: u64 = 64;
/// How many chunks are on their way at once: one with the plugin, and one that is made ready for it.
const IN_FLIGHT: usize = 2;
/// How many refused rows are listed.
const SHOWN: usize = 20;
/// How many rows one version carries over at most: they are written in one transaction.
const MAX_CARRIED: usize = 100_000;
/// How long carrying rows over may take, apart from writing them.
const CARRY_TIME: Duration = Duration::from_secs(10);
/// How many bytes the rows that one version carries over may take, and what is held of rows at once, about.
const MAX_CARRIED_BYTES: usize = 64 * 1024 * 1024;
const CHUNK_BYTES: usize = 32 * 1024 * 1024;
/// After how many rows whose hooks ran past their deadline it is given up.
const MAX_LATE: u64 = 5;
/// How long to wait before a plugin that has too many calls waiting is asked again.
const BUSY: Duration = Duration::from_millis(5);

/// What is known of how rows stood before.
#[derive(Clone, Copy)]
pub(super) enum Before<'a> {
    /// This version serves.
    Serving(&'a Plugin),
    /// None serves here; what counts is whether they fit the fields that they were stored by.
    Applied,
    /// Nothing serves, so that there is nothing to hold back: whatever would be refused is told.
    Nothing,
}

/// What became of a check.
#[derive(Debug, Default)]
pub(super) struct Checked {
    /// How many of how many rows were looked at, in words; none when there are none.
    pub(super) extent: Option<String>,
    /// What there is to tell; none when no row that was accepted would be refused.
    pub(super) refused: Option<RowCheck>,
    /// The rows that are carried over; none when the version has no `upgrade`, or no row is older.
    pub(super) carried: Option<Carried>,
}

/// Why rows could not be checked.
#[derive(Debug)]
pub(super) enum CheckError {
    /// They cannot be read.
    Store(StoreError),
    /// Something is in the way that may pass by itself.
    Passing(String),
    /// They cannot be carried over.
    TooMuch(String),
}

impl From<StoreError> for CheckError {
    fn from(error: StoreError) -> Self {
        CheckError::Store(error)
    }
}

/// The check of one version.
pub(super) struct RowChecker<'a> {
    pub(super) store: &'a Store,
    pub(super) plugin: &'a Plugin,
    pub(super) plan: &'a Plan,
    pub(super) before: Before<'a>,
    /// How long to look at rows; zero to look only at those that are to be carried over.
    pub(super) time: Duration,
}

/// What was found so far.
#[derive(Default)]
struct Found {
    checked: u64,
    refused: u64,
    shown: Vec<RefusedRow>,
    carried: Carried,
    /// How many bytes the rows that are carried over take.
    carried_bytes: usize,
    /// How many rows could not be judged in the time of a hook.
    late: u64,
}

/// What became of the rows of a chunk: for those that there was time for, as [`Plugin::judge_rows`] has it.
type JudgedChunk = Vec<(OwnRow, Option<Result<Option<Map>, Unadmitted>>)>;

/// The runs of ids that are left, in turn.
struct Runs {
    queue: VecDeque<Run>,
    /// What the widest row so far takes, in bytes: of wide rows fewer are read at once.
    widest: usize,
}

/// A run of ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    /// The id after which it begins.
    after: Uuid,
    /// The last one that may be in it.
    until: Uuid,
    /// How many turns it has had.
    turns: usize,
}

impl Runs {
    /// Neighbours come far apart, so that whichever runs have had their turn are spread.
    fn new(marks: &[Uuid]) -> Runs {
        let ends = marks.iter().copied().chain([Uuid::max()]);
        let begins = std::iter::once(Uuid::nil()).chain(marks.iter().copied());
        let mut runs: Vec<(usize, (Uuid, Uuid))> = begins.zip(ends).enumerate().collect();
        runs.sort_by_key(|(place, _)| place.reverse_bits());
        let run = |(_, (after, until))| Run {
            after,
            until,
            turns: 0,
        };
        Runs {
            queue: runs.into_iter().map(run).collect(),
            widest: 1,
        }
    }
}

impl RowChecker<'_> {
    fn definition(&self) -> &Arc<Definition> {
        self.plugin.definition()
    }

    fn upgrades(&self) -> bool {
        self.definition().hooks.upgrade
    }

    /// Looks at the rows.
    pub(super) async fn check(&self) -> Result<Checked, CheckError> {
        if self.time.is_zero() && !self.upgrades() {
            return Ok(Checked::default());
        }
        let Some(rows) = self.store.own_rows(&self.definition().name).await? else {
            return Ok(Checked::default());
        };
        if rows.total == 0 || self.definition().table.is_none() {
            return Ok(Checked::default());
        }
        let time = if self.upgrades() {
            CARRY_TIME
        } else {
            self.time
        };
        let until = Instant::now() + time;
        let parts = (rows.total / CHUNKS[0] as u64).clamp(1, PARTS);
        let marks = self.store.own_row_marks(&rows, parts).await?;
        let mut found = Found::default();
        let mut judged = pin!(self.judged(&rows, Runs::new(&marks), until));
        let is_done = loop {
            let Some(judged) = judged.try_next().await? else {
                break true;
            };
            self.count(&rows, judged, until, &mut found).await?;
            if Instant::now() >= until || found.late >= MAX_LATE {
                break false;
            }
        };
        if self.upgrades() && !is_done {
            return Err(CheckError::TooMuch(format!(
                "carrying the rows over with `upgrade` took longer than {} s, in which {} of {} were done; make it \
                 faster, or write a migration with m:update(…)",
                CARRY_TIME.as_secs(),
                found.checked,
                rows.total
            )));
        }
        Ok(found.into_checked(rows.total))
    }

    /// Carries rows over again that are not what they were. Says what would be refused now.
    pub(super) async fn check_again(
        &self,
        ids: Vec<Uuid>,
        carried: &mut Carried,
    ) -> Result<Option<RowCheck>, CheckError> {
        let Some(rows) = self.store.own_rows(&self.definition().name).await? else {
            return Ok(None);
        };
        for id in &ids {
            carried.forget(*id);
        }
        let read = self.store.own_rows_of(&rows, ids).await?;
        let mut found = Found {
            carried: std::mem::take(carried),
            ..Found::default()
        };
        let until = Instant::now() + CARRY_TIME;
        let judged = self.judge(&rows, read, until).await;
        let counted = self.count(&rows, judged, until, &mut found).await;
        *carried = std::mem::take(&mut found.carried);
        counted?;
        Ok(found.into_checked(rows.total).refused)
    }

    /// The next chunk; none when all rows were read.
    async fn next(
        &self,
        rows: &OwnRows,
        runs: &mut Runs,
    ) -> Result<Option<Vec<OwnRow>>, StoreError> {
        while let Some(run) = runs.queue.pop_front() {
            let size = CHUNKS[run.turns.min(CHUNKS.len() - 1)];
            let size = size.min(CHUNK_BYTES / runs.widest).max(1);
            let chunk = self
                .store
                .own_row_chunk(rows, run.after, run.until, size)
                .await?;
            if let Some(last) = chunk.last() {
                let widths = chunk.iter().map(|row| weight_of(&row.values));
                runs.widest = widths.fold(runs.widest, usize::max);
                if chunk.len() == size {
                    runs.queue.push_back(Run {
                        after: last.id,
                        turns: run.turns + 1,
                        ..run
                    });
                }
                return Ok(Some(chunk));
            }
        }
        Ok(None)
    }

    /// Chunk after chunk, judged. While one is with the plugin, the next is read and made ready for it.
    fn judged(
        &self,
        rows: &OwnRows,
        runs: Runs,
        until: Instant,
    ) -> impl Stream<Item = Result<JudgedChunk, StoreError>> {
        let read = stream::try_unfold(runs, async move |mut runs| {
            let chunk = self.next(rows, &mut runs).await?;
            Ok(chunk.map(|chunk| (chunk, runs)))
        });
        read.map_ok(move |chunk| async move { Ok(self.judge(rows, chunk, until).await) })
            .try_buffered(IN_FLIGHT)
    }

    /// Judges one chunk.
    async fn judge(&self, rows: &OwnRows, mut chunk: Vec<OwnRow>, until: Instant) -> JudgedChunk {
        let definition = self.definition();
        let (table, steps) = (definition.table.as_ref(), !self.plan.leaves_rows());
        let calls = chunk
            .iter_mut()
            .map(|row| {
                let older = self.upgrades() && is_older(&row.plugin_version, &definition.version);
                let mut values = match older {
                    // It is compared with what becomes of it.
                    true => row.values.clone(),
                    false => std::mem::take(&mut row.values),
                };
                if let Some(table) = table.filter(|_| steps && !older) {
                    self.plan.carry(table, &mut values);
                }
                row_call(row, values, older.then(|| row.plugin_version.clone()))
            })
            .collect();
        let answers = self.ask(self.plugin, rows, calls, until).await;
        chunk.into_iter().zip(answers).collect()
    }

    /// Notes what became of a chunk.
    async fn count(
        &self,
        rows: &OwnRows,
        judged: JudgedChunk,
        until: Instant,
        found: &mut Found,
    ) -> Result<(), CheckError> {
        let definition = self.definition();
        let mut refused: Vec<RefusedRow> = Vec::new();
        let mut is_whole = true;
        for (row, answer) in judged {
            let Some(answer) = answer else {
                is_whole = false;
                continue;
            };
            found.checked += 1;
            let other_version = self.upgrades() && *row.plugin_version != *definition.version;
            match answer {
                Ok(Some(values)) => {
                    found.carried_bytes += weight_of(&values);
                    found.carried.carry(&row, values, &definition.version);
                }
                Ok(None) if other_version => found.carried.keep(&row),
                Ok(None) => {}
                Err(unadmitted) => {
                    if let Unadmitted::Hook(HookError::Deadline(_)) = &unadmitted {
                        found.late += 1;
                    }
                    if other_version {
                        found.carried.keep(&row);
                    }
                    refused.push(refused_row(row.id, unadmitted)?);
                }
            }
        }
        if found.carried.len() > MAX_CARRIED {
            return Err(CheckError::TooMuch(format!(
                "`upgrade` carries at most {MAX_CARRIED} rows over, because they are written in one transaction, and there \
                 are more of {}; write a migration with m:update(…), which has no such bound",
                rows.total
            )));
        }
        if self.upgrades() && found.late >= MAX_LATE {
            return Err(CheckError::TooMuch(format!(
                "carrying the rows over was given up after {} of them ran past the deadline of a hook: {}; make `upgrade` \
                 faster, or write a migration with m:update(…)",
                found.late,
                refused
                    .first()
                    .map(|row| row.message.as_str())
                    .unwrap_or_default(),
            )));
        }
        let is_full = !is_whole && Instant::now() < until;
        if self.upgrades() && (is_full || found.carried_bytes > MAX_CARRIED_BYTES) {
            return Err(CheckError::TooMuch(format!(
                "`upgrade` carries at most {} MiB over, because the rows are written in one transaction, and what it returned \
                 is more; write a migration with m:update(…), which has no such bound",
                MAX_CARRIED_BYTES / (1024 * 1024)
            )));
        }
        self.tell(rows, refused, until, found).await
    }

    /// Tells of the rows that would be refused, those aside that would have been before.
    async fn tell(
        &self,
        rows: &OwnRows,
        refused: Vec<RefusedRow>,
        until: Instant,
        found: &mut Found,
    ) -> Result<(), CheckError> {
        if refused.is_empty() {
            return Ok(());
        }
        let ids = refused.iter().map(|row| row.id).collect();
        let accepted = self.accepted_before(rows, ids, until).await?;
        for row in refused {
            if accepted.get(&row.id) == Some(&true) {
                found.refused += 1;
                if found.shown.len() < SHOWN {
                    found.shown.push(row);
                }
            }
        }
        Ok(())
    }

    /// Which of these rows were accepted before.
    async fn accepted_before(
        &self,
        rows: &OwnRows,
        ids: Vec<Uuid>,
        until: Instant,
    ) -> Result<HashMap<Uuid, bool>, CheckError> {
        if let Before::Nothing = self.before {
            return Ok(ids.into_iter().map(|id| (id, true)).collect());
        }
        let read = self.store.own_rows_of(rows, ids).await?;
        match self.before {
            Before::Nothing => Ok(HashMap::new()),
            Before::Applied => Ok(read
                .iter()
                .map(|row| {
                    let fits = parse_values(rows.fields(), &row.values, &Loc::new());
                    (row.id, fits.is_ok())
                })
                .collect()),
            Before::Serving(serving) => loop {
                let calls = read
                    .iter()
                    .map(|row| row_call(row, row.values.clone(), None))
                    .collect();
                let mut accepted = HashMap::with_capacity(read.len());
                let mut busy = false;
                for (row, answer) in read.iter().zip(self.ask(serving, rows, calls, until).await) {
                    // Where there was no time to ask, the row counts: it is the cautious answer.
                    let fine = match answer {
                        Some(Err(Unadmitted::Hook(HookError::Busy))) => {
                            busy = true;
                            true
                        }
                        Some(Err(unadmitted)) => refused_row(row.id, unadmitted).map(|_| false)?,
                        Some(Ok(_)) | None => true,
                    };
                    accepted.insert(row.id, fine);
                }
                if !busy || Instant::now() >= until {
                    return Ok(accepted);
                }
                // It serves, and has its hands full with requests.
                tokio::time::sleep(BUSY).await;
            },
        }
    }

    /// Has a version judge rows.
    async fn ask(
        &self,
        plugin: &Plugin,
        rows: &OwnRows,
        calls: Vec<RowCall>,
        until: Instant,
    ) -> Vec<Option<Result<Option<Map>, Unadmitted>>> {
        let call = RowsCall {
            rows: calls,
            reader: Arc::new(Reader::new(self.store, Some(rows.table()))),
            until,
            room: MAX_CARRIED_BYTES / IN_FLIGHT,
        };
        plugin.judge_rows(call).await
    }
}

fn row_call(row: &OwnRow, values: Map, from_version: Option<Arc<str>>) -> RowCall {
    RowCall {
        values,
        from_version,
        data_product: row.data_product.clone(),
        technical_mapping: row.technical_mapping,
    }
}

impl Found {
    fn into_checked(self, total: u64) -> Checked {
        let check = RowCheck {
            refused: self.refused,
            checked: self.checked,
            total,
            rows: self.shown,
        };
        Checked {
            extent: Some(check.extent()),
            refused: (check.refused > 0).then_some(check),
            carried: self.carried.knows_any().then_some(self.carried),
        }
    }
}

/// A row that would be refused, with the first reason.
fn refused_row(id: Uuid, unadmitted: Unadmitted) -> Result<RefusedRow, CheckError> {
    let row = |field: Option<String>, message: String| RefusedRow { id, field, message };
    let of_fields = |errors: Vec<ValidationError>, what: &str| {
        errors.into_iter().next().map(|error| {
            let field = error.loc.iter().find_map(|step| match step {
                LocStep::Key(key) => Some(key.clone()),
                LocStep::Index(_) => None,
            });
            row(field, format!("{what}{}", error.msg))
        })
    };
    let refused = match unadmitted {
        Unadmitted::Invalid(errors) => of_fields(errors, ""),
        Unadmitted::Slip(errors) => {
            of_fields(errors, "the fields refuse what the hook made of it: ")
        }
        Unadmitted::Rejected { errors, .. } => {
            let first = errors.into_iter().next();
            first.map(|FieldError { field, message }| row(field, message))
        }
        Unadmitted::Hook(
            error @ (HookError::Busy | HookError::Closed | HookError::Unavailable(_)),
        ) => return Err(CheckError::Passing(error.to_string())),
        Unadmitted::Hook(error) => Some(row(None, error.to_string())),
    };
    Ok(refused.unwrap_or_else(|| row(None, String::new())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_take_turns_far_apart_and_leave_nothing_out() {
        let marks: Vec<Uuid> = (1..8).map(|place| Uuid::from_u128(place * 10)).collect();
        let runs: Vec<(u128, u128)> = Runs::new(&marks)
            .queue
            .iter()
            .map(|run| (run.after.as_u128(), run.until.as_u128()))
            .collect();
        assert_eq!(
            runs.iter().map(|(after, _)| after / 10).collect::<Vec<_>>(),
            [0, 4, 2, 6, 1, 5, 3, 7]
        );
        let mut sorted = runs;
        sorted.sort_unstable();
        assert_eq!((sorted[0].0, sorted[7].1), (0, u128::MAX));
        assert!(sorted.windows(2).all(|pair| pair[0].1 == pair[1].0));
        let all = Run {
            after: Uuid::nil(),
            until: Uuid::max(),
            turns: 0,
        };
        assert_eq!(Runs::new(&[]).queue, [all]);
    }
}
