//! Metrics and golden-data verification.
