//! Image-text contrastive loss (CLIP, Radford et al., arXiv 2103.00020), in which images may share a caption.
//!
//! With all rows normalised to length 1, z = e^log_scale·i·tᵀ for images i [b, d] and distinct captions t [c, d]. The
//! loss is the mean of two means: over images, the cross entropy of a row of z with the image's caption as target; over
//! captions that have an image, the cross entropy of a column of z with equal target probabilities for all images of
//! the caption. Nothing is saved: the gradients are computed in the same call. 6·b·c·d FLOPs; scratch memory for two
//! matrices [b, c].

mod cpu;
mod gpu;

use pheye_tensor::{Device, Tensor};

use crate::{Cx, Error, Result};

/// The loss and its gradients.
#[derive(Debug)]
pub struct Loss {
    /// Mean of both directions, image to text and text to image.
    pub loss: f64,
    /// Gradient of the images, [b, d].
    pub dimages: Tensor,
    /// Gradient of the captions, [c, d].
    pub dtexts: Tensor,
    /// Gradient of log_scale.
    pub dlog_scale: f32,
}

/// Loss and gradients for images [b, d] and captions [c, d]; image i has caption `labels[i]`.
///
/// ```
/// use pheye_ops::{Cx, contrastive, tensor::Tensor};
///
/// // Two images and two captions; image i has caption i.
/// let x = Tensor::from_f32([2, 2], &[1.0, 0.0, 0.0, 1.0])?;
/// let right = contrastive::forward_backward(&Cx::cpu(), &x, &x, &[0, 1], 1.0)?;
/// let wrong = contrastive::forward_backward(&Cx::cpu(), &x, &x, &[1, 0], 1.0)?;
/// assert!(right.loss < wrong.loss);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`Error::Shapes`] when the widths differ or there is not one label for each image, [`Error::Range`] when a label is
/// not in 0..c.
pub fn forward_backward(
    cx: &Cx,
    images: &Tensor,
    texts: &Tensor,
    labels: &[usize],
    log_scale: f32,
) -> Result<Loss> {
    let (left, right) = (images.shape(), texts.shape());
    let shape_error =
        |right_name, right| Error::Shapes { op: "contrastive", left_name: "images", left, right_name, right };
    if left.cols() != right.cols() {
        return Err(shape_error("texts", right));
    }
    if left.rows() != labels.len() {
        return Err(shape_error("labels", [labels.len()].into()));
    }
    let c = right.rows();
    if let Some(label) = labels.iter().find(|&&label| label >= c) {
        let (value, allowed) = (label.to_string(), format!("0..{c}"));
        return Err(Error::Range { op: "contrastive", what: "label", value, allowed });
    }
    match &cx.device {
        Device::Cpu => cpu::run(cx, images, texts, labels, log_scale),
        Device::Gpu(gpu) => gpu::run(cx, gpu, images, texts, labels, log_scale),
    }
}
