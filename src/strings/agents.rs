//! What a room sees of a coding agent that is told what people say while it works.

/// What an agent does that was just told something; `said` is that, cut to fit a line.
pub(crate) fn told(said: &str) -> String {
    format!("was told “{said}”")
}

/// Stands behind what an agent does that has yet to be told something.
pub(crate) const TOLD_NEXT: &str = "gets your word after this step";
