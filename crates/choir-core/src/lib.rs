//! Threads, views and session machines of Choir: no sockets, no clock, no tasks.
#![no_std]

extern crate alloc;

pub mod record;
pub mod session;
