//! `patchbay plugin migrations`, `migrate` and `migration new`: the steps of plugins' tables.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, anyhow, bail};
use clap::{Args, Subcommand};
use patchbay_lua::Sandbox;
use patchbay_registry::wire::MigrationView;
use patchbay_registry::{MigrationOrder, NOT_PROVED_YET, Registry, StepPreview, WrittenMigration};
use patchbay_store::{DatabaseUrl, Store};
use time::format_description::well_known::Rfc3339;

use super::plugin::{load_aside, scratch};
use super::who::who;
use super::{say, say_text, warn};
use crate::embedded;
use crate::settings::Settings;

/// The verbs that are about migrations.
#[derive(Debug, Subcommand)]
pub(super) enum Steps {
    /// Print the migrations of each plugin: which are proved to be reversible, and which are applied, by whom and when
    ///
    /// What is applied is read from the configured database, where there is one; nothing is written and none is created.
    /// Without one, or with one that cannot be read, the migrations are those of the files and of the fields, for an empty
    /// database.
    Migrations,
    /// Run the migrations of a plugin that wait to be told, or go up or down to one
    ///
    /// Without --to, all that are pending run, those that take something away included, and the plugin is held no longer;
    /// before that the version is tried on the rows that are stored, and its number held against what it changes.
    /// With --to, the steps up to that one run, or those after it are taken back by their `down`, the last one first and
    /// all in one transaction; the plugin is held there, so that no server runs its steps by itself until this is run
    /// without --to. A running server notices.
    Migrate(Migrate),
    /// Write migrations
    #[command(subcommand)]
    Migration(Migration),
}

#[derive(Debug, Args)]
pub(super) struct Migrate {
    /// The plugin's name or an alias
    name: String,
    /// The last migration that shall be applied, by its number or its id; 0 for none
    #[arg(long, value_name = "N")]
    to: Option<String>,
    /// Print the SQL for both databases, and change nothing
    #[arg(long)]
    sql: bool,
    /// Take the version although it would refuse rows that are stored, or promises less by its number than it changes and
    /// strict_versions is on; go down even where values are lost or a step is not
    /// proved to be reversible
    #[arg(long)]
    force: bool,
}

/// Write migrations
#[derive(Debug, Subcommand)]
pub(super) enum Migration {
    /// Write the migration that makes a plugin's table fit its fields
    ///
    /// It is made from the difference between the fields and the table that the migration files so far make, or that the
    /// server derived where there is no file. For a plugin that is a single file it is printed, to be put into the list
    /// `migrations`.
    New(New),
}

#[derive(Debug, Args)]
pub(super) struct New {
    /// The plugin's name or an alias
    name: String,
    /// The words of its id, as in 0002_SLUG; made from what it does when left out
    #[arg(long = "name", value_name = "SLUG")]
    slug: Option<String>,
    /// Write one although there is no difference, such as for m:update; it does not load before you write what it does
    #[arg(long)]
    empty: bool,
}

impl Steps {
    pub(super) async fn run(self, settings: &Settings) -> anyhow::Result<ExitCode> {
        match self {
            Steps::Migrations => list(settings).await,
            Steps::Migrate(migrate) if migrate.sql => migrate.preview(settings).await,
            Steps::Migrate(migrate) => migrate.run(settings).await,
            Steps::Migration(Migration::New(new)) => new.run(settings).await,
        }
    }
}

async fn list(settings: &Settings) -> anyhow::Result<ExitCode> {
    let (registry, _folder) = load_aside(settings).await?;
    let store = to_read(settings).await;
    // What is not proved in the time of one answer is in one of the next.
    let all = loop {
        let all = match &store {
            Some(store) => registry.migrations_in(store).await,
            None => registry.migrations().await,
        };
        let all = all.map_err(|error| anyhow!("{error}"))?;
        let mut steps = all.migrations.values().flatten();
        if steps.all(|migration| migration.reversible_reason.as_deref() != Some(NOT_PROVED_YET)) {
            break all;
        }
    };
    for (plugin, migrations) in &all.migrations {
        say(format_args!("{plugin}"));
        for migration in migrations {
            say(format_args!("{}", step_line(migration, store.is_some())));
        }
    }
    if let Some(store) = store {
        store.close().await;
    }
    Ok(ExitCode::SUCCESS)
}

