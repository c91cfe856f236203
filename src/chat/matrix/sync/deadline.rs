//! Until when somebody has to vouch for the device that has sent a message.

use std::time::Duration;

use super::super::Adapter;
use crate::hub::{Body, Inbound};

/// How long the sender's keys may take to vouch for a device.
pub(super) const VOUCHED: Duration = Duration::from_secs(15);

/// Says of a message until when somebody has to vouch for it.
pub(super) fn set(adapter: &Adapter, message: &mut Inbound) {
    if let Body::Locked { until, .. } = &mut message.body {
        *until = Some(adapter.hub.clock().millis() + VOUCHED.as_millis() as i64);
    }
}
