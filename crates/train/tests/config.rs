//! Configs: the errors of faulty ones, and the differences that prevent resuming.

use std::path::{Path, PathBuf};

use pheye_train::{Config, Error, Task};

const GOOD: &str = "\
task = \"pheye\"

[model]
preset = \"nano\"
config = { connector = { level = 2 } }

[data]
train = [\"data/train.zip\"]
augment = [\"hflip\"]

[optim]
lr = 1e-3

[train]
steps = 100
";

fn parse(text: &str) -> Result<Config, Error> {
    Config::parse(text, Path::new("run.toml"), PathBuf::from("configs"))
}

fn fault(from: &str, to: &str) -> String {
    assert!(GOOD.contains(from));
    parse(&GOOD.replace(from, to)).unwrap_err().to_string()
}

#[test]
fn defaults_fill_what_is_absent() {
    let config = parse(GOOD).unwrap();
    assert_eq!(config.task, Task::Pheye);
    assert_eq!(config.resolve(Path::new("data/train.zip")), Path::new("configs/data/train.zip"));
    assert_eq!((config.optim.lr, config.optim.weight_decay, config.train.batch), (1e-3, 0.01, 16));
    assert_eq!(config.optim.schedule().lr(0, 100), 1e-3);
    assert_eq!(config.model.config["connector"]["level"].as_integer(), Some(2));
}

#[test]
fn an_unknown_key_is_named_with_its_table_and_the_nearest() {
    let error = fault("lr = 1e-3", "xyz = 1");
    assert_eq!(
        error,
        "run.toml, line 12: unknown key `xyz` in [optim]; valid are lr, final_lr, schedule, warmup, betas, eps, weight_decay, clip, share"
    );
    let error = fault("lr = 1e-3", "lr = 1\nwarmpu = 3");
    assert_eq!(error, "run.toml, line 13: unknown key `warmpu` in [optim]; did you mean `warmup`?");
    let error = fault("[optim]", "[optimm]");
    assert_eq!(error, "run.toml, line 11: unknown key `optimm`; did you mean `optim`?");
    let error = fault("[model]", "[eval]\nbacth = 3\n[model]");
    assert_eq!(error, "run.toml, line 4: unknown key `bacth` in [eval]; did you mean `batch`?");
}

#[test]
fn faults_of_type_and_range_name_line_and_key() {
    let error = fault("1e-3", "\"fast\"");
    assert_eq!(error, "run.toml, line 12, `optim.lr`: invalid type: string \"fast\", expected f64");
    let error = fault("\"pheye\"", "\"pheyes\"");
    assert!(error.starts_with("run.toml, line 1, `task`: unknown variant `pheyes`"), "{error}");
    assert!(fault("steps = 100", "steps = -1").starts_with("run.toml, line 15, `train.steps`: "));
    assert!(fault("steps = 100", "batch = 0").starts_with("run.toml, line 14, `train.steps`: give either"));
    assert!(
        fault("steps = 100", "steps = 1\nbatch = 0").starts_with("run.toml, line 16, `train.batch`: must")
    );
    assert!(fault("task = \"pheye\"", "").contains("missing field `task`"));
    assert!(fault("lr = 1e-3", "lr = ").starts_with("run.toml, line 12"));
    assert!(fault("1e-3", "-1").contains("lr = -1"));
    assert!(fault("lr = 1e-3", "betas = [0.9, 1.0]").contains("betas = 1"));
}

#[test]
fn a_missing_file_is_named() {
    let error = Config::load("nowhere/run.toml").unwrap_err();
    assert!(matches!(&error, Error::Read { path, .. } if path == Path::new("nowhere/run.toml")));
}

#[test]
fn differences_are_listed_unless_they_change_nothing() {
    let echo = parse(GOOD).unwrap().echo().unwrap();
    let same = parse(&(GOOD.to_string() + "keep = 7\nout = \"elsewhere\"\n[eval]\nbatch = 9\n")).unwrap();
    assert!(same.differences(&echo).unwrap().is_empty());
    let other =
        GOOD.replace("1e-3", "2e-3").replace("level = 2", "level = 3").replace("steps = 100", "epochs = 1.5");
    let differences = parse(&other).unwrap().differences(&echo).unwrap();
    let expected = [
        "model.config.connector.level: 2 → 3",
        "optim.lr: 0.001 → 0.002",
        "train.epochs: absent → 1.5",
        "train.steps: 100 → absent",
    ];
    assert_eq!(differences, expected);
}

#[test]
fn a_model_to_go_on_from_goes_with_no_other() {
    let error = fault("preset = \"nano\"", "preset = \"nano\"\ninit = \"m\"");
    assert!(error.starts_with("run.toml, line 4, `model.preset`: model.init is a whole model"), "{error}");
    for key in ["encoder", "decoder"] {
        let from = "preset = \"nano\"\nconfig = { connector = { level = 2 } }";
        let error = fault(from, &format!("init = \"m\"\n{key} = \"b\""));
        assert!(error.starts_with(&format!("run.toml, line 5, `model.{key}`: model.init")), "{error}");
    }
}

#[test]
fn sizes_beyond_reason_are_named() {
    for (line, key) in [
        ("batch = 1000000000", "train.batch"),
        ("batch = 9223372036854775807", "train.batch"),
        ("batch = 65536\naccumulation = 257", "train.accumulation"),
        ("accumulation = 9223372036854775807", "train.accumulation"),
        ("[eval]\nbatch = 9223372036854775807", "eval.batch"),
    ] {
        let error = parse(&format!("{GOOD}{line}\n")).unwrap_err().to_string();
        assert!(error.contains(&format!("`{key}`: ")) && error.contains("at most"), "{error}");
    }
    for key in ["prefetch", "cache_mib"] {
        let error = fault("augment = ", &format!("{key} = 9223372036854775807\naugment = "));
        assert!(error.starts_with(&format!("run.toml, line 9, `data.{key}`: must be at most")), "{error}");
    }
    for (length, key) in [("steps = 9223372036854775807", "steps"), ("epochs = 1e300", "epochs")] {
        let error = fault("steps = 100", length);
        assert!(error.starts_with(&format!("run.toml, line 15, `train.{key}`: must be at most")), "{error}");
    }
    parse(&format!("{GOOD}batch = 65536\naccumulation = 256\nkeep = 9223372036854775807\n")).unwrap();
}

#[test]
fn what_is_no_config_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let reason = |path: &Path| match Config::load(path) {
        Err(Error::Read { source, .. }) => source.to_string(),
        other => panic!("{other:?}"),
    };
    assert!(reason(dir.path()).contains("a directory"));
    let large = dir.path().join("large.toml");
    std::fs::File::create(&large).unwrap().set_len(3 << 30).unwrap();
    assert!(reason(&large).contains("larger than the limit"));
    if cfg!(unix) {
        assert!(reason(Path::new("/dev/zero")).contains("larger than the limit"));
    }
    std::fs::write(&large, format!("\u{feff}{GOOD}")).unwrap();
    Config::load(&large).unwrap();
}

/// The config of `GOOD` in a file, with values of the command line.
fn set(values: &[&str]) -> Result<Config, Error> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("run.toml"), GOOD).unwrap();
    let values: Vec<_> = values.iter().map(|value| value.parse().unwrap()).collect();
    Config::load_with(dir.path().join("run.toml"), &values)
}

