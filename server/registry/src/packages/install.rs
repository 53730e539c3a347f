//! Packages come and go: install, link, remove, roll back, enable, disable.
//!
//! Each holds the right to change the folder from its first look at `plugins.lock` to its last write, so two of them at once
//! are one after the other.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use patchbay_plugin::name::nearest;
use time::OffsetDateTime;
use uuid::Uuid;

use super::content::Content;
use super::inspect::{Candidate, Workshop};
use super::lock::{Held, Lock, Locked, Release, hold};
use super::manifest::{Manifest, PackagedPlugin};
use super::name::{PackageName, PackageVersion};
use super::{PackageError, Packages, files};

/// Where packages are put together before they are put in place.
const STAGING: &str = ".staging";

/// How something is installed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Load it from where it lies, for development.
    pub link: bool,
    /// Also over a newer version, or over other content of the same version.
    pub force: bool,
}

/// What an install came to.
#[derive(Debug, Clone)]
pub struct Installed {
    /// The package.
    pub name: PackageName,
    /// The version that is installed now.
    pub version: PackageVersion,
    /// Its plugins.
    pub plugins: Vec<PackagedPlugin>,
    /// Where its files lie.
    pub location: PathBuf,
    /// The version that was installed before.
    pub before: Option<PackageVersion>,
    /// Whether the very same was installed already.
    pub unchanged: bool,
    /// What is odd but stops nothing.
    pub warnings: Vec<String>,
}

/// What a change of an installed package came to.
#[derive(Debug, Clone)]
pub struct Change {
    /// The package.
    pub name: PackageName,
    /// The version that was installed before the change.
    pub version: PackageVersion,
    /// The version that is installed now; none after a removal.
    pub now: Option<PackageVersion>,
    /// The plugins that the change is about.
    pub plugins: Vec<PackagedPlugin>,
    /// Whether it was so already.
    pub unchanged: bool,
    /// What did not come of it, and hurts nobody: files of the package that are still there.
    pub warnings: Vec<String>,
}

impl Packages {
    /// Installs a package from a folder or an archive, after a trial.
    ///
    /// # Errors
    /// Every [`PackageError`]; then nothing has changed.
    pub async fn install(
        &self,
        source: &Path,
        options: Options,
        workshop: &Workshop,
        waiting: impl FnOnce() + Send + 'static,
    ) -> Result<Installed, PackageError> {
        let Candidate { content, manifest } = workshop.read(source).await?;
        let _held = self.hold(waiting).await?;
        let mut lock = self.required_lock()?;
        check_claims(&lock, &manifest)?;
        let release = self.release(source, options, &manifest)?;
        self.check_own_folder(&manifest.name)?;
        let before = lock
            .get(manifest.name.as_str())
            .map(|locked| locked.release.clone());
        if let Some(before) = before.as_ref().filter(|_| !options.force) {
            check_successor(&manifest, before, &release)?;
        }
        let staging = Staging::new(self)?;
        let same = |before: &Release| {
            let parts = |release: &Release| {
                let Release {
                    version,
                    sha256,
                    link,
                    plugins,
                    ..
                } = release.clone();
                (version, sha256, link, plugins)
            };
            parts(before) == parts(&release)
        };
        let in_place = release.folder(&self.folder, &manifest.name);
        let unchanged = before.as_ref().is_some_and(same)
            && (release.link.is_some() || self.check_files(&release, &manifest.name).is_ok());
        let mut trial = Lock::default();
        trial.put(manifest.name.clone(), release.clone());
        let staged = release.folder(&staging.folder, &manifest.name);
        if release.link.is_none() {
            write_content(&content, &staged)?;
        }
        trial
            .write(&staging.folder, &staging.folder)
            .map_err(files("the trial's lock is not written"))?;
        let warnings = workshop
            .try_out(source, &staging.folder, &manifest.plugins)
            .await?;
        if !unchanged {
            if release.link.is_none() {
                put_in_place(&staged, &in_place, &staging)?;
            }
            lock.put(manifest.name.clone(), release.clone());
            self.write(&lock, &staging)?;
        }
        self.sweep(&lock, &manifest.name);
        Ok(Installed {
            version: manifest.version,
            plugins: manifest.plugins,
            location: in_place,
            before: before.map(|release| release.version),
            unchanged,
            warnings,
            name: manifest.name,
        })
    }

