//! What the authors of Pheye publish about their models and others, in the README of <https://github.com/miguelscarv/pheye>.
//! Accuracies are percentages; NoCaps and TextCaps are CIDEr times 100.

/// A published model with its scores.
pub(crate) struct Row {
    pub(crate) model: &'static str,
    /// Side of the input in pixels.
    pub(crate) resolution: u32,
    /// Trained parameters.
    pub(crate) trained: &'static str,
    vqav2: f64,
    nocaps: Option<f64>,
    textvqa: f64,
    textcaps: Option<f64>,
}

/// The rows, in the order of the publication.
pub(crate) const ROWS: [Row; 8] = [
    row("MoE-LLaVA-1.6B×4", 336, "2.9B", 76.0, None, 47.8, None),
    row("MoE-LLaVA-2.7B×4", 336, "5.3B", 77.1, None, 50.2, None),
    row("moondream1", 384, "1.86B", 74.7, None, 35.6, None),
    row("moondream2", 384, "1.86B", 77.7, Some(92.2), 49.7, Some(113.9)),
    row("Pheye-x4", 448, "295M", 75.2, Some(110.1), 45.9, Some(107.5)),
    row("Pheye-x4", 672, "295M", 75.5, Some(110.5), 49.3, Some(112.8)),
    row("Pheye-x2", 448, "578M", 75.9, Some(111.4), 47.3, Some(109.7)),
    row("Pheye-x2", 672, "578M", 76.4, Some(110.0), 50.5, Some(116.1)),
];

const fn row(
    model: &'static str,
    resolution: u32,
    trained: &'static str,
    vqav2: f64,
    nocaps: Option<f64>,
    textvqa: f64,
    textcaps: Option<f64>,
) -> Row {
    Row { model, resolution, trained, vqav2, nocaps, textvqa, textcaps }
}

impl Row {
    /// The published score on a benchmark by its title, and the name of the score.
    pub(crate) fn score(&self, benchmark: &str) -> Option<(&'static str, f64)> {
        match benchmark {
            "VQAv2" => Some(("accuracy", self.vqav2)),
            "TextVQA" => Some(("accuracy", self.textvqa)),
            "NoCaps" => self.nocaps.map(|cider| ("CIDEr", cider)),
            "TextCaps" => self.textcaps.map(|cider| ("CIDEr", cider)),
            _ => None,
        }
    }
}
