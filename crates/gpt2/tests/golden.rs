//! The model computes what the GPT-2 of transformers does: logits, losses, and all gradients, in f32 on the CPU and in bf16
//! on the emulator. `make_golden.py` wrote the data.

mod common;

use std::collections::BTreeMap;

use common::{Case, data};
use pheye_gpt2::hub::stored;
use pheye_ops::{add, cross_entropy, layernorm};
use pheye_tensor::{Device, Grads, ParamTable};
use pheye_testkit::gpu::download;
use pheye_testkit::{Golden, Report};
use pheye_weights::save_stored;

const CASES: [&str; 2] = ["plain", "old"];

/// A tensor as the golden data calls it, and its values.
type Observed = (String, Vec<f32>);

/// The sequences of 7, 1, 12 and 3 tokens, fed at once and step by step; some end before others, and one pauses.
const PIECES: [&[usize]; 8] = [
    &[4, 1, 5, 0],
    &[1, 0, 1, 1],
    &[1, 0, 1, 1],
    &[1, 0, 1, 0],
    &[0, 0, 1, 1],
    &[0, 0, 1, 0],
    &[0, 0, 1, 0],
    &[0, 0, 1, 0],
];

/// Everything that a frozen model computes: of ids at once, of ids in pieces with a cache, and of rows fed in with others
/// added between the halves of each block.
fn observe(case: &Case) -> Vec<Observed> {
    let Case { cx, gpt2, ids, targets, .. } = case;
    let layout = case.layout();
    let logits = gpt2.logits(cx, ids, &layout, None).unwrap();
    let losses =
        of_each_sequence(case, |targets| gpt2.next_token_loss(cx, ids, targets, &layout, None).unwrap());
    let mut all = vec![
        ("logits".to_owned(), download(&logits)),
        ("logits".to_owned(), case.in_pieces(&PIECES)),
        ("losses".to_owned(), losses),
    ];

    let mut x = gpt2.add_positions(cx, case.activation("rows"), &layout.positions).unwrap();
    let mut tape = Vec::new();
    for (i, block) in gpt2.blocks.iter().enumerate() {
        let (y, attend) = block.attend.forward(cx, &x, &layout, None).unwrap();
        let y = add::forward(cx, y, &case.activation(&format!("between.{i}"))).unwrap();
        let (y, mlp) = block.mlp.forward(cx, &y).unwrap();
        tape.push((attend, mlp));
        x = y;
    }
    let (x, norm) = layernorm::forward(cx, &x, &gpt2.final_norm).unwrap();
    let loss = cross_entropy::run(cx, &x, &gpt2.head, targets, true, None).unwrap();
    let losses = of_each_sequence(case, |targets| {
        let loss = cross_entropy::run(cx, &x, &gpt2.head, targets, false, None).unwrap();
        (loss.sum, loss.tokens)
    });
    all.push(("rows_losses".to_owned(), losses));
    let mut dx = layernorm::backward(cx, &norm, &loss.dx.unwrap(), &gpt2.final_norm, None).unwrap();
    for (i, block) in gpt2.blocks.iter().enumerate().rev() {
        let (attend, mlp) = tape.pop().unwrap();
        dx = block.mlp.backward(cx, &mlp, dx, None).unwrap();
        all.push((format!("between_grad.{i}"), download(&dx)));
        dx = block.attend.backward(cx, &attend, dx, &layout, None).unwrap();
    }
    all.push(("rows_grad".to_owned(), download(&dx)));
    all
}

/// The loss of each sequence, from a function that gives the loss and the number of targets for all rows.
fn of_each_sequence(case: &Case, loss: impl Fn(&[i64]) -> (f64, usize)) -> Vec<f32> {
    let mut end = 0;
    let of = |&len: &usize| {
        let rows = end..end + len;
        end += len;
        let alone = |(row, &target)| if rows.contains(&row) { target } else { cross_entropy::IGNORE };
        let targets: Vec<i64> = case.targets.iter().enumerate().map(alone).collect();
        let (sum, tokens) = loss(&targets);
        assert_eq!(tokens, targets.iter().filter(|&&target| target != cross_entropy::IGNORE).count());
        sum as f32
    };
    case.lengths.iter().map(of).collect()
}