    fn release(
        &self,
        source: &Path,
        options: Options,
        manifest: &Manifest,
    ) -> Result<Release, PackageError> {
        let source = source
            .canonicalize()
            .map_err(files(format!("{}", source.display())))?;
        if options.link && !source.is_dir() {
            return Err(PackageError::Content {
                source_path: source,
                reason:
                    "expected a folder to link, found an archive (leave --link out to install it)"
                        .to_owned(),
            });
        }
        Ok(Release {
            version: manifest.version.clone(),
            sha256: (!options.link).then(|| manifest.sha256()),
            link: options.link.then(|| source.clone()),
            source,
            installed_at: OffsetDateTime::now_utc()
                .replace_nanosecond(0)
                .unwrap_or_else(|_| OffsetDateTime::now_utc()),
            plugins: manifest.plugins.clone(),
        })
    }

    /// Takes a package out. Tables and rows stay.
    ///
    /// # Errors
    /// `NotInstalled`, and those of the lock and the file system.
    pub async fn remove(&self, name: &str) -> Result<Change, PackageError> {
        let _held = self.hold(|| {}).await?;
        let mut lock = self.required_lock()?;
        let locked = whole_package(&lock, name)?.clone();
        let staging = Staging::new(self)?;
        lock.remove(&locked.name);
        self.write(&lock, &staging)?;
        // A server has what it serves in memory. What is left lying is loaded by nobody, and nothing takes it away later,
        // because it is in no lock: so it is told.
        let left = match self.check_own_folder(&locked.name) {
            Ok(()) => removed(&self.folder.join(locked.name.as_str())),
            Err(error) => Some(error.to_string()),
        };
        Ok(Change {
            warnings: left.into_iter().collect(),
            version: locked.release.version,
            now: None,
            plugins: locked.release.plugins,
            unchanged: false,
            name: locked.name,
        })
    }

    /// Goes back to the version before.
    ///
    /// # Errors
    /// `Impossible` when there is none or its files are not what they were, and those of [`Packages::remove`].
    pub async fn rollback(&self, name: &str, workshop: &Workshop) -> Result<Change, PackageError> {
        let _held = self.hold(|| {}).await?;
        let mut lock = self.required_lock()?;
        let locked = whole_package(&lock, name)?.clone();
        let Some(release) = locked.previous.first().cloned() else {
            return Err(PackageError::Impossible(format!(
                "{} {} is the only version of it that was installed here; install the one you want",
                locked.name, locked.release.version
            )));
        };
        if let Err(reason) = self.check_files(&release, &locked.name) {
            return Err(PackageError::Impossible(format!(
                "{} {} cannot be rolled back to: {reason}; install it again",
                locked.name, release.version
            )));
        }
        let staging = Staging::new(self)?;
        let others = Lock {
            packages: lock
                .packages
                .iter()
                .filter(|other| other.name != locked.name)
                .cloned()
                .collect(),
            ..Lock::default()
        };
        check_plugins(&others, &locked.name, &release.plugins)?;
        // The trial reads the version where it lies.
        let mut trial = Lock::default();
        trial.put(locked.name.clone(), release.clone());
        let folder = release.folder(&self.folder, &locked.name);
        if release.link.is_none() {
            let content = Content::of_folder(&folder).map_err(|reason| PackageError::Content {
                source_path: folder.clone(),
                reason,
            })?;
            write_content(&content, &release.folder(&staging.folder, &locked.name))?;
        }
        trial
            .write(&staging.folder, &staging.folder)
            .map_err(files("the trial's lock is not written"))?;
        workshop
            .try_out(&folder, &staging.folder, &release.plugins)
            .await?;
        if let Some(entry) = lock.get_mut(&locked.name) {
            entry.previous.remove(0);
            entry.release = release.clone();
            let has = |name: &String| release.plugins.iter().any(|plugin| plugin.name == *name);
            entry.disabled.retain(has);
        }
        self.write(&lock, &staging)?;
        self.sweep(&lock, &locked.name);
        Ok(Change {
            name: locked.name,
            version: locked.release.version,
            now: Some(release.version),
            plugins: release.plugins,
            unchanged: false,
            warnings: Vec::new(),
        })
    }

