//! From lines to a tree of statements: keyword, arguments, and perhaps a block of more.
//!
//! The keyword tables steer it: they tell where a brace is missing and where a keyword does not belong. Unlike
//! keepalived, an unknown keyword takes its block with it, so that one mistake gives one error. The tree has bounded
//! depth.

use super::diagnostics::{Diagnostic, Diagnostics};
use super::keywords::{self, Body, Context, Keyword};
use super::lexer::{self, Piece, Quoting, Word};
use super::line::Line;
use super::source::Span;

/// Deepest nesting of blocks. The language itself needs five.
const DEEPEST: usize = 32;

/// A keyword with its arguments, or a line of a list.
#[derive(Debug)]
pub(super) struct Statement {
    /// The entry of the table; `None` in a list, and for what was not understood (an error says so).
    pub(super) keyword: Option<Keyword>,
    /// The keyword and its arguments; never empty.
    pub(super) words: Vec<Word>,
    pub(super) block: Option<Vec<Statement>>,
}

impl Statement {
    /// The first word.
    pub(super) fn head(&self) -> Span {
        self.words.first().map(|word| word.span).unwrap_or_default()
    }

    /// From the first word to the last.
    pub(super) fn span(&self) -> Span {
        self.words.last().map_or(self.head(), |last| self.head().to(last.span))
    }

    /// The keyword's name, or the first word.
    pub(super) fn name(&self) -> &str {
        self.words.first().map_or("", |word| &word.text)
    }

    /// The words after the keyword.
    pub(super) fn arguments(&self) -> &[Word] {
        self.words.get(1..).unwrap_or_default()
    }

    /// The statements of the block, if there is one.
    pub(super) fn inner(&self) -> &[Statement] {
        self.block.as_deref().unwrap_or_default()
    }
}

/// A block that is open.
#[derive(Debug)]
struct Frame {
    context: Context,
    /// The statement that the block belongs to; `None` for a brace that nothing stands before.
    heading: Option<Statement>,
    statements: Vec<Statement>,
}

/// Builds the tree, line by line.
#[derive(Debug, Default)]
pub(super) struct Builder {
    root: Vec<Statement>,
    frames: Vec<Frame>,
    /// A statement that a `{` may still follow.
    pending: Option<Statement>,
    /// Blocks below the deepest, whose text is dropped.
    too_deep: usize,
}

impl Builder {
    /// Takes one finished line.
    pub(super) fn line(&mut self, line: &Line, report: &mut Diagnostics) {
        let text = line.text();
        let mut at = 0;
        loop {
            let quoting =
                if keywords::is_script(lexer::first_word(text, at)) { Quoting::Script } else { Quoting::Plain };
            match lexer::piece(text, at, quoting) {
                None => return,
                Some(Piece::Open(brace)) => {
                    self.open(line.span(brace..brace + 1), report);
                    at = brace + 1;
                }
                Some(Piece::Close(brace)) => {
                    self.close(line.span(brace..brace + 1), report);
                    at = brace + 1;
                }
                Some(Piece::Words { start, end }) => {
                    let (words, unclosed) = lexer::words(line, start..end, quoting);
                    if let Some(quote) = unclosed {
                        report.push_with(|| {
                            Diagnostic::error(quote, "this quote is never closed")
                                .label("opens here")
                                .help("a quoted text ends on the line where it begins")
                        });
                    }
                    self.words(words, report);
                    at = end;
                }
            }
        }
    }

    /// The whole tree, after the last line.
    pub(super) fn finish(mut self, report: &mut Diagnostics) -> Vec<Statement> {
        if let Some(statement) = self.pending.take() {
            if let Some(Body::Block(_)) = statement.keyword.map(|keyword| keyword.body) {
                report.push(missing_open(&statement));
            }
            self.append(statement);
        }
        while let Some(frame) = self.frames.pop() {
            if let Some(heading) = &frame.heading {
                report.push(
                    Diagnostic::error(
                        heading.span(),
                        format!("a `}}` is missing: `{}` is never closed", heading.name()),
                    )
                    .label("the block that begins here goes on to the end of the file"),
                );
            }
            self.end(frame);
        }
        self.root
    }

