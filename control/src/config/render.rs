//! Diagnostics as text (by miette) and as JSON.
//!
//! Each is shown with its one line. Control characters are replaced and long lines cut around the marked part, so that
//! a hostile file can neither steer the terminal nor flood it.

use std::fmt::{self, Write};

use miette::{GraphicalReportHandler, GraphicalTheme, LabeledSpan, MietteError, MietteSpanContents, SourceSpan};
use serde_json::{Value, json};

use super::diagnostics::{Diagnostic, Diagnostics, Location, Severity};
use super::source::{SourceMap, Span};

/// Columns of the output.
const WIDTH: usize = 110;
/// Characters of the line that are shown before and after the start of the marked part.
const BEFORE: usize = 60;
const AFTER: usize = 100;

/// All diagnostics, each followed by an empty line, and how many more there are.
pub(super) fn text(diagnostics: &Diagnostics, theme: &GraphicalTheme) -> String {
    let handler = GraphicalReportHandler::new_themed(theme.clone())
        .with_width(WIDTH)
        .with_context_lines(0)
        .with_links(false)
        .tab_width(4);
    let mut out = String::new();
    for diagnostic in diagnostics.iter() {
        let shown = Shown::new(diagnostics.sources(), diagnostic);
        // Writing to a String does not fail; should miette refuse, the bare message is still there.
        if handler.render_report(&mut out, &shown).is_err() {
            out.push_str(&shown.message);
        }
        out.push('\n');
    }
    let shown = diagnostics.iter().count();
    let all = diagnostics.error_count() + diagnostics.warning_count();
    if all > shown {
        let _ = write!(out, "... and {} more\n\n", all - shown);
    }
    out
}

/// All that were kept, as an array of objects.
pub(super) fn json(diagnostics: &Diagnostics) -> Value {
    let one = |diagnostic: &Diagnostic| {
        let place = diagnostics.place(diagnostic);
        let span = match diagnostic.location {
            Location::Span(span) => json!({ "start": span.start, "end": span.end }),
            Location::File(_) => Value::Null,
        };
        json!({
            "severity": diagnostic.severity,
            "message": diagnostic.message,
            "file": &*place.file,
            "line": place.line,
            "column": place.column,
            "span": span,
            "label": diagnostic.label,
            "help": diagnostic.help,
        })
    };
    Value::Array(diagnostics.iter().map(one).collect())
}

/// A diagnostic as miette takes it.
#[derive(Debug)]
struct Shown {
    message: String,
    severity: miette::Severity,
    label: String,
    help: Option<String>,
    excerpt: Option<Excerpt>,
}

impl Shown {
    fn new(sources: &SourceMap, diagnostic: &Diagnostic) -> Self {
        let (excerpt, message) = match &diagnostic.location {
            Location::Span(span) => (Some(Excerpt::new(sources, *span)), printable(&diagnostic.message)),
            Location::File(name) => (None, printable(&format!("{name}: {}", diagnostic.message))),
        };
        let severity = match diagnostic.severity {
            Severity::Error => miette::Severity::Error,
            Severity::Warning => miette::Severity::Warning,
        };
        let label = printable(&diagnostic.label);
        Self { message, severity, label, help: diagnostic.help.as_deref().map(printable), excerpt }
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Shown {}

impl miette::Diagnostic for Shown {
    fn severity(&self) -> Option<miette::Severity> {
        Some(self.severity)
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.help.as_ref().map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn miette::SourceCode> {
        self.excerpt.as_ref().map(|excerpt| excerpt as &dyn miette::SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let excerpt = self.excerpt.as_ref()?;
        let label = (!self.label.is_empty()).then(|| self.label.clone());
        let marked = LabeledSpan::new_primary_with_span(label, excerpt.marked);
        Some(Box::new(std::iter::once(marked)))
    }
}

/// The line of a diagnostic, made fit to be shown.
#[derive(Debug)]
struct Excerpt {
    name: String,
    text: String,
    /// Line and column from 0.
    line: usize,
    column: usize,
    /// The marked part of `text`.
    marked: SourceSpan,
}

impl Excerpt {
    fn new(sources: &SourceMap, span: Span) -> Self {
        let place = sources.place(span);
        let line = place.line - 1;
        let range = sources.file(span.file).map(|file| file.line_range(line)).unwrap_or_default();
        let whole = sources.text(Span { start: range.start, end: range.end, ..span });
        let column = place.column - 1;
        let first = column.saturating_sub(BEFORE);
        let mut text = String::new();
        let mut marked = 0..0;
        for (index, (at, c)) in whole.char_indices().enumerate().skip(first).take(BEFORE + AFTER) {
            if range.start + at == span.start {
                marked = text.len()..text.len();
            }
            text.push(if c == '\t' { c } else { printable_char(c) });
            if index >= column && range.start + at < span.end {
                marked.end = text.len();
            }
        }
        if marked.end == 0 {
            // The mark stands behind the last character.
            text.push(' ');
            marked = text.len() - 1..text.len();
        }
        Self { name: printable(&place.file), text, line, column, marked: marked.into() }
    }
}

impl miette::SourceCode for Excerpt {
    fn read_span<'a>(
        &'a self,
        span: &SourceSpan,
        _lines_before: usize,
        _lines_after: usize,
    ) -> Result<Box<dyn miette::SpanContents<'a> + 'a>, MietteError> {
        if span.offset() + span.len() > self.text.len() {
            return Err(MietteError::OutOfBounds);
        }
        let whole = (0..self.text.len()).into();
        let (name, data) = (self.name.clone(), self.text.as_bytes());
        Ok(Box::new(MietteSpanContents::new_named(name, data, whole, self.line, self.column, 1)))
    }
}

/// Text without characters that steer a terminal.
fn printable(text: &str) -> String {
    text.chars().map(printable_char).collect()
}

fn printable_char(c: char) -> char {
    // Also the marks that turn the direction of writing.
    let steers = c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if steers { char::REPLACEMENT_CHARACTER } else { c }
}
