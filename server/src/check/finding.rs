//! What is thought of one item.

use serde::Serialize;

/// How an item stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(into = "&'static str")]
pub enum Verdict {
    /// Nothing to do.
    Ok,
    /// It cannot be seen from here, or there is nothing to recommend.
    NotJudged,
    /// It costs speed, or will under more load.
    CouldBeBetter,
    /// It costs safety, or most of the speed. The broker starts, and warns.
    MustChange,
    /// The broker does not start.
    ForbidsStart,
}

impl Verdict {
    /// In words. What forbids the start must change, like the rest that must.
    pub fn words(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::NotJudged => "not judged",
            Self::CouldBeBetter => "could be better",
            Self::MustChange | Self::ForbidsStart => "must change",
        }
    }

    /// Whether the command ends with exit code 1 for it.
    pub fn must_change(self) -> bool {
        matches!(self, Self::MustChange | Self::ForbidsStart)
    }
}

impl From<Verdict> for &'static str {
    fn from(verdict: Verdict) -> Self {
        verdict.words()
    }
}

/// What is thought of one item.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    /// What was found.
    pub value: String,
    /// What it should be.
    pub recommended: String,
    /// How it stands.
    pub verdict: Verdict,
    /// What is wrong with it and what that costs, a clause without a full stop. Empty if nothing is.
    pub why: String,
    /// The exact command that changes it, to be run as root.
    pub command: Option<String>,
    /// What to do where no command can, or instead of it: a clause in the imperative.
    pub advice: Option<String>,
}

impl Finding {
    /// All is well so far.
    pub(super) fn new(value: impl Into<String>, recommended: impl Into<String>) -> Self {
        Self {
            value: value.into(),
            recommended: recommended.into(),
            verdict: Verdict::Ok,
            why: String::new(),
            command: None,
            advice: None,
        }
    }

    /// The fact is not to be had; `reason` takes the place of the value.
    pub(super) fn unseen(reason: impl Into<String>, recommended: impl Into<String>) -> Self {
        Self::new(reason, recommended).not_judged()
    }

    pub(super) fn not_judged(mut self) -> Self {
        self.verdict = Verdict::NotJudged;
        self
    }

    pub(super) fn better(self, why: impl Into<String>) -> Self {
        self.wrong(Verdict::CouldBeBetter, why)
    }

    pub(super) fn must(self, why: impl Into<String>) -> Self {
        self.wrong(Verdict::MustChange, why)
    }

    pub(super) fn forbids(self, why: impl Into<String>) -> Self {
        self.wrong(Verdict::ForbidsStart, why)
    }

    fn wrong(mut self, verdict: Verdict, why: impl Into<String>) -> Self {
        self.verdict = verdict;
        self.why = why.into();
        self
    }

    pub(super) fn command(mut self, command: impl Into<String>) -> Self {
        self.command = Some(command.into());
        self
    }

    pub(super) fn advice(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }

    /// One sentence: what is wrong, and what to do.
    pub fn sentence(&self) -> String {
        let run = self.command.as_ref().map(|command| format!("run `{command}` as root"));
        let remedies: Vec<String> = run.into_iter().chain(self.advice.clone()).collect();
        format!("{}; {}.", self.why, remedies.join(", or "))
    }
}
