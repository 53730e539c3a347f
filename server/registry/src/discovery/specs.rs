//! The specs that lie beside plugins: `*_spec.lua` in a plugin's folder, `bigquery_spec.lua` beside `bigquery.lua`.
//!
//! A spec is no plugin and no part of one: what serves never reads it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use patchbay_lua::Source;

use super::folder::{read_text, reason_of};
use super::{ENTRY, Origin, PinnedFiles, ReadError, scan};
use crate::settings::Shipped;

/// A plugin on disk, with the specs beside it.
pub struct SpecFolder {
    /// Where the plugin lies, as messages name it.
    pub plugin: String,
    /// The plugin, or why it cannot be read.
    pub source: Result<Source, String>,
    /// Its specs, by path.
    pub specs: Vec<PathBuf>,
}

/// The plugins under `paths`, each with its specs. A path is what a plugin path is, or a plugin's file, or a spec, which
/// then is the only one that counts. `shipped` and the folders in `libraries` bring shared modules.
///
/// # Errors
/// A path that is not there or holds no plugin, with the reason.
pub fn find_specs(
    shipped: Shipped,
    libraries: &[PathBuf],
    paths: &[PathBuf],
) -> Result<Vec<SpecFolder>, String> {
    let mut found = Vec::new();
    for path in paths {
        let one = one_spec(path);
        let place = match &one {
            Some(plugin) => plugin,
            None => path,
        };
        let refused = |reason: &str| format!("{}: {reason}", path.display());
        if !place.exists() {
            return Err(refused(match one {
                Some(_) => "there is no plugin beside this spec",
                None => "there is no such file or folder",
            }));
        }
        let mut roots = libraries.to_vec();
        roots.push(place.clone());
        let root = roots.len();
        let scan = scan(shipped, &roots, None, true);
        if let Some(reason) = scan.missing.get(&root) {
            return Err(refused(reason));
        }
        let before = found.len();
        for place in scan.places.iter().filter(|place| place.root == root) {
            let libs = scan.libs.get(&root).cloned().unwrap_or_default();
            let source = match place.read(shipped, libs, &mut PinnedFiles::default()) {
                Ok(bundle) => Ok(bundle.source),
                Err(ReadError::Vanished) => continue,
                Err(ReadError::Failed(reason) | ReadError::Changed { reason, .. }) => Err(reason),
            };
            let specs = match &one {
                Some(_) => vec![path.clone()],
                None => specs_of(&place.origin).map_err(|error| refused(&reason_of(&error)))?,
            };
            found.push(SpecFolder {
                plugin: place.label(),
                source,
                specs,
            });
        }
        if found.len() == before {
            return Err(refused("there is no plugin in it"));
        }
    }
    Ok(found)
}

/// The text of a spec.
///
/// # Errors
/// Why it cannot be read.
pub fn read_spec(path: &Path) -> Result<std::sync::Arc<str>, String> {
    read_text(path).map_err(|error| reason_of(&error))
}

/// The plugin of a spec that was named itself.
fn one_spec(path: &Path) -> Option<PathBuf> {
    let stem = path.file_name()?.to_str()?.strip_suffix("_spec.lua")?;
    let folder = path.parent()?;
    if folder.join(ENTRY).is_file() {
        return Some(folder.to_owned());
    }
    Some(folder.join(format!("{stem}.lua")))
}

fn specs_of(origin: &Origin) -> io::Result<Vec<PathBuf>> {
    let folder = match origin {
        Origin::Embedded(_) | Origin::Installed(_) => return Ok(Vec::new()),
        Origin::File(path) => {
            let stem = path.file_stem().unwrap_or_default().to_string_lossy();
            let spec = path.with_file_name(format!("{stem}_spec.lua"));
            return Ok(spec.is_file().then_some(spec).into_iter().collect());
        }
        Origin::Folder(path) => path,
    };
    let mut specs = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let is_spec = path
            .file_name()
            .and_then(|name| name.to_str())
            .is_some_and(|name| name.ends_with("_spec.lua") && !name.starts_with('.'));
        if is_spec && path.is_file() {
            specs.push(path);
        }
    }
    specs.sort();
    Ok(specs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn world() -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        for file in [
            "b/plugin.lua",
            "b/b_spec.lua",
            "b/rules_spec.lua",
            "b/rules.lua",
            "a.lua",
            "a_spec.lua",
            "lone_spec.lua",
            "notes/readme.txt",
            "lib/shared.lua",
            "examples/s3/plugin.lua",
            "examples/s3/s3_spec.lua",
        ] {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
            fs::write(path, "return 1").expect("a file");
        }
        folder
    }

    /// The specs under a path of that world, by the path from it.
    fn specs(root: &Path, path: &str) -> Result<Vec<String>, String> {
        let shown = |path: &PathBuf| {
            let path = path.strip_prefix(root).expect("it lies below");
            path.display().to_string()
        };
        let found = find_specs(Shipped::default(), &[root.to_owned()], &[root.join(path)])?;
        Ok(found
            .iter()
            .flat_map(|folder| folder.specs.iter().map(shown))
            .collect())
    }

    #[test]
    fn specs_are_found_beside_their_plugins() {
        let folder = world();
        let root = folder.path();
        let of = |path: &str| specs(root, path).expect("plugins");
        assert_eq!(
            of(""),
            [
                "a_spec.lua",
                "b/b_spec.lua",
                "b/rules_spec.lua",
                "examples/s3/s3_spec.lua"
            ]
        );
        assert_eq!(of("b"), ["b/b_spec.lua", "b/rules_spec.lua"]);
        assert_eq!(of("a.lua"), ["a_spec.lua"]);
        assert_eq!(of("b/rules_spec.lua"), ["b/rules_spec.lua"]);
        assert_eq!(of("a_spec.lua"), ["a_spec.lua"]);
        for (path, reason) in [
            ("lone_spec.lua", "no plugin beside"),
            ("gone", "no such file or folder"),
            ("notes", "no plugin in it"),
        ] {
            let error = specs(root, path).expect_err(path);
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn a_spec_is_no_part_of_its_plugin_and_shared_modules_are_those_of_the_libraries() {
        let folder = world();
        let root = folder.path().to_owned();
        let found = find_specs(
            Shipped::default(),
            std::slice::from_ref(&root),
            &[root.join("b")],
        )
        .expect("a plugin");
        let source = found[0].source.as_ref().expect("a source");
        assert_eq!(
            source.files.keys().collect::<Vec<_>>(),
            ["plugin.lua", "rules.lua"]
        );
        assert_eq!(source.libs.keys().collect::<Vec<_>>(), ["shared.lua"]);
    }
}
