//! What is wrong or odd with a plugin, shown as a good compiler does, or told to editors and pipelines as JSON.

use std::io::IsTerminal;

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};
use patchbay_lua::Report;
use patchbay_registry::wire::LastError;
use serde::Serialize;

use crate::visible::{acts, visible};

/// How grave it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Severity {
    /// The plugin does not serve.
    Error,
    /// It serves, and somebody should look at this.
    Warning,
    /// Nothing is wrong, but something could not be looked at.
    Note,
}

/// One thing that is wrong or odd, and where. The keys are what `--json` prints; more may come, none goes.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Diagnostic {
    pub(super) severity: Severity,
    /// What was being done, such as `parse`, `definition`, `migration` or `hook`.
    pub(super) stage: String,
    /// The hook, when it was one.
    pub(super) hook: Option<String>,
    /// The plugin's name, when it is known.
    pub(super) plugin: Option<String>,
    /// Where the plugin lies.
    pub(super) source: Option<String>,
    /// The file.
    pub(super) file: Option<String>,
    /// The line, from 1.
    pub(super) line: Option<u32>,
    /// The column, from 1, in characters.
    pub(super) column: Option<u32>,
    /// Where it ends: the line, and the column just after it.
    pub(super) end: Option<End>,
    /// The path inside what the file or the hook returned, such as `fields[2].default`.
    pub(super) path: Option<String>,
    /// What is wrong.
    pub(super) message: String,
    /// What to do.
    pub(super) help: Option<String>,
    #[serde(skip)]
    source_line: Option<String>,
}

/// Where something ends.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct End {
    line: u32,
    column: u32,
}

impl Diagnostic {
    /// Something without a place.
    pub(super) fn plain(severity: Severity, stage: &str, message: &str) -> Diagnostic {
        // What to do stands in brackets at the end of a message that is one sentence.
        let (message, help) = match message
            .strip_suffix(')')
            .and_then(|text| text.rsplit_once(" ("))
        {
            Some((message, help)) if !help.contains(['(', ')']) => (message, Some(help.to_owned())),
            _ => (message, None),
        };
        Diagnostic {
            severity,
            stage: stage.to_owned(),
            hook: None,
            plugin: None,
            source: None,
            file: None,
            line: None,
            column: None,
            end: None,
            path: None,
            message: message.to_owned(),
            help,
            source_line: None,
        }
    }

    pub(super) fn of_report(severity: Severity, report: &Report) -> Diagnostic {
        let span = report.span.as_deref();
        Diagnostic {
            severity,
            stage: report.stage.word().to_owned(),
            hook: report.hook.map(str::to_owned),
            plugin: None,
            source: None,
            file: report.file.clone(),
            line: report.line,
            column: report.column,
            end: span
                .and_then(|span| span.end)
                .map(|(line, column)| End { line, column }),
            path: report.path.clone(),
            message: report.message.clone(),
            help: report.help.clone(),
            source_line: span.and_then(|span| span.source_line.clone()),
        }
    }

    /// Everything that an error says.
    pub(super) fn of_error(error: &LastError) -> Vec<Diagnostic> {
        if !error.reports.is_empty() {
            let mut reports: Vec<&Report> = error.reports.iter().collect();
            // As one reads a file.
            reports.sort_by_key(|report| (&report.file, report.line, report.column));
            return reports
                .into_iter()
                .map(|report| Diagnostic::of_report(Severity::Error, report))
                .collect();
        }
        let one = |message: &String| Diagnostic {
            hook: error.hook.clone(),
            file: error.file.clone(),
            line: error.line,
            ..Diagnostic::plain(Severity::Error, &error.stage, message)
        };
        error.mistakes.iter().map(one).collect()
    }

    /// The same, of a plugin.
    pub(super) fn about(self, plugin: Option<&str>, source: &str) -> Diagnostic {
        Diagnostic {
            plugin: plugin.map(str::to_owned),
            source: Some(source.to_owned()),
            ..self
        }
    }

