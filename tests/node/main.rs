//! The node from outside: a real client over a real socket, real JPEG bytes, and stages that look for colours.

mod harness;

mod bad_input;
mod binary;
mod clients;
mod drafts;
mod drops;
mod faults;
mod frames;
mod lifecycle;
mod strategies;
mod stream;
mod targets;
mod unary;
