//! Tests beam search against exhaustive search, and each rule separately.

use super::*;

const END: u32 = 2;
const VOCAB: usize = 3;

fn how(num_beams: usize, length_penalty: f64, early_stopping: EarlyStopping) -> GenerationConfig {
    let eos_token_id = vec![END];
    GenerationConfig { num_beams, length_penalty, early_stopping, eos_token_id, ..Default::default() }
}

/// Log-probabilities of the next token, uneven but reproducible for each text.
fn next(seed: u64, text: &[u32]) -> Vec<f32> {
    let mix = |h: u64, v: u64| (h ^ v).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29);
    let hash = text.iter().fold(mix(seed, 77), |h, &id| mix(h, u64::from(id) + 1));
    let mut x: Vec<f32> = (0..VOCAB as u64).map(|i| (mix(hash, i + 9) >> 40) as f32 / 4e6).collect();
    log_softmax(&mut x);
    x
}

/// Runs a complete search; each slot records the tokens that its cache would hold. Returns the answers and
/// the number of steps.
fn search(
    limit: usize,
    how: &GenerationConfig,
    next: impl Fn(&[u32]) -> Vec<f32>,
    ends: impl Fn(&[u32]) -> bool,
) -> (Vec<Vec<u32>>, usize) {
    let (first, mut steps) = (5, 0);
    let mut slots: Vec<Vec<u32>> = vec![Vec::new(); first + how.num_beams];
    let mut search = Search::new(first..first + how.num_beams, limit);
    while !search.beams.is_empty() {
        let scores: Vec<_> = search.beams.iter().map(|b| next(&b.ids)).collect();
        let moves = search.advance(&scores, how, &mut |ids| ends(ids));
        let before = slots.clone();
        for m in &moves {
            assert!(moves.iter().all(|other| other.to != m.from), "{moves:?}");
            slots[m.to].clone_from(&before[m.from]);
        }
        for b in &search.beams {
            let (last, past) = b.ids.split_last().unwrap();
            assert_eq!(slots[b.slot], past, "the past is in the slot");
            // If two beams shared a slot, the second would find this token in it.
            slots[b.slot].push(*last);
        }
        steps += 1;
    }
    (search.results(how.num_return_sequences), steps)
}

/// All complete answers, best first.
fn exhaustive(seed: u64, limit: usize, length_penalty: f64) -> Vec<Vec<u32>> {
    let (mut open, mut done) = (vec![(Vec::new(), 0.0f32)], Vec::new());
    while let Some((text, sum)) = open.pop() {
        let text: Vec<u32> = text;
        if text.len() == limit || text.last() == Some(&END) {
            done.push((f64::from(sum) / (text.len() as f64).powf(length_penalty), text));
            continue;
        }
        for (id, s) in next(seed, &text).into_iter().enumerate() {
            open.push(([&text[..], &[id as u32]].concat(), sum + s));
        }
    }
    done.sort_by(|a, b| b.0.total_cmp(&a.0));
    done.into_iter().map(|(_, text)| text).collect()
}

#[test]
fn wide_beams_find_what_exhaustive_search_finds() {
    for seed in 0..20 {
        for length_penalty in [-1.0, 0.0, 0.5, 1.0, 2.0] {
            for early in [EarlyStopping::False, EarlyStopping::Never] {
                // More beams than there are answers of up to four tokens: 1 + 2 + 4 + 8·3.
                let mut how = how(40, length_penalty, early);
                how.num_return_sequences = 6;
                let (found, _) = search(4, &how, |text| next(seed, text), |_| false);
                assert_eq!(found, exhaustive(seed, 4, length_penalty)[..6], "{seed} {how:?}");
            }
        }
    }
}

/// Token 0 is likely at first but leads to unlikely texts; token 1 is less likely but followed by near
/// certainty.
fn trap(text: &[u32]) -> Vec<f32> {
    let p: [f32; 3] = match text {
        [] => [0.6, 0.4, 0.0],
        [0, ..] => [0.4, 0.3, 0.3],
        [1] => [0.05, 0.9, 0.05],
        _ => [0.02, 0.02, 0.96],
    };
    p.map(f32::ln).to_vec()
}

#[test]
fn two_beams_pass_the_trap_of_greedy_search() {
    let greedy = [0, 0, 0];
    let (found, _) = search(3, &how(2, 1.0, EarlyStopping::False), trap, |_| false);
    assert_eq!(found, [[1, 1, END]]);
    let (one, _) = search(3, &how(1, 1.0, EarlyStopping::False), trap, |_| false);
    assert_eq!(one, [greedy]);
}

#[test]
fn early_stopping_decides_how_long_is_searched() {
    // The answer ends at once with probability 0.3; otherwise it tends to continue up to the limit.
    let tail = |text: &[u32]| match text {
        [] => [0.7f32, 0.0, 0.3].map(f32::ln).to_vec(),
        _ => [0.9f32, 0.04, 0.06].map(f32::ln).to_vec(),
    };
    let steps = |length_penalty, early| search(9, &how(2, length_penalty, early), tail, |_| false);
    let (_, at_once) = steps(1.0, EarlyStopping::True);
    let (best, heuristic) = steps(1.0, EarlyStopping::False);
    let (never, thorough) = steps(1.0, EarlyStopping::Never);
    // After two steps there are two finished answers: END, and 0 followed by END.
    assert_eq!(at_once, 2);
    assert_eq!((heuristic, thorough), (9, 9));
    assert_eq!((best[0].len(), never[0].len()), (9, 9));
    // Without a length penalty only sums count: 0.7·0.9⁸ is just above 0.3, so the search had to run to the
    // end.
    let (found, steps) = steps(0.0, EarlyStopping::Never);
    assert_eq!(found, [vec![0; 9]]);
    assert_eq!(steps, 9);
}

#[test]
fn a_text_that_ends_an_answer_does_so_for_many_tokens() {
    // Every text of two tokens is complete, so no beam remains.
    let (found, steps) =
        search(6, &how(3, 1.0, EarlyStopping::False), |text| next(4, text), |ids| ids.len() == 2);
    assert_eq!(steps, 2);
    assert!(found[0].len() <= 2, "{found:?}");
    // Almost every text of two tokens is complete, so that there are fewer beams for a step.
    let ends = |ids: &[u32]| ids.len() == 2 && ids != [0, 1];
    let (_, steps) = search(6, &how(3, 1.0, EarlyStopping::Never), |text| next(5, text), ends);
    assert!(steps >= 2);
}

#[test]
fn slots_move_only_where_they_must() {
    let beam = |slot| Beam { ids: Vec::new(), score: 0.0, slot };
    let mut next = [2, 0, 2, 2].map(beam);
    let moves = settle(&mut next, 0..4);
    assert_eq!(moves, [Move { from: 2, to: 3 }, Move { from: 2, to: 1 }]);
    assert_eq!(next.map(|b| b.slot), [2, 0, 3, 1]);
    assert_eq!(settle(&mut [3, 1, 0].map(beam), 0..4), []);
}

#[test]
fn scores_that_are_not_numbers_are_never_chosen() {
    let broken = |_: &[u32]| vec![f32::NAN; VOCAB];
    let (found, steps) = search(5, &how(2, 1.0, EarlyStopping::False), broken, |_| false);
    assert_eq!((found, steps), (vec![Vec::<u32>::new()], 1));
}
