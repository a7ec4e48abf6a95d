//! Writes the vectors that this crate makes into `vectors/` at the root of the tree:
//!
//! ```text
//! cargo run -p choir-protocol --example make_vectors
//! ```
//!
//! A test compares the committed files with what this writes, and each case with a second opinion.

use std::path::Path;

#[path = "../tests/making/mod.rs"]
mod making;

fn main() -> std::io::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../vectors");
    for (name, text) in making::files() {
        std::fs::write(folder.join(name), text)?;
        println!("vectors/{name}");
    }
    Ok(())
}
