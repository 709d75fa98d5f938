//! Opening a browser: `$BROWSER`, else what the system opens links with.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use crate::config::Environment;

/// Opens a one-time link. That it does not work is no error: the link was printed. `hidden`: environment variables that
/// the browser must not inherit.
pub(super) fn open(link: &str, environment: &Environment, hidden: &[String]) {
    let chosen = environment.path("BROWSER").and_then(|browser| browser.into_os_string().into_string().ok());
    for words in candidates(chosen.as_deref(), link) {
        let [program, arguments @ ..] = words.as_slice() else { continue };
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        for name in hidden {
            command.env_remove(name);
        }
        // A process group of its own: Ctrl-C is for the login, not for the browser.
        if command.process_group(0).spawn().is_ok() {
            return;
        }
    }
}

/// The commands to try, in order. `$BROWSER` is a list with colons between; `%s` stands for the link.
fn candidates(chosen: Option<&str>, link: &str) -> Vec<Vec<String>> {
    let usual = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    let chosen = chosen.unwrap_or_default().split(':').filter(|command| !command.trim().is_empty());
    chosen
        .chain([usual])
        .map(|command| {
            let mut words: Vec<String> =
                command.split_whitespace().map(|word| word.replace("%s", link)).collect();
            if !command.contains("%s") {
                words.push(link.to_owned());
            }
            words
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_browser_is_chosen_as_other_programs_choose_it() {
        let usual = if cfg!(target_os = "macos") { "open l" } else { "xdg-open l" };
        let cases: [(Option<&str>, &[&str]); 5] = [
            (None, &[]),
            (Some(""), &[]),
            (Some("firefox"), &["firefox l"]),
            (Some("w3m -n:my-browser --url=%s --new"), &["w3m -n l", "my-browser --url=l --new"]),
            (Some(":/usr/bin/chromium:"), &["/usr/bin/chromium l"]),
        ];
        for (chosen, want) in cases {
            let got: Vec<String> = candidates(chosen, "l").into_iter().map(|words| words.join(" ")).collect();
            let want: Vec<&str> = want.iter().copied().chain([usual]).collect();
            assert_eq!(got, want, "{chosen:?}");
        }
    }
}
