//! Looking at packages: what is installed, whether it is what was installed, and the archive of one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;
use time::OffsetDateTime;

use super::archive::pack_to;
use super::content::{Content, MANIFEST, MAX_TOTAL};
use super::inspect::Workshop;
use super::install::named;
use super::lock::{Locked, Release};
use super::manifest::{Manifest, PackagedPlugin, difference};
use super::name::{PackageName, PackageVersion};
use super::{LOCK, PackageError, Packages, files};
use crate::discovery::read_bounded;

/// A package as it is installed.
#[derive(Debug, Clone, Serialize)]
pub struct InstalledPackage {
    /// Its name.
    pub name: PackageName,
    /// The installed version.
    pub version: PackageVersion,
    /// Where its files lie.
    pub location: PathBuf,
    /// Whether it is linked, so that it is loaded from where it is edited.
    pub editable: bool,
    /// Whether it is on.
    pub enabled: bool,
    /// What pins it; null when it is linked.
    pub sha256: Option<String>,
    /// What it was installed from.
    pub source: PathBuf,
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub installed_at: OffsetDateTime,
    /// Its plugins.
    pub plugins: Vec<PackagedPlugin>,
    /// The plugins of it that are off by themselves.
    pub disabled: Vec<String>,
    /// The versions that a rollback can go back to, the newest first.
    pub previous: Vec<PackageVersion>,
    /// How its files differ from what was installed; null when they do not, or when it is linked.
    pub changed: Option<String>,
}

/// Whether a package is what was installed.
#[derive(Debug, Clone, Serialize)]
pub struct VerifiedPackage {
    /// Its name.
    pub name: PackageName,
    /// Its version.
    pub version: PackageVersion,
    /// Whether it is linked, so that there is nothing to compare with.
    pub editable: bool,
    /// How many files were compared.
    pub files: usize,
    /// How it differs; null when it does not.
    pub changed: Option<String>,
}

/// An archive that was written.
#[derive(Debug, Clone)]
pub struct Packed {
    /// What is in it.
    pub manifest: Manifest,
    /// What pins it once it is installed.
    pub sha256: String,
    /// Where it was written.
    pub path: PathBuf,
}

/// Why a pinned package is not loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Broken {
    /// The file, in the package; none when it is about the whole.
    pub(crate) file: Option<String>,
    /// What was expected and found.
    pub(crate) reason: String,
}

impl Packages {
    /// Every installed package, by name.
    ///
    /// # Errors
    /// [`PackageError::Lock`].
    pub fn list(&self) -> Result<Vec<InstalledPackage>, PackageError> {
        let lock = self.required_lock()?;
        Ok(lock
            .packages
            .iter()
            .map(|locked| self.view(locked))
            .collect())
    }

    /// One, by its name or that of a plugin of it.
    ///
    /// # Errors
    /// `NotInstalled` and `Lock`.
    pub fn info(&self, name: &str) -> Result<InstalledPackage, PackageError> {
        let lock = self.required_lock()?;
        let (locked, _) = named(&lock, name)?;
        Ok(self.view(locked))
    }

    /// What lies in the folder and is in no lock, so that no server loads it.
    pub fn strays(&self) -> Vec<String> {
        let lock = self.lock().ok().flatten();
        self.unlisted(lock.as_deref())
    }

    /// The files of a package with their hashes: those that pin it, or those that a linked one has now.
    ///
    /// # Errors
    /// `NotInstalled`, `Lock`, and `Content` when it cannot be read.
    pub fn files(&self, name: &str) -> Result<BTreeMap<String, String>, PackageError> {
        let lock = self.required_lock()?;
        let (locked, _) = named(&lock, name)?;
        let folder = locked.release.folder(&self.folder, &locked.name);
        let wrong = |reason| PackageError::Content {
            source_path: folder.clone(),
            reason,
        };
        match &locked.release.sha256 {
            Some(sha256) => {
                let read = read_pinned_manifest(&folder, sha256);
                read.map_err(|broken| wrong(broken.reason))
            }
            None => Ok(Content::of_folder(&folder).map_err(wrong)?.hashes()),
        }
    }

