//! Stop strings, which end an answer independently of token boundaries.

/// Byte offset in `text` of the first occurrence of any of `stops`.
pub fn find_stop(stops: &[String], text: &str) -> Option<usize> {
    stops.iter().filter_map(|stop| text.find(stop.as_str())).min()
}

/// Streamed text up to a stop string.
///
/// A stop string may extend over several pieces, so text that could be the beginning of one is held back.
#[derive(Debug)]
pub struct Until<'a> {
    stops: &'a [String],
    text: String,
    /// Number of bytes returned so far.
    given: usize,
    stopped: bool,
}

impl<'a> Until<'a> {
    /// An empty text.
    pub fn new(stops: &'a [String]) -> Until<'a> {
        Until { stops, text: String::new(), given: 0, stopped: false }
    }

    /// Appends `piece` and returns the text that cannot be part of a stop string; nothing after a stop
    /// string.
    pub fn push(&mut self, piece: &str) -> &str {
        if !self.stopped {
            self.text.push_str(piece);
        }
        let found = find_stop(self.stops, &self.text);
        self.stopped = found.is_some();
        // The longest suffix of the text that is a prefix of a stop string is held back.
        let begun = |stop: &String| {
            let fits = |len: &usize| stop.is_char_boundary(*len) && self.text.ends_with(&stop[..*len]);
            (1..stop.len()).rev().find(fits).unwrap_or(0)
        };
        let held = self.stops.iter().map(begun).max().unwrap_or(0);
        self.give(found.unwrap_or(self.text.len() - held))
    }

    /// The text that was held back, once there is no more input.
    pub fn finish(&mut self) -> &str {
        self.give(if self.stopped { self.given } else { self.text.len() })
    }

    fn give(&mut self, end: usize) -> &str {
        let start = self.given;
        self.given = end.max(start);
        &self.text[start..self.given]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The text returned for each piece, and at the end.
    fn given(stops: &[&str], pieces: &[&str]) -> (Vec<String>, String) {
        let stops: Vec<String> = stops.iter().map(|&s| s.to_owned()).collect();
        let mut until = Until::new(&stops);
        let parts = pieces.iter().map(|p| until.push(p).to_owned()).collect();
        (parts, until.finish().to_owned())
    }

    #[test]
    fn a_stop_string_may_span_pieces() {
        let strings = |parts: &[&str]| parts.iter().map(|&p| p.to_owned()).collect::<Vec<_>>();
        assert_eq!(
            given(&["###"], &["red#", "#", "# blue", "!"]),
            (strings(&["red", "", "", ""]), String::new())
        );
        assert_eq!(
            given(&["###"], &["red#", "#", " blue"]),
            (strings(&["red", "", "## blue"]), String::new())
        );
        assert_eq!(given(&["###"], &["red##"]), (strings(&["red"]), "##".to_owned()));
        assert_eq!(given(&["ab", "b"], &["xa", "c"]), (strings(&["x", "ac"]), String::new()));
        // The stop string that begins first counts.
        assert_eq!(given(&["dog", "a do"], &["not a dog"]), (strings(&["not "]), String::new()));
        assert_eq!(given(&["aab"], &["aa", "ab"]), (strings(&["", "a"]), String::new()));
        // Characters of several bytes.
        assert_eq!(given(&["日本語"], &["x日", "本", "人"]), (strings(&["x", "", "日本人"]), String::new()));
        assert_eq!(given(&["é!"], &["é", "?"]), (strings(&["", "é?"]), String::new()));
        assert_eq!(given(&[], &["a", "b"]), (strings(&["a", "b"]), String::new()));
    }

    #[test]
    fn pieces_make_no_difference() {
        let (text, stops) = ("one, two; three. four", ["ee.", "; f", "four"]);
        let (whole, rest) = given(&stops, &[text]);
        assert_eq!((whole.concat(), rest.as_str()), ("one, two; thr".to_owned(), ""));
        for cut in 0..text.len() {
            for next in cut..text.len() {
                let pieces = [&text[..cut], &text[cut..next], &text[next..]];
                let (parts, rest) = given(&stops, &pieces);
                assert_eq!(parts.concat() + &rest, whole[0], "{pieces:?}");
            }
        }
    }
}
