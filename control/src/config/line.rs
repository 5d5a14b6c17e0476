//! One line on its way through the preprocessor: text that may differ from the file, and where each part came from.

use std::ops::Range;

use super::source::Span;

/// A line's text with the origin of every byte.
#[derive(Clone, Debug, Default)]
pub(super) struct Line {
    text: String,
    /// In ascending order of `at`; the first has `at` 0 unless the text is empty.
    segments: Vec<Segment>,
}

#[derive(Clone, Copy, Debug)]
struct Segment {
    /// Where in the line's text it begins.
    at: usize,
    /// Where it came from.
    span: Span,
    /// Byte for byte as in the file, or put in the place of `span`.
    verbatim: bool,
}

impl Line {
    /// A line as it stands in the file.
    pub(super) fn verbatim(text: &str, span: Span) -> Self {
        Self { text: text.to_owned(), segments: vec![Segment { at: 0, span, verbatim: true }] }
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    pub(super) fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Where a range of the text came from. A range out of a replaced part gives the whole of what it replaced.
    pub(super) fn span(&self, range: Range<usize>) -> Span {
        let Some(first) = self.segment_at(range.start) else { return Span::default() };
        let last = self.segment_at(range.end.saturating_sub(1).max(range.start)).unwrap_or(first);
        first.origin(range.start, range.start).to(last.origin(range.start, range.end))
    }

    fn segment_at(&self, offset: usize) -> Option<Segment> {
        let next = self.segments.partition_point(|segment| segment.at <= offset);
        self.segments.get(next.saturating_sub(1)).copied()
    }

    /// A part of the line as a line.
    pub(super) fn part(&self, range: Range<usize>) -> Self {
        let mut line = Self::default();
        line.push_part(self, range);
        line
    }

    /// Appends a part of another line.
    pub(super) fn push_part(&mut self, other: &Self, range: Range<usize>) {
        let Some(text) = other.text.get(range.clone()) else { return };
        let base = self.text.len();
        for (index, segment) in other.segments.iter().enumerate() {
            let end = other.segments.get(index + 1).map_or(other.text.len(), |next| next.at);
            let (from, to) = (segment.at.max(range.start), end.min(range.end));
            if from < to {
                let span = if segment.verbatim { segment.origin(from, to) } else { segment.span };
                self.segments.push(Segment { at: base + from - range.start, span, verbatim: segment.verbatim });
            }
        }
        self.text.push_str(text);
    }

    /// Appends text that stands in the place of `span`.
    pub(super) fn push_replacement(&mut self, text: &str, span: Span) {
        if !text.is_empty() {
            self.segments.push(Segment { at: self.text.len(), span, verbatim: false });
            self.text.push_str(text);
        }
    }

    /// The line without white space at both ends.
    pub(super) fn trimmed(&self) -> Self {
        let start = self.text.len() - self.text.trim_start_matches(is_blank).len();
        let end = self.text.trim_end_matches(is_blank).len();
        if start == 0 && end == self.text.len() { self.clone() } else { self.part(start..end.max(start)) }
    }
}

impl Segment {
    /// The origin of a range of the line that begins or ends in this segment.
    fn origin(self, start: usize, end: usize) -> Span {
        if !self.verbatim {
            return self.span;
        }
        let from = self.span.start + start.saturating_sub(self.at);
        let to = self.span.start + end.saturating_sub(self.at);
        Span { start: from.min(self.span.end), end: to.min(self.span.end), ..self.span }
    }
}

/// What keepalived takes for white space.
pub(super) const fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\x0c' | '\n' | '\r' | '\x0b')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(start: usize, end: usize) -> Span {
        Span { start, end, ..Span::default() }
    }

    #[test]
    fn a_part_points_to_its_own_bytes() {
        let line = Line::verbatim("  weight 10 ", span(100, 112)).trimmed();
        assert_eq!(line.text(), "weight 10");
        assert_eq!(line.span(7..9), span(109, 111));
    }

    #[test]
    fn replaced_text_points_to_what_it_replaced() {
        let source = Line::verbatim("real_server ${RS} 80", span(0, 20));
        let mut line = source.part(0..12);
        line.push_replacement("10.0.0.1", span(12, 17));
        line.push_part(&source, 17..20);
        assert_eq!(line.text(), "real_server 10.0.0.1 80");
        assert_eq!(line.span(12..20), span(12, 17));
        assert_eq!(line.span(21..23), span(18, 20));
    }
}
