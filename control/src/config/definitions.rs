//! `$NAME=value` and its uses: textual, expanded where used, the last definition before the use counting.
//!
//! Expansion is bounded in depth and size, so that a definition of itself, or one that doubles and doubles, is an error
//! and not the end of memory.

use std::collections::HashMap;

use super::diagnostics::{Diagnostic, Diagnostics};
use super::line::{Line, is_blank};
use super::source::Span;

/// Deepest nesting of definitions.
const DEEPEST: usize = 32;
/// Most text that one line may become, in bytes.
const LONGEST: usize = 1024 * 1024;
/// Most text that all lines together may become, in bytes.
const MOST: usize = 64 * 1024 * 1024;

/// The definitions so far, and what the predefined ones need.
#[derive(Debug, Default)]
pub(super) struct Definitions {
    values: HashMap<String, Vec<Line>>,
    /// Bytes that expansion gave so far.
    spent: usize,
    /// `${_INSTANCE}`.
    instance: Option<String>,
    /// `${_PWD}`: the directory of the current file.
    pub(super) directory: String,
}

/// A definition that began on a line and may go on.
#[derive(Debug)]
pub(super) struct Opening {
    pub(super) name: String,
    pub(super) value: Line,
    pub(super) continues: bool,
}

/// A reference found in a text.
struct Reference<'a> {
    start: usize,
    end: usize,
    name: &'a str,
    braced: bool,
}

/// Reads `$NAME=value`; `None` for any other line.
pub(super) fn opening(line: &Line) -> Option<Opening> {
    let rest = line.text().strip_prefix('$')?;
    let name_length = name_length(rest);
    if name_length == 0 || !rest.get(name_length..)?.starts_with('=') {
        return None;
    }
    let value = line.part(name_length + 2..line.text().len()).trimmed();
    let (value, continues) = continuation(&value);
    Some(Opening { name: rest.get(..name_length)?.to_owned(), value, continues })
}

/// A line of a definition without its `\`, and whether it had one.
pub(super) fn continuation(line: &Line) -> (Line, bool) {
    match line.text().strip_suffix('\\') {
        Some(kept) => (line.part(0..kept.len()).trimmed(), true),
        None => (line.clone(), false),
    }
}

impl Definitions {
    /// None yet, for the instance of that name.
    pub(super) fn new(instance: Option<String>) -> Self {
        Self { instance, ..Self::default() }
    }

    pub(super) fn define(&mut self, name: String, lines: Vec<Line>) {
        self.values.insert(name, lines);
    }

    /// Takes the values of some names away, to be put back later.
    pub(super) fn take(&mut self, names: &[String]) -> Vec<Option<Vec<Line>>> {
        names.iter().map(|name| self.values.remove(name)).collect()
    }

    /// Undoes [`Definitions::take`] and what was defined since.
    pub(super) fn put_back(&mut self, names: &[String], values: Vec<Option<Vec<Line>>>) {
        for (name, value) in names.iter().zip(values) {
            match value {
                Some(lines) => self.values.insert(name.clone(), lines),
                None => self.values.remove(name),
            };
        }
    }

    /// The line with every reference replaced: more than one line where a definition has several.
    pub(super) fn expand(&mut self, line: Line, report: &mut Diagnostics) -> Vec<Line> {
        if !line.text().contains('$') {
            return vec![line];
        }
        let mut done = Vec::new();
        let mut expansion = Expansion { definitions: self, report, size: 0, failed: false };
        expansion.line(&line, None, 0, &mut done);
        let (size, failed) = (expansion.size, expansion.failed);
        self.spent += size;
        if failed { Vec::new() } else { done }
    }

    fn predefined(&self, name: &str) -> Option<Result<String, String>> {
        let mut words = name.split(is_blank).filter(|word| !word.is_empty());
        let value = match (words.next()?, words.next()) {
            ("_HASH", None) => Ok("#".to_owned()),
            ("_BANG", None) => Ok("!".to_owned()),
            ("_PWD", None) => Ok(self.directory.clone()),
            ("_INSTANCE", None) => self.instance.clone().ok_or_else(|| "no instance name is set".to_owned()),
            ("_ENV", Some(variable)) => std::env::var(variable)
                .map_err(|_| format!("the environment variable `{variable}` is not set, or is no text")),
            ("_RANDOM", least) => random(least, words.next()),
            _ => return None,
        };
        Some(value)
    }
}

