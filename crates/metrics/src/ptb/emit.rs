//! What a matched rule makes of its text.

use std::borrow::Cow;

/// What a matched rule makes of its text.
#[derive(Debug, Clone, Copy)]
pub(super) enum Emit {
    /// No token.
    Nothing,
    /// The text.
    Text,
    /// Another text.
    As(&'static str),
    /// The text without soft hyphens; a hyphen if there is nothing else.
    Word,
    /// The text with each form of an apostrophe as `'`, and of an opening one as `` ` ``.
    Apostrophe,
    /// The text with `&` for `&amp;`.
    Ampersand,
    /// The text with no-break spaces for spaces.
    Spaced,
    /// The text with no-break spaces for spaces, and names for round brackets.
    Joined,
    /// Quotation marks, each by its shape.
    Quotes,
    /// The text; its full stop is read again, as the end of a sentence.
    Sentence,
}

impl Emit {
    /// The token, if there is one, of `text`.
    pub(super) fn token(self, text: &str) -> Option<Cow<'_, str>> {
        Some(match self {
            Emit::Nothing => return None,
            Emit::Text | Emit::Sentence => text.into(),
            Emit::As(other) => other.into(),
            Emit::Word => word(text),
            Emit::Apostrophe => apostrophe(text).into(),
            Emit::Ampersand => text.to_lowercase().replace("&amp;", "&").into(),
            Emit::Spaced => spaced(text).into(),
            Emit::Joined => spaced(text).replace('(', "-LRB-").replace(')', "-RRB-").into(),
            Emit::Quotes => text.chars().map(quote).collect::<String>().into(),
        })
    }

    /// How many of the `matched` bytes are read: a full stop at the end may be left.
    pub(super) fn consumed(self, matched: usize) -> usize {
        if matches!(self, Emit::Sentence) { matched - 1 } else { matched }
    }
}

fn word(text: &str) -> Cow<'_, str> {
    if !text.contains('\u{ad}') {
        return text.into();
    }
    let text = text.replace('\u{ad}', "");
    if text.is_empty() { "-".into() } else { text.into() }
}

fn apostrophe(text: &str) -> String {
    let closing = text.replace(['\u{92}', '\u{2019}'], "'").replace("&apos;", "'");
    closing.replace(['\u{91}', '\u{2018}', '\u{201B}'], "`")
}

fn spaced(text: &str) -> String {
    text.replace([' ', '\t'], "\u{a0}")
}

fn quote(mark: char) -> &'static str {
    match mark {
        '`' | '\u{91}' | '‘' | '‛' | '‹' => "`",
        '\u{92}' | '’' | '›' => "'",
        '\u{93}' | '“' | '«' => "``",
        '\u{94}' | '”' | '»' => "''",
        '„' => "„",
        '‚' => "‚",
        _ => "‟",
    }
}
