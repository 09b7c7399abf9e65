//! Invalid input gives one clear error that names the file, tensor or option, and changes no file.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use common::tensors::{Safetensors, evil_pickle, huge_png, torch_zip};
use common::{Bench, config, copy_tree, ends, golden, refuses, s, same, tree};
use serde_json::json;
use tempfile::TempDir;

const QUESTION: &str = "what color is the shape?";

/// A data set, backbones, and a model trained on them in `run/model`.
static BENCH: LazyLock<Bench> = LazyLock::new(|| {
    // A static is never dropped, so the folder is not temporary; the next run replaces it.
    let bench = Bench::at(Path::new(env!("CARGO_TARGET_TMPDIR")).join("input"));
    bench.trained();
    bench
});

/// A copy of the model that a test may damage.
fn model() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    copy_tree(&BENCH.path("run/model"), dir.path());
    let path = dir.path().to_owned();
    (dir, path)
}

fn image() -> PathBuf {
    BENCH.path("data/0.png")
}

fn edit(path: &Path, how: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    how(&mut bytes);
    fs::write(path, bytes).unwrap();
}

#[track_caller]
fn ask_refuses(model: &Path, parts: &[&str]) -> String {
    refuses(["ask", s(&image()), QUESTION, "--model", s(model)], parts)
}

#[test]
fn a_good_model_answers() {
    let json = ends(0, ["ask", s(&image()), QUESTION, "--model", s(&BENCH.path("run/model")), "--json"]).out;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["question"], QUESTION);
    assert!(json["answer"].is_string() && json["tokens"].as_u64().unwrap() > 0, "{json}");
    ends(
        0,
        [
            "ask",
            s(&image()),
            QUESTION,
            "--model",
            s(&BENCH.path("run/model")),
            "--weights",
            "bf16",
            "--max-new-tokens",
            "3",
        ],
    );
}

#[test]
fn cut_and_padded_weights() {
    let (_dir, model) = model();
    let file = model.join("model.safetensors");
    let whole = fs::read(&file).unwrap();
    for len in [0, 1, 7, 8, 100, whole.len() / 2, whole.len() - 1] {
        fs::write(&file, &whole[..len]).unwrap();
        ask_refuses(&model, &["model.safetensors"]);
    }
    edit(&file, |b| *b = [&whole[..], b"x"].concat());
    ask_refuses(&model, &["model.safetensors", "1 bytes follow"]);
    edit(&file, |b| b[..8].copy_from_slice(&u64::MAX.to_le_bytes()));
    ask_refuses(&model, &["model.safetensors", "header"]);
    fs::remove_file(&file).unwrap();
    ask_refuses(&model, &["model.safetensors"]);

    let dir = tempfile::tempdir().unwrap();
    copy_tree(&golden("level1"), dir.path());
    let file = dir.path().join("checkpoint.pt");
    let whole = fs::read(&file).unwrap();
    let to = dir.path().join("to");
    for bytes in
        [&whole[..0], &whole[..whole.len() / 2], &whole[..whole.len() - 1], &[&whole[..], &[0; 64]].concat()]
    {
        fs::write(&file, bytes).unwrap();
        refuses(["convert", s(dir.path()), s(&to)], &["checkpoint.pt"]);
        assert!(!to.exists());
    }
    // A changed byte of a tensor is detected by the checksum of the zip archive.
    fs::write(&file, &whole).unwrap();
    edit(&file, |b| {
        let middle = b.len() / 2;
        b[middle] ^= 1;
    });
    refuses(["convert", s(dir.path()), s(&to)], &["checkpoint.pt"]);
}

