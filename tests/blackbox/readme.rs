//! The README, the guide for writing plugins and the README of the example, executed.
//!
//! Four kinds of code blocks are run, in the order of the text, each text on one server in a folder that holds what the
//! repository's `lua-plugins` holds:
//!
//! - ` ```lua file=lua-plugins/bigquery.lua `: the file is written;
//! - ` ```sh test `: the commands are run by a shell in that folder, with the server's address in the place of
//!   `http://127.0.0.1:8080`, and `patchbay` is the program; variables that one block sets are there in the next;
//! - ` ```json expect `: what the last commands printed has to be JSON that contains this: objects by key, lists in full;
//! - ` ```text expect `: each of these lines has to be a line of what the last commands printed, in this order; `…` stands
//!   for anything, but cuts no word or number in two.
//!
//! Every block of commands is followed by what it prints, and what nearly anything would meet is refused as an expectation.
//! The commands that stand in sentences are the business of [`crate::readme_words`].
//!
//! A change of a file is live within milliseconds, so commands are run again until the answer is as expected.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::harness::{Folder, Server, eventually};
use crate::world::contains;

const ADDRESS: &str = "http://127.0.0.1:8080";

#[derive(Debug, PartialEq)]
enum Step {
    Write {
        file: String,
        text: String,
    },
    Run {
        commands: String,
        expected: Option<Expected>,
    },
}

/// What commands should print.
#[derive(Debug, PartialEq)]
enum Expected {
    Json(Value),
    Lines(Vec<String>),
}

impl Expected {
    fn is_met(&self, printed: &str) -> bool {
        match self {
            Expected::Json(value) => {
                let found = serde_json::from_str::<Value>(printed).unwrap_or_default();
                contains(&found, value)
            }
            Expected::Lines(lines) => {
                let mut printed = printed.lines();
                lines
                    .iter()
                    .all(|wanted| printed.any(|line| is_line(line, wanted)))
            }
        }
    }
}

/// Whether a line is as wanted, `…` standing for anything that begins and ends where a word does.
fn is_line(line: &str, wanted: &str) -> bool {
    let line = line.trim();
    let parts: Vec<&str> = wanted.split('…').map(str::trim).collect();
    let last = parts.len() - 1;
    let mut from = 0;
    for (place, part) in parts
        .iter()
        .enumerate()
        .filter(|(_, part)| !part.is_empty())
    {
        let found = line[from..].match_indices(part).map(|(at, _)| {
            let start = from + at;
            (start, start + part.len())
        });
        let fits = |(start, end): &(usize, usize)| {
            let begins = match place {
                0 => *start == 0,
                _ => !is_inside_a_word(line, *start),
            };
            let ends = match place == last {
                true => *end == line.len(),
                false => !is_inside_a_word(line, *end),
            };
            begins && ends
        };
        let Some((_, end)) = found.into_iter().find(fits) else {
            return false;
        };
        from = end;
    }
    true
}

fn is_inside_a_word(line: &str, at: usize) -> bool {
    let (before, after) = line.split_at(at);
    let is_letter = |letter: Option<char>| letter.is_some_and(char::is_alphanumeric);
    is_letter(before.chars().next_back()) && is_letter(after.chars().next())
}

/// Panics when nearly anything would be as expected.
fn can_fail(expected: Expected) -> Expected {
    match &expected {
        Expected::Json(value) => assert!(holds_a_value(value), "any answer would do: {value}"),
        Expected::Lines(lines) => {
            assert!(!lines.is_empty(), "nothing is expected");
            for line in lines {
                // A line of two short words, or a single long one between two `…`, is met by chance.
                let letters = line
                    .chars()
                    .filter(|letter| letter.is_alphanumeric())
                    .count();
                let is_open = line.trim().starts_with('…') && line.trim().ends_with('…');
                let least = if is_open { 12 } else { 3 };
                assert!(letters >= least, "nearly any line would do: {line:?}");
            }
        }
    }
    expected
}

fn holds_a_value(value: &Value) -> bool {
    match value {
        Value::Object(entries) => entries.values().any(holds_a_value),
        Value::Array(items) => items.iter().any(holds_a_value),
        _ => true,
    }
}

