//! Reads every format and compares with known values.

mod common;

use std::collections::BTreeMap;
use std::fs;

use common::{data, golden, open, safetensors};
use pheye_tensor::{DType, Shape, Slice, Tensor};
use pheye_weights::{Checkpoint, Error, Format, StoredDType, save_safetensors};

fn bits(tensor: &Tensor) -> Vec<u32> {
    match tensor.slice().unwrap() {
        Slice::F32(x) => x.iter().map(|v| v.to_bits()).collect(),
        Slice::Bf16(x) => x.iter().map(|v| v.to_bits().into()).collect(),
        Slice::Int8(..) => panic!("no file holds int8 weights"),
    }
}

#[test]
fn released_checkpoint_has_torchs_values() {
    let c = Checkpoint::open(golden("x2-level2/checkpoint.pt")).unwrap();
    assert_eq!(c.names().count(), 271);
    let norm = c.tensor("vision_encoder.norm_lvl_1.weight", DType::F32).unwrap();
    assert_eq!(bits(&norm)[..2], [0x3f81_5d77, 0x3f7d_d2d4]);
    assert_eq!(bits(&norm)[63], 0x3f77_c9ca);
    assert_eq!(
        c.info("vision_encoder.connector.embedding.weight"),
        Some((Shape::from([21, 64]), StoredDType::F32))
    );
    let total: f64 = c.names().map(|n| c.f64s(n).unwrap().iter().sum::<f64>()).sum();
    assert!((total - 2703.077091835475).abs() < 1e-7, "{total}");
    let rounded = c.tensor("lang_encoder.lm_head.bias", DType::Bf16).unwrap();
    let Slice::Bf16(values) = rounded.slice().unwrap() else { panic!("not bf16") };
    let sum: f64 = values.iter().map(|v| v.to_f64()).sum();
    assert!((sum - 0.07699394226074219).abs() < 1e-12, "{sum}");
    // The two names of a layer share one storage.
    let twin = "attn.to_q.weight";
    assert_eq!(
        bits(&c.tensor(&format!("lang_encoder.cross_attn_layers.1.{twin}"), DType::F32).unwrap()),
        bits(&c.tensor(&format!("lang_encoder.model.layers.1.cross_attn_layer.{twin}"), DType::F32).unwrap())
    );
}

#[test]
fn torch_and_safetensors_agree_on_what_training_left_alone() {
    let start = Checkpoint::open(golden("x2-level2/checkpoint.pt")).unwrap();
    let trained = Checkpoint::open(golden("x2-level2/golden.safetensors")).unwrap();
    for name in ["vision_encoder.norm_lvl_3.weight", "vision_encoder.norm_lvl_3.bias"] {
        let after = trained.tensor(&format!("trained.{name}"), DType::F32).unwrap();
        assert_eq!(bits(&start.tensor(name, DType::F32).unwrap()), bits(&after));
    }
    let name = "lang_encoder.cross_attn_layers.1.ff.fc1.weight";
    let (before, after) = (start.f64s(name).unwrap(), trained.f64s(&format!("trained.{name}")).unwrap());
    let moved = before.iter().zip(&after).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(0.0 < moved && moved < 0.01, "five steps of 1e-3 move a weight by {moved}");
    assert_eq!(trained.integers("loss_tokens").unwrap().len(), 1);
    assert_eq!(trained.integers("ids").unwrap().len(), 26);
}

