//! Which parameters get gradients, how far backward runs for them, and that neither affects other gradients.

mod common;

use common::{batch, config, lively, names, of, relative, values};
use pheye_model::{Batch, Config, Error, Loss, Pheye, Recompute, StepShape};
use pheye_ops::Cx;
use pheye_ops::lora::Dropout;
use pheye_tensor::{Grads, Tensor};

fn run(model: &mut Pheye, batch: &Batch, choose: impl FnMut(&str) -> bool) -> (Loss, Grads) {
    let mut grads = Grads::new(model.train(choose).unwrap());
    let loss = model.loss_and_grads(&Cx::cpu(), batch, None, &mut grads).unwrap();
    (loss, grads)
}

#[test]
fn patterns_choose_what_is_trained() {
    let config = config();
    let mut model = lively(&config);
    let batch = batch(&config, &[7, 4]);
    let (loss, all) = run(&mut model, &batch, |_| true);
    let unused = |name: &str| name.contains("norm_lvl_3") || name.contains("post_layernorm");
    let trainable = model.params_mut().iter().filter(|p| !unused(&p.name)).count();
    assert_eq!(all.table.entries().len(), trainable);
    for (name, _) in all.table.entries() {
        assert!(of(&all, name).iter().any(|g| *g != 0.0), "{name} gets no gradient");
    }
    // The gradient of a parameter does not depend on which others are trained, and frozen parameters have
    // none.
    let patterns: [fn(&str) -> bool; 8] = [
        Pheye::is_pheye_param,
        |n| !Pheye::is_pheye_param(n),
        |n| n.contains(".lora_A.first"),
        |n| n.contains("cross_attn_layers.3."),
        |n| n.contains("old_decoder_blocks.2.") && n.ends_with("bias"),
        |n| n.contains("embed_tokens"),
        |n| n.contains("lm_head") || n.contains("norm_lvl_2"),
        |n| n.contains("encoder.layers.0."),
    ];
    for choose in patterns {
        let (same, some) = run(&mut model, &batch, choose);
        assert_eq!(same, loss);
        let expected: Vec<&str> = names(&all.table).into_iter().filter(|n| choose(n)).collect();
        assert_eq!(names(&some.table), expected);
        for name in expected {
            assert_eq!(of(&some, name), of(&all, name), "{name}");
        }
        for p in model.params_mut() {
            assert_eq!(some.table.range(p).is_some(), p.is_trained());
        }
    }
    assert_eq!(model.loss(&Cx::cpu(), &batch).unwrap(), loss);
    let (_, none) = run(&mut model, &batch, |_| false);
    assert!(none.table.is_empty());
}

#[test]
fn at_level_1_the_norm_of_tiles_stays() {
    let mut config = config();
    config.connector.level = 1;
    let mut model = lively(&config);
    let (_, grads) =
        run(&mut model, &batch(&config, &[5]), |n| n.contains("norm_lvl_") || n.contains(".lora_"));
    assert!(names(&grads.table).iter().all(|n| !n.contains("norm_lvl_2") && !n.contains("second")));
    for (name, _) in grads.table.entries() {
        assert!(of(&grads, name).iter().any(|g| *g != 0.0), "{name} gets no gradient");
    }
}

#[test]
fn a_trained_tower_needs_every_cross_attention_block() {
    // Gradients reach the tower through frozen blocks as well: with both blocks frozen, or only the first.
    let config = config();
    let mut model = lively(&config);
    let batch = batch(&config, &[7]);
    let norm = |n: &str| n.contains("norm_lvl_1");
    let (_, both) = run(&mut model, &batch, norm);
    let only_last = run(&mut model, &batch, |n| norm(n) || n.contains("cross_attn_layers.3.")).1;
    assert_eq!(
        of(&both, "vision_encoder.norm_lvl_1.weight"),
        of(&only_last, "vision_encoder.norm_lvl_1.weight")
    );
}

/// Peak bytes of the arena during a step with this number of decoder layers and one cross-attention block,
/// before the last.
fn peak(layers: usize, choose: impl FnMut(&str) -> bool) -> usize {
    let mut config = config();
    config.text.num_hidden_layers = layers;
    (config.connector.cross_interval, config.connector.from_layer) = (1, layers - 1);
    let (mut model, cx) = (lively(&config), Cx::cpu());
    let mut grads = Grads::new(model.train(choose).unwrap());
    model.loss_and_grads(&cx, &batch(&config, &[30; 8]), None, &mut grads).unwrap();
    assert_eq!(cx.arena.stats().in_use, 0);
    cx.arena.stats().peak
}