/// The executable blocks of a Markdown text.
fn steps(markdown: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut lines = markdown.lines();
    while let Some(line) = lines.next() {
        let Some(info) = line.trim_start().strip_prefix("```") else {
            continue;
        };
        let indent = line.len() - line.trim_start().len();
        let mut text = String::new();
        for line in lines
            .by_ref()
            .take_while(|line| !line.trim_start().starts_with("```"))
        {
            text.push_str(line.get(indent..).unwrap_or_default());
            text.push('\n');
        }
        let words: Vec<&str> = info.split_whitespace().collect();
        match words[..] {
            [_, word] if word.starts_with("file=") => {
                steps.push(Step::Write {
                    file: word["file=".len()..].to_owned(),
                    text,
                });
            }
            ["sh", "test"] => steps.push(Step::Run {
                commands: text,
                expected: None,
            }),
            [kind @ ("json" | "text"), "expect"] => {
                let value = match kind {
                    "json" => Expected::Json(serde_json::from_str(&text).unwrap_or_else(|error| {
                        panic!("what is expected is no JSON: {error}: {text}")
                    })),
                    _ => Expected::Lines(text.lines().map(str::to_owned).collect()),
                };
                match steps.last_mut() {
                    Some(Step::Run {
                        expected: expected @ None,
                        ..
                    }) => *expected = Some(can_fail(value)),
                    _ => panic!("nothing was run before this was expected: {text}"),
                }
            }
            _ => {}
        }
    }
    steps
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("a copy");
        }
    }
}

/// Runs commands by a shell, and gives what they printed.
fn shell(server: &Server, commands: &str) -> Result<String, String> {
    // What one block sets is exported and kept for the next. The first command that fails ends it.
    let script = format!(
        "set -ae\nPATH={}:$PATH\n[ ! -f .variables ] || . ./.variables\n{}\nexport -p > .variables\n",
        Path::new(env!("CARGO_BIN_EXE_patchbay"))
            .parent()
            .expect("the program's folder")
            .display(),
        commands.replace(ADDRESS, &format!("http://{}", server.address))
    );
    let output = Command::new("sh")
        .args(["-c", &script])
        .current_dir(server.folder.path(""))
        .output()
        .expect("a shell");
    let (stdout, stderr) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    match output.status.success() {
        true => Ok(stdout.into_owned()),
        false => Err(format!("{}\n{stdout}\n{stderr}", output.status)),
    }
}

#[tokio::test]
async fn what_the_readme_says_is_so() {
    what_it_says_is_so("README.md").await;
}

#[tokio::test]
async fn what_the_guide_says_is_so() {
    what_it_says_is_so("lua-plugins/README.md").await;
}

#[tokio::test]
async fn what_the_readme_of_the_example_says_is_so() {
    what_it_says_is_so("lua-plugins/examples/s3/README.md").await;
}

async fn what_it_says_is_so(text: &str) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let steps = steps(&std::fs::read_to_string(root.join(text)).expect("the text"));
    let files = steps
        .iter()
        .filter(|step| matches!(step, Step::Write { .. }))
        .count();
    assert!(files > 0, "it writes a file: {steps:#?}");
    for step in &steps {
        if let Step::Run { commands, expected } = step {
            assert!(expected.is_some(), "what does this print? {commands}");
        }
    }
    let server = Server::start(|_| {});
    copy_folder(
        &root.join("lua-plugins"),
        &server.folder.path("lua-plugins"),
    );
    for step in steps {
        match step {
            Step::Write { file, text } => server.folder.write(&file, text),
            Step::Run { commands, expected } => {
                let mut first = None;
                eventually(&commands, async || {
                    // A request of this task's own keeps the wait to what the server does.
                    server.get("/healthz").await.is(200);
                    let printed = shell(&server, &commands)?;
                    let Some(expected) = &expected else {
                        return Ok(());
                    };
                    if expected.is_met(&printed) {
                        return Ok(());
                    }
                    let first = first.get_or_insert_with(|| printed.clone());
                    Err(format!(
                        "expected {expected:#?}, first found {first}, now {printed}"
                    ))
                })
                .await;
            }
        }
    }
}

