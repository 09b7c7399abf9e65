//! A tower with two blocks and two LoRA sets, compared with its formula: the last hidden state, or the class token behind
//! `post_layernorm`, and the gradient of every parameter.

use pheye_ops::lora::{Route, RowRange};
use pheye_ops::{Cx, RandomInit};
use pheye_tensor::{Grads, ParamTable, Scope, Tensor};
use pheye_testkit::plain::{Attention, add, gelu_exact, gelu_quick, layernorm, linear};
use pheye_testkit::{Formula, Named, Ran, Real, gradcheck, gradients, normal, randomize};
use pheye_vit::{AdapterSpec, Config, HiddenAct, Vit};

const TILES: usize = 3;
/// Scales at which the adapters contribute about as much as the layers that they adapt.
const ALPHA: [f64; 2] = [1.0, 0.75];

fn config(hidden_act: HiddenAct, num_hidden_layers: usize) -> Config {
    let sizes = Config { hidden_size: 16, intermediate_size: 12, num_hidden_layers, ..Config::default() };
    Config { num_attention_heads: 2, image_size: 4, patch_size: 2, hidden_act, ..sizes }
}

struct Tower {
    config: Config,
    names: Vec<&'static str>,
    /// Whether the output is the class token.
    class: bool,
}

impl Tower {
    /// A LoRA linear: the first tile takes the first adapter, of rank 2, and the others take the second, of rank 3.
    fn lora<T: Real>(&self, p: &Named<T>, x: &[T], k: usize, bias: bool) -> Vec<T> {
        let base = p.at("base_layer");
        let y = linear(x, base.get("weight"), if bias { base.get("bias") } else { &[] }, k);
        let tile = x.len() / TILES;
        let added = [("first", &x[..tile], 2), ("second", &x[tile..], 3)].into_iter().zip(ALPHA).flat_map(
            |((name, x, r), alpha)| {
                let s = linear(x, p.at("lora_A").at(name).get("weight"), &[], k);
                let y = linear(&s, p.at("lora_B").at(name).get("weight"), &[], r);
                y.into_iter().map(|y| y * T::of(alpha / r as f64)).collect::<Vec<T>>()
            },
        );
        add(&y, &added.collect::<Vec<T>>())
    }

    fn block<T: Real>(&self, p: &Named<T>, x: Vec<T>) -> Vec<T> {
        let (d, n) = (self.config.hidden_size, self.config.tokens());
        let norm = |name: &str, x: &[T]| layernorm(x, p.at(name).get("weight"), p.at(name).get("bias"));
        let (h, attn, mlp) = (norm("layer_norm1", &x), p.at("self_attn"), p.at("mlp"));
        let [q, k, v] = ["q_proj", "k_proj", "v_proj"].map(|name| self.lora(&attn.at(name), &h, d, true));
        let spans = (0..TILES).map(|t| (t * n..(t + 1) * n, t * n..(t + 1) * n)).collect();
        let scale = (self.config.head_dim() as f64).sqrt().recip();
        let o = Attention { spans, heads: 2, scale, causal: false }.eval(&q, &k, &v, d);
        let x = add(&x, &self.lora(&attn.at("out_proj"), &o, d, true));
        let act = if self.config.hidden_act == HiddenAct::Gelu { gelu_exact } else { gelu_quick };
        let u = self.lora(&mlp.at("fc1"), &norm("layer_norm2", &x), d, true).into_iter().map(act);
        add(&x, &self.lora(&mlp.at("fc2"), &u.collect::<Vec<T>>(), self.config.intermediate_size, true))
    }
}

