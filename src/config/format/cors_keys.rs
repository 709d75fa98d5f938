//! The keys of a route's `cors`.

use super::keys::ANY_TIME;
use super::{Key, Kind, TableFormat};

const ORIGIN: Kind = Kind::Text("https://app.example.com");

pub(super) static CORS: TableFormat = TableFormat {
    name: "cors",
    heading: "cors = { origins = [\"…\"], … }",
    doc: "The web pages that a route is open to. sidekey answers CORS by itself, preflights and errors of its own \
          included; nothing of it reaches the upstream or comes from there.",
    keys: &[&[
        Key::new(
            "origins",
            Kind::AnyOf(&[ORIGIN, Kind::List(&ORIGIN)]),
            "Where the pages are from, as `scheme://host` or `scheme://host:port`, each in full; one or a list.",
        )
        .required(),
        Key::new(
            "credentials",
            Kind::Flag,
            "Lets pages send what the browser keeps for this address (`credentials: \"include\"`): cookies, a client \
             certificate, a password that it asked for. A header that the page sets itself needs none of this.",
        )
        .default("false"),
        Key::new(
            "expose",
            Kind::List(&Kind::Text("X-Total-Count")),
            "Headers of answers that pages may read, besides those that any page may and `ETag`, `Link`, `Location`, \
             `Neo4j-Cluster-Affinity`, `Proxy-Status`, `Retry-After`, `Sidekey-Error`, `WWW-Authenticate` and `X-Request-Id`.",
        ),
        Key::new("max_age", ANY_TIME, "How long a browser may remember the answer to a preflight.")
            .default("\"10m\""),
    ]],
    later: None,
};
