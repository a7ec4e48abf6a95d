//! What the embedded engine promises beyond the contract of every engine.

use std::sync::Arc;

use super::{EmbeddedLog, Options};
use crate::Log;
use crate::conformance::{self, Durability, Opener};

fn small() -> Options {
    Options { segment_bytes: 8192, cached_heads: 4, ..Options::default() }
}

#[test]
fn the_embedded_engine_keeps_the_contract() {
    let place = || -> Opener {
        let directory = tempfile::tempdir().unwrap();
        Box::new(move || -> Arc<dyn Log> { Arc::new(EmbeddedLog::open(directory.path(), small()).unwrap()) })
    };
    conformance::run(place, Durability::Survives);
}
