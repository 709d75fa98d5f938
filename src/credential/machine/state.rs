//! An account's state in one word.

/// An account's state, in one word of the vocabulary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// No token yet; a fetch runs or is about to.
    Fetching,
    /// A valid token.
    Ready,
    /// A valid token, and a fetch for its successor.
    Refreshing,
    /// Nobody uses it, so no token is kept for it.
    Idle,
    /// The last fetch failed; a valid token may be left.
    Failing,
    /// The last fetch failed for good, and no token is left.
    Dead,
    /// Nothing but a login helps, and no token is left.
    #[serde(rename = "login_required")]
    LoginRequired,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 7] = [
        Self::Fetching,
        Self::Ready,
        Self::Refreshing,
        Self::Idle,
        Self::Failing,
        Self::Dead,
        Self::LoginRequired,
    ];

    /// In the word by which data names it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Fetching => "fetching",
            Self::Ready => "ready",
            Self::Refreshing => "refreshing",
            Self::Idle => "idle",
            Self::Failing => "failing",
            Self::Dead => "dead",
            Self::LoginRequired => "login_required",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_and_metrics_name_a_state_alike_and_each_has_its_place() {
        for (place, state) in State::ALL.into_iter().enumerate() {
            assert_eq!(state as usize, place);
            assert_eq!(serde_json::to_value(state).unwrap(), state.word());
        }
    }
}
