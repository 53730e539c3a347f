//! The files of a package in memory, within bounds. Nothing of a package is written anywhere before all of it is here.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::path;

/// The file that says what a package is.
pub(crate) const MANIFEST: &str = "patchbay-package.toml";
/// The most files of a package.
pub(super) const MAX_FILES: usize = 512;
/// The largest file, in bytes.
pub(super) const MAX_FILE: u64 = 4 * 1024 * 1024;
/// The most that all files may hold together, in bytes.
pub(super) const MAX_TOTAL: u64 = 16 * 1024 * 1024;

/// The files of a package by path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Content {
    files: BTreeMap<String, Arc<[u8]>>,
    /// Files and folders in lower case, as some file systems see them, each with how it is written.
    seen: BTreeMap<String, (String, Kind)>,
    total: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    File,
    Folder,
}

impl Content {
    /// Adds a file.
    ///
    /// # Errors
    /// What was expected and found: a path that leaves the package, one that is there already, too much of something.
    pub(super) fn add(&mut self, path: &[u8], bytes: Vec<u8>) -> Result<(), String> {
        let path = path::parse(path)?;
        self.check_room(&path, bytes.len() as u64)?;
        for (end, _) in path.match_indices('/') {
            self.see(&path[..end], Kind::Folder)?;
        }
        self.see(&path, Kind::File)?;
        self.total += bytes.len() as u64;
        self.files.insert(path, Arc::from(bytes));
        Ok(())
    }

    /// Whether a file of this size still has its place.
    pub(super) fn check_room(&self, path: &str, size: u64) -> Result<(), String> {
        if self.files.len() >= MAX_FILES {
            return Err(format!(
                "expected at most {MAX_FILES} files, found more, \"{path}\" the first of them (leave out what the plugins \
                 do not need, or make several packages of it)"
            ));
        }
        if size > MAX_FILE {
            return Err(format!(
                "expected files of at most {} MiB, found \"{path}\" with {size} bytes",
                MAX_FILE >> 20
            ));
        }
        if self.total + size > MAX_TOTAL {
            return Err(format!(
                "expected at most {} MiB in all files together, found more, with \"{path}\"",
                MAX_TOTAL >> 20
            ));
        }
        Ok(())
    }

    fn see(&mut self, path: &str, kind: Kind) -> Result<(), String> {
        let folded = path.to_ascii_lowercase();
        match self.seen.get(&folded) {
            Some((_, Kind::Folder)) if kind == Kind::Folder && self.is_seen_as(&folded, path) => {
                Ok(())
            }
            Some((before, Kind::File)) if before == path && kind == Kind::File => {
                Err(format!("expected each path once, found \"{path}\" again"))
            }
            Some((before, _)) => Err(format!(
                "expected paths that differ on every system, found \"{path}\" beside \"{before}\""
            )),
            None => {
                self.seen.insert(folded, (path.to_owned(), kind));
                Ok(())
            }
        }
    }

    fn is_seen_as(&self, folded: &str, path: &str) -> bool {
        self.seen
            .get(folded)
            .is_some_and(|(before, _)| before == path)
    }

    /// Reads a folder. Hidden files, and what editors leave behind, are none of the package's.
    ///
    /// # Errors
    /// What was expected and found, with the path.
    pub(super) fn of_folder(folder: &Path) -> Result<Content, String> {
        let mut content = Content::default();
        content.walk(folder, "")?;
        Ok(content)
    }