#[test]
fn every_mismatch_at_once() {
    let (_dir, model) = model();
    let file = model.join("model.safetensors");
    let mut weights = Safetensors::read(&file);
    let [missing, reshaped, typed] =
        [["to_q", "weight"], ["fc1", "weight"], ["lm_head", "bias"]].map(|p| weights.find(&p));
    weights.rename(&missing, "something.else");
    let shape = weights.header[&reshaped]["shape"].clone();
    let turned: Vec<_> = shape.as_array().unwrap().iter().rev().cloned().collect();
    weights.set(&reshaped, "shape", json!(turned));
    weights.set(&typed, "dtype", json!("I32"));
    weights.write(&file);
    let parts =
        ["4 mismatches", &missing, &reshaped, &typed, "something.else", "missing", "unused", "shape", "i32"];
    let lower = |err: String| err.to_lowercase();
    let err = lower(ask_refuses(&model, &["model.safetensors"]));
    parts.iter().for_each(|p| assert!(err.contains(&p.to_lowercase()), "no {p} in\n{err}"));

    // The same for a backbone; the run's folder is not created.
    let bench = BENCH.twin();
    fs::remove_dir_all(bench.path("run")).unwrap();
    let file = bench.path("vision/model/vision.safetensors");
    let mut weights = Safetensors::read(&file);
    let missing = [["q_proj", "weight"], ["fc2", "bias"]].map(|p| weights.find(&p));
    missing.iter().for_each(|name| weights.rename(name, &format!("{name}.x")));
    weights.write(&file);
    refuses(
        ["train", s(&bench.path("run.toml"))],
        &["vision.safetensors", "4 mismatches", &missing[0], &missing[1]],
    );
    assert!(!bench.path("run").exists());
}

/// Adds `prefix` to the name of every tensor of a safetensors file.
fn prefixed(file: &Path, prefix: &str) {
    let mut weights = Safetensors::read(file);
    let names: Vec<_> = weights.header.keys().filter(|name| *name != "__metadata__").cloned().collect();
    names.iter().for_each(|name| weights.rename(name, &format!("{prefix}{name}")));
    weights.write(file);
}

#[test]
fn a_prefix_that_all_names_share_is_said() {
    let (_dir, wrapped) = model();
    let args = |model: &Path| ["ask", s(&image()), QUESTION, "--model", s(model)].map(str::to_owned);
    let plain = ends(0, args(&wrapped));
    prefixed(&wrapped.join("model.safetensors"), "module.");
    let said = "names are read without the prefix `module.`";
    let ended = ends(0, args(&wrapped));
    assert_eq!(ended.out, plain.out);
    assert!(ended.err.contains("model.safetensors: ") && ended.err.contains(said), "{ended:#?}");
    assert!(!plain.err.contains("prefix"), "{plain:#?}");
    let to = wrapped.join("converted");
    let ended = ends(0, ["convert", s(&wrapped), s(&to)]);
    assert!(ended.err.contains(said), "{ended:#?}");
    assert!(!ends(0, args(&to)).err.contains("prefix"));

    let bench = BENCH.twin();
    prefixed(&bench.path("vision/model/vision.safetensors"), "_orig_mod.");
    let ended = ends(0, ["train", s(&bench.path("run.toml")), "--overwrite"]);
    let said = "names are read without the prefix `_orig_mod.`";
    assert!(ended.err.contains("vision.safetensors: ") && ended.err.contains(said), "{ended:#?}");
}

#[cfg(unix)]
#[test]
fn a_link_to_nothing_is_named() {
    let bench = BENCH.twin();
    let link = |name: &str| {
        let path = bench.path(name);
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("gone", &path).unwrap();
        path
    };
    for name in ["vision/model/vision.safetensors", "tokenizer.json", "data/manifest.jsonl"] {
        let before = fs::read(bench.path(name)).unwrap();
        let path = link(name);
        let parts = [path.file_name().unwrap().to_str().unwrap(), "a link to gone, which does not exist"];
        refuses(["train", s(&bench.path("run.toml")), "--overwrite"], &parts);
        fs::remove_file(&path).unwrap();
        fs::write(&path, before).unwrap();
    }
    same(&bench.left("run"), &BENCH.left("run"));
}

