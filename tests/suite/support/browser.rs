//! A browser of a test: goes where it is sent and keeps its cookies, by host and path but not by port, as browsers do.

use http::Method;
use url::Url;

use super::{Headers, Reply, send};

/// What comes with a window that follows a link of another site.
const FROM_ELSEWHERE: [(&str, &str); 3] =
    [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")];

#[derive(Debug, Default)]
pub(crate) struct Browser {
    pub(crate) cookies: Vec<Cookie>,
}

#[derive(Debug, Clone)]
pub(crate) struct Cookie {
    host: String,
    path: String,
    pub(crate) name: String,
    pub(crate) value: String,
}

impl Browser {
    /// One request, as a window that follows a link.
    pub(crate) async fn go(&mut self, url: &str) -> Reply {
        self.request(Method::GET, url, &FROM_ELSEWHERE, "").await
    }

    /// Goes there and wherever that leads, to the page where it ends.
    pub(crate) async fn follow(&mut self, url: &str) -> (Url, Reply) {
        let mut at = Url::parse(url).expect("a URL");
        for _ in 0..10 {
            let reply = self.go(at.as_str()).await;
            match reply.header("location") {
                Some(to) if reply.status == 303 => at = at.join(to).expect("a URL"),
                _ => return (at, reply),
            }
        }
        panic!("sent on and on, to {at}");
    }

    pub(crate) async fn request(
        &mut self,
        method: Method,
        url: &str,
        headers: Headers<'_>,
        body: &str,
    ) -> Reply {
        let url = Url::parse(url).expect("a URL");
        let host = url.host_str().expect("a host").to_owned();
        let port = url.port_or_known_default().expect("a port");
        let ip: std::net::IpAddr =
            host.trim_matches(['[', ']']).parse().unwrap_or(std::net::Ipv4Addr::LOCALHOST.into());
        let named = format!("{host}:{port}");
        let fits = |cookie: &&Cookie| cookie.host == host && url.path().starts_with(&cookie.path);
        let cookies: Vec<String> = self
            .cookies
            .iter()
            .filter(fits)
            .map(|cookie| format!("{}={}", cookie.name, cookie.value))
            .collect();
        let cookies = cookies.join("; ");
        let mut all = vec![("host", named.as_str())];
        if !cookies.is_empty() {
            all.push(("cookie", &cookies));
        }
        all.extend(headers);
        let target = &url[url::Position::BeforePath..url::Position::AfterQuery];
        let reply = send((ip, port).into(), method, target, &all, body.to_owned()).await;
        for (_, value) in reply.headers.iter().filter(|(name, _)| name == "set-cookie") {
            self.keep(&host, value);
        }
        reply
    }

    fn keep(&mut self, host: &str, text: &str) {
        let mut parts = text.split(';').map(str::trim);
        let (name, value) = parts.next().and_then(|pair| pair.split_once('=')).expect("a cookie");
        let attributes: Vec<&str> = parts.collect();
        let attribute = |name: &str| attributes.iter().find_map(|text| text.strip_prefix(name));
        let path = attribute("Path=").expect("a path").to_owned();
        self.cookies.retain(|cookie| !(cookie.host == host && cookie.name == name && cookie.path == path));
        if attribute("Max-Age=") != Some("0") {
            let (host, name, value) = (host.to_owned(), name.to_owned(), value.to_owned());
            self.cookies.push(Cookie { host, path, name, value });
        }
    }
}
