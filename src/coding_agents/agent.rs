//! What a coding agent is: a profile of its CLI, and what it is started with.
//!
//! Another CLI is another profile (`profiles/`), the operator's own or one that ships. In its arguments and its environment
//! `{door}` stands for the address of the door to models, `{model}` for its model, `{session}` for its session's id and
//! `{key}` for what it shows at the door.

use std::{collections::BTreeMap, fmt};

use serde::Deserialize;

use super::{asking, stream::Dialect};
use crate::{gateway::models::Protocol, ids::digest, text};

/// Where sandboxd carries requests to models, from inside the sandbox. No slash at its end.
const MODEL_DOOR: &str = "http://127.0.0.1:3130";

/// The most bytes of a prompt that is an argument: the kernel takes no longer one.
const ARGUMENT: usize = 120 * 1024;
/// Characters of a name.
const NAME: usize = 40;

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

/// A coding agent's CLI, as its profile describes it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CodingAgent {
    /// As people call it.
    pub name: String,
    /// The program, as it is found on the `PATH` of the sandbox.
    pub program: String,
    /// How it speaks to its model.
    pub protocol: Protocol,
    /// How it writes what it does: where the room's progress and the result come from.
    #[serde(rename = "format")]
    pub(super) dialect: Dialect,
    /// How its prompt goes in. Its standard input is closed behind it in any case.
    #[serde(default)]
    pub prompt: PromptBy,
    /// What ends it.
    #[serde(default)]
    pub(super) end: End,
    /// Its arguments: those of every run, …
    #[serde(default)]
    arguments: Vec<String>,
    /// … of one that must not change files, …
    #[serde(default)]
    reads: Vec<String>,
    /// … or may, …
    #[serde(default)]
    writes: Vec<String>,
    /// … of one that begins a session, …
    #[serde(default)]
    begins: Vec<String>,
    /// … or goes on with one, …
    #[serde(default)]
    continues: Vec<String>,
    /// … of one that stays when it has answered ([`asking`]) and takes more on its standard input; none: it cannot, …
    #[serde(default)]
    stays: Vec<String>,
    /// … and what stands last.
    #[serde(default)]
    last: Vec<String>,
    /// What it needs in its environment.
    #[serde(default)]
    environment: BTreeMap<String, String>,
    /// What an exit code means beyond "it failed".
    #[serde(default)]
    exit: BTreeMap<String, String>,
}

/// How a prompt goes into a CLI.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PromptBy {
    /// On standard input, up to its end.
    #[default]
    Stdin,
    /// As the last argument.
    Argument,
}

/// What ends a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum End {
    /// It exits.
    #[default]
    Exit,
    /// It may stay although it has told its result: it is ended then, and the result counts.
    Result,
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
    /// Whether its process is one that stays: only where it can ([`CodingAgent::can_stay`]).
    pub stays: bool,
    /// What it shows at the door: good for this run only.
    pub key: &'a str,
}

impl CodingAgent {
    /// Returns the program and its arguments, and what goes into its standard input.
    pub fn command(&self, launch: &Launch<'_>, prompt: String) -> (Vec<String>, Option<String>) {
        let mode = if launch.role.may_write() { &self.writes } else { &self.reads };
        let session = match launch.session {
            Session::New(_) => &self.begins,
            Session::Continued(_) => &self.continues,
        };
        let stays = if launch.stays { &self.stays[..] } else { &[] };
        let arguments = [&self.arguments[..], mode, session, stays, &self.last].into_iter().flatten();
        let filled = arguments.map(|argument| launch.fill(argument));
        let mut command: Vec<_> = [self.program.clone()].into_iter().chain(filled).collect();
        match self.prompt {
            _ if launch.stays => (command, Some(asking::first(&prompt))),
            PromptBy::Stdin => (command, Some(prompt)),
            PromptBy::Argument => {
                command.push(text::cut_middle(&prompt, ARGUMENT));
                (command, None)
            }
        }
    }

    /// Tells whether its process can stay when it has answered, to be told and asked more.
    pub fn can_stay(&self) -> bool {
        !self.stays.is_empty()
    }

    /// Tells whether it can go on with a session.
    pub(super) fn goes_on(&self) -> bool {
        !self.continues.is_empty()
    }

    /// Returns what is put on top of the sandbox's own environment.
    pub fn environment(&self, launch: &Launch<'_>) -> Vec<(String, String)> {
        self.environment.iter().map(|(name, value)| (name.clone(), launch.fill(value.trim()))).collect()
    }

