//! The tools that the model works with in its room's sandbox: one file a tool, one row a tool in `ROWS`.
//!
//! The orchestrator lists them ([`specs`]), reads a call ([`read_call`]), runs it ([`run`]) and, after a crash, takes
//! up what became of one ([`resume`]). A call never fails: an error is a result that tells the model what to do next.
//!
//! The tools know the sandboxes, the coding agents and what models of these use; of the store no more than where a call
//! keeps how far it has come; and nothing of turns, or of rooms and their protocols.

mod agents;
mod arguments;
mod call;
mod context;
mod edit_file;
mod environment;
mod error;
mod exec;
mod files;
mod form;
mod github;
mod guides;
mod guides_seen;
mod jobs;
mod jobs_seen;
mod lines;
mod matching;
mod media;
mod memory;
mod nearest;
mod output;
mod page;
mod read_file;
mod run_command;
mod run_tests;
mod self_update;
mod send_file;
mod shorten;
mod steering;
mod survey;
mod take_screenshot;
mod tests_seen;
mod write_file;

use std::{future::Future, time::Duration};

use futures_util::future::BoxFuture;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::Value;
use similar::{Algorithm, ChangeTag, TextDiff};
use tokio::time::Instant;

pub use self::call::read as read_call;
pub(crate) use self::call::{Call, named};
pub(crate) use self::context::{Access, Attachment, Edit, Facts, Image};
pub use self::context::{LargeFiles, ToolContext, ToolLimits, ToolProgress, ToolResult};
use self::error::ToolError;
pub(crate) use self::exec::whole_output;
pub use self::{
    guides_seen::GuidesSeen, jobs_seen::JobsSeen, steering::Steering, steering::Take, steering::Word,
    tests_seen::TestsSeen,
};
pub(crate) use self::{media::picture, memory::files as memory_files};
use crate::{
    ids::{Address, CallId},
    llm::ToolSpec,
    sandbox::Sandboxes,
    text,
};

/// All tools, in the order in which models see them: a fixed one, so that a provider's cache stays good.
const ROWS: &[Row] = &[
    Row::of::<run_command::RunCommand>(),
    Row::of::<read_file::ReadFile>(),
    Row::of::<write_file::WriteFile>(),
    Row::of::<edit_file::EditFile>(),
    Row::of::<run_tests::RunTests>(),
    Row::of::<take_screenshot::TakeScreenshot>(),
    Row::of::<send_file::SendFile>(),
    Row::of::<agents::Plan>(),
    Row::of::<agents::Implement>(),
    Row::of::<agents::Review>(),
    Row::of::<github::GitHub>(),
    Row::of::<self_update::SelfUpdate>(),
];

/// A tool: its name, its arguments, and what a call does.
trait Tool: 'static {
    /// The name by which models call it.
    const NAME: &'static str;
    /// Whether it may run beside others.
    const ACCESS: Access;
    /// The arguments of a good call, shown with every bad one.
    const EXAMPLE: &'static str;
    /// Whether a call has a time limit of its own, by which its turn's time is extended.
    const OWN_TIME: bool = false;
    /// Its arguments: flat, at least one property, each documented for the model where its name does not say all.
    type Arguments: JsonSchema + DeserializeOwned + Send;

    /// Says when to use it, with its limits. Every request carries this: short.
    fn description(limits: &ToolLimits, vision: bool) -> String;

    /// Says in a few words what a call does, for the room.
    fn label(arguments: &Self::Arguments) -> String;

    /// Carries out a call.
    fn run(
        context: &ToolContext,
        arguments: Self::Arguments,
    ) -> impl Future<Output = Result<ToolResult, ToolError>> + Send;

    /// Says what became of a call that was begun under `boot_id` when the server crashed. What only looks may be done
    /// again, and nothing else.
    fn resume(
        context: &ToolContext,
        arguments: Self::Arguments,
        boot_id: &str,
    ) -> impl Future<Output = Result<ToolResult, ToolError>> + Send;
}

/// A tool in the table.
struct Row {
    name: &'static str,
    access: Access,
    example: &'static str,
    own_time: bool,
    spec: fn(&ToolLimits, bool) -> ToolSpec,
    run: for<'a> fn(&'a ToolContext, &'a str, Option<&'a str>) -> BoxFuture<'a, ToolResult>,
}

impl Row {
    const fn of<T: Tool>() -> Self {
        Self {
            name: T::NAME,
            access: T::ACCESS,
            example: T::EXAMPLE,
            own_time: T::OWN_TIME,
            spec: spec::<T>,
            run: |context, text, boot_id| Box::pin(call::<T>(context, text, boot_id)),
        }
    }
}

/// Returns what models are told of the tools; of GitHub only where the server has a key for it, and of updates only where somebody may
/// ask for one.
pub fn specs(limits: &ToolLimits, vision: bool, github: bool, updates: bool) -> Vec<ToolSpec> {
    let offered = |row: &&Row| {
        (github || row.name != github::GitHub::NAME) && (updates || row.name != self_update::SelfUpdate::NAME)
    };
    ROWS.iter().filter(offered).map(|row| (row.spec)(limits, vision)).collect()
}

/// Returns whether a tool may run beside others.
pub fn access(name: &str) -> Access {
    row(name).map_or(Access::Exclusive, |row| row.access)
}