    fn walk(&mut self, folder: &Path, prefix: &str) -> Result<(), String> {
        let failed = |path: &Path, error: &std::io::Error| format!("{}: {error}", path.display());
        let mut names: Vec<_> = fs::read_dir(folder)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|error| failed(folder, &error))?
            .into_iter()
            .map(|entry| entry.file_name())
            .collect();
        names.sort();
        for name in names {
            let path = folder.join(&name);
            let name = name.as_encoded_bytes();
            if name.starts_with(b".") || name.ends_with(b"~") || name.ends_with(b".swp") {
                continue;
            }
            let relative = [prefix.as_bytes(), name].concat();
            let kind = fs::symlink_metadata(&path).map_err(|error| failed(&path, &error))?;
            if kind.is_dir() {
                // A folder that no file of a package could have is said so before it is walked.
                let relative = path::parse(&relative)?;
                self.walk(&path, &format!("{relative}/"))?;
            } else if kind.is_file() {
                let shown = String::from_utf8_lossy(&relative);
                self.check_room(&shown, kind.len())?;
                let bytes = fs::read(&path).map_err(|error| failed(&path, &error))?;
                self.add(&relative, bytes)?;
            } else {
                let what = match kind.is_symlink() {
                    true => "a link",
                    false => "a device or pipe",
                };
                return Err(format!(
                    "expected files and folders only, found {what} at {:?} (put the file itself there)",
                    String::from_utf8_lossy(&relative)
                ));
            }
        }
        Ok(())
    }

    /// What lies below the only folder, when all files do: archives are often made of a folder rather than in it.
    pub(super) fn without_outer_folder(self) -> Content {
        let mut tops = self.files.keys().map(|path| path.split_once('/'));
        let outer = match tops.next() {
            Some(Some((first, _)))
                if tops.all(|top| top.is_some_and(|(name, _)| name == first)) =>
            {
                format!("{first}/")
            }
            _ => return self,
        };
        let mut inner = Content::default();
        for (path, bytes) in &self.files {
            let path = path.strip_prefix(&outer).unwrap_or(path);
            if inner.add(path.as_bytes(), bytes.to_vec()).is_err() {
                return self;
            }
        }
        inner
    }

    /// One file.
    pub(crate) fn get(&self, path: &str) -> Option<&Arc<[u8]>> {
        self.files.get(path)
    }

    /// All files, in the order of their paths.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Arc<[u8]>)> {
        self.files
            .iter()
            .map(|(path, bytes)| (path.as_str(), bytes))
    }

    /// The files below a folder, by their path in it. The empty path means all.
    pub(crate) fn below<'a>(
        &'a self,
        folder: &'a str,
    ) -> impl Iterator<Item = (&'a str, &'a Arc<[u8]>)> {
        self.iter().filter_map(move |(path, bytes)| match folder {
            "" => Some((path, bytes)),
            _ => Some((path.strip_prefix(folder)?.strip_prefix('/')?, bytes)),
        })
    }

    /// Where its plugins lie, by the rules for a plugin path: the package itself, else folders with `plugin.lua` and
    /// files in it.
    pub(crate) fn plugin_places(&self) -> BTreeSet<String> {
        if self.files.contains_key("plugin.lua") {
            return BTreeSet::from([String::new()]);
        }
        self.files
            .keys()
            .filter_map(|path| match path.split_once('/') {
                None => {
                    (path.ends_with(".lua") && !path.ends_with("_spec.lua")).then(|| path.clone())
                }
                Some((folder, "plugin.lua")) => {
                    (!["lib", "types", "examples"].contains(&folder)).then(|| folder.to_owned())
                }
                Some(_) => None,
            })
            .collect()
    }

    /// The hash of each file but the manifest, which holds them.
    pub(super) fn hashes(&self) -> BTreeMap<String, String> {
        self.files
            .iter()
            .filter(|(path, _)| *path != MANIFEST)
            .map(|(path, bytes)| (path.clone(), hex(&Sha256::digest(bytes))))
            .collect()
    }

    /// Puts another manifest in the place of the one that is there.
    pub(super) fn with_manifest(mut self, text: String) -> Content {
        self.files
            .insert(MANIFEST.to_owned(), Arc::from(text.into_bytes()));
        self
    }
}

/// Bytes as hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(paths: &[&str]) -> Result<Content, String> {
        let mut content = Content::default();
        for path in paths {
            content.add(path.as_bytes(), Vec::new())?;
        }
        Ok(content)
    }

    #[test]
    fn paths_that_some_system_takes_for_one_are_refused() {
        for (paths, says) in [
            (&["a.lua", "a.lua"][..], "again"),
            (&["a.lua", "./a.lua"], "again"),
            (&["a.lua", "A.lua"], "beside"),
            (&["x/a.lua", "X/b.lua"], "beside"),
            (&["x", "x/a.lua"], "beside"),
            (&["x/a.lua", "x"], "beside"),
        ] {
            let error = content(paths).expect_err("refused");
            assert!(error.contains(says), "{paths:?}: {error}");
        }
        assert!(content(&["x/a.lua", "x/b.lua", "y/a.lua"]).is_ok());
    }

    #[test]
    fn plugins_lie_where_a_plugin_path_has_them() {
        let places = |paths: &[&str]| -> Vec<String> {
            content(paths)
                .expect("content")
                .plugin_places()
                .into_iter()
                .collect()
        };
        assert_eq!(places(&["plugin.lua", "x/plugin.lua"]), [""]);
        assert_eq!(
            places(&[
                "x/plugin.lua",
                "y.lua",
                "y_spec.lua",
                "lib/z.lua",
                "examples/plugin.lua",
                "x/deep/plugin.lua"
            ]),
            ["x", "y.lua"]
        );
        let outer = content(&["acme/x/plugin.lua", "acme/lib/z.lua"]).expect("content");
        assert!(outer.plugin_places().is_empty());
        assert_eq!(outer.without_outer_folder().plugin_places().len(), 1);
    }

    #[test]
    fn there_is_room_for_so_much_and_no_more() {
        let mut content = Content::default();
        for number in 0..MAX_FILES {
            content
                .add(format!("f{number}").as_bytes(), Vec::new())
                .expect("room");
        }
        assert!(
            content
                .add(b"more", Vec::new())
                .expect_err("full")
                .contains("512 files")
        );
        let mut content = Content::default();
        let large = vec![0; MAX_FILE as usize];
        for name in ["a", "b", "c", "d"] {
            content.add(name.as_bytes(), large.clone()).expect("room");
        }
        assert!(
            content
                .add(b"e", vec![1])
                .expect_err("full")
                .contains("16 MiB")
        );
    }
}
