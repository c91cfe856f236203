//! The processes of an agent in a call. Some end when they have answered, others stay (`staying`).
//!
//! Told what people said meanwhile, an agent is told in its process if that one takes words; else it is ended and goes on in its
//! session as another one. Each process but the first is named after the last word that it was told when it began, so that a
//! word is told once, also where the server was lost in between: what a call has taken is stored before the agent gets it,
//! and whether a process was started under a name, or has got a word, sandboxd knows. Called by the parent alone.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    super::{ToolContext, Word, error::ToolError, exec},
    follower::{First, Follower, Kept},
    staying::{self, Left},
    task::held,
};
use crate::{
    coding_agents::{Assigned, Launch, Role, Session, told},
    gateway::models::Pass,
    ids,
    sandbox::{Ended, Sandbox, Stdin},
};

/// An agent that works for a call: what all its processes have in common.
pub(super) struct Worker<'a> {
    pub(super) context: &'a ToolContext,
    pub(super) sandbox: &'a Sandbox,
    pub(super) role: Role,
    pub(super) assigned: &'a Assigned,
    /// What the agent shows at the door to models.
    pub(super) key: &'a str,
}

impl Worker<'_> {
    /// Asks the process something that an earlier call has left, and follows it until it has answered. It is ended where it
    /// takes no question any more, and nothing was asked then ([`Follower::unasked`]).
    pub(super) async fn ask_left(
        &self,
        left: Left,
        question: String,
        follower: &mut Follower,
    ) -> Result<Option<Ended>, ToolError> {
        let Left { first, process } = left;
        follower.asks(question, process.written());
        // A server that takes it up goes by this.
        follower.keep_now().await;
        let process = std::future::ready(Ok(process));
        let ended = exec::follow_on(self.context, self.sandbox, &first.process, process, follower).await?;
        if follower.unasked() {
            self.sandbox.kill(&first.process).await?;
        }
        Ok(ended)
    }

    /// Starts a process, asks it something in a session, and follows it to its end; `None`: it has answered and stays.
    pub(super) async fn ask(
        &self,
        session: &Session,
        prompt: String,
        follower: &mut Follower,
    ) -> Result<Option<Ended>, ToolError> {
        let Self { context, sandbox, role, assigned, key } = *self;
        let model = assigned.model.as_deref().unwrap_or_default();
        let until = follower.first.until;
        let launch = Launch { role, model, session, stays: until.is_some(), key };
        let (argv, stdin) = assigned.agent.command(&launch, prompt);
        let argv = if follower.first.is_left { staying::first_to_go(argv) } else { argv };
        let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
        let lives = until.map(|until| staying::time_until(context, until));
        let mut command = context.command(&argv, lives.unwrap_or_else(|| self.time_left(follower)));
        command.id.clone_from(&follower.process);
        command.env = assigned.agent.environment(&launch);
        if !role.may_write() {
            let held = held(context, sandbox, role).await?;
            command.env.extend(held.environment);
            command.writable = Some(held.writable);
        }
        command.stdin = match (stdin, until) {
            (None, _) => Stdin::Null,
            (Some(input), None) => Stdin::Bytes(input.into()),
            (Some(input), Some(_)) => Stdin::Kept { begins: input.into(), idle: staying::IDLE },
        };
        command.spooled = sandbox.spools();
        // A server that takes it up goes by this.
        follower.keep_now().await;
        exec::follow(context, sandbox, command, follower).await
    }

    /// Lets an agent that was ended for it go on with what people said, as often as that comes. `begun` is how it began: an
    /// agent that had done nothing yet begins again. `None`: nobody knows how it began, and then it stays ended.
    pub(super) async fn tell(
        &self,
        begun: Option<(&Session, &str)>,
        mut ended: Option<Ended>,
        follower: &mut Follower,
    ) -> Result<Option<Ended>, ToolError> {
        while let Some(over) = &ended
            && !follower.untold.is_empty()
            && !self.context.cancel.is_cancelled()
            && !self.time_left(follower).is_zero()
        {
            // All that it wrote is read first: it names the session.
            follower.complete(self.sandbox, &over.output).await;
            if follower.told_after_all() {
                break;
            }
            let process = name(&follower.first.process, &follower.untold);
            let words: Vec<_> = follower.untold.iter().map(|word| word.text.clone()).collect();
            let (session, prompt) = match (follower.run.session().and_then(Session::continued), begun) {
                (Some(session), _) => (session, told(&words)),
                // An id that was used is refused.
                (None, Some((Session::New(_), asked))) => {
                    (Session::of_call(&process), [asked, "\n", &told(&words)].concat())
                }
                (None, Some((session, asked))) => (session.clone(), [asked, "\n", &told(&words)].concat()),
                (None, None) => break,
            };
            let log = exec::whole(self.context, self.sandbox, &follower.process, &over.output).await;
            follower.logs.extend(log);
            follower.goes_on(process, words);
            ended = self.ask(&session, prompt, follower).await?;
        }
        Ok(ended)
    }

    fn time_left(&self, follower: &Follower) -> Duration {
        self.context.limits.coding.saturating_sub(follower.run.elapsed(Instant::now()))
    }
}

/// Returns the name of the process that was told these words last, of those of which `first` was the first.
fn name(first: &str, told: &[Word]) -> String {
    told.last().map_or_else(|| first.to_owned(), |word| format!("{first}-{}", ids::digest(&[word.event.as_str()], 8)))
}

/// Finds the process of a run that was started last, before the server crashed, and follows it to its end; `None`: it has
/// answered and stays. `kept` is what was kept with the call, if it is about this run.
pub(super) async fn find(
    context: &ToolContext,
    boot_id: &str,
    assigned: &Assigned,
    pass: &Pass,
    (run, first, kept): (&str, First, Option<&Kept>),
) -> Result<(Sandbox, Option<Ended>, Follower), ToolError> {
    let taken = context.steering.taken();
    for count in (0..=taken.len()).rev() {
        let words = taken.split_at(count);
        let process = name(&first.process, words.0);
        let which = (run.to_owned(), first.clone(), process.clone());
        let mut follower = Follower::going_on(context, assigned, pass, which, words, kept);
        match exec::resume_following(context, &process, boot_id, &mut follower).await {
            // It was not told these: it is now.
            Err(ToolError::NotRun) if count > 0 => {}
            Ok((sandbox, ended)) => {
                if let Some(ended) = &ended
                    && process == first.process
                    && first.was_left(run)
                {
                    follower.complete(&sandbox, &ended.output).await;
                    if !follower.run.has_begun() {
                        return Err(ToolError::NotRun);
                    }
                }
                return if follower.unasked() { Err(ToolError::NotRun) } else { Ok((sandbox, ended, follower)) };
            }
            Err(error) => return Err(error),
        }
    }
    Err(ToolError::NotRun)
}
