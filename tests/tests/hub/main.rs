//! The hub on real programs: every answer of both edges, `local-edge` and the compiled Worker in a real workerd; and
//! what people see, follow and cancel, from anywhere.

mod api;
mod both;
mod callbacks;
mod children;
mod contract;
mod crowd;
mod files;
mod laptop;
mod link;
mod report;
mod silent;
mod site;