#[test]
fn pickles_that_call() {
    let dir = tempfile::tempdir().unwrap();
    copy_tree(&golden("level1"), dir.path());
    let (marker, to) = (dir.path().join("marker"), dir.path().join("to"));
    for (module, function) in [("os", "system"), ("posix", "system"), ("builtins", "exec")] {
        let pickle = evil_pickle(module, function, &format!("touch {}", s(&marker)));
        torch_zip(&dir.path().join("checkpoint.pt"), &pickle);
        let name = format!("{module}.{function}");
        refuses(["convert", s(dir.path()), s(&to)], &["checkpoint.pt", "refused", &name]);
        refuses(["ask", s(&image()), QUESTION, "--model", s(dir.path())], &[]);
        assert!(!marker.exists() && !to.exists());
    }
    let bench = BENCH.twin();
    torch_zip(&bench.path("text/model/text.safetensors"), &evil_pickle("os", "system", "true"));
    refuses(
        ["train", s(&bench.path("run.toml")), "--overwrite"],
        &["text.safetensors", "refused", "os.system"],
    );
    same(&bench.left("run"), &BENCH.left("run"));
}

#[test]
fn images() {
    let dir = tempfile::tempdir().unwrap();
    let model = BENCH.path("run/model");
    let file = dir.path().join("picture.png");
    let whole = fs::read(image()).unwrap();
    let ask = |bytes: &[u8], parts: &[&str]| {
        fs::write(&file, bytes).unwrap();
        refuses(["ask", s(&file), QUESTION, "--model", s(&model)], &[&[s(&file)], parts].concat());
    };
    ask(b"", &["empty"]);
    ask(&whole[..whole.len() / 2], &["truncated"]);
    ask(&whole[..20], &[]);
    ask(b"these are words, not pixels", &["not an image"]);
    ask(b"%PDF-1.7 and so on", &["not an image"]);
    ask(&huge_png(50_000, 50_000), &["50000x50000", "megapixels"]);
    refuses(["ask", s(dir.path()), QUESTION, "--model", s(&model)], &[s(dir.path())]);
    let absent = dir.path().join("absent.png");
    refuses(["ask", s(&absent), QUESTION, "--model", s(&model)], &[s(&absent)]);

    let one = dir.path().join("one.png");
    image::RgbImage::from_pixel(1, 1, image::Rgb([200, 30, 30])).save(&one).unwrap();
    ends(0, ["ask", s(&one), QUESTION, "--model", s(&model)]);
    // The limit can be raised and lowered; a header that announces more data than the file has is an error
    // all the same.
    let large = dir.path().join("large.png");
    image::RgbImage::from_pixel(1200, 1000, image::Rgb([200, 30, 30])).save(&large).unwrap();
    let ask = |mp: &'static str| {
        ["ask", s(&large), QUESTION, "--model", s(&model), "--max-megapixels", mp].map(str::to_owned)
    };
    ends(0, ask("2"));
    refuses(ask("1"), &["large.png", "1200x1000"]);
    fs::write(&file, huge_png(60_000, 10)).unwrap();
    refuses(["ask", s(&file), QUESTION, "--model", s(&model), "--max-megapixels", "1000"], &["picture.png"]);
}

#[test]
fn prompts() {
    let ask = |question: &str, parts: &[&str]| {
        refuses(["ask", s(&image()), question, "--model", s(&BENCH.path("run/model"))], parts);
    };
    ask("", &["question is empty"]);
    ask("  \n ", &["question is empty"]);
    ask(&"what color is the shape ".repeat(40), &["tokens", "context", "64"]);
}

#[test]
fn tokenizers() {
    let bench = BENCH.twin();
    let ask = |parts: &[&str]| ask_refuses(&bench.path("run/model"), &[&["tokenizer.json"], parts].concat());
    let train = |parts: &[&str]| {
        let args = ["train", s(&bench.path("run.toml")), "--overwrite"].map(str::to_owned);
        refuses(args, &[&["tokenizer.json"], parts].concat());
        same(&tree(&bench.path("run/checkpoints")), &tree(&BENCH.path("run/checkpoints")));
    };
    let good = fs::read(bench.path("tokenizer.json")).unwrap();
    let mut large: serde_json::Value = serde_json::from_slice(&good).unwrap();
    large["model"]["vocab"]["elsewhere"] = json!(5000);
    for (bytes, parts) in [
        (large.to_string().into_bytes(), &["5000", "vocabulary", "does not fit"][..]),
        (good[..good.len() / 2].to_vec(), &["not a tokenizer"]),
        (Vec::new(), &[]),
    ] {
        fs::write(bench.path("tokenizer.json"), &bytes).unwrap();
        fs::write(bench.path("run/model/tokenizer.json"), &bytes).unwrap();
        ask(parts);
        train(parts);
    }
    fs::remove_file(bench.path("run/model/tokenizer.json")).unwrap();
    ask(&[]);
}

