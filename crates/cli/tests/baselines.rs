//! The systems of Appendix B through the command: parameters, verification, training that resumes with the same bits,
//! answers, and the tables.

mod common;

use std::fs;
use std::path::Path;

use common::{Bench, ends, refuses, s, same, top, tree};

#[test]
fn parameters_stand_beside_those_of_the_paper() {
    let text = ends(0, ["info", "perceiver-448"]).out;
    assert!(text.contains("trained              307,843,520"), "{text}");
    assert!(text.contains("in the paper                317M  (9 million more than"), "{text}");
    assert!(text.contains("image tokens     257, in cross-attention"), "{text}");
    let json: serde_json::Value = serde_json::from_str(&ends(0, ["info", "llava", "--json"]).out).unwrap();
    assert_eq!(json["trained"], 590_592);
    assert_eq!((&json["paper"], &json["rows_before_text"]), (&"590K".into(), &50.into()));
    let golden = top().join("tests/golden_b/monkey-448");
    let text = ends(0, ["info", s(&golden)]).out;
    assert!(text.contains("image tokens     10, in cross-attention"), "{text}");
    refuses(["info", "fromage", "--complexity"], &["--complexity is for Pheye"]);
    refuses(["info", "frommage"], &["neither a file or folder", "nor a preset"]);
}

#[test]
fn golden_folders_are_verified() {
    for case in ["fromage", "monkey-448"] {
        let text = ends(0, ["verify", s(&top().join("tests/golden_b").join(case))]).out;
        assert!(text.contains("passed: "), "{text}");
    }
}

/// The config of a run of a system with small random backbones, over the data of the bench.
fn config(bench: &Bench, name: &str, system: &str, keys: &str) -> std::path::PathBuf {
    let text = format!(
        r#"
task = "baseline"
[model]
preset = "{system}"
random = ["encoder", "decoder"]
tokenizer = "tokenizer.json"
[model.config]
{keys}
vision = {{ hidden_size = 16, intermediate_size = 32, num_hidden_layers = 2, num_attention_heads = 2, image_size = 8, patch_size = 4 }}
text = {{ vocab_size = 345, n_positions = 64, n_embd = 24, n_layer = 2, n_head = 3 }}
[data]
augment = ["hflip"]
test = ["data"]
[[data.source]]
format = "lines"
path = "data"
prompt = {{ only = "This image shows " }}
[optim]
lr = 1e-3
[train]
steps = 6
batch = 2
accumulation = 2
checkpoint_every = 2
keep = 3
out = "{name}"
"#
    );
    bench.write(&format!("{name}.toml"), text)
}

const SYSTEMS: [(&str, &str); 4] = [
    ("fromage-trained-vit", ""),
    ("llava", ""),
    ("monkey-448", "lora_rank = 2\nresampler = { kind = \"monkey\", queries = 5, heads = 2 }"),
    ("none-448", "lora_rank = 2"),
];

#[test]
fn a_resumed_run_has_the_same_bits() {
    let bench = Bench::small();
    for (system, keys) in SYSTEMS {
        let file = config(&bench, system, system, keys);
        ends(0, ["train", s(&file)]);
        let whole = tree(&bench.path(system).join("model"));
        assert!(whole.contains_key("config.json") && whole.contains_key("model.safetensors"));
        // A run that a kill stopped after its second checkpoint.
        fs::remove_dir_all(bench.path(system).join("model")).unwrap();
        fs::remove_dir_all(bench.path(system).join("checkpoints/step-000006")).unwrap();
        ends(0, ["train", s(&file), "--resume"]);
        same(&tree(&bench.path(system).join("model")), &whole);
        let answer = ask(&bench.path(system).join("model"), &bench.path("data/0.png"), &[]);
        assert_eq!(
            answer,
            ask(&bench.path(system).join("model"), &bench.path("data/0.png"), &["--beams", "1"])
        );
    }
}

fn ask(model: &Path, image: &Path, more: &[&str]) -> String {
    let args = ["ask", s(image), "This image shows ", "--model", s(model), "--max-new-tokens", "5"];
    ends(0, args.iter().chain(more)).out
}

