//! What lies in a plugin path and looks like a plugin, and is none, with the reason.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{ENTRY, holds_plugin, is_plugin_file};

/// A file or folder that is not taken for a plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overlooked {
    /// Where it is.
    pub path: PathBuf,
    /// Why it is none.
    pub reason: &'static str,
    /// What makes it one.
    pub help: String,
}

/// What somebody may have meant as a plugin, in a plugin path.
///
/// # Errors
/// The path is not there, or cannot be read.
pub fn overlooked(path: &Path) -> io::Result<Vec<Overlooked>> {
    let mut found = Vec::new();
    if path.is_file() || holds_plugin(path) {
        return Ok(found);
    }
    for entry in fs::read_dir(path)? {
        let path = entry?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
            found.push(Overlooked {
                reason: "its name is not UTF-8",
                help: "rename it".to_owned(),
                path,
            });
            continue;
        };
        if let Some((reason, help)) = reason_of(&path, name) {
            found.push(Overlooked { reason, help, path });
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

fn reason_of(path: &Path, name: &str) -> Option<(&'static str, String)> {
    let is_folder = path.is_dir();
    let plugin = if is_folder {
        holds_plugin(path)
    } else {
        is_plugin_file(name)
    };
    if name.starts_with('.') {
        return plugin.then(|| {
            let visible = name.trim_start_matches('.');
            (
                "its name begins with a dot",
                format!("rename it to {visible}"),
            )
        });
    }
    if !is_folder {
        let lower = name.to_lowercase();
        let ending = [".luau", ".lua.txt", ".lua.bak", ".lua.disabled", ".lua"]
            .iter()
            .find(|ending| lower.ends_with(**ending) && !name.ends_with(".lua"))?;
        let stem = &name[..name.len() - ending.len()];
        return Some((
            "its name does not end in `.lua`",
            format!("rename it to {stem}.lua"),
        ));
    }
    let inner = || {
        let entries = fs::read_dir(path).ok()?.flatten().map(|entry| entry.path());
        entries.into_iter().find(|inner| holds_plugin(inner))
    };
    let below = |inner: PathBuf| format!("move {} up beside it", inner.display());
    match name {
        // Examples are where they should be, and types are none.
        "examples" | "types" => None,
        "lib" if plugin => Some((
            "it lies in `lib`, where the modules are that plugins share",
            "move it to a folder of another name".to_owned(),
        )),
        "lib" => inner().map(|inner| {
            (
                "a plugin lies in `lib`, where the modules are that plugins share",
                below(inner),
            )
        }),
        _ if plugin => None,
        _ => match inner() {
            Some(inner) => Some((
                "plugins are looked for in a plugin path itself, and this one lies a folder deeper",
                format!(
                    "{}, or name {} in PATCHBAY_PLUGIN_PATHS",
                    below(inner),
                    path.display()
                ),
            )),
            None => {
                let entries = fs::read_dir(path).ok()?.flatten();
                let lua = entries
                    .into_iter()
                    .any(|entry| entry.file_name().to_str().is_some_and(is_plugin_file));
                lua.then(|| {
                    (
                        "the folder has Lua files and no `plugin.lua`",
                        format!("name the file that returns the plugin {ENTRY}"),
                    )
                })
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_like_a_plugin_and_is_none_has_a_reason() {
        let folder = tempfile::tempdir().expect("a folder");
        for file in [
            "good.lua",
            "good_spec.lua",
            "fine/plugin.lua",
            "fine/rules.lua",
            "readme.txt",
            "lib/shared.lua",
            "examples/s3/plugin.lua",
            "types/x.lua",
            ".hidden.lua",
            "a.luau",
            "b.lua.txt",
            "C.LUA",
            "deep/er/plugin.lua",
            "nameless/main.lua",
            "lib/inner/plugin.lua",
        ] {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
            fs::write(path, "return 1").expect("a file");
        }
        let found: Vec<String> = overlooked(folder.path())
            .expect("read")
            .iter()
            .map(|one| {
                one.path
                    .file_name()
                    .expect("a name")
                    .to_string_lossy()
                    .into_owned()
            })
            .collect();
        assert_eq!(
            found,
            [
                ".hidden.lua",
                "C.LUA",
                "a.luau",
                "b.lua.txt",
                "deep",
                "lib",
                "nameless"
            ]
        );
        assert!(overlooked(&folder.path().join("nowhere")).is_err());
    }
}
