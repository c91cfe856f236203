//! Recognises a tool call that a model wrote as text, because it or its server does not speak the tool interface. Such a
//! text is never run; all that is decided here is whether it is shown as an answer.
//!
//! Only a text that is such a call, or ends with one, counts, and only if it names a tool that exists: whoever explains
//! tools goes on in prose after the example. Pure; called by the machine.

use std::ops::Range;

use serde_json::Value;

use crate::{json, tools};

/// The most places at which JSON may begin that are tried.
const CANDIDATES: usize = 64;
/// The most bytes of a tag, and of the text behind it in which a call names its tool.
const HEAD: usize = 300;
/// Words of which one is in the name of each tag that opens a call in the dialects of models: Qwen, Hermes, Claude, GLM,
/// Llama, MiniMax, DeepSeek and others.
const TAGS: [&str; 12] = [
    "tool",
    "tools",
    "toolcall",
    "toolcalls",
    "function",
    "functions",
    "functioncall",
    "functioncalls",
    "invoke",
    "action",
    "call",
    "calls",
];
/// The names of marks such as `<|python_tag|>` that open a call, beside those that hold a word of [`TAGS`].
const MARKS: [&str; 6] = ["python_tag", "channel", "start", "recipient", "plugin", "content"];
/// Words that stand between an opening mark and the tool's name.
const FILLERS: [&str; 7] = ["function", "functions", "commentary", "analysis", "assistant", "call", "to"];
/// Names of fenced blocks that hold calls in Python's form.
const CALL_FENCES: [&str; 4] = ["tool_code", "tool_call", "tool_calls", "tool"];
/// Parameters that models write beside the tool's name, without an object around them.
const PARAMETERS: [&str; 6] = ["command", "path", "content", "url", "old_text", "job"];

/// Returns whether a text is, or ends with, the call of a tool that exists.
pub(super) fn ends_in_call(text: &str) -> bool {
    let text = text.trim();
    if text.ends_with("&gt;") {
        // The tag is escaped as in HTML.
        return ends_in_call(&text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\""));
    }
    let code = Code::of(text);
    if let Some(Fence { label, body }) = &code.last {
        let (from, body) = (body.start, text[body.clone()].trim());
        let python = CALL_FENCES.contains(&&*label.to_ascii_lowercase());
        let before = text[..from].trim_end().rsplit_once('\n').map_or("", |(before, _)| before);
        let labelled = (tools::named(label).is_some() || announced(before)) && is_object(body);
        return labelled || is_json_call(unclosed(body)) || tagged(body, body) || python && invoked(body);
    }
    let prose = code.masked(text);
    let bare = unclosed(text);
    ends_in_json(bare, &prose[..bare.len()])
        || tagged(text, &prose)
        || prose.lines().last().is_some_and(invoked)
        || ends_in_action(&prose)
}

/// Returns a text without the closing tags and marks at its end.
fn unclosed(text: &str) -> &str {
    let mut bare = text.trim_end();
    while let Some(at) = bare.ends_with(['>', ']']).then(|| bare.rfind(['<', '['])).flatten()
        && is_closing(&bare[at..])
    {
        bare = bare[..at].trim_end();
    }
    bare
}

/// Returns whether a tag or mark closes: `</tool_call>`, `<|im_end|>`, `<end_function_call>`, `[/TOOL_CALLS]`.
fn is_closing(tag: &str) -> bool {
    let lower = tag.to_ascii_lowercase();
    let plain = ["</", "<|", "<｜", "<end", "[/", "[end"].iter().any(|opens| lower.starts_with(opens));
    plain || lower.ends_with("|>") || lower.ends_with("｜>")
}

/// Returns whether a text ends in a call in the form that a prompt teaches where there is no tool interface: a line
/// `Action: run_command`, and in the next one `Action Input: ls`.
fn ends_in_action(prose: &str) -> bool {
    let after = |line: Option<&str>, label: &str| {
        let (begin, rest) = line?.split_once(':')?;
        begin.trim_matches(|c: char| !c.is_alphanumeric()).eq_ignore_ascii_case(label).then(|| rest.trim().to_owned())
    };
    let mut lines = prose.lines().rev().filter(|line| !line.trim().is_empty());
    let input = after(lines.next(), "action input").is_some();
    input && after(lines.next(), "action").is_some_and(|name| tools::named(&name).is_some())
}