#[test]
fn values_of_the_command_line_replace_those_of_the_file() {
    let values = [
        "optim.lr=1e-4",
        "data.questions=3",
        "optim.schedule=constant",
        "model.config.connector.level=3",
        "train.recompute={ vision = 1 }",
        "train.epochs=2",
    ];
    let config = set(&values).unwrap();
    assert_eq!((config.optim.lr, config.data.questions), (1e-4, Some(3)));
    assert_eq!(config.model.config["connector"]["level"].as_integer(), Some(3));
    assert_eq!(
        (config.train.recompute.vision, config.train.epochs, config.train.steps),
        (1, Some(2.0), None)
    );
    // Recorded as if the file had it, so that a resume compares it.
    assert_eq!(config.echo().unwrap()["optim"]["lr"], 1e-4);
    let differences = parse(GOOD).unwrap().differences(&config.echo().unwrap()).unwrap();
    assert!(differences.contains(&"optim.lr: 0.0001 → 0.001".to_owned()), "{differences:?}");
}

#[test]
fn errors_of_the_command_line_name_the_option() {
    let error = |values: &[&str]| set(values).unwrap_err().to_string();
    assert_eq!(
        error(&["optim.warmpu=1"]),
        "--set optim.warmpu: there is no such key; did you mean `optim.warmup`?"
    );
    let hint = error(&["lr=1"]);
    assert!(hint.contains("`optim.lr`"), "{hint}");
    assert!(error(&["zzz=1"]).ends_with("`pheye train --keys` lists all"));
    assert_eq!(error(&["optim.lr=fast"]), "--set optim.lr: invalid type: string \"fast\", expected f64");
    assert!(error(&["optim.lr=-1"]).starts_with("--set optim.lr, `optim`: "));
    assert_eq!(error(&["train.batch=0"]), "--set train.batch: must be at least 1");
    assert_eq!(error(&["train.steps=1", "train.epochs=1"]), "--set train.steps: give either steps or epochs");
    assert!(error(&["model.preset=nanno"]).starts_with("--set model.preset: there is no preset `nanno`"));
    assert_eq!(
        error(&["model.config.connector.levle=3"]),
        "--set model.config.connector.levle: unknown key `levle` in [model.config.connector]; did you mean `level`?"
    );
    assert!(error(&["task.name=1"]).contains("is not a table"));
    let deep = error(&["train.recompute={ visoin = 1 }"]);
    assert!(deep.starts_with("--set train.recompute: unknown key `visoin`"), "{deep}");
    // An error of the file keeps its line.
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("run.toml");
    std::fs::write(&file, GOOD.replace("1e-3", "\"fast\"")).unwrap();
    let load = |value: &str| Config::load_with(&file, &[value.parse().unwrap()]);
    let error = load("train.batch=4").unwrap_err().to_string();
    assert!(error.contains("run.toml, line 12, `optim.lr`: invalid type"), "{error}");
    load("optim.lr=1").unwrap();
}

