//! Editor types: the lists of the API, written as a definition file for luau-lsp.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::api::{API, Entry, RECORDS, Record, Shape};
use crate::spec::{SPEC_API, SPEC_RECORDS};

const HEAD: &str = "\
-- What plugins and their specs can reach, for luau-lsp. Written by `patchbay plugin types`; do not edit.
--
-- An editor takes it as a definition file: luau-lsp's setting `luau-lsp.types.definitionFiles`, or `--definitions` on its
-- command line. Modules as in `require \"@lib/…\"` are found through `.luaurc` in the folder of plugins.
";

/// The types of everything that a plugin or a spec can reach, as the text of a `.d.luau` file.
pub fn types() -> String {
    let mut text = HEAD.to_owned();
    for record in RECORDS.iter().chain(SPEC_RECORDS) {
        write_record(&mut text, record);
    }
    let mut tree = Names::default();
    for entry in API.iter().chain(SPEC_API) {
        tree.add(entry.path, entry);
    }
    text.push_str("\n--- The API of Patchbay.\ndeclare patchbay: {\n");
    if let Some(Names::Table(patchbay)) = tree.get("patchbay") {
        write_names(&mut text, patchbay, 1);
    }
    text.push_str("}\n");
    for entry in SPEC_API {
        if !entry.path.contains('.') {
            let _ = write!(
                text,
                "\n--- {}\ndeclare {}: {}\n",
                entry.doc, entry.path, entry.signature
            );
        }
    }
    write_natives(&mut text);
    text
}

/// The names of the API, as the tables in which they stand.
enum Names<'a> {
    Table(BTreeMap<&'a str, Names<'a>>),
    Entry(&'a Entry),
}

impl Default for Names<'_> {
    fn default() -> Self {
        Names::Table(BTreeMap::new())
    }
}

impl<'a> Names<'a> {
    fn add(&mut self, path: &'a str, entry: &'a Entry) {
        let Names::Table(names) = self else { return };
        match path.split_once('.') {
            Some((first, rest)) => names.entry(first).or_default().add(rest, entry),
            None => {
                names.insert(path, Names::Entry(entry));
            }
        }
    }

    fn get(&self, name: &str) -> Option<&Names<'a>> {
        match self {
            Names::Table(names) => names.get(name),
            Names::Entry(_) => None,
        }
    }
}

fn write_names(text: &mut String, names: &BTreeMap<&str, Names<'_>>, depth: usize) {
    let indent = "    ".repeat(depth);
    for (name, entry) in names {
        match entry {
            Names::Entry(entry) => {
                let _ = writeln!(
                    text,
                    "{indent}--- {}\n{indent}{name}: {},",
                    entry.doc, entry.signature
                );
            }
            Names::Table(inner) => {
                let _ = writeln!(text, "{indent}{name}: {{");
                write_names(text, inner, depth + 1);
                let _ = writeln!(text, "{indent}}},");
            }
        }
    }
}

fn write_record(text: &mut String, record: &Record) {
    let _ = write!(text, "\n--- {}\nexport type {} = ", record.doc, record.name);
    let open = match record.shape {
        Shape::Alias(signature) => {
            let _ = writeln!(text, "{signature}");
            return;
        }
        Shape::Table(_) => None,
        Shape::Open(_, rest) => Some(rest),
    };
    text.push_str("{\n");
    for part in record.parts() {
        let _ = writeln!(
            text,
            "    --- {}\n    {}: {},",
            part.doc, part.name, part.signature
        );
    }
    if let Some(rest) = open {
        let _ = writeln!(text, "    [string]: {rest},");
    }
    text.push_str("}\n");
}

/// Luau's own library is known to the editor; what of it is there is said here.
fn write_natives(text: &mut String) {
    text.push_str("\n-- Of Luau's own library there is this, and nothing else:\n");
    let mut line = String::from("--");
    for entry in API
        .iter()
        .filter(|entry| !entry.path.starts_with("patchbay."))
    {
        if line.len() + entry.path.len() + 2 > 118 {
            text.push_str(&line);
            text.push('\n');
            line = String::from("--");
        }
        line.push(' ');
        line.push_str(entry.path);
    }
    text.push_str(&line);
    text.push('\n');
}
