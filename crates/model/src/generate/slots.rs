//! What generation needs of a language model: [`Slots`].

use std::ops::Range;

use pheye_tensor::Tensor;

use crate::Result;

/// A language model that continues several texts at once, each in a slot of its key-value cache.
///
/// A slot holds the rows that the model has read: one for each token, and any that the model adds itself. A model for
/// which an image is P rows before the text reads them together with the prompt, when the slot is still empty.
/// Generation takes numbers of rows from [`Slots::past`] alone and does not derive them from numbers of tokens.
///
/// Only the first of a prompt's slots reads the prompt. The slots of its other beams or samples are filled by
/// [`Slots::copy`].
///
/// An example for [`generate::run`](super::run):
///
/// ```
/// use pheye_model::Result;
/// use pheye_model::generate::{self, CopyRows, Slots};
/// use pheye_model::ops::Cx;
/// use pheye_model::tensor::Tensor;
/// use pheye_model::{GenerationConfig, Hooks};
///
/// /// After token i, token i + 1 is the most probable. As this depends on nothing before token i, a slot holds no
/// /// more than its number of rows.
/// struct Counting {
///     past: Vec<usize>,
/// }
///
/// impl Slots for Counting {
///     fn vocab_size(&self) -> usize {
///         10
///     }
///
///     fn context(&self) -> usize {
///         1000
///     }
///
///     fn slot_bytes(&self, _tokens: usize) -> u128 {
///         8
///     }
///
///     fn allocate(&mut self, prompts: usize, copies: usize, _tokens: usize) -> Result<()> {
///         self.past = vec![0; prompts * copies];
///         Ok(())
///     }
///
///     fn step(&mut self, feed: &[Vec<u32>]) -> Result<Tensor> {
///         self.past.iter_mut().zip(feed).for_each(|(past, new)| *past += new.len());
///         let mut logits = Vec::new();
///         for last in feed.iter().filter_map(|new| new.last()) {
///             logits.extend((0..10).map(|id| if id == (last + 1) % 10 { 1.0 } else { 0.0 }));
///         }
///         Ok(Tensor::from_f32([logits.len() / 10, 10], &logits)?)
///     }
///
///     fn copy(&mut self, copies: &[CopyRows]) -> Result<()> {
///         copies.iter().for_each(|c| self.past[c.to] = c.rows.end);
///         Ok(())
///     }
///
///     fn past(&self, slot: usize) -> usize {
///         self.past[slot]
///     }
/// }
///
/// let (prompts, how) = ([vec![1, 2], vec![8]], GenerationConfig::greedy(4));
/// let answers = generate::run(&Cx::cpu(), &mut Counting { past: vec![] }, &prompts, &how, Hooks::default())?;
/// assert_eq!(answers, [[3, 4, 5, 6], [9, 0, 1, 2]]);
/// # Ok::<(), pheye_model::Error>(())
/// ```
///
/// `Send`, because on the CPU generation runs in rayon's thread pool.
pub trait Slots: Send {
    /// Number of different tokens: the columns of the logits.
    fn vocab_size(&self) -> usize;

    /// Maximum number of tokens that the model can read in one slot. Rows that the model adds itself are already
    /// subtracted.
    fn context(&self) -> usize;

    /// Bytes of memory that one slot with room for `tokens` tokens takes, rows of the model's own included.
    fn slot_bytes(&self, tokens: usize) -> u128;

    /// Replaces all slots by `prompts` · `copies` empty ones, with room for `tokens` tokens each. The slots of prompt i
    /// are i · `copies` to (i + 1) · `copies`. Called before the first step of each generation.
    ///
    /// # Errors
    /// When the model has images for another number of prompts, or memory runs out.
    fn allocate(&mut self, prompts: usize, copies: usize, tokens: usize) -> Result<()>;

    /// Reads the tokens `feed[slot]` in each slot, after the rows that are already there; slots without new tokens are
    /// left as they are. In an empty slot, the model may read rows of its own before the tokens.
    ///
    /// Returns the logits after the last token of each slot with new tokens, in the order of the slots: `[slots with new
    /// tokens, vocab_size]`, on the device of the context that generation was given; f32 on the CPU, f32 or bf16 on a
    /// GPU.
    ///
    /// # Errors
    /// When a token is not in the vocabulary, or an operation fails.
    fn step(&mut self, feed: &[Vec<u32>]) -> Result<Tensor>;

    /// Copies rows between slots of the same prompt. No slot is both a source and a target, or twice a target. There may
    /// be no copies, and copies of no rows.
    ///
    /// # Errors
    /// When an operation fails.
    fn copy(&mut self, copies: &[CopyRows]) -> Result<()>;

    /// Number of rows in `slot`.
    fn past(&self, slot: usize) -> usize;
}

/// A copy of rows from one slot to the same places of another one, which then ends after them. The rows before them are
/// equal in both slots already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyRows {
    /// The slot with the rows.
    pub from: usize,
    /// The slot that receives them.
    pub to: usize,
    /// The rows, counted from the start of the slot.
    pub rows: Range<usize>,
}
