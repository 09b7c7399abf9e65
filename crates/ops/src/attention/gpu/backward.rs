//! Backward of attention on a GPU: one kernel for all gradients if the spans have few queries, otherwise one kernel for
//! dq and one for dk and dv.

use pheye_kernels::params::AttentionBwd;
use pheye_kernels::{In, Out};
use pheye_tensor::{Gpu, Launch, Tensor};

use super::super::{Heads, Kv, Saved, Span, borrowed};
use super::work::{self, Item};
use super::{Family, Operands, matrix, operands, scale_log2, table, tile, variant};
use crate::{Cx, Result};

const QUERIES: Family = Family {
    takes_keys: false,
    by_size: [
        "attention_bwd_dq_bf16_d16",
        "attention_bwd_dq_bf16_d32",
        "attention_bwd_dq_bf16_d48",
        "attention_bwd_dq_bf16_d64",
        "attention_bwd_dq_bf16_d80",
        "attention_bwd_dq_bf16_d96",
        "attention_bwd_dq_bf16_d112",
        "attention_bwd_dq_bf16_d128",
    ],
    resident: ["attention_bwd_dq_bf16_d64_resident", "attention_bwd_dq_bf16_d80_resident"],
    by_length: &[],
};
const KEYS: Family = Family {
    takes_keys: true,
    by_size: [
        "attention_bwd_dkv_bf16_d16",
        "attention_bwd_dkv_bf16_d32",
        "attention_bwd_dkv_bf16_d48",
        "attention_bwd_dkv_bf16_d64",
        "attention_bwd_dkv_bf16_d80",
        "attention_bwd_dkv_bf16_d96",
        "attention_bwd_dkv_bf16_d112",
        "attention_bwd_dkv_bf16_d128",
    ],
    resident: ["attention_bwd_dkv_bf16_d64_resident", "attention_bwd_dkv_bf16_d80_resident"],
    by_length: &[],
};

/// For head size 64: the kernels that hold all queries of a span in shared memory, by their maximum number of queries.
const SHORT: [(usize, &str); 2] = [(80, "attention_bwd_bf16_d64_80"), (128, "attention_bwd_bf16_d64_128")];

/// The kernel for spans with few queries, if it applies. It reads keys and values once, the two separate kernels twice.
fn short_kernel(spans: &[Span], h: &Heads) -> Option<&'static str> {
    let queries = spans.iter().map(|s| s.q.len()).max()?;
    SHORT.iter().find(|(most, _)| h.head_dim == 64 && queries <= *most).map(|(_, kernel)| *kernel)
}

struct Backward<'a> {
    cx: &'a Cx,
    gpu: &'a Gpu,
    q: &'a Tensor,
    kv: Kv<&'a Tensor>,
    out: &'a Tensor,
    lse: &'a Tensor,
    dout: &'a Tensor,
    dq: &'a Tensor,
    dkv: Kv<&'a Tensor>,
    spans: &'a [Span],
    heads: &'a Heads,
}