#[test]
fn layers_below_the_first_cross_attention_save_nothing() {
    assert_eq!(peak(2, Pheye::is_pheye_param), peak(7, Pheye::is_pheye_param));
    // If backward must reach the embedding, each layer adds what it saves.
    let embedding = |n: &str| Pheye::is_pheye_param(n) || n.contains("embed_tokens");
    assert!(peak(7, embedding) > peak(2, embedding) + 5 * (8 * 30 * 64 * 4) * 4);
}

#[test]
fn several_questions_about_one_image_equal_one_each() {
    let config = config();
    let mut model = lively(&config);
    let apart = batch(&config, &[7, 12, 5]);
    let tile = |t: usize| {
        let x = values(&apart.pixels);
        let len = x.len() / 15;
        x[t * len..(t + 1) * len].to_vec()
    };
    // Questions 0 and 1 are about image 0, question 2 is about image 1; global tiles come first.
    let stacked = |tiles: &[usize]| {
        let x: Vec<f32> = tiles.iter().flat_map(|&t| tile(t)).collect();
        Tensor::from_f32([tiles.len(), 3, 8, 8], &x).unwrap()
    };
    let shared = Batch {
        pixels: stacked(&[0, 1, 3, 4, 5, 6, 7, 8, 9, 10]),
        images: 2,
        image: vec![0, 0, 1],
        ..apart.clone()
    };
    let apart = Batch { pixels: stacked(&[0, 0, 1, 3, 4, 5, 6, 3, 4, 5, 6, 7, 8, 9, 10]), ..apart };
    let (loss, grads) = run(&mut model, &shared, |_| true);
    let (loss1, grads1) = run(&mut model, &apart, |_| true);
    assert_eq!(loss.tokens, loss1.tokens);
    assert!((loss.sum / loss1.sum - 1.0).abs() < 1e-6);
    for (name, _) in grads.table.entries().iter().filter(|(n, _)| !n.contains("k_proj.base_layer.bias")) {
        // Only the order of summation differs.
        let off = relative(of(&grads, name), of(&grads1, name));
        assert!(off < 1e-5, "{name}: {off}");
    }
}

#[test]
fn micro_batches_add_up() {
    let config = config();
    let mut model = lively(&config);
    let whole = batch(&config, &[7, 12]);
    let (loss, grads) = run(&mut model, &whole, Pheye::is_pheye_param);
    let mut sum = Grads::new(grads.table.clone());
    let mut total = Loss::default();
    for i in 0..2 {
        let tiles: Vec<usize> = std::iter::once(i).chain(2 + 4 * i..6 + 4 * i).collect();
        let x = values(&whole.pixels);
        let pixels: Vec<f32> = tiles.iter().flat_map(|t| x[t * 192..(t + 1) * 192].to_vec()).collect();
        let at = [0..7, 7..19][i].clone();
        let part = Batch {
            pixels: Tensor::from_f32([5, 3, 8, 8], &pixels).unwrap(),
            images: 1,
            ids: whole.ids[at.clone()].to_vec(),
            targets: whole.targets[at.clone()].to_vec(),
            lengths: vec![at.len()],
            image: vec![0],
        };
        let loss = model.loss_and_grads(&Cx::cpu(), &part, None, &mut sum).unwrap();
        (total.sum, total.tokens) = (total.sum + loss.sum, total.tokens + loss.tokens);
    }
    assert_eq!(total.tokens, loss.tokens);
    assert!((total.sum / loss.sum - 1.0).abs() < 1e-6);
    let all = |g: &Grads| values(&g.flat);
    assert!(relative(&all(&sum), &all(&grads)) < 1e-5);
}

#[test]
fn a_warm_step_allocates_nothing() {
    let config = config();
    let (mut model, cx) = (lively(&config), Cx::cpu());
    let mut grads = Grads::new(model.train(Pheye::is_pheye_param).unwrap());
    let batch = batch(&config, &[7, 12, 5]);
    let mut step = |rng_offset| {
        let dropout = Some(Dropout { p: 0.05, seed: 1, rng_offset });
        model.loss_and_grads(&cx, &batch, dropout, &mut grads).unwrap();
        cx.arena.stats()
    };
    let first = step(0);
    assert!(first.allocations > 0 && first.in_use == 0);
    for rng_offset in 1..4 {
        assert_eq!(step(rng_offset), first);
    }
}

#[test]
fn the_number_of_threads_does_not_show() {
    let config = Config::preset("nano").unwrap();
    let batch = batch(&config, &[40, 17, 90]);
    let on = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let (loss, grads) = run(&mut lively(&config), &batch, |_| true);
            (loss.sum.to_bits(), values(&grads.flat).into_iter().map(f32::to_bits).collect::<Vec<_>>())
        })
    };
    assert!(on(1) == on(3));
}

