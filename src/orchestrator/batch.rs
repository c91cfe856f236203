//! The calls of one message of the model: they are checked, get ids, are started in an order in which no writer runs
//! beside another call, and their results are gathered.
//!
//! Readers run side by side; a writer waits for all before it and holds up all after it. Results reach the model in the
//! order of the calls, whatever the order in which they ended. Knows no tool; called by the machine.

use serde_json::{Map, Value};

use crate::{
    ids::{CallId, TurnId, digest},
    llm::{AssistantMessage, Finish, Message, Part, ToolCall},
    text,
    tools::{self, Access, Word},
};

use super::{
    limits::{CALLS_AT_ONCE, CALLS_KEPT},
    line::{CallFacts, Line, Origin},
    words,
};

/// The most characters of the line that tells the room what a call does.
const DETAIL: usize = 100;

/// A tool as the machine needs to know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KnownTool {
    /// Its name.
    pub name: &'static str,
    /// How it may run.
    pub access: Access,
}

/// The result of a call.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct CallResult {
    /// The text for the model, already cut to size.
    pub text: String,
    /// Whether it did what was asked.
    pub ok: bool,
    /// The facts by which a later claim of "done" is checked.
    pub facts: CallFacts,
    /// Pictures for the model.
    pub pictures: Vec<Part>,
}

impl CallResult {
    /// Returns the answer to a call that did not run.
    pub(super) fn refused(text: impl Into<String>) -> Self {
        Self { text: text.into(), ..Self::default() }
    }
}

/// A call to be run now.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct CallToRun {
    /// Its id in the store and in the sandbox.
    pub id: CallId,
    /// The tool.
    pub name: String,
    /// The arguments: a JSON object.
    pub arguments: String,
    /// What it does, in one short line for the room: the command, the path.
    pub detail: String,
    /// Set when an intent is already stored: the sandbox's boot id at that time. Then the call is looked up, not run.
    pub resumed: Option<String>,
    /// The words of people that it had taken before the crash after which it is looked up.
    pub taken: Vec<Word>,
}

/// The calls of one message.
#[derive(Clone, Debug, Default)]
pub(super) struct Batch {
    pub(super) slots: Vec<Slot>,
    /// What people said and one of the calls took: the model is shown it after the results.
    pub(super) taken: Vec<Line>,
}

/// One call.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    pub(super) id: CallId,
    pub(super) call: ToolCall,
    pub(super) access: Access,
    pub(super) state: CallState,
    detail: String,
}

#[derive(Clone, Debug)]
pub(super) enum CallState {
    Waiting,
    Running,
    Done { result: CallResult, ran: bool },
}

/// Makes a message fit to be stored and sent back: unique, well-formed ids and names, arguments that are objects, not
/// more calls than anybody needs. Strict providers reject every later request for one malformed call in the history.
/// Returns, for each call left, why it must not run.
pub(super) fn vet(message: &mut AssistantMessage, finish: Finish) -> Vec<Option<String>> {
    message.calls.truncate(CALLS_KEPT);
    let mut refusals = Vec::with_capacity(message.calls.len());
    for index in 0..message.calls.len() {
        let (before, rest) = message.calls.split_at_mut(index);
        let call = &mut rest[0];
        if call.id.is_empty() {
            call.id = format!("call_{index}");
        }
        while before.iter().any(|other| other.id == call.id) {
            call.id = format!("{}_{index}", call.id);
        }
        let tools::Call { tool, arguments, refusal } = tools::read_call(&call.name, &call.arguments);
        refusals.push(if finish == Finish::Length {
            Some(words::CALL_CUT_OFF.to_owned())
        } else if index >= CALLS_AT_ONCE {
            Some(words::too_many_calls())
        } else {
            refusal
        });
        call.arguments = arguments
            .unwrap_or_else(|| serde_json::json!({ "unparsed": text::cut_middle(&call.arguments, 200) }).to_string());
        call.name = tool.map_or_else(|| well_formed(&call.name), str::to_owned);
    }
    refusals
}

/// Returns the name of an unknown tool in a form that providers accept: at most 64 letters, digits, `_` and `-`.
fn well_formed(name: &str) -> String {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let name: String = name.chars().take(64).map(|c| if fits(c) { c } else { '_' }).collect();
    if name.is_empty() { "unknown".to_owned() } else { name }
}

