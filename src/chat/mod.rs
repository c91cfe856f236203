//! The chat protocols. Only the code below here knows one; all of it speaks to its account's hub, none of it knows a bot or
//! a tool.

pub mod matrix;
pub mod terminal;
