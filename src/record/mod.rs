//! What happened: one [`RequestRecord`] a request, one [`PointRecord`] a load point.
//!
//! **Invariant:** raw facts only. Every figure of a report can be computed again from these.

mod point;
mod request;

pub use point::{
    Certificate, Check, ClientFacts, ModelCounts, PointRecord, PointStatus, ServerFacts, ServerMetrics, ServerWindow,
    SocketQueue,
};
pub use request::{RequestError, RequestKind, RequestRecord, RequestStatus, ServerSaid, TokenSource};