#[test]
fn models() {
    let dir = tempfile::tempdir().unwrap();
    let absent = dir.path().join("absent");
    ask_refuses(&absent, &[s(&absent)]);
    ask_refuses(dir.path(), &[s(dir.path())]);
    refuses(["verify", s(&absent)], &[s(&absent)]);
    refuses(["convert", s(&absent), s(&dir.path().join("to"))], &[s(&absent)]);
    refuses(["info", s(dir.path())], &[s(dir.path())]);

    let (_dir, model) = model();
    edit(&model.join("pheye.json"), |b| {
        let text = String::from_utf8(b.clone()).unwrap();
        *b = text.replacen("\"level\"", "\"levle\"", 1).into_bytes();
    });
    ask_refuses(&model, &["pheye.json", "`levle`"]);

    // A folder that contains a model in either layout is never written to.
    for from in [BENCH.path("run/model"), golden("level1")] {
        let copy = tempfile::tempdir().unwrap();
        copy_tree(&from, copy.path());
        refuses(["convert", s(&from), s(copy.path())], &["exists"]);
        refuses(["convert", s(copy.path()), s(copy.path())], &["exists"]);
        same(&tree(&from), &tree(copy.path()));
    }
}

#[test]
fn devices() {
    let model = BENCH.path("run/model");
    let args = |device: &str| {
        ["ask", s(&image()), QUESTION, "--model", s(&model), "--device", device].map(str::to_owned)
    };
    // Without a driver, without kernels in the build, or with fewer GPUs, the error says what to do.
    let error = refuses(args("cuda:99"), &["--device"]);
    assert!(error.contains("hint: `--device cpu`"), "{error}");
    refuses(args("tpu"), &["--device", "`tpu`", "cuda"]);
    ends(0, args("cpu"));
}

#[test]
fn configs() {
    let bench = BENCH.twin();
    let good = fs::read_to_string(bench.path("run.toml")).unwrap();
    let file = bench.path("bad.toml");
    let train = |from: &str, to: &str, parts: &[&str]| {
        assert!(good.contains(from), "{from}");
        fs::write(&file, good.replacen(from, to, 1)).unwrap();
        refuses(["train", s(&file), "--overwrite"], &[&["bad.toml"], parts].concat());
        same(&bench.left("run"), &BENCH.left("run"));
    };
    train("lr = ", "learning_rat = ", &["`learning_rat` in [optim]"]);
    train("batch = 2", "batchs = 2", &["line ", "`batchs` in [train]", "did you mean `batch`?"]);
    train("[optim]", "[optm]", &["`optm`", "did you mean `optim`?"]);
    train(
        "hidden_size = 16",
        "hiden_size = 16",
        &["line 10", "`hiden_size` in [model.config.vision]", "did you mean `hidden_size`?"],
    );
    train("num_attention_heads = 4", "heads = 4", &["`heads` in [model.config.text]", "num_attention_heads"]);
    train(
        "[model.config.vision]",
        "[model.config.visoin]",
        &["`visoin` in [model.config]", "did you mean `vision`?"],
    );
    train("hidden_size = 16", "hidden_size = \"16\"", &["model.config", "16"]);
    train("\"nano\"", "\"micro\"", &["`model.preset`", "`micro`", "nano", "x4-672"]);
    train("\"pheye\"", "\"fly\"", &["`fly`", "pheye", "contrastive"]);
    train("batch = 2", "batch = 0", &["`train.batch`", "at least 1"]);
    train("batch = 2", "batch = \"two\"", &["train.batch"]);
    train("batch = 2", "batch = ", &["line "]);
    train("steps = 4", "steps = 4\nepochs = 1", &["train.steps", "either steps or epochs"]);
    train("lr = 1e-3", "lr = -1.0", &["optim"]);
    refuses(["train", s(&bench.path("absent.toml"))], &["absent.toml"]);

    let train = |from: &str, to: &str, parts: &[&str]| {
        assert!(good.contains(from), "{from}");
        fs::write(&file, good.replacen(from, to, 1)).unwrap();
        refuses(["train", s(&file), "--overwrite"], parts);
        same(&bench.left("run"), &BENCH.left("run"));
    };
    train("hidden_size = 16", "hidden_size = 17", &["hidden_size", "17"]);
    train("[\"data\"]", "[\"nowhere\"]", &["nowhere"]);
    train("shift:3", "spin", &["`spin`", "hflip"]);
    train("seed = 7", "trainable = [\"*nothing*\"]", &["*nothing*"]);
    train("encoder = ", "#encoder = ", &["`model.encoder`", "pheye"]);
    train("vision/model/vision.safetensors", "vision/none.safetensors", &["vision/none.safetensors"]);
}

