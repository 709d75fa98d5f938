//! Every key of a route.

use super::cors_keys::CORS;
use super::keys::{
    ALLOW, ANY_TIME, CLEARTEXT, DENY, HOST, LINK_LOCAL, LISTEN, PATH, POSITIVE, SOME_TIME, TLS_TABLE,
    TOKEN_PATH, egress_proxy,
};
use super::{Choice, Key, Kind, TableFormat};

pub(super) static ROUTE: TableFormat = TableFormat {
    name: "route",
    heading: "[route.NAME]",
    doc: "Where requests go and what they carry. Any one of `listen`, `host` and `path` is enough to match; the \
          most specific wins: listener, then host, then the longest path. A route alone with none of them takes \
          everything.",
    keys: &[&[
        Key::new(
            "provider",
            Kind::OneOf(&[
                Choice::new("aura"),
                Choice::new("neo4j"),
                Choice::new("neon"),
                Choice::new("generic"),
            ]),
            "What kind of service it talks to: decides the defaults and the shape of errors.",
        )
        .default("\"generic\""),
        Key::new(
            "path",
            Kind::AnyOf(&[PATH, Kind::List(&PATH)]),
            "Path prefix, removed before forwarding; one or a list; `/` takes all.",
        ),
        Key::new(
            "host",
            Kind::AnyOf(&[HOST, Kind::List(&HOST)]),
            "Host name that callers ask for; one or a list.",
        ),
        Key::new(
            "listen",
            LISTEN,
            "A listener of its own; opened for this route alone if `server.listen` has it not.",
        ),
        Key::new("upstream", Kind::Url, "Where its requests go, and nowhere else; may end in a path.")
            .default("aura: `https://api.neo4j.io`; neon: `https://console.neon.tech/api/v2`; else required"),
        Key::new(
            "credential",
            Kind::AnyOf(&[Kind::Text("NAME"), Kind::Off, Kind::Credential]),
            "What its requests carry: a name, a table with the same keys, or false: none.",
        )
        .default("required"),
        Key::new("connect_timeout", SOME_TIME, "How long connecting may take, TLS included.")
            .default("\"5s\""),
        Key::new(
            "response_timeout",
            Kind::AnyOf(&[SOME_TIME, Kind::OneOf(&[Choice::new("none")])]),
            "How long the head of an answer may take; \"none\": for ever.",
        )
        .default("\"60s\"; neo4j: \"none\""),
        Key::new(
            "replay_body",
            Kind::Size { zero: true },
            "Body bytes kept for a replay with a new token; 0 turns that off.",
        )
        .default("\"64KiB\""),
        Key::new(
            "refused_statuses",
            Kind::List(&Kind::Integer { min: 400, max: 499 }),
            "Upstream statuses that may mean that the token was refused.",
        )
        .default("[401]; aura: [401, 403]"),
        Key::new(
            "encoded_slash",
            Kind::OneOf(&[Choice::new("refuse"), Choice::new("pass")]),
            "What becomes of a path with `%2F`; \"pass\": it goes on as it is, as part of a name.",
        )
        .default("\"refuse\""),
        Key::new("tls", TLS_TABLE, "TLS towards the upstream."),
        egress_proxy("The HTTP proxy that leads to the upstream; false: none.").default("as in `[server]`"),
        CLEARTEXT,
        LINK_LOCAL,
        ALLOW,
        DENY,
        Key::new(
            "cors",
            Kind::Table(&CORS),
            "Lets web pages of these origins call, and answers CORS for them; all others stay refused.",
        ),
        Key::new(
            "read_only",
            Kind::Flag,
            "Lets only reading requests pass: GET, HEAD and OPTIONS; neo4j: queries too, in access mode READ.",
        )
        .default("false"),
        Key::new(
            "account",
            Kind::Text("alice"),
            "Which account of the credential its requests carry: a person's login, or one of `clients`.",
        )
        .default("a login's `default`; of several `clients`, `strategy` decides"),
        Key::new(
            "http",
            Kind::OneOf(&[Choice::new("auto"), Choice::new("1.1"), Choice::new("2")]),
            "HTTP towards the upstream; \"auto\": what both speak, agreed on in the TLS handshake, and 1.1 in clear \
             text; \"2\": in clear text as well.",
        )
        .default("\"auto\""),
        Key::new(
            "max_connections",
            POSITIVE,
            "Connections to the upstream at once; each worker has its share.",
        )
        .default("as many as there are requests"),
        Key::new(
            "max_queue",
            Kind::Integer { min: 0, max: 1_000_000 },
            "Requests that may wait for one of `max_connections`, for `connect_timeout` at most, else 503; each \
             worker has its share.",
        )
        .default("1024"),
        Key::new(
            "idle_timeout",
            SOME_TIME,
            "How long an unused connection to the upstream is kept; less where the upstream says so.",
        )
        .default("\"25s\""),
        Key::new(
            "pace",
            Kind::AnyOf(&[Kind::Rate, Kind::List(&Kind::Rate)]),
            "The most requests in a time, `20/s`, `125/min` or `1000/h`; one or a list, of which all hold.",
        ),
        Key::new("pace_wait", ANY_TIME, "How long a request may wait for its turn.").default("\"10s\""),
        Key::new(
            "local_token_endpoint",
            Kind::AnyOf(&[TOKEN_PATH, Kind::Off]),
            "The path, without the route's own prefix, at which sidekey itself answers clients that fetch a token; false: \
             none.",
        )
        .default("aura: `\"/oauth/token\"`; else none"),
        Key::new(
            "preserve_header_case",
            Kind::Flag,
            "HTTP/1.1: header names keep the case that they came in, both ways; else they are in lower case.",
        )
        .default("false"),
    ]],
    later: None,
};
