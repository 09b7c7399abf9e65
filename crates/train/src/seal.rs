//! Checksums. The CRC-32 of a JSON object is added to it as its last key, `crc32`; a change of any bit in the file
//! is detected, also of the bits of the checksum. Other files have theirs in such an object.

use std::path::Path;

use pheye_files::Kind;

/// The text before and after the eight hexadecimal digits of the checksum.
const BEFORE: &[u8] = b",\n  \"crc32\": \"";
const AFTER: &[u8] = b"\"\n}\n";
/// The end of a pretty-printed object.
const END: &[u8] = b"\n}";

/// Adds the checksum to `json`, a pretty-printed object.
pub(crate) fn seal(json: &[u8]) -> Vec<u8> {
    let body = json.strip_suffix(END).unwrap_or(json);
    let crc = format!("{:08x}", crc32fast::hash(json));
    [body, BEFORE, crc.as_bytes(), AFTER].concat()
}

/// Verifies the checksum and returns the argument of [`seal`], or the reason why `sealed` is not valid.
pub(crate) fn unseal(sealed: &[u8]) -> Result<Vec<u8>, String> {
    let body = sealed.len().checked_sub(BEFORE.len() + 8 + AFTER.len()).map(|at| &sealed[..at]);
    let json = body.map(|body| [body, END].concat());
    match json.filter(|json| seal(json) == sealed) {
        Some(json) => Ok(json),
        None if sealed.windows(BEFORE.len()).any(|w| w == BEFORE) => {
            Err("its contents have changed (CRC-32)".into())
        }
        None => Err("it has no checksum: it is cut short, or an earlier version wrote it".into()),
    }
}

/// Length in bytes and CRC-32 of a regular file.
pub(crate) fn checksum(path: &Path) -> std::io::Result<(u64, u32)> {
    use std::io::Read;
    let (mut file, mut buffer) = (pheye_files::open(path, Kind::Regular)?, vec![0; 1 << 20]);
    let (mut len, mut crc) = (0, crc32fast::Hasher::new());
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok((len, crc.finalize())),
            n => {
                len += n as u64;
                crc.update(&buffer[..n]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bit_counts() {
        let sealed = seal(b"{\n  \"step\": 7\n}");
        assert_eq!(serde_json::from_slice::<serde_json::Value>(&sealed).unwrap()["step"], 7);
        assert_eq!(unseal(&sealed).unwrap(), b"{\n  \"step\": 7\n}");
        for bit in 0..8 * sealed.len() {
            let mut other = sealed.clone();
            other[bit / 8] ^= 1 << (bit % 8);
            assert!(unseal(&other).is_err(), "bit {bit}");
        }
        (0..sealed.len()).for_each(|len| assert!(unseal(&sealed[..len]).is_err()));
        assert!(unseal(&[&sealed[..], b"\n"].concat()).is_err());
    }
}
