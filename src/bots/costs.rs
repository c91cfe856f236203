//! The replies to `!cost` and `!budget`: what the models have cost in a room, and how many tokens its day has.

use std::collections::BTreeMap;

use super::{Order, command::Budget, replied::Replied};
use crate::{
    ids::Address,
    ledger::{Cost, Ledger, ORCHESTRATOR, Spending, Standing, Tokens},
    store::StoreError,
    strings::budgets,
    text,
};

/// The days that `!cost` shows.
const DAYS: u32 = 7;
/// The lines of today that it shows.
const LINES: usize = 20;

/// A sum over some of the requests.
#[derive(Default)]
struct Part {
    tokens: Tokens,
    requests: u64,
    cost: Cost,
}

impl Part {
    fn add(&mut self, ledger: &Ledger, spent: &Spending) {
        self.tokens += spent.tokens;
        self.requests += spent.requests;
        self.cost = [self.cost, ledger.rules().prices.cost(&spent.model, spent.tokens)].into_iter().sum();
    }

    fn line(&self, what: &str) -> String {
        let Self { tokens, requests, cost } = self;
        let cached = tokens.cached_percent().unwrap_or_default();
        budgets::cost_line(what, tokens.input, cached, tokens.output, *requests, &cost.to_string())
    }
}

/// Returns the reply to `!cost`.
pub(super) async fn told(ledger: &Ledger, address: &Address) -> Result<String, StoreError> {
    let spent = ledger.store().spending(address, DAYS).await?;
    if spent.is_empty() {
        return Ok(budgets::NO_COST.to_owned());
    }
    let today = ledger.store().clock().day();
    let mut text = budgets::cost(DAYS);
    let mut days: BTreeMap<&str, Part> = BTreeMap::new();
    for spent in &spent {
        days.entry(&spent.day).or_default().add(ledger, spent);
    }
    text.extend(days.iter().rev().map(|(day, part)| part.line(day)));
    let today: Vec<_> = spent.iter().filter(|spent| spent.day == today).collect();
    // A single line would say the same as the day's.
    if today.len() > 1 {
        text.push_str(budgets::COST_TODAY);
    }
    for spent in today.iter().take(LINES).filter(|_| today.len() > 1) {
        let agent = if spent.agent == ORCHESTRATOR { "the orchestrator" } else { &spent.agent };
        let mut part = Part::default();
        part.add(ledger, spent);
        text.push_str(&part.line(&budgets::cost_of(agent, &spent.model, &spent.person)));
    }
    Ok(text)
}

fn standing(you: bool, Standing { used, held, limit }: Standing) -> String {
    let percent = |limit: u64| (u128::from(used) * 100 / u128::from(limit.max(1))) as u64;
    let limit = limit.map(|limit| (text::short(limit), percent(limit)));
    let limit = limit.as_ref().map(|(limit, percent)| (limit.as_str(), *percent));
    let held = if held > 0 { text::short(held) } else { String::new() };
    budgets::standing(you, &text::short(used), limit, &held)
}

/// Carries out `!budget`, and returns the reply.
pub(super) async fn budget(ledger: &Ledger, order: &Order, budget: Budget) -> Result<Replied, StoreError> {
    let Order { at, sender, local, .. } = order;
    let (store, address) = (ledger.store(), &at.address);
    // Whoever talks from the server's own terminal operates the server.
    let may = *local || ledger.rules().admins.contains(sender);
    Ok(match budget {
        Budget::Show => {
            let today = ledger.today(address, sender).await?;
            Replied::done(format!("{}{}", standing(false, today.room), standing(true, today.person)))
        }
        Budget::Unclear => Replied::refused(budgets::UNCLEAR),
        Budget::Room(_) | Budget::Each(_) if !may => Replied::refused(budgets::not_yours(&ledger.rules().admins)),
        Budget::Room(tokens) => {
            store.allow_room(address, tokens).await?;
            let used = ledger.today(address, sender).await?.room.used;
            tracing::info!(%sender, tokens, "a room has other tokens today");
            Replied::done(budgets::room_allowed(&text::short(tokens), &text::short(used)))
        }
        Budget::Each(tokens) => {
            let people = store.allow_people(address, tokens).await?;
            tracing::info!(%sender, tokens, people = people.len(), "people have other tokens today");
            Replied::done(budgets::people_allowed(&text::short(tokens), &people))
        }
    })
}
