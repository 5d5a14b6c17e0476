//! `~SEQ`, `~SEQx` and `~LST`: one line becomes several, with a definition that changes from one to the next.
//!
//! Forms: `~SEQ(var, [start, [step,]] end)`, the same with `x` for hexadecimal, `~LST(var, word, …)` and
//! `~LST({a, b}, {1, 2}, …)`. The leftmost of a line changes slowest.

/// Most lines that one sequence gives.
const MOST: usize = 65_536;

/// A sequence found in a line.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Sequence {
    /// Where it stands in the text.
    pub(super) start: usize,
    pub(super) end: usize,
    /// The names that it defines.
    pub(super) names: Vec<String>,
    /// Their values, turn by turn; each turn has as many as there are names.
    pub(super) turns: Vec<Vec<String>>,
}

/// A sequence that is none: where, and why.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BadSequence {
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) reason: String,
}

/// The leftmost sequence of a line outside quotes.
pub(super) fn find(text: &str) -> Option<Result<Sequence, BadSequence>> {
    let (start, head) = heads(text).min_by_key(|(at, _)| *at)?;
    let inner = text.get(start + head.len()..)?;
    let bad = |end: usize, reason: String| Some(Err(BadSequence { start, end, reason }));
    let Some(length) = inner.find(')') else {
        return bad(text.len(), "expected `)` on the same line".to_owned());
    };
    let end = start + head.len() + length + 1;
    let arguments = split(inner.get(..length)?);
    let result = match head {
        "~LST(" => list(&arguments),
        _ => numbers(&arguments, head == "~SEQx("),
    };
    match result {
        Ok((names, turns)) => Some(Ok(Sequence { start, end, names, turns })),
        Err(reason) => bad(end, reason),
    }
}

fn heads(text: &str) -> impl Iterator<Item = (usize, &'static str)> {
    let unquoted = |at: &usize| text.bytes().take(*at).filter(|byte| *byte == b'"').count() % 2 == 0;
    ["~SEQ(", "~SEQx(", "~LST("].into_iter().filter_map(move |head| {
        let at = text.match_indices(head).map(|(at, _)| at).find(unquoted)?;
        Some((at, head))
    })
}

/// Cuts at commas outside braces.
fn split(text: &str) -> Vec<&str> {
    let mut depth = 0_usize;
    let comma = |c: char| {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    };
    text.split(comma).map(str::trim).collect()
}

type Turns = (Vec<String>, Vec<Vec<String>>);

fn numbers(arguments: &[&str], hexadecimal: bool) -> Result<Turns, String> {
    let (name, start, step, end) = match *arguments {
        [name, end] => (name, 1, None, number(end)?),
        [name, start, end] => (name, number(start)?, None, number(end)?),
        [name, start, step, end] => (name, number(start)?, Some(number(step)?), number(end)?),
        _ => return Err("expected a name, and one to three numbers".to_owned()),
    };
    let name = checked(name)?;
    if hexadecimal && (start < 0 || end < 0) {
        return Err("hexadecimal numbers cannot be negative".to_owned());
    }
    let step = step.unwrap_or(if start <= end { 1 } else { -1 });
    if step == 0 || (start < end && step < 0) || (start > end && step > 0) {
        return Err(format!("steps of {step} never lead from {start} to {end}"));
    }
    let count = (i128::from(end) - i128::from(start)) / i128::from(step) + 1;
    let count = usize::try_from(count).ok().filter(|count| *count <= MOST);
    let count = count.ok_or_else(|| format!("more than {MOST} lines"))?;
    let shown = |value: i64| if hexadecimal { format!("{value:x}") } else { value.to_string() };
    let values = std::iter::successors(Some(start), |value| value.checked_add(step));
    Ok((vec![name], values.take(count).map(|value| vec![shown(value)]).collect()))
}

