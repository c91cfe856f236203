//! The parts of the page, each by itself, so that one that changes is sent alone. Pure.

use std::time::Duration;

use super::{
    gather::{Endpoint, Gathered},
    html::Html,
};
use crate::{
    clock::minute_of,
    ids::{Address, TurnId},
    sandbox::SandboxSummary,
    store::{Overview, ShownTurn},
    text::{human_bytes, human_duration, short},
};

/// The most rows of what is looked at most, and of the rest: the whole page has 50 KB at most.
const MOST: usize = 20;
const FEW: usize = 10;
/// The most characters of a name, and of what somebody has asked.
const NAME: usize = 80;
const ASKED: usize = 120;
/// The most characters of why something is as it is.
const WHY: usize = 300;

/// A part of the page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Section {
    pub(super) id: &'static str,
    title: &'static str,
    /// What stands below its title.
    pub(super) inner: Html,
}

impl Section {
    fn new(id: &'static str, title: &'static str, write: impl FnOnce(&mut Html)) -> Self {
        let mut inner = Html::default();
        write(&mut inner);
        Self { id, title, inner }
    }

    /// Writes it with its title.
    pub(super) fn whole(&self, page: &mut Html) {
        page.raw("<section aria-labelledby=\"h-").raw(self.id).raw("\"><h2 id=\"h-").raw(self.id).raw("\">");
        page.raw(self.title).raw("</h2><div id=\"").raw(self.id).raw("\">").add(&self.inner).raw("</div></section>");
    }
}

/// Returns all parts in their order.
pub(super) fn of(all: &Gathered) -> Vec<Section> {
    let mut sections = vec![Section::new("health", "Health", |html| health(all, html))];
    match &all.overview {
        Ok(overview) => {
            sections.push(Section::new("running", "Running turns", |html| running(overview, all, html)));
            sections.push(Section::new("failed", "Recent failures", |html| failed(overview, all, html)));
            sections.push(Section::new("rooms", "Rooms", |html| rooms(overview, all, html)));
            sections.push(Section::new("tokens", "Tokens today", |html| tokens(overview, all, html)));
            sections.push(Section::new("grants", "Grants", |html| grants(overview, all, html)));
        }
        Err(error) => sections.push(Section::new("running", "Running turns", |html| {
            html.raw("<p class=\"bad\">").line(&error.to_string(), WHY).raw("</p>");
        })),
    }
    sections.insert(2.min(sections.len()), Section::new("sandboxes", "Sandboxes", |html| sandboxes(all, html)));
    sections.insert(3.min(sections.len()), Section::new("bots", "Bots and models", |html| bots(all, html)));
    sections
}

fn health(all: &Gathered, html: &mut Html) {
    match &all.ready {
        Ok(()) => html.raw("<p class=\"good\">It serves.</p>"),
        Err(why) => html.raw("<p class=\"bad\">").line(why, WHY).raw("</p>"),
    };
    html.raw("<dl>");
    if let Ok(overview) = &all.overview {
        fact(html, "messages that wait", overview.queued.messages);
        fact(html, "answers that are not sent", overview.queued.answers);
        fact(html, "running turns", overview.open.len());
    }
    let (synced, accounts) = all.accounts;
    if accounts > 0 {
        fact(html, "Matrix accounts that follow their homeserver", format_args!("{synced} of {accounts}"));
    }
    html.raw("</dl>");
}

fn fact(html: &mut Html, name: &'static str, value: impl std::fmt::Display) {
    html.raw("<div><dt>").raw(name).raw("</dt><dd>").value(value).raw("</dd></div>");
}

fn running(overview: &Overview, all: &Gathered, html: &mut Html) {
    if overview.open.is_empty() {
        html.raw("<p>Nothing runs.</p>");
        return;
    }
    html.raw("<ul class=\"turns\">");
    for (turn, line) in overview.open.iter().zip(&all.lines) {
        html.raw("<li>");
        head(turn, all, html);
        if let Some(line) = line {
            html.raw("<p class=\"now\">").line(line, ASKED).raw("</p>");
        }
        html.raw("</li>");
    }
    html.raw("</ul>");
}

fn failed(overview: &Overview, all: &Gathered, html: &mut Html) {
    if overview.failed.is_empty() {
        html.raw("<p>None.</p>");
        return;
    }
    html.raw("<ul class=\"turns\">");
    for turn in overview.failed.iter().take(FEW) {
        html.raw("<li>");
        head(turn, all, html);
        html.raw("</li>");
    }
    html.raw("</ul>");
}

