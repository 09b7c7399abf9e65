//! Tensors written in shards are read back unchanged, and an incomplete folder gives an error that says what
//! is missing.

mod common;
#[path = "common/torch.rs"]
mod torch;

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::Path;

use common::golden;
use pheye_tensor::DType;
use pheye_weights::{Checkpoint, Error, Item, ShardedWriter, StoredDType, Written};
use serde_json::Value;

/// Tensors of 40, 24, 64, 16 and 8 bytes, of several types.
fn items() -> Vec<Item> {
    use StoredDType::{Bf16, F16, F32, F64};
    let item = |name: &str, dims: &[usize], dtype| Item { name: name.to_owned(), dims: dims.to_vec(), dtype };
    vec![
        item("a", &[2, 5], F32),
        item("b", &[12], Bf16),
        item("c", &[8], F64),
        item("d", &[8], F16),
        item("e", &[1, 2, 1], F32),
    ]
}

fn write(item: &Item, out: &mut dyn Write) -> io::Result<()> {
    let first = item.name.as_bytes()[0];
    (0..item.bytes()).try_for_each(|i| out.write_all(&[if i % 2 == 0 { first } else { 0x3c }]))
}

fn save(folder: &Path, limit: u64) -> Result<Written, Error> {
    let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
    let to = ShardedWriter { folder, stem: "model", limit, metadata: &metadata };
    let (mut told, mut total) = (Vec::new(), 0);
    let written = to.save(&items(), &mut write, &mut |done, all| {
        told.push(done);
        total = all;
    })?;
    assert!(told.is_sorted() && told.last() == Some(&152) && total == 152, "{told:?} {total}");
    Ok(written)
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

const INDEX: &str = "model.safetensors.index.json";

#[test]
fn shards_hold_what_fits_and_the_index_says_where() {
    let folder = tempfile::tempdir().unwrap();
    let (one, many) = (folder.path().join("one"), folder.path().join("new/many"));
    assert_eq!(save(&one, 152).unwrap(), Written { files: vec![one.join("model.safetensors")], bytes: 152 });
    assert_eq!(names(&one), ["model.safetensors"]);

    // A tensor larger than the limit gets a shard of its own.
    let written = save(&many, 63).unwrap();
    let shard = |i: usize| format!("model-{i:05}-of-00004.safetensors");
    assert_eq!(written.files, (1..=4).map(|i| many.join(shard(i))).collect::<Vec<_>>());
    let mut expected: Vec<_> = (1..=4).map(shard).collect();
    expected.push(INDEX.to_owned());
    assert_eq!(names(&many), expected);
    let index: Value = serde_json::from_slice(&fs::read(many.join(INDEX)).unwrap()).unwrap();
    assert_eq!(index["metadata"]["total_size"], 152);
    let places: Vec<_> =
        ["a", "b", "c", "d", "e"].map(|n| index["weight_map"][n].as_str().unwrap().to_owned()).into();
    assert_eq!(places, [1, 2, 3, 4, 4].map(shard));
    assert_eq!(index["weight_map"].as_object().unwrap().len(), 5);

    let (one, many) = (
        Checkpoint::open(one.join("model.safetensors")).unwrap(),
        Checkpoint::open(many.join(INDEX)).unwrap(),
    );
    assert!(one.names().eq(many.names()));
    for item in items() {
        let (shape, dtype) = many.info(&item.name).unwrap();
        assert_eq!((shape.dims(), dtype), (&item.dims[..], item.dtype));
        assert!(one.f64s(&item.name).unwrap() == many.f64s(&item.name).unwrap());
        let (mut stored, mut wanted) = (Vec::new(), Vec::new());
        many.write_to(&item.name, None, &mut stored).unwrap();
        write(&item, &mut wanted).unwrap();
        assert!(stored == wanted, "{}", item.name);
    }
}

#[test]
fn another_reader_agrees() {
    let folder = tempfile::tempdir().unwrap();
    for file in save(folder.path(), 64).unwrap().files {
        let bytes = fs::read(&file).unwrap();
        let theirs = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
        assert_eq!(header.metadata().as_ref().unwrap()["format"], "pt");
        for (name, view) in theirs.tensors() {
            let mut wanted = Vec::new();
            write(items().iter().find(|i| i.name == name).unwrap(), &mut wanted).unwrap();
            assert!(view.data() == wanted, "{name}");
        }
    }
}

#[test]
fn damaged_folders_name_what_is_at_fault() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    save(dir, 64).unwrap();
    let open = || Checkpoint::open(dir.join(INDEX)).unwrap_err().to_string();
    let second = names(dir)[1].clone();
    let whole = fs::read(dir.join(&second)).unwrap();

    fs::write(dir.join(&second), &whole[..whole.len() - 1]).unwrap();
    assert!(open().contains(&second) && open().contains("truncated"), "{}", open());
    fs::remove_file(dir.join(&second)).unwrap();
    assert!(open().contains(&second) && open().contains("cannot be read"), "{}", open());
    fs::write(dir.join(&second), &whole).unwrap();

    let index = fs::read_to_string(dir.join(INDEX)).unwrap();
    fs::write(dir.join(INDEX), index.replace("\"e\"", "\"f\"")).unwrap();
    assert!(open().contains("holds no tensor `f`") && open().contains("model-0000"), "{}", open());
}

