//! One turn of a chat bot: one request, one answer.

use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::{
    ChatBot, Ready, Settings, Thinking, TurnJob, failure,
    guard::{Lately, Pass},
    history::{Cut, Transcript},
    line::{Counted, Line},
};
use crate::{
    bots::{Ending, Outcome, Progress, Thoughts},
    ids::{self, Address},
    llm::{AssistantMessage, Chunk, Completion, Finish, Message, Meter, Model, Part, Usage},
    metrics::{self, Use},
    store::{Conversation, MayAsk, Span, StoreError},
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

/// The most bytes of an answer that are shown before it is whole, and how often at most.
const SHOWN: usize = 16 << 10;
const SHOW_EVERY: Duration = Duration::from_millis(50);

/// How far the answer to a question may go: as its mode says, or the bot's settings.
#[derive(Clone, Copy, Debug)]
struct Limits {
    tokens: Option<u64>,
    turns: usize,
    no_thinking: bool,
    time: Option<Duration>,
}

/// The answer so far.
type Draft = watch::Sender<String>;

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
        let draft = Draft::default();
        let asked = job.stop.run_until_cancelled(self.ask(&job, &transcript, &draft)).await;
        let mut outcome = asked.unwrap_or_else(|| stopped(&draft.borrow()));
        outcome.line = outcome.line.or_else(|| Some(Line::Void { thread: transcript.thread }.to_json()));
        Some(outcome)
    }

    /// Asks the model, unless something speaks against it.
    async fn ask(&self, job: &TurnJob, transcript: &Transcript, draft: &Draft) -> Outcome {
        let (settings, store) = (&self.settings, &self.means.store);
        match self.pass(job).await {
            Err(error) => tracing::warn!(%error, "what was answered here lately is not known"),
            Ok(Pass::Answer) => {}
            Ok(Pass::Tell) => {
                tracing::warn!(
                    "programs seem to answer each other here: nothing is answered until a listed person asks"
                );
                return Outcome::plain(Ending::Limit, strings::chat::LOOP);
            }
            Ok(Pass::Silent) => return Outcome::plain(Ending::Limit, ""),
        }
        let asked = store.ask(&settings.quota, &job.person, settings.ceilings, settings.ceilings_of_person).await;
        let id = match asked {
            Ok(MayAsk::Yes { id }) => id,
            Ok(MayAsk::No { span, most, own, wait }) => {
                let wait = text::human_duration(Duration::from_millis(wait.unsigned_abs()).max(Duration::from_secs(1)));
                let span = match span {
                    Span::Minute => strings::chat::A_MINUTE,
                    Span::Day => strings::chat::A_DAY,
                };
                return Outcome::plain(Ending::Limit, strings::chat::ceiling(most, span, own, &wait));
            }
            Err(error) => {
                tracing::error!(%error, "how often the model was asked cannot be counted");
                return Outcome::plain(Ending::Failed, strings::chat::UNCOUNTED);
            }
        };
        let outcome = self.ask_model(job, transcript, draft).await;
        if outcome.ending == Ending::Failed
            && let Err(error) = store.ask_failed(id).await
        {
            tracing::warn!(%error, "a request that failed still counts for the day");
        }
        outcome
    }

    /// Returns whether a question is answered, after what was answered in its room lately.
    async fn pass(&self, job: &TurnJob) -> Result<Pass, StoreError> {
        let (Settings { name, listed, .. }, store) = (&self.settings, &self.means.store);
        let Address { account, room } = &job.at.address;
        let key = format!("lately:{name}:{room}");
        let noted = store.noted(account, &key).await?;
        let before: Lately = noted.and_then(|noted| serde_json::from_str(&noted).ok()).unwrap_or_default();
        let mut lately = before.clone();
        let pass = lately.pass(listed.include(&job.person), store.lasting().now());
        if lately != before {
            store.note(account, &key, &serde_json::to_string(&lately)?).await?;
        }
        Ok(pass)
    }

    async fn ask_model(&self, job: &TurnJob, transcript: &Transcript, draft: &Draft) -> Outcome {
        // From here on the room sees the answer as it comes, and before it that the model thinks.
        let _ = job.progress.send(Progress::Draft(String::new())).await;
        // A sentence that nobody takes is of no use later.
        let tell = |sentence: String| drop(job.progress.try_send(Progress::Notice(sentence)));
        let Ready { model, label, guard: _guard } = match self.source.ready(&tell).await {
            Ok(ready) => ready,
            Err(refused) => return Outcome::plain(Ending::Failed, refused.0),
        };
        let limits = self.limits(transcript.mode.as_deref());
        let Cut { mut messages, guessed } = self.request(transcript, &model, limits);
        self.hang_up(&job.at.address, &mut messages).await;
        let (meter, mut first) = (Meter::new(guessed), None);
        let mut on_chunk = |chunk| {
            first.get_or_insert_with(Instant::now);
            match chunk {
                Chunk::Text(piece) => draft.send_modify(|text| text.push_str(&piece)),
                Chunk::Restart => draft.send_modify(String::clear),
                Chunk::Reasoning | Chunk::CallStarted(_) => {}
            }
        };
        let completion = {
            let asking = model.complete(&messages, &[], limits.tokens, &meter, &mut on_chunk);
            let showing = show(draft.subscribe(), job);
            tokio::select! {
                completion = asking => completion,
                () = showing => return Outcome::plain(Ending::Failed, strings::chat::ENDLESS),
                // Whatever the server is told of limits: some count only from a line's end, some not at all.
                limit = overdue(limits.time) => {
                    let limit = text::human_duration(limit);
                    let (behind, alone) = (strings::chat::cut_off(&limit), strings::chat::no_time(&limit));
                    let why = Unfinished { behind: &behind, alone: &alone, ending: Ending::Done };
                    return unfinished(&draft.borrow(), why, transcript, model.name());
                }
            }
        };
        match completion {
            Ok(completion) => {
                self.count(&model, completion.usage);
                self.answered(completion, transcript, guessed, &label, first)
            }
            Err(error) => {
                tracing::warn!(model = model.name(), %error, "the model gave no answer");
                let why = failure::told(&error);
                let why = Unfinished { behind: &why, alone: &why, ending: Ending::Failed };
                unfinished(&draft.borrow(), why, transcript, model.name())
            }
        }
    }

    /// Counts the tokens of a request, which cost nobody a budget.
    fn count(&self, model: &Model, usage: Option<Usage>) {
        if let Some(Usage { input, cached, output }) = usage {
            let agent = self.settings.name.as_str();
            metrics::used(Use { agent, model: model.name(), input, cached, output, cost: None });
        }
    }

    fn answered(
        &self,
        completion: Completion,
        transcript: &Transcript,
        guessed: u64,
        label: &str,
        first: Option<Instant>,
    ) -> Outcome {
        let Completion { message, finish, usage, reasoning } = completion;
        let has_thought = !reasoning.trim().is_empty();
        let thoughts = match self.settings.thinking {
            Thinking::Hidden => None,
            shown => Some(Thoughts { text: reasoning, folded: shown == Thinking::Folded }),
        };
        let thoughts = thoughts.filter(|_| has_thought);
        if message.text.is_empty() {
            let why = match finish {
                Finish::Filtered => strings::chat::FILTERED,
                Finish::Length => strings::chat::USED_UP,
                _ if has_thought => strings::chat::ONLY_THOUGHT,
                _ => strings::chat::EMPTY,
            };
            return Outcome { thoughts, ..Outcome::plain(Ending::Failed, why) };
        }
        if message.text.len() > MOST {
            return Outcome::plain(Ending::Failed, strings::chat::ENDLESS);
        }
        let mut text = message.text.clone();
        if finish == Finish::Length {
            text.push_str(strings::chat::CUT);
        }
        let footer = usage.map_or_else(|| label.to_owned(), |usage| footer(label, usage, first));
        let counted = usage.map(|usage| Counted { guessed, told: usage.input });
        let line = Line::Answered { message, thread: transcript.thread.clone(), counted };
        Outcome { footer, thoughts, line: Some(line.to_json()), ..Outcome::plain(Ending::Done, text) }
    }

    /// Reads a conversation, and gives up its oldest lines if there are too many.
    async fn transcript(&self, at: &Conversation) -> Result<Transcript, StoreError> {
        let history = self.means.store.history(at).await?;
        if history.len() > LINES {
            let kept = |mut lines: Vec<_>| Some(lines.split_off(lines.len().saturating_sub(LINES_KEPT)));
            self.means.store.edit_context(at, kept).await?;
        }
        let lines = history.into_iter().filter_map(|line| serde_json::from_value(line.message).ok());
        Ok(Transcript::of(lines.collect()))
    }

    /// Returns the limits of a mode; those of the usual one if there is none of this word, and of the bot if it has none.
    fn limits(&self, word: Option<&str>) -> Limits {
        let settings = &self.settings;
        let chosen = settings.modes.iter().find(|mode| Some(mode.word) == word);
        match chosen.or(settings.modes.first()) {
            Some(mode) => Limits {
                tokens: Some(mode.max_tokens),
                turns: mode.history_turns,
                no_thinking: settings.no_thinking || !mode.thinks,
                time: Some(mode.time),
            },
            None => Limits {
                tokens: settings.max_tokens,
                turns: settings.history_turns,
                no_thinking: settings.no_thinking,
                time: None,
            },
        }
    }

    fn request(&self, transcript: &Transcript, model: &Model, limits: Limits) -> Cut {
        let answer = limits.tokens.unwrap_or(ANSWER);
        let room = model.context_window().saturating_sub(answer + SPARE);
        let mut cut = transcript.request(&self.settings.system_prompt, limits.turns, room);
        let Some(Message::User { parts }) = cut.messages.last_mut() else { return cut };
        for part in parts.iter_mut() {
            if let Part::Text { text } = part {
                *text = text::cut_middle(text, LONGEST);
            }
        }
        if limits.no_thinking {
            without_thinking(&mut cut.messages, model);
        }
        cut
    }
}

