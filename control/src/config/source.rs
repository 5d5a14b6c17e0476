//! The files of a configuration and places in them.
//!
//! A [`Span`] always lies inside the text of its file, on borders of characters. Bytes that are no UTF-8 were replaced
//! by U+FFFD when the file was taken in, so that every later layer works on text.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// One file, by the order in which files were opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct FileId(u32);

/// A range of bytes in the text of one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Span {
    /// The file.
    pub file: FileId,
    /// The first byte.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
}

impl Span {
    /// The span from the start of `self` to the end of `other`; `self` where they do not follow each other in one file.
    #[must_use]
    pub fn to(self, other: Self) -> Self {
        if self.file == other.file && other.end >= self.start { Self { end: other.end, ..self } } else { self }
    }
}

/// Where something stands, for people: prints as `file:line:column`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// The file's name as it was given.
    pub file: Arc<str>,
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// One file's name and text, with the starts of its lines.
#[derive(Debug)]
pub struct SourceFile {
    name: Arc<str>,
    text: String,
    line_starts: Vec<usize>,
}

impl SourceFile {
    fn new(name: &str, bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes).into_owned();
        let line_starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { name: name.into(), text, line_starts }
    }

    /// The name as it was given.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The text, in UTF-8.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// How many lines there are; a text that ends in a newline has an empty last one.
    pub fn line_count(&self) -> usize {
        self.line_starts.len()
    }

    /// The bytes of a line, from 0, without its end (LF or CR LF); empty past the last line.
    pub fn line_range(&self, index: usize) -> Range<usize> {
        let Some(&start) = self.line_starts.get(index) else { return self.text.len()..self.text.len() };
        let end = self.line_starts.get(index + 1).map_or(self.text.len(), |next| next - 1);
        let line = self.text.get(start..end).unwrap_or_default();
        start..start + line.trim_end_matches('\r').len()
    }

    /// The line that a byte stands on, from 0.
    pub fn line_of(&self, offset: usize) -> usize {
        self.line_starts.partition_point(|&start| start <= offset).saturating_sub(1)
    }
}

/// All files of one configuration.
#[derive(Debug, Default)]
pub struct SourceMap {
    files: Vec<Arc<SourceFile>>,
}

impl SourceMap {
    /// Takes a file in.
    pub fn add(&mut self, name: &str, bytes: &[u8]) -> FileId {
        self.files.push(Arc::new(SourceFile::new(name, bytes)));
        FileId(self.files.len() as u32 - 1)
    }

    /// A file of this map; `None` for an identity of another map.
    pub fn file(&self, id: FileId) -> Option<&Arc<SourceFile>> {
        self.files.get(id.0 as usize)
    }

    /// The text of a span.
    pub fn text(&self, span: Span) -> &str {
        self.file(span.file).and_then(|file| file.text.get(span.start..span.end)).unwrap_or_default()
    }

    /// Where a span begins.
    pub fn place(&self, span: Span) -> Place {
        let Some(file) = self.file(span.file) else { return Place { file: "".into(), line: 1, column: 1 } };
        let line = file.line_of(span.start);
        let before = file.text.get(file.line_range(line).start..span.start).unwrap_or_default();
        Place { file: file.name.clone(), line: line + 1, column: before.chars().count() + 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_counts_characters_and_ignores_line_ends() {
        let mut map = SourceMap::default();
        let file = map.add("a.conf", "x\r\n\u{e9}\u{e9} word\r\nlast".as_bytes());
        let span = Span { file, start: 8, end: 12 };
        assert_eq!(map.text(span), "word");
        assert_eq!(map.place(span).to_string(), "a.conf:2:4");
        assert_eq!(map.file(file).map(|f| f.line_range(1)), Some(3..12));
        assert_eq!(map.file(file).map(|f| f.line_count()), Some(3));
    }

    #[test]
    fn bytes_that_are_no_text_are_replaced() {
        let mut map = SourceMap::default();
        let file = map.add("a", b"a\xffb\n");
        assert_eq!(map.file(file).map(|f| f.text()), Some("a\u{fffd}b\n"));
    }
}
