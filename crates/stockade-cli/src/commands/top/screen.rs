//! The live table on a terminal.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use ratatui::crossterm::event::{self, Event, KeyEventKind};
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Cell, Paragraph, Row as TableRow, Table, TableState, Wrap};
use ratatui::{DefaultTerminal, Frame};
use rustix::event::{PollFd, PollFlags};
use rustix::process::Signal;
use stockade::Output;
use stockade::spec::JailId;
use stockade::spec::reason;
use stockade_syscalls::poll::{is_ready, wait_until};
use stockade_syscalls::signals::SignalFd;

use super::keys::{self, Action, Mode, action, help};
use super::sample::{Order, Row, Sampler};
use super::table::{COLUMNS, CPU, cells, fitting, id_width};
use crate::flags::lookup::{Sent, send_signal};
use crate::terminal::output::{Failure, escape_control};
use crate::terminal::signals::stop_signals_and;
use crate::terminal::{signal_names, width};

/// The most lines of a log on the screen.
const LOG_LINES: usize = 200;

/// The fewest bars in a column of bars.
const FEWEST_BARS: usize = 7;

/// The time that a message stays on the screen.
const MESSAGE_TIME: Duration = Duration::from_secs(5);

/// A message that replaces the line of keys until a point in time.
struct Message {
    text: String,
    until: Instant,
}

struct Screen<'a> {
    sampler: Sampler<'a>,
    rows: Vec<Row>,
    order: Order,
    filter: String,
    mode: Mode,
    selected: TableState,
    /// The selected jail. It stays selected while others come and go.
    current: Option<JailId>,
    /// The result of the last action.
    message: Option<Message>,
}

pub(super) fn show(sampler: Sampler<'_>, interval: Duration, order: Order) -> Result<ExitCode, Failure> {
    if !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
        return Err(Failure::new("top needs a terminal; without one, use --once or --json"));
    }
    // A signal to exit must not skip the restoration of the terminal. SIGWINCH is in the set because crossterm's
    // handler may run while no thread waits for it.
    let signals = stop_signals_and(&[Signal::WINCH])?;
    let mut screen = Screen::new(sampler, order);
    screen.look()?;
    let mut terminal = ratatui::try_init()
        .map_err(|e| Failure::new(format!("cannot set up the terminal: {}", reason(&e))))?;
    let outcome = screen.run(&mut terminal, interval, &signals);
    if has_hung_up() {
        // A hung-up terminal cannot be restored, and the attempt would print an error.
        std::mem::forget(terminal);
        return Ok(ExitCode::SUCCESS);
    }
    ratatui::restore();
    outcome.map(|()| ExitCode::SUCCESS)
}

/// Waits for a key, at most until `next`; true if a signal asks the program to exit or the terminal has hung up.
///
/// crossterm ignores the hang-up and would wait for a key for ever.
fn must_exit(signals: &SignalFd, next: Instant) -> std::io::Result<bool> {
    let stdin = std::io::stdin();
    let mut waiting = [PollFd::new(&stdin, PollFlags::IN), PollFd::new(signals, PollFlags::IN)];
    wait_until(&mut waiting, Some(next))?;
    Ok(has_hung_up() || matches!(signals.take(), Ok(Some(signal)) if signal != Signal::WINCH))
}

fn has_hung_up() -> bool {
    let stdin = std::io::stdin();
    let mut now = [PollFd::new(&stdin, PollFlags::empty())];
    is_ready(&mut now).is_ok() && now[0].revents().intersects(PollFlags::HUP | PollFlags::ERR)
}

impl<'a> Screen<'a> {
    fn new(sampler: Sampler<'a>, order: Order) -> Self {
        Self {
            sampler,
            rows: Vec::new(),
            order,
            filter: String::new(),
            mode: Mode::List,
            selected: TableState::default(),
            current: None,
            message: None,
        }
    }

    fn run(
        &mut self,
        terminal: &mut DefaultTerminal,
        interval: Duration,
        signals: &SignalFd,
    ) -> Result<(), Failure> {
        let failed = |e: std::io::Error| Failure::new(format!("cannot use the terminal: {}", reason(&e)));
        let mut next = Instant::now() + interval;
        loop {
            self.expire_message(Instant::now());
            terminal.draw(|frame| self.draw(frame)).map_err(failed)?;
            let change = self.message.as_ref().map_or(next, |message| message.until.min(next));
            if must_exit(signals, change).map_err(failed)? {
                return Ok(());
            }
            while event::poll(Duration::ZERO).map_err(failed)? {
                if let Event::Key(key) = event::read().map_err(failed)?
                    && key.kind != KeyEventKind::Release
                    && self.act(action(&self.mode, key))
                {
                    return Ok(());
                }
            }
            if Instant::now() >= next {
                self.look()?;
                next = Instant::now() + interval;
            }
        }
    }

