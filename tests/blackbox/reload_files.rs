//! The ways in which files change: by rename, in bursts, through links, in folders that come and go, and unseen.

use serde_json::json;

use crate::harness::{Folder, Http, Options, Server};
use crate::world::{FILE, FORM, bigquery, entry, entry_at, names, plugin, until_version};

async fn until_gone(server: &Http) {
    server.until(FORM, 404, |_| true).await;
}

/// What a way of writing a file is called, and how it writes a text.
type Way<'a> = (&'static str, &'a dyn Fn(&str));

#[tokio::test]
async fn editors_write_as_they_like() {
    let server = Server::start(|options| {
        options.file(FILE, bigquery("1.0.0", "Dataset"));
    });
    let folder = &server.folder;
    let write: [Way<'_>; 6] = [
        ("in place", &|text| folder.write(FILE, text)),
        ("by rename", &|text| folder.write_by_rename(FILE, text)),
        ("removed and written again", &|text| {
            folder.remove(FILE);
            folder.write(FILE, text);
        }),
        ("with a copy moved aside, as vim does", &|text| {
            folder.rename(FILE, "lua-plugins/bigquery.lua~");
            folder.write(FILE, text);
            folder.remove("lua-plugins/bigquery.lua~");
        }),
        ("in pieces", &|text| {
            for end in (0..text.len()).step_by(40) {
                folder.write(FILE, &text[..end]);
            }
            folder.write(FILE, text);
        }),
        ("in a burst", &|text| {
            for number in 0..300 {
                folder.write_by_rename(FILE, bigquery("0.0.1", &number.to_string()));
                folder.write(&format!("lua-plugins/.{number}.swp"), "x");
            }
            folder.write_by_rename(FILE, text);
        }),
    ];
    for (round, (how, write)) in write.iter().enumerate() {
        let version = format!("1.{}.0", round + 1);
        write(&bigquery(&version, how));
        let form = until_version(&server, &version).await;
        assert_eq!(form["ui_metadata"][0]["label"], *how);
    }
}

#[tokio::test]
async fn files_and_folders_are_renamed_moved_in_and_moved_out() {
    let server = Server::start(|options| {
        options.file(FILE, bigquery("1.0.0", "Dataset"));
    });
    let folder = &server.folder;
    let source_is = async |end: &str| {
        server
            .until("plugins/BigQueryDataOutput", 200, |details| {
                details["state"] == "active"
                    && details["source"]
                        .as_str()
                        .is_some_and(|source| source.ends_with(end))
            })
            .await
    };
    folder.rename(FILE, "lua-plugins/renamed.lua");
    source_is("renamed.lua").await;
    folder.rename("lua-plugins/renamed.lua", "outside.lua");
    until_gone(&server).await;
    folder.write("outside/plugin.lua", bigquery("2.0.0", "Dataset"));
    folder.rename("outside", "lua-plugins/inside");
    until_version(&server, "2.0.0").await;
    folder.rename("lua-plugins/inside", "lua-plugins/elsewhere");
    source_is("elsewhere").await;
    // A folder that was moved in is watched like one that was there.
    folder.write(
        "lua-plugins/elsewhere/plugin.lua",
        bigquery("2.1.0", "Dataset"),
    );
    until_version(&server, "2.1.0").await;
    folder.rename(
        "lua-plugins/elsewhere/plugin.lua",
        "lua-plugins/elsewhere/other.lua",
    );
    until_gone(&server).await;
    folder.rename(
        "lua-plugins/elsewhere/other.lua",
        "lua-plugins/elsewhere/plugin.lua",
    );
    until_version(&server, "2.1.0").await;
    folder.remove("lua-plugins/elsewhere");
    until_gone(&server).await;
    // From one file to a folder of the same plugin: its table is its own still.
    folder.write(FILE, bigquery("3.0.0", "Dataset"));
    until_version(&server, "3.0.0").await;
    folder.write(
        "lua-plugins/bigquery/plugin.lua",
        bigquery("3.1.0", "Dataset"),
    );
    folder.remove(FILE);
    until_version(&server, "3.1.0").await;
    let status = server.get("plugins/status").await.is(200).json();
    assert_eq!(entry_at(&status, "lua-plugins/bigquery")["state"], "active");
}

/// Writes a folder as Kubernetes mounts a config map: files are links through `..data`, which is swapped as a whole.
fn mount(folder: &Folder, at: &str, round: usize, files: &[(&str, String)]) {
    let data = format!("..{round:04}");
    for (name, text) in files {
        folder.write(&format!("{at}/{data}/{name}"), text);
    }
    folder.link(&data, &format!("{at}/..data_tmp"));
    folder.rename(&format!("{at}/..data_tmp"), &format!("{at}/..data"));
    for (name, _) in files {
        if std::fs::symlink_metadata(folder.path(&format!("{at}/{name}"))).is_err() {
            folder.link(&format!("..data/{name}"), &format!("{at}/{name}"));
        }
    }
    if round > 0 {
        folder.remove(&format!("{at}/..{:04}", round - 1));
    }
}

