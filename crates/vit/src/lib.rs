//! CLIP's vision transformer with two LoRA sets.
