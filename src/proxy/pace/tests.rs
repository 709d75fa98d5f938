//! What holds for every order of arrivals, and turns in time that stands still until it is moved.

use std::cell::RefCell;
use std::rc::Rc;

use proptest::prelude::*;
use tokio::task::LocalSet;

use super::*;

const MILLI: u64 = 1_000_000;
const SECOND: u64 = 1000 * MILLI;

fn rate(requests: u32, seconds: u64) -> Rate {
    Rate { requests, per: Duration::from_secs(seconds) }
}

fn pace(rates: &[Rate], longest_wait: Duration) -> Pace {
    Pace::new(Instant::now(), rates, longest_wait)
}

/// Reserves and uses the slot.
fn pass(pace: &Pace, now: u64) -> Result<u64, Refused> {
    let place = pace.reserve(now)?;
    let slot = place.slot;
    place.go();
    Ok(slot)
}

/// Do so many requests of each rate never come closer together than its period and margin?
fn assert_kept(rates: &[Rate], mut passes: Vec<u64>) {
    passes.sort_unstable();
    for rate in rates {
        let requests = usize::try_from(rate.requests).unwrap();
        let period = nanos(rate.per) + nanos(rate.per) / MARGIN;
        for (first, next) in passes.iter().zip(passes.iter().skip(requests)) {
            assert!(next - first >= period, "{} more than {rate:?} within {}", first, next - first);
        }
    }
}

#[test]
fn a_tenth_passes_at_once_after_a_pause_and_the_rest_evenly() {
    // Requests, period; at once; then in each period, while they keep coming.
    let cases = [
        (1, 1, 1, 0),
        (5, 1, 1, 4),
        (19, 1, 1, 18),
        (20, 1, 2, 18),
        (40, 1, 4, 36),
        (125, 60, 12, 111),
        (700, 60, 70, 618),
        (1000, 3600, 100, 883),
        (1_000_000, 1, 100_000, 881_834),
    ];
    for (requests, seconds, at_once, sustained) in cases {
        let spacing = Spacing::of(rate(requests, seconds));
        assert_eq!(spacing.slack / spacing.interval + 1, at_once, "{requests} in {seconds} s");
        assert_eq!(seconds * SECOND / spacing.interval, sustained, "{requests} in {seconds} s");
    }
    let pace = pace(&[rate(20, 1)], Duration::from_secs(60));
    for now in [0, 100 * SECOND] {
        let slots: Vec<u64> = (0..4).map(|_| (pass(&pace, now).unwrap() - now) / MILLI).collect();
        assert_eq!(slots, [0, 0, 53, 107]);
    }
}

#[test]
fn who_would_wait_too_long_is_told_when_not_to() {
    for rates in [&[rate(20, 1)][..], &[rate(20, 1), rate(60, 60)], &[rate(60, 60), rate(20, 1)]] {
        let pace = pace(rates, Duration::from_secs(2));
        let mut now = SECOND;
        let refused = loop {
            match pass(&pace, now) {
                Ok(slot) => assert!(slot - now <= 2 * SECOND),
                Err(Refused(span)) => break span,
            }
        };
        assert!(refused > 0);
        assert_eq!(pass(&pace, now), Err(Refused(refused)), "a refusal costs nothing");
        assert_eq!(pass(&pace, now + refused - 1), Err(Refused(1)));
        now += refused;
        assert_eq!(pass(&pace, now), Ok(now + 2 * SECOND));
    }
    let never = pace(&[rate(1, 3600)], Duration::ZERO);
    assert_eq!(pass(&never, 5), Ok(5));
    assert_eq!(pass(&never, 5 + 3672 * SECOND - 1), Err(Refused(1)));
    assert_eq!(pass(&never, 5 + 3672 * SECOND), Ok(5 + 3672 * SECOND));
}

#[test]
fn the_last_in_the_queue_gives_its_slot_back_and_one_in_the_middle_does_not() {
    for rates in [&[rate(1, 1)][..], &[rate(1, 1), rate(50, 60)]] {
        let pace = pace(rates, Duration::from_secs(60));
        pass(&pace, 0).unwrap();
        let second = pace.reserve(0).unwrap();
        let third = pace.reserve(0).unwrap();
        let (second_slot, third_slot) = (second.slot, third.slot);
        assert!(0 < second_slot && second_slot < third_slot);
        drop(third);
        let third = pace.reserve(0).unwrap();
        assert_eq!(third.slot, third_slot);
        drop(second);
        assert!(pace.reserve(0).unwrap().slot > third_slot, "the slot in the middle passes unused");
        drop(third);
        // The second stood in front of the third when it left, and stays given away.
        assert_eq!(pace.reserve(0).unwrap().slot, third_slot);
        pass(&pace, 0).unwrap();
        assert!(pace.reserve(0).unwrap().slot > third_slot, "a slot that is used stays used");
    }
}

#[test]
fn what_is_sent_again_goes_at_once_and_is_paid_for_by_those_behind_it() {
    let pace = pace(&[rate(5, 1), rate(100, 60)], Duration::from_secs(60));
    let alone = Spacing::of(rate(5, 1)).interval;
    assert_eq!(pass(&pace, SECOND), Ok(SECOND));
    pace.owe(SECOND);
    assert!(pass(&pace, SECOND).unwrap() >= SECOND + 2 * alone);
}

