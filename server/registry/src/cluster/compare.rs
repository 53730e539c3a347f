//! What tells two sets of plugins apart.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use super::wire::{PluginDifference, ServerPlugin};

/// How much of a hash is shown, in bytes. It tells sets apart, and proves nothing.
const SHOWN: usize = 16;

/// The start of a hash as text.
pub(super) fn shown(hash: &[u8]) -> String {
    use std::fmt::Write;
    let mut text = String::with_capacity(2 * SHOWN);
    for byte in hash.iter().take(SHOWN) {
        let written = write!(text, "{byte:02x}");
        debug_assert!(written.is_ok(), "writing to a string does not fail");
    }
    text
}

/// The digest of what serves among the plugins of a server.
pub(super) fn digest<'a>(plugins: impl IntoIterator<Item = &'a ServerPlugin>) -> String {
    let mut hash = Sha256::new();
    for (name, plugin) in serving(plugins) {
        for part in [
            Some(name),
            plugin.version.as_deref(),
            plugin.fingerprint.as_deref(),
        ] {
            let part = part.unwrap_or_default();
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
    }
    shown(&hash.finalize())
}

fn serving<'a>(
    plugins: impl IntoIterator<Item = &'a ServerPlugin>,
) -> BTreeMap<&'a str, &'a ServerPlugin> {
    plugins
        .into_iter()
        .filter(|plugin| plugin.fingerprint.is_some())
        .map(|plugin| (plugin.plugin.as_str(), plugin))
        .collect()
}

/// What serves otherwise on a server than in the newest generation, by name.
pub(super) fn differences(here: &[ServerPlugin], newest: &[ServerPlugin]) -> Vec<PluginDifference> {
    let (ours, theirs) = (serving(here), serving(newest));
    let names: std::collections::BTreeSet<&str> =
        ours.keys().chain(theirs.keys()).copied().collect();
    names
        .into_iter()
        .filter_map(|name| {
            // What fails without an older version is still told of.
            let failing = || here.iter().find(|plugin| plugin.plugin == name);
            let ours = ours.get(name).copied().or_else(failing);
            difference(name, ours, theirs.get(name).copied())
        })
        .collect()
}

fn difference(
    name: &str,
    here: Option<&ServerPlugin>,
    newest: Option<&ServerPlugin>,
) -> Option<PluginDifference> {
    let files = |plugin: Option<&ServerPlugin>| plugin.and_then(|it| it.fingerprint.clone());
    let version = |plugin: Option<&ServerPlugin>| plugin.and_then(|it| it.version.clone());
    if files(here) == files(newest) && version(here) == version(newest) {
        return None;
    }
    let error = here.and_then(|plugin| plugin.error.as_deref());
    let (reason, message) = match (version(here), version(newest), error) {
        (_, Some(wanted), Some(error)) => (
            "failed",
            format!("{name} {wanted} does not serve here: {error}"),
        ),
        (None, wanted, _) => (
            "missing",
            format!(
                "{name} {} is not found here, or is disabled",
                wanted.unwrap_or_default()
            ),
        ),
        (Some(found), None, _) => ("extra", format!("{name} {found} is served here only")),
        (Some(found), Some(wanted), _) if found == wanted => {
            ("files", format!("{name} {found} has other files here"))
        }
        (Some(found), Some(wanted), _) => (
            "version",
            format!("{name} is {found} here, and {wanted} in the newest generation"),
        ),
    };
    Some(PluginDifference {
        plugin: name.to_owned(),
        reason: reason.to_owned(),
        message,
        here: here.cloned(),
        newest: newest.cloned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plugin(name: &str, version: &str, fingerprint: &str) -> ServerPlugin {
        ServerPlugin {
            plugin: name.to_owned(),
            version: Some(version.to_owned()),
            fingerprint: Some(fingerprint.to_owned()),
            state: "active".to_owned(),
            error: None,
        }
    }

    fn failed(name: &str) -> ServerPlugin {
        ServerPlugin {
            version: None,
            fingerprint: None,
            state: "failed".to_owned(),
            error: Some("load: it raised".to_owned()),
            ..plugin(name, "", "")
        }
    }

    #[test]
    fn a_digest_is_of_what_serves_in_whatever_order() {
        let (a, b) = (plugin("A", "1", "x"), plugin("B", "1", "y"));
        let one = digest([&a, &b]);
        assert_eq!(one.len(), 2 * SHOWN);
        assert_eq!(one, digest([&b, &a, &failed("C")]));
        for other in [
            plugin("B", "2", "y"),
            plugin("B", "1", "z"),
            plugin("C", "1", "y"),
        ] {
            assert_ne!(one, digest([&a, &other]), "{other:?}");
        }
        // Parts cannot be read as parts of others.
        assert_ne!(
            digest([&plugin("A", "11", "x")]),
            digest([&plugin("A", "1", "1x")])
        );
    }

    #[test]
    fn each_difference_has_its_reason() {
        let newest = [
            plugin("Failed", "2", "b"),
            plugin("Files", "1", "b"),
            plugin("Missing", "1", "a"),
            plugin("Never", "1", "a"),
            plugin("Same", "1", "a"),
            plugin("Version", "2", "b"),
        ];
        let here = [
            plugin("Extra", "1", "a"),
            ServerPlugin {
                error: Some("load: it raised".to_owned()),
                ..plugin("Failed", "1", "a")
            },
            plugin("Files", "1", "a"),
            failed("Never"),
            plugin("Same", "1", "a"),
            plugin("Version", "1", "a"),
        ];
        let found: Vec<String> = differences(&here, &newest)
            .into_iter()
            .map(|it| format!("{}: {}", it.reason, it.message))
            .collect();
        assert_eq!(
            found,
            [
                "extra: Extra 1 is served here only",
                "failed: Failed 2 does not serve here: load: it raised",
                "files: Files 1 has other files here",
                "missing: Missing 1 is not found here, or is disabled",
                "failed: Never 1 does not serve here: load: it raised",
                "version: Version is 1 here, and 2 in the newest generation",
            ]
        );
        assert_eq!(differences(&newest, &newest), []);
    }
}