    /// Removes the message when its time has passed.
    fn expire_message(&mut self, now: Instant) {
        self.message.take_if(|message| message.until <= now);
    }

    /// Performs an action; true if the program is to exit.
    fn act(&mut self, action: Action) -> bool {
        match action {
            Action::Nothing => (),
            Action::Quit => return true,
            Action::Show(mode) => self.mode = mode,
            Action::Move(rows) => {
                self.select(self.selected.selected().unwrap_or(0).saturating_add_signed(rows));
            }
            Action::NextOrder => self.order = self.order.next(),
            Action::Type(letter) => self.filter.push(letter),
            Action::Erase => drop(self.filter.pop()),
            Action::ClearFilter => {
                self.filter.clear();
                self.mode = Mode::List;
            }
            Action::Send(signal) => {
                self.message =
                    Some(Message { text: self.send(signal), until: Instant::now() + MESSAGE_TIME });
                self.mode = Mode::List;
            }
        }
        self.arrange();
        false
    }

    fn look(&mut self) -> Result<(), Failure> {
        self.rows = self.sampler.sample()?;
        self.arrange();
        Ok(())
    }

    /// Sorts the rows, and selects the same jail again.
    fn arrange(&mut self) {
        self.order.sort(&mut self.rows);
        let at = self.shown().position(|row| Some(&row.id) == self.current.as_ref());
        self.select(at.or(self.selected.selected()).unwrap_or(0));
    }

    fn shown(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(|row| row.id.as_str().contains(&self.filter))
    }

    fn select(&mut self, row: usize) {
        let last = self.shown().count().checked_sub(1);
        let row = last.map(|last| row.min(last));
        self.current = row.and_then(|row| self.shown().nth(row)).map(|row| row.id.clone());
        self.selected.select(row);
    }

    fn send(&self, signal: Signal) -> String {
        let Some(id) = &self.current else { return String::new() };
        match send_signal(self.sampler.store(), id, signal) {
            Ok(Sent::ToVmm) => format!("sent {} to {id}", signal_names::name(signal)),
            Ok(Sent::Unheeded(unheeded)) => format!("{id} {unheeded}"),
            Ok(Sent::NotRunning) => format!("jail '{id}' is not running"),
            Err(error) => escape_control(&error.to_string()),
        }
    }

    fn draw(&mut self, frame: &mut Frame<'_>) {
        let areas = Layout::vertical([Constraint::Length(1), Constraint::Min(1), Constraint::Length(1)]);
        let [head, body, foot] = areas.areas(frame.area());
        line(frame, head, &self.title(), Modifier::BOLD);
        match self.mode {
            Mode::Log => frame.render_widget(Paragraph::new(self.log(usize::from(body.height))), body),
            Mode::Keys => frame.render_widget(Paragraph::new(keys::all()).wrap(Wrap { trim: true }), body),
            _ => {
                let table = self.table(usize::from(body.width));
                self.fill(usize::from(body.height.saturating_sub(1)));
                frame.render_stateful_widget(table, body, &mut self.selected);
            }
        }
        line(frame, foot, &self.foot(), Modifier::DIM);
    }

    /// Scrolls back if empty rows would follow the last one. ratatui scrolls only for the selection.
    fn fill(&mut self, height: usize) {
        let furthest = self.shown().count().saturating_sub(height);
        let offset = self.selected.offset_mut();
        *offset = furthest.min(*offset);
    }

    fn title(&self) -> String {
        let (all, running) = (self.rows.len(), self.rows.iter().filter(|row| row.pid.is_some()).count());
        let filter =
            if self.filter.is_empty() { String::new() } else { format!("   filter {}", self.filter) };
        format!("stockade   {all} jails, {running} running   by {}{filter}", self.order.name())
    }

    fn foot(&self) -> String {
        match (&self.mode, &self.current, &self.message) {
            (Mode::Confirm(signal), Some(id), _) => {
                format!("y: send {} to {id}   {}", signal_names::name(*signal), help(&self.mode))
            }
            (Mode::List, _, Some(message)) => message.text.clone(),
            _ => help(&self.mode).to_owned(),
        }
    }

