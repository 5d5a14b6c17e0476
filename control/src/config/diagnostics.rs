//! Errors and warnings about a configuration: collected all, shown with file, line, column and the line itself.
//!
//! Nothing here prints; [`Diagnostics`] renders to text (with miette) or JSON. A bounded number is kept, the rest is
//! counted, so that a megabyte of garbage is answered as quickly as one typing mistake.

use std::sync::Arc;

use super::render;
use super::source::{Place, SourceMap, Span};

/// Most errors and most warnings that are kept; more are only counted.
pub const MOST_SHOWN: usize = 100;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The configuration is not used.
    Error,
    /// The configuration is used, perhaps not as its author expects.
    Warning,
}

/// Where a diagnostic belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// A range in a file.
    Span(Span),
    /// A file as a whole, by name.
    File(Arc<str>),
}

/// One error or warning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Error or warning.
    pub severity: Severity,
    /// What is wrong, in one sentence without a full stop.
    pub message: String,
    /// Where.
    pub location: Location,
    /// What the marked text is or should be; stands at the caret.
    pub label: String,
    /// What to do about it.
    pub help: Option<String>,
}

impl Diagnostic {
    /// An error at a span.
    pub fn error(span: Span, message: impl Into<String>) -> Self {
        Self::new(Severity::Error, Location::Span(span), message.into())
    }

    /// A warning at a span.
    pub fn warning(span: Span, message: impl Into<String>) -> Self {
        Self::new(Severity::Warning, Location::Span(span), message.into())
    }

    /// An error about a whole file.
    pub fn file_error(file: &str, message: impl Into<String>) -> Self {
        Self::new(Severity::Error, Location::File(file.into()), message.into())
    }

    fn new(severity: Severity, location: Location, message: String) -> Self {
        Self { severity, message, location, label: String::new(), help: None }
    }

    /// Adds the text at the caret.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// Adds advice.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// Every error and warning of one configuration, in the order of the files, with the text that they point into.
#[derive(Clone, Debug, Default)]
pub struct Diagnostics {
    sources: Arc<SourceMap>,
    kept: Vec<Diagnostic>,
    errors: usize,
    warnings: usize,
}

impl Diagnostics {
    /// How many errors there are, those not kept included.
    pub fn error_count(&self) -> usize {
        self.errors
    }

    /// How many warnings there are, those not kept included.
    pub fn warning_count(&self) -> usize {
        self.warnings
    }

    /// Those that were kept: at most [`MOST_SHOWN`] of each severity.
    pub fn iter(&self) -> impl Iterator<Item = &Diagnostic> {
        self.kept.iter()
    }

    /// The files that the spans point into.
    pub fn sources(&self) -> &SourceMap {
        &self.sources
    }

    /// File, line and column of a diagnostic; line and column 1 for one about a whole file.
    pub fn place(&self, diagnostic: &Diagnostic) -> Place {
        match &diagnostic.location {
            Location::Span(span) => self.sources.place(*span),
            Location::File(name) => Place { file: name.clone(), line: 1, column: 1 },
        }
    }

    /// For a terminal: with the line, a caret, Unicode lines and colours.
    pub fn render_fancy(&self) -> String {
        render::text(self, &miette::GraphicalTheme::unicode())
    }

    /// The same without colours and in ASCII, for logs and files.
    pub fn render_plain(&self) -> String {
        render::text(self, &miette::GraphicalTheme::none())
    }

    /// An array of objects: severity, message, file, line, column (both from 1), span (bytes), label, help.
    pub fn to_json(&self) -> serde_json::Value {
        render::json(self)
    }

    /// Takes one in. A second error at the very same place is dropped: it follows from the first.
    pub(super) fn push(&mut self, diagnostic: Diagnostic) {
        let severity = diagnostic.severity;
        let place = &diagnostic.location;
        if severity == Severity::Error && self.kept.iter().any(|d| d.severity == severity && d.location == *place) {
            return;
        }
        let count = match severity {
            Severity::Error => &mut self.errors,
            Severity::Warning => &mut self.warnings,
        };
        *count += 1;
        if *count <= MOST_SHOWN {
            self.kept.push(diagnostic);
        }
    }

    /// Takes an error in that is made only if it will be kept.
    pub(super) fn push_with(&mut self, error: impl FnOnce() -> Diagnostic) {
        if self.errors < MOST_SHOWN { self.push(error()) } else { self.errors += 1 }
    }

    /// Whether an error was found at a place that a span has a part in.
    pub(super) fn has_error_in(&self, span: Span) -> bool {
        self.kept.iter().any(|diagnostic| match diagnostic.location {
            Location::Span(known) => {
                let overlaps = known.file == span.file && known.start < span.end && span.start < known.end;
                overlaps && diagnostic.severity == Severity::Error
            }
            Location::File(_) => false,
        })
    }

    /// Puts them in the order of the files, with the text that they point into.
    pub(super) fn seal(mut self, sources: SourceMap) -> Self {
        self.kept.sort_by_key(|diagnostic| match diagnostic.location {
            Location::File(_) => (0, Span::default(), diagnostic.severity),
            Location::Span(span) => (1, span, diagnostic.severity),
        });
        self.sources = Arc::new(sources);
        self
    }
}
