//! The commands that stand in sentences of the README, the guide and the example's README.
//!
//! Each verb and each flag that a sentence names is one that the program has, with the value that a flag takes and as many
//! words as the verb does. What the guide names is run in one of its blocks, too: a command with the same flags and as many
//! words, a flag by itself in the chapter that names it, a path by a request. A name of a setting is one that there is.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::harness::{Folder, run};

const TEXTS: [&str; 3] = ["README.md", GUIDE, "lua-plugins/examples/s3/README.md"];
const GUIDE: &str = "lua-plugins/README.md";

/// A line of code in the text: a span of a sentence, or a command of a block.
#[derive(Debug)]
struct Code {
    chapter: String,
    text: String,
}

/// The spans of the sentences, and the lines of the blocks of commands.
fn read(markdown: &str) -> (Vec<Code>, Vec<Code>) {
    let (mut spans, mut commands) = (Vec::new(), Vec::new());
    let mut chapter = String::new();
    let mut block: Option<String> = None;
    let mut prose = String::new();
    let mut finish = |prose: &mut String, chapter: &str| {
        let pieces = prose.split('`').skip(1).step_by(2);
        spans.extend(pieces.map(|text| Code {
            chapter: chapter.to_owned(),
            text: text.split_whitespace().collect::<Vec<_>>().join(" "),
        }));
        prose.clear();
    };
    for line in markdown.lines() {
        if let Some(info) = line.trim_start().strip_prefix("```") {
            finish(&mut prose, &chapter);
            block = match block {
                None => Some(info.to_owned()),
                Some(_) => None,
            };
        } else if let Some(info) = &block {
            if info.split_whitespace().next() == Some("sh") {
                commands.push(Code {
                    chapter: chapter.clone(),
                    text: line.trim().to_owned(),
                });
            }
        } else if let Some(title) = line.strip_prefix("## ") {
            finish(&mut prose, &chapter);
            title.clone_into(&mut chapter);
        } else {
            prose.push_str(line);
            prose.push('\n');
        }
    }
    finish(&mut prose, &chapter);
    (spans, commands)
}

/// What `--help` says of a verb.
#[derive(Debug, Clone)]
pub(crate) struct Verb {
    pub(crate) verbs: BTreeSet<String>,
    /// How many words it needs, and how many it takes.
    words: (usize, usize),
    /// By each spelling, the long one, and whether it takes a value.
    pub(crate) flags: BTreeMap<String, (String, bool)>,
}

/// A command, taken apart by what the program says of itself.
#[derive(Debug, PartialEq)]
struct Taken {
    verbs: Vec<String>,
    flags: BTreeSet<String>,
    words: usize,
}

pub(crate) struct Program {
    folder: Folder,
    known: RefCell<BTreeMap<Vec<String>, Verb>>,
}

impl Program {
    pub(crate) fn new() -> Program {
        Program {
            folder: Folder::new(),
            known: RefCell::default(),
        }
    }

    pub(crate) fn verb(&self, path: &[String]) -> Verb {
        if let Some(verb) = self.known.borrow().get(path) {
            return verb.clone();
        }
        let words: Vec<&str> = path.iter().map(String::as_str).chain(["--help"]).collect();
        let verb = verb_of_help(&run(&self.folder, &words).well());
        self.known.borrow_mut().insert(path.to_vec(), verb.clone());
        verb
    }

