//! Similarity of two strings, as `difflib.SequenceMatcher(None, a, b)` of Python computes it.
//!
//! The longest common block is found, then those to its left and right, recursively; the ratio is twice the
//! number of matching characters over the length of both. If b has 200 characters or more, those that occur
//! often in it begin no block (`autojunk`).

use std::collections::{HashMap, HashSet};

/// From this length of b on, characters that occur often begin no block.
const LONG: usize = 200;

/// A common block: `len` code points from `a` in the first string and from `b` in the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Block {
    /// Where it begins in the first string, in code points.
    pub a: usize,
    /// Where it begins in the second string, in code points.
    pub b: usize,
    /// Its length in code points.
    pub len: usize,
}

/// `SequenceMatcher(None, a, b).ratio()`, in 0..=1; 1 for two empty strings. It is not symmetric.
///
/// ```
/// assert_eq!(pheye_metrics::difflib::ratio("12/25/2019", "12252019s"), 2.0 * 8.0 / 19.0);
/// ```
pub fn ratio(a: &str, b: &str) -> f64 {
    let both = a.chars().count() + b.chars().count();
    let matched: usize = matching_blocks(a, b).iter().map(|block| block.len).sum();
    if both == 0 { 1.0 } else { 2.0 * matched as f64 / both as f64 }
}

/// `SequenceMatcher(None, a, b).get_matching_blocks()`: the common blocks from left to right, and after them one
/// of length 0 at both ends.
pub fn matching_blocks(a: &str, b: &str) -> Vec<Block> {
    let matcher = Matcher::new(a, b);
    let (na, nb) = (matcher.a.len(), matcher.b.len());
    let mut found = Vec::new();
    let mut open = vec![[0, na, 0, nb]];
    while let Some([alo, ahi, blo, bhi]) = open.pop() {
        let block = matcher.longest(alo, ahi, blo, bhi);
        if block.len == 0 {
            continue;
        }
        found.push(block);
        open.push([alo, block.a, blo, block.b]);
        open.push([block.a + block.len, ahi, block.b + block.len, bhi]);
    }
    found.sort();
    let mut blocks: Vec<Block> = Vec::new();
    for block in found {
        match blocks.last_mut() {
            Some(last) if last.a + last.len == block.a && last.b + last.len == block.b => {
                last.len += block.len
            }
            _ => blocks.push(block),
        }
    }
    blocks.push(Block { a: na, b: nb, len: 0 });
    blocks
}

/// `SequenceMatcher(None, a, b).find_longest_match()`: the longest common block, the first in `a` and then in
/// `b` among those of its length.
pub fn longest_match(a: &str, b: &str) -> Block {
    let matcher = Matcher::new(a, b);
    matcher.longest(0, matcher.a.len(), 0, matcher.b.len())
}

struct Matcher {
    a: Vec<char>,
    b: Vec<char>,
    /// Where each character that may begin a block stands in b.
    places: HashMap<char, Vec<usize>>,
}

impl Matcher {
    fn new(a: &str, b: &str) -> Matcher {
        let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
        let mut places: HashMap<char, Vec<usize>> = HashMap::new();
        for (j, &c) in b.iter().enumerate() {
            places.entry(c).or_default().push(j);
        }
        if b.len() >= LONG {
            places.retain(|_, at| at.len() <= b.len() / 100 + 1);
        }
        // Places of characters that a lacks are never asked for.
        let used: HashSet<char> = a.iter().copied().collect();
        places.retain(|c, _| used.contains(c));
        Matcher { a, b, places }
    }

    /// The longest block inside `a[alo..ahi]` and `b[blo..bhi]`, extended over characters that begin none.
    fn longest(&self, alo: usize, ahi: usize, blo: usize, bhi: usize) -> Block {
        let mut best = Block { a: alo, b: blo, len: 0 };
        // The length of the block that ends at the previous character of a and at each place of b.
        let mut before: HashMap<usize, usize> = HashMap::new();
        for i in alo..ahi {
            let mut here = HashMap::new();
            let at = self.places.get(&self.a[i]).map_or(&[][..], Vec::as_slice);
            for &j in at.iter().filter(|&&j| (blo..bhi).contains(&j)) {
                let len = 1 + j.checked_sub(1).and_then(|j| before.get(&j)).copied().unwrap_or(0);
                here.insert(j, len);
                if len > best.len {
                    best = Block { a: i + 1 - len, b: j + 1 - len, len };
                }
            }
            before = here;
        }
        while best.a > alo && best.b > blo && self.a[best.a - 1] == self.b[best.b - 1] {
            best = Block { a: best.a - 1, b: best.b - 1, len: best.len + 1 };
        }
        while best.a + best.len < ahi
            && best.b + best.len < bhi
            && self.a[best.a + best.len] == self.b[best.b + best.len]
        {
            best.len += 1;
        }
        best
    }
}
