//! `sidekey init`: a commented starter file, never over an existing one.

use std::io::Write as _;
use std::path::Path;

use super::{Failure, say};
use crate::config;

pub(super) fn write(path: &Path) -> Result<(), Failure> {
    let shown = path.display();
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).open(path).map_err(|error| {
        match error.kind() {
            std::io::ErrorKind::AlreadyExists => Failure::Configuration(format!(
                "{shown} exists already and is left as it is; name another: sidekey init FILE"
            )),
            _ => Failure::Running(format!("cannot write {shown}: {error}")),
        }
    })?;
    file.write_all(config::starter_file().as_bytes())
        .map_err(|error| Failure::Running(format!("cannot write {shown}: {error}")))?;
    say(format_args!("{shown} written; edit it, then: sidekey check -c {shown} && sidekey run -c {shown}"));
    Ok(())
}
