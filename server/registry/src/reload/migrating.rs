//! What the command line does with one plugin's migrations: run them up to a step, take them back to one, show their SQL,
//! and write the next one. No other plugin is touched.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use patchbay_plugin::definition::Definition;
use patchbay_plugin::migration::{
    AppliedMigration, Migration, NextStep, Operation, PendingMigration, Plan, Tables, WayBack,
    as_of, find_step, next_step, plan, ran, way_back, written_tables,
};
use patchbay_plugin::name::{MigrationId, PluginName};
use patchbay_store::render::render;
use patchbay_store::{Applying, Dialect, Store, StoreError};

use super::choice::by_preference;
use super::slot::Slot;
use super::{Builder, Touched};
use crate::RequestError;
use crate::discovery::{Origin, Place};
use crate::error::plugin_not_found;
use crate::proofs::prove_step;

/// What is to be done with the migrations of one plugin.
#[derive(Debug, Clone, Default)]
pub struct MigrationOrder {
    /// The plugin's name or an alias.
    pub plugin: String,
    /// The number or id of the last step that shall be applied, `0` for none; when left out, all that are pending run.
    pub to: Option<String>,
    /// Whether the version may refuse rows that are stored and promise too little by its number, values may be lost, and steps
    /// be taken back that are not proved to be reversible.
    pub force: bool,
    /// Who has it done.
    pub by: String,
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migrated {
    /// The plugin's name.
    pub plugin: String,
    /// The steps that were applied, in order.
    pub applied: Vec<String>,
    /// The steps that were taken back, the last one first.
    pub taken_back: Vec<String>,
    /// The step at which the plugin is held now, `0` for none applied; none when it is not held.
    pub held_at: Option<String>,
    /// Whether it was held before, and is not any more.
    pub released: bool,
    /// That the version number promises less than the change makes, when the version was taken all the same.
    pub broken_promise: Option<String>,
}

/// A step that would be applied or taken back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepPreview {
    /// Its id.
    pub id: String,
    /// Its file, relative to the package; none when it is inline or derived.
    pub path: Option<String>,
    /// Whether it would be taken back.
    pub back: bool,
    /// Whether it would only be recorded, because the table was made from newer fields.
    pub baseline: bool,
    /// Whether a server of the version before can go on beside it.
    pub expands: bool,
    /// What it does on SQLite, statement by statement.
    pub sqlite: Vec<String>,
    /// What it does on Postgres.
    pub postgres: Vec<String>,
}

/// The next migration of a plugin, as it would be written.
#[derive(Debug, Clone, PartialEq)]
pub struct WrittenMigration {
    /// The plugin's name.
    pub plugin: String,
    /// What to write.
    pub step: NextStep,
    /// The file to write it to; none for a plugin that is one file, where it belongs into the list `migrations`.
    pub file: Option<PathBuf>,
    /// The plugin's own file.
    pub entry: PathBuf,
    /// Whether it is the plugin's first one.
    pub first: bool,
}

/// Where a plugin stands, and how it gets where it shall.
struct Found {
    plugin: PluginName,
    definition: Option<Arc<Definition>>,
    history: Vec<AppliedMigration>,
    way: Way,
    /// The step that was asked for, none inside for nothing applied.
    target: Option<Option<MigrationId>>,
}

enum Way {
    Up(Plan, usize),
    Back(WayBack),
    Stay,
}

fn conflict(error: impl ToString) -> RequestError {
    RequestError::Conflict(error.to_string())
}

