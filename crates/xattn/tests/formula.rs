//! Cross-attention block and connector, compared with their formulas: outputs, and the gradients of all parameters and
//! inputs.

use pheye_ops::attention::Span;
use pheye_ops::{Cx, RandomInit};
use pheye_tensor::{DType, Grads, ParamTable, Scope, Tensor};
use pheye_testkit::plain::{Attention, add, gelu_exact, layernorm, linear};
use pheye_testkit::{Formula, Named, Ran, Real, gradcheck, gradients, normal, randomize};
use pheye_xattn::{Block, Config, Connector};

fn tensor(shape: [usize; 2], values: &[f32]) -> Tensor {
    Tensor::from_f32(shape, values).unwrap()
}

fn values(t: &Tensor) -> Vec<f32> {
    t.f32().unwrap().to_vec()
}

const TEXT: usize = 8;
const VISION: usize = 128;
/// 128 / 8, in two heads of 8.
const INNER: usize = 16;
/// Rows of text, and the rows of media that they attend to.
const SPANS: [(std::ops::Range<usize>, std::ops::Range<usize>); 2] = [(0..4, 0..3), (4..5, 3..6)];

struct CrossAttention {
    names: Vec<&'static str>,
}

impl Formula for CrossAttention {
    fn eval<T: Real>(&self, inputs: &[Vec<T>]) -> Vec<T> {
        let p = Named::new(&self.names, inputs);
        let lin = |p: Named<T>, x: &[T], k| linear(x, p.get("weight"), p.get("bias"), k);
        let norm = |p: Named<T>, x: &[T]| layernorm(x, p.get("weight"), p.get("bias"));
        let (attn, ff, x) = (p.at("attn"), p.at("ff"), p.get("x"));
        let q = lin(attn.at("to_q"), &norm(attn.at("norm"), x), TEXT);
        let kv = lin(attn.at("to_kv"), p.get("media"), VISION);
        let half = |at| kv.chunks(2 * INNER).flat_map(|row| row[at..at + INNER].to_vec()).collect::<Vec<T>>();
        let attention = Attention { spans: SPANS.to_vec(), heads: 2, scale: 0.125, causal: false };
        let o = attention.eval(&q, &half(0), &half(INNER), INNER);
        let x = add(x, &lin(attn.at("to_out"), &o, INNER));
        let u = lin(ff.at("fc1"), &norm(ff.at("norm"), &x), TEXT).into_iter().map(gelu_exact);
        add(&x, &lin(ff.at("fc2"), &u.collect::<Vec<T>>(), 4 * TEXT / 8))
    }
}

#[test]
fn a_block_follows_its_formula() {
    let (cx, config) = (Cx::cpu(), Config { reduce: 8, ..Config::default() });
    config.validate(TEXT, VISION).unwrap();
    let mut random = RandomInit::new(1);
    let mut block = Block::new(&mut Scope::new(&mut random, ""), &config, TEXT, VISION, 2);
    let mut inputs = randomize(block.params_mut(), 5);
    inputs.extend([("x", normal(6, 5 * TEXT)), ("media", normal(7, 6 * VISION))]);
    let formula = CrossAttention { names: inputs.iter().map(|i| i.0).collect() };
    let table = ParamTable::assign(block.params_mut(), |_| true).unwrap();
    let spans = SPANS.map(|(q, k)| Span { q, k });
    gradcheck("cross-attention", &formula, &inputs, |all, dy| {
        let [.., x, media] = all else { unreachable!() };
        let (x, media) = (tensor([5, TEXT], x), tensor([6, VISION], media));
        let mut grads = Grads::new(table);
        let (kv, kv_saved) = block.attn.kv(&cx, &media).unwrap();
        let (y, saved) = block.forward(&cx, &x, &kv, &spans).unwrap();
        let (dx, dkv) = block.backward(&cx, &saved, tensor([5, TEXT], dy), &spans, &mut grads).unwrap();
        let mut alone = Grads::new(grads.table.clone());
        block.attn.kv_backward_params(&cx, &kv_saved, &dkv, &mut alone).unwrap();
        let dmedia = block.attn.kv_backward(&cx, &kv_saved, &dkv, &mut grads).unwrap();
        let (all, alone) = (gradients(&grads), gradients(&alone));
        assert!(all.iter().zip(&alone).filter(|(a, _)| a.0.contains("to_kv")).all(|(a, b)| a == b));
        let mut grads = all;
        grads.extend([("x", values(&dx)), ("media", values(&dmedia))]);
        Ran { y: values(&y), grads }
    });
}

const D: usize = 8;
const TOKENS: usize = 3;
const IMAGES: usize = 2;

struct Join {
    names: Vec<&'static str>,
    local: usize,
}

impl Formula for Join {
    fn eval<T: Real>(&self, inputs: &[Vec<T>]) -> Vec<T> {
        let p = Named::new(&self.names, inputs);
        let (x, table) = (p.get("x"), p.get("connector.embedding.weight"));
        let (tile, mut media) = (TOKENS * D, Vec::new());
        for (image, j) in (0..IMAGES).flat_map(|b| (0..1 + self.local).map(move |j| (b, j))) {
            // In x, the global views of all images come first.
            let at = if j == 0 { image } else { IMAGES + image * self.local + j - 1 };
            let norm = p.at(if j == 0 { "norm_lvl_1" } else { "norm_lvl_2" });
            let y = layernorm(&x[at * tile..][..tile], norm.get("weight"), norm.get("bias"));
            let e = [&table[j * D..][..D]; TOKENS].concat();
            media.extend(add(&y, &e));
        }
        media
    }
}

#[test]
fn the_connector_follows_its_formula() {
    for level in [1, 2] {
        let (cx, config) = (Cx::cpu(), Config { level, ..Config::default() });
        let mut connector = Connector::new(&mut Scope::new(&mut RandomInit::new(1), ""), &config, D);
        let mut inputs = randomize(connector.params_mut(), 5);
        let tiles = IMAGES * (1 + config.local_tiles());
        inputs.push(("x", normal(6, tiles * TOKENS * D)));
        let formula = Join { names: inputs.iter().map(|i| i.0).collect(), local: config.local_tiles() };
        let table = ParamTable::assign(connector.params_mut(), |_| true).unwrap();
        gradcheck("connector", &formula, &inputs, |all, dy| {
            let x = Tensor::from_f32([tiles, TOKENS, D], &all[all.len() - 1]).unwrap();
            let mut grads = Grads::new(table);
            let (media, saved) = connector.forward(&cx, &x, IMAGES).unwrap();
            let dmedia = Tensor::from_f32(media.shape(), dy).unwrap();
            let dx = connector.backward(&cx, &saved, &dmedia, &mut grads).unwrap();
            let mut grads = gradients(&grads);
            grads.push(("x", values(&dx)));
            Ran { y: values(&media), grads }
        });
    }
}

#[test]
fn a_number_of_images_that_does_not_fit_is_an_error() {
    let (cx, config) = (Cx::cpu(), Config { level: 2, ..Config::default() });
    let connector = Connector::new(&mut Scope::new(&mut RandomInit::new(1), ""), &config, D);
    let x = Tensor::zeros([5 * TOKENS, D], DType::F32);
    for images in [0, 2] {
        let error = connector.forward(&cx, &x, images).unwrap_err().to_string();
        assert!(error.contains("connector: images"), "{error}");
    }
    connector.forward(&cx, &x, 1).unwrap();
}
