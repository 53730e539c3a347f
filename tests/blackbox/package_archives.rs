//! Archives that are no packages: each is refused with what was expected and found, and nothing of it lands.

use std::io::{Read, Write};

use flate2::Compression;
use flate2::write::GzEncoder;
use tar::{EntryType, Header};

use crate::harness::{Folder, run};
use crate::world::{bigquery, plugin};

/// One entry as a tar file has it, with a name that no careful writer would write.
fn entry(name: &[u8], kind: EntryType, bytes: &[u8]) -> Vec<u8> {
    let mut header = Header::new_gnu();
    header.as_mut_bytes()[..name.len()].copy_from_slice(name);
    header.set_entry_type(kind);
    header.set_size(bytes.len() as u64);
    header.set_mode(0o644);
    header.set_cksum();
    let mut whole = header.as_bytes().to_vec();
    whole.extend(bytes);
    whole.resize(whole.len().div_ceil(512) * 512, 0);
    whole
}

fn file(name: &str, text: &str) -> Vec<u8> {
    entry(name.as_bytes(), EntryType::Regular, text.as_bytes())
}

fn compressed(bytes: &[u8]) -> Vec<u8> {
    let mut gz = GzEncoder::new(Vec::new(), Compression::best());
    gz.write_all(bytes).expect("compressed");
    gz.finish().expect("compressed")
}

fn archive(entries: &[Vec<u8>]) -> Vec<u8> {
    compressed(&[entries.concat(), vec![0; 1024]].concat())
}

/// The files that are in the folder of packages, those that only hold its lock aside.
fn landed(folder: &Folder) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder.path("data/packages")) else {
        return Vec::new();
    };
    let names = entries.map(|entry| entry.expect("an entry").file_name());
    names
        .map(|name| name.to_string_lossy().into_owned())
        .filter(|name| name != ".lock")
        .collect()
}

/// Asserts that an archive is refused for this reason, and that nothing of it is anywhere.
#[track_caller]
fn refused(bytes: &[u8], says: &str) {
    let folder = Folder::new();
    folder.write("in/bad.tar.gz", bytes);
    let complaint = run(&folder, &["plugin", "install", "in/bad.tar.gz"]).badly();
    assert!(complaint.contains(says), "{says}: {complaint}");
    assert!(complaint.contains("in/bad.tar.gz"), "{complaint}");
    assert!(
        complaint.contains("expected") && complaint.contains("found"),
        "{complaint}"
    );
    assert_eq!(landed(&folder), Vec::<String>::new());
    for escaped in ["x", "in/x", "data/x", "evil.lua", "../evil.lua"] {
        assert!(!folder.path(escaped).exists(), "{escaped}");
    }
}

#[test]
fn paths_that_lead_elsewhere_are_refused() {
    for name in [
        &b"../evil.lua"[..],
        b"a/../../evil.lua",
        b"/tmp/evil.lua",
        b"C:/evil.lua",
        b"C:evil.lua",
        b"..\\evil.lua",
        b"\\\\host\\evil.lua",
        "․․/evil.lua".as_bytes(),
        "．．/evil.lua".as_bytes(),
        b".../evil.lua",
        b"a./evil.lua",
        b"a /evil.lua",
        b"evil.lua.",
        b"\xff\xfe.lua",
        b"con.lua",
        b"a\nb.lua",
    ] {
        let good = file("plugin.lua", &bigquery("1.0.0", "Dataset"));
        let evil = entry(name, EntryType::Regular, b"x");
        refused(&archive(&[good, evil]), "paths inside the package");
    }
}

#[test]
fn a_nul_in_a_long_name_is_refused() {
    let mut builder = tar::Builder::new(Vec::new());
    let record = "28 path=plugin.lua\0/../evil\n";
    assert_eq!(record.len(), 28);
    let mut header = Header::new_ustar();
    header.set_entry_type(EntryType::XHeader);
    header.set_size(record.len() as u64);
    header.set_mode(0o644);
    builder
        .append_data(&mut header, "pax", record.as_bytes())
        .expect("appended");
    let mut whole = builder.into_inner().expect("a tar file");
    whole.truncate(1024);
    whole.extend(file("plugin.lua", "return 1"));
    refused(
        &compressed(&[whole, vec![0; 1024]].concat()),
        "paths inside the package",
    );
}

#[test]
fn links_and_devices_are_refused() {
    let good = file("plugin.lua", &bigquery("1.0.0", "Dataset"));
    for (kind, says) in [
        (EntryType::Symlink, "a symbolic link"),
        (EntryType::Link, "a hard link"),
        (EntryType::Char, "a device"),
        (EntryType::Block, "a device"),
        (EntryType::Fifo, "a pipe"),
    ] {
        let mut header = Header::new_gnu();
        header.set_path("x.lua").expect("a path");
        header.set_link_name("/etc/passwd").expect("a target");
        header.set_entry_type(kind);
        header.set_size(0);
        header.set_cksum();
        refused(&archive(&[good.clone(), header.as_bytes().to_vec()]), says);
    }
}

