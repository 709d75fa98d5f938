//! Every type of credential and its keys.

use super::keys::{CLEARTEXT, LINK_LOCAL, PEERS, POSITIVE, SOME_TIME, TEXT, TEXTS, TLS_TABLE, egress_proxy};
use super::{Choice, Key, Kind, TableFormat};

/// The keys that every type has.
pub(crate) const COMMON: &[Key] = &[
    Key::new("required", Kind::Flag, "Does readiness wait for it?").default("true; false for logins"),
    Key::new(
        "hosts",
        PEERS,
        "The only upstream hosts that it may go to: exact, or `*.suffix`; after either may stand a port.",
    )
    .default("any; aura: `api.neo4j.io` and this machine; neon_oauth: `console.neon.tech` and this machine"),
    Key::new("lease_timeout", SOME_TIME, "How long a request may wait for a token.").default("\"10s\""),
    Key::new("lease_queue", POSITIVE, "How many requests may wait for a token at once.").default("1024"),
    Key::new("margin", SOME_TIME, "How long before its expiry a token is refreshed at the latest.")
        .default("chosen by its lifetime"),
    Key::new(
        "idle_account",
        SOME_TIME,
        "How long an account may be unused before its token is let go; the next request fetches a new one.",
    )
    .default("for ever"),
];
const ENCODING: &[Key] = &[Key::new(
    "encoding",
    Kind::OneOf(&[Choice::new("plain"), Choice::new("base64")]),
    "How the token stands in the header.",
)
.default("\"plain\"")];
const CLIENT_ID: Key = Key::new("client_id", TEXT, "The client's id; required without `clients`.");
const CLIENT_SECRET: Key = Key::new(
    "client_secret",
    Kind::Secret,
    "Its secret; required unless `auth_method` is \"none\" or \"private_key_jwt\".",
);
const SIGNING: &[Key] = &[
    Key::new(
        "private_key",
        Kind::Secret,
        "What signs the client's assertions, as PEM; required with `auth_method` \"private_key_jwt\".",
    ),
    Key::new("key_id", TEXT, "The private key's id at the server (`kid`)."),
    Key::new(
        "key_algorithm",
        Kind::OneOf(&[
            Choice::new("RS256"),
            Choice::new("PS256"),
            Choice::new("ES256"),
            Choice::new("EdDSA"),
        ]),
        "How the private key signs.",
    )
    .default("\"RS256\""),
];
const API_CLIENTS: Kind = Kind::List(&Kind::Table(&API_CLIENT));
const SCOPE: Key = Key::new("scope", Kind::AnyOf(&[TEXT, TEXTS]), "Scopes to ask for; one text or a list.");
const TLS: Key = Key::new("tls", TLS_TABLE, "TLS towards the authorization server.");
const EGRESS: Key = egress_proxy("The HTTP proxy that leads to the authorization server; false: none.")
    .default("as in `[server]`");
const FETCH_TIMEOUT: Key =
    Key::new("fetch_timeout", SOME_TIME, "How long one fetch may take.").default("\"10s\"");
const PARAMS: Key =
    Key::new("params", Kind::Fields, "More form fields for the token endpoint, as `{ name = \"value\" }`.");
const ACCOUNT_HEADER: Key = Key::new(
    "account_header",
    Kind::Text("Sidekey-Account"),
    "The header in which callers name the account; removed before forwarding.",
);
const CLIENT: &[Key] = &[
    CLIENT_ID,
    CLIENT_SECRET,
    Key::new("clients", API_CLIENTS, "Several API clients behind one credential."),
    Key::new(
        "strategy",
        Kind::OneOf(&[Choice::new("failover"), Choice::new("spread")]),
        "How several clients are used: the first that works, or each in turn.",
    )
    .default("\"failover\""),
    ACCOUNT_HEADER,
    SCOPE,
    Key::new("audience", TEXT, "Audience to ask for."),
    PARAMS,
    TLS,
    EGRESS,
    CLEARTEXT,
    LINK_LOCAL,
    FETCH_TIMEOUT,
];
const AUTH_METHODS: Kind = Kind::OneOf(&[
    Choice::new("basic"),
    Choice::new("post"),
    Choice::new("none"),
    Choice::new("private_key_jwt"),
]);
const AUTH_METHOD: Key =
    Key::new("auth_method", AUTH_METHODS, "How the client shows who it is.").default("\"basic\"");
const BASIC_ENCODING: Key = Key::new(
    "basic_encoding",
    Kind::OneOf(&[Choice::new("form"), Choice::new("raw")]),
    "Are id and secret form-encoded before they go into Basic (RFC 6749 §2.3.1)?",
)
.default("\"form\"");
const REGISTERED: &[Key] = &[
    Key::new("client_id", TEXT, "The client's id.").required(),
    CLIENT_SECRET,
    BASIC_ENCODING,
    Key::new(
        "redirect_uri",
        Kind::Text("http://127.0.0.1:7601/callback"),
        "Where the browser returns to, exactly as registered: `http://` on `localhost`, `127.x.x.x` or `[::1]`.",
    )
    .required(),
];
const LOGIN: &[Key] = &[
    Key::new("login_timeout", SOME_TIME, "How long a person may take for a login.").default("\"10m\""),
    Key::new(
        "auth_params",
        Kind::Fields,
        "More query fields for the page where the browser logs in, as `{ name = \"value\" }`.",
    ),
    PARAMS,
    ACCOUNT_HEADER,
    TLS,
    EGRESS,
    CLEARTEXT,
    LINK_LOCAL,
    FETCH_TIMEOUT,
];

