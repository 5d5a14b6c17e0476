//! From a line to pieces and words: comments, quotes and braces as keepalived reads them.
//!
//! Comments begin with `#` or `!` outside double quotes. Braces need no white space around them. Two ways to cut words:
//! plain (only `"` groups, nothing escapes) and script (`"` and `'` group, a backslash escapes). Curly quotes are letters.

use std::ops::Range;

use super::line::{Line, is_blank};
use super::source::Span;

/// One word of a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) text: String,
    pub(super) span: Span,
}

/// How a statement's words are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Quoting {
    Plain,
    Script,
}

/// A part of a line between braces, or a brace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    Words { start: usize, end: usize },
    Open(usize),
    Close(usize),
}

/// The line without its comment, without white space at its ends and with `\#` and `\!` unescaped.
pub(super) fn decomment(line: &Line) -> Line {
    let text = line.text();
    if !text.contains(['#', '!', '\\']) {
        return line.trimmed();
    }
    let mut kept = Line::default();
    let (mut from, mut quoted) = (0, false);
    let mut bytes = text.bytes().enumerate();
    let mut end = text.len();
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'"' => quoted = !quoted,
            b'\\' => {
                let next = bytes.next();
                if !quoted && matches!(next, Some((_, b'#' | b'!'))) {
                    kept.push_part(line, from..at);
                    from = at + 1;
                }
            }
            b'#' | b'!' if !quoted => {
                end = at;
                break;
            }
            _ => {}
        }
    }
    kept.push_part(line, from..end);
    kept.trimmed()
}

/// The next piece at or after a byte of the text, or `None` at its end.
pub(super) fn piece(text: &str, from: usize, quoting: Quoting) -> Option<Piece> {
    let rest = text.get(from..)?;
    let start = from + (rest.len() - rest.trim_start_matches(is_blank).len());
    match text.as_bytes().get(start)? {
        b'{' => return Some(Piece::Open(start)),
        b'}' => return Some(Piece::Close(start)),
        _ => {}
    }
    let (mut quoted, mut escaped) = (false, false);
    for (at, byte) in text.bytes().enumerate().skip(start) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoting == Quoting::Script => escaped = true,
            b'"' => quoted = !quoted,
            b'{' | b'}' if !quoted => return Some(Piece::Words { start, end: at }),
            _ => {}
        }
    }
    Some(Piece::Words { start, end: text.len() })
}

/// The first word of a piece, for looking up how the rest is to be cut.
pub(super) fn first_word(text: &str, from: usize) -> &str {
    let rest = text.get(from..).unwrap_or_default().trim_start_matches(is_blank);
    rest.split(|c| is_blank(c) || matches!(c, '{' | '}' | '"')).next().unwrap_or_default()
}

/// The words of a range of a line, and where a quote opens that nothing closes.
pub(super) fn words(line: &Line, range: Range<usize>, quoting: Quoting) -> (Vec<Word>, Option<Span>) {
    match quoting {
        Quoting::Plain => plain_words(line, range),
        Quoting::Script => script_words(line, range),
    }
}

fn plain_words(line: &Line, range: Range<usize>) -> (Vec<Word>, Option<Span>) {
    let text = line.text();
    let mut words = Vec::new();
    let mut at = range.start;
    while let Some(c) = text.get(at..range.end).and_then(|rest| rest.chars().next()) {
        if is_blank(c) {
            at += c.len_utf8();
            continue;
        }
        let rest = text.get(at..range.end).unwrap_or_default();
        if c == '"' {
            let Some(close) = rest.get(1..).and_then(|inner| inner.find('"')) else {
                words.push(Word { text: rest.get(1..).unwrap_or_default().to_owned(), span: line.span(at..range.end) });
                return (words, Some(line.span(at..at + 1)));
            };
            let inner = rest.get(1..=close).unwrap_or_default().to_owned();
            words.push(Word { text: inner, span: line.span(at..at + close + 2) });
            at += close + 2;
        } else {
            let length = rest.find(|c| is_blank(c) || c == '"').unwrap_or(rest.len());
            let word = rest.get(..length).unwrap_or_default().to_owned();
            words.push(Word { text: word, span: line.span(at..at + length) });
            at += length;
        }
    }
    (words, None)
}

