//! Combines the lines of all rounds and sides into one report, and formats it as a table.

use std::collections::BTreeMap;
use std::fmt::Write;

use anyhow::{Context, Result};
use serde_json::{Value, json};

const OURS: &str = "pheye";

/// The backend that runs only the GEMMs of a row, without fused operations. It is not a rival but has a
/// column of its own.
const PRODUCT: &str = "cuBLASLt";

fn text<'a>(line: &'a Value, key: &str) -> &'a str {
    line[key].as_str().unwrap_or_default()
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    let half = of.len() / 2;
    (of[half] + of[(of.len() - 1) / 2]) / 2.0
}

/// The report. Each row of ours has the median over the rounds, the share of the roofline, the rivals with
/// the ratio to the fastest one, and the ratio to cuBLASLt's GEMMs.
///
/// The roofline is the best copy and the best GEMM of any side.
pub(super) fn report(lines: &[Value]) -> Value {
    let best = |key: &str| {
        let all = lines.iter().filter(|l| l["op"] == "roofline");
        all.filter_map(|l| Some((l[key].as_f64()?, text(l, "backend")))).max_by(|a, b| a.0.total_cmp(&b.0))
    };
    let (tflops, gbps) = (best("tflops").unwrap_or_default(), best("gbps").unwrap_or_default());

    // Rows are in the order of their first appearance, which is that of shapes.json.
    let (mut order, mut rows) = (Vec::new(), BTreeMap::<_, BTreeMap<&str, Vec<&Value>>>::new());
    for line in lines.iter().filter(|l| l["median_us"].is_number()) {
        let key = ["family", "op", "shape", "dtype", "direction"].map(|k| text(line, k));
        if !rows.contains_key(&key) {
            order.push(key);
        }
        rows.entry(key).or_default().entry(text(line, "backend")).or_default().push(line);
    }
    let time = |of: &[&Value]| median(of.iter().filter_map(|l| l["median_us"].as_f64()).collect());
    let least = |of: &[&Value]| of.iter().filter_map(|l| l["min_us"].as_f64()).fold(f64::INFINITY, f64::min);
    let mut out = Vec::new();
    for key in order {
        let sides = &rows[&key];
        let [family, op, shape, dtype, direction] = key;
        let mut row = json!({
            "family": family, "op": op, "shape": shape, "dtype": dtype, "direction": direction,
        });
        let mut rivals: BTreeMap<_, _> =
            sides.iter().filter(|(b, _)| **b != OURS).map(|(b, of)| (*b, [time(of), least(of)])).collect();
        let product = rivals.remove(PRODUCT);
        row["rivals_median_min_us"] = json!(rivals);
        if let Some(times) = product {
            row["cublaslt_median_min_us"] = json!(times);
        }
        if let Some(ours) = sides.get(OURS) {
            let (us, flops, bytes) = (time(ours), ours[0]["flops"].as_f64(), ours[0]["bytes"].as_f64());
            let (flops, bytes) = (flops.unwrap_or(0.0), bytes.unwrap_or(0.0));
            let floor = (flops / tflops.0 / 1e6).max(bytes / gbps.0 / 1e3);
            row["median_us"] = json!(us);
            row["min_us"] = json!(least(ours));
            row["max_us"] = json!(ours.iter().filter_map(|l| l["max_us"].as_f64()).fold(0.0, f64::max));
            row["flops"] = ours[0]["flops"].clone();
            row["bytes"] = ours[0]["bytes"].clone();
            row["tflops"] = json!(flops / us / 1e6);
            row["gbps"] = json!(bytes / us / 1e3);
            row["roofline_share"] = json!(floor / us);
            if let Some((rival, theirs)) = rivals.iter().min_by(|a, b| a.1[0].total_cmp(&b.1[0])) {
                row["rival"] = json!(rival);
                row["ratio"] = json!(theirs[0] / us);
                let best = rivals.values().map(|r| r[1]).fold(f64::INFINITY, f64::min);
                row["ratio_of_best"] = json!(best / least(ours));
            }
            if let Some([theirs, _]) = product {
                row["ratio_to_cublaslt"] = json!(theirs / us);
            }
        }
        out.push(row);
    }
    json!({
        "roofline": { "tflops": tflops.0, "tflops_by": tflops.1, "gbps": gbps.0, "gbps_by": gbps.1 },
        "rows": out,
    })
}