impl Formula for Tower {
    fn eval<T: Real>(&self, inputs: &[Vec<T>]) -> Vec<T> {
        let (p, Config { hidden_size: d, image_size: s, patch_size, .. }) =
            (Named::new(&self.names, inputs), self.config.clone());
        let (g, e, pixels) = (s / patch_size, p.at("embeddings"), p.get("pixels"));
        let mut patches = Vec::new();
        for (t, y, x) in (0..TILES).flat_map(|t| (0..g * g).map(move |i| (t, i / g, i % g))) {
            for (c, dy, dx) in
                (0..3).flat_map(|c| (0..patch_size * patch_size).map(move |i| (c, i / 2, i % 2)))
            {
                patches.push(pixels[((t * 3 + c) * s + y * patch_size + dy) * s + x * patch_size + dx]);
            }
        }
        let rows = self.lora(&e.at("patch_embedding"), &patches, 3 * patch_size * patch_size, false);
        let position = e.at("position_embedding").get("weight");
        let tokens =
            rows.chunks(g * g * d).flat_map(|tile| add(&[e.get("class_embedding"), tile].concat(), position));
        let pre = p.at("pre_layrnorm");
        let x = layernorm(&tokens.collect::<Vec<T>>(), pre.get("weight"), pre.get("bias"));
        let layers = 0..self.config.num_hidden_layers;
        let x = layers.fold(x, |x, i| self.block(&p.at("encoder").at("layers").at(i), x));
        if !self.class {
            return x;
        }
        let first: Vec<T> = x.chunks((1 + g * g) * d).flat_map(|tile| &tile[..d]).copied().collect();
        let post = p.at("post_layernorm");
        layernorm(&first, post.get("weight"), post.get("bias"))
    }
}

fn check(act: HiddenAct, blocks: usize, class: bool) {
    let (config, cx) = (config(act, blocks), Cx::cpu());
    let spec =
        |name: &str, rank, alpha: f64| AdapterSpec { name: name.to_owned(), rank, alpha: Some(alpha as f32) };
    let adapters = [Some(spec("first", 2, ALPHA[0])), Some(spec("second", 3, ALPHA[1]))];
    let mut vit = Vit::new(&mut Scope::new(&mut RandomInit::new(1), ""), &config, &adapters).unwrap();
    let mut inputs = randomize(vit.params_mut(), 5);
    // A bias of the keys shifts all scores of a query equally, so its gradient is only rounding error.
    let table = ParamTable::assign(vit.params_mut(), |p| !p.name.contains("k_proj.base_layer.bias")).unwrap();
    inputs.push(("pixels", normal(9, TILES * 3 * 16)));
    let pixels = Tensor::from_f32([TILES, 3, 4, 4], &inputs.last().unwrap().1).unwrap();
    let ranges = [(0..1, 0), (1..TILES, 1)].map(|(rows, i)| RowRange { rows, adapter: Some(i) });
    let route = Route { ranges: ranges.into(), dropout: None };
    let formula = Tower { config, names: inputs.iter().map(|i| i.0).collect(), class };
    gradcheck("vit", &formula, &inputs, |_, dy| {
        let mut grads = Grads::new(table);
        let (y, saved) = vit.forward(&cx, &pixels, &route).unwrap();
        let inferred = vit.infer(&cx, &pixels, &route).unwrap();
        assert_eq!(inferred.f32().unwrap(), y.f32().unwrap());
        if class {
            let (y, class) = vit.class_token(&cx, &y).unwrap();
            let dy = Tensor::from_f32(y.shape(), dy).unwrap();
            let dx = vit.class_token_backward(&cx, &class, &dy, &mut grads).unwrap();
            vit.backward(&cx, saved, dx, &mut grads).unwrap();
            return Ran { y: y.f32().unwrap().to_vec(), grads: gradients(&grads) };
        }
        vit.backward(&cx, saved, Tensor::from_f32(y.shape(), dy).unwrap(), &mut grads).unwrap();
        Ran { y: y.f32().unwrap().to_vec(), grads: gradients(&grads) }
    });
}

#[test]
fn output_and_gradients_follow_the_formula() {
    check(HiddenAct::QuickGelu, 2, false);
    check(HiddenAct::Gelu, 1, false);
    check(HiddenAct::QuickGelu, 1, true);
}
