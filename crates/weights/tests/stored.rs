//! Parameters that a file stores transposed or several as one tensor: reading, faults, and writing back.

mod common;

use std::collections::BTreeMap;
use std::path::Path;

use common::{one_tensor, open, safetensors, torch_zip};
use pheye_tensor::{DType, Init, Shape, Source, Tensor};
use pheye_weights::{Checkpoint, CheckpointSource, Error, NameMap, Stored, save_safetensors, save_stored};

/// Inputs and outputs of the linears, of which `qkv` is three.
const IN: usize = 5;
const OUT: usize = 7;

/// `qkv.0.weight` is the first third of `qkv.weight`; all weights but that of the norm are stored transposed.
fn stored(name: &str) -> Stored {
    let transposed = name.ends_with(".weight") && name != "norm.weight";
    match name.strip_prefix("qkv.").and_then(|rest| rest.split_once('.')) {
        Some((chunk, leaf)) if chunk.len() == 1 => {
            let chunk = chunk.parse().unwrap();
            Stored { tensor: format!("qkv.{leaf}"), transposed, chunk, chunks: 3 }
        }
        _ => Stored { transposed, ..Stored::whole(name) },
    }
}

/// The parameters of the network, with their shapes.
fn params() -> Vec<(String, Shape)> {
    let mut all: Vec<(String, Shape)> = Vec::new();
    for i in 0..3 {
        all.push((format!("qkv.{i}.weight"), [OUT, IN].into()));
        all.push((format!("qkv.{i}.bias"), [OUT].into()));
    }
    all.extend([("out.weight".to_owned(), [IN, OUT].into()), ("norm.weight".to_owned(), [IN].into())]);
    all
}

/// 0, 1, 2, … on from `start`, all of which bf16 represents exactly.
fn counted(shape: impl Into<Shape>, start: usize) -> Tensor {
    let shape = shape.into();
    let values: Vec<f32> = (0..shape.elements()).map(|i| (start + i) as f32).collect();
    Tensor::from_f32(shape, &values).unwrap()
}

/// A file with the four tensors of the parameters.
fn write(path: &Path, dtype: DType) {
    let tensors = [
        ("qkv.weight", counted([IN, 3 * OUT], 0)),
        ("qkv.bias", counted([3 * OUT], 110)),
        ("out.weight", counted([OUT, IN], 140)),
        ("norm.weight", counted([IN], 180)),
    ];
    let tensors = tensors.map(|(name, t)| (name, t.to_dtype(dtype).unwrap()));
    save_safetensors(path, tensors.iter().map(|(n, t)| (*n, t)), &BTreeMap::new()).unwrap();
}

fn read(source: &mut CheckpointSource) -> Vec<Tensor> {
    params().into_iter().map(|(name, shape)| source.tensor(&name, shape, Init::Zeros)).collect()
}

#[test]
fn each_parameter_is_its_part_of_the_file() {
    let folder = tempfile::tempdir().unwrap();
    for (file, dtype) in [("a", DType::F32), ("b", DType::Bf16)] {
        let path = folder.path().join(file);
        write(&path, dtype);
        let checkpoint = Checkpoint::open(&path).unwrap();
        for wanted in [DType::F32, DType::Bf16] {
            let mut told = Vec::new();
            let source = CheckpointSource::new(&checkpoint, |_| wanted).stored(stored);
            let mut source = source.progress(|done, all| told.push((done, all)));
            for (name, shape) in params() {
                assert_eq!(source.shape_of(&name), Some(shape), "{name}");
            }
            for ((name, shape), tensor) in params().iter().zip(read(&mut source)) {
                assert_eq!((tensor.shape(), tensor.dtype()), (*shape, wanted), "{name}");
                let at = |i: usize| {
                    let (row, col) = (i / shape.cols(), i % shape.cols());
                    let part: usize = name.split('.').nth(1).unwrap().parse().unwrap_or(0);
                    match name.as_str() {
                        "out.weight" => 140 + col * IN + row,
                        "norm.weight" => 180 + i,
                        n if n.ends_with("bias") => 110 + part * OUT + i,
                        _ => col * 3 * OUT + part * OUT + row,
                    }
                };
                let expected: Vec<f32> = (0..shape.elements()).map(|i| at(i) as f32).collect();
                assert_eq!(tensor.to_vec_f32().unwrap(), expected, "{name}");
            }
            source.finish().unwrap();
            assert_eq!(told.len(), params().len());
            assert_eq!(told.last().map(|t| t.0), told.last().map(|t| t.1), "all bytes are told");
        }
    }
}