    fn context(&self) -> Context {
        self.frames.last().map_or(Context::Root, |frame| frame.context)
    }

    fn append(&mut self, statement: Statement) {
        self.frames.last_mut().map_or(&mut self.root, |frame| &mut frame.statements).push(statement);
    }

    /// Takes the words of one statement.
    fn words(&mut self, words: Vec<Word>, report: &mut Diagnostics) {
        if self.too_deep > 0 || words.is_empty() {
            return;
        }
        for words in split_settings(self.context(), words) {
            self.statement(words, report);
        }
    }

    fn statement(&mut self, words: Vec<Word>, report: &mut Diagnostics) {
        let name = words.first().map(|word| word.text.clone()).unwrap_or_default();
        self.settle(&name, report);
        if self.context().keyword(&name).is_none() {
            self.leave_unclosed(&words, &name, report);
        }
        let context = self.context();
        let keyword = if context.has_keywords() { context.keyword(&name) } else { None };
        if keyword.is_none() && context.has_keywords() {
            let span = words.first().map(|word| word.span).unwrap_or_default();
            report.push_with(|| unknown(span, &name, context));
        }
        self.pending = Some(Statement { keyword, words, block: None });
    }

    /// Decides about the statement before: its block did not come, for `next` stands in its place.
    fn settle(&mut self, next: &str, report: &mut Diagnostics) {
        let Some(statement) = self.pending.take() else { return };
        match statement.keyword.map(|keyword| keyword.body) {
            Some(Body::Block(inner)) => {
                report.push_with(|| missing_open(&statement));
                // What stands next tells whether only the brace is missing, or the whole block.
                if inner.keyword(next).is_some() && self.context().keyword(next).is_none() {
                    self.begin(Some(statement), inner);
                } else {
                    self.append(statement);
                }
            }
            _ => self.append(statement),
        }
    }

    /// Closes blocks that `name` cannot stand in, where it opens one itself and belongs further out.
    fn leave_unclosed(&mut self, words: &[Word], name: &str, report: &mut Diagnostics) {
        let opens = |context: Context| matches!(context.keyword(name), Some(Keyword { body: Body::Block(_), .. }));
        // In a list any word may stand; only what begins a block of the top level cannot be meant as an item.
        let listed = !self.context().has_keywords();
        let outer = self.frames.iter().rev().skip(1).map(|frame| frame.context).chain([Context::Root]);
        let Some(levels) = outer
            .enumerate()
            .find(|(_, context)| opens(*context) && (!listed || *context == Context::Root))
            .map(|(index, _)| index + 1)
        else {
            return;
        };
        if levels > self.frames.len() {
            return;
        }
        let mut open = Vec::new();
        for _ in 0..levels {
            let Some(frame) = self.frames.pop() else { break };
            open.push(frame.heading.as_ref().map_or_else(|| "a block".to_owned(), |heading| heading.name().to_owned()));
            self.end(frame);
        }
        let span = words.first().map(|word| word.span).unwrap_or_default();
        report.push_with(|| unclosed(span, name, &open));
    }

    fn open(&mut self, brace: Span, report: &mut Diagnostics) {
        if self.too_deep > 0 {
            self.too_deep += 1;
            return;
        }
        if self.frames.len() >= DEEPEST {
            report.push(
                Diagnostic::error(brace, "too many blocks inside each other").label(format!("at most {DEEPEST}")),
            );
            self.too_deep = 1;
            return;
        }
        let Some(statement) = self.pending.take() else {
            report.push_with(|| {
                Diagnostic::error(brace, "a `{` with no keyword before it").label("opens a block of what?")
            });
            self.begin(None, Context::Skipped);
            return;
        };
        let inner = match statement.keyword.map(|keyword| keyword.body) {
            Some(Body::Block(inner) | Body::Maybe(inner)) => inner,
            Some(Body::Nothing) => {
                report.push_with(|| no_block(brace, &statement));
                Context::Skipped
            }
            None if self.context() == Context::Lines || self.context() == Context::DataplaneTimeouts => {
                report.push_with(|| no_block(brace, &statement));
                Context::Skipped
            }
            None => Context::Skipped,
        };
        self.begin(Some(statement), inner);
    }

