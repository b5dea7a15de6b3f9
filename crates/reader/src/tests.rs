//! Tests of the reader against a scripted repository.