    /// Takes the words after `patchbay` apart. What the program does not take is said.
    fn take(&self, command: &str) -> Result<Taken, String> {
        let mut taken = Taken {
            verbs: Vec::new(),
            flags: BTreeSet::new(),
            words: 0,
        };
        let mut verb = self.verb(&taken.verbs);
        let mut words = command.split_whitespace().peekable();
        while let Some(word) = words.next() {
            if word.starts_with('-') {
                let (long, has_value) = verb
                    .flags
                    .get(word)
                    .ok_or_else(|| format!("`{command}`: {:?} has no {word}", taken.verbs))?;
                if *has_value && words.next().is_none() {
                    return Err(format!("`{command}`: {word} takes a value"));
                }
                taken.flags.insert(long.clone());
            } else if verb.verbs.contains(word) {
                taken.verbs.push(word.to_owned());
                verb = self.verb(&taken.verbs);
            } else if !verb.verbs.is_empty() {
                return Err(format!("`{command}`: {:?} has no verb {word}", taken.verbs));
            } else {
                taken.words += 1;
            }
        }
        let (least, most) = verb.words;
        // A sentence may name a verb without its words.
        if taken.words > most || (taken.words > 0 && taken.words < least) {
            return Err(format!(
                "`{command}`: {} words, of {least} to {most}",
                taken.words
            ));
        }
        Ok(taken)
    }
}

fn verb_of_help(help: &str) -> Verb {
    let mut verb = Verb {
        verbs: BTreeSet::new(),
        words: (0, 0),
        flags: BTreeMap::new(),
    };
    let mut part = "";
    for line in help.lines() {
        if let Some(usage) = line.strip_prefix("Usage: ") {
            for word in usage.split_whitespace() {
                let bare = word.trim_end_matches("...");
                let most = if bare == word { 1 } else { usize::MAX };
                if matches!(bare, "[OPTIONS]" | "<COMMAND>" | "[COMMAND]") {
                } else if bare.starts_with('<') {
                    verb.words = (verb.words.0 + 1, most.saturating_add(verb.words.1));
                } else if bare.starts_with('[') {
                    verb.words.1 = most.saturating_add(verb.words.1);
                }
            }
        } else if line.ends_with(':') && !line.starts_with(' ') {
            part = line;
        } else if part == "Commands:" {
            verb.verbs
                .extend(line.split_whitespace().next().map(str::to_owned));
        } else if part == "Options:" && line.trim_start().starts_with('-') {
            let words: Vec<&str> = line.split_whitespace().collect();
            let spellings: Vec<&str> = words
                .iter()
                .take_while(|word| word.starts_with('-'))
                .map(|word| word.trim_end_matches(','))
                .collect();
            let has_value = words
                .get(spellings.len())
                .is_some_and(|word| word.starts_with('<'));
            let long = (*spellings.last().expect("a spelling")).to_owned();
            for spelling in spellings {
                verb.flags
                    .insert(spelling.to_owned(), (long.clone(), has_value));
            }
        }
    }
    verb
}

/// The commands of the program in a line of a block, without what the shell does with them.
fn commands_of(line: &str) -> Vec<String> {
    let line = line.split(" #").next().unwrap_or_default();
    let line = line.replace("2>&1", "");
    line.split(['|', '&', ';', '>', '(', ')'])
        .filter_map(|command| {
            let words: Vec<&str> = command.split_whitespace().collect();
            let at = words.iter().position(|word| *word == "patchbay")?;
            let is_before = |word: &&str| {
                word.contains('=')
                    || word.starts_with("--")
                    || *word == "timeout"
                    || word.parse::<u32>().is_ok()
            };
            if !words[..at].iter().all(is_before) {
                return None;
            }
            Some(words[at + 1..].join(" ").replace(['\'', '"'], ""))
        })
        .collect()
}

/// The addresses that a line of a block asks for, below the server's, and whether it writes there.
fn requests_of(line: &str) -> Vec<(bool, String)> {
    let posts = line.contains("-X POST");
    line.split("http://127.0.0.1:8080")
        .skip(1)
        .map(|rest| {
            let path = rest.split([' ', '\'', '"']).next().unwrap_or_default();
            (posts, path.trim_start_matches("/api/v2").to_owned())
        })
        .collect()
}

