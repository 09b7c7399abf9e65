//! Which rows of a packed batch are text, which are those of an image before its text, and which attend to which.

use pheye_ops::attention::{Layout, Span};
use pheye_ops::{Cx, Result, add, rows};
use pheye_tensor::Tensor;

/// A sequence of a packed batch: the rows of an image, if any, then text.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sequence {
    /// The image that the text is about. Sequences are ordered by image.
    pub(crate) image: usize,
    /// Number of rows of the image that stand before the text.
    pub(crate) prefix: usize,
    /// Number of tokens.
    pub(crate) text: usize,
}

impl Sequence {
    /// Number of rows.
    pub(crate) fn rows(&self) -> usize {
        self.prefix + self.text
    }
}

/// The rows of a packed batch.
#[derive(Debug)]
pub(crate) struct Packed {
    pub(crate) layout: Layout,
    /// Spans of cross-attention: the rows of all sequences about an image attend to the media of that image.
    pub(crate) cross: Vec<Span>,
    sequences: Vec<Sequence>,
    /// Number of images, and rows of each in the media.
    images: usize,
    media_tokens: usize,
}

impl Packed {
    /// The rows of `sequences`, whose attention has this layout. The media have `media_tokens` rows for each of
    /// `images` images.
    pub(crate) fn new(
        layout: Layout,
        sequences: Vec<Sequence>,
        images: usize,
        media_tokens: usize,
    ) -> Packed {
        let (lengths, image): (Vec<usize>, Vec<usize>) =
            sequences.iter().map(|s| (s.rows(), s.image)).unzip();
        let cross = pheye_model::cross_spans(&lengths, &image, media_tokens);
        Packed { layout, cross, sequences, images, media_tokens }
    }

    fn has_prefix(&self) -> bool {
        self.sequences.iter().any(|s| s.prefix > 0)
    }

    /// Each sequence with the number of its first row.
    fn starts(&self) -> impl Iterator<Item = (usize, Sequence)> {
        self.sequences.iter().scan(0, |end, s| Some((std::mem::replace(end, *end + s.rows()), *s)))
    }

    /// The rows of text, or `None` if all are.
    fn text_rows(&self) -> Option<Vec<usize>> {
        let of = |(start, s): (usize, Sequence)| start + s.prefix..start + s.rows();
        self.has_prefix().then(|| self.starts().flat_map(of).collect())
    }

    /// All rows, from those of the media and of the text.
    pub(crate) fn join(&self, cx: &Cx, media: &Tensor, text: Tensor) -> Result<Tensor> {
        if !self.has_prefix() {
            return Ok(text);
        }
        let mut next = self.images * self.media_tokens; // the text follows the media
        let order = self.sequences.iter().flat_map(|s| {
            let first = s.image * self.media_tokens;
            let text = next..next + s.text;
            next = text.end;
            (first..first + s.prefix).chain(text)
        });
        let order: Vec<usize> = order.collect();
        rows::gather(cx, &rows::concat(cx, &[media, &text])?, &order)
    }

    /// The rows of text of x.
    pub(crate) fn text(&self, cx: &Cx, x: Tensor) -> Result<Tensor> {
        self.text_rows().map_or(Ok(x.clone()), |rows| rows::gather(cx, &x, &rows))
    }

    /// The targets of all rows, from those of the text: rows of an image have none.
    pub(crate) fn targets(&self, text: &[i64]) -> Vec<i64> {
        let Some(rows) = self.text_rows() else { return text.to_vec() };
        let mut all = vec![pheye_ops::cross_entropy::IGNORE; self.sequences.iter().map(Sequence::rows).sum()];
        rows.iter().zip(text).for_each(|(&row, &target)| all[row] = target);
        all
    }

    /// The gradient of the media for the gradient dx of all rows: the sum over the sequences about an image.
    pub(crate) fn media_backward(&self, cx: &Cx, dx: &Tensor) -> Result<Tensor> {
        let shape = [self.images * self.media_tokens, dx.shape().cols()];
        let mut sum = None;
        // The first sequence about each image that has one, then the second, and so on.
        let mut rounds: Vec<Vec<(usize, usize)>> = Vec::new();
        let mut seen = vec![0; self.images];
        for (start, s) in self.starts().filter(|(_, s)| s.prefix > 0) {
            let round = seen[s.image];
            seen[s.image] += 1;
            rounds.resize_with(rounds.len().max(round + 1), Vec::new);
            rounds[round].push((s.image, start));
        }
        for round in rounds {
            let n = self.media_tokens;
            let from: Vec<usize> = round.iter().flat_map(|&(_, start)| start..start + n).collect();
            let to: Vec<usize> = round.iter().flat_map(|&(image, _)| image * n..(image + 1) * n).collect();
            let part = rows::gather(cx, dx, &from)?;
            let part = match round.len() == self.images {
                true => part,
                false => {
                    let mut all = cx.zeros(shape)?;
                    rows::scatter(cx, &mut all, &part, &to)?;
                    all
                }
            };
            add::accumulate(cx, &mut sum, part)?;
        }
        sum.map_or_else(|| cx.zeros(shape), Ok)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rows_of_an_image_stand_before_each_text_about_it() {
        let sequence = |image, text| Sequence { image, prefix: 2, text };
        let sequences = vec![sequence(0, 1), sequence(0, 2), sequence(2, 1)];
        let lengths: Vec<usize> = sequences.iter().map(Sequence::rows).collect();
        let packed = Packed::new(Layout::packed(&lengths), sequences, 3, 2);
        let column = |x: &[f32]| Tensor::from_f32([x.len(), 1], x).unwrap();
        let cx = Cx::cpu();
        let media = column(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        let x = packed.join(&cx, &media, column(&[10.0, 20.0, 21.0, 30.0])).unwrap();
        assert_eq!(x.f32().unwrap(), [0.0, 1.0, 10.0, 0.0, 1.0, 20.0, 21.0, 4.0, 5.0, 30.0]);
        assert_eq!(packed.text(&cx, x.clone()).unwrap().f32().unwrap(), [10.0, 20.0, 21.0, 30.0]);
        assert_eq!(packed.targets(&[1, 2, 3, 4]), [-100, -100, 1, -100, -100, 2, 3, -100, -100, 4]);
        // Image 0 is before two texts, image 1 before none.
        let d = packed.media_backward(&cx, &x).unwrap();
        assert_eq!(d.f32().unwrap(), [0.0, 2.0, 0.0, 0.0, 4.0, 5.0]);
    }
}