/// Returns what a call does in one short line without control characters.
fn detail(arguments: &str) -> String {
    let Ok(arguments) = serde_json::from_str::<Map<String, Value>>(arguments) else { return String::new() };
    let value =
        ["command", "path", "url", "port", "job", "id", "task", "focus"].iter().find_map(|key| arguments.get(*key));
    match value {
        Some(Value::String(text)) => text::one_line(text, DETAIL),
        Some(Value::Number(number)) => number.to_string(),
        _ => String::new(),
    }
}

/// Returns the ids of a message's calls, `round` being its number in the turn: unique in the store, the same after a
/// restart, and fit to name a command.
pub(super) fn ids(turn: &TurnId, round: u32, calls: usize) -> Vec<CallId> {
    let turn = digest(&[turn.as_str()], 8);
    (0..calls).map(|index| CallId(format!("{turn}-{round}-{index}"))).collect()
}

impl Batch {
    /// Takes up the calls of a message; `refused` tells for each why it must not run.
    pub(super) fn new(
        message: &AssistantMessage,
        ids: &[CallId],
        refused: &[Option<String>],
        tools: &[KnownTool],
    ) -> Self {
        let slots = message.calls.iter().zip(ids).enumerate().map(|(index, (call, id))| Slot {
            id: id.clone(),
            access: tools.iter().find(|tool| tool.name == call.name).map_or(Access::Exclusive, |tool| tool.access),
            detail: detail(&call.arguments),
            call: call.clone(),
            state: match refused.get(index) {
                Some(Some(why)) => CallState::Done { result: CallResult::refused(why), ran: false },
                _ => CallState::Waiting,
            },
        });
        Self { slots: slots.collect(), taken: vec![] }
    }

    /// Returns the slot of a call that has no result yet.
    pub(super) fn open(&mut self, id: &CallId) -> Option<&mut Slot> {
        self.slots.iter_mut().find(|slot| slot.id == *id && !matches!(slot.state, CallState::Done { .. }))
    }

    /// Returns whether a call runs.
    pub(super) fn runs(&self, id: &CallId) -> bool {
        self.slots.iter().any(|slot| slot.id == *id && matches!(slot.state, CallState::Running))
    }

    /// Returns what a call has taken of what people said.
    pub(super) fn taken_by(&self, id: &CallId) -> Vec<Word> {
        let own = |line: &&Line| matches!(&line.origin, Origin::Person { taken_by: Some(call), .. } if call == id);
        self.taken.iter().filter(own).filter_map(Line::word).collect()
    }

    /// Returns whether every call has its result.
    pub(super) fn is_complete(&self) -> bool {
        self.slots.iter().all(|slot| matches!(slot.state, CallState::Done { .. }))
    }

    /// Marks the next call that may start as running and returns it.
    pub(super) fn start_next(&mut self) -> Option<&mut Slot> {
        let mut earlier = false;
        for index in 0..self.slots.len() {
            let slot = &self.slots[index];
            match (&slot.state, slot.access) {
                (CallState::Done { .. }, _) => {}
                (CallState::Waiting, Access::Exclusive) if earlier => return None,
                (CallState::Waiting, _) => {
                    let slot = &mut self.slots[index];
                    slot.state = CallState::Running;
                    return Some(slot);
                }
                (CallState::Running, Access::Exclusive) => return None,
                (CallState::Running, Access::Shared) => earlier = true,
            }
        }
        None
    }
}

impl Slot {
    /// Gives the call its result and returns the line that stores it.
    pub(super) fn end(&mut self, result: CallResult, ran: bool) -> Line {
        let line = Line {
            message: Message::Tool { call_id: self.call.id.clone(), text: result.text.clone() },
            origin: Origin::Result {
                call: self.id.clone(),
                ran,
                ok: result.ok,
                facts: result.facts.clone(),
                pictures: result.pictures.clone(),
            },
        };
        self.state = CallState::Done { result, ran };
        line
    }

    /// Returns what the model is shown of the result: the model's id of the call, the text, and where it came from;
    /// `None` while the call has no result.
    pub(super) fn into_result(self) -> Option<(String, String, Origin)> {
        let CallState::Done { result: CallResult { text, ok, facts, pictures }, ran } = self.state else { return None };
        Some((self.call.id, text, Origin::Result { call: self.id, ran, ok, facts, pictures }))
    }

