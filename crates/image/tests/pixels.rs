//! Resizing, tiles and augmentations compared with their definitions.

use pheye_image::{
    Augment, CLIP_MEAN, CLIP_STD, Error, Preprocess, Rgb8, flip_horizontal, flip_vertical, resize_bicubic,
    rotate, shift,
};
use proptest::prelude::*;

/// An image whose pixel values encode their position.
fn ramp(width: usize, height: usize) -> Rgb8 {
    let pixels =
        (0..height).flat_map(|y| (0..width).flat_map(move |x| [x as u8, y as u8, (x * 7 + y * 3) as u8]));
    Rgb8::new(width, height, pixels.collect()).unwrap()
}

fn at(image: &Rgb8, x: usize, y: usize) -> &[u8] {
    &image.pixels[3 * (y * image.width + x)..][..3]
}

fn small() -> impl Strategy<Value = usize> {
    prop_oneof![Just(1usize), 1usize..5, 1usize..90]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn constant_images_stay_constant(w in small(), h in small(), to_w in small(), to_h in small(), rgb: [u8; 3]) {
        let image = Rgb8::new(w, h, rgb.repeat(w * h)).unwrap();
        let out = resize_bicubic(&image, to_w, to_h);
        prop_assert_eq!(out, Rgb8::new(to_w, to_h, rgb.repeat(to_w * to_h)).unwrap());
    }

    /// The two passes have separate implementations of the same formula.
    #[test]
    fn rows_and_columns_agree(w in small(), h in small(), to in small(), seed: u64) {
        let mut state = seed;
        let mut byte = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        };
        let image = Rgb8::new(w, h, (0..3 * w * h).map(|_| byte()).collect()).unwrap();
        let transpose = |p: &Rgb8| flip_horizontal(&rotate(p, 1));
        let by_rows = resize_bicubic(&image, to, h);
        let by_columns = transpose(&resize_bicubic(&transpose(&image), h, to));
        prop_assert_eq!(by_rows, by_columns);
    }

    #[test]
    fn turns_and_flips_undo(w in small(), h in small(), turns in 0u8..8) {
        let image = ramp(w, h);
        prop_assert_eq!(&rotate(&rotate(&image, turns), 8 - turns), &image);
        prop_assert_eq!(&flip_horizontal(&flip_horizontal(&image)), &image);
        prop_assert_eq!(&flip_vertical(&rotate(&flip_horizontal(&image), 2)), &image);
    }
}

#[test]
fn threads_do_not_change_the_result() {
    let image = ramp(700, 500);
    let alone = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let many = rayon::ThreadPoolBuilder::new().num_threads(5).build().unwrap();
    let resize = || resize_bicubic(&image, 333, 222);
    assert_eq!(alone.install(resize), many.install(resize));
}

/// Processing the rows in bands gives the same result as two separate passes.
#[test]
fn bands_do_not_show() {
    for (w, h, to_w, to_h) in
        [(40, 5000, 300, 7), (3, 6000, 500, 1), (300, 900, 900, 1100), (2, 9000, 90, 8999)]
    {
        let image = ramp(w, h);
        let apart = resize_bicubic(&resize_bicubic(&image, to_w, h), to_w, to_h);
        assert_eq!(resize_bicubic(&image, to_w, to_h), apart, "{w}x{h} to {to_w}x{to_h}");
    }
}

#[test]
fn tiles_run_down_the_columns() {
    // A 4×4 image at s = 2, level 2: the tiles need no resampling.
    let image = ramp(4, 4);
    let views = Preprocess::new(2, 2).views(&image);
    assert_eq!(views.len(), 5);
    assert_eq!(views[0], resize_bicubic(&image, 2, 2));
    let corners: Vec<&[u8]> = views[1..].iter().map(|view| &at(view, 0, 0)[..2]).collect();
    assert_eq!(corners, [[0, 0], [0, 2], [2, 0], [2, 2]]);
}

#[test]
fn pixels_are_planar_and_normalised() {
    let image = ramp(4, 4);
    let preprocess = Preprocess::new(2, 2);
    let tiles = preprocess.pixels(&image);
    assert_eq!((tiles.size, tiles.count, tiles.global.len(), tiles.local.len()), (2, 4, 12, 48));
    for (i, view) in preprocess.views(&image)[1..].iter().enumerate() {
        for (c, x, y) in (0..3).flat_map(|c| (0..4).map(move |i| (c, i % 2, i / 2))) {
            let want = (f32::from(at(view, x, y)[c]) / 255.0 - CLIP_MEAN[c]) / CLIP_STD[c];
            assert_eq!(tiles.local[((i * 3 + c) * 2 + y) * 2 + x], want);
        }
    }
    let global_only = Preprocess::new(2, 1).pixels(&image);
    assert_eq!((global_only.count, global_only.local.len()), (0, 0));
    assert_eq!(global_only.global, tiles.global);
}

#[test]
fn augmentations_move_pixels_as_said() {
    let image = ramp(5, 3);
    assert_eq!(at(&flip_horizontal(&image), 0, 1), at(&image, 4, 1));
    assert_eq!(at(&flip_vertical(&image), 2, 0), at(&image, 2, 2));
    let turned = rotate(&image, 1);
    assert_eq!((turned.width, turned.height), (3, 5));
    assert_eq!(at(&turned, 2, 0), at(&image, 0, 0), "clockwise: the top left corner goes to the top right");
    let moved = shift(&image, 2, -1);
    assert_eq!(at(&moved, 4, 0), at(&image, 2, 1));
    assert_eq!(at(&moved, 0, 2), at(&image, 0, 2), "edges repeat");
    assert_eq!(at(&shift(&image, isize::MIN, isize::MAX), 0, 0), at(&image, 4, 0));

    assert_eq!(Augment::default().apply(&image), image);
    let augment = Augment { flip_horizontal: true, turns: 1, dx: 1, ..Augment::default() };
    let by_hand = shift(&rotate(&flip_horizontal(&image), 1), 1, 0);
    assert_eq!(augment.apply(&image), by_hand);
    let preprocess = Preprocess::new(4, 2);
    assert_eq!(preprocess.augmented(&image, &augment), preprocess.pixels(&by_hand));
}

#[test]
fn sides_and_bytes_must_fit() {
    assert!(matches!(Rgb8::new(2, 2, vec![0; 11]), Err(Error::Shape { bytes: 11, .. })));
    assert!(Rgb8::new(0, 2, vec![]).is_err());
    assert!(Rgb8::new(usize::MAX, 2, vec![]).is_err());
}
