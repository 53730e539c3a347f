//! From an error of the VM to what its author needs: the file, the line and one clean sentence.

use mlua::Error;

use crate::source::Source;

/// An error, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Explained {
    pub(crate) message: String,
    pub(crate) file: Option<String>,
    pub(crate) line: Option<u32>,
}

/// How long a message may be, in characters.
const MAX_MESSAGE: usize = 1000;
const STACK: &str = "\nstack traceback:\n";

/// Explains an error that a plugin's code raised.
pub(crate) fn explain(error: &Error, source: &Source) -> Explained {
    let mut stacks: Vec<&str> = Vec::new();
    let mut root = error;
    while let Error::CallbackError { traceback, cause } = root {
        stacks.push(traceback);
        root = cause;
    }
    let text = match root {
        Error::RuntimeError(text) => text.clone(),
        Error::SyntaxError { message, .. } => message.clone(),
        other => other.to_string(),
    };
    let (text, own_stack) = match text.split_once(STACK) {
        Some((text, stack)) => (text.to_owned(), Some(stack.to_owned())),
        None => (text, None),
    };
    let (mut place, message) = strip_positions(&text, source);
    if place.is_none() {
        place = own_stack
            .as_deref()
            .into_iter()
            .chain(stacks.iter().rev().copied())
            .find_map(|stack| first_place(stack, source));
    }
    let message = match message {
        // A table as the error, without __tostring.
        bare if is_address(bare) => {
            "it raised a value that is no text; raise a text with error(\"…\")"
        }
        "" => "it raised an error without a message",
        message => message,
    };
    let mut shown: String = message.trim_end().chars().take(MAX_MESSAGE).collect();
    if shown.len() < message.trim_end().len() {
        shown.push('…');
    }
    let (file, line) = place.unzip();
    Explained {
        message: shown,
        file,
        line,
    }
}

/// Whether the error is one of running out of memory, however deep it lies.
pub(crate) fn is_memory(error: &Error) -> bool {
    match error {
        Error::MemoryError(_) => true,
        Error::CallbackError { cause, .. } | Error::BadArgument { cause, .. } => is_memory(cause),
        Error::WithContext { cause, .. } => is_memory(cause),
        _ => false,
    }
}

/// Takes `file:12: ` off the front, as often as it is there: an error that is raised again gets a second one. The last
/// names the place where it was first raised.
fn strip_positions<'a>(text: &'a str, source: &Source) -> (Option<(String, u32)>, &'a str) {
    let mut place = None;
    let mut rest = text;
    while let Some((chunk, line, after)) = split_position(rest) {
        if is_own_chunk(chunk) {
            rest = after;
        } else if source.has_chunk(chunk) {
            place = Some((chunk.to_owned(), line));
            rest = after;
        } else {
            break;
        }
    }
    (place, rest)
}

fn split_position(text: &str) -> Option<(&str, u32, &str)> {
    let mut from = 0;
    while let Some(colon) = text[from..].find(':') {
        let colon = from + colon;
        let digits = text[colon + 1..]
            .bytes()
            .take_while(u8::is_ascii_digit)
            .count();
        let after = &text[colon + 1 + digits..];
        if digits > 0
            && let Some(rest) = after.strip_prefix(": ").or_else(|| after.strip_prefix(':'))
        {
            let line = text[colon + 1..colon + 1 + digits].parse().ok()?;
            return Some((&text[..colon], line, rest));
        }
        from = colon + 1;
    }
    None
}

fn is_own_chunk(chunk: &str) -> bool {
    chunk == "[patchbay]"
}

/// The innermost line of a stack that is in one of the plugin's files.
fn first_place(stack: &str, source: &Source) -> Option<(String, u32)> {
    stack.lines().find_map(|frame| {
        let (place, _) = frame.trim().split_once(": in ")?;
        let (chunk, line) = place.rsplit_once(':')?;
        let line = line.parse().ok()?;
        source.has_chunk(chunk).then(|| (chunk.to_owned(), line))
    })
}

fn is_address(text: &str) -> bool {
    ["table: 0x", "function: 0x", "userdata: 0x", "thread: 0x"]
        .iter()
        .any(|prefix| text.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use super::*;

    fn source() -> Source {
        Source {
            label: "lua-plugins/x".to_owned(),
            entry: "plugin.lua".to_owned(),
            files: Arc::new(BTreeMap::from([("plugin.lua".to_owned(), "".into())])),
            refused: Arc::default(),
            single_file: false,
            libs: Arc::new(BTreeMap::from([("a.lua".to_owned(), "".into())])),
        }
    }

    fn shown(text: &str) -> (String, Option<String>, Option<u32>) {
        let explained = explain(&Error::RuntimeError(text.to_owned()), &source());
        (explained.message, explained.file, explained.line)
    }

    #[test]
    fn the_place_where_an_error_was_first_raised_counts() {
        let file = Some("lua-plugins/x/plugin.lua".to_owned());
        assert_eq!(
            shown("lua-plugins/x/plugin.lua:9: lua-plugins/x/plugin.lua:3: no"),
            ("no".to_owned(), file.clone(), Some(3))
        );
        assert_eq!(
            shown(
                "[patchbay]:40: no\nstack traceback:\n\t[patchbay]:40: in function 'rep'\n\tlua-plugins/x/plugin.lua:7: in function 'f'"
            ),
            ("no".to_owned(), file, Some(7))
        );
        assert_eq!(
            shown("@lib/a.lua:2: no"),
            ("no".to_owned(), Some("@lib/a.lua".to_owned()), Some(2))
        );
    }

    #[test]
    fn what_only_looks_like_a_place_is_part_of_the_message() {
        assert_eq!(
            shown("db.example:5432: refused"),
            ("db.example:5432: refused".to_owned(), None, None)
        );
    }

    #[test]
    fn a_message_is_cut_and_never_empty() {
        assert_eq!(shown(&"x".repeat(5000)).0.chars().count(), MAX_MESSAGE + 1);
        assert_eq!(shown("").0, "it raised an error without a message");
        assert!(shown("table: 0x1234").0.contains("no text"));
    }
}
