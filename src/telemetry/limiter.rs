//! How often one kind of thing is told: at once, then at most once an interval, with a count of what was held back.

use std::collections::HashMap;
use std::hash::Hash;

/// Kinds that are remembered at most.
const MAX_KINDS: usize = 1024;

/// Decides when to tell. Times are milliseconds since whenever.
#[derive(Debug)]
pub struct Limiter<K> {
    interval: u64,
    kinds: HashMap<K, Told>,
    /// Of kinds beyond those that are remembered.
    beyond: u64,
}

#[derive(Debug)]
struct Told {
    /// When it may be told again.
    next: u64,
    unsaid: u64,
}

impl<K: Eq + Hash + Clone> Limiter<K> {
    /// One that tells of a kind once in `interval` at most.
    pub fn new(interval: u64) -> Self {
        Self { interval, kinds: HashMap::new(), beyond: 0 }
    }

    /// It happened: is it to be told now, and how many times was it not?
    pub fn tells(&mut self, kind: K, now: u64) -> Option<u64> {
        if let Some(told) = self.kinds.get_mut(&kind) {
            if now < told.next {
                told.unsaid += 1;
                return None;
            }
            told.next = now + self.interval;
            return Some(std::mem::take(&mut told.unsaid));
        }
        if self.kinds.len() >= MAX_KINDS {
            self.kinds.retain(|_, told| now < told.next || told.unsaid > 0);
        }
        if self.kinds.len() >= MAX_KINDS {
            self.beyond += 1;
            return None;
        }
        self.kinds.insert(kind, Told { next: now + self.interval, unsaid: 0 });
        Some(0)
    }

    /// Is anything held back?
    pub fn holds_back(&self) -> bool {
        self.beyond > 0 || self.kinds.values().any(|told| told.unsaid > 0)
    }

    /// What was held back for long enough, each with how many times it happened; and how many times what is not
    /// remembered did. What has not happened for an interval is forgotten.
    pub fn overdue(&mut self, now: u64) -> (Vec<(K, u64)>, u64) {
        self.kinds.retain(|_, told| now < told.next || told.unsaid > 0);
        let due = self.kinds.iter_mut().filter(|(_, told)| told.unsaid > 0 && now >= told.next);
        let due = due.map(|(kind, told)| {
            told.next = now.saturating_add(self.interval);
            (kind.clone(), std::mem::take(&mut told.unsaid))
        });
        (due.collect(), std::mem::take(&mut self.beyond))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_told_at_once_and_then_once_an_interval_with_what_was_held_back() {
        let mut limiter = Limiter::new(1000);
        assert_eq!(limiter.tells("a", 0), Some(0));
        assert_eq!(limiter.tells("b", 1), Some(0), "another kind");
        assert!((1..=999).all(|now| limiter.tells("a", now).is_none()));
        assert_eq!(limiter.tells("a", 1000), Some(999));
        assert_eq!(limiter.tells("a", 1001), None);
        assert!(limiter.holds_back());
        assert_eq!(limiter.overdue(1500), (vec![], 0), "not yet");
        assert_eq!(limiter.overdue(2000), (vec![("a", 1)], 0), "it need not happen again to be told");
        assert!(!limiter.holds_back());
        assert_eq!(limiter.overdue(9000), (vec![], 0));
        assert!(limiter.kinds.is_empty(), "what no longer happens is forgotten");
    }

    #[test]
    fn however_many_kinds_there_are_memory_is_bounded_and_none_goes_untold() {
        let mut limiter = Limiter::new(1000);
        let told = (0..10_000).filter(|kind| limiter.tells(*kind, 0).is_some()).count();
        assert_eq!((told, limiter.kinds.len()), (MAX_KINDS, MAX_KINDS));
        assert_eq!(limiter.overdue(1), (vec![], 10_000 - MAX_KINDS as u64));
        assert_eq!(limiter.tells(20_000, 1000), Some(0), "there is room again after an interval");
    }
}
