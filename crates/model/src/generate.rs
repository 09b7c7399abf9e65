//! Greedy generation: image keys and values once, self-attention keys and values cached token by token.

use pheye_ops::{Cx, Graphs, argmax, embedding, layernorm, linear, rows};
use pheye_phi::{Cache, Layout};
use pheye_tensor::Tensor;

use crate::error::count;
use crate::loss::{check_pictures, cross_spans};
use crate::{Error, Pheye, Result};

/// How an answer is generated.
#[derive(Debug, Clone, Copy)]
pub struct Generation {
    /// At most so many tokens.
    pub max_new_tokens: usize,
    /// The token that ends an answer; it is part of the result.
    pub end: Option<u32>,
}

/// Tokens generated for each prompt, in the order of the prompts.
pub type Generated = Vec<Vec<u32>>;

impl Pheye {
    /// Keys and values of media for every cross-attention block: they serve all tokens of all answers.
    ///
    /// # Errors
    /// Those of the operations.
    pub fn cross_kv(&self, cx: &Cx, media: &Tensor) -> Result<Vec<Option<Tensor>>> {
        self.cross
            .iter()
            .map(|block| block.as_ref().map(|b| Ok(b.kv_to_keep(cx, media)?)).transpose())
            .collect()
    }

    /// The most probable continuation of each prompt about its picture, token by token. Prompts may differ in length;
    /// each is answered as it would be alone. `picture[i]`, ascending, is the row of media that prompt i is about;
    /// `on_token(i, id)` sees each token as it comes.
    ///
    /// # Errors
    /// A prompt that is empty or leaves no room in the context, and those of the operations.
    pub fn generate(
        &self,
        cx: &Cx,
        kvs: &[Option<Tensor>],
        prompts: &[Vec<u32>],
        picture: &[usize],
        how: Generation,
        mut on_token: impl FnMut(usize, u32),
    ) -> Result<Generated> {
        let context = self.config.text.max_position_embeddings;
        let longest = prompts.iter().map(Vec::len).max().unwrap_or(0);
        if longest >= context {
            return Err(Error::Context { prompt: longest, context });
        }
        if let Some(index) = prompts.iter().position(Vec::is_empty) {
            return Err(Error::EmptyPrompt { index });
        }
        count("layers of keys and values", kvs.len(), self.cross.len())?;
        let media = kvs.iter().flatten().map(|kv| kv.shape().rows() / self.config.media_tokens()).min();
        check_pictures(picture, prompts.len(), media.unwrap_or(usize::MAX))?;
        let capacity = context.min(longest.saturating_add(how.max_new_tokens));
        let mut caches = (0..self.phi.blocks.len())
            .map(|_| Cache::new(cx, &self.config.text, prompts.len(), capacity))
            .collect::<Result<Vec<_>, _>>()?;
        let mut graphs = Graphs::default();
        let mut past = vec![0; prompts.len()];
        let mut out: Generated = vec![Vec::new(); prompts.len()];
        let mut feed: Vec<Vec<u32>> = prompts.to_vec();
        for _ in 0..how.max_new_tokens {
            let new: Vec<usize> = feed.iter().map(Vec::len).collect();
            if new.iter().all(|&n| n == 0) {
                break;
            }
            let layout = Layout::cached(&past, &new, capacity);
            let spans = cross_spans(&new, picture, self.config.media_tokens());
            let ids = feed.concat();
            let mut step = |cx: &Cx| self.step(cx, &ids, &layout, kvs, &spans, &mut caches);
            // Prompts come once; from then on steps are alike.
            let logits = if ids.len() <= prompts.len() { cx.replay(&mut graphs, step)? } else { step(cx)? };
            let mut choices = argmax::forward(cx, &logits)?.into_iter();
            for (i, tokens) in feed.iter_mut().enumerate() {
                past[i] += tokens.len();
                let Some(id) = (!tokens.is_empty()).then(|| choices.next()).flatten() else { continue };
                tokens.clear();
                out[i].push(id);
                on_token(i, id);
                if how.end != Some(id) && past[i] < capacity {
                    tokens.push(id);
                }
            }
        }
        Ok(out)
    }

    /// Logits [sequences with new tokens, vocab_size] after each sequence's last new token.
    fn step(
        &self,
        cx: &Cx,
        ids: &[u32],
        layout: &Layout,
        kvs: &[Option<Tensor>],
        spans: &[pheye_ops::attention::Span],
        caches: &mut [Cache],
    ) -> Result<Tensor> {
        let mut x = embedding::forward(cx, ids, &self.phi.embed)?;
        let layers = self.cross.iter().zip(kvs).zip(&self.phi.blocks).zip(caches);
        for (((cross, kv), block), cache) in layers {
            if let (Some(cross), Some(kv)) = (cross, kv) {
                x = cross.forward(cx, &x, kv, spans)?.0;
            }
            x = block.forward(cx, &x, layout, &self.phi.rotary, Some(cache))?.0;
        }
        let last: Vec<usize> = layout.spans.iter().map(|s| s.q.end - 1).collect();
        let (x, _) = layernorm::forward(cx, &rows::gather(cx, &x, &last)?, &self.phi.final_norm)?;
        Ok(linear::forward(cx, &x, &self.phi.head)?.0)
    }
}
