//! `lua-format [--check] PATH…`: formats every `.lua` and `.luau` file under the paths, in the one style of this project.
//!
//! With `--check` nothing is written; the files that differ are printed, and the exit code is 1 when there is one. A
//! small program over the StyLua library, so that the format check needs nothing beyond Cargo.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "it talks to a terminal, and has no log"
)]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use stylua_lib::{
    CallParenType, CollapseSimpleStatement, Config, IndentType, LuaVersion, OutputVerification,
    QuoteStyle,
};

const USAGE: &str = "usage: lua-format [--check] PATH…";

fn main() -> ExitCode {
    let mut check = false;
    let mut paths = Vec::new();
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--check" => check = true,
            "--help" | "-h" => {
                println!("{USAGE}");
                return ExitCode::SUCCESS;
            }
            path => paths.push(PathBuf::from(path)),
        }
    }
    if paths.is_empty() {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    }
    match run(&paths, check) {
        Ok(differing) if check && differing > 0 => {
            eprintln!("{differing} Lua files are not formatted; run this without --check");
            ExitCode::FAILURE
        }
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::from(2)
        }
    }
}

/// Formats, or only compares, every file under `paths`. Gives how many differ from their formatted text.
fn run(paths: &[PathBuf], check: bool) -> Result<usize> {
    let mut files = Vec::new();
    for path in paths {
        collect(path, &mut files)?;
    }
    files.sort();
    files.dedup();
    let mut differing = 0;
    for file in &files {
        let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
        let formatted = format(&text).with_context(|| file.display().to_string())?;
        if formatted == text {
            continue;
        }
        differing += 1;
        println!("{}", file.display());
        if !check {
            std::fs::write(file, formatted).with_context(|| file.display().to_string())?;
        }
    }
    Ok(differing)
}

fn format(text: &str) -> Result<String> {
    let mut config = Config::new();
    config.syntax = LuaVersion::Luau;
    config.column_width = 120;
    config.indent_type = IndentType::Spaces;
    config.indent_width = 4;
    config.quote_style = QuoteStyle::AutoPreferDouble;
    // `field.string "name" { … }` reads like a form only without parentheses, and `f("x")` elsewhere may keep them.
    config.call_parentheses = CallParenType::Input;
    config.collapse_simple_statement = CollapseSimpleStatement::Never;
    Ok(stylua_lib::format_code(
        text,
        config,
        None,
        OutputVerification::Full,
    )?)
}

/// Adds the Lua files at or under `path`. A path that was named itself is taken whatever its ending.
fn collect(path: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    if !path.is_dir() {
        files.push(path.to_owned());
        return Ok(());
    }
    for entry in std::fs::read_dir(path).with_context(|| path.display().to_string())? {
        let path = entry?.path();
        // Definition files are no Luau that the formatter reads, and the program writes ours.
        let is_lua = !path.to_string_lossy().ends_with(".d.luau")
            && path
                .extension()
                .is_some_and(|ending| ending == "lua" || ending == "luau");
        if path.is_dir() || is_lua {
            collect(&path, files)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::format;

    #[test]
    fn the_form_on_paper_keeps_its_shape() {
        let text = r#"local field = patchbay.field

return patchbay.plugin {
    name = "Example",
    fields = {
        field.string "database" { required = true },
        field.string "note",
    },
    url = function()
        return nil, patchbay.not_found "nothing"
    end,
}
"#;
        assert_eq!(format(text).expect("it is Lua"), text);
    }

    #[test]
    fn crooked_text_is_straightened_and_broken_text_refused() {
        assert_eq!(
            format("local   x='a'\nreturn {x ,  'b'}").expect("it is Lua"),
            "local x = \"a\"\nreturn { x, \"b\" }\n"
        );
        assert!(format("return {").is_err());
    }
}
