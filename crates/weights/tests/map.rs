//! Tensors in the mapped file: not copied if the requested type is the stored one, and copied when they are
//! written to.

mod common;
#[path = "common/torch.rs"]
mod torch;

use std::collections::BTreeMap;
use std::io::Cursor;

use common::{data, open};
use pheye_tensor::{DType, Tensor};
use pheye_weights::{Checkpoint, save_safetensors};

#[test]
fn elements_as_wanted_are_not_copied() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.safetensors");
    let f32s = Tensor::from_f32([2, 3], &[1.0, -2.0, 3.5, 4.0, 5.0, 6.0]).unwrap();
    let bf16s = f32s.to_dtype(DType::Bf16).unwrap();
    save_safetensors(&path, [("single", &f32s), ("half", &bf16s)], &BTreeMap::new()).unwrap();
    let c = Checkpoint::open(&path).unwrap();
    for (name, dtype, shared) in [
        ("single", DType::F32, true),
        ("half", DType::Bf16, true),
        ("single", DType::Bf16, false),
        ("half", DType::F32, false),
    ] {
        let mut tensor = c.tensor(name, dtype).unwrap();
        assert_eq!(tensor.is_shared(), shared, "{name} as {dtype}");
        assert_eq!(tensor.to_vec_f32().unwrap(), f32s.f32().unwrap());
        // Two views share the mapping, so neither can be written to.
        let view = tensor.clone();
        assert!(if dtype == DType::F32 { tensor.f32_mut().is_err() } else { tensor.bf16_mut().is_err() });
        drop(view);
        match dtype {
            DType::F32 => tensor.f32_mut().unwrap()[1] = 9.0,
            _ => tensor.bf16_mut().unwrap()[1] = pheye_tensor::bf16::from_f32(9.0),
        }
        assert!(!tensor.is_shared());
        assert_eq!(tensor.to_vec_f32().unwrap(), [1.0, 9.0, 3.5, 4.0, 5.0, 6.0]);
    }
    // A new file may replace the mapped one: tensors keep the contents of the old file.
    let kept = c.tensor("half", DType::Bf16).unwrap();
    drop(c);
    save_safetensors(&path, [("half", &Tensor::zeros([2, 3], DType::Bf16))], &BTreeMap::new()).unwrap();
    assert_eq!(kept.to_vec_f32().unwrap(), f32s.f32().unwrap());
}

#[test]
fn torch_zips_are_mapped_and_their_views_are_not() {
    let bytes: Vec<u8> = [1.0f32, 2.0, 3.0].iter().flat_map(|v| v.to_le_bytes()).collect();
    let stored = torch::Stored { name: "w".into(), dims: vec![3], class: "FloatStorage", bytes: &bytes };
    let mut file = Cursor::new(Vec::new());
    torch::save(&mut file, &[stored]);
    let mut file = file.into_inner();
    let w = open(&file).unwrap().tensor("w", DType::F32).unwrap();
    assert!(w.is_shared());
    assert_eq!(w.f32().unwrap(), [1.0, 2.0, 3.0]);
    // A changed byte is detected before the tensor is returned.
    let at = file.windows(bytes.len()).position(|w| w == bytes).unwrap();
    assert!(at.is_multiple_of(64), "torch aligns to 64");
    file[at] ^= 1;
    assert!(open(&file).unwrap().tensor("w", DType::F32).unwrap_err().to_string().contains("checksum"));

    let kinds = Checkpoint::open(data("kinds.pt")).unwrap();
    assert!(kinds.tensor("f32", DType::F32).unwrap().is_shared());
    assert!(!kinds.tensor("transposed", DType::F32).unwrap().is_shared());
}

#[test]
fn elements_off_their_alignment_are_copied() {
    let header = r#"{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}} "#;
    assert!(!(8 + header.len()).is_multiple_of(4));
    let mut file = common::safetensors(header, 0);
    file.extend([1.5f32, -2.5].iter().flat_map(|v| v.to_le_bytes()));
    let w = open(&file).unwrap().tensor("w", DType::F32).unwrap();
    assert!(!w.is_shared());
    assert_eq!(w.f32().unwrap(), [1.5, -2.5]);
}
