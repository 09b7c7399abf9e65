//! Every stage of a model against what PyTorch computed for the same weights.
//!
//! The rule: the largest error over a tensor, |out − ref64| ≤ 2·|naive f32 − ref64| + 1e-6·max|ref64|, 3· for
//! gradients, where golden data holds the stage in both precisions. Where it holds f32 alone, PyTorch's own error e is
//! not known; it is measured as the largest change of our result when every weight moves by one unit in the last
//! place, and the bound is that of the rule plus e, since the reference itself is off by so much.

use std::ops::Range;
use std::path::Path;

use pheye_cpu::philox;
use pheye_model::{Batch, Generation, Loss, Options, Pheye};
use pheye_ops::Cx;
use pheye_optim::{AdamWConfig, Optimizer, Schedule};
use pheye_tensor::{Grads, Tensor};
use serde::Serialize;

use crate::Result;
use crate::golden::Golden;

/// One comparison.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Stage {
    /// What was compared.
    pub name: String,
    /// Largest difference from the reference.
    pub error: f64,
    /// Largest difference allowed.
    pub allowed: f64,
}

impl Stage {
    /// Whether the difference is within bounds; not a number never is.
    pub fn passed(&self) -> bool {
        self.error <= self.allowed
    }
}

/// All comparisons of one folder.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// In the order of the network.
    pub stages: Vec<Stage>,
}

impl Report {
    /// Whether every stage passed.
    pub fn passed(&self) -> bool {
        self.stages.iter().all(Stage::passed)
    }
}

/// Compares the model in `folder` with `golden.safetensors` beside it: pixels, media, logits, loss, the gradient of
/// every trained tensor, greedily generated ids, and the losses of five training steps.
///
/// # Errors
/// A folder that cannot be loaded or golden data that cannot be read; a stage that is out of bounds is no error but
/// part of the report.
pub fn verify(cx: &Cx, folder: &Path) -> Result<Report> {
    let golden = Golden::open(&folder.join("golden.safetensors"))?;
    let case = Case::read(&golden)?;
    let mut model = Pheye::load(folder, Options::default())?;
    let ours = case.observe(cx, &mut model)?;
    let mut moved = Pheye::load(folder, Options::default())?;
    move_weights(&mut moved)?;
    let moved = case.observe(cx, &mut moved)?;

    let mut stages = pixels(folder, &model, &golden, &case)?;
    for (ours, moved) in ours.iter().zip(&moved) {
        stages.push(compare(&golden, ours, moved)?);
    }
    for name in golden.names("grad.") {
        if !ours.iter().any(|o| o.name == name) {
            return Err(golden.fault(&name, "is the gradient of a tensor that this model does not train"));
        }
    }
    Ok(Report { stages })
}

/// A stage's name in the golden file, our values for it, and which of the golden values they stand for.
struct Observed {
    name: String,
    values: Vec<f64>,
    /// Elements of the golden tensor that are compared, in order; all when empty.
    elements: Vec<Range<usize>>,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Activation,
    Gradient,
    /// Token ids: equal or wrong.
    Ids,
}

impl Observed {
    fn all(name: impl Into<String>, values: Vec<f64>, kind: Kind) -> Observed {
        Observed { name: name.into(), values, elements: Vec::new(), kind }
    }
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&v| v.into()).collect()
}

fn largest(values: impl Iterator<Item = f64>) -> f64 {
    // f64::max would lose a NaN.
    values.fold(0.0, |a, v| if v.abs() > a || v.is_nan() { v.abs() } else { a })
}

fn distance(a: &[f64], b: &[f64]) -> f64 {
    largest(a.iter().zip(b).map(|(a, b)| a - b))
}

