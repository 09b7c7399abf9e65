//! AdamW (arXiv 1711.05101) with its state: gradients, moments and the number of steps taken.

use pheye_ops::adamw::{AdamW, Moments, global_norm, queue_norm, queue_step, step};
use pheye_ops::{Cx, Graphs};
use pheye_tensor::{Grads, Masters, Param, ParamTable};
use serde::{Deserialize, Serialize};

use crate::error::check;
use crate::{Error, Result};

/// Hyper-parameters that stay the same throughout a run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdamWConfig {
    /// Decay of the first and second moment.
    pub betas: [f64; 2],
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled decay: every step takes lr·weight_decay of each value away.
    pub weight_decay: f64,
}

impl Default for AdamWConfig {
    fn default() -> Self {
        AdamWConfig { betas: [0.9, 0.999], eps: 1e-8, weight_decay: 0.01 }
    }
}

impl AdamWConfig {
    /// Whether the numbers make sense.
    ///
    /// # Errors
    /// [`Error::Option`] that names the first that does not.
    pub fn check(&self) -> Result<()> {
        for beta in self.betas {
            check("betas", beta, (0.0..1.0).contains(&beta), "two numbers from 0 to below 1")?;
        }
        check("eps", self.eps, self.eps > 0.0, "a number above 0")?;
        let decay = self.weight_decay;
        check("weight_decay", decay, decay >= 0.0 && decay.is_finite(), "a finite number from 0")
    }
}

/// The optimizer and all its state.
#[derive(Debug)]
pub struct Optimizer {
    /// The sum of gradients since the last step; backward passes add to it.
    pub grads: Grads,
    /// First and second moments, flat f32, laid out as `grads.table` says.
    pub moments: Moments,
    /// Steps taken so far.
    pub step: u64,
    /// Hyper-parameters.
    pub config: AdamWConfig,
    /// On a GPU, the parameters themselves, and the recorded step.
    on_gpu: Option<(Masters, Graphs)>,
}

impl Optimizer {
    /// Zero gradients and moments for the parameters of `table`.
    ///
    /// # Errors
    /// [`Error::Option`] for hyper-parameters out of range.
    pub fn new(table: ParamTable, config: AdamWConfig) -> Result<Optimizer> {
        config.check()?;
        let moments = Moments { m: table.zeros(), v: table.zeros() };
        Ok(Optimizer { grads: Grads::new(table), moments, step: 0, config, on_gpu: None })
    }

    /// Moves the state to the device of `cx`, where the parameters are that [`ParamTable::upload`] put into `masters`.
    ///
    /// # Errors
    /// When the device's memory does not suffice.
    pub fn move_to(&mut self, cx: &Cx, masters: Masters) -> Result<()> {
        for t in [&mut self.grads.flat, &mut self.moments.m, &mut self.moments.v] {
            *t = t.to_device(&cx.device)?;
        }
        self.on_gpu = Some((masters, Graphs::default()));
        Ok(())
    }

    /// Continues from moments saved after `step` steps.
    ///
    /// # Errors
    /// [`Error::Moments`] when they are of another length.
    pub fn restore(&mut self, moments: Moments, step: u64) -> Result<()> {
        let expected = self.grads.table.len();
        for t in [&moments.m, &moments.v] {
            let found = t.shape().elements();
            if found != expected {
                return Err(Error::Moments { found, expected });
            }
        }
        (self.moments, self.step) = (moments, step);
        Ok(())
    }

    /// One step at rate `lr` with the gradients divided by `tokens`, then clears them.
    ///
    /// When the norm of the divided gradient is above `clip`, it is scaled down to it. Returns the norm before
    /// clipping.
    ///
    /// # Errors
    /// [`Error::NoTokens`], and [`Error::NonFinite`] with neither parameters, moments nor gradients changed.
    pub fn apply(
        &mut self,
        cx: &Cx,
        params: &mut [&mut Param],
        lr: f64,
        tokens: u64,
        clip: Option<f64>,
    ) -> Result<f64> {
        if tokens == 0 {
            return Err(Error::NoTokens);
        }
        let mut scale = 1.0 / tokens as f64;
        let AdamWConfig { betas: [beta1, beta2], eps, weight_decay } = self.config;
        let hp = AdamW { lr, beta1, beta2, eps, weight_decay };
        if let Some((masters, graphs)) = &mut self.on_gpu {
            let (grads, moments, next) = (&self.grads, &mut self.moments, self.step + 1);
            let norm = cx.replay(graphs, |cx| {
                let norm = queue_norm(cx, grads, scale, clip)?;
                queue_step(cx, masters, grads, moments, &hp, next, &norm)?;
                Ok::<_, Error>(norm)
            })?;
            let norm = norm.to_vec_f32()?.first().map_or(f64::NAN, |&n| n.into());
            if !norm.is_finite() {
                return Err(Error::NonFinite { norm });
            }
            self.step = next;
            self.grads.clear()?;
            return Ok(norm);
        }
        let norm = global_norm(cx, &self.grads)? * scale;
        if !norm.is_finite() {
            return Err(Error::NonFinite { norm });
        }
        if let Some(clip) = clip
            && norm > clip
        {
            scale *= clip / norm;
        }
        step(cx, params, &self.grads, &mut self.moments, &hp, self.step + 1, scale as f32)?;
        self.step += 1;
        self.grads.clear()?;
        Ok(norm)
    }
}