/// The code in a Markdown text.
struct Code {
    /// Bytes within fences and backticks.
    ranges: Vec<Range<usize>>,
    /// The fenced block with which the text ends.
    last: Option<Fence>,
}

struct Fence {
    label: String,
    body: Range<usize>,
}

impl Code {
    fn of(text: &str) -> Self {
        let mut ranges = Vec::new();
        let mut last = None;
        // The label of the open fence, and where its body begins.
        let mut open: Option<(String, usize)> = None;
        let mut at = 0;
        for line in text.split_inclusive('\n') {
            let (begin, bare) = (at, line.trim());
            at += line.len();
            let mark = bare.starts_with("```") || bare.starts_with("~~~");
            match &open {
                None if mark => {
                    last = None;
                    open = Some((bare.trim_matches(['`', '~', ' ']).to_owned(), at));
                }
                Some((label, body)) if mark => {
                    ranges.push(*body..begin);
                    // If more stands behind the closing mark, the text does not end with the fence.
                    let closes = bare.trim_matches(['`', '~']).is_empty();
                    last = closes.then(|| Fence { label: label.clone(), body: *body..begin });
                    open = None;
                }
                Some(_) => {}
                None => {
                    if !bare.is_empty() {
                        last = None;
                    }
                    ranges.extend(inline(line).map(|range| begin + range.start..begin + range.end));
                }
            }
        }
        if let Some((label, body)) = open {
            ranges.push(body..text.len());
            last = Some(Fence { label, body: body..text.len() });
        }
        Self { ranges, last }
    }

    /// Returns the text with its code blanked out, every other byte in its place.
    fn masked(&self, text: &str) -> String {
        let mut masked = String::with_capacity(text.len());
        for range in &self.ranges {
            masked.push_str(&text[masked.len()..range.start]);
            masked.extend(std::iter::repeat_n(' ', range.len()));
        }
        masked.push_str(&text[masked.len()..]);
        masked
    }
}

/// Returns what stands between backticks in a line.
fn inline(line: &str) -> impl Iterator<Item = Range<usize>> {
    let ticks: Vec<usize> = line.match_indices('`').map(|(at, _)| at).collect();
    ticks.chunks_exact(2).map(|pair| pair[0]..pair[1]).collect::<Vec<_>>().into_iter()
}

/// Returns whether a text ends in JSON that is a call. `prose` is the same text with its code blanked out.
fn ends_in_json(text: &str, prose: &str) -> bool {
    if !text.ends_with(['}', ']']) {
        return false;
    }
    let starts = prose.match_indices(['{', '[']).map(|(at, _)| at);
    starts.take(CANDIDATES).any(|at| is_json_call(&text[at..]) || announced(&prose[..at]) && is_object(&text[at..]))
}

/// Returns whether the words before an object name its tool on a line of their own: the name alone, or after a word like
/// `Action:`, which may be followed by a label for the object.
fn announced(before: &str) -> bool {
    let before = before.trim_end();
    let mut lines = before.lines().rev().filter(|line| !line.trim().is_empty());
    let (last, previous) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let label = |line: &str, labels: &[&str]| {
        let (label, rest) = line.split_once(':')?;
        let label = label.trim_matches(|c: char| !c.is_alphanumeric()).to_lowercase();
        labels.contains(&&*label).then(|| rest.trim().to_owned())
    };
    let named = |line: &str| {
        let name = label(line, &["action", "tool", "function", "tool name", "function name", "call", "tool call"]);
        tools::named(name.as_deref().unwrap_or(line.trim())).is_some()
    };
    let given = ["action input", "input", "args", "arguments", "parameters", "tool input"];
    let bare = label(last, &given).is_some_and(|rest| rest.is_empty());
    if bare { named(previous) } else { named(last) }
}

fn is_object(text: &str) -> bool {
    serde_json::from_str::<serde_json::Map<String, Value>>(text).is_ok()
}