    /// Returns the order to run it.
    pub(super) fn to_run(&self, resumed: Option<String>) -> CallToRun {
        CallToRun {
            id: self.id.clone(),
            name: self.call.name.clone(),
            arguments: self.call.arguments.clone(),
            detail: self.detail.clone(),
            resumed,
            taken: vec![],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOOLS: &[KnownTool] = &[
        KnownTool { name: "read_file", access: Access::Shared },
        KnownTool { name: "run_command", access: Access::Exclusive },
    ];

    fn message(calls: &[(&str, &str, &str)]) -> AssistantMessage {
        let calls = calls.iter().map(|(id, name, arguments)| ToolCall {
            id: (*id).into(),
            name: (*name).into(),
            arguments: (*arguments).into(),
            extra: None,
        });
        AssistantMessage { calls: calls.collect(), ..AssistantMessage::default() }
    }

    #[test]
    fn calls_that_cannot_run_are_refused_with_the_next_step_and_stored_well_formed() {
        let mut message = message(&[
            ("a", "read_file", r#"{"path":"x"}"#),
            ("a", "run_command", r#"{"command": "ls"#),
            ("", "run_command", "[1]"),
            ("b", "no such\ntool", "{}"),
            ("c", "read_file", " "),
            ("d", "functions.run_command", r#"{}{"command":"ls"}"#),
        ]);
        let refusals = vet(&mut message, Finish::ToolCalls);
        insta::assert_json_snapshot!(refusals, @r#"
        [
          null,
          "Not run: the arguments of run_command are no JSON object (EOF while parsing a string at line 1 column 15). They seem to be cut off: write long texts in several smaller calls. Send one, for example {\"command\":\"ls -la\"}",
          "Not run: the arguments of run_command are no JSON object (it is some other JSON value). Send one, for example {\"command\":\"ls -la\"}",
          "Not run: there is no tool `no such tool`. The tools are: run_command, read_file, write_file, edit_file, run_tests, take_screenshot, send_file, plan, implement, review, github, self_update.",
          null,
          null
        ]
        "#);
        let stored: Vec<_> =
            message.calls.iter().map(|c| (c.id.as_str(), c.name.as_str(), c.arguments.as_str())).collect();
        assert_eq!(
            stored,
            [
                ("a", "read_file", r#"{"path":"x"}"#),
                ("a_1", "run_command", r#"{"unparsed":"{\"command\": \"ls"}"#),
                ("call_2", "run_command", r#"{"unparsed":"[1]"}"#),
                ("b", "no_such_tool", "{}"),
                ("c", "read_file", "{}"),
                ("d", "run_command", r#"{"command":"ls"}"#),
            ]
        );
    }

    #[test]
    fn fifty_calls_are_answered_but_sixteen_run_and_a_thousand_are_cut() {
        let fifty = vec![("x", "read_file", "{}"); 50];
        let refusals = vet(&mut message(&fifty), Finish::ToolCalls);
        assert_eq!(refusals.iter().filter(|refusal| refusal.is_none()).count(), 16);
        let mut thousand = message(&vec![("x", "read_file", "{}"); 1000]);
        assert_eq!(vet(&mut thousand, Finish::ToolCalls).len(), 64);
        assert_eq!(thousand.calls.len(), 64);
    }

    #[test]
    fn readers_share_and_a_writer_is_alone_and_in_order() {
        let calls: Vec<_> = "rrwrw".chars().map(|c| if c == 'r' { "read_file" } else { "run_command" }).collect();
        let calls: Vec<_> = calls.iter().map(|name| ("x", *name, "{}")).collect();
        let mut batch = Batch::new(&message(&calls), &ids(&"t".into(), 1, 5), &[], TOOLS);
        let mut waves = vec![];
        while !batch.is_complete() {
            let mut wave = vec![];
            while let Some(slot) = batch.start_next() {
                wave.push(slot.id.as_str().rsplit_once('-').unwrap().1.to_owned());
            }
            // The calls of a wave end one by one, the last first: a writer must wait for all readers before it.
            for index in wave.iter().rev() {
                batch.slots[index.parse::<usize>().unwrap()].state =
                    CallState::Done { result: CallResult::default(), ran: true };
                if index != &wave[0] {
                    assert!(batch.start_next().is_none());
                }
            }
            waves.push(wave.join(""));
        }
        assert_eq!(waves, ["01", "2", "3", "4"]);
    }

    #[test]
    fn the_detail_of_a_call_is_one_clean_line() {
        assert_eq!(detail(r#"{"command":"cargo test\nrm x"}"#), "cargo test rm x");
        assert_eq!(detail("{\"path\":\"a\\u001b[31mb\"}"), "ab");
        assert_eq!(detail(r#"{"content":"secret"}"#), "");
        assert_eq!(detail(&format!(r#"{{"command":"{}"}}"#, "é".repeat(200))).chars().count(), 100);
    }
}
