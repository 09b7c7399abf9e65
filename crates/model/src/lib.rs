//! Pheye assembled: vision, cross-attention, language, generation.
