//! Gradient checks, the tolerance rule and the golden-data loader.
