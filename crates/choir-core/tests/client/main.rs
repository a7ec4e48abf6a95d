//! The client's machine and its replicas, in virtual time, against a server that the tests play. Names begin with the rules that they check.
#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]

mod actions;
mod connection;
mod convergence;
mod exactly_once;
mod replica;
mod support;
mod threads;
