//! Builds again when what the binary embeds changes; the macro that embeds it cannot say so itself.

fn main() {
    println!("cargo::rerun-if-changed=lua-plugins");
    println!("cargo::rerun-if-changed=config");
}
