//! Where plugins lie and what is in their files, read at one moment.
//!
//! A [`Place`] is a file or folder that should hold a plugin. Reading it gives [`Files`] in memory, which the sandbox
//! gets; what changes on disk afterwards cannot reach a version that was read before.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use patchbay_lua::{Files, Source};
use sha2::{Digest, Sha256};

use crate::settings::Shipped;

/// The file that makes a folder a plugin.
pub(crate) const ENTRY: &str = "plugin.lua";
/// The largest Lua file, in bytes.
const MAX_FILE: u64 = 1024 * 1024;
/// The most Lua files that a plugin's folder may hold.
const MAX_FILES: usize = 256;
/// The largest icon, in bytes.
const MAX_ICON: u64 = 64 * 1024;
/// The most entries of a plugin's folder that are looked at.
const MAX_ENTRIES: usize = 4096;
/// How deep below a plugin's folder modules may lie.
const MAX_DEPTH: usize = 4;

/// A file or folder that should hold a plugin.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    /// The number of its plugin path: 0 for what is embedded, then the configured ones in order.
    pub(crate) root: usize,
    /// Whether it lies in a folder of examples.
    pub(crate) example: bool,
    /// Where it is.
    pub(crate) origin: Origin,
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
}

impl Place {
    /// How messages and answers name it.
    pub(crate) fn label(&self) -> String {
        match &self.origin {
            Origin::Embedded(folder) => format!("embedded:{folder}"),
            Origin::File(path) | Origin::Folder(path) => path.display().to_string(),
        }
    }

    /// The path by which settings may name it.
    pub(crate) fn location(&self) -> String {
        match &self.origin {
            Origin::Embedded(folder) => format!("lua-plugins/{folder}"),
            Origin::File(path) | Origin::Folder(path) => path.display().to_string(),
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
        }
    }
}

/// Everything of a plugin that was read from its place.
#[derive(Clone)]
pub(crate) struct Bundle {
    /// What the sandbox gets.
    pub(crate) source: Source,
    /// The icons of an embedded plugin, by file name. On disk the one that the definition names is read.
    icons: BTreeMap<String, Arc<[u8]>>,
    /// The hash of all that was read, modules in `lib/` excepted.
    pub(crate) fingerprint: [u8; 32],
}

/// Why a place cannot be read.
#[derive(Debug)]
pub(crate) enum ReadError {
    /// It is not there any more.
    Vanished,
    /// Another reason, as a sentence.
    Failed(String),
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
}

