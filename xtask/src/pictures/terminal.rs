//! Draws terminal text with its attributes as an SVG picture.

use std::fmt::Write;

/// The size of a character, in pixels.
const CELL: (f64, f64) = (7.83, 18.0);
const MARGIN: (f64, f64) = (16.0, 40.0);

const STYLE: &str = "<style>text{font:13px ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace;\
    fill:#d7dce2;white-space:pre}.b{font-weight:700;fill:#fff}.d{fill:#8b949e}.r{fill:#0d1117}.i{fill:#d7dce2}</style>";

#[derive(Clone, Copy, Default, PartialEq)]
struct Style {
    bold: bool,
    dim: bool,
    reversed: bool,
}

/// Draws text. `ESC [ … m` sets bold, dim and reversed.
pub(super) fn svg(title: &str, text: &str) -> String {
    let lines: Vec<Vec<(Style, String)>> =
        text.trim_end().lines().scan(Style::default(), |style, line| Some(spans(style, line))).collect();
    let widest = lines.iter().map(|line| width(line)).max().unwrap_or(0);
    let size = (MARGIN.0 * 2.0 + cells(widest), MARGIN.1 + MARGIN.0 + CELL.1 * cells_of(lines.len()));
    let mut picture = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {:.0} {:.0}\" role=\"img\">\n<title>{title}</title>\n{STYLE}\n\
         <rect width=\"100%\" height=\"100%\" rx=\"8\" fill=\"#0d1117\"/>\n",
        size.0, size.1
    );
    for (number, colour) in ["#ff5f57", "#febc2e", "#28c840"].into_iter().enumerate() {
        let _ = writeln!(
            picture,
            "<circle cx=\"{:.0}\" cy=\"18\" r=\"5.5\" fill=\"{colour}\"/>",
            20.0 + 18.0 * cells_of(number)
        );
    }
    for (number, line) in lines.iter().enumerate() {
        draw(&mut picture, MARGIN.1 + CELL.1 * cells_of(number), line);
    }
    picture.push_str("</svg>\n");
    picture
}

/// Draws one line with its upper edge at `top`. Each span has a fixed width, so that columns align in every font.
fn draw(picture: &mut String, top: f64, line: &[(Style, String)]) {
    let mut column = 0;
    for (style, text) in line {
        let (left, wide) = (MARGIN.0 + cells(column), cells(text.chars().count()));
        column += text.chars().count();
        if style.reversed {
            let _ = writeln!(
                picture,
                "<rect class=\"i\" x=\"{left:.1}\" y=\"{top:.1}\" width=\"{wide:.1}\" height=\"{:.0}\"/>",
                CELL.1
            );
        }
        if text.trim().is_empty() {
            continue;
        }
        let class = match style {
            Style { reversed: true, .. } => " class=\"r\"",
            Style { bold: true, .. } => " class=\"b\"",
            Style { dim: true, .. } => " class=\"d\"",
            _ => "",
        };
        let shown = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        let _ = writeln!(
            picture,
            "<text{class} x=\"{left:.1}\" y=\"{:.1}\" textLength=\"{wide:.1}\" lengthAdjust=\"spacingAndGlyphs\" xml:space=\"preserve\">{shown}</text>",
            top + 13.0
        );
    }
}

/// Splits a line into spans of one style. `style` holds the style at the beginning, and then at the end of the line.
fn spans(style: &mut Style, line: &str) -> Vec<(Style, String)> {
    let mut pieces = line.split("\x1b[");
    let mut spans = vec![(*style, pieces.next().unwrap_or_default().to_owned())];
    for piece in pieces {
        let (codes, text) = piece.split_once('m').unwrap_or(("", piece));
        for code in codes.split(';') {
            match code {
                "1" => style.bold = true,
                "2" => style.dim = true,
                "7" => style.reversed = true,
                "" | "0" => *style = Style::default(),
                _ => (),
            }
        }
        spans.push((*style, text.to_owned()));
    }
    spans.retain(|(_, text)| !text.is_empty());
    spans
}

fn width(line: &[(Style, String)]) -> usize {
    line.iter().map(|(_, text)| text.chars().count()).sum()
}

fn cells(count: usize) -> f64 {
    CELL.0 * cells_of(count)
}

fn cells_of(count: usize) -> f64 {
    u32::try_from(count).map_or(f64::MAX, f64::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_last_until_their_reset_and_markup_is_escaped() {
        let picture = svg("a", "\x1b[1mbold\n<still>\x1b[0m plain\x1b[7m back \x1b[m");
        for part in [">bold</text>", ">&lt;still&gt;</text>", "<text x=", "<rect class=\"i\"", "class=\"r\""]
        {
            assert!(picture.contains(part), "{part}: {picture}");
        }
        assert_eq!(picture.matches("class=\"b\"").count(), 2);
    }
}
