//! The `pheye` command.
fn main() {}
