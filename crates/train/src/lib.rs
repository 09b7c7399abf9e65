//! The trainer: forward, backward, accumulation, checkpoints, resume.