#[test]
fn workers_share_one_schedule() {
    for rates in [&[rate(100, 1)][..], &[rate(1000, 60), rate(100, 1)]] {
        let pace = pace(rates, Duration::from_secs(3600));
        let passes = std::thread::scope(|scope| {
            let worker = || (0..500).map(|turn| pass(&pace, turn * MILLI).unwrap()).collect::<Vec<_>>();
            let workers: Vec<_> = (0..4).map(|_| scope.spawn(worker)).collect();
            workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect::<Vec<_>>()
        });
        assert_eq!(passes.len(), 2000);
        // Of several, the one with the longest period is kept in any case.
        let longest = rates.iter().max_by_key(|rate| rate.per).unwrap();
        assert_kept(&[*longest], passes);
    }
}

#[derive(Debug, Clone)]
enum Event {
    Comes,
    Idles(u64),
    Leaves(prop::sample::Index),
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn whenever_they_come_no_period_holds_more_than_the_rate_and_nobody_overtakes(
        rates in prop::sample::select(vec![
            vec![rate(1, 1)],
            vec![rate(3, 1)],
            vec![rate(20, 1)],
            vec![rate(50, 60)],
            vec![rate(10, 1), rate(60, 60)],
            vec![rate(60, 60), rate(10, 1)],
            vec![rate(100, 60), rate(5, 1), rate(150, 3600)],
            vec![rate(2, 1), rate(100, 60)],
        ]),
        longest_wait in prop::sample::select(vec![0, 300 * MILLI, 10 * SECOND, 10_000 * SECOND]),
        events in prop::collection::vec(prop_oneof![
            6 => Just(Event::Comes),
            2 => (0..60 * MILLI).prop_map(Event::Idles),
            1 => (0..2 * SECOND).prop_map(Event::Idles),
            1 => any::<prop::sample::Index>().prop_map(Event::Leaves),
        ], 0..500),
        pauses in prop::collection::vec((0..500_usize, 0..90 * SECOND), 0..3),
    ) {
        let pace = pace(&rates, Duration::from_nanos(longest_wait));
        let (mut now, mut passed, mut waiting) = (SECOND, Vec::new(), Vec::<Place<'_>>::new());
        for (number, event) in events.into_iter().enumerate() {
            now += pauses.iter().filter(|(at, _)| *at == number).map(|(_, span)| span).sum::<u64>();
            for place in waiting.extract_if(.., |place| place.slot <= now) {
                passed.push(place.slot);
                place.go();
            }
            match event {
                Event::Idles(span) => now += span,
                Event::Leaves(index) => {
                    if !waiting.is_empty() {
                        drop(waiting.remove(index.index(waiting.len())));
                    }
                }
                Event::Comes => match pace.reserve(now) {
                    Ok(place) => {
                        prop_assert!(place.slot >= now && place.slot - now <= longest_wait);
                        let last = waiting.iter().map(|place| place.slot).chain(passed.iter().copied()).max();
                        prop_assert!(last.is_none_or(|last| place.slot >= last), "it overtakes");
                        waiting.push(place);
                    }
                    Err(Refused(span)) => prop_assert!(span > 0),
                },
            }
        }
        for place in waiting {
            passed.push(place.slot);
            place.go();
        }
        assert_kept(&rates, passed);
    }
}

fn paces(rates: &[Rate], longest_wait: Duration) -> Rc<Paces> {
    Rc::new(Paces(Box::new([None, Some(Arc::new(pace(rates, longest_wait)))])))
}

#[tokio::test(start_paused = true)]
async fn turns_come_in_the_order_of_arrival_and_no_earlier_than_their_slots() {
    let paces = paces(&[rate(5, 1)], Duration::from_secs(1));
    let start = Instant::now();
    let order = Rc::new(RefCell::new(Vec::new()));
    let local = LocalSet::new();
    for number in 0..8 {
        let (paces, order) = (Rc::clone(&paces), Rc::clone(&order));
        local.spawn_local(async move {
            let turn = paces.turn(1).await.map_err(|error| error.code());
            order.borrow_mut().push((number, turn, start.elapsed().as_millis()));
        });
    }
    local.await;
    let refused = |number| (number, Err("rate_limited"), 0);
    assert_eq!(
        *order.borrow(),
        [
            (0, Ok(()), 0),
            refused(5),
            refused(6),
            refused(7),
            (1, Ok(()), 204),
            (2, Ok(()), 408),
            (3, Ok(()), 612),
            (4, Ok(()), 816),
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_leaves_the_end_of_the_queue_leaves_no_gap() {
    let paces = paces(&[rate(1, 1)], Duration::from_secs(10));
    let start = Instant::now();
    paces.turn(1).await.unwrap();
    for _ in 0..50 {
        let left = tokio::time::timeout(Duration::from_millis(1), paces.turn(1)).await;
        assert!(left.is_err(), "it waits");
    }
    paces.turn(1).await.unwrap();
    assert_eq!(start.elapsed().as_millis(), 1020);
}

#[tokio::test(start_paused = true)]
async fn a_route_without_a_pace_never_waits() {
    let paces = paces(&[rate(1, 3600)], Duration::ZERO);
    for _ in 0..1000 {
        paces.turn(0).await.unwrap();
        paces.owe(0);
    }
    assert!(paces.turn(1).await.is_ok());
    let error = paces.turn(1).await.unwrap_err();
    assert_eq!((error.status().as_u16(), error.retry_after()), (429, Some(3672)));
}
