//! `patchbay plugin new`: a plugin to start from, that already passes.

use std::fmt::Write as _;
use std::io::{BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;
use patchbay_plugin::field::FIELD_KINDS;
use patchbay_plugin::name::{FieldName, PluginName};
use patchbay_plugin::platform::PlatformMetadata;

use super::say;
use crate::settings::Settings;

/// Write a plugin to start from: its definition, its tests and its icon
#[derive(Debug, Args)]
pub(super) struct New {
    /// Its name, such as LakeDataOutput; asked for when it is left out
    name: Option<String>,
    /// A field, as NAME or NAME:KIND, with a `!` at the end when it is required; may be repeated
    #[arg(long = "field", value_name = "FIELD")]
    fields: Vec<String>,
    /// The folder in which to put it; the first plugin path when it is left out
    #[arg(long = "in", value_name = "FOLDER")]
    folder: Option<PathBuf>,
}

/// One field of the new plugin.
#[derive(Debug, PartialEq)]
struct NewField {
    name: FieldName,
    kind: &'static str,
    required: bool,
}

impl New {
    pub(super) fn run(self, settings: &Settings) -> anyhow::Result<ExitCode> {
        let asks = self.name.is_none();
        let name = match self.name {
            Some(name) => name,
            None => ask("Its name, such as LakeDataOutput")?,
        };
        let name = PluginName::parse(name.trim()).map_err(|error| {
            anyhow::anyhow!(
                "{name:?} is no name for a plugin: expected {}",
                error.expected
            )
        })?;
        let mut fields = self.fields;
        if asks && fields.is_empty() {
            say(format_args!(
                "Its fields, one a line, as in `folder!` (required), `days:integer`; kinds are {}. An empty line ends them.",
                FIELD_KINDS.join(", ")
            ));
            loop {
                let field = ask("A field")?;
                if field.trim().is_empty() {
                    break;
                }
                match parse_field(&field) {
                    Ok(_) => fields.push(field),
                    Err(error) => say(format_args!("  {error}")),
                }
            }
        }
        if fields.is_empty() {
            fields.push("path!".to_owned());
        }
        let fields: Vec<NewField> = fields
            .iter()
            .map(|field| parse_field(field))
            .collect::<Result<_, _>>()?;
        if let Some(twice) = fields.iter().enumerate().find(|(place, field)| {
            fields[..*place]
                .iter()
                .any(|other| other.name == field.name)
        }) {
            bail!("the field \"{}\" is there twice", twice.1.name);
        }
        let parent = self
            .folder
            .or_else(|| settings.plugin_paths.first().cloned())
            .unwrap_or_else(|| PathBuf::from("lua-plugins"));
        let platform = PlatformMetadata::from_name(&name);
        let key = platform.platform_key.as_str();
        let folder = parent.join(key);
        if folder.exists() || parent.join(format!("{key}.lua")).exists() {
            bail!(
                "there is a plugin in {} already; choose another name, or another folder with --in",
                folder.display()
            );
        }
        write(&folder, "plugin.lua", &plugin_text(&name, &fields))?;
        write(&folder, &format!("{key}_spec.lua"), &spec_text(&fields))?;
        write(
            &folder,
            &platform.icon_name,
            &icon_text(&platform.display_name),
        )?;
        say(format_args!(
            "{} is there. A server that watches {} has it already.",
            folder.display(),
            parent.display()
        ));
        say(format_args!(
            "  patchbay plugin check          whether it is right"
        ));
        say(format_args!(
            "  patchbay plugin test {}        its tests",
            folder.display()
        ));
        Ok(ExitCode::SUCCESS)
    }
}

/// Asks on the terminal.
fn ask(question: &str) -> anyhow::Result<String> {
    let input = std::io::stdin();
    if !input.is_terminal() {
        bail!(
            "expected the plugin's name, found no terminal to ask on; say `patchbay plugin new NAME`"
        );
    }
    let mut output = std::io::stdout();
    let _ = write!(output, "{question}: ");
    let _ = output.flush();
    let mut line = String::new();
    input.lock().read_line(&mut line)?;
    Ok(line.trim_end().to_owned())
}

fn parse_field(text: &str) -> anyhow::Result<NewField> {
    let text = text.trim();
    let (text, required) = match text.strip_suffix('!') {
        Some(rest) => (rest, true),
        None => (text, false),
    };
    let (name, kind) = text.split_once(':').unwrap_or((text, "string"));
    let kind = FIELD_KINDS
        .iter()
        .find(|known| **known == kind)
        .with_context(|| {
            format!(
                "{kind:?} is no kind of field; expected one of {}",
                FIELD_KINDS.join(", ")
            )
        })?;
    let name = FieldName::parse(name).map_err(|error| {
        anyhow::anyhow!(
            "{name:?} is no name for a field: expected {}",
            error.expected
        )
    })?;
    Ok(NewField {
        name,
        kind,
        required,
    })
}

fn write(folder: &Path, file: &str, text: &str) -> anyhow::Result<()> {
    let path = folder.join(file);
    std::fs::create_dir_all(folder)
        .and_then(|()| std::fs::write(&path, text))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// `access_granularity` is "Access granularity".
fn label(name: &FieldName) -> String {
    let words = name.as_str().replace('_', " ");
    let mut letters = words.chars();
    match letters.next() {
        Some(first) => first.to_uppercase().chain(letters).collect(),
        None => String::new(),
    }
}

/// A value that a field of the kind takes, in Lua.
fn sample(kind: &str) -> &'static str {
    match kind {
        "integer" => "1",
        "number" => "1.5",
        "boolean" => "true",
        "list" => "{ \"one\" }",
        "json" => "{ key = \"value\" }",
        "enum" => "\"one\"",
        _ => "\"example\"",
    }
}

fn plugin_text(name: &PluginName, fields: &[NewField]) -> String {
    let mut lines = String::new();
    let mut examples = Vec::new();
    for field in fields {
        let mut options = Vec::new();
        match field.kind {
            "enum" => options.push("values = { \"one\", \"two\" }".to_owned()),
            "list" => options.push("of = \"string\"".to_owned()),
            _ => {}
        }
        if field.required {
            options.push("required = true".to_owned());
        }
        options.push(format!("label = \"{}\"", label(&field.name)));
        options.push("description = \"What it is for\"".to_owned());
        let _ = writeln!(
            lines,
            "        field.{} \"{}\" {{ {} }},",
            field.kind,
            field.name,
            options.join(", ")
        );
        examples.push(format!("{} = {}", field.name, sample(field.kind)));
    }
    format!(
        r#"local field = patchbay.field

return patchbay.plugin {{
    name = "{name}",
    version = "0.1.0",
    api = 1,

    -- What a configuration consists of. The form and the table are made from it.
    fields = {{
{lines}    }},
    examples = {{
        {{ {} }},
    }},
}}
"#,
        examples.join(", ")
    )
}

fn spec_text(fields: &[NewField]) -> String {
    let example: Vec<String> = fields
        .iter()
        .map(|field| format!("{} = {}", field.name, sample(field.kind)))
        .collect();
    let example = example.join(", ");
    let required: String = fields
        .iter()
        .filter(|field| field.required)
        .map(|field| {
            format!(
                "            {{ field = \"{}\", message = \"Field required\" }},\n",
                field.name
            )
        })
        .collect();
    let demands = match required.as_str() {
        "" => String::new(),
        list => format!(
            r#"
    it("needs what is required", function()
        expect(plugin:validate {{}}):to_equal {{
{list}        }}
    end)
"#
        ),
    };
    format!(
        r#"local plugin = patchbay.test.plugin()

describe("what is stored", function()
    it("is what was sent", function()
        expect(plugin:normalize {{ {example} }}):to_contain {{ {example} }}
    end)
{demands}end)
"#
    )
}

fn icon_text(display_name: &str) -> String {
    let letter: String = display_name
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .take(1)
        .collect();
    format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32" role="img">
  <rect width="32" height="32" rx="6" fill="#3b5b7a"/>
  <text x="16" y="22" text-anchor="middle" font-family="sans-serif" font-size="18" fill="#ffffff">{letter}</text>
</svg>
"##
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_a_name_a_kind_and_whether_it_is_required() {
        let field = |text| parse_field(text).expect("a field");
        assert_eq!(field("folder").kind, "string");
        assert!(field("folder!").required);
        assert_eq!(field("days:integer").kind, "integer");
        assert!(field("days:integer!").required);
        for wrong in ["", "Folder", "days:int", "id", "a b"] {
            assert!(parse_field(wrong).is_err(), "{wrong:?}");
        }
    }
}
