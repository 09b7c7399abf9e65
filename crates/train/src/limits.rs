//! The ranges of a config's values, and which keys go together.

use pheye_data::Prefetch;

use crate::{Backbone, Config, Language, Task};

/// Upper limit of `train.batch` and `eval.batch`, more samples than fit into memory with any model.
const BATCH: usize = 1 << 16;
/// Upper limit of the samples per optimizer step.
const STEP_SAMPLES: usize = 1 << 24;
/// Upper limits of steps and epochs, so that the sample counter does not overflow 64 bits.
const STEPS: u64 = 1_000_000_000_000;
const EPOCHS: f64 = 1e9;
/// Upper limit of `data.cache_mib` and `data.features_mib` (16 TiB), so that its bytes can be counted.
const CACHE_MIB: usize = 1 << 24;

impl Config {
    /// The key of the first value that is out of range, and the reason.
    pub(crate) fn fault(&self) -> Option<(&'static str, String)> {
        let (data, train) = (&self.data, &self.train);
        let m = &self.model;
        let alone = |given: bool| m.init.is_none() || !given;
        let init = "model.init is a whole model and does not go with this key; leave one of them out";
        let gpt2 = "does not go with model.language = \"gpt2\", which starts from random weights in the sizes of \
                    model.config";
        let checks = [
            ("model.preset", alone(m.preset.is_some()), init),
            ("model.encoder", alone(m.encoder.is_some()), init),
            ("model.decoder", alone(m.decoder.is_some()), init),
            ("model.random", alone(!m.random.is_empty()), init),
            (
                "model.random",
                m.random.is_empty() || matches!(self.task, Task::Pheye | Task::Baseline),
                "is for task = \"pheye\" or \"baseline\"; the other tasks train a backbone from random weights anyway",
            ),
            (
                "model.random",
                !(m.random.contains(&Backbone::Encoder) && m.encoder.is_some()),
                "names the encoder, which model.encoder gives too; leave one of them out",
            ),
            (
                "model.random",
                !(m.random.contains(&Backbone::Decoder) && m.decoder.is_some()),
                "names the decoder, which model.decoder gives too; leave one of them out",
            ),
            (
                "model.language",
                m.language == Language::Phi || self.task == Task::NextToken,
                "is for task = \"next-token\"",
            ),
            ("model.preset", m.language == Language::Phi || m.preset.is_none(), gpt2),
            ("model.init", m.language == Language::Phi || m.init.is_none(), gpt2),
            ("model.encoder", m.language == Language::Phi || m.encoder.is_none(), gpt2),
            ("model.decoder", m.language == Language::Phi || m.decoder.is_none(), gpt2),
            (
                "data.train",
                !data.train.is_empty() || !data.source.is_empty(),
                "needs at least one manifest, or a [[data.source]]",
            ),
            (
                "data.weights",
                data.weights.is_empty() || data.weights.len() == data.train.len(),
                "needs one weight for each manifest of data.train",
            ),
            ("data.weights", data.weights.iter().all(|w| w.is_finite() && *w > 0.0), "must be above 0"),
            ("data.questions", data.questions != Some(0), "must be at least 1"),
            ("data.max_tokens", data.max_tokens != Some(0), "must be at least 1"),
            ("data.cache_mib", data.cache_mib <= CACHE_MIB, "must be at most 16777216 (16 TiB)"),
            ("data.features_mib", data.features_mib <= CACHE_MIB, "must be at most 16777216 (16 TiB)"),
            ("data.prefetch", data.prefetch <= Prefetch::MOST, "must be at most 1024"),
            ("train.steps", train.steps.is_some() != train.epochs.is_some(), "give either steps or epochs"),
            ("train.steps", train.steps != Some(0), "must be at least 1"),
            ("train.steps", train.steps.is_none_or(|n| n <= STEPS), "must be at most 1000000000000"),
            ("train.epochs", train.epochs.is_none_or(|e| e.is_finite() && e > 0.0), "must be above 0"),
            ("train.epochs", train.epochs.is_none_or(|e| e <= EPOCHS), "must be at most 1000000000"),
            ("train.batch", train.batch > 0, "must be at least 1"),
            ("train.batch", train.batch <= BATCH, "must be at most 65536"),
            ("train.accumulation", train.accumulation > 0, "must be at least 1"),
            (
                "train.accumulation",
                train.batch.checked_mul(train.accumulation).is_some_and(|samples| samples <= STEP_SAMPLES),
                "times train.batch must be at most 16777216",
            ),
            ("eval.batch", self.eval.batch != Some(0), "must be at least 1"),
            ("eval.batch", self.eval.batch.is_none_or(|n| n <= BATCH), "must be at most 65536"),
            ("train.lora_dropout", (0.0..1.0).contains(&train.lora_dropout), "must be from 0 to below 1"),
            ("train.keep", train.keep > 0, "must be at least 1"),
            ("train.spike", train.spike.is_finite() && train.spike >= 0.0, "must be at least 0"),
            ("eval.every", self.eval.every == 0 || self.task == Task::Pheye, "needs task = \"pheye\""),
            ("eval.every", self.eval.every == 0 || !data.test.is_empty(), "needs data.test"),
            ("eval.questions", self.eval.questions != Some(0), "must be at least 1"),
            (
                "optim.share",
                self.optim.share.iter().all(|group| group.share.is_finite() && group.share >= 0.0),
                "needs shares from 0",
            ),
            ("optim.clip", self.optim.clip.is_none_or(|c| c > 0.0), "must be above 0"),
        ];
        if let Some((key, _, message)) = checks.into_iter().find(|(_, ok, _)| !ok) {
            return Some((key, message.to_string()));
        }
        let optim = self.optim.schedule().check().and_then(|()| self.optim.adamw().check());
        optim.err().map(|e| ("optim", e.to_string()))
    }
}
