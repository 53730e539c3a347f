//! What is in a plugin's files.
//!
//! Reading a [`Place`] gives [`Files`] in memory, which the sandbox gets; what changes on disk afterwards cannot reach a
//! version that was read before.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use patchbay_lua::{Files, Source};
use sha2::{Digest, Sha256};

use super::folder::{FolderReader, is_absent, is_module, read_text, reason_of};
use super::installed::own_libs;
use super::{ENTRY, Origin, PinnedFiles, Place};
use crate::settings::Shipped;

/// The largest icon, in bytes.
const MAX_ICON: u64 = 64 * 1024;

/// Everything of a plugin that was read from its place.
#[derive(Clone)]
pub(crate) struct Bundle {
    /// What the sandbox gets.
    pub(crate) source: Source,
    /// The modules that its place shares with others, without those of its package.
    pub(crate) shared_libs: Arc<Files>,
    /// The icons of a plugin that is embedded or pinned, by file name. Else the one that the definition names is read.
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
    /// It is not what was installed.
    Changed {
        /// The file in which it differs.
        file: String,
        /// What was expected and found, and what to do.
        reason: String,
    },
}

impl Place {
    /// Reads the plugin.
    pub(crate) fn read(
        &self,
        shipped: Shipped,
        shared: Arc<Files>,
        pinned: &mut PinnedFiles,
    ) -> Result<Bundle, ReadError> {
        // A linked package has modules of its own too.
        let libs = match self.package.as_ref().and_then(|owner| owner.link.as_ref()) {
            Some(link) => own_libs(&shared, super::disk_libs(&link.join("lib"))),
            None => shared.clone(),
        };
        let mut bundle = match &self.origin {
            Origin::Embedded(folder) => Ok(self.read_embedded(folder, shipped, libs)),
            Origin::File(path) => self.read_file(path, libs),
            Origin::Folder(path) => self.read_folder(path, libs),
            Origin::Installed(plugin) => plugin.read(libs, pinned),
        }?;
        bundle.shared_libs = shared;
        Ok(bundle)
    }
}

impl Bundle {
    pub(super) fn new(
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
            shared_libs: libs.clone(),
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
}

impl Place {
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
        Bundle::new(self.label(), ENTRY.to_owned(), reader, false, libs)
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
        Ok(Bundle::new(label, name, reader, true, libs))
    }

    fn read_folder(&self, path: &Path, libs: Arc<Files>) -> Result<Bundle, ReadError> {
        let Some(reader) = FolderReader::read(path) else {
            return Err(ReadError::Failed(
                "its files were swapped while they were read, again and again".to_owned(),
            ));
        };
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
        Ok(Bundle::new(
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
            Origin::Embedded(_) | Origin::Installed(_) => bundle.icons.get(name).cloned(),
        }
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

#[cfg(test)]
mod tests {
    use super::super::{PinnedFiles, scan};
    use super::*;

    /// Reads the first plugin of a plugin path.
    fn read_first(path: &Path) -> Result<Bundle, ReadError> {
        let scan = scan(Shipped::default(), &[path.to_owned()], None, false);
        scan.places[0].read(
            Shipped::default(),
            scan.libs[&1].clone(),
            &mut PinnedFiles::default(),
        )
    }

    fn write(path: &Path, text: &str) {
        fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        fs::write(path, text).expect("a file");
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
        let bundle = read_first(&root.join("p")).expect("a bundle");
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
        let bundle = read_first(folder.path()).expect("a bundle");
        assert_eq!(
            bundle.source.files.keys().collect::<Vec<_>>(),
            ["plugin.lua"]
        );
    }

    #[test]
    fn what_goes_between_the_scan_and_the_read_has_vanished_and_is_no_failure() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path();
        for gone in ["single.lua", "in/plugin.lua", "in"] {
            write(&root.join("single.lua"), "return 1");
            write(&root.join("in/plugin.lua"), "return 2");
            write(&root.join("in/beside.lua"), "return 3");
            let scan = scan(Shipped::default(), &[root.to_owned()], None, false);
            assert_eq!(scan.places.len(), 2);
            match root.join(gone).is_dir() {
                true => fs::remove_dir_all(root.join(gone)),
                false => fs::remove_file(root.join(gone)),
            }
            .expect("removed");
            for place in &scan.places {
                let libs = scan.libs[&1].clone();
                let read = place.read(Shipped::default(), libs, &mut PinnedFiles::default());
                match place
                    .label()
                    .ends_with(gone.trim_end_matches("/plugin.lua"))
                {
                    true => assert!(
                        matches!(read, Err(ReadError::Vanished)),
                        "{gone}: {:?}",
                        read.err()
                    ),
                    false => assert!(read.is_ok(), "{gone}: {:?}", read.err()),
                }
            }
        }
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
            let error = read_first(folder.path()).err().expect("not text");
            assert!(
                matches!(&error, ReadError::Failed(text) if text.contains(reason)),
                "{error:?}"
            );
        }
    }
}
