//! What the book must not allow.

use super::*;

const LIMIT: Duration = Duration::from_secs(300);

fn at(seconds: u64) -> Moment {
    Moment::default() + Duration::from_secs(seconds)
}

fn login(name: &str, begun: Moment) -> Login {
    Login::by_link(name.into(), 0, "alice".into(), begun + LIMIT, ticket(name), Vec::new())
}

fn ticket(name: &str) -> Mark {
    Mark::of(&format!("ticket of {name}"))
}

fn state(name: &str) -> Mark {
    Mark::of(&format!("state of {name}"))
}

fn depart(book: &mut Book, name: &str, now: Moment) -> Result<(), Useless> {
    let secret = |what: &str| Secret::new(format!("{what} of {name}"));
    book.depart(ticket(name), state(name), secret("verifier"), secret("cookie"), now)
}

/// A browser that shows these cookies.
fn showing(cookies: &'static [(&str, &str)]) -> impl Fn(&str) -> Vec<String> {
    move |id| cookies.iter().filter(|(of, _)| *of == id).map(|(_, value)| (*value).to_owned()).collect()
}

const A: &[(&str, &str)] = &[("a", "cookie of a")];

fn book() -> Book {
    let mut book = Book::default();
    for name in ["a", "b"] {
        book.add(login(name, at(0)), at(0)).unwrap();
    }
    book
}

#[test]
fn a_ticket_begins_one_journey() {
    let mut book = book();
    assert_eq!(depart(&mut book, "nobody", at(1)), Err(Useless::Unknown));
    assert_eq!(depart(&mut book, "a", at(1)), Ok(()));
    assert_eq!(depart(&mut book, "a", at(1)), Err(Useless::Used));
    assert_eq!(book.outcome("a", at(1)).unwrap().1, Outcome::Waiting);
    assert_eq!(depart(&mut book, "b", at(300)), Err(Useless::Expired));
}

#[test]
fn a_state_is_taken_once_by_the_browser_that_began() {
    let mut book = book();
    depart(&mut book, "a", at(1)).unwrap();
    depart(&mut book, "b", at(1)).unwrap();
    let mut take = |name: &str, cookies| book.take_redirected(state(name), showing(cookies), at(2)).map(drop);
    assert_eq!(take("nobody", A), Err(Useless::Unknown));
    assert_eq!(take("a", &[]), Err(Useless::OtherBrowser));
    assert_eq!(take("a", &[("b", "cookie of b")]), Err(Useless::OtherBrowser));
    assert_eq!(take("a", &[("a", "cookie of b")]), Err(Useless::OtherBrowser));
    assert_eq!(take("b", A), Err(Useless::OtherBrowser));
    assert_eq!(take("a", &[("a", "stale"), ("a", "cookie of a")]), Ok(()), "wrong ones changed nothing");
    assert_eq!(take("a", A), Err(Useless::Used));
}

#[test]
fn what_comes_too_late_is_told_from_what_comes_twice() {
    let mut book = book();
    depart(&mut book, "a", at(1)).unwrap();
    assert_eq!(book.sweep(at(299)), Some(Duration::from_secs(1)));
    assert_eq!(book.take_redirected(state("a"), showing(A), at(300)).map(drop), Err(Useless::Expired));
    assert!(matches!(book.outcome("a", at(300)), Some((0, Outcome::Failed { .. }))));
    assert_eq!(book.sweep(at(300)), None);
    assert!(book.outcome("a", at(899)).is_some());
    assert_eq!(book.outcome("a", at(900)), None, "forgotten after ten minutes");
}

#[test]
fn a_login_in_its_last_step_does_not_expire() {
    let mut book = book();
    depart(&mut book, "a", at(1)).unwrap();
    book.take_redirected(state("a"), showing(A), at(299)).unwrap();
    assert_eq!(book.outcome("a", at(5000)).unwrap().1, Outcome::Waiting);
    book.finish("a", Outcome::Failed { error: "x".to_owned() }, at(5000));
    assert_eq!(book.take_redirected(state("a"), showing(A), at(5001)).map(drop), Err(Useless::Used));
}

#[test]
fn the_two_ways_back_do_not_mix() {
    let mut book = book();
    let verifier = Secret::new("verifier");
    let by_hand = Login::by_hand("p".into(), 0, "alice".into(), at(300), state("p"), verifier);
    book.add(by_hand, at(0)).unwrap();
    depart(&mut book, "a", at(1)).unwrap();
    let redirected = book.take_redirected(state("p"), showing(A), at(2)).map(drop);
    assert_eq!(redirected, Err(Useless::OtherWay(Return::Paste)));
    for id in ["a", "b"] {
        let pasted = book.take_pasted(id, state(id), at(2)).map(drop);
        assert_eq!(pasted, Err(Useless::OtherWay(Return::Redirect)), "{id}");
    }
    assert_eq!(book.take_pasted("p", state("a"), at(2)).map(drop), Err(Useless::Unknown));
    assert_eq!(book.take_pasted("p", state("p"), at(2)).map(drop), Ok(()));
    assert_eq!(book.take_pasted("p", state("p"), at(2)).map(drop), Err(Useless::Used));
    assert_eq!(book.take_pasted("q", state("p"), at(2)).map(drop), Err(Useless::Unknown));
}

#[test]
fn a_full_book_forgets_what_is_over_and_then_refuses() {
    let mut book = Book::default();
    for number in 0..MAX_LOGINS {
        book.add(login(&number.to_string(), at(0)), at(0)).unwrap();
    }
    assert_eq!(book.add(login("one more", at(1)), at(1)), Err(Full));
    assert!(book.cancel("7", at(1)));
    assert!(!book.cancel("nobody", at(1)));
    book.add(login("one more", at(1)), at(1)).unwrap();
    assert_eq!((book.outcome("7", at(1)), book.logins.len()), (None, MAX_LOGINS));
    assert_eq!(book.add(login("another", at(301)), at(301)), Ok(()), "the others have expired");
}

#[test]
fn debug_shows_no_secret() {
    let mut book = book();
    depart(&mut book, "a", at(1)).unwrap();
    let text = format!("{book:?}");
    assert!(!text.contains(" of a"), "{text}");
}
