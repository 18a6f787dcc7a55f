//! The real program against a stand-in for the edge and the queue, for what the real ones cannot be made to do: errors,
//! garbage, duplicates, answers that break off. The whole path on real parts is tested in `tests/` of the workspace.

mod completions;
mod hub;
mod hub_server;
mod laptop;
mod logs;
mod many;
mod results;
mod server;
mod submit;
mod terminal;
mod wait;
mod woken;
