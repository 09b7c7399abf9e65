use pheye_tensor::{Arena, DType, Device, Shape, Tensor};

/// What every operation is given: the device it runs on and the arena its outputs come from.
#[derive(Debug, Clone)]
pub struct Cx {
    /// Where it runs.
    pub device: Device,
    /// Where outputs and scratch memory come from.
    pub arena: Arena,
}

impl Cx {
    /// A context with an arena of its own.
    pub fn new(device: Device) -> Cx {
        Cx { device, arena: Arena::default() }
    }

    /// A context on the CPU.
    pub fn cpu() -> Cx {
        Cx::new(Device::Cpu)
    }

    /// An f32 tensor whose every element the caller writes.
    pub fn empty(&self, shape: impl Into<Shape>) -> Tensor {
        Tensor::empty(&self.arena, shape, DType::F32)
    }

    /// An f32 tensor of zeros.
    ///
    /// # Errors
    /// None on the CPU.
    pub fn zeros(&self, shape: impl Into<Shape>) -> crate::Result<Tensor> {
        let mut t = self.empty(shape);
        t.f32_mut()?.fill(0.0);
        Ok(t)
    }
}
