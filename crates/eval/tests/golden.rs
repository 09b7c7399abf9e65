//! Every stage of the golden folders passes.

use std::path::{Path, PathBuf};

use pheye_eval::verify;
use pheye_model::{Options, Pheye};
use pheye_ops::Cx;

const CASES: [&str; 3] = ["level1", "x2-level2", "x4-level3"];

fn golden(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(case)
}

#[test]
fn golden_folders_pass() {
    for case in CASES {
        let report = verify(&Cx::cpu(), &golden(case)).unwrap();
        let failed: Vec<_> = report.stages.iter().filter(|s| !s.passed()).collect();
        assert!(failed.is_empty(), "{case}: {failed:#?}");
        assert!(report.stages.len() > 30, "{case}: only {} stages", report.stages.len());
        let of = |kind: &str| report.stages.iter().filter(|s| s.name.starts_with(kind)).count();
        assert_eq!((of("generate"), of("sampling")), (14, 6), "{case}");
    }
}

/// A copy of the files of a golden folder that `verify` reads.
fn copy_of(case: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(golden(case)).unwrap() {
        let (path, to) = (entry.as_ref().unwrap().path(), dir.path().join(entry.unwrap().file_name()));
        match path.is_dir() {
            true => {
                std::fs::create_dir(&to).unwrap();
                std::fs::copy(path.join("config.json"), to.join("config.json")).unwrap();
            }
            false => drop(std::fs::copy(path, to).unwrap()),
        }
    }
    dir
}

/// With weights that are not finite, stages fail and the report is still complete.
#[test]
fn weights_that_are_not_finite_do_not_pass() {
    let dir = copy_of("level1");
    let mut model = Pheye::load(dir.path(), Options::default()).unwrap();
    let head = model.params_mut().into_iter().find(|p| p.name == "lang_encoder.lm_head.bias").unwrap();
    head.value.f32_mut().unwrap()[5] = f32::NAN;
    model.save(dir.path()).unwrap();
    let report = verify(&Cx::cpu(), dir.path()).unwrap();
    let passed = |name: &str| report.stages.iter().any(|s| s.name == name && s.passed());
    assert!(passed("media") && passed("global_pixels"));
    for name in ["logits", "greedy", "generate", "sampling", "loss_sum"] {
        assert!(report.stages.iter().filter(|s| s.name.starts_with(name)).all(|s| !s.passed()), "{name}");
    }
}

/// The stages that fail after replacing `from` by `to` in `generate.json`.
fn with_other_generation(from: &str, to: &str) -> Result<Vec<String>, pheye_eval::Error> {
    let dir = copy_of("level1");
    let file = dir.path().join("generate.json");
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains(from), "{from}");
    std::fs::write(&file, text.replacen(from, to, 1)).unwrap();
    let report = verify(&Cx::cpu(), dir.path())?;
    Ok(report.stages.iter().filter(|s| !s.passed()).map(|s| s.name.clone()).collect())
}

#[test]
fn other_generation_does_not_pass() {
    let failed = |from, to| with_other_generation(from, to).unwrap();
    assert_eq!(failed("\"num_beams\": 3", "\"num_beams\": 2"), ["generate max_new_tokens=12 num_beams=2"]);
    let warmer = failed("\"temperature\": 0.5", "\"temperature\": 0.51");
    assert_eq!(warmer, ["sampling do_sample=true temperature=0.51 top_k=5"]);
    let kept = failed("\"temperature\": 0.5, \"top_k\": 5", "\"temperature\": 0.5, \"top_k\": 6");
    assert_eq!(kept, ["sampling do_sample=true temperature=0.5 top_k=6"]);
    let unknown = with_other_generation("\"num_beams\": 3", "\"beams\": 3").unwrap_err().to_string();
    assert!(unknown.contains("generate.json") && unknown.contains("`beams`"), "{unknown}");
}

#[test]
fn a_plain_list_of_ids_is_compared_too() {
    for case in ["x2-level2", "x4-level3"] {
        let dir = copy_of(case);
        let text = std::fs::read_to_string(golden(case).join("generate_plain.json")).unwrap();
        let with = |text: String| {
            std::fs::write(dir.path().join("generate.json"), text).unwrap();
            verify(&Cx::cpu(), dir.path())
        };
        let failed = |report: pheye_eval::Report| -> Vec<String> {
            report.stages.iter().filter(|s| !s.passed()).map(|s| s.name.clone()).collect()
        };
        let report = with(text.clone()).unwrap();
        assert_eq!(report.stages.iter().filter(|s| s.name.starts_with("generate")).count(), 7, "{case}");
        assert!(failed(report).is_empty(), "{case}");
        let other = failed(with(text.replace("\"length_penalty\": 2.0", "\"length_penalty\": 0.0")).unwrap());
        let penalised = other.iter().all(|name| name.contains("length_penalty=0"));
        assert!(other.len() == 1 && penalised, "{case}: {other:?}");
        let unknown = with(text.replace("beams4_len2", "sample")).map(failed).unwrap_err().to_string();
        assert!(unknown.contains("generate.json") && unknown.contains("`sample_eos`"), "{unknown}");
    }
}

/// One folder, and all of them with `PHEYE_GOLDEN=all`: each takes a minute, because the kernels run on the CPU, in
/// bf16 and one thread at a time.
#[cfg(feature = "emulator")]
#[test]
fn golden_folders_pass_on_the_emulator() {
    let all = std::env::var("PHEYE_GOLDEN").is_ok_and(|which| which == "all");
    for case in if all { &CASES[..] } else { &CASES[1..2] } {
        let report = verify(&Cx::new("emulator".parse().unwrap()), &golden(case)).unwrap();
        let failed: Vec<_> = report.stages.iter().filter(|s| !s.passed()).collect();
        assert!(failed.is_empty(), "{case}: {failed:#?}");
        assert!(report.stages.len() > 30, "{case}: only {} stages", report.stages.len());
    }
}

#[cfg(feature = "emulator")]
#[test]
fn bounds_for_a_gpu_must_be_there() {
    let dir = tempfile::tempdir().unwrap();
    let file = "golden.safetensors";
    std::fs::copy(golden("level1").join(file), dir.path().join(file)).unwrap();
    let error = verify(&Cx::new("emulator".parse().unwrap()), dir.path()).unwrap_err().to_string();
    assert!(error.contains("golden_bf16.safetensors") && error.contains("xtask golden"), "{error}");
}