/// A part of a message, and the change that causes the message.
type Fault = (&'static str, fn(&mut Batch));

#[test]
fn batches_that_do_not_fit_are_refused() {
    let config = config();
    let mut model = lively(&config);
    let mut grads = Grads::new(model.train(Pheye::is_pheye_param).unwrap());
    let faults: [Fault; 8] = [
        ("tokens of all sequences: 8 given, 9 needed", |b| b.ids.truncate(8)),
        ("targets: 10 given, 9 needed", |b| b.targets.push(1)),
        ("images named by sequences: 1 given, 2 needed", |b| b.image = vec![0]),
        ("images [1, 0]", |b| b.image = vec![1, 0]),
        ("stay below 2", |b| b.image = vec![0, 2]),
        ("tiles of all images: 10 given, 15 needed", |b| b.images = 3),
        ("images: 0 given", |b| b.images = 0),
        ("target", |b| b.targets[3] = 23),
    ];
    for (message, spoil) in faults {
        let mut batch = batch(&config, &[5, 4]);
        spoil(&mut batch);
        let errors = [
            model.loss(&Cx::cpu(), &batch).unwrap_err(),
            model.loss_and_grads(&Cx::cpu(), &batch, None, &mut grads).unwrap_err(),
        ];
        assert!(errors.iter().all(|e: &Error| e.to_string().contains(message)), "{errors:?}");
    }
}

#[test]
fn recomputed_layers_give_the_same_bits_in_less_memory() {
    let config = config();
    let mut model = lively(&config);
    let batch = batch(&config, &[30; 4]);
    let dropout = Some(Dropout { p: 0.1, seed: 5, rng_offset: 3 });
    let mut step = |recompute| {
        model.set_recompute(recompute);
        let (cx, table) = (Cx::cpu(), model.train(Pheye::is_pheye_param).unwrap());
        let mut grads = Grads::new(table);
        let loss = model.loss_and_grads(&cx, &batch, dropout, &mut grads).unwrap();
        (loss, grads.flat.f32().unwrap().to_vec(), cx.arena.stats().peak)
    };
    let (loss, grads, most) = step(Recompute::default());
    for recompute in [
        Recompute { vision: 1, text: 0 },
        Recompute { vision: 0, text: 2 },
        Recompute { vision: usize::MAX, text: usize::MAX },
    ] {
        let (same, again, peak) = step(recompute);
        assert_eq!(same, loss);
        assert!(again == grads, "{recompute:?}");
        assert!(peak < most, "{recompute:?}: {peak} of {most}");
    }
}

#[test]
fn memory_is_estimated_to_a_fifth() {
    // Wide enough that the rounding of buffer sizes hardly matters.
    let mut config = Config::preset("nano").unwrap();
    config.connector.reduce = 2;
    let mut model = lively(&config);
    for (lengths, recompute) in [
        (vec![40; 6], Recompute::default()),
        (vec![100; 2], Recompute::default()),
        (vec![40; 6], Recompute { vision: 3, text: 0 }),
        (vec![40; 6], Recompute { vision: 1, text: 3 }),
    ] {
        let batch = batch(&config, &lengths);
        model.set_recompute(recompute);
        let cx = Cx::cpu();
        let mut grads = Grads::new(model.train(Pheye::is_pheye_param).unwrap());
        model.loss_and_grads(&cx, &batch, None, &mut grads).unwrap();
        let measured = cx.arena.stats().peak as f64;
        let load = StepShape { images: batch.images, tokens: batch.ids.len(), recompute, element: 4 };
        let estimate = config.activations(load) as f64;
        let ratio = estimate / measured;
        assert!((0.8..1.2).contains(&ratio), "{lengths:?} {recompute:?}: {estimate} for {measured}");
    }
}

#[test]
fn settings_that_fit_are_found_when_memory_is_short() {
    let config = Config::preset("x4-672").unwrap();
    let load = StepShape { images: 16, tokens: 16 * 128, recompute: Recompute::default(), element: 2 };
    let whole = config.memory(load).unwrap();
    assert!(config.fitting(load, whole.total()).unwrap()[0].ends_with("{ vision = 0, text = 0 }"));
    let some = config.fitting(load, 24 << 30).unwrap();
    assert!(!some.is_empty() && !some[0].ends_with("{ vision = 0, text = 0 }"), "{some:?}");
    assert!(config.fitting(load, 1 << 30).unwrap().is_empty());
}
