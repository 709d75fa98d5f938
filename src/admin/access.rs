//! The admin token: made at the start, written to a private runtime file that the commands read.

use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::config::Environment;
use crate::secret::{self, Secret, SecretError};

/// Why there is no admin token.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// The folder for it cannot be made, or somebody else could look into it.
    #[error("{} cannot hold the admin token: {reason}; set XDG_RUNTIME_DIR to a folder of your own, or server.admin_token", folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The file cannot be written.
    #[error("cannot write the admin token to {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The file cannot be read: most often because no instance runs.
    #[error("no admin token: is sidekey running with this configuration, as this user?")]
    Read(#[source] SecretError),
    /// The system gives no random bytes.
    #[error("the system gives no random bytes")]
    Random,
}

/// The runtime file with the token of a running instance; removed when dropped.
#[derive(Debug)]
pub struct TokenFile {
    path: PathBuf,
}

impl TokenFile {
    /// Makes a token for the admin listener at `address` and writes it where [`read_token`] finds it.
    pub fn create(address: SocketAddr, environment: &Environment) -> Result<(Self, Secret), AccessError> {
        let folder = folder(environment);
        make_private(&folder)?;
        let path = path(&folder, address);
        let token = random_token()?;
        let written = || -> std::io::Result<()> {
            // A file of a killed instance may be there; it is replaced whole, never written into.
            let fresh = path.with_extension(format!("{}.new", std::process::id()));
            let mut file = std::fs::OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&fresh)?;
            file.write_all(token.expose().as_bytes())?;
            std::fs::rename(&fresh, &path)
        };
        written().map_err(|source| AccessError::Write { path: path.clone(), source })?;
        Ok((Self { path }, token))
    }
}

impl Drop for TokenFile {
    fn drop(&mut self) {
        // Already gone is as good.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Reads the token of the instance whose admin listener is at `address`.
pub fn read_token(address: SocketAddr, environment: &Environment) -> Result<Secret, AccessError> {
    secret::read_file(&path(&folder(environment), address)).map_err(AccessError::Read)
}

/// The folder of the runtime files, made if that can be: what is wrong with it is told by [`TokenFile::create`].
pub fn runtime_folder(environment: &Environment) -> PathBuf {
    let folder = folder(environment);
    let _ = make_private(&folder);
    folder
}

/// `$XDG_RUNTIME_DIR/sidekey`, or a folder of this user's below the system's for temporary files.
fn folder(environment: &Environment) -> PathBuf {
    match environment.path("XDG_RUNTIME_DIR") {
        Some(runtime) => runtime.join("sidekey"),
        None => {
            let user = rustix::process::geteuid().as_raw();
            environment.path("TMPDIR").unwrap_or_else(|| "/tmp".into()).join(format!("sidekey-{user}"))
        }
    }
}

fn path(folder: &Path, address: SocketAddr) -> PathBuf {
    let name: String =
        address.to_string().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    folder.join(format!("admin-{name}.token"))
}

/// The folder, made if it is not there; refused if it is not ours alone.
fn make_private(folder: &Path) -> Result<(), AccessError> {
    let refused = |reason: String| AccessError::Folder { folder: folder.to_owned(), reason };
    match std::fs::DirBuilder::new().mode(0o700).create(folder) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(refused(error.to_string())),
    }
    let meta = std::fs::symlink_metadata(folder).map_err(|error| refused(error.to_string()))?;
    if !meta.is_dir() {
        return Err(refused("it is no folder".to_owned()));
    }
    if meta.uid() != rustix::process::geteuid().as_raw() {
        return Err(refused("it belongs to another user".to_owned()));
    }
    if meta.mode() & 0o077 != 0 {
        return Err(refused("others may look into it; chmod 700".to_owned()));
    }
    Ok(())
}

/// 256 random bits as text.
fn random_token() -> Result<Secret, AccessError> {
    let mut bytes = zeroize::Zeroizing::new([0_u8; 32]);
    let random = rustls::crypto::aws_lc_rs::default_provider().secure_random;
    random.fill(bytes.as_mut()).map_err(|_| AccessError::Random)?;
    Ok(Secret::new(URL_SAFE_NO_PAD.encode(bytes.as_slice())))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_token_is_found_by_the_commands_and_by_nobody_else() {
        let runtime = tempfile::tempdir().unwrap();
        let environment = Environment::from_pairs([("XDG_RUNTIME_DIR", runtime.path())]);
        let address: SocketAddr = "127.0.0.1:7601".parse().unwrap();
        let (file, token) = TokenFile::create(address, &environment).unwrap();
        assert_eq!(token.expose().len(), 43);
        assert_eq!(read_token(address, &environment).unwrap(), token);
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&file.path), mode(file.path.parent().unwrap())), (0o600, 0o700));
        drop(file);
        assert!(matches!(read_token(address, &environment), Err(AccessError::Read(_))));
    }

    #[test]
    fn a_folder_that_others_may_look_into_is_refused() {
        let runtime = tempfile::tempdir().unwrap();
        let folder = runtime.path().join("sidekey");
        std::fs::create_dir(&folder).unwrap();
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o755)).unwrap();
        let environment = Environment::from_pairs([("XDG_RUNTIME_DIR", runtime.path())]);
        let refused = TokenFile::create("127.0.0.1:7601".parse().unwrap(), &environment);
        assert!(matches!(refused, Err(AccessError::Folder { .. })));
    }
}
