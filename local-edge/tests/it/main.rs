//! `local-edge` as a program: started, asked over HTTP, stopped, killed. One binary, so that it is linked once.

mod binding;
mod contract;
mod durability;
mod errors;
mod faults;
mod hold;
mod jobs;
mod leases;
mod server;
