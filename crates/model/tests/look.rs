//! Attention maps: the shares add up to 1 and follow the views, wherever their rows are.

mod common;

use common::{VOCAB, config, ids, lively, pixels};
use pheye_ops::Cx;
use pheye_tensor::Tensor;

#[test]
fn shares_follow_the_views() {
    let (config, cx) = (config(), Cx::cpu());
    let model = lively(&config);
    let media = model.encode(&cx, &pixels(&config, 3, 4), 3).unwrap();
    let (tokens, views) = (config.vision.tokens(), 1 + config.connector.local_tiles());
    assert!(views > 2);
    let text = ids(2, 9, VOCAB);
    let look = |media: &Tensor, image: usize| {
        let kvs = model.cross_kv(&cx, media).unwrap();
        model.attention_by_view(&cx, &kvs, image, &text).unwrap()
    };
    let shares = look(&media, 1);
    assert_eq!((shares.len(), shares[0].len()), (text.len(), views));
    for row in &shares {
        assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-5 && row.iter().all(|s| *s > 0.0), "{row:?}");
    }
    assert_ne!(shares, look(&media, 2));

    // Cross-attention does not depend on the order of its keys: if two views are swapped, so are their
    // shares.
    let d = media.shape().cols();
    let mut values = media.to_vec_f32().unwrap();
    let (one, two) = (views * tokens * d + tokens * d, views * tokens * d + 2 * tokens * d);
    for i in 0..tokens * d {
        values.swap(one + i, two + i);
    }
    let exchanged = look(&Tensor::from_f32(media.shape(), &values).unwrap(), 1);
    for (a, b) in shares.iter().zip(&exchanged) {
        let close = |x: f32, y: f32| (x - y).abs() < 1e-5;
        assert!(close(a[1], b[2]) && close(a[2], b[1]) && close(a[0], b[0]), "{a:?} {b:?}");
    }
}

/// Views are sums of image tokens, and means of layers.
#[test]
fn layers_and_tokens_add_up_to_views() {
    let (config, cx) = (config(), Cx::cpu());
    let model = lively(&config);
    let media = model.encode(&cx, &pixels(&config, 1, 4), 1).unwrap();
    let kvs = model.cross_kv(&cx, &media).unwrap();
    let text = ids(2, 5, VOCAB);
    let views = model.attention_by_view(&cx, &kvs, 0, &text).unwrap();
    let tokens = model.attention_by_image_token(&cx, &kvs, 0, &text).unwrap();
    let layers = model.attention_by_layer(&cx, &kvs, 0, &text).unwrap();
    assert_eq!(tokens[0].len(), config.media_tokens());
    for (i, row) in views.iter().enumerate() {
        for (view, share) in row.iter().enumerate() {
            let n = config.vision.tokens();
            let sum: f32 = tokens[i][view * n..][..n].iter().sum();
            let mean: f32 = layers.iter().map(|layer| layer[i][view]).sum::<f32>() / layers.len() as f32;
            assert!((share - sum).abs() < 1e-5 && (share - mean).abs() < 1e-5, "{share} {sum} {mean}");
        }
    }
}
