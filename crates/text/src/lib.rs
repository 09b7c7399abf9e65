//! Tokenizer and prompt template.