fn compare(golden: &Golden, ours: &Observed, moved: &Observed) -> Result<Stage> {
    let pick = |values: Vec<f64>| match ours.elements.is_empty() {
        true => values,
        false => {
            let part = |r: &Range<usize>| values.get(r.clone()).unwrap_or_default().to_vec();
            ours.elements.iter().flat_map(part).collect()
        }
    };
    let name = &ours.name;
    let naive = pick(golden.get(name)?);
    if naive.len() != ours.values.len() {
        let why = format!("has {} values, the model gives {}", naive.len(), ours.values.len());
        return Err(golden.fault(name, why));
    }
    let factor = match ours.kind {
        Kind::Activation => 2.0,
        Kind::Gradient => 3.0,
        Kind::Ids => {
            return Ok(Stage { name: name.clone(), error: distance(&ours.values, &naive), allowed: 0.0 });
        }
    };
    let (error, allowed) = match golden.find(&format!("{name}_f64"))? {
        Some(exact) => {
            let exact = pick(exact);
            let floor = 1e-6 * largest(exact.iter().copied());
            (distance(&ours.values, &exact), factor * distance(&naive, &exact) + floor)
        }
        None => {
            let noise = distance(&ours.values, &moved.values);
            let floor = 1e-6 * largest(naive.iter().copied());
            (distance(&ours.values, &naive), (factor + 1.0) * noise + floor)
        }
    };
    Ok(Stage { name: name.clone(), error, allowed })
}

/// Moves every weight to a neighbouring f32, up or down by a coin.
fn move_weights(model: &mut Pheye) -> Result<()> {
    for (i, param) in model.params_mut().into_iter().enumerate() {
        let mut value = Tensor::from_f32(param.shape(), param.value.f32()?)?;
        for (j, v) in value.f32_mut()?.iter_mut().enumerate() {
            let coin = philox::philox4x32_10([j as u32, i as u32, 0, 0], [0, 0])[0] & 1;
            *v = if coin == 0 { v.next_up() } else { v.next_down() };
        }
        param.value = value;
    }
    Ok(())
}

/// The inputs of golden data, as this model takes them.
struct Case {
    global: Tensor,
    local: Option<Tensor>,
    ids: Vec<Vec<i64>>,
    mask: Vec<Vec<i64>>,
    labels: Vec<Vec<i64>>,
    /// What the greedy answer continues, about the first picture, and the length of both together.
    prompt: Vec<u32>,
    greedy_len: usize,
}

const TRAIN_STEPS: u64 = 5;

