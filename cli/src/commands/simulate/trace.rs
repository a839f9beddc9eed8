//! Traces of what tasks used, as CSV.

use std::{
    fs::File,
    io::{self, BufRead, BufReader},
    path::{Path, PathBuf},
};

use agent::estimate::{Misfit, Row, Trace};
use indicatif::ProgressBar;

/// The columns that a trace must have, in the order in which rows are put together.
const COLUMNS: [&str; 8] =
    ["time_s", "node", "task", "band", "cpu_limit_milli", "cpu_milli", "memory_limit_mib", "memory_mib"];
/// No line of a trace is longer; what is, is no trace.
const LONGEST: u64 = 64 << 10;
/// The largest amount: above it single precision would lie.
const MOST: f64 = 1e15;

/// Why a trace cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TraceError {
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot write {}: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("{}:{line}: {why}", path.display())]
    Line { path: PathBuf, line: u64, why: BadLine },
    #[error("{} has no samples", .0.display())]
    Empty(PathBuf),
}

/// What is wrong with a line.
#[derive(Debug, PartialEq, thiserror::Error)]
pub(crate) enum BadLine {
    #[error("the head lacks the column {missing}: a trace has the columns {columns}", columns = COLUMNS.join(","))]
    Head { missing: &'static str },
    #[error("the head names the column {0} twice")]
    TwoOf(&'static str),
    #[error("the head has {wanted} columns, this line {found}")]
    Columns { wanted: usize, found: usize },
    #[error("the file ends in the middle of this line: is it whole?")]
    CutOff,
    #[error("{column} is empty")]
    Nameless { column: &'static str },
    #[error("{column} is {text:?}: that is not a number from 0 up")]
    Number { column: &'static str, text: String },
    #[error("band is {text:?}: bands are free, batch, production and monitoring")]
    Band { text: String },
    #[error("not text in UTF-8")]
    Binary,
    #[error("a line of more than {LONGEST} bytes")]
    Long,
    #[error(transparent)]
    Misfit(#[from] Misfit),
}

/// Reads a trace, and tells the bar how far it is.
pub(super) fn read(path: &Path, bar: &ProgressBar) -> Result<Trace, TraceError> {
    let unreadable = |source| TraceError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(unreadable)?;
    bar.set_length(file.metadata().map_err(unreadable)?.len());
    let trace = parse(BufReader::with_capacity(1 << 18, file), bar).map_err(|why| match why {
        Stop::Io(source) => unreadable(source),
        Stop::Line(line, why) => TraceError::Line { path: path.to_owned(), line, why },
    })?;
    bar.finish_and_clear();
    if trace.rows() == 0 { Err(TraceError::Empty(path.to_owned())) } else { Ok(trace) }
}

/// Where reading stopped.
#[derive(Debug)]
enum Stop {
    Io(io::Error),
    Line(u64, BadLine),
}

fn parse(mut from: impl BufRead, bar: &ProgressBar) -> Result<Trace, Stop> {
    let mut trace = Trace::default();
    let mut places: Option<([usize; COLUMNS.len()], usize)> = None;
    let mut bytes = Vec::new();
    for number in 1.. {
        bytes.clear();
        // One byte more than is allowed tells what is too long.
        let read = io::Read::take(&mut from, LONGEST + 1).read_until(b'\n', &mut bytes).map_err(Stop::Io)?;
        if read == 0 {
            break;
        }
        bar.inc(read as u64);
        let at = |why| Stop::Line(number, why);
        if read as u64 > LONGEST {
            return Err(at(BadLine::Long));
        }
        let whole = bytes.ends_with(b"\n");
        let line = str::from_utf8(&bytes).map_err(|_| at(BadLine::Binary))?;
        // Some programs begin their files with this mark.
        let line = line.trim_start_matches('\u{feff}').trim_end_matches(['\n', '\r']);
        match &places {
            // Files may end in an empty line.
            _ if line.is_empty() && number > 1 => {}
            None => places = Some(head(line).map_err(at)?),
            Some((places, columns)) => {
                let done = row(line, places, *columns).and_then(|row| Ok(trace.push(&row)?));
                // A last line without its end may have lost more than that.
                let cut_off =
                    |why| if whole || matches!(why, BadLine::Misfit(_)) { why } else { BadLine::CutOff };
                done.map_err(|why| at(cut_off(why)))?;
            }
        }
    }
    Ok(trace)
}

/// Where each column is, and how many there are.
fn head(line: &str) -> Result<([usize; COLUMNS.len()], usize), BadLine> {
    let names: Vec<&str> = line.split(',').map(str::trim).collect();
    let mut places = [0; COLUMNS.len()];
    for (place, column) in places.iter_mut().zip(COLUMNS) {
        let mut found = names.iter().enumerate().filter(|(_, name)| **name == column).map(|(at, _)| at);
        *place = found.next().ok_or(BadLine::Head { missing: column })?;
        if found.next().is_some() {
            return Err(BadLine::TwoOf(column));
        }
    }
    Ok((places, names.len()))
}

fn row<'a>(line: &'a str, places: &[usize; COLUMNS.len()], columns: usize) -> Result<Row<'a>, BadLine> {
    let mut fields = [""; COLUMNS.len()];
    let mut found = 0;
    for (at, text) in line.split(',').enumerate() {
        for (field, place) in fields.iter_mut().zip(places) {
            if *place == at {
                *field = text.trim();
            }
        }
        found += 1;
    }
    if found != columns {
        return Err(BadLine::Columns { wanted: columns, found });
    }
    let name = |at: usize| match fields[at] {
        "" => Err(BadLine::Nameless { column: COLUMNS[at] }),
        name => Ok(name),
    };
    let number = |at: usize| match fields[at].parse::<f64>() {
        Ok(number) if (0.0..=MOST).contains(&number) => Ok(number),
        _ => Err(BadLine::Number { column: COLUMNS[at], text: fields[at].to_owned() }),
    };
    Ok(Row {
        time_ms: (number(0)? * 1000.0).round() as u64,
        node: name(1)?,
        task: name(2)?,
        band: fields[3].parse().map_err(|_| BadLine::Band { text: fields[3].to_owned() })?,
        limit: [number(4)?, number(6)?],
        usage: [number(5)?, number(7)?],
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const HEAD: &str = "time_s,node,task,band,cpu_limit_milli,cpu_milli,memory_limit_mib,memory_mib\n";

    fn wrong(rows: &str) -> String {
        wrong_file(&format!("{HEAD}{rows}"))
    }

    fn wrong_file(text: &str) -> String {
        match parse(text.as_bytes(), &ProgressBar::hidden()) {
            Err(Stop::Line(line, why)) => format!("{line}: {why}"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        let good = "0,n1,web/0,production,1000,10,64,5\n";
        let cases = [
            (
                wrong("0,n1,web/0,production,1000,-3,64,5\n"),
                "2: cpu_milli is \"-3\": that is not a number from 0 up",
            ),
            (
                wrong("0,n1,web/0,production,1000,NaN,64,5\n"),
                "2: cpu_milli is \"NaN\": that is not a number from 0 up",
            ),
            (
                wrong("0,n1,web/0,production,1000,1,inf,5\n"),
                "2: memory_limit_mib is \"inf\": that is not a number from 0 up",
            ),
            (
                wrong("0,n1,web/0,best,1000,1,64,5\n"),
                "2: band is \"best\": bands are free, batch, production and monitoring",
            ),
            (wrong("0,n1,,batch,1000,1,64,5\n"), "2: task is empty"),
            (wrong(&format!("{good}1,n1,web/0,batch\n{good}")), "3: the head has 8 columns, this line 4"),
            (
                wrong(&format!("{good}300,n1,web/0,prod")),
                "3: the file ends in the middle of this line: is it whole?",
            ),
            (wrong(&format!("{good}{good}")), "3: task web/0 of node n1 has a second row for time 0 s"),
            (
                wrong(&format!("60{good}{good}")),
                "3: time 0 s is before the last row's 600 s: a trace is sorted by time",
            ),
            (
                wrong_file("time_s,node,task,band,cpu_milli\n"),
                "1: the head lacks the column cpu_limit_milli: a trace has the columns time_s,node,task,band,\
                 cpu_limit_milli,cpu_milli,memory_limit_mib,memory_mib",
            ),
        ];
        for (found, wanted) in cases {
            assert_eq!(found, wanted);
        }
    }

    #[test]
    fn columns_may_be_in_any_order_and_lines_end_as_they_like() {
        let text = "\u{feff}rack,memory_mib,time_s,node,task,band,cpu_limit_milli,cpu_milli,memory_limit_mib\r\n\
                    r1,5.5,0,n1,web/0,free,1000,10,64\r\nr1,6,300.5,n1,web/0,free,1000,10,64";
        let trace = parse(text.as_bytes(), &ProgressBar::hidden()).unwrap();
        assert_eq!((trace.rows(), trace.nodes(), trace.moments()), (2, 1, 2));
    }
}
