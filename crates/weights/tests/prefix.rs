//! Checkpoints whose names have a prefix that the network's names lack, or vice versa.

use std::collections::BTreeMap;
use std::path::Path;

use pheye_tensor::{DType, Init, Shape, Source, Tensor};
use pheye_weights::{
    Checkpoint, CheckpointSource, Error, Fault, Mismatches, NameMap, Prefix, save_safetensors,
};

/// A file of scalars with these names; the value of each is its index.
fn file(path: &Path, names: &[&str]) -> Checkpoint {
    let tensors: Vec<Tensor> =
        (0..names.len()).map(|i| Tensor::from_f32([1], &[i as f32]).unwrap()).collect();
    save_safetensors(path, names.iter().copied().zip(&tensors), &BTreeMap::new()).unwrap();
    Checkpoint::open(path).unwrap()
}

fn source(checkpoint: &Checkpoint) -> CheckpointSource<'_> {
    CheckpointSource::new(checkpoint, |_| DType::F32).allow_unused(|name| name.ends_with(".position_ids"))
}

fn ask(source: &mut CheckpointSource, name: &str) -> Vec<f32> {
    source.tensor(name, Shape::from([1]), Init::Zeros).to_vec_f32().unwrap()
}

fn mismatches(result: Result<(), Error>) -> Mismatches {
    match result {
        Err(Error::Mismatch(m)) => m,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_prefix_that_all_names_share_is_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w");
    for prefix in ["", "module.", "_orig_mod.", "model.", "_orig_mod.module.", "student.backbone."] {
        let names = ["a.weight", "b.weight", "vision_encoder.position_ids"].map(|n| format!("{prefix}{n}"));
        let c = file(&path, &names.each_ref().map(String::as_str));
        assert_eq!(c.stripped_prefix(), None);
        let mut s = source(&c);
        // The total is known before the prefix is determined: two of the three tensors are needed, 4 bytes
        // each.
        assert_eq!(s.bytes(), 8);
        assert_eq!(s.shape_of("a.weight"), Some(Shape::from([1])));
        assert_eq!(ask(&mut s, "a.weight"), [0.0]);
        assert_eq!(ask(&mut s, "b.weight"), [1.0]);
        assert_eq!(c.stripped_prefix(), (!prefix.is_empty()).then_some(prefix));
        s.finish().unwrap();
        // The full names of the file work as well.
        let c = Checkpoint::open(&path).unwrap();
        assert_eq!((c.f64s(&names[1]).unwrap(), c.stripped_prefix()), (vec![1.0], None));
        // A tensor is written under the requested name.
        let c = Checkpoint::open(&path).unwrap();
        let mut out = Vec::new();
        c.write_to("b.weight", None, &mut out).unwrap();
        assert_eq!(
            (c.item("b.weight", None).unwrap().name.as_str(), out),
            ("b.weight", 1f32.to_le_bytes().into())
        );
    }
}

#[test]
fn a_prefix_is_not_passed_over_for_some_names_only() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w");
    // A published Phi without its head: all names share `model.`, which is part of the network's names.
    let c = file(&path, &["model.embed_tokens.weight", "model.layers.0.fc.weight", "model.lm_head.weight"]);
    let mut s = source(&c)
        .names(NameMap::default().prefix("lang_encoder.lm_head.", "lm_head.").prefix("lang_encoder.", ""));
    assert_eq!(ask(&mut s, "lang_encoder.model.embed_tokens.weight"), [0.0]);
    assert!(ask(&mut s, "lang_encoder.lm_head.weight").is_empty());
    assert_eq!(c.stripped_prefix(), None);
    let m = mismatches(s.finish());
    assert!(matches!(&m.faults[0], Fault::Missing { tensor, .. } if tensor == "lm_head.weight"));
    // A prefix that only some names share is reported.
    let c = file(&path, &["model.a.weight", "model.b.weight", "loss.weight"]);
    let mut s = source(&c);
    assert!(ask(&mut s, "a.weight").is_empty() && ask(&mut s, "b.weight").is_empty());
    let m = mismatches(s.finish());
    assert_eq!((&m.prefix, &m.stripped), (&Some(Prefix::InFile("model.".into())), &None));
    let said = m.to_string();
    assert!(
        said.contains("5 mismatches; names in the file have the prefix `model.`, the network's do not:\n"),
        "{said}"
    );
    // The network has a prefix that the file lacks.
    let mut s = source(&c);
    assert!(ask(&mut s, "net.model.a.weight").is_empty() && ask(&mut s, "net.loss.weight").is_empty());
    let m = mismatches(s.finish());
    assert_eq!(m.prefix, Some(Prefix::InNetwork("net.".into())));
    // A single unrelated name suggests no prefix.
    let mut s = source(&c);
    ask(&mut s, "other");
    assert_eq!(mismatches(s.finish()).prefix, None);
    // A removed prefix is reported with the mismatches.
    let c = file(&path, &["module.a.weight", "module.b.weight"]);
    let mut s = source(&c);
    ask(&mut s, "a.weight");
    let said = mismatches(s.finish()).to_string();
    assert!(said.contains("1 mismatch; its names are read without the prefix `module.`"), "{said}");
    assert!(said.contains("unused `module.b.weight`"), "{said}");
}

#[test]
fn a_long_list_shows_missing_and_unused_tensors_and_has_an_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w");
    let names: Vec<String> = (0..60).map(|i| format!("x.{i}")).collect();
    let c = file(&path, &names.iter().map(String::as_str).collect::<Vec<_>>());
    let mut s = source(&c);
    for i in 0..5000 {
        s.tensor(&format!("y.{i}"), Shape::from([1 << 60]), Init::Zeros);
    }
    let m = mismatches(s.finish());
    assert_eq!((m.faults.len(), m.more), (1060, 4000));
    let said = m.to_string();
    assert!(said.starts_with(&format!("{}: does not fit the network, 5060 mismatches:", path.display())));
    assert_eq!((said.matches("\n  missing").count(), said.matches("\n  unused").count()), (30, 10));
    assert!(said.ends_with("\n  and 5020 more"), "{said}");
}