#[test]
fn every_command_in_a_sentence_is_one_that_there_is_and_the_guide_s_are_run() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let settings = std::fs::read_to_string(root.join("config/patchbay.toml")).expect("settings");
    let is_setting = |name: &str| {
        settings.lines().any(|line| {
            let line = line.trim_start_matches("# ");
            line.split_once(" = ").is_some_and(|(key, _)| key == name)
        })
    };
    let program = Program::new();
    let mut problems = Vec::new();
    for text in TEXTS {
        let markdown = std::fs::read_to_string(root.join(text)).expect("the text");
        let (spans, lines) = read(&markdown);
        let mut taken = Vec::new();
        for line in &lines {
            for command in commands_of(&line.text) {
                match program.take(&command) {
                    Ok(command) => taken.push((&line.chapter, command)),
                    Err(problem) => problems.push(format!("{text}: {problem}")),
                }
            }
        }
        let requests: Vec<(bool, String)> = lines
            .iter()
            .flat_map(|line| requests_of(&line.text))
            .collect();
        let mut commands = 0;
        for Code {
            chapter,
            text: span,
        } in &spans
        {
            let problem = if let Some(command) = span.strip_prefix("patchbay ") {
                commands += 1;
                match program.take(command) {
                    Err(problem) => Some(problem),
                    Ok(named) if text == GUIDE => {
                        // Beside it everything else is run.
                        let is_the_server = named.verbs == ["serve"] && named.flags.is_empty();
                        let is_run = is_the_server
                            || taken.iter().any(|(_, run)| {
                                run.verbs == named.verbs
                                    && run.flags.is_superset(&named.flags)
                                    && (named.words == 0 || named.words == run.words)
                            });
                        (!is_run).then(|| format!("no block runs `{span}`"))
                    }
                    Ok(_) => None,
                }
            } else if let Some(name) = span.strip_prefix("PATCHBAY_") {
                let name = name.split('=').next().unwrap_or_default().to_lowercase();
                let is_named = name
                    .chars()
                    .all(|letter| letter.is_ascii_lowercase() || letter == '_');
                (is_named && !is_setting(&name)).then(|| format!("there is no setting `{span}`"))
            } else if text != GUIDE {
                None
            } else if span.starts_with("--") {
                let flag = span.split_whitespace().next().unwrap_or_default();
                let is_run = taken
                    .iter()
                    .any(|(place, run)| *place == chapter && run.flags.contains(flag));
                (!is_run).then(|| format!("no block of the chapter \"{chapter}\" runs `{span}`"))
            } else if span.starts_with('/') || span.starts_with("POST ") {
                let (posts, path) = match span.strip_prefix("POST ") {
                    Some(path) => (true, path),
                    None => (false, span.as_str()),
                };
                let wanted = path.trim_start_matches("/api/v2");
                let is_asked = requests.iter().any(|(posted, path)| {
                    let asked = match wanted.contains('?') {
                        true => path.as_str(),
                        false => path.split('?').next().unwrap_or_default(),
                    };
                    // A sentence may say NAME where a request has one.
                    let is_same = match wanted.strip_suffix("NAME") {
                        Some(start) => asked.starts_with(start),
                        None => asked == wanted || wanted.is_empty(),
                    };
                    (!posts || *posted) && is_same
                });
                (!is_asked).then(|| format!("no block asks for `{span}`"))
            } else {
                None
            };
            problems.extend(problem.map(|problem| format!("{text}: {problem}")));
        }
        assert!(commands > 0, "{text}: {spans:?}");
    }
    assert!(problems.is_empty(), "{problems:#?}");
}

#[test]
fn every_block_of_the_guide_and_of_the_example_is_run() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for text in [GUIDE, "lua-plugins/examples/s3/README.md"] {
        let markdown = std::fs::read_to_string(root.join(text)).expect("the text");
        let mut inside = false;
        for line in markdown.lines() {
            let Some(info) = line.trim_start().strip_prefix("```") else {
                continue;
            };
            inside = !inside;
            let words: Vec<&str> = info.split_whitespace().collect();
            // A block without a language is a picture, such as that of a folder.
            let is_run = matches!(words[..], [] | ["sh", "test"] | ["json" | "text", "expect"])
                || matches!(words[..], [_, file] if file.starts_with("file="));
            assert!(!inside || is_run, "{text}: nobody runs ```{info}");
        }
    }
}

