//! `patchbay plugin new`: a plugin to start from, that already passes.

use std::fmt::{Arguments, Write as _};
use std::io::{BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;
use patchbay_plugin::field::FIELD_KINDS;
use patchbay_plugin::name::{FieldName, PluginName};
use patchbay_plugin::platform::PlatformMetadata;

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
        let input = std::io::stdin();
        let is_terminal = input.is_terminal();
        let mut dialogue = Dialogue {
            input: &mut input.lock(),
            output: &mut std::io::stdout(),
            is_terminal,
        };
        self.write(&settings.plugin_paths, &mut dialogue)
    }

    fn write(
        self,
        plugin_paths: &[PathBuf],
        dialogue: &mut Dialogue<'_>,
    ) -> anyhow::Result<ExitCode> {
        let asks = self.name.is_none();
        let parent = self
            .folder
            .or_else(|| plugin_paths.first().cloned())
            .unwrap_or_else(|| PathBuf::from("lua-plugins"));
        let name = match self.name {
            Some(name) => free_name(&name, &parent)?,
            None => dialogue.until_good("Its name, such as LakeDataOutput", |answer| {
                free_name(answer, &parent)
            })?,
        };
        let mut fields = Vec::new();
        for field in &self.fields {
            let field = another_field(field, &fields)?;
            fields.push(field);
        }
        if asks && fields.is_empty() {
            dialogue.say(format_args!(
                "Its fields, one a line, as in `folder!` (required), `days:integer`; kinds are {}. An empty line ends them.",
                FIELD_KINDS.join(", ")
            ));
            while let Some(field) = dialogue.until_good("A field", |answer| match answer {
                "" => Ok(None),
                field => another_field(field, &fields).map(Some),
            })? {
                fields.push(field);
            }
        }
        if fields.is_empty() {
            fields.push(parse_field("path!")?);
        }
        let platform = PlatformMetadata::from_name(&name);
        let key = platform.platform_key.as_str();
        let folder = parent.join(key);
        write(&folder, "plugin.lua", &plugin_text(&name, &fields))?;
        write(&folder, &format!("{key}_spec.lua"), &spec_text(&fields))?;
        write(
            &folder,
            &platform.icon_name,
            &icon_text(&platform.display_name),
        )?;
        let is_watched = plugin_paths.iter().any(|path| {
            path.canonicalize()
                .is_ok_and(|path| parent.canonicalize().is_ok_and(|parent| parent == path))
        });
        dialogue.say(format_args!(
            "{} is there. {}",
            folder.display(),
            match is_watched {
                true => format!("A server that watches {} has it already.", parent.display()),
                false => format!(
                    "{} is no plugin path, so no server has it yet.",
                    parent.display()
                ),
            }
        ));
        let path = for_a_shell(&folder);
        for (verb, what) in [
            ("check", "whether it is right"),
            ("test", "its tests"),
            ("dev", "serves it while you write"),
        ] {
            dialogue.say(format_args!("  patchbay plugin {verb} {path}  # {what}"));
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Who is asked, and answers.
struct Dialogue<'a> {
    input: &'a mut dyn BufRead,
    output: &'a mut dyn Write,
    is_terminal: bool,
}

impl Dialogue<'_> {
    fn say(&mut self, line: Arguments<'_>) {
        // A closed pipe is no error, as everywhere.
        let _ = writeln!(self.output, "{line}");
    }

    /// Asks until the answer is one. What is wrong with one that is none is said.
    fn until_good<T>(
        &mut self,
        question: &str,
        read: impl Fn(&str) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        if !self.is_terminal {
            bail!(
                "expected the plugin's name, found no terminal to ask on; say `patchbay plugin new NAME`"
            );
        }
        loop {
            let _ = write!(self.output, "{question}: ");
            let _ = self.output.flush();
            let mut line = String::new();
            if self.input.read_line(&mut line)? == 0 {
                bail!("expected an answer, found the end of the input; nothing was written");
            }
            match read(line.trim()) {
                Ok(answer) => return Ok(answer),
                Err(error) => self.say(format_args!("  {error}")),
            }
        }
    }
}

/// A name that is one, and whose folder is not there yet.
fn free_name(text: &str, parent: &Path) -> anyhow::Result<PluginName> {
    let name = PluginName::parse(text.trim()).map_err(|error| {
        anyhow::anyhow!(
            "{text:?} is no name for a plugin: expected {}",
            error.expected
        )
    })?;
    let key = PlatformMetadata::from_name(&name).platform_key;
    let folder = parent.join(key.as_str());
    if ["lib", "examples", "types"].contains(&key.as_str()) {
        bail!("a plugin in a folder {key:?} is not looked for; choose another name");
    }
    if folder.exists() || parent.join(format!("{key}.lua")).exists() {
        bail!(
            "there is a plugin in {} already; choose another name, or another folder with --in",
            folder.display()
        );
    }
    Ok(name)
}

fn another_field(text: &str, fields: &[NewField]) -> anyhow::Result<NewField> {
    let field = parse_field(text)?;
    if fields.iter().any(|other| other.name == field.name) {
        bail!("the field \"{}\" is there twice", field.name);
    }
    Ok(field)
}