/// Writes what a turn is about, with the link to its log.
fn head(turn: &ShownTurn, all: &Gathered, html: &mut Html) {
    html.raw("<a href=\"");
    link(&turn.turn, html);
    html.raw("\">");
    match asked(turn) {
        Some(words) if !words.trim().is_empty() => html.line(&words, ASKED),
        _ => html.raw("(no words)"),
    };
    html.raw("</a><p class=\"where\">");
    time(turn.opened, html);
    html.raw(" · ").line(&turn.bot, NAME).raw(" · ");
    place(&turn.at, all, html);
    if let Some(asker) = &turn.asker {
        html.raw(" · ").line(asker, NAME);
    }
    match turn.outcome.as_deref() {
        Some("limit") => html.raw(" · <span class=\"bad\">at a limit</span>"),
        Some("failed") => html.raw(" · <span class=\"bad\">failed</span>"),
        _ => html.raw(""),
    };
    html.raw("</p>");
}

/// Writes a room as people call it, with the account if that is not the first one; by its id if it has no name.
fn place(at: &Address, all: &Gathered, html: &mut Html) {
    match all.names.get(at) {
        Some(name) => {
            html.raw("<span title=\"").line(&at.to_string(), NAME).raw("\">").line(name, NAME).raw("</span>");
            if !at.is_of_first() {
                html.raw(" (").line(&at.account, NAME).raw(")");
            }
        }
        None => {
            html.line(&at.to_string(), NAME);
        }
    }
}

/// Returns what somebody has asked: the text of a message, or what came with a file.
pub(super) fn asked(turn: &ShownTurn) -> Option<String> {
    let asked = turn.asked.as_ref()?;
    ["text", "caption"].iter().find_map(|field| asked.get(field)?.as_str().map(str::to_owned))
}

pub(super) fn link(turn: &TurnId, html: &mut Html) {
    html.raw("/dashboard/turn/").line(turn.as_str(), NAME);
}

pub(super) fn time(millis: i64, html: &mut Html) {
    html.raw("<time>").value(minute_of(millis)).raw("</time>");
}

fn rooms(overview: &Overview, all: &Gathered, html: &mut Html) {
    if overview.rooms.is_empty() {
        html.raw("<p>None yet.</p>");
        return;
    }
    table(html, &["Room", "Turns", "Last turn"]);
    for room in &overview.rooms {
        html.raw("<tr><td>");
        if let Some(name) = all.names.get(&room.at) {
            html.line(name, NAME).raw("<p class=\"where\">").line(&room.at.to_string(), NAME).raw("</p>");
        } else {
            html.line(&room.at.to_string(), NAME);
        }
        html.raw("</td><td>").value(room.turns).raw("</td><td>");
        match &room.newest {
            Some((turn, opened)) => {
                html.raw("<a href=\"");
                link(turn, html);
                html.raw("\">");
                time(*opened, html);
                html.raw("</a>");
            }
            None => {
                html.raw("none");
            }
        }
        html.raw("</td></tr>");
    }
    html.raw("</tbody></table></div>");
}

