//! Running the service: the lock, the control socket, the health checks, and how the parts are wired together.

mod admin;
pub(crate) mod canary;
mod check_ipc;
mod cloud_bots;
mod control;
mod dashboard;
pub(crate) mod doctor;
mod engaging;
mod exobot;
mod lines;
mod local_models;
mod lock;
mod pulse;
pub(crate) mod recent;
mod redeploy;
mod redeploy_told;
mod server;
mod settings;
mod sockets;
mod status;
mod talk;
mod witness;

pub(crate) use cloud_bots::{Shown, shown, shown_refused};
pub(crate) use control::{Answer, NO_REQUEST, Operator, Request, Unanswered};
pub(crate) use exobot::ShownExobot;
pub(crate) use lock::{Lock, LockError};
pub(crate) use pulse::Pulse;
pub(crate) use redeploy::{Redeploy, RedeployError};
pub use server::{House, Served, Server};
pub(crate) use settings::{
    Purpose, cloud_login, exobot_login, has_model, model, only_chat_bots, other_agents, review, review_rooms,
    with_demo_model,
};
pub use settings::{matrix_login, model_settings};
pub(crate) use sockets::{administration_socket, control_socket};
