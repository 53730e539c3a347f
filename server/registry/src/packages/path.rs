//! The paths that a file of a package may have.
//!
//! A list of what is allowed, not of what is dangerous: letters, digits and four signs of ASCII. So `..`, absolute paths,
//! drive letters, backslashes, NUL, and letters that only look like dots or slashes need no rule of their own.

/// The longest path, in bytes.
const MAX_LENGTH: usize = 200;
/// How deep files may lie.
const MAX_DEPTH: usize = 8;

/// Names that mean a device on Windows, whatever their ending.
const DEVICES: [&str; 22] = [
    "con", "prn", "aux", "nul", "com1", "com2", "com3", "com4", "com5", "com6", "com7", "com8",
    "com9", "lpt1", "lpt2", "lpt3", "lpt4", "lpt5", "lpt6", "lpt7", "lpt8", "lpt9",
];

/// Whether a text can name a file or folder on every system, and means nothing else anywhere.
pub(super) fn is_plain_name(text: &str) -> bool {
    let stem = text.split('.').next().unwrap_or_default();
    !text.is_empty()
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "._-+".contains(c))
        && !text.starts_with('.')
        && !text.ends_with('.')
        && !DEVICES.contains(&stem.to_ascii_lowercase().as_str())
}

/// Reads the path of a file inside a package, with `/` between its parts. A leading `./`, which `tar` writes, is nothing.
///
/// # Errors
/// What was expected and found.
pub(super) fn parse(bytes: &[u8]) -> Result<String, String> {
    let shown = || {
        let text = String::from_utf8_lossy(bytes);
        let mut short: String = text.chars().take(MAX_LENGTH).collect();
        if short.len() < text.len() {
            short.push('…');
        }
        format!("{short:?}")
    };
    let path = std::str::from_utf8(bytes)
        .ok()
        .map(|text| text.strip_prefix("./").unwrap_or(text));
    match path {
        Some(path) if path.len() > MAX_LENGTH => Err(format!(
            "expected paths of at most {MAX_LENGTH} bytes, found {} ({} bytes)",
            shown(),
            bytes.len()
        )),
        Some(path) if path.split('/').count() > MAX_DEPTH => Err(format!(
            "expected folders at most {MAX_DEPTH} deep, found {}",
            shown()
        )),
        Some(path) if path.split('/').all(is_plain_name) => Ok(path.to_owned()),
        _ => Err(format!(
            "expected paths inside the package, made of letters, digits, \".\", \"_\", \"-\" and \"+\", no part beginning \
             or ending with a dot, found {}",
            shown()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_inside_on_every_system() {
        for good in ["plugin.lua", "./plugin.lua", "a/b-c_d+e.1.lua", "LICENSE"] {
            assert!(parse(good.as_bytes()).is_ok(), "{good}");
        }
        let deep = "a/".repeat(8) + "x";
        let long = "a".repeat(201);
        for bad in [
            "",
            ".",
            "..",
            "./",
            "../x",
            "a/../x",
            "a/./x",
            "/etc/passwd",
            "//x",
            "a//b",
            "a/",
            "C:/x",
            "C:x",
            "a\\b",
            "..\\x",
            "a\0b",
            "․․/x",
            "‥/x",
            "．．/x",
            "a/..",
            "a./b",
            "a /b",
            "b ",
            "…",
            "é.lua",
            ".hidden",
            "aux.lua",
            "x/NUL",
            "a\n",
            "\u{202e}x",
            deep.as_str(),
            long.as_str(),
        ] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad:?}");
        }
        assert!(parse(b"\xff\xfe").is_err());
    }
}
