//! From files to finished lines: comments gone, `@id` decided, definitions replaced, includes followed.
//!
//! The order on each line is keepalived's: comment, `@id`, definition, sequence, replacement, include. Each finished line goes to
//! the block builder at once, so that a large file is never held twice.

use std::path::{Path, PathBuf};

use super::block::Builder;
use super::definitions::{self, Definitions};
use super::diagnostics::{Diagnostic, Diagnostics};
use super::include::{self, Checks};
use super::lexer::{self, Quoting, Word};
use super::line::{Line, is_blank};
use super::sequence::{self, Sequence};
use super::source::{FileId, SourceMap, Span};
use super::{Includes, LoadOptions};

/// Longest physical line, in bytes: keepalived's buffer.
const LONGEST_LINE: usize = 1024;
/// Deepest nesting of includes.
const DEEPEST: usize = 16;
/// Most files of one configuration.
const MOST_FILES: usize = 4096;
/// Most lines that sequences give in all.
const MOST_REPEATED: usize = 100_000;
/// The id that lines for Sluice alone carry: `@sluice …`. keepalived skips them, for its own id differs.
const OWN_ID: &str = "sluice";

/// Reads files into a builder.
pub(super) struct Preprocessor<'a> {
    options: &'a LoadOptions,
    sources: SourceMap,
    report: Diagnostics,
    builder: Builder,
    definitions: Definitions,
    /// A definition whose last line ended in `\`.
    open: Option<(String, Vec<Line>)>,
    /// The files that are being read, outermost first.
    chain: Vec<PathBuf>,
    files: usize,
    /// Lines that sequences gave so far.
    repeated: usize,
}

impl<'a> Preprocessor<'a> {
    pub(super) fn new(options: &'a LoadOptions) -> Self {
        Self {
            options,
            sources: SourceMap::default(),
            report: Diagnostics::default(),
            builder: Builder::default(),
            definitions: Definitions::new(options.instance.clone()),
            open: None,
            chain: Vec::new(),
            files: 0,
            repeated: 0,
        }
    }

    /// What was read: the files, the statements and what was wrong so far.
    pub(super) fn finish(mut self) -> (SourceMap, Builder, Diagnostics) {
        self.end_definition();
        (self.sources, self.builder, self.report)
    }

    /// Reads a file that the user named.
    pub(super) fn file(&mut self, path: &Path) {
        match include::read(path) {
            Ok(bytes) => self.text(&path.to_string_lossy(), path, &bytes),
            Err(error) => self.report.push(
                Diagnostic::file_error(&path.to_string_lossy(), format!("cannot read this file: {error}"))
                    .help("a configuration file has to exist, be a regular file, and be readable by this user"),
            ),
        }
    }

    /// Reads a text as the file `path`.
    pub(super) fn text(&mut self, name: &str, path: &Path, bytes: &[u8]) {
        let file = self.sources.add(name, bytes);
        self.files += 1;
        let directory = path.parent().unwrap_or(Path::new("")).to_string_lossy().into_owned();
        let outer = std::mem::replace(&mut self.definitions.directory, directory);
        self.chain.push(path.to_owned());
        self.lines(file);
        self.chain.pop();
        self.definitions.directory = outer;
        self.end_definition();
    }

    fn lines(&mut self, file: FileId) {
        let Some(source) = self.sources.file(file).cloned() else { return };
        for index in 0..source.line_count() {
            let range = source.line_range(index);
            let text = source.text().get(range.clone()).unwrap_or_default();
            if text.is_empty() {
                continue;
            }
            let span = Span { file, start: range.start, end: range.end };
            if text.len() > LONGEST_LINE {
                self.report.push_with(|| {
                    Diagnostic::error(span, format!("this line has {} bytes", text.len()))
                        .label(format!("keepalived reads at most {LONGEST_LINE} and drops the line"))
                        .help("break it in several, or use definitions ($NAME=value)")
                });
            } else if let Some(at) = text.find('\0') {
                let start = range.start + at;
                self.report.push_with(|| {
                    Diagnostic::error(Span { file, start, end: start + 1 }, "a NUL byte in a line")
                        .label("keepalived drops such a line")
                        .help("is this a text file?")
                });
            } else {
                self.raw_line(&Line::verbatim(text, span));
            }
        }
    }

    fn raw_line(&mut self, line: &Line) {
        let line = lexer::decomment(line);
        if line.is_empty() {
            return;
        }
        let Some(line) = self.conditional(line) else { return };
        if let Some((_, lines)) = &mut self.open {
            let (value, continues) = definitions::continuation(&line);
            lines.push(value);
            if !continues {
                self.end_definition();
            }
            return;
        }
        if let Some(opening) = definitions::opening(&line) {
            // A first line with nothing but the backslash is layout, not an empty line of the value.
            let first = if opening.continues && opening.value.is_empty() { Vec::new() } else { vec![opening.value] };
            self.open = Some((opening.name, first));
            if !opening.continues {
                self.end_definition();
            }
            return;
        }
        self.repeat(line);
    }

    /// Follows the sequences of a line, the leftmost outermost.
    fn repeat(&mut self, line: Line) {
        match sequence::find(line.text()) {
            None => {
                for line in self.definitions.expand(line, &mut self.report) {
                    if let Some(line) = self.conditional(line.trimmed()) {
                        self.finished(&line);
                    }
                }
            }
            Some(Err(bad)) => {
                let span = line.span(bad.start..bad.end);
                self.report.push(Diagnostic::error(span, "this sequence makes no sense").label(bad.reason));
            }
            Some(Ok(found)) => self.turns(&line, &found),
        }
    }

