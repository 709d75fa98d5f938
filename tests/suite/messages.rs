//! Raw messages, both ways: for each, what the upstream receives byte for byte, and what the caller gets. None is ever
//! forwarded as two. The messages are in `messages/*.txt`; `messages/table.rs` tells how they are written.
#![cfg(feature = "demo")]

mod compare;
mod play;
mod strict;
mod table;

use std::time::Duration;

use play::{Failure, Manner, play};

/// The files whose messages must do as they say.
const GROUPS: [(&str, &str); 6] = [
    ("request_framing", include_str!("messages/request_framing.txt")),
    ("request_headers", include_str!("messages/request_headers.txt")),
    ("methods", include_str!("messages/methods.txt")),
    ("pipelines", include_str!("messages/pipelines.txt")),
    ("answer_framing", include_str!("messages/answer_framing.txt")),
    ("answer_headers", include_str!("messages/answer_headers.txt")),
];

/// Each piece is sent at once.
const AT_ONCE: Manner = Manner { patience: Duration::from_secs(10), dribbles: false };

/// Plays a group, all its messages at the same time, and tells of every one that does not do as it says.
async fn run(group: &str, manner: Manner) {
    let (_, text) = GROUPS.iter().find(|(name, _)| *name == group).expect("a group");
    let mut entries = table::entries(text);
    entries.retain(|entry| !(manner.dribbles && entry.together));
    let failures = play(&entries, manner).await;
    let report: String =
        failures.iter().map(|Failure { name, why }| format!("\n# {name}\n{why}\n")).collect();
    assert!(failures.is_empty(), "{} messages of {group} do not do as they say:\n{report}", failures.len());
}

#[tokio::test]
async fn a_request_leaves_as_one_unambiguous_message_or_not_at_all() {
    run("request_framing", AT_ONCE).await;
}

#[tokio::test]
async fn a_requests_header_leaves_clean_and_in_order() {
    run("request_headers", AT_ONCE).await;
}

#[tokio::test]
async fn each_method_is_what_the_standard_says() {
    run("methods", AT_ONCE).await;
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order_until_one_is_refused() {
    run("pipelines", AT_ONCE).await;
}

#[tokio::test]
async fn an_answer_arrives_as_one_unambiguous_message_or_as_an_error() {
    run("answer_framing", AT_ONCE).await;
}

#[tokio::test]
async fn an_answers_header_arrives_clean_and_in_order() {
    run("answer_headers", AT_ONCE).await;
}

#[tokio::test]
async fn it_is_the_same_byte_by_byte() {
    // Not where the pieces of a body show in its chunks.
    for group in ["request_headers", "methods", "pipelines", "answer_headers"] {
        run(group, Manner { dribbles: true, ..AT_ONCE }).await;
    }
}

#[test]
fn there_are_at_least_150_messages_and_each_has_its_own_name() {
    let names: Vec<String> =
        GROUPS.iter().map(|(_, text)| *text).flat_map(table::entries).map(|entry| entry.name).collect();
    let unique: std::collections::BTreeSet<_> = names.iter().collect();
    assert_eq!(unique.len(), names.len(), "a name is there twice");
    assert!(names.len() >= 150, "{}", names.len());
}