/// A step on one line. Only a database tells what is applied.
fn step_line(migration: &MigrationView, is_read: bool) -> String {
    let path = migration
        .path
        .as_deref()
        .unwrap_or("(derived from the fields)");
    let reversible = match &migration.reversible_reason {
        None => "reversible".to_owned(),
        Some(reason) => format!("not reversible: {reason}"),
    };
    let mut line = format!("  {}  {path}  {reversible}", migration.id);
    if is_read {
        let at = migration.applied_at.and_then(|at| at.format(&Rfc3339).ok());
        line.push_str("  ");
        line.push_str(&match (at, &migration.applied_by) {
            (Some(at), Some(by)) => format!("{} {at} by {by}", migration.state),
            _ => migration.state.clone(),
        });
        line.push_str("  checksum ");
        line.push_str(&migration.checksum);
    }
    line
}

/// The database of the settings to read from, as it is; none where there is none, or none that can be read. The second is
/// told.
async fn to_read(settings: &Settings) -> Option<Store> {
    let untold = |reason: &dyn std::fmt::Display| {
        warn(format_args!(
            "what is applied is not shown: {reason}; `patchbay doctor` says more"
        ));
        None
    };
    let wanted = match settings.store(false) {
        Ok(wanted) => wanted,
        Err(error) => return untold(&format_args!("{error:#}")),
    };
    match wanted.url.inspect(&wanted).await {
        Ok(found) if !found.exists => None,
        // To open it would bring it up to date.
        Ok(found) if found.schema != found.known => untold(&format_args!(
            "the core schema of the database {} is {}, and this program's is {}",
            wanted.url, found.schema, found.known
        )),
        Ok(_) => match Store::open(wanted).await {
            Ok(store) => Some(store),
            Err(error) => untold(&error),
        },
        Err(error) => untold(&error),
    }
}

/// The database of the settings; an empty one aside when there is none yet, because to look must not make it.
async fn to_look_at(settings: &Settings) -> anyhow::Result<(Store, Option<tempfile::TempDir>)> {
    let wanted = settings.store(false)?;
    match &wanted.url {
        DatabaseUrl::Sqlite(path) if !path.exists() => {
            let (store, folder) = scratch(settings).await?;
            Ok((store, Some(folder)))
        }
        _ => Ok((Store::open(wanted).await?, None)),
    }
}

impl Migrate {
    fn order(&self) -> MigrationOrder {
        MigrationOrder {
            plugin: self.name.clone(),
            to: self.to.clone(),
            force: self.force,
            by: who(),
        }
    }

    async fn run(self, settings: &Settings) -> anyhow::Result<ExitCode> {
        // A running server notices the write, so it need not be stopped.
        let store = Store::open(settings.store(false)?).await?;
        let sandbox = Sandbox::new(settings.limits());
        let shipped = embedded::plugins();
        let order = self.order();
        let migrated =
            Registry::migrate(settings.registry(), store.clone(), sandbox, shipped, &order).await;
        store.close().await;
        let migrated = migrated.map_err(|error| anyhow!("{error}"))?;
        let plugin = &migrated.plugin;
        if let Some(reason) = &migrated.broken_promise {
            warn(format_args!("{plugin}: {reason}"));
        }
        for id in &migrated.applied {
            say(format_args!("{id} applied"));
        }
        for id in &migrated.taken_back {
            say(format_args!("{id} taken back"));
        }
        if migrated.applied.is_empty() && migrated.taken_back.is_empty() {
            match self.force {
                false => say(format_args!("nothing to migrate")),
                true => say(format_args!(
                    "nothing to migrate; {plugin} is accepted as it is, and rows that it would refuse stay as they are"
                )),
            }
        }
        match migrated.held_at.as_deref() {
            Some("0") => say(format_args!(
                "{plugin} is held with nothing applied; `patchbay plugin migrate {plugin}` goes on"
            )),
            Some(id) => say(format_args!(
                "{plugin} is held at {id}; `patchbay plugin migrate {plugin}` goes on"
            )),
            None if migrated.released => say(format_args!("{plugin} is held no longer")),
            None => {}
        }
        Ok(ExitCode::SUCCESS)
    }

