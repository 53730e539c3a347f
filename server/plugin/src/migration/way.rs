//! The way to one step of a plugin: which steps run, or are taken back, and what the tables are then.

use super::{AppliedMigration, Migration, Operation, Origin, Tables, derive_down};
use crate::name::{MigrationId, nearest};

/// A step of the history that is taken back.
#[derive(Debug, Clone, PartialEq)]
pub struct StepBack {
    /// What ran.
    pub migration: Migration,
    /// How it came about.
    pub origin: Origin,
    /// What takes it back, in order; nothing for one that did not run.
    pub operations: Vec<Operation>,
    /// What the tables are before it is taken back.
    pub tables: Tables,
}

/// The way back to a step.
#[derive(Debug, Clone, PartialEq)]
pub struct WayBack {
    /// The steps that are taken back, the last one first.
    pub steps: Vec<StepBack>,
    /// How many steps of the history stay.
    pub kept: usize,
    /// The tables afterwards.
    pub tables: Tables,
    /// The last step that stays.
    pub head: Option<MigrationId>,
}

/// Why there is no way to a step.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WayError {
    /// Nothing has that number or id.
    #[error("{0}")]
    Unknown(String),
    /// One cannot stop at that step on the way up.
    #[error("{0}")]
    NoStop(String),
    /// A step cannot be taken back.
    #[error("the migration {id} cannot be taken back: {reason}")]
    NoDown {
        /// The step.
        id: MigrationId,
        /// Why, and what to do.
        reason: String,
    },
    /// The table was made from fields that are newer than the step.
    #[error(
        "the migration {id} is the baseline of a table that was made from newer fields, so there is nothing to stop at \
         beside it; the steps one can go to are: {steps}"
    )]
    Baseline {
        /// The step.
        id: MigrationId,
        /// Where one can stop.
        steps: String,
    },
}

/// The step that a number or an id means among `steps`, none for `0`: nothing applied.
///
/// # Errors
/// [`WayError::Unknown`], with the ids that there are.
pub fn find_step<'a>(
    text: &str,
    steps: &[&'a MigrationId],
) -> Result<Option<&'a MigrationId>, WayError> {
    if let Some(id) = steps.iter().find(|id| id.as_str() == text) {
        return Ok(Some(id));
    }
    if text.chars().all(|c| c.is_ascii_digit())
        && let Ok(number) = text.parse::<u32>()
    {
        if number == 0 {
            return Ok(None);
        }
        let named: Vec<&&MigrationId> = steps.iter().filter(|id| id.number() == number).collect();
        match named[..] {
            [] => {}
            [id] => return Ok(Some(id)),
            _ => {
                return Err(WayError::Unknown(format!(
                    "expected one migration, found several with the number {number}: {}; name one by its id",
                    listed(named.iter().map(|id| **id))
                )));
            }
        }
    }
    let hint = nearest(text, steps.iter().map(|id| id.as_str()))
        .map(|near| format!(" (did you mean {near:?}?)"))
        .unwrap_or_default();
    Err(WayError::Unknown(format!(
        "expected the number or the id of a migration, found {text:?}{hint}; there are {}, and 0 for nothing applied",
        listed(steps.iter().copied())
    )))
}

fn listed<'a>(steps: impl Iterator<Item = &'a MigrationId>) -> String {
    let ids: Vec<&str> = steps.map(MigrationId::as_str).collect();
    match ids.is_empty() {
        true => "none".to_owned(),
        false => ids.join(", "),
    }
}

/// What takes a step back: written, or derived. `before` is what the tables are when it runs.
///
/// # Errors
/// Why there is none, in words.
pub fn down_of(migration: &Migration, before: &Tables) -> Result<Vec<Operation>, String> {
    match &migration.down {
        Some(down) => Ok(down.clone()),
        None => derive_down(&migration.up, before),
    }
}

/// The way back from `applied`, in the order the steps ran, until `target` is the last one; none when nothing shall stay.
/// A `down` that leaves other tables than there were is refused: what comes after counts on them.
///
/// # Errors
/// [`WayError`]: the first step that cannot be taken back, or that one cannot stop at `target`.
pub fn way_back(
    applied: &[AppliedMigration],
    target: Option<&MigrationId>,
) -> Result<WayBack, WayError> {
    let kept = match target {
        None => 0,
        Some(id) => match applied.iter().position(|step| step.migration.id == *id) {
            Some(place) => place + 1,
            None => {
                let ids: Vec<&MigrationId> =
                    applied.iter().map(|step| &step.migration.id).collect();
                find_step(id.as_str(), &ids)?;
                applied.len()
            }
        },
    };
    let from_fields = applied.iter().position(|step| {
        step.origin == Origin::Derived
            && step
                .migration
                .up
                .iter()
                .any(|operation| matches!(operation, Operation::CreateTable { .. }))
    });
    let baseline = applied[kept..].iter().find(|step| !step.origin.runs());
    if let (Some(step), Some(made)) = (baseline, from_fields)
        && kept > made
    {
        let ids = applied.iter().map(|step| &step.migration.id);
        let last = applied
            .iter()
            .rposition(|step| !step.origin.runs())
            .unwrap_or(0);
        return Err(WayError::Baseline {
            id: step.migration.id.clone(),
            steps: format!("0, {}", listed(ids.skip(last))),
        });
    }
    let mut before = vec![Tables::default()];
    for step in applied {
        let mut tables = before.last().cloned().unwrap_or_default();
        if step.origin.runs() {
            tables
                .apply_all(&step.migration.up)
                .map_err(|reason| no_down(&step.migration, reason))?;
        }
        before.push(tables);
    }
    let mut steps = Vec::new();
    for (place, step) in applied.iter().enumerate().skip(kept).rev() {
        let migration = &step.migration;
        let tables = before[place + 1].clone();
        let operations = match step.origin {
            Origin::Baseline => Vec::new(),
            Origin::Written | Origin::Derived => {
                let down =
                    down_of(migration, &before[place]).map_err(|why| no_down(migration, why))?;
                let mut after = tables.clone();
                for operation in &down {
                    after
                        .apply(operation)
                        .map_err(|why| no_down(migration, format!("its down cannot run: {why}")))?;
                }
                if let Some(difference) = before[place].difference(&after) {
                    return Err(no_down(
                        migration,
                        format!("its down does not restore the table: {difference}"),
                    ));
                }
                down
            }
        };
        steps.push(StepBack {
            migration: migration.clone(),
            origin: step.origin,
            operations,
            tables,
        });
    }
    Ok(WayBack {
        steps,
        kept,
        tables: before[kept].clone(),
        head: kept
            .checked_sub(1)
            .map(|last| applied[last].migration.id.clone()),
    })
}

fn no_down(migration: &Migration, reason: String) -> WayError {
    WayError::NoDown {
        id: migration.id.clone(),
        reason,
    }
}
