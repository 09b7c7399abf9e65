//! Embedding lookup: gathers rows of a table by id, and scatter-adds the gradients back.

use half::bf16;
use half::slice::HalfFloatSliceExt;

use crate::par;

/// `y[i] = table[ids[i]]` for y [n, d] and table [v, d].
///
/// # Panics
/// When an id is not less than v.
pub fn forward(y: &mut [f32], d: usize, ids: &[u32], table: &[f32]) {
    gather(y, d, ids, |row, at| row.copy_from_slice(&table[at..at + d]));
}

/// [`forward`] for a bf16 table, converted to f32.
///
/// # Panics
/// When an id is not less than v.
pub fn forward_bf16(y: &mut [f32], d: usize, ids: &[u32], table: &[bf16]) {
    gather(y, d, ids, |row, at| table[at..at + d].convert_to_f32_slice(row));
}

fn gather(y: &mut [f32], d: usize, ids: &[u32], copy: impl Fn(&mut [f32], usize) + Sync + Send) {
    let work = y.len() / 4;
    par::rows(y, d, 32, work, |first, y| {
        for (row, &id) in y.chunks_exact_mut(d).zip(&ids[first..]) {
            copy(row, id as usize * d);
        }
    });
}

/// `dtable[ids[i]] += dy[i]`, in the order of i. Single-threaded, since ids repeat and rows are few.
pub fn backward(dtable: &mut [f32], d: usize, ids: &[u32], dy: &[f32]) {
    for (dy, &id) in dy.chunks_exact(d).zip(ids) {
        dtable[id as usize * d..][..d].iter_mut().zip(dy).for_each(|(t, dy)| *t += dy);
    }
}