    async fn preview(self, settings: &Settings) -> anyhow::Result<ExitCode> {
        let (store, _folder) = to_look_at(settings).await?;
        let sandbox = Sandbox::new(settings.limits());
        let shipped = embedded::plugins();
        let order = self.order();
        let steps = Registry::preview_migration(
            settings.registry(),
            store.clone(),
            sandbox,
            shipped,
            &order,
        )
        .await;
        store.close().await;
        let steps = steps.map_err(|error| anyhow!("{error}"))?;
        if steps.is_empty() {
            say(format_args!("-- nothing to migrate"));
        }
        for (database, sql) in [
            (
                "SQLite",
                (|step| &step.sqlite) as fn(&StepPreview) -> &Vec<String>,
            ),
            ("Postgres", |step| &step.postgres),
        ] {
            for step in &steps {
                say(format_args!("-- {database}: {}", described(step)));
                for statement in sql(step) {
                    say_text(&format!("{statement};"));
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// What a step is, on one line.
fn described(step: &StepPreview) -> String {
    let path = step.path.as_deref().unwrap_or("derived or inline");
    let what = match (step.back, step.baseline, step.expands) {
        (false, true, _) => "only recorded: the table is made from newer fields",
        (true, true, _) => "only forgotten: it did not run",
        (false, false, true) => {
            "expanding: a server of the version before goes on reading beside it"
        }
        (false, false, false) => "destructive: it does more than add",
        (true, false, true) => "taken back, expanding",
        (true, false, false) => "taken back, destructive: it does more than add",
    };
    format!("{} ({path}), {what}", step.id)
}

impl New {
    async fn run(self, settings: &Settings) -> anyhow::Result<ExitCode> {
        let (store, _folder) = to_look_at(settings).await?;
        let sandbox = Sandbox::new(settings.limits());
        let written = Registry::next_migration(
            settings.registry(),
            store.clone(),
            sandbox,
            embedded::plugins(),
            &self.name,
            self.slug.as_deref(),
            self.empty,
        )
        .await;
        store.close().await;
        let Some(written) = written.map_err(|error| anyhow!("{error}"))? else {
            bail!(
                "the table of {} fits its fields, so there is nothing to write; --empty writes a migration for \
                 you to fill in",
                self.name
            );
        };
        match &written.file {
            Some(file) => write(file, &written)?,
            None => print(&written),
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn write(file: &Path, written: &WrittenMigration) -> anyhow::Result<()> {
    let place = || file.display().to_string();
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder).with_context(place)?;
    }
    // What is there is never overwritten.
    let mut created = std::fs::File::create_new(file).with_context(place)?;
    created
        .write_all(written.step.file().as_bytes())
        .with_context(place)?;
    say(format_args!("wrote {}", file.display()));
    Ok(())
}

fn print(written: &WrittenMigration) {
    let entry = written.step.entry();
    let file = written.entry.display();
    say(format_args!(
        "-- {} is a single file. Put this {} in {file},",
        written.plugin,
        match written.first {
            true => "into its definition, as migrations = { … },",
            false => "at the end of the list migrations",
        }
    ));
    say(format_args!(
        "-- or make it a folder, with plugin.lua and migrations/{}.lua; then the file is written for you.",
        written.step.id
    ));
    if entry.contains("column.") {
        say(format_args!(
            "local column = patchbay.column -- at the top of the file"
        ));
    }
    say(format_args!("{entry}"));
}
