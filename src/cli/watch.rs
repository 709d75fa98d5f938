//! `run --watch`: notices that the configuration is another one.

use std::path::PathBuf;
use std::time::Duration;

use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::config::{Config, Source};
use crate::secret::fingerprint::Fingerprint;

/// How often the files are looked at. Looking, unlike being told, misses neither a renamed file nor a volume that swaps a
/// symlink two folders up.
const LOOK: Duration = Duration::from_secs(1);

/// The files that a configuration is written in.
pub(super) struct Watch {
    looks: Option<Interval>,
    /// The file itself; none: it came from elsewhere.
    main: Option<PathBuf>,
    /// What it takes texts from as well.
    files: Vec<PathBuf>,
    /// How they were when the configuration was read last.
    known: Vec<Option<Fingerprint>>,
    /// How they were at the last look: what still changes is not read yet.
    seen: Vec<Option<Fingerprint>>,
}

impl Watch {
    pub(super) fn new(on: bool, source: &Source, config: &Config) -> Self {
        let looks = on.then(|| {
            let mut looks = interval(LOOK);
            looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            looks
        });
        let main = match source {
            Source::File(path) => Some(path.clone()),
            _ => None,
        };
        let mut watch = Self { looks, main, files: Vec::new(), known: Vec::new(), seen: Vec::new() };
        watch.looks_at(&config.text_files);
        watch
    }

    /// The configuration is about to be read: from here on, a change is one from how the files are now.
    pub(super) fn begins(&mut self) {
        self.known = self.look();
        self.seen.clone_from(&self.known);
    }

    /// What was read is written in these files besides, whether it was taken up or not.
    pub(super) fn looks_at(&mut self, text_files: &[PathBuf]) {
        let files: Vec<_> = self.main.iter().chain(text_files).cloned().collect();
        let known = |path: &PathBuf| match self.files.iter().position(|before| before == path) {
            Some(index) => self.known[index].clone(),
            None => Fingerprint::of(path),
        };
        self.known = files.iter().map(known).collect();
        self.files = files;
        self.seen.clone_from(&self.known);
    }

    /// Returns when the files are others than they were, and have come to rest.
    pub(super) async fn changed(&mut self) {
        loop {
            match &mut self.looks {
                Some(looks) => _ = looks.tick().await,
                None => std::future::pending().await,
            }
            let now = self.look();
            let rests = now == self.seen;
            self.seen = now;
            if rests && self.seen != self.known {
                return;
            }
        }
    }

    fn look(&self) -> Vec<Option<Fingerprint>> {
        self.files.iter().map(|path| Fingerprint::of(path)).collect()
    }
}
