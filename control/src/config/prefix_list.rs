//! `blocklist` and `allowlist` of a virtual server: prefixes, and files with one prefix a line.
//!
//! A file is read when the configuration is; a list that several services name is read once. `#` and `;` begin a comment.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dataplane::rules::PrefixSet;
use ipnet::IpNet;

use super::block::Statement;
use super::lexer::Word;
use super::lower::{Lower, shown};
use super::rules::parse_prefix;

/// Longest file that is read, in bytes: above that no list of prefixes is.
const LONGEST: u64 = 512 << 20;
/// Wrong lines of a file that are told.
const MOST_TOLD: usize = 5;

/// The files read so far, by path.
#[derive(Default)]
pub(super) struct PrefixLists {
    files: HashMap<PathBuf, Option<Arc<Vec<IpNet>>>>,
    sets: HashMap<Vec<PathBuf>, Arc<PrefixSet>>,
}

impl PrefixLists {
    /// Lowers one statement: everything that it names together.
    pub(super) fn lower(&mut self, lower: &mut Lower<'_>, statement: &Statement) -> Option<Arc<PrefixSet>> {
        if statement.arguments().is_empty() {
            lower.lacking(statement, "prefixes or a file");
            return None;
        }
        let (mut prefixes, mut paths) = (Vec::new(), Vec::new());
        for word in statement.arguments() {
            match parse_prefix(&word.text) {
                Some(prefix) => prefixes.push(prefix),
                None => paths.push(path(lower, word)),
            }
        }
        if prefixes.is_empty()
            && let Some(known) = self.sets.get(&paths)
        {
            return Some(Arc::clone(known));
        }
        let words: Vec<_> = statement.arguments().iter().filter(|word| parse_prefix(&word.text).is_none()).collect();
        let is_files_only = prefixes.is_empty();
        for (word, path) in words.into_iter().zip(&paths) {
            prefixes.extend(self.file(lower, word, path)?.iter());
        }
        let set: Arc<PrefixSet> = Arc::new(prefixes.into_iter().collect());
        if is_files_only {
            self.sets.insert(paths, Arc::clone(&set));
        }
        Some(set)
    }

    fn file(&mut self, lower: &mut Lower<'_>, word: &Word, path: &Path) -> Option<Arc<Vec<IpNet>>> {
        if let Some(known) = self.files.get(path) {
            return known.clone();
        }
        let list = read(lower, word, path).map(Arc::new);
        self.files.insert(path.to_owned(), list.clone());
        list
    }
}

/// A path, relative to the file that names it.
fn path(lower: &Lower<'_>, word: &Word) -> PathBuf {
    let place = lower.place(word.span);
    Path::new(&*place.file).parent().unwrap_or_else(|| Path::new("")).join(&word.text)
}

fn read(lower: &mut Lower<'_>, word: &Word, path: &Path) -> Option<Vec<IpNet>> {
    let text = match fs::metadata(path) {
        Ok(about) if !about.is_file() => Err("it is no file".to_owned()),
        Ok(about) if about.len() > LONGEST => Err(format!("it has more than {} MiB", LONGEST >> 20)),
        Ok(_) => fs::read_to_string(path).map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    let text = match text {
        Ok(text) => text,
        Err(reason) => {
            let message = format!("cannot read the list {}: {reason}", shown(&path.display().to_string()));
            lower.error(word.span, message, "expected prefixes, or a file with one a line");
            return None;
        }
    };
    let (mut list, mut wrong) = (Vec::new(), Vec::new());
    for (number, line) in text.lines().enumerate() {
        let line = line.split(['#', ';']).next().unwrap_or_default().trim();
        match parse_prefix(line) {
            Some(prefix) => list.push(prefix),
            None if line.is_empty() => {}
            None => wrong.push((number + 1, line)),
        }
    }
    if wrong.is_empty() {
        return Some(list);
    }
    let told: Vec<_> =
        wrong.iter().take(MOST_TOLD).map(|(number, line)| format!("line {number}: `{}`", shown(line))).collect();
    let more = wrong.len().saturating_sub(MOST_TOLD);
    let more = if more > 0 { format!(", and {more} more") } else { String::new() };
    let message = format!("{} has lines that are no prefix", shown(&path.display().to_string()));
    lower.error(word.span, message, format!("{}{more}", told.join(", ")));
    None
}