fn table(html: &mut Html, columns: &[&'static str]) {
    html.raw("<div class=\"wide\"><table><thead><tr>");
    for column in columns {
        html.raw("<th scope=\"col\">").raw(column).raw("</th>");
    }
    html.raw("</tr></thead><tbody>");
}

/// Says how many rows are not shown.
fn more(all: usize, shown: usize, html: &mut Html) {
    if all > shown {
        html.raw("<p class=\"where\">and ").value(all - shown).raw(" more</p>");
    }
}

fn sandboxes(all: &Gathered, html: &mut Html) {
    let list = match &all.sandboxes {
        None => {
            html.raw("<p>No bot works in sandboxes.</p>");
            return;
        }
        Some(Err(why)) => {
            html.raw("<p class=\"bad\">").line(why, WHY).raw("</p>");
            return;
        }
        Some(Ok(list)) => list,
    };
    if let Some(limits) = &all.sandbox_limits {
        html.raw("<p class=\"where\">Each has at most ").value(human_bytes(limits.memory)).raw(" of memory, ");
        html.value(limits.cpus).raw(" processors, ").value(limits.pids).raw(" processes and ");
        html.value(human_bytes(limits.disk)).raw(" of disk; ").value(limits.running).raw(" may run, with ");
        html.value(human_bytes(limits.memory_total)).raw(" of memory together.</p>");
    }
    if list.is_empty() {
        html.raw("<p>There are none.</p>");
        return;
    }
    table(html, &["Room", "State", "Memory", "Disk"]);
    let mut list: Vec<&SandboxSummary> = list.iter().collect();
    list.sort_by_key(|sandbox| sandbox.idle_seconds);
    for sandbox in list.iter().take(MOST) {
        html.raw("<tr><td>");
        place(&sandbox.address, all, html);
        html.raw("</td><td>").raw(sandbox.state.as_str());
        if sandbox.idle_seconds >= 60 {
            let unused = human_duration(Duration::from_secs(sandbox.idle_seconds / 60 * 60));
            html.raw("<div class=\"where\">unused for ").value(unused).raw("</div>");
        }
        html.raw("</td><td>");
        share(sandbox.memory_used, all.sandbox_limits.map(|limits| limits.memory), html);
        html.raw("</td><td>");
        share(sandbox.disk_used, all.sandbox_limits.map(|limits| limits.disk), html);
        html.raw("</td></tr>");
    }
    html.raw("</tbody></table></div>");
    more(list.len(), MOST, html);
}

/// Writes how much of its share a sandbox uses.
fn share(used: Option<u64>, most: Option<u64>, html: &mut Html) {
    match (used, most) {
        (Some(used), Some(most)) => {
            html.value(human_bytes(used));
            html.raw("<meter max=\"").value(most).raw("\" value=\"").value(used).raw("\"></meter>");
        }
        _ => {
            html.raw("–");
        }
    }
}

fn bots(all: &Gathered, html: &mut Html) {
    table(html, &["Who", "How"]);
    for bot in all.cloud_bots.iter().flatten() {
        let model = bot.model.as_deref().unwrap_or_default();
        row(html, &format!("{} {model}", bot.name), bot.served, &bot.state);
    }
    if let Some(exobot) = &all.exobot {
        let how = [Some(exobot.account.as_str()), exobot.model.as_deref()];
        let how: Vec<_> = how.into_iter().flatten().collect();
        row(html, "exobot", exobot.served, &how.join(". "));
    }
    for Endpoint { name, url, found } in &all.endpoints {
        let name = format!("{name} {url}");
        match found {
            Some(Ok(loaded)) if loaded.is_empty() => row(html, &name, true, "answers, with no model loaded"),
            Some(Ok(loaded)) => row(html, &name, true, &format!("answers with {}", loaded.join(", "))),
            Some(Err(why)) => row(html, &name, false, why),
            None => row(html, &name, true, "is being asked"),
        }
    }
    html.raw("</tbody></table></div>");
    if all.cloud_bots.iter().flatten().next().is_none() && all.exobot.is_none() && all.endpoints.is_empty() {
        *html = Html::default();
        html.raw("<p>No cloud bot, no exobot and no inference server is set up, or they are being changed.</p>");
    }
}

fn row(html: &mut Html, name: &str, good: bool, how: &str) {
    html.raw("<tr><td>").line(name, NAME).raw("</td><td class=\"").raw(if good { "good" } else { "bad" }).raw("\">");
    html.line(how, WHY).raw("</td></tr>");
}

fn tokens(overview: &Overview, all: &Gathered, html: &mut Html) {
    if overview.days.is_empty() {
        html.raw("<p>None were used.</p>");
        return;
    }
    table(html, &["Room or person", "Used", "Held", "Limit"]);
    for day in overview.days.iter().take(FEW) {
        html.raw("<tr><td>");
        let usual = match (&day.at, &day.person) {
            (Some(at), _) => {
                place(at, all, html);
                all.limits.room
            }
            (None, person) => {
                html.line(person.as_deref().unwrap_or_default(), NAME);
                all.limits.person
            }
        };
        html.raw("</td><td>").value(short(day.used)).raw("</td><td>");
        html.value(short(day.held)).raw("</td><td>");
        match day.allowed.or(usual) {
            Some(limit) => {
                html.value(short(limit));
                html.raw("<meter max=\"").value(limit).raw("\" value=\"").value(day.used).raw("\"></meter>");
            }
            None => {
                html.raw("none");
            }
        }
        html.raw("</td></tr>");
    }
    html.raw("</tbody></table></div>");
}

fn grants(overview: &Overview, all: &Gathered, html: &mut Html) {
    let good = overview.grants.iter().filter(|grant| grant.until.is_none_or(|until| until > all.now));
    let good: Vec<_> = good.collect();
    if good.is_empty() {
        html.raw("<p>None.</p>");
        return;
    }
    table(html, &["Room", "What", "By", "Until"]);
    for grant in good.iter().take(FEW) {
        html.raw("<tr><td>");
        place(&grant.at, all, html);
        html.raw("</td><td>").line(&grant.kind, NAME).raw(" ");
        html.line(&grant.what, NAME).raw(if grant.writes { ", also to write" } else { "" }).raw("</td><td>");
        html.line(&grant.by, NAME).raw("</td><td>");
        match (grant.until, &grant.turn) {
            (Some(until), _) => time(until, html),
            (None, Some(_)) => {
                html.raw("the turn’s end");
            }
            (None, None) => {
                html.raw("it is taken back");
            }
        }
        html.raw("</td></tr>");
    }
    html.raw("</tbody></table></div>");
    more(good.len(), FEW, html);
}

/// Returns how one comes in.
pub(super) fn entrance() -> Html {
    let mut html = Html::default();
    html.raw(concat!(
        "<main class=\"alone\"><h1>matrix-agent</h1><p>Ask for a link on the server, and open it here:</p>",
        "<pre>matrix-agent dashboard</pre>",
        "<form id=\"enter\" method=\"post\" action=\"/dashboard/enter\" enctype=\"text/plain\">",
        "<label for=\"pass\">Or enter what stands behind the link’s #</label>",
        "<input id=\"pass\" name=\"pass\" type=\"password\" autocomplete=\"off\" required>",
        "<button>Come in</button></form></main>"
    ));
    html
}

/// Returns that a pass is not taken.
pub(super) fn refused() -> Html {
    let mut html = Html::default();
    html.raw("<main class=\"alone\"><h1>matrix-agent</h1><p class=\"bad\">This link is none of this server’s, or it has expired.</p>");
    html.raw(
        "<p>Ask for another one: <code>matrix-agent dashboard</code>, or <code>!link</code> in the room.</p></main>",
    );
    html
}

/// Returns that a turn is not there.
pub(super) fn gone() -> Html {
    let mut html = Html::default();
    html.raw("<main class=\"alone\"><h1>matrix-agent</h1><p>Nothing is kept of this turn any more.</p></main>");
    html
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{
        sandbox::{SandboxLimits, SandboxState},
        store::{DayLimits, ShownDay, ShownRoom, StoredGrant},
    };

    /// As many bytes as all files of the page may have.
    const FILES: usize = 12 << 10;

    /// A house in which everything is there that can be shown, and more.
    fn full() -> Gathered {
        let room = |number: usize| Address::of_first(format!("!{number:0>18}:matrix.example.org"));
        let turn = |number: usize| ShownTurn {
            turn: TurnId(format!("{number:0>32}")),
            at: room(number),
            bot: "coder".into(),
            outcome: Some("failed".into()),
            opened: 1_796_000_000_000,
            closed: None,
            asker: Some("@somebody-else:matrix.example.org".into()),
            asked: Some(serde_json::json!({"text": "What is asked, in some words. ".repeat(10)})),
        };
        let all = |count| (0..count).map(turn).collect::<Vec<_>>();
        let days = |number| ShownDay { at: Some(room(number)), person: None, used: 123_456, held: 1, allowed: None };
        let grant = |number| StoredGrant {
            at: room(number),
            kind: "host".into(),
            what: "packages.example.org".into(),
            writes: true,
            by: "@anna:matrix.example.org".into(),
            since: 0,
            until: None,
            turn: None,
        };
        let overview = Overview {
            open: all(20),
            failed: all(20),
            rooms: (0..20)
                .map(|number| ShownRoom { at: room(number), turns: 99, newest: Some((turn(number).turn, 0)) })
                .collect(),
            days: (0..20).map(days).collect(),
            grants: (0..500).map(grant).collect(),
            ..Overview::default()
        };
        let sandbox = |number| SandboxSummary {
            address: room(number),
            name: String::new(),
            state: SandboxState::Running,
            idle_seconds: 10,
            memory_used: Some(123_456_789),
            disk_used: Some(1_234_567_890),
        };
        Gathered {
            now: 0,
            ready: Ok(()),
            accounts: (1, 1),
            overview: Ok(overview),
            names: (0..500).map(|number| (room(number), "What people call this <room> of theirs".to_owned())).collect(),
            lines: vec![Some("run_command: cargo test --workspace --all-features -- --nocapture".to_owned()); 20],
            sandboxes: Some(Ok((0..500).map(sandbox).collect())),
            sandbox_limits: Some(SandboxLimits {
                memory: 1 << 31,
                cpus: 2.0,
                pids: 512,
                disk: 10 << 30,
                running: 128,
                memory_total: 1 << 34,
            }),
            cloud_bots: None,
            exobot: None,
            endpoints: vec![],
            limits: DayLimits::default(),
        }
    }

    fn page_of(all: &Gathered) -> String {
        let mut page = Html::default();
        for section in of(all) {
            section.whole(&mut page);
        }
        page.as_str().to_owned()
    }

    #[test]
    fn a_full_house_fits_into_the_page() {
        let page = page_of(&full());
        assert!(page.len() + FILES <= 50 << 10, "{} bytes", page.len());
        assert!(page.contains("and 480 more") && page.contains("and 490 more"), "{page}");
    }

    #[test]
    fn a_room_is_named_as_people_name_it_and_its_id_is_there_too() {
        let page = page_of(&full());
        let id = "!000000000000000000:matrix.example.org";
        assert!(page.contains(&format!("<td>What people call this &lt;room&gt; of theirs<p class=\"where\">{id}</p>")));
        assert!(page.contains(&format!("<span title=\"{id}\">What people call this &lt;room&gt; of theirs</span>")));
        let mut other = full();
        other.names = BTreeMap::new();
        assert!(page_of(&other).contains(&format!("<td>{id}</td>")));
    }
}
