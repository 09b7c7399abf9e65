//! The features of images by a frozen vision tower, which are computed once for each image of a run.
//!
//! The tower depends on an image alone if nothing of it is trained and images are not augmented. Each image is encoded
//! by itself, so that its features do not depend on the batch in which it is first seen: a resumed run, which begins
//! without features, has the same bits.

use std::collections::HashMap;
use std::sync::Arc;

use pheye_data::Batch;
use pheye_model::Pheye;
use pheye_ops::Cx;
use pheye_tensor::{Device, Tensor};

use crate::{Config, Result};

/// Features by the names of their images.
pub(crate) struct Features {
    kept: HashMap<String, Arc<Vec<f32>>>,
    /// Bytes of `kept`, and the most that they may be.
    bytes: usize,
    limit: usize,
}

impl Features {
    /// No features yet, for a run in which they can be kept: of Pheye on the CPU, with a frozen tower, and without
    /// augmentation. `data.features_mib` = 0 turns them off.
    pub(crate) fn new(config: &Config, model: &Pheye, device: &Device) -> Option<Features> {
        let constant = !model.trains_tower() && config.data.augment.is_empty();
        let limit = config.data.features_mib << 20;
        (constant && limit > 0 && matches!(device, Device::Cpu)).then(|| Features {
            kept: HashMap::new(),
            bytes: 0,
            limit,
        })
    }

    /// The output of the tower for a batch, `[images · (1 + L²), tokens, d]`, the global tiles of all images first.
    pub(crate) fn of(&mut self, cx: &Cx, model: &Pheye, batch: &Batch) -> Result<Tensor> {
        let features =
            batch.images.iter().map(|image| self.image(cx, model, image)).collect::<Result<Vec<_>>>()?;
        let config = model.config();
        let (tokens, d) = (config.vision.tokens(), config.vision.hidden_size);
        let views = batch.images.len() * (1 + config.connector.local_tiles());
        let mut all = Vec::with_capacity(views * tokens * d);
        features.iter().for_each(|image| all.extend_from_slice(&image[..tokens * d]));
        features.iter().for_each(|image| all.extend_from_slice(&image[tokens * d..]));
        Ok(Tensor::from_f32([views, tokens, d], &all)?)
    }

    fn image(&mut self, cx: &Cx, model: &Pheye, image: &pheye_data::Image) -> Result<Arc<Vec<f32>>> {
        if let Some(features) = self.kept.get(&image.name) {
            return Ok(features.clone());
        }
        let tiles = [(&image.tiles.global[..], &image.tiles.local[..])];
        let pixels = pheye_model::stack(model.config().vision.image_size, &tiles)?;
        let features = Arc::new(model.features(cx, &pixels, 1)?.to_vec_f32()?);
        let bytes = self.bytes + size_of_val(&features[..]);
        if bytes <= self.limit {
            self.bytes = bytes;
            self.kept.insert(image.name.clone(), features.clone());
        }
        Ok(features)
    }
}
