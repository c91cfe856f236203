//! The coding agents' profiles: those that ship with the server, one file each in `profiles/`, and those of the operator.
//!
//! Called by `ops`, which says what is wrong with the operator's.

use std::{collections::BTreeMap, sync::Arc};

use super::agent::CodingAgent;

/// What ships, by the name under which settings choose it. Of these the image has the first two.
const OWN: [(&str, &str); 5] = [
    ("gemini", include_str!("profiles/gemini.toml")),
    ("qwen", include_str!("profiles/qwen.toml")),
    ("claude", include_str!("profiles/claude.toml")),
    ("codex", include_str!("profiles/codex.toml")),
    ("opencode", include_str!("profiles/opencode.toml")),
];

/// All profiles, by name. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Profiles(Arc<BTreeMap<String, Arc<CodingAgent>>>);

/// Why a profile of the operator's cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadProfile(String);

impl Profiles {
    /// Puts those of the operator, each a name with what stands below it, beside those that ship, or in their place. One in
    /// which something is wrong ([`Profiles::check`]) is left out.
    pub fn new<'a>(more: impl Iterator<Item = (&'a str, &'a toml::Table)>) -> Self {
        let own = OWN.into_iter().filter_map(|(name, text)| Some((name, text.parse::<toml::Table>().ok()?)));
        let more = more.map(|(name, table)| (name, table.clone()));
        let read = |(name, table): (&str, _)| Some((name.to_owned(), Arc::new(CodingAgent::read(table).ok()?)));
        Self(Arc::new(own.filter_map(read).chain(more.filter_map(read)).collect()))
    }

    /// Says what is wrong with a profile.
    pub fn check(profile: &toml::Table) -> Result<(), BadProfile> {
        CodingAgent::read(profile.clone()).map(drop)
    }

    /// Returns a profile by the name under which settings choose it.
    pub fn of(&self, name: &str) -> Option<&Arc<CodingAgent>> {
        self.0.get(name)
    }

    /// Returns the names.
    pub fn names(&self) -> Vec<&str> {
        self.0.keys().map(String::as_str).collect()
    }
}

impl CodingAgent {
    fn read(table: toml::Table) -> Result<Self, BadProfile> {
        // The parser's word without the text, in which a secret may stand.
        let agent: Self = table
            .try_into()
            .map_err(|error: toml::de::Error| BadProfile(crate::text::one_line(error.message(), 200)))?;
        agent.fault().map_or(Ok(agent), |fault| Err(BadProfile(fault)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ships_is_valid_and_an_operator_s_stands_beside_it_or_in_its_place() {
        let own = |name: &str| {
            let text = format!("name = '{name}'\nprogram = 'own'\nprotocol = 'openai'\nformat = 'claude'");
            text.parse::<toml::Table>().unwrap()
        };
        let (new, other, bad) = (own("Own"), own("Other"), own(""));
        let all = Profiles::new([("own", &new), ("codex", &other), ("bad", &bad)].into_iter());
        assert_eq!(all.names(), ["claude", "codex", "gemini", "opencode", "own", "qwen"]);
        assert_eq!((&*all.of("own").unwrap().name, &*all.of("codex").unwrap().name), ("Own", "Other"));
    }

    #[test]
    fn what_is_wrong_with_one_is_told() {
        let base = "name = \"Own\"\nprogram = \"own\"\nprotocol = \"openai\"\nformat = \"claude\"\n";
        for (text, says) in [
            ("name = \"Own\"", "missing field `program`"),
            (&*format!("{base}colour = \"stdin\""), "unknown field `colour`"),
            (&base.replace("openai", "open-ai"), "unknown variant `open-ai`"),
            (&base.replace("\"own\"", "\"/bin/own it\""), "program"),
            (&format!("{base}[exit]\nsoon = \"x\""), "exit"),
        ] {
            let why = Profiles::check(&text.parse().unwrap()).unwrap_err().to_string();
            assert!(why.contains(says), "{says:?} is not in {why:?}");
        }
    }
}
