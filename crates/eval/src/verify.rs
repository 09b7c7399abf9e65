//! Every stage of a model against what PyTorch computed for the same weights.
//!
//! The rule: the largest error over a tensor, |out − ref64| ≤ 2·|naive f32 − ref64| + 1e-6·max|ref64|, 3· for
//! gradients, where golden data holds the stage in both precisions. Where it holds f32 alone, PyTorch's own error e is
//! not known; it is measured as the largest change of our result when every weight moves by one unit in the last
//! place, and the bound is that of the rule plus e, since the reference itself is off by so much.
//!
//! On a GPU naive is bf16: its error, measured with PyTorch, is in `golden_bf16.safetensors`, with what the f32 values lack to
//! the f64 ones. Greedy ids that plain bf16 itself does not agree on are left open.

use std::path::Path;

use pheye_cpu::philox;
use pheye_model::{Options, Pheye};
use pheye_ops::Cx;
use pheye_tensor::{Device, ParamTable, Tensor};
use serde::Serialize;

use crate::case::{Case, Kind, Observed};
use crate::generate::Expected;
use crate::golden::Golden;
use crate::{Error, Result};

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
/// every trained tensor, greedily generated ids, and the losses of five training steps; and with `generate.json`, where it is:
/// ids of other ways to generate, and the probabilities of sampling. On a GPU the bounds are those of
/// `golden_bf16.safetensors`.
///
/// # Errors
/// A folder that cannot be loaded or golden data that cannot be read; a stage that is out of bounds is no error but
/// part of the report.
pub fn verify(cx: &Cx, folder: &Path) -> Result<Report> {
    let golden = Golden::open(&folder.join("golden.safetensors"))?;
    let mut case = Case::read(&golden)?;
    let bf16 = match cx.device {
        Device::Cpu => None,
        Device::Gpu(_) => Some(bf16(folder, &mut case)?),
    };
    let mut model = Pheye::load(folder, Options::default())?;
    let generated = generated(cx, folder, &case)?;
    let ours = case.observe(cx, &mut model)?;
    let mut stages = pixels(folder, &model, &golden, case.pictures())?;
    match &bf16 {
        Some(bf16) => {
            for ours in &ours {
                stages.push(compare(&golden, ours, Bound::Bf16(bf16))?);
            }
        }
        None => {
            let mut moved = Pheye::load(folder, Options::default())?;
            move_weights(&mut moved)?;
            for (ours, moved) in ours.iter().zip(&case.observe(cx, &mut moved)?) {
                stages.push(compare(&golden, ours, Bound::Moved(moved))?);
            }
        }
    }
    for name in golden.names("grad.") {
        if !ours.iter().any(|o| o.name == name) {
            return Err(golden.fault(&name, "is the gradient of a tensor that this model does not train"));
        }
    }
    stages.extend(generated);
    Ok(Report { stages })
}

/// The comparisons of `generate.json`, if there is one.
fn generated(cx: &Cx, folder: &Path, case: &Case) -> Result<Vec<Stage>> {
    let Some(expected) = Expected::read(folder)? else { return Ok(Vec::new()) };
    // Observing the other stages trains a model, so this is another.
    let mut model = Pheye::load(folder, Options::default())?;
    model.move_to(&cx.device, &ParamTable::default())?;
    let kvs = case.kvs(cx, &model)?;
    expected.compare(cx, folder, &model, &kvs)
}

/// The bounds of `folder` for bf16; `case` learns which greedy ids are left open.
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

pub(crate) fn largest(values: impl Iterator<Item = f64>) -> f64 {
    // f64::max would lose a NaN.
    values.fold(0.0, |a, v| if v.abs() > a || v.is_nan() { v.abs() } else { a })
}

fn distance(a: &[f64], b: &[f64]) -> f64 {
    largest(a.iter().zip(b).map(|(a, b)| a - b))
}

/// Where the bound of an error comes from.
enum Bound<'a> {
    /// f32: the same stage by a model whose weights are moved.
    Moved(&'a Observed),
    /// bf16: what `golden_bf16.safetensors` says.
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
    let allowed = noise + 1e-6 * largest(truth.iter().copied());
    Ok(Stage { name: name.clone(), error: distance(&ours.values, &truth), allowed })
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

/// Pixels of the images beside the golden data. Preprocessing is exact up to the rounding of one division.
fn pixels(folder: &Path, model: &Pheye, golden: &Golden, pictures: usize) -> Result<Vec<Stage>> {
    let c = model.config();
    let preprocess = pheye_image::Preprocess::new(c.vision.image_size, c.connector.level);
    let (mut global, mut local) = (Vec::new(), Vec::new());
    for i in 0..pictures {
        let picture = pheye_image::open(folder.join(format!("image{i}.png")), &Default::default())?;
        let tiles = preprocess.pixels(&picture);
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
