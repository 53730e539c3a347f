//! Under what an answer is kept: which routes there are, and the name in the path of a form.

use std::borrow::Cow;

use crate::path;

/// The prefix of all paths under which plugins are.
const PLUGINS: &str = "/api/v2/plugins";

/// What kind of answer is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// The list of plugins.
    List,
    /// The platform tiles.
    Tiles,
    /// The OpenAPI document.
    OpenApi,
    /// The form of a plugin.
    Form,
}

impl Kind {
    /// All of them, in the order of their numbers.
    pub(crate) const ALL: [Kind; 4] = [Kind::List, Kind::Tiles, Kind::OpenApi, Kind::Form];

    /// The route that answers it.
    pub(crate) fn route(self) -> &'static str {
        match self {
            Kind::List => "/api/v2/plugins",
            Kind::Tiles => "/api/v2/plugins/platform-tiles",
            Kind::OpenApi => "/api/openapi.json",
            Kind::Form => "/api/v2/plugins/{plugin}/form",
        }
    }
}

/// Under what an answer is kept.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Key<'a> {
    pub(crate) kind: Kind,
    /// The plugin's name or alias, for a form; else empty.
    pub(super) name: Cow<'a, str>,
}

impl<'a> Key<'a> {
    /// The key of an answer that needs no name.
    pub(crate) fn of(kind: Kind) -> Key<'static> {
        Key {
            kind,
            name: Cow::Borrowed(""),
        }
    }

    /// The key of a plugin's form, by name or alias.
    pub(crate) fn form(name: impl Into<Cow<'a, str>>) -> Self {
        Self {
            kind: Kind::Form,
            name: name.into(),
        }
    }

    /// The key of a path without its trailing slash, when its answer is one that is kept. The name is decoded as the
    /// router decodes it.
    pub(crate) fn of_path(path: &'a str) -> Option<Self> {
        let Some(rest) = path.strip_prefix(PLUGINS) else {
            return (path == Kind::OpenApi.route()).then(|| Key::of(Kind::OpenApi));
        };
        match rest {
            "" => Some(Key::of(Kind::List)),
            "/platform-tiles" => Some(Key::of(Kind::Tiles)),
            _ => {
                let name = rest.strip_prefix('/')?.strip_suffix("/form")?;
                if name.is_empty() || name.contains('/') {
                    return None;
                }
                path::decoded(name).map(Key::form)
            }
        }
    }

    /// The same, for keeping.
    pub(super) fn owned(&self) -> Key<'static> {
        Key {
            kind: self.kind,
            name: Cow::Owned(self.name.clone().into_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_the_path_with_its_name_decoded() {
        for (path, key) in [
            ("/api/v2/plugins", Some(Key::of(Kind::List))),
            ("/api/v2/plugins/platform-tiles", Some(Key::of(Kind::Tiles))),
            ("/api/openapi.json", Some(Key::of(Kind::OpenApi))),
            (
                "/api/v2/plugins/Snowflake/form",
                Some(Key::form("Snowflake")),
            ),
            (
                "/api/v2/plugins/Snow%66lake/form",
                Some(Key::form("Snowflake")),
            ),
            ("/api/v2/plugins/%ff/form", None),
            ("/api/v2/plugins/a/b/form", None),
            ("/api/v2/plugins//form", None),
            ("/api/v2/plugins/form", None),
            ("/api/v2/plugins/status", None),
            ("/api/v2/pluginsX", None),
            ("/api/v2/%70lugins", None),
            ("/", None),
        ] {
            assert_eq!(Key::of_path(path), key, "{path}");
        }
        for kind in Kind::ALL {
            assert_eq!(Kind::ALL[kind as usize], kind);
        }
    }
}
