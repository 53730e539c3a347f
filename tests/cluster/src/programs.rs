//! Where Postgres is installed, and how it gets there.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::exists;

/// Where Debian keeps the programs of each version.
const DEBIAN: &str = "/usr/lib/postgresql";

/// The programs of one version, and the user they run as.
pub(crate) struct Programs {
    folder: PathBuf,
    /// Another than root, under which Postgres does not start; none for the user we are.
    pub(crate) user: Option<(u32, u32)>,
}

impl Programs {
    pub(crate) fn find() -> Programs {
        let root = rustix::process::geteuid().is_root();
        let folder = installed().or_else(|| {
            if root {
                install();
            }
            installed()
        });
        let Some(folder) = folder else {
            panic!(
                "these tests need Postgres, and there is none: install it (on Debian: apt-get install postgresql), \
                 or put `initdb` and `postgres` into the PATH"
            );
        };
        let user = root.then(|| user("postgres").or_else(|| user("nobody")));
        let user = user.map(|user| user.expect("a user other than root in /etc/passwd"));
        Programs { folder, user }
    }

    /// One of the programs, to be run as the right user, in a group of its own: a terminal's interrupt is not for it.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.folder.join(program));
        command.current_dir("/").process_group(0);
        for inherited in [
            "PGHOST",
            "PGPORT",
            "PGUSER",
            "PGDATABASE",
            "PGDATA",
            "PGOPTIONS",
        ] {
            command.env_remove(inherited);
        }
        if let Some((user, group)) = self.user {
            command.uid(user).gid(group);
        }
        command
    }
}

/// The newest version with all its programs.
fn installed() -> Option<PathBuf> {
    let complete = |folder: &PathBuf| {
        ["initdb", "postgres", "pg_isready"]
            .iter()
            .all(|program| exists(&folder.join(program)))
    };
    let path = std::env::var_os("PATH").unwrap_or_default();
    let in_path = std::env::split_paths(&path).filter_map(|folder| {
        // Postgres finds its own files beside where it really is.
        let real = fs::canonicalize(folder.join("initdb")).ok()?;
        Some(real.parent()?.to_owned())
    });
    let mut versions: Vec<(u32, PathBuf)> = fs::read_dir(DEBIAN)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let version = entry.file_name().to_str()?.parse().ok()?;
            Some((version, entry.path().join("bin")))
        })
        .collect();
    versions.sort();
    let newest_first = versions.into_iter().rev().map(|(_, folder)| folder);
    newest_first.chain(in_path).find(complete)
}

/// Installs it with Debian's package manager, where there is one.
fn install() {
    let apt = |arguments: &[&str]| {
        Command::new("apt-get")
            .args(arguments)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .stdin(Stdio::null())
            .output()
    };
    // When it fails there is no Postgres, and that is said where it is missed.
    let _updated = apt(&["update"]);
    let _installed = apt(&["install", "--yes", "--no-install-recommends", "postgresql"]);
}

/// The ids of a user and its group.
fn user(name: &str) -> Option<(u32, u32)> {
    let users = fs::read_to_string("/etc/passwd").ok()?;
    users.lines().find_map(|line| {
        let mut parts = line.split(':');
        (parts.next()? == name).then_some(())?;
        let (user, group) = (parts.nth(1)?, parts.next()?);
        Some((user.parse().ok()?, group.parse().ok()?))
    })
}
