//! The configuration of a system, the ten presets, and parameter counts.

use pheye_tensor::{Scope, Shape, Shapes};
use pheye_text::PromptTemplate;
use pheye_vit::AdapterSpec;
use serde::{Deserialize, Serialize};

use crate::{Baseline, Error, Result};

/// How GPT-2 reads the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum System {
    /// The class token, through a linear layer, as one row before the text (arXiv 2301.13823).
    Fromage,
    /// All tokens, through a linear layer, as rows before the text (arXiv 2304.08485).
    Llava,
    /// Cross-attention to the tokens in every layer, between self-attention and MLP (arXiv 2209.15323).
    Smallcap,
}

/// Everything that determines the shapes of a system and what is trained. The option names are those of `config.json`,
/// where `vision` and `text` are `vision_config` and `text_config`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// How GPT-2 reads the image.
    pub system: System,
    /// Whether the vision tower is trained.
    #[serde(default)]
    pub train_vit: bool,
    /// Whether the linear layer before the language model and the linears of cross-attention have a bias.
    #[serde(default = "yes")]
    pub bias: bool,
    /// 1 uses only the global image; L also uses L×L tiles. Above 1 for `smallcap` alone.
    #[serde(default = "one")]
    pub level: usize,
    /// Rank of the LoRA sets of the tower: one for the global image, and from level 2 on one for the tiles. 0: no LoRA.
    /// Positive for `smallcap` alone.
    #[serde(default)]
    pub lora_rank: usize,
    /// α of the LoRA sets.
    #[serde(default = "sixteen")]
    pub lora_alpha: f32,
    /// The resampler of the tokens, for `smallcap` alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resampler: Option<pheye_resample::Config>,
    /// The vision tower; CLIP-ViT-B/32 if omitted.
    #[serde(default)]
    pub vision: pheye_vit::Config,
    /// The language model; the smallest published GPT-2 if omitted.
    #[serde(default)]
    pub text: pheye_gpt2::Config,
    /// How an instruction becomes a prompt; if omitted, the prompt is the instruction alone.
    #[serde(default = "instruction")]
    pub prompt: PromptTemplate,
}

/// The prompt that is the instruction alone, after which the answer follows without a space.
fn instruction() -> PromptTemplate {
    let (system, answer_prefix) = (String::new(), String::new());
    PromptTemplate { system, template: "{instruction}".to_owned(), answer_prefix }
}

fn yes() -> bool {
    true
}

fn one() -> usize {
    1
}

fn sixteen() -> f32 {
    16.0
}

/// One of the ten published systems.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Preset {
    /// Its name.
    pub name: &'static str,
    /// Trained parameters as the paper prints them.
    pub paper: &'static str,
    /// Why the paper's number differs from the count, or how the number was rounded.
    pub why: &'static str,
}

/// The systems of Tables 4 and 5, in the order of the paper, with the trained parameters that it prints.
pub const PRESETS: [Preset; 10] = [
    Preset { name: "fromage", paper: "590K", why: "cut off, not rounded; 589,824 without a bias" },
    Preset { name: "fromage-trained-vit", paper: "88M", why: "" },
    Preset { name: "llava", paper: "590K", why: "cut off, not rounded; 589,824 without a bias" },
    Preset { name: "llava-trained-vit", paper: "88M", why: "" },
    Preset { name: "smallcap", paper: "28M", why: "" },
    Preset { name: "smallcap-trained-vit", paper: "116M", why: "" },
    Preset { name: "none-224", paper: "241M", why: "" },
    Preset {
        name: "monkey-448",
        paper: "248M",
        why: "the published module has 0.4 % more; no rounding fits both this number and that of none-448",
    },
    Preset {
        name: "perceiver-448",
        paper: "317M",
        why: "9 million more than 6 layers of 8 heads of 64; 14 heads of 64 without biases would give 317.1M, and \
              317 may be a misprint of 307",
    },
    Preset { name: "none-448", paper: "244M", why: "cut off, not rounded" },
];

