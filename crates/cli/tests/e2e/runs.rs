//! `farseek run` and what belongs to it, with real processes: as root, and as a user without any
//! right.

mod site;
mod process;
mod life;
mod editing;
mod live;
mod another;
mod startup;
mod exercisers;
pub(crate) mod oracle;
pub(crate) mod renders;
