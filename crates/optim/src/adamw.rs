//! AdamW (arXiv 1711.05101) with its state: gradients, moments and the number of steps taken.

use std::ops::Range;

use pheye_ops::adamw::{AdamW, Group, Moments, global_norm, queue_norm, queue_step, step};
use pheye_ops::{Cx, Graphs};
use pheye_tensor::{Grads, Masters, Param, ParamTable};
use serde::{Deserialize, Serialize};

use crate::error::check;
use crate::{Error, Result};

/// The hyperparameters, which are constant during a run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdamWConfig {
    /// β₁ and β₂, the decay rates of the first and second moment.
    pub betas: [f64; 2],
    /// ε, added to the square root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay: every step reduces each value by lr · weight_decay of itself.
    pub weight_decay: f64,
}

impl Default for AdamWConfig {
    fn default() -> Self {
        AdamWConfig { betas: [0.9, 0.999], eps: 1e-8, weight_decay: 0.01 }
    }
}

impl AdamWConfig {
    /// Checks that the hyperparameters are in their ranges.
    ///
    /// # Errors
    /// Returns [`Error::Option`] with the first invalid option.
    pub fn check(&self) -> Result<()> {
        for beta in self.betas {
            check("betas", beta, (0.0..1.0).contains(&beta), "two numbers from 0 to below 1")?;
        }
        check("eps", self.eps, self.eps > 0.0, "a number above 0")?;
        let decay = self.weight_decay;
        check("weight_decay", decay, decay >= 0.0 && decay.is_finite(), "a finite number from 0")
    }
}

/// The optimizer and its state.
#[derive(Debug)]
pub struct Optimizer {
    /// The sum of the gradients since the last step, to which backward adds.
    pub grads: Grads,
    /// First and second moments, flat f32 arrays in the layout of `grads.table`.
    pub moments: Moments,
    /// Steps taken so far.
    pub step: u64,
    /// The hyperparameters.
    pub config: AdamWConfig,
    /// The share of the learning rate for each range of the flat arrays.
    shares: Vec<(Range<usize>, f64)>,
    /// On a GPU: the f32 master weights, and the recorded CUDA graph of the step.
    on_gpu: Option<(Masters, Graphs)>,
}

impl Optimizer {
    /// Zero gradients and moments for the parameters of `table`.
    ///
    /// # Errors
    /// Returns [`Error::Option`] if a hyperparameter is out of range.
    pub fn new(table: ParamTable, config: AdamWConfig) -> Result<Optimizer> {
        config.check()?;
        let moments = Moments { m: table.zeros(), v: table.zeros() };
        let shares = vec![(0..table.len(), 1.0)];
        Ok(Optimizer { grads: Grads::new(table), moments, step: 0, config, shares, on_gpu: None })
    }

    /// Gives each parameter a share of the learning rate, by its name; without this call every parameter has all of it.
    /// Weight decay, which is a multiple of the learning rate, has the same share. Neighbours in the table with equal
    /// shares are updated together.
    ///
    /// # Errors
    /// Returns [`Error::Option`] if a share is negative or not finite.
    pub fn set_shares(&mut self, share: impl Fn(&str) -> f64) -> Result<()> {
        let mut shares: Vec<(Range<usize>, f64)> = Vec::new();
        for (name, range) in self.grads.table.entries() {
            let share = share(name);
            check("the share of a rate", share, share >= 0.0 && share.is_finite(), "a finite number from 0")?;
            match shares.last_mut() {
                Some((last, of)) if *of == share => last.end = range.end,
                _ => shares.push((range.clone(), share)),
            }
        }
        self.shares = shares;
        Ok(())
    }

    /// Moves the state to the device of `cx`. `masters` is the result of [`ParamTable::upload`] for the same
    /// device.
    ///
    /// # Errors
    /// Returns an error if the device does not have enough memory.
    pub fn move_to(&mut self, cx: &Cx, masters: Masters) -> Result<()> {
        for t in [&mut self.grads.flat, &mut self.moments.m, &mut self.moments.v] {
            *t = t.to_device(&cx.device)?;
        }
        self.on_gpu = Some((masters, Graphs::default()));
        Ok(())
    }

    /// Continues with moments that were saved after `step` steps.
    ///
    /// # Errors
    /// Returns [`Error::Moments`] if they have the wrong length.
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

    /// Takes one step with learning rate `lr`, of which each parameter has its share, and the gradients divided by `tokens`, then clears the
    /// gradients.
    ///
    /// If the norm of the divided gradient exceeds `clip`, the gradient is scaled down to that norm. Returns
    /// the norm before clipping.
    ///
    /// # Errors
    /// Returns [`Error::NoTokens`] if `tokens` is 0, [`Error::NonFinite`] if the norm is not finite, in which
    /// case parameters, moments and gradients are unchanged, or the error of an operation.
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
        let hp = |share: f64| AdamW { lr: lr * share, beta1, beta2, eps, weight_decay };
        if let Some((masters, graphs)) = &mut self.on_gpu {
            let (grads, moments, next) = (&self.grads, &mut self.moments, self.step + 1);
            let norm = cx.replay(graphs, |cx| {
                let norm = queue_norm(cx, grads, scale, clip)?;
                for (at, share) in &self.shares {
                    let group = Group { at: at.clone(), hp: hp(*share) };
                    queue_step(cx, masters, &group, grads, moments, next, &norm)?;
                }
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
        for (at, share) in &self.shares {
            let table = &self.grads.table;
            let within =
                |p: &&mut Param| table.range(p).is_some_and(|r| at.start <= r.start && r.end <= at.end);
            let mut group: Vec<&mut Param> = params.iter_mut().map(|p| &mut **p).filter(within).collect();
            step(cx, &mut group, &self.grads, &mut self.moments, &hp(*share), self.step + 1, scale as f32)?;
        }
        self.step += 1;
        self.grads.clear()?;
        Ok(norm)
    }
}