impl Backward<'_> {
    /// The inputs that all backward kernels share.
    fn params(&self, l: &mut Launch<'_>) -> Result<AttentionBwd> {
        let h = self.heads;
        let Operands { k, v, k_stride, v_stride } =
            operands(&self.kv, h.width(), In::offset, |t| Ok(l.read(matrix(t)?)))?;
        Ok(AttentionBwd {
            q: l.read(matrix(self.q)?),
            k,
            v,
            dout: l.read(matrix(self.dout)?),
            lse: l.read(self.lse.region()?),
            rows: self.q.shape().rows() as i32,
            heads: h.heads as i32,
            dim: h.head_dim as i32,
            q_stride: h.width() as i32,
            k_stride,
            v_stride,
            scale: h.scale,
            scale_log2: scale_log2(h),
            causal: h.causal.into(),
            ..AttentionBwd::default()
        })
    }

    /// Output addresses of dk and dv.
    fn dkv(&self, l: &mut Launch<'_>) -> Result<(Out, Out)> {
        let width = self.heads.width();
        let all = if matches!(self.dkv, Kv::Fused(_)) { 2 * width } else { width };
        let to = operands(&self.dkv, width, Out::offset, |t| {
            let region = t.region()?;
            Ok(if t.shape().cols() == all { l.write(region) } else { l.update(region) })
        })?;
        Ok((to.k, to.v))
    }

    /// Launches the kernel that computes dq, split along the keys if there are too few blocks to fill the GPU.
    fn run(&self, mut l: Launch<'_>, mut p: AttentionBwd, list: &[Item]) -> Result<()> {
        let (cx, h) = (self.cx, self.heads);
        let Some(splits) = work::split_keys(list, h.heads, self.gpu.sms(), l.spec().tile[1]) else {
            (p.dq, p.items) = (l.write(self.dq.region()?), l.read(table(cx, list)?));
            return Ok(l.run([list.len(), h.heads, 1], &p)?);
        };
        let part = cx.empty_f32([splits.rows, h.heads, h.head_dim])?;
        (p.part, p.items) = (l.write(part.region()?), l.read(table(cx, &splits.items)?));
        l.run([splits.items.len(), h.heads, 1], &p)?;
        let mut l = self.gpu.launch("attention_dq_join_bf16")?;
        (p.dq, p.part) = (l.write(self.dq.region()?), l.read(part.region()?).shared());
        p.items = l.read(table(cx, &splits.reductions)?);
        let slices = (splits.longest() * h.head_dim / 2).div_ceil(l.spec().tile[0]);
        Ok(l.run([splits.reductions.len(), h.heads, slices], &p)?)
    }

    fn in_one_kernel(&self, kernel: &'static str, keys: usize) -> Result<()> {
        let mut l = self.gpu.launch(kernel)?;
        let mut p = self.params(&mut l)?;
        p.o = l.read(matrix(self.out)?);
        (p.dk, p.dv) = self.dkv(&mut l)?;
        let (rows, causal) = (self.q.shape().rows(), self.heads.causal);
        let mut list = work::of_queries(self.spans, rows, causal, tile(&l));
        list.extend(work::of_keys_unseen(self.spans, keys));
        self.run(l, p, &list)
    }

    fn in_two_kernels(&self, keys: usize) -> Result<()> {
        let (gpu, spans, h) = (self.gpu, self.spans, self.heads);
        let delta = self.cx.empty_f32([h.heads, self.q.shape().rows()])?;
        let mut l = gpu.launch(variant(gpu, &QUERIES, spans, h)?)?;
        let mut p = self.params(&mut l)?;
        (p.o, p.delta) = (l.read(matrix(self.out)?), l.write(delta.region()?));
        let list = work::of_queries(spans, self.q.shape().rows(), h.causal, tile(&l));
        self.run(l, p, &list)?;

        let mut l = gpu.launch(variant(gpu, &KEYS, spans, h)?)?;
        let mut p = self.params(&mut l)?;
        p.delta = l.read(delta.region()?).shared();
        (p.dk, p.dv) = self.dkv(&mut l)?;
        let list = work::of_keys(spans, keys, h.causal, tile(&l));
        p.items = l.read(table(self.cx, &list)?);
        Ok(l.run([list.len(), h.heads, 1], &p)?)
    }
}

/// dq, and dk and dv in the layout of k and v.
pub(in super::super) fn backward(
    cx: &Cx,
    gpu: &Gpu,
    saved: &Saved,
    dout: &Tensor,
    spans: &[Span],
    heads: &Heads,
) -> Result<(Tensor, Kv<Tensor>)> {
    let Saved { q, kv, out, softmax_stats: lse } = saved;
    let (kv, width) = (borrowed(kv), heads.width());
    let keys = match kv {
        Kv::Split { k: t, .. } | Kv::Fused(t) => t.shape().rows(),
    };
    let dq = cx.empty(q.shape())?;
    // No block writes the columns beyond those of the heads, so they are set to 0 here.
    let empty_like = |t: &Tensor, own: usize| {
        if t.shape().cols() == own { cx.empty(t.shape()) } else { cx.zeros(t.shape()) }
    };
    let dkv = match kv {
        Kv::Split { k, v } => Kv::Split { k: empty_like(k, width)?, v: empty_like(v, width)? },
        Kv::Fused(kv) => Kv::Fused(empty_like(kv, 2 * width)?),
    };
    let work = Backward { cx, gpu, q, kv, out, lse, dout, dq: &dq, dkv: borrowed(&dkv), spans, heads };
    match short_kernel(spans, heads) {
        Some(kernel) => work.in_one_kernel(kernel, keys)?,
        None => work.in_two_kernels(keys)?,
    }
    Ok((dq, dkv))
}
