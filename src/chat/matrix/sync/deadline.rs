//! The deadline by which the device that sent a message must be signed.

use std::time::Duration;

use super::super::Adapter;
use crate::hub::{Body, Inbound};

/// How long the sender's keys may take to show that the device is signed.
pub(super) const VOUCHED: Duration = Duration::from_secs(15);

/// Stores the deadline in a message.
pub(super) fn set(adapter: &Adapter, message: &mut Inbound) {
    if let Body::Locked { until, .. } = &mut message.body {
        *until = Some(adapter.hub.clock().millis() + VOUCHED.as_millis() as i64);
    }
}
