//! Numbers as people write them: 250000, 10k, 1.5M.

/// A whole number with an optional factor: k, M or G.
pub(crate) fn count(text: &str) -> Result<u64, String> {
    let wrong = || format!("'{text}' is not a number such as 1000, 10k or 1.5M");
    let (digits, factor) = match text.char_indices().last() {
        Some((at, 'k' | 'K')) => (&text[..at], 1e3),
        Some((at, 'M')) => (&text[..at], 1e6),
        Some((at, 'G')) => (&text[..at], 1e9),
        _ => (text, 1.0),
    };
    if !digits.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(wrong());
    }
    let value = digits.parse::<f64>().map_err(|_| wrong())? * factor;
    // Above 2^53 not every number has a float.
    if !(1.0..=9e15).contains(&value) || value.fract() != 0.0 {
        return Err(format!("'{text}' is no whole number between 1 and 9000000G"));
    }
    Ok(value as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factors_are_those_that_people_use() {
        assert_eq!(count("1000"), Ok(1000));
        assert_eq!(count("10k"), Ok(10_000));
        assert_eq!(count("1.5M"), Ok(1_500_000));
        assert_eq!(count("2G"), Ok(2_000_000_000));
        for wrong in ["", "k", "-1", "0", "1e", "ten", "1.5", "inf", "10m"] {
            assert!(count(wrong).is_err(), "{wrong}");
        }
    }
}
