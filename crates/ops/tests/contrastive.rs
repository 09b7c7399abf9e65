//! The image-text contrastive loss on every device, compared with its formula.

mod common;

use common::{sum, upload};
use pheye_ops::{Cx, contrastive};
use pheye_tensor::{DType, Device};
use pheye_testkit::gpu::download;
use pheye_testkit::{Formula, Ran, Real, gradcheck, normal, plain};
use proptest::prelude::*;

/// The caption of each image, and the width of the embeddings.
struct Loss<'a>(&'a [usize], usize);

impl Formula for Loss<'_> {
    fn eval<T: Real>(&self, inputs: &[Vec<T>]) -> Vec<T> {
        let Loss(labels, d) = *self;
        let unit = |x: &[T]| -> Vec<Vec<T>> {
            x.chunks(d).map(|r| r.iter().map(|&x| x / T::dot(r, r).sqrt()).collect()).collect()
        };
        let (images, texts, scale) = (unit(&inputs[0]), unit(&inputs[1]), inputs[2][0].exp());
        let z: Vec<Vec<T>> =
            images.iter().map(|i| texts.iter().map(|t| scale * T::dot(i, t)).collect()).collect();
        let of_images = z.iter().zip(labels).map(|(z, &l)| plain::log_sum_exp(z) - z[l]).collect();
        let of_caption = |k: usize| {
            let column: Vec<T> = z.iter().map(|z| z[k]).collect();
            let own: Vec<T> = labels.iter().zip(&column).filter(|&(&l, _)| l == k).map(|(_, &z)| z).collect();
            let mean = |own: Vec<T>| sum(own.iter().copied()) / T::of(own.len() as f64);
            (!own.is_empty()).then(|| plain::log_sum_exp(&column) - mean(own))
        };
        let mean = |x: Vec<T>| sum(x.iter().copied()) / T::of(x.len() as f64);
        let captions = mean((0..texts.len()).filter_map(of_caption).collect());
        vec![(mean(of_images) + captions) * T::of(0.5)]
    }
}

/// The loss, and the gradients of images, texts and the logarithm of the scale.
fn run(device: &Device, dtype: DType, labels: &[usize], d: usize, i: &[Vec<f32>]) -> Vec<Vec<f32>> {
    let [images, texts] = [&i[0], &i[1]].map(|x| upload(device, dtype, [x.len() / d, d], x));
    let cx = Cx::new(device.clone());
    let loss = contrastive::forward_backward(&cx, &images, &texts, labels, i[2][0]).unwrap();
    vec![vec![loss.loss as f32], download(&loss.dimages), download(&loss.dtexts), vec![loss.dlog_scale]]
}

/// The gradient of the scale is a single sum whose terms cancel. If the plain formula happens to be exact there, the
/// tolerance is zero.
fn check(
    [images, texts]: [Vec<f32>; 2],
    labels: &[usize],
    d: usize,
    with_scale: bool,
    run: impl Fn(&[Vec<f32>]) -> Vec<Vec<f32>>,
) {
    let inputs = [("images", images), ("texts", texts), ("log_scale", vec![2.0])];
    gradcheck("contrastive", &Loss(labels, d), &inputs, |i, dy| {
        let mut ran = run(i).into_iter();
        let y = ran.next().unwrap();
        let scaled = ran.map(|x| x.iter().map(|x| x * dy[0]).collect());
        let names = ["images", "texts", "log_scale"].into_iter().take(if with_scale { 3 } else { 2 });
        Ran { y, grads: names.zip(scaled).collect() }
    });
}

fn check_on_cpu(labels: &[usize], c: usize, d: usize, with_scale: bool) {
    let inputs = [normal(1, labels.len() * d), normal(2, c * d)];
    check(inputs, labels, d, with_scale, |i| run(&Device::Cpu, DType::F32, labels, d, i));
}

#[test]
fn at_sizes_of_use() {
    check_on_cpu(&[0, 2, 1, 0, 2, 0], 3, 8, true);
}

proptest! {
    #![proptest_config(common::repeatable(32))]

    #[test]
    fn any_shape(labels in prop::collection::vec(0..6usize, 1..9), d in 2..12usize) {
        check_on_cpu(&labels, 6, d, false);
    }
}

/// The GPU kernels.
#[cfg(feature = "emulator")]
mod gpu {
    use pheye_testkit::gpu::{bf16_values, on_all_orders, orders, round_bf16, wide};

    use super::*;

    fn check_kernels(labels: &[usize], c: usize, d: usize) {
        let inputs = [bf16_values(labels.len() * d, 1), bf16_values(c * d, 2), vec![2.0]];
        let on = |dtype| on_all_orders(|device| run(device, dtype, labels, d, &inputs));
        let mut of_f32 = on(DType::F32);
        let [images, texts, log_scale] = inputs.each_ref().map(|x| wide(x));
        check([inputs[0].clone(), inputs[1].clone()], labels, d, false, |_| of_f32.clone());
        // For a single value the tolerance depends on chance (see above), so it is compared with a difference quotient.
        let shifted =
            |by: f64| Loss(labels, d).eval(&[images.clone(), texts.clone(), vec![log_scale[0] + by]])[0];
        let slope = (shifted(1e-5) - shifted(-1e-5)) / 2e-5;
        let of_scale = of_f32[3][0];
        assert!((f64::from(of_scale) - slope).abs() < 2e-6 * (1.0 + slope.abs()), "{of_scale} {slope}");
        // All intermediate values are f32, so bf16 affects only the final rounding.
        of_f32[1..3].iter_mut().for_each(|x| round_bf16(x));
        assert_eq!(on(DType::Bf16), of_f32);
    }

    #[test]
    fn any_shape() {
        check_kernels(&[0, 2, 1, 0, 2, 0], 3, 8);
        check_kernels(&[0], 1, 5);
        check_kernels(&[5, 1, 1], 6, 33);
        check_kernels(&(0..40).map(|i| i * 7 % 35).collect::<Vec<_>>(), 35, 12);
    }

    #[test]
    fn no_images_are_nothing() {
        let ran = run(&orders()[0], DType::Bf16, &[], 4, &[vec![], bf16_values(8, 1), vec![1.0]]);
        assert_eq!(ran, [vec![0.0], vec![], vec![0.0; 8], vec![0.0]]);
    }
}
