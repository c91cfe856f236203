//! Rounds with reviewers: what they say is read as one batch, and answered as one, after one push.
//!
//! Called by the parent alone.

use super::{
    super::{ToolContext, ToolResult, error::ToolError},
    Arguments, Intent, Worktree, asked, granted, intend, look, may_leave, permitted, push, repository_of, trailer,
};
use crate::{
    crash,
    github::{GitHubError, Review, Reviews, Thread, Verdict},
    ids::digest,
    rights::{Act, Repository},
    strings, text,
};

/// Threads that are answered at once.
const MOST: usize = 30;
/// The most bytes of what is read at once.
const READ: usize = 30_000;

/// What is said to a thread.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    /// Its first comment's number.
    thread: u64,
    body: String,
}

/// Reads what is said to which thread: each answer begins with a line `thread 12: …`.
fn answers(text: &str) -> Option<Vec<Answer>> {
    let mut answers: Vec<Answer> = Vec::new();
    for line in text.trim().lines() {
        let begins = line.strip_prefix("thread ").and_then(|rest| rest.split_once(':'));
        match (begins.and_then(|(number, rest)| Some((number.parse().ok()?, rest))), answers.last_mut()) {
            (Some((thread, rest)), _) => answers.push(Answer { thread, body: rest.trim().to_owned() }),
            (None, Some(answer)) => answer.body.extend(["\n", line]),
            (None, None) => return None,
        }
    }
    for answer in &mut answers {
        answer.body = answer.body.trim().to_owned();
    }
    let fits = (1..=MOST).contains(&answers.len()) && answers.iter().all(|answer| !answer.body.is_empty());
    fits.then_some(answers)
}

/// Returns what reviewers say of a pull request and is not resolved.
pub(super) async fn read(context: &ToolContext, arguments: &Arguments) -> Result<ToolResult, ToolError> {
    let Some(number) = arguments.number else {
        return Err(ToolError::Refused("reviews needs the number of a pull request.".to_owned()));
    };
    let repository = repository_of(context, arguments).await?;
    let reviews = asked(context, context.github.reviews(&repository, number)).await?;
    let threads = reviews.threads.len();
    let mut told = format!("#{number}: {}.\n{threads} unresolved threads", state(context, &reviews));
    for Thread { id, place, outdated, said } in &reviews.threads {
        let outdated = if *outdated { " (outdated)" } else { "" };
        told.extend(["\n\n", &format!("thread {id} at {place}{outdated}")]);
        for (by, says) in said {
            told.extend(["\n", by, ": ", says]);
        }
    }
    for Review { by, verdict, says, .. } in reviews.reviews.iter().filter(|review| !review.says.is_empty()) {
        let verdict = match verdict {
            Verdict::Approved => "approves",
            Verdict::ChangesRequested => "requests changes",
            Verdict::Commented => "comments",
            Verdict::Dismissed => "was dismissed",
        };
        told.extend(["\n\n", &format!("{by} {verdict}: {says}")]);
    }
    Ok(ToolResult::good(format!("reviews of #{number}: {threads} unresolved threads"), text::cut_middle(&told, READ)))
}

/// Returns who has approved, where it does not count if they asked for it in chat.
pub(super) fn state(context: &ToolContext, reviews: &Reviews) -> String {
    let people = strings::github::asked_by(&reviews.body).into_iter().chain([context.person.as_str()]);
    reviews.state(&people.map(login).collect::<Vec<_>>())
}

/// Returns the login of a person as it most likely is: the name without its server.
fn login(person: &str) -> String {
    let name = person.trim_start_matches('@');
    name.split_once(':').map_or(name, |(name, _)| name).to_owned()
}