/// Returns whether a tool's calls have a time limit of their own beside the turn's: a coding agent works longer than
/// anything else.
pub fn has_own_time(name: &str) -> bool {
    row(name).is_some_and(|row| row.own_time)
}

/// Returns the name of a tool that there is, as the table has it.
pub(crate) fn known(name: &str) -> Option<&'static str> {
    row(name).map(|row| row.name)
}

/// Runs a call to its end. Cancelled, it ends what it started and returns within seconds.
pub async fn run(context: &ToolContext, name: &str, arguments: &str) -> ToolResult {
    match row(name) {
        Some(row) => (row.run)(context, arguments, None).await,
        None => unknown(name),
    }
}

/// Says what became of a call whose beginning was recorded, under the sandbox's `boot_id`, and whose end was not. What
/// still runs is waited for; nothing that changes anything is run again.
pub async fn resume(context: &ToolContext, name: &str, arguments: &str, boot_id: &str) -> ToolResult {
    match row(name) {
        Some(row) => (row.run)(context, arguments, Some(boot_id)).await,
        None => unknown(name),
    }
}

/// Returns the run after which the key is named that a coding agent uses in a call, by what is stored with the call.
pub fn key_in_use(call: &CallId, state: Option<Value>) -> String {
    agents::key_in_use(call, state)
}

/// Ends what a turn's calls have left running in a room's sandbox for each other: the turn is over.
pub async fn turn_ended(sandboxes: &Sandboxes, address: &Address) {
    agents::end_all(sandboxes, address).await;
}

fn row(name: &str) -> Option<&'static Row> {
    ROWS.iter().find(|row| row.name == name)
}

fn unknown(name: &str) -> ToolResult {
    ToolResult::bad(format!("unknown tool {}", text::one_line(name, 60)), call::unknown(name))
}

fn spec<T: Tool>(limits: &ToolLimits, vision: bool) -> ToolSpec {
    ToolSpec {
        name: T::NAME,
        description: T::description(limits, vision),
        parameters: arguments::schema::<T::Arguments>(),
    }
}

async fn call<T: Tool>(context: &ToolContext, text: &str, boot_id: Option<&str>) -> ToolResult {
    let arguments = match arguments::parse::<T::Arguments>(T::NAME, text, T::EXAMPLE) {
        Ok(arguments) => arguments,
        Err(why) => return ToolResult::bad(format!("{}: arguments not understood", T::NAME), why),
    };
    let label = T::label(&arguments);
    let began = Instant::now();
    let result = match boot_id {
        None => T::run(context, arguments).await,
        Some(boot_id) => T::resume(context, arguments, boot_id).await,
    };
    let mut result = result.unwrap_or_else(|error| {
        let brief = text::one_line(&error.brief(), 120);
        ToolResult::bad(format!("{label}: {brief}"), error.to_string())
    });
    let took = began.elapsed();
    result.text.push_str(&environment::brought(context, text, took).await);
    result.text.push_str(&guides::unseen(context, took).await);
    result
}

/// Returns how many lines were added, and how many removed.
fn changed_lines(before: &str, after: &str) -> (u32, u32) {
    let diff =
        TextDiff::configure().algorithm(Algorithm::Myers).timeout(Duration::from_millis(100)).diff_lines(before, after);
    diff.iter_all_changes().fold((0, 0), |(added, removed), change| match change.tag() {
        ChangeTag::Insert => (added + 1, removed),
        ChangeTag::Delete => (added, removed + 1),
        ChangeTag::Equal => (added, removed),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_models_are_told_is_settled() {
        let specs = specs(&ToolLimits::default(), true, true, true);
        insta::assert_json_snapshot!("specs", specs);
    }

    #[test]
    fn every_tool_fits_every_provider() {
        let all = specs(&ToolLimits::default(), true, true, true);
        assert!(all.len() <= 12);
        for spec in &all {
            let schema = &spec.parameters;
            assert_eq!(schema["type"], "object", "{}", spec.name);
            let properties = schema["properties"].as_object().expect(spec.name);
            assert!(!properties.is_empty(), "{}", spec.name);
            for (name, property) in properties {
                let kind = property["type"].as_str().expect("one type, not a list");
                assert!(["string", "integer", "boolean"].contains(&kind), "{}.{name}", spec.name);
            }
        }
        let size = |specs: &[ToolSpec]| serde_json::to_string(specs).expect("is JSON").len();
        let (usual, all) = (size(&specs(&ToolLimits::default(), true, false, false)), size(&all));
        assert!(usual < 3600 && all < usual + 960, "{usual} bytes are in every request, {all} with GitHub and updates");
    }

    #[test]
    fn an_unknown_tool_may_not_run_beside_others() {
        assert!(!unknown("x").ok);
        assert_eq!((access("x"), access("read_file")), (Access::Exclusive, Access::Shared));
        assert!(has_own_time("implement") && !has_own_time("run_command") && !has_own_time("x"));
    }

    #[test]
    fn changes_are_counted_by_lines() {
        assert_eq!(changed_lines("a\nb\nc\n", "a\nx\ny\nc\n"), (2, 1));
        assert_eq!(changed_lines("", "a\n"), (1, 0));
        assert_eq!(changed_lines("a", "a"), (0, 0));
    }
}
