//! Who runs a command, as histories tell it.

/// The account of the process and the machine, as in `local ann@db-1`. The account is the one that the system knows the
/// process by, because the environment (`USER`, `LOGNAME`) can say anything, or nothing, as in a container.
pub(super) fn who() -> String {
    let account = whoami::username().unwrap_or_else(|_| number());
    match whoami::hostname() {
        Ok(machine) => format!("local {account}@{machine}"),
        Err(_) => format!("local {account}"),
    }
}

/// What an account without a name is called.
#[cfg(unix)]
fn number() -> String {
    format!("uid {}", rustix::process::geteuid().as_raw())
}

#[cfg(not(unix))]
fn number() -> String {
    "nobody".to_owned()
}