/// Looks for plugins. Root 0 is what is embedded.
pub(crate) fn scan(shipped: Shipped, paths: &[PathBuf], with_examples: bool) -> Scan {
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
    // A plugin sees the modules of every path; its own path's come first, then the later ones'.
    let mut shared = Files::new();
    for libs in own_libs.values() {
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
        });
        return Ok(());
    }
    if holds_plugin(path) {
        places.push(Place {
            root,
            example: false,
            origin: Origin::Folder(path.to_owned()),
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

fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

fn is_plugin_file(name: &str) -> bool {
    name.ends_with(".lua") && !name.ends_with("_spec.lua")
}

fn is_module(name: &str) -> bool {
    (name.ends_with(".lua") || name.ends_with(".luau"))
        && !name.ends_with("_spec.lua")
        && !name.starts_with('.')
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
    let mut reader = FolderReader::new(folder);
    reader.walk(folder, "", 0);
    reader.files
}

impl Place {
    /// Reads the plugin.
    pub(crate) fn read(&self, shipped: Shipped, libs: Arc<Files>) -> Result<Bundle, ReadError> {
        match &self.origin {
            Origin::Embedded(folder) => Ok(self.read_embedded(folder, shipped, libs)),
            Origin::File(path) => self.read_file(path, libs),
            Origin::Folder(path) => self.read_folder(path, libs),
        }
    }

    fn bundle(
        &self,
        label: String,
        entry: String,
        reader: FolderReader,
        single_file: bool,
        libs: Arc<Files>,
    ) -> Bundle {
        let mut hash = Sha256::new();
        for (name, text) in &reader.files {
            hash.update(format!("{name}\0{}\0", text.len()));
            hash.update(text.as_bytes());
        }
        for (name, reason) in &reader.refused {
            hash.update(format!("{name}\0{reason}\0"));
        }
        for (name, bytes) in &reader.icons {
            hash.update(format!("{name}\0{}\0", bytes.len()));
            hash.update(bytes);
        }
        Bundle {
            source: Source {
                label,
                entry,
                files: Arc::new(reader.files),
                refused: Arc::new(reader.refused),
                single_file,
                libs,
            },
            icons: reader.icons,
            fingerprint: hash.finalize().into(),
        }
    }

    fn read_embedded(&self, folder: &str, shipped: Shipped, libs: Arc<Files>) -> Bundle {
        let mut reader = FolderReader::new(Path::new(""));
        let prefix = format!("{folder}/");
        for (path, bytes) in shipped.files {
            let Some(name) = path.strip_prefix(&prefix) else {
                continue;
            };
            if name.ends_with(".svg") {
                reader.icons.insert(name.to_owned(), Arc::from(*bytes));
            } else if is_module(name)
                && let Ok(text) = std::str::from_utf8(bytes)
            {
                reader.files.insert(name.to_owned(), Arc::from(text));
            }
        }
        self.bundle(self.label(), ENTRY.to_owned(), reader, false, libs)
    }

    fn read_file(&self, path: &Path, libs: Arc<Files>) -> Result<Bundle, ReadError> {
        let mut reader = FolderReader::new(path.parent().unwrap_or(Path::new("")));
        let name = self.file_name();
        let text = read_text(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => ReadError::Vanished,
            _ => ReadError::Failed(format!("{name} cannot be read: {}", reason_of(&error))),
        })?;
        reader.files.insert(name.clone(), text);
        let label = path
            .parent()
            .map(|parent| parent.display().to_string())
            .unwrap_or_default();
        Ok(self.bundle(label, name, reader, true, libs))
    }

    fn read_folder(&self, path: &Path, libs: Arc<Files>) -> Result<Bundle, ReadError> {
        let mut reader = FolderReader::new(path);
        reader.walk(path, "", 0);
        if !reader.files.contains_key(ENTRY) {
            let reason = match (reader.refused.get(ENTRY), fs::metadata(path.join(ENTRY))) {
                (Some(reason), _) => reason.clone(),
                (None, Err(error)) if !is_absent(&error) => reason_of(&error),
                (None, _) => return Err(ReadError::Vanished),
            };
            return Err(ReadError::Failed(format!(
                "{ENTRY} cannot be read: {reason}"
            )));
        }
        Ok(self.bundle(
            path.display().to_string(),
            ENTRY.to_owned(),
            reader,
            false,
            libs,
        ))
    }

    /// The icon of that file name which lies beside the plugin, when there is one that can be shown.
    pub(crate) fn icon(&self, name: &str, bundle: &Bundle) -> Option<Arc<[u8]>> {
        match &self.origin {
            Origin::File(path) => icon_in(path.parent()?, name),
            Origin::Folder(path) => icon_in(path, name),
            Origin::Embedded(_) => bundle.icons.get(name).cloned(),
        }
    }
}

/// Collects what a plugin's folder holds, and keeps to the folder: a link that leads out of it is refused.
struct FolderReader {
    root: Option<PathBuf>,
    files: Files,
    refused: BTreeMap<String, String>,
    icons: BTreeMap<String, Arc<[u8]>>,
    /// The folders that were walked, links resolved, so that a loop of links is walked once.
    walked: BTreeSet<PathBuf>,
    /// How many entries may still be looked at.
    entries_left: usize,
}

impl FolderReader {
    fn new(folder: &Path) -> Self {
        Self {
            root: folder.canonicalize().ok(),
            files: Files::new(),
            refused: BTreeMap::new(),
            icons: BTreeMap::new(),
            walked: BTreeSet::new(),
            entries_left: MAX_ENTRIES,
        }
    }

    fn walk(&mut self, folder: &Path, prefix: &str, depth: usize) {
        let is_new = folder
            .canonicalize()
            .is_ok_and(|real| self.walked.insert(real));
        let Some(entries) = fs::read_dir(folder).ok().filter(|_| is_new) else {
            return;
        };
        for entry in entries.flatten() {
            if self.entries_left == 0 {
                self.refused.insert(
                    prefix.to_owned(),
                    format!("the folder holds more than {MAX_ENTRIES} entries"),
                );
                return;
            }
            self.entries_left -= 1;
            let path = entry.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
                continue;
            };
            if name.starts_with('.') {
                continue;
            }
            let relative = format!("{prefix}{name}");
            if path.is_dir() {
                let inside = self.is_inside(&path);
                if depth + 1 < MAX_DEPTH
                    && inside
                    && !["types", "examples", "node_modules"].contains(&name)
                {
                    self.walk(&path, &format!("{relative}/"), depth + 1);
                } else if !inside {
                    self.refused.insert(
                        relative,
                        "it is a link that leaves the plugin's folder".to_owned(),
                    );
                }
            } else if is_module(name) {
                self.take_module(&path, relative);
            }
        }
    }

    fn take_module(&mut self, path: &Path, relative: String) {
        if !self.is_inside(path) {
            self.refused.insert(
                relative,
                "it is a link that leaves the plugin's folder".to_owned(),
            );
            return;
        }
        if self.files.len() >= MAX_FILES {
            self.refused.insert(
                relative,
                format!("the folder holds more than {MAX_FILES} Lua files"),
            );
            return;
        }
        match read_text(path) {
            Ok(text) => {
                self.files.insert(relative, text);
            }
            // A file that is gone was never part of what is read now.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                self.refused.insert(relative, reason_of(&error));
            }
        }
    }

    fn is_inside(&self, path: &Path) -> bool {
        match (&self.root, path.canonicalize()) {
            (Some(root), Ok(path)) => path.starts_with(root),
            _ => false,
        }
    }
}

