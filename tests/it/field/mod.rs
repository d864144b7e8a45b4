//! What the field does to such a server: faults that were found by trying.

mod headers;
mod held;
mod names;
mod ratio;
mod shares;
mod slow_links;
