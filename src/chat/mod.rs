//! The chat protocols. Only the code below here knows one; all of it speaks to the hub, none of it knows a tool.

pub mod terminal;
