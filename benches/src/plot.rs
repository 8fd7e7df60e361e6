//! The plot: for each way a bar up to its median, and a line up to its 99th percentile.

use std::fmt::Write;

use crate::series::{Bench, Series, number};
use crate::statistics::{median, percentile};

const WIDTH: f64 = 900.0;
const LEFT: f64 = 330.0;
const ROW: f64 = 22.0;

/// Draws every bench of times, each with its own scale.
pub(crate) fn svg(benches: &[Bench]) -> String {
    let benches: Vec<&Bench> = benches.iter().filter(|bench| bench.unit == "µs").collect();
    let mut body = String::new();
    let mut y = 10.0;
    for bench in benches {
        let longest = bench.series.iter().map(|series| median(&series.samples)).fold(1.0, f64::max);
        let _ = writeln!(body, r#"<text x="10" y="{:.0}" class="title">{}</text>"#, y + 15.0, bench.title);
        y += ROW + 6.0;
        for series in &bench.series {
            bar(&mut body, series, y, (WIDTH - LEFT - 90.0) / longest);
            y += ROW;
        }
        y += 14.0;
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {y:.0}\" font-family=\"sans-serif\" \
         font-size=\"13\">\n<style>.title{{font-weight:bold}}text{{fill:#333}}.own{{fill:#2a6fb0}}\
         .other{{fill:#b8bec6}}</style>\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n{body}</svg>\n"
    )
}

fn bar(body: &mut String, series: &Series, y: f64, scale: f64) {
    let (middle, high) = (median(&series.samples), percentile(&series.samples, 0.99));
    let is_own =
        ["stockade", "drop-in", "taken", "together"].iter().any(|name| series.name.starts_with(name));
    let class = if is_own { "own" } else { "other" };
    let (end, far) = (LEFT + middle * scale, (LEFT + high * scale).min(WIDTH - 80.0));
    let base = y + 13.0;
    let _ = writeln!(
        body,
        r#"<text x="{:.0}" y="{base:.0}" text-anchor="end">{}</text>"#,
        LEFT - 8.0,
        series.name
    );
    let _ = writeln!(
        body,
        r##"<rect x="{LEFT}" y="{y:.0}" width="{:.1}" height="15" class="{class}"/><path d="M{end:.1} {middle_y:.0}H{far:.1}" stroke="#888"/>"##,
        end - LEFT,
        middle_y = y + 7.5,
    );
    let _ =
        writeln!(body, r#"<text x="{:.1}" y="{base:.0}">{} µs</text>"#, far.max(end) + 6.0, number(middle));
}
