//! The keys of the screen.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use rustix::process::Signal;

/// The contents of the screen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    List,
    /// The list, while the user types its filter.
    Filter,
    /// The question whether to send a signal to the selected jail.
    Confirm(Signal),
    /// The log of the selected jail.
    Log,
    /// The list of all keys.
    Keys,
}

/// The effect of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Nothing,
    Quit,
    Show(Mode),
    /// Select the jail this many rows further down, or the last one.
    Move(isize),
    /// Order by the next column.
    NextOrder,
    /// Add a character to the filter.
    Type(char),
    /// Remove the filter's last character.
    Erase,
    ClearFilter,
    /// Send the signal to the selected jail.
    Send(Signal),
}

/// The keys of the list, with their effects.
pub(super) const KEYS: [(&str, &str); 12] = [
    ("q, Ctrl-C", "quit"),
    ("up", "jail above"),
    ("down, j", "jail below"),
    ("PageUp, PageDown", "ten jails up, down"),
    ("Home, g", "first jail"),
    ("End, G", "last jail"),
    ("s", "sort by the next column"),
    ("/", "filter by id"),
    ("Esc", "clear the filter"),
    ("l, Enter", "end of the log"),
    ("t", "SIGTERM, after a question"),
    ("k", "SIGKILL, after a question"),
];

/// The line of keys, the most useful first: a narrow screen cuts the line.
pub(super) fn help(mode: &Mode) -> &'static str {
    match mode {
        Mode::List => "q quit   ? keys   up/down select   s sort   / filter   l log   t TERM   k KILL",
        Mode::Filter => "type a part of the id   enter keep   esc clear",
        Mode::Confirm(_) => "any other key: cancel",
        Mode::Log | Mode::Keys => "esc back   q quit",
    }
}

/// All keys. Each stays on one line with its effect.
pub(super) fn all() -> String {
    KEYS.map(|(keys, what)| format!("{keys}: {what}").replace(' ', "\u{a0}")).join("   ")
}

pub(super) fn action(mode: &Mode, key: KeyEvent) -> Action {
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        return if key.code == KeyCode::Char('c') { Action::Quit } else { Action::Nothing };
    }
    match (mode, key.code) {
        (Mode::Filter, KeyCode::Char(letter)) => Action::Type(letter),
        (Mode::Filter, KeyCode::Backspace) => Action::Erase,
        (Mode::Filter | Mode::List, KeyCode::Esc) => Action::ClearFilter,
        (Mode::Confirm(signal), KeyCode::Char('y')) => Action::Send(*signal),
        (Mode::Filter, KeyCode::Enter)
        | (Mode::Confirm(_), _)
        | (Mode::Log, KeyCode::Esc | KeyCode::Char('l'))
        | (Mode::Keys, KeyCode::Esc | KeyCode::Char('?')) => Action::Show(Mode::List),
        (Mode::List | Mode::Log | Mode::Keys, KeyCode::Char('q')) => Action::Quit,
        (Mode::List, KeyCode::Down | KeyCode::Char('j')) => Action::Move(1),
        (Mode::List, KeyCode::Up) => Action::Move(-1),
        (Mode::List, KeyCode::PageDown) => Action::Move(10),
        (Mode::List, KeyCode::PageUp) => Action::Move(-10),
        (Mode::List, KeyCode::Home | KeyCode::Char('g')) => Action::Move(isize::MIN),
        (Mode::List, KeyCode::End | KeyCode::Char('G')) => Action::Move(isize::MAX),
        (Mode::List, KeyCode::Char('?')) => Action::Show(Mode::Keys),
        (Mode::List, KeyCode::Char('s')) => Action::NextOrder,
        (Mode::List, KeyCode::Char('/')) => Action::Show(Mode::Filter),
        (Mode::List, KeyCode::Char('l') | KeyCode::Enter) => Action::Show(Mode::Log),
        (Mode::List, KeyCode::Char('t')) => Action::Show(Mode::Confirm(Signal::TERM)),
        (Mode::List, KeyCode::Char('k')) => Action::Show(Mode::Confirm(Signal::KILL)),
        _ => Action::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn press(mode: &Mode, code: KeyCode) -> Action {
        action(mode, KeyEvent::new(code, KeyModifiers::NONE))
    }

    #[test]
    fn one_key_kills_no_vmm() {
        let asked = press(&Mode::List, KeyCode::Char('k'));
        assert_eq!(asked, Action::Show(Mode::Confirm(Signal::KILL)));
        let confirm = Mode::Confirm(Signal::KILL);
        assert_eq!(press(&confirm, KeyCode::Char('y')), Action::Send(Signal::KILL));
        for other in [KeyCode::Char('k'), KeyCode::Enter, KeyCode::Char('n'), KeyCode::Esc] {
            assert_eq!(press(&confirm, other), Action::Show(Mode::List));
        }
    }

    #[test]
    fn letters_belong_to_the_filter_while_it_is_typed() {
        for letter in ['q', 'k', 'l', '/', '?', 'g'] {
            assert_eq!(press(&Mode::Filter, KeyCode::Char(letter)), Action::Type(letter));
        }
        assert_eq!(press(&Mode::Filter, KeyCode::Esc), Action::ClearFilter);
    }

    #[test]
    fn the_ends_of_the_list_and_the_list_of_keys_have_keys() {
        for key in [KeyCode::Home, KeyCode::Char('g')] {
            assert_eq!(press(&Mode::List, key), Action::Move(isize::MIN));
        }
        for key in [KeyCode::End, KeyCode::Char('G')] {
            assert_eq!(press(&Mode::List, key), Action::Move(isize::MAX));
        }
        let changes = [(Mode::List, KeyCode::Char('?'), Mode::Keys), (Mode::Keys, KeyCode::Esc, Mode::List)];
        for (from, key, to) in changes {
            assert_eq!(press(&from, key), Action::Show(to));
        }
    }

    #[test]
    fn control_c_leaves_from_anywhere() {
        let key = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        for mode in [Mode::List, Mode::Filter, Mode::Confirm(Signal::KILL), Mode::Log, Mode::Keys] {
            assert_eq!(action(&mode, key), Action::Quit);
        }
    }
}
