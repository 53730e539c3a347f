//! What is told of an installation to whoever asks what is wrong with it: which plugins are off and why, what waits in a
//! database, which forms lack something, and whether the file system tells of changes.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use notify::{RecursiveMode, Watcher};
use patchbay_plugin::catalogue::Catalogue;
use patchbay_plugin::change::compared;
use patchbay_plugin::migration::plan;
use patchbay_store::{Store, StoreError};

use crate::Registry;
use crate::check::Fixed;
use crate::enabling::{Selectable, Selection};
use crate::reload::held_at;

/// How long an event may take to arrive.
const PATIENCE: Duration = Duration::from_secs(2);

/// A plugin that is found and off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginOff {
    /// Its name.
    pub plugin: String,
    /// Where it lies.
    pub source: String,
    /// Why, and what turns it on.
    pub reason: String,
    /// Whether it is one that ships or an example, so that being off is nothing to look into.
    pub ships: bool,
}

/// What a plugin's migrations want of a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Steps {
    /// Steps that run by themselves at the next start or reload.
    Pending(Vec<String>),
    /// Steps that wait to be told, because they do more than add.
    Waiting(Vec<String>),
    /// Steps that do not run because an operator holds the plugin before them, and what is said of that.
    Held(Vec<String>, String),
    /// They do not fit what was applied.
    Unfit(String),
}

/// Whether the file system tells of changes in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Events {
    /// A change was made and told.
    Told,
    /// A change was made, and nothing told of it.
    Silent,
    /// It cannot be tried, for this reason.
    Untried(String),
}

impl Registry {
    /// The catalogue of the registry's own database.
    pub fn catalogue(&self) -> Arc<Catalogue> {
        self.store().catalogue()
    }

    /// The plugins that are found and off, by settings or with their package.
    pub fn plugins_off(&self, selection: &Selection) -> Vec<PluginOff> {
        let generation = self.current();
        let off = generation.findings.iter().filter_map(|finding| {
            let definition = finding.definition.as_ref()?;
            if finding.serving.is_some() || finding.failure.is_some() {
                return None;
            }
            let location = finding.place.location();
            let selectable = Selectable {
                definition,
                location: &location,
                example: finding.place.example,
            };
            let embedded = finding.place.root == 0 || finding.place.example;
            let ships = embedded || selection.is_off_as_it_ships(selectable);
            let reason = match &finding.place.package {
                Some(owner) if owner.off => {
                    format!(
                        "its package is disabled; `patchbay plugin enable {}`",
                        owner.package
                    )
                }
                _ => selection.why_off(selectable)?,
            };
            Some(PluginOff {
                plugin: definition.name.to_string(),
                source: finding.place.label(),
                reason,
                ships,
            })
        });
        off.collect()
    }

    /// Which of the active plugins promise less by their number than they change in another database than the registry's own,
    /// and why. Nothing is written.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn broken_promises(
        &self,
        store: &Store,
    ) -> Result<Vec<(String, String)>, StoreError> {
        let (histories, marks) = (store.histories().await?, store.applied_marks().await?);
        let outlines = store.applied_outlines().await?;
        let generation = self.current();
        let mut found = Vec::new();
        for entry in &generation.entries {
            let definition = entry.active.definition();
            let name = definition.name.as_str();
            let history = histories.get(name).map(Vec::as_slice).unwrap_or_default();
            let (Some(before), Ok(plan)) = (outlines.get(name), plan(definition, history)) else {
                continue;
            };
            let (changes, broken) = compared(before, definition, &plan);
            let told = marks
                .get(name)
                .and_then(|mark| mark.broken_promise.clone())
                .filter(|_| changes.is_empty() && before.version == definition.version);
            found.extend(broken.or(told).map(|reason| (name.to_owned(), reason)));
        }
        Ok(found)
    }

    /// What the migrations of the enabled plugins want of another database than the registry's own, by plugin. Nothing is
    /// run.
    ///
    /// # Errors
    /// The histories cannot be read.
    pub async fn steps_for(&self, store: &Store) -> Result<Vec<(String, Steps)>, StoreError> {
        let (histories, held) = (store.histories().await?, store.held().await?);
        let generation = self.current();
        let mut found = Vec::new();
        for entry in &generation.entries {
            let definition = entry.active.definition();
            let name = definition.name.as_str();
            let history = histories.get(name).map(Vec::as_slice).unwrap_or_default();
            let steps = match plan(definition, history) {
                Err(reason) => Steps::Unfit(reason.to_string()),
                Ok(plan) if plan.pending.is_empty() => continue,
                Ok(plan) => {
                    let waits = plan.pending.iter().any(|step| !step.expands);
                    let ids = plan
                        .pending
                        .iter()
                        .map(|step| step.migration.id.to_string());
                    match (held.get(name), waits) {
                        (Some(held), _) => Steps::Held(ids.collect(), held_at(held)),
                        (None, true) => Steps::Waiting(ids.collect()),
                        (None, false) => Steps::Pending(ids.collect()),
                    }
                }
            };
            found.push((name.to_owned(), steps));
        }
        Ok(found)
    }

    /// The active plugins whose form lacks something in a catalogue, each with its platform key.
    pub async fn unconfigured(&self, catalogue: Arc<Catalogue>) -> Vec<(String, String)> {
        let generation = self.current();
        let mut found = Vec::new();
        for entry in &generation.entries {
            let form = entry
                .active
                .plugin
                .ui_metadata(Arc::new(Fixed(catalogue.clone())));
            if form.await.is_ok_and(|form| form.not_configured) {
                let key = entry.active.definition().platform.platform_key.to_string();
                found.push((entry.active.name().to_owned(), key));
            }
        }
        found
    }
}

/// Tries whether the file system tells of changes in a folder: by a hidden file that is made and removed, or, where none can
/// be made, by reading one that is there.
pub async fn try_events(folder: &Path) -> Events {
    let folder = folder.to_owned();
    let tried = tokio::task::spawn_blocking(move || try_events_in(&folder)).await;
    tried.unwrap_or_else(|error| Events::Untried(error.to_string()))
}

fn try_events_in(folder: &Path) -> Events {
    let (send, events) = mpsc::channel();
    let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        if event.is_ok() {
            // The receiver goes with the probe.
            let _ = send.send(());
        }
    });
    let mut watcher = match watcher {
        Ok(watcher) => watcher,
        Err(error) => return Events::Untried(error.to_string()),
    };
    if let Err(error) = watcher.watch(folder, RecursiveMode::NonRecursive) {
        return Events::Untried(error.to_string());
    }
    let mut probe = tempfile::Builder::new();
    match probe.prefix(".patchbay-doctor-").tempfile_in(folder) {
        Ok(file) => {
            drop(file);
            match events.recv_timeout(PATIENCE) {
                Ok(()) => Events::Told,
                Err(_) => Events::Silent,
            }
        }
        Err(refused) => {
            // Some systems tell of reading too.
            let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
            let some = entries
                .map(|entry| entry.path())
                .find(|path| path.is_file());
            let read = some.map(std::fs::read);
            match read.is_some() && events.recv_timeout(PATIENCE).is_ok() {
                true => Events::Told,
                false => Events::Untried(refused.to_string()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_folder_on_this_machine_tells_and_keeps_nothing_of_the_trial() {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(try_events(folder.path()).await, Events::Told);
        assert_eq!(std::fs::read_dir(folder.path()).expect("read").count(), 0);
        let gone = try_events(&folder.path().join("gone")).await;
        assert!(matches!(gone, Events::Untried(_)), "{gone:?}");
    }
}
