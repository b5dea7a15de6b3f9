//! Tests of the reader as a whole, against a repository that misbehaves by script.
//!
//! Time is paused: a deadline of 30 s costs nothing, and how long something took is exact.

mod bounds;
mod faults;
mod model;
mod requests;
mod source;
mod turns;
mod whole_streams;
