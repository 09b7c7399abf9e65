//! Patch embedding of a vision transformer (Dosovitskiy et al., arXiv 2010.11929, section 3.1): a convolution without
//! overlap, a class token, and position embeddings.
//!
//! pixels [t, 3, s, s] are cut into g·g patches of p·p pixels, g = s / p. Each becomes a row of 3·p·p elements in the
//! order channel, y, x, like the convolution's weight. `x[tile] = [class, lora(patches)] + position`: x [t, 1 + g·g,
//! d], position [1 + g·g, d], class `[d]`.
//!
//! Saves what the linear saves (the rows of patches, if a parameter of the convolution is trained). The gradient of the
//! pixels is not computed. 2·t·g²·3p²·d FLOPs; the patches are copied once.

use pheye_tensor::{Device, Grads, Param, Tensor};

use crate::lora::{self, LoraLinear, Route, RowRange};
use crate::{Cx, Error, Result};

mod cpu;
mod gpu;

/// The parameters of the patch embedding.
#[derive(Debug)]
pub struct PatchEmbed {
    /// The convolution without bias; its weight is [d, 3, p, p] or [d, 3·p·p].
    pub conv: LoraLinear,
    /// The class token `[d]`.
    pub class: Param,
    /// Position embeddings [1 + patches, d].
    pub position: Param,
    /// Side length p of a patch in pixels.
    pub patch: usize,
}

/// Values that the backward of the patch embedding needs.
#[derive(Debug)]
pub struct Saved {
    conv: lora::Saved,
}

impl PatchEmbed {
    /// The parameters of the convolution, then class and position.
    pub fn params_mut(&mut self) -> Vec<&mut Param> {
        let mut all = self.conv.params_mut();
        all.extend([&mut self.class, &mut self.position]);
        all
    }
}

/// Converts a route over tiles to a route over their patches.
fn over_patches(route: &Route, patches: usize) -> Route {
    let ranges = route.ranges.iter();
    let ranges =
        ranges.map(|r| RowRange { rows: r.rows.start * patches..r.rows.end * patches, adapter: r.adapter });
    Route { ranges: ranges.collect(), dropout: route.dropout }
}

fn shapes(left_name: &'static str, left: &Tensor, right_name: &'static str, right: &Param) -> Error {
    Error::Shapes { op: "patch_embed", left_name, left: left.shape(), right_name, right: right.shape() }
}

/// x [t, 1 + patches, d] for pixels [t, 3, s, s]; `route` assigns tiles to adapters.
///
/// ```
/// use pheye_ops::linear::Linear;
/// use pheye_ops::lora::{LoraLinear, Route};
/// use pheye_ops::patch_embed::{self, PatchEmbed};
/// use pheye_ops::tensor::{Param, Tensor};
/// use pheye_ops::Cx;
///
/// let param = |name, shape: [usize; 2], values: &[f32]|
///     Ok::<_, pheye_ops::tensor::Error>(Param::frozen(name, Tensor::from_f32(shape, values)?));
/// // Patches of one pixel: the convolution adds the three channels.
/// let base = Linear { weight: param("weight", [1, 3], &[1.0; 3])?, bias: None };
/// let conv = LoraLinear { base, adapters: vec![], module: 0 };
/// let (class, position) = (param("class", [1, 1], &[7.0])?, param("position", [5, 1], &[0.0, 0.0, 0.0, 0.0, 100.0])?);
/// let p = PatchEmbed { conv, class, position, patch: 1 };
/// let pixels = Tensor::from_f32([1, 3, 2, 2], &[1.0; 12])?; // one tile of 2 x 2 pixels
/// let (x, _saved) = patch_embed::forward(&Cx::cpu(), &pixels, &p, &Route { ranges: vec![], dropout: None })?;
/// assert_eq!(x.f32()?, [7.0, 3.0, 3.0, 3.0, 103.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`Error::Shapes`] when pixels, weight, class and position are inconsistent, and the errors of [`lora::forward`].
pub fn forward(cx: &Cx, pixels: &Tensor, p: &PatchEmbed, route: &Route) -> Result<(Tensor, Saved)> {
    let (d, k, side) = (p.conv.base.n(), p.conv.base.k(), p.patch);
    let (t, g) = match *pixels.shape().dims() {
        [t, c, h, w] if h == w && side > 0 && h % side == 0 && c * side * side == k => (t, h / side),
        _ => return Err(shapes("pixels", pixels, "weight", &p.conv.base.weight)),
    };
    let n = 1 + g * g;
    if p.position.shape().elements() != n * d {
        return Err(shapes("pixels", pixels, "position", &p.position));
    }
    if p.class.shape().elements() != d {
        return Err(shapes("class", &p.class.value, "weight", &p.conv.base.weight));
    }
    let mut x = cx.empty([t, n, d])?;
    let route = over_patches(route, g * g);
    let conv = match cx.device {
        Device::Gpu(ref gpu) => gpu::forward(cx, gpu, pixels, p, &route, &x)?,
        Device::Cpu => cpu::forward(cx, pixels, p, &route, &mut x)?,
    };
    Ok((x, Saved { conv }))
}

/// Adds the gradients of trained parameters to `grads`, given dx.
///
/// # Errors
/// [`Error::Shapes`] when dx does not fit the positions, and the errors of [`lora::backward_params`].
pub fn backward(
    cx: &Cx,
    saved: &Saved,
    dx: &Tensor,
    p: &PatchEmbed,
    route: &Route,
    grads: Option<&mut Grads>,
) -> Result<()> {
    let d = p.conv.base.n();
    let n = p.position.shape().elements() / d.max(1);
    let t = dx.shape().rows() / n.max(1);
    if dx.shape().cols() != d || t * n != dx.shape().rows() {
        return Err(shapes("dx", dx, "position", &p.position));
    }
    let Some(grads) = grads else { return Ok(()) };
    let route = over_patches(route, n.saturating_sub(1));
    match cx.device {
        Device::Gpu(ref gpu) => gpu::backward(cx, gpu, &saved.conv, dx, p, &route, grads),
        Device::Cpu => cpu::backward(cx, &saved.conv, dx, p, &route, grads),
    }
}