impl Builder {
    /// Brings a plugin to the step that is asked for.
    pub(crate) async fn migrate(
        &mut self,
        order: &MigrationOrder,
    ) -> Result<Migrated, RequestError> {
        let found = self.find(order).await?;
        let Found {
            plugin,
            definition,
            history,
            way,
            target,
        } = found;
        let looked_at = BTreeMap::from([(plugin.to_string(), history.clone())]);
        if let Some(differences) = self.store.drifts(looked_at).await?.remove(plugin.as_str()) {
            return Err(told(StoreError::Drift(differences)));
        }
        let held_at = target.as_ref().map(|step| match step {
            Some(id) => id.to_string(),
            None => "0".to_owned(),
        });
        let mut migrated = Migrated {
            plugin: plugin.to_string(),
            applied: Vec::new(),
            taken_back: Vec::new(),
            held_at,
            released: false,
            broken_promise: None,
        };
        match way {
            Way::Back(way) => {
                if !order.force {
                    check_proved(definition.clone(), &history, &way).await?;
                }
                self.store
                    .migrate_back(&plugin, &way, order.force, &order.by)
                    .await
                    .map_err(told)?;
                migrated.taken_back = way
                    .steps
                    .iter()
                    .map(|step| step.migration.id.to_string())
                    .collect();
            }
            Way::Up(plan, count) => {
                let Some(definition) = definition else {
                    return Err(plugin_not_found(&order.plugin));
                };
                if let Some(misfit) = definition.incompatibility() {
                    return Err(conflict(misfit));
                }
                // Before anything happens: a step of a version that no server takes would only be in the way of the one before.
                migrated.broken_promise = self.promise(order, &plan).await?;
                let broken = migrated.broken_promise.clone();
                migrated.applied = ids(&plan.pending[..count]);
                let whole = count == plan.pending.len();
                let before = self.store.held().await?.remove(plugin.as_str());
                // Held first, so that no server runs the rest in between.
                if let Some(step) = &target {
                    self.store.hold(&plugin, step.as_ref(), &order.by).await?;
                }
                let done = match whole {
                    true => self.apply(order, &plan, broken).await,
                    // The rows are tried when the last step is taken: no version serves before.
                    false => {
                        let (part, plan) =
                            as_of(&definition, &history, &plan, count).map_err(conflict)?;
                        let applying = Applying {
                            by: order.by.clone(),
                            partly: true,
                            ..Applying::default()
                        };
                        let done = self.store.migrate_with(&part, &plan, applying).await;
                        done.map(|_| ()).map_err(told)
                    }
                };
                if let Err(error) = done {
                    if target.is_some() {
                        restore(&self.store, &plugin, before).await?;
                    }
                    return Err(error);
                }
            }
            Way::Stay => match (&target, &definition) {
                (Some(step), _) => self.store.hold(&plugin, step.as_ref(), &order.by).await?,
                (None, Some(definition)) => {
                    let plan = plan(definition, &history).map_err(conflict)?;
                    migrated.broken_promise = self.promise(order, &plan).await?;
                    let broken = migrated.broken_promise.clone();
                    self.apply(order, &plan, broken).await?;
                }
                (None, None) => {}
            },
        }
        if target.is_none() {
            migrated.released = self.store.release(&plugin).await?;
        }
        Ok(migrated)
    }

    /// The steps that [`migrate`](Builder::migrate) would run or take back, with their SQL. Changes nothing.
    pub(crate) async fn preview(
        &mut self,
        order: &MigrationOrder,
    ) -> Result<Vec<StepPreview>, RequestError> {
        let found = self.find(order).await?;
        let mut tables = Tables::default();
        for step in found.history.iter().filter(|step| step.origin.runs()) {
            tables.apply_all(&step.migration.up).map_err(conflict)?;
        }
        let mut previews = Vec::new();
        match &found.way {
            Way::Stay => {}
            Way::Up(plan, count) => {
                for step in &plan.pending[..*count] {
                    let baseline = !step.origin.runs();
                    let operations = match baseline {
                        true => &[][..],
                        false => &step.migration.up,
                    };
                    previews.push(StepPreview {
                        back: false,
                        baseline,
                        expands: step.expands,
                        ..shown(&step.migration, operations, &tables)
                    });
                    tables.apply_all(operations).map_err(conflict)?;
                }
            }
            Way::Back(way) => {
                for step in &way.steps {
                    let mut before = step.tables.clone();
                    let expands = step.operations.iter().all(|operation| {
                        let expands = operation.expands(&before);
                        let _ = before.apply(operation);
                        expands
                    });
                    previews.push(StepPreview {
                        back: true,
                        baseline: !step.origin.runs(),
                        expands,
                        ..shown(&step.migration, &step.operations, &step.tables)
                    });
                }
            }
        }
        Ok(previews)
    }

