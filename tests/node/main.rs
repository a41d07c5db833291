//! The node from outside: a real client over a real socket, real JPEG bytes, and stages that look for colours.

mod harness;
mod scene;
#[path = "../served.rs"]
mod served;

mod access;
mod anytime;
mod bad_input;
mod binary;
mod browser;
mod clients;
mod drafts;
mod drops;
mod fairness;
mod faults;
mod frames;
mod identity;
mod launch;
mod lifecycle;
mod looks;
mod metrics;
mod questions;
mod quotas;
mod record;
mod reflection;
mod settings;
mod strategies;
mod stream;
mod targets;
mod time;
mod unary;
mod watch;
mod watchdog;
mod web;