impl Case {
    fn read(golden: &Golden) -> Result<Case> {
        let one = |name: &str| match golden.rows(name)?.into_iter().next() {
            Some(row) if !row.is_empty() => Ok(row),
            _ => Err(golden.fault(name, "is empty")),
        };
        let prompt: Vec<u32> = one("greedy_prompt")?.into_iter().map(|id| id as u32).collect();
        let greedy_len = one("greedy")?.len();
        if greedy_len < prompt.len() {
            return Err(golden.fault("greedy", "is shorter than its prompt"));
        }
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
                return Err(golden
                    .fault(name, format!("is not [pictures · tiles, 3, s, s] for {} pictures", ids.len())));
            }
        }
        Ok(Case { global, local, ids, mask, labels, prompt, greedy_len })
    }

    /// The batch of `pictures`, padding left out; one sequence about each.
    fn batch(&self, cx: &Cx, pictures: Range<usize>) -> Result<Batch> {
        // Rows of a tile are rows of pixels: [tiles, 3, s, s] is a matrix of width s.
        let part = |t: &Tensor| {
            let rows = t.shape().rows() / self.ids.len();
            t.rows(pictures.start * rows..pictures.end * rows)
        };
        let side = self.global.shape().cols();
        let pixels = match &self.local {
            None => part(&self.global)?,
            Some(local) => pheye_ops::rows::concat(cx, &[&part(&self.global)?, &part(local)?])?,
        };
        let pixels = pixels.reshape([pixels.shape().elements() / (3 * side * side).max(1), 3, side, side])?;
        let (mut ids, mut targets, mut lengths, mut picture) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (p, row) in pictures.clone().enumerate() {
            let kept: Vec<usize> = (0..self.ids[row].len()).filter(|&i| self.mask[row][i] != 0).collect();
            ids.extend(kept.iter().map(|&i| self.ids[row][i] as u32));
            // A token's target is the label of the one after it.
            let next = kept.iter().skip(1).map(|&i| self.labels[row][i]).chain([-100]);
            targets.extend(next);
            lengths.push(kept.len());
            picture.push(p);
        }
        Ok(Batch { pixels, pictures: pictures.len(), ids, targets, lengths, picture })
    }

    /// What golden data holds of every stage, computed by `model`, which is trained in the end.
    fn observe(&self, cx: &Cx, model: &mut Pheye) -> Result<Vec<Observed>> {
        let batch = self.batch(cx, 0..self.ids.len())?;
        let media = model.encode(cx, &batch.pixels, batch.pictures)?;
        let logits = model.logits(cx, &media, &batch)?;
        let vocab = logits.shape().cols();
        let width = self.ids[0].len();
        let real = |(row, mask): (usize, &Vec<i64>)| {
            let kept: Vec<usize> = (0..width).filter(|&i| mask[i] != 0).collect();
            kept.into_iter().map(move |i| (row * width + i) * vocab..(row * width + i + 1) * vocab)
        };
        let elements = self.mask.iter().enumerate().flat_map(real).collect();
        let mut all = vec![
            Observed::all("media", wide(media.f32()?), Kind::Activation),
            Observed {
                name: "logits".to_owned(),
                values: wide(logits.f32()?),
                elements,
                kind: Kind::Activation,
            },
            Observed::all("greedy", self.greedy(cx, model)?, Kind::Ids),
        ];
        let table = model.train(Pheye::is_pheye_param)?;
        let mut grads = Grads::new(table.clone());
        let (loss, dmedia) = model.language(cx, &batch, &media, &mut grads)?;
        let mean = |v: &[f32]| v.iter().map(|&v| f64::from(v) / loss.tokens as f64).collect::<Vec<_>>();
        all.push(Observed::all("loss_sum", vec![loss.sum], Kind::Activation));
        all.extend(
            dmedia
                .map(|d| d.f32().map(|d| Observed::all("media_grad", mean(d), Kind::Gradient)))
                .transpose()?,
        );
        grads.clear()?;
        model.loss_and_grads(cx, &batch, None, &mut grads)?;
        for (name, range) in table.entries() {
            all.push(Observed::all(
                format!("grad.{name}"),
                mean(&grads.flat.f32()?[range.clone()]),
                Kind::Gradient,
            ));
        }

        let losses = self.train(cx, model, Optimizer::new(table, AdamWConfig::default())?)?;
        all.push(Observed::all("train_losses", losses, Kind::Activation));
        Ok(all)
    }

    /// Ids of the prompt and its greedy continuation.
    fn greedy(&self, cx: &Cx, model: &Pheye) -> Result<Vec<f64>> {
        let first = self.batch(cx, 0..1)?;
        let kvs = model.cross_kv(cx, &model.encode(cx, &first.pixels, 1)?)?;
        let how = Generation { max_new_tokens: self.greedy_len - self.prompt.len(), end: None };
        let mut new = model.generate(cx, &kvs, std::slice::from_ref(&self.prompt), &[0], how, |_, _| ())?;
        Ok(self.prompt.iter().chain(&new.swap_remove(0)).map(|&id| id.into()).collect())
    }

    /// Mean losses of five AdamW steps, each of one micro-batch a picture.
    fn train(&self, cx: &Cx, model: &mut Pheye, mut optimizer: Optimizer) -> Result<Vec<f64>> {
        let batches = (0..self.ids.len()).map(|i| self.batch(cx, i..i + 1)).collect::<Result<Vec<_>>>()?;
        let schedule = Schedule::cosine(1e-3);
        (0..TRAIN_STEPS)
            .map(|step| {
                let mut total = Loss::default();
                for batch in &batches {
                    let loss = model.loss_and_grads(cx, batch, None, &mut optimizer.grads)?;
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

/// Pixels of the pictures beside the golden data. Preprocessing is exact up to the rounding of one division.
fn pixels(folder: &Path, model: &Pheye, golden: &Golden, case: &Case) -> Result<Vec<Stage>> {
    let c = model.config();
    let preprocess = pheye_image::Preprocess::new(c.vision.image_size, c.connector.level);
    let (mut global, mut local) = (Vec::new(), Vec::new());
    for i in 0..case.ids.len() {
        let picture = pheye_image::open(folder.join(format!("image{i}.png")), &Default::default())?;
        let tiles = preprocess.pixels(&picture);
        global.extend(wide(&tiles.global));
        local.extend(wide(&tiles.local));
    }
    [("global_pixels", global), ("local_pixels", local)]
        .into_iter()
        .filter(|(_, ours)| !ours.is_empty())
        .map(|(name, ours)| {
            let theirs = golden.get(name)?;
            let error = if theirs.len() == ours.len() { distance(&ours, &theirs) } else { f64::NAN };
            Ok(Stage { name: name.to_owned(), error, allowed: 1e-6 * largest(theirs.iter().copied()) })
        })
        .collect()
}
