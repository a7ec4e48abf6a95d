//! The client's machine and its replicas, in virtual time, against a server that the tests play. Names begin with the rules that they check.

mod actions;
mod support;