/// Asserts that `out` is as near to the exact tensor as the rule asks, given the largest error of the plain formula: twice
/// that error, or three times for gradients.
fn check(golden: &Golden, device: &Device, (name, out): &Observed) {
    let exact = golden.f64(&format!("{name}_f64"));
    assert_eq!(out.len(), exact.len(), "{name}");
    // A NaN counts as larger than every number.
    let largest = |x: &mut dyn Iterator<Item = f64>| {
        x.fold(0.0, |m, x| if x.abs() > m || x.is_nan() { x.abs() } else { m })
    };
    let plain = match device {
        Device::Cpu => largest(&mut golden.f64(name).iter().zip(&exact).map(|(x, exact)| x - exact)),
        Device::Gpu(_) => golden.f64(&format!("{name}_bf16_error"))[0],
    };
    let factor = if name.contains("grad") { 3.0 } else { 2.0 };
    let errors: Vec<f64> = out.iter().zip(&exact).map(|(&x, exact)| (f64::from(x) - exact).abs()).collect();
    let error = largest(&mut errors.iter().copied());
    let at = errors.iter().position(|&e| e == error).unwrap_or(0);
    let allowed = factor * plain + 1e-6 * largest(&mut exact.iter().copied());
    Report { name: name.clone(), error, allowed, at }.check();
}

#[test]
fn a_frozen_model_is_that_of_transformers() {
    for name in CASES {
        let case = Case::on(&Device::Cpu, name);
        observe(&case).iter().for_each(|observed| check(&case.golden, &Device::Cpu, observed));
    }
}

/// The gradients are written as the file of the weights stores them, and compared there: q, k and v in one tensor, and
/// the linears transposed. The token embedding has the gradients of both of its uses.
#[test]
fn gradients_of_all_tensors_are_those_of_transformers() {
    let mut case = Case::on(&Device::Cpu, "plain");
    let table = ParamTable::assign(case.gpt2.params_mut(), |_| true).unwrap();
    let mut grads = Grads::new(table);
    let loss = |grads| case.gpt2.next_token_loss(&case.cx, &case.ids, &case.targets, &case.layout(), grads);
    let (with, without) = (loss(Some(&mut grads)).unwrap(), loss(None).unwrap());
    assert_eq!(with, without);

    let file = tempfile::NamedTempFile::new().unwrap();
    let all = case.gpt2.params_mut();
    let named = all.iter().map(|p| (stored(&p.name), grads.view(p).unwrap().unwrap()));
    let named: Vec<_> = named.collect();
    save_stored(file.path(), named.iter().map(|(stored, t)| (stored.clone(), t)), &BTreeMap::new()).unwrap();
    let ours = Golden::open(file.path());
    let theirs = Golden::open(data("plain").join("model.safetensors"));
    assert_eq!(ours.names().collect::<Vec<_>>(), theirs.names().collect::<Vec<_>>());
    for name in ours.names() {
        let grad = format!("grad.{name}");
        assert_eq!(ours.get(name).0, case.golden.get(&grad).0, "{name}");
        check(&case.golden, &Device::Cpu, &(grad, ours.f32(name).to_vec()));
    }
}

#[cfg(feature = "emulator")]
mod gpu {
    use std::cell::RefCell;

    use pheye_testkit::gpu::{on_all_orders, orders};

    use super::*;

    /// The vocabularies are odd, so that rows of logits do not begin at multiples of 16 bytes.
    #[test]
    fn a_frozen_model_is_that_of_transformers() {
        for name in CASES {
            let names = RefCell::new(Vec::new());
            let all = on_all_orders(|device| {
                let (of, values) = observe(&Case::on(device, name)).into_iter().unzip();
                *names.borrow_mut() = of;
                values
            });
            let [device, ..] = orders();
            let golden = Case::on(&Device::Cpu, name).golden;
            names.take().into_iter().zip(all).for_each(|observed| check(&golden, &device, &observed));
        }
    }
}
