//! Parameters that a file stores otherwise than a network holds them: transposed, or several as one tensor.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;

use pheye_tensor::{DType, Device, Shape, Slice, Tensor};

use crate::entry::Entry;
use crate::save::{PIECE, item, write_elements};
use crate::stream::{Item, write_file};
use crate::{Error, Result};

/// The tensor of a file that holds a parameter, and where in the tensor the parameter is.
///
/// ```
/// use pheye_weights::Stored;
/// use pheye_weights::tensor::Shape;
///
/// // GPT-2's `c_attn` holds the weights of q, k and v, [d, d] each, as one matrix [d, 3 d].
/// let k = Stored { tensor: "h.0.attn.c_attn.weight".to_owned(), transposed: true, chunk: 1, chunks: 3 };
/// assert_eq!(k.shape(Shape::from([8, 8])).dims(), [8, 24]);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The name of the tensor.
    pub tensor: String,
    /// Whether it is a matrix stored as [in, out], the transpose of the weight of a linear layer.
    pub transposed: bool,
    /// Which of the equal chunks of rows the parameter is, from 0. The rows are those of the network, of [out, in].
    pub chunk: usize,
    /// The number of chunks that make up the tensor; 1 if the parameter is all of it.
    pub chunks: usize,
}

impl Stored {
    /// A parameter that is stored as it is, under this name.
    pub fn whole(tensor: impl Into<String>) -> Stored {
        Stored { tensor: tensor.into(), transposed: false, chunk: 0, chunks: 1 }
    }

    /// The shape of the tensor in the file, for a parameter of shape `param`. Sizes saturate.
    pub fn shape(&self, param: Shape) -> Shape {
        let mut dims = param.dims().to_vec();
        if let Some(rows) = dims.first_mut() {
            *rows = rows.saturating_mul(self.chunks);
        }
        if self.transposed {
            dims.reverse();
        }
        Shape::try_new(&dims).unwrap_or(param)
    }

    /// The part of `entry` that is the parameter; `None` if `entry` is to be transposed and no matrix, or has not these
    /// chunks.
    pub(crate) fn part(&self, entry: &Entry) -> Option<Entry> {
        let all = match self.transposed {
            true => entry.transposed()?,
            false => entry.clone(),
        };
        if (self.chunk, self.chunks) == (0, 1) {
            return Some(all);
        }
        let rows = *all.dims.first()?;
        let each = rows.checked_div(self.chunks).filter(|each| each * self.chunks == rows)?;
        (self.chunk < self.chunks).then(|| all.rows(self.chunk * each..(self.chunk + 1) * each))
    }
}

/// Like [`crate::save_safetensors`], for parameters that the file stores as [`Stored`] says. A tensor that consists of
/// chunks stands where the first of them is.
///
/// # Errors
/// The errors of [`crate::save_safetensors`], and [`Error::Chunks`] when chunks of a tensor are missing or differ in shape
/// or type, or a tensor to transpose is no matrix.
pub fn save_stored<'a>(
    path: impl AsRef<Path>,
    params: impl IntoIterator<Item = (Stored, &'a Tensor)>,
    metadata: &BTreeMap<String, String>,
) -> Result<()> {
    let path = path.as_ref();
    let mut items: Vec<Item> = Vec::new();
    let mut parts: BTreeMap<String, (bool, Vec<Option<&Tensor>>)> = BTreeMap::new();
    for (stored, param) in params {
        let of = item(&stored.tensor, param);
        let fault = || Error::Chunks { path: path.to_owned(), tensor: stored.tensor.clone() };
        let (transposed, all) = parts.entry(stored.tensor.clone()).or_insert_with(|| {
            let dims = stored.shape(param.shape()).dims().to_vec();
            items.push(Item { dims, ..of.clone() });
            (stored.transposed, vec![None; stored.chunks])
        });
        let first = all.iter().flatten().next().map(|first| item(&stored.tensor, first));
        let fits = first.is_none_or(|first| first == of)
            && (*transposed, all.len()) == (stored.transposed, stored.chunks)
            && (!stored.transposed || param.shape().dims().len() == 2);
        match all.get_mut(stored.chunk).filter(|_| fits) {
            Some(place @ None) => *place = Some(param),
            Some(Some(_)) if stored.chunks == 1 => {
                return Err(Error::Duplicate { path: path.to_owned(), tensor: stored.tensor });
            }
            _ => return Err(fault()),
        }
    }
    if let Some((tensor, _)) = parts.iter().find(|(_, (_, all))| all.iter().any(Option::is_none)) {
        return Err(Error::Chunks { path: path.to_owned(), tensor: tensor.clone() });
    }
    write_file(path, &items.iter().collect::<Vec<_>>(), metadata, &mut |item, out| {
        let Some((transposed, all)) = parts.get(&item.name) else { return Ok(()) };
        let mut chunks = all.iter().flatten();
        match transposed {
            true => write_transposed(out, &chunks.copied().collect::<Vec<_>>()),
            false => chunks.try_for_each(|chunk| write_elements(out, chunk)),
        }
    })
}

/// Writes the transpose of the matrices `chunks`, [n, k] each, below each other: [k, n · chunks].
fn write_transposed(out: &mut dyn Write, chunks: &[&Tensor]) -> io::Result<()> {
    let host = |chunk: &&Tensor| {
        let chunk = chunk.to_device(&Device::Cpu)?;
        if chunk.dtype() == DType::Int8 { chunk.to_dtype(DType::F32) } else { Ok(chunk) }
    };
    let chunks: Vec<Tensor> = chunks.iter().map(host).collect::<Result<_, _>>().map_err(io::Error::other)?;
    let mut bytes = Vec::new();
    for column in 0..chunks.first().map_or(0, |chunk| chunk.shape().cols()) {
        for chunk in &chunks {
            let of_column = |i: usize| i * chunk.shape().cols() + column;
            let rows = 0..chunk.shape().rows();
            match chunk.slice().map_err(io::Error::other)? {
                Slice::F32(x) => bytes.extend(rows.flat_map(|i| x[of_column(i)].to_le_bytes())),
                Slice::Bf16(x) => bytes.extend(rows.flat_map(|i| x[of_column(i)].to_le_bytes())),
                Slice::Int8(..) => {}
            }
        }
        if bytes.len() >= PIECE {
            out.write_all(&bytes)?;
            bytes.clear();
        }
    }
    out.write_all(&bytes)
}
