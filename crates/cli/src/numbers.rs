//! Numbers as people read them.

/// Formats 295136192 as 295,136,192.
pub(crate) fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().filter_map(|g| std::str::from_utf8(g).ok()).collect();
    groups.join(",")
}

/// A number of things: `1 step`, `1,200 steps`.
pub(crate) fn counted(n: u64, thing: &str) -> String {
    format!("{} {thing}{}", grouped(n), if n == 1 { "" } else { "s" })
}

/// With a unit.
pub(crate) fn bytes(n: u64) -> String {
    match n {
        n if n >= 1_000_000_000 => format!("{:.1} GB", n as f64 / 1e9),
        n if n >= 100_000 => format!("{:.1} MB", n as f64 / 1e6),
        n => format!("{n} bytes"),
    }
}

/// A short time with three digits, in µs, ms or s by its size.
pub(crate) fn short(seconds: f64) -> String {
    let (value, unit) = match seconds {
        s if s >= 0.9995 => (s, "s"),
        s if s >= 0.000_999_5 => (1e3 * s, "ms"),
        s => (1e6 * s, "µs"),
    };
    match value {
        v if v >= 99.95 => format!("{v:.0} {unit}"),
        v if v >= 9.995 => format!("{v:.1} {unit}"),
        v => format!("{v:.2} {unit}"),
    }
}

/// A duration in its two largest units.
pub(crate) fn duration(seconds: f64) -> String {
    let s = seconds.ceil() as u64;
    match s {
        s if s < 60 => format!("{s} s"),
        s if s < 3600 => format!("{} min {} s", s / 60, s % 60),
        s if s < 86_400 => format!("{} h {} min", s / 3600, s / 60 % 60),
        s => format!("{} {} h", counted(s / 86_400, "day"), s / 3600 % 24),
    }
}

/// A number of operations with its unit.
pub(crate) fn flops(n: f64) -> String {
    let units = [(1e18, "EFLOP"), (1e15, "PFLOP"), (1e12, "TFLOP"), (1e9, "GFLOP"), (1e6, "MFLOP")];
    let (by, unit) = units.into_iter().find(|(by, _)| n >= *by).unwrap_or((1.0, "FLOP"));
    format!("{:.1} {unit}", n / by)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_times_have_three_digits() {
        let times = [83.2, 1.0, 0.9996, 0.1234, 0.001, 0.000_017_3].map(short);
        assert_eq!(times, ["83.2 s", "1.00 s", "1.00 s", "123 ms", "1.00 ms", "17.3 µs"]);
    }
}
