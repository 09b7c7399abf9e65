//! A replayed recording gives the results of running the work anew, also with other inputs and other tables.
#![cfg(feature = "emulator")]

use pheye_ops::linear::{self, Linear};
use pheye_ops::{Cx, Error, Graphs, embedding};
use pheye_tensor::{DType, Device, Param, Tensor};
use pheye_testkit::normal;

fn on(device: &Device, shape: [usize; 2], seed: u64, dtype: DType) -> Tensor {
    let values = normal(seed, shape[0] * shape[1]);
    Tensor::from_f32(shape, &values).unwrap().to_dtype(dtype).unwrap().to_device(device).unwrap()
}

#[test]
fn a_replay_takes_new_inputs_and_new_tables() {
    let device: Device = "emulator".parse().unwrap();
    let cx = Cx::new(device.clone());
    let weight = Param::frozen("weight", on(&device, [24, 16], 1, DType::Bf16));
    let table = Param::frozen("table", on(&device, [50, 16], 2, DType::Bf16));
    let p = Linear { weight, bias: None };
    let work = |cx: &Cx, ids: &[u32]| -> Result<Tensor, Error> {
        let x = embedding::forward(cx, ids, &table)?;
        Ok(linear::forward(cx, &x, &p)?.0)
    };
    let mut graphs = Graphs::default();
    for (round, ids) in [[3u32, 1, 4], [1, 5, 9], [2, 6, 5], [3, 1, 4]].iter().enumerate() {
        let replayed = cx.replay(&mut graphs, |cx| work(cx, ids)).unwrap().to_vec_f32().unwrap();
        let queued = work(&cx, ids).unwrap().to_vec_f32().unwrap();
        assert_eq!(replayed, queued, "round {round}");
        assert_eq!(graphs.len(), 1, "round {round} was recorded again");
    }
    // Another shape needs another recording.
    cx.replay(&mut graphs, |cx| work(cx, &[7])).unwrap();
    assert_eq!(graphs.len(), 2);
}

#[test]
fn reading_results_within_recorded_work_is_an_error() {
    let device: Device = "emulator".parse().unwrap();
    let cx = Cx::new(device.clone());
    let x = on(&device, [2, 8], 1, DType::F32);
    let error = cx.replay(&mut Graphs::default(), |_| Ok::<_, Error>(x.to_vec_f32()?)).unwrap_err();
    assert!(error.to_string().contains("download within recorded work"), "{error}");
    // The device is usable after the error.
    assert_eq!(x.to_vec_f32().unwrap(), normal(1, 16));
}

#[test]
fn on_the_cpu_work_simply_runs() {
    let mut graphs = Graphs::default();
    assert_eq!(Cx::cpu().replay(&mut graphs, |_| Ok::<_, Error>(5)).unwrap(), 5);
    assert!(graphs.is_empty());
}
