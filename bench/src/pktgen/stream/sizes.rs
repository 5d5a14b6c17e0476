//! Sizes of frames: `60`, `60-1514`, `imix`, or sizes with weights, `60:7,590:4,1514:1`. Bytes without FCS.

use std::fmt;
use std::str::FromStr;

/// Sizes in the order in which they are sent, again and again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sizes {
    text: String,
    pattern: Vec<u16>,
}

/// The simple IMIX: 64, 594 and 1518 bytes on the wire, 7 to 4 to 1.
const IMIX: &str = "60:7,590:4,1514:1";
/// The least that Ethernet sends, without FCS.
const SMALLEST: u16 = 60;
/// What a frame of packet memory of 4 KiB holds at most.
const LARGEST: u16 = 3818 + 14;
/// The longest pattern: a second's worth of one for any rate that repetition could matter at.
const LONGEST: u32 = 10_000;

impl Sizes {
    /// The size of packet `number` of a stream.
    #[inline]
    pub(crate) fn at(&self, number: u64) -> u16 {
        let index = (number % self.pattern.len() as u64) as usize;
        self.pattern.get(index).copied().unwrap_or(SMALLEST)
    }

    /// Their mean.
    pub(crate) fn mean(&self) -> f64 {
        self.pattern.iter().copied().map(f64::from).sum::<f64>() / self.pattern.len() as f64
    }

    /// The largest of them.
    pub(crate) fn largest(&self) -> u16 {
        self.pattern.iter().copied().max().unwrap_or(SMALLEST)
    }
}

impl Default for Sizes {
    fn default() -> Self {
        Self { text: SMALLEST.to_string(), pattern: vec![SMALLEST] }
    }
}

impl FromStr for Sizes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let list = if text == "imix" { IMIX } else { text };
        let pattern = match list.split_once('-') {
            Some((first, last)) => {
                let (first, last) = (size(first)?, size(last)?);
                if first > last {
                    return Err(format!("'{text}' ends before it begins"));
                }
                (first..=last).collect()
            }
            None => interleave(&list.split(',').map(weighted).collect::<Result<Vec<_>, _>>()?)?,
        };
        Ok(Self { text: text.to_owned(), pattern })
    }
}

impl fmt::Display for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn size(text: &str) -> Result<u16, String> {
    let size = text.parse().ok().filter(|size| (SMALLEST..=LARGEST).contains(size));
    size.ok_or_else(|| format!("'{text}' is no size: {SMALLEST} to {LARGEST} bytes without FCS, or imix"))
}

fn weighted(text: &str) -> Result<(u16, u32), String> {
    let (bytes, weight) = text.split_once(':').unwrap_or((text, "1"));
    let weight = weight.parse().ok().filter(|weight| (1..=LONGEST).contains(weight));
    Ok((size(bytes)?, weight.ok_or_else(|| format!("the weight in '{text}' is not 1 to {LONGEST}"))?))
}

/// Every size as often as its weight says, as evenly as can be (the smooth weighted round robin of nginx): long runs of
/// large frames would be bursts of their own.
fn interleave(list: &[(u16, u32)]) -> Result<Vec<u16>, String> {
    let total: u32 = list.iter().map(|(_, weight)| weight).sum();
    if total > LONGEST {
        return Err(format!("the weights sum up to {total}, {LONGEST} at most"));
    }
    let mut credit = vec![0i64; list.len()];
    let mut pattern = Vec::with_capacity(total as usize);
    for _ in 0..total {
        for (credit, (_, weight)) in credit.iter_mut().zip(list) {
            *credit += i64::from(*weight);
        }
        let richest = credit.iter().enumerate().max_by_key(|(index, credit)| (**credit, std::cmp::Reverse(*index)));
        let Some(index) = richest.map(|(index, _)| index) else { break };
        credit[index] -= i64::from(total);
        pattern.push(list[index].0);
    }
    Ok(pattern)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn imix_has_its_shares_and_no_runs_of_large_frames() {
        let imix: Sizes = "imix".parse().unwrap();
        let count = |size| imix.pattern.iter().filter(|s| **s == size).count();
        assert_eq!((count(60), count(590), count(1514)), (7, 4, 1));
        assert!(imix.pattern.windows(2).all(|pair| pair[0] == 60 || pair[1] == 60 || pair[0] != pair[1]));
        assert_eq!(imix.largest(), 1514);
    }

    #[test]
    fn ranges_and_lists_are_walked_through_again_and_again() {
        let range: Sizes = "60-62".parse().unwrap();
        assert_eq!((0..5).map(|n| range.at(n)).collect::<Vec<_>>(), [60, 61, 62, 60, 61]);
        let list: Sizes = "60:2,1514".parse().unwrap();
        assert_eq!((0..3).map(|n| list.at(n)).collect::<Vec<_>>(), [60, 1514, 60]);
        assert_eq!(list.to_string(), "60:2,1514");
    }

    #[test]
    fn what_no_frame_can_have_is_refused() {
        for wrong in ["", "59", "4000", "imix2", "100-60", "60:0", "60:20000", "60,", "64-"] {
            assert!(wrong.parse::<Sizes>().is_err(), "{wrong}");
        }
    }
}
