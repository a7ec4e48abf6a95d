//! The Choir client for Rust.
