//! Reading secrets from wherever they are kept, and running the commands that print them.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use zeroize::Zeroizing;

use super::{self as secret, CommandLine, MAX_SECRET_BYTES, Secret, SecretError, SecretSource};

/// How long a command that prints a static secret may run.
pub const EXEC_SECRET_TIMEOUT: Duration = Duration::from_secs(10);

/// Reads secrets, keeping those of other credentials from the commands that it runs.
#[derive(Debug, Clone)]
pub struct SecretReader {
    hidden: Arc<[String]>,
}

impl SecretReader {
    /// `hidden`: environment variables that children must not inherit.
    pub fn new(hidden: impl Into<Arc<[String]>>) -> Self {
        Self { hidden: hidden.into() }
    }

    /// Reads a secret now.
    pub async fn read(&self, source: &SecretSource) -> Result<Secret, SecretError> {
        match source {
            SecretSource::Env(name) => secret::read_env(name),
            SecretSource::File(path) => secret::read_file(path),
            SecretSource::Value(secret) => Ok(secret.clone()),
            SecretSource::Exec(command) => secret::clean(self.output(command).await?, &printed(command)),
        }
    }

    /// Reads a secret now, and lets nothing else run on this thread until it is there.
    ///
    /// # Errors
    /// As [`SecretReader::read`].
    pub fn read_blocking(&self, source: &SecretSource) -> Result<Secret, SecretError> {
        let command = match source {
            SecretSource::Env(name) => return secret::read_env(name),
            SecretSource::File(path) => return secret::read_file(path),
            SecretSource::Value(secret) => return Ok(secret.clone()),
            SecretSource::Exec(command) => command,
        };
        let failed = |reason| SecretError::Command { command: command.shown(), reason };
        // Whoever asks may be on a runtime already, where no other may wait.
        let read = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.map_err(|error| failed(error.to_string()))?.block_on(self.read(source))
        };
        let read = std::thread::scope(|scope| scope.spawn(read).join());
        read.unwrap_or_else(|_| Err(failed("it could not be waited for".to_owned())))
    }

    /// Reads a secret of several lines now, such as a key in PEM.
    pub async fn read_text(&self, source: &SecretSource) -> Result<Secret, SecretError> {
        match source {
            SecretSource::Env(name) => secret::read_text_env(name),
            SecretSource::File(path) => secret::read_text_file(path),
            SecretSource::Value(secret) => Ok(secret.clone()),
            SecretSource::Exec(command) => secret::clean_text(self.output(command).await?, &printed(command)),
        }
    }

    async fn output(&self, command: &CommandLine) -> Result<Vec<u8>, SecretError> {
        let failed = |reason| SecretError::Command { command: command.shown(), reason };
        let mut output = self.run(command, EXEC_SECRET_TIMEOUT).await.map_err(failed)?;
        Ok(std::mem::take(&mut *output))
    }

    /// Runs a command without a shell and gives its standard output, or what went wrong.
    pub async fn run(&self, command: &CommandLine, limit: Duration) -> Result<Zeroizing<Vec<u8>>, String> {
        let mut child = tokio::process::Command::new(command.program());
        child.args(command.arguments());
        for name in self.hidden.iter() {
            child.env_remove(name);
        }
        // Its standard error might repeat a secret into our log.
        child.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        let mut child = child.spawn().map_err(|error| format!("it cannot be started: {error}"))?;
        let Some(stdout) = child.stdout.take() else { return Err("it has no output".to_owned()) };
        // One allocation of the final size; wiped whatever happens, a caller that waits no longer included.
        let mut output = Zeroizing::new(Vec::with_capacity(MAX_SECRET_BYTES + 1));
        let finished = async {
            let read = stdout.take(MAX_SECRET_BYTES as u64 + 1).read_to_end(&mut output).await;
            read.map_err(|error| format!("its output cannot be read: {error}"))?;
            if output.len() > MAX_SECRET_BYTES {
                return Err(format!("it printed more than {MAX_SECRET_BYTES} bytes"));
            }
            child.wait().await.map_err(|error| format!("it cannot be waited for: {error}"))
        };
        let status = tokio::time::timeout(limit, finished)
            .await
            .map_err(|_| format!("it ran for longer than {limit:?}"))
            .flatten();
        match status {
            Ok(status) if status.success() => Ok(output),
            failed => Err(failed.map_or_else(
                |reason| reason,
                |status| format!("{status}; its standard error is not shown, run it by hand"),
            )),
        }
    }
}

fn printed(command: &CommandLine) -> String {
    format!("what the command {:?} printed", command.shown())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_text_of_several_lines_is_read_whole_from_a_file_and_from_a_command() {
        let text = "-----BEGIN-----\nabc\n-----END-----\n";
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key.pem");
        std::fs::write(&path, text).unwrap();
        let command = vec!["/bin/cat".to_owned(), path.display().to_string()];
        let reader = SecretReader::new([]);
        for source in [SecretSource::File(path), SecretSource::Exec(command.into())] {
            assert_eq!(reader.read_text(&source).await.unwrap().expose(), text, "{source:?}");
            let refused = reader.read(&source).await;
            assert!(matches!(refused, Err(SecretError::ControlCharacter(_))), "{source:?}");
        }
    }

    #[tokio::test]
    async fn a_command_that_fails_hangs_or_floods_is_named_without_its_output() {
        let cases = [
            ("echo canary; exit 3", "exit status: 3"),
            ("sleep 60", "longer than"),
            ("yes canary", "more than"),
        ];
        for (script, want) in cases {
            let reader = SecretReader::new([]);
            let command = CommandLine::from(vec!["/bin/sh".to_owned(), "-c".to_owned(), script.to_owned()]);
            let reason = reader.run(&command, Duration::from_millis(300)).await.unwrap_err();
            assert!(reason.contains(want) && !reason.contains("canary"), "{script}: {reason}");
        }
    }
}
