//! The Lua files of one folder, read at one moment.
//!
//! A release that is swapped in by one link, as Kubernetes swaps `..data` in its volumes, may come in the middle of
//! reading. Then the folder is read again, so that files of two releases never become one plugin.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use patchbay_lua::Files;

/// The largest Lua file, in bytes.
const MAX_FILE: u64 = 1024 * 1024;
/// The most Lua files that a plugin's folder may hold.
const MAX_FILES: usize = 256;
/// The most entries of a plugin's folder that are looked at.
const MAX_ENTRIES: usize = 4096;
/// How deep below a plugin's folder modules may lie.
const MAX_DEPTH: usize = 4;
/// How often a folder is read at most, when each time a link is swapped meanwhile.
const MAX_READS: usize = 5;

/// Collects what a plugin's folder holds, and keeps to the folder: a link that leads out of it is refused.
pub(super) struct FolderReader {
    folder: PathBuf,
    /// The folder, links resolved.
    root: Option<PathBuf>,
    /// Where each path led when it was read; none when nowhere.
    led: Vec<(PathBuf, Option<PathBuf>)>,
    pub(super) files: Files,
    /// The Lua files that are none of the plugin's, with the reason.
    pub(super) refused: BTreeMap<String, String>,
    pub(super) icons: BTreeMap<String, Arc<[u8]>>,
    /// The folders that were walked, links resolved, so that a loop of links is walked once.
    walked: BTreeSet<PathBuf>,
    /// How many entries may still be looked at.
    entries_left: usize,
}

impl FolderReader {
    /// Reads a folder at one moment; none when its files were swapped each time that it was read.
    pub(super) fn read(folder: &Path) -> Option<Self> {
        steady(|| {
            let mut reader = Self::new(folder);
            reader.walk(folder, "", 0);
            reader
        })
    }

    /// One that has read nothing yet.
    pub(super) fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            root: folder.canonicalize().ok(),
            led: Vec::new(),
            files: Files::new(),
            refused: BTreeMap::new(),
            icons: BTreeMap::new(),
            walked: BTreeSet::new(),
            entries_left: MAX_ENTRIES,
        }
    }

    /// Whether all links still lead where they led when it was read.
    fn stands(&self) -> bool {
        self.folder.canonicalize().ok() == self.root
            && self
                .led
                .iter()
                .all(|(path, real)| path.canonicalize().ok() == *real)
    }

    fn walk(&mut self, folder: &Path, prefix: &str, depth: usize) {
        let Ok(real) = folder.canonicalize() else {
            return;
        };
        if !self.walked.insert(real.clone()) {
            return;
        }
        let Ok(entries) = fs::read_dir(&real) else {
            return;
        };
        self.led.push((folder.to_owned(), Some(real)));
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
        let real = path.canonicalize();
        self.led
            .push((path.to_owned(), real.as_ref().ok().cloned()));
        let real = match real {
            Ok(real) => real,
            // A file that is gone was never part of what is read now.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => {
                self.refused.insert(relative, reason_of(&error));
                return;
            }
        };
        if !self
            .root
            .as_ref()
            .is_some_and(|root| real.starts_with(root))
        {
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
        match read_text(&real) {
            Ok(text) => {
                self.files.insert(relative, text);
            }
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
pub(super) fn read_text(path: &Path) -> io::Result<Arc<str>> {
    read_bounded(path, MAX_FILE).map(Arc::from)
}

/// Reads a file of text, when it is a regular one of at most `max` bytes. A device or pipe is never opened.
///
/// # Errors
/// Those of the file system; that it is no regular file, is too large, or is not text.
pub fn read_bounded(path: &Path, max: u64) -> io::Result<String> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is not a regular file",
        ));
    }
    // It is read only so far, whatever length it claims to have, and however it grows meanwhile.
    let mut bytes = Vec::new();
    fs::File::open(path)?
        .take(max.saturating_add(1))
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("it is larger than {} KiB", max / 1024),
        ));
    }
    // The interpreter would take it for the end, and whatever follows would silently not count.
    if let Some(place) = bytes.iter().position(|byte| *byte == 0) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("it is not text (byte {} is NUL)", place + 1),
        ));
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok(match text.strip_prefix('\u{feff}') {
            Some(rest) => rest.to_owned(),
            None => text,
        }),
        Err(error) => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!(
                "it is not UTF-8 text (byte {})",
                error.utf8_error().valid_up_to() + 1
            ),
        )),
    }
}

