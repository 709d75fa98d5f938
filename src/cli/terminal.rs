//! What standard output is: a terminal of some width that takes colours, or anything else.

use std::io::{IsTerminal as _, Write as _};

use crate::config::Environment;

/// What can be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Look {
    /// Columns; none: as many as it takes.
    pub(super) width: Option<usize>,
    /// Lines; none: there is no end to them.
    pub(super) height: Option<usize>,
    /// Colours and weights.
    pub(super) colour: bool,
    /// Can what is shown be replaced?
    pub(super) in_place: bool,
}

impl Look {
    /// Whatever is not a terminal: everything whole, nothing but text.
    pub(super) const PLAIN: Self = Self { width: None, height: None, colour: false, in_place: false };

    /// Of standard output, as it is now: windows change their size.
    pub(super) fn of_output(environment: &Environment) -> Self {
        let output = std::io::stdout();
        if !output.is_terminal() {
            return Self::PLAIN;
        }
        let size = rustix::termios::tcgetwinsize(&output).ok();
        // A terminal that does not know its size says 0.
        let of = |cells: u16| Some(usize::from(cells)).filter(|cells| *cells > 0);
        let is_dumb = environment.path("TERM").is_none_or(|name| name.as_os_str() == "dumb");
        Self {
            width: size.and_then(|size| of(size.ws_col)),
            height: size.and_then(|size| of(size.ws_row)),
            colour: !is_dumb && !environment.has("NO_COLOR"),
            in_place: !is_dumb,
        }
    }
}

/// The terminal's other screen, which leaves what was on the first as it was; dropped, the first one is back.
#[derive(Debug)]
pub(super) struct Screen;

impl Screen {
    pub(super) fn enter() -> Self {
        put("\x1b[?1049h\x1b[?25l");
        Self
    }

    /// Replaces what is shown, without a flicker: each line is cleared behind its end, and what is below the last.
    #[expect(clippy::unused_self, reason = "there is a screen only where one was entered")]
    pub(super) fn show(&self, lines: &[String], height: Option<usize>) {
        let most = height.unwrap_or(usize::MAX);
        let mut text = String::from("\x1b[H");
        let cut = if lines.len() > most { most.saturating_sub(1) } else { lines.len() };
        for (place, line) in lines[..cut].iter().enumerate() {
            text.push_str(if place > 0 { "\n" } else { "" });
            text.push_str(line);
            text.push_str("\x1b[K");
        }
        if cut < lines.len() {
            text.push_str(&format!("\n… {} more lines\x1b[K", lines.len() - cut));
        }
        text.push_str("\x1b[J");
        put(&text);
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        put("\x1b[?25h\x1b[?1049l");
    }
}

fn put(text: &str) {
    let mut output = std::io::stdout().lock();
    // A terminal that is gone shows nothing.
    let _ = output.write_all(text.as_bytes()).and_then(|()| output.flush());
}