    fn table(&self, width: usize) -> Table<'static> {
        let shown: Vec<Row> = self.shown().cloned().collect();
        // Long ids are cut, so that at least the use of the processor is visible.
        let (_, processor) = COLUMNS[CPU];
        let id_width = id_width(&shown).min(width.saturating_sub(processor));
        let (columns, left) = fitting(width - id_width);
        let bars = left.checked_sub(1).filter(|bars| *bars >= FEWEST_BARS);
        let right = |text: &str, column: usize| Cell::from(format!("{text:>0$}", COLUMNS[column].1));
        let header = std::iter::once(Cell::from("ID"))
            .chain(columns.iter().map(|column| right(COLUMNS[*column].0, *column)))
            .chain(bars.map(|_| Cell::from(" CPU")));
        let rows = shown.iter().map(|row| {
            let cells = cells(row);
            let id = Cell::from(width::cut(row.id.as_str(), id_width));
            let cells = columns.iter().map(|column| right(&cells[*column], *column));
            let bars = bars.map(|bars| Cell::from(spark(latest(&row.history, bars))));
            TableRow::new(std::iter::once(id).chain(cells).chain(bars))
        });
        let widths = std::iter::once(id_width)
            .chain(columns.iter().map(|column| COLUMNS[*column].1))
            .chain(bars.map(|bars| bars + 1));
        let widths = widths.map(|width| Constraint::Length(u16::try_from(width).unwrap_or(u16::MAX)));
        Table::new(rows.collect::<Vec<_>>(), widths)
            .header(TableRow::new(header).style(Style::new().add_modifier(Modifier::REVERSED)))
            .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED))
            .column_spacing(0)
    }

    /// The end of the selected jail's log, cut to the height of the screen.
    fn log(&self, height: usize) -> String {
        let Some(id) = &self.current else { return "no jail is selected".to_owned() };
        let text = self.sampler.store().log_end(id, LOG_END);
        if text.is_empty() {
            return match self.sampler.store().output(id) {
                Ok(Some(Output::Log)) => format!("the log of jail '{id}' is empty: {}", Output::Log),
                Ok(Some(output)) => format!("jail '{id}' has no log: {output}"),
                Ok(None) => format!("jail '{id}' was removed"),
                Err(error) => error.to_string(),
            };
        }
        let text = String::from_utf8_lossy(&text);
        // Control characters would move the cursor.
        let lines: Vec<String> = text.lines().rev().take(height.min(LOG_LINES)).map(escape_control).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

/// Draws a line of text, cut at the width of the screen.
fn line(frame: &mut Frame<'_>, area: Rect, text: &str, modifier: Modifier) {
    let text = width::cut(text, usize::from(area.width));
    frame.render_widget(Line::from(text).style(Style::new().add_modifier(modifier)), area);
}

/// The last `count` values.
fn latest(history: &[u64], count: usize) -> &[u64] {
    &history[history.len().saturating_sub(count)..]
}

/// The part of a log that its last lines are looked for in, in bytes.
const LOG_END: u64 = 64 << 10;

/// Draws percentages as a row of bars. A full bar is the highest value, at least one whole processor.
fn spark(history: &[u64]) -> String {
    const BARS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let top = history.iter().copied().max().unwrap_or(0).max(100);
    let bar = |value: u64| BARS[usize::try_from((value * 8).div_ceil(top)).unwrap_or(8).min(8)];
    format!(" {}", history.iter().map(|value| bar(*value)).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn screen(ids: &[&str]) -> Screen<'static> {
        let store = stockade::Store::new(std::path::Path::new("/no/such/state")).expect("a free path");
        let row = |id: &&str| Row {
            id: id.parse().expect("an id"),
            pid: Some(7),
            state: stockade::JailState::Running,
            age_seconds: Some(61),
            cpu_percent: Some(12.5),
            throttled_percent: None,
            read_per_second: Some(0),
            written_per_second: Some(2048),
            usage: stockade::Usage::default(),
            history: vec![12],
        };
        let mut screen = Screen::new(Sampler::new(store, &|_| true), Order::Id);
        screen.rows = ids.iter().map(row).collect();
        screen.arrange();
        screen
    }

    fn drawn(screen: &mut Screen, width: u16, height: u16) -> String {
        let backend = ratatui::backend::TestBackend::new(width, height);
        let mut terminal = ratatui::Terminal::new(backend).expect("a terminal in memory");
        terminal.draw(|frame| screen.draw(frame)).expect("draw");
        terminal.backend().to_string()
    }

    #[test]
    fn the_list_is_drawn_and_filtered() {
        let mut screen = screen(&["vm-1", "vm-2", "web"]);
        let text = drawn(&mut screen, 90, 6);
        assert!(
            text.contains("3 jails, 3 running   by id") && text.contains("vm-1       7  running   1m  12.5"),
            "{text}"
        );
        screen.act(Action::Type('w'));
        let text = drawn(&mut screen, 90, 6);
        assert!(!text.contains("vm-1") && text.contains("web") && text.contains("filter w"), "{text}");
        assert_eq!(screen.current.as_ref().map(JailId::as_str), Some("web"));
    }

    #[test]
    fn the_selection_stays_with_its_jail() {
        let mut screen = screen(&["a", "b", "c"]);
        screen.act(Action::Move(1));
        assert_eq!(screen.current.as_ref().map(JailId::as_str), Some("b"));
        screen.rows.remove(0);
        screen.arrange();
        assert_eq!(
            (screen.selected.selected(), screen.current.as_ref().map(JailId::as_str)),
            (Some(0), Some("b"))
        );
        screen.act(Action::Show(Mode::Confirm(Signal::KILL)));
        assert!(drawn(&mut screen, 90, 6).contains("y: send SIGKILL to b   any other key: cancel"));
    }

    #[test]
    fn a_growing_window_is_filled() {
        let ids: Vec<String> = (10..23).map(|number| format!("vm-{number}")).collect();
        let mut screen = screen(&ids.iter().map(String::as_str).collect::<Vec<_>>());
        screen.act(Action::Move(20));
        let small = drawn(&mut screen, 80, 8);
        assert!(small.contains("vm-22") && !small.contains("vm-17"), "{small}");
        let larger = drawn(&mut screen, 80, 10);
        assert!(larger.contains("vm-16") && !larger.contains("vm-15"), "{larger}");
        let large = drawn(&mut screen, 80, 24);
        assert!(ids.iter().all(|id| large.contains(id)), "{large}");
    }

    #[test]
    fn a_message_replaces_the_keys_for_a_while() {
        let mut screen = screen(&["vm-1"]);
        assert!(drawn(&mut screen, 80, 6).contains("k KILL"));
        // The jail does not exist.
        screen.act(Action::Send(Signal::TERM));
        let message = drawn(&mut screen, 80, 6);
        assert!(
            message.contains("\"jail 'vm-1' is not running ") && !message.contains("q quit"),
            "{message}"
        );
        assert!(drawn(&mut screen, 12, 6).contains("jail 'vm-1'…"));
        screen.act(Action::Show(Mode::Filter));
        assert!(drawn(&mut screen, 80, 6).contains("enter keep"));
        screen.act(Action::Show(Mode::List));
        screen.expire_message(Instant::now() + MESSAGE_TIME);
        assert!(drawn(&mut screen, 80, 6).contains("q quit"));
    }

    #[test]
    fn the_first_and_the_last_jail_are_selected() {
        let mut screen = screen(&["a", "b", "c"]);
        for (far, id) in [(isize::MAX, "c"), (isize::MIN, "a")] {
            screen.act(Action::Move(far));
            assert_eq!(screen.current.as_ref().map(JailId::as_str), Some(id));
        }
    }

    #[test]
    fn every_key_is_shown_in_the_smallest_window() {
        let mut screen = screen(&["a"]);
        screen.act(Action::Show(Mode::Keys));
        let text = drawn(&mut screen, 80, 7);
        let keys: Vec<&str> = keys::KEYS.iter().map(|(keys, _)| *keys).collect();
        assert!(keys.iter().all(|keys| text.replace('\u{a0}', " ").contains(&format!("{keys}: "))), "{text}");
    }

    #[test]
    fn columns_without_room_are_omitted_and_long_ids_cut() {
        let text = drawn(&mut screen(&["vm-12"]), 30, 6);
        assert!(text.contains("ID       STATE  CPU%  MEMORY"), "{text}");
        assert!(text.contains("vm-12  running  12.5       -"), "{text}");
        let text = drawn(&mut screen(&[&"x".repeat(64)]), 30, 6);
        assert!(text.contains(&format!("{}…  12.5", "x".repeat(23))), "{text}");
        drawn(&mut screen(&["vm-12"]), 1, 3);
    }

    #[test]
    fn wide_letters_take_two_cells() {
        let text = drawn(&mut screen(&["vm-1", "漢字漢字"]), 90, 6);
        assert!(
            text.contains("vm-1           7  running") && text.contains("       7  running   1m"),
            "{text}"
        );
        assert!(text.contains("漢") && text.matches('漢').count() == 2, "{text}");
    }

    #[test]
    fn the_latest_bars_are_shown() {
        assert_eq!(latest(&[1, 2, 3], 2), [2, 3]);
        assert_eq!(latest(&[1, 2, 3], 4), [1, 2, 3]);
    }

    #[test]
    fn bars_are_measured_by_a_whole_processor() {
        assert_eq!(spark(&[0, 1, 50, 100]), "  ▁▄█");
        assert_eq!(spark(&[100, 200]), " ▄█");
        assert_eq!(spark(&[]), " ");
    }

    #[test]
    fn a_log_cannot_move_the_cursor() {}
}
