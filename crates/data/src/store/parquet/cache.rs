//! Keeps the last decoded pages, because some writers put a thousand images into one page.

use std::sync::{Arc, Mutex};

use parquet::data_type::ByteArray;

/// Maximum size in bytes of all pages that are kept.
const LIMIT: usize = 256 << 20;
/// Maximum number of pages that are kept.
const PAGES: usize = 64;

/// The values of a page.
pub(super) type Page = Arc<[Option<ByteArray>]>;
/// The numbers of a part, a row group, a column and a page.
pub(super) type Key = [usize; 4];

/// Pages, of which the one that was used last is at the end, with their sizes in bytes.
#[derive(Default)]
pub(super) struct Cache(Mutex<Vec<(Key, Page, usize)>>);

impl Cache {
    pub(super) fn get(&self, key: Key) -> Option<Page> {
        let mut pages = self.0.lock().unwrap_or_else(|e| e.into_inner());
        let found = pages.iter().position(|(other, ..)| *other == key)?;
        let last = pages.remove(found);
        let page = last.1.clone();
        pages.push(last);
        Some(page)
    }

    /// Keeps a page, unless it alone is larger than the limit, and drops those not used for longest.
    /// `dictionary` is the size of what the values may point into.
    pub(super) fn put(&self, key: Key, page: &Page, dictionary: usize) {
        let size = page.iter().flatten().map(ByteArray::len).sum::<usize>().max(dictionary);
        if size > LIMIT {
            return;
        }
        let mut pages = self.0.lock().unwrap_or_else(|e| e.into_inner());
        pages.retain(|(other, ..)| *other != key);
        pages.push((key, page.clone(), size));
        let mut total: usize = pages.iter().map(|(.., size)| size).sum();
        while total > LIMIT || pages.len() > PAGES {
            total -= pages.remove(0).2;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limits_hold_and_the_page_used_last_stays() {
        let cache = Cache::default();
        let page = |size: usize| -> Page { vec![None, Some(ByteArray::from(vec![0; size]))].into() };
        cache.put([0; 4], &page(LIMIT + 1), 0);
        assert!(cache.get([0; 4]).is_none());
        cache.put([0; 4], &page(1), LIMIT + 1);
        assert!(cache.get([0; 4]).is_none());
        for number in 0..3 {
            cache.put([number, 0, 0, 0], &page(LIMIT / 3), number);
        }
        assert!(cache.get([0; 4]).is_some());
        cache.put([3, 0, 0, 0], &page(LIMIT / 3), 0);
        let kept = [0, 1, 2, 3].map(|number| cache.get([number, 0, 0, 0]).is_some());
        assert_eq!(kept, [true, false, true, true]);
        for number in 0..2 * PAGES {
            cache.put([0, number, 0, 0], &page(1), 0);
        }
        assert_eq!(cache.0.lock().unwrap().len(), PAGES);
    }
}
