//! Names and versions of packages, parsed once.

use std::fmt;

use semver::Version;
use serde::{Deserialize, Serialize};

use super::path::is_plain_name;

/// The name of a package: lower case, and fit for a folder on any system.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PackageName(String);

impl PackageName {
    /// Reads a name.
    ///
    /// # Errors
    /// What was expected and found.
    pub fn parse(text: &str) -> Result<PackageName, String> {
        let fits = is_plain_name(text)
            && text.len() <= 64
            && text.chars().all(|c| !c.is_ascii_uppercase() && c != '+')
            && text.starts_with(|c: char| c.is_ascii_alphanumeric());
        match fits {
            true => Ok(PackageName(text.to_owned())),
            false => Err(format!(
                "expected a package's name of at most 64 lower-case letters, digits, \"-\", \"_\" and \".\", such as \
                 \"acme-outputs\", found {text:?}"
            )),
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The version of a package, as written. Two numbers mean that the third is 0.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PackageVersion(String);

impl PackageVersion {
    /// Reads a version.
    ///
    /// # Errors
    /// What was expected and found.
    pub fn parse(text: &str) -> Result<PackageVersion, String> {
        match semantic(text).filter(|_| text.len() <= 64 && is_plain_name(text)) {
            Some(_) => Ok(PackageVersion(text.to_owned())),
            None => Err(format!(
                "expected a version such as \"1.2.0\", found {text:?}"
            )),
        }
    }

    /// The version as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this one comes before another by the rules of semantic versions.
    pub(crate) fn is_older_than(&self, other: &PackageVersion) -> bool {
        semantic(&self.0) < semantic(&other.0)
    }
}

fn semantic(text: &str) -> Option<Version> {
    let end = text.find(['-', '+']).unwrap_or(text.len());
    let (numbers, rest) = text.split_at(end);
    let missing = match numbers.matches('.').count() {
        0 => ".0.0",
        1 => ".0",
        _ => "",
    };
    Version::parse(&format!("{numbers}{missing}{rest}")).ok()
}

macro_rules! text_like {
    ($name:ident) => {
        impl TryFrom<String> for $name {
            type Error = String;

            fn try_from(text: String) -> Result<Self, String> {
                $name::parse(&text)
            }
        }

        impl From<$name> for String {
            fn from(this: $name) -> String {
                this.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text_like!(PackageName);
text_like!(PackageVersion);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_folders_on_any_system() {
        for good in ["acme", "acme-outputs", "a.b_c", "s3"] {
            assert!(PackageName::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "", ".", "..", ".a", "a/b", "a\\b", "Acme", "a.", "con", "nul.txt", "ａ", "a b", "-a",
            "a\0",
        ] {
            assert!(PackageName::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn versions_are_ordered_by_their_meaning() {
        let version = |text: &str| PackageVersion::parse(text).expect(text);
        for (older, newer) in [
            ("1.2.0", "1.10.0"),
            ("1.0", "1.0.1"),
            ("1", "1.1"),
            ("2.0.0-rc.1", "2.0.0"),
        ] {
            assert!(version(older).is_older_than(&version(newer)), "{older}");
            assert!(!version(newer).is_older_than(&version(older)), "{older}");
        }
        assert!(!version("1.0").is_older_than(&version("1.0.0")));
        for bad in ["", "one", "1.0/..", "../1", "1.0.0.0", "01.0.0", "1.0.0\\"] {
            assert!(PackageVersion::parse(bad).is_err(), "{bad:?}");
        }
    }
}
