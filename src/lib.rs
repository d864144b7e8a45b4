//! Switchboard: a WebRTC signalling server that scales out.

pub mod model;

pub mod dialect;

pub mod fabric;

pub mod exchange;

pub mod session;

pub mod limits;

pub mod edge;

pub mod drain;

pub mod config;
pub mod telemetry;

pub mod app;
pub mod healthcheck;
