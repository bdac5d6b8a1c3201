//! Keeping the store in order: what takes space, what is pinned, what is collected, and whether all of it is sound.

pub(in crate::cache) mod gc;
pub(in crate::cache) mod pins;
pub(in crate::cache) mod usage;
pub(in crate::cache) mod verify;