/// Tells a model that can leave out its thinking to do so.
pub(in crate::bots) fn without_thinking(request: &mut [Message], model: &Model) {
    let name = model.name().to_lowercase();
    if let Some(Message::User { parts }) = request.last_mut()
        && CAN_LEAVE_IT.iter().any(|known| name.contains(known))
    {
        parts.push(Part::Text { text: NO_THINKING.to_owned() });
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

/// Shows the room an answer as it comes. Ends when there is more of it than any answer should have.
async fn show(mut draft: watch::Receiver<String>, job: &TurnJob) {
    while draft.changed().await.is_ok() {
        let (length, text) = {
            let text = draft.borrow_and_update();
            (text.len(), text[..text.floor_char_boundary(SHOWN)].to_owned())
        };
        if length > MOST {
            return;
        }
        // The room may be gone; then the turn ends by itself.
        let _ = job.progress.send(Progress::Draft(text)).await;
        tokio::time::sleep(SHOW_EVERY).await;
    }
    std::future::pending::<()>().await;
}

/// Waits until the time of an answer is up, and returns how much it was.
async fn overdue(time: Option<Duration>) -> Duration {
    match time {
        Some(time) => {
            tokio::time::sleep(time).await;
            time
        }
        None => std::future::pending().await,
    }
}

/// Why an answer is not whole.
#[derive(Clone, Copy)]
struct Unfinished<'a> {
    /// What is said behind the part that there is.
    behind: &'a str,
    /// What is said if there is none.
    alone: &'a str,
    /// How a turn ends that has one.
    ending: Ending,
}

/// Returns the outcome of a turn whose answer is not whole, with what people have seen of it.
fn unfinished(draft: &str, why: Unfinished<'_>, transcript: &Transcript, model: &str) -> Outcome {
    let draft = draft.trim_end();
    if draft.is_empty() {
        return Outcome::plain(Ending::Failed, why.alone);
    }
    let message = AssistantMessage { text: draft.to_owned(), model: model.to_owned(), ..AssistantMessage::default() };
    let line = Line::Answered { message, thread: transcript.thread.clone(), counted: None };
    let text = format!("{draft}{}", strings::chat::behind(why.behind));
    Outcome { line: Some(line.to_json()), ..Outcome::plain(why.ending, text) }
}

/// Returns the outcome of a turn that somebody stopped, with what was shown of its answer.
fn stopped(draft: &str) -> Outcome {
    match draft.trim_end() {
        "" => Outcome::plain(Ending::Stopped, strings::chat::STOPPED),
        draft => Outcome::plain(Ending::Stopped, format!("{draft}{}", strings::chat::STOPPED_BEHIND)),
    }
}

/// Returns what is written under an answer that began at `first`.
fn footer(label: &str, usage: Usage, first: Option<Instant>) -> String {
    let seconds = first.map_or(0.0, |first| first.elapsed().as_secs_f64()).max(0.001);
    strings::chat::footer(label, usage.output as f64 / seconds, usage.input, usage.input + usage.output)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_there_is_of_an_answer_that_does_not_become_whole_is_the_answer() {
        let (transcript, why) =
            (Transcript::of(vec![]), Unfinished { behind: "Cut off.", alone: "No answer.", ending: Ending::Done });
        let cut = unfinished("half an ans ", why, &transcript, "m");
        assert_eq!((cut.ending, cut.line.is_some()), (Ending::Done, true));
        assert_eq!(cut.text, "half an ans\n\n(Cut off.)");
        let nothing = unfinished(" \n", why, &transcript, "m");
        assert_eq!((nothing.ending, nothing.line.is_some()), (Ending::Failed, false));
        assert_eq!(nothing.text, "No answer.");
    }
}
