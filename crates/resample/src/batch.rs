//! Which rows of a batch belong to which image.

use pheye_ops::attention::Span;
use pheye_ops::{Error, Result};
use pheye_tensor::Tensor;

/// The numbers 0..n, `times` times: rows of a table that several images or tiles share.
pub(crate) fn repeated(n: usize, times: usize) -> Vec<u32> {
    (0..times).flat_map(|_| 0..n as u32).collect()
}

/// Spans that pair the `queries` queries of image i with its `keys[i]` keys. Both follow each other by image.
pub(crate) fn spans(queries: usize, keys: impl Iterator<Item = usize>) -> Vec<Span> {
    let mut start = 0;
    let span = |(i, len): (usize, usize)| {
        let k = start..start + len;
        start = k.end;
        Span { q: i * queries..(i + 1) * queries, k }
    };
    keys.enumerate().map(span).collect()
}

/// Checks that there are images, and that the rows of x are those of all of them. Each image has a positive multiple of
/// `multiple` rows.
pub(crate) fn check(x: &Tensor, lengths: &[usize], multiple: usize) -> Result<()> {
    let fault = |what, value: usize, allowed: String| {
        Err(Error::Range { op: "resampler", what, value: value.to_string(), allowed })
    };
    if let Some(&length) = lengths.iter().find(|&&l| l == 0 || !l.is_multiple_of(multiple)) {
        return fault("rows of an image", length, format!("a positive multiple of {multiple}"));
    }
    let (rows, all) = (x.shape().rows(), lengths.iter().fold(0, |sum: usize, &l| sum.saturating_add(l)));
    if lengths.is_empty() || rows != all {
        return fault("rows of x", rows, format!("the {all} rows of {} images", lengths.len()));
    }
    Ok(())
}

/// The order of keys in which the queries of each image follow its tokens, as rows of [tokens of all images; queries of
/// all images], and the inverse permutation.
pub(crate) fn interleaved(lengths: &[usize], queries: usize) -> [Vec<usize>; 2] {
    let mut query = lengths.iter().sum::<usize>();
    let (mut token, mut order) = (0, Vec::new());
    for length in lengths {
        order.extend(token..token + length);
        order.extend(query..query + queries);
        (token, query) = (token + length, query + queries);
    }
    let mut inverse = vec![0; order.len()];
    for (to, &from) in order.iter().enumerate() {
        inverse[from] = to;
    }
    [order, inverse]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_follow_the_tokens_of_their_image() {
        let [order, inverse] = interleaved(&[3, 1], 2);
        assert_eq!(order, [0, 1, 2, 4, 5, 3, 6, 7]);
        assert_eq!(inverse, [0, 1, 2, 5, 3, 4, 6, 7]);
        let [a, b] = [Span { q: 0..2, k: 0..5 }, Span { q: 2..4, k: 5..8 }];
        assert_eq!(spans(2, [5, 3].into_iter()), [a, b]);
        assert_eq!(repeated(2, 3), [0, 1, 0, 1, 0, 1]);
    }
}