/// Pushes what was committed, and answers the threads.
pub(super) async fn answer(
    context: &ToolContext,
    arguments: &Arguments,
    before: Option<(Intent, &str)>,
) -> Result<ToolResult, ToolError> {
    let answers = answers(arguments.body.as_deref().unwrap_or_default());
    let Some((number, answers)) = arguments.number.zip(answers) else {
        return Err(ToolError::Refused(format!(
            "answer needs number, and a body in which each of 1 to {MOST} answers begins with a line `thread NUMBER: …`. Nothing was sent."
        )));
    };
    let said = answers.iter().map(|Answer { thread, body }| format!("to thread {thread}:\n{body}"));
    let said = said.collect::<Vec<_>>().join("\n\n");
    may_leave(&[&said])?;
    let github = &context.github;
    let (intent, boot_id) = match before {
        Some((intent, boot_id)) => (intent, Some(boot_id)),
        None => (prepare(context, arguments, number).await?, None),
    };
    let repository = Repository::parse(&intent.github).ok_or(GitHubError::Strange)?;
    let what = strings::github::to_answer(&intent.github, &intent.branch, &intent.head, number, answers.len());
    let details = strings::github::verbatim(&format!("{}\n\n{said}", intent.diff));
    permitted(context, &repository, Act::PullRequest, what, details, false).await?;
    let pushing = github.permit_push(&context.address, &repository, &intent.branch, &intent.head);
    push::push(context, &repository, &intent, boot_id).await?;
    drop(pushing);
    for (at, Answer { thread, body }) in answers.iter().enumerate() {
        // The same words to the same thread are the same act in another call of the turn, too.
        let act = digest(&["reply", context.turn.as_str(), &thread.to_string(), body], 12);
        let replied = asked(context, github.reply(&repository, number, *thread, body, &act)).await;
        crash::point("github-replied");
        match replied {
            Ok(_) => {}
            Err(ToolError::Stopped) => return Err(ToolError::Stopped),
            Err(error) => {
                return Err(ToolError::Refused(format!(
                    "The commits are pushed, and {at} of {} threads are answered. Thread {thread} is not: {error} Call it \
                     again with the same words for the others: what is said already is not said twice.",
                    answers.len()
                )));
            }
        }
    }
    let result = ToolResult::good(
        format!("{} threads of #{number} answered", answers.len()),
        format!("{} is at {}, and {} threads of #{number} are answered.", intent.branch, intent.head, answers.len()),
    );
    let told = strings::github::answered(number, &intent.github, &intent.head, answers.len());
    Ok(ToolResult { told: Some(told), ..result })
}

/// Looks at the clone and the pull request, and stores what is to be done with them.
async fn prepare(context: &ToolContext, arguments: &Arguments, number: u64) -> Result<Intent, ToolError> {
    let sandbox = context.sandbox().await?;
    let clone = look::look(context, &sandbox, arguments.path.as_deref(), &trailer(&context.person)).await?;
    let repository = granted(context, clone.repository()?)?;
    let pull = asked(context, context.github.pull(&repository, number)).await?;
    let branch = &pull.branch;
    let refused = |why: String| ToolError::Refused(format!("{why} Nothing was sent."));
    if !pull.open {
        return Err(refused(format!("#{number} is closed.")));
    }
    if pull.foreign || !branch.starts_with("agent/") {
        let branch = text::one_line(branch, 100);
        return Err(refused(format!(
            "#{number} has the branch `{branch}`; only branches agent/… of {repository} are pushed to."
        )));
    }
    if clone.branch != *branch {
        return Err(refused(format!(
            "#{number} has the branch {branch}, which is not checked out: `git switch {branch}`."
        )));
    }
    let diff = strings::github::to_leave(clone.diff()?.commits, &clone.diff()?.lines());
    let Worktree { head, root, dirty, .. } = clone;
    let (github, branch, base) = (repository.to_string(), pull.branch, String::new());
    let intent = Intent { github, branch, head, base, root, dirty, diff };
    intend(context, &intent).await?;
    Ok(intent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_told_apart_by_their_first_lines() {
        let answer = |thread, body: &str| Answer { thread, body: body.to_owned() };
        let text = "thread 7: One is enough.\nSee: thread safety.\n\nthread 12:\nAdded.\n";
        assert_eq!(answers(text), Some(vec![answer(7, "One is enough.\nSee: thread safety."), answer(12, "Added.")]));
        assert_eq!(answers(&"thread 1: x\n".repeat(MOST + 1)), None);
        for bad in ["", "Done.", "thread 7:", "thread x: y", "Done.\nthread 7: x"] {
            assert_eq!(answers(bad), None, "{bad}");
        }
    }

    #[test]
    fn people_are_taken_for_the_logins_of_their_names() {
        assert_eq!([login("@ann:a.org"), login("ann"), login("@ann")], ["ann", "ann", "ann"]);
    }
}
