//! Threads, views and session machines of Choir: pure functions and state machines without I/O and without a clock.
