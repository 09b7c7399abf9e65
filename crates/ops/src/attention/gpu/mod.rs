//! Attention on a GPU: the choice of the kernel by head size and number of queries, and the launches.

use std::ops::RangeInclusive;

use pheye_kernels::In;
use pheye_kernels::params::AttentionFwd;
use pheye_tensor::{DType, Gpu, Launch, Region, Tensor};

use self::work::Item;
use super::{Heads, Kv, Span};
use crate::{Cx, Error, Result};

mod backward;
pub(super) mod work;

pub(super) use backward::backward;

/// Kernels by head size, 16 to 128 in steps of 16; other head sizes use the next larger kernel.
pub(super) type Sizes = [&'static str; 8];

/// The variants of a kernel.
struct Family {
    /// Whether a block owns a tile of keys and loops over queries; otherwise it owns a tile of queries and loops over
    /// keys.
    takes_keys: bool,
    by_size: Sizes,
    /// Kernels for head sizes 64 and 80 that hold all rows of the other kind in shared memory.
    resident: [&'static str; 2],
    /// Kernels for one head size and a range of lengths, where the length is the largest number of owned rows of a
    /// span.
    by_length: &'static [(usize, RangeInclusive<usize>, &'static str)],
}

const FORWARD: Family = Family {
    takes_keys: false,
    by_size: [
        "attention_fwd_bf16_d16",
        "attention_fwd_bf16_d32",
        "attention_fwd_bf16_d48",
        "attention_fwd_bf16_d64",
        "attention_fwd_bf16_d80",
        "attention_fwd_bf16_d96",
        "attention_fwd_bf16_d112",
        "attention_fwd_bf16_d128",
    ],
    resident: ["attention_fwd_bf16_d64_resident", "attention_fwd_bf16_d80_resident"],
    by_length: &[
        (32, 129..=usize::MAX, "attention_fwd_bf16_d32_long"),
        (64, 65..=80, "attention_fwd_bf16_d64_80"),
        (64, 129..=usize::MAX, "attention_fwd_bf16_d64_long"),
        (80, 513..=usize::MAX, "attention_fwd_bf16_d80_long"),
    ],
};

fn range_error(what: &'static str, value: String, allowed: &str) -> Error {
    Error::Range { op: "attention", what, value, allowed: allowed.to_owned() }
}

/// The kernel for the head size. Also checks the other limits of the kernels.
pub(super) fn choose(sizes: &Sizes, h: &Heads) -> Result<&'static str> {
    if !(h.scale > 0.0 && h.scale.is_finite()) {
        return Err(range_error("scale", h.scale.to_string(), "a positive number on a GPU"));
    }
    match sizes.get(h.head_dim.div_ceil(16).wrapping_sub(1)) {
        Some(name) if h.head_dim.is_multiple_of(8) => Ok(name),
        _ => Err(range_error("head size", h.head_dim.to_string(), "8 to 128 in steps of 8 on a GPU")),
    }
}

/// The kernel for these spans. A block owns some rows (queries or keys) and loops over the rows of the other kind. The
/// resident kernels hold all rows of the other kind in shared memory, with one block per span and head; they are chosen
/// if the rows fit and the blocks fill the GPU.
fn variant(gpu: &Gpu, f: &Family, spans: &[Span], h: &Heads) -> Result<&'static str> {
    let general = choose(&f.by_size, h)?;
    let longest = |of: fn(&Span) -> usize| spans.iter().map(of).max().unwrap_or(0);
    let (queries, keys) = (longest(|s| s.q.len()), longest(|s| s.k.len()));
    let (taken, held) = if f.takes_keys { (keys, queries) } else { (queries, keys) };
    let resident = match h.head_dim {
        64 => Some(f.resident[0]),
        80 => Some(f.resident[1]),
        _ => None,
    };
    if let Some(kernel) = resident.filter(|_| taken > 64 && spans.len() * h.heads >= gpu.sms())
        && held <= gpu.launch(kernel)?.spec().tile[1]
    {
        return Ok(kernel);
    }
    let by_length =
        f.by_length.iter().find(|(size, lengths, _)| *size == h.head_dim && lengths.contains(&taken));
    Ok(by_length.map_or(general, |(.., kernel)| kernel))
}

/// Maximum number of rows that a block owns; tile size 0 means no limit.
fn tile(l: &Launch<'_>) -> usize {
    match l.spec().tile[0] {
        0 => usize::MAX,
        rows => rows,
    }
}

