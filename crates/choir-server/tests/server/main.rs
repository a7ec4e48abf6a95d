//! The server over real sockets, judged by raw clients: each test's name is a sentence, with the numbers of the protocol's rules.
#![allow(clippy::unwrap_used, reason = "a test that finds nothing there has failed")]

mod approval;
mod durability;
mod embedded;
mod faulty;
mod lifecycle;
mod limits;
mod path;
mod refusals;
mod requests;
mod rights;
mod sequence;
mod storm;
mod sync;
mod world;
