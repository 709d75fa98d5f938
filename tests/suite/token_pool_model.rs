//! A model check of the token pool's state machine: leases, refusals, fetches that end well or badly, changed
//! secrets and passing time, in every order that two requests can meet them in.

use std::time::{Duration, SystemTime};

use sidekey::clock::Moment;
use sidekey::credential::machine::{Certainty, Machine, Next, Refusal, Span, Verdict};
use stateright::{Checker as _, Model, Property};

/// One step of time; a token lives for three of them.
const STEP: Duration = Duration::from_secs(20);
const LIFETIME: Duration = Duration::from_secs(60);
const STEPS: u8 = 4;
const GENERATIONS: u64 = 4;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct World {
    machine: Machine,
    steps: u8,
    /// Fetches in flight, by the version of the secret that each was begun with.
    fetching: Vec<u8>,
    /// The version of the secret as it stands.
    secret: u8,
    /// The version of the secret that the token in force came of.
    held_secret: u8,
    /// The version of the secret that the last ended fetch was begun with.
    tried_secret: Option<u8>,
    /// Generations up to this one are revoked upstream.
    revoked: u64,
    requests: [Request; 2],
    /// Set by a step that breaks a promise.
    broken: Option<&'static str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Request {
    Idle,
    /// It is upstream with a lease of this generation.
    Sent {
        generation: u64,
        replayed: bool,
    },
    /// It was refused and waits for a replacement.
    Refused {
        generation: u64,
        attempts: u64,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Step {
    Lease(usize),
    Accepted(usize),
    RefusedWith(usize, Certainty),
    Replaced(usize),
    GaveUp(usize),
    Look,
    FetchSucceeds,
    FetchFails { permanent: bool },
    SecretChanges,
    Revoke,
    TimePasses,
}

struct PoolModel;

impl World {
    fn now(&self) -> Moment {
        Moment::default() + Duration::from_secs(1000) + STEP * u32::from(self.steps)
    }

    fn wall(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000) + STEP * u32::from(self.steps)
    }

    /// The generation that a lease would get: what `TokenPool::lease_of` reads.
    fn leasable(&self) -> Option<u64> {
        let held = self.machine.held()?;
        held.expires.is_none_or(|at| self.now() < at).then_some(held.generation)
    }

    /// What the keeper does with an account.
    fn look(&mut self) {
        let before = self.machine.held().map(|held| held.generation);
        if self.machine.next(self.now(), self.wall()) == Next::Fetch {
            if !self.fetching.is_empty() {
                self.broken = Some("two fetches at once");
            }
            self.fetching.push(self.secret);
        }
        let dropped = before.is_some() && self.machine.held().is_none();
        if dropped && self.leasable().is_some() {
            self.broken = Some("a valid token was dropped");
        }
    }
}

impl Model for PoolModel {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        let mut world = World {
            machine: Machine::new(None),
            steps: 0,
            fetching: Vec::new(),
            secret: 0,
            held_secret: 0,
            tried_secret: None,
            revoked: 0,
            requests: [Request::Idle; 2],
            broken: None,
        };
        world.look();
        vec![world]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Step>) {
        actions.push(Step::Look);
        if !world.fetching.is_empty() {
            actions.push(Step::FetchSucceeds);
            actions.push(Step::FetchFails { permanent: false });
            actions.push(Step::FetchFails { permanent: true });
        }
        if world.secret < 2 {
            actions.push(Step::SecretChanges);
        }
        if world.steps < STEPS {
            actions.push(Step::TimePasses);
        }
        if world.machine.generation() > world.revoked {
            actions.push(Step::Revoke);
        }
        for (id, request) in world.requests.iter().enumerate() {
            match request {
                Request::Idle => actions.push(Step::Lease(id)),
                Request::Sent { generation, .. } if *generation <= world.revoked => {
                    actions.push(Step::RefusedWith(id, Certainty::Likely));
                    actions.push(Step::RefusedWith(id, Certainty::Definite));
                }
                Request::Sent { .. } => {
                    actions.push(Step::Accepted(id));
                    // A permission that is missing.
                    actions.push(Step::RefusedWith(id, Certainty::Possible));
                }
                Request::Refused { generation, attempts } => {
                    if world.leasable().is_some_and(|newer| newer > *generation) {
                        actions.push(Step::Replaced(id));
                    } else if world.machine.attempts() > *attempts {
                        actions.push(Step::GaveUp(id));
                    }
                }
            }
        }
    }

    fn next_state(&self, last: &World, step: Step) -> Option<World> {
        let mut world = last.clone();
        let now = world.now();
        match step {
            Step::Look => world.look(),
            Step::TimePasses => world.steps += 1,
            Step::Revoke => world.revoked = world.machine.generation(),
            Step::SecretChanges => {
                world.secret += 1;
                let before = world.leasable();
                world.machine.secret_changed();
                if world.leasable() != before {
                    world.broken = Some("a changed secret dropped the old token before the new one came");
                }
                world.look();
            }
            Step::FetchSucceeds => {
                let version = world.fetching.remove(0);
                let before = world.machine.generation();
                let span = Span { lifetime: Some(LIFETIME), look_again: None };
                let generation = world.machine.fetched(span, now, last.wall(), 0.5).generation;
                if generation != before + 1 {
                    world.broken = Some("a generation was skipped or used twice");
                }
                world.held_secret = version;
                world.tried_secret = Some(version);
                world.look();
            }
            Step::FetchFails { permanent } => {
                world.tried_secret = Some(world.fetching.remove(0));
                let before = world.leasable();
                world.machine.failed(permanent, None, now, 0.5);
                if world.leasable() != before {
                    world.broken = Some("a failed fetch changed the token in force");
                }
                world.look();
            }
            Step::Lease(id) => {
                let generation = world.leasable()?;
                world.requests[id] = Request::Sent { generation, replayed: false };
            }
            Step::Accepted(id) => {
                if let Request::Sent { replayed: true, .. } = world.requests[id] {
                    world.machine.replay_accepted();
                }
                world.requests[id] = Request::Idle;
            }
            Step::RefusedWith(id, certainty) => {
                let Request::Sent { generation, replayed } = world.requests[id] else { return None };
                let before = world.leasable();
                let refusal = Refusal { generation, certainty, accepted_before: false, replayed };
                let verdict = world.machine.refused(refusal, now);
                if before.is_some_and(|held| held > generation) && world.leasable() != before {
                    world.broken = Some("a late refusal retired the successor");
                }
                if before.is_some_and(|held| held > generation) && matches!(verdict, Verdict::Await { .. }) {
                    world.broken = Some("a late refusal cost a fetch");
                }
                if certainty == Certainty::Possible && world.leasable() != before {
                    world.broken = Some("a refusal that may be a permission retired the token");
                }
                world.requests[id] = match verdict {
                    Verdict::Await { attempts } => Request::Refused { generation, attempts },
                    Verdict::Newer => {
                        Request::Sent { generation: world.machine.generation(), replayed: true }
                    }
                    Verdict::Pass => Request::Idle,
                };
                if replayed && world.requests[id] != Request::Idle {
                    world.broken = Some("a request was sent a third time");
                }
                world.look();
            }
            Step::Replaced(id) => {
                let generation = world.leasable()?;
                world.requests[id] = Request::Sent { generation, replayed: true };
            }
            Step::GaveUp(id) => world.requests[id] = Request::Idle,
        }
        Some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("every promise is kept", |_, world: &World| world.broken.is_none()),
            Property::always("whoever waits is waited for", |_, world: &World| {
                let waits = world.requests.iter().any(|request| {
                    matches!(request, Request::Refused { attempts, .. } if world.machine.attempts() <= *attempts)
                });
                !waits || !world.fetching.is_empty() || fetches_in_the_end(world)
            }),
            Property::always("an account without a token tries to get one", |_, world: &World| {
                world.leasable().is_some() || !world.fetching.is_empty() || fetches_in_the_end(world)
            }),
            Property::always("a changed secret is tried at once", |_, world: &World| {
                let tried = world.tried_secret.is_none_or(|version| version == world.secret);
                tried || world.fetching.contains(&world.secret) || fetches_at_once(world)
            }),
            Property::sometimes("a replay succeeds", |_, world: &World| {
                world.requests.iter().any(|request| matches!(request, Request::Sent { replayed: true, .. }))
            }),
            Property::sometimes("a token expires", |_, world: &World| {
                world.machine.generation() > 0 && world.leasable().is_none()
            }),
        ]
    }

    fn within_boundary(&self, world: &World) -> bool {
        world.machine.generation() <= GENERATIONS && world.machine.attempts() <= GENERATIONS + 2
    }
}

