//! Compares every stage of a model with the results of PyTorch for the same weights.
//!
//! If the golden data has a stage in f32 and f64, the largest error over the tensor must satisfy
//! `|out − ref64| ≤ 2·|naive f32 − ref64| + 1e-6·max|ref64|`, with 3 instead of 2 for gradients. If it has
//! the stage in f32 only, PyTorch's own error e is unknown. It is estimated as the largest change of our
//! result when every weight moves by one unit in the last place; the bound is increased by e, because the
//! reference itself has this error.
//!
//! On a GPU, the naive implementation is bf16. Its error was measured with PyTorch and is stored in
//! `golden_bf16.safetensors`, together with the differences between the f64 and the f32 results. Greedy ids
//! on which the bf16 variants in PyTorch disagree are not compared (`tests/golden/bf16.py`).

use std::path::Path;

use pheye_baselines::Baseline;
use pheye_cpu::philox;
use pheye_image::{PassOrder, Preprocess};
use pheye_model::Pheye;
use pheye_ops::Cx;
use pheye_tensor::{Device, ParamTable, Tensor};
use serde::Serialize;

use crate::case::{Case, Kind, Observed};
use crate::generate::Expected;
use crate::golden::Golden;
use crate::network::Network;
use crate::stage::{Stage, largest};
use crate::{Error, Result};

/// The results of all comparisons of one folder.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The stages in network order.
    pub stages: Vec<Stage>,
}

impl Report {
    /// Whether every stage passed.
    pub fn passed(&self) -> bool {
        self.stages.iter().all(Stage::passed)
    }
}

/// Compares the model in `folder`, a Pheye or a baseline, with its `golden.safetensors`: pixels, media (image
/// tokens), logits, loss, the gradient of every trained tensor, greedily generated ids, and the losses of five
/// training steps. If
/// `generate.json` exists, also the ids of other generation options and the probabilities of sampling. On a
/// GPU, the bounds of `golden_bf16.safetensors` are used.
///
/// # Errors
/// Returns an error if the model or the golden data cannot be loaded. A stage that is out of bounds is not an
/// error; the report contains it.
pub fn verify(cx: &Cx, folder: &Path) -> Result<Report> {
    match pheye_baselines::is_baseline(folder) {
        true => verify_as::<Baseline>(cx, folder),
        false => verify_as::<Pheye>(cx, folder),
    }
}

fn verify_as<N: Network>(cx: &Cx, folder: &Path) -> Result<Report> {
    let path = folder.join("golden.safetensors");
    if !path.exists() {
        return Err(Error::NoGolden { folder: folder.to_owned() });
    }
    let golden = Golden::open(&path)?;
    let mut case = Case::read(&golden)?;
    let bf16 = match cx.device {
        Device::Cpu => None,
        Device::Gpu(_) => Some(bf16(folder, &mut case)?),
    };
    let mut model = N::load(folder)?;
    let generated = generated::<N>(cx, folder, &case)?;
    let ours = case.observe(cx, &mut model)?;
    let mut stages = pixels(folder, &model, &golden, case.images())?;
    match &bf16 {
        Some(bf16) => {
            for ours in &ours {
                stages.push(compare(&golden, ours, Bound::Bf16(bf16))?);
            }
        }
        None => {
            let mut moved = N::load(folder)?;
            move_weights(&mut moved)?;
            for (ours, moved) in ours.iter().zip(&case.observe(cx, &mut moved)?) {
                stages.push(compare(&golden, ours, Bound::Moved(moved))?);
            }
        }
    }
    for name in golden.names("grad.") {
        let name = name.strip_suffix("_f64").unwrap_or(&name);
        if !ours.iter().any(|o| o.name == name) {
            return Err(golden.fault(name, "is the gradient of a tensor that this model does not train"));
        }
    }
    stages.extend(generated);
    Ok(Report { stages })
}

/// The comparisons of `generate.json`, if it exists.
fn generated<N: Network>(cx: &Cx, folder: &Path, case: &Case) -> Result<Vec<Stage>> {
    let Some(expected) = Expected::read(folder)? else { return Ok(Vec::new()) };
    // Needs its own model, because observing the other stages trains theirs.
    let mut model = N::load(folder)?;
    model.move_to(&cx.device, &ParamTable::default())?;
    let media = case.media(cx, &model)?;
    expected.compare(cx, folder, &model, &media)
}

