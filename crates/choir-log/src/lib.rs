//! The storage trait of Choir, its engines and their conformance suite.
