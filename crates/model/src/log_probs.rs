//! How probable the model finds given answers.

use pheye_ops::attention::Span;
use pheye_ops::cross_entropy::IGNORE;
use pheye_ops::{Cx, cross_entropy, embedding, layernorm};
use pheye_phi::Layout;
use pheye_tensor::Tensor;
use pheye_xattn::Block;

use crate::error::count;
use crate::generate::check_prompts;
use crate::loss::cross_spans;
use crate::{Error, Pheye, Result};

impl Pheye {
    /// The log-probability of each answer in nats: Σ ln p(token | image, prompt, tokens before it) over the tokens of
    /// the answer, under the model's own distribution, without temperature, penalties or filters. 0 for an answer
    /// without tokens.
    ///
    /// `answers[i]` continues `prompts[i]`, which is about image `image[i]`, ascending; `kvs` is the result of
    /// [`Pheye::cross_kv`]. This costs one pass of the language model over prompts and answers, without a key/value
    /// cache.
    ///
    /// # Errors
    /// When the numbers of prompts, answers and images differ, a prompt is empty or does not fit into the context with
    /// its answer, or an operation fails.
    pub fn log_probs(
        &self,
        cx: &Cx,
        kvs: &[Option<Tensor>],
        prompts: &[Vec<u32>],
        answers: &[Vec<u32>],
        image: &[usize],
    ) -> Result<Vec<f64>> {
        count("answers", answers.len(), prompts.len())?;
        let context = self.config.text.max_position_embeddings;
        check_prompts(prompts, context)?;
        self.check_about(kvs, prompts.len(), image)?;
        if prompts.is_empty() {
            return Ok(Vec::new());
        }
        // The last token of an answer is predicted but not read.
        let read = |answer: &Vec<u32>| answer.len().saturating_sub(1);
        let lengths: Vec<usize> = prompts.iter().zip(answers).map(|(p, a)| p.len() + read(a)).collect();
        if let Some(longest) = lengths.iter().copied().find(|length| *length > context) {
            return Err(Error::Context { prompt: longest, context });
        }
        let ids: Vec<u32> =
            prompts.iter().zip(answers).flat_map(|(p, a)| p.iter().chain(&a[..read(a)])).copied().collect();
        cx.install(|| {
            let x = self.decode_packed(cx, kvs, &ids, &lengths, image, |_, _, _, _| Ok(()))?;
            let (x, _) = layernorm::forward(cx, &x, &self.phi.final_norm)?;
            let mut targets = vec![IGNORE; ids.len()];
            let mut first = 0;
            let mut each = |(i, answer): (usize, &Vec<u32>)| -> Result<f64> {
                if answer.is_empty() {
                    first += lengths[i];
                    return Ok(0.0);
                }
                // The last token of the prompt predicts the first of the answer.
                let rows = first + prompts[i].len() - 1..first + lengths[i];
                for (row, id) in rows.clone().zip(answer) {
                    targets[row] = i64::from(*id);
                }
                let loss = cross_entropy::run(cx, &x, &self.phi.head, &targets, false, None)?;
                targets[rows].fill(IGNORE);
                first += lengths[i];
                Ok(-loss.sum)
            };
            answers.iter().enumerate().map(&mut each).collect()
        })
    }

    /// The outputs of the decoder's last layer for packed sequences without a tape, given the keys and values of their
    /// images. `before` sees each cross-attention block with its input, its keys and values, and its spans.
    pub(crate) fn decode_packed(
        &self,
        cx: &Cx,
        kvs: &[Option<Tensor>],
        ids: &[u32],
        lengths: &[usize],
        image: &[usize],
        mut before: impl FnMut(&Block, &Tensor, &Tensor, &[Span]) -> Result<()>,
    ) -> Result<Tensor> {
        let spans = cross_spans(lengths, image, self.config.media_tokens());
        let layout = Layout::packed(lengths);
        let mut x = embedding::forward(cx, ids, &self.phi.embed)?;
        for ((cross, kv), block) in self.cross.iter().zip(kvs).zip(&self.phi.blocks) {
            if let (Some(cross), Some(kv)) = (cross, kv) {
                before(cross, &x, kv, &spans)?;
                x = cross.forward(cx, &x, kv, &spans)?.0;
            }
            x = block.forward(cx, &x, &layout, &self.phi.rotary, None)?.0;
        }
        Ok(x)
    }
}