/// Reads the bounds of `folder` for bf16, and sets in `case` which greedy ids are not compared.
fn bf16(folder: &Path, case: &mut Case) -> Result<Golden> {
    let path = folder.join("golden_bf16.safetensors");
    if !path.exists() {
        return Err(Error::NoBf16 { path });
    }
    let bf16 = Golden::open(&path)?;
    let demanded = bf16.values("greedy_demanded", case.greedy_len())?;
    case.open = (0..demanded.len()).filter(|&i| demanded[i] == 0.0).collect();
    Ok(bf16)
}

fn distance(a: &[f64], b: &[f64]) -> f64 {
    largest(a.iter().zip(b).map(|(a, b)| a - b))
}

/// How the bound of an error is determined.
enum Bound<'a> {
    /// f32: from the same stage computed by a model with perturbed weights.
    Moved(&'a Observed),
    /// bf16: from `golden_bf16.safetensors`.
    Bf16(&'a Golden),
}

fn compare(golden: &Golden, ours: &Observed, bound: Bound) -> Result<Stage> {
    let name = &ours.name;
    let naive = ours.pick(golden.get(name)?);
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
    let exact = golden.find(&format!("{name}_f64"))?.map(|exact| ours.pick(exact));
    let (truth, noise) = match (bound, exact) {
        (Bound::Moved(_), Some(exact)) => {
            let noise = factor * distance(&naive, &exact);
            (exact, noise)
        }
        (Bound::Moved(moved), None) => (naive, (factor + 1.0) * distance(&ours.values, &moved.values)),
        (Bound::Bf16(bf16), exact) => {
            let exact = match exact {
                Some(exact) => exact,
                None => {
                    let rest = bf16.values(&format!("{name}_rest"), naive.len())?;
                    naive.iter().zip(rest).map(|(f32, rest)| f32 + rest).collect()
                }
            };
            (exact, factor * bf16.values(&format!("{name}_bf16_error"), 1)?[0])
        }
    };
    let allowed = noise + 1e-6 * largest(truth.iter().copied()) + of_keys(golden, name)?;
    Ok(Stage { name: name.clone(), error: distance(&ours.values, &truth), allowed })
}

/// What the bound of the gradient of a key's bias has in addition. In exact arithmetic the gradient is zero: the bias
/// adds the same number to all scores of a query. What is left is the rounding of numbers as large as the gradient of
/// the key's weight.
fn of_keys(golden: &Golden, name: &str) -> Result<f64> {
    let Some(layer) = name.strip_suffix("k_proj.bias") else { return Ok(0.0) };
    let weight = format!("{layer}k_proj.weight");
    let exact = golden.find(&format!("{weight}_f64"))?;
    let grad = exact.map_or_else(|| golden.find(&weight), |exact| Ok(Some(exact)))?;
    Ok(grad.map_or(0.0, |grad| 1e-6 * largest(grad.into_iter())))
}

/// Moves every weight to a neighbouring f32, up or down at random.
fn move_weights(model: &mut impl Network) -> Result<()> {
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

/// Compares the pixels of the images beside the golden data. Preprocessing is exact except for the rounding
/// of a division. Pillow 13 resizes tall images in another order of passes than the versions before it, and golden
/// data are of either; the order that fits better counts for all images.
fn pixels(folder: &Path, model: &impl Network, golden: &Golden, images: usize) -> Result<Vec<Stage>> {
    let mut best: Option<Vec<Stage>> = None;
    for order in [PassOrder::RowsFirst, PassOrder::Pillow13] {
        let stages = pixels_of(folder, Preprocess { order, ..model.preprocess() }, golden, images)?;
        let error = |stages: &[Stage]| largest(stages.iter().map(|s| s.error));
        if best.as_ref().is_none_or(|best| error(&stages) < error(best)) {
            best = Some(stages);
        }
    }
    Ok(best.unwrap_or_default())
}

fn pixels_of(folder: &Path, preprocess: Preprocess, golden: &Golden, images: usize) -> Result<Vec<Stage>> {
    let (mut global, mut local) = (Vec::new(), Vec::new());
    for i in 0..images {
        let image = pheye_image::open(folder.join(format!("image{i}.png")), &Default::default())?;
        let tiles = preprocess.pixels(&image);
        global.extend(tiles.global.iter().copied().map(f64::from));
        local.extend(tiles.local.iter().copied().map(f64::from));
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
