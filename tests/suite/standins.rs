//! The stand-ins behave like the providers that they stand for, over real sockets.
#![cfg(feature = "demo")]

mod aura;
mod authorization;
mod common;
mod neo4j;
mod neon;

use std::net::SocketAddr;

use crate::support::{Reply, basic, post};
use sidekey::demo::standins::Aura;

const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");
const GRANT: &str = "grant_type=client_credentials";

async fn start_aura() -> Aura {
    Aura::builder().client("id", "s:cret").client("other", "secret").start().await.expect("start")
}

async fn ask_token(addr: SocketAddr) -> Reply {
    post(addr, "/oauth/token", &[("authorization", &basic("id", "s:cret")), FORM], GRANT).await
}

async fn token(aura: &Aura) -> String {
    ask_token(aura.addr()).await.json()["access_token"].as_str().expect("a token").to_owned()
}