#[test]
fn blocks_are_found_by_their_words() {
    let markdown = "text\n```lua file=a/b.lua\nreturn 1\n```\n```sh\nnot run\n```\n- item\n  ```sh test\n  curl x\n  ```\n\n\
                    ```json expect\n{\"a\": [1]}\n```\n```sh test\nls\n```\n```text expect\nabc…d\n```\n";
    assert_eq!(
        steps(markdown),
        [
            Step::Write {
                file: "a/b.lua".into(),
                text: "return 1\n".into()
            },
            Step::Run {
                commands: "curl x\n".into(),
                expected: Some(Expected::Json(serde_json::json!({ "a": [1] })))
            },
            Step::Run {
                commands: "ls\n".into(),
                expected: Some(Expected::Lines(vec!["abc…d".into()]))
            },
        ]
    );
}

#[test]
fn a_line_is_as_expected_or_it_is_not() {
    for (line, wanted) in [
        ("  1 plugin checked, 0 failed", "1 plugin checked, 0 failed"),
        ("good    springs 1.0.0: 2 files", "good    springs 1.0.0…"),
        ("x: aa ab", "x…ab"),
        ("aa ab", "…ab"),
    ] {
        assert!(is_line(line, wanted), "{line} {wanted}");
    }
    for (line, wanted) in [
        ("10 failed", "…0 failed"),
        ("1 plugin checked, 0 failed", "1 plugin checked"),
        ("springs 1.0.01", "springs 1.0.0…"),
        ("b a", "…a…b…"),
    ] {
        assert!(!is_line(line, wanted), "{line} {wanted}");
    }
}

#[test]
fn what_cannot_fail_is_refused() {
    for lines in [&["…"][..], &[], &["-->"], &["good line", ""], &["…Lake…"]] {
        let lines = lines.iter().map(|line| (*line).to_owned()).collect();
        let refused = std::panic::catch_unwind(|| can_fail(Expected::Lines(lines)));
        refused.expect_err("it is refused");
    }
    for value in [serde_json::json!({}), serde_json::json!({ "a": [{}] })] {
        let refused = std::panic::catch_unwind(|| can_fail(Expected::Json(value)));
        refused.expect_err("it is refused");
    }
}

#[tokio::test]
async fn a_shipped_plugin_is_edited_and_its_form_changes() {
    let folder = Folder::new();
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("lua-plugins");
    copy_folder(&shipped, &folder.path("lua-plugins"));
    let server = Server::start_in(folder, |_| {});
    let form = "plugins/SnowflakeDataOutput/form";
    let before = server.get(form).await.is(200).json();
    assert_eq!(before["ui_metadata"][0]["label"], "Database");
    assert_eq!(before["state"], "active");
    let others = [
        "DatabricksDataOutput",
        "GlueDataOutput",
        "RedshiftDataOutput",
    ];
    // What the README says word for word: it says so in the paragraph that begins with these words.
    let readme = include_str!("../../README.md");
    let told = readme
        .split("Then change something while it runs: in `")
        .nth(1)
        .expect("the paragraph");
    let (file, rest) = told.split_once('`').expect("a file");
    let (_, rest) = rest.split_once('`').expect("a label");
    let (label, _) = rest.split_once('`').expect("a label");
    let text = server.folder.read(file);
    assert_eq!(text.matches(label).count(), 1, "{label} in {file}");
    server
        .folder
        .write(file, text.replace(label, "label = \"Where it goes\""));
    let after = server
        .until(form, 200, |form| {
            form["ui_metadata"][0]["label"] == "Where it goes"
        })
        .await;
    assert_eq!(after["state"], "active");
    // Nothing else of it has changed, and no other plugin.
    let mut wanted = before.clone();
    wanted["ui_metadata"][0]["label"] = after["ui_metadata"][0]["label"].clone();
    wanted["generation"] = after["generation"].clone();
    assert_eq!(after, wanted);
    for other in others {
        let form = server
            .get(&format!("plugins/{other}/form"))
            .await
            .is(200)
            .json();
        assert_eq!(form["state"], "active", "{other}");
    }
    // The modules that plugins share are live in the same way.
    let family = "lua-plugins/lib/table_family.lua";
    let text = server.folder.read(family);
    server.folder.write(
        family,
        text.replace("\"Access granularity\"", "\"How much\""),
    );
    for plugin in others.into_iter().chain(["SnowflakeDataOutput"]) {
        server
            .until(&format!("plugins/{plugin}/form"), 200, |form| {
                form["ui_metadata"][2]["label"] == "How much"
            })
            .await;
    }
}
