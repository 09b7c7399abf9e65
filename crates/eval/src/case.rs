//! The inputs of golden data, and the values that a model computes for each stage.

use std::ops::Range;

use pheye_model::{Batch, GenerationConfig, Loss};
use pheye_ops::Cx;
use pheye_optim::{AdamWConfig, Optimizer, Schedule};
use pheye_tensor::{Grads, Tensor};

use crate::golden::Golden;
use crate::network::Network;
use crate::{Error, Result};

/// A stage: its name in the golden file, the values of our model, and the elements of the golden tensor to
/// compare.
pub(crate) struct Observed {
    pub(crate) name: String,
    pub(crate) values: Vec<f64>,
    /// Ranges of elements of the golden tensor that are compared, in order; empty means all.
    elements: Vec<Range<usize>>,
    pub(crate) kind: Kind,
}

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Kind {
    Activation,
    Gradient,
    /// Token ids, which must be equal.
    Ids,
}

impl Observed {
    fn all(name: impl Into<String>, values: Vec<f64>, kind: Kind) -> Observed {
        Observed { name: name.into(), values, elements: Vec::new(), kind }
    }

    /// The elements of the golden tensor's `values` that are compared with ours.
    pub(crate) fn pick(&self, values: Vec<f64>) -> Vec<f64> {
        if self.elements.is_empty() {
            return values;
        }
        let part = |r: &Range<usize>| values.get(r.clone()).unwrap_or_default().to_vec();
        self.elements.iter().flat_map(part).collect()
    }
}

/// The inputs of golden data in the form that a model takes.
pub(crate) struct Case {
    global: Tensor,
    local: Option<Tensor>,
    ids: Vec<Vec<i64>>,
    mask: Vec<Vec<i64>>,
    labels: Vec<Vec<i64>>,
    /// The ids of a prompt about the first image, followed by its greedy answer.
    greedy: Vec<u32>,
    /// Number of ids of the prompt in `greedy`.
    prompt: usize,
    /// Indices into `greedy` of ids that are not compared, ascending. Generation continues after the golden
    /// id there.
    pub(crate) open: Vec<usize>,
}

const TRAIN_STEPS: u64 = 5;

impl Case {
    pub(crate) fn read(golden: &Golden) -> Result<Case> {
        let one = |name: &str| match golden.rows(name)?.into_iter().next() {
            Some(row) if !row.is_empty() => Ok(row),
            _ => Err(golden.fault(name, "is empty")),
        };
        let prompt = one("greedy_prompt")?;
        let greedy = one("greedy")?;
        if !greedy.starts_with(&prompt) {
            return Err(golden.fault("greedy", "does not begin with its prompt"));
        }
        let greedy = greedy.into_iter().map(|id| id as u32).collect();
        let global =
            golden.tensor("global_pixels")?.ok_or_else(|| golden.fault("global_pixels", "is missing"))?;
        let local = golden.tensor("local_pixels")?;
        let [ids, mask, labels] = ["ids", "attention_mask", "labels"].map(|name| golden.rows(name));
        let (ids, mask, labels) = (ids?, mask?, labels?);
        one("ids")?;
        for (name, other) in [("attention_mask", &mask), ("labels", &labels)] {
            if other.len() != ids.len() || other.iter().zip(&ids).any(|(a, b)| a.len() != b.len()) {
                return Err(golden.fault(name, "has another shape than ids"));
            }
        }
        for (name, pixels) in [("global_pixels", Some(&global)), ("local_pixels", local.as_ref())] {
            let fits = |p: &Tensor| matches!(p.shape().dims(), [tiles, 3, _, _] if tiles % ids.len() == 0);
            if !pixels.is_none_or(fits) {
                return Err(
                    golden.fault(name, format!("is not [images · tiles, 3, s, s] for {} images", ids.len()))
                );
            }
        }
        Ok(Case { global, local, ids, mask, labels, greedy, prompt: prompt.len(), open: Vec::new() })
    }

    /// Number of images.
    pub(crate) fn images(&self) -> usize {
        self.ids.len()
    }

    /// Number of greedy ids, including the prompt.
    pub(crate) fn greedy_len(&self) -> usize {
        self.greedy.len()
    }

    /// The batch of `images` with one sequence about each image, without padding.
    fn batch(&self, images: Range<usize>) -> Result<Batch> {
        // The pixels of each tile form rows of width s: `[tiles, 3, s, s]` is a matrix of tiles · 3 · s rows.
        let part = |t: &Tensor| {
            let rows = t.shape().rows() / self.ids.len();
            t.rows(images.start * rows..images.end * rows)
        };
        let side = self.global.shape().cols();
        let pixels = match &self.local {
            None => part(&self.global)?,
            // The pixels are on the CPU, whatever the device of the model.
            Some(local) => pheye_ops::rows::concat(&Cx::cpu(), &[&part(&self.global)?, &part(local)?])?,
        };
        let pixels = pixels.reshape([pixels.shape().elements() / (3 * side * side).max(1), 3, side, side])?;
        let (mut ids, mut targets, mut lengths, mut image) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (p, row) in images.clone().enumerate() {
            let kept: Vec<usize> = (0..self.ids[row].len()).filter(|&i| self.mask[row][i] != 0).collect();
            ids.extend(kept.iter().map(|&i| self.ids[row][i] as u32));
            // The target of a token is the label of the next token.
            let next = kept.iter().skip(1).map(|&i| self.labels[row][i]).chain([-100]);
            targets.extend(next);
            lengths.push(kept.len());
            image.push(p);
        }
        Ok(Batch { pixels, images: images.len(), ids, targets, lengths, image })
    }

