//! Which agent serves which role, with which model.
//!
//! Called by `ops`, which makes it from the settings, and by `tools`.

use std::sync::Arc;

use super::{
    agent::{CodingAgent, Role},
    profiles::Profiles,
};
use crate::{
    config::{AgentChoice, AgentRole, Agents},
    gateway::models::Protocol,
};

/// Whose place may be taken where it has no model, and who takes it.
const ABSENT: &str = "gemini";
const STAND_IN: &str = "qwen";

/// An agent in a role.
#[derive(Clone, Debug)]
pub struct Assigned {
    /// The agent.
    pub agent: Arc<CodingAgent>,
    /// Its model, as the door to models knows it; `None`: there is none that it could ask.
    pub model: Option<String>,
    /// The agent that was to serve the role, if this one stands in for it.
    pub instead_of: Option<String>,
}

/// Who serves which role, and who goes on where that one could not.
#[derive(Clone, Debug)]
pub struct Roster {
    plan: Vec<Assigned>,
    implement: Vec<Assigned>,
    review: Vec<Assigned>,
}

impl Roster {
    /// Returns who serves what by the settings. `models` are those that can be asked by a protocol, the usual one first.
    /// Where Gemini CLI has none, Qwen Code stands in for it; of those that go on, whoever has none is left out, and
    /// whoever was tried with the same model.
    /// An agent without a profile is none: the settings were refused.
    pub fn new(agents: &Agents, profiles: &Profiles, models: impl Fn(Protocol) -> Vec<String>) -> Self {
        let usual = |agent: &CodingAgent| models(agent.protocol).into_iter().next();
        let assigned = |choice: &AgentChoice| {
            let agent = Arc::clone(profiles.of(&choice.agent)?);
            let model = usual(&agent).map(|usual| choice.model.clone().unwrap_or(usual));
            Some(Assigned { agent, model, instead_of: None })
        };
        let line = |role: &AgentRole| {
            let first = assigned(&role.first).map(|first| match profiles.of(STAND_IN) {
                Some(other) if first.model.is_none() && role.first.agent == ABSENT => {
                    // The model that was set is one for the absent one.
                    Assigned {
                        agent: Arc::clone(other),
                        model: usual(other),
                        instead_of: Some(first.agent.name.clone()),
                    }
                }
                _ => first,
            });
            let mut line: Vec<Assigned> = first.into_iter().collect();
            for next in role.fallback.iter().filter_map(assigned).filter(|next| next.model.is_some()) {
                if !line.iter().any(|it| it.agent.program == next.agent.program && it.model == next.model) {
                    line.push(next);
                }
            }
            line
        };
        Self { plan: line(&agents.plan), implement: line(&agents.implement), review: line(&agents.review) }
    }

    /// Returns who serves a role, in the order in which they are tried.
    pub fn of(&self, role: Role) -> &[Assigned] {
        match role {
            Role::Plan => &self.plan,
            Role::Implement => &self.implement,
            Role::Review => &self.review,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choice(agent: &str, model: Option<&str>) -> AgentChoice {
        AgentChoice { agent: agent.to_owned(), model: model.map(str::to_owned) }
    }

    fn role(agent: &str, model: Option<&str>) -> AgentRole {
        AgentRole { first: choice(agent, model), fallback: Vec::new() }
    }

    fn told(agents: &Agents, gemini: &[&str], open_ai: &[&str]) -> Vec<String> {
        let list = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        let roster = Roster::new(agents, &Profiles::new([].into_iter()), |protocol| match protocol {
            Protocol::Gemini => list(gemini),
            Protocol::OpenAi => list(open_ai),
            Protocol::Responses | Protocol::Messages => list(&["own"]),
        });
        let one = |it: &Assigned| {
            let instead = it.instead_of.as_ref().map(|it| format!(" for {it}")).unwrap_or_default();
            format!("{} {}{instead}", it.agent.program, it.model.as_deref().unwrap_or("-"))
        };
        let told = |role| format!("{role}: {}", roster.of(role).iter().map(one).collect::<Vec<_>>().join(", "));
        [Role::Plan, Role::Implement, Role::Review].map(told).to_vec()
    }

    #[test]
    fn each_role_has_its_agent_and_model() {
        let agents = Agents {
            plan: role("gemini", Some("gemini-x")),
            implement: role("qwen", None),
            review: role("gemini", None),
        };
        assert_eq!(
            told(&agents, &["pro", "flash"], &["coder", "own"]),
            ["plan: gemini gemini-x", "implement: qwen coder", "review: gemini pro"]
        );
        assert_eq!(
            told(&agents, &[], &["own"]),
            ["plan: qwen own for Gemini CLI", "implement: qwen own", "review: qwen own for Gemini CLI"]
        );
        assert_eq!(told(&agents, &["pro"], &[])[1], "implement: qwen -");
        let other = Agents { implement: role("qwen", Some("mine")), plan: role("qwen", None), ..agents };
        assert_eq!(told(&other, &["pro"], &["coder"])[..2], ["plan: qwen coder", "implement: qwen mine"]);
    }

    #[test]
    fn whoever_goes_on_has_a_model_and_was_not_tried() {
        let after = |first, fallback: &[AgentChoice]| AgentRole { first, fallback: fallback.to_vec() };
        let (gemini, qwen) = (choice("gemini", None), choice("qwen", None));
        let flash = choice("qwen", Some("flash"));
        let agents = Agents {
            plan: after(gemini.clone(), &[qwen.clone(), gemini.clone()]),
            implement: after(qwen.clone(), &[flash.clone(), gemini.clone(), flash]),
            review: after(gemini, &[choice("codex", None), choice("nobody", None)]),
        };
        assert_eq!(
            told(&agents, &["pro"], &["coder"]),
            [
                "plan: gemini pro, qwen coder",
                "implement: qwen coder, qwen flash, gemini pro",
                "review: gemini pro, codex own"
            ]
        );
        assert_eq!(
            told(&agents, &[], &["coder"])[..2],
            ["plan: qwen coder for Gemini CLI", "implement: qwen coder, qwen flash"]
        );
    }
}
