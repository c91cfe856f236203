//! The tools `plan`, `implement` and `review`: a coding agent at work in the sandbox, followed by the room.
//!
//! Which agent serves which role, its command line and how its output is read, `coding_agents` knows; its way to its model
//! is the gateway's. `approval` asks for leave to carry a plan out, `job` has one call from its beginning to its result, `process` the agent's processes in it, `follower`
//! what is learnt of them, `staying` those that outlive a call, `task` what a task keeps in the sandbox between calls.

mod approval;
mod follower;
mod job;
mod process;
mod report;
mod staying;
mod task;

use schemars::JsonSchema;
use serde::Deserialize;

use self::job::Job;
pub(super) use self::{follower::key_in_use, staying::end_all};
use super::{Access, Tool, ToolContext, ToolLimits, ToolResult, error::ToolError};
use crate::{coding_agents::Role, text};

/// The tool `plan`.
pub(super) struct Plan;
/// The tool `implement`.
pub(super) struct Implement;
/// The tool `review`.
pub(super) struct Review;

/// For the model.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Task {
    /// With all it must know: it sees the files, not this chat.
    task: String,
}

/// For the model.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TaskWithPlan {
    /// As for plan.
    task: String,
    /// Instead of the last plan.
    plan: Option<String>,
}

/// For the model.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Focus {
    /// What to look at above all.
    focus: Option<String>,
}

impl TaskWithPlan {
    fn job(&self) -> Job<'_> {
        Job { role: Role::Implement, task: &self.task, plan: self.plan.as_deref() }
    }
}

impl Focus {
    fn job(&self) -> Job<'_> {
        Job { role: Role::Review, task: self.focus.as_deref().unwrap_or_default(), plan: None }
    }
}

impl Tool for Plan {
    const NAME: &'static str = "plan";
    const ACCESS: Access = Access::Exclusive;
    const EXAMPLE: &'static str = r#"{"task":"Add a login page to /workspace/site"}"#;
    const OWN_TIME: bool = true;
    type Arguments = Task;

    fn description(_limits: &ToolLimits, _vision: bool) -> String {
        "A coding agent reads the code and plans a larger task; it changes nothing.".to_owned()
    }

    fn label(arguments: &Task) -> String {
        label(Role::Plan, &arguments.task)
    }

    async fn run(context: &ToolContext, arguments: Task) -> Result<ToolResult, ToolError> {
        Job { role: Role::Plan, task: &arguments.task, plan: None }.work(context).await
    }

    async fn resume(context: &ToolContext, arguments: Task, boot_id: &str) -> Result<ToolResult, ToolError> {
        Job { role: Role::Plan, task: &arguments.task, plan: None }.take_up(context, boot_id).await
    }
}

impl Tool for Implement {
    const NAME: &'static str = "implement";
    const ACCESS: Access = Access::Exclusive;
    const EXAMPLE: &'static str = r#"{"task":"Add a login page to /workspace/site"}"#;
    const OWN_TIME: bool = true;
    type Arguments = TaskWithPlan;

    fn description(limits: &ToolLimits, _vision: bool) -> String {
        format!("A coding agent does a larger task by itself, with the last plan. Limit {} s.", limits.coding.as_secs())
    }

    fn label(arguments: &TaskWithPlan) -> String {
        label(Role::Implement, &arguments.task)
    }

    async fn run(context: &ToolContext, arguments: TaskWithPlan) -> Result<ToolResult, ToolError> {
        let Some(answerer) = context.limits.approval else { return arguments.job().work(context).await };
        let plan = approval::approved(context, arguments.plan.as_deref(), answerer).await?;
        Job { plan: Some(&plan), ..arguments.job() }.work(context).await
    }

    async fn resume(context: &ToolContext, arguments: TaskWithPlan, boot_id: &str) -> Result<ToolResult, ToolError> {
        arguments.job().take_up(context, boot_id).await
    }
}

impl Tool for Review {
    const NAME: &'static str = "review";
    const ACCESS: Access = Access::Exclusive;
    const EXAMPLE: &'static str = r#"{"focus":"the session cookie"}"#;
    const OWN_TIME: bool = true;
    type Arguments = Focus;

    fn description(_limits: &ToolLimits, _vision: bool) -> String {
        "A coding agent reviews what was changed, with diff and plan.".to_owned()
    }

    fn label(arguments: &Focus) -> String {
        label(Role::Review, arguments.focus.as_deref().unwrap_or("what was changed"))
    }

    async fn run(context: &ToolContext, arguments: Focus) -> Result<ToolResult, ToolError> {
        arguments.job().work(context).await
    }

    async fn resume(context: &ToolContext, arguments: Focus, boot_id: &str) -> Result<ToolResult, ToolError> {
        arguments.job().take_up(context, boot_id).await
    }
}

fn label(role: Role, about: &str) -> String {
    format!("{role}: {}", text::one_line(about, 70))
}