#[test]
fn what_fills_a_disk_is_refused() {
    let zeros = vec![0; 3 << 20];
    let zeros: Vec<Vec<u8>> = (0..8)
        .map(|number| entry(format!("z{number}").as_bytes(), EntryType::Regular, &zeros))
        .collect();
    refused(&archive(&zeros), "times as large as their archive");
    let many: Vec<Vec<u8>> = (0..1000)
        .map(|number| file(&format!("f{number}.txt"), "x"))
        .collect();
    refused(&archive(&many), "at most 512 files");
    let large = entry(b"large.bin", EntryType::Regular, &vec![1; 5 << 20]);
    refused(&archive(&[large]), "at most 4 MiB");
    // A header that promises more than there is room for is not believed long enough to make room.
    let mut header = Header::new_gnu();
    header.set_path("huge").expect("a path");
    header.set_entry_type(EntryType::Regular);
    header.set_size(1 << 40);
    header.set_cksum();
    refused(&compressed(header.as_bytes()), "at most 4 MiB");
}

#[test]
fn paths_that_are_one_on_some_system_are_refused() {
    let good = file("plugin.lua", &bigquery("1.0.0", "Dataset"));
    for (names, says) in [
        (["x.lua", "x.lua"], "each path once"),
        (["x.lua", "./x.lua"], "each path once"),
        (["x.lua", "X.lua"], "differ on every system"),
        (["a/x.lua", "A/y.lua"], "differ on every system"),
        (["a", "a/x.lua"], "differ on every system"),
    ] {
        let entries = [
            good.clone(),
            file(names[0], "return 1"),
            file(names[1], "return 2"),
        ];
        refused(&archive(&entries), says);
    }
}

#[test]
fn what_is_no_whole_archive_is_refused() {
    let good = archive(&[file("plugin.lua", &bigquery("1.0.0", "Dataset"))]);
    for (bytes, says) in [
        (&b""[..], "an empty file"),
        (b"PK\x03\x04 and so on", "a zip file"),
        (b"return patchbay.plugin {}", "something else"),
        (&good[..good.len() / 2], "cannot be read"),
        (&good[..good.len() - 4], "cannot be read"),
        (&compressed(b"not a tar file"), "cannot be read"),
        (
            &archive(&[file("README.md", "no plugin")]),
            "expected a plugin",
        ),
    ] {
        refused(bytes, says);
    }
    let folder = Folder::new();
    let complaint = run(&folder, &["plugin", "install", "nowhere"]).badly();
    assert!(complaint.contains("found nothing there"), "{complaint}");
}

#[test]
fn a_manifest_that_says_other_than_the_files_is_refused() {
    let folder = Folder::new();
    folder.write("one/plugin.lua", bigquery("1.0.0", "Dataset"));
    folder.write("one/rules.lua", "return {}");
    run(&folder, &["plugin", "pack", "one", "-o", "one.tar.gz"]).well();
    let unpacked = Folder::new();
    let unpack = |folder: &Folder| {
        let bytes = std::fs::read(folder.path("one.tar.gz")).expect("the archive");
        tar::Archive::new(flate2::read::GzDecoder::new(&bytes[..]))
            .unpack(unpacked.path("one"))
            .expect("unpacked");
    };
    unpack(&folder);
    let install = || run(&unpacked, &["plugin", "install", "one"]);
    unpacked.write("one/rules.lua", "return { 1 }");
    let complaint = install().badly();
    assert!(complaint.contains("rules.lua with the hash"), "{complaint}");
    unpacked.remove("one/rules.lua");
    let complaint = install().badly();
    assert!(
        complaint.contains("the file rules.lua, found none"),
        "{complaint}"
    );
    unpack(&folder);
    unpacked.write("one/more.lua", "return {}");
    let complaint = install().badly();
    assert!(complaint.contains("found more.lua besides"), "{complaint}");
    unpacked.remove("one/more.lua");
    let manifest = unpacked.read("one/patchbay-package.toml");
    for (from, to, says) in [
        ("format = 1", "format = 2", "a newer Patchbay"),
        (
            "name = \"BigQueryDataOutput\"",
            "name = \"OtherDataOutput\"",
            "OtherDataOutput",
        ),
        ("api = 1", "apy = 1", "apy"),
        (
            "name = \"bigquery\"",
            "name = \"../x\"",
            "expected a package's name",
        ),
        (
            "version = \"1.0.0\"",
            "version = \"one\"",
            "expected a version",
        ),
        ("format = 1", "format = ", "line 3"),
    ] {
        assert!(manifest.contains(from), "{from}: {manifest}");
        unpacked.write("one/patchbay-package.toml", manifest.replacen(from, to, 1));
        let complaint = install().badly();
        assert!(complaint.contains(says), "{says}: {complaint}");
    }
    assert_eq!(landed(&unpacked), Vec::<String>::new());
    unpacked.write("one/patchbay-package.toml", manifest);
    install().well();
}

