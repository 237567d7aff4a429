//! What the run says: a table for people, `bench/report.json` in the target folder for scripts.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "this is the printer")]

use std::error::Error;
use std::path::PathBuf;

use comfy_table::{CellAlignment, Table};
use serde::Serialize;

use crate::rounds::Samples;

/// One comparison. The ratio is ours / peer: lower is better, unless the unit ends in `/s`.
#[derive(Debug, Serialize)]
struct Row {
    name: String,
    ours: f64,
    peer: f64,
    peer_name: String,
    unit: String,
    /// `null` where the peer's value is 0.
    ratio: Option<f64>,
}

/// Every comparison of the run.
#[derive(Debug, Default)]
pub(crate) struct Report {
    rows: Vec<Row>,
    table: Option<Table>,
}

impl Report {
    /// Adds ours against each peer.
    pub(crate) fn compare(&mut self, name: &str, unit: &str, ours: &Samples, peers: &[&Samples]) {
        self.show(name, unit, ours, None);
        for peer in peers {
            let ratio = (peer.median() > 0.0).then(|| ours.median() / peer.median());
            self.show(name, unit, peer, ratio);
            progress(&format!("{name}: {:.2} {unit}, {} {:.2}", ours.median(), peer.name, peer.median()));
            self.rows.push(Row {
                name: name.to_owned(),
                ours: round(ours.median()),
                peer: round(peer.median()),
                peer_name: peer.name.to_owned(),
                unit: unit.to_owned(),
                ratio: ratio.map(round),
            });
        }
    }

    fn show(&mut self, name: &str, unit: &str, samples: &Samples, ratio: Option<f64>) {
        let table = self.table.get_or_insert_with(|| {
            let mut table = Table::new();
            table.load_style(comfy_table::presets::NOTHING);
            table.set_header(["ROW", "CONTESTANT", "MEDIAN", "RANGE", "UNIT", "OURS / IT"]);
            for column in [2, 3, 5] {
                if let Some(column) = table.column_mut(column) {
                    column.set_cell_alignment(CellAlignment::Right);
                }
            }
            table
        });
        let (least, most) = samples.range();
        table.add_row([
            name.to_owned(),
            samples.name.to_owned(),
            format!("{:.2}", samples.median()),
            format!("{least:.2}..{most:.2}"),
            unit.to_owned(),
            ratio.map(|ratio| format!("{ratio:.3}")).unwrap_or_default(),
        ]);
    }

    /// Prints the table and writes the report.
    pub(crate) fn finish(self) -> Result<(), Box<dyn Error>> {
        let Some(table) = self.table else { return Err("no row of that name was measured".into()) };
        println!("{table}");
        let file = folder()?.join("report.json");
        std::fs::write(&file, serde_json::to_string_pretty(&self.rows)? + "\n")?;
        println!("\nmedians; the report is in {}", file.display());
        Ok(())
    }
}

/// Says on stderr what is being measured: a whole run takes minutes.
pub(crate) fn progress(row: &str) {
    eprintln!("bench: {row}");
}

/// A line on stdout.
pub(crate) fn say(line: &str) {
    println!("{line}");
}

/// The folder of the report, and of what rows keep while they run.
pub(crate) fn folder() -> std::io::Result<PathBuf> {
    let folder = target().join("bench");
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// The target folder: `CARGO_TARGET_DIR`, else the one that this binary was built into.
pub(crate) fn target() -> PathBuf {
    if let Some(given) = std::env::var_os("CARGO_TARGET_DIR") {
        return given.into();
    }
    let built = std::env::current_exe().ok();
    built.and_then(|exe| Some(exe.parent()?.parent()?.to_owned())).unwrap_or_else(|| PathBuf::from("target"))
}

/// Four digits behind the point: what lies below is noise.
fn round(value: f64) -> f64 {
    (value * 10_000.0).round() / 10_000.0
}
