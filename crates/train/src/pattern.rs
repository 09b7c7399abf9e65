//! Glob patterns for the names of parameters.

/// Whether the whole `name` matches `pattern`; `*` stands for any characters (dots too), `?` for one.
pub fn matches(pattern: &str, name: &str) -> bool {
    let (p, n) = (pattern.as_bytes(), name.as_bytes());
    let (mut i, mut j) = (0, 0);
    // Position of the last `*` in the pattern, and of the name after what it has matched so far: on a
    // mismatch, the star matches one more character.
    let mut retry = None;
    while j < n.len() {
        match p.get(i) {
            Some(b'*') => {
                retry = Some((i, j));
                i += 1;
            }
            Some(c) if *c == b'?' || *c == n[j] => (i, j) = (i + 1, j + 1),
            _ => match retry {
                Some((star, taken)) => {
                    retry = Some((star, taken + 1));
                    (i, j) = (star + 1, taken + 1);
                }
                None => return false,
            },
        }
    }
    p[i..].iter().all(|c| *c == b'*')
}

/// Whether `patterns` select `name`: one of them matches it, and none of those with a `!` before them does.
pub(crate) fn selects(patterns: &[String], name: &str) -> bool {
    let without = patterns.iter().filter_map(|p| p.strip_prefix('!')).any(|p| matches(p, name));
    !without && patterns.iter().any(|p| !p.starts_with('!') && matches(p, name))
}

#[cfg(test)]
mod tests {
    use super::{matches, selects};

    #[test]
    fn names_are_selected_and_left_out() {
        let patterns = ["vision.*", "!*.lora_*", "!vision.head"].map(str::to_owned);
        assert!(selects(&patterns, "vision.layers.0.weight"));
        assert!(!selects(&patterns, "vision.layers.0.lora_A.weight"));
        assert!(!selects(&patterns, "vision.head") && !selects(&patterns, "text.weight"));
        assert!(!selects(&patterns[1..], "vision.layers.0.weight"), "nothing is selected");
    }

    #[test]
    fn globs() {
        let yes = [
            ("*lora*", "vision.layers.0.lora_A.first.weight"),
            ("*", ""),
            ("*.bias", "a.b.bias"),
            ("a.?.b", "a.1.b"),
            ("*a*ab", "aaab"),
            ("norm_lvl_*", "norm_lvl_1"),
        ];
        let no = [
            ("*lora*", "cross.to_q.weight"),
            ("", "a"),
            ("*.bias", "a.bias2"),
            ("a.?.b", "a.12.b"),
            ("abc", "ab"),
        ];
        yes.iter().for_each(|(p, n)| assert!(matches(p, n), "{p} {n}"));
        no.iter().for_each(|(p, n)| assert!(!matches(p, n), "{p} {n}"));
    }
}
