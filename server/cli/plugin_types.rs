//! `patchbay plugin types`: editor types for plugins and their specs.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;

use super::say;

/// Where the types go.
#[derive(Debug, Args)]
pub(super) struct Types {
    /// The file to write, such as lua-plugins/types/patchbay.d.luau, instead of printing
    #[arg(long, value_name = "PATH")]
    write: Option<PathBuf>,
}

impl Types {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let types = patchbay_lua::types();
        let Some(path) = self.write else {
            say(format_args!("{}", types.trim_end()));
            return Ok(ExitCode::SUCCESS);
        };
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        }
        std::fs::write(&path, types).with_context(|| path.display().to_string())?;
        Ok(ExitCode::SUCCESS)
    }
}
