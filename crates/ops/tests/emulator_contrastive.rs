//! The image-caption loss on the emulator against its formula.
#![cfg(feature = "emulator")]

mod common;

use common::{dot, sum};
use pheye_ops::{Cx, contrastive};
use pheye_testkit::gpu::{bf16_values, download, on_all_orders, orders, round_bf16, upload_bf16, upload_f32};
use pheye_testkit::{Formula, Ran, Real, gradcheck, max};

/// Captions of pictures, and columns of an embedding.
struct Loss<'a>(&'a [usize], usize);

fn log_sum_exp<T: Real>(z: &[T]) -> T {
    let top = z.iter().copied().fold(z[0], max);
    top + sum(z.iter().map(|&z| (z - top).exp())).ln()
}

impl Formula for Loss<'_> {
    fn eval<T: Real>(&self, inputs: &[Vec<T>]) -> Vec<T> {
        let Loss(labels, d) = *self;
        let unit = |x: &[T]| -> Vec<Vec<T>> {
            x.chunks(d).map(|r| r.iter().map(|&x| x / dot(r, r).sqrt()).collect()).collect()
        };
        let (images, texts, scale) = (unit(&inputs[0]), unit(&inputs[1]), inputs[2][0].exp());
        let z: Vec<Vec<T>> =
            images.iter().map(|i| texts.iter().map(|t| scale * dot(i, t)).collect()).collect();
        let of_pictures: Vec<T> = z.iter().zip(labels).map(|(z, &l)| log_sum_exp(z) - z[l]).collect();
        let mut of_captions = Vec::new();
        for k in 0..texts.len() {
            let column: Vec<T> = z.iter().map(|z| z[k]).collect();
            let own: Vec<T> = labels.iter().zip(&column).filter(|p| *p.0 == k).map(|p| *p.1).collect();
            if !own.is_empty() {
                of_captions.push(log_sum_exp(&column) - sum(own.iter().copied()) / T::of(own.len() as f64));
            }
        }
        let mean = |x: &[T]| sum(x.iter().copied()) / T::of(x.len() as f64);
        vec![(mean(&of_pictures) + mean(&of_captions)) * T::of(0.5)]
    }
}

fn check(labels: &[usize], c: usize, d: usize) {
    let b = labels.len();
    let (images, texts) = (bf16_values(b * d, 1), bf16_values(c * d, 2));
    let log_scale = 2.0;
    let run = |narrow: bool| {
        on_all_orders(|device| {
            let upload = |shape: [usize; 2], x: &[f32]| match narrow {
                true => upload_bf16(device, shape, x),
                false => upload_f32(device, shape, x),
            };
            let (images, texts) = (upload([b, d], &images), upload([c, d], &texts));
            let cx = Cx::new(device.clone());
            let loss = contrastive::forward_backward(&cx, &images, &texts, labels, log_scale).unwrap();
            vec![
                vec![loss.loss as f32],
                download(&loss.dimages),
                download(&loss.dtexts),
                vec![loss.dlog_scale],
            ]
        })
    };
    let mut of_f32 = run(false);
    let inputs = [("images", images.clone()), ("texts", texts.clone()), ("log_scale", vec![log_scale])];
    gradcheck("contrastive", &Loss(labels, d), &inputs, |_, dy| {
        let scaled = |k: usize| of_f32[k].iter().map(|x| x * dy[0]).collect();
        Ran { y: of_f32[0].clone(), grads: vec![("images", scaled(1)), ("texts", scaled(2))] }
    });
    // By the rule a single number may be off by no more than the plain formula's luck; a quotient of differences has no luck.
    let shifted = |by: f64| {
        let all = [&images, &texts].map(|x| x.iter().map(|&x| f64::from(x)).collect::<Vec<f64>>());
        let [images, texts] = all;
        Loss(labels, d).eval(&[images, texts, vec![f64::from(log_scale) + by]])[0]
    };
    let slope = (shifted(1e-5) - shifted(-1e-5)) / 2e-5;
    assert!((f64::from(of_f32[3][0]) - slope).abs() < 2e-6 * (1.0 + slope.abs()), "{:?} {slope}", of_f32[3]);
    // In between all is f32, so that bf16 changes nothing but the last rounding.
    of_f32[1..3].iter_mut().for_each(|x| round_bf16(x));
    assert_eq!(run(true), of_f32);
}

#[test]
fn of_any_shape() {
    check(&[0, 2, 1, 0, 2, 0], 3, 8);
    check(&[0], 1, 5);
    check(&[5, 1, 1], 6, 33);
    check(&(0..40).map(|i| i * 7 % 35).collect::<Vec<_>>(), 35, 12);
}

#[test]
fn of_no_pictures_is_nothing() {
    let device = &orders()[0];
    let (images, texts) = (upload_bf16(device, [0, 4], &[]), upload_bf16(device, [2, 4], &bf16_values(8, 1)));
    let loss = contrastive::forward_backward(&Cx::new(device.clone()), &images, &texts, &[], 1.0).unwrap();
    assert_eq!((loss.loss, loss.dlog_scale), (0.0, 0.0));
    assert_eq!(download(&loss.dtexts), [0.0; 8]);
}
