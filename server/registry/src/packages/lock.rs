//! `plugins.lock`: which packages are installed, and what pins them.
//!
//! A server loads from the packages' folder what this file lists and nothing else. It is written whole, beside its place,
//! and renamed; who writes it holds the file lock of the folder.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::manifest::{PackagedPlugin, explained, newer_format};
use super::name::{PackageName, PackageVersion};
use crate::discovery::read_bounded;

/// The file's name.
pub(crate) const LOCK: &str = "plugins.lock";
const FORMAT: u32 = 1;
/// The largest such file, in bytes: that of some thousand packages.
pub(crate) const MAX_LOCK: u64 = 16 * 1024 * 1024;
/// How many versions before the installed one are kept for a rollback.
const KEPT: usize = 3;

/// The content of `plugins.lock`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Lock {
    pub(super) format: u32,
    /// By name.
    #[serde(default, rename = "package")]
    pub(crate) packages: Vec<Locked>,
}

/// One installed package.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Locked {
    pub(crate) name: PackageName,
    pub(crate) enabled: bool,
    /// The plugins of it that are off by themselves.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) disabled: Vec<String>,
    pub(crate) release: Release,
    /// The versions before it, the newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) previous: Vec<Release>,
}

/// One version of an installed package.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Release {
    pub(crate) version: PackageVersion,
    /// What pins it; none when it is linked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) sha256: Option<String>,
    /// The folder in which it lies and is edited; none when it was copied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) link: Option<PathBuf>,
    /// What it was installed from.
    pub(crate) source: PathBuf,
    #[serde(with = "time::serde::rfc3339")]
    pub(crate) installed_at: OffsetDateTime,
    pub(crate) plugins: Vec<PackagedPlugin>,
}

impl Locked {
    /// The folder that it is loaded from, when it is linked.
    pub(crate) fn link(&self) -> Option<&PathBuf> {
        self.release.link.as_ref()
    }
}

impl Release {
    /// Where its files lie. The hash is in the name, so that other content never takes the place of what serves.
    pub(crate) fn folder(&self, packages: &Path, name: &PackageName) -> PathBuf {
        match (&self.link, &self.sha256) {
            (Some(link), _) => link.clone(),
            (None, sha256) => packages.join(name.as_str()).join(folder_name(
                &self.version,
                sha256.as_deref().unwrap_or_default(),
            )),
        }
    }
}

/// The folder of a version, in its package's.
pub(super) fn folder_name(version: &PackageVersion, sha256: &str) -> String {
    let short: String = sha256.chars().take(12).collect();
    format!("{version}-{short}")
}