fn is_json_call(text: &str) -> bool {
    // Python writes the same with other quotes.
    let other_quotes = || if text.contains('"') { String::new() } else { text.replace('\'', "\"") };
    let value = serde_json::from_str(text)
        .or_else(|_| serde_json::from_str(&json::lossy(text.as_bytes())))
        .or_else(|_| serde_json::from_str(&other_quotes()));
    value.is_ok_and(|value: Value| is_call(&value)) || {
        // There may be several values, one after the other.
        let mut values = serde_json::Deserializer::from_str(text).into_iter::<Value>().peekable();
        values.peek().is_some() && values.all(|value| value.is_ok_and(|value| is_call(&value)))
    }
}

/// Returns whether a value has a call's form and names a tool.
fn is_call(value: &Value) -> bool {
    let fields = match value {
        Value::Array(calls) => return !calls.is_empty() && calls.iter().all(is_call),
        Value::Object(fields) => fields,
        _ => return false,
    };
    let inner = [
        "function",
        "function_call",
        "tool_call",
        "tool_calls",
        "tool_use",
        "tool_uses",
        "calls",
        "action",
        "actions",
        "tool",
    ];
    if inner.iter().filter_map(|key| fields.get(*key)).any(|inner| !inner.is_string() && is_call(inner)) {
        return true;
    }
    if let [(name, Value::Object(_))] = fields.iter().collect::<Vec<_>>()[..]
        && tools::named(name).is_some()
    {
        return true;
    }
    let name = ["name", "tool", "tool_name", "function", "function_name", "action", "recipient_name"];
    let named = name.iter().filter_map(|key| fields.get(*key)?.as_str()).any(|name| tools::named(name).is_some());
    let given =
        ["arguments", "parameters", "args", "input", "tool_input", "action_input", "params", "tool_args", "kwargs"];
    let given = given.iter().chain(&PARAMETERS).find_map(|key| fields.get(*key));
    // A tool's description has a name and parameters too.
    let described = fields.contains_key("description") || given.is_some_and(|given| given.get("properties").is_some());
    named && given.is_some() && !described
}

/// Returns whether a text ends in a call between tags or marks.
fn tagged(text: &str, prose: &str) -> bool {
    let openings: Vec<usize> = prose.match_indices(['<', '[']).map(|(at, _)| at).collect();
    openings.into_iter().rev().take(CANDIDATES).any(|at| Opening::read(&text[at..]).is_some_and(|it| it.is_call()))
}

/// A tag or mark that opens a call, and the text behind it.
struct Opening<'a> {
    /// The tag's name.
    word: String,
    inside: &'a str,
    rest: &'a str,
}

impl<'a> Opening<'a> {
    fn read(text: &'a str) -> Option<Self> {
        let fancy = ["<|", "<｜"].iter().find(|mark| text.starts_with(**mark));
        let (inside, rest) = match fancy {
            Some(mark) => {
                let close = if *mark == "<|" { "|>" } else { "｜>" };
                let whole = |parts: &(&str, &str)| !parts.0.contains(['>', '\n']);
                // DeepSeek has a tag whose mark is only in front: `<｜DSML｜invoke name="…">`.
                text[mark.len()..].split_once(close).filter(whole).or_else(|| text[mark.len()..].split_once('>'))?
            }
            None if text.starts_with('[') => text[1..].split_once(']')?,
            None => text[1..].split_once('>')?,
        };
        // A tag is short, and on one line.
        if inside.len() > HEAD || inside.contains('\n') {
            return None;
        }
        let lower = inside.to_ascii_lowercase().replace('▁', "_");
        let word = lower.split(|c: char| c.is_whitespace() || c == '=').next().unwrap_or_default();
        let word = word.rsplit(['｜', '|', ':']).next().unwrap_or_default();
        let calls = || word.split(['_', '-']).any(|part| TAGS.contains(&part));
        let opens = match text.as_bytes()[0] {
            b'[' => word.split('_').any(|part| part.starts_with("tool")),
            _ if fancy.is_some() => calls() || MARKS.contains(&word),
            _ => calls() || tools::named(word).is_some(),
        };
        opens.then(|| Self { word: word.to_owned(), inside, rest: rest.trim() })
    }

