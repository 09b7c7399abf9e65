//! Manifests and mixtures to batches.
