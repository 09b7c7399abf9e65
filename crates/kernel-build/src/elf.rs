//! Reads the bytes of a symbol and the size of a section from a cubin, which is a 64-bit little-endian ELF
//! file.

pub(crate) struct Elf<'a> {
    bytes: &'a [u8],
    sections: Vec<Section>,
    /// The index of the section header string table (`e_shstrndx`).
    names: usize,
}

struct Section {
    name: u64,
    kind: u64,
    offset: u64,
    size: u64,
    /// `sh_link`: for a symbol table, the index of its string table.
    link: u64,
}

const SYMBOLS: u64 = 2;
const SYMBOL_BYTES: usize = 24;

impl<'a> Elf<'a> {
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Elf<'a>, String> {
        if !bytes.starts_with(b"\x7fELF\x02\x01") {
            return Err("this is no 64-bit little-endian ELF file".to_owned());
        }
        let cut = "the headers of the file are cut short";
        let header = |at, width| uint(bytes, at, width).ok_or(cut);
        let (table, each, count) = (header(0x28, 8)?, header(0x3a, 2)?, header(0x3c, 2)?);
        let mut sections = Vec::new();
        for index in 0..count {
            let start = usize::try_from(table + index * each).map_err(|_| cut)?;
            let field = |at, width| uint(bytes, start.checked_add(at)?, width);
            let section = || {
                Some(Section {
                    name: field(0, 4)?,
                    kind: field(4, 4)?,
                    offset: field(24, 8)?,
                    size: field(32, 8)?,
                    link: field(40, 4)?,
                })
            };
            sections.push(section().ok_or(cut)?);
        }
        Ok(Elf { bytes, sections, names: usize::try_from(header(0x3e, 2)?).map_err(|_| cut)? })
    }

    /// The bytes of the symbol `name`.
    pub(crate) fn object(&self, name: &str) -> Option<&'a [u8]> {
        for table in self.sections.iter().filter(|section| section.kind == SYMBOLS) {
            for symbol in self.content(table)?.chunks_exact(SYMBOL_BYTES) {
                if self.name(usize::try_from(table.link).ok()?, uint(symbol, 0, 4)?) == Some(name.as_bytes())
                {
                    let section = self.sections.get(usize::try_from(uint(symbol, 6, 2)?).ok()?)?;
                    let start = usize::try_from(uint(symbol, 8, 8)?).ok()?;
                    let size = usize::try_from(uint(symbol, 16, 8)?).ok()?;
                    return self.content(section)?.get(start..start.checked_add(size)?);
                }
            }
        }
        None
    }

    /// The size of the section `name` in bytes.
    pub(crate) fn section_size(&self, name: &str) -> Option<u64> {
        let named = |section: &&Section| self.name(self.names, section.name) == Some(name.as_bytes());
        self.sections.iter().find(named).map(|section| section.size)
    }

    fn content(&self, section: &Section) -> Option<&'a [u8]> {
        let start = usize::try_from(section.offset).ok()?;
        self.bytes.get(start..start.checked_add(usize::try_from(section.size).ok()?)?)
    }

    /// The null-terminated string at offset `at` of string table `index`.
    fn name(&self, index: usize, at: u64) -> Option<&'a [u8]> {
        self.content(self.sections.get(index)?)?
            .get(usize::try_from(at).ok()?..)?
            .split(|&byte| byte == 0)
            .next()
    }
}

/// The unsigned little-endian integer of `width` bytes at offset `at`.
fn uint(bytes: &[u8], at: usize, width: usize) -> Option<u64> {
    let field = bytes.get(at..at.checked_add(width)?)?;
    Some(field.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An ELF file with the sections null, names, symbols and data, and one symbol `k_spec` for bytes 2..5 of
    /// the data.
    fn file() -> Vec<u8> {
        let names = b"\0.data\0k_spec\0";
        let mut symbols = vec![0; 48];
        symbols[24] = 7;
        symbols[30] = 3;
        symbols[32] = 2;
        symbols[40] = 3;
        let data = [9, 9, 1, 2, 3, 9];
        let mut bytes = vec![0; 64];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        let contents: [(u8, u8, &[u8]); 4] = [(0, 0, &[]), (0, 3, names), (0, 2, &symbols), (1, 1, &data)];
        let mut table = Vec::new();
        for (name, kind, content) in contents {
            let mut header = vec![0; 64];
            (header[0], header[4], header[40]) = (name, kind, 1);
            header[24..32].copy_from_slice(&(bytes.len() as u64).to_le_bytes());
            header[32..40].copy_from_slice(&(content.len() as u64).to_le_bytes());
            bytes.extend(content);
            table.extend(header);
        }
        let start = (bytes.len() as u64).to_le_bytes();
        bytes[0x28..0x30].copy_from_slice(&start);
        (bytes[0x3a], bytes[0x3c], bytes[0x3e]) = (64, 4, 1);
        bytes.extend(table);
        bytes
    }

    #[test]
    fn symbols_and_sections_are_found() {
        let bytes = file();
        let elf = Elf::parse(&bytes).unwrap();
        assert_eq!(elf.object("k_spec"), Some(&[1, 2, 3][..]));
        assert_eq!(elf.object("k"), None);
        assert_eq!(elf.section_size(".data"), Some(6));
        assert_eq!(elf.section_size(".text.k"), None);
    }

    #[test]
    fn a_damaged_file_is_no_panic() {
        let bytes = file();
        for cut in 0..bytes.len() {
            if let Ok(elf) = Elf::parse(&bytes[..cut]) {
                elf.object("k_spec");
            }
        }
        for at in 0..bytes.len() {
            let mut bytes = bytes.clone();
            bytes[at] = 0xff;
            if let Ok(elf) = Elf::parse(&bytes) {
                elf.object("k_spec");
                elf.section_size(".data");
            }
        }
    }
}
