//! The reply to an order, with what became of the order.

/// A reply, and the outcome that the audit log notes.
#[derive(Debug)]
pub(super) struct Replied {
    /// What the person is told.
    pub(super) text: String,
    /// The outcome, in a word of the log's.
    pub(super) outcome: &'static str,
}

impl Replied {
    /// It was carried out.
    pub(super) fn done(text: impl Into<String>) -> Self {
        Self { text: text.into(), outcome: "done" }
    }

    /// It was not carried out: it cannot be read, or its sender may not give it.
    pub(super) fn refused(text: impl Into<String>) -> Self {
        Self { text: text.into(), outcome: "refused" }
    }

    /// It could not be carried out.
    pub(super) fn failed(text: impl Into<String>) -> Self {
        Self { text: text.into(), outcome: "failed" }
    }
}