/// The region of a bf16 matrix whose rows can be read with 16-byte loads.
pub(super) fn matrix(t: &Tensor) -> Result<Region> {
    if t.dtype() != DType::Bf16 {
        let (shape, found, expected) = (t.shape(), t.dtype(), DType::Bf16);
        return Err(pheye_tensor::Error::DType { shape, found, expected }.into());
    }
    let region = t.region()?;
    if !region.addr().is_multiple_of(16) || !t.shape().cols().is_multiple_of(8) {
        return Err(range_error(
            "place of a matrix",
            t.shape().to_string(),
            "rows that begin at multiples of 16 bytes",
        ));
    }
    Ok(region)
}

/// Addresses and row strides (in elements) of keys and values.
struct Operands<T> {
    k: T,
    v: T,
    k_stride: i32,
    v_stride: i32,
}

/// `declare` declares the region to the launch and returns its address; `offset` adds a byte offset to an address.
fn operands<T: Copy>(
    kv: &Kv<&Tensor>,
    width: usize,
    offset: impl Fn(T, usize) -> T,
    mut declare: impl FnMut(&Tensor) -> Result<T>,
) -> Result<Operands<T>> {
    let stride = |t: &Tensor| t.shape().cols() as i32;
    Ok(match kv {
        Kv::Split { k, v } => {
            Operands { k: declare(k)?, v: declare(v)?, k_stride: stride(k), v_stride: stride(v) }
        }
        Kv::Fused(kv) => {
            let k = declare(kv)?;
            Operands { k, v: offset(k, 2 * width), k_stride: stride(kv), v_stride: stride(kv) }
        }
    })
}

/// The softmax scale for exp2: scale·log2(e).
pub(super) fn scale_log2(h: &Heads) -> f32 {
    h.scale * std::f32::consts::LOG2_E
}

fn table(cx: &Cx, items: &[Item]) -> Result<Region> {
    cx.table(&work::table(items))
}

/// o, and the log-sum-exp of each row of scores, [heads, rows].
pub(super) fn forward(
    cx: &Cx,
    gpu: &Gpu,
    q: &Tensor,
    kv: &Kv<&Tensor>,
    spans: &[Span],
    h: &Heads,
) -> Result<(Tensor, Tensor)> {
    let rows = q.shape().rows();
    let (o, lse) = (cx.empty(q.shape())?, cx.empty_f32([h.heads, rows])?);
    let mut l = gpu.launch(variant(gpu, &FORWARD, spans, h)?)?;
    let list = work::of_queries(spans, rows, h.causal, tile(&l));
    let splits = work::split_keys(&list, h.heads, gpu.sms(), l.spec().tile[1]);
    let Operands { k, v, k_stride, v_stride } =
        operands(kv, h.width(), In::offset, |t| Ok(l.read(matrix(t)?)))?;
    let mut p = AttentionFwd {
        q: l.read(matrix(q)?),
        k,
        v,
        rows: rows as i32,
        heads: h.heads as i32,
        dim: h.head_dim as i32,
        q_stride: h.width() as i32,
        k_stride,
        v_stride,
        scale_log2: scale_log2(h),
        causal: h.causal.into(),
        ..AttentionFwd::default()
    };
    let Some(splits) = splits else {
        (p.o, p.lse) = (l.write(o.region()?), l.write(lse.region()?));
        p.items = l.read(table(cx, &list)?);
        l.run([list.len(), h.heads, 1], &p)?;
        return Ok((o, lse));
    };
    let part = cx.empty_f32([splits.rows, h.heads, h.head_dim])?;
    let stats = cx.empty_f32([splits.rows, h.heads, 2])?;
    (p.part, p.stats) = (l.write(part.region()?), l.write(stats.region()?));
    p.items = l.read(table(cx, &splits.items)?);
    l.run([splits.items.len(), h.heads, 1], &p)?;

    let mut l = gpu.launch("attention_combine_bf16")?;
    (p.o, p.lse) = (l.write(o.region()?), l.write(lse.region()?));
    (p.part, p.stats) = (l.read(part.region()?).shared(), l.read(stats.region()?).shared());
    p.items = l.read(table(cx, &splits.reductions)?);
    let slices = splits.longest().div_ceil(l.spec().tile[0]);
    l.run([splits.reductions.len(), h.heads, slices], &p)?;
    Ok((o, lse))
}