/// Reads until nothing that was read has been swapped meanwhile; none when that does not come to pass.
fn steady(read: impl FnMut() -> FolderReader) -> Option<FolderReader> {
    std::iter::repeat_with(read)
        .take(MAX_READS)
        .find(FolderReader::stands)
}

pub(super) fn is_module(name: &str) -> bool {
    (name.ends_with(".lua") || name.ends_with(".luau"))
        && !name.ends_with("_spec.lua")
        && !name.starts_with('.')
}

pub(super) fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

/// The reason of an error without the noise of its number.
pub(super) fn reason_of(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "it is not there".to_owned(),
        io::ErrorKind::PermissionDenied => "the server may not read it".to_owned(),
        io::ErrorKind::NotADirectory => "it is not a folder".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A folder as Kubernetes mounts one: its files are links through `..data`, which leads to the release.
    fn mounted() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().expect("a folder");
        let folder = dir.path().join("p");
        for release in ["1", "2", "3"] {
            let files = folder.join(format!("..{release}"));
            fs::create_dir_all(&files).expect("a folder");
            for file in ["plugin.lua", "rules.lua"] {
                fs::write(files.join(file), format!("return {release}")).expect("a file");
            }
        }
        symlink("..1", folder.join("..data")).expect("a link");
        for file in ["plugin.lua", "rules.lua"] {
            symlink(format!("..data/{file}"), folder.join(file)).expect("a link");
        }
        (dir, folder)
    }

    /// Swaps as Kubernetes does: by a rename over the link.
    fn swap(folder: &Path, release: &str) {
        let next = folder.join("..data_tmp");
        symlink(format!("..{release}"), &next).expect("a link");
        fs::rename(next, folder.join("..data")).expect("swapped");
    }

    /// Reads the entry, lets something happen, and reads the rest.
    fn read_around(folder: &Path, between: impl FnOnce()) -> FolderReader {
        let mut reader = FolderReader::new(folder);
        reader.take_module(&folder.join("plugin.lua"), "plugin.lua".to_owned());
        between();
        reader.take_module(&folder.join("rules.lua"), "rules.lua".to_owned());
        reader
    }

    fn texts(reader: &FolderReader) -> Vec<&str> {
        reader.files.values().map(|text| &**text).collect()
    }

    #[test]
    fn a_release_swapped_in_while_it_is_read_is_read_again() {
        let (_dir, folder) = mounted();
        let mut reads = 0;
        let reader = steady(|| {
            reads += 1;
            read_around(&folder, || {
                if reads == 1 {
                    swap(&folder, "2");
                }
            })
        });
        assert_eq!(texts(&reader.expect("read")), ["return 2", "return 2"]);
        assert_eq!(reads, 2);
        let whole = FolderReader::read(&folder).expect("read");
        assert_eq!(texts(&whole), ["return 2", "return 2"]);
    }

    #[test]
    fn files_that_are_swapped_each_time_are_not_taken() {
        let (_dir, folder) = mounted();
        let mut reads = 0;
        let reader = steady(|| {
            reads += 1;
            let mixed = read_around(&folder, || swap(&folder, ["2", "3"][reads % 2]));
            let texts = texts(&mixed);
            assert_ne!(texts[0], texts[1], "the swap came between the two");
            mixed
        });
        assert!(reader.is_none());
        assert_eq!(reads, MAX_READS);
    }

    #[test]
    fn a_folder_that_is_itself_a_link_is_read_again_when_it_leads_elsewhere() {
        let (dir, folder) = mounted();
        let link = dir.path().join("current");
        symlink(folder.join("..1"), &link).expect("a link");
        let reader = read_around(&link, || {
            let next = dir.path().join("next");
            symlink(folder.join("..2"), &next).expect("a link");
            fs::rename(next, &link).expect("swapped");
        });
        assert!(!reader.stands());
        assert!(FolderReader::read(&link).is_some_and(|reader| reader.stands()));
    }
}
