//! A day's tokens: near their end, at it, allowed anew, and what they were used for.

use super::counted;

/// The day's tokens cannot be counted.
pub(crate) const UNCOUNTED: &str =
    "The server cannot count tokens now, so it sends no request to a model. Try again later.";

/// Said once a day in a room whose tokens come near their end.
pub(crate) fn room_near(limit: &str) -> String {
    format!("This room has used 80 % of its {limit} tokens of today.")
}

/// Said once a day in a room to a person whose tokens come near their end.
pub(crate) fn person_near(person: &str, limit: &str) -> String {
    format!("`{person}` has used 80 % of the {limit} tokens that a person has today.")
}

/// The room's tokens of today are used up; `next` is what [`goes_on`] says.
pub(crate) fn room_over(limit: &str, next: &str) -> String {
    format!("This room has used its {limit} tokens of today (ROOM_DAILY_TOKENS). {next}")
}

/// A person's tokens of today are used up.
pub(crate) fn person_over(person: &str, limit: &str, next: &str) -> String {
    format!("`{person}` has used the {limit} tokens that a person has today (USER_DAILY_TOKENS). {next}")
}

/// When it goes on, and who may let it go on before: `left` is left of the day, and `command` allows more.
pub(crate) fn goes_on(left: &str, admins: &[String], command: &str) -> String {
    let who = who(admins);
    format!("It goes on in {left}, at midnight UTC; or write “go on” once {who} has allowed more with `{command}`.")
}

/// Who may allow more.
fn who(admins: &[String]) -> String {
    match admins {
        [] => "whoever runs this server".to_owned(),
        [only] => format!("`{only}`"),
        [first, second] => format!("`{first}` or `{second}`"),
        [first, second, ..] => format!("`{first}`, `{second}` or another administrator"),
    }
}

/// Requests under way may use all that is left.
pub(crate) fn busy(room: bool) -> String {
    let whose = if room { "this room" } else { "one person" };
    format!(
        "What is left of today's tokens of {whose} may all be used by requests that are under way. Try again when they have ended."
    )
}

/// The reply to `!budget` where it cannot be read.
pub(crate) const UNCLEAR: &str = "Write `!budget 500k` for this room's tokens of today, `!budget each 200k` for those of each person who has \
    asked for something here today, or `!budget` alone to see them.";

/// The reply to `!budget 500k` of somebody else.
pub(crate) fn not_yours(admins: &[String]) -> String {
    format!("Only {} can change that.", who(admins))
}

/// The reply to `!budget 500k`.
pub(crate) fn room_allowed(tokens: &str, used: &str) -> String {
    format!("This room has {tokens} tokens today; {used} were used.")
}

/// The reply to `!budget each 500k`.
pub(crate) fn people_allowed(tokens: &str, people: &[String]) -> String {
    if people.is_empty() {
        return "Nobody has asked for anything in this room today.".to_owned();
    }
    let people: Vec<_> = people.iter().map(|person| format!("`{person}`")).collect();
    format!("{tokens} tokens are today's for each of these: {}.", people.join(", "))
}

/// A line of the reply to `!budget`, about the room or about `you`. `limit`: with the part of it in percent; `held`: what is
/// under way may use besides, or empty.
pub(crate) fn standing(you: bool, used: &str, limit: Option<(&str, u64)>, held: &str) -> String {
    let whose = if you { "You, in all rooms" } else { "This room" };
    let held = if held.is_empty() { String::new() } else { format!("; what is under way may use {held} more") };
    match limit {
        Some((limit, percent)) => {
            format!("- {whose}: {used} of {limit} tokens were used today (UTC), {percent} %{held}\n")
        }
        None => format!("- {whose}: {used} tokens were used today (UTC), without a limit{held}\n"),
    }
}

/// The reply to `!cost` before anything was asked.
pub(crate) const NO_COST: &str = "No tokens were used in this room yet.";

/// The first line of the reply to `!cost`.
pub(crate) fn cost(days: u32) -> String {
    format!("Tokens used in this room in the last {days} days (UTC):\n\n")
}

/// The line in the reply to `!cost` before what was used today.
pub(crate) const COST_TODAY: &str = "\nToday:\n\n";

/// A line of the reply to `!cost`; `what` is a day, or who has used them. `money` may be empty.
pub(crate) fn cost_line(
    what: &str,
    input: u64,
    cached_percent: u64,
    output: u64,
    requests: u64,
    money: &str,
) -> String {
    let requests = counted(requests, "request");
    let money = if money.is_empty() { String::new() } else { format!(", {money}") };
    format!("- {what}: {input} in ({cached_percent} % cached), {output} out, {requests}{money}\n")
}

/// An agent in the reply to `!cost`; names that are not known are empty.
pub(crate) fn cost_of(agent: &str, model: &str, person: &str) -> String {
    let model = if model.is_empty() { String::new() } else { format!(" with `{model}`") };
    let person = if person.is_empty() { String::new() } else { format!(" for `{person}`") };
    format!("{agent}{model}{person}")
}
