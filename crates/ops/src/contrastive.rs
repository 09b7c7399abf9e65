//! Image-caption loss (CLIP, arXiv 2103.00020), with the pictures of one caption sharing it.

use pheye_cpu::gemm::{MatRef, Start, gemm};
use pheye_tensor::{Device, Tensor};

use crate::{Cx, Error, Result};

/// Loss and gradients.
#[derive(Debug)]
pub struct Loss {
    /// Mean of both directions.
    pub loss: f64,
    /// d(loss)/d(images).
    pub dimages: Tensor,
    /// d(loss)/d(texts).
    pub dtexts: Tensor,
    /// d(loss)/d(log_scale).
    pub dlog_scale: f32,
}

fn normalise(x: &[f32], d: usize) -> (Vec<f32>, Vec<f32>) {
    let norms: Vec<f32> = x.chunks_exact(d).map(|r| r.iter().map(|v| v * v).sum::<f32>().sqrt().max(1e-12)).collect();
    (x.chunks_exact(d).zip(&norms).flat_map(|(r, n)| r.iter().map(move |v| v / n)).collect(), norms)
}

fn unnormalise(out: &mut [f32], dy: &[f32], y: &[f32], norms: &[f32], d: usize) {
    for (((o, dy), y), n) in out.chunks_exact_mut(d).zip(dy.chunks_exact(d)).zip(y.chunks_exact(d)).zip(norms) {
        let dot: f32 = dy.iter().zip(y).map(|(a, b)| a * b).sum();
        o.iter_mut().zip(dy).zip(y).for_each(|((o, dy), y)| *o = (dy - dot * y) / n);
    }
}

/// Loss of images [b, d] and texts [c, d].
///
/// # Errors
/// [`Error::Range`] for a label outside the texts.
pub fn forward_backward(cx: &Cx, images: &Tensor, texts: &Tensor, labels: &[usize], log_scale: f32) -> Result<Loss> {
    let (b, c, d) = (images.shape().rows(), texts.shape().rows(), images.shape().cols());
    if let Some(bad) = labels.iter().find(|&&l| l >= c) {
        return Err(Error::Range { op: "contrastive", what: "label", value: bad.to_string(), allowed: format!("0..{c}") });
    }
    match cx.device {
        Device::Cpu => {
            let (i, ni) = normalise(images.f32()?, d);
            let (t, nt) = normalise(texts.f32()?, d);
            let scale = log_scale.exp();
            let mut z = vec![0.0; b * c];
            gemm(&mut z, c, Start::Zero, scale, MatRef::f32(&i, b, d), MatRef::f32(&t, c, d).t());
            let mut dz = vec![0.0f32; b * c];
            let mut loss = 0.0f64;
            for r in 0..b {
                let row = &z[r * c..][..c];
                let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                let sum: f32 = row.iter().map(|v| (v - max).exp()).sum();
                loss += 0.5 * f64::from(sum.ln() + max - row[labels[r]]) / b as f64;
                for k in 0..c {
                    dz[r * c + k] += 0.5 / b as f32 * ((row[k] - max).exp() / sum - f32::from(k == labels[r]));
                }
            }
            for k in 0..c {
                let of: Vec<usize> = (0..b).filter(|&r| labels[r] == k).collect();
                if of.is_empty() { continue; }
                let share = 1.0 / of.len() as f32;
                let max = (0..b).map(|r| z[r * c + k]).fold(f32::NEG_INFINITY, f32::max);
                let sum: f32 = (0..b).map(|r| (z[r * c + k] - max).exp()).sum();
                for r in 0..b {
                    let target = if labels[r] == k { share } else { 0.0 };
                    loss -= 0.5 / c as f64 * f64::from(target * (z[r * c + k] - max - sum.ln()));
                    dz[r * c + k] += 0.5 / c as f32 * ((z[r * c + k] - max).exp() / sum - target);
                }
            }
            let dlog_scale = dz.iter().zip(&z).map(|(a, b)| a * b).sum();
            let (mut di, mut dt) = (vec![0.0; b * d], vec![0.0; c * d]);
            gemm(&mut di, d, Start::Zero, scale, MatRef::f32(&dz, b, c), MatRef::f32(&t, c, d));
            gemm(&mut dt, d, Start::Zero, scale, MatRef::f32(&dz, b, c).t(), MatRef::f32(&i, b, d));
            let (mut dimages, mut dtexts) = (cx.empty([b, d]), cx.empty([c, d]));
            unnormalise(dimages.f32_mut()?, &di, &i, &ni, d);
            unnormalise(dtexts.f32_mut()?, &dt, &t, &nt, d);
            Ok(Loss { loss, dimages, dtexts, dlog_scale })
        }
        Device::Gpu(ref gpu) => match *gpu {},
    }
}