/// A quantized matrix has one scale for each of its own rows, not for those of the file.
#[test]
fn int8_follows_the_transposition() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w");
    write(&path, DType::F32);
    let checkpoint = Checkpoint::open(&path).unwrap();
    let read = |dtype| {
        let mut source = CheckpointSource::new(&checkpoint, move |_| dtype).stored(stored);
        source.tensor("qkv.2.weight", [OUT, IN].into(), Init::Zeros)
    };
    let (whole, quantized) = (read(DType::F32), read(DType::Int8));
    assert_eq!(quantized.to_vec_f32().unwrap(), whole.to_dtype(DType::Int8).unwrap().to_vec_f32().unwrap());
}

/// A torch tensor may be a view itself: here [2, 3] with strides 1 and 2, the transpose of what is in the record.
#[test]
fn views_of_torch_are_transposed_and_cut_too() {
    let record: Vec<u8> = (0..6).flat_map(|i| (i as f32).to_le_bytes()).collect();
    let pickle = one_tensor(b"K\x06", b"K\x00", b"K\x02K\x03\x86", b"K\x01K\x02\x86");
    let checkpoint = open(&torch_zip(&pickle, &[("0", &record)])).unwrap();
    let tensor = |stored: Stored, shape: [usize; 2]| {
        let mut source = CheckpointSource::new(&checkpoint, |_| DType::F32).stored(move |_| stored.clone());
        source.tensor("w", shape.into(), Init::Zeros).to_vec_f32().unwrap()
    };
    let of = |transposed, chunk, chunks| Stored { tensor: "w".to_owned(), transposed, chunk, chunks };
    assert_eq!(tensor(of(false, 0, 1), [2, 3]), [0.0, 2.0, 4.0, 1.0, 3.0, 5.0]);
    assert_eq!(tensor(of(false, 1, 2), [1, 3]), [1.0, 3.0, 5.0]);
    assert_eq!(tensor(of(true, 0, 1), [3, 2]), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    assert_eq!(tensor(of(true, 2, 3), [1, 2]), [4.0, 5.0]);
}

/// A fault says what the file should hold, once for all chunks of a tensor.
#[test]
fn faults_are_in_terms_of_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w");
    let fault = |tensors: &[(&str, Tensor)]| {
        save_safetensors(&path, tensors.iter().map(|(n, t)| (*n, t)), &BTreeMap::new()).unwrap();
        let checkpoint = Checkpoint::open(&path).unwrap();
        let names = NameMap::default().prefix("", "decoder.");
        let mut source = CheckpointSource::new(&checkpoint, |_| DType::F32).stored(stored).names(names);
        read(&mut source);
        source.finish().unwrap_err().to_string()
    };
    let norm = || ("decoder.norm.weight", counted([IN], 0));
    let said = fault(&[norm(), ("decoder.out.weight", counted([OUT, IN], 0))]);
    assert!(said.contains("2 mismatches"), "{said}");
    assert!(said.contains("missing `decoder.qkv.weight` [5, 21]\n"), "{said}");
    assert!(said.contains("missing `decoder.qkv.bias` [21]"), "{said}");
    // The shape of `Linear`, a vector, and rows that are no thirds.
    let said = fault(&[
        norm(),
        ("decoder.out.weight", counted([IN, OUT], 0)),
        ("decoder.qkv.weight", counted([105], 0)),
        ("decoder.qkv.bias", counted([22], 0)),
    ]);
    assert!(said.contains("3 mismatches"), "{said}");
    assert!(said.contains("`decoder.out.weight` has shape [5, 7], the network needs [7, 5]"), "{said}");
    assert!(said.contains("`decoder.qkv.weight` has shape [105], the network needs [5, 21]"), "{said}");
    assert!(said.contains("`decoder.qkv.bias` has shape [22], the network needs [21]"), "{said}");
}

