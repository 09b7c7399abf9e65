//! A model with two blocks over two packed sequences, compared with its formula: the loss and the gradient of every
//! parameter.

use pheye_ops::{Cx, RandomInit};
use pheye_phi::{Config, Layout, Phi};
use pheye_tensor::{Grads, ParamTable, Scope};
use pheye_testkit::plain::{Attention, add, gelu_tanh, layernorm, linear, softmax};
use pheye_testkit::{Formula, Named, Ran, Real, gradcheck, gradients, randomize};

const IDS: [u32; 7] = [3, 1, 4, 1, 0, 2, 4];
const TARGETS: [i64; 7] = [1, -100, 0, 2, -100, 4, 3];
const LENGTHS: [usize; 2] = [3, 4];
const D: usize = 16;
const INNER: usize = 12;

fn config() -> Config {
    let sizes = Config { vocab_size: 5, hidden_size: D, intermediate_size: INNER, ..Config::default() };
    Config { num_hidden_layers: 2, num_attention_heads: 2, max_position_embeddings: 8, ..sizes }
}

/// x [rows, D], with the first half of each head of 8 columns rotated by the row's position.
fn rotate<T: Real>(x: &[T]) -> Vec<T> {
    let mut y = x.to_vec();
    let positions = LENGTHS.iter().flat_map(|&len| 0..len);
    for (row, position) in positions.enumerate() {
        for at in (0..D).step_by(8).map(|head| row * D + head) {
            for i in 0..2 {
                let (sin, cos) = (position as f64 * 10000f64.powf(-(i as f64) / 2.0)).sin_cos();
                let (u, v) = (x[at + i], x[at + i + 2]);
                y[at + i] = u * T::of(cos) - v * T::of(sin);
                y[at + i + 2] = v * T::of(cos) + u * T::of(sin);
            }
        }
    }
    y
}

struct Model {
    names: Vec<&'static str>,
}

fn block<T: Real>(p: &Named<T>, x: Vec<T>) -> Vec<T> {
    let lin = |p: Named<T>, x: &[T], k| linear(x, p.get("weight"), p.get("bias"), k);
    let (norm, attn, mlp) = (p.at("input_layernorm"), p.at("self_attn"), p.at("mlp"));
    let h = layernorm(&x, norm.get("weight"), norm.get("bias"));
    let [q, k, v] = ["q_proj", "k_proj", "v_proj"].map(|name| lin(attn.at(name), &h, D));
    let spans = vec![(0..3, 0..3), (3..7, 3..7)];
    let attention = Attention { spans, heads: 2, scale: 8f64.sqrt().recip(), causal: true };
    let a = lin(attn.at("dense"), &attention.eval(&rotate(&q), &rotate(&k), &v, D), D);
    let u: Vec<T> = lin(mlp.at("fc1"), &h, D).into_iter().map(gelu_tanh).collect();
    add(&add(&a, &lin(mlp.at("fc2"), &u, INNER)), &x)
}

impl Formula for Model {
    fn eval<T: Real>(&self, inputs: &[Vec<T>]) -> Vec<T> {
        let p = Named::new(&self.names, inputs);
        let table = p.get("model.embed_tokens.weight");
        let x: Vec<T> = IDS.iter().flat_map(|&id| table[id as usize * D..][..D].to_vec()).collect();
        let x = (0..2).fold(x, |x, i| block(&p.at("old_decoder_blocks").at(i), x));
        let norm = p.at("model").at("final_layernorm");
        let x = layernorm(&x, norm.get("weight"), norm.get("bias"));
        let logits = linear(&x, p.get("lm_head.weight"), p.get("lm_head.bias"), D);
        let mut loss = T::of(0.0);
        for (row, &target) in logits.chunks(5).zip(&TARGETS).filter(|(_, t)| **t >= 0) {
            loss -= softmax(row)[target as usize].ln();
        }
        vec![loss]
    }
}

#[test]
fn loss_and_gradients_follow_the_formula() {
    let cx = Cx::cpu();
    let mut phi = Phi::new(&mut Scope::new(&mut RandomInit::new(1), ""), &config()).unwrap();
    let inputs = randomize(phi.params_mut(), 5);
    let table = ParamTable::assign(phi.params_mut(), |_| true).unwrap();
    let formula = Model { names: inputs.iter().map(|i| i.0).collect() };
    gradcheck("phi", &formula, &inputs, |_, dy| {
        let (mut grads, layout) = (Grads::new(table), Layout::packed(&LENGTHS));
        let (loss, tokens) = phi.next_token_loss(&cx, &IDS, &TARGETS, &layout, Some(&mut grads)).unwrap();
        assert_eq!(tokens, 5);
        assert_eq!(phi.next_token_loss(&cx, &IDS, &TARGETS, &layout, None).unwrap(), (loss, tokens));
        let mut all = gradients(&grads);
        all.iter_mut().for_each(|(_, g)| g.iter_mut().for_each(|g| *g *= dy[0]));
        Ran { y: vec![loss as f32], grads: all }
    });
}
