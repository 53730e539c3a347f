//! What files of this repository promise by their text: fences, the image, the composition.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use toml::Table;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn manifest(path: &Path) -> Table {
    let text =
        std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.parse()
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What a crate's own code can name: its dependencies, those of a system included, but not those of its tests.
fn dependencies(manifest: &Table) -> BTreeSet<String> {
    let own = manifest.get("dependencies").into_iter();
    let of_systems = manifest
        .get("target")
        .and_then(toml::Value::as_table)
        .into_iter()
        .flat_map(|targets| targets.values())
        .filter_map(|target| target.get("dependencies"));
    own.chain(of_systems)
        .filter_map(toml::Value::as_table)
        .flat_map(|table| table.keys().cloned())
        .collect()
}

/// The rooms with their dependencies, and the program itself.
fn rooms() -> Vec<(String, BTreeSet<String>)> {
    let rooms = std::fs::read_dir(root().join("server")).expect("the rooms");
    let mut paths: Vec<PathBuf> = rooms
        .map(|entry| entry.expect("a room").path().join("Cargo.toml"))
        .filter(|path| path.is_file())
        .collect();
    paths.push(root().join("Cargo.toml"));
    let mut found: Vec<_> = paths
        .iter()
        .map(|path| {
            let manifest = manifest(path);
            let name = manifest["package"]["name"]
                .as_str()
                .expect("a name")
                .to_owned();
            (name, dependencies(&manifest))
        })
        .collect();
    found.sort();
    found
}

/// Which crate belongs to which room, and so to no other.
const FENCED: &[(&str, &str)] = &[
    ("axum", "patchbay-http"),
    ("hyper", "patchbay-http"),
    ("tower", "patchbay-http"),
    ("tower-http", "patchbay-http"),
    ("mlua", "patchbay-lua"),
    ("full_moon", "patchbay-lua"),
    ("rusqlite", "patchbay-store"),
    ("tokio-postgres", "patchbay-store"),
    ("deadpool-postgres", "patchbay-store"),
    ("sea-query", "patchbay-store"),
    ("refinery", "patchbay-store"),
    ("notify", "patchbay-registry"),
    ("libc", "patchbay-heap"),
];

/// Which rooms each may import: as the data goes, and never back.
const IMPORTS: &[(&str, &[&str])] = &[
    (
        "patchbay",
        &[
            "patchbay-http",
            "patchbay-lua",
            "patchbay-plugin",
            "patchbay-registry",
            "patchbay-store",
        ],
    ),
    ("patchbay-heap", &[]),
    (
        "patchbay-http",
        &["patchbay-plugin", "patchbay-registry", "patchbay-store"],
    ),
    ("patchbay-lua", &["patchbay-heap", "patchbay-plugin"]),
    ("patchbay-plugin", &[]),
    (
        "patchbay-registry",
        &["patchbay-lua", "patchbay-plugin", "patchbay-store"],
    ),
    ("patchbay-store", &["patchbay-plugin"]),
];

#[test]
fn each_crate_stays_in_its_room_and_imports_run_one_way() {
    let rooms = rooms();
    let names: Vec<&str> = rooms.iter().map(|(name, _)| name.as_str()).collect();
    let known: Vec<&str> = IMPORTS.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, known, "the rooms");
    for (name, dependencies) in &rooms {
        for (fenced, room) in FENCED {
            assert_eq!(
                dependencies.contains(*fenced),
                name == room,
                "{fenced} belongs to {room}, and {name} is another, or does without"
            );
        }
        let (_, allowed) = IMPORTS
            .iter()
            .find(|(room, _)| room == name)
            .expect("a room");
        let found: Vec<&str> = dependencies
            .iter()
            .map(String::as_str)
            .filter(|dependency| dependency.starts_with("patchbay"))
            .collect();
        assert_eq!(found, *allowed, "what {name} imports");
    }
    // Things as they are know no clock, no file and no runtime.
    let (_, plugin) = rooms
        .iter()
        .find(|(name, _)| name == "patchbay-plugin")
        .expect("plugin");
    for foreign in ["tokio", "tempfile", "tracing"] {
        assert!(!plugin.contains(foreign), "{foreign} in patchbay-plugin");
    }
}

