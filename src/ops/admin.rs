//! Carries out what administrators ask of the whole server, from a room (`!admin`) or from the command line.

use std::{collections::BTreeMap, time::Duration};

use futures_util::{FutureExt, future::BoxFuture};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use super::recent;
use crate::{
    bots::{AdminOrder, Administrator, Place, Told},
    chat::terminal,
    hub::Accounts,
    ids::Address,
    ledger::Ledger,
    rights::Rights,
    sandbox::{SandboxState, Sandboxes},
    store::StoreError,
    strings::admin as words,
    text,
};

/// How long Podman may take to list the sandboxes.
const LOOK: Duration = Duration::from_secs(5);
/// The most rooms of a list; the others are counted.
const MOST: usize = 200;
/// The lines of the log that a room is shown.
const LINES: usize = 20;

/// Whoever runs the server.
pub(super) struct Admin {
    pub(super) accounts: Accounts,
    pub(super) ledger: Ledger,
    pub(super) rights: Rights,
    /// `None` if no bot works in sandboxes.
    pub(super) sandboxes: Option<Sandboxes>,
    pub(super) since: Instant,
}

/// A room of the list.
struct Room {
    address: Address,
    /// How long its turn has run; `None` if none runs.
    runs: Option<Duration>,
    sandbox: Option<SandboxState>,
}

impl Admin {
    async fn status(&self) -> Result<Told, String> {
        let accounts = self.accounts.names();
        let running = self.accounts.running().len();
        let sandboxes = self.sandboxes().await;
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for state in sandboxes.values() {
            *counts.entry(state.as_str()).or_default() += 1;
        }
        let used: u64 = self.ledger.store().spent_today().await.map_err(failed)?.iter().map(|(_, used)| used).sum();
        let (version, up) = (env!("CARGO_PKG_VERSION"), self.since.elapsed());
        let shown: Vec<_> = counts.iter().map(|(state, count)| format!("{count} {state}")).collect();
        let text = format!(
            "matrix-agent {version}, process {}, up {}\naccounts: {}\nturns: {running} running{}\nsandboxes: {}\ntokens today: {}",
            std::process::id(),
            text::human_duration(up),
            accounts.join(", "),
            if self.accounts.is_draining() { ", no new ones begin (draining)" } else { "" },
            if shown.is_empty() { "none".to_owned() } else { shown.join(", ") },
            text::short(used),
        );
        let value = json!({
            "version": version, "pid": std::process::id(), "up_seconds": up.as_secs(), "accounts": accounts,
            "running": running, "draining": self.accounts.is_draining(), "sandboxes": counts, "tokens_today": used,
        });
        Ok(Told { text, value })
    }

    async fn rooms(&self, place: Place) -> Result<Told, String> {
        let rooms = self.all_rooms().await?;
        if rooms.is_empty() {
            return Ok(Told { text: words::NO_ROOMS.into(), value: json!([]) });
        }
        let line = |Room { address, runs, sandbox }: &Room| {
            let runs = runs.map_or_else(String::new, |runs| format!(", works for {}", text::human_duration(runs)));
            let sandbox = sandbox.map_or("none", SandboxState::as_str);
            format!("- {}: sandbox {sandbox}{runs}", self.shown(address, place))
        };
        let mut lines: Vec<_> = rooms.iter().take(MOST).map(line).collect();
        lines.extend((rooms.len() > MOST).then(|| format!("- and {} more", rooms.len() - MOST)));
        let value = rooms.iter().map(|room| {
            json!({
                "account": room.address.account, "room": room.address.room.as_str(), "name": self.accounts.name_of(&room.address),
                "sandbox": room.sandbox.map(SandboxState::as_str), "works_seconds": room.runs.map(|runs| runs.as_secs()),
            })
        });
        Ok(Told { text: lines.join("\n"), value: value.collect() })
    }

    async fn stop(&self, named: &str, by: &str, place: Place) -> Result<Told, String> {
        let at = self.room(named, place).await?;
        if !self.accounts.stop(&at) {
            return Ok(Told { text: words::nothing_runs(&self.shown(&at, place)), value: json!({ "stopped": false }) });
        }
        tracing::info!(%by, room = %at, "an administrator ends a turn");
        Ok(Told { text: words::stopped(&self.shown(&at, place)), value: json!({ "stopped": true }) })
    }

