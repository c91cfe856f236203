//! What exobot says of its model, which runs on this machine. None of it repeats the server's own words.

/// The model is being loaded, which takes about so long if that is known.
pub(crate) fn waking(expected: Option<&str>) -> String {
    match expected {
        Some(expected) => format!("I am waking up, which takes about {expected}."),
        None => "I am waking up, which may take a minute the first time.".to_owned(),
    }
}

/// A start of the model has failed, and others are tried.
pub(crate) const WAKING_AGAIN: &str = "My model did not start. I try again, which may take a few minutes.";

/// This machine has no memory left for a model.
pub(crate) const SHORT_OF_MEMORY: &str =
    "The machine on which I live is short of memory just now, so I stay asleep. Please try again in a while.";

/// This machine is busy with other things.
pub(crate) const BUSY_MACHINE: &str =
    "The machine on which I live is busy just now, so I stay asleep. Please try again in a while.";

/// The model has failed and is tried again later.
pub(crate) fn backing_off(wait: &str) -> String {
    format!("My model has failed several times; I try again in {wait}. Please ask me then.")
}

/// The model has failed for good, as it seems; `why` is one of the sentences below.
pub(crate) fn degraded(why: &str) -> String {
    format!("{why} Whoever runs me can see more in my log; please try again in five minutes.")
}

/// The server cannot be started.
pub(crate) const NOT_STARTED: &str = "The program that runs my model cannot be started.";

/// The model's file is none.
pub(crate) const NO_MODEL: &str = "The file of my model is none that can be used.";

/// The server does not fit the processor.
pub(crate) const ILLEGAL: &str = "The program that runs my model was built for another processor.";

/// The server does not answer in time.
pub(crate) const TOO_SLOW: &str = "My model could not be loaded within a minute.";

/// The server has ended by itself.
pub(crate) const DIED: &str = "The program that runs my model has ended by itself, again and again.";

/// Too many ask.
pub(crate) const CROWDED: &str = "Too many are waiting for me already. Please try again in a while.";

/// The program ends.
pub(crate) const ENDING: &str = "I am being restarted. Please ask again in a minute.";

/// It took too long, whatever the cause.
pub(crate) const WAITED: &str = "My model did not wake up in time. Please try again in a while.";
