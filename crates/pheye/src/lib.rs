//! Pheye in one crate: run and train a small vision-language model that reads fine detail.
