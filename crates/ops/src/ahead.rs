//! Inputs on their way to a GPU while it works on those before.

use pheye_tensor::{Device, PendingUpload, Tensor};

use crate::{Cx, Result};

/// Two places in GPU memory for inputs: one is used by queued work, the other is filled.
#[derive(Debug, Default)]
pub struct Uploads {
    places: [Option<Tensor>; 2],
    next: usize,
}

/// An input under way.
#[derive(Debug)]
pub struct PendingTensor {
    tensor: Tensor,
    arrival: Option<PendingUpload>,
}

impl Uploads {
    /// Starts to copy `t` to the device of `cx`, beside the work queued there. The input before the last one given here is
    /// overwritten: the work that uses it must have ended, as it has once one of its results was read. On the CPU, `t` itself.
    ///
    /// # Errors
    /// When a GPU has no memory left or fails.
    pub fn upload(&mut self, cx: &Cx, t: &Tensor) -> Result<PendingTensor> {
        let Device::Gpu(gpu) = &cx.device else {
            return Ok(PendingTensor { tensor: t.clone(), arrival: None });
        };
        let place = &mut self.places[self.next];
        self.next = 1 - self.next;
        let fits = |p: &&Tensor| p.shape() == t.shape() && p.dtype() == t.dtype();
        let tensor = match place.as_ref().filter(fits) {
            Some(tensor) => tensor.clone(),
            None => {
                *place = None;
                let tensor = Tensor::zeros_on(&cx.device, t.shape(), t.dtype())?;
                // The copy is not ordered behind the work that makes new memory usable.
                gpu.synchronize()?;
                place.insert(tensor).clone()
            }
        };
        let arrival = gpu.upload_ahead(t.host_bytes()?, tensor.region()?)?;
        Ok(PendingTensor { tensor, arrival: Some(arrival) })
    }
}

impl PendingTensor {
    /// The input, for work queued from now on.
    ///
    /// # Errors
    /// When the device fails.
    pub fn join(self) -> Result<Tensor> {
        self.arrival.map_or(Ok(()), |arrival| arrival.join())?;
        Ok(self.tensor)
    }
}