/// The report as a Markdown table: medians, and in parentheses the fastest runs, which other load on the
/// machine disturbs least. A ratio above 1 means that ours is faster. The columns for cuBLASLt are present if
/// it ran.
pub(super) fn markdown(report: &Value) -> String {
    // Writing to a string cannot fail.
    let roofline = &report["roofline"];
    let number = |v: &Value| v.as_f64().unwrap_or(0.0);
    let mut out = format!(
        "{}, {}, rounds: {}, load before: {}. Roofline: {:.3} TFLOP/s ({}), {:.1} GB/s ({}).\n\n",
        text(report, "machine"),
        text(report, "date"),
        report["rounds"],
        text(report, "load_before"),
        number(&roofline["tflops"]),
        text(roofline, "tflops_by"),
        number(&roofline["gbps"]),
        text(roofline, "gbps_by"),
    );
    let rows = || report["rows"].as_array().into_iter().flatten();
    let product = rows().any(|row| row["ratio_to_cublaslt"].is_number());
    let [names, rule] =
        if product { [" cuBLASLt's product, µs | times its speed |", "---|---|"] } else { [""; 2] };
    let _ = writeln!(
        out,
        "| operation | shape | direction | µs | TFLOP/s | GB/s | of the roofline | fastest rival | its µs | times its speed |{names}\n\
         |---|---|---|---|---|---|---|---|---|---|{rule}",
    );
    for row in rows() {
        if !row["median_us"].is_number() {
            continue;
        }
        let us = number(&row["median_us"]);
        let rival = text(row, "rival");
        let (mut theirs, mut ratio) = (String::new(), String::new());
        if !rival.is_empty() {
            let times = &row["rivals_median_min_us"][rival];
            theirs = format!("{} ({})", short(number(&times[0])), short(number(&times[1])));
            ratio = format!("{:.2} ({:.2})", number(&row["ratio"]), number(&row["ratio_of_best"]));
        }
        let alone = match &row["cublaslt_median_min_us"] {
            times if row["ratio_to_cublaslt"].is_number() => {
                let [median, least] = [0, 1].map(|i| short(number(&times[i])));
                format!(" {median} ({least}) | {:.2} |", number(&row["ratio_to_cublaslt"]))
            }
            _ if product => " | |".to_owned(),
            _ => String::new(),
        };
        let _ = writeln!(
            out,
            "| {} | {} {} | {} | {} ({}) | {:.3} | {:.1} | {:.0} % | {rival} | {theirs} | {ratio} |{alone}",
            text(row, "op"),
            text(row, "shape"),
            text(row, "dtype"),
            text(row, "direction"),
            short(us),
            short(number(&row["min_us"])),
            number(&row["tflops"]),
            number(&row["gbps"]),
            100.0 * number(&row["roofline_share"]),
        );
    }
    out
}

fn short(us: f64) -> String {
    if us < 100.0 { format!("{us:.1}") } else { format!("{us:.0}") }
}

/// Replaces the text between the markers of `name` in `page` by `table`.
pub(super) fn replace(page: &str, name: &str, table: &str) -> Result<String> {
    let (open, close) = (format!("<!-- bench {name} -->"), format!("<!-- /bench {name} -->"));
    let marks = || format!("BENCHMARKS.md lacks {open} and {close}");
    let (before, rest) = page.split_once(&open).with_context(marks)?;
    let (_, after) = rest.split_once(&close).with_context(marks)?;
    Ok(format!("{before}{open}\n{table}{close}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(backend: &str, us: f64) -> Value {
        json!({ "family": "rowwise", "op": "layernorm", "shape": "4x8", "dtype": "f32", "direction": "forward",
                "backend": backend, "median_us": us, "min_us": us, "max_us": us, "flops": 2_000_000, "bytes": 1000 })
    }

    #[test]
    fn medians_over_rounds_against_the_fastest_rival() {
        let top = |backend: &str, tflops| json!({ "op": "roofline", "backend": backend, "tflops": tflops, "gbps": 1.0 });
        let lines = [
            top("pheye", 0.5),
            line("pheye", 10.0),
            line("slow", 90.0),
            top("torch", 1.0),
            line("fast", 30.0),
            line("pheye", 2.0),
            line("pheye", 4.0),
        ];
        let report = report(&lines);
        let row = &report["rows"][0];
        assert_eq!((row["median_us"].as_f64(), row["ratio"].as_f64()), (Some(4.0), Some(7.5)));
        assert_eq!((row["rival"].as_str(), row["roofline_share"].as_f64()), (Some("fast"), Some(0.5)));
        assert_eq!(report["roofline"]["tflops_by"], "torch");
        assert!(
            markdown(&report)
                .contains("4.0 (2.0) | 0.500 | 0.2 | 50 % | fast | 30.0 (30.0) | 7.50 (15.00) |")
        );
    }

    #[test]
    fn the_plain_product_has_a_column_and_is_no_rival() {
        let other = |us: f64| {
            let mut row = line("pheye", us);
            row["shape"] = json!("9x9");
            row
        };
        let top = json!({ "op": "roofline", "backend": "pheye", "tflops": 1.0, "gbps": 1.0 });
        let lines = [top, line("pheye", 4.0), line("cuBLASLt", 3.0), line("F.linear", 8.0), other(5.0)];
        let report = report(&lines);
        let [row, without] = [&report["rows"][0], &report["rows"][1]];
        assert_eq!((row["rival"].as_str(), row["ratio"].as_f64()), (Some("F.linear"), Some(2.0)));
        assert_eq!(row["ratio_to_cublaslt"].as_f64(), Some(0.75));
        assert_eq!(row["rivals_median_min_us"], json!({ "F.linear": [8.0, 8.0] }));
        assert!(without["ratio_to_cublaslt"].is_null());
        let table = markdown(&report);
        let ends = ["| cuBLASLt's product, µs | times its speed |", "| 3.0 (3.0) | 0.75 |", "|  |  |  | | |"];
        let found: Vec<_> = table.lines().filter(|l| ends.iter().any(|end| l.ends_with(end))).collect();
        assert_eq!(found.len(), 3, "{table}");
        let columns = |l: &str| l.matches('|').count();
        assert!(table.lines().skip(2).all(|l| columns(l) == columns(found[0])), "{table}");
        // There is no column if cuBLASLt did not run.
        assert!(!markdown(&super::report(&[line("pheye", 4.0), line("F.linear", 8.0)])).contains("cuBLASLt"));
    }

    #[test]
    fn a_table_replaces_the_one_before_it() {
        let page = "a\n<!-- bench cpu -->\nold\n<!-- /bench cpu -->\nb\n";
        let once = replace(page, "cpu", "new\n").unwrap();
        assert_eq!(once, "a\n<!-- bench cpu -->\nnew\n<!-- /bench cpu -->\nb\n");
        assert_eq!(replace(&once, "cpu", "new\n").unwrap(), once);
        assert!(replace(page, "cuda", "new\n").is_err());
    }
}
