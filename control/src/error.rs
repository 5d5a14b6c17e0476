//! Errors at the edge: one line for people, from the first error down to its cause.

use std::error::Error;

/// The error and its causes in one line, `: ` between. A cause that the text before already tells is not repeated.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] Inner);

    #[derive(Debug, thiserror::Error)]
    #[error("inner: {0}")]
    struct Inner(#[source] std::fmt::Error);

    #[test]
    fn causes_follow_and_are_not_repeated() {
        assert_eq!(chain(&Outer(Inner(std::fmt::Error))), format!("outer: inner: {}", std::fmt::Error));
    }
}