    /// As it is shown on a terminal: the message, the place, the line with what is meant underlined, and what to do.
    pub(super) fn rendered(&self, renderer: &Renderer) -> String {
        let level = match self.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
            Severity::Note => Level::NOTE,
        };
        let title = match &self.hook {
            Some(hook) => format!("{hook}: {}", self.message),
            None => self.message.clone(),
        };
        // What is drawn with colours is printed as it is, so that nothing in it may act.
        let title = visible(&title, &['\n']).into_owned();
        let file = self.file.as_ref().map(|file| visible(file, &[]));
        let help = self.help.as_ref().map(|help| visible(help, &['\n']));
        let path = self.path.as_ref().map(|path| visible(path, &[]));
        // One for one, so that the columns stay.
        let blank = |letter: char| match acts(letter) && letter != '\t' {
            true => char::REPLACEMENT_CHARACTER,
            false => letter,
        };
        let line_text = self.source_line.as_ref();
        let line_text = line_text.map(|line| line.chars().map(blank).collect::<String>());
        let mut group = Group::with_title(level.primary_title(title));
        match (&file, &line_text, self.line) {
            (Some(file), Some(text), Some(line)) => {
                let mut annotation = AnnotationKind::Primary.span(self.span(text, line));
                if let Some(path) = &path {
                    annotation = annotation.label(path.as_ref());
                }
                group = group.element(
                    Snippet::source(text.as_str())
                        .line_start(line as usize)
                        .path(file.as_ref())
                        .annotation(annotation),
                );
            }
            (Some(file), ..) => {
                let mut origin = Origin::path(file.as_ref());
                if let Some(line) = self.line {
                    origin = origin.line(line as usize);
                }
                group = group.element(origin);
            }
            _ => {}
        }
        if let Some(help) = &help {
            group = group.element(Level::HELP.message(help.as_ref()));
        }
        renderer.render(&[group])
    }

    /// The bytes of the line that are meant: to its end, when it goes on below; all that is written on it, when the column is
    /// not known.
    fn span(&self, text: &str, line: u32) -> std::ops::Range<usize> {
        let byte_of = |column: u32| {
            let place = (column as usize).saturating_sub(1);
            text.char_indices()
                .nth(place)
                .map_or(text.len(), |(byte, _)| byte)
        };
        let written = text.trim_end().len();
        let Some(column) = self.column else {
            return text.len() - text.trim_start().len()
                ..written.max(text.len() - text.trim_start().len());
        };
        let start = byte_of(column);
        let end = match self.end {
            Some(end) if end.line == line => byte_of(end.column),
            Some(_) => written,
            None => start + text[start..].chars().next().map_or(0, char::len_utf8),
        };
        start..end.max(start)
    }
}

/// Draws in colours on a terminal, unless NO_COLOR says not to.
pub(super) fn renderer() -> Renderer {
    let unset = |name: &str| std::env::var_os(name).is_none_or(|value| value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    match std::io::stdout().is_terminal() && unset("NO_COLOR") && !dumb {
        true => Renderer::styled(),
        false => Renderer::plain(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn diagnostic(line: &str, column: Option<u32>, end: Option<(u32, u32)>) -> Diagnostic {
        Diagnostic {
            file: Some("lua-plugins/lake.lua".to_owned()),
            line: Some(4),
            column,
            end: end.map(|(line, column)| End { line, column }),
            path: Some("fields[1].requierd".to_owned()),
            source_line: Some(line.to_owned()),
            ..Diagnostic::plain(
                Severity::Error,
                "definition",
                "no such key (did you mean it?)",
            )
        }
    }

    #[test]
    fn the_place_is_underlined() {
        let line = "    fields = { field.string \"é\" { requierd = true } },";
        let renderer = Renderer::plain();
        insta::assert_snapshot!(diagnostic(line, Some(35), Some((4, 43))).rendered(&renderer), @r#"
        error: no such key
         --> lua-plugins/lake.lua:4:35
          |
        4 |     fields = { field.string "é" { requierd = true } },
          |                                   ^^^^^^^^ fields[1].requierd
          |
          = help: did you mean it?
        "#);
        insta::assert_snapshot!(diagnostic(line, Some(16), Some((9, 2))).rendered(&renderer), @r#"
        error: no such key
         --> lua-plugins/lake.lua:4:16
          |
        4 |     fields = { field.string "é" { requierd = true } },
          |                ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ fields[1].requierd
          |
          = help: did you mean it?
        "#);
        insta::assert_snapshot!(diagnostic("    error(\"x\")", None, None).rendered(&renderer), @r#"
        error: no such key
         --> lua-plugins/lake.lua:4:5
          |
        4 |     error("x")
          |     ^^^^^^^^^^ fields[1].requierd
          |
          = help: did you mean it?
        "#);
    }

    #[test]
    fn escapes_in_a_message_stay_on_the_page() {
        let mut forged = diagnostic("\x1b[2Jerror()", Some(1), None);
        forged.message = "a\x1b[2J\x07b".to_owned();
        let shown = forged.rendered(&Renderer::plain());
        assert!(!shown.contains(['\x1b', '\x07']), "{shown:?}");
    }
}
