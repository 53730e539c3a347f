//! Plugins of installed packages.
//!
//! What `plugins.lock` lists is there, and nothing else. The files of a version are read whole, hashed, and given to the
//! sandbox as they were hashed; a linked package is read from where it lies, like a plugin path.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use patchbay_lua::Files;

use super::folder::{FolderReader, is_module};
use super::{Bundle, ENTRY, Origin, Place, ReadError, Scan, scan_path};
use crate::packages::{Broken, Content, LOCK, Locked, Packages, read_pinned};

/// The largest Lua file of a package and the largest icon are bounded as anywhere else.
const MAX_MODULE: usize = 1024 * 1024;
const MAX_ICON: usize = 64 * 1024;

/// What an installed plugin has from its package.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Owner {
    /// The package's name.
    pub(crate) package: String,
    /// The plugin's folder or file in it; empty when the package is the plugin.
    pub(crate) path: String,
    /// Whether it is off.
    pub(crate) off: bool,
    /// The folder of a linked package.
    pub(crate) link: Option<PathBuf>,
}

/// A plugin of a package that was copied and is pinned.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct InstalledPlugin {
    /// Where the files of this version lie.
    pub(crate) folder: PathBuf,
    /// The plugin's folder or file in it.
    pub(crate) path: String,
    /// What pins the version.
    pub(crate) sha256: String,
}

/// The files of the packages that were read in one look, so that a package of many plugins is hashed once.
#[derive(Default)]
pub(crate) struct PinnedFiles(HashMap<PathBuf, Result<Arc<Content>, Broken>>);

impl InstalledPlugin {
    /// The plugin's folder or file.
    pub(crate) fn location(&self) -> PathBuf {
        match self.path.as_str() {
            "" => self.folder.clone(),
            path => self.folder.join(path),
        }
    }

    pub(super) fn read(
        &self,
        shared: Arc<Files>,
        pinned: &mut PinnedFiles,
    ) -> Result<Bundle, ReadError> {
        let content = pinned
            .0
            .entry(self.folder.clone())
            .or_insert_with(|| read_pinned(&self.folder, &self.sha256).map(Arc::new));
        match content {
            Ok(content) => {
                let label = self.folder.display().to_string();
                Ok(packaged_bundle(&label, content, &self.path, shared))
            }
            // A version that was swept is gone as a whole; the next look at the lock says what is in its place.
            Err(_) if !self.folder.exists() && self.is_replaced() => Err(ReadError::Vanished),
            Err(broken) => {
                let file = broken.file.as_ref().map(|file| self.folder.join(file));
                Err(ReadError::Changed {
                    file: file
                        .unwrap_or_else(|| self.folder.clone())
                        .display()
                        .to_string(),
                    reason: broken.reason.clone(),
                })
            }
        }
    }

    /// Whether the lock does not pin this version any more.
    fn is_replaced(&self) -> bool {
        let packages = self.folder.parent().and_then(|package| package.parent());
        let Some(Ok(Some(lock))) =
            packages.map(|packages| Packages::at(packages.to_owned()).lock())
        else {
            return false;
        };
        !lock
            .packages
            .iter()
            .any(|locked| locked.release.sha256.as_ref() == Some(&self.sha256))
    }
}

/// Adds the plugins of the packages that the lock lists.
pub(super) fn scan_packages(packages: &Packages, root: usize, scan: &mut Scan) {
    let lock = match packages.lock() {
        Ok(lock) => lock,
        Err(reason) => {
            scan.missing.insert(root, reason.clone());
            scan.problems
                .push(format!("the installed packages are not loaded: {reason}"));
            return;
        }
    };
    let unlisted = packages.unlisted(lock.as_deref());
    if lock.is_none() && !unlisted.is_empty() {
        // What serves from there goes on: a lock that was lost is no wish to remove everything.
        let missing = packages.folder().join(LOCK);
        scan.missing
            .insert(root, format!("{} is missing", missing.display()));
    }
    scan.problems.extend(unlisted);
    for locked in lock.iter().flat_map(|lock| &lock.packages) {
        scan_package(locked, packages, root, scan);
    }
}