/// Left alone for long enough, will the machine fetch?
fn fetches_in_the_end(world: &World) -> bool {
    let mut machine = world.machine.clone();
    if !world.fetching.is_empty() {
        // The fetch in flight ends, and the machine is asked again.
        machine.failed(false, None, world.now(), 1.0);
    }
    let later = Duration::from_secs(24 * 3600);
    machine.next(world.now() + later, world.wall() + later) == Next::Fetch
}

/// However the fetch in flight ends, does the next one follow within a second?
fn fetches_at_once(world: &World) -> bool {
    let soon = Duration::from_secs(1);
    let next = |mut machine: Machine| machine.next(world.now() + soon, world.wall()) == Next::Fetch;
    if world.fetching.is_empty() {
        return next(world.machine.clone());
    }
    let (mut fails, mut succeeds) = (world.machine.clone(), world.machine.clone());
    fails.failed(true, None, world.now(), 1.0);
    succeeds.fetched(Span { lifetime: Some(LIFETIME), look_again: None }, world.now(), world.wall(), 0.5);
    next(fails) && next(succeeds)
}

#[test]
fn every_order_of_leases_refusals_fetches_and_changed_secrets_keeps_the_promises() {
    let checker = PoolModel.checker().threads(2).spawn_bfs().join();
    println!("{} states", checker.unique_state_count());
    assert!(checker.unique_state_count() > 10_000, "only {} states", checker.unique_state_count());
    checker.assert_properties();
}
