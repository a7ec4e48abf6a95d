//! The Choir protocol as types and pure functions: no sockets, no clock, no tasks, no randomness of its own.
#![no_std]

extern crate alloc;

pub mod canonical;
pub mod checkpoint;
pub mod encoding;
pub mod hash;
pub mod json;
pub mod key;
pub mod merkle;
