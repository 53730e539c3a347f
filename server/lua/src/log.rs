//! What plugins say: lines in the server's log, with the plugin's name, so many a second.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// How many lines a plugin may write in a second.
const LINES: u32 = 20;
const WINDOW: Duration = Duration::from_secs(1);
/// How many bytes of one line are kept.
const MAX_LINE: usize = 4096;

/// The log of one plugin.
pub(crate) struct PluginLog {
    /// The plugin's name; the label of its source until it has one.
    name: RefCell<String>,
    since: Cell<Option<Instant>>,
    lines: Cell<u32>,
    dropped: Cell<u32>,
}

impl PluginLog {
    pub(crate) fn new(name: String) -> Rc<PluginLog> {
        Rc::new(PluginLog {
            name: RefCell::new(name),
            since: Cell::new(None),
            lines: Cell::new(0),
            dropped: Cell::new(0),
        })
    }

    pub(crate) fn rename(&self, name: &str) {
        *self.name.borrow_mut() = name.to_owned();
    }

    /// Writes one line, or counts it as dropped. A task of the Lua thread says how many were, once the second is over.
    pub(crate) fn write(self: &Rc<Self>, level: &[u8], text: &[u8], hook: Option<&'static str>) {
        let now = Instant::now();
        let fresh = self
            .since
            .get()
            .is_none_or(|since| now.duration_since(since) >= WINDOW);
        if fresh {
            self.since.set(Some(now));
            self.lines.set(0);
        }
        if self.lines.get() >= LINES {
            self.dropped.set(self.dropped.get() + 1);
            if self.dropped.get() == 1 {
                let log = self.clone();
                let end = self.since.get().unwrap_or(now) + WINDOW;
                tokio::task::spawn_local(async move {
                    tokio::time::sleep_until(end.into()).await;
                    let dropped = log.dropped.take();
                    tracing::warn!(plugin = %log.name.borrow(), "{dropped} lines of this plugin were dropped: it may write {LINES} a second");
                });
            }
            return;
        }
        self.lines.set(self.lines.get() + 1);
        let cut = &text[..text.len().min(MAX_LINE)];
        let text = shown(&String::from_utf8_lossy(cut));
        let name = self.name.borrow();
        match level {
            b"error" => tracing::error!(plugin = %name, hook, "{text}"),
            b"warn" => tracing::warn!(plugin = %name, hook, "{text}"),
            _ => tracing::info!(plugin = %name, hook, "{text}"),
        }
    }
}

/// Whether a letter changes how the text around it is read: it turns the direction, or ends the line for some viewers.
pub fn reorders_text(letter: char) -> bool {
    matches!(letter, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A plugin's text as the log has it, so that it reads as it was written.
fn shown(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for letter in text.chars() {
        match reorders_text(letter) {
            true => shown.extend(letter.escape_unicode()),
            false => shown.push(letter),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_that_would_be_read_backwards_is_written_out() {
        assert_eq!(shown("é \u{202e}live\u{2069}"), "é \\u{202e}live\\u{2069}");
    }

    #[tokio::test]
    async fn so_many_lines_a_second_and_the_rest_is_counted() {
        tokio::task::LocalSet::new()
            .run_until(async {
                let log = PluginLog::new("X".to_owned());
                for _ in 0..50 {
                    log.write(b"info", b"line", None);
                }
                assert_eq!((log.lines.get(), log.dropped.get()), (LINES, 50 - LINES));
            })
            .await;
    }
}
