//! The store, as it is reached: the edge with its key, and other addresses without.

use std::time::Duration;

use crate::edge::Edge;

/// For how long nothing may go on before a call gives up, if nobody says otherwise.
const PATIENCE: Duration = Duration::from_secs(120);

/// The store of files behind an edge.
#[derive(Debug, Clone)]
pub struct Store {
    pub(crate) http: reqwest::Client,
    pub(crate) edge: Edge,
    pub(crate) patience: Duration,
}

impl Store {
    /// The store of this edge, should it have one. `http` is a client for its address ([`queues::http_client`]).
    pub fn new(http: reqwest::Client, edge: Edge) -> Self {
        Self { http, edge, patience: PATIENCE }
    }

    /// For how long a call tries again while nothing goes on. What it has done by then stays, and the next call goes on
    /// with it.
    #[must_use]
    pub fn patient_for(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }
}
