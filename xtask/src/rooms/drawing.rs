//! The rooms as a picture.

use std::fmt::Write;

use super::list::{House, Room};

/// Sizes in pixels.
const WIDTH: usize = 860;
const MARGIN: usize = 24;
const GAP: usize = 6;
const PAD: usize = 14;
/// Height of a box that has a row of its own, and of one that shares it.
const HEIGHTS: (usize, usize) = (34, 50);
/// Distance between the beginnings of a name and of the text beside it.
const COLUMN: usize = 112;

const STYLE: &str = "<style>\
    .house{font:600 15px system-ui,'Segoe UI',Helvetica,Arial,sans-serif;fill:#1f2933}\
    .name{font:600 14px ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace;fill:#12344d}\
    .text{font:12px system-ui,'Segoe UI',Helvetica,Arial,sans-serif;fill:#3e4c59}\
    .room{fill:#eaf2f9;stroke:#9fb9d1}.root{fill:#f5f7fa;stroke:#cbd2d9}</style>";

/// Draws the rooms of some crates, each crate above those that it uses.
pub(super) fn svg(houses: &[House]) -> String {
    let mut body = String::new();
    let mut top = MARGIN;
    for house in houses {
        text(&mut body, "house", MARGIN, top + 14, house.name);
        top += 26;
        top += row(&mut body, top, "root", &[&house.root]);
        for level in house.levels {
            top += row(&mut body, top, "room", &level.iter().collect::<Vec<_>>());
        }
        top += MARGIN - GAP;
    }
    for line in rules(houses) {
        text(&mut body, "text", MARGIN, top + 12, &line);
        top += 18;
    }
    let height = top + MARGIN - 6;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\">\n\
         <title>The rooms of the source, from top to bottom</title>\n{STYLE}\n\
         <rect x=\"0.5\" y=\"0.5\" width=\"{}\" height=\"{}\" rx=\"8\" fill=\"#fff\" stroke=\"#d9e2ec\"/>\n{body}</svg>\n",
        WIDTH - 1,
        height - 1
    )
}

/// The rules of the drawing, and the exceptions that the list names.
fn rules(houses: &[House]) -> Vec<String> {
    let mut rules =
        vec!["A room imports only rooms below it. Rooms side by side do not import each other.".to_owned()];
    for house in houses {
        let rooms = house.rooms().filter(|room| !room.not.is_empty());
        rules.extend(rooms.map(|room| format!("{} does not import {}.", room.name, room.not.join(" and "))));
        let owners = house.owners.iter();
        rules.extend(
            owners.map(|owner| format!("Methods of {} are in {} alone.", owner.name, owner.rooms.join(", "))),
        );
    }
    rules
}

/// Draws rooms side by side; returns the distance to the next row.
fn row(body: &mut String, top: usize, class: &str, rooms: &[&Room]) -> usize {
    let height = if rooms.len() == 1 { HEIGHTS.0 } else { HEIGHTS.1 };
    for (number, room) in rooms.iter().enumerate() {
        let left = MARGIN + number * (box_width(rooms.len()) + GAP);
        // The last one ends where the rows of one box end.
        let is_last = number + 1 == rooms.len();
        let width = if is_last { WIDTH - MARGIN - left } else { box_width(rooms.len()) };
        let _ = writeln!(
            body,
            "<rect class=\"{class}\" x=\"{left}.5\" y=\"{top}.5\" width=\"{}\" height=\"{}\" rx=\"5\"/>",
            width - 1,
            height - 1
        );
        text(body, "name", left + PAD, top + 22, room.name);
        let (column, line) = if rooms.len() == 1 { (COLUMN, 22) } else { (0, 40) };
        text(body, "text", left + PAD + column, top + line, room.holds);
    }
    height + GAP
}

fn box_width(rooms: usize) -> usize {
    (WIDTH - 2 * MARGIN - (rooms - 1) * GAP) / rooms
}

fn text(body: &mut String, class: &str, left: usize, baseline: usize, text: &str) {
    let escaped = text.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(body, "<text class=\"{class}\" x=\"{left}\" y=\"{baseline}\">{escaped}</text>");
}

#[cfg(test)]
mod tests {
    use super::super::list::HOUSES;
    use super::*;

    /// Widths of a character in the widest fonts of the style, in hundredths of a pixel.
    const NAME_WIDTH: usize = 850;
    const TEXT_WIDTH: usize = 680;

    #[test]
    fn every_line_fits_into_its_box() {
        for level in HOUSES.iter().flat_map(|house| house.levels) {
            let room_for = (box_width(level.len()) - 2 * PAD) * 100;
            let (for_name, for_text) = match level.len() {
                1 => (COLUMN * 100, room_for - COLUMN * 100),
                _ => (room_for, room_for),
            };
            for room in *level {
                assert!(room.name.chars().count() * NAME_WIDTH < for_name, "{}", room.name);
                assert!(room.holds.chars().count() * TEXT_WIDTH < for_text, "{}", room.holds);
            }
        }
    }

    #[test]
    fn every_room_is_drawn_once_with_what_it_holds() {
        let picture = svg(HOUSES);
        for room in HOUSES.iter().flat_map(House::rooms) {
            assert_eq!(picture.matches(&format!(">{}</text>", room.name)).count(), 1, "{}", room.name);
            assert_eq!(picture.matches(&format!(">{}</text>", room.holds)).count(), 1, "{}", room.holds);
        }
    }
}
