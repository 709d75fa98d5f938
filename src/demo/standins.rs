//! Stand-ins of Aura, a Neo4j server, Neon and Neon's authorization server on loopback, for the demo and for tests.
//!
//! Each listens on a free port of 127.0.0.1, keeps a [`Record`] of what it received, and stops when its handle
//! is dropped. None of them holds anything real: their credentials are made up, their data is fixed.
//!
//! Every stand-in of an API also answers these, under any path prefix and after the same authorization check as its API:
//!
//! | path | answer |
//! |---|---|
//! | `/echo` | JSON of the method, the path, the headers as a list, the body's length and [`Checksum`] |
//! | `/bytes/N` | N bytes in chunks of 64 KiB, with Content-Length, never held at once |
//! | `/cut/N` | the same, but the connection breaks after half of them |
//! | `/sink` | reads the body and answers `{"bytes":N}` |
//! | `/slow/MS` | an answer after MS milliseconds |
//! | `/status/CODE` | an empty answer with this status, 200 to 599 |
//! | `/small` | a fixed short text, cheap to make |

pub mod aura;
pub mod authorization;
pub mod neo4j;
pub mod neon;
pub mod record;
pub mod tokens;

mod body;
mod helpers;
mod oauth;
mod serve;

pub use aura::Aura;
pub use authorization::AuthorizationServer;
pub use body::Checksum;
pub use neo4j::Neo4j;
pub use neon::Neon;
pub use oauth::Fault;
pub use record::{Record, Seen};
pub use tokens::Tokens;
