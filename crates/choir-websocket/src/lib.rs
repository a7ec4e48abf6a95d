//! RFC 6455 as a sans-I/O codec: frames built once, shared by many.
