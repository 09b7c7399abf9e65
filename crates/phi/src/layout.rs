//! Which rows of a packed batch belong to which sequence, and at which position (varlen attention).

use pheye_ops::attention::Span;

/// Which rows of a packed batch belong to which sequence, and where each stands.
#[derive(Debug, Clone, Default)]
pub struct Layout {
    /// Position of each row in its sequence.
    pub positions: Vec<u32>,
    /// Rows of queries and rows of keys, a span for each sequence.
    pub spans: Vec<Span>,
    /// Where each row's key and value go in the cache; empty without a cache.
    pub cache_rows: Vec<usize>,
}

impl Layout {
    /// Whole sequences of these lengths, without a cache.
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

    /// `new[i]` further tokens of sequence i, whose first `past[i]` are in the cache; the cache holds `capacity`
    /// tokens of each sequence.
    pub fn cached(past: &[usize], new: &[usize], capacity: usize) -> Layout {
        let mut layout = Layout::default();
        let mut start = 0;
        for (i, (&past, &new)) in past.iter().zip(new).enumerate() {
            let base = i * capacity;
            layout.positions.extend(past as u32..(past + new) as u32);
            layout.cache_rows.extend(base + past..base + past + new);
            // A sequence without new tokens has ended: it takes no part, and its keys are not read.
            if new > 0 {
                layout.spans.push(Span { q: start..start + new, k: base..base + past + new });
            }
            start += new;
        }
        layout
    }
}
