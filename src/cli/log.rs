//! The log: one line an event on standard error, where journald or a terminal takes it, or in a file of bounded size.
//! `RUST_LOG` selects what is logged.
//!
//! Sandboxes, strangers in rooms and providers can cause endless log lines. So each line passes [`Flood`], which
//! counts them by kind and room, and [`Lines`], which bounds their length; the places that log need not care.

mod file;
mod flood;
mod lines;

use std::{
    io::{self, IsTerminal},
    path::Path,
};

use tracing::Subscriber;
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    fmt::{self, writer::BoxMakeWriter},
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

use crate::{config::LogFormat, ids::SPANS};
use file::LogFile;
pub(super) use flood::Flood;
use lines::Lines;

/// What the server logs unless `RUST_LOG` says otherwise.
pub(super) const SERVER: &str = "warn,matrix_agent=info";
/// async-openai logs what it cannot decode, which may be a prompt; the SDK's HTTP client logs expected answers as
/// errors.
const NEVER: &str = ",async_openai=off,matrix_sdk::http_client=off";
/// The level of the spans that name accounts, rooms and turns, which are shown on each line whatever is selected.
const ALWAYS: &str = "error";
/// What other subcommands log, since their output says what matters.
pub(super) const QUIET: &str = "error";

/// Starts the log, on standard error or in `file`. [`Flood::tell`] reports lines that were left out.
pub(super) fn start(usual: &str, file: Option<&Path>, format: LogFormat) -> io::Result<Flood> {
    let chosen = std::env::var("RUST_LOG").ok().filter(|directives| !directives.is_empty());
    let filter = filter(chosen.as_deref().unwrap_or(usual));
    let flood = Flood::default();
    let (writer, colours) = match file {
        Some(file) => (BoxMakeWriter::new(LogFile::open(file)?), false),
        None => (BoxMakeWriter::new(io::stderr), io::stderr().is_terminal()),
    };
    subscriber(writer, format, colours, filter, flood.clone()).init();
    Ok(flood)
}

/// Returns a filter from these directives. An invalid one is skipped and the others count, so that a typing error
/// does not stop the server.
fn filter(directives: &str) -> EnvFilter {
    EnvFilter::builder().parse_lossy(format!("{directives}{NEVER},{SPANS}={ALWAYS}"))
}

