//! Cross entropy fused with Phi's frozen output head.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod common;

use common::{Bench, Case, linear, place, random, work};
use pheye_ops::cross_entropy;
use serde::Deserialize;

#[derive(Clone, Deserialize)]
struct Row {
    tokens: usize,
    d: usize,
    vocab: usize,
}

fn measure(bench: &mut Bench, row: &Row, gradient: bool) {
    let Row { tokens, d, vocab } = *row;
    let products = if gradient { 2 } else { 1 };
    let [n, k, v] = [tokens, d, vocab].map(|x| x as u64);
    let case = Case {
        op: "linear cross entropy",
        shape: format!("{tokens}x{d}x{vocab}"),
        direction: if gradient { "forward+backward" } else { "forward" },
        flops: 2 * products * n * k * v,
        // x and W are read; for the gradient, W is read again and dx written. The logits are never stored.
        bytes: bench.element() * products * (n * k + k * v),
    };
    bench.row(case, move |cx| {
        let x = random(cx, "x", [tokens, d])?;
        let mut head = linear(vocab, d, true);
        place(cx, head.params_mut(), false)?;
        // The values do not matter, as long as they are spread over the vocabulary.
        let targets: Vec<i64> = (0..tokens).map(|i| (i * 7919 % vocab) as i64).collect();
        work(move |cx| cross_entropy::queue(cx, &x, &head, &targets, gradient, None))
    });
}

fn main() {
    common::run("cross_entropy", |bench| {
        for row in bench.rows::<Row>()? {
            measure(bench, &row, false);
            measure(bench, &row, true);
        }
        Ok(())
    });
}
