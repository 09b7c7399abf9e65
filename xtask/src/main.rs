//! Chores: `cargo xtask` lists them.
fn main() {}
