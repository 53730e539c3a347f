//! Generated plugins, each in a file or a package of its own: a few fields, a form with options, a rule.

use std::fmt::Write;
use std::path::Path;

use anyhow::{Result, ensure};
use sha2::{Digest, Sha256};

use crate::server::Program;

/// Writes so many plugins into a folder.
///
/// # Errors
/// When a file cannot be written.
pub(crate) fn write(folder: &Path, count: usize) -> Result<()> {
    std::fs::create_dir_all(folder)?;
    for number in 0..count {
        std::fs::write(folder.join(file_name(number)), text(number, "Name"))?;
    }
    Ok(())
}

/// Installs so many plugins into a folder of packages, each in a package of its own, as `patchbay plugin install` would, one
/// after the other, in a thousand times the time. The program itself says whether they are installed.
///
/// # Errors
/// When a file cannot be written, or the program finds a package to be another than the lock says.
pub(crate) fn install(program: &Program, folder: &Path, count: usize) -> Result<()> {
    let packages = folder.join("data/packages");
    std::fs::create_dir_all(&packages)?;
    let mut lock = String::from("format = 1\n");
    for number in 0..count {
        let name = format!("sample-{number:04}");
        let text = text(number, "Name");
        let file = hex(&Sha256::digest(text.as_bytes()));
        let pin = format!("patchbay package 1\n{name}\n1.0.0\n{file}  plugin.lua\n");
        let pin = hex(&Sha256::digest(pin.as_bytes()));
        let release = packages.join(&name).join(format!("1.0.0-{}", &pin[..12]));
        std::fs::create_dir_all(&release)?;
        std::fs::write(release.join("plugin.lua"), &text)?;
        std::fs::write(
            release.join("patchbay-package.toml"),
            format!(
                "format = 1\nname = \"{name}\"\nversion = \"1.0.0\"\napi = 1\n\n[files]\n\"plugin.lua\" = \"{file}\"\n"
            ),
        )?;
        write!(
            lock,
            r#"
[[package]]
name = "{name}"
enabled = true

[package.release]
version = "1.0.0"
sha256 = "{pin}"
source = "generated"
installed_at = "2026-01-01T00:00:00Z"

[[package.release.plugins]]
name = "Sample{number:04}DataOutput"
version = "1.0.0"
path = ""
table = "sample{number:04}_data_output_configurations"
platform_key = "sample{number:04}"
"#
        )?;
    }
    std::fs::write(packages.join("plugins.lock"), lock)?;
    let (good, said) = program.run(folder, &["plugin", "verify"], &[])?;
    let counted = said
        .lines()
        .filter(|line| line.starts_with("good "))
        .count();
    ensure!(
        good && counted == count,
        "{counted} of {count} packages are installed:\n{said}"
    );
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The file of a plugin.
pub(crate) fn file_name(number: usize) -> String {
    format!("sample_{number:04}.lua")
}

/// The path of a plugin's form.
pub(crate) fn form_path(number: usize) -> String {
    format!("/api/v2/plugins/Sample{number:04}DataOutput/form")
}

/// A plugin whose form begins with an element of this label.
pub(crate) fn text(number: usize, label: &str) -> String {
    format!(
        r#"local field, ui = patchbay.field, patchbay.ui

return patchbay.plugin {{
    name = "Sample{number:04}DataOutput",
    version = "1.0.0",

    fields = {{
        field.string "name" {{ required = true }},
        field.string "folder" {{ default = "" }},
        field.enum "access_granularity" {{ values = {{ "all", "one" }}, required = true }},
        field.integer "days" {{ default = 30, min = 1, max = 365 }},
    }},

    ui_metadata = function(db)
        local options = {{}}
        for _, environment in db:environments() do
            table.insert(options, {{ label = environment.name, value = environment.acronym }})
        end
        return {{
            ui.string "name" {{ label = "{label}", required = true }},
            ui.select "folder" {{ label = "Folder", options = options }},
            ui.radio "access_granularity" {{
                label = "Access granularity",
                required = true,
                initial_value = "all",
                options = {{ {{ label = "All", value = "all" }}, {{ label = "One", value = "one" }} }},
            }},
            ui.string "days" {{ label = "Days", initial_value = "30", depends_on = {{ access_granularity = "one" }} }},
        }}
    end,

    validate = function(configuration)
        if configuration.name:sub(1, 1) == "_" then
            return {{ {{ field = "name", message = "A name cannot begin with `_`" }} }}
        end
        return {{}}
    end,
}}
"#
    )
}
