//! `include` and its variants: which files a pattern names, and what it means when there is none.
//!
//! Patterns are those of the shell with `{a,b}`; relative ones begin at the directory of the including file. As in
//! keepalived, directories, executable files and whatever is no regular file are passed over.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Largest file that is read, in bytes.
const LARGEST: u64 = 64 * 1024 * 1024;
/// Most alternatives of the braces of one pattern.
const MOST_ALTERNATIVES: usize = 256;

/// Longest pattern, in bytes: no path of Linux is longer.
const LONGEST_PATTERN: usize = 4096;

/// What has to hold, or it is an error. A file that is there and cannot be read always is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) struct Checks {
    pub(super) any_match: bool,
    pub(super) wildcard_match: bool,
    pub(super) brace_match: bool,
}

/// What a pattern came to.
#[derive(Debug, Default)]
pub(super) struct Matches {
    pub(super) files: Vec<PathBuf>,
    /// Parts of the pattern that named no file, and whether a wildcard was in them.
    pub(super) missing: Vec<(String, bool)>,
    /// Whether braces gave alternatives.
    pub(super) braces: bool,
}

/// The checks of an include keyword; `None` for any other word.
pub(super) fn checks(keyword: &str) -> Option<Checks> {
    let none = Checks::default();
    Some(match keyword {
        "include" | "includer" => none,
        "includem" => Checks { any_match: true, ..none },
        "includew" => Checks { any_match: true, wildcard_match: true, ..none },
        "includeb" => Checks { brace_match: true, ..none },
        "includea" => Checks { any_match: true, wildcard_match: true, brace_match: true },
        _ => return None,
    })
}

/// The files that a pattern names, in order.
pub(super) fn matches(pattern: &str, directory: &Path) -> Result<Matches, String> {
    if pattern.len() > LONGEST_PATTERN {
        return Err(format!("longer than {LONGEST_PATTERN} bytes"));
    }
    let mut found = Matches::default();
    let mut alternatives = Vec::new();
    alternate(pattern, &mut alternatives)?;
    found.braces = alternatives.len() > 1;
    let options =
        glob::MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: true };
    for part in alternatives {
        let wildcard = part.contains(['*', '?', '[']);
        let base = glob::Pattern::escape(&directory.to_string_lossy());
        let full = if part.starts_with('/') || directory.as_os_str().is_empty() {
            part.clone()
        } else {
            format!("{base}/{part}")
        };
        let paths = glob::glob_with(&full, options).map_err(|error| format!("not a pattern: {}", error.msg))?;
        let files: Vec<_> = paths.filter_map(Result::ok).filter(|path| !path.is_dir()).collect();
        if files.is_empty() {
            found.missing.push((part, wildcard));
        }
        found.files.extend(files);
    }
    Ok(found)
}

/// Replaces the first `{a,b}` by each alternative, and so on.
fn alternate(pattern: &str, done: &mut Vec<String>) -> Result<(), String> {
    if done.len() >= MOST_ALTERNATIVES {
        return Err(format!("more than {MOST_ALTERNATIVES} alternatives"));
    }
    let Some(open) = pattern.find('{') else {
        done.push(pattern.to_owned());
        return Ok(());
    };
    let (before, rest) = pattern.split_at(open);
    let mut depth = 0_usize;
    let mut cuts = vec![1];
    for (at, c) in rest.char_indices() {
        match c {
            '{' => depth += 1,
            ',' if depth == 1 => cuts.push(at + 1),
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            let after = rest.get(at + 1..).unwrap_or_default();
            let ends = cuts.iter().skip(1).map(|cut| cut - 1).chain([at]);
            for (start, end) in cuts.iter().zip(ends) {
                let middle = rest.get(*start..end).unwrap_or_default();
                alternate(&format!("{before}{middle}{after}"), done)?;
            }
            return Ok(());
        }
    }
    Err("`{` without `}`".to_owned())
}

/// Reads a configuration file: regular and of bounded size.
pub(super) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let file = fs::File::open(path)?;
    let meta = file.metadata()?;
    if meta.is_dir() {
        return Err(io::Error::new(io::ErrorKind::IsADirectory, "it is a directory"));
    }
    if meta.len() > LARGEST {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it has more than 64 MiB"));
    }
    let mut bytes = Vec::new();
    file.take(LARGEST).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Whether keepalived would pass over a file that a pattern names.
pub(super) fn passed_over(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| !meta.is_file() || meta.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn braces_give_alternatives() {
        let mut done = Vec::new();
        alternate("/etc/{a,b{1,2}}.conf", &mut done).unwrap();
        assert_eq!(done, ["/etc/a.conf", "/etc/b1.conf", "/etc/b2.conf"]);
        assert!(alternate("/etc/{a", &mut Vec::new()).is_err());
        assert!(alternate(&"{a,b}".repeat(20), &mut Vec::new()).is_err());
    }

    #[test]
    fn a_pattern_finds_files_in_order_and_tells_what_is_missing() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b.conf", "a.conf", ".hidden.conf"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        fs::create_dir(dir.path().join("d.conf")).unwrap();
        let found = matches("*.conf", dir.path()).unwrap();
        assert_eq!(found.files, [dir.path().join("a.conf"), dir.path().join("b.conf")]);
        let found = matches("{a.conf,c.conf}", dir.path()).unwrap();
        assert_eq!(found.missing, [("c.conf".to_owned(), false)]);
        assert!(found.braces);
    }
}
