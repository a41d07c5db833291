//! The node from outside: a real client over a real socket, real JPEG bytes, and stages that look for colours.

mod harness;

mod access;
mod bad_input;
mod binary;
mod clients;
mod drafts;
mod drops;
mod faults;
mod frames;
mod lifecycle;
mod metrics;
mod quotas;
mod settings;
mod strategies;
mod stream;
mod targets;
mod unary;
mod watchdog;
