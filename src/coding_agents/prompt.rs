//! What a coding agent is asked. Each call begins from nothing but this, so all that it needs stands in it.
//!
//! Pure text. Called by `tools`.

use super::agent::Role;

/// Bytes of a diff that are shown to a reviewer; of a longer one head and end.
const DIFF: usize = 60 * 1024;
/// Bytes of a plan.
const PLAN: usize = 24 * 1024;

/// Bytes of what a person said.
const WORD: usize = 16 * 1024;

/// What a prompt is made of.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Brief<'a> {
    /// The task, or what a review is to look at; may be empty for a review.
    pub task: &'a str,
    /// The plan, if there is one.
    pub plan: Option<&'a str>,
    /// What was changed, for a review; empty where nothing was found.
    pub diff: &'a str,
    /// What another agent has begun of it.
    pub begun: Option<&'a Begun>,
}

/// What an agent has left that could not go on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Begun {
    /// Who it was and how it ended; several, a line each.
    pub by: String,
    /// Its todo list, a line a step; empty if it had none.
    pub todo: String,
    /// What it has changed; empty if that is nothing.
    pub diff: String,
}

const PLANS: &str = "\
Work out how the task below is best done. Read the code concerned and its repository's AGENTS.md first. Change nothing: no file, no setting; somebody else \
carries your plan out and has only your answer. Answer with the plan alone: numbered steps, each with the files and functions it \
touches, what is easily missed, and how to see that it works. Do not ask questions; choose, and say what you chose.";

const IMPLEMENTS: &str = "\
Do the task below completely. Read the code concerned and its repository's AGENTS.md first, and keep its style. Nobody answers questions: choose, and say what \
you chose. Run the project's tests if it has any. Neither push nor force anything, and leave unrelated changes alone. Answer in a \
few sentences: what you changed, what you checked, what is open.";

const REVIEWS: &str = "\
Review the change below as a careful colleague. Read the code around it. Change nothing. Look for what is wrong, missing or \
untested, not for taste. Answer with the findings, the gravest first, each with file and line, why it is wrong, and what would \
mend it; then one line: `Verdict: ready` or `Verdict: not ready`. If nothing is wrong, say so in one sentence.";

const BEGUN: &str = "\
This was begun by another agent, which could not go on. What it has done stands in the files. Look at it, keep what is good, and \
do what is left.";

const TOLD: &str = "\
While you worked on the task, people said what follows. Take it into account and go on: what is done already stays, where it still \
fits. Your last answer is read alone, so give it whole.";

/// Returns how an agent is told what people said while it worked.
pub(crate) fn told(words: &[String]) -> String {
    let words =
        words.iter().map(|word| format!("\n\n# Said meanwhile\n{}", crate::text::cut_middle(word.trim(), WORD)));
    TOLD.to_owned() + words.collect::<String>().as_str() + "\n"
}

/// Returns what an agent in a role is asked.
pub(crate) fn prompt(role: Role, brief: &Brief<'_>) -> String {
    let (order, heading) = match role {
        Role::Plan => (PLANS, "Task"),
        Role::Implement => (IMPLEMENTS, "Task"),
        Role::Review => (REVIEWS, "What to look at"),
    };
    let mut text = order.to_owned();
    let mut section = |heading: &str, body: &str| {
        if !body.trim().is_empty() {
            text.extend(["\n\n# ", heading, "\n", body.trim()]);
        }
    };
    section(heading, brief.task);
    if let Some(plan) = brief.plan {
        section("Plan", &crate::text::cut_middle(plan, PLAN));
    }
    if role == Role::Review {
        let diff = crate::text::cut_middle(brief.diff, DIFF);
        let nothing = "No change was found. Review the code as it stands.";
        section("Change", if diff.trim().is_empty() { nothing } else { &diff });
    }
    if let Some(begun) = brief.begun {
        section("Where it stands", &format!("{BEGUN}\n{}", begun.by));
        section("What it had set out to do", &begun.todo);
        section("What it has changed", &crate::text::cut_middle(&begun.diff, DIFF));
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_holds_what_its_role_needs() {
        let brief = Brief { task: "Add a login page.", plan: Some("1. Do it."), diff: "+ added", begun: None };
        let plan = prompt(Role::Plan, &Brief { plan: None, ..brief });
        assert!(plan.contains("\n# Task\nAdd a login page.\n") && !plan.contains("# Plan") && !plan.contains("added"));
        let implement = prompt(Role::Implement, &brief);
        assert!(
            implement.contains("# Task\nAdd a login page.\n\n# Plan\n1. Do it.\n") && !implement.contains("+ added")
        );
        let review = prompt(Role::Review, &Brief { task: "", ..brief });
        assert!(review.contains("# Plan\n1. Do it.\n\n# Change\n+ added\n") && !review.contains("# What to look at"));
        assert!(prompt(Role::Review, &Brief::default()).contains("No change was found"));
    }

    #[test]
    fn whoever_goes_on_is_told_where_it_stands() {
        let begun =
            Begun { by: "Qwen Code ended.".to_owned(), todo: "- [x] read".to_owned(), diff: "+ one".to_owned() };
        let brief = Brief { task: "Add it.", plan: Some("1. Do it."), begun: Some(&begun), ..Brief::default() };
        let told = prompt(Role::Implement, &brief);
        for part in [
            "# Task\nAdd it.\n\n# Plan\n1. Do it.\n\n# Where it stands\nThis was begun by another agent",
            "what is left.\nQwen Code ended.\n\n# What it had set out to do\n- [x] read\n\n# What it has changed\n+ one\n",
        ] {
            assert!(told.contains(part), "{told}");
        }
        let begun = Begun::default();
        let told = prompt(Role::Plan, &Brief { begun: Some(&begun), ..brief });
        assert!(told.contains("# Where it stands") && !told.contains("# What it"), "{told}");
    }

    #[test]
    fn a_prompt_is_bounded() {
        let long = "x\n".repeat(1 << 20);
        let review = prompt(Role::Review, &Brief { plan: Some(&long), diff: &long, ..Brief::default() });
        assert!(review.len() < DIFF + PLAN + 2048, "{}", review.len());
        assert!(review.contains("bytes cut"));
    }
}