/// What a heading is called in a link, as GitHub has it.
fn anchor(heading: &str) -> String {
    let kept = |letter: &char| letter.is_alphanumeric() || " -_".contains(*letter);
    let heading = heading.trim_start_matches('#').trim().to_lowercase();
    heading
        .chars()
        .filter(kept)
        .collect::<String>()
        .replace(' ', "-")
}

#[test]
fn links_lead_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for text in TEXTS {
        let markdown = std::fs::read_to_string(root.join(text)).expect("the text");
        let headings: Vec<String> = markdown
            .lines()
            .filter(|line| line.starts_with('#'))
            .map(anchor)
            .collect();
        let folder = root.join(text);
        let folder = folder.parent().expect("a folder");
        for link in markdown.split("](").skip(1) {
            let link = link.split(')').next().unwrap_or_default();
            let is_there = match link.strip_prefix('#') {
                Some(place) => headings.iter().any(|heading| heading == place),
                None => link.starts_with("https://") || folder.join(link).exists(),
            };
            assert!(is_there, "{text}: {link}");
        }
    }
}

#[test]
fn the_guide_names_all_that_a_plugin_can_reach() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let guide = std::fs::read_to_string(root.join(GUIDE)).expect("the guide");
    let types = root.join("lua-plugins/types/patchbay.d.luau");
    let types = std::fs::read_to_string(types).expect("the types");
    let part = |start: &str| {
        let (_, rest) = types.split_once(start).expect("a part");
        rest.split_once("\n}").expect("its end").0
    };
    let name = |line: &str| {
        line.trim()
            .split_once(": ")
            .map(|(name, _)| name.to_owned())
    };
    let mut reached = Vec::new();
    let mut group = None;
    for line in part("declare patchbay: {\n").lines() {
        let indent = line.len() - line.trim_start().len();
        match (name(line), line.ends_with('{'), indent) {
            _ if line.trim_start().starts_with("---") => {}
            (Some(name), true, 4) => group = Some(name),
            (Some(name), false, 4) => reached.push(format!("patchbay.{name}")),
            (Some(name), false, 8) => {
                let group = group.as_deref().expect("a group");
                reached.push(format!("{group}.{name}"));
            }
            _ => {}
        }
    }
    let db = part("export type Db = {\n").lines().filter_map(name);
    reached.extend(
        db.filter(|name| !name.contains('-'))
            .map(|name| format!("db:{name}")),
    );
    for whole in [
        "export type Recorder = {\n",
        "export type PluginDefinition = {\n",
    ] {
        let names = part(whole).lines().filter_map(name);
        reached.extend(names.filter(|name| !name.contains('-')));
    }
    assert!(reached.len() > 50, "{reached:#?}");
    reached.retain(|name| !guide.contains(name));
    assert!(reached.is_empty(), "the guide is silent on {reached:?}");
}

#[test]
fn a_command_that_there_is_not_is_found() {
    let program = Program::new();
    for (command, says) in [
        ("plugin migrat NAME", "no verb migrat"),
        ("plugin migrate NAME --two 1", "has no --two"),
        ("plugin migrate NAME --to", "--to takes a value"),
        ("plugin migrate NAME OTHER", "2 words, of 1 to 1"),
        ("plugin drop NAME -o FILE", "has no -o"),
    ] {
        let problem = program.take(command).expect_err(command);
        assert!(problem.contains(says), "{problem}");
    }
    let taken = program.take("plugin export NAME -o FILE").expect("taken");
    assert_eq!(taken.verbs, ["plugin", "export"]);
    assert_eq!((taken.words, taken.flags.len()), (1, 1));
    assert!(taken.flags.contains("--output"));
    assert_eq!(
        commands_of("A=1 timeout 4 patchbay plugin dev x --test || true # patchbay"),
        ["plugin dev x --test"]
    );
    assert_eq!(
        requests_of("curl -X POST 'http://127.0.0.1:8080/api/v2/plugins/reload?force=X'"),
        [(true, "/plugins/reload?force=X".to_owned())]
    );
}
