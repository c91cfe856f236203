//! Running the service: the lock, the control socket, the health checks, and how the parts are wired together.

mod check_ipc;
mod control;
pub mod doctor;
mod lock;
mod pulse;
mod server;
mod settings;

pub use control::{Answer, Operator, Request, control_socket};
pub use lock::{Lock, LockError};
pub use pulse::Pulse;
pub use server::{House, Served, Server};
pub use settings::{Purpose, has_model, matrix_login, model_settings, other_agents, review};
