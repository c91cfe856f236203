//! What models cost, in dollars, and how that is written. Pure.

use std::{collections::BTreeMap, fmt};

use crate::{config::Price, store::Tokens};

/// The number of tokens that a price is for.
const PER: f64 = 1e6;

/// The prices that the operator has set, by model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Prices {
    models: BTreeMap<String, Price>,
}

/// What some requests have cost.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cost {
    /// Dollars, of those whose price is known; `None` where none is.
    dollars: Option<f64>,
    /// Whether there are tokens besides that have no price.
    more: bool,
}

impl Prices {
    /// Takes the prices, by the models' names.
    pub fn new(models: impl IntoIterator<Item = (String, Price)>) -> Self {
        Self { models: models.into_iter().collect() }
    }

    /// Returns what tokens of a model cost.
    pub fn cost(&self, model: &str, tokens: Tokens) -> Cost {
        if tokens.total() == 0 {
            return Cost::default();
        }
        let Some(price) = self.models.get(model) else { return Cost { dollars: None, more: true } };
        let cached = tokens.cached.min(tokens.input);
        let parts = [
            (tokens.input - cached, price.input.dollars()),
            (cached, price.cached.unwrap_or(price.input).dollars()),
            (tokens.output, price.output.dollars()),
        ];
        let dollars = parts.iter().map(|(tokens, price)| *tokens as f64 * price / PER).sum();
        Cost { dollars: Some(dollars), more: false }
    }
}

impl Cost {
    /// Returns the dollars of what has a price.
    pub fn dollars(self) -> Option<f64> {
        self.dollars
    }

    /// Returns whether any of it has a price.
    pub fn is_known(self) -> bool {
        self.dollars.is_some()
    }
}

impl std::iter::Sum for Cost {
    fn sum<I: Iterator<Item = Self>>(costs: I) -> Self {
        costs.fold(Self::default(), |all, cost| Self {
            dollars: match (all.dollars, cost.dollars) {
                (Some(all), Some(dollars)) => Some(all + dollars),
                (all, dollars) => all.or(dollars),
            },
            more: all.more || cost.more,
        })
    }
}

/// `$1.25`, `$0.0031`; `over $1.25` where some of it has no price; nothing where all of it has none.
impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(dollars) = self.dollars else { return Ok(()) };
        let over = if self.more { "over " } else { "" };
        let digits = if dollars == 0.0 || dollars >= 0.995 { 2 } else { 4 };
        write!(f, "{over}${dollars:.digits$}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::PerMillion;

    fn price(input: f64, cached: Option<f64>, output: f64) -> Price {
        let of = |dollars| PerMillion::try_from(dollars).unwrap();
        Price { input: of(input), cached: cached.map(of), output: of(output) }
    }

    #[test]
    fn a_cost_is_told_with_what_is_not_known_of_it() {
        let prices = Prices::new([
            ("dear".to_owned(), price(3.0, Some(0.3), 15.0)),
            ("cheap".to_owned(), price(0.1, None, 0.4)),
            ("free".to_owned(), price(0.0, None, 0.0)),
        ]);
        let tokens = |input, cached, output| Tokens { input, cached, output };
        let told = |costs: &[(&str, Tokens)]| {
            costs.iter().map(|(model, tokens)| prices.cost(model, *tokens)).sum::<Cost>().to_string()
        };
        // 200k at 3, 800k at 0.3, 100k at 15.
        assert_eq!(told(&[("dear", tokens(1_000_000, 800_000, 100_000))]), "$2.34");
        assert_eq!(
            told(&[("cheap", tokens(10_000, 5_000, 1_000))]),
            "$0.0014",
            "without its own price, cached is input"
        );
        assert_eq!(told(&[("free", tokens(10, 0, 10))]), "$0.00");
        assert_eq!(told(&[("dear", tokens(1_000_000, 0, 0)), ("own", tokens(1, 0, 0))]), "over $3.00");
        assert_eq!(told(&[("own", tokens(1, 0, 0))]), "");
        assert_eq!(told(&[("dear", tokens(1_000_000, 0, 0)), ("own", tokens(0, 0, 0))]), "$3.00", "nothing is free");
        assert_eq!(told(&[]), "");
        // A provider that tells more cached tokens than there are.
        assert_eq!(told(&[("dear", tokens(1_000_000, u64::MAX, 0))]), "$0.3000");
    }
}
