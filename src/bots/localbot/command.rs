//! Parses the `/lb` commands. Pure.

use crate::text;

/// A command about the inference servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LocalCommand {
    /// Lists the commands.
    Help,
    /// Shows the active endpoint.
    Status,
    /// Lists the models.
    Models,
    /// Begins the session of the named room anew.
    New(String),
    /// Lists the endpoints.
    Endpoints,
    /// Measures the active endpoint.
    Performance,
    /// Switches to the named model.
    Switch(String),
    /// Shows the last lines of the active server's log.
    Log,
    /// Shows who is answered and who waits.
    Queue,
    /// Says how this command is written, since it is not written so.
    Usage(&'static str),
}

/// The longest name that is looked for.
const NAME: usize = 80;
/// What may stand around a name.
const QUOTES: &[char] = &['"', '\'', '`', '“', '”', '„'];
/// What may end a word.
const END: &[char] = &['.', '!', '?', '…', ',', ';', ':'];

/// The commands that stand alone.
const ALONE: &[&str] = &["/lbh", "/lbs", "/lbl", "/lbq", "/lbe", "/lbp"];

impl LocalCommand {
    /// Reads what follows the mark of a command; `None`: it is another one, or work.
    pub(crate) fn of(rest: &str) -> Option<Self> {
        let rest = rest.trim();
        let (word, name) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        // What goes on in another line is more than a name.
        let goes_on = name.trim().contains('\n');
        let word = word.trim_end_matches(END).to_lowercase();
        let name = text::one_line(name.trim().trim_end_matches(END).trim_matches(QUOTES), NAME);
        Some(match (word.as_str(), name.is_empty()) {
            ("lbn", _) if goes_on => Self::Usage("/lbn <room>"),
            ("lbm", _) if goes_on => Self::Usage("/lbm <alias>"),
            ("lbn", _) => Self::New(name),
            ("lbh", true) => Self::Help,
            ("lbs", true) => Self::Status,
            ("lbm", true) => Self::Models,
            ("lbm", false) => Self::Switch(name),
            ("lbl", true) => Self::Log,
            ("lbq", true) => Self::Queue,
            ("lbe", true) => Self::Endpoints,
            ("lbp", true) => Self::Performance,
            // Whoever goes on behind a command does not mean the model: it would be told what is none of its business.
            (word, false) => Self::Usage(ALONE.iter().find(|command| &command[1..] == word)?),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_taken_as_people_write_them() {
        for (text, command) in [
            ("lbs", Some(LocalCommand::Status)),
            ("LBE.", Some(LocalCommand::Endpoints)),
            ("lbm", Some(LocalCommand::Models)),
            ("lbm q3", Some(LocalCommand::Switch("q3".into()))),
            ("Lbq", Some(LocalCommand::Queue)),
            ("lbl", Some(LocalCommand::Log)),
            ("lbn  llmlab.", Some(LocalCommand::New("llmlab".into()))),
            ("lbn", Some(LocalCommand::New(String::new()))),
            ("lbm \"q3\"", Some(LocalCommand::Switch("q3".into()))),
            ("lbm `q3`.", Some(LocalCommand::Switch("q3".into()))),
            ("lbn a b", Some(LocalCommand::New("a b".into()))),
            ("lbh", Some(LocalCommand::Help)),
            ("lbp!", Some(LocalCommand::Performance)),
            ("lbs is slow: mend it", Some(LocalCommand::Usage("/lbs"))),
            ("LBQ.\nand more", Some(LocalCommand::Usage("/lbq"))),
            ("lbm x\nand more", Some(LocalCommand::Usage("/lbm <alias>"))),
            ("lbn x\nand then fix the tests", Some(LocalCommand::Usage("/lbn <room>"))),
            ("lbx is slow", None),
            ("lb", None),
            ("lbx", None),
            ("", None),
        ] {
            assert_eq!(LocalCommand::of(text), command, "{text:?}");
        }
    }
}