    /// The media of all images.
    pub(crate) fn media(&self, cx: &Cx, model: &impl Network) -> Result<Tensor> {
        let batch = self.batch(0..self.images())?;
        Ok(model.encode(cx, &batch.pixels, batch.images)?.1)
    }

    /// Computes every stage of the golden data with `model` on the device of `cx`. Trains the model at the
    /// end.
    pub(crate) fn observe(&self, cx: &Cx, model: &mut impl Network) -> Result<Vec<Observed>> {
        let table = model.train()?;
        let masters = model.move_to(&cx.device, &table)?;
        let batch = self.batch(0..self.ids.len())?;
        let (features, media) = model.encode(cx, &batch.pixels, batch.images)?;
        let mut all = Vec::new();
        if let Some(features) = features {
            all.push(Observed::all("features", wide(&features)?, Kind::Activation));
        }
        all.push(Observed::all("media", wide(&media)?, Kind::Activation));
        let logits = model.logits(cx, &media, &batch)?;
        let vocab = logits.shape().cols();
        let width = self.ids[0].len();
        let real = |(row, mask): (usize, &Vec<i64>)| {
            let kept: Vec<usize> = (0..width).filter(|&i| mask[i] != 0).collect();
            kept.into_iter().map(move |i| (row * width + i) * vocab..(row * width + i + 1) * vocab)
        };
        let elements = self.mask.iter().enumerate().flat_map(real).collect();
        all.extend([
            Observed { name: "logits".to_owned(), values: wide(&logits)?, elements, kind: Kind::Activation },
            Observed::all("greedy", self.greedy(cx, model)?, Kind::Ids),
        ]);
        let mut grads = Grads::on(&cx.device, table.clone())?;
        let (loss, dmedia) = model.language(cx, &batch, &media, &mut grads)?;
        let mean = |v: &[f64]| v.iter().map(|v| v / loss.tokens as f64).collect::<Vec<_>>();
        all.push(Observed::all("loss_sum", vec![loss.sum], Kind::Activation));
        if let Some(dmedia) = dmedia {
            all.push(Observed::all("media_grad", mean(&wide(&dmedia)?), Kind::Gradient));
        }
        grads.clear()?;
        model.loss_and_grads(cx, &batch, &mut grads)?;
        let mut of_params = Vec::new();
        for param in model.params_mut() {
            let grad = grads.view(param)?.map(|grad| Ok::<_, Error>((grad.shape().cols(), wide(&grad)?)));
            of_params.extend(grad.transpose()?.map(|(cols, grad)| (param.name.clone(), cols, grad)));
        }
        for (name, cols, grad) in of_params {
            let stored = model.stored(&name);
            let grad = if stored.transposed { transposed(&grad, cols) } else { grad };
            all.push(Observed::all(format!("grad.{}", stored.tensor), mean(&grad), Kind::Gradient));
        }

        let mut optimizer = Optimizer::new(table, AdamWConfig::default())?;
        optimizer.set_shares(|name| model.share(name))?;
        if let Some(masters) = masters {
            optimizer.move_to(cx, masters)?;
        }
        let losses = match self.train(cx, model, optimizer) {
            Err(Error::Optim(pheye_optim::Error::NonFinite { .. })) => vec![f64::NAN; TRAIN_STEPS as usize],
            made => made?,
        };
        all.push(Observed::all("train_losses", losses, Kind::Activation));
        Ok(all)
    }

    /// The ids of the prompt and its greedy continuation.
    fn greedy(&self, cx: &Cx, model: &impl Network) -> Result<Vec<f64>> {
        let media = model.encode(cx, &self.batch(0..1)?.pixels, 1)?.1;
        let mut ids = self.greedy[..self.prompt].to_vec();
        for end in self.open.iter().copied().chain([self.greedy.len()]) {
            let how = GenerationConfig::greedy(end.saturating_sub(ids.len()));
            let prompt = std::slice::from_ref(&ids);
            let Some(mut new) = model.generate(cx, &media, prompt, &[0], &how)? else {
                // NaN differs from every id, so this stage fails; the other stages show where the values stop
                // being finite.
                return Ok(vec![f64::NAN; self.greedy.len()]);
            };
            ids.extend(new.swap_remove(0));
            ids.extend(self.greedy.get(end));
        }
        Ok(ids.into_iter().map(f64::from).collect())
    }

    /// The mean losses of five AdamW steps, each with one micro-batch per image.
    fn train(&self, cx: &Cx, model: &mut impl Network, mut optimizer: Optimizer) -> Result<Vec<f64>> {
        let batches = (0..self.ids.len()).map(|i| self.batch(i..i + 1)).collect::<Result<Vec<_>>>()?;
        let schedule = Schedule::cosine(1e-3);
        (0..TRAIN_STEPS)
            .map(|step| {
                let mut total = Loss::default();
                for batch in &batches {
                    let loss = model.loss_and_grads(cx, batch, &mut optimizer.grads)?;
                    total.sum += loss.sum;
                    total.tokens += loss.tokens;
                }
                let lr = schedule.lr(step, TRAIN_STEPS);
                optimizer.apply(cx, &mut model.params_mut(), lr, total.tokens as u64, None)?;
                Ok(total.sum / total.tokens as f64)
            })
            .collect()
    }
}

/// The transpose of a matrix with `cols` columns.
fn transposed(values: &[f64], cols: usize) -> Vec<f64> {
    (0..cols).flat_map(|col| values.iter().skip(col).step_by(cols).copied()).collect()
}

/// The values of a tensor on any device, as f64.
fn wide(t: &Tensor) -> Result<Vec<f64>> {
    Ok(t.to_vec_f32()?.into_iter().map(f64::from).collect())
}