/// Reads a Lua file: bounded, regular, UTF-8. A device or pipe is never opened.
fn read_text(path: &Path) -> io::Result<Arc<str>> {
    let data = fs::metadata(path)?;
    if !data.is_file() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is not a regular file",
        ));
    }
    if data.len() > MAX_FILE {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("it is larger than {} KiB", MAX_FILE / 1024),
        ));
    }
    let bytes = fs::read(path)?;
    // The interpreter would take it for the end, and whatever follows would silently not count.
    if let Some(place) = bytes.iter().position(|byte| *byte == 0) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("it is not text (byte {} is NUL)", place + 1),
        ));
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Arc::from(text.strip_prefix('\u{feff}').unwrap_or(&text))),
        Err(error) => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!(
                "it is not UTF-8 text (byte {})",
                error.utf8_error().valid_up_to() + 1
            ),
        )),
    }
}

/// The icon of that name in a folder. A link that leaves the folder is no icon.
fn icon_in(folder: &Path, name: &str) -> Option<Arc<[u8]>> {
    let path = folder.join(name).canonicalize().ok()?;
    path.starts_with(folder.canonicalize().ok()?)
        .then(|| read_icon(&path))
        .flatten()
}

fn read_icon(path: &Path) -> Option<Arc<[u8]>> {
    let data = fs::metadata(path).ok()?;
    if !data.is_file() || data.len() > MAX_ICON {
        return None;
    }
    let bytes = fs::read(path).ok()?;
    let text = std::str::from_utf8(&bytes).ok()?;
    text.contains("<svg").then(|| Arc::from(bytes.as_slice()))
}

/// The reason of an error without the noise of its number.
fn reason_of(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "it is not there".to_owned(),
        io::ErrorKind::PermissionDenied => "the server may not read it".to_owned(),
        io::ErrorKind::NotADirectory => "it is not a folder".to_owned(),
        _ => error.to_string(),
    }
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
            let scan = scan(Shipped::default(), &[root.to_owned()], with_examples);
            assert_eq!(scan.libs[&1].keys().collect::<Vec<_>>(), ["shared.lua"]);
            scan.places.iter().map(Place::file_name).collect()
        };
        assert_eq!(names(false), ["a.lua", "b"]);
        assert_eq!(names(true), ["a.lua", "b", "s3"]);
        let one = scan(Shipped::default(), &[root.join("b")], false);
        assert_eq!(one.places.len(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn links_out_of_the_folder_are_refused_and_links_within_are_followed() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path();
        write(&root.join("secret.lua"), "return 1");
        write(&root.join("p/..data_1/plugin.lua"), "return 2");
        std::os::unix::fs::symlink("..data_1", root.join("p/..data")).expect("a link");
        std::os::unix::fs::symlink("..data/plugin.lua", root.join("p/plugin.lua")).expect("a link");
        std::os::unix::fs::symlink("../secret.lua", root.join("p/out.lua")).expect("a link");
        std::os::unix::fs::symlink("/dev/zero", root.join("p/zero.lua")).expect("a link");
        let scan = scan(Shipped::default(), &[root.join("p")], false);
        let bundle = scan.places[0]
            .read(Shipped::default(), scan.libs[&1].clone())
            .expect("a bundle");
        assert_eq!(
            bundle.source.files.keys().collect::<Vec<_>>(),
            ["plugin.lua"]
        );
        assert_eq!(
            bundle.source.refused.keys().collect::<Vec<_>>(),
            ["out.lua", "zero.lua"]
        );
    }

    #[cfg(unix)]
    #[test]
    fn a_folder_of_links_to_itself_is_walked_once() {
        let folder = tempfile::tempdir().expect("a folder");
        write(&folder.path().join("p/plugin.lua"), "return 1");
        for link in 0..60 {
            std::os::unix::fs::symlink(".", folder.path().join(format!("p/l{link}")))
                .expect("a link");
        }
        let scan = scan(Shipped::default(), &[folder.path().to_owned()], false);
        let bundle = scan.places[0]
            .read(Shipped::default(), scan.libs[&1].clone())
            .expect("a bundle");
        assert_eq!(
            bundle.source.files.keys().collect::<Vec<_>>(),
            ["plugin.lua"]
        );
    }

    #[test]
    fn what_is_no_text_is_refused_with_the_reason() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("x.lua");
        for (bytes, reason) in [
            (&[0x66, 0xff][..], "not UTF-8 text (byte 2)"),
            (b"return 1\0return 2", "not text (byte 9 is NUL)"),
        ] {
            fs::write(&file, bytes).expect("a file");
            let scan = scan(Shipped::default(), &[folder.path().to_owned()], false);
            let error = scan.places[0]
                .read(Shipped::default(), scan.libs[&1].clone())
                .err()
                .expect("not text");
            assert!(
                matches!(&error, ReadError::Failed(text) if text.contains(reason)),
                "{error:?}"
            );
        }
    }
}
