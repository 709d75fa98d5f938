//! What the process gives up: core dumps and new privileges always, files and ports that its configuration does not need
//! on request.

mod enforce;
mod needs;

use std::sync::OnceLock;

use serde_json::{Value, json};
use tracing::{info, warn};

pub use self::enforce::SandboxError;
pub use self::needs::{Missing, Needs, Reach, Surroundings};

/// The sandbox of this process. It cannot be taken off, and it is the whole process's: so there is one.
static SANDBOX: OnceLock<Sandbox> = OnceLock::new();

/// What becomes of the programs that the process starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Children {
    /// They leave no core dumps either, and set-user-ID and file capabilities do not count (`no_new_privs`).
    WithoutNewPrivileges,
    /// Nothing: a browser may bring a set-user-ID helper that makes its own sandbox.
    AsTheyAre,
}

/// Turns core dumps off, keeps other processes of the same user from reading this one's memory, and, for its
/// [`Children`], gives up new privileges. What cannot be had is a line in the log: the process is no worse for trying.
pub fn harden(children: Children) {
    // Where there is nothing else, children cannot be spared.
    if children == Children::WithoutNewPrivileges || cfg!(not(target_os = "linux")) {
        no_core_dumps();
    }
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{DumpableBehavior, set_dumpable_behavior};
        // The kernel hands a dump to a program in spite of the limit; what is not dumpable it does not dump at all. Nor
        // may a process of the same user attach to it, or read its memory or environment.
        if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
            warn!(%error, "other processes of this user can read this one's memory");
        }
        if children == Children::WithoutNewPrivileges
            && let Err(error) = rustix::thread::set_no_new_privs(true)
        {
            warn!(%error, "programs that are started may get more rights than this one");
        }
    }
}

/// The limit holds for the programs that the process starts as well.
fn no_core_dumps() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    if let Err(error) = setrlimit(Resource::Core, none) {
        warn!(%error, "core dumps cannot be turned off");
    }
}

/// What became of `sandbox = true`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sandbox {
    /// What the process may use.
    pub reach: Reach,
    /// Landlock's version (ABI) that is in force; none: the system has no Landlock, and the process is not confined.
    pub landlock: Option<u32>,
    /// What is not confined, each in words.
    pub open: Vec<String>,
    /// What the configuration names and the process cannot use, as it is not there.
    pub absent: Vec<String>,
}

impl Sandbox {
    /// Is the new configuration within what this one may use? For a reload: the sandbox can never be widened.
    ///
    /// # Errors
    /// Everything that is missing, in words to refuse with.
    pub fn admits(&self, needs: &Needs) -> Result<(), Vec<Missing>> {
        if self.landlock.is_none() {
            return Ok(());
        }
        let missing = self.reach.lacks(&needs.reach());
        if missing.is_empty() { Ok(()) } else { Err(missing) }
    }

    /// As data, for the status.
    pub fn record(&self) -> Value {
        json!({
            "landlock": self.landlock,
            "not_confined": self.open,
            "absent": self.absent,
            "connects_to_ports": self.reach.connect,
            "reads": self.reach.read,
            "writes": self.reach.write,
        })
    }
}

/// Confines this process and all that it starts from here on to what `needs` says. To be called while it has one thread:
/// other threads stay as they are.
///
/// # Errors
/// [`SandboxError`] when the kernel has Landlock and refuses. Without Landlock the process is not confined, which is a
/// warning in the log and stands in the [`Sandbox`].
pub fn confine(needs: &Needs) -> Result<&'static Sandbox, SandboxError> {
    let sandbox = enforce::enforce(needs.reach())?;
    match sandbox.landlock {
        Some(version) => info!(landlock = version, not_confined = sandbox.open.join("; "), "sandbox: on"),
        None => warn!("sandbox: NOT CONFINED: {}", sandbox.open.join("; ")),
    }
    for absent in &sandbox.absent {
        warn!("sandbox: {absent} is not there and stays out of reach until a restart");
    }
    Ok(SANDBOX.get_or_init(|| sandbox))
}

/// The sandbox that this process is in; none: nobody asked for one.
pub fn sandbox() -> Option<&'static Sandbox> {
    SANDBOX.get()
}
