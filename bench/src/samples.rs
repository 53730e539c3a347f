//! Generated plugins, each in a file of its own: a few fields, a form with options, a rule.

use std::path::Path;

use anyhow::Result;

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