/// Returns the subscriber that writes the lines which `filter` and `flood` let through.
fn subscriber(
    writer: BoxMakeWriter,
    format: LogFormat,
    colours: bool,
    filter: EnvFilter,
    flood: Flood,
) -> impl Subscriber + Send + Sync {
    let lines = fmt::layer().with_writer(Lines { writer, format });
    let lines = match format {
        LogFormat::Pretty => lines.with_ansi(colours).boxed(),
        // The room and the turn are in the list of spans.
        LogFormat::Json => lines.json().with_current_span(false).boxed(),
    };
    Registry::default().with(filter).with(flood).with(lines)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::ids::{Address, TurnId};

    /// Collects what is written.
    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Returns what is logged during `events`.
    fn logged(events: impl FnOnce(&Flood)) -> String {
        logged_of("info", events)
    }

    /// Returns what is logged of it with these directives.
    fn logged_of(directives: &str, events: impl FnOnce(&Flood)) -> String {
        logged_as(LogFormat::Pretty, directives, events)
    }

    fn logged_as(format: LogFormat, directives: &str, events: impl FnOnce(&Flood)) -> String {
        let (written, flood) = (Written::default(), Flood::default());
        let writer = written.clone();
        let writer = BoxMakeWriter::new(move || writer.clone());
        let subscriber = subscriber(writer, format, false, filter(directives), flood.clone());
        tracing::subscriber::with_default(subscriber, || events(&flood));
        String::from_utf8(written.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn a_flood_of_one_room_is_summed_up_and_hides_no_other() {
        let log = logged(|flood| {
            for _ in 0..100_000 {
                tracing::warn!(room = "!a:x", "turned away");
            }
            tracing::warn!(room = "!b:x", "turned away");
            tracing::warn!(room = "!a:x", "something else");
            flood.tell();
        });
        assert!(log.lines().count() < 40, "{} lines", log.lines().count());
        assert!(log.contains("!b:x") && log.contains("something else"), "{log}");
        let summary = log.lines().find(|line| line.contains("left out")).unwrap();
        assert!(summary.contains("99980") && summary.contains("!a:x") && summary.contains("turned away"), "{summary}");
    }

    #[test]
    fn no_choice_of_lines_takes_their_room_and_turn_away() {
        let room = Address { account: "talk".into(), room: "!a:x".into() };
        for directives in ["warn", "matrix_agent::cli=warn", "off,matrix_agent::cli=error"] {
            let log = logged_of(directives, |_| {
                room.span().in_scope(|| TurnId::from("t1").span().in_scope(|| tracing::error!("it has failed")));
            });
            assert!(log.contains("room{room=talk/!a:x}:turn{turn=t1}: ") && log.contains("it has failed"), "{log}");
        }
    }

    #[test]
    fn the_room_may_be_named_by_a_span() {
        let log = logged(|flood| {
            for room in ["!a:x", "!b:x"] {
                let _room = Address::of_first(room).span().entered();
                let _inner = tracing::info_span!("inner").entered();
                for _ in 0..50 {
                    tracing::warn!("turned away");
                }
            }
            flood.tell();
        });
        let summaries: Vec<_> = log.lines().filter(|line| line.contains("left out")).collect();
        assert_eq!(summaries.len(), 2, "{log}");
        assert!(summaries.iter().all(|line| line.contains("30")), "{summaries:?}");
    }

    #[test]
    fn a_flood_from_ever_new_rooms_is_summed_up_too() {
        let log = logged(|flood| {
            for room in 0..50_000 {
                tracing::warn!(room, "an invite was declined");
            }
            flood.tell();
        });
        assert!(log.lines().count() < 600, "{} lines", log.lines().count());
        assert!(log.contains("left out"), "{log}");
    }

    #[test]
    fn as_json_each_line_is_an_object_with_its_room_and_turn_however_long_it_would_be() {
        let room = Address { account: "talk".into(), room: "!a:x".into() };
        let log = logged_as(LogFormat::Json, "info", |flood| {
            let long = "x\n".repeat(1 << 19);
            room.span()
                .in_scope(|| TurnId::from("t1").span().in_scope(|| tracing::warn!(why = %long, "it has failed")));
            for _ in 0..1000 {
                tracing::warn!(room = "!a:x", "turned away");
            }
            flood.tell();
        });
        let lines: Vec<serde_json::Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert!(log.lines().all(|line| line.len() <= lines::LONGEST), "a line is too long");
        let spans = lines[0]["spans"].as_array().unwrap();
        assert_eq!((&spans[0]["room"], &spans[1]["turn"]), (&"talk/!a:x".into(), &"t1".into()), "{}", lines[0]);
        assert_eq!(lines[0]["fields"]["message"], "it has failed");
        assert!(lines.last().unwrap()["fields"].to_string().contains("turned away"), "{log}");
    }

    #[test]
    fn a_rooms_name_does_not_turn_its_line_around() {
        let log = logged(|_| tracing::warn!(room = %"!\u{202e}toor:x", "turned away"));
        assert!(log.contains("room=!toor:x") && !log.contains('\u{202e}'), "{log}");
    }

    #[test]
    fn a_line_is_one_line_of_bounded_length() {
        let log = logged(|_| {
            tracing::warn!(why = %"x".repeat(1 << 20), "long");
            tracing::warn!(why = %"first\n2026-01-01T00:00:00Z  INFO forged", "broken");
        });
        assert_eq!(log.lines().count(), 2, "{log}");
        assert!(log.len() < 2 * lines::LONGEST, "{}", log.len());
        assert!(log.contains("bytes cut"), "{log}");
    }
}
