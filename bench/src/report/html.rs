//! html
pub fn page(_r: &super::Report) -> String { String::new() }
pub fn sweep(_r: &crate::run::sweep::Sweep) -> String { String::new() }