/// Dimensions of a tensor without elements may be of any size.
#[test]
fn chunks_of_nothing_are_no_fault_of_the_reader() {
    for dims in ["0,1099511627776,1099511627776", "3,0,1099511627776,1099511627776", ""] {
        let header = format!("{{\"w\":{{\"dtype\":\"F32\",\"shape\":[{dims}],\"data_offsets\":[0,0]}}}}");
        let scalar = header.replace("[0,0]", "[0,4]");
        let file = if dims.is_empty() { safetensors(&scalar, 4) } else { safetensors(&header, 0) };
        let checkpoint = open(&file).unwrap();
        for transposed in [false, true] {
            let stored = move |_: &str| Stored { tensor: "w".to_owned(), transposed, chunk: 1, chunks: 3 };
            let mut source = CheckpointSource::new(&checkpoint, |_| DType::F32).stored(stored);
            let _ = source.shape_of("w");
            assert_eq!(source.tensor("w", [7, 5].into(), Init::Zeros).shape().elements(), 0);
            assert!(source.finish().unwrap_err().to_string().contains("`w` has shape"));
        }
    }
}

#[test]
fn what_was_read_is_written_back_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (folder.path().join("first"), folder.path().join("second"));
    for dtype in [DType::F32, DType::Bf16] {
        write(&first, dtype);
        let checkpoint = Checkpoint::open(&first).unwrap();
        let tensors = read(&mut CheckpointSource::new(&checkpoint, |_| dtype).stored(stored));
        let params = params();
        let named = params.iter().zip(&tensors).map(|((name, _), t)| (stored(name), t));
        save_stored(&second, named, &BTreeMap::new()).unwrap();
        let again = Checkpoint::open(&second).unwrap();
        let infos = |c: &Checkpoint| -> Vec<_> {
            c.names().map(|n| (n.to_owned(), c.info(n), c.f64s(n).unwrap())).collect()
        };
        assert_eq!(infos(&again), infos(&checkpoint));
    }
}

#[test]
fn chunks_that_do_not_make_up_a_tensor_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w");
    let chunk = |transposed, chunk, chunks| Stored { tensor: "w".to_owned(), transposed, chunk, chunks };
    let t = |shape: [usize; 2]| counted(shape, 0);
    let narrow = t([2, 3]).to_dtype(DType::Bf16).unwrap();
    let vector = counted([6], 0);
    let refused = |params: &[(Stored, &Tensor)]| {
        let saved = save_stored(&path, params.iter().cloned(), &BTreeMap::new());
        matches!(saved, Err(Error::Chunks { tensor, .. }) if tensor == "w")
    };
    let (a, b) = (&t([2, 3]), &t([3, 2]));
    for (case, params) in [
        ("missing", vec![(chunk(true, 0, 2), a)]),
        ("twice", vec![(chunk(true, 1, 2), a), (chunk(true, 1, 2), a)]),
        ("outside", vec![(chunk(false, 2, 2), a)]),
        ("none", vec![(chunk(false, 0, 0), a)]),
        ("shape", vec![(chunk(false, 0, 2), a), (chunk(false, 1, 2), b)]),
        ("type", vec![(chunk(false, 0, 2), a), (chunk(false, 1, 2), &narrow)]),
        ("way", vec![(chunk(false, 0, 2), a), (chunk(true, 1, 2), a)]),
        ("number", vec![(chunk(false, 0, 2), a), (chunk(false, 1, 3), a)]),
        ("vector", vec![(chunk(true, 0, 1), &vector)]),
    ] {
        assert!(refused(&params), "{case}");
    }
    assert!(std::fs::read_dir(folder.path()).unwrap().next().is_none(), "nothing is written");
    assert!(!refused(&[(chunk(false, 0, 2), a), (chunk(false, 1, 2), a)]));
}
