//! Threads: what is decided, what is folded, who sees what.

mod properties;
mod rules;
mod vectors;
mod world;