    fn drain(&self, off: bool, by: &str, place: Place) -> Told {
        self.accounts.drain(!off);
        tracing::info!(%by, draining = !off, "an administrator lets turns begin, or not");
        let running = self.accounts.running().len();
        let text =
            if off { words::NOT_DRAINING.to_owned() } else { words::draining(running as u64, place.drain_off()) };
        Told { text, value: json!({ "draining": !off, "running": running }) }
    }

    async fn budget(&self, allow: Option<&(String, u64)>, by: &str, place: Place) -> Result<Told, String> {
        let store = self.ledger.store();
        if let Some((named, tokens)) = allow {
            let at = self.room(named, place).await?;
            store.allow_room(&at, *tokens).await.map_err(failed)?;
            tracing::info!(%by, room = %at, tokens, "a room has other tokens today");
            let used = self.ledger.today(&at, "").await.map_err(failed)?.room.used;
            let text = format!(
                "{}: {} of {} tokens used today.",
                self.shown(&at, place),
                text::short(used),
                text::short(*tokens)
            );
            return Ok(Told { text, value: json!({ "room": at.to_string(), "used": used, "limit": tokens }) });
        }
        let (mut lines, mut rows) = (Vec::new(), Vec::new());
        for (at, _) in store.spent_today().await.map_err(failed)?.into_iter().take(MOST) {
            let today = self.ledger.today(&at, "").await.map_err(failed)?.room;
            let of = today.limit.map_or_else(String::new, |limit| format!(" of {}", text::short(limit)));
            lines.push(format!("- {}: {}{of} tokens", self.shown(&at, place), text::short(today.used)));
            rows.push(json!({ "room": at.to_string(), "used": today.used, "limit": today.limit }));
        }
        let text = if lines.is_empty() { words::NO_TOKENS.to_owned() } else { lines.join("\n") };
        Ok(Told { text, value: Value::Array(rows) })
    }

    fn grants(&self, place: Place) -> Told {
        let (mut lines, mut rows) = (Vec::new(), Vec::new());
        for at in self.rights.rooms_with_grants() {
            for (grant, left) in self.rights.granted(&at) {
                let ends = match (left, &grant.turn) {
                    (Some(left), _) => format!("for {} more", text::human_duration(left)),
                    (None, Some(_)) => "until its turn ends".to_owned(),
                    (None, None) => "until it is taken back".to_owned(),
                };
                let writes = if grant.writes { " to write" } else { "" };
                let (what, by) = (place.code(&grant.subject.to_string()), text::shown_name(&grant.by));
                lines.push(format!("- {}: {what}{writes}, by {by}, {ends}", self.shown(&at, place)));
                rows.push(json!({
                    "room": at.to_string(), "subject": grant.subject.to_string(), "writes": grant.writes, "by": grant.by,
                    "left_seconds": left.map(|left| left.as_secs()),
                }));
            }
        }
        let text = if lines.is_empty() { words::NO_GRANTS.to_owned() } else { lines.join("\n") };
        Told { text, value: Value::Array(rows) }
    }

    /// Returns the sandboxes' states; none if Podman does not answer in time, as they decorate what is told here.
    async fn sandboxes(&self) -> BTreeMap<String, SandboxState> {
        let Some(sandboxes) = &self.sandboxes else { return BTreeMap::new() };
        let list = timeout(LOOK, sandboxes.list()).await.ok().and_then(Result::ok).unwrap_or_default();
        list.into_iter().map(|summary| (summary.address.to_string(), summary.state)).collect()
    }