fn random(first: Option<&str>, second: Option<&str>) -> Result<String, String> {
    let number = |text: Option<&str>, default: u32| {
        text.map_or(Ok(default), |text| text.parse().map_err(|_| format!("`{text}` is not a number")))
    };
    let (least, most) = (number(first, 0)?, number(second, 32_767)?);
    if least > most {
        return Err(format!("{least} is more than {most}"));
    }
    Ok(rand::random_range(least..=most).to_string())
}

struct Expansion<'a> {
    definitions: &'a Definitions,
    report: &'a mut Diagnostics,
    size: usize,
    failed: bool,
}

impl Expansion<'_> {
    /// Appends `line`, expanded, to `done`. `site` is where the outermost reference stands, inside of one.
    fn line(&mut self, line: &Line, site: Option<Span>, depth: usize, done: &mut Vec<Line>) {
        let mut current = Line::default();
        let mut from = 0;
        while let Some(reference) = next_reference(line.text(), from) {
            current.push_part(line, from..reference.start);
            from = reference.end;
            let span = site.unwrap_or_else(|| line.span(reference.start..reference.end));
            if self.failed || self.too_much(span, depth, line.text().len()) {
                return;
            }
            match self.definitions.values.get(reference.name).map(Vec::as_slice) {
                Some([value]) => {
                    let mut inner = Vec::new();
                    self.line(value, Some(span), depth + 1, &mut inner);
                    self.splice(inner, &mut current, done, Some(span));
                }
                Some(lines) => {
                    if !line.text().get(from..).unwrap_or_default().trim().is_empty() {
                        self.fail(
                            Diagnostic::error(
                                span,
                                format!("`{}` has several lines, and text follows it", reference.name),
                            )
                            .label("must stand last on its line"),
                        );
                    }
                    let mut inner = Vec::new();
                    for value in lines {
                        self.line(value, None, depth + 1, &mut inner);
                    }
                    self.splice(inner, &mut current, done, None);
                }
                None => self.builtin(line, &reference, span, &mut current),
            }
        }
        current.push_part(line, from..line.text().len());
        done.push(current);
    }

    /// Puts expanded lines in the place of a reference: the first goes on the current line, the last stays current.
    fn splice(&mut self, inner: Vec<Line>, current: &mut Line, done: &mut Vec<Line>, site: Option<Span>) {
        for (index, line) in inner.into_iter().enumerate() {
            if index > 0 {
                done.push(std::mem::take(current));
            }
            self.size += line.text().len();
            match site {
                Some(span) => current.push_replacement(line.text(), span),
                None => current.push_part(&line, 0..line.text().len()),
            }
        }
    }

    fn builtin(&mut self, line: &Line, reference: &Reference<'_>, span: Span, current: &mut Line) {
        match self.definitions.predefined(reference.name).filter(|_| reference.braced) {
            Some(Ok(value)) => current.push_replacement(&value, span),
            Some(Err(reason)) => {
                self.report.push(Diagnostic::error(span, reason).label("cannot be replaced"));
                current.push_replacement(reference.name, span);
            }
            None => {
                // In quotes it may be meant for a shell; elsewhere the braces would be read as a block's.
                if reference.braced && !quoted_at(line.text(), reference.start) {
                    self.report.push(
                        Diagnostic::error(span, format!("`{}` is not defined", reference.name))
                            .label("no definition before this line")
                            .help(format!("define it above with `${}=value`, at the start of a line", reference.name)),
                    );
                    current.push_replacement(reference.name, span);
                    return;
                }
                current.push_part(line, reference.start..reference.end);
            }
        }
    }

    fn too_much(&mut self, span: Span, depth: usize, length: usize) -> bool {
        self.size += length;
        if depth >= DEEPEST {
            self.fail(Diagnostic::error(span, "this definition refers to itself").label("never ends"));
        } else if self.size > LONGEST || self.definitions.spent > MOST {
            self.fail(
                Diagnostic::error(span, "definitions become too long here")
                    .label(format!("a line may become {LONGEST} bytes, all together {MOST}")),
            );
        }
        self.failed
    }

    fn fail(&mut self, diagnostic: Diagnostic) {
        self.failed = true;
        self.report.push(diagnostic);
    }
}

fn quoted_at(text: &str, at: usize) -> bool {
    text.bytes().take(at).filter(|byte| *byte == b'"').count() % 2 == 1
}

