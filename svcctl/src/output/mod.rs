//! Everything that is printed: results on stdout, all else on stderr.
//!
//! Commands hand over values of [`view`]; the [`Printer`] knows the format that was asked for. Values from etcd are
//! printed with control characters escaped, in either format.

mod escape;
mod table;
pub mod view;

use std::io::{self, IsTerminal, Write};

use clap::ValueEnum;
use serde::Serialize;

pub use escape::escape;
pub use table::{Table, age, instances, services, watch_line};

/// How results are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Columns for people.
    #[default]
    Table,
    /// JSON for programs; of `watch` one object a line.
    Json,
}

/// Where a command prints to.
pub struct Printer {
    format: Format,
    out: Stream,
    err: Stream,
    /// What stands before each line, where this is part of a longer text.
    indent: &'static str,
    /// A line of progress stands on the terminal without its line break.
    open_progress: bool,
}

struct Stream {
    to: Box<dyn Write + Send>,
    /// Colours are wanted: a terminal, and `NO_COLOR` is not set.
    color: bool,
    terminal: bool,
}

impl Stream {
    fn of_process(to: impl Write + IsTerminal + Send + 'static) -> Stream {
        let terminal = to.is_terminal();
        // no-color.org: any value but the empty one counts.
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Stream { to: Box::new(to), color: terminal && wanted, terminal }
    }
}

impl Printer {
    /// Prints to the process's own stdout and stderr.
    pub fn new(format: Format) -> Printer {
        Printer {
            format,
            out: Stream::of_process(io::stdout()),
            err: Stream::of_process(io::stderr()),
            indent: "",
            open_progress: false,
        }
    }

    /// Prints to these, as to files: without colour.
    pub fn to(format: Format, out: impl Write + Send + 'static, err: impl Write + Send + 'static) -> Printer {
        let plain = |to| Stream { to, color: false, terminal: false };
        Printer {
            format,
            out: plain(Box::new(out)),
            err: plain(Box::new(err)),
            indent: "",
            open_progress: false,
        }
    }

    /// The same with another format.
    #[must_use]
    pub fn with_format(self, format: Format) -> Printer {
        Printer { format, ..self }
    }

    /// Puts this before each line of texts, lines, notes and progress from now on.
    pub fn indent(&mut self, indent: &'static str) {
        self.indent = indent;
    }

    /// The format that was asked for.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Prints a result: `value` as JSON, or the table that `table` draws.
    ///
    /// # Errors
    /// Stdout cannot be written.
    pub fn result<T: Serialize>(&mut self, value: &T, table: impl FnOnce(&T) -> Table) -> io::Result<()> {
        let text = match self.format {
            Format::Json => json(value, true)?,
            Format::Table => table(value).render(self.out.color),
        };
        writeln!(self.out.to, "{text}")?;
        self.out.to.flush()
    }

    /// Prints a text that is a result as it stands, such as help.
    ///
    /// # Errors
    /// Stdout cannot be written.
    pub fn text(&mut self, text: &str) -> io::Result<()> {
        self.end_progress();
        writeln!(self.out.to, "{}{text}", self.indent)?;
        self.out.to.flush()
    }

    /// Prints a heading of a longer text.
    ///
    /// # Errors
    /// Stdout cannot be written.
    pub fn heading(&mut self, text: &str) -> io::Result<()> {
        if self.out.color { self.text(&format!("\x1b[1m{text}\x1b[0m")) } else { self.text(text) }
    }

    /// Prints a table as part of a longer text, each line behind `indent`.
    ///
    /// # Errors
    /// Stdout cannot be written.
    pub fn table(&mut self, table: Table, indent: &str) -> io::Result<()> {
        let text = table.render(self.out.color);
        let lines: Vec<String> = text.lines().map(|line| format!("{indent}{line}")).collect();
        self.text(&lines.join("\n"))
    }

    /// Prints one of many results as a line, at once.
    ///
    /// # Errors
    /// Stdout cannot be written.
    pub fn line<T: Serialize>(&mut self, value: &T, text: impl FnOnce(&T) -> String) -> io::Result<()> {
        let text = match self.format {
            Format::Json => json(value, false)?,
            Format::Table => text(value),
        };
        self.text(&text)
    }

    /// Says something that is no result, on stderr. That it cannot be said is no reason to fail.
    pub fn note(&mut self, text: &str) {
        let _ = writeln!(self.err.to, "{}{text}", self.indent);
        let _ = self.err.to.flush();
    }

    /// Shows how far a wait has come: on a terminal over the last such line, else as a line of its own.
    pub fn progress(&mut self, text: &str) {
        if self.err.terminal {
            let _ = write!(self.err.to, "\r\x1b[K{}{text}", self.indent);
            let _ = self.err.to.flush();
            self.open_progress = true;
        } else {
            self.note(text);
        }
    }

    /// Whether what goes to stderr may be coloured.
    pub fn colors_notes(&self) -> bool {
        self.err.color
    }

    /// Whether [`progress`](Self::progress) writes over its last line.
    pub fn shows_progress_in_place(&self) -> bool {
        self.err.terminal
    }

    /// Ends a line of [`progress`](Self::progress), so that what follows starts on its own.
    pub fn end_progress(&mut self) {
        if std::mem::take(&mut self.open_progress) {
            let _ = writeln!(self.err.to);
        }
    }
}

impl std::fmt::Debug for Printer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Printer").field("format", &self.format).finish_non_exhaustive()
    }
}

/// JSON in which nothing is left that a terminal would obey; the parsed values are the same.
fn json<T: Serialize>(value: &T, pretty: bool) -> io::Result<String> {
    let text = if pretty { serde_json::to_string_pretty(value) } else { serde_json::to_string(value) }?;
    // serde_json escapes what is below a space; the line breaks of the pretty form are its own.
    let hidden = |c: char| c != '\n' && escape::is_unsafe(c);
    if !text.contains(hidden) {
        return Ok(text);
    }
    let mut safe = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if hidden(c) {
            // All of them lie in the Basic Multilingual Plane, whose code fits the escape's four digits.
            safe.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            safe.push(c);
        }
    }
    Ok(safe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_holds_no_control_character_and_parses_to_the_same_value() {
        for text in ["\u{9b}31m", "\u{7f}\u{1b}[2J", "a\u{202e}b\u{feff}", "a\nb"] {
            for pretty in [true, false] {
                let json = json(&[text], pretty).unwrap();
                assert!(!json.contains(|c| c != '\n' && escape::is_unsafe(c)), "{json:?}");
                assert_eq!(serde_json::from_str::<Vec<String>>(&json).unwrap(), [text]);
            }
        }
    }
}