#[test]
fn cargo_deny_has_the_same_fences() {
    let deny: Table = read("deny.toml").parse().expect("TOML");
    let bans = deny["bans"]["deny"].as_array().expect("bans");
    for (fenced, room) in FENCED.iter().filter(|(fenced, _)| {
        !["hyper", "tower", "tower-http", "full_moon", "libc"].contains(fenced)
    }) {
        let ban = bans
            .iter()
            .find(|ban| ban["crate"].as_str() == Some(fenced));
        let ban = ban.unwrap_or_else(|| panic!("{fenced} is not fenced in deny.toml"));
        let wrappers = ban["wrappers"].as_array().expect("wrappers");
        assert!(
            wrappers.iter().any(|name| name.as_str() == Some(room)),
            "{fenced}: {wrappers:?}"
        );
        for (other, _) in IMPORTS
            .iter()
            .filter(|(other, _)| other != room && *other != "patchbay")
        {
            assert!(
                !wrappers.iter().any(|name| name.as_str() == Some(other)),
                "{fenced}: {other}"
            );
        }
    }
}

/// The instructions of a Dockerfile, each in one line.
fn instructions(text: &str) -> Vec<String> {
    let lines = text
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'));
    let mut found = vec![String::new()];
    for line in lines.map(str::trim).filter(|line| !line.is_empty()) {
        let last = found.last_mut().expect("there is one");
        match line.strip_suffix('\\') {
            Some(part) => last.push_str(part),
            None => {
                last.push_str(line);
                found.push(String::new());
            }
        }
    }
    found.pop();
    found
}

