//! Hostile and damaged files: each must give an error or a valid checkpoint, never a panic and never memory
//! out of proportion to the file.

mod common;

use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::process::Command;

use common::{data, golden, one_tensor, open, read_all, safetensors, torch_zip, zip_of};
use pheye_tensor::DType;
use pheye_weights::{Error, Result};
use zip::CompressionMethod;

const TUPLE_2: &[u8] = b"K\x02\x85";
const TUPLE_1: &[u8] = b"K\x01\x85";

#[test]
fn attack_truncated() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cut");
    for name in ["level1/checkpoint.pt", "level1/golden.safetensors"] {
        fs::copy(golden(name), &path).unwrap();
        let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        let full = file.metadata().unwrap().len();
        let near_ends = (0..200).chain((0..200).map(|i| full - 1 - i));
        let mut lengths: Vec<u64> = near_ends.chain((0..full).step_by(full as usize / 150)).collect();
        lengths.sort_by(|a, b| b.cmp(a));
        for len in lengths {
            file.set_len(len).unwrap();
            assert!(read_all(&path).is_err(), "{name} cut to {len} bytes was read");
        }
    }
    let bytes = fs::read(golden("level1/golden.safetensors")).unwrap();
    let found = bytes.len() as u64 - 1;
    assert!(matches!(open(&bytes[..bytes.len() - 1]), Err(Error::Truncated { found: f, .. }) if f == found));
}

#[test]
fn attack_padded() {
    for name in ["level1/checkpoint.pt", "level1/golden.safetensors"] {
        let mut bytes = fs::read(golden(name)).unwrap();
        for extra in 1..=3 {
            bytes.push(0);
            let e = open(&bytes).unwrap_err();
            assert!(matches!(e, Error::Trailing { extra: x, .. } if x == extra), "{name}: {e}");
        }
    }
}

/// Flips bits of the bytes at `places`, one at a time. Returns how many of the flipped files were accepted,
/// and how many there were.
fn flip(path: &Path, places: impl Iterator<Item = u64>) -> (usize, usize) {
    let mut file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let (mut accepted, mut all) = (0, 0);
    for at in places {
        let mut byte = [0];
        file.seek(SeekFrom::Start(at)).unwrap();
        file.read_exact(&mut byte).unwrap();
        let mut put = |b: u8| {
            file.seek(SeekFrom::Start(at)).unwrap();
            file.write_all(&[b]).unwrap();
        };
        for bit in [0, 2, 5, 7] {
            put(byte[0] ^ (1 << bit));
            accepted += usize::from(read_all(path).is_ok());
            all += 1;
        }
        put(byte[0]);
    }
    (accepted, all)
}

#[test]
fn attack_flipped_bits_in_safetensors() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("flipped");
    let header = r#"{"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},"b":{"dtype":"BF16","shape":[2],"data_offsets":[24,28]}}"#;
    let bytes = safetensors(header, 28);
    fs::write(&path, &bytes).unwrap();
    let (accepted, all) = flip(&path, 0..bytes.len() as u64 - 28);
    // A flip inside a name, or one that turns F32 into another type of its size, gives a valid file.
    assert!(accepted < all / 10, "{accepted} of {all} accepted");
    read_all(&path).unwrap();
}

#[test]
fn attack_flipped_bits_in_a_zip() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("flipped");
    let bytes = torch_zip(&one_tensor(b"K\x02", b"K\x00", TUPLE_2, TUPLE_1), &[("0", &[1; 8])]);
    fs::write(&path, &bytes).unwrap();
    read_all(&path).unwrap();
    let (accepted, all) = flip(&path, 0..bytes.len() as u64);
    assert!(accepted < all / 2, "{accepted} of {all} accepted");
    read_all(&path).unwrap();
}

