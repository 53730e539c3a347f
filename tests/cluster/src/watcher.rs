//! Who ends a cluster whose process is gone: a shell that waits for the end of its input, which the system closes with
//! the process that holds the other end, however that process ends.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};

/// Waits for the end of input; then, unless told that all is well, ends the server and removes the folder.
const SCRIPT: &str = r#"
    read -r word
    [ "$word" = dismissed ] && exit
    pid=$(head -n 1 "$1/data/postmaster.pid" 2>/dev/null)
    if [ -n "$pid" ]; then
        kill -CONT -- "-$pid" 2>/dev/null
        kill -QUIT "$pid" 2>/dev/null
        waited=0
        while [ -e "$1/data/postmaster.pid" ] && [ $waited -lt 100 ]; do
            sleep 0.1
            waited=$((waited + 1))
        done
    fi
    rm -rf "$1"
"#;

pub(crate) struct Watcher(Mutex<Option<Child>>);

impl Watcher {
    pub(crate) fn start(folder: &Path) -> Watcher {
        let child = Command::new("sh")
            .args(["-c", SCRIPT, "sh"])
            .arg(folder)
            .current_dir("/")
            // What ends the tests does not end it.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell");
        Watcher(Mutex::new(Some(child)))
    }

    /// Has nothing more to watch.
    pub(crate) fn dismiss(&self) {
        use std::io::Write;
        let child = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut child) = child {
            if let Some(mut input) = child.stdin.take() {
                // A watcher that is gone watches no more either.
                let _gone = input.write_all(b"dismissed\n");
            }
            let _ended = child.wait();
        }
    }
}