    fn close(&mut self, brace: Span, report: &mut Diagnostics) {
        if self.too_deep > 0 {
            self.too_deep -= 1;
            return;
        }
        if let Some(statement) = self.pending.take() {
            let missing = matches!(statement.keyword.map(|keyword| keyword.body), Some(Body::Block(_)));
            if missing {
                report.push_with(|| missing_open(&statement));
            }
            let closes_it = missing && self.frames.is_empty();
            self.append(statement);
            if closes_it {
                return;
            }
        }
        match self.frames.pop() {
            Some(frame) => self.end(frame),
            None => report.push_with(|| {
                Diagnostic::error(brace, "a `}` that closes nothing")
                    .label("no block is open here")
                    .help("remove it, or look for a `{` that is missing above")
            }),
        }
    }

    fn begin(&mut self, heading: Option<Statement>, context: Context) {
        self.frames.push(Frame { context, heading, statements: Vec::new() });
    }

    /// Puts a closed block in its place.
    fn end(&mut self, frame: Frame) {
        if let Some(mut heading) = frame.heading {
            heading.block = Some(frame.statements);
            self.append(heading);
        }
    }
}

/// `dataplane { workers 2 interface eth0 { … } }` on one line: the blocks of Sluice's own begin a statement anywhere.
fn split_settings(context: Context, mut words: Vec<Word>) -> Vec<Vec<Word>> {
    let mut parts = Vec::new();
    if context == Context::Dataplane {
        while let Some(at) =
            words.iter().skip(1).rposition(|word| matches!(word.text.as_str(), "interface" | "timeouts"))
        {
            parts.push(words.split_off(at + 1));
        }
    }
    parts.push(words);
    parts.reverse();
    parts
}

fn unclosed(span: Span, name: &str, open: &[String]) -> Diagnostic {
    let blocks: Vec<_> = open.iter().map(|block| format!("`{block}`")).collect();
    let message = match blocks.as_slice() {
        [one] => format!("a `}}` is missing before this: {one} is still open"),
        several => format!("{} `}}` are missing before this: {} are still open", several.len(), several.join(", ")),
    };
    let inner = blocks.first().map(String::as_str).unwrap_or_default();
    Diagnostic::error(span, message).label(format!("`{name}` cannot stand inside {inner}"))
}

fn missing_open(statement: &Statement) -> Diagnostic {
    // Behind the last word: the words have errors of their own.
    let end = statement.span().end;
    Diagnostic::error(
        Span { start: end, ..statement.span() },
        format!("a `{{` is missing after `{}`", statement.name()),
    )
    .label("expected a block")
}

fn no_block(brace: Span, statement: &Statement) -> Diagnostic {
    let diagnostic = Diagnostic::error(brace, format!("`{}` has no block", statement.name())).label("unexpected `{`");
    match statement.arguments().iter().find(|word| keywords::homes(&word.text).next().is_some()) {
        Some(word) => diagnostic.help(format!("begin a new line before `{}`", word.text)),
        None => diagnostic,
    }
}

/// Where, in a sentence.
fn place(context: Context) -> String {
    if context == Context::Root { "at the top level".to_owned() } else { format!("in {}", context.name()) }
}

