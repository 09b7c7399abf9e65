//! Reads the official files.
