//! The outputs of a frozen vision tower, computed once for each image of a run.
//!
//! The tower depends on an image alone if nothing of it is trained and images are not augmented. Each image is encoded
//! by itself, so that its features do not depend on the batch in which it is first seen: a resumed run, which begins
//! without features, has the same bits.

use std::collections::HashMap;
use std::sync::Arc;

use pheye_data::Batch;
use pheye_ops::Cx;
use pheye_tensor::{Device, Tensor};

use crate::learner::Learner;
use crate::{Config, Result};

/// Features by the names of their images.
pub(crate) struct Features {
    kept: HashMap<String, Arc<Vec<f32>>>,
    /// Bytes of `kept`, and the most that they may be.
    bytes: usize,
    limit: usize,
}

impl Features {
    /// No features yet, for a run in which they can be kept: on the CPU, with a frozen tower, and without
    /// augmentation. `data.features_mib` = 0 turns them off.
    pub(crate) fn new(config: &Config, learner: &Learner, device: &Device) -> Option<Features> {
        let constant = learner.has_frozen_tower() && config.data.augment.is_empty();
        let limit = config.data.features_mib << 20;
        (constant && limit > 0 && matches!(device, Device::Cpu)).then(|| Features {
            kept: HashMap::new(),
            bytes: 0,
            limit,
        })
    }

    /// The output of the tower for a batch, `[images · (1 + L²), tokens, d]`, the global tiles of all images first.
    pub(crate) fn of(&mut self, cx: &Cx, learner: &Learner, batch: &Batch) -> Result<Tensor> {
        let features =
            batch.images.iter().map(|image| self.image(cx, learner, image)).collect::<Result<Vec<_>>>()?;
        let (vision, tiles) = learner.tower();
        let (tokens, d) = (vision.tokens(), vision.hidden_size);
        let views = batch.images.len() * (1 + tiles);
        let mut all = Vec::with_capacity(views * tokens * d);
        features.iter().for_each(|image| all.extend_from_slice(&image[..tokens * d]));
        features.iter().for_each(|image| all.extend_from_slice(&image[tokens * d..]));
        Ok(Tensor::from_f32([views, tokens, d], &all)?)
    }

    fn image(&mut self, cx: &Cx, learner: &Learner, image: &pheye_data::Image) -> Result<Arc<Vec<f32>>> {
        if let Some(features) = self.kept.get(&image.name) {
            return Ok(features.clone());
        }
        let tiles = [(&image.tiles.global[..], &image.tiles.local[..])];
        let pixels = pheye_model::stack(learner.tower().0.image_size, &tiles)?;
        let features = Arc::new(learner.features(cx, &pixels)?.to_vec_f32()?);
        let bytes = self.bytes + size_of_val(&features[..]);
        if bytes <= self.limit {
            self.bytes = bytes;
            self.kept.insert(image.name.clone(), features.clone());
        }
        Ok(features)
    }
}