/// `kinds.pt` contains one tensor of each kind, in `{"epoch": 3, …, "model": {…}}`.
#[test]
fn torch_views_types_and_nesting() {
    let c = Checkpoint::open(data("kinds.pt")).unwrap();
    let counted: Vec<f64> = (0..24).map(f64::from).collect();
    let f64s = |name: &str| c.f64s(name).unwrap();
    assert_eq!(c.names().count(), 16);
    assert_eq!(f64s("f32"), counted);
    assert_eq!(f64s("alias"), counted);
    assert_eq!(c.info("f32").unwrap().0, Shape::from([2, 3, 4]));
    let transposed: Vec<f64> = (0..6).flat_map(|i| (0..4).map(move |j| f64::from(j * 6 + i))).collect();
    assert_eq!(f64s("transposed"), transposed);
    assert_eq!(f64s("slice"), [8., 9., 10., 14., 15., 16.]);
    assert_eq!(f64s("row"), [12., 13., 14., 15., 16., 17.]);
    assert_eq!(f64s("conv_last"), (0..16).map(f64::from).collect::<Vec<_>>());
    assert_eq!(f64s("f16"), [1.5, -2.25, 65504.0, 2f64.powi(-24)]);
    assert_eq!(f64s("bf16")[..2], [1.0, -3.140625]);
    assert_eq!(f64s("f64"), [0.1, 1.0 / 3.0, 1.0000001, -2.0]);
    assert_eq!(c.tensor("f64", DType::F32).unwrap().f32().unwrap(), [0.1, 1.0 / 3.0, 1.0000001, -2.0]);
    assert_eq!(c.integers("i64").unwrap(), [-1, 1 << 40]);
    assert_eq!(c.integers("u8").unwrap(), [0, 255]);
    assert_eq!(c.integers("bool").unwrap(), [1, 0, 1]);
    assert_eq!((f64s("scalar"), c.info("scalar").unwrap().0), (vec![7.0], Shape::from([])));
    assert_eq!((f64s("empty"), c.info("empty").unwrap().0), (vec![], Shape::from([0, 3])));
    assert_eq!(f64s("parameter"), [4.0, 5.0]);

    assert!(
        matches!(c.tensor("five", DType::F32), Err(Error::Rank { tensor, rank: 5, .. }) if tensor == "five")
    );
    let e = c.tensor("i64", DType::Bf16).unwrap_err();
    assert!(matches!(e, Error::DType { dtype: StoredDType::I64, .. }));
    assert!(e.to_string().ends_with("kinds.pt: tensor `i64` holds I64, a float is needed"), "{e}");
    assert!(matches!(c.tensor("f33", DType::F32), Err(Error::Missing { tensor, .. }) if tensor == "f33"));
}

#[test]
fn torch_to_safetensors_and_back_is_bit_equal() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.bin");
    let from = Checkpoint::open(golden("level1/checkpoint.pt")).unwrap();
    let dtype = |name: &str| if name.contains("lm_head") { DType::Bf16 } else { DType::F32 };
    let tensors: Vec<(&str, Tensor)> = from.names().map(|n| (n, from.tensor(n, dtype(n)).unwrap())).collect();
    let metadata = BTreeMap::from([("format".to_owned(), "pt \"quoted\" é".to_owned())]);
    save_safetensors(&path, tensors.iter().map(|(n, t)| (*n, t)), &metadata).unwrap();

    let back = Checkpoint::open(&path).unwrap();
    assert_eq!(back.metadata(), &metadata);
    assert!(back.names().eq(from.names()));
    for (name, tensor) in &tensors {
        let read = back.tensor(name, dtype(name)).unwrap();
        assert_eq!(read.shape(), tensor.shape());
        assert_eq!(bits(&read), bits(tensor), "{name}");
    }
    // The reference implementation reads the same bytes, and each tensor is aligned to its element size.
    let bytes = fs::read(&path).unwrap();
    let theirs = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(theirs.len(), tensors.len());
    for (name, tensor) in &tensors {
        let view = theirs.tensor(name).unwrap();
        assert_eq!(view.shape(), tensor.shape().dims());
        let offset = view.data().as_ptr() as usize - bytes.as_ptr() as usize;
        assert_eq!(offset % tensor.dtype().size(), 0);
        let size = tensor.dtype().size();
        let read = view.data().chunks(size).map(|b| b.iter().rev().fold(0, |n, &b| n << 8 | u32::from(b)));
        assert!(read.eq(bits(tensor)), "{name}");
    }
}