static API_CLIENT: TableFormat = TableFormat {
    name: "client",
    heading: "clients = [{ … }]",
    doc: "One of several API clients behind one credential.",
    keys: &[
        &[
            Key::new(
                "name",
                Kind::Text("first"),
                "Its name for logs and status, and for those who choose an account.",
            )
            .required(),
            Key::new("client_id", TEXT, "The client's id.").required(),
            CLIENT_SECRET,
        ],
        SIGNING,
    ],
    later: None,
};

/// Every type of credential, by its `type`.
pub(crate) static CREDENTIALS: &[TableFormat] = &[
    TableFormat {
        name: "basic",
        heading: "type = \"basic\"",
        doc: "`Authorization: Basic`.",
        keys: &[
            &[
                Key::new("username", Kind::Text("neo4j"), "Without a colon.").required(),
                Key::new("password", Kind::Secret, "The password.").required(),
            ],
            COMMON,
        ],
        later: None,
    },
    TableFormat {
        name: "bearer",
        heading: "type = \"bearer\"",
        doc: "`Authorization: Bearer` with a token or API key that does not change by itself.",
        keys: &[&[Key::new("token", Kind::Secret, "The token.").required()], ENCODING, COMMON],
        later: None,
    },
    TableFormat {
        name: "client_credentials",
        heading: "type = \"client_credentials\"",
        doc: "OAuth 2.0 client credentials (RFC 6749 §4.4).",
        keys: &[
            &[
                Key::new("token_url", Kind::Url, "Where tokens are asked for.").required(),
                AUTH_METHOD,
                BASIC_ENCODING,
            ],
            CLIENT,
            SIGNING,
            ENCODING,
            COMMON,
        ],
        later: None,
    },
    TableFormat {
        name: "aura",
        heading: "type = \"aura\"",
        doc: "Client credentials as the Aura API takes them: HTTP Basic, raw.",
        keys: &[
            &[Key::new("token_url", Kind::Url, "Where tokens are asked for.")
                .default("\"https://api.neo4j.io/oauth/token\"")],
            CLIENT,
            ENCODING,
            COMMON,
        ],
        later: None,
    },
    TableFormat {
        name: "exec",
        heading: "type = \"exec\"",
        doc: "A command that prints `{\"access_token\", \"expires_in\" or \"expires_at\"}`, run without a shell.",
        keys: &[
            &[
                Key::new("command", Kind::List(&Kind::Text("helper")), "Program and arguments.").required(),
                Key::new("timeout", SOME_TIME, "How long it may run.").default("\"10s\""),
            ],
            ENCODING,
            COMMON,
        ],
        later: None,
    },
    TableFormat {
        name: "header",
        heading: "type = \"header\"",
        doc: "A header of any name, for keys that do not travel in Authorization.",
        keys: &[
            &[
                Key::new("name", Kind::Text("Neon-Connection-String"), "The header's name.").required(),
                Key::new("value", Kind::Secret, "Its whole value.").required(),
            ],
            COMMON,
        ],
        later: None,
    },
    TableFormat {
        name: "authorization_code",
        heading: "type = \"authorization_code\"",
        doc: "A login in the browser (RFC 6749 §4.1, with PKCE). Either `issuer` alone, and its metadata says where \
              everything is; or `auth_url` and `token_url`.",
        keys: &[
            &[
                Key::new(
                    "issuer",
                    Kind::Url,
                    "The server's issuer identifier, exactly; beside `auth_url` and `token_url` it is only compared \
                     (RFC 9207).",
                ),
                Key::new("auth_url", Kind::Url, "Where the browser logs in."),
                Key::new("token_url", Kind::Url, "Where tokens are asked for."),
                Key::new("revoke_url", Kind::Url, "Where grants are revoked (RFC 7009).")
                    .default("a logout only forgets them"),
                AUTH_METHOD,
            ],
            REGISTERED,
            &[SCOPE],
            LOGIN,
            SIGNING,
            ENCODING,
            COMMON,
        ],
        later: None,
    },
    TableFormat {
        name: "neon_oauth",
        heading: "type = \"neon_oauth\"",
        doc: "The login as Neon takes it: `authorization_code` at `oauth2.neon.tech`.",
        keys: &[
            &[
                Key::new(
                    "issuer",
                    Kind::Url,
                    "The server's issuer identifier; alone, its metadata says where everything is.",
                )
                .default("\"https://oauth2.neon.tech/\""),
                Key::new("auth_url", Kind::Url, "Where the browser logs in.")
                    .default("\"https://oauth2.neon.tech/oauth2/auth\""),
                Key::new("token_url", Kind::Url, "Where tokens are asked for.")
                    .default("\"https://oauth2.neon.tech/oauth2/token\""),
                Key::new("revoke_url", Kind::Url, "Where grants are revoked (RFC 7009).").default(
                    "\"https://oauth2.neon.tech/oauth2/revoke\"; none with an `auth_url` of your own",
                ),
                Key::new("auth_method", AUTH_METHODS, "How the client shows who it is, as registered.")
                    .default("\"post\""),
            ],
            REGISTERED,
            &[Key::new(
                "scope",
                Kind::AnyOf(&[TEXT, TEXTS]),
                "Scopes to ask for; without `offline` or `offline_access` a login lasts an hour.",
            )
            .default("`openid offline offline_access`")],
            LOGIN,
            SIGNING,
            ENCODING,
            COMMON,
        ],
        later: None,
    },
];
