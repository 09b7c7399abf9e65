//! The Phi language model.
