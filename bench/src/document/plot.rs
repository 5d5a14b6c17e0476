//! Pictures of lines, as SVG.

use std::path::Path;

use plotters::prelude::*;

use crate::error::BenchError;

/// Width and height of a picture.
const SIZE: (u32, u32) = (760, 420);
const FONT: &str = "sans-serif";
/// The lines' colours in turn, dark enough for white.
const COLOURS: [RGBColor; 8] = [
    RGBColor(31, 119, 180),
    RGBColor(214, 95, 0),
    RGBColor(44, 130, 44),
    RGBColor(200, 30, 40),
    RGBColor(120, 80, 180),
    RGBColor(120, 70, 60),
    RGBColor(100, 100, 100),
    RGBColor(0, 140, 150),
];

/// A named line through points.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

/// How an axis is divided.
#[derive(Clone, Debug)]
pub(crate) enum Scale {
    /// Evenly, from zero.
    Even,
    /// By powers of ten.
    Decades,
    /// One place for each of these names; a point's coordinate is a place.
    Named(Vec<String>),
}

/// A picture.
#[derive(Clone, Debug)]
pub(crate) struct Chart<'c> {
    pub(crate) title: &'c str,
    pub(crate) across: (&'c str, Scale),
    pub(crate) up: (&'c str, Scale),
    pub(crate) lines: Vec<Line>,
}

impl Scale {
    fn place(&self, value: f64) -> f64 {
        match self {
            Self::Decades => value.max(1e-9).log10(),
            Self::Even | Self::Named(_) => value,
        }
    }

    fn label(&self, place: f64) -> String {
        match self {
            Self::Even => short(place),
            Self::Decades => short(10f64.powf(place)),
            Self::Named(names) => {
                let is_between = (place - place.round()).abs() > 0.01;
                if is_between { String::new() } else { names.get(place.round() as usize).cloned().unwrap_or_default() }
            }
        }
    }

    /// Ends of the axis for values in between.
    fn range(&self, values: impl Iterator<Item = f64>) -> std::ops::Range<f64> {
        let (low, high) = values
            .map(|value| self.place(value))
            .fold((f64::MAX, f64::MIN), |(low, high), place| (low.min(place), high.max(place)));
        match self {
            Self::Even => 0.0..(high * 1.08).max(1e-6),
            Self::Decades => low - 0.08..high + 0.08,
            Self::Named(names) => -0.2..names.len() as f64 - 0.8,
        }
    }

    const fn labels(&self) -> usize {
        match self {
            Self::Named(names) => names.len() * 5,
            Self::Even | Self::Decades => 8,
        }
    }
}

/// Draws a picture into a file.
///
/// # Errors
/// When it cannot be written.
pub(crate) fn draw(path: &Path, chart: &Chart<'_>) -> Result<(), BenchError> {
    paint(path, chart).map_err(|error| BenchError::Plot { path: path.into(), what: error.to_string() })
}

fn paint(path: &Path, chart: &Chart<'_>) -> Result<(), Box<dyn std::error::Error>> {
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let points = || chart.lines.iter().flat_map(|line| line.points.iter());
    let (across, up) = (&chart.across.1, &chart.up.1);
    let mut context = ChartBuilder::on(&root)
        .caption(chart.title, (FONT, 18))
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(60)
        .build_cartesian_2d(across.range(points().map(|p| p.0)), up.range(points().map(|p| p.1)))?;
    let mut mesh = context.configure_mesh();
    if matches!(across, Scale::Named(_)) {
        mesh.disable_x_mesh();
    }
    mesh.light_line_style(TRANSPARENT)
        .x_desc(chart.across.0)
        .y_desc(chart.up.0)
        .x_labels(across.labels())
        .y_labels(up.labels())
        .x_label_formatter(&|place| across.label(*place))
        .y_label_formatter(&|place| up.label(*place))
        .draw()?;
    for (n, line) in chart.lines.iter().enumerate() {
        let colour = COLOURS[n % COLOURS.len()];
        let places: Vec<(f64, f64)> = line.points.iter().map(|(x, y)| (across.place(*x), up.place(*y))).collect();
        context
            .draw_series(LineSeries::new(places.iter().copied(), colour.stroke_width(2)).point_size(3))?
            .label(&line.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
    }
    context
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.85))
        .border_style(BLACK.mix(0.2))
        .draw()?;
    root.present()?;
    Ok(())
}

/// A number in few letters.
fn short(value: f64) -> String {
    let scaled = |value: f64, unit: &str| {
        let rounded = (value * 100.0).round() / 100.0;
        format!("{rounded}{unit}")
    };
    match value.abs() {
        v if v >= 999_500.0 => scaled(value / 1e6, " M"),
        v if v >= 999.5 => scaled(value / 1e3, " k"),
        _ => scaled(value, ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_has_its_lines_names_and_its_axes_labels() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("picture.svg");
        let lines = vec![Line { name: "NAT".into(), points: vec![(1e3, 20.0), (1e6, 30.0), (1e7, 40.0)] }];
        let chart = Chart { title: "Cost", across: ("flows", Scale::Decades), up: ("ns", Scale::Even), lines };
        draw(&path, &chart).unwrap();
        let svg = std::fs::read_to_string(path).unwrap();
        for text in ["NAT", "Cost", "flows", "10 M", "1 k"] {
            assert!(svg.contains(text), "{text}");
        }
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!([1.5, 1000.0, 250_000.0, 1e7].map(short), ["1.5", "1 k", "250 k", "10 M"]);
    }
}
