//! Values of the section of groups.

use super::Value;

/// Which way a group may change its protocol while it has members.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Migration {
    /// Both ways.
    #[default]
    Bidirectional,
    /// From the classic protocol to that of consumers.
    Upgrade,
    /// From the consumers' protocol to the classic one.
    Downgrade,
    /// Neither way.
    Disabled,
}

impl Migration {
    pub(crate) fn upgrades(self) -> bool {
        matches!(self, Self::Bidirectional | Self::Upgrade)
    }

    pub(crate) fn downgrades(self) -> bool {
        matches!(self, Self::Bidirectional | Self::Downgrade)
    }
}

impl Value for Migration {
    fn read(&mut self, text: &str) -> Result<(), String> {
        *self = match text {
            "bidirectional" => Self::Bidirectional,
            "upgrade" => Self::Upgrade,
            "downgrade" => Self::Downgrade,
            "disabled" => Self::Disabled,
            _ => return Err("\"bidirectional\", \"upgrade\", \"downgrade\" or \"disabled\"".to_owned()),
        };
        Ok(())
    }

    fn show(&self) -> String {
        let name = match self {
            Self::Bidirectional => "bidirectional",
            Self::Upgrade => "upgrade",
            Self::Downgrade => "downgrade",
            Self::Disabled => "disabled",
        };
        name.to_owned()
    }
}
