//! Configuration without a file: the environment's variables become the same tree that a file would, each piece
//! remembering the variable that it came from.

use super::context::Environment;
use super::diagnostic::{At, Collector, Report};
use super::document::{Node, Table};

/// A variable, and the one that names a file with its value.
#[derive(Clone, Copy)]
struct Variable {
    name: &'static str,
    file: &'static str,
}

/// A provider that the environment can configure.
struct Provider {
    name: &'static str,
    variables: &'static [Variable],
    listen: &'static str,
    credential: fn(&[Option<Node>]) -> Option<Node>,
}

const AURA: [Variable; 2] = [
    Variable { name: "AURA_CLIENT_ID", file: "AURA_CLIENT_ID_FILE" },
    Variable { name: "AURA_CLIENT_SECRET", file: "AURA_CLIENT_SECRET_FILE" },
];
const NEO4J: [Variable; 3] = [
    Variable { name: "NEO4J_URI", file: "NEO4J_URI_FILE" },
    Variable { name: "NEO4J_USERNAME", file: "NEO4J_USERNAME_FILE" },
    Variable { name: "NEO4J_PASSWORD", file: "NEO4J_PASSWORD_FILE" },
];
const NEON: [Variable; 1] = [Variable { name: "NEON_API_KEY", file: "NEON_API_KEY_FILE" }];
const CALLER_TOKEN: Variable = Variable { name: "SIDEKEY_CALLER_TOKEN", file: "SIDEKEY_CALLER_TOKEN_FILE" };
/// The caller that has the token of the environment.
const CALLER: &str = "default";

const PROVIDERS: [Provider; 3] = [
    Provider { name: "aura", variables: &AURA, listen: "SIDEKEY_AURA_LISTEN", credential: aura },
    Provider { name: "neo4j", variables: &NEO4J, listen: "SIDEKEY_NEO4J_LISTEN", credential: neo4j },
    Provider { name: "neon", variables: &NEON, listen: "SIDEKEY_NEON_LISTEN", credential: neon },
];

/// The tree that the provider variables stand for; a report if they stand for nothing.
pub(super) fn tree(environment: &Environment, out: &mut Collector) -> Result<Table, Report> {
    let mut routes = Vec::new();
    let sole = PROVIDERS.iter().filter(|provider| provider.wanted(environment)).count() == 1;
    for provider in &PROVIDERS {
        if provider.wanted(environment) {
            routes.extend(provider.route(sole, environment, out).map(|route| (provider.name, route)));
        } else if environment.has(provider.listen) {
            let names: Vec<&str> = provider.variables.iter().map(|variable| variable.name).collect();
            let help = format!("export {} too, or remove it", names.join(" and "));
            out.error(At::Variable(provider.listen), "there is nothing to listen for", help);
        }
    }
    if routes.is_empty() && !out.has_errors() {
        return Err(Report::whole(
            "environment",
            "no configuration: there is no file, and no variable names a provider",
            "export AURA_CLIENT_ID and AURA_CLIENT_SECRET; or NEO4J_URI, NEO4J_USERNAME and NEO4J_PASSWORD; or \
             NEON_API_KEY; or write a file with `sidekey init`; or look around with `sidekey demo`",
        ));
    }
    let mut root = Table { at: At::Whole, entries: Vec::new() };
    root.set("route", Node::table(At::Whole, routes));
    Ok(root)
}

/// Lets `SIDEKEY_LISTEN`, `SIDEKEY_ADMIN` and `SIDEKEY_HOSTS` override the file's `[server]`, and
/// `SIDEKEY_CALLER_TOKEN` the token of `[caller.default]`.
pub(super) fn override_server(root: &mut Table, environment: &Environment, out: &mut Collector) {
    for (variable, key) in
        [("SIDEKEY_LISTEN", "listen"), ("SIDEKEY_ADMIN", "admin"), ("SIDEKEY_HOSTS", "hosts")]
    {
        let Some(text) = text(variable, environment, out) else {
            continue;
        };
        let at = At::Variable(variable);
        let node = match (key, text.as_str()) {
            ("admin", "false") => Node::flag(at, false),
            ("admin", _) => Node::text(at, text),
            _ => list(at, &text),
        };
        if let Some(server) = root.table_mut("server") {
            server.set(key, node);
        }
    }
    for name in [CALLER_TOKEN.name, CALLER_TOKEN.file].into_iter().filter(|name| environment.is_empty(name)) {
        // Taken for unset, it would let in whom it is to keep out.
        out.error(
            At::Variable(name),
            "is empty",
            "export a token, or unset it: whoever connects gets in then",
        );
    }
    if let Some(token) = CALLER_TOKEN.reference(environment, out)
        && let Some(callers) = root.table_mut("caller")
        && let Some(caller) = callers.table_mut(CALLER)
    {
        caller.set("token", token);
    }
}

/// With a file, the variables that only add to a configuration without one do nothing.
pub(super) fn warn_of_idle_variables(environment: &Environment, out: &mut Collector) {
    for provider in PROVIDERS.iter().filter(|provider| environment.has(provider.listen)) {
        let help = format!("write `listen` in [route.{}]", provider.name);
        out.warn(At::Variable(provider.listen), "has no effect with a configuration file", help);
    }
}

impl Provider {
    fn wanted(&self, environment: &Environment) -> bool {
        self.variables.iter().any(|variable| environment.has(variable.name) || environment.has(variable.file))
    }