/// The learning rate and its shares act on what the paper trains of LLaVA, and on nothing else.
#[test]
fn what_the_paper_trains_is_trained() {
    let bench = Bench::small();
    let file = config(&bench, "run", "llava", "");
    ends(0, ["train", s(&file), "--set", "train.steps=1", "--set", "optim.weight_decay=0"]);
    let start = bench.path("run/model");
    let changed = |name: &str, sets: &[&str]| {
        let system = config(&bench, name, "llava", "");
        let mut args = vec!["train", s(&system), "--set", "train.steps=1", "--set", "optim.weight_decay=0"];
        args.extend(sets.iter().flat_map(|set| ["--set", set]));
        ends(0, args);
        let read = |folder: &Path| common::tensors::Safetensors::read(&folder.join("model.safetensors"));
        let (mut before, mut after) = (read(&start), read(&bench.path(name).join("model")));
        let names: Vec<String> =
            before.header.keys().filter(|name| *name != "__metadata__").cloned().collect();
        names.into_iter().filter(|n| before.bytes(n) != after.bytes(n)).collect::<Vec<_>>()
    };
    // Another rate changes what is trained, and nothing else.
    assert_eq!(changed("other", &["optim.lr=2e-3"]), ["mm_projector.bias", "mm_projector.weight"]);
    // So does another share of it.
    let share = r#"optim.share=[{ params = ["mm_projector.*", "!*.bias"], share = 0.5 }]"#;
    assert_eq!(changed("share", &[share]), ["mm_projector.weight"]);
}

#[test]
fn a_table_is_one_command_that_goes_on() {
    let bench = Bench::small();
    let file = config(&bench, "table", "smallcap", "");
    let out = bench.path("tables");
    let run = |more: &[&str]| {
        let args =
            ["baselines", "table4", "--config", s(&file), "--out", s(&out), "--seeds", "2", "--images", "3"];
        ends(0, args.iter().chain(["--set", "train.steps=2"].iter()).chain(more))
    };
    let first = run(&[]);
    for system in
        ["fromage", "llava", "smallcap", "fromage-trained-vit", "llava-trained-vit", "smallcap-trained-vit"]
    {
        assert!(first.out.contains(&format!("| {system} | ")), "{first:#?}");
    }
    assert!(first.out.contains("By CIDEr: "), "{first:#?}");
    let results = fs::read(out.join("results.json")).unwrap();
    fs::remove_file(out.join("llava-seed-2/result.json")).unwrap();
    let again = run(&["--json"]);
    assert!(!again.err.contains("training "), "{again:#?}");
    assert_eq!(fs::read(out.join("results.json")).unwrap(), results);
    // Figures of other settings are not taken for these.
    let args = ["baselines", "table4", "--config", s(&file), "--out", s(&out), "--images", "2"];
    refuses(
        args.iter().chain(&["--set", "train.steps=2"]),
        &["fromage-seed-1/result.json", "other settings"],
    );
    refuses(args.iter().chain(&["--set", "train.seed=9"]), &["--set train.seed", "sets the key itself"]);
    let json: serde_json::Value = serde_json::from_str(&again.out).unwrap();
    assert_eq!(json["runs"].as_array().unwrap().len(), 12);

    let keys = "lora_rank = 2";
    let file = config(&bench, "five", "none-448", keys);
    let out = bench.path("five-out");
    let args =
        ["baselines", "table5", "--config", s(&file), "--out", s(&out), "--seeds", "1", "--images", "2"];
    let five = ends(0, args.iter().chain(["--set", "train.steps=1"].iter()));
    for system in ["none-224", "monkey-448", "perceiver-448", "none-448"] {
        assert!(five.out.contains(&format!("| {system} | ")), "{five:#?}");
    }
}

#[test]
fn mistakes_are_named() {
    let bench = Bench::small();
    let file = config(&bench, "run", "llava", "");
    refuses(["train", s(&file), "--set", "model.preset=lava"], &["there is no preset `lava`", "llava"]);
    refuses(["train", s(&file), "--set", "model.config.level=2"], &["level is 2", "only `smallcap`"]);
    let share = "optim.share=[{ params = [\"encodr.*\"], share = 0.5 }]";
    refuses(["train", s(&file), "--set", share], &["optim.share[0]", "encodr"]);
    refuses(
        [
            "eval",
            "scene-text",
            "--data",
            s(&bench.path("data")),
            "--out",
            s(&bench.path("e")),
            "--model",
            s(&top().join("tests/golden_b/fromage")),
        ],
        &["golden_b/fromage", "`ask`, `info` and `verify`"],
    );
    refuses(["train", s(&file), "--set", "model.config.levle=2"], &["levle", "level"]);
    refuses(
        ["train", s(&file), "--set", "optim.share=[{ params = [\"*\"], share = -1 }]"],
        &["optim.share", "needs shares from 0"],
    );
    let pheye = top().join("configs/nano.toml");
    refuses(
        ["baselines", "table4", "--config", s(&pheye), "--out", s(&bench.path("x"))],
        &["must be `baseline`"],
    );
    let golden = top().join("tests/golden_b/fromage");
    refuses(
        ["ask", s(&bench.path("data/0.png")), "This image shows ", "--model", s(&golden)],
        &["tokenizer.json"],
    );
}