impl Config {
    /// A system with the default sizes: CLIP-ViT-B/32 and the smallest published GPT-2.
    pub fn new(system: System) -> Config {
        Config {
            system,
            train_vit: false,
            bias: true,
            level: 1,
            lora_rank: 0,
            lora_alpha: 16.0,
            resampler: None,
            vision: pheye_vit::Config::default(),
            text: pheye_gpt2::Config::default(),
            prompt: instruction(),
        }
    }

    /// Cross-attention on CLIP-ViT-L/14 with LoRA, and GPT-2 large.
    fn large(level: usize, resampler: Option<pheye_resample::Config>) -> Config {
        let vision = pheye_vit::Config {
            hidden_size: 1024,
            intermediate_size: 4096,
            num_hidden_layers: 24,
            num_attention_heads: 16,
            patch_size: 14,
            ..Default::default()
        };
        let text = pheye_gpt2::Config { n_embd: 1280, n_layer: 36, n_head: 20, ..Default::default() };
        Config { level, lora_rank: 8, resampler, vision, text, ..Config::new(System::Smallcap) }
    }

    /// The preset with this name, one of [`PRESETS`].
    pub fn preset(name: &str) -> Option<Config> {
        use pheye_resample::Config::{Monkey, Perceiver};
        let (system, train_vit) = match name.strip_suffix("-trained-vit") {
            Some(system) => (system, true),
            None => (name, false),
        };
        let base = |system| Some(Config { train_vit, ..Config::new(system) });
        match (system, train_vit) {
            ("fromage", _) => base(System::Fromage),
            ("llava", _) => base(System::Llava),
            ("smallcap", _) => base(System::Smallcap),
            ("none-224", false) => Some(Config::large(1, None)),
            ("monkey-448", false) => Some(Config::large(2, Some(Monkey(Default::default())))),
            ("perceiver-448", false) => Some(Config::large(2, Some(Perceiver(Default::default())))),
            ("none-448", false) => Some(Config::large(2, None)),
            _ => None,
        }
    }

    /// This configuration with the resampler's sizes in the proportions of the published systems, whose tower is 1024
    /// wide: as many queries as a tile has tokens, and 8 heads, those of a Perceiver half as wide as the tower together.
    /// For a preset on a smaller tower.
    pub fn with_sizes_of_tower(mut self) -> Config {
        use pheye_resample::Config::{Monkey, Perceiver};
        let (width, tokens) = (self.vision.hidden_size, self.vision.tokens());
        // Each head needs a multiple of 8.
        let heads = |wide: usize| (1..=8).rev().find(|heads| wide.is_multiple_of(8 * heads)).unwrap_or(1);
        match &mut self.resampler {
            None => {}
            Some(Monkey(c)) => (c.queries, c.heads) = (tokens, heads(width)),
            Some(Perceiver(c)) => {
                c.queries = tokens;
                c.heads = heads(width / 2);
                c.head_dim = (width / 2 / c.heads).next_multiple_of(8).max(8);
            }
        }
        self
    }

    /// Number of local tiles of an image: L² from level 2 on, otherwise 0.
    pub fn local_tiles(&self) -> usize {
        if self.level > 1 { self.level * self.level } else { 0 }
    }

    /// Number of rows of an image that the language model reads.
    pub fn media_tokens(&self) -> usize {
        match (self.system, &self.resampler) {
            (System::Fromage, _) => 1,
            (_, Some(resampler)) => resampler.queries(),
            _ => self.vision.tokens() * (1 + self.local_tiles()),
        }
    }

    /// Number of rows of an image before the text.
    pub fn prefix(&self) -> usize {
        if self.system == System::Smallcap { 0 } else { self.media_tokens() }
    }

    /// Maximum number of tokens of a text about an image.
    pub fn context(&self) -> usize {
        self.text.n_positions.saturating_sub(self.prefix())
    }