#[test]
fn a_save_that_fails_leaves_nothing_and_nothing_is_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let none = BTreeMap::new();
    let to = ShardedWriter { folder: dir, stem: "model", limit: 64, metadata: &none };
    let fails = |fault: fn() -> io::Error| {
        let mut elements =
            |item: &Item, out: &mut dyn Write| if item.name == "d" { Err(fault()) } else { write(item, out) };
        to.save(&items(), &mut elements, &mut |_, _| ()).unwrap_err()
    };
    let full = fails(|| io::ErrorKind::StorageFull.into());
    assert!(matches!(&full, Error::Write { source, .. } if source.kind() == io::ErrorKind::StorageFull));
    // An error of reading a tensor is not reported as an error of writing.
    let read = fails(|| Error::Damaged { path: "from".into(), tensor: "d".into() }.into());
    assert!(matches!(&read, Error::Damaged { tensor, .. } if tensor == "d"), "{read}");
    let short = to.save(&items(), &mut |_, out| out.write_all(&[0; 8]), &mut |_, _| ()).unwrap_err();
    let cause = std::error::Error::source(&short).unwrap().to_string();
    assert!(cause.contains("tensor `a` has 40 bytes, not 8"), "{short}: {cause}");
    let twice = [items(), items()].concat();
    let twice = to.save(&twice, &mut write, &mut |_, _| ()).unwrap_err();
    assert!(matches!(&twice, Error::Duplicate { tensor, .. } if tensor == "a"), "{twice}");
    assert!(names(dir).is_empty(), "{:?}", names(dir));

    for taken in ["model.safetensors", INDEX, "model-00002-of-00003.safetensors"] {
        fs::write(dir.join(taken), "mine").unwrap();
        let error = save(dir, 80).unwrap_err();
        assert!(matches!(&error, Error::Exists { path } if path.ends_with(taken)), "{error}");
        assert_eq!(
            (names(dir), fs::read(dir.join(taken)).unwrap()),
            (vec![taken.to_owned()], b"mine".into())
        );
        fs::remove_file(dir.join(taken)).unwrap();
    }
}

#[test]
fn elements_leave_as_stored_or_converted_as_they_are_loaded() {
    for file in [common::data("kinds.pt"), golden("level1").join("checkpoint.pt")] {
        let checkpoint = Checkpoint::open(file).unwrap();
        for name in checkpoint.names() {
            let Some((shape, stored)) = checkpoint.info(name) else { continue };
            let mut raw = Vec::new();
            checkpoint.write_to(name, None, &mut raw).unwrap();
            assert_eq!(raw.len(), shape.elements() * stored.size(), "{name}");
            for dtype in [DType::F32, DType::Bf16] {
                let mut out = Vec::new();
                let written = checkpoint.write_to(name, Some(dtype), &mut out);
                match checkpoint.tensor(name, dtype) {
                    Ok(tensor) => assert!(written.is_ok() && out == tensor.host_bytes().unwrap(), "{name}"),
                    Err(_) => assert!(written.unwrap_err().to_string().contains(name)),
                }
            }
        }
    }
    let checkpoint = Checkpoint::open(golden("level1").join("checkpoint.pt")).unwrap();
    let absent = checkpoint.write_to("absent", None, &mut io::sink()).unwrap_err();
    assert!(absent.to_string().contains("no tensor `absent`"), "{absent}");
}

#[test]
fn damage_is_found_while_writing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.pt");
    let bytes: Vec<u8> = (0..3u32 << 20).map(|i| i as u8).collect();
    let stored =
        torch::Stored { name: "w".into(), dims: vec![3 << 18], class: "FloatStorage", bytes: &bytes };
    torch::save(fs::File::create(&path).unwrap(), &[stored]);
    let mut out = Vec::new();
    Checkpoint::open(&path).unwrap().write_to("w", None, &mut out).unwrap();
    assert!(out == bytes);
    let mut zip = fs::read(&path).unwrap();
    let middle = zip.len() / 2;
    zip[middle] ^= 1;
    fs::write(&path, zip).unwrap();
    let error = Checkpoint::open(&path).unwrap().write_to("w", None, &mut io::sink()).unwrap_err();
    assert!(matches!(error.downcast::<Error>(), Ok(Error::Damaged { tensor, .. }) if tensor == "w"));
}