    /// Turns a package on or off, or one plugin of it.
    ///
    /// # Errors
    /// `NotInstalled`, and those of the lock and the file system.
    pub async fn enable(&self, name: &str, on: bool) -> Result<Change, PackageError> {
        let _held = self.hold(|| {}).await?;
        let mut lock = self.required_lock()?;
        let (locked, plugin) = named(&lock, name)?;
        let (package, plugin) = (locked.name.clone(), plugin.cloned());
        let before = locked.clone();
        let Some(entry) = lock.get_mut(&package) else {
            return Err(not_installed(&lock, name));
        };
        match (&plugin, on) {
            (None, _) => {
                entry.enabled = on;
                entry.disabled.clear();
            }
            (Some(plugin), true) if !entry.enabled => {
                // Of a package that was off, only this one comes on.
                entry.enabled = true;
                entry.disabled = entry
                    .release
                    .plugins
                    .iter()
                    .map(|other| other.name.clone())
                    .filter(|other| *other != plugin.name)
                    .collect();
            }
            (Some(plugin), true) => entry.disabled.retain(|other| *other != plugin.name),
            (Some(plugin), false) if !entry.disabled.contains(&plugin.name) => {
                entry.disabled.push(plugin.name.clone());
                entry.disabled.sort();
            }
            (Some(_), false) => {}
        }
        let unchanged = *entry == before;
        let change = Change {
            name: package,
            version: before.release.version.clone(),
            now: Some(before.release.version.clone()),
            plugins: plugin.map_or(before.release.plugins, |plugin| vec![plugin]),
            unchanged,
            warnings: Vec::new(),
        };
        if !unchanged {
            self.write(&lock, &Staging::new(self)?)?;
        }
        Ok(change)
    }

    async fn hold(&self, waiting: impl FnOnce() + Send + 'static) -> Result<Held, PackageError> {
        let folder = self.folder.clone();
        let what = format!("the right to change {}", folder.display());
        match tokio::task::spawn_blocking(move || hold(&folder, waiting)).await {
            Ok(held) => held.map_err(files(what)),
            Err(error) => Err(files(what)(std::io::Error::other(error))),
        }
    }

    fn write(&self, lock: &Lock, staging: &Staging) -> Result<(), PackageError> {
        lock.write(&self.folder, &staging.folder)
            .map_err(files(format!("{}/{}", self.folder.display(), super::LOCK)))
    }

    /// Fails when something else than a folder lies where the versions of a package do: what is swept there would be
    /// somebody else's, where it is a link.
    fn check_own_folder(&self, name: &PackageName) -> Result<(), PackageError> {
        let folder = self.folder.join(name.as_str());
        match fs::symlink_metadata(&folder) {
            Ok(found) if !found.is_dir() => Err(PackageError::Impossible(format!(
                "expected {} to be a folder of its own, found {} (take that away)",
                folder.display(),
                if found.is_symlink() {
                    "a link"
                } else {
                    "a file"
                },
            ))),
            _ => Ok(()),
        }
    }

