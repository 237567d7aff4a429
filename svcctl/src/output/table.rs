//! Columns for people, in the manner of kubectl: no borders, headings in capitals, a word of colour for states.

use std::time::{Duration, SystemTime};

use comfy_table::{Cell, Color, ContentArrangement, presets};
use svc_registry::State;
use svc_registry::intent::{DrainIntent, Then};

use super::escape;
use super::view::{Change, ChangeType, Instance, Services};

/// What stands where there is nothing to say.
const NONE: &str = "-";

/// A table to be printed.
#[derive(Debug)]
pub struct Table {
    columns: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
    /// What is said in place of a table without rows.
    empty: String,
    /// Lines below the table.
    footer: Vec<String>,
}

impl Table {
    /// A table with these headings; `empty` is printed if it gets no rows.
    pub fn new(columns: impl Into<Vec<&'static str>>, empty: impl Into<String>) -> Table {
        Table { columns: columns.into(), rows: Vec::new(), empty: empty.into(), footer: Vec::new() }
    }

    /// Adds a row of plain texts, which are escaped.
    pub fn row<S: AsRef<str>>(&mut self, cells: impl IntoIterator<Item = S>) {
        self.cells(cells.into_iter().map(|text| plain(text.as_ref())).collect());
    }

    fn cells(&mut self, cells: Vec<Cell>) {
        self.rows.push(cells);
    }

    /// Adds a line below the table, which is escaped.
    pub fn footer(&mut self, line: &str) {
        self.footer.push(escape(line).into_owned());
    }

    /// The table as text, without a line break at its end.
    pub fn render(self, color: bool) -> String {
        let mut lines = Vec::new();
        if self.rows.is_empty() {
            lines.push(self.empty);
        } else {
            let mut table = comfy_table::Table::new();
            table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
            if color {
                table.enforce_styling();
            } else {
                table.force_no_tty();
            }
            table.set_header(self.columns);
            table.add_rows(self.rows);
            for column in table.column_iter_mut() {
                column.set_padding((0, 3));
            }
            lines.extend(table.lines().map(|line| line.trim_end().to_owned()));
        }
        lines.extend(self.footer);
        lines.join("\n")
    }
}

fn plain(text: &str) -> Cell {
    Cell::new(if text.is_empty() { NONE.into() } else { escape(text) })
}

fn or_none<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| NONE.to_owned(), |value| value.to_string())
}

fn state(state: State) -> Cell {
    Cell::new(state.as_str()).fg(match state {
        State::Serving => Color::Green,
        State::Draining => Color::Yellow,
        State::Drained => Color::DarkGrey,
    })
}

/// The table of `services`.
pub fn services(services: &Services) -> Table {
    let mut table = Table::new(["SERVICE", "SERVING", "DRAINING", "DRAINED", "BAD"], "no services");
    for service in &services.services {
        let count = |n: usize, color: Color| match n {
            0 => Cell::new(NONE),
            n => Cell::new(n).fg(color),
        };
        table.cells(vec![
            plain(&service.name),
            count(service.serving, Color::Green),
            count(service.draining, Color::Yellow),
            count(service.drained, Color::DarkGrey),
            count(service.bad, Color::Red),
        ]);
    }
    table
}

/// The table of `get`; ages are told at `now`.
pub fn instances(instances: &[Instance], now: SystemTime) -> Table {
    let columns =
        ["SERVICE", "ID", "ADDRESS", "STATE", "INFLIGHT", "WEIGHT", "ZONE", "VERSION", "AGE", "DRAIN"];
    let mut table = Table::new(columns, "no instances");
    for instance in instances {
        let started = instance.started_at.as_ref().and_then(|at| at.parse::<jiff::Timestamp>().ok());
        let age = started.and_then(|at| now.duration_since(at.into()).ok()).map(age);
        table.cells(vec![
            plain(&instance.service),
            plain(&instance.id),
            plain(&instance.address),
            state(instance.state),
            Cell::new(or_none(instance.inflight)),
            Cell::new(instance.weight),
            plain(instance.zone.as_deref().unwrap_or_default()),
            plain(instance.version.as_deref().unwrap_or_default()),
            Cell::new(or_none(age)),
            plain(&drain(instance)),
        ]);
    }
    table
}

/// Why it is out of service, in a few words: the operator's wish, its own reason, or both.
fn drain(instance: &Instance) -> String {
    let own = instance.reason.as_ref().map(|reason| format!("not ready: {reason}"));
    let parts = [instance.drain.as_ref().map(wish), own];
    parts.into_iter().flatten().collect::<Vec<_>>().join("; ")
}

