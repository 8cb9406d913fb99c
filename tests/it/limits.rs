//! Only a limit that the owner set, or its documented default, ends work.

mod ages;
mod attempts;
mod clean_up;
mod lost_cancels;
mod readers;
mod unhurried;
mod unread;

use std::time::Duration;

use crate::pool::{LONG, shared};

const MILLISECOND: Duration = Duration::from_millis(1);
