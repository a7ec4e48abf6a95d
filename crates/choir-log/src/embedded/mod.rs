//! The default engine: one directory, one process.
