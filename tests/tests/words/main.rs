//! Every word that the programs say to a person who asks for help, makes a mistake, or looks at what is there: as it
//! was when somebody last read it and found it right. The files in `golden/` are made by the programs
//! (`SNAPSHOTS=overwrite`, see CONTRIBUTING.md), and read by people; what differs from run to run has a name there.
//!
//! Out of scope: what the programs do. A word that a test needs for that stands in the test.

mod cluster;
mod doctor;
mod edge;
mod help;
mod laptop;
mod service;
mod setup;
mod transcript;
