//! defences
