//! The configuration of a whole model, presets, and parameter counts.

use pheye_tensor::{Scope, Shape, Shapes};
use pheye_text::PromptTemplate;
use pheye_vit::AdapterSpec;
use serde::{Deserialize, Serialize};

use crate::{Error, Pheye, Result};

/// Rank and scale of one LoRA set.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoraSpec {
    /// Rank r; overridden by the shapes of a checkpoint's tensors.
    pub rank: usize,
    /// α; 2r if omitted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alpha: Option<f32>,
}

impl Default for LoraSpec {
    fn default() -> LoraSpec {
        LoraSpec { rank: 8, alpha: None }
    }
}

/// Everything that determines the shapes of a Pheye model, and its prompt template.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The vision tower.
    pub vision: pheye_vit::Config,
    /// The language model.
    pub text: pheye_phi::Config,
    /// How they are joined.
    pub connector: pheye_xattn::Config,
    /// LoRA set of the global image; used when `connector.first_level` is true.
    pub lora_global: LoraSpec,
    /// LoRA set of the tiles; used from level 2 on.
    pub lora_local: LoraSpec,
    /// How a question becomes a prompt.
    pub prompt: PromptTemplate,
}

/// Names of the presets: nano, and the released sizes, with cross-attention before every second or fourth
/// decoder layer and images of 224, 448 or 672 pixels.
pub const PRESETS: [&str; 7] = ["nano", "x2-224", "x2-448", "x2-672", "x4-224", "x4-448", "x4-672"];

impl Config {
    /// The preset with this name, one of [`PRESETS`]. `x<interval>-<pixels>` uses ViT-H-14 and Phi-1.5, with
    /// both LoRA sets at rank 8 as in the paper.
    pub fn preset(name: &str) -> Option<Config> {
        if name == "nano" {
            return Some(Config::nano());
        }
        let (interval, pixels) = name.strip_prefix('x')?.split_once('-')?;
        let level = ["224", "448", "672"].iter().position(|p| *p == pixels)? + 1;
        let cross_interval = ["2", "4"].iter().find(|i| **i == interval)?.parse().ok()?;
        let connector = pheye_xattn::Config { level, cross_interval, ..Default::default() };
        Some(Config { vision: pheye_vit::Config::h14(), connector, ..Config::default() })
    }

    /// A model with half a million parameters that has every part of the large ones: images of 64×64 pixels
    /// as one global and four local tiles, both LoRA sets, and a cross-attention block before every decoder
    /// layer.
    fn nano() -> Config {
        let vision = pheye_vit::Config {
            hidden_size: 64,
            intermediate_size: 256,
            num_hidden_layers: 3,
            num_attention_heads: 4,
            image_size: 32,
            patch_size: 8,
            ..Default::default()
        };
        let text = pheye_phi::Config {
            vocab_size: 345,
            hidden_size: 64,
            intermediate_size: 256,
            num_hidden_layers: 3,
            num_attention_heads: 4,
            max_position_embeddings: 128,
            ..Default::default()
        };
        let connector = pheye_xattn::Config { level: 2, cross_interval: 1, ..Default::default() };
        let prompt = PromptTemplate {
            system: String::new(),
            template: "Q: {instruction}\nA:".to_owned(),
            ..Default::default()
        };
        Config { vision, text, connector, prompt, ..Config::default() }
    }

    /// Number of decoder layers that have a cross-attention block before them.
    pub fn cross_blocks(&self) -> usize {
        (0..self.text.num_hidden_layers).filter(|&i| self.connector.has_block(i)).count()
    }

    /// Image tokens per image, over the global and all local tiles.
    pub fn media_tokens(&self) -> usize {
        self.vision.tokens() * (1 + self.connector.local_tiles())
    }

    /// The LoRA sets of the global image and of the tiles.
    pub fn adapters(&self) -> [Option<AdapterSpec>; 2] {
        let spec =
            |name: &str, s: LoraSpec| AdapterSpec { name: name.to_owned(), rank: s.rank, alpha: s.alpha };
        [
            self.connector.first_level.then(|| spec("first", self.lora_global)),
            (self.connector.level > 1).then(|| spec("second", self.lora_local)),
        ]
    }

    /// Checks that the sizes are within their limits and consistent, so that nothing computed from them
    /// overflows.
    ///
    /// # Errors
    /// When an option is invalid; the error names the first one.
    pub fn validate(&self) -> Result<()> {
        self.vision.validate()?;
        self.text.validate()?;
        self.connector.validate(self.text.hidden_size, self.vision.hidden_size)?;
        if self.cross_blocks() == 0 {
            return Err(Error::NoBlock {
                cross_interval: self.connector.cross_interval,
                from_layer: self.connector.from_layer,
                layers: self.text.num_hidden_layers,
            });
        }
        for (rank, alpha, lora) in [
            ("lora_global.rank", "lora_global.alpha", self.lora_global),
            ("lora_local.rank", "lora_local.alpha", self.lora_local),
        ] {
            let fault = |option, value, rule| Err(Error::Lora { option, value, rule });
            if !(1..=AdapterSpec::MOST).contains(&lora.rank) {
                return fault(rank, lora.rank.to_string(), "it must be positive, and at most 65536");
            }
            if let Some(a) = lora.alpha.filter(|a| !a.is_finite()) {
                return fault(alpha, a.to_string(), "it must be a finite number");
            }
        }
        Ok(())
    }

    /// Parameter counts by part, computed without building the model.
    ///
    /// # Errors
    /// When the configuration is invalid.
    pub fn counts(&self) -> Result<Counts> {
        self.counts_of(|_| true)
    }

    /// Whether the network has the parameter of this name but never applies it: norms of levels that it does not have, and
    /// the tower's `post_layernorm`.
    pub fn is_unused(&self, name: &str) -> bool {
        let norm = |n: &str| name.contains(n);
        let local = self.connector.local_tiles() > 0;
        norm("norm_lvl_3.") || norm(".post_layernorm.") || (!local && norm("norm_lvl_2."))
    }

    /// Counts by part of the parameters whose names `counted` accepts, computed without building the model.
    ///
    /// # Errors
    /// When the configuration is invalid.
    pub fn counts_of(&self, counted: impl Fn(&str) -> bool) -> Result<Counts> {
        let mut c = Counts::default();
        let mut count = Shapes(|name: &str, shape: Shape| {
            let part = match name {
                _ if name.contains(".lora_") => &mut c.lora,
                _ if name.starts_with("vision_encoder.vision_model.") => &mut c.vision,
                _ if name.starts_with("vision_encoder.") => &mut c.connector,
                _ if name.contains("cross_attn_layers.") => &mut c.cross_attention,
                _ => &mut c.text,
            };
            *part += if counted(name) { shape.elements() as u64 } else { 0 };
        });
        Pheye::build(self, &mut Scope::new(&mut count, ""))?;
        Ok(c)
    }
}

/// Number of parameters by part.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// The frozen vision tower.
    pub vision: u64,
    /// Both LoRA sets.
    pub lora: u64,
    /// Norms and tile embeddings of the connector.
    pub connector: u64,
    /// The cross-attention blocks.
    pub cross_attention: u64,
    /// The frozen language model.
    pub text: u64,
}

impl Counts {
    /// Parameters that Pheye trains: LoRA, connector, cross-attention.
    pub fn trained(&self) -> u64 {
        self.lora + self.connector + self.cross_attention
    }

    /// Parameters that stay frozen.
    pub fn frozen(&self) -> u64 {
        self.vision + self.text
    }

    /// All parameters.
    pub fn all(&self) -> u64 {
        self.trained() + self.frozen()
    }
}