    /// The LoRA sets of the global image and of the tiles.
    pub fn adapters(&self) -> [Option<AdapterSpec>; 2] {
        let set = |name: &str| AdapterSpec {
            name: name.to_owned(),
            rank: self.lora_rank,
            alpha: Some(self.lora_alpha),
        };
        let has = self.lora_rank > 0;
        [has.then(|| set("first")), (has && self.level > 1).then(|| set("second"))]
    }

    /// Whether the system trains the parameter of this name: the connector, cross-attention, LoRA, and with
    /// [`Config::train_vit`] the tower, whose `post_layernorm` only `fromage` applies.
    pub fn trains(&self, name: &str) -> bool {
        let part = |part: &str| name.contains(part);
        if part(".lora_") || part(".crossattention.") || part(".ln_cross_attn.") {
            return true;
        }
        if name.starts_with("encoder.") {
            return self.train_vit && (self.system == System::Fromage || !part(".post_layernorm."));
        }
        !name.starts_with("decoder.")
    }

    /// The share of the learning rate that the parameter of this name has: a tenth for the tower itself, as in the paper,
    /// all of it for LoRA and everything else.
    pub fn share(&self, name: &str) -> f64 {
        if name.starts_with("encoder.") && !name.contains(".lora_") { 0.1 } else { 1.0 }
    }

    /// Checks that the sizes are within their limits and consistent with each other.
    ///
    /// # Errors
    /// When an option is invalid; the error names the first one.
    pub fn validate(&self) -> Result<()> {
        self.vision.validate()?;
        self.text.validate()?;
        let fault =
            |option, value: String, rule: &str| Err(Error::Option { option, value, rule: rule.into() });
        if !(1..=4).contains(&self.level) {
            return fault("level", self.level.to_string(), "it must be 1 to 4");
        }
        if self.lora_rank > AdapterSpec::MOST {
            return fault("lora_rank", self.lora_rank.to_string(), "it must be at most 65536");
        }
        if !self.lora_alpha.is_finite() {
            return fault("lora_alpha", self.lora_alpha.to_string(), "it must be a finite number");
        }
        if self.system != System::Smallcap {
            for (option, value, off) in [
                ("level", self.level, self.level == 1),
                ("lora_rank", self.lora_rank, self.lora_rank == 0),
                ("resampler.queries", self.media_tokens(), self.resampler.is_none()),
            ] {
                if !off {
                    return fault(
                        option,
                        value.to_string(),
                        "only `smallcap` has tiles, LoRA and a resampler",
                    );
                }
            }
            if self.context() == 0 {
                let rule = format!("an image alone takes {} rows", self.media_tokens());
                return fault("n_positions", self.text.n_positions.to_string(), &rule);
            }
        }
        if let Some(resampler) = &self.resampler {
            resampler.validate(self.vision.hidden_size, self.vision.tokens())?;
        }
        Ok(())
    }

    /// Parameter counts by part, computed without building the system.
    ///
    /// # Errors
    /// When the configuration is invalid.
    pub fn counts(&self) -> Result<Counts> {
        let mut c = Counts::default();
        let mut count = Shapes(|name: &str, shape: Shape| {
            let n = shape.elements() as u64;
            let part = match name {
                _ if name.contains(".lora_") => &mut c.lora,
                _ if name.starts_with("encoder.") => &mut c.vision,
                _ if name.contains("cross") => &mut c.cross_attention,
                _ if name.starts_with("decoder.") => &mut c.text,
                _ => &mut c.connector,
            };
            *part += n;
            c.trained += if self.trains(name) { n } else { 0 };
        });
        Baseline::build(self, &mut Scope::new(&mut count, ""))?;
        Ok(c)
    }
}

/// Number of parameters by part.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// The vision tower.
    pub vision: u64,
    /// The LoRA sets.
    pub lora: u64,
    /// Tile positions, resampler and linear layer.
    pub connector: u64,
    /// Cross-attention with its norms.
    pub cross_attention: u64,
    /// The language model.
    pub text: u64,
    /// The parameters that the system trains.
    pub trained: u64,
}

impl Counts {
    /// All parameters.
    pub fn all(&self) -> u64 {
        self.vision + self.lora + self.connector + self.cross_attention + self.text
    }
}
