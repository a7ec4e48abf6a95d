//! The Choir server: sockets, thread actors, rings, HTTP routes; usable as a library.
