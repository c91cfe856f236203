//! What a coding agent is: a description of its CLI, and what it is started with.
//!
//! Another CLI is another description beside `gemini.rs` and `qwen.rs`.

use std::fmt;

use super::stream::Dialect;
use crate::{gateway::models::Protocol, ids::digest};

/// Where sandboxd carries requests to models, from inside the sandbox. No slash at its end.
pub(super) const MODEL_DOOR: &str = "http://127.0.0.1:3130";

/// What a coding agent is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Say how a task is best done. Changes nothing.
    Plan,
    /// Do it.
    Implement,
    /// Say what is wrong with what was done. Changes nothing.
    Review,
}

impl Role {
    /// Returns the role as its tool is called.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Plan => "plan",
            Self::Implement => "implement",
            Self::Review => "review",
        }
    }

    /// Tells whether files may be changed in it.
    pub fn may_write(self) -> bool {
        self == Self::Implement
    }
}

/// A coding agent's CLI. It reads its prompt on standard input, until the end of that.
#[derive(Debug)]
pub struct CodingAgent {
    /// As people call it.
    pub name: &'static str,
    /// The program, as it is found on the `PATH` of the sandbox.
    pub program: &'static str,
    /// How it speaks to its model.
    pub protocol: Protocol,
    /// How it writes what it does.
    pub(super) dialect: Dialect,
    /// Its arguments.
    pub(super) arguments: fn(&Launch<'_>) -> Vec<String>,
    /// What it needs in its environment.
    pub(super) environment: fn(&Launch<'_>) -> Vec<(&'static str, String)>,
    /// What an exit code means beyond "it failed".
    pub(super) exit: fn(i32) -> Option<&'static str>,
}

/// What a run of an agent is started with.
#[derive(Clone, Copy, Debug)]
pub struct Launch<'a> {
    /// What it is to do.
    pub role: Role,
    /// The model, as the door to models knows it.
    pub model: &'a str,
    /// Its session.
    pub session: &'a Session,
    /// What it shows at the door: good for this run only.
    pub key: &'a str,
}

impl CodingAgent {
    /// Returns the program and its arguments.
    pub fn command(&self, launch: &Launch<'_>) -> Vec<String> {
        [self.program.to_owned()].into_iter().chain((self.arguments)(launch)).collect()
    }

    /// Returns what is put on top of the sandbox's own environment.
    pub fn environment(&self, launch: &Launch<'_>) -> Vec<(String, String)> {
        (self.environment)(launch).into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

/// A conversation of a CLI, which it keeps in the sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Session {
    /// One that begins, with this id.
    New(String),
    /// One that goes on.
    Continued(String),
}

impl Session {
    /// Returns a session that begins with a call, and is named after it.
    pub fn of_call(call: &str) -> Self {
        let mut id = digest(&["coding-agent-session", call], 16);
        // What makes it a UUID of random bits.
        id.replace_range(12..13, "4");
        id.replace_range(16..17, "a");
        Self::New(format!("{}-{}-{}-{}-{}", &id[..8], &id[8..12], &id[12..16], &id[16..20], &id[20..]))
    }

    /// Returns the session with this id, if it can be one: the text comes out of a sandbox.
    pub fn continued(id: &str) -> Option<Self> {
        let parts: Vec<_> = id.trim().split('-').collect();
        let lengths: Vec<_> = parts.iter().map(|part| part.len()).collect();
        let is_hex = parts.iter().all(|part| part.bytes().all(|byte| byte.is_ascii_hexdigit()));
        (is_hex && lengths == [8, 4, 4, 4, 12]).then(|| Self::Continued(id.trim().to_owned()))
    }

    /// Returns its id.
    pub fn id(&self) -> &str {
        match self {
            Self::New(id) | Self::Continued(id) => id,
        }
    }

    /// Returns it as an argument that Gemini CLI and Qwen Code take.
    pub(super) fn arguments(&self) -> [String; 2] {
        let flag = match self {
            Self::New(_) => "--session-id",
            Self::Continued(_) => "--resume",
        };
        [flag.to_owned(), self.id().to_owned()]
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coding_agents::{gemini::GEMINI, qwen::QWEN};

    #[test]
    fn a_session_is_named_after_the_call_that_begins_it() {
        let session = Session::of_call("1a2b-0-0");
        assert_eq!(session, Session::of_call("1a2b-0-0"));
        assert_ne!(session, Session::of_call("1a2b-1-0"));
        assert_eq!(
            Session::continued(&format!("{}\n", session.id())),
            Some(Session::Continued(session.id().to_owned()))
        );
        for text in ["", "latest", "--yolo", "../../x", "12345678-1234-1234-1234-12345678901g"] {
            assert_eq!(Session::continued(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_started_is_settled() {
        let cases = [
            (Role::Plan, Session::New("new".to_owned())),
            (Role::Implement, Session::Continued("old".to_owned())),
            (Role::Review, Session::New("new".to_owned())),
        ];
        let mut all = Vec::new();
        for agent in [&GEMINI, &QWEN] {
            for (role, session) in &cases {
                let launch = Launch { role: *role, model: "the-model", session, key: "the-key" };
                all.push(format!("{role}: {}", agent.command(&launch).join(" ")));
                all.extend(agent.environment(&launch).iter().map(|(name, value)| format!("    {name}={value}")));
            }
        }
        insta::assert_snapshot!(all.join("\n"));
    }
}
