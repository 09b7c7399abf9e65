//! The kernels on the emulator, in three orders of their threads: against the formula in f64, and its slopes.
use own_kernel::{KERNELS, backward, forward};
use pheye_tensor::{Device, Gpu, Tensor};

fn values(n: usize, seed: usize) -> Vec<f64> { (0..n).map(|i| ((i + seed) * 7919 % 1009) as f64 / 720.0 - 0.7).collect() }

fn on(gpu: &Gpu, shape: [usize; 2], values: &[f64]) -> Tensor {
    let values: Vec<f32> = values.iter().map(|v| *v as f32).collect();
    Tensor::from_f32(shape, &values).unwrap().to_device(&Device::Gpu(gpu.clone())).unwrap()
}

/// Σ dy·y, whose gradients backward computes.
fn formula([x, w, dy]: &[Vec<f64>; 3], k: usize) -> f64 {
    let row = |(x, dy): (&[f64], &[f64])| {
        let mean = x.iter().sum::<f64>() / k as f64;
        let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / k as f64;
        let dot = |w: &[f64]| x.iter().zip(w).map(|(x, w)| (x - mean) * w).sum::<f64>();
        w.chunks(k).zip(dy).map(|(w, dy)| dy * dot(w)).sum::<f64>() / (variance + 1e-5).sqrt()
    };
    x.chunks(k).zip(dy.chunks(w.len() / k)).map(row).sum()
}

#[test]
fn forward_and_gradients() {
    for (rows, k, m) in [(3, 40, 7), (1, 300, 30), (5, 129, 1)] {
        let inputs = [values(rows * k, 1), values(m * k, 5), values(rows * m, 9)];
        let all = ["emulator", "emulator:reversed", "emulator:shuffled=7"].map(|device| {
            let gpu = Gpu::open(device).unwrap();
            gpu.load(&KERNELS).unwrap();
            let [x, w, dy] = [0, 1, 2].map(|i| on(&gpu, [[rows, k], [m, k], [rows, m]][i], &inputs[i]));
            let (y, stats) = forward(&gpu, "norm_linear_fwd", &x, &w).unwrap();
            let dw = on(&gpu, [m, k], &vec![0.5; m * k]);
            let dx = backward(&gpu, [&x, &w, &stats, &dy], &dw).unwrap();
            [dx, dw, y].map(|t| t.to_vec_f32().unwrap())
        });
        assert!(all[0] == all[1] && all[0] == all[2], "the order of the threads shows");
        let near = |found: f64, exact: f64| assert!((found - exact).abs() < 1e-4 * (1.0 + exact.abs()), "{found} {exact}");
        near(all[0][2].iter().zip(&inputs[2]).map(|(y, dy)| f64::from(*y) * dy).sum(), formula(&inputs, k));
        for (of, before) in [(0, 0.0), (1, 0.5)] {
            for i in (0..inputs[of].len()).step_by(13) {
                let mut moved = inputs.clone();
                let mut at = |h: f64| { moved[of][i] = inputs[of][i] + h; formula(&moved, k) };
                near(all[0][of][i].into(), before + (at(1e-5) - at(-1e-5)) / 2e-5);
            }
        }
    }
}

#[test]
fn the_emulator_tells_of_a_race() {
    let gpu = Gpu::open("emulator").unwrap();
    gpu.load(&KERNELS).unwrap();
    let (x, w) = (on(&gpu, [3, 40], &values(120, 1)), on(&gpu, [7, 40], &values(280, 5)));
    let error = forward(&gpu, "norm_linear_fwd_race", &x, &w).unwrap_err().to_string();
    assert!(error.contains("race on shared memory") || error.contains("nobody wrote"), "{error}");
}
