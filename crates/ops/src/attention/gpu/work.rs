//! Work lists of the attention kernels for varlen batches: which rows each block owns. An [`Item`] is encoded like
//! `AttentionItem` in `attention.cuh`.

use std::ops::Range;

use super::Span;

/// The work of one block, the same for every head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::attention) struct Item {
    /// Rows that the block owns.
    pub own: Range<usize>,
    /// Rows of the other kind (keys for queries, queries for keys) that it loops over.
    pub loop_rows: Range<usize>,
    /// The causal limit: the number of keys, from the item's first key, that its first query attends to. Each further
    /// query attends to one more.
    pub causal_limit: i64,
    /// First row of its partial result, if the keys are split.
    pub partial_row: usize,
    /// Whether the previous item owns the same rows, with earlier keys.
    pub continues: bool,
}

impl Item {
    fn new(own: Range<usize>, loop_rows: Range<usize>, causal_limit: i64) -> Item {
        Item { own, loop_rows, causal_limit, partial_row: 0, continues: false }
    }

    fn words(&self) -> [u32; 8] {
        let Item { own, loop_rows, causal_limit, partial_row, continues } = self;
        // The limit fits into i32 after clamping: a negative limit means no keys, and one beyond the tile means all
        // keys.
        let causal_limit =
            (*causal_limit).clamp(i64::from(i32::MIN / 2), i64::from(i32::MAX / 2)) as i32 as u32;
        [
            own.start as u32,
            own.len() as u32,
            loop_rows.start as u32,
            loop_rows.len() as u32,
            causal_limit,
            *partial_row as u32,
            u32::from(*continues),
            0,
        ]
    }
}

/// Encodes the items for the kernel.
pub(in crate::attention) fn table(items: &[Item]) -> Vec<u32> {
    items.iter().flat_map(Item::words).collect()
}

/// The rows of 0..rows that are in none of `ranges`.
fn gaps(rows: usize, ranges: impl Iterator<Item = Range<usize>>) -> Vec<Range<usize>> {
    let mut taken: Vec<_> = ranges.filter(|r| !r.is_empty()).collect();
    taken.sort_by_key(|r| r.start);
    let mut at = 0;
    let mut free = Vec::new();
    for r in taken {
        if r.start > at {
            free.push(at..r.start);
        }
        at = at.max(r.end);
    }
    if rows > at {
        free.push(at..rows);
    }
    free
}

fn tiles(rows: Range<usize>, tile: usize) -> impl Iterator<Item = Range<usize>> {
    let end = rows.end;
    rows.step_by(tile).map(move |i| i..end.min(i.saturating_add(tile)))
}

/// Items that own tiles of queries. Rows outside all spans become items without keys, for which the kernels write
/// zeros.
pub(in crate::attention) fn of_queries(spans: &[Span], rows: usize, causal: bool, tile: usize) -> Vec<Item> {
    let mut items = Vec::new();
    for Span { q, k } in spans {
        let (lq, lk) = (q.len() as i64, k.len() as i64);
        for own in tiles(q.clone(), tile) {
            let first = (own.start - q.start) as i64;
            let causal_limit = if causal { lk - lq + 1 + first } else { lk };
            let most = if causal { causal_limit + own.len() as i64 - 1 } else { lk };
            let loop_rows = k.start..k.start + most.clamp(0, lk) as usize;
            items.push(Item::new(own, loop_rows, causal_limit));
        }
    }
    for gap in gaps(rows, spans.iter().map(|s| s.q.clone())) {
        items.extend(tiles(gap, tile).map(|own| Item::new(own, 0..0, 0)));
    }
    items
}

/// Items that own tiles of keys, with the queries that attend to them. Keys outside all spans become items without
/// queries.
pub(in crate::attention) fn of_keys(spans: &[Span], rows: usize, causal: bool, tile: usize) -> Vec<Item> {
    let mut items = Vec::new();
    for Span { q, k } in spans {
        let (lq, lk) = (q.len() as i64, k.len() as i64);
        for own in tiles(k.clone(), tile) {
            let at = (own.start - k.start) as i64;
            let first = if causal { (at + lq - lk).clamp(0, lq) } else { 0 };
            let causal_limit = if causal { lk - lq + 1 + first - at } else { lk - at };
            items.push(Item::new(own, q.start + first as usize..q.end, causal_limit));
        }
    }
    for gap in gaps(rows, spans.iter().map(|s| s.k.clone())) {
        items.extend(tiles(gap, tile).map(|own| Item::new(own, 0..0, 0)));
    }
    items
}

