//! `enclavectl logs`: what the workload printed.

use crate::{show, ui};
use api::client::Client;
use api::{LogEntry, LogStream};
use explain::CliError;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Name or id
    name: String,
    /// Keep printing what comes
    #[arg(short, long)]
    follow: bool,
    /// Print the time of each line, as the enclave's clock has it (UTC)
    #[arg(short, long)]
    timestamps: bool,
    /// Print this stream only
    #[arg(long, value_enum, value_name = "STREAM")]
    stream: Option<Stream>,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Stream {
    Stdout,
    Stderr,
}

pub(crate) async fn logs(
    client: &Client,
    Args {
        name,
        follow,
        timestamps,
        stream,
    }: &Args,
    json: bool,
) -> Result<(), CliError> {
    show::warn_of_debug(client, name).await?;
    let rest = if *follow { "/logs?follow" } else { "/logs" };
    let wanted = stream.map(|stream| match stream {
        Stream::Stdout => LogStream::Stdout,
        Stream::Stderr => LogStream::Stderr,
    });
    let mut printer = Printer {
        timestamps: *timestamps,
        open: None,
    };
    let mut entries = client.stream(&ui::path(name, rest)?).await?;
    while let Some(entry) = entries.line::<LogEntry>().await {
        let of = match &entry {
            LogEntry::Line { stream, .. } => Some(*stream),
            LogEntry::Dropped { .. } => None,
        };
        if of.is_some() && wanted.is_some() && of != wanted {
            continue;
        }
        if json {
            ui::print(&serde_json::to_string(&entry).map_err(CliError::bug)?)?;
        } else {
            ui::print_bytes(printer.text(&entry).as_bytes())?;
        }
    }
    Ok(())
}

/// Puts lines together again that came in parts.
struct Printer {
    timestamps: bool,
    /// The stream whose line goes on.
    open: Option<LogStream>,
}

impl Printer {
    fn text(&mut self, entry: &LogEntry) -> String {
        match entry {
            LogEntry::Line {
                time,
                stream,
                text,
                partial,
            } => {
                let goes_on = self.open == Some(*stream);
                let begin = match (goes_on, self.timestamps) {
                    (true, _) => String::new(),
                    (false, false) => self.close().to_owned(),
                    (false, true) => format!("{}{time} ", self.close()),
                };
                self.open = partial.then_some(*stream);
                let end = if *partial { "" } else { "\n" };
                format!("{begin}{text}{end}")
            }
            LogEntry::Dropped { lines } => {
                let end = self.close();
                format!("{end}[{lines} lines of output were dropped here]\n")
            }
        }
    }

    /// The end of a line that does not go on after all.
    fn close(&mut self) -> &'static str {
        if self.open.take().is_some() { "\n" } else { "" }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use LogStream::{Stderr, Stdout};

    fn line(stream: LogStream, text: &str, partial: bool) -> LogEntry {
        LogEntry::Line {
            time: "T".to_owned(),
            stream,
            text: text.to_owned(),
            partial,
        }
    }

    fn printed(timestamps: bool) -> String {
        let mut printer = Printer {
            timestamps,
            open: None,
        };
        [
            line(Stdout, "na", true),
            line(Stdout, "me: ", true),
            line(Stderr, "warning", false),
            line(Stdout, "x", true),
            line(Stdout, "y", false),
            line(Stdout, "z", true),
            LogEntry::Dropped { lines: 3 },
            line(Stdout, "last", true),
        ]
        .iter()
        .map(|entry| printer.text(entry))
        .collect()
    }

    #[test]
    fn lines_are_whole_whatever_parts_they_came_in() {
        let dropped = "[3 lines of output were dropped here]";
        assert_eq!(
            printed(false),
            format!("name: \nwarning\nxy\nz\n{dropped}\nlast")
        );
        assert_eq!(
            printed(true),
            format!("T name: \nT warning\nT xy\nT z\n{dropped}\nT last")
        );
    }
}
