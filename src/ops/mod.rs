//! Running the service: the lock, the control socket, the health checks, and how the parts are wired together.

mod check_ipc;
mod control;
pub(crate) mod doctor;
mod lock;
mod pulse;
mod server;
mod settings;

pub(crate) use control::{Answer, Operator, Request, administration_socket, control_socket};
pub(crate) use lock::{Lock, LockError};
pub(crate) use pulse::Pulse;
pub use server::{House, Served, Server};
pub(crate) use settings::{Purpose, has_model, other_agents, review};
pub use settings::{matrix_login, model_settings};
