//! The hub on real programs: what people see, follow and cancel, from anywhere.

mod laptop;
mod site;