#[tokio::test]
async fn the_link_swap_of_kubernetes_is_one_change() {
    let folder = Folder::new();
    let of = |round: usize| {
        let version = format!("1.{round}.0");
        [
            ("bigquery.lua", bigquery(&version, "Dataset")),
            (
                "other.lua",
                plugin("OtherDataOutput", &format!("version = \"{version}\",")).replacen(
                    "version = \"1.0.0\",",
                    "",
                    1,
                ),
            ),
        ]
    };
    let single = |round: usize| {
        let source = plugin("MountedDataOutput", "").replace("1.0.0", &format!("1.{round}.0"));
        [
            (
                "plugin.lua",
                format!("local part = require \"./part\"\n{source}"),
            ),
            ("part.lua", format!("return {round}")),
        ]
    };
    mount(&folder, "mount", 0, &of(0));
    mount(&folder, "single", 0, &single(0));
    let server = Server::start_in(folder.clone(), |options| {
        options
            .env("PATCHBAY_PLUGIN_PATHS", "lua-plugins:mount:single")
            .env("ENABLED_PLUGINS", "[]");
    });
    let list = server.get("plugins").await.is(200).json();
    assert_eq!(
        names(&list),
        ["BigQueryDataOutput", "MountedDataOutput", "OtherDataOutput"]
    );
    for round in 1..=5 {
        mount(&folder, "mount", round, &of(round));
        mount(&folder, "single", round, &single(round));
        let version = format!("1.{round}.0");
        server
            .until("plugins", 200, |list| {
                let plugins = list["plugins"].as_array().expect("plugins");
                plugins.len() == 3
                    && plugins
                        .iter()
                        .all(|plugin| plugin["version"] == version && plugin["state"] == "active")
            })
            .await;
    }
}

#[tokio::test]
async fn a_path_may_appear_later_and_come_back() {
    let server = Server::start(|options| {
        options
            .env("PATCHBAY_PLUGIN_PATHS", "lua-plugins:mnt/deep/plugins")
            .env("ENABLED_PLUGINS", "[]");
    });
    let list = server.get("plugins").await.is(200).json();
    assert_eq!(list["plugins"], json!([]));
    let folder = &server.folder;
    // The default path is not there either.
    folder.write("lua-plugins/own.lua", plugin("OwnDataOutput", ""));
    server
        .until("plugins/OwnDataOutput/form", 200, |_| true)
        .await;
    folder.write(
        "mnt/deep/plugins/bigquery.lua",
        bigquery("1.0.0", "Dataset"),
    );
    until_version(&server, "1.0.0").await;
    folder.write(
        "mnt/deep/plugins/bigquery.lua",
        bigquery("1.1.0", "Dataset"),
    );
    until_version(&server, "1.1.0").await;
    // A whole path that is gone is more likely a mount that broke than a wish to remove every plugin in it.
    folder.rename("mnt", "unmounted");
    let status = server
        .until("plugins/status", 200, |status| {
            entry(status, "BigQueryDataOutput")["state"] == "degraded"
        })
        .await;
    let error = &entry(&status, "BigQueryDataOutput")["last_error"];
    assert!(
        error["message"]
            .as_str()
            .is_some_and(|text| text.contains("mnt/deep/plugins")),
        "{error}"
    );
    assert_eq!(server.get(FORM).await.is(200).json()["version"], "1.1.0");
    folder.write(
        "unmounted/deep/plugins/bigquery.lua",
        bigquery("1.2.0", "Dataset"),
    );
    folder.rename("unmounted", "mnt");
    until_version(&server, "1.2.0").await;
    folder.write(
        "mnt/deep/plugins/bigquery.lua",
        bigquery("1.3.0", "Dataset"),
    );
    until_version(&server, "1.3.0").await;
}

#[tokio::test]
async fn a_path_may_be_a_link_that_is_swapped() {
    let folder = Folder::new();
    for release in 1..=3 {
        let version = format!("{release}.0.0");
        folder.write(
            &format!("releases/{release}/bigquery.lua"),
            bigquery(&version, "Dataset"),
        );
    }
    folder.link("releases/1", "current");
    let server = Server::start_in(folder.clone(), |options| {
        options.env("PATCHBAY_PLUGIN_PATHS", "current");
    });
    until_version(&server, "1.0.0").await;
    for release in [2, 3, 1] {
        folder.link(&format!("releases/{release}"), "current_tmp");
        folder.rename("current_tmp", "current");
        until_version(&server, &format!("{release}.0.0")).await;
    }
    // It is the release that is watched now.
    folder.write("releases/1/bigquery.lua", bigquery("1.0.1", "Dataset"));
    until_version(&server, "1.0.1").await;
}

