//! Builds the loader of the training data from the config.

use std::sync::Arc;

use pheye_data::{Augmentation, Content, Encode, Loader, LoaderOptions, Manifest, Mixture};
use pheye_image::{DecodeOptions, Preprocess};

use crate::{Config, Result, Task};

/// The loader of the training data of `config`, for a network of the configuration `network`.
pub(crate) fn loader(
    config: &Config,
    network: &pheye_model::Config,
    encode: Box<Encode>,
) -> Result<Arc<Loader>> {
    let data = &config.data;
    let content = data.content.unwrap_or(match config.task {
        Task::Pheye => Content::Questions,
        Task::Contrastive => Content::Captions,
        Task::NextToken => Content::Text,
    });
    let manifests =
        data.train.iter().map(|path| Manifest::open(config.resolve(path))).collect::<Result<Vec<_>, _>>()?;
    let weights = (!data.weights.is_empty()).then_some(data.weights.as_slice());
    let mixture = Mixture::new(manifests, weights, content, config.train.seed)?;
    let context = network.text.max_position_embeddings;
    let preprocess = Preprocess::new(network.vision.image_size, network.connector.level);
    let options = LoaderOptions {
        batch: config.train.batch,
        content,
        questions: data.questions,
        augmentation: Augmentation::parse(&data.augment)?,
        max_tokens: data.max_tokens.unwrap_or(context).min(context),
        cache_bytes: data.cache_mib << 20,
        decode: DecodeOptions::default(),
        on_broken: data.on_broken,
    };
    Ok(Arc::new(Loader::new(mixture, preprocess, encode, options)?))
}
