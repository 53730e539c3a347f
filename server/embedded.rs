//! What the binary carries, so that it works alone in any folder: the shipped plugins and the default catalogue.

use anyhow::Context;
use include_dir::{Dir, include_dir};
use patchbay_plugin::catalogue::CatalogueFile;
use patchbay_registry::read_bounded;
use patchbay_registry::settings::Shipped;

static PLUGINS: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/lua-plugins");

/// The default catalogue, applied to an empty database.
const CATALOGUE: &str = include_str!("../config/catalogue.toml");

/// The largest file of a catalogue, in bytes.
const MAX_CATALOGUE: u64 = 16 * 1024 * 1024;

/// The shipped plugins.
pub(crate) fn plugins() -> Shipped {
    let mut files = Vec::new();
    collect(&PLUGINS, &mut files);
    // The list lives as long as the program, once for each server that it starts.
    Shipped {
        files: files.leak(),
    }
}

fn collect(folder: &'static Dir<'static>, files: &mut Vec<(&'static str, &'static [u8])>) {
    for file in folder.files() {
        if let Some(path) = file.path().to_str() {
            files.push((path, file.contents()));
        }
    }
    for inner in folder.dirs() {
        collect(inner, files);
    }
}

/// The catalogue of a file, or the embedded one.
///
/// # Errors
/// A message that names the file, the line and what was expected.
pub(crate) fn catalogue(path: Option<&std::path::Path>) -> anyhow::Result<CatalogueFile> {
    let (text, name) = match path {
        Some(path) => (
            read_bounded(path, MAX_CATALOGUE)
                .with_context(|| format!("the catalogue {}", path.display()))?,
            path.display().to_string(),
        ),
        None => (CATALOGUE.to_owned(), "config/catalogue.toml".to_owned()),
    };
    toml::from_str(&text).with_context(|| format!("the catalogue {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn a_catalogue_is_read_from_a_regular_file_only() {
        let error = catalogue(Some(std::path::Path::new("/dev/zero"))).expect_err("a refusal");
        assert_eq!(
            format!("{error:#}"),
            "the catalogue /dev/zero: it is not a regular file"
        );
    }

    #[test]
    fn the_embedded_catalogue_reads() {
        let catalogue = catalogue(None).expect("a catalogue");
        assert!(
            catalogue
                .platforms
                .iter()
                .any(|platform| platform.name == "Snowflake")
        );
    }

    #[test]
    fn the_shipped_plugins_are_embedded() {
        let shipped = plugins();
        for path in [
            "snowflake/plugin.lua",
            "lib/table_family.lua",
            "examples/s3/plugin.lua",
        ] {
            assert!(
                shipped.files.iter().any(|(name, _)| *name == path),
                "{path}"
            );
        }
    }
}
