//! The lock that keeps a second server away from a database file: a file beside it, locked for as long as the store
//! lives. The system releases it when the process dies, however it dies.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use crate::error::StoreError;

/// Held while it lives.
#[derive(Debug)]
pub(crate) struct ServerLock {
    _file: File,
}

impl ServerLock {
    /// Takes the lock of a database file. The lock file stays when it is released: removing it would let two processes
    /// each hold a lock of a file of that name.
    pub(crate) fn take(database: &Path) -> Result<ServerLock, StoreError> {
        let mut name = database.as_os_str().to_owned();
        name.push(".lock");
        let path = PathBuf::from(name);
        let fails = |error: std::io::Error| {
            StoreError::CannotOpen(format!("cannot lock the database with {path:?}: {error}"))
        };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(fails)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                // Who holds it is a courtesy; without it the message is still right.
                let pid = match file.read_to_string(&mut text) {
                    Ok(_) => text.trim().parse().ok(),
                    Err(_) => None,
                };
                return Err(StoreError::LockedByServer { path, pid });
            }
            Err(TryLockError::Error(error)) => return Err(fails(error)),
        }
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(fails)?;
        Ok(ServerLock { _file: file })
    }
}
