//! Where plugins lie, and what is in their files.
//!
//! A [`Place`] is a file or folder that should hold a plugin. `reading` takes its files into memory, `folder` those of one
//! folder at one moment, `installed` those of a package, held to what pins it, `specs` what tests them.

mod folder;
mod installed;
mod overlooked;
mod reading;
mod specs;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use patchbay_lua::Files;

pub use self::folder::read_bounded;
use self::folder::{FolderReader, is_absent, is_module, reason_of};
use crate::packages::Packages;
use crate::settings::Shipped;

pub(crate) use self::installed::{InstalledPlugin, Owner, PinnedFiles, packaged_bundle};
pub use self::overlooked::{Overlooked, overlooked};
pub(crate) use self::reading::{Bundle, ReadError};
pub use self::specs::{SpecFolder, find_specs, read_spec};

/// The file that makes a folder a plugin.
pub(crate) const ENTRY: &str = "plugin.lua";

/// A file or folder that should hold a plugin.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    /// The number of its plugin path: 0 for what is embedded, then the configured ones in order.
    pub(crate) root: usize,
    /// Whether it lies in a folder of examples.
    pub(crate) example: bool,
    /// Where it is.
    pub(crate) origin: Origin,
    /// The package that it belongs to, when it is installed.
    pub(crate) package: Option<Owner>,
}

/// Where a plugin is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Origin {
    /// Embedded, below this folder of the shipped files.
    Embedded(String),
    /// A file of its own.
    File(PathBuf),
    /// A folder with `plugin.lua`.
    Folder(PathBuf),
    /// In an installed package, as a folder or a file.
    Installed(InstalledPlugin),
}

impl Place {
    /// By what a place is known again. Versions of a package lie in different folders and are the same place.
    pub(crate) fn identity(&self) -> String {
        match &self.package {
            Some(owner) => format!("package {}: {}", owner.package, owner.path),
            None => self.label(),
        }
    }

    /// Whether it is off, whatever the settings choose.
    pub(crate) fn is_off(&self) -> bool {
        self.package.as_ref().is_some_and(|owner| owner.off)
    }

    /// How messages and answers name it.
    pub(crate) fn label(&self) -> String {
        match &self.origin {
            Origin::Embedded(folder) => format!("embedded:{folder}"),
            Origin::File(path) | Origin::Folder(path) => path.display().to_string(),
            Origin::Installed(plugin) => plugin.location().display().to_string(),
        }
    }

    /// The file that returns the plugin, as messages name it.
    pub(crate) fn entry_file(&self) -> String {
        match &self.origin {
            Origin::File(_) => self.label(),
            Origin::Installed(plugin) if plugin.path.ends_with(".lua") => self.label(),
            Origin::Embedded(_) | Origin::Folder(_) | Origin::Installed(_) => {
                format!("{}/{ENTRY}", self.label())
            }
        }
    }

    /// The path by which settings may name it.
    pub(crate) fn location(&self) -> String {
        match &self.origin {
            Origin::Embedded(folder) => format!("lua-plugins/{folder}"),
            Origin::File(path) | Origin::Folder(path) => path.display().to_string(),
            Origin::Installed(plugin) => plugin.location().display().to_string(),
        }
    }

    /// The name by which places of one root are ordered: "the first by file name".
    pub(crate) fn file_name(&self) -> String {
        match &self.origin {
            Origin::Embedded(folder) => folder.clone(),
            Origin::File(path) | Origin::Folder(path) => path
                .file_name()
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default(),
            Origin::Installed(_) => self.identity(),
        }
    }
}

/// What the plugin paths hold at one moment.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    /// The places, in the order of roots and file names.
    pub(crate) places: Vec<Place>,
    /// The modules that plugins of each root may require with `@lib/`.
    pub(crate) libs: BTreeMap<usize, Arc<Files>>,
    /// The roots that are not there or cannot be read, with the reason.
    pub(crate) missing: BTreeMap<usize, String>,
    /// The linked packages whose folder is not there, with the reason.
    pub(crate) missing_packages: BTreeMap<String, String>,
    /// What is wrong with the packages.
    pub(crate) problems: Vec<String>,
}

impl Scan {
    /// Why a place is not found although nobody took it out.
    pub(crate) fn missing_for(&self, place: &Place) -> Option<&String> {
        let package = place.package.as_ref();
        package
            .and_then(|owner| self.missing_packages.get(&owner.package))
            .or_else(|| self.missing.get(&place.root))
    }

    /// The modules that plugins of packages may require besides their package's own.
    pub(crate) fn libs_for_packages(&self) -> Arc<Files> {
        let last = self.libs.last_key_value();
        last.map(|(_, libs)| libs.clone()).unwrap_or_default()
    }
}

/// Looks for plugins. Root 0 is what is embedded; the packages come after the plugin paths.
pub(crate) fn scan(
    shipped: Shipped,
    paths: &[PathBuf],
    packages: Option<&Packages>,
    with_examples: bool,
) -> Scan {
    scan_beside(shipped, &[], paths, packages, with_examples)
}