/// A path as a shell takes it for one word.
fn for_a_shell(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = |letter: char| letter.is_alphanumeric() || "/._-".contains(letter);
    match text.chars().all(is_plain) {
        true => text,
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
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

    /// What `plugin new` says to who answers so, and how it ends.
    fn asked(folder: &Path, new: New, answers: &str) -> (String, anyhow::Result<ExitCode>) {
        let plugin_paths = [folder.join("lua-plugins")];
        let mut said = Vec::new();
        let mut dialogue = Dialogue {
            input: &mut answers.as_bytes(),
            output: &mut said,
            is_terminal: true,
        };
        let end = new.write(&plugin_paths, &mut dialogue);
        (String::from_utf8(said).expect("text"), end)
    }

    fn nothing_said() -> New {
        New {
            name: None,
            fields: Vec::new(),
            folder: None,
        }
    }

    #[test]
    fn all_that_is_answered_is_in_the_plugin() {
        let folder = tempfile::tempdir().expect("a folder");
        let answers = "LakeDataOutput\n folder! \nformat:enum\ndays:integer\nshare:number!\nopen:boolean\ntags:list\nmore:json\n\n";
        let (said, end) = asked(folder.path(), nothing_said(), answers);
        end.expect("it is written");
        assert!(
            said.starts_with("Its name, such as LakeDataOutput: Its fields, one a line"),
            "{said}"
        );
        assert_eq!(said.matches("A field: ").count(), 8, "{said}");
        let text = |file| {
            std::fs::read_to_string(folder.path().join("lua-plugins/lake").join(file)).expect(file)
        };
        let plugin = text("plugin.lua");
        for line in [
            r#"    name = "LakeDataOutput","#,
            r#"        field.string "folder" { required = true, label = "Folder", description = "What it is for" },"#,
            r#"        field.enum "format" { values = { "one", "two" }, label = "Format", description = "What it is for" },"#,
            r#"        field.integer "days" { label = "Days", description = "What it is for" },"#,
            r#"        field.number "share" { required = true, label = "Share", description = "What it is for" },"#,
            r#"        field.boolean "open" { label = "Open", description = "What it is for" },"#,
            r#"        field.list "tags" { of = "string", label = "Tags", description = "What it is for" },"#,
            r#"        field.json "more" { label = "More", description = "What it is for" },"#,
        ] {
            assert!(
                plugin.lines().any(|found| found == line),
                "{line}\n{plugin}"
            );
        }
        assert!(text("lake_spec.lua").contains("needs what is required"));
        assert!(text("lake-logo.svg").contains("<svg"));
        assert!(said.contains("A server that watches"), "{said}");
    }

    #[test]
    fn enter_takes_what_is_proposed() {
        let folder = tempfile::tempdir().expect("a folder");
        let (_, end) = asked(folder.path(), nothing_said(), "LakeDataOutput\n\n");
        end.expect("it is written");
        let plugin = std::fs::read_to_string(folder.path().join("lua-plugins/lake/plugin.lua"))
            .expect("a plugin");
        assert!(
            plugin.contains(r#"field.string "path" { required = true"#),
            "{plugin}"
        );
        assert_eq!(plugin.matches("\n        field.").count(), 1, "{plugin}");
    }

    #[test]
    fn a_bad_answer_is_asked_again() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir_all(folder.path().join("lua-plugins/taken")).expect("a folder");
        let answers = "\nnot a name\nTakenDataOutput\nLibDataOutput\nLakeDataOutput\nfolder:text\nFolder\nfolder\nfolder!\n\n";
        let (said, end) = asked(folder.path(), nothing_said(), answers);
        end.expect("it is written");
        for complaint in [
            "\"\" is no name for a plugin: expected",
            "\"not a name\" is no name for a plugin: expected",
            "lua-plugins/taken already; choose another name",
            "a plugin in a folder \"lib\" is not looked for",
            "\"text\" is no kind of field; expected one of string",
            "\"Folder\" is no name for a field",
            "the field \"folder\" is there twice",
        ] {
            assert!(said.contains(complaint), "{complaint}: {said}");
        }
        assert_eq!(said.matches("Its name, such as").count(), 5, "{said}");
        let plugin = std::fs::read_to_string(folder.path().join("lua-plugins/lake/plugin.lua"))
            .expect("a plugin");
        assert!(
            plugin.contains(r#"field.string "folder" { label"#),
            "{plugin}"
        );
    }

    #[test]
    fn an_end_of_the_answers_writes_nothing() {
        for answers in [
            "",
            "not a name\n",
            "LakeDataOutput\n",
            "LakeDataOutput\nfolder\n",
        ] {
            let folder = tempfile::tempdir().expect("a folder");
            let (_, end) = asked(folder.path(), nothing_said(), answers);
            let error = end.expect_err("it ends").to_string();
            assert!(
                error.contains("found the end of the input; nothing was written"),
                "{error}"
            );
            assert!(!folder.path().join("lua-plugins").exists(), "{answers:?}");
        }
    }

    #[test]
    fn what_a_flag_says_is_not_asked() {
        let folder = tempfile::tempdir().expect("a folder");
        let named = |name: &str| New {
            name: Some(name.to_owned()),
            folder: Some(folder.path().join("my plugins")),
            ..nothing_said()
        };
        let (said, end) = asked(folder.path(), named("LakeDataOutput"), "");
        end.expect("it is written");
        assert!(
            !said.contains("Its name") && !said.contains("A field"),
            "{said}"
        );
        assert!(
            said.contains("is no plugin path, so no server has it yet"),
            "{said}"
        );
        let path = folder.path().join("my plugins/lake").display().to_string();
        for verb in ["check", "test", "dev"] {
            assert!(
                said.contains(&format!("patchbay plugin {verb} '{path}'")),
                "{said}"
            );
        }
        let (said, end) = asked(
            folder.path(),
            New {
                fields: vec!["depth:integer".to_owned()],
                ..nothing_said()
            },
            "ReefDataOutput\n",
        );
        end.expect("it is written");
        assert!(!said.contains("A field"), "{said}");
    }

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
