//! A reach becomes the kernel's rules (Landlock).

use super::{Reach, Sandbox};

/// The kernel has Landlock and would not confine the process.
#[derive(Debug, thiserror::Error)]
#[error("`sandbox = true`, and the process cannot be confined: {0}")]
pub struct SandboxError(String);

#[cfg(not(target_os = "linux"))]
pub(super) fn enforce(reach: Reach) -> Result<Sandbox, SandboxError> {
    let open = vec!["this system has no Landlock: files and ports are not confined".to_owned()];
    Ok(Sandbox { reach, landlock: None, open, absent: Vec::new() })
}

#[cfg(target_os = "linux")]
pub(super) use self::linux::enforce;

#[cfg(target_os = "linux")]
mod linux {
    use std::path::Path;

    use landlock::{
        ABI, Access as _, AccessFs, AccessNet, BitFlags, LandlockStatus, NetPort, PathBeneath, PathFd,
        Ruleset, RulesetAttr as _, RulesetCreated, RulesetCreatedAttr as _, Scope,
    };

    use super::{Reach, Sandbox, SandboxError};
    use crate::confinement::needs::is_usual;

    /// What is asked for: all that this version knows. A kernel that knows less confines less.
    const WANTED: ABI = ABI::V6;
    /// What each version brought, and so what a kernel of an older one leaves open.
    const BROUGHT: [(u32, &str); 4] = [
        (3, "files may be cut to nothing"),
        (4, "TCP connections and listeners"),
        (5, "control of devices (ioctl)"),
        (6, "abstract Unix sockets, and signals to other processes"),
    ];
    /// What no version of [`WANTED`] confines.
    const NEVER: &str = "UDP, Unix sockets with a path, and to which hosts a TCP port leads";
    /// Rights that a file may have; a folder has more.
    const OF_FILES: [AccessFs; 5] =
        [AccessFs::Execute, AccessFs::ReadFile, AccessFs::WriteFile, AccessFs::Truncate, AccessFs::IoctlDev];
    /// Devices that are used, and how.
    const DEVICES: [(&str, bool); 3] = [("/dev/null", true), ("/dev/urandom", false), ("/dev/random", false)];

    pub(in super::super) fn enforce(reach: Reach) -> Result<Sandbox, SandboxError> {
        let failed = |error: landlock::RulesetError| SandboxError(error.to_string());
        let mut absent = Vec::new();
        let mut scope = Scope::from_all(WANTED);
        let mut left = Vec::new();
        if reach.abstract_sockets {
            scope.remove(Scope::AbstractUnixSocket);
            left.push("abstract Unix sockets, as the service manager is told by one");
        }
        if reach.signals {
            scope.remove(Scope::Signal);
            left.push("signals, as those for the command are passed on");
        }
        let ruleset = Ruleset::default()
            .handle_access(AccessFs::from_all(WANTED))
            .and_then(|ruleset| ruleset.handle_access(AccessNet::from_all(WANTED)))
            .and_then(|ruleset| if scope.is_empty() { Ok(ruleset) } else { ruleset.scope(scope) })
            .and_then(Ruleset::create)
            .map_err(failed)?;
        let ruleset = allow(ruleset, &reach, &mut absent)?;
        let status = ruleset.restrict_self().map_err(failed)?;
        let everything = reach
            .read
            .contains(Path::new("/"))
            .then_some("reading files: one that is read lies in / itself; move it to a folder of its own");
        let (landlock, open) = match status.landlock {
            LandlockStatus::Available { effective_abi, .. } => {
                let version = effective_abi as u32;
                let missing = BROUGHT.iter().filter(|(since, _)| version < *since);
                (
                    Some(version),
                    missing
                        .map(|(_, what)| *what)
                        .chain(left)
                        .chain(everything)
                        .chain([NEVER])
                        .map(str::to_owned)
                        .collect(),
                )
            }
            LandlockStatus::NotEnabled => (None, vec!["Landlock is not enabled in this kernel".to_owned()]),
            LandlockStatus::NotImplemented => {
                (None, vec!["this kernel has no Landlock, or a filter hides it".to_owned()])
            }
        };
        Ok(Sandbox { reach, landlock, open, absent })
    }

    fn allow(
        mut ruleset: RulesetCreated,
        reach: &Reach,
        absent: &mut Vec<String>,
    ) -> Result<RulesetCreated, SandboxError> {
        let read = AccessFs::ReadFile | AccessFs::ReadDir;
        let write =
            read | AccessFs::WriteFile | AccessFs::Truncate | AccessFs::MakeReg | AccessFs::RemoveFile;
        let sockets = AccessFs::MakeSock | AccessFs::RemoveFile;
        let folders = [
            (&reach.read, read),
            (&reach.write, write),
            (&reach.sockets, sockets),
            (&reach.run, read | AccessFs::Execute),
        ];
        for (paths, access) in folders {
            for path in paths {
                ruleset = allow_path(ruleset, path, access, absent)?;
            }
        }
        for (path, is_written) in DEVICES {
            let mut access = BitFlags::from(AccessFs::ReadFile);
            if is_written {
                access |= AccessFs::WriteFile;
            }
            ruleset = allow_path(ruleset, Path::new(path), access, absent)?;
        }
        let ports = reach
            .connect
            .iter()
            .map(|port| NetPort::new(*port, AccessNet::ConnectTcp))
            .chain(reach.bind.iter().map(|port| NetPort::new(*port, AccessNet::BindTcp)));
        for port in ports {
            ruleset = ruleset.add_rule(port).map_err(|error| SandboxError(error.to_string()))?;
        }
        Ok(ruleset)
    }

    fn allow_path(
        ruleset: RulesetCreated,
        path: &Path,
        access: BitFlags<AccessFs>,
        absent: &mut Vec<String>,
    ) -> Result<RulesetCreated, SandboxError> {
        let Ok(opened) = PathFd::new(path) else {
            if !is_usual(path) && !path.starts_with("/dev") {
                absent.push(path.display().to_string());
            }
            return Ok(ruleset);
        };
        let is_folder = path.is_dir();
        let access = if is_folder { access } else { access & BitFlags::from_iter(OF_FILES) };
        let added = ruleset.add_rule(PathBeneath::new(opened, access));
        added.map_err(|error| SandboxError(format!("{}: {error}", path.display())))
    }
}
