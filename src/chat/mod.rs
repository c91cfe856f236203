//! The chat protocols. Only this module knows one; each protocol speaks to its account's hub, and knows no bot and no
//! tool.

pub mod matrix;
pub mod nextcloud;
pub(crate) mod terminal;