fn unknown(span: Span, name: &str, context: Context) -> Diagnostic {
    let shown: String = name.chars().take(60).collect();
    let diagnostic = Diagnostic::error(span, format!("unknown keyword `{shown}` {}", place(context)));
    if let Some(meant) = keywords::nearest(name, context.names()) {
        return diagnostic.label(format!("did you mean `{meant}`?"));
    }
    if name.starts_with("//") || name.starts_with("/*") || name.starts_with(';') {
        return diagnostic.label("not a comment here").help("comments begin with `#` or `!`");
    }
    let homes: Vec<_> = keywords::homes(name).map(Context::name).take(4).collect();
    if homes.is_empty() {
        match keywords::elsewhere(name) {
            Some((meant, home)) => diagnostic.label(format!("did you mean `{meant}`, of {}?", home.name())),
            None => diagnostic.label(format!("not a keyword of {}", context.name())),
        }
    } else {
        diagnostic.label("does not belong here").help(format!("`{shown}` belongs in {}", homes.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(text: &str) -> (Vec<Statement>, Vec<String>) {
        let mut builder = Builder::default();
        let mut report = Diagnostics::default();
        let mut at = 0;
        for line in text.lines() {
            let span = Span { start: at, end: at + line.len(), ..Span::default() };
            builder.line(&lexer::decomment(&Line::verbatim(line, span)), &mut report);
            at += line.len() + 1;
        }
        let tree = builder.finish(&mut report);
        (tree, report.iter().map(|diagnostic| diagnostic.message.clone()).collect())
    }

    fn outline(statements: &[Statement]) -> String {
        let one = |statement: &Statement| match &statement.block {
            Some(inner) => format!("{}({})", statement.name(), outline(inner)),
            None => statement.name().to_owned(),
        };
        statements.iter().map(one).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn braces_stand_where_they_like() {
        for text in [
            "virtual_server a 80 {\n real_server b 80 {\n  weight 1\n }\n}",
            "virtual_server a 80\n{\n real_server b 80\n {\n  weight 1\n }\n}",
            "virtual_server a 80{real_server b 80{weight 1}}",
        ] {
            let (tree, errors) = build(text);
            assert_eq!(errors, [""; 0]);
            assert_eq!(outline(&tree), "virtual_server(real_server(weight))");
        }
    }

    #[test]
    fn a_missing_closing_brace_is_found_at_the_next_heading() {
        let text = "virtual_server a 80 {\nreal_server b 80 {\nweight 1\n}\nvirtual_server c 80 {\n}";
        let (tree, errors) = build(text);
        assert_eq!(errors, ["a `}` is missing before this: `virtual_server` is still open"]);
        assert_eq!(outline(&tree), "virtual_server(real_server(weight)) virtual_server()");
        let (_, errors) = build("virtual_server a 80 {\nreal_server b 80 {\nvirtual_server c 80 {\n}");
        assert_eq!(errors, ["2 `}` are missing before this: `real_server`, `virtual_server` are still open"]);
        let (_, errors) = build("virtual_server a 80 {\nreal_server b 80 {\nweight 1\n}");
        assert_eq!(errors, ["a `}` is missing: `virtual_server` is never closed"]);
    }

    #[test]
    fn a_missing_opening_brace_costs_one_error() {
        let (tree, errors) = build("virtual_server a 80\ndelay_loop 6\nreal_server b 80 {\n}\n}");
        assert_eq!(errors, ["a `{` is missing after `virtual_server`"]);
        assert_eq!(outline(&tree), "virtual_server(delay_loop real_server())");
        let (tree, errors) = build("virtual_server a 80 {\nreal_server b 80\nreal_server c 80 {\n}\n}");
        assert_eq!(errors, ["a `{` is missing after `real_server`"]);
        assert_eq!(outline(&tree), "virtual_server(real_server real_server())");
    }

    #[test]
    fn an_unknown_keyword_takes_its_block_along() {
        let (tree, errors) = build("virtul_server a 80 {\nwhat ever {\n}\n}\nglobal_defs {\n}");
        assert_eq!(errors, ["unknown keyword `virtul_server` at the top level"]);
        assert_eq!(outline(&tree), "virtul_server(what()) global_defs()");
    }

    #[test]
    fn stray_braces_are_errors() {
        assert_eq!(build("}").1, ["a `}` that closes nothing"]);
        assert_eq!(build("{\nx\n}").1, ["a `{` with no keyword before it"]);
        let (_, errors) = build(&"{".repeat(100_000));
        assert!(errors.iter().any(|message| message == "too many blocks inside each other"));
    }

    #[test]
    fn two_statements_on_one_line_are_told_apart() {
        let (_, errors) = build("virtual_server a 80 {\nweight 1 real_server b 80 {\n}\n}");
        assert_eq!(errors, ["`weight` has no block"]);
        let (tree, errors) = build("dataplane { workers 2 interface eth0 { queues 1 } }");
        assert_eq!(errors, [""; 0]);
        assert_eq!(outline(&tree), "dataplane(workers interface(queues))");
    }
}
