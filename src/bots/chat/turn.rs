//! One turn of a chat bot: one request, one answer.

use std::time::Instant;

use super::{
    ChatBot, Ready, TurnJob, failure,
    history::{Cut, Transcript},
    line::{Counted, Line},
};
use crate::{
    bots::{Ending, Outcome},
    ids,
    llm::{Completion, Finish, LlmError, Message, Meter, Model, Part, Usage},
    store::{Conversation, StoreError},
    strings, text,
};

/// Tokens that are left for an answer without a limit of its own.
const ANSWER: u64 = 2_048;
/// Tokens that a request may have beyond what is counted.
const SPARE: u64 = 256;
/// The most bytes of a question; the middle of a longer one is left out.
const LONGEST: usize = 32 << 10;
/// Lines of a conversation beyond which the oldest are given up, and how many stay then.
const LINES: usize = 600;
const LINES_KEPT: usize = 300;
/// The most bytes of an answer.
const MOST: usize = 64 << 10;
/// Ends a question, for models that then leave out their thinking.
const NO_THINKING: &str = "/no_think";
/// What those models' names contain.
const CAN_LEAVE_IT: &[&str] = &["qwen", "deepseek-r1"];

impl ChatBot {
    /// Answers the open question of a conversation. Returns `None` if the conversation cannot be read; the turn stays open.
    pub(super) async fn answer(&self, job: TurnJob) -> Option<Outcome> {
        let transcript = match self.transcript(&job.at).await {
            Ok(transcript) => transcript,
            Err(error) => {
                tracing::error!(%error, "a conversation cannot be read");
                return None;
            }
        };
        log_question(&transcript.question);
        let stop = job.stop.clone();
        let asked = stop.run_until_cancelled(self.ask(&job, &transcript)).await;
        let thread = transcript.thread.clone();
        let mut outcome = asked.unwrap_or_else(|| Outcome::plain(Ending::Stopped, strings::chat::STOPPED));
        outcome.line = outcome.line.or_else(|| Some(Line::Void { thread }.to_json()));
        Some(outcome)
    }

    async fn ask(&self, job: &TurnJob, transcript: &Transcript) -> Outcome {
        let Ready { model, label, guard: _guard } = match self.source.ready(&|_| {}).await {
            Ok(ready) => ready,
            Err(refused) => return Outcome::plain(Ending::Failed, refused.0),
        };
        let Cut { mut messages, guessed } = self.request(transcript, &model);
        self.hang_up(&job.at.address, &mut messages).await;
        let (begun, meter) = (Instant::now(), Meter::new(guessed));
        let completion = model.complete(&messages, &[], self.settings.max_tokens, &meter, &mut |_| {}).await;
        match completion {
            Ok(completion) => answered(completion, transcript, guessed, &footer(&label, begun)),
            Err(error) => {
                tracing::warn!(model = model.name(), %error, "the model gave no answer");
                failed(&error)
            }
        }
    }

    /// Reads a conversation, and gives up its oldest lines if there are too many.
    async fn transcript(&self, at: &Conversation) -> Result<Transcript, StoreError> {
        let history = self.means.store.history(at).await?;
        if history.len() > LINES {
            let kept = history.iter().skip(history.len() - LINES_KEPT).map(|line| line.message.clone()).collect();
            self.means.store.replace_context(at, kept).await?;
        }
        let lines = history.into_iter().filter_map(|line| serde_json::from_value(line.message).ok());
        Ok(Transcript::of(lines.collect()))
    }

    fn request(&self, transcript: &Transcript, model: &Model) -> Cut {
        let answer = self.settings.max_tokens.unwrap_or(ANSWER);
        let room = model.context_window().saturating_sub(answer + SPARE);
        let mut cut = transcript.request(&self.settings.system_prompt, self.settings.history_turns, room);
        let name = model.name().to_lowercase();
        let Some(Message::User { parts }) = cut.messages.last_mut() else { return cut };
        for part in parts.iter_mut() {
            if let Part::Text { text } = part {
                *text = text::cut_middle(text, LONGEST);
            }
        }
        if self.settings.no_thinking && CAN_LEAVE_IT.iter().any(|known| name.contains(known)) {
            parts.push(Part::Text { text: NO_THINKING.to_owned() });
        }
        cut
    }
}

/// Logs that something was asked, in a way that does not tell what.
fn log_question(question: &[Part]) {
    let words: Vec<&str> = question
        .iter()
        .filter_map(|part| match part {
            Part::Text { text } => Some(text.as_str()),
            _ => None,
        })
        .collect();
    let length: usize = words.iter().map(|words| words.chars().count()).sum();
    tracing::info!(sha256 = ids::digest(&words, 6), length, "a question");
}

fn failed(error: &LlmError) -> Outcome {
    Outcome::plain(Ending::Failed, failure::told(error))
}

fn answered(
    completion: Completion,
    transcript: &Transcript,
    guessed: u64,
    footer: &dyn Fn(Option<Usage>) -> String,
) -> Outcome {
    let Completion { message, finish, usage, reasoning } = completion;
    let thread = transcript.thread.clone();
    if message.text.is_empty() {
        let why = match finish {
            Finish::Filtered => strings::chat::FILTERED,
            _ if !reasoning.trim().is_empty() => strings::chat::ONLY_THOUGHT,
            _ => strings::chat::EMPTY,
        };
        return Outcome::plain(Ending::Failed, why);
    }
    if message.text.len() > MOST {
        return Outcome::plain(Ending::Failed, strings::chat::ENDLESS);
    }
    let mut text = message.text.clone();
    if finish == Finish::Length {
        text.push_str(strings::chat::CUT);
    }
    let counted = usage.map(|usage| Counted { guessed, told: usage.input });
    let line = Line::Answered { message, thread, counted }.to_json();
    Outcome { text, footer: footer(usage), brief: String::new(), ending: Ending::Done, line: Some(line) }
}

/// Returns what is written under an answer, once its tokens are known.
fn footer(label: &str, begun: Instant) -> impl Fn(Option<Usage>) -> String {
    move |usage| {
        let Some(usage) = usage else { return label.to_owned() };
        let seconds = begun.elapsed().as_secs_f64().max(0.001);
        strings::chat::footer(label, usage.output as f64 / seconds, usage.input, usage.input + usage.output)
    }
}
