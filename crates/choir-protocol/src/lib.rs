//! The Choir protocol as types and pure functions: no sockets, no clock, no tasks, no randomness of its own.
#![no_std]

extern crate alloc;

pub mod action;
pub mod canonical;
pub mod checkpoint;
pub mod de;
pub mod encoding;
pub mod entry;
pub mod error;
pub mod hash;
pub mod ids;
pub mod json;
pub mod key;
pub mod merkle;
pub mod message;
pub mod range;
pub mod sign;
pub mod thread;