/// The files of an archive, by name.
fn files_of(bytes: &[u8]) -> Vec<(String, String)> {
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(bytes));
    let entries = archive.entries().expect("entries");
    entries
        .map(|entry| {
            let mut entry = entry.expect("an entry");
            let name = entry.path().expect("a path").display().to_string();
            let mut text = String::new();
            entry.read_to_string(&mut text).expect("text");
            (name, text)
        })
        .collect()
}

/// The archive of some files, written by hand.
fn archive_of(files: &[(String, String)]) -> Vec<u8> {
    let entries: Vec<Vec<u8>> = files.iter().map(|(name, text)| file(name, text)).collect();
    archive(&entries)
}

#[test]
fn an_archive_whose_manifest_lies_is_refused() {
    const MANIFEST: &str = "patchbay-package.toml";
    let folder = Folder::new();
    folder.write("one/plugin.lua", bigquery("1.0.0", "Dataset"));
    folder.write("one/rules.lua", "return {}");
    run(&folder, &["plugin", "pack", "one", "-o", "one.tar.gz"]).well();
    let packed = std::fs::read(folder.path("one.tar.gz")).expect("the archive");
    let files = files_of(&packed);
    let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
    assert!(names.contains(&MANIFEST) && names.len() == 3, "{names:?}");
    // Written by hand, what says the truth is installed.
    let honest = Folder::new();
    honest.write("one.tar.gz", archive_of(&files));
    run(&honest, &["plugin", "install", "one.tar.gz"]).well();

    let with = |name: &str, change: &dyn Fn(&str) -> String| -> Vec<u8> {
        let changed: Vec<(String, String)> = files
            .iter()
            .map(|(found, text)| {
                let text = if found == name {
                    change(text)
                } else {
                    text.clone()
                };
                (found.clone(), text)
            })
            .collect();
        assert_ne!(changed, files, "{name}");
        archive_of(&changed)
    };
    let manifest = |from: &'static str, to: &'static str| {
        with(MANIFEST, &move |text| text.replacen(from, to, 1))
    };
    let less: Vec<(String, String)> = files
        .iter()
        .filter(|(name, _)| name != "rules.lua")
        .cloned()
        .collect();
    let more = [
        &files[..],
        &[("more.lua".to_owned(), "return {}".to_owned())],
    ]
    .concat();
    for (bytes, says) in [
        (
            with("rules.lua", &|_| "return { 1 }".to_owned()),
            "rules.lua with the hash",
        ),
        (
            with("plugin.lua", &|_| bigquery("1.0.0", "Other")),
            "plugin.lua with the hash",
        ),
        (archive_of(&less), "the file rules.lua, found none"),
        (archive_of(&more), "found more.lua besides"),
        (
            manifest(
                "name = \"BigQueryDataOutput\"",
                "name = \"OtherDataOutput\"",
            ),
            "expected name = \"BigQueryDataOutput\" for OtherDataOutput",
        ),
        (
            manifest(
                "BigQueryDataOutput\"\nversion = \"1.0.0\"",
                "BigQueryDataOutput\"\nversion = \"9.0.0\"",
            ),
            "expected version = \"1.0.0\" for BigQueryDataOutput, as its definition has it, found \"9.0.0\"",
        ),
        (
            manifest("table = \"bigquery_", "table = \"snowflake_"),
            "expected table = \"bigquery_data_output_configurations\"",
        ),
        (
            manifest("name = \"bigquery\"", "name = \"../x\""),
            "expected a package's name",
        ),
    ] {
        refused(&bytes, says);
        // Nor does it take the place of what is installed.
        let folder = Folder::new();
        folder.write("one.tar.gz", &packed);
        folder.write("bad.tar.gz", &bytes);
        run(&folder, &["plugin", "install", "one.tar.gz"]).well();
        let lock = folder.read("data/packages/plugins.lock");
        run(&folder, &["plugin", "install", "--force", "bad.tar.gz"]).badly();
        assert_eq!(folder.read("data/packages/plugins.lock"), lock);
        let mut kept = landed(&folder);
        kept.sort();
        assert_eq!(kept, ["bigquery", "plugins.lock"], "{says}");
        run(&folder, &["plugin", "verify"]).well();
    }
}