#[test]
fn data() {
    let bench = BENCH.twin();
    let manifest = bench.path("data/manifest.jsonl");
    let good = fs::read_to_string(&manifest).unwrap();
    let train = |text: &str, parts: &[&str]| {
        fs::write(&manifest, text).unwrap();
        refuses(["train", s(&bench.path("run.toml")), "--out", s(&bench.path("new"))], parts);
        assert!(bench.checkpoints("new").is_empty());
    };
    train(&good.replacen("\"qa\":", "\"qa\":7,\"x\":", 1), &["manifest.jsonl", "line 1"]);
    train(&(good.clone() + "{\"image\"\n"), &["manifest.jsonl", "line 9"]);
    train("", &["data", "nothing to learn from"]);
    train(&good.replace(".png", ".gone"), &[".gone"]);
    train(&good.replace("what color", &"what color ".repeat(60)), &["tokens"]);
    fs::write(&manifest, &good).unwrap();
    for i in 0..8 {
        edit(&bench.path(&format!("data/{i}.png")), |b| b.truncate(b.len() / 2));
    }
    train(&good, &[".png", "truncated"]);

    // A config without a question set.
    refuses(
        ["eval", s(&bench.path("run.toml")), "--model", s(&bench.path("run/model"))],
        &["run.toml", "data.test"],
    );
}

#[test]
fn measuring() {
    let bench = BENCH.twin();
    let text =
        config("pheye", &[("data", "test = [\"data\"]"), ("train", "steps = 2\nbatch = 3\nout = \"new\"")]);
    let file = bench.write("test.toml", text);
    let args = ["eval", s(&file), "--model", s(&bench.path("run/model")), "--json"].map(str::to_owned);
    let json: serde_json::Value = serde_json::from_str(&ends(0, &args).out).unwrap();
    assert_eq!(json["questions"], 24);
    assert_eq!(json["accuracy"].as_f64().unwrap(), json["right"].as_f64().unwrap() / 24.0);
    edit(&bench.path("data/5.png"), |b| b.clear());
    refuses(&args, &["5.png", "empty"]);
    ends(0, [&args[..], &["--questions".to_owned(), "6".to_owned()]].concat());
}

#[test]
fn usage() {
    for args in [
        &[][..],
        &["tarin"],
        &["train"],
        &["train", "x.toml", "--steps", "0"],
        &["train", "x.toml", "--steps", "many"],
        &["ask", "picture.png", "--also", "other.png"],
        &["ask", "picture.png", "what?", "--modle", "x"],
        &["verify"],
        &["convert", "from"],
    ] {
        let ended = ends(2, args);
        assert!(ended.err.contains("Usage") || ended.err.contains("error: "), "{ended:#?}");
    }
    assert!(ends(2, ["ask", "a.png", "what?", "--modle", "x"]).err.contains("--model"));
}
