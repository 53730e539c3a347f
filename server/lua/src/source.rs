//! What a plugin is loaded from: texts in memory. The sandbox never reads a file.

use std::collections::BTreeMap;
use std::sync::Arc;

use patchbay_plugin::Map;
use patchbay_plugin::field::Field;
use patchbay_plugin::name::PluginName;

use crate::error::Report;

/// Text files by their path inside the plugin's folder, with `/` between the parts: `plugin.lua`, `rules.lua`,
/// `migrations/0001_create_table.lua`.
pub type Files = BTreeMap<String, Arc<str>>;

/// The files of one version of a plugin, captured once. A VM that was dropped is built again from the same texts.
#[derive(Clone)]
pub struct Source {
    /// What stands before a file's path in messages, such as `lua-plugins/snowflake`; may be empty.
    pub label: String,
    /// The file that returns the plugin: `plugin.lua`, or the only file.
    pub entry: String,
    /// The plugin's own files.
    pub files: Arc<Files>,
    /// Files of the plugin that may not be read, and why: a link that leaves the folder, one that is too large, …
    pub refused: Arc<BTreeMap<String, String>>,
    /// Whether the plugin is one file. Then it has no folder of its own, and `require "./x"` says so.
    pub single_file: bool,
    /// The shared modules behind `@lib/`, by file name: `table_family.lua`.
    pub libs: Arc<Files>,
}

/// Finds the values that the operator set for a plugin's settings, checked against them. What is wrong with them is
/// reported as a mistake of the stage `settings`.
pub type SettingsLookup =
    Arc<dyn Fn(&PluginName, &[Field]) -> Result<Map, Vec<String>> + Send + Sync>;

/// The largest file that is compiled, in bytes. The compiler cannot be interrupted, so its input is bounded.
pub const MAX_FILE: usize = 512 * 1024;

impl Source {
    /// How a file of the plugin is named in messages.
    pub(crate) fn shown(&self, file: &str) -> String {
        if self.label.is_empty() {
            file.to_owned()
        } else {
            format!("{}/{file}", self.label)
        }
    }

    /// A line of a file that messages name so, short enough to be shown.
    fn line(&self, shown: &str, line: u32) -> Option<String> {
        /// The longest line that is shown, in characters; a longer one was not written by hand.
        const MAX_LINE: usize = 500;
        let text = self.text_of(shown)?;
        let place = usize::try_from(line).ok()?.checked_sub(1)?;
        let line = text.lines().nth(place)?;
        (line.chars().count() <= MAX_LINE).then(|| line.to_owned())
    }

    /// The text of a file that messages name so.
    pub(crate) fn text_of(&self, shown: &str) -> Option<&Arc<str>> {
        match shown.strip_prefix("@lib/") {
            Some(file) => self.libs.get(file),
            None => self.files.get(self.own_file(shown)?),
        }
    }

    /// The key in `files` of a file of the plugin that messages name so.
    fn own_file<'a>(&self, shown: &'a str) -> Option<&'a str> {
        if self.label.is_empty() {
            return Some(shown);
        }
        shown
            .strip_prefix(self.label.as_str())
            .and_then(|rest| rest.strip_prefix('/'))
    }

    /// Gives reports the text of their lines. The VM tells the line of an error and no column; where the message quotes a
    /// word that is on that line once, that is the place.
    pub(crate) fn add_lines<'a>(&self, reports: impl IntoIterator<Item = &'a mut Report>) {
        for report in reports {
            let (Some(file), Some(line)) = (&report.file, report.line) else {
                continue;
            };
            let Some(text) = self.line(file, line) else {
                continue;
            };
            if report.column.is_none()
                && let Some((start, end)) =
                    quoted_place(report.found.as_ref().unwrap_or(&report.message), &text)
            {
                report.column = Some(start);
                report.span_mut().end = Some((line, end));
            }
            report.span_mut().source_line = Some(text);
        }
    }

    /// Whether a chunk of the VM is one of the plugin's files or a shared module.
    pub(crate) fn has_chunk(&self, chunk: &str) -> bool {
        self.own_file(chunk)
            .is_some_and(|file| self.files.contains_key(file))
            || chunk
                .strip_prefix("@lib/")
                .is_some_and(|file| self.libs.contains_key(file))
    }
}

/// From which column to which one the first word, or sign, that a message quotes is on a line, when it is there once.
fn quoted_place(message: &str, line: &str) -> Option<(u32, u32)> {
    let is_word = |letter: char| letter.is_alphanumeric() || letter == '_';
    // The compiler says what it wanted first, which is just what is not there, and then what it met.
    let message = match message.strip_prefix("Expected ") {
        Some(wanted) => wanted.split_once("got ")?.1,
        None => message,
    };
    let quoted = ['"', '\'', '`'].iter().filter_map(|quote| {
        let (before, rest) = message.split_once(*quote)?;
        let (quoted, _) = rest.split_once(*quote)?;
        let one = quoted.chars().all(is_word) || !quoted.contains(|c: char| is_word(c) || c == ' ');
        (!quoted.is_empty() && one).then_some((before.len(), quoted))
    });
    let quoted = quoted.min()?.1;
    let is_whole = |at: usize| {
        let before = line[..at].chars().next_back();
        let after = line[at + quoted.len()..].chars().next();
        let word = quoted.chars().all(is_word);
        !(word && (before.is_some_and(is_word) || after.is_some_and(is_word)))
    };
    let mut places = line.match_indices(quoted).filter(|(at, _)| is_whole(*at));
    let (Some((at, _)), None) = (places.next(), places.next()) else {
        return None;
    };
    let start = line[..at].chars().count() + 1;
    let end = start + quoted.chars().count();
    Some((u32::try_from(start).ok()?, u32::try_from(end).ok()?))
}

/// How a shared module is named in messages.
pub(crate) fn shown_lib(file: &str) -> String {
    format!("@lib/{file}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quoted_word_is_a_place_when_it_is_there_once() {
        let line = "    é = field.strin \"x\", field.stringy \"y\"";
        let has_no = |word: &str| quoted_place(&format!("field has no \"{word}\""), line);
        assert_eq!(has_no("strin"), Some((15, 20)));
        assert_eq!(has_no("field"), None, "it is there twice");
        assert_eq!(has_no("other"), None);
        assert_eq!(has_no("a b"), None);
        let got = |what: &str| quoted_place(&format!("got {what}"), line);
        assert_eq!(got("'stringy'"), Some((32, 39)));
        assert_eq!(got("'='"), Some((7, 8)));
        assert_eq!(got("`,`"), Some((24, 25)));
    }
}
