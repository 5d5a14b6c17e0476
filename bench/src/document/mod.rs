//! The page of figures: `docs/performance.md`, made of a template and of what was measured, and its pictures.
//!
//! The template is Markdown with lines `{{table NAME}}`, `{{picture NAME}}`, `{{budgets}}`, `{{cores}}`, `{{flows}}`,
//! `{{measured}}` and `{{comparisons}}`; everything else stays as it is.

mod budgets;
mod capacity;
mod pictures;
mod plot;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::error::BenchError;
use crate::report::{ITEMS, file};
use crate::results::Results;

/// The template's name among the results.
const TEMPLATE: &str = "page.md.in";

/// Results by their names.
type All = BTreeMap<String, Results>;

/// Writes the page, and its pictures beside the results.
///
/// # Errors
/// When something cannot be read or written, or the template asks for what there is not.
pub(crate) fn write(results: &Path, page: &Path) -> Result<(), BenchError> {
    let all = read(results)?;
    let template = results.join(TEMPLATE);
    let text = fs::read_to_string(&template).map_err(|source| file("read", &template, source))?;
    let folder = results.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let mut made =
        String::from("<!-- Made by scripts/performance.sh; change docs/performance/page.md.in instead. -->\n\n");
    for line in text.lines() {
        match line.strip_prefix("{{").and_then(|rest| rest.strip_suffix("}}")) {
            Some(wish) => {
                let given = fill_in(wish, &all, results, &folder)?;
                let given = given.ok_or_else(|| BenchError::Page {
                    path: template.clone(),
                    what: format!("nothing is known of {{{{{wish}}}}}"),
                })?;
                made += given.trim_end();
            }
            None => made += line,
        }
        made.push('\n');
    }
    fs::write(page, made).map_err(|source| file("write", page, source))
}

/// All results of a directory.
fn read(directory: &Path) -> Result<All, BenchError> {
    let mut all = All::new();
    let entries = fs::read_dir(directory).map_err(|source| file("read", directory, source))?;
    for entry in entries {
        let path = entry.map_err(|source| file("read", directory, source))?.path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let text = fs::read_to_string(&path).map_err(|source| file("read", &path, source))?;
        let one: Results = serde_json::from_str(&text)
            .map_err(|error| BenchError::Page { path: path.clone(), what: error.to_string() })?;
        all.insert(one.name.clone(), one);
    }
    Ok(all)
}

/// What stands in the place of a wish; `None` when nobody knows it.
fn fill_in(wish: &str, all: &All, directory: &Path, folder: &str) -> Result<Option<String>, BenchError> {
    Ok(match wish.split_once(' ') {
        Some(("table", name)) => Some(table(name, all)),
        Some(("picture", name)) => match pictures::draw(name, all, directory)? {
            Some(alt) => Some(format!("![{alt}]({folder}/{name}.svg)")),
            None => pictures::is_known(name).then(|| format!("*No picture of {name}: it was not measured.*")),
        },
        None if wish == "budgets" => Some(budgets::table(all)),
        None if wish == "cores" => Some(capacity::cores(all)),
        None if wish == "flows" => Some(capacity::flows(all)),
        None if wish == "measured" => Some(measured(all)),
        None if wish == "comparisons" => Some(comparisons(all)),
        _ => None,
    })
}

/// A result's rows, or why there are none.
fn table(name: &str, all: &All) -> String {
    let Some(results) = all.get(name) else { return format!("*Not measured yet: `{name}`.*") };
    if results.rows.is_empty() {
        return format!("*Not measured: {}.*", results.warnings.join("; "));
    }
    let disturbed = match &results.warnings[..] {
        [] => String::new(),
        [first, rest @ ..] => {
            format!("\nDisturbed while it was measured: {first} (and {} more like it).\n", rest.len())
        }
    };
    format!("{}\n\n{}{disturbed}", results.about, Results::markdown(&results.rows))
}

/// When and where the results were measured: one line for each machine, kernel and commit.
fn measured(all: &All) -> String {
    let mut places: BTreeMap<(String, String), Vec<&str>> = BTreeMap::new();
    for results in all.values() {
        let machine = serde_json::to_value(&results.machine).unwrap_or_default();
        let text = |key: &str| machine.get(key).and_then(|value| value.as_str()).unwrap_or("unknown").to_owned();
        let place = format!("{}, kernel {}, commit {}", text("cpu"), text("kernel"), results.commit);
        let day = results.date.split('T').next().unwrap_or_default().to_owned();
        places.entry((day, place)).or_default().push(&results.name);
    }
    let line =
        |((day, place), names): (&(String, String), &Vec<&str>)| format!("- {day}: {place}: {}.", names.join(", "));
    places.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// The results that are not of `sluice-bench report`: comparisons with other programs, and the load generator's.
fn comparisons(all: &All) -> String {
    let others = all.values().filter(|results| ITEMS.iter().all(|item| item.name != results.name));
    let section = |results: &Results| {
        let about = if results.about.is_empty() { String::new() } else { format!("{}\n\n", results.about) };
        let rows = Results::markdown(&results.rows);
        let targets = if results.targets.is_empty() {
            String::new()
        } else {
            format!("\n{}", Results::markdown(&results.targets))
        };
        format!("### {}\n\n{about}{rows}{targets}", results.name)
    };
    let text = others.map(section).collect::<Vec<_>>().join("\n");
    if text.is_empty() { "*None was run yet: `scripts/compare/*.sh`.*".into() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::{Measured, Row};

    fn results(name: &str, rows: Vec<Row>) -> Results {
        Results::new(name, "About it.", Measured { rows, warnings: Vec::new() })
    }

    fn made_of(template: &str, all: &[Results]) -> Result<String, BenchError> {
        let directory = tempfile::tempdir().unwrap();
        let folder = directory.path().join("performance");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join(TEMPLATE), template).unwrap();
        for one in all {
            fs::write(folder.join(format!("{}.json", one.name)), serde_json::to_string(one).unwrap()).unwrap();
        }
        let page = directory.path().join("performance.md");
        write(&folder, &page)?;
        Ok(fs::read_to_string(page).unwrap())
    }

    #[test]
    fn wishes_are_filled_in_and_the_rest_stays() {
        let memory = results("memory", vec![Row::default().with("bytes_per_flow", 100.0)]);
        let haproxy = results("haproxy", vec![Row::default().with("peer", "sluice").with("ratio", 1.5)]);
        let page =
            made_of("# A\n{{table memory}}\n{{comparisons}}\n{{table fill}}\nend\n", &[memory, haproxy]).unwrap();
        for text in
            ["# A\n", "| bytes per flow |", "| 100.0 |", "### haproxy", "| sluice | 1.50 |", "`fill`", "\nend\n"]
        {
            assert!(page.contains(text), "{text}: {page}");
        }
    }

    #[test]
    fn a_wish_that_nobody_knows_is_an_error() {
        let error = made_of("{{teapot}}\n", &[]).unwrap_err();
        assert!(error.to_string().contains("{{teapot}}"), "{error}");
    }

    #[test]
    fn what_was_not_installed_is_told() {
        let mut absent = results("null-port", Vec::new());
        absent.warnings.push("dpdk-testpmd is not installed".into());
        assert!(made_of("{{table null-port}}\n", &[absent]).unwrap().contains("*Not measured: dpdk-testpmd is not"));
    }
}
