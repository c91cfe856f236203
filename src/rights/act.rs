//! What needs a right, and the table of who may do it. Pure.

use std::fmt;

use super::{repository::Repository, role::Role};

/// What a grant is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Subject {
    /// A host, by its name in lower case.
    Host(String),
    /// A repository.
    Repository(Repository),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(host) => f.write_str(host),
            Self::Repository(repository) => repository.fmt(f),
        }
    }
}

/// What somebody or something wants to do. None of it can be undone: what was read is known, what was sent is out, and
/// what a coding agent has used is paid.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Act {
    /// Read a repository with the operator's token.
    Read(Repository),
    /// Push to a repository.
    Push(Repository),
    /// Open a pull request there.
    PullRequest(Repository),
    /// Comment there.
    Comment(Repository),
    /// Let a sandbox reach a host.
    Host(String),
    /// Grant something to a room, or take it back.
    Grant,
    /// Have a coding agent carry a plan out, where plans have to be approved.
    Implement,
    /// Replace the running program.
    SelfUpdate,
}

/// Whose word an act needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Needs {
    /// Any user.
    User,
    /// Whoever may grant; in a repository that is granted for reading, any user.
    GrantorOrGranted,
    /// Whoever may grant.
    Grantor,
    /// An administrator.
    Admin,
}

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    /// The least role at whose word the question may be asked at all.
    pub(super) asks: Role,
    /// Whose yes it needs.
    pub(super) needs: Needs,
    /// Whether their own word is a yes, where nothing else was read.
    pub(super) own_word: bool,
}

impl Act {
    /// The table: who may do what.
    pub(super) fn row(&self) -> Row {
        let (asks, needs, own_word) = match self {
            // What a program in the sandbox does is nobody's own word.
            Self::Read(_) | Self::Host(_) | Self::Grant => (Role::User, Needs::Grantor, false),
            Self::Push(_) => (Role::User, Needs::GrantorOrGranted, false),
            Self::PullRequest(_) | Self::Comment(_) => (Role::User, Needs::GrantorOrGranted, true),
            Self::Implement => (Role::User, Needs::User, false),
            Self::SelfUpdate => (Role::Admin, Needs::Admin, false),
        };
        Row { asks, needs, own_word }
    }

    /// Returns what a grant that covers it is about; `None` if none can.
    pub fn subject(&self) -> Option<Subject> {
        match self {
            Self::Read(repository)
            | Self::Push(repository)
            | Self::PullRequest(repository)
            | Self::Comment(repository) => Some(Subject::Repository(repository.clone())),
            Self::Host(host) => Some(Subject::Host(host.clone())),
            Self::Grant | Self::Implement | Self::SelfUpdate => None,
        }
    }

    /// Returns whether it changes something at its subject.
    pub fn writes(&self) -> bool {
        matches!(self, Self::Push(_) | Self::PullRequest(_) | Self::Comment(_))
    }
}