    /// Returns what an exit code means beyond "it failed".
    pub(super) fn means(&self, code: i32) -> Option<&str> {
        self.exit.get(&code.to_string()).map(String::as_str)
    }

    /// Returns what is wrong with a profile that can be read.
    pub(super) fn fault(&self) -> Option<String> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if self.program.is_empty() || self.program.starts_with('-') || !self.program.chars().all(plain) {
            return Some("program must be a name that is found on the PATH, such as `claude`".to_owned());
        }
        if self.name.trim().is_empty() || self.name.chars().count() > NAME || self.name.chars().any(char::is_control) {
            return Some(format!("name must be a name of at most {NAME} characters"));
        }
        if self.can_stay() && !matches!(self.dialect, Dialect::Qwen | Dialect::Claude) {
            return Some(
                "stays is for the formats `qwen` and `claude`, which take what they are asked line by line".to_owned(),
            );
        }
        let odd = self.exit.keys().find(|code| code.parse::<u8>().is_err());
        odd.map(|code| format!("exit has codes from 0 to 255, and `{}` is none", text::one_line(code, 20)))
    }
}

impl Launch<'_> {
    fn fill(&self, text: &str) -> String {
        // The model's name stands last: of all these it alone is text of somebody's.
        let parts =
            [("{door}", MODEL_DOOR), ("{key}", self.key), ("{session}", self.session.id()), ("{model}", self.model)];
        parts.iter().fold(text.to_owned(), |text, (name, value)| text.replace(name, value))
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
        let id = id.trim();
        let parts: Vec<_> = id.split('-').collect();
        let lengths: Vec<_> = parts.iter().map(|part| part.len()).collect();
        let is_hex = parts.iter().all(|part| part.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let is_uuid = is_hex && lengths == [8, 4, 4, 4, 12];
        // As opencode names them.
        let own = id.strip_prefix("ses_").filter(|own| (1..=60).contains(&own.len()));
        let is_own = own.is_some_and(|own| own.bytes().all(|byte| byte.is_ascii_alphanumeric()));
        (is_uuid || is_own).then(|| Self::Continued(id.to_owned()))
    }

    /// Returns its id.
    pub fn id(&self) -> &str {
        match self {
            Self::New(id) | Self::Continued(id) => id,
        }
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
    use crate::coding_agents::Profiles;

    #[test]
    fn a_session_is_named_after_the_call_that_begins_it() {
        let session = Session::of_call("1a2b-0-0");
        assert_eq!(session, Session::of_call("1a2b-0-0"));
        assert_ne!(session, Session::of_call("1a2b-1-0"));
        assert_eq!(
            Session::continued(&format!("{}\n", session.id())),
            Some(Session::Continued(session.id().to_owned()))
        );
        assert!(Session::continued("ses_dd6dccce6ffe8oMKngzrWbTgXb").is_some());
        for text in ["", "latest", "ses_", "ses_../x", "--yolo", "../../x", "12345678-1234-1234-1234-12345678901g"] {
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
        let profiles = Profiles::new([].into_iter());
        for agent in profiles.names().iter().filter_map(|name| profiles.of(name)) {
            for (role, session) in &cases {
                let launch = Launch { role: *role, model: "the-model", session, stays: false, key: "the-key" };
                let (command, stdin) = agent.command(&launch, "the prompt".to_owned());
                assert_eq!(stdin.as_deref(), Some("the prompt"));
                all.push(format!("{role}: {}", command.join(" ")));
                if agent.can_stay() {
                    let (command, _) = agent.command(&Launch { stays: true, ..launch }, String::new());
                    all.push(format!("{role}, to stay: {}", command.join(" ")));
                }
                all.extend(agent.environment(&launch).iter().map(|(name, value)| format!("    {name}={value}")));
            }
        }
        insta::assert_snapshot!(all.join("\n"));
    }
    #[test]
    fn a_prompt_may_be_an_argument_and_is_cut_to_what_the_kernel_takes() {
        let text =
            "name = 'X'\nprogram = 'x'\nprotocol = 'openai'\nformat = 'claude'\nprompt = 'argument'\nlast = ['--']";
        let table: toml::Table = text.parse().unwrap();
        let agent: CodingAgent = table.try_into().unwrap();
        let session = Session::New("new".to_owned());
        let launch = Launch { role: Role::Plan, model: "m", session: &session, stays: false, key: "k" };
        let (command, stdin) = agent.command(&launch, "x\n".repeat(100_000));
        assert_eq!((&command[..2], stdin), (&["x".to_owned(), "--".to_owned()][..], None));
        assert!(command[2].len() < 128 * 1024 && command.len() == 3, "{}", command[2].len());
    }
}
