//! What the room is shown of a run while it works.

use tokio::time::Instant;

use super::{Run, WIDTH};
use crate::{coding_agents::stream::StepState, strings, text};

impl Run {
    /// Returns what the room is shown: a line with the agent, what it does, time and tokens; below it its todo list, if
    /// it has one.
    pub fn lines(&self, now: Instant) -> String {
        let tokens = self.tokens().total();
        let doing = match &self.refused {
            Some((_, cause)) => format!("its model refuses: {cause}"),
            None if self.doing.is_empty() => "begins".to_owned(),
            None => self.doing.clone(),
        };
        let word = if self.word.is_some() && self.works() {
            [" · ", strings::agents::TOLD_NEXT].concat()
        } else {
            String::new()
        };
        let time = text::stopwatch(now.duration_since(self.begun));
        let mut line = format!("{} · {doing}{word} · {time}", self.agent.name);
        if tokens > 0 {
            line.extend([" · ", &text::short(tokens), " tokens"]);
        }
        if !self.todo.is_empty() {
            line.extend(["\n", &self.steps()]);
        }
        line
    }

    /// Returns the todo list from where it stands, on one line.
    fn steps(&self) -> String {
        let closed = self.todo.iter().filter(|step| step.state == StepState::Closed).count();
        let open = self.todo.iter().filter(|step| step.state != StepState::Closed);
        let open = open.map(|step| format!("{} {}", if step.state == StepState::Doing { '▸' } else { '☐' }, step.text));
        let line: Vec<_> = [format!("{closed}/{}", self.todo.len())].into_iter().chain(open).collect();
        text::one_line(&line.join(" "), WIDTH)
    }
}
