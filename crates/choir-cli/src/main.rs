//! The choir command.
fn main() {}
