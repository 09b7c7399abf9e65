//! Pickles assembled from instructions, of protocol 2 unless an instruction requires a later one.
#![allow(dead_code)]

/// Pushes a string.
pub(crate) fn text(s: &str) -> Vec<u8> {
    [b"X", &(s.len() as u32).to_le_bytes()[..], s.as_bytes()].concat()
}

/// Pushes an integer below 256.
pub(crate) fn int(n: u8) -> Vec<u8> {
    vec![b'K', n]
}

pub(crate) fn tuple(items: &[Vec<u8>]) -> Vec<u8> {
    [b"(", &items.concat()[..], b"t"].concat()
}

pub(crate) fn ints(all: &[u8]) -> Vec<u8> {
    tuple(&all.iter().map(|&n| int(n)).collect::<Vec<_>>())
}

pub(crate) fn dict(items: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    let items: Vec<u8> = items.iter().flat_map(|(k, v)| [&k[..], v].concat()).collect();
    [b"}(", &items[..], b"u"].concat()
}

/// Pushes the global `module.name`.
pub(crate) fn global(path: &str) -> Vec<u8> {
    let (module, name) = path.rsplit_once('.').unwrap();
    format!("c{module}\n{name}\n").into_bytes()
}

/// Calls `function(*args)`.
pub(crate) fn call(function: &str, args: &[Vec<u8>]) -> Vec<u8> {
    [&global(function)[..], &tuple(args), b"R"].concat()
}

/// Pushes the storage in record `key`.
pub(crate) fn storage(class: &str, key: &str, elements: u8) -> Vec<u8> {
    let id = tuple(&[text("storage"), global(class), text(key), text("cpu"), int(elements)]);
    [&id[..], b"Q"].concat()
}

pub(crate) const FALSE: &[u8] = b"\x89";
pub(crate) const NONE: &[u8] = b"N";

pub(crate) fn hooks() -> Vec<u8> {
    call("collections.OrderedDict", &[])
}

/// Pushes the f32 tensor of the two elements in record "0".
pub(crate) fn tensor() -> Vec<u8> {
    let of = storage("torch.FloatStorage", "0", 2);
    let parts = [of, int(0), ints(&[2]), ints(&[1]), FALSE.into(), hooks()];
    call("torch._utils._rebuild_tensor_v2", &parts)
}

/// A complete pickle of this value.
pub(crate) fn whole(value: &[u8]) -> Vec<u8> {
    [b"\x80\x02", value, b"."].concat()
}
