//! Which address of a name is connected to: a race with staggered starts (RFC 8305, "Happy Eyeballs").

use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

/// How long an attempt is alone before the next one starts (RFC 8305 §5).
const HEAD_START: Duration = Duration::from_millis(250);

/// Pure. The order of the attempts (RFC 8305 §4): the families take turns, beginning with that of the resolver's first
/// address; within a family the resolver's order stays.
pub(super) fn order(addresses: impl IntoIterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let mut addresses = addresses.into_iter().peekable();
    let Some(v6_first) = addresses.peek().map(SocketAddr::is_ipv6) else { return Vec::new() };
    let (first, second): (Vec<_>, Vec<_>) = addresses.partition(|address| address.is_ipv6() == v6_first);
    let mut ordered = Vec::with_capacity(first.len() + second.len());
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    loop {
        let round = [first.next(), second.next()];
        if round == [None, None] {
            return ordered;
        }
        ordered.extend(round.into_iter().flatten());
    }
}

/// Pure. How long each of `count` attempts is alone, so that the last one still has its share of `limit`.
pub(super) fn head_start(limit: Duration, count: usize) -> Duration {
    HEAD_START.min(limit / u32::try_from(count.max(1)).unwrap_or(u32::MAX))
}

/// Connects to the addresses in turn, each `head_start` after the one before or as soon as any has failed. The first
/// connection wins; the other attempts are dropped.
///
/// # Errors
/// The most telling error once all have failed; none where there was no address.
pub(super) async fn race<T, Attempt>(
    addresses: Vec<SocketAddr>,
    head_start: Duration,
    connect: impl Fn(SocketAddr) -> Attempt,
) -> Result<T, Option<io::Error>>
where
    Attempt: Future<Output = io::Result<T>>,
{
    let mut waiting = addresses.into_iter();
    let mut running: Vec<Pin<Box<Attempt>>> = Vec::new();
    let mut worst = None;
    let mut timer = pin!(tokio::time::sleep(head_start));
    // The first one waits for nothing.
    let mut due = true;
    std::future::poll_fn(|cx| {
        loop {
            let mut place = 0;
            while let Some(attempt) = running.get_mut(place) {
                match attempt.as_mut().poll(cx) {
                    Poll::Ready(Ok(connection)) => return Poll::Ready(Ok(connection)),
                    Poll::Ready(Err(error)) => {
                        drop(running.remove(place));
                        due = true;
                        worst = Some(match worst.take() {
                            Some(known) => more_telling(known, error),
                            None => error,
                        });
                    }
                    Poll::Pending => place += 1,
                }
            }
            if waiting.as_slice().is_empty() {
                return if running.is_empty() { Poll::Ready(Err(worst.take())) } else { Poll::Pending };
            }
            if !due && timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            due = false;
            if let Some(address) = waiting.next() {
                running.push(Box::pin(connect(address)));
                timer.as_mut().reset(tokio::time::Instant::now() + head_start);
            }
        }
    })
    .await
}

