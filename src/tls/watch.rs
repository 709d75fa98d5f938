//! Keeps listeners' certificates fresh: looks at their files, and swaps what changed without touching a connection.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;
use tracing::{info, warn};

use super::{ListenerTls, TlsError};
use crate::config::ListenerTlsSettings;
use crate::secret::fingerprint::Fingerprint;
use crate::telemetry::chain;

/// How often the files are looked at. Looking, unlike being told, misses neither a renamed file nor a volume that swaps
/// a symlink two folders up.
const LOOK: Duration = Duration::from_secs(1);

/// The certificates of all listeners, and their files.
#[derive(Debug, Default)]
pub struct CertificateWatch {
    watched: Vec<Watched>,
}

/// A certificate whose files changed.
#[derive(Debug)]
pub struct Change {
    /// The file of the certificate chain.
    pub cert: PathBuf,
    /// Is the new one in force? If not, the old one is.
    pub outcome: Result<(), TlsError>,
}

impl CertificateWatch {
    /// Loads a listener's TLS and watches its files from here on. Listeners with the same files have one in common.
    ///
    /// # Errors
    /// [`TlsError`] when the files cannot be used.
    pub fn load(&mut self, files: &ListenerTlsSettings) -> Result<Arc<ListenerTls>, TlsError> {
        if let Some(same) = self.watched.iter().find(|watched| watched.files == *files) {
            return Ok(Arc::clone(&same.tls));
        }
        // Before they are read: a change that falls in between is one at the next look.
        let seen = fingerprints(files);
        let tls = Arc::new(ListenerTls::load(files)?);
        let watched = Watched { tls: Arc::clone(&tls), files: files.clone(), seen, failing: false };
        self.watched.push(watched);
        Ok(tls)
    }

    /// Looks at all files once, and takes up what changed. Gives what is news: a change that cannot be used is tried
    /// again at each look, and told once.
    pub fn look(&mut self) -> Vec<Change> {
        self.watched.iter_mut().filter_map(Watched::look).collect()
    }

    /// Looks every second, for ever.
    pub async fn run(mut self) {
        if self.watched.is_empty() {
            return;
        }
        let mut ticks = tokio::time::interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.look().iter().for_each(Change::tell);
        }
    }
}

impl Change {
    fn tell(&self) {
        let cert = self.cert.display();
        match &self.outcome {
            Ok(()) => {
                info!(file = %cert, "a listener's certificate changed; new connections get the new one")
            }
            Err(error) => {
                let text = chain(error);
                warn!(file = %cert, "a listener's certificate changed and cannot be used, the old one stays: {text}");
            }
        }
    }
}

/// One certificate and its files.
#[derive(Debug)]
struct Watched {
    tls: Arc<ListenerTls>,
    files: ListenerTlsSettings,
    seen: Vec<Option<Fingerprint>>,
    /// What was seen last could not be used: half written, say, which a file's times need not tell from whole.
    failing: bool,
}

impl Watched {
    fn look(&mut self) -> Option<Change> {
        let now = fingerprints(&self.files);
        let changed = now != self.seen;
        if !changed && !self.failing {
            return None;
        }
        self.seen = now;
        let outcome = self.tls.reload(&self.files);
        self.failing = outcome.is_err();
        (changed || outcome.is_ok()).then(|| Change { cert: self.files.cert.clone(), outcome })
    }
}

fn fingerprints(files: &ListenerTlsSettings) -> Vec<Option<Fingerprint>> {
    let paths = [&files.cert, &files.key].into_iter().chain(&files.client_ca);
    paths.map(|path| Fingerprint::of(path)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_not_be_used_is_tried_again_though_its_files_look_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let files = ListenerTlsSettings { cert: at("cert"), key: at("key"), client_ca: Vec::new() };
        let write = || {
            let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
            std::fs::write(&files.cert, made.cert.pem()).unwrap();
            std::fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
        };
        write();
        let mut watch = CertificateWatch::default();
        let tls = watch.load(&files).unwrap();
        let first = tls.current();
        // As if they had been read half written, and finished within one tick of the file system's clock.
        write();
        watch.watched[0].seen = fingerprints(&files);
        assert!(watch.look().is_empty());
        watch.watched[0].failing = true;
        assert!(matches!(watch.look().as_slice(), [Change { outcome: Ok(()), .. }]));
        assert!(!Arc::ptr_eq(&first, &tls.current()));
        assert!(watch.look().is_empty());
    }
}
