//! The hub on real programs: what people see, follow and cancel, from anywhere.

mod api;
mod callbacks;
mod laptop;
mod report;
mod site;
