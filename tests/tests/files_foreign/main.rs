//! Files between programs of ours and programs that nobody here wrote: clients of S3 against the store of `local-edge`,
//! and servers that speak S3 as the object store of both edges.

mod clients;
mod servers;
