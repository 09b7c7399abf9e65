//! Accuracies of short answers: VQAv2, TextVQA, OK-VQA, A-OKVQA and GQA.
//!
//! They differ in how an answer is normalised and in how many people must have given it:
//!
//! | metric | normalisation | score of a question |
//! |---|---|---|
//! | VQAv2 | [`normalise`], only if the ten answers differ | mean over the answers of min(1, matches among the others / 3) |
//! | TextVQA, OK-VQA | [`normalise_textvqa`] | the same mean |
//! | A-OKVQA, direct answers | none | min(1, matches / 3); difficult questions are left out |
//! | A-OKVQA, multiple choice | none | 1 if it is the correct choice |
//! | GQA | lower case, without a full stop at the end | 1 if it is the answer |

mod accuracy;
mod normalise;
mod tables;
mod totals;

pub use accuracy::{aokvqa_choice, aokvqa_direct, gqa, textvqa, vqa_v2};
pub use normalise::{normalise, normalise_textvqa};
pub use totals::{Scored, Totals};