/// Items for the keys that no query attends to, for kernels that own queries and keys: those outside all spans or in a
/// span without queries.
pub(in crate::attention) fn of_keys_unseen(spans: &[Span], rows: usize) -> impl Iterator<Item = Item> {
    let attended = spans.iter().filter(|s| !s.q.is_empty()).map(|s| s.k.clone());
    let item = |keys| Item::new(0..0, keys, 0);
    gaps(rows, attended).into_iter().map(item)
}

/// Items whose keys are split (split-K over keys), and how to combine their partial results.
#[derive(Debug)]
pub(in crate::attention) struct Splits {
    /// The items; `partial_row` is the first row of the item's partial result.
    pub items: Vec<Item>,
    /// One for each tile of queries: `loop_rows.len()` partial results of `own.len()` rows each, from row `partial_row` on.
    pub reductions: Vec<Item>,
    /// Total number of rows of all partial results.
    pub rows: usize,
}

impl Splits {
    /// The largest number of rows of an item.
    pub(in crate::attention) fn longest(&self) -> usize {
        self.reductions.iter().map(|item| item.own.len()).max().unwrap_or(0)
    }
}

/// The maximum number of splits of an item: the reduction has a lane of a warp for each.
const MAX_SPLITS: usize = 32;

/// Minimum number of keys per split; with fewer, the fixed cost of a split outweighs its work.
const MIN_SPLIT: usize = 128;

/// Splits the keys, in multiples of `tile`, so that the blocks of all heads fill a GPU of `sms` multiprocessors twice.
/// Returns `None` if there are enough blocks without splitting.
pub(in crate::attention) fn split_keys(
    items: &[Item],
    heads: usize,
    sms: usize,
    tile: usize,
) -> Option<Splits> {
    let (blocks, longest) = (items.len() * heads, items.iter().map(|i| i.loop_rows.len()).max()?);
    if blocks == 0 || blocks >= sms {
        return None;
    }
    let length = longest
        .div_ceil((2 * sms).div_ceil(blocks))
        .max(MIN_SPLIT)
        .max(longest.div_ceil(MAX_SPLITS))
        .next_multiple_of(tile);
    if longest <= length {
        return None;
    }
    let mut splits = Splits { items: Vec::new(), reductions: Vec::new(), rows: 0 };
    for item in items {
        // At least one split, even without keys, because the statistics of each row are computed from its partial
        // results.
        let count = item.loop_rows.len().div_ceil(length).max(1);
        splits.reductions.push(Item { loop_rows: 0..count, partial_row: splits.rows, ..item.clone() });
        for at in (0..count).map(|i| i * length) {
            let start = item.loop_rows.start + at;
            let (loop_rows, causal_limit) =
                (start..item.loop_rows.end.min(start + length), item.causal_limit - at as i64);
            splits.items.push(Item {
                own: item.own.clone(),
                loop_rows,
                causal_limit,
                partial_row: splits.rows,
                continues: at > 0,
            });
            splits.rows += item.own.len();
        }
    }
    Some(splits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_owned_once() {
        let spans =
            [Span { q: 3..70, k: 10..20 }, Span { q: 80..81, k: 40..205 }, Span { q: 2..2, k: 30..33 }];
        let owned = |items: &[Item]| {
            let mut rows: Vec<_> = items.iter().flat_map(|i| i.own.clone()).collect();
            rows.sort_unstable();
            rows
        };
        for causal in [false, true] {
            assert_eq!(owned(&of_queries(&spans, 90, causal, 64)), (0..90).collect::<Vec<_>>());
            assert_eq!(owned(&of_keys(&spans, 210, causal, 64)), (0..210).collect::<Vec<_>>());
        }
    }

    #[test]
    fn parts_hold_each_key_once() {
        let items = of_queries(&[Span { q: 0..65, k: 7..1000 }, Span { q: 65..67, k: 0..5 }], 70, false, 64);
        let splits = split_keys(&items, 2, 40, 64).expect("few blocks");
        assert_eq!(splits.reductions.len(), items.len());
        for (item, reduction) in items.iter().zip(&splits.reductions) {
            let of_item = |p: &&Item| p.own == item.own;
            let keys: Vec<_> =
                splits.items.iter().filter(of_item).flat_map(|p| p.loop_rows.clone()).collect();
            assert_eq!(keys, item.loop_rows.clone().collect::<Vec<_>>());
            assert_eq!(splits.items.iter().filter(of_item).count(), reduction.loop_rows.len());
        }
        assert!(split_keys(&items, 40, 40, 64).is_none());
    }
}
