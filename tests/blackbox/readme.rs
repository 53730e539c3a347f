//! The README and the guide for writing plugins, executed.
//!
//! Four kinds of code blocks are run, in the order of the text, each text on one server in a folder that holds what the
//! repository's `lua-plugins` holds:
//!
//! - ` ```lua file=lua-plugins/bigquery.lua `: the file is written;
//! - ` ```sh test `: the commands are run by a shell in that folder, with the server's address in the place of
//!   `http://127.0.0.1:8080`, and `patchbay` is the program; variables that one block sets are there in the next;
//! - ` ```json expect `: what the last commands printed has to be JSON that contains this: objects by key, lists in full;
//! - ` ```text expect `: each of these lines has to be in what the last commands printed, in this order; `…` stands for
//!   anything.
//!
//! A change of a file is live within milliseconds, so commands are run again until the answer is as expected.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::harness::{Folder, Server, eventually, run};
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
                    .all(|wanted| printed.any(|line| has_parts(line, wanted)))
            }
        }
    }
}

/// Whether the parts of `wanted` between its `…` are in the line, in this order.
fn has_parts(line: &str, wanted: &str) -> bool {
    let mut rest = line;
    wanted.split('…').all(|part| {
        rest.find(part.trim())
            .map(|at| rest = &rest[at + part.trim().len()..])
            .is_some()
    })
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
                    }) => *expected = Some(value),
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
    // What one block sets is exported and kept for the next.
    let script = format!(
        "set -a\nPATH={}:$PATH\n[ ! -f .variables ] || . ./.variables\n{}\nstatus=$?\nexport -p > .variables\nexit $status\n",
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

async fn what_it_says_is_so(text: &str) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let steps = steps(&std::fs::read_to_string(root.join(text)).expect("the text"));
    let files = steps
        .iter()
        .filter(|step| matches!(step, Step::Write { .. }))
        .count();
    let runs = steps
        .iter()
        .filter(|step| {
            matches!(
                step,
                Step::Run {
                    expected: Some(_),
                    ..
                }
            )
        })
        .count();
    assert!(
        files > 0 && runs > 0,
        "it writes a plugin and looks at it: {steps:#?}"
    );
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
fn every_block_and_every_command_of_the_guide_is_run() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let guide = std::fs::read_to_string(root.join("lua-plugins/README.md")).expect("the guide");
    let mut inside = false;
    for line in guide.lines() {
        let Some(info) = line.trim_start().strip_prefix("```") else {
            continue;
        };
        inside = !inside;
        let words: Vec<&str> = info.split_whitespace().collect();
        // A block without a language is a picture, such as that of a folder.
        let is_run = matches!(words[..], [] | ["sh", "test"] | ["json" | "text", "expect"])
            || matches!(words[..], [_, file] if file.starts_with("file="));
        assert!(!inside || is_run, "nobody runs ```{info}");
    }
    // What stands in a sentence is a verb that there is.
    let folder = Folder::new();
    let spans = guide
        .split('`')
        .filter(|span| span.starts_with("patchbay "));
    let is_word = |word: &&str| word.chars().all(|letter| letter.is_ascii_lowercase());
    let mut verbs: Vec<Vec<&str>> = spans
        .map(|span| {
            span.split_whitespace()
                .skip(1)
                .take_while(is_word)
                .collect()
        })
        .collect();
    verbs.sort();
    verbs.dedup();
    assert!(verbs.len() > 5, "{verbs:?}");
    for mut words in verbs {
        words.push("--help");
        run(&folder, &words).well();
    }
}

#[test]
fn blocks_are_found_by_their_words() {
    let markdown = "text\n```lua file=a/b.lua\nreturn 1\n```\n```sh\nnot run\n```\n- item\n  ```sh test\n  curl x\n  ```\n\n\
                    ```json expect\n{\"a\": [1]}\n```\n```sh test\nls\n```\n```text expect\na…c\n```\n";
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
                expected: Some(Expected::Lines(vec!["a…c".into()]))
            },
        ]
    );
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
