//! Who comes in, who may do what, and who has a password.

pub(super) mod acls;
pub(super) mod entering;
pub(super) mod quotas;
pub(super) mod users;