/// Pure. What an address said that this machine can reach tells more than that it has no way to another one, as all
/// IPv6 addresses have none where there is only IPv4. Else the later one.
fn more_telling(known: io::Error, later: io::Error) -> io::Error {
    let has_no_way = |error: &io::Error| {
        matches!(error.kind(), io::ErrorKind::NetworkUnreachable | io::ErrorKind::AddrNotAvailable)
    };
    if has_no_way(&later) && !has_no_way(&known) { known } else { later }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::io::ErrorKind::{AddrNotAvailable, ConnectionRefused, NetworkUnreachable, PermissionDenied};
    use std::rc::Rc;

    use tokio::time::{Instant, sleep};

    use super::*;

    /// `a` to `z` are IPv6 addresses, `A` to `Z` IPv4 ones.
    fn address(letter: char) -> SocketAddr {
        let low = u8::try_from(letter).unwrap();
        match letter.is_ascii_lowercase() {
            true => ([0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(low)], 443).into(),
            false => ([192, 0, 2, low], 443).into(),
        }
    }

    fn letter(address: SocketAddr) -> char {
        ('A'..='z').find(|letter| self::address(*letter) == address).unwrap()
    }

    #[test]
    fn the_families_take_turns_and_the_resolvers_first_begins() {
        let cases = [
            ("", ""),
            ("a", "a"),
            ("A", "A"),
            ("abAB", "aAbB"),
            ("ABab", "AaBb"),
            ("abcA", "aAbc"),
            ("AabcB", "AaBbc"),
            ("abc", "abc"),
            ("aAbB", "aAbB"),
        ];
        for (given, want) in cases {
            let got: String = order(given.chars().map(address)).into_iter().map(letter).collect();
            assert_eq!(got, want, "{given}");
        }
    }

    #[test]
    fn the_last_address_has_its_share_of_the_time() {
        let millis = Duration::from_millis;
        let cases = [
            (millis(5000), 0, 250),
            (millis(5000), 1, 250),
            (millis(5000), 4, 250),
            (millis(5000), 50, 100),
            (millis(100), 2, 50),
            (Duration::ZERO, 3, 0),
        ];
        for (limit, count, want) in cases {
            assert_eq!(head_start(limit, count), millis(want), "{limit:?} {count}");
        }
    }

    /// What becomes of an attempt, and after how many milliseconds.
    #[derive(Clone, Copy)]
    enum Fate {
        Connects(u64),
        Fails(u64, io::ErrorKind),
        Swallowed,
    }
    type Race<'a> = &'a [(char, Fate)];
    use Fate::{Connects, Fails, Swallowed};

    /// What a race saw: who started when, who was dropped unfinished, and how it ended when.
    struct Seen {
        starts: String,
        dropped: String,
        end: Option<Result<char, Option<io::ErrorKind>>>,
        at: u128,
    }

    struct Runner(char, Rc<RefCell<String>>);
    impl Drop for Runner {
        fn drop(&mut self) {
            self.1.borrow_mut().push(self.0);
        }
    }

    async fn run(fates: Race<'_>, limit: u64) -> Seen {
        let begin = Instant::now();
        let (starts, dropped) = (RefCell::new(String::new()), Rc::new(RefCell::new(String::new())));
        let racing = race(fates.iter().map(|(name, _)| address(*name)).collect(), HEAD_START, |address| {
            let name = letter(address);
            let fate = fates.iter().find(|(known, _)| *known == name).unwrap().1;
            starts.borrow_mut().push_str(&format!("{name}{} ", begin.elapsed().as_millis()));
            let runner = Runner(name, Rc::clone(&dropped));
            async move {
                let millis = Duration::from_millis;
                match fate {
                    Connects(after) => sleep(millis(after)).await,
                    Fails(after, kind) => {
                        sleep(millis(after)).await;
                        std::mem::forget(runner);
                        return Err(kind.into());
                    }
                    Swallowed => std::future::pending().await,
                }
                std::mem::forget(runner);
                Ok(name)
            }
        });
        let end = tokio::time::timeout(Duration::from_millis(limit), racing).await.ok();
        let end = end.map(|end| end.map_err(|error| error.map(|error| error.kind())));
        let starts = starts.take().trim_end().to_owned();
        let mut dropped: Vec<char> = dropped.take().chars().collect();
        dropped.sort_unstable();
        Seen { starts, dropped: dropped.into_iter().collect(), end, at: begin.elapsed().as_millis() }
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_connection_wins_and_the_others_are_dropped() {
        let cases: &[(Race<'_>, &str, &str, char, u128)] = &[
            (&[('a', Connects(0)), ('A', Connects(0))], "a0", "", 'a', 0),
            (&[('a', Connects(249)), ('A', Connects(0))], "a0", "", 'a', 249),
            (&[('a', Swallowed), ('A', Connects(10))], "a0 A250", "a", 'A', 260),
            (&[('a', Connects(300)), ('A', Connects(500))], "a0 A250", "A", 'a', 300),
            (&[('a', Swallowed), ('A', Swallowed), ('b', Connects(5))], "a0 A250 b500", "Aa", 'b', 505),
            (&[('a', Fails(0, NetworkUnreachable)), ('A', Connects(7))], "a0 A0", "", 'A', 7),
            (&[('a', Fails(30, ConnectionRefused)), ('A', Connects(7))], "a0 A30", "", 'A', 37),
            // The next one has its whole head start, whenever it began.
            (
                &[('a', Fails(30, ConnectionRefused)), ('A', Swallowed), ('b', Connects(1))],
                "a0 A30 b280",
                "A",
                'b',
                281,
            ),
            // An early one that fails late starts the next at once.
            (
                &[('a', Fails(260, ConnectionRefused)), ('A', Swallowed), ('b', Connects(1))],
                "a0 A250 b260",
                "A",
                'b',
                261,
            ),
        ];
        for (fates, starts, dropped, winner, at) in cases {
            let seen = run(fates, 5000).await;
            let got = (seen.starts.as_str(), seen.dropped.as_str(), seen.end, seen.at);
            assert_eq!(got, (*starts, *dropped, Some(Ok(*winner)), *at), "{starts}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn when_all_fail_the_most_telling_error_is_told() {
        let refused = ('a', Fails(5, ConnectionRefused));
        let no_way = ('A', Fails(0, NetworkUnreachable));
        let no_address = ('B', Fails(9, AddrNotAvailable));
        let cases: &[(Race<'_>, Option<io::ErrorKind>)] = &[
            (&[], None),
            (&[no_way], Some(NetworkUnreachable)),
            (&[no_way, no_address], Some(AddrNotAvailable)),
            (&[refused, no_way, no_address], Some(ConnectionRefused)),
            (&[no_way, refused], Some(ConnectionRefused)),
            (&[refused, ('b', Fails(0, PermissionDenied))], Some(PermissionDenied)),
        ];
        for (index, (fates, want)) in cases.iter().enumerate() {
            assert_eq!(run(fates, 5000).await.end, Some(Err(*want)), "{index}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_race_without_a_winner_ends_with_the_time_of_the_whole() {
        let seen = run(&[('a', Swallowed), ('A', Fails(1, ConnectionRefused)), ('b', Swallowed)], 1000).await;
        assert_eq!((seen.end, seen.at), (None, 1000));
        assert_eq!((seen.starts.as_str(), seen.dropped.as_str()), ("a0 A250 b251", "ab"));
    }
}
