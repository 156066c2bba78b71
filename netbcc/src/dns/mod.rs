//! DNS answers seen on the wire, and the names they gave to addresses: what `tcpconnect -d` needs in user space.
//!
//! [`parse`] turns the payload of a UDP packet into an [`Answer`]; [`Cache`] remembers which question led to which
//! address and writes the text of the `QUERY` column.
//!
//! Everything in a payload is hostile. Nothing here panics on it, loops on it, or allocates more than a message of
//! [`MAX_PAYLOAD`] bytes can justify. Names keep their raw bytes: the output layer escapes what it prints.

mod cache;
mod message;

pub use cache::Cache;
pub use message::{Answer, MAX_PAYLOAD, Name, is_cut, parse, repeats};