    fn route(&self, sole: bool, environment: &Environment, out: &mut Collector) -> Option<Node> {
        let given: Vec<Option<Node>> =
            self.variables.iter().map(|variable| variable.reference(environment, out)).collect();
        let present: Vec<&str> =
            self.variables.iter().filter_map(|variable| variable.present(environment)).collect();
        for variable in self.variables.iter().filter(|variable| variable.present(environment).is_none()) {
            let message = format!("is missing or empty, though {} is set", present.join(" and "));
            out.error(
                At::Variable(variable.name),
                message,
                format!("export {} or {}", variable.name, variable.file),
            );
        }
        let at = given.iter().flatten().next()?.at;
        let mut paths = vec![Node::text(at, format!("/{}", self.name))];
        if sole {
            paths.push(Node::text(at, "/"));
        }
        let mut entries = vec![
            ("provider", Node::text(at, self.name)),
            ("path", Node::list(at, paths)),
            ("host", Node::text(at, format!("{}.localhost", self.name))),
            ("credential", (self.credential)(&given)?),
        ];
        if let Some(text) = text(self.listen, environment, out) {
            entries.push(("listen", list(At::Variable(self.listen), &text)));
        }
        if self.name == "neo4j" {
            entries.push(("upstream", neo4j_address(given.first()?.as_ref()?, environment, out)?));
        }
        Some(Node::table(at, entries))
    }
}

impl Variable {
    fn present(&self, environment: &Environment) -> Option<&'static str> {
        [self.name, self.file].into_iter().find(|name| environment.has(name))
    }

    /// `{ env = "NAME" }` or `{ file = "PATH" }`.
    fn reference(&self, environment: &Environment, out: &mut Collector) -> Option<Node> {
        match (environment.has(self.name), environment.has(self.file)) {
            (true, true) => {
                let message = format!("{} is set too", self.file);
                out.error(At::Variable(self.name), message, "unset one of the two");
                None
            }
            (true, false) => {
                let at = At::Variable(self.name);
                Some(Node::table(at, vec![("env", Node::text(at, self.name))]))
            }
            (false, true) => {
                let at = At::Variable(self.file);
                let path = text(self.file, environment, out)?;
                Some(Node::table(at, vec![("file", Node::text(at, path))]))
            }
            (false, false) => None,
        }
    }
}

fn aura(given: &[Option<Node>]) -> Option<Node> {
    let [Some(id), Some(secret)] = given else {
        return None;
    };
    let entries = vec![
        ("type", Node::text(id.at, "aura")),
        ("client_id", id.clone()),
        ("client_secret", secret.clone()),
    ];
    Some(Node::table(id.at, entries))
}

fn neo4j(given: &[Option<Node>]) -> Option<Node> {
    let [_, Some(username), Some(password)] = given else {
        return None;
    };
    let entries = vec![
        ("type", Node::text(username.at, "basic")),
        ("username", username.clone()),
        ("password", password.clone()),
    ];
    Some(Node::table(username.at, entries))
}

fn neon(given: &[Option<Node>]) -> Option<Node> {
    let [Some(key)] = given else { return None };
    let entries = vec![
        ("type", Node::text(key.at, "bearer")),
        ("token", key.clone()),
        ("hosts", Node::list(key.at, vec![Node::text(key.at, "console.neon.tech")])),
    ];
    Some(Node::table(key.at, entries))
}

/// The HTTP address behind `NEO4J_URI`: the console gives one for Bolt.
fn neo4j_address(reference: &Node, environment: &Environment, out: &mut Collector) -> Option<Node> {
    let at = reference.at;
    let entry = reference.as_table()?.entries.first()?;
    let name = entry.node.as_text()?;
    let read = match entry.key.as_str() {
        "env" => environment.secret(name),
        _ => crate::secret::read_file(std::path::Path::new(name)),
    };
    let uri = match read {
        Ok(uri) => uri.expose().to_owned(),
        // Left as it is: the conversion says what is wrong with it, or puts a placeholder there.
        Err(_) => return Some(reference.clone()),
    };
    let text = match uri.split_once("://") {
        Some(("neo4j+s" | "bolt+s", rest)) => {
            let host = rest.trim_end_matches('/');
            format!("https://{}", host.strip_suffix(":7687").unwrap_or(host))
        }
        Some((scheme @ ("neo4j+ssc" | "bolt+ssc"), _)) => {
            out.error(
                at,
                format!("{scheme}:// trusts any certificate, which sidekey never does"),
                "give the HTTPS address, https://HOST:7473, and write a file with its certificate in tls = { ca = \
                 \"PATH\" }",
            );
            return None;
        }
        Some((scheme @ ("neo4j" | "bolt"), rest)) => {
            let host = rest.split([':', '/', '?']).next().unwrap_or_default();
            let host = if rest.contains('@') || host.is_empty() { "HOST" } else { host };
            out.error(
                at,
                format!("{scheme}:// is Bolt, and sidekey speaks HTTP"),
                format!("give the HTTP address: http://{host}:7474"),
            );
            return None;
        }
        _ => uri,
    };
    Some(Node::text(at, text))
}

/// A comma-separated list.
fn list(at: At, text: &str) -> Node {
    let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
    Node::list(at, items.map(|item| Node::text(at, item)).collect())
}

/// The variable's text; none if unset, empty, or, which is an error, not text.
fn text(name: &'static str, environment: &Environment, out: &mut Collector) -> Option<String> {
    match environment.path(name)?.into_os_string().into_string() {
        Ok(text) => Some(text),
        Err(_) => {
            out.error(At::Variable(name), "is not UTF-8 text", "give it plain text");
            None
        }
    }
}
