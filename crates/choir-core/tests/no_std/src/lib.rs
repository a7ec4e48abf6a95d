//! A program without a system: it brings its own panic handler and allocator. Where anything below it links `std`, the compiler refuses the second panic
//! handler, so neither the protocol nor the core, nor any of their dependencies, can reach a socket, a file or a clock.
#![no_std]

use core::alloc::{GlobalAlloc, Layout};

use choir_core as _;
use choir_protocol as _;

struct NoMemory;

// SAFETY: it never hands out memory, so there is nothing that could be misused. The program is compiled, never run.
unsafe impl GlobalAlloc for NoMemory {
    unsafe fn alloc(&self, _: Layout) -> *mut u8 {
        core::ptr::null_mut()
    }
    unsafe fn dealloc(&self, _: *mut u8, _: Layout) {}
}

#[global_allocator]
static ALLOCATOR: NoMemory = NoMemory;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