fn script_words(line: &Line, range: Range<usize>) -> (Vec<Word>, Option<Span>) {
    let text = line.text().get(range.clone()).unwrap_or_default();
    let mut words = Vec::new();
    let mut word: Option<(usize, String)> = None;
    let mut quote: Option<(usize, char)> = None;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        if quote.is_none() && is_blank(c) {
            if let Some((start, text)) = word.take() {
                words.push(Word { text, span: line.span(range.start + start..range.start + at) });
            }
            continue;
        }
        let (_, text) = word.get_or_insert((at, String::new()));
        match (quote, c) {
            (_, '\\') => text.extend(chars.next().map(|(_, next)| next)),
            (Some((_, open)), _) if open == c => quote = None,
            (None, '"' | '\'') => quote = Some((at, c)),
            _ => text.push(c),
        }
    }
    if let Some((start, text)) = word {
        words.push(Word { text, span: line.span(range.start + start..range.end) });
    }
    (words, quote.map(|(at, _)| line.span(range.start + at..range.start + at + 1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> Line {
        Line::verbatim(text, Span { start: 0, end: text.len(), ..Span::default() })
    }

    fn cut(text: &str, quoting: Quoting) -> Vec<String> {
        words(&line(text), 0..text.len(), quoting).0.into_iter().map(|word| word.text).collect()
    }

    #[test]
    fn a_comment_begins_anywhere_outside_quotes() {
        assert_eq!(decomment(&line("weight 1 # three")).text(), "weight 1");
        assert_eq!(decomment(&line("auth_pass a!b")).text(), "auth_pass a");
        assert_eq!(decomment(&line("auth_pass \"a!b#c\"")).text(), "auth_pass \"a!b#c\"");
        assert_eq!(decomment(&line("path /a\\#b\\!c ! d")).text(), "path /a#b!c");
        assert_eq!(decomment(&line("! nothing")).text(), "");
    }

    #[test]
    fn an_unescaped_character_keeps_its_place() {
        let kept = decomment(&line("a\\#b c"));
        assert_eq!(kept.span(4..5), Span { start: 5, end: 6, ..Span::default() });
    }

    #[test]
    fn a_quote_begins_a_word_even_where_it_abuts() {
        assert_eq!(cut("a\"b c\"d", Quoting::Plain), ["a", "b c", "d"]);
        assert_eq!(cut("a 'b c' \u{201c}d e\u{201d}", Quoting::Plain), ["a", "'b", "c'", "\u{201c}d", "e\u{201d}"]);
    }

    #[test]
    fn a_script_has_both_quotes_and_escapes() {
        assert_eq!(
            cut(r#"script "/bin/a 'b' \"c\"" 'd "e"' f\ g"#, Quoting::Script),
            ["script", "/bin/a 'b' \"c\"", "d \"e\"", "f g"]
        );
    }

    #[test]
    fn an_open_quote_is_told() {
        let (words, open) = words(&line("path \"/a b"), 0..10, Quoting::Plain);
        assert_eq!(words.len(), 2);
        assert_eq!(open, Some(Span { start: 5, end: 6, ..Span::default() }));
    }

    #[test]
    fn braces_need_no_space() {
        let text = "TCP_CHECK{a 1}}";
        assert_eq!(piece(text, 0, Quoting::Plain), Some(Piece::Words { start: 0, end: 9 }));
        assert_eq!(piece(text, 9, Quoting::Plain), Some(Piece::Open(9)));
        assert_eq!(piece(text, 10, Quoting::Plain), Some(Piece::Words { start: 10, end: 13 }));
        assert_eq!(piece(text, 13, Quoting::Plain), Some(Piece::Close(13)));
        assert_eq!(piece(text, 15, Quoting::Plain), None);
        assert_eq!(piece("a \"{\" b", 0, Quoting::Plain), Some(Piece::Words { start: 0, end: 7 }));
    }
}
