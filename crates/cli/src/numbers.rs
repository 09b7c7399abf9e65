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

/// A duration in its two largest units.
pub(crate) fn duration(seconds: f64) -> String {
    let s = seconds.ceil() as u64;
    match s {
        s if s < 60 => format!("{s} s"),
        s if s < 3600 => format!("{} min {} s", s / 60, s % 60),
        s if s < 86_400 => format!("{} h {} min", s / 3600, s / 60 % 60),
        s => format!("{} days {} h", s / 86_400, s / 3600 % 24),
    }
}

/// A number of operations with its unit.
pub(crate) fn flops(n: f64) -> String {
    let units = [(1e18, "EFLOP"), (1e15, "PFLOP"), (1e12, "TFLOP"), (1e9, "GFLOP"), (1e6, "MFLOP")];
    let (by, unit) = units.into_iter().find(|(by, _)| n >= *by).unwrap_or((1.0, "FLOP"));
    format!("{:.1} {unit}", n / by)
}