fn list(arguments: &[&str]) -> Result<Turns, String> {
    let Some((first, rest)) = arguments.split_first() else { return Err("expected a name and words".to_owned()) };
    let tuple = |text: &str| -> Option<Vec<String>> {
        let inner = text.strip_prefix('{')?.strip_suffix('}')?;
        Some(inner.split(',').map(|word| word.trim().to_owned()).collect())
    };
    let Some(names) = tuple(first) else {
        let turns = rest.iter().map(|word| vec![(*word).to_owned()]).collect();
        return Ok((vec![checked(first)?], turns));
    };
    let names = names.iter().map(|name| checked(name)).collect::<Result<Vec<_>, _>>()?;
    let mut turns = Vec::new();
    for text in rest {
        let mut values = tuple(text).ok_or_else(|| format!("`{text}` is not of the form {{a, b}}"))?;
        if values.len() > names.len() {
            return Err(format!("`{text}` has more words than there are names"));
        }
        values.resize(names.len(), String::new());
        turns.push(values);
    }
    Ok((names, turns))
}

fn checked(name: &str) -> Result<String, String> {
    let letters = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if name.is_empty() || !letters || name.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(format!("`{name}` is not a name"));
    }
    Ok(name.to_owned())
}

/// A number, with 0x for hexadecimal and 0 for octal.
fn number(text: &str) -> Result<i64, String> {
    let (sign, digits) = text.strip_prefix('-').map_or(("", text), |digits| ("-", digits));
    let (digits, radix) = match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None if digits.len() > 1 && digits.starts_with('0') => (digits, 8),
        None => (digits, 10),
    };
    let plain = digits.starts_with(|c: char| c.is_ascii_hexdigit());
    let value = plain.then(|| i64::from_str_radix(&format!("{sign}{digits}"), radix).ok()).flatten();
    value.ok_or_else(|| format!("`{text}` is not a number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(text: &str) -> Result<Vec<String>, String> {
        match find(text).expect("there is a sequence") {
            Ok(sequence) => Ok(sequence.turns.iter().map(|turn| turn.join("/")).collect()),
            Err(bad) => Err(bad.reason),
        }
    }

    #[test]
    fn numbers_go_up_and_down() {
        assert_eq!(values("~SEQ(i, 3) x"), Ok(vec!["1".into(), "2".into(), "3".into()]));
        assert_eq!(values("~SEQ(i, 2, 0)").unwrap(), ["2", "1", "0"]);
        assert_eq!(values("~SEQ(i, 1, 4, 10)").unwrap(), ["1", "5", "9"]);
        assert_eq!(values("~SEQ(i, 010, 0x9)").unwrap(), ["8", "9"]);
        assert_eq!(values("~SEQx(i, 9, 11)").unwrap(), ["9", "a", "b"]);
        assert_eq!(values("~SEQ(i, -1, 1)").unwrap(), ["-1", "0", "1"]);
    }

    #[test]
    fn lists_have_words_or_tuples() {
        assert_eq!(values("~LST(v, a, b)").unwrap(), ["a", "b"]);
        assert_eq!(values("~LST({a, b}, {1, 2}, {3})").unwrap(), ["1/2", "3/"]);
        assert!(values("~LST({a}, {1, 2})").is_err());
        assert!(values("~LST({a}, 1)").is_err());
    }

    #[test]
    fn what_never_ends_or_makes_no_sense_is_refused() {
        for text in [
            "~SEQ(i)",
            "~SEQ(i, 1, 0, 5)",
            "~SEQ(i, 1, -1, 5)",
            "~SEQ(1i, 5)",
            "~SEQ(i, x)",
            "~SEQ(i, 1, 9999999999)",
            "~SEQ(i, -9223372036854775808, 9223372036854775807)",
            "~SEQx(i, -1, 1)",
            "~SEQ(i, 1",
        ] {
            assert!(values(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_leftmost_outside_quotes_counts() {
        assert_eq!(find("\"~SEQ(i, 1)\" x"), None);
        let found = find("a ~LST(v, x) ~SEQ(i, 2)").unwrap().unwrap();
        assert_eq!((found.start, found.end, found.names), (2, 12, vec!["v".to_owned()]));
    }
}
