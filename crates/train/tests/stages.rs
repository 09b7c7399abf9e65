//! The configs of the paper's recipe (section 3.1 and Appendix A).

use std::path::{Path, PathBuf};

use pheye_optim::ScheduleKind;
use pheye_train::{Config, OptimConfig, Task};

fn config(name: &str) -> Config {
    Config::load(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs").join(name)).unwrap()
}

#[test]
fn every_stage_of_every_model_follows_the_paper() {
    for model in ["x4-448", "x4-672", "x2-448", "x2-672"] {
        for (stage, lr, sources) in [(1, 2e-4, 1), (2, 1e-4, 4), (3, 5e-5, 4)] {
            let config = config(&format!("stage{stage}-{model}.toml"));
            assert_eq!((config.task, config.train.epochs), (Task::Pheye, Some(1.0)));
            assert_eq!(config.train.batch * config.train.accumulation, 128);
            assert_eq!((config.optim.lr, config.optim.final_lr), (lr, 0.0));
            assert_eq!(config.optim.schedule, ScheduleKind::Cosine);
            assert_eq!(config.train.lora_dropout, 0.05);
            assert!(config.model.frozen_bf16 && config.train.trainable.is_empty());
            assert_eq!(config.data.source.len(), sources);
            match stage {
                1 => assert_eq!(config.model.preset.as_deref(), Some(model)),
                _ => {
                    let before = format!("../runs/stage{}-{model}", stage - 1);
                    assert_eq!(config.model.init.as_deref(), Some(Path::new(&before)));
                }
            }
            assert_eq!(config.train.out, PathBuf::from(format!("../runs/stage{stage}-{model}")));
            // Nothing else is set, so it has the defaults.
            assert_eq!(config.optim, OptimConfig { lr, ..OptimConfig::default() });
        }
    }
}

#[test]
fn values_that_are_no_files_are_listed() {
    let config = config("stage1-x4-672.toml");
    let phi = Path::new("microsoft/phi-1_5");
    let encoder = ("model.encoder", Path::new("apple/DFN5B-CLIP-ViT-H-14"));
    assert_eq!(config.not_found(), [encoder, ("model.decoder", phi), ("model.tokenizer", phi)]);
    assert!(self::config("nano.toml").not_found().is_empty());
}