#[test]
fn the_image_is_small_runs_as_nobody_in_particular_and_says_how_it_is() {
    let all = instructions(&read("Dockerfile"));
    let stage = all
        .iter()
        .rposition(|line| line.starts_with("FROM "))
        .expect("a stage");
    assert!(
        all[stage].starts_with("FROM gcr.io/distroless/"),
        "no shell in it: {}",
        all[stage]
    );
    let image = &all[stage..];
    let only = |word: &str| {
        let found: Vec<&String> = image
            .iter()
            .filter(|line| line.starts_with(&format!("{word} ")))
            .collect();
        assert_eq!(found.len(), 1, "{word}: {image:#?}");
        found[0][word.len()..].trim().to_owned()
    };
    let (user, group) = only("USER")
        .split_once(':')
        .map(|(user, group)| (user.to_owned(), group.to_owned()))
        .expect("both");
    for id in [&user, &group] {
        assert!(
            id.parse::<u32>().is_ok_and(|id| id > 0),
            "a number, so that it can be checked not to be root: {id}"
        );
    }
    assert_eq!(only("VOLUME"), r#"["/data", "/plugins"]"#);
    assert!(only("HEALTHCHECK").ends_with(r#"CMD ["/usr/local/bin/patchbay", "health"]"#));
    assert_eq!(only("ENTRYPOINT"), r#"["/usr/local/bin/patchbay"]"#);
    assert_eq!(only("WORKDIR"), "/data");
    assert!(
        !image.iter().any(|line| line.starts_with("RUN ")),
        "nothing is run in it: {image:#?}"
    );
    // Whatever it writes lies in a volume, so that its root can be read-only, and the volumes are its user's.
    let set = only("ENV");
    for (name, place) in [
        ("PATCHBAY_DATABASE_URL", "sqlite:///data/"),
        ("PATCHBAY_PACKAGES", "/data/"),
        ("PATCHBAY_PLUGIN_PATHS", "/plugins"),
    ] {
        assert!(set.contains(&format!("{name}={place}")), "{name}: {set}");
    }
    for volume in ["/data", "/plugins"] {
        let copied = format!("COPY --from=build --chown={user}:{group} /image{volume} {volume}");
        assert!(image.contains(&copied), "{copied}: {image:#?}");
    }
    assert!(
        all.iter()
            .any(|line| line.contains("cargo build --release --locked")),
        "{all:#?}"
    );
    // What the image leaves out of the build is not needed for it.
    let ignored = read(".dockerignore");
    assert!(
        ignored
            .lines()
            .any(|line| line.trim_end_matches('/') == "target"),
        "{ignored}"
    );
}

/// The lines of a block of YAML: those below a key at a depth, up to the next one that is no deeper.
fn block<'a>(text: &'a str, key: &str) -> Vec<&'a str> {
    let depth = |line: &str| line.len() - line.trim_start().len();
    let mut lines = text
        .lines()
        .skip_while(|line| line.trim_end().split(" &").next() != Some(key));
    let first = lines.next().unwrap_or_else(|| panic!("no {key}"));
    lines
        .take_while(|line| line.trim().is_empty() || depth(line) > depth(first))
        .filter(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#'))
        .collect()
}

#[test]
fn the_composition_is_two_servers_behind_a_balancer_on_one_postgres() {
    let text = read("compose.yaml");
    for (number, line) in text.lines().enumerate() {
        // What YAML refuses: tabs, and levels of odd widths.
        let indent = line.len() - line.trim_start().len();
        assert!(
            !line.contains('\t') && indent % 2 == 0,
            "line {}: {line:?}",
            number + 1
        );
    }
    let services = block(&text, "services:");
    let named: Vec<&str> = services
        .iter()
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .map(|line| line.trim())
        .collect();
    assert_eq!(
        named,
        ["patchbay-1:", "patchbay-2:", "postgres:", "balancer:"]
    );
    let common = block(&text, "x-patchbay:");
    for wanted in [
        "  read_only: true",
        "  stop_grace_period: 20s",
        "    - ./lua-plugins:/plugins:ro",
        "    - patchbay:/data",
    ] {
        assert!(common.contains(&wanted), "{wanted}: {common:#?}");
    }
    for server in ["patchbay-1", "patchbay-2"] {
        let own = block(&text, &format!("  {server}:"));
        assert!(own.contains(&"    <<: *patchbay"), "{own:#?}");
        assert!(
            own.contains(&format!("      PATCHBAY_SERVER_NAME: {server}").as_str()),
            "{own:#?}"
        );
    }
    // Anchors that are used are there, and so are the volumes.
    for used in text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("<<: *"))
    {
        assert!(text.contains(&format!(": &{used}\n")), "{used}");
    }
    let volumes = block(&text, "volumes:");
    for volume in ["patchbay", "postgres"] {
        assert!(
            volumes.contains(&format!("  {volume}:").as_str()),
            "{volumes:#?}"
        );
    }
    // No secret has a default: who forgets one is told.
    for name in ["POSTGRES_PASSWORD", "PATCHBAY_API_TOKEN"] {
        let uses: Vec<&str> = text
            .lines()
            .filter(|line| line.contains(&format!("${{{name}")))
            .collect();
        assert!(
            !uses.is_empty()
                && uses
                    .iter()
                    .all(|line| line.contains(&format!("${{{name}:?"))),
            "{name}: {uses:?}"
        );
    }
    let balancer = block(&text, "  balancer:");
    assert!(
        balancer.contains(&r#"      - "127.0.0.1:8080:8080""#),
        "{balancer:#?}"
    );
    // Requests may take that long to end, and the kill comes later.
    let settings: Table = read("config/patchbay.toml").parse().expect("TOML");
    assert!(
        settings["drain_ms"]
            .as_integer()
            .is_some_and(|drain| drain < 20_000)
    );
}

/// Each test file that starts a server without a database named is on the list of those that may.
#[test]
fn what_runs_on_one_database_alone_is_listed_with_the_reason() {
    let listed = read("tests/blackbox/harness/database.rs");
    let (list, _) = listed
        .split_once("pub(crate) async fn for_each_database")
        .expect("the list");
    let folder = std::fs::read_dir(root().join("tests/blackbox")).expect("the tests");
    for path in folder.map(|entry| entry.expect("a file").path()) {
        let name = path
            .file_stem()
            .and_then(|name| name.to_str())
            .expect("a name")
            .to_owned();
        if path.is_dir() || ["main", "world", "writers"].contains(&name.as_str()) {
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("a file");
        let tests = text
            .matches("\nasync fn ")
            .count()
            .min(text.matches("#[tokio::test]").count())
            + text.matches("#[test]").count();
        let on_each =
            text.matches("for_each_database(").count() + text.matches("on_postgres(").count();
        if tests > on_each {
            assert!(
                list.contains(&format!("`{name}`")),
                "{name}: {on_each} of {tests} tests run on each database"
            );
        }
    }
}
