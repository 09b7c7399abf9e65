//! x
use pheye_image::*;
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let p = open(&a[1], &DecodeOptions::default()).unwrap();
    let t0 = std::time::Instant::now();
    let t = Preprocess::new(a[3].parse().unwrap(), a[4].parse().unwrap()).pixels(&p);
    eprintln!("{}x{} {:?}", p.width, p.height, t0.elapsed());
    let f = |v: &[f32]| v.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
    std::fs::write(format!("{}.g", a[2]), f(&t.global)).unwrap();
    std::fs::write(format!("{}.l", a[2]), f(&t.local)).unwrap();
}
