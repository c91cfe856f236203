//! Limits the log: counts lines by kind and room, lets a number of each through in a minute, and reports how many
//! were left out.
//!
//! A kind is a place in the program that logs. The room is the field `room` of the event or of a span around it.

use std::{
    collections::HashMap,
    convert::Infallible,
    fmt::{self, Write},
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tracing::{
    Event, Level, Metadata, Subscriber,
    callsite::Identifier,
    field::{Field, Visit},
    span::{Attributes, Id},
};
use tracing_subscriber::{Layer, layer::Context, registry::LookupSpan};

/// The period over which lines are counted.
const WINDOW: Duration = Duration::from_mins(1);
/// The most rooms and kinds that are counted separately; further ones count by kind alone.
const KNOWN: usize = 4096;
/// The most rooms that get a sum of their own; the rest is in the sum of the kind.
const SUMS: usize = 50;
/// The most bytes that are remembered of a room's name, and of a line's text.
const LONGEST_NAME: usize = 255;

/// The most lines of a kind in a period: of one room, and of all rooms.
struct Allowance {
    room: u64,
    all: u64,
}

/// Returns the allowance for lines of this level. Lines about success are more frequent by nature: each connection of
/// a package manager is one.
fn allowance(level: Level) -> Allowance {
    match level {
        Level::ERROR | Level::WARN => Allowance { room: 20, all: 400 },
        _ => Allowance { room: 1000, all: 5000 },
    }
}

/// Counts lines and lets them through. Clones share their counts.
#[derive(Clone, Default)]
pub(in crate::cli) struct Flood {
    counts: Arc<Mutex<Counts>>,
}

#[derive(Default)]
struct Counts {
    kinds: HashMap<Identifier, Kind>,
    rooms: HashMap<(Identifier, String), Tally>,
}

/// A kind of line, in all rooms.
struct Kind {
    /// The text of its lines, for the sum.
    says: String,
    all: Tally,
}

#[derive(Clone, Copy, Default)]
struct Tally {
    came: u64,
    let_through: u64,
}

impl Tally {
    fn left_out(self) -> u64 {
        self.came - self.let_through
    }
}

/// The room that a span names.
struct RoomOf(String);

impl Flood {
    /// Begins a new period every minute, for ever.
    pub(in crate::cli) async fn tell_every_minute(&self) -> Infallible {
        loop {
            tokio::time::sleep(WINDOW).await;
            self.tell();
        }
    }

    /// Begins a new period, and logs what was left out of the last one: a line for each kind and room.
    pub(in crate::cli) fn tell(&self) {
        // Taken before anything is logged, since that is counted again.
        let Counts { mut kinds, rooms } = mem::take(&mut *self.counts());
        let flooded = rooms.into_iter().filter(|(_, tally)| tally.left_out() > 0);
        for ((kind, room), tally) in flooded.take(SUMS) {
            let Some(Kind { says, all }) = kinds.get_mut(&kind) else { continue };
            all.came -= tally.left_out();
            tracing::warn!(%room, left_out = tally.left_out(), line = %says, "lines were left out of the log");
        }
        for Kind { says, all } in kinds.into_values().filter(|kind| kind.all.left_out() > 0) {
            tracing::warn!(left_out = all.left_out(), line = %says, "lines were left out of the log");
        }
    }

    /// Counts a line; returns whether it is let through.
    fn count(&self, metadata: &'static Metadata<'static>, room: String, says: impl FnOnce() -> String) -> bool {
        let allowance = allowance(*metadata.level());
        let mut counts = self.counts();
        let Counts { kinds, rooms } = &mut *counts;
        let kind = metadata.callsite();
        let all = &mut kinds.entry(kind.clone()).or_insert_with(|| Kind { says: says(), all: Tally::default() }).all;
        all.came += 1;
        let mut lets = all.let_through < allowance.all;
        let key = (kind, room);
        if rooms.len() < KNOWN || rooms.contains_key(&key) {
            let tally = rooms.entry(key).or_default();
            tally.came += 1;
            lets &= tally.let_through < allowance.room;
            tally.let_through += u64::from(lets);
        }
        all.let_through += u64::from(lets);
        lets
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Flood {
    fn event_enabled(&self, event: &Event<'_>, context: Context<'_, S>) -> bool {
        // Whoever asks for more than the usual levels wants to see all lines.
        if *event.metadata().level() > Level::INFO {
            return true;
        }
        let mut read = Read::default();
        event.record(&mut read);
        let room = read.room.or_else(|| {
            let mut spans = context.event_scope(event)?;
            spans.find_map(|span| span.extensions().get::<RoomOf>().map(|room| room.0.clone()))
        });
        self.count(event.metadata(), room.unwrap_or_default(), || read.message)
    }

    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut read = Read::default();
        attributes.record(&mut read);
        if let (Some(room), Some(span)) = (read.room, context.span(id)) {
            span.extensions_mut().replace(RoomOf(room));
        }
    }
}

/// Extracts the room and the text from an event's or a span's fields.
#[derive(Default)]
struct Read {
    room: Option<String>,
    message: String,
}

impl Visit for Read {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "room" => self.room = Some(short(value)),
            "message" => self.message = short(value),
            _ => {}
        }
    }
}

/// Returns the beginning of a value as text.
fn short(value: &dyn fmt::Debug) -> String {
    let mut text = Short(String::new());
    // The writer fails on purpose once the text is long enough.
    let _ = write!(text, "{value:?}");
    text.0
}

struct Short(String);

impl Write for Short {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        let free = LONGEST_NAME - self.0.len();
        self.0.push_str(&more[..more.floor_char_boundary(free)]);
        if more.len() > free { Err(fmt::Error) } else { Ok(()) }
    }
}
