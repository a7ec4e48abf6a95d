//! Threads, views and session machines of Choir: no sockets, no clock, no tasks.
#![no_std]

extern crate alloc;

pub mod apply;
pub mod batch;
pub mod client;
pub mod decide;
pub mod evaluate;
pub mod receipt;
pub mod record;
pub mod session;
pub mod thread;
pub mod view;