    /// Removes the versions of a package that nothing refers to any more, and nothing else that may lie there. What cannot
    /// be removed hurts nobody.
    fn sweep(&self, lock: &Lock, name: &PackageName) {
        let Some(locked) = lock.get(name.as_str()) else {
            return;
        };
        let kept: Vec<PathBuf> = std::iter::once(&locked.release)
            .chain(&locked.previous)
            .map(|release| release.folder(&self.folder, name))
            .collect();
        if self.check_own_folder(name).is_err() {
            return;
        }
        let Ok(entries) = fs::read_dir(self.folder.join(name.as_str())) else {
            return;
        };
        for entry in entries
            .flatten()
            .filter(|entry| is_version_folder(entry) && !kept.contains(&entry.path()))
        {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Removes a folder with all that is in it. Says so when something of it is still there.
fn removed(folder: &Path) -> Option<String> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Some(format!(
            "{} is not removed: {error}; nothing loads it, so remove it by hand",
            folder.display()
        )),
        _ => None,
    }
}

/// Whether it is a folder as [`Release::folder`] names them.
fn is_version_folder(entry: &fs::DirEntry) -> bool {
    let is_hash =
        |text: &str| text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let name = entry.file_name();
    let parts = name.to_str().and_then(|name| name.rsplit_once('-'));
    parts.is_some_and(|(version, hash)| PackageVersion::parse(version).is_ok() && is_hash(hash))
        && entry.file_type().is_ok_and(|kind| kind.is_dir())
}

/// A folder of packages in which one is put together and tried. It is gone when this is dropped; those of a process that
/// was killed go when the next one begins.
struct Staging {
    root: PathBuf,
    folder: PathBuf,
}

impl Staging {
    /// Only whoever holds the folder comes here, so what lies there is nobody's.
    fn new(packages: &Packages) -> Result<Staging, PackageError> {
        let root = packages.folder.join(STAGING);
        let _ = fs::remove_dir_all(&root);
        let folder = root.join(Uuid::new_v4().simple().to_string());
        fs::create_dir_all(&folder).map_err(files(format!("{}", folder.display())))?;
        Ok(Staging { root, folder })
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}

fn write_content(content: &Content, folder: &Path) -> Result<(), PackageError> {
    for (path, bytes) in content.iter() {
        let file = folder.join(path);
        let written = file
            .parent()
            .map_or(Ok(()), fs::create_dir_all)
            .and_then(|()| {
                let mut out = fs::File::create(&file)?;
                out.write_all(bytes)
            });
        written.map_err(files(format!("{}", file.display())))?;
    }
    Ok(())
}

/// Renames what was put together into its place. What lies there already has the same name, so it was meant to be the same:
/// it is put aside, not trusted.
fn put_in_place(staged: &Path, place: &Path, staging: &Staging) -> Result<(), PackageError> {
    let failed = |path: &Path| files(format!("{}", path.display()));
    if let Some(parent) = place.parent() {
        fs::create_dir_all(parent).map_err(failed(parent))?;
    }
    if fs::symlink_metadata(place).is_ok() {
        fs::rename(place, staging.root.join("replaced")).map_err(failed(place))?;
    }
    fs::rename(staged, place).map_err(failed(place))
}

/// Refuses what another package has: a plugin's name, alias, table or platform key.
fn check_claims(lock: &Lock, manifest: &Manifest) -> Result<(), PackageError> {
    check_plugins(lock, &manifest.name, &manifest.plugins)
}

fn check_plugins(
    lock: &Lock,
    package: &PackageName,
    plugins: &[PackagedPlugin],
) -> Result<(), PackageError> {
    for other in lock.packages.iter().filter(|other| other.name != *package) {
        for theirs in &other.release.plugins {
            for ours in plugins {
                if let Some((what, value)) = claimed_by_both(ours, theirs) {
                    return Err(PackageError::Taken(format!(
                        "expected {what} that no other package has, found {value:?} of {}, which {} {} has for {} (remove that \
                         package, or rename here)",
                        ours.name, other.name, other.release.version, theirs.name
                    )));
                }
            }
        }
    }
    Ok(())
}

fn claimed_by_both<'a>(
    ours: &'a PackagedPlugin,
    theirs: &PackagedPlugin,
) -> Option<(&'static str, &'a str)> {
    if theirs.answers_to(&ours.name) {
        return Some(("a plugin's name", &ours.name));
    }
    if let Some(alias) = ours.aliases.iter().find(|alias| theirs.answers_to(alias)) {
        return Some(("an alias", alias));
    }
    match (&ours.table, &theirs.table) {
        (Some(table), Some(other)) if table == other => return Some(("a table", table)),
        _ => {}
    }
    (ours.platform_key == theirs.platform_key)
        .then_some(("a platform key", ours.platform_key.as_str()))
}

/// Refuses to go back, and to change what a version means, unless that is meant.
fn check_successor(
    manifest: &Manifest,
    before: &Release,
    now: &Release,
) -> Result<(), PackageError> {
    let name = &manifest.name;
    if now.version.is_older_than(&before.version) {
        return Err(PackageError::NeedsForce(format!(
            "expected a version of {name} after the installed {}, found the older {}; `patchbay plugin rollback {name}` goes \
             back to the version before",
            before.version, now.version
        )));
    }
    let both_copied = before.sha256.is_some() && now.sha256.is_some();
    if now.version == before.version && both_copied && now.sha256 != before.sha256 {
        return Err(PackageError::NeedsForce(format!(
            "expected {name} {} with the content that is installed, found other content under the same version; give it a \
             version of its own",
            now.version
        )));
    }
    Ok(())
}

/// The package of a name, or the one that holds the plugin of that name, then with the plugin.
pub(super) fn named<'a>(
    lock: &'a Lock,
    name: &str,
) -> Result<(&'a Locked, Option<&'a PackagedPlugin>), PackageError> {
    if let Some(locked) = lock.get(name) {
        return Ok((locked, None));
    }
    for locked in &lock.packages {
        if let Some(plugin) = locked
            .release
            .plugins
            .iter()
            .find(|plugin| plugin.answers_to(name))
        {
            return Ok((locked, Some(plugin)));
        }
    }
    Err(not_installed(lock, name))
}