/// The same, where plugins may require the modules of `libraries` too, before which those of their own path come.
pub(crate) fn scan_beside(
    shipped: Shipped,
    libraries: &[PathBuf],
    paths: &[PathBuf],
    packages: Option<&Packages>,
    with_examples: bool,
) -> Scan {
    let mut scan = Scan::default();
    scan_embedded(shipped, with_examples, &mut scan);
    let mut own_libs: BTreeMap<usize, Files> = BTreeMap::new();
    own_libs.insert(0, embedded_libs(shipped));
    for (place, path) in paths.iter().enumerate() {
        let root = place + 1;
        if let Err(error) = scan_path(path, root, with_examples, &mut scan.places) {
            scan.missing.insert(root, reason_of(&error));
        }
        own_libs.insert(root, disk_libs(&path.join("lib")));
    }
    // The last root has no modules of its own: each package has its own.
    let root = paths.len() + 1;
    own_libs.insert(root, Files::new());
    if let Some(packages) = packages {
        installed::scan_packages(packages, root, &mut scan);
    }
    // A plugin sees the modules of every path; its own path's come first, then the later ones'.
    let mut shared = embedded_libs(shipped);
    for path in libraries {
        shared.extend(disk_libs(&path.join("lib")));
    }
    for libs in own_libs.values().skip(1) {
        shared.extend(libs.iter().map(|(name, text)| (name.clone(), text.clone())));
    }
    for (root, own) in own_libs {
        let mut merged = shared.clone();
        if root != 0 {
            merged.extend(own);
        }
        scan.libs.insert(root, Arc::new(merged));
    }
    scan
}

fn scan_embedded(shipped: Shipped, with_examples: bool, scan: &mut Scan) {
    for (path, _) in shipped.files {
        let Some(folder) = path.strip_suffix(&format!("/{ENTRY}")) else {
            continue;
        };
        let example = folder.starts_with("examples/");
        if example && !with_examples {
            continue;
        }
        scan.places.push(Place {
            root: 0,
            example,
            origin: Origin::Embedded(folder.to_owned()),
            package: None,
        });
    }
    scan.places.sort();
}

fn scan_path(
    path: &Path,
    root: usize,
    with_examples: bool,
    places: &mut Vec<Place>,
) -> io::Result<()> {
    if path.is_file() {
        places.push(Place {
            root,
            example: false,
            origin: Origin::File(path.to_owned()),
            package: None,
        });
        return Ok(());
    }
    if holds_plugin(path) {
        places.push(Place {
            root,
            example: false,
            origin: Origin::Folder(path.to_owned()),
            package: None,
        });
        return Ok(());
    }
    places.extend(scan_folder(path, root, false)?);
    if with_examples && let Ok(examples) = scan_folder(&path.join("examples"), root, true) {
        places.extend(examples);
    }
    Ok(())
}

fn scan_folder(path: &Path, root: usize, example: bool) -> io::Result<Vec<Place>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(path)? {
        let path = entry?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
            continue;
        };
        if name.starts_with('.') || ["lib", "types", "examples"].contains(&name) {
            continue;
        }
        let origin = if is_plugin_file(name) && !path.is_dir() {
            Origin::File(path)
        } else if holds_plugin(&path) {
            Origin::Folder(path)
        } else {
            continue;
        };
        found.push(Place {
            root,
            example,
            origin,
            package: None,
        });
    }
    found.sort_by_key(Place::file_name);
    Ok(found)
}

/// Whether a folder has a `plugin.lua`. One that cannot be looked into counts as having it, so that reading it says why,
/// instead of a plugin vanishing for want of a permission.
fn holds_plugin(folder: &Path) -> bool {
    match fs::metadata(folder.join(ENTRY)) {
        Ok(data) => data.is_file(),
        Err(error) => !is_absent(&error),
    }
}

fn is_plugin_file(name: &str) -> bool {
    name.ends_with(".lua") && !name.ends_with("_spec.lua")
}

fn embedded_libs(shipped: Shipped) -> Files {
    shipped
        .files
        .iter()
        .filter_map(|(path, bytes)| {
            let name = path.strip_prefix("lib/").filter(|name| is_module(name))?;
            Some((name.to_owned(), Arc::from(std::str::from_utf8(bytes).ok()?)))
        })
        .collect()
}

/// The modules of a `lib` folder. One that cannot be read is left out, and a plugin that requires it says so.
fn disk_libs(folder: &Path) -> Files {
    FolderReader::read(folder)
        .map(|reader| reader.files)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: &Path, text: &str) {
        fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        fs::write(path, text).expect("a file");
    }

    #[test]
    fn specs_lib_types_and_examples_are_not_scanned() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path();
        for file in [
            "b/plugin.lua",
            "a.lua",
            "a_spec.lua",
            "lib/shared.lua",
            "types/x.lua",
            "examples/s3/plugin.lua",
            ".hidden/plugin.lua",
            "notes/readme.txt",
        ] {
            write(&root.join(file), "return 1");
        }
        let names = |with_examples| -> Vec<String> {
            let scan = scan(Shipped::default(), &[root.to_owned()], None, with_examples);
            assert_eq!(scan.libs[&1].keys().collect::<Vec<_>>(), ["shared.lua"]);
            scan.places.iter().map(Place::file_name).collect()
        };
        assert_eq!(names(false), ["a.lua", "b"]);
        assert_eq!(names(true), ["a.lua", "b", "s3"]);
        let one = scan(Shipped::default(), &[root.join("b")], None, false);
        assert_eq!(one.places.len(), 1);
    }
}