#[test]
fn evaluation_needs_questions_to_ask() {
    assert!(fault("[model]", "[eval]\nevery = 5\n[model]").contains("`eval.every`: needs data.test"));
    let error = fault("\"pheye\"", "\"next-token\"\neval = { every = 5 }");
    assert!(error.contains("`eval.every`: needs task = \"pheye\""), "{error}");
    assert!(fault("steps = 100", "steps = 1\nspike = -1").contains("`train.spike`: must be at least 0"));
}

const SOURCES: &str = "
[[data.source]]
format = \"vqav2\"
path = \"q_train2014.json\"
annotations = \"a.json\"

[[data.source]] # the second
format = \"mix665k\"
path = \"mix.json\"
turns = \"all\"
prompt = { append = \"Be brief.\" }
parts = { vqav2 = { weight = 0.5, turns = 1 } }
";

#[test]
fn sources_are_tables() {
    let text = format!("{GOOD}{SOURCES}");
    let config = parse(&text).unwrap();
    assert_eq!(config.data.source.len(), 2);
    assert_eq!(config.data.source[1].turns, Some(pheye_data::Turns::All));
    assert_eq!(config.data.source[1].prompt, Some(pheye_data::Prompt::Append("Be brief.".into())));
    assert_eq!(config.data.source[0].resolved(&config.base).path, Path::new("configs/q_train2014.json"));
    parse(&text.replace("train = [\"data/train.zip\"]\n", "")).unwrap();
    assert!(
        fault("train = [\"data/train.zip\"]", "").contains("`data.train`: needs at least one manifest, or")
    );

    let fault = |from: &str, to: &str| {
        assert!(text.contains(from));
        parse(&text.replacen(from, to, 1)).unwrap_err().to_string()
    };
    let error = fault("annotations = \"a.json\"", "");
    assert!(
        error.starts_with("run.toml, line 17, `data.source[0].annotations`: is needed: this format has two"),
        "{error}"
    );
    let error = fault("turns = \"all\"", "turns = \"all\"\ncount = 0");
    assert!(error.starts_with("run.toml, line 26, `data.source[1].count`: must be at least 1"), "{error}");
    let error = fault("\"all\"", "0");
    assert!(
        error.starts_with("run.toml, line 25, `data.source[1].turns`") || error.contains("turns"),
        "{error}"
    );
    assert!(error.contains("expected an integer from 1 to 65535, or \"all\""), "{error}");
    let error = fault("turns = \"all\"", "turn = 1");
    assert!(error.contains("unknown key `turn`") && error.contains("did you mean `turns`?"), "{error}");
    let error = fault("\"vqav2\"", "\"vqa\"");
    assert!(error.contains("unknown variant `vqa`") && error.contains("`textcaps`"), "{error}");
    let error = fault("vqav2 = {", "vqa = {");
    assert!(error.contains("line 27, `data.source[1].parts`: there is no part `vqa`"), "{error}");
}

#[test]
fn differences_of_sources_are_named() {
    let text = format!("{GOOD}{SOURCES}");
    let echo = parse(&text).unwrap().echo().unwrap();
    let other =
        text.replace("weight = 0.5", "weight = 0.7").replace("augment", "index = \"elsewhere\"\naugment");
    let differences = parse(&other).unwrap().differences(&echo).unwrap();
    assert_eq!(differences, ["data.source[1].parts.vqav2.weight: 0.5 → 0.7"]);
    // A config without sources has no key of theirs, as before there were any.
    assert!(parse(GOOD).unwrap().echo().unwrap()["data"].get("source").is_none());
}