/// The package of a name, or the one that holds only the plugin of that name.
fn whole_package<'a>(lock: &'a Lock, name: &str) -> Result<&'a Locked, PackageError> {
    match named(lock, name)? {
        (locked, Some(plugin)) if locked.release.plugins.len() > 1 => {
            Err(PackageError::Impossible(format!(
                "{} is one of {} plugins of the package {}; name the package, or turn the plugin off with `patchbay plugin \
                 disable {}`",
                plugin.name,
                locked.release.plugins.len(),
                locked.name,
                plugin.name
            )))
        }
        (locked, _) => Ok(locked),
    }
}

fn not_installed(lock: &Lock, name: &str) -> PackageError {
    let known = lock.packages.iter().flat_map(|locked| {
        std::iter::once(locked.name.as_str()).chain(
            locked
                .release
                .plugins
                .iter()
                .map(|plugin| plugin.name.as_str()),
        )
    });
    let hint = match nearest(name, known) {
        Some(near) => format!("did you mean {near:?}?"),
        None => "`patchbay plugin list` shows what is; ENABLED_PLUGINS and DISABLED_PLUGINS choose among other plugins".to_owned(),
    };
    PackageError::NotInstalled(format!(
        "expected an installed package or a plugin of one, found none named {name:?} ({hint})"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_not_removed_is_told_and_one_that_is_not_there_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let place = folder.path().join("package");
        assert_eq!(removed(&place), None);
        fs::create_dir_all(place.join("1.0.0")).expect("a folder");
        assert_eq!(removed(&place), None);
        assert!(!place.exists());
        // What is no folder is not removed as one.
        fs::write(&place, "a file").expect("a file");
        let told = removed(&place).expect("it is still there");
        assert!(
            told.contains("package is not removed: ") && told.contains("remove it by hand"),
            "{told}"
        );
    }
}
