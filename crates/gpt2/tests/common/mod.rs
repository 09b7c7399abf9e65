//! Helpers shared by the tests: the golden folders, and their models on any device.
#![allow(dead_code)] // each test file uses some of it

use std::path::{Path, PathBuf};

use pheye_gpt2::{Cache, Gpt2, Layout};
use pheye_ops::Cx;
use pheye_tensor::{DType, Device, ParamTable, Tensor};
use pheye_testkit::Golden;
use pheye_testkit::gpu::{download, upload_bf16};

/// The golden folder of this name.
pub(crate) fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

/// A golden folder: its model, frozen, and its packed sequences.
pub(crate) struct Case {
    pub(crate) golden: Golden,
    pub(crate) cx: Cx,
    pub(crate) gpt2: Gpt2,
    pub(crate) ids: Vec<u32>,
    pub(crate) lengths: Vec<usize>,
    pub(crate) targets: Vec<i64>,
}

impl Case {
    /// The folder `name`, with the model on `device`.
    pub(crate) fn on(device: &Device, name: &str) -> Case {
        let golden = Golden::open(data(name).join("golden.safetensors"));
        let mut gpt2 = Gpt2::load(data(name), DType::F32).unwrap();
        if let Device::Gpu(_) = device {
            ParamTable::default().upload(gpt2.params_mut(), device).unwrap();
        }
        let ids = golden.i64("ids").iter().map(|&id| id as u32).collect();
        let lengths = golden.i64("lengths").iter().map(|&len| len as usize).collect();
        let targets = golden.i64("targets").to_vec();
        Case { golden, cx: Cx::new(device.clone()), gpt2, ids, lengths, targets }
    }

    /// The sequences without padding.
    pub(crate) fn layout(&self) -> Layout {
        Layout::packed(&self.lengths)
    }

    /// A matrix of the golden data as an activation on the device.
    pub(crate) fn activation(&self, name: &str) -> Tensor {
        let shape = [self.ids.len(), self.gpt2.config.n_embd];
        match self.cx.device {
            Device::Cpu => Tensor::from_f32(shape, self.golden.f32(name)).unwrap(),
            Device::Gpu(_) => upload_bf16(&self.cx.device, shape, self.golden.f32(name)),
        }
    }

    /// The logits of all rows, with the tokens fed in the given pieces: `pieces[i][j]` tokens of sequence j in step i.
    pub(crate) fn in_pieces(&self, pieces: &[&[usize]]) -> Vec<f32> {
        let capacity = self.lengths.iter().copied().max().unwrap();
        let mut caches: Vec<Cache> = self.gpt2.caches(&self.cx, self.lengths.len(), capacity).unwrap();
        let starts: Vec<usize> =
            self.lengths.iter().scan(0, |end, len| Some(std::mem::replace(end, *end + len))).collect();
        let mut past = vec![0; self.lengths.len()];
        let mut rows: Vec<Vec<f32>> = vec![Vec::new(); self.lengths.len()];
        for &new in pieces {
            let of = |(i, &new): (usize, &usize)| self.ids[starts[i] + past[i]..][..new].to_vec();
            let fed: Vec<u32> = new.iter().enumerate().flat_map(of).collect();
            let layout = Layout::cached(&past, new, capacity);
            let logits = download(&self.gpt2.logits(&self.cx, &fed, &layout, Some(&mut caches)).unwrap());
            let mut logits = logits.chunks(self.gpt2.config.vocab_size);
            for (i, &new) in new.iter().enumerate() {
                rows[i].extend(logits.by_ref().take(new).flatten());
                past[i] += new;
            }
        }
        assert_eq!(past, self.lengths, "all tokens are fed");
        rows.concat()
    }
}
