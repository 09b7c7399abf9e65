//! Symmetric int8 quantization with one scale per row: w ≈ scale·q, scale = max|w| / 127, q = round(w /
//! scale).

/// Quantizes the rows of `x` to `values` and their `scales`. The error of an element is at most half
/// the scale of its row.
pub(crate) fn quantize(values: &mut [i8], scales: &mut [f32], x: &[f32]) {
    let cols = x.len() / scales.len().max(1);
    let rows = values.chunks_exact_mut(cols.max(1)).zip(x.chunks_exact(cols.max(1)));
    for ((values, x), scale) in rows.zip(scales) {
        // Compared as bits, infinities and NaN are the largest values, so a row that contains one gets a scale that is
        // not finite.
        let largest = x.iter().fold(0, |m: u32, x| m.max(x.to_bits() & 0x7fff_ffff));
        let largest = f32::from_bits(largest);
        *scale = largest / 127.0;
        let inverse = if *scale > 0.0 { 1.0 / *scale } else { 0.0 };
        values.iter_mut().zip(x).for_each(|(v, x)| *v = (x * inverse).round() as i8);
    }
}

/// Dequantizes `values`: each row is multiplied by its scale.
pub(crate) fn dequantize(out: &mut [f32], values: &[i8], scales: &[f32]) {
    let cols = out.len() / scales.len().max(1);
    let rows = out.chunks_exact_mut(cols.max(1)).zip(values.chunks_exact(cols.max(1)));
    for ((out, values), scale) in rows.zip(scales) {
        out.iter_mut().zip(values).for_each(|(o, &v)| *o = v as f32 * scale);
    }
}

#[cfg(test)]
mod tests {
    use crate::{DType, Slice, Tensor};

    #[test]
    fn what_is_not_finite_does_not_become_a_number() {
        for x in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let t = Tensor::from_f32([2, 3], &[1.0, x, 2.0, 1.0, 2.0, 3.0]).unwrap();
            let back = t.to_dtype(DType::Int8).unwrap().to_dtype(DType::F32).unwrap();
            let back = back.f32().unwrap();
            assert!(
                back[..3].iter().all(|x| x.is_nan()) && back[3..].iter().all(|x| x.is_finite()),
                "{back:?}"
            );
        }
    }

    #[test]
    fn within_half_a_step_of_each_row() {
        // 15 elements, so there is padding before the scales. A row of zeros has the scale 0.
        let x: Vec<f32> =
            (0..15).map(|i| if i < 5 { 0.0 } else { (i as f32 - 9.0) * 0.37f32.powi(i / 5) }).collect();
        let t = Tensor::from_f32([3, 5], &x).unwrap();
        let q = t.to_dtype(DType::Int8).unwrap();
        assert_eq!(q.bytes(), 16 + 12);
        let Slice::Int8(values, scales) = q.slice().unwrap() else { panic!() };
        assert_eq!((values.len(), scales.len(), scales[0]), (15, 3, 0.0));
        let back = q.to_dtype(DType::F32).unwrap();
        for (i, (x, y)) in x.iter().zip(back.f32().unwrap()).enumerate() {
            assert!((x - y).abs() <= 0.5001 * scales[i / 5], "{i}: {x} {y}");
        }
        assert_eq!(values.iter().map(|v| v.unsigned_abs()).max(), Some(127));
        assert!(q.rows(0..1).is_err() && q.view(1, [2]).is_err() && q.reshape([5, 3]).is_err());
        assert!(
            q.to_dtype(DType::Bf16).is_ok() && t.to_dtype(DType::Bf16).unwrap().to_dtype(DType::Int8).is_ok()
        );
    }
}
