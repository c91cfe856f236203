//! Running the service: the lock, the control socket, the health checks, and how the parts are put together.

pub mod doctor;
mod settings;

pub use settings::{Purpose, has_model, model_settings, review};