#[test]
fn what_a_package_requires_is_shown() {
    let folder = Folder::new();
    folder.write(
        "own/plugin.lua",
        plugin("OwnDataOutput", "requires = \">=0.1, <2\","),
    );
    let checked = run(&folder, &["plugin", "install", "own"]).well();
    assert!(checked.contains("own 1.0.0 installed"), "{checked}");
    let info = run(&folder, &["plugin", "info", "own"]).well();
    assert!(
        info.contains("OwnDataOutput 1.0.0  requires Patchbay >=0.1, <2"),
        "{info}"
    );
    let info = run(&folder, &["plugin", "info", "own", "--json"]).well();
    let info: serde_json::Value = serde_json::from_str(&info).expect("JSON");
    assert_eq!(info["plugins"][0]["requires"], ">=0.1, <2", "{info:#}");
}

#[test]
fn a_folder_is_held_to_the_same_rules() {
    let folder = Folder::new();
    folder.write("one/plugin.lua", bigquery("1.0.0", "Dataset"));
    for (make, says) in [
        (
            &(|| folder.link("/etc/passwd", "one/x.lua")) as &dyn Fn(),
            "found a link",
        ),
        (
            &|| folder.write("one/é.lua", "x"),
            "paths inside the package",
        ),
        (
            &|| folder.write("one/x.lua", vec![b' '; 5 << 20]),
            "at most 4 MiB",
        ),
    ] {
        make();
        let complaint = run(&folder, &["plugin", "install", "one"]).badly();
        assert!(complaint.contains(says), "{says}: {complaint}");
        for made in ["one/x.lua", "one/é.lua"] {
            if std::fs::symlink_metadata(folder.path(made)).is_ok() {
                folder.remove(made);
            }
        }
    }
    // What editors and version control leave is none of the package's.
    folder.write("one/.git/config", "x");
    folder.write("one/plugin.lua~", "x");
    run(&folder, &["plugin", "install", "one"]).well();
    let files = run(&folder, &["plugin", "info", "bigquery", "--files"]).well();
    assert!(!files.contains(".git") && !files.contains('~'), "{files}");
}

#[test]
fn a_plugin_that_does_not_load_is_not_installed() {
    for (source, says) in [
        ("return patchbay.plugin {".to_owned(), "plugin.lua:1"),
        (
            plugin("BadDataOutput", "feilds = {},"),
            "did you mean `fields`?",
        ),
        (
            plugin(
                "BadDataOutput",
                "ui_metadata = function() error('no form') end,",
            ),
            "no form",
        ),
        (
            plugin("BadDataOutput", "requires = \">=99\","),
            "requires Patchbay >=99",
        ),
        (
            plugin(
                "BadDataOutput",
                "table = \"snowflake_data_output_configurations\",",
            ),
            "embedded:snowflake has",
        ),
        (
            plugin("BadDataOutput", "aliases = { \"SnowflakeDataOutput\" },"),
            "embedded:snowflake has",
        ),
    ] {
        let folder = Folder::new();
        folder.write("bad/plugin.lua", source);
        let finished = run(&folder, &["plugin", "install", "bad"]);
        let complaint = finished.badly();
        assert!(complaint.contains(says), "{says}: {complaint}");
        assert_eq!(landed(&folder), Vec::<String>::new());
        let linked = run(&folder, &["plugin", "install", "--link", "bad"]).badly();
        assert!(linked.contains(says), "{says}: {linked}");
    }
}

#[test]
fn what_lies_behind_a_link_is_nobody_s_to_sweep() {
    let folder = Folder::new();
    folder.write("else/1.0.0-0123456789ab/kept.txt", "kept");
    folder.write("else/notes/kept.txt", "kept");
    folder.write("in/plugin.lua", bigquery("1.0.0", "Dataset"));
    run(&folder, &["plugin", "install", "in"]).well();
    // What an author put beside the versions stays, whatever is installed.
    folder.write("data/packages/bigquery/notes/kept.txt", "kept");
    folder.write("in/plugin.lua", bigquery("1.1.0", "Dataset"));
    run(&folder, &["plugin", "install", "in"]).well();
    assert_eq!(folder.read("data/packages/bigquery/notes/kept.txt"), "kept");
    // Somebody puts a link in the place of the package's folder.
    folder.rename("data/packages/bigquery", "aside");
    let target = folder.path("else");
    folder.link(&target.to_string_lossy(), "data/packages/bigquery");
    folder.write("in/plugin.lua", bigquery("1.2.0", "Dataset"));
    let complaint = run(&folder, &["plugin", "install", "in"]).badly();
    assert!(complaint.contains("found a link"), "{complaint}");
    run(&folder, &["plugin", "remove", "bigquery"]).well();
    for file in ["else/1.0.0-0123456789ab/kept.txt", "else/notes/kept.txt"] {
        assert_eq!(folder.read(file), "kept");
    }
}