impl Lock {
    /// Reads the lock of a folder of packages; none when there is none.
    ///
    /// # Errors
    /// What was expected and found, and what to do.
    pub(super) fn read(packages: &Path) -> Result<Option<(String, Lock)>, String> {
        let path = packages.join(LOCK);
        let shown = path.display();
        let text = match read_bounded(&path, MAX_LOCK) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(format!("{shown} cannot be read: {error}")),
        };
        let lock = Lock::parse(&text).map_err(|reason| format!("{shown}: {reason}"))?;
        Ok(Some((text, lock)))
    }

    pub(super) fn parse(text: &str) -> Result<Lock, String> {
        if let Some(format) = newer_format(text, FORMAT) {
            return Err(format!(
                "expected format {FORMAT}, found {format}, which a newer Patchbay wrote (run that one, or take the file from \
                 a backup)"
            ));
        }
        let remedy = "take the file from a backup, or remove it and install the packages again";
        let lock: Lock = toml::from_str(text)
            .map_err(|error| format!("{} ({remedy})", explained(text, &error)))?;
        for locked in &lock.packages {
            let is_hash =
                |text: &str| text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
            for release in std::iter::once(&locked.release).chain(&locked.previous) {
                let fits = match (&release.sha256, &release.link) {
                    (Some(sha256), None) => is_hash(sha256),
                    (None, Some(link)) => link.is_absolute(),
                    _ => false,
                };
                if !fits {
                    return Err(format!(
                        "expected for {} {} either `sha256` with 64 hexadecimal digits or `link` with an absolute path, \
                         found another thing ({remedy})",
                        locked.name, release.version
                    ));
                }
            }
        }
        for pair in lock.packages.windows(2) {
            if pair[0].name >= pair[1].name {
                return Err(format!(
                    "expected each package once, by name, found {} after {} ({remedy})",
                    pair[1].name, pair[0].name
                ));
            }
        }
        Ok(lock)
    }

    /// Writes the lock, whole and at once.
    pub(super) fn write(&self, packages: &Path, staging: &Path) -> io::Result<()> {
        let body = toml::to_string_pretty(&Lock {
            format: FORMAT,
            packages: self.packages.clone(),
        })
        .map_err(io::Error::other)?;
        let text = format!(
            "# Written by `patchbay plugin install` and its like. Servers load the packages that this file pins.\n\n{body}"
        );
        let beside = staging.join(LOCK);
        let mut file = File::create(&beside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, packages.join(LOCK))
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Locked> {
        self.packages
            .iter()
            .find(|locked| locked.name.as_str() == name)
    }

    pub(super) fn get_mut(&mut self, name: &PackageName) -> Option<&mut Locked> {
        self.packages.iter_mut().find(|locked| locked.name == *name)
    }

    /// Puts a version in its place; the one before is kept for a rollback.
    pub(super) fn put(&mut self, name: PackageName, release: Release) {
        match self.get_mut(&name) {
            Some(locked) => {
                let before = std::mem::replace(&mut locked.release, release);
                let same = |other: &Release| {
                    (&other.sha256, &other.link, &other.version)
                        == (
                            &locked.release.sha256,
                            &locked.release.link,
                            &locked.release.version,
                        )
                };
                let mut previous = vec![before];
                previous.append(&mut locked.previous);
                previous.retain(|release| !same(release));
                previous.truncate(KEPT);
                locked.previous = previous;
                let has = |name: &String| {
                    locked
                        .release
                        .plugins
                        .iter()
                        .any(|plugin| plugin.name == *name)
                };
                locked.disabled.retain(has);
            }
            None => {
                self.packages.push(Locked {
                    name,
                    enabled: true,
                    disabled: Vec::new(),
                    release,
                    previous: Vec::new(),
                });
                self.packages.sort_by(|a, b| a.name.cmp(&b.name));
            }
        }
    }

    pub(super) fn remove(&mut self, name: &PackageName) {
        self.packages.retain(|locked| locked.name != *name);
    }
}

/// The right to change a folder of packages. Another process that wants it waits.
pub(super) struct Held {
    _file: File,
}

const FILE_LOCK: &str = ".lock";

/// Takes the right to change a folder of packages; `waiting` is told when somebody else has it.
pub(super) fn hold(packages: &Path, waiting: impl FnOnce()) -> io::Result<Held> {
    fs::create_dir_all(packages)?;
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(packages.join(FILE_LOCK))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(fs::TryLockError::WouldBlock) => {
            waiting();
            file.lock()?;
        }
        Err(fs::TryLockError::Error(error)) => return Err(error),
    }
    Ok(Held { _file: file })
}

/// Whether somebody is changing the folder right now.
pub(super) fn is_held(packages: &Path) -> bool {
    File::options()
        .write(true)
        .open(packages.join(FILE_LOCK))
        .is_ok_and(|file| matches!(file.try_lock_shared(), Err(fs::TryLockError::WouldBlock)))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_is_no_regular_file_is_never_opened() {
        let folder = tempfile::tempdir().expect("a folder");
        std::os::unix::fs::symlink("/dev/zero", folder.path().join(LOCK)).expect("a link");
        let refused = Lock::read(folder.path()).expect_err("a refusal");
        assert!(
            refused.ends_with("plugins.lock cannot be read: it is not a regular file"),
            "{refused}"
        );
        fs::remove_file(folder.path().join(LOCK)).expect("removed");
        let file = File::create(folder.path().join(LOCK)).expect("a file");
        file.set_len(MAX_LOCK + 1).expect("a length");
        let refused = Lock::read(folder.path()).expect_err("a refusal");
        assert!(
            refused.ends_with("it is larger than 16384 KiB"),
            "{refused}"
        );
    }
}