    /// The next migration of a plugin, from the difference between its fields and the table that its steps make; none
    /// when nothing is different.
    pub(crate) async fn next_migration(
        &mut self,
        name: &str,
        slug: Option<&str>,
        empty: bool,
    ) -> Result<Option<WrittenMigration>, RequestError> {
        self.look(&Touched::Everything, 1).await;
        self.enable();
        let slot = self.slot_of(name)?;
        let definition = slot
            .definition()
            .cloned()
            .ok_or_else(|| plugin_not_found(name))?;
        let (file, entry) = writable(&slot.place)?;
        let main = definition.table.as_ref();
        let makes_table = |operation: &Operation| matches!(operation, Operation::CreateTable { table, .. } if Some(table) == main);
        let written = definition
            .migrations
            .iter()
            .flat_map(|migration| &migration.up)
            .any(makes_table);
        // Where no file makes the table, it was derived from the fields, and only the database knows what it is.
        let history = match written {
            true => Vec::new(),
            false => self.store.history(&definition.name).await?,
        };
        if !written && history.is_empty() && !definition.migrations.is_empty() && main.is_some() {
            return Err(RequestError::Conflict(format!(
                "the table of {} is derived from its fields, no file creates it, and this database does not have it; run \
                 this with the database that does, or start from `patchbay serve` on an empty one",
                definition.name
            )));
        }
        let tables = written_tables(&definition, &history).map_err(conflict)?;
        let numbers = definition
            .migrations
            .iter()
            .chain(history.iter().map(|step| &step.migration))
            .map(|migration| migration.id.number());
        let last = numbers.max().unwrap_or(0);
        let step = next_step(&definition, &tables, last, slug, empty).map_err(conflict)?;
        Ok(step.map(|step| WrittenMigration {
            plugin: definition.name.to_string(),
            file: file.map(|folder| folder.join(format!("{}.lua", step.id))),
            step,
            entry,
            first: definition.migrations.is_empty(),
        }))
    }

    /// The place of the newest version of an enabled plugin that loads.
    pub(super) fn slot_of(&self, name: &str) -> Result<&Slot, RequestError> {
        by_preference(&self.slots)
            .map(|(_, slot)| slot)
            .filter(|slot| slot.enabled && slot.load_failure.is_none())
            .find(|slot| {
                slot.loaded
                    .as_ref()
                    .is_some_and(|loaded| loaded.plugin.definition().answers_to(name))
            })
            .ok_or_else(|| plugin_not_found(name))
    }

    /// Loads every plugin, and finds the way of the one that is meant. One that is gone, or does not load, is known by
    /// its history, which is enough to take steps back.
    async fn find(&mut self, order: &MigrationOrder) -> Result<Found, RequestError> {
        self.look(&Touched::Everything, 1).await;
        self.enable();
        let name = order.plugin.as_str();
        let definition = match self.slot_of(name) {
            Ok(slot) => slot.definition().cloned(),
            Err(error) => {
                let known = self.store.histories().await?;
                if order.to.is_none() || !known.contains_key(name) {
                    return Err(error);
                }
                None
            }
        };
        let plugin = match &definition {
            Some(definition) => definition.name.clone(),
            None => PluginName::parse(name).map_err(|_| plugin_not_found(name))?,
        };
        let history = self.store.history(&plugin).await?;
        let planned = match &definition {
            Some(definition) => plan(definition, &history).map_err(conflict),
            None => Err(plugin_not_found(name)),
        };
        let Some(to) = &order.to else {
            let plan = planned?;
            let way = match plan.pending.len() {
                0 => Way::Stay,
                count => Way::Up(plan, count),
            };
            return Ok(Found {
                plugin,
                definition,
                history,
                way,
                target: None,
            });
        };
        let pending = planned.as_ref().map(|plan| &plan.pending[..]);
        let steps: Vec<&MigrationId> = history
            .iter()
            .map(|step| &step.migration.id)
            .chain(
                pending
                    .unwrap_or_default()
                    .iter()
                    .map(|step| &step.migration.id),
            )
            .collect();
        let target = find_step(to, &steps).map_err(conflict)?.cloned();
        let place = target
            .as_ref()
            .and_then(|id| steps.iter().position(|step| *step == id));
        let reached = place.map_or(0, |place| place + 1);
        let way = match reached {
            count if count < history.len() => {
                Way::Back(way_back(&history, target.as_ref()).map_err(conflict)?)
            }
            count if count == history.len() => Way::Stay,
            count => {
                let count = count - history.len();
                Way::Up(planned?, count)
            }
        };
        Ok(Found {
            plugin,
            definition,
            history,
            way,
            target: Some(target),
        })
    }
}

