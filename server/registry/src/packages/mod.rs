//! Packages: how plugins ship, and how they come and go.
//!
//! A package is a folder laid out like a plugin path: one plugin with its `plugin.lua`, or several as folders and files,
//! with modules of its own in `lib/`, which come before those of the plugin paths. It has a name and a version, written in
//! `patchbay-package.toml` or derived: from the plugin's platform and version where it has one plugin.
//!
//! | module | holds |
//! |---|---|
//! | `name`, `path` | names, versions and paths that are safe on every system |
//! | `content`, `archive` | the files of a package in memory, from a folder or a `.tar.gz`, within bounds |
//! | `manifest` | `patchbay-package.toml`, and the hash that pins a package |
//! | `lock` | `plugins.lock`, and the right to change it |
//! | `inspect` | a package's definitions, and a trial of it beside all other plugins |
//! | `install` | install, link, remove, roll back, enable, disable |
//! | `look` | list, info, verify, pack |
//!
//! # Where things lie
//! ```text
//! packages/                        PATCHBAY_PACKAGES
//!   plugins.lock                   what is installed; a server loads this and nothing else
//!   snowflake/1.2.0-3f9a0c21bd04/  the files of one version, never changed once they are there
//!   .staging/                      what is being put together; emptied by the next change
//!   .lock                          held by whoever changes something
//! ```
//!
//! # Invariants
//! - Nothing of a package is in place before all of it was read within bounds, checked, and tried beside all other plugins.
//! - A version's folder is named by its content, and what pins it is swapped by renaming one file: killed at any instant,
//!   either the old set is installed or the new one.
//! - A server loads the bytes that it has hashed, not the same files read again.
//! - Nothing here touches the database: tables and rows outlive their package.

mod archive;
mod content;
mod inspect;
mod install;
mod lock;
mod look;
mod manifest;
mod name;
mod path;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::discovery::read_bounded;

pub use self::inspect::Workshop;
pub use self::install::{Change, Installed, Options};
pub use self::look::{InstalledPackage, Packed, VerifiedPackage};
pub use self::manifest::{Manifest, PackagedPlugin};
pub use self::name::{PackageName, PackageVersion};

pub(crate) use self::content::{Content, MANIFEST};
pub(crate) use self::inspect::check_manifest;
pub(crate) use self::lock::{LOCK, Lock, Locked, MAX_LOCK};
pub(crate) use self::look::{Broken, read_pinned};

/// Why nothing came of it. Each text says what was expected and found, where, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum PackageError {
    /// The folder or archive is no package.
    #[error("{}: {reason}", .source_path.display())]
    Content {
        /// The folder or archive.
        source_path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Its plugins do not load, or not beside the others.
    #[error("{}: {} of its plugins cannot serve here:{}", .source_path.display(), .mistakes.len(), listed(.mistakes))]
    Plugins {
        /// The folder or archive.
        source_path: PathBuf,
        /// Every mistake.
        mistakes: Vec<String>,
    },
    /// Another package has what this one claims.
    #[error("{0}")]
    Taken(String),
    /// It replaces what is installed in a way that is to be confirmed.
    #[error("{0} (say --force if that is meant)")]
    NeedsForce(String),
    /// No package, and no plugin of one, has that name.
    #[error("{0}")]
    NotInstalled(String),
    /// It asks for what cannot be, such as a version before the first.
    #[error("{0}")]
    Impossible(String),
    /// `plugins.lock` cannot be used.
    #[error("{0}")]
    Lock(String),
    /// The file system refuses.
    #[error("{what}: {error}")]
    Files {
        /// What was done, and where.
        what: String,
        /// The reason.
        error: std::io::Error,
    },
}

fn listed(mistakes: &[String]) -> String {
    mistakes
        .iter()
        .map(|mistake| format!("\n  {mistake}"))
        .collect()
}

/// The folder of installed packages. A cheap handle.
#[derive(Debug, Clone)]
pub struct Packages {
    folder: PathBuf,
    /// The lock as it was last read, so that a scan parses only what is new.
    read: Arc<Mutex<Option<ReadLock>>>,
}

#[derive(Debug)]
struct ReadLock {
    text: String,
    lock: Arc<Lock>,
}

impl Packages {
    /// The packages in a folder, which need not be there yet.
    pub fn at(folder: PathBuf) -> Packages {
        Packages {
            folder,
            read: Arc::default(),
        }
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// What is installed; none without a `plugins.lock`.
    ///
    /// # Errors
    /// What is wrong with the file, and what to do.
    pub(crate) fn lock(&self) -> Result<Option<Arc<Lock>>, String> {
        let path = self.folder.join(LOCK);
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Some(before), Ok(text)) = (&*read, read_bounded(&path, MAX_LOCK))
            && before.text == text
        {
            return Ok(Some(before.lock.clone()));
        }
        let Some((text, lock)) = Lock::read(&self.folder)? else {
            return Ok(None);
        };
        let lock = Arc::new(lock);
        *read = Some(ReadLock {
            text,
            lock: lock.clone(),
        });
        Ok(Some(lock))
    }

    /// What lies in the folder and is in no lock, so that no server loads it, each with what to do. Nothing while
    /// somebody changes the folder.
    pub(crate) fn unlisted(&self, lock: Option<&Lock>) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(&self.folder) else {
            return Vec::new();
        };
        let mut found: Vec<String> = entries
            .flatten()
            .filter_map(|entry| {
                let name = entry.file_name().to_string_lossy().into_owned();
                let is_one =
                    name.ends_with(".lua") || entry.file_type().is_ok_and(|kind| kind.is_dir());
                let listed = lock.is_some_and(|lock| lock.get(&name).is_some());
                (is_one && !name.starts_with('.') && !listed).then_some(name)
            })
            .collect();
        if found.is_empty() || lock::is_held(&self.folder) {
            return Vec::new();
        }
        found.sort();
        let folder = self.folder.display();
        found
            .iter()
            .map(|name| {
                format!(
                    "{folder}/{name} is not in {folder}/{LOCK}, so nothing of it is loaded (install it with `patchbay \
                     plugin install`, or remove it)"
                )
            })
            .collect()
    }

    fn required_lock(&self) -> Result<Lock, PackageError> {
        match self.lock() {
            Ok(lock) => Ok(lock.map(|lock| (*lock).clone()).unwrap_or_default()),
            Err(reason) => Err(PackageError::Lock(reason)),
        }
    }
}

/// An error of the file system, with what was done.
fn files(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> PackageError {
    let what = what.into();
    move |error| PackageError::Files { what, error }
}