fn polling(options: &mut Options) {
    options.env("PATCHBAY_POLL_MS", "50");
}

#[tokio::test]
async fn where_the_file_system_tells_nothing_it_is_looked_at() {
    let server = Server::start(polling);
    let folder = &server.folder;
    folder.write(FILE, bigquery("1.0.0", "Dataset"));
    until_version(&server, "1.0.0").await;
    // Of the same length, so that only its content tells.
    folder.write(FILE, bigquery("1.0.1", "Dataset"));
    until_version(&server, "1.0.1").await;
    folder.write(FILE, "return patchbay.plugin {");
    server
        .until(FORM, 200, |form| {
            form["state"] == "degraded" && form["version"] == "1.0.1"
        })
        .await;
    folder.write_by_rename(FILE, bigquery("1.1.0", "Dataset"));
    until_version(&server, "1.1.0").await;
    folder.write(
        "lua-plugins/folder/plugin.lua",
        plugin("FolderDataOutput", ""),
    );
    server
        .until("plugins/FolderDataOutput/form", 200, |_| true)
        .await;
    folder.remove("lua-plugins/folder");
    server
        .until("plugins/FolderDataOutput/form", 404, |_| true)
        .await;
    folder.remove(FILE);
    until_gone(&server).await;
}

#[tokio::test]
async fn what_came_and_went_between_two_looks_is_gone() {
    let server = Server::start(|options| {
        options.env("PATCHBAY_POLL_MS", "500");
        options.file("lua-plugins/own.lua", plugin("OwnDataOutput", ""));
    });
    for _ in 0..3 {
        server.folder.write(
            "lua-plugins/folder/plugin.lua",
            plugin("FolderDataOutput", ""),
        );
        // Found by another way than by being looked for, so that the looks may never have seen it.
        server.post("plugins/reload", &json!({})).await.is(200);
        server.get("plugins/FolderDataOutput/form").await.is(200);
        server.folder.remove("lua-plugins/folder");
        server
            .until("plugins/FolderDataOutput/form", 404, |_| true)
            .await;
    }
}

#[tokio::test]
async fn what_is_no_file_does_no_harm() {
    let folder = Folder::new();
    folder.write("lua-plugins/own.lua", plugin("OwnDataOutput", ""));
    folder.link("/dev/zero", "lua-plugins/zero.lua");
    folder.link("nowhere.lua", "lua-plugins/dangling.lua");
    folder.link("loop.lua", "lua-plugins/loop.lua");
    folder.link("..", "lua-plugins/up");
    folder.write(
        "lua-plugins/folder.lua/notes.txt",
        "a folder with a file's name",
    );
    folder.write("lua-plugins/latin1.lua", b"return \"\xe9\"");
    folder.write("lua-plugins/huge.lua", "-".repeat(2 * 1024 * 1024));
    folder.write(
        "lua-plugins/linked/plugin.lua",
        format!("require \"./secret\"\n{}", plugin("LinkedOutput", "")),
    );
    folder.write("secret.lua", "return 1");
    folder.link("../../secret.lua", "lua-plugins/linked/secret.lua");
    let fifo = folder.path("lua-plugins/pipe.lua");
    let made = std::process::Command::new("mkfifo")
        .arg(&fifo)
        .status()
        .expect("mkfifo");
    assert!(made.success());
    let server = Server::start_in(folder, |options| {
        options.env("ENABLED_PLUGINS", "[]");
    });
    let list = server.get("plugins").await.is(200).json();
    assert_eq!(names(&list), ["OwnDataOutput"]);
    let status = server.get("plugins/status").await.is(200).json();
    for (file, says) in [
        ("zero.lua", "regular file"),
        ("pipe.lua", "regular file"),
        ("latin1.lua", "UTF-8"),
        ("huge.lua", "larger"),
        ("linked", "leaves the plugin's folder"),
    ] {
        let failed = entry_at(&status, file);
        assert_eq!(failed["state"], "failed", "{file}: {status}");
        let message = failed["last_error"]["message"].as_str().expect("a message");
        assert!(message.contains(says), "{file}: {message}");
    }
    server.folder.remove("lua-plugins/zero.lua");
    server
        .folder
        .write("lua-plugins/zero.lua", bigquery("1.0.0", "Dataset"));
    until_version(&server, "1.0.0").await;
}