fn ids(steps: &[PendingMigration]) -> Vec<String> {
    steps
        .iter()
        .map(|step| step.migration.id.to_string())
        .collect()
}

/// A step and its SQL.
fn shown(migration: &Migration, operations: &[Operation], tables: &Tables) -> StepPreview {
    let sql = |dialect| {
        let mut tables = tables.clone();
        let mut statements = Vec::new();
        for operation in operations {
            statements.extend(render(operation, &tables, dialect));
            // One that cannot be applied was refused before.
            let _ = tables.apply(operation);
        }
        statements
    };
    StepPreview {
        id: migration.id.to_string(),
        path: migration.path.clone(),
        back: false,
        baseline: false,
        expands: true,
        sqlite: sql(Dialect::Sqlite),
        postgres: sql(Dialect::Postgres),
    }
}

/// What a failure of the store means to the one who typed the command.
pub(super) fn told(error: StoreError) -> RequestError {
    match error {
        StoreError::Loses(what) => RequestError::Conflict(format!(
            "values would be lost, so nothing was done: {}; `patchbay plugin export` keeps a copy of the rows, and --force \
             does it",
            what.join("; ")
        )),
        StoreError::Migration { .. } | StoreError::Drift(_) | StoreError::TableTaken { .. } => {
            conflict(format!("{error}; nothing was changed"))
        }
        error => error.into(),
    }
}

/// Holds a plugin as it was held before.
async fn restore(
    store: &Store,
    plugin: &PluginName,
    before: Option<patchbay_store::Held>,
) -> Result<(), RequestError> {
    match before {
        Some(held) => store.hold(plugin, held.step.as_ref(), &held.by).await?,
        None => {
            store.release(plugin).await?;
        }
    }
    Ok(())
}

/// Refuses to take back a step that is not proved to be reversible.
async fn check_proved(
    definition: Option<Arc<Definition>>,
    history: &[AppliedMigration],
    way: &WayBack,
) -> Result<(), RequestError> {
    let (history, kept) = (history.to_vec(), way.kept);
    let proving = move || {
        let ran: Vec<&Migration> = ran(&history).collect();
        history[kept..]
            .iter()
            .rev()
            .filter(|step| step.origin.runs())
            .filter_map(|step| {
                let id = &step.migration.id;
                let place = ran.iter().position(|migration| migration.id == *id)?;
                let proof = prove_step(&ran, place, definition.as_deref());
                proof.reason().map(|reason| format!("{id}: {reason}"))
            })
            .collect::<Vec<String>>()
    };
    let unproved = tokio::task::spawn_blocking(proving)
        .await
        .map_err(|error| RequestError::Internal(error.to_string()))?;
    match unproved.is_empty() {
        true => Ok(()),
        false => Err(RequestError::Conflict(format!(
            "steps are not proved to be reversible, so nothing was done: {}; --force takes them back all the same",
            unproved.join("; ")
        ))),
    }
}

/// The folder of the plugin's migrations, none for one that is a file, and its own file. What ships in the program or in a
/// pinned package is not written to.
fn writable(place: &Place) -> Result<(Option<PathBuf>, PathBuf), RequestError> {
    let refused = |what: &str, remedy: &str| {
        Err(RequestError::Conflict(format!(
            "expected a plugin whose files can be written, found {}, {what}; {remedy}",
            place.label()
        )))
    };
    match &place.origin {
        Origin::Folder(folder) => Ok((Some(folder.join("migrations")), folder.join("plugin.lua"))),
        Origin::File(file) => Ok((None, file.clone())),
        Origin::Embedded(_) => refused(
            "which is part of the program",
            "copy its folder into a plugin path and work on that",
        ),
        Origin::Installed(_) => refused(
            "which is installed and pinned",
            "work on its source, linked with `patchbay plugin install --link`, and install the new version",
        ),
    }
}
