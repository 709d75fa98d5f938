//! The state machine under arbitrary chains of events.

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Event {
    Look,
    Fetched(u64),
    Unchanged,
    Failed(bool, Option<u64>),
    SecretChanged,
    Refused(u64, Certainty, bool, bool),
    LetGo,
    Wanted,
}

fn event() -> impl Strategy<Value = Event> {
    let certainty =
        prop_oneof![Just(Certainty::Possible), Just(Certainty::Likely), Just(Certainty::Definite)];
    prop_oneof![
        Just(Event::Look),
        (1u64..=u64::MAX / 2).prop_map(Event::Fetched),
        (1u64..100_000).prop_map(Event::Fetched),
        Just(Event::Unchanged),
        (any::<bool>(), proptest::option::of(any::<u64>()))
            .prop_map(|(hard, wish)| Event::Failed(hard, wish)),
        Just(Event::SecretChanged),
        (0u64..6, certainty, any::<bool>(), any::<bool>())
            .prop_map(|(back, c, a, r)| Event::Refused(back, c, a, r)),
        Just(Event::LetGo),
        Just(Event::Wanted),
    ]
}

proptest! {
    #[test]
    fn no_chain_of_events_panics_fetches_twice_at_once_or_faster_than_the_least_pause(
        events in proptest::collection::vec((event(), 0u64..10_000), 1..60),
        draw in 0.0f64..=1.0,
    ) {
        let mut machine = Machine::new(None);
        let (mut now, mut wall) = (Moment::from_nanos(1 << 40), SystemTime::UNIX_EPOCH);
        let mut begun: Option<Moment> = None;
        let mut in_flight = false;
        for (event, millis) in events {
            now = now + Duration::from_millis(millis);
            wall += Duration::from_millis(millis);
            let generation = machine.generation();
            match event {
                Event::Look => {
                    if machine.next(now, wall) == Next::Fetch {
                        prop_assert!(!in_flight, "two fetches at once");
                        if let Some(last) = begun.replace(now) {
                            prop_assert!(now.since(last) >= schedule::MIN_PAUSE);
                        }
                        in_flight = true;
                    }
                }
                Event::Fetched(seconds) if in_flight => {
                    in_flight = false;
                    let span = Span { lifetime: Some(Duration::from_secs(seconds)), look_again: None };
                    let held = machine.fetched(span, now, wall, draw);
                    prop_assert_eq!(held.generation, generation + 1);
                    prop_assert!(held.refresh_at > Some(held.issued) && held.refresh_at < held.expires);
                }
                Event::Unchanged if in_flight => {
                    in_flight = false;
                    machine.unchanged(Span { lifetime: None, look_again: None }, now);
                }
                Event::Failed(permanent, wish) if in_flight => {
                    in_flight = false;
                    machine.failed(permanent, wish.map(Duration::from_secs), now, draw);
                }
                Event::SecretChanged => machine.secret_changed(),
                Event::Refused(back, certainty, accepted_before, replayed) => {
                    let refusal =
                        Refusal { generation: generation.saturating_sub(back), certainty, accepted_before, replayed };
                    let verdict = machine.refused(refusal, now);
                    prop_assert!(!replayed || verdict == Verdict::Pass, "there is no third time");
                }
                Event::LetGo => machine.let_go(),
                Event::Wanted => machine.wanted(),
                Event::Fetched(_) | Event::Unchanged | Event::Failed(..) => {}
            }
            prop_assert!(machine.generation() >= generation);
            let _ = (machine.state(now), machine.is_hopeless(now));
        }
    }
}
