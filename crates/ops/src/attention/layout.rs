//! The layout of a packed batch for varlen attention: which rows belong to which sequence, and their
//! positions.

use super::Span;

/// The rows of each sequence in a packed batch, and the position of each row.
#[derive(Debug, Clone, Default)]
pub struct Layout {
    /// Position of each row in its sequence.
    pub positions: Vec<u32>,
    /// Query rows and key rows, one span per sequence.
    pub spans: Vec<Span>,
    /// The cache row that each row's key and value are written to; empty without a cache.
    pub cache_rows: Vec<usize>,
}

impl Layout {
    /// Complete sequences of these lengths, without a cache.
    pub fn packed(lengths: &[usize]) -> Layout {
        let mut layout = Layout::default();
        let mut start = 0;
        for &len in lengths {
            layout.positions.extend(0..len as u32);
            layout.spans.push(Span { q: start..start + len, k: start..start + len });
            start += len;
        }
        layout
    }

    /// For each sequence i, `new[i]` tokens that follow the `past[i]` tokens in the cache. The cache holds
    /// `capacity` tokens per sequence.
    pub fn cached(past: &[usize], new: &[usize], capacity: usize) -> Layout {
        let mut layout = Layout::default();
        let mut start = 0;
        for (i, (&past, &new)) in past.iter().zip(new).enumerate() {
            let base = i * capacity;
            layout.positions.extend(past as u32..(past + new) as u32);
            layout.cache_rows.extend(base + past..base + past + new);
            // A sequence without new tokens has no query rows, so its cached keys are not read.
            if new > 0 {
                layout.spans.push(Span { q: start..start + new, k: base..base + past + new });
            }
            start += new;
        }
        layout
    }
}
