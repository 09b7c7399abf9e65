//! Captions as one text, a line each, and its tokens by line.

use rayon::prelude::*;

use super::BREAKS;
use super::lexer::Lexer;

/// Bytes of text that a thread reads at once.
const PIECE: usize = 1 << 16;

/// The tokens of a stretch of the text, by line, and where reading ended.
struct Piece {
    lines: Vec<Vec<String>>,
    end: usize,
}

/// The tokens of each caption.
pub(super) fn lines<S: AsRef<str>>(captions: &[S]) -> Vec<Vec<String>> {
    let mut text = String::new();
    for (i, caption) in captions.iter().enumerate() {
        if i > 0 {
            text.push('\n');
        }
        text.extend(caption.as_ref().chars().map(|c| if BREAKS.contains(&c) { ' ' } else { c }));
    }
    let starts = starts(&text);
    let ends: Vec<usize> = starts.iter().skip(1).copied().chain([text.len()]).collect();
    let read = |(&start, &end): (&usize, &usize)| piece(&text, start, end);
    let pieces: Vec<Piece> = starts.par_iter().zip(&ends).map(read).collect();
    let mut all = vec![Vec::new()];
    let mut at = 0;
    for ((mut next, start), end) in pieces.into_iter().zip(starts).zip(ends) {
        if at != start {
            // A tag reached over the boundary, so this piece begins elsewhere.
            next = piece(&text, at, end);
        }
        at = next.end;
        append(&mut all, next.lines);
    }
    all.resize(captions.len(), Vec::new());
    all
}

/// Where pieces begin: at 0 and at line feeds, about [`PIECE`] bytes apart. A token that ends before a line feed
/// is complete, so that reading can begin there.
fn starts(text: &str) -> Vec<usize> {
    let mut starts = vec![0];
    while let Some(&last) = starts.last() {
        let beyond = last + PIECE;
        let Some(feed) = text.as_bytes().get(beyond..).and_then(|rest| rest.iter().position(|&b| b == b'\n'))
        else {
            break;
        };
        starts.push(beyond + feed);
    }
    starts
}

/// Reads from `start` until `end` is reached or passed.
fn piece(text: &str, start: usize, end: usize) -> Piece {
    let lexer = Lexer::get();
    let mut cache = lexer.cache();
    let mut lines = vec![Vec::new()];
    let mut at = start;
    while at < end {
        if text.as_bytes()[at] == b'\n' {
            lines.push(Vec::new());
            at += 1;
            continue;
        }
        // The usual white space, without the automaton. Other spaces may form a run with this one.
        if text.as_bytes()[at..].starts_with(b" ")
            && text.as_bytes().get(at + 1).is_some_and(u8::is_ascii_graphic)
        {
            at += 1;
            continue;
        }
        let (matched, emit) = lexer.next(&mut cache, text, at);
        if let Some(token) = emit.token(&text[at..at + matched]) {
            let token = token.to_lowercase();
            // A tag may contain a line feed, which then separates lines as any other does.
            append(&mut lines, token.split('\n').map(words).collect());
        }
        at += emit.consumed(matched).max(1);
    }
    Piece { lines, end: at }
}

fn words(part: &str) -> Vec<String> {
    if part.is_empty() { Vec::new() } else { vec![part.to_owned()] }
}

/// Adds `more` lines, of which the first continues the last one.
fn append(lines: &mut Vec<Vec<String>>, more: Vec<Vec<String>>) {
    let mut more = more.into_iter();
    if let (Some(last), Some(first)) = (lines.last_mut(), more.next()) {
        last.extend(first);
    }
    lines.extend(more);
}
