//! The k largest values of each row and their columns.
//!
//! In descending order. Of equal values the first comes first, and a NaN counts as larger than every number, as in
//! [`crate::argmax`].

use pheye_kernels::params::Choice;
use pheye_tensor::{Device, Gpu, Tensor};

use crate::gpu::{by_dtype, read_words};
use crate::{Cx, Error, Result};

/// The k largest values of n rows.
#[derive(Debug, Clone, PartialEq)]
pub struct TopK {
    /// Column indices [n, k].
    pub ids: Vec<u32>,
    /// Values [n, k].
    pub values: Vec<f32>,
}

/// The `k` largest values of each row of x [n, v]. On a GPU the time grows with k; it is meant for k up to about a
/// hundred.
///
/// ```
/// use pheye_ops::{Cx, tensor::Tensor, topk};
///
/// let x = Tensor::from_f32([1, 4], &[0.1, 0.9, 0.3, 0.7])?;
/// let best = topk::forward(&Cx::cpu(), &x, 2)?;
/// assert_eq!((best.ids, best.values), (vec![1, 3], vec![0.9, 0.7]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`Error::Range`] when k is not in 1..=v.
pub fn forward(cx: &Cx, x: &Tensor, k: usize) -> Result<TopK> {
    let (rows, cols) = (x.shape().rows(), x.shape().cols());
    if k == 0 || k > cols {
        let (value, allowed) = (k.to_string(), format!("1..={cols}"));
        return Err(Error::Range { op: "topk", what: "k", value, allowed });
    }
    match &cx.device {
        Device::Cpu => {
            let mut all = TopK { ids: Vec::with_capacity(rows * k), values: Vec::with_capacity(rows * k) };
            for row in x.f32()?.chunks_exact(cols) {
                let mut ranks: Vec<u64> = row.iter().enumerate().map(|(i, &v)| rank(v, i as u32)).collect();
                if k < cols {
                    ranks.select_nth_unstable_by(k - 1, |a, b| b.cmp(a));
                }
                ranks[..k].sort_unstable_by(|a, b| b.cmp(a));
                let ids = ranks[..k].iter().map(|&r| !(r as u32));
                all.values.extend(ids.clone().map(|i| row[i as usize]));
                all.ids.extend(ids);
            }
            Ok(all)
        }
        Device::Gpu(gpu) => forward_gpu(cx, gpu, x, k),
    }
}

fn forward_gpu(cx: &Cx, gpu: &Gpu, x: &Tensor, k: usize) -> Result<TopK> {
    let (rows, cols) = (x.shape().rows(), x.shape().cols());
    let (ids, values) = (cx.empty_f32([rows, k])?, cx.empty_f32([rows, k])?);
    let mut l = gpu.launch(by_dtype(x.dtype(), "topk_fwd_bf16", "topk_fwd_f32")?)?;
    let p = Choice {
        x: l.read(x.region()?),
        ids: l.write(ids.region()?),
        values: l.write(values.region()?),
        cols: cols as i32,
        k: k as i32,
    };
    l.run([rows, 1, 1], &p)?;
    Ok(TopK { ids: read_words(gpu, &ids)?, values: values.to_vec_f32()? })
}

/// An integer that orders like x; both zeros are equal, and NaN is larger than every number.
pub(crate) fn sort_key(x: f32) -> u32 {
    let bits = (x + 0.0).to_bits();
    match x {
        _ if x.is_nan() => u32::MAX,
        _ if bits >> 31 == 1 => !bits,
        _ => bits | 1 << 31,
    }
}

/// An integer that orders like the value, and among equal values by descending index.
fn rank(x: f32, index: u32) -> u64 {
    u64::from(sort_key(x)) << 32 | u64::from(!index)
}