fn next_reference(text: &str, from: usize) -> Option<Reference<'_>> {
    let mut at = from;
    loop {
        let start = at + text.get(at..)?.find('$')?;
        let rest = text.get(start + 1..)?;
        if let Some(inner) = rest.strip_prefix('{') {
            if let Some(close) = inner.find('}') {
                let name = inner.get(..close)?;
                if name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
                    return Some(Reference { start, end: start + close + 3, name, braced: true });
                }
            }
        } else {
            let length = name_length(rest);
            let follower = rest.get(length..)?.chars().next();
            if length > 0 && follower.is_none_or(|c| matches!(c, ' ' | '\t' | ',' | ')')) {
                return Some(Reference { start, end: start + 1 + length, name: rest.get(..length)?, braced: false });
            }
        }
        at = start + 1;
    }
}

fn name_length(text: &str) -> usize {
    let name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if text.starts_with(|c: char| c.is_ascii_digit()) { 0 } else { text.find(|c| !name(c)).unwrap_or(text.len()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> Line {
        Line::verbatim(text, Span { start: 0, end: text.len(), ..Span::default() })
    }

    fn expand(definitions: &[(&str, &[&str])], text: &str) -> (Vec<String>, usize) {
        let mut table = Definitions::new(Some("one".to_owned()));
        for (name, lines) in definitions {
            table.define((*name).to_owned(), lines.iter().map(|text| line(text)).collect());
        }
        let mut report = Diagnostics::default();
        let lines = table.expand(line(text), &mut report);
        (lines.into_iter().map(|line| line.text().to_owned()).collect(), report.error_count())
    }

    #[test]
    fn a_definition_is_replaced_where_it_is_named() {
        let definitions: &[(&str, &[&str])] = &[("A", &["10.0.0"]), ("B", &["${A}.1"])];
        assert_eq!(expand(definitions, "x ${B}:80 $A, $A"), (vec!["x 10.0.0.1:80 10.0.0, 10.0.0".to_owned()], 0));
        assert_eq!(expand(definitions, "$Ab ${A b} a$").0, ["$Ab ${A b} a$".replace("${A b}", "A b")]);
        assert_eq!(expand(&[], "${_HASH}${_BANG}${_INSTANCE}"), (vec!["#!one".to_owned()], 0));
    }

    #[test]
    fn several_lines_stay_several() {
        let definitions: &[(&str, &[&str])] = &[("A", &["one", "two $B", "three"]), ("B", &["2", "2.5"])];
        assert_eq!(expand(definitions, "x $A").0, ["x one", "two 2", "2.5", "three"]);
        assert_eq!(expand(definitions, "x ${A} y").1, 1);
    }

    #[test]
    fn an_undefined_name_is_an_error_outside_quotes() {
        assert_eq!(expand(&[], "x ${NO} y").1, 1);
        assert_eq!(expand(&[], "script \"echo ${HOME} $NO\"").0, ["script \"echo ${HOME} $NO\""]);
        assert_eq!(expand(&[], "script \"echo ${HOME} $NO\"").1, 0);
    }

    #[test]
    fn endless_definitions_end() {
        assert_eq!(expand(&[("A", &["x $A"])], "$A").1, 1);
        let doubling: Vec<String> = (0..30).map(|n| format!("${{D{0}}}${{D{0}}}", n + 1)).collect();
        let names: Vec<String> = (0..=30).map(|n| format!("D{n}")).collect();
        let mut definitions: Vec<(&str, Vec<&str>)> =
            names.iter().zip(&doubling).map(|(name, value)| (name.as_str(), vec![value.as_str()])).collect();
        definitions.push(("D30", vec!["0123456789"]));
        let definitions: Vec<(&str, &[&str])> =
            definitions.iter().map(|(name, lines)| (*name, lines.as_slice())).collect();
        assert_eq!(expand(&definitions, "$D0").1, 1);
    }

    #[test]
    fn a_definition_is_recognised_at_the_start_of_a_line_only() {
        let found = opening(&line("$A_1= x y \\")).unwrap();
        assert_eq!((found.name.as_str(), found.value.text(), found.continues), ("A_1", "x y", true));
        assert!(opening(&line("$A =x")).is_none());
        assert!(opening(&line("$1=x")).is_none());
        assert!(opening(&line("x $A=x")).is_none());
    }
}
