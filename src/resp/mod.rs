//! RESP2 and RESP3 on the wire: where a frame ends, what a request's arguments are, how replies are written.
//!
//! Everything works on borrowed bytes and never blocks, recurses or allocates per frame. `value` alone builds trees, with
//! the `redis-protocol` crate, for the control plane; the request path never uses it.

pub mod frame;
pub mod redirect;
pub mod request;
pub mod value;
pub mod write;

/// Version of the protocol that a connection speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// RESP2, which every connection starts with.
    #[default]
    Resp2,
    /// RESP3, after `HELLO 3`.
    Resp3,
}
