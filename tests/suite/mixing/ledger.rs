//! Who asked for what, what came back, and what the upstream saw.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};

use fastrand::Rng;
use http::Method;

use crate::support::got::{Answer, Got};

/// A request that is told from all others.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    pub(crate) method: Method,
    pub(crate) mark: String,
    /// How often the body repeats the mark.
    pub(crate) times: usize,
    pub(crate) chunked: bool,
}

impl Ask {
    pub(crate) fn any(rng: &mut Rng) -> Self {
        let method = [Method::GET, Method::GET, Method::POST, Method::PUT][rng.usize(..4)].clone();
        let times = if rng.u8(..20) == 0 { rng.usize(..4000) } else { rng.usize(..60) };
        Self { method, mark: format!("{:016x}", rng.u64(..)), times, chunked: rng.bool() }
    }

    pub(crate) fn has_body(&self) -> bool {
        self.method != Method::GET
    }

    pub(crate) fn target(&self) -> String {
        format!("/{}/{}", self.mark, self.times)
    }

    /// Of the request, if it has one, and of its answer.
    pub(crate) fn body(&self) -> String {
        self.mark.repeat(self.times)
    }
}

/// The record of a run.
#[derive(Debug)]
pub(crate) struct Ledger {
    left: AtomicUsize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    outcomes: BTreeMap<String, usize>,
    wrong: Vec<String>,
    /// By mark: how often the upstream saw it, and how often it may.
    seen: HashMap<String, (usize, usize)>,
    refused_tokens: HashSet<String>,
}

impl Ledger {
    pub(crate) fn new(exchanges: usize) -> Self {
        Self { left: AtomicUsize::new(exchanges), state: Mutex::default() }
    }

    /// Is there one more exchange to make?
    pub(crate) fn takes_one(&self) -> bool {
        let one_less = |left: usize| left.checked_sub(1);
        self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less).is_ok()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic")
    }

    pub(crate) fn count(&self, outcome: impl Into<String>) {
        *self.state().outcomes.entry(outcome.into()).or_default() += 1;
    }

    pub(crate) fn wrong(&self, what: String) {
        self.state().wrong.push(what);
    }

    /// A caller got this for what it asked.
    pub(crate) fn got(&self, ask: &Ask, got: &Got) {
        let is_ours = |answer: &Answer| answer.header("mark") == Some(&ask.mark);
        let (body, wrong) = (ask.body(), || self.wrong(format!("{ask:?} got {:.400}", format!("{got:?}"))));
        match got {
            Got::Nothing => self.count("nothing"),
            Got::Aborted(answer) if is_ours(answer) && body.as_bytes().starts_with(&answer.body) => {
                self.count("aborted");
            }
            Got::Whole(answer) if is_ours(answer) && answer.body == body.as_bytes() => {
                self.count(if answer.status == 200 { "whole" } else { "whole, a refusal" });
            }
            // Sent when the request was on its way already, HTTP/1.1 cannot tell it from an answer. It is nobody's.
            Got::Whole(answer) if answer.header("mark") == Some("stray") => self.count("unasked"),
            Got::Whole(answer) if answer.header("mark").is_none() => match answer.header("sidekey-error") {
                Some(code) => self.count(format!("{} {code}", answer.status)),
                None => wrong(),
            },
            Got::Aborted(_) | Got::Whole(_) => wrong(),
        }
    }

    /// The upstream saw the head of a request. Is its token one that it refuses? With `and_refuse`, it does from now on.
    pub(crate) fn sees(&self, ask: &Ask, token: Option<&str>, and_refuse: bool) -> bool {
        let Some(token) = token.and_then(|token| token.strip_prefix("Bearer ")) else {
            self.wrong(format!("{ask:?} came without a token"));
            return false;
        };
        let mut state = self.state();
        if and_refuse {
            state.refused_tokens.insert(token.to_owned());
        }
        let refused = state.refused_tokens.contains(token);
        let (seen, allowed) = state.seen.entry(ask.mark.clone()).or_insert((0, 1));
        *seen += 1;
        if refused {
            *allowed += 1;
        }
        if *seen > 1 {
            *state.outcomes.entry("sent again".to_owned()).or_default() += 1;
        }
        refused
    }

    /// The upstream says that it did nothing for it.
    pub(crate) fn did_nothing(&self, ask: &Ask) {
        self.state().seen.entry(ask.mark.clone()).or_insert((0, 1)).1 += 1;
    }

    /// The end of a request: it may have been sent so often.
    pub(crate) fn was_made(&self, ask: &Ask) {
        let mut state = self.state();
        let Some((seen, allowed)) = state.seen.get(&ask.mark).copied() else { return };
        let allowed = if ask.method.is_idempotent() { allowed + 2 } else { allowed };
        if seen > allowed {
            state.wrong.push(format!("{ask:?} was sent {seen} times instead of {allowed}"));
        }
    }

    pub(crate) fn figures(&self) -> String {
        let state = self.state();
        format!("{:?}, {} wrong", state.outcomes, state.wrong.len())
    }

    pub(crate) fn check(&self, seed: &str) {
        let state = self.state();
        let some = &state.wrong[..state.wrong.len().min(10)];
        assert!(some.is_empty(), "{seed}: {} went wrong:\n{}", state.wrong.len(), some.join("\n"));
        let of = |outcome| state.outcomes.get(outcome).copied().unwrap_or_default();
        let whole = of("whole") + of("whole, a refusal");
        assert!(whole * 2 > state.outcomes.values().sum::<usize>(), "{seed}: too few were answered");
    }
}
