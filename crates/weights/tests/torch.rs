//! Files of `torch.save` as its users write them. What `torch.load(weights_only=True)` reads is read, if it
//! contains weights; what it refuses is refused with a hint. `data/README.md` describes the files.

mod common;
#[path = "common/pickle.rs"]
mod pickle;

use std::fs;
use std::path::Path;

use common::{data, open, torch_zip};
use pheye_tensor::{DType, Shape};
use pheye_weights::{Checkpoint, Error, Format, StoredDType, Unusable};
use pickle::*;

/// Checks the two tensors that each file of `data/torch` contains.
fn expect_a_and_b(c: &Checkpoint) {
    assert_eq!(c.f64s("a").unwrap(), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    assert_eq!(c.info("a"), Some((Shape::from([2, 3]), StoredDType::F32)));
    assert_eq!(c.f64s("b").unwrap(), [0.5, -0.25]);
}

#[test]
fn what_torch_reads_safely_is_read() {
    for (name, dtype, keys) in [
        ("plain", StoredDType::Bf16, &[] as &[&str]),
        // With this name the first entry of the directory has 76 bytes, as many as are between the directory
        // and the end record.
        ("checkpoint_epoch_0010", StoredDType::F32, &[]),
        ("no_crc32", StoredDType::Bf16, &[]),
        ("parameter_with_attribute", StoredDType::Bf16, &[]),
        ("protocol3", StoredDType::Bf16, &[]),
        ("protocol4", StoredDType::Bf16, &[]),
        ("bytes", StoredDType::Bf16, &["model"]),
        ("dtype", StoredDType::Bf16, &["model"]),
        ("seed_u64", StoredDType::Bf16, &["model"]),
        ("surrogate_string", StoredDType::Bf16, &["model"]),
        ("float8", StoredDType::Bf16, &["model"]),
        ("orig_mod_prefix", StoredDType::Bf16, &[]),
    ] {
        let c = Checkpoint::open(data(&format!("torch/{name}.pt"))).unwrap_or_else(|e| panic!("{e}"));
        expect_a_and_b(&c);
        assert_eq!(c.info("b").unwrap().1, dtype, "{name}");
        assert_eq!(
            (c.format(), c.state_dict_keys()),
            (Format::Torch, &keys.iter().map(|k| k.to_string()).collect::<Vec<_>>()[..])
        );
        let stripped = (name == "orig_mod_prefix").then_some("_orig_mod.");
        assert_eq!(c.stripped_prefix(), stripped);
    }
    let c = Checkpoint::open(data("torch/float8.pt")).unwrap();
    assert_eq!(c.f64s("c").unwrap(), [1.0, 2.0, -0.5]);
    assert_eq!(c.tensor("c", DType::Bf16).unwrap().to_vec_f32().unwrap(), [1.0, 2.0, -0.5]);
    // An expanded tensor: a column of two elements with stride 0 along its three columns.
    let c = Checkpoint::open(data("torch/expanded.pt")).unwrap();
    assert_eq!(c.f64s("a").unwrap(), [1.0, 1.0, 1.0, 2.0, 2.0, 2.0]);
}

#[test]
fn what_torch_refuses_is_refused_with_a_way_out() {
    let said = |name: &str| Checkpoint::open(data(name)).unwrap_err().to_string();
    let numpy = said("torch/numpy_scalar.pt");
    assert!(
        numpy.contains("`numpy._core.multiarray.scalar`") && numpy.contains("weights_only=False"),
        "{numpy}"
    );
    let script = said("torch/torchscript.pt");
    assert!(script.contains("TorchScript") && script.contains("state_dict()"), "{script}");
}

/// The directory is found for every length of the stem in `STEM/data.pkl`.
#[test]
fn a_directory_is_found_whatever_the_length_of_its_names() {
    let plain = fs::read(data("torch/checkpoint_epoch_0010.pt")).unwrap();
    let (directory, end) = (find(&plain, b"PK\x01\x02"), find(&plain, b"PK\x05\x06"));
    for stem in 1..60 {
        let old = "checkpoint_epoch_0010";
        let mut bytes = Vec::new();
        let mut members = Vec::new();
        let mut zip = zip::ZipArchive::new(std::io::Cursor::new(&plain[..]));
        if zip.is_err() {
            let config = zip::read::Config { archive_offset: zip::read::ArchiveOffset::Known(0) };
            zip = zip::ZipArchive::with_config(config, std::io::Cursor::new(&plain[..]));
        }
        let mut zip = zip.unwrap();
        for i in 0..zip.len() {
            let mut file = zip.by_index(i).unwrap();
            let name = file.name().unwrap().replace(old, &"s".repeat(stem));
            let mut body = Vec::new();
            std::io::copy(&mut file, &mut body).unwrap();
            members.push((name, body, file.crc32()));
        }
        write_as_torch(&mut bytes, &members);
        expect_a_and_b(&open(&bytes).unwrap_or_else(|e| panic!("{stem}: {e}")));
    }
    assert!(directory < end);
}

fn find(bytes: &[u8], what: &[u8]) -> usize {
    bytes.windows(what.len()).position(|w| w == what).unwrap()
}

/// A zip in the layout of torch's own writer: stored, with zip64 records although none are needed.
fn write_as_torch(out: &mut Vec<u8>, members: &[(String, Vec<u8>, u32)]) {
    let u16s = |all: &[u16]| all.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let u32s = |all: &[u32]| all.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let u64s = |all: &[u64]| all.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let mut directory = Vec::new();
    for (name, body, crc) in members {
        let start = out.len() as u32;
        let sizes = u32s(&[*crc, body.len() as u32, body.len() as u32]);
        let lengths = u16s(&[name.len() as u16, 0]);
        out.extend(
            [&b"PK\x03\x04"[..], &u16s(&[20, 0, 0, 0, 0]), &sizes, &lengths, name.as_bytes(), body].concat(),
        );
        directory.extend([&b"PK\x01\x02"[..], &u16s(&[0, 20, 0, 0, 0, 0]), &sizes, &lengths].concat());
        directory.extend([&u16s(&[0, 0, 0])[..], &u32s(&[0, start]), name.as_bytes()].concat());
    }
    let (at, size, n) = (out.len() as u64, directory.len() as u64, members.len() as u64);
    out.extend(directory);
    let end64 = out.len() as u64;
    out.extend(
        [&b"PK\x06\x06"[..], &u64s(&[44]), &u16s(&[45, 45]), &u32s(&[0, 0]), &u64s(&[n, n, size, at])]
            .concat(),
    );
    out.extend([&b"PK\x06\x07"[..], &u32s(&[0]), &u64s(&[end64]), &u32s(&[1])].concat());
    let n = n as u16;
    out.extend(
        [&b"PK\x05\x06"[..], &u16s(&[0, 0, n, n]), &u32s(&[size as u32, at as u32]), &u16s(&[0])].concat(),
    );
}

/// `{"w": tensor, "x": value}`, with the f32 values 1.0 and -2.0 in record "0", and as many bytes in record
/// "1".
fn beside(value: Vec<u8>) -> Result<Checkpoint, Error> {
    let state = dict(&[(text("w"), tensor()), (text("x"), value)]);
    let floats = [1.0f32, -2.0].map(f32::to_le_bytes).concat();
    open(&torch_zip(&whole(&state), &[("0", &floats), ("1", b"\x38\x40\xb0\x7f\x80\x01\x08\xff")]))
}

#[test]
fn values_beside_the_weights_are_passed_over() {
    let long = |n: u8, bytes: &[u8]| [&[0x8a, n], bytes].concat();
    for value in [
        call("torch.device", &[text("cuda"), int(0)]),
        call("torch.Size", &[ints(&[2, 3])]),
        global("torch.float16"),
        global("torch.uint7"),
        global("torch.per_tensor_affine"),
        global("torch.Tensor"),
        global("torch.cuda.FloatTensor"),
        call("torch.serialization._get_layout", &[text("torch.strided")]),
        call("_codecs.encode", &[text("\u{ff}abc"), text("latin1")]),
        call("__builtin__.bytearray", &[text("abc"), text("latin-1")]),
        call("__builtin__.set", &[[b"](", &int(1)[..], b"e"].concat()]),
        call("__builtin__.frozenset", &[[b"](", &int(1)[..], b"e"].concat()]),
        call("__builtin__.complex", &[b"G\0\0\0\0\0\0\0\0".into(), b"G\0\0\0\0\0\0\0\0".into()]),
        call("collections.Counter", &[dict(&[(text("a"), int(3))])]),
        [
            call("collections.defaultdict", &[global("__builtin__.list")]),
            b"(".into(),
            text("k"),
            int(1),
            b"u".into(),
        ]
        .concat(),
        // A set, a frozenset, bytes and a bytearray, as later protocols write them.
        [&b"\x8f("[..], &int(1), b"\x90"].concat(),
        [&b"("[..], &int(1), b"\x91"].concat(),
        b"C\x02ab".into(),
        b"B\x02\0\0\0ab".into(),
        b"\x8e\x02\0\0\0\0\0\0\0ab".into(),
        b"\x96\x02\0\0\0\0\0\0\0ab".into(),
        b"U\x02\xff\xfe".into(),
        // Integers of 65 and 2048 bits.
        long(9, &[0, 0, 0, 0, 0, 0, 0, 0x80, 0]),
        [&b"\x8b\0\x01\0\0"[..], &[1; 256]].concat(),
        // A storage without a tensor.
        storage("torch.FloatStorage", "0", 2),
    ] {
        let c = beside(value.clone()).unwrap_or_else(|e| panic!("{}: {e}", String::from_utf8_lossy(&value)));
        assert_eq!((c.f64s("w").unwrap(), c.names().count()), (vec![1.0, -2.0], 1));
    }
}

#[test]
fn wrapped_tensors_are_read() {
    let two = |call: Vec<u8>| {
        let c = beside(call).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(c.f64s("x").unwrap(), [1.0, -2.0]);
    };
    let state = || dict(&[(text("_is_hf_initialized"), b"\x88".to_vec())]);
    let parameter = || call("torch._utils._rebuild_parameter", &[tensor(), FALSE.into(), hooks()]);
    two(parameter());
    two(call("torch._utils._rebuild_parameter_with_state", &[tensor(), FALSE.into(), hooks(), state()]));
    two(call(
        "torch._utils._rebuild_tensor",
        &[storage("torch.FloatStorage", "0", 2), int(0), ints(&[2]), ints(&[1])],
    ));
    two(call("torch.nn.parameter.Parameter", &[tensor(), FALSE.into()]));
    let device = [tensor(), global("torch.float32"), text("xla:0"), FALSE.into()];
    two(call("torch._utils._rebuild_device_tensor_from_cpu_tensor", &device));
    // A tensor with attributes, and a parameter with attributes.
    let v2 = [storage("torch.FloatStorage", "0", 2), int(0), ints(&[2]), ints(&[1]), FALSE.into(), hooks()];
    let from = |function: &str, class: &str, args: &[Vec<u8>]| {
        call("torch._tensor._rebuild_from_type_v2", &[global(function), global(class), tuple(args), state()])
    };
    two(from("torch._utils._rebuild_tensor_v2", "torch.Tensor", &v2));
    let args = [tensor(), FALSE.into(), hooks()];
    two(from("torch._utils._rebuild_parameter", "torch.nn.parameter.Parameter", &args));
}

#[test]
fn tensors_over_bytes_have_the_type_that_they_name() {
    let over = |dtype: &str, elements: u8| {
        let of = storage("torch.storage.UntypedStorage", "1", 8);
        let parts = [of, int(0), ints(&[elements]), ints(&[1]), FALSE.into(), hooks(), global(dtype)];
        beside(call("torch._utils._rebuild_tensor_v3", &parts)).unwrap()
    };
    // The bytes of record "1" are 38 40 b0 7f 80 01 08 ff.
    let floats = |dtype: &str| over(dtype, 8).f64s("x").unwrap();
    let is = |found: Vec<f64>, expected: [f64; 8]| {
        assert!(
            found.iter().zip(expected).all(|(a, b)| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan()),
            "{found:?}"
        );
    };
    let nan = f64::NAN;
    let exp2 = |n| 2f64.powi(n);
    is(floats("torch.float8_e4m3fn"), [1.0, 2.0, -0.5, nan, -0.0, exp2(-9), exp2(-6), nan]);
    is(floats("torch.float8_e5m2"), [0.5, 2.0, -0.125, nan, -0.0, exp2(-16), exp2(-13), nan]);
    is(floats("torch.float8_e4m3fnuz"), [0.5, 1.0, -0.25, 240.0, nan, exp2(-10), exp2(-7), -240.0]);
    is(floats("torch.float8_e5m2fnuz"), [0.25, 1.0, -0.0625, 57344.0, nan, exp2(-17), exp2(-14), -57344.0]);
    let powers = [exp2(56 - 127), exp2(64 - 127), exp2(176 - 127), 1.0, 2.0, exp2(-126), exp2(8 - 127), nan];
    is(floats("torch.float8_e8m0fnu"), powers);
    assert_eq!(over("torch.uint16", 4).integers("x").unwrap(), [0x4038, 0x7fb0, 0x0180, 0xff08]);
    assert_eq!(over("torch.uint32", 2).integers("x").unwrap(), [0x7fb0_4038, 0xff08_0180]);
    assert_eq!(over("torch.uint64", 1).info("x").unwrap().1, StoredDType::U64);
    let narrow = over("torch.bits8", 8);
    assert!(matches!(narrow.f64s("x"), Err(Error::Unusable { kind: Unusable::DType, .. })));
}

#[test]
fn tensors_of_other_kinds_are_listed_and_an_error_only_when_asked_for() {
    let coo = || call("torch.serialization._get_layout", &[text("torch.sparse_coo")]);
    let sparse = tuple(&[tensor(), tensor(), call("torch.Size", &[ints(&[4, 5])]), FALSE.into()]);
    let quantized = [
        storage("torch.QInt8Storage", "0", 8),
        int(0),
        ints(&[2, 4]),
        ints(&[4, 1]),
        tuple(&[global("torch.per_tensor_affine"), b"G\0\0\0\0\0\0\0\0".into(), int(0)]),
        FALSE.into(),
        hooks(),
    ];
    let negative = [
        storage("torch.FloatStorage", "0", 2),
        int(0),
        ints(&[2]),
        ints(&[1]),
        FALSE.into(),
        hooks(),
        dict(&[(text("neg"), b"\x88".to_vec())]),
    ];
    let utils = |name: &str, args: &[Vec<u8>]| call(&format!("torch._utils.{name}"), args);
    let parameter = |of: Vec<u8>| utils("_rebuild_parameter", &[of, FALSE.into(), hooks()]);
    let meta = [global("torch.bfloat16"), ints(&[7, 8, 9]), ints(&[72, 9, 1]), FALSE.into()];
    for (value, kind, dtype, dims, bytes) in [
        (
            utils("_rebuild_sparse_tensor", &[coo(), sparse]),
            Unusable::Sparse,
            StoredDType::F32,
            &[4, 5][..],
            16,
        ),
        (utils("_rebuild_qtensor", &quantized), Unusable::Quantized, StoredDType::I8, &[2, 4], 8),
        (
            parameter(utils("_rebuild_meta_tensor_no_storage", &meta)),
            Unusable::Meta,
            StoredDType::Bf16,
            &[7, 8, 9],
            0,
        ),
        (utils("_rebuild_tensor_v2", &negative), Unusable::Lazy, StoredDType::F32, &[2], 8),
    ] {
        let c = beside(value).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(c.f64s("w").unwrap(), [1.0, -2.0]);
        let x = c.tensors().find(|tensor| tensor.name == "x").unwrap();
        assert_eq!((x.unusable, x.dtype, x.dims, x.bytes), (Some(kind), dtype, dims, bytes));
        assert_eq!(c.info("x"), None);
        let e = c.tensor("x", DType::F32).unwrap_err();
        assert!(matches!(&e, Error::Unusable { tensor, kind: k, .. } if tensor == "x" && *k == kind), "{e}");
        assert!(e.to_string().contains("tensor `x` "), "{e}");
        assert!(c.item("x", None).is_err() && c.write_to("x", None, &mut std::io::sink()).is_err());
    }
}

#[test]
fn a_name_that_is_no_utf8_is_spelled_as_python_spells_it() {
    let key = b"X\x06\0\0\0caf\xed\xb3\xa9".to_vec();
    let floats = [1.0f32, -2.0].map(f32::to_le_bytes).concat();
    let c = open(&torch_zip(&whole(&dict(&[(key, tensor())])), &[("0", &floats)])).unwrap();
    assert!(c.names().eq(["caf\\udce9"]));
    assert_eq!(c.f64s("caf\\udce9").unwrap(), [1.0, -2.0]);
}

#[test]
fn a_state_dict_is_found_under_any_key_if_it_is_the_only_one() {
    let floats = [1.0f32, -2.0].map(f32::to_le_bytes).concat();
    let opened = |items: &[(Vec<u8>, Vec<u8>)]| open(&torch_zip(&whole(&dict(items)), &[("0", &floats)]));
    let state = || dict(&[(text("w"), tensor())]);
    let c = opened(&[(text("net"), state()), (text("epoch"), int(3))]).unwrap();
    assert_eq!((c.f64s("w").unwrap(), c.state_dict_keys()), (vec![1.0, -2.0], &["net".to_owned()][..]));
    let c = opened(&[(text("model"), dict(&[(text("state_dict"), state())]))]).unwrap();
    assert_eq!(c.state_dict_keys(), ["model", "state_dict"]);
    let e = opened(&[(text("net"), state()), (text("ema"), state())]).unwrap_err();
    assert!(e.to_string().contains("the keys `net`, `ema`"), "{e}");
}

/// The checksum of a record is verified even if a tensor uses only part of the record.
#[test]
fn damage_is_found_in_partial_and_strided_tensors() {
    let of = || storage("torch.FloatStorage", "0", 6);
    let v2 = |offset: u8, dims: &[u8], strides: &[u8]| {
        let parts = [of(), int(offset), ints(dims), ints(strides), FALSE.into(), hooks()];
        call("torch._utils._rebuild_tensor_v2", &parts)
    };
    let state = dict(&[
        (text("all"), v2(0, &[6], &[1])),
        (text("empty"), v2(0, &[0], &[1])),
        (text("first"), v2(0, &[2], &[1])),
        (text("turned"), v2(0, &[3, 2], &[1, 3])),
    ]);
    let floats: Vec<u8> = (1..7u8).flat_map(|i| f32::from(i).to_le_bytes()).collect();
    let mut bytes = torch_zip(&whole(&state), &[("0", &floats)]);
    let at = find(&bytes, &floats);
    let c = open(&bytes).unwrap();
    assert_eq!(c.f64s("turned").unwrap(), [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
    assert_eq!(c.f64s("first").unwrap(), [1.0, 2.0]);
    // Changes the last element.
    bytes[at + 21] ^= 1;
    for name in ["first", "turned", "all"] {
        let damaged = |e: &Error| matches!(e, Error::Damaged { tensor, .. } if tensor == name);
        let c = open(&bytes).unwrap();
        for dtype in [DType::F32, DType::Bf16] {
            let e = c.tensor(name, dtype).unwrap_err();
            assert!(damaged(&e), "{e}");
        }
        let c = open(&bytes).unwrap();
        let e = c.write_to(name, None, &mut Vec::new()).unwrap_err().downcast::<Error>().unwrap();
        assert!(damaged(&e), "{e}");
        assert!(c.f64s("empty").unwrap().is_empty());
    }
}

#[test]
fn two_files_of_one_name_are_refused() {
    let pickle = whole(&dict(&[(text("w"), tensor())]));
    let first = torch_zip(&pickle, &[("0", &[0; 8]), ("1", &[1; 8])]);
    let twice = |from: &[u8]| {
        let mut bytes = first.clone();
        for at in 0..bytes.len() - from.len() {
            if &bytes[at..at + from.len()] == from {
                bytes[at + from.len() - 1] = b'0';
            }
        }
        bytes
    };
    let e = open(&twice(b"any/data/1")).unwrap_err();
    assert!(matches!(&e, Error::Zip { reason, .. } if reason.contains("same name")), "{e}");
}

#[test]
fn a_file_says_what_is_in_it() {
    let c = Checkpoint::open(data("kinds.pt")).unwrap();
    let five = c.tensors().find(|tensor| tensor.name == "five").unwrap();
    assert_eq!((five.dims.len(), five.unusable), (5, None));
    assert_eq!(five.file, Path::new(&data("kinds.pt")));
    assert!(c.tensors().map(|tensor| tensor.name).eq(c.names()));
    assert_eq!(c.state_dict_keys(), ["model"]);
}
