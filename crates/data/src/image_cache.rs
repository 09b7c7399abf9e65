//! The cache of decoded images.

use std::collections::HashMap;

use pheye_image::Rgb8;

/// Bytes of an allocation. An allocation of this size takes pages of its own, of which those without pixels are
/// never touched. If each image had its own allocation, the temporaries of decoders between them would leave
/// holes as large as the images.
const SLAB: usize = 4 << 20;

/// Decoded images, up to a number of bytes; images that come later are not kept.
pub(crate) struct ImageCache {
    places: HashMap<u32, Place>,
    slabs: Vec<Vec<u8>>,
    bytes: usize,
    limit: usize,
}

#[derive(Clone, Copy)]
struct Place {
    slab: usize,
    start: usize,
    width: usize,
    height: usize,
}

impl ImageCache {
    /// An empty cache that keeps at most `limit` bytes of pixels.
    pub(crate) fn new(limit: usize) -> ImageCache {
        ImageCache { places: HashMap::new(), slabs: Vec::new(), bytes: 0, limit }
    }

    /// A copy of image `id`.
    pub(crate) fn get(&self, id: u32) -> Option<Rgb8> {
        let Place { slab, start, width, height } = *self.places.get(&id)?;
        let pixels = self.slabs[slab][start..][..width * height * 3].to_vec();
        Some(Rgb8 { width, height, pixels })
    }

    /// Keeps a copy of `image` if there is room for it.
    pub(crate) fn insert(&mut self, id: u32, image: &Rgb8) {
        let length = image.pixels.len();
        if self.bytes + length > self.limit || self.places.contains_key(&id) {
            return;
        }
        if self.slabs.last().is_none_or(|slab| slab.capacity() - slab.len() < length) {
            self.slabs.push(Vec::with_capacity(SLAB.min(self.limit).max(length)));
        }
        let last = self.slabs.len() - 1;
        let slab = &mut self.slabs[last];
        let place = Place { slab: last, start: slab.len(), width: image.width, height: image.height };
        slab.extend_from_slice(&image.pixels);
        self.places.insert(id, place);
        self.bytes += length;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(width: usize, value: u8) -> Rgb8 {
        Rgb8 { width, height: 2, pixels: vec![value; width * 6] }
    }

    #[test]
    fn images_come_back_until_the_limit() {
        let mut cache = ImageCache::new(100);
        assert_eq!(cache.get(3), None);
        cache.insert(3, &image(4, 1));
        cache.insert(4, &image(9, 2));
        // The first of an id stays.
        cache.insert(3, &image(2, 3));
        // 24 + 54 bytes are taken; 24 more are over the limit, 18 more are not.
        cache.insert(5, &image(4, 4));
        cache.insert(6, &image(3, 5));
        assert_eq!(cache.get(3), Some(image(4, 1)));
        assert_eq!(cache.get(4), Some(image(9, 2)));
        assert_eq!(cache.get(5), None);
        assert_eq!(cache.get(6), Some(image(3, 5)));
    }

    #[test]
    fn an_image_larger_than_a_slab_has_its_own() {
        let large = Rgb8 { width: SLAB, height: 1, pixels: vec![7; 3 * SLAB] };
        let mut cache = ImageCache::new(usize::MAX);
        cache.insert(0, &image(5, 1));
        cache.insert(1, &large);
        cache.insert(2, &image(5, 2));
        assert_eq!(cache.get(1), Some(large));
        assert_eq!((cache.get(0), cache.get(2)), (Some(image(5, 1)), Some(image(5, 2))));
    }
}
