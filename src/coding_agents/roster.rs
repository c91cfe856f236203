//! Which agent serves which role, with which model.
//!
//! Called by `ops`, which makes it from the settings, and by `tools`.

use super::{
    agent::{CodingAgent, Role},
    gemini::GEMINI,
    qwen::QWEN,
};
use crate::{
    config::{AgentCli, AgentRole, Agents},
    gateway::models::Protocol,
};

/// An agent in a role.
#[derive(Clone, Debug)]
pub struct Assigned {
    /// The agent.
    pub agent: &'static CodingAgent,
    /// Its model, as the door to models knows it; `None`: there is none that it could ask.
    pub model: Option<String>,
    /// The agent that was to serve the role, if this one stands in for it.
    pub instead_of: Option<&'static str>,
}

/// Who serves which role.
#[derive(Clone, Debug)]
pub struct Roster {
    plan: Assigned,
    implement: Assigned,
    review: Assigned,
}

impl Roster {
    /// Returns who serves what by the settings. `models` are those that can be asked by a protocol, the usual one first.
    /// Where Gemini CLI has none, Qwen Code stands in for it.
    pub fn new(agents: &Agents, models: impl Fn(Protocol) -> Vec<String>) -> Self {
        let assigned = |role: &AgentRole| {
            let wanted = match role.cli {
                AgentCli::Gemini => &GEMINI,
                AgentCli::Qwen => &QWEN,
            };
            let usual = |agent: &CodingAgent| models(agent.protocol).into_iter().next();
            match usual(wanted) {
                None if role.cli == AgentCli::Gemini => {
                    // The model that was set is one for Gemini CLI.
                    Assigned { agent: &QWEN, model: usual(&QWEN), instead_of: Some(wanted.name) }
                }
                usual => Assigned {
                    agent: wanted,
                    model: usual.map(|usual| role.model.clone().unwrap_or(usual)),
                    instead_of: None,
                },
            }
        };
        Self { plan: assigned(&agents.plan), implement: assigned(&agents.implement), review: assigned(&agents.review) }
    }

    /// Returns who serves a role.
    pub fn of(&self, role: Role) -> &Assigned {
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

    fn role(cli: AgentCli, model: Option<&str>) -> AgentRole {
        AgentRole { cli, model: model.map(str::to_owned) }
    }

    fn told(agents: &Agents, gemini: &[&str], open_ai: &[&str]) -> Vec<String> {
        let list = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        let roster = Roster::new(agents, |protocol| match protocol {
            Protocol::Gemini => list(gemini),
            Protocol::OpenAi => list(open_ai),
        });
        let told = |role| {
            let it = roster.of(role);
            let instead = it.instead_of.map(|it| format!(" for {it}")).unwrap_or_default();
            format!("{role}: {} {}{instead}", it.agent.program, it.model.as_deref().unwrap_or("-"))
        };
        [Role::Plan, Role::Implement, Role::Review].map(told).to_vec()
    }

    #[test]
    fn each_role_has_its_agent_and_model() {
        let agents = Agents {
            plan: role(AgentCli::Gemini, Some("gemini-x")),
            implement: role(AgentCli::Qwen, None),
            review: role(AgentCli::Gemini, None),
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
        let other =
            Agents { implement: role(AgentCli::Qwen, Some("mine")), plan: role(AgentCli::Qwen, None), ..agents };
        assert_eq!(told(&other, &["pro"], &["coder"])[..2], ["plan: qwen coder", "implement: qwen mine"]);
    }
}
