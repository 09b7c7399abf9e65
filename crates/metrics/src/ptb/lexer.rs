//! The automaton that finds the rule with the longest match.
//!
//! All rules are patterns of one DFA, whose states are built when a text first needs them. It reports every
//! pattern that matches a beginning of the text; the last one reported is the longest.

use std::sync::LazyLock;

use regex_automata::hybrid::dfa::{Cache, DFA};
use regex_automata::meta::Regex;
use regex_automata::{Anchored, Input, MatchKind};

use super::emit::Emit;
use super::rules::{RULES, expand};

/// Bytes for the states of one thread's automaton. Captions of any language stay far below it.
const STATES: usize = 16 << 20;

static LEXER: LazyLock<Lexer> = LazyLock::new(Lexer::new);

/// The rules as an automaton.
pub(super) struct Lexer {
    dfa: DFA,
    /// For rules that look ahead: the body as a group, followed by what must follow.
    splits: Vec<Option<Regex>>,
}

impl Lexer {
    /// The lexer, built once.
    pub(super) fn get() -> &'static Lexer {
        &LEXER
    }

    #[expect(clippy::expect_used, reason = "the patterns are constants, and every test builds them")]
    fn new() -> Lexer {
        let whole = |body: &str, ahead: &str| format!("(?:{})(?:{})", expand(body), expand(ahead));
        let patterns: Vec<String> = RULES.iter().map(|rule| whole(rule.body, rule.ahead)).collect();
        let config = DFA::config().match_kind(MatchKind::All).cache_capacity(STATES);
        let dfa = DFA::builder().configure(config).build_many(&patterns).expect("the rules are valid");
        let split = |body: &str, ahead: &str| {
            let pattern = format!("^({})(?:{})$", expand(body), expand(ahead));
            Regex::new(&pattern).expect("the rules are valid")
        };
        let splits = RULES.iter().map(|rule| (!rule.ahead.is_empty()).then(|| split(rule.body, rule.ahead)));
        let splits = splits.collect();
        Lexer { dfa, splits }
    }

    /// A cache for [`Lexer::next`], one for each thread.
    pub(super) fn cache(&self) -> Cache {
        self.dfa.create_cache()
    }

    /// The length in bytes of the token at `at`, and what becomes of it.
    pub(super) fn next(&self, cache: &mut Cache, text: &str, at: usize) -> (usize, Emit) {
        let input = Input::new(text).span(at..text.len()).anchored(Anchored::Yes);
        let found = self.dfa.try_search_fwd(cache, &input).ok().flatten();
        // The last rule matches any character.
        let Some(found) = found else { return (next_char(text, at), Emit::Nothing) };
        let (rule, end) = (found.pattern().as_usize(), found.offset());
        let matched = match &self.splits[rule] {
            None => end - at,
            Some(split) => body_length(split, &text[at..end]),
        };
        (matched, RULES[rule].emit)
    }
}

fn next_char(text: &str, at: usize) -> usize {
    text[at..].chars().next().map_or(1, char::len_utf8)
}

fn body_length(split: &Regex, text: &str) -> usize {
    let mut groups = split.create_captures();
    split.captures(text, &mut groups);
    groups.get_group(1).map_or(text.len(), |group| group.len())
}
