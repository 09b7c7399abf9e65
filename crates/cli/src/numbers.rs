//! Numbers as people read them.

/// Formats 295136192 as 295,136,192.
pub(crate) fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().filter_map(|g| std::str::from_utf8(g).ok()).collect();
    groups.join(",")
}

/// With a unit.
pub(crate) fn bytes(n: u64) -> String {
    match n {
        n if n >= 1_000_000_000 => format!("{:.1} GB", n as f64 / 1e9),
        n if n >= 100_000 => format!("{:.1} MB", n as f64 / 1e6),
        n => format!("{n} bytes"),
    }
}