    fn is_call(&self) -> bool {
        let named_inside = names_tool(self.inside);
        let mut words = words(self.rest).peekable();
        while words.next_if(|word| FILLERS.contains(&word.to_ascii_lowercase().as_str())).is_some() {}
        let begins = self.rest.starts_with(['{', '[', '<', '`'])
            || words
                .peek()
                .is_some_and(|word| self.rest.starts_with(|c: char| c.is_alphanumeric()) && names_tool(word));
        let head = &self.rest[..self.rest.floor_char_boundary(HEAD)];
        let alone = self.rest.is_empty() && self.inside.trim_end().ends_with('/');
        (named_inside || begins && names_tool(head)) && (alone || ends_closed(self.rest)) && !self.goes_on()
    }

    /// Returns whether more than closing tags stands behind the tag that closes this one.
    fn goes_on(&self) -> bool {
        let closing = self.rest.to_ascii_lowercase().rfind(&format!("</{}", self.word));
        let behind = closing.and_then(|at| self.rest[at..].split_once('>'));
        behind.is_some_and(|(_, behind)| !unclosed(behind.trim_start()).trim_matches('`').trim().is_empty())
    }
}

/// Returns whether a text ends with closing marks or with the end of a call's arguments.
fn ends_closed(rest: &str) -> bool {
    let rest = rest.trim_end_matches(['`', '\n', ' ']);
    if rest.ends_with(['>', ']'])
        && rest.rfind(['<', '[']).is_some_and(|at| is_closing(&rest[at..]) || rest.ends_with("/>"))
    {
        return true;
    }
    let json = |at: usize| {
        let mut values = serde_json::Deserializer::from_str(&rest[at..]).into_iter::<Value>().peekable();
        // Arguments that were cut off at the output limit count, too.
        values.peek().is_some() && values.all(|value| value.map_or_else(|error| error.is_eof(), |_| true))
    };
    let within = || rest.match_indices(['{', '[']).take(CANDIDATES).any(|(at, _)| json(at));
    match rest.chars().last() {
        Some('}' | ']') => within() || invoked(rest),
        Some(')') => rest.lines().count() == 1 && invoked(rest) || within(),
        _ => within(),
    }
}

/// Returns the words of a text, names with their prefixes kept whole.
fn words(text: &str) -> impl Iterator<Item = String> {
    text.split(|c: char| !c.is_alphanumeric() && !matches!(c, '_' | '.' | ':' | '-' | '/'))
        .filter(|word| !word.is_empty())
        .map(|word| word.trim_end_matches(".call").to_owned())
}

fn names_tool(text: &str) -> bool {
    words(text).any(|word| tools::named(&word).is_some())
}

fn is_label(word: &str) -> bool {
    let plain = |c: char| c.is_alphanumeric() || c == '_' || c == ' ';
    word.chars().all(plain) && word.to_ascii_lowercase().split(['_', ' ']).any(|part| TAGS.contains(&part))
}

/// Returns whether a line is a call in Python's form with named arguments: `[run_command(command="ls")]`.
fn invoked(line: &str) -> bool {
    let line = line.split_once(':').filter(|(label, _)| is_label(label)).map_or(line, |(_, rest)| rest);
    let line = line.trim().trim_start_matches('[').trim_end_matches(']');
    let line = line.strip_prefix("print(").and_then(|rest| rest.strip_suffix(')')).unwrap_or(line);
    let Some((name, given)) = line.split_once('(') else { return false };
    let name = name.trim().trim_end_matches(".call");
    let is_name = !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '.' | ':'));
    let Some(given) = given.trim_end().strip_suffix(')').map(str::trim) else { return false };
    let keyword = given.split_once('=').is_some_and(|(key, _)| {
        let key = key.trim();
        !key.is_empty() && key.chars().all(|c| c.is_alphanumeric() || c == '_')
    });
    is_name && tools::named(name).is_some() && (keyword || given.is_empty() || given.starts_with('{'))
}

#[cfg(test)]
#[path = "markup_tests.rs"]
mod tests;