fn scan_package(locked: &Locked, packages: &Packages, root: usize, scan: &mut Scan) {
    let owner = |path: &str, name: Option<&str>| Owner {
        package: locked.name.to_string(),
        path: path.to_owned(),
        off: !locked.enabled
            || name.is_some_and(|name| locked.disabled.iter().any(|off| off == name)),
        link: locked.release.link.clone(),
    };
    let folder = locked.release.folder(packages.folder(), &locked.name);
    let (None, Some(sha256)) = (&locked.release.link, &locked.release.sha256) else {
        let mut found = Vec::new();
        if let Err(error) = scan_path(&folder, root, false, &mut found) {
            scan.problems.push(format!(
                "the linked package {} is not loaded: {}: {error} (put the folder back, or `patchbay plugin remove {}`)",
                locked.name,
                folder.display(),
                locked.name
            ));
            // What serves from it goes on.
            let reason = format!("the linked folder {} is not there", folder.display());
            scan.missing_packages
                .insert(locked.name.to_string(), reason);
        }
        for mut place in found {
            let path = match &place.origin {
                Origin::File(path) | Origin::Folder(path) => path.strip_prefix(&folder).ok(),
                _ => None,
            };
            let path = path
                .map(|path| path.to_string_lossy().into_owned())
                .unwrap_or_default();
            let known = locked
                .release
                .plugins
                .iter()
                .find(|plugin| plugin.path == path);
            place.package = Some(owner(&path, known.map(|plugin| plugin.name.as_str())));
            scan.places.push(place);
        }
        return;
    };
    for plugin in &locked.release.plugins {
        scan.places.push(Place {
            root,
            example: false,
            package: Some(owner(&plugin.path, Some(&plugin.name))),
            origin: Origin::Installed(InstalledPlugin {
                folder: folder.clone(),
                path: plugin.path.clone(),
                sha256: sha256.clone(),
            }),
        });
    }
}

/// What the sandbox gets of a plugin in a package that is in memory.
pub(crate) fn packaged_bundle(
    label: &str,
    content: &Content,
    path: &str,
    shared: Arc<Files>,
) -> Bundle {
    let mut reader = FolderReader::new(Path::new(""));
    let is_file = path.ends_with(".lua") && content.get(path).is_some();
    let folder = if is_file { "" } else { path };
    for (name, bytes) in content.below(folder) {
        if name.ends_with(".svg") && !name.contains('/') && bytes.len() <= MAX_ICON {
            let shows = std::str::from_utf8(bytes).is_ok_and(|text| text.contains("<svg"));
            if shows {
                reader.icons.insert(name.to_owned(), bytes.clone());
            }
        }
        let wanted = if is_file { name == path } else { is_read(name) };
        if wanted {
            match text_of(bytes) {
                Ok(text) => {
                    reader.files.insert(name.to_owned(), text);
                }
                Err(reason) => {
                    reader.refused.insert(name.to_owned(), reason);
                }
            }
        }
    }
    let own: Files = content
        .below("lib")
        .filter(|(name, _)| is_read(name))
        .filter_map(|(name, bytes)| Some((name.to_owned(), text_of(bytes).ok()?)))
        .collect();
    let libs = own_libs(&shared, own);
    let (label, entry) = match (is_file, folder) {
        (true, _) => (label.to_owned(), path.to_owned()),
        (false, "") => (label.to_owned(), ENTRY.to_owned()),
        (false, folder) => (format!("{label}/{folder}"), ENTRY.to_owned()),
    };
    Bundle::new(label, entry, reader, is_file, libs)
}

/// The modules of a package before those that are shared.
pub(super) fn own_libs(shared: &Arc<Files>, own: Files) -> Arc<Files> {
    if own.is_empty() {
        return shared.clone();
    }
    let mut libs = (**shared).clone();
    libs.extend(own);
    Arc::new(libs)
}

/// Whether a file of a plugin's folder is a module of it, by the rules for folders on disk.
fn is_read(name: &str) -> bool {
    let mut parts = name.split('/').rev();
    parts.next().is_some_and(is_module)
        && parts.all(|part| !["types", "examples", "node_modules"].contains(&part))
}

fn text_of(bytes: &[u8]) -> Result<Arc<str>, String> {
    if bytes.len() > MAX_MODULE {
        return Err(format!("it is larger than {} KiB", MAX_MODULE / 1024));
    }
    if let Some(place) = bytes.iter().position(|byte| *byte == 0) {
        return Err(format!("it is not text (byte {} is NUL)", place + 1));
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(Arc::from(text.strip_prefix('\u{feff}').unwrap_or(text))),
        Err(error) => Err(format!(
            "it is not UTF-8 text (byte {})",
            error.valid_up_to() + 1
        )),
    }
}
