//! Checks that a kernel file is complete before the driver loads it: `cuModuleLoadData` takes no length and
//! trusts the sizes in the file's headers.

/// The magic number of a fatbin. Its header: u32 magic number, u16 version, u16 size of the header, u64 size
/// of the rest.
const FATBIN: u32 = 0xba55_ed50;
/// The start of a cubin, which is a 64-bit little-endian ELF file.
const CUBIN: [u8; 6] = [0x7f, b'E', b'L', b'F', 2, 1];
/// SHT_NOBITS, the type of an ELF section that occupies no bytes of the file.
const NOBITS: u64 = 8;

/// Checks that `bytes` are a complete fatbin or cubin, and returns the reason if not.
pub(super) fn check(bytes: &[u8]) -> Result<(), &'static str> {
    let end = if bytes.starts_with(&FATBIN.to_le_bytes()) {
        field(bytes, 6, 2).zip(field(bytes, 8, 8)).and_then(|(header, rest)| header.checked_add(rest))
    } else if bytes.starts_with(&CUBIN) {
        elf_end(bytes)
    } else {
        return Err("this is neither a fatbin nor a cubin");
    };
    if end.is_some_and(|end| end <= bytes.len() as u64) { Ok(()) } else { Err("the file is cut off") }
}

/// The unsigned little-endian integer of `size` bytes at offset `at`; `None` if it exceeds the file.
fn field(bytes: &[u8], at: usize, size: usize) -> Option<u64> {
    let found = bytes.get(at..at.checked_add(size)?)?;
    Some(found.iter().rev().fold(0, |n, &byte| n << 8 | u64::from(byte)))
}

/// The offset at which an ELF file ends: the last end of its program headers, its section headers and its
/// sections.
fn elf_end(bytes: &[u8]) -> Option<u64> {
    let table = |offset, entry, count| {
        let (start, entry, count) =
            (field(bytes, offset, 8)?, field(bytes, entry, 2)?, field(bytes, count, 2)?);
        Some((start, entry, count, start.checked_add(entry * count)?))
    };
    let (.., programs) = table(0x20, 0x36, 0x38)?;
    let (start, entry, count, sections) = table(0x28, 0x3a, 0x3c)?;
    let mut end = programs.max(sections);
    for i in 0..count {
        let header = usize::try_from(start.checked_add(i * entry)?).ok()?;
        if field(bytes, header.checked_add(4)?, 4)? != NOBITS {
            let (at, size) =
                (field(bytes, header.checked_add(0x18)?, 8)?, field(bytes, header.checked_add(0x20)?, 8)?);
            end = end.max(at.checked_add(size)?);
        }
    }
    Some(end)
}

#[cfg(test)]
mod tests {
    use super::check;

    const CUT: Result<(), &str> = Err("the file is cut off");

    fn fatbin(rest: u64, there: usize) -> Vec<u8> {
        let mut bytes = vec![0x50, 0xed, 0x55, 0xba, 1, 0, 16, 0];
        bytes.extend(rest.to_le_bytes());
        bytes.resize(16 + there, 0);
        bytes
    }

    #[test]
    fn what_is_cut_off_is_seen() {
        assert_eq!(check(&fatbin(24, 24)), Ok(()));
        assert_eq!(check(&fatbin(24, 23)), CUT);
        assert_eq!(check(&fatbin(u64::MAX, 100)), CUT);
        assert_eq!(check(&fatbin(24, 24)[..10]), CUT);
        assert!(check(b"").is_err() && check(b".version 8.0").is_err());
    }

    #[test]
    fn a_cubin_ends_with_its_last_table_or_section() {
        let mut elf = vec![0u8; 0x40 + 0x40 + 5];
        elf[..6].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1]);
        (elf[0x28], elf[0x3a], elf[0x3c]) = (0x40, 0x40, 1);
        (elf[0x40 + 4], elf[0x40 + 0x18], elf[0x40 + 0x20]) = (1, 0x80, 5);
        assert_eq!(check(&elf), Ok(()));
        assert_eq!(check(&elf[..elf.len() - 1]), CUT);
        assert_eq!(check(&elf[..0x60]), CUT);
        elf[0x28..0x30].fill(0xff);
        assert_eq!(check(&elf), CUT);
    }

    #[test]
    fn the_embedded_images_are_whole() {
        for image in crate::KERNELS.images() {
            assert_eq!(check(image.bytes()), Ok(()), "{}", image.source);
            assert_eq!(check(&image.bytes()[..image.bytes().len() - 64]), CUT, "{}", image.source);
        }
    }
}