#[test]
fn attack_a_flipped_bit_in_the_elements_of_a_zip() {
    let mut bytes = fs::read(golden("level1/checkpoint.pt")).unwrap();
    let c = open(&bytes).unwrap();
    let name = "lang_encoder.lm_head.bias";
    let first = c.tensor(name, DType::F32).unwrap().f32().unwrap()[0].to_le_bytes();
    let second = c.tensor(name, DType::F32).unwrap().f32().unwrap()[1].to_le_bytes();
    let at = bytes.windows(8).position(|w| w[..4] == first && w[4..] == second).unwrap();
    bytes[at] ^= 1;
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), &bytes).unwrap();
    let e = read_all(file.path()).unwrap_err();
    assert!(matches!(&e, Error::Damaged { tensor, .. } if tensor == name), "{e}");
}

#[test]
fn attack_headers() {
    let fault = |header: &str, data: usize| open(&safetensors(header, data)).unwrap_err();
    let one = |dtype: &str, shape: &str, offsets: &str| {
        format!(r#"{{"w":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}}}"#)
    };
    for len in [1u64 << 60, u64::MAX, u64::MAX - 7, 100_000_001] {
        let mut file = len.to_le_bytes().to_vec();
        file.extend(b"{\"w\":1}");
        assert!(matches!(open(&file), Err(Error::HeaderTooLong { len: l, .. }) if l == len));
    }
    let mut file = 99_999_999u64.to_le_bytes().to_vec();
    file.extend(b"{}");
    assert!(matches!(open(&file), Err(Error::Truncated { .. })));

    let layout = |e: &Error| matches!(e, Error::Layout { tensor, .. } if tensor == "w");
    assert!(layout(&fault(&one("F32", "[2]", "[0,4]"), 4)), "too few bytes for its type");
    assert!(layout(&fault(&one("BF16", "[2]", "[0,8]"), 8)), "too many bytes for its type");
    assert!(layout(&fault(&one("F32", "[1]", "[4,0]"), 4)), "ends before it starts");
    assert!(layout(&fault(&one("F32", "[1]", "[4,8]"), 8)), "a gap");
    assert!(layout(&fault(&one("F32", "[4611686018427387904,4]", "[0,0]"), 0)), "its size overflows");
    assert!(layout(&fault(&one("F32", "[1]", "[18446744073709551612,0]"), 4)), "its place overflows");
    assert!(matches!(fault(&one("F32", "[1099511627776]", "[0,4398046511104]"), 8), Error::Truncated { .. }));
    assert!(matches!(fault(&one("F32", "[2]", "[0,8]"), 4), Error::Truncated { .. }));
    assert!(
        matches!(fault(&one("F99", "[1]", "[0,4]"), 4), Error::UnknownDType { dtype, .. } if dtype == "F99")
    );
    assert!(matches!(fault(&one("F32", "[-1]", "[0,4]"), 4), Error::Header { .. }));
    assert!(matches!(fault(&one("F32", "[1.5]", "[0,4]"), 4), Error::Header { .. }));
    assert!(matches!(fault("{\"w\":1}", 0), Error::Header { reason, .. } if reason.contains("tensor `w`")));
    assert!(matches!(fault("{\"w\":", 0), Error::Header { .. }));
    assert!(matches!(fault(&("{\"w\":".to_owned() + &"[".repeat(100_000)), 0), Error::Header { .. }));

    let two = |a: &str, second: &str, b: &str| {
        let entry = |offsets: &str| format!(r#"{{"dtype":"F32","shape":[2],"data_offsets":{offsets}}}"#);
        format!("{{\"v\":{},\"{second}\":{}}}", entry(a), entry(b))
    };
    let e = fault(&two("[0,8]", "w", "[4,12]"), 12);
    assert!(layout(&e) && e.to_string().contains("overlap those of `v`"), "{e}");
    let e = fault(&two("[0,8]", "w", "[0,8]"), 8);
    assert!(e.to_string().contains("overlap"), "{e}");
    assert!(
        matches!(fault(&two("[0,8]", "v", "[8,16]"), 16), Error::Duplicate { tensor, .. } if tensor == "v")
    );
    open(&safetensors(&two("[8,16]", "w", "[0,8]"), 16)).unwrap();
    let empty = r#"{"w":{"dtype":"F32","shape":[0,1099511627776,1099511627776],"data_offsets":[0,0]}}"#;
    assert_eq!(open(&safetensors(empty, 0)).unwrap().info("w").unwrap().0.elements(), 0);
}

fn of_pickle(pickle: &[u8]) -> Error {
    open(&torch_zip(pickle, &[("0", &[0; 8])])).unwrap_err()
}

#[test]
fn attack_pickles_that_call() {
    let system =
        b"\x80\x02}X\x01\x00\x00\x00wcposix\nsystem\nq\x00X\x0a\x00\x00\x00echo pwnedq\x01\x85q\x02Rq\x03s.";
    let e = of_pickle(system);
    assert!(matches!(&e, Error::ForbiddenGlobal { global, .. } if global == "posix.system"), "{e}");
    assert!(e.to_string().contains("`posix.system`"));
    for (global, name) in [
        ("cbuiltins\neval\n", "builtins.eval"),
        ("c__builtin__\ngetattr\n", "__builtin__.getattr"),
        ("ctorch\nload\n", "torch.load"),
        ("ctorch.serialization\nload\n", "torch.serialization.load"),
        ("ctorch._utils\n_import_dotted_name\n", "torch._utils._import_dotted_name"),
        ("ctorch.storage\n_load_from_bytes\n", "torch.storage._load_from_bytes"),
        ("ctorch.hub\nFloatStorage\n", "torch.hub.FloatStorage"),
        ("cnumpy.core.multiarray\nscalar\n", "numpy.core.multiarray.scalar"),
        ("cargparse\nNamespace\n", "argparse.Namespace"),
    ] {
        let e = of_pickle(&[b"\x80\x02", global.as_bytes(), b"."].concat());
        assert!(matches!(&e, Error::ForbiddenGlobal { global, .. } if global == name), "{e}");
    }
    let e = of_pickle(b"\x80\x04\x8c\x05posix\x94\x8c\x06system\x94\x93\x94.");
    assert!(matches!(&e, Error::ForbiddenGlobal { global, .. } if global == "posix.system"), "{e}");
    // Instructions that create objects or look up functions in other ways.
    for op in [&b"i"[..], b"o", b"\x81", b"\x92", b"\x97", b"\x98", b"\x82\x01", b"P", b"0", b"2", b"I1\n"] {
        let e = of_pickle(&[b"\x80\x02((", op, b"."].concat());
        assert!(
            matches!(&e, Error::Pickle { reason, .. } if reason.contains("not one that tensors need")),
            "{e}"
        );
    }
}

#[test]
fn attack_pickles_that_claim() {
    let bad = |pickle: &[u8]| {
        let e = of_pickle(pickle);
        assert!(matches!(e, Error::Pickle { .. } | Error::NoTensors { .. }), "{e}");
        e.to_string()
    };
    assert!(bad(b"\x80\x02X\xff\xff\xff\xffshort.").contains("ends too early"));
    assert!(bad(b"\x80\x04\x95.").contains("ends too early"));
    assert!(bad(b"\x80\x06.").contains("protocol 6"));
    assert!(bad(b"\x80\x01.").contains("protocol 1"));
    assert!(bad(b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\xffx.").contains("ends too early"));
    assert!(bad(b"\x80\x05\x96\xff\xff\xff\xff\xff\xff\xff\x7fx.").contains("ends too early"));
    assert!(bad(b"\x80\x02\x8b\xff\xff\xff\xff.").contains("ends too early"));
    assert!(bad(b"\x80\x04](K\x01\x90.").contains("no set"));
    assert!(bad(b"\x80\x04K\x01K\x02\x93.").contains("no string"));
    assert!(bad(b"\x80\x04X\x03\0\0\0\xed\x20\x20.").contains("UTF-8"));
    assert!(bad(b"\x80\x04X\x02\0\0\0\xed\xa0.").contains("UTF-8"));
    assert!(bad(b"\x80\x02}r\xff\xff\xff\xff.").contains("memo index"));
    assert!(bad(b"\x80\x02j\xff\xff\xff\xff.").contains("never stored"));
    assert!(bad(b"\x80\x02.").contains("not on its stack"));
    assert!(bad(b"\x80\x02}s.").contains("not on its stack"));
    assert!(bad(b"\x80\x02\x87.").contains("not on its stack"));
    assert!(bad(b"\x80\x02}(K\x01u.").contains("no dict"));
    assert!(bad(b"\x80\x02K\x01(K\x01u.").contains("no dict"));
    assert!(bad(b"\x80\x02X\x02\x00\x00\x00\xff\xff.").contains("UTF-8"));
    assert!(bad(b"\x80\x02\x8a\xff1.").contains("too early"));
    assert!(bad(b"\x80\x02)Q.").contains("persistent id"));
    assert!(bad(b"\x80\x02ctorch\nFloatStorage\n)R.").contains("no function"));
    assert!(bad(b"\x80\x02]K\x01a.").contains("a list"));
    assert!(bad(&[&b"\x80\x02"[..], &b"("[..].repeat(1 << 20)].concat()).contains("too early"));
    assert!(bad(&[&b"\x80\x02"[..], &b"("[..].repeat(1 + (1 << 20))].concat()).contains("too deep"));
    // More values, stack entries or memo entries than a checkpoint needs, each of which would take several
    // bytes of memory.
    assert!(bad(&[&b"\x80\x02"[..], &b"}"[..].repeat(9 << 20)].concat()).contains("values"));
    assert!(bad(&[&b"\x80\x02"[..], &b"N"[..].repeat(9 << 20)].concat()).contains("its stack has more"));
    assert!(bad(&[&b"\x80\x04N"[..], &b"\x94"[..].repeat(9 << 20)].concat()).contains("memo index"));
    // A dict that contains itself, and dicts whose number doubles with each level.
    bad(b"\x80\x02}q\x00X\x05\x00\x00\x00modelh\x00s.");
    let mut doubling = b"\x80\x02}q\x00".to_vec();
    for level in 0..200u8 {
        doubling.extend(b"}(X\x05\x00\x00\x00modelh");
        doubling.push(level);
        doubling.extend(b"X\x06\x00\x00\x00modulh");
        doubling.push(level);
        doubling.extend([b'u', b'q', level + 1]);
    }
    doubling.push(b'.');
    bad(&doubling);
}

#[test]
fn attack_tensors_outside_their_storage() {
    let with = |elements: &[u8], offset: &[u8], dims: &[u8], strides: &[u8]| -> Result<()> {
        let bytes = torch_zip(&one_tensor(elements, offset, dims, strides), &[("0", &[0; 8])]);
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), bytes).unwrap();
        read_all(file.path())
    };
    let zero = b"K\x00";
    let huge = b"\x8a\x08\x00\x00\x00\x00\x00\x00\x00\x40\x85"; // (2^62,)
    with(b"K\x02", zero, TUPLE_2, TUPLE_1).unwrap();
    let refused = |r: Result<()>| {
        let e = r.unwrap_err();
        assert!(matches!(&e, Error::Record { tensor, record, .. } if tensor == "w" && record == "0"), "{e}");
    };
    refused(with(b"K\x03", zero, TUPLE_2, TUPLE_1));
    refused(with(b"\x8a\x08\x00\x00\x00\x00\x00\x00\x00\x40", zero, TUPLE_2, TUPLE_1));
    refused(with(b"K\x02", b"K\x01", TUPLE_2, TUPLE_1));
    refused(with(b"K\x02", zero, TUPLE_2, TUPLE_2));
    refused(with(b"K\x02", zero, huge, b"K\x00\x85"));
    // An expanded tensor may have more elements than its storage, up to a limit.
    with(b"K\x02", zero, TUPLE_2, b"K\x00\x85").unwrap();
    refused(with(b"K\x02", zero, b"J\x01\x00\x00\x04\x85", b"K\x00\x85"));
    refused(with(b"K\x02", zero, TUPLE_2, huge));
    refused(with(b"K\x02", b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f", TUPLE_1, TUPLE_1));
    assert!(matches!(with(b"K\x02", b"J\xff\xff\xff\xff", TUPLE_1, TUPLE_1), Err(Error::Pickle { .. })));
    assert!(matches!(with(b"K\x02", zero, TUPLE_1, b"K\x01K\x01\x86"), Err(Error::Pickle { .. })));

    let e = open(&torch_zip(&one_tensor(b"K\x02", zero, TUPLE_2, TUPLE_1), &[("1", &[0; 8])])).unwrap_err();
    assert!(e.to_string().contains("tensor `w`: record `0` is missing"), "{e}");
}

/// Each name takes ten bytes of the pickle, but the dimensions of its tensor would take half a kilobyte of
/// memory or more.
#[test]
fn attack_many_names_for_one_tensor_of_many_dimensions() {
    let ones = [&b"("[..], &b"K\x01".repeat(64), b"t"].concat();
    let tensor = one_tensor(b"K\x02", b"K\x00", &ones, &ones);
    let mut pickle = tensor[..tensor.len() - 2].to_vec();
    pickle.extend(b"q\x01s(");
    for i in 0..270_000u32 {
        pickle.extend(b"X\x04\x00\x00\x00");
        pickle.extend([i >> 18 & 63, i >> 12 & 63, i >> 6 & 63, i & 63].map(|b| 32 + b as u8));
        pickle.extend(b"h\x01");
    }
    pickle.extend(b"u.");
    let e = open(&torch_zip(&pickle, &[("0", &[0; 8])])).unwrap_err();
    assert!(e.to_string().contains("more than 262144 tensors"), "{e}");
}

#[test]
fn attack_zips() {
    let stored = CompressionMethod::Stored;
    let zip = |files: &[(&str, &[u8])], method| {
        let files: Vec<_> = files.iter().map(|(n, b)| (n.to_string(), *b)).collect();
        open(&zip_of(&files, method)).unwrap_err()
    };
    let not_torch = |e: Error, part: &str| match e {
        Error::NotTorchZip { reason, .. } => assert!(reason.contains(part), "{reason}"),
        e => panic!("{e}"),
    };
    not_torch(zip(&[("word/document.xml", b"<w>")], stored), "no data.pkl");
    not_torch(zip(&[("a/data.pkl", b"."), ("b/data.pkl", b".")], stored), "more than one");
    not_torch(zip(&[("a/b/data.pkl", b".")], stored), "no data.pkl");
    not_torch(zip(&[("a/data.pkl", &[0; 4096])], CompressionMethod::Deflated), "compressed");
    not_torch(zip(&[("a/data.pkl", b"."), ("a/byteorder", b"big")], stored), "big-endian");
    not_torch(zip(&[("a/data.pkl", b"."), ("a/byteorder", b"odd")], stored), "neither");
    let script = zip(&[("a/data.pkl", b"."), ("a/constants.pkl", b".")], stored);
    assert!(matches!(script, Error::TorchScript { .. }), "{script}");
    assert!(matches!(open(b"PK\x03\x04 and nothing more of a zip"), Err(Error::Zip { .. })));
    assert!(matches!(open(b"PK\x05\x06"), Err(Error::NotACheckpoint { .. })));
}

/// Runs all attacks again in a process that is limited to 600 MiB of address space.
#[cfg(target_os = "linux")]
#[test]
fn attacks_take_little_memory() {
    let tests = std::env::current_exe().unwrap();
    let limited = "ulimit -v 614400 && exec \"$0\" attack_ --test-threads=1";
    let run = Command::new("sh").args(["-c", limited]).arg(tests).output().unwrap();
    let said = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success(), "{said}\n{}", String::from_utf8_lossy(&run.stderr));
    assert!(said.contains("attack_headers ... ok") && data("kinds.pt").exists());
}