    /// Compares installed packages with what pins them: one, or all.
    ///
    /// # Errors
    /// `NotInstalled` and `Lock`. A difference is no error but an answer.
    pub fn verify(&self, name: Option<&str>) -> Result<Vec<VerifiedPackage>, PackageError> {
        let lock = self.required_lock()?;
        let chosen: Vec<&Locked> = match name {
            Some(name) => vec![named(&lock, name)?.0],
            None => lock.packages.iter().collect(),
        };
        Ok(chosen
            .into_iter()
            .map(|locked| {
                let checked = self.check_files(&locked.release, &locked.name);
                VerifiedPackage {
                    name: locked.name.clone(),
                    version: locked.release.version.clone(),
                    editable: locked.release.link.is_some(),
                    files: *checked.as_ref().unwrap_or(&0),
                    changed: checked.err(),
                }
            })
            .collect())
    }

    fn view(&self, locked: &Locked) -> InstalledPackage {
        let release = &locked.release;
        InstalledPackage {
            name: locked.name.clone(),
            version: release.version.clone(),
            location: release.folder(&self.folder, &locked.name),
            editable: release.link.is_some(),
            enabled: locked.enabled,
            sha256: release.sha256.clone(),
            source: release.source.clone(),
            installed_at: release.installed_at,
            plugins: release.plugins.clone(),
            disabled: locked.disabled.clone(),
            previous: locked
                .previous
                .iter()
                .map(|release| release.version.clone())
                .collect(),
            changed: self.check_files(release, &locked.name).err(),
        }
    }

    /// Compares the files of a version with what pins it, and counts them.
    pub(super) fn check_files(
        &self,
        release: &Release,
        name: &PackageName,
    ) -> Result<usize, String> {
        let folder = release.folder(&self.folder, name);
        match &release.sha256 {
            Some(sha256) => read_pinned(&folder, sha256)
                .map(|content| content.iter().count())
                .map_err(|broken| broken.reason),
            None if folder.is_dir() => Ok(0),
            None => Err(format!(
                "expected the linked folder {}, found none (put it back, or remove the package)",
                folder.display()
            )),
        }
    }
}

impl Workshop {
    /// Writes the archive of a package's folder. Without a path it lies in the working folder, named by the package.
    ///
    /// # Errors
    /// `Content` and `Plugins`, when the folder is no package; `Files`.
    pub async fn pack(&self, source: &Path, to: Option<PathBuf>) -> Result<Packed, PackageError> {
        let candidate = self.read(source).await?;
        let manifest = candidate.manifest;
        let path = to.unwrap_or_else(|| {
            PathBuf::from(format!("{}-{}.tar.gz", manifest.name, manifest.version))
        });
        let written = path.clone();
        let content = candidate.content;
        let packed = tokio::task::spawn_blocking(move || pack_to(&content, &written)).await;
        let shown = format!("{}", path.display());
        match packed {
            Ok(packed) => packed.map_err(files(shown))?,
            Err(error) => return Err(files(shown)(std::io::Error::other(error))),
        }
        Ok(Packed {
            sha256: manifest.sha256(),
            manifest,
            path,
        })
    }
}

/// Reads the files of an installed version and holds them to what pins it. What is given was hashed: it is not read again.
pub(crate) fn read_pinned(folder: &Path, sha256: &str) -> Result<Content, Broken> {
    let expected = read_pinned_manifest(folder, sha256)?;
    let remedy = "install the package again, or roll it back";
    let content = Content::of_folder(folder).map_err(|reason| Broken {
        file: None,
        reason: format!("{}: {reason} ({remedy})", folder.display()),
    })?;
    match difference(&expected, &content.hashes()) {
        None => Ok(content),
        Some(difference) => Err(Broken {
            file: Some(difference.path().to_owned()),
            reason: format!("{}: {difference} ({remedy})", folder.display()),
        }),
    }
}

fn read_pinned_manifest(folder: &Path, sha256: &str) -> Result<BTreeMap<String, String>, Broken> {
    let broken = |reason: String| Broken {
        file: Some(MANIFEST.to_owned()),
        reason: format!(
            "{}/{MANIFEST}: {reason} (install the package again, or roll it back)",
            folder.display()
        ),
    };
    let text =
        read_bounded(&folder.join(MANIFEST), MAX_TOTAL).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => broken(format!(
                "expected the manifest that {LOCK} pins, found none"
            )),
            _ => broken(error.to_string()),
        })?;
    Manifest::pinned(&text, sha256).map_err(broken)
}
