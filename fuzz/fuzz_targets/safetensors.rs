//! The reader of safetensors and of indices of shards: a whole file, or, for an input that starts with `{"`, its header
//! with the length before it and elements behind.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    pheye_fuzz::read_checkpoint(data);
    if data.starts_with(b"{\"") {
        let length = (data.len() as u64).to_le_bytes();
        pheye_fuzz::read_checkpoint(&[&length, data, &[7; 64]].concat());
    }
});