#[test]
fn shards_are_read_as_one() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let tensor = |v: f32| Tensor::from_f32([2], &[v, v]).unwrap();
    let (a, b) = (tensor(1.0), tensor(2.0));
    save_safetensors(at("one.safetensors"), [("a", &a), ("extra", &b)], &BTreeMap::new()).unwrap();
    save_safetensors(at("two.safetensors"), [("b", &b)], &BTreeMap::new()).unwrap();
    let index = |map: &str| {
        fs::write(at("m.safetensors.index.json"), format!("{{\"metadata\":{{}},\"weight_map\":{map}}}"))
            .unwrap();
        Checkpoint::open(at("m.safetensors.index.json"))
    };
    let c = index(r#"{"a":"one.safetensors","b":"two.safetensors"}"#).unwrap();
    assert!(c.names().eq(["a", "b"]));
    assert_eq!(c.f64s("a").unwrap(), [1.0, 1.0]);
    assert_eq!(c.f64s("b").unwrap(), [2.0, 2.0]);

    let said = |map: &str| index(map).unwrap_err().to_string();
    assert!(said(r#"{"b":"one.safetensors"}"#).contains("shard `one.safetensors`: holds no tensor `b`"));
    assert!(said(r#"{"b":"three.safetensors"}"#).contains("three.safetensors: cannot be read"));
    for outside in ["../one.safetensors", "/etc/passwd", "", "..", "a/b"] {
        assert!(said(&format!("{{\"a\":\"{outside}\"}}")).contains("beside the index"), "{outside}");
    }
    fs::write(at("two.safetensors"), b"version https://git-lfs.github.com/spec/v1\n").unwrap();
    assert!(said(r#"{"b":"two.safetensors"}"#).contains("two.safetensors: not a checkpoint"));
    fs::copy(data("kinds.pt"), at("three.bin")).unwrap();
    let mixed = index(r#"{"a":"one.safetensors","scalar":"three.bin"}"#).unwrap();
    assert_eq!((mixed.f64s("a").unwrap(), mixed.f64s("scalar").unwrap()), (vec![1.0, 1.0], vec![7.0]));
    fs::write(at("x.json"), "{\"a\": 1}").unwrap();
    assert!(matches!(Checkpoint::open(at("x.json")), Err(Error::Header { .. })));
}

#[test]
fn types_that_nobody_asks_for_do_not_stop_the_load() {
    // The sizes are those of the reference implementation: two elements of F4 per byte, four of F6 per three
    // bytes.
    let all = [("F4", 6, 3), ("F6_E2M3", 4, 3), ("F6_E3M2", 8, 6), ("F8_E8M0", 2, 2), ("F8_E4M3FNUZ", 2, 2)];
    let all =
        all.into_iter().chain([("F8_E5M2FNUZ", 2, 2), ("F8_E4M3", 2, 2), ("F8_E5M2", 2, 2), ("C64", 1, 8)]);
    for (dtype, elements, bytes) in all {
        let end = 4 + bytes;
        let header = format!(
            r#"{{"w":{{"dtype":"F32","shape":[1],"data_offsets":[0,4]}},"x":{{"dtype":"{dtype}","shape":[{elements}],"data_offsets":[4,{end}]}}}}"#
        );
        let file = safetensors(&header, end);
        assert!(safetensors::SafeTensors::deserialize(&file).is_ok(), "{dtype}");
        let c = open(&file).unwrap();
        assert_eq!(c.f64s("w").unwrap(), [0.0]);
        let x = c.tensors().find(|tensor| tensor.name == "x").unwrap();
        assert_eq!((x.dtype.to_string().as_str(), x.dims, x.bytes), (dtype, &[elements][..], bytes as u64));
        match dtype {
            "F4" | "F6_E2M3" | "F6_E3M2" => {
                let e = c.tensor("x", DType::F32).unwrap_err();
                assert!(e.to_string().contains("tensor `x` has elements of less than a byte"), "{e}");
                assert!(
                    matches!(c.write_to("x", None, &mut Vec::new()), Err(e) if e.to_string().contains("`x`"))
                );
            }
            "C64" => assert!(matches!(c.f64s("x"), Err(Error::DType { dtype: StoredDType::C64, .. }))),
            _ => assert_eq!(c.f64s("x").unwrap().len(), elements),
        }
        let short = header.replace(&format!("[{elements}]"), &format!("[{}]", elements + 1));
        assert!(matches!(open(&safetensors(&short, end)), Err(Error::Layout { .. })), "{dtype}");
    }
    // Torch's complex types other than C64 have no name in safetensors.
    for dtype in ["C128", "C32", "unknown", "F99"] {
        let header = format!(r#"{{"x":{{"dtype":"{dtype}","shape":[0],"data_offsets":[0,0]}}}}"#);
        assert!(matches!(open(&safetensors(&header, 0)), Err(Error::UnknownDType { .. })), "{dtype}");
    }
}

#[test]
fn an_index_may_begin_with_a_byte_order_mark_and_name_regular_files_only() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let a = Tensor::from_f32([1], &[3.0]).unwrap();
    let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
    save_safetensors(at("one.safetensors"), [("a", &a)], &metadata).unwrap();
    let index = |shard: &str| {
        fs::write(at("i.json"), format!("\u{feff}{{\"weight_map\":{{\"a\":\"{shard}\"}}}}")).unwrap();
        Checkpoint::open(at("i.json"))
    };
    let c = index("one.safetensors").unwrap();
    assert_eq!((c.f64s("a").unwrap(), c.metadata(), c.format()), (vec![3.0], &metadata, Format::Index));
    assert!(c.tensors().all(|tensor| tensor.file == at("one.safetensors")));
    #[cfg(unix)]
    {
        let made = std::process::Command::new("mkfifo").arg(at("pipe")).status();
        if made.is_ok_and(|status| status.success()) {
            assert!(index("pipe").unwrap_err().to_string().contains("device or pipe"));
        }
        std::os::unix::fs::symlink("/dev/zero", at("zero")).unwrap();
        assert!(index("zero").unwrap_err().to_string().contains("device or pipe"));
    }
}

#[test]
fn messages_are_one_line_without_control_characters() {
    let name = r"w\u001b]0;PWNED\u0007\n\u202e";
    let raw = "w\u{1b}]0;PWNED\u{7}\n\u{202e}";
    let one = |name: &str, dtype: &str, end: usize| {
        safetensors(&format!(r#"{{"{name}":{{"dtype":"{dtype}","shape":[1],"data_offsets":[0,{end}]}}}}"#), 4)
    };
    let folder = tempfile::tempdir().unwrap();
    let index = folder.path().join("i.json");
    fs::write(&index, format!(r#"{{"weight_map":{{"{name}":"{name}"}}}}"#)).unwrap();
    let errors = [
        open(&one(name, "F32", 3)).unwrap_err(),
        open(&one(name, &name[1..], 4)).unwrap_err(),
        open(&one(name, "I64", 4)).unwrap_err(),
        open(&one(name, "F32", 4)).unwrap().tensor("\u{1b}", DType::F32).unwrap_err(),
        open(&one(name, "F32", 4)).unwrap().integers(raw).unwrap_err(),
        open(&safetensors(&format!("{{\"{name}\":1}}"), 0)).unwrap_err(),
        Checkpoint::open(&index).unwrap_err(),
    ];
    for e in errors {
        let said = e.to_string();
        assert!(said.chars().all(|c| !c.is_control() && c != '\u{202e}'), "{said:?}");
        assert!(said.contains("\\u{1b}"), "{said:?}");
    }
    let long = open(&safetensors(&format!("{{\"{}\":1}}", "x".repeat(1 << 20)), 0)).unwrap_err();
    assert!(matches!(long, Error::Header { .. }));
}

#[test]
fn what_is_no_checkpoint_is_said_to_be_what_it_looks_like() {
    let said = |bytes: &[u8]| open(bytes).unwrap_err().to_string();
    assert!(matches!(open(b""), Err(Error::Empty { .. })));
    assert!(matches!(Checkpoint::open(data("legacy.pt")), Err(Error::LegacyTorch { .. })));
    assert!(Checkpoint::open(data("legacy.pt")).unwrap_err().to_string().contains("torch.save(torch.load("));
    assert!(said(b"version https://git-lfs.github.com/spec/v1\n").contains("git lfs pull"));
    assert!(said(b"<!DOCTYPE html><html>").contains("web page"));
    assert!(said(b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00}.").contains("plain pickle"));
    assert!(said(b"\x89PNG\r\n\x1a\n0000000000").contains("PNG image"));
    assert!(said(b"GGUF\x03\x00\x00\x00\x00\x00\x00").contains("GGUF"));
    assert!(said(b"hello world, this is no checkpoint").contains("text"));
    assert!(said(&[7; 100]).contains("unknown binary"));
    assert!(
        matches!(Checkpoint::open(data("")), Err(Error::NotACheckpoint { looks_like, .. }) if looks_like == "a folder")
    );
    assert!(matches!(Checkpoint::open(data("absent.pt")), Err(Error::Read { .. })));
    // The file's name does not matter.
    assert!(open(&safetensors("{}", 0)).unwrap().names().next().is_none());
}
