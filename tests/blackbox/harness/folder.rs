//! Working folders.

use std::path::PathBuf;
use std::sync::Arc;

use tempfile::TempDir;

/// A working folder, removed when nobody holds it any more.
#[derive(Clone)]
pub(crate) struct Folder(Arc<TempDir>);

impl Folder {
    pub(crate) fn new() -> Folder {
        Folder(Arc::new(tempfile::tempdir().expect("a temporary folder")))
    }

    pub(crate) fn path(&self, relative: &str) -> PathBuf {
        self.0.path().join(relative)
    }

    /// Writes a file, in place, and the folders it needs.
    pub(crate) fn write(&self, relative: &str, text: impl AsRef<[u8]>) {
        let path = self.path(relative);
        self.make(relative);
        std::fs::write(&path, text)
            .unwrap_or_else(|error| panic!("{} is not written: {error}", path.display()));
    }

    /// Writes a file as careful editors do: a new one beside it, renamed over it.
    pub(crate) fn write_by_rename(&self, relative: &str, text: impl AsRef<[u8]>) {
        let beside = format!("{relative}.new~");
        self.write(&beside, text);
        self.rename(&beside, relative);
    }

    pub(crate) fn read(&self, relative: &str) -> String {
        let path = self.path(relative);
        std::fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("{} is not read: {error}", path.display()))
    }

    pub(crate) fn rename(&self, from: &str, to: &str) {
        std::fs::rename(self.path(from), self.path(to))
            .unwrap_or_else(|error| panic!("{from} is not renamed to {to}: {error}"));
    }

    /// Removes a file, a link, or a folder with all that is in it.
    pub(crate) fn remove(&self, relative: &str) {
        let path = self.path(relative);
        let is_folder =
            std::fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.file_type().is_dir());
        let removed = match is_folder {
            true => std::fs::remove_dir_all(&path),
            false => std::fs::remove_file(&path),
        };
        removed.unwrap_or_else(|error| panic!("{relative} is not removed: {error}"));
    }

    /// Makes a link at `relative` that leads to `target`.
    pub(crate) fn link(&self, target: &str, relative: &str) {
        self.make(relative);
        std::os::unix::fs::symlink(target, self.path(relative))
            .unwrap_or_else(|error| panic!("{relative} is not linked to {target}: {error}"));
    }

    fn make(&self, relative: &str) {
        let path = self.path(relative);
        let parent = path.parent().expect("a folder above");
        std::fs::create_dir_all(parent)
            .unwrap_or_else(|error| panic!("{} is not made: {error}", parent.display()));
    }
}
