//! The columns of the table, as text.

use std::fmt::Write;

use super::sample::Row;
use crate::terminal::time::short;
use crate::terminal::width;

/// The columns after the id, with their widths.
pub(super) const COLUMNS: [(&str, usize); 9] = [
    ("PID", 8),
    ("STATE", 9),
    ("AGE", 5),
    ("CPU%", 6),
    ("MEMORY", 8),
    ("READ/S", 8),
    ("WRITE/S", 8),
    ("TASKS", 6),
    ("HELD%", 6),
];

/// The index of the column CPU%.
pub(super) const CPU: usize = 3;

/// The columns by importance: the last ones are omitted first.
const BY_WORTH: [usize; 9] = [CPU, 4, 1, 6, 5, 0, 7, 2, 8];

/// The columns that fit, in order, and the remaining width.
pub(super) fn fitting(room: usize) -> (Vec<usize>, usize) {
    let mut left = room;
    let mut fits = |column: &usize| {
        let rest = left.checked_sub(COLUMNS[*column].1);
        left = rest.unwrap_or(left);
        rest.is_some()
    };
    let mut columns: Vec<usize> = BY_WORTH.into_iter().take_while(|column| fits(column)).collect();
    columns.sort_unstable();
    (columns, left)
}

/// The cells of a row.
pub(super) fn cells(row: &Row) -> [String; 9] {
    let unknown = || "-".to_owned();
    let percent = |value: Option<f64>| value.map_or_else(unknown, |value| format!("{value:.1}"));
    let size = |value: Option<u64>| value.map_or_else(unknown, bytes);
    [
        row.pid.map_or_else(unknown, |pid| pid.to_string()),
        row.state.to_string(),
        row.age_seconds.map_or_else(unknown, short),
        percent(row.cpu_percent),
        size(row.usage.memory_bytes),
        size(row.read_per_second),
        size(row.written_per_second),
        row.usage.tasks.map_or_else(unknown, |tasks| tasks.to_string()),
        percent(row.throttled_percent),
    ]
}

pub(super) fn id_width(rows: &[Row]) -> usize {
    rows.iter().map(|row| width::of(row.id.as_str())).max().unwrap_or(0).max(2)
}

pub(super) fn text(rows: &[Row]) -> String {
    let width = id_width(rows);
    let mut text = format!("{:width$}", "ID");
    for (name, width) in COLUMNS {
        let _ = write!(text, "{name:>width$}");
    }
    text.push('\n');
    for row in rows {
        let _ = write!(text, "{}", width::padded(row.id.as_str(), width));
        for (cell, (_, width)) in cells(row).iter().zip(COLUMNS) {
            let _ = write!(text, "{cell:>width$}");
        }
        text.push('\n');
    }
    text
}

/// A size with two to four digits, in the unit for that.
fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "K", "M", "G", "T"];
    let mut unit = 0;
    // In tenths, for the decimal of a single digit.
    let mut tenths = u128::from(bytes) * 10;
    while tenths >= 10_000 && unit + 1 < UNITS.len() {
        tenths /= 1024;
        unit += 1;
    }
    if unit > 0 && tenths < 100 {
        return format!("{}.{}{}", tenths / 10, tenths % 10, UNITS[unit]);
    }
    format!("{}{}", tenths / 10, UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::{BY_WORTH, COLUMNS, bytes, fitting};

    #[test]
    fn columns_are_omitted_by_importance() {
        let names = |room| fitting(room).0.into_iter().map(|column| COLUMNS[column].0).collect::<Vec<_>>();
        assert_eq!(names(200).len(), COLUMNS.len());
        assert_eq!(fitting(72), ((0..9).collect(), 8));
        assert_eq!(names(63).last(), Some(&"TASKS"));
        assert_eq!(names(25), ["STATE", "CPU%", "MEMORY"]);
        // A less important column does not replace one that does not fit.
        assert_eq!(names(13), ["CPU%"]);
        assert!(names(5).is_empty());
        assert!((0..COLUMNS.len()).all(|column| BY_WORTH.contains(&column)));
    }

    #[test]
    fn a_size_is_printed_in_a_fitting_unit() {
        for (number, text) in [
            (0, "0B"),
            (999, "999B"),
            (1024, "1.0K"),
            (10 << 20, "10M"),
            (1 << 30, "1.0G"),
            (u64::MAX, "16777215T"),
        ] {
            assert_eq!(bytes(number), text);
        }
    }
}