    fn turns(&mut self, line: &Line, found: &Sequence) {
        let mut rest = line.part(0..found.start);
        rest.push_part(line, found.end..line.text().len());
        let span = line.span(found.start..found.end);
        let outer = self.definitions.take(&found.names);
        for turn in &found.turns {
            self.repeated += 1;
            if self.repeated > MOST_REPEATED {
                if self.repeated == MOST_REPEATED + 1 {
                    let diagnostic = Diagnostic::error(span, "sequences give too many lines");
                    self.report.push(diagnostic.label(format!("at most {MOST_REPEATED} in all")));
                }
                break;
            }
            for (name, value) in found.names.iter().zip(turn) {
                let mut line = Line::default();
                line.push_replacement(value, span);
                self.definitions.define(name.clone(), vec![line]);
            }
            self.repeat(rest.clone());
        }
        self.definitions.put_back(&found.names, outer);
    }

    fn end_definition(&mut self) {
        if let Some((name, lines)) = self.open.take() {
            self.definitions.define(name, lines);
        }
    }

    /// Decides `@id` and `@^id` prefixes: the rest of the line, or `None` where it is not for us.
    fn conditional(&mut self, mut line: Line) -> Option<Line> {
        while let Some(rest) = line.text().strip_prefix('@') {
            let (negated, id) = rest.strip_prefix('^').map_or((false, rest), |id| (true, id));
            let length = id.find(is_blank).unwrap_or(id.len());
            let id = id.get(..length)?;
            let end = 1 + usize::from(negated) + length;
            if id.is_empty() {
                self.report.push(
                    Diagnostic::error(line.span(0..end), "`@` without an id")
                        .label("expected `@id ` or `@^id ` and the rest of the line"),
                );
                return None;
            }
            let ours = id == self.options.config_id || id == OWN_ID;
            if ours == negated {
                return None;
            }
            line = line.part(end..line.text().len()).trimmed();
        }
        (!line.is_empty()).then_some(line)
    }

    fn finished(&mut self, line: &Line) {
        // One that a definition brought: its own names would already have been looked for.
        if let Some(found) = sequence::find(line.text()) {
            let (start, end) = match found {
                Ok(found) => (found.start, found.end),
                Err(bad) => (bad.start, bad.end),
            };
            self.report.push_with(|| {
                Diagnostic::error(line.span(start..end), "a sequence inside a definition is not supported yet")
                    .label("would repeat this line")
                    .help("put it on the line that uses the definition")
            });
            return;
        }
        match include::checks(lexer::first_word(line.text(), 0)) {
            Some(checks) => self.include(line, checks),
            None => self.builder.line(line, &mut self.report),
        }
    }

    fn include(&mut self, line: &Line, checks: Checks) {
        let (words, _) = lexer::words(line, 0..line.text().len(), Quoting::Plain);
        let [keyword, pattern, rest @ ..] = words.as_slice() else {
            self.report.push(
                Diagnostic::error(line.span(0..line.text().len()), "include of what?").label("expected a file name"),
            );
            return;
        };
        if let Some(extra) = rest.first() {
            self.report.push(Diagnostic::warning(extra.span, "more than one pattern").label("is ignored"));
        }
        if self.options.includes == Includes::Refuse {
            self.report.push(Diagnostic::error(keyword.span, "includes are not followed here"));
            return;
        }
        let directory = PathBuf::from(&self.definitions.directory);
        match include::matches(&pattern.text, &directory) {
            Ok(found) => {
                self.missing(pattern, &found, checks);
                for path in found.files {
                    self.included(pattern, &path);
                }
            }
            Err(reason) => self.report.push(Diagnostic::error(pattern.span, reason).label("expected a file pattern")),
        }
    }

    fn missing(&mut self, pattern: &Word, found: &include::Matches, checks: Checks) {
        for (part, wildcard) in &found.missing {
            let wrong = (checks.any_match && found.files.is_empty())
                || (checks.wildcard_match && *wildcard)
                || (checks.brace_match && found.braces);
            let message = format!("no file matches `{part}`");
            if wrong {
                self.report.push(Diagnostic::error(pattern.span, message).label("includes nothing"));
            } else if !wildcard {
                self.report.push(Diagnostic::warning(pattern.span, message).label("includes nothing"));
            }
        }
    }

    fn included(&mut self, pattern: &Word, path: &Path) {
        let name = path.to_string_lossy();
        if include::passed_over(path) {
            self.report.push(
                Diagnostic::warning(pattern.span, format!("`{name}` is passed over"))
                    .label("names it")
                    .help("keepalived reads no file that is executable or not regular"),
            );
        } else if self.chain.iter().any(|open| same_file(open, path)) {
            self.report
                .push(Diagnostic::error(pattern.span, format!("`{name}` includes itself")).label("would never end"));
        } else if self.chain.len() >= DEEPEST || self.files >= MOST_FILES {
            self.report.push(
                Diagnostic::error(pattern.span, format!("`{name}` is not read: too many includes"))
                    .label(format!("at most {MOST_FILES} files, {DEEPEST} deep")),
            );
        } else {
            match include::read(path) {
                Ok(bytes) => self.text(&name, path, &bytes),
                Err(error) => self
                    .report
                    .push(Diagnostic::error(pattern.span, format!("cannot read `{name}`: {error}")).label("names it")),
            }
        }
    }
}

fn same_file(a: &Path, b: &Path) -> bool {
    match (a.canonicalize(), b.canonicalize()) {
        (Ok(a), Ok(b)) => a == b,
        _ => a == b,
    }
}
