//! What the field does to such a server: faults that were found by trying.

mod headers;
mod names;
mod ratio;
