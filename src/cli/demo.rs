//! `sidekey demo`: sidekey in front of stand-ins, and lines to try; or the tour, made by itself.

use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderValue, Request};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::signal::unix::{SignalKind, signal};

use super::run::banner;
use super::{Failure, runtime, say};
use crate::app::App;
use crate::clock::Clock;
use crate::config::{self, Config, Environment, LoadOptions, Source};
use crate::credential::Vault;
use crate::demo::{Lab, Stop};

/// Where the demo listens if nobody else does.
const USUAL: &str = "127.0.0.1:7600";
const ANY: &str = "127.0.0.1:0";

pub(super) fn run(once: bool) -> Result<(), Failure> {
    runtime()?.block_on(async {
        let lab = Lab::start()
            .await
            .map_err(|error| Failure::Running(format!("cannot start the stand-ins: {error}")))?;
        if once { tour(&lab).await } else { show(&lab).await }
    })
}

fn configure(lab: &Lab, listen: &str) -> Result<Config, Failure> {
    let source = Source::Text { name: "the demo".to_owned(), text: lab.configuration(listen) };
    let loaded = config::load(&source, &Environment::default(), LoadOptions::default());
    loaded.map(|loaded| loaded.config).map_err(|report| Failure::Configuration(report.to_string()))
}

/// Serves until interrupted, and prints lines to try.
async fn show(lab: &Lab) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::Running(format!("cannot handle signals: {error}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let clock = Clock::system();
    let mut config = configure(lab, USUAL)?;
    let app = match App::start(&config, &clock, Vault::in_memory(&clock)) {
        Ok(app) => app,
        // Somebody else has the usual port: a demo can do with another one.
        Err(_) => {
            config = configure(lab, ANY)?;
            App::start(&config, &clock, Vault::in_memory(&clock))?
        }
    };
    let base = app.addresses()[0].text.clone();
    say(banner(&config, app.addresses()));
    say("\nThe upstreams are stand-ins on this machine, and their credentials are made up. Try:\n");
    for stop in lab.tour() {
        say(format_args!("  # {}\n  {}", stop.title, curl(&base, &stop)));
    }
    say(format_args!(
        "\n  # a web page of another site is refused\n  curl -i -H 'Origin: https://evil.example' http://{base}/aura/v1/instances"
    ));
    say(
        "\nAura's tokens live for 20 s here; sidekey refreshes them before they expire. Ctrl-C ends the demo.",
    );
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    app.stop().await;
    Ok(())
}

fn curl(base: &str, stop: &Stop<'_>) -> String {
    match stop.body {
        None => format!("curl http://{base}{}", stop.path),
        Some(body) => {
            format!("curl -H 'Content-Type: application/json' -d '{body}' http://{base}{}", stop.path)
        }
    }
}

/// Makes every stop of the tour and prints both ends of it.
async fn tour(lab: &Lab) -> Result<(), Failure> {
    let config = configure(lab, ANY)?;
    let clock = Clock::system();
    let app = App::start(&config, &clock, Vault::in_memory(&clock))?;
    let base = app.addresses()[0].text.clone();
    let mut wrong = Vec::new();
    for stop in lab.tour() {
        say(format_args!("── {}", stop.title));
        match visit(&base, &stop).await {
            Ok(true) => {}
            Ok(false) => wrong.push(stop.title),
            Err(error) => {
                say(format_args!("failed: {error}"));
                wrong.push(stop.title);
            }
        }
        say("");
    }
    app.stop().await;
    if wrong.is_empty() {
        return Ok(());
    }
    Err(Failure::Running(format!("not as it should be: {}", wrong.join("; "))))
}

/// One stop: sends, prints what went over both wires, and says whether it was as it should be.
async fn visit(base: &str, stop: &Stop<'_>) -> Result<bool, Box<dyn std::error::Error + Send + Sync>> {
    let mut request = Request::builder()
        .method(stop.method)
        .uri(stop.path)
        .header(HOST, base)
        .header(ACCEPT, "application/json")
        // A caller's own is replaced, whatever it says.
        .header(AUTHORIZATION, HeaderValue::from_static("Bearer mine"))
        .body(Full::new(bytes::Bytes::from(stop.body.unwrap_or_default())))?;
    if stop.body.is_some() {
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    say(format_args!("the caller sent\n    {} {}", stop.method, stop.path));
    say(lines(request.headers()));
    let stream = TcpStream::connect(base).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let driven = tokio::spawn(connection);
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    drop(sender);
    driven.await??;
    let received = stop.record.take();
    let token = received.iter().find(|seen| seen.token_request);
    let Some(seen) = received.iter().find(|seen| !seen.token_request) else {
        return Err("the upstream received nothing".into());
    };
    if let Some(token) = token {
        say(format_args!("the token endpoint received, once\n{}", indented(token)));
    }
    say(format_args!("the upstream received\n{}", indented(seen)));
    say(format_args!("the caller got\n    {status}\n    {}", String::from_utf8_lossy(&body)));
    let authorized = seen.header("authorization").is_some_and(|value| value != "Bearer mine");
    Ok(status.is_success() && authorized)
}

fn lines(headers: &HeaderMap) -> String {
    let line = |(name, value): (&http::HeaderName, &HeaderValue)| match *name {
        AUTHORIZATION => format!("    {name}: Bearer (the caller's own, worth nothing)"),
        _ => format!("    {name}: {}", String::from_utf8_lossy(value.as_bytes())),
    };
    headers.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn indented(text: &impl std::fmt::Display) -> String {
    text.to_string().lines().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
}