    async fn all_rooms(&self) -> Result<Vec<Room>, String> {
        let store = self.ledger.store();
        let sandboxes = self.sandboxes().await;
        let mut running = BTreeMap::new();
        for turn in self.accounts.running() {
            let opened = store.opened(&turn.turn).await.map_err(failed)?;
            let since = opened.map(|at| store.clock().millis().saturating_sub(at)).unwrap_or_default();
            running.insert(turn.address.to_string(), Duration::from_millis(u64::try_from(since).unwrap_or_default()));
        }
        let homes = store.homes_in_use().await.map_err(failed)?;
        let mut rooms: Vec<_> = homes
            .into_iter()
            .map(|address| {
                let name = address.to_string();
                Room { runs: running.get(&name).copied(), sandbox: sandboxes.get(&name).copied(), address }
            })
            .collect();
        // What runs stands first.
        rooms.sort_by_cached_key(|room| (room.runs.is_none(), room.address.to_string()));
        Ok(rooms)
    }

    /// Returns how people know a room: by its name, where that is known, and always by its id.
    fn shown(&self, at: &Address, place: Place) -> String {
        let id = place.code(&text::shown_name(&at.to_string()));
        match self.accounts.name_of(at) {
            Some(name) => format!("{} ({id})", place.code(&text::shown_name(&name))),
            None => id,
        }
    }

    /// Returns the room that is named as the list shows it, by its id or its name, or by a part of that.
    async fn room(&self, named: &str, place: Place) -> Result<Address, String> {
        let mut homes = self.ledger.store().homes_in_use().await.map_err(failed)?;
        if let Some(exact) = homes.iter().find(|home| home.to_string() == named) {
            return Ok(exact.clone());
        }
        let called = |home: &Address| self.accounts.name_of(home).map(|name| text::shown_name(&name));
        let terminal = terminal::room(named);
        let is_called = |home: &&Address| called(home).as_deref() == Some(named);
        let is_of_terminal = |home: &&Address| home.room == terminal;
        for exact in [homes.iter().filter(is_called).collect::<Vec<_>>(), homes.iter().filter(is_of_terminal).collect()]
        {
            if let [one] = exact[..] {
                return Ok(one.clone());
            }
        }
        // A long name ends in a mark that stands for the rest.
        let part = named.trim_end_matches('…');
        homes.retain(|home| {
            let id = home.to_string();
            let names = [text::shown_name(&id), called(home).unwrap_or_default(), id];
            !part.is_empty() && names.iter().any(|name| name.contains(part))
        });
        match (homes.pop(), homes.is_empty()) {
            (Some(home), true) => Ok(home),
            (Some(_), false) => Err(words::several_rooms(&text::shown_name(named), place.rooms())),
            (None, _) => Err(words::no_room(&text::shown_name(named), place.rooms())),
        }
    }
}

impl Administrator for Admin {
    fn room_named<'a>(&'a self, named: &'a str) -> BoxFuture<'a, Result<Address, String>> {
        self.room(named, Place::CommandLine).boxed()
    }

    fn carry_out<'a>(
        &'a self,
        order: &'a AdminOrder,
        by: &'a str,
        place: Place,
    ) -> BoxFuture<'a, Result<Told, String>> {
        async move {
            match order {
                AdminOrder::Status => self.status().await,
                AdminOrder::Rooms => self.rooms(place).await,
                AdminOrder::Stop { room } => self.stop(room, by, place).await,
                AdminOrder::Drain { off } => Ok(self.drain(*off, by, place)),
                AdminOrder::Budget { allow } => self.budget(allow.as_ref(), by, place).await,
                AdminOrder::Grants => Ok(self.grants(place)),
                AdminOrder::Logs => Ok(logs()),
                AdminOrder::NoAmount => Err(words::NO_AMOUNT.to_owned()),
                AdminOrder::Unclear => Err(words::HELP.to_owned()),
            }
        }
        .boxed()
    }
}

/// Returns the newest lines of the log, as a block.
fn logs() -> Told {
    let lines = recent::of(recent::SERVER).0;
    let newest = &lines[lines.len().saturating_sub(LINES)..];
    // A fence in a line must not end the block.
    let block = newest.join("\n").replace("~~~~", "~~~");
    let text = if newest.is_empty() { words::NO_LINES.to_owned() } else { format!("~~~~\n{block}\n~~~~") };
    Told { text, value: json!(newest) }
}

#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
fn failed(error: StoreError) -> String {
    error.to_string()
}