/// The operator's wish: who, why, and what follows unless it is the default.
fn wish(intent: &DrainIntent) -> String {
    let mut text = if intent.by.is_empty() { "by somebody".to_owned() } else { format!("by {}", intent.by) };
    if !intent.reason.is_empty() {
        text = format!("{text}: {}", intent.reason);
    }
    match intent.then {
        Then::Stay => text,
        Then::Exit => format!("{text}, then exit"),
        Then::Remove => format!("{text}, then remove"),
    }
}

/// A duration in its largest whole unit, such as `45s`, `3m`, `7h`, `12d`.
pub fn age(age: Duration) -> String {
    match age.as_secs() {
        s @ 0..120 => format!("{s}s"),
        s @ 120..7_200 => format!("{}m", s / 60),
        s @ 7_200..172_800 => format!("{}h", s / 3_600),
        s => format!("{}d", s / 86_400),
    }
}

/// A line of `watch`: no table, since nobody knows what is still to come.
pub fn watch_line(change: &Change) -> String {
    let Change { change, object } = change;
    let change = match change {
        ChangeType::Added => "ADDED",
        ChangeType::Modified => "MODIFIED",
        ChangeType::Deleted => "DELETED",
    };
    let mut line =
        format!("{change:<8}  {}/{}  {}  {}", object.service, object.id, object.address, object.state);
    if let Some(inflight) = object.inflight {
        line.push_str(&format!("  {inflight} in flight"));
    }
    match (drain(object), &object.drain) {
        (why, _) if why.is_empty() => {}
        (why, Some(_)) => line.push_str(&format!("  drained {why}")),
        (why, None) => line.push_str(&format!("  {why}")),
    }
    escape(&line).into_owned()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::output::view::Service;

    fn instance(id: &str, state: State) -> Instance {
        Instance {
            service: "greeter".into(),
            id: id.into(),
            address: "10.0.0.1:50051".into(),
            state,
            weight: 100,
            zone: Some("a".into()),
            version: None,
            tags: BTreeMap::new(),
            inflight: None,
            lease: Some("694d".into()),
            ttl_s: Some(15),
            incarnation: None,
            started_at: Some("2026-01-02T03:04:05Z".into()),
            drain: None,
            reason: None,
        }
    }

    fn now() -> SystemTime {
        "2026-01-02T05:04:05Z".parse::<jiff::Timestamp>().unwrap().into()
    }

    #[test]
    fn instances_stand_in_columns() {
        let by =
            DrainIntent { reason: "kernel\n".into(), by: "ada".into(), at: String::new(), then: Then::Exit };
        let drained = Instance { inflight: Some(3), drain: Some(by), ..instance("g-2", State::Draining) };
        let foreign =
            Instance { zone: None, started_at: None, ..instance("tcp@10.0.0.1:50051", State::Serving) };
        let unready = Instance { reason: Some("disk full".into()), ..instance("g-3", State::Draining) };
        let both = Instance { id: "g-4".into(), reason: unready.reason.clone(), ..drained.clone() };
        let all = [instance("g-1", State::Serving), drained, foreign, unready, both];
        let table = instances(&all, now());
        insta::assert_snapshot!(table.render(false));
    }

    #[test]
    fn services_are_counted_by_state() {
        let service =
            |name: &str, serving, bad| Service { name: name.into(), serving, draining: 0, drained: 1, bad };
        let all = Services { services: vec![service("greeter", 12, 0), service("a.rather.long.name", 0, 2)] };
        insta::assert_snapshot!(services(&all).render(false));
    }

    #[test]
    fn colour_changes_no_column() {
        let plain = instances(&[instance("g-1", State::Serving)], now()).render(false);
        let colored = instances(&[instance("g-1", State::Serving)], now()).render(true);
        assert!(colored.contains('\u{1b}') && !plain.contains('\u{1b}'));
        let mut stripped = String::new();
        let mut rest = colored.as_str();
        while let Some(at) = rest.find('\u{1b}') {
            stripped.push_str(&rest[..at]);
            rest = rest[at..].split_once('m').map_or("", |(_, rest)| rest);
        }
        stripped.push_str(rest);
        let words = |text: &str| text.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>();
        assert_eq!(words(&stripped), words(&plain));
    }

    #[test]
    fn an_empty_table_says_so() {
        assert_eq!(instances(&[], now()).render(true), "no instances");
    }

    #[test]
    fn a_line_of_watch_tells_type_state_and_work() {
        let object = Instance { inflight: Some(2), ..instance("g-1", State::Draining) };
        let change = Change { change: ChangeType::Modified, object };
        insta::assert_snapshot!(watch_line(&change));
        let object = Instance { reason: Some("disk full".into()), ..change.object };
        let line = watch_line(&Change { change: ChangeType::Modified, object });
        assert!(line.ends_with("draining  2 in flight  not ready: disk full"), "{line}");
    }
}
