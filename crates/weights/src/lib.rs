//! Checkpoints: safetensors in and out, the released .pt, name maps.
