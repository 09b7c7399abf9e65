//! Reads images of a container, in random order or (`ordered`) in theirs, and reports the rate and the peak memory (Linux).
//!
//! ```sh
//! cargo run --release -p pheye-data --example read_store -- images.parquet 2000 2 ordered
//! ```
//! The arguments are the container, the number of images to read and the number of threads.

#![allow(clippy::print_stdout)]

use std::time::Instant;

use pheye_data::Store;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let path = args.next().ok_or("usage: read_store CONTAINER [IMAGES] [THREADS]")?;
    let images: usize = args.next().map_or(Ok(1000), |n| n.parse())?;
    let threads: usize = args.next().map_or(Ok(1), |n| n.parse())?.max(1);
    let ordered = args.next().is_some();
    let began = Instant::now();
    let store = Store::open(&path)?;
    let names = store.names()?;
    println!("{} names in {:.2} s", names.len(), began.elapsed().as_secs_f64());
    if names.is_empty() {
        return Ok(());
    }
    let began = Instant::now();
    let work = |thread: usize| -> pheye_data::Result<usize> {
        // A linear congruential generator is random enough to defeat read-ahead.
        let mut state = thread as u64;
        let mut bytes = 0;
        for number in 0..images / threads {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let random = (state >> 33) as usize;
            let next = if ordered { number * threads + thread } else { random };
            bytes += store.read(&names[next % names.len()])?.len();
        }
        Ok(bytes)
    };
    let bytes = std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads)
            .map(|thread| {
                scope.spawn({
                    let work = &work;
                    move || work(thread)
                })
            })
            .collect();
        running.into_iter().map(|thread| thread.join().expect("a thread")).sum::<pheye_data::Result<usize>>()
    })?;
    let seconds = began.elapsed().as_secs_f64();
    println!("{:.0} images/s, {:.0} MB/s", images as f64 / seconds, bytes as f64 / seconds / 1e6);
    if let Ok(status) = std::fs::read_to_string("/proc/self/status") {
        status.lines().filter(|line| line.starts_with("VmHWM")).for_each(|line| println!("{line}"));
    }
    Ok(())
}
