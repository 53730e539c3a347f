//! A new migration changes what is embedded, and the compiler sees only changes of files it has read.

fn main() {
    println!("cargo::rerun-if-changed=../../migrations/sqlite");
    println!("cargo::rerun-if-changed=../../migrations/postgres");
}
