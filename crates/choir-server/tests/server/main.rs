//! The server over real sockets, judged by raw clients: each test's name is a sentence, with the numbers of the protocol's rules.

mod path;
mod world;
