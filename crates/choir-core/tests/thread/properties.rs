//! What holds of every thread, whatever its people do.
