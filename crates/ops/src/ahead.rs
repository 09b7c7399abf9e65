//! Prefetching of inputs: the next input is copied to a GPU while the GPU works on the current one.

use pheye_tensor::{Device, PendingUpload, Tensor};

use crate::{Cx, Result};

/// Double buffer in GPU memory: queued work reads one input while the next is copied into the other buffer.
#[derive(Debug, Default)]
pub struct Uploads {
    places: [Option<Tensor>; 2],
    next: usize,
}

/// An input whose copy may not have finished.
#[derive(Debug)]
pub struct PendingTensor {
    tensor: Tensor,
    arrival: Option<PendingUpload>,
}

impl Uploads {
    /// Starts to copy `t` to the device of `cx`, concurrently with the work queued there. This overwrites the input
    /// before the last one, so the work that uses that input must have ended; it has once one of its results was read.
    /// On the CPU this is `t` itself.
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
                // The copy is not ordered after the queued work that initialises the new memory.
                gpu.synchronize()?;
                place.insert(tensor).clone()
            }
        };
        let arrival = gpu.upload_ahead(t.host_bytes()?, tensor.region()?)?;
        Ok(PendingTensor { tensor, arrival: Some(arrival) })
    }
}

impl PendingTensor {
    /// Orders work queued from now on after the copy, and returns the input.
    ///
    /// # Errors
    /// [`crate::Error::Tensor`] when the device fails.
    pub fn join(self) -> Result<Tensor> {
        self.arrival.map_or(Ok(()), |arrival| arrival.join())?;
        Ok(self.tensor)
    }
}
